"""Time series, ordered by row: regression with AR(1) errors, and GARCH(1, 1)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.models.common.model import Model
from jaxmle.models.common.options import made_once
from jaxmle.models.common.predictors import eta_of
from jaxmle.models.common.response_laws import PredictiveLaw
from jaxmle.models.common.start_values import clip, column, regress, spread
from jaxmle.parameters.constraints import interval, positive
from jaxmle.special.normal import ndtri
from jaxmle.special.stirling import HALF_LOG_2PI

# ---------------------------------------------------------------- AR(1)


def _ar1_step(params: Tree, data: Tree) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The mean and SD of each value given the one before it, and the regression xβ, each (n,)."""
    centre = eta_of(params, data)
    y = jnp.asarray(data["y"])
    phi = jnp.asarray(params["phi"])
    sigma = jnp.asarray(params["sigma"])
    mean = centre.at[1:].add(phi * (y - centre)[:-1])
    return (
        mean,
        jnp.broadcast_to(sigma, y.shape).at[0].divide(jnp.sqrt((1 - phi) * (1 + phi))),
        centre,
    )


def ar1_loglik(params: Tree, data: Tree) -> Array:
    """The exact Gaussian log-likelihood of a stationary series, one scalar."""
    mean, sd, _ = _ar1_step(params, data)
    return jnp.sum(-0.5 * ((data["y"] - mean) / sd) ** 2 - jnp.log(sd) - HALF_LOG_2PI)


def _ar1_natural(params: Tree, data: Tree) -> tuple[Array, ...]:
    mean, sd, centre = _ar1_step(params, data)
    return mean, sd, centre, jnp.asarray(params["phi"])


def _ar1_sample(
    key: jax.Array, mean: Array, sd: jax.Array, centre: jax.Array, phi: jax.Array
) -> jax.Array:
    shocks = sd * jax.random.normal(key, sd.shape, dtype=sd.dtype)

    def step(e: jax.Array, shock: jax.Array) -> tuple[jax.Array, jax.Array]:
        e = phi * e + shock
        return e, e

    return centre + jax.lax.scan(step, jnp.zeros((), sd.dtype), shocks)[1]


def _ar1_begin(data: Tree) -> Tree:
    y = column(data, "y")
    xp = namespace(y)
    beta, mean = regress(data, "x", y)
    e = y - mean
    square = xp.sum(e * e, axis=-1)
    phi = clip(
        xp.sum(e[..., 1:] * e[..., :-1], axis=-1) / xp.where(square > 0, square, 1.0), -0.95, 0.95
    )
    return {"beta": beta, "phi": phi, "sigma": spread(e, y) * xp.sqrt(1 - phi**2)}


@made_once
def ar1() -> Model:
    """Regression with stationary Gaussian AR(1) errors: y = xβ + e, e_t = phi e_{t−1} + N(0,
    sigma²), with the exact likelihood of the first value.

    Parameters: ``beta`` (q,), ``phi`` in (−1, 1), ``sigma``. The likelihood is one scalar, because
    the rows are one series. ``predict`` is the mean of each value given the one before it;
    ``sample`` draws a whole series. Hamilton (1994), Time Series Analysis, section 5.2.

    Returns:
        A ``Model`` of ``{"x": (n, q), "y": (n,)}``, rows in time order.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((8, 1)), "y": np.array([1.0, 2.0, 2.5, 2.0, 1.0, 0.5, 1.0, 1.5])}
    >>> round(float(jm.fit(models.ar1(), data=data).params["phi"]), 3)
    0.441
    """
    law = PredictiveLaw(
        mean=lambda mean, sd, *_: mean,
        variance=lambda mean, sd, *_: sd**2,
        cdf=lambda y, mean, sd, *_: ndtr((y - mean) / sd),
        tails=lambda y, mean, sd, *_: (ndtr((y - mean) / sd), ndtr((mean - y) / sd)),
        quantile=lambda level, mean, sd, *_: mean + sd * ndtri(level),
        sample=_ar1_sample,
    )
    return Model(
        "ar1",
        functools.partial(ar1_loglik),
        _ar1_begin,
        {"phi": interval(-1.0, 1.0), "sigma": positive},
        _ar1_natural,
        law,
    )


# ---------------------------------------------------------------- GARCH(1, 1)

# RiskMetrics' daily decay over the first 75 values: the initial variance that the arch package uses
# too
DECAY_OF_BACKCAST = 0.94
ROWS_OF_BACKCAST = 75


