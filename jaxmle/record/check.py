"""``Fit.check``: return a converged fit, or raise an error that says which fits did not converge,
and why.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import numpy as np

from jaxmle._namespace import is_traced
from jaxmle._types import Array, ndarray
from jaxmle.solvers.status import Status
from jaxmle.tables.contents import Record

AnyRecord = TypeVar("AnyRecord", bound=Record)
MEMBERS_NAMED = 6  # members named for each status in the message


class FitError(ValueError):
    """A fit, or a member of a batch, did not converge; the message says which and why.

    Attributes:
        status: for one fit, its ``Status``; for a batch, the codes of the failed members, (k,).
        members: the indices of the failed members, (k,), in order; for a batch with several axes a
            tuple of such arrays, one for each axis; () for one fit. ``fits[error.members]`` is the
            failed part of a batch.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.record.check import FitError
    >>> logit = lambda params, y: y * params["a"] - jnp.logaddexp(0.0, params["a"])
    >>> try:
    ...     jm.fit(logit, {"a": 0.0}, np.ones(3)).check()  # successes only: a is infinite
    ... except FitError as error:
    ...     print(error.status.name)
    SEPARATED
    """

    def __init__(
        self,
        message: str,
        status: Array | None = None,
        members: ndarray | tuple[ndarray, ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.members = members


def check(fit: AnyRecord) -> AnyRecord:
    """The fit itself, where it, or every member of it, has converged.

    Raises:
        FitError: with the explanation of the fit; for a batch with counts by status and the
            explanation of one member of each.
        TypeError: under a trace.
    """
    outside_of_traces(fit, "check")
    status = np.asarray(fit.status)
    if np.all(status == int(Status.CONVERGED)):
        return fit
    record = jax.tree.map(np.asarray, fit)
    if not status.shape:
        raise FitError(record.explain(), record.verdict)
    members = np.nonzero(status != int(Status.CONVERGED))
    raise FitError(
        _failures(record, status, members),
        status[members],
        members[0] if status.ndim == 1 else members,
    )


def _failures(fit: Record, status: ndarray, members: tuple[ndarray, ...]) -> str:
    """Counts by status, the worst first, with the explanation of the first member of each: two
    lines for each status.
    """
    indices = np.stack(members, axis=1).tolist()
    codes = status[members]
    lines = [f"{len(indices)} of {_fits(status.size)} did not converge."]
    for code in np.unique(codes):
        these = [indices[i] for i in np.flatnonzero(codes == code)]
        listed = ["[" + ",".join(map(str, index)) + "]" for index in these[:MEMBERS_NAMED]]
        more = f" and {len(these) - MEMBERS_NAMED} more" if len(these) > MEMBERS_NAMED else ""
        lines.append(f"{Status(code).name}, {_fits(len(these))}: {', '.join(listed)}{more}.")
        lines.append(f"    {listed[0]} {fit[tuple(these[0])].explain()}")
    return "\n".join(lines)


def _fits(count: int) -> str:
    return f"{count} fit" if count == 1 else f"{count} fits"


def outside_of_traces(fit: Record, what: str) -> None:
    """Raise a ``TypeError`` if the fit's values are not known yet."""
    if any(is_traced(leaf) for leaf in jax.tree.leaves(fit)):
        raise TypeError(
            f"{what}() needs the values of the fit, which do not exist under a trace "
            "(jit, vmap, grad): call it outside, on the returned fit"
        )
