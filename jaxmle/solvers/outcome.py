"""Whether and why an ascent ends: at a maximum, without progress, at the limit of precision,
diverging, or slowly.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxmle._namespace import is_nowhere, namespace
from jaxmle._types import Array
from jaxmle.solvers.newton_step import NewtonStep
from jaxmle.solvers.state import (
    DIVERGING,
    NOT_FINITE,
    POLISHING,
    PRECISION_REACHED,
    RUNNING,
    SETTLED,
    SLOW_ASCENT,
    STUCK,
    Point,
    Signature,
    State,
    has_risen,
)
from jaxmle.solvers.tails import (
    DECREMENT_OF_A_PROVED_TAIL,
    DECREMENT_TO_END_A_TAIL,
    RECEDING_INFORMATION,
    STEPS_OF_A_TAIL,
    PathCurvature,
)

DECREMENT_FLOOR = 1e-18  # decrement (1.4e-9 SE) below which nothing is gained
# first steps that may gain less than noise while the radius bounds them: ℓ of −1e34 hides
# what a first step gains, and each goes twice as far as the one before
FIRST_STEPS = 8
MAX_ROUNDS_WITHOUT_GAIN = 3  # rounds without a gain above noise before the ascent is called stuck
MAX_REJECTIONS = 40  # rejections in a row
STEPS_OF_SLOW_ASCENT = 250  # after which an ascent is asked what it follows
MAX_DECREMENT_OF_SLOW_ASCENT = 1.0  # at which it is
# steps in a row, each at least 1.4 times as long as the one before (24 000 times in all), with
# undiminished gain
STEPS_OF_DIVERGENCE = 30
# times ℓ at the start, and one, by which ℓ > 0 has risen where it explodes: no density does, whose
# logarithm is at most 709 a coordinate, and a wrong sign gets there in a dozen steps
RISE_OF_EXPLOSION = 1e8
RISE_BEFORE_EXPLOSION = 30.0  # the same before a trial, refused or not, that explodes
# the same where many steps have gained alike, or two and the next one overflows
RISE_OF_SLOW_EXPLOSION = 1e3


class Reading(NamedTuple):
    """What one evaluation says about the pending step."""

    trial: Point  # without dust; the point before, where it is not finite
    newton: NewtonStep
    scale: Array
    peak: Array  # (k, ...) the largest metric on the way
    finite: Array
    accept: Array
    inconsistent: Array  # value, score and Hessian contradict each other on a tail
    ulp_sensitive: Array  # a step of one ulp moves ℓ
    pending_signature: Signature  # as if the move were a full Newton step
    curvatures: PathCurvature
    noise: Array
    gain: Array
    at_nan: Array  # ℓ or a derivative is NaN at the trial
    nan_point: Array  # (k, ...) the trial where that is so, else NaN
    at_edge: Array  # the trial is beyond an edge of the support


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
    overflows = reading.at_nan & (state.equal_gains + state.growing_steps >= 2)
    evenly = xp.where(accept, noted.equal_gains >= STEPS_OF_DIVERGENCE, overflows)
    evenly = evenly & has_risen(noted, reading.trial, RISE_OF_SLOW_EXPLOSION)
    # A trial is as good evidence as a step, where ℓ has risen as far as none does by rounding.
    to_trial = state._replace(rise=state.rise + reading.gain)
    beyond = has_risen(to_trial, reading.trial, RISE_OF_EXPLOSION)
    beyond = beyond & has_risen(state, state.point, RISE_BEFORE_EXPLOSION)
    return upwards & (faster | evenly | (beyond & ~state.newton.convex))


def _is_slow(noted: State, reading: Reading) -> Array:
    """Whether an ascent has taken so many steps to come near an end that it may be following a
    curved ridge in short steps. The profile likelihood is then followed instead, which is faster
    (``profile_steps``).
    """
    near = reading.newton.convex & (reading.newton.decrement <= MAX_DECREMENT_OF_SLOW_ASCENT)
    late = noted.steps > STEPS_OF_SLOW_ASCENT
    return reading.accept & late & near & (reading.trial.curvature is None)


def _is_stopped_on_tail(state: State, reading: Reading) -> Array:
    """Whether an ascent along a proved tail comes to where ℓ or a derivative is NaN, such as
    (1 − y) log(1 − p) where p rounds to one. Shorter steps would only creep up to that point.
    """
    proved = (state.receding_steps >= STEPS_OF_A_TAIL) & (
        state.tail.decrement <= DECREMENT_OF_A_PROVED_TAIL
    )
    return reading.at_nan & state.full & proved


def outcome_of(state: State, noted: State, reading: Reading) -> Array:
    """The outcome of the ascent after this trial; RUNNING if it goes on."""
    trial = reading.trial
    newton = reading.newton
    accept = reading.accept
    xp = namespace(trial.z)
    first = state.steps == 0
    slow = ~(newton.decrement <= 0.25 * state.newton.decrement) | (
        newton.decrement <= DECREMENT_FLOOR
    )
    # Where information dies, some steps more tell a recession from a maximum far out.
    is_early = (noted.receding_steps < STEPS_OF_A_TAIL) & (newton.decrement > DECREMENT_FLOOR**2)
    fading = noted.signature.information < RECEDING_INFORMATION
    fading = fading & state.full & (is_early | (newton.decrement > DECREMENT_TO_END_A_TAIL))
    slow = slow & ~fading
    outcome = xp.where(accept & reading.ulp_sensitive & ~first, PRECISION_REACHED, RUNNING)
    # From far off ℓ rises for long too: by less than it is below zero.
    beyond = (noted.rise + trial.value > 0) & (noted.growing_steps >= STEPS_OF_DIVERGENCE)
    outcome = xp.where(beyond | _explodes(state, noted, reading), DIVERGING, outcome)
    opens = ~state.full & (state.steps <= FIRST_STEPS)
    patience = xp.where(opens, FIRST_STEPS, MAX_ROUNDS_WITHOUT_GAIN)
    outcome = xp.where(_is_slow(noted, reading), SLOW_ASCENT, outcome)
    outcome = xp.where((noted.idle >= patience) | (noted.refused >= MAX_REJECTIONS), STUCK, outcome)
    ends = (~accept & ~(state.extrapolation > 0)) | (accept & slow)
    outcome = xp.where(state.phase == POLISHING, xp.where(ends, SETTLED, RUNNING), outcome)
    outcome = xp.where(reading.inconsistent | _is_stopped_on_tail(state, reading), SETTLED, outcome)
    return xp.where(first & ~reading.finite, NOT_FINITE, outcome)
