"""Parts of a GAN: rows that carry their noise, turns, losses, penalties, metrics, collapse."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recaster.core.errors import CollapsedError, RecipeError
from recaster.distributed.strategies.protocol import Alternating
from recaster.evaluation.generation_metrics import (
    arrange_generated,
    arrange_real,
    find_neighbours,
    frechet_distance,
    kernel_distance,
    nearest_pictures,
)
from recaster.evaluation.generation_report import walk
from recaster.evaluation.metrics import measure
from recaster.models.adversarial import Adversarial, build_adversarial
from recaster.models.adversarial_losses import build_adversarial_loss, count_distinct, energy_distance_sum
from recaster.models.game_rows import CHANCES, GameRows, join_rows, part_rows
from recaster.models.generator_layers import count_halvings
from recaster.models.generators import find_arguments
from recaster.recipe.adversary import AdversarySection
from recaster.recipe.evaluation import EvaluateSection
from recaster.recipe.load import load_recipe
from recaster.training.averaging import WeightAverage
from recaster.training.optimizers import build_optimizers, list_layers, set_rates
from recaster.workloads.image_generation import WORKLOAD
from tests.conftest import ROOT
from tests.unit.games import make_rows

TINY = ROOT / "recipes" / "image-generation" / "tiny.yaml"
_NOISE, _SHAPE = 6, (1, 8, 8)


def _model(architecture: str = "dcgan", classes: int = 3, **options: Any) -> Adversarial:
    torch.manual_seed(1)
    channels, height, width = _SHAPE
    arguments = {"channels": channels, "height": height, "width": width, "hidden": 8, "noise": _NOISE}
    section = AdversarySection.model_validate(options).model_dump()
    return build_adversarial({**arguments, "architecture": architecture, "classes": classes}, section)


def _rows(count: int) -> Tensor:
    return make_rows(count, noise=_NOISE, shape=_SHAPE)


def test_rows_are_joined_and_parted() -> None:
    torch.manual_seed(0)
    rows = GameRows(
        noise=torch.randn(4, 5),
        chances=torch.rand(4, CHANCES),
        classes=torch.tensor([0, 2, 9, 1]),
        pictures=torch.rand(4, 3, 2, 6),
    )
    again = part_rows(join_rows(rows), noise=5, shape=(3, 2, 6))
    for name in ("noise", "chances", "classes", "pictures"):
        assert torch.equal(getattr(again, name), getattr(rows, name)), name


@pytest.mark.parametrize("architecture", ["dcgan", "resnet"])
def test_each_turn_has_gradients_for_its_own_part_alone(architecture: str) -> None:
    model = _model(architecture, turns=2).train()
    assert isinstance(model, Alternating)
    assert model.turns() == ["discriminator", "discriminator", "generator"]
    loss_sum, rows = build_adversarial_loss("hinge"), _rows(4)
    frozen = model.discriminator.decide.parametrizations.weight.original  # type: ignore[union-attr]
    frozen.requires_grad_(False)
    for part in ("discriminator", "generator"):
        model.zero_grad(set_to_none=True)
        model.begin_turn(part)
        loss_sum(model(rows), torch.zeros(4)).backward()
        with_gradients = {
            name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None
        }
        assert with_gradients == {part}
    assert not frozen.requires_grad
    assert all(value.requires_grad for value in model.discriminator.parameters() if value is not frozen)


@pytest.mark.parametrize("architecture", ["dcgan", "resnet"])
def test_a_row_does_not_depend_on_the_others(architecture: str) -> None:
    """Else ranks and micro-batches would change the result; with augmentation and a penalty, too."""
    model = _model(architecture, spectral_norm=False, penalty="r1", augmentation_target=0.6).train()
    rows = _rows(6)
    for part in ("discriminator", "generator"):
        model.begin_turn(part)
        model.augmentation.probability.fill_(0.5)
        whole = model(rows)
        pieces = [model(piece) for piece in rows.split(2)]
        torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-4, atol=1e-5)


def test_losses_are_those_of_the_papers() -> None:
    real, fake = torch.tensor([0.5, -2.0]), torch.tensor([-0.25, 3.0])
    outputs, penalty = torch.stack([real, fake, torch.tensor([0.1, 0.2])], 1), 0.3
    wanted = {
        "hinge": (F.relu(1 - real) + F.relu(1 + fake), -fake),
        "non-saturating": (
            F.binary_cross_entropy_with_logits(real, torch.ones(2), reduction="none")
            + F.binary_cross_entropy_with_logits(fake, torch.zeros(2), reduction="none"),
            F.binary_cross_entropy_with_logits(fake, torch.ones(2), reduction="none"),
        ),
        "wasserstein": (fake - real, -fake),
    }
    for name, (of_discriminator, of_generator) in wanted.items():
        loss_sum = build_adversarial_loss(name)
        assert float(loss_sum(outputs, real)) == pytest.approx(float(of_discriminator.sum()) + penalty)
        assert float(loss_sum(fake[:, None], real)) == pytest.approx(float(of_generator.sum()))


@pytest.mark.parametrize(("penalty", "of"), [("r1", "real"), ("interpolated", "between")])
def test_a_penalty_is_that_of_the_gradient(penalty: str, of: str) -> None:
    """Against differences of the discriminator's own answers, in a direction at a time."""
    model = (
        _model("dcgan", classes=0, spectral_norm=False, penalty=penalty, penalty_weight=2.0).double().train()
    )
    rows = part_rows(_rows(1), noise=_NOISE, shape=_SHAPE)
    real, made = 2 * rows.pictures.double() - 1, 2 * model.generator(rows.noise.double(), None) - 1
    place = real if of == "real" else torch.lerp(real, made, rows.chances.double()[:, -1:, None, None])
    slopes = []
    with torch.no_grad():
        for pixel in range(place.numel()):
            step = torch.zeros(place.numel(), dtype=torch.float64)
            step[pixel] = 1e-5
            step = step.view_as(place)
            slopes.append(
                (model.discriminator(place + step, None) - model.discriminator(place - step, None)) / 2e-5
            )
    square = torch.stack(slopes).square().sum()
    wanted = square / 2 if of == "real" else (square.sqrt() - 1) ** 2
    model.begin_turn("discriminator")
    found = model(_rows(1).double())[0, 2]
    assert float(found.detach()) == pytest.approx(2.0 * float(wanted), rel=1e-3)


