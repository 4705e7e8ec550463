"""Families of extremes other than the Gumbel: generalised extreme value, generalised Pareto,
Pareto. Smooth through shape 0.

Both generalised families rest on w = log(1 + ξz)/ξ, which is z at ξ = 0: a Gumbel or exponential
variable. Its factors log(1 + t)/t and (eᵗ − 1)/t are summed as series near t = 0, so that the value
and its derivatives keep their digits there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp

import jaxmle.special as special
from jaxmle._types import Array, NamedParams
from jaxmle.families.family import Family, Law, by_quantile, document
from jaxmle.families.location_scale import LOG_SHARE_OF_LARGEST
from jaxmle.families.moments import moments, values
from jaxmle.families.positive import finite_above
from jaxmle.parameters.constraints import free, positive
from jaxmle.special.gamma import EULER_GAMMA
from jaxmle.special.stirling import ATANH_SERIES

# ζ(k), k = 2, …, 26: NIST DLMF 25.6.
ZETA = (
    1.6449340668482264, 1.2020569031595942, 1.0823232337111381, 1.03692775514337,
    1.0173430619844492, 1.008349277381923, 1.0040773561979444, 1.0020083928260821,
    1.000994575127818, 1.0004941886041194, 1.000246086553308, 1.0001227133475785,
    1.0000612481350588, 1.000030588236307, 1.0000152822594086, 1.0000076371976379,
    1.000003817293265, 1.0000019082127165, 1.0000009539620338, 1.0000004769329869,
    1.0000002384505027, 1.000000119219926, 1.000000059608189, 1.0000000298035034,
    1.0000000149015549,
)  # fmt: skip
MIN_RATIO_BESIDE_ONE = 1e18  # beyond it 1 + ratio equals the ratio, in either precision


def polynomial(t: Array, coefficients: Iterable[float]) -> Array:
    """Σ cₖ tᵏ."""
    return _polynomial(t, tuple(coefficients))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _polynomial(t: Array, coefficients: tuple[float, ...]) -> Array:
    total = jnp.zeros_like(t)
    for c in reversed(coefficients):
        total = total * t + c
    return total


@_polynomial.defjvp
def _(
    coefficients: tuple[float, ...], primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    """Σ k cₖ tᵏ⁻¹ is a polynomial too: a third of the operations that differentiating each step
    creates, which XLA takes ten seconds to simplify.
    """
    (t,), (dt,) = primals, tangents
    return _polynomial(t, coefficients), _polynomial(t, _slopes(coefficients)) * dt


def _slopes(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(k * c for k, c in enumerate(coefficients))[1:]


def _parted(t: Array) -> tuple[Array, Array, Array, Array]:
    """Whether t is near 0; t if it is, else 0; u = t/(2 + t) there, for log(1 + t) = 2 atanh u; t
    if it is not, else 1.
    """
    near = jnp.abs(t) < 0.5
    small = jnp.where(near, t, 0.0)
    return near, small, small / (2 + small), jnp.where(near, 1.0, t)


@jax.custom_jvp
def log1p_ratio(t: Array) -> Array:
    """L(t) = log(1 + t)/t for t > −1, 1 at t = 0, with derivatives to second order without
    cancellation.
    """
    near, small, u, large = _parted(t)
    series = 1 + u * u * polynomial(u * u, ATANH_SERIES)
    return jnp.where(near, 2 / (2 + small) * series, jnp.log1p(large) / large)


@jax.custom_jvp
def _log1p_ratio_slope(t: Array) -> Array:
    """L′ = (1/(1 + t) − L)/t; in u, −(1 − u)²/2 · (1/(1 + u) + u/3 + u³/5 + …)."""
    near, small, u, large = _parted(t)
    odd = 0.5 * (2 + small) / (1 + small) + u * polynomial(u * u, ATANH_SERIES)
    direct = (1 / (1 + large) - jnp.log1p(large) / large) / large
    return jnp.where(near, -2 / (2 + small) ** 2 * odd, direct)


def _log1p_ratio_curvature(t: Array) -> Array:
    """L″ = −(1/(1 + t)² + 2L′)/t, and the derivative of the series of L′."""
    near, small, u, large = _parted(t)
    slope = (1 / (1 + large) - jnp.log1p(large) / large) / large
    series = polynomial(u * u, ATANH_SERIES)
    step = series + 2 * u * u * polynomial(u * u, _slopes(ATANH_SERIES))
    odd = 0.5 * (2 + small) / (1 + small) + u * series
    half = 2 / (2 + small)
    odd_slope = -0.5 / (1 + small) ** 2 + 0.5 * half * half * step
    return jnp.where(
        near,
        0.5 * half * half * (half * odd - odd_slope),
        -(1 / (1 + large) ** 2 + 2 * slope) / large,
    )


@log1p_ratio.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return log1p_ratio(*primals), _log1p_ratio_slope(*primals) * tangents[0]


@_log1p_ratio_slope.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _log1p_ratio_slope(*primals), _log1p_ratio_curvature(*primals) * tangents[0]


def expm1_ratio(t: Array) -> Array:
    """(eᵗ − 1)/t, 1 at t = 0, with derivatives to second order without cancellation."""
    near = jnp.abs(t) < 0.5
    small = jnp.where(near, t, 0.0)
    large = jnp.where(near, 1.0, t)
    return jnp.where(
        near,
        polynomial(small, [1 / math.factorial(k + 1) for k in range(16)]),
        jnp.expm1(large) / large,
    )


@jax.custom_jvp
def _w(z: Array, shape: Array) -> Array:
    """log(1 + ξz)/ξ."""
    return z * log1p_ratio(shape * z)


@_w.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """∂w/∂z = 1/(1 + ξz), ∂w/∂ξ = z² L′(ξz): half the operations that differentiating the series
    creates. One factor z is kept apart: z³ L″ may overflow where its multiplier is 0.
    """
    z, shape = primals
    dz, dshape = tangents
    along = z * ((z * _log1p_ratio_slope(shape * z)) * dshape)
    return _w(z, shape), dz / (1 + shape * z) + along


def _far(p: NamedParams, y: Array) -> Array:
    """Where z or ξz is ±∞ or beyond 1e149."""
    distance = jnp.where(jnp.isinf(y), p["loc"], y) - p["loc"]
    log_z = jnp.log(jnp.abs(distance)) - jnp.log(p["scale"])
    most = jnp.maximum(jnp.log(jnp.abs(p["shape"])), 0.0)
    return jnp.isinf(y) | (log_z + most > LOG_SHARE_OF_LARGEST * jnp.log(jnp.finfo(y.dtype).max))


def _ends(p: NamedParams) -> tuple[Array, Array]:
    """The point where 1 + ξz = 0, on the side given by the sign of the shape; else infinite."""
    shape = jnp.where(p["shape"] == 0, 1.0, p["shape"])
    end = p["loc"] - p["scale"] / shape
    return jnp.where(p["shape"] > 0, end, -jnp.inf), jnp.where(p["shape"] < 0, end, jnp.inf)


# ---------------------------------------------------------------- generalised extreme value


def _gev_w(p: NamedParams, y: Array) -> tuple[Array, Array]:
    """w, and whether y is beyond the end of the support, where 1 + ξz ≤ 0, or too far out to
    compute: w is 0 there.
    """
    far = _far(*jax.lax.stop_gradient((p, y)))
    z = (jnp.where(far, p["loc"], y) - p["loc"]) / p["scale"]
    outside = far | (1 + p["shape"] * z <= 0)
    return _w(jnp.where(outside, 0.0, z), p["shape"]), outside


def _gev_log_prob(p: NamedParams, y: Array) -> Array:
    w, outside = _gev_w(p, y)
    value = -(1 + p["shape"]) * w - special.held_exp(-w) - jnp.log(p["scale"])
    return jnp.where(outside, -jnp.inf, value)


def _gev_log_tails(p: NamedParams, y: Array) -> tuple[Array, Array]:
    w, outside = _gev_w(p, y)
    under = y < p["loc"]
    below = jnp.where(outside, jnp.where(under, -jnp.inf, 0.0), -special.held_exp(-w))
    above = jnp.where(outside, jnp.where(under, 0.0, -jnp.inf), special.log_cloglog(-w))
    return below, above


def _gev_log_quotient(p: NamedParams, order: int) -> tuple[Array, Array]:
    """(log Γ(1 − order·ξ)/ξ, safe ξ), by log Γ(1 − t) = γt + Σ ζ(k)tᵏ/k near 0: NIST DLMF 5.7.3."""
    shape = p["shape"]
    near = jnp.abs(shape) < 0.1
    series = polynomial(
        jnp.where(near, shape, 0.0),
        [order * EULER_GAMMA, *(z * order**k / k for k, z in enumerate(ZETA, 2))],
    )
    safe = jnp.where(near | (order * shape >= 1), -1.0, shape)
    return jnp.where(near, series, special.gammaln(1 - order * safe) / safe), shape


def _gev_mean(p: NamedParams) -> Array:
    quotient, shape = _gev_log_quotient(p, 1)
    return jnp.where(
        shape < 1, p["loc"] + p["scale"] * quotient * expm1_ratio(shape * quotient), jnp.inf
    )


def _gev_variance(p: NamedParams) -> Array:
    """(Γ(1 − 2ξ) − Γ(1 − ξ)²)/ξ² = Γ(1 − ξ)² (e^d − 1)/ξ², d = log Γ(1 − 2ξ) − 2 log Γ(1 − ξ)."""
    first, shape = _gev_log_quotient(p, 1)
    second, _ = _gev_log_quotient(p, 2)
    near = jnp.abs(shape) < 0.1
    series = polynomial(
        jnp.where(near, shape, 0.0), [z * (2.0**k - 2) / k for k, z in enumerate(ZETA, 2)]
    )
    per_square = jnp.where(near, series, (second - 2 * first) / jnp.where(near, 1.0, shape))
    value = (
        p["scale"] ** 2
        * jnp.exp(2 * shape * first)
        * per_square
        * expm1_ratio(shape**2 * per_square)
    )
    return jnp.where(shape < 0.5, value, jnp.inf)


def _gev_guess(y: Array, known: NamedParams) -> NamedParams:
    """Probability-weighted moments: Hosking, Wallis & Wood 1985, Technometrics 27, eqs (5),
    (14); the shape then shrunk until every value is inside.
    """
    y, xp = values(y)
    n = max(len(y), 1)
    mean, variance, _ = moments(y)
    ordered = xp.sort(y) - mean
    rank = (xp.arange(n) + 0.65) / n
    b1 = xp.sum(ordered * rank) / n
    b2 = xp.sum(ordered * rank**2) / n
    c = 2 * b1 / xp.where(b2 > 0, 3 * b2, 1.0) - math.log(2) / math.log(3)
    shape = xp.where(b2 > 0, xp.clip(-(7.859 * c + 2.9554 * c**2), -0.4, 0.4), 0.05)
    scale = xp.sqrt(6 * variance) / math.pi
    loc = mean - EULER_GAMMA * scale
    largest_argument = xp.max(xp.where(shape < 0, y - loc, loc - y) / scale) if len(y) else 0.0
    limit = 0.9 / xp.maximum(largest_argument, 1e-300)
    return {"loc": loc, "scale": scale, "shape": xp.clip(shape, -limit, limit)}


def _gev_quantile(p: NamedParams, q: Array) -> Array:
    w = -jnp.log(-jnp.log(q))
    return p["loc"] + p["scale"] * w * expm1_ratio(p["shape"] * w)


gev = Family(
    "generalised extreme value",
    {"loc": free, "scale": positive, "shape": free},
    Law(
        log_prob=_gev_log_prob,
        log_cdf=lambda p, y: _gev_log_tails(p, y)[0],
        log_sf=lambda p, y: _gev_log_tails(p, y)[1],
        log_tails=_gev_log_tails,
        quantile=_gev_quantile,
        sample=by_quantile(_gev_quantile),
        mean=_gev_mean,
        variance=_gev_variance,
        support=_ends,
        guess=_gev_guess,
    ),
)
document(
    gev,
    """The generalised extreme value distribution of maxima, loc, scale and shape ξ; ξ = 0 is the
    Gumbel, ξ > 0 has a heavy upper tail. scipy ``genextreme(c=-shape, loc, scale)``; R evd
    ``dgev(loc, scale, shape)``, ismev ``gev.fit``. For ξ ≤ −1/2 the estimate is not regular
    (Smith 1985, Biometrika 72).
    """,
)


# ---------------------------------------------------------------- generalised Pareto


def _gpd_high(p: NamedParams) -> Array:
    return jnp.where(
        p["shape"] < 0, p["loc"] - p["scale"] / jnp.where(p["shape"] < 0, p["shape"], 1.0), jnp.inf
    )


def _gpd(
    inside: Callable[[NamedParams, Array], Array], below: float, above: float
) -> Callable[[NamedParams, Array], Array]:
    def function(p: NamedParams, y: Array) -> Array:
        far = _far(*jax.lax.stop_gradient((p, y)))
        z = (jnp.where(far, p["loc"], y) - p["loc"]) / p["scale"]
        under = y < p["loc"]
        over = ~under & (far | (1 + p["shape"] * z <= 0))
        value = inside(p, _w(jnp.where(under | over, 0.0, z), p["shape"]))
        return jnp.where(under, below, jnp.where(over, above, value))

    return function


def _gpd_log_cdf(p: NamedParams, y: Array) -> Array:
    """log(1 − e⁻ʷ) from log w = log z + log(log(1 + ξz)/ξz), none of whose derivatives is large
    where w is small.
    """
    under = y <= p["loc"]
    far = under | _far(*jax.lax.stop_gradient((p, y)))
    log_z = jnp.log(jnp.where(far, p["scale"], y - p["loc"])) - jnp.log(p["scale"])
    t = p["shape"] * jnp.exp(log_z)
    over = ~under & (far | (1 + t <= 0))
    log_w = log_z + jnp.log(log1p_ratio(jnp.where(over | under, 0.0, t)))
    return jnp.where(under, -jnp.inf, jnp.where(over, 0.0, special.log_cloglog(log_w)))


def _gpd_quantile(p: NamedParams, q: Array) -> Array:
    w = -jnp.log1p(-q)
    return p["loc"] + p["scale"] * w * expm1_ratio(p["shape"] * w)


def _gpd_guess(y: Array, known: NamedParams) -> NamedParams:
    """Moments: ξ = (1 − m²/v)/2, σ = m(1 + m²/v)/2 of the excesses, ξ kept where every value is
    inside.
    """
    y, xp = values(y)
    excess = y - known["loc"]
    mean, variance, _ = moments(excess)
    mean = xp.where(mean > 0, mean, 1.0)
    ratio = xp.clip(mean**2 / variance, 0.2, 3.0)
    scale = 0.5 * mean * (ratio + 1)
    largest = xp.max(excess) / scale if len(y) else 1.0
    return {
        "scale": scale,
        "shape": xp.maximum(
            xp.clip(0.5 * (1 - ratio), -0.4, 0.4), -0.9 / xp.maximum(largest, 1e-300)
        ),
    }


def _gpd_information(p: NamedParams) -> dict[tuple[str, str], Array]:
    # Smith 1984, Threshold methods for sample extremes, in Statistical Extremes and Applications;
    # for ξ > −1/2.
    shape = jnp.where(p["shape"] > -0.5, p["shape"], jnp.nan)
    one_shape = 1 + shape
    two_shapes = 1 + 2 * shape
    return {
        ("scale", "scale"): 1 / (p["scale"] ** 2 * two_shapes),
        ("scale", "shape"): 1 / (p["scale"] * one_shape * two_shapes),
        ("shape", "shape"): 2 / (one_shape * two_shapes),
    }


def _below(order: float, p: NamedParams, moment: Callable[[Array], Array]) -> Array:
    """A moment that is infinite unless the shape is below ``order``."""
    fine = p["shape"] < order
    return jnp.where(fine, moment(jnp.where(fine, p["shape"], order - 1)), jnp.inf)


generalised_pareto = Family(
    "generalised Pareto",
    {"scale": positive, "shape": free},
    Law(
        log_prob=_gpd(lambda p, w: -(1 + p["shape"]) * w - jnp.log(p["scale"]), -jnp.inf, -jnp.inf),
        log_cdf=_gpd_log_cdf,
        log_sf=_gpd(lambda p, w: -w, 0.0, -jnp.inf),
        quantile=_gpd_quantile,
        sample=by_quantile(_gpd_quantile),
        mean=lambda p: p["loc"] + p["scale"] * _below(1.0, p, lambda s: 1 / (1 - s)),
        variance=lambda p: (
            p["scale"] ** 2 * _below(0.5, p, lambda s: 1 / ((1 - s) ** 2 * (1 - 2 * s)))
        ),
        support=lambda p: (p["loc"], _gpd_high(p)),
        guess=_gpd_guess,
        information=_gpd_information,
    ),
    known={"loc": 0.0},
)
document(
    generalised_pareto,
    """The generalised Pareto distribution of excesses over the known threshold ``loc`` (0 unless
    given), scale and shape ξ; ξ = 0 is the exponential. scipy ``genpareto(c=shape, loc,
    scale)``; R evd ``dgpd(loc, scale, shape)``.
    """,
)


# ---------------------------------------------------------------- Pareto


def _pareto_guess(y: Array, known: NamedParams) -> NamedParams:
    y, xp = values(y)
    mean = xp.sum(xp.log(xp.maximum(y / known["scale"], 1.0))) / max(len(y), 1)
    return {"shape": 1 / xp.where(mean > 0, mean, 1.0)}


def _pareto(
    inside: Callable[[NamedParams, Array], Array], below: float, above: float, closed: bool
) -> Callable[[NamedParams, Array], Array]:
    def function(p: NamedParams, y: Array) -> Array:
        under = (y < p["scale"]) if closed else (y <= p["scale"])
        over = jnp.isposinf(y)
        excess = jnp.where(under | over, p["scale"], y - p["scale"])
        ratio = excess / p["scale"]  # of the excess, so that no digits are lost against the scale
        large = ratio > MIN_RATIO_BESIDE_ONE
        value = inside(
            p,
            jnp.where(
                large,
                jnp.log(excess) - jnp.log(p["scale"]),
                jnp.log1p(jnp.where(large, 1.0, ratio)),
            ),
        )
        return jnp.where(under, below, jnp.where(over, above, value))

    return function


pareto = Family(
    "Pareto",
    {"shape": positive},
    Law(
        log_prob=_pareto(
            lambda p, r: jnp.log(p["shape"]) - jnp.log(p["scale"]) - (p["shape"] + 1) * r,
            -jnp.inf,
            -jnp.inf,
            True,
        ),
        log_cdf=_pareto(
            lambda p, r: special.log_cloglog(jnp.log(p["shape"]) + jnp.log(r)), -jnp.inf, 0.0, False
        ),
        log_sf=_pareto(lambda p, r: -p["shape"] * r, 0.0, -jnp.inf, True),
        quantile=lambda p, q: p["scale"] * jnp.exp(-jnp.log1p(-q) / p["shape"]),
        sample=by_quantile(lambda p, q: p["scale"] * jnp.exp(-jnp.log1p(-q) / p["shape"])),
        mean=lambda p: p["scale"] * finite_above(1.0, p["shape"], lambda a: a / (a - 1)),
        variance=lambda p: (
            p["scale"] ** 2 * finite_above(2.0, p["shape"], lambda a: a / ((a - 1) ** 2 * (a - 2)))
        ),
        support=lambda p: (p["scale"], jnp.inf),
        guess=_pareto_guess,
        information=lambda p: {("shape", "shape"): 1 / p["shape"] ** 2},
    ),
    known={"scale": 1.0},
)
document(
    pareto,
    """The Pareto distribution above the known least value ``scale`` (1 unless given), shape: scipy
    ``pareto(shape, scale=scale)``, R actuar ``dpareto1(shape, min)``. The scale is no
    parameter: its maximum-likelihood estimate is the least value, which no derivative finds.
    """,
)
