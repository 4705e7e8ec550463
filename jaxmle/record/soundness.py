"""Whether a record can belong to a fit: its status is known, and a converged fit has estimates, a
log-likelihood and a covariance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import jax
import numpy as np

from jaxmle._types import Array, Integer, Tree, ndarray
from jaxmle.parameters.arguments import shown
from jaxmle.solvers.status import Status
from jaxmle.tables.contents import Record

# A covariance computed in float32 is symmetric, and positive, to about 1e-6 of its diagonal.
MAX_ASYMMETRY = 1e-5
MAX_NEGATIVE_EIGENVALUE = 1e-5


def check_sound(fit: Record) -> None:
    """Raise ``ValueError``, with the reason, if a NumPy record cannot belong to a fit."""
    if not np.isin(fit.status, [int(status) for status in Status]).all():
        raise ValueError("it has a status that this version of jaxmle does not know")
    p = len(fit.names)
    count = math.prod(fit.batch_shape)
    converged = np.reshape(fit.converged, count)
    vcov = np.asarray(fit.vcov, float).reshape(count, p, p)
    finite = np.isfinite(np.reshape(fit.loglik, count))
    _refuse(fit, converged & ~finite, "the log-likelihood is not finite")
    for leaf in jax.tree.leaves(fit.params):
        finite = np.isfinite(leaf).reshape(count, math.prod(np.shape(leaf)[len(fit.batch_shape) :]))
        _refuse(fit, converged & ~finite.all(axis=1), "an estimate is not finite")
    # Rounding errors of an inverse grow with the condition of the information: a third of the
    # digits is far more than these.
    rounding = float(np.finfo(fit.vcov.dtype).eps) ** (1 / 3)
    _check_covariance(fit, converged, vcov, rounding)


def _check_covariance(fit: Record, converged: ndarray, vcov: ndarray, rounding: float) -> None:
    """Raise unless the covariance of a converged fit with standard errors is finite, symmetric and
    positive semi-definite.
    """
    variance = np.diagonal(vcov, axis1=1, axis2=2)
    with np.errstate(invalid="ignore"):
        _refuse(fit, converged & (variance < 0).any(axis=1), "a variance is negative")
    known = ~np.isnan(variance)
    pairs = known[:, :, None] & known[:, None, :]
    absent = converged & (pairs & ~np.isfinite(vcov)).any(axis=(1, 2))
    _refuse(fit, absent, "the covariance is not finite where there are standard errors")
    block = np.where(pairs & converged[:, None, None], vcov, 0.0)
    scale = np.sqrt(np.diagonal(block, axis1=1, axis2=2))
    scale = np.where(scale > 0, scale, 1.0)
    correlation = block / scale[:, :, None] / scale[:, None, :]
    gap = np.abs(correlation - np.swapaxes(correlation, 1, 2))
    _refuse(fit, np.any(gap > rounding, axis=(1, 2)), "the covariance is not symmetric")
    if not fit.vcov_kind.startswith("CR"):  # a two-way clustered one is a difference of covariances
        indefinite = _indefinite(correlation, rounding)
        _refuse(fit, indefinite, "the covariance is not positive semi-definite")


def _indefinite(correlation: ndarray, rounding: float) -> ndarray:
    """Which matrices (b, p, p) have an eigenvalue below zero by more than rounding."""
    try:
        np.linalg.cholesky(correlation + rounding * np.eye(correlation.shape[-1]))
    except np.linalg.LinAlgError:  # a pivot below zero, perhaps by rounding
        return np.linalg.eigvalsh(correlation).min(axis=1, initial=0.0) < -rounding
    return np.zeros(len(correlation), bool)


def _refuse(fit: Record, wrong: Array, what: str) -> None:
    """Raise for the first member that is wrong."""
    if not np.any(wrong):
        return
    member = np.unravel_index(int(np.argmax(wrong)), fit.batch_shape) if fit.batch_shape else ()
    where = f" of member {_place(member)}" if member else ""
    raise ValueError(f"its status{where} is CONVERGED, but {what}")


def _place(index: Iterable[Integer]) -> str:
    return "[" + ", ".join(str(int(i)) for i in index) + "]"


def check_covariance(vcov: Tree, shape: tuple[int, ...], se: Array) -> Array:
    """Raise unless a covariance (…, p, p) is real, symmetric and without a negative variance in any
    direction. Entries without an estimate, or without a variance at all, are NaN in whole rows and
    columns.

    Args:
        shape: the expected shape.
        se: standard errors of the fit, (…, p); NaN if there is no estimate.
    """
    array = np.asarray(vcov)
    if isinstance(vcov, np.ma.MaskedArray) or array.dtype.kind not in "fiu":
        raise TypeError(f"the covariance must be a matrix of real numbers; got {shown(vcov)}")
    if array.shape != shape:
        raise ValueError(
            f"the covariance must have shape {shape}, in the order of names; got {array.shape}"
        )
    has_stderr = np.isfinite(np.asarray(se)).reshape(-1, shape[-1])
    matrices = array.reshape(-1, *shape[-2:]).astype(float)
    for member, (matrix, live) in enumerate(zip(matrices, has_stderr, strict=True)):
        wrong = _not_a_covariance(matrix[np.ix_(live, live)])
        if wrong:
            where = f" of member {member}" if len(shape) > 2 else ""
            raise ValueError(f"the covariance{where} {wrong}")
    return vcov


def _not_a_covariance(matrix: ndarray) -> str:
    """Why a matrix is not a covariance; "" if it is one."""
    known = ~np.isnan(np.diagonal(matrix))
    part = matrix[np.ix_(known, known)]
    if not np.all(np.isfinite(part)) or not np.all(np.isnan(matrix[~known])):
        return "is not finite: an entry without a variance is NaN in its whole row and column"
    if not part.size:
        return ""
    scale = np.sqrt(np.maximum(np.diagonal(part), 0.0))
    if np.any(np.diagonal(part) < 0):
        return f"has the negative variance {np.min(np.diagonal(part)):g}"
    unit = part / np.where(scale > 0, scale, 1.0)[:, None] / np.where(scale > 0, scale, 1.0)
    if np.any(np.abs(unit - unit.T) > MAX_ASYMMETRY):
        return "is not symmetric"
    lowest = float(np.min(np.linalg.eigvalsh(0.5 * (unit + unit.T))))
    if lowest < -MAX_NEGATIVE_EIGENVALUE:
        return (
            "is indefinite: a combination of the parameters would have a negative variance (its "
            f"correlation matrix has the eigenvalue {lowest:.3g})"
        )
    return ""
