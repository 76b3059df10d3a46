"""What three forms of label files say of their pictures: COCO JSON, VOC XML, YOLO text.

COCO   {"images": [{"id", "file_name"}], "annotations": [{"image_id", "category_id", "bbox": [x, y, w, h]}]}
VOC    Annotations/NAME.xml: <object><name>RBC</name><bndbox><xmin>78</xmin>… from 1 on, the last one included
YOLO   labels/NAME.txt: `CLASS x y w h`, the middle and the size as shares of the picture's
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

from recaster.core.errors import DataError
from recaster.data.boxes import Box, read_sides
from recaster.data.picture_files import SUFFIXES

_MOST_XML_BYTES = 8 << 20
_MOST_DEPTH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """A picture's file and what is said of it."""

    id: str
    path: Path
    boxes: list[Box]
    where: str
    shares: bool = False
    """The sides are shares of the picture's, not pixels."""
    size: tuple[int, int] | None = None
    """Height and width in pixels that the label file gives; None when it gives none."""
    problem: str = ""
    """Why the boxes could not be read."""


def read_voc(annotation: Path, pictures: Path) -> Annotated:
    """One VOC file; its picture has the same name, or that of `filename`. Difficult objects are left out."""
    problem, size, name = "", None, ""
    boxes: list[Box] = []
    try:
        name, size, boxes = _parse_voc(annotation.read_bytes())
    except (OSError, ValueError, expat.ExpatError) as error:
        problem = f"not a readable VOC file: {error}"
    path = _find_picture(pictures, annotation.stem) or pictures / (
        Path(name).name or f"{annotation.stem}.jpg"
    )
    return Annotated(
        id=annotation.stem, path=path, boxes=boxes, where=str(annotation), size=size, problem=problem
    )


def _parse_voc(data: bytes) -> tuple[str, tuple[int, int] | None, list[Box]]:
    tree = parse_xml(data)
    objects = [child for child in tree["children"] if child["tag"] == "object"]
    boxes = []
    for entry in objects:
        if _text(entry, "difficult") == "1":
            continue
        found = next((child for child in entry["children"] if child["tag"] == "bndbox"), None)
        if found is None:
            raise ValueError("an object has no bndbox")
        x0, y0, x1, y1 = read_sides([_text(found, side) for side in ("xmin", "ymin", "xmax", "ymax")])
        # Pixels are counted from 1, and the last one belongs to the box.
        boxes.append(Box(label=_text(entry, "name"), sides=(x0 - 1, y0 - 1, x1, y1)))
    size = next((child for child in tree["children"] if child["tag"] == "size"), None)
    told = (_text(size, "height"), _text(size, "width")) if size else ("", "")
    return _text(tree, "filename"), read_size(*told), boxes


