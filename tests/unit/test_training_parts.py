"""Parts of the loop against torch's own: schedules, losses, parameter groups, selection, guarded updates."""

from __future__ import annotations

import math
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from recaster.core.errors import RecipeError
from recaster.customization.freezing import freeze_parameters
from recaster.distributed.communication.protocol import AllReduce
from recaster.distributed.gradients import group_by_layout, scale_gradients
from recaster.models import mlp, transformer_encoder
from recaster.models.losses import build_loss
from recaster.recipe.training import EarlyStopping, Loss, Optimizer, Schedule
from recaster.training.optimizers import (
    build_optimizers,
    check_norm_biases,
    list_layers,
    set_rates,
    unfreezing_steps,
)
from recaster.training.precision import is_emulated
from recaster.training.sampler import Sampler
from recaster.training.schedule import build_schedule
from recaster.training.selection import find_best, should_stop
from recaster.training.update import Update

STEPS, PER_EPOCH = 40, 5


def _rates(**section: Any) -> list[float]:
    share = build_schedule(Schedule(**section).model_dump(), steps=STEPS, steps_per_epoch=PER_EPOCH)
    return [share(step) for step in range(STEPS)]


def _torch_rates(build: Any) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = build(optimizer), []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("section", "build"),
    [
        (
            {"name": "cosine", "warmup_fraction": 0.0, "final_fraction": 0.1},
            lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.1),
        ),
        (
            {"name": "linear", "warmup_fraction": 0.0, "final_fraction": 0.2},
            lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, STEPS),
        ),
        (
            {"name": "step", "warmup_fraction": 0.0, "step_epochs": 2, "factor": 0.5},
            lambda o: lr_scheduler.StepLR(o, 2 * PER_EPOCH, 0.5),
        ),
        (
            {"name": "one-cycle", "warmup_fraction": 0.3},
            lambda o: lr_scheduler.OneCycleLR(o, 1.0, STEPS, cycle_momentum=False),
        ),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_schedules_are_those_of_torch(section: dict[str, Any], build: Any) -> None:
    assert _rates(**section) == pytest.approx(_torch_rates(build), abs=1e-9)


def test_warm_up_rises_in_even_steps() -> None:
    assert _rates(name="constant", warmup_fraction=0.1) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 37)


def test_losses() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    rows = list(zip(logits, targets, strict=True))
    wanted = {
        "cross-entropy": F.cross_entropy(logits, targets, reduction="sum"),
        "margin": 6 * nn.MultiMarginLoss()(logits, targets),
        "brier": sum((row.softmax(0) - F.one_hot(t, 4)).pow(2).sum() for row, t in rows),
        "focal": sum(-((1 - row.softmax(0)[t]) ** 2) * row.log_softmax(0)[t] for row, t in rows),
    }
    for name, value in wanted.items():
        section = Loss(name=name).model_dump()  # type: ignore[arg-type]
        assert float(build_loss(section, training=True)(logits, targets)) == pytest.approx(
            float(value), rel=1e-5
        )


