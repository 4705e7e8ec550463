"""Regression of a binary or binomial response: logit, probit and complementary log-log links."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.likelihood.regression import linear, regression
from jaxmle.likelihood.response import exact
from jaxmle.models.common import coding, response_laws
from jaxmle.models.common.log_differences import log_ndtr
from jaxmle.models.common.model import Model
from jaxmle.models.common.options import made_once
from jaxmle.models.common.predictors import eta_of
from jaxmle.models.common.start_values import column, regress
from jaxmle.parameters.arguments import check_choice
from jaxmle.special.exponential import held_exp, log_cloglog
from jaxmle.special.gamma import gammaln
from jaxmle.special.logistic import log_sigmoid, sigmoid, softplus


class Link(NamedTuple):
    """A binary link: log p and log(1 − p) as functions of the predictor, p itself, and the size of
    one logit on this scale.
    """

    log_p: Callable[[Array], Array]
    log_q: Callable[[Array], Array]
    p: Callable[[Array], Array]
    logit: float


LINKS = {
    "logit": Link(log_sigmoid, lambda eta: -softplus(eta), sigmoid, 1.0),
    "probit": Link(log_ndtr, lambda eta: log_ndtr(-eta), ndtr, 0.6),
    "cloglog": Link(
        log_cloglog,
        lambda eta: -held_exp(eta),
        lambda eta: -jnp.expm1(-held_exp(eta)),
        0.8,
    ),
}


def _probabilities(link: Link, eta: Array) -> tuple[Array, Array, Array]:
    """p, log p and log(1 − p), the natural parameters of a binary response."""
    return link.p(eta), link.log_p(eta), link.log_q(eta)


def logit_logpmf(eta: Tree, row: Tree) -> Array:
    """The log probability y η − log(1 + e^η) under a logit link."""
    return row["y"] * eta["eta"] - softplus(eta["eta"])


def _logit_information(eta: Tree, row: Tree) -> Array:
    return sigmoid(eta["eta"]) * sigmoid(-eta["eta"])


def probit_logpmf(eta: Tree, row: Tree) -> Array:
    """The log probability y log Φ(η) + (1 − y) log Φ(−η) under a probit link."""
    return row["y"] * log_ndtr(eta["eta"]) + (1 - row["y"]) * log_ndtr(-eta["eta"])


def cloglog_logpmf(eta: Tree, row: Tree) -> Array:
    """The log probability y log(1 − exp(−e^η)) − (1 − y)e^η under a complementary log-log link."""
    return row["y"] * log_cloglog(eta["eta"]) - (1 - row["y"]) * held_exp(eta["eta"])


def _bernoulli_information(link: str, eta: Tree, row: Tree) -> Array:
    """The expected information of one trial, (dp/dη)²/(p q) = e^{2 log p' − log p − log q}."""
    value = eta["eta"]
    slope = jax.grad(LINKS[link].log_p)(value)  # p'/p
    return slope**2 * jnp.exp(LINKS[link].log_p(value) - LINKS[link].log_q(value))


def _bernoulli_cross(link: str, eta: Tree, row: Tree) -> Array:
    """The cross moment E(∂²ℓ/∂η² · ∂ℓ/∂η), by the sum over both responses: p a''a' + q b''b' with a
    = log p, b = log q; zero for a logit.
    """
    value = eta["eta"]
    if link == "logit":
        return jnp.zeros_like(value)
    return sum(
        (
            jnp.exp(log(value)) * jax.grad(jax.grad(log))(value) * jax.grad(log)(value)
            for log in (LINKS[link].log_p, LINKS[link].log_q)
        ),
        jnp.zeros_like(value),
    )


BERNOULLI_LAWS = {"logit": logit_logpmf, "probit": probit_logpmf, "cloglog": cloglog_logpmf}


def _bernoulli(link: str, name: str, offset: str | None) -> Model:
    information = (
        _logit_information if link == "logit" else functools.partial(_bernoulli_information, link)
    )
    return Model(
        name,
        regression(
            BERNOULLI_LAWS[link],
            {"eta": linear("x", "beta", offset)},
            response=exact(information, functools.partial(_bernoulli_cross, link)),
        ),
        functools.partial(_start_values, link=link, trials=None, offset=offset),
        None,
        lambda params, data: _probabilities(LINKS[link], eta_of(params, data, offset)),
        response_laws.bernoulli,
        coding=(coding.binary(), *coding.optional(offset)),
    )


@made_once
def logistic(*, offset: str | None = None) -> Model:
    """Logistic regression of a 0/1 response: P(y = 1) = sigmoid(xβ). Parameters: ``beta`` (q,).

    A response between 0 and 1 is treated as a fraction; ask for ``vcov="HC0"`` then (Papke &
    Wooldridge 1996, Journal of Applied Econometrics 11, p. 619).

    Args:
        offset: name of a data leaf (n,) added to the predictor.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((4, 1)), "y": np.array([0.0, 1.0, 1.0, 1.0])}
    >>> fit = jm.fit(models.logistic(), data=data)
    >>> (
    ...     fit.params["beta"].round(4).tolist(),
    ...     models.logistic().predict(fit.params, data).round(4).tolist(),
    ... )
    ([1.0986], [0.75, 0.75, 0.75, 0.75])
    """
    return _bernoulli("logit", "logistic", offset)


@made_once
def probit(*, offset: str | None = None) -> Model:
    """Probit regression of a 0/1 response: P(y = 1) = Φ(xβ). Parameters: ``beta`` (q,).

    Args:
        offset: name of a data leaf (n,) added to the predictor.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> data = {"x": np.ones((1, 1)), "y": np.ones(1)}
    >>> models.probit().predict({"beta": np.array([1.0])}, data).round(4).tolist()  # Φ(1)
    [0.8413]
    """
    return _bernoulli("probit", "probit", offset)


@made_once
def cloglog(*, offset: str | None = None) -> Model:
    """Complementary log-log regression of a 0/1 response: P(y = 1) = 1 − exp(−e^{xβ}). Parameters:
    ``beta`` (q,).

    Args:
        offset: name of a data leaf (n,) added to the predictor.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> data = {"x": np.ones((1, 1)), "y": np.ones(1)}
    >>> models.cloglog().predict({"beta": np.zeros(1)}, data).round(4).tolist()  # 1 − e⁻¹
    [0.6321]
    """
    return _bernoulli("cloglog", "cloglog", offset)


@made_once
def binomial(*, trials: str = "trials", link: str = "logit", offset: str | None = None) -> Model:
    """Binomial regression of ``y`` successes in ``data[trials]`` trials. Parameters: ``beta`` (q,).

    Args:
        trials: name of the leaf (n,) that holds the number of trials.
        link: ``"logit"``, ``"probit"`` or ``"cloglog"``.
        offset: name of a data leaf (n,) added to the predictor.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((2, 1)), "y": np.array([3.0, 5.0]), "trials": np.array([10.0, 10.0])}
    >>> jm.fit(models.binomial(), data=data).params["beta"].round(4).tolist()
    [-0.4055]
    """
    check_choice("link", link, LINKS)
    ends = LINKS[link]

    def density(eta: Tree, row: Tree) -> Array:
        n = row[trials]
        y = row["y"]
        choose = gammaln(n + 1) - gammaln(y + 1) - gammaln(n - y + 1)
        return choose + y * ends.log_p(eta["eta"]) + (n - y) * ends.log_q(eta["eta"])

    def information(eta: Tree, row: Tree) -> Array:
        return row[trials] * _bernoulli_information(link, eta, row)

    def cross(eta: Tree, row: Tree) -> Array:
        # Trials are independent, and each has a mean score of zero.
        return row[trials] * _bernoulli_cross(link, eta, row)

    return Model(
        "binomial",
        regression(
            density, {"eta": linear("x", "beta", offset)}, response=exact(information, cross)
        ),
        functools.partial(_start_values, link=link, trials=trials, offset=offset),
        None,
        lambda params, data: (
            jnp.asarray(data[trials]) + 0.0 * (eta := eta_of(params, data, offset)),
            *_probabilities(ends, eta),
        ),
        response_laws.binomial,
        coding=(
            coding.counts(trials),
            coding.counts(),
            coding.Order(
                "y",
                trials,
                f"y counts the successes among data[{trials!r}]; from a proportion "
                f"compute y * {trials}.",
            ),
            *coding.optional(offset),
        ),
    )


def _start_values(data: Tree, link: str, trials: str | None, offset: str | None) -> Tree:
    """One step of iteratively reweighted least squares on the logit scale from μ = (y + ½)/(n +
    1), then to the scale of the link.
    """
    y = column(data, "y")
    xp = namespace(y)
    n = xp.ones_like(y) if trials is None else xp.maximum(column(data, trials), y)
    mu = (xp.clip(y, 0.0, n) + 0.5) / (n + 1)
    weight = n * mu * (1 - mu)
    z = LINKS[link].logit * (xp.log(mu) - xp.log1p(-mu) + (y - n * mu) / xp.maximum(weight, 1e-12))
    beta, _ = regress(data, "x", z if offset is None else z - column(data, offset), weight)
    return {"beta": beta}
