"""log of the regularised incomplete gamma functions, with two derivatives in shape and argument.

P(a, x) and Q(a, x) are the tails of the log-gamma density, e^{au − xe^u} in u up to a constant. The
tail that is the smaller one,

    P = x^a e⁻ˣ/Γ(a + 1) · J,  J = 1 + x ∫₀^∞ exp(−(a + 1)v + x(1 − e⁻ᵛ)) dv        (x ≤ max(a, 1))
    Q = x^a e⁻ˣ/Γ(a) · J,      J = ∫₀^∞ exp(av − x(eᵛ − 1)) dv                       (x > max(a,
    1)),

is integrated in this scaled form, of which nothing can cancel or underflow; the other is log(1 −
eˣ) of it. Derivatives of log J are moments under the integral (differentiation under the integral
sign), and x ∂/∂x log P = a/J exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmle.special.counts import poisson_logpmf
from jaxmle.special.exponential import LOG_SHARE_OF_LARGEST_EXPONENT, log1mexp
from jaxmle.special.gamma import EULER_GAMMA, digamma, trigamma
from jaxmle.special.quadrature import LOG_DEPTH, end, moments
from jaxmle.special.stirling import horner, promote

_SMALL_SHAPE = 0.1
# ζ(k), k = 2, …, 16: log Γ(1 + a) = −γa + Σ ζ(k)(−a)ᵏ/k (NIST DLMF 5.7.3); at a = 0.1 what follows
# is below 1e-17 of it
_ZETA = (
    1.6449340668482264,
    1.2020569031595943,
    1.0823232337111382,
    1.03692775514337,
    1.0173430619844491,
    1.0083492773819229,
    1.0040773561979444,
    1.0020083928260821,
    1.0009945751278181,
    1.0004941886041194,
    1.0002460865533080,
    1.0001227133475785,
    1.0000612481350587,
    1.0000305882363070,
    1.0000152822594087,
)
_EXPONENTIAL_TERMS = 18  # xⁿ/n! at x = 1
_TAYLOR = tuple(
    1.0 / f
    for f in (
        2,
        6,
        24,
        120,
        720,
        5040,
        40320,
        362880,
        3628800,
        39916800,
        479001600,
        6227020800,
        87178291200,
    )
)


class _Jet(NamedTuple):
    """A function of (a, u), u = log x, with its first and second derivatives."""

    value: jax.Array
    a: jax.Array
    u: jax.Array
    aa: jax.Array
    au: jax.Array
    uu: jax.Array


def log_gammainc(a: ArrayLike, x: ArrayLike) -> jax.Array:
    """log P(a, x), the log distribution function of a gamma variable of shape a and scale 1,
    elementwise; arguments broadcast.

    Args:
        a: shape > 0; NaN elsewhere.
        x: argument ≥ 0: −inf at 0, NaN below.

    Returns:
        Value to 1e-13, first derivatives to 1e-11, second to 1e-9, in both arguments, relative to
        max(|f|, |a ∂f/∂a| + |x ∂f/∂x|), for a from 0.003 to 10⁵ and P, Q down to e^−200 000. Third
        derivatives are correct, without a stated accuracy.

    Example:
        >>> print(round(float(log_gammainc(2.0, 1.0)), 4))
        -1.3308
    """
    return _tail(a, x, lower=True)


def log_gammaincc(a: ArrayLike, x: ArrayLike) -> jax.Array:
    """log Q(a, x) = log(1 − P(a, x)), the log survival function of a gamma variable, elementwise;
    arguments broadcast.

    Args:
        a: shape > 0; NaN elsewhere.
        x: argument ≥ 0: 0 at 0, NaN below.

    Returns:
        As ``log_gammainc``.

    Example:
        >>> print(round(float(log_gammaincc(2.0, 1.0)), 4))
        -0.3069
    """
    return _tail(a, x, lower=False)


def _tail(a: ArrayLike, x: ArrayLike, *, lower: bool) -> jax.Array:
    a, x = jnp.broadcast_arrays(*promote(a, x))
    inside = (a > 0) & (x > 0) & (x < jnp.inf)
    safe_a = jnp.where(inside, a, 1.0)
    safe_x = jnp.where(inside, x, 1.0)
    value = gamma_tail(safe_a, jnp.log(safe_x), lower=lower)
    at_zero, at_infinity = (-jnp.inf, 0.0) if lower else (0.0, -jnp.inf)
    edge = jnp.where(
        a > 0, jnp.where(x == 0, at_zero, jnp.where(x == jnp.inf, at_infinity, jnp.nan)), jnp.nan
    )
    return jnp.where(inside, value, edge)


def gamma_tail(a: ArrayLike, log_x: ArrayLike, *, lower: bool) -> jax.Array:
    """log P(a, x), or log Q, from u = log x: in u the derivatives stay numbers where x or 1/x²
    is none. Beyond x = e⁶⁰⁰ as at infinity.
    """
    a, u = jnp.broadcast_arrays(*promote(a, log_x))
    over = u > LOG_SHARE_OF_LARGEST_EXPONENT * jnp.log(jnp.finfo(u.dtype).max)
    u = jnp.where(over, 0.0, u)
    small = _smaller(a, u).value
    upper = jnp.exp(u) > jnp.maximum(a, 1.0)
    other = log1mexp(jnp.minimum(small, -jnp.finfo(u.dtype).tiny))
    value = jnp.where(upper, other, small) if lower else jnp.where(upper, small, other)
    return jnp.where(over, 0.0 if lower else -jnp.inf, value)


@jax.custom_jvp
def _smaller(a: jax.Array, u: jax.Array) -> _Jet:
    """log of the smaller tail, with its derivatives, from one pass over the nodes."""
    return _jet(a, u)


@_smaller.defjvp
def _(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[_Jet, _Jet]:
    da, du = tangents
    jet = _smaller(*primals)
    third = jax.jvp(lambda a, u: _second(a, _shares(a, u)), primals, tangents)[1]
    return jet, _Jet(
        jet.a * da + jet.u * du, jet.aa * da + jet.au * du, jet.au * da + jet.uu * du, *third
    )


class _Shares(NamedTuple):
    """Which tail, J, and derivatives of J over J."""

    upper: jax.Array
    j: jax.Array
    a: jax.Array
    u: jax.Array
    aa: jax.Array


def _shares(a: jax.Array, u: jax.Array) -> _Shares:
    """J = J₀ + cM, c = x for P and 1 for Q; ∂M/∂a = ∓∫ve^{−φ}, ∂M/∂x = −∫Ee^{−φ}."""
    x = jnp.exp(u)
    upper = x > jnp.maximum(a, 1.0)
    m0, mv, me, mvv = _integrals(a, x, upper)
    c = jnp.where(upper, 1.0, x)
    sign = jnp.where(upper, 1.0, -1.0)
    lower = jnp.where(upper, 0.0, 1.0)
    j = lower + c * m0
    return _Shares(upper, j, c * sign * mv / j, x * ((lower * m0 - c * me) / j), c * mvv / j)


def _jet(a: jax.Array, u: jax.Array) -> _Jet:
    s = _shares(a, u)
    value = poisson_logpmf(a, u) + jnp.log(jnp.where(s.upper, a, 1.0) * s.j)
    value = jnp.where(
        (a < _SMALL_SHAPE) & (u <= 0),
        _near_one(jnp.minimum(a, _SMALL_SHAPE), jnp.minimum(u, 0.0)),
        value,
    )
    return _Jet(value, u - digamma(_shape(a, s)) + s.a, _top(a, s) / s.j, *_second(a, s))


def _second(a: jax.Array, s: _Shares) -> tuple[jax.Array, jax.Array, jax.Array]:
    top = _top(a, s)
    mixed = jnp.where(s.upper, 0.0, 1.0) - top * s.a
    return (
        s.aa - s.a * s.a - trigamma(_shape(a, s)),
        mixed / s.j,
        -top / s.j * s.u,
    )


def _shape(a: jax.Array, s: _Shares) -> jax.Array:
    """The argument of Γ in front of J."""
    return jnp.where(s.upper, a, a + 1)


def _top(a: jax.Array, s: _Shares) -> jax.Array:
    """x J ∂f/∂x."""
    return jnp.where(s.upper, -1.0, a)


def _near_one(a: jax.Array, u: jax.Array) -> jax.Array:
    """log P(a, x) for a small shape, where P is near 1 and log P about a(log x + γ − x): P =
    x^a/Γ(1 + a) · (1 − as), s = −Σ (−x)ⁿ/((a + n)n!), each factor over a.
    """
    series = jnp.zeros_like(a)
    x = jnp.exp(u)
    for n in range(_EXPONENTIAL_TERMS, 0, -1):
        series = x / n * (1 / (a + n) - series)
    # This is log Γ(1 + a)/a.
    log_gamma = a * horner(-a, [z / k for k, z in enumerate(_ZETA, 2)]) - EULER_GAMMA
    return a * (u - log_gamma) + jnp.log1p(-a * series)


def _integrals(a: jax.Array, x: jax.Array, upper: jax.Array) -> tuple[jax.Array, ...]:
    """∫ e^{−φ} g dv for g = 1, v, E, v² with E = e^{±v} − 1 and φ = xE ∓ Av: + and A = a for Q,
    − and A = a + 1 for P.
    """
    sign = jnp.where(upper, 1.0, -1.0)
    shape = jnp.where(upper, a, a + 1)

    def terms(v: jax.Array) -> tuple[jax.Array, ...]:
        y = sign * v
        rest = _expm1_less(y)
        e = y + rest
        density = jnp.exp(-((x - shape) * y + x * rest))
        return density, density * v, density * e, density * v * v

    x_, shape_ = jax.lax.stop_gradient((x, shape))

    def phi(v: jax.Array) -> tuple[jax.Array, jax.Array]:
        e = jnp.expm1(sign * v)
        return x_ * e - shape_ * sign * v, sign * (x_ * (e + 1) - shape_)

    return moments(terms, end(phi, _right(x_, shape_, upper)))


def _right(x: jax.Array, shape: jax.Array, upper: jax.Array) -> jax.Array:
    """To the right of φ = 38: eᵛ − 1 − v ≥ v²/2 for Q, e⁻ᵛ − 1 + v ≥ v²/(2 + v) for P make a
    quadratic equation of it.
    """
    gap = jnp.where(upper, x - shape, 2 * (shape - x) - LOG_DEPTH)
    lead = jnp.where(upper, 2 * x, 8 * shape)
    root = jnp.hypot(gap, jnp.sqrt(LOG_DEPTH * lead))
    return jnp.where(
        gap > 0, jnp.where(upper, 2.0, 4.0) * LOG_DEPTH / (gap + root), (root - gap) / (2 * shape)
    )


def _expm1_less(y: jax.Array) -> jax.Array:
    """eʸ − 1 − y."""
    near = jnp.abs(y) < 0.5
    u = jnp.where(near, y, 0.0)
    series = jnp.zeros_like(u)
    for c in reversed(_TAYLOR):
        series = series * u + c
    return jnp.where(near, u * u * series, jnp.exp(y) - 1 - y)
