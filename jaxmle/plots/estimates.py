"""Estimates with their intervals: of one fit or several side by side, and of the members of a
batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from jaxmle._types import Facts, Foreign, Function, Tree, ndarray
from jaxmle.inference.profiles.profile import Profile
from jaxmle.inference.statuses import REGULAR_STATUSES
from jaxmle.parameters.arguments import check_function, check_level, check_number
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.plots.canvas import GREY, INK, MARKS, PALE, SHADES, axes, entry, percent
from jaxmle.record.fit import Fit
from jaxmle.solvers.status import Status
from jaxmle.tables.notes import printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE_BY_SIDE_SHARE = 0.8  # of the distance between two rows, used by the fits side by side
MAX_MEMBERS_WITH_BARS = 400  # members beyond which standard errors would overlap too much
MARGIN_OF_RANGE = 0.15  # of the range of the regular members, above and below them


Drawn: TypeAlias = Fit | Profile


class Row(NamedTuple):
    """The estimate of one parameter with its interval."""

    estimate: float
    low: float
    high: float


@with_keyword_hints
def forest(
    fits: Drawn | Sequence[Drawn] | Mapping[str, Drawn],
    names: Sequence[str] | None = None,
    level: float = 0.95,
    *,
    reference: float | None = 0.0,
    transform: Function | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Estimates and intervals, one row for each parameter, with several fits side by side.

    Args:
        fits: a ``Fit`` (Wald intervals) or a ``Profile``, not a batch; or several: a dictionary by
            label, or a list. A parameter that a fit does not have is left out for that fit.
        names: the parameters to draw, from top to bottom, by short or full names; None for all.
        level: coverage of the Wald intervals; a profile keeps the level it was computed for.
        reference: a vertical line at this value if it is inside the plot; None for no line. With a
            transform it is the value before transformation: 0 is drawn at exp(0) = 1.
        transform: an increasing function of estimates and ends, such as ``numpy.exp`` for odds and
            hazard ratios, which are drawn on a logarithmic axis.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``. An infinite end or estimate is an arrow to the edge of the plot. An estimate
        without an interval is hollow, an unknown end is left out, and a parameter without an
        estimate is labelled as such in its row.

    Raises:
        ValueError, TypeError: for a batch, an unknown name, no fits.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle import plots
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, data: (
    ...     -0.5 * ((data - params["mu"]) / params["sigma"]) ** 2 - jnp.log(params["sigma"])
    ... )
    >>> result = jm.fit(normal, {"mu": 2.5, "sigma": 2.0}, y, constraints={"sigma": jm.positive})
    >>> [label.get_text() for label in plots.forest(result).get_yticklabels()]
    ['mu', 'sigma']
    """
    check_level(level)
    if reference is not None:
        reference = check_number("reference", reference)
    items = _labelled(fits)
    names = _names(items, names)
    rows_by_label = {
        label: {name: row for name in names if (row := _row(item, name, level)) is not None}
        for label, item in items.items()
    }
    ax = axes(ax, (6.0, 1.2 + 0.3 * len(names) * max(1.0, 0.6 * len(items))))
    edges = edges_of([row for rows in rows_by_label.values() for row in rows.values()], reference)
    scale = scale_of(transform, edges)
    offsets = (
        (np.arange(len(items)) - (len(items) - 1) / 2) * SIDE_BY_SIDE_SHARE / max(len(items), 2)
    )
    for number, (label, rows) in enumerate(rows_by_label.items()):
        style = {"color": SHADES[number % len(SHADES)], "marker": MARKS[number % len(MARKS)]}
        series(ax, rows, names, float(offsets[number]), scale, style, label)
    finish(ax, list(names), scale, reference, _axis(items, level))
    if len(items) > 1:
        ax.legend(
            frameon=False,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=min(len(items), 4),
            borderaxespad=0.2,
        )
    return ax


