"""Values that no parameters of a family allow, found on the host: outside a fixed support, or
counts that are not integers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import numpy as np

from jaxmle._namespace import is_traced
from jaxmle._types import Array, NamedParams, Tree, ndarray
from jaxmle.parameters.constraints import Constraint, Interval
from jaxmle.runtime.jax_state import precision, tracing

Place = Callable[[tuple[int, ...]], str]

Ends = tuple[float | Array, float | Array]  # of a support, the lower and the upper


class Coded(Protocol):
    """A family, as far as the coding of its values goes."""

    # fmt: off
    @property
    def name(self) -> str: ...
    @property
    def discrete(self) -> bool: ...
    @property
    def known(self) -> Mapping[str, Tree]: ...
    @property
    def constraints(self) -> Mapping[str, Constraint]: ...
    def parts(self, data: Tree, /) -> tuple[Tree, NamedParams]: ...
    @property
    def law(self) -> Tree: ...
    def read(self, params: NamedParams, /) -> NamedParams: ...
    def __hash__(self) -> int: ...
    # fmt: on


MAX_END = 1e150  # its square is finite; a larger number stands for infinity


def in_row(index: tuple[int, ...]) -> str:
    """The position of a value in the leaf of one data set."""
    return f"row {index[0]}" if index else "the value"


def check_values(family: Coded, data: Tree, place: Place, support: bool = True) -> None:
    """Raise a ValueError that names the first such value, what is expected and what to do. NaN and
    traced values pass.

    Args:
        support: whether values outside the support of a continuous family are rejected too. A
            density of 0 is not a coding error.
    """
    y, known = family.parts(data)
    if any(is_traced(leaf) for leaf in jax.tree.leaves((y, known))):
        return
    if isinstance(y, dict):
        _check_interval(family.name, {name: np.asarray(leaf) for name, leaf in y.items()}, place)
        return
    values = np.asarray(y)
    name = "data['y']" if isinstance(data, dict) else "data"
    if values.dtype.kind not in "fiub" or not values.size:
        return
    if not (support or family.discrete):
        return
    low, high = _ends(family, known)
    bad = (values < low) | (values > high)
    if family.discrete and values.dtype.kind == "f":
        bad |= (np.rint(values) != values) & ~np.isnan(values)
    if bad.any():
        kind = "whole numbers" if family.discrete else "numbers"
        fault = _first(name, values, bad, place)
        raise ValueError(
            f"{fault}; {family.name} takes {kind}{_between(low, high)}. "
            f"{_remedy(values, low, high, family.discrete)}"
        )


def _between(low: float | Array, high: float | Array) -> str:
    if np.ndim(high) or np.ndim(low):
        return " between the bounds set by its known constants"
    if math.isinf(high):
        return "" if math.isinf(low) else f" from {low:g} on"
    return f" up to {high:g}" if math.isinf(low) else f" from {low:g} to {high:g}"


def _remedy(values: ndarray, low: float | Array, high: float | Array, discrete: bool) -> str:
    kinds = np.unique(values[np.isfinite(values)])
    if discrete and np.ndim(high) == 0 and (low, high) == (0, 1) and len(kinds) <= 2:
        if set(kinds.tolist()) == {-1.0, 1.0}:
            return "Write y = (y + 1) / 2."
        return f"Write y = (y == {kinds[-1]:g}).astype(float) if that value is the event."
    return "Recode them, or drop these rows from every leaf."


def _first(name: str, values: ndarray, bad: ndarray, place: Place) -> str:
    bad = np.broadcast_to(bad, np.broadcast_shapes(bad.shape, values.shape))
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    others = f" ({int(bad.sum())} such values)" if bad.sum() > 1 else ""
    return f"{name} is {np.broadcast_to(values, bad.shape)[index]:g} in {place(index)}{others}"


def _check_interval(family: str, y: dict[str, ndarray], place: Place) -> None:
    """Events must be 1 or 0; the ends of an interval must be in order, infinite where unknown."""
    if "event" in y:
        event = y["event"]
        bad = (event != 0) & (event != 1) & ~(event != event)
        if bad.any():
            fault = _first("data['event']", event, bad, place)
            kinds = np.unique(event[event == event])
            which = f"{kinds[-1]:g}" if len(kinds) <= 2 else "code_of_the_event"
            raise ValueError(
                f"{fault}; {family} expects 1 for an event and 0 for a censored time. "
                f"Write event = (event == {which}).astype(int)."
            )
        return
    for name, none in (("lower", "-numpy.inf"), ("upper", "numpy.inf")):
        huge = np.isfinite(y[name]) & (np.abs(y[name]) >= MAX_END)
        if huge.any():
            fault = _first(f"data[{name!r}]", y[name], huge, place)
            raise ValueError(f"{fault}; write an unknown end as {none}.")
    late = y["lower"] > y["upper"]
    if late.any():
        fault = _first("data['lower']", y["lower"], late, place)
        raise ValueError(
            f"{fault}, above the upper end of that row: {family} needs intervals with "
            "lower ≤ upper."
        )


def _ends(family: Coded, known: NamedParams) -> Ends:
    """The ends of the support if they do not depend on the parameters; otherwise infinite."""
    if not known:
        return _ends_of(family)
    return _support_ends(family, {name: np.asarray(value) for name, value in known.items()})


@functools.lru_cache(maxsize=256)
def _ends_of(family: Coded) -> Ends:
    return _support_ends(family, {})


def _support_ends(family: Coded, known: NamedParams) -> Ends:
    nowhere = (-math.inf, math.inf)
    constants = {**family.known, **known}
    if tracing() or any(value is None for value in constants.values()):
        return nowhere
    kinds = family.constraints.items()
    intervals = {name: kind for name, kind in kinds if isinstance(kind, Interval)}
    if len(intervals) < len(kinds):
        return nowhere
    ends = []
    with precision(np.float64):
        for share in (0.3, 0.7):
            p = {name: _inside(kind, share) for name, kind in intervals.items()}
            try:
                support = family.law.support(family.read({**constants, **p}))
            except Exception:  # another library's distribution may raise anything
                return nowhere
            ends.append([np.asarray(end)[()] for end in support])
    (low, high), (other_low, other_high) = ends
    return (
        np.where(low == other_low, low, -math.inf)[()],
        np.where(high == other_high, high, math.inf)[()],
    )


def _inside(kind: Interval, share: float) -> float:
    low = kind.lower
    high = kind.upper
    if math.isfinite(low) and math.isfinite(high):
        return low + share * (high - low)
    if math.isfinite(low):
        return low + share
    return high - share if math.isfinite(high) else share
