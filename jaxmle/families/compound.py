"""Families of counts with extra zeros: zero-inflated and hurdle versions of any count family."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

import jaxmle.special as special
from jaxmle._types import Array, NamedParams
from jaxmle.closures.recipes import with_recipe
from jaxmle.families.combinators import LOG_HALF
from jaxmle.families.family import Family, Law, uniform
from jaxmle.families.inverse import nearer, smallest_count_from
from jaxmle.families.moments import values
from jaxmle.parameters.constraints import interval


def _count_family(family: Family, what: str) -> None:
    if not isinstance(family, Family):
        raise TypeError(
            f"{what} takes a family, such as jaxmle.families.poisson; got {type(family).__name__}"
        )
    if not family.discrete or "zero" in family.constraints:
        raise ValueError(
            f"{what} takes a count family, such as poisson or negative_binomial; got {family.name}"
        )


def _log_zero(law: Law, p: NamedParams, like: Array) -> Array:
    """log of the count family's own probability of 0."""
    return law.log_prob(p, jnp.zeros_like(like))


def _positive_start(family: Family, y: Array, known: NamedParams) -> tuple[NamedParams, Array]:
    """The count family's start values with zeros replaced by the mean of the others, pulled halfway
    back; and the share of zeros.
    """
    y, xp = values(y)
    positive = y > 0
    mean = xp.sum(xp.where(positive, y, 0.0)) / xp.maximum(xp.sum(positive), 1)
    share = xp.sum(~positive) / max(len(y), 1)
    return family.law.guess(xp.where(positive, y, 0.5 * mean), known), xp.clip(share, 0.02, 0.98)


def _guess(family: Family, part: float, y: Array, known: NamedParams) -> NamedParams:
    """Start values; ``zero`` starts at this fraction of the share of zeros."""
    start, share = _positive_start(family, y, known)
    return start | {"zero": part * share}


def _with_zeros(family: Family, what: str, law: Law) -> Family:
    """The family with the additional parameter ``zero`` and the distribution made from its own."""
    return Family(
        f"{what} {family.name}",
        {**family.constraints, "zero": interval(0.0, 1.0)},
        law,
        known=family.known,
        discrete=True,
    )


def _quantile_with_zeros(
    p: NamedParams, q: Array, quantile: Callable[[NamedParams, Array], Array]
) -> Array:
    """The quantile q of a mixture of zeros, with probability ``zero``, and a distribution with the
    given quantile function.
    """
    share = (q - p["zero"]) / (1 - p["zero"])
    return jnp.where(share > 0, quantile(p, jnp.where(share > 0, share, 0.5)), 0.0)


# ---------------------------------------------------------------- zero-inflated


@with_recipe
def zero_inflated(family: Family) -> Family:
    """A count family with extra (structural) zeros: P(0) = zero + (1 − zero) f(0), P(y) = (1 −
    zero) f(y) for y > 0.

    Args:
        family: any discrete family on 0, 1, ….

    Returns:
        A family with the additional parameter ``zero`` in (0, 1). Lambert 1992, Technometrics 34; R
        pscl ``zeroinfl(dist=…)``.

    >>> from jaxmle.families import poisson, zero_inflated
    >>> round(float(zero_inflated(poisson).mean({"rate": 2.0, "zero": 0.25})), 6)
    1.5
    """
    _count_family(family, "zero_inflated")
    law = family.law
    inflated_law = Law(
        log_prob=partial(_inflated_log_prob, law),
        log_cdf=law.log_cdf and partial(_inflated_log_cdf, law),
        log_sf=law.log_sf
        and (lambda p, y: jnp.where(y < 0, 0.0, jnp.log1p(-p["zero"]) + law.log_sf(p, y))),
        quantile=law.quantile and (lambda p, q: _quantile_with_zeros(p, q, law.quantile)),
        sample=law.sample and partial(_inflated_sample, law),
        mean=law.mean and (lambda p: (1 - p["zero"]) * law.mean(p)),
        variance=law.variance
        and (lambda p: (1 - p["zero"]) * (law.variance(p) + p["zero"] * law.mean(p) ** 2)),
        support=law.support,
        guess=partial(_guess, family, 0.7),
    )
    return _with_zeros(family, "zero-inflated", inflated_law)


def _inflated_log_prob(law: Law, p: NamedParams, y: Array) -> Array:
    counted = jnp.log1p(-p["zero"]) + law.log_prob(p, y)
    at_zero = jnp.logaddexp(jnp.log(p["zero"]), jnp.log1p(-p["zero"]) + _log_zero(law, p, y))
    return jnp.where(y == 0, at_zero, counted)


def _inflated_log_cdf(law: Law, p: NamedParams, y: Array) -> Array:
    below = jnp.log1p(-p["zero"]) + law.log_cdf(p, jnp.where(y < 0, 0.0, y))
    return jnp.where(y < 0, -jnp.inf, jnp.logaddexp(jnp.log(p["zero"]), below))


