"""Two answers a row: what they add to the loss, and that nothing changes where a model is used."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from recaster.models.losses import NO_TARGET, build_loss, build_token_loss
from recaster.training.consistency import answer_twice, consistent_loss

_SECTION = {"name": "cross-entropy", "label_smoothing": 0.0, "class_weights": None}


def _model(dropout: float) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Dropout(dropout), nn.ReLU(), nn.Linear(16, 3))


def test_without_dropout_it_is_the_usual_loss() -> None:
    model, rows, targets = _model(0.0), torch.randn(5, 6), torch.tensor([0, 1, 2, 1, 0])
    plain = build_loss(_SECTION, training=True)
    wanted = plain(model(rows), targets)
    names = list(model.state_dict())
    answer_twice(model)
    outputs = model(rows)
    assert outputs.shape == (5, 6) and list(model.state_dict()) == names
    torch.testing.assert_close(consistent_loss(plain, 3.0)(outputs, targets), wanted)
    assert model.eval()(rows).shape == (5, 3)


def test_answers_that_differ_cost_their_divergence() -> None:
    model, rows, targets = _model(0.5), torch.randn(5, 6), torch.tensor([0, 1, 2, 1, 0])
    answer_twice(model)
    outputs = model(rows)
    one, other = outputs[:, :3].log_softmax(1), outputs[:, 3:].log_softmax(1)
    assert not torch.equal(one, other)
    apart = ((one.exp() - other.exp()) * (one - other)).sum() / 2  # both divergences together are this
    losses = -(one + other)[range(5), targets].sum() / 2
    found = consistent_loss(build_loss(_SECTION, training=True), 2.0)(outputs, targets)
    assert float(apart.detach()) > 1e-3
    torch.testing.assert_close(found, losses + 2.0 * apart)
    found.backward()
    assert all(value.grad is not None for value in model.parameters())


@pytest.mark.parametrize("count", [1, 4])
def test_tokens_that_are_not_learned_do_not_count(count: int) -> None:
    torch.manual_seed(1)
    outputs, targets = torch.randn(2, 4, 10), torch.full((2, 4), NO_TARGET)
    targets[:, :count] = 3
    found = consistent_loss(build_token_loss(_SECTION, training=True), 1.0)(outputs, targets)
    kept, wanted = outputs[:, :count].reshape(-1, 10), targets[:, :count].reshape(-1)
    plain = consistent_loss(lambda logits, wanted: F.cross_entropy(logits, wanted, reduction="sum"), 1.0)
    torch.testing.assert_close(found, plain(kept, wanted))
