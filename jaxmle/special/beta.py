"""log B(a, b) and the differences of ψ and ψ′ that its derivatives are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmle.special.gamma import ARGUMENT_SHIFT, BERNOULLI_NUMBERS, gammaln, moved_up, trigamma
from jaxmle.special.stirling import HALF_LOG_2PI, excess, horner, promote, stirling_series

# ψ(z) = log z − u/2 − Σ cₖ u²ᵏ, u = 1/z.
_DIGAMMA = [0.0, *(b / (2 * k) for k, b in enumerate(BERNOULLI_NUMBERS, 1))]
_TRIGAMMA = [0.0, *BERNOULLI_NUMBERS]  # ψ′(z) = u + u²/2 + u Σ cₖ u²ᵏ


def betaln(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """log B(a, b) = log Γ(a) + log Γ(b) − log Γ(a + b), elementwise, for a, b > 0; arguments
    broadcast.

    If an argument is 10 or more, Stirling's formula is applied to the difference, so that nothing
    large cancels; the derivatives ψ(a) − ψ(a + b) and ψ′(a) − ψ′(a + b) are also evaluated as
    differences.

    Returns:
        Value to 1e-14, first and second derivatives to 1e-13, from 1e-8 to 1e15 in either argument.
        +inf if an argument is 0, NaN below.

    Source: Didonato & Morris 1992, ACM TOMS 18, 360 (algorithm 708), for the idea of the
    differences.

    Example:
        >>> import jax
        >>> with jax.enable_x64(True):
        ...     print(jax.grad(betaln)(1e10, 2.0))
        -2e-10
    """
    return _betaln(*promote(a, b))


@jax.custom_jvp
def _betaln(a: jax.Array, b: jax.Array) -> jax.Array:
    small = jnp.minimum(a, b)
    large = jnp.maximum(a, b)
    big = jnp.where(large < ARGUMENT_SHIFT, float(ARGUMENT_SHIFT), large)
    total = small + big
    tail = stirling_series(1 / big) - stirling_series(1 / total)
    # log Γ(l) − log Γ(s + l) by Stirling, at l ≥ 10
    one_large = (
        gammaln(small)
        - (big - 0.5) * jnp.log1p(small / big)
        - small * jnp.log(total)
        + small
        + tail
    )
    up = jnp.where(small < ARGUMENT_SHIFT, float(ARGUMENT_SHIFT), small)
    both_large = (
        HALF_LOG_2PI
        - 0.5 * jnp.log(big)
        - (up - 0.5) * jnp.log1p(big / up)
        - big * jnp.log1p(up / big)
        + stirling_series(1 / up)
        + tail
    )
    none_large = gammaln(a) + gammaln(b) - gammaln(a + b)
    value = jnp.where(
        small >= ARGUMENT_SHIFT,
        both_large,
        jnp.where(large >= ARGUMENT_SHIFT, one_large, none_large),
    )
    return jnp.where(small > 0, value, jnp.where(small == 0, jnp.inf, jnp.nan))


@jax.custom_jvp
def beta_logpdf(y: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """log of y^(a−1) (1 − y)^(b−1)/B(a, b), elementwise, for y in (0, 1) and a, b > 0; floating
    arguments of one shape or scalars.

    Where both shapes are 10 or more, Stirling's formula leaves −(a + b) times the divergence of y
    from the mean a/(a + b), which is of second order in their distance.
    """
    plain = (a - 1) * jnp.log(y) + (b - 1) * jnp.log1p(-y) - betaln(a, b)
    large = (a >= ARGUMENT_SHIFT) & (b >= ARGUMENT_SHIFT)
    up_a = jnp.where(large, a, float(ARGUMENT_SHIFT))
    up_b = jnp.where(large, b, float(ARGUMENT_SHIFT))
    total = up_a + up_b
    shift = y * up_b - (1 - y) * up_a
    divergence = up_a * excess(shift / up_a, y * (total / up_a)) + up_b * excess(
        -shift / up_b, (1 - y) * (total / up_b)
    )
    errors = stirling_series(1 / total) - stirling_series(1 / up_a) - stirling_series(1 / up_b)
    constant = 0.5 * (jnp.log(up_a) - jnp.log1p(up_a / up_b)) - HALF_LOG_2PI
    stable = constant + errors - divergence - jnp.log(y) - jnp.log1p(-y)
    return jnp.where(large, stable, plain)


@jax.custom_jvp
def digamma_difference(a: jax.Array, b: jax.Array) -> jax.Array:
    """ψ(a + b) − ψ(a) for a, b > 0, a sum of positive terms."""
    up, small = moved_up(a)
    u = 1 / up
    v = 1 / (up + b)
    gap = b * u * v  # u − v
    value = jnp.log1p(b * u) + gap * (0.5 + (u + v) * _divided(u * u, v * v, _DIGAMMA))
    below = jnp.zeros_like(value)
    for i in range(ARGUMENT_SHIFT):
        shifted = jnp.where(small, a + i, 1.0)
        below = below + b / (shifted * (shifted + b))
    return value + jnp.where(small, below, 0.0)


def trigamma_difference(a: jax.Array, b: jax.Array) -> jax.Array:
    """ψ′(a) − ψ′(a + b) for a, b > 0, a sum of positive terms."""
    up, small = moved_up(a)
    u = 1 / up
    v = 1 / (up + b)
    s = u * u
    t = v * v
    gap = b * u * v
    value = gap * (
        1 + 0.5 * (u + v) + horner(s, _TRIGAMMA) + v * (u + v) * _divided(s, t, _TRIGAMMA)
    )
    below = jnp.zeros_like(value)
    for i in range(ARGUMENT_SHIFT):
        shifted = jnp.where(small, a + i, 1.0)
        below = below + b / (shifted * (shifted + b)) * (1 / shifted + 1 / (shifted + b))
    return value + jnp.where(small, below, 0.0)


def _divided(s: jax.Array, t: jax.Array, coefficients: list[float]) -> jax.Array:
    """(p(s) − p(t))/(s − t) for the polynomial p: Horner's rule, carried along for the quotient."""
    value = jnp.zeros_like(s * t)
    quotient = jnp.zeros_like(s * t)
    for c in reversed(coefficients):
        quotient = quotient * t + value
        value = value * s + c
    return quotient


@_betaln.defjvp
def _(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (a, b) = primals
    (da, db) = tangents
    return _betaln(a, b), -digamma_difference(a, b) * da - digamma_difference(b, a) * db


@beta_logpdf.defjvp
def _(
    primals: tuple[jax.Array, jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    (y, a, b) = primals
    (dy, da, db) = tangents
    in_a = jnp.log(y) + digamma_difference(a, b)
    in_b = jnp.log1p(-y) + digamma_difference(b, a)
    in_y = (a - 1) / y - (b - 1) / (1 - y)
    return beta_logpdf(y, a, b), in_y * dy + in_a * da + in_b * db


@digamma_difference.defjvp
def _(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (a, b) = primals
    (da, db) = tangents
    return digamma_difference(a, b), trigamma(a + b) * db - trigamma_difference(a, b) * da
