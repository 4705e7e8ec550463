"""The work of a fit, the same on both roads: climb, explore, judge, conclude, with the passes
over the data given as functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, Loglik, Tree
from jaxmle.fitting.objective import Objective, User
from jaxmle.fitting.user_scale import Reach, conclude, reach, record
from jaxmle.fitting.verdict import Limit, Verdict, explore, judge, root_of, survey
from jaxmle.likelihood.combinators import Penalize
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.histogram import uncounted
from jaxmle.likelihood.information.bias import Jeffreys
from jaxmle.likelihood.information.covariance import (
    LEVERAGED,
    Covariance,
    Kind,
    check_order,
    sandwich,
)
from jaxmle.likelihood.information.hac import hac
from jaxmle.likelihood.structure import chart_of, has, has_law, jeffreys_of, roots_of, weighting_of
from jaxmle.likelihood.terms import NO_LAW, Expected, expected_information, not_finite
from jaxmle.parameters.tree import Chart, Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled
from jaxmle.solvers.bfgs import Slope
from jaxmle.solvers.methods import Solver, choose
from jaxmle.solvers.status import Status
from jaxmle.solvers.trust_region import Point, State

# median deviations (at least of one unit of ℓ) by which the term of a collapsed component stands
# above the others
FAR_ABOVE = 8.0
# of a standard error that differences leave open: IMPRECISE beyond it, as for the distance to the
# maximum
SHARE_OF_STDERR_IN_DOUBT = 1e-3
SHARE_OF_STDERR_LOST = 0.1  # beyond this it is not given
NO_MEAT = 1e-18  # robust variance over the variance of the model, below which it is rounding
Climb = Callable[[Callable[[Array], Point], Array, int], State]


@dataclass(frozen=True)
class Problem:
    """A fit about to run: everything static about it."""

    loglik: Any
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
        """Without the likelihood: hashable, and it keeps nobody's function alive."""
        return replace(self, loglik=None)

    @property
    def neutral(self) -> Problem:
        """Without the likelihood and without what only names or widens the covariance: fits
        that differ in no more share their programs.
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


def pose(
    loglik: Any,
    layout: Layout,
    solver: Any,
    vcov: Kind | None,
    clusters: Any,
    max_steps: int,
    block_rows: int | None,
) -> Problem:
    """Everything static about a fit, checked."""
    roots = roots_of(loglik, layout)
    chart = chart_of(loglik, layout)
    if not chart.k:
        raise ValueError("every parameter is fixed: there is nothing to estimate")
    weighting = weighting_of(loglik)
    solver = choose(solver, chart.k)
    prior = jeffreys_of(loglik)
    if prior is not None:
        return _pose_jeffreys(
            prior, loglik, chart, solver, vcov, clusters, weighting, max_steps, block_rows, roots
        )
    if (vcov == "expected" or solver.curvature == "expected") and not has_law(loglik):
        raise ValueError(NO_LAW)
    kind = vcov
    if vcov == "auto":
        kind = (
            "cluster" if clusters is not None else "HC0" if weighting == "sampling" else "observed"
        )
    mode = "MAP" if has(loglik, Penalize) else "ML"
    kind = "CR1" if kind == "cluster" else hac() if kind == "hac" else kind
    check_order(kind, weighting)
    label = (
        f"{kind} (observed leverage)"
        if kind in LEVERAGED and not has_law(loglik)
        else None
        if kind is None
        else str(kind)
    )
    return Problem(
        loglik,
        chart,
        solver,
        kind,
        mode,
        weighting,
        max_steps,
        block_rows,
        tuple(int(r) for r in roots),
        label,
    )


def _pose_jeffreys(
    prior: Jeffreys,
    loglik: Any,
    chart: Chart,
    solver: Solver,
    vcov: Kind | None,
    clusters: Any,
    weighting: str,
    max_steps: int,
    block_rows: int | None,
    roots: np.ndarray,
) -> Problem:
    """A fit under Jeffreys's prior: the covariance is the inverse of the unpenalised
    information that the prior is made of.
    """
    if prior.information == "expected" and not has_law(loglik):
        raise ValueError(
            f"jeffreys: {NO_LAW}; or, where the observed information takes its place, "
            "jeffreys(loglik, information='observed')"
        )
    if vcov not in ("auto", prior.information, None) or clusters is not None:
        raise ValueError(
            "after jeffreys the covariance is the inverse of the unpenalised information, "
            f"vcov='auto'; got {'clusters' if clusters is not None else repr(vcov)}. Another "
            "kind at the estimate: fit.with_vcov(jaxmle.vcov(loglik, kind)(fit.params, data))"
        )
    if weighting == "sampling":
        raise ValueError(
            "jeffreys needs the information of a likelihood, and a sum under sampling weights is "
            "none; frequency weights are"
        )
    if chart.k != len(chart.moving):
        raise ValueError(
            "jeffreys needs as many free parameters as entries: no simplex, correlation or "
            "covariance among them"
        )
    kind, label = (
        (None, None) if vcov is None else ("expected", f"{prior.information} (unpenalised)")
    )
    mode = (
        "MPL (Jeffreys)"
        if prior.information == "expected"
        else "MPL (Jeffreys, observed information)"
    )
    return Problem(
        loglik,
        chart,
        solver,
        kind,
        mode,
        weighting,
        max_steps,
        block_rows,
        tuple(int(r) for r in roots),
        label,
    )


class Engine(NamedTuple):
    """The likelihood's passes over the data: compiled and returning NumPy on the host, plain
    functions under a trace.
    """

    evaluate: Callable[[Array], Point]
    slopes: Callable[[Array], Slope]  # of a declared regression alone
    expected: Callable[[Array], Expected]
    robust: Callable[[Array, Array, Array], Covariance]
    first_bad: Callable[[Array], Array]  # by the terms alone
    first_rough: Callable[[Array], Array]  # by terms and derivatives, row by row


def engine_of(
    problem: Problem, loglik: Loglik, base: Array, data: Tree, codes: tuple[Array, ...]
) -> Engine:
    """The passes as plain functions of ``loglik``; its histograms are for the sums over the
    rows.
    """
    layout = problem.layout
    objective = Objective(
        loglik, problem.chart, base, data, problem.solver.curvature, problem.block_rows
    )
    loglik = uncounted(loglik)
    return Engine(
        evaluate=objective,
        slopes=objective.slopes,
        expected=lambda x: expected_information(loglik, layout, x, data),
        robust=lambda x, jacobian, root: sandwich(
            loglik, layout, x, data, root, jacobian, problem.kind or "observed", codes
        ),
        first_bad=lambda x: _first_bad_term(loglik, layout, x, data),
        first_rough=lambda x: _first(not_finite(loglik, layout, x, data)),
    )


def compiled_pass(problem: Problem, name: str) -> Callable[..., Any]:
    """One pass of the engine as a program of (base, data, codes, *arguments), compiled once on
    the user's function for all who ask for it.
    """
    bare = problem.bare  # a compiled piece must not keep the user's function alive

    def make(loglik: Loglik) -> Callable[..., Any]:
        return lambda base, data, codes, *args: getattr(
            engine_of(bare, loglik, base, data, codes), name
        )(*args)

    return compiled(
        problem.loglik,
        (name, problem.chart, problem.solver.curvature, problem.block_rows, problem.kind),
        make,
    )


def _first_bad_term(loglik: Loglik, layout: Layout, x: Array, data: Tree) -> Array:
    """The first term that is not finite, or the one that stands far above all others; −1 where
    there is none or there are no terms.
    """
    terms = jnp.atleast_1d(terms_of(loglik, layout.unravel(x), data))
    bad = ~jnp.isfinite(terms)
    top = jnp.max(terms)
    middle = jnp.median(terms)
    spread = jnp.median(jnp.abs(terms - middle))
    alone = (terms > middle + FAR_ABOVE * jnp.maximum(spread, 1.0)) & (terms >= top)
    return jnp.where(
        (terms.shape[0] > 2) & jnp.any(bad | alone),
        jnp.where(jnp.any(bad), jnp.argmax(bad), jnp.argmax(alone)),
        -1,
    )


def _first(bad: Array) -> Array:
    """The first row that is so; −1 where there is none or there are no rows."""
    return jnp.where((bad.shape[0] > 1) & jnp.any(bad), jnp.argmax(bad), -1)


def search(
    climb: Climb, evaluate: Callable[[Array], Point], problem: Problem, base: Array, z: Array
) -> tuple[Verdict, Reach]:
    """Climb, explore, judge."""
    state = climb(evaluate, z, problem.max_steps)
    return verdict_of(problem, base, state, explore(evaluate, state, problem.chart.bent))


def verdict_of(problem: Problem, base: Array, state: State, limit: Limit) -> tuple[Verdict, Reach]:
    """The verdict at the end of a climb and its excursion."""
    spectrum = survey(state, limit)
    reached = reach(problem.chart, base, state, limit, spectrum)
    return judge(state, limit, spectrum, reached.only_bounds), reached


class Extra(NamedTuple):
    """What of a covariance takes another pass over the data."""

    vcov: Array  # (p, p)
    row: Array  # the row whose leverage is one, or −1
    error: Array  # (p,) Monte-Carlo error of the standard errors


def bread(point: Point, verdict: Verdict) -> Array:
    """U (k, k) with UU' the inverse observed information on what is estimable."""
    return root_of(-0.5 * (point.hessian + point.hessian.T), verdict.scale, verdict.null)


