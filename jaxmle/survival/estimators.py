"""The Kaplan–Meier and Nelson–Aalen estimators, with late entry and weights."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from jaxmle._types import ArrayLike, Tree, ndarray
from jaxmle.likelihood.combinators import Weights
from jaxmle.parameters.arguments import check_choice, check_level, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.survival.bands import HAZARD_BANDS, SURVIVAL_BANDS, band_of
from jaxmle.survival.curves import StepCurve


class Observed(NamedTuple):
    """Times and kinds of events, checked: arrays (n,)."""

    time: ndarray
    event: ndarray  # 0 for a censored time, otherwise 1 or the code of a cause
    entry: ndarray | None
    weight: ndarray
    is_sampled: bool  # survey weights, with a robust variance


class Table(NamedTuple):
    """The life table: all observed times (m,) with sums of weights at them."""

    times: ndarray
    n_risk: ndarray
    n_event: ndarray
    n_censored: ndarray
    events: ndarray  # rows with an event, unweighted
    place: ndarray  # (n,) the time of each row
    place_of_entry: ndarray | None  # (n,) times at or before each row's entry


@with_keyword_hints
def kaplan_meier(
    time: ArrayLike,
    event: ArrayLike,
    *,
    entry: ArrayLike | None = None,
    weights: Weights | None = None,
    band: str = "log",
    level: float = 0.95,
) -> StepCurve:
    """The Kaplan–Meier estimator of a survival function, S(t) = Π (1 − d/n) over the event times up
    to t.

    Standard errors are Greenwood's, S √(Σ d/(n(n − d))); with sampling weights those of the
    infinitesimal jackknife. Equivalent to R's ``survfit(Surv(time, event) ~ 1)``; lifelines'
    ``KaplanMeierFitter`` with ``band="log-log"``. Kaplan & Meier (1958), JASA 53, 457.

    Args:
        time: (n,) times, 0 or more.
        event: (n,) 1 for an event, 0 for a censored time.
        entry: (n,) times from which each row is observed, before ``time``; None for the origin.
        weights: ``jaxmle.frequency(w)``, for w identical rows, or ``jaxmle.sampling(w)``.
        band: scale of the pointwise intervals, "log", "log-log", "plain", "logit" or "arcsin".
        level: their coverage.

    Returns:
        A ``StepCurve`` over all observed times.

    Raises:
        ValueError, TypeError: for times that are negative or not finite, other event codes, an
            entry at or after its time, or weights without a kind.

    >>> from jaxmle.survival import kaplan_meier
    >>> curve = kaplan_meier([6, 6, 6, 7, 10], [1, 1, 0, 1, 0])
    >>> curve.estimate.round(4).tolist(), curve.stderr.round(4).tolist()
    ([0.6, 0.3, 0.3], [0.2191, 0.2387, 0.2387])
    """
    check_choice("band", band, SURVIVAL_BANDS)
    check_level(level)
    observed = read_observed(time, event, entry, weights)
    table = table_of(observed)
    with np.errstate(divide="ignore", invalid="ignore"):
        jump = np.where(table.n_event > 0, table.n_event / table.n_risk, 0.0)
        survival = np.cumprod(1 - jump)
        _warn_if_emptied(observed, table, survival)
        if observed.is_sampled:
            relative = _robust(observed, table, 1 / (table.n_risk * (1 - jump)))
        else:
            left = table.n_risk * (table.n_risk - table.n_event)
            relative = np.cumsum(np.where(table.n_event > 0, table.n_event / left, 0.0))
        stderr = np.where(survival > 0, survival * np.sqrt(relative), np.nan)
    kind = "robust" if observed.is_sampled else "greenwood"
    return step_curve("survival", table, survival, stderr, level, band, kind)


class EmptyRiskSetWarning(UserWarning):
    """Everybody at risk had the event before others entered, so the survival function is 0 from
    there on.

    >>> from jaxmle.survival import EmptyRiskSetWarning
    >>> issubclass(EmptyRiskSetWarning, UserWarning)
    True
    """


def _warn_if_emptied(observed: Observed, table: Table, survival: ndarray) -> None:
    gone = np.flatnonzero(survival <= 0)
    if len(gone) and gone[0] < len(survival) - 1:
        warnings.warn(
            f"everybody at risk at {table.times[gone[0]]:g} has the event then, and later "
            "rows enter after it, so S is 0 from there on. Estimate S from a later time, "
            "with the rows at risk then, or use nelson_aalen",
            EmptyRiskSetWarning,
            stacklevel=3,
        )


@with_keyword_hints
def nelson_aalen(
    time: ArrayLike,
    event: ArrayLike,
    *,
    entry: ArrayLike | None = None,
    weights: Weights | None = None,
    ties: str = "breslow",
    band: str = "log",
    level: float = 0.95,
) -> StepCurve:
    """The Nelson–Aalen estimator of a cumulative hazard, H(t) = Σ d/n over the event times up to t.

    Its variance is Aalen's Σ d/n². With ``ties="efron"`` tied events happen one after the other,
    1/n + 1/(n − 1) + …, as in Fleming & Harrington (1984) and lifelines' ``NelsonAalenFitter``; R's
    ``survfit(…)$cumhaz`` is ``"breslow"``. Aalen (1978), Annals of Statistics 6, 701.

    Args:
        time, event, entry, weights, level: as in ``kaplan_meier``.
        ties: "breslow" or "efron".
        band: scale of the pointwise intervals, "log" or "plain".

    Returns:
        A ``StepCurve`` over all observed times.

    Raises:
        ValueError, TypeError: as ``kaplan_meier``.

    >>> from jaxmle.survival import nelson_aalen
    >>> nelson_aalen([1.0, 2.0, 2.0, 4.0], [1, 1, 1, 0]).estimate.round(4).tolist()
    [0.25, 0.9167, 0.9167]
    """
    check_choice("band", band, HAZARD_BANDS)
    check_choice("ties", ties, ("breslow", "efron"))
    check_level(level)
    observed = read_observed(time, event, entry, weights)
    table = table_of(observed)
    with np.errstate(divide="ignore", invalid="ignore"):
        if ties == "efron":
            jump, variance = _one_after_the_other(table)
        else:
            jump = np.where(table.n_event > 0, table.n_event / table.n_risk, 0.0)
            variance = np.where(table.n_event > 0, table.n_event / table.n_risk**2, 0.0)
        total = np.cumsum(variance)
        if observed.is_sampled:
            if ties == "efron":
                raise ValueError('ties="efron" needs frequency weights; got sampling weights')
            total = _robust(observed, table, 1 / table.n_risk)
    kind = "robust" if observed.is_sampled else "aalen"
    hazard = np.cumsum(jump)
    return step_curve("cumulative_hazard", table, hazard, np.sqrt(total), level, band, kind)


def _one_after_the_other(table: Table) -> tuple[ndarray, ndarray]:
    """Jumps and their variances (m,) if m tied events with total weight d leave the risk set one
    after the other, each with d/m.
    """
    steps = table.events.astype(int)
    tie = np.repeat(np.arange(len(steps)), steps)
    place = np.arange(len(tie)) - np.repeat(np.cumsum(steps) - steps, steps)
    mass = table.n_event[tie] / steps[tie]
    left = table.n_risk[tie] - place * mass
    size = len(table.times)
    return np.bincount(tie, mass / left, size), np.bincount(tie, mass / left**2, size)


def step_curve(
    quantity: str,
    table: Table,
    estimate: ndarray,
    stderr: ndarray,
    level: float,
    band: str,
    variance: str,
) -> StepCurve:
    """The record of a curve over the times of a life table, with its band."""
    lower, upper = band_of(quantity, estimate, stderr, level, band)
    return StepCurve(
        quantity=quantity,
        times=table.times,
        estimate=estimate,
        stderr=stderr,
        lower=lower,
        upper=upper,
        n_risk=table.n_risk,
        n_event=table.n_event,
        n_censored=table.n_censored,
        level=level,
        band=band,
        variance=variance,
    )


def _robust(observed: Observed, table: Table, factor: ndarray) -> ndarray:
    """The variance (m,) of Σ factor·(dN − Y dH) as a sum over rows, Σ w²u², with
    u_i(t) = ∫₀ᵗ factor (dN_i − Y_i dH).

    After its own time a row's u is constant, a_i; before it is −(G(t) − G(entry)), with
    G = Σ factor·jump. So Σ w²u² needs sums over the rows that have left and over those at risk.
    """
    size = len(table.times)
    rate = np.where(table.n_event > 0, factor * table.n_event / table.n_risk, 0.0)
    total = np.cumsum(rate)
    before = np.zeros_like(observed.time)
    if table.place_of_entry is not None:
        before = np.concatenate([[0.0], total])[table.place_of_entry]
    gain = np.where(observed.event > 0, factor[table.place], 0.0)
    last = gain - (total[table.place] - before)
    square = observed.weight**2
    gone = np.cumsum(np.bincount(table.place, square * last**2, size))
    powers = [square * before**power for power in (0, 1, 2)]
    present = [
        _entered(part, table.place_of_entry, size) - np.cumsum(np.bincount(table.place, part, size))
        for part in powers
    ]
    return gone + total**2 * present[0] - 2 * total * present[1] + present[2]


def _entered(values: ndarray, place_of_entry: ndarray | None, size: int) -> ndarray:
    """Sums of ``values`` over the rows that have entered before each time, (m,)."""
    if place_of_entry is None:
        return np.full(size, values.sum())
    return np.cumsum(np.bincount(place_of_entry, values, size + 1))[:size]


# ---------------------------------------------------------------- what is given


def table_of(observed: Observed) -> Table:
    """The life table of rows that are at risk in (entry, time]."""
    times, place = np.unique(observed.time, return_inverse=True)
    size = len(times)
    weight = observed.weight
    leaving = np.bincount(place, weight, size)
    n_risk = np.cumsum(leaving[::-1])[::-1]
    place_of_entry = None
    if observed.entry is not None:
        place_of_entry = np.searchsorted(times, observed.entry, "right")
        late = np.bincount(place_of_entry, weight, size + 1)
        n_risk = n_risk - np.cumsum(late[::-1])[::-1][1:]
    has_event = observed.event > 0
    n_event = np.bincount(place, weight * has_event, size)
    events = np.bincount(place, has_event, size)
    return Table(times, n_risk, n_event, leaving - n_event, events, place, place_of_entry)


def read_observed(
    time: ArrayLike,
    event: ArrayLike,
    entry: ArrayLike | None,
    weights: Tree,
    causes: bool = False,
) -> Observed:
    """Times, events, entries and weights as checked arrays of one length."""
    times = _column("time", time)
    codes = _column("event", event, len(times))
    wanted = "0 for a censored time and 1, 2, … for causes" if causes else "1 for an event, else 0"
    is_code = (codes >= 0) & (codes == np.rint(codes)) if causes else np.isin(codes, (0.0, 1.0))
    if not is_code.all():
        row = int(np.argmin(is_code))
        raise ValueError(f"event is {codes[row]:g} in row {row}; it must be {wanted}")
    if (times < 0).any():
        row = int(np.argmax(times < 0))
        raise ValueError(f"time is {times[row]:g} in row {row}; times must be 0 or more")
    start = None if entry is None else _column("entry", entry, len(times))
    if start is not None and (start >= times).any():
        row = int(np.argmax(start >= times))
        raise ValueError(
            f"entry is {start[row]:g} in row {row}, where time is {times[row]:g}: nobody "
            "is observed before entry. Drop such rows"
        )
    if weights is None:
        return Observed(times, codes, start, np.ones(len(times)), False)
    w = _weights(weights, len(times))
    present = w > 0
    return Observed(
        times[present],
        codes[present],
        None if start is None else start[present],
        w[present],
        weights.kind == "sampling",
    )


def _weights(weights: Tree, n: int) -> ndarray:
    """The values of frequency or sampling weights, (n,)."""
    if not isinstance(weights, Weights):
        raise TypeError(
            "weights must be jaxmle.frequency(w), for w identical rows, or "
            f"jaxmle.sampling(w); got {shown(weights)}"
        )
    w = _column("weights", weights.values, n)
    if (w < 0).any() or not (w > 0).any():
        raise ValueError("weights must be 0 or more, and at least one above 0")
    if weights.kind == "frequency" and (w != np.rint(w)).any():
        row = int(np.argmax(w != np.rint(w)))
        raise ValueError(
            f"frequency weights count rows and must be integers; row {row} has "
            f"{w[row]:g}. Survey weights are jaxmle.sampling(w)"
        )
    return w


def _column(name: str, values: ArrayLike, n: int | None = None) -> ndarray:
    """A column of finite numbers, (n,)."""
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if kind in ("m", "M") or str(getattr(values, "dtype", "")).startswith("Duration"):
        raise TypeError(
            f"{name} holds dates or durations; convert it to numbers first, such as days: "
            f"{name}.dt.days"
        )
    try:
        column = np.asarray(values).astype(float)
    except (TypeError, ValueError):
        remedy = (
            f": compare it with the code of an event, {name} == 'dead'"
            if name == "event" and getattr(values, "ndim", 0) == 1
            else ""
        )
        raise TypeError(f"{name} must be numbers, (n,); got {shown(values)}{remedy}") from None
    if column.ndim != 1 or not column.size or n not in (None, len(column)):
        wanted = "(n,)" if n is None else f"({n},), as time has"
        raise ValueError(f"{name} must have the shape {wanted}; got {column.shape}")
    if not np.isfinite(column).all():
        row = int(np.argmin(np.isfinite(column)))
        raise ValueError(f"{name} is {column[row]} in row {row}: drop or correct such rows")
    return column
