"""``from_numpyro``: a numpyro model as a log-likelihood, and its priors as a log prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Function, Loglik, Tree, ndarray
from jaxmle.families.adaptor import translated
from jaxmle.likelihood.combinators import penalize
from jaxmle.likelihood.contract import data_length
from jaxmle.parameters.arguments import check_flag, shown
from jaxmle.parameters.constraints import Constraint, Interval, free
from jaxmle.parameters.keywords import with_keyword_hints

DRAWS_OF_START = 15  # of the prior, whose median a search starts from, as numpyro's own does
DATA_OF_MODEL = "a dictionary from the model's arguments to arrays, {'x': x, 'y': y}"


@dataclass(frozen=True, eq=False)
class NumpyroModel:
    """The likelihood of a numpyro model: a function of ``(params, data)`` that can be passed to
    ``fit``.

    Attributes:
        likelihood: the joint log-likelihood of the observed sites, a function of ``(params,
            data)``: one term for each row if every site has one, otherwise one number.
        prior: the log prior of the latent sites, a function of the parameters on their own scale,
            without a Jacobian, for ``penalize``.
        params0: start values by the names of the latent sites: medians of their priors.
        constraints: the supports of the latent sites.

    >>> import jax.numpy as jnp, numpy as np, jaxmle as jm
    >>> import numpyro, numpyro.distributions as dist
    >>> def model(y):
    ...     rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    ...     numpyro.sample("y", dist.Exponential(rate), obs=y)
    >>> data = {"y": np.array([1.0, 2.0, 6.0])}
    >>> sorted(jm.from_numpyro(model, data).constraints)
    ['rate']
    """

    likelihood: Loglik
    prior: Callable[[Tree], Array]
    params0: dict[str, Tree]
    constraints: dict[str, Constraint]

    def __call__(self, params: Tree, data: Tree) -> Array:
        """The log-likelihood terms (n,), or their sum."""
        return self.likelihood(params, data)

    def start(self, data: Tree) -> dict[str, Tree]:
        """The start values, whatever the data."""
        return dict(self.params0)

    def with_likelihood(self, tree: Tree) -> NumpyroModel:
        """The model with the likelihood that a combinator made from it."""
        return replace(self, likelihood=tree)


@with_keyword_hints
def from_numpyro(model: Function, data: Mapping[str, Tree], *, priors: bool = False) -> Tree:
    """The joint likelihood of a numpyro model, without its priors, or with them for MAP.

    Latent sites (and ``numpyro.param``) become parameters, bounded by their supports; the observed
    ones make the likelihood. Maximum likelihood drops the priors; with ``priors=True`` their
    densities on the scale of the parameters are added, without the Jacobian that samplers need, so
    the mode does not depend on the transform of a constraint.

    Args:
        model: a numpyro model, a function whose observed sites are given by its arguments.
        data: a dictionary from these arguments to arrays, as passed to ``fit``.
        priors: whether the log priors are added.

    Returns:
        A ``NumpyroModel``, which knows where to start: ``fit(from_numpyro(model, data),
        data=data)``.

    Raises:
        ImportError: if numpyro is not installed.
        ValueError: for a latent site that is discrete, or whose support has no counterpart here or
            depends on other parameters; for subsampled plates; without an observed site.

    >>> import numpy as np, jaxmle as jm
    >>> import numpyro, numpyro.distributions as dist
    >>> def model(x, y=None):
    ...     slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    ...     sigma = numpyro.sample("sigma", dist.HalfNormal(5.0))
    ...     numpyro.sample("y", dist.Normal(slope * x, sigma), obs=y)
    >>> data = {"x": np.array([1.0, 2.0, 3.0, 4.0]), "y": np.array([1.1, 1.9, 3.2, 3.8])}
    >>> result = jm.fit(jm.from_numpyro(model, data), data=data)
    >>> round(float(result.params["slope"]), 6)  # Σxy/Σx²
    0.99
    >>> jm.fit(jm.from_numpyro(model, data, priors=True), data=data).mode
    'MAP'
    """
    check_flag("priors", priors)
    if not callable(model) or isinstance(model, type):
        raise TypeError(f"from_numpyro needs a numpyro model, a function; got {shown(model)}")
    if not isinstance(data, Mapping):
        raise TypeError(f"the data of a numpyro model must be {DATA_OF_MODEL}; got {shown(data)}")
    arguments = {name: np.asarray(leaf) for name, leaf in data.items()}
    sites = _sites(model, {}, arguments)
    latent = {name: site for name, site in sites.items() if _is_latent(name, site)}
    if not any(_is_observed(site) for site in sites.values()):
        raise ValueError(
            "the model has no observed site: put the response into data, under the "
            f"argument that obs= reads, {DATA_OF_MODEL}"
        )
    if not latent:
        raise ValueError("the model has no latent site: there is nothing to estimate")
    constraints = {name: _constraint(name, site) for name, site in latent.items()}
    made = NumpyroModel(
        _Likelihood(model),
        _prior_of(model, arguments),
        _start(model, arguments, latent, constraints),
        constraints,
    )
    _check_supports(model, arguments, made)
    return penalize(made, made.prior) if priors else made


# ---------------------------------------------------------------- sites


def _sites(model: Function, params: Tree, data: Tree, seed: int = 0) -> dict[str, Tree]:
    """The sites of one run of the model, with latent sites at ``params`` where these are given."""
    try:
        handlers = import_module("numpyro.handlers")
    except ImportError as error:
        raise ImportError("from_numpyro needs numpyro: pip install numpyro") from error
    run = handlers.seed(handlers.substitute(model, data=params), jax.random.key(seed))
    return handlers.trace(run).get_trace(**data)


def _is_observed(site: Mapping[str, Tree]) -> bool:
    return site["type"] == "sample" and bool(site.get("is_observed"))


def _is_latent(name: str, site: Mapping[str, Tree]) -> bool:
    """Whether a site is a parameter; refuses those that cannot be."""
    if site["type"] == "plate":
        size, subsample = site["args"]
        if subsample is not None and subsample != size:
            raise ValueError(
                f"plate {name!r} draws {subsample} of its {size} rows, but a fit uses all "
                "rows; for mini-batches use fit_stochastic"
            )
    if site["type"] == "param":
        return True
    if site["type"] != "sample" or site.get("is_observed"):
        return False
    if getattr(site["fn"], "is_discrete", False) or site["fn"].support.is_discrete:
        raise ValueError(
            f"{name!r} is a discrete latent site, which cannot be differentiated: sum "
            "over its values in the likelihood, as in a mixture"
        )
    return True


def _support(site: Mapping[str, Tree]) -> Constraint:
    return site["kwargs"].get("constraint") if site["type"] == "param" else site["fn"].support


def _constraint(name: str, site: Mapping[str, Tree]) -> Constraint:
    support = _support(site)
    if support is None:
        return free
    try:
        return translated(name, support)
    except ValueError:
        raise ValueError(
            f"{name!r} has a support of kind {type(support).__name__.lstrip('_')}, which "
            "has no counterpart here: reparametrise the model"
        ) from None


def _check_supports(model: Function, data: Tree, made: NumpyroModel) -> None:
    """A support that moves with other parameters is no constraint of its own."""
    sites = _sites(model, made.params0, data, 1)
    for name, constraint in made.constraints.items():
        if _constraint(name, sites[name]) != constraint:
            raise ValueError(
                f"the support of {name!r} depends on other parameters: write it as a "
                "function of a parameter with a fixed support, such as share * upper"
            )


def _start(
    model: Function,
    data: Tree,
    latent: Mapping[str, Tree],
    constraints: Mapping[str, Constraint],
) -> dict[str, Tree]:
    """Medians of draws of the priors, inside the bounds."""
    runs = [_sites(model, {}, data, seed) for seed in range(DRAWS_OF_START)]
    start = {}
    for name in latent:
        draws = np.stack([np.asarray(run[name]["value"], np.float64) for run in runs])
        constraint = constraints[name]
        if isinstance(constraint, Interval):
            start[name] = _inside(np.median(draws, axis=0), constraint)
        else:  # a median of simplices or of covariances is none
            start[name] = draws[0]
    return start


def _inside(value: ndarray, constraint: Interval) -> ndarray:
    """A value that is finite and off the bounds."""
    low = constraint.lower
    high = constraint.upper
    middle = 0.5 * (low + high) if math.isfinite(low) and math.isfinite(high) else 0.0
    beside = low + 1.0 if math.isfinite(low) else high - 1.0 if math.isfinite(high) else 0.0
    default = middle if math.isfinite(low) and math.isfinite(high) else beside
    return np.where(np.isfinite(value) & (value > low) & (value < high), value, default)


# ---------------------------------------------------------------- densities


@dataclass(frozen=True)
class _Likelihood:
    """The joint log-likelihood of the observed sites."""

    model: Function

    def __call__(self, params: Tree, data: Tree) -> Array:
        sites = _sites(self.model, params, data)
        parts = [_log_prob(site) for site in sites.values() if _is_observed(site)]
        rows = data_length(data)
        if rows is not None and all(part.shape[:1] == (rows,) for part in parts):
            summed = [jnp.sum(part.reshape(rows, -1), axis=1) for part in parts]
            return sum(summed[1:], start=summed[0])
        return jnp.sum(jnp.stack([jnp.sum(part) for part in parts]))


def _prior_of(model: Function, data: Tree) -> Callable[[Tree], Array]:
    """The log prior of the latent sites, on their own scale."""

    def log_prior(params: Tree) -> Array:
        sites = _sites(model, params, data)
        latent = [
            site for site in sites.values() if site["type"] == "sample" and not _is_observed(site)
        ]
        return jnp.sum(jnp.stack([jnp.sum(_log_prob(site)) for site in latent] or [jnp.zeros(())]))

    return log_prior


def _log_prob(site: Mapping[str, Tree]) -> Array:
    value = site["fn"].log_prob(site["value"])
    scale = site.get("scale")
    return jnp.asarray(value if scale is None else scale * value)
