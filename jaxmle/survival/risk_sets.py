"""Sums over the risk sets of a Cox model in NumPy: from sorted rows, with ties, strata, late entry
and weights.

At an event time t of a stratum with m events of total weight d, the risk set has S0 = Σ w r and
S1 = Σ w r x, and the events among it D0 and D1. Breslow's method has one step, with hazard d/S0.
Efron's has m steps: at step j the fraction j/m of the events' own risk has left, so the hazard is
(d/m)/(S0 − (j/m) D0). Sums over a row's time at risk are sums over these steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxmle._types import ndarray


class Rows(NamedTuple):
    """The rows of a Cox model, all arrays (n,) but ``x`` (n, q)."""

    x: ndarray
    time: ndarray
    event: ndarray  # 0.0 or 1.0
    entry: ndarray  # −∞ where observed from the origin
    weight: ndarray
    stratum: ndarray  # codes 0, 1, …, in the order of ``strata`` of the risk sets
    offset: ndarray

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.time)


@dataclass(frozen=True)
class RiskSets:
    """The risk sets of the steps of a Cox model, at given coefficients.

    Event times, in the order of stratum and time, (k,): ``time``, ``stratum``, ``events`` (m),
    ``weight`` (d), ``at_risk`` (S0), ``deaths`` (D0). Steps, (s,): ``tie`` (to which event time one
    belongs), ``share`` (j/m), ``mass`` (d/m, or d), ``hazard``, ``mean`` (s, q). Rows, (n,):
    ``risk`` r; ``start`` the first step of a row's stratum; ``first`` and ``last``, the steps
    between which it is at risk; ``own_tie`` the event time of its own event, −1 if it has none.
    """

    rows: Rows
    time: ndarray
    stratum: ndarray
    events: ndarray
    weight: ndarray
    at_risk: ndarray
    deaths: ndarray
    tie: ndarray
    share: ndarray
    mass: ndarray
    hazard: ndarray
    mean: ndarray
    risk: ndarray
    start: ndarray
    first: ndarray
    last: ndarray
    own_tie: ndarray

    @property
    def left(self) -> ndarray:
        """What is left of the risk set at each step, S0 − (j/m) D0, (s,)."""
        return self.at_risk[self.tie] - self.share * self.deaths[self.tie]

    def over_steps(self, values: ndarray) -> ndarray:
        """Sums of ``values`` (s, …) over the steps at which each row is at risk, (n, …): in its own
        tie a row with the event counts with its remaining risk, 1 − j/m.
        """
        running = np.zeros((len(values) + 1, *values.shape[1:]))
        for low, high in _segments(self.stratum[self.tie]):
            running[low + 1 : high + 1] = np.cumsum(values[low:high], axis=0)
        total = _where_any(self.last > self.start, running[self.last])
        total -= _where_any(self.first > self.start, running[self.first])
        lost = self.in_ties((self.share.reshape(-1, *[1] * (values.ndim - 1))) * values)
        has_event = self.own_tie >= 0
        total[has_event] -= lost[self.own_tie[has_event]]
        return total

    def in_ties(self, values: ndarray) -> ndarray:
        """Sums of ``values`` (s, …) over the steps of each event time, (k, …)."""
        if not len(values):
            return values
        return np.add.reduceat(values, np.flatnonzero(np.diff(self.tie, prepend=-1)), axis=0)


class _Keys(NamedTuple):
    """Whole numbers that order times within strata: of the rows' times and entries (n,) and of the
    distinct event times (k,), whose values are ``ranks[key % span − 1]``.
    """

    ranks: ndarray
    span: int
    key: ndarray
    entry_key: ndarray
    tie_key: ndarray
    own_tie: ndarray  # (n,) −1 without an event
    events: ndarray  # (k,)


def _keys(rows: Rows) -> _Keys:
    ranks = np.unique(np.concatenate([rows.time, rows.entry[np.isfinite(rows.entry)]]))
    span = len(ranks) + 1
    key = rows.stratum * span + 1 + np.searchsorted(ranks, rows.time)
    rank_of_entry = 1 + np.searchsorted(ranks, rows.entry)
    entry_key = rows.stratum * span + np.where(np.isfinite(rows.entry), rank_of_entry, 0)
    has_event = rows.event > 0
    tie_key, tie_of_event, events = np.unique(
        key[has_event], return_inverse=True, return_counts=True
    )
    own_tie = np.full(rows.n, -1)
    own_tie[has_event] = tie_of_event
    return _Keys(ranks, span, key, entry_key, tie_key, own_tie, events)


def risk_sets(rows: Rows, beta: ndarray, ties: str) -> RiskSets:
    """The risk sets at coefficients ``beta`` (q,), by Efron's steps or Breslow's."""
    x = rows.x
    risk = np.exp(x @ beta + rows.offset)
    ranks, span, key, entry_key, tie_key, own_tie, events = _keys(rows)
    has_event = rows.event > 0
    tie_of_event = own_tie[has_event]
    weighted = rows.weight * risk
    columns = np.concatenate([weighted[:, None], weighted[:, None] * x], axis=1)
    at_risk = _sums_from(columns, key, tie_key, span)
    if np.isfinite(rows.entry).any():
        at_risk -= _sums_from(columns, entry_key, tie_key, span)
    deaths = np.zeros_like(at_risk)
    np.add.at(deaths, tie_of_event, columns[has_event])
    weight = np.bincount(tie_of_event, rows.weight[has_event], len(tie_key))
    steps = events if ties == "efron" else np.ones_like(events)
    tie = np.repeat(np.arange(len(tie_key)), steps)
    place = np.arange(len(tie)) - np.repeat(np.cumsum(steps) - steps, steps)
    share = place / steps[tie]
    left = at_risk[tie] - share[:, None] * deaths[tie]
    mass = weight[tie] / steps[tie]
    with np.errstate(divide="ignore", invalid="ignore"):
        hazard = np.where(mass > 0, mass / left[:, 0], 0.0)
        mean = np.where(left[:, :1] > 0, left[:, 1:] / left[:, :1], 0.0)
    return RiskSets(
        rows=rows,
        time=ranks[tie_key % span - 1],
        stratum=tie_key // span,
        events=events,
        weight=weight,
        at_risk=at_risk[:, 0],
        deaths=deaths[:, 0],
        tie=tie,
        share=share,
        mass=mass,
        hazard=hazard,
        mean=mean,
        risk=risk,
        start=np.searchsorted(tie_key[tie], rows.stratum * span, "right"),
        first=np.searchsorted(tie_key[tie], entry_key, "right"),
        last=np.searchsorted(tie_key[tie], key, "right"),
        own_tie=own_tie,
    )


def _segments(codes: ndarray) -> list[tuple[int, int]]:
    """The start and end positions of each run of equal codes."""
    start = np.flatnonzero(np.diff(codes, prepend=-1)).tolist()
    return list(zip(start, [*start[1:], len(codes)], strict=True))


def _where_any(condition: ndarray, values: ndarray) -> ndarray:
    """``values`` (n, …) in the rows where ``condition`` holds, 0 in the others."""
    return np.where(condition.reshape(-1, *[1] * (values.ndim - 1)), values, 0.0)


def _sums_from(columns: ndarray, key: ndarray, wanted: ndarray, span: int) -> ndarray:
    """Sums of rows (n, c) of the same stratum with ``key`` ≥ each key of ``wanted``, (k, c).

    They are summed from the end, separately for each stratum: differences of cumulative sums would
    lose the small ones.
    """
    order = np.argsort(key, kind="stable")
    sorted_key = key[order]
    values = columns[order]
    sums = np.zeros((len(order) + 1, columns.shape[1]))
    for low, high in _segments(sorted_key // span):
        sums[low:high] = np.cumsum(values[low:high][::-1], axis=0)[::-1]
    place = np.searchsorted(sorted_key, wanted, "left")
    inside = place < len(order)
    inside[inside] = sorted_key[place[inside]] // span == wanted[inside] // span
    return np.where(inside[:, None], sums[place], 0.0)
