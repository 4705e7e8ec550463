"""Cox's proportional hazards: the partial likelihood, with ties, strata, late entry, weights and
an offset.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.models.common import coding, response_laws
from jaxmle.models.common.model import Model
from jaxmle.models.common.options import made_once
from jaxmle.models.common.predictors import eta_of
from jaxmle.models.common.start_values import column
from jaxmle.models.survival import LATE_ENTRY
from jaxmle.parameters.arguments import check_choice


class CoxOptions(NamedTuple):
    """How a Cox model treats ties, and the names of the leaves that it reads beside x, time and
    event.
    """

    ties: str
    strata: str | None
    entry: str | None
    weights: str | None
    offset: str | None


def cox_loglik(
    params: Tree, data: Tree, options: CoxOptions, multiplier: Array | None = None
) -> Array:
    """The partial log-likelihood of proportional hazards, one scalar.

    Args:
        multiplier: (n,) factors of the weights, 1 where None.
    """
    eta = eta_of(params, data, options.offset)
    time = jnp.asarray(data["time"])
    event = jnp.asarray(data["event"]).astype(eta.dtype)
    w = jnp.ones_like(eta)
    if options.weights is not None:
        w = jnp.asarray(data[options.weights]).astype(eta.dtype)
    w = w if multiplier is None else w * multiplier
    group = jnp.zeros(time.shape, jnp.int32)
    if options.strata is not None:
        group = jnp.asarray(data[options.strata]).astype(jnp.int32)
    entry = options.entry
    order = jnp.lexsort((-event, time, group))
    eta, time, event, w, group = (a[order] for a in (eta, time, event, w, group))
    n = eta.shape[0]
    place = jnp.arange(n)
    fresh_group = jnp.concatenate([jnp.ones(1, bool), group[1:] != group[:-1]])
    fresh_time = fresh_group | jnp.concatenate([jnp.ones(1, bool), time[1:] != time[:-1]])
    tie = jnp.cumsum(fresh_time) - 1  # which tie a row belongs to
    stratum = jnp.cumsum(fresh_group) - 1
    # The largest predictor of the stratum is taken out, so that no sum overflows.
    eta = eta - jax.lax.stop_gradient(jax.ops.segment_max(eta, stratum, n))[stratum]
    risk = w * jnp.exp(eta)
    at_risk = _sums_to_the_end(risk, fresh_group)[jax.ops.segment_min(place, tie, n)[tie]]
    if entry is not None:
        at_risk = at_risk - _risk_not_entered(risk, data, entry, order, time, group)
    total_event = w * event
    if options.ties == "breslow":
        return jnp.sum(
            jnp.where(
                event > 0, total_event * (eta - jnp.log(jnp.where(event > 0, at_risk, 1.0))), 0.0
            )
        )
    # Efron: the j-th of d tied events finds the share j/d of their own risk gone.
    died = jax.ops.segment_sum(event, tie, n)[tie]
    tied_risk = jax.ops.segment_sum(event * risk, tie, n)[tie]
    mean_weight = jax.ops.segment_sum(total_event, tie, n)[tie] / jnp.maximum(died, 1.0)
    first = jax.ops.segment_min(place, tie, n)[tie]
    share = (place - first) / jnp.maximum(died, 1.0)  # events come first within their tie
    left = jnp.where(event > 0, at_risk - share * tied_risk, 1.0)
    return jnp.sum(jnp.where(event > 0, total_event * eta - mean_weight * jnp.log(left), 0.0))


def _sums_to_the_end(risk: jax.Array, fresh: jax.Array) -> jax.Array:
    """Sums from each row to the end of its stratum, added up from the end: differences of
    cumulated sums would lose the small ones.
    """
    last = jnp.concatenate([fresh[1:], jnp.ones(1, bool)])

    def add(later: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total = jnp.where(row[1], 0.0, later) + row[0]
        return total, total

    return jax.lax.scan(add, jnp.zeros((), risk.dtype), (risk, last), reverse=True)[1]


def _risk_not_entered(
    risk: Array, data: Tree, entry: str, order: Array, time: Array, group: Array
) -> Array:
    """The risk, for each time, of those in the stratum who enter at that time or later."""
    enters = jnp.asarray(data[entry])[order]
    by_entry = jnp.lexsort((enters, group))
    fresh = jnp.concatenate([jnp.ones(1, bool), group[by_entry][1:] != group[by_entry][:-1]])
    later = jnp.append(_sums_to_the_end(risk[by_entry], fresh), 0.0)
    # The first of the stratum's sorted entries that is not before the time, by merging both lists.
    n = time.shape[0]
    both = jnp.lexsort(
        (
            jnp.concatenate([jnp.ones(n, bool), jnp.zeros(n, bool)]),
            jnp.concatenate([enters, time]),
            jnp.concatenate([group, group]),
        )
    )
    rank = jnp.cumsum(both < n)
    position = jnp.zeros(2 * n, rank.dtype).at[both].set(rank)[n:]
    inside = (position < n) & (jnp.append(group[by_entry], -1)[jnp.minimum(position, n)] == group)
    return jnp.where(inside, later[jnp.minimum(position, n)], 0.0)


def row_terms(params: Tree, data: Tree, options: CoxOptions) -> Array:
    """The derivative of ℓ by the logarithm of each row's weight, (n,).

    Its gradient in beta is the row's score residual times its weight: ∫ (x − x̄) dM, summed over a
    row's time at risk (Lin & Wei 1989, JASA 84, 1074). They add up to the score.
    """
    ones = jnp.ones(jnp.shape(data["time"]), jnp.result_type(float))
    return jax.grad(lambda m: cox_loglik(params, data, options, m))(ones)


cox_loglik.row_terms = row_terms  # type: ignore[attr-defined]  # likelihood.terms asks for it


@made_once
def cox(
    *,
    ties: str = "efron",
    strata: str | None = None,
    entry: str | None = None,
    weights: str | None = None,
    offset: str | None = None,
) -> Model:
    """Cox's proportional hazards by partial likelihood: hazard e^{xβ} times a baseline left open in
    each stratum, as R's ``coxph`` and lifelines' ``CoxPHFitter``. Parameters: ``beta`` (q,).

    Risk sets tie every row to the others, so the likelihood is one scalar, and what needs one term
    a row (``weights=`` of ``fit``) raises. Score residuals stand for the rows' scores in robust
    covariances: ``vcov="HC0"`` is that of Lin & Wei (1989), R's ``robust=TRUE``, and ``vcov="CR0"``
    with ``clusters=`` R's ``cluster``. The design holds no intercept. ``predict`` is the relative
    hazard e^{xβ}. Baseline, survival curves and residuals: ``jaxmle.survival``.

    Args:
        ties: ``"efron"`` (Efron 1977, Journal of the American Statistical Association 72, p. 557)
            or ``"breslow"``.
        strata: name of the leaf of stratum codes, whole numbers.
        entry: name of the leaf of entry times: at risk in (entry, time].
        weights: name of a leaf of case weights, which enter the risk sets; under Breslow's ties a
            weight of 2 is the row twice.
        offset: name of a data leaf (n,) added to xβ.

    Returns:
        A ``Model`` of ``{"x": (n, q), "time": (n,), "event": (n,)}``, event 1 or 0.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {
    ...     "x": np.array([[0.0], [1.0], [0.0], [1.0]]),
    ...     "time": np.array([4.0, 2.0, 1.0, 3.0]),
    ...     "event": np.array([1, 1, 1, 1]),
    ... }
    >>> jm.fit(models.cox(), data=data).params["beta"].round(4).tolist()
    [0.4812]
    """
    check_choice("ties", ties, ("efron", "breslow"))
    options = CoxOptions(ties, strata, entry, weights, offset)
    return Model(
        "cox",
        functools.partial(cox_loglik, options=options),
        _start_cox,
        None,
        lambda params, data: (jnp.exp(eta_of(params, data, offset)),),
        response_laws.PredictiveLaw(mean=lambda relative: relative),
        "time",
        coding=_cox_coding(options),
    )


def _cox_coding(options: CoxOptions) -> tuple[coding.Rule, ...]:
    strata = options.strata
    entry = options.entry
    weights = options.weights
    return (
        coding.finite("time"),
        coding.events(),
        *(() if strata is None else (coding.groups(strata),)),
        *(() if weights is None else (coding.at_least_zero(weights),)),
        *(() if entry is None else (coding.Order(entry, "time", LATE_ENTRY, strict=True),)),
        *coding.optional(options.offset),
    )


def _start_cox(data: Tree) -> Tree:
    x = column(data, "x")
    y = column(data, "time")
    xp = namespace(x)
    single = x.shape == y.shape
    return {
        "beta": xp.zeros_like(y[..., 0])
        if single
        else xp.zeros_like(y[..., :1]) + xp.zeros_like(x[..., 0, :])
    }
