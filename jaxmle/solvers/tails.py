"""Recessions during an ascent: runs of steps of constant length along which the information
vanishes. Several such steps are taken at once, and rounding noise that looks similar is recognised.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmle._namespace import is_nowhere, namespace
from jaxmle._types import Array
from jaxmle.solvers.leading_axes import (
    diagonal,
    dot,
    quadratic,
)
from jaxmle.solvers.newton_step import NewtonStep
from jaxmle.solvers.state import Point, Signature, State, Tail, select

# information ratio of a step: ≥ .999999 on 5 821 overlapping designs, ≤ .376 on all separated ones
RECEDING_INFORMATION = 0.6
MIN_PREDICTED_GAIN = (
    1e-5  # predicted gain below which a gain that score and Hessian do not account for is noise
)
# decrement of a tail from which on rounding is looked for, and the share of the predicted gain by
# which a gain then differs from that of scores and Hessians: .0017 on a tail e⁻ᵗ, .006 on 1/t
DECREMENT_OF_A_PLAIN_TAIL = 1e-4
MAX_INCONSISTENCY_OF_A_TAIL = 0.0125
# A gain above so many times the predicted one is compared with that of scores and Hessians. Their
# squared difference may be so many times the product of gain and prediction: 1e3 was seen on steps
# from plateaus, 3e3 to 1e50 on steps to where differences of log-gamma functions are rounding.
GAIN_RATIO_TO_CHECK = 3.0
MAX_SQUARED_MISMATCH_OF_LARGE_GAIN = 2e3
# times the metric before a step: beyond it, the gain is compared in the same way
METRIC_RATIO_TO_CHECK = 1e6
MAX_SQUARED_MISMATCH_OF_SMALL_STEPS = 25.0  # for a small predicted gain: these leave no plateau
# decrement below which rounding blurs the direction of a recession
MIN_DECREMENT_OF_A_DIRECTION = 1e-10
# decrement down to which an ascent with vanishing information is followed
DECREMENT_TO_END_A_TAIL = 1e-14
RECEDING_SHARE = 1e-3  # of a coordinate, or of one, by which a step moves what recedes
STEPS_OF_A_TAIL = 4  # receding steps in a row that make a recession
# decrement below which a tail counts as a recession, and several of its steps are taken at once
DECREMENT_OF_A_PROVED_TAIL = 1e-5
# factor by which slope and information after an extrapolation may differ from those of a tail e⁻ᵗ
EXTRAPOLATION_SLOPE_TOLERANCE = 2.0
# the same for the decrement, which also contains the coordinates that do not recede
EXTRAPOLATION_DECREMENT_TOLERANCE = 100.0
# 1 − r from which steps that shrink by the same ratio r, to within this share of 1 − r, have a sum:
# r is .909 on −t¹² for ever; on the tail of a normal distribution function, the slowest that was
# seen to grow towards one, 1 − r falls by 1/k at the kth of at most 40 steps
MIN_SHRINKAGE = 0.01
MAX_CHANGE_OF_SHRINKAGE = 0.01
# decrement after a step, relative to that before it, at which the step has reached the maximum
MAX_DECREMENT_RATIO_AT_MAXIMUM = 1e-6


def is_receding(z: Array, move: Array) -> Array:
    """Which coordinates (k, ...) recede by a step along a tail to z; others converge, and their
    steps get shorter.
    """
    xp = namespace(z)
    return xp.abs(move) > RECEDING_SHARE * (1.0 + xp.abs(z))


class PathCurvature(NamedTuple):
    """The curvature d'Hd (...) along the pending step d, at its start and at its end."""

    before: Array
    after: Array


def curvature_along(state: State, trial: Point) -> PathCurvature:
    """The curvature along the pending step, at the state's point and at the trial."""
    d = state.move
    return PathCurvature(quadratic(state.point.hessian, d), quadratic(trial.hessian, d))


def lengthened(
    state: State, trial: Point, newton: NewtonStep, signature: Signature, fresh: Array
) -> Tail:
    """The tail, one step longer if the step recedes. A regular step ends a tail, but the record of
    it is kept until another one is as long, or has STEPS_OF_A_TAIL steps.

    A step at which the eigenvalue of the direction first falls below the cut is not counted,
    because the decrement then no longer says what is left to gain.
    """
    is_informative = newton.definite | ~state.newton.definite
    recedes = (
        fresh
        & _recedes(state, signature, newton)
        & is_informative
        & (state.newton.decrement >= MIN_DECREMENT_OF_A_DIRECTION)
    )
    length = state.receding_steps + 1
    longer = recedes & ((length >= STEPS_OF_A_TAIL) | (length >= state.tail.length))
    if is_nowhere(longer):
        return state.tail
    return select(
        longer,
        Tail(trial.z, state.move, trial.value, newton.decrement, length),
        state.tail,
    )


