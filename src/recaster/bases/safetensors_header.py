"""The head of a safetensors file, checked before any of its bytes become a tensor.

8 bytes: length of the head | the head, JSON: {"name": {"dtype": "F32", "shape": [2, 3],
"data_offsets": [0, 24]}, …, "__metadata__": {…}} | the tensors' bytes, without gaps

The library refuses such files too, but says neither which tensor nor how many bytes are missing.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from recaster.core.errors import BaseModelError

_MAX_HEAD_BYTES = 100_000_000  # the format's own bound
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    "F4": 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorHead:
    """One tensor's place in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Bytes after the head."""
    end: int


def read_header(path: Path) -> dict[str, TensorHead]:
    """The tensors of a safetensors file by name.

    Raises:
        BaseModelError: the file is truncated, has bytes that belong to nothing, or contradicts itself.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head_bytes = struct.unpack("<Q", file.read(8))[0] if size >= 8 else 0
        if not 2 <= head_bytes <= min(_MAX_HEAD_BYTES, size - 8):
            raise _refuse(path, "is no safetensors file, or was cut off in its head", f"{size} bytes")
        text = file.read(head_bytes)
    try:
        tree = json.loads(text)
        heads = {name: _read_tensor(entry) for name, entry in tree.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _refuse(path, "has a damaged head", repr(error)) from error
    for name, head in heads.items():
        _check_tensor(path, name, head)
    _check_layout(path, heads, size - 8 - head_bytes)
    return heads


def _read_tensor(entry: dict[str, Any]) -> TensorHead:
    begin, end = entry["data_offsets"]
    return TensorHead(
        dtype=str(entry["dtype"]),
        shape=tuple(int(length) for length in entry["shape"]),
        begin=int(begin),
        end=int(end),
    )


def _check_tensor(path: Path, name: str, head: TensorHead) -> None:
    if head.dtype not in _BITS or any(length < 0 for length in head.shape):
        raise _refuse(path, f"has a tensor {name!r} of no known kind", f"{head.dtype} {list(head.shape)}")
    wanted = math.prod(head.shape) * _BITS[head.dtype]
    if wanted % 8 or head.end - head.begin != wanted // 8:
        raise _refuse(
            path,
            f"gives the tensor {name!r} another size than its shape has",
            f"{head.dtype} {list(head.shape)} is {wanted / 8:g} bytes, not {head.end - head.begin}",
        )


def _check_layout(path: Path, heads: dict[str, TensorHead], data_bytes: int) -> None:
    ordered = sorted(heads.values(), key=lambda head: (head.begin, head.end))
    wanted = max((head.end for head in ordered), default=0)
    if data_bytes < wanted:
        lost = sum(head.end > data_bytes for head in ordered)
        raise _refuse(
            path, "was cut off", f"{wanted - data_bytes} bytes are missing, {lost} tensors with them"
        )
    begins_late = bool(ordered) and ordered[0].begin != 0
    if data_bytes > wanted or begins_late or any(one.end != two.begin for one, two in pairwise(ordered)):
        raise _refuse(path, "has bytes that belong to no tensor, or to two", f"{data_bytes} bytes of tensors")


def _refuse(path: Path, problem: str, value: str) -> BaseModelError:
    return BaseModelError(
        f"The weight file {problem}.",
        where=str(path),
        value=value,
        repair="fetch or copy it again, and compare its sha256 with the publisher's",
    )
