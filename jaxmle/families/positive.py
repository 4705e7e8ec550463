"""Families on (0, ∞): exponential, gamma, inverse gamma, Weibull, lognormal, inverse Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

import jaxmle.special as special
from jaxmle._types import Array, NamedParams, Namespace, Tree
from jaxmle.families.family import Family, Law, by_quantile, document, edge, masked
from jaxmle.families.inverse import MAX_LOG_OF_A_SCALE, solve
from jaxmle.families.moments import moments, positive_moments, values
from jaxmle.parameters.constraints import free, positive
from jaxmle.special.gamma import EULER_GAMMA
from jaxmle.special.incomplete_gamma import gamma_tail
from jaxmle.special.normal import log_mills
from jaxmle.special.stirling import HALF_LOG_2PI

Pointwise = Callable[[NamedParams, Array], Array]

PI_SQUARED = math.pi**2


def half_line(
    name: str,
    constraints: NamedParams,
    log_prob: Pointwise,
    log_cdf: Pointwise,
    log_sf: Pointwise,
    centre: Callable[[NamedParams], Array],
    at_zero: Callable[[NamedParams], Array] = lambda p: -jnp.inf * jnp.ones(()),
    quantile: Pointwise | None = None,
    sample: Callable[[NamedParams, Array, tuple[int, ...]], Array] | None = None,
    **rest: Tree,
) -> Family:
    """The family with functions given for y in (0, ∞): −inf or 0 elsewhere, and the log density at
    0 itself from ``at_zero``.

    ``centre`` gives a value at which every function is well behaved for these parameters: values
    outside are evaluated there, and the result is discarded. The value 1 would not do: with a
    Weibull scale of 1e7 hours it is as far out as 1e14 hours.
    """

    def on(function: Pointwise, below: float, above: float) -> Pointwise:
        def of(p: NamedParams, y: Array) -> Array:
            spare = jax.lax.stop_gradient(centre(p))
            return masked(y, 0.0, jnp.inf, spare, lambda y: function(p, y), below, above)

        return of

    density = on(log_prob, -jnp.inf, -jnp.inf)
    inverse = quantile or partial(solve, log_prob, log_cdf, log_sf, "positive")
    law = Law(
        log_prob=lambda p, y: jnp.where(y == 0, at_zero(p), density(p, y)),
        log_cdf=on(log_cdf, -jnp.inf, 0.0),
        log_sf=on(log_sf, 0.0, -jnp.inf),
        quantile=inverse,
        sample=sample or by_quantile(inverse),
        support=lambda p: (0.0, jnp.inf),
        **rest,
    )
    return Family(name, constraints, law)


def finite_above(order: float, shape: Array, moment: Callable[[Array], Array]) -> Array:
    """A moment that is infinite unless the shape exceeds ``order``."""
    fine = shape > order
    return jnp.where(fine, moment(jnp.where(fine, shape, order + 1.0)), jnp.inf)


# ---------------------------------------------------------------- exponential


def _exponential_guess(y: Array, known: NamedParams) -> NamedParams:
    mean, _, _ = positive_moments(y)
    return {"rate": 1 / mean}


exponential = half_line(
    "exponential",
    {"rate": positive},
    log_prob=lambda p, y: jnp.log(p["rate"]) - p["rate"] * y,
    log_cdf=lambda p, y: special.log_cloglog(jnp.log(p["rate"]) + jnp.log(y)),
    log_sf=lambda p, y: -p["rate"] * y,
    centre=lambda p: 1 / p["rate"],
    at_zero=lambda p: jnp.log(p["rate"]),
    quantile=lambda p, q: -jnp.log1p(-q) / p["rate"],
    mean=lambda p: 1 / p["rate"],
    variance=lambda p: 1 / p["rate"] ** 2,
    guess=_exponential_guess,
    information=lambda p: {("rate", "rate"): 1 / p["rate"] ** 2},
)
document(
    exponential,
    """The exponential distribution, rate (1/mean): scipy ``expon(scale=1/rate)``, R
    ``dexp(rate)``.
    """,
)


# ---------------------------------------------------------------- gamma, inverse gamma


def _shape_from_logs(log_of_mean: Array, mean_of_log: Array, xp: Namespace) -> Array:
    # Within 1.5% of the maximum for every s = log ȳ − mean log y: Minka 2002, Estimating a Gamma
    # distribution, eq. (11) and after.
    s = xp.maximum(log_of_mean - mean_of_log, 1e-4)
    return (3 - s + xp.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)


def _gamma_guess(y: Array, known: NamedParams) -> NamedParams:
    mean, _, xp = positive_moments(y)
    y, _ = values(y)
    logs = xp.log(xp.where(y > 0, y, mean))
    shape = _shape_from_logs(xp.log(mean), xp.sum(logs) / max(len(y), 1), xp)
    return {"shape": shape, "rate": shape / mean}


def _inverse_gamma_guess(y: Array, known: NamedParams) -> NamedParams:
    mean, _, xp = positive_moments(y)
    y, _ = values(y)
    other = _gamma_guess(1 / xp.where(y > 0, y, mean), known)
    return {"shape": other["shape"], "scale": other["rate"]}


def _gamma_log_prob(shape: Array, unit: Array, log_x: Array, y: Array) -> Array:
    """log of x^shape e⁻ˣ/(Γ(shape) y): a Poisson probability at a count of ``shape``, which keeps
    its digits at large shapes.

    x is y or 1/y times ``unit``; where x/unit² overflows, the density is 0.
    """
    most = 0.95 * jnp.log(jnp.finfo(y.dtype).max)
    far = jax.lax.stop_gradient(log_x - 2 * jnp.minimum(jnp.log(unit), 0.0)) > most
    value = special.poisson_logpmf(shape, jnp.where(far, 0.0, log_x))
    return jnp.where(far, -jnp.inf, jnp.log(shape) - jnp.log(y) + value)


def _log_rate_times(p: NamedParams, y: Array) -> Array:
    return jnp.log(p["rate"]) + jnp.log(y)


def _log_scale_over(p: NamedParams, y: Array) -> Array:
    return jnp.log(p["scale"]) - jnp.log(y)


def _gamma_sample(p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.exp(jax.random.loggamma(key, p["shape"], shape)) / p["rate"]


gamma = half_line(
    "gamma",
    {"shape": positive, "rate": positive},
    log_prob=lambda p, y: _gamma_log_prob(p["shape"], p["rate"], _log_rate_times(p, y), y),
    log_cdf=lambda p, y: gamma_tail(p["shape"], _log_rate_times(p, y), lower=True),
    log_sf=lambda p, y: gamma_tail(p["shape"], _log_rate_times(p, y), lower=False),
    centre=lambda p: p["shape"] / p["rate"],
    at_zero=lambda p: edge(p["shape"] - 1, jnp.log(p["rate"])),
    sample=_gamma_sample,
    mean=lambda p: p["shape"] / p["rate"],
    variance=lambda p: p["shape"] / p["rate"] ** 2,
    guess=_gamma_guess,
    information=lambda p: {
        ("shape", "shape"): special.trigamma(p["shape"]),
        ("rate", "shape"): -1 / p["rate"],
        ("rate", "rate"): p["shape"] / p["rate"] ** 2,
    },
)
document(
    gamma,
    """The gamma distribution, shape and rate: scipy ``gamma(shape, scale=1/rate)``, R
    ``dgamma(shape, rate)``; mean shape/rate.
    """,
)


inverse_gamma = half_line(
    "inverse gamma",
    {"shape": positive, "scale": positive},
    log_prob=lambda p, y: _gamma_log_prob(p["shape"], p["scale"], _log_scale_over(p, y), y),
    log_cdf=lambda p, y: gamma_tail(p["shape"], _log_scale_over(p, y), lower=False),
    log_sf=lambda p, y: gamma_tail(p["shape"], _log_scale_over(p, y), lower=True),
    centre=lambda p: p["scale"] / p["shape"],
    sample=lambda p, key, shape: p["scale"] * jnp.exp(-jax.random.loggamma(key, p["shape"], shape)),
    mean=lambda p: p["scale"] * finite_above(1.0, p["shape"], lambda a: 1 / (a - 1)),
    variance=lambda p: (
        p["scale"] ** 2 * finite_above(2.0, p["shape"], lambda a: 1 / ((a - 1) ** 2 * (a - 2)))
    ),
    guess=_inverse_gamma_guess,
    information=lambda p: {
        ("shape", "shape"): special.trigamma(p["shape"]),
        ("scale", "shape"): -1 / p["scale"],
        ("scale", "scale"): p["shape"] / p["scale"] ** 2,
    },
)
document(
    inverse_gamma,
    """The distribution of 1/X, X gamma of this shape and of rate ``scale``: scipy
    ``invgamma(shape, scale=scale)``, R invgamma ``dinvgamma(shape, rate=scale)``.
    """,
)


# ---------------------------------------------------------------- Weibull


def _weibull_log_ratio(p: NamedParams, y: Array) -> Array:
    return p["shape"] * (jnp.log(y) - jnp.log(p["scale"]))


def _weibull_log_prob(p: NamedParams, y: Array) -> Array:
    z = _weibull_log_ratio(p, y)
    return jnp.log(p["shape"]) - jnp.log(y) + z - special.held_exp(z)


def _weibull_guess(y: Array, known: NamedParams) -> NamedParams:
    """−log of a Weibull variable is Gumbel of scale 1/shape: the moments of the logs."""
    mean, _, xp = positive_moments(y)
    y, _ = values(y)
    centre, variance, _ = moments(xp.log(xp.where(y > 0, y, mean)))
    shape = xp.clip(math.pi / xp.sqrt(6 * variance), 0.05, 1e3)
    return {"shape": shape, "scale": xp.exp(centre + EULER_GAMMA / shape)}


def _weibull_moment(p: NamedParams, order: float) -> Array:
    return jnp.exp(special.gammaln(1 + order / p["shape"]))


weibull = half_line(
    "Weibull",
    {"shape": positive, "scale": positive},
    log_prob=_weibull_log_prob,
    log_cdf=lambda p, y: special.log_cloglog(_weibull_log_ratio(p, y)),
    log_sf=lambda p, y: -special.held_exp(_weibull_log_ratio(p, y)),
    centre=lambda p: p["scale"],
    at_zero=lambda p: edge(p["shape"] - 1, -jnp.log(p["scale"])),
    quantile=lambda p, q: p["scale"] * jnp.exp(jnp.log(-jnp.log1p(-q)) / p["shape"]),
    mean=lambda p: p["scale"] * _weibull_moment(p, 1.0),
    variance=lambda p: p["scale"] ** 2 * (_weibull_moment(p, 2.0) - _weibull_moment(p, 1.0) ** 2),
    guess=_weibull_guess,
    information=lambda p: {
        ("shape", "shape"): (PI_SQUARED / 6 + (1 - EULER_GAMMA) ** 2) / p["shape"] ** 2,
        ("scale", "shape"): (EULER_GAMMA - 1) / p["scale"],
        ("scale", "scale"): (p["shape"] / p["scale"]) ** 2,
    },
)
document(
    weibull,
    """The Weibull distribution, shape and scale: scipy ``weibull_min(shape, scale=scale)``, R
    ``dweibull(shape, scale)``.
    """,
)


# ---------------------------------------------------------------- lognormal


def _lognormal_z(p: NamedParams, y: Array) -> Array:
    return (jnp.log(y) - p["meanlog"]) / p["sdlog"]


def _lognormal_guess(y: Array, known: NamedParams) -> NamedParams:
    mean, _, xp = positive_moments(y)
    y, _ = values(y)
    centre, variance, _ = moments(xp.log(xp.where(y > 0, y, mean)))
    return {"meanlog": centre, "sdlog": xp.sqrt(variance)}


lognormal = half_line(
    "lognormal",
    {"meanlog": free, "sdlog": positive},
    log_prob=lambda p, y: (
        -0.5 * _lognormal_z(p, y) ** 2 - HALF_LOG_2PI - jnp.log(p["sdlog"]) - jnp.log(y)
    ),
    log_cdf=lambda p, y: special.log_ndtr(_lognormal_z(p, y)),
    log_sf=lambda p, y: special.log_ndtr(-_lognormal_z(p, y)),
    centre=lambda p: jnp.exp(jnp.clip(p["meanlog"], -MAX_LOG_OF_A_SCALE, MAX_LOG_OF_A_SCALE)),
    quantile=lambda p, q: jnp.exp(p["meanlog"] + p["sdlog"] * special.ndtri(q)),
    sample=lambda p, key, shape: jnp.exp(p["meanlog"] + p["sdlog"] * jax.random.normal(key, shape)),
    mean=lambda p: jnp.exp(p["meanlog"] + 0.5 * p["sdlog"] ** 2),
    variance=lambda p: jnp.expm1(p["sdlog"] ** 2) * jnp.exp(2 * p["meanlog"] + p["sdlog"] ** 2),
    guess=_lognormal_guess,
    information=lambda p: {
        ("meanlog", "meanlog"): 1 / p["sdlog"] ** 2,
        ("sdlog", "sdlog"): 2 / p["sdlog"] ** 2,
    },
)
document(
    lognormal,
    """The lognormal distribution, mean and standard deviation of log Y: scipy ``lognorm(s=sdlog,
    scale=exp(meanlog))``, R ``dlnorm(meanlog, sdlog)``.
    """,
)


# ---------------------------------------------------------------- inverse Gaussian


def _inverse_gaussian_parts(p: NamedParams, y: Array) -> tuple[Array, Array]:
    """r = √(λ/y)(y/μ − 1) and s = √(λ/y)(y/μ + 1): F = Φ(r) + e^{2λ/μ} Φ(−s), and s² = r² +
    4λ/μ.
    """
    over = 1 / jnp.sqrt(y)
    ratio = y / p["mean"]
    root = jnp.sqrt(p["shape"])
    return root * ((ratio - 1) * over), root * ((ratio + 1) * over)


def _inverse_gaussian_log_prob(p: NamedParams, y: Array) -> Array:
    r, _ = _inverse_gaussian_parts(p, y)
    return 0.5 * jnp.log(p["shape"]) - 1.5 * jnp.log(y) - HALF_LOG_2PI - 0.5 * r * r


def _inverse_gaussian_log_cdf(p: NamedParams, y: Array) -> Array:
    r, s = _inverse_gaussian_parts(p, y)
    return jnp.logaddexp(special.log_ndtr(r), log_mills(s) - 0.5 * r * r)


def _inverse_gaussian_log_sf(p: NamedParams, y: Array) -> Array:
    # This difference loses a digit for each factor of ten by which y exceeds the mean.
    r, s = _inverse_gaussian_parts(p, y)
    first = special.log_ndtr(-r)
    second = log_mills(s) - 0.5 * r * r
    return first + special.log1mexp(jnp.minimum(second - first, -jnp.finfo(y.dtype).eps))


def _within_reach(function: Pointwise, below: float, above: float) -> Pointwise:
    """``function`` where the squares of r and its derivatives are finite; beyond that, its value at
    0 or ∞.
    """

    def of(p: NamedParams, y: Array) -> Array:
        mean, shape = jax.lax.stop_gradient((p["mean"], p["shape"]))
        far = _inverse_gaussian_parts({"mean": mean, "shape": shape}, y)[1]
        most = 1e-4 * jnp.sqrt(jnp.finfo(y.dtype).max)
        near = far / jnp.minimum(jnp.minimum(1.0, mean), shape) < most
        outside = ~near & ~jnp.isnan(y)
        value = function(p, jnp.where(outside, mean, y))
        return jnp.where(outside, jnp.where(y < mean, below, above), value)

    return of


def _inverse_gaussian_sample(p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
    # Michael, Schucany & Haas 1976, The American Statistician 30. The smaller root as mean/(1 + w +
    # √(w² + 2w)): no cancellation.
    normal_key, uniform_key = jax.random.split(key)
    w = p["mean"] * jax.random.normal(normal_key, shape) ** 2 / (2 * p["shape"])
    smaller = 1 / (1 + w + jnp.sqrt(w * (w + 2)))
    return p["mean"] * jnp.where(
        jax.random.uniform(uniform_key, shape) * (1 + smaller) <= 1, smaller, 1 / smaller
    )


def _inverse_gaussian_guess(y: Array, known: NamedParams) -> NamedParams:
    mean, variance, _ = positive_moments(y)
    return {"mean": mean, "shape": mean**3 / variance}


inverse_gaussian = half_line(
    "inverse Gaussian",
    {"mean": positive, "shape": positive},
    log_prob=_within_reach(_inverse_gaussian_log_prob, -jnp.inf, -jnp.inf),
    log_cdf=_within_reach(_inverse_gaussian_log_cdf, -jnp.inf, 0.0),
    log_sf=_within_reach(_inverse_gaussian_log_sf, 0.0, -jnp.inf),
    centre=lambda p: p["mean"],
    sample=_inverse_gaussian_sample,
    mean=lambda p: p["mean"],
    variance=lambda p: p["mean"] ** 3 / p["shape"],
    guess=_inverse_gaussian_guess,
    information=lambda p: {
        ("mean", "mean"): p["shape"] / p["mean"] ** 3,
        ("shape", "shape"): 0.5 / p["shape"] ** 2,
    },
)
document(
    inverse_gaussian,
    """The inverse Gaussian (Wald) distribution, mean μ and shape λ, variance μ³/λ: scipy
    ``invgauss(mean/shape, scale=shape)``, R statmod ``dinvgauss(mean, shape)``.
    """,
)
