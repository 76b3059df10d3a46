"""The data contract of pictures with boxes."""

from __future__ import annotations

import re
from typing import Any

from recaster.data.boxes import parse_boxes
from recaster.data.contract import RowRule, common_rules
from recaster.data.contract_images import FACTS as _IMAGE_FACTS
from recaster.data.contract_images import copy_rules, describe_image, light_rules, shape_rules
from recaster.recipe.data import ContractSection, DataSection

FACTS = (*_IMAGE_FACTS, "labels", "boxes", "label_names", "narrowest")
_END = "\x1f"
"""After each of a record's label names; no label has it."""


def describe_boxes(record: dict[str, Any]) -> dict[str, Any]:
    """The facts of one packed picture and its boxes; what is wrong with a box's place is its `problem`."""
    boxes = parse_boxes(record["text"] or "[]")
    sides = [min(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (box.sides for box in boxes)]
    return {
        **describe_image(record),
        "labels": [box.label for box in boxes],
        "boxes": len(boxes),
        "label_names": "".join(f"{label}{_END}" for label in sorted({box.label for box in boxes})),
        "narrowest": min(sides, default=None),
    }


def box_rules(data: DataSection, contract: ContractSection) -> list[RowRule]:
    """Those of pictures without labels; boxes of known labels, not too many, not too small."""
    import great_expectations.expectations as gxe

    shape = data.boxes
    assert shape is not None  # noqa: S101 - the workload's kind
    known = "|".join(re.escape(label) for label in data.labels)
    within = gxe.ExpectColumnValuesToBeBetween
    plain = data.model_copy(update={"labels": []})  # labels are of boxes, not of pictures
    return [
        *common_rules(plain),
        *shape_rules(shape),
        *light_rules(shape, only_counted=contract.blank_pictures == "report"),
        *copy_rules(plain),
        RowRule.of(
            gxe.ExpectColumnValuesToMatchRegex(column="label_names", regex=rf"^(?:(?:{known}){_END})*\Z"),
            "has a box with a label outside the recipe's data.labels",
        ),
        RowRule.of(
            within(column="boxes", max_value=shape.max_boxes), f"has more than {shape.max_boxes} boxes"
        ),
        RowRule.of(
            within(column="narrowest", min_value=shape.min_side),
            f"has a box narrower than {shape.min_side} pixels",
        ),
    ]
