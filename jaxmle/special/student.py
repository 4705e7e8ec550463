"""Student's t on the log scale: density and distribution function, through 1/df, so that the normal is a point like any other."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmle.special.exponential import log1mexp
from jaxmle.special.gamma import BERNOULLI, SHIFT, gammaln
from jaxmle.special.incomplete_beta import log_lower, upper_is_smaller
from jaxmle.special.stirling import HALF_LOG_2PI, excess_quotient, horner, promote

Array = Any

# log Γ(a + ½) − log Γ(a) − ½ log a = Σ cₖ a¹⁻²ᵏ, k = 1, 2, …: NIST DLMF 5.11.8 with B₂ₖ(½) = −(1 − 2¹⁻²ᵏ)B₂ₖ
_HALF_STEP = tuple(
    -(2 - 2.0 ** (1 - 2 * k)) * b / (2 * k * (2 * k - 1)) for k, b in enumerate(BERNOULLI, 1)
)


def student_t_logpdf(z: Array, df: Array) -> Array:
    """log density of Student's t at z, elementwise; arguments broadcast.

    log Γ((ν + 1)/2)/(Γ(ν/2) √(νπ)) − (ν + 1)/2 · log(1 + z²/ν). Evaluated in w = 1/ν, in which it is smooth: df = inf is the normal density.

    Args:
        z: standardised residual.
        df: degrees of freedom ν > 0, inf included; NaN below.

    Returns:
        Value to 1e-14, first derivatives to 1e-12, second to 1e-9, relative to max(|f|, |z ∂f/∂z| + |ν ∂f/∂ν|).
        A fit that may end at the normal should move in 1/df: ``student_t_logpdf_inverse_df``.

    Example:
        >>> print(round(float(student_t_logpdf(1.0, 5.0)), 4))
        -1.5156
    """
    z, df = promote(z, df)
    return _logpdf(z, 1 / df)


def student_t_logpdf_inverse_df(z: Array, inverse_df: Array) -> Array:
    """log density of Student's t at z as a function of w = 1/df, elementwise; w = 0 is the normal, with finite derivatives in w.

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


def student_t_logcdf(z: Array, df: Array) -> Array:
    """log of the distribution function of Student's t, elementwise; arguments broadcast.

    Half a regularised incomplete beta function, I_x(ν/2, ½) with x = ν/(ν + z²); both x and 1 − x are formed without cancellation.

    Args:
        z: standardised residual.
        df: degrees of freedom ν > 0; inf is the normal.

    Returns:
        Value to 1e-13, first derivatives to 1e-11, second to 1e-9, relative to max(|f|, |z ∂f/∂z| + |ν ∂f/∂ν|).
        The derivative in ν, itself of order 1/ν², has the relative error 1e-16·ν: it falls short of 1e-11 beyond ν = 10⁵, where ν ∂f/∂ν is below 1e-5.

    Example:
        >>> print(round(float(student_t_logcdf(-2.0, 5.0)), 4))
        -2.9766
    """
    return _logcdf(*jnp.broadcast_arrays(*promote(z, df))).value


def student_t_logsf(z: Array, df: Array) -> Array:
    """log of the survival function of Student's t: ``student_t_logcdf(−z, df)``, the term of an observation censored at z.

    Example:
        >>> print(round(float(student_t_logsf(2.0, 5.0)), 4))
        -2.9766
    """
    z, df = jnp.broadcast_arrays(*promote(z, df))
    return _logcdf(-z, df).value


def _logpdf(z: Array, w: Array) -> Array:
    return _constant(w) - HALF_LOG_2PI - 0.5 * (1 + w) * _scaled_log(z, w)


def _constant(w: Array) -> Array:
    """log Γ((ν + 1)/2) − log Γ(ν/2) − ½ log(ν/2), ν = 1/w: −w/4 + …"""
    near = 2 * w <= 1 / SHIFT
    small = jnp.where(near, 2 * w, 0.0)
    a = 0.5 / jnp.where(near, 1.0, w)
    direct = gammaln(a + 0.5) - gammaln(a) - 0.5 * jnp.log(a)
    value = jnp.where(near, small * horner(small * small, _HALF_STEP), direct)
    return jnp.where(w >= 0, value, jnp.nan)


