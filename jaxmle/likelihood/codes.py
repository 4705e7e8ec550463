"""Which leaves of the data, and which arrays that a likelihood closes over, are used as indices,
read from the program that jax traces.

Both are followed through operations that keep their values: conversions, changes of shape, selected
columns, an added integer, and the step by which jax counts a negative index from the end. If such
an array is the index of a gather or a scatter, the leaf is an index. Closed-over arrays are
numbered after the leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.extend.core import Literal as Constant

from jaxmle._types import Atom, Foreign, Tree, ndarray
from jaxmle.runtime.calls import aval_of, opened, value_of

Pick = tuple[int, int, int, int]  # an axis of the leaf, and the slice of it


# How a code has been limited: to at least 0, as by ``bincount``; or to the branches of ``switch``.
Limit = Literal["none", "floor", "clamp"]
# What an index chooses: an entry, an entry where it is at least 0, a branch, a column of 0 and 1.
Choice = Literal["entry", "floored", "branch", "one_hot"]


class Code(NamedTuple):
    """An array of the program whose values are those of a leaf plus a constant, before any limit;
    ``axes`` are the corresponding axes of the leaf.
    """

    leaf: int
    picks: tuple[Pick, ...]
    shift: int
    axes: tuple[int | None, ...]
    limit: Limit = "none"


class Index(NamedTuple):
    """A leaf that indexes an axis of ``size`` entries."""

    leaf: int
    picks: tuple[Pick, ...]
    shift: int
    size: int
    of_data: bool  # whether the indexed array itself depends on the data
    looped: bool = False  # whether it is read inside a loop
    choice: Choice = "entry"


# What is known about an array: a code, several codes side by side in its last axis, an integer, or
# nothing.
Known = Code | tuple[Code | None, ...] | int | None


class Var(NamedTuple):
    """What is known about an array, and whether it depends on the data."""

    known: Known
    of_data: bool


NO_CODE = Var(None, False)


# ---------------------------------------------------------------- the program


def indices_of(program: ClosedJaxpr, data: Tree) -> tuple[tuple[Index, ...], dict[int, ndarray]]:
    """The places where the program of a log-likelihood indexes an axis by a leaf of the data or by
    an array that it closes over, and these arrays by their numbers.
    """
    first = len(jax.tree.leaves(data))
    constants = dict(enumerate(program.consts, first))
    table = dict(zip(program.jaxpr.constvars, codes_captured(program, first), strict=True))
    indexed = _results(program.jaxpr, [NO_CODE, *codes_of(data)], table)[1]
    indices = tuple(dict.fromkeys(indexed))
    numbers = {index.leaf for index in indices if index.leaf >= first}
    return indices, {number: np.asarray(constants[number]) for number in numbers}


def codes_of(data: Tree) -> list[Var]:
    """The leaves of the data as codes of themselves."""
    return [Var(_code(i, leaf), True) for i, leaf in enumerate(jax.tree.leaves(data))]


def codes_captured(program: ClosedJaxpr, first: int) -> list[Var]:
    """The arrays that a program has captured as codes, numbered from ``first``."""
    return [Var(_code(i, value), False) for i, value in enumerate(program.consts, first)]


def _code(number: int, leaf: Tree) -> Code | None:
    kind = getattr(leaf.dtype, "kind", "")  # an extended type, of keys, has none
    return Code(number, (), 0, tuple(range(np.ndim(leaf)))) if kind in ("i", "u", "f") else None


def literal(atom: Atom) -> Var:
    """A literal number in the program; its value is kept if it is a single integer."""
    value = np.asarray(value_of(atom))
    return Var(int(value) if value.ndim == 0 and value.dtype.kind in "iu" else None, False)


def called(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The program that an operation calls once with its own arguments."""
    if equation.primitive.name in ("scan", "cond", "while"):
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner: Foreign = equation.params.get(name)
        if hasattr(inner, "eqns") and not hasattr(inner, "consts") and not inner.constvars:
            inner = ClosedJaxpr(inner, ())  # of ``checkpoint``, and in jax 0.12 of a custom rule
        if hasattr(inner, "consts") and len(inner.jaxpr.invars) == len(equation.invars):
            return inner
    return None


