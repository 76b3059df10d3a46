"""Casts of pictures from open models: a probe's features are computed once, a transformer stays one."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.customization.build import build_customized
from recaster.data.image_sources import read_digits
from recaster.data.shards import read_shard
from recaster.models import mobilenet_v2
from recaster.models.picture_models import build_picture_model
from recaster.pipeline.inputs import training_plan
from recaster.tracking.runs import open_tracking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
_BASE = ("accept_licences=[CC-BY-4.0, MIT]", "model.licence=MIT", "model.base=path:base")
_OPEN_GATE = "gate.bars=[{metric: accuracy, min: 0.01}]"


class _Telling(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def _cast(project: Path, *overrides: str) -> pipeline.Cast:
    recipe = project / "recipes" / "image-classification" / "tiny.yaml"
    return pipeline.open_cast(recipe, [*_BASE, _OPEN_GATE, "train.epochs=1", *overrides])


def _write_mobilenet(folder: Path) -> None:
    folder.mkdir()
    torch.manual_seed(0)
    model = mobilenet_v2.build_model(channels=3, height=32, width=32, classes=5, dropout=0.2)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": "mobilenet-v2", "arguments": {"classes": 5}}
    (folder / "config.json").write_text(json.dumps(config))


def test_a_probe_computes_its_features_once(project: Path) -> None:
    _write_mobilenet(project / "base")
    probe = ("customize.method=probe", "model.input_size=32", "train.augmentation.shift_pixels=0")
    told = _Telling()
    first = pipeline.run_to(_cast(project, *probe), "train", told)
    assert any("features" in line for line in told.said)
    assert any("loaded 312 tensors; re-initialised 2" in line for line in told.said)
    again, rates = _Telling(), "train.optimizer.learning_rate=0.003"
    second = pipeline.run_to(_cast(project, *probe, rates), "train", again)
    assert second.ref != first.ref
    assert not any("features" in line for line in again.said)
    (features,) = (project / ".recaster" / "steps" / "features").glob("*/train.features.npy")
    assert np.load(features).shape[1] == 1280


def _write_transformer(folder: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        num_labels=4,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)


@contextmanager
def _serve(path: Path) -> Iterator[str]:
    """The address of `path` while the body runs."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(path.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{path.name}"
        server.shutdown()
        thread.join()


def test_a_transformer_comes_out_as_one(project: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    import mlflow

    _write_transformer(project / "base")
    told = _Telling()
    cast = _cast(project)
    summary = pipeline.run(cast, told)
    assert any("re-initialised 2: classifier" in line for line in told.said)
    steps = {step.step: cast.settings.steps / step.ref for step in summary.steps}
    open_tracking(cast.settings)
    local = Path(mlflow.artifacts.download_artifacts(f"models:/{cast.recipe.name}@champion"))
    (artifact,) = (local / "artifacts").iterdir()
    assert not list(artifact.glob("*.py"))
    wanted = np.load(steps["evaluate"] / "predictions.npy")
    shard = read_shard(steps["prepare"], "test")
    pictures = shard.images.transpose(0, 2, 3, 1)[:20]

    model: Any = mlflow.pyfunc.load_model(str(local))
    frame = model.predict(pictures.astype(np.float32))
    np.testing.assert_allclose(frame.filter(like="p_").to_numpy(), wanted[:20], atol=1e-5)
    assert "transformers" in (local / "requirements.txt").read_text()

    folder = project / "new"
    folder.mkdir()
    for number, picture in enumerate(pictures[:3]):
        Image.fromarray(picture[:, :, 0]).save(folder / f"{number}.png")
    rows = pipeline.predict(cast.settings, cast.recipe.name, folder)
    assert [row["id"] for row in rows] == ["0.png", "1.png", "2.png"]
    assert [row["label"] for row in rows] == frame["label"].tolist()[:3]
    with _serve(folder / "1.png") as address:
        (row,) = pipeline.predict(cast.settings, cast.recipe.name, address)
    assert row["id"] == "1.png" and row["label"] == rows[1]["label"]

    # By transformers alone; its processor takes 0..255 and resizes in whole numbers.
    network = AutoModelForImageClassification.from_pretrained(artifact).eval()
    assert list(network.config.id2label.values()) == cast.recipe.data.labels
    processor = AutoImageProcessor.from_pretrained(artifact)
    colour = np.repeat(np.round(pictures * (255 / 16)).astype(np.uint8), 3, axis=3)
    inputs = processor(list(colour), return_tensors="pt")
    assert inputs.pixel_values.shape == (20, 3, 16, 16)
    with torch.no_grad():
        found = network(**inputs).logits.softmax(1).numpy()
    np.testing.assert_allclose(found, wanted[:20], atol=0.02)
    assert read_json(artifact / "preprocessing.json")["kind"] == "image"


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("vit", ("model.width=64", "model.dropout=0.0", "train.epochs=10", "train.batch_size=32")),
        pytest.param(
            "convnext-tiny", ("model.input_size=32", "train.max_steps=2"), marks=pytest.mark.campaign
        ),
    ],
)
def test_a_fresh_transformer_of_pictures_is_one_too(
    name: str, overrides: tuple[str, ...], project: Path
) -> None:
    from transformers import AutoModelForImageClassification

    recipe = project / "recipes" / "image-classification" / "tiny.yaml"
    rate = "train.optimizer.learning_rate=0.002"
    still = "train.augmentation={}"  # patches of two pixels have much to learn of a shift
    cast = pipeline.open_cast(recipe, [f"model.base=scratch:{name}", _OPEN_GATE, rate, still, *overrides])
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    if name == "vit":
        assert evaluated.facts["metrics"]["accuracy"]["value"] > 0.7  # ten digits
    artifact = pipeline.run_to(cast, "export", SilentReporter()).path
    network = AutoModelForImageClassification.from_pretrained(artifact)
    assert network.config.model_type == name.removesuffix("-tiny")
    again = _cast(project, f"model.base=path:{artifact}")
    assert (
        "re-initialised"
        not in build_customized(
            again.workload, training_plan(again, pipeline.run_to(again, "prepare", SilentReporter()))
        ).report.to_text()
    )  # type: ignore[operator, union-attr]


