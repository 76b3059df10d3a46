"""The data contract of faces: that of pictures, and what comparing people needs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from recaster.data.contract import RowRule, collect_facts
from recaster.data.contract_images import FACTS, describe_image, image_rules
from recaster.data.packed import unpack_pixels
from recaster.recipe.data import DataSection

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

_FACTS = (*FACTS, "brightness", "contrast", "digest")
_DARK, _BRIGHT, _FLAT = 0.02, 0.98, 0.01
"""Of the legal range: means outside, and standard deviations below, show no face."""


def collect_faces(raw: Path) -> pd.DataFrame:
    """A row for each picture: what the contract of pictures knows, light, and who else has it."""
    facts = collect_facts(raw, _describe, _FACTS)
    readable = facts[facts["problem"] == ""]
    people = readable.groupby("digest")["label"].nunique()
    pictures = readable.groupby("label")["digest"].nunique()
    facts["people_with_this_picture"] = facts["digest"].map(people).fillna(0).astype(int)
    facts["pictures_of_the_person"] = facts["label"].map(pictures).fillna(0).astype(int)
    return facts.drop(columns="digest")


def _describe(record: dict[str, Any]) -> dict[str, Any]:
    pixels = unpack_pixels(record)
    seen = bool(pixels.size) and bool(np.isfinite(pixels).all())
    return {
        **describe_image(record),
        "brightness": float(pixels.mean(dtype=np.float64)) if seen else None,
        "contrast": float(pixels.std(dtype=np.float64)) if seen else None,
        "digest": hashlib.sha256(pixels.tobytes()).hexdigest() if pixels.size else None,
    }


def face_rules(data: DataSection) -> list[RowRule]:
    """Those of pictures; named people; light; one person a picture; and who has a single picture."""
    import great_expectations.expectations as gxe

    image = data.image
    assert image is not None  # noqa: S101 - the workload's kind
    span = image.maximum - image.minimum
    dark, bright = (image.minimum + share * span for share in (_DARK, _BRIGHT))
    single = RowRule.of(
        gxe.ExpectColumnValuesToBeBetween(column="pictures_of_the_person", min_value=2),
        "is the only picture of its person: good for a gallery, or as somebody else, not to be found again",
    )
    return [
        *image_rules(data),
        RowRule.of(gxe.ExpectColumnValuesToNotBeNull(column="label"), "has no person's name"),
        RowRule.of(
            gxe.ExpectColumnValuesToBeBetween(column="brightness", min_value=dark, max_value=bright),
            "is nearly black or nearly white",
        ),
        RowRule.of(
            gxe.ExpectColumnValuesToBeBetween(column="contrast", min_value=_FLAT * span),
            "is nearly of one grey",
        ),
        RowRule.of(
            gxe.ExpectColumnValuesToBeBetween(column="people_with_this_picture", max_value=1),
            "is given to two people",
        ),
        RowRule(
            expectation=single.expectation, column=single.column, meaning=single.meaning, only_counted=True
        ),
    ]
