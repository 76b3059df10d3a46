"""Texts as they come: what is odd but right is kept, what is broken goes to quarantine with its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from recaster import pipeline
from recaster.core.errors import ContractError, DataError
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.data.tokenizers import open_tokenizer
from tests.integration.open_models import write_model, write_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
_GOOD = [("weather", f"will it rain tomorrow at {hour} o'clock") for hour in range(60)] + [
    ("music", f"play song number {number} again") for number in range(60)
]


def _cast(project: Path, source: str, *overrides: str) -> pipeline.Cast:
    settings = [f"data.source={source}", "data.labels=['weather','music']", *overrides]
    return pipeline.open_cast(project / "recipes" / "text-classification" / "tiny.yaml", settings)


def _quarantine(cast: pipeline.Cast) -> list[dict[str, object]]:
    found = pipeline.run_to(cast, "validate", SilentReporter())
    return [json.loads(line) for line in (found.path / "quarantine.jsonl").read_text().splitlines()]


def test_broken_lines_are_named_and_odd_ones_are_kept(project: Path) -> None:
    lines = [f"{label} {text}".encode() for label, text in _GOOD]
    odd = ["weather هل ستمطر غدا في القاهرة", "music 🎵🎶 play 🎸", "music " + "la " * 20_000]
    broken = [b"weather na\xefve guesses of rain", b"music nul\x00byte", b"sport who won the game", b"music"]
    data = b"\xef\xbb\xbf" + b"\n".join([*lines, b"", *(text.encode() for text in odd), *broken]) + b"\r\n"
    (project / "texts.txt").write_bytes(data)
    found = _quarantine(_cast(project, "texts.txt", "contract.max_quarantined_fraction=0.1"))
    told = {
        str(entry["id"]).split(":")[1]: " ".join(entry["reasons"]) + str(entry["problem"]) for entry in found
    }
    first = len(lines) + 2 + len(odd)
    assert set(told) == {str(number) for number in range(first, first + 4)}, told
    for number, word in zip(range(first, first + 4), ("UTF-8", "NUL", "label", "blank"), strict=True):
        assert word in told[str(number)]


def test_too_many_broken_ones_refuse_the_set(project: Path) -> None:
    rows = [*_GOOD, *[("music", "   ")] * 10]
    (project / "texts.jsonl").write_text("".join(json.dumps({"label": a, "text": b}) + "\n" for a, b in rows))
    with pytest.raises(ContractError, match=r"(?s)10 of 130 records .*line 121"):
        _quarantine(_cast(project, "texts.jsonl"))


def test_tables_keep_quotes_and_line_breaks(project: Path) -> None:
    head = 'id,label,text\n1,music,"play ""one"", then\ntwo"\n'
    rest = "".join(f"{n},{label},{text}\n" for n, (label, text) in enumerate(_GOOD, start=2))
    with gzip.open(project / "texts.csv.gz", "wt") as file:
        file.write(head + rest + "200,weather\n")
    cast = _cast(project, "texts.csv.gz", "contract.max_quarantined_fraction=0.1")
    (refused,) = _quarantine(cast)
    assert "columns" in str(refused["problem"])
    (project / "bare.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match="column text"):
        _quarantine(_cast(project, "bare.tsv"))


def test_truncation_and_copies_are_counted(project: Path) -> None:
    rows = [*_GOOD, ("music", "play " + "very " * 100 + "loud"), ("music", "Play song number 5, again!")]
    (project / "texts.jsonl").write_text("".join(json.dumps({"label": a, "text": b}) + "\n" for a, b in rows))
    (project / "test.jsonl").write_text(
        json.dumps({"label": "music", "text": "PLAY song number 7 again"}) + "\n"
    )
    recipe = project / "recipes" / "text-classification" / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("  test: 0.2\n", ""))
    cast = _cast(project, "texts.jsonl", "data.published_splits.test=test.jsonl")
    prepared = pipeline.run_to(cast, "prepare", SilentReporter())
    facts = read_json(prepared.path / "splits.json")
    assert facts["rows"]["test"] == 1 and facts["left_out"] == 1 and facts["duplicates"] == 2
    assert sum(facts["rows"].values()) == len(rows)
    cut = sum(facts["truncated"][name] * facts["rows"][name] for name in facts["rows"])
    assert cut == pytest.approx(1)
    tokenizer = open_tokenizer(prepared.path / "tokenizer")
    long = tokenizer.encode("play " + "very " * 100)
    assert len(long) > 32 and tokenizer.truncate(long, 32)[-1] == long[-1]
    assert np.load(prepared.path / "train.offsets.npy")[-1] == len(
        np.load(prepared.path / "train.tokens.npy")
    )


def test_a_label_that_words_speak_against_is_flagged(project: Path) -> None:
    rows = [*_GOOD, ("music", "will it rain tomorrow at night")]
    (project / "texts.jsonl").write_text("".join(json.dumps({"label": a, "text": b}) + "\n" for a, b in rows))
    found = pipeline.run_to(_cast(project, "texts.jsonl"), "validate", SilentReporter())
    (flagged,) = [json.loads(line) for line in (found.path / "flagged.jsonl").read_text().splitlines()]
    assert flagged["likelier_label"] == "weather" and "line 121" in flagged["where"]
    assert (
        found.facts["accepted"] == len(rows)
        and "words speak against | 1 |" in (found.path / "report.md").read_text()
    )


def test_a_line_of_a_megabyte_is_named(project: Path) -> None:
    long = "music " + "la " * 350_000
    (project / "texts.txt").write_text("\n".join([*(f"{a} {b}" for a, b in _GOOD), long]))
    cast = _cast(project, "texts.txt", "contract.max_quarantined_fraction=0.1")
    assert [found["reasons"] for found in _quarantine(cast)] == [["is longer than 100000 characters"]]


def test_a_tokenizer_that_knows_none_of_the_texts_is_refused(project: Path) -> None:
    write_tokenizer(write_model(project / "base"))
    rows = [(label, "дождь завтра " + str(number)) for number, (label, _) in enumerate(_GOOD)]
    (project / "texts.txt").write_text("\n".join(f"{a} {b}" for a, b in rows))
    cast = _cast(
        project, "texts.txt", "model={base: 'path:base', licence: MIT}", "accept_licences=[MIT, Apache-2.0]"
    )
    with pytest.raises(DataError, match="does not know these texts"):
        pipeline.run_to(cast, "prepare", SilentReporter())
