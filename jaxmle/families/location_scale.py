"""Families of loc + scale·Z on the real line: normal, Student's t, Laplace, logistic, Cauchy,
Gumbel, skew-normal, each given by its standard density.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

import jaxmle.special as special
from jaxmle._types import Array, NamedParams, Tree
from jaxmle.families.family import Family, Law, by_quantile, document
from jaxmle.families.inverse import solve
from jaxmle.families.moments import moments, quantiles
from jaxmle.families.skew import held, skew_log_cdf, skew_log_sf
from jaxmle.parameters.constraints import free, positive
from jaxmle.special.gamma import EULER_GAMMA
from jaxmle.special.stirling import HALF_LOG_2PI
from jaxmle.special.student import scaled_log, shrunk, student_t_df_information

LOG_2 = math.log(2)
LOG_PI = math.log(math.pi)
PI_SQUARED = math.pi**2


@dataclass(frozen=True)
class Standard:
    """The distribution of Z = (Y − loc)/scale, as functions of (p, z); ``log_sf`` is None if Z and
    −Z have the same distribution.

    ``heavy`` if the log density falls like log |z|, so that a value may lie 1e100 scales out.
    ``information`` gives the entries (loc, loc), (loc, scale), (scale, scale) for scale 1, and
    ``shape_information`` those of further parameters.
    """

    log_prob: Callable[[NamedParams, Array], Array]
    log_cdf: Callable[[NamedParams, Array], Array]
    log_sf: Callable[[NamedParams, Array], Array] | None = None
    quantile: Callable[[NamedParams, Array], Array] | None = None
    sample: Callable[[NamedParams, Array, tuple[int, ...]], Array] | None = None
    mean: Callable[[NamedParams], Array] = lambda p: jnp.zeros(())
    variance: Callable[[NamedParams], Array] = lambda p: jnp.ones(())
    heavy: bool = False
    information: Tree = None
    shape_information: Callable[[NamedParams], dict[tuple[str, str], Array]] = lambda p: {}


# Of the log of the largest number: 1e149 in float64, whose square is finite.
LOG_SHARE_OF_LARGEST = 0.485


def _standardised(
    p: NamedParams,
    y: Array,
    inside: Callable[[Array], Array],
    below: float,
    above: float,
    *,
    heavy: bool,
) -> Array:
    """``inside`` at z = (y − loc)/scale; constants at ±∞, and also beyond 1e149 scales.

    A light tail also ends where z/scale is that large: there the second derivatives in the scale,
    z²/scale², overflow.
    """
    largest_argument = LOG_SHARE_OF_LARGEST * jnp.log(jnp.finfo(jnp.result_type(float)).max)
    distance = jax.lax.stop_gradient(jnp.where(jnp.isinf(y), p["loc"], y) - p["loc"])
    log_scale = jnp.log(jax.lax.stop_gradient(p["scale"]))
    reach = log_scale + largest_argument + (0.0 if heavy else jnp.minimum(log_scale, 0.0))
    outside = jnp.isinf(y) | (jnp.log(jnp.abs(distance)) > reach)
    z = (jnp.where(outside, p["loc"], y) - p["loc"]) / p["scale"]
    return jnp.where(outside, jnp.where(y < p["loc"], below, above), inside(z))


def _at_standardised(
    heavy: bool,
    function: Callable[[NamedParams, Array], Array],
    below: float,
    above: float,
) -> Callable[[NamedParams, Array], Array]:
    """``function`` of (p, z) as one of (p, y)."""
    return lambda p, y: _standardised(p, y, lambda z: function(p, z), below, above, heavy=heavy)


def _symmetric_log_tails(standard: Standard, p: NamedParams, y: Array) -> tuple[Array, Array]:
    """log F at z and at −z, where Z and −Z have the same distribution."""
    standardised = partial(_at_standardised, standard.heavy)

    def of_side(side: Array) -> Array:
        return standardised(lambda p, z: standard.log_cdf(p, side * z), 0.0, 0.0)(p, y)

    both = jax.vmap(of_side)(jnp.array([1, -1]))
    outer = standardised(lambda p, z: jnp.zeros_like(z), -1.0, 1.0)(p, y)
    return (
        jnp.where(outer < 0, -jnp.inf, jnp.where(outer > 0, 0.0, both[0])),
        jnp.where(outer < 0, 0.0, jnp.where(outer > 0, -jnp.inf, both[1])),
    )


def _information(standard: Standard, p: NamedParams) -> dict[tuple[str, str], Array]:
    """The expected information of one observation, entry by entry."""
    loc, cross, scale = standard.information(p)
    squared = p["scale"] ** 2
    entries = {
        ("loc", "loc"): loc / squared,
        ("loc", "scale"): cross / squared,
        ("scale", "scale"): scale / squared,
    }
    return entries | standard.shape_information(p)


def location_scale(
    name: str,
    standard: Standard,
    guess: Callable[[Array, NamedParams], NamedParams],
    **shapes: Tree,
) -> Family:
    """The family of loc + scale·Z; ``shapes`` are the constraints of further parameters."""
    sf = standard.log_sf or (lambda p, z: standard.log_cdf(p, -z))
    inverse = standard.quantile or partial(solve, standard.log_prob, standard.log_cdf, sf, "line")

    standardised = partial(_at_standardised, standard.heavy)
    log_density = standardised(standard.log_prob, -jnp.inf, -jnp.inf)

    def log_prob(p: NamedParams, y: Array) -> Array:
        return log_density(p, y) - jnp.log(p["scale"])

    def quantile(p: NamedParams, q: Array) -> Array:
        return p["loc"] + p["scale"] * inverse({key: p[key] for key in shapes}, q)

    def sample(p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
        draw = standard.sample or by_quantile(inverse)
        return p["loc"] + p["scale"] * draw({key: p[key] for key in shapes}, key, shape)

    law = Law(
        log_prob=log_prob,
        log_cdf=standardised(standard.log_cdf, -jnp.inf, 0.0),
        log_sf=standardised(sf, 0.0, -jnp.inf),
        log_tails=None if standard.log_sf else partial(_symmetric_log_tails, standard),
        quantile=quantile,
        sample=sample,
        mean=lambda p: p["loc"] + p["scale"] * standard.mean(p),
        variance=lambda p: p["scale"] ** 2 * standard.variance(p),
        support=lambda p: (-jnp.inf, jnp.inf),
        guess=guess,
        information=standard.information and partial(_information, standard),
    )
    return Family(name, {"loc": free, "scale": positive, **shapes}, law)


def _by_moments(factor: float) -> Callable[[Array, NamedParams], NamedParams]:
    """loc = mean, scale = factor · standard deviation."""

    def guess(y: Array, known: NamedParams) -> NamedParams:
        mean, variance, xp = moments(y)
        return {"loc": mean, "scale": factor * xp.sqrt(variance)}

    return guess


def _by_quartiles(factor: float) -> Callable[[Array, NamedParams], NamedParams]:
    """loc = median, scale = factor · interquartile range, or the standard deviation if half of the
    values are equal.
    """

    def guess(y: Array, known: NamedParams) -> NamedParams:
        (_, variance, xp) = moments(y)
        (low, median, high) = quantiles(y, 0.25, 0.5, 0.75)
        return {
            "loc": median,
            "scale": xp.where(high > low, factor * (high - low), xp.sqrt(variance)),
        }

    return guess


# ---------------------------------------------------------------- normal

normal = location_scale(
    "normal",
    Standard(
        log_prob=lambda p, z: -0.5 * z * z - HALF_LOG_2PI,
        log_cdf=lambda p, z: special.log_ndtr(z),
        quantile=lambda p, q: special.ndtri(q),
        sample=lambda p, key, shape: jax.random.normal(key, shape),
        information=lambda p: (1.0, 0.0, 2.0),
    ),
    _by_moments(1.0),
)
document(
    normal,
    """The normal distribution, loc and scale: scipy ``norm(loc, scale)``, R ``dnorm(mean, sd)``.
    """,
)


# ---------------------------------------------------------------- Student's t


def _student_information(p: NamedParams) -> tuple[Array, float, Array]:
    # Lange, Little & Taylor 1989, Journal of the American Statistical Association 84, appendix B.
    df = p["df"]
    return (df + 1) / (df + 3), 0.0, 2 * df / (df + 3)


def _student_df_information(p: NamedParams) -> dict[tuple[str, str], Array]:
    df = p["df"]
    return {
        ("df", "df"): student_t_df_information(df),
        ("df", "scale"): -2 / (p["scale"] * (df + 1) * (df + 3)),
    }


def _student_variance(p: NamedParams) -> Array:
    df = p["df"]
    return jnp.where(
        df > 2, df / jnp.where(df > 2, df - 2, 1.0), jnp.where(df > 1, jnp.inf, jnp.nan)
    )


def _student_guess(y: Array, known: NamedParams) -> NamedParams:
    """df from the sample's excess kurtosis 6/(df − 4), between 4.5 and 30; the scale from the
    quartiles.
    """
    mean, variance, xp = moments(y)
    excess = xp.mean((y - mean) ** 4) / variance**2 - 3
    return _by_quartiles(0.72)(y, known) | {
        "df": xp.clip(4 + 6 / xp.maximum(excess, 1e-3), 4.5, 30.0)
    }


student_t = location_scale(
    "Student t",
    Standard(
        log_prob=lambda p, z: special.student_t_logpdf(z, p["df"]),
        log_cdf=lambda p, z: special.student_t_logcdf(z, p["df"]),
        heavy=True,
        sample=lambda p, key, shape: jax.random.t(key, p["df"], shape),
        mean=lambda p: jnp.where(p["df"] > 1, 0.0, jnp.nan),
        variance=_student_variance,
        information=_student_information,
        shape_information=_student_df_information,
    ),
    _student_guess,
    df=positive,
)
document(
    student_t,
    """Student's t with df degrees of freedom, loc and scale (not the standard deviation): scipy
    ``t(df, loc, scale)``; R ``dt((y - loc)/scale, df)/scale``.
    """,
)


# ---------------------------------------------------------------- Laplace


def _laplace_log_cdf(p: NamedParams, z: Array) -> Array:
    return jnp.where(z < 0, z - LOG_2, jnp.log1p(-0.5 * jnp.exp(-jnp.where(z < 0, 0.0, z))))


def _laplace_guess(y: Array, known: NamedParams) -> NamedParams:
    """The maximum itself: the median and the mean absolute deviation from it."""
    (_, variance, xp) = moments(y)
    (median,) = quantiles(y, 0.5)
    deviation = xp.mean(xp.abs(y - median))
    return {"loc": median, "scale": xp.where(deviation > 0, deviation, xp.sqrt(variance))}


laplace = location_scale(
    "Laplace",
    Standard(
        log_prob=lambda p, z: -z * jnp.sign(z) - LOG_2,  # |z| with the slope 0 at 0
        log_cdf=_laplace_log_cdf,
        quantile=lambda p, q: jnp.where(q < 0.5, jnp.log(2 * q), -jnp.log(2 * (1 - q))),
        variance=lambda p: 2.0 * jnp.ones(()),
        information=lambda p: (1.0, 0.0, 1.0),
    ),
    _laplace_guess,
)
document(
    laplace,
    """The Laplace (double exponential) distribution, loc and scale: scipy ``laplace(loc, scale)``.
    Its log density has a corner at loc and no curvature elsewhere: a fit ends at a kink, the
    median, with standard errors from the expected information, scale/√n. At y = loc the
    derivative in loc is 0, the mean of those on either side, −1/scale and 1/scale; of log_cdf
    and log_sf it is f/F, and the second derivative that from above.
    """,
)


# ---------------------------------------------------------------- logistic, Cauchy

logistic = location_scale(
    "logistic",
    Standard(
        log_prob=lambda p, z: special.log_sigmoid(z) + special.log_sigmoid(-z),
        log_cdf=lambda p, z: special.log_sigmoid(z),
        quantile=lambda p, q: jnp.log(q) - jnp.log1p(-q),
        variance=lambda p: PI_SQUARED / 3 * jnp.ones(()),
        information=lambda p: (1 / 3, 0.0, (3 + PI_SQUARED) / 9),
    ),
    _by_moments(math.sqrt(3) / math.pi),
)
document(
    logistic,
    """The logistic distribution, loc and scale: scipy ``logistic(loc, scale)``, R
    ``dlogis(location, scale)``.
    """,
)


@jax.custom_jvp
def _cauchy_log_cdf(z: Array) -> Array:
    # atan2(1, −z)/π is F itself and keeps its digits in the lower tail; the upper half is 1 −
    # F(−z).
    low = jnp.arctan2(jnp.ones_like(z), jnp.abs(z)) / math.pi
    return jnp.where(z < 0, jnp.log(low), jnp.log1p(-low))


@jax.custom_jvp
def _cauchy_hazard(z: Array) -> Array:
    """f/F; its log has the slope −2z/(1 + z²) − f/F."""
    low = jnp.arctan2(jnp.ones_like(z), jnp.abs(z)) / math.pi
    return shrunk(z, jnp.ones_like(z))[0] / (math.pi * jnp.where(z < 0, low, 1 - low))


@_cauchy_log_cdf.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _cauchy_log_cdf(*primals), _cauchy_hazard(*primals) * tangents[0]


@_cauchy_hazard.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,) = primals
    hazard = _cauchy_hazard(*primals)
    return hazard, hazard * (-2 * shrunk(z, jnp.ones_like(z))[1] - hazard) * tangents[0]


cauchy = location_scale(
    "Cauchy",
    Standard(
        log_prob=lambda p, z: -scaled_log(z, jnp.ones_like(z)) - LOG_PI,
        log_cdf=lambda p, z: _cauchy_log_cdf(z),
        heavy=True,
        quantile=lambda p, q: (
            jnp.where(q < 0.5, -1.0, 1.0) / jnp.tan(math.pi * jnp.minimum(q, 1 - q))
        ),
        mean=lambda p: jnp.nan * jnp.ones(()),
        variance=lambda p: jnp.nan * jnp.ones(()),
        information=lambda p: (0.5, 0.0, 0.5),
    ),
    _by_quartiles(0.5),
)
document(
    cauchy,
    """The Cauchy distribution, loc (its median) and scale (half its interquartile range): scipy
    ``cauchy(loc, scale)``, R ``dcauchy(location, scale)``.
    """,
)


# ---------------------------------------------------------------- Gumbel


def _gumbel_guess(y: Array, known: NamedParams) -> NamedParams:
    mean, variance, xp = moments(y)
    scale = xp.sqrt(6 * variance) / math.pi
    return {"loc": mean - EULER_GAMMA * scale, "scale": scale}


gumbel = location_scale(
    "Gumbel",
    Standard(
        log_prob=lambda p, z: -z - special.held_exp(-z),
        log_cdf=lambda p, z: -special.held_exp(-z),
        log_sf=lambda p, z: special.log_cloglog(-z),
        quantile=lambda p, q: -jnp.log(-jnp.log(q)),
        mean=lambda p: EULER_GAMMA * jnp.ones(()),
        variance=lambda p: PI_SQUARED / 6 * jnp.ones(()),
        information=lambda p: (1.0, EULER_GAMMA - 1, PI_SQUARED / 6 + (1 - EULER_GAMMA) ** 2),
    ),
    _gumbel_guess,
)
document(
    gumbel,
    """The Gumbel distribution of maxima, loc (its mode) and scale: scipy ``gumbel_r(loc, scale)``,
    R evd ``dgumbel(loc, scale)``. For minima negate y.
    """,
)


# ---------------------------------------------------------------- skew-normal


def _skew_log_prob(p: NamedParams, z: Array) -> Array:
    return LOG_2 - 0.5 * z * z - HALF_LOG_2PI + special.log_ndtr(held(p["shape"] * z))


def _skew_delta(p: NamedParams) -> Array:
    return p["shape"] / jnp.sqrt(1 + p["shape"] ** 2)


def _skew_sample(p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
    # δ|U| + √(1 − δ²) V, U and V standard normal: Azzalini 1986, Statistica 46, section 2.
    half, symmetric = jax.random.normal(key, (2, *shape))
    return _skew_delta(p) * jnp.abs(half) + symmetric / jnp.sqrt(1 + p["shape"] ** 2)


def _skew_guess(y: Array, known: NamedParams) -> NamedParams:
    """The method of moments, with the skewness kept within ±0.95 of the family's limit, and away
    from 0, where the information is singular.
    """
    mean, variance, xp = moments(y)
    skewness = xp.mean((y - mean) ** 3) / variance**1.5
    size = xp.clip(xp.abs(skewness), 0.05, 0.9) ** (2 / 3)
    delta = xp.where(skewness < 0, -1.0, 1.0) * xp.sqrt(
        math.pi / 2 * size / (size + ((4 - math.pi) / 2) ** (2 / 3))
    )
    scale = xp.sqrt(variance / (1 - 2 / math.pi * delta**2))
    return {
        "loc": mean - scale * delta * math.sqrt(2 / math.pi),
        "scale": scale,
        "shape": delta / xp.sqrt(1 - delta**2),
    }


skew_normal = location_scale(
    "skew-normal",
    Standard(
        log_prob=_skew_log_prob,
        log_cdf=lambda p, z: skew_log_cdf(z, p["shape"]),
        log_sf=lambda p, z: skew_log_sf(z, p["shape"]),
        sample=_skew_sample,
        mean=lambda p: _skew_delta(p) * math.sqrt(2 / math.pi),
        variance=lambda p: 1 - 2 / math.pi * _skew_delta(p) ** 2,
    ),
    _skew_guess,
    shape=free,
)
document(
    skew_normal,
    """Azzalini's skew-normal 2φ(z)Φ(shape·z)/scale, z = (y − loc)/scale: scipy ``skewnorm(shape,
    loc, scale)``, R sn ``dsn(xi, omega, alpha)``. Its information is singular at shape 0
    (Azzalini 1985, Scandinavian Journal of Statistics 12), and its likelihood may grow as
    |shape| → ∞.
    """,
)
