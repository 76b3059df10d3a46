"""Pictures as people have them: in folders and zips, odd ones and bad ones, in 8 bits all the way."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recaster.core.errors import DataError
from recaster.core.settings import find_settings
from recaster.data.image_sources import read_digits, read_images
from recaster.data.packed import read_accepted, write_packed
from recaster.data.records import RawRecord
from recaster.data.shards import Shard, read_shard, stack_pictures, write_shard
from recaster.data.sources import read_records
from recaster.recipe.data import DataSection, ImageShape, Subset

SHAPE = ImageShape(height=8, width=6, channels=3, minimum=0.0, maximum=255.0)
_ORIENTATION = 0x0112


def _picture(mode: str = "RGB", size: tuple[int, int] = (6, 8)) -> Image.Image:
    down, right = np.mgrid[: size[1], : size[0]]
    pixels = np.stack([20 * down + 60, 30 * right + 50, 10 * down + 5 * right + 80], 2).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _bytes(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def _read(folder: Path, image: ImageShape = SHAPE, subset: Subset | None = None) -> dict[str, RawRecord]:
    found = read_images(folder, image, subset)
    assert found is not None
    return {str(record.id): record for record in found}


def _read_one(folder: Path, content: bytes, image: ImageShape = SHAPE) -> RawRecord:
    (folder / "a").mkdir(exist_ok=True)
    (folder / "a" / "one.png").write_bytes(content)
    return _read(folder, image)["a/one.png"]


def _png_header(width: int, height: int) -> bytes:
    """What a bomb begins with: little data, said to be so many pixels."""
    parts = (
        b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT" + zlib.compress(bytes(99)),
    )
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "cannot identify"),
        (b"these are words", "cannot identify"),
        (_bytes(_picture(size=(200, 100)), "JPEG")[:-500], "truncated"),
        (_png_header(60_000, 60_000), "decompression bomb"),
        (_png_header(12_000, 12_000), "decompression bomb"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 8\n", "cannot identify"),
        (
            _bytes(_picture("L"), "GIF", save_all=True, append_images=[_picture("1")] * 3),
            "animation of 2 frames",
        ),
        (_bytes(Image.fromarray(np.full((8, 6), 40_000, dtype=np.uint16))), "more than 8 bits"),
    ],
    ids=["empty", "text", "truncated", "large bomb", "bomb", "postscript", "animated", "16 bits"],
)
def test_bad_files_are_records_with_a_problem(tmp_path: Path, content: bytes, problem: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        record = _read_one(tmp_path, content)
    assert record.pixels is None and problem in record.problem
    assert record.where.endswith("one.png")


def test_odd_files_become_what_the_set_has(tmp_path: Path) -> None:
    plain = np.asarray(_picture())
    jpeg_by_another_name = _read_one(tmp_path, _bytes(_picture(), "JPEG", quality=100))
    assert np.abs(jpeg_by_another_name.pixels.astype(int) - plain).mean() < 4
    grey = _read_one(tmp_path, _bytes(_picture("L"))).pixels
    assert grey.shape == (8, 6, 3) and (grey == grey[:, :, :1]).all()
    assert _read_one(tmp_path, _bytes(_picture("CMYK"), "JPEG")).pixels.shape == (8, 6, 3)
    assert (_read_one(tmp_path, _bytes(_picture("RGBA"))).pixels == plain).all()
    exif = Image.Exif()
    exif[_ORIENTATION] = 6  # the camera was held upright: rows are columns
    turned = _read_one(tmp_path, _bytes(_picture().transpose(Image.Transpose.ROTATE_90), exif=exif))
    assert (turned.pixels == plain).all()
    # Colour in a set of grey pictures stays, for the contract to refuse.
    one_channel = SHAPE.model_copy(update={"channels": 1})
    assert _read_one(tmp_path, _bytes(_picture()), one_channel).pixels.shape == (8, 6, 3)
    assert _read_one(tmp_path, _bytes(_picture("L")), one_channel).pixels.shape == (8, 6, 1)


def test_sixteen_bits_stay_where_the_recipe_has_room(tmp_path: Path) -> None:
    deep = np.arange(48, dtype=np.uint16).reshape(8, 6) * 1000
    wide = SHAPE.model_copy(update={"channels": 1, "maximum": 65535.0})
    record = _read_one(tmp_path, _bytes(Image.fromarray(deep)), wide)
    assert (record.pixels[:, :, 0] == deep).all()


def test_other_sizes_are_fitted_only_when_told(tmp_path: Path) -> None:
    wide = Image.new("RGB", (60, 20), (200, 100, 50))
    assert _read_one(tmp_path, _bytes(wide)).pixels.shape == (20, 60, 3)
    for resize in ("stretch", "crop", "pad"):
        image = ImageShape(**{**SHAPE.model_dump(), "resize": resize})
        pixels = _read_one(tmp_path, _bytes(wide), image).pixels
        assert pixels.shape == (8, 6, 3)
        assert (pixels[0].max() == 0) == (resize == "pad"), resize
        assert (pixels[4] == (200, 100, 50)).all()


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_no_bytes_end_the_reading(tmp_path_factory: pytest.TempPathFactory, place: int, noise: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "noisy"
    folder.mkdir(exist_ok=True)
    content = bytearray(_bytes(_picture(), "JPEG" if place % 2 else "PNG"))
    place %= len(content)
    content[place : place + len(noise)] = noise
    record = _read_one(folder, bytes(content))
    assert (record.pixels is None) == bool(record.problem)


def _zip(path: Path, files: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_zip_is_read_as_its_folder_is(tmp_path: Path) -> None:
    names = ["cat/1.png", "cat/2.png", "dog/1.png"]
    for name in names:
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(_bytes(_picture()))
    wrapped = {f"pets/{name}": _bytes(_picture()) for name in reversed(names)}
    junk = {"__MACOSX/pets/cat/._1.png": b"", "pets/notes.txt": b"x"}
    from_folder = _read(tmp_path / "plain")
    from_zip = _read(_zip(tmp_path / "pets.zip", {**wrapped, **junk}))
    assert list(from_folder) == list(from_zip) == names
    for name in names:
        assert from_folder[name].label == from_zip[name].label == name[:3]
        assert (from_folder[name].pixels == from_zip[name].pixels).all()


@pytest.mark.parametrize("name", ["../cat/1.png", "/cat/1.png", "cat\\..\\..\\1.png", "C:/cat/1.png"])
def test_a_zip_with_paths_that_leave_it_is_refused(tmp_path: Path, name: str) -> None:
    path = _zip(tmp_path / "bad.zip", {"cat/2.png": _bytes(_picture()), name: _bytes(_picture())})
    with pytest.raises(DataError, match="leaves its folder"):
        _read(path)


def test_a_zip_bomb_is_refused_and_a_large_entry_quarantined(tmp_path: Path) -> None:
    bomb = {f"cat/{number}.png": bytes(30 << 20) for number in range(4)}
    with pytest.raises(DataError, match="bomb"):
        _read(_zip(tmp_path / "bomb.zip", bomb, compression=zipfile.ZIP_DEFLATED))
    large = {"cat/1.png": bytes(65 << 20), "cat/2.png": _bytes(_picture())}
    found = _read(_zip(tmp_path / "large.zip", large))
    assert "more than" in found["cat/1.png"].problem and found["cat/2.png"].pixels is not None


def test_damage_in_a_zip_is_named(tmp_path: Path) -> None:
    path = _zip(tmp_path / "one.zip", {"cat/1.png": _bytes(_picture()), "cat/2.png": _bytes(_picture())})
    content = bytearray(path.read_bytes())
    content[80] ^= 255
    path.write_bytes(bytes(content))
    found = _read(path)
    assert "damaged in the zip" in found["cat/1.png"].problem and not found["cat/2.png"].problem
    path.write_bytes(bytes(content[:-30]))
    with pytest.raises(DataError, match="cannot be opened"):
        _read(path)


def test_a_subset_is_seeded_and_mostly_stays_when_data_grows(tmp_path: Path) -> None:
    def write(count: int) -> Path:
        files = {
            f"{label}/{number:03d}.png": _bytes(_picture("L")) for label in "ab" for number in range(count)
        }
        return _zip(tmp_path / f"{count}.zip", files)

    few = _read(write(40), subset=Subset(per_label=10, seed=1))
    assert sorted(record.label or "" for record in few.values()) == ["a"] * 10 + ["b"] * 10
    assert list(few) == list(_read(write(40), subset=Subset(per_label=10, seed=1)))
    assert list(few) != list(_read(write(40), subset=Subset(per_label=10, seed=2)))
    more = _read(write(44), subset=Subset(per_label=10, seed=1))
    assert len(set(few) & set(more)) >= 14
    assert len(_read(write(4), subset=Subset(per_label=10, seed=1))) == 8


def test_a_subset_of_any_kind_of_source(tmp_path: Path) -> None:
    section = {
        "source": "builtin:synthetic-requests",
        "licence": "-",
        "labels": ["weather", "alarm"],
        "text": {"max_tokens": 8},
        "subset": {"per_label": 3, "seed": 0},
    }
    records = list(read_records(DataSection.model_validate(section), find_settings(tmp_path)))
    assert len(records) == 12 and len({record.id for record in records}) == 12


def test_eight_bits_survive_packing_and_shards(tmp_path: Path) -> None:
    """What a model sees of the digits is bit for bit what it saw when they were kept as float32."""
    records = list(read_digits())
    write_packed(records, tmp_path)
    packed = [record.pixels for record in read_accepted(tmp_path, np.arange(len(records)))]
    assert {pixels.dtype for pixels in packed} == {np.dtype(np.uint8)}
    shape = ImageShape(height=8, width=8, channels=1, minimum=0.0, maximum=16.0)
    images, minimum, maximum = stack_pictures(packed, shape)
    labels = np.zeros(len(images), dtype=np.int64)
    write_shard(
        tmp_path,
        "train",
        Shard(images=images, labels=labels, ids=["x"] * len(images), minimum=minimum, maximum=maximum),
    )
    raw = np.stack([record.pixels for record in records]).transpose(0, 3, 1, 2)
    wanted = ((raw - shape.minimum) / (shape.maximum - shape.minimum)).astype(np.float32)
    np.testing.assert_array_equal(read_shard(tmp_path, "train").scaled(slice(None)), wanted)


def test_pixels_that_eight_bits_do_not_hold_stay(tmp_path: Path) -> None:
    odd = [np.full((2, 2, 1), value, dtype=np.float32) for value in (0.5, -1.0, 256.0, np.nan, 255.0)]
    records = [RawRecord(id=str(row), label="a", where="", pixels=pixels) for row, pixels in enumerate(odd)]
    write_packed(records, tmp_path)
    back = [record.pixels for record in read_accepted(tmp_path, np.arange(5))]
    assert [pixels.dtype.name for pixels in back] == ["float32"] * 4 + ["uint8"]
    for pixels, wanted in zip(back, odd, strict=True):
        np.testing.assert_array_equal(pixels, wanted)
