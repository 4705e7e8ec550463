"""Coverage of intervals in simulated data with known truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

from jaxmle._types import ndarray
from jaxmle.inference.resampling.calibration import Calibration
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.plots.canvas import GREY, MARKS, SHADES, axes, percent, remark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COVERAGE_LEVEL = 0.95  # level of the Monte Carlo interval of a coverage


@with_keyword_hints
def coverage(calibration: Calibration, *, ax: Axes | None = None) -> Axes:
    """The proportion of intervals that contain the truth, for each parameter and kind of interval,
    with its Monte Carlo interval.

    Args:
        calibration: the result of ``calibrate``.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``: parameters from top to bottom, coverage on the horizontal axis; the dotted
        line is the nominal level. Proportions are over the regular replicates with an interval; the
        bars are Wilson's 95% intervals (Wilson 1927, JASA 22, 209), which have positive length even
        if every interval contains the truth. The title gives the number of regular replicates.

    Raises:
        TypeError: for anything but a ``Calibration``.

    >>> import numpy as np
    >>> from jaxmle.inference.resampling.calibration import Calibration
    >>> from jaxmle import plots
    >>> ends = np.array([[[-1.0, 1.0]], [[0.5, 1.0]], [[-2.0, 0.1]], [[-0.3, 0.4]]])
    >>> known = Calibration(
    ...     np.zeros(1),
    ...     ends.mean(-1),
    ...     np.ones((4, 1)),
    ...     np.full(4, 10),
    ...     {"wald": ends},
    ...     {},
    ...     np.eye(1),
    ...     np.ones(1),
    ...     1,
    ...     0.95,
    ...     "observed",
    ...     ("mu",),
    ... )
    >>> plots.coverage(known).get_lines()[0].get_xdata().tolist()
    [75.0]
    """
    if not isinstance(calibration, Calibration):
        raise TypeError(f"this plot needs a Calibration; got {type(calibration).__name__}")
    names = calibration.names
    kinds = list(calibration.intervals)
    ax = axes(ax, (6.0, 1.3 + 0.3 * len(names) * max(1.0, 0.6 * len(kinds))))
    offsets = (np.arange(len(kinds)) - (len(kinds) - 1) / 2) * 0.8 / max(len(kinds), 2)
    regular = int(calibration.regular.sum())
    for number, kind in enumerate(kinds):
        share = calibration.coverage(kind)
        count = np.rint(regular * (1 - calibration.without_interval(kind, "regular")))
        low, high = _wilson(share, count)
        colour = SHADES[number % len(SHADES)]
        y = np.arange(len(names)) + offsets[number]
        ax.plot(
            100 * share,
            y,
            linestyle="none",
            marker=MARKS[number % len(MARKS)],
            markersize=5.5,
            color=colour,
            label=kind,
            gid="coverage",
        )
        ax.hlines(y, 100 * low, 100 * high, color=colour, linewidth=1.4)
        for place in np.flatnonzero(np.isnan(share)).tolist():
            _say_no_interval(ax, y[place], colour)
    ax.axvline(100 * calibration.level, color=GREY, linewidth=1.0, linestyle=":")
    ax.set_yticks(np.arange(len(names)), list(names))
    ax.set(
        ylim=(len(names) - 0.4, -0.6),
        xlabel=f"coverage of {percent(calibration.level)} intervals, in %",
    )
    remark(ax, [f"{regular:,} of {len(calibration):,} replicates are regular"])
    if len(kinds) > 1:
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _say_no_interval(ax: Axes, y: float, colour: str) -> None:
    """Write that an entry has no interval of this kind."""
    ax.annotate(
        "no interval",
        (0.5, y),
        xycoords=("axes fraction", "data"),
        ha="center",
        va="center",
        fontsize="small",
        color=colour,
    )


def _wilson(share: ndarray, count: ndarray) -> tuple[ndarray, ndarray]:
    """The Wilson interval: the values π with |share − π| ≤ z √(π(1 − π)/count)."""
    z = float(scipy.special.ndtri(0.5 + COVERAGE_LEVEL / 2))
    count = np.where(count > 0, count, np.nan)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return middle - half, middle + half
