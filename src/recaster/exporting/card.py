"""The model card that travels with every artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recaster.core.files import write_bytes
from recaster.recipe.schema import Recipe


def write_card(
    artifact: Path,
    recipe: Recipe,
    *,
    data_version: str,
    metrics: dict[str, dict[str, float]],
    classes: list[dict[str, Any]],
) -> None:
    """Write `README.md` into the artifact: data, metrics with intervals, classes, limits, licences."""
    confidence = f"{recipe.evaluate.confidence:.0%}"
    into = f" into {len(recipe.data.labels)} labels" if recipe.data.labels else ""
    table = ["| label | rows | precision | recall | f1 |", "|---|---:|---:|---:|---:|"] if classes else []
    lines = [
        "---",
        f"tags: [{recipe.workload}]",
        f"datasets: [{recipe.name}]",
        "---",
        f"# {recipe.name}",
        "",
        f"A model for {recipe.workload.replace('-', ' ')}{into}, from "
        f"`{recipe.model.base}` on `{recipe.data.source}`.",
        "",
        f"Data version `{data_version}`, licence of the data: {recipe.data.licence}.",
        "",
        f"## Held-out metrics ({confidence} intervals: Wilson's for accuracy, else bootstrap)",
        "",
        "| metric | value | low | high |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {m['value']:.4f} | {m['low']:.4f} | {m['high']:.4f} |" for name, m in metrics.items()),
        "",
        *table,
        *(
            f"| {c['label']} | {c['rows']} | {c['precision']:.3f} | {c['recall']:.3f} | {c['f1']:.3f} |"
            for c in classes
        ),
        "",
        "## Limits",
        "",
        "Measured on records of the same source as the training data; no claim is made for others.",
    ]
    write_bytes(artifact / "README.md", ("\n".join(lines) + "\n").encode())
