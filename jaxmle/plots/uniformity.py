"""Residuals against their distribution if the model is right: normal quantiles, and uniform
integral transforms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

from jaxmle._types import ArrayLike, ndarray
from jaxmle.parameters.arguments import check_count, check_level, check_seed
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.plots.canvas import GREY, INK, PALE, axes, counted, numbers, percent, remark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS_OF_BAND = 400  # residuals up to which the band is computed at each of them
MAX_RANKS_DRAWN = 200  # beyond that, this many ranks, closer together in the tails

MOST_DRAWS = 10_000_000
MOST_BINS = 10_000


@with_keyword_hints
def qq(
    residuals: ArrayLike,
    *,
    level: float = 0.95,
    draws: int = 999,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Sorted residuals against standard normal quantiles Φ⁻¹((i − ½)/n), with a simultaneous band.

    The i-th of n sorted uniform values has a beta(i, n + 1 − i) distribution. The band consists of
    its quantiles γ/2 and 1 − γ/2, with γ such that the fraction ``level`` of simulated samples lies
    inside at every rank.

    Args:
        residuals: (n,), standard normal if the model is right, such as ``quantile_residuals``.
        level: probability that a whole sample lies inside the band.
        draws: number of simulated samples that determine γ.
        seed: of those samples.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``. NaN are left out; infinite residuals keep their rank but cannot be drawn; the
        title counts both. The band is for a known distribution: with estimated parameters,
        residuals lie closer to the line.

    Raises:
        ValueError, TypeError: for another shape, or fewer than two residuals.

    >>> from jaxmle import plots
    >>> ax = plots.qq([0.5, -0.7, 0.1, -1.2])
    >>> ax.get_lines()[0].get_ydata().tolist()
    [-1.2, -0.7, 0.1, 0.5]
    """
    check_level(level)
    draws = check_count("draws", draws, 1, MOST_DRAWS)
    seed = check_seed("seed", seed)
    values = numbers(residuals, "residuals")
    missing = int(np.isnan(values).sum())
    values = np.sort(values[~np.isnan(values)])
    n = len(values)
    if n < 2:
        raise ValueError(f"at least two residuals are needed; got {n} and {missing} NaN")
    ranks = _ranks(n)
    low, high = scipy.special.ndtri(band(ranks, n, level, draws, seed))
    quantile = scipy.special.ndtri((np.arange(1, n + 1) - 0.5) / n)
    ax = axes(ax, (5.0, 5.0))
    ax.plot(
        quantile,
        np.where(np.isfinite(values), values, np.nan),
        "o",
        color=INK,
        markersize=3.5 if n <= 1000 else 2,
        zorder=3,
        rasterized=n > 5000,
        label="residuals",
    )
    ax.fill_between(
        quantile[ranks - 1],
        low,
        high,
        color=PALE,
        alpha=0.6,
        linewidth=0,
        label=f"{percent(level)} simultaneous band",
    )
    ax.plot(quantile[[0, -1]], quantile[[0, -1]], color=GREY, linewidth=1.0)
    ax.set(xlabel="standard normal quantile", ylabel="residual")
    remark(
        ax,
        counted(missing, "NaN is left out", "NaN are left out")
        + counted(
            int(np.isinf(values).sum()),
            "infinite residual is not drawn",
            "infinite residuals are not drawn",
        ),
    )
    ax.legend(frameon=False, loc="upper left")
    return ax


def band(ranks: ndarray, n: int, level: float, draws: int, seed: int) -> ndarray:
    """Ends (2, m) between which the order statistics of n uniform values lie, all at once with
    probability ``level``.
    """
    rng = np.random.default_rng(seed)
    # Spacings of order statistics are gamma variables divided by their sum, so some ranks can be
    # drawn without the others.
    spacing = np.diff(np.concatenate([[0], ranks, [n + 1]]))
    sums = np.cumsum(rng.gamma(spacing, size=(draws, len(spacing))), axis=1)
    below = scipy.special.betainc(ranks, n + 1 - ranks, sums[:, :-1] / sums[:, -1:])
    nearest = 2 * np.min(np.minimum(below, 1 - below), axis=1)
    gamma = float(np.quantile(nearest, 1 - level))
    return np.stack(
        [
            scipy.special.betaincinv(ranks, n + 1 - ranks, tail)
            for tail in (gamma / 2, 1 - gamma / 2)
        ]
    )


def _ranks(n: int) -> ndarray:
    """The ranks to draw: all of a small sample, fewer of a large one, closer in the tails."""
    if n <= MAX_POINTS_OF_BAND:
        return np.arange(1, n + 1)
    half = np.unique(np.rint(np.geomspace(1, n / 2, MAX_RANKS_DRAWN)).astype(int))
    return np.union1d(half, n + 1 - half)


@with_keyword_hints
def pit(
    values: ArrayLike, *, bins: int | None = None, level: float = 0.95, ax: Axes | None = None
) -> Axes:
    """The histogram of probability integral transforms, flat if the model is right, with a band for
    its bars.

    Args:
        values: (n,) in [0, 1], such as the result of ``jaxmle.pit``.
        bins: number of bars; by default √n, between 5 and 20.
        level: probability that all bars lie inside the band, or more: binomial quantiles, divided
            among the bars (Bonferroni).
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``. NaN are left out; the title says how many.

    Raises:
        ValueError, TypeError: for another shape, values outside [0, 1], or no values.

    >>> from jaxmle import plots
    >>> [float(bar.get_height()) for bar in plots.pit([0.1, 0.3, 0.6, 0.9], bins=2).patches]
    [1.0, 1.0]
    """
    check_level(level)
    values = numbers(values, "values")
    missing = int(np.isnan(values).sum())
    values = values[~np.isnan(values)]
    n = len(values)
    if not n:
        raise ValueError("all values are NaN")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            "probability integral transforms must lie between 0 and 1; got "
            f"{values.min():g} to {values.max():g}. For residuals use qq"
        )
    bins = int(np.clip(np.rint(np.sqrt(n)), 5, 20)) if bins is None else bins
    bins = check_count("bins", bins, 2, MOST_BINS)
    ax = axes(ax)
    heights, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    ax.bar(
        edges[:-1],
        heights * bins / n,
        width=1 / bins,
        align="edge",
        color=PALE,
        edgecolor="white",
        linewidth=0.8,
    )
    low, high = _binomial(n, 1 / bins, (1 - level) / bins)
    ax.axhline(1.0, color=INK, linewidth=1.4, label="uniform")
    for end, label in ((low, f"{percent(level)} band for all bars"), (high, None)):
        ax.axhline(end * bins / n, color=GREY, linewidth=1.1, linestyle="--", label=label)
    ax.set(
        xlim=(0.0, 1.0),
        ylim=(0.0, 1.3 * max(heights.max(), high) * bins / n),
        xlabel="probability integral transform",
        ylabel="density",
    )
    remark(ax, counted(missing, "NaN is left out", "NaN are left out"))
    ax.legend(frameon=False, loc="upper right", ncols=2)
    return ax


def _binomial(n: int, share: float, tail: float) -> tuple[int, int]:
    """The binomial quantiles tail/2 and 1 − tail/2."""
    below = scipy.special.bdtr(np.arange(n + 1, dtype=float), n, share)
    low, high = np.searchsorted(below, [tail / 2, 1 - tail / 2])
    return int(low), int(min(high, n))
