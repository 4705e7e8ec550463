"""The likelihood itself along one parameter and over two, the others held at the estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, ArrayLike, Function, Loglik, Tree, ndarray
from jaxmle.inference.again import again
from jaxmle.likelihood.checks import host_data
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.contract import rows_of, terms_of
from jaxmle.likelihood.structure import chart_of, roots_of
from jaxmle.parameters.arguments import check_count, check_number
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.plots.canvas import GREY, INK, PALE, axes, entry, numbers, one_fit, percent
from jaxmle.plots.search_path import SearchPath
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled, precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# How close to a bound a plot goes, as a share of the distance from the estimate.
MARGIN_TO_BOUND = 0.02
POINTS_OF_A_SIDE = 61  # points along each side of a surface
REGIONS = (0.5, 0.8, 0.95, 0.99, 0.999)  # levels of the joint regions on a surface
# Contours below those of the regions, without labels.
FALLS_BEYOND_REGIONS = (10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4)
MAX_GROWTH_FOR_PATH = 3.0  # times its own width that a plot may grow on each side to contain a path
TERMS_IN_MEMORY = 2**20  # terms in the memory at a time


@dataclass(frozen=True)
class Slices:
    """A log-likelihood that can be evaluated at any values of the entries of its fit."""

    fit: Fit
    tree: Tree
    data: Tree

    @cached_property
    def x(self) -> ndarray:
        return np.asarray(self.fit.x, dtype=np.float64)

    def place(self, name: str) -> int:
        """The entry that ``name`` refers to."""
        layout = self.fit.layout
        j = entry(layout, name)
        roots = roots_of(self.tree, layout)
        if roots[j] < 0:
            raise ValueError(f"{name!r} is held by fix, so there is no curve to draw")
        if not chart_of(self.tree, layout).own_coordinate[roots[j]]:
            raise ValueError(
                f"{name!r} cannot vary while the other entries are held. Draw its profile"
            )
        return int(roots[j])

    def values(self, rows: ndarray) -> ndarray:
        """ℓ (m,) at the entries ``rows`` (m, p)."""
        layout = self.fit.layout
        n = rows_of(self.tree, self.data) or 1
        at_once = int(np.clip(TERMS_IN_MEMORY // n, 1, 64))

        def make(loglik: Loglik) -> Function:
            def evaluate(x: Array, data: Tree) -> Array:
                return jnp.sum(terms_of(loglik, layout.unravel(x), data))

            return lambda rows, data: jax.lax.map(
                lambda x: evaluate(x, data), rows, batch_size=at_once
            )

        with precision(np.float64):
            data = jax.tree.map(jnp.asarray, self.data)
            return np.asarray(compiled(self.tree, ("slices", layout, at_once), make)(rows, data))

    def fall(self, rows: ndarray, last: bool) -> ndarray:
        """ℓ minus its value at the estimate, (m,), NaN if it is not finite. ``last``: the last row
        is the estimate.

        An estimate at infinity, or on a bound where ℓ cannot be evaluated, has the value that the
        fit recorded.
        """
        values = self.values(rows)
        top = float(values[-1]) if last and np.isfinite(values[-1]) else float(self.fit.loglik)
        if not np.isfinite(values[:-1]).any():
            raise ValueError(
                f"the {self.what} is not finite anywhere in this plot. {self.fit.explain()}"
            )
        return np.where(np.isfinite(values), values, np.nan) - top

    def grid(self, places: list[int], points: ndarray) -> ndarray:
        """Rows (m, p) with the entries ``places`` at ``points`` (m, q) and the others at the
        estimate.
        """
        rows = np.repeat(self.x[None], len(points), axis=0)
        rows[:, places] = points
        held = [
            name
            for j, name in enumerate(self.fit.names)
            if j not in places and not np.isfinite(self.x[j])
        ]
        if held:
            raise ValueError(
                f"{held[0]} has the estimate {self.x[self.fit.names.index(held[0])]}: the "
                f"likelihood cannot be drawn with it held there. {self.fit.explain()}"
            )
        return rows

    def window(self, j: int, width: float, span: Tree) -> tuple[float, float]:
        """The range of a plot along entry j: the given span, or a number of standard errors on each
        side, within the bounds.
        """
        (low, high) = self.fit.bounds[j]
        name = self.fit.names[j]
        if span is not None:
            first, last = _two(span, f"the span of {name}")
            if not low < first < last < high:
                raise ValueError(
                    f"the span of {name} must increase strictly inside its bounds {low:g} and "
                    f"{high:g}; got {first:g} and {last:g}"
                )
            return first, last
        centre = self.x[j]
        reach = width * float(self.fit.se[j])
        if not (np.isfinite(centre) and np.isfinite(reach) and reach > 0):
            raise ValueError(
                f"{name} has no standard error to set the width of the plot: give "
                f"span=(low, high). {self.fit.explain()}"
            )
        return max(centre - reach, _short_of(low, centre, MARGIN_TO_BOUND)), min(
            centre + reach, _short_of(high, centre, MARGIN_TO_BOUND)
        )

    @property
    def what(self) -> str:
        return "log-likelihood" if self.fit.mode == "ML" else "penalised log-likelihood"


@with_keyword_hints
def likelihood_curve(
    loglik: Loglik,
    fit: Fit,
    data: Tree,
    name: str,
    width: float = 4.0,
    *,
    span: tuple[float, float] | None = None,
    points: int = 200,
    weights: Weights | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The log-likelihood as a function of one parameter, with the others held at the estimate, and
    its second-order expansion there.

    Args:
        loglik, data, weights: those of the fit.
        fit: a ``Fit`` of one data set.
        name: one parameter, such as ``"sigma"`` or ``"beta[1]"``.
        width: number of standard errors on each side of the estimate, within the bounds.
        span: ends of the plot instead of ``width``; needed if the parameter has no standard error.
        points: number of values at which the likelihood is evaluated.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``. The height is ℓ minus ℓ at the estimate. Non-finite values are left out.

    Raises:
        ValueError, TypeError: for a batch, for a parameter that is held by ``fix`` or moves with
            others, or without a standard error and a span.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle import plots
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> plots.likelihood_curve(exponential, result, y, "rate").get_xlabel()
    'rate'
    """
    posed = _slices(loglik, fit, data, weights, width, points)
    j = posed.place(name)
    first, last = posed.window(j, width, span)
    centre = posed.x[j]
    value = np.append(np.linspace(first, last, points), centre if np.isfinite(centre) else last)
    height = posed.fall(posed.grid([j], value[:, None]), bool(np.isfinite(centre)))
    order = np.argsort(value, kind="stable")
    order = order[(value[order] >= first) & (value[order] <= last)]
    ax = axes(ax)
    ax.plot(value[order], height[order], color=INK, linewidth=1.8, label=posed.what)
    if np.isfinite(centre):
        _expansion(ax, posed, j, value[order], height[order])
        if first <= centre <= last:
            ax.plot([centre], [0.0], "o", color=INK, markersize=6, label="estimate", zorder=3)
    ax.set(xlabel=name, ylabel=f"{posed.what}\nless its value at the estimate", xlim=(first, last))
    ax.legend(frameon=False)
    return ax


