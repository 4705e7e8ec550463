"""Refusal of weights, blocks and resampled rows if the terms of a likelihood depend on other rows.

A weight multiplies a term, but not what the term takes from other rows (a mean, a lag, 1/n): the
weighted sum is then not the log-likelihood of the weighted rows. Rows are first *proved* to be
independent (``rowwise``). If that fails, terms are *tested*: the terms of some rows alone must
equal those among all rows, at the start and at a nearby point. Both results are stored with the
function.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Function, Loglik, Tree, ndarray
from jaxmle.likelihood.combinators import Pool, Weight
from jaxmle.likelihood.contract import data_length, need_terms, terms_of
from jaxmle.likelihood.discovery.row_axes import proof_of
from jaxmle.likelihood.structure import (
    core_of,
    has,
    parts_of,
    roots_of,
    substituted,
    term_shape,
)
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.compile import compiled, remembered

MAX_TRIED_ROWS = 512  # dependent rows are expected to show among this many
TOLERANCE = {  # of a term relative to 1 + |term|: rounding of a sum in another order
    np.dtype(np.float64): 1e-8,
    np.dtype(np.float32): 1e-3,
}
REMEDY = (
    "Write each term as a function of its own row, and pass what it needs from other "
    "rows (a mean, a lag, 1/n) as a column of the data"
)


class Change(NamedTuple):
    """A row whose term changes if other rows are left out or replaced."""

    row: int
    among: float
    alone: float


def check_rows_apart(
    what: str,
    loglik: Loglik,
    layout: Layout,
    base: Array,
    data: Tree,
    *,
    remedy: str = REMEDY,
    codes: Array | None = None,
) -> None:
    """Raise if the terms of a likelihood depend on other rows.

    Args:
        what: what needs independent rows: the subject of the message.
        loglik: a likelihood tree; for a pool, each part is checked.
        base: parameters (p,) for the test.
        data: arrays on the host.
        remedy: the last sentence of the message.
        codes: clusters (n,) within which rows may depend on each other.

    Raises:
        ValueError: it names the first row whose term changes and the operation that ends the proof.
    """
    points = points_beside(loglik, layout, base)
    _check(what, loglik, layout, points, data, remedy, codes)


def check_weighted(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> None:
    """Raise for weights on terms that depend on other rows."""
    if not has(loglik, Weight):
        return
    points = points_beside(loglik, layout, base)

    def walk(node: Tree, data: Tree) -> None:
        if isinstance(node, Weight):
            _check("a weighted likelihood", node, layout, points, data, REMEDY, None)
            return
        pooled = isinstance(node, Pool)
        for part, rows in zip(parts_of(node), data if pooled else (data,), strict=pooled):
            walk(part, rows)

    walk(loglik, data)


def check_blocks(loglik: Loglik, layout: Layout, base: Array, data: Tree, block_rows: int) -> None:
    """Raise for sums in blocks over terms that depend on other rows."""
    core = core_of(loglik)
    if isinstance(core, Pool):
        for member, part in zip(core.members, data, strict=True):
            check_blocks(member, layout, base, part, block_rows)
    elif (data_length(data) or 0) > block_rows:
        if not term_shape(core, layout, base, data):
            need_terms(jnp.zeros(()), "block_rows")
        points = points_beside(loglik, layout, base)
        _check("block_rows", core, layout, points, data, "Leave block_rows out", None)


def check_traced(
    loglik: Loglik, layout: Layout, base: Array, data: Tree, block_rows: int | None
) -> None:
    """Under a trace, raise for weights and blocks if terms are not proved to depend only on their
    own row, because there are no values for a test.
    """

    def walk(node: Tree, data: Tree) -> None:
        rows = None if isinstance(node, Pool) else data_length(data)
        if isinstance(node, Weight):
            _need_proof("a weighted likelihood", node, layout, base, data)
            return
        if not parts_of(node) and rows is not None and rows > (block_rows or rows):
            _need_proof("block_rows", node, layout, base, data)
        pooled = isinstance(node, Pool)
        for part, rows_of_part in zip(parts_of(node), data if pooled else (data,), strict=pooled):
            walk(part, rows_of_part)

    walk(loglik, data)


def _need_proof(what: str, loglik: Loglik, layout: Layout, base: Array, data: Tree) -> None:
    core = core_of(loglik)
    if not isinstance(core, Pool) and (
        data_length(data) is None or not term_shape(core, layout, base, data)
    ):
        return  # refused where terms are needed
    proof = proof_of(core, layout, base, data)
    if not proof.holds:
        raise ValueError(
            f"{what} needs terms that depend only on their own row. Under jit or vmap "
            "there are no values to test this, so the program must show it, and it does "
            f"not ({proof.obstacle}). {REMEDY}; or fit outside jit, where the terms are "
            "tested."
        )


def _check(
    what: str,
    loglik: Loglik,
    layout: Layout,
    points: list[ndarray],
    data: Tree,
    remedy: str,
    codes: Array | None,
) -> None:
    core = core_of(loglik)
    if isinstance(core, Pool):
        for member, part in zip(core.members, data, strict=True):
            _check(what, member, layout, points, part, remedy, None)
        return
    proof = proof_of(core, layout, points[0], data)
    change = None if proof.holds else _tried(core, layout, points, data, codes)
    if change is not None:
        raise ValueError(
            f"{what} needs terms that depend only on their own row, but the term of row "
            f"{change.row} is {change.among:.8g} among all rows and {change.alone:.8g} "
            f"when others are left out or replaced ({proof.obstacle}). {remedy}."
        )


def points_beside(loglik: Loglik, layout: Layout, base: Array) -> list[ndarray]:
    """The parameters (p,), and nearby parameters with all free entries changed: at a start of zero
    a term may not show its dependence.
    """
    x = np.asarray(base)
    step = np.where(roots_of(loglik, layout) >= 0, 0.1 * np.maximum(np.abs(x), 0.5), 0.0)
    return [x, np.asarray(substituted(loglik, layout, x + step.astype(x.dtype)))]


def _tried(
    core: Loglik, layout: Layout, points: list[ndarray], data: Tree, codes: Array | None
) -> Change | None:
    """The first row whose term changes; None if none does, or if no test is possible."""
    n = data_length(data)
    shapes = tuple((np.shape(leaf), str(leaf.dtype)) for leaf in jax.tree.leaves(data))
    units = None if codes is None else hash(np.asarray(codes).tobytes())
    key = ("rows tried", layout, jax.tree.structure(data), shapes, units)
    if n is None or n < 2 or not term_shape(core, layout, points[0], data):
        return None
    rows = np.arange(n) if codes is None else np.asarray(codes)
    return remembered(core, key, lambda _: _change(core, layout, points, data, rows))


def _change(
    core: Loglik, layout: Layout, points: list[ndarray], data: Tree, codes: ndarray
) -> Change | None:
    some = _sample(codes)
    kinds = np.random.default_rng(0).permutation(np.unique(codes[some]))
    half = len(kinds) // 2
    few = max(1, len(kinds) // 8)
    if not half:
        return None
    parts = [
        np.flatnonzero(np.isin(codes[some], part))
        for part in (kinds[:half], kinds[half:], kinds[:few])
    ]
    try:
        tried = _left_out(core, layout, points, data, some, parts)
    except (TypeError, ValueError, IndexError):  # it fails for another number of rows
        tried = _replaced(core, layout, points, data, parts[:2]) if len(some) == len(codes) else []
    for among, alone, places in tried:
        tolerance = TOLERANCE[np.dtype(points[0].dtype)] * (1 + np.abs(among))
        same = (among == alone) | (np.isnan(among) & np.isnan(alone))
        bad = np.flatnonzero(~same & ~(np.abs(alone - among) <= tolerance))
        if len(bad):
            return Change(int(some[places[bad[0]]]), float(among[bad[0]]), float(alone[bad[0]]))
    return None


def _sample(codes: ndarray) -> ndarray:
    """The rows of the test: all of them, or neighbouring rows and rows from all parts; whole
    clusters.
    """
    n = len(codes)
    if n <= MAX_TRIED_ROWS:
        return np.arange(n)
    if len(np.unique(codes)) == n:
        half = MAX_TRIED_ROWS // 2
        far = np.random.default_rng(1).choice(np.arange(half, n), half, replace=False)
        return np.concatenate([np.arange(half), np.sort(far)])
    kinds, counts = np.unique(codes, return_counts=True)
    most = max(2, int(np.searchsorted(np.cumsum(counts), MAX_TRIED_ROWS)))
    return np.flatnonzero(np.isin(codes, kinds[:most]))


Tried = list[tuple[ndarray, ndarray, ndarray]]  # terms among all rows, terms alone, their positions


def _left_out(
    core: Loglik,
    layout: Layout,
    points: list[ndarray],
    data: Tree,
    some: ndarray,
    parts: list[ndarray],
) -> Tried:
    """The terms of some of the rows, among all rows and alone."""

    def make(loglik: Loglik) -> Function:
        return lambda x, *sets: [terms_of(loglik, layout.unravel(x), rows) for rows in sets]

    sets = [_rows(data, some), *(_rows(data, some[part]) for part in parts)]
    piece = compiled(core, ("rows left out", layout), make)
    tried: Tried = []
    for x in points:
        among, *alone = map(np.asarray, piece(x, *sets))
        tried += [(among[part], terms, part) for part, terms in zip(parts, alone, strict=True)]
    return tried


def _replaced(
    core: Loglik, layout: Layout, points: list[ndarray], data: Tree, parts: list[ndarray]
) -> Tried:
    """The terms of each half of the rows, among all rows and with the other half permuted."""

    def make(loglik: Loglik) -> Function:
        return lambda x, rows: terms_of(loglik, layout.unravel(x), rows)

    piece = compiled(core, ("rows replaced", layout), make)
    tried = []
    for x in points:
        among = np.asarray(piece(x, data))
        for part, other in (parts, parts[::-1]):
            order = np.arange(len(among))
            order[other] = np.roll(other, 1)
            tried.append((among[part], np.asarray(piece(x, _rows(data, order)))[part], part))
    return tried


def _rows(data: Tree, places: ndarray) -> Tree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[places], data)
