"""The types that every room shares: what an array is, what a tree is, and what a log-likelihood
is called with. ``Any`` stands here and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from types import EllipsisType, ModuleType
from typing import Any, Protocol, TypeAlias, TypeVar

import jax
import numpy as np
import numpy.typing as npt
from jax.extend.core import Literal, Var

# An array of NumPy, which is on the host: of whatever numbers, and however many axes.
ndarray: TypeAlias = np.ndarray[tuple[Any, ...], np.dtype[Any]]
# What a computation is given and returns: a jax.Array under a trace or on the device, a NumPy array
# on the host.
Array: TypeAlias = jax.Array | ndarray
# What a user writes for an array: numbers, sequences of them, a column of a frame.
ArrayLike: TypeAlias = npt.ArrayLike
# A type of numbers, and what names one: a word, a class; None for the usual one.
DType: TypeAlias = np.dtype[Any]
DTypeLike: TypeAlias = npt.DTypeLike | None
# The lengths of the axes of an array.
Shape: TypeAlias = tuple[int, ...]
Slice: TypeAlias = "slice[Any, Any, Any]"
# What may stand between the brackets after an array.
Index: TypeAlias = "int | Slice | EllipsisType | Array | Sequence[int] | tuple[Index, ...] | None"
# A whole number of Python or of NumPy.
Integer: TypeAlias = int | np.integer[Any]
# A random key of jax, or the seed of one.
Key: TypeAlias = int | Array
# A device of jax, whose class comes from its compiled part.
Device: TypeAlias = jax.Device  # pyright: ignore[reportInvalidTypeForm]
# NumPy or jax.numpy.
Namespace: TypeAlias = ModuleType

# A pytree, whose leaves are arrays or whatever a function wants of one value a leaf; Python has no
# type for it.
Tree: TypeAlias = Any
# The structure of a tree, and the way to one of its leaves.
TreeDef: TypeAlias = jax.tree_util.PyTreeDef  # pyright: ignore[reportInvalidTypeForm]
KeyPath: TypeAlias = tuple[Any, ...]
# The tree of the parameters of a model, on their own scale.
Params: TypeAlias = Tree
# Parameters by name, as a family has them: numbers or arrays.
NamedParams: TypeAlias = dict[str, Tree]
# The tree of the data, whose leaves have one row an observation; None where a likelihood has none.
Data: TypeAlias = Tree
# The axis of the members in each leaf of a batch, as ``jax.vmap`` takes it: one for all, or a tree.
Axes: TypeAlias = Tree
# A function of trees that returns a tree: one to be compiled, differentiated or mapped.
Function: TypeAlias = Callable[..., Tree]
# The same where what it returns is known.
Result = TypeVar("Result")
FunctionTo: TypeAlias = Callable[..., Result]
# A variable or a constant of a program that jax has traced.
Atom: TypeAlias = Var | Literal

# A data frame of pandas, polars or pyarrow, or columns by name: they share no type.
DataFrame: TypeAlias = Any
# An object of a class of the user's, or of a package that need not be installed: what it has is
# asked for by name when it is met.
Foreign: TypeAlias = Any
# The name of a category or of a group, as a column holds it: a word, a number, a date.
Label: TypeAlias = Hashable
# The labels of clusters: one for each row, or a pair of such columns, or their names in a frame.
Clusters: TypeAlias = ArrayLike | Sequence[ArrayLike] | None
# Words and numbers by name, such as JSON holds.
Facts: TypeAlias = dict[str, Tree]
PathLike: TypeAlias = str | os.PathLike[str]


class Loglik(Protocol):
    """A log-likelihood: the terms of the rows, or their sum, at the parameters."""

    def __call__(self, params: Params, data: Data, /) -> Array: ...
