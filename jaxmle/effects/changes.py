"""The change behind an effect: none (an adjusted prediction), a small change of a column (a slope),
or a change from one value to another (a contrast).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np

from jaxmle._types import Tree, ndarray
from jaxmle.data.table import Column
from jaxmle.effects.rows import Rows, check_value, constant
from jaxmle.effects.source import Source
from jaxmle.parameters.arguments import shown

SLOPES = ("dydx", "eyex", "dyex", "eydx")
EFFECTS = (*SLOPES, "prediction")
# A step in standard deviations, or relative to the value itself if that is smaller. A five-point
# difference has an error of its fourth power, 1e-12; rounding is 1e-13 of it.
RELATIVE_STEP = 1e-3
MIN_SHARE_OF_SPREAD = 1e-4  # of the spread, if the value is close to zero
PAIRWISE = "pairwise"
# The weights of a derivative, times h, from values at −2h, −h, 0, h, 2h, or at 0, h, 2h, 3h, 4h:
# the polynomial through them (Abramowitz & Stegun 1964, table 25.2).
CENTRAL = (np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), np.array([1.0, -8.0, 0.0, 8.0, -1.0]) / 12)
ONE_SIDED = (np.arange(5.0), np.array([-25.0, 48.0, -36.0, 16.0, -3.0]) / 12)


class Change(NamedTuple):
    """One effect before averaging: the data it starts from, and the direction in which they change
    or the data they change to.

    ``column`` (n,) is the variable itself, for elasticities.
    """

    variable: str
    contrast: str
    data: dict[str, ndarray]
    direction: dict[str, ndarray] | None = None
    other: dict[str, ndarray] | None = None
    column: ndarray | None = None


def changes(source: Source, rows: Rows, variables: Tree, effect: str) -> Iterator[Change]:
    """The effects of each variable at some rows."""
    data = source.leaves(rows.columns, rows.total)
    if effect == "prediction":
        yield Change("", "", data)
        return
    for name, wish in wishes(source, variables).items():
        if wish is None and not source.is_factor(name):
            direction = _direction(source, rows, name, data)
            column = rows.columns[name].values.astype(np.float64)
            yield Change(name, effect, data, direction=direction, column=column)
            continue
        if effect != "dydx":
            raise ValueError(
                f"effect={effect!r} needs numbers, and {name} is a factor or a contrast: choose "
                "other variables"
            )
        for low, high in _pairs(source, name, wish):
            yield Change(
                name,
                f"{plainly(high)} - {plainly(low)}",
                _set(source, rows, name, low),
                other=_set(source, rows, name, high),
            )


def plainly(value: Tree) -> str:
    """A value in a name: 20 for 20.0.

    >>> plainly(20.0), plainly("black"), plainly(True)
    ('20', 'black', 'True')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)


def wishes(source: Source, variables: Tree) -> dict[str, Tree]:
    """From each variable to the requested effect: None for a slope, or for a factor the contrasts
    to its base; a pair of values; "pairwise".
    """
    if variables is None:
        if source.frame is None:
            raise ValueError(
                "name the variables, such as variables=['x']; the data have "
                f"{', '.join(source.predictors)}"
            )
        columns = {name for design in source.frame.designs.values() for name in design.columns}
        return {name: None for name in source.predictors if name in columns}
    if isinstance(variables, str):
        variables = [variables]
    if not isinstance(variables, Mapping):
        if not isinstance(variables, list | tuple) or not variables:
            raise TypeError(
                "variables must be a name, a list of names, or a dictionary from names "
                f"to pairs of values; got {shown(variables)}"
            )
        variables = dict.fromkeys(variables)
    for name in variables:
        source.column(name, "variables")
        if name not in source.predictors:
            raise ValueError(f"the prediction does not depend on {name!r}")
    return dict(variables)


def _pairs(source: Source, name: str, wish: Tree) -> list[tuple[Tree, Tree]]:
    if wish is None or wish == PAIRWISE:
        if not source.is_factor(name):
            raise ValueError(f"'pairwise' compares the levels of a factor; {name} holds numbers")
        levels = source.levels[name]
        return (
            list(combinations(levels, 2))
            if wish == PAIRWISE
            else [(levels[0], level) for level in levels[1:]]
        )
    if not isinstance(wish, list | tuple) or len(wish) != 2:
        raise ValueError(
            f"the contrast of {name} must be a pair of values (low, high), or 'pairwise' "
            f"for a factor; got {shown(wish)}"
        )
    return [(check_value(source, name, wish[0]), check_value(source, name, wish[1]))]


def _set(source: Source, rows: Rows, name: str, value: Tree) -> dict[str, ndarray]:
    columns = dict(rows.columns) | {name: constant(rows.columns[name], value, rows.total)}
    return source.leaves(columns, rows.total)


def _direction(
    source: Source, rows: Rows, name: str, data: Mapping[str, ndarray]
) -> dict[str, ndarray]:
    """The derivative of each leaf of the data with respect to a column, row by row.

    A formula may contain logs, powers and splines of the column. They are differentiated by
    five-point differences, one-sided if the other side is beyond the values of the table, where a
    spline has no value and a logarithm may have none.
    """
    if source.frame is None and source.columns[name].values.dtype.kind != "f":
        raise ValueError(
            f"{name} holds integers, which have no slope: convert them to floats, or ask "
            f"for a contrast, variables={{{name!r}: (0, 1)}}"
        )
    observed = source.columns[name].values.astype(np.float64)
    x = rows.columns[name].values.astype(np.float64)
    spread = float(np.std(observed)) or float(np.max(np.abs(observed))) or 1.0
    step = RELATIVE_STEP * np.clip(np.abs(x), MIN_SHARE_OF_SPREAD * spread, spread)
    low = float(observed.min())
    high = float(observed.max())
    inside = (x >= low) & (x <= high)
    sign = np.where(inside & (x + 2 * step > high), -1.0, 1.0)
    one_sided = inside & ((x + 2 * step > high) | (x - 2 * step < low))
    total = {leaf: np.zeros_like(values) for leaf, values in data.items() if _moves(values)}
    for place, weight, place_aside, weight_aside in zip(*CENTRAL, *ONE_SIDED, strict=True):
        offset = np.where(one_sided, sign * place_aside, place) * step
        share = np.where(one_sided, sign * weight_aside, weight) / step
        if not np.any(share):
            continue
        moved = Column(x + offset, np.zeros(rows.total, bool))
        leaves = source.leaves(dict(rows.columns) | {name: moved}, rows.total)
        for leaf, sum_ in total.items():
            scaled = share.reshape(-1, *[1] * (sum_.ndim - 1))
            # Differences from the row itself, so that anything that does not change is exactly
            # zero.
            total[leaf] = sum_ + scaled * (leaves[leaf] - data[leaf])
    return total


def _moves(values: ndarray) -> bool:
    return values.dtype.kind == "f"
