"""``fit`` under a trace: the maximum is the root of the score, and its derivatives come from the
implicit function theorem.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from jaxmle._types import Array, Data, Function, FunctionTo, Loglik, Tree
from jaxmle.fitting.ending import complete
from jaxmle.fitting.log_gamma import restricted_under_trace
from jaxmle.fitting.objective import Objective
from jaxmle.fitting.one_loop import search_in_one_loop
from jaxmle.fitting.options import Options, Posed
from jaxmle.fitting.passes import Codes, Passes, Problem, objective_of, problem_of
from jaxmle.fitting.user_scale import EndPoint
from jaxmle.likelihood.derivatives import (
    DIFFERENCES,
    FORWARD_OVER_REVERSE,
    Differentiation,
    first_that_exists,
    gradient,
    matrix_of,
    without_derivative,
)
from jaxmle.likelihood.discovery.derivative_rules import compared, error_of_hessian, written_rules
from jaxmle.likelihood.discovery.indices import check_fixed_indices
from jaxmle.likelihood.discovery.kinked_operations import may_have_kinks
from jaxmle.likelihood.discovery.row_independence import check_traced
from jaxmle.likelihood.discovery.self_check import evaluation_of
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.likelihood.information.hac import check_bandwidth
from jaxmle.likelihood.structure import count, term_shape
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import cached_under_trace
from jaxmle.runtime.jax_state import without_alarms
from jaxmle.runtime.modes import no_mode
from jaxmle.solvers.first_order import approach
from jaxmle.solvers.methods import LBFGS, Optax
from jaxmle.solvers.state import Point
from jaxmle.solvers.status import Status, is_one_of
from jaxmle.verdict.judge import Verdict
from jaxmle.verdict.limit import is_at_kink


def fit_under_trace(posed: Posed, options: Options) -> Fit:
    """The fit of a problem under a trace: everything in one program."""
    check_bandwidth(options.vcov, posed.rows)
    clusters = options.clusters
    codes = () if clusters is None else cluster_codes(clusters, posed.rows)
    problem = problem_of(posed.loglik, posed.chart, options)
    base = posed.base
    check_fixed_indices(posed.loglik, posed.layout, base, posed.data)
    check_traced(posed.loglik, posed.layout, base, posed.data, options.block_rows)
    bare = problem.bare

    def make(loglik: Loglik) -> FunctionTo[Fit]:
        return partial(traced_fit, replace(bare, loglik=loglik))

    limits = (options.max_steps, options.block_rows, str(posed.dtype))
    key = ("fit", problem.chart, problem.solver, problem.kind, *limits)
    program = cached_under_trace(posed.loglik, key, make)
    with without_alarms():
        fitted = program(base, posed.data, codes)
    return replace(fitted, evaluation=evaluation_of(posed.loglik, posed.loglik))


def traced_fit(problem: Problem, base: Array, data: Data, codes: Codes) -> Fit:
    """The fit with derivatives by the implicit function theorem; without derivatives if the Hessian
    is computed by differences.
    """

    def differentiable() -> Fit:
        return _traced_search(problem, _root, base, data, codes)

    def constant() -> Fit:
        loglik, fixed_base, rows = without_derivative((problem.loglik, base, data))
        return _traced_search(replace(problem, loglik=loglik), _search, fixed_base, rows, codes)

    params = problem.layout.unravel(base)
    return first_that_exists((differentiable, constant), problem.loglik, params, data)


def _traced_search(
    problem: Problem,
    solve: FunctionTo[tuple[Array, Verdict, EndPoint, Point, Array]],
    base: Array,
    data: Data,
    codes: Codes,
) -> Fit:
    objective = objective_of(problem, base, data)
    z, verdict, reached, point, steps = solve(problem, objective, base, problem.chart.to_free(base))
    if verdict.kink is not None:
        z = _without_slope(z, is_at_kink(verdict))
    if solve is _root:
        point = _with_derivatives(objective, z, point)
    point = _beside_kink(verdict, point)
    verdict, point = _doubted(problem, verdict, point, base, data)
    terms = partial(term_count, problem, base, data)
    n = jnp.asarray(count(problem.loglik, data, terms), base.dtype)
    passes = Passes.traced(problem, base, data, codes)
    no_id = jnp.zeros(2, jnp.uint32)
    return complete(passes, verdict, reached, point, n, no_id, steps)


@jax.custom_jvp
def _without_slope(z: Array, at_kink: Array) -> Array:
    """z (k,), with derivatives that are NaN at a kink, because z is no root of the score there."""
    return z


@_without_slope.defjvp
def _slope(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    z, at_kink = primals
    return z, tangents[0] * jnp.where(at_kink, jnp.nan, 1.0).astype(z.dtype)


def _beside_kink(verdict: Verdict, point: Point) -> Point:
    """The point; at a kink, where it has no derivatives of its own, the derivatives are those of
    the neighbouring cells.
    """
    if verdict.kink is None:
        return point
    there = verdict.point._replace(
        z=point.z, value=point.value, aux=verdict.point.aux._replace(x=point.aux.x)
    )
    return jax.tree.map(lambda a, b: jnp.where(is_at_kink(verdict), a, b), there, point)


def _doubted(
    problem: Problem, verdict: Verdict, point: Point, base: Array, data: Data
) -> tuple[Verdict, Point]:
    """The point, with the measured error of a Hessian that a user's derivative rule gets wrong.

    Under a trace the fit cannot be repeated with another method. So the error goes into the
    standard errors, which turns CONVERGED into IMPRECISE. Other verdicts, which an ascent with a
    wrong Hessian gave on the shape of the likelihood, become STALLED.
    """
    differentiation = point.aux.hessian_by
    if differentiation is not None and differentiation.error is not None:
        return verdict, point
    loglik, rows, *places = jax.lax.stop_gradient((problem.loglik, data, base, point.aux.x))
    if not written_rules(loglik, problem.layout, base, rows):
        return verdict, point

    def off_at(x: Array) -> Array:
        off = compared(loglik, problem.layout, x, rows).hessian
        return jnp.where(jnp.all(jnp.isfinite(off)), off, 0.0)

    off = jax.lax.map(off_at, jnp.stack(places))
    error = error_of_hessian(off[1], jax.lax.stop_gradient(point.aux.hessian))
    method = FORWARD_OVER_REVERSE if differentiation is None else differentiation.method
    believed = is_one_of(verdict.status, Status.CONVERGED) | ~jnp.any(off > 0)
    return verdict._replace(
        status=jnp.where(believed, verdict.status, int(Status.STALLED))
    ), point._replace(aux=point.aux._replace(hessian_by=Differentiation(method, error)))


def _search(
    problem: Problem, objective: Objective, base: Array, z: Array
) -> tuple[Array, Verdict, EndPoint, Point, Array]:
    """The maximum, its verdict, the end point of a recession, the evaluated point, and the number
    of steps before the ascent.
    """
    extra: Array = jnp.zeros((), jnp.int32)
    layout, data = objective.layout, objective.data
    may_be_kinked = may_have_kinks(objective.loglik, layout, base, data)
    restricted = restricted_under_trace(objective.loglik, layout, base, data)
    on_domain = replace(objective, loglik=restricted)
    if isinstance(problem.solver, LBFGS | Optax):
        z, extra = approached(problem, on_domain, z)
    verdict, reached, point = search_in_one_loop(on_domain, problem, z, may_be_kinked)
    return point.z, verdict, reached, point, extra


def _root(
    problem: Problem, objective: Objective, base: Array, z: Array
) -> tuple[Array, Verdict, EndPoint, Point, Array]:
    """The maximum as the root of the score. By the implicit function theorem it is differentiable
    to any order in what ``objective`` closes over.
    """

    def solve(score: Function, z: Array) -> tuple[Array, Tree]:
        root, verdict, reached, point, steps = _search(problem, objective, base, z)
        methods.append(point.aux.hessian_by)
        arrays = jax.tree.map(jnp.asarray, (verdict, reached, point, steps))
        types.append(jax.tree.map(lambda leaf: leaf.dtype, arrays))
        return root, jax.tree.map(lambda leaf: leaf.astype(z.dtype), arrays)

    def solve_linear(information: Function, y: Array) -> Array:
        return _solve_symmetric(
            information, y, methods[0].method if methods and methods[0] else None
        )

    types: list[Tree] = []
    # how the Hessian was differentiated in ``solve``, which comes first
    methods: list[Differentiation | None] = []
    root, aux = jax.lax.custom_root(gradient(objective.value), z, solve, solve_linear, has_aux=True)
    # Integers and booleans travel as floats: they have no tangent to carry.
    verdict, reached, point, extra = jax.tree.map(
        lambda leaf, dtype: jax.lax.stop_gradient(leaf).astype(dtype), aux, types[0]
    )
    return root, verdict, reached, point, extra


def _with_derivatives(objective: Objective, z: Array, point: Point) -> Point:
    """The evaluated point as a function of z (k,) and of all that ``objective`` closes over. The
    likelihood is evaluated again only if derivatives are asked for.
    """
    evaluate, consts = jax.closure_convert(lambda z: objective(z), z)
    types = jax.tree.map(lambda leaf: leaf.dtype, point)

    @jax.custom_jvp
    def evaluated(z: Array, consts: list[Array], point: Point) -> Point:
        return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), point, types)

    @evaluated.defjvp
    def _(primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> tuple[Point, Point]:
        z, consts, point = primals
        _, slope = jax.jvp(lambda z, consts: evaluate(z, *consts), (z, consts), tangents[:2])
        return evaluated(z, consts, point), slope

    return evaluated(z, consts, point)


def _solve_symmetric(information: Function, y: Array, method: str | None) -> Array:
    """Solve a symmetric linear map, by its columns, or by its rows if it only has a reverse mode.

    Newer versions of jax raise an error for a missing mode when they compile, not when they trace.
    So the Hessian of the ascent tells which modes exist.
    """
    if method == DIFFERENCES:
        raise no_mode("a Hessian by differences")
    return jnp.linalg.solve(matrix_of(information, y, method), y)


def approached(problem: Problem, objective: Objective, z: Array) -> tuple[Array, Array]:
    """A point (k,) near the maximum by the problem's first-order method, and its steps ()."""

    def approach_from() -> tuple[Array, Array]:
        return approach(problem.solver, objective.value, objective, objective.curvatures, z)

    return first_that_exists((approach_from,), objective.value, z)


def term_count(problem: Problem, base: Array, data: Data) -> float:
    """How many terms a likelihood without data returns; NaN where it returns their sum."""
    shape = term_shape(problem.loglik, problem.layout, base, data)
    return shape[0] if shape else jnp.nan
