"""``fit``: a log-likelihood, a start and data in; a record with estimates, their covariance and a
verdict out.

Two roads, one function. On the host it checks its arguments, runs in float64 and loops in Python
over one compiled evaluation. Under somebody's trace it is one ``while_loop`` in the trace's dtype.
The steps, the excursions and the verdict are the same functions.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Loglik, Tree
from jaxmle.fitting.frozen_hessian import AIM, short
from jaxmle.fitting.frozen_hessian import kept as kept_hessian
from jaxmle.fitting.head_start import head_start
from jaxmle.fitting.identification import traced_to
from jaxmle.fitting.identity import identity, with_response_id
from jaxmle.fitting.implicit import approached, term_count, traced_fit
from jaxmle.fitting.objective import Objective
from jaxmle.fitting.passes import Engine, Problem, compiled_pass, complete, pose, search
from jaxmle.fitting.separation import settled, wants_cone
from jaxmle.fitting.shards import refuse_shards
from jaxmle.fitting.signals import with_rules, with_signals
from jaxmle.fitting.user_scale import Reach
from jaxmle.fitting.verdict import Verdict
from jaxmle.likelihood.checks import (
    check_coding,
    check_fixed,
    check_start,
    check_values,
    check_weight_shapes,
    host_data,
    host_params,
    traced_data,
)
from jaxmle.likelihood.combinators import Penalize, weight
from jaxmle.likelihood.contract import as_tree, leaf_of, need_terms, rows_of
from jaxmle.likelihood.discovery.derivative_rules import check_rules
from jaxmle.likelihood.discovery.indices import check_indices
from jaxmle.likelihood.discovery.linear_predictors import declared
from jaxmle.likelihood.discovery.ready_calls import check_calls
from jaxmle.likelihood.discovery.row_axes import is_rowwise
from jaxmle.likelihood.discovery.row_independence import check_blocks, check_traced, check_weighted
from jaxmle.likelihood.discovery.self_check import HEAD_START, road_of, verified
from jaxmle.likelihood.evaluate import CACHED_OPAQUE
from jaxmle.likelihood.histogram import counted, counts_of, distinct
from jaxmle.likelihood.information.covariance import Kind, check_kind, cluster_codes
from jaxmle.likelihood.information.hac import check_bandwidth
from jaxmle.likelihood.recession import is_exact, ways
from jaxmle.likelihood.structure import count, has, substituted, term_shape
from jaxmle.parameters.arguments import check_count, check_flag, shown
from jaxmle.parameters.tree import layout_of
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled, kept, precision, tracing
from jaxmle.runtime.device import placed
from jaxmle.runtime.jax_state import without_alarms
from jaxmle.solvers.bfgs import Arrival, Slope, secant_climb
from jaxmle.solvers.methods import LBFGS, Newton, Optax
from jaxmle.solvers.status import Status
from jaxmle.solvers.trust_region import DONE, Point, State, advance, begin, step

MIN_ROWS_FOR_OPAQUE_BLOCKS = (
    16 * CACHED_OPAQUE
    # rows from which an opaque likelihood is summed in blocks, where its rows are seen to be kept
    # apart
)
MAX_STEPS = (
    3000  # the longest climb among NIST's regressions takes 2 500 (MGH10, from its first start)
)


def fit(
    loglik: Loglik,
    params0: Tree = None,
    data: Tree = None,
    *,
    constraints: Tree = None,
    solver: Any = None,
    vcov: Kind | None = "auto",
    clusters: Any = None,
    weights: Any = None,
    dtype: Any = None,
    max_steps: int = MAX_STEPS,
    block_rows: int | None = None,
    progress: bool | None = None,
) -> Fit:
    """Maximise a log-likelihood and say how sure the maximum is.

    Args:
        loglik: ``loglik(params, data)`` returning one term per observation (n,), or a scalar for
            dependent data; or a declared ``regression``, or any combinator of these. What it closes
            over is compared at each call: whatever was rebound or changed in place since the last
            one, in arrays, containers, objects, modules or globals, enters the fit.
        params0: start values, any tree of floating-point arrays. May be None where the
            log-likelihood has a method ``start(data)``.
        data: any tree of arrays that share the leading axis n. Floats are computed in the precision
            of the fit, whatever theirs; integers become int64 (int32 with float64 off), which for a
            column of bytes is eight times the memory; booleans stay.
        constraints: a tree prefix of ``params0``, such as ``{"sigma": positive}``; the maximum does
            not depend on its transform.
        solver: one of ``jaxmle.solvers``, any optax transformation, or None to choose by size.
        vcov: ``"observed"``, ``"expected"``, ``"opg"``, ``"HC0"`` … ``"HC3"``, ``"cluster"``
            (``"CR0"``, ``"CR1"``, ``"CR1S"``, ``"CR2"``, ``"CR3"``), ``"hac"`` or ``hac(…)`` for
            rows in time order, None, or ``"auto"``: observed; cluster where clusters are given; HC0
            under sampling weights; after ``jeffreys`` the unpenalised information.
        clusters: one label for each row, (n,), or two of them for two-way clustering.
        weights: ``frequency(w)`` or ``sampling(w)``, w (n,).
        dtype: float64 on the host and the trace's own inside one, unless given.
        max_steps: evaluations of the likelihood allowed.
        block_rows: evaluate in blocks of so many rows; each term may then depend on its own row
            only. Left out, a regression of many rows, or a function whose rows are seen to be kept
            apart, is taken in blocks by itself.
        progress: None for a line on standard error every two seconds, True for one at each step,
            False for silence.

    Returns:
        A ``Fit``. A failure visible only in values is its ``status``, never an exception.

    Raises:
        ValueError, TypeError: for what is visible in shapes and types; on the host also for NaN in
            the data, and for weights or ``block_rows`` where terms are shown to look at other rows
            than their own.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> round(float(result.params["rate"]), 6), round(float(result.stderr["rate"]), 6)
    (0.333333, 0.166667)
    """
    asked = loglik
    loglik, params0, constraints = _model_parts(loglik, params0, data, constraints)
    if weights is not None:
        loglik = weight(loglik, weights)
    loglik = as_tree(loglik)
    max_steps, block_rows = check_options(vcov, clusters, max_steps, block_rows, progress)
    options = (
        loglik,
        params0,
        data,
        constraints,
        solver,
        vcov,
        clusters,
        dtype,
        max_steps,
        block_rows,
    )
    if tracing():
        return _traced(*options)
    found = with_response_id(_host(*options, progress), asked, loglik, data)
    return with_signals(found, asked, loglik, data)


def check_options(
    vcov: Any, clusters: Any, max_steps: Any, block_rows: Any, progress: Any = None
) -> tuple[int, int | None]:
    """Options that can be judged without the data: ``max_steps`` and ``block_rows`` as Python
    integers.
    """
    check_kind(vcov, clusters)
    check_flag("progress", progress, may_be_none=True)
    steps = check_count("max_steps", max_steps)
    return steps, None if block_rows is None else check_count("block_rows", block_rows, 1)


def _model_parts(
    loglik: Loglik, params0: Tree, data: Tree, constraints: Tree
) -> tuple[Any, Tree, Tree]:
    """A model knows where to start and how its parameters are bounded."""
    if params0 is None:
        if not hasattr(loglik, "start"):
            raise ValueError(
                "params0 is missing: give start values, such as {'beta': jnp.zeros(3), 'sigma': "
                "1.0}; only a model with a method start(data) may go without. fix, tie, weight "
                "and penalize do not hand a model's start on: give params0=model.start(data), "
                "constraints=model.constraints"
            )
        rows = data if tracing() else host_data(data, np.float64, nan=True)
        if isinstance(rows, dict) or hasattr(rows, "ndim"):
            check_coding(loglik, rows)  # what has another form, the model itself refuses
        params0 = loglik.start(rows)
    return (
        loglik,
        params0,
        getattr(loglik, "constraints", None) if constraints is None else constraints,
    )


def _host_engine(problem: Problem, base: Array, data: Tree, codes: tuple[Array, ...]) -> Engine:
    """The same passes, compiled once on the user's function."""
    loglik = problem.loglik
    problem = replace(problem, loglik=counted(loglik, data, _counts(loglik, data), base.dtype))

    def piece(name: str) -> Callable[..., Any]:
        program = functools.cache(
            lambda: compiled_pass(problem, name)
        )  # looked up once a fit, and only if wanted
        return lambda *args: jax.tree.map(np.array, program()(base, data, codes, *args))

    return Engine(*map(piece, Engine._fields))


