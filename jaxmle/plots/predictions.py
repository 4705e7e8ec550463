"""Predictions over a variable, and residuals against fitted values or a covariate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import ArrayLike, Facts, Tree, ndarray
from jaxmle.parameters.arguments import check_count, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.plots.canvas import (
    BAND_OPACITY,
    DASHES,
    GREY,
    INK,
    MARKS,
    SHADES,
    axes,
    counted,
    numbers,
    remark,
)
from jaxmle.tables.notes import printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS_OF_PREDICTIONS = ("estimate", "conf_low", "conf_high")
MOST_BINS_OF_MEANS = 1000
SPREAD_OF_POINTS = 0.12  # of the distance between two groups, over which their points are spread


@with_keyword_hints
def predictions(
    over: ArrayLike,
    predicted: Tree,
    *,
    by: ArrayLike | None = None,
    xlabel: str = "",
    ylabel: str = "prediction",
    ax: Axes | None = None,
) -> Axes:
    """Predictions with intervals as a function of a variable: lines with bands for numbers, points
    with bars for categories.

    Args:
        over: (n,) values of the variable, numbers or strings.
        predicted: a table with the columns estimate, conf_low and conf_high, as ``frame.predict``
            returns it; or three arrays (n,), estimate, lower and upper end.
        by: (n,) labels of groups, with one line for each; None for one line.
        xlabel, ylabel: the labels of the axes.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``.

    Raises:
        ValueError, TypeError: for missing columns or different lengths.

    >>> import numpy as np
    >>> from jaxmle import plots
    >>> age = np.array([60.0, 20.0, 40.0])
    >>> ax = plots.predictions(age, (age / 10, age / 10 - 1, age / 10 + 1), xlabel="age")
    >>> ax.get_lines()[0].get_xydata().tolist()
    [[20.0, 2.0], [40.0, 4.0], [60.0, 6.0]]
    """
    over = _labels("over", over, None)
    n = len(over)
    columns = [_same_length(f"predicted {name}", part, n) for name, part in _parts(predicted)]
    groups = np.zeros(n, int) if by is None else _labels("by", by, n)
    kinds = list(dict.fromkeys(groups.tolist()))
    ax = axes(ax)
    is_number = over.dtype.kind in "fiu"
    words = list(dict.fromkeys(over.tolist()))
    for number, kind in enumerate(kinds):
        chosen = groups == kind
        x = over[chosen] if is_number else np.array([words.index(v) for v in over[chosen].tolist()])
        estimate, low, high = (part[chosen] for part in columns)
        style = {"color": SHADES[number % len(SHADES)]}
        label = printed(str(kind)) if by is not None else None
        draw = _line if is_number else _points
        draw(ax, x, (estimate, low, high), style, label, number, len(kinds))
    if not is_number:
        ax.set_xticks(np.arange(len(words)), [printed(str(word)) for word in words])
        ax.set_xlim(-0.5, len(words) - 0.5)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if by is not None:
        ax.legend(frameon=False, loc="best")
    return ax


def _parts(predicted: Tree) -> list[tuple[str, Tree]]:
    """Estimate, lower and upper end, by name."""
    if isinstance(predicted, tuple | list):
        if len(predicted) != 3:
            raise ValueError(
                f"predicted must be the estimate, lower and upper ends; got {len(predicted)} arrays"
            )
        return list(zip(COLUMNS_OF_PREDICTIONS, predicted, strict=True))
    known = list(getattr(predicted, "columns", predicted if isinstance(predicted, dict) else ()))
    names = [str(name) for name in getattr(predicted, "column_names", known)]
    missing = [name for name in COLUMNS_OF_PREDICTIONS if name not in names]
    if missing:
        raise TypeError(
            "predicted must be a table with the columns estimate, conf_low and conf_high, or three "
            f"arrays; got {shown(predicted)}"
        )
    return [(name, predicted[name]) for name in COLUMNS_OF_PREDICTIONS]


def _line(
    ax: Axes,
    x: ndarray,
    parts: tuple[ndarray, ...],
    style: Facts,
    label: str | None,
    number: int,
    kinds: int,
) -> None:
    order = np.argsort(x, kind="stable")
    estimate, low, high = (part[order] for part in parts)
    pattern = DASHES[number % len(DASHES)]
    ax.plot(
        x[order], estimate, linewidth=1.6, linestyle=pattern, label=label, gid="prediction", **style
    )
    ax.fill_between(x[order], low, high, alpha=BAND_OPACITY, linewidth=0, gid="band", **style)


def _points(
    ax: Axes,
    x: ndarray,
    parts: tuple[ndarray, ...],
    style: Facts,
    label: str | None,
    number: int,
    kinds: int,
) -> None:
    estimate, low, high = parts
    place = x + 0.6 * (number - (kinds - 1) / 2) / max(kinds, 2)
    ax.vlines(place, low, high, linewidth=1.4, **style)
    mark = MARKS[number % len(MARKS)]
    ax.plot(
        place,
        estimate,
        linestyle="none",
        marker=mark,
        markersize=5.5,
        label=label,
        gid="prediction",
        **style,
    )


# ---------------------------------------------------------------- residuals


@with_keyword_hints
def residuals(
    residual: ArrayLike,
    against: ArrayLike,
    *,
    xlabel: str = "fitted value",
    ylabel: str = "residual",
    bins: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Residuals against fitted values or a covariate, with binned means, which are close to zero
    everywhere if the model is right.

    Args:
        residual: (n,), such as ``model.residuals(params, data, "pearson")`` or those of
            ``jaxmle.survival``.
        against: (n,) fitted values or a covariate: numbers, or strings for groups side by side.
        xlabel, ylabel: the labels of the axes.
        bins: number of bins, with equally many rows each, for the means; by default √n, at most 30.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``: points, means of bins or groups with bars of two standard errors. Non-finite
        rows are left out; the title says how many.

    Raises:
        ValueError, TypeError: for other shapes, or fewer than two rows.

    >>> from jaxmle import plots
    >>> ax = plots.residuals([0.5, -0.7, 0.1, -1.2], [1.0, 2.0, 3.0, 4.0], bins=2)
    >>> ax.get_lines()[1].get_ydata().round(2).tolist()  # means of the lower and upper half
    [-0.1, -0.55]
    """
    values = numbers(residual, "residual")
    variable = _labels("against", against, len(values))
    is_number = variable.dtype.kind in "fiu"
    known = np.isfinite(values)
    if is_number:
        known &= np.isfinite(variable.astype(float))
    if known.sum() < 2:
        raise ValueError(f"at least two finite residuals are needed; got {int(known.sum())}")
    lost = int((~known).sum())
    values = values[known]
    variable = variable[known]
    ax = axes(ax)
    if is_number:
        x = variable.astype(float)
        wanted = int(np.clip(np.rint(np.sqrt(len(x))), 2, 30)) if bins is None else bins
        places = x
        parts = _equal_bins(x, check_count("bins", wanted, 1, MOST_BINS_OF_MEANS))
    else:
        words, codes = np.unique(variable, return_inverse=True)
        jitter = np.random.default_rng(0).uniform(-SPREAD_OF_POINTS, SPREAD_OF_POINTS, len(codes))
        x = codes + jitter
        places = codes.astype(float)
        parts = [np.flatnonzero(codes == code) for code in range(len(words))]
        ax.set_xticks(np.arange(len(words)), [printed(str(word)) for word in words])
    ax.plot(
        x,
        values,
        "o",
        color=SHADES[-1],
        markersize=3.5 if len(x) <= 1000 else 2,
        alpha=0.7,
        rasterized=len(x) > 5000,
        label="residuals",
        gid="residual",
    )
    _means(ax, places, values, parts, is_number)
    ax.axhline(0.0, color=GREY, linewidth=1.0, linestyle=":")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    remark(ax, counted(lost, "non-finite row is left out", "non-finite rows are left out"))
    return ax


