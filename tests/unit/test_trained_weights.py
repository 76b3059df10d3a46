"""What training leaves, read back onto its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from recaster.core.errors import TrainingError
from recaster.core.files import write_json
from recaster.customization.build import load_trained
from recaster.models import small_cnn
from recaster.recipe.customize import CustomizeSection
from recaster.recipe.training import TrainSection
from recaster.workloads.image_classification import WORKLOAD


def _plan(base: Path) -> dict[str, Any]:
    sizes: dict[str, Any] = {"channels": 1, "height": 8, "width": 8, "classes": 3, "dropout": 0.0}
    torch.manual_seed(1)
    model = small_cnn.build_model(**sizes, hidden=4, activation="relu")
    base.mkdir()
    save_file(model.state_dict(), base / "model.safetensors")
    write_json(base / "config.json", {"architecture": "small_cnn", "arguments": {"hidden": 4}})
    section = {"seed": 0, "epochs": 1, "batch_size": 4, "optimizer": {"name": "sgd", "learning_rate": 0.1}}
    frozen = next(iter(model.state_dict())).rpartition(".")[0] + ".*"
    return {
        "base": str(base),
        "teacher": None,
        "customize": CustomizeSection().model_dump(),
        "model_arguments": {**sizes, "labels": ["a", "b", "c"], "activation": "relu"},
        "train": TrainSection.model_validate({**section, "freeze": [frozen]}).model_dump(),
    }


def test_what_a_recipe_freezes_comes_from_the_base(tmp_path: Path) -> None:
    plan = _plan(tmp_path / "base")
    whole = WORKLOAD.build_model(plan)
    first = next(iter(whole.state_dict())).rpartition(".")[0]
    trained = {name: value + 1 for name, value in whole.state_dict().items() if not name.startswith(first)}
    assert 0 < len(trained) < len(whole.state_dict())
    save_file(trained, tmp_path / "weights.safetensors")
    read = load_trained(WORKLOAD, plan, tmp_path / "weights.safetensors").state_dict()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(read[name], trained.get(name, value))

    del trained[max(trained)]
    save_file(trained, tmp_path / "weights.safetensors")
    with pytest.raises(TrainingError, match="not those of this model"):
        load_trained(WORKLOAD, plan, tmp_path / "weights.safetensors")
