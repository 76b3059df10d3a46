"""The data contract of faces: that of pictures, and what comparing people needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from recaster.data.contract import RowRule, collect_facts, common_rules
from recaster.data.contract_images import FACTS, describe_image, light_rules, shape_rules
from recaster.recipe.data import DataSection

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def collect_faces(raw: Path) -> pd.DataFrame:
    """A row for each picture: what the contract of pictures knows, light, and who else has it."""
    facts = collect_facts(raw, describe_image, FACTS)
    readable = facts[facts["problem"] == ""]
    people = readable.groupby("digest")["label"].nunique()
    pictures = readable.groupby("label")["digest"].nunique()
    facts["people_with_this_picture"] = facts["digest"].map(people).fillna(0).astype(int)
    facts["pictures_of_the_person"] = facts["label"].map(pictures).fillna(0).astype(int)
    return facts.drop(columns="digest")


def face_rules(data: DataSection) -> list[RowRule]:
    """Those of pictures; named people; light; one person a picture; and who has a single picture."""
    import great_expectations.expectations as gxe

    image = data.image
    assert image is not None  # noqa: S101 - the workload's kind
    single = RowRule.of(
        gxe.ExpectColumnValuesToBeBetween(column="pictures_of_the_person", min_value=2),
        "is the only picture of its person: good for a gallery, or as somebody else, not to be found again",
    )
    return [
        *common_rules(data),
        *shape_rules(image),
        RowRule.of(gxe.ExpectColumnValuesToNotBeNull(column="label"), "has no person's name"),
        *light_rules(image, only_counted=False),
        RowRule.of(
            gxe.ExpectColumnValuesToBeBetween(column="people_with_this_picture", max_value=1),
            "is given to two people",
        ),
        replace(single, only_counted=True),
    ]