def _equal_bins(x: ndarray, bins: int) -> list[ndarray]:
    """Rows sorted by x, split into bins with equally many rows."""
    return [part for part in np.array_split(np.argsort(x, kind="stable"), bins) if len(part)]


def _means(ax: Axes, x: ndarray, values: ndarray, parts: list[ndarray], joined: bool) -> None:
    """Draw the mean of each part, with a bar of two standard errors if it has at least two rows."""
    place = np.array([x[part].mean() for part in parts])
    mean = np.array([values[part].mean() for part in parts])
    stderr = np.array(
        [values[p].std(ddof=1) / np.sqrt(len(p)) if len(p) > 1 else np.nan for p in parts]
    )
    ax.plot(
        place,
        mean,
        color=INK,
        marker="o",
        markersize=4.5,
        linewidth=1.4,
        linestyle="-" if joined else "none",
        gid="mean",
    )
    ax.vlines(place, mean - 2 * stderr, mean + 2 * stderr, color=INK, linewidth=1.2)


def _labels(name: str, values: Tree, n: int | None) -> ndarray:
    """Numbers or strings, (n,)."""
    column = np.asarray(values)
    if column.dtype.kind == "O":
        column = column.astype(str)
    if column.ndim != 1 or not column.size or n not in (None, len(column)):
        wanted = "(n,)" if n is None else f"({n},)"
        raise ValueError(f"{name} must have the shape {wanted}; got {column.shape}")
    return column


def _same_length(name: str, values: Tree, n: int) -> ndarray:
    column = numbers(values, name)
    if len(column) != n:
        raise ValueError(f"{name} must have {n} rows, as over has; got {len(column)}")
    return column
