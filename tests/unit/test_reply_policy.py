"""The policy around a chat model: what it reads of messages, and what may be read of its replies."""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from recaster.exporting.modeling_source import compose_source
from recaster.models import reply_policy
from recaster.models.folded_text import FoldedText, fold
from recaster.models.reply_policy import ReplyPolicy
from recaster.models.template_marks import Marks, count_marks
from recaster.recipe.policy import PolicySection

SYSTEM = [{"role": "system", "content": "You are the brief Clerk of a store."}]
MARKS = ["<|im_end|>", "<|im_start|>"]


def _policy(**rules: dict[str, Any]) -> ReplyPolicy:
    section = PolicySection.model_validate({"answer": "[NO]", **rules})
    return ReplyPolicy(section.model_dump(), MARKS)


def _read(policy: ReplyPolicy, reply: str, pieces: random.Random | None = None) -> tuple[str, list[str], str]:
    """What may be read of a reply that comes in pieces, the rules, and what the model was asked."""
    asked: list[str] = []

    def write(messages: list[dict[str, str]]) -> Generator[str, None, None]:
        asked.extend(message["content"] for message in messages)
        place = 0
        while place < len(reply):
            step = pieces.randint(1, 4) if pieces else len(reply)
            yield reply[place : place + step]
            place += step

    answer = policy.answer([*SYSTEM, {"role": "user", "content": "hi"}], write)
    return "".join(answer), answer.filtered, asked[-1]


def _user(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(contents)]


@pytest.mark.parametrize(
    ("reply", "shown", "rules"),
    [
        ("It is hot.", "It is hot.", []),
        ("Write to an@example.org. Bye.", "Write to [mail]. Bye.", ["personal_data"]),
        ("Pay 4111 1111 1111 1111 or call +49 171 1234567", "Pay [card] or call [phone]", ["personal_data"]),
        ("It is hot. Go to the Cafe\u0301 ro\u200byal now.", "It is hot. [NO]", ["blocked_terms"]),
        ("Cafes royal are many.", "Cafes royal are many.", []),
        ("买炸弹吧", "[NO]", ["blocked_terms"]),
        ("Number x1234y it is", "[NO]", ["blocked_patterns"]),
        ("Ok! I am: the BRIEF clerk, sir.", "Ok! [NO]", ["system_words"]),
        ("A brief clerk.", "A brief clerk.", []),
        ("an@example.org writes. The brief clerk.", "[mail] writes. [NO]", ["personal_data", "system_words"]),
        ("", "", []),
    ],
)
def test_what_may_be_read_of_a_reply(reply: str, shown: str, rules: list[str]) -> None:
    output = {
        "personal_data": "mask",
        "blocked_terms": ["Café royal", "炸弹"],
        "blocked_patterns": [r"x\d{3,5}y"],
        "system_words": 3,
    }
    names = [f"output.{rule}" for rule in rules]
    assert _read(_policy(output=output), reply)[:2] == (shown, names)


def test_a_reply_is_the_same_however_it_is_cut_in_pieces() -> None:
    """So that nothing is shown on the way that the whole reply would not show."""
    chosen = random.Random(1)
    parts = [
        *("It is hot. ", "to an@example.org ", "+49 171 1234567. ", "CAFE\u0301 ROYAL ", "cafe ", "royal. "),
        *(
            "the brief, ",
            "clerk. ",
            "\n",
            "。",
            "炸",
            "弹 ",
            "x12",
            "34y ",
            "4111 1111 1111 1111 ",
            "  ",
            "\u200b",
        ),
        *("1 2 3 4 5 6 7 8 9 10 11 12 13 ", "e.g. 3.14 ", "(12. 345678901) "),
    ]
    output = {"blocked_terms": ["Café royal", "炸弹"], "blocked_patterns": [r"x\d{3,5}y"], "system_words": 3}
    policies = [_policy(output={**output, "personal_data": kind}) for kind in ("pass", "mask", "refuse")]
    met: set[str] = set()
    for number in range(600):
        reply = "".join(chosen.choice(parts) for _ in range(chosen.randint(1, 14)))
        policy = policies[number % 3]
        whole = _read(policy, reply)
        assert _read(policy, reply, pieces=chosen) == whole, reply
        met |= set(whole[1])
    assert len(met) == 4


def test_sentences_are_shown_while_the_reply_is_written_and_no_more_is_wanted_after_a_hit() -> None:
    policy, written = _policy(output={"blocked_terms": ["bomb"]}), []

    def write(_: list[dict[str, str]]) -> Generator[str, None, None]:
        for word in re.findall(r"\S+", "One is here. Two is a bomb for you. Three. Four."):
            written.append(word)
            yield f"{word} "

    answer = policy.answer(_user("hi"), write)
    assert next(answer) == "One is here. " and len(written) < 7
    assert "".join(answer) == "[NO]" and written[-1] == "you."


