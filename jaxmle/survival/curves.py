"""The records of survival curves: estimated step functions, and curves predicted by a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxmle._types import ArrayLike, DataFrame, ndarray
from jaxmle.parameters.arguments import check_number, shown
from jaxmle.tables.frame import native

TOLERANCE_OF_LEVEL = float(np.sqrt(np.finfo(float).eps))  # of R's quantile.survfit
ROWS_PRINTED = 12


@dataclass(frozen=True, eq=False)
class StepCurve:
    """An estimated right-continuous step function of time, with pointwise bands.

    ``times`` (m,) are all observed times, ``estimate``, ``stderr``, ``lower`` and ``upper`` (m,)
    apply from each of them to the next. ``n_risk``, ``n_event`` and ``n_censored`` (m,) are sums of
    weights. ``quantity`` is "survival", "cumulative_hazard" or "incidence"; ``band`` and ``level``
    describe the intervals, and ``variance`` the standard errors.

    >>> from jaxmle.survival import kaplan_meier
    >>> curve = kaplan_meier([1.0, 2.0, 2.0, 4.0], [1, 1, 0, 1])
    >>> curve.estimate.tolist(), curve([0.5, 3.0]).tolist()
    ([0.75, 0.5, 0.0], [1.0, 0.5])
    """

    quantity: str
    times: ndarray
    estimate: ndarray
    stderr: ndarray
    lower: ndarray
    upper: ndarray
    n_risk: ndarray
    n_event: ndarray
    n_censored: ndarray
    level: float
    band: str
    variance: str = "greenwood"

    def __call__(self, times: ArrayLike | None) -> ndarray:
        """The estimate at ``times``; NaN beyond the last observed time, unless a survival function
        has reached 0.
        """
        return self._held(self.estimate, times, self._initial)

    def interval(self, times: ArrayLike | None) -> ndarray:
        """The pointwise interval at ``times``, (…, 2)."""
        ends = [self._held(end, times, self._initial) for end in (self.lower, self.upper)]
        return np.stack(ends, axis=-1)

    @property
    def _initial(self) -> float:
        return 1.0 if self.quantity == "survival" else 0.0

    def _held(self, values: ndarray, times: ArrayLike | None, initial: float) -> ndarray:
        times = np.asarray(times, float)
        place = np.searchsorted(self.times, times, "right")
        held = np.concatenate([[initial], values])[place]
        is_over = self.quantity == "survival" and len(self.estimate) and self.estimate[-1] == 0
        known = times <= (np.inf if is_over or not len(self.times) else self.times[-1])
        return np.where(known, held, np.nan)

    def quantile(self, p: float = 0.5) -> ndarray:
        """The time by which the fraction ``p`` has had the event, with its interval, (3,):
        estimate, lower, upper; by default the median.

        It is the first time at which S ≤ 1 − p; if S is exactly 1 − p, it is the midpoint between
        that time and the next event (R's ``quantile.survfit``; lifelines takes the first time). The
        interval is where the band crosses 1 − p (Brookmeyer & Crowley 1982, Biometrics 38, 29).
        Infinite if the curve, or an end of the band, does not come down that far.

        >>> from jaxmle.survival import kaplan_meier
        >>> kaplan_meier([1.0, 2.0, 3.0, 5.0], [1, 1, 1, 1]).quantile()[0].item()
        2.5
        """
        if self.quantity != "survival":
            raise ValueError(f"quantile needs a survival function; this is the {self.quantity}")
        level = 1 - check_number("p", p, 0.0, 1.0)
        curves = (self.estimate, self.lower, self.upper)
        return np.array([_crossing(self.times, curve, level) for curve in curves])

    def restricted_mean(self, until: float) -> tuple[float, float]:
        """The mean time without event up to ``until``, ∫ S, and its standard error (Klein &
        Moeschberger 2003, formula 4.5.2), as R's ``print(fit, rmean=until)``.

        Raises:
            ValueError: if the curve is not known that far, or has robust standard errors.

        >>> from jaxmle.survival import kaplan_meier
        >>> kaplan_meier([1.0, 2.0, 3.0, 5.0], [1, 1, 1, 1]).restricted_mean(5.0)[0]
        2.75
        """
        if self.quantity != "survival" or self.variance != "greenwood":
            raise ValueError(
                "the mean needs a survival function with Greenwood's variance; this is "
                f"the {self.quantity}, {self.variance}"
            )
        until = check_number("until", until, low=0.0)
        if np.isnan(self(until)):
            raise ValueError(f"the curve is not known at {until:g}: it ends at {self.times[-1]:g}")
        inside = self.times < until
        knots = np.concatenate([[0.0], self.times[inside], [until]])
        height = np.concatenate([[1.0], self.estimate[inside]])
        area = np.diff(knots) * height
        left = area.sum() - np.cumsum(area)[:-1]  # ∫ S from each time to ``until``
        risk = self.n_risk[inside]
        event = self.n_event[inside]
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.where(left > 0, left**2 * event / (risk * (risk - event)), 0.0)
        return float(area.sum()), float(np.sqrt(variance.sum()))

    def to_frame(self, backend: str | None = None) -> DataFrame:
        """A data frame with one row for each time, in full precision."""
        columns = {
            "time": self.times,
            "n_risk": self.n_risk,
            "n_event": self.n_event,
            "n_censored": self.n_censored,
            "estimate": self.estimate,
            "std_error": self.stderr,
            "conf_low": self.lower,
            "conf_high": self.upper,
        }
        return native(columns, backend)

    def __repr__(self) -> str:
        times = _counted(len(self.times), "time")
        head = f"{self.quantity}, {times}, {100 * self.level:g}% {self.band} band"
        lines = [f"{'time':>10} {'at risk':>9} {'events':>7} {'estimate':>9} {'band':>17}"]
        lines += [
            f"{t:>10.5g} {r:>9.6g} {e:>7.6g} {s:>9.4f}   {low:.4f} to {high:.4f}"
            for t, r, e, s, low, high in zip(
                self.times[:ROWS_PRINTED],
                self.n_risk,
                self.n_event,
                self.estimate,
                self.lower,
                self.upper,
                strict=False,
            )
        ]
        more = len(self.times) - ROWS_PRINTED
        return "\n".join(
            [head, *lines, *([f"… and {_counted(more, 'more time')}"] if more > 0 else [])]
        )


def _counted(number: int, noun: str) -> str:
    """``"1 time"``, ``"2 times"``."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def _crossing(times: ndarray, curve: ndarray, level: float) -> float:
    """The first time at which a curve is at or below ``level``; the midpoint if it is constant at
    ``level``.
    """
    below = np.flatnonzero(curve < level + TOLERANCE_OF_LEVEL)
    if not len(below):
        return np.inf
    first = below[0]
    if abs(curve[first] - level) >= TOLERANCE_OF_LEVEL:
        return float(times[first])
    lower = np.flatnonzero(curve < level - TOLERANCE_OF_LEVEL)
    return float(times[first] + times[lower[0]]) / 2 if len(lower) else float(times[first])


@dataclass(frozen=True, eq=False)
class Curve:
    """Curves predicted by a model, one for each row, with pointwise bands.

    ``times`` (m,), or levels of quantiles; ``estimate``, ``stderr``, ``lower`` and ``upper``
    (n, m). A standard error is NaN if the data do not determine the value, or if parameters were
    given instead of a fit.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((3, 1)), "time": np.array([1.0, 2.0, 3.0]), "event": np.ones(3)}
    >>> model = models.aft("exponential")
    >>> fit = jm.fit(model, data=data)
    >>> curve = jm.survival.survival(model, fit, data, [2.0])
    >>> curve.estimate[0].round(4).tolist(), curve.lower[0].round(4).tolist()  # S = exp(−1)
    ([0.3679], [0.045])
    """

    quantity: str
    times: ndarray
    estimate: ndarray
    stderr: ndarray
    lower: ndarray
    upper: ndarray
    level: float
    band: str

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.estimate)

    def to_frame(self, backend: str | None = None) -> DataFrame:
        """A data frame with one row for each row of data and each time, in full precision."""
        n, m = self.estimate.shape
        columns = {
            "row": np.repeat(np.arange(n), m),
            "p" if self.quantity == "quantile" else "time": np.tile(self.times, n),
            "estimate": self.estimate.ravel(),
            "std_error": self.stderr.ravel(),
            "conf_low": self.lower.ravel(),
            "conf_high": self.upper.ravel(),
        }
        return native(columns, backend)

    def __repr__(self) -> str:
        return (
            f"Curve of {self.quantity}: {_counted(self.n, 'row')}, "
            f"{_counted(len(self.times), 'time')}, "
            f"{100 * self.level:g}% {self.band} bands"
        )


def check_times(times: ArrayLike | None, name: str = "times") -> ndarray:
    """Times, or other non-negative numbers, as an array (m,)."""
    try:
        values = np.atleast_1d(np.asarray(times, float))
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers, such as [30, 365]; got {shown(times)}") from None
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{name} must be a number or a vector (m,); got shape {values.shape}")
    if np.isnan(values).any() or (values < 0).any():
        raise ValueError(f"{name} must be 0 or more; got {values[~(values >= 0)][0]:g}")
    return values
