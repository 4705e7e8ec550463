"""Calls of ready likelihoods inside a user's function: what they are given is marked in the program
that is traced, for whoever wants to look at the values.

A mark is the identity under ``jit`` with a name. It is always set, since jax remembers the programs
of inner functions whoever traces them, and costs nothing once compiled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import jax
from jax.core import ShapedArray, eval_jaxpr
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jaxmle._types import Atom, Foreign, FunctionTo, Tree, TreeDef
from jaxmle.runtime.jax_state import tracing

MARK = "jaxmle_called_with_"


class Call(NamedTuple):
    """A ready likelihood that was called: how it checks its data, and their tree."""

    check: FunctionTo[None]  # check(data, place)
    treedef: TreeDef


_NUMBERS: dict[Call, int] = {}  # of the marks in programs that jax may remember
_CALLS: list[Call] = []


def marked(check: FunctionTo[None] | None, data: Tree) -> Tree:
    """``data``, marked in the program under way as what a ready likelihood is given."""
    if check is None or not tracing():
        return data
    leaves, treedef = jax.tree.flatten(data)
    call = Call(check, treedef)
    if call not in _NUMBERS:
        _NUMBERS[call] = len(_CALLS)
        _CALLS.append(call)

    def called_with(*leaves: Tree) -> tuple[Tree, ...]:
        return leaves

    called_with.__name__ = called_with.__qualname__ = f"{MARK}{_NUMBERS[call]}"
    return jax.tree.unflatten(treedef, jax.jit(called_with)(*leaves))


def number_of(equation: JaxprEqn) -> int | None:
    """The number of the mark that an operation of a program is; None for any other operation."""
    name = str(equation.params.get("name", ""))
    return int(name[len(MARK) :]) if name.startswith(MARK) else None


def results_of(equation: JaxprEqn, values: Sequence[Tree]) -> list[Tree]:
    """The results of one operation of a program, given the values of its operands."""
    given = {
        atom: value
        for atom, value in zip(equation.invars, values, strict=True)
        if not isinstance(atom, Literal)
    }
    alone = jax.make_jaxpr(lambda: None)().jaxpr.replace(
        invars=list(given),
        eqns=[equation],
        outvars=list(equation.outvars),
        effects=equation.effects,
    )
    return eval_jaxpr(alone, [], *given.values())


def aval_of(atom: Atom) -> ShapedArray:
    """The shape and the type of a variable or a constant of a program."""
    return cast(ShapedArray, atom.aval)


def value_of(atom: Atom) -> Tree:
    """The value of a constant of a program."""
    return cast(Literal, atom).val


def call_of(number: int) -> Call:
    """The call with this number."""
    return _CALLS[number]


def numbers_in(jaxpr: Jaxpr | ClosedJaxpr) -> Iterator[int]:
    """The marks in a program and in those that it calls."""
    for equation in jaxpr.eqns:
        number = number_of(equation)
        if number is not None:
            yield number
            continue
        for program in programs_in(equation):
            yield from numbers_in(program)


def opened(program: Foreign) -> Jaxpr:
    """A program without its constants, if it holds any."""
    return cast(Jaxpr, getattr(program, "jaxpr", program))


def programs_in(equation: JaxprEqn) -> Iterator[Jaxpr]:
    """The programs that an operation runs: the bodies of calls, loops and branches."""
    for parameter in jax.tree.leaves(list(equation.params.values())):
        program = opened(parameter)
        if hasattr(program, "eqns"):
            yield program