def _inflated_sample(law: Law, p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
    zero_key, count_key = jax.random.split(key)
    return jnp.where(
        jax.random.uniform(zero_key, shape) < p["zero"], 0, law.sample(p, count_key, shape)
    )


# ---------------------------------------------------------------- hurdle


@with_recipe
def hurdle(family: Family) -> Family:
    """A count family with a separate model for zeros: P(0) = zero, P(y) = (1 − zero) f(y)/(1 −
    f(0)) for y > 0.

    Args:
        family: any discrete family on 0, 1, ….

    Returns:
        A family with the additional parameter ``zero`` in (0, 1). Mullahy 1986, Journal of
        Econometrics 33; R pscl ``hurdle(dist=…)``.

    >>> from jaxmle.families import hurdle, poisson
    >>> round(float(hurdle(poisson).log_prob({"rate": 2.0, "zero": 0.25}, 0)), 6)
    -1.386294
    """
    _count_family(family, "hurdle")
    law = family.law
    hurdle_law = Law(
        log_prob=lambda p, y: jnp.where(
            y == 0, jnp.log(p["zero"]), _over_hurdle(law, p, y, law.log_prob(p, y))
        ),
        log_cdf=law.log_cdf and partial(_hurdle_log_cdf, law),
        log_sf=law.log_sf and partial(_hurdle_log_sf, law),
        quantile=law.quantile
        and (lambda p, q: _quantile_with_zeros(p, q, partial(_positive_quantile, law))),
        sample=law.quantile and partial(_hurdle_sample, law),
        mean=law.mean and (lambda p: (1 - p["zero"]) * _positive_mean(law, p)),
        variance=law.variance and partial(_hurdle_variance, law),
        support=law.support,
        guess=partial(_guess, family, 1.0),
    )
    return _with_zeros(family, "hurdle", hurdle_law)


def _log_positive(law: Law, p: NamedParams, like: Array) -> Array:
    """log of 1 − f(0)."""
    return special.log1mexp(_log_zero(law, p, like))


def _over_hurdle(law: Law, p: NamedParams, y: Array, upper: Array) -> Array:
    """log of (1 − zero) · P(… count)/(1 − f(0))."""
    return jnp.log1p(-p["zero"]) + upper - _log_positive(law, p, y)


def _hurdle_log_sf(law: Law, p: NamedParams, y: Array) -> Array:
    inside = jnp.where(y < 0, 0.0, y)
    return jnp.where(y < 0, 0.0, _over_hurdle(law, p, inside, law.log_sf(p, inside)))


def _hurdle_log_cdf(law: Law, p: NamedParams, y: Array) -> Array:
    """zero + (1 − zero)(F(y) − f(0))/(1 − f(0)) for y ≥ 1; from the upper tail where that is the
    smaller one.
    """
    inside = jnp.where(y < 1, 1.0, y)
    above = jnp.log1p(-p["zero"]) + _positive_log_sf(law, p, inside)
    below = jnp.log1p(-p["zero"]) + _positive_log_cdf(law, p, inside)
    cdf = _complement(above, jnp.logaddexp(jnp.log(p["zero"]), below))
    return jnp.where(y < 0, -jnp.inf, jnp.where(y < 1, jnp.log(p["zero"]), cdf))


def _complement(above: Array, below: Array) -> Array:
    """log(1 − e^above) where e^above is less than a half, else ``below``."""
    far = above < LOG_HALF
    return jnp.where(far, jnp.log1p(-jnp.exp(jnp.where(far, above, LOG_HALF))), below)


def _positive_log_cdf(law: Law, p: NamedParams, y: Array) -> Array:
    """log P(Y ≤ y | Y > 0) for y ≥ 1: (F(y) − f(0))/(1 − f(0)), or from the upper tail, in which
    nothing cancels where f(0) is close to 1.
    """
    gap = law.log_cdf(p, y) - _log_zero(law, p, y)
    some = ~(gap <= 0)  # and where y is missing: NaN
    between = (
        _log_zero(law, p, y)
        + jnp.where(some, gap, 1.0)
        + special.log1mexp(jnp.where(some, -gap, -1.0))
    )
    below = jnp.where(some, between - _log_positive(law, p, y), -jnp.inf)
    return _complement(_positive_log_sf(law, p, y), below)


def _positive_log_sf(law: Law, p: NamedParams, y: Array) -> Array:
    """log P(Y > y | Y > 0) for y ≥ 1."""
    return law.log_sf(p, y) - _log_positive(law, p, y)


def _positive_quantile(law: Law, p: NamedParams, share: Array) -> Array:
    """The quantile of the positive counts."""
    _, most = law.support(p)
    tail = nearer(partial(_positive_log_cdf, law), partial(_positive_log_sf, law))
    return smallest_count_from(tail, 1.0, most, p, share)


def _hurdle_sample(law: Law, p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
    zero_key, count_key = jax.random.split(key)
    drawn = _positive_quantile(law, p, jnp.broadcast_to(uniform(count_key, shape), shape)).astype(
        int
    )
    return jnp.where(jax.random.uniform(zero_key, shape) < p["zero"], 0, drawn)


def _positive_mean(law: Law, p: NamedParams) -> Array:
    """The mean μ/(1 − f(0)) of the positive counts."""
    mean = law.mean(p)
    return mean / jnp.exp(_log_positive(law, p, mean))


def _hurdle_variance(law: Law, p: NamedParams) -> Array:
    """(1 − zero)(V + zero·m²), with m the mean of the positive counts and V = σ²/(1 − f(0)) −
    f(0)m² their variance.
    """
    mean = _positive_mean(law, p)
    spread = law.variance(p)
    whole = jnp.exp(_log_positive(law, p, spread))
    inner = spread / whole - jnp.exp(_log_zero(law, p, spread)) * mean**2
    return (1 - p["zero"]) * (inner + p["zero"] * mean**2)
