"""Arrow tables: the user's input as one, its columns as the leaves of the data, and the fits of its
groups as a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import Tree, ndarray
from jaxmle.data.groups import GroupFits
from jaxmle.data.table import needed
from jaxmle.parameters.arguments import shown
from jaxmle.solvers.status import Status

if TYPE_CHECKING:
    import pyarrow as pa

FACTS_OF_A_GROUP = ("n", "status", "reason", "loglik")
ESTIMATE = "est:"  # before the name of a parameter, in the name of the column of its estimates
STANDARD_ERROR = "se:"
VCOV = "vcov"


def arrow_table(table: pa.Table) -> pa.Table:
    """A pyarrow table from one, or from an object that converts to one (polars, pandas, DuckDB)."""
    pa = needed("pyarrow")
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, pa.RecordBatch):
        return pa.Table.from_batches([table])
    if hasattr(table, "__arrow_c_stream__") or isinstance(table, dict):
        return pa.table(table)
    raise TypeError(
        "table must be a pyarrow table, a polars or pandas frame, or a dict of columns; "
        f"got {shown(table)}"
    )


def refuse_absent(names: list[str], known: list[str], what: str) -> None:
    """Raise ``ValueError`` for a name that is not a column."""
    for name in names:
        if name not in known:
            raise ValueError(f"{what} has no column {name!r}; its columns are {', '.join(known)}")


def column_values(table: pa.Table, name: str) -> ndarray:
    """A column as an array (n,), or (n, q) if it holds fixed-size lists."""
    pa = needed("pyarrow")
    column = table.column(name).combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_fixed_size_list(column.type):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        if len(flat) != len(column) * column.type.list_size:
            raise ValueError(f"the column {name!r} of lists has a missing value")
        return flat.reshape(len(column), column.type.list_size)
    return column.to_numpy(zero_copy_only=False)


def is_numeric(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of numbers, or of fixed-size lists of numbers."""
    types = needed("pyarrow").types
    inner = kind.value_type if types.is_fixed_size_list(kind) else kind
    return bool(types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner))


def leaves_of(table: pa.Table, left_out: list[str]) -> dict[str, ndarray]:
    """The numeric columns by name, as the data of a likelihood."""
    names = [
        field.name
        for field in table.schema
        if field.name not in left_out and is_numeric(field.type)
    ]
    if not names:
        raise ValueError(
            "the table has no numeric columns besides its keys: there is nothing to fit"
        )
    return {name: column_values(table, name) for name in names}


def key_type(kind: pa.DataType) -> pa.DataType:
    """The type of a key in the table of fits: that of the column, except that categories take the
    type of their values, and string views, which polars produces, become strings.
    """
    pa = needed("pyarrow")
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_string_view(plain) else plain


def key_columns(by: tuple[str, ...], names: tuple[str, ...]) -> dict[str, str]:
    """From each key to its column in the table of fits: a name that is taken by another column
    there gets the prefix ``group_``.
    """
    taken = {*FACTS_OF_A_GROUP, VCOV}
    taken |= {f"{prefix}{name}" for name in names for prefix in (ESTIMATE, STANDARD_ERROR)}
    columns = {}
    for key in by:
        column = key
        while column in taken or (column in by and column != key):
            column = f"group_{column}"
        columns[key] = column
    return columns


def table_of_fits(groups: GroupFits, schema: pa.Schema) -> pa.Table:
    """One row per group: its keys, n, status, reason, loglik, estimates, standard errors and
    covariance.

    Args:
        groups: the fits of one table.
        schema: the schema of that table, for the types of the keys.
    """
    pa = needed("pyarrow")
    fits = groups.fits
    named = key_columns(tuple(groups.keys), fits.names)
    columns: dict[str, Tree] = {
        named[key]: pa.array(values).cast(key_type(schema.field(key).type))
        for key, values in groups.keys.items()
    }
    reasons = groups.reasons()
    keys = list(zip(*(values.tolist() for values in groups.keys.values()), strict=True))
    single = len(groups.keys) == 1
    columns |= {
        "n": pa.array(np.asarray(groups.n, dtype=np.int64)),
        "status": pa.array([Status(code).name for code in np.asarray(fits.status).tolist()]),
        "reason": pa.array(
            [reasons.get(key[0] if single else key, "") for key in keys], pa.string()
        ),
        "loglik": pa.array(np.asarray(fits.loglik, dtype=np.float64)),
    }
    for prefix, values in ((ESTIMATE, fits.x), (STANDARD_ERROR, fits.se)):
        numbers = np.asarray(values, dtype=np.float64)
        columns |= {
            f"{prefix}{name}": pa.array(np.ascontiguousarray(numbers[:, j]))
            for j, name in enumerate(fits.names)
        }
    columns[VCOV] = _lists(np.asarray(fits.vcov, dtype=np.float64))
    return pa.table(columns)


def _lists(matrices: ndarray) -> pa.Array:
    """Matrices (b, p, p) as lists of p² numbers, row by row."""
    pa = needed("pyarrow")
    size = matrices.shape[1] * matrices.shape[2]
    offsets = np.arange(len(matrices) + 1, dtype=np.int32) * size
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrices.reshape(-1)))


def key_table(table: pa.Table, by: tuple[str, ...]) -> pa.Table:
    """The keys of a table of fits, under their original names."""
    names = tuple(
        name.removeprefix(ESTIMATE) for name in table.column_names if name.startswith(ESTIMATE)
    )
    named = key_columns(by, names)
    return table.select([named[key] for key in by]).rename_columns(list(by))


def as_data(table: pa.Table, by: tuple[str, ...], given: list[str]) -> tuple[Tree, dict[str, Tree]]:
    """The leaves of a table without a formula, and its keys by name."""
    refuse_absent([*by, *given], table.column_names, "the table")
    keys = {name: column_values(table, name) for name in by}
    return leaves_of(table, [*by, *given]), keys
