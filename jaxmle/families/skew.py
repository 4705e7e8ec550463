"""The skew-normal distribution function, by Gauss–Legendre quadrature of a log-concave tail."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

import jaxmle.special as special
from jaxmle._types import Array, FunctionTo
from jaxmle.special.normal import upper_hazard

LOG_FALL_TO_NEGLECT = 40.0  # e⁻⁴⁰ = 4e-18 of the integrand is neglected


@functools.cache
def legendre(nodes: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights on (0, 1), as numbers: an array would belong to one precision."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return tuple((0.5 * (x + 1)).tolist()), tuple((0.5 * w).tolist())


def integral(log_f: FunctionTo[Array], width: Array, nodes: int, *constants: Array) -> Array:
    """log ∫₀^width exp(log_f(u, *constants)) du, elementwise; ``log_f`` gets one more axis, over
    the nodes.
    """
    width, *held = (array[..., None] for array in jnp.broadcast_arrays(width, *constants))
    points, weights = (
        jnp.asarray(values, width.dtype).reshape((1,) * (width.ndim - 1) + (nodes,))
        for values in legendre(nodes)
    )
    return jax.scipy.special.logsumexp(
        log_f(width * points, *held) + jnp.log(weights * width), axis=-1
    )


def held(x: Array) -> Array:
    """x, clipped so that its square stays finite: log Φ is −1e298 there, which is enough."""
    most = 1e149 if x.dtype == jnp.float64 else 1e18
    return jnp.clip(x, -most, most)


def _lower(z: Array, a: Array) -> Array:
    """log F(z; a) for z ≤ 0 ≤ a.

    F = 2φ(z) ∫₀^∞ exp(zu − u²/2) Φ(a(z − u)) du. At u = 0 the log of the integrand has slope −r = z
    − a·φ(az)/Φ(az), and its curvature is below −c = −1 − (2/π)a², that of log Φ at 0. Where ru +
    cu²/2 = DEPTH it has fallen by that much, and the range ends.
    """
    fall = a * upper_hazard(jnp.asarray(held(-a * z))) - z
    c = 1 + 2 / math.pi * a * a
    width = (
        2 * LOG_FALL_TO_NEGLECT / (fall + jnp.hypot(fall, jnp.sqrt(2 * LOG_FALL_TO_NEGLECT * c)))
    )
    inside = integral(
        lambda u, z, a: z * u - 0.5 * u * u + special.log_ndtr(held(a * (z - u))),
        jax.lax.stop_gradient(width),
        32,
        z,
        a,
    )
    return math.log(2) - 0.5 * z * z - 0.5 * math.log(2 * math.pi) + inside


def _small(z: Array, a: Array) -> Array:
    """log of the tail F(z; a) for z ≤ 0, for either sign of a.

    For a < 0, F(z; a) = 2Φ(z) − F(z; −a), and F(z; −a) ≤ Φ(z): at most one bit is lost.
    """
    first = _lower(z, jnp.abs(a))
    second = math.log(2) + special.log_ndtr(z)
    gap = jnp.where(a < 0, first - second, -1.0)
    return jnp.where(a < 0, second + special.log1mexp(gap), first)


def skew_log_cdf(z: Array, a: Array) -> Array:
    """log of the distribution function of the standard skew-normal of shape a."""
    # F(z; a) = 1 − F(−z; −a).
    small = _small(-jnp.abs(z), jnp.where(z < 0, a, -a))
    up = z >= 0
    return jnp.where(up, special.log1mexp(jnp.where(up, small, -1.0)), small)


def skew_log_sf(z: Array, a: Array) -> Array:
    """log of 1 − F."""
    return skew_log_cdf(-z, -a)
