"""Vectors and matrices on the leading axes of arrays; the axes that follow are members.

A vector is (k, ...), a matrix (k, k, ...), a number (...). A single fit has no further axis; a
batch in NumPy has one, (k, b). Conditions, numbers and vectors of members then broadcast without
further care, so the same code serves both. Under a trace, a batch is ``jax.vmap`` of the code for
one fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from jaxmle._namespace import NUMPYS, namespace
from jaxmle._types import Array, Function, Tree, ndarray


def dot(a: Array, b: Array) -> Array:
    """a'b (...) of vectors (k, ...)."""
    return _matmul(a, b) if a.ndim == b.ndim == 1 else namespace(a).sum(a * b, axis=0)


def norm(a: Array) -> Array:
    """The Euclidean length (...) of a vector (k, ...)."""
    xp = namespace(a)
    return xp.sqrt(xp.sum(a**2, axis=0))


def times(m: Array, v: Array) -> Array:
    """The vector Mv (p, ...) of a matrix (p, k, ...) and a vector (k, ...)."""
    if m.ndim == 2 and v.ndim == 1:
        return _matmul(m, v)
    return namespace(m).einsum("ij...,j...->i...", m, v)


def product(m: Array, n: Array) -> Array:
    """The matrix MN (p, q, ...) of matrices (p, k, ...) and (k, q, ...)."""
    if m.ndim == n.ndim == 2:
        return m @ n
    return namespace(m).einsum("ij...,jk...->ik...", m, n)


def quadratic(m: Array, v: Array) -> Array:
    """v'Mv (...) of a matrix (k, k, ...) and a vector (k, ...)."""
    if m.ndim == 2 and v.ndim == 1:
        return _matmul(_matmul(v, m), v)
    return dot(v, times(m, v))


def _matmul(a: Array, b: Array) -> Array:
    """``a @ b``; for small NumPy arrays in a third of the time."""
    return a.dot(b) if isinstance(b, np.ndarray) else a @ b


def transposed(m: Array) -> Array:
    """M' (k, p, ...) of a matrix (p, k, ...)."""
    return m.T if m.ndim == 2 else namespace(m).swapaxes(m, 0, 1)


def symmetric(m: Array) -> Array:
    """½(M + M') of a matrix (k, k, ...)."""
    return 0.5 * (m + transposed(m))


def diagonal(m: Array) -> Array:
    """The diagonal (k, ...) of a matrix (k, k, ...)."""
    if m.ndim == 2 and isinstance(m, np.ndarray):
        return m.diagonal()
    if m.ndim == 2 and m.shape[0] == m.shape[1]:
        # a slice, which XLA fuses; its gather takes two kernels
        return m.reshape(-1)[:: m.shape[0] + 1]
    return m[np.arange(m.shape[0]), np.arange(m.shape[0])]


def outer(a: Array, b: Array) -> Array:
    """The matrix ab' (k, p, ...) of vectors (k, ...) and (p, ...)."""
    return a[:, None] * b[None, :]


def identity(m: Array) -> Array:
    """The identity beside a matrix (k, k, ...): (k, k, 1, ...)."""
    k = m.shape[0]
    return namespace(m).eye(k, dtype=m.dtype).reshape(k, k, *[1] * (m.ndim - 2))


def column(values: ndarray, like: Array) -> ndarray:
    """Constants (k,), the same for all members, beside a vector (k, ...): (k, 1, ...)."""
    return values.reshape(len(values), *[1] * (like.ndim - 1))


def members_of(v: Array) -> tuple[int, ...]:
    """The shape of the members of a vector (k, ...): () for one fit, (b,) for a batch."""
    return v.shape[1:]


