"""A likelihood's program without calls and loops, and the values in it that depend only on the
data.

Functions with their own rule remain calls: ``FUNCTIONS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.scipy.special import log_ndtr

from jaxmle._types import Array, Atom, Function, FunctionTo, Loglik, Tree, TreeDef, ndarray
from jaxmle.likelihood.codes import called
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.discovery.curvature_rules import concave_increasing, convex_increasing
from jaxmle.likelihood.discovery.row_axis_rules import scan_counts
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import aval_of, results_of, value_of
from jaxmle.runtime.cse import without_repeats
from jaxmle.special.logistic import softplus

MAX_UNROLLED_PASSES = 512  # of a loop over the rows
REARRANGING = frozenset(
    [
        "broadcast_in_dim",
        "concatenate",
        "copy",
        "copy_p",
        "dynamic_slice",
        "dynamic_update_slice",
        "expand_dims",
        "gather",
        "pad",
        "reshape",
        "rev",
        "scatter",
        "select_n",
        "slice",
        "split",
        "squeeze",
        "stack",
        "transpose",
    ]
)
CALLS_WITH_A_RULE = frozenset(
    ["jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"]
)


class NotFollowed(Exception):
    """The program of a likelihood is longer than these rules follow."""


class Program(NamedTuple):
    """A program without calls and loops, and which of its values depend only on the data."""

    jaxpr: ClosedJaxpr  # closed; its arguments are x and the leaves of the data
    fixed: tuple[Tree, ...]  # variables that depend on the data alone
    # for each operation the rule of the function that it calls; None where that has none
    rules: tuple[FunctionTo[ndarray] | None, ...]


def straight_program(
    loglik: Loglik, layout: Layout, x: ndarray, leaves: Sequence[Array], treedef: TreeDef
) -> Program:
    """The program of the terms, traced for a point x (p,) and the leaves of the data.

    Raises:
        NotFollowed: it has a loop of more than ``MAX_UNROLLED_PASSES``.
    """

    def terms(x: Array, *leaves: Array) -> Array:
        return terms_of(loglik, layout.unravel(x), jax.tree.unflatten(treedef, leaves))

    whole = jax.make_jaxpr(without_repeats(terms))(x, *leaves)
    flat = jax.make_jaxpr(lambda *args: _without_calls(whole, args))(x, *leaves)
    moving = {flat.jaxpr.invars[0]}
    fixed = [*flat.jaxpr.constvars, *flat.jaxpr.invars[1:]]
    for equation in flat.jaxpr.eqns:
        if any(not isinstance(atom, Literal) and atom in moving for atom in equation.invars):
            moving.update(equation.outvars)
        else:
            fixed += equation.outvars
    used = {
        atom
        for equation in flat.jaxpr.eqns
        if not moving.isdisjoint(equation.outvars)
        for atom in equation.invars
        if not isinstance(atom, Literal)
    } | {atom for atom in flat.jaxpr.outvars if not isinstance(atom, Literal)}
    fixed = [var for var in fixed if var in used and var not in moving]
    return Program(flat, tuple(fixed), tuple(map(_rule_of_call, flat.jaxpr.eqns)))


def fixed_values(program: Program, data: Sequence[Array]) -> list[Array]:
    """The values of what depends on the data alone."""
    jaxpr = program.jaxpr.jaxpr
    table = dict(zip(jaxpr.constvars, program.jaxpr.consts, strict=True))
    table |= dict(zip(jaxpr.invars[1:], data, strict=True))
    for equation in jaxpr.eqns:
        if all(isinstance(atom, Literal) or atom in table for atom in equation.invars):
            values = [value_of(a) if isinstance(a, Literal) else table[a] for a in equation.invars]
            table |= dict(zip(equation.outvars, results_of(equation, values), strict=True))
    return [jnp.asarray(table[var]) for var in program.fixed]


def _without_calls(program: ClosedJaxpr, arguments: Sequence[Array]) -> list[Array]:
    """The results of a closed program, with the called programs and those of short loops
    substituted for the calls; functions with their own rule remain calls.
    """
    table: dict[Tree, Tree] = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    table |= dict(zip(program.jaxpr.invars, arguments, strict=True))

    def read(atom: Atom) -> Tree:
        return atom.val if isinstance(atom, Literal) else table[atom]

    for equation in program.jaxpr.eqns:
        inner = called(equation)
        if equation.primitive.name == "scan":
            outs = _unrolled(equation, [read(atom) for atom in equation.invars])
        elif inner is not None and _rule_of_call(equation) is None:
            outs = _without_calls(inner, [read(atom) for atom in equation.invars])
        else:
            outs = results_of(equation, [read(atom) for atom in equation.invars])
        table |= dict(zip(equation.outvars, outs, strict=True))
    return [read(atom) for atom in program.jaxpr.outvars]


def _unrolled(equation: JaxprEqn, ins: list[Tree]) -> list[Array]:
    """The results of a loop over rows, pass by pass."""
    params = equation.params
    if params["length"] > MAX_UNROLLED_PASSES:
        raise NotFollowed
    held, carried = scan_counts(params)
    carry = ins[held : held + carried]
    passes: list[Tree] = [None] * params["length"]
    order = range(params["length"])
    for i in reversed(order) if params["reverse"] else order:
        rows = [leaf[i] for leaf in ins[held + carried :]]
        outs = _without_calls(params["jaxpr"], [*ins[:held], *carry, *rows])
        carry = outs[:carried]
        passes[i] = outs[carried:]
    return [*carry, *(jnp.stack(column) for column in zip(*passes, strict=True))]


# By name: the function, whose program a call with that name must have, and its rule.
FUNCTIONS: dict[str, tuple[Function, FunctionTo[ndarray]]] = {
    "logaddexp": (jnp.logaddexp, convex_increasing),
    "softplus": (softplus, convex_increasing),
    "log_ndtr": (log_ndtr, concave_increasing),
}


def _rule_of_call(equation: JaxprEqn) -> FunctionTo[ndarray] | None:
    """The rule of a call of one of the ``FUNCTIONS``; None for any other operation."""
    inner = called(equation)
    if inner is None:
        return None
    name = equation.params.get("name") or inner.jaxpr.debug_info.func_name
    name = str(name).split(" ")[0].split(".")[-1]
    if name not in FUNCTIONS or equation.primitive.name not in CALLS_WITH_A_RULE:
        return None
    function, rule = FUNCTIONS[name]
    shapes = [jax.ShapeDtypeStruct(aval_of(v).shape, aval_of(v).dtype) for v in equation.invars]
    expected = jax.make_jaxpr(function)(*shapes)
    return rule if _operations(expected.jaxpr) == _operations(inner.jaxpr) else None


def _operations(jaxpr: Jaxpr) -> list[Tree]:
    """The operations of a program and the numbers in it, without the shapes."""
    listed: list[Tree] = []
    for equation in jaxpr.eqns:
        inner = called(equation)
        if inner is not None:
            listed += _operations(inner.jaxpr)
        elif equation.primitive.name not in REARRANGING - {"select_n"}:
            numbers = [value_of(a) for a in equation.invars if np.ndim(getattr(a, "val", [])) == 0]
            # if rows are mapped over, a zero may be an array
            listed += [equation.primitive.name, *(float(n) for n in numbers if n != 0)]
    return listed
