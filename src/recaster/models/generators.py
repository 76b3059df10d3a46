"""The generators of this package with their adversaries: fresh, or from a trained one's folder.

scratch:dcgan                                 → both networks with fresh weights
config.json {"architecture": "generator", …}  → one that was trained here, with discriminator.safetensors
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.models.adversarial import DISCRIMINATOR, GENERATOR, Adversarial, build_adversarial
from recaster.models.generator import Generator, build_model
from recaster.models.loading import load_state, read_state
from recaster.models.picture_features import open_network

FRESH = {"dcgan": "dcgan", "resnet-gan": "resnet"}
"""What may follow `scratch:`, and its architecture."""
ADVERSARY = "discriminator.safetensors"
"""Beside a generator's own weights, for whoever trains it further."""
ADVERSARY_CONFIG = "discriminator.json"
"""How wide it is."""
_DATA_ARGUMENTS = ("channels", "height", "width", "classes")


def find_arguments(arguments: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """What the generator of a plan's `model_arguments` is built with; of a base, as that was built.

    Raises:
        RecipeError: the base is no generator, or makes pictures of another size.
    """
    if base is None:
        return {**arguments, "architecture": FRESH[arguments["architecture"]]}
    config = read_json(base / "config.json")
    if config.get("architecture") != GENERATOR:
        raise RecipeError(
            "The base is no generator that was trained here.",
            where="model.base",
            value=f"architecture {config.get('architecture') or config.get('model_type', '(none)')}",
            repair=f"name a model of this workload, or scratch:{' or scratch:'.join(FRESH)}",
        )
    own = config["arguments"]
    odd = [key for key in _DATA_ARGUMENTS[:3] if own[key] != arguments[key]]
    if odd:
        raise RecipeError(
            "The base makes pictures of another shape.",
            where="data.image",
            value=", ".join(f"{key} {own[key]} in the base, {arguments[key]} here" for key in odd),
            repair="set data.image to the base's shape and resize the pictures, or begin with fresh weights",
        )
    if bool(own["classes"]) != bool(arguments["classes"]):
        raise RecipeError(
            "The base is conditional, and the recipe is not, or the other way round.",
            where="model.conditional",
            value=f"{own['classes']} classes in the base, {arguments['classes']} here",
            repair=f"set model.conditional to {str(bool(own['classes'])).lower()}",
        )
    return {**own, "classes": arguments["classes"]}


def build_players(
    arguments: Mapping[str, Any],
    options: Mapping[str, Any],
    base: Path | None,
    *,
    critic: Path | None = None,
) -> Adversarial:
    """Both networks, with the base's weights where they fit; `report` says what became of these.

    Args:
        options: the recipe's `train.adversary`.
        critic: of the open network through whose features the discriminator sees.

    Raises:
        RecipeError: the base is no generator, none makes pictures of this size, or the critic is of no use.
        BaseModelError: none of its weights fits.
    """
    told = read_json(base / ADVERSARY_CONFIG) if base and (base / ADVERSARY_CONFIG).exists() else {}
    try:
        own = find_arguments(arguments, base)
        shape = (own["channels"], own["height"], own["width"])
        model = build_adversarial(
            own,
            options,
            hidden=options["width"] or told.get("width"),
            network=open_network(critic, shape, options["encoder_size"]) if critic else None,
        )
    except ValueError as error:
        raise RecipeError(
            "No generator is built for these pictures.",
            where="data.image",
            value=str(error),
            repair="set data.image.height and width so, and resize to stretch, crop or pad",
        ) from error
    if base is not None:
        state = {f"{GENERATOR}.{name}": value for name, value in read_state(base).items()}
        if (base / ADVERSARY).exists():
            trained = load_file(base / ADVERSARY)
            state |= {f"{DISCRIMINATOR}.{name}": value for name, value in trained.items()}
        model.report = load_state(model, state)  # type: ignore[assignment] # no module, no tensor
    return model


def load_generator(artifact: Path) -> Generator:
    """The generator of an exported artifact."""
    model = build_model(**read_json(artifact / "config.json")["arguments"])
    assert isinstance(model, Generator)  # noqa: S101
    model.load_state_dict(read_state(artifact))
    return model.eval()
