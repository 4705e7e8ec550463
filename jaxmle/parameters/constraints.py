"""Constraints: smooth maps between the user's scale and the free scale on which the solver moves.

A constraint never enters the likelihood: no Jacobian term is added, so the maximum does not depend
on the map chosen. Each map acts on the *printed entries* of one leaf, in order; what a leaf holds
beyond them (the unit diagonal of a correlation matrix, the mirrored half of a covariance) is
structure and is rebuilt by ``build``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, Foreign, Namespace, Shape, Tree, ndarray
from jaxmle.parameters.arguments import check_end
from jaxmle.parameters.keywords import with_keyword_hints

Entry = tuple[int, ...]
Bounds = tuple[float, float]


def stack_entries(values: list[Array], like: Array) -> Array:
    """A vector of the scalars in ``values``."""
    return namespace(like).stack(values) if values else like[:0]


@dataclass(frozen=True)
class Interval:
    """Every entry lies in the open interval (lower, upper); with both ends infinite, the real line.

    The map is the identity, ``lower + exp(z)``, ``upper - exp(-z)`` or the scaled logistic
    function, depending on which ends are finite.
    """

    lower: float = -math.inf
    upper: float = math.inf

    elementwise = True

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper) or not self.lower < self.upper:
            raise ValueError(f"an interval needs lower < upper; got ({self.lower}, {self.upper})")

    def __call__(self, *_: Foreign) -> NoReturn:
        raise TypeError("a constraint is not called: write constraints={'sigma': jaxmle.positive}")

    @property
    def is_identity(self) -> bool:
        return math.isinf(self.lower) and math.isinf(self.upper)

    def entries(self, shape: Shape) -> list[Entry]:
        return list(np.ndindex(*shape))

    def bounds(self, shape: Shape) -> list[Bounds]:
        return [(self.lower, self.upper)] * math.prod(shape)

    def free_size(self, shape: Shape) -> int:
        return math.prod(shape)

    def to_user(self, z: Array, shape: Shape) -> Array:
        xp = namespace(z)
        lower = self.lower
        upper = self.upper
        if self.is_identity:
            return z
        if math.isinf(upper):
            return lower + xp.exp(z)
        if math.isinf(lower):
            return upper - xp.exp(-z)
        # From whichever end is nearer, so that a value beside a bound keeps its digits.
        width = upper - lower
        share = 1.0 / (1.0 + xp.exp(xp.abs(z)))
        return xp.where(z < 0, lower + width * share, upper - width * share)

    def slope(self, z: Array) -> Array:
        """The derivative of ``to_user`` at z, entry by entry."""
        xp = namespace(z)
        if self.is_identity:
            return xp.ones_like(z)
        if math.isinf(self.upper):
            return xp.exp(z)
        if math.isinf(self.lower):
            return xp.exp(-z)
        share = 1.0 / (1.0 + xp.exp(xp.abs(z)))
        return (self.upper - self.lower) * share * (1.0 - share)

    def to_free(self, v: Array, shape: Shape) -> Array:
        xp = namespace(v)
        lower = self.lower
        upper = self.upper
        if self.is_identity:
            return v
        if math.isinf(upper):
            return xp.log(v - lower)
        if math.isinf(lower):
            return -xp.log(upper - v)
        return xp.log(v - lower) - xp.log(upper - v)

    def build(self, v: Array, shape: Shape) -> Array:
        return v.reshape((*shape, *v.shape[1:]))

    def violation(self, leaf: ndarray) -> str | None:
        inside = (leaf > self.lower) & (leaf < self.upper)
        return None if np.all(inside) else f"strictly between {self.lower:g} and {self.upper:g}"


@dataclass(frozen=True)
class Simplex:
    """The last axis holds positive probabilities that sum to one; the free scale is the log ratio
    to the last entry.
    """

    elementwise = False
    is_identity = False

    def entries(self, shape: Shape) -> list[Entry]:
        return list(np.ndindex(*shape))

    def bounds(self, shape: Shape) -> list[Bounds]:
        return [(0.0, 1.0)] * math.prod(shape)

    def free_size(self, shape: Shape) -> int:
        return math.prod(shape[:-1]) * (shape[-1] - 1)

    def to_user(self, z: Array, shape: Shape) -> Array:
        xp = namespace(z)
        z = z.reshape(*shape[:-1], shape[-1] - 1)
        logits = xp.concatenate([z, xp.zeros_like(z, shape=(*shape[:-1], 1))], axis=-1)
        odds = xp.exp(logits - logits.max(axis=-1, keepdims=True))
        return (odds / odds.sum(axis=-1, keepdims=True)).reshape(-1)

    def to_free(self, v: Array, shape: Shape) -> Array:
        log = namespace(v).log(v.reshape(shape))
        return (log[..., :-1] - log[..., -1:]).reshape(-1)

    def build(self, v: Array, shape: Shape) -> Array:
        return v.reshape((*shape, *v.shape[1:]))

    def violation(self, leaf: ndarray) -> str | None:
        ok = (
            leaf.ndim >= 1
            and np.all(leaf > 0)
            and np.allclose(leaf.sum(axis=-1), 1.0, rtol=0, atol=1e-6)
        )
        return None if ok else "positive and summing to one along the last axis"


@dataclass(frozen=True)
class Ordered:
    """The last axis increases strictly; the free scale is its first entry and, for each gap, v with
    gap = log(1 + eᵛ).

    A small gap is thus exp(v), which cannot cross zero, and a large gap is v itself. A likelihood
    that keeps rising as gaps widen, such as that of a separated ordinal regression, then recedes
    along a straight line on both scales.
    """

    elementwise = False
    is_identity = False

    def entries(self, shape: Shape) -> list[Entry]:
        return list(np.ndindex(*shape))

    def bounds(self, shape: Shape) -> list[Bounds]:
        return [(-math.inf, math.inf)] * math.prod(shape)

    def free_size(self, shape: Shape) -> int:
        return math.prod(shape)

    def to_user(self, z: Array, shape: Shape) -> Array:
        xp = namespace(z)
        z = z.reshape(shape)
        return xp.cumsum(
            xp.concatenate(
                [z[..., :1], xp.logaddexp(z[..., 1:], xp.zeros_like(z[..., 1:]))], axis=-1
            ),
            axis=-1,
        ).reshape(-1)

    def to_free(self, v: Array, shape: Shape) -> Array:
        xp = namespace(v)
        v = v.reshape(shape)
        gap = v[..., 1:] - v[..., :-1]
        return xp.concatenate([v[..., :1], gap + xp.log(-xp.expm1(-gap))], axis=-1).reshape(-1)

    def build(self, v: Array, shape: Shape) -> Array:
        return v.reshape((*shape, *v.shape[1:]))

    def violation(self, leaf: ndarray) -> str | None:
        ok = leaf.ndim >= 1 and np.all(np.diff(leaf, axis=-1) > 0)
        return None if ok else "strictly increasing along the last axis"


def _square(shape: Shape, what: str) -> int:
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"a {what} constraint needs a square matrix; got shape {shape}")
    return shape[0]


def _cholesky_rows(matrix: list[list[Array]], k: int, xp: Namespace) -> list[list[Array]]:
    """Lower Cholesky factor of a small matrix given as nested scalars, written out row by row."""
    factor: list[list[Array]] = []
    for i in range(k):
        row: list[Array] = []
        for j in range(i):
            inner = sum((row[m] * factor[j][m] for m in range(j)), 0.0 * matrix[0][0])
            row.append((matrix[i][j] - inner) / factor[j][j])
        row.append(xp.sqrt(matrix[i][i] - sum((c * c for c in row), 0.0 * matrix[0][0])))
        factor.append(row)
    return factor


def _gram(factor: list[list[Array]], i: int, j: int) -> Array:
    """Entry (i, j) of L L', j <= i."""
    total: Tree = sum(factor[i][m] * factor[j][m] for m in range(j + 1))
    return total


