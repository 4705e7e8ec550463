"""A recession followed to its limit: thirty more steps along it, with the other coordinates solved
again; then a look back along the path, for a maximum that a long step passed over.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.leading_axes import (
    members_of,
    transposed,
)
from jaxmle.solvers.newton_step import NewtonStep, newton_step
from jaxmle.solvers.outcome import STEPS_OF_DIVERGENCE
from jaxmle.solvers.state import (
    SETTLED,
    STUCK,
    Point,
    State,
    has_risen,
    is_finite,
    met_nan,
    noise_of,
    select,
    select_lazily,
)
from jaxmle.solvers.tails import (
    DECREMENT_OF_A_PLAIN_TAIL,
    DECREMENT_OF_A_PROVED_TAIL,
    RECEDING_INFORMATION,
    STEPS_OF_A_TAIL,
    is_receding,
)

STEPS_ALONG_RECESSION = 30.0  # Newton steps along a recession: e⁻³⁰ = 1e-13
# times ℓ at the start, and one, where an ascent that curves upwards overflows
RISE_TO_OVERFLOW = 30.0
STEADY_RISE_TO_OVERFLOW = (
    5.0  # the same where many steps have gained alike, as at a variance of zero
)
SHARE_OF_LONGEST_MOVE = 1e-3  # of which a coordinate recedes where no step is long
STEPS_TO_NAN = 8  # of a tail that ends where ℓ is NaN: its information has fallen by e⁻⁸
DECREMENT_OF_A_SOLVED_REST = 1e-20
MAX_STEPS_OF_THE_REST = 8  # Newton steps that solve the rest again
# Distances, in last steps, at which the look back along a recession evaluates ℓ, for a maximum that
# the ascent passed over.
BACK = tuple(2.0 * 1.25**i for i in range(20))


def information_of(point: Point) -> Array:
    """The observed information at a point, (k, k, ...)."""
    return -0.5 * (point.hessian + transposed(point.hessian))


class Excursion(NamedTuple):
    """The state of following a recession to its limit: the present trial and how far it got."""

    trial: Array
    followed: Point  # the farthest point at which ℓ was as a tail would have it
    tries: Array  # how often the way was halved
    inner: Array  # Newton steps of the rest
    arrived: Array  # the likelihood could be followed
    looks: Array  # evaluations on the way back
    higher: Point  # the highest point there
    active: Array


def _is_settled(state: State) -> Array:
    return (state.outcome == SETTLED) | (state.outcome == STUCK)


def is_suspect(state: State) -> tuple[Array, Array, Array]:
    """Whether the ascent may have ended on a recession; the noise of ℓ; and the largest value that
    ℓ can reach along a tail.
    """
    xp = namespace(state.point.z)
    tail = state.tail
    # What a tail has yet to gain is a few times its decrement; an end above that is a maximum in
    # its own right, unless ℓ was seen to be rough: then rounding led there.
    noise = 10 * noise_of(state.point)
    ceiling = tail.value + 20 * tail.decrement + noise
    below = (state.point.value <= ceiling) | state.rough
    least = xp.where(state.rough, DECREMENT_OF_A_PLAIN_TAIL, DECREMENT_OF_A_PROVED_TAIL)
    faded = tail.decrement <= xp.maximum(least, noise)
    return _is_settled(state) & (tail.length >= STEPS_OF_A_TAIL) & faded & below, noise, ceiling


def has_overflown(state: State) -> Array:
    """Whether the ascent ended where ℓ or a derivative is NaN, after ℓ > 0 had risen as an
    unbounded one does: curving upwards, or by equal gains in many steps.
    """
    explodes = ~state.newton.convex & has_risen(state, state.point, RISE_TO_OVERFLOW)
    evenly = state.max_equal_gains >= STEPS_OF_DIVERGENCE
    evenly = evenly & has_risen(state, state.point, STEADY_RISE_TO_OVERFLOW)
    return (state.outcome == STUCK) & met_nan(state) & (explodes | evenly)


def to_limit(state: State) -> Excursion:
    """The initial state of following a recession to its limit: thirty steps further along the tail,
    where the other coordinates are solved again.
    """
    xp = namespace(state.point.z)
    shape = members_of(state.point.z)
    zero = xp.zeros(shape, dtype=xp.int32)
    trial = state.tail.z + STEPS_ALONG_RECESSION * receding(state.tail.z, state.tail.move)
    no = xp.zeros(shape, dtype=bool)
    return Excursion(trial, state.point, zero, zero, no, zero, state.point, is_suspect(state)[0])


def receding(z: Array, move: Array) -> Array:
    """A step along a tail to z, in the coordinates that recede; those that converge, whose steps
    get shorter, are left out. Where no step is long, as in units of 1e-3, the longest ones count.
    """
    xp = namespace(z)
    moves = is_receding(z, move)
    length = xp.abs(move) / (1.0 + xp.abs(z))
    longest = length >= SHARE_OF_LONGEST_MOVE * xp.max(length, axis=0)
    return xp.where(moves | (~xp.any(moves, axis=0) & longest), move, 0.0)


def receding_nearby(z: Array, move: Array) -> Array:
    """``receding`` for a tail that could not be followed far: what still moves towards zero may
    stop there, and is left out.
    """
    xp = namespace(z)
    outward = xp.where(z * move > 0, move, 0.0)
    return receding(z, xp.where(xp.any(outward != 0, axis=0), outward, move))


def follow(state: State, e: Excursion, point: Point) -> Excursion:
    """One evaluation on the way to the limit, or on the way back from it."""
    return select_lazily(
        e.looks > 0, lambda: _look_back(state, e, point), lambda: _follow_on(state, e, point)
    )


def _follow_on(state: State, e: Excursion, point: Point) -> Excursion:
    """One evaluation on the way to the limit; after the last one, the way back begins."""
    xp = namespace(state.point.z)
    onward = _go_on(state, e, point)
    # Along a path that is rounding noise, no maximum can be recognised.
    returns = ~onward.active & onward.arrived & ~state.rough
    return onward._replace(
        active=onward.active | returns,
        looks=xp.where(returns, 1, 0).astype(xp.int32),
        trial=xp.where(
            returns, state.tail.z - BACK[0] * receding(state.tail.z, state.tail.move), onward.trial
        ),
    )


def _look_back(state: State, e: Excursion, point: Point) -> Excursion:
    """One evaluation on the way back: a long step may have passed over a maximum to where ℓ rises
    to a lower limit.
    """
    xp = namespace(state.point.z)
    higher = is_finite(point) & (point.value > e.higher.value)
    best = select(higher, point, e.higher)
    place = xp.minimum(e.looks, len(BACK) - 1)
    distance = xp.asarray(np.array(BACK, dtype=state.point.z.dtype))[place]
    trial = state.tail.z - distance * receding(state.tail.z, state.tail.move)
    active = e.looks < len(BACK)
    return e._replace(trial=trial, looks=(e.looks + 1).astype(xp.int32), higher=best, active=active)


def _go_on(state: State, e: Excursion, point: Point) -> Excursion:
    """One evaluation on the way to the limit.

    ℓ must neither fall on the way nor rise by more than a tail can. If it does, because the
    likelihood loses its digits far out (as differences of log-gamma functions do), it is followed
    half as far; after five such tries, not at all.
    """
    xp = namespace(state.point.z)
    _, noise, ceiling = is_suspect(state)
    tail = state.tail
    sound = is_finite(point) & (point.value >= tail.value - noise) & (point.value <= ceiling)
    newton = rest_of(state, point)
    first = e.inner == 0
    tries = xp.where(first & ~sound, e.tries + 1, e.tries)
    followed = select(sound, point, e.followed)
    moved = first & ~sound
    arrived = ~moved & (
        ~sound
        | (newton.decrement <= DECREMENT_OF_A_SOLVED_REST)
        | (e.inner >= MAX_STEPS_OF_THE_REST)
    )
    reach = xp.where(tries < 5, STEPS_ALONG_RECESSION * 0.5 ** tries.astype(tail.z.dtype), 0.0)
    trial = xp.where(moved, tail.z + reach * receding(tail.z, tail.move), point.z + newton.step)
    inner = xp.where(moved, 0, e.inner + 1)
    return Excursion(
        trial,
        followed,
        tries.astype(xp.int32),
        inner.astype(xp.int32),
        e.arrived | sound,
        e.looks,
        e.higher,
        ~arrived & (tries <= 5),
    )


def rest_of(state: State, point: Point) -> NewtonStep:
    """The Newton step of the coordinates that do not recede."""
    xp = namespace(point.z)
    ones = xp.ones_like(point.value)
    return newton_step(
        information_of(point),
        point.score,
        state.scale,
        xp.sqrt(xp.finfo(point.z.dtype).eps) * ones,
        xp.inf * ones,
    )


def has_receded(state: State, far: Excursion) -> Array:
    """Whether the ascent was on a recession that could be followed to its limit, (...)."""
    xp = namespace(state.point.z)
    suspect = is_suspect(state)[0]
    # An end above the limit where information does not die any more is a maximum in its own right:
    # an estimate a hundredth of its standard error inside a bound.
    inner = is_ahead(state, far) & state.newton.definite & ~state.rough
    inner = inner & (state.signature.information >= RECEDING_INFORMATION)
    # Short of seven steps every maximum far out still looks like a tail; only noise excuses a
    # likelihood from going there, or NaN beyond a tail that is as long already.
    steps = xp.maximum(state.tail.length, state.receding_steps)
    excused = state.rough | (met_nan(state) & (steps >= STEPS_TO_NAN))
    return suspect & far.arrived & ~inner & ((far.tries <= 2) | excused)


def is_ahead(state: State, far: Excursion) -> Array:
    """Whether the end of the ascent is higher than the limit of its tail."""
    return state.point.value > far.followed.value + 10 * noise_of(state.point)
