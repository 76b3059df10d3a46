"""Straight lines through what was measured: memory and time grow with the rows of a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def fit_growth(points: Iterable[tuple[int, float]]) -> Callable[[float], float]:
    """The value at any number of rows, on the line through the two points with most of them.

    It never falls with the rows.

    Args:
        points: rows and value, two of different rows at least.
    """
    (rows, value), (last_rows, last) = sorted(points)[-2:]
    slope = max(0.0, (last - value) / (last_rows - rows))
    return lambda wanted: last + slope * (wanted - last_rows)


def largest_power(below: int, fits: Callable[[int], bool]) -> int:
    """The largest power of two under `below` that fits, 0 when not even one row does."""
    power = 1 << (below - 1).bit_length()
    while power >= below or (power and not fits(power)):
        power //= 2
    return power
