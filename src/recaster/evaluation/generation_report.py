"""What an evaluation of generated pictures shows beside its metrics: bars to hold them to, and sheets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.data.generation_reference import BASELINES
from recaster.data.shards import Shard
from recaster.evaluation.generation_metrics import (
    GENERATION_METRICS,
    arrange_generated,
    frechet_distance,
    kernel_distance,
    nearest_pictures,
)

Pictures = NDArray[np.float32]
_MOST_TIMES = 10


def report_generation(
    predictions: NDArray[np.float64],
    targets: NDArray[np.float64],
    prepared: Path,
    *,
    encoder: str | None,
    folder: Path,
) -> dict[str, Any]:
    """Distances of the baselines to the same held-out pictures, as a table and a plot."""
    table = {}
    for name in BASELINES:
        features = np.load(prepared / f"{name}.features.npy").astype(np.float64)
        nothing = np.zeros(len(features), dtype=bool)
        rows = arrange_generated(features, copied=nothing, precise=nothing)
        table[name] = {
            "pictures": len(rows),
            "frechet_distance": frechet_distance(rows, targets),
            "kernel_distance": kernel_distance(rows, targets[: len(rows)]),
        }
    measured = GENERATION_METRICS["frechet_distance"](predictions, targets)
    _plot_bars({**{k: v["frechet_distance"] for k, v in table.items()}, "model": measured}, folder)
    return {"encoder": encoder or "pixels", "baselines": table}


def _plot_bars(distances: dict[str, float], folder: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.5), layout="constrained")
    axes = figure.add_subplot()
    names = {"real": "real, of training", "gaussian": "one Gaussian", "model": "model"}
    axes.barh([names[name] for name in distances], list(distances.values()))
    axes.set(xlabel="Frechet distance to held-out pictures")
    figure.savefig(folder / "frechet_distance.png", dpi=110)


def compare_with_training(pictures: Pictures, held_out: Shard, train: Shard) -> dict[str, Any]:
    """Root mean square differences to the nearest training picture, of generated and of held-out pictures.

    Held-out ones say what is usual: generated ones that are much nearer were learned by heart.
    """
    count = len(train.labels)
    real = held_out.scaled(slice(0, len(pictures)))
    found = {
        name: nearest_pictures(asked, train.scaled, count)[0]
        for name, asked in (("generated", pictures), ("held_out", real))
    }
    nearer = (found["generated"] < np.quantile(found["held_out"], 0.05)).mean()
    return {
        "pictures": len(pictures),
        **{f"{name}_to_training": float(np.median(values)) for name, values in found.items()},
        "nearer_than_95_percent_of_held_out": float(nearer),
    }


def draw_sheet(pictures: Pictures, names: Sequence[str], path: Path) -> None:
    """Write pictures `(rows, columns, channels, height, width)` in 0..1 as one sheet, a name a row."""
    from matplotlib.figure import Figure

    rows, columns, channels, height, width = pictures.shape
    framed = np.pad(pictures, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 1)), constant_values=1.0)
    sheet = framed.transpose(0, 3, 1, 4, 2).reshape(rows * (height + 1), columns * (width + 1), channels)
    figure = Figure(figsize=(0.6 * columns + 1, 0.6 * rows * height / width), layout="constrained")
    axes = figure.add_subplot()
    grey = channels == 1
    axes.imshow(sheet[:, :, 0] if grey else sheet, cmap="gray" if grey else None, vmin=0, vmax=1)
    axes.set_yticks([(row + 0.5) * (height + 1) for row in range(rows)], list(names), fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(path, dpi=130)


def draw_nearest(pictures: Pictures, train: Shard, folder: Path) -> None:
    """Write generated pictures above the training pictures that are nearest to each."""
    _, places = nearest_pictures(pictures, train.scaled, len(train.labels))
    order = np.argsort(places)
    nearest = train.scaled(places[order])[np.argsort(order)]
    half = len(pictures) // 2
    parts = [(part[:half], part[half : 2 * half]) for part in (pictures, nearest)]
    rows = np.stack([parts[0][0], parts[1][0], parts[0][1], parts[1][1]])
    draw_sheet(rows, ["generated", "nearest of training"] * 2, folder / "nearest_training.png")


def draw_over_time(training: Path, path: Path) -> None:
    """Write what the generator made after validations, a row a time, the first and the last among them."""
    from safetensors.numpy import load_file

    files = sorted(training.glob("*.safetensors"))
    if not files:
        return
    chosen = np.unique(np.linspace(0, len(files) - 1, min(_MOST_TIMES, len(files))).astype(int))
    shown = [files[number] for number in chosen]
    rows = np.stack([load_file(file)["drawn"] for file in shown]).astype(np.float32)
    draw_sheet(rows, [f"step {int(file.stem)}" for file in shown], path)


def walk(start: NDArray[np.float32], end: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """`(steps, numbers)` from one noise vector to another, along the sphere (White 2016).

    On the straight line between two the numbers shrink, to what the generator never saw.
    """
    cosine = float(start @ end / (np.linalg.norm(start) * np.linalg.norm(end)))
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    share = np.linspace(0, 1, steps)[:, None]
    if angle < 1e-6:
        return np.repeat(start[None], steps, 0)
    path = np.sin((1 - share) * angle) * start + np.sin(share * angle) * end
    steps_between: NDArray[np.float32] = (path / np.sin(angle)).astype(np.float32)
    return steps_between
