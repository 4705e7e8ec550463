"""Whether each term of a user's function depends on its own row of the data alone, read off the program that jax traces of it.

Where it does, a long data set may be summed in blocks of rows that stay in the cache, as a declared regression always is. Every array of
the program is followed: it either runs along the rows of the data in one axis, or does not depend on the data at all. An operation that
is not known to keep rows apart, a loop, a sum over rows, a count of rows in the arithmetic: each ends the proof, and the data are
summed whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmle.likelihood.anatomy import parts_of
from jaxmle.likelihood.combinators import Pool
from jaxmle.likelihood.contract import Opaque, data_length, terms_of
from jaxmle.likelihood.host import remembered
from jaxmle.parameters.tree import Layout

Tree = Any

FEW = 24  # rows of the second trace

ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp
    exp2 expm1 floor ge gt igamma igammac integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or polygamma pow real reduce_precision
    regularized_incomplete_beta rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta
"""
LOOPS = ("cond", "scan", "while")
REDUCTIONS = (
    "argmax",
    "argmin",
    "reduce_and",
    "reduce_max",
    "reduce_min",
    "reduce_or",
    "reduce_prod",
    "reduce_sum",
)
CUMULATIONS = ("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum")


class Along(NamedTuple):
    """How an array depends on the rows."""

    axis: int | None  # the axis that runs along the rows; None where the data do not enter
    even: frozenset[int]  # axes along which it is constant, so that it may meet rows there


class Mixed(Exception):
    """Rows are not seen to be kept apart."""


def is_rowwise(loglik: Any, layout: Layout, base: Any, data: Tree) -> bool:
    """Whether the user's function in ``loglik`` is one whose terms are proved to depend on their own rows."""
    core = loglik
    while parts_of(core) and not isinstance(core, Pool):
        core = parts_of(core)[0]
    n = data_length(data)
    if not isinstance(core, Opaque) or n is None or n <= FEW:
        return False
    shapes = [jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) for leaf in jax.tree.leaves(data)]
    key = (
        "rowwise",
        layout,
        jax.tree.structure(data),
        tuple((leaf.shape, str(leaf.dtype)) for leaf in shapes),
    )
    return bool(
        remembered(
            core,
            key,
            lambda function: _proved(
                function, layout, base, jax.tree.unflatten(jax.tree.structure(data), shapes)
            ),
        )
    )


def _proved(function: Any, layout: Layout, base: Any, data: Tree) -> bool:
    fewer = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((FEW, *leaf.shape[1:]), leaf.dtype), data
    )
    try:
        # retraced for fewer rows it must be the same program: what was computed in Python from the number of rows shows as another number
        whole, part = (
            jax.make_jaxpr(lambda x, rows: terms_of(function, layout.unravel(x), rows))(base, rows)
            for rows in (data, fewer)
        )
        leaves = [Along(None, frozenset())] + [Along(0, frozenset())] * len(jax.tree.leaves(data))
        (out,) = _follow(whole.jaxpr, leaves)
    except Exception:  # no proof; what is wrong with the function itself is told where it is summed
        return False
    return out.axis == 0 and list(_numbers(whole.jaxpr, whole.consts)) == list(
        _numbers(part.jaxpr, part.consts)
    )


def _numbers(jaxpr: Any, constants: Any) -> Iterator[Any]:
    """The operations of a program and the numbers in it, in order."""
    yield from (np.asarray(value).tobytes() for value in constants)
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        yield from (
            np.asarray(atom.val).tobytes() for atom in equation.invars if hasattr(atom, "val")
        )
        yield equation.params.get("y")  # the power of integer_pow
        for inner in _inner(equation):
            yield from _numbers(inner.jaxpr, inner.consts)


def _inner(equation: Any) -> list[Any]:
    """The programs called by an operation."""
    return [
        value
        for name in ("jaxpr", "call_jaxpr", "fun_jaxpr")
        if hasattr(value := equation.params.get(name), "consts")
    ]


def _follow(jaxpr: Any, arguments: list[Along]) -> list[Along]:
    """How the results of a program depend on the rows, given how its arguments do."""
    known: dict[Any, Along] = dict(zip(jaxpr.invars, arguments, strict=True)) | {
        var: Along(None, _ones(var)) for var in jaxpr.constvars
    }

    def read(atom: Any) -> Along:
        return (
            Along(None, frozenset()) if hasattr(atom, "val") else known[atom]
        )  # a number in the program, or a variable

    for equation in jaxpr.eqns:
        outs = _rule(equation, [read(atom) for atom in equation.invars])
        known.update(
            (var, Along(out.axis, out.even | _ones(var)))
            for var, out in zip(equation.outvars, outs, strict=True)
        )
    return [read(atom) for atom in jaxpr.outvars]


def _ones(var: Any) -> frozenset[int]:
    return frozenset(axis for axis, size in enumerate(var.aval.shape) if size == 1)


def _rule(equation: Any, ins: list[Along]) -> list[Along]:
    """How the results of an operation depend on the rows."""
    name, shapes = equation.primitive.name, [atom.aval.shape for atom in equation.invars]
    if name in LOOPS:
        raise Mixed(name)
    if inner := _inner(equation):
        return _follow(inner[0].jaxpr, ins)
    if name == "iota":
        return [
            Along(
                None,
                frozenset(range(len(equation.outvars[0].aval.shape)))
                - {equation.params["dimension"]},
            )
        ]
    if name in ELEMENTWISE.split():
        return [_together(ins, shapes, None)]
    if name in RULES:
        return [RULES[name](equation.params, ins, shapes, equation.outvars[0].aval.shape)]
    if any(one.axis is not None for one in ins):
        raise Mixed(name)
    return [Along(None, frozenset()) for _ in equation.outvars]


