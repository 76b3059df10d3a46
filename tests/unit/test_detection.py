"""Boxes: their files, good and bad; suppression, assignment and average precision against references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from recaster.core.errors import DataError, RecipeError
from recaster.data.augmentation import Augmentation
from recaster.data.box_augmentation import BoxAugmentation
from recaster.data.box_sources import read_boxes
from recaster.data.boxes import Box, fit_boxes, parse_boxes, unfit_sides
from recaster.data.records import RawRecord
from recaster.evaluation.detection_metrics import COCO_OVERLAPS, average_precisions
from recaster.evaluation.detection_report import count_errors, measure_coco
from recaster.models.detection_loss import aligned_giou, assign_points, detection_loss
from recaster.models.detector import build_model
from recaster.models.nms import pair_iou, suppress
from recaster.recipe.data import BoxShape
from recaster.recipe.training import Augmentation as Section

SHAPE = BoxShape(height=32, width=64, channels=3, minimum=0, maximum=255, resize="stretch")
LABELS = ["cell", "dust"]


def _picture(path: Path, size: tuple[int, int] = (128, 64), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 40).convert("RGB").save(path, **options)
    return path


def _voc(root: Path, name: str, sides: str, head: str = "", size: str = "") -> None:
    tags = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{tag}>{side}</{tag}>" for tag, side in zip(tags, sides.split(), strict=True))
    text = f"{head}<annotation>{size}<object><name>cell</name><bndbox>{box}</bndbox></object></annotation>"
    path = root / "Annotations" / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _read(path: Path) -> list[RawRecord]:
    records = read_boxes(path, shape=SHAPE, labels=LABELS)
    assert records is not None
    return list(records)


def test_three_forms_say_the_same(tmp_path: Path) -> None:
    voc, yolo, coco = tmp_path / "voc", tmp_path / "yolo", tmp_path / "coco"
    _picture(voc / "JPEGImages" / "a.jpg")
    _voc(voc, "a", "33 17 96 48")  # from 1 on, the last pixel included
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    listed = voc / "ImageSets" / "Main" / "train.txt"
    listed.write_text("a\n")
    _picture(yolo / "images" / "a.jpg")
    (yolo / "labels").mkdir()
    (yolo / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    _picture(coco / "images" / "a.jpg")
    told = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 128, "height": 64}],
        "categories": [{"id": 3, "name": "cell"}],
        "annotations": [{"image_id": 7, "category_id": 3, "bbox": [32, 16, 64, 32]}],
    }
    (coco / "train.json").write_text(json.dumps(told))
    for source in (voc, listed, yolo, coco / "train.json"):
        (record,) = _read(source)
        assert record.problem == "" and record.pixels is not None
        assert record.pixels.shape == (32, 64, 3)
        assert parse_boxes(record.text or "") == [Box(label="cell", sides=(16, 8, 48, 24))], source


@pytest.mark.parametrize(
    ("sides", "head", "size", "said"),
    [
        ("100 10 140 40", "", "", "reaches out of the picture"),
        ("50 10 40 40", "", "", "has no area"),
        ("1 1 inf 9", "", "", "not finite"),
        ("1 1 nine 9", "", "", "VOC"),
        ("1 1 9 9", '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]>', "", "document type"),
        ("1 1 9 9", "", "<size><width>inf</width><height>64</height></size>", "size"),
        ("1 1 9 9", "", "<size><width>64</width><height>128</height></size>", "before its EXIF turns it"),
    ],
)
def test_a_bad_voc_file_is_a_broken_record(
    tmp_path: Path, sides: str, head: str, size: str, said: str
) -> None:
    _picture(tmp_path / "JPEGImages" / "a.jpg")
    _voc(tmp_path, "a", sides, head, size)
    (record,) = _read(tmp_path)
    assert said in record.problem and record.pixels is None


def test_pictures_that_are_missing_or_cut_are_broken_records(tmp_path: Path) -> None:
    _voc(tmp_path, "absent", "1 1 9 9")
    _voc(tmp_path, "cut", "1 1 9 9")
    _voc(tmp_path, "good", "1 1 9 9")
    _picture(tmp_path / "JPEGImages" / "good.PNG")
    cut = _picture(tmp_path / "JPEGImages" / "cut.jpg")
    cut.write_bytes(cut.read_bytes()[:400])
    absent, broken, good = _read(tmp_path)
    assert "is not there" in absent.problem and "not a readable picture" in broken.problem
    assert good.problem == ""


def test_boxes_are_of_the_picture_as_exif_shows_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: shown as 64 wide, 128 high
    _picture(tmp_path / "JPEGImages" / "a.jpg", exif=exif)
    _voc(tmp_path, "a", "1 65 64 128", "", "<size><width>64</width><height>128</height></size>")
    (record,) = _read(tmp_path)
    assert record.problem == ""
    assert parse_boxes(record.text or "") == [Box(label="cell", sides=(0, 16, 64, 32))]


@pytest.mark.parametrize("line", ["0 0.5 0.5 0.5", "0 0.5 0.5 0.5 nan", "x 0.5 0.5 0.5 0.5"])
def test_a_bad_yolo_line_is_a_broken_record(tmp_path: Path, line: str) -> None:
    _picture(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(f"0 0.5 0.5 0.2 0.2\n{line}\n")
    (tmp_path / "labels" / "b.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    bad, missing = _read(tmp_path)
    assert "line 2" in bad.problem and "is not there" in missing.problem


def test_coco_names_what_it_cannot_use(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "images": [
            {"id": 1, "file_name": "../../etc/a.jpg"},
            {"id": 2, "file_name": "a.jpg", "height": "tall", "width": 3},
        ],
        "categories": [],
        "annotations": [],
    }
    path = tmp_path / "x.json"
    path.write_text(json.dumps(told))
    outside, size = _read(path)
    assert "leaves the folder" in outside.problem and "size of 3 x tall" in size.problem
    path.write_text(json.dumps({**told, "annotations": [{"image_id": 9}]}))
    with pytest.raises(DataError, match="does not list"):
        _read(path)
    path.write_text('{"images": 3}')
    with pytest.raises(DataError, match="no COCO JSON"):
        _read(path)


def test_boxes_follow_a_padded_picture() -> None:
    (box,) = fit_boxes(
        [Box(label="a", sides=(0, 0, 100, 50))], before=(50, 100), after=(64, 64), resize="pad"
    )
    assert box.sides == (0, 16, 64, 48)


@pytest.mark.parametrize("resize", ["stretch", "pad"])
@pytest.mark.parametrize("before", [(37, 101), (101, 37), (480, 640), (64, 64)])
def test_boxes_go_back_to_where_they_were(before: tuple[int, int], resize: str) -> None:
    sides = (before[1] * 0.1, before[0] * 0.2, before[1] * 0.9, before[0] * 0.7)
    sizes: Any = {"before": before, "after": (64, 96), "resize": resize}
    (fitted,) = fit_boxes([Box(label="a", sides=sides)], **sizes)
    assert unfit_sides(fitted.sides, **sizes) == pytest.approx(sides)
    assert unfit_sides((0, 0, 96, 64), **sizes) == pytest.approx((0, 0, before[1], before[0]), abs=1)


def test_suppression_is_that_of_the_loop_over_boxes() -> None:
    torch.manual_seed(0)
    corner = torch.rand(6, 80, 2) * 60
    boxes = torch.cat([corner, corner + 5 + torch.rand(6, 80, 2) * 40], 2)
    scores, classes = torch.rand(6, 80), torch.randint(0, 3, (6, 80))
    kept = suppress(boxes, scores, classes, overlap=0.3)
    for row in range(6):
        wanted: list[int] = []
        for place in scores[row].argsort(descending=True).tolist():
            overlaps = pair_iou(boxes[row, place][None], boxes[row, wanted])[0] if wanted else []
            taken = any(
                overlap > 0.3 and classes[row, other] == classes[row, place]
                for overlap, other in zip(overlaps, wanted, strict=True)
            )
            if not taken:
                wanted.append(place)
        assert kept[row].nonzero().flatten().tolist() == sorted(wanted)
    assert 0 < kept.sum() < kept.numel()


def _scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of three classes in 12 pictures of 200 pixels, and detections near them and elsewhere."""
    random = np.random.default_rng(seed)
    corner = random.random((12, 8, 2)) * 120
    sides = np.concatenate([corner, corner + 6 + random.random((12, 8, 2)) * 70], 2)
    number = random.integers(0, 3, (12, 8, 1))
    targets = np.concatenate([number, sides], 2).astype(np.float32)
    targets[random.random((12, 8)) < 0.3] = -1
    near = np.concatenate([sides + random.normal(0, 5, sides.shape), sides[:, ::-1]], 1)
    near[:, :, 2:] = np.maximum(near[:, :, 2:], near[:, :, :2] + 1)  # none turned inside out
    score = random.random((12, 16, 1)).round(4)
    classes = np.concatenate([number, random.integers(0, 3, (12, 8, 1))], 1)
    found = np.concatenate([near, score, classes], 2)
    order = np.argsort(-found[:, :, 4], axis=1, kind="stable")
    return np.take_along_axis(found, order[:, :, None], 1), targets


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_cocos(seed: int) -> None:
    found, targets = _scene(seed)
    told = measure_coco(found, targets, ["a", "b", "c"], (200, 200))
    own = average_precisions(found, targets, COCO_OVERLAPS)
    for number, row in enumerate(told["per_class"]):
        assert own[number].mean() == pytest.approx(row["AP"], abs=1e-6)
        assert own[number][0] == pytest.approx(row["AP50"], abs=1e-6)
    assert np.mean(list(own.values())) == pytest.approx(told["coco"]["AP"], abs=1e-6)