def test_spectral_norm_holds_the_largest_singular_value() -> None:
    model = _model("resnet").train()
    model.begin_turn("discriminator")
    with torch.no_grad():
        for value in model.discriminator.parameters():
            value.mul_(3.0)
        for _ in range(30):
            model(_rows(2))
    weight = model.eval().discriminator.filter.weight.detach().flatten(1)
    assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(1.0, rel=0.02)


def test_augmentation_follows_the_discriminator() -> None:
    model = _model(augmentation_target=0.6, augmentation_pictures=100)
    adapt = model.augmentation
    for logits in (torch.ones(10), torch.ones(10)):  # two passes of one step
        adapt.listen(logits)
    assert float(adapt.probability) == 0.0
    model.begin_turn("generator")
    assert float(adapt.probability) == pytest.approx(0.2)
    adapt.listen(-torch.ones(10))
    model.begin_turn("discriminator")
    assert float(adapt.probability) == pytest.approx(0.1)
    model.begin_turn("generator")  # nothing was said
    assert float(adapt.probability) == pytest.approx(0.1)
    pictures = 2 * torch.rand(64, *_SHAPE) - 1
    changed = adapt(pictures, torch.rand(64, CHANCES)) != pictures
    share = float(changed.flatten(1).float().mean(1).gt(0.01).float().mean())
    assert 0.1 < share < 0.6  # each of several kinds of change, one picture in ten
    assert "augmentation.probability" in model.state_dict()  # so that a resumed run goes on with it
    adapt.probability.zero_()
    torch.testing.assert_close(adapt(pictures, torch.rand(64, CHANCES)), pictures)


