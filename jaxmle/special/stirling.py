"""What the large-argument forms share: Stirling's error as a function of 1/z, and the excess of δ
over log(1 + δ).

A density with a large count, size or number of degrees of freedom is a small difference of large
logarithms. Written with these two functions nothing large is left (Loader 2000, "Fast and accurate
computation of binomial probabilities").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmle.special.gamma import BERNOULLI_NUMBERS, digamma, gammaln, trigamma

LOG_2PI = math.log(2 * math.pi)
HALF_LOG_2PI = 0.5 * LOG_2PI
_STIRLING_SERIES_EDGE = 0.1  # from z = 10 the eight terms of the series leave 2e-18
# The coefficients of (atanh v − v)/v³ in v²; |v| ≤ 1/3 leaves 3e-17.
ATANH_SERIES = tuple(1.0 / (2 * j + 3) for j in range(16))


def promote(*arguments: ArrayLike) -> list[jax.Array]:
    """The arguments as arrays of one floating type: counts come as integers."""
    arrays = [jnp.asarray(v) for v in arguments]
    dtype = jnp.result_type(*arrays)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    return [v.astype(dtype) for v in arrays]


def horner(x: jax.Array, coefficients: Sequence[float]) -> jax.Array:
    """Σ cₖ xᵏ, k = 0, 1, …, as far as the coefficients are numbers of x's precision: past that,
    reverse mode would multiply them, 0, by xᵏ, inf.
    """
    last = max(
        k for k, c in enumerate(coefficients) if k == 0 or abs(c) > float(jnp.finfo(x.dtype).tiny)
    )
    coefficients = coefficients[: last + 1]
    total = jnp.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def stirling_series(w: jax.Array) -> jax.Array:
    """``stirling_error`` for w ≤ 0.1, z ≥ 10: Stirling's series alone."""
    return w * horner(
        w * w, [b / (2 * k * (2 * k - 1)) for k, b in enumerate(BERNOULLI_NUMBERS, 1)]
    )


@jax.custom_jvp
def stirling_error(w: jax.Array) -> jax.Array:
    """log Γ(z) − (z − ½) log z + z − ½ log 2π at z = 1/w, smooth in w ≥ 0, where it begins as
    w/12; absolute error 2e-14.
    """
    near, z = _reciprocal(w)
    direct = gammaln(z) - ((z - 0.5) * jnp.log(z) - z + HALF_LOG_2PI)
    return jnp.where(near, stirling_series(w), direct)


@jax.custom_jvp
def _stirling_slope(w: jax.Array) -> jax.Array:
    near, z = _reciprocal(w)
    direct = -z * z * (digamma(z) - jnp.log(z) + 0.5 / z)
    return jnp.where(
        near, horner(w * w, [b / (2 * k) for k, b in enumerate(BERNOULLI_NUMBERS, 1)]), direct
    )


def _stirling_curvature(w: jax.Array) -> jax.Array:
    near, z = _reciprocal(w)
    direct = (
        z * z * (z * z * (trigamma(z) - 1 / z) - 0.5 + 2 * z * (digamma(z) - jnp.log(z) + 0.5 / z))
    )
    return jnp.where(
        near,
        w * horner(w * w, [b * (k - 1) / k for k, b in enumerate(BERNOULLI_NUMBERS, 1)][1:]),
        direct,
    )


def _reciprocal(w: jax.Array) -> tuple[jax.Array, jax.Array]:
    near = w <= _STIRLING_SERIES_EDGE
    return near, 1.0 / jnp.where(near, 1.0, w)


@stirling_error.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return stirling_error(*primals), _stirling_slope(*primals) * tangents[0]


@_stirling_slope.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _stirling_slope(*primals), _stirling_curvature(*primals) * tangents[0]


def excess(delta: jax.Array, ratio: jax.Array) -> jax.Array:
    """δ − log(1 + δ) for δ > −1, without cancellation; ``ratio`` is 1 + δ, to be given to full
    precision where δ nears −1.
    """
    v = delta / (2 + delta)
    near = jnp.abs(v) <= 1 / 3
    # δ − 2 atanh v, and δ − 2v = δv
    v = jnp.where(near, v, 0.0)
    return jnp.where(
        near,
        delta * v - 2 * v**3 * horner(v * v, ATANH_SERIES),
        delta - jnp.log(jnp.where(near, 1.0, ratio)),
    )


def excess_quotient(delta: jax.Array, ratio: jax.Array) -> jax.Array:
    """(δ − log(1 + δ))/δ², smooth: ½ at δ = 0. Differentiable to every order as it stands."""
    near = jnp.abs(delta) <= (2 + delta) / 3
    u = jnp.where(near, delta, 0.0)
    v = u / (2 + u)
    series = 1 / (2 + u) - 2 * v * horner(v * v, ATANH_SERIES) / (2 + u) ** 2
    far = jnp.where(near, 1.0, delta)
    return jnp.where(near, series, (far - jnp.log(jnp.where(near, 1.0, ratio))) / (far * far))