def test_errors_are_told_apart() -> None:
    targets = np.array([[[0, 0, 0, 10, 10], [1, 50, 50, 60, 60], [0, 80, 80, 90, 90]]], dtype=np.float32)
    found = np.array(
        [
            [
                [0, 0, 10, 10, 0.9, 0],  # right
                [0, 0, 10, 9, 0.8, 0],  # duplicate
                [50, 50, 60, 60, 0.7, 0],  # classification
                [83, 83, 95, 95, 0.6, 0],  # localization
                [53, 53, 65, 65, 0.5, 0],  # both
                [20, 20, 30, 30, 0.4, 1],  # background
                [80, 80, 90, 90, 0.1, 0],  # too weak to count
            ]
        ]
    )
    assert count_errors(found, targets) == {
        "right": 1,
        "classification": 1,
        "localization": 1,
        "both": 1,
        "duplicate": 1,
        "background": 1,
        "missed": 2,
    }


def test_generalized_iou_falls_with_distance() -> None:
    one = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(3, 1)
    other = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [90.0, 0.0, 100.0, 10.0]])
    found = aligned_giou(one, other)
    assert found.tolist() == pytest.approx([1.0, -1 / 3, -0.8], abs=1e-6)


def test_every_box_has_a_point_and_no_point_two_boxes() -> None:
    torch.manual_seed(0)
    model = build_model(backbone="small", channels=3, height=64, width=64, classes=2, features=16).eval()
    seen = model(torch.rand(2, 3, 64, 64)).detach()
    # Two far apart, one too small to have a point inside; the second picture has none.
    boxes = [[0.0, 2, 2, 30, 30], [1, 34, 34, 62, 62], [1, 41, 9, 43, 11]]
    targets = torch.full((2, 3, 5), -1.0)
    targets[0] = torch.tensor(boxes)
    given = assign_points(seen[:, :, :3], seen[:, :, 3:7], seen[:, :, 7:].sigmoid(), targets)
    assert set(given.boxes[0][given.shares[0] > 0].tolist()) == {0, 1, 2}
    assert (given.shares[1] == 0).all()
    assert torch.isfinite(detection_loss(seen, targets, gamma=2.0))


