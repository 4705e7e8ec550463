"""Whether and why a climb ends: at a maximum, stuck, spent, running away or creeping."""

from __future__ import annotations

from typing import NamedTuple

from jaxmle._namespace import is_nowhere, namespace
from jaxmle._types import Array
from jaxmle.solvers.newton_step import NewtonStep
from jaxmle.solvers.state import (
    CREEPING,
    EXHAUSTED,
    NOT_FINITE,
    POLISHING,
    RUNAWAY,
    RUNNING,
    SETTLED,
    STUCK,
    Point,
    Signature,
    State,
    has_risen,
)
from jaxmle.solvers.tails import FADED, RECEDES, TAIL, Bend

DECREMENT_FLOOR = 1e-18  # decrement (1.4e-9 SE) below which nothing is gained
# steps at the outset that may gain less than noise while the radius bounds them: ℓ of −1e34 hides
# what a first step gains, and each goes twice as far as the one before
FIRST_STEPS = 8
MAX_ROUNDS_WITHOUT_GAIN = 3  # rounds without a gain above noise before the climb is called stuck
LIMIT = 40  # rejections in a row
STEPS_OF_CREEPING = 250  # after which a climb is asked what it follows
MAX_DECREMENT_OF_CREEPING = 1.0  # at which it is
# steps in a row, each at least 1.4 times as long as the one before (24 000 times in all), with
# undiminished gain
GROWING_STEPS_OF_RUNAWAY = 30
# times ℓ at the start, and one, by which ℓ > 0 has risen where it explodes: no density does, whose
# logarithm is at most 709 a coordinate, and a wrong sign gets there in a dozen steps
RISE_OF_EXPLOSION = 1e8
RISE_BEFORE_EXPLOSION = 30.0  # the same before a trial, refused or not, that explodes
# the same where many steps have gained alike, or two and the next one overflows
RISE_OF_SLOW_EXPLOSION = 1e3


class Reading(NamedTuple):
    """What an evaluation says of the pending move."""

    trial: Point  # without dust; the point before, where it is not finite
    newton: NewtonStep
    scale: Array
    peak: Array  # (k, ...) the largest metric on the way
    finite: Array
    accept: Array
    deceived: Array  # value, score and Hessian contradict each other on a tail
    blind: Array  # a step of one ulp moves ℓ
    shows: Signature  # as if the move were a full Newton step
    bend: Bend
    noise: Array
    gain: Array
    walled: Array  # ℓ or a derivative is NaN at the trial
    wall: Array  # (k, ...) the trial where that is so, else NaN


def _explodes(state: State, noted: State, reading: Reading) -> Array:
    """Whether ℓ rises faster and faster, curving upwards, to values that no density has: a
    log-likelihood of the wrong sign.
    """
    xp = namespace(reading.trial.z)
    accept = reading.accept
    upwards = ~reading.newton.convex
    if is_nowhere(upwards):
        return upwards
    faster = accept & (state.gain > 0) & (reading.gain >= state.gain)
    faster = faster & has_risen(noted, reading.trial, RISE_OF_EXPLOSION)
    overflows = reading.walled & (state.even + state.runaway >= 2)
    evenly = xp.where(accept, noted.even >= GROWING_STEPS_OF_RUNAWAY, overflows)
    evenly = evenly & has_risen(noted, reading.trial, RISE_OF_SLOW_EXPLOSION)
    # A trial is as good evidence as a step, where ℓ has risen as far as none does by rounding.
    to_trial = state._replace(rise=state.rise + reading.gain)
    beyond = has_risen(to_trial, reading.trial, RISE_OF_EXPLOSION)
    beyond = beyond & has_risen(state, state.point, RISE_BEFORE_EXPLOSION)
    return upwards & (faster | evenly | (beyond & ~state.newton.convex))


def _creeps(noted: State, reading: Reading) -> Array:
    """Whether a climb has come near an end by so many steps that it may follow a bent ridge, each
    of them a little way: the profile likelihood is followed faster (``profile_walk``).
    """
    near = reading.newton.convex & (reading.newton.decrement <= MAX_DECREMENT_OF_CREEPING)
    late = noted.steps > STEPS_OF_CREEPING
    return reading.accept & late & near & (reading.trial.curvature is None)


def outcome_of(state: State, noted: State, reading: Reading) -> Array:
    """Whether and why the climb ends with this trial."""
    trial = reading.trial
    newton = reading.newton
    accept = reading.accept
    xp = namespace(trial.z)
    first = state.steps == 0
    slow = ~(newton.decrement <= 0.25 * state.newton.decrement) | (
        newton.decrement <= DECREMENT_FLOOR
    )
    # Where information dies, some steps more tell a recession from a maximum far out.
    young = (noted.streak < TAIL) & (newton.decrement > DECREMENT_FLOOR**2)
    fading = noted.signature.information < RECEDES
    fading = fading & state.full & (young | (newton.decrement > FADED))
    slow = slow & ~fading
    outcome = xp.where(accept & reading.blind & ~first, EXHAUSTED, RUNNING)
    # From far off ℓ rises for long too: by less than it is below zero.
    beyond = (noted.rise + trial.value > 0) & (noted.runaway >= GROWING_STEPS_OF_RUNAWAY)
    outcome = xp.where(beyond | _explodes(state, noted, reading), RUNAWAY, outcome)
    opens = ~state.full & (state.steps <= FIRST_STEPS)
    patience = xp.where(opens, FIRST_STEPS, MAX_ROUNDS_WITHOUT_GAIN)
    outcome = xp.where(_creeps(noted, reading), CREEPING, outcome)
    outcome = xp.where((noted.idle >= patience) | (noted.refused >= LIMIT), STUCK, outcome)
    ends = (~accept & ~(state.leap > 0)) | (accept & slow)
    outcome = xp.where(state.phase == POLISHING, xp.where(ends, SETTLED, RUNNING), outcome)
    outcome = xp.where(reading.deceived, SETTLED, outcome)
    return xp.where(first & ~reading.finite, NOT_FINITE, outcome)