def backcast(y: Array) -> Array:
    """The variance before the first value: decaying weights over the first 75 squared
    deviations from the mean of the series.
    """
    first = (y - jnp.mean(y))[:ROWS_OF_BACKCAST] ** 2
    weight = DECAY_OF_BACKCAST ** jnp.arange(first.shape[0], dtype=y.dtype)
    return jnp.sum(weight * first) / jnp.sum(weight)


def _garch_variances(params: Tree, data: Tree) -> tuple[Array, Array]:
    """The conditional variance of each value (n,), and the one before the first."""
    y = jnp.asarray(data["y"])
    omega, alpha, beta = (jnp.asarray(params[name]) for name in ("omega", "alpha", "beta"))
    before = backcast(y)
    squares = jnp.concatenate([before[None], (y - params["mu"])[:-1] ** 2])

    def step(variance: Array, square: Array) -> tuple[Array, Array]:
        new = omega + alpha * square + beta * variance
        return new, new

    return jax.lax.scan(step, before + 0.0 * omega, squares)[1], before


def garch_loglik(params: Tree, data: Tree) -> Array:
    """The Gaussian log-likelihood of a GARCH(1, 1) series, one scalar."""
    variance, _ = _garch_variances(params, data)
    return jnp.sum(
        -0.5 * (data["y"] - params["mu"]) ** 2 / variance - 0.5 * jnp.log(variance) - HALF_LOG_2PI
    )


def _garch_natural(params: Tree, data: Tree) -> tuple[Array, ...]:
    variance, before = _garch_variances(params, data)
    mu, *rest = (jnp.asarray(params[name]) for name in ("mu", "omega", "alpha", "beta"))
    return jnp.broadcast_to(mu, variance.shape), jnp.sqrt(variance), before, *rest


def _garch_sample(
    key: Array, mu: Array, sd: Array, before: Array, omega: Array, alpha: Array, beta: Array
) -> Array:
    def step(state: tuple[Array, Array], shock: Array) -> tuple[tuple[Array, Array], Array]:
        variance = omega + alpha * state[0] + beta * state[1]
        e = jnp.sqrt(variance) * shock
        return (e * e, variance), e

    return (
        mu
        + jax.lax.scan(step, (before, before), jax.random.normal(key, sd.shape, dtype=sd.dtype))[1]
    )


def _garch_begin(data: Tree) -> Tree:
    """A tenth of the variance is constant, a tenth comes from the last shock, the rest persists."""
    y = column(data, "y")
    mu = namespace(y).mean(y, axis=-1)
    variance = spread(y - mu[..., None], y) ** 2
    return {"mu": mu, "omega": 0.1 * variance, "alpha": 0.1 + 0.0 * mu, "beta": 0.8 + 0.0 * mu}


@made_once
def garch() -> Model:
    """GARCH(1, 1): y_t = mu + e_t, Var(e_t) = h_t = omega + alpha e²_{t−1} + beta h_{t−1}.
    Parameters: ``mu``, ``omega``, ``alpha``, ``beta``.

    The likelihood is one scalar, because the rows are one series. Stationarity (alpha + beta < 1)
    is not imposed. h and e² before the first value are the backcast of the series. ``variance`` is
    h_t; ``sample`` draws a whole series. Bollerslev (1986), Journal of Econometrics 31, p. 307.

    Returns:
        A ``Model`` of ``{"y": (n,)}``, rows in time order.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> params = {"mu": 0.0, "omega": 0.1, "alpha": 0.1, "beta": 0.8}
    >>> variance = models.garch().variance(params, {"y": np.array([1.0, -1.0, 1.0])})
    >>> variance.round(4).tolist()  # the last: 0.1 + 0.1·1² + 0.8·0.9196
    [0.8995, 0.9196, 0.9357]
    """
    law = PredictiveLaw(
        mean=lambda mu, sd, *_: mu,
        variance=lambda mu, sd, *_: sd**2,
        cdf=lambda y, mu, sd, *_: ndtr((y - mu) / sd),
        tails=lambda y, mu, sd, *_: (ndtr((y - mu) / sd), ndtr((mu - y) / sd)),
        quantile=lambda level, mu, sd, *_: mu + sd * ndtri(level),
        sample=_garch_sample,
    )
    return Model(
        "garch",
        functools.partial(garch_loglik),
        _garch_begin,
        {"omega": positive, "alpha": positive, "beta": positive},
        _garch_natural,
        law,
    )
