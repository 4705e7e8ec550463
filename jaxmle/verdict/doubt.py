"""Whether the end of an ascent is in doubt, and along which coordinate the profile likelihood is
then examined.

Signs that cost no evaluation: a large variance inflation factor, a standard error as large as the
coordinate itself, a logarithm far from zero, a last Newton step that did not converge faster than
linearly, an information that is not definite, and rounding noise during the ascent.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.leading_axes import column, outer, times, transposed
from jaxmle.solvers.linalg import inverse_factor, metric_of
from jaxmle.solvers.state import Point, State, Tail, noise_of, select
from jaxmle.solvers.tails import STEPS_OF_A_TAIL
from jaxmle.solvers.trust_region import MAX_NOISE_OF_COLLAPSE

TEST_OFFSET = 0.5  # of a standard error: where the parabola is tested
MAX_VIF = 1e3  # variance inflation factor from which a maximum has to show its shape
SHARE_OF_VARIANCE = 0.5  # of a coordinate, from which its standard error is that of another one
WIDE_STDERR = 1.5  # standard error, in units of the coordinate or of one, from which it has to
LARGE_COORDINATE = (
    1e3  # coordinates beyond may have run there: a standard error of three times that is wide
)
# standard error of a coordinate that is zero within it, up to which its curvature may be rounding
SHARP_STDERR = 1e-6
FAR_LOGARITHM = 16.0  # a logarithm of 1e7 or 1e-7
MAX_STEP_OF_A_LOGARITHM = 0.25  # to which an offset of ½ is cut: x is not linear in log x further
CLEAN_DECREMENT_RATIO = 0.05  # of the last full Newton step: converging faster than linearly
CLEAN_INFORMATION_CHANGE = 0.1  # by the last full Newton step
SHARE_OF_EQUAL_SUSPICION = (
    0.99  # of the largest suspicion, from which another is as large but for rounding
)
MIN_SHARE_OF_REACH = 0.1  # of the widest standard error, relative to the size of its coordinate
DECREMENT_OF_NOTHING = 1e-24  # below it no step converges any more
MAX_DECREMENT_OF_A_TAIL_TO_ITS_END = 1.0  # in units of ℓ
SCALED_LENGTH_OF_COLLAPSE = 1e8  # standard errors from a coordinate to zero


class Doubt(NamedTuple):
    """Whether and along which coordinate the shape of ℓ has to be examined."""

    asked: Array  # (...)
    coordinate: Array  # (k, ...) one at the coordinate, zero elsewhere
    unit: Array  # (...) its standard error, cut where the coordinate is a logarithm
    curvature: Array  # (...) of the profile per unit², (unit/SE)²; zero where there is none
    is_logarithm: Array  # (...)
    correlated: Array  # (k, ...) it makes most of the variance of these coordinates, too
    is_noisy: Array  # (...) the ascent met rounding noise, or went where there may be some
    metric: Array  # (k, ...) at the end of the ascent
    length: Array  # (...) of a unit, in the metric


def doubt(logarithms: tuple[bool, ...], state: State, singular: Array, null: Array) -> Doubt:
    """The most doubtful coordinate, and whether the shape of ℓ along it has to be examined.

    Args:
        logarithms: for each free coordinate whether it is the logarithm of a parameter, or alike.
        singular: the information has null directions at the end of the ascent.
        null: one of them (k, ...), in coordinates scaled by D.
    """
    xp = namespace(state.point.z)
    k = state.point.z.shape[0]
    scale, vif, root, stderr, curved, suspicion, sound = _suspicion(logarithms, state)
    size = xp.abs(state.point.z)
    suspicion = xp.where(singular, xp.abs(null), suspicion)
    last = xp.abs(scale * state.last)
    moved = last / xp.maximum(xp.max(last, axis=0), xp.finfo(last.dtype).tiny)
    strange = xp.max(suspicion, axis=0) >= 1.0
    # Where nothing but the way of the last steps is strange, the coordinate is the one they moved.
    suspicion = xp.where(singular | strange, suspicion, moved)
    widths = xp.where(singular, 1.0 / xp.maximum(state.scale, scale), stderr)
    # Along t₀t₁ = c both are inflated alike, and rounding would choose: one of those that go far.
    alike = ~singular & (suspicion >= SHARE_OF_EQUAL_SUSPICION * xp.max(suspicion, axis=0))
    reach = xp.where(alike, widths / (1.0 + size), 0.0)
    stays = alike & (reach < MIN_SHARE_OF_REACH * xp.max(reach, axis=0))
    chosen = column(np.arange(k), size) == xp.argmax(xp.where(stays, 0.0, suspicion), axis=0)
    coordinate = xp.where(chosen, 1.0, 0.0).astype(size.dtype)
    se = xp.sum(coordinate * widths, axis=0)
    is_logarithm = xp.any(chosen & curved, axis=0)
    unit = xp.where(is_logarithm, xp.minimum(se, MAX_STEP_OF_A_LOGARITHM / TEST_OFFSET), se)
    curvature = xp.where(singular, 0.0, (unit / se) ** 2)
    asked = singular | (sound & (strange | ~is_clean(state)))
    covariance = times(transposed(root), times(root, coordinate))
    shared = covariance**2 / (vif * xp.sum(coordinate * vif, axis=0))
    correlated = sound & (shared >= SHARE_OF_VARIANCE)
    far_out = xp.any(curved & (size >= FAR_LOGARITHM), axis=0)
    is_noisy = state.rough | (state.tail.length >= STEPS_OF_A_TAIL) | far_out
    widest = xp.maximum(state.scale, scale)
    # along a flat coordinate there is no other unit than its own
    alone = xp.maximum(widest, 1.0 / xp.maximum(1.0, size))
    length = unit * xp.sum(coordinate * xp.where(curvature > 0, widest, alone), axis=0)
    return Doubt(
        asked, coordinate, unit, curvature, is_logarithm, correlated, is_noisy, scale, length
    )


class Suspicion(NamedTuple):
    """How doubtful the end of an ascent is along each coordinate, by the signs that cost no
    evaluation.
    """

    scale: Array  # D (k, ...)
    vif: Array  # (k, ...)
    root: Array  # (k, k, ...) F with R⁻¹ = F'F
    stderr: Array  # (k, ...)
    curved: Array  # (k, ...) the coordinate is a logarithm
    degree: Array  # (k, ...) from one on the coordinate is in doubt
    sound: Array  # (...) the information is definite


def _suspicion(logarithms: tuple[bool, ...], state: State) -> Suspicion:
    xp = namespace(state.point.z)
    scale = metric_of(state.point.hessian, state.point.score)
    root = _root_of_inverse(state, scale)
    vif = namespace(root).sum(root**2, axis=0)
    sound = xp.all(xp.isfinite(vif), axis=0)
    vif = xp.where(sound, vif, 1.0)
    stderr = xp.sqrt(vif) / scale
    size = xp.abs(state.point.z)
    curved = column(np.array(logarithms or (False,) * len(size)), size)
    width = xp.clip(size, 1.0, LARGE_COORDINATE)
    far = xp.zeros_like(size)
    if any(logarithms):
        width = xp.where(curved, 1.0, width)
        far = xp.where(curved, size / FAR_LOGARITHM, 0.0)
    degree = xp.maximum(xp.maximum(vif / MAX_VIF, stderr / (WIDE_STDERR * width)), far)
    sharp = (stderr <= SHARP_STDERR) & (size <= stderr)
    degree = xp.where(sharp, xp.maximum(degree, 1.0), degree)
    return Suspicion(scale, vif, root, stderr, curved, degree, sound)


def is_doubtful(logarithms: tuple[bool, ...], state: State, singular: Array) -> Array:
    """Whether ``doubt`` would have the shape of ℓ examined."""
    *_, degree, sound = _suspicion(logarithms, state)
    return singular | _is_strange(state, degree, sound)


def _is_strange(state: State, degree: Array, sound: Array) -> Array:
    strange = namespace(degree).max(degree, axis=0) >= 1.0
    return sound & (strange | ~is_clean(state))


def _root_of_inverse(state: State, scale: Array) -> Array:
    """F (k, k, ...) with R⁻¹ = F'F, whose diagonal are the variance inflation factors."""
    hessian = state.point.hessian
    return inverse_factor(-0.5 * (hessian + transposed(hessian)) / outer(scale, scale))


