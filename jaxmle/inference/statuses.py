"""The statuses of a fit that decide which procedures it allows."""

from __future__ import annotations

from jaxmle.solvers.status import Status

REGULAR_STATUSES = (Status.CONVERGED, Status.IMPRECISE)
# ℓ is the supremum, and df counts the directions that the likelihood determines.
STATUSES_WITH_SUPREMUM = (*REGULAR_STATUSES, Status.BOUNDARY, Status.SEPARATED)
# There is an estimate, of some combinations at least; the witness says of which.
STATUSES_WITH_ESTIMATE = (*STATUSES_WITH_SUPREMUM, Status.UNIDENTIFIED, Status.SINGULAR)
STATUSES_WITHOUT_ESTIMATE = tuple(
    status for status in Status if status not in STATUSES_WITH_ESTIMATE
)
