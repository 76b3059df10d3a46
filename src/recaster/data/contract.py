"""The data contract: a Great Expectations suite over per-record facts.

    id          label  split  where               problem  row  and what the kind of record adds
    digit-0000  0             load_digits, row 0           0    height width channels non_finite …

Rows that break an expectation go to quarantine with every reason; a data set with too many of
them, or that breaks a bound of the whole set, is refused.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recaster.core.errors import ContractError
from recaster.core.files import write_bytes, write_json
from recaster.data.labels import known_labels, pattern, split_labels
from recaster.data.packed import read_groups
from recaster.recipe.data import ContractSection, DataSection

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

ACCEPTED = "accepted.npy"
QUARANTINE, FLAGGED = "quarantine.jsonl", "flagged.jsonl"
REPORT = "report.md"
_SHOWN = 5
_COMMON = ("id", "label", "split", "where", "problem")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRule:
    """An expectation on every record, and what its breach means in words."""

    expectation: Expectation
    column: str
    meaning: str
    only_counted: bool = False
    """Records that break it are counted in the report, and accepted."""

    @classmethod
    def of(cls, expectation: Expectation, meaning: str) -> RowRule:
        """The rule of an expectation on one column."""
        return cls(expectation=expectation, column=expectation.column, meaning=meaning)


def collect_facts(
    folder: Path, describe: Callable[[dict[str, Any]], dict[str, Any]], columns: Sequence[str]
) -> pd.DataFrame:
    """One row of facts for each record of the packed set in `folder`.

    Args:
        describe: the facts of one packed record beside the common ones; `columns` are their names.
    """
    rows = [
        {**{name: record[name] for name in _COMMON}, **describe(record)}
        for batch in read_groups(folder)
        for record in batch.to_pylist()
    ]
    facts = pd.DataFrame(rows, columns=[*_COMMON, *columns])
    facts["row"] = np.arange(len(facts))
    return facts


def common_rules(data: DataSection) -> list[RowRule]:
    """The rules for records of any kind: readable, named once, labelled where there are labels."""
    import great_expectations.expectations as gxe

    rules = [
        RowRule.of(gxe.ExpectColumnValuesToBeInSet(column="problem", value_set=[""]), "cannot be read"),
        RowRule.of(gxe.ExpectColumnValuesToNotBeNull(column="id"), "has no id"),
        RowRule.of(gxe.ExpectColumnValuesToBeUnique(column="id"), "shares its id with another record"),
    ]
    if data.several_labels:
        known = gxe.ExpectColumnValuesToMatchRegex(column="label", regex=pattern(data.labels))
        rules.append(RowRule.of(known, "has a label outside the recipe's data.labels"))
    elif data.labels:
        rules += [
            RowRule.of(gxe.ExpectColumnValuesToNotBeNull(column="label"), "has no label"),
            RowRule.of(
                gxe.ExpectColumnValuesToBeInSet(column="label", value_set=known_labels(data)),
                "has a label outside the recipe's data.labels",
            ),
        ]
    return rules


def personal_rule(contract: ContractSection) -> RowRule:
    """What becomes of texts in which the fact `personal_data` counts something."""
    import great_expectations.expectations as gxe

    return RowRule(
        expectation=gxe.ExpectColumnValuesToBeInSet(column="personal_data", value_set=[0]),
        column="personal_data",
        meaning="seems to have a mail address, phone or card number",
        only_counted=contract.personal_data == "report",
    )


def check_contract(
    facts: pd.DataFrame, rules: list[RowRule], *, data: DataSection, contract: ContractSection, folder: Path
) -> dict[str, Any]:
    """Check `facts`, write report, quarantine and accepted row numbers into `folder`.

    Returns:
        Counts for people and later steps.

    Raises:
        ContractError: the data set is refused; `folder` holds the report and the quarantine.
    """
    if facts.empty:
        raise ContractError(
            "The data set is empty.",
            where=data.source,
            value="0 records",
            repair="add records, or correct data.source",
        )
    breaches = _find_breaches(facts, rules, folder)
    counted = {rule.meaning for rule in rules if rule.only_counted}
    reasons = {
        row: kept for row, found in breaches.items() if (kept := [r for r in found if r not in counted])
    }
    quarantined = facts[facts["row"].isin(reasons)]
    accepted = facts[~facts["row"].isin(reasons)]
    _write_records(quarantined, reasons, folder / QUARANTINE)
    doubts = {row: kept for row, found in breaches.items() if (kept := [r for r in found if r in counted])}
    _write_records(accepted[accepted["row"].isin(doubts)], doubts, folder / FLAGGED)
    np.save(folder / ACCEPTED, accepted["row"].to_numpy(np.int64))
    # Records with several labels have them in a column of their own.
    found = accepted["labels"].explode() if "labels" in accepted else accepted["label"]
    if data.several_labels:
        found = found.fillna("").map(split_labels).explode()
    counts = found.value_counts().reindex(data.labels, fill_value=0)
    summary = {
        "rows": len(facts),
        "accepted": len(accepted),
        "quarantined": len(quarantined),
        "flagged": {m: sum(m in found for found in breaches.values()) for m in sorted(counted)},
        "rows_per_label": {str(label): int(count) for label, count in counts.items()},
    }
    failures = _find_failures(summary, quarantined, contract)
    write_bytes(folder / REPORT, _render_report(summary, rules, reasons, failures).encode())
    if failures:
        raise _refuse(failures, quarantined, reasons, data, folder)
    return summary


def import_expectations() -> None:
    """Import Great Expectations, seconds of work, ahead of its first use."""
    importlib.import_module("great_expectations.expectations")


def _find_breaches(facts: pd.DataFrame, rules: list[RowRule], folder: Path) -> dict[int, list[str]]:
    """Run the suite; which rows break it, and how."""
    import great_expectations as gx

    # It announces its temporary folder, on a logger with a level of its own.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = gx.data_context.types.base.ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("facts").add_dataframe_asset("records")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": facts})
    suite = gx.ExpectationSuite(name="records", expectations=[rule.expectation for rule in rules])
    result = batch.validate(
        suite, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["row"]}
    )
    _write_validation(result.to_json_dict(), folder)
    meanings = {(rule.expectation.expectation_type, rule.column): rule.meaning for rule in rules}
    reasons: dict[int, list[str]] = {}
    for outcome in result.results:
        if outcome.exception_info.get("raised_exception"):
            raise ContractError("An expectation could not be evaluated.", value=str(outcome.exception_info))
        meaning = meanings[outcome.expectation_config.type, outcome.expectation_config.kwargs["column"]]
        for entry in outcome.result.get("unexpected_index_list") or []:
            reasons.setdefault(int(entry["row"]), []).append(meaning)
    return reasons


def _write_validation(result: dict[str, Any], folder: Path) -> None:
    """Keep the suite's full result, without its time stamps: the same data gives the same bytes."""
    result.pop("meta", None)
    result.pop("id", None)
    for outcome in result["results"]:
        outcome.pop("meta", None)
        outcome["expectation_config"].pop("id", None)
        outcome["expectation_config"]["kwargs"].pop("batch_id", None)
    # Great Expectations writes NaN for shares of nothing; JSON has none.
    text = json.dumps(result, default=str)
    write_json(folder / "validation.json", json.loads(text, parse_constant=lambda _: None))