def _expansion(ax: Axes, posed: Slices, j: int, value: ndarray, height: ndarray) -> None:
    """Draw s d + h d²/2 around the estimate; on a bound the score s is not zero."""
    slope = float(posed.fit.score[j])
    curvature = float(posed.fit.hessian[j, j])
    step = value - posed.x[j]
    if not np.isfinite([slope, curvature]).all():
        return
    quadratic = slope * step + 0.5 * curvature * step**2
    ax.plot(
        value, quadratic, color=GREY, linestyle="--", linewidth=1.2, label="second-order expansion"
    )
    finite = height[np.isfinite(height)]
    # A likelihood that falls much faster than its expansion would flatten the rest.
    if finite.size and quadratic.min() < 0:
        low = max(min(finite.min(), quadratic.min()), 3 * quadratic.min())
        ax.set_ylim(low, max(finite.max(), 0.0) - 0.08 * low)


@with_keyword_hints
def likelihood_surface(
    loglik: Loglik,
    fit: Fit,
    data: Tree,
    pair: tuple[str, str],
    path: SearchPath | ArrayLike | None = None,
    width: float = 4.0,
    *,
    span: Sequence[tuple[float, float]] | None = None,
    points: int = POINTS_OF_A_SIDE,
    weights: Weights | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Contours of the log-likelihood over two parameters, with the others held at the estimate, and
    the path of an optimiser.

    On a labelled contour 2(ℓ̂ − ℓ) is the quantile of χ²₂ at that level; fainter contours at lower
    values have no label.

    Args:
        loglik, fit, data, width, points, weights, ax: as for ``likelihood_curve``; ``points`` is
            per side.
        pair: names of two parameters.
        path: steps of an optimiser: the result of ``path_of``, or an array (m, 2) of the pair, or
            (m, p) of all parameters. The plot grows to contain it, on each side by at most three
            times its own width; a path from farther away is cut at the edge.
        span: ((low, high), (low, high)) instead of ``width``.

    Returns:
        The ``Axes``.

    Raises:
        ValueError, TypeError: as ``likelihood_curve``; for a path of another shape.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle import plots
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, data: (
    ...     -0.5 * ((data - params["mu"]) / params["sigma"]) ** 2 - jnp.log(params["sigma"])
    ... )
    >>> start, bounds = {"mu": 2.5, "sigma": 2.0}, {"sigma": jm.positive}
    >>> result = jm.fit(normal, start, y, constraints=bounds)
    >>> ax = plots.likelihood_surface(
    ...     normal, result, y, ("mu", "sigma"), plots.path_of(normal, start, y, constraints=bounds)
    ... )
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('mu', 'sigma')
    """
    posed = _slices(loglik, fit, data, weights, width, points)
    places = _places(posed, pair)
    spans = (None, None) if span is None else span
    if not isinstance(spans, tuple | list) or len(spans) != 2:
        raise ValueError(f"span must be two pairs, ((low, high), (low, high)); got {span!r}")
    steps = None if path is None else _steps(path, fit, [entry(fit.layout, name) for name in pair])
    windows = [posed.window(j, width, asked) for j, asked in zip(places, spans, strict=True)]
    if steps is not None and span is None:
        windows = [
            _wider(window, steps[:, side], fit.bounds[j])
            for side, (window, j) in enumerate(zip(windows, places, strict=True))
        ]
    sides = [np.linspace(*window, points) for window in windows]
    across, up = np.meshgrid(*sides)
    centre = posed.x[places]
    inside = np.where(np.isfinite(centre), centre, [side[0] for side in sides])
    rows = posed.grid(places, np.vstack([np.column_stack([across.ravel(), up.ravel()]), inside]))
    fall = posed.fall(rows, bool(np.isfinite(centre).all()))
    ax = axes(ax, (6.0, 5.0))
    _heights(ax, across, up, fall[:-1].reshape(across.shape))
    if steps is not None:
        _draw_path(ax, steps, windows)
    if np.isfinite(centre).all():
        ax.plot(
            *centre,
            "X",
            color=INK,
            markeredgecolor="white",
            markersize=10,
            label="estimate",
            zorder=4,
        )
    ax.set(xlabel=pair[0], ylabel=pair[1], xlim=windows[0], ylim=windows[1])
    ax.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, borderaxespad=0.2
    )
    return ax


def _places(posed: Slices, pair: Tree) -> list[int]:
    """The entries that move with the two parameters of a surface."""
    if (
        not isinstance(pair, tuple | list)
        or len(pair) != 2
        or not all(isinstance(name, str) for name in pair)
    ):
        raise TypeError(f"pair must be the names of two parameters; got {pair!r}")
    places = [posed.place(name) for name in pair]
    if places[0] == places[1]:
        raise ValueError(f"{pair[0]!r} and {pair[1]!r} are one parameter")
    return places


def _draw_path(ax: Axes, steps: ndarray, windows: list[tuple[float, float]]) -> None:
    """Draw the steps of an optimiser, with its start."""
    inside = all(low <= value <= high for value, (low, high) in zip(steps[0], windows, strict=True))
    ax.plot(*steps.T, color=INK, linewidth=1.0, marker="o", markersize=3.5, label="path")
    ax.plot(
        *steps[0],
        "s",
        color=INK,
        markersize=7,
        markerfacecolor="white",
        label="start" if inside else "start (outside)",
    )


def _heights(ax: Axes, across: ndarray, up: ndarray, fall: ndarray) -> None:
    """Draw contours of ℓ − ℓ̂."""
    fall = np.ma.masked_invalid(fall)
    # χ²₂ is exponential with mean 2.
    levels = [float(np.log1p(-level)) for level in reversed(REGIONS)]
    shades = ["#f2f2f2", "#e6e6e6", "#d9d9d9", "#cccccc", "#bdbdbd"]
    seen = [level for level in levels if fall.min() < level < fall.max()]
    deeper = [
        -depth for depth in reversed(FALLS_BEYOND_REGIONS) if fall.min() < -depth < fall.max()
    ]
    if deeper:
        ax.contour(across, up, fall, levels=deeper, colors=PALE, linewidths=0.7, linestyles="solid")
    if seen:
        ax.contourf(
            across,
            up,
            fall,
            levels=[*seen, max(0.0, float(fall.max())) + 1e-9],
            colors=shades[-len(seen) :],
        )
        lines = ax.contour(
            across, up, fall, levels=seen, colors=GREY, linewidths=0.8, linestyles="solid"
        )
        labels = {
            level: percent(region) for level, region in zip(levels, reversed(REGIONS), strict=True)
        }
        ax.clabel(lines, fmt={level: labels[level] for level in seen}, fontsize=8, colors=INK)


MAX_DRAWN_POINTS = 100_000


def _slices(
    loglik: Loglik, fit: Fit, data: Tree, weights: Weights | None, width: Tree, points: Tree
) -> Slices:
    """The likelihood of a fit, with its data checked."""
    one_fit(fit)
    check_number("width", width, low=0.0)
    check_count("points", points, 3, MAX_DRAWN_POINTS)
    tree = again(loglik, fit, data, weights=weights, what="the picture").weighted
    return Slices(fit, tree, host_data(data, np.float64))


def _short_of(bound: float, inside: float, share: float) -> float:
    """A value at a fraction of the distance from a bound to a value inside it; the bound itself if
    it is infinite.
    """
    return bound + share * (inside - bound) if np.isfinite(bound) else bound


def _two(span: Tree, what: str) -> tuple[float, float]:
    values = numbers(span, what)
    if values.shape != (2,) or not np.isfinite(values).all():
        raise ValueError(f"{what} must be two finite numbers; got {span!r}")
    return float(values[0]), float(values[1])


def _steps(path: Tree, fit: Fit, places: list[int]) -> ndarray:
    """The path (m, 2) of the two parameters drawn."""
    if isinstance(path, SearchPath):
        if path.names != fit.names:
            raise ValueError(
                f"the path has the parameters {', '.join(path.names[:20])}, the fit of "
                f"{', '.join(fit.names[:20])}"
            )
        return path.x[:, places]
    steps = numbers(path, "path", (2,))
    if steps.shape[1] not in (2, len(fit.names)):
        raise ValueError(
            f"path must have the shape (m, 2) of the pair or (m, {len(fit.names)}) of all "
            f"parameters; got {steps.shape}"
        )
    # If the fit has only two parameters, a path is in the order of the names.
    return steps[:, places] if steps.shape[1] == len(fit.names) else steps


def _wider(
    window: tuple[float, float], steps: ndarray, bounds: tuple[float, float]
) -> tuple[float, float]:
    """The window widened to hold the path, within the bounds and at most by
    ``MAX_GROWTH_FOR_PATH``, with a little room.
    """
    reach = MAX_GROWTH_FOR_PATH * (window[1] - window[0])
    steps = np.clip(steps[np.isfinite(steps)], window[0] - reach, window[1] + reach)
    if not steps.size:
        return window
    first = min(window[0], steps.min())
    last = max(window[1], steps.max())
    room = 0.04 * (last - first)
    low = first - room if steps.min() < window[0] else first
    high = last + room if steps.max() > window[1] else last
    return max(low, _short_of(bounds[0], first, 0.5)), min(high, _short_of(bounds[1], last, 0.5))
