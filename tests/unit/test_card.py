"""The licence chain of a model card."""

from __future__ import annotations

from pathlib import Path

import pytest

from recaster.exporting.card import Origin, join_licences, read_licence


@pytest.mark.parametrize(
    ("licences", "wanted"),
    [
        (["MIT"], "MIT"),
        (["MIT", "MIT"], "MIT"),
        (["MIT AND Apache-2.0", "Apache-2.0", "MIT"], "MIT AND Apache-2.0"),
        (["MIT OR Apache-2.0", "CC0-1.0"], "(MIT OR Apache-2.0) AND CC0-1.0"),
        (["MIT OR Apache-2.0"], "MIT OR Apache-2.0"),
    ],
)
def test_licences_are_joined_each_once(licences: list[str], wanted: str) -> None:
    assert join_licences([Origin(what="data", name="x", licence=one) for one in licences]) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("---\nlicense: mit\n---\n# x\n", "mit"),
        ("---\nlicense: other\nlicence_chain: MIT AND CC0-1.0\n---\n", "MIT AND CC0-1.0"),
        ("---\ntags: [a]\n---\n", None),
        ("# a card without front matter\n", None),
    ],
)
def test_a_card_tells_its_licence(tmp_path: Path, text: str, wanted: str | None) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_licence(tmp_path / "README.md") == wanted
    assert read_licence(tmp_path / "none.md") is None