def test_optimizers_are_of_one_part_each_with_two_rates() -> None:
    model = _model()
    section = load_recipe(TINY).train.optimizer.model_dump()
    built = build_optimizers(
        model, section, layers=list_layers(model), part_rates={"discriminator": 4 * section["learning_rate"]}
    )
    assert [group["part"] for one in built for group in one.param_groups] == ["discriminator", "generator"]
    set_rates(built, 0.01, step=1)
    assert [one.param_groups[0]["lr"] for one in built] == [pytest.approx(0.04), pytest.approx(0.01)]
    covered = {id(value) for one in built for group in one.param_groups for value in group["params"]}
    assert covered == {id(value) for value in model.parameters()}
    for value in model.generator.parameters():
        value.requires_grad_(False)
    with pytest.raises(ValueError, match="generator are frozen"):
        build_optimizers(model, section, layers=list_layers(model))


def test_the_average_is_of_the_generator_alone() -> None:
    names = WeightAverage(_model(), 0.9).tensors
    assert names and all(name.startswith("generator.") for name in names)


def _noise_and_copies(copies: int) -> Tensor:
    torch.manual_seed(3)
    made, real = torch.rand(40, 16), torch.rand(40, 16)
    made[:copies] = made[0] + 1e-3 * torch.rand(copies, 16)
    return torch.stack([made, real], 1)


def test_copies_are_no_distinct_pictures() -> None:
    counts = [int(count_distinct(_noise_and_copies(copies), torch.zeros(40))) for copies in (0, 30, 40)]
    assert counts == [40, 10, 0]
    assert int(count_distinct(_noise_and_copies(0)[:1], torch.zeros(1))) == 1


def test_the_energy_distance_is_of_the_distributions() -> None:
    torch.manual_seed(4)
    one, same, other = torch.rand(200, 16), torch.rand(200, 16), torch.rand(200, 16) + 0.5
    near, far = (
        float(energy_distance_sum(torch.stack([one, value], 1), torch.zeros(200))) / 200
        for value in (same, other)
    )
    assert 0 <= near < 0.05 * far
    exact = float(energy_distance_sum(torch.stack([one, one], 1), torch.zeros(200)))
    assert exact == pytest.approx(0.0, abs=1e-5)


def test_a_collapse_ends_the_training_with_its_reason() -> None:
    train = load_recipe(TINY, ["train.adversary.collapse_validations=3"]).train.model_dump()
    shares = [0.0, 0.9, 0.05, 0.02, 0.0]
    records = [{"step": 20 * (n + 1), "accuracy": share} for n, share in enumerate(shares)]
    for seen in range(1, 5):
        WORKLOAD.check_health(records[:seen], train)
    with pytest.raises(CollapsedError, match="step 100") as caught:
        WORKLOAD.check_health(records, train)
    assert "5.0%, 2.0%, 0.0%" in str(caught.value) and "repair" in str(caught.value)


def _measured(generated: np.ndarray, real: np.ndarray) -> dict[str, float]:
    nothing = np.zeros(len(generated), dtype=bool)
    sets = (
        arrange_generated(generated, copied=nothing, precise=nothing),
        arrange_real(real, recalled=nothing),
    )
    return {"frechet": frechet_distance(*sets), "kernel": kernel_distance(*sets)}


def test_distances_are_those_of_known_distributions() -> None:
    random = np.random.default_rng(0)
    shift, scale = np.array([2.0, 0.0, 0.0]), np.array([1.0, 3.0, 1.0])
    one, other = random.normal(size=(6_000, 3)), random.normal(size=(6_000, 3)) * scale + shift
    found = _measured(one, other)
    assert found["frechet"] == pytest.approx(2.0**2 + (3 - 1) ** 2, rel=0.08)  # in closed form
    alike = _measured(one, random.normal(size=(6_000, 3)))
    assert abs(alike["frechet"]) < 0.02 and abs(alike["kernel"]) < 0.02 < found["kernel"]
    # Against sums over pairs, written out.
    x, y = one[:40], other[:40]
    kernel = lambda a, b: (a @ b / 3 + 1) ** 3  # noqa: E731
    pairs = [(i, j) for i in range(40) for j in range(40)]
    apart = [(i, j) for i, j in pairs if i != j]
    wanted = np.mean([kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in apart])
    wanted -= 2 * np.mean([kernel(x[i], y[j]) for i, j in apart])
    assert _measured(x, y)["kernel"] == pytest.approx(wanted)


