"""Survival curves: estimated steps with their bands and censoring marks, and curves of models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import Facts, Tree
from jaxmle.parameters.arguments import check_flag, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.plots.canvas import (
    BAND_OPACITY,
    DASHES,
    SHADES,
    axes,
    percent,
    remark,
)
from jaxmle.survival.curves import Curve, StepCurve
from jaxmle.tables.notes import printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CURVES = 12  # lines that can be distinguished
LABEL_OF_QUANTITY = {
    "survival": "survival",
    "cumulative_hazard": "cumulative hazard",
    "hazard": "hazard",
    "incidence": "cumulative incidence",
}


@with_keyword_hints
def survival(
    curves: StepCurve | Curve | Mapping[str, StepCurve | Curve],
    *,
    bands: bool = True,
    censored: bool = True,
    xlabel: str = "time",
    ax: Axes | None = None,
) -> Axes:
    """Survival curves, cumulative hazards or incidences with their bands: estimated steps, with a
    tick at each censored time, and curves of models drawn over them.

    Args:
        curves: a ``StepCurve`` (Kaplan–Meier, Nelson–Aalen, a baseline) or a ``Curve`` of a model,
            with one line for each row; or several in a dictionary by label: groups, causes, or an
            estimate and the model that should fit it.
        bands: whether the pointwise bands are drawn.
        censored: whether censored times are marked.
        xlabel: the label of the axis, such as "days".
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``. The title gives the level of the bands.

    Raises:
        ValueError, TypeError: for other objects, curves of different quantities, quantiles, or more
            than twelve curves.

    >>> from jaxmle import plots
    >>> from jaxmle.survival import kaplan_meier
    >>> ax = plots.survival(kaplan_meier([1.0, 2.0, 2.0, 4.0], [1, 1, 0, 1]))
    >>> ax.get_lines()[0].get_ydata().tolist()
    [1.0, 0.75, 0.5, 0.0]
    """
    check_flag("bands", bands)
    check_flag("censored", censored)
    items = _labelled(curves)
    quantity = _one_quantity(items)
    ax = axes(ax)
    lines = _lines(items)
    if len(lines) > MAX_CURVES:
        raise ValueError(
            f"survival draws at most {MAX_CURVES} curves; got {len(lines)}: predict fewer rows"
        )
    for number, (label, curve, row) in enumerate(lines):
        style = {
            "color": SHADES[number % len(SHADES)],
            "linestyle": DASHES[(number // len(SHADES)) % len(DASHES)],
        }
        if isinstance(curve, StepCurve):
            _steps(ax, curve, label, style, bands, censored)
        else:
            _smooth(ax, curve, row, label, style, bands)
    low, high = ax.get_ylim()
    is_probability = quantity in ("survival", "incidence")
    ax.set(
        xlabel=xlabel,
        ylabel=LABEL_OF_QUANTITY[quantity],
        xlim=(0.0, None),
        ylim=(-0.02, 1.02) if is_probability else (min(0.0, low), high),
    )
    levels = dict.fromkeys(f"{percent(c.level)} {c.band}" for c in items.values())
    marks = any(isinstance(c, StepCurve) and c.n_censored.any() for c in items.values())
    notes = [f"{', '.join(levels)} bands"] * bands + ["ticks: censored"] * (censored and marks)
    remark(ax, ["; ".join(notes)] if notes else [])
    if len(lines) > 1 or lines[0][0]:
        ax.legend(frameon=False, loc="best")
    return ax


def _labelled(curves: Tree) -> dict[str, StepCurve | Curve]:
    """The curves by label, checked."""
    if isinstance(curves, StepCurve | Curve):
        curves = {"": curves}
    if not isinstance(curves, Mapping) or not curves:
        raise TypeError(
            "survival draws results of jaxmle.survival, one or a dictionary of them by "
            f"label; got {shown(curves)}"
        )
    for label, curve in curves.items():
        if not isinstance(curve, StepCurve | Curve):
            raise TypeError(f"survival draws curves; {label!r} is {shown(curve)}")
    return {printed(str(label)): curve for label, curve in curves.items()}


def _one_quantity(items: dict[str, StepCurve | Curve]) -> str:
    quantities = list(dict.fromkeys(curve.quantity for curve in items.values()))
    if len(quantities) > 1:
        raise ValueError(
            f"all curves of a plot must show the same quantity; got {' and '.join(quantities)}"
        )
    if quantities[0] not in LABEL_OF_QUANTITY:
        raise ValueError(f"survival draws curves over time; this is the {quantities[0]}")
    return quantities[0]


def _lines(items: dict[str, StepCurve | Curve]) -> list[tuple[str, StepCurve | Curve, int]]:
    """Label, record and row of each line."""
    lines: list[tuple[str, StepCurve | Curve, int]] = []
    for label, curve in items.items():
        rows = 1 if isinstance(curve, StepCurve) else curve.n
        for row in range(rows):
            several = f"row {row}" if rows > 1 else ""
            lines.append((", ".join(filter(None, (label, several))), curve, row))
    return lines


def _steps(
    ax: Axes, curve: StepCurve, label: str, style: Facts, bands: bool, censored: bool
) -> None:
    """Draw an estimated curve from time 0, where it is 1 or 0, with its band and its ticks."""
    initial = 1.0 if curve.quantity == "survival" else 0.0
    times = np.concatenate([[0.0], curve.times])
    height, low, high = (
        np.concatenate([[initial], part]) for part in (curve.estimate, curve.lower, curve.upper)
    )
    ax.step(times, height, where="post", linewidth=1.6, label=label or None, gid="curve", **style)
    if bands:
        ax.fill_between(
            times,
            low,
            high,
            step="post",
            color=style["color"],
            alpha=BAND_OPACITY,
            linewidth=0,
            gid="band",
        )
    is_censored = curve.n_censored > 0
    if censored and is_censored.any():
        ax.plot(
            curve.times[is_censored],
            curve.estimate[is_censored],
            linestyle="none",
            marker="|",
            markersize=7,
            color=style["color"],
            gid="censored",
        )


def _smooth(ax: Axes, curve: Curve, row: int, label: str, style: Facts, bands: bool) -> None:
    """Draw one row of a model's curves between the times that it was predicted for."""
    order = np.argsort(curve.times)
    times = curve.times[order]
    ax.plot(
        times, curve.estimate[row][order], linewidth=1.6, label=label or None, gid="curve", **style
    )
    if bands:
        ax.fill_between(
            times,
            curve.lower[row][order],
            curve.upper[row][order],
            color=style["color"],
            alpha=BAND_OPACITY,
            linewidth=0,
            gid="band",
        )
