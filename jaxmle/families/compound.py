"""Families of counts with zeros of their own: zero-inflated and hurdle, of any count family."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import jaxmle.special as special
from jaxmle.families.family import Family, Law, uniform
from jaxmle.families.moments import values
from jaxmle.parameters.constraints import interval

Array = Any
Params = dict[str, Any]


def _count_family(family: Family, what: str) -> None:
    if not isinstance(family, Family):
        raise TypeError(f"{what} takes a family, such as jaxmle.families.poisson; got {type(family).__name__}")
    if not family.discrete or "zero" in family.constraints:
        raise ValueError(f"{what} takes a count family, such as poisson or negative_binomial; got {family.name}")


def _log_zero(law: Law, p: Params, like: Array) -> Array:
    """log of the count family's own probability of 0."""
    return law.log_prob(p, jnp.zeros_like(like))


def _positive_start(family: Family, y: Array, known: Params) -> tuple[Params, Array]:
    """The count family's start with zeros read as the mean of the others, pulled halfway back; and the share of zeros."""
    y, xp = values(y)
    positive = y > 0
    mean = xp.sum(xp.where(positive, y, 0.0)) / xp.maximum(xp.sum(positive), 1)
    share = xp.sum(~positive) / max(len(y), 1)
    return family.law.guess(xp.where(positive, y, 0.5 * mean), known), xp.clip(share, 0.02, 0.98)


def zero_inflated(family: Family) -> Family:
    """The count family with structural zeros: P(0) = zero + (1 − zero) f(0), P(y) = (1 − zero) f(y) for y > 0.

    Args:
        family: any discrete family on 0, 1, ….

    Returns:
        A family with the further parameter ``zero`` in (0, 1). Lambert 1992, Technometrics 34; R pscl ``zeroinfl(dist=…)``.

    >>> from jaxmle.families import poisson, zero_inflated
    >>> round(float(zero_inflated(poisson).mean({"rate": 2.0, "zero": 0.25})), 6)
    1.5
    """
    _count_family(family, "zero_inflated")
    law = family.law

    def log_prob(p: Params, y: Array) -> Array:
        counted = jnp.log1p(-p["zero"]) + law.log_prob(p, y)
        at_zero = jnp.logaddexp(jnp.log(p["zero"]), jnp.log1p(-p["zero"]) + _log_zero(law, p, y))
        return jnp.where(y == 0, at_zero, counted)

    def log_cdf(p: Params, y: Array) -> Array:
        inside = y >= 0
        below = jnp.log1p(-p["zero"]) + law.log_cdf(p, jnp.where(inside, y, 0.0))
        return jnp.where(y < 0, -jnp.inf, jnp.logaddexp(jnp.log(p["zero"]), below))

    def log_sf(p: Params, y: Array) -> Array:
        return jnp.where(y < 0, 0.0, jnp.log1p(-p["zero"]) + law.log_sf(p, y))

    def quantile(p: Params, q: Array) -> Array:
        share = (q - p["zero"]) / (1 - p["zero"])
        return jnp.where(share > 0, law.quantile(p, jnp.where(share > 0, share, 0.5)), 0.0)

    def sample(p: Params, key: Array, shape: tuple[int, ...]) -> Array:
        one, two = jax.random.split(key)
        return jnp.where(jax.random.uniform(one, shape) < p["zero"], 0, law.sample(p, two, shape))

    def variance(p: Params) -> Array:
        return (1 - p["zero"]) * (law.variance(p) + p["zero"] * law.mean(p) ** 2)

    def guess(y: Array, known: Params) -> Params:
        start, share = _positive_start(family, y, known)
        return start | {"zero": 0.7 * share}

    own = Law(
        log_prob=log_prob,
        log_cdf=law.log_cdf and log_cdf,
        log_sf=law.log_sf and log_sf,
        quantile=law.quantile and quantile,
        sample=law.sample and sample,
        mean=lambda p: (1 - p["zero"]) * law.mean(p),
        variance=variance,
        support=law.support,
        guess=guess,
    )
    return Family(f"zero-inflated {family.name}", {**family.constraints, "zero": interval(0.0, 1.0)}, own, known=family.known, discrete=True)


