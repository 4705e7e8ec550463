"""Whether a likelihood can have kinks, read from its program: points where its score jumps.

The values of a program that depend on the parameters are followed from operation to operation.
An operation with a kink (|x|, the larger of two, a choice by the sign of a parameter, the number
that a comparison becomes) makes everything that depends on it kinked. There are two exceptions: a
value without a derivative, such as the maximum that ``logsumexp`` subtracts, and a choice between a
value and ±∞ or NaN, which defines a support. Functions with a derivative rule of jax or this
package are smooth. So are jax's special functions and all functions of this package, in which
choices guard against overflow; its one kinked density is written with ``sign``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from jaxmle._types import Array, Atom, Loglik, Tree
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.discovery.derivative_rules import TRUSTED
from jaxmle.likelihood.discovery.row_axis_rules import scan_counts
from jaxmle.likelihood.structure import shapes_of
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import aval_of, programs_in, value_of
from jaxmle.runtime.compile import remembered, tracing

OF_JAX, OF_THIS_PACKAGE = TRUSTED
KINKED_OPERATIONS = frozenset(
    [
        *("abs", "clamp", "convert_element_type", "cummax", "cummin", "max", "min"),
        *("reduce_max", "reduce_min", "sign", "sort", "top_k"),
    ]
)
CHOOSING = frozenset(["cond", "select_n"])  # by their first operand
KINKED_IN_THIS_PACKAGE = frozenset(["sign"])
SPECIAL_FUNCTIONS_OF_JAX = tuple(
    f"{OF_JAX}_src{os.sep}{room}{os.sep}special.py" for room in ("lax", "ops", "scipy")
)
KINKED_RULES = frozenset(["relu"])  # functions of jax that have a rule and are kinked


class Known(NamedTuple):
    """What is known about a value."""

    moves: bool = False  # it depends on the parameters
    is_kinked: bool = False  # not smoothly
    is_infinite: bool = False  # a constant ±∞ or NaN


FIXED = Known()


def may_have_kinks(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> bool:
    """Whether the program of a likelihood has operations by which ℓ may have kinks in the
    parameters. Only shapes and dtypes of arrays are needed, those of an evaluation: an error of
    this trace would be raised there too.
    """

    def find(loglik: Loglik) -> bool:
        def terms(x: Array, loglik: Loglik, data: Tree) -> Array:
            return terms_of(loglik, layout.unravel(x), data)

        program = jax.make_jaxpr(terms)(base, loglik, data)
        arguments = [Known(moves=True)] + [FIXED] * (len(program.jaxpr.invars) - 1)
        return any(known.is_kinked for known in _results(program.jaxpr, arguments, None))

    if tracing():
        return find(loglik)
    return remembered(loglik, ("may have kinks", layout, *shapes_of(data)), find)


def _results(
    jaxpr: Jaxpr, arguments: Sequence[Known], counted: frozenset[str] | None
) -> list[Known]:
    """What is known about the results of a program.

    Args:
        counted: the kinked operations in it; None if that depends on the caller of each.
    """
    table = dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Atom) -> Known:
        return _literal(atom) if isinstance(atom, Literal) else table.get(atom, FIXED)

    for equation in jaxpr.eqns:
        known = _applied(equation, [read(atom) for atom in equation.invars], counted)
        table.update(zip(equation.outvars, known, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _literal(atom: Atom) -> Known:
    return Known(is_infinite=not np.all(np.isfinite(np.asarray(value_of(atom), float))))


def _applied(equation: JaxprEqn, ins: list[Known], counted: frozenset[str] | None) -> list[Known]:
    """What is known about the results of one operation."""
    name = equation.primitive.name
    count = len(equation.outvars)
    if name == "stop_gradient" or not any(known.moves for known in ins):
        return [Known(is_infinite=any(known.is_infinite for known in ins))] * count
    is_kinked = any(known.is_kinked for known in ins)
    if name in KINKED_OPERATIONS or name in CHOOSING:
        kinked_here = _counted(equation) if counted is None else counted
        is_kinked |= _may_kink(equation, ins) and name in kinked_here
    programs = [] if _has_smooth_rule(equation) else list(programs_in(equation))
    if len(programs) == 1 and len(programs[0].invars) == len(ins):
        return _called(programs[0], equation, ins, counted)
    # A loop or a branch may return any of its arguments.
    for inner in programs:
        arguments = [Known(moves=True, is_kinked=is_kinked)] * len(inner.invars)
        results = _results(inner, arguments, _counted_in(inner, equation, counted))
        is_kinked |= any(known.is_kinked for known in results)
    real = [jnp.issubdtype(aval_of(var).dtype, jnp.inexact) for var in equation.outvars]
    return [Known(moves=True, is_kinked=is_kinked and is_real) for is_real in real]


def _called(
    program: Jaxpr, equation: JaxprEqn, ins: list[Known], counted: frozenset[str] | None
) -> list[Known]:
    """What is known about the results of a program called on the arguments of an operation; for a
    loop over rows, about the results of all its passes.
    """
    counted = _counted_in(program, equation, counted)
    outs = _results(program, ins, counted)
    is_scan = equation.primitive.name == "scan"
    held, carried = scan_counts(equation.params) if is_scan else (0, 0)
    for _ in range(carried and 2):  # what depends on the parameters, then what is kinked
        carry = [
            Known(*map(any, zip(before, after, strict=True)))
            for before, after in zip(ins[held : held + carried], outs[:carried], strict=True)
        ]
        ins = [*ins[:held], *carry, *ins[held + carried :]]
        outs = _results(program, ins, counted)
    return outs


def _may_kink(equation: JaxprEqn, ins: list[Known]) -> bool:
    """Whether such an operation is kinked: a choice is if it depends on parameters and is between
    two finite values; a change of type if it makes a number of a comparison, as in u (τ − (u < 0)).
    """
    name = equation.primitive.name
    if name in CHOOSING:
        return ins[0].moves and not any(known.is_infinite for known in ins[1:])
    if name == "convert_element_type":
        return not jnp.issubdtype(aval_of(equation.invars[0]).dtype, jnp.inexact)
    return True


def _has_smooth_rule(equation: JaxprEqn) -> bool:
    """Whether the operation is a function with a rule of jax or this package."""
    if not equation.primitive.name.startswith(("custom_jvp_call", "custom_vjp_call")):
        return False
    source = _source(next(programs_in(equation), None))
    place = getattr(source, "func_filename", None) or ""
    return place.startswith(TRUSTED) and getattr(source, "func_name", None) not in KINKED_RULES


def _source(program: Jaxpr | None) -> Tree:
    return getattr(program, "debug_info", None)


def _counted_in(
    program: Jaxpr, equation: JaxprEqn, counted: frozenset[str] | None
) -> frozenset[str] | None:
    """The kinked operations of an inner program; None if that depends on the caller of each.

    A function of jax may have been traced for another caller: here it belongs to its caller in this
    program.
    """
    place = getattr(_source(program), "func_filename", None) or ""
    if counted is None and place.startswith(OF_JAX):
        return _counted(equation)
    return counted


def _counted(equation: JaxprEqn) -> frozenset[str]:
    """The kinked operations of jax among those called from the code that called this one."""
    for frame in getattr(equation.source_info.traceback, "frames", ()):
        if frame.file_name.startswith(SPECIAL_FUNCTIONS_OF_JAX):
            return frozenset()
        if frame.file_name.startswith(OF_THIS_PACKAGE):
            return KINKED_IN_THIS_PACKAGE
        if not frame.file_name.startswith(OF_JAX):
            break
    return KINKED_OPERATIONS | CHOOSING
