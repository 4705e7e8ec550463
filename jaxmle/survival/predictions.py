"""Survival functions, hazards and quantiles of a fitted model, AFT or Cox, with pointwise bands."""

from __future__ import annotations

import numpy as np

from jaxmle._types import ArrayLike, Clusters, Data, Loglik, Tree, ndarray
from jaxmle.data.frame import Frame
from jaxmle.models.common.model import Model
from jaxmle.parameters.arguments import check_choice, check_level, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.survival.bands import HAZARD_BANDS, SURVIVAL_BANDS, band_of
from jaxmle.survival.cox_baseline import ROWS_AT_ONCE, baselines, predicted
from jaxmle.survival.cox_rows import CoxFit, cox_fit, is_cox
from jaxmle.survival.curves import Curve, check_times
from jaxmle.survival.parametric import values_of


@with_keyword_hints
def survival(
    model: Loglik,
    fit: Fit,
    data: Data,
    times: ArrayLike | None = None,
    *,
    new: Data = None,
    kind: str | None = None,
    band: str = "log-log",
    level: float = 0.95,
    clusters: Clusters = None,
) -> Curve:
    """The probability of no event up to each time, given the covariates of each row.

    For an AFT model it is S(t | x) with standard errors by the delta method (R's ``predict`` and
    ``flexsurv``; lifelines' ``predict_survival_function``); for a Cox model it is exp(−r Λ0(t))
    with the variance of Tsiatis (R's ``survfit(fit, newdata=)``, whose default band is "log").
    For a Cox fit with HC0, HC1, CR0, CR1 or CR1S the variance is the infinitesimal jackknife of the
    whole curve; R combines the robust covariance of the coefficients with the model-based variance
    of the baseline.

    Args:
        model: ``models.aft(…)`` or ``models.cox(…)``.
        fit: its ``Fit``; or parameters, for curves without bands.
        data: the data of the fit, a dictionary or a ``Frame``. A Cox model needs them for its
            baseline.
        times: (m,), 0 or more; None for the event times of a Cox model.
        new: the rows to predict for: leaves as in ``data`` (a design, an offset, strata); for a
            ``Frame``, a table with its columns. None for the rows of ``data``.
        kind: for a Cox model, the kind of its ``baseline``.
        band: scale of the pointwise intervals, "log-log", "log", "plain", "logit" or "arcsin".
        level: their coverage.
        clusters: (n,) those of a Cox fit with clustered covariance; a ``Frame`` already has them.

    Returns:
        A ``Curve``: ``estimate``, ``stderr``, ``lower``, ``upper`` (n, m). Beyond the last observed
        time of its stratum a Cox curve is NaN, because nothing is known about it there.

    Raises:
        ValueError, TypeError: for another model, data that are not those of a Cox fit, or a Cox fit
            with another covariance.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((3, 1)), "time": np.array([1.0, 2.0, 3.0]), "event": np.ones(3)}
    >>> model = models.aft("exponential")
    >>> fit = jm.fit(model, data=data)
    >>> curve = jm.survival.survival(model, fit, data, [2.0, 4.0])
    >>> curve.estimate[0].round(4).tolist()  # exp(−t/2)
    [0.3679, 0.1353]
    """
    check_choice("band", band, SURVIVAL_BANDS)
    if is_cox(model):
        hazard, stderr, times = _cox_hazard(
            model, fit, data, times, new, kind, "survival", clusters
        )
        value = np.exp(-hazard)
        return _curve("survival", times, value, value * stderr, level, band)
    _refuse("clusters", clusters)
    return _of_law(model, fit, data, times, new, kind, "survival", level, band)


