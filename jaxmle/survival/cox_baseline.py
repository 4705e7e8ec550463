"""The baseline of a Cox model, and the curves that it predicts, with pointwise bands."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

from jaxmle._types import Clusters, Data, Label, Loglik, ndarray
from jaxmle.parameters.arguments import check_choice, check_level
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.survival.bands import HAZARD_BANDS, band_of
from jaxmle.survival.cox_rows import ROBUST, CoxFit, cox_fit
from jaxmle.survival.curves import StepCurve
from jaxmle.survival.risk_sets import RiskSets, risk_sets
from jaxmle.survival.robust_baseline import influence

BASELINES = ("breslow", "efron", "kalbfleisch-prentice")
ROWS_AT_ONCE = 256  # rows whose curves are computed together


class Baseline(NamedTuple):
    """Cumulative sums over the event times of one stratum, at covariates ``centre``.

    ``times`` (k,) event times; ``hazard`` (k,) cumulative hazard; ``variance`` (k,) its part for
    known coefficients, and ``cross`` (k, q) its covariance with the coefficients, None if it is 0;
    ``breslow`` (k,) and ``slope`` (k, q), Σ dΛ and Σ (x̄ − centre) dΛ, from which the part for
    estimated coefficients is computed; ``end`` the last observed time.
    """

    times: ndarray
    hazard: ndarray
    variance: ndarray
    cross: ndarray | None
    breslow: ndarray
    slope: ndarray
    end: float


class Baselines(NamedTuple):
    """The baselines of all strata, at the covariates ``centre`` (q,) and the offset of the risk
    scores ``level``.
    """

    strata: list[Baseline]
    centre: ndarray
    level: float


@with_keyword_hints
def baseline(
    model: Loglik,
    fit: Fit,
    data: Data,
    *,
    kind: str | None = None,
    band: str = "log",
    level: float = 0.95,
    clusters: Clusters = None,
) -> StepCurve | dict[Label, StepCurve]:
    """The baseline cumulative hazard of a Cox model, with all covariates and the offset equal to 0.

    R's ``basehaz(fit, centered=FALSE)``; lifelines' ``baseline_cumulative_hazard_`` is at the mean
    of the covariates. The survival function is exp(−H), and at other covariates
    ``survival(model, fit, data, times, new=rows)``.

    Args:
        model: ``models.cox(…)``.
        fit: its ``Fit``; or parameters, for a baseline without bands.
        data: the data of the fit, a dictionary or a ``Frame``.
        kind: "breslow", Σ d/S0 (Breslow 1972); "efron", in which tied events leave the risk set one
            after the other; "kalbfleisch-prentice", the product of the maximum-likelihood
            conditional probabilities (1973, Biometrika 60, 267), with Greenwood's variance. By
            default the one that matches the model's ties.
        band: scale of the intervals, "log" or "plain".
        level: their coverage.
        clusters: (n,) those of a fit with clustered covariance; a ``Frame`` already has them.

    Returns:
        A ``StepCurve`` over all observed times; for a stratified model a dictionary of curves by
        stratum.

    Raises:
        ValueError, TypeError: for another model, data that are not those of the fit, coefficients
            that are not finite, or a covariance for which the baseline has no variance (two-way
            clusters).

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {
    ...     "x": np.array([[0.0], [1.0], [0.0], [1.0]]),
    ...     "time": np.array([4.0, 2.0, 1.0, 3.0]),
    ...     "event": np.array([1, 1, 1, 1]),
    ... }
    >>> model = models.cox()
    >>> jm.survival.baseline(model, {"beta": [0.0]}, data).estimate.round(4).tolist()
    [0.25, 0.5833, 1.0833, 2.0833]
    """
    cox = cox_fit(model, fit, data, "baseline", clusters)
    check_choice("band", band, HAZARD_BANDS)
    check_level(level)
    bases = baselines(cox, kind)
    origin = np.zeros((1, len(cox.beta)))
    curves = {}
    for place, code in enumerate(cox.strata):
        inside = cox.rows.stratum == place
        times = np.unique(cox.rows.time[inside])
        hazard, stderr = predicted(cox, bases, origin, np.zeros(1), np.array([place]), times)
        lower, upper = band_of("cumulative_hazard", hazard[0], stderr[0], level, band)
        counts = _counts(cox, inside, times)
        curves[code] = StepCurve(
            "cumulative_hazard", times, hazard[0], stderr[0], lower, upper, *counts, level, band,
            "robust" if cox.is_robust else "model",
        )  # fmt: skip
    return curves if cox.options.strata is not None else curves[0]


def _counts(cox: CoxFit, inside: ndarray, times: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Sums of weights at risk, of events and of censored rows at each time of one stratum."""
    rows = cox.rows
    weight = rows.weight[inside]
    place = np.searchsorted(times, rows.time[inside])
    leaving = np.bincount(place, weight, len(times))
    at_risk = np.cumsum(leaving[::-1])[::-1]
    entry = rows.entry[inside]
    if np.isfinite(entry).any():
        late = np.bincount(np.searchsorted(times, entry, "right"), weight, len(times) + 1)
        at_risk = at_risk - np.cumsum(late[::-1])[::-1][1:]
    events = np.bincount(place, weight * rows.event[inside], len(times))
    return at_risk, events, leaving - events


