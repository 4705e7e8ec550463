"""The work of a fit, the same on both roads: climb, explore, judge, conclude, with the passes over the data given as functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmle.fitting.conclude import Reach, conclude, reach, record
from jaxmle.fitting.diagnosis import Limit, Verdict, explore, judge, root_of, survey
from jaxmle.fitting.objective import Objective, User
from jaxmle.fitting.record import Fit
from jaxmle.likelihood.anatomy import has, has_law, roots_of, substituted, weighting_of
from jaxmle.likelihood.combinators import Penalize
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.covariance import Covariance, sandwich
from jaxmle.likelihood.terms import NO_LAW, Expected, expected_information
from jaxmle.parameters.constraints import namespace
from jaxmle.parameters.tree import Chart, Layout
from jaxmle.solvers.loop import Point, State
from jaxmle.solvers.methods import Solver, choose
from jaxmle.solvers.status import Status

Array = Any
Tree = Any
Climb = Callable[[Callable[[Array], Point], Array, int], State]


@dataclass(frozen=True)
class Problem:
    """A fit about to run: everything static about it."""

    loglik: Any
    chart: Chart
    solver: Solver
    kind: str | None
    mode: str
    weighting: str
    max_steps: int
    block_rows: int | None

    @property
    def layout(self) -> Layout:
        return self.chart.layout


def pose(loglik: Any, layout: Layout, solver: Any, vcov: str | None, clusters: Any, max_steps: int, block_rows: int | None) -> Problem:
    """Everything static about a fit, checked."""
    roots = roots_of(loglik, layout)
    chart = Chart(layout, tuple(bool(r != j) for j, r in enumerate(roots)))
    if not chart.k:
        raise ValueError("every parameter is fixed: there is nothing to estimate")
    weighting, solver = weighting_of(loglik), choose(solver, chart.k)
    if (vcov == "expected" or solver.curvature == "expected") and not has_law(loglik):
        raise ValueError(NO_LAW)
    kind = vcov
    if vcov == "auto":
        kind = "cluster" if clusters is not None else "HC0" if weighting == "sampling" else "observed"
    mode = "MAP" if has(loglik, Penalize) else "ML"
    return Problem(loglik, chart, solver, "CR1" if kind == "cluster" else kind, mode, weighting, max_steps, block_rows)


class Engine(NamedTuple):
    """The likelihood's passes over the data: compiled and returning NumPy on the host, plain functions under a trace."""

    evaluate: Callable[[Array], Point]
    expected: Callable[[Array], Expected]
    robust: Callable[[Array, Array, Array], Covariance]
    first_bad: Callable[[Array], Array]


def engine_of(problem: Problem, loglik: Any, base: Array, data: Tree, codes: tuple[Array, ...]) -> Engine:
    """The passes as plain functions of ``loglik``."""
    layout = problem.layout
    return Engine(
        evaluate=Objective(loglik, problem.chart, base, data, problem.solver.curvature, problem.block_rows),
        expected=lambda x: expected_information(loglik, layout, x, data),
        robust=lambda x, jacobian, root: sandwich(loglik, layout, x, data, root, jacobian, str(problem.kind), codes),
        first_bad=lambda x: _first_bad_term(loglik, layout, x, data),
    )


def _first_bad_term(loglik: Any, layout: Layout, x: Array, data: Tree) -> Array:
    """The first term that is not finite, −1 where all are or there are no terms."""
    terms = jnp.atleast_1d(terms_of(loglik, layout.unravel(x), data))
    bad = ~jnp.isfinite(terms)
    return jnp.where(jnp.any(bad) & (terms.shape[0] > 1), jnp.argmax(bad), -1)


def search(climb: Climb, evaluate: Callable[[Array], Point], problem: Problem, base: Array, z: Array) -> tuple[Verdict, Reach]:
    """Climb, explore, judge."""
    state = climb(evaluate, z, problem.max_steps)
    return verdict_of(problem, base, state, explore(evaluate, state))


def verdict_of(problem: Problem, base: Array, state: State, limit: Limit) -> tuple[Verdict, Reach]:
    """The verdict at the end of a climb and its excursion."""
    spectrum = survey(state, limit)
    reached = reach(problem.chart, base, state, limit, spectrum)
    return judge(state, limit, spectrum, reached.only_bounds), reached


def complete(problem: Problem, engine: Engine, base: Array, verdict: Verdict, reached: Reach, point: Point, n: Array, data_id: Array, extra_steps: Array) -> Fit:
    """Covariance and record at the end of a search."""
    user: User = point.aux
    xp, kind = namespace(point.z), problem.kind
    error, row = xp.zeros_like(user.x), xp.asarray(-1)
    j = -0.5 * (point.hessian + point.hessian.T)
    if kind == "expected":
        information = engine.expected(user.x)
        j = user.jacobian.T @ information.information @ user.jacobian
    root = root_of(j, verdict.scale, verdict.null)
    lift = user.jacobian @ root
    vcov = lift @ lift.T
    if kind == "expected":
        error = information.stderr_error(root, user.jacobian)
    elif kind not in ("observed", None):
        vcov, row = engine.robust(user.x, user.jacobian, root)
    elif kind is None:
        vcov = vcov * xp.nan
    failed = verdict.status == Status.NONFINITE
    if not isinstance(point.z, np.ndarray) or failed:
        row = xp.where(failed, engine.first_bad(user.x), row)
    roots = roots_of(problem.loglik, problem.layout)
    ending = conclude(problem.chart, roots, verdict._replace(point=point), reached, user, base, vcov)
    if any(problem.chart.still):
        ending["x"] = xp.asarray(substituted(problem.loglik, problem.layout, ending["x"]))
    return record(
        problem.chart, verdict._replace(point=point), user, ending, n=n, row=row, error=error, extra_steps=extra_steps, data_id=data_id,
        kind=_label(problem), mode=problem.mode, weighting=problem.weighting,
    )  # fmt: skip


def _label(problem: Problem) -> str | None:
    """The covariance that ran, with what is not what its name promises."""
    stand_in = problem.kind in ("HC2", "HC3") and not has_law(problem.loglik)
    return f"{problem.kind} (observed leverage)" if stand_in else problem.kind
