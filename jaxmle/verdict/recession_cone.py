"""The cone {d : Gd ≥ 0} along which a likelihood never falls: its span, its signs, and a
certificate in exact arithmetic.

By Moreau, v = d + r with d the projection of v on the cone and r = −G'λ, λ ≥ 0, on its polar; λ is
a non-negative least-squares problem. So −e_j projects to zero exactly when d_j ≥ 0 all over the
cone (Farkas), and if not its projection is a direction of the cone with d_j < 0.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from jaxmle._types import ndarray

# length of a projection that is rounding; those of small integer designs are above 1e-3
MIN_PROJECTION_LENGTH = 1e-7
# of a term's usual gradient: what is left of y − p far out is not a direction
GRADIENT_ROUNDING = 1e-10
ROUNDING_OF_DIRECTIONS = 1e-9  # rounding of gradients that are simple fractions of each other


class Cone(NamedTuple):
    """A cone of recession."""

    # (k,) inside it: strictly positive on every row that is not zero all over the cone; zeros if
    # the cone is {0}
    direction: ndarray
    # (k,) +1 or −1 where d_j keeps that sign all over the cone, 0 where it takes both or is zero
    signs: ndarray
    touched: ndarray  # (k,) d_j is not zero all over the cone
    strict: ndarray  # (m,) rows positive somewhere on the cone
    # (q, k) directions of the cone on which the signs rest: the one inside, and the farthest each
    # way along each coordinate
    rays: ndarray


def generators(
    gradients: ndarray, has_weight: ndarray, columns: ndarray
) -> tuple[ndarray, ndarray]:
    """Rows (m, k) from gradients (q, n, p) of the terms of positive weight in the entries
    ``columns``, and from which (q, n) they come.
    """
    rows = gradients[:, has_weight][..., columns]
    size = np.max(np.abs(rows), axis=-1, initial=0.0)  # (q, n)
    usual = np.where(
        np.isfinite(size[:1]), size[:1], 0.0
    )  # at the first point, which is not far out
    is_usable = np.isfinite(size) & (size > GRADIENT_ROUNDING * usual)
    return rows[is_usable], is_usable


def distinct(rows: ndarray) -> ndarray:
    """The rows without duplicates, up to rounding and length."""
    size = np.max(np.abs(rows), axis=1, initial=0.0)
    _, first = np.unique(
        np.round(rows[size > 0] / size[size > 0, None] / ROUNDING_OF_DIRECTIONS)
        * ROUNDING_OF_DIRECTIONS,
        axis=0,
        return_index=True,
    )
    return rows[size > 0][np.sort(first)]


def power_scale(rows: ndarray) -> ndarray:
    """Powers of two (k,) that bring the columns near one, so that scaling is exact."""
    top = np.max(np.abs(rows), axis=0, initial=0.0)
    return np.exp2(np.round(np.log2(np.where(top > 0, top, 1.0))))


def cone_of(rows: ndarray) -> Cone:
    """The cone of rows (m, k)."""
    k = rows.shape[1]
    # the length of a row says nothing, and one of e¹⁰⁰ would set the scale of its columns
    rows = rows / np.maximum(np.max(np.abs(rows), axis=1), np.finfo(float).tiny)[:, None]
    scale = power_scale(rows)
    g = rows / scale
    g = g / np.maximum(np.linalg.norm(g, axis=1), np.finfo(float).tiny)[:, None]
    ends = [(_project(g, e), _project(g, -e)) for e in np.eye(k)]
    up, down = (
        np.array([np.linalg.norm(pair[side]) > MIN_PROJECTION_LENGTH for pair in ends])
        for side in (0, 1)
    )
    direction, strict = _interior(g, np.sum([d for pair in ends for d in pair], axis=0))
    direction = np.where(np.abs(direction) > ROUNDING_OF_DIRECTIONS, direction, 0.0)
    far = [d for pair in ends for d in pair if np.linalg.norm(d) > MIN_PROJECTION_LENGTH]
    return Cone(
        direction / scale,
        np.where(up & ~down, 1, np.where(down & ~up, -1, 0)),
        up | down,
        strict,
        np.array([direction, *far]) / scale,
    )


def farthest(rows: ndarray, toward: ndarray) -> ndarray:
    """The directions (2q, k) of the cone of rows (m, k) that are nearest to each of ``toward`` (q,
    k) and to its opposite: if v'd takes both signs in the cone, it does so on these two.
    """
    scale = power_scale(rows)
    g = distinct(rows / scale)
    g = g / np.linalg.norm(g, axis=1)[:, None]
    both_signs = [sign * _unit(v) for v in toward / scale for sign in (1.0, -1.0)]
    edges = [_project(g, v) for v in both_signs]
    return np.array(edges).reshape(-1, rows.shape[1]) / scale


def _project(g: ndarray, v: ndarray) -> ndarray:
    """The projection of v (k,) on {d : gd ≥ 0}; where that fails another d of the cone with v'd
    > 0, or zeros if there is none.
    """
    from scipy.optimize import nnls

    try:
        d = v + g.T @ nnls(g.T, -v, maxiter=50 * sum(g.shape))[0]
    except RuntimeError:  # nnls ran out of steps
        return _farthest(g, v)
    if np.linalg.norm(d) <= MIN_PROJECTION_LENGTH:
        return np.zeros_like(v)  # v = −g'λ: proved by d itself
    # scipy's solver was seen to stop early on degenerate faces (multinomial samples, 4 of 60).
    return d if np.min(g @ d) >= -MIN_PROJECTION_LENGTH * np.linalg.norm(d) else _farthest(g, v)


def _farthest(g: ndarray, v: ndarray) -> ndarray:
    """``_project`` as a linear program: the largest v'd for gd ≥ 0 and |d_j| ≤ 1."""
    from scipy.optimize import linprog

    program = linprog(-v, A_ub=-g, b_ub=np.zeros(len(g)), bounds=(-1, 1), method="highs")
    return (
        program.x
        if program.status == 0 and v @ program.x > MIN_PROJECTION_LENGTH
        else np.zeros_like(v)
    )


