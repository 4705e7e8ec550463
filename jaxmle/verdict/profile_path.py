"""The state of following the profile likelihood, and which changes of ℓ along it exceed noise."""

from __future__ import annotations

from typing import NamedTuple

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.leading_axes import dot
from jaxmle.solvers.state import Point, State, noise_of
from jaxmle.verdict.doubt import TEST_OFFSET, Doubt, is_clean

# Offsets of the walk, in standard errors: from where any ridge still is its tangent, and any
# standard error that rounding made still short, to where any tail has ended.
OFFSETS = (1e-10, *(10.0**i for i in range(-8, -1)), 0.1, 0.5, *(2.5 * 5.0**i for i in range(20)))
PLACE_OF_ROUNDING = OFFSETS.index(
    2.5 * 5.0**7
)  # 195 312: what rounding makes of two collinear columns shows
FALL_RATIO = 3.0  # factor by which the fall may differ from that of the parabola
CLEAR_FALL = 1.0  # in units of ℓ: a side that fell so far is not followed any further
BARS_OF_A_CLEAR_FALL = 100.0  # changes that noise explains
MAX_ROUNDING_OF_A_CHANGE = 0.01  # in units of ℓ; single precision rounds an ℓ of 1e4 by .001
ROUNDINGS_OF_A_DISTANCE = 64.0
NOISE_AMPLIFICATION = (
    100.0  # times the rounding of a sum of terms: noise that the user's function makes
)
MIN_AMPLIFIED_NOISE = 1e-9  # in units of ℓ
MAX_SHARE_OF_SLOPES = 3.0  # of a gain beside what the steeper end of the way promises
NOISE_PROBES = 5  # points a few ulps away whose value tells the noise
TESTS, NOISE, PROFILE, PROBE, EACH, RETURN, CHECK, OVER = range(8)


class ProfilePath(NamedTuple):
    """The profile so far, and the point to evaluate next."""

    trial: Array  # (k, ...)
    active: Array  # (...)
    first_tangent: Array  # (k, ...) dz/dz_j at the end of the ascent
    stage: Array  # one of TESTS, NOISE, PROFILE, PROBE, EACH, RETURN, CHECK, OVER
    side: Array  # 0 upwards, 1 downwards
    place: Array  # the place in OFFSETS that is aimed at
    offset: Array  # signed, in units, of the trial
    corrections: Array
    correction: Array  # (k, ...) the step that the last of them made
    corrected_value: Array  # ℓ before it
    retreats: Array
    barrier: Array  # the offset at which the last attempt failed
    steps: Array
    anchor: Array  # (k, ...) the last point of this side at which the rest was solved
    tangent: Array  # (k, ...) dz/dz_j there
    previous_tangent: Array  # (k, ...) at the solved point before that
    previous_held: Array  # z_j there
    anchor_offset: Array
    anchor_value: Array  # ℓ there
    anchor_slope: Array  # dℓ/dz_j there, per unit
    tests: Array  # (2, ...) change of ℓ at ±½, NaN where the rest was not solved
    changes: Array  # (2, offsets, ...) the same along the walk
    level_reach: Array  # (2, ...) the offset up to which ℓ is level
    level_move: Array  # (k, ...) how far each coordinate went where ℓ is level
    noise: Array  # how much ℓ differs between points that should have one value
    noise_near: Array  # by how much it differs from its slopes at the nearest offsets
    noise_there: Array  # the same at the highest point
    hessian_noise: Array  # how much their scaled Hessians differ
    false_curvature: Array  # along some coordinate ℓ does not fall as its standard error says
    least_fall: Array  # (2, ...) of ℓ to a point a little below the end of the ascent
    most_fall: Array  # (2, ...)
    clear_fall: Array  # (2, ...) the nearest offset at which ℓ is clearly lower
    nearest_fall: Array  # (2, ...) by how much
    inverse_rate: Array  # (2, ...) its ratio to the slope there
    next_clear_fall: Array  # (2, ...) the next offset at which ℓ is clearly lower
    next_inverse_rate: Array  # (2, ...) the ratio there
    high_reach: Array  # (2, ...) the farthest one at which it is not lower
    is_lost: Array  # farther out on this side rounding is more than what ℓ gains
    highest: Point
    near: Point  # the end of the ascent with the rest solved again
    level: Point  # the outermost point within noise of the end of the ascent
    outermost: Point  # the outermost point that is not below it
    reach: Array  # the offset there
    before: Array  # (k, ...) the last solved point at half its distance or less
    # (k, ...) the power of the offset with which the tangent goes there; 0 where nothing tells it
    power: Array


