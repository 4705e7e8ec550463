"""Families of angles: von Mises."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

import jaxmle.special as special
from jaxmle._types import Array, Function, NamedParams, Tree
from jaxmle.families.family import Family, Law, document
from jaxmle.families.inverse import solve
from jaxmle.families.moments import values
from jaxmle.families.skew import LOG_FALL_TO_NEGLECT, integral
from jaxmle.parameters.constraints import free, positive
from jaxmle.special.stirling import LOG_2PI

# κ below which (1 + ρ²)/(2ρ) is 1/κ + κ: the next term is of order κ³
MAX_CONCENTRATION_OF_SERIES = 1e-4


def wrap(angle: Array) -> Array:
    """The angle in [−π, π); the whole turns subtracted have no derivative."""
    turned = angle - jax.lax.stop_gradient(
        2 * math.pi * jnp.floor((angle + math.pi) / (2 * math.pi))
    )
    return jnp.clip(turned, -math.pi, math.pi)  # 1e300 radians keep no digit of the angle


def _log_normaliser(kappa: Array) -> Array:
    """log(2π I₀(κ)) − κ. The value comes from e^(−κ)I₀(κ), which keeps the digits that κ − log
    I₀(κ) loses; the slope is A(κ) − 1.
    """
    held = jax.lax.stop_gradient(kappa)
    slope = special.log_i0(kappa) - kappa
    return jnp.log(jax.scipy.special.i0e(held)) + (slope - jax.lax.stop_gradient(slope)) + LOG_2PI


def _log_prob(p: NamedParams, y: Array) -> Array:
    # cos t − 1 = −2 sin²(t/2), which keeps its digits at a high kappa.
    outside = jnp.isinf(y)
    half = 0.5 * (jnp.where(outside, p["loc"], y) - p["loc"])
    value = -2 * p["kappa"] * jnp.sin(half) ** 2 - _log_normaliser(p["kappa"])
    return jnp.where(outside, -jnp.inf, value)


def _log_tail(kappa: Array, angle: Array) -> Array:
    """log ∫ of the density from ``angle`` in [0, π] to π; the range ends where the integrand
    has fallen by e⁻⁴⁰.
    """
    cosine = jnp.cos(angle)
    lowest = jax.lax.stop_gradient(cosine - LOG_FALL_TO_NEGLECT / kappa)
    end = jnp.where(lowest > -1, jnp.arccos(jnp.maximum(lowest, -1.0)), math.pi)
    width = jnp.maximum(end - angle, jnp.finfo(angle.dtype).tiny)
    inside = integral(
        lambda u, kappa, angle: -2 * kappa * jnp.sin(0.5 * (angle + u)) ** 2,
        width,
        48,
        kappa,
        angle,
    )
    return inside - _log_normaliser(kappa)


def _log_tails(p: NamedParams, y: Array) -> tuple[Array, Array]:
    """log_cdf and log_sf: the tail beyond the angle is one, the rest the other."""
    angle = wrap(jnp.where(jnp.isinf(y), p["loc"], y) - p["loc"])
    start = angle == -math.pi
    tail = _log_tail(p["kappa"], jnp.where(start, 1.0, jnp.abs(angle)))
    rest = special.log1mexp(tail)
    up = angle >= 0
    first = start | jnp.isneginf(y)
    last = jnp.isposinf(y)
    below = jnp.where(up, rest, tail)
    above = jnp.where(up, tail, rest)
    return (
        jnp.where(first, -jnp.inf, jnp.where(last, 0.0, below)),
        jnp.where(first, 0.0, jnp.where(last, -jnp.inf, above)),
    )


def _log_cdf(p: NamedParams, y: Array) -> Array:
    return _log_tails(p, y)[0]


def _log_sf(p: NamedParams, y: Array) -> Array:
    return _log_tails(p, y)[1]


def _quantile(p: NamedParams, q: Array) -> Array:
    """On the angle's logistic scale from −π to π."""

    def turned(function: Function) -> Function:
        return lambda p, share: function(
            {"loc": jnp.zeros(()), "kappa": p["kappa"]}, 2 * math.pi * (share - 0.5)
        )

    def log_density(p: NamedParams, share: Array) -> Array:
        return turned(_log_prob)(p, share) + LOG_2PI

    share = solve(log_density, turned(_log_cdf), turned(_log_sf), "unit", {"kappa": p["kappa"]}, q)
    return p["loc"] + 2 * math.pi * (share - 0.5)


