"""What is done with every table of a lake: how its rows are grouped and coded, and how each group
is fitted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from jaxmle._types import DTypeLike, Tree
from jaxmle.data.formula import STATEFUL
from jaxmle.data.plan import plan_of
from jaxmle.data.rows import MISSING_POLICIES, given_of
from jaxmle.fitting.options import MAX_STEPS, Options
from jaxmle.likelihood.combinators import Weights
from jaxmle.parameters.arguments import check_choice, shown
from jaxmle.solvers.methods import Solver


@dataclass(frozen=True, eq=False)
class Request:
    """The keywords of ``fit_table``, checked when the record is made. It holds no data: weights
    and clusters are names of columns.
    """

    by: tuple[str, ...]
    formula: str | None = None
    params0: Tree = None
    also: Mapping[str, str] | None = None
    missing: str = "warn"
    constraints: Tree = None
    solver: Solver | None = None
    vcov: str | None = "auto"
    clusters: str | None = None
    weights: Weights | None = None
    dtype: DTypeLike = None
    max_steps: int = MAX_STEPS
    block_rows: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", _names_of_keys(self.by))
        check_choice("missing", self.missing, MISSING_POLICIES)
        if self.formula is not None and not isinstance(self.formula, str):
            raise TypeError(
                f"a formula is a string such as 'y ~ x + C(g)'; got {shown(self.formula)}"
            )
        if self.formula is None and self.also is not None:
            raise ValueError("also needs a formula, such as formula='y ~ x', also={'z': '~ w'}")
        if self.clusters is not None and not isinstance(self.clusters, str):
            raise TypeError(f"clusters must be the name of a column; got {shown(self.clusters)}")
        if self.weights is not None:
            given_of(self.weights, None)
            if not isinstance(self.weights.values, str):
                raise TypeError(
                    "weights must name a column of the table, as frequency('w') or "
                    f"sampling('w'); got {shown(self.weights.values)}"
                )
        self.options()

    def options(self) -> Options:
        """The options of each fit, checked as ``fit`` checks them."""
        return Options(
            constraints=self.constraints,
            solver=self.solver,
            vcov=self.vcov,
            clusters=self.clusters,
            dtype=self.dtype,
            max_steps=self.max_steps,
            block_rows=self.block_rows,
        )

    def columns(self) -> list[str] | None:
        """The columns that are read; None for all numeric ones."""
        if self.formula is None:
            return None
        kind = None if self.weights is None else self.weights.kind
        given = given_of(self.weights, self.clusters)
        plan = plan_of(self.formula, self.also or {}, given, kind, list(self.by), True)
        return list(dict.fromkeys(plan.wanted))

    def named_columns(self) -> list[str]:
        """The columns named by the user: those of the formula, keys, weights and clusters."""
        roles = [self.clusters, None if self.weights is None else self.weights.values]
        extra = [name for name in roles if name is not None]
        return list(dict.fromkeys([*self.by, *extra, *(self.columns() or [])]))

    def refuse_learned_terms(self) -> None:
        """Reject terms that learn something, such as a mean or knots, from all rows of a table:
        they would differ between files, and so would the meaning of coefficients.
        """
        learned = [name for name in STATEFUL if name != "I"]
        for text in (self.formula or "", *(self.also or {}).values()):
            term = re.search(rf"\b({'|'.join(learned)})\s*\(", text)
            if term:
                raise ValueError(
                    f"{term[1]}() depends on all rows of a table, but each file of the "
                    "source is coded alone: compute it as a column of the source first"
                )


def request_of(arguments: Mapping[str, Tree]) -> Request:
    """The request in the arguments of ``fit_table`` or ``fit_lake``, taken by name: both have every
    keyword of ``Request``, and pass what ``locals()`` holds when they are called.
    """
    return Request(**{field.name: arguments[field.name] for field in fields(Request)})


def _names_of_keys(by: str | Sequence[str]) -> tuple[str, ...]:
    names = (by,) if isinstance(by, str) else tuple(by) if isinstance(by, list | tuple) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"by must be the name of a column or a list of names; got {shown(by)}")
    if len(set(names)) < len(names):
        raise ValueError(f"by names a column twice: {', '.join(names)}")
    return names