def test_a_reply_that_nothing_is_watched_in_is_shown_as_it_is_written() -> None:
    watch = _policy(input={"personal_data": "mask"}).watch(SYSTEM)
    assert [watch.feed(piece) for piece in ("an@ex", "ample.org", ".")] == ["an@ex", "ample.org", "."]
    assert watch.finish() == "" and watch.filtered == []


def test_a_message_is_masked_escaped_or_refused() -> None:
    policy = _policy(
        input={
            "personal_data": "mask",
            "blocked_terms": ["bomb"],
            "blocked_patterns": [r"b\d{2}"],
            "max_characters": 40,
        }
    )
    found = policy.screen(_user("I am an@example.org<|im_end|>"))
    assert found.messages == _user("I am [mail]< |im_end|>") and not found.refused
    assert found.filtered == ["input.template_tokens", "input.personal_data"]
    for text, rule in (
        ("a BOMB", "blocked_terms"),
        ("b12", "blocked_patterns"),
        ("a" * 41, "max_characters"),
    ):
        found = policy.screen(_user("hi", "hello", text))
        assert found == ([], [f"input.{rule}"], True)
    assert (
        _policy(input={"template_tokens": "pass", "personal_data": "refuse"}).screen(_user("a@b.org")).refused
    )
    assert _policy(input={"template_tokens": "refuse"}).screen(_user("<|im_start|>")).refused
    assert not _policy(input={"template_tokens": "refuse"}).screen(_user("bombs <|nothing|>")).refused


def test_what_was_refused_does_not_come_in_with_the_next_message() -> None:
    policy = _policy(input={"blocked_terms": ["bomb"]})
    found = policy.screen([*SYSTEM, *_user("a bomb", "[NO]", "fine", "a bomb", "and now")])
    assert found.messages == [*SYSTEM, *_user("and now")] and found.filtered == ["input.blocked_terms"]


def test_marks_are_broken_up_until_none_is_left() -> None:
    marks = Marks(MARKS)
    for text in ("<|im_end|>", "<|im_<|im_end|>end|>", "a<|im_start|><|im_end|>b"):
        broken = marks.break_up(text)
        assert not marks.occur(broken) and broken.replace(" ", "") == text
    assert not Marks([]).occur("<|im_end|>")
    known = "<|im_end|> [INST] <</SYS>> <end_of_turn> </s> <｜User｜>"
    assert count_marks(known) == 6 and count_marks("a <b> c | d <|not a mark|> x[0]") == 0


def test_folded_letters_know_where_they_come_from() -> None:
    text = "Straße  ＣＡ\u200bFÉ e\u0301"
    assert fold(text) == "strasse cafe e"
    folded = FoldedText()
    for letter in text:
        folded.add(letter)
    assert folded.text == fold(text) and folded.place(folded.text.index("cafe")) == text.index("Ｃ")


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("(a+)+b", "without an upper bound"),
        ("a{0,40}a{0,40}a{0,40}b", "68921 ways"),
        ("(a|a){1,30}b", "ways over 31 characters"),
        ("^a", "without anchors"),
        (r"a(?=b)", "lookaround"),
        (r"(a)\1", "back references"),
        ("a{0,3}", "matches the empty text"),
        ("(", "no regular expression"),
    ],
)
def test_patterns_that_could_keep_a_server_busy_are_refused(pattern: str, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        PolicySection.model_validate({"answer": "no", "output": {"blocked_patterns": [pattern]}})


def test_a_policy_says_what_it_needs() -> None:
    with pytest.raises(ValidationError, match="give max_characters"):
        PolicySection.model_validate({"answer": "no", "input": {"blocked_patterns": ["secret.{0,80}code"]}})
    with pytest.raises(ValidationError, match="neither letter nor digit"):
        PolicySection.model_validate({"answer": "no", "input": {"blocked_terms": ["\u200b"]}})


def test_its_source_travels_and_needs_the_standard_library_alone(tmp_path: Path) -> None:
    path = tmp_path / "policy.py"
    path.write_text(compose_source(Path(reply_policy.__file__)), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("policy", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    section = PolicySection.model_validate({"answer": "[NO]", "output": {"blocked_terms": ["bomb"]}})
    assert _read(module.ReplyPolicy(section.model_dump(), MARKS), "A bomb.")[0] == "[NO]"
    bare = [sys.executable, "-I", "-S", str(path)]  # without site-packages
    assert subprocess.run(bare, capture_output=True, check=False).returncode == 0
