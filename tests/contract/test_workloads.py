"""What every workload must do, examined on its tiny recipe; found by looking, so adding one is one module.

src/recaster/workloads/image_classification.py   WORKLOAD = …
recipes/image-classification/tiny.yaml           workload: image-classification
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.hashing import hash_file
from recaster.core.progress import Progress, SilentReporter
from recaster.data.packed import PackedRecord, read_accepted
from recaster.models.nms import pair_iou
from recaster.pipeline.inputs import training_plan
from recaster.recipe.load import load_recipe
from recaster.tracking.runs import open_tracking
from recaster.training.journal import read_journal
from recaster.workloads.protocol import Workload
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
_MODULES = ROOT / "src" / "recaster" / "workloads"


def _has_workload(path: Path) -> bool:
    body = ast.parse(path.read_text()).body
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    return any(isinstance(target, ast.Name) and target.id == "WORKLOAD" for target in targets)


FOUND = sorted(path.stem for path in _MODULES.glob("*.py") if _has_workload(path))


class Examined(NamedTuple):
    """One tiny cast of a workload, from raw data to the verdict."""

    cast: pipeline.Cast
    summary: pipeline.CastSummary

    def step(self, name: str) -> Path:
        """The folder of a finished step."""
        (ref,) = [step.ref for step in self.summary.steps if step.step == name]
        return self.cast.settings.steps / ref


def _tiny(workload: str) -> Path:
    return Path("recipes") / workload.replace("_", "-") / "tiny.yaml"


def _make_project(folder: Path, workload: str) -> Path:
    recipe = folder / _tiny(workload)
    recipe.parent.mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copy(ROOT / _tiny(workload), recipe)
    return recipe


@pytest.fixture(
    scope="module", params=[pytest.param(one, marks=pytest.mark.xdist_group(one)) for one in FOUND]
)
def examined(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Examined:
    recipe = _make_project(tmp_path_factory.mktemp("a project"), request.param)
    patch = pytest.MonkeyPatch()
    for name in ("RECASTER_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        patch.delenv(name, raising=False)
    cast = pipeline.open_cast(recipe)
    patch.undo()
    return Examined(cast, pipeline.run(cast, SilentReporter()))


def test_its_training_is_foreseen(examined: Examined) -> None:
    checked = pipeline.check(examined.cast, SilentReporter())
    result, forecast = read_json(examined.step("train") / "result.json"), checked["forecast"]
    assert forecast["refused"] == []
    assert forecast["time"]["steps"] == result["steps"]
    assert (forecast["parameters"], forecast["trained_parameters"]) == (
        result["parameters"],
        result["trained_parameters"],
    )
    assert forecast["memory"]["resident"] / 2**20 == pytest.approx(result["peak_memory_mib"], rel=0.3)
    assert [one["exact"] for one in checked["leakage"]] == [0, 0, 0]


def test_workloads_and_tiny_recipes_go_together() -> None:
    assert FOUND
    named = {load_recipe(path).workload.replace("-", "_") for path in ROOT.glob("recipes/*/tiny.yaml")}
    assert named == set(FOUND)
    for workload in FOUND:
        assert load_recipe(ROOT / _tiny(workload)).workload.replace("-", "_") == workload


@pytest.mark.parametrize("workload", FOUND)
def test_the_protocol_is_met(workload: str) -> None:
    given = importlib.import_module(f"recaster.workloads.{workload}").WORKLOAD
    wanted = {
        name: member
        for owner in Workload.__mro__
        for name, member in vars(owner).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert {"rules", "prepare", "predict", "build_model", "open_split"} <= set(wanted)
    for name, member in wanted.items():
        parameters = list(inspect.signature(member).parameters)[1:]
        assert list(inspect.signature(getattr(given, name)).parameters) == parameters, name


def test_a_batch_does_not_depend_on_where_the_run_was_cut(examined: Examined) -> None:
    cast = examined.cast
    (prepared,) = [
        result
        for result in [pipeline.run_to(cast, "prepare", SilentReporter())]
        if result.path == examined.step("prepare")
    ]
    plan = training_plan(cast, prepared)
    rows = np.random.default_rng(0).permutation(len(cast.workload.open_split(prepared.path, "train", plan)))[
        :40
    ]
    for seed in (None, 5):
        whole = cast.workload.open_split(prepared.path, "train", plan).batch(rows, seed=seed)
        for cut in (1, 17, 39):
            again = cast.workload.open_split(prepared.path, "train", plan)
            tail, head = again.batch(rows[cut:], seed=seed), again.batch(rows[:cut], seed=seed)
            for part, first, second in zip(whole, head, tail, strict=True):
                assert torch.equal(part, _stack(first, second, part)), f"cut at {cut}, seed {seed}"
        assert len(again.ids(rows)) == len(set(again.ids(rows))) == len(rows)


def _stack(first: torch.Tensor, second: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Both after each other; rows of unequal length are filled up as in `whole`."""
    if whole.ndim == 1 or first.shape[1:] == second.shape[1:] == whole.shape[1:]:
        return torch.cat([first, second])
    stacked = whole.clone()  # what fills up is at the end of rows, and the same everywhere
    for start, part in ((0, first), (len(first), second)):
        rows = stacked[start : start + len(part)]
        assert rows[:, part.shape[1] :].unique().numel() <= 1
        rows[:, : part.shape[1]] = part
    return stacked


