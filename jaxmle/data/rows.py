"""Weights and clusters by column or array, and the rows without missing values in used columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxmle._types import Tree, ndarray
from jaxmle.data.plan import Plan
from jaxmle.data.table import NAMES_LISTED, Column, columns_of
from jaxmle.likelihood.combinators import Weights
from jaxmle.parameters.arguments import shown
from jaxmle.runtime.user_code import warn_caller

MISSING_POLICIES = ("warn", "drop", "refuse")


class MissingRowsWarning(UserWarning):
    """Rows of a table were dropped because they have a missing value in a used column.

    >>> import warnings, numpy as np, jaxmle as jm
    >>> table = {"y": np.array([1.0, 2.0, 4.0, 3.0]), "x": np.array([0.0, 1.0, np.nan, 2.0])}
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", jm.MissingRowsWarning)
    ...     frame = jm.from_formula("y ~ x", table)
    >>> frame.dropped
    1
    """


def given_of(weights: Tree, clusters: Tree) -> dict[str, Tree]:
    """Weights and clusters by role: the name of a column, or an array."""
    if weights is not None and not isinstance(weights, Weights):
        raise TypeError(
            f"say what the weights mean: frequency('w') or sampling('w'); got {shown(weights)}"
        )
    given = {} if weights is None else {"weights": weights.values}
    pair = isinstance(clusters, tuple) or (
        isinstance(clusters, list) and all(isinstance(c, str) for c in clusters)
    )
    listed = clusters if pair else [clusters]
    if clusters is not None and len(listed) not in (1, 2):
        raise ValueError(
            "clusters must be one column or a pair of columns, each by name or as an "
            f"array; got {len(listed)}"
        )
    roles = ("clusters", "second clusters")
    return given | ({} if clusters is None else dict(zip(roles, listed, strict=False)))


def arrays_of(given: Mapping[str, Tree], total: int) -> dict[str, Column]:
    """Weights and clusters given as arrays, as columns."""
    arrays = {role: values for role, values in given.items() if not isinstance(values, str)}
    columns, _ = columns_of(
        {
            role: np.asarray(values) if not isinstance(values, list) else values
            for role, values in arrays.items()
        },
        arrays,
    )
    for role, column in columns.items():
        if len(column.values) != total:
            raise ValueError(
                f"{role} must hold one value for each of the {total} rows of the table; got "
                f"{len(column.values)}"
            )
    return columns


def complete_rows(columns: Mapping[str, Column], total: int) -> tuple[dict[str, int], ndarray]:
    """The number of missing values of each column with any, and the rows without any."""
    incomplete = np.zeros(total, dtype=bool)
    for column in columns.values():
        incomplete |= column.missing
    counts = {
        name: int(column.missing.sum()) for name, column in columns.items() if column.missing.any()
    }
    return counts, np.flatnonzero(~incomplete)


def settle(missing: str, counts: dict[str, int], total: int, complete: int) -> None:
    """Warn about rows with missing values, drop them silently, or refuse them, depending on
    ``missing``.

    Args:
        missing: ``"warn"``, ``"drop"`` (without a warning) or ``"refuse"``.
        counts: missing values by column.
        total, kept: rows before and after.

    Raises:
        ValueError: if no row is left, or if values are missing and ``missing`` is ``"refuse"``.
    """
    listed = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:NAMES_LISTED])
    if not complete:
        raise ValueError(
            f"no row is left of {total}"
            + (f": missing values are in {listed}" if counts else ": the table is empty")
        )
    if counts and missing == "refuse":
        raise ValueError(
            f"{total - complete:,} of {total:,} rows have missing values ({listed}): fill "
            "them, or drop these rows with missing='drop'"
        )
    if counts and missing == "warn":
        warn_caller(
            f"{total - complete:,} of {total:,} rows dropped for missing values "
            f"({listed}); missing='drop' drops them without this warning",
            MissingRowsWarning,
        )


def weights_of(plan: Plan, columns: Mapping[str, Column]) -> Weights | None:
    """The weights of the kept rows, from their column."""
    if not plan.kind:
        return None
    name = plan.role("weights")
    if columns[name].is_factor:
        raise TypeError(
            f"weights must be numbers, one for each row; the column {name!r} holds text "
            "or categories"
        )
    return Weights(columns[name].values.astype(np.float64), plan.kind)


def one_or_all(groups: tuple[Tree, ...]) -> Tree:
    """Labels of one dimension as they are, of several as a tuple; None if there are none."""
    if not groups:
        return None
    first, *others = groups
    return groups if others else first
