"""The coding of data where a user's function calls a built-in model or family:
``lambda params, data: model(params, data)``.

A ready likelihood that is fitted itself is shown its data by ``checks.check_coding``. Inside of a
function it meets tracers only, perhaps recoded ones. So the program is traced once with what each
call is given marked (``parameters.calls``), and run on the data as far as the marks: the values
there are checked as the model checks its own. Rows that the function masks are no error. A call
inside ``cond`` or ``while_loop`` is not seen.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from jaxmle._types import Array, Atom, FunctionTo, Loglik, Tree, ndarray
from jaxmle.closures.copies import viewed
from jaxmle.likelihood.checks import Place, in_row
from jaxmle.likelihood.codes import called
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.discovery.row_axis_rules import scan_counts
from jaxmle.likelihood.regression import Regression
from jaxmle.likelihood.structure import parts_of, shapes_of
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import call_of, number_of, numbers_in, opened
from jaxmle.runtime.compile import remembered
from jaxmle.runtime.opaque import Opaque

READY = ("jaxmle.models", "jaxmle.families")
MAX_VALUES_AT_ONCE = 2**22  # numbers of members that are run together, 32 MB
OTHER_VALUE = 0.37  # by which a value is changed to see whether it matters; integers by one

Met = dict[tuple[int, ...], list[Array]]
# for each call that was reached, by its number and its position in the program, the leaves of its
# data


class Calls(NamedTuple):
    """A program in which built-in likelihoods are called."""

    met: FunctionTo[Met]  # (x, data): the arguments of each call
    terms: FunctionTo[Array]  # (x, data, call): the terms when the data of one call are changed


def has_user_function(loglik: Loglik) -> bool:
    """Whether the likelihood contains a function written by a user; built-in models know their
    codes.
    """
    parts = parts_of(loglik)
    if parts:
        return any(map(has_user_function, parts))
    holder = loglik.function if isinstance(loglik, Opaque) else getattr(loglik, "density", None)
    return isinstance(loglik, Opaque | Regression) and not hasattr(holder, "check_data")


def check_calls(
    loglik: Loglik, layout: Layout, base: Array, data: Tree, place: Place = in_row
) -> None:
    """Raise a ValueError if a user's function calls a built-in likelihood with data in a coding
    that it does not expect.

    Args:
        base: the start (p,).
        data: one data set on the host.
        place: describes a value, given its index.
    """
    calls = calls_in(loglik, layout, base, data)
    if calls is None:
        return
    x = np.asarray(base)
    _check(calls, x, jax.tree.map(viewed, data), place)


def check_stacked_calls(
    loglik: Loglik, layout: Layout, base: Array, member_data: Tree, stacked: Tree, shared: Tree
) -> None:
    """``check_calls`` for the members of a batch.

    Args:
        member_data: the data of any member; of all members if every leaf is shared.
        stacked: the data of all members, along the leading axis of each leaf.
        shared: which leaves all members share; these do not have the leading axis.
    """
    if all(jax.tree.leaves(shared)):
        check_calls(loglik, layout, base, member_data)
        return
    calls = calls_in(loglik, layout, base, member_data)
    if calls is None:
        return
    x = np.asarray(base)
    axes = jax.tree.map(lambda same: None if same else 0, shared)
    leaves = jax.tree.leaves(member_data)
    together = max(1, MAX_VALUES_AT_ONCE // max(sum(leaf.size for leaf in leaves), 1))
    members = next(
        len(leaf)
        for leaf, same in zip(jax.tree.leaves(stacked), jax.tree.leaves(shared), strict=True)
        if not same
    )
    met = jax.jit(jax.vmap(calls.met, in_axes=(None, axes)))

    def cut(places: Tree) -> Tree:
        return jax.tree.map(
            lambda leaf, same: viewed(leaf) if same else np.asarray(leaf)[places], stacked, shared
        )

    for first in range(0, members, together):
        try:
            _show(met(x, cut(slice(first, first + together))), in_row)
        except ValueError:  # a member has an error; which one is found separately
            for member in range(first, min(first + together, members)):
                _check(calls, x, cut(member), _of_member(member))


def _of_member(member: int) -> Place:
    return lambda index: f"{in_row(index)} of member {member}"


def _show(met: Met, place: Place) -> None:
    for (number, *_), leaves in met.items():
        call = call_of(number)
        call.check(jax.tree.unflatten(call.treedef, [np.asarray(leaf) for leaf in leaves]), place)


def _check(calls: Calls, x: ndarray, data: Tree, place: Place) -> None:
    """Show the data to each call; those that it refuses again without the rows whose terms do not
    change with them.
    """
    for which, leaves in calls.met(x, data).items():
        try:
            _show({which: leaves}, place)
        except ValueError:
            counting = _counting(calls, which, x, data)
            if counting is None:
                raise
            if counting.any():
                some: list[Array] = [np.asarray(leaf)[counting] for leaf in leaves]
                _show({which: some}, _shifted(place, np.flatnonzero(counting)))


def _shifted(place: Place, rows: ndarray) -> Place:
    """The position, among all rows, of a value in a selection of rows."""
    return lambda index: place((int(rows[index[0]]), *index[1:]) if index else index)


def calls_in(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> Calls | None:
    """The calls of built-in likelihoods in a user's functions; None if there are none."""
    if not any(name in sys.modules for name in READY) or not has_user_function(loglik):
        return None

    def find(loglik: Loglik) -> Calls | None:
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), data)
        program = jax.make_jaxpr(lambda x, rows: terms_of(loglik, layout.unravel(x), rows))(
            base, shapes
        )
        return _calls(program) if any(True for _ in numbers_in(program.jaxpr)) else None

    return remembered(loglik, ("ready calls", layout, *shapes_of(data)), find)


