"""Which array module a value belongs to: code that runs on the host and under a trace asks here."""

from __future__ import annotations

import functools
import types

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmle._types import Namespace, Tree

# a name is found faster than a field of a module
ARRAY = np.ndarray
BOOLEAN = np.bool_
DOUBLE = np.float64
NUMPYS = (np.ndarray, np.generic)
ANY: Tree = np.logical_or.reduce
ALL: Tree = np.logical_and.reduce
SUM: Tree = np.add.reduce
MAX: Tree = np.maximum.reduce
MIN: Tree = np.minimum.reduce
# Python's numbers that take the type of an array or a number of NumPy's beside which they stand
WEAK_BESIDE: dict[Tree, tuple[type, ...]] = {
    np.float64: (float, int, bool),
    np.float32: (float, int, bool),
    np.int64: (int, bool),
    np.int32: (int, bool),
    np.bool_: (bool,),
}

# ---------------------------------------------------------------- NumPy, faster for single numbers

# The state of one fit is mostly single numbers, for which NumPy's functions take twenty times as
# long as the arithmetic. These return what NumPy's do, for numbers as numbers, never as arrays of
# no axis.


def _where(condition: Tree, a: Tree, b: Tree) -> Tree:
    if type(condition) is not BOOLEAN:
        return np.where(condition, a, b)
    chosen, other = (a, b) if condition else (b, a)
    kind = type(chosen)
    beside = type(other)
    if kind is ARRAY:
        if beside is ARRAY:
            if chosen.dtype is other.dtype and chosen.shape == other.shape:
                return chosen
        elif beside in WEAK_BESIDE.get(chosen.dtype.type, ()) or beside is chosen.dtype.type:
            return chosen
    elif kind in WEAK_BESIDE:
        if beside is kind or beside in WEAK_BESIDE[kind]:
            return chosen
    elif kind in WEAK_BESIDE.get(beside, ()):
        return beside(chosen)
    elif beside is ARRAY and kind in WEAK_BESIDE.get(other.dtype.type, ()):
        filled = np.empty_like(other)
        filled.fill(chosen)
        return filled
    number: Tree = np.where(condition, a, b)
    return number[()]


def _any(x: Tree, axis: Tree = None, keepdims: bool = False) -> Tree:
    return x if type(x) is BOOLEAN else ANY(x, axis=axis, keepdims=keepdims)


def _all(x: Tree, axis: Tree = None, keepdims: bool = False) -> Tree:
    return x if type(x) is BOOLEAN else ALL(x, axis=axis, keepdims=keepdims)


def _sum(x: Tree, axis: Tree = None, keepdims: bool = False) -> Tree:
    return SUM(x, axis=axis, keepdims=keepdims)


def _max(x: Tree, axis: Tree = None, keepdims: bool = False) -> Tree:
    return MAX(x, axis=axis, keepdims=keepdims)


def _min(x: Tree, axis: Tree = None, keepdims: bool = False) -> Tree:
    return MIN(x, axis=axis, keepdims=keepdims)


def _maximum(a: Tree, b: Tree) -> Tree:
    if type(a) is DOUBLE and type(b) in (DOUBLE, float):
        return a if a >= b or a != a else DOUBLE(b)
    return np.maximum(a, b)


def _minimum(a: Tree, b: Tree) -> Tree:
    if type(a) is DOUBLE and type(b) in (DOUBLE, float):
        return a if a <= b or a != a else DOUBLE(b)
    return np.minimum(a, b)


def _clip(x: Tree, low: Tree, high: Tree) -> Tree:
    above = x if low is None else _maximum(x, low)
    return above if high is None else _minimum(above, high)


def _zeros(shape: Tree, dtype: Tree = float) -> Tree:
    return np.zeros(shape, dtype)[()]


def _ones(shape: Tree, dtype: Tree = float) -> Tree:
    return np.ones(shape, dtype)[()]


def _zeros_like(x: Tree, shape: Tree = None) -> Tree:
    return np.zeros(np.shape(x) if shape is None else shape, x.dtype)[()]


FOR_NUMBERS = {
    "finfo": functools.cache(np.finfo),
    "where": _where,
    "any": _any,
    "all": _all,
    "sum": _sum,
    "max": _max,
    "min": _min,
    "maximum": _maximum,
    "minimum": _minimum,
    "clip": _clip,
    "zeros": _zeros,
    "ones": _ones,
    "zeros_like": _zeros_like,
}
HOST: Tree = types.ModuleType("host", "NumPy, and quick with numbers.")
# ``np.f2py`` and the like are imported when they are first used: by us never
HOST.__dict__.update({name: vars(np)[name] for name in np.__all__ if name in vars(np)})
HOST.__dict__.update(FOR_NUMBERS)


# ---------------------------------------------------------------- which of the two


def namespace(x: object) -> Namespace:
    """NumPy for what is NumPy's, on the host; jax.numpy for the rest, under a trace."""
    return HOST if isinstance(x, NUMPYS) else jnp


def is_traced(value: object) -> bool:
    """Whether a value is an array of somebody's ``jit``, ``vmap`` or ``grad``: it has a shape and
    no numbers yet.
    """
    return isinstance(value, Tracer)


def is_nowhere(condition: object) -> bool:
    """Whether a condition is known, on the host, to hold for nobody: what follows from it need not
    be computed then.
    """
    return isinstance(condition, NUMPYS) and not _any(condition)
