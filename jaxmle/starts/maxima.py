"""The distinct maxima among many converged fits, the highest first."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from jaxmle._types import Array, ndarray
from jaxmle.record.fit import Fit
from jaxmle.solvers.status import Status
from jaxmle.starts.symmetry import relabelled

# standard errors; ascents end 1.4e-9 of them from their maximum, and no data tell maxima this near
# apart
MAX_DISTANCE_OF_EQUAL_MAXIMA = 1e-3
MAX_GAP_OF_EQUAL_MAXIMA = 1e-6  # of max(1, |ℓ|)


@dataclass(frozen=True, eq=False)
class Maximum:
    """A maximum of the likelihood, and the starts that end there.

    ``fit`` is the one of their fits that is nearest to it, by its decrement, ``loglik`` the highest
    of theirs, ``gap`` ≥ 0 how far that lies below the best, ``share`` the share of all starts that
    end there, ``members`` (m,) their places among the starts.
    """

    fit: Fit = field(repr=False)
    loglik: float
    gap: float
    share: float
    members: ndarray = field(repr=False)


def is_level(maximum: Maximum) -> bool:
    """Whether a maximum is as high as the best."""
    return maximum.gap < MAX_GAP_OF_EQUAL_MAXIMA * max(1.0, abs(maximum.loglik))


def distinct_maxima(fits: Fit, blocks: list[ndarray]) -> tuple[Maximum, ...]:
    """The distinct ends of the converged fits, the highest first."""
    loglik = np.asarray(fits.loglik, dtype=float)
    x = fits.x
    scale = _scales(fits)
    converged = np.flatnonzero(fits.converged)
    leads: list[int] = []
    members: list[list[int]] = []
    for i in converged[np.argsort(-loglik[converged], kind="stable")].tolist():
        level = np.flatnonzero(
            loglik[leads] - loglik[i]
            < MAX_GAP_OF_EQUAL_MAXIMA * np.maximum(1.0, np.abs(loglik[leads]))
        )
        same = next(
            (m for m in level.tolist() if _same(x[i], x[leads[m]], scale[leads[m]], blocks)), None
        )
        if same is None:
            leads.append(i)
            members.append([i])
        else:
            members[same].append(i)
    top = loglik[leads[0]] if leads else np.nan
    # Which end of one maximum is the highest, rounding decides; which is nearest to it, the
    # decrement says.
    nearest = [ends[int(np.argmin(fits.decrement[ends]))] for ends in members]
    return tuple(
        Maximum(
            fits[i],
            float(loglik[lead]),
            float(top - loglik[lead]),
            len(ends) / len(fits),
            np.sort(np.array(ends)),
        )
        for i, lead, ends in zip(nearest, leads, members, strict=True)
    )


def _scales(fits: Fit) -> ndarray:
    """The standard error of each entry, (b, p); 1/√|H_jj| where there is none (``vcov=None``,
    an entry that is fixed).
    """
    x = fits.x
    se = fits.se
    curvature = np.abs(np.diagonal(fits.hessian, axis1=-2, axis2=-1))
    seen = np.isfinite(curvature) & (curvature > 0)
    conditional = np.where(
        seen, 1.0 / np.sqrt(np.where(seen, curvature, 1.0)), np.maximum(1.0, np.abs(x))
    )
    return np.where(np.isfinite(se) & (se > 0), se, conditional)


def _same(x: Array, lead: Array, scale: ndarray, blocks: list[ndarray]) -> bool:
    """Whether two ends are one maximum, with labels exchanged where they may be."""
    for block in blocks:
        x = relabelled(x, lead, scale, block)
    return bool(np.all(np.abs(x - lead) < MAX_DISTANCE_OF_EQUAL_MAXIMA * scale))


def least_bad(fits: Fit) -> int:
    """Where none converged: a start that shows the likelihood unbounded, else the last in the
    order of ``Status``, then the highest.
    """
    loglik = np.where(np.isnan(fits.loglik), -np.inf, fits.loglik)
    endless = np.flatnonzero(fits.status == Status.UNBOUNDED)
    return int(endless[0]) if endless.size else int(np.lexsort((loglik, fits.status))[-1])
