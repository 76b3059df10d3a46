"""The data contract of labelled pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from recaster.data.contract import RowRule, common_rules
from recaster.data.packed import unpack_pixels
from recaster.recipe.data import DataSection, ImageShape

FACTS = ("height", "width", "channels", "non_finite", "minimum", "maximum")


def describe_image(record: dict[str, Any]) -> dict[str, Any]:
    """The facts of one packed picture."""
    pixels = unpack_pixels(record)
    finite = pixels[np.isfinite(pixels)]
    return {
        **{side: record[side] for side in ("height", "width", "channels")},
        "non_finite": int(pixels.size - finite.size),
        "minimum": float(finite.min()) if finite.size else None,
        "maximum": float(finite.max()) if finite.size else None,
    }


def image_rules(data: DataSection) -> list[RowRule]:
    """Readable, labelled, unique, of the recipe's shape and range."""
    assert data.image is not None  # noqa: S101 - the workload's kind
    return common_rules(data) + shape_rules(data.image)


def shape_rules(image: ImageShape) -> list[RowRule]:
    """Of the recipe's shape and range."""
    import great_expectations.expectations as gxe

    within = gxe.ExpectColumnValuesToBeBetween
    rules = [
        RowRule.of(
            gxe.ExpectColumnValuesToBeInSet(column="non_finite", value_set=[0]), "has NaN or infinite pixels"
        ),
        RowRule.of(within(column="minimum", min_value=image.minimum), f"has a pixel below {image.minimum}"),
        RowRule.of(within(column="maximum", max_value=image.maximum), f"has a pixel above {image.maximum}"),
    ]
    for side in ("height", "width", "channels"):
        wanted = getattr(image, side)
        rule = gxe.ExpectColumnValuesToBeInSet(column=side, value_set=[wanted])
        rules.append(RowRule.of(rule, f"has another {side} than {wanted}"))
    return rules
