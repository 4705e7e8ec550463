"""Fits without a Hessian: of a likelihood with nothing to estimate, and of so many parameters that
L-BFGS runs until the score is zero.

A score of zero alone does not make a maximum. Such a fit is STATIONARY: whether ℓ curves downwards
there was not checked.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Data, Function, Loglik, Tree, ndarray
from jaxmle.fitting.implicit import term_count
from jaxmle.fitting.objective import Objective
from jaxmle.fitting.options import Options, Posed, covariance_of
from jaxmle.fitting.passes import Passes, Problem
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.derivatives import first_that_exists
from jaxmle.likelihood.structure import core_of, count, weighting_of
from jaxmle.record.fit import Fit
from jaxmle.record.identity import identity
from jaxmle.record.witness import empty_witness
from jaxmle.runtime.compile import compiled, precision
from jaxmle.runtime.opaque import Opaque
from jaxmle.runtime.progress import SECONDS_BETWEEN_LINES
from jaxmle.solvers.first_order import Ascent, ascend, ascent_from, highest
from jaxmle.solvers.methods import LBFGS, MAX_PARAMETERS_FOR_HESSIAN, Newton
from jaxmle.solvers.status import WITHOUT_HESSIAN, Status

# δ by the curvature of L-BFGS: 1e-3 standard errors
MAX_DECREMENT_OF_STATIONARY = 5e-7
STEPS_A_CALL = 10  # of L-BFGS, between two looks at the clock: a call costs less than a step

# ---------------------------------------------------------------- nothing to estimate


def fit_at_point(posed: Posed, options: Options) -> Fit:
    """The record of a likelihood that has nothing to estimate: ℓ at the point, df 0, and no
    standard errors. It stands in an overall test: ``lr_test(null, full)``.
    """
    layout = posed.layout
    _, mode, label = covariance_of(posed.loglik, posed.chart, Newton(), options)

    def make(loglik: Loglik) -> Function:
        def sum_and_row(x: Array, data: Data) -> tuple[Array, Array]:
            terms = terms_of(loglik, layout.unravel(x), data)
            bad = ~jnp.isfinite(jnp.atleast_1d(terms))
            row = jnp.where(jnp.any(bad), jnp.argmax(bad), -1)
            return jnp.sum(terms), jnp.where(terms.ndim == 0, -1, row)

        return sum_and_row

    with precision(posed.dtype), np.errstate(all="ignore"):
        run = compiled(posed.loglik, ("at point", layout), make)
        value, row = map(np.asarray, run(posed.base, posed.data))
        n = np.asarray(count(posed.loglik, posed.data, lambda: np.nan), posed.dtype)[()]
    finite = bool(np.isfinite(value))
    return _record(
        posed,
        status=Status.CONVERGED if finite else Status.NONFINITE,
        x=np.asarray(posed.base),
        value=value if finite else np.nan,
        score=np.zeros(layout.p, posed.dtype),
        decrement=0.0,
        hessian=np.zeros((), posed.dtype),
        n=n,
        row=-1 if finite else int(row),
        steps=1,
        vcov_kind=label or "none",
        mode=mode,
    )


# ---------------------------------------------------------------- many parameters


def ends_by_score(problem: Problem, options: Options) -> bool:
    """Whether L-BFGS itself finishes the fit: if the likelihood is a function, whose Hessian takes
    as many passes as there are parameters; if these are many; and if no covariance is asked for.
    """
    not_asked = options.vcov in ("auto", None) and options.clusters is None
    return (
        not_asked
        and isinstance(problem.solver, LBFGS)
        and problem.chart.k > MAX_PARAMETERS_FOR_HESSIAN
        and isinstance(core_of(problem.loglik), Opaque)
        and problem.mode in ("ML", "MAP")
    )


def fit_by_score(passes: Passes, posed: Posed, progress: bool | None) -> Fit:
    """The fit of many parameters, from the user's start to where the score is zero."""
    problem = passes.problem
    steps = problem.max_steps
    if isinstance(problem.solver, LBFGS):
        steps = min(problem.solver.steps, steps)
    ascent = _ascended(passes, steps, progress)
    x, value, absolute, score = map(np.array, _run(passes, "highest", _end_of, ascent))
    finite = bool(np.isfinite(value) and np.all(np.isfinite(score)))
    decrement = float(ascent.decrement)
    rounding = 4 * np.finfo(posed.dtype).eps * absolute
    if not finite:
        status = Status.NONFINITE
    elif decrement <= max(MAX_DECREMENT_OF_STATIONARY, rounding):
        status = Status.STATIONARY
    else:
        status = Status.STALLED if bool(ascent.ended) else Status.MAX_STEPS
    false_curvature = 1.0 if finite else np.nan
    terms = partial(term_count, problem, passes.base, passes.device_data)
    return _record(
        posed,
        status=status,
        x=x * false_curvature,
        value=value * false_curvature,
        score=score * false_curvature,
        decrement=decrement * false_curvature,
        hessian=np.full((), np.nan, posed.dtype),
        n=count(posed.loglik, posed.data, terms),
        row=-1 if finite else int(passes.first_bad(x)),
        steps=int(ascent.steps),
        vcov_kind="none",
        mode=problem.mode,
        evaluation=f"opaque, {WITHOUT_HESSIAN}",
    )


