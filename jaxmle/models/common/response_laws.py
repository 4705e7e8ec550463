"""The distribution of a response given its natural parameters, from the families: mean, variance,
distribution function, quantile, sampler.

Each is a function of arrays (n,), with its own argument first: ``cdf(y, *natural)``,
``quantile(level, *natural)``, ``sample(key, *natural)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from jaxmle._types import Array, Function, Tree
from jaxmle.families import bounded, compound, counts, location_scale, positive
from jaxmle.families.family import Family
from jaxmle.special.normal import ndtri


@dataclass(frozen=True)
class PredictiveLaw:
    """What is known about a response given its natural parameters; None for what is not."""

    mean: Function | None = None
    variance: Function | None = None
    cdf: Function | None = None
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
    high = law.cdf(y, *natural)  # type: ignore[misc]
    if not law.discrete:
        return ndtri(high)
    low = law.cdf(y - 1, *natural)  # type: ignore[misc]
    return ndtri(low + (high - low) * uniform(key, high))


RESIDUALS: dict[str, tuple[Function, tuple[str, ...]]] = {
    "response_residual": (_response, ("mean",)),
    "pearson_residual": (_pearson, ("mean", "variance")),
    "deviance_residual": (_deviance, ("mean", "deviance")),
    "quantile_residual": (_quantile_residual, ("cdf",)),
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

    def sample(key: Array, *natural: Array) -> Array:
        return family.sample(spread(*natural), key, jnp.shape(natural[0])).astype(
            jnp.result_type(natural[0])
        )

    return PredictiveLaw(
        mean=lambda *natural: family.mean(spread(*natural)),
        variance=lambda *natural: family.variance(spread(*natural)),
        cdf=lambda y, *natural: jnp.exp(family.log_cdf(spread(*natural), y)),
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
    lambda y, mu, shape: 2 * shape * ((y - mu) / mu - jnp.log(y / mu)),
)
inverse_gaussian = of_family(
    positive.inverse_gaussian,
    lambda mu, shape: {"mean": mu, "shape": shape},
    lambda y, mu, shape: shape * (y - mu) ** 2 / (mu**2 * y),
)
beta = of_family(bounded.beta, lambda mu, phi: {"shape1": mu * phi, "shape2": (1 - mu) * phi})


# ---------------------------------------------------------------- discrete


def _binomial_deviance(y: Array, n: Array, p: Array) -> Array:
    return 2 * (xlogy(y, y) - xlogy(y, n * p) + xlogy(n - y, n - y) - xlogy(n - y, n * (1 - p)))


def _bernoulli_deviance(y: Array, p: Array) -> Array:
    return _binomial_deviance(y, jnp.ones_like(p), p)


def _negative_binomial_deviance(y: Array, mu: Array, alpha: Array) -> Array:
    return 2 * (xlogy(y, y / mu) - (y + 1 / alpha) * jnp.log((1 + alpha * y) / (1 + alpha * mu)))


def _dispersed(mu: Array, alpha: Array) -> dict[str, Array]:
    return {"mean": mu, "dispersion": alpha}


def _zero(natural: Function, crossed: bool) -> Function:
    return lambda p, *rest: {"zero": 1 - p if crossed else p, **natural(*rest)}


def _rate(mu: Array) -> dict[str, Array]:
    return {"rate": mu}


bernoulli = of_family(counts.bernoulli, lambda p: {"prob": p}, _bernoulli_deviance)
binomial = of_family(counts.binomial, lambda n, p: {"trials": n, "prob": p}, _binomial_deviance)
poisson = of_family(counts.poisson, _rate, lambda y, mu: 2 * (xlogy(y, y / mu) - (y - mu)))
negative_binomial = of_family(counts.negative_binomial, _dispersed, _negative_binomial_deviance)
zero_inflated_poisson = of_family(compound.zero_inflated(counts.poisson), _zero(_rate, False))
zero_inflated_negative_binomial = of_family(
    compound.zero_inflated(counts.negative_binomial), _zero(_dispersed, False)
)
hurdle_poisson = of_family(compound.hurdle(counts.poisson), _zero(_rate, True))
hurdle_negative_binomial = of_family(
    compound.hurdle(counts.negative_binomial), _zero(_dispersed, True)
)

categorical = PredictiveLaw(
    mean=lambda probabilities: probabilities,
    cdf=lambda y, probabilities: jnp.exp(counts.categorical.log_cdf({"probs": probabilities}, y)),
    quantile=lambda level, probabilities: jnp.sum(
        jnp.cumsum(probabilities, axis=-1)[..., :-1] < level, axis=-1
    ).astype(probabilities.dtype),
    sample=lambda key, probabilities: jax.random.categorical(key, jnp.log(probabilities)).astype(
        probabilities.dtype
    ),
    discrete=True,
)