@jax.custom_jvp
def _scaled_log(z: Array, w: Array) -> Array:
    """log(1 + wz²)/w, z² at w = 0."""
    y = w * z * z
    tiny = y < 1e-8  # the next term of log(1 + y)/y = 1 − y/2 + … is y²/3 < 4e-17
    return jnp.where(tiny, z * z * (1 - 0.5 * y), jnp.log1p(y) / jnp.where(tiny, 1.0, w))


@_scaled_log.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (z, w), (dz, dw) = primals, tangents
    y = w * z * z
    # ∂/∂w = −(log(1 + y) − u)/w², u = y/(1 + y); and log(1 + y) − u = −u − log(1 − u) is an excess: no cancellation for small y.
    u = y / (1 + y)
    core = z * z / (1 + y)
    in_w = -core * core * excess_quotient(-u, 1 / (1 + y))
    return _scaled_log(z, w), 2 * z / (1 + y) * dz + in_w * dw


class _Jet(NamedTuple):
    """log F(z), its slope f/F in z, and its first and second derivative in ν."""

    value: Array
    hazard: Array
    df: Array
    dfdf: Array


def _jet(z: Array, df: Array) -> _Jet:
    huge = 1e100 if z.dtype == jnp.float64 else 1e15  # beyond, the normal to every digit
    nu = jnp.minimum(df, huge)
    square = jnp.maximum(z * z, jnp.finfo(z.dtype).tiny * nu * 4)
    total = nu + square
    x, y, half = nu / total, square / total, jnp.full_like(nu, 0.5)
    other = upper_is_smaller(0.5 * nu, half, x, y)
    g = log_lower(
        jnp.where(other, half, 0.5 * nu),
        jnp.where(other, 0.5 * nu, half),
        jnp.where(other, y, x),
        jnp.where(other, x, y),
    )
    # ν/2 is the first shape or the second; x′ = y/(ν + z²) in ν and x″ = −2y/(ν + z²)², y′ and y″ their negatives
    step = jnp.where(other, -y, y) / total
    in_shape, in_shapes, mixed = (
        jnp.where(other, at_q, at_p) for at_q, at_p in ((g.q, g.p), (g.qq, g.pp), (g.qx, g.px))
    )
    curvature = 0.25 * in_shapes + mixed * step + g.xx * step * step - 2 * g.x * step / total
    slope = 0.5 * in_shape + g.x * step
    tail, slope, curvature = _where(
        other, _complement(g.value, slope, curvature), (g.value, slope, curvature)
    )
    value, slope, curvature = _where(
        z < 0,
        (tail - math.log(2), slope, curvature),
        _complement(tail - math.log(2), slope, curvature),
    )
    # Through I_x the hazard keeps its digits in the far tail, through the density elsewhere; from z = −1 down it is not the other tail.
    hazard = jnp.where(
        (z < -1) & ~other, -2 * z * x / total * g.x, jnp.exp(_logpdf(z, 1 / df) - value)
    )
    return _Jet(value, hazard, slope, curvature)


def _complement(f: Array, slope: Array, curvature: Array) -> tuple[Array, ...]:
    """log(1 − e^f) with two derivatives, from those of f."""
    odds = jnp.exp(f) / jnp.expm1(f)
    return log1mexp(f), odds * slope, odds * (curvature + slope * slope * (1 - odds))


def _where(mask: Array, these: tuple[Array, ...], those: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(jnp.where(mask, a, b) for a, b in zip(these, those, strict=True))


@jax.custom_jvp
def _logcdf(z: Array, df: Array) -> _Jet:
    return _jet(z, df)


@_logcdf.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[_Jet, _Jet]:
    (z, df), (dz, ddf) = primals, tangents
    f = _logcdf(z, df)
    one = jnp.ones_like(z)
    density_z = jax.jvp(lambda v: _logpdf(v, 1 / df), (z,), (one,))[1]
    density_df = jax.jvp(lambda v: _logpdf(z, 1 / v), (df,), (one,))[1]
    mixed = f.hazard * (density_df - f.df)
    third = jax.jvp(lambda z, df: _jet(z, df).dfdf, primals, tangents)[1]
    return f, _Jet(
        f.hazard * dz + f.df * ddf,
        f.hazard * (density_z - f.hazard) * dz + mixed * ddf,
        mixed * dz + f.dfdf * ddf,
        third,
    )