def _calls(program: ClosedJaxpr) -> Calls:
    def run(x: Array, data: Tree, moved: tuple[int, ...] | None) -> tuple[list[Array], Met]:
        return _run(program, [x, *jax.tree.leaves(data)], (), moved)

    def met(x: Array, data: Tree) -> Met:
        return run(x, data, None)[1]

    def terms(x: Array, data: Tree, moved: tuple[int, ...] | None) -> Array:
        return run(x, data, moved)[0][0]

    return Calls(jax.jit(met), jax.jit(terms, static_argnums=2))


# ---------------------------------------------------------------- the program up to the marks


def _run(
    program: ClosedJaxpr,
    arguments: list[Array],
    path: tuple[int, ...],
    moved: tuple[int, ...] | None,
) -> tuple[list[Array], Met]:
    """The results of a program at ``path`` inside others, and the arguments of its marked calls;
    the data of the call ``moved`` are changed.
    """
    jaxpr = opened(program)
    table = dict(zip(jaxpr.invars, arguments, strict=True))
    table |= dict(zip(jaxpr.constvars, getattr(program, "consts", ()), strict=True))
    met: Met = {}

    def read(atom: Atom) -> Tree:
        return atom.val if isinstance(atom, Literal) else table[atom]

    for place, equation in enumerate(jaxpr.eqns):
        ins = [read(atom) for atom in equation.invars]
        outs, inner = _bound(equation, ins, (*path, place), moved)
        met |= inner
        table.update(zip(equation.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars], met


def _bound(
    equation: JaxprEqn, ins: list[Array], path: tuple[int, ...], moved: tuple[int, ...] | None
) -> tuple[list[Array], Met]:
    number = number_of(equation)
    if number is not None:
        which = (number, *path)
        return [_moved(leaf) for leaf in ins] if which == moved else ins, {which: ins}
    if equation.primitive.name == "scan":
        return _scanned(equation.params, ins, path, moved)
    inner = called(equation)
    if inner is not None:
        return _run(inner, ins, path, moved)
    outs = equation.primitive.bind(*ins, **equation.params)
    return (outs if equation.primitive.multiple_results else [outs]), {}


def _scanned(
    params: Tree, ins: list[Array], path: tuple[int, ...], moved: tuple[int, ...] | None
) -> tuple[list[Array], Met]:
    """A loop over rows, with the arguments of marked calls stacked over iterations."""
    first, carried = scan_counts(params)
    constants = ins[:first]
    begin = ins[first : first + carried]

    def turn(carry: list[Array], row: list[Array]) -> tuple[list[Array], Tree]:
        outs, met = _run(params["jaxpr"], [*constants, *carry, *row], path, moved)
        return outs[:carried], (outs[carried:], met)

    rows = ins[first + carried :]
    end, (stacked, met) = jax.lax.scan(
        turn, begin, rows, length=params["length"], reverse=params["reverse"]
    )
    return [*end, *stacked], met


def _moved(leaf: Array) -> Array:
    leaf = jnp.asarray(leaf)
    if leaf.dtype == bool:
        return ~leaf
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return leaf + 1
    return leaf + OTHER_VALUE * (1 + jnp.abs(leaf))


def _counting(calls: Calls, which: tuple[int, ...], x: ndarray, data: Tree) -> ndarray | None:
    """The rows whose terms change with the data of a call, (n,); None if there are no terms, or not
    one for each row of the call.
    """
    beside = x + 1e-3 * (1 + np.abs(x)) * np.cos(np.arange(x.size)).astype(x.dtype)
    counting: Tree = False
    for point in (x, beside):  # at the start alone, a factor may be 0
        unchanged, other = (np.asarray(calls.terms(point, data, moved)) for moved in (None, which))
        counting = counting | (unchanged != other) | ~np.isfinite(unchanged)
    rows = calls.met(x, data)[which]
    alike = np.ndim(counting) == 1 and all(np.shape(leaf)[:1] == counting.shape for leaf in rows)
    return np.asarray(counting) if alike else None
