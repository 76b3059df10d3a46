"""The runs that make a tuned model smaller, in the customization benchmark: distilled, pruned, in int8.

Each begins with the SST-2 model that `sst2/full` trained, and is held against it: quality on the test
split, size of the weights, and latency of one sentence at a time on one thread.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.customization_runs import LOCAL, SST2, SST2_FULL, Figure, Measure, cast_run, run_cast
from recaster import pipeline
from recaster.core.progress import SilentReporter
from recaster.data.token_shards import read_token_shard
from recaster.exporting.onnx import INT8
from recaster.pipeline.export_verbs import export_model

_SENTENCES, _ROUNDS = 200, 3
_WARM = 20
Answers = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Tokens `(1, length)` → logits `(1, classes)`."""
_PLAIN = ("train.loss.consistency=0", "train.batch_size=32", "distributed.threads_per_rank=1")
_SHORT = ("train.epochs=2", "train.optimizer.learning_rate=0.00005", *_PLAIN)
"""What is tuned already is not to be moved far."""


def _prune(structure: str) -> str:
    return f"customize.prune={{structure: {structure}, fraction: 0.5}}"


_METHODS: dict[str, tuple[str, ...]] = {
    "distil": (
        "customize.method=distil",
        "customize.distil={teacher: 'path:TUNED', teacher_licence: research-only, layers: 3}",
        "train.epochs=4",
        *_PLAIN,
    ),
    "prune-neurons": (
        "customize.method=prune",
        "customize.prune={structure: neurons, fraction: 0.5}",
        *_SHORT,
    ),
    "prune-weights": (
        "customize.method=prune",
        "customize.prune={structure: weights, fraction: 0.5}",
        *_SHORT,
    ),
    "quantize": ("customize.method=quantize", *_SHORT),
}


def _smaller_run(method: str, project: Path) -> dict[str, Any]:
    """A cast that begins with the tuned model; its weights and latency beside that model's."""
    tuned, overrides = _artifact(project, SST2_FULL), _overrides(method, project)
    row = cast_run(SST2, *overrides)(project)
    smaller = _artifact(project, overrides)
    return {
        **row,
        "overrides": [text.replace(str(tuned), "TUNED") for text in row["overrides"]],
        **_time_both(_torch_answers(tuned), _torch_answers(smaller), _read_sentences(project)),
        "bytes": _size(smaller / "model.safetensors"),
        "bytes_before": _size(tuned / "model.safetensors"),
    }


def _int8_run(method: str, project: Path) -> dict[str, Any]:
    """The export of a model to int8, on the whole test split as onnxruntime answers it, one by one."""
    overrides = SST2_FULL if method == "full" else _overrides(method, project)
    cast = pipeline.open_cast(project / SST2, overrides)
    _, evaluated = run_cast(cast)
    artifact, sentences = _artifact(project, overrides), _read_sentences(project)
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "int8"
        export_model(
            cast.settings,
            str(artifact),
            target,
            form="onnx",
            int8=True,
            adapter_only=False,
            base=None,
            reporter=SilentReporter(),
        )
        answer = _onnx_answers(target / INT8)
        right = sum(int(answer(tokens).argmax()) == label for tokens, label in sentences)
        timed = _time_both(_torch_answers(artifact), answer, sentences)
        size = _size(target / INT8)
    return {
        "recipe": SST2,
        "method": f"{method}, then int8",
        "metric": "accuracy",
        "quality": round(right / len(sentences), 4),
        "quality_before": round(evaluated.facts["metrics"]["accuracy"]["value"], 4),
        **timed,
        "bytes": size,
        "bytes_before": _size(artifact / "model.safetensors"),
    }


def _overrides(method: str, project: Path) -> tuple[str, ...]:
    """With the SST-2 model in the place of its base."""
    tuned = _artifact(project, SST2_FULL)
    own = (text.replace("TUNED", str(tuned)) for text in _METHODS[method])
    return (*LOCAL["sst2"], f"model.base=path:{tuned}", "model.licence=research-only", *own)


