"""Normal regression with limits: the response is censored at them (tobit), or rows beyond them are
not recorded at all (truncated).
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.families import combinators, location_scale
from jaxmle.likelihood.regression import Predictor, linear, regression
from jaxmle.models.common import coding
from jaxmle.models.common.censoring import Censoring
from jaxmle.models.common.log_differences import log_ndtr, log_ndtr_diff
from jaxmle.models.common.model import Model
from jaxmle.models.common.options import made_once
from jaxmle.models.common.predictors import constant, eta_of
from jaxmle.models.common.response_laws import PredictiveLaw, of_family, uniform
from jaxmle.models.common.start_values import column, regress, spread
from jaxmle.parameters.constraints import positive
from jaxmle.special.normal import lower_hazard, ndtri
from jaxmle.special.stirling import HALF_LOG_2PI

MAX_LIMIT = 1e150  # its square is finite; a larger number stands for infinity


def _limit(name: str, value: object, none: float) -> float:
    """A limit as a number; None, and a huge number meant as infinity, are rejected."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number; got {value!r}. No limit is {name}={none}")
    limit = float(value)
    if MAX_LIMIT <= abs(limit) < math.inf:
        raise ValueError(f"{name} is {limit:g}; no limit is {name}={none}")
    return limit


def _check_limits(lower: float, upper: float) -> tuple[float, float]:
    low = _limit("lower", lower, -math.inf)
    high = _limit("upper", upper, math.inf)
    if not low < high:
        raise ValueError(f"lower must be below upper; got {lower} and {upper}")
    if math.isinf(low) and math.isinf(high):
        raise ValueError("give a finite lower or upper limit; without one use normal()")
    return low, high


def _tobit_density(low: float, high: float, eta: Tree, row: Tree) -> Array:
    mu = eta["mu"]
    sigma = eta["sigma"]
    y = row["y"]
    term = -0.5 * ((y - mu) / sigma) ** 2 - jnp.log(sigma) - HALF_LOG_2PI
    if math.isfinite(low):
        term = jnp.where(y <= low, log_ndtr((low - mu) / sigma), term)
    return (
        jnp.where(y >= high, log_ndtr((mu - high) / sigma), term) if math.isfinite(high) else term
    )


@made_once
def tobit(*, lower: float = 0.0, upper: float = math.inf, offset: str | None = None) -> Model:
    """Censored normal regression: y* ~ N(xβ, σ²) is recorded as ``lower`` if it is below and as
    ``upper`` if it is above. Parameters: ``beta`` (q,), ``sigma``.

    ``predict`` is the mean of the recorded response; ``x @ beta`` is that of y*. Tobin (1958),
    Econometrica 26, p. 24.

    Args:
        lower, upper: the limits; an infinite one does not censor. A response at or beyond a limit
            is censored there.
        offset: name of a data leaf (n,) added to the mean.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((4, 1)), "y": np.array([0.0, 1.0, 2.0, 3.0])}
    >>> fit = jm.fit(models.tobit(), data=data)
    >>> fit.params["beta"].round(3).tolist()
    [1.305]
    """
    low, high = _check_limits(lower, upper)
    eta: dict[str, Predictor] = {"mu": linear("x", "beta", offset), "sigma": "sigma"}
    return Model(
        "tobit",
        regression(functools.partial(_tobit_density, low, high), eta),
        functools.partial(_start_values, offset=offset),
        {"sigma": positive},
        lambda params, data: constant(eta_of(params, data, offset), params["sigma"]),
        _censored_law(low, high),
        coding=coding.optional(offset),
        censoring=_at_limits(low, high, offset),
    )


def _at_limits(low: float, high: float, offset: str | None) -> Censoring:
    """A value recorded at a limit lies there or beyond; the mean is that of the recorded values."""

    def ends(params: Tree, data: Tree) -> tuple[Array, Array]:
        mu = eta_of(params, data, offset)
        sigma = params["sigma"]
        y = data["y"]
        log_cdf = log_ndtr((mu - jnp.clip(y, low, high)) / sigma)
        return jnp.where(y <= low, 0.0, log_cdf), jnp.where(y >= high, -jnp.inf, log_cdf)

    return Censoring(ends, lambda data: (data["y"] <= low) | (data["y"] >= high))


def _truncated_density(low: float, high: float, eta: Tree, row: Tree) -> Array:
    mu = eta["mu"]
    sigma = eta["sigma"]
    y = row["y"]
    term = (
        -0.5 * ((y - mu) / sigma) ** 2
        - jnp.log(sigma)
        - HALF_LOG_2PI
        - _log_inside(low, high, mu, sigma)
    )
    return jnp.where((y >= low) & (y <= high), term, -jnp.inf)


def _log_inside(low: float, high: float, mu: Array, sigma: Array) -> Array:
    """The log of the probability that N(μ, σ²) lies between low and high."""
    if math.isinf(high):
        return log_ndtr((mu - low) / sigma)
    return (
        log_ndtr((high - mu) / sigma)
        if math.isinf(low)
        else log_ndtr_diff((low - mu) / sigma, (high - mu) / sigma)
    )


