"""Tables for people."""

from __future__ import annotations

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


def show_history(casts: list[dict[str, Any]]) -> str:
    """A line a cast."""
    lines = [f"{'finished':<26}{'model':<16}{'version':<9}{'verdict':<10}{'data':<14}accuracy"]
    lines += [
        f"{cast['finished']:<26}{cast['name']:<16}{cast['model_version']:<9}"
        f"{'promoted' if cast['accepted'] else 'refused':<10}{cast['data_version'][:12]:<14}"
        f"{cast['metrics']['accuracy']['value']:.4f}"
        for cast in casts
    ]
    return "\n".join(lines)