def _results(
    jaxpr: Jaxpr, arguments: list[Var], constants: dict[Tree, Var] | None = None
) -> tuple[list[Var], list[Index]]:
    """What is known about the results of a program, and the indices in it."""
    table = (constants or {}) | dict(zip(jaxpr.invars, arguments, strict=True))
    indices: list[Index] = []

    def read(atom: Atom) -> Var:
        return literal(atom) if isinstance(atom, Constant) else table.get(atom, NO_CODE)

    for equation in jaxpr.eqns:
        ins = [read(atom) for atom in equation.invars]
        if equation.primitive.name != "cond":  # its branches are followed when it is applied
            indices += indexed(equation, ins)
        outs, inner = applied(equation, ins)
        indices += inner
        table.update(zip(equation.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars], indices


def applied(equation: JaxprEqn, ins: list[Var]) -> tuple[list[Var], list[Index]]:
    """What is known about the results of an operation, and the indices in the programs that it
    calls.
    """
    name = equation.primitive.name
    params = equation.params
    of_data = any(var.of_data for var in ins)
    unknown = [Var(None, of_data) for _ in equation.outvars]
    if name == "scan":
        body = opened(params["jaxpr"])
        return unknown, _looped(_results(body, _of_one_turn(equation, body, ins))[1])
    if name == "cond":
        chosen = list(indexed(equation, ins))
        branches = [_results(opened(branch), ins[1:])[1] for branch in params["branches"]]
        return unknown, _looped([*chosen, *(index for branch in branches for index in branch)])
    if name == "while":
        body = opened(params["body_jaxpr"])
        first = params["cond_nconsts"]
        constants = ins[first : first + params["body_nconsts"]]
        carried = [Var(None, var.of_data) for var in ins[first + params["body_nconsts"] :]]
        return unknown, _looped(_results(body, [*constants, *carried])[1])
    inner = called(equation)
    if inner is not None:
        return _results(inner.jaxpr, ins)
    rule = CODE_RULES.get(name)
    known = None if rule is None else rule(equation, [var.known for var in ins])
    return [Var(known, of_data)] if len(unknown) == 1 else unknown, []


def _looped(indices: list[Index]) -> list[Index]:
    return [index._replace(looped=True) for index in indices]


def _of_one_turn(equation: JaxprEqn, body: Tree, ins: list[Var]) -> list[Var]:
    """What one iteration of a scan receives: a row of the arrays it runs over; about the rest only
    whether it depends on the data, because it may change.
    """
    given = []
    for atom, inner, var in zip(equation.invars, body.invars, ins, strict=True):
        row = isinstance(var.known, Code) and aval_of(atom).shape != aval_of(inner).shape
        known = None
        if row:
            known = var.known._replace(axes=var.known.axes[1:])  # type: ignore[union-attr]
        given.append(Var(known, var.of_data))
    return given


def indexed(equation: JaxprEqn, ins: list[Var]) -> Iterator[Index]:
    """The indices that an operation takes: pairs of a code and the number of entries that it
    indexes.
    """
    name = equation.primitive.name
    params = equation.params
    if name in ("cond", "select_n"):
        yield from _branch(equation, ins)
        return
    if (entries := one_hot_entries(equation)) is not None:
        yield from _index(ins[0].known, entries, NO_CODE, "one_hot")
        return
    if name == "dynamic_slice":
        shape = aval_of(equation.invars[0]).shape
        for axis, var in enumerate(ins[1:]):
            yield from _index(var.known, shape[axis] - params["slice_sizes"][axis] + 1, ins[0])
        return
    if name == "gather":
        places = params["dimension_numbers"].start_index_map
        window = dict(enumerate(params["slice_sizes"]))
    elif name.startswith("scatter"):
        places = params["dimension_numbers"].scatter_dims_to_operand_dims
        window = dict.fromkeys(params["dimension_numbers"].inserted_window_dims, 1)
    else:
        return
    index = ins[1].known
    each = index if isinstance(index, tuple) and not isinstance(index, Code) else (index,)
    if len(each) != len(places) or filled_on_purpose(params):
        return
    shape = aval_of(equation.invars[0]).shape
    adds = name != "gather"
    for axis, component in zip(places, each, strict=True):
        if axis in window:
            floored = isinstance(component, Code) and component.limit == "floor" and not adds
            choice: Choice = "floored" if floored else "entry"
            yield from _index(component, shape[axis] - window[axis] + 1, ins[0], choice)


def filled_on_purpose(params: Tree) -> bool:
    """Whether the value read out of range was given explicitly: ``at[…].get(mode="fill",
    fill_value=0)``.
    """
    value = params.get("fill_value")
    return value is not None and value == value


def _index(known: Known, size: int, operand: Var, choice: Choice = "entry") -> Iterator[Index]:
    if isinstance(known, Code) and known.limit != "clamp":
        index = Index(known.leaf, known.picks, known.shift, int(size), operand.of_data)
        yield index._replace(choice=choice)


def _branch(equation: JaxprEqn, ins: list[Var]) -> Iterator[Index]:
    """The code by which ``switch`` chooses a branch, which it clamps first."""
    known = ins[0].known
    if equation.primitive.name == "cond":
        branches = len(equation.params["branches"])
    else:
        branches = len(ins) - 1
    if isinstance(known, Code):
        yield from _index(known._replace(limit="none"), branches, NO_CODE, "branch")


def one_hot_entries(equation: JaxprEqn) -> int | None:
    """The number of columns if an equation is a call of ``jax.nn.one_hot``; otherwise None."""
    if equation.params.get("name") != "_one_hot":
        return None
    inner = called(equation)
    for made in () if inner is None else inner.jaxpr.eqns:
        if made.primitive.name == "iota":
            return int(made.params["shape"][made.params["dimension"]])
    return None


# ---------------------------------------------------------------- operations that keep the values


def _same(equation: JaxprEqn, ins: list[Known]) -> Known:
    kind = aval_of(equation.outvars[0]).dtype
    return (
        ins[0] if jnp.issubdtype(kind, jnp.integer) or jnp.issubdtype(kind, jnp.floating) else None
    )


def _added(sign: int) -> Callable[[Tree, list[Known]], Known]:
    def rule(equation: JaxprEqn, ins: list[Known]) -> Known:
        left, right = ins
        if any(isinstance(known, Code) and known.limit == "clamp" for known in ins):
            return None
        if isinstance(left, Code) and isinstance(right, int):
            return left._replace(shift=left.shift + sign * right)
        if sign > 0 and isinstance(right, Code) and isinstance(left, int):
            return right._replace(shift=right.shift + left)
        return None

    return rule


def _floored(equation: JaxprEqn, ins: list[Known]) -> Known:
    """``max(i, 0)``, by which ``bincount`` counts a negative code as 0."""
    codes = [known for known in ins if isinstance(known, Code)]
    return codes[0]._replace(limit="floor") if 0 in ins and len(codes) == 1 else None


def _clamped(equation: JaxprEqn, ins: list[Known]) -> Known:
    """``clamp(0, i, k − 1)``, by which ``switch`` chooses one of its k branches."""
    low, code, high = ins
    if isinstance(code, Code) and low == 0 and isinstance(high, int):
        return code._replace(limit="clamp")
    return None


def _selected(equation: JaxprEqn, ins: list[Known]) -> Known:
    """``select(i < 0, i, i + n)``, by which jax counts from the end, is treated as i."""
    _, *cases = ins
    first = cases[0]
    same = all(isinstance(c, Code) and c[:2] == first[:2] for c in cases)  # type: ignore[index]
    return first if isinstance(first, Code) and same else None


def _broadcast(equation: JaxprEqn, ins: list[Known]) -> Known:
    known = ins[0]
    to = equation.params["broadcast_dimensions"]
    if not isinstance(known, Code):
        return known if isinstance(known, int) else None
    before = aval_of(equation.invars[0]).shape
    after = aval_of(equation.outvars[0]).shape
    axes: list[int | None] = [None] * len(after)
    for old, new in enumerate(to):
        axes[new] = known.axes[old] if before[old] == after[new] else None
    return known._replace(axes=tuple(axes))


def _reshaped(equation: JaxprEqn, ins: list[Known]) -> Known:
    """Axes of length one may be added or dropped; after any other reshape the axes are unknown."""
    known = ins[0]
    if not isinstance(known, Code):
        return known if isinstance(known, int) else None
    before = aval_of(equation.invars[0]).shape
    after = aval_of(equation.outvars[0]).shape
    long = [axis for axis, size in zip(known.axes, before, strict=True) if size != 1]
    if [size for size in before if size != 1] != [size for size in after if size != 1]:
        long = [None] * sum(size != 1 for size in after)
    queue = iter(long)
    return known._replace(axes=tuple(None if size == 1 else next(queue) for size in after))


def _transposed(equation: JaxprEqn, ins: list[Known]) -> Known:
    known = ins[0]
    if not isinstance(known, Code):
        return None
    return known._replace(axes=tuple(known.axes[i] for i in equation.params["permutation"]))


def _sliced(equation: JaxprEqn, ins: list[Known]) -> Known:
    """Columns of a leaf are selected. A slice of rows, or a second slice, may contain more values
    than are read; what does not matter is found out later.
    """
    known = ins[0]
    params = equation.params
    if not isinstance(known, Code):
        return None
    picks = list(known.picks)
    strides = params["strides"] or [1] * len(known.axes)
    taken = {axis for axis, *_ in picks}
    for axis, start, stop, stride, size in zip(
        known.axes,
        params["start_indices"],
        params["limit_indices"],
        strides,
        aval_of(equation.invars[0]).shape,
        strict=True,
    ):
        if axis and axis not in taken and (start, stop, stride) != (0, size, 1):
            picks.append((axis, int(start), int(stop), int(stride)))
    return known._replace(picks=tuple(picks))


def _side_by_side(equation: JaxprEqn, ins: list[Known]) -> Known:
    """Indices of several axes, joined in the last axis."""
    params = equation.params
    shape = aval_of(equation.outvars[0]).shape
    axis = params.get("dimension", params.get("axis"))
    if axis != len(shape) - 1 or shape[-1] != len(ins):
        return None
    return tuple(component if isinstance(component, Code) else None for component in ins)


CODE_RULES: dict[str, Callable[[Tree, list[Known]], Known]] = {
    "convert_element_type": _same, "copy": _same, "add": _added(1), "sub": _added(-1),
    "select_n": _selected, "broadcast_in_dim": _broadcast, "reshape": _reshaped,
    "squeeze": _reshaped, "transpose": _transposed, "slice": _sliced, "concatenate": _side_by_side,
    "stack": _side_by_side, "max": _floored, "clamp": _clamped,
}  # fmt: skip