def is_clean(state: State) -> Array:
    """Whether the last full Newton step converged faster than linearly, or nothing is left to
    converge.
    """
    return is_steady(state) & (
        (state.signature.decrement <= CLEAN_DECREMENT_RATIO)
        | (state.newton.decrement <= DECREMENT_OF_NOTHING)
    )


def is_steady(state: State) -> Array:
    """Whether the information along the last full Newton step stayed the same. Towards a maximum of
    fourth or higher order it falls by half or more.
    """
    change = state.signature.information - 1.0
    return namespace(change).abs(change) <= CLEAN_INFORMATION_CHANGE


def came_along_tail(state: State, bar: Array) -> Array:
    """Whether the ascent came along a tail, so that ℓ is known to fall in the direction from which
    it came.
    """
    gained = state.point.value - state.tail.value
    singular = ~(state.newton.definite & state.newton.convex)
    unclear = ~is_clean(state) | is_restart(state) | singular
    # A tail that had more than that yet to gain was left for elsewhere.
    near_limit = (state.tail.decrement <= MAX_DECREMENT_OF_A_TAIL_TO_ITS_END) | is_restart(state)
    return (state.tail.length >= STEPS_OF_A_TAIL) & (gained > bar) & unclear & near_limit


def is_collapse(metric: Array, point: Point) -> Array:
    """Whether ℓ is so curved that the last digits of a coordinate determine it, as at a variance
    that goes to zero. Nothing can be said where rounding is more than a unit of ℓ.
    """
    length = namespace(metric).max(metric * namespace(metric).abs(point.z), axis=0)
    return (length >= SCALED_LENGTH_OF_COLLAPSE) & (noise_of(point) <= MAX_NOISE_OF_COLLAPSE)


def remember_rise(state: State, before: State) -> State:
    """An ascent from where ℓ was seen to rise, with that way as its tail unless it saw its own."""
    xp = namespace(state.point.z)
    path = Tail(
        before.point.z,
        state.point.z - before.point.z,
        before.point.value,
        xp.inf * xp.ones_like(before.point.value),
        xp.full_like(state.tail.length, STEPS_OF_A_TAIL),
    )
    keeps = state.tail.length >= STEPS_OF_A_TAIL
    return state._replace(tail=select(keeps, state.tail, path))


def is_restart(state: State) -> Array:
    """Whether the ascent started at a point that the profile of an earlier end had shown to be
    higher.
    """
    return (state.tail.length >= STEPS_OF_A_TAIL) & namespace(state.last).isinf(
        state.tail.decrement
    )
