"""Columns of a table by name: pandas, polars and pyarrow frames through narwhals, or a dict of
arrays; missing values are marked, not changed.
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import PurePath
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import ArrayLike, DataFrame, Foreign, Label, Tree, ndarray
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.frames import check_columns, is_frame
from jaxmle.tables.frame import INSTALL_FRAME

if TYPE_CHECKING:
    import narwhals.stable.v1 as nw

NAMES_LISTED = 12  # names in a message
TEMPORAL_TYPES = ("Date", "Datetime", "Duration", "Time")  # types of narwhals


@dataclass(frozen=True, eq=False)
class Column:
    """One column: ``values`` (n,), numbers or Python objects; ``missing`` (n,); ``order`` of its
    categories, if it is categorical, and whether they are ``ranked``.
    """

    values: ndarray
    missing: ndarray
    order: tuple[Label, ...] | None = None
    ranked: bool = False

    @property
    def is_factor(self) -> bool:
        """Whether the values are categories: text, or of a categorical type."""
        return self.order is not None or self.values.dtype.kind == "O"

    def take(self, rows: ndarray) -> Column:
        return Column(self.values[rows], self.missing[rows], self.order, self.ranked)

    def levels(self) -> tuple[Tree, ...]:
        """The distinct values that occur, in the order of the categories, or sorted; whole floats
        as integers.
        """
        present = self.values[~self.missing]
        if self.order is not None:
            present_levels = set(present.tolist())
            return tuple(level for level in self.order if level in present_levels)
        if present.dtype.kind == "O":
            return tuple(sorted(set(present.tolist())))
        distinct = np.unique(present)
        whole = bool(np.all(np.isfinite(distinct))) and bool(np.all(distinct == np.floor(distinct)))
        return tuple((distinct.astype(np.int64) if whole else distinct).tolist())


def needed(module: str) -> ModuleType:
    """Import an optional package when it is needed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"a formula needs {module.split('.')[0]}, which is not installed: {INSTALL_FRAME}"
        ) from error


def columns_of(source: DataFrame, names: Iterable[str]) -> tuple[dict[str, Column], int]:
    """The columns ``names`` of a frame or of a dict of arrays, and the number of rows.

    Raises:
        ValueError: for a name that is not a column, or columns of different lengths.
        TypeError: for anything but a frame or a dict; for a column of dates, lists or mixed types.
    """
    names = list(dict.fromkeys(names))
    if isinstance(source, Mapping):
        _known(names, list(source))
        columns = {name: _of_values(name, source[name]) for name in names}
        rows = {len(column.values) for column in columns.values()} or {
            len(value) for value in source.values()
        }
    else:
        frame = native_frame(source)
        _known(names, frame.columns)
        columns = {name: _of_series(name, frame[name]) for name in names}
        rows = {len(frame)}
    if len(rows) > 1:
        raise ValueError(
            "the columns differ in length: "
            f"{', '.join(f'{name} has {len(column.values)}' for name, column in columns.items())}"
        )
    return columns, next(iter(rows), 0)


def names_of(source: DataFrame) -> list[str]:
    """The names of the columns of a frame, or of a dict of arrays, in order."""
    return [
        str(n) for n in (source if isinstance(source, Mapping) else native_frame(source).columns)
    ]


def backend_of(source: DataFrame) -> str:
    """The kind of a table: "pandas", "polars", "pyarrow", or "dict"; for other tables "pandas"."""
    if isinstance(source, Mapping):
        return "dict"
    name = type(source).__module__.partition(".")[0]
    return name if name in ("polars", "pyarrow") else "pandas"


def native_frame(source: DataFrame) -> nw.DataFrame:
    """A frame of pandas, polars or pyarrow as narwhals sees it."""
    narwhals = needed("narwhals.stable.v1")
    try:
        if is_frame(source):
            check_columns(source)
        return narwhals.from_native(source, eager_only=True)
    except TypeError:
        hint = " Collect a lazy frame first: .collect()." if hasattr(source, "collect") else ""
        if isinstance(source, str | PurePath):
            hint = " Read the file first, such as pandas.read_csv(path)."
        elif isinstance(source, list | np.ndarray):
            hint = " Name the columns first, such as pandas.DataFrame(rows, columns=['y', 'x'])."
        raise TypeError(
            "data must be a pandas, polars or pyarrow frame, or a dict of arrays; got "
            f"{type(source).__name__}.{hint}"
        ) from None