def _symmetric(v: Array, k: int, rows: list[Entry], diagonal: float) -> Array:
    """The symmetric matrix whose lower entries ``rows`` are ``v`` and whose other diagonal
    entries are ``diagonal``.
    """
    xp = namespace(v)
    where = {entry: number for number, entry in enumerate(rows)}
    padded = xp.concatenate([v, xp.full_like(v, diagonal, shape=(1, *v.shape[1:]))])
    index = [[where.get((max(i, j), min(i, j)), len(rows)) for j in range(k)] for i in range(k)]
    return padded[np.array(index)]


@dataclass(frozen=True)
class Correlation:
    """A positive definite matrix with unit diagonal; the free scale is Fisher's z of its partial
    correlations.

    The Cholesky factor is computed row by row from the canonical partial correlations (Lewandowski,
    Kurowicka & Joe 2009, Journal of Multivariate Analysis 100, section 2.4). The strict lower
    triangle is printed.
    """

    elementwise = False
    is_identity = False

    def entries(self, shape: Shape) -> list[Entry]:
        k = _square(shape, "correlation")
        return [(i, j) for i in range(k) for j in range(i)]

    def bounds(self, shape: Shape) -> list[Bounds]:
        return [(-1.0, 1.0)] * len(self.entries(shape))

    def free_size(self, shape: Shape) -> int:
        return len(self.entries(shape))

    def to_user(self, z: Array, shape: Shape) -> Array:
        xp = namespace(z)
        k = shape[0]
        partial = dict(zip(self.entries(shape), xp.tanh(z), strict=True))
        factor: list[list[Array]] = []
        for i in range(k):
            row: list[Array] = []
            # What remains of the row's unit length, squared.
            left = xp.ones_like(z[0]) if k > 1 else 1.0
            for j in range(i):
                row.append(partial[i, j] * xp.sqrt(left))
                left = left * (1.0 - partial[i, j] ** 2)
            factor.append([*row, xp.sqrt(left)])
        return stack_entries([_gram(factor, i, j) for i, j in self.entries(shape)], z)

    def to_free(self, v: Array, shape: Shape) -> Array:
        xp = namespace(v)
        k = shape[0]
        full = self.build(v, shape)
        factor = _cholesky_rows([[full[i, j] for j in range(k)] for i in range(k)], k, xp)
        free: list[Array] = []
        for i in range(k):
            left: float | Array = 1.0
            for j in range(i):
                free.append(xp.arctanh(factor[i][j] / xp.sqrt(left + 0.0 * factor[i][j])))
                left = left - factor[i][j] ** 2
        return stack_entries(free, v)

    def build(self, v: Array, shape: Shape) -> Array:
        return _symmetric(v, shape[0], self.entries(shape), 1.0)

    def violation(self, leaf: ndarray) -> str | None:
        ok = _positive_definite(leaf) and np.allclose(np.diag(leaf), 1.0, rtol=0, atol=1e-6)
        return None if ok else "a symmetric positive definite matrix with unit diagonal"