def _write_records(records: pd.DataFrame, reasons: dict[int, list[str]], path: Path) -> None:
    """One JSON line a record, with what it breaks; of texts also the label that is likelier."""
    lines = [
        json.dumps(
            {
                "id": record["id"],
                "label": record["label"],
                "where": record["where"],
                "row": record["row"],
                "reasons": reasons[record["row"]],
                "problem": record["problem"],
                **({"likelier_label": likelier} if (likelier := record.get("likelier_label")) else {}),
            }
        )
        for record in records.to_dict("records")
    ]
    write_bytes(path, "".join(line + "\n" for line in lines).encode())


def _find_failures(
    summary: dict[str, Any],
    quarantined: pd.DataFrame,
    contract: ContractSection,
) -> list[str]:
    failures = []
    fraction = len(quarantined) / summary["rows"]
    if fraction > contract.max_quarantined_fraction:
        failures.append(
            f"{len(quarantined)} of {summary['rows']} records ({fraction:.2%}) break the contract; "
            f"contract.max_quarantined_fraction allows {contract.max_quarantined_fraction:.2%}"
        )
    if summary["accepted"] < contract.min_rows:
        failures.append(f"{summary['accepted']} good records; contract.min_rows wants {contract.min_rows}")
    present = [label for label, count in summary["rows_per_label"].items() if count]
    if len(present) == 1 < len(summary["rows_per_label"]):
        failures.append(f"all good records have one label, {present[0]!r}: there is nothing to tell apart")
    scarce = {
        label: count
        for label, count in summary["rows_per_label"].items()
        if count < contract.min_rows_per_label
    }
    if scarce:
        named = ", ".join(f"{label!r} has {count}" for label, count in scarce.items())
        failures.append(f"contract.min_rows_per_label wants {contract.min_rows_per_label}: {named}")
    return failures + _find_imbalance(summary["rows_per_label"], contract)


