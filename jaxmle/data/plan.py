"""The columns that a call of ``from_formula`` needs, determined before the table is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from jaxmle._types import Tree
from jaxmle.data.formula import Terms, halves, terms_of
from jaxmle.data.response import Response, response_of

# Leaves that a formula itself makes.
FORMULA_LEAVES = ("x", "y", "time", "event", "entry", "trials", "offset")


class Plan(NamedTuple):
    """The columns that a call of ``from_formula`` needs: designs and plain columns by leaf, the
    response, weights and clusters by role, labels to keep.
    """

    formula: str
    terms: dict[str, Terms]
    response: Response | None
    plain: dict[str, str]
    given: dict[str, Tree]
    kind: str | None  # of the weights
    keys: list[str]
    intercept: bool

    @property
    def wanted(self) -> list[str]:
        """Every column that is used."""
        names = [name for part in self.terms.values() for name in part.columns] + (
            self.response.columns if self.response else []
        )
        return (
            names
            + list(self.plain.values())
            + self.keys
            + [values for values in self.given.values() if isinstance(values, str)]
        )

    def role(self, name: str) -> str:
        """The column of a role: the named column, or the array stored under its name."""
        return self.given[name] if isinstance(self.given[name], str) else name


def plan_of(
    formula: str,
    also: Mapping[str, str],
    given: dict[str, Tree],
    kind: str | None,
    keys: list[str],
    intercept: bool,
) -> Plan:
    """What is read from a table for a formula: the terms of each design, plain columns, the
    response and the columns of each role.

    Args:
        also: for each additional leaf a column or, with a tilde, a second formula.
        given: columns or arrays by role (weights, clusters, offset, …), None if absent.
        kind: how the response is read, or None for a number.
        keys: columns that name the groups.
        intercept: whether the designs have a constant unless the formula says otherwise.
    """
    left, right = halves(formula)
    _check_leaves(also)
    terms = {"x": terms_of(right)} | {
        leaf: _second(leaf, text) for leaf, text in also.items() if "~" in text
    }
    plain = {leaf: text for leaf, text in also.items() if "~" not in text}
    return Plan(
        formula.strip(),
        terms,
        response_of(left) if left else None,
        plain,
        given,
        kind,
        keys,
        intercept,
    )


def _second(leaf: str, text: str) -> Terms:
    left, right = halves(text)
    terms = terms_of(right)
    if left or terms.offsets:
        raise ValueError(
            f"also[{leaf!r}] must be a design, '~ w', without response or offset; got {text!r}"
        )
    return terms


def _check_leaves(also: Mapping[str, str]) -> None:
    for leaf, text in also.items():
        if not isinstance(leaf, str) or not isinstance(text, str):
            raise TypeError(
                "also must be a dictionary from names of leaves to a formula '~ w' or "
                f"the name of a column; got {leaf!r}: {text!r}"
            )
        if leaf in FORMULA_LEAVES:
            raise ValueError(
                f"also names the leaf {leaf!r}, which the formula itself makes: choose another name"
            )