def finish(ax: Axes, labels: list[str], scale: Scale, reference: float | None, xlabel: str) -> None:
    """Draw the reference line, and set the axes of rows called ``labels``."""
    edges = scale.edges
    if reference is not None and edges[0] < reference < edges[1]:
        drawn = float(scale.shown(reference))
        ax.axvline(drawn, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    ax.set_yticks(np.arange(len(labels)), [printed(label) for label in labels])
    low, high = (float(scale.shown(edge)) for edge in edges)
    if scale.name == "exp":
        _log_ticks(ax, high / low)
    words = f"{scale.name} of {xlabel}" if scale.name else xlabel
    ax.set(xlim=(low, high), ylim=(len(labels) - 0.4, -0.6), xlabel=words)


def _log_ticks(ax: Axes, ratio: float) -> None:
    """A logarithmic axis with as many labels as can be read: 1, 2, 5, 10, … for ends of such a
    ratio.
    """
    from matplotlib import ticker

    ax.set_xscale("log")
    if ratio < 5:
        locator: ticker.Locator = ticker.MaxNLocator(5)
    else:
        locator = ticker.LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 1e3 else (1.0,))
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(ticker.NullLocator())


class Scale(NamedTuple):
    """The transform of estimates, its name, and the untransformed edges of the plot."""

    shown: Function
    name: str
    edges: tuple[float, float]


def scale_of(transform: Function | None, edges: tuple[float, float]) -> Scale:
    """The scale of a plot; raises if the transform does not increase between the edges."""
    if transform is None:
        return Scale(float, "", edges)
    check_function("transform", transform, "numpy.exp")
    values = np.array([float(transform(x)) for x in np.linspace(*edges, 5)])
    if not np.isfinite(values).all() or (np.diff(values) <= 0).any():
        raise ValueError(
            "transform must be finite and increase over the estimates and their intervals; got "
            f"{values[0]:g} to {values[-1]:g} for {edges[0]:g} to {edges[1]:g}"
        )
    return Scale(transform, getattr(transform, "__name__", "transform"), edges)


def _labelled(fits: Tree) -> dict[str, Drawn]:
    """The fits by label, checked."""
    if isinstance(fits, Fit | Profile):
        fits = {"": fits}
    elif isinstance(fits, list | tuple):
        fits = {f"fit {number}": item for number, item in enumerate(fits, 1)}
    if not isinstance(fits, Mapping) or not fits:
        raise TypeError(
            "forest draws a Fit or a Profile, or a non-empty dictionary or list of them; "
            f"got {type(fits).__name__}"
        )
    for label, item in fits.items():
        if not isinstance(item, Fit | Profile):
            raise TypeError(f"forest draws Fits and Profiles; {label!r} is a {type(item).__name__}")
        if item.batch_shape:
            raise ValueError(
                "forest draws single "
                f"fits{f', and {label!r}' * bool(label) or ', and this'} is a batch of "
                f"shape {item.batch_shape}: give some members, or use batch_map"
            )
    return {str(label): item for label, item in fits.items()}


def _names(items: dict[str, Drawn], names: str | Sequence[str] | None) -> tuple[str, ...]:
    known = tuple(dict.fromkeys(name for item in items.values() for name in item.names))
    if names is None:
        return known
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise TypeError(f"names must be a list of parameters; got {names!r}")
    return tuple(dict.fromkeys(full for name in names for full in _full(items, name, known)))


def _full(items: dict[str, Drawn], name: str, known: tuple[str, ...]) -> list[str]:
    """The parameters that a name means, short or full: ``age``, or all levels of ``race``."""
    if name in known:
        return [name]
    for item in items.values():
        try:
            entries = [item.layout.names[j] for j in item.layout.find(name)]
        except ValueError:  # of another of the fits
            continue
        if all(full in known for full in entries):
            return entries
    raise ValueError(f"no parameter is called {name!r}; the parameters are {', '.join(known[:20])}")


def _row(item: Drawn, name: str, level: float) -> Row | None:
    if name not in item.names:
        return None
    j = item.names.index(name)
    ends = item.interval(level) if isinstance(item, Fit) else item.interval()
    estimate = item.x[j] if isinstance(item, Fit) else item.estimate[j]
    return Row(float(estimate), float(ends[j, 0]), float(ends[j, 1]))


def _axis(items: dict[str, Drawn], level: float) -> str:
    kinds = [
        f"{percent(level)} Wald"
        if isinstance(item, Fit)
        else f"{percent(item.level)} profile likelihood"
        for item in items.values()
    ]
    return f"estimate and {' or '.join(dict.fromkeys(kinds))} interval"


def edges_of(rows: list[Row], reference: float | None) -> tuple[float, float]:
    """The edges of the plot, around all finite values."""
    values = np.array([value for row in rows for value in row])
    values = values[np.isfinite(values)]
    if not values.size:
        return (-1.0, 1.0)
    low = values.min()
    high = values.max()
    spread = high - low if high > low else max(1.0, abs(low))
    # The reference is shown if it is close enough to be worth the space.
    if reference is not None and low - 0.5 * spread < reference < high + 0.5 * spread:
        low = min(low, reference)
        high = max(high, reference)
    return float(low - 0.06 * spread), float(high + 0.06 * spread)


