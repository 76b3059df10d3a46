"""The picture runs of the customization benchmark: ImageNet weights on a fifth of CIFAR-10, or fresh ones.

Each method is held against networks with fresh weights that are given at least its processor time, that of
its features included: their steps are counted out by two short runs. Processor time, since the machine may
be shared.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.customization_runs import Figure, Measure, cast_run, run_cast
from benchmarks.public_data import CIFAR10
from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter

_RECIPE = "recipes/image-classification/cifar10-mobilenet.yaml"
_ALONE = ("distributed.threads_per_rank=1", *CIFAR10)
"""Threads that wait for another on a shared machine would count as processor time; and where the data is."""
_METHODS: dict[str, tuple[str, ...]] = {
    "probe": (
        "customize.method=probe",
        "train.epochs=20",
        "train.optimizer.learning_rate=0.002",
        "train.batch_size=128",
        "train.micro_batch_size=128",
        "train.checkpoint_every_steps=5000",
    ),
    "lora": (
        "customize.method=lora",
        "customize.lora.rank=16",
        "customize.lora.alpha=32.0",
        "train.epochs=3",
        "train.optimizer.learning_rate=0.002",
    ),
    "full": (),
}
_FRESH: dict[str, tuple[str, ...]] = {
    "mobilenet-v2": ("model.base=scratch:mobilenet-v2", "train.optimizer.learning_rate=0.003"),
    "resnet-20": ("model.base=scratch:resnet-20", "train.optimizer.learning_rate=0.01"),
    "small-cnn": ("model.base=scratch:small-cnn", "train.optimizer.learning_rate=0.003"),
}
_MARGIN = 1.1
_SHORT, _LONGER = 20, 60


def _method_run(method: str, project: Path) -> dict[str, Any]:
    row = cast_run(_RECIPE, *_METHODS[method], *_ALONE)(project)
    return {**row, "cpu_seconds": round(_spent(method, project), 1)}


def _spent(method: str, project: Path) -> float:
    """Processor seconds of a method's training, and of its features."""
    cast = pipeline.open_cast(project / _RECIPE, (*_METHODS[method], *_ALONE))
    trained, _ = run_cast(cast)
    features = read_json(trained.path / "plan.json")["features"]
    spent = float(trained.facts["cpu_seconds"])
    return spent + (read_json(Path(features) / "manifest.json")["facts"]["cpu_seconds"] if features else 0.0)


def _fresh_run(architecture: str, method: str, project: Path) -> dict[str, Any]:
    """Fresh weights, trained for at least the processor time of `method`."""
    short, longer = (_cpu_seconds(architecture, steps, project) for steps in (_SHORT, _LONGER))
    each = (longer - short) / (_LONGER - _SHORT)
    budget = _spent(method, project)
    steps = max(_LONGER, round(_MARGIN * (budget - short) / each))
    row = cast_run(_RECIPE, *_fresh_overrides(architecture, steps))(project)
    while row["cpu_seconds"] < budget:  # a step took less than in the short runs, on a busier machine
        steps = round(steps * _MARGIN * budget / row["cpu_seconds"])
        row = cast_run(_RECIPE, *_fresh_overrides(architecture, steps))(project)
    return row


def _cpu_seconds(architecture: str, steps: int, project: Path) -> float:
    cast = pipeline.open_cast(project / _RECIPE, _fresh_overrides(architecture, steps))
    return float(pipeline.run_to(cast, "train", SilentReporter()).facts["cpu_seconds"])


def _fresh_overrides(architecture: str, steps: int) -> tuple[str, ...]:
    small = architecture != "mobilenet-v2"
    return (
        *_FRESH[architecture],
        *_ALONE,
        *(("model.input_size=null",) if small else ()),
        "train.epochs=10000",
        f"train.max_steps={steps}",
        "train.validate_every_epochs=10",
    )


RUNS: dict[str, Measure] = {f"cifar10/{method}": partial(_method_run, method) for method in _METHODS}
RUNS |= {
    f"cifar10/fresh-{architecture}-as-{method}": partial(_fresh_run, architecture, method)
    for method in _METHODS
    for architecture in _FRESH
}


def _points(own: dict[str, Any], *fresh: dict[str, Any]) -> float:
    return 100 * float(own["quality"] - max(row["quality"] for row in fresh))


def _time(own: dict[str, Any], *fresh: dict[str, Any]) -> float:
    return float(min(row["cpu_seconds"] for row in fresh) / own["cpu_seconds"])


FIGURES: list[Figure] = [
    figure
    for method in _METHODS
    for needed in ((f"cifar10/{method}", *(f"cifar10/fresh-{name}-as-{method}" for name in _FRESH)),)
    for figure in (
        (
            f"CIFAR-10 subset, {method}, points over the best of fresh weights",
            "above 0",
            needed,
            _points,
            lambda found: found > 0,
        ),
        (
            f"CIFAR-10 subset, least processor time of fresh weights over {method}'s",
            "at least 1",
            needed,
            _time,
            lambda found: found >= 1,
        ),
    )
]