def is_rough(
    state: State,
    trial: Point,
    newton: NewtonStep,
    signature: Signature,
    curvatures: PathCurvature,
    noise: Array,
    small: Array,
) -> Array:
    """Whether value, score and Hessian of a ``small`` step contradict each other: the gain differs
    from what score and Hessian predict, or the score vanishes while the information changes by a
    tenth (a fraction (1 − q)²/4 of δ should remain).
    """
    xp = namespace(trial.z)
    if is_nowhere(small):
        return small
    score_vanishes = (xp.abs(1.0 - signature.information) > 0.1) & (
        newton.decrement < MAX_DECREMENT_RATIO_AT_MAXIMUM * state.newton.decrement
    )
    differs = _mismatch(state, trial, curvatures) > 0.3 * state.predicted + 100 * noise
    return small & (
        differs | (score_vanishes & (state.newton.decrement > MIN_DECREMENT_OF_A_DIRECTION))
    )


def is_inconsistent(state: State, trial: Point, curvatures: PathCurvature, noise: Array) -> Array:
    """Whether an ascent along a proved tail has come to where value, score and Hessian contradict
    each other, so that further steps would follow rounding noise.
    """
    proved = (state.tail.length >= STEPS_OF_A_TAIL) & (
        state.tail.decrement <= DECREMENT_OF_A_PLAIN_TAIL
    )
    follows = (
        state.full
        & (state.receding_steps >= STEPS_OF_A_TAIL)
        & (state.predicted <= DECREMENT_OF_A_PLAIN_TAIL)
    )
    asked = proved & follows
    if is_nowhere(asked):
        return asked
    return asked & (
        _mismatch(state, trial, curvatures)
        > MAX_INCONSISTENCY_OF_A_TAIL * state.predicted + 10 * noise
    )


def is_too_good(
    state: State, trial: Point, curvatures: PathCurvature, gain: Array, noise: Array
) -> Array:
    """Whether a step gains far more than predicted, or leads to a curvature a million times larger,
    and scores and Hessians at both ends cannot explain the gain. Such steps lead far out, where
    differences of log-gamma functions are rounding noise.
    """
    xp = namespace(trial.z)
    predicted = xp.maximum(state.predicted, 0.0) + noise
    metric_jumps = xp.abs(diagonal(trial.hessian)) > (METRIC_RATIO_TO_CHECK * state.scale) ** 2
    asked = ((gain > GAIN_RATIO_TO_CHECK * predicted) | xp.any(metric_jumps, axis=0)) & (
        state.steps > 0
    )
    if is_nowhere(asked):
        return asked
    is_small = predicted <= MIN_PREDICTED_GAIN
    share = xp.where(
        is_small, MAX_SQUARED_MISMATCH_OF_SMALL_STEPS, MAX_SQUARED_MISMATCH_OF_LARGE_GAIN
    )
    allowed = share * xp.maximum(gain, 0.0) * predicted
    return asked & ~(_mismatch(state, trial, curvatures) ** 2 <= allowed)


def _mismatch(state: State, trial: Point, curvatures: PathCurvature) -> Array:
    """How far the gain is from what scores and Hessians at both ends predict, ½(s₀ + s₁)'d + (d'H₀d
    − d'H₁d)/12 (Hermite's rule).
    """
    slope = dot(state.point.score + trial.score, state.move)
    by_derivatives = 0.5 * slope + (curvatures.before - curvatures.after) / 12
    return namespace(trial.z).abs(trial.value - state.point.value - by_derivatives)


def extrapolation_holds(
    state: State, trial: Point, newton: NewtonStep, pending_signature: Signature
) -> Array:
    """Whether an extrapolation by m steps ends as on a tail e⁻ᵗ: slope and information along it are
    e⁻ᵐ times what they were. Rounding noise does not do that.
    """
    xp = namespace(trial.z)
    extrapolated = state.extrapolation > 0
    if is_nowhere(extrapolated):
        return extrapolated
    slope_after = dot(trial.score, state.move)
    slope_before = dot(state.point.score, state.move)
    grown = xp.exp(state.extrapolation)

    def near(ratio: Array) -> Array:
        return (ratio * EXTRAPOLATION_SLOPE_TOLERANCE >= 1.0) & (
            ratio <= EXTRAPOLATION_SLOPE_TOLERANCE
        )

    slope = slope_after / xp.where(slope_before > 0, slope_before, xp.inf)
    return (
        extrapolated
        & newton.definite
        & near(slope * grown)
        & near(pending_signature.information * grown)
        & (newton.decrement * grown <= EXTRAPOLATION_DECREMENT_TOLERANCE * state.newton.decrement)
    )


