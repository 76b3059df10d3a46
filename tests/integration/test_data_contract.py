"""Bad data, with a real Great Expectations suite: refused or quarantined, always with where and why."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from recaster import pipeline
from recaster.core.errors import ContractError, DataError
from recaster.core.progress import SilentReporter

Rows = list[dict[str, object]]
Write = Callable[..., list[str]]


def _validate(project: Path, overrides: list[str]) -> pipeline.StepResult:
    cast = pipeline.open_cast(project / "recipes" / "digits.yaml", overrides)
    return pipeline.validate(cast, pipeline.snapshot(cast, SilentReporter()))


def _nan(rows: Rows) -> None:
    rows[4]["image"][2][3] = math.nan  # type: ignore[index]


def _range(rows: Rows) -> None:
    rows[4]["image"][2][3] = 99  # type: ignore[index]


def _label(rows: Rows) -> None:
    rows[4]["label"] = "7"


def _duplicate(rows: Rows) -> None:
    rows[4]["id"] = rows[5]["id"]


def _shape(rows: Rows) -> None:
    rows[4]["image"] = [[1, 2], [3, 4]]


def _ragged(rows: Rows) -> None:
    rows[4]["image"] = [[1, 2], [3]]


BAD = {
    _nan: "NaN",
    _range: "above 16.0",
    _label: "outside the recipe's data.labels",
    _duplicate: "shares its id",
    _shape: "another height than 8",
    _ragged: "cannot be read",
}


@pytest.mark.parametrize(("change", "reason"), BAD.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_bad_row_is_refused_above_the_budget(
    project: Path, write_pictures: Write, change: Callable[[Rows], None], reason: str
) -> None:
    overrides = [*write_pictures(change), "contract.max_quarantined_fraction=0.0"]
    with pytest.raises(ContractError) as caught:
        _validate(project, overrides)
    assert reason in str(caught.value) and "line 5" in str(caught.value)
    lines = (project / ".recaster" / "refused" / "digits" / "quarantine.jsonl").read_text().splitlines()
    assert len(lines) == (2 if change is _duplicate else 1)


def test_bad_row_below_the_budget_goes_to_quarantine(project: Path, write_pictures: Write) -> None:
    result = _validate(project, [*write_pictures(_range), "contract.max_quarantined_fraction=0.05"])
    assert (result.facts["rows"], result.facts["accepted"], result.facts["quarantined"]) == (90, 89, 1)
    entry = json.loads((result.path / "quarantine.jsonl").read_text())
    assert entry["id"] == "p0-4" and entry["reasons"] == ["has a pixel above 16.0"]


def test_empty(project: Path, write_pictures: Write) -> None:
    with pytest.raises(ContractError, match="empty"):
        _validate(project, write_pictures(lambda rows: rows.clear()))


def test_one_class(project: Path, write_pictures: Write) -> None:
    def change(rows: Rows) -> None:
        for row in rows:
            row["label"] = "1"

    with pytest.raises(ContractError, match="one label"):
        _validate(project, write_pictures(change))


@pytest.mark.parametrize("source", ["nowhere.jsonl", "builtin:letters", "recipes/digits.yaml"])
def test_missing_or_unknown_source(project: Path, source: str) -> None:
    with pytest.raises(DataError) as caught:
        _validate(project, [f"data.source={source}"])
    assert caught.value.exit_code == 3 and caught.value.repair


def test_same_data_same_bytes_and_one_row_a_new_version(project: Path, write_pictures: Write) -> None:
    first = _validate(project, write_pictures())
    cast = pipeline.open_cast(project / "recipes" / "digits.yaml", write_pictures())
    version = pipeline.snapshot(cast, SilentReporter()).content
    assert _validate(project, write_pictures()).reused

    def change(rows: Rows) -> None:
        rows[7]["image"][0][0] = 1.5  # type: ignore[index]

    write_pictures(change)
    assert pipeline.snapshot(cast, SilentReporter()).content != version
    assert not _validate(project, write_pictures(change)).reused
    assert first.facts["accepted"] == 90


def _blank_and_copied(rows: Rows) -> None:
    rows[0]["image"] = [[0] * 8] * 8
    rows[1]["image"] = [[7] * 8] * 8
    rows[3]["image"] = rows[2]["image"]
    rows[3]["label"] = rows[2]["label"]
    rows[5]["image"] = rows[4]["image"]
    rows[5]["label"] = next(row["label"] for row in rows if row["label"] != rows[4]["label"])


def test_blank_pictures_and_copies_are_counted_and_named(project: Path, write_pictures: Write) -> None:
    result = _validate(project, write_pictures(_blank_and_copied))
    assert result.facts["quarantined"] == 0
    assert result.facts["flagged"] == {
        "is nearly black or nearly white": 1,
        "is nearly of one grey": 2,
        "has the same pixels as another record": 4,
        "has the same pixels as a record with another label": 2,
    }
    told = {
        row["id"]: row["reasons"]
        for row in map(json.loads, (result.path / "flagged.jsonl").read_text().splitlines())
    }
    assert set(told) == {f"p0-{number}" for number in range(6)}
    assert len(told["p0-0"]) == 2 and len(told["p0-5"]) == 2 and len(told["p0-3"]) == 1


def test_blank_pictures_may_leave(project: Path, write_pictures: Write) -> None:
    overrides = ["contract.blank_pictures=quarantine", "contract.max_quarantined_fraction=0.05"]
    result = _validate(project, [*write_pictures(_blank_and_copied), *overrides])
    assert result.facts["quarantined"] == 2
    assert "is nearly of one grey" not in result.facts["flagged"]


def test_classes_out_of_balance_are_refused(project: Path, write_pictures: Write) -> None:
    def change(rows: Rows) -> None:
        labels = sorted({str(row["label"]) for row in rows})
        for number, row in enumerate(rows):
            row["label"] = labels[number % 6 == 0]

    overrides = [*write_pictures(change), "data.labels=['0','1']", "contract.min_rows_per_label=1"]
    assert _validate(project, [*overrides, "contract.max_label_ratio=5"]).facts["accepted"] == 90
    with pytest.raises(ContractError, match=r"max_label_ratio allows 4: '\d' has 75 records, '\d' 15"):
        _validate(project, [*overrides, "contract.max_label_ratio=4"])
