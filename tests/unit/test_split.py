"""The split: a partition, stratified, deterministic, with duplicates on one side."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recaster.data.split import SPLITS, divide_records, group_duplicates, group_texts, split_records
from recaster.recipe.data import SplitSection

SECTION = SplitSection(seed=3, validation=0.1, test=0.2)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=200),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_partition_keeps_groups_together(rows: list[tuple[int, int]], seed: int) -> None:
    labels = np.array([label for label, _ in rows])
    groups = np.array([group for _, group in rows])
    first = np.array([int(np.flatnonzero(groups == group)[0]) for group in groups])
    section = SECTION.model_copy(update={"seed": seed})
    splits = split_records(labels, first, section)
    assert sorted(np.concatenate([splits[name] for name in SPLITS]).tolist()) == list(range(len(rows)))
    side = {row: name for name in SPLITS for row in splits[name].tolist()}
    for group in set(first.tolist()):
        assert len({side[row] for row in np.flatnonzero(first == group).tolist()}) == 1
    again = split_records(labels, first, section)
    assert all((splits[name] == again[name]).all() for name in SPLITS)


def test_shares_are_met_for_each_label() -> None:
    labels = np.repeat(np.arange(4), [100, 200, 50, 1000])
    splits = split_records(labels, np.arange(len(labels)), SECTION)
    for label, count in enumerate([100, 200, 50, 1000]):
        assert abs((labels[splits["test"]] == label).sum() - 0.2 * count) <= 1
        assert abs((labels[splits["validation"]] == label).sum() - 0.1 * count) <= 1


def test_exact_and_near_duplicates_form_groups() -> None:
    random = np.random.default_rng(0)
    pictures = random.random((3000, 1, 8, 8)).astype(np.float32)
    pictures[2500] = pictures[3]
    pictures[2999] = pictures[3] + 0.01
    groups = group_duplicates(pictures, distance=0.05, span=1.0)
    assert groups[3] == groups[2500] == groups[2999] == 3
    assert len(set(groups.tolist())) == 2998


def test_published_splits_stay_and_their_copies_leave_training() -> None:
    texts = ["A film.", "another one", "a film", "b", "another  ONE!", "c", "d", "b"]
    published = ["", "", "test", "validation", "validation", "test", "", "test"]
    groups = group_texts(texts)
    assert groups.tolist() == [0, 1, 0, 3, 1, 5, 6, 3]
    labels = np.zeros(len(texts), dtype=np.int64)
    splits, left_out = divide_records(labels, groups, published, SplitSection(seed=1))
    assert {name: rows.tolist() for name, rows in splits.items()} == {
        "train": [6],
        "validation": [4],
        "test": [2, 5, 7],
    }
    assert left_out == 3


def test_rows_between_published_ones_are_dealt_out() -> None:
    labels = np.arange(60) % 3
    published = ["test" if row % 5 == 0 else "" for row in range(60)]
    section = SplitSection(seed=1, validation=0.25)
    splits, left_out = divide_records(labels, np.arange(60), published, section)
    assert left_out == 0 and splits["test"].tolist() == list(range(0, 60, 5))
    assert len(splits["validation"]) == 12
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(60))
