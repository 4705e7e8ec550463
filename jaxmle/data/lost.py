"""Groups of a table without a complete row: they stay in the result, with the reason why they have
no fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import jax
import numpy as np

from jaxmle._types import Array, Tree, ndarray
from jaxmle.data.table import Column
from jaxmle.record.fit import Fit
from jaxmle.solvers.status import Status

ALL_MISSING = "every row of this group has a missing value: there is nothing to fit."


def plain(values: ndarray) -> ndarray:
    """Labels as an array of numbers or of strings."""
    return np.array(values.tolist()) if values.dtype.kind == "O" else values


def lost_groups(
    columns: Mapping[str, Column], keys: list[str], rows: ndarray
) -> dict[str, ndarray]:
    """The keys of the groups without a complete row, in order; one value of each key for every such
    group.
    """
    known = np.ones(len(columns[keys[0]].values), dtype=bool)
    for name in keys:
        known &= ~columns[name].missing
    labels = list(zip(*(columns[name].values.tolist() for name in keys), strict=True))
    present = {labels[row] for row in rows}
    lost = sorted({labels[row] for row in np.flatnonzero(known)} - present)
    return {
        name: plain(np.array([label[i] for label in lost], dtype=columns[name].values.dtype))
        for i, name in enumerate(keys)
    }


def with_lost(
    keys: dict[str, ndarray], fits: Fit, n: ndarray, lost: dict[str, ndarray]
) -> tuple[dict[str, ndarray], Fit, ndarray]:
    """Keys, fits and rows of all groups, including the lost groups, NONFINITE and without rows, in
    order.
    """
    count = len(next(iter(lost.values()), ()))
    if not count:
        return keys, fits, n
    keys = {name: np.concatenate([values, lost[name]]) for name, values in keys.items()}
    order = np.lexsort(tuple(reversed(keys.values())))

    def joined(leaf: Array, empty: Tree) -> ndarray:
        blank = np.full((count, *leaf.shape[1:]), empty, leaf.dtype)
        return np.concatenate([leaf, blank])[order]

    whole = jax.tree.map(lambda leaf: joined(leaf, np.nan if leaf.dtype.kind == "f" else 0), fits)
    none = {name: joined(getattr(fits.witness, name), -1) for name in ("row", "term")}
    whole = replace(
        whole,
        n=joined(fits.n, 0),
        status=joined(np.asarray(fits.status), int(Status.NONFINITE)),
        witness=replace(whole.witness, **none),
    )
    return {name: values[order] for name, values in keys.items()}, whole, joined(n, 0)