def _counts(loglik: Loglik, data: Tree) -> tuple[int, ...]:
    """For each leaf of counts how many of them occur."""
    leaves = [np.ravel(leaf_of(data, name)) for name in counts_of(loglik)]
    return tuple(int(distinct(leaf, np.array([leaf.size]))[0]) for leaf in leaves)


def _watched(
    progress: bool | None,
    keep: Callable[[State], Point | None] | None,
    evaluate: Callable[[Array], Point],
    z: Array,
    max_steps: int,
) -> State:
    """The host's climb: ``maximise`` with a line of progress every two seconds, or at each step, or
    never.

    Args:
        keep: the end of a step too short to change the Hessian, if it is one; None where all passes
            are whole.
    """
    state = begin(evaluate, z)
    last = time.monotonic()
    while state.phase != DONE and state.steps <= max_steps:
        trial = None if keep is None else keep(state)
        state = step(evaluate, state) if trial is None else advance(state, trial)
        if progress or (progress is None and time.monotonic() - last > 2.0):
            last = time.monotonic()
            distance = np.sqrt(2 * state.newton.decrement)
            print(
                f"jaxmle.fit: step {int(state.steps)}, log-likelihood "
                f"{float(state.point.value):.8g}, about {float(distance):.2g} SE to go",
                file=sys.stderr,
            )
    return state


