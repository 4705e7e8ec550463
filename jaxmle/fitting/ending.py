"""The end of a fit: the covariance of its verdict, and the record of both.

Like the search, these are the same functions on the host and under a trace.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, Loglik
from jaxmle.families.family import Family
from jaxmle.fitting.objective import UserScale
from jaxmle.fitting.passes import Passes, Problem, needs_pass
from jaxmle.fitting.user_scale import EndPoint, conclude, record
from jaxmle.likelihood.information.covariance import Kind
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.opaque import Opaque
from jaxmle.solvers.leading_axes import diagonal, members_of, product, symmetric, transposed
from jaxmle.solvers.rare_branches import any_member
from jaxmle.solvers.state import Point
from jaxmle.solvers.status import Status, is_one_of
from jaxmle.verdict.judge import Verdict, root_in_batch, root_of
from jaxmle.verdict.limit import is_at_kink

# of a standard error that differences leave open: IMPRECISE beyond it, as for the distance to the
# maximum
SHARE_OF_STDERR_IN_DOUBT = 1e-3
SHARE_OF_STDERR_LOST = 0.1  # beyond this it is not given
# robust variance over the variance of the model, below which it is rounding
MIN_VARIANCE_RATIO = 1e-18


class CovarianceParts(NamedTuple):
    """A covariance, with what is known about how it was computed."""

    vcov: Array  # (p, p, ...)
    row: Array  # the row whose leverage is one, or −1
    error: Array  # (p, ...) Monte-Carlo error of the standard errors


def bread(point: Point, verdict: Verdict) -> Array:
    """The root U (k, k, ...) of UU', the inverse observed information on what is estimable."""
    root = root_in_batch if isinstance(point.z, np.ndarray) else root_of
    return root(-symmetric(point.hessian), verdict.scale, verdict.null)


def observed_covariance(
    problem: Problem, point: Point, verdict: Verdict, root: Array
) -> CovarianceParts:
    """The covariance that needs no further pass over the data: the inverse observed information
    from its root (k, k, ...), or none.
    """
    xp = namespace(point.z)
    user = point.aux
    kind = problem.kind
    if problem.chart.is_entrywise:
        lift = diagonal(user.jacobian)[:, None] * root
    else:
        lift = product(user.jacobian, root)
    vcov = product(lift, transposed(lift))
    no_row = xp.full(members_of(user.x), -1)
    return CovarianceParts(vcov * xp.nan if kind is None else vcov, no_row, xp.zeros_like(user.x))


def _meaningful(vcov: Array, lift: Array) -> Array:
    """A robust covariance (p, p), NaN where it means nothing: the scores of a saturated fit are
    rounding, and a single cluster has no variance.
    """
    xp = namespace(lift)
    ratio = xp.diagonal(vcov) / xp.maximum(xp.sum(lift**2, axis=1), xp.finfo(lift.dtype).tiny)
    none = ~((ratio > MIN_VARIANCE_RATIO) & (ratio < 1 / MIN_VARIANCE_RATIO)) & (
        xp.sum(lift**2, axis=1) > 0
    )
    return xp.where(none[:, None] | none[None, :], xp.nan, vcov)


def robust_covariance(passes: Passes, point: Point, verdict: Verdict) -> CovarianceParts:
    """The covariance that takes another pass over the data: from the expected information, or a
    sandwich.
    """
    user: UserScale = point.aux
    xp = namespace(point.z)
    if passes.problem.kind == "expected":
        expected = passes.expected(user.x)
        information = user.jacobian.T @ expected.information @ user.jacobian
        root = root_of(information, verdict.scale, verdict.null)
        lift = user.jacobian @ root
        error = expected.stderr_error(root, user.jacobian)
        return CovarianceParts(lift @ lift.T, xp.asarray(-1), error)
    root = bread(point, verdict)
    vcov, row = passes.robust(user.x, user.jacobian, root)
    return CovarianceParts(_meaningful(vcov, user.jacobian @ root), row, xp.zeros_like(user.x))


def complete(
    passes: Passes,
    verdict: Verdict,
    reached: EndPoint,
    point: Point,
    n: Array,
    data_id: Array,
    extra_steps: Array,
) -> Fit:
    """Covariance and record at the end of a search."""
    problem = passes.problem
    if needs_pass(problem.kind):
        parts = robust_covariance(passes, point, verdict)
    else:
        parts = observed_covariance(problem, point, verdict, bread(point, verdict))
    family = family_of(problem.loglik, problem.kind)
    if family is not None and verdict.kink is not None:
        verdict, vcov = by_family(family, problem.layout, verdict, point, n, parts.vcov)
        parts = parts._replace(vcov=vcov)
    if isinstance(point.z, np.ndarray):
        row = _failing_row(passes, verdict, point, parts.row)
    else:
        failed = is_one_of(verdict.status, Status.NONFINITE, Status.UNBOUNDED)
        row = _row_where(failed, passes, point.aux.x, parts.row)
    parts = parts._replace(row=row)
    return finish(problem, passes.base, verdict, reached, point, parts, n, data_id, extra_steps)


