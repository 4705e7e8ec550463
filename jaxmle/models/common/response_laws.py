"""The distribution of a response given its natural parameters, from the families: mean, variance,
distribution function, quantile, sampler.

Each is a function of arrays (n,), with its own argument first: ``cdf(y, *natural)``,
``tails(y, *natural)``, P(Y ≤ y) and P(Y > y), ``quantile(level, *natural)``, ``sample(key,
*natural)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from jaxmle._types import Array, Function, Tree
from jaxmle.families import bounded, compound, counts, location_scale, positive
from jaxmle.families.family import Family
from jaxmle.special.counts import excess_of_log, negative_binomial_deviance
from jaxmle.special.normal import ndtri
from jaxmle.special.stirling import excess


@dataclass(frozen=True)
class PredictiveLaw:
    """What is known about a response given its natural parameters; None for what is not."""

    mean: Function | None = None
    variance: Function | None = None
    cdf: Function | None = None
    tails: Function | None = None
    quantile: Function | None = None
    sample: Function | None = None
    deviance: Function | None = None  # d(y, *natural) = 2(ℓ_saturated − ℓ)
    discrete: bool = False
    log_survival: Function | None = None  # of a time: log S(t, *natural)
    log_density: Function | None = None  # of a time: log f(t, *natural)

    def function(self, what: str, model: str) -> Function:
        """The function named ``what``, or a residual made from several functions."""
        make, parts = (RESIDUALS | CURVES).get(what, (None, (what,)))
        missing = [part for part in parts if getattr(self, part) is None]
        if missing and what in CURVES:
            raise TypeError(
                f"the model {model} has no {what} of its own: "
                f"jaxmle.survival.{what}(model, fit, data, times) estimates the one of a "
                "Cox model, and aft(…) has one"
            )
        if missing:
            raise TypeError(f"the model {model} has no {missing[0]}")
        return getattr(self, what) if make is None else _Bound(make, self)


@dataclass(frozen=True)
class _Bound:
    """A residual with its distribution; equal if both are, so that compiled code is reused."""

    make: Function
    law: PredictiveLaw

    def __call__(self, *args: Tree) -> Tree:
        return self.make(self.law, *args)


def _response(law: PredictiveLaw, y: Array, *natural: Array) -> Array:
    return y - law.mean(*natural)  # type: ignore[misc]


def _pearson(law: PredictiveLaw, y: Array, *natural: Array) -> Array:
    return (y - law.mean(*natural)) / jnp.sqrt(law.variance(*natural))  # type: ignore[misc]


def _deviance(law: PredictiveLaw, y: Array, *natural: Array) -> Array:
    mean = law.mean(*natural)  # type: ignore[misc]
    deviance = law.deviance(y, *natural)  # type: ignore[misc]
    return jnp.sign(y - mean) * jnp.sqrt(jnp.maximum(deviance, 0.0))


def _quantile_residual(law: PredictiveLaw, y: Array, key: Array, *natural: Array) -> Array:
    below, above = law.tails(y, *natural)  # type: ignore[misc]
    if law.discrete:
        share = uniform(key, below)
        less, rest = law.tails(y - 1, *natural)  # type: ignore[misc]
        below = less + share * (below - less)
        above = above + (1 - share) * (rest - above)
    return normal_score(below, above)


def normal_score(below: Array, above: Array) -> Array:
    """Φ⁻¹ of a probability, from the smaller of it and its complement, which has the digits."""
    low = below < 0.5
    return jnp.where(low, ndtri(jnp.where(low, below, 0.5)), -ndtri(jnp.where(low, 0.5, above)))


RESIDUALS: dict[str, tuple[Function, tuple[str, ...]]] = {
    "response_residual": (_response, ("mean",)),
    "pearson_residual": (_pearson, ("mean", "variance")),
    "deviance_residual": (_deviance, ("mean", "deviance")),
    "quantile_residual": (_quantile_residual, ("cdf", "tails")),
}


def _survival(law: PredictiveLaw, times: Array, *natural: Array) -> Array:
    return jnp.exp(_on_grid(law.log_survival, times, natural))


def _cumulative_hazard(law: PredictiveLaw, times: Array, *natural: Array) -> Array:
    return -_on_grid(law.log_survival, times, natural)


def _hazard(law: PredictiveLaw, times: Array, *natural: Array) -> Array:
    log_density = _on_grid(law.log_density, times, natural)
    return jnp.exp(log_density - _on_grid(law.log_survival, times, natural))


def _on_grid(function: Function | None, times: Array, natural: tuple[Array, ...]) -> Array:
    """A function of a time (n,), or of several (n, m), for each row."""
    times = jnp.asarray(times)
    if times.ndim == 0:
        return function(times, *natural)  # type: ignore[misc]
    return function(times[None, :], *(value[:, None] for value in natural))  # type: ignore[misc]


CURVES: dict[str, tuple[Function, tuple[str, ...]]] = {
    "survival": (_survival, ("log_survival",)),
    "cumulative_hazard": (_cumulative_hazard, ("log_survival",)),
    "hazard": (_hazard, ("log_density", "log_survival")),
}


def uniform(key: Array, like: Array) -> Array:
    """Uniform random numbers with the shape of ``like``, never 0."""
    return jax.random.uniform(
        key,
        jnp.shape(like),
        dtype=jnp.result_type(like),
        minval=jnp.finfo(jnp.result_type(like)).tiny,
    )


def of_family(
    family: Family, parameters: Function, deviance: Function | None = None
) -> PredictiveLaw:
    """The distribution of a family whose parameters are the dictionary ``parameters(*natural)``."""

    def spread(*natural: Array) -> dict[str, Array]:
        return parameters(*natural)

    def tails(y: Array, *natural: Array) -> tuple[Array, Array]:
        p = family.read(spread(*natural))
        law = family.law
        logs = law.log_tails(p, y) if law.log_tails else (law.log_cdf(p, y), law.log_sf(p, y))
        return jnp.exp(logs[0]), jnp.exp(logs[1])

    def sample(key: Array, *natural: Array) -> Array:
        return family.sample(spread(*natural), key, jnp.shape(natural[0])).astype(
            jnp.result_type(natural[0])
        )

    return PredictiveLaw(
        mean=lambda *natural: family.mean(spread(*natural)),
        variance=lambda *natural: family.variance(spread(*natural)),
        cdf=lambda y, *natural: jnp.exp(family.log_cdf(spread(*natural), y)),
        tails=tails,
        quantile=lambda level, *natural: family.quantile(
            spread(*natural), jnp.broadcast_to(level, jnp.shape(natural[0]))
        ),
        sample=sample,
        deviance=deviance,
        discrete=family.discrete,
    )


# ---------------------------------------------------------------- continuous

normal = of_family(
    location_scale.normal,
    lambda mu, sigma: {"loc": mu, "scale": sigma},
    lambda y, mu, sigma: ((y - mu) / sigma) ** 2,
)
student_t = of_family(
    location_scale.student_t, lambda mu, scale, df: {"loc": mu, "scale": scale, "df": df}
)
gamma = of_family(
    positive.gamma,
    lambda mu, shape: {"shape": shape, "rate": shape / mu},
    lambda y, mu, shape: 2 * shape * excess((y - mu) / mu, y / mu),
)
inverse_gaussian = of_family(
    positive.inverse_gaussian,
    lambda mu, shape: {"mean": mu, "shape": shape},
    lambda y, mu, shape: shape * (y - mu) ** 2 / (mu**2 * y),
)
beta = of_family(bounded.beta, lambda mu, phi: {"shape1": mu * phi, "shape2": (1 - mu) * phi})


# ---------------------------------------------------------------- discrete


def _unit_deviance(k: Tree, mean: Tree, log_mean: Tree) -> Array:
    """k log(k/m) − k + m for counts k ≥ 0 of mean m, without cancellation at k ≈ m."""
    some = k > 0
    up = jnp.where(some, k, 1.0)
    return jnp.where(some, up * excess_of_log((mean - up) / up, log_mean - jnp.log(up)), mean)


def _binomial_deviance(y: Array, n: Array, p: Array, log_p: Array, log_q: Array) -> Array:
    log_n = jnp.log(n)
    successes = _unit_deviance(y, n * p, log_n + log_p)
    return 2 * (successes + _unit_deviance(n - y, n * jnp.exp(log_q), log_n + log_q))


def _bernoulli_deviance(y: Array, p: Array, log_p: Array, log_q: Array) -> Array:
    return _binomial_deviance(y, jnp.ones_like(p), p, log_p, log_q)


def _bernoulli_tails(y: Array, p: Array, log_p: Array, log_q: Array) -> tuple[Array, Array]:
    below = jnp.where(y < 0, 0.0, jnp.where(y < 1, jnp.exp(log_q), 1.0))
    return below, jnp.where(y < 0, 1.0, jnp.where(y < 1, p, 0.0))


def _dispersed(mu: Array, alpha: Array) -> dict[str, Array]:
    return {"mean": mu, "dispersion": alpha}


def _zero(natural: Function, crossed: bool) -> Function:
    return lambda p, *rest: {"zero": 1 - p if crossed else p, **natural(*rest)}


def _rate(mu: Array) -> dict[str, Array]:
    return {"rate": mu}


# Natural parameters of a binary response are p, log p and log(1 − p): 1 − p itself is lost where p
# rounds to 1.
bernoulli = replace(
    of_family(counts.bernoulli, lambda p, *_: {"prob": p}, _bernoulli_deviance),
    variance=lambda p, log_p, log_q: p * jnp.exp(log_q),
    cdf=lambda y, *natural: _bernoulli_tails(y, *natural)[0],
    tails=_bernoulli_tails,
)
binomial = replace(
    of_family(counts.binomial, lambda n, p, *_: {"trials": n, "prob": p}, _binomial_deviance),
    variance=lambda n, p, log_p, log_q: n * p * jnp.exp(log_q),
)
poisson = of_family(counts.poisson, _rate, lambda y, mu: 2 * _unit_deviance(y, mu, jnp.log(mu)))
negative_binomial = of_family(counts.negative_binomial, _dispersed, negative_binomial_deviance)
zero_inflated_poisson = of_family(compound.zero_inflated(counts.poisson), _zero(_rate, False))
zero_inflated_negative_binomial = of_family(
    compound.zero_inflated(counts.negative_binomial), _zero(_dispersed, False)
)
hurdle_poisson = of_family(compound.hurdle(counts.poisson), _zero(_rate, True))
hurdle_negative_binomial = of_family(
    compound.hurdle(counts.negative_binomial), _zero(_dispersed, True)
)


def _categorical_tails(y: Array, probabilities: Array) -> tuple[Array, Array]:
    p = {"probs": probabilities}
    return jnp.exp(counts.categorical.log_cdf(p, y)), jnp.exp(counts.categorical.log_sf(p, y))


categorical = PredictiveLaw(
    mean=lambda probabilities: probabilities,
    cdf=lambda y, probabilities: _categorical_tails(y, probabilities)[0],
    tails=_categorical_tails,
    quantile=lambda level, probabilities: jnp.sum(
        jnp.cumsum(probabilities, axis=-1)[..., :-1] < level, axis=-1
    ).astype(probabilities.dtype),
    sample=lambda key, probabilities: jax.random.categorical(key, jnp.log(probabilities)).astype(
        probabilities.dtype
    ),
    discrete=True,
)
