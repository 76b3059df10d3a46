"""Each option of the loop, in whole runs of ranks: what it does, and that a cut run goes on bit for bit."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recaster.customization.freezing import freeze_parameters
from recaster.models.losses import NO_TARGET
from recaster.recipe.training import Optimizer
from recaster.training.checkpoint import checkpoint_path, find_checkpoints, read_weights
from recaster.training.disk_need import measure_state
from recaster.training.journal import read_journal
from tests.conftest import shared_folder
from tests.contract.strategy_runs import open_rows
from tests.integration.training_task import (
    EPOCHS,
    HALF,
    STEPS,
    WORKLOAD,
    cut_at_half,
    initial_weights,
    result_of,
    train_all,
    write_plan,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("options")]
OPTIMIZERS = list(Optimizer.model_fields["name"].annotation.__args__)  # type: ignore[union-attr]
ALONE: dict[str, dict[str, Any]] = {
    "plain": {"task": "encoder"},
    "average": {"task": "encoder", "ema_decay": 0.9, "checkpoint_every_steps": 1, "keep_checkpoints": STEPS},
    "best": {
        "task": "mlp",
        "epochs": 6,
        "keep_best": "loss",
        "keep_checkpoints": 2,
        "optimizer": {"learning_rate": 0.3},
        "schedule": {"name": "constant", "warmup_fraction": 0.0},
    },
    "early": {
        "task": "mlp",
        "epochs": 40,
        "optimizer": {"learning_rate": 0.3},
        "early_stopping": {"metric": "loss", "patience_epochs": 2},
    },
    "frozen": {"task": "encoder", "freeze": ["embed.*", "blocks.0.*"]},
    "recomputed": {"task": "encoder", "activation_checkpointing": True},
    "half": {"task": "mlp", "precision": "fp16", "ema_decay": 0.8},
    "cnn": {"task": "cnn"},
    "channels-last": {"task": "cnn", "channels_last": True},
    "tokens": {"task": "decoder"},
    "ended": {"task": "encoder", "max_steps": 7},
    "unclipped": {"task": "encoder", "max_gradient_norm": None},
    **{
        f"optimizer-{name}": {"task": "encoder", "optimizer": {"name": name, "learning_rate": 0.003}}
        for name in OPTIMIZERS
    },
}
TOGETHER: dict[str, dict[str, Any]] = {
    scheme: {"task": "encoder", "communication": scheme, "ema_decay": 0.9}
    for scheme in ("allreduce", "powersgd", "topk", "local-sgd", "diloco")
} | {"normalised": {"task": "normalised"}}
FOUR = {"four": {"task": "encoder"}, "four-rounded": {"task": "encoder", "communication": "bf16"}}
RESUMED = ["average", "half", "frozen", "tokens", *(name for name in ALONE if name.startswith("optimizer-"))]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs whole, and those of RESUMED and TOGETHER cut at half and taken up; made once."""
    folder = shared_folder(tmp_path_factory, "option-runs")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            for name, options in ALONE.items():
                write_plan(folder / name, **options)
            for name, options in TOGETHER.items():
                write_plan(folder / name, ranks=2, **options)
            for name, options in FOUR.items():
                write_plan(folder / name, ranks=4, **options)
            train_all([folder / name for name in ALONE])
            train_all([folder / name for name in TOGETHER], ranks=2)
            train_all([cut_at_half(folder / name, folder / "cut") for name in RESUMED])
            train_all([cut_at_half(folder / name, folder / "cut") for name in TOGETHER], ranks=2)
            train_all([folder / name for name in FOUR], ranks=4)
            train_all([cut_at_half(folder / name, folder / "cut") for name in FOUR], ranks=4)
            (folder / "done").touch()
    return folder


def _read(run_dir: Path, kind: str, key: str) -> list[Any]:
    return [record[key] for record in read_journal(run_dir / "journal.jsonl") if record["kind"] == kind]