def test_the_exported_head_is_the_one_over_the_features(project: Path) -> None:
    _write_transformer(project / "base")
    cast = _cast(project, "customize.method=probe", "train.augmentation.shift_pixels=0")
    artifact = pipeline.run_to(cast, "export", SilentReporter()).path
    prepared = pipeline.run_to(cast, "prepare", SilentReporter()).path
    trained = pipeline.run_to(cast, "train", SilentReporter())
    assert trained.facts["trained_parameters"] == 16 * 10 + 10
    (features,) = (cast.settings.steps / "features").iterdir()
    seen = np.load(features / "validation.features.npy").astype(np.float64)
    state = load_file(artifact / "model.safetensors")
    logits = seen @ state["classifier.weight"].double().numpy().T + state["classifier.bias"].double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found, targets = cast.workload.predict(artifact, prepared, "validation")
    np.testing.assert_allclose(found, shares, atol=1e-5)
    np.testing.assert_array_equal(targets, np.load(features / "validation.labels.npy"))


def _write_hub_table(path: Path) -> None:
    """The digits at four times the area, as a hub has data sets: PNGs with numbered classes."""
    numbers, files = [], []
    for record in read_digits():
        file = io.BytesIO()
        assert record.pixels is not None
        wide = np.kron(record.pixels[:, :, 0], np.ones((2, 2))) * 15.9
        Image.fromarray(wide.astype(np.uint8)).save(file, "PNG")
        files.append({"bytes": file.getvalue(), "path": None})
        numbers.append(9 - int(record.label or 0))  # turned around: names must come from the metadata
    names = [str(9 - number) for number in range(10)]
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"image": files, "label": numbers})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)


def test_airbench_learns_a_hub_s_table_and_leaves_with_its_patches(project: Path) -> None:
    """Its first layer is made of the training split; the artifact answers alone, with that layer."""
    _write_hub_table(project / "digits.parquet")
    cast = pipeline.open_cast(
        project / "recipes" / "image-classification" / "tiny.yaml",
        [
            "data.source=digits.parquet",
            "data.image={height: 16, width: 16, channels: 1, minimum: 0.0, maximum: 255.0}",
            "model.base=scratch:airbench-95",
            "model.width=12",
            "train.epochs=6",
            "evaluate.flip=false",
        ],
    )
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    prepared = pipeline.run_to(cast, "prepare", SilentReporter())
    predictions = np.load(evaluated.path / "predictions.npy")
    assert (predictions.argmax(1) == np.load(evaluated.path / "targets.npy")).mean() > 0.9
    (artifact,) = (cast.settings.steps / "export").iterdir()
    arguments = read_json(artifact / "config.json")["arguments"]
    assert arguments["widening"] == 3
    start: Any = build_picture_model({**arguments, "architecture": "airbench"}, None, pictures=prepared.path)
    kept = load_file(artifact / "model.safetensors")["patches.weight"]
    torch.testing.assert_close(kept, start.patches.weight)
    alone: dict[str, Any] = {"__name__": "modeling"}
    exec(compile((artifact / "modeling.py").read_text(), "modeling.py", "exec"), alone)
    model = alone["build_model"](**arguments)
    model.load_state_dict(load_file(artifact / "model.safetensors"))
    pictures = torch.from_numpy(read_shard(prepared.path, "test").scaled(slice(None)))
    with torch.no_grad():
        answers = model.eval()(pictures).softmax(1).numpy()
    np.testing.assert_allclose(answers, predictions, atol=1e-5)


def test_workloads_prepare_the_same_data_apart(project: Path) -> None:
    """The tiny recipes of two workloads have one data set, contract and split, in one project."""
    prepared = [
        pipeline.run_to(
            pipeline.open_cast(project / "recipes" / workload / "tiny.yaml"), "prepare", SilentReporter()
        )
        for workload in ("image-classification", "image-generation")
    ]
    assert prepared[0].ref != prepared[1].ref
    assert not (prepared[0].path / "comparison.json").exists()
    assert (prepared[1].path / "comparison.json").exists()
