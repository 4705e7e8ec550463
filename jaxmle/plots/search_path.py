"""The path of the optimiser, and how fast it approached the maximum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import ArrayLike, Foreign, Loglik, Tree, ndarray
from jaxmle.fitting.options import MAX_STEPS, Options, read
from jaxmle.fitting.passes import Passes, problem_of
from jaxmle.likelihood.combinators import Weights
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.plots.canvas import DASHES, GREY, INK, MARKS, SHADES, axes, numbers
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only
from jaxmle.solvers.methods import LBFGS, Optax, Solver
from jaxmle.solvers.trust_region import begin, is_running, step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EPS = float(np.finfo(np.float64).eps)
TOP_TOLERANCE = 1e-6  # relative to 1 + |ℓ|, by which a trace may exceed the given top


@dataclass(frozen=True, eq=False, repr=False)
class SearchPath:
    """The position of the optimiser after each evaluation of the likelihood.

    ``x`` (m, p) are the parameters in the order of ``names``; ``loglik`` (m,) is ℓ there, including
    a penalty. A row is repeated if a step was rejected.

    >>> import numpy as np
    >>> from jaxmle import plots
    >>> path = plots.SearchPath(np.array([[1.0], [2.0]]), np.array([-3.0, -2.5]), ("mu",))
    >>> len(path)
    2
    """

    x: ndarray
    loglik: ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.loglik)

    def __repr__(self) -> str:
        return (
            f"SearchPath({len(self)} evaluations, log-likelihood {self.loglik[0]:.8g} to "
            f"{self.loglik[-1]:.8g})"
        )


@with_keyword_hints
def path_of(
    loglik: Loglik,
    params0: Tree,
    data: Tree = None,
    *,
    constraints: Tree = None,
    solver: Solver | None = None,
    weights: Weights | None = None,
    max_steps: int = MAX_STEPS,
) -> SearchPath:
    """The steps that ``fit`` takes from a start, with the same compiled evaluation.

    Args:
        loglik, params0, data, constraints, solver, weights, max_steps: as for ``fit``. L-BFGS and
            optax run inside one program, which does not report steps.

    Returns:
        A ``SearchPath``; its first row is the start.

    Raises:
        ValueError, TypeError: as ``fit``; for a solver that does not report steps.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle import plots
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> path = plots.path_of(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> path.x[0].tolist(), path.x[-1].round(6).tolist()
    ([1.0], [0.333333])
    """
    host_only("path_of")
    options = Options(constraints=constraints, solver=solver, weights=weights, max_steps=max_steps)
    posed = read(loglik, params0, data, options)
    with precision(posed.dtype), np.errstate(all="ignore"):
        problem = problem_of(posed.loglik, posed.chart, options)
        if isinstance(problem.solver, LBFGS | Optax):
            raise ValueError(
                f"{type(problem.solver).__name__} runs inside one program and does not "
                "report its steps; solver=jaxmle.solvers.Newton() does"
            )
        base = posed.base
        z, values = _steps_of(Passes.on_host(problem, base, posed.data, ()))
        leads = np.where(np.array(problem.roots) >= 0, problem.roots, np.arange(len(base)))
        x = np.stack([np.asarray(problem.chart.to_user(row, base))[leads] for row in z])
    return SearchPath(x, values, posed.layout.names)


def _steps_of(passes: Passes) -> tuple[ndarray, ndarray]:
    """Free points (m, k) and ℓ (m,) after each evaluation, by the programs that ``fit`` uses."""
    problem = passes.problem
    state = begin(passes.evaluate, problem.chart.to_free(passes.base))
    points = [state.point]
    while is_running(state, problem.max_steps):
        state = step(passes.evaluate, state)
        points.append(state.point)
    z = np.stack([point.z for point in points])
    return z, np.array([float(point.value) for point in points])


@with_keyword_hints
def trace(
    path: SearchPath | ArrayLike,
    top: float | None = None,
    *,
    label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The distance of each step below the maximum, ℓ̂ − ℓ, on a logarithmic scale.

    Args:
        path: the result of ``path_of``, or the log-likelihoods (m,) of any optimiser, one for each
            step.
        top: ℓ̂; by default the largest of the values.
        label: a name for the legend, if several are drawn on one axes.
        ax: where to draw; None for a new figure.

    Returns:
        The ``Axes``. Steps closer than the rounding error ε·max(1, |ℓ̂|) are drawn at that value,
        hollow; non-finite steps are left out.

    Raises:
        ValueError, TypeError: for values of another shape, for values without a finite one, or for
            values above ``top`` by more than 1e-6·max(1, |ℓ̂|).

    >>> from jaxmle import plots
    >>> ax = plots.trace([-110.0, -101.0, -100.01, -100.0])
    >>> ax.get_lines()[0].get_ydata().round(2).tolist()
    [10.0, 1.0, 0.01, 0.0]
    """
    if label is not None and not isinstance(label, str):
        raise TypeError(f"label must be a string, the name in the legend; got {shown(label)}")
    values = numbers(
        path.loglik if isinstance(path, SearchPath) else path, "the log-likelihoods of a trace"
    )
    left, floor = _below_the_maximum(values, top)
    ax = axes(ax)
    number = sum(line.get_gid() == "trace" for line in ax.get_lines())
    mark = MARKS[number % len(MARKS)]
    ax.plot(
        np.arange(len(values)),
        left,
        color=SHADES[number % len(SHADES)],
        linestyle=DASHES[number % len(DASHES)],
        marker=mark,
        markersize=5,
        linewidth=1.4,
        label=label,
        gid="trace",
    )
    if (left <= floor).any():
        _draw_floor(ax, left, floor, mark)
        if not number:
            _name_floor(ax, floor)
    ax.set(yscale="log", xlabel="step", ylabel=r"$\hat{\ell} - \ell$")
    locator: Foreign = ax.xaxis.get_major_locator()  # a MaxNLocator
    locator.set_params(integer=True)
    if label is not None:
        ax.legend(frameon=False)
    return ax


def _below_the_maximum(values: ndarray, top: float | None) -> tuple[ndarray, float]:
    """ℓ̂ − ℓ of each step, (m,), no less than the rounding of ℓ̂; and that rounding."""
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("none of the log-likelihoods of this trace is finite")
    best = float(values[finite].max()) if top is None else float(numbers(top, "top", (0,)))
    unit = max(1.0, abs(best))
    if not np.isfinite(best) or values[finite].max() > best + TOP_TOLERANCE * unit:
        raise ValueError(
            f"top must be the largest log-likelihood: it is {best:.10g}, and the trace reaches "
            f"{values[finite].max():.10g}"
        )
    floor = EPS * unit
    left = np.maximum(best - np.where(finite, values, best), floor)
    return np.where(finite, left, np.nan), floor


def _draw_floor(ax: Axes, left: ndarray, floor: float, mark: str) -> None:
    """Draw hollow marks for steps closer than rounding error, and the line of rounding error."""
    steps = np.flatnonzero(left <= floor)
    ax.plot(
        steps,
        left[steps],
        linestyle="none",
        marker=mark,
        markersize=5,
        color=INK,
        markerfacecolor="white",
        zorder=3,
    )
    ax.axhline(floor, color=GREY, linewidth=0.7, linestyle=":")


def _name_floor(ax: Axes, floor: float) -> None:
    """Label the line of rounding error."""
    ax.annotate(
        "rounding of ℓ",
        (0.0, floor),
        xycoords=("axes fraction", "data"),
        xytext=(3, 3),
        textcoords="offset points",
        fontsize="small",
        color=GREY,
    )