def _together(ins: list[Along], shapes: list[tuple[int, ...]], apart: int | None) -> Along:
    """Arrays of one shape that meet entry by entry, or end to end along the axis ``apart``."""
    arrays = [one for one, shape in zip(ins, shapes, strict=True) if shape]
    axes = {one.axis for one in arrays if one.axis is not None}
    if len(axes) > 1 or apart in axes:
        raise Mixed
    axis = next(iter(axes), None)
    if axis is not None and any(one.axis is None and axis not in one.even for one in arrays):
        raise Mixed
    even = frozenset.intersection(*(one.even for one in arrays)) if arrays else frozenset()
    return Along(axis, even - {axis, apart})


def _moved(
    one: Along, where: Callable[[int], int | None], new: frozenset[int] = frozenset()
) -> Along:
    """Axes that go elsewhere; the axis of the rows may not vanish."""
    axis = None if one.axis is None else where(one.axis)
    if one.axis is not None and axis is None:
        raise Mixed
    return Along(axis, new | frozenset(to for at in one.even if (to := where(at)) is not None))


def _broadcast(params: Any, ins: list[Along], shapes: Any, out: tuple[int, ...]) -> Along:
    to = params["broadcast_dimensions"]
    grown = frozenset(axis for axis in range(len(out)) if axis not in to) | frozenset(
        axis for at, axis in enumerate(to) if shapes[0][at] == 1
    )
    return _moved(ins[0], lambda at: to[at], grown)


def _reshape(params: Any, ins: list[Along], shapes: Any, out: tuple[int, ...]) -> Along:
    if params["dimensions"] is not None:
        raise Mixed

    def where(at: int) -> int | None:
        """The axis of the same length that as many entries come before."""
        before = int(np.prod(shapes[0][:at]))
        return next(
            (
                axis
                for axis, size in enumerate(out)
                if size == shapes[0][at] and int(np.prod(out[:axis])) == before
            ),
            None,
        )

    return _moved(ins[0], where)


def _squeeze(params: Any, ins: list[Along], shapes: Any, out: tuple[int, ...]) -> Along:
    gone = {axis % len(shapes[0]) for axis in params["dimensions"]}
    return _without(ins[0], gone)


def _without(one: Along, gone: set[int]) -> Along:
    return _moved(one, lambda at: None if at in gone else at - sum(axis < at for axis in gone))


def _transpose(params: Any, ins: list[Along], shapes: Any, out: tuple[int, ...]) -> Along:
    return _moved(ins[0], lambda at: params["permutation"].index(at))


def _reduce(params: Any, ins: list[Along], shapes: Any, out: tuple[int, ...]) -> Along:
    return _without(ins[0], set(params["axes"]))


def _cumulate(params: Any, ins: list[Along], shapes: Any, out: tuple[int, ...]) -> Along:
    return _moved(ins[0], lambda at: None if at == params["axis"] else at)


def _concatenate(params: Any, ins: list[Along], shapes: Any, out: tuple[int, ...]) -> Along:
    return _together(ins, shapes, params["dimension"])


def _stack(params: Any, ins: list[Along], shapes: Any, out: tuple[int, ...]) -> Along:
    return _moved(_together(ins, shapes, None), lambda at: at + (at >= params["axis"]))


def _slice(params: Any, ins: list[Along], shapes: Any, out: tuple[int, ...]) -> Along:
    return _moved(
        ins[0],
        lambda at: (
            at
            if out[at] == shapes[0][at]
            and (params["strides"] is None or params["strides"][at] == 1)
            else None
        ),
    )


def _gather(params: Any, ins: list[Along], shapes: Any, out: tuple[int, ...]) -> Along:
    """Entries of what does not depend on the data, such as ``effect[group]``; or of each row by itself, where the rows are a batch."""
    source, index = ins
    numbers = params["dimension_numbers"]
    if source.axis is not None and (source.axis, index.axis) not in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        raise Mixed
    free = [axis for axis in range(len(out)) if axis not in numbers.offset_dims]
    return _moved(Along(index.axis, frozenset()), lambda at: free[at] if at < len(free) else None)


def _dot(params: Any, ins: list[Along], shapes: Any, out: tuple[int, ...]) -> Along:
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    left, right = ins

    def kept(side: Any, summed: Any, batch: Any) -> Any:
        return [axis for axis in range(len(shapes[side])) if axis not in (*summed, *batch)]

    places = [
        (*left_batch, *kept(0, left_sum, left_batch)),
        (
            *right_batch,
            *[None] * len(kept(0, left_sum, left_batch)),
            *kept(1, right_sum, right_batch),
        ),
    ]
    if left.axis is not None and right.axis is not None:
        if (left.axis, right.axis) not in zip(left_batch, right_batch, strict=True):
            raise Mixed
    elif any(
        one.axis in batch
        for one, batch in ((left, left_batch), (right, right_batch))
        if one.axis is not None
    ):
        raise Mixed
    side = 0 if left.axis is not None else 1
    return _moved(
        Along(ins[side].axis, frozenset()),
        lambda at: places[side].index(at) if at in places[side] else None,
    )


RULES: dict[str, Callable[[Any, list[Along], Any, tuple[int, ...]], Along]] = {
    "broadcast_in_dim": _broadcast, "reshape": _reshape, "squeeze": _squeeze, "transpose": _transpose, "concatenate": _concatenate, "stack": _stack, "slice": _slice,
    "gather": _gather, "dot_general": _dot, **dict.fromkeys(REDUCTIONS, _reduce), **dict.fromkeys(CUMULATIONS, _cumulate),
}  # fmt: skip