def _sample(p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
    """Best & Fisher 1979, Applied Statistics 28: rejection from a wrapped Cauchy, of which at
    least 2/3 are kept.
    """
    kappa = jnp.broadcast_to(p["kappa"], shape)
    tau = 1 + jnp.sqrt(1 + 4 * kappa**2)
    rho = (tau - jnp.sqrt(2 * tau)) / (2 * kappa)
    # r = (1 + ρ²)/(2ρ), which is 1/κ + κ as κ → 0.
    r = jnp.where(
        kappa < MAX_CONCENTRATION_OF_SERIES,
        1 / kappa + kappa,
        (1 + rho**2) / (2 * jnp.where(rho > 0, rho, 1.0)),
    )

    def step(state: tuple[Tree, ...]) -> tuple[Tree, ...]:
        key, cosine, done = state
        key, angle_key, accept_key = jax.random.split(key, 3)
        z = jnp.cos(math.pi * jax.random.uniform(angle_key, shape))
        f = (1 + r * z) / (r + z)
        c = kappa * (r - f)
        u = jax.random.uniform(accept_key, shape)
        accepted = (c * (2 - c) > u) | (jnp.log(c) - jnp.log(u) + 1 >= c)
        return key, jnp.where(done, cosine, f), done | accepted | jnp.isnan(c)

    sign_key, key = jax.random.split(key)
    _, cosine, _ = jax.lax.while_loop(
        lambda state: ~jnp.all(state[2]), step, (key, jnp.zeros(shape), jnp.zeros(shape, bool))
    )
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0)) * jax.random.rademacher(
        sign_key, shape, dtype=cosine.dtype
    )
    return wrap(p["loc"] + angle)


def _guess(y: Array, known: NamedParams) -> NamedParams:
    """The mean direction, and kappa from the mean resultant length: Fisher 1993, Statistical
    Analysis of Circular Data, eq. (4.40).
    """
    y, xp = values(y)
    sine = xp.sum(xp.sin(y)) / max(len(y), 1)
    cosine = xp.sum(xp.cos(y)) / max(len(y), 1)
    length = xp.clip(xp.hypot(sine, cosine), 0.02, 0.9999)
    low = 2 * length + length**3 + 5 * length**5 / 6
    high = 1 / (length**3 - 4 * length**2 + 3 * length)
    kappa = xp.where(
        length < 0.53,
        low,
        xp.where(length < 0.85, -0.4 + 1.39 * length + 0.43 / (1 - length), high),
    )
    return {"loc": xp.arctan2(sine, cosine), "kappa": kappa}


def _ratio_slope(kappa: Array) -> Array:
    """A'(κ), A = I₁/I₀: the variance of cos(Y − loc)."""
    return jax.jvp(special.bessel_ratio, (kappa,), (jnp.ones_like(kappa),))[1]


von_mises = Family(
    "von Mises",
    {"loc": free, "kappa": positive},
    Law(
        log_prob=_log_prob,
        log_cdf=_log_cdf,
        log_sf=_log_sf,
        log_tails=_log_tails,
        quantile=_quantile,
        sample=_sample,
        mean=lambda p: p["loc"],
        variance=lambda p: 1 - special.bessel_ratio(p["kappa"]),
        support=lambda p: (p["loc"] - math.pi, p["loc"] + math.pi),
        guess=_guess,
        information=lambda p: {
            ("loc", "loc"): p["kappa"] * special.bessel_ratio(p["kappa"]),
            ("kappa", "kappa"): _ratio_slope(p["kappa"]),
        },
    ),
)
document(
    von_mises,
    """The von Mises distribution of an angle in radians, loc and concentration kappa: scipy
    ``vonmises(kappa, loc)``, R circular ``dvonmises(mu, kappa)``. The density has period 2π.
    The distribution function counts from loc − π over one turn, and quantiles lie there;
    samples lie in [−π, π). The mean is the mean direction, the variance the circular one, 1 −
    I₁(kappa)/I₀(kappa).
    """,
)