def test_smoothing_is_for_training_only() -> None:
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    section = Loss(label_smoothing=0.3).model_dump()
    plain = F.cross_entropy(logits, targets, reduction="sum")
    assert torch.equal(build_loss(section, training=False)(logits, targets), plain)
    assert not torch.equal(build_loss(section, training=True)(logits, targets), plain)


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        (Optimizer, {"name": "adamw", "learning_rate": 0.1, "nesterov": True}, "nesterov"),
        (Optimizer, {"name": "sgd", "learning_rate": 0.1, "betas": [0.8, 0.9]}, "betas"),
        (Optimizer, {"name": "adam", "learning_rate": 0.1, "betas": [0.8, 1.0]}, "betas"),
        (Loss, {"name": "margin", "label_smoothing": 0.1}, "label_smoothing"),
        (Loss, {"name": "cross-entropy", "gamma": 1.0}, "gamma"),
        (Schedule, {"name": "step"}, "step_epochs"),
        (Schedule, {"name": "cosine", "factor": 0.5}, "factor"),
        (Schedule, {"name": "constant", "final_fraction": 0.5}, "final_fraction"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(kind: Any, values: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        kind(**values)


def _encoder() -> nn.Module:
    torch.manual_seed(1)
    return transformer_encoder.build_model(
        vocabulary=20, tokens=4, classes=3, width=8, heads=2, depth=2, dropout=0.0
    )


def test_layer_decay_and_vectors_without_decay() -> None:
    model = _encoder()
    section = Optimizer(name="adamw", learning_rate=0.2, layer_decay=0.5, decay_vectors=False).model_dump()
    (optimizer,) = build_optimizers(model, section, layers=list_layers(model))
    set_rates([optimizer], 0.2, step=1)
    found = {id(value): group for group in optimizer.param_groups for value in group["params"]}
    for name, value in model.named_parameters():
        depth = {"embed": 3, "blocks.0": 2, "blocks.1": 1, "head": 0}[
            ".".join(name.split(".")[: 2 if name.startswith("blocks") else 1])
        ]
        assert found[id(value)]["lr"] == pytest.approx(0.2 * 0.5**depth), name
        assert found[id(value)]["weight_decay"] == (0.01 if value.ndim > 1 else 0.0), name


def test_norms_biases_learn_at_their_own_multiple_of_the_rate() -> None:
    model = _encoder()
    section = Optimizer(name="sgd", learning_rate=0.2, layer_decay=0.5, norm_bias_factor=64).model_dump()
    (optimizer,) = build_optimizers(model, section, layers=list_layers(model))
    rates = {id(value): group["rate_share"] for group in optimizer.param_groups for value in group["params"]}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    own = [name for name, _ in model.named_parameters() if name.removesuffix(".bias") in norms]
    assert len(own) == len(norms) >= 4
    for block in range(2):
        inner = dict(model.get_submodule(f"blocks.{block}").named_parameters(prefix=f"blocks.{block}"))
        shares = {name: rates[id(value)] for name, value in inner.items()}
        least = min(shares.values())
        assert {name: share / least for name, share in shares.items()} == {
            name: 64 if name in own else 1 for name in inner
        }


def test_a_rate_for_biases_of_norms_that_are_not_there_is_refused() -> None:
    section = Optimizer(name="sgd", learning_rate=0.2, norm_bias_factor=64).model_dump()
    check_norm_biases(_encoder(), section)
    frozen = _encoder()
    freeze_parameters(frozen, ["*norm*"])
    for model in (nn.Linear(2, 2), frozen):
        with pytest.raises(RecipeError, match="norm_bias_factor"):
            check_norm_biases(model, section)


def test_layers_join_one_after_the_other() -> None:
    model = _encoder()
    layers = list_layers(model)
    waits = unfreezing_steps(layers, layers[-1:], steps_apart=10)
    assert waits == {"blocks.1": 10, "blocks.0": 20, layers[0]: 30}
    section = Optimizer(name="adamw", learning_rate=0.2).model_dump()
    optimizers = build_optimizers(model, section, layers=layers, frozen_steps=waits)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for step, moving in ((1, {"head"}), (10, {"head"}), (11, {"head", "blocks.1"}), (31, None)):
        for value in model.parameters():
            value.grad = torch.ones_like(value)
        set_rates(optimizers, 0.1, step=step)
        optimizers[0].step()
        moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        wanted = (
            set(before)
            if moving is None
            else {name for name in before if any(name.startswith(f"{layer}.") for layer in moving)}
        )
        assert moved == wanted, step


def test_batches_of_like_length_hold_each_sample_once() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1003)
    sampler = Sampler(samples=1003, batch_size=16, seed=5, lengths=lengths)
    order = sampler.order(0)
    assert sorted(order.tolist()) == list(range(1003))
    assert (order == sampler.order(0)).all() and (order != sampler.order(1)).any()
    batches = [lengths[sampler.rows(order, step)] for step in range(sampler.steps_per_epoch)]
    plain = Sampler(samples=1003, batch_size=16, seed=5).order(0)
    shuffled = [lengths[plain[start : start + 16]] for start in range(0, 1003, 16)]

    def waste(rows: list[np.ndarray]) -> float:
        return 1 - sum(map(np.sum, rows)) / sum(len(one) * one.max() for one in rows)

    assert waste(batches) < 0.1 < waste(shuffled)
    # The batches themselves are shuffled: their lengths do not rise over the epoch.
    assert abs(np.corrcoef(np.arange(len(batches)), [one.max() for one in batches])[0, 1]) < 0.5


def test_muon_takes_the_hidden_matrices_only() -> None:
    model = _encoder()
    section = Optimizer(name="muon", learning_rate=0.1).model_dump()
    muon, adamw = build_optimizers(model, section, layers=list_layers(model))
    names = {id(value): name for name, value in model.named_parameters()}
    of_muon = {names[id(value)] for group in muon.param_groups for value in group["params"]}
    assert of_muon == {
        name for name, value in model.named_parameters() if name.startswith("blocks.") and value.ndim == 2
    }
    of_adamw = {names[id(value)] for group in adamw.param_groups for value in group["params"]}
    assert of_muon | of_adamw == set(names.values()) and not of_muon & of_adamw


def test_a_pattern_that_freezes_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="names no parameter") as caught:
        freeze_parameters(_encoder(), ["block.*"])
    assert caught.value.value == "block.*"


