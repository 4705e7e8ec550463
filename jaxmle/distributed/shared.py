"""Rows that several devices share, and how a shard of them forms the data of a likelihood."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Data, Tree, TreeDef, ndarray
from jaxmle.distributed.placement import Placement, on_host
from jaxmle.likelihood.combinators import Weights


@dataclass(frozen=True)
class Leaves:
    """How the arrays of a shard form the data of a likelihood: the leaves of the tree, then the
    weights if there are any. Numbers are widened here, in the block being summed.
    """

    treedef: TreeDef
    weighted: bool

    @property
    def key(self) -> Hashable:
        """What a compiled program knows about the arrays."""
        return self

    def data(self, arrays: Sequence[Array]) -> Tree:
        """The data of some rows."""
        leaves = arrays[:-1] if self.weighted else arrays
        return jax.tree.unflatten(self.treedef, [_widened(leaf) for leaf in leaves])

    def weights_in(self, arrays: Sequence[Array]) -> Array | None:
        """The weights of the same rows; None where there are none."""
        return _widened(arrays[-1]) if self.weighted else None


def _widened(leaf: Array) -> Array:
    """The numbers as a fit computes them: see ``likelihood.checks.host_data``."""
    if isinstance(leaf, np.ndarray):
        return leaf
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf.astype(jnp.result_type(float))
    whole = jnp.issubdtype(leaf.dtype, jnp.integer)
    return leaf.astype(jnp.result_type(int)) if whole else leaf


@dataclass(frozen=True, eq=False)
class SharedRows:
    """Rows that several devices share."""

    data: Data  # arrays (n, …) whose first axis is shared; the rows of padding among them
    placement: Placement
    present: jax.Array  # (n,) bool: False for a row that is padding
    weights: Weights | None = None
    clusters: tuple[jax.Array, ...] | None = None  # labels (n,), or a pair of them

    @property
    def length(self) -> int:
        """The number of rows, including padding."""
        return int(self.present.shape[0])

    @property
    def arrays(self) -> tuple[jax.Array, ...]:
        """The leaves of the data, then the weights."""
        weights = () if self.weights is None else (self.weights.values,)
        return (*jax.tree.leaves(self.data), *weights)

    @property
    def leaves(self) -> Leaves:
        """How ``arrays`` make the data."""
        return Leaves(jax.tree.structure(self.data), self.weights is not None)

    def sample(self, few: int) -> tuple[ndarray, ...]:
        """About ``few`` rows of ``arrays``, evenly spaced over all shards, on every host."""
        stride = max(1, self.length // max(few, 1))
        *leaves, present = self.gathered((*self.arrays, self.present), stride)
        return tuple(leaf[present] for leaf in leaves)

    def gathered(self, arrays: tuple[jax.Array, ...], stride: int = 1) -> tuple[ndarray, ...]:
        """Rows of some arrays, on every host: every ``stride``-th row of each shard, from the
        first.
        """
        axes = self.placement.axes

        def local(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
            few = tuple(leaf[::stride] for leaf in arrays)
            return jax.lax.all_gather(few, axes, tiled=True)

        taken: tuple[ndarray, ...] = on_host(jax.jit(self.placement.over_shards(local))(arrays))
        return taken
