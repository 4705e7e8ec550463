"""What all plots share: the axes, three greys with their lines and marks, and the checks of
arguments.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import ArrayLike, ndarray
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes


INK = "#1a1a1a"
GREY = "#6a6a6a"
PALE = "#c4c4c4"
SHADES = (INK, GREY, "#9a9a9a")
DASHES = ("-", "--", "-.", ":")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
BAND_OPACITY = 0.18
POINTS_OF_ELLIPSE = 181
INSTALL_PLOT = 'a plot needs matplotlib: pip install "jaxmle[plot]"'


def _new_axes(size: tuple[float, float]) -> Axes:
    try:
        pyplot = import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError(INSTALL_PLOT) from error
    _, ax = pyplot.subplots(figsize=size, layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def axes(ax: Axes | None, size: tuple[float, float] = (6.0, 4.0)) -> Axes:
    """The given axes, or those of a new figure of that size in inches."""
    if ax is None:
        return _new_axes(size)
    if not hasattr(ax, "plot") or not hasattr(ax, "set_xlabel"):
        raise TypeError(
            f"ax must be one matplotlib Axes, or None for a new figure; got {type(ax).__name__}"
        )
    return ax


def remark(ax: Axes, lines: list[str]) -> None:
    """Write a remark in small type above the plot."""
    if lines:
        ax.set_title("\n".join(lines), loc="left", fontsize="small", color=GREY)


def one_fit(fit: object) -> Fit:
    """The fit of one data set, or an error."""
    if not isinstance(fit, Fit):
        raise TypeError(f"this plot needs a Fit; got {type(fit).__name__}")
    if fit.batch_shape:
        raise ValueError(
            "this plot shows a single fit, but this is a batch of shape "
            f"{fit.batch_shape}: give fit[i]"
        )
    return fit


def entry(layout: Layout, name: str) -> int:
    """The position of the printed entry called ``name``."""
    entries = layout.find(name)
    if len(entries) != 1:
        raise ValueError(
            f"{name!r} means {len(entries)} entries; name one of "
            f"{', '.join(layout.names[j] for j in entries[:20])}"
        )
    return entries[0]


def numbers(values: ArrayLike, name: str, ndim: tuple[int, ...] = (1,)) -> ndarray:
    """Real numbers as a float64 array of an allowed number of axes, not empty."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would be lost; drop the masked values"
        )
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as an array: {error}") from None
    if array.dtype.kind not in "fiu":
        got = shown(values) if array.dtype == object and not array.ndim else f"dtype {array.dtype}"
        raise TypeError(f"{name} must be real numbers; got {got}")
    if array.ndim not in ndim:
        raise ValueError(
            f"{name} must have {' or '.join(map(str, ndim))} axes; got shape {array.shape}"
        )
    if not array.size:
        raise ValueError(f"{name} is empty")
    return array.astype(np.float64)


def counted(number: int, singular: str, plural: str) -> list[str]:
    """A remark with a count; none if the count is zero."""
    return [f"{number:,} {singular if number == 1 else plural}"] if number else []


def percent(level: float) -> str:
    """A level as text, such as 95%."""
    return f"{100 * level:.6g}%"
