"""What a frozen encoder makes of a data set, as far as a check needs it: of a few rows, repeated."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.core.files import write_bytes
from recaster.core.steps import StepResult, find_step
from recaster.pipeline.base_verbs import find_base
from recaster.pipeline.inputs import features_inputs, training_plan
from recaster.pipeline.open_cast import Cast

if TYPE_CHECKING:
    from recaster.training.trainable import TrainingSet

_ROWS = 192
_SPLITS = ("train", "validation")


def find_features(cast: Cast, prepared: StepResult, folder: Path) -> tuple[Path | None, float]:
    """The cast's features where they are finished, else a stand-in for them in `folder`.

    Returns:
        Their folder, None for a method that does without; and how many seconds computing them all will
        take, 0 where they are finished.
    """
    base = find_base(cast)
    if cast.recipe.customize.method != "probe" or base is None:
        return None, 0.0
    if found := find_step(cast.settings.steps, "features", features_inputs(cast, prepared, base)):
        return found.path, 0.0
    folder.mkdir(parents=True)
    return folder, _write_stand_in(cast, prepared, folder)


def _write_stand_in(cast: Cast, prepared: StepResult, folder: Path) -> float:
    """As many features as the splits have rows, those of a few rows over and over; seconds for all."""
    import numpy as np

    from recaster.customization.probe import compute_features
    from recaster.preflight.excerpt import cut_out, pick_longest

    plan = training_plan(cast, prepared)
    model = cast.workload.build_model(plan)
    whole = {split: cast.workload.open_split(prepared.path, split, plan) for split in _SPLITS}
    few = {
        split: cut_out(data, pick_longest(None, rows=len(data), count=min(_ROWS, len(data))))
        for split, data in whole.items()
    }
    started = time.perf_counter()
    compute_features(model, few.__getitem__, folder, splits=_SPLITS)
    seconds = time.perf_counter() - started
    for split, data in whole.items():
        for part in ("features", "labels"):
            values = np.load(folder / f"{split}.{part}.npy")
            np.save(folder / f"{split}.{part}.npy", np.resize(values, (len(data), *values.shape[1:])))
        write_bytes(folder / f"{split}.ids.json", json.dumps([str(row) for row in range(len(data))]).encode())
    return seconds * sum(map(_elements, whole.values())) / sum(map(_elements, few.values()))


def _elements(data: TrainingSet) -> int:
    lengths: Any = data.lengths
    return len(data) if lengths is None else int(lengths.sum())