def _watched_scores(
    progress: bool | None, slopes: Callable[[Array], Slope]
) -> Callable[[Array], Slope]:
    """The pass for the score with its line of progress, from two seconds on."""
    began = time.monotonic()

    def told(z: Array) -> Slope:
        at = slopes(z)
        if progress or (progress is None and time.monotonic() - began > 2.0):
            print(
                f"jaxmle.fit: log-likelihood {float(at.value):.8g}, by a pass for the score",
                file=sys.stderr,
            )
        return at

    return told


# ---------------------------------------------------------------- on the host


def _host(
    loglik: Loglik,
    params0: Tree,
    data: Tree,
    constraints: Tree,
    solver: Any,
    vcov: Any,
    clusters: Any,
    dtype: Any,
    max_steps: int,
    block_rows: Any,
    progress: Any,
) -> Fit:
    dtype = host_dtype(dtype)
    params = host_params(params0, dtype)
    layout = layout_of(params, constraints)
    check_start(layout, params)
    check_fixed(loglik, layout)
    data = host_data(data, dtype)
    rows = rows_of(loglik, data)
    check_values(loglik, data)
    check_bandwidth(vcov, rows)
    codes = () if clusters is None else cluster_codes(clusters, rows)
    with precision(dtype), np.errstate(all="ignore"):
        problem = pose(loglik, layout, solver, vcov, clusters, max_steps, block_rows)
        base = np.asarray(substituted(loglik, layout, layout.ravel(params)))
        check_weighted(loglik, layout, base, data)
        check_calls(loglik, layout, base, data)
        check_indices(loglik, layout, base, data)
        on_device = jax.tree.map(placed, data)
        _check_terms(problem, base, on_device)
        if block_rows is not None:
            check_blocks(loglik, layout, base, data, block_rows)
        many = (rows or 0) >= MIN_ROWS_FOR_OPAQUE_BLOCKS
        keeps_rows_apart = many and is_rowwise(loglik, layout, base, data)
        form = declared(loglik, layout, base, data) if keeps_rows_apart else loglik
        form = verified(loglik, form, layout, base, data)
        in_blocks = keeps_rows_apart and form is loglik and block_rows is None
        problem = replace(
            problem, loglik=form, block_rows=CACHED_OPAQUE if in_blocks else block_rows
        )
        engine = _host_engine(problem, base, on_device, codes)

        def elsewhere(data: Any) -> Any:
            return _host_engine(problem, base, data, codes).evaluate

        verdict, reached, extra, head = _host_search(
            problem, engine, base, data, on_device, elsewhere, progress
        )
        # where a climb with a wrong Hessian ends, nothing may be finite
        points = [verdict.point.aux.x, base][: 2 - (verdict.status == Status.CONVERGED)]
        rules = check_rules(problem.loglik, layout, points, on_device)
        if rules.hessian:  # the climb used a wrong one
            engine = _host_engine(problem, base, on_device, codes)
            verdict, reached, extra, head = _host_search(
                problem, engine, base, data, on_device, elsewhere, progress
            )
        n = np.asarray(count(loglik, data, lambda: term_count(problem, base, on_device)), dtype)[()]
        found = complete(
            problem,
            engine,
            base,
            verdict,
            reached,
            verdict.point,
            n,
            identity(loglik, data, dtype),
            extra,
        )
        found = replace(found, road=", ".join([road_of(loglik, form), *head]))
        if found.verdict == Status.UNIDENTIFIED and rows is not None:
            found = traced_to(found, lambda z, data: elsewhere(data)(z), verdict.point.z, data)
        found = with_rules(found, problem.loglik, rules)
        return (
            _separated(problem, base, on_device, rows, found)
            if found.verdict == Status.SEPARATED
            else found
        )


