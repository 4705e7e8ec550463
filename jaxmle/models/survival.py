"""Times to an event: accelerated failure time regressions, censored and truncated in every way,
and Cox's partial likelihood.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced, namespace
from jaxmle._types import Array, Tree
from jaxmle.likelihood.regression import linear, regression
from jaxmle.models.common import coding, response_laws
from jaxmle.models.common.censoring import Censoring
from jaxmle.models.common.coding import EVENT, INTERVAL, LEFT, RIGHT
from jaxmle.models.common.log_differences import (
    log_expit_diff,
    log_ndtr,
    log_ndtr_diff,
    log_weibull_diff,
)
from jaxmle.models.common.model import Model
from jaxmle.models.common.options import made_once
from jaxmle.models.common.predictors import constant, eta_of
from jaxmle.models.common.response_laws import HALF_LOG_2PI, PredictiveLaw, uniform
from jaxmle.models.common.start_values import clip, column, regress, spread
from jaxmle.parameters.arguments import check_choice
from jaxmle.parameters.constraints import positive
from jaxmle.special.exponential import held_exp, log_cloglog
from jaxmle.special.gamma import gammaln
from jaxmle.special.logistic import log_sigmoid
from jaxmle.special.normal import ndtri


class Error(NamedTuple):
    """The law of the standardised log time: its log density, log survival, log distribution,
    log difference and quantile; mean and SD.
    """

    log_density: Callable[[Array], Array]
    log_survival: Callable[[Array], Array]
    log_cdf: Callable[[Array], Array]
    log_gap: Callable[[Array, Array], Array]
    quantile: Callable[[Array], Array]
    moment: Callable[[Array], Array]  # log E e^{sW}
    centre: float
    sd: float


def _log_sine_moment(s: Array) -> Array:
    inside = jnp.where(s < 1, s, 0.5)
    return jnp.where(s < 1, jnp.log(jnp.pi * inside / jnp.sin(jnp.pi * inside)), jnp.inf)


ERROR_LAWS = {
    "weibull": Error(
        lambda z: z - held_exp(z),
        lambda z: -held_exp(z),
        log_cloglog,
        log_weibull_diff,
        lambda p: jnp.log(-jnp.log1p(-p)),
        lambda s: gammaln(1 + s),
        -0.5772156649015329,
        1.2825498301618641,
    ),  # the smallest extreme value: mean −γ, SD π/√6
    "lognormal": Error(
        lambda z: -0.5 * z * z - HALF_LOG_2PI,
        lambda z: log_ndtr(-z),
        log_ndtr,
        log_ndtr_diff,
        ndtri,
        lambda s: 0.5 * s * s,
        0.0,
        1.0,
    ),
    "loglogistic": Error(
        lambda z: log_sigmoid(z) + log_sigmoid(-z),
        lambda z: log_sigmoid(-z),
        log_sigmoid,
        log_expit_diff,
        lambda p: jnp.log(p) - jnp.log1p(-p),
        _log_sine_moment,
        0.0,
        1.8137993642342178,
    ),  # SD π/√3
}


def _density(law: str, entry: str | None, upper: str | None, eta: Tree, row: Tree) -> Array:
    """The term of one time, by its code; the density is of the time itself, not of its log."""
    F = ERROR_LAWS[law]
    scale = eta.get("scale", 1.0)
    event = row["event"]
    log_time = jnp.log(row["time"])
    z = (log_time - eta["eta"]) / scale
    term = jnp.where(
        event == EVENT, F.log_density(z) - jnp.log(scale) - log_time, F.log_survival(z)
    )
    term = jnp.where(event == LEFT, F.log_cdf(z), term)
    known = (event == EVENT) | (event == RIGHT) | (event == LEFT)
    if upper is not None:
        between = event == INTERVAL
        end = jnp.log(jnp.where(between, row[upper], 2.0 * row["time"]))
        known = known | between
        term = jnp.where(between, F.log_gap(z, (end - eta["eta"]) / scale), term)
    if entry is not None:
        late = row[entry] > 0
        begin = (jnp.log(jnp.where(late, row[entry], 1.0)) - eta["eta"]) / scale
        term = term - jnp.where(late, F.log_survival(begin), 0.0)
    return jnp.where(known, term, jnp.nan)


@made_once
def aft(
    law: str,
    *,
    entry: str | None = None,
    upper: str | None = None,
    offset: str | None = None,
    left_censored: bool = False,
) -> Model:
    """Accelerated failure time: log T = xβ + scale·W, as R's ``survreg``. Parameters: ``beta`` (q,)
    and ``scale`` (not for ``"exponential"``).

    W is the smallest extreme value (``"weibull"``; with scale 1 ``"exponential"``), standard normal
    (``"lognormal"``) or logistic (``"loglogistic"``). Weibull's usual shape is 1/scale, its usual
    scale exp(xβ). Kalbfleisch & Prentice (2002), section 2.3 and 3.2.

    Args:
        law: ``"exponential"``, ``"weibull"``, ``"lognormal"`` or ``"loglogistic"``.
        entry: name of the leaf of entry times (left truncation), 0 where observed from the origin.
        upper: name of the leaf of upper ends, for interval-censored times.
        offset: name of a data leaf (n,) added to xβ.
        left_censored: True for events and left-censored times without any right-censored one. Their
            codes, 1 and 2 alone, are those of censored times and events in older software, and are
            refused else.

    Returns:
        A ``Model`` of ``{"x": (n, q), "time": (n,), "event": (n,)}``; ``event`` is 1 for an event
        at ``time``, 0 for one after it (right censored), 2 for one before it (left censored), 3 for
        one between ``time`` and ``upper``. Another code is refused. A sample has events only: the
        law of censoring is not part of the model.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {
    ...     "x": np.ones((3, 1)),
    ...     "time": np.array([1.0, 2.0, 3.0]),
    ...     "event": np.array([1, 1, 0]),
    ... }
    >>> np.exp(jm.fit(models.aft("exponential"), data=data).params["beta"]).round(6).tolist()
    [3.0]
    """
    check_choice("law", law, (*ERROR_LAWS, "exponential"))
    core, free = ("weibull", False) if law == "exponential" else (law, True)
    eta = {"eta": linear("x", "beta", offset)} | ({"scale": "scale"} if free else {})
    return Model(
        f"aft({law})",
        regression(functools.partial(_density, core, entry, upper), eta),
        functools.partial(_start_values, law=core, free=free, upper=upper, offset=offset),
        {"scale": positive} if free else None,
        lambda params, data: constant(
            eta_of(params, data, offset), params["scale"] if free else 1.0
        ),
        TIMES[core],
        "time",
        coding=_aft_coding(entry, upper, offset, left_censored),
        censoring=_aft_censoring(core, entry, upper, offset),
    )


def _aft_coding(
    entry: str | None, upper: str | None, offset: str | None, left_censored: bool
) -> tuple[coding.Rule, ...]:
    rules = (
        coding.positive("time", zeros="an event at the origin has no log time"),
        *coding.censoring("event", interval=upper is not None, left_alone=left_censored),
        *coding.optional(offset, entry=entry),
    )
    if entry is not None:
        rules = (*rules, coding.Order(entry, "time", LATE_ENTRY, strict=True))
    if upper is not None:
        ends = "an interval has its lower end in time and its upper end, a larger one, in upper"
        rules = (*rules, coding.Order("time", upper, ends, strict=True, when=_between))
    return rules


def _aft_censoring(law: str, entry: str | None, upper: str | None, offset: str | None) -> Censoring:
    """The log survival at both ends of what is known of each time, less that at its entry."""
    F = ERROR_LAWS[law]

    def ends(params: Tree, data: Tree) -> tuple[Array, Array]:
        eta = eta_of(params, data, offset)
        scale = params.get("scale", 1.0)
        event = data["event"]

        def log_survival(time: Array) -> Array:
            return F.log_survival((jnp.log(time) - eta) / scale)

        log_survival_at_time = log_survival(data["time"])
        begin = jnp.zeros_like(log_survival_at_time)
        if entry is not None:
            late = data[entry] > 0
            begin = jnp.where(late, log_survival(jnp.where(late, data[entry], 1.0)), 0.0)
        last = log_survival_at_time
        if upper is not None:
            between = event == INTERVAL
            last = jnp.where(
                between, log_survival(jnp.where(between, data[upper], 1.0)), log_survival_at_time
            )
        last = jnp.where(event == RIGHT, -jnp.inf, last)
        return jnp.where(event == LEFT, begin, log_survival_at_time) - begin, last - begin

    def inexact(data: Tree) -> Array:
        return data["event"] != EVENT

    def unlike(data: Tree) -> Array:
        return inexact(data) if entry is None else inexact(data) | (data[entry] > 0)

    return Censoring(ends, inexact, unlike)


LATE_ENTRY = (
    "nobody is observed before entering: entry must lie before the time. Drop these rows from "
    "every leaf"
)


def _between(data: Tree) -> Array | None:
    event = data["event"]
    return None if is_traced(event) else np.asarray(event) == INTERVAL


def _start_values(data: Tree, law: str, free: bool, upper: str | None, offset: str | None) -> Tree:
    """Log times regressed on x, a censored one moved by half an SD, then centre and scale of
    the error taken out.
    """
    time = column(data, "time")
    event = column(data, "event")
    xp = namespace(time)
    time = xp.maximum(time, 1e-30)
    if upper is not None:
        time = xp.where(event == INTERVAL, 0.5 * (time + column(data, upper)), time)
    y = xp.log(time) if offset is None else xp.log(time) - column(data, offset)
    centre = xp.mean(y, axis=-1, keepdims=True)
    size = spread(y - centre, xp.ones_like(y))[..., None]
    y = y + 0.5 * size * ((event == RIGHT).astype(y.dtype) - (event == LEFT).astype(y.dtype))
    _, first = regress(data, "x", y)
    size = spread(y - first, xp.ones_like(y))
    if upper is not None:
        size = xp.maximum(size, _interval_size(data, time, event, upper))
    scale = clip(size / ERROR_LAWS[law].sd, 1e-2, 1e2)
    beta, _ = regress(data, "x", y - ERROR_LAWS[law].centre * (scale[..., None] if free else 1.0))
    return {"beta": beta, "scale": scale} if free else {"beta": beta}


def _interval_size(data: Tree, time: Array, event: Array, upper: str) -> Array:
    """The SD of a log time that is uniform on its interval, from the mean square of all rows: an
    error much smaller would leave ℓ level at its supremum where all intervals hold the mean.
    """
    xp = namespace(time)
    end = xp.where(event == INTERVAL, xp.maximum(column(data, upper), time), time)
    width = xp.log(end) - xp.log(time)
    return xp.sqrt(xp.mean(width**2, axis=-1) / 12)


def _times(F: Error) -> PredictiveLaw:
    """The law of the time, with location eta and scale of its log."""

    def mean(eta: Array, scale: Array) -> Array:
        return jnp.exp(eta + F.moment(scale))

    def variance(eta: Array, scale: Array) -> Array:
        return jnp.where(
            jnp.isfinite(F.moment(2 * scale)),
            jnp.exp(2 * eta + F.moment(2 * scale)) - mean(eta, scale) ** 2,
            jnp.inf,
        )

    def sample(key: Array, eta: Array, scale: Array) -> dict[str, Array]:
        return {
            "time": jnp.exp(eta + scale * F.quantile(uniform(key, eta))),
            "event": jnp.ones_like(eta),
        }

    return PredictiveLaw(
        mean=mean,
        variance=variance,
        cdf=lambda y, eta, scale: jnp.exp(F.log_cdf((jnp.log(y) - eta) / scale)),
        quantile=lambda level, eta, scale: jnp.exp(eta + scale * F.quantile(level)),
        sample=sample,
    )


TIMES = {name: _times(error) for name, error in ERROR_LAWS.items()}


# ---------------------------------------------------------------- Cox


def cox_loglik(
    params: Tree, data: Tree, ties: str, strata: str | None, entry: str | None, weights: str | None
) -> Array:
    """The partial log-likelihood of proportional hazards, one scalar."""
    eta = jnp.asarray(data["x"]) @ jnp.asarray(params["beta"])
    time = jnp.asarray(data["time"])
    event = jnp.asarray(data["event"]).astype(eta.dtype)
    w = jnp.ones_like(eta) if weights is None else jnp.asarray(data[weights]).astype(eta.dtype)
    group = (
        jnp.zeros(time.shape, jnp.int32)
        if strata is None
        else jnp.asarray(data[strata]).astype(jnp.int32)
    )
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
    if ties == "breslow":
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


@made_once
def cox(
    *,
    ties: str = "efron",
    strata: str | None = None,
    entry: str | None = None,
    weights: str | None = None,
) -> Model:
    """Cox's proportional hazards by partial likelihood: hazard e^{xβ} times a baseline left open in
    each stratum. Parameters: ``beta`` (q,).

    Risk sets tie every row to the others, so the likelihood is one scalar: standard errors are from
    its information, and what needs one term a row (HC0, ``weights=``) raises. The design holds no
    intercept. ``predict`` is the relative hazard e^{xβ}.

    Args:
        ties: ``"efron"`` (Efron 1977, Journal of the American Statistical Association 72, p. 557)
            or ``"breslow"``.
        strata: name of the leaf of stratum codes, whole numbers.
        entry: name of the leaf of entry times: at risk in (entry, time].
        weights: name of a leaf of case weights, which enter the risk sets; under Breslow's ties a
            weight of 2 is the row twice.

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
    return Model(
        "cox",
        functools.partial(cox_loglik, ties=ties, strata=strata, entry=entry, weights=weights),
        _start_cox,
        None,
        lambda params, data: (jnp.exp(eta_of(params, data)),),
        response_laws.PredictiveLaw(mean=lambda relative: relative),
        "time",
        coding=_cox_coding(strata, entry, weights),
    )


def _cox_coding(
    strata: str | None, entry: str | None, weights: str | None
) -> tuple[coding.Rule, ...]:
    return (
        coding.finite("time"),
        coding.events(),
        *(() if strata is None else (coding.groups(strata),)),
        *(() if weights is None else (coding.at_least_zero(weights),)),
        *(() if entry is None else (coding.Order(entry, "time", LATE_ENTRY, strict=True),)),
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