def receding_steps_after(state: State, signature: Signature, newton: NewtonStep) -> Array:
    """The number of receding steps in a row. The step after an extrapolation brings the coordinates
    that stay finite to their maximum; the one after that has to recede.
    """
    xp = namespace(state.point.z)
    plain = xp.where(
        state.receding_steps < 0,
        STEPS_OF_A_TAIL - 1,
        xp.where(_recedes(state, signature, newton), state.receding_steps + 1, 0),
    )
    return xp.where(state.extrapolation > 0, -1, xp.where(state.full, plain, state.receding_steps))


def _recedes(state: State, signature: Signature, newton: NewtonStep) -> Array:
    """Whether the information vanishes along a step that is no shorter than the one before. Steps
    that shrink geometrically have a finite sum and lead to a point, such as a maximum of twelfth
    order.
    """
    shrinkage = 1.0 - signature.step
    change = namespace(shrinkage).abs(shrinkage - (1.0 - state.signature.step))
    is_geometric = (shrinkage >= MIN_SHRINKAGE) & (change <= MAX_CHANGE_OF_SHRINKAGE * shrinkage)
    return (
        (signature.information < RECEDING_INFORMATION)
        & (signature.step >= 0.9)
        & (signature.decrement < 0.9)
        & newton.convex
        & ~is_geometric
    )


def signature_of(
    state: State, trial: Point, newton: NewtonStep, scale: Array, curvatures: PathCurvature
) -> Signature:
    """How the pending step changes information, decrement and step length, (...) each.

    Args:
        newton: the full Newton step at the trial.
        scale: the metric D (k, ...) there.
    """
    xp = namespace(trial.z)
    d = state.move
    tiny = xp.finfo(trial.z.dtype).tiny
    before = -curvatures.before
    is_known = before > tiny
    # In units of the metric, or of the coordinate where that makes the steps shrink less: what
    # recedes has a metric that dies, and is hidden by what converges beside it.
    size = 1.0 + xp.abs(trial.z)

    def ratio(unit: Array) -> Array:
        length = xp.sum((unit * d) ** 2, axis=0)
        return xp.sqrt(length / xp.maximum(xp.sum((unit * state.last) ** 2, axis=0), tiny))

    return Signature(
        information=xp.where(is_known, -curvatures.after / xp.where(is_known, before, 1.0), 1.0),
        decrement=newton.decrement / xp.maximum(state.newton.decrement, tiny),
        step=xp.maximum(ratio(scale), ratio(1.0 / size)),
    )


def extrapolate(state: State, whole: Array) -> tuple[Array, Array]:
    """How many Newton steps along a recession to take at once (...), or 0, and their sum (k, ...).

    Along a tail e⁻ᵗ each step is d = v + c. The part v is the same in all steps. The part c, of the
    coordinates that do not recede, is of second order and shrinks by q², the square of the
    information ratio, each time. So the latest two steps determine both, and m steps together are
    mv + c(1 + q² + q⁴ + …). They are not tried before information and decrement fall by e⁻¹ at
    each. If an extrapolation does not end where such a tail would be, it is refused and no other is
    tried; single steps then show whether this is a recession.
    """
    xp = namespace(state.point.z)
    step = state.newton.step
    decrement = state.newton.decrement
    proved = (
        state.may_extrapolate
        & state.full
        & (state.receding_steps >= STEPS_OF_A_TAIL)
        & (state.tail.decrement <= DECREMENT_OF_A_PROVED_TAIL)
        & (state.refused == 0)
        & state.newton.definite
    )
    if is_nowhere(proved):
        return xp.zeros_like(decrement), step
    information = xp.clip(state.signature.information, 0.1, RECEDING_INFORMATION)
    square = information**2
    c = (state.last - step) * square / (1 - square)
    end = xp.where(
        decrement > 100 * MIN_DECREMENT_OF_A_DIRECTION,
        10 * MIN_DECREMENT_OF_A_DIRECTION,
        DECREMENT_TO_END_A_TAIL,
    )  # the first end leaves room for sharp steps
    number = xp.log(xp.clip(decrement / end, 1.0, 1.0 / DECREMENT_TO_END_A_TAIL))
    # how far m steps like the latest one would miss e⁻ᵐ, as a logarithm
    ratios = xp.stack([information, xp.clip(state.signature.decrement, 0.1, 1.0)])
    deviation = number * xp.sum(xp.abs(1.0 + xp.log(ratios)), axis=0)
    near = deviation <= np.log(EXTRAPOLATION_SLOPE_TOLERANCE)
    may_extrapolate = whole & proved & near & (number >= 2.0) & (state.point.curvature is None)
    return xp.where(may_extrapolate, number, 0.0), xp.where(
        may_extrapolate, number * (step - c) + c / (1 - square), step
    )