def plain(problem: Problem, point: Point, verdict: Verdict, root: Array) -> Extra:
    """The covariance that needs no further pass: the inverse observed information from its root
    (k, k), or none.
    """
    xp = namespace(point.z)
    user = point.aux
    kind = problem.kind
    lift = (
        xp.diagonal(user.jacobian)[:, None] * root
        if problem.chart.is_entrywise
        else user.jacobian @ root
    )
    vcov = lift @ lift.T
    return Extra(vcov * xp.nan if kind is None else vcov, xp.asarray(-1), xp.zeros_like(user.x))


def _meaningful(vcov: Array, lift: Array) -> Array:
    """A robust covariance (p, p), NaN where it is none: the scores of a saturated fit are
    rounding, one cluster has no variance.
    """
    xp = namespace(lift)
    ratio = xp.diagonal(vcov) / xp.maximum(xp.sum(lift**2, axis=1), xp.finfo(lift.dtype).tiny)
    none = ~((ratio > NO_MEAT) & (ratio < 1 / NO_MEAT)) & (xp.sum(lift**2, axis=1) > 0)
    return xp.where(none[:, None] | none[None, :], xp.nan, vcov)


def beyond(kind: Kind | None, engine: Engine, point: Point, verdict: Verdict) -> Extra:
    """The expected information, or a sandwich."""
    user: User = point.aux
    if kind != "expected":
        root = bread(point, verdict)
        vcov, row = engine.robust(user.x, user.jacobian, root)
        return Extra(
            _meaningful(vcov, user.jacobian @ root), row, namespace(point.z).zeros_like(user.x)
        )
    found = engine.expected(user.x)
    root = root_of(user.jacobian.T @ found.information @ user.jacobian, verdict.scale, verdict.null)
    lift = user.jacobian @ root
    return Extra(
        lift @ lift.T, namespace(point.z).asarray(-1), found.stderr_error(root, user.jacobian)
    )


