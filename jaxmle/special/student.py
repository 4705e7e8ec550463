"""Student's t on the log scale: density and distribution function, through 1/df, so that the
normal is a point like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmle.special.exponential import log1mexp
from jaxmle.special.gamma import ARGUMENT_SHIFT, BERNOULLI_NUMBERS, gammaln, trigamma
from jaxmle.special.quadrature import LOG_DEPTH, end, moments
from jaxmle.special.stirling import HALF_LOG_2PI, excess_quotient, horner, promote

LOG_2 = math.log(2)
# log Γ(a + ½) − log Γ(a) − ½ log a = Σ cₖ a¹⁻²ᵏ, k = 1, 2, …: NIST DLMF 5.11.8 with B₂ₖ(½) = −(1 −
# 2¹⁻²ᵏ)B₂ₖ
_HALF_STEP = tuple(
    -(2 - 2.0 ** (1 - 2 * k)) * b / (2 * k * (2 * k - 1))
    for k, b in enumerate(BERNOULLI_NUMBERS, 1)
)
# y below which log(1 + y)/y = 1 − y/2 + … is two terms: the third, y²/3, is below 4e-17
MAX_ARGUMENT_OF_TWO_TERMS = 1e-8

MIN_DF_FOR_SERIES = 50.0  # the next term is 1e-13 of the sum, as is the rounding of the direct form


def student_t_logpdf(z: ArrayLike, df: ArrayLike) -> jax.Array:
    """log density of Student's t at z, elementwise; arguments broadcast.

    log Γ((ν + 1)/2)/(Γ(ν/2) √(νπ)) − (ν + 1)/2 · log(1 + z²/ν). Evaluated in w = 1/ν, in which it
    is smooth: df = inf is the normal density.

    Args:
        z: standardised residual, up to 1e149 in size, or infinite.
        df: degrees of freedom ν > 0, inf included; NaN below.

    Returns:
        Value to 1e-14, first derivatives to 1e-12, second to 1e-9, relative to max(|f|, |z ∂f/∂z| +
        |ν ∂f/∂ν|). For a fit that may end at the normal, use 1/df as the parameter:
        ``student_t_logpdf_inverse_df``.

    Example:
        >>> print(round(float(student_t_logpdf(1.0, 5.0)), 4))
        -1.5156
    """
    z, df = promote(z, df)
    return _logpdf(z, 1 / df)


def student_t_logpdf_inverse_df(z: ArrayLike, inverse_df: ArrayLike) -> jax.Array:
    """log density of Student's t at z as a function of w = 1/df, elementwise; w = 0 is the normal
    density, with finite derivatives in w.

    At w = 0 the first derivative in w is (z⁴ − 2z² − 1)/4.

    Args:
        z: standardised residual.
        inverse_df: 1/df ≥ 0; NaN below.

    Returns:
        As ``student_t_logpdf``.

    Example:
        >>> import jax
        >>> print(jax.grad(student_t_logpdf_inverse_df, 1)(1.0, 0.0))
        -0.5
    """
    return _logpdf(*promote(z, inverse_df))


def student_t_logcdf(z: ArrayLike, df: ArrayLike) -> jax.Array:
    """log of the distribution function of Student's t, elementwise; arguments broadcast.

    With z = √ν sinh s it is an integral of a power of cosh s, by a fixed rule (``quadrature``),
    with two derivatives from the same pass.

    Args:
        z: standardised residual.
        df: degrees of freedom ν > 0; inf is the normal distribution.

    Returns:
        Value to 1e-13, first derivatives to 1e-11, second to 1e-9, relative to max(|f|, |z ∂f/∂z| +
        |ν ∂f/∂ν|), up to the normal.

    Example:
        >>> print(round(float(student_t_logcdf(-2.0, 5.0)), 4))
        -2.9766
    """
    return _log_lower(*jnp.broadcast_arrays(*promote(z, df)))


def student_t_logsf(z: ArrayLike, df: ArrayLike) -> jax.Array:
    """log of the survival function of Student's t: ``student_t_logcdf(−z, df)``, the term of an
    observation censored at z.

    Example:
        >>> print(round(float(student_t_logsf(2.0, 5.0)), 4))
        -2.9766
    """
    z, df = jnp.broadcast_arrays(*promote(z, df))
    return _log_lower(-z, df)


def student_t_df_information(df: jax.Array) -> jax.Array:
    """The expected information of df in one observation, elementwise: (ψ'(ν/2) − ψ'((ν + 1)/2))/4 −
    (ν + 5)/(2ν(ν + 1)(ν + 3)) (Lange, Little & Taylor 1989, appendix B).

    It goes as 7/(2ν⁴), and its terms as 1/(2ν²). The first is Σ (−1)ᵏ/(ν + k)², for large ν 1/(2ν²)
    + 1/(2ν³) − 1/(2ν⁵) + 3/(2ν⁷) − 17/(2ν⁹) + 155/(2ν¹¹) − …, by Boole's summation formula; less
    the second, its leading terms are (7ν + 3)/(2ν³(ν + 1)(ν + 3)).
    """
    large = df > MIN_DF_FOR_SERIES
    v = jnp.where(large, df, MIN_DF_FOR_SERIES)
    w = 1 / (v * v)
    rest = horner(w, [-0.5, 1.5, -8.5, 77.5]) * w * w / v
    series = (7 * v + 3) / (2 * v**3 * (v + 1) * (v + 3)) + rest
    few = jnp.where(large, 1.0, df)
    direct = 0.25 * (trigamma(few / 2) - trigamma((few + 1) / 2)) - (few + 5) / (
        2 * few * (few + 1) * (few + 3)
    )
    return jnp.where(large, series, direct)


def _log_lower(z: jax.Array, df: jax.Array) -> jax.Array:
    """The log distribution function; at ±∞ its limit, without derivatives."""
    far = jnp.isinf(z)
    value = _logcdf(jnp.where(far, 0.0, z), df)
    return jnp.where(far, jnp.where(z < 0, -jnp.inf, 0.0), value)


def _logpdf(z: jax.Array, w: jax.Array) -> jax.Array:
    """The log density; at ±∞ its limit, without derivatives."""
    far = jnp.isinf(z)
    held = jnp.where(far, 0.0, z)
    value = _constant(w) - HALF_LOG_2PI - 0.5 * (1 + w) * scaled_log(held, w)
    return jnp.where(far & (w >= 0), -jnp.inf, value)


def _constant(w: jax.Array) -> jax.Array:
    """log Γ((ν + 1)/2) − log Γ(ν/2) − ½ log(ν/2), ν = 1/w: −w/4 + …"""
    near = 2 * w <= 1 / ARGUMENT_SHIFT
    small = jnp.where(near, 2 * w, 0.0)
    a = 0.5 / jnp.where(near, 1.0, w)
    upper, lower = gammaln(jnp.stack([a + 0.5, a]))
    direct = upper - lower - 0.5 * jnp.log(a)
    value = jnp.where(near, small * horner(small * small, _HALF_STEP), direct)
    return jnp.where(w >= 0, value, jnp.nan)


@jax.custom_jvp
def shrunk(z: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(1/(1 + wz²), z/(1 + wz²)): with a rule of their own, in which no square of them
    overflows or underflows before it is needed.
    """
    t = 1 / (1 + w * z * z)
    return t, z * t


