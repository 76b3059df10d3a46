"""Pictures with boxes as their owners keep them, one at a time, bad ones included.

coco.json                                  beside images/
VOC/Annotations/a.xml  VOC/JPEGImages/a.jpg  and VOC/ImageSets/Main/train.txt, a split by names
YOLO/images/a.jpg      YOLO/labels/a.txt     and YOLO/classes.txt, else the recipe's labels by number
{"id": "a", "image": [[…]], "boxes": [{"label": "RBC", "box": [1, 2, 9, 8]}]}     a line of a JSON lines file
pictures/a.jpg                             without boxes, to ask a model
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from recaster.core.errors import DataError
from recaster.data.box_annotations import Annotated, read_coco, read_voc, read_yolo
from recaster.data.boxes import Box, dump_boxes, find_fault, fit_boxes, parse_boxes
from recaster.data.picture_files import SUFFIXES, UNREADABLE, decode_sized
from recaster.data.records import Pixels, RawRecord
from recaster.recipe.data import BoxShape

_VOC = ("Annotations", "JPEGImages")
_AHEAD = 64


def beside(path: Path) -> Path | None:
    """The folder whose content belongs to a source that is a file; None when it says everything itself."""
    if _is_voc_list(path):
        return path.parents[2]
    return path.parent if path.is_file() and path.suffix == ".json" else None


def read_boxes(path: Path, *, shape: BoxShape, labels: list[str]) -> Iterator[RawRecord] | None:
    """The pictures at `path` in a fixed order; None when it is of no known kind.

    Raises:
        DataError: a label file that cannot be used as a whole.
    """
    if path.suffix == ".jsonl":
        return _read_json_lines(path, shape)
    found = _list(path, labels)
    return None if found is None else _decode(found, shape)


def _list(path: Path, labels: list[str]) -> Iterable[Annotated] | None:
    if path.suffix == ".json":
        return read_coco(path)
    if _is_voc_list(path):
        return _list_voc(path.parents[2], _read_names(path))
    if path.is_dir():
        return _list_folder(path, labels)
    known = path.suffix.lower() in SUFFIXES
    return [Annotated(id=path.name, path=path, boxes=[], where=str(path))] if known else None


def _list_folder(path: Path, labels: list[str]) -> Iterable[Annotated]:
    if (path / _VOC[0]).is_dir():
        return _list_voc(path, sorted(file.stem for file in (path / _VOC[0]).glob("*.xml")))
    if (path / "labels").is_dir() and (path / "images").is_dir():
        return _list_yolo(path, labels)
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    return [
        Annotated(id=file.relative_to(path).as_posix(), path=file, boxes=[], where=str(file))
        for file in files
    ]


def _is_voc_list(path: Path) -> bool:
    return path.suffix == ".txt" and path.is_file() and path.parts[-3:-2] == ("ImageSets",)


def _read_names(path: Path) -> list[str]:
    """The names of a split; VOC's lists of one class have a number after each, which is not used."""
    lines = path.read_text(encoding="utf-8").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    if odd := [name for name in names if "/" in name or "\\" in name or name.startswith("..")]:
        raise DataError(
            "A list of pictures names one outside of its folder.",
            where=str(path),
            value=odd[0],
            repair="write names without a folder and without a suffix, one a line",
        )
    return names


def _list_voc(root: Path, names: Iterable[str]) -> Iterator[Annotated]:
    annotations, pictures = root / _VOC[0], root / _VOC[1]
    return (read_voc(annotations / f"{name}.xml", pictures) for name in names)


