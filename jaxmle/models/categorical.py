"""Regression of a category: multinomial logit, conditional logit, cumulative links for ordered
categories.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp, ndtr

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.likelihood.contract import leaf_of
from jaxmle.likelihood.regression import linear, regression
from jaxmle.likelihood.response import enumeration, exact
from jaxmle.models.common import coding, response_laws
from jaxmle.models.common.log_differences import (
    log_expit_diff,
    log_ndtr,
    log_ndtr_diff,
    log_weibull_diff,
)
from jaxmle.models.common.model import Model
from jaxmle.models.common.options import made_once
from jaxmle.models.common.predictors import eta_of
from jaxmle.models.common.start_values import column, regress
from jaxmle.parameters.arguments import check_choice
from jaxmle.parameters.constraints import ordered
from jaxmle.special.exponential import held_exp, log_cloglog
from jaxmle.special.logistic import log_sigmoid, sigmoid


def _check_classes(classes: int, least: int) -> None:
    if classes < least:
        raise ValueError(f"classes must be a whole number, {least} or more; got {classes!r}")


# ---------------------------------------------------------------- unordered


def multinomial_logpmf(eta: Tree, row: Tree) -> Array:
    """η_y − log(1 + Σ e^{η_k}), classes 1 … K − 1 against class 0; NaN for a response that is not a
    class.
    """
    value = eta["eta"]
    y = row["y"]
    k = jnp.arange(1, value.shape[0] + 1)
    top = jnp.maximum(jnp.max(value), 0.0)
    total = jax.lax.stop_gradient(top)
    chosen = jnp.sum(jnp.where(y == k, value, 0.0))
    known = (y == 0) | jnp.any(y == k)
    return jnp.where(
        known, chosen - total - jnp.log(jnp.exp(-total) + jnp.sum(jnp.exp(value - total))), jnp.nan
    )


def _multinomial_information(eta: Tree, row: Tree) -> Array:
    """diag(p) − p p' over the classes beyond the base."""
    p = jnp.exp(
        eta["eta"] - logsumexp(jnp.concatenate([jnp.zeros(1, eta["eta"].dtype), eta["eta"]]))
    )
    return jnp.diag(p) - p[:, None] * p[None, :]


def _multinomial_cross(eta: Tree, row: Tree) -> Array:
    """The second derivatives do not contain the response."""
    return jnp.zeros((len(eta["eta"]),) * 3, eta["eta"].dtype)


@made_once
def multinomial(classes: int) -> Model:
    """Multinomial logit of a class 0 … K − 1: log P(k)/P(0) = x beta[:, k − 1]. Parameters:
    ``beta`` (q, K − 1).

    Args:
        classes: the number of classes K.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((4, 1)), "y": np.array([0.0, 1.0, 2.0, 2.0])}
    >>> jm.fit(models.multinomial(3), data=data).params["beta"].round(4).tolist()
    [[0.0, 0.6931]]
    """
    _check_classes(classes, 2)
    return Model(
        "multinomial",
        regression(
            multinomial_logpmf,
            {"eta": linear("x", "beta")},
            response=exact(_multinomial_information, _multinomial_cross),
        ),
        functools.partial(_start_multinomial, classes=classes),
        None,
        _multinomial_natural,
        response_laws.categorical,
        coding=(coding.classes(classes),),
    )


def _multinomial_natural(params: Tree, data: Tree) -> tuple[Array]:
    eta = eta_of(params, data)
    return (jax.nn.softmax(jnp.concatenate([jnp.zeros_like(eta[:, :1]), eta], axis=1), axis=1),)


def _start_multinomial(data: Tree, classes: int) -> Tree:
    """For each class, a linear approximation to its logit against the base."""
    y = column(data, "y")
    xp = namespace(y)
    base = (y == 0).astype(y.dtype)
    steps = [
        regress(data, "x", 2.0 * ((y == k).astype(y.dtype) - base))[0] for k in range(1, classes)
    ]
    return {"beta": xp.stack(steps, axis=-1)}


# ---------------------------------------------------------------- matched sets