def _find_imbalance(rows: dict[str, int], contract: ContractSection) -> list[str]:
    if contract.max_label_ratio is None or not rows:
        return []
    rarest, commonest = min(rows, key=lambda label: rows[label]), max(rows, key=lambda label: rows[label])
    if rows[commonest] <= contract.max_label_ratio * rows[rarest]:
        return []
    return [
        f"contract.max_label_ratio allows {contract.max_label_ratio:g}: {commonest!r} has {rows[commonest]} "
        f"records, {rarest!r} {rows[rarest]}"
    ]


def _refuse(
    failures: list[str],
    quarantined: pd.DataFrame,
    reasons: dict[int, list[str]],
    data: DataSection,
    folder: Path,
) -> ContractError:
    examples = [
        f"{record['where']} (id {record['id']!r}, label {record['label']!r}) "
        + "; ".join(reasons[record["row"]])
        + (f" [{record['problem']}]" if record["problem"] else "")
        for record in quarantined.head(_SHOWN).to_dict("records")
    ]
    return ContractError(
        "The data set breaks its contract: " + "; ".join(failures) + ".",
        where=data.source,
        value="\n          ".join(examples) or None,
        repair=f"correct the records ({folder / QUARANTINE} lists all) or the recipe's contract section",
    )


def _render_report(
    summary: dict[str, Any], rules: list[RowRule], reasons: dict[int, list[str]], failures: list[str]
) -> str:
    lines = [
        "# Data contract",
        "",
        f"{summary['accepted']} of {summary['rows']} records accepted, "
        f"{summary['quarantined']} in quarantine. "
        + ("**Refused:** " + "; ".join(failures) if failures else "**Accepted.**"),
        "",
        "| a record is quarantined when it … | expectation | records |",
        "|---|---|---:|",
    ]
    for rule in rules:
        if rule.only_counted:
            continue
        broken = sum(rule.meaning in found for found in reasons.values())
        lines.append(
            f"| {rule.meaning} | `{rule.expectation.expectation_type}` on `{rule.column}` | {broken} |"
        )
    if summary["flagged"]:
        lines += ["", f"| a record is counted here (and in {FLAGGED}), and accepted, when it … | records |"]
        lines.append("|---|---:|")
    lines += [f"| {meaning} | {count} |" for meaning, count in summary["flagged"].items()]
    if summary["rows_per_label"]:
        lines += ["", "| label | records |", "|---|---:|"]
    lines += [f"| {label} | {count} |" for label, count in summary["rows_per_label"].items()]
    return "\n".join(lines) + "\n"
