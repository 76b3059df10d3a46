"""Weights in other formats, read without running anything of theirs and written once as safetensors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.core.errors import BaseModelError

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def convert_pickle(source: Path, target: Path) -> None:
    """Write the state dict that `torch.save` wrote to `source` as safetensors.

    Raises:
        BaseModelError: it is damaged, holds code, or is no state dict.
    """
    import torch
    from safetensors.torch import save_file

    state = read_pickle(source)
    if odd := next((name for name, value in state.items() if value.layout != torch.strided), None):
        raise BaseModelError(
            "The state dict holds a tensor that is not stored plainly.",
            where=f"{source}: {odd}",
            value=str(state[odd].layout),
            repair="save it as a dense tensor",
        )
    save_file(_part(state), target, {"format": "pt"})


def _part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each contiguous and with memory of its own: safetensors holds no tied weights."""
    seen: set[int] = set()
    parted = {}
    for name, value in state.items():
        place = value.untyped_storage().data_ptr()
        whole = value.contiguous()
        parted[name] = whole.clone() if place in seen and whole is value else whole
        seen.add(place)
    return parted


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save`, by an unpickler that knows tensors and no code.

    Raises:
        BaseModelError: it is damaged, holds code, or is no state dict.
    """
    import torch

    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BaseModelError(
            "The pickle holds more than tensors: code, which was not run.",
            where=str(path),
            value=_first_line(error),
            repair="use a model in safetensors format, or ask its publisher for the plain state dict",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise BaseModelError(
            "The weight file is damaged.",
            where=str(path),
            value=_first_line(error),
            repair="fetch or copy it again, and compare its sha256 with the publisher's",
        ) from error
    return _unwrap(path, value)


def _unwrap(path: Path, value: Any) -> dict[str, Tensor]:
    import torch

    if isinstance(value, dict):
        inner = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), dict)), value)
        if inner and all(isinstance(item, torch.Tensor) for item in inner.values()):
            # What DistributedDataParallel puts before each name.
            return {str(name).removeprefix("module."): item.detach() for name, item in inner.items()}
    raise BaseModelError(
        "The file holds no state dict.",
        where=str(path),
        value=type(value).__name__,
        repair="save model.state_dict() alone, best as safetensors",
    )


def convert_gguf(source: Path, folder: Path) -> None:
    """Write a GGUF file's model as float32 safetensors, with its tokenizer and chat template.

    float32, because it holds what the file says to the last bit: its blocks are small integers times a
    16-bit scale, whose products bfloat16 would round a second time. Costs twice the disk.

    Raises:
        BaseModelError: transformers does not read it, or not this architecture.
    """
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"gguf_file": source.name, "local_files_only": True, "trust_remote_code": False}
    # Newer releases keep the blocks as they are where a kernel for them is installed, unless told.
    has_blocks = hasattr(transformers, "GgufConfig")
    unpacked = {"quantization_config": transformers.GgufConfig(dequantize=True)} if has_blocks else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.parent, dtype=torch.float32, **options, **unpacked
        )
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **options)
    except (ValueError, OSError, KeyError, IndexError, RuntimeError, NotImplementedError) as error:
        raise BaseModelError(
            "The GGUF file cannot be read.",
            where=str(source),
            value=_first_line(error),
            repair="use an architecture that transformers reads from GGUF, or the model's safetensors files",
        ) from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
