"""Logarithms of complements, log(1 − eˣ) and log(1 − exp(−eˣ)), and the exponential held below
overflow.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmle.special.gamma import real
from jaxmle.special.stirling import horner

# of the log of the largest number: e^600 in float64, which leaves room for two derivatives
LOG_SHARE_OF_LARGEST_EXPONENT = 0.85
# (1 − t − t/(eᵗ − 1))/t in t: −½ − t/12 + t³/720 − …, Bernoulli's numbers over factorials (NIST
# DLMF 24.2.1)
_FADING = (
    -0.5, -1 / 12, 0.0, 1 / 720, 0.0, -1 / 30240, 0.0, 1 / 1209600, 0.0, -1 / 47900160, 0.0,
    691 / 1307674368000, 0.0, -1 / 74724249600,
)  # fmt: skip

_EXCESS_EDGE = 0.5  # up to which fourteen terms of (eˣ − 1 − x)/x² leave 1e-18
_EXCESS_SERIES = tuple(1.0 / math.factorial(k + 2) for k in range(14))

_LOG1P_SWITCH = -1.2  # not −log 2: XLA's log1p has errors of 3e-14 for arguments in (−0.5, −0.41)


def log1mexp(x: ArrayLike) -> jax.Array:
    """log(1 − eˣ), elementwise, for x ≤ 0: the log survival function from the log distribution
    function.

    Value and derivatives to a few ulp at every x < 0; −inf at 0, NaN above. (Mächler 2012,
    "Accurately computing log(1 − exp(−|a|))".)

    Example:
        >>> print(round(float(log1mexp(-0.6931472)), 5))
        -0.69315
    """
    return _log1mexp(real(x))


@jax.custom_jvp
def _log1mexp(x: jax.Array) -> jax.Array:
    far = x < _LOG1P_SWITCH
    return jnp.where(
        far,
        jnp.log1p(-jnp.exp(jnp.where(far, x, -2.0))),
        jnp.log(-jnp.expm1(jnp.where(far, -0.5, x))),
    )


@jax.custom_jvp
def _slope(x: jax.Array) -> jax.Array:
    """−eˣ/(1 − eˣ); its own slope is s(1 − s), a sum of terms of one sign."""
    return jnp.exp(x) / jnp.expm1(x)


@_log1mexp.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _log1mexp(*primals), _slope(*primals) * tangents[0]


@_slope.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    slope = _slope(*primals)
    return slope, slope * (1 - slope) * tangents[0]


def held_exp(x: ArrayLike) -> jax.Array:
    """eˣ, elementwise, capped at e⁶⁰⁰ (e⁷⁵ in single precision), where it and its derivatives would
    overflow; its slope is 0 there.

    A hazard of that size gives a log-likelihood of −1e260: an impossible event stays finite, and so
    do its derivatives.

    Example:
        >>> print(round(float(held_exp(0.5)), 4))
        1.6487
    """
    x = real(x)
    return jnp.exp(jnp.minimum(x, LOG_SHARE_OF_LARGEST_EXPONENT * jnp.log(jnp.finfo(x.dtype).max)))


@jax.custom_jvp
def exp_excess(x: jax.Array) -> jax.Array:
    """eˣ − 1 − x, elementwise, for floating x: x²/2 + … about 0, where its parts cancel."""
    near = jnp.abs(x) <= _EXCESS_EDGE
    small = jnp.where(near, x, 0.0)
    series = small * small * horner(small, _EXCESS_SERIES)
    return jnp.where(near, series, jnp.expm1(x) - x)


@exp_excess.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return exp_excess(*primals), _expm1(*primals) * tangents[0]


@jax.custom_jvp
def _expm1(x: jax.Array) -> jax.Array:
    return jnp.expm1(x)


@_expm1.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """eˣ, where that of JAX adds one to eˣ − 1 again, and loses what is small."""
    return jnp.expm1(*primals), jnp.exp(*primals) * tangents[0]


def log_cloglog(x: ArrayLike) -> jax.Array:
    """log(1 − exp(−eˣ)), elementwise, for every x: the log of the inverse complementary log-log
    link.

    x − eˣ/2 + … far to the left, where eˣ underflows and log(1 − e⁻ᵗ) of t = eˣ has a slope that
    overflows; −exp(−eˣ) far to the right.

    Returns:
        Value, first and second derivative to 1e-14, relative to max(|f|, |x f′|).

    Example:
        >>> print(round(float(log_cloglog(0.0)), 4))
        -0.4587
    """
    return _log_cloglog(real(x))


@jax.custom_jvp
def _log_cloglog(x: jax.Array) -> jax.Array:
    far = x < -18.0  # t²/24 of t = e⁻¹⁸ is 1e-17
    t = held_exp(x)
    return jnp.where(far, x - 0.5 * t, _log1mexp(-jnp.where(far, 1.0, t)))


@jax.custom_jvp
def _cloglog_slope(x: jax.Array) -> jax.Array:
    """t/(eᵗ − 1) at t = eˣ; its own slope is that times 1 − t − t/(eᵗ − 1)."""
    t = held_exp(x)
    some = t > jnp.finfo(t.dtype).tiny
    safe = jnp.where(some, t, 1.0)
    return jnp.where(some, safe / jnp.expm1(safe), 1.0)


@_log_cloglog.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _log_cloglog(*primals), _cloglog_slope(*primals) * tangents[0]


@_cloglog_slope.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    slope = _cloglog_slope(*primals)
    t = held_exp(*primals)
    near = t < 1.0
    small = jnp.where(near, t, 0.0)
    fading = jnp.where(near, small * horner(small, _FADING), 1.0 - t - slope)
    return slope, slope * fading * tangents[0]