LOG_OF_ZERO = -1e18  # the log of 0, as a number: sums and differences of it are numbers too


def conditional_terms(params: Tree, data: Tree, cases: int, real: str | None) -> Array:
    """One term for each stratum: the log of e^{Σ_cases η} over the sum of the same for every choice
    of as many members.
    """
    eta = leaf_of(data, "x") @ params["beta"]
    member = jnp.ones_like(eta) if real is None else leaf_of(data, real).astype(eta.dtype)
    chosen = leaf_of(data, "y") * member
    # Subtract the largest predictor from all: as the number of cases is fixed, it changes both sums
    # alike.
    top = jax.lax.stop_gradient(
        jnp.max(jnp.where(member > 0, eta, -jnp.inf), axis=1, keepdims=True)
    )
    eta = jnp.where(member > 0, eta - top, 0.0)
    picked = jnp.sum(jnp.where(chosen > 0, eta, 0.0), axis=1)
    count = jnp.sum(chosen, axis=1)
    order = jnp.arange(cases + 1)[None, :] == count[:, None]
    choices = _log_choices(jnp.where(member > 0, eta, LOG_OF_ZERO), cases)
    size = jnp.sum(jnp.where(order, choices, 0.0), axis=1)
    return jnp.where(jnp.any(order, axis=1), picked - size, jnp.nan)


def _log_choices(log_odds: jax.Array, cases: int) -> jax.Array:
    """Logs of the elementary symmetric functions of order 0, …, cases of the odds (strata,
    members), member by member.

    Gail, Lubin & Rubinstein 1981, Biometrika 68, p. 703. There are 1e360 ways to choose 600 of 1
    200 members, so the counts are kept as logs.
    """
    if cases == 1:
        return jnp.stack([jnp.zeros_like(log_odds[:, 0]), logsumexp(log_odds, axis=1)], axis=1)
    start = jnp.full((log_odds.shape[0], cases + 1), LOG_OF_ZERO, log_odds.dtype).at[:, 0].set(0.0)

    def add(logs: jax.Array, member: jax.Array) -> tuple[jax.Array, None]:
        more = jnp.logaddexp(logs[:, 1:], logs[:, :-1] + member[:, None])
        return logs.at[:, 1:].set(more), None

    return jax.lax.scan(add, start, log_odds.T)[0]


@made_once
def conditional_logit(*, cases: int = 1, real: str | None = None) -> Model:
    """Conditional (fixed-effects) logit: which members of each stratum are cases, given the number
    of cases. Parameters: ``beta`` (q,).

    One term for each stratum. The likelihood is exact; a stratum without cases, or with only cases,
    contributes 0. ``predict`` is the probability of each member to be a case, and ``sample`` draws
    as many cases as the stratum has; one if it has none.

    Args:
        cases: the largest number of cases in a stratum.
        real: name of a leaf (strata, members), 1 for a member and 0 for padding, if strata differ
            in size.

    Returns:
        A ``Model`` of the data ``{"x": (strata, members, q), "y": (strata, members)}``, y 1 for a
        case.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> x = np.array([[[0.0], [1.0]], [[1.0], [0.0]], [[2.0], [1.0]]])
    >>> jm.fit(
    ...     models.conditional_logit(),
    ...     data={"x": x, "y": np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])},
    ... ).params["beta"].round(4).tolist()
    [0.6931]
    """
    _check_classes(cases, 1)
    return Model(
        "conditional_logit",
        functools.partial(conditional_terms, cases=cases, real=real),
        _start_conditional,
        None,
        functools.partial(_conditional_natural, cases=cases, real=real),
        response_laws.PredictiveLaw(
            mean=lambda probabilities, *_: probabilities,
            sample=functools.partial(_sample_cases, cases=cases),
            discrete=True,
        ),
        coding=_matched_coding(cases, real),
    )


def _matched_coding(cases: int, real: str | None) -> tuple[coding.Rule, ...]:
    real_rule = () if real is None else (coding.binary(real, fractions=False),)
    return (*real_rule, coding.binary(fractions=False), coding.at_most(cases, "y", real))


