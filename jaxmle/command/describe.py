"""``describe``: the columns of a table, a row each."""

from __future__ import annotations

import numpy as np

from jaxmle._types import DataFrame
from jaxmle.data.table import Column, backend_of, columns_of, names_of
from jaxmle.tables.frame import native

LEVELS_SHOWN = 6


def describe(table: DataFrame, backend: str | None = None) -> DataFrame:
    """Summarise each column of a table: its kind, its counts and where its values lie.

    Args:
        table: a pandas, polars or pyarrow frame, or a dict of arrays (n,).
        backend: "pandas", "polars" or "pyarrow"; None for the kind of the table.

    Returns:
        A data frame with a row for each column: column, kind ("numbers", "words" for text, or
        "other", such as dates), n (values present), missing, mean, sd (with n − 1), min, median and
        max of numbers, levels of text.

    Raises:
        TypeError: for what is no table.

    >>> from jaxmle.command.describe import describe
    >>> described = describe({"age": [20.0, 30.0, None], "site": ["a", "b", "a"]}, "pandas")
    >>> described[["column", "n", "missing", "mean", "levels"]].values.tolist()
    [['age', 2, 1, 25.0, ''], ['site', 3, 0, nan, 'a, b']]
    """
    rows = [{"column": name, **_described(_column(table, name))} for name in names_of(table)]
    kind = backend_of(table) if backend is None else backend
    listed = {key: [row[key] for row in rows] for key in rows[0]} if rows else {"column": []}
    return native(listed, None if kind == "dict" else kind)


def _column(table: DataFrame, name: str) -> Column | None:
    try:
        return columns_of(table, [name])[0][name]
    except TypeError:  # of dates, or of mixed types: neither numbers nor words
        return None


def _described(column: Column | None) -> dict[str, DataFrame]:
    blank = dict.fromkeys(("mean", "sd", "min", "median", "max"), np.nan)
    if column is None:
        return {"kind": "other", "n": np.nan, "missing": np.nan, **blank, "levels": ""}
    values = column.values[~column.missing]
    counts = {"n": len(values), "missing": int(np.sum(column.missing))}
    if column.is_factor:
        levels = [str(level) for level in column.levels()]
        more = f", … ({len(levels)})" if len(levels) > LEVELS_SHOWN else ""
        shown = ", ".join(levels[:LEVELS_SHOWN]) + more
        return {"kind": "words", **counts, **blank, "levels": shown}
    numbers = values.astype(np.float64)
    spread = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else np.nan
    if not len(numbers):
        numbers = np.full(1, np.nan)
    return {
        "kind": "numbers",
        **counts,
        "mean": float(np.mean(numbers)),
        "sd": spread,
        "min": float(np.min(numbers)),
        "median": float(np.median(numbers)),
        "max": float(np.max(numbers)),
        "levels": "",
    }