def _interior(g: ndarray, d: ndarray) -> tuple[ndarray, ndarray]:
    """A direction that is positive on as many rows as possible, and which rows these are. Rows that
    are not yet positive are summed and projected until nothing is left.
    """
    d = _unit(d)
    for _ in range(g.shape[1] + 1):
        strict = g @ d > MIN_PROJECTION_LENGTH
        more = _project(g, np.mean(g[~strict], axis=0)) if not strict.all() else np.zeros_like(d)
        if not np.any(more):
            break
        d = _unit(d + _unit(more))
    return d, g @ d > MIN_PROJECTION_LENGTH


def _unit(d: ndarray) -> ndarray:
    """d scaled to length one; zeros if it is only rounding, such as the sum of two opposite
    directions.
    """
    length = np.linalg.norm(d)
    return d / length if length > MIN_PROJECTION_LENGTH else np.zeros_like(d)


# ---------------------------------------------------------------- exact arithmetic


def certified(rows: ndarray, d: ndarray) -> bool:
    """Whether, in exact rational arithmetic on the given floats, some direction near d (k,) is ≥ 0
    on all rows (m, k) and > 0 on some.

    d itself is tried; then the exact null space of the rows on which it is zero up to rounding.
    """
    scale = power_scale(rows)
    exact = [_whole(row) for row in (rows / scale).tolist()]
    if _rises(exact, _rational(d * scale)):
        return True
    length = np.linalg.norm(rows / scale, axis=1) * max(
        np.linalg.norm(d * scale), np.finfo(float).tiny
    )
    positive = rows @ d > MIN_PROJECTION_LENGTH * length
    if not np.any(positive):
        return False
    level = [
        [Fraction(value) for value in row]
        for row, strict in zip(exact, positive, strict=True)
        if not strict
    ]
    basis = null_space(level, rows.shape[1])
    if not basis:
        return False
    weights = np.linalg.lstsq(np.array(basis, dtype=float).T, d * scale, rcond=None)[0]
    whole = _rational(weights)
    return _rises(
        exact,
        [
            sum((w * b[j] for w, b in zip(whole, basis, strict=True)), Fraction(0))
            for j in range(rows.shape[1])
        ],
    )


def _rational(d: ndarray) -> list[Fraction]:
    """d (k,), its largest entry one, as fractions of small denominators."""
    return [
        Fraction(float(v)).limit_denominator(10**12)
        for v in d / max(np.max(np.abs(d)), np.finfo(float).tiny)
    ]


def _whole(row: list[float]) -> list[int]:
    """A positive multiple of a row of floats, exactly, in whole numbers: their arithmetic is
    many times faster than that of fractions.
    """
    ratios = [value.as_integer_ratio() for value in row]
    common = max(denominator for _, denominator in ratios)  # all are powers of two
    return [numerator * (common // denominator) for numerator, denominator in ratios]


def _rises(rows: list[list[int]], d: list[Fraction]) -> bool:
    """Whether row'd ≥ 0 on all rows and > 0 on some, exactly."""
    common = math.lcm(*(part.denominator for part in d))
    whole = [int(part * common) for part in d]
    products = [sum(a * b for a, b in zip(row, whole, strict=True)) for row in rows]
    return all(value >= 0 for value in products) and any(value > 0 for value in products)


def null_space(rows: list[list[Fraction]], k: int) -> list[list[Fraction]]:
    """A basis of {d : row'd = 0 for all rows}, by elimination."""
    pivots: dict[int, list[Fraction]] = {}
    for row in rows:
        rest = list(row)
        for column, held in pivots.items():
            if rest[column]:
                factor = rest[column]
                rest = [a - factor * b for a, b in zip(rest, held, strict=True)]
        lead = next((j for j in range(k) if rest[j]), None)
        if lead is None:
            continue
        rest = [a / rest[lead] for a in rest]
        for column, held in pivots.items():
            if held[lead]:
                factor = held[lead]
                pivots[column] = [a - factor * b for a, b in zip(held, rest, strict=True)]
        pivots[lead] = rest
        if len(pivots) == k:
            return []
    basis = []
    for free in (j for j in range(k) if j not in pivots):
        vector = [Fraction(int(j == free)) for j in range(k)]
        for column, held in pivots.items():
            vector[column] = -held[free]
        basis.append(vector)
    return basis
