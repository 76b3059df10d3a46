"""How near generated pictures are to held-out ones, in the features of a named encoder.

A row of predictions is a generated picture, of targets a held-out one; the two of a row have nothing in
common but their class.

predictions  (rows, 3 + features)  row's number | copies a training picture | looks like real ones | features
targets      (rows, 1 + features)  something generated looks like it | features
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[np.float64]
_BLOCK_ROWS = 1000
"""Of the kernel distance, whose mean over blocks of this size is the custom (Binkowski et al. 2018)."""
_MIXED_BY = 1
"""Seed of the order in which rows make blocks."""
_NEIGHBOURS = 3
"""As Kynkaanniemi et al. 2019 have it."""


def arrange_generated(features: Rows, *, copied: NDArray[np.bool_], precise: NDArray[np.bool_]) -> Rows:
    """The rows of predictions."""
    return np.column_stack([np.arange(len(features)), copied, precise, features])


def arrange_real(features: Rows, *, recalled: NDArray[np.bool_]) -> Rows:
    """The rows of targets."""
    return np.column_stack([recalled, features])


def frechet_distance(predictions: Rows, targets: Rows) -> float:
    """Frechet distance of two Gaussians with the sets' means and covariances (Heusel et al. 2017).

    It is too large, the more the more features there are beside the pictures: compare only figures of as
    many pictures.
    """
    sets = [predictions[:, 3:], targets[:, 1:]]
    means, covariances = [part.mean(0) for part in sets], [np.cov(part, rowvar=False) for part in sets]
    first, second = (np.atleast_2d(covariance) for covariance in covariances)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ second @ root).clip(0)
    gap = np.square(means[0] - means[1]).sum()
    return float(gap + np.trace(first) + np.trace(second) - 2 * np.sqrt(product).sum())


def kernel_distance(predictions: Rows, targets: Rows) -> float:
    """Squared maximum mean discrepancy under the kernel (x y / features + 1) ** 3, without bias.

    Pairs of one row with itself are left out, also where a draw holds it twice. Blocks are of mixed rows:
    held-out pictures may be sorted by class.
    """
    order = np.random.default_rng(_MIXED_BY).permutation(len(targets))
    starts = range(0, max(1, len(targets) - _BLOCK_ROWS // 2), _BLOCK_ROWS)
    blocks = [order[start : start + _BLOCK_ROWS] for start in starts]
    return float(np.mean([_discrepancy(predictions[block], targets[block]) for block in blocks]))


def _discrepancy(predictions: Rows, targets: Rows) -> float:
    generated, real = predictions[:, 3:], targets[:, 1:]
    distinct = predictions[:, 0][:, None] != predictions[:, 0][None]  # rows of both are drawn together
    if not distinct.any():
        return float("nan")
    # Across too: the two of a row are of one class, and a draw that holds the row twice has four such pairs.
    within = [_kernel(part, part)[distinct].mean() for part in (generated, real)]
    return float(sum(within) - 2 * _kernel(generated, real)[distinct].mean())


def _kernel(first: Rows, second: Rows) -> Rows:
    powers: Rows = (first @ second.T / first.shape[1] + 1) ** 3
    return powers


def copied_fraction(predictions: Rows, targets: Rows) -> float:  # noqa: ARG001 - one shape for all metrics
    """Share of generated pictures that are near copies of a training picture."""
    return float(predictions[:, 1].mean())


def sample_precision(predictions: Rows, targets: Rows) -> float:  # noqa: ARG001
    """Share of generated pictures among the held-out ones' neighbours (Kynkaanniemi et al. 2019)."""
    return float(predictions[:, 2].mean())


def sample_recall(predictions: Rows, targets: Rows) -> float:  # noqa: ARG001
    """Share of held-out pictures among the generated ones' neighbours."""
    return float(targets[:, 0].mean())


GENERATION_METRICS: dict[str, Callable[[Rows, Rows], float]] = {
    "frechet_distance": frechet_distance,
    "kernel_distance": kernel_distance,
    "sample_precision": sample_precision,
    "sample_recall": sample_recall,
    "copied_fraction": copied_fraction,
}


def find_neighbours(
    generated: NDArray[np.float32], real: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which generated features lie in the real ones' manifold, and which real ones in the generated ones'.

    A set's manifold is all that is no farther from one of its members than that one's third nearest other.

    Args:
        generated: `(rows, features)`.
        real: `(other rows, features)`.
    """
    return _lie_within(generated, real), _lie_within(real, generated)


def _lie_within(asked: NDArray[np.float32], manifold: NDArray[np.float32]) -> NDArray[np.bool_]:
    members = torch.from_numpy(np.ascontiguousarray(manifold))
    near = min(_NEIGHBOURS, len(members) - 1)
    # The nearest of all is a member itself.
    radii = torch.cat([torch.cdist(part, members).kthvalue(near + 1).values for part in members.split(1000)])
    parts = torch.from_numpy(np.ascontiguousarray(asked)).split(1000)
    return torch.cat([(torch.cdist(part, members) <= radii).any(1) for part in parts]).numpy()


def nearest_pictures(
    asked: NDArray[np.float32], among: Callable[[slice], NDArray[np.float32]], count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The nearest of `count` pictures for each of `asked`: root mean square difference, and its number.

    Args:
        asked: `(rows, channels, height, width)` in 0..1.
        among: pictures of a slice of the `count`, likewise.
    """
    wanted = torch.from_numpy(asked).flatten(1)
    best = torch.full((len(asked),), torch.inf)
    place = torch.zeros(len(asked), dtype=torch.int64)
    for start in range(0, count, 2000):
        block = torch.from_numpy(among(slice(start, min(start + 2000, count)))).flatten(1)
        distance, number = torch.cdist(wanted, block).min(1)
        nearer = distance < best
        best, place = torch.where(nearer, distance, best), torch.where(nearer, number + start, place)
    return (best / wanted.shape[1] ** 0.5).double().numpy(), place.numpy()
