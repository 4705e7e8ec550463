"""Whether a code out of range matters: a program is run again with the values read there changed,
and its terms are compared.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jaxmle._types import Array, Atom, Function, Loglik, Tree
from jaxmle.likelihood.codes import (
    NO_CODE,
    Code,
    Var,
    applied,
    called,
    codes_captured,
    codes_of,
    indexed,
    literal,
    one_hot_entries,
)
from jaxmle.likelihood.contract import terms_of
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import aval_of
from jaxmle.runtime.compile import compiled


def matters(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> bool:
    """Whether the terms depend on what is read, or lost, at codes out of range; they do not if the
    function masks them.
    """

    def make(loglik: Loglik) -> Function:
        def both(x: Array, data: Tree) -> list[Array]:
            program = jax.make_jaxpr(lambda x, rows: terms_of(loglik, layout.unravel(x), rows))(
                x, data
            )
            inputs = [x, *jax.tree.leaves(data)]
            known = [NO_CODE, *codes_of(data)]
            return [changed_terms(program, inputs, known, change) for change in (1, 2)]

        return both

    x = np.asarray(base)
    moved = x + 1e-3 * (1 + np.abs(x)) * np.cos(np.arange(x.size)).astype(x.dtype)
    piece = compiled(loglik, ("code counts", layout), make)
    for point in (x, moved):  # at the start alone, a factor may be 0
        first, second = (np.asarray(terms) for terms in piece(point, data))
        if np.all(np.isfinite(first)) and not np.array_equal(first, second):
            return True
    return False


def changed_terms(
    program: ClosedJaxpr, inputs: list[Array], known: list[Var], change: int
) -> Array:
    """The terms of a program when ``change`` is read out of range. Additions out of range are lost,
    or go to the last entry if ``change`` is 1 and to the first if it is 2.
    """
    state = [Seen(var, value, value) for var, value in zip(known, inputs, strict=True)]
    captured = [
        Seen(*entry)
        for entry in zip(
            codes_captured(program, len(known) - 1), program.consts, program.consts, strict=True
        )
    ]
    (out,) = _run(program.jaxpr, captured, state, change)
    return out.value


class Seen(NamedTuple):
    """An array of a running program: what is known about it, its value, and the value of a code
    before jax counts it from the end.
    """

    var: Var
    value: Array
    code: Array


def _run(jaxpr: Jaxpr, constants: list[Seen], arguments: list[Seen], change: int) -> list[Seen]:
    table = dict(zip(jaxpr.invars, arguments, strict=True))
    table |= dict(zip(jaxpr.constvars, constants, strict=True))

    def read(atom: Atom) -> Seen:
        if not isinstance(atom, Literal):
            return table[atom]
        return Seen(literal(atom), atom.val, atom.val)

    for equation in jaxpr.eqns:
        ins = [read(atom) for atom in equation.invars]
        inner = called(equation)
        if inner is not None and one_hot_entries(equation) is not None:
            outs = _changed_columns(equation, ins, change)
        elif inner is not None:
            captured = [Seen(NO_CODE, value, value) for value in inner.consts]
            outs = _run(inner.jaxpr, captured, ins, change)
        else:
            outs = _bound(equation, ins, change)
        table.update(zip(equation.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bound(equation: JaxprEqn, ins: list[Seen], change: int) -> list[Seen]:
    """One operation, with its codes followed and its indices out of range changed."""
    primitive = equation.primitive
    params = equation.params
    values = [entry.value for entry in ins]
    vars_, _ = applied(equation, [entry.var for entry in ins])
    takes = list(indexed(equation, [entry.var for entry in ins]))
    if takes and primitive.name == "select_n":
        value = _changed_branch(equation, ins, values, change)
        return [Seen(vars_[0], value, value)]
    if takes and primitive.name not in ("dynamic_slice", "cond"):
        return [Seen(vars_[0], (value := _changed(equation, ins, values, change)), value)]
    outs = primitive.bind(*values, **params)
    outs = outs if primitive.multiple_results else [outs]
    codes = outs
    if vars_ and vars_[0].known is not None:
        before = BEFORE_LIMITS.get(primitive.name)
        codes = (
            [_limited(ins, before).code]
            if before is not None
            else [primitive.bind(*[entry.code for entry in ins], **params)]
        )
    return [Seen(*entry) for entry in zip(vars_, outs, codes, strict=True)]


def _changed(equation: JaxprEqn, ins: list[Seen], values: list[Array], change: int) -> Array:
    """A read or an addition by index, changed where the code is out of range."""
    primitive = equation.primitive
    params = equation.params
    shape = aval_of(equation.invars[0]).shape
    numbers = params["dimension_numbers"]
    code = ins[1].code
    if primitive.name == "gather":
        places = numbers.start_index_map
        most = [shape[axis] - params["slice_sizes"][axis] for axis in places]
    else:
        places = numbers.scatter_dims_to_operand_dims
        most = [shape[axis] - 1 for axis in places]
    too_large = code > jnp.broadcast_to(jnp.asarray(most), jnp.shape(code))
    out = jnp.any((code < 0) | too_large, axis=-1)
    # jnp.bincount counts negative codes in the first entry.
    if primitive.name != "gather" and change == 1:
        last = jnp.where(code < 0, jnp.asarray(most, values[1].dtype), values[1])
        return primitive.bind(values[0], last, *values[2:], **params)
    if primitive.name != "gather":
        gone = jnp.broadcast_to(out[..., None], jnp.shape(values[1]))
        inside = jnp.where(gone, jnp.zeros_like(values[1]), values[1])
        return primitive.bind(values[0], inside, *values[2:], **params)
    result = primitive.bind(*values, **params)
    free = [axis for axis in range(result.ndim) if axis not in numbers.offset_dims]
    spread = [result.shape[axis] if axis in free else 1 for axis in range(result.ndim)]
    gone = jnp.broadcast_to(out.reshape(spread), result.shape)
    return jnp.where(gone, jnp.asarray(change, result.dtype), result)


# Operations that limit a code to a range, and the position of the code among their arguments.
BEFORE_LIMITS = {"select_n": 1, "clamp": 1, "max": 0}


def _limited(ins: list[Seen], place: int) -> Seen:
    """The code among the arguments of an operation that limits it."""
    codes = [entry for entry in ins if isinstance(entry.var.known, Code)]
    return codes[0] if codes else ins[place]


def _changed_branch(equation: JaxprEqn, ins: list[Seen], values: list[Array], change: int) -> Array:
    """The result of ``switch``, changed if the code is not a branch."""
    result = equation.primitive.bind(*values, **equation.params)
    code = jnp.broadcast_to(ins[0].code, jnp.shape(values[0]))
    out = jnp.reshape((code < 0) | (code >= len(ins) - 1), jnp.shape(values[0]))
    return jnp.where(out, jnp.asarray(change, result.dtype), result)


def _changed_columns(equation: JaxprEqn, ins: list[Seen], change: int) -> list[Seen]:
    """The columns of ``one_hot``, changed if the code has no column."""
    inner = cast(ClosedJaxpr, called(equation))
    given = [Seen(NO_CODE, entry.value, entry.value) for entry in ins]
    captured = [Seen(NO_CODE, value, value) for value in inner.consts]
    (columns,) = _run(inner.jaxpr, captured, given, change)
    size = one_hot_entries(equation) or 0
    code = ins[0].code
    axes = [axis for axis, n in enumerate(columns.value.shape) if n == size]
    shapes = [np.delete(columns.value.shape, axis).tolist() for axis in axes]
    axis = next(a for a, rest in zip(axes, shapes, strict=True) if rest == list(code.shape))
    gone = jnp.expand_dims((code < 0) | (code >= size), axis)
    value = jnp.where(gone, jnp.asarray(change, columns.value.dtype), columns.value)
    return [Seen(NO_CODE, value, value)]