def _ascended(passes: Passes, limit: int, progress: bool | None) -> Ascent:
    """The state at the end of L-BFGS. A line of progress is printed every two seconds, at each
    step, or never.
    """
    ascent = ascent_from(
        passes.problem.solver, jnp.asarray(passes.problem.chart.to_free(passes.base))
    )
    last = time.monotonic()
    before = ascent
    while int(ascent.steps) < limit and not bool(ascent.ended):
        next_look = int(ascent.steps) + (1 if progress else STEPS_A_CALL)
        ascent = _run(passes, "ascend", _ascend, ascent, min(next_look, limit))
        due = time.monotonic() - last > SECONDS_BETWEEN_LINES if progress is None else progress
        if due:
            print(_line(ascent, before), file=sys.stderr)
            last = time.monotonic()
            before = ascent
    return ascent


def _line(ascent: Ascent, before: Ascent) -> str:
    """A line of progress: ℓ, its gain since the last line, and the estimated distance to the
    maximum by the curvature that L-BFGS has seen.
    """
    gain = float(before.lowest - ascent.lowest)
    gained = f", up {gain:.3g} in {int(ascent.steps - before.steps)} steps" if gain < np.inf else ""
    distance = np.sqrt(2 * float(ascent.decrement))
    to_go = (
        f", about {distance:.2g} SE to go by its approximate curvature" if distance < np.inf else ""
    )
    return (
        f"jaxmle.fit: L-BFGS step {int(ascent.steps)}, log-likelihood {-float(ascent.lowest):.8g}"
        f"{gained}{to_go}"
    )


def _run(passes: Passes, name: str, quantity: Function, *args: Tree) -> Tree:
    """``quantity(problem, objective, *args)``, compiled once on the user's function."""
    problem = passes.problem
    bare = problem.bare  # a compiled piece must not keep the user's function alive
    rows = problem.block_rows

    def make(loglik: Loglik) -> Function:
        def run(base: Array, data: Data, *args: Tree) -> Tree:
            return quantity(
                bare, Objective(loglik, bare.chart, base, data, "observed", rows), *args
            )

        return run

    key = (f"by score: {name}", problem.chart, problem.solver, rows)
    return compiled(problem.loglik, key, make)(passes.base, passes.device_data, *args)


def _ascend(problem: Problem, objective: Objective, ascent: Ascent, limit: Array) -> Ascent:
    def run() -> Ascent:
        value = objective.value
        return ascend(problem.solver, value, objective, objective.curvatures, ascent, limit)

    return first_that_exists((run,), objective.value, ascent.z)


def _end_of(problem: Problem, objective: Objective, ascent: Ascent) -> tuple[Array, ...]:
    """The highest point x (p,), ℓ, Σ|terms| and the score (p,) there."""
    x = objective.to_user(highest(objective.value, ascent))

    def terms_at(x: Array) -> Array:
        return terms_of(objective.loglik, objective.layout.unravel(x), objective.data)

    value, score = jax.value_and_grad(lambda x: jnp.sum(terms_at(x)))(x)
    return x, value, jnp.sum(jnp.abs(terms_at(x))), score


# ---------------------------------------------------------------- the record


def _record(
    posed: Posed,
    *,
    status: Status,
    x: ndarray,
    value: Tree,
    score: ndarray,
    decrement: float,
    hessian: ndarray,
    n: Tree,
    row: int,
    steps: int,
    vcov_kind: str,
    mode: str,
    evaluation: str = "",
) -> Fit:
    """The record of a fit without a covariance. Its matrices hold one number, ``hessian`` or NaN,
    and take no memory.
    """
    layout = posed.layout
    dtype = posed.dtype
    p = layout.p
    real = dtype.type
    data_id = identity(posed.loglik, posed.data, dtype)
    witness = replace(empty_witness(x), row=_whole(row), term=_whole(row), point=x)
    if status is not Status.CONVERGED:
        witness = replace(witness, distance=real(np.sqrt(2 * decrement)))
    return Fit(
        params=layout.unravel(x),
        stderr=layout.unravel_entries(np.full(p, np.nan, dtype)),
        vcov=witness.vcov,
        hessian=np.broadcast_to(hessian, (p, p)),
        loglik=real(value),
        score=score,
        decrement=real(decrement),
        n=np.asarray(n, dtype)[()],
        status=_whole(status),
        witness=witness,
        steps=_whole(steps),
        data_id=data_id,
        response_id=np.zeros_like(data_id),
        names=layout.names,
        bounds=layout.bounds,
        df=posed.chart.k,
        vcov_kind=vcov_kind,
        mode=mode,
        weighting=weighting_of(posed.loglik),
        layout=layout,
        evaluation=evaluation,
    )


def _whole(value: Tree) -> ndarray:
    return np.asarray(value).astype(np.int32)[()]
