"""Models out: adapters by themselves, ONNX, int8, and folders that nobody needs Recaster for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from recaster import pipeline
from recaster.core.errors import BaseModelError, ExportError, RecipeError
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.customization.protocol import load_method
from recaster.data.synthetic import LABELS
from recaster.exporting import onnx
from recaster.exporting.adapter_form import ADAPTER, check_base, merge_adapter_form, write_adapter_form
from recaster.exporting.graphs import read_graph
from recaster.models.causal_models import build_causal_model
from recaster.models.open_pictures import build_picture_classifier
from recaster.pipeline.export_verbs import export_model
from recaster.recipe.customize import CustomizeSection
from tests.conftest import ROOT
from tests.contract.method_runs import make_project, write_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("export")]
_QUICK = ("train.epochs=1", "evaluate.bootstrap_samples=100")
_TOKENS = torch.tensor([[2, 40, 41, 42, 3], [2, 50, 3, 0, 0]])


class Released(NamedTuple):
    """Two adapters over one base: a registered model `one`, and another model's folder."""

    casts: dict[str, pipeline.Cast]
    base: Path
    two: str

    def export(self, source: str, to: Path, **options: Any) -> dict[str, Any]:
        wanted = {"form": "hf", "int8": False, "adapter_only": False, "base": None, **options}
        return export_model(self.casts["one"].settings, source, to, reporter=SilentReporter(), **wanted)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    recipe = make_project(tmp_path_factory.mktemp("out") / "a project", labels=list(LABELS))
    patch = pytest.MonkeyPatch()
    for name in ("RECASTER_HOME", "MLFLOW_TRACKING_URI"):
        patch.delenv(name, raising=False)
    lora = ("customize.method=lora", "customize.lora.rank=4", *_QUICK)
    casts = {
        name: pipeline.open_cast(recipe, [f"name={name}", f"train.seed={seed}", *lora])
        for seed, name in enumerate(("one", "two"), 1)
    }
    patch.undo()
    assert pipeline.run(casts["one"], SilentReporter()).accepted
    two = pipeline.run_to(casts["two"], "export", SilentReporter()).path
    base = pipeline.fetch_cast_base(casts["one"], SilentReporter())
    assert base
    return Released(casts, base.path, str(two))


