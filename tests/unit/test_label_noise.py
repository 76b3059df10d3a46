"""Labels that the words of other records speak against."""

from __future__ import annotations

import random

from recaster.data.label_noise import find_likelier_labels
from recaster.data.synthetic import make_requests


def test_changed_labels_are_found_and_others_are_left() -> None:
    records = list({record.text: record for record in make_requests()}.values())
    texts, truth = [record.text or "" for record in records], [record.label or "" for record in records]
    labels, chosen = list(truth), random.Random(4)
    changed = set(chosen.sample(range(len(labels)), 20))
    for row in changed:
        labels[row] = chosen.choice(sorted(set(truth) - {truth[row]}))
    found = find_likelier_labels(texts, labels)
    candidates = {row for row, label in enumerate(found) if label}
    assert len(candidates & changed) >= 18 and len(candidates - changed) <= 4
    assert all(found[row] == truth[row] for row in candidates & changed)


def test_equal_texts_do_not_vouch_for_each_other() -> None:
    texts = [f"play song {number} please" for number in range(60)]
    texts += [f"rain falls on town {number}" for number in range(60)]
    labels = ["music"] * 60 + ["weather"] * 60
    texts += ["play song please"] * 3  # wrong three times over
    labels += ["weather"] * 3
    assert find_likelier_labels(texts, labels)[-3:] == ["music"] * 3


def test_of_few_records_or_one_label_nothing_is_said() -> None:
    assert find_likelier_labels(["a b", "c d"] * 20, ["x", "y"] * 20) == [""] * 40
    assert find_likelier_labels([f"word {n}" for n in range(90)], ["x"] * 90) == [""] * 90
    assert find_likelier_labels([f"word {n}" for n in range(90)], [str(n) for n in range(90)]) == [""] * 90
