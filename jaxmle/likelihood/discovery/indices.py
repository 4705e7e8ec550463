"""Codes used as indices: which leaves of the data and which closed-over arrays a user's function
uses as indices, read from its program, and whether they are in range.

jax takes a negative index from the end and a large one for the last entry, and loses the derivative
of the latter: rows of a missing group (−1 in pandas) join the last one, and the fit converges. The
program that jax traces is followed from the leaves of the data to every operation that reads or
adds by index; what the leaf holds is then compared with the length of the axis. It is not an error
if the function itself puts an index in range (``where``, ``clip``) or does not use it. A
closed-over array may count from the end on purpose, unless it has an entry for each row.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jaxmle._types import Array, Atom, Loglik, Slice, Tree, ndarray
from jaxmle.closures.program_digest import program_digest
from jaxmle.likelihood.checks import in_row
from jaxmle.likelihood.codes import (
    Index,
    Pick,
    called,
    filled_on_purpose,
    indices_of,
    literal,
)
from jaxmle.likelihood.combinators import Pool
from jaxmle.likelihood.contract import data_length, terms_of
from jaxmle.likelihood.discovery.ready_calls import has_user_function
from jaxmle.likelihood.masked import matters
from jaxmle.likelihood.structure import parts_of, program_of_terms, shapes_of
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import aval_of, opened
from jaxmle.runtime.compile import may_change_by_itself, remembered, tracing, warn_once
from jaxmle.runtime.opaque import Opaque
from jaxmle.runtime.user_code import is_users

PROBE_PERIOD = 7919  # a prime, so that the sampled rows do not follow a period of the codes
# a number that a program knows, or one for each axis
Number = int | None | tuple[int | None, ...]
LOOKED_AT = 16  # number of rows that decide whether a column of floats holds codes


CHOOSES = {
    "entry": "indexes an axis of {} entries",
    "floored": "indexes an axis of {} entries",
    "branch": "chooses among {} branches",
    "one_hot": "has one_hot make {} columns",
}
# The smallest value of a code, if it is not that of the first entry: ``one_hot(codes - 1, k - 1)``
# makes the first group the reference.
LEAST = {"floored": -np.inf, "one_hot": 0}
DROP_OR_ADD = (
    "−1 is pandas' code for a missing value: drop such rows from every leaf, or give "
    "them their own entry"
)


class Members(NamedTuple):
    """The members of a batch: their leaves, each with ``lead`` axes over members, and the position
    of a value among them.
    """

    leaves: list[Array]
    lead: list[int]
    place: Callable[[int, tuple[int, ...]], str]  # of a leaf and an index in it, in words
    data_of: Callable[[int, tuple[int, ...]], Tree]  # the data of the member that it belongs to
    equal: bool  # whether all have the same number of rows


def check_fixed_indices(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> None:
    """Raise a ValueError for an index that is a number in the function and outside its axis."""
    parts = parts_of(loglik)
    pooled = isinstance(loglik, Pool)
    for part, rows in zip(parts, data if pooled else (data,) * len(parts), strict=True):
        check_fixed_indices(part, layout, base, rows)
    if parts or not has_user_function(loglik):
        return
    program = program_of_terms(loglik, layout, base, data)
    if isinstance(loglik, Opaque):
        _warn_of_draws(loglik, layout, base, data, program)

    def find(_: Loglik) -> str:
        return fixed_index_out_of_range(program)

    key = ("fixed indices", layout, *shapes_of(data))
    sentence = find(loglik) if tracing() else remembered(loglik, key, find)
    if sentence:
        raise ValueError(sentence)


def _warn_of_draws(
    loglik: Opaque, layout: Layout, base: Array, data: Tree, program: ClosedJaxpr
) -> None:
    """Warn of a function that gives another program when it is traced again, as one that draws
    random numbers, reads the clock or counts its calls.
    """
    cause = may_change_by_itself(loglik)
    if not cause:
        return

    def differs(loglik: Loglik) -> bool:
        again = jax.make_jaxpr(lambda x, rows: terms_of(loglik, layout.unravel(x), rows))
        return program_digest(program) != program_digest(again(base, data))

    key = ("traced again", layout, *shapes_of(data))
    is_draw = differs(loglik) if tracing() else remembered(loglik, key, differs)
    if is_draw:
        warn_once(
            loglik.function,
            f"depends on {cause}, and has other values each time it is traced: the estimates are "
            "those of one draw, and other quantities may be those of another. Draw or read it "
            "once, outside, and let the likelihood close over the array or pass it as data",
        )


def check_indices(
    loglik: Loglik, layout: Layout, base: Array, data: Tree, members: Members | None = None
) -> None:
    """Raise a ValueError for a code that lies outside the axis it indexes.

    Args:
        base: the start (p,).
        data: one checked data set; for a batch any member.
        members: of a batch. If its members have unequal lengths, arrays that are indexed by rows or
            depend on the data are not checked.
    """
    if not has_user_function(loglik):
        return
    check_fixed_indices(loglik, layout, base, data)
    try:
        program = program_of_terms(loglik, layout, base, data)
    except ValueError:  # a pool of parts that return one number: errors of a part are raised above
        return
    leaves = jax.tree.leaves(data)
    holds_integers = any(jnp.issubdtype(value.dtype, jnp.integer) for value in program.consts)
    if not any(map(_may_hold_codes, leaves)) and not holds_integers:
        return
    if members is None:
        alone = _row_of_one
        members = Members(leaves, [0] * len(leaves), alone, lambda leaf, place: data, True)
    indices, constants = remembered(
        loglik,
        ("indices", layout, *shapes_of(data)),
        lambda portable: indices_of(program, data),
    )
    for index in indices:
        if index.leaf in constants:
            _check_constant(constants[index.leaf], index, loglik, layout, base, data, members.equal)
            continue
        rows = np.shape(leaves[index.leaf])[0]
        if not members.equal and (index.of_data or index.size == rows):
            continue
        _check_leaf(members, index, loglik, layout, base, data)


def _check_leaf(
    members: Members, index: Index, loglik: Loglik, layout: Layout, base: Array, data: Tree
) -> None:
    """Raise a ValueError if a leaf of the data is out of range in a member."""
    values = np.asarray(members.leaves[index.leaf])
    bad = _outside(values, index, members.lead[index.leaf])
    if bad is None:
        return
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    if index.looped or matters(loglik, layout, base, members.data_of(index.leaf, place)):
        path = jax.tree_util.tree_leaves_with_path(data)[index.leaf][0]
        name = "data" + jax.tree_util.keystr(path)
        place_in_words = members.place(index.leaf, place)
        raise ValueError(_sentence(name, values[place], place_in_words, int(bad.sum()), index))


def _check_constant(
    values: ndarray,
    index: Index,
    loglik: Loglik,
    layout: Layout,
    base: Array,
    data: Tree,
    equal: bool,
) -> None:
    """Raise a ValueError if an array that the function closes over is out of range."""
    rows = data_length(data)
    if index.of_data and not equal:
        return
    by_row = values.ndim > 0 and len(values) == rows and len(values) > index.size
    bad = _outside(values, index, 0)
    if bad is not None and not by_row:
        below = -index.size if index.choice == "entry" else 0
        bad &= (values + index.shift >= index.size) | (values + index.shift < below)
    if bad is None or not bad.any():
        return
    if index.looped or matters(loglik, layout, base, data):
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f"entry {place[0] if len(place) == 1 else place}"
        name = "an array that the likelihood closes over"
        raise ValueError(_sentence(name, values[place], where, int(bad.sum()), index))


def _row_of_one(leaf: int, index: tuple[int, ...]) -> str:
    return in_row(index)


def _sentence(name: str, value: Tree, place: str, number: int, index: Index) -> str:
    others = f" ({number} such values)" if number > 1 else ""
    shift = f"with {index.shift:+d} it " if index.shift else ""
    of_data = name.startswith("data")
    verb = "is" if of_data else "holds"
    first = (
        f"{name} {verb} {value:g} in {place}{others}, and {shift}"
        f"{CHOOSES[index.choice].format(index.size)}, 0 … {index.size - 1}"
    )
    if index.choice == "branch":
        return (
            f"{first}: switch uses the nearest branch, so the row would join another "
            f"group. {DROP_OR_ADD}"
        )
    if index.choice == "one_hot":
        return (
            f"{first}: its dummy columns are all zero, so the row would be fitted without "
            f"a group. {DROP_OR_ADD}; if these rows are the reference group, write "
            f"one_hot(codes, {index.size + 1}) and drop their column"
        )
    if value + index.shift < 0:
        return (
            f"{first}: a negative index counts from the end, so the row would join "
            f"another group. {DROP_OR_ADD}"
        )
    return (
        f"{first}: an index beyond the end is read as the last and has no score. Codes "
        f"must be 0, 1, …: numpy.unique({name if of_data else 'codes'}, "
        "return_inverse=True)[1]; or give the parameter one entry for each code"
    )


def _may_hold_codes(leaf: Array) -> bool:
    """Whether a leaf holds integers, or floats with an integer column, judged by some rows."""
    if leaf.dtype.kind != "f" or leaf.ndim > 2:
        return bool(leaf.dtype.kind in "iu")
    first = np.asarray(leaf[0])
    if not (np.rint(first) == first).any():
        return False
    rows = np.arange(min(LOOKED_AT, len(leaf))) * PROBE_PERIOD % len(leaf)
    some = np.asarray(leaf)[rows]
    return bool(((np.rint(some) == some).all(axis=0) & (some != some[0]).any(axis=0)).any())


def _picked(picks: tuple[Pick, ...], axes: int, lead: int) -> tuple[Slice, ...]:
    cut = [slice(None)] * axes
    for axis, *bounds in picks:
        cut[axis + lead] = slice(*bounds)
    return tuple(cut)


def _outside(leaf: ndarray, index: Index, lead: int) -> ndarray | None:
    """Where the values of a leaf are not valid indices; None if all are."""
    cut = _picked(index.picks, leaf.ndim, lead)
    values = leaf[cut]
    if not values.size:
        return None
    low = values.min() + index.shift
    high = values.max() + index.shift
    if not (low < 0 or high >= index.size):
        return None
    bad = np.zeros(leaf.shape, bool)
    least = LEAST.get(index.choice, -index.shift)
    bad[cut] = (values < least) | (values + index.shift >= index.size)
    return bad if bad.any() else None


# ---------------------------------------------------------------- numbers as indices


def fixed_index_out_of_range(program: ClosedJaxpr) -> str:
    """A sentence about the first index that is a number in the function itself, such as
    ``theta[3]`` of two entries, and lies outside its axis; '' if there is none.
    """
    for equation, number, size in _fixed_indices(program.jaxpr, {}, None):
        if not 0 <= number < size:
            entries = "1 entry" if size == 1 else f"{size} entries"
            # jax has added the size to a negative index.
            written = number if number >= 0 else number - size
            return (
                f"{_users_line(equation)}index {written} is out of range: the axis has {entries}. "
                "jax does not say so, and takes the nearest entry or none. Correct the index, or "
                "give the parameter as many start values as the likelihood reads"
            )
    return ""


def _users_line(equation: JaxprEqn) -> str:
    """The line of the user's code that an operation comes from, with a colon after it."""
    frames = getattr(getattr(equation.source_info, "traceback", None), "frames", ())
    for frame in frames:
        if is_users(frame.file_name):
            return f"line {frame.line_num} of {os.path.basename(frame.file_name)}: "
    return ""