def test_intervals_hold_their_value_though_draws_repeat_rows() -> None:
    random = np.random.default_rng(1)
    generated, real = random.normal(size=(150, 20)), random.normal(size=(150, 20)) + 0.3
    nothing = np.zeros(150, dtype=bool)
    measured = measure(
        arrange_generated(generated, copied=nothing, precise=~nothing),
        arrange_real(real, recalled=nothing),
        WORKLOAD.metrics(EvaluateSection()),
        EvaluateSection(bootstrap_samples=100),
    )
    for name, entry in measured.items():
        assert entry["low"] <= entry["value"] <= entry["high"], name
    assert measured["sample_precision"]["value"] == 1.0 and measured["copied_fraction"]["value"] == 0.0


def test_draws_of_rows_that_share_a_class_do_not_move_the_kernel_distance() -> None:
    """A row's generated and held-out picture are of one class: pairs of a row with itself say nothing."""
    random = np.random.default_rng(5)
    centres = 3 * random.normal(size=(10, 8))
    classes = np.arange(200) % 10
    generated, real = (centres[classes] + random.normal(size=(200, 8)) for _ in range(2))
    nothing = np.zeros(200, dtype=bool)
    measured = measure(
        arrange_generated(generated, copied=nothing, precise=nothing),
        arrange_real(real, recalled=nothing),
        {"kernel_distance": kernel_distance},
        EvaluateSection(bootstrap_samples=200),
    )["kernel_distance"]
    middle, half = (measured["low"] + measured["high"]) / 2, (measured["high"] - measured["low"]) / 2
    assert abs(measured["value"] - middle) < 0.5 * half


def test_neighbours_tell_quality_from_variety() -> None:
    random = np.random.default_rng(2)
    real = random.normal(size=(400, 4)).astype(np.float32)
    narrow = (0.1 * random.normal(size=(400, 4))).astype(np.float32)
    wide = (10 * random.normal(size=(400, 4))).astype(np.float32)
    precise, recalled = find_neighbours(narrow, real)
    assert precise.mean() > 0.95 and recalled.mean() < 0.2
    precise, _ = find_neighbours(wide, real)
    assert precise.mean() < 0.2
    precise, recalled = find_neighbours(random.normal(size=(400, 4)).astype(np.float32), real)
    assert precise.mean() > 0.7 and recalled.mean() > 0.7


def test_a_picture_learned_by_heart_is_found() -> None:
    random = np.random.default_rng(3)
    train = random.random((2500, 1, 4, 4), dtype=np.float32)
    asked = np.concatenate(
        [train[[2400, 7]] + np.float32(0.01), random.random((1, 1, 4, 4), dtype=np.float32)]
    )
    distances, places = nearest_pictures(asked, lambda rows: train[rows], len(train))
    assert places[:2].tolist() == [2400, 7]
    assert distances[:2] == pytest.approx([0.01, 0.01], abs=1e-4) and distances[2] > 0.05


def test_the_way_between_two_pictures_keeps_the_noise_s_length() -> None:
    random = np.random.default_rng(4)
    start, end = random.normal(size=(2, 256)).astype(np.float32)
    path = walk(start, end, 7)
    np.testing.assert_allclose(path[[0, -1]], [start, end], atol=1e-5)
    lengths = np.linalg.norm(path, axis=1) / 16
    assert lengths.min() > 0.9 and np.linalg.norm((start + end) / 2) / 16 < 0.8


@pytest.mark.parametrize(("side", "start"), [(8, 4), (28, 7), (32, 4), (48, 6), (5, 5)])
def test_pictures_grow_from_a_small_map(side: int, start: int) -> None:
    assert side >> count_halvings(side, side) == start


