"""After an ascent: a recession is followed to its limit, or the shape of ℓ is examined.

If the last steps show a recession (ℓ still rises by less and less while the information along the
step vanishes), the point is moved far along that step and the other coordinates are solved again:
this gives the limit of the likelihood. If the end is in doubt for another reason, the profile
likelihood of its least certain coordinate decides (``shape``). Signatures of a recession, per
Newton step (information ratio, decrement ratio, step ratio): tail e⁻ᵗ .37/.37/1, tail 1/t
.30/.67/1.5, logarithmic growth .25/1/2, quartic .44/.20/.67, inflection ½/⅛/½; regular 1/→0/→0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmle._namespace import is_nowhere, namespace
from jaxmle._types import Array, Function, FunctionTo, Tree, ndarray
from jaxmle.solvers.leading_axes import (
    active_positions,
    diagonal,
    evaluate_part,
    loop_over_active,
    members,
    members_of,
    norm,
    outer,
    times,
    with_members,
)
from jaxmle.solvers.linalg import eigh
from jaxmle.solvers.rare_branches import rarely
from jaxmle.solvers.state import (
    DONE,
    SLOW_ASCENT,
    STUCK,
    Point,
    State,
    Tail,
    noise_of,
    null_cut,
    select,
)
from jaxmle.solvers.status import is_one_of
from jaxmle.solvers.tails import DECREMENT_OF_A_PLAIN_TAIL, STEPS_OF_A_TAIL, is_receding
from jaxmle.solvers.trust_region import MAX_NOISE_OF_COLLAPSE
from jaxmle.verdict.doubt import Doubt, doubt, is_doubtful, is_restart
from jaxmle.verdict.excursion import (
    Excursion,
    _is_settled,
    follow,
    has_overflown,
    has_receded,
    information_of,
    is_ahead,
    is_suspect,
    receding,
    receding_nearby,
    rest_of,
    to_limit,
)
from jaxmle.verdict.kinks import Kink
from jaxmle.verdict.profile_path import NOISE_AMPLIFICATION
from jaxmle.verdict.profile_points import begin_path
from jaxmle.verdict.profile_steps import look
from jaxmle.verdict.shape import ProfileShape, Shape, read_profile

DOUBLING_STEPS_OF_DIVERGENCE = (
    6  # doubling steps of undiminished gain that make an ascent which then ends nowhere an escape
)
DECREMENT_USABLE = 5e-7  # 1e-3 standard errors
SAME_WAY = 0.9  # cosine between the ways of two ascents
GAIN_BESIDE_NOISE = 1e3  # times the noise of ℓ: a last gain up to this says little
# the same where the user's function makes the noise: a column of 1e7 + N(0, 1) beside an intercept
# hides its curvature, and ℓ rises by 1e-6 some standard errors off, with a noise of 1e-9
GAIN_BESIDE_AMPLIFIED_NOISE = 1e5
MAX_VANISHED_SUM = 1e-10  # Σ|terms| of probabilities that are all one
# up to which an ascent that has spent its steps is near enough to an end for its shape to be asked
MAX_DECREMENT_OF_A_LONG_ASCENT = 1e-2
MIN_STEPS_TO_CONVERGE = 2.0  # of a tail, after which what has a limit moves less than before
MIN_SHARE_OF_RECESSION = 0.5  # of its rate before, with which a coordinate that recedes goes on
MIN_GROWTH_ALONG_A_TAIL = 1e-3  # as a logarithm, below which no power is told
# with which the information of what does not recede goes with what does; it is 0 where that has a
# limit, and 1 or 2 where the support depends on parameters
MIN_POWER_OF_INFORMATION = 0.25


class Limit(NamedTuple):
    """The end of an ascent after its excursions."""

    point: Point
    scale: Array  # D (k, ...)
    recedes: Array
    move: Array  # (k, ...) the way it recedes
    shape: Array  # the code of what the profile does
    weakness: Array  # eigenvalues of R up to this belong to a profile that stays level
    decrement: Array  # of what does not recede
    short: Array  # the likelihood could not be followed far enough for its information to die
    steps: Array
    hidden: Array  # (k, ...) coordinates whose standard error does not describe ℓ
    unsettled: Array  # (k, ...) how far what has a limit along a tail moved at its end, or may yet
    sharp: Array  # the next digits of a coordinate decide ℓ
    blurred: Array  # and rounding is most of it
    noise: Array  # of ℓ, as far as it was measured
    # the certificate of a maximum at a kink, 0 where there is none; and the projector (k, k) on the
    # directions held there, in coordinates scaled by D. None where no kink was sought
    kink: Array | None = None
    held: Array | None = None


def needs_excursion(logarithms: tuple[bool, ...], state: State) -> Array:
    """Whether ``explore`` would evaluate the likelihood at all."""
    singular = _is_singular(state)
    asked = _is_asked(state, is_doubtful(logarithms, state, singular))
    return is_suspect(state)[0] | asked


def unexplored(state: State) -> Limit:
    """What ``explore`` returns if no excursion is needed, for one member or many."""
    no = np.zeros(state.steps.shape, dtype=bool)
    flat = np.zeros(state.last.shape, state.last.dtype)
    none = np.zeros(state.steps.shape, np.int32)
    zero = np.zeros(state.steps.shape, flat.dtype)
    return Limit(
        point=state.point,
        scale=state.scale,
        recedes=no,
        move=flat,
        shape=none,
        weakness=zero,
        decrement=state.newton.decrement,
        short=no,
        steps=none,
        hidden=flat,
        unsettled=flat,
        sharp=no,
        blurred=no,
        noise=zero,
    )


def is_at_kink(end: Tree) -> Array:
    """Whether an ascent ended at a kink, from its ``Limit`` or its ``Verdict``."""
    return np.zeros((), bool) if end.kink is None else end.kink > 0


def at_kink(limit: Limit, kink: Kink) -> Limit:
    """The end of an ascent at a kink, where there is one."""
    xp = namespace(kink.point.z)
    there = limit._replace(
        point=kink.point,
        scale=kink.scale,
        shape=xp.zeros_like(limit.shape),
        decrement=xp.zeros_like(limit.decrement),
    )
    chosen = select(kink.code > 0, there, limit)
    return chosen._replace(steps=limit.steps + kink.steps, kink=kink.code, held=kink.held)


def explore(
    evaluate: FunctionTo[Point],
    state: State,
    logarithms: tuple[bool, ...] = (),
    wanted: ndarray | None = None,
) -> Limit:
    """Follow a recession to its limit, or examine the shape of ℓ if its maximum is in doubt. This
    is for the host; under a trace these are stages of ``one_loop``. No evaluation is made if
    neither is needed.

    Args:
        evaluate: the points at z (k,); of a batch in NumPy at z (k, b), and what it says of the
            members that its second argument (b,) leaves out is not looked at.
        logarithms: for each free coordinate whether it is a logarithm or the like; none if empty.
        wanted: (b,) the members of a batch whose ends are looked at; None for all.
    """
    with np.errstate(all="ignore"):  # of the host: what is not finite far out is looked at
        if members_of(state.point.z):
            return _explore_some(evaluate, state, logarithms, wanted)
        if not needs_excursion(logarithms, state):
            return unexplored(state)
        return _explore(evaluate, state, logarithms)


def _explore(evaluate: FunctionTo[Point], state: State, logarithms: tuple[bool, ...]) -> Limit:
    far = _run(evaluate, follow, (state,), to_limit(state))
    why = to_shape(logarithms, state, far)
    path = _run(evaluate, look, (why, state), begin_path(state, why, why.asked))
    return arrived(state, far, why, path)


def _explore_some(
    evaluate: FunctionTo[Point],
    state: State,
    logarithms: tuple[bool, ...],
    wanted: ndarray | None,
) -> Limit:
    """``explore`` for a batch, in which only the members that need it are evaluated."""
    asked = needs_excursion(logarithms, state)
    positions = active_positions(asked if wanted is None else asked & wanted)
    if not len(positions):
        return unexplored(state)

    some = evaluate_part(evaluate, positions, len(asked))
    limit = _explore(some, members(state, positions), logarithms)
    return with_members(unexplored(state), positions, limit)


def _run(
    evaluate: FunctionTo[Point],
    body: Function,
    given: tuple[Tree, ...],
    start: Tree,
) -> Tree:
    """Run an excursion to its end on the host, by ``body(*given, start, point)``."""
    if members_of(start.trial):
        return loop_over_active(evaluate, body, given, start)
    while start.active:
        start = body(*given, start, evaluate(start.trial))
    return start


def _is_singular(state: State) -> Array:
    return _is_settled(state) & ~(state.newton.definite & state.newton.convex)


def _is_spent(state: State) -> Array:
    """Whether the ascent ran out of steps so near an end that the profile may lead further: along a
    curved ridge, a step covers only a thousandth of its length.
    """
    spent = (state.phase != DONE) & (state.newton.decrement <= MAX_DECREMENT_OF_A_LONG_ASCENT)
    return spent | (state.outcome == SLOW_ASCENT)


def _null_direction(state: State) -> Array:
    """One generic unit vector of the null space, in scaled coordinates: the sum of its
    eigenvectors.
    """
    xp = namespace(state.point.z)
    values, q = eigh(information_of(state.point) / outer(state.scale, state.scale))
    null = (xp.abs(values) <= null_cut(state.point)) | (values == values[0])
    u = times(q, xp.where(null, 1.0, 0.0))
    return u / xp.maximum(norm(u), 1e-30)


def _is_doubtful(logarithms: tuple[bool, ...], state: State) -> tuple[Array, Doubt]:
    """Whether the shape of ℓ has to be examined, and along which coordinate."""
    xp = namespace(state.point.z)
    singular = _is_singular(state)
    null = rarely(singular, _null_direction, lambda s: xp.zeros_like(s.point.z), state)
    why = doubt(logarithms, state, singular, null)
    asked = _is_asked(state, why.asked)
    return asked, why._replace(asked=asked)


def _is_asked(state: State, doubtful: Array) -> Array:
    """Whether the shape of ℓ has to be examined at the end of an ascent."""
    faded = (state.tail.length >= STEPS_OF_A_TAIL) & (
        state.tail.decrement <= DECREMENT_OF_A_PLAIN_TAIL
    )
    ended = (_is_settled(state) & ~has_overflown(state)) | _is_spent(state)
    return ended & (doubtful | state.rough | faded | is_restart(state))


def to_shape(logarithms: tuple[bool, ...], state: State, far: Excursion) -> Doubt:
    """Why the shape of ℓ has to be examined; not if a recession was followed to its limit."""
    asked, why = _is_doubtful(logarithms, state)
    return why._replace(asked=asked & ~has_receded(state, far))


def arrived(
    state: State, far: Excursion, why: Doubt, path: Tree, seen: ProfileShape | None = None
) -> Limit:
    """The end of an ascent after both excursions."""
    xp = namespace(state.point.z)
    recession = has_receded(state, far)
    passed = recession & (far.higher.value > far.followed.value + DECREMENT_USABLE)
    carried = recession & ~passed
    seen = read_profile(why, state, path) if seen is None else seen
    seen = _after_ascent(state, far.higher, seen, passed, carried)
    tail = is_one_of(seen.shape, Shape.TAIL)
    recedes = carried | tail
    # a last look that hardly moved does not tell the way that the ascent came by
    stands = tail & ~xp.any(seen.move != 0, axis=0) & (state.tail.length >= STEPS_OF_A_TAIL)
    limit = select(is_ahead(state, far), state.point, far.followed)
    point = select(carried, limit, seen.point)
    decrement = xp.where(recedes, rest_of(state, point).decrement, state.newton.decrement)
    level = is_one_of(seen.shape, Shape.LEVEL)
    unit = why.unit * xp.sum(why.coordinate * state.scale, axis=0)
    # 2/SE², the standard error in units of the metric: unit² = curvature·SE²
    weakness = xp.where(level, 2.0 * why.curvature / xp.maximum(unit**2, 1.0 * why.curvature), 0.0)
    short = carried & (far.tries > 0)
    along_tail = _move_along_tail(state.tail, short)
    along_tail = xp.where(stands, _still_receding(state.tail, along_tail, point), along_tail)
    return Limit(
        point=point,
        scale=state.scale,
        recedes=recedes,
        move=xp.where(carried | stands, along_tail, seen.move),
        shape=seen.shape,
        weakness=weakness,
        decrement=decrement,
        short=short,
        steps=xp.zeros_like(path.steps),
        hidden=_hidden(why, seen.shape),
        # A standard error without a limit is withheld, unless holding all else leaves less than a
        # tenth of it (``user_scale``): then another parameter makes it, which has its own limit.
        unsettled=xp.where(tail | level, seen.unsettled, 0.0)
        + xp.where(recedes, _passing_stderr(state, point), 0.0),
        sharp=seen.sharp,
        blurred=seen.blurred,
        noise=seen.noise,
    )


def _after_ascent(
    state: State, higher: Point, seen: ProfileShape, passed: Array, carried: Array
) -> ProfileShape:
    """The shape of the profile, with what the ascent itself tells of it.

    Args:
        higher: the point from which the ascent goes on where it ``passed`` a maximum.
        carried: a recession was followed to its limit.
    """
    xp = namespace(state.point.z)
    # Where the steps are spent, no ascent sets out anew.
    spent = is_one_of(seen.shape, Shape.RISES) & (state.phase != DONE)
    shape = xp.where(spent, int(Shape.NOT_ASKED), seen.shape)
    # An ascent that crept goes on from where it is, unless it was seen what it follows.
    known = (shape == Shape.RISES) | (shape == Shape.TAIL) | (shape == Shape.ENDLESS)
    unseen = (state.outcome == SLOW_ASCENT) & ~known
    shape = xp.where(passed | unseen, int(Shape.RISES), shape)
    point = select(spent | unseen, state.point, seen.point)
    seen = seen._replace(shape=shape, point=select(passed, higher, point))
    fades = seen.onward & ~passed & _is_fading(state, seen.point)
    fades = fades & is_one_of(seen.shape, Shape.RISES)
    seen = seen._replace(
        shape=xp.where(fades, int(Shape.TAIL), seen.shape),
        move=xp.where(fades, seen.point.z - state.tail.z, seen.move),
    )
    vanished = _has_vanished(state, seen.shape) & ~carried
    seen = seen._replace(
        shape=xp.where(vanished, int(Shape.TAIL), seen.shape),
        point=select(vanished, state.point, seen.point),
        move=xp.where(vanished, receding(state.point.z, state.last), seen.move),
    )
    hidden = _is_hidden_tail(state, seen)
    return seen._replace(
        shape=xp.where(hidden, int(Shape.TAIL), seen.shape),
        move=xp.where(hidden, receding(state.tail.z, state.tail.move), seen.move),
    )


def _move_along_tail(tail: Tail, short: Array) -> Array:
    """The way (k, ...) in which a tail recedes, which may have been followed only a short way."""
    move = receding(tail.z, tail.move)
    if is_nowhere(short):
        return move
    return namespace(move).where(short, receding_nearby(tail.z, tail.move), move)


def _still_receding(tail: Tail, move: Array, point: Point) -> Array:
    """The part (k, ...) of a move along a tail that went on until the point; what has hardly moved
    since, beside the coordinate that moves most, converges.
    """
    xp = namespace(move)
    leads = xp.abs(move) == xp.max(xp.abs(move), axis=0)
    since = xp.abs(point.z - tail.z)
    lead = xp.max(xp.where(leads, xp.abs(move), 0.0), axis=0)
    lead_since = xp.max(xp.where(leads, since, 0.0), axis=0)
    tells = lead_since >= MIN_STEPS_TO_CONVERGE * lead
    slows = since * lead < MIN_SHARE_OF_RECESSION * xp.abs(move) * lead_since
    return xp.where(tells & slows, 0.0, move)


def _has_vanished(state: State, shape: Array) -> Array:
    """Whether all terms have gone to zero during an ascent that found no maximum, as for counts
    that are all zero or failure times that are all censored: no probability can exceed one.
    """
    xp = namespace(state.point.z)
    moves = is_receding(state.point.z, state.last)
    gone = (state.point.absolute <= MAX_VANISHED_SUM) & (state.rise > MAX_VANISHED_SUM)
    nowhere = is_one_of(shape, Shape.UNKNOWN, Shape.VANISHING)
    # On level ground that is so only where the curvature has gone too, not at a ridge of height 0.
    curvature = xp.max(xp.abs(state.point.hessian), axis=(0, 1))
    nowhere = nowhere | (is_one_of(shape, Shape.LEVEL) & (curvature <= MAX_VANISHED_SUM))
    return gone & xp.any(moves, axis=0) & nowhere


def _is_hidden_tail(state: State, seen: ProfileShape) -> Array:
    """Whether an ascent came along a tail to where noise that the user's function makes hides what
    it has yet to gain.
    """
    amplified = seen.noise > NOISE_AMPLIFICATION * noise_of(state.point)
    faded = state.tail.decrement <= 10 * seen.noise
    # Beyond what a tail can gain, rounding led there.
    below = state.point.value <= state.tail.value + 20 * state.tail.decrement
    follows = (state.tail.length >= STEPS_OF_A_TAIL) & below
    return is_one_of(seen.shape, Shape.UNKNOWN) & amplified & faded & follows


def _is_fading(state: State, ahead: Point) -> Array:
    """Whether a restarted ascent ends where ℓ rises again in the same direction, by less than
    before and by too little for another ascent.
    """
    xp = namespace(state.point.z)
    gain = ahead.value - state.point.value
    less = gain <= xp.minimum(state.point.value - state.tail.value, DECREMENT_OF_A_PLAIN_TAIL)
    return is_restart(state) & less & _is_straight(state, ahead)


def _is_straight(state: State, ahead: Point) -> Array:
    """Whether the point ``ahead`` lies in the direction of the ascent."""
    xp = namespace(state.point.z)
    onward = state.scale * (ahead.z - state.point.z)
    came = state.scale * state.tail.move
    lengths = xp.sqrt(xp.sum(onward**2, axis=0) * xp.sum(came**2, axis=0))
    return (lengths > 0) & (xp.sum(onward * came, axis=0) >= SAME_WAY * lengths)


def _passing_stderr(state: State, point: Point) -> Array:
    """The standard error (k, ...), with all else held, of a coordinate whose information has no
    limit along the tail, because it goes with a power of what recedes: that of the centre of a
    generalised normal distribution grows like its shape parameter. Zero for all other coordinates.
    """
    xp = namespace(point.z)
    before = xp.abs(diagonal(state.point.hessian))
    after = xp.abs(diagonal(point.hessian))
    move = point.z - state.point.z
    is_known = (before > 0) & (after > 0) & ~is_receding(point.z, move)
    ratio = xp.where(is_known, after / xp.where(is_known, before, 1.0), 1.0)
    growth = xp.log1p(xp.max(xp.abs(move) / (1.0 + xp.abs(state.point.z)), axis=0))
    power = xp.abs(xp.log(ratio)) / xp.where(growth > 0, growth, 1.0)
    is_without_limit = (growth >= MIN_GROWTH_ALONG_A_TAIL) & (power >= MIN_POWER_OF_INFORMATION)
    return xp.where(is_without_limit, 1.0 / xp.sqrt(xp.where(is_known, after, 1.0)), 0.0)


def _hidden(why: Doubt, shape: Array) -> Array:
    """The coordinates (k, ...) whose standard error does not describe ℓ."""
    xp = namespace(why.coordinate)
    narrow = xp.where(
        is_one_of(shape, Shape.PEAK),
        xp.maximum(why.coordinate, 1.0 * why.correlated),
        0.0 * why.coordinate,
    )
    rounded = is_one_of(shape, Shape.UNKNOWN) & ~(why.curvature > 0)
    return xp.where(rounded, 1.0, narrow)


def settled_rise(state: State, limit: Limit) -> Limit:
    """The end of the last ascent that is allowed. If ℓ still rises, by less and less in the
    direction of the ascents, this is a tail; if the last digits of a coordinate determine ℓ, it
    rises without bound.
    """
    xp = namespace(state.point.z)
    rises = is_one_of(limit.shape, Shape.RISES) & is_restart(state)
    if is_nowhere(rises):
        return limit
    gain = limit.point.value - state.point.value
    less = gain <= state.point.value - state.tail.value
    amplified = limit.noise > NOISE_AMPLIFICATION * noise_of(state.point)
    share = xp.where(amplified, GAIN_BESIDE_AMPLIFIED_NOISE, GAIN_BESIDE_NOISE)
    little = gain <= xp.maximum(DECREMENT_USABLE, share * limit.noise)
    fades = rises & _is_straight(state, limit.point) & less & ~little
    blurred = limit.blurred | (noise_of(state.point) > MAX_NOISE_OF_COLLAPSE)
    fades = fades & ~limit.sharp & ~blurred
    # Along a tail ℓ is concave; ascents that are stuck where it is not are so at an edge, unless
    # the last digits of a coordinate determine ℓ.
    at_edge = rises & (state.outcome == STUCK) & ~state.newton.convex
    at_edge = at_edge & ~limit.sharp & ~limit.blurred
    fades = fades & ~at_edge
    shape = xp.where(rises & limit.sharp, int(Shape.ENDLESS), limit.shape)
    shape = xp.where(rises & (little | blurred), int(Shape.UNKNOWN), shape)
    unasked = at_edge | (rises & (state.outcome == SLOW_ASCENT))
    shape = xp.where(unasked, int(Shape.NOT_ASKED), shape)
    return limit._replace(
        recedes=limit.recedes | fades,
        move=xp.where(fades, limit.point.z - state.tail.z, limit.move),
        shape=xp.where(fades, int(Shape.TAIL), shape),
        decrement=xp.where(fades, rest_of(state, limit.point).decrement, limit.decrement),
    )
