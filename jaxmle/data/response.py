"""The left-hand side of a formula: a number, a category, ``Surv(time, event)``, or
``cbind(successes, failures)``.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxmle._types import Label, ndarray
from jaxmle.data.formula import columns_in, parse, real
from jaxmle.data.table import NAMES_LISTED, Column
from jaxmle.runtime.user_code import warn_caller

FORMS = {
    ("Surv", 2): ("time", "event"),
    ("Surv", 3): ("entry", "time", "event"),
    ("cbind", 2): ("successes", "failures"),
}


class EmptyLevelWarning(UserWarning):
    """A level of an ordered categorical response occurs in no row.

    >>> import warnings, pandas as pd, jaxmle as jm
    >>> grades = pd.Categorical(["low", "high", "low"], ["low", "middle", "high"], ordered=True)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", jm.EmptyLevelWarning)
    ...     frame = jm.from_formula("y ~ x", pd.DataFrame({"y": grades, "x": [0.0, 1.0, 2.0]}))
    >>> frame.levels
    ('low', 'middle', 'high')
    """


class Response(NamedTuple):
    """A parsed left-hand side: ``parts`` from a role to its expression; the single role is ``y``,
    or ``category`` for ``C(y)``.
    """

    text: str
    parts: dict[str, str]

    @property
    def columns(self) -> list[str]:
        return [
            name
            for text in self.parts.values()
            for name in ([text] if self.verbatim else columns_in(parse(text)))
        ]

    @property
    def verbatim(self) -> bool:
        """Whether the response is just the name of a column."""
        return set(self.parts) <= {"category", "column"}


def response_of(left: str) -> Response:
    """The left-hand side of a formula.

    >>> response_of("Surv(time, status == 2)").parts
    {'time': 'time', 'event': 'status == 2'}
    """
    if left.startswith("`") and left.endswith("`") and left.count("`") == 2:
        return Response(left, {"column": left[1:-1]})
    node = parse(left)
    if isinstance(node, ast.Name):
        return Response(left, {"column": node.id})
    called = ""
    arguments: list[ast.expr] = []
    named: list[ast.keyword] = []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        called = node.func.id
        arguments = node.args
        named = node.keywords
    if called == "C" and len(arguments) == 1 and isinstance(arguments[0], ast.Name):
        return Response(left, {"category": arguments[0].id})
    if called in ("Surv", "cbind"):
        roles = FORMS.get((called, len(arguments)))
        if roles is None or named:
            raise ValueError(
                "a response function must be Surv(time, event), Surv(start, stop, event) "
                f"or cbind(successes, failures); got {left!r}"
            )
        parts = {
            role: ast.unparse(argument) for role, argument in zip(roles, arguments, strict=True)
        }
        for text in parts.values():
            columns_in(parse(text))
        return Response(left, parts)
    columns_in(node)
    return Response(left, {"y": left})


def leaves_of(
    response: Response, columns: Mapping[str, Column], rows: ndarray
) -> tuple[dict[str, ndarray], tuple[Label, ...] | None]:
    """The leaves of the data that hold the response, and its levels if it is categorical, with
    codes 0, 1, …
    """
    if response.verbatim:
        (name,) = response.parts.values()
        column = columns[name]
        if "category" in response.parts or column.is_factor:
            levels = _levels_that_occur(name, column)
            place = {level: code for code, level in enumerate(levels)}
            return {
                "y": np.array([place[value] for value in column.values.tolist()], dtype=np.float64)
            }, levels
        return {"y": _finite(column.values.astype(np.float64), name, rows)}, None
    leaves = {
        role: real(text, columns, rows, "a response") for role, text in response.parts.items()
    }
    if "successes" in leaves:
        return _trials(leaves["successes"], leaves["failures"], response.text, rows), None
    if "time" in leaves:
        _check_times(leaves, response, rows)
    return leaves, None


def _levels_that_occur(name: str, column: Column) -> tuple[Label, ...]:
    """The levels that occur; for an ordered category all levels, because an empty level between two
    others separates their codes and cut points.
    """
    occurring = column.levels()
    if not column.ranked or column.order is None or len(occurring) == len(column.order):
        return occurring
    empty = [repr(level) for level in column.order if level not in occurring]
    listed = ", ".join(empty[:NAMES_LISTED]) + (", …" if len(empty) > NAMES_LISTED else "")
    warn_caller(
        f"no row has {name} = {listed}, and an ordered category keeps its levels: a cut "
        "point next to an empty level has no finite or interior estimate (SEPARATED, "
        f"BOUNDARY). To drop the level: {name}.cat.remove_unused_categories()",
        EmptyLevelWarning,
    )
    return column.order


def _finite(values: ndarray, name: str, rows: ndarray) -> ndarray:
    not_finite = np.flatnonzero(~np.isfinite(values))
    if not_finite.size:
        raise ValueError(
            f"{name} is {values[not_finite[0]]} in row {rows[not_finite[0]]} "
            f"({not_finite.size} in all): a response must be finite"
        )
    return values


def _trials(successes: ndarray, failures: ndarray, text: str, rows: ndarray) -> dict[str, ndarray]:
    negative = np.flatnonzero((successes < 0) | (failures < 0))
    if negative.size:
        raise ValueError(
            f"{text} must count successes and failures, zero or more; row {rows[negative[0]]} "
            f"has {successes[negative[0]]:g} and {failures[negative[0]]:g}"
        )
    return {"y": successes, "trials": successes + failures}


def _check_times(leaves: Mapping[str, ndarray], response: Response, rows: ndarray) -> None:
    no_event_code = np.flatnonzero((leaves["event"] != 0) & (leaves["event"] != 1))
    if no_event_code.size:
        text = response.parts["event"]
        raise ValueError(
            f"{text} is {leaves['event'][no_event_code[0]]:g} in row {rows[no_event_code[0]]}; "
            "code an event as 1 and a censored time as 0, by comparing with the code of the event: "
            f"{text} == 2"
        )
    late = (
        np.flatnonzero(leaves["time"] <= leaves["entry"]) if "entry" in leaves else np.zeros(0, int)
    )
    if late.size:
        raise ValueError(
            f"in {response.text} the entry must be before the time; row {rows[late[0]]} "
            f"has {leaves['entry'][late[0]]:g} and {leaves['time'][late[0]]:g}"
        )
