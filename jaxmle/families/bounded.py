"""Families on a bounded interval: beta."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

import jaxmle.special as special
from jaxmle._types import Array, NamedParams
from jaxmle.families.family import Family, Law, document, edge, masked
from jaxmle.families.inverse import solve
from jaxmle.families.moments import moments
from jaxmle.parameters.constraints import positive
from jaxmle.special.beta import beta_logpdf


def _inside(p: NamedParams, y: Array) -> Array:
    return beta_logpdf(y, p["shape1"], p["shape2"])


def _log_prob(p: NamedParams, y: Array) -> Array:
    value = masked(y, 0.0, 1.0, 0.5, lambda y: _inside(p, y), -jnp.inf, -jnp.inf)
    value = jnp.where(y == 0, edge(p["shape1"] - 1, jnp.log(p["shape2"])), value)
    return jnp.where(y == 1, edge(p["shape2"] - 1, jnp.log(p["shape1"])), value)


def _log_cdf(p: NamedParams, y: Array) -> Array:
    return masked(
        y, 0.0, 1.0, 0.5, lambda y: special.log_betainc(p["shape1"], p["shape2"], y), -jnp.inf, 0.0
    )


def _log_sf(p: NamedParams, y: Array) -> Array:
    return masked(
        y, 0.0, 1.0, 0.5, lambda y: special.log_betaincc(p["shape1"], p["shape2"], y), 0.0, -jnp.inf
    )


def _log_tails(p: NamedParams, y: Array) -> tuple[Array, Array]:
    at_ends = (y <= 0) | (y >= 1)
    below, above = special.log_beta_tails(p["shape1"], p["shape2"], jnp.where(at_ends, 0.5, y))
    return (
        jnp.where(y <= 0, -jnp.inf, jnp.where(y >= 1, 0.0, below)),
        jnp.where(y <= 0, 0.0, jnp.where(y >= 1, -jnp.inf, above)),
    )


def _sample(p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
    """X/(X + Y) with X and Y gamma, from their logs, which do not underflow at shapes near 0."""
    first_key, second_key = jax.random.split(key)
    return jax.nn.sigmoid(
        jax.random.loggamma(first_key, p["shape1"], shape)
        - jax.random.loggamma(second_key, p["shape2"], shape)
    )


def _guess(y: Array, known: NamedParams) -> NamedParams:
    mean, variance, xp = moments(y)
    mean = xp.clip(mean, 1e-3, 1 - 1e-3)
    total = xp.clip(mean * (1 - mean) / variance - 1, 0.1, 1e6)
    return {"shape1": mean * total, "shape2": (1 - mean) * total}


def _variance(p: NamedParams) -> Array:
    total = p["shape1"] + p["shape2"]
    return p["shape1"] * p["shape2"] / (total**2 * (total + 1))


def _information(p: NamedParams) -> dict[tuple[str, str], Array]:
    both = special.trigamma(p["shape1"] + p["shape2"])
    return {
        ("shape1", "shape1"): special.trigamma(p["shape1"]) - both,
        ("shape1", "shape2"): -both,
        ("shape2", "shape2"): special.trigamma(p["shape2"]) - both,
    }


beta = Family(
    "beta",
    {"shape1": positive, "shape2": positive},
    Law(
        log_prob=_log_prob,
        log_cdf=_log_cdf,
        log_sf=_log_sf,
        log_tails=_log_tails,
        quantile=partial(solve, _inside, _log_cdf, _log_sf, "unit", ends=(0.0, 1.0)),
        sample=_sample,
        mean=lambda p: p["shape1"] / (p["shape1"] + p["shape2"]),
        variance=_variance,
        support=lambda p: (0.0, 1.0),
        guess=_guess,
        information=_information,
    ),
)
document(
    beta,
    """The beta distribution on (0, 1), shape1 and shape2: scipy ``beta(shape1, shape2)``, R
    ``dbeta(shape1, shape2)``.
    """,
)
