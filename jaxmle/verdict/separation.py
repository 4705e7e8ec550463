"""What is certain about a separated fit: which coefficients are infinite, with which sign, and a
direction checked in exact arithmetic.

An ascent shows that a likelihood recedes; ``conclude`` finds which estimates are finite
nevertheless. Where every parameter that recedes is unconstrained or ordered and the likelihood has
terms that are concave in those parameters, the cone of recession is known from their gradients
(``likelihood.recession``): exactly for a declared regression with linear predictors, from outside
for any other likelihood.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import jax
import numpy as np

from jaxmle._types import Array, Tree, ndarray
from jaxmle.likelihood.recession import RecessionTypes, straight
from jaxmle.parameters.constraints import Ordered
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.solvers.status import Status, is_one_of
from jaxmle.verdict.recession_cone import (
    GRADIENT_ROUNDING,
    MIN_PROJECTION_LENGTH,
    Cone,
    certified,
    cone_of,
    distinct,
    generators,
)

# witness.certificate
LOCAL_CERTIFICATE = 0
BY_CONE = 1
BY_EXACT_ARITHMETIC = 2
MAX_GRADIENT_BYTES = 2**28  # bytes of gradients that are looked at
POINTS_AT_ONCE = 64  # at which the gradients of all terms are held together
MAX_CUTS = 12  # rounds of looking for terms that fall far out
# at which they are looked for, in units in which the gradient of the usual term is one
CUTTING_DISTANCES = (1.0, 10.0, 100.0, 1000.0)


def wants_cone(fit: Fit, roots: tuple[int, ...], rows: int | None) -> Array:
    """Whether the recession cone would add information to these fits, (b,) or (): separated fits
    whose infinite parameters are all ``straight``.
    """
    separated = np.asarray(is_one_of(fit.status, Status.SEPARATED))
    is_large = 64 * (rows or 0) * len(fit.names) * 8 > MAX_GRADIENT_BYTES
    if not separated.any() or rows is None or fit.mode != "ML" or is_large:
        return np.zeros(separated.shape, bool)
    curved = ~straight(fit.layout) & (np.asarray(roots) == np.arange(len(fit.names)))
    at_bound = np.asarray(fit.witness.bound) != 0
    return separated & ~np.any((curved & ~np.isfinite(fit.x)) | at_bound, axis=-1)


def with_recession_cone(
    fit: Fit, roots: tuple[int, ...] | ndarray, ways: RecessionTypes, start: Array, exact: bool
) -> Generator[ndarray, ndarray, Fit]:
    """One separated fit of concave terms, with the signs from its recession cone; unchanged if the
    cone does not contain the direction of the ascent.

    Args:
        roots: for each printed entry the one it follows; −1 where fixed.
        ways: gradients of the terms at many points.
        start: (p,) where the terms are looked at first, not far out.
        exact: whether these gradients determine the cone exactly.

    Yields:
        Other points (``POINTS_AT_ONCE``, p), for which the gradients (q, n, p) of the terms have to
        be sent.
    """
    roots = np.asarray(roots)
    p = len(fit.names)
    columns = straight(fit.layout) & (roots == np.arange(p))
    has_weight = np.asarray(ways.has_weight)
    rows, is_usable = generators(np.asarray(ways.gradients, float), has_weight, columns)
    ordered = gaps(fit.layout)[:, columns]
    if not len(rows):
        return fit
    cone = cone_of(distinct(np.concatenate([rows, ordered])))
    if not exact:
        usual = np.max(np.abs(np.asarray(ways.gradients[0], float)), axis=-1)[has_weight]
        end = np.where(np.isfinite(fit.witness.point), fit.witness.point, 0.0)
        starts = np.stack([start, end])
        cone = yield from _cut(starts, cone, rows, ordered, columns, has_weight, usual)
    follow = np.where(roots >= 0, roots, np.arange(p))
    signs = np.asarray(fit.witness.sign)[columns]
    opposite = (signs != 0) & (~cone.touched | (cone.signs == -signs))
    certificate = BY_CONE
    if exact:
        pure = np.asarray(ways.pure)[:, has_weight] & is_usable
        exact_rows = np.concatenate([rows[pure[is_usable]], ordered])
        known = _is_known(rows, is_usable, pure, cone.direction)
        sure = known and certified(distinct(exact_rows), cone.direction)
        if known and not sure:
            return imprecise(fit)
        certificate = BY_EXACT_ARITHMETIC if sure else BY_CONE
    if np.any(opposite) or not np.any(cone.touched):
        return fit
    return infinite(fit, cone, columns, follow, certificate)


def _is_known(rows: ndarray, usable: ndarray, pure: ndarray, d: ndarray) -> bool:
    """Whether the exact gradients decide about d (k,): each term has one, and each term that gains
    along d has one that gains.

    Args:
        rows: (m, k) the usable gradients.
        usable: (q, n) the points and terms that they come from.
        pure: (q, n) which of them are exact.
    """
    gain = np.zeros(usable.shape, bool)
    length = np.linalg.norm(rows, axis=1) * np.linalg.norm(d)
    gain[usable] = rows @ d > MIN_PROJECTION_LENGTH * length
    gains = np.any(gain, axis=0)
    return bool(np.all(np.any(pure, axis=0) & (~gains | np.any(gain & pure, axis=0))))


def _cut(
    starts: Array,
    cone: Cone,
    rows: ndarray,
    ordered: Array,
    columns: Array,
    has_weight: ndarray,
    usual: ndarray,
) -> Generator[ndarray, ndarray, Cone]:
    """The cone without the directions along which some term eventually falls.

    A concave term that still rises far out along d has not fallen before. So the terms are
    evaluated far out along the directions that determine the signs, from the start of the ascent
    and from the limit. The gradient of a term that falls there is another bound on the cone.

    Args:
        starts: (2, p) the start of the ascent and the limit.
        usual: (n,) the size of each term's gradient where it is not far out.
    """
    # of the usual term: the gradient of exp at one of the points may be e¹⁰⁰
    unit = 1.0 / np.maximum(_typical(rows), np.finfo(float).tiny ** 0.5)
    for _ in range(MAX_CUTS):
        if not np.any(cone.touched):
            break
        rays = cone.rays[np.any(cone.rays != 0, axis=1)]
        rays = rays / np.max(np.abs(rays / unit), axis=1)[:, None]
        ways = np.tile(rays, (len(starts) * len(CUTTING_DISTANCES), 1))
        distances = np.repeat(CUTTING_DISTANCES, len(starts) * len(rays))[:, None]
        points = np.tile(np.repeat(starts, len(rays), axis=0), (len(CUTTING_DISTANCES), 1))
        points[:, columns] += distances * ways
        falling = []
        for first in range(0, len(points), POINTS_AT_ONCE):
            part = slice(first, first + POINTS_AT_ONCE)
            few = POINTS_AT_ONCE - len(ways[part])
            whole = np.pad(points[part], ((0, few), (0, 0)), mode="edge")
            scores = yield whole
            gradients = np.asarray(scores[: len(ways[part])], float)  # (64, n, p) or fewer
            gradients = gradients[:, has_weight][..., columns]
            size = np.linalg.norm(gradients, axis=-1)
            slope = np.einsum("qnk,qk->qn", gradients, ways[part])
            bound = MIN_PROJECTION_LENGTH * size * np.linalg.norm(ways[part], axis=1)[:, None]
            seen = np.isfinite(size) & (size > GRADIENT_ROUNDING * usual) & (slope < -bound)
            falling.append(gradients[seen])
        more = np.concatenate(falling)
        if not len(more):
            return cone
        rows = np.concatenate([rows, more])
        cone = cone_of(distinct(np.concatenate([rows, ordered])))
    return cone._replace(touched=np.zeros_like(cone.touched))


def _typical(rows: ndarray) -> ndarray:
    """The median absolute value (k,) of the non-zero entries in each column of rows (m, k); 0 if
    there are none.
    """
    columns = [column[column > 0] for column in np.abs(rows).T]
    return np.array([np.median(column) if len(column) else 0.0 for column in columns])


def infinite(fit: Fit, cone: Cone, columns: Array, follow: Array, certificate: int) -> Fit:
    """The estimates that are infinite by the cone, with their signs; NaN where the cone leaves the
    sign open.
    """
    p = len(fit.names)

    def whole(part: Tree) -> Tree:
        return np.bincount(np.flatnonzero(columns), weights=part, minlength=p)[follow]

    signs = whole(cone.signs)
    touched = whole(cone.touched) > 0
    direction = whole(cone.direction)
    x = np.where(touched, np.where(signs == 0, np.nan, signs * np.inf), fit.x)
    # what only the path left open is orthogonal to the cone
    settled = ~touched & np.isnan(fit.x)
    x = np.where(settled, fit.witness.point, x)
    variance = np.diagonal(fit.witness.vcov)
    se = np.where(settled & (variance > 0), np.sqrt(np.abs(variance)), fit.se)
    gone = touched | ~np.isfinite(se)
    witness = replace(
        fit.witness,
        sign=signs.astype(fit.witness.sign.dtype),
        direction=(direction / np.max(np.abs(direction))).astype(fit.dtype),
        certificate=np.asarray(certificate, fit.witness.certificate.dtype),
    )
    return replace(
        fit,
        params=fit._tree(x.astype(fit.dtype)),
        stderr=fit._tree(np.where(gone, np.nan, se).astype(fit.dtype)),
        vcov=np.where(gone[:, None] | gone[None, :], np.nan, fit.witness.vcov).astype(fit.dtype),
        witness=witness,
    )


def imprecise(fit: Fit) -> Fit:
    """The fit as IMPRECISE: no direction of recession passes exact arithmetic, so a maximum exists,
    but too far out for this precision.
    """

    def nothing(leaf: Tree) -> ndarray:
        return np.full_like(leaf, np.nan)

    witness = replace(
        fit.witness,
        digits=np.zeros_like(fit.witness.digits),
        sign=np.zeros_like(fit.witness.sign),
        vcov=nothing(fit.witness.vcov),
    )
    return replace(
        fit,
        status=np.asarray(int(Status.IMPRECISE), fit.status.dtype),
        params=jax.tree.map(nothing, fit.params),
        stderr=jax.tree.map(nothing, fit.stderr),
        vcov=nothing(fit.vcov),
        witness=witness,
    )


def gaps(layout: Layout) -> Array:
    """Rows (m, p) that keep ordered entries in order: d_{j+1} − d_j ≥ 0."""
    pairs = []
    for leaf, span in zip(layout.leaves, layout.spans, strict=True):
        if isinstance(leaf.constraint, Ordered):
            place = np.arange(span.start, span.stop).reshape(leaf.shape)
            pairs += list(zip(place[..., :-1].ravel(), place[..., 1:].ravel(), strict=True))
    rows = np.zeros((len(pairs), layout.p))
    for i, (low, high) in enumerate(pairs):
        rows[i, low] = -1.0
        rows[i, high] = 1.0
    return rows
