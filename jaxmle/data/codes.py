"""``codes``: a text column as integers that a likelihood can use as indices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmle._types import DataFrame, Label, Tree, ndarray
from jaxmle.data.table import columns_of
from jaxmle.parameters.keywords import with_keyword_hints

NAME = "column"


class Codes(NamedTuple):
    """A coded column of categories: ``values`` (n,) are integers from 0; ``levels`` are their
    meanings.

    >>> import jaxmle as jm
    >>> jm.codes(["low", "high", "low"]).levels
    ('high', 'low')
    """

    values: ndarray
    levels: tuple[Label, ...]


@with_keyword_hints
def codes(column: DataFrame) -> Codes:
    """The codes of a column, with their levels: ``effect[codes]`` picks the effect of each row.

    Args:
        column: a column of a pandas, polars or pyarrow frame, an array or a list (n,), of text,
            categories or integers. Levels are in the order of the categories, or sorted.

    Returns:
        ``Codes``: values (n,) and levels.

    Raises:
        ValueError, TypeError: for a missing value; for anything but a column.

    >>> import jax.numpy as jnp, numpy as np, jaxmle as jm
    >>> site, levels = jm.codes(["b", "a", "b"])
    >>> site.tolist(), levels
    ([1, 0, 1], ('a', 'b'))
    >>> data = {"y": np.array([1.0, 5.0, 3.0]), "site": site}
    >>> loglik = lambda params, data: -((data["y"] - params["mean"][data["site"]]) ** 2)
    >>> jm.fit(loglik, {"mean": np.zeros(len(levels))}, data).params["mean"].round(6).tolist()
    [5.0, 2.0]
    """
    read = columns_of(_frame(column), [NAME])[0][NAME]
    missing_rows = np.flatnonzero(read.missing)
    if missing_rows.size:
        raise ValueError(
            f"the column has no value in row {missing_rows[0]} ({missing_rows.size} in all): drop "
            "these rows from every leaf first"
        )
    levels = read.levels()
    place = {level: code for code, level in enumerate(levels)}
    coded = np.array([place[value] for value in read.values.tolist()], dtype=np.int64)
    return Codes(coded, levels)


def _frame(column: DataFrame) -> Tree:
    """A frame with only this column; a pandas or polars Series keeps its categories."""
    library = type(column).__module__
    if hasattr(column, "to_frame") and hasattr(column, "name"):
        return column.to_frame(NAME) if "pandas" in library else column.alias(NAME).to_frame()
    return {NAME: column.to_pylist() if library.startswith("pyarrow") else column}
