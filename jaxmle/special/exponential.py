"""The logarithm of a complement, log(1 − eˣ)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxmle.special.gamma import real

Array = Any

_SWITCH = -1.2  # not −log 2: XLA's log1p has errors of 3e-14 for arguments in (−0.5, −0.41)


def log1mexp(x: Array) -> Array:
    """log(1 − eˣ), elementwise, for x ≤ 0: the log survival function from the log distribution function.

    Value and derivatives to a few ulp at every x < 0; −inf at 0, NaN above. (Mächler 2012, "Accurately computing log(1 − exp(−|a|))".)

    Example:
        >>> print(round(float(log1mexp(-0.6931472)), 5))
        -0.69315
    """
    return _log1mexp(real(x))


@jax.custom_jvp
def _log1mexp(x: Array) -> Array:
    far = x < _SWITCH
    return jnp.where(
        far,
        jnp.log1p(-jnp.exp(jnp.where(far, x, -2.0))),
        jnp.log(-jnp.expm1(jnp.where(far, -0.5, x))),
    )


@jax.custom_jvp
def _slope(x: Array) -> Array:
    """−eˣ/(1 − eˣ); its own slope is s(1 − s), a sum of terms of one sign."""
    return jnp.exp(x) / jnp.expm1(x)


@_log1mexp.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _log1mexp(*primals), _slope(*primals) * tangents[0]


@_slope.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    slope = _slope(*primals)
    return slope, slope * (1 - slope) * tangents[0]
