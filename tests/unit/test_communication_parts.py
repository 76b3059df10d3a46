"""The recipe's communication section, and what a scheme needs no second rank for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recaster.core.errors import RecipeError
from recaster.distributed.communication.exchange import Gradients, Layout, Residual
from recaster.distributed.communication.link import Link
from recaster.distributed.communication.predict import (
    powersgd_elements,
    schemes_within,
)
from recaster.distributed.communication.server import divide
from recaster.distributed.communication.topk import largest
from recaster.recipe.communication import CommunicationSection
from recaster.recipe.load import load_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "digits.yaml"


def test_a_name_stands_for_a_schemes_defaults() -> None:
    assert CommunicationSection.model_validate("powersgd") == CommunicationSection(scheme="powersgd")
    recipe = load_recipe(RECIPE, ["communication=auto"])
    assert recipe.communication.scheme == "auto"
    kept = recipe.communication.model_dump_json()
    assert CommunicationSection.model_validate_json(kept) == recipe.communication


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("communication=gossip", "allreduce"),
        ("communication={scheme: topk, powersgd: {rank: 8}}", "powersgd belongs to scheme powersgd"),
        ("communication={scheme: powersgd, powersgd: {fraction: 0.1}}", "Known here: rank"),
        ("communication={scheme: auto, parameter_server: {staleness: 1}}", "parameter_server belongs"),
    ],
)
def test_wrong_sections_are_refused_with_the_repair(override: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(RECIPE, [override])
    assert told in str(caught.value)


def test_schemes_belong_to_ddp() -> None:
    with pytest.raises(RecipeError, match="belongs to strategy ddp, not fsdp"):
        load_recipe(
            RECIPE, ["communication=bf16", "distributed={strategy: fsdp, ranks: 2, threads_per_rank: 1}"]
        )


def test_auto_takes_the_options_of_its_candidates() -> None:
    recipe = load_recipe(RECIPE, ["communication={scheme: auto, powersgd: {rank: 8}}"])
    assert recipe.communication.powersgd.rank == 8


def test_a_budget_includes_those_below() -> None:
    assert schemes_within("exact") == ["allreduce"]
    assert schemes_within("compressed") == ["allreduce", "bf16", "fp16", "powersgd", "topk"]


def test_a_layout_finds_each_parameter_and_back() -> None:
    first, second = torch.zeros(2, 3), torch.zeros(4)
    layout = Layout([first, second], [second, first])
    flat = torch.arange(10.0)
    assert layout.views(flat)[0].tolist() == [[4, 5, 6], [7, 8, 9]]
    assert torch.equal(layout.from_model_order(layout.to_model_order(flat)), flat)


def test_a_residual_follows_the_layout() -> None:
    first, second = torch.zeros(3), torch.zeros(2)
    before, after = Layout([first, second], [first, second]), Layout([first, second], [second, first])
    residual = Residual()
    assert residual.arranged(Gradients(torch.ones(5), before)).tolist() == [0] * 5
    residual.keep(torch.tensor([1.0, 2, 3, 4, 5]))
    assert residual.arranged(Gradients(torch.ones(5), after)).tolist() == [4, 5, 1, 2, 3]
    kept = residual.in_model_order()
    assert kept is not None
    assert kept.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("shape", ["spread", "constant", "one block"])
def test_the_largest_are_found_whatever_the_sample_says(shape: str) -> None:
    flat = torch.randn(300_000, generator=torch.Generator().manual_seed(1))
    if shape == "constant":
        flat.fill_(1.0)
    if shape == "one block":
        flat[: flat.numel() // 2] = 0
    found = largest(flat, 1000)
    assert len(set(found.tolist())) == 1000
    assert torch.equal(flat[found].abs().sort().values, flat.abs().topk(1000).values.sort().values)


def test_shares_cover_everything_once() -> None:
    assert divide(10, 3, placement="sharded") == [(0, 3), (3, 6), (6, 10)]
    assert divide(10, 3, placement="central") == [(0, 10), (10, 10), (10, 10)]


def test_a_ring_is_predicted_by_what_each_rank_sends() -> None:
    link = Link(ranks=4, latency_seconds=0.001, bytes_per_second=12.5e6)
    assert link.all_reduce_seconds(40e6) == pytest.approx(4.801)
    assert link.all_gather_seconds(1e6) == pytest.approx(0.241)


def test_powersgd_sends_two_thin_matrices() -> None:
    assert powersgd_elements([torch.zeros(100, 50), torch.zeros(50)], rank=2) == (50, 300)
    assert powersgd_elements([torch.zeros(3, 3)], rank=2) == (9, 0)
