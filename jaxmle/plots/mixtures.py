"""A normal mixture over the data that it was fitted to: densities in one dimension, ellipses in
two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import ArrayLike, ndarray
from jaxmle.parameters.arguments import check_level
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.plots.canvas import (
    DASHES,
    INK,
    MARKS,
    PALE,
    POINTS_OF_ELLIPSE,
    SHADES,
    axes,
    numbers,
    percent,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS_OF_DENSITY = 400  # points of a density
# How far a plot reaches around each component, in standard deviations, even beyond the data.
COMPONENT_REACH_IN_SD = 4.0
WEIGHT_TOLERANCE = 1e-6  # of the sum of the weights, which should be one
SYMMETRY_TOLERANCE = 1e-8  # of a covariance, relative to its largest entry


@with_keyword_hints
def mixture(
    y: ArrayLike,
    weight: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    *,
    names: Sequence[str] = (),
    level: float = 0.95,
    bins: int | str | Sequence[float] = "auto",
    ax: Axes | None = None,
) -> Axes:
    """Data and the normal components of a mixture: a histogram with weighted densities, or points
    with ellipses.

    Args:
        y: data (n,), or (n, 2).
        weight: (k,), positive, with sum 1.
        mean: (k,), or (k, 2).
        variance: variances (k,), or covariances (k, 2, 2).
        names: labels of the axes, one or two; by default y, or y[0] and y[1].
        level: probability of a component inside its ellipse.
        bins: of the histogram, as in NumPy.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``. In one dimension the density of each component times its weight, and their
        sum; in two dimensions each point has the marker of its most probable component.

    Raises:
        ValueError, TypeError: for shapes that do not match, weights that are not probabilities, or
            variances that are not positive (definite).

    >>> import numpy as np
    >>> from jaxmle import plots
    >>> y = np.array([-1.2, -0.9, -1.1, 2.0, 2.2, 1.9, 2.4])
    >>> len(plots.mixture(y, [0.4, 0.6], [-1.0, 2.1], [0.1, 0.2]).get_lines())
    3
    """
    check_level(level)
    y, weight, mean, variance = _checked(y, weight, mean, variance)
    d = 1 if y.ndim == 1 else 2
    names = tuple(names) if not isinstance(names, str) else (names,)
    names = names or (("y",) if d == 1 else ("y[0]", "y[1]"))
    if len(names) != d:
        raise ValueError(
            f"names must hold {d} name{'s' * (d > 1)} for data of shape {y.shape}; got {names!r}"
        )
    if d == 1:
        return _densities(axes(ax), y, weight, mean, variance, names[0], bins)
    return _ellipses(axes(ax, (6.0, 5.0)), y, weight, mean, variance, names, level)


def _checked(
    y: ArrayLike, weight: ArrayLike, mean: ArrayLike, variance: ArrayLike
) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    y = numbers(y, "y", (1, 2))
    weight = numbers(weight, "weight")
    mean = numbers(mean, "mean", (1, 2))
    variance = numbers(variance, "variance", (1, 3))
    if y.ndim == 2 and y.shape[1] != 2:
        raise ValueError(
            f"y must have the shape (n,) or (n, 2); got {y.shape}. Choose two columns, "
            "also of mean and variance"
        )
    rest: tuple[int, ...] = y.shape[1:]
    for name, value, expected in (
        ("mean", mean, (len(weight), *rest)),
        ("variance", variance, (len(weight), *rest, *rest)),
    ):
        if value.shape != expected:
            raise ValueError(
                f"{name} must have the shape {expected} for {len(weight)} weights and data of "
                f"shape {y.shape}; got {value.shape}"
            )
    for name, value in (("y", y), ("weight", weight), ("mean", mean), ("variance", variance)):
        if not np.isfinite(value).all():
            raise ValueError(f"{name} has non-finite values; leave them out")
    if np.any(weight <= 0) or abs(weight.sum() - 1) > WEIGHT_TOLERANCE:
        raise ValueError(
            f"weights must be positive and sum to 1; got {np.array2string(weight, precision=6)}"
        )
    square = variance[:, None, None] if y.ndim == 1 else variance
    if np.abs(square - np.swapaxes(square, 1, 2)).max() > SYMMETRY_TOLERANCE * np.abs(
        square
    ).max() or np.any(np.linalg.eigvalsh(square) <= 0):
        raise ValueError(
            "each variance must be positive, and each covariance symmetric and positive definite"
        )
    return y, weight, mean, variance


def _densities(
    ax: Axes,
    y: ndarray,
    weight: ndarray,
    mean: ndarray,
    variance: ndarray,
    name: str,
    bins: int | str | Sequence[float],
) -> Axes:
    sd = np.sqrt(variance)
    ax.hist(y, bins=bins, density=True, color=PALE, edgecolor="white", linewidth=0.6)
    grid = np.linspace(
        min(y.min(), np.min(mean - COMPONENT_REACH_IN_SD * sd)),
        max(y.max(), np.max(mean + COMPONENT_REACH_IN_SD * sd)),
        POINTS_OF_DENSITY,
    )
    grid = np.union1d(grid, mean)  # a narrow component must not fall between two points
    each = (
        weight[:, None]
        * np.exp(-0.5 * ((grid - mean[:, None]) / sd[:, None]) ** 2)
        / (sd[:, None] * np.sqrt(2 * np.pi))
    )
    # The mixture is drawn broad and first, so that a component is visible on top of it.
    ax.plot(grid, each.sum(axis=0), color=SHADES[1], linewidth=3.5, alpha=0.7, label="mixture")
    for number, curve in enumerate(each):
        ax.plot(
            grid,
            curve,
            color=INK,
            linestyle=DASHES[1 + number % 3],
            linewidth=1.5,
            label=_component_label(number, weight),
        )
    ax.set(xlabel=name, ylabel="density")
    _legend(ax, len(weight) + 1)
    return ax


def _ellipses(
    ax: Axes,
    y: ndarray,
    weight: ndarray,
    mean: ndarray,
    variance: ndarray,
    names: tuple[str, ...],
    level: float,
) -> Axes:
    owner = np.argmax(_log_densities(y, weight, mean, variance), axis=1)
    # χ²₂ is exponential with mean 2
    angle = np.linspace(0.0, 2 * np.pi, POINTS_OF_ELLIPSE)
    radius = np.sqrt(-2 * np.log1p(-level))
    circle = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    for number in range(len(weight)):
        mine = y[owner == number]
        colour = SHADES[1 + number % 2]
        face = colour if number % 2 else "none"
        ax.plot(
            *mine.T,
            linestyle="none",
            marker=MARKS[number % len(MARKS)],
            color=colour,
            markerfacecolor=face,
            markersize=3.5,
            alpha=0.7,
            label=_component_label(number, weight),
            gid="points",
        )
        edge = mean[number] + circle @ np.linalg.cholesky(variance[number]).T
        ax.plot(
            *edge.T, color=INK, linestyle=DASHES[number % len(DASHES)], linewidth=1.6, gid="ellipse"
        )
    ax.plot(
        *mean.T,
        "X",
        color=INK,
        markeredgecolor="white",
        markersize=10,
        label=f"means, {percent(level)} ellipses",
        gid="means",
        zorder=4,
    )
    ax.set(xlabel=names[0], ylabel=names[1])
    _legend(ax, len(weight) + 1)
    return ax


def _log_densities(y: ndarray, weight: ndarray, mean: ndarray, variance: ndarray) -> ndarray:
    """log wⱼ fⱼ(y) up to a constant, (n, k)."""
    off = y[:, None, :] - mean
    distance = np.einsum("nki,kij,nkj->nk", off, np.linalg.inv(variance), off)
    return np.log(weight) - 0.5 * (distance + np.log(np.linalg.det(variance)))


def _component_label(number: int, weight: ndarray) -> str:
    return f"component {number}, weight {weight[number]:.3g}"


def _legend(ax: Axes, items: int) -> None:
    """Draw the legend above the plot, away from the data."""
    ax.legend(
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2 if items <= 6 else 3,
        borderaxespad=0.2,
        fontsize="small",
    )