def _host_search(
    problem: Problem,
    engine: Engine,
    base: Array,
    data: Tree,
    on_device: Tree,
    elsewhere: Callable[[Tree], Callable[[Array], Point]],
    progress: bool | None,
) -> tuple[Verdict, Reach, Array, list[str]]:
    """The search, the passes made before it, and the word for a head start where it was taken.
    Many rows have one; the start that was asked for has the last word.
    """
    z = problem.chart.to_free(base)
    climb = functools.partial(_watched, progress)
    if head := head_start(problem, data, z, elsewhere):
        longest = short(head.turn)
        double = z.dtype == np.float64
        near = (
            secant_climb(
                _watched_scores(progress, engine.slopes), head.z, head.information, AIM * longest
            )
            if double
            else Arrival(head.z, False, 0)
        )
        keep = functools.partial(kept_hessian, engine.slopes, longest) if near.arrived else None
        if near.arrived or isinstance(problem.solver, Newton):
            verdict, reached = search(
                functools.partial(climb, keep), engine.evaluate, problem, base, near.z
            )
            if verdict.status == Status.CONVERGED:
                return verdict, reached, np.asarray(near.passes), [HEAD_START]
    extra = np.asarray(0)
    if isinstance(problem.solver, LBFGS | Optax):
        z, extra = _host_approach(problem, base, on_device, z)
    return *search(functools.partial(climb, None), engine.evaluate, problem, base, z), extra, []


def _separated(problem: Problem, base: Array, data: Tree, rows: int | None, found: Fit) -> Fit:
    """The record of a separated fit with the cone of its recession, where there are terms to
    tell it.
    """
    if not wants_cone(found, problem.roots, rows) or not term_shape(
        problem.loglik, problem.layout, base, data
    ):
        return found
    layout = problem.layout
    at = compiled(
        problem.loglik, ("ways", layout), lambda ll: lambda base, data: ways(ll, layout, base, data)
    )(base, data)
    return settled(found, problem.roots, at, is_exact(problem.loglik))


def _check_terms(problem: Problem, base: Array, data: Tree) -> None:
    """What needs terms is refused before anything is compiled."""
    wanted = problem.kind not in ("observed", "expected", None) and not has(
        problem.loglik, Penalize
    )
    if wanted and not term_shape(problem.loglik, problem.layout, base, data):
        need_terms(jnp.zeros(()), f"vcov={problem.kind!r}")


def host_dtype(dtype: Any) -> np.dtype:
    """The precision of a fit on the host: float64 unless float32 is asked for."""
    wanted = np.float64 if dtype is None else dtype
    try:
        found = np.dtype(wanted) if isinstance(wanted, str | type | np.dtype) else None
    except TypeError:
        found = None
    if found is None or found not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise ValueError(f"dtype must be float64 or float32; got {shown(dtype)}")
    return found


def _host_approach(
    problem: Problem, base: Array, data: Tree, z: Array
) -> tuple[np.ndarray, np.ndarray]:
    bare = problem.bare

    def make(loglik: Loglik) -> Callable[..., Any]:
        return lambda base, data, z: approached(
            bare, Objective(loglik, bare.chart, base, data, "observed", bare.block_rows), z
        )

    near, steps = compiled(
        problem.loglik, ("approach", problem.chart, problem.solver, problem.block_rows), make
    )(base, data, z)
    return np.array(near), np.array(steps)


# ---------------------------------------------------------------- under a trace


def _traced(
    loglik: Loglik,
    params0: Tree,
    data: Tree,
    constraints: Tree,
    solver: Any,
    vcov: Any,
    clusters: Any,
    dtype: Any,
    max_steps: int,
    block_rows: Any,
) -> Fit:
    refuse_shards()
    dtype = _traced_dtype(dtype)
    _refuse_non_float(params0)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(dtype), params0)
    check_coding(loglik, data)
    data = traced_data(data, dtype)
    layout = layout_of(params, constraints)
    rows = rows_of(loglik, data)
    check_weight_shapes(loglik, data)
    check_bandwidth(vcov, rows)
    codes = () if clusters is None else cluster_codes(clusters, rows)
    problem = pose(loglik, layout, solver, vcov, clusters, max_steps, block_rows)
    base = jnp.asarray(substituted(loglik, layout, layout.ravel(params)))
    check_traced(loglik, layout, base, data, block_rows)
    bare = problem.bare
    key = ("fit", problem.chart, problem.solver, problem.kind, max_steps, block_rows, str(dtype))
    program = kept(
        loglik, key, lambda ll: lambda *args: traced_fit(replace(bare, loglik=ll), *args)
    )
    with without_alarms():
        return replace(program(base, data, codes), road=road_of(loglik, loglik))


def _traced_dtype(dtype: Any) -> Any:
    own = jnp.zeros(()).dtype
    if dtype is not None and np.dtype(dtype) == np.float64 and own != np.float64:
        raise ValueError(
            "dtype='float64' inside a trace needs float64 switched on around it: with "
            "jax.enable_x64(True): …"
        )
    return own if dtype is None else host_dtype(dtype)


def _refuse_non_float(params: Tree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} has dtype {jnp.result_type(leaf)}; "
                "parameters must be floating-point arrays"
            )
