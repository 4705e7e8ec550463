"""Families made from other families: censored, truncated, rounded, and finite mixtures, all
computed from log_prob, log_cdf and log_sf.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp

import jaxmle.special as special
from jaxmle._types import Array, NamedParams, Tree
from jaxmle.closures.recipes import with_recipe
from jaxmle.families.family import Family, Law, by_quantile
from jaxmle.families.inverse import nearer, smallest_count_from, solve
from jaxmle.families.moments import values
from jaxmle.parameters.arguments import check_end, check_number
from jaxmle.parameters.constraints import simplex

LOG_HALF = -math.log(2)


def _tails(law: Law, p: NamedParams, low: Array, high: Array) -> tuple[Array, ...]:
    """log F and log S at both ends: each function compiled once for both, or one for all four."""
    ends = jnp.stack(jnp.broadcast_arrays(low, high))
    tails = law.log_tails or (lambda p, y: (law.log_cdf(p, y), law.log_sf(p, y)))
    below, above = jax.vmap(partial(tails, p))(ends)
    return below[0], below[1], above[0], above[1]


def log_between(law: Law, p: NamedParams, low: Array, high: Array) -> Array:
    """log P(low < Y ≤ high), from the tail in which both ends lie; −inf where the interval is
    empty.

    As a difference of two numbers, its relative error is an ulp of log F over the log ratio at the
    ends. An infinite end is not evaluated but replaced by the other, since a tail from another
    library may have no derivative at infinity.
    """
    bottom = jnp.isneginf(low)
    top = jnp.isposinf(high)
    start = jnp.where(bottom & ~top, high, low)
    end = jnp.where(top & ~bottom, low, high)
    below_low, below_high, above_low, above_high = _tails(law, p, start, end)
    upper = below_low > LOG_HALF
    more = jnp.where(upper, above_low, below_high)
    less = jnp.where(upper, above_high, below_low)
    whole = jnp.isneginf(less)
    some = ~whole & (more > less)
    gap = jnp.where(some, more - jnp.where(whole, 0.0, less), 1.0)
    between = jnp.where(
        whole,
        more,
        jnp.where(
            some, more + special.log1mexp(-gap), jnp.where(more == less, -jnp.inf, more - less)
        ),
    )
    value = jnp.where(top, above_low, jnp.where(bottom, below_high, between))
    return jnp.where(top & bottom, 0.0, value)


def _with_tails(family: Family, what: str) -> None:
    if not isinstance(family, Family):
        raise TypeError(
            f"{what} takes a family, such as jaxmle.families.weibull; got {type(family).__name__}"
        )
    if family.law.log_cdf is None or family.law.log_sf is None:
        raise ValueError(f"{what} needs log_cdf and log_sf, which {family.name} does not have")


# ---------------------------------------------------------------- censored


@with_recipe
def censored(family: Family) -> Family:
    """A family for censored data: exact values, and values known only to lie in (lower, upper].

    Data are ``{"lower": (n,), "upper": (n,)}``, row by row: exact if the two are equal; right
    censored if upper is ∞ (log_sf at lower); left censored if lower is −∞ (log_cdf at upper);
    otherwise an interval. Or ``{"time": (n,), "event": (n,)}``: exact if event is not 0, right
    censored at time if it is. A row whose lower exceeds its upper is NaN.

    Censoring must not depend on the value beyond its bounds. Samples, quantiles and moments are
    those of the uncensored family. Delayed entry is ``censored(truncated(family))`` with the known
    ``low``.

    Args:
        family: any family with log_cdf and log_sf.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.families import censored, exponential
    >>> data = {"time": np.array([1.0, 3.0, 2.0, 4.0]), "event": np.array([1, 0, 1, 0])}
    >>> round(float(jm.fit(censored(exponential), data=data).params["rate"]), 6)
    0.2
    """
    _with_tails(family, "censored")
    law = family.law

    def log_prob(p: NamedParams, y: Tree) -> Array:
        if "event" in y:
            event = y["event"]
            term = jnp.where(event != 0, law.log_prob(p, y["time"]), law.log_sf(p, y["time"]))
            return jnp.where(jnp.isnan(event), jnp.nan, term)
        lower = y["lower"]
        upper = y["upper"]
        exact = lower == upper
        known = jnp.where(
            jnp.isinf(upper), lower, jnp.where(jnp.isinf(lower), upper, 0.5 * (lower + upper))
        )
        density = law.log_prob(p, jnp.where(exact, lower, known))
        between = log_between(law, p, lower, upper)
        return jnp.where(exact, density, jnp.where(lower < upper, between, jnp.nan))

    def guess(y: Tree, known: NamedParams) -> NamedParams:
        """From the middle of each interval, or its finite end."""
        lower, xp = values(y["time"] if "time" in y else y["lower"])
        upper = lower if "time" in y else values(y["upper"])[0]
        low, high = (y["time"], y["time"]) if "time" in y else (y["lower"], y["upper"])
        return law.guess(
            xp.where(
                xp.isfinite(low), xp.where(xp.isfinite(high), 0.5 * (lower + upper), lower), upper
            ),
            known,
        )

    censored_law = dataclasses.replace(law, log_prob=log_prob, guess=guess, information=None)
    return dataclasses.replace(
        family,
        name=f"censored {family.name}",
        law=censored_law,
        fields=(("lower", "upper"), ("time", "event")),
    )


# ---------------------------------------------------------------- truncated


@with_recipe
def truncated(family: Family, low: float = -math.inf, high: float = math.inf) -> Family:
    """The family given that low < Y ≤ high; values outside were never recorded.

    Args:
        family: any family with log_cdf and log_sf.
        low, high: the ends, for all rows. They are known constants of the new family; ends that
            differ between rows are given in the data, ``{"y": y, "low": (n,)}``.
            ``truncated(poisson, low=0)`` is the zero-truncated Poisson.

    >>> import jax.numpy as jnp
    >>> from jaxmle.families import poisson, truncated
    >>> round(float(jnp.exp(truncated(poisson, low=0).log_prob({"rate": 1.0}, 1))), 6)
    0.581977
    """
    _with_tails(family, "truncated")
    low, high = (check_end(name, value) for name, value in (("low", low), ("high", high)))
    if not low < high:
        raise ValueError(f"truncated needs low < high; got ({low}, {high})")
    return dataclasses.replace(
        family,
        name=f"truncated {family.name}",
        law=_truncated_law(family),
        known={**family.known, "low": float(low), "high": float(high)},
    )


def _truncated_law(family: Family) -> Law:
    """The law of Y given that low < Y ≤ high, with the ends among its parameters."""
    law = family.law

    def mass(p: NamedParams) -> Array:
        return log_between(law, p, p["low"], p["high"])

    def log_prob(p: NamedParams, y: Array) -> Array:
        outside = (y <= p["low"]) | (y > p["high"])
        return jnp.where(outside, -jnp.inf, law.log_prob(p, y) - mass(p))

    def log_cdf(p: NamedParams, y: Array) -> Array:
        return jnp.where(
            y <= p["low"],
            -jnp.inf,
            log_between(law, p, p["low"], jnp.minimum(y, p["high"])) - mass(p),
        )

    def log_sf(p: NamedParams, y: Array) -> Array:
        return jnp.where(
            y >= p["high"],
            -jnp.inf,
            log_between(law, p, jnp.maximum(y, p["low"]), p["high"]) - mass(p),
        )

    def quantile(p: NamedParams, q: Array) -> Array:
        if not family.discrete:
            return solve(log_prob, log_cdf, log_sf, "line", p, q, (p["low"], p["high"]))
        whole = jax.lax.stop_gradient(mass(p))

        def tail(p: NamedParams, y: Array, lower: Array) -> Array:
            start = jnp.where(lower, p["low"], y)
            return log_between(law, p, start, jnp.where(lower, y, p["high"])) - whole

        return smallest_count_from(tail, *support(p), p, q)

    def support(p: NamedParams) -> tuple[Array, Array]:
        least, most = law.support(p)
        first = jnp.floor(p["low"]) + 1 if family.discrete else p["low"]
        return jnp.maximum(least, first), jnp.minimum(most, p["high"])

    return Law(
        log_prob=log_prob,
        log_cdf=log_cdf,
        log_sf=log_sf,
        quantile=law.quantile and quantile,
        sample=law.quantile and by_quantile(quantile),
        support=support,
        guess=law.guess,
    )


# ---------------------------------------------------------------- rounded


@with_recipe
def rounded(family: Family, width: float = 1.0) -> Family:
    """A family for values rounded to the nearest multiple of ``width``: log P(y − width/2 < Y ≤ y +
    width/2).

    The width is a known constant; widths that differ between rows are given in the data, ``{"y": y,
    "width": (n,)}``. For other intervals use ``censored`` with lower and upper.

    Args:
        family: any family with log_cdf and log_sf.
        width: the unit of measurement.

    >>> import jax.numpy as jnp
    >>> from jaxmle.families import exponential, rounded
    >>> round(float(jnp.exp(rounded(exponential).log_prob({"rate": 1.0}, 1.0))), 6)
    0.383401
    """
    _with_tails(family, "rounded")
    width = check_number("width", width, low=0.0)
    law = family.law

    def cell(p: NamedParams, y: Array) -> Array:
        """The upper end of the cell that contains y, or of the last one below it; that of y itself
        if y is a multiple of the width.
        """
        return (jnp.floor(y / p["width"]) + 0.5) * p["width"]

    def log_prob(p: NamedParams, y: Array) -> Array:
        return log_between(law, p, y - 0.5 * p["width"], y + 0.5 * p["width"])

    def sample(p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
        return jnp.round(law.sample(p, key, shape) / p["width"]) * p["width"]

    def quantile(p: NamedParams, q: Array) -> Array:
        return jnp.ceil(law.quantile(p, q) / p["width"] - 0.5) * p["width"]

    def support(p: NamedParams) -> tuple[Array, Array]:
        return tuple(jnp.round(end / p["width"]) * p["width"] for end in law.support(p))

    rounded_law = Law(
        log_prob=log_prob,
        log_cdf=lambda p, y: law.log_cdf(p, cell(p, y)),
        log_sf=lambda p, y: law.log_sf(p, cell(p, y)),
        quantile=law.quantile and quantile,
        sample=law.sample and sample,
        support=support,
        guess=law.guess,
    )
    return dataclasses.replace(
        family,
        name=f"rounded {family.name}",
        law=rounded_law,
        known={**family.known, "width": float(width)},
    )


# ---------------------------------------------------------------- mixture


def _log_mean(weights: Array, terms: list[Array]) -> Array:
    """log Σ wⱼ exp(termⱼ); −inf with finite derivatives where every term is."""
    top = jnp.stack(jnp.broadcast_arrays(*terms))
    nowhere = jnp.all(jnp.isneginf(top), axis=0)
    weighted = [
        jnp.log(weights[..., j]) + jnp.where(nowhere, 0.0, term)
        for j, term in enumerate(jnp.unstack(top))
    ]
    return jnp.where(nowhere, -jnp.inf, jax.scipy.special.logsumexp(jnp.stack(weighted), axis=0))


@with_recipe
def mixture(*families: Family) -> Family:
    """A finite mixture: log Σ wⱼ fⱼ(y).

    Parameters are ``{"weights": (k,), "components": ({…}, …)}``, one dictionary for each component.
    The likelihood has a maximum for each order of components of the same family. Normal components
    may collapse onto one value, where the likelihood is unbounded; a fit says so.

    Args:
        families: the components, all discrete or all continuous.

    >>> import numpy as np
    >>> from jaxmle.families import mixture, normal
    >>> two = mixture(normal, normal)
    >>> params = {
    ...     "weights": np.array([0.25, 0.75]),
    ...     "components": ({"loc": 0.0, "scale": 1.0}, {"loc": 4.0, "scale": 1.0}),
    ... }
    >>> float(two.mean(params)), float(two.variance(params))
    (3.0, 4.0)
    """
    if len(families) < 2 or not all(isinstance(family, Family) for family in families):
        raise TypeError("mixture takes two or more families, such as mixture(normal, normal)")
    if len({family.discrete for family in families}) > 1:
        raise ValueError(
            "the families of a mixture must be all discrete or all continuous; got "
            f"{', '.join(family.name for family in families)}"
        )
    constraints = {
        "weights": simplex,
        "components": tuple(family.constraints for family in families),
    }
    return Family(
        f"mixture of {', '.join(family.name for family in families)}",
        constraints,
        _mixture_law(families),
        known=_shared_constants(families),
        discrete=families[0].discrete,
    )


def _shared_constants(families: tuple[Family, ...]) -> dict[str, float | None]:
    """The known constants of the components. One for which two components have different values,
    such as the ends of two truncated families, is not among them: each component keeps its own.
    """
    values: dict[str, set[float | None]] = {}
    for family in families:
        for name, value in family.known.items():
            values.setdefault(name, set()).add(value)
    return {name: next(iter(found)) for name, found in values.items() if len(found) == 1}


def _mixture_law(families: tuple[Family, ...]) -> Law:
    """The functions of a mixture, without those that any component lacks."""
    log_prob = partial(_mixture_log, families, "log_prob")
    log_cdf = partial(_mixture_log, families, "log_cdf")
    log_sf = partial(_mixture_log, families, "log_sf")
    mean = partial(_mixture_mean, families)
    variance = partial(_mixture_variance, families)
    support = partial(_mixture_support, families)

    def quantile(p: NamedParams, q: Array) -> Array:
        if families[0].discrete:
            return smallest_count_from(nearer(log_cdf, log_sf), *support(p), p, q)
        return solve(log_prob, log_cdf, log_sf, "line", p, q)

    tails = all(family.law.log_cdf and family.law.log_sf for family in families)
    draws = all(family.law.sample for family in families)
    return Law(
        log_prob=log_prob,
        log_cdf=log_cdf if tails else None,
        log_sf=log_sf if tails else None,
        quantile=quantile if tails else None,
        sample=partial(_mixture_sample, families) if draws else None,
        mean=mean,
        variance=variance,
        support=support,
        guess=partial(_mixture_guess, families),
    )


def _component_params(families: tuple[Family, ...], p: NamedParams) -> list[NamedParams]:
    """The parameters of each component, together with the known constants of its family."""
    return [
        _constants_of(family, p) | component
        for family, component in zip(families, p["components"], strict=True)
    ]


def _constants_of(family: Family, given: NamedParams) -> NamedParams:
    """The known constants of a component: those given for the mixture, else its own."""
    return {name: given.get(name, default) for name, default in family.known.items()}


def _of_components(
    families: tuple[Family, ...], function: str, p: NamedParams, *args: Tree
) -> list[Tree]:
    """A function of each component, by its name."""
    components = zip(families, _component_params(families, p), strict=True)
    return [getattr(family, function)(params, *args) for family, params in components]


def _mixture_log(families: tuple[Family, ...], function: str, p: NamedParams, y: Array) -> Array:
    """log_prob, log_cdf or log_sf of the mixture: a weighted mean of those of its components."""
    return _log_mean(p["weights"], _of_components(families, function, p, y))


def _mixture_mean(families: tuple[Family, ...], p: NamedParams) -> Array:
    means = _of_components(families, "mean", p)
    return reduce(add, (p["weights"][..., j] * mean for j, mean in enumerate(means)))


def _mixture_variance(families: tuple[Family, ...], p: NamedParams) -> Array:
    means = _of_components(families, "mean", p)
    variances = _of_components(families, "variance", p)
    centre = _mixture_mean(families, p)
    parts = [v + (m - centre) ** 2 for v, m in zip(variances, means, strict=True)]
    return reduce(add, (p["weights"][..., j] * part for j, part in enumerate(parts)))


def _mixture_support(families: tuple[Family, ...], p: NamedParams) -> tuple[Array, Array]:
    lows, highs = zip(*_of_components(families, "support", p), strict=True)
    low = jnp.min(jnp.stack(jnp.broadcast_arrays(*lows)), axis=0)
    high = jnp.max(jnp.stack(jnp.broadcast_arrays(*highs)), axis=0)
    return low, high


def _mixture_sample(
    families: tuple[Family, ...], p: NamedParams, key: Array, shape: tuple[int, ...]
) -> Array:
    """A draw from every component, of which one is picked at random by the weights."""
    component_key, *keys = jax.random.split(key, len(families) + 1)
    draws = [
        family.sample(params, draw_key, shape)
        for family, params, draw_key in zip(
            families, _component_params(families, p), keys, strict=True
        )
    ]
    component = jax.random.categorical(component_key, jnp.log(p["weights"]), shape=shape)
    return jnp.select([component == j for j in range(len(draws))], draws)


def _mixture_guess(families: tuple[Family, ...], y: Array, constants: NamedParams) -> NamedParams:
    """Start values: each component from its share of the sorted values."""
    y, xp = values(y)
    ordered = xp.sort(y)
    size = max(len(y) // len(families), 1)
    parts = [ordered[j * size : (j + 1) * size] for j in range(len(families))]
    start = [
        family.law.guess(part, _constants_of(family, constants))
        for family, part in zip(families, parts, strict=True)
    ]
    return {"weights": xp.full(len(families), 1.0 / len(families)), "components": tuple(start)}