def _load(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def _answers(network: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = network(input_ids=_TOKENS, attention_mask=(_TOKENS != 0).long()).logits
    return logits


def _over(base: Path, adapter: Path, labels: int = len(LABELS)) -> Any:
    """As a user of peft does it."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    return PeftModel.from_pretrained(network, adapter).eval()


def test_the_folder_is_read_where_recaster_is_not(released: Released, tmp_path: Path) -> None:
    released.export("one", tmp_path / "hf")
    code = (
        "import sys, json; sys.modules['recaster'] = None\n"
        "import torch; from transformers import AutoModelForSequenceClassification as Auto, AutoTokenizer\n"
        "told = AutoTokenizer.from_pretrained(sys.argv[1])(['play old jazz'], return_tensors='pt')\n"
        "told.pop('token_type_ids', None)\n"
        "with torch.no_grad(): logits = Auto.from_pretrained(sys.argv[1]).eval()(**told).logits\n"
        "print(json.dumps([told['input_ids'].tolist(), logits.tolist(), 'mlflow' in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "hf")], capture_output=True, text=True, check=True
    )
    tokens, logits, heavy = json.loads(done.stdout)
    served = pipeline.run_to(released.casts["one"], "export", SilentReporter()).path
    with torch.no_grad():
        wanted = _load(served)(input_ids=torch.tensor(tokens)).logits
    torch.testing.assert_close(torch.tensor(logits), wanted, atol=1e-6, rtol=0)
    assert not heavy
    assert not (tmp_path / "hf" / ADAPTER).exists() and (tmp_path / "hf" / "README.md").exists()


def test_adapters_share_a_base(released: Released, tmp_path: Path) -> None:
    for name, source in (("one", "one"), ("two", released.two)):
        told = released.export(source, tmp_path / name, adapter_only=True)
        assert sum(told["files"].values()) < 200_000
        released.export(source, tmp_path / f"{name}-merged")
    both = _over(released.base, tmp_path / "one")
    both.load_adapter(tmp_path / "two", adapter_name="two")
    for adapter, name in (("default", "one"), ("two", "two"), ("default", "one")):
        both.set_adapter(adapter)
        merged = _answers(_load(tmp_path / f"{name}-merged"))
        torch.testing.assert_close(_answers(both), merged, atol=1e-5, rtol=0)
    assert (
        _answers(_load(tmp_path / "one-merged")) - _answers(_load(tmp_path / "two-merged"))
    ).abs().max() > 0.01


def test_an_adapter_s_folder_is_merged_into_its_base(released: Released, tmp_path: Path) -> None:
    released.export("one", tmp_path / "alone", adapter_only=True)
    released.export(str(tmp_path / "alone"), tmp_path / "merged")
    released.export("one", tmp_path / "wanted")
    torch.testing.assert_close(
        _answers(_load(tmp_path / "merged")), _answers(_load(tmp_path / "wanted")), atol=1e-6, rtol=0
    )
    assert read_json(tmp_path / "merged" / "preprocessing.json")["max_tokens"] == 24


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"hidden_size": 64}, "hidden_size is 64 here, 32 there"), ({}, "with other weights")],
)
def test_an_adapter_for_another_base_is_refused(
    released: Released, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    released.export("one", tmp_path / "alone", adapter_only=True)
    project = released.casts["one"].settings.project
    other = project / f"other{len(changes)}"
    shutil.copytree(project / "base", other, dirs_exist_ok=True)
    write_model(other, seed=5, **changes)
    with pytest.raises(BaseModelError, match=reason):
        check_base(tmp_path / "alone", other)
    with pytest.raises(BaseModelError, match="another base"):
        released.export(str(tmp_path / "alone"), tmp_path / "merged", base=f"path:{other.name}")
    assert not (tmp_path / "merged").exists()


def test_onnx_answers_as_torch_does(released: Released, tmp_path: Path) -> None:
    from onnxruntime import InferenceSession

    told = released.export("one", tmp_path / "onnx", form="onnx", int8=True)
    assert told["real_rows"] and told["difference"]["float32"]["largest"]["logits"] < 1e-4
    assert told["difference"]["int8"]["agreement"] > 0.9
    assert told["bytes"]["int8"] < told["bytes"]["float32"]
    assert "model_int8.onnx" in told["files"] and "model.onnx" not in told["files"]
    assert {"tokenizer.json", "config.json", "preprocessing.json", "README.md"} <= set(told["files"])
    released.export("one", tmp_path / "float", form="onnx")
    session = InferenceSession(str(tmp_path / "float" / "model.onnx"), providers=["CPUExecutionProvider"])
    wanted = _load(pipeline.run_to(released.casts["one"], "export", SilentReporter()).path)
    for rows, length in ((1, 1), (2, 3), (7, 24)):
        tokens = torch.randint(5, 300, (rows, length))
        mask = torch.ones_like(tokens)
        (logits,) = session.run(None, {"input_ids": tokens.numpy(), "attention_mask": mask.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(
                torch.from_numpy(logits),
                wanted(input_ids=tokens, attention_mask=mask).logits,
                atol=1e-4,
                rtol=0,
            )


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> pipeline.Cast:
    """A registered classifier of pictures."""
    folder = tmp_path_factory.mktemp("pictures") / "a project"
    folder.mkdir()
    shutil.copy(ROOT / "recipes" / "image-classification" / "tiny.yaml", folder / "tiny.yaml")
    patch = pytest.MonkeyPatch()
    for name in ("RECASTER_HOME", "MLFLOW_TRACKING_URI"):
        patch.delenv(name, raising=False)
    cast = pipeline.open_cast(folder / "tiny.yaml", _QUICK[1:])
    patch.undo()
    assert pipeline.run(cast, SilentReporter()).accepted
    return cast


def test_pictures_too_in_int8_with_measured_ranges(digits: pipeline.Cast, tmp_path: Path) -> None:
    from onnxruntime import InferenceSession

    options: dict[str, Any] = {"form": "onnx", "int8": True, "adapter_only": False, "base": None}
    name = digits.recipe.name
    told = export_model(digits.settings, name, tmp_path / "int8", reporter=SilentReporter(), **options)
    assert told["real_rows"] and told["difference"]["int8"]["agreement"] > 0.95
    session = InferenceSession(str(tmp_path / "int8" / "model_int8.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"pixels": torch.rand(3, 1, 8, 8).numpy()})
    assert logits.shape == (3, len(digits.recipe.data.labels))
    served = pipeline.run_to(digits, "export", SilentReporter()).path
    made_up = read_graph(served, None)
    assert not made_up.real
    onnx.write_onnx(made_up, tmp_path / "noise.onnx")


def _open_model(kind: str, folder: Path) -> Any:
    """A base with random weights, and the model over it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(1)
    if kind == "chat":
        config = AutoConfig.for_model("llama", vocab_size=300, num_key_value_heads=2, **sizes)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return build_causal_model(base=folder, scratch={"vocabulary": 300})
    config = AutoConfig.for_model("vit", image_size=16, patch_size=4, **sizes)
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    return build_picture_classifier(folder, ["cat", "dog", "owl"])


@pytest.mark.parametrize("kind", ["chat", "image"])
def test_other_kinds_have_an_adapter_form_too(kind: str, tmp_path: Path) -> None:
    method = load_method({"customize": {"method": "lora"}})
    lora = {"targets": ["q_proj", "v_proj"]}
    plan = {"customize": CustomizeSection.model_validate({"method": "lora", "lora": lora}).model_dump()}
    model = method.apply(_open_model(kind, tmp_path / "base"), plan)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.normal_(std=0.2)
    inputs = torch.randint(1, 300, (2, 6)) if kind == "chat" else torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        wanted = model.eval()(inputs)
    about = {"kind": kind}
    assert write_adapter_form(tmp_path / "alone", model, base=tmp_path / "base", preprocessing=about)
    model.network = merge_adapter_form(tmp_path / "alone", tmp_path / "base")
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(inputs), wanted, atol=1e-4, rtol=1e-4)


class _Other(torch.nn.Module):
    """Answers otherwise once it is exported."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(input_ids, attention_mask)
        return logits + 0.01 if torch.compiler.is_exporting() else logits


def test_a_graph_that_answers_otherwise_is_refused(released: Released, tmp_path: Path) -> None:
    artifact = pipeline.run_to(released.casts["one"], "export", SilentReporter()).path
    graph = read_graph(artifact, None)
    assert not graph.real
    with pytest.raises(ExportError, match="answers otherwise"):
        onnx.write_onnx(replace(graph, module=_Other(graph.module)), tmp_path / "model.onnx")
    onnx.write_int8(graph, tmp_path / "model.onnx", tmp_path / "int8.onnx")
    with torch.no_grad():
        graph.module.network.classifier.bias[0] += 2
    with pytest.raises(ExportError, match="no longer the same"):
        onnx.write_int8(graph, tmp_path / "model.onnx", tmp_path / "int8.onnx")


def test_wrong_choices_are_refused(released: Released, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for source, options, reason in (
        ("one", {"int8": True}, "int8 is a form of ONNX"),
        ("one", {"adapter_only": True, "form": "onnx"}, "no graph"),
        (str(released.base), {}, "no exported model"),
        ("three", {}, "no such model"),
    ):
        with pytest.raises(RecipeError, match=reason):
            released.export(source, tmp_path / "new", **options)
    with pytest.raises(RecipeError, match="not overwritten"):
        released.export("one", tmp_path / "full")
    served = pipeline.run_to(released.casts["one"], "export", SilentReporter()).path
    shutil.copytree(served, tmp_path / "plain", ignore=shutil.ignore_patterns(ADAPTER))
    with pytest.raises(RecipeError, match="no adapter form"):
        released.export(str(tmp_path / "plain"), tmp_path / "new", adapter_only=True)
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".*.work"))


def test_without_the_packages_of_onnx_it_says_what_to_install(released: Released, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None; sys.argv = ['recaster', *sys.argv[1:]]\n"
        "from recaster.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "export", "one", "--to", str(tmp_path / "x"), "--format", "onnx"],
        cwd=released.casts["one"].settings.project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "pip install 'recaster[onnx]'" in done.stderr, done.stderr