def read_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Height and width in pixels; None where a label file gives none, or 0.

    Raises:
        ValueError: what it gives are no numbers of pixels.
    """
    if not height or not width:
        return None
    try:
        size = int(float(height)), int(float(width))
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"a size of {width} x {height} is none") from error
    return size if all(size) else None


def parse_xml(data: bytes) -> dict[str, Any]:
    """The tree of an XML text: tag, text, children.

    Entities and document types are refused, so that nothing in it can grow or name another file.

    Raises:
        ValueError: it has such, is too large or too deep, or is empty.
        ExpatError: it is no XML.
    """
    if len(data) > _MOST_XML_BYTES:
        raise ValueError(f"{len(data)} bytes of XML are more than {_MOST_XML_BYTES}")
    root: dict[str, Any] = {"tag": "", "text": "", "children": []}
    stack, parser = [root], expat.ParserCreate()

    def start(tag: str, _: dict[str, str]) -> None:
        if len(stack) > _MOST_DEPTH:
            raise ValueError(f"XML more than {_MOST_DEPTH} levels deep")
        node: dict[str, Any] = {"tag": tag, "text": "", "children": []}
        stack[-1]["children"].append(node)
        stack.append(node)

    def add(text: str) -> None:
        stack[-1]["text"] += text

    def refuse(*_: Any) -> None:
        raise ValueError("a document type or entities, which label files have no use for")

    parser.StartElementHandler, parser.CharacterDataHandler = start, add
    parser.EndElementHandler = lambda _: stack.pop()
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.Parse(data, True)
    tree: dict[str, Any] = root["children"][0]
    return tree


def _text(node: dict[str, Any], tag: str) -> str:
    return next((str(child["text"]).strip() for child in node["children"] if child["tag"] == tag), "")


def read_coco(path: Path) -> Iterator[Annotated]:
    """The pictures of a COCO file in their order; crowds are left out.

    Raises:
        DataError: it is not of that form.
    """
    try:
        told = json.loads(path.read_bytes())
        names = {int(entry["id"]): str(entry["name"]) for entry in told["categories"]}
        pictures = [(int(entry["id"]), str(entry["file_name"]), entry) for entry in told["images"]]
        boxes: dict[int, list[dict[str, Any]]] = {}
        for entry in told["annotations"]:
            boxes.setdefault(int(entry["image_id"]), []).append(entry)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            "The file is no COCO JSON.",
            where=str(path),
            value=f"{type(error).__name__}: {error}",
            repair="it needs images (id, file_name), categories (id, name), annotations (image_id, bbox)",
        ) from error
    known = {number for number, _, _ in pictures}
    if strangers := sorted(set(boxes) - known):
        raise DataError(
            "Annotations name pictures that the file does not list.",
            where=str(path),
            value=f"image_id {strangers[:5]}",
            repair="add them to images, or remove these annotations",
        )
    roots = [path.parent, path.parent / "images", path.parent.parent / "images", path.parent.parent]
    for number, name, entry in pictures:
        yield _coco_picture(entry, name, boxes.get(number, []), names, roots, path)


def _coco_picture(  # noqa: PLR0917 - private, one call
    entry: dict[str, Any],
    name: str,
    told: list[dict[str, Any]],
    names: dict[int, str],
    roots: list[Path],
    path: Path,
) -> Annotated:
    # `..` or an absolute name would read files that are none of the data set's.
    safe = not Path(name).is_absolute() and ".." not in Path(name).parts
    found = next((root / name for root in roots if safe and (root / name).is_file()), path.parent / name)
    problem = "" if safe else f"file_name {name!r} leaves the folder of the data"
    boxes, size = [], None
    try:
        size = read_size(entry.get("height"), entry.get("width"))
        for one in told:
            if one.get("iscrowd"):
                continue
            left, top, wide, tall = read_sides(one["bbox"])
            label = names.get(int(one["category_id"]), f"category {one['category_id']}")
            boxes.append(Box(label=label, sides=(left, top, left + wide, top + tall)))
    except (KeyError, TypeError, ValueError) as error:
        problem = problem or f"an annotation cannot be read: {type(error).__name__} {error}"
    return Annotated(id=name, path=found, boxes=boxes, where=f"{path}, {name}", size=size, problem=problem)


def read_yolo(label_file: Path, picture: Path, labels: list[str], root: Path) -> Annotated:
    """One YOLO file; an absent one means a picture without any box."""
    boxes, problem = [], ""
    try:
        text = label_file.read_text(encoding="utf-8") if label_file.exists() else ""
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                boxes.append(_parse_yolo(line.split(), labels, number))
    except (OSError, ValueError) as error:
        problem = f"not a readable YOLO file: {error}"
    name = picture.relative_to(root).as_posix()
    return Annotated(id=name, path=picture, boxes=boxes, where=str(label_file), shares=True, problem=problem)


def _parse_yolo(parts: list[str], labels: list[str], number: int) -> Box:
    if len(parts) != 5:
        raise ValueError(f"line {number} has {len(parts)} numbers, wanted 5 (class x y w h)")
    try:
        row = int(parts[0])
        x, y, wide, tall = read_sides(parts[1:])
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    label = labels[row] if 0 <= row < len(labels) else f"class {row}"
    return Box(label=label, sides=(x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2))


def _find_picture(folder: Path, stem: str) -> Path | None:
    """The picture of this name, whatever the case of its suffix."""
    tried = [folder / f"{stem}{form}" for suffix in sorted(SUFFIXES) for form in (suffix, suffix.upper())]
    return next((path for path in tried if path.is_file()), None)
