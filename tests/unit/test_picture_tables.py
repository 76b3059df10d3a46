"""Pictures in Parquet files and in CIFAR's archives: good rows, broken rows, and files that are neither."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from recaster.core.errors import DataError
from recaster.core.settings import find_settings
from recaster.data.image_sources import read_images
from recaster.data.packed import write_packed
from recaster.data.records import RawRecord
from recaster.data.sources import hash_source, read_records
from recaster.recipe.data import DataSection, ImageShape, Subset

_SHAPE = ImageShape(height=32, width=32, channels=3, minimum=0.0, maximum=255.0)
_PICTURES = np.random.default_rng(5).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _read(path: Path, **options: Any) -> list[RawRecord]:
    found = read_images(path, _SHAPE, options.pop("subset", None), **options)
    assert found is not None
    return list(found)


def _write_hub_table(path: Path, *, names: list[str] | None) -> Path:
    contents = [*(_png(one) for one in _PICTURES[:3]), b"\x89PNG cut", None]
    table = pa.table(
        {
            "image": pa.array([{"bytes": content, "path": None} for content in contents]),
            "label": pa.array([1, 0, 1, 0, 7], pa.int64()),
        }
    )
    told = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}} if names else {}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), path)
    return path


def test_a_table_of_a_hub_is_read(tmp_path: Path) -> None:
    path = _write_hub_table(tmp_path / "train-00000-of-00001.parquet", names=["cat", "dog"])
    records = _read(path)
    assert [record.label for record in records] == ["dog", "cat", "dog", "cat", None]  # there is no class 7
    assert [record.id for record in records[:2]] == [f"{path.stem}:000000", f"{path.stem}:000001"]
    for record, pixels in zip(records[:3], _PICTURES, strict=False):
        assert record.pixels is not None and (record.pixels == pixels).all() and not record.problem
    assert records[3].pixels is None and records[3].problem
    assert "no bytes of a picture" in records[4].problem and records[4].where == f"{path}, row 4"
    plain = _read(_write_hub_table(tmp_path / "plain.parquet", names=None))
    assert [record.label for record in plain] == ["1", "0", "1", "0", "7"]
    assert len(_read(path, subset=Subset(per_label=1, seed=1))) == 3  # one of each, and one without a label


@pytest.mark.parametrize("listed", [True, False])
def test_rows_of_a_hub_may_have_several_labels(tmp_path: Path, *, listed: bool) -> None:
    named = {"names": ["cat", "dog", "frog"], "_type": "ClassLabel"}
    told = {"info": {"features": {"labels": [named] if listed else {"feature": named, "_type": "List"}}}}
    files = [{"bytes": _png(one), "path": None} for one in _PICTURES[:3]]
    table = pa.table({"image": files, "labels": [[0, 2], [], [1, 9]]})
    path = tmp_path / "several.parquet"
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), path)
    assert [record.label for record in _read(path)] == ["cat|frog", "", None]


def test_a_table_may_name_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png(_PICTURES[0]))
    listed = {
        "path": ["a.png", "b.png", "../a.png"],
        "label": ["cat", "dog", "cat"],
        "group": ["x", None, "y"],
    }
    pq.write_table(pa.table(listed), tmp_path / "list.parquet")
    good, missing, outside = _read(tmp_path / "list.parquet")
    assert good.pixels is not None and (good.pixels == _PICTURES[0]).all()
    assert (good.id, good.label, good.group) == ("a.png", "cat", "x")
    assert missing.problem and "row 1: b.png" in missing.where
    assert "does not stay beside" in outside.problem
    data = DataSection(source="list.parquet", licence="MIT", labels=["cat", "dog"], image=_SHAPE)
    settings = replace(find_settings(tmp_path), project=tmp_path)
    before = hash_source(data, settings)
    (tmp_path / "a.png").write_bytes(_png(_PICTURES[1]))  # the table is the same, what it names is not
    assert hash_source(data, settings) != before


def test_a_packed_snapshot_is_a_source_again(tmp_path: Path) -> None:
    given = [
        RawRecord(id="a", label="cat", where="x, 1", pixels=_PICTURES[0], group="sunny"),
        RawRecord(id="test/b", label="dog", where="x, 2", pixels=_PICTURES[1], split="test"),
        RawRecord(id="c", label="dog", where="x, 3", problem="cut off"),
    ]
    write_packed(given, tmp_path)
    found = _read(tmp_path / "records.parquet")
    for one, other in zip(found, given, strict=True):
        assert (one.id, one.label, one.where, one.split, one.group, one.problem) == (
            (other.id, other.label, other.where, other.split, other.group, other.problem)
        )
        np.testing.assert_array_equal(one.pixels, other.pixels)  # type: ignore[arg-type]


def test_tables_without_pictures_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "texts.parquet")
    with pytest.raises(DataError, match="has no pictures"):
        _read(tmp_path / "texts.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read"):
        _read(tmp_path / "cut.parquet")


def _write_archive(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(f"cifar-batches-bin/{name}")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return path


def _rows(numbers: list[int], *, before: bytes = b"") -> bytes:
    return b"".join(before + bytes([n % 3]) + _PICTURES[n].transpose(2, 0, 1).tobytes() for n in numbers)


def _archive(folder: Path, **changed: bytes) -> Path:
    members = {
        "data_batch_1.bin": _rows([0, 1]),
        "data_batch_2.bin": _rows([2]),
        "readme.html": b"<p>",
        "test_batch.bin": _rows([3, 4]),
        "batches.meta.txt": b"cat\ndog\nfrog\n\n",
    }
    return _write_archive(folder / "cifar-10-binary.tar.gz", {**members, **changed})


def test_an_archive_s_parts_are_the_source_s(tmp_path: Path) -> None:
    _archive(tmp_path)
    data = DataSection.model_validate(
        {
            "source": "cifar-10-binary.tar.gz#parts=data_batch",
            "published_splits": {"test": "cifar-10-binary.tar.gz#parts=test_batch"},
            "licence": "MIT",
            "labels": ["cat", "dog", "frog"],
            "image": _SHAPE.model_dump(),
        }
    )
    settings = replace(find_settings(tmp_path), project=tmp_path)
    records = list(read_records(data, settings))
    assert [(record.id, record.label, record.split) for record in records] == [
        ("data_batch_1:00001", "cat", ""),
        ("data_batch_1:00002", "dog", ""),
        ("data_batch_2:00001", "frog", ""),
        ("test/test_batch:00001", "cat", "test"),
        ("test/test_batch:00002", "dog", "test"),
    ]
    for record, pixels in zip(records, _PICTURES, strict=False):
        assert record.pixels is not None and record.pixels.dtype == np.uint8
        assert (record.pixels == pixels).all()
    wrong = data.model_copy(update={"source": "cifar-10-binary.tar.gz#parts=data_batch,validation"})
    with pytest.raises(DataError, match=r"no such part.*\n?[\s\S]*data_batch_1, data_batch_2, test_batch"):
        list(read_records(wrong, settings))


def test_broken_pictures_of_an_archive_are_records(tmp_path: Path) -> None:
    strange = bytes([9]) + _rows([5])[1:]
    records = _read(
        _archive(tmp_path, **{"data_batch_2.bin": strange + _rows([1])[:700]}), parts=["data_batch_2"]
    )
    assert [record.problem for record in records] == ["label 9 of 3 names", "only 700 bytes are left for it"]
    assert [record.label for record in records] == [None, None]


def test_cifar_100_has_two_labels(tmp_path: Path) -> None:
    members = {
        "coarse_label_names.txt": b"animal\n",
        "fine_label_names.txt": b"cat\ndog\nfrog\n",
        "train.bin": _rows([1, 2], before=b"\x00"),
    }
    records = _read(_write_archive(tmp_path / "cifar-100-binary.tar.gz", members), parts=["train"])
    assert [record.label for record in records] == ["dog", "frog"]
    assert records[1].pixels is not None and (records[1].pixels == _PICTURES[2]).all()


@pytest.mark.parametrize("content", [b"no archive", b"\x1f\x8b\x08 cut", b""])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        _read(path)


def test_other_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not one of pictures that is known"):
        _read(_write_archive(tmp_path / "other.tgz", {"a.png": _png(_PICTURES[0])}))


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = _archive(tmp_path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match="cannot be read"):
        _read(path)