@dataclass(frozen=True)
class Covariance:
    """A positive definite matrix; the free scale is its Cholesky factor with logged diagonal.
    The lower triangle is printed.
    """

    elementwise = False
    is_identity = False

    def entries(self, shape: Shape) -> list[Entry]:
        k = _square(shape, "covariance")
        return [(i, j) for i in range(k) for j in range(i + 1)]

    def bounds(self, shape: Shape) -> list[Bounds]:
        return [
            (0.0, math.inf) if i == j else (-math.inf, math.inf) for i, j in self.entries(shape)
        ]

    def free_size(self, shape: Shape) -> int:
        return len(self.entries(shape))

    def to_user(self, z: Array, shape: Shape) -> Array:
        xp = namespace(z)
        factor: list[list[Array]] = [[] for _ in range(shape[0])]
        for (i, j), value in zip(self.entries(shape), z, strict=True):
            factor[i].append(xp.exp(value) if i == j else value)
        return stack_entries([_gram(factor, i, j) for i, j in self.entries(shape)], z)

    def to_free(self, v: Array, shape: Shape) -> Array:
        xp = namespace(v)
        k = shape[0]
        full = self.build(v, shape)
        factor = _cholesky_rows([[full[i, j] for j in range(k)] for i in range(k)], k, xp)
        return stack_entries(
            [xp.log(factor[i][j]) if i == j else factor[i][j] for i, j in self.entries(shape)], v
        )

    def build(self, v: Array, shape: Shape) -> Array:
        return _symmetric(v, shape[0], self.entries(shape), 0.0)

    def violation(self, leaf: ndarray) -> str | None:
        return None if _positive_definite(leaf) else "a symmetric positive definite matrix"


def _positive_definite(leaf: ndarray) -> bool:
    square = leaf.ndim == 2 and leaf.shape[0] == leaf.shape[1]
    return (
        square
        and bool(np.allclose(leaf, leaf.T, rtol=1e-6))
        and bool(np.all(np.linalg.eigvalsh(leaf) > 0))
    )


Constraint = Interval | Simplex | Ordered | Correlation | Covariance
CONSTRAINT_KINDS = (Interval, Simplex, Ordered, Correlation, Covariance)

free = Interval()
positive = Interval(0.0, math.inf)
negative = Interval(-math.inf, 0.0)
simplex = Simplex()
ordered = Ordered()
correlation = Correlation()
covariance = Covariance()


def point_between(low: float, high: float) -> float:
    """A number strictly between two bounds: their middle; 1 away from the only finite one; or 0."""
    if math.isinf(low) and math.isinf(high):
        return 0.0
    if math.isinf(high):
        return low + 1.0
    if math.isinf(low):
        return high - 1.0
    return 0.5 * (low + high)


@with_keyword_hints
def interval(a: float, b: float) -> Interval:
    """Every entry of the leaf lies strictly between ``a`` and ``b``.

    Returns:
        A constraint, for the ``constraints=`` of a fit. Its free scale is
        log(value − a) − log(b − value), or the term of the finite end.

    Raises:
        ValueError: for anything but two numbers with the smaller first.

    >>> interval(0, 1).bounds((2,))
    [(0.0, 1.0), (0.0, 1.0)]
    """
    return Interval(check_end("a", a), check_end("b", b))


@with_keyword_hints
def lower(a: float) -> Interval:
    """Every entry of the leaf lies strictly above ``a``.

    Returns:
        A constraint, for the ``constraints=`` of a fit. The free scale is log(value − a).

    Raises:
        ValueError: for anything but a number, or an infinite one on the wrong side.

    >>> lower(2.0).bounds((2,))
    [(2.0, inf), (2.0, inf)]
    >>> float(lower(2.0).to_user(np.array(0.0), ()))  # 2 + exp(0)
    3.0
    """
    return Interval(check_end("a", a), math.inf)


@with_keyword_hints
def upper(b: float) -> Interval:
    """Every entry of the leaf lies strictly below ``b``.

    Returns:
        A constraint, for the ``constraints=`` of a fit. The free scale is −log(b − value).

    Raises:
        ValueError: for anything but a number, or an infinite one on the wrong side.

    >>> upper(2.0).bounds((2,))
    [(-inf, 2.0), (-inf, 2.0)]
    >>> float(upper(2.0).to_user(np.array(0.0), ()))  # 2 − exp(0)
    1.0
    """
    return Interval(-math.inf, check_end("b", b))
