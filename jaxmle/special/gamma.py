"""log Γ and its derivatives by Stirling's series after one shift: arithmetic alone, so that they
vectorise, to every order that a Hessian asks.

For x below 10 the argument is moved up by ten: Γ(x) = Γ(x + 10)/(x(x + 1)…(x + 9)). The ten factors
are taken in pairs, (x + i)(x + 9 − i) = x(x + 9) + i(9 − i), so that a sum over ten reciprocals, or
over their powers, takes five divisions, which digamma and trigamma share. The series and its
derivatives, with Bernoulli's numbers: NIST DLMF 5.11.1, 5.11.2, 24.2.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

EULER_GAMMA = 0.5772156649015329  # Euler's constant, NIST DLMF 5.2.3
ARGUMENT_SHIFT = 10
BERNOULLI_NUMBERS = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


def _series(x: jax.Array, coefficients: list[float]) -> jax.Array:
    """Σ cₖ x⁻²ᵏ, k = 0, 1, …"""
    square = 1.0 / (x * x)
    total = jnp.zeros_like(x)
    for c in reversed(coefficients):
        total = total * square + c
    return total


def _pairs(x: jax.Array) -> list[jax.Array]:
    """(x + i)(x + 9 − i), i = 0, …, 4."""
    return [
        x * (x + (ARGUMENT_SHIFT - 1)) + i * (ARGUMENT_SHIFT - 1 - i)
        for i in range(ARGUMENT_SHIFT // 2)
    ]


def _reciprocals(x: jax.Array, power: int) -> jax.Array:
    """Σ (x + i)^−power, i = 0, …, 9, for power 1 to 4: of a pair with sum s and product q it is
    s/q, (s² − 2q)/q², (s³ − 3qs)/q³ or ((s² − 2q)² − 2q²)/q⁴.
    """
    s = 2 * x + (ARGUMENT_SHIFT - 1)
    total = jnp.zeros_like(x)
    for q in _pairs(x):
        over = 1.0 / q
        squares = s * s - 2 * q
        of_pair = (
            s * over,
            squares * over**2,
            (squares - q) * s * over**3,
            (squares * squares - 2 * q * q) * over**4,
        )
        total = total + of_pair[power - 1]
    return total


def moved_up(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x moved to 10 or more, and whether it was moved."""
    small = x < ARGUMENT_SHIFT
    return jnp.where(small, x + ARGUMENT_SHIFT, x), small


def real(x: ArrayLike) -> jax.Array:
    """x as a floating array: counts often come as integers, whose products would overflow."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def gammaln(x: ArrayLike) -> jax.Array:
    """log Γ(x), elementwise, for x > 0 of any shape; NaN below 0, +inf at 0.

    Absolute error 1e-14 below 10, including its zeros at 1 and 2; otherwise one or two ulp. Its
    derivatives are ``digamma`` and ``trigamma``.

    >>> from jaxmle.special import gammaln
    >>> float(gammaln(5.0))  # log 4!
    3.1781
    """
    return _gammaln(real(x))


def digamma(x: ArrayLike) -> jax.Array:
    """ψ(x) = (log Γ)'(x), elementwise, for x > 0 of any shape, to 1e-14 absolutely; NaN
    elsewhere.

    >>> from jaxmle.special import digamma
    >>> float(digamma(1.0))  # minus Euler’s constant
    -0.5772
    """
    return _digamma(real(x))


def trigamma(x: ArrayLike) -> jax.Array:
    """ψ'(x), elementwise, for x > 0 of any shape, to a few ulp; NaN elsewhere.

    >>> from jaxmle.special import trigamma
    >>> float(trigamma(1.0))  # π²/6
    1.6449
    """
    return _trigamma(real(x))


@jax.custom_jvp
def _gammaln(x: jax.Array) -> jax.Array:
    up, small = moved_up(x)
    product = math.prod(_pairs(x))
    many = jnp.isinf(x)  # where (x − ½) log x − x is a difference of infinities
    up = jnp.where(many, float(ARGUMENT_SHIFT), up)
    stirling = (
        (up - 0.5) * jnp.log(up)
        - up
        + 0.5 * math.log(2 * math.pi)
        + _series(up, [b / (2 * k * (2 * k - 1)) for k, b in enumerate(BERNOULLI_NUMBERS, 1)]) / up
    )
    value = stirling - jnp.log(jnp.where(small, product, 1.0))
    return jnp.where((x > 0) & ~many, value, jnp.where((x == 0) | (x == jnp.inf), jnp.inf, jnp.nan))


@jax.custom_jvp
def _digamma(x: jax.Array) -> jax.Array:
    up, small = moved_up(x)
    below = _reciprocals(jnp.where(small, x, 1.0), 1)
    value = (
        jnp.log(up)
        - 0.5 / up
        - _series(up, [b / (2 * k) for k, b in enumerate(BERNOULLI_NUMBERS, 1)]) / (up * up)
    )
    return jnp.where(x > 0, value - jnp.where(small, below, 0.0), jnp.nan)


@jax.custom_jvp
def _trigamma(x: jax.Array) -> jax.Array:
    up, small = moved_up(x)
    below = _reciprocals(jnp.where(small, x, 1.0), 2)
    value = 1.0 / up + 0.5 / (up * up) + _series(up, list(BERNOULLI_NUMBERS)) / up**3
    return jnp.where(x > 0, value + jnp.where(small, below, 0.0), jnp.nan)


@jax.custom_jvp
def _tetragamma(x: jax.Array) -> jax.Array:
    """ψ''(x)."""
    up, small = moved_up(x)
    below = -2 * _reciprocals(jnp.where(small, x, 1.0), 3)
    value = (
        -1.0 / (up * up)
        - 1.0 / up**3
        - _series(up, [(2 * k + 1) * b for k, b in enumerate(BERNOULLI_NUMBERS, 1)]) / up**4
    )
    return jnp.where(x > 0, value + jnp.where(small, below, 0.0), jnp.nan)


def _pentagamma(x: jax.Array) -> jax.Array:
    """ψ'''(x)."""
    up, small = moved_up(x)
    below = 6 * _reciprocals(jnp.where(small, x, 1.0), 4)
    tail = _series(up, [(2 * k + 1) * (2 * k + 2) * b for k, b in enumerate(BERNOULLI_NUMBERS, 1)])
    value = 2.0 / up**3 + 3.0 / up**4 + tail / up**5
    return jnp.where(x > 0, value + jnp.where(small, below, 0.0), jnp.nan)


@_gammaln.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _gammaln(*primals), _digamma(*primals) * tangents[0]


@_digamma.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _digamma(*primals), _trigamma(*primals) * tangents[0]


@_trigamma.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _trigamma(*primals), _tetragamma(*primals) * tangents[0]


@_tetragamma.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _tetragamma(*primals), _pentagamma(*primals) * tangents[0]
