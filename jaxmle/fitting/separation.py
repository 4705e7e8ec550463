"""What a separated fit can say for certain: which coefficients are infinite, which way, and a
direction checked in exact arithmetic.

A climb shows that a likelihood recedes, and ``conclude`` what is finite all the same. Where every
parameter that recedes is unconstrained or ordered and the likelihood has terms, the cone of
recession is known from their gradients (``likelihood.recession``): exactly for a declared
regression with linear predictors, from outside for any other likelihood that is concave in those
parameters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxmle._types import Array
from jaxmle.fitting.recession_cone import Cone, certified, cone_of, distinct, generators
from jaxmle.likelihood.recession import Ways, straight
from jaxmle.parameters.constraints import Ordered
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.solvers.status import Status

# witness.certificate
LOCAL_CERTIFICATE = 0
BY_CONE = 1
BY_EXACT_ARITHMETIC = 2
MAX_GRADIENT_BYTES = 2**28  # bytes of gradients that are looked at


def wants_cone(fit: Fit, roots: tuple[int, ...], rows: int | None) -> Array:
    """Whether the cone of recession would add to these fits, (b,) or (): separated ones
    whose infinite parameters are straight ones.
    """
    shape = np.shape(fit.status)
    if rows is None or fit.mode != "ML" or 64 * rows * len(fit.names) * 8 > MAX_GRADIENT_BYTES:
        return np.zeros(shape, bool)
    bent = ~straight(fit.layout) & (np.asarray(roots) == np.arange(len(fit.names)))
    at_bound = np.asarray(fit.witness.bound) != 0
    return (np.asarray(fit.status) == int(Status.SEPARATED)) & ~np.any(
        (bent & ~np.isfinite(fit.x)) | at_bound, axis=-1
    )


def with_recession_cone(
    fit: Fit, roots: tuple[int, ...] | np.ndarray, ways: Ways, exact: bool
) -> Fit:
    """One separated fit with what the cone of its recession says.

    Args:
        roots: for each printed entry the one it follows; −1 where fixed.
        ways: gradients of the terms at many points.
        exact: they are all that the likelihood has.
    """
    roots = np.asarray(roots)
    p = len(fit.names)
    columns = straight(fit.layout) & (roots == np.arange(p))
    alive = np.asarray(ways.alive)
    rows, is_usable = generators(np.asarray(ways.gradients, float), alive, columns)
    ordered = gaps(fit.layout)[:, columns]
    if not len(rows) or not bool(ways.concave):
        return fit
    cone = cone_of(distinct(np.concatenate([rows, ordered])))
    pure = np.asarray(ways.pure)[:, alive] & is_usable
    known = exact and np.all(np.any(pure, axis=0))  # of each term a gradient that is exact
    exact_rows = np.concatenate([rows[pure[is_usable]], ordered])
    sure = known and certified(distinct(exact_rows), cone.direction)
    if known and not sure:
        return imprecise(fit)
    if not np.any(cone.touched):
        return fit
    follow = np.where(roots >= 0, roots, np.arange(p))
    return infinite(fit, cone, columns, follow, BY_EXACT_ARITHMETIC if sure else BY_CONE)


def infinite(fit: Fit, cone: Cone, columns: Array, follow: Array, certificate: int) -> Fit:
    """The estimates that the cone says are infinite, with their signs; NaN where it leaves the
    sign open.
    """
    p = len(fit.names)

    def whole(part: Any) -> Any:
        return np.bincount(np.flatnonzero(columns), weights=part, minlength=p)[follow]

    signs = whole(cone.signs)
    touched = whole(cone.touched) > 0
    direction = whole(cone.direction)
    x = np.where(touched, np.where(signs == 0, np.nan, signs * np.inf), fit.x)
    gone = touched | ~np.isfinite(fit.se)
    witness = replace(
        fit.witness,
        sign=signs.astype(fit.witness.sign.dtype),
        direction=(direction / np.max(np.abs(direction))).astype(fit.dtype),
        certificate=np.asarray(certificate, fit.witness.certificate.dtype),
    )
    return replace(
        fit,
        params=fit._tree(x.astype(fit.dtype)),
        stderr=fit._tree(np.where(gone, np.nan, fit.se).astype(fit.dtype)),
        vcov=np.where(gone[:, None] | gone[None, :], np.nan, fit.vcov),
        witness=witness,
    )


def imprecise(fit: Fit) -> Fit:
    """No direction of recession survives exact arithmetic: a maximum exists, too far out for
    this precision.
    """

    def nothing(leaf: Any) -> Any:
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
    """Rows (m, p) that say that ordered entries stay ordered: d_{j+1} − d_j ≥ 0."""
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
