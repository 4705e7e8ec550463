"""Pointwise bands of survival functions and cumulative hazards, symmetric on a chosen scale."""

from __future__ import annotations

import numpy as np
import scipy

from jaxmle._types import Array, ndarray
from jaxmle.parameters.arguments import check_choice, check_level
from jaxmle.record.scales import interval_on

SURVIVAL_BANDS = ("log", "log-log", "plain", "logit", "arcsin")
HAZARD_BANDS = ("log", "plain")


def band_of(
    quantity: str, estimate: Array, stderr: Array, level: float, band: str
) -> tuple[ndarray, ndarray]:
    """The lower and upper ends of pointwise intervals.

    With σ the standard error of θ̂ and z the normal quantile: ``"plain"`` θ̂ ± zσ;
    ``"log"`` θ̂·exp(±zσ/θ̂). For a probability S also ``"log-log"``, S^exp(±zσ/(S log S));
    ``"logit"``, logit S ± zσ/(S(1 − S)); ``"arcsin"``, arcsin √S ± zσ/(2√(S(1 − S))). Ends are
    limited to [0, 1] for probabilities and to 0 from below for hazards (Klein & Moeschberger 2003,
    section 4.3; the log band is the default of R's ``survfit``, log-log that of lifelines).

    Args:
        quantity: ``"survival"``, ``"incidence"`` (a probability of an event) or a hazard.
        estimate, stderr: of that quantity, with the same shape.
        level: coverage of each interval.
        band: the scale.

    Returns:
        Two arrays of that shape. A band on a logarithmic scale is NaN if S is 0 or there is no
        standard error.

    Raises:
        ValueError: for a scale that the quantity does not have.

    >>> low, high = band_of("survival", np.array([0.5]), np.array([0.1]), 0.95, "plain")
    >>> round(float(low[0]), 3), round(float(high[0]), 3)
    (0.304, 0.696)
    """
    level = check_level(level)
    is_probability = quantity in ("survival", "incidence")
    check_choice("band", band, SURVIVAL_BANDS if is_probability else HAZARD_BANDS)
    z = float(scipy.special.ndtri(0.5 + level / 2))
    estimate = np.asarray(estimate, float)
    stderr = np.asarray(stderr, float)
    with np.errstate(all="ignore"):
        if band == "plain":
            low = estimate - z * stderr
            high = estimate + z * stderr
        elif band == "log":
            factor = np.exp(z * stderr / estimate)
            low = estimate / factor
            high = estimate * factor
        elif band == "log-log":
            power = np.exp(z * stderr / (estimate * np.abs(np.log(estimate))))
            low = estimate**power
            high = estimate ** (1 / power)
        elif band == "logit":
            low, high = np.moveaxis(np.asarray(interval_on("logit", estimate, stderr, z)), -1, 0)
        else:
            angle = np.arcsin(np.sqrt(estimate))
            half = z * stderr / (2 * np.sqrt(estimate * (1 - estimate)))
            low = np.sin(np.maximum(angle - half, 0.0)) ** 2
            high = np.sin(np.minimum(angle + half, np.pi / 2)) ** 2
        # nothing has happened yet: S = 1, H = 0
        is_exact = (stderr == 0) & ~((quantity == "survival") & (estimate == 0))
        low = np.where(is_exact, estimate, low)
        high = np.where(is_exact, estimate, high)
    low = np.maximum(low, 0.0)
    return low, np.minimum(high, 1.0) if is_probability else high
