"""Information so faint that a step as long as its coordinate (or one) does not show it: rounding
error, or that on a coordinate near zero whose unit is large, as a mean of centred data of 1e9.

An ascent takes it for rounding error (``without_rounding``). At its end, each such coordinate is
moved by half a standard error. Where ℓ falls and curves as a parabola does, the information is
believed, and the ascent goes on with it.
"""

from __future__ import annotations

import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.leading_axes import column, diagonal
from jaxmle.solvers.state import (
    ASCENDING,
    DONE,
    RUNNING,
    VERIFYING,
    Point,
    State,
)
from jaxmle.solvers.tails import STEPS_OF_A_TAIL, is_receding

VERIFYING_OFFSET = 0.5  # of a standard error, the other coordinates held
MAX_RATIO_TO_PARABOLA = 3.0  # of fall and curvature, either way


def _is_left_out(state: State) -> Array:
    """The coordinates (k, ...) whose information was taken for rounding error. Along a recession
    information vanishes, and there is nothing to verify.
    """
    recedes = (state.tail.length >= STEPS_OF_A_TAIL) & is_receding(state.tail.z, state.tail.move)
    return (diagonal(state.point.hessian) == 0) & ~recedes


def needs_verification(state: State) -> Array:
    """Whether information was left out at the end of an ascent, and not verified yet."""
    return namespace(state.point.z).any(_is_left_out(state), axis=0) & (state.verified < 0)


def _is_alike(found: Array, expected: Array | float) -> Array:
    """Whether a number is within a factor of the one that a parabola has."""
    least = expected / MAX_RATIO_TO_PARABOLA
    return (found >= least) & (found <= expected * MAX_RATIO_TO_PARABOLA)


def verify(state: State, point: Point) -> State:
    """What follows from the evaluation at the end, or half a standard error from it: the next
    coordinate to verify, the end of the ascent, or that it goes on with what is believed.
    """
    xp = namespace(state.point.z)
    k = len(point.z)
    at_end = state.verified < 0
    left_out = at_end & _is_left_out(state)
    faint = xp.where(left_out, xp.maximum(-diagonal(point.hessian), 0.0), state.faint)
    parabola = 0.5 * VERIFYING_OFFSET**2
    is_parabola = _is_alike(state.point.value - point.value, parabola)
    is_parabola = is_parabola & _is_alike(-diagonal(point.hessian), state.faint)
    place = column(np.arange(k), point.z)
    believed = state.believed | (is_parabola & (place == state.verified))
    following = xp.min(xp.where((faint > 0) & (place > state.verified), place, k), axis=0)
    is_over = following == k
    goes_on = is_over & xp.any(believed, axis=0)
    metric = xp.sqrt(xp.where(faint > 0, faint, 1.0))
    renewed = goes_on & believed
    phase = xp.where(is_over, xp.where(goes_on, ASCENDING, DONE), VERIFYING)
    return state._replace(
        phase=phase.astype(state.phase.dtype),
        outcome=xp.where(goes_on, RUNNING, state.outcome).astype(state.outcome.dtype),
        move=xp.where(place == following, VERIFYING_OFFSET / metric, 0.0),
        scale=xp.where(renewed, metric, state.scale),
        peak=xp.where(renewed, metric, state.peak),
        predicted=xp.where(goes_on, 0.0, state.predicted),
        full=state.full & ~goes_on,
        idle=xp.where(goes_on, 0, state.idle).astype(state.idle.dtype),
        refused=xp.where(goes_on, 0, state.refused).astype(state.refused.dtype),
        steps=state.steps + xp.ones_like(state.steps),
        faint=faint,
        believed=believed,
        verified=following.astype(state.verified.dtype),
    )
