"""What a classifier's answer rests on: where it must lie, and what it must sum to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recaster.evaluation.explain import attribute_tokens, map_activation
from recaster.evaluation.worst_errors import find_worst, name_both, write_texts
from recaster.models import small_cnn, text_networks
from recaster.models.open_pictures import PictureClassifier


class _Corner(nn.Module):
    """Class 1 is a bright place; class 0 a dark one."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        with torch.no_grad():
            self.see.weight[0], self.see.weight[1] = -1 / 9, 1 / 9

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.see(pictures).relu().mean((2, 3))
        return logits


def test_the_map_is_where_the_evidence_is() -> None:
    pictures = torch.zeros(2, 1, 8, 8)
    pictures[0, 0, 5:, 5:] = 1
    bright = map_activation(_Corner(), pictures, torch.tensor([1, 1]))
    assert bright.shape == (2, 8, 8) and bright[0].argmax() == 8 * 6 + 6 and float(bright[0, :4].max()) == 0
    assert float(bright[1].max()) == 0  # nothing speaks for it


@pytest.mark.parametrize("kind", ["small-cnn", "vit"])
def test_maps_of_networks_with_and_without_a_class_token(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "vit":
        from transformers import ViTConfig, ViTForImageClassification

        config = ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=16,
            patch_size=4,
        )
        model: nn.Module = PictureClassifier(ViTForImageClassification(config), processor={})
        pictures = torch.rand(3, 3, 16, 16)
    else:
        model = small_cnn.build_model(
            channels=1, height=16, width=16, classes=4, hidden=8, dropout=0.0, activation="relu"
        )
        pictures = torch.rand(3, 1, 16, 16)
    model.eval()
    classes = model(pictures).argmax(1).detach()
    shown = map_activation(model, pictures, classes)
    assert shown.shape == (3, 16, 16) and float(shown.min()) >= 0 and float(shown.max()) == pytest.approx(1)
    assert all(float(one.std()) > 0.01 for one in shown if one.any())
    assert not any(part._forward_hooks for part in model.modules())


@pytest.mark.parametrize("network", ["kim-cnn", "gru"])
def test_tokens_sum_to_what_the_text_adds(network: str) -> None:
    torch.manual_seed(0)
    model = text_networks.build_model(
        network=network, vocabulary=30, width=12, depth=1, dropout=0.0, labels=3, padding=0
    ).eval()
    tokens, classes = torch.randint(1, 30, (4, 9)), torch.tensor([0, 1, 2, 0])
    each = attribute_tokens(model, tokens, classes)
    with torch.no_grad():
        full = model(tokens)
        for part in model.modules():
            if isinstance(part, nn.Embedding):
                part.weight.zero_()
        empty = model(tokens)
    wanted = (full - empty).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(each.sum(1), wanted, atol=2e-2, rtol=2e-2)
    assert float(each.abs().max()) > 1e-3


def test_the_worst_errors_come_first(tmp_path: Path) -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.99, 0.01]])
    rows, classes = find_worst(probabilities, np.array([1, 1, 1, 1]), most=2)
    assert rows.tolist() == [3, 0] and classes.tolist() == [0, 0]
    assert name_both(probabilities[0], np.int64(1), ["no", "yes"]) == ("yes", "no 0.90")
    several = np.array([[1, 0], [0, 1], [0, 1], [1, 0]])
    rows, classes = find_worst(probabilities, several, most=9)
    assert rows.tolist() == [1] and classes.tolist() == [0]
    assert name_both(probabilities[1], several[1], ["no", "yes"]) == ("yes", "no")
    write_texts([{"truth": "<b>", "answer": "a", "tokens": [("it's <i>", 0.5)]}], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;" in page and "it&#x27;s &lt;i&gt;" in page and "<i>" not in page
