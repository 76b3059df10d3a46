"""A base's weights in a network that differs: what was loaded, re-initialised and ignored is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from recaster.core.errors import BaseModelError
from recaster.models.loading import load_state, read_state


def test_every_tensor_is_accounted_for() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {"stem.weight": torch.ones(3, 4), "2.weight": torch.ones(10, 3), "far": torch.ones(1)}
    report = load_state(network, state, rename=lambda name: name.replace("stem.", "0."))
    assert report.loaded == ("0.weight",)
    assert "2.weight (base [10, 3], here [2, 3])" in report.reinitialised
    assert "0.bias" in report.reinitialised and "1.running_mean" in report.reinitialised
    assert report.ignored == ("far",)
    assert len(report.loaded) + len(report.reinitialised) == len(before)
    assert torch.equal(network[0].weight, torch.ones(3, 4))
    after = network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name != "0.weight")
    assert "loaded 1 tensors; re-initialised 8" in report.to_text()
    assert "ignored 1: far" in report.to_text()


def test_a_base_that_fits_nowhere_is_an_error() -> None:
    with pytest.raises(BaseModelError, match="None of the base"):
        load_state(nn.Linear(2, 2), {"other": torch.ones(1)})


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "model-00002-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert {name: len(value) for name, value in read_state(tmp_path).items()} == {"a": 2, "b": 3}
