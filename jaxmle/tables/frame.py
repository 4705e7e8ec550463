"""A fit as a tidy data frame: a row per parameter, or per member and parameter of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from jaxmle._types import DataFrame, Tree
from jaxmle.parameters.arguments import check_choice
from jaxmle.solvers.status import Status
from jaxmle.tables.contents import Record
from jaxmle.tables.view import View

BACKENDS = ("pandas", "polars", "pyarrow")
INSTALL_FRAME = 'pip install "jaxmle[frame]"'


def frame(fit: Record, view: View | float = 0.95, backend: str | None = None) -> DataFrame:
    """A tidy data frame of the estimates, in full precision; the column names are those of R's
    broom.

    Args:
        fit: the record of one fit or of a batch.
        view: what is shown, or only the coverage of the Wald intervals.
        backend: "pandas", "polars" or "pyarrow"; by default the first of them that is installed.

    Returns:
        A native frame with the columns term, estimate, std_error, statistic (the z value), p_value,
        conf_low and conf_high, p rows; for a batch of b members, members in order, b·p rows and two
        leading columns: member (counted over all batch axes) and status. NaN in the record is NaN
        here.

    Raises:
        ImportError: if narwhals or the backend is not installed.
        ValueError: for any other backend.
    """
    return native(columns(fit, view if isinstance(view, View) else View(view)), backend)


def native(columns: Mapping[str, Tree], backend: str | None) -> DataFrame:
    """Columns (rows,) by name as a native frame, or as a dictionary of arrays for "dict"."""
    if isinstance(backend, str) and backend == "dict":
        return {name: np.asarray(values) for name, values in columns.items()}
    chosen = installed(backend)
    try:
        narwhals = import_module("narwhals")
    except ImportError as error:
        raise ImportError(f"a data frame needs narwhals: {INSTALL_FRAME}") from error
    lists = {
        name: values.tolist() if np.asarray(values).dtype.kind in "UO" else values
        for name, values in ((name, np.asarray(values)) for name, values in columns.items())
    }
    return narwhals.from_dict(lists, backend=chosen).to_native()


def installed(backend: str | None) -> str:
    """The requested backend, or the first that is installed; raises an error that says what to
    install if there is none.
    """
    if backend is not None:
        check_choice("backend", backend, BACKENDS)
    chosen = next(
        (name for name in BACKENDS if backend in (None, name) and find_spec(name) is not None), None
    )
    if chosen is None:
        wanted = backend or f"one of {', '.join(BACKENDS)}"
        raise ImportError(
            f"a data frame needs {wanted}, which is not installed: {INSTALL_FRAME}"
            + f" or pip install {backend}" * bool(backend)
        )
    return chosen


def columns(fit: Record, view: View) -> dict[str, Tree]:
    """The columns of the frame by name, each with one value for each shown parameter and each
    member of a batch.
    """
    members = int(np.prod(fit.batch_shape, dtype=int))
    names = view.names(fit)
    tidy = {"term": names * members} | {
        name: values.reshape(-1) for name, values in view.numbers(fit).items()
    }
    if fit.batch_shape == ():
        return tidy
    return _member_columns(fit, members, len(names)) | tidy


def _member_columns(fit: Record, members: int, p: int) -> dict[str, Tree]:
    status = [Status(code).name for code in np.asarray(fit.status).reshape(-1).tolist()]
    return {
        "member": np.repeat(np.arange(members), p),
        "status": [name for name in status for _ in range(p)],
    }
