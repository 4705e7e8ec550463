"""Whether each term of a likelihood depends on its own row of the data alone, read from the program
that jax traces of it.

If so, members of unequal length may be padded, rows may be weighted, left out and resampled, and a
long data set may be summed in blocks that fit in the cache. In a declared regression rows are
independent by definition. For any other function, the program for a unique number of rows is
followed, operation by operation (``rowwise_rules``). It must equal the program for the real
lengths, because a number computed in Python from the number of rows would differ. The proof ends at
an operation that is not known to keep rows independent, a sum over rows, or a use of the number of
rows in the arithmetic.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from jaxmle._types import Array, Foreign, Function, Loglik, Tree
from jaxmle.likelihood.combinators import Pool
from jaxmle.likelihood.contract import data_length, terms_of
from jaxmle.likelihood.discovery.row_axis_rules import NotRowwise, follow
from jaxmle.likelihood.regression import Regression
from jaxmle.likelihood.structure import core_of
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import opened
from jaxmle.runtime.compile import remembered
from jaxmle.runtime.opaque import Opaque

LEAST_LENGTH = 211  # of the program that is followed: few programs have such a dimension
# The parameters of operations that may hold the number of rows.
SHAPES = frozenset(["shape", "new_sizes", "limit_indices", "slice_sizes", "length"])
OURS = str(Path(__file__).resolve().parents[2])


class Proof(NamedTuple):
    """Whether rows are proved independent, and if not, where the proof ends."""

    holds: bool
    obstacle: str = ""


def is_rowwise(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> bool:
    """Whether the user's function in ``loglik`` is one whose terms are proved to depend on
    their own rows.
    """
    core = core_of(loglik)
    return isinstance(core, Opaque) and proof_of(core, layout, base, data).holds


def proof_of(
    loglik: Loglik, layout: Layout, base: Array, data: Tree, lengths: Sequence[Tree] | None = None
) -> Proof:
    """Whether every term of a likelihood is proved to depend on its own row alone.

    Args:
        loglik: a likelihood tree; for a pool, each part is checked.
        base: the parameters (p,); only shape and dtype matter.
        data: a data set; only shapes and dtypes matter.
        lengths: all possible numbers of rows; for a pool, a tuple for each part. None for the
            number in ``data``.
    """
    core = core_of(loglik)
    if isinstance(core, Pool):
        lengths_of_parts = (
            lengths if lengths and not isinstance(lengths[0], int) else [lengths] * len(data)
        )
        parts = zip(core.members, data, lengths_of_parts, strict=True)
        proofs = [proof_of(member, layout, base, part, n) for member, part, n in parts]
        return next((proof for proof in proofs if not proof.holds), Proof(True))
    if isinstance(core, Regression):
        return Proof(True)  # by declaration its terms and predictors are functions of one row
    if isinstance(core, Opaque) and not core.discover:
        return Proof(False, "it is marked opaque, so its program is not read")
    rows = data_length(data)
    if rows is None:
        return Proof(False, "the data are closed over")
    known = sorted({int(n) for n in lengths or [rows]})
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), data)
    kinds = tuple((leaf.shape[1:], str(leaf.dtype)) for leaf in jax.tree.leaves(shapes))
    key = ("rowwise", layout, jax.tree.structure(data), kinds, tuple(known))
    return remembered(core, key, lambda function: _proved(function, layout, base, shapes, known))


def _proved(
    function: Function, layout: Layout, base: Array, data: Tree, lengths: list[int]
) -> Proof:
    chosen = _unlike(layout, data, lengths)

    def program(n: int) -> ClosedJaxpr:
        rows = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((n, *leaf.shape[1:]), leaf.dtype), data
        )
        return jax.make_jaxpr(lambda x, rows: terms_of(function, layout.unravel(x), rows))(
            base, rows
        )

    try:
        apart, *real = [program(n) for n in (chosen, *lengths)]
    except Exception as error:  # the user's code may raise anything at another number of rows
        return Proof(False, f"it fails for another number of rows ({type(error).__name__})")
    leaves = len(jax.tree.leaves(data))
    try:
        (axis,) = follow(apart, [None, *[0] * leaves], chosen)
    except NotRowwise as end:
        return Proof(False, _operation_in_words(end.path))
    if axis != 0:
        return Proof(False, "its value is not one term for each row")
    if not all(_alike(traced, apart, n, chosen) for traced, n in zip(real, lengths, strict=True)):
        return Proof(False, "it computes with the number of rows")
    return Proof(True)


def _unlike(layout: Layout, data: Tree, lengths: list[int]) -> int:
    """A length that no other dimension has, with remainders modulo 2 and 3 that differ from those
    of the shortest of ``lengths``.
    """
    taken = {size for leaf in jax.tree.leaves(data) for size in leaf.shape[1:]} | set(lengths)
    taken |= {size for leaf in layout.leaves for size in leaf.shape}
    chosen = LEAST_LENGTH
    while chosen in taken or any((chosen - lengths[0]) % k == 0 for k in (2, 3)):
        chosen += 1
    return chosen


def _operation_in_words(path: Sequence[Tree]) -> str:
    """The operation by its name in jax, and the user's line that calls it."""
    frames = (
        frame
        for equation in path
        for frame in getattr(getattr(equation.source_info, "traceback", None), "frames", ())
        if "site-packages" not in frame.file_name and not frame.file_name.startswith(OURS)
    )
    frame = next(frames, None)
    where = (
        "" if frame is None else f" in line {frame.line_num} of {os.path.basename(frame.file_name)}"
    )
    return f"the operation {path[0].primitive.name}{where}"


