"""The leaves of the data that are not designs: offsets, numbers and the codes of words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxmle._types import Tree
from jaxmle.data.formula import columns_in, parse, real
from jaxmle.data.table import Column
from jaxmle.runtime.compile import precision


def offset_of(
    offsets: tuple[str, ...], columns: Mapping[str, Column], rows: np.ndarray
) -> np.ndarray:
    """The sum of the offsets, (n,); NaN where a column is missing."""
    gone = np.zeros(len(rows), dtype=bool)
    for text in offsets:
        for name in columns_in(parse(text)):
            gone |= columns[name].missing
    there = np.flatnonzero(~gone)
    present = {name: column.take(there) for name, column in columns.items()}
    total = np.full(len(rows), np.nan)
    total[there] = sum(real(text, present, rows[there], "an offset") for text in offsets)
    return total


def finite_column(column: Column, name: str, rows: np.ndarray) -> np.ndarray:
    """A column of finite numbers, (n,)."""
    values = column.values.astype(np.float64)
    odd = np.flatnonzero(~np.isfinite(values))
    if odd.size:
        raise ValueError(f"{name} is {values[odd[0]]} in row {rows[odd[0]]}: it must be finite")
    return values


def whole_codes(codes: np.ndarray) -> np.ndarray:
    """Codes as integers, unless one is missing."""
    return codes if np.any(np.isnan(codes)) else codes.astype(np.int64)


def codes_of(column: Column, levels: tuple[Any, ...]) -> np.ndarray:
    """Words as whole numbers from 0, in the order of their levels; NaN where missing."""
    place: dict[Any, float] = {level: float(code) for code, level in enumerate(levels)}
    return np.array(
        [
            np.nan if gone else place[value]
            for value, gone in zip(column.values.tolist(), column.missing, strict=True)
        ]
    )


def listed(clusters: Any) -> tuple[np.ndarray, ...]:
    """The clusters as a tuple of label arrays (n,), one for each way of clustering."""
    return clusters if isinstance(clusters, tuple) else (clusters,)


def blank_column(rows: int) -> Column:
    """A column of zeros (rows,) with nothing missing, for a response that is not given."""
    return Column(np.zeros(rows), np.zeros(rows, dtype=bool))


def reads_leaf(model: Any, params: Tree, data: dict[str, np.ndarray], leaf: str) -> bool:
    """Whether the model reads a leaf, that is cannot be traced without it."""
    rest = {name: value for name, value in data.items() if name != leaf}
    try:
        with precision(np.float64):
            jax.eval_shape(model, params, rest)
    except Exception:  # whatever a user's function raises where a leaf is not there
        return True
    return False