def _conditional_natural(
    params: Tree, data: Tree, cases: int, real: str | None
) -> tuple[Array, Array, Array]:
    """The probability of each member to be a case, and the log odds (strata, members), −1e18 for
    padding; the number of cases (strata,), one where there are none.
    """
    eta: jax.Array = jnp.asarray(data["x"]) @ jnp.asarray(params["beta"])
    if real is not None:
        eta = jnp.where(jnp.asarray(data[real]) > 0, eta, LOG_OF_ZERO)
    if cases == 1 or "y" not in data:
        return jax.nn.softmax(eta, axis=1), eta, jnp.ones_like(eta[:, 0])
    member = 1.0 if real is None else jnp.asarray(data[real])
    count = jnp.maximum(jnp.sum(jnp.asarray(data["y"]) * member, axis=1), 1.0)

    def log_size(eta: jax.Array) -> jax.Array:
        """The sum over strata of the log of Σ e^{Σ_cases η}, whose slopes are the probabilities."""
        order = jnp.arange(cases + 1)[None, :] == count[:, None]
        return jnp.sum(jnp.where(order, _log_choices(eta, cases), 0.0))

    return jax.grad(log_size)(eta), eta, count


def _sample_cases(
    key: jax.Array, probabilities: jax.Array, eta: jax.Array, count: jax.Array, cases: int
) -> jax.Array:
    """As many cases for each stratum as it had, (strata, members), member by member: with r cases
    left, a member is one with probability e^η S(r − 1)/(S(r) of it and all later ones), S the
    elementary symmetric functions of the later odds.
    """
    start = jnp.full((eta.shape[0], cases + 1), LOG_OF_ZERO, eta.dtype).at[:, 0].set(0.0)

    def before(later: jax.Array, member: jax.Array) -> tuple[jax.Array, jax.Array]:
        more = jnp.logaddexp(later[:, 1:], later[:, :-1] + member[:, None])
        return later.at[:, 1:].set(more), later

    _, later = jax.lax.scan(before, start, eta.T, reverse=True)

    def draw(left: jax.Array, member: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        log_odds, later, u = member
        with_it = log_odds + jnp.take_along_axis(later, jnp.maximum(left - 1, 0)[:, None], 1)[:, 0]
        without = jnp.take_along_axis(later, left[:, None], 1)[:, 0]
        case = (left > 0) & (jnp.log(u) < with_it - jnp.logaddexp(with_it, without))
        return left - case, case

    u: jax.Array = jnp.asarray(response_laws.uniform(key, eta))
    _, drawn = jax.lax.scan(draw, count.astype(int), (eta.T, later, u.T))
    return drawn.T.astype(eta.dtype)


def _start_conditional(data: Tree) -> Tree:
    x = column(data, "x")
    return {"beta": namespace(x).zeros_like(x[..., 0, 0, :])}


# ---------------------------------------------------------------- ordered


class Cumulative(NamedTuple):
    """The distribution on the latent scale: log F, log(1 − F), the log of a difference, F and 1 − F
    themselves, and the size of one logit on its scale.
    """

    log_below: Callable[[Array], Array]
    log_above: Callable[[Array], Array]
    log_gap: Callable[[Array, Array], Array]
    below: Callable[[Array], Array]
    above: Callable[[Array], Array]
    logit: float


CUMULATIVE = {
    "logit": Cumulative(
        log_sigmoid, lambda z: log_sigmoid(-z), log_expit_diff, sigmoid, lambda z: sigmoid(-z), 1.0
    ),
    "probit": Cumulative(
        log_ndtr, lambda z: log_ndtr(-z), log_ndtr_diff, ndtr, lambda z: ndtr(-z), 0.6
    ),
    "cloglog": Cumulative(
        log_cloglog,
        lambda z: -held_exp(z),
        log_weibull_diff,
        lambda z: -jnp.expm1(-held_exp(z)),
        lambda z: jnp.exp(-held_exp(z)),
        0.8,
    ),
}


def _ordinal_density(link: str, eta: Tree, row: Tree) -> Array:
    """log P(y = k) = log(F(cut_k − η) − F(cut_{k−1} − η)), with infinite cuts at both ends."""
    F = CUMULATIVE[link]
    y = row["y"]
    cuts = eta["cut"]
    top = cuts.shape[0]
    categories = jnp.arange(top)
    high = jnp.sum(jnp.where(categories == y, cuts, 0.0)) - eta["eta"]
    low = jnp.sum(jnp.where(categories == y - 1, cuts, 0.0)) - eta["eta"]
    inner = (y > 0) & (y < top)
    gap = F.log_gap(jnp.where(inner, low, 0.0), jnp.where(inner, high, 1.0))
    ends = jnp.where(y == 0, F.log_below(high), jnp.where(y == top, F.log_above(low), jnp.nan))
    return jnp.where(jnp.any(categories == y) & inner, gap, ends)


@made_once
def ordinal(classes: int, *, link: str = "logit") -> Model:
    """Cumulative link regression of an ordered class 0 … K − 1: P(y ≤ k) = F(cut[k] − xβ).
    Parameters: ``beta`` (q,), ``cut`` (K − 1,) increasing.

    The design must not have an intercept: the cuts are the intercepts. McCullagh (1980), Journal of
    the Royal Statistical Society B 42, p. 109.

    Args:
        classes: the number of classes K.
        link: ``"logit"``, ``"probit"`` or ``"cloglog"`` (F(z) = 1 − exp(−e^z)).

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {
    ...     "x": np.array([[0.0], [1.0], [2.0], [3.0], [1.0], [2.0]]),
    ...     "y": np.array([0.0, 1.0, 1.0, 2.0, 0.0, 0.0]),
    ... }
    >>> fit = jm.fit(models.ordinal(3), data=data)
    >>> fit.params["beta"].round(3).tolist(), fit.params["cut"].round(3).tolist()
    ([2.182], [3.145, 5.887])
    """
    _check_classes(classes, 2)
    check_choice("link", link, CUMULATIVE)
    return Model(
        "ordinal",
        regression(
            functools.partial(_ordinal_density, link),
            {"eta": linear("x", "beta"), "cut": "cut"},
            response=enumeration("y", np.arange(classes)),
        ),
        functools.partial(_start_ordinal, classes=classes, link=link),
        {"cut": ordered},
        functools.partial(_ordinal_natural, link=link),
        response_laws.categorical,
        coding=(coding.classes(classes),),
    )


def _ordinal_natural(params: Tree, data: Tree, link: str) -> tuple[Array]:
    """Differences of F at neighbouring cuts, or of 1 − F where that is the smaller one."""
    eta = eta_of(params, data)
    z = jnp.asarray(params["cut"])[None, :] - eta[:, None]
    none = jnp.zeros_like(eta[:, None])
    below = jnp.concatenate([none, CUMULATIVE[link].below(z), none + 1], axis=1)
    above = jnp.concatenate([none + 1, CUMULATIVE[link].above(z), none], axis=1)
    low = below[:, :-1] < 0.5
    return (jnp.where(low, jnp.diff(below, axis=1), above[:, :-1] - above[:, 1:]),)


def _start_ordinal(data: Tree, classes: int, link: str) -> Tree:
    """β = 0 and the cuts at the logits of the cumulative shares, each class given half an
    observation.
    """
    y = column(data, "y")
    xp = namespace(y)
    x = column(data, "x")
    n = y.shape[-1]
    share = xp.stack(
        [xp.sum((y <= k).astype(y.dtype), axis=-1) + 0.5 * (k + 1) for k in range(classes - 1)],
        axis=-1,
    ) / (n + 0.5 * classes)
    single = x.ndim == y.ndim and x.shape == y.shape
    beta = (
        xp.zeros_like(y[..., 0])
        if single
        else xp.zeros_like(y[..., :1]) + xp.zeros_like(x[..., 0, :])
    )
    return {"beta": beta, "cut": CUMULATIVE[link].logit * xp.log(share / (1 - share))}
