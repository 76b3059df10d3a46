"""The recipe alone chooses the strategy: a cast of digits ends with the same model under each."""

from __future__ import annotations

from pathlib import Path

import pytest

from recaster import pipeline
from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.training.journal import read_journal
from tests.conftest import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def _validation(project: Path, *overrides: str) -> list[float]:
    settings = [*SMALL, "model.dropout=0.0", *overrides]
    cast = pipeline.open_cast(project / "recipes" / "digits.yaml", settings)
    before = set((cast.settings.steps / "train").glob("*/journal.jsonl"))
    pipeline.run(cast, SilentReporter())
    (journal,) = set((cast.settings.steps / "train").glob("*/journal.jsonl")) - before
    records = [record for record in read_journal(journal) if record["kind"] == "validation"]
    return [record["loss"] for record in records] + [record["accuracy"] for record in records]


def test_strategies_train_the_same_model(project: Path) -> None:
    wanted = _validation(project, "distributed.strategy=single", "distributed.ranks=1")
    for overrides in (
        ["distributed.strategy=fsdp", "train.micro_batch_size=20"],
        ["distributed.strategy=pipeline", "train.micro_batch_size=16"],
    ):
        # Measured: 3e-7, the order of sums.
        assert _validation(project, *overrides) == pytest.approx(wanted, abs=1e-5)


def test_the_adviser_says_what_it_does(project: Path) -> None:
    _validation(project, "communication=auto")
    (choices,) = project.rglob("communication.json")
    record = read_json(choices)
    assert record["choices"][0]["scheme"] in ("allreduce", "bf16", "fp16")
    log = (choices.parent / "ranks.log").read_text()
    assert log.count("communication: predicted seconds a step: allreduce") == 1
    assert ("communication: measured" in log) == record["settled"]


def test_a_model_without_a_plan_is_told(project: Path) -> None:
    with pytest.raises(RecipeError, match="ddp, fsdp or pipeline"):
        _validation(project, "distributed.strategy=tensor", "distributed.max_restarts=0")
