"""Tables for people."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any


def show_summary(summary: dict[str, Any], recipe: Path) -> str:
    """A cast's end: data version, metrics, verdict, version, seconds a step, what to try next."""
    name, accepted = summary["name"], summary["accepted"]
    lines = [
        "",
        f"  model      {name} version {summary['model_version']}: {'PROMOTED' if accepted else 'REFUSED'}",
        *(f"             {reason}" for reason in summary["reasons"]),
        f"  champion   version {summary['champion'] or 'none'}",
        f"  data       version {summary['data_version'][:12]}",
        "",
        *_metric_lines(summary["metrics"]),
        "",
        f"  {'step':<26}{'seconds':>9}",
        *(
            f"  {s['step']:<26}{s['seconds']:>9.1f}  {'found finished' if s['reused'] else ''}"
            for s in summary["steps"]
        ),
        "",
        "  next: recaster ui                      see the cast in MLflow and Prefect",
        f"        recaster history {name}",
        f"        recaster run {recipe} --set train.epochs=1     a challenger that is refused",
    ]
    return "\n".join(lines)


def show_search(summary: dict[str, Any], recipe: Path, overrides: list[str], *, written: bool) -> str:
    """A search's end: the best trial, what mattered, what to type next."""
    best, counts, shares = summary["best"], summary["counts"], summary["importance"]
    ended = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    held = [*overrides, *([] if written else best["overrides"])]
    settings = " ".join(f"--set {shlex.quote(text)}" for text in held)
    keys = [*shares, *(key for key in best["values"] if key not in shares)]
    lines = [
        "",
        f"  search     {summary['name']}, {ended} of {summary['wanted']} trials",
        f"  best       {summary['metric']} {best['metric']:.6g}, trial {best['trial']} (from 0)",
        "",
        f"  {'parameter':<40}{'best value':>14}{'importance':>12}",
        *(f"  {key:<40}{best['values'].get(key)!s:>14}{shares.get(key, ''):>12}" for key in keys),
        "",
        *([] if summary["finished"] else ["  not all trials ended: the same command goes on", ""]),
        f"  next: recaster run {recipe} {settings}".rstrip(),
    ]
    if not written:
        lines.append("        the same command with --write puts the values into the recipe")
    return "\n".join([*lines, "        recaster ui                              see the trials in MLflow"])


def _metric_lines(metrics: dict[str, dict[str, float]]) -> list[str]:
    return [
        f"  {'held-out metric':<26}{'value':>9}{'interval':>20}",
        *(
            f"  {metric:<26}{entry['value']:>9.4f}{entry['low']:>11.4f} … {entry['high']:.4f}"
            for metric, entry in metrics.items()
        ),
    ]


def show_step(facts: dict[str, Any]) -> str:
    """One step's end: what it found out, a line a fact; metrics as a table."""
    found = "  found finished" if facts["reused"] else ""
    lines = ["", f"  {facts['step']:<26}{facts['ref']}{found}"]
    rest = {name: value for name, value in facts.items() if name not in {"step", "ref", "reused", "metrics"}}
    lines += [f"  {name:<26}{value}" for name, value in rest.items()]
    if "metrics" in facts:
        lines += ["", *_metric_lines(facts["metrics"])]
    return "\n".join(lines)


def show_prediction(row: dict[str, Any]) -> str:
    """A line of `predict`: the id, then the label and its probability, or what else the model says."""
    if "conllu" in row:  # a file of its own form, for the next program
        return str(row["conllu"]).rstrip("\n") + "\n"
    if "decision" in row:  # a face beside the first one; its embedding is for programs
        return f"{row['id']}\t{row['decision']}\t{row['score']:.4f}"
    if "seed" in row:  # a generated picture
        return "\t".join(str(value) for value in row.values())
    if "nearest" in row:  # a word's; its vector is for programs
        return f"{row['id']}\t{row['nearest']}"
    if "label" not in row:
        return "\t".join(_show_value(value) for value in row.values()).rstrip()
    told = [f"{label}\t{row['p_' + label]:.4f}" for label in _told(row)]
    return "\t".join([str(row["id"]), *told])


def _show_value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _told(row: dict[str, Any]) -> list[str]:
    """The label of a row, or its several."""
    from recaster.recipe.data import SEPARATOR

    label = row["label"]
    return [label] if f"p_{label}" in row else label.split(SEPARATOR) if label else []


def _first_metric(metrics: dict[str, dict[str, float]]) -> str:
    """The first on held-out records."""
    from recaster.recipe.policy import LEAKS

    name, entry = next((name, entry) for name, entry in metrics.items() if name not in LEAKS)
    return f"{name} {entry['value']:.4f}"


def show_history(casts: list[dict[str, Any]]) -> str:
    """A line a cast."""
    lines = [f"{'finished':<26}{'model':<16}{'version':<9}{'verdict':<10}{'data':<14}metric"]
    lines += [
        f"{cast['finished']:<26}{cast['name']:<16}{cast['model_version']:<9}"
        f"{'promoted' if cast['accepted'] else 'refused':<10}{cast['data_version'][:12]:<14}"
        f"{_first_metric(cast['metrics'])}"
        for cast in casts
    ]
    return "\n".join(lines)