@shrunk.defjvp
def _(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    (z, w) = primals
    (dz, dw) = tangents
    t, c = shrunk(z, w)
    square = z * c
    return (t, c), (
        -2 * w * c * (t * dz) - c * (c * dw),
        t * ((1 - 2 * w * square) * dz) - c * (square * dw),
    )


@jax.custom_jvp
def scaled_log(z: jax.Array, w: jax.Array) -> jax.Array:
    """log(1 + wz²)/w, z² at w = 0."""
    y = w * z * z
    tiny = y < MAX_ARGUMENT_OF_TWO_TERMS
    return jnp.where(tiny, z * z * (1 - 0.5 * y), jnp.log1p(y) / jnp.where(tiny, 1.0, w))


@scaled_log.defjvp
def _(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (z, w) = primals
    (dz, dw) = tangents
    t, c = shrunk(z, w)
    # ∂/∂w = −(log(1 + y) − u)/w², u = y/(1 + y); and log(1 + y) − u = −u − log(1 − u) is an excess:
    # no cancellation for small y.
    core = z * c
    in_w = -core * core * excess_quotient(-w * core, t)
    return scaled_log(z, w), 2 * c * dz + in_w * dw


# ---------------------------------------------------------------- the distribution function

_MIN_FAR_ARGUMENT = 3.0  # e^−2s beyond: the powers up to the eighth leave 1e-21
_NUMBER_OF_POWERS = 8
_SMALL_DF = 8.0
_MAX_NEAR_ARGUMENT = 0.3
_TAYLOR_TERMS = 14  # of which each is a tenth of the one before
_HALF_PARABOLA = 0.43  # log cosh v ≥ 0.43 v² up to v = 1


class _Jet(NamedTuple):
    """log F(z), its slope f/F in z, and its first and second derivative in ν."""

    value: jax.Array
    hazard: jax.Array
    df: jax.Array
    dfdf: jax.Array


def _derivatives(
    function: Callable[[jax.Array], jax.Array], nu: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A function with its first and second derivative."""
    tangent = jnp.ones_like(nu)

    def slope(nu: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(function, (nu,), (tangent,))

    (value, first), (_, second) = jax.jvp(slope, (nu,), (tangent,))
    return value, first, second


def _upper(z: jax.Array, nu: jax.Array, constant: tuple[jax.Array, jax.Array, jax.Array]) -> _Jet:
    """log of the upper tail S at z ≥ 0, f/S, and the derivatives of log S in ν.

    With z = √ν sinh s the density of s is a power of cosh s, whose log is concave:
    S = C √ν cosh(s)^−ν · m₀,  mⱼ = ∫₀^∞ e^−νq qʲ dv,  q = log(cosh(s + v)/cosh s) = log(cosh v + T
    sinh v),  T = tanh s. Up to ν = 8 the derivatives at a fixed s are moments under the integral,
    and s moves with ν by −T/2ν. From there on that would be a difference of terms of order 1/ν² for
    a derivative of order 1/ν³: there they are moments, over the same nodes, of the slopes of the
    log density in w = 1/ν at a fixed place, all of order 1.
    """
    total = jnp.hypot(jnp.sqrt(nu), z)
    t = z / total
    log_cosh = jnp.where(
        t > 0.9, jnp.log(total) - 0.5 * jnp.log(nu), 0.5 * jnp.log1p(jnp.minimum(z * z / nu, 10.0))
    )
    w = 1 / nu
    c, c1, c2 = constant
    slope_at_z, _ = _slopes_in_w(z, w)
    m0, m1, m2 = _moments(
        nu, t, log_cosh, jnp.log(total + z) - 0.5 * jnp.log(nu), z, total, slope_at_z
    )
    end = 1 / m0
    m1 = m1 / m0
    m2 = m2 / m0
    in_w = c1 + slope_at_z + m1
    in_ww = c2 + m2 - m1 * m1
    # of log √ν times the density at 0
    first, second = _in_df(w, c1, c2)
    first += 0.5 * w
    second -= 0.5 * w * w
    slope = first - log_cosh - m1 + 0.5 * t * end / nu
    curvature = second + (
        m2
        - m1 * m1
        + end * t / nu * (m1 - 0.25 * (end - nu * t) * t / nu - 0.25 * (3 - t * t) / nu)
    )
    flat = nu < _SMALL_DF
    slope_df, curvature_df = _in_df(w, in_w, in_ww)
    value = c - HALF_LOG_2PI + 0.5 * jnp.log(nu) - nu * log_cosh + jnp.log(m0)
    return _Jet(
        value,
        end / total,
        jnp.where(flat, slope, slope_df),
        jnp.where(flat, curvature, curvature_df),
    )


def _slopes_in_w(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two derivatives in w of the log density at x, but for those of its constant."""
    log, first, second = _derivatives(lambda w: scaled_log(x, w), w)
    return -0.5 * (log + (1 + w) * first), -0.5 * (2 * first + (1 + w) * second)


def _moments(
    nu: jax.Array,
    t: jax.Array,
    log_cosh: jax.Array,
    start: jax.Array,
    z: jax.Array,
    total: jax.Array,
    slope_at_z: jax.Array,
) -> tuple[jax.Array, ...]:
    """m₀, m₁, m₂ by quadrature: where ν < 8 up to s + v = 3, since the tail e^−νv is too long
    beside the bend at 0, and what follows by its series. From ν = 8 on m₁ is of the slope in w less
    its value ``here`` at z, m₂ of that squared and of the second derivative in w.
    """
    flat = nu < _SMALL_DF
    depth = LOG_DEPTH / nu
    lean = _HALF_PARABOLA * (1 - t)
    near = t + lean >= depth
    root = 2 * depth / (t + jnp.sqrt(t * t + 4 * lean * depth))

    def q_of(v: jax.Array) -> jax.Array:
        half = jnp.sinh(0.5 * v)
        return jnp.log1p(2 * half * half + t * jnp.sinh(v))

    def phi(v: jax.Array) -> tuple[jax.Array, jax.Array]:
        e = jnp.exp(-2 * v)  # cosh v and sinh v over eᵛ
        up = 0.5 * (1 + e)
        down = 0.5 * (1 - e)
        return nu * q_of(v), nu * (down + t * up) / (up + t * down)

    def terms(v: jax.Array) -> tuple[jax.Array, ...]:
        q = q_of(v)
        density = jnp.exp(-nu * q)
        x = jnp.where(flat, 1.0, z * jnp.cosh(v) + total * jnp.sinh(v))
        slope, curvature = _slopes_in_w(x, 1 / nu)
        slope = jnp.where(flat, q, slope - slope_at_z)
        return density, density * slope, density * (slope**2 + jnp.where(flat, 0.0, curvature))

    length = end(phi, jnp.where(near, root, jnp.where(flat, 1.0, depth + LOG_2)))
    length = jnp.where(flat, jnp.maximum(_MIN_FAR_ARGUMENT - start, 0.0), length)
    integrals = moments(terms, length)
    s = jnp.maximum(start, _MIN_FAR_ARGUMENT)

    def rest(nu: jax.Array) -> jax.Array:
        total = jnp.zeros_like(nu)
        factor = jnp.ones_like(nu)
        power = jnp.exp(-2 * s)
        for k in range(_NUMBER_OF_POWERS):
            total = total + factor / (nu + 2 * k)
            factor = -factor * power * (nu + k) / (k + 1)
        return jnp.exp(-nu * (s - LOG_2 - log_cosh)) * total

    tail = _derivatives(rest, jnp.where(flat, nu, 1.0))
    return tuple(
        m + jnp.where(flat, sign * r, 0.0)
        for m, sign, r in zip(integrals, (1, -1, 1), tail, strict=True)
    )


def _middle(
    z: jax.Array, w: jax.Array, constant: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """P(0 < Z < z) and two derivatives in w = 1/ν for z²(ν + 1)/ν ≤ 0.1, by its Taylor series:
    near 0 they are of the order of z, of which a difference of tails keeps nothing.
    """
    total = jnp.full_like(z, 1 / (2 * _TAYLOR_TERMS + 1))
    first = jnp.zeros_like(z)
    second = jnp.zeros_like(z)
    for k in reversed(range(_TAYLOR_TERMS)):
        slope = -(0.5 + k) * z * z / (k + 1)
        factor = -0.5 * z * z / (k + 1) + w * slope
        second = 2 * slope * first + factor * second
        first = slope * total + factor * first
        total = 1 / (2 * k + 1) + factor * total
    c, c1, c2 = constant
    scale = z * jnp.exp(c - HALF_LOG_2PI)
    return (
        scale * total,
        scale * (first + c1 * total),
        scale * (second + 2 * c1 * first + (c2 + c1 * c1) * total),
    )


def _in_df(w: jax.Array, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The derivatives in ν from those in w = 1/ν."""
    return -w * w * first, w * w * (w * w * second + 2 * w * first)


@jax.jit  # traced once for the five places of a Hessian that ask for it
def _jet(z: jax.Array, df: jax.Array) -> _Jet:
    huge = 1e100 if z.dtype == jnp.float64 else 1e15  # beyond, the normal to every digit
    size = jnp.abs(z)
    nu = jnp.minimum(df, huge)
    w = 1 / nu
    constant = _derivatives(_constant, w)
    tail = _upper(size, nu, constant)
    near = size * jnp.sqrt(1 + w) < _MAX_NEAR_ARGUMENT
    mass, *in_w = _middle(jnp.where(near, size, 0.0), w, constant)
    first, second = _in_df(w, *in_w)
    share = 1 / (0.5 - mass)
    slope = -first * share
    tail = _Jet(
        tail.value,
        tail.hazard,
        jnp.where(near, slope, tail.df),
        jnp.where(near, -second * share - slope * slope, tail.dfdf),
    )
    value, slope, curvature = _complement(tail.value, tail.df, tail.dfdf)
    odds = jnp.exp(tail.value - value)
    low = z < 0
    return _Jet(
        jnp.where(low, tail.value, value),
        jnp.where(low, tail.hazard, tail.hazard * odds),
        jnp.where(low, tail.df, slope),
        jnp.where(low, tail.dfdf, curvature),
    )


def _complement(f: jax.Array, slope: jax.Array, curvature: jax.Array) -> tuple[jax.Array, ...]:
    """log(1 − e^f) with two derivatives, from those of f."""
    odds = jnp.exp(f) / jnp.expm1(f)
    return log1mexp(f), odds * slope, odds * (curvature + slope * slope * (1 - odds))


@jax.jit
def _slopes(z: jax.Array, df: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The derivatives of the log density in z and ν."""
    tangent = jnp.ones_like(z)
    in_w = jax.jvp(lambda w: _logpdf(z, w), (1 / df,), (tangent,))[1]
    return -(1 + 1 / df) * shrunk(z, 1 / df)[1], -in_w / df / df


# Value, gradient and second derivative in ν are read off one jet, which is carried along without
# derivatives of its own: it is evaluated once, and a derivative of the next order is traced only
# where it is asked for.


def _logcdf(z: jax.Array, df: jax.Array) -> jax.Array:
    jet = _jet(jax.lax.stop_gradient(z), jax.lax.stop_gradient(df))
    return _value(z, df, jet)


@jax.custom_jvp
def _value(z: jax.Array, df: jax.Array, jet: _Jet) -> jax.Array:
    return jet.value


@jax.custom_jvp
def _gradient(z: jax.Array, df: jax.Array, jet: _Jet) -> tuple[jax.Array, jax.Array]:
    return jet.hazard, jet.df


@jax.custom_jvp
def _curvature_in_df(z: jax.Array, df: jax.Array, jet: _Jet) -> jax.Array:
    return jet.dfdf


Primals = tuple[jax.Array, jax.Array, _Jet]


@_value.defjvp
def _(primals: Primals, tangents: Primals) -> tuple[jax.Array, jax.Array]:
    (dz, ddf, _) = tangents
    hazard, slope = _gradient(*primals)
    return _value(*primals), hazard * dz + slope * ddf


@_gradient.defjvp
def _(
    primals: Primals, tangents: Primals
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    (z, df, _) = primals
    (dz, ddf, _) = tangents
    hazard, slope = _gradient(*primals)
    density_z, density_df = _slopes(z, df)
    mixed = hazard * (density_df - slope)
    return (hazard, slope), (
        hazard * (density_z - hazard) * dz + mixed * ddf,
        mixed * dz + _curvature_in_df(*primals) * ddf,
    )


@_curvature_in_df.defjvp
def _(primals: Primals, tangents: Primals) -> tuple[jax.Array, jax.Array]:
    third = jax.jvp(lambda z, df: _jet(z, df).dfdf, primals[:2], tangents[:2])[1]
    return _curvature_in_df(*primals), third
