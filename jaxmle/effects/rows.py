"""The rows at which effects are evaluated: the observed rows, or one average row, with columns set
to given values; and how they are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import numpy as np

from jaxmle._types import Label, Tree, ndarray
from jaxmle.data.table import Column
from jaxmle.effects.source import Source
from jaxmle.parameters.arguments import check_choice, shown

PLACES = ("observed", "mean", "median")


class Rows(NamedTuple):
    """Columns of rows, and the values that were set in them."""

    columns: dict[str, Column]
    total: int
    setting: dict[str, Tree]


class Groups(NamedTuple):
    """Weights of averages (groups, n), each summing to one, and the labels of the groups."""

    weights: ndarray
    labels: dict[str, list[Label]]


def rows_at(source: Source, where: str, values: Tree) -> list[Rows]:
    """The rows of each setting: the whole table with columns set to each combination of values, or
    one average row.
    """
    check_choice("at", where, PLACES)
    columns = {name: source.columns[name] for name in source.predictors}
    count = source.rows
    if where != "observed":
        columns = {name: _typical(source, name, where) for name in source.predictors}
        count = 1
    return [
        Rows(columns | _filled(setting, columns, source, count), count, setting)
        for setting in _settings(source, values)
    ]


def _settings(source: Source, values: Tree) -> list[dict[str, Tree]]:
    """Every combination of the values that are set."""
    if values is None:
        return [{}]
    if not isinstance(values, Mapping):
        raise TypeError(
            "values must be a dictionary from columns to a value or a list of values, "
            f"such as {{'age': [20, 30]}}; got {shown(values)}"
        )
    lists = []
    for name, given in values.items():
        source.column(name, "values")
        if name not in source.predictors:
            raise ValueError(f"values names {name!r}, on which the prediction does not depend")
        several = isinstance(given, list | tuple | np.ndarray)
        listed = list(given) if several else [given]
        lists.append([check_value(source, name, value) for value in listed])
        if not lists[-1]:
            raise ValueError(f"values[{name!r}] is empty: give a value, or a list of them")
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*lists)]


def check_value(source: Source, name: str, value: Tree) -> Tree:
    """A value that a column may be set to: a level of a factor, otherwise a finite number."""
    value = value.item() if isinstance(value, np.generic) else value
    if source.is_factor(name):
        if value not in source.levels[name]:
            known = ", ".join(map(repr, source.levels[name]))
            raise ValueError(f"{name} has no level {value!r}; its levels are {known}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{name} must be set to a finite number; got {shown(value)}")
    return value


def _filled(
    setting: Mapping[str, Tree], columns: Mapping[str, Column], source: Source, count: int
) -> dict[str, Column]:
    return {name: constant(columns[name], value, count) for name, value in setting.items()}


def constant(column: Column, value: Tree, count: int) -> Column:
    """A constant column of the same kind as another column."""
    if column.values.dtype.kind == "O":
        values = np.empty(count, dtype=object)
        values[:] = value
    elif column.values.dtype.kind in "iu" and float(value) != int(value):
        values = np.full(count, float(value))
    else:
        values = np.full(count, value, dtype=column.values.dtype)
    return Column(values, np.zeros(count, bool), column.order, column.ranked)


def _typical(source: Source, name: str, where: str) -> Column:
    """The mean or median of numbers, weighted like the fit; for a factor its most frequent level,
    the first of several.
    """
    column = source.columns[name]
    w = np.ones(len(column.values)) if source.weights is None else source.weights
    if source.is_factor(name):
        levels = source.levels[name]
        held = column.values.tolist()
        totals = [sum(w[i] for i, value in enumerate(held) if value == level) for level in levels]
        return constant(column, levels[int(np.argmax(totals))], 1)
    values = column.values.astype(np.float64)
    centre = np.average(values, weights=w) if where == "mean" else _weighted_median(values, w)
    return Column(np.array([float(centre)]), np.zeros(1, bool))


def _weighted_median(values: ndarray, w: ndarray) -> float:
    """The middle value, or the mean of the two middle values."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(w[order]) / np.sum(w)
    low = values[order][int(np.searchsorted(total, 0.5 - 1e-12))]
    high = values[order][min(int(np.searchsorted(total, 0.5 + 1e-12)), len(values) - 1)]
    return float(0.5 * (low + high))


# ---------------------------------------------------------------- averages


def groups_of(source: Source, by: Tree, where: str) -> Groups:
    """How rows are averaged: all of them, or those of each group."""
    names = [by] if isinstance(by, str) else list(by or ())
    if where != "observed":
        if names:
            raise ValueError(
                f"by averages over the observed rows of each group; at={where!r} is a "
                "single row: set a column with values= instead"
            )
        return Groups(np.ones((1, 1)), {})
    w = np.ones(source.rows) if source.weights is None else source.weights
    if not names:
        return Groups((w / np.sum(w))[None], {})
    labels = [_labels(source, name) for name in names]
    keys = list(zip(*labels, strict=True))
    distinct = sorted(set(keys), key=lambda key: tuple(_rank(part) for part in key))
    place = {key: i for i, key in enumerate(distinct)}
    member = np.array([place[key] for key in keys])
    inside = (member[None, :] == np.arange(len(distinct))[:, None]) * w
    total = inside.sum(axis=1, keepdims=True)
    empty = np.flatnonzero(total[:, 0] == 0)
    if empty.size:
        raise ValueError(f"every row of the group {distinct[empty[0]]!r} has weight 0")
    return Groups(
        inside / total, {name: [key[i] for key in distinct] for i, name in enumerate(names)}
    )


def _labels(source: Source, name: str) -> list[Tree]:
    if name in source.labels:
        return np.asarray(source.labels[name]).tolist()
    return source.column(name, "by").values.tolist()


def _rank(value: Tree) -> tuple[int, Tree]:
    """A sort key: numbers before text."""
    return (1, value) if isinstance(value, str) else (0, value)
