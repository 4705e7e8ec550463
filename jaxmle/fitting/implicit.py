"""A fit under a trace: the maximum as the root of the score, whose derivatives come from the
implicit function theorem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxmle._types import Array, Tree
from jaxmle.fitting.objective import Objective
from jaxmle.fitting.passes import Problem, complete, engine_of, search
from jaxmle.fitting.user_scale import Reach
from jaxmle.fitting.verdict import Verdict
from jaxmle.likelihood.derivatives import (
    DIFFERENCES,
    FORWARD_OVER_REVERSE,
    REVERSE_OVER_REVERSE,
    Differentiation,
    first_that_exists,
    gradient,
    without_derivative,
)
from jaxmle.likelihood.discovery.derivative_rules import compared, error_of_hessian, written_rules
from jaxmle.likelihood.structure import count, term_shape
from jaxmle.record.fit import Fit
from jaxmle.runtime.modes import no_mode
from jaxmle.solvers.first_order import approach
from jaxmle.solvers.methods import LBFGS, Optax
from jaxmle.solvers.status import Status
from jaxmle.solvers.trust_region import Point, maximise


def traced_fit(problem: Problem, base: Array, data: Tree, codes: tuple[Array, ...]) -> Fit:
    """The fit with derivatives by the implicit function theorem, or, where the Hessian is by
    differences, without.
    """

    def implicit() -> Fit:
        return _traced_climb(problem, _root, base, data, codes)

    def plain() -> Fit:
        loglik, still, rows = without_derivative((problem.loglik, base, data))
        return _traced_climb(replace(problem, loglik=loglik), _search, still, rows, codes)

    return first_that_exists((implicit, plain), problem.loglik, problem.layout.unravel(base), data)


def _traced_climb(
    problem: Problem,
    road: Callable[..., tuple[Array, Verdict, Reach, Array]],
    base: Array,
    data: Tree,
    codes: tuple[Array, ...],
) -> Fit:
    loglik = problem.loglik
    engine = engine_of(problem, loglik, base, data, codes)
    z, verdict, reached, extra = road(problem, engine.evaluate, base, problem.chart.to_free(base))
    verdict, point = _doubted(problem, verdict, engine.evaluate(z), base, data)
    n = jnp.asarray(count(loglik, data, lambda: term_count(problem, base, data)), base.dtype)
    return complete(
        problem,
        engine,
        base,
        verdict,
        reached,
        point,
        n,
        jnp.zeros(2, jnp.uint32),
        extra,
    )


def _doubted(
    problem: Problem, verdict: Verdict, point: Point, base: Array, data: Tree
) -> tuple[Verdict, Point]:
    """The point with the error of a Hessian that a user's rule of differentiation gets wrong.

    A trace cannot take another road by what it finds. So the standard errors say how far off they
    are, which makes CONVERGED IMPRECISE, and what a climb with a wrong Hessian tells of the shape
    of the likelihood is not believed: it is STALLED.
    """
    how = point.aux.hessian_by
    if how is not None and how.error is not None:
        return verdict, point
    loglik, rows, *places = jax.lax.stop_gradient((problem.loglik, data, base, point.aux.x))
    if not written_rules(loglik, problem.layout, base, rows):
        return verdict, point

    def off_at(x: Array) -> Array:
        off = compared(loglik, problem.layout, x, rows).hessian
        return jnp.where(jnp.all(jnp.isfinite(off)), off, 0.0)

    off = jax.lax.map(off_at, jnp.stack(places))
    error = error_of_hessian(off[1], jax.lax.stop_gradient(point.aux.hessian))
    method = FORWARD_OVER_REVERSE if how is None else how.method
    believed = (verdict.status == Status.CONVERGED) | ~jnp.any(off > 0)
    return verdict._replace(
        status=jnp.where(believed, verdict.status, int(Status.STALLED))
    ), point._replace(aux=point.aux._replace(hessian_by=Differentiation(method, error)))


def _search(
    problem: Problem, objective: Any, base: Array, z: Array
) -> tuple[Array, Verdict, Reach, Array]:
    """The maximum, the verdict on it and what that was judged by."""
    extra: Array = jnp.zeros((), jnp.int32)
    if isinstance(problem.solver, LBFGS | Optax):
        z, extra = approached(problem, objective, z)
    verdict, reached = search(maximise, objective, problem, base, z)
    return verdict.point.z, verdict, reached, extra


def _root(
    problem: Problem, objective: Any, base: Array, z: Array
) -> tuple[Array, Verdict, Reach, Array]:
    """The maximum as the root of the score, so that it is differentiable by the implicit
    function theorem to any order in what ``objective`` closes over.
    """

    def solve(score: Any, z: Array) -> tuple[Array, Any]:
        root, verdict, reached, extra = _search(problem, objective, base, z)
        by.append(verdict.point.aux.hessian_by)
        found = jax.tree.map(jnp.asarray, (verdict, reached, extra))
        types.append(jax.tree.map(lambda leaf: leaf.dtype, found))
        return root, jax.tree.map(lambda leaf: leaf.astype(z.dtype), found)

    def solve_linear(information: Any, y: Array) -> Array:
        return _solve_symmetric(information, y, by[0].method if by and by[0] else None)

    types: list[Any] = []
    by: list[
        Differentiation | None
    ] = []  # how the Hessian was found in ``solve``, which comes first
    root, aux = jax.lax.custom_root(gradient(objective.value), z, solve, solve_linear, has_aux=True)
    # Integers and booleans travel as floats: they have no tangent to carry.
    verdict, reached, extra = jax.tree.map(
        lambda leaf, dtype: jax.lax.stop_gradient(leaf).astype(dtype), aux, types[0]
    )
    return root, verdict, reached, extra


def _solve_symmetric(information: Any, y: Array, method: str | None) -> Array:
    """The solution of a symmetric linear map, by columns or, where it has a reverse mode only, by
    rows.

    Newer versions of jax raise for a mode that does not exist when they compile, not when they
    trace: the Hessian of the climb tells.
    """
    if method == DIFFERENCES:
        raise no_mode("a Hessian by differences")
    if method == REVERSE_OVER_REVERSE:
        transposed = jax.linear_transpose(information, y)
        matrix = jax.vmap(lambda e: transposed(e)[0])(jnp.eye(y.shape[0], dtype=y.dtype))
    else:
        matrix = jax.jacfwd(information)(jnp.zeros_like(y))
    return jnp.linalg.solve(matrix, y)


def approached(problem: Problem, objective: Objective, z: Array) -> tuple[Array, Array]:
    """A point (k,) near the maximum by the problem's first-order method, and its steps ()."""

    def road() -> tuple[Array, Array]:
        return approach(problem.solver, objective.value, objective, objective.curvatures, z)

    return first_that_exists((road,), objective.value, z)


def term_count(problem: Problem, base: Array, data: Tree) -> float:
    """How many terms a likelihood without data returns; NaN where it is one number, of who
    knows how many.
    """
    shape = term_shape(problem.loglik, problem.layout, base, data)
    return shape[0] if shape else jnp.nan
