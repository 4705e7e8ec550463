"""log I₀, log I₁ and their ratio, for the von Mises distribution, with derivatives at every
concentration.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmle.special.gamma import real
from jaxmle.special.stirling import HALF_LOG_2PI, horner

_BESSEL_SERIES_EDGE = 9.0
_NUMBER_OF_TERMS = 34  # (x²/4)ᵏ/k!² at x = 9 falls below 1e-17 of the sum
# Σ xᵏ/(k! (k+ν)!) in x²/4: NIST DLMF 10.25.2
_SERIES_0 = tuple(1.0 / math.factorial(k) ** 2 for k in range(_NUMBER_OF_TERMS))
_SERIES_1 = tuple(
    1.0 / (math.factorial(k) * math.factorial(k + 1)) for k in range(_NUMBER_OF_TERMS)
)
# x log(√(2πx) e⁻ˣ I_ν(x)) in y = 18/x − 1, 9 ≤ x ≤ ∞: Chebyshev interpolation with 40 digits.
_LARGE_0 = (
    0.12869291651117565,
    0.003936128451518479,
    0.00026901192627730403,
    2.973135541241089e-05,
    4.751223493154882e-06,
    1.0511176402377355e-06,
    3.2135480445008844e-07,
    1.3891323581168774e-07,
    8.000237255898811e-08,
    4.425196856384712e-08,
    2.0975372899535256e-09,
    -3.762236366205005e-08,
    -4.042909695747862e-08,
    1.1192120748402662e-09,
    3.2953319513728106e-08,
    1.2536202771912416e-08,
    -1.839686617314192e-08,
    -1.1416242493519188e-08,
    7.669876396776997e-09,
    5.941340660423602e-09,
    -2.119052495697518e-09,
    -1.8272471072955252e-09,
    2.830703871806393e-10,
    2.5623333007426407e-10,
)
_LARGE_1 = (
    -0.385963267413549,
    -0.011554810096141966,
    -0.0006419692893424178,
    -5.686466249294778e-05,
    -7.62058404809868e-06,
    -1.4875276428769335e-06,
    -4.162166212999235e-07,
    -1.6874637587271033e-07,
    -9.358385954025907e-08,
    -5.182796245510281e-08,
    -5.029639317024046e-09,
    3.956249415999515e-08,
    4.50444290750919e-08,
    1.251215026919017e-09,
    -3.504622859787978e-08,
    -1.5159644158531335e-08,
    1.9001218650821496e-08,
    1.3091889456592007e-08,
    -7.771969555662185e-09,
    -6.6895288261669845e-09,
    2.121830110064644e-09,
    2.0397570715506137e-09,
    -2.8138028833616385e-10,
    -2.847269247600329e-10,
)


def log_i0(x: ArrayLike) -> jax.Array:
    """log I₀(x), the log normaliser of the von Mises density minus log 2π, elementwise, for every
    x.

    A power series up to |x| = 9, then x − ½ log 2πx + a polynomial in 1/x; both are differentiated
    directly.

    Returns:
        Value to 1e-15, first and second derivative to 2e-13, relative to max(|f|, |x f′|), at every
        x.

    Example:
        >>> print(round(float(log_i0(2.0)), 4))
        0.824
    """
    x = real(x)
    near, quarter, w, large = _split(x)
    return jnp.where(
        near,
        jnp.log1p(quarter * horner(quarter, _SERIES_0[1:])),
        _leading(large) + _tail(w, _LARGE_0),
    )


def log_i1(x: ArrayLike) -> jax.Array:
    """log I₁(x), elementwise, for x > 0; −inf at 0, NaN below.

    Returns:
        As ``log_i0``.

    Example:
        >>> print(round(float(log_i1(2.0)), 4))
        0.4641
    """
    x = real(x)
    near, quarter, w, large = _split(x)
    small = jnp.log(0.5 * jnp.where(near, x, 1.0)) + jnp.log(horner(quarter, _SERIES_1))
    return jnp.where(near, small, _leading(large) + _tail(w, _LARGE_1)) + jnp.where(
        x < 0, jnp.nan, 0.0
    )


def bessel_ratio(kappa: ArrayLike) -> jax.Array:
    """A(κ) = I₁(κ)/I₀(κ) = (log I₀)′(κ), the mean resultant length of a von Mises distribution,
    elementwise; odd in κ.

    For large κ it is 1 − 1/2κ − …, from the same polynomial in 1/κ, so A′ ≈ 1/2κ² keeps its digits,
    whereas 1 − A/κ − A² loses all of them.

    Returns:
        Value to 1e-15, first derivative to 1e-13, second to 1e-10, relative to max(|f|, |κ f′|).

    Example:
        >>> print(round(float(bessel_ratio(2.0)), 4))
        0.6978
    """
    kappa = real(kappa)
    near, quarter, w, _ = _split(kappa)
    small = (
        0.5 * jnp.where(near, kappa, 0.0) * horner(quarter, _SERIES_1) / horner(quarter, _SERIES_0)
    )
    y = 2 * _BESSEL_SERIES_EDGE * w - 1
    slope = horner(y, _LARGE_0) + w * 2 * _BESSEL_SERIES_EDGE * horner(
        y, [k * c for k, c in enumerate(_LARGE_0)][1:]
    )
    return jnp.where(near, small, jnp.sign(kappa) * (1 - 0.5 * w - w * w * slope))


def _split(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Whether the power series holds, x²/4 where it does, and 1/|x| and |x| where it does not."""
    near = jnp.abs(x) <= _BESSEL_SERIES_EDGE
    large = jnp.abs(jnp.where(near, _BESSEL_SERIES_EDGE, x))
    return near, 0.25 * jnp.where(near, x, 0.0) ** 2, 1 / large, large


def _leading(x: jax.Array) -> jax.Array:
    """x − ½ log 2πx for x ≥ 9, ∞ at ∞."""
    return jnp.where(jnp.isinf(x), x, x - 0.5 * jnp.log(x) - HALF_LOG_2PI)


def _tail(w: jax.Array, coefficients: tuple[float, ...]) -> jax.Array:
    return w * horner(2 * _BESSEL_SERIES_EDGE * w - 1, coefficients)
