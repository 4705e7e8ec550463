"""A likelihood's program without calls and loops, and the values in it that depend only on the
data.

Functions with their own rule remain calls: ``FUNCTIONS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.scipy.special import log_ndtr

from jaxmle._types import Array, Loglik
from jaxmle.likelihood.codes import called
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.discovery.curvature_rules import concave_increasing, convex_increasing
from jaxmle.likelihood.discovery.row_axis_rules import scan_counts
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.cse import once
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

    jaxpr: Any  # closed; its arguments are x and the leaves of the data
    fixed: tuple[Any, ...]  # variables that depend on the data alone


def straight_program(
    loglik: Loglik, layout: Layout, x: np.ndarray, leaves: Sequence[Array], treedef: Any
) -> Program:
    """The program of the terms, traced for a point x (p,) and the leaves of the data.

    Raises:
        NotFollowed: it has a loop of more than ``MAX_UNROLLED_PASSES``.
    """

    def terms(x: Array, *leaves: Array) -> Array:
        return terms_of(loglik, layout.unravel(x), jax.tree.unflatten(treedef, leaves))

    whole = jax.make_jaxpr(once(terms))(x, *leaves)
    flat = jax.make_jaxpr(lambda *args: _without_calls(whole, args))(x, *leaves)
    moving = {flat.jaxpr.invars[0]}
    fixed = [*flat.jaxpr.constvars, *flat.jaxpr.invars[1:]]
    for equation in flat.jaxpr.eqns:
        if any(not hasattr(atom, "val") and atom in moving for atom in equation.invars):
            moving.update(equation.outvars)
        else:
            fixed += equation.outvars
    used = {
        atom
        for equation in flat.jaxpr.eqns
        if not moving.isdisjoint(equation.outvars)
        for atom in equation.invars
        if not hasattr(atom, "val")
    } | {atom for atom in flat.jaxpr.outvars if not hasattr(atom, "val")}
    return Program(flat, tuple(var for var in fixed if var in used and var not in moving))


def fixed_values(program: Program, data: Sequence[Array]) -> list[Array]:
    """The values of what depends on the data alone."""
    jaxpr = program.jaxpr.jaxpr
    table = dict(zip(jaxpr.constvars, program.jaxpr.consts, strict=True))
    table |= dict(zip(jaxpr.invars[1:], data, strict=True))
    for equation in jaxpr.eqns:
        if all(hasattr(atom, "val") or atom in table for atom in equation.invars):
            table |= dict(zip(equation.outvars, _bound(equation, table), strict=True))
    return [jnp.asarray(table[var]) for var in program.fixed]


def _bound(equation: Any, table: dict[Any, Any]) -> list[Any]:
    """The results of one operation."""
    given = {atom: table[atom] for atom in equation.invars if not hasattr(atom, "val")}
    alone = jax.make_jaxpr(lambda: None)().jaxpr.replace(
        invars=list(given),
        eqns=[equation],
        outvars=list(equation.outvars),
        effects=equation.effects,
    )
    return eval_jaxpr(alone, [], *given.values())


def _without_calls(program: Any, arguments: Sequence[Array]) -> list[Array]:
    """The results of a closed program, with the called programs and those of short loops
    substituted for the calls; functions with their own rule remain calls.
    """
    table: dict[Any, Any] = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    table |= dict(zip(program.jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else table[atom]

    for equation in program.jaxpr.eqns:
        inner = called(equation)
        if equation.primitive.name == "scan":
            outs = _unrolled(equation, [read(atom) for atom in equation.invars])
        elif inner is not None and rule_of_call(equation, inner) is None:
            outs = _without_calls(inner, [read(atom) for atom in equation.invars])
        else:
            outs = _bound(equation, table)
        table |= dict(zip(equation.outvars, outs, strict=True))
    return [read(atom) for atom in program.jaxpr.outvars]


def _unrolled(equation: Any, ins: list[Any]) -> list[Array]:
    """The results of a loop over rows, pass by pass."""
    params = equation.params
    if params["length"] > MAX_UNROLLED_PASSES:
        raise NotFollowed
    held, carried = scan_counts(params)
    carry = ins[held : held + carried]
    passes: list[Any] = [None] * params["length"]
    order = range(params["length"])
    for i in reversed(order) if params["reverse"] else order:
        rows = [leaf[i] for leaf in ins[held + carried :]]
        outs = _without_calls(params["jaxpr"], [*ins[:held], *carry, *rows])
        carry = outs[:carried]
        passes[i] = outs[carried:]
    return [*carry, *(jnp.stack(column) for column in zip(*passes, strict=True))]


# By name: the function, whose program a call with that name must have, and its rule.
FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., np.ndarray]]] = {
    "logaddexp": (jnp.logaddexp, convex_increasing),
    "softplus": (softplus, convex_increasing),
    "log_ndtr": (log_ndtr, concave_increasing),
}


def rule_of_call(equation: Any, inner: Any) -> Callable[..., np.ndarray] | None:
    """The rule of a call of one of the ``FUNCTIONS``; None for any other."""
    name = equation.params.get("name") or inner.jaxpr.debug_info.func_name
    name = str(name).split(" ")[0].split(".")[-1]
    if name not in FUNCTIONS or equation.primitive.name not in CALLS_WITH_A_RULE:
        return None
    function, rule = FUNCTIONS[name]
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
    expected = jax.make_jaxpr(function)(*shapes)
    return rule if _operations(expected.jaxpr) == _operations(inner.jaxpr) else None


def _operations(jaxpr: Any) -> list[Any]:
    """The operations of a program and the numbers in it, without the shapes."""
    listed: list[Any] = []
    for equation in jaxpr.eqns:
        inner = called(equation)
        if inner is not None:
            listed += _operations(inner.jaxpr)
        elif equation.primitive.name not in REARRANGING - {"select_n"}:
            numbers = [a.val for a in equation.invars if np.ndim(getattr(a, "val", [])) == 0]
            # if rows are mapped over, a zero may be an array
            listed += [equation.primitive.name, *(float(n) for n in numbers if n != 0)]
    return listed