def test_it_trains(examined: Examined) -> None:
    journal = read_journal(examined.step("train") / "journal.jsonl")
    # No loss of a game need fall: there it is the distance to the held-out records.
    kind = "validation" if any("generator_loss" in record for record in journal) else "train"
    losses = [record["loss"] for record in journal if record["kind"] == kind]
    assert all(math.isfinite(loss) for loss in losses)
    quarter = len(losses) // 4
    assert np.mean(losses[-quarter:]) < 0.7 * np.mean(losses[:quarter])


class _Interrupt(SilentReporter):
    """Ctrl-C once some checkpoints are written."""

    def advance(self, progress: Progress) -> None:
        if progress.step >= 30:
            raise KeyboardInterrupt


@pytest.mark.campaign
def test_it_resumes_bit_for_bit(examined: Examined, tmp_path: Path) -> None:
    longer = ["train.epochs=20", "train.record_every_steps=1"]  # long enough to be cut in the middle
    whole = pipeline.open_cast(examined.cast.path, longer)
    wanted = pipeline.run_to(whole, "train", SilentReporter())
    recipe = _make_project(tmp_path / "cut", examined.cast.recipe.workload.replace("-", "_"))
    cast = pipeline.open_cast(recipe, longer)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run_to(cast, "train", _Interrupt())
    (work,) = (cast.settings.steps / "train").glob("*.work")
    assert not (work / "result.json").exists() and list((work / "checkpoints").iterdir())
    cut_at = read_journal(work / "journal.jsonl")[-1]["step"]
    resumed = pipeline.run_to(cast, "train", SilentReporter())
    steps = [r["step"] for r in read_journal(resumed.path / "journal.jsonl") if r["kind"] == "train"]
    assert cut_at < steps[-1] and steps == list(range(1, steps[-1] + 1))
    assert hash_file(resumed.path / "weights.safetensors") == hash_file(wanted.path / "weights.safetensors")


def test_it_evaluates_and_passes_the_gate(examined: Examined) -> None:
    summary, metrics = examined.summary, read_json(examined.step("evaluate") / "metrics.json")
    assert summary.accepted and summary.champion == summary.model_version == "1", summary.reasons
    assert metrics["rows"] > 0 and metrics["metrics"] == summary.metrics
    for bar in examined.cast.recipe.gate.bars:
        entry = summary.metrics[bar.metric]
        assert entry["low"] <= entry["value"] <= entry["high"] and entry["low"] < entry["high"]