def _fixed_indices(
    jaxpr: Jaxpr, known: dict[Tree, Number], caller: JaxprEqn | None
) -> Iterator[tuple[JaxprEqn, int, int]]:
    """The operations of a program that index by a number, with the number and the length of the
    axis. ``known`` are the numbers among its variables, which are added; one for each axis where
    several are joined, as jax 0.8 does for ``matrix[0, 2]``.
    """

    def read(atom: Atom) -> Number:
        if isinstance(atom, Literal):
            return cast("int | None", literal(atom).known)
        return known.get(atom)

    for equation in jaxpr.eqns:
        ins = [read(atom) for atom in equation.invars]
        place = caller or equation
        for number, size in _numbers_as_indices(equation, ins):
            yield place, number, size
        inner = called(equation)
        if inner is not None:
            given = dict(zip(inner.jaxpr.invars, ins, strict=True))
            yield from _fixed_indices(inner.jaxpr, given, place)
            outs = [given.get(out) for out in inner.jaxpr.outvars if not isinstance(out, Literal)]
            if len(outs) == len(equation.outvars):
                known.update(zip(equation.outvars, outs, strict=True))
            continue
        for body in _bodies(equation):
            yield from _fixed_indices(body, {}, place)
        rule = RULES_OF_NUMBERS.get(equation.primitive.name)
        if rule is not None:
            known[equation.outvars[0]] = rule(ins)
        elif equation.primitive.name == "concatenate":
            single = all(math.prod(aval_of(atom).shape) == 1 for atom in equation.invars)
            known[equation.outvars[0]] = tuple(map(_single, ins)) if single else None


