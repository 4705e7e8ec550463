"""What a fit runs: its static problem, the passes over its data, and the search.

On the host and under a trace only the passes run differently: ascent, excursion, verdict and record
(``ending``) are the same functions of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Data, Function, Loglik, Tree, ndarray
from jaxmle.fitting.objective import Objective, UserScale, drop_user_scale
from jaxmle.fitting.options import Options, covariance_of
from jaxmle.fitting.user_scale import EndPoint, reach
from jaxmle.likelihood.contract import leaf_of, need_terms, terms_of
from jaxmle.likelihood.discovery.kinked_operations import may_have_kinks
from jaxmle.likelihood.histogram import counted, counts_of, distinct, uncounted
from jaxmle.likelihood.information.covariance import (
    Covariance,
    Kind,
    sandwich,
)
from jaxmle.likelihood.structure import (
    roots_of,
    term_shape,
    weighting_of,
)
from jaxmle.likelihood.terms import Expected, expected_information, not_finite, row_terms_of
from jaxmle.parameters.tree import Chart, Layout
from jaxmle.runtime.compile import compiled
from jaxmle.runtime.device import placed
from jaxmle.solvers.bfgs import Slope
from jaxmle.solvers.end_of_ascent import examined
from jaxmle.solvers.methods import Solver, choose
from jaxmle.solvers.state import Point, State
from jaxmle.solvers.status import is_one_of
from jaxmle.verdict.doubt import remember_rise
from jaxmle.verdict.judge import Verdict, decompose_information, judge
from jaxmle.verdict.kink_search import seek_kink
from jaxmle.verdict.kinks import may_be_kinked, without
from jaxmle.verdict.limit import Limit, at_kink, explore, settled_rise
from jaxmle.verdict.shape import Shape

# median deviations (at least of one unit of ℓ) by which the term of a collapsed component stands
# above the others
DEVIATIONS_OF_COLLAPSED_TERM = 8.0
SMALL_STEP = 1e-9  # relative to a parameter, or to one
# change of a term by that step over the median of all, from which it is the one that collapses
MIN_CHANGE_OF_COLLAPSED_TERM = 1e6
MAX_RISES = 6  # new ascents from where ℓ was seen to rise
Ascend = Callable[[Callable[[Array], Point], Array, int], State]
Codes = tuple[Array, ...]  # integer codes of the clusters of each row


@dataclass(frozen=True)
class Problem:
    """A fit about to run: everything static about it."""

    loglik: Tree  # None where programs are shared
    chart: Chart
    solver: Solver
    kind: Kind | None
    mode: str
    weighting: str
    max_steps: int
    block_rows: int | None
    roots: tuple[int, ...]  # for each printed entry the one it follows, −1 where it is fixed
    label: str | None  # the covariance that runs, with what is not what its name promises

    @property
    def layout(self) -> Layout:
        return self.chart.layout

    @property
    def bare(self) -> Problem:
        """The problem without its likelihood: it is hashable, and holds no reference to the user's
        function.
        """
        return replace(self, loglik=None)

    @property
    def neutral(self) -> Problem:
        """The problem without its likelihood and without the options that only name or widen the
        covariance: fits that differ only in these share their programs.
        """
        return replace(
            self,
            loglik=None,
            kind=None if self.kind is None else "observed",
            mode="ML",
            weighting="none",
            max_steps=0,
            label=None,
        )


def problem_of(loglik: Loglik, chart: Chart, options: Options) -> Problem:
    """Everything static about a fit of ``loglik``, checked.

    Args:
        loglik: a likelihood tree.
        chart: that of the likelihood, as ``chart_of`` makes it.
        options: the solver, the covariance and the limits are read.

    Raises:
        ValueError: for a covariance or a solver that this likelihood does not have.
    """
    solver = choose(options.solver, chart.k)
    weighting = weighting_of(loglik)
    kind, mode, label = covariance_of(loglik, chart, solver, options)
    return Problem(
        loglik,
        chart,
        solver,
        kind,
        mode,
        weighting,
        options.max_steps,
        options.block_rows,
        tuple(roots_of(loglik, chart.layout).tolist()),
        label,
    )


def check_terms(problem: Problem, base: Array, data: Data) -> None:
    """Refuse a covariance that needs terms where the likelihood has none, before anything is
    compiled.
    """
    is_sandwich = needs_pass(problem.kind) and problem.kind != "expected"
    if problem.mode != "ML" or not is_sandwich or row_terms_of(problem.loglik) is not None:
        return
    if not term_shape(problem.loglik, problem.layout, base, data):
        need_terms(jnp.zeros(()), f"vcov={problem.kind!r}")


# ---------------------------------------------------------------- the passes over the data


def objective_of(problem: Problem, base: Array, data: Data) -> Objective:
    """The log-likelihood as a function of the free coordinates."""
    curvature = problem.solver.curvature
    return Objective(problem.loglik, problem.chart, base, data, curvature, problem.block_rows)


def _evaluate(problem: Problem, base: Array, data: Data, codes: Codes, z: Array) -> Point:
    return objective_of(problem, base, data)(z)


def _evaluate_packed(
    problem: Problem, base: Array, data: Data, codes: Codes, z: Array
) -> Array | Point:
    """The evaluation as a program returns it: without what follows from z and the chart, and in one
    array if all shapes are known, because fetching an array takes 5 µs whatever its size.
    """
    chart = problem.chart
    point = _evaluate(problem, base, data, codes, z)._replace(z=None)  # type: ignore[arg-type]
    is_usual = point.curvature is None and point.aux.hessian_by is None
    point = drop_user_scale(chart, point) if chart.x_is_z else point
    if not is_usual:
        return point
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(point)])


def evaluated(
    chart: Chart, program: Function, base: Array, data: Data, codes: Codes, z: Array
) -> Point:
    """The point at z (k,), in NumPy, by the program of ``"evaluate"``."""
    result = program(base, data, codes, z)
    if isinstance(result, jax.Array):
        return _unpacked(chart, z, np.asarray(result))
    point = jax.tree.map(np.asarray, result)
    z = z.astype(point.score.dtype, copy=False)  # a program in float32 takes it so
    aux = point.aux
    if chart.x_is_z:
        aux = UserScale(z, np.eye(chart.k, dtype=z.dtype), point.score, point.hessian, aux)
    return point._replace(z=z, value=point.value[()], absolute=point.absolute[()], aux=aux)


def _unpacked(chart: Chart, z: Array, flat: ndarray) -> Point:
    """The point at z (k,) from all of it in one array."""
    k = chart.k
    p = chart.layout.p
    z = z.astype(flat.dtype, copy=False)
    end = 2 + k + k * k
    score = flat[2 : 2 + k]
    hessian = flat[2 + k : end].reshape(k, k)
    if chart.x_is_z:
        user = UserScale(z, np.eye(k, dtype=flat.dtype), score, hessian)
    else:
        x, jacobian, of_x, hessian_of_x = np.split(flat[end:], np.cumsum([p, p * k, p]))
        user = UserScale(x, jacobian.reshape(p, k), of_x, hessian_of_x.reshape(p, p))
    return Point(z, flat[0], flat[1], score, hessian, None, user)


def _slopes(problem: Problem, base: Array, data: Data, codes: Codes, z: Array) -> Slope:
    return objective_of(problem, base, data).slopes(z)


def _expected(problem: Problem, base: Array, data: Data, codes: Codes, x: Array) -> Expected:
    return expected_information(uncounted(problem.loglik), problem.layout, x, data)


def _robust(
    problem: Problem,
    base: Array,
    data: Data,
    codes: Codes,
    x: Array,
    jacobian: Array,
    root: Array,
) -> Covariance:
    loglik = uncounted(problem.loglik)
    kind = problem.kind or "observed"
    return sandwich(loglik, problem.layout, x, data, root, jacobian, kind, codes)


def _first_bad(problem: Problem, base: Array, data: Data, codes: Codes, x: Array) -> Array:
    return _first_bad_term(uncounted(problem.loglik), problem.layout, x, data)


def _sharpest(problem: Problem, base: Array, data: Data, codes: Codes, x: Array) -> Array:
    return _sharpest_term(uncounted(problem.loglik), problem.layout, x, data)


def _first_rough(problem: Problem, base: Array, data: Data, codes: Codes, x: Array) -> Array:
    return _first(not_finite(uncounted(problem.loglik), problem.layout, x, data))


# Histograms of a likelihood serve the sums over all rows alone: the other passes go row by row.
PASSES: dict[str, Function] = {
    "evaluate": _evaluate,
    "slopes": _slopes,
    "expected": _expected,
    "robust": _robust,
    "first_bad": _first_bad,
    "sharpest": _sharpest,
    "first_rough": _first_rough,
}


def compile_pass(problem: Problem, name: str) -> Function:
    """One of the ``PASSES`` as a program of (base, data, codes, *arguments). It is compiled once
    and stored on the user's function.
    """
    bare = problem.bare  # a compiled piece must not keep the user's function alive
    run = _evaluate_packed if name == "evaluate" else PASSES[name]

    def make(loglik: Loglik) -> Function:
        return partial(run, replace(bare, loglik=loglik))

    curvature = problem.solver.curvature
    key = (name, problem.chart, curvature, problem.block_rows, problem.kind)
    return compiled(problem.loglik, key, make)


@dataclass(frozen=True, eq=False)
class Passes:
    """The passes of a likelihood over one data set.

    On the host they are compiled programs that return NumPy arrays; under a trace they are plain
    functions.
    """

    problem: Problem
    base: Array  # (p,) values of the entries that do not move
    data: Data  # as they were read
    device_data: Data  # the same on the device
    codes: Codes
    program_of: Callable[[str], Function]

    @classmethod
    def traced(cls, problem: Problem, base: Array, data: Data, codes: Codes) -> Passes:
        """The passes as plain functions."""
        return cls(problem, base, data, data, codes, lambda name: partial(PASSES[name], problem))

    @classmethod
    def on_host(
        cls, problem: Problem, base: Array, data: Data, codes: Codes, device_data: Data = None
    ) -> Passes:
        """The passes as compiled programs, with the data placed on the device once; arrays of
        ``device_data``, which are the same, are there already.
        """
        loglik = problem.loglik
        device_data = jax.tree.map(placed, data if device_data is None else device_data)
        with_counts = counted(loglik, device_data, _counts(loglik, data), base.dtype)
        summed = replace(problem, loglik=with_counts)

        @cache  # looked up once a fit, and only if it runs
        def program_of(name: str) -> Function:
            program = compile_pass(summed, name)
            if name == "evaluate":
                return partial(evaluated, problem.chart, program)
            return lambda *args: jax.tree.map(np.array, program(*args))

        return cls(problem, base, data, device_data, codes, program_of)

    def on(self, data: Data) -> Passes:
        """These passes over other rows, on the host."""
        return Passes.on_host(self.problem, self.base, data, self.codes)

    def _run(self, name: str, *args: Array) -> Tree:
        return self.program_of(name)(self.base, self.device_data, self.codes, *args)

    def evaluate(self, z: Array) -> Point:
        """Value, score and Hessian at free coordinates z (k,)."""
        return self._run("evaluate", z)

    def slopes(self, z: Array) -> Slope:
        """Value and score of a declared regression at z (k,), without the Hessian."""
        return self._run("slopes", z)

    def expected(self, x: Array) -> Expected:
        """The expected information at x (p,)."""
        return self._run("expected", x)

    def robust(self, x: Array, jacobian: Array, root: Array) -> Covariance:
        """The sandwich covariance at x (p,), from the Jacobian (p, k) and the root (k, k) of the
        inverse information.
        """
        return self._run("robust", x, jacobian, root)

    def may_have_kinks(self) -> bool:
        """Whether the program of the likelihood shows that ℓ may have kinks."""
        problem = self.problem
        return may_have_kinks(problem.loglik, problem.layout, self.base, self.data)

    def first_bad(self, x: Array) -> Array:
        """The first row whose term at x (p,) is not finite or stands far above the others; −1."""
        return self._run("first_bad", x)

    def sharpest(self, x: Array) -> Array:
        """The row whose term changes far more than the others a little way from x (p,); −1."""
        return self._run("sharpest", x)

    def first_rough(self, x: Array) -> Array:
        """The first row of which a term or a derivative at x (p,) is not finite; −1."""
        return self._run("first_rough", x)


def _counts(loglik: Loglik, data: Data) -> tuple[int, ...]:
    """For each leaf of counts, how many different ones occur."""
    leaves = [np.ravel(leaf_of(data, name)) for name in counts_of(loglik)]
    return tuple(int(distinct(leaf, np.array([leaf.size]))[0]) for leaf in leaves)


def _first_bad_term(loglik: Loglik, layout: Layout, x: Array, data: Data) -> Array:
    """The first term that is not finite, or the one that stands far above all others; −1 where
    there is none or there are no terms.
    """
    terms = jnp.atleast_1d(terms_of(loglik, layout.unravel(x), data))
    bad = ~jnp.isfinite(terms)
    top = jnp.max(terms)
    middle = jnp.median(terms)
    spread = jnp.median(jnp.abs(terms - middle))
    alone = (terms > middle + DEVIATIONS_OF_COLLAPSED_TERM * jnp.maximum(spread, 1.0)) & (
        terms >= top
    )
    return jnp.where(
        (terms.shape[0] > 2) & jnp.any(bad | alone),
        jnp.where(jnp.any(bad), jnp.argmax(bad), jnp.argmax(alone)),
        -1,
    )


def _sharpest_term(loglik: Loglik, layout: Layout, x: Array, data: Data) -> Array:
    """The term that changes far more than all others under a small change of the parameters; −1
    where there is none. At the edge of a support a term diverges only as a logarithm; beyond it, it
    is not finite.
    """

    def terms_at(x: Array) -> Array:
        return jnp.atleast_1d(terms_of(loglik, layout.unravel(x), data))

    step = SMALL_STEP * (1.0 + jnp.abs(x))
    terms = terms_at(x)
    change = jnp.maximum(jnp.abs(terms_at(x + step) - terms), jnp.abs(terms_at(x - step) - terms))
    change = jnp.where(jnp.isfinite(change), change, jnp.inf)
    others = jnp.maximum(jnp.median(change), SMALL_STEP)
    stands_out = (terms.shape[0] > 2) & (jnp.max(change) > MIN_CHANGE_OF_COLLAPSED_TERM * others)
    return jnp.where(stands_out, jnp.argmax(change), -1)


def _first(bad: Array) -> Array:
    """The first row for which a condition holds; −1 where there is none or there are no rows."""
    return jnp.where((bad.shape[0] > 1) & jnp.any(bad), jnp.argmax(bad), -1)


# ---------------------------------------------------------------- the search


def search(
    ascend: Ascend,
    evaluate: Callable[[Array], Point],
    problem: Problem,
    base: Array,
    z: Array,
    may_have_kinks: Callable[[], bool],
) -> tuple[Verdict, EndPoint]:
    """Ascend, explore, judge, on the host; where ℓ is seen to rise a finite way off, ascend again
    from there. Under a trace: ``one_loop``.

    Args:
        may_have_kinks: called only if an ascent ended as one does at a kink.
    """
    chart = problem.chart

    def ascended(z: Array, before: State | None = None) -> tuple[State, Limit]:
        state = examined(evaluate, ascend(evaluate, z, problem.max_steps), problem.max_steps)
        if before is not None:
            state = remember_rise(state, before)
        if not may_be_kinked(state) or not may_have_kinks():
            return state, explore(evaluate, state, chart.nonlinear)
        kink = seek_kink(evaluate, state)
        limit = explore(evaluate, without(kink, state), chart.nonlinear)
        return state, at_kink(limit, kink)

    state, limit = ascended(z)
    for _ in range(MAX_RISES):
        if not is_one_of(limit.shape, Shape.RISES):
            break
        before = state.steps + limit.steps
        state, limit = ascended(limit.point.z, state)
        limit = limit._replace(steps=limit.steps + before)
    return verdict_of(problem, state, limit)


def verdict_of(problem: Problem, state: State, limit: Limit) -> tuple[Verdict, EndPoint]:
    """The verdict at the end of an ascent and its excursion."""
    limit = settled_rise(state, limit)
    spectrum = decompose_information(state, limit)
    reached = reach(problem.chart, limit.point.aux.x, state, limit, spectrum)
    return judge(state, limit, spectrum, reached.only_bounds), reached


def needs_pass(kind: Kind | None) -> bool:
    """Whether this kind of covariance takes another pass over the data."""
    return kind not in ("observed", None)
