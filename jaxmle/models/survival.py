"""Times to an event: accelerated failure time regression with every kind of censoring and
truncation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced, namespace
from jaxmle._types import Array, FunctionTo, Tree
from jaxmle.likelihood.regression import Predictor, linear, regression
from jaxmle.models.common import coding
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
from jaxmle.models.common.response_laws import PredictiveLaw, uniform
from jaxmle.models.common.start_values import clip, column, regress, spread
from jaxmle.parameters.arguments import check_choice
from jaxmle.parameters.constraints import positive
from jaxmle.special.exponential import held_exp, log_cloglog
from jaxmle.special.gamma import EULER_GAMMA, gammaln
from jaxmle.special.logistic import log_sigmoid
from jaxmle.special.normal import ndtri
from jaxmle.special.stirling import HALF_LOG_2PI


class Error(NamedTuple):
    """The distribution of the standardised log time: its log density, log survival function, log
    distribution function, log difference and quantile; mean and SD.
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
    # The smallest extreme value.
    "weibull": Error(
        lambda z: z - held_exp(z),
        lambda z: -held_exp(z),
        log_cloglog,
        log_weibull_diff,
        lambda p: jnp.log(-jnp.log1p(-p)),
        lambda s: gammaln(1 + s),
        -EULER_GAMMA,
        math.pi / math.sqrt(6),
    ),
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
        math.pi / math.sqrt(3),
    ),
}


def _density(law: str, entry: str | None, upper: str | None, eta: Tree, row: Tree) -> Array:
    """The term of one time, by its code; the density is of the time itself, not of its log."""
    F = ERROR_LAWS[law]
    scale = jnp.exp(eta["log_scale"]) if "log_scale" in eta else eta.get("scale", 1.0)
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
        known = known & ~jnp.isnan(row[entry])
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
    scale: str | None = None,
    left_censored: bool = False,
) -> Model:
    """Accelerated failure time model: log T = xβ + scale·W, as in R's ``survreg`` and the AFT
    fitters of lifelines. Parameters: ``beta`` (q,) and ``scale`` (not for ``"exponential"``); or
    ``beta`` and ``gamma`` (r,) if the scale is modelled, exp(zγ).

    W is the smallest extreme value (``"weibull"``; with scale 1 ``"exponential"``), standard normal
    (``"lognormal"``) or logistic (``"loglogistic"``). The usual Weibull shape is 1/scale, its usual
    scale exp(xβ). Kalbfleisch & Prentice (2002), section 2.3 and 3.2.

    Args:
        law: ``"exponential"``, ``"weibull"``, ``"lognormal"`` or ``"loglogistic"``.
        entry: name of the leaf of entry times (left truncation), 0 if observed from the origin.
        upper: name of the leaf of upper ends, for interval-censored times.
        offset: name of a data leaf (n,) added to xβ.
        scale: name of the design (n, r) of log scale, with its intercept; None for one scale.
            The Weibull shape is exp(−zγ): lifelines' ``ancillary`` coefficients are −γ.
        left_censored: True if there are events and left-censored times but no right-censored ones.
            Their codes, only 1 and 2, mean censored times and events in older software, so they are
            refused otherwise.

    Returns:
        A ``Model`` of ``{"x": (n, q), "time": (n,), "event": (n,)}``; ``event`` is 1 for an event
        at ``time``, 0 for one after it (right censored), 2 for one before it (left censored), 3 for
        one between ``time`` and ``upper``. Other codes are refused. A sample has only events,
        because the model does not include the censoring.

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
    if scale is not None and not free:
        raise ValueError(
            f"scale={scale!r} models the scale, but for exponential times it is fixed at "
            '1: use aft("weibull", scale=…)'
        )
    modelled: dict[str, Predictor] = (
        {"log_scale": linear(scale, "gamma")} if scale is not None else {}
    )
    eta = {"eta": linear("x", "beta", offset)} | (modelled or ({"scale": "scale"} if free else {}))
    natural = functools.partial(_location_and_scale, offset=offset, scale=scale)
    return Model(
        f"aft({law})",
        regression(functools.partial(_density, core, entry, upper), eta),
        functools.partial(
            _start_values, law=core, free=free, upper=upper, offset=offset, design=scale
        ),
        {"scale": positive} if free and scale is None else None,
        natural,
        TIMES[core],
        "time",
        coding=_aft_coding(entry, upper, offset, left_censored),
        censoring=_aft_censoring(core, entry, upper, natural),
    )


def _location_and_scale(
    params: Tree, data: Tree, offset: str | None, scale: str | None
) -> tuple[Array, ...]:
    """The location and scale of the log time of each row, (n,) each."""
    eta = eta_of(params, data, offset)
    if scale is not None:
        return eta, jnp.exp(eta_of(params, data, None, scale, "gamma"))
    return constant(eta, params.get("scale", 1.0))


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
        ends = "the lower end of an interval is in time, and its larger upper end in upper"
        rules = (*rules, coding.Order("time", upper, ends, strict=True, when=_between))
    return rules


def _aft_censoring(
    law: str, entry: str | None, upper: str | None, natural: FunctionTo[tuple[Array, ...]]
) -> Censoring:
    """The log survival at both ends of the interval known to contain each time, minus that at
    entry.
    """
    F = ERROR_LAWS[law]

    def ends(params: Tree, data: Tree) -> tuple[Array, Array]:
        eta, scale = natural(params, data)
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
    "nobody is observed before entry: entry must be before the time. Drop these rows "
    "from every leaf"
)


def _between(data: Tree) -> Array | None:
    event = data["event"]
    return None if is_traced(event) else np.asarray(event) == INTERVAL


def _start_values(
    data: Tree,
    law: str,
    free: bool,
    upper: str | None,
    offset: str | None,
    design: str | None,
) -> Tree:
    """Log times regressed on x, censored ones moved by half an SD; then the centre and scale of the
    error are taken out.
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
    if design is None:
        return {"beta": beta, "scale": scale} if free else {"beta": beta}
    gamma, _ = regress(data, design, xp.zeros_like(y) + xp.log(scale)[..., None])
    return {"beta": beta, "gamma": gamma}


