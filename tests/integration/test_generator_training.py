"""Two optimizers in the one loop, in whole runs of ranks: cut and taken up, shared out, killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from recaster.bases.fetch import fetch_base
from recaster.bases.reference import parse_reference
from recaster.core.files import read_json, write_json
from recaster.data.image_sources import read_digits
from recaster.data.shards import Shard, write_shard
from recaster.models import small_cnn
from recaster.models.generators import build_players, load_generator
from recaster.models.loading import LoadReport
from recaster.recipe.load import load_recipe
from recaster.training.checkpoint import checkpoint_path, find_checkpoints, read_weights
from recaster.training.disk_need import measure_state
from recaster.training.journal import read_journal
from recaster.workloads.image_generation import WORKLOAD
from tests.conftest import ROOT
from tests.faults.processes import find_ranks
from tests.faults.training_runs import await_journal, start_training, weights_of
from tests.integration.training_task import cut_at_half, result_of, train_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("generator_training")]
TINY = ROOT / "recipes" / "image-generation" / "tiny.yaml"
STEPS, HALF = 10, 5
_ROUNDING = 2e-5
_COMMON = [
    "train.max_steps=10",
    "train.checkpoint_every_steps=5",
    "train.record_every_steps=1",
    "model.width=8",
    "train.batch_size=48",
    "train.adversary={learning_rate: 0.002, turns: 2, penalty: r1, augmentation_target: 0.6, "
    "augmentation_pictures: 1000}",
]
_TWO = ["distributed={strategy: ddp, ranks: 2}"]
_UNNORMED = ["train.adversary.spectral_norm=false"]
_PROJECTED = ["train.adversary={turns: 2, encoder: 'path:encoder'}"]
RUNS: dict[str, list[str]] = {
    "whole": [],
    "two": _TWO,
    "unnormed": _UNNORMED,
    "pieces": [*_UNNORMED, "train.micro_batch_size=7"],
    "two-in-bf16": [*_TWO, "communication=bf16"],
    "projected": _PROJECTED,
    "two-projected": [*_TWO, *_PROJECTED],
    "frozen": ["train.freeze=['discriminator.stages.*']"],
}


def write_digits(folder: Path) -> Path:
    """The digits as prepared shards of three splits."""
    folder.mkdir(parents=True, exist_ok=True)
    records = list(read_digits())
    for split, rows in (("train", slice(0, 300)), ("validation", slice(300, 400)), ("test", slice(400, 500))):
        own = records[rows]
        pictures = np.stack([record.pixels for record in own if record.pixels is not None]) / 16
        shard = Shard(
            images=pictures.transpose(0, 3, 1, 2).astype(np.float32),
            labels=np.array([int(record.label or 0) for record in own]),
            ids=[str(record.id) for record in own],
        )
        write_shard(folder, split, shard)
    return folder


def write_encoder(folder: Path) -> Path:
    """A classifier of digits that has learned nothing, as a base."""
    arguments = {"channels": 1, "classes": 10, "hidden": 8, "dropout": 0.0, "activation": "relu"}
    torch.manual_seed(4)
    folder.mkdir()
    save_file(
        small_cnn.build_model(height=8, width=8, **arguments).state_dict(), folder / "model.safetensors"
    )
    write_json(folder / "config.json", {"architecture": "small_cnn", "arguments": arguments})
    return folder


def make_plan(prepared: Path, overrides: list[str]) -> dict[str, Any]:
    """The plan that a cast of the tiny recipe would get."""
    recipe = load_recipe(TINY, [*_COMMON, *overrides])
    encoder = prepared.parent / "encoder"
    sections = ("customize", "train", "distributed", "communication")
    return {
        "workload_module": "recaster.workloads.image_generation",
        "prepared": str(prepared),
        "critic": str(encoder) if recipe.train.adversary.encoder else None,
        "model_arguments": WORKLOAD.model_arguments(recipe),
        **{name: getattr(recipe, name).model_dump() for name in sections},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs whole, and one of them cut at half and taken up."""
    folder = tmp_path_factory.mktemp("generators")
    prepared = write_digits(folder / "prepared")
    write_encoder(folder / "encoder")
    for name, overrides in RUNS.items():
        (folder / name).mkdir()
        (folder / name / "plan.json").write_text(json.dumps(make_plan(prepared, overrides)))
    alone = [name for name in RUNS if not name.startswith("two")]
    train_all([folder / name for name in alone])
    together = [name for name in RUNS if name.startswith("two")]
    train_all([folder / name for name in together], ranks=2)
    train_all([cut_at_half(folder / name, folder / "cut") for name in ("whole", "projected")])
    return folder