def series(
    ax: Axes,
    rows: dict[str, Row],
    names: tuple[str, ...],
    offset: float,
    scale: Scale,
    style: Facts,
    label: str,
) -> None:
    """Draw one fit: its intervals, its estimates, its arrows."""
    colour = style["color"]
    open_marks: list[tuple[float, float]] = []
    full: list[tuple[float, float]] = []
    for place, name in enumerate(names):
        if name not in rows:
            continue
        row = rows[name]
        y = place + offset
        for end in (row.low, row.high):
            if not np.isnan(row.estimate) and not np.isnan(end) and end != row.estimate:
                _reach(ax, row.estimate, end, y, scale, colour)
        if np.isnan(row.estimate):
            ax.annotate(
                "no estimate",
                (0.5, y),
                xycoords=("axes fraction", "data"),
                ha="center",
                va="center",
                fontsize="small",
                color=colour,
            )
        elif np.isinf(row.estimate):
            _tip(ax, row.estimate, y, scale, colour)
        else:
            is_open = np.isnan(row.low) and np.isnan(row.high)
            (open_marks if is_open else full).append((float(scale.shown(row.estimate)), y))
    points = np.array(full).reshape(-1, 2)
    ax.plot(*points.T, linestyle="none", markersize=5.5, label=label, gid="estimate", **style)
    if open_marks:
        ax.plot(
            *np.array(open_marks).T,
            linestyle="none",
            markersize=5.5,
            markerfacecolor="white",
            gid="no interval",
            **style,
        )


def _reach(ax: Axes, estimate: float, end: float, y: float, scale: Scale, colour: str) -> None:
    """Draw one side of an interval, to its end or to the edge of the plot."""
    first, last = (
        float(scale.shown(float(np.clip(value, *scale.edges)))) for value in (estimate, end)
    )
    ax.plot([first, last], [y, y], color=colour, linewidth=1.4, gid="interval")
    if np.isinf(end):
        _tip(ax, end, y, scale, colour)


def _tip(ax: Axes, end: float, y: float, scale: Scale, colour: str) -> None:
    """Draw an arrow head at the edge of the plot."""
    side = float(scale.shown(scale.edges[1] if end > 0 else scale.edges[0]))
    ax.plot(
        [side],
        [y],
        linestyle="none",
        marker=">" if end > 0 else "<",
        color=colour,
        markersize=7,
        clip_on=False,
        gid="infinite",
    )


# ---------------------------------------------------------------- a batch


@with_keyword_hints
def batch_map(fits: Fit, name: str, *, truth: float | None = None, ax: Axes | None = None) -> Axes:
    """The estimates of one parameter over the members of a batch, with standard errors, marked by
    status.

    Args:
        fits: a batch with one leading axis.
        name: one parameter.
        truth: a horizontal line, such as the value from which data were simulated.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``: members on the horizontal axis, estimates on the vertical one, with standard
        errors if there are at most 400 members. The vertical range is that of the converged
        members; estimates beyond it, also infinite ones, are drawn at the edge, and NaN as ticks at
        the bottom. The legend counts each status.

    Raises:
        ValueError, TypeError: for a single fit, more than one leading axis, or an unknown name.

    >>> import jax, numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle import plots
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> each = [
    ...     jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    ...     for y in np.array([[1.0, 3.0], [2.0, 4.0]])
    ... ]
    >>> fits = jax.tree.map(
    ...     lambda *leaves: np.stack(leaves), *each
    ... )  # like the result of jm.fit_batch, but cheaper for two
    >>> plots.batch_map(fits, "rate").get_legend().get_texts()[0].get_text()
    'CONVERGED 2'
    """
    if truth is not None:
        truth = check_number("truth", truth)
    if not isinstance(fits, Fit):
        raise TypeError(f"batch_map draws a batch of fits; got {type(fits).__name__}")
    if len(fits.batch_shape) != 1 or not len(fits):
        raise ValueError(
            "batch_map needs a batch with one leading axis over members; this one has "
            f"the shape {fits.batch_shape}"
        )
    j = entry(fits.layout, name)
    x, se, status = (np.asarray(leaf) for leaf in (fits.x[:, j], fits.se[:, j], fits.status))
    low, high = _height(x, np.where(len(x) <= MAX_MEMBERS_WITH_BARS, se, np.nan), status, truth)
    ax = axes(ax, (7.0, 4.0))
    kinds = sorted(np.unique(status).tolist(), reverse=True)
    for number, code in enumerate(kinds):
        _members(
            ax,
            np.flatnonzero(status == code),
            x,
            se,
            (low, high),
            number,
            f"{Status(code).name} {int((status == code).sum()):,}",
        )
    if truth is not None:
        ax.axhline(truth, color=INK, linewidth=1.0, linestyle="--", zorder=20)
    outside = int(((x < low) | (x > high)).sum())
    lines = [f"{outside:,} beyond the edge, drawn at it"] * bool(outside) + [
        f"{int(np.isnan(x).sum()):,} without an estimate, ticks below"
    ] * bool(np.isnan(x).any())
    ax.set(
        xlabel="member" + f"   ({'; '.join(lines)})" * bool(lines),
        ylabel=name + " ± SE" * (len(x) <= MAX_MEMBERS_WITH_BARS),
        ylim=(low, high),
        xlim=(-0.02 * len(x) - 0.5, 1.02 * len(x) - 0.5),
    )
    locator: Foreign = ax.xaxis.get_major_locator()  # a MaxNLocator
    locator.set_params(integer=True)
    ax.legend(
        frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.6
    )
    return ax


