"""References, licences, catalogue, and which files are a model's: no network, no weights."""

from __future__ import annotations

from pathlib import Path

import pytest

import recaster.workloads
from recaster.bases.catalogue import find_known, read_catalogue, resolve_base
from recaster.bases.licences import check_licence, read_licence
from recaster.bases.reference import parse_reference
from recaster.bases.weight_files import choose_beside, choose_weights
from recaster.core.errors import BaseModelError, RecipeError
from recaster.core.settings import find_settings

DIGEST = "a" * 64


def test_each_kind_is_read() -> None:
    hub = parse_reference(f"hf:org/some-model.v1@{'0' * 40}")
    assert (hub.name, hub.revision, hub.pinned) == ("org/some-model.v1", "0" * 40, True)
    assert not parse_reference("hf:org/name@refs/pr/1").pinned
    wheel = parse_reference(f"wheel:some-dist==1.0.post1/pkg/model/w.bin#sha256={DIGEST.upper()}")
    assert (wheel.name, wheel.revision, wheel.inner, wheel.sha256) == (
        "some-dist",
        "1.0.post1",
        "pkg/model/w.bin",
        DIGEST,
    )
    assert parse_reference("path:my models/one").name == "my models/one"
    assert parse_reference("models:/digits@champion").revision == "champion"
    assert parse_reference("models:/digits/3").revision == "3"
    assert parse_reference("scratch:small-cnn").name == "small-cnn"


@pytest.mark.parametrize(
    ("text", "repair"),
    [
        ("bert-base", "hf:org/name@revision, path:DIR"),
        ("s3:bucket/model", "scratch:ARCHITECTURE"),
        ("hf:org/name", "Files and versions"),
        ("hf:name@main", "hf:org/name@revision"),
        ("hf:org/../name@main", "hf:org/name@revision"),
        ("hf:org/name@../../x", "hf:org/name@revision"),
        ("path:", "path:DIR"),
        ("wheel:dist/inner#sha256=aa", "dist==version"),
        ("wheel:dist==1/inner", "sha256sum"),
        ("wheel:dist==1/inner#sha256=abc", "64 hexadecimal"),
        (f"wheel:dist==1/../inner#sha256={DIGEST}", "of the wheel"),
        (f"wheel:dist==1//etc/passwd#sha256={DIGEST}", "of the wheel"),
        (f"wheel:--index-url==1/inner#sha256={DIGEST}", "dist==version"),
        ("models:digits", "models:/name@alias"),
        ("scratch:../cnn", "scratch:small-cnn"),
    ],
)
def test_malformed_references_say_how_to_write_them(text: str, repair: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_reference(text)
    assert repair in caught.value.repair
    assert text in str(caught.value.value)


def test_the_catalogue_is_whole() -> None:
    modules = Path(recaster.workloads.__file__).parent.glob("*.py")
    workloads = {path.stem.replace("_", "-") for path in modules} - {"protocol"}
    for base in read_catalogue():
        assert base.reference.pinned
        assert base.parameters > 0 and base.bytes > base.parameters
        assert base.kind in {"transformers", "torch", "vectors"} and set(base.workloads) <= workloads
        assert find_known(base.name) is find_known(base.reference.text) is base


def test_a_misspelt_name_is_told_the_nearest() -> None:
    with pytest.raises(RecipeError, match="smollm2-135m-instruct"):
        resolve_base("smolm2-135m-instruct")


@pytest.mark.parametrize(
    ("licence", "accepted", "fine"),
    [
        ("apache-2.0", ["MIT", "Apache-2.0"], True),
        ("GPL-3.0", ["MIT", "Apache-2.0"], False),
        ("MIT OR GPL-3.0", ["MIT"], True),
        ("MIT AND GPL-3.0", ["MIT"], False),
        ("MIT AND BSD-3-Clause", ["MIT", "BSD-3-Clause"], True),
        ("(MIT OR Apache-2.0) AND GPL-3.0", ["MIT"], False),
        ("MIT", [], False),
    ],
)
def test_the_licence_gate(licence: str, accepted: list[str], fine: bool) -> None:
    if fine:
        check_licence(licence, accepted, of="the base model", where="model.base")
        return
    with pytest.raises(RecipeError, match="not accepted") as caught:
        check_licence(licence, accepted, of="the base model", where="model.base")
    assert licence in str(caught.value) and "accept_licences" in caught.value.repair


def test_whose_word_on_the_licence_counts(tmp_path: Path) -> None:
    settings = find_settings(tmp_path, {"RECASTER_OFFLINE": "1"})
    known = resolve_base("mobilenet-v2")
    assert read_licence(known, stated=None, settings=settings) == "BSD-3-Clause"
    with pytest.raises(RecipeError, match="another licence"):
        read_licence(known, stated="MIT", settings=settings)
    own = parse_reference("path:mine")
    assert read_licence(own, stated="MIT", settings=settings) == "MIT"
    with pytest.raises(RecipeError, match="unknown"):
        read_licence(own, stated=None, settings=settings)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["model.safetensors", "pytorch_model.bin", "modeling.py"], ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
        (
            [
                "consolidated.safetensors",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (["weights/table.safetensors", "algorithms/kmeans.c"], ["weights/table.safetensors"]),
        (["pytorch_model.bin", "training_args.bin", "optimizer.pt"], ["pytorch_model.bin"]),
        (["a.gguf", "b.pth"], ["b.pth"]),
    ],
)
def test_which_files_are_the_weights(names: list[str], wanted: list[str]) -> None:
    assert choose_weights(names, where="here") == wanted


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["config.json"], "no weights"),
        (["adapter_config.json", "adapter_model.safetensors"], "adapter"),
        (["a.Q4_0.gguf", "a.Q8_0.gguf"], "several weight files"),
    ],
)
def test_folders_without_one_model_are_refused(names: list[str], what: str) -> None:
    with pytest.raises(BaseModelError, match=what):
        choose_weights(names, where="here")


def test_code_and_other_formats_stay_behind() -> None:
    names = [
        "config.json",
        "modeling_x.py",
        "onnx/config.json",
        "1_Pooling/config.json",
        ".gitattributes",
        "LICENSE",
    ]
    assert choose_beside([*names, "base.json"]) == ["1_Pooling/config.json", "LICENSE", "config.json"]
