"""The covariance of a function of the estimates: the delta method, if some directions have no
estimate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.record.fit import Fit
from jaxmle.solvers.status import Status

MAX_SHARE_OUTSIDE = 1e-6  # of a gradient, outside the estimable space, up to which it is rounding


class Propagated(NamedTuple):
    """Covariance (q, q) and standard errors (q,) of a function; ``leaks`` (q,) says where it leaves
    the estimable space and so has none.
    """

    vcov: Array
    stderr: Array
    leaks: Array


def propagated(fit: Fit, jacobian: Array) -> Propagated:
    """G V G' for the Jacobian G (q, p) of a function of the printed entries of one fit.

    A row that leaves the estimable space is NaN, as is a negative variance. The variance of a
    constant, such as the sum of a simplex, is zero up to rounding.
    """
    xp = namespace(jacobian)
    # An entry that the function does not use may be NaN or infinite without affecting it.
    used = xp.any(jacobian != 0, axis=0)
    vcov = xp.where(used[:, None] & used[None, :], xp.asarray(fit.witness.vcov), 0.0)
    outside = xp.linalg.norm(jacobian @ xp.asarray(fit.witness.projector), axis=1)
    leaks = outside > MAX_SHARE_OUTSIDE * xp.linalg.norm(jacobian, axis=1)
    covariance = jacobian @ vcov @ jacobian.T
    covariance = xp.where(leaks[:, None] | leaks[None, :], xp.nan, covariance)
    variance = xp.diagonal(covariance)
    size = xp.diagonal(xp.abs(jacobian) @ xp.abs(vcov) @ xp.abs(jacobian).T)
    noise = 8 * xp.finfo(jacobian.dtype).eps * size
    variance = xp.where(xp.abs(variance) <= noise, 0.0 * variance, variance)
    return Propagated(covariance, xp.sqrt(xp.where(variance >= 0, variance, xp.nan)), leaks)


class PropagatedRows(NamedTuple):
    """Standard errors (m,) of many functions, and where they leave the estimable space."""

    stderr: Array
    leaks: Array


def propagated_rows(fit: Fit, jacobian: Array) -> PropagatedRows:
    """The standard errors of ``propagated`` alone, for too many functions (m, p) for their
    covariance (m, m); in NumPy.
    """
    vcov = np.asarray(fit.witness.vcov)
    unknown = np.isnan(vcov)
    known = np.where(unknown, 0.0, vcov)
    outside = np.linalg.norm(jacobian @ np.asarray(fit.witness.projector), axis=1)
    leaks = outside > MAX_SHARE_OUTSIDE * np.linalg.norm(jacobian, axis=1)
    variance = np.sum((jacobian @ known) * jacobian, axis=1)
    size = np.sum((np.abs(jacobian) @ np.abs(known)) * np.abs(jacobian), axis=1)
    variance = np.where(np.abs(variance) <= 8 * np.finfo(jacobian.dtype).eps * size, 0.0, variance)
    used = (jacobian != 0).astype(jacobian.dtype)
    # A saturated value, such as a probability of 1, has no variance to report.
    lost = leaks | (np.sum((used @ unknown) * used, axis=1) > 0) | ~(variance > 0)
    return PropagatedRows(np.sqrt(np.where(lost, np.nan, variance)), leaks)


def finite_point(fit: Fit) -> Array:
    """The estimate (…, p); for a separated fit the finite point at which the likelihood is at its
    limit, so that combinations of infinite estimates that the data determine have their value.
    """
    xp = namespace(fit.loglik)
    known = (fit.status == int(Status.SEPARATED))[..., None] & xp.isfinite(fit.witness.point)
    return xp.where(xp.all(known, axis=-1, keepdims=True), fit.witness.point, fit.x)