def _height(x: ndarray, se: ndarray, status: ndarray, truth: float | None) -> tuple[float, float]:
    """The edges of the plot: around the regular members, or around all finite members if none is
    regular.
    """
    regular = np.isin(status, [int(code) for code in REGULAR_STATUSES])
    seen = (regular if (regular & np.isfinite(x)).any() else np.ones(len(x), bool)) & np.isfinite(x)
    if not seen.any():
        return (-1.0, 1.0) if truth is None else (truth - 1.0, truth + 1.0)
    half = np.where(np.isfinite(se[seen]), se[seen], 0.0)
    ends = [
        float(np.min(x[seen] - half)),
        float(np.max(x[seen] + half)),
        *([] if truth is None else [truth]),
    ]
    room = MARGIN_OF_RANGE * (max(ends) - min(ends)) or 0.1 * max(1.0, abs(ends[0]))
    return min(ends) - room, max(ends) + room


def _members(
    ax: Axes,
    members: ndarray,
    x: ndarray,
    se: ndarray,
    edges: tuple[float, float],
    number: int,
    label: str,
) -> None:
    """Draw the members of one status."""
    low, high = edges
    few = len(x) <= MAX_MEMBERS_WITH_BARS
    inside = members[(x[members] >= low) & (x[members] <= high)]
    colour = INK if few or number else SHADES[-1]
    mark = MARKS[number % len(MARKS)]
    if few:
        bars = inside[np.isfinite(se[inside])]
        ax.vlines(
            bars,
            x[bars] - se[bars],
            x[bars] + se[bars],
            color=PALE if number == 0 else colour,
            linewidth=1.0,
            zorder=1,
        )
    # Failures are hollow and larger: they must be seen among thousands that converged.
    face, size = (colour, 3.5 if few else 1.5) if number == 0 else ("white", 6.5)
    ax.plot(
        inside,
        x[inside],
        linestyle="none",
        marker=mark,
        color=colour,
        markerfacecolor=face,
        markersize=size,
        label=label,
        gid="member",
        zorder=2 + number,
        rasterized=not few,
    )
    _members_outside(
        ax, members, x, edges, {"color": colour, "marker": mark, "markerfacecolor": face}
    )


def _members_outside(
    ax: Axes,
    members: ndarray,
    x: ndarray,
    edges: tuple[float, float],
    style: Facts,
) -> None:
    """Draw the members beyond an edge at that edge, and those without an estimate at the lower
    edge.
    """
    low, high = edges
    far = members[(x[members] < low) | (x[members] > high)]
    if far.size:
        ax.plot(
            far,
            np.clip(x[far], low, high),
            linestyle="none",
            markersize=6.5,
            clip_on=False,
            gid="beyond",
            zorder=10,
            **style,
        )
    none = members[np.isnan(x[members])]
    if none.size:
        ax.plot(
            none,
            np.full(none.size, low),
            linestyle="none",
            marker="|",
            color=style["color"],
            markersize=12,
            gid="no estimate",
            zorder=3,
        )