def baselines(cox: CoxFit, kind: str | None) -> Baselines:
    """The baselines of all strata, at the mean of the covariates, so that no sum overflows."""
    kind = cox.options.ties if kind is None else check_choice("kind", kind, BASELINES)
    _check_vcov(cox, kind)
    rows = cox.rows
    centre = rows.x.mean(axis=0)
    offset = float(rows.offset.mean())
    ties = "efron" if kind == "efron" else "breslow"
    moved = rows._replace(x=rows.x - centre, offset=rows.offset - offset)
    sets = risk_sets(moved, cox.beta, ties)
    hazard = sets.in_ties(sets.hazard)
    slope = sets.in_ties(sets.hazard[:, None] * sets.mean)
    is_product = kind == "kalbfleisch-prentice"
    jump = _product_limit(sets) if is_product else hazard
    spread = _greenwood(sets) if is_product else _aalen(sets)
    robust = influence(cox, sets) if cox.is_robust else None
    strata = []
    for place in range(len(cox.strata)):
        inside = sets.stratum == place
        strata.append(
            Baseline(
                times=sets.time[inside],
                hazard=np.cumsum(jump[inside]),
                variance=np.cumsum(spread[inside]) if robust is None else robust.square[inside],
                cross=None if robust is None else robust.cross[inside],
                breslow=np.cumsum(hazard[inside]),
                slope=np.cumsum(slope[inside], axis=0),
                end=float(rows.time[rows.stratum == place].max()),
            )
        )
    return Baselines(strata, centre, offset)


def _check_vcov(cox: CoxFit, kind: str) -> None:
    """Raise for a covariance for which the baseline has no variance."""
    if not cox.is_robust:
        return
    if cox.vcov_kind not in ROBUST:
        raise ValueError(
            "the bands of a Cox curve need the model-based covariance or a one-way "
            f"sandwich, {', '.join(ROBUST)}; this fit has {cox.vcov_kind}: fit with "
            "vcov='observed', or give fit.params for curves without bands"
        )
    if kind == "kalbfleisch-prentice":
        raise ValueError(
            "the bands of kind='kalbfleisch-prentice' are Greenwood's, but this fit has "
            f"the covariance {cox.vcov_kind}: use kind='breslow', or give fit.params for "
            "curves without bands"
        )


def _greenwood(sets: RiskSets) -> ndarray:
    """d/(S0(S0 − D0)) of each event time, (k,). R uses the number of events instead of their risk
    D0, so its variance depends on the origin of the covariates.
    """
    with np.errstate(divide="ignore"):
        variance = sets.weight / (sets.at_risk * np.maximum(sets.at_risk - sets.deaths, 0.0))
    return np.where(sets.weight > 0, variance, 0.0)