def power_of_tangent(path: ProfilePath, tangent: Array) -> Array:
    """The power of the offset (k, ...) with which the tangent goes from the anchor to this point:
    0 for what recedes like z_j, −1 like its logarithm; below −1 a coordinate has a limit.
    """
    xp = namespace(tangent)
    is_known = (path.tangent != 0) & (tangent != 0)
    ratio = xp.where(is_known, tangent / xp.where(is_known, path.tangent, 1.0), 1.0)
    growth = xp.abs(path.offset) / xp.where(path.anchor_offset == 0, 1.0, path.anchor_offset)
    growth = xp.abs(growth)
    tells = (path.anchor_offset != 0) & (growth >= 2.0)
    return xp.where(tells, xp.log(xp.abs(ratio)) / xp.log(xp.where(tells, growth, 2.0)), path.power)


def was_followed(path: ProfilePath) -> Array:
    """Whether the profile was followed."""
    return path.steps > 0


def bar_of(state: State, path: ProfilePath) -> Array:
    """The largest change of ℓ that noise, or the remaining decrement, can explain."""
    noise = namespace(path.noise).maximum(path.noise, path.noise_near)
    return 10 * noise + 4 * namespace(path.noise).minimum(state.newton.decrement, 1e-6)


def bar_at(why: Doubt, state: State, path: ProfilePath, offset: Array) -> Array:
    """``bar_of`` at an offset: coordinates of 1e8 that cancel leave errors of 1e-8."""
    xp = namespace(path.noise)
    roundings = ROUNDINGS_OF_A_DISTANCE * xp.finfo(path.noise.dtype).eps
    return bar_of(state, path) + roundings * xp.abs(offset) * why.length


def passes(why: Doubt, tests: Array) -> Array:
    """On which sides (2, ...) ℓ falls at ±½ as the parabola predicts."""
    parabola = 0.5 * why.curvature * TEST_OFFSET**2
    return (tests <= -parabola / FALL_RATIO) & (tests >= -parabola * FALL_RATIO)


def is_clear(why: Doubt, state: State, path: ProfilePath) -> Array:
    """Whether the fall at ±½ that the parabola predicts is far above noise."""
    return 0.5 * why.curvature * TEST_OFFSET**2 >= 10 * bar_of(state, path)


def is_sound_but_unclean(why: Doubt, state: State, path: ProfilePath) -> Array:
    """Whether both sides passed although the ascent did not converge faster than linearly: the
    cause is then in another coordinate.
    """
    return namespace(path.tests).all(passes(why, path.tests), axis=0) & ~is_clean(state)


def slope_of(why: Doubt, point: Point, tangent: Array) -> Array:
    """The derivative of ℓ per unit of z_j along the profile, whose tangent is dz/dz_j (k, ...)."""
    return why.unit * dot(point.score, tangent)


def is_amplified(state: State, path: ProfilePath) -> Array:
    """Whether the noise of ℓ is far larger than the rounding of a sum of its terms."""
    xp = namespace(path.noise)
    return path.noise > xp.maximum(NOISE_AMPLIFICATION * noise_of(state.point), MIN_AMPLIFIED_NOISE)


def is_promised(state: State, path: ProfilePath, point: Point, slope: Array, bar: Array) -> Array:
    """Whether the change of ℓ from the anchor to this point is what the slopes at both promise. If
    not, ℓ has lost its digits there, although it may be smooth again at a wrong height, or a
    shorter step shows what lies between. A small change may be rounding, as of single precision.
    """
    xp = namespace(slope)
    steeper = xp.maximum(xp.abs(slope), xp.abs(path.anchor_slope))
    most = MAX_SHARE_OF_SLOPES * steeper * xp.abs(path.offset - path.anchor_offset)
    most = most + bar + 2 * xp.minimum(state.newton.decrement, CLEAR_FALL)
    least = xp.where(is_amplified(state, path), 0.0, MAX_ROUNDING_OF_A_CHANGE)
    return xp.abs(point.value - path.anchor_value) <= xp.maximum(most, least)