def test_it_exports_an_open_artifact(examined: Examined) -> None:
    """Safetensors that others read; answers as the evaluation did; MLflow can ask it."""
    import mlflow

    cast = examined.cast
    open_tracking(cast.settings)
    local = Path(mlflow.artifacts.download_artifacts(f"models:/{cast.recipe.name}@champion"))
    (artifact,) = (local / "artifacts").iterdir()
    names = {path.name for path in artifact.iterdir()}
    assert {"model.safetensors", "config.json", "preprocessing.json", "README.md"} <= names
    assert [path for path in local.rglob("*") if path.suffix in {".pkl", ".pt", ".pth", ".bin"}] == []
    if "modeling.py" in names:
        _check_modeling_code(artifact)
    else:
        from transformers import AutoConfig, AutoTokenizer

        assert AutoConfig.from_pretrained(artifact).architectures
        assert AutoTokenizer.from_pretrained(artifact)("a text").input_ids
    told, _ = cast.workload.predict(artifact, examined.step("prepare"), "test")
    np.testing.assert_allclose(told, np.load(examined.step("evaluate") / "predictions.npy"), atol=1e-6)
    model: Any = mlflow.pyfunc.load_model(str(local))
    assert len(model.predict(model.input_example)) == 1


def test_it_answers_new_records(examined: Examined, tmp_path: Path) -> None:
    """`predict` reads records as their owners write them, in a file of their own; `sample` needs none."""
    cast = examined.cast
    artifact = pipeline.run_to(cast, "export", SilentReporter()).path
    if read_json(artifact / "preprocessing.json")["kind"] == "noise":
        sheet = tmp_path / "sheet.png"
        made = pipeline.sample(cast.settings, cast.recipe.name, sheet, count=3, seed=1)
        assert len(made) == 3 and sheet.stat().st_size > 0
        return
    records = read_accepted(examined.step("snapshot"), np.arange(3))
    source = tmp_path / "new.jsonl"
    source.write_text("".join(json.dumps(_to_line(record, cast.workload.kind)) + "\n" for record in records))
    rows = pipeline.predict(cast.settings, cast.recipe.name, source)
    assert [row["id"] for row in rows] == [record.id for record in records]
    # What a model says first, after the id: a label, a reply, how many tokens it has foreseen.
    answers = [next(value for name, value in row.items() if name != "id") for row in rows]
    assert all(isinstance(answer, str | int) and answer for answer in answers)
    if cast.workload.kind == "boxes":
        _check_boxes_follow_the_picture(cast, records[0].pixels, tmp_path / "sizes")


def _check_boxes_follow_the_picture(cast: pipeline.Cast, pixels: Any, folder: Path) -> None:
    """Boxes are told in pixels of the picture as it came: of one twice as wide, twice as far to the right."""
    folder.mkdir()
    picture = Image.fromarray(pixels)
    picture.save(folder / "as_it_is.png")
    picture.resize((2 * picture.width, picture.height), Image.Resampling.NEAREST).save(folder / "wide.png")
    rows = pipeline.predict(cast.settings, cast.recipe.name, folder)
    first, wide = (torch.tensor([box["box"] for box in json.loads(row["boxes"])]) for row in rows)
    assert len(first) > 0
    assert float(pair_iou(first * torch.tensor([2, 1, 2, 1]), wide).amax(1).min()) > 0.5


def _to_line(record: PackedRecord, kind: str) -> dict[str, Any]:
    """A record as a line of a JSON lines file."""
    content: dict[str, Any] = {
        "image": lambda: {"image": record.pixels.tolist()},
        "boxes": lambda: {"image": record.pixels.tolist()},
        "text": lambda: {"text": record.text},
        "corpus": lambda: {"text": record.text},
        "trees": lambda: {"text": record.text},
        "words": lambda: {"text": record.text},
        "chat": lambda: {"messages": json.loads(record.text)},
        "pairs": lambda: json.loads(record.text),
    }[kind]()
    return {"id": record.id, **content}


def _check_modeling_code(artifact: Path) -> None:
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(ast.parse((artifact / "modeling.py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported - set(sys.stdlib_module_names) == {"torch"}
