"""Metrics on parts of the held-out records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recaster.data.image_sources import read_images
from recaster.data.shards import Shard, measure_light
from recaster.data.text_sources import read_texts
from recaster.evaluation.metrics import accuracy
from recaster.evaluation.slices import cut_in_quarters, measure_slices, plot_slices
from recaster.recipe.data import ImageShape
from recaster.recipe.evaluation import EvaluateSection


def _name(least: int, most: int) -> str:
    return f"{least} to {most}"


def test_quarters_hold_equal_values_together() -> None:
    values = np.array([9, 1, 2, 3, 4, 5, 6, 7, 8])
    assert cut_in_quarters(values, _name) == [
        "8 to 9", "1 to 3", "1 to 3", "1 to 3", "4 to 5", "4 to 5", "6 to 7", "6 to 7", "8 to 9",
    ]  # fmt: skip
    assert set(cut_in_quarters(np.array([3] * 7 + [8]), _name)) == {"3 to 3", "8 to 8"}
    assert cut_in_quarters(np.array([3, 3]), _name) == ["3 to 3", "3 to 3"]


def test_a_slice_has_the_metrics_of_its_rows(tmp_path: Path) -> None:
    targets = np.zeros(40, dtype=np.int64)
    predictions = np.tile([0.9, 0.1], (40, 1))
    predictions[:10] = [0.2, 0.8]
    slices = {
        "group": ["forum"] * 10 + ["mail"] * 27 + [""] * 3,
        "length": ["all"] * 40,
        "few": ["few"] * 3 + ["many"] * 37,
    }
    section = EvaluateSection(bootstrap_samples=100)
    table = measure_slices(predictions, targets, slices, {"accuracy": accuracy}, section)
    rows = {(row["by"], row["slice"]): row for row in table}
    assert rows["group", "forum"]["accuracy"]["value"] == 0 and rows["group", "forum"]["rows"] == 10
    assert rows["group", "mail"]["accuracy"]["value"] == 1
    wilson = 27 / (27 + 1.96**2)
    assert rows["group", "mail"]["accuracy"]["low"] == pytest.approx(wilson, abs=1e-3)
    assert [row["slice"] for row in table if row["by"] == "few"] == ["few", "many"]
    numbers = ["10 to 20 tokens"] * 6 + ["9 to 9 tokens"] * 6 + ["1 to 8 tokens"] * 28
    told = measure_slices(predictions, targets, {"length": numbers}, {"accuracy": accuracy}, section)
    assert [row["slice"] for row in told] == ["1 to 8 tokens", "9 to 9 tokens", "10 to 20 tokens"]
    assert ("group", "") not in rows and ("length", "all") not in rows
    assert rows["few", "few"] == {"by": "few", "slice": "few", "rows": 3}
    plot_slices(table, "accuracy", {"value": 0.75, "low": 0.6, "high": 0.9}, tmp_path / "slices.png")
    assert (tmp_path / "slices.png").stat().st_size > 5000


def test_a_group_a_record_is_no_slice() -> None:
    predictions, targets = np.tile([0.9, 0.1], (60, 1)), np.zeros(60, dtype=np.int64)
    names = {"group": [str(row) for row in range(60)]}
    assert measure_slices(predictions, targets, names, {"accuracy": accuracy}, EvaluateSection()) == []


def test_sources_name_groups(tmp_path: Path) -> None:
    lines = tmp_path / "texts.jsonl"
    lines.write_text('{"label": "a", "text": "one", "group": "forum"}\n{"label": "a", "text": "two"}\n')
    table = tmp_path / "texts.csv"
    table.write_text("id,label,text,group\n1,a,one,forum\n2,a,two,\n")
    for path in (lines, table):
        assert [record.group for record in read_texts(path) or []] == ["forum", ""]
    (tmp_path / "dot.png").write_bytes(_png())
    (tmp_path / "list.csv").write_text("path,label,group\ndot.png,a,indoors\n")
    image = ImageShape(height=4, width=4, channels=1, minimum=0, maximum=255)
    (record,) = read_images(tmp_path / "list.csv", image, None) or []
    assert record.group == "indoors" and record.text is None and record.problem == ""


def _png() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (4, 4), 7).save(file, "PNG")
    return file.getvalue()


def test_light_is_measured_in_shares() -> None:
    images = np.zeros((300, 1, 2, 2), dtype=np.uint8)
    images[7], images[8, 0, 0] = 255, 255
    brightness, contrast = measure_light(
        Shard(images=images, labels=np.zeros(300, dtype=np.int64), ids=[], minimum=0, maximum=255)
    )
    assert brightness[6:9].tolist() == [0, 1, 0.5] and contrast[6:9].tolist() == [0, 0, 0.5]
    assert len(brightness) == 300