@with_keyword_hints
def cumulative_hazard(
    model: Loglik,
    fit: Fit,
    data: Data,
    times: ArrayLike | None = None,
    *,
    new: Data = None,
    kind: str | None = None,
    band: str = "log",
    level: float = 0.95,
    clusters: Clusters = None,
) -> Curve:
    """The cumulative hazard −log S(t | x) of each row at each time; see ``survival``.

    R's ``survfit(fit, newdata=)$cumhaz``; lifelines' ``predict_cumulative_hazard``.

    Args:
        model, fit, data, times, new, kind, level, clusters: as in ``survival``.
        band: scale of the pointwise intervals, "log" or "plain".

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((3, 1)), "time": np.array([1.0, 2.0, 3.0]), "event": np.ones(3)}
    >>> model = models.aft("exponential")
    >>> fit = jm.fit(model, data=data)
    >>> jm.survival.cumulative_hazard(model, fit, data, 4.0).estimate[0].round(6).tolist()
    [2.0]
    """
    check_choice("band", band, HAZARD_BANDS)
    if is_cox(model):
        what = "cumulative_hazard"
        hazard, stderr, times = _cox_hazard(model, fit, data, times, new, kind, what, clusters)
        return _curve(what, times, hazard, stderr, level, band)
    _refuse("clusters", clusters)
    return _of_law(model, fit, data, times, new, kind, "cumulative_hazard", level, band)


@with_keyword_hints
def hazard(
    model: Loglik,
    fit: Fit,
    data: Data,
    times: ArrayLike | None,
    *,
    new: Data = None,
    band: str = "log",
    level: float = 0.95,
) -> Curve:
    """The hazard f(t | x)/S(t | x) of each row of an AFT model at each time; see ``survival``.

    For a Cox model the estimated hazard consists of jumps: use ``cumulative_hazard``.

    Args:
        model, fit, data, times, new, level: as in ``survival``.
        band: scale of the pointwise intervals, "log" or "plain".

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((3, 1)), "time": np.array([1.0, 2.0, 3.0]), "event": np.ones(3)}
    >>> model = models.aft("exponential")
    >>> fit = jm.fit(model, data=data)
    >>> curve = jm.survival.hazard(model, fit, data, 4.0)
    >>> curve.estimate[0].round(6).tolist(), curve.stderr[0].round(6).tolist()  # 1/2, 1/(2√3)
    ([0.5], [0.288675])
    """
    check_choice("band", band, HAZARD_BANDS)
    if is_cox(model):
        raise TypeError(
            "the hazard of a Cox model is estimated as jumps at the event times: use "
            "cumulative_hazard, or a parametric model, models.aft(…)"
        )
    return _of_law(model, fit, data, times, new, None, "hazard", level, band)


@with_keyword_hints
def quantile(
    model: Loglik,
    fit: Fit,
    data: Data,
    p: ArrayLike = 0.5,
    *,
    new: Data = None,
    kind: str | None = None,
    band: str | None = None,
    level: float = 0.95,
    clusters: Clusters = None,
) -> Curve:
    """The time by which the fraction ``p`` of rows with the same covariates has had the event; by
    default the median.

    For an AFT model the intervals are computed on the log scale (R's ``predict(fit,
    type="uquantile", se.fit=TRUE)``); for a Cox model they are the times at which the curve and its
    band come down to 1 − p (R's ``quantile(survfit(fit, newdata=), p)``), infinite if they do not.

    Args:
        model, fit, data, new, kind, level, clusters: as in ``survival``.
        p: a fraction, or several, (m,).
        band: scale of the intervals: for an AFT model "log" (the default) or "plain"; for a Cox
            model that of its survival function, by default "log-log".

    Returns:
        A ``Curve`` whose ``times`` are the fractions.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((3, 1)), "time": np.array([1.0, 2.0, 3.0]), "event": np.ones(3)}
    >>> model = models.aft("exponential")
    >>> fit = jm.fit(model, data=data)
    >>> jm.survival.quantile(model, fit, data).estimate[0].round(6).tolist()  # 2 log 2
    [1.386294]
    """
    shares = check_times(p, "p")
    if (shares <= 0).any() or (shares >= 1).any():
        raise ValueError(f"p must lie between 0 and 1; got {shown(p)}")
    check_level(level)
    if is_cox(model):
        band = check_choice("band", band or "log-log", SURVIVAL_BANDS)
        cox = cox_fit(model, fit, data, "quantile", clusters)
        return _cox_quantile(cox, _cox_rows(cox, data, new), shares, kind, band, level)
    band = check_choice("band", band or "log", HAZARD_BANDS)
    _refuse("kind", kind)
    _refuse("clusters", clusters)
    rows = _rows(model, data, new, "quantile")
    value, stderr = values_of(model, fit, rows, "quantile", shares)
    return _curve("quantile", shares, value, stderr, level, band)


# ---------------------------------------------------------------- AFT


