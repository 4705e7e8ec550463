"""Which columns of a table form the data of a likelihood, and how."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, KeyPath, Tree
from jaxmle.parameters.arguments import shown

Entry = str | float  # a column by its name, or a constant for each row


@dataclass(frozen=True)
class Columns:
    """The columns of a table that a fit reads.

    ``tree`` is the tree of the data: each leaf is an ``Entry``, for a leaf (n,), or a tuple of
    them, for a matrix (n, q).
    """

    tree: Tree
    weights: str | None = None
    clusters: tuple[str, ...] = ()

    @property
    def key(self) -> Hashable:
        """What a compiled program knows about the columns."""
        leaves, treedef = jax.tree.flatten(self.tree, is_leaf=_is_leaf)
        return tuple(leaves), treedef, self.weights

    @property
    def data_names(self) -> tuple[str, ...]:
        """The columns of the data, each once."""
        leaves = jax.tree.leaves(self.tree, is_leaf=_is_leaf)
        return tuple(dict.fromkeys(name for leaf in leaves for name in names_in(leaf)))

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are read as numbers, each once: of the data, then the weights."""
        weights = () if self.weights is None else (self.weights,)
        return tuple(dict.fromkeys((*self.data_names, *weights)))

    @property
    def all_names(self) -> tuple[str, ...]:
        """All columns that are read."""
        return tuple(dict.fromkeys((*self.names, *self.clusters)))

    def data(self, arrays: Sequence[Array]) -> Tree:
        """The data tree from one array (n,) for each of ``names``."""
        held = dict(zip(self.names, arrays, strict=True))
        xp = namespace(arrays[0])
        n = arrays[0].shape[0]

        def column(entry: Entry) -> Array:
            return held[entry] if isinstance(entry, str) else xp.full(n, float(entry))

        def leaf(entries: Tree) -> Array:
            if not isinstance(entries, tuple):
                return column(entries)
            return xp.stack([column(entry) for entry in entries], axis=1)

        return jax.tree.map(leaf, self.tree, is_leaf=_is_leaf)

    def weights_in(self, arrays: Sequence[Array]) -> Array | None:
        """The weights (n,) from the same arrays; None where there are none."""
        return None if self.weights is None else arrays[self.names.index(self.weights)]


def columns_of(columns: Tree) -> Tree:
    """The tree of ``Columns`` from what a user gives, its lists as tuples.

    Raises:
        TypeError: for a leaf that is neither a name nor a list of names and constants.
        ValueError: if no column is named.
    """
    read = jax.tree_util.tree_map_with_path(_leaf, columns, is_leaf=_is_leaf)
    if not Columns(read).names:
        raise ValueError(
            "columns does not name a column of the files: give the data of the model "
            "with column names instead of arrays, such as "
            "{'x': ['price', 'age'], 'y': 'sold'}"
        )
    return read


def names_in(leaf: Tree) -> tuple[str, ...]:
    """The columns that form one leaf."""
    entries = leaf if isinstance(leaf, tuple) else (leaf,)
    return tuple(entry for entry in entries if isinstance(entry, str))


def _is_leaf(node: Tree) -> bool:
    is_row = isinstance(node, list | tuple) and all(_is_entry(entry) for entry in node)
    return _is_entry(node) or (is_row and len(node) > 0)


def _is_entry(node: Tree) -> bool:
    is_number = isinstance(node, int | float | np.number) and not isinstance(node, bool)
    return isinstance(node, str) or is_number


def _leaf(path: KeyPath, leaf: Tree) -> Tree:
    if not _is_leaf(leaf):
        raise TypeError(
            f"columns{jax.tree_util.keystr(path)} must be the name of a column, for a leaf (n,), "
            "or a list of names and constants, for a matrix, such as [1.0, 'price', 'age']; got "
            f"{shown(leaf)}"
        )
    if isinstance(leaf, list | tuple):
        return tuple(entry if isinstance(entry, str) else float(entry) for entry in leaf)
    return leaf if isinstance(leaf, str) else float(leaf)