def test_sides_that_cannot_be_reached_are_refused() -> None:
    with pytest.raises(ValueError, match="33x33"):
        count_halvings(33, 33)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["train.loss={name: cross-entropy}"], "not for workload"),
        (["data.labels=[]"], "needs data.labels"),
        (["distributed={strategy: fsdp, ranks: 2}"], "two small ones"),
        (["distributed={strategy: pipeline, ranks: 2}", "train.micro_batch_size=8"], "two small ones"),
        (["distributed={strategy: ddp, ranks: 2}", "communication=topk"], "communication topk carries"),
        (["distributed={strategy: ddp, ranks: 2}", "communication=diloco"], "communication diloco carries"),
        (["train.precision=fp16"], "fp16"),
        (["train.compile=true"], "compile"),
        (["train.activation_checkpointing=true"], "activation_checkpointing"),
        (["train.optimizer={name: muon, learning_rate: 0.01}"], "muon"),
        (["train.augmentation={mixup_alpha: 0.2}", "train.loss={name: hinge}"], "mixup"),
        (["customize={method: quantize}"], "quantize"),
        (["train.adversary.penalty_weight=2.0"], "penalty_weight belongs"),
        (["train.adversary.augmentation_pictures=500"], "augmentation_pictures belongs"),
        (["evaluate.encoder_size=64"], "encoder_size belongs"),
    ],
)
def test_what_two_networks_cannot_do_is_refused(overrides: list[str], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        load_recipe(TINY, overrides)


@pytest.mark.parametrize(
    "override",
    [
        "train.adversary.turns=2",
        "model.conditional=true",
        "model.noise=8",
        "evaluate.encoder=path:x",
        "train.loss={name: hinge}",
    ],
)
def test_options_of_generators_are_refused_elsewhere(override: str) -> None:
    with pytest.raises(RecipeError, match=r"image-generation|not for workload"):
        load_recipe(ROOT / "recipes" / "digits.yaml", [override])


def test_a_base_must_be_a_generator_of_this_shape(tmp_path: Path) -> None:
    recipe = load_recipe(TINY)
    arguments = {**WORKLOAD.model_arguments(recipe), "architecture": None}
    config = tmp_path / "config.json"
    config.write_text('{"architecture": "small_cnn", "arguments": {}}')
    with pytest.raises(RecipeError, match="no generator"):
        find_arguments(arguments, tmp_path)
    own = '{"channels": 3, "height": 8, "width": 8, "hidden": 8, "noise": 5, "classes": 2}'
    config.write_text(f'{{"architecture": "generator", "arguments": {own}}}')
    with pytest.raises(RecipeError, match="channels 3 in the base, 1 here"):
        find_arguments(arguments, tmp_path)
    config.write_text(f'{{"architecture": "generator", "arguments": {own.replace("3", "1", 1)}}}')
    assert find_arguments(arguments, tmp_path)["noise"] == 5
    assert find_arguments(arguments, tmp_path)["classes"] == 10
    with pytest.raises(RecipeError, match="conditional"):
        find_arguments({**arguments, "classes": 0}, tmp_path)


def test_evaluation_leaves_the_training_s_state_alone() -> None:
    """A validation in between must not move the vectors of spectral normalisation, nor the augmentation."""
    model = _model(augmentation_target=0.6).train()
    model.begin_turn("discriminator")
    model(_rows(3))
    kept = copy.deepcopy(model.state_dict())
    model.eval()
    outputs = model(_rows(3))
    assert outputs.shape == (3, 2, 64)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_changes_of_a_constant_probability_happen_from_the_first_step_on() -> None:
    model = _model(augmentation_probability=0.5).train()
    pictures, chances = 2 * torch.rand(200, *_SHAPE) - 1, torch.rand(200, CHANCES)
    seen = model.augmentation(pictures, chances)
    changed = (seen != pictures).flatten(1).any(1).float().mean()
    assert 0.8 < float(changed) < 1  # six kinds, each for half of the pictures
    model.augmentation.listen(torch.ones(500, 1))
    model.begin_turn("generator")
    assert float(model.augmentation.probability) == 0.5
    with pytest.raises(ValueError, match="remove one"):
        AdversarySection(augmentation_probability=0.5, augmentation_target=0.6)


def test_the_kernel_distance_does_not_depend_on_how_the_set_is_sorted() -> None:
    random = np.random.default_rng(8)
    classes = np.repeat(np.arange(4), 1000)
    real = random.standard_normal((4000, 5)) + classes[:, None] / 2
    made = random.standard_normal((4000, 5)) + random.permutation(classes)[:, None] / 2
    nothing = np.zeros(4000, dtype=np.bool_)
    rows = arrange_generated(made, copied=nothing, precise=nothing), arrange_real(real, recalled=nothing)
    one_class = kernel_distance(rows[0][:1000], rows[1][:1000])  # what a block of neighbours would say
    assert one_class > 1 > 10 * abs(kernel_distance(*rows))
