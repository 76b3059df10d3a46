"""The data contract of labelled pictures."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recaster.data.contract import RowRule, collect_facts, common_rules
from recaster.data.packed import unpack_pixels
from recaster.recipe.data import ContractSection, DataSection, ImageShape

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

FACTS = (
    *("height", "width", "channels", "non_finite", "minimum", "maximum"),
    *("brightness", "contrast", "digest"),
)
_DARK, _BRIGHT, _FLAT = 0.02, 0.98, 0.01
"""Of the legal range: means outside, and standard deviations below, show nothing."""


def collect_pictures(raw: Path) -> pd.DataFrame:
    """A row for each picture, with how many others have its pixels, and under how many labels."""
    return count_copies(collect_facts(raw, describe_image, FACTS))


def count_copies(facts: pd.DataFrame) -> pd.DataFrame:
    """`facts` with how many other records have the same pixels, `copies`, and how many `labels_of_copies`."""
    readable = facts[facts["problem"] == ""].groupby("digest")
    facts["copies"] = facts["digest"].map(readable.size() - 1).fillna(0).astype(int)
    facts["labels_of_copies"] = facts["digest"].map(readable["label"].nunique()).fillna(0).astype(int)
    return facts.drop(columns="digest")


def describe_image(record: dict[str, Any]) -> dict[str, Any]:
    """The facts of one packed picture."""
    pixels = unpack_pixels(record)
    finite = pixels[np.isfinite(pixels)]
    seen = bool(pixels.size) and finite.size == pixels.size
    return {
        **{side: record[side] for side in ("height", "width", "channels")},
        "non_finite": int(pixels.size - finite.size),
        "minimum": float(finite.min()) if finite.size else None,
        "maximum": float(finite.max()) if finite.size else None,
        "brightness": float(pixels.mean(dtype=np.float64)) if seen else None,
        "contrast": float(pixels.std(dtype=np.float64)) if seen else None,
        "digest": hashlib.sha256(pixels.tobytes()).hexdigest() if pixels.size else None,
    }


def image_rules(data: DataSection, contract: ContractSection) -> list[RowRule]:
    """Readable, labelled, unique, of the recipe's shape and range; light, and copies."""
    assert data.image is not None  # noqa: S101 - the workload's kind
    light = light_rules(data.image, only_counted=contract.blank_pictures == "report")
    return [*common_rules(data), *shape_rules(data.image), *light, *copy_rules(data)]


def light_rules(image: ImageShape, *, only_counted: bool) -> list[RowRule]:
    """Something is to be seen."""
    import great_expectations.expectations as gxe

    span = image.maximum - image.minimum
    dark, bright = (image.minimum + share * span for share in (_DARK, _BRIGHT))
    within = gxe.ExpectColumnValuesToBeBetween
    rules = [
        RowRule.of(
            within(column="brightness", min_value=dark, max_value=bright), "is nearly black or nearly white"
        ),
        RowRule.of(within(column="contrast", min_value=_FLAT * span), "is nearly of one grey"),
    ]
    return [replace(rule, only_counted=only_counted) for rule in rules]


def copy_rules(data: DataSection) -> list[RowRule]:
    """What is counted of records with the same pixels; the split keeps them on one side."""
    import great_expectations.expectations as gxe

    within = gxe.ExpectColumnValuesToBeBetween
    rules = [RowRule.of(within(column="copies", max_value=0), "has the same pixels as another record")]
    if data.labels:
        different = within(column="labels_of_copies", max_value=1)
        rules.append(RowRule.of(different, "has the same pixels as a record with another label"))
    return [replace(rule, only_counted=True) for rule in rules]


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