def _artifact(project: Path, overrides: tuple[str, ...]) -> Path:
    """The exported model of an SST-2 cast, which is made where it is not there."""
    return pipeline.run_to(pipeline.open_cast(project / SST2, overrides), "export", SilentReporter()).path


def _read_sentences(project: Path) -> list[tuple[NDArray[np.int64], int]]:
    """Tokens `(1, length)` and label of each row of the test split."""
    cast = pipeline.open_cast(project / SST2, LOCAL["sst2"])
    shard = read_token_shard(pipeline.run_to(cast, "prepare", SilentReporter()).path, "test")
    rows = np.arange(len(shard.labels))
    return [(shard.padded(rows[at : at + 1], 0), int(shard.labels[at])) for at in rows]


def _torch_answers(artifact: Path) -> Answers:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(artifact, dtype=torch.float32).eval()

    def answer(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = model(input_ids=torch.from_numpy(tokens)).logits.numpy()
        return logits

    return answer


def _onnx_answers(path: Path) -> Answers:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {one.name for one in session.get_inputs()}

    def answer(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        given = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        logits: NDArray[np.float32] = session.run(
            ["logits"], {name: value for name, value in given.items() if name in names}
        )[0]
        return logits

    return answer


def _time_both(
    before: Answers, after: Answers, sentences: list[tuple[NDArray[np.int64], int]]
) -> dict[str, float]:
    """Median milliseconds of a sentence, the two models in turn, and the median of their ratio."""
    torch.set_num_threads(1)
    chosen = sentences[:_SENTENCES]
    for tokens, _ in chosen[:_WARM]:
        before(tokens), after(tokens)
    times = [(_time(before, tokens), _time(after, tokens)) for tokens, _ in chosen for _ in range(_ROUNDS)]
    return {
        "milliseconds": round(1000 * statistics.median(after for _, after in times), 3),
        "milliseconds_before": round(1000 * statistics.median(before for before, _ in times), 3),
        "latency_ratio": round(statistics.median(after / before for before, after in times), 4),
    }


def _time(answer: Answers, tokens: NDArray[np.int64]) -> float:
    began = time.perf_counter()
    answer(tokens)
    return time.perf_counter() - began


def _size(path: Path) -> int:
    return path.stat().st_size


RUNS: dict[str, Measure] = {f"sst2/{method}": partial(_smaller_run, method) for method in _METHODS}
RUNS |= {f"sst2/{method}-int8": partial(_int8_run, method) for method in ("full", "quantize")}
FIGURES: list[Figure] = [
    (
        "SST-2, distilled into 3 layers, accuracy over the teacher's",
        "at least 0.97",
        ("sst2/full", "sst2/distil"),
        lambda full, small: small["quality"] / full["quality"],
        lambda found: found >= 0.97,
    ),
    (
        "SST-2, distilled into 3 layers, latency over the teacher's",
        "at most 0.6",
        ("sst2/distil",),
        lambda small: small["latency_ratio"],
        lambda found: found <= 0.6,
    ),
    (
        "SST-2, int8, points lost",
        "at most 0.5",
        ("sst2/full-int8",),
        lambda small: 100 * (small["quality_before"] - small["quality"]),
        lambda found: found <= 0.5,
    ),
    (
        "SST-2, trained for int8, points of its int8 form under the tuned model",
        "at most 0.5",
        ("sst2/full", "sst2/quantize-int8"),
        lambda full, small: 100 * (full["quality"] - small["quality"]),
        lambda found: found <= 0.5,
    ),
    (
        "SST-2, half the neurons pruned, size over the tuned model's",
        "under 1",
        ("sst2/prune-neurons",),
        lambda small: small["bytes"] / small["bytes_before"],
        lambda found: found < 1,
    ),
    (
        "SST-2, half the neurons pruned, latency over the tuned model's",
        "under 1",
        ("sst2/prune-neurons",),
        lambda small: small["latency_ratio"],
        lambda found: found < 1,
    ),
]
