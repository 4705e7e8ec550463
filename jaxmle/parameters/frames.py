"""A data frame instead of a dictionary of arrays: its columns by name."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import DataFrame, Foreign, ndarray

if TYPE_CHECKING:
    pass


def is_frame(data: object) -> bool:
    """Whether data are a pandas, polars or pyarrow frame."""
    module = type(data).__module__.partition(".")[0]
    return module in ("pandas", "polars", "pyarrow") and hasattr(data, "columns")


def check_columns(data: Foreign) -> None:
    """Raise for a pandas frame with two columns of one name."""
    if type(data).__module__.partition(".")[0] != "pandas" or data.columns.is_unique:
        return
    name = data.columns[data.columns.duplicated()][0]
    count = int((data.columns == name).sum())
    raise ValueError(f"the frame has {count} columns called {name!r}: rename or drop one")


def columns_of_frame(data: DataFrame) -> dict[str, ndarray]:
    """The columns of a frame as arrays (n,), each by its name; a missing number is NaN.

    Raises:
        TypeError: a column that is not numeric, by its name; a lazy frame; a name that is not a
            string.
    """
    try:
        narwhals = import_module("narwhals.stable.v1")
    except ImportError:
        raise ImportError(
            'a data frame as data needs narwhals: pip install "jaxmle[frame]"; or give a '
            "dictionary of arrays, {'y': frame['y'].to_numpy()}"
        ) from None
    check_columns(data)
    try:
        frame = narwhals.from_native(data, eager_only=True)
    except TypeError:
        raise TypeError("collect a lazy frame first: fit(loglik, start, df.collect())") from None
    odd = next((name for name in frame.columns if not isinstance(name, str)), None)
    if odd is not None:
        raise TypeError(
            f"the column names of a frame must be strings; got {odd!r}: rename the columns, such "
            "as by frame.rename(columns=str)"
        )
    return {name: _numbers(name, frame[name], narwhals) for name in frame.columns}


def check_row_labels(**given: Foreign) -> None:
    """Raise if two of pandas' frames or columns have the same row labels in another order: rows
    are matched by position, where pandas would match them by label.

    Args:
        given: arguments by name: frames, columns, or containers of them.
    """
    labelled = [pair for name, value in given.items() for pair in _labelled(name, value)]
    for name, index in labelled[1:]:
        first, other = labelled[0]
        if len(index) != len(other) or index.equals(other):
            continue
        if index.isin(other).all() and other.isin(index).all():
            raise ValueError(
                f"{name} has the row labels of {first} in another order, and rows are matched by "
                f"position: bring them into one order first, by .loc[labels], or give .to_numpy()"
            )


def _labelled(name: str, value: Foreign) -> list[tuple[str, Foreign]]:
    """pandas' frames and columns, with their names and row labels."""
    if isinstance(value, dict):
        inside = [(f"{name}[{key!r}]", inner) for key, inner in value.items()]
        return [pair for key, inner in inside for pair in _labelled(key, inner)]
    if type(value) is tuple:
        return [pair for inner in value for pair in _labelled(name, inner)]
    index = getattr(value, "index", None)
    of_pandas = type(index).__module__.partition(".")[0] == "pandas"
    return [(name, index)] if of_pandas and hasattr(index, "isin") else []


def _numbers(name: str, series: Foreign, narwhals: ModuleType) -> ndarray:
    kind = series.dtype
    if kind != narwhals.Boolean and not kind.is_numeric():
        first = next((value for value in series.to_list() if value is not None), None)
        raise TypeError(
            f"data[{name!r}] holds {_what(first)} ({first!r}), not numbers. Leave the "
            f"column out, df.drop(columns=[{name!r}]); or turn it into codes with "
            f"jaxmle.codes(df[{name!r}]), or a design with jaxmle.from_formula"
        )
    missing = np.asarray(series.is_null().to_numpy(), dtype=bool)
    if not missing.any():
        values = np.asarray(series.to_numpy())
        return values if values.dtype.kind in "iufb" else values.astype(np.float64)
    filled = np.asarray(series.fill_null(False if kind == narwhals.Boolean else 0).to_numpy())
    return np.where(missing, np.nan, filled.astype(np.float64))


def _what(value: object) -> str:
    return "text" if isinstance(value, str) else f"values of type {type(value).__name__}"