def _known(names: list[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, [str(k) for k in known], n=1)
            listed = (
                f"did you mean {near[0]!r}?"
                if near
                else "the columns are "
                f"{', '.join(map(str, known[:NAMES_LISTED]))}"
                f"{', …' if len(known) > NAMES_LISTED else ''}"
            )
            raise ValueError(f"there is no column {name!r}; {listed}")
        if known.count(name) > 1:
            raise ValueError(f"the frame has {known.count(name)} columns called {name!r}")


def _of_series(name: str, series: Foreign) -> Column:
    """A narwhals series as a ``Column``."""
    narwhals = needed("narwhals.stable.v1")
    kind = series.dtype
    if kind in (narwhals.Categorical, narwhals.Enum):
        native = getattr(series.to_native(), "dtype", None)
        ranked = bool(getattr(native, "ordered", kind == narwhals.Enum))
        categories = tuple(series.cat.get_categories().to_list())
        return replace(_of_values(name, series.to_list(), categories), ranked=ranked)
    if kind == narwhals.Boolean or kind.is_numeric():
        null = np.asarray(series.is_null().to_numpy(), dtype=bool)
        filled = (
            series.fill_null(False if kind == narwhals.Boolean else 0) if null.any() else series
        )
        values = np.asarray(filled.to_numpy())
        if values.dtype.kind not in "iufb":  # decimals, extension arrays
            values = values.astype(np.float64)
        return _numbers(values, null)
    if kind in (narwhals.String, narwhals.Object, narwhals.Unknown):
        return _of_values(name, series.to_list())
    raise _other_kind(name, kind, type(kind).__name__ in TEMPORAL_TYPES)


def _of_values(name: str, values: ArrayLike, order: tuple[Label, ...] | None = None) -> Column:
    """An array or a list as a ``Column``."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; fill it with NaN")
    array = _objects(values) if isinstance(values, list | tuple) else np.asarray(values)
    if array.ndim != 1:
        hint = f", such as [{shown(values)}]" if array.ndim == 0 else ""
        raise ValueError(f"{name} must be a column (n,){hint}; got shape {array.shape}")
    if array.dtype.kind in "iufb":
        return _numbers(array, np.zeros(len(array), dtype=bool))
    if array.dtype.kind not in "OUT":
        raise _other_kind(name, array.dtype, array.dtype.kind in "mM")
    array = array.astype(object)
    missing = np.array([is_missing(value) for value in array], dtype=bool)
    if order is not None:
        return Column(array, missing, order)
    kinds = {type(value) for value in array[~missing]}
    if all(issubclass(kind, str) for kind in kinds) and kinds:
        return Column(array, missing)
    if all(issubclass(kind, bool | int | float | np.number | np.bool_) for kind in kinds):
        return _numbers(np.where(missing, np.nan, array).astype(np.float64), missing)
    if any(issubclass(kind, datetime.date | datetime.timedelta) for kind in kinds):
        raise _other_kind(name, array.dtype, True)
    listed = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise TypeError(
        f"{name} holds values of type {listed}; a column must hold only numbers or only text"
    )


def _other_kind(name: str, kind: object, is_time: bool) -> TypeError:
    if is_time:
        return TypeError(
            f"{name} holds dates or durations; convert it to numbers first, such as days "
            f"since the first date: (table[{name!r}] - table[{name!r}].min()).dt.days"
        )
    return TypeError(
        f"{name} has dtype {kind}; a formula takes numbers, booleans, text and "
        "categories. Convert it first"
    )


def _numbers(values: ndarray, null: ndarray) -> Column:
    missing = null | np.isnan(values) if values.dtype.kind == "f" else null
    return Column(values, missing)


def _objects(values: Tree) -> ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array


def is_missing(value: object) -> bool:
    """None, NaN, pandas' NA and NaT."""
    return type(value).__name__ in ("NoneType", "NAType", "NaTType") or (
        isinstance(value, float | np.floating) and bool(np.isnan(value))
    )
