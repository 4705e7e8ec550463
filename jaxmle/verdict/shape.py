"""The shape of ℓ about the end of a climb, on the scale of its own standard error.

Curvature at one point proves no maximum: what rounding leaves of a flat direction is a curvature
too, an inflection has none, and a ridge that bends away looks like a peak from its tangent. So where
there is cause for doubt, the profile likelihood of the least certain coordinate z_j is looked at:
z_j is held at ±½ of its standard error, the rest solved again, and ℓ has to fall there as its
parabola says, within a factor of three. Where it does not, the profile is followed from a
ten-thousandth of a standard error outwards, both ways, and what it does is the verdict: it rises
(no maximum: climb on from there), it stays level both ways (a ridge, straight or curved), it stays
level or creeps up one way and falls the other (a tail that ends at infinity or on a bound), it rises
for ever, or it falls both ways, though not as a parabola.

Of 150 logits with n = 25 the ratio of fall to parabola was .79 to 1.34; of 100 Weibull samples with
n = 7, .88 to 1.14; of a truncated normal whose mean runs away, −2e-4 and .01.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.linalg import eigh, factored, metric_of, solve_lower
from jaxmle.solvers.trust_region import TAIL, Point, State, Tail, is_finite, noise_of, without_dust

HALF = 0.5  # of a standard error: where the parabola is tested
# Offsets of the walk, in standard errors: from where any ridge still is its tangent, and any
# standard error that rounding made still short, to where any tail has ended.
OFFSETS = (1e-10, *(10.0**i for i in range(-8, -1)), 0.1, 0.5, *(2.5 * 5.0**i for i in range(20)))
BEYOND = OFFSETS.index(12.5)  # a side that stays level so far is asked once more, far out
FAR = OFFSETS.index(2.5 * 5.0**7)  # 195 312: what rounding makes of two collinear columns shows
FALL_RATIO = 3.0  # factor by which the fall may differ from that of the parabola
MAX_VIF = 1e3  # variance inflation factor from which a maximum has to show its shape
WIDE = 3.0  # standard error, in units of the coordinate or of one, from which it has to
LONG = 1e3  # coordinates beyond may have run there: a standard error of three times that is wide
FAR_OUT = 16.0  # a logarithm of 1e7 or 1e-7
MAX_STEP_OF_A_LOGARITHM = 0.25  # to which an offset of ½ is cut: x is not linear in log x further
CLEAN_DECREMENT_RATIO = 0.05  # of the last full Newton step: converging faster than linearly
CLEAN_INFORMATION_CHANGE = 0.1  # by the last full Newton step
MAX_CORRECTIONS = 6  # Newton steps that solve the rest again at one offset
MAX_RETREATS = 3  # offsets tried a quarter of the way where the rest cannot be solved
MAX_QUADRATIC_RATIO = 125.0
CONVEX = 1e-6  # eigenvalue of the scaled Hessian of the rest from which ℓ curves upwards
PUSH = 0.1  # in units of the metric
SHARPEST = 1e8  # standard errors from a coordinate to zero
CLEAR_FALL = 1.0  # in units of ℓ: a side that fell so far is not followed any further
AMPLIFIED = 100.0
AMPLIFIED_NOISE = 1e-9  # in units of ℓ
ROUNDINGS_OF_A_DISTANCE = 64.0
NOISE_PROBES = 5  # points a few ulps away whose value tells the noise
SHRINKING = (
    0.7  # ratio of gains from one offset to the next, five times as far: √t 2.2, log t 1, 1/√t .45
)
TESTS, NOISE, WALK, CHECK, OVER = range(5)


class Shape(IntEnum):
    """What the profile likelihood of the least certain coordinate does."""

    NOT_ASKED = 0
    PARABOLA = 1
    RISES = 2  # ℓ is higher a finite way off
    TAIL = 3  # it stays level, or rises to a limit, one way without end
    LEVEL = 4  # both ways
    ENDLESS = 5  # it rises for ever
    PEAK = 6  # it falls both ways, not as its parabola says
    UNKNOWN = 7  # the rest could not be solved again, or noise hides it


class Doubt(NamedTuple):
    """Why and along which coordinate the shape is asked for."""

    asked: Array  # ()
    coordinate: Array  # (k,) one at the coordinate, zero elsewhere
    unit: Array  # () its standard error, cut where the coordinate is a logarithm
    curvature: Array  # () of the profile per unit², (unit/SE)²; zero where there is none
    is_logarithm: Array  # ()
    correlated: Array  # () other standard errors depend on this one
    is_noisy: Array  # () the climb met rounding noise, or went where there may be some


class Walk(NamedTuple):
    """The profile so far, and the point that is asked for next."""

    trial: Array  # (k,)
    active: Array  # ()
    stage: Array  # TESTS, NOISE, WALK, CHECK, OVER
    side: Array  # 0 upwards, 1 downwards
    place: Array  # the place in OFFSETS that is aimed at
    offset: Array  # signed, in units, of the trial
    corrections: Array
    retreats: Array
    steps: Array
    anchor: Array  # (k,) the last point of this side at which the rest was solved
    tangent: Array  # (k,) dz/dz_j there
    anchor_offset: Array
    tests: Array  # (2,) change of ℓ at ±½, NaN where the rest was not solved
    changes: Array  # (2, offsets) the same along the walk
    level_reach: Array  # (2,) the offset up to which ℓ is level
    noise: Array  # how much ℓ differs between points that should have one value
    noise_there: Array  # the same at the highest point
    falling: Array  # (2,) points a little below the end of the climb
    highest: Point
    near: Point  # the end of the climb with the rest solved again
    level: Point  # the outermost point within noise of the end of the climb
    outermost: Point  # the outermost point that is not below it
    reach: Array  # the offset there
    before: Array  # (k,) the solved point before the outermost one


def doubt(logarithms: tuple[bool, ...], state: State, singular: Array, null: Array) -> Doubt:
    """The coordinate that most needs to show its shape, if any.

    Args:
        logarithms: for each free coordinate whether it is the logarithm of a parameter, or alike.
        singular: the information has null directions at the end of the climb.
        null: one of them (k,), in coordinates scaled by D.
    """
    xp = namespace(state.point.z)
    k = state.point.z.shape[0]
    scale = metric_of(state.point.hessian, state.point.score)
    information = -0.5 * (state.point.hessian + state.point.hessian.T)
    r = information / (scale[:, None] * scale[None, :])
    half = solve_lower(factored(r, unrolled=True), xp.eye(k, dtype=r.dtype), unrolled=True)
    vif = xp.sum(half**2, axis=0)
    sound = xp.all(xp.isfinite(vif))
    vif = xp.where(sound, vif, 1.0)
    stderr = xp.sqrt(vif) / scale
    size = xp.abs(state.point.z)
    curved = xp.asarray(np.array(logarithms or (False,) * k))
    suspicion = xp.maximum(
        vif / MAX_VIF, stderr / (WIDE * xp.where(curved, 1.0, xp.clip(size, 1.0, LONG)))
    )
    suspicion = xp.maximum(suspicion, xp.where(curved, size / FAR_OUT, 0.0))
    suspicion = xp.where(singular, xp.abs(null), suspicion)
    last = xp.abs(scale * state.last)
    moved = last / xp.maximum(xp.max(last), xp.finfo(r.dtype).tiny)
    strange = xp.max(suspicion) >= 1.0
    # Where nothing but the way of the last steps is strange, the coordinate is the one they moved.
    suspicion = xp.where(singular | strange, suspicion, moved)
    chosen = xp.arange(k) == xp.argmax(suspicion)
    coordinate = xp.where(chosen, 1.0, 0.0).astype(r.dtype)
    se = xp.sum(coordinate * xp.where(singular, 1.0 / xp.maximum(state.scale, scale), stderr))
    is_logarithm = xp.any(chosen & curved)
    unit = xp.where(is_logarithm, xp.minimum(se, MAX_STEP_OF_A_LOGARITHM / HALF), se)
    curvature = xp.where(singular, 0.0, (unit / se) ** 2)
    asked = singular | (sound & (strange | ~is_clean(state)))
    correlated = xp.sum(coordinate * vif) >= MAX_VIF
    far_out = xp.any(curved & (size >= FAR_OUT))
    is_noisy = state.rough | (state.tail.length >= TAIL) | far_out
    return Doubt(asked, coordinate, unit, curvature, is_logarithm, correlated, is_noisy)


def is_clean(state: State) -> Array:
    """Whether the last full Newton step converged faster than linearly, or nothing is left to
    converge.
    """
    shows = state.signature
    steady = namespace(shows.information).abs(shows.information - 1.0) <= CLEAN_INFORMATION_CHANGE
    return steady & ((shows.decrement <= CLEAN_DECREMENT_RATIO) | (state.newton.decrement <= 1e-24))


def begin_walk(state: State, why: Doubt, active: Array) -> Walk:
    """The walk before its first point."""
    xp = namespace(state.point.z)
    dtype = state.point.z.dtype
    zero = xp.zeros((), dtype=xp.int32)
    nothing = xp.zeros((), dtype)
    tangent = _solve_rest(why, state.point).tangent
    walks = (why.curvature == 0.0) | why.is_noisy
    first = _aim(why, state.point.z, tangent, nothing, HALF * xp.ones((), dtype))
    return Walk(
        xp.where(walks, _shaken(state.point.z, why, 0), first),
        active,
        xp.where(walks, NOISE, TESTS).astype(xp.int32),
        zero,
        zero,
        HALF * xp.ones((), dtype),
        zero,
        zero,
        zero,
        state.point.z,
        tangent,
        nothing,
        xp.full((2,), xp.nan, dtype),
        xp.full((2, len(OFFSETS)), xp.nan, dtype),
        xp.zeros((2,), dtype),
        noise_of(state.point),
        nothing,
        xp.zeros((2,), dtype=xp.int32),
        state.point,
        state.point,
        state.point,
        state.point,
        nothing,
        state.point.z,
    )


class Rest(NamedTuple):
    """All other coordinates while z_j is held."""

    step: Array  # (k,) towards their maximum
    decrement: Array  # what they have yet to gain
    tangent: Array  # (k,) dz/dz_j while they stay at it
    is_concave: Array  # ℓ is so in them


def _solve_rest(why: Doubt, point: Point) -> Rest:
    """The Newton step of the rest, by eigenvectors: uphill also where ℓ is not concave, and nowhere
    where it is flat.
    """
    xp = namespace(point.z)
    free = 1.0 - why.coordinate
    scale = metric_of(point.hessian, point.score)
    outer = scale[:, None] * scale[None, :]
    hessian = 0.5 * (point.hessian + point.hessian.T) / outer
    values, q = eigh(-hessian * free[:, None] * free[None, :] + xp.diag(why.coordinate))
    cut = k_times_eps(point.z) * 50.0
    flat = xp.abs(values) <= cut
    weights = xp.where(flat, 0.0, 1.0 / xp.where(flat, 1.0, xp.abs(values)))
    inverse = (q * weights[None, :]) @ q.T
    slope = free * point.score / scale
    # Where it curves upwards and has no slope, as where two exponentials are equal, it is pushed.
    convex = values < -CONVEX
    along = (q.T @ slope) * weights
    pushed = convex & (xp.abs(along) < PUSH)
    along = xp.where(pushed, xp.where(along < 0, -PUSH, PUSH), along)
    step = q @ along
    left = 0.5 * xp.sum(xp.abs(values) * along**2)
    unit = xp.sum(why.coordinate * scale)
    along = inverse @ ((hessian @ why.coordinate) * free) * unit
    tangent = along * free / scale + why.coordinate
    return Rest(step * free / scale, left, tangent, ~xp.any(convex))


def k_times_eps(z: Array) -> Any:
    """The rounding error of an eigenvalue of a matrix scaled to one."""
    return z.shape[0] * namespace(z).finfo(z.dtype).eps


def _aim(why: Doubt, anchor: Array, tangent: Array, start: Array, end: Array) -> Array:
    return anchor + (end - start) * why.unit * tangent


def _shaken(z: Array, why: Doubt, turn: Any) -> Array:
    """A point a few ulps away in every coordinate; two turns go different ways."""
    xp = namespace(z)
    sign = xp.where((xp.arange(z.shape[0]) + turn) % 2 == 0, 1.0, -1.0)
    size = xp.maximum(xp.abs(z), xp.finfo(z.dtype).tiny ** 0.5)
    return z + sign * (1 + 2 * turn) * xp.finfo(z.dtype).eps * size


def look(why: Doubt, state: State, walk: Walk, point: Point) -> Walk:
    """What follows from one evaluation."""
    xp = namespace(point.z)
    point = without_dust(point)
    stage = walk.stage
    shaking = (stage == NOISE) | (stage == CHECK)
    walk = walk._replace(steps=(walk.steps + 1).astype(xp.int32))
    shaken = _listen(why, state, walk, point)
    moved = _explore(why, state, walk, point)
    return _choose(shaking, shaken, moved)


def _choose(condition: Array, new: Walk, old: Walk) -> Walk:
    xp = namespace(old.trial)
    return jax.tree.map(lambda a, b: xp.where(condition, a, b).astype(b.dtype), new, old)


def _listen(why: Doubt, state: State, walk: Walk, point: Point) -> Walk:
    """ℓ at a point that should have the value of its neighbour: the difference is noise."""
    xp = namespace(point.z)
    checks = walk.stage == CHECK
    near = _choose_point(checks, walk.highest, state.point)
    slope = 0.5 * (near.score + point.score)
    heard = xp.abs(point.value - near.value - slope @ (point.z - near.z))
    heard = xp.where(xp.isfinite(heard), heard, 0.0)
    turn = walk.corrections + 1
    again = turn < NOISE_PROBES
    walk = walk._replace(
        noise=xp.maximum(walk.noise, xp.where(checks, 0.0, heard)),
        noise_there=xp.maximum(walk.noise_there, xp.where(checks, heard, 0.0)),
    )
    begun = _next_side(why, state, walk._replace(stage=xp.asarray(WALK), side=xp.asarray(-1)))
    over = walk._replace(stage=xp.asarray(OVER), active=xp.zeros_like(walk.active))
    ended = _choose(checks, over, begun)
    return _choose(
        again,
        walk._replace(trial=_shaken(near.z, why, turn), corrections=turn),
        ended._replace(corrections=xp.where(again, turn, 0)),
    )


def _choose_point(condition: Array, new: Point, old: Point) -> Point:
    xp = namespace(old.z)
    return jax.tree.map(lambda a, b: xp.where(condition, a, b), new, old)


def _explore(why: Doubt, state: State, walk: Walk, point: Point) -> Walk:
    """A point of the profile: solve the rest, or go on from it."""
    xp = namespace(point.z)
    rest = _solve_rest(why, point)
    finite = is_finite(point)
    tested = xp.where(walk.stage == TESTS, 0.5 * why.curvature * walk.offset**2, 0.0)
    enough = xp.maximum(xp.maximum(noise_of(point), walk.noise), 0.01 * tested)
    solved = finite & (rest.decrement <= enough)
    corrects = finite & ~solved & (walk.corrections < MAX_CORRECTIONS)
    above = finite & ~rest.is_concave & (point.value > walk.highest.value)
    above = above & (point.value - state.point.value > bar_at(why, state, walk, walk.offset))
    walk = walk._replace(highest=_choose_point(above, point, walk.highest))
    walk_on = _arrive(why, state, walk, point, rest.tangent, solved)
    return _choose(
        corrects,
        walk._replace(trial=point.z + rest.step, corrections=walk.corrections + 1),
        walk_on,
    )


def _arrive(
    why: Doubt, state: State, walk: Walk, point: Point, tangent: Array, solved: Array
) -> Walk:
    """Note the profile at a solved point, or that there is none, and aim at the next."""
    xp = namespace(point.z)
    tests = walk.stage == TESTS
    change = xp.where(solved, point.value - state.point.value, xp.nan)
    side = xp.arange(2) == walk.side
    target = xp.asarray(np.array(OFFSETS, dtype=point.z.dtype))[
        xp.minimum(walk.place, len(OFFSETS) - 1)
    ]
    reached = solved & (xp.abs(walk.offset) >= 0.999 * target)
    place = xp.arange(len(OFFSETS)) == walk.place
    bar = bar_at(why, state, walk, walk.offset)
    level = solved & ~tests & (xp.abs(change) <= bar)
    forward = xp.sum(why.coordinate * state.tail.move) * walk.offset > 0
    goes_on = ~came_along_tail(state, bar) | forward
    farther = goes_on & (xp.abs(walk.offset) >= walk.reach)
    not_below = solved & ~tests & (change >= -bar) & farther
    between = solved & ~tests & (change < -bar) & (change > -CLEAR_FALL)
    walk = walk._replace(
        tests=xp.where(tests & side, change, walk.tests),
        changes=xp.where(~tests & reached & side[:, None] & place[None, :], change, walk.changes),
        level_reach=xp.where(
            level & side, xp.maximum(walk.level_reach, xp.abs(walk.offset)), walk.level_reach
        ),
        highest=_choose_point(
            solved & (change > bar) & (point.value > walk.highest.value), point, walk.highest
        ),
        falling=(walk.falling + (between & side)).astype(xp.int32),
        near=_choose_point(not_below & (walk.side == 0) & (walk.place == 0), point, walk.near),
        level=_choose_point(not_below & (change <= bar), point, walk.level),
        outermost=_choose_point(not_below, point, walk.outermost),
        reach=xp.where(not_below, xp.abs(walk.offset), walk.reach),
        before=xp.where(not_below, walk.anchor, walk.before),
    )
    after_tests = _after_tests(why, state, walk)
    fallen = solved & (change < -CLEAR_FALL)
    retreat = (~solved | fallen) & (walk.retreats < MAX_RETREATS) & ~tests
    keeps = solved & ~retreat
    shorter = walk.anchor_offset + 0.25 ** (walk.retreats + 1) * (
        xp.where(walk.side == 0, 1.0, -1.0) * target - walk.anchor_offset
    )
    anchor = xp.where(keeps, point.z, walk.anchor)
    direction = xp.where(keeps, tangent, walk.tangent)
    start = xp.where(keeps, walk.offset, walk.anchor_offset)
    following = walk.place + reached
    last = (following >= len(OFFSETS)) | (level & reached & (walk.place == FAR))
    ends = ~retreat & (last | fallen | ~solved)
    aim = xp.where(
        keeps,
        xp.where(walk.side == 0, 1.0, -1.0)
        * xp.asarray(np.array(OFFSETS, dtype=point.z.dtype))[
            xp.minimum(following, len(OFFSETS) - 1)
        ],
        shorter,
    )
    onward = walk._replace(
        anchor=anchor,
        tangent=direction,
        anchor_offset=start,
        offset=aim,
        place=xp.where(retreat, walk.place, following),
        corrections=xp.zeros_like(walk.corrections),
        retreats=xp.where(keeps, xp.where(reached, 0, walk.retreats), walk.retreats + 1),
        trial=_aim(why, anchor, direction, start, aim),
    )
    walked = _choose(ends, _next_side(why, state, walk), onward)
    return _choose(tests, after_tests, walked)


def bar_of(state: State, walk: Walk) -> Array:
    """A change of ℓ that noise, or what the climb has left to gain, explains."""
    return 10 * walk.noise + 4 * namespace(walk.noise).minimum(state.newton.decrement, 1e-6)


def bar_at(why: Doubt, state: State, walk: Walk, offset: Any) -> Array:
    """The same at an offset: coordinates of 1e8 that cancel leave errors of 1e-8."""
    xp = namespace(walk.noise)
    scale = xp.maximum(state.scale, metric_of(state.point.hessian, state.point.score))
    # along a flat coordinate there is no other unit than its own
    own = 1.0 / xp.maximum(1.0, xp.abs(state.point.z))
    scale = xp.where(why.curvature > 0, scale, xp.maximum(scale, own))
    length = xp.abs(offset) * why.unit * xp.sum(why.coordinate * scale)
    return bar_of(state, walk) + ROUNDINGS_OF_A_DISTANCE * xp.finfo(walk.noise.dtype).eps * length


def passes(why: Doubt, tests: Array) -> Array:
    """Which sides (2,) fall at ±½ as the parabola says."""
    parabola = 0.5 * why.curvature * HALF**2
    return (tests <= -parabola / FALL_RATIO) & (tests >= -parabola * FALL_RATIO)


def _after_tests(why: Doubt, state: State, walk: Walk) -> Walk:
    """From the test of one side to that of the other, then to the noise, or to the end."""
    xp = namespace(walk.trial)
    first = walk.side == 0
    tangent = _solve_rest(why, state.point).tangent
    zero = xp.zeros_like(walk.offset)
    other = walk._replace(
        side=xp.ones_like(walk.side),
        offset=-HALF * xp.ones_like(walk.offset),
        corrections=xp.zeros_like(walk.corrections),
        trial=_aim(why, state.point.z, tangent, zero, -HALF * xp.ones_like(zero)),
    )
    done = xp.all(passes(why, walk.tests))
    listen = walk._replace(
        stage=xp.where(done, OVER, NOISE),
        active=walk.active & ~done,
        corrections=xp.zeros_like(walk.corrections),
        trial=_shaken(state.point.z, why, 0),
    )
    return _choose(first, other, listen)


def _next_side(why: Doubt, state: State, walk: Walk) -> Walk:
    """The walk at the outset of its next side; past the second the highest point is checked, if it
    is higher than the end of the climb.
    """
    xp = namespace(walk.trial)
    side = walk.side + 1
    tangent = _solve_rest(why, state.point).tangent
    zero = xp.zeros_like(walk.offset)
    aim = xp.where(side == 0, OFFSETS[0], -OFFSETS[0]) * xp.ones_like(zero)
    onward = walk._replace(
        side=side,
        place=xp.zeros_like(walk.place),
        offset=aim,
        corrections=xp.zeros_like(walk.corrections),
        retreats=xp.zeros_like(walk.retreats),
        anchor=state.point.z,
        tangent=tangent,
        anchor_offset=zero,
        trial=_aim(why, state.point.z, tangent, zero, aim),
    )
    higher = walk.highest.value > state.point.value + bar_of(state, walk)
    check = walk._replace(
        stage=xp.where(higher, CHECK, OVER),
        active=walk.active & higher,
        corrections=xp.zeros_like(walk.corrections),
        trial=_shaken(walk.highest.z, why, 0),
    )
    return _choose(side < 2, onward, check)


class Found(NamedTuple):
    """What the profile does, and where the climb or the verdict goes on from."""

    shape: Array
    point: Point
    move: Array  # (k,) the way a tail goes
    sharp: Array  # the next digits of a coordinate decide ℓ
    blurred: Array  # and rounding is most of it
    onward: Array  # ℓ rises as far as it could be followed, a tenth of a standard error or more
    noise: Array  # of ℓ


def found(why: Doubt, state: State, walk: Walk) -> Found:
    """Read the profile."""
    xp = namespace(walk.trial)
    bar = bar_of(state, walk)
    changes = walk.changes
    known = xp.isfinite(changes)
    offsets = xp.asarray(np.array(OFFSETS, dtype=changes.dtype))[None, :]
    places = xp.arange(len(OFFSETS))[None, :]
    last = xp.max(xp.where(known, places, -1), axis=1)
    near_bar = bar
    bar = bar_at(why, state, walk, offsets)
    stays = xp.all(~known | (changes >= -bar), axis=1) & (last >= 0)
    is_open = stays & (last >= BEYOND)
    came = came_along_tail(state, near_bar)
    back = xp.sign(xp.sum(why.coordinate * state.tail.move)) * xp.asarray(np.array([-1.0, 1.0]))
    falls = xp.any(known & (changes < -bar), axis=1) | (came & (back > 0))
    # The way back down a tail is gradual; where a ridge ends, ℓ falls at once.
    gradual = walk.falling >= 2

    parabola = 0.5 * why.curvature * offsets**2
    # Level so far that the parabola, or without one a curve of fourth order, would have shown.
    reach = walk.level_reach
    fourth_order = xp.where(reach >= 1e-3, 0.01 * reach**4, 0.0)
    would_show = xp.where(why.curvature > 0, 0.1 * why.curvature * reach**2, fourth_order)
    near = would_show >= near_bar
    # Ten times as far as that, past where a quartic would have shown.
    far_level = (would_show >= 10 * near_bar) & (why.curvature > 0)

    top = xp.max(xp.where(known & (changes > bar), changes, -xp.inf))
    top = xp.maximum(top, walk.highest.value - state.point.value)
    rises = (top > near_bar) & (top > 10 * walk.noise_there)
    # Where rounding is far above that of a sum, level ground may be what it hides.
    amplified = walk.noise > xp.maximum(AMPLIFIED * noise_of(state.point), AMPLIFIED_NOISE)
    gains = [_back(changes, last, i) - _back(changes, last, i + 1) for i in range(3)]
    grows = (gains[0] > near_bar) & (gains[1] > near_bar) & (gains[2] > near_bar)
    first_kept = gains[0] >= SHRINKING * gains[1]
    second_kept = gains[1] >= SHRINKING * gains[2]
    steady = grows & first_kept & second_kept
    # Less and less over ever longer ways, until nothing could be solved any more; gradually down
    # on the way back.
    fades = stays & grows & ~first_kept & ~second_kept & (last > OFFSETS.index(HALF))
    fades = fades & (gradual | (came & (back > 0)))[::-1]
    sharp = is_collapse(state) & ~amplified
    collapses = (top > CLEAR_FALL + near_bar) & sharp
    ends_high = xp.any((is_open | fades) & (_back(changes, last, 0) >= top - near_bar))
    # Growth that goes on beyond the scale of the point itself.
    scale = 1.0 + xp.abs(xp.sum(why.coordinate * state.point.z))
    endless = xp.any(is_open & steady) & (walk.reach * why.unit >= 100 * scale)

    sound = xp.all(passes(why, walk.tests))
    at_half = changes[:, OFFSETS.index(HALF)]
    clear = 0.5 * why.curvature * HALF**2 >= 10 * near_bar
    sound = xp.where(why.is_noisy, clear & xp.all(passes(why, at_half)), sound)
    seen = known & (parabola >= 20 * bar) & (offsets <= HALF)
    fits = (changes <= -parabola / FALL_RATIO) & (changes >= -parabola * FALL_RATIO)
    parabolic = xp.all(xp.any(seen, axis=1) & xp.all(~seen | fits, axis=1) & (last < len(OFFSETS)))
    cut_off = xp.any(last < OFFSETS.index(HALF))  # a side that ends where ℓ or a derivative does
    clean = is_clean(state)
    # Ten times as far as the coordinate is large, on the way that the climb came by.
    size = 1.0 + xp.abs(xp.sum(why.coordinate * state.point.z))
    followed = stays & came & (back < 0) & (walk.level_reach * why.unit >= 10 * size)
    one_way = xp.any((is_open | followed) & ~falls)
    tail = one_way & (came | xp.any(gradual) | (xp.any(falls) & ~clean))
    cases = (
        (~walk_asked(walk), Shape.NOT_ASKED),
        (sound, Shape.PARABOLA),
        (rises & ends_high & endless, Shape.ENDLESS),
        (collapses, Shape.ENDLESS),
        (rises & ends_high & ~xp.any(is_open & steady), Shape.TAIL),
        (rises, Shape.RISES),
        (((xp.all(near) & clean) | xp.all(far_level)) & ~amplified, Shape.LEVEL),
        (tail, Shape.TAIL),
        ((one_way | xp.all(stays) | xp.all(near)) & ~amplified, Shape.LEVEL),
        (parabolic & cut_off, Shape.PARABOLA),
        (xp.all(falls) & ~(why.curvature > 0) & _is_quadratic(changes, bar), Shape.UNKNOWN),
        (xp.all(falls) & ~amplified, Shape.PEAK),
    )
    shape = xp.asarray(int(Shape.UNKNOWN), dtype=xp.int32)
    for holds, name in reversed(cases):
        shape = xp.where(holds, int(name), shape)
    goes = _choose_point(rises, walk.outermost, walk.level)
    point = _choose_point(shape == Shape.LEVEL, walk.near, state.point)
    point = _choose_point(shape == Shape.RISES, walk.highest, point)
    point = _choose_point(shape == Shape.TAIL, goes, point)
    far = goes.z - walk.before
    # What converges along the tail moves less and less; what recedes as much as it is large.
    far = xp.where(xp.abs(far) > 1e-3 * (1 + xp.abs(goes.z)), far, 0.0)
    move = xp.where(shape == Shape.TAIL, far, 0.0)
    onward = xp.any(stays & (last >= OFFSETS.index(0.1)) & (_back(changes, last, 0) >= 0.5 * top))
    return Found(
        shape, point, move, sharp, is_collapse(state) & amplified, rises & onward, walk.noise
    )


def _is_quadratic(changes: Array, bar: Array) -> Array:
    """Whether ℓ falls by some 25 from one offset to the next, five times as far, wherever that shows:
    a regular maximum, whose curvature rounding hides. A quartic falls by 625.
    """
    xp = namespace(changes)
    first = OFFSETS.index(HALF)
    near, far = changes[:, first:-1], changes[:, first + 1 :]
    shows = (near < -20 * bar[:, first:-1]) & xp.isfinite(far)
    holds = (far <= 5 * near) & (far >= MAX_QUADRATIC_RATIO * near)
    return xp.all(xp.any(shows, axis=1) & xp.all(~shows | holds, axis=1))


def came_along_tail(state: State, bar: Array) -> Array:
    """Whether the climb came along a tail: it saw that ℓ falls on the way back."""
    gained = state.point.value - state.tail.value
    singular = ~(state.newton.definite & state.newton.convex)
    unclear = ~is_clean(state) | climbed_on(state) | singular
    return (state.tail.length >= TAIL) & (gained > bar) & unclear


def is_collapse(state: State) -> Array:
    """Whether ℓ is so sharp that the next digits of a coordinate decide it, as at a variance that
    goes to zero.
    """
    xp = namespace(state.point.z)
    metric = metric_of(state.point.hessian, state.point.score)
    return xp.max(metric * xp.abs(state.point.z)) >= SHARPEST


def remember_rise(state: State, before: State) -> State:
    """A climb from where ℓ was seen to rise, with the way it came, unless it saw a tail itself."""
    xp = namespace(state.point.z)
    way = Tail(
        before.point.z,
        state.point.z - before.point.z,
        before.point.value,
        xp.inf * xp.ones_like(before.point.value),
        xp.full_like(state.tail.length, TAIL),
    )
    keeps = state.tail.length >= TAIL
    return state._replace(tail=jax.tree.map(lambda a, b: xp.where(keeps, a, b), state.tail, way))


def climbed_on(state: State) -> Array:
    """Whether the climb set out where an earlier one was seen to end too low."""
    return (state.tail.length >= TAIL) & namespace(state.last).isinf(state.tail.decrement)


def walk_asked(walk: Walk) -> Array:
    """Whether a walk was made."""
    return walk.steps > 0


def _back(changes: Array, last: Array, steps: int) -> Array:
    """The entries (2,) so many places before the last known ones; −∞ before the first."""
    xp = namespace(changes)
    place = last - steps
    entry = xp.sum(
        xp.where(
            xp.arange(changes.shape[1])[None, :] == place[:, None], xp.nan_to_num(changes), 0.0
        ),
        axis=1,
    )
    return xp.where(place >= 0, entry, -xp.inf)
