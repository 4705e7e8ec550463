"""Starts for mixtures: rows assigned to components by k-means++ and a few steps of Lloyd's
algorithm.
"""

from __future__ import annotations

import numpy as np

from jaxmle._types import ndarray

# Starts are drawn from a random subset of at most this many rows: they need not be precise.
MAX_ROWS_FOR_STARTS = 10_000
LLOYD_STEPS = 5


def assignments(
    y: ndarray, k: int, number: int, rng: np.random.Generator
) -> list[tuple[ndarray, ndarray]]:
    """``number`` assignments of rows to k clusters: labels and the rows they belong to, all of y
    (n, d) or a random subset of 10 000.

    The first centre is a random row; each further one is drawn with probability in proportion to
    the squared distance to the nearest so far, in units of each column's standard deviation.
    Source: Arthur & Vassilvitskii (2007), SODA, 1027–1035.
    """
    rows = (
        y
        if len(y) <= MAX_ROWS_FOR_STARTS
        else y[rng.choice(len(y), MAX_ROWS_FOR_STARTS, replace=False)]
    )
    spread = rows.std(axis=0)
    z = (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return [(_lloyd(z, _seeds(z, k, rng)), rows) for _ in range(number)]


def _distances(z: ndarray, centres: ndarray) -> ndarray:
    """Squared distances (n, k)."""
    return np.stack([np.sum((z - centre) ** 2, axis=1) for centre in centres], axis=1)


def _seeds(z: ndarray, k: int, rng: np.random.Generator) -> ndarray:
    chosen = [int(rng.integers(len(z)))]
    nearest = np.sum((z - z[chosen[0]]) ** 2, axis=1)
    for _ in range(k - 1):
        total = nearest.sum()
        row = int(rng.choice(len(z), p=nearest / total)) if total > 0 else int(rng.integers(len(z)))
        chosen.append(row)
        nearest = np.minimum(nearest, np.sum((z - z[row]) ** 2, axis=1))
    return z[chosen]


def _lloyd(z: ndarray, centres: ndarray) -> ndarray:
    """Labels (n,) after a few steps; a centre that lost its rows is given the row farthest from
    its own.
    """
    for _ in range(LLOYD_STEPS):
        distances = _distances(z, centres)
        labels = _filled(distances)
        centres = np.stack([z[labels == j].mean(axis=0) for j in range(len(centres))])
    return _filled(_distances(z, centres))


def _filled(distances: ndarray) -> ndarray:
    labels = np.argmin(distances, axis=1)
    for j in range(distances.shape[1]):
        if not np.any(labels == j):
            counts = np.bincount(labels, minlength=distances.shape[1])
            to_centre = distances[np.arange(len(labels)), labels]
            labels[np.argmax(np.where(counts[labels] > 1, to_centre, -1.0))] = j
    return labels