def needs_pass(kind: Kind | None) -> bool:
    """Whether this kind of covariance takes another pass over the data."""
    return kind not in ("observed", None)


def complete(
    problem: Problem,
    engine: Engine,
    base: Array,
    verdict: Verdict,
    reached: Reach,
    point: Point,
    n: Array,
    data_id: Array,
    extra_steps: Array,
) -> Fit:
    """Covariance and record at the end of a search."""
    extra = (
        beyond(problem.kind, engine, point, verdict)
        if needs_pass(problem.kind)
        else plain(problem, point, verdict, bread(point, verdict))
    )
    failed = (verdict.status == Status.NONFINITE) | (verdict.status == Status.UNBOUNDED)
    if not isinstance(point.z, np.ndarray):
        row = jnp.where(failed, engine.first_bad(point.aux.x), extra.row)
        extra = extra._replace(row=row)
    elif failed:
        asked = engine.first_rough if verdict.status == Status.NONFINITE else engine.first_bad
        extra = extra._replace(row=asked(point.aux.x))
    return finish(problem, base, verdict, reached, point, extra, n, data_id, extra_steps)


def _with_error(problem: Problem, verdict: Verdict, extra: Extra) -> tuple[Verdict, Extra]:
    """The same with the measured error of a Hessian by differences: in the standard errors, the
    digits and the status.

    To first order dJ⁻¹ = −J⁻¹(dJ)J⁻¹, and the bread stands twice in a sandwich.
    """
    how = verdict.point.aux.hessian_by
    if how is None or how.error is None or problem.kind is None:
        return verdict, extra
    xp = namespace(verdict.point.z)
    point = verdict.point
    inverse = plain(replace(problem, kind="observed"), point, verdict, bread(point, verdict)).vcov
    variance = xp.diagonal(extra.vcov)
    moved = xp.diagonal(xp.abs(inverse) @ how.error @ xp.abs(extra.vcov))
    breads = 0.5 if problem.kind in ("observed", "expected") else 1.0
    share = xp.where(variance > 0, breads * moved / xp.where(variance > 0, variance, 1.0), 0.0)
    worst = xp.max(xp.where(xp.isfinite(share), share, 0.0))
    doubtful = (verdict.status == Status.CONVERGED) & (worst > SHARE_OF_STDERR_IN_DOUBT)
    lost = (share > SHARE_OF_STDERR_LOST) | xp.isnan(share)
    gone = lost[:, None] | lost[None, :]
    digits = -xp.log10(xp.maximum(worst, xp.finfo(variance.dtype).tiny))
    return (
        verdict._replace(
            status=xp.where(doubtful, int(Status.IMPRECISE), verdict.status),
            digits=xp.where(doubtful, xp.minimum(digits, verdict.digits), verdict.digits),
        ),
        extra._replace(
            vcov=xp.where(gone, xp.nan, extra.vcov),
            error=extra.error + share * xp.sqrt(xp.where(variance > 0, variance, 0.0)),
        ),
    )


def finish(
    problem: Problem,
    base: Array,
    verdict: Verdict,
    reached: Reach,
    point: Point,
    extra: Extra,
    n: Array,
    data_id: Array,
    extra_steps: Array,
) -> Fit:
    """The record; no likelihood is needed any more."""
    verdict, extra = _with_error(problem, verdict._replace(point=point), extra)
    ending = conclude(
        problem.chart, np.array(problem.roots), verdict, reached, point.aux, base, extra.vcov
    )
    return record(
        problem.chart,
        verdict,
        point.aux,
        ending,
        n=n,
        row=extra.row,
        error=extra.error,
        extra_steps=extra_steps,
        data_id=data_id,
        kind=problem.label,
        mode=problem.mode,
        weighting=problem.weighting,
    )