def _validations(*losses: float) -> list[dict[str, float]]:
    return [{"step": 10 * (number + 1), "loss": loss} for number, loss in enumerate(losses)]


def test_selection_and_early_stopping() -> None:
    records = _validations(3.0, 2.0, 2.0, math.nan, 2.5)
    assert find_best(records, "loss")["step"] == 20
    rule = EarlyStopping(patience_epochs=2).model_dump()
    stops = [should_stop(records[:count], rule) for count in range(1, 6)]
    assert stops == [False, False, False, True, True]
    strict = EarlyStopping(patience_epochs=1, min_improvement=0.5).model_dump()
    assert should_stop(_validations(3.0, 2.6), strict)
    assert not should_stop(_validations(3.0, 2.4), strict)


class _Mesh:
    """One rank on the CPU, without a process group."""

    device = torch.device("cpu")

    def size(self, *_: str) -> int:
        return 1


def _update(model: nn.Module, **options: Any) -> Update:
    section = Optimizer(name="sgd", learning_rate=1.0, momentum=0.0, weight_decay=0.0).model_dump()
    optimizers = build_optimizers(model, section, layers=list_layers(model))
    settings = {"precision": "float32", "max_gradient_norm": 1.0, **options}
    return Update(model, optimizers, AllReduce(), _Mesh(), **settings)  # type: ignore[arg-type]


def _model_with_gradient(value: float) -> tuple[nn.Module, list[Tensor]]:
    model = mlp.build_model(features=4, classes=2, hidden=4, depth=1, dropout=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)
    return model, [parameter.detach().clone() for parameter in model.parameters()]


def test_an_update_is_clipped_by_the_whole_norm() -> None:
    model, before = _model_with_gradient(2.0)
    count = sum(value.numel() for value in before)
    norm = _update(model).apply(torch.tensor(1.0), rate=1.0, step=1)
    assert float(norm) == pytest.approx(2 * math.sqrt(count))
    moved = [old - new.detach() for old, new in zip(before, model.parameters(), strict=True)]
    assert float(torch.cat([piece.flatten() for piece in moved]).norm()) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_leaves_the_weights(bad: float) -> None:
    model, before = _model_with_gradient(1.0)
    next(model.parameters()).grad.view(-1)[0] = bad  # type: ignore[union-attr]
    update = _update(model)
    update.apply(torch.tensor(1.0), rate=1.0, step=7)
    assert update.bad_step() == 7
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_fp16_skips_an_overflow_and_halves_its_scale() -> None:
    model, before = _model_with_gradient(math.inf)
    update = _update(model, precision="fp16")
    scale = float(update.loss_scale)  # type: ignore[arg-type]
    update.apply(torch.tensor(1.0), rate=1.0, step=1)
    assert (update.bad_step(), float(update.loss_scale)) == (0, scale / 2)  # type: ignore[arg-type]
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3 * scale / 2)
    assert float(update.apply(torch.tensor(1.0), rate=1.0, step=2)) == pytest.approx(
        1e-3 * math.sqrt(sum(value.numel() for value in before)), rel=1e-4
    )
    moved = [
        float((old - new.detach()).abs().max()) for old, new in zip(before, model.parameters(), strict=True)
    ]
    assert moved == pytest.approx([1e-3] * len(moved), rel=1e-3)


def test_fp16_gives_up_when_no_scale_helps() -> None:
    model, _ = _model_with_gradient(math.inf)
    update = _update(model, precision="fp16")
    for step in range(1, 40):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, math.inf)
        update.apply(torch.tensor(1.0), rate=1.0, step=step)
        if update.bad_step():
            break
    assert update.bad_step() == 23  # from 2**16 down past 2**-6


def test_gradients_are_scaled_in_place() -> None:
    model, _ = _model_with_gradient(3.0)
    scale_gradients(group_by_layout(model.parameters()), torch.tensor(0.5))
    assert all(float(value.grad.min()) == float(value.grad.max()) == 1.5 for value in model.parameters())  # type: ignore[union-attr]


def test_bf16_is_imitated_where_the_processor_says_nothing_of_it() -> None:
    known = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not known.exists():
        pytest.skip("needs Linux on x86")
    flags = set(known.read_text().split("flags", 1)[1].split("\n", 1)[0].split())
    processor = torch.device("cpu")
    assert is_emulated("bf16", processor) == (not flags & {"avx512bw", "avx_ne_convert"})
    assert not is_emulated("float32", processor) and not is_emulated("bf16", torch.device("cuda"))
