"""Scales on which an interval is symmetric: the identity, and links for positive values and
probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy

from jaxmle._namespace import namespace
from jaxmle._types import Array


class Scale(NamedTuple):
    """A link g, its derivative g', and its inverse."""

    link: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    inverse: Callable[[Array], Array]


def _log_odds(p: Array) -> Array:
    xp = namespace(p)
    return xp.log(p) - xp.log1p(-p)


def _sigmoid(z: Array) -> Array:
    xp = namespace(z)
    odds = xp.exp(-xp.abs(z))
    return xp.where(z < 0, odds, 1.0) / (1.0 + odds)


def _normal_density(z: Array) -> Array:
    return np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)


# Only on the host, from SciPy: the scales of models with these links. ``scipy.special`` is imported
# when the first of them is asked for.
HOST_LINK_SCALES = {
    "probit": Scale(
        lambda p: scipy.special.ndtri(p),
        lambda p: 1.0 / _normal_density(scipy.special.ndtri(p)),
        lambda z: scipy.special.ndtr(z),
    ),
    "cloglog": Scale(
        lambda p: np.log(-np.log1p(-p)),
        lambda p: -1.0 / ((1.0 - p) * np.log1p(-p)),
        lambda z: -np.expm1(-np.exp(z)),
    ),
}
INTERVAL_SCALES = {
    "identity": Scale(lambda m: m, lambda m: namespace(m).ones_like(m), lambda z: z),
    "log": Scale(lambda m: namespace(m).log(m), lambda m: 1.0 / m, lambda z: namespace(z).exp(z)),
    "logit": Scale(_log_odds, lambda p: 1.0 / (p * (1.0 - p)), _sigmoid),
}


def interval_on(scale: str, estimate: Array, stderr: Array, z: float) -> Array:
    """The interval g⁻¹(g(m) ± z g'(m) SE), a last axis (lower, upper); NaN if g is not defined.

    >>> interval_on("log", np.array(2.0), np.array(0.5), 1.96).round(4).tolist()
    [1.2252, 3.2646]
    """
    link = INTERVAL_SCALES[scale] if scale in INTERVAL_SCALES else HOST_LINK_SCALES[scale]
    xp = namespace(estimate)
    with np.errstate(all="ignore"):
        centre = link.link(estimate)
        half = z * stderr * link.slope(estimate)
        return xp.stack([link.inverse(centre - half), link.inverse(centre + half)], axis=-1)


def wald_interval(
    x: Array, se: Array, bounds: tuple[tuple[float, float], ...], z: float, scale: str
) -> Array:
    """The interval (..., p, 2) from estimate and standard error, on the identity, log or logit
    scale of each entry, depending on its bounds.
    """
    xp = namespace(x)
    ends = []
    for j, (low, high) in enumerate(bounds):
        estimate = x[..., j]
        half = z * se[..., j]
        if scale == "user" or (np.isinf(low) and np.isinf(high)):
            pair = (estimate - half, estimate + half)
        elif np.isinf(high):
            ratio = xp.exp(half / (estimate - low))
            pair = (low + (estimate - low) / ratio, low + (estimate - low) * ratio)
        elif np.isinf(low):
            ratio = xp.exp(half / (high - estimate))
            pair = (high - (high - estimate) * ratio, high - (high - estimate) / ratio)
        else:
            width = high - low
            odds = (estimate - low) / (high - estimate)
            ratio = xp.exp(half * width / ((estimate - low) * (high - estimate)))
            pair = (low + width / (1 + ratio / odds), high - width / (1 + ratio * odds))
        ends.append(xp.stack(pair, axis=-1))
    return xp.stack(ends, axis=-2)
