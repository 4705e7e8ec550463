"""An ascent by scores alone, from a start and an information that are nearly right: BFGS with unit
steps, on the host.

A pass for the score costs a half (k = 20) to a tenth (k = 200) of one for the Hessian. With the
information of m of n rows for its first metric the error falls by √(k/m) at the first pass and
faster at each further one (Broyden, Fletcher, Goldfarb & Shanno 1970; Nocedal & Wright 2006,
Numerical Optimization, §6.1). The result is only a starting point for Newton steps; nothing is
concluded from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxmle._types import Array, Tree
from jaxmle.solvers.trust_region import DECREMENT_TO_POLISH

MAX_RATIO_OF_DISTANCES = (
    0.5  # what a pass must leave of the distance; 0.03 is usual at m = 1600 k, 0.25 at m = 64 k
)
MAX_FACTOR_OF_INFORMATION = (
    2.0  # factor by which the information along a step may differ from that expected
)
MAX_SCORE_PASSES = 20


class Slope(NamedTuple):
    """One evaluation without a Hessian, in the free coordinates z (k,)."""

    z: Array
    value: Array
    absolute: Array
    score: Array
    aux: Tree = None


class ScoreAscent(NamedTuple):
    """Where an ascent by scores ended."""

    z: Array  # (k,) the start again where it did not arrive
    arrived: bool  # within reach of Newton's last steps, as far as scores tell
    passes: int


def bfgs_ascent(
    slopes: Callable[[Array], Slope], z: Array, information: Array, close: Array
) -> ScoreAscent:
    """Ascend from z (k,) to ``close`` standard errors from the maximum, with an information (k, k)
    that is nearly right.

    The ascent ends at the first pass that a good metric would not give: ℓ falls, the curvature is
    twice or half the expected one, or the distance to the maximum does not halve. If it was close
    enough by then, it has arrived; otherwise it has failed.
    """
    current = slopes(z)
    inverse = _inverse(information)
    step = inverse @ current.score
    distance = np.sqrt(current.score @ step)
    passes = 1
    ahead = distance
    for passes in range(2, MAX_SCORE_PASSES + 1):
        trial = slopes(current.z + step)
        if not _is_sound(current, trial, step):
            return _ended(z, current.z, distance, passes)
        inverse = _bfgs(inverse, step, current.score - trial.score)
        current = trial
        step = inverse @ trial.score
        last = distance
        distance = np.sqrt(current.score @ step)
        ahead = (
            distance * distance / last
        )  # what this step leaves, if it does as well as the one before
        if not distance <= MAX_RATIO_OF_DISTANCES * last or ahead <= close:
            break
    return _ended(z, current.z + step, min(distance, ahead), passes)


def _ended(start: Array, z: Array, distance: Array, passes: int) -> ScoreAscent:
    arrived = bool(0.5 * distance**2 <= DECREMENT_TO_POLISH)
    return ScoreAscent(z if arrived else start, arrived, passes)


def _inverse(information: Array) -> Array:
    scale = np.sqrt(np.diagonal(information))
    return np.linalg.inv(information / np.outer(scale, scale)) / np.outer(scale, scale)


def _is_sound(current: Slope, trial: Slope, step: Array) -> bool:
    """Whether ℓ is finite and does not fall, and the information along d = Bs is close to that of
    the metric: d'y ≈ d'B⁻¹d = d's.
    """
    ratio = (current.score - trial.score) @ step / (current.score @ step)
    noise = 4 * np.finfo(current.z.dtype).eps * max(current.absolute, trial.absolute)
    return bool(
        np.isfinite(trial.value)
        and trial.value >= current.value - noise
        and 1 / MAX_FACTOR_OF_INFORMATION <= ratio <= MAX_FACTOR_OF_INFORMATION
    )


def _bfgs(inverse: Array, step: Array, change: Array) -> Array:
    """B₊ = (I − ρdy')B(I − ρyd') + ρdd', ρ = 1/y'd: the update of the inverse information that
    agrees with the last change of the score.
    """
    rho = 1.0 / (change @ step)
    image = inverse @ change
    return (
        inverse
        - rho * (np.outer(step, image) + np.outer(image, step))
        + rho * (1.0 + rho * (change @ image)) * np.outer(step, step)
    )
