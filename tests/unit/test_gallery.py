"""A gallery finds people, and what is removed is nowhere in its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recaster.core.errors import DataError, RecipeError
from recaster.core.files import read_json, write_json
from recaster.serving.gallery import MANIFEST, Gallery, build_index, check, enrol, remove

_WIDTH = 32


def _vectors(seed: int, count: int = 3) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, _WIDTH))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def _fill(folder: Path, people: int = 20) -> None:
    for number in range(people):
        enrol(folder, f"person {number}", _vectors(number), model="m", threshold=0.6)


def _holds(folder: Path, content: bytes) -> bool:
    return any(content in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_it_finds_who_is_enrolled(tmp_path: Path) -> None:
    _fill(tmp_path)
    (matches,) = Gallery(tmp_path).search(_vectors(7)[1:2], people=3)
    assert matches[0].person == "person 7" and matches[0].accepted
    assert matches[0].score == pytest.approx(1.0, abs=1e-5)
    assert len({match.person for match in matches}) == 3 and not matches[1].accepted


def test_people_with_many_faces_take_one_place(tmp_path: Path) -> None:
    near = _vectors(0, 1) + 0.01 * _vectors(1, 40)
    enrol(tmp_path, "many", near / np.linalg.norm(near, axis=1, keepdims=True), model="m", threshold=0.6)
    enrol(tmp_path, "one", _vectors(2, 1), model="m", threshold=0.6)
    (matches,) = Gallery(tmp_path).search(_vectors(0, 1), people=2)
    assert [match.person for match in matches] == ["many", "one"]


def test_what_is_removed_is_nowhere(tmp_path: Path) -> None:
    _fill(tmp_path)
    gone = [row.tobytes() for row in _vectors(7)]
    assert all(_holds(tmp_path, content) for content in gone) and _holds(tmp_path, b"person 7")
    record = remove(tmp_path, "person 7")
    assert not any(_holds(tmp_path, content[:16]) for content in gone)
    assert not _holds(tmp_path, b"person 7") and not _holds(tmp_path, record["nonce"].encode())
    assert record["faces"] == 3 and Gallery(tmp_path).faces == 57
    proof = check(tmp_path, person="person 7", nonce=record["nonce"])
    assert proof["removed"] and not proof["enrolled"]
    assert not check(tmp_path, person="person 8", nonce=record["nonce"])["removed"]
    with pytest.raises(DataError, match="Nobody"):
        remove(tmp_path, "person 7")


def test_a_changed_record_is_found_out(tmp_path: Path) -> None:
    _fill(tmp_path, 4)
    remove(tmp_path, "person 1")
    remove(tmp_path, "person 2")
    manifest = read_json(tmp_path / MANIFEST)
    manifest["removals"][0]["faces"] = 99
    write_json(tmp_path / MANIFEST, manifest)
    with pytest.raises(DataError, match="was changed"):
        check(tmp_path)


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    _fill(tmp_path, 3)
    (block,) = (tmp_path / "blocks").iterdir()
    content = bytearray(block.read_bytes())
    content[-1] ^= 1
    block.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        check(tmp_path)


def test_a_removal_that_was_cut_off_ends_at_the_next_change(tmp_path: Path) -> None:
    _fill(tmp_path, 3)
    (block,) = (tmp_path / "blocks").iterdir()
    held = block.read_bytes()
    remove(tmp_path, "person 1")
    block.write_bytes(held)  # as if the process had ended between the manifest and the deletion
    with pytest.raises(DataError, match="cut off"):
        check(tmp_path)
    enrol(tmp_path, "person 9", _vectors(9), model="m", threshold=0.6)
    assert check(tmp_path)["faces"] == 9 and not _holds(tmp_path, _vectors(1)[0].tobytes())


def test_another_model_and_a_face_twice_are_refused(tmp_path: Path) -> None:
    _fill(tmp_path, 2)
    with pytest.raises(RecipeError, match="another model"):
        enrol(tmp_path, "x", _vectors(9), model="n", threshold=0.6)
    with pytest.raises(DataError, match="person 1"):
        enrol(tmp_path, "x", _vectors(1)[:1], model="m", threshold=0.6)
    with pytest.raises(RecipeError, match="no gallery"):
        Gallery(tmp_path / "nowhere")


def test_the_index_finds_the_same_and_goes_with_a_removal(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="faiss-cpu, an extra")
    enrol(tmp_path, "crowd", _vectors(99, 4000), model="m", threshold=0.6)
    _fill(tmp_path, 5)
    with pytest.raises(RecipeError, match="no index"):
        Gallery(tmp_path).search(_vectors(3), people=2, approximate=True)
    index = build_index(tmp_path)
    assert _holds(tmp_path, b"IwFl") and check(tmp_path)["indexed"]
    found = Gallery(tmp_path).search(_vectors(3), people=1, approximate=True)
    assert [matches[0].person for matches in found] == ["person 3"] * 3
    remove(tmp_path, "person 3")
    assert not index.exists() and not _holds(tmp_path, _vectors(3)[0].tobytes())
    check(tmp_path)
