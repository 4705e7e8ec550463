"""The points of a profile: where the next one is predicted, and the Newton step that solves the
other coordinates again while z_j is held.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.leading_axes import (
    column,
    members_of,
    outer,
    symmetric,
    times,
    transposed,
)
from jaxmle.solvers.linalg import eigh, from_eigen, metric_of
from jaxmle.solvers.state import Point, State, noise_of
from jaxmle.verdict.doubt import TEST_OFFSET, Doubt
from jaxmle.verdict.profile_path import NOISE, OFFSETS, TESTS, ProfilePath, slope_of

MAX_EXPONENT_OF_A_STEP = 30.0  # of e, by which a step may be predicted to change a coordinate
UPWARD_CURVATURE = 1e-6  # eigenvalue of the scaled Hessian of the rest from which ℓ curves upwards
MIN_STEP_OFF_SADDLE = 0.1  # in units of the metric


class Rest(NamedTuple):
    """The other coordinates while z_j is held."""

    step: Array  # (k, ...) towards their maximum
    decrement: Array  # what they have yet to gain
    tangent: Array  # (k, ...) dz/dz_j while they stay at it
    is_concave: Array  # ℓ is so in them


def solve_rest(why: Doubt, point: Point) -> Rest:
    """The Newton step of the other coordinates, by eigenvectors: an ascent direction also where ℓ
    is not concave, and zero along directions in which ℓ is flat.
    """
    xp = namespace(point.z)
    free = 1.0 - why.coordinate
    scale = metric_of(point.hessian, point.score)
    hessian = symmetric(point.hessian) / outer(scale, scale)
    held = outer(why.coordinate, why.coordinate)
    values, q = eigh(-hessian * free[:, None] * free[None, :] + held)
    cut = k_times_eps(point.z) * 50.0
    flat = xp.abs(values) <= cut
    weights = xp.where(flat, 0.0, 1.0 / xp.where(flat, 1.0, xp.abs(values)))
    inverse = from_eigen(q, weights)
    slope = free * point.score / scale
    # Where it curves upwards and has no slope, as where two exponentials are equal, it is pushed.
    convex = values < -UPWARD_CURVATURE
    along = times(transposed(q), slope) * weights
    is_saddle = convex & (xp.abs(along) < MIN_STEP_OFF_SADDLE)
    along = xp.where(
        is_saddle, xp.where(along < 0, -MIN_STEP_OFF_SADDLE, MIN_STEP_OFF_SADDLE), along
    )
    step = times(q, along)
    left = 0.5 * xp.sum(xp.abs(values) * along**2, axis=0)
    unit = xp.sum(why.coordinate * scale, axis=0)
    along = times(inverse, times(hessian, why.coordinate) * free) * unit
    tangent = along * free / scale + why.coordinate
    return Rest(step * free / scale, left, tangent, ~xp.any(convex, axis=0))


def k_times_eps(z: Array) -> Array:
    """The rounding error of an eigenvalue of a matrix scaled to one."""
    return z.shape[0] * namespace(z).finfo(z.dtype).eps


def predicted_point(
    why: Doubt, anchor: Array, tangent: Array, start: Array | float, end: Array | float
) -> Array:
    """The predicted point (k, ...) along the tangent."""
    return anchor + (end - start) * why.unit * tangent


def predicted_by_power(
    why: Doubt, path: ProfilePath, anchor: Array, tangent: Array, start: Array, end: Array
) -> Array:
    """The predicted point along a curve whose tangent goes with a power of z_j, as it did from the
    solved point before the last one: along z_i = c z_jᵉ or c log z_j that is exact, and along
    z_i = c exp z_j nearly so. Where the tangent tells no power, the curve is straight.
    """
    xp = namespace(anchor)
    held = xp.sum(why.coordinate * anchor, axis=0)
    growth = 1.0 + (end - start) * why.unit / xp.where(held == 0, 1.0, held)
    growth_so_far = held / xp.where(path.previous_held == 0, 1.0, path.previous_held)
    ratio_of_tangents = tangent / xp.where(path.previous_tangent == 0, 1.0, path.previous_tangent)
    is_known = (growth > 0) & (held != 0) & (growth_so_far > 0) & (growth_so_far != 1.0)
    is_power = is_known & (ratio_of_tangents > 0) & (ratio_of_tangents != 1.0)
    logarithm = xp.log(xp.where(is_power, growth_so_far, 2.0))
    power = 1.0 + xp.log(xp.where(is_power, ratio_of_tangents, 1.0)) / logarithm
    log_growth = xp.log(xp.where(is_known, growth, 1.0))
    exponent = log_growth * power
    is_power = is_power & (xp.abs(exponent) <= MAX_EXPONENT_OF_A_STEP)
    is_logarithm = power == 0
    length = xp.expm1(exponent) / xp.where(is_logarithm, 1.0, power)
    length = xp.where(is_logarithm, log_growth, length)
    by_power = anchor + held * tangent * length
    return xp.where(is_power, by_power, predicted_point(why, anchor, tangent, start, end))


def perturbed(z: Array, turn: int | Array) -> Array:
    """A point a few ulps away in every coordinate, in another direction at each turn."""
    xp = namespace(z)
    sign = xp.where((column(np.arange(z.shape[0]), z) + turn) % 2 == 0, 1.0, -1.0)
    size = xp.maximum(xp.abs(z), xp.finfo(z.dtype).tiny ** 0.5)
    return z + sign * (1 + 2 * turn) * xp.finfo(z.dtype).eps * size


def begin_path(state: State, why: Doubt, active: Array) -> ProfilePath:
    """The initial state, before the first point."""
    xp = namespace(state.point.z)
    dtype = state.point.z.dtype
    members = members_of(state.point.z)
    zero = xp.zeros(members, dtype=xp.int32)
    nothing = xp.zeros(members, dtype)
    half = TEST_OFFSET * xp.ones(members, dtype)
    tangent = solve_rest(why, state.point).tangent
    starts_with_noise = (why.curvature == 0.0) | why.is_noisy
    first = predicted_point(why, state.point.z, tangent, nothing, half)
    return ProfilePath(
        trial=xp.where(starts_with_noise, perturbed(state.point.z, 0), first),
        active=active,
        first_tangent=tangent,
        stage=xp.where(starts_with_noise, NOISE, TESTS).astype(xp.int32),
        side=zero,
        place=zero,
        offset=half,
        corrections=zero,
        correction=xp.zeros_like(tangent),
        corrected_value=nothing,
        retreats=zero,
        barrier=nothing,
        steps=zero,
        anchor=state.point.z,
        tangent=tangent,
        previous_tangent=tangent,
        previous_held=xp.sum(why.coordinate * state.point.z, axis=0),
        anchor_offset=nothing,
        anchor_value=state.point.value,
        anchor_slope=slope_of(why, state.point, tangent),
        tests=xp.full((2, *members), xp.nan, dtype),
        changes=xp.full((2, len(OFFSETS), *members), xp.nan, dtype),
        level_reach=xp.zeros((2, *members), dtype),
        level_move=xp.zeros_like(tangent),
        noise=noise_of(state.point),
        noise_near=nothing,
        noise_there=nothing,
        hessian_noise=nothing,
        false_curvature=xp.zeros(members, bool),
        least_fall=xp.full((2, *members), xp.inf, dtype),
        most_fall=xp.zeros((2, *members), dtype),
        clear_fall=xp.full((2, *members), xp.inf, dtype),
        nearest_fall=xp.zeros((2, *members), dtype),
        inverse_rate=xp.zeros((2, *members), dtype),
        next_clear_fall=xp.full((2, *members), xp.inf, dtype),
        next_inverse_rate=xp.zeros((2, *members), dtype),
        high_reach=xp.zeros((2, *members), dtype),
        is_lost=xp.zeros(members, bool),
        highest=state.point,
        near=state.point,
        level=state.point,
        outermost=state.point,
        reach=nothing,
        before=state.point.z,
        power=xp.zeros_like(tangent),
    )