def _list_yolo(root: Path, labels: list[str]) -> Iterator[Annotated]:
    listed = root / "classes.txt"
    names = listed.read_text(encoding="utf-8").split("\n") if listed.exists() else labels
    images = root / "images"
    files = sorted(file for file in images.rglob("*") if file.suffix.lower() in SUFFIXES)
    have = {file.relative_to(images).with_suffix("") for file in files}
    written = sorted((root / "labels").rglob("*.txt"))
    named = [name.strip() for name in names if name.strip()]
    for file in files:
        label_file = root / "labels" / file.relative_to(images).with_suffix(".txt")
        yield read_yolo(label_file, file, named, images)
    for label_file in written:  # of pictures that are not there
        name = label_file.relative_to(root / "labels").with_suffix("")
        if name not in have and name.as_posix() != "classes":
            yield read_yolo(label_file, images / name.with_suffix(".jpg"), named, images)


def _decode(found: Iterable[Annotated], shape: BoxShape) -> Iterator[RawRecord]:
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode") as pool:
        coming: deque[Future[RawRecord]] = deque()
        for one in found:
            coming.append(pool.submit(_read, one, shape))
            if len(coming) >= _AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _read(one: Annotated, shape: BoxShape) -> RawRecord:
    pixels, problem, boxes, size = None, one.problem, one.boxes, None
    try:
        if not problem:
            with one.path.open("rb") as file:
                pixels, size = decode_sized(file, shape)
            boxes, problem = _place(one, size, shape)
    except FileNotFoundError:
        problem = f"its picture is not there: {one.path}"
    except UNREADABLE as error:
        problem = f"not a readable picture: {error or type(error).__name__}"
    return RawRecord(
        id=one.id,
        label=None,
        where=one.where,
        pixels=None if problem else pixels,
        text=dump_boxes(boxes),
        problem=problem,
        shown=size,
    )


def _place(one: Annotated, size: tuple[int, int], shape: BoxShape) -> tuple[list[Box], str]:
    """The boxes in the picture as it will be, and why they cannot be used."""
    height, width = size
    if one.size and one.size != size:
        turned = " as it lies in the file, before its EXIF turns it" if one.size == (width, height) else ""
        told = f"the label file is of a picture of {one.size[1]} x {one.size[0]} pixels{turned}"
        return one.boxes, f"{told}; the picture shows {width} x {height}"
    boxes = one.boxes
    if one.shares:
        scale = (width, height, width, height)
        boxes = [Box(label=box.label, sides=_times(box.sides, scale)) for box in boxes]
    if fault := find_fault(boxes, height=height, width=width):
        return boxes, fault
    after = size if shape.resize == "refuse" else (shape.height, shape.width)
    return fit_boxes(boxes, before=size, after=after, resize=shape.resize), ""


def _times(
    sides: tuple[float, float, float, float], scale: tuple[int, int, int, int]
) -> tuple[float, float, float, float]:
    left, top, right, bottom = (side * factor for side, factor in zip(sides, scale, strict=True))
    return left, top, right, bottom


def _read_json_lines(path: Path, shape: BoxShape) -> Iterator[RawRecord]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parse_line(line, f"{path}, line {number}", shape)


def _parse_line(line: str, where: str, shape: BoxShape) -> RawRecord:
    name: str | None = None
    try:
        row: Any = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("not a JSON object")
        name = None if row.get("id") is None else str(row["id"])
        pixels: Pixels = np.asarray(row["image"], dtype=np.float32)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        if pixels.ndim != 3 or 0 in pixels.shape:
            raise ValueError(f"image has shape {pixels.shape}, wanted height x width x channels")
        boxes = parse_boxes(json.dumps(row.get("boxes", [])))
        problem = find_fault(boxes, height=pixels.shape[0], width=pixels.shape[1])
        size = pixels.shape[:2]
        fitted = fit_boxes(boxes, before=(size[0], size[1]), after=(size[0], size[1]), resize=shape.resize)
    except (ValueError, TypeError, KeyError) as error:
        problem = f"not a picture with boxes: {type(error).__name__} {error}"
        return RawRecord(id=name, label=None, where=where, problem=problem)
    return RawRecord(
        id=name, label=None, where=where, pixels=pixels, text=dump_boxes(fitted), problem=problem
    )
