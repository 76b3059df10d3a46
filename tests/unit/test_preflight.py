"""Pre-flight's arithmetic, its readings of this machine, and its refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recaster.cli.show_check import _forecast_rows
from recaster.core.errors import RecipeError, ResourceError
from recaster.core.files import free_bytes
from recaster.core.settings import find_settings
from recaster.data.leakage import find_leakage
from recaster.data.shards import Shard, write_shard
from recaster.preflight.forecast import make_forecast
from recaster.preflight.growth import fit_growth, largest_power
from recaster.preflight.limits import ADDRESS_SPACE, RESIDENT, MemoryLimit, read_memory_limits, tightest
from recaster.preflight.power import Power, find_power
from recaster.preflight.predict import predict_duration, predict_memory
from recaster.training.disk_need import StateSize, require_room

MIB = 2**20
TRAIN = {
    "validate_every_epochs": 2,
    "checkpoint_every_steps": 20,
    "keep_checkpoints": 3,
    "keep_best": None,
}


def _peak(mib: int) -> dict[str, int]:
    return {"resident": mib * MIB, "address_space": 2 * mib * MIB, "device": 0}


def _found(**changes: Any) -> dict[str, Any]:
    """A rank that holds 300 MiB and 10 MiB more for each row of a pass.

    Of 50 steps 49 were seen, after which a heap grows by another 5 % of the 300 MiB beyond the model.
    """
    miniature = {
        "extent": {
            "steps": 49,
            "micro_batch_size": None,
            "step_guess": 0.5,
            "validation_rows": 50,
        },
        "step_share": 1.5,
        "validation_share": 2.0,
        "cpu_share": 0.9,
        "peak": _peak(500),
        "mapped": {"size": 90 * MIB, "resident": 20 * MIB},
        "stages": {
            "step_seconds": 0.4,
            "saving_seconds": 0.4,
            "save_seconds": 1.0,
            "validation_seconds": 2.0,
            "result_seconds": 0.25,
            "checkpoint_bytes": 30 * MIB,
            "weights_bytes": 10 * MIB,
        },
    }
    return {
        "device": "cpu",
        "emulated": False,
        "device_bytes": None,
        "start_seconds": 4.0,
        "built": _peak(200),
        "state": {
            "parameters": 9,
            "trained": 9,
            "weights_bytes": 10 * MIB,
            "result_bytes": 10 * MIB,
            "checkpoint_bytes": 30 * MIB,
        },
        "steps": 50,
        "steps_per_epoch": 10,
        "validation_rows": 100,
        "validation_pass": 50,
        "share": 16,
        "size": 16,
        "work": {"step": 120.0, "pass": 160},
        "rungs": [
            {
                "rows": 1,
                "seconds": 0.03,
                "peak": _peak(310),
                "validation_rows": 10,
                "validation_peak": _peak(210),
            },
            {
                "rows": 4,
                "seconds": 0.12,
                "peak": _peak(340),
                "validation_rows": 40,
                "validation_peak": _peak(240),
            },
        ],
        "miniature": miniature,
        **changes,
    }


def _forecast(found: dict[str, Any], *limits: MemoryLimit, free_disk: int = 1 << 40) -> Any:
    plan = {"train": TRAIN, "distributed": {"ranks": 1}}
    return make_forecast([found], plan, limits=limits, free_disk=free_disk, copies=4, power=None)


def test_growth_follows_the_two_largest_points_and_never_falls() -> None:
    assert fit_growth([(4, 9.0), (0, 100.0), (2, 5.0)])(8) == pytest.approx(17.0)
    assert fit_growth([(1, 5.0), (2, 4.0)])(100) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("below", "limit", "found"), [(64, 20, 16), (64, 99, 32), (9, 99, 8), (1, 99, 0), (8, 0, 0)]
)
def test_largest_power(below: int, limit: int, found: int) -> None:
    assert largest_power(below, lambda rows: rows <= limit) == found


def test_memory_adds_rows_that_were_mapped_and_not_touched() -> None:
    memory = predict_memory([_found(), _found(miniature=_found()["miniature"] | {"peak": _peak(400)})], 16)
    assert memory.resident == (500 + 70 + 15) * MIB  # of the rank that takes most
    assert memory.under(RESIDENT) == (500 + 70 + 15 - 90) * MIB
    assert memory.under(ADDRESS_SPACE) == 1000 * MIB


def test_memory_of_a_pass_that_was_not_tried_grows_from_the_one_that_was() -> None:
    miniature = _found()["miniature"]
    smaller = _found(miniature=miniature | {"extent": miniature["extent"] | {"micro_batch_size": 8}})
    assert predict_memory([smaller], 16).resident == (500 + 70 + 15 + 80) * MIB
    alone = {key: value for key, value in _found().items() if key != "miniature"}
    assert predict_memory([alone], 16).resident == (340 + 120 + 60) * MIB  # and two copies of a checkpoint


def test_memory_of_validation_counts_where_it_is_more() -> None:
    alone = {key: value for key, value in _found(validation_pass=500).items() if key != "miniature"}
    assert predict_memory([alone], 16).resident == (240 + 460 + 60) * MIB
    assert predict_memory([alone], 8).resident == (340 + 40 + 60) * MIB  # validated by eight as well


def test_time_of_all_steps_validations_and_saves() -> None:
    duration = predict_duration(_found(), TRAIN)
    assert (duration.steps, duration.validations, duration.saves) == (50, 3, 3)
    assert duration.training == pytest.approx(50 * 0.6 + 3 * 4.0 + 2 * 0.4 + 1.25)
    assert duration.total == pytest.approx(duration.training + 4.0)


def test_the_last_step_is_validated_within_an_epoch_too() -> None:
    cut = predict_duration(_found(steps=25), TRAIN)
    assert (cut.steps, cut.validations) == (25, 2)  # after the second epoch, and at the end


def test_saves_that_last_longer_than_the_steps_between_them_are_waited_for() -> None:
    often = predict_duration(_found(), TRAIN | {"checkpoint_every_steps": 1})
    assert often.save == pytest.approx(0.4)  # 1.0 s, of which a step hides 0.6


def test_time_of_a_step_from_passes_that_are_heavier_than_most() -> None:
    alone = {key: value for key, value in _found().items() if key != "miniature"}
    step = predict_duration(alone, TRAIN).step
    assert step == pytest.approx(0.48 * 120 / 160)  # 16 rows at 0.03 s a row, as heavy as the heaviest


def test_a_pass_that_does_not_fit_is_refused_with_one_that_does() -> None:
    # 495 MiB are needed for 16 rows; 8 rows need 415, and 0.9 of the limit is 423
    forecast = _forecast(_found(), MemoryLimit(of=RESIDENT, bytes=470 * MIB, source="free memory"))
    assert forecast.fitting == 8
    (error,) = forecast.refusals()
    assert isinstance(error, ResourceError) and error.exit_code == 2
    assert "0.48 GiB are needed, free memory is 0.46 GiB" in str(error)
    assert "--set train.micro_batch_size=8" in error.repair
    assert forecast.to_json()["refused"] == [str(error)]
    assert _forecast(_found(), MemoryLimit(of=RESIDENT, bytes=495 * MIB, source="x")).refusals() == []


def test_memory_that_ran_out_is_refused_whatever_was_predicted() -> None:
    ran_out = {"rows": 16, "reason": "the kernel ended the process"}
    alone = {key: value for key, value in _found(ran_out=ran_out).items() if key != "miniature"}
    assert _forecast(alone).fitting == 8
    assert "the kernel ended the process" in str(_forecast(alone).refusals()[0])
    miniature = _found()["miniature"]
    smaller = miniature | {"extent": miniature["extent"] | {"micro_batch_size": 2}}
    assert _forecast(_found(ran_out=ran_out, miniature=smaller)).fitting == 2


def test_too_little_disk_is_refused_with_what_would_fit() -> None:
    # 4 checkpoints of 30 MiB and 5 times 10 MiB of weights are 170 MiB
    (error,) = _forecast(_found(), free_disk=150 * MIB).refusals()
    assert "need 170.0 MiB; 150.0 MiB free" in str(error)
    assert "set train.keep_checkpoints to 2" in error.repair
    (error,) = _forecast(_found(), free_disk=130 * MIB).refusals()
    assert "keep_checkpoints to" not in error.repair
    assert _forecast(_found(), free_disk=170 * MIB).refusals() == []


def test_training_refuses_a_disk_that_does_not_hold_its_checkpoints(tmp_path: Path) -> None:
    """Against the disk's real free space."""
    part = free_bytes(tmp_path) // 4
    size = StateSize(
        parameters=1, trained=1, weights_bytes=part, result_bytes=part // 10, checkpoint_bytes=part
    )
    require_room(tmp_path / "checkpoints", size, keep=2)
    with pytest.raises(ResourceError, match=r"set train\.keep_checkpoints to 2"):
        require_room(tmp_path / "checkpoints", size, keep=4)