def _interval_size(data: Tree, time: Array, event: Array, upper: str) -> Array:
    """The SD of a log time uniform on its interval, from the mean square over all rows: with a much
    smaller error scale ℓ would be flat at its supremum if all intervals contain the mean.
    """
    xp = namespace(time)
    end = xp.where(event == INTERVAL, xp.maximum(column(data, upper), time), time)
    width = xp.log(end) - xp.log(time)
    return xp.sqrt(xp.mean(width**2, axis=-1) / 12)


def _times(F: Error) -> PredictiveLaw:
    """The distribution of the time, with location eta and scale of its log."""

    def mean(eta: Array, scale: Array) -> Array:
        return jnp.exp(eta + F.moment(scale))

    def variance(eta: Array, scale: Array) -> Array:
        return jnp.where(
            jnp.isfinite(F.moment(2 * scale)),
            jnp.exp(2 * eta + F.moment(2 * scale)) - mean(eta, scale) ** 2,
            jnp.inf,
        )

    def tails(y: Array, eta: Array, scale: Array) -> tuple[Array, Array]:
        z = (jnp.log(y) - eta) / scale
        return jnp.exp(F.log_cdf(z)), jnp.exp(F.log_survival(z))

    def sample(key: Array, eta: Array, scale: Array) -> dict[str, Array]:
        return {
            "time": jnp.exp(eta + scale * F.quantile(uniform(key, eta))),
            "event": jnp.ones_like(eta),
        }

    return PredictiveLaw(
        mean=mean,
        variance=variance,
        cdf=lambda y, eta, scale: tails(y, eta, scale)[0],
        tails=tails,
        quantile=lambda level, eta, scale: jnp.exp(eta + scale * F.quantile(level)),
        sample=sample,
        log_survival=lambda time, eta, scale: F.log_survival((jnp.log(time) - eta) / scale),
        log_density=lambda time, eta, scale: (
            F.log_density((jnp.log(time) - eta) / scale) - jnp.log(scale) - jnp.log(time)
        ),
    )


TIMES = {name: _times(error) for name, error in ERROR_LAWS.items()}