def _of_law(
    model: Loglik,
    fit: Fit,
    data: Data,
    times: ArrayLike | None,
    new: Data,
    kind: str | None,
    quantity: str,
    level: float,
    band: str,
) -> Curve:
    """A curve of a model with a parametric distribution of times."""
    rows = _rows(model, data, new, quantity)
    _refuse("kind", kind)
    if times is None:
        raise ValueError(f"{quantity} of {model!r} needs times, such as [30.0, 365.0]")
    grid = check_times(times)
    value, stderr = values_of(model, fit, rows, quantity, grid)
    return _curve(quantity, grid, value, stderr, level, band)


def _rows(model: Loglik, data: Data, new: Data, what: str) -> Tree:
    """The rows to predict for, for a model with a parametric distribution of times."""
    if not isinstance(model, Model) or model.law.log_survival is None:
        raise TypeError(
            f"{what} needs a model of times, models.aft(…) or models.cox(…); got {shown(model)}"
        )
    return _new_rows(data, new)


def _new_rows(data: Data, new: Data) -> Tree:
    if isinstance(data, Frame):
        return data.data if new is None else data.recode(new)
    return data if new is None else new


def _refuse(name: str, value: Tree) -> None:
    if value is not None:
        raise ValueError(f"{name} is only for a Cox model and its baseline; leave {name} out")


def _curve(
    quantity: str,
    times: ndarray,
    value: ndarray,
    stderr: ndarray,
    level: float,
    band: str,
) -> Curve:
    lower, upper = band_of(quantity, value, stderr, level, band)
    return Curve(quantity, times, value, stderr, lower, upper, level, band)


# ---------------------------------------------------------------- Cox


def _cox_hazard(
    model: Loglik,
    fit: Fit,
    data: Data,
    times: ArrayLike | None,
    new: Data,
    kind: str | None,
    what: str,
    clusters: Clusters,
) -> tuple[ndarray, ndarray, ndarray]:
    """The cumulative hazard (n, m) of rows of a Cox model, its standard error, and the times."""
    cox = cox_fit(model, fit, data, what, clusters)
    bases = baselines(cox, kind)
    grid = np.unique(cox.sets.time) if times is None else check_times(times)
    x, offset, stratum = _cox_rows(cox, data, new)
    hazard, stderr = predicted(cox, bases, x, offset, stratum, grid)
    return hazard, stderr, grid


def _cox_rows(cox: CoxFit, data: Data, new: Data) -> tuple[ndarray, ndarray, ndarray]:
    if new is None:
        return cox.rows.x, cox.rows.offset, cox.rows.stratum
    return cox.new_rows(_new_rows(data, new))


def _cox_quantile(
    cox: CoxFit,
    of_rows: tuple[ndarray, ndarray, ndarray],
    shares: ndarray,
    kind: str | None,
    band: str,
    level: float,
) -> Curve:
    """The times at which the curve of each row, and its band, come down to 1 − p."""
    bases = baselines(cox, kind)
    x, offset, stratum = of_rows
    ends_of = np.full((3, len(x), len(shares)), np.inf)
    for place, base in enumerate(bases.strata):
        rows = np.flatnonzero(stratum == place)
        for low in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[low : low + ROWS_AT_ONCE]
            hazard, stderr = predicted(cox, bases, x[some], offset[some], stratum[some], base.times)
            value = np.exp(-hazard)
            ends = band_of("survival", value, value * stderr, level, band)
            for which, curve in enumerate((value, *ends)):
                ends_of[which, some] = _first_below(base.times, curve, 1 - shares)
    estimate, lower, upper = ends_of
    if cox.vcov is None:
        lower = np.full_like(estimate, np.nan)
        upper = lower
    unknown = np.full_like(estimate, np.nan)
    return Curve("quantile", shares, estimate, unknown, lower, upper, level, band)


def _first_below(times: ndarray, curves: ndarray, levels: ndarray) -> ndarray:
    """The first of ``times`` (k,) at which each curve (n, k) is at each level or below, (n, m)."""
    below = curves[:, None, :] <= levels[None, :, None]
    first = times[np.argmax(below, axis=-1)] if len(times) else np.zeros(below.shape[:2])
    return np.where(below.any(axis=-1), first, np.inf)