_READ = """
import json, mmap, resource, sys
import numpy as np
from recaster.preflight.limits import read_memory_limits
from recaster.preflight.process_memory import mapped_files, reset_peak
from recaster.training.host_memory import peak_resident

block = np.ones(64 * 2**20, dtype=np.uint8)
held = peak_resident()
del block
reset_peak()
rows = np.load(sys.argv[1], mmap_mode="r")
before = mapped_files(".npy")
rows.sum()
after = mapped_files(".npy")
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
limits = [(limit.of, limit.bytes) for limit in read_memory_limits(2)]
print(json.dumps([held, peak_resident(), before.resident, after.resident, after.size, limits]))
"""


def test_what_a_process_takes_and_may_take(tmp_path: Path) -> None:
    np.save(tmp_path / "my rows.npy", np.zeros(32 * MIB, dtype=np.uint8))
    command = [sys.executable, "-c", _READ, str(tmp_path / "my rows.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    held, later, before, after, size, limits = json.loads(done.stdout)
    assert held - later > 16 * MIB  # 64 were freed, 32 were mapped
    assert after - before > 16 * MIB and 32 * MIB <= size < 33 * MIB
    assert (ADDRESS_SPACE, 3 * 2**30) in [tuple(limit) for limit in limits]


def test_ranks_share_the_memory_of_their_host() -> None:
    one, four = (tightest(read_memory_limits(ranks), RESIDENT) for ranks in (1, 4))
    assert one and four and 0 < four.bytes < one.bytes / 2
    assert "for 4 ranks" in four.source


def test_power_is_declared_or_measured_or_called_an_estimate(tmp_path: Path) -> None:
    measured = Power(watts=70.0, source="measured by RAPL during the probe")
    assert find_power(95.0, measured, cores=2, device="cpu") == Power(
        watts=95.0, source="declared by RECASTER_WATTS"
    )
    assert find_power(None, measured, cores=2, device="cpu") == measured
    estimate = find_power(None, None, cores=2, device="cpu")
    assert estimate and estimate.watts == 16.0 and "not measured" in estimate.source
    assert find_power(None, None, cores=2, device="cuda") is None
    assert find_settings(tmp_path, {"RECASTER_WATTS": "85.5"}).watts == 85.5
    with pytest.raises(RecipeError, match="RECASTER_WATTS"):
        find_settings(tmp_path, {"RECASTER_WATTS": "lots"})


def _write_pictures(folder: Path, split: str, images: Any) -> None:
    ids = [f"{split}-{row}" for row in range(len(images))]
    write_shard(folder, split, Shard(images=images, labels=np.zeros(len(images), dtype=np.int64), ids=ids))


def test_pictures_in_two_splits_are_found(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    images = chance.random((40, 1, 8, 8), dtype=np.float32)
    near = np.clip(images[3:4] + 0.02 * chance.standard_normal((1, 1, 8, 8), dtype=np.float32), 0, 1)
    _write_pictures(tmp_path, "train", images[:20])
    _write_pictures(tmp_path, "validation", images[20:30])
    _write_pictures(tmp_path, "test", np.concatenate([images[30:], images[7:8], near]))
    found = {one.splits: one for one in find_leakage(tmp_path, distance=0.06)}
    assert [(one.exact, one.near, one.looked_at) for one in found.values()] == [
        (0, 0, 10),
        (1, 1, 11),
        (0, 0, 12),
    ]
    assert found["train", "test"].examples == [("train-7", "test-10"), ("train-3", "test-11")]


def _write_texts(folder: Path, split: str, rows: list[list[int]]) -> None:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    np.save(
        folder / f"{split}.tokens.npy", np.array([token for row in rows for token in row], dtype=np.int32)
    )
    np.save(folder / f"{split}.offsets.npy", offsets.astype(np.int64))
    np.save(folder / f"{split}.labels.npy", np.zeros(len(rows), dtype=np.int64))
    (folder / f"{split}.ids.json").write_text(json.dumps([f"{split}-{row}" for row in range(len(rows))]))


def test_texts_in_two_splits_are_found(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    rows = [chance.integers(0, 30000, length).tolist() for length in chance.integers(3, 60, 300)]
    long = max(range(250), key=lambda row: len(rows[row]))
    near = [*rows[long][:-1], 30001]
    _write_texts(tmp_path, "train", rows[:250])
    _write_texts(tmp_path, "validation", rows[250:])
    _write_texts(tmp_path, "test", [rows[11], near, [5, 6, 7]])
    found = {one.splits: one for one in find_leakage(tmp_path, distance=0.06)}
    assert (found["train", "validation"].exact, found["train", "validation"].near) == (0, 0)
    both = found["train", "test"]
    assert (both.exact, both.near, both.looked_at) == (1, 1, 2)
    assert both.examples == [("train-11", "test-0"), (f"train-{long}", "test-1")]


@pytest.mark.parametrize(
    "model",
    [
        {"type": "WordLevel", "vocab": {"[PAD]": 0, "[UNK]": 1}, "unk_token": "[UNK]"},
        {"type": "Unigram", "vocab": [["<pad>", 0.0], ["<unk>", 0.0]], "unk_id": 1},
    ],
    ids=lambda model: model["type"],
)
def test_unknown_words_make_no_two_texts_alike(tmp_path: Path, model: dict[str, Any]) -> None:
    long = list(range(2, 40))
    _write_texts(tmp_path, "train", [[4, 5, 1], [4, 5, 6], [*long, 1, 41, 42]])
    _write_texts(tmp_path, "test", [[4, 5, 1], [4, 5, 6], [*long, 1, 41, 42]])
    (without,) = find_leakage(tmp_path, distance=0.06)
    assert (without.exact, without.near) == (3, 0)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps({"model": model}))
    (found,) = find_leakage(tmp_path, distance=0.06)
    # "What is ? ?" twice may be two questions; of long texts one unknown word in forty changes little.
    assert (found.exact, found.near) == (1, 1)
    assert set(found.examples) == {("train-1", "test-1"), ("train-2", "test-2")}


def test_a_precision_that_the_processor_imitates_is_said() -> None:
    rows = [_forecast_rows(_forecast(_found(emulated=imitated)).to_json()) for imitated in (True, False)]
    assert [[row[:2] for row in found if row[0] == "precision"] for found in rows] == [
        [("precision", "bf16")],
        [],
    ]