def _bodies(equation: JaxprEqn) -> Iterator[Jaxpr]:
    """The programs that a loop or a branch runs."""
    if equation.primitive.name in ("scan", "cond", "while"):
        held = [equation.params.get(name) for name in ("jaxpr", "cond_jaxpr", "body_jaxpr")]
        for body in (*held, *equation.params.get("branches", ())):
            if body is not None:
                yield opened(body)


def _single(number: Number) -> int | None:
    return None if isinstance(number, tuple) else number


def _numbers_as_indices(equation: JaxprEqn, ins: list[Number]) -> Iterator[tuple[int, int]]:
    """The numbers by which an operation reads or writes single entries, with the length of the
    axis.
    """
    name = equation.primitive.name
    params = equation.params
    if name == "dynamic_slice":
        shape = aval_of(equation.invars[0]).shape
        for size, width, number in zip(shape, params["slice_sizes"], ins[1:], strict=True):
            if isinstance(number, int) and width == 1:
                yield number, size
        return
    if name == "gather":
        axes = params["dimension_numbers"].start_index_map
        is_entry = all(params["slice_sizes"][axis] == 1 for axis in axes)
    elif name.startswith("scatter"):
        axes = params["dimension_numbers"].scatter_dims_to_operand_dims
        is_entry = set(axes) <= set(params["dimension_numbers"].inserted_window_dims)
    else:
        return
    is_chosen = params.get("mode") is jax.lax.GatherScatterMode.CLIP or filled_on_purpose(params)
    numbers = ins[1] if isinstance(ins[1], tuple) else (ins[1],)
    if len(axes) == len(numbers) and is_entry and not is_chosen:
        shape = aval_of(equation.invars[0]).shape
        for axis, number in zip(axes, numbers, strict=True):
            if number is not None:
                yield number, shape[axis]


def _of_numbers(compute: Callable[[int, int], int]) -> Callable[[list[Number]], Number]:
    def rule(ins: list[Number]) -> int | None:
        left, right = map(_single, ins)
        return None if left is None or right is None else int(compute(left, right))

    return rule


RULES_OF_NUMBERS: dict[str, Callable[[list[Number]], Number]] = {
    "add": _of_numbers(operator.add),
    "sub": _of_numbers(operator.sub),
    "mul": _of_numbers(operator.mul),
    "lt": _of_numbers(operator.lt),
    "select_n": lambda ins: ins[1 + ins[0]] if isinstance(ins[0], int) else None,
    **dict.fromkeys(
        ("convert_element_type", "broadcast_in_dim", "reshape", "squeeze"),
        lambda ins: _single(ins[0]),
    ),
}
