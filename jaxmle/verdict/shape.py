"""The shape of the profile likelihood of the least certain coordinate, which decides on a doubtful
end.

It rises (no maximum: the search goes on from there), it stays level both ways (a ridge, straight or
curved), it stays level or creeps up one way and falls the other (a tail that ends at infinity or on
a bound), it rises for ever, or it falls both ways: as its parabola says, or not.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.leading_axes import column
from jaxmle.solvers.linalg import metric_of
from jaxmle.solvers.state import Point, State, noise_of, select
from jaxmle.solvers.status import is_one_of
from jaxmle.solvers.tails import is_receding
from jaxmle.solvers.trust_region import MAX_NOISE_OF_COLLAPSE
from jaxmle.verdict.doubt import (
    TEST_OFFSET,
    Doubt,
    came_along_tail,
    is_clean,
    is_collapse,
    is_steady,
)
from jaxmle.verdict.profile_path import (
    CLEAR_FALL,
    FALL_RATIO,
    NOISE_AMPLIFICATION,
    OFFSETS,
    ProfilePath,
    bar_at,
    bar_of,
    is_amplified,
    is_clear,
    passes,
    was_followed,
)

PLACE_WITHOUT_END = OFFSETS.index(12.5)  # a side that stays level so far has no end
MAX_QUADRATIC_RATIO = 125.0  # of falls at one offset and the next, five times as far
MIN_EQUAL_GAINS = 6  # steps of even gain in a row that make growth without end
NOISE_TO_HIDE_A_RISE = 0.05  # in units of ℓ
MAX_NOISE_OF_RISE = (
    1e-4  # in units of ℓ or of the rise, at its point: an ascent from there shows no more
)
MIN_REACH_OF_A_QUARTIC = 1e-3  # nearer than that its fall is rounding
MIN_LENGTH_OF_A_RIDGE = 0.01  # in standard errors of its coordinate, the others held
MIN_RATIO_WHERE_A_RIDGE_ENDS = 1e3  # of a fall to that of what rounding makes a parabola
MAX_HESSIAN_NOISE = (
    0.01  # by which Hessians a few ulps apart may differ, relative to their own size
)
MAX_RATIO_OF_EVEN_GAINS = 3.0  # of gains at one offset and the next, five times as far: t has 5
MIN_RATIO_OF_GRADUAL_FALLS = 4.0  # to points a little below; where a ridge folds, ℓ falls at once
MAX_POWER_WHERE_A_RIDGE_ENDS = 4.0  # of the distance from its end; that of a tail has no limit
# of the offset, below which the tangent of a coordinate has a finite sum: −1 is that of a logarithm
POWER_OF_A_LIMIT = -1.25
SHARE_BELOW_THE_TOP = 0.1  # of the highest change, that rounding may hide at the end of a tail
MAX_SHARE_OF_NOISE = 0.5  # of a change of ℓ that is compared with it
MIN_SHARE_OF_SIZE = 0.1  # by which a coordinate moves that goes to infinity
MIN_RATIO_OF_STEADY_GAINS = (
    0.7  # ratio of gains from one offset to the next: √t 2.2, log t 1, 1/√t .45
)


class Shape(IntEnum):
    """What the profile likelihood of the least certain coordinate does."""

    NOT_ASKED = 0
    PARABOLA = 1
    RISES = 2  # ℓ is higher a finite way off
    TAIL = 3  # it stays level, or rises to a limit, one way without end
    LEVEL = 4  # both ways
    ENDLESS = 5  # it rises for ever
    PEAK = 6  # it falls both ways, as its parabola says near by, but not as far as ±½
    VANISHING = 7  # it falls both ways, nowhere as its parabola says
    UNKNOWN = 8  # the rest could not be solved again, or noise hides it


class ProfileShape(NamedTuple):
    """The shape of the profile, and the point from which the ascent or the verdict continues."""

    shape: Array
    point: Point
    move: Array  # (k, ...) the way a tail goes
    # (k, ...) how far what has a limit along a tail moved at its end, and all where ℓ is level
    unsettled: Array
    sharp: Array  # the next digits of a coordinate decide ℓ
    blurred: Array  # and rounding is most of it
    onward: Array  # ℓ rises as far as it could be followed, a tenth of a standard error or more
    noise: Array  # of ℓ


class _Sides(NamedTuple):
    """The two sides of the profile, upwards and downwards, (2, ...) unless it says otherwise."""

    bar: Array  # (...) a change of ℓ that noise explains
    bars: Array  # (2, offsets, ...) the same at each offset
    known: Array  # (2, offsets, ...) whether the profile was solved there
    last: Array  # the last place that was; −1 where there is none
    end: Array  # the change there, −∞ where there is none
    last_gain: Array  # from the place before it
    stays: Array  # never falls
    is_open: Array  # so as far as there is no end to it
    fell: Array  # was seen to fall
    falls: Array  # did, or must have on the way that the ascent came by
    gradual: Array  # as down a tail; where a ridge ends, ℓ falls at once
    backwards: Array  # against the way that the ascent came by
    along_tail: Array  # (...) it came along a tail
    steady: Array  # ℓ grows at the end, and not by less and less
    accelerates: Array  # but by more and more, as towards a maximum far out
    fades: Array  # it does, by less and less, until nothing could be solved any more


def _sides(why: Doubt, state: State, path: ProfilePath) -> _Sides:
    xp = namespace(path.trial)
    bar = bar_of(state, path)
    changes = path.changes
    known = xp.isfinite(changes)
    bars = bar_at(why, state, path, _offsets(changes))
    last = xp.max(xp.where(known, _places(changes), -1), axis=1)
    fell = xp.any(known & (changes < -bars), axis=1) | (path.most_fall > bar)
    stays = ~fell & (last >= 0)
    forward = xp.sign(xp.sum(why.coordinate * state.tail.move, axis=0))
    onward = forward * column(np.array([1.0, -1.0]), last)
    backwards = onward < 0
    along_tail = came_along_tail(state, bar) & ~xp.any(fell & (onward > 0), axis=0)
    least_fall = xp.maximum(path.least_fall, bar)
    gradual = path.most_fall >= MIN_RATIO_OF_GRADUAL_FALLS * least_fall
    ends = [_back(changes, last, i) for i in range(4)]
    gains = [ends[i] - ends[i + 1] for i in range(3)]
    grows = xp.all(xp.stack([gains[i] > _back(bars, last, i) for i in range(3)]), axis=0)
    last_holds = gains[0] >= MIN_RATIO_OF_STEADY_GAINS * gains[1]
    before_holds = gains[1] >= MIN_RATIO_OF_STEADY_GAINS * gains[2]
    fades = stays & grows & ~last_holds & ~before_holds & (last > OFFSETS.index(TEST_OFFSET))
    return _Sides(
        bar=bar,
        bars=bars,
        known=known,
        last=last,
        end=ends[0],
        last_gain=gains[0],
        stays=stays,
        is_open=stays & (last >= PLACE_WITHOUT_END),
        fell=fell,
        falls=fell | (along_tail & backwards),
        gradual=gradual,
        backwards=backwards,
        along_tail=along_tail,
        steady=grows & last_holds & before_holds,
        accelerates=gains[1] > MAX_RATIO_OF_EVEN_GAINS * gains[2],
        fades=fades & (gradual | (along_tail & backwards))[::-1],
    )


class _Rise(NamedTuple):
    """How high ℓ is along the profile, (...) each."""

    top: Array  # the highest change; −∞ where none exceeds noise
    is_real: Array  # it is no noise
    amplified: Array  # the user's function makes noise: level ground may be what it hides


def _rise(state: State, path: ProfilePath, sides: _Sides) -> _Rise:
    xp = namespace(path.trial)
    changes = path.changes
    top = xp.max(xp.where(sides.known & (changes > sides.bars), changes, -xp.inf), axis=(0, 1))
    top = xp.maximum(top, path.highest.value - state.point.value)
    # Where a few ulps change ℓ so much, its height is no evidence.
    noise_is_small = path.noise_there <= xp.maximum(
        MAX_NOISE_OF_RISE * xp.maximum(1.0, top), NOISE_AMPLIFICATION * noise_of(state.point)
    )
    is_real = (top > sides.bar) & (top > 10 * path.noise_there) & noise_is_small
    return _Rise(top, is_real, is_amplified(state, path))


def read_profile(why: Doubt, state: State, path: ProfilePath) -> ProfileShape:
    """The shape of ℓ, from its profile."""
    xp = namespace(path.trial)
    sides = _sides(why, state, path)
    rise = _rise(state, path, sides)
    shape = _shape_of(why, state, path, sides, rise)
    end = _end_of_tail(why, state, path, rise.is_real)
    tail = is_one_of(shape, Shape.TAIL)
    # A tail does not go where ℓ was seen to fall.
    outward = xp.sum(why.coordinate * (end.move + end.unsettled), axis=0)
    outward = outward * column(np.array([1.0, -1.0]), sides.last)
    contradicted = tail & xp.any((outward > 0) & sides.fell, axis=0)
    shape = xp.where(contradicted, int(Shape.UNKNOWN), shape)
    tail = tail & ~contradicted
    point = select(is_one_of(shape, Shape.LEVEL), path.near, state.point)
    point = select(is_one_of(shape, Shape.RISES), path.highest, point)
    point = select(tail, end.point, point)
    # What moves where ℓ is level is not determined, though the ridge may end here as along log σ.
    level_move = xp.where(is_one_of(shape, Shape.LEVEL), path.level_move, 0.0)
    far_enough = sides.stays & (sides.last >= OFFSETS.index(0.1))
    high = far_enough & (sides.end >= 0.5 * rise.top)
    onward = rise.is_real & xp.any(high, axis=0)
    sharp = is_collapse(why.metric, state.point)
    return ProfileShape(
        shape=shape,
        point=point,
        move=xp.where(tail, end.move, 0.0),
        unsettled=xp.where(tail, end.unsettled, level_move),
        sharp=sharp & ~rise.amplified,
        blurred=sharp & rise.amplified,
        onward=onward,
        noise=path.noise,
    )


def _shape_of(why: Doubt, state: State, path: ProfilePath, sides: _Sides, rise: _Rise) -> Array:
    """The first shape whose condition holds, unless rounding hides it."""
    xp = namespace(path.trial)
    cases = (
        (~was_followed(path), Shape.NOT_ASKED),
        (_is_sound(why, state, path), Shape.PARABOLA),
        *_rising(why, state, path, sides, rise),
        *_level(why, state, path, sides, rise.amplified),
        *_falling(why, path, sides, rise.amplified),
        (_is_hidden_by_rounding(state, path) & rise.amplified, Shape.ENDLESS),
    )
    shape = xp.asarray(int(Shape.UNKNOWN), dtype=xp.int32)
    for holds, name in reversed(cases):
        shape = xp.where(holds, int(name), shape)
    # What stands on a curvature that is rounding is no maximum, whichever coordinate was followed.
    peaks = is_one_of(shape, Shape.PARABOLA, Shape.PEAK, Shape.VANISHING)
    blurred = (path.hessian_noise > MAX_HESSIAN_NOISE) | path.false_curvature
    # Where rounding may be more than a unit of ℓ, nothing but a rise or a parabola can be seen.
    is_rounding = noise_of(state.point) > MAX_NOISE_OF_COLLAPSE
    is_rounding = is_rounding & ~is_one_of(shape, Shape.NOT_ASKED, Shape.PARABOLA, Shape.RISES)
    return xp.where((peaks & blurred) | is_rounding, int(Shape.UNKNOWN), shape)


class _EndOfTail(NamedTuple):
    """Where a tail was left, and how (k, ...) its coordinates moved last."""

    point: Point
    move: Array  # of what recedes
    unsettled: Array  # of what has a limit


def _end_of_tail(why: Doubt, state: State, path: ProfilePath, rises: Array) -> _EndOfTail:
    """The end of a tail, if the profile has one: where ℓ ``rises``, the outermost point."""
    xp = namespace(path.trial)
    end = select(rises, path.outermost, path.level)
    is_outermost = xp.all(end.z == path.outermost.z, axis=0)
    move = end.z - xp.where(is_outermost, path.before, state.point.z)
    # What converges along the tail moves less and less; what recedes as much as it is large.
    has_limit = is_outermost & (path.power < POWER_OF_A_LIMIT) & (why.coordinate == 0)
    recedes = is_receding(end.z, move) & ~has_limit
    return _EndOfTail(end, xp.where(recedes, move, 0.0), xp.where(recedes, 0.0, move))


def _is_hidden_by_rounding(state: State, path: ProfilePath) -> Array:
    """Whether ℓ still rose by equal gains when its rounding error became as large as the gain of a
    step. This happens for a gamma distribution of equal values, where digits are lost as fast as
    the shape parameter grows.
    """
    noise_grows = (path.noise >= NOISE_TO_HIDE_A_RISE) & (path.noise <= state.rise)
    return (
        state.max_equal_gains >= MIN_EQUAL_GAINS
    ) & noise_grows  # noise above all that was gained is no rise


Cases = tuple[tuple[Array, Shape], ...]


def _is_sound(why: Doubt, state: State, path: ProfilePath) -> Array:
    """Whether ℓ falls at ±½ as its parabola predicts; if there was noise, far more than that."""
    xp = namespace(path.trial)
    at_half = xp.all(passes(why, path.changes[:, OFFSETS.index(TEST_OFFSET)]), axis=0)
    tested = xp.all(passes(why, path.tests), axis=0)
    return xp.where(why.is_noisy, is_clear(why, state, path) & (tested | at_half), tested)


def _rising(why: Doubt, state: State, path: ProfilePath, sides: _Sides, rise: _Rise) -> Cases:
    """The cases in which ℓ rises: without bound, to a limit, or to a point from which the search
    goes on.
    """
    xp = namespace(path.trial)
    top, rises, amplified = rise
    # the last place at which noise is small beside the highest change
    is_resolved = sides.known & (sides.bars <= MAX_SHARE_OF_NOISE * top)
    resolved = xp.max(xp.where(is_resolved, _places(path.changes), -1), axis=1)
    last = xp.where(resolved >= 0, resolved, sides.last)
    at_end = _back(path.changes, last, 0)
    bar_at_end = xp.minimum(_back(sides.bars, last, 0), SHARE_BELOW_THE_TOP * top)
    bar_at_end = xp.maximum(bar_at_end, sides.bar)
    # The rest may have been solved once more on the way to an offset where it could not be. Where ℓ
    # rises by more there than before, it is not on its way to a limit.
    outermost = path.outermost.value - state.point.value
    outward = xp.sum(why.coordinate * (path.outermost.z - state.point.z), axis=0)
    is_there = outward * column(np.array([1.0, -1.0]), sides.last) > 0
    farthest = xp.max(xp.where(sides.known, _offsets(path.changes), 0.0), axis=1)
    is_there = is_there & (path.reach >= farthest)
    fades = outermost - at_end <= xp.maximum(sides.last_gain, bar_at_end)
    at_end = xp.where(is_there & fades & ~amplified, xp.maximum(at_end, outermost), at_end)
    ends_high = (sides.is_open | sides.fades) & (at_end + bar_at_end >= top)
    ends_high = xp.any(ends_high & ~_turns(path.changes, sides), axis=0)
    grows = xp.any(sides.is_open & sides.steady, axis=0)
    # Growth that goes on beyond the scale of the point itself; not that up a distant parabola.
    even = sides.is_open & sides.steady & ~sides.accelerates
    endless = xp.any(even, axis=0) & (path.reach * why.unit >= 100 * _size(why, state))
    # An unbounded ℓ is as curved where it is higher; what comes from a chasm is not.
    highest = path.highest
    metric = metric_of(highest.hessian, highest.score)
    collapses = is_collapse(why.metric, state.point) & is_collapse(metric, highest)
    collapses = collapses & (top > CLEAR_FALL + sides.bar) & ~amplified
    return (
        (rises & ends_high & endless, Shape.ENDLESS),
        (collapses, Shape.ENDLESS),
        (rises & ends_high & ~grows, Shape.TAIL),
        (rises, Shape.RISES),
    )


def _turns(changes: Array, sides: _Sides) -> Array:
    """Whether ℓ falls again (2, ...) from where it was highest, by more than noise explains."""
    xp = namespace(changes)
    least = xp.where(sides.known, changes - sides.bars, -xp.inf)
    most = xp.where(sides.known, changes + sides.bars, xp.inf)
    highest = xp.max(least, axis=1, keepdims=True)
    beyond = _places(changes) > _first(least == highest)
    return xp.any(beyond & (most < highest), axis=1)


def _level(why: Doubt, state: State, path: ProfilePath, sides: _Sides, amplified: Array) -> Cases:
    """The cases in which ℓ stays level, on both sides or on one."""
    xp = namespace(path.trial)
    reach = path.level_reach
    # Level so far that the parabola, or without one a curve of fourth order, would have shown.
    fourth_order = xp.where(reach >= MIN_REACH_OF_A_QUARTIC, 0.01 * reach**4, 0.0)
    curved = why.curvature > 0
    would_show = xp.where(curved, 0.1 * why.curvature * reach**2, fourth_order)
    near = xp.all(would_show >= sides.bar, axis=0)
    # Past where a quartic would have shown too.
    far = xp.all((would_show >= 10 * sides.bar) & curved, axis=0)
    clean = is_clean(state)
    # Or as far as shows where the other coordinates are held, to where the ridge turns back and ℓ
    # falls at once, as that of loadings that may be turned does.
    held = reach * why.unit * xp.sum(why.coordinate * why.metric, axis=0)
    parabola = 0.5 * why.curvature * _offsets(path.changes) ** 2
    fallen = sides.known & (path.changes < -sides.bars)
    at_once = xp.all(~fallen | (path.changes <= -MIN_RATIO_WHERE_A_RIDGE_ENDS * parabola), axis=1)
    turns = xp.all((held >= MIN_LENGTH_OF_A_RIDGE) & at_once, axis=0) & is_steady(state) & curved
    # Ten times as far as the coordinate is large, on the way that the ascent came by.
    followed = sides.stays & sides.along_tail & ~sides.backwards
    followed = followed & (reach * why.unit >= 10 * _size(why, state))
    # Growth that does not shrink is no way to a limit, though noise may hide where it leads.
    one_way = (sides.is_open | followed) & ~sides.falls & ~sides.steady
    one_way = xp.any(one_way, axis=0)
    gradual = xp.any(sides.gradual, axis=0)
    # An ascent to a definite information that converged faster than linearly was on no tail: level
    # ground is a ridge, though it falls gradually where the ridge turns back.
    converged = clean & curved
    unclear = (gradual & ~converged) | (xp.any(sides.falls, axis=0) & ~clean)
    tail = one_way & (sides.along_tail | unclear)
    # Half as far as ℓ falls clearly one way, it does not fall at all the other way.
    is_far = path.high_reach >= 0.5 * path.clear_fall[::-1]
    # A coordinate that goes to infinity moves by a unit, as a logarithm, or a tenth of its size.
    least_move = xp.minimum(1.0, MIN_SHARE_OF_SIZE * _size(why, state))
    is_far = is_far & (path.high_reach * why.unit >= least_move)
    as_tail = _falls_as_tail(path, sides.bar)[::-1]
    one_sided = sides.stays & (sides.gradual[::-1] | as_tail) & is_far
    # An ascent that converged to an information that is not rounding was on a ridge.
    is_trusted = clean & (path.hessian_noise <= MAX_HESSIAN_NOISE) & (near | curved)
    one_sided = xp.any(one_sided & ~sides.steady & ~(is_trusted & ~as_tail), axis=0)
    # A logarithm that is level downwards and falls gradually upwards is that of a bound.
    to_limit = sides.along_tail | (gradual & why.is_logarithm)
    # as far as where a parabola would have been seen to fall
    both_ways = xp.all(sides.stays & (sides.last >= OFFSETS.index(TEST_OFFSET)), axis=0)
    # ℓ that falls and comes back to its level farther off is that of a plateau beside a hollow.
    back = sides.known & (path.changes >= -sides.bar) & (_places(path.changes) > _first(fallen))
    dips = xp.any(back, axis=(0, 1)) & ~amplified & ~_is_parabolic_nearby(why, path, sides)
    # A maximum of eighth order is level near by, and falls gradually on both sides.
    is_high_order = xp.all(sides.fell & sides.gradual, axis=0) & ~curved
    return (
        (dips, Shape.VANISHING),
        (one_sided, Shape.TAIL),
        (one_way & to_limit & xp.any(sides.fell, axis=0) & ~curved, Shape.TAIL),
        (((near & clean) | far | turns) & ~amplified, Shape.LEVEL),
        (tail, Shape.TAIL),
        ((one_way | both_ways | (near & ~is_high_order)) & ~amplified, Shape.LEVEL),
    )


def _falls_as_tail(path: ProfilePath, bar: Array) -> Array:
    """On which sides (2, ...) ℓ falls as down a tail that is less than noise at the end of the
    ascent, as from log τ = −20 where the best variance τ² is zero. Where a ridge ends, it falls as
    a power p of the distance d from there, mostly the second, and its ratio to its slope is d/p.
    """
    xp = namespace(bar)
    is_seen = xp.isfinite(path.next_clear_fall)
    between = xp.where(is_seen, path.next_clear_fall - path.clear_fall, 0.0)
    is_steeper = between >= MAX_POWER_WHERE_A_RIDGE_ENDS * (
        path.next_inverse_rate - path.inverse_rate
    )
    is_seen = is_seen & (path.inverse_rate > 0)
    distance = xp.where(is_seen, path.clear_fall / xp.where(is_seen, path.inverse_rate, 1.0), 0.0)
    return is_seen & is_steeper & (path.nearest_fall * xp.exp(-distance) <= bar)


def _falling(why: Doubt, path: ProfilePath, sides: _Sides, amplified: Array) -> Cases:
    """The cases in which ℓ falls on both sides."""
    falls = namespace(path.trial).all(sides.falls, axis=0)
    hidden = falls & ~(why.curvature > 0) & _is_quadratic(path.changes, sides.bars)
    return (
        (hidden, Shape.UNKNOWN),
        (falls & ~amplified & _is_parabolic_nearby(why, path, sides), Shape.PEAK),
        (falls & ~amplified, Shape.VANISHING),
    )


def _is_parabolic_nearby(why: Doubt, path: ProfilePath, sides: _Sides) -> Array:
    """Whether ℓ falls on both sides as its parabola predicts at some offset up to ½."""
    xp = namespace(path.trial)
    changes = path.changes
    offsets = _offsets(changes)
    parabola = 0.5 * why.curvature * offsets**2
    shows = sides.known & (parabola >= 20 * sides.bars) & (offsets <= TEST_OFFSET)
    fits = (changes <= -parabola / FALL_RATIO) & (changes >= -parabola * FALL_RATIO)
    return xp.all(xp.any(shows & fits, axis=1), axis=0)


def _offsets(changes: Array) -> Array:
    """The offsets (1, offsets, ...) beside what there is at each, (2, offsets, ...)."""
    return column(np.array(OFFSETS, dtype=changes.dtype), changes[0])[None]


def _places(changes: Array) -> Array:
    """The places of the offsets (1, offsets, ...)."""
    return column(np.arange(len(OFFSETS)), changes[0])[None]


def _size(why: Doubt, state: State) -> Array:
    """The size of the coordinate, plus one."""
    xp = namespace(state.point.z)
    return 1.0 + xp.abs(xp.sum(why.coordinate * state.point.z, axis=0))


def _is_quadratic(changes: Array, bar: Array) -> Array:
    """Whether ℓ falls by some 25 from one offset to the next, five times as far, wherever that
    shows: a regular maximum, whose curvature rounding hides. A quartic falls by 625.
    """
    xp = namespace(changes)
    first = OFFSETS.index(TEST_OFFSET)
    near, far = changes[:, first:-1], changes[:, first + 1 :]
    shows = (near < -20 * bar[:, first:-1]) & xp.isfinite(far)
    holds = (far <= 5 * near) & (far >= MAX_QUADRATIC_RATIO * near)
    return xp.all(xp.any(shows, axis=1) & xp.all(~shows | holds, axis=1), axis=0)


def _first(holds: Array) -> Array:
    """The first place (2, 1, ...) at which it holds (2, offsets, ...); past the last where it never
    does.
    """
    xp = namespace(holds)
    places = xp.where(holds, _places(holds), len(OFFSETS))
    return xp.min(places, axis=1, keepdims=True)


def _back(changes: Array, last: Array, steps: int) -> Array:
    """The entries (2, ...) so many places before the last known ones; −∞ before the first."""
    xp = namespace(changes)
    place = last - steps
    there = _places(changes) == place[:, None]
    entry = xp.sum(xp.where(there, xp.nan_to_num(changes), 0.0), axis=1)
    return xp.where(place >= 0, entry, -xp.inf)
