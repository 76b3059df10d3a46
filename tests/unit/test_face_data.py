"""Faces from files: whole people to each split, alignment by five points, and bad input with its reason."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recaster.core.errors import DataError, RecipeError
from recaster.core.settings import find_settings
from recaster.data.face_alignment import POINTS, find_similarity
from recaster.data.image_sources import read_images
from recaster.data.records import RawRecord
from recaster.data.sources import hash_source
from recaster.data.split_identities import divide_identities
from recaster.recipe.data import DataSection, ImageShape, SplitSection
from recaster.recipe.load import load_recipe
from tests.conftest import ROOT

_SHAPE = ImageShape(height=32, width=32, channels=1, minimum=0.0, maximum=255.0)
_COLUMNS = [f"{point}_{axis}" for point in POINTS for axis in "xy"]
_POINTS = [22, 30, 42, 30, 32, 40, 24, 50, 40, 50]


def _split(**counts: object) -> SplitSection:
    return SplitSection.model_validate({"seed": 1, **counts})


def _names(people: int = 12, each: int = 4) -> list[str]:
    return [f"p{person}" for person in range(people) for _ in range(each)]


@pytest.mark.parametrize(
    "section", [_split(validation_identities=3, test_identities=4), _split(validation=0.25, test=0.34)]
)
def test_no_person_is_on_two_sides(section: SplitSection) -> None:
    names = _names()
    splits, left_out = divide_identities(names, np.arange(48), [""] * 48, section)
    people = {name: {names[row] for row in rows.tolist()} for name, rows in splits.items()}
    assert {name: len(own) for name, own in people.items()} == {"train": 5, "validation": 3, "test": 4}
    assert not (
        people["train"] & people["validation"] | (people["train"] | people["validation"]) & people["test"]
    )
    assert left_out == 0 and sum(len(rows) for rows in splits.values()) == 48
    again, _ = divide_identities(names, np.arange(48), [""] * 48, section)
    assert all((again[name] == splits[name]).all() for name in splits)
    other, _ = divide_identities(names, np.arange(48), [""] * 48, section.model_copy(update={"seed": 2}))
    assert any(other[name].tolist() != splits[name].tolist() for name in splits)


def test_two_people_with_one_picture_stay_together() -> None:
    names, groups = _names(), np.arange(48)
    groups[44] = groups[0]  # a picture of p11 equals one of p0
    for seed in range(8):
        section = _split(validation_identities=3, test_identities=4).model_copy(update={"seed": seed})
        splits, _ = divide_identities(names, groups, [""] * 48, section)
        assert len([name for name, rows in splits.items() if {0, 44} & set(rows.tolist())]) == 1


def test_people_of_a_published_split_leave_training() -> None:
    names = _names()
    published = ["test" if row in (0, 4, 8, 9) else "" for row in range(48)]
    splits, left_out = divide_identities(names, np.arange(48), published, _split(validation_identities=3))
    assert splits["test"].tolist() == [0, 4, 8, 9] and left_out == 8
    assert not {"p0", "p1", "p2"} & {names[row] for row in splits["train"].tolist()}


@pytest.mark.parametrize("names", [["a"] * 9, ["a"] * 4 + ["b"] * 4, [f"p{row}" for row in range(20)]])
def test_too_few_people_are_refused(names: list[str]) -> None:
    """One person, two people for three splits, and people with one picture each."""
    with pytest.raises(DataError, match="too few people"):
        divide_identities(names, np.arange(len(names)), [""] * len(names), _split(validation=0.2, test=0.2))


def _face(turn: float = 0.0) -> Image.Image:
    pixels = np.full((64, 64), 60, dtype=np.uint8)
    for across, down in np.array(_POINTS).reshape(5, 2).tolist():
        pixels[down - 2 : down + 3, across - 2 : across + 3] = 250
    return Image.fromarray(pixels).rotate(turn, Image.Resampling.BILINEAR, center=(31.5, 31.5))


def _list(folder: Path, rows: list[list[object]]) -> list[RawRecord]:
    lines = [",".join(["path", "identity", "group", *_COLUMNS]), *(",".join(map(str, row)) for row in rows)]
    (folder / "faces.csv").write_text("\n".join(lines) + "\n")
    return list(read_images(folder / "faces.csv", _SHAPE, None) or [])


def test_faces_are_aligned_by_their_points(tmp_path: Path) -> None:
    _face().save(tmp_path / "a.png")
    _face(20).save(tmp_path / "b.png")
    angle = np.deg2rad(-20)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = (np.array(_POINTS).reshape(5, 2) - 31.5) @ turn.T + 31.5
    one, other = _list(
        tmp_path, [["a.png", "anna", "in", *_POINTS], ["b.png", "anna", "out", *turned.flatten().tolist()]]
    )
    assert (one.label, one.group, other.group) == ("anna", "in", "out") and not one.problem + other.problem
    assert one.pixels is not None and other.pixels is not None and one.pixels.shape == (32, 32, 1)
    apart = np.abs(one.pixels.astype(float) - other.pixels.astype(float))
    assert (
        apart[4:-4, 4:-4].mean()
        < 6
        < np.abs(np.asarray(_face(), float) - np.asarray(_face(20), float)).mean()
    )


def test_a_similarity_is_found_exactly() -> None:
    source = np.random.default_rng(1).normal(size=(5, 2))
    wanted = np.array([[1.2, -0.5, 3.0], [0.5, 1.2, -1.0]])
    np.testing.assert_allclose(find_similarity(source, source @ wanted[:, :2].T + wanted[:, 2]), wanted)


def test_bad_pictures_of_a_list_have_their_reason(tmp_path: Path) -> None:
    _face().save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(np.full((64, 64), 40000, dtype=np.uint16)).save(tmp_path / "deep.png")
    spot = [30] * 10
    outside = [*_POINTS[:-2], 40, 64]
    rows = [
        ["truncated.png", "a", "", *_POINTS],
        ["empty.png", "a", "", *_POINTS],
        ["deep.png", "a", "", *_POINTS],
        ["good.png", "a", "", *outside],
        ["good.png", "a", "", *spot],
        ["good.png", "a", "", "x", *_POINTS[1:]],
        ["missing.png", "a", "", *_POINTS],
        ["../good.png", "a", "", *_POINTS],
    ]
    problems = [record.problem for record in _list(tmp_path, rows)]
    told = [
        "",
        "cannot identify",
        "8 bits",
        "right_mouth at (40, 64)",
        "one spot",
        "left_eye",
        "No such",
        "beside",
    ]
    assert all(problem and text in problem for problem, text in zip(problems, told, strict=True)), problems


def test_a_picture_turned_by_exif_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    _face().rotate(90).save(tmp_path / "turned.png", exif=exif)
    _face().save(tmp_path / "good.png")
    turned, good = _list(tmp_path, [["turned.png", "a", "", *_POINTS], ["good.png", "a", "", *_POINTS]])
    assert turned.pixels is not None and good.pixels is not None
    assert (turned.pixels == good.pixels).all()


def test_some_of_the_points_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("path,label,nose_x\na.png,anna,3\n")
    with pytest.raises(DataError, match="five points"):
        list(read_images(tmp_path / "faces.csv", _SHAPE, None) or [])


def test_a_changed_picture_of_a_list_is_another_source(tmp_path: Path) -> None:
    _face().save(tmp_path / "a.png")
    (tmp_path / "faces.csv").write_text("path,label\na.png,anna\n")
    data = DataSection(source=str(tmp_path / "faces.csv"), licence="-", image=_SHAPE)
    before = hash_source(data, find_settings(tmp_path))
    _face(5).save(tmp_path / "a.png")
    assert hash_source(data, find_settings(tmp_path)) != before


def test_one_picture_is_a_source(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    _face().save(buffer, "PNG")
    (tmp_path / "one.png").write_bytes(buffer.getvalue())
    (record,) = read_images(tmp_path / "one.png", _SHAPE, None) or []
    assert record.id == "one.png" and record.pixels is not None


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.legal_basis=null", "legal_basis"),
        ("train.loss={name: focal}", "not for workload"),
        ("customize.method=lora", "lora"),
        ("train.loss.gamma=3.0", "gamma"),
        ("split.test=0.2", "both"),
    ],
)
def test_recipes_that_do_not_fit_faces_are_refused(override: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe(ROOT / "recipes" / "face-recognition" / "tiny.yaml", [override])