@pytest.mark.parametrize(
    "change",
    [
        {"horizontal_flip": True},
        {"vertical_flip": True},
        {"zoom": 0.3, "shift_pixels": 6},
        {"mosaic_probability": 1.0},
    ],
)
def test_boxes_follow_their_picture(change: dict[str, Any]) -> None:
    """A bright rectangle on black: its box is where it is bright, whatever was done."""
    images, boxes = torch.zeros(4, 1, 64, 64), torch.full((4, 1, 5), -1.0)
    for row, (top, left) in enumerate([(20, 24), (10, 30), (32, 12), (24, 24)]):
        images[row, :, top : top + 16, left : left + 12] = 1
        boxes[row, 0] = torch.tensor([0, left, top, left + 12, top + 16])
    rows = np.arange(4)
    augmentation = BoxAugmentation(Section(**change).model_dump(), rows=4)
    changed, moved = augmentation.batch(lambda r: (images[r].clone(), boxes[r].clone()), rows, 5)
    again, _ = augmentation.batch(lambda r: (images[r].clone(), boxes[r].clone()), rows[2:], 5)
    assert torch.equal(changed[2:], again)
    assert not torch.equal(changed, images)
    told = 0
    for picture, own in zip(changed, moved, strict=True):
        for _, left, top, right, bottom in own[own[:, 0] >= 0].round().int().tolist():
            assert picture[0, top + 1 : bottom - 1, left + 1 : right - 1].min() > 0.9
            told += 1
    assert told >= 3


def test_changes_that_do_nothing_are_refused() -> None:
    with pytest.raises(RecipeError, match="do not follow"):
        BoxAugmentation(Section(rotate_degrees=10).model_dump(), rows=3)
    with pytest.raises(RecipeError, match="pictures with boxes"):
        Augmentation(Section(mosaic_probability=0.5).model_dump(), rows=3, classes=2)
