"""A deterministic split in which no person is on two sides, and so no picture of one either."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recaster.core.errors import DataError
from recaster.core.seeds import derive_seed
from recaster.data.split import SPLITS
from recaster.recipe.data import SplitSection

_HELD = ("test", "validation")


def divide_identities(
    identities: Sequence[str],
    groups: NDArray[np.int64],
    published: Sequence[str],
    section: SplitSection,
) -> tuple[dict[str, NDArray[np.int64]], int]:
    """Deal whole people to the splits; two people who share a picture go together.

    Args:
        identities: whose picture each row is.
        groups: `(rows,)` group numbers of near-equal pictures.
        published: the split of each row as its authors made it, empty for those to deal out.

    Returns:
        Ascending row numbers of each split, and how many rows were left out because their person is in a
        published split: in the test split for those of validation, in either for the others.

    Raises:
        DataError: too few people for the splits, or a split without two people of whom one has two pictures.
    """
    people = _join_people(identities, groups)
    splits: dict[str, list[int]] = {name: [] for name in SPLITS}
    taken: set[int] = set()
    for name in _HELD:
        rows = [row for row, split in enumerate(published) if split == name and people[row] not in taken]
        splits[name] = rows
        taken |= {people[row] for row in rows}
    free = sorted({people[row] for row, split in enumerate(published) if not split} - taken)
    order = np.random.default_rng(derive_seed(section.seed, "identities")).permutation(len(free)).tolist()
    dealt = {free[position]: "train" for position in order}
    start = 0
    for name in _HELD:
        count = _count(section, name, len(free))
        dealt |= {free[position]: name for position in order[start : start + count]}
        start += count
    for row, split in enumerate(published):
        if not split and people[row] in dealt:
            splits[dealt[people[row]]].append(row)
    for name in SPLITS:
        _check(name, [identities[row] for row in splits[name]], len(set(identities)))
    found = {name: np.array(sorted(rows), dtype=np.int64) for name, rows in splits.items()}
    return found, len(identities) - sum(len(rows) for rows in found.values())


def _join_people(identities: Sequence[str], groups: NDArray[np.int64]) -> list[int]:
    """A number for each row's person, the same for people who share a picture."""
    first: dict[object, int] = {}
    parent = list(range(len(identities)))

    def root(row: int) -> int:
        while parent[row] != row:
            row = parent[row]
        return row

    for row, (name, group) in enumerate(zip(identities, groups.tolist(), strict=True)):
        for key in (("person", name), ("picture", group)):
            one, other = root(first.setdefault(key, row)), root(row)
            parent[max(one, other)] = min(one, other)
    return [root(row) for row in range(len(identities))]


def _count(section: SplitSection, name: str, people: int) -> int:
    wanted: int | None = getattr(section, f"{name}_identities")
    share: float | None = getattr(section, name)
    return wanted if wanted is not None else round((share or 0.0) * people)


def _check(name: str, identities: Sequence[str], people: int) -> None:
    different = set(identities)
    if len(different) >= 2 and len(identities) > len(different):
        return
    raise DataError(
        f"The {name} split has too few people to tell apart.",
        where="recipe key split",
        value=f"{len(different)} of {people} people with {len(identities)} pictures",
        repair="let it have two people at least, one of them with two pictures: add people to the data, or "
        f"change split.{name} or split.{name}_identities",
    )
