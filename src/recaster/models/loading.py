"""Putting a base model's weights into a network that may differ from it: a report, never silence.

loaded 312 tensors; re-initialised 2: classifier.1.weight (base [1000, 1280], here [10, 1280]), …
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from recaster.core.errors import BaseModelError

_NAMED = 6
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What became of a network's tensors and of a base model's, by name."""

    loaded: tuple[str, ...]
    """Of the network: now as in the base."""
    reinitialised: tuple[str, ...]
    """Of the network: as it was built, since the base has none of this name (the name alone stands here), or
    one of another shape (both shapes follow)."""
    ignored: tuple[str, ...]
    """Of the base: the network has no place of this name."""

    def to_text(self) -> str:
        """One line for people; of long lists the first names."""
        parts = [f"loaded {len(self.loaded)} tensors"]
        for word, names in (("re-initialised", self.reinitialised), ("ignored", self.ignored)):
            if names:
                more = ", …" if len(names) > _NAMED else ""
                parts.append(f"{word} {len(names)}: {', '.join(names[:_NAMED])}{more}")
        return "; ".join(parts)


def base_folder(plan: Mapping[str, Any]) -> Path | None:
    """The folder of a training plan's base model; None for fresh weights."""
    return Path(plan["base"]) if plan.get("base") else None


def read_state(folder: Path) -> dict[str, Tensor]:
    """The state dict in a base model's folder, from model.safetensors or from its shards, on the CPU."""
    if (folder / "model.safetensors").exists():
        return load_file(folder / "model.safetensors")
    places = json.loads((folder / _INDEX).read_bytes())["weight_map"]
    return {
        name: value
        for shard in sorted(set(places.values()))
        for name, value in load_file(folder / shard).items()
    }


@torch.no_grad()
def load_state(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    rename: Callable[[str], str | None] = lambda name: name,
) -> LoadReport:
    """Copy into `network` each tensor of `state` that fits in name and shape; the rest stays as built.

    Args:
        state: a base model's, by its published names.
        rename: from a published name to the network's; None for a tensor that is not wanted.

    Raises:
        BaseModelError: nothing fits, so that the base is of another architecture.
    """
    places = network.state_dict(keep_vars=False)
    loaded, shapes, ignored = [], {}, []
    for published, value in state.items():
        name = rename(published)
        if name is None or name not in places:
            ignored.append(published)
        elif places[name].shape != value.shape:
            shapes[name] = f"{name} (base {list(value.shape)}, here {list(places[name].shape)})"
        else:
            places[name].copy_(value)
            loaded.append(name)
    done = set(loaded)
    report = LoadReport(
        loaded=tuple(loaded),
        reinitialised=tuple(shapes.get(name, name) for name in places if name not in done),
        ignored=tuple(ignored),
    )
    return _refuse_nothing(network, report)


def report_transformers(network: nn.Module, info: Mapping[str, Iterable[Any]]) -> LoadReport:
    """The report of a network that transformers loaded, from what `output_loading_info=True` returned.

    Raises:
        BaseModelError: nothing fitted.
    """
    shapes = {
        name: f"{name} (base {list(base)}, here {list(here)})" for name, base, here in info["mismatched_keys"]
    }
    fresh = [*sorted(info["missing_keys"]), *sorted(shapes)]
    report = LoadReport(
        loaded=tuple(name for name in network.state_dict() if name not in set(fresh)),
        reinitialised=tuple(shapes.get(name, name) for name in fresh),
        ignored=tuple(sorted(info["unexpected_keys"])),
    )
    return _refuse_nothing(network, report)


def _refuse_nothing(network: nn.Module, report: LoadReport) -> LoadReport:
    if not report.loaded:
        raise BaseModelError(
            "None of the base model's tensors fits the network.",
            where=type(network).__name__,
            value=report.to_text(),
            repair="use a base of this architecture",
        )
    return report