def _aalen(sets: RiskSets) -> ndarray:
    """The sum of dΛ²/d over the steps of each event time, (k,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(sets.mass > 0, sets.hazard**2 / sets.mass, 0.0)
    return sets.in_ties(each)


def _product_limit(sets: RiskSets) -> ndarray:
    """−log α (k,) of Kalbfleisch & Prentice: α solves Σ w r/(1 − αʳ) = S0 over the events of a
    time; of one event it is (1 − w r/S0)^(1/r).
    """
    rows = sets.rows
    order = np.argsort(sets.own_tie, kind="stable")
    order = order[sets.own_tie[order] >= 0]
    cuts = np.cumsum(sets.events)[:-1]
    jump = np.zeros(len(sets.time))
    for k, members in enumerate(np.split(order, cuts)):
        members = members[rows.weight[members] > 0]
        if len(members):
            jump[k] = _log_probability(
                rows.weight[members] * sets.risk[members], sets.risk[members], sets.at_risk[k]
            )
    return jump


def _log_probability(weighted: ndarray, risk: ndarray, at_risk: float) -> float:
    """u = −log α with Σ w r/(1 − e^{−ru}) = S0; infinite if nobody is left."""
    if weighted.sum() >= at_risk * (1 - 4 * np.finfo(float).eps):
        return np.inf
    if len(risk) == 1:
        return float(-np.log1p(-weighted[0] / at_risk) / risk[0])

    def excess(u: float) -> float:
        return float(np.sum(weighted / -np.expm1(-risk * u)) - at_risk)

    low = float(np.sum(weighted / risk)) / at_risk  # 1 − e^{−ru} ≤ ru: not above the root
    high = 2 * low
    while excess(high) > 0:
        high *= 2
    return float(scipy.optimize.brentq(excess, low * (1 - 1e-12), high, xtol=1e-300, rtol=1e-15))


def predicted(
    cox: CoxFit,
    bases: Baselines,
    x: ndarray,
    offset: ndarray,
    stratum: ndarray,
    times: ndarray,
) -> tuple[ndarray, ndarray]:
    """The cumulative hazard of rows at times, (n, m), and its standard error.

    H = r H0 with r = e^{xβ}; its variance is r² {Var(Ĥ0 | β) + q'Vq}, q = x Λ0 − Σ x̄ dΛ0 (Tsiatis
    1981; Therneau & Grambsch 2000, section 10.2), and for a robust fit r² {ΣA² + 2q'ΣAD + q'Vq} of
    ``influence``. NaN beyond the last observed time of a stratum.
    """
    relative = x - bases.centre
    risk = np.exp(relative @ cox.beta + offset - bases.level)
    hazard = np.empty((len(x), len(times)))
    variance = np.full_like(hazard, np.nan)
    for place, base in enumerate(bases.strata):
        rows = np.flatnonzero(stratum == place)
        if not len(rows):
            continue
        step = np.searchsorted(base.times, times, "right")
        known = np.where(times <= base.end, 0.0, np.nan)
        total, spread, breslow = (
            np.concatenate([[0.0], part])[step] + known
            for part in (base.hazard, base.variance, base.breslow)
        )
        hazard[rows] = risk[rows, None] * total
        if cox.vcov is None:
            continue
        slope = np.concatenate([np.zeros((1, x.shape[1])), base.slope])[step]
        across = relative[rows] @ cox.vcov
        moved = np.einsum("nq,nq->n", across, relative[rows])[:, None] * breslow**2
        moved -= 2 * (across @ slope.T) * breslow
        moved += np.einsum("mq,qr,mr->m", slope, cox.vcov, slope)
        if base.cross is None:
            moved = np.maximum(moved, 0.0)  # removes rounding
        else:
            cross = np.concatenate([np.zeros((1, x.shape[1])), base.cross])[step]
            moved += 2 * (relative[rows] @ cross.T) * breslow - 2 * np.sum(slope * cross, axis=1)
        variance[rows] = risk[rows, None] ** 2 * np.maximum(spread + moved, 0.0)
    with np.errstate(invalid="ignore"):
        stderr = np.sqrt(variance)
    return hazard, np.where(np.isfinite(hazard), stderr, np.nan)