@pytest.mark.parametrize("name", [*RESUMED, *TOGETHER, *FOUR])
def test_a_cut_run_ends_with_the_same_bits(runs: Path, name: str) -> None:
    whole, resumed = result_of(runs / name), result_of(runs / "cut" / name)
    assert (whole["resumed_at"], resumed["resumed_at"]) == (0, STEPS - 1 if name == "average" else HALF)
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    steps = _read(runs / "cut" / name, "train", "step")
    assert steps == list(range(1, STEPS + 1))


def test_a_run_ends_within_an_epoch_and_is_validated(runs: Path) -> None:
    assert result_of(runs / "ended")["steps"] == 7
    assert _read(runs / "ended", "train", "steps") == [7] * 7
    assert _read(runs / "ended", "validation", "step") == [STEPS // EPOCHS, 7]
    assert (runs / "ended" / "checkpoints" / f"{7:08d}").is_dir()


def test_losses_are_a_learned_token_s(runs: Path) -> None:
    """The journal's validation, against the loss of all rows together in one pass."""
    model, data = WORKLOAD.build_model({"task": "decoder"}), open_rows("decoder")
    model.load_state_dict(load_file(runs / "tokens" / "weights.safetensors"), strict=False)
    tokens, targets = data.batch(np.arange(len(data)), seed=None)
    learned = targets != NO_TARGET
    with torch.no_grad():
        logits = model.eval()(tokens)[learned]
    nats = torch.nn.functional.cross_entropy(logits, targets[learned])
    hits = (logits.argmax(1) == targets[learned]).float().mean()
    assert _read(runs / "tokens", "validation", "loss")[-1] == pytest.approx(float(nats), rel=1e-5)
    assert _read(runs / "tokens", "validation", "accuracy")[-1] == pytest.approx(float(hits), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in ALONE if name.startswith("optimizer-")])
def test_each_optimizer_moves_all_weights_in_its_own_way(runs: Path, name: str) -> None:
    start, end = initial_weights("encoder"), load_file(runs / name / "weights.safetensors")
    assert [key for key, value in start.items() if torch.equal(value, end[key])] == []
    others = {result_of(runs / other)["weights_sha256"] for other in ALONE if other != name}
    assert result_of(runs / name)["weights_sha256"] not in others


def test_the_moving_average_comes_out(runs: Path) -> None:
    average = initial_weights("encoder")
    for step in range(1, STEPS + 1):
        weights = read_weights(
            runs / "average" / "checkpoints", step=step, model=WORKLOAD.build_model({"task": "encoder"})
        )
        average = {name: value.lerp(weights[name], 0.1) for name, value in average.items()}
    found = load_file(runs / "average" / "weights.safetensors")
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in average.items())
    assert not all(torch.allclose(found[name], value, atol=1e-4) for name, value in weights.items())


def test_the_best_epoch_comes_out(runs: Path) -> None:
    result = result_of(runs / "best")
    losses, steps = (_read(runs / "best", "validation", key) for key in ("loss", "step"))
    best = steps[losses.index(min(losses))]
    assert result["weights_of_step"] == best < result["steps"]
    kept = read_weights(runs / "best" / "checkpoints", step=best, model=WORKLOAD.build_model({"task": "mlp"}))
    found = load_file(runs / "best" / "weights.safetensors")
    assert all(torch.equal(found[name], value) for name, value in kept.items())


def test_training_stops_when_validation_no_longer_improves(runs: Path) -> None:
    result = result_of(runs / "early")
    losses = _read(runs / "early", "validation", "loss")
    assert result["steps"] == 5 * len(losses) < 200
    assert min(losses) < min(losses[-2:])


def test_frozen_parameters_stay(runs: Path) -> None:
    start, end = initial_weights("encoder"), load_file(runs / "frozen" / "weights.safetensors")
    still = {name for name, value in start.items() if torch.equal(value, end[name])}
    assert still == {name for name in start if name.startswith(("embed.", "blocks.0."))}


def test_recomputing_changes_no_bit(runs: Path) -> None:
    assert result_of(runs / "recomputed")["weights_sha256"] == result_of(runs / "plain")["weights_sha256"]


