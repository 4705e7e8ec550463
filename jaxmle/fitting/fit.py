"""The fit of rows in memory: a log-likelihood, a start and data in; a record with estimates, their
covariance and a verdict out. The public ``fit`` is in ``distributed/public_fit.py``.

``fit_with`` reads its arguments and fits in one of two ways. On the host (this file), a Python loop
calls one compiled evaluation in float64. Under a trace (``implicit``), there is one ``while_loop``
in the dtype of the trace. Steps, excursions and verdict are the same functions in both.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from jaxmle._types import Array, Data, Function, Loglik, Params, Tree, ndarray
from jaxmle.fitting.ending import complete
from jaxmle.fitting.frozen_hessian import (
    SHARE_OF_SAFE_STEP_TO_REACH,
    longest_safe_step,
    reuse_hessian,
)
from jaxmle.fitting.head_start import Head, Sampler, head_start, sampler_of
from jaxmle.fitting.identification import traced_to
from jaxmle.fitting.implicit import approached, fit_under_trace, term_count
from jaxmle.fitting.log_gamma import keep_log_gamma_to_its_domain
from jaxmle.fitting.objective import Objective
from jaxmle.fitting.options import Options, Posed, read
from jaxmle.fitting.passes import Passes, Problem, check_terms, problem_of, search
from jaxmle.fitting.recession import FitInputs, with_signs
from jaxmle.fitting.signals import with_rules, with_signals
from jaxmle.fitting.user_scale import EndPoint
from jaxmle.fitting.without_curvature import ends_by_score, fit_at_point, fit_by_score
from jaxmle.likelihood.contract import fits_itself
from jaxmle.likelihood.discovery.derivative_rules import check_rules
from jaxmle.likelihood.discovery.indices import check_indices
from jaxmle.likelihood.discovery.linear_predictors import as_regression
from jaxmle.likelihood.discovery.ready_calls import check_calls
from jaxmle.likelihood.discovery.row_axes import is_rowwise
from jaxmle.likelihood.discovery.row_independence import check_blocks, check_weighted
from jaxmle.likelihood.discovery.self_check import HEAD_START, evaluation_of, verified
from jaxmle.likelihood.evaluate import CACHED_OPAQUE, usual_opaque_rows
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.likelihood.information.hac import check_bandwidth
from jaxmle.likelihood.structure import count
from jaxmle.record.fit import Fit
from jaxmle.record.identity import call_of, identity, with_response_id
from jaxmle.runtime.compile import compiled, precision, tracing
from jaxmle.runtime.device import left_on_device
from jaxmle.runtime.progress import SECONDS_BETWEEN_LINES
from jaxmle.solvers.bfgs import ScoreAscent, Slope, bfgs_ascent
from jaxmle.solvers.methods import LBFGS, Newton, Optax
from jaxmle.solvers.state import DONE, Point, State
from jaxmle.solvers.status import Status, is_one_of
from jaxmle.solvers.trust_region import advance, begin, proposed, step
from jaxmle.verdict.judge import Verdict

# rows from which an opaque likelihood is summed in blocks, where its rows are proved independent
MIN_ROWS_FOR_OPAQUE_BLOCKS = 16 * CACHED_OPAQUE


def fit_with(loglik: Loglik, params0: Params, data: Data, options: Options) -> Fit:
    """``fit`` with its options as one record."""
    if fits_itself(data):
        return data.fit_with(loglik, params0, options)
    posed = read(loglik, params0, data, options, may_be_empty=True)
    model = call_of(loglik)
    if tracing():
        return replace(fit_under_trace(posed, options), model=model)
    # one context, within which closures are looked at once
    with precision(posed.dtype), np.errstate(all="ignore"):
        fitted = fit_on_host(posed, options, model)
        fitted = with_response_id(fitted, loglik, posed.loglik, posed.data)
        return with_signals(fitted, loglik, posed.loglik, posed.data)


def fit_on_host(posed: Posed, options: Options, model: str) -> Fit:
    """The fit of a problem on the host: check, pose, search, conclude."""
    if not posed.chart.k:
        return replace(fit_at_point(posed, options), model=model)
    check_bandwidth(options.vcov, posed.rows)
    clusters = options.clusters
    codes = () if clusters is None else cluster_codes(clusters, posed.rows)
    problem = problem_of(posed.loglik, posed.chart, options)
    base = posed.base
    check_rows(problem, base, posed.data)
    keep_log_gamma_to_its_domain(problem.loglik, problem.layout, base, posed.data)
    problem = with_structure(problem, base, posed)
    placed = left_on_device(posed.given, posed.data)
    passes = Passes.on_host(problem, base, posed.data, codes, placed)
    if ends_by_score(problem, options):
        return replace(fit_by_score(passes, posed, options.progress), model=model)
    conduct = Conduct(options.progress, sampler_of(posed.data, posed.rows or 0))
    verdict, reached, steps_before, head = search_on_host(passes, conduct)
    # where an ascent with a wrong Hessian ends, nothing may be finite
    points = [verdict.point.aux.x, base][: 2 - is_one_of(verdict.status, Status.CONVERGED)]
    rules = check_rules(problem.loglik, problem.layout, points, passes.device_data)
    if rules.hessian:  # the ascent used a wrong one
        passes = passes.on(posed.data)
        verdict, reached, steps_before, head = search_on_host(passes, conduct)
    data_id = identity(posed.loglik, posed.data, posed.dtype)
    n = _number_of_observations(passes, posed)
    fitted = complete(passes, verdict, reached, verdict.point, n, data_id, steps_before)
    evaluation = evaluation_of(posed.loglik, problem.loglik)
    fitted = replace(fitted, evaluation=", ".join([evaluation, *head]), model=model)
    if fitted.verdict is Status.UNIDENTIFIED and posed.rows is not None:
        fitted = traced_to(fitted, passes, verdict.point.z)
    fitted = with_rules(fitted, problem.loglik, rules)
    base, data = passes.base, passes.device_data
    inputs = FitInputs(problem.loglik, problem.roots, base, data, posed.rows)
    return with_signs(fitted, inputs)


def check_rows(problem: Problem, base: Array, data: Data) -> None:
    """Refuse what the values of the data or the program of the likelihood show to be wrong."""
    check_weighted(problem.loglik, problem.layout, base, data)
    check_calls(problem.loglik, problem.layout, base, data)
    check_indices(problem.loglik, problem.layout, base, data)
    check_terms(problem, base, data)
    if problem.block_rows is not None:
        check_blocks(problem.loglik, problem.layout, base, data, problem.block_rows)


def with_structure(problem: Problem, base: Array, posed: Posed) -> Problem:
    """The problem, with the structure found in the program of a likelihood of many rows: that it is
    a regression, or that it may be summed in blocks.
    """
    loglik = problem.loglik
    layout = problem.layout
    data = posed.data
    is_long = (posed.rows or 0) >= MIN_ROWS_FOR_OPAQUE_BLOCKS
    is_apart = is_long and is_rowwise(loglik, layout, base, data)
    form = as_regression(loglik, layout, base, data) if is_apart else loglik
    form = verified(loglik, form, layout, base, data)
    if is_apart and form is loglik and problem.block_rows is None:
        return replace(problem, block_rows=usual_opaque_rows())
    return replace(problem, loglik=form)


def _number_of_observations(passes: Passes, posed: Posed) -> Array:
    terms = partial(term_count, passes.problem, passes.base, passes.device_data)
    return np.asarray(count(posed.loglik, posed.data, terms), posed.dtype)[()]


# ---------------------------------------------------------------- the search


class Landmark(NamedTuple):
    """What is needed to continue an ascent from one of its points."""

    z: Array  # (k,)
    radius: Array  # of the trust region; 0 before Newton's steps
    steps: Array  # passes over the data before


@dataclass(frozen=True)
class Conduct:
    """How a search on the host is run: progress, sampling, and where it resumes."""

    progress: bool | None
    sampler: Sampler
    resumed: Landmark | None = None  # where an earlier run of the same search was
    keep: Callable[[Landmark], None] | None = None  # called with each new landmark


def search_on_host(passes: Passes, conduct: Conduct) -> tuple[Verdict, EndPoint, Array, list[str]]:
    """The verdict, the end point of a recession, the number of steps before the ascent, and the
    word for a head start if there was one.

    Fits of many rows get a head start. If the ascent from it does not converge, the search is
    repeated from the user's start. A resumed search continues from its last landmark, and is
    repeated in the same case.
    """
    problem = passes.problem
    resumed = conduct.resumed
    if resumed is not None:
        arguments = _search_arguments(passes, conduct, None, resumed.z, resumed.radius)
        verdict, reached = search(*arguments)
        if is_one_of(verdict.status, Status.CONVERGED):
            return verdict, reached, resumed.steps, []
    z = problem.chart.to_free(passes.base)
    head = head_start(passes, z, conduct.sampler)
    if head is not None:
        result = _search_from_head(passes, head, conduct)
        if result is not None and is_one_of(result[0].status, Status.CONVERGED):
            return *result, [HEAD_START]
    steps = np.asarray(0)
    if isinstance(problem.solver, LBFGS | Optax):
        z, steps = _approach(passes, z)
    verdict, reached = search(*_search_arguments(passes, conduct, None, z))
    return verdict, reached, steps, []


def _search_arguments(
    passes: Passes,
    conduct: Conduct,
    reuse: Callable[[State], Point | None] | None,
    z: Array,
    radius: Array | None = None,
) -> tuple[Tree, ...]:
    """The arguments of ``search``, from z (k,)."""
    ascend = partial(_ascend, conduct, reuse, radius)
    return ascend, passes.evaluate, passes.problem, passes.base, z, passes.may_have_kinks


def _search_from_head(
    passes: Passes, head: Head, conduct: Conduct
) -> tuple[Verdict, EndPoint, Array] | None:
    """The search from a head start; None if the head start does not come close enough to the
    maximum for the solver.
    """
    problem = passes.problem
    longest = longest_safe_step(head.turn)
    by_scores = ScoreAscent(head.z, False, 0)
    if head.z.dtype == np.float64:
        slopes = _watched(passes.slopes, conduct)
        by_scores = bfgs_ascent(
            slopes, head.z, head.information, SHARE_OF_SAFE_STEP_TO_REACH * longest
        )
    if not by_scores.arrived and not isinstance(problem.solver, Newton):
        return None
    reuse = partial(reuse_hessian, passes.slopes, longest) if by_scores.arrived else None
    verdict, reached = search(*_search_arguments(passes, conduct, reuse, by_scores.z))
    return verdict, reached, np.asarray(by_scores.passes)


def _ascend(
    conduct: Conduct,
    reuse: Callable[[State], Point | None] | None,
    radius: Array | None,
    evaluate: Callable[[Array], Point],
    z: Array,
    max_steps: int,
) -> State:
    """The ascent on the host: ``maximise`` with a line of progress every two seconds, or at each
    step, or never.

    Args:
        reuse: ``reuse(state)`` gives the point at the end of a step that is too short to change the
            Hessian, or None; None if the Hessian is always evaluated.
        radius: the trust radius, if an ascent is continued.
    """
    state = begin(evaluate, z)
    if radius:
        state = proposed(state._replace(radius=np.asarray(radius, z.dtype)))
    last = time.monotonic()
    while state.phase != DONE and state.steps <= max_steps:
        if conduct.keep is not None:
            conduct.keep(Landmark(state.point.z, state.radius, state.steps))
        trial = None if reuse is None else reuse(state)
        state = step(evaluate, state) if trial is None else advance(state, trial)
        if _is_due(conduct.progress, last):
            last = time.monotonic()
            distance = np.sqrt(2 * state.newton.decrement)
            print(
                f"jaxmle.fit: step {int(state.steps)}, log-likelihood "
                f"{float(state.point.value):.8g}, about {float(distance):.2g} SE to go",
                file=sys.stderr,
            )
    return state


def _watched(slopes: Callable[[Array], Slope], conduct: Conduct) -> Callable[[Array], Slope]:
    """The pass for the score, which prints a line of progress after two seconds and keeps a
    landmark.
    """
    start = time.monotonic()

    def watched_pass(z: Array) -> Slope:
        slope = slopes(z)
        if conduct.keep is not None and np.isfinite(slope.value):
            conduct.keep(Landmark(z, np.asarray(0.0), np.asarray(0)))
        if _is_due(conduct.progress, start):
            print(
                f"jaxmle.fit: log-likelihood {float(slope.value):.8g}, from a pass for the score",
                file=sys.stderr,
            )
        return slope

    return watched_pass


def _is_due(progress: bool | None, last: float) -> bool:
    """Whether a line of progress is due, given the time of the ``last`` one."""
    if progress is None:
        return time.monotonic() - last > SECONDS_BETWEEN_LINES
    return progress


def _approach(passes: Passes, z: Array) -> tuple[ndarray, ndarray]:
    """A point near the maximum, reached by the problem's first-order method, and the number of its
    steps.
    """
    problem = passes.problem
    bare = problem.bare

    def make(loglik: Loglik) -> Function:
        def approach_from(base: Array, data: Data, z: Array) -> tuple[Array, Array]:
            rows = bare.block_rows
            return approached(bare, Objective(loglik, bare.chart, base, data, "observed", rows), z)

        return approach_from

    key = ("approach", problem.chart, problem.solver, problem.block_rows)
    near, steps = compiled(problem.loglik, key, make)(passes.base, passes.device_data, z)
    return np.array(near), np.array(steps)