@made_once
def truncated(*, lower: float = 0.0, upper: float = math.inf, offset: str | None = None) -> Model:
    """Truncated normal regression: N(xβ, σ²) given that it lies between the limits; nothing beyond
    them is recorded. Parameters: ``beta`` (q,), ``sigma``.

    ``predict`` is the mean of the recorded response. If the data pile up at a limit like an
    exponential distribution, the maximum is at infinity.

    Args:
        lower, upper: the limits; an infinite one does not truncate.
        offset: name of a data leaf (n,) added to the mean.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> data = {"x": np.ones((1, 1)), "y": np.zeros(1)}
    >>> params = {"beta": np.zeros(1), "sigma": 1.0}
    >>> float(models.truncated()(params, data)[0])  # twice the normal density at zero
    -0.2258
    """
    low, high = _check_limits(lower, upper)
    eta: dict[str, Predictor] = {"mu": linear("x", "beta", offset), "sigma": "sigma"}
    return Model(
        "truncated",
        regression(functools.partial(_truncated_density, low, high), eta),
        functools.partial(_start_values, offset=offset),
        {"sigma": positive},
        lambda params, data: constant(eta_of(params, data, offset), params["sigma"]),
        _truncated_law(low, high),
        coding=(coding.within(low, high), *coding.optional(offset)),
    )


def _start_values(data: Tree, offset: str | None) -> Tree:
    y = column(data, "y")
    target = y if offset is None else y - column(data, offset)
    beta, mean = regress(data, "x", target)
    centred = target - namespace(y).mean(target, axis=-1, keepdims=True)
    return {
        "beta": beta,
        "sigma": namespace(y).maximum(spread(target - mean, target), 0.1 * spread(centred, target)),
    }


# ---------------------------------------------------------------- what is recorded


def _standard(limit: float, mu: Array, sigma: Array, log_inside: Array) -> tuple[Array, Array]:
    """φ(z) and zφ(z) over the probability inside, z the limit in standard units; both 0 where it is
    infinite.
    """
    if math.isinf(limit):
        return jnp.zeros_like(mu), jnp.zeros_like(mu)
    z = (limit - mu) / sigma
    ratio = jnp.exp(-0.5 * z * z - HALF_LOG_2PI - log_inside)
    return ratio, z * ratio


def _inner_moments(low: float, high: float, mu: Array, sigma: Array) -> tuple[Array, Array]:
    """Mean and variance of N(μ, σ²) given that it is inside."""
    if math.isinf(low) or math.isinf(high):
        # From the limit, at a distance that nothing cancels in.
        end, side = (high, -1.0) if math.isinf(low) else (low, 1.0)
        hazard, rest = lower_hazard(jnp.asarray(side * (mu - end) / sigma))
        return end + side * sigma * rest, sigma**2 * (1 - hazard * rest)
    log_inside = _log_inside(low, high, mu, sigma)
    at_low, product_low = _standard(low, mu, sigma, log_inside)
    at_high, product_high = _standard(high, mu, sigma, log_inside)
    shift = at_low - at_high
    return mu + sigma * shift, sigma**2 * (1 + (product_low - product_high) - shift**2)


def _truncated_law(low: float, high: float) -> PredictiveLaw:
    """The normal distribution between limits, accurate however far these are from its mean."""
    family = combinators.truncated(location_scale.normal, low, high)
    law = of_family(family, lambda mu, sigma: {"loc": mu, "scale": sigma})
    return replace(
        law,
        mean=lambda mu, sigma: _inner_moments(low, high, mu, sigma)[0],
        variance=lambda mu, sigma: _inner_moments(low, high, mu, sigma)[1],
    )


def _censored_law(low: float, high: float) -> PredictiveLaw:
    def power(k: int, mu: Array, sigma: Array) -> Array:
        """E yᵏ, k = 1 or 2: what lies inside, and the mass on each limit."""
        mean, variance = _inner_moments(low, high, mu, sigma)
        moment = mean if k == 1 else variance + mean**2
        below = 0.0 if math.isinf(low) else low**k * ndtr((low - mu) / sigma)
        above = 0.0 if math.isinf(high) else high**k * ndtr((mu - high) / sigma)
        return jnp.exp(_log_inside(low, high, mu, sigma)) * moment + below + above

    def cdf(y: Array, mu: Array, sigma: Array) -> Array:
        return jnp.where(y < low, 0.0, jnp.where(y >= high, 1.0, ndtr((y - mu) / sigma)))

    def tails(y: Array, mu: Array, sigma: Array) -> tuple[Array, Array]:
        above = jnp.where(y < low, 1.0, jnp.where(y >= high, 0.0, ndtr((mu - y) / sigma)))
        return cdf(y, mu, sigma), above

    def quantile(level: Array, mu: Array, sigma: Array) -> Array:
        return jnp.clip(mu + sigma * ndtri(level), low, high)

    return PredictiveLaw(
        mean=lambda mu, sigma: power(1, mu, sigma),
        variance=lambda mu, sigma: power(2, mu, sigma) - power(1, mu, sigma) ** 2,
        cdf=cdf,
        tails=tails,
        quantile=quantile,
        sample=lambda key, mu, sigma: quantile(uniform(key, mu), mu, sigma),
    )
