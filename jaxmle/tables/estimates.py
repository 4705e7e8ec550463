"""A table of estimates that are not parameters: functions of them, effects, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from jaxmle._types import ndarray
from jaxmle.tables import numerals
from jaxmle.tables.layout import Grid
from jaxmle.tables.notes import printed
from jaxmle.tables.numerals import Style


class Estimates(NamedTuple):
    """Names (q,) with estimates, standard errors and intervals (q, 2)."""

    names: Sequence[str]
    estimate: ndarray
    stderr: ndarray
    interval: ndarray
    level: float
    tests: bool = True  # whether z and p of the hypothesis 0 are shown

    @property
    def zvalues(self) -> ndarray:
        """Estimate over standard error, NaN where there is none."""
        with np.errstate(all="ignore"):
            return self.estimate / np.where(self.stderr > 0, self.stderr, np.nan)

    @property
    def pvalues(self) -> ndarray:
        """Two-sided normal p-values of the z values."""
        return 2 * scipy.special.ndtr(-np.abs(self.zvalues))

    def columns(self) -> dict[str, ndarray]:
        """The columns of a tidy data frame, without the names."""
        tests = {"statistic": self.zvalues, "p_value": self.pvalues} if self.tests else {}
        return {
            "estimate": self.estimate,
            "std_error": self.stderr,
            **tests,
            "conf_low": self.interval[:, 0],
            "conf_high": self.interval[:, 1],
        }


def grid_of(estimates: Estimates, style: Style = numerals.scaled) -> Grid:
    """A row for each estimate."""
    share = numerals.percent(estimates.level)
    tested = ("z", "p") if estimates.tests else ()
    header = ("", "estimate", "std. error", *tested, f"lower {share}", f"upper {share}")
    rows = []
    for i, name in enumerate(estimates.names):
        stderr = float(estimates.stderr[i])
        ends = (float(end) for end in estimates.interval[i])
        estimate, lower, upper = style((float(estimates.estimate[i]), *ends), stderr)
        tests = (
            numerals.z_value(float(estimates.zvalues[i])),
            numerals.p_value(float(estimates.pvalues[i])),
        )
        shown = tests if estimates.tests else ()
        rows.append((printed(name), estimate, *style((stderr,), stderr), *shown, lower, upper))
    return Grid(header, tuple(rows))