def map_arrays(function: Function, tree: Tree, *others: Tree) -> Tree:
    """``jax.tree.map`` for named tuples of NumPy arrays, in a third of the time."""
    if isinstance(tree, NUMPYS):
        return function(tree, *others)
    if isinstance(tree, tuple):
        parts = [map_arrays(function, *parts) for parts in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return None if tree is None else jax.tree.map(function, tree, *others)


def merged(function: Function, new: Tree, old: Tree) -> Tree:
    """``map_arrays`` for a function that leaves what is the same in both trees as it is."""
    if new is old:
        return old
    if isinstance(old, tuple):
        parts = [merged(function, a, b) for a, b in zip(new, old, strict=True)]
        return type(old)(*parts) if hasattr(old, "_fields") else tuple(parts)
    return function(new, old) if isinstance(old, NUMPYS) else jax.tree.map(function, new, old)


def active_positions(active: Array) -> ndarray:
    """The indices of the active members (b,). A single index is given twice, because NumPy sums a
    single member in another order than several.
    """
    (positions,) = np.nonzero(active)
    return np.resize(positions, 2) if len(positions) == 1 else positions


def members(tree: Tree, positions: ndarray) -> Tree:
    """The members of a batch in NumPy in these positions."""
    # four times as fast as leaf[..., positions]
    return map_arrays(lambda leaf: leaf.take(positions, axis=-1), tree)


def with_members(tree: Tree, positions: ndarray, part: Tree) -> Tree:
    """The tree with ``part`` in these positions, in the types of the tree."""
    return _put_members(map_arrays(np.array, tree), positions, part)


def _put_members(tree: Tree, positions: ndarray, part: Tree) -> Tree:
    """``with_members``, but written into the arrays of the tree in place."""

    def written(whole: ndarray, new: ndarray) -> ndarray:
        whole[..., positions] = new
        return whole

    return map_arrays(written, tree, part)


def where_active(
    active: ndarray, body: Function, given: tuple[Tree, ...], now: Tree, trial: Tree
) -> Tree:
    """``body(*given, now, trial)`` for the active members (b,) of a batch in NumPy, ``now`` for the
    others: only what is active is computed.
    """
    if np.all(active):
        return _in_types_of(now, body(*given, now, trial))
    positions = active_positions(active)
    if not len(positions):
        return now
    return with_members(now, positions, body(*members((*given, now, trial), positions)))


def loop_over_active(
    evaluate: Function,
    body: Function,
    given: tuple[Tree, ...],
    now: Tree,
    is_enough: Function | None = None,
) -> Tree:
    """``now = body(*given, now, point)`` of a batch in NumPy until no member is active, or it is
    enough; ``point`` is what ``evaluate`` says of ``now.trial`` (k, b).

    Members that are no longer ``active`` (b,) are taken out of the arrays, so that nothing is
    computed for them, and put back into their positions at the end.
    """
    whole = None
    positions = np.arange(len(now.active))
    while np.any(now.active) and (is_enough is None or not is_enough(now)):
        if not np.all(now.active):
            (done,) = np.nonzero(~now.active)
            if whole is None:
                whole = map_arrays(np.array, now)
            else:
                _put_members(whole, positions[done], members(now, done))
            left = active_positions(now.active)
            evaluate = evaluate_part(evaluate, left, len(now.active))
            given, now = members((given, now), left)
            positions = positions[left]
        now = _in_types_of(now, body(*given, now, evaluate(now.trial, now.active)))
    return now if whole is None else _put_members(whole, positions, now)


@dataclass(frozen=True)
class PartOfBatch:
    """The evaluation of some members of a batch, by means of that of the whole batch."""

    evaluate: Function
    positions: ndarray
    size: int  # of the batch

    def __call__(self, z: ndarray, active: ndarray) -> Tree:
        trial = np.zeros((len(z), self.size), z.dtype)
        trial[:, self.positions] = z
        needed = np.zeros(self.size, bool)
        needed[self.positions] = active
        return members(self.evaluate(trial, needed), self.positions)


def evaluate_part(evaluate: Function, positions: ndarray, size: int) -> Function:
    """The evaluation of the members in these positions of a batch of ``size``, given that of the
    batch. If the batch is itself part of another one, the evaluation of the latter is used; if its
    evaluation has a method ``of_members(positions)``, that is called.
    """
    if isinstance(evaluate, PartOfBatch):
        return evaluate_part(evaluate.evaluate, evaluate.positions[positions], evaluate.size)
    of_members = getattr(evaluate, "of_members", None)
    return PartOfBatch(evaluate, positions, size) if of_members is None else of_members(positions)


def _in_types_of(old: Tree, new: Tree) -> Tree:
    def written(a: Tree, b: Tree) -> Tree:
        if a.shape == b.shape and a.dtype == b.dtype:
            return a
        return np.broadcast_to(a, b.shape).astype(b.dtype, copy=False)

    return merged(written, new, old)