def _weights(run_dir: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(run_dir / "weights.safetensors")
    return weights


def _apart(one: Path, other: Path) -> float:
    first, second = _weights(one), _weights(other)
    assert first.keys() == second.keys()
    return max(float((second[name] - value).abs().max()) for name, value in first.items())


@pytest.mark.parametrize("name", ["whole", "projected"])
def test_a_cut_game_ends_with_the_same_bits(runs: Path, name: str) -> None:
    _check_taken_up(runs, name)


@pytest.mark.campaign
def test_a_cut_game_of_two_ranks_ends_with_the_same_bits(runs: Path) -> None:
    train_all([cut_at_half(runs / "two", runs / "cut")], ranks=2)
    _check_taken_up(runs, "two")


def _check_taken_up(runs: Path, name: str) -> None:
    whole, resumed = result_of(runs / name), result_of(runs / "cut" / name)
    assert (whole["resumed_at"], resumed["resumed_at"]) == (0, HALF)
    assert resumed["weights_sha256"] == whole["weights_sha256"]


def test_two_ranks_play_the_same_game_as_one(runs: Path) -> None:
    assert _apart(runs / "whole", runs / "two") < _ROUNDING
    assert _apart(runs / "whole", runs / "two-in-bf16") > _ROUNDING  # another wire is another game
    parts = [
        [
            record[f"{part}_loss"]
            for record in read_journal(runs / name / "journal.jsonl")
            if f"{part}_loss" in record
        ]
        for part in ("discriminator", "generator")
        for name in ("whole", "two")
    ]
    assert [len(part) for part in parts] == [7, 7, 3, 3]
    assert parts[0] == pytest.approx(parts[1], rel=1e-3, abs=1e-4)
    assert parts[2] == pytest.approx(parts[3], rel=1e-3, abs=1e-4)


def test_two_ranks_see_through_the_same_network(runs: Path) -> None:
    """Critics normalise by a rank's own rows, so that two ranks play another game than one."""
    one, two = _weights(runs / "projected"), _weights(runs / "two-projected")
    frozen = [name for name in one if name.startswith("discriminator.pyramid.")]
    assert frozen and all(torch.equal(one[name], two[name]) for name in frozen)
    assert 0 < _apart(runs / "projected", runs / "two-projected") < 1
    names = set(one)
    assert not any(name.startswith("discriminator.stages.") for name in names)


def test_micro_batches_add_up(runs: Path) -> None:
    assert _apart(runs / "unnormed", runs / "pieces") < _ROUNDING


def test_each_step_moves_one_part(runs: Path) -> None:
    """The weights after 5 and 10 steps: steps 6, 9 are the generator's, the rest the discriminator's."""
    plan = read_json(runs / "whole" / "plan.json")
    first, last = (
        read_weights(runs / "whole" / "checkpoints", step=step, model=WORKLOAD.build_model(plan))
        for step in (HALF, STEPS)
    )
    moved = {name.split(".")[0] for name, value in first.items() if not torch.equal(value, last[name])}
    assert {"generator", "discriminator"} <= moved
    (file,) = checkpoint_path(runs / "whole" / "checkpoints", HALF).glob("shard-*.safetensors")
    steps = {
        name.split(".")[2]: int(value)
        for name, value in load_file(file).items()
        if name.startswith("optimizer.state.") and name.endswith(".step")
    }
    assert steps == {"discriminator": 4, "generator": 1}


def test_the_average_is_what_comes_out(runs: Path) -> None:
    plan = read_json(runs / "whole" / "plan.json")
    last = read_weights(runs / "whole" / "checkpoints", step=STEPS, model=WORKLOAD.build_model(plan))
    out = _weights(runs / "whole")
    assert all(torch.equal(value, out[name]) for name, value in last.items() if name.startswith("disc"))
    assert any(not torch.equal(value, out[name]) for name, value in last.items() if name.startswith("gen"))


def test_frozen_layers_of_the_discriminator_stay(runs: Path) -> None:
    from recaster.core.seeds import derive_seed

    plan = read_json(runs / "frozen" / "plan.json")
    torch.manual_seed(derive_seed(plan["train"]["seed"], "weights"))
    start = build_players(plan["model_arguments"], plan["train"]["adversary"], None)
    end = _weights(runs / "frozen")
    still = {name for name, value in start.named_parameters() if torch.equal(value, end[name])}
    assert still == {name for name, _ in start.named_parameters() if name.startswith("discriminator.stages.")}


def test_sketches_are_kept_over_time(runs: Path) -> None:
    steps = [int(path.stem) for path in sorted((runs / "whole" / "sketches").iterdir())]
    validated = [
        r["step"] for r in read_journal(runs / "whole" / "journal.jsonl") if r["kind"] == "validation"
    ]
    assert steps == validated
    drawn = load_file(runs / "whole" / "sketches" / f"{steps[-1]:08d}.safetensors")["drawn"]
    assert drawn.shape == (16, 1, 8, 8) and 0 <= float(drawn.min()) < float(drawn.max()) <= 1


def test_a_checkpoint_is_as_large_as_foreseen(runs: Path) -> None:
    plan = read_json(runs / "whole" / "plan.json")
    foreseen = measure_state(WORKLOAD.build_model(plan), plan).checkpoint_bytes
    newest = find_checkpoints(runs / "whole" / "checkpoints")[-1]
    found = sum(path.stat().st_size for path in newest.iterdir())
    headers = sum(
        8 + int.from_bytes(path.read_bytes()[:8], "little") for path in newest.glob("*.safetensors")
    )
    assert foreseen <= found - headers <= foreseen + 2000


@pytest.mark.campaign
def test_a_killed_game_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    plan = make_plan(write_digits(tmp_path / "prepared"), ["train.max_steps=60", "train.epochs=20"])
    whole = start_training(tmp_path / "whole", plan)
    assert whole.wait(timeout=200) == 0
    killed = start_training(tmp_path / "killed", plan)
    await_journal(tmp_path / "killed", 12, killed)
    (rank,) = find_ranks(tmp_path / "killed")
    rank.kill()
    assert killed.wait(timeout=200) == 0
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    assert result_of(tmp_path / "killed")["resumed_at"] >= HALF


def test_a_trained_generator_is_a_base_with_its_discriminator(runs: Path, tmp_path: Path) -> None:
    """Exported, fetched as any base, and built again: all weights are loaded, and the picture is the same."""
    plan = read_json(runs / "whole" / "plan.json")
    recipe = load_recipe(TINY, _COMMON)
    artifact, base = tmp_path / "artifact", tmp_path / "base"
    artifact.mkdir()
    base.mkdir()
    WORKLOAD.export(plan, recipe, runs / "whole" / "weights.safetensors", artifact)
    fetch_base(
        parse_reference(f"path:{artifact}"),
        base,
        downloads=tmp_path,
        offline=True,
        licence="CC-BY-4.0",
        say=str,
    )
    further = {**plan["model_arguments"], "architecture": None, "hidden": 999, "noise": 999}
    again = build_players(further, plan["train"]["adversary"], base)
    report = again.report
    assert isinstance(report, LoadReport)
    assert {name for name in report.reinitialised if not name.startswith("augmentation.")} == set()
    noise, classes = torch.randn(3, plan["model_arguments"]["noise"]), torch.tensor([0, 5, 9])
    with torch.no_grad():
        wanted = load_generator(artifact)(noise, classes)
        assert torch.equal(again.eval().generator(noise, classes), wanted)
    assert WORKLOAD.answers(base, _with_labels(tmp_path, recipe.data.labels))
    imported = (artifact / "modeling.py").read_text()
    assert "recaster" not in imported.partition('"""')[2].partition('"""')[2]


def _with_labels(folder: Path, labels: list[str]) -> Path:
    (folder / "splits.json").write_text(json.dumps({"labels": labels}))
    return folder