def hurdle(family: Family) -> Family:
    """Zeros and positive counts apart: P(0) = zero, P(y) = (1 − zero) f(y)/(1 − f(0)) for y > 0.

    Args:
        family: any discrete family on 0, 1, ….

    Returns:
        A family with the further parameter ``zero`` in (0, 1). Mullahy 1986, Journal of Econometrics 33; R pscl ``hurdle(dist=…)``.

    >>> from jaxmle.families import hurdle, poisson
    >>> round(float(hurdle(poisson).log_prob({"rate": 2.0, "zero": 0.25}, 0)), 6)
    -1.386294
    """
    _count_family(family, "hurdle")
    law = family.law

    def log_positive(p: Params, like: Array) -> Array:
        """log of 1 − f(0)."""
        return special.log1mexp(_log_zero(law, p, like))

    def scaled(p: Params, y: Array, upper: Array) -> Array:
        """log of (1 − zero) · P(… count)/(1 − f(0))."""
        return jnp.log1p(-p["zero"]) + upper - log_positive(p, y)

    def log_prob(p: Params, y: Array) -> Array:
        return jnp.where(y == 0, jnp.log(p["zero"]), scaled(p, y, law.log_prob(p, y)))

    def log_sf(p: Params, y: Array) -> Array:
        inside = jnp.where(y < 0, 0.0, y)
        return jnp.where(y < 0, 0.0, scaled(p, inside, law.log_sf(p, inside)))

    def log_cdf(p: Params, y: Array) -> Array:
        """zero + (1 − zero)(F(y) − f(0))/(1 − f(0)) for y ≥ 1."""
        beyond = y >= 1
        gap = law.log_cdf(p, jnp.where(beyond, y, 1.0)) - _log_zero(law, p, y)
        some = beyond & (gap > 0)
        between = _log_zero(law, p, y) + jnp.where(some, gap, 1.0) + special.log1mexp(jnp.where(some, -gap, -1.0))
        positive = jnp.logaddexp(jnp.log(p["zero"]), scaled(p, y, between))
        return jnp.where(y < 0, -jnp.inf, jnp.where(some, positive, jnp.log(p["zero"])))

    def positive_quantile(p: Params, share: Array) -> Array:
        """The quantile of the counts above 0."""
        none = jnp.exp(_log_zero(law, p, share))
        return jnp.maximum(law.quantile(p, none + share * -jnp.expm1(_log_zero(law, p, share))), 1.0)

    def quantile(p: Params, q: Array) -> Array:
        share = (q - p["zero"]) / (1 - p["zero"])
        return jnp.where(share > 0, positive_quantile(p, jnp.where(share > 0, share, 0.5)), 0.0)

    def sample(p: Params, key: Array, shape: tuple[int, ...]) -> Array:
        one, two = jax.random.split(key)
        drawn = positive_quantile(p, jnp.broadcast_to(uniform(two, shape), shape)).astype(int)
        return jnp.where(jax.random.uniform(one, shape) < p["zero"], 0, drawn)

    def positive_mean(p: Params) -> Array:
        return law.mean(p) / jnp.exp(log_positive(p, law.mean(p)))

    def variance(p: Params) -> Array:
        square = (law.variance(p) + law.mean(p) ** 2) / jnp.exp(log_positive(p, law.mean(p)))
        return (1 - p["zero"]) * square - ((1 - p["zero"]) * positive_mean(p)) ** 2

    def guess(y: Array, known: Params) -> Params:
        start, share = _positive_start(family, y, known)
        return start | {"zero": share}

    own = Law(
        log_prob=log_prob,
        log_cdf=law.log_cdf and log_cdf,
        log_sf=law.log_sf and log_sf,
        quantile=law.quantile and quantile,
        sample=law.quantile and sample,
        mean=lambda p: (1 - p["zero"]) * positive_mean(p),
        variance=variance,
        support=law.support,
        guess=guess,
    )
    return Family(f"hurdle {family.name}", {**family.constraints, "zero": interval(0.0, 1.0)}, own, known=family.known, discrete=True)
