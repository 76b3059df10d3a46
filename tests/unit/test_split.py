"""The split: a partition, stratified, deterministic, with duplicates on one side."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recaster.data.split import SPLITS, group_duplicates, split_records
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
    pictures = random.random((3000, 64)).astype(np.float32)
    pictures[2500] = pictures[3]
    pictures[2999] = pictures[3] + 0.01
    groups = group_duplicates(pictures, distance=0.05)
    assert groups[3] == groups[2500] == groups[2999] == 3
    assert len(set(groups.tolist())) == 2998
