"""The logistic functions, with derivatives that share their one exponential."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxmle._types import Array
from jaxmle.special.stirling import excess

# The coefficients of atanh(u)/u in u²; u ≤ 1/3 leaves 1e-18, and 1e-9 after the first 8.
_LOG1P_SERIES = tuple(1.0 / (2 * k + 1) for k in range(17))


@jax.custom_jvp
def softplus(x: float | Array) -> jax.Array:
    """log(1 + eˣ), to 2 ulp in value and derivatives at every x.

    log(1 + t) = 2 atanh(t/(2 + t)), by its series: arithmetic alone, where ``log1p`` is four times
    as slow.
    """
    t = jnp.exp(-jnp.abs(x))
    u = t / (2 + t)
    square = u * u
    series = jnp.zeros_like(u)
    for coefficient in reversed(_LOG1P_SERIES if t.dtype == jnp.float64 else _LOG1P_SERIES[:8]):
        series = series * square + coefficient
    return jnp.maximum(x, 0) + 2 * u * series


@jax.custom_jvp
def sigmoid(x: float | Array) -> jax.Array:
    """1/(1 + e⁻ˣ), without loss in either tail."""
    t, inverse = _parts(x)
    return jnp.where(x >= 0, jnp.ones_like(t), t) * inverse


@jax.custom_jvp
def _bell(x: jax.Array) -> jax.Array:
    """The derivative of ``sigmoid``, without loss in either tail."""
    t, inverse = _parts(x)
    return t * inverse * inverse


def _parts(x: float | Array) -> tuple[jax.Array, jax.Array]:
    """e^−|x| and 1/(1 + e^−|x|): one exponential and one division for all that is asked at x."""
    t = jnp.exp(-jnp.abs(x))
    return t, 1 / (1 + t)


@softplus.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return softplus(*primals), sigmoid(*primals) * tangents[0]


@sigmoid.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return sigmoid(*primals), _bell(*primals) * tangents[0]


@_bell.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    value = _bell(*primals)
    return value, value * (sigmoid(-primals[0]) - sigmoid(*primals)) * tangents[0]


def log_sigmoid(x: float | Array) -> jax.Array:
    """log of 1/(1 + e⁻ˣ).

    >>> from jaxmle.special import log_sigmoid
    >>> float(log_sigmoid(0.0))  # −log 2
    -0.6931
    """
    return -softplus(-x)


@jax.custom_jvp
def bernoulli_divergence(logit: jax.Array, y: jax.Array) -> jax.Array:
    """m log(m/y) + (1 − m) log((1 − m)/(1 − y)) of a mean m = sigmoid(``logit``) and y in (0, 1).

    It is of second order in m − y: a sum of two terms ≥ 0, each the excess of δ over log(1 + δ).
    """
    mean = sigmoid(logit)
    rest = sigmoid(-logit)
    distance = y - mean
    return mean * excess(distance / mean, y / mean) + rest * excess(
        -distance / rest, (1 - y) / rest
    )


@bernoulli_divergence.defjvp
def _(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (logit, y) = primals
    (dlogit, dy) = tangents
    in_logit = _bell(logit) * (logit - jnp.log(y) + jnp.log1p(-y))
    in_y = (y - sigmoid(logit)) / (y * (1 - y))
    return bernoulli_divergence(logit, y), in_logit * dlogit + in_y * dy
