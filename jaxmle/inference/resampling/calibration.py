"""The record of a calibration: bias, standard errors, coverage and size of tests on data with known
truth.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy

from jaxmle._types import Function, ndarray
from jaxmle.inference.refit import failures
from jaxmle.inference.statuses import REGULAR_STATUSES
from jaxmle.parameters.arguments import check_choice
from jaxmle.solvers.status import Status
from jaxmle.tables.plain import listing, number


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """Refits of R data sets simulated at ``truth`` (p,): bias, standard errors, coverage and tests.

    ``estimates``, ``stderrs`` (R, p); ``status`` (R,); ``intervals`` from the name of a kind to its
    ends (R, p, 2); ``statistics`` from the name of a test of the whole true parameter vector to its
    values (R,), which are compared with χ² with ``df`` degrees of freedom; ``information`` (p, p),
    the mean observed information at the truth, and ``bound`` (p,), the Cramér–Rao bound on
    variances.

    A replicate is *regular* if a maximum was found inside the parameter space (CONVERGED or
    IMPRECISE). Means, coverage and sizes are over these; replicates on a bound or with an infinite
    estimate are counted and shown separately.

    >>> import jax, numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.resampling.calibrate import calibrate
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> sample = lambda key, params, y: jax.random.exponential(key, y.shape) / params["rate"]
    >>> study = calibrate(exponential, result, y, sample, key=0, replicates=500)
    >>> study.estimates.shape, round(float(study.bound[0]), 6)  # Cramér–Rao: rate²/n
    ((500, 1), 0.027778)
    """

    truth: ndarray
    estimates: ndarray = field(repr=False)
    stderrs: ndarray = field(repr=False)
    status: ndarray = field(repr=False)
    intervals: dict[str, ndarray] = field(repr=False)
    statistics: dict[str, ndarray] = field(repr=False)
    information: ndarray
    bound: ndarray
    df: int
    level: float
    vcov_kind: str
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.status)

    # ------------------------------------------------------------ who counts

    @property
    def regular(self) -> ndarray:
        """Which replicates have an interior maximum, (R,)."""
        return np.isin(self.status, REGULAR_STATUSES)

    @property
    def boundary(self) -> ndarray:
        """Which replicates have their maximum on a bound, (R,)."""
        return self.status == Status.BOUNDARY

    @property
    def failed(self) -> dict[str, int]:
        """The number of replicates with each status other than CONVERGED."""
        return failures(self.status)

    def members(self, which: str | Status = "regular") -> ndarray:
        """A mask (R,) of replicates: ``"regular"``, ``"all"``, or those with one status."""
        if isinstance(which, Status):
            return self.status == which
        check_choice("which", which, ("regular", "all"))
        return self.regular if which == "regular" else np.ones(len(self), bool)

    # ------------------------------------------------------------ estimates

    @property
    def bias(self) -> ndarray:
        """Mean of the regular estimates minus the truth, (p,)."""
        return _over(np.mean, self.estimates[self.regular]) - self.truth

    @property
    def bias_error(self) -> ndarray:
        """Monte Carlo standard error of ``bias``, (p,)."""
        return self.sd / np.sqrt(max(int(self.regular.sum()), 1))

    @property
    def median_bias(self) -> ndarray:
        """Median of all estimates minus the truth, (p,); estimates on a bound and infinite
        estimates are included.
        """
        return _over(np.nanmedian, self.estimates) - self.truth

    @property
    def sd(self) -> ndarray:
        """Standard deviation of the regular estimates, (p,); NaN for an entry that is held
        fixed.
        """
        sd = _over(
            lambda values, axis: np.std(values, axis=axis, ddof=1), self.estimates[self.regular], 2
        )
        return np.where(sd > 0, sd, np.nan)

    @property
    def se_ratio(self) -> ndarray:
        """Mean standard error over the standard deviation of the estimates, (p,), over regular
        replicates that have both. 1 is right; less than 1 means that standard errors are too small.
        """
        return self._ratio()[0]

    @property
    def se_ratio_error(self) -> ndarray:
        """Monte Carlo standard error of ``se_ratio``, (p,)."""
        return self._ratio()[1]

    def _ratio(self) -> tuple[ndarray, ndarray]:
        """m/s and its error by the delta method: its influence function is (v − m)/s − m((x −
        x̄)² − s²)/2s³.
        """
        ratios = np.full((2, len(self.names)), np.nan)
        for j in range(len(self.names)):
            both = (
                self.regular & np.isfinite(self.stderrs[:, j]) & np.isfinite(self.estimates[:, j])
            )
            x = self.estimates[both, j]
            v = self.stderrs[both, j]
            if len(x) > 1 and (s := x.std(ddof=1)) > 0:
                influence = (v - v.mean()) / s - v.mean() * ((x - x.mean()) ** 2 - s**2) / (
                    2 * s**3
                )
                ratios[:, j] = v.mean() / s, influence.std(ddof=1) / np.sqrt(len(x))
        return ratios[0], ratios[1]

    @property
    def efficiency(self) -> ndarray:
        """The Cramér–Rao bound over the variance of the regular estimates, (p,). It may exceed 1
        for a biased estimate.
        """
        return self.bound / self.sd**2

    # ------------------------------------------------------------ intervals and tests

    def coverage(self, kind: str = "wald", which: str | Status = "regular") -> ndarray:
        """The proportion of intervals that contain the truth, (p,), among the replicates that have
        an interval; NaN if none has.
        """
        covered, has_one = self._covered(kind, which)
        return np.where(has_one > 0, covered / np.maximum(has_one, 1), np.nan)

    def coverage_error(self, kind: str = "wald", which: str | Status = "regular") -> ndarray:
        """Monte Carlo standard error √(c(1 − c)/R) of ``coverage``, (p,)."""
        share = self.coverage(kind, which)
        count = self._covered(kind, which)[1]
        return np.sqrt(share * (1 - share) / np.maximum(count, 1))

    def without_interval(self, kind: str = "wald", which: str | Status = "all") -> ndarray:
        """The proportion of replicates without an interval of this kind, (p,)."""
        members = self.members(which)
        return 1 - self._covered(kind, which)[1] / max(int(members.sum()), 1)

    def _covered(self, kind: str, which: str | Status) -> tuple[ndarray, ndarray]:
        """The number of intervals that contain the truth and the number of intervals, (p,) each."""
        if kind not in self.intervals:
            raise ValueError(
                f"there is no interval {kind!r}; there are {', '.join(self.intervals)}"
            )
        low, high = np.moveaxis(self.intervals[kind][self.members(which)], -1, 0)
        inside = (low <= self.truth) & (self.truth <= high)
        return np.sum(inside, axis=0), np.sum(~np.isnan(low) & ~np.isnan(high), axis=0)

    def size(self, test: str = "wald") -> tuple[float, float]:
        """The proportion of regular replicates in which a test of level 1 − ``level`` rejects the
        truth, and its Monte Carlo standard error.
        """
        if test not in self.statistics:
            raise ValueError(f"there is no test {test!r}; there are {', '.join(self.statistics)}")
        values = self.statistics[test][self.regular]
        values = values[~np.isnan(values)]
        if not len(values):
            return float("nan"), float("nan")
        share = float(np.mean(values > scipy.special.chdtri(self.df, 1 - self.level)))
        return share, float(np.sqrt(share * (1 - share) / len(values)))

    # ------------------------------------------------------------ text

    def __repr__(self) -> str:
        regular = int(self.regular.sum())
        failed = "".join(f"; {count:,} {status}" for status, count in self.failed.items())
        parts = [
            f"Calibration, {len(self):,} simulated data sets, {regular:,} regular{failed}",
            self._estimates(),
            self._coverage(),
        ]
        if self.statistics:
            rows = [
                [test, *(number(value, 3) for value in self.size(test))] for test in self.statistics
            ]
            parts.append(
                f"Size of tests of the whole true parameter at {100 * (1 - self.level):g}%, "
                f"χ²({self.df})\n" + listing(["", "size", "± SE"], rows)
            )
        return "\n\n".join([*parts, *self._apart()])

    def _estimates(self) -> str:
        columns = [
            self.truth,
            self.bias,
            self.bias_error,
            self.sd,
            self.se_ratio,
            self.se_ratio_error,
            self.efficiency,
        ]
        rows = [
            [name, *(number(float(column[j])) for column in columns)]
            for j, name in enumerate(self.names)
        ]
        return listing(["", "truth", "bias", "± SE", "SD", "SE / SD", "± SE", "efficiency"], rows)

    def _coverage(self) -> str:
        rows = []
        for j, name in enumerate(self.names):
            cells = [
                f"{number(100 * float(self.coverage(kind)[j]))} ± "
                f"{number(100 * float(self.coverage_error(kind)[j]), 2)}"
                for kind in self.intervals
            ]
            rows.append(
                [
                    name,
                    *cells,
                    *(
                        number(100 * float(self.without_interval(kind)[j]), 3)
                        for kind in list(self.intervals)[:1]
                    ),
                ]
            )
        return f"Coverage of {100 * self.level:g}% intervals, in %, regular replicates\n" + listing(
            ["", *self.intervals, "none (of all)"], rows
        )

    def _apart(self) -> list[str]:
        lines = []
        kind = next(iter(self.intervals))
        for code in np.unique(self.status[~self.regular]).tolist():
            which = Status(code)
            members = self.members(which)
            share = self.coverage(kind, which)
            values = _over(np.nanmedian, self.estimates[members])
            missing = self.without_interval(kind, which)
            rows = [
                [
                    name,
                    number(float(values[j])),
                    number(100 * float(share[j])),
                    number(100 * float(missing[j]), 3),
                ]
                for j, name in enumerate(self.names)
            ]
            lines.append(
                f"{which.name}: {int(members.sum()):,} replicates, {100 * members.mean():.3g}%\n"
                + listing(["", "median", f"coverage ({kind})", "no interval"], rows)
            )
        return lines


def _over(reduce: Function, values: ndarray, least: int = 1) -> ndarray:
    """A reduction over replicates, NaN if there are too few or all are undefined."""
    if len(values) < least:
        return np.full(values.shape[1], np.nan)
    has_value = ~np.all(np.isnan(values), axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(has_value, reduce(np.where(has_value, values, 0.0), axis=0), np.nan)