# ---------------------------------------------------------------- one program for every length


def _alike(first: Tree, second: Tree, n: int, m: int) -> bool:
    """Whether two programs are the same except for their numbers of rows, n and m."""
    a = opened(first)
    b = opened(second)
    constants = [getattr(program, "consts", None) or () for program in (first, second)]
    return (
        len(a.eqns) == len(b.eqns)
        and _equal(constants[0], constants[1])
        and all(_same_step(x, y, n, m) for x, y in zip(a.eqns, b.eqns, strict=True))
    )


def _same_step(x: JaxprEqn, y: JaxprEqn, n: int, m: int) -> bool:
    numbers = [[atom.val for atom in step.invars if isinstance(atom, Literal)] for step in (x, y)]
    if x.primitive is not y.primitive or not _equal(*numbers):
        return False
    if x.params.keys() != y.params.keys() or not all(
        _same_setting(name, x.params[name], y.params[name], n, m) for name in x.params
    ):
        return False
    inner = [list(_programs(step)) for step in (x, y)]
    return len(inner[0]) == len(inner[1]) and all(
        _alike(a, b, n, m) for a, b in zip(*inner, strict=True)
    )


def _same_setting(name: str, a: Foreign, b: Foreign, n: int, m: int) -> bool:
    """Whether a parameter of an operation is the same, except for the number of rows in a shape."""
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        pairs = zip(a, b, strict=False)
        return len(a) == len(b) and all(_same_setting(name, x, y, n, m) for x, y in pairs)
    if isinstance(a, int | float | np.number) and isinstance(b, int | float | np.number):
        return _equal([a], [b]) or (name in SHAPES and (a, b) == (n, m))
    if isinstance(a, str | np.dtype | type | None) and isinstance(b, str | np.dtype | type | None):
        return bool(a == b)
    return type(a) is type(b)


def _equal(a: Sequence[Tree], b: Sequence[Tree]) -> bool:
    return len(a) == len(b) and all(
        x is y
        or (np.shape(x) == np.shape(y) and np.asarray(x).tobytes() == np.asarray(y).tobytes())
        for x, y in zip(a, b, strict=True)
    )


def _programs(equation: JaxprEqn) -> Iterator[Tree]:
    """The programs that an operation runs, in the order of its parameters."""
    for name in sorted(equation.params):
        value = equation.params[name]
        for each in value if isinstance(value, tuple | list) else (value,):
            if hasattr(each, "eqns") or hasattr(each, "consts"):
                yield each