def _failing_row(passes: Passes, verdict: Verdict, point: Point, row: Array) -> Array:
    """On the host, the row at which a search failed or at which its tail was NaN further out, else
    ``row``.
    """
    nonfinite = is_one_of(verdict.status, Status.NONFINITE)
    met_nan = not np.isnan(verdict.nan_point[0])
    if met_nan and (nonfinite or is_one_of(verdict.status, Status.SEPARATED)):
        return passes.first_rough(passes.problem.chart.to_user(verdict.nan_point, passes.base))
    if nonfinite:
        return passes.first_rough(point.aux.x)
    if not is_one_of(verdict.status, Status.UNBOUNDED):
        return row
    grown = passes.first_bad(point.aux.x)
    return grown if grown >= 0 else passes.sharpest(point.aux.x)


def _row_where(failed: Array, passes: Passes, x: Array, row: Array) -> Array:
    """Under a trace, the row that made a search fail where it ``failed``, else ``row``. The row is
    looked for only if the search of some member failed.
    """
    x = jax.lax.stop_gradient(x)

    def first_bad() -> Array:
        return jnp.where(failed, passes.first_bad(x), row).astype(jnp.int32)

    row = jnp.asarray(row, jnp.int32)
    return jax.lax.cond(any_member(failed), first_bad, lambda: row)


def _with_error(
    problem: Problem, verdict: Verdict, parts: CovarianceParts
) -> tuple[Verdict, CovarianceParts]:
    """Verdict and covariance with the measured error of a Hessian by differences: in the standard
    errors, the digits and the status.

    To first order dJ⁻¹ = −J⁻¹(dJ)J⁻¹, and the bread stands twice in a sandwich.
    """
    differences = verdict.point.aux.hessian_by
    if differences is None or differences.error is None or problem.kind is None:
        return verdict, parts
    xp = namespace(verdict.point.z)
    point = verdict.point
    inverse = observed_covariance(
        replace(problem, kind="observed"), point, verdict, bread(point, verdict)
    ).vcov
    variance = diagonal(parts.vcov)
    moved = product(product(xp.abs(inverse), differences.error), xp.abs(parts.vcov))
    moved = diagonal(moved)
    breads = 0.5 if problem.kind in ("observed", "expected") else 1.0
    share = xp.where(variance > 0, breads * moved / xp.where(variance > 0, variance, 1.0), 0.0)
    worst = xp.max(xp.where(xp.isfinite(share), share, 0.0), axis=0)
    doubtful = is_one_of(verdict.status, Status.CONVERGED) & (worst > SHARE_OF_STDERR_IN_DOUBT)
    is_lost = (share > SHARE_OF_STDERR_LOST) | xp.isnan(share)
    gone = is_lost[:, None] | is_lost[None, :]
    digits = -xp.log10(xp.maximum(worst, xp.finfo(variance.dtype).tiny))
    return (
        verdict._replace(
            status=xp.where(doubtful, int(Status.IMPRECISE), verdict.status),
            digits=xp.where(doubtful, xp.minimum(digits, verdict.digits), verdict.digits),
        ),
        parts._replace(
            vcov=xp.where(gone, xp.nan, parts.vcov),
            error=parts.error + share * xp.sqrt(xp.where(variance > 0, variance, 0.0)),
        ),
    )


def finish(
    problem: Problem,
    base: Array,
    verdict: Verdict,
    reached: EndPoint,
    point: Point,
    parts: CovarianceParts,
    n: Array,
    data_id: Array,
    extra_steps: Array,
) -> Fit:
    """The record of a verdict and its covariance, without evaluating the likelihood again."""
    verdict, parts = _with_error(problem, verdict._replace(point=point), parts)
    ending = conclude(
        problem.chart, np.array(problem.roots), verdict, reached, point.aux, parts.vcov
    )
    return record(
        problem.chart,
        verdict,
        point.aux,
        ending,
        n=n,
        row=parts.row,
        error=parts.error,
        extra_steps=extra_steps,
        data_id=data_id,
        kind=problem.label,
        mode=problem.mode,
        weighting=problem.weighting,
    )


# ---------------------------------------------------------------- at a kink

# The Hessian knows nothing of the density there: standard errors are from the expected information
# of a family that gives it, as 1/(2 f(m) √n) for the median of a Laplace sample.


def family_of(loglik: Loglik, kind: Kind | None) -> Family | None:
    """The family that the likelihood is, if it has an expected information and a model-based
    covariance is asked for; otherwise None.
    """
    family = loglik.function if isinstance(loglik, Opaque) else None
    if kind != "observed" or not isinstance(family, Family) or family.law.information is None:
        return None
    return family


def by_family(
    family: Family, layout: Layout, verdict: Verdict, point: Point, n: Array, vcov: Array
) -> tuple[Verdict, Array]:
    """The verdict and the covariance (p, p) of n rows; at a kink, the covariance comes from the
    family's expected information.
    """
    xp = namespace(point.z)
    user = point.aux
    each = xp.asarray(family.information(layout.unravel(user.x)))
    information = user.jacobian.T @ (n * each) @ user.jacobian
    expected = user.jacobian @ xp.linalg.inv(information) @ user.jacobian.T
    kinked = is_at_kink(verdict)
    return (
        verdict._replace(null=xp.where(kinked, 0.0, verdict.null)),
        xp.where(kinked, expected, vcov),
    )
