"""The state of an ascent between two steps: the point, a possible recession, and what the next step
needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxmle._namespace import HOST, is_nowhere, namespace
from jaxmle._types import Array, Tree, ndarray
from jaxmle.solvers.leading_axes import (
    column,
    diagonal,
    members_of,
    merged,
    outer,
    transposed,
)
from jaxmle.solvers.linalg import metric_of
from jaxmle.solvers.newton_step import NewtonStep
from jaxmle.solvers.rare_branches import rarely

ASCENDING, POLISHING, MIRRORING, VERIFYING, DONE = range(5)
RUNNING, SETTLED, STUCK, NOT_FINITE, PRECISION_REACHED, DIVERGING, SLOW_ASCENT = range(7)
GAIN_BEYOND_ROUNDING = 1e4  # times the rounding error of ℓ, which no step along rounding promises
MAX_ROUNDING = 1e-8  # rounding of ℓ beyond which it is far off, not flat


class Point(NamedTuple):
    """One evaluation in the free coordinates z (k, ...)."""

    z: Array
    value: Array
    absolute: Array
    score: Array
    hessian: Array
    curvature: Array | None = None  # what directions are taken from, where that is not −hessian
    aux: Tree = None  # whatever else the evaluation found and its caller wants back at the end


class Signature(NamedTuple):
    """How information, decrement and step length changed over the last full Newton step. At a
    regular maximum the information stays and the decrement falls quadratically; along a recession
    it does not.
    """

    information: Array  # d'J(θ+d)d / d'J(θ)d
    decrement: Array  # δ(θ+d) / δ(θ)
    step: Array  # length of this step over that of the one before


class Tail(NamedTuple):
    """The latest run of full Newton steps along which the information vanished at constant step
    length: a recession.
    """

    z: Array  # (k,) its latest point
    move: Array  # (k,) its latest step
    value: Array  # ℓ there
    decrement: Array
    length: Array  # how many steps in a row


class State(NamedTuple):
    """The state of an ascent: what the next step needs."""

    point: Point
    newton: NewtonStep
    scale: Array
    peak: Array  # (k, ...) the largest metric on the way
    radius: Array
    move: Array  # the pending step
    predicted: Array  # its predicted gain
    full: Array  # it is a full Newton step
    extrapolation: Array  # the number of them where it is several at once, else 0
    may_extrapolate: Array  # no extrapolation has failed
    last: Array  # the last accepted step; of an extrapolation, its Newton step
    gain: Array  # the last accepted gain
    signature: Signature
    tail: Tail
    rise: Array  # ℓ now less ℓ at the start
    phase: Array
    outcome: Array
    steps: Array
    idle: Array
    refused: Array
    growing_steps: Array  # steps of undiminished gain in a row
    equal_gains: Array  # steps of about equal gain in a row
    max_equal_gains: Array  # the longest such run
    receding_steps: Array  # receding steps in a row; −1 after an extrapolation
    rough: Array  # at some small step ℓ was rougher than 4ε Σ|terms|
    # (k, ...) the latest trial at which ℓ or a derivative was NaN, since the last full Newton step;
    # NaN where there is none. ℓ = −∞ is no such thing: a datum outside the support
    nan_point: Array
    origin: Array  # (k, ...) where the ascent set out
    mirrored: Array  # the coordinate that was mirrored alone; −1 for all, −2 before that
    faint: Array  # (k, ...) information to verify, zero where there is none
    believed: Array  # (k, ...) it was verified
    verified: Array  # the coordinate whose faint information is verified; −1 before the first


def noise_of(point: Point) -> Array:
    """ν = 4ε Σ|terms|: the rounding error of ℓ."""
    return 4 * namespace(point.value).finfo(point.value.dtype).eps * point.absolute


def without_rounding(point: Point, believed: Array) -> Point:
    """The point, with score and Hessian set to zero in each coordinate in which they are only
    rounding error: so small that a step as long as the coordinate (or one) changes ℓ by less than
    its rounding error. Coordinates that are ``believed`` (k, ...) stay as they are.
    """
    xp = namespace(point.z)
    noise = xp.minimum(noise_of(point), MAX_ROUNDING)
    length = xp.maximum(1.0, xp.abs(point.z))
    little = (xp.abs(point.score) * length <= noise) & ~believed
    if is_nowhere(little):
        return point
    own_curvature = xp.abs(diagonal(point.hessian))
    little = little & (own_curvature * length**2 <= noise)
    if is_nowhere(little):
        return point
    parts = (point.score, point.hessian, little, noise, length, own_curvature)
    if xp is HOST:
        score, hessian = rarely(np.any(little, axis=0), _without_rounding, lambda *a: a[:2], *parts)
    else:
        score, hessian = _without_rounding(*parts)
    return point._replace(score=score, hessian=hessian)


def _without_rounding(
    score: Array, hessian: Array, little: Array, noise: Array, length: Array, own_curvature: Array
) -> tuple[Array, Array]:
    """Score and Hessian, with zeros where they are only rounding error."""
    xp = namespace(score)
    curvature = xp.abs(hessian)
    # |H_ij| against the geometric mean of the noise and of the other's own curvature
    coupled = (
        curvature * length[None, :] > xp.sqrt(noise * (own_curvature + noise / length**2))[:, None]
    )
    place = column(np.arange(len(length)), length)
    coupled = xp.any(coupled & (place[:, None] != place[None, :]), axis=0)
    # A coordinate of 1e24 that begins at zero changes ℓ as little, but a Newton step gains much.
    gains = (own_curvature > 0) & (score**2 > GAIN_BEYOND_ROUNDING * noise * own_curvature)
    is_rounding = little & ~coupled & ~gains
    keep = xp.where(is_rounding, 0.0, 1.0).astype(score.dtype)
    return score * keep, hessian * outer(keep, keep)


def null_cut(point: Point) -> Array:
    """f = 50kε·max(1, noise of the Hessian): eigenvalues of R within ±f count as zero.

    The noise is the asymmetry of the Hessian, whose two halves forward-over-reverse differentiation
    computes separately. The factor 50 allows for the rounding of sums over rows. A fit with an
    eigenvalue below 2e-13 is IMPRECISE in any case.
    """
    return null_cut_of(point.hessian, metric_of(point.hessian, point.score))


def null_cut_of(hessian: Array, scale: Array) -> Array:
    """``null_cut`` (...) from the Hessian (k, k, ...) and the metric D (k, ...)."""
    xp = namespace(scale)
    eps = xp.finfo(scale.dtype).eps
    k = scale.shape[0]
    skew = xp.abs(hessian - transposed(hessian)) / outer(scale, scale)
    skew = xp.max(skew, axis=(0, 1))
    return k * eps * xp.maximum(50.0, skew / eps)


def is_finite(point: Point) -> Array:
    """Whether ℓ, score and Hessian are all finite."""
    xp = namespace(point.z)
    return (
        xp.isfinite(point.value)
        & xp.all(xp.isfinite(point.score), axis=0)
        & xp.all(xp.isfinite(point.hessian), axis=(0, 1))
    )


def met_nan(state: State) -> Array:
    """Whether a trial since the last full Newton step had a NaN in ℓ or a derivative."""
    return ~namespace(state.nan_point).isnan(state.nan_point[0])


def is_beyond_edge(point: Point, trial: Point) -> Array:
    """Whether a trial is as low as beyond an edge of the support: −∞, or lower than the point by
    more than all its terms together, as where a density is guarded by −1e10. Far down a smooth
    slope ℓ is so, too; its curvature there tells.
    """
    return trial.value < point.value - 1.0 - point.absolute


def has_risen(state: State, point: Point, times: float) -> Array:
    """Whether ℓ at a point is positive and rose by more than ``times`` (1 + |ℓ at the start|)."""
    initial = namespace(point.value).abs(point.value - state.rise)
    return (point.value > 0) & (state.rise > times * (1.0 + initial))


def start(z: Array, like: Point) -> State:
    """The state before the first evaluation. Its ℓ is minus infinity, so that the start is accepted
    like any other trial.
    """
    xp = namespace(z)
    members = members_of(z)
    zero = xp.zeros(members, z.dtype)
    ones = xp.ones(members, z.dtype)
    count = xp.zeros(members, dtype=xp.int32)
    yes = xp.ones(members, dtype=bool)
    flat = xp.zeros_like(z)
    square = xp.zeros((z.shape[0], *z.shape), z.dtype)
    blank = jax.tree.map(
        lambda leaf: (
            xp.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
        ),
        like.aux,
    )
    curvature = None if like.curvature is None else square
    return State(
        point=Point(z, -xp.inf * ones, zero, flat, square, curvature, blank),
        newton=NewtonStep(flat, xp.inf * ones, ~yes, ~yes),
        scale=flat,  # No metric before the first point: zero lets that point's own take over.
        peak=flat,
        radius=zero,
        move=flat,
        predicted=zero,
        full=~yes,
        extrapolation=zero,
        may_extrapolate=yes,
        last=flat,
        gain=zero,
        signature=Signature(ones, ones, ones),
        tail=Tail(flat, flat, zero, zero, count),
        rise=zero,
        phase=count,
        outcome=count,
        steps=count,
        idle=count,
        refused=count,
        growing_steps=count,
        equal_gains=count,
        max_equal_gains=count,
        receding_steps=count,
        rough=~yes,
        nan_point=flat + xp.nan,
        origin=z,
        mirrored=count - 2,
        faint=flat,
        believed=flat > 0,
        verified=count - 1,
    )


def select(condition: Array, new: Tree, old: Tree) -> Tree:
    """The leaves of ``new`` where the condition (...) holds, else those of ``old``, in the types of
    the latter.
    """
    if isinstance(condition, (bool, np.bool_)):
        return new if condition else old
    leaf = old
    while isinstance(leaf, tuple):
        leaf = leaf[0]
    xp = namespace(leaf)
    if xp is HOST and np.all(condition):  # without a copy
        return merged(lambda a, b: _chosen(a, b, b), new, old)
    if xp is HOST and not np.any(condition):
        return merged(lambda a, b: _chosen(b, a, b), new, old)
    return merged(lambda a, b: xp.where(condition, a, b).astype(b.dtype, copy=False), new, old)


def select_lazily(condition: Array, new: Callable[[], Tree], old: Callable[[], Tree]) -> Tree:
    """``select`` from the results of two functions. On the host, a function whose result is not
    needed is not called, and the types are those of the one that is.
    """
    if isinstance(condition, (np.ndarray, np.generic)):
        if HOST.all(condition):
            return new()
        if not HOST.any(condition):
            return old()
    return select(condition, new(), old())


def _chosen(leaf: Tree, other: Tree, like: Tree) -> ndarray:
    """The leaf in the type of ``like``, broadcast against the other."""
    if leaf is other:
        return leaf
    if getattr(leaf, "dtype", None) == like.dtype and leaf.shape == np.shape(other):
        return leaf
    shape = np.broadcast_shapes(np.shape(leaf), np.shape(other))
    return np.broadcast_to(np.asarray(leaf, like.dtype), shape)[()]
