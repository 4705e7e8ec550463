"""Reuse of the Hessian: after a step that is too short to change it, only value and score are
evaluated.

From θ with information J the last Newton step d has the length |d| = √(d'Jd) in standard errors.
With T the third derivative of ℓ,

    |u'(J(θ + d) − J(θ))u| = |T[d, u, u]| ≤ τ |d| u'Ju    for every u,
    τ = max T[v, v, v] over v with v'Jv = 1

(the norm of a symmetric trilinear form is attained on its diagonal: Banach 1938, Studia Math. 7),
so no standard error changes by more than a fraction τ|d|/2. τ is the change of the information over
one standard error: at most 1/√N for a count of N events. An ascent over a sample of the rows gives
max |T[v, u, u]| over u for its own last step v. Because d is another step, eight times that value
is assumed. Along d itself, nothing is taken from the sample. A Newton step leaves the score s₊ =
−½T[d, d, ·], hence

    |(J(θ + d) − J(θ))d| = 2|s₊|    in the norm of J⁻¹, which is 2√(δ₊/δ) of |Jd|,

and a change of the information along the step (on a recession 1 − e⁻¹) shows in it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxmle._types import Array, ndarray
from jaxmle.solvers.bfgs import Slope
from jaxmle.solvers.newton_step import newton_step
from jaxmle.solvers.state import POLISHING, Point, State, noise_of, null_cut

# relative error of a standard error that is allowed for; 1.1e-8 is the most seen in 120 fits of 20
# kinds
STDERR_TOLERANCE = 2.5e-7
# τ over what the sample shows. Of 1e6 × 20 and 1e5 × 200 logistic, the sample shows twice what all
# rows do along other steps
SAFETY_FACTOR_OF_SAMPLE = 8.0
LONGEST_STEP_IN_STDERR = 3e-5  # standard errors, where the sample shows no change at all
# of the length of a short step, to which an ascent by scores should come near: what it says is left
# is right to a factor of two
SHARE_OF_SAFE_STEP_TO_REACH = 0.5
# The relative change of Jd that may be seen: twice what is allowed for.
MAX_CHANGE_OF_INFORMATION = 1e-6
# standard errors that rounding may leave of the score: 3e-14 is usual
SCORE_ROUNDING_IN_STDERR = 1e-12


def longest_safe_step(turn: Array) -> Array:
    """The longest step, in standard errors, that changes no standard error by more than
    ``STDERR_TOLERANCE``.

    Args:
        turn: relative change of the information over one standard error, as the sample shows it.
    """
    return np.minimum(
        LONGEST_STEP_IN_STDERR,
        2 * STDERR_TOLERANCE / (SAFETY_FACTOR_OF_SAMPLE * turn + np.finfo(float).tiny),
    )


def reuse_hessian(slopes: Callable[[Array], Slope], longest: Array, state: State) -> Point | None:
    """The point at the end of the pending step with the Hessian of the present point; None if the
    Hessian has to be evaluated there.

    Args:
        slopes: the pass for value and score.
        longest: the ``longest_safe_step``.
        state: of an ascent by Newton's steps.
    """
    newton = state.newton
    if state.phase != POLISHING or not (
        newton.definite and newton.convex and np.sqrt(2 * newton.decrement) <= longest
    ):
        return None
    before = state.point
    slope = slopes(before.z + state.move)
    user = before.aux
    point = Point(
        slope.z,
        slope.value,
        slope.absolute,
        slope.score,
        before.hessian,
        None,
        slope.aux._replace(hessian=user.hessian, hessian_by=user.hessian_by),
    )
    if not np.isfinite(slope.value) or not np.all(np.isfinite(slope.score)):
        return None
    allowed = 0.5 * MAX_CHANGE_OF_INFORMATION * np.sqrt(2 * newton.decrement)
    return point if _left(point, state) <= max(allowed, SCORE_ROUNDING_IN_STDERR) else None


def _left(point: Point, state: State) -> ndarray:
    """The distance to the maximum √(2δ₊), in standard errors, after the step, by the information
    with which it was computed.
    """
    information = -0.5 * (point.hessian + point.hessian.T)
    return np.sqrt(
        2
        * newton_step(
            information, point.score, state.scale, null_cut(point), np.sqrt(noise_of(point))
        ).decrement
    )