def test_channels_last_is_the_same_network(runs: Path) -> None:
    one, other = (load_file(runs / name / "weights.safetensors") for name in ("cnn", "channels-last"))
    assert max(float((other[name] - value).abs().max()) for name, value in one.items()) < 1e-4


@pytest.mark.skipif(
    " " in sys.prefix, reason="NOT TESTED: torch.compile's C++ command breaks at the space in Python's folder"
)
@pytest.mark.skipif(
    shutil.which("g++") is None, reason="NOT TESTED: torch.compile needs a C++ compiler on the CPU"
)
@pytest.mark.campaign
def test_a_compiled_network_trains_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fused loops add in another order; the kernels in the cache show that it was compiled."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    options: dict[str, Any] = {"task": "mlp", "schedule": {"name": "constant", "warmup_fraction": 0.0}}
    write_plan(tmp_path / "plain", **options)
    write_plan(tmp_path / "compiled", **options, compile=True)
    train_all([tmp_path / "plain", tmp_path / "compiled"])
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("plain", "compiled"))
    assert one.keys() == other.keys()
    moved = max(float((one[name] - value).abs().max()) for name, value in initial_weights("mlp").items())
    apart = max(float((other[name] - value).abs().max()) for name, value in one.items())
    assert apart < 1e-5 < 0.01 * moved
    assert list((tmp_path / "kernels").rglob("*.so"))


def test_clipping_is_left_out_on_request(runs: Path) -> None:
    assert result_of(runs / "unclipped")["weights_sha256"] != result_of(runs / "plain")["weights_sha256"]


def test_half_precision_scales_its_loss_and_keeps_the_scale(runs: Path) -> None:
    (file,) = checkpoint_path(runs / "half" / "checkpoints", STEPS).glob("shard-*.safetensors")
    assert float(load_file(file)["scaler.scale"]) > 1
    losses = _read(runs / "half", "train", "loss")
    assert losses[-1] < losses[0]


def test_memory_that_runs_out_halves_micro_batches(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_plan(tmp_path / "small", "wide", micro_batch_size=2)
    write_plan(tmp_path / "large", "wide")
    for _ in range(4):  # as the launcher would, each time a rank ends
        try:
            train_all([tmp_path / "large"], spare_mib=350)
        except torch.multiprocessing.ProcessExitedException as error:
            assert error.exit_code == os.EX_TEMPFAIL  # noqa: PT017 - the loop goes on after it
        else:
            break
    size = json.loads((tmp_path / "large" / "micro_batch.json").read_text())["micro_batch_size"]
    said = capfd.readouterr().err
    assert f"going on with {size}" in said and "micro-batches of 16 samples" in said
    train_all([tmp_path / "small"])
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("small", "large"))
    assert max(float((other[name] - value).abs().max()) for name, value in one.items()) < 1e-4


def test_memory_that_does_not_hold_one_sample_is_an_error(tmp_path: Path) -> None:
    write_plan(tmp_path / "run", "wide", micro_batch_size=1)
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="micro-batch of one sample"):
        train_all([tmp_path / "run"], spare_mib=16)


@pytest.mark.parametrize(
    "name", [name for name in ALONE if name not in {"optimizer-muon", "optimizer-adafactor"}]
)
def test_a_checkpoint_is_as_large_as_foreseen(runs: Path, name: str) -> None:
    plan = json.loads((runs / name / "plan.json").read_text())
    model = WORKLOAD.build_model({"task": plan["task"]})
    freeze_parameters(model, plan["train"]["freeze"])
    newest = find_checkpoints(runs / name / "checkpoints")[-1]
    found = sum(path.stat().st_size for path in newest.iterdir())
    headers = sum(
        map(_header_bytes, newest.glob("*.safetensors"))
    )  # names and shapes, much of so small a file
    foreseen = measure_state(model, plan).checkpoint_bytes
    assert foreseen <= found - headers <= foreseen + 1000  # hashes, and the optimizer's counts of steps
    assert found < 1.6 * foreseen


def _header_bytes(path: Path) -> int:
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")
