"""Bootstrap intervals from replicates alone: plain functions of arrays.

Replicates (R, q) may hold ±inf, which keeps its place in the order, and NaN, which is left out.
"""

from __future__ import annotations

import numpy as np
import scipy

from jaxmle._types import ndarray

PLACE_TOLERANCE = 1e-9  # rounding of (b + 1)p, the rank of a quantile among b replicates


def order_statistic(values: ndarray, probability: float) -> float:
    """The (R + 1)·probability-th smallest of R values, interpolated on the normal quantile scale.

    Davison & Hinkley (1997), *Bootstrap Methods and their Application*, p. 195, which is what R's
    ``boot.ci`` does. NaN if the rank is outside 1 … R, because there are too few replicates for
    such a small tail. (``boot.ci`` uses the extreme one and warns.)
    """
    values = np.sort(values[~np.isnan(values)])
    place = (len(values) + 1) * probability
    near = round(place)
    if abs(place - near) < PLACE_TOLERANCE * max(place, 1.0):
        return float(values[near - 1]) if 1 <= near <= len(values) else np.nan
    low = int(np.floor(place))
    if not 1 <= low < len(values):
        return np.nan
    a = values[low - 1]
    b = values[low]
    z, z_low, z_high = scipy.special.ndtri(
        [probability, low / (len(values) + 1), (low + 1) / (len(values) + 1)]
    )
    return _between(a, b, (z - z_low) / (z_high - z_low))


def _between(a: float, b: float, share: float) -> float:
    """The value a + share·(b − a); if an end is infinite, so is everything strictly between."""
    if a == b or share == 0.0:
        return float(a)
    return (
        float(a + share * (b - a))
        if np.isfinite(a) and np.isfinite(b)
        else float(a if np.isneginf(a) else b)
    )


def linear_quantile(values: ndarray, probability: float) -> float:
    """The quantile at rank (R − 1)·probability + 1, interpolated linearly: NumPy's default, used by
    scipy's BCa.
    """
    values = np.sort(values[~np.isnan(values)])
    if not len(values) or np.isnan(probability):
        return np.nan
    place = (len(values) - 1) * probability
    low = min(int(np.floor(place)), len(values) - 1)
    return _between(values[low], values[min(low + 1, len(values) - 1)], place - low)


def percentile(replicates: ndarray, level: float) -> ndarray:
    """Percentile intervals θ*_(α/2), θ*_(1−α/2), (q, 2)."""
    return np.array(
        [[order_statistic(column, tail) for tail in _tails(level)] for column in replicates.T]
    )


def basic(estimate: ndarray, replicates: ndarray, level: float) -> ndarray:
    """Basic intervals 2θ̂ − θ*_(1−α/2), 2θ̂ − θ*_(α/2), (q, 2)."""
    with np.errstate(invalid="ignore"):  # inf − inf
        return 2 * estimate[:, None] - percentile(replicates, level)[:, ::-1]


def bias_correction(estimate: ndarray, replicates: ndarray) -> ndarray:
    """The bias correction z₀ = Φ⁻¹(#{θ* < θ̂}/R + #{θ* = θ̂}/2R), (q,)."""
    known = np.maximum(np.sum(~np.isnan(replicates), axis=0), 1)
    below = np.sum(replicates < estimate, axis=0) + np.sum(replicates <= estimate, axis=0)
    return scipy.special.ndtri(np.where(np.isnan(estimate), np.nan, below / (2 * known)))


def bca(estimate: ndarray, replicates: ndarray, acceleration: ndarray, level: float) -> ndarray:
    """Bias-corrected and accelerated intervals, (q, 2): quantiles at Φ(z₀ + (z₀ + z_α)/(1 − a(z₀ +
    z_α))).

    Efron (1987), JASA 82, 171. NaN if all replicates lie on one side of the estimate.
    """
    z0 = bias_correction(estimate, replicates)
    ends = np.full((len(estimate), 2), np.nan)
    for j, (shift, a) in enumerate(zip(z0, acceleration, strict=True)):
        for side, tail in enumerate(_tails(level)):
            moved = shift + scipy.special.ndtri(tail)
            if np.isfinite(moved) and np.isfinite(a):
                ends[j, side] = linear_quantile(
                    replicates[:, j], float(scipy.special.ndtr(shift + moved / (1 - a * moved)))
                )
    return ends


def studentized(
    estimate: ndarray,
    stderr: ndarray,
    replicates: ndarray,
    stderrs: ndarray,
    level: float,
) -> ndarray:
    """Studentized intervals θ̂ − se·t*_(1−α/2), θ̂ − se·t*_(α/2), with t* = (θ* − θ̂)/se*, (q, 2).

    NaN for an entry with an infinite replicate: it has no t*, and leaving it out would make the
    interval too short.
    """
    with np.errstate(all="ignore"):
        t = (replicates - estimate) / np.where(stderrs > 0, stderrs, np.nan)
        ends = estimate[:, None] - stderr[:, None] * percentile(t, level)[:, ::-1]
    return np.where(
        np.any(np.isinf(replicates), axis=0)[:, None] | ~np.isfinite(estimate)[:, None],
        np.nan,
        ends,
    )


def _tails(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2


def skewness_of(influence: ndarray, times: ndarray) -> ndarray:
    """The acceleration a = Σ w u³ / 6(Σ w u²)^1.5 of influence values u (units, q) that stand for w
    units each; NaN if any is not finite.
    """
    with np.errstate(all="ignore"):
        return np.sum(times[:, None] * influence**3, axis=0) / (
            6 * np.sum(times[:, None] * influence**2, axis=0) ** 1.5
        )


def spread(replicates: ndarray) -> ndarray:
    """The standard deviation of replicates, (q,), by the rules of ``stderr_of``."""
    with np.errstate(invalid="ignore"):
        return stderr_of(np.std(replicates, axis=0, ddof=1), replicates)


def stderr_of(se: ndarray, values: ndarray) -> ndarray:
    """Standard errors (q,) of values (units, q): inf if a value is infinite, and NaN if one is
    undefined or all are equal, as for an entry that is held fixed.
    """
    infinite = np.any(np.isinf(values), axis=0)
    same = np.all(values == values[:1], axis=0)
    return np.where(np.any(np.isnan(values), axis=0) | same, np.nan, np.where(infinite, np.inf, se))
