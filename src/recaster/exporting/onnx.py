"""ONNX files: written by torch's exporter, checked against torch, rounded to int8 by onnxruntime.

model.onnx        the float32 graph; batch, and length where there is one, are free
model_int8.onnx   dynamic: weights rounded, activations as they come (matrix products)
                  static: activations' ranges measured on examples first (convolutions)
"""

from __future__ import annotations

import logging
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.errors import ExportError, RecipeError

Inputs = Mapping[str, NDArray[Any]]
"""One batch, by the names of the graph's inputs."""
FLOAT, INT8 = "model.onnx", "model_int8.onnx"
LOGITS, LOGITS_BORNE = "logits", 1e-4
"""A classifier's output, and the largest difference that may come of another order of float32 sums."""
_INT8_TOLERANCE = 0.05
"""Mean difference of a probability above which the rounded model is another model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A model as it is exported."""

    module: nn.Module
    """Takes the inputs by name, returns the outputs in their order."""
    examples: Sequence[Inputs]
    """Batches of different shapes."""
    free: Mapping[str, Mapping[int, str]]
    """The dimensions of each input that are not fixed, and what they are called."""
    outputs: Mapping[str, float]
    """By name, the largest difference from torch's that is borne; a classifier has `LOGITS` alone."""
    static: bool
    """Whether int8 needs activations' ranges measured: where convolutions are."""
    real: bool
    """Whether the examples are rows of data; else they are made up."""

    @property
    def classifies(self) -> bool:
        """Whether a row has one label: such graphs are rounded here, and compared by their labels."""
        return list(self.outputs) == [LOGITS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far a file's answers are from torch's on the same rows."""

    largest: Mapping[str, float]
    """Of a number of each output."""
    rows: int
    mean: float | None = None
    """Of a classifier's probability."""
    agreement: float | None = None
    """Share of a classifier's rows with the same label."""


def check_onnx_is_there() -> None:
    """Say what is missing before any work is done.

    Raises:
        RecipeError: a package of the extra `onnx` is not installed.
    """
    lacking = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if lacking:
        raise RecipeError(
            "Export to ONNX needs packages that are not installed.",
            where="--format onnx",
            value=", ".join(lacking),
            repair="pip install 'recaster[onnx]'",
        )


def write_onnx(graph: Graph, path: Path) -> Difference:
    """Write the float32 graph and compare it with torch on all examples.

    Raises:
        ExportError: its answers are not torch's.
    """
    # The largest: torch takes a dimension of one for a fixed one.
    largest = max(graph.examples, key=lambda batch: next(iter(batch.values())).size)
    example = {name: torch.from_numpy(value) for name, value in largest.items()}
    with _quiet():
        program: Any = torch.onnx.export(
            graph.module,
            kwargs=example,
            dynamo=True,
            input_names=list(example),
            output_names=list(graph.outputs),
            dynamic_shapes={name: dict(graph.free[name]) for name in example},
            verbose=False,
        )
        program.save(str(path))
    difference = compare(graph, path)
    for name, borne in graph.outputs.items():
        if difference.largest[name] > borne:
            raise ExportError(
                "The exported graph answers otherwise than the model.",
                where=str(path),
                value=f"{name} differ by {difference.largest[name]:.2e}; {borne:.0e} is borne",
                repair="report this with the model's architecture; --format hf is not affected",
            )
    return difference


def check_rounding(graph: Graph) -> None:
    """Say that a model is not rounded here before anything is written.

    Raises:
        RecipeError: it is no classifier.
    """
    if not graph.classifies:
        raise RecipeError(
            "Only classifiers are rounded to int8 here: what rounding costs other models is not checked.",
            where="--quantize",
            value=f"a model that answers with {', '.join(graph.outputs)}",
            repair="leave --quantize out",
        )


def write_int8(graph: Graph, source: Path, path: Path) -> Difference:
    """Round the graph in `source` to int8 and compare it with torch on all examples.

    Weights are symmetric, one scale for each output; activations have one scale for each tensor.

    Raises:
        RecipeError: see `check_rounding`.
        ExportError: its answers are too far from torch's.
    """
    check_rounding(graph)
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_name(f".{path.name}.prepared")
    with _quiet():
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        if graph.static:
            quantize_static(
                str(prepared),
                str(path),
                _Reader(graph.examples),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=_saturates(),
            )
        else:
            quantize_dynamic(str(prepared), str(path), per_channel=True, weight_type=QuantType.QInt8)
    prepared.unlink()
    difference = compare(graph, path)
    if difference.mean is not None and difference.mean > _INT8_TOLERANCE:
        raise ExportError(
            "Rounded to int8 the model is no longer the same.",
            where=str(path),
            value=f"a probability differs by {difference.mean:.3f} on average; {_INT8_TOLERANCE} is borne",
            repair="train with customize.method quantize, or export without --quantize",
        )
    return difference


def compare(graph: Graph, path: Path) -> Difference:
    """Hold the answers of the file at `path` against torch's."""
    from onnxruntime import InferenceSession

    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    told, wanted = [], []
    for batch in graph.examples:
        told.append(session.run(list(graph.outputs), dict(batch)))
        with torch.no_grad():
            found = graph.module(**{name: torch.from_numpy(value) for name, value in batch.items()})
        wanted.append([one.numpy() for one in ([found] if isinstance(found, Tensor) else found)])
    ours, theirs = (
        [np.concatenate(parts).astype(np.float64) for parts in zip(*answers, strict=True)]
        for answers in (told, wanted)
    )
    largest = {
        name: float(np.abs(one - other).max())
        for name, one, other in zip(graph.outputs, ours, theirs, strict=True)
    }
    difference = Difference(largest=largest, rows=len(ours[0]))
    if not graph.classifies:
        return difference
    return replace(
        difference,
        mean=float(np.abs(_softmax(ours[0]) - _softmax(theirs[0])).mean()),
        agreement=float((ours[0].argmax(1) == theirs[0].argmax(1)).mean()),
    )


def _saturates() -> bool:
    """Whether int8 products are added up in 16 bits here, which 8-bit weights overflow: x86 without VNNI."""
    known = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not known.exists():
        return False
    return not {"avx512_vnni", "avx_vnni"} & set(known.read_text().split())


class _Reader:
    """The examples as onnxruntime's calibration asks for them."""

    def __init__(self, examples: Sequence[Inputs]) -> None:
        self._left = iter(examples)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next batch, None after the last."""
        batch = next(self._left, None)
        return None if batch is None else dict(batch)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return shares


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' remarks on their own inside from the terminal; errors still come through."""
    former = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(former)
