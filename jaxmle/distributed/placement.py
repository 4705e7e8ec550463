"""Where the rows of arrays are: the mesh of devices, and its axes that share the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmle._namespace import is_traced
from jaxmle._types import Array, Function, Tree

HOW_ROWS_ARE_SHARED = (
    "jax.device_put(x, NamedSharding(mesh, PartitionSpec('rows'))) shards rows, and so "
    "does jaxmle.distributed.rows(…) with NumPy arrays"
)


@dataclass(frozen=True)
class Placement:
    """The devices that hold the rows of some arrays: hashable, part of the key of a program."""

    mesh: Mesh
    axes: tuple[str, ...]  # of the mesh, that share the rows; along others they are repeated

    @property
    def spec(self) -> PartitionSpec:
        """How the first axis of an array is shared."""
        return PartitionSpec(self.axes)

    @property
    def sharding(self) -> NamedSharding:
        """The sharding of an array of rows."""
        return NamedSharding(self.mesh, self.spec)

    @property
    def shards(self) -> int:
        """The number of parts that the rows are split into."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes)

    def over_shards(self, local: Function) -> Function:
        """``local(rows, *args)`` on each shard of the rows; it must return the same on all."""

        def program(rows: Tree, *args: Tree) -> Tree:
            run = jax.shard_map(
                local,
                mesh=self.mesh,
                in_specs=(self.spec, *(PartitionSpec() for _ in args)),
                out_specs=PartitionSpec(),
                check_vma=False,
            )
            return run(rows, *args)

        return program

    def total(self, tree: Tree) -> Tree:
        """The sum over the shards of a tree of floating arrays, by one all-reduce."""
        leaves, treedef = jax.tree.flatten(tree)
        flat = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])
        flat = jax.lax.psum(flat, self.axes)
        ends = np.cumsum([leaf.size for leaf in leaves])[:-1].tolist()
        parts = jnp.split(flat, ends)
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(treedef, shaped)

    def first_row(self, rows: int) -> Array:
        """The number of the first row of a shard of ``rows`` rows, inside ``over_shards``."""
        return jax.lax.axis_index(self.axes) * rows


def placement_of(data: Tree) -> Placement | None:
    """Where the rows of data are, if several devices share them; None if they are on one.

    Raises:
        TypeError: an array is spread over devices without a mesh.
        ValueError: an axis other than the rows is shared, or two leaves are placed differently.
    """
    if jax.device_count() == 1:
        return None
    placed: dict[str, Placement] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        if isinstance(leaf, jax.Array) and not is_traced(leaf):
            placement = _placement_of_leaf("data" + jax.tree_util.keystr(path), leaf)
            if placement is not None:
                placed["data" + jax.tree_util.keystr(path)] = placement
    if not placed:
        return None
    first = next(iter(placed))
    placement = placed[first]
    for name, other in placed.items():
        if other != placement:
            raise ValueError(
                f"{first} lies over {_words(placement)}, {name} over {_words(other)}; all "
                f"leaves must be sharded in the same way: {HOW_ROWS_ARE_SHARED}"
            )
    return placement


def _placement_of_leaf(name: str, leaf: jax.Array) -> Placement | None:
    sharding = leaf.sharding
    if len(sharding.device_set) == 1 or sharding.is_fully_replicated:
        return None
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):
        raise TypeError(
            f"{name} is spread over {len(sharding.device_set)} devices by a "
            f"{type(sharding).__name__}, which has no mesh: {HOW_ROWS_ARE_SHARED}"
        )
    rows = sharding.spec[0] if len(sharding.spec) else None
    others = sharding.spec[1:]
    if rows is None or any(axis is not None for axis in others):
        raise ValueError(
            f"{name} is sharded over devices by {sharding.spec}; only rows, axis 0, may "
            f"be sharded: {HOW_ROWS_ARE_SHARED}"
        )
    return Placement(sharding.mesh, (rows,) if isinstance(rows, str) else tuple(rows))


def _words(placement: Placement) -> str:
    shape = ", ".join(f"{name}={size}" for name, size in placement.mesh.shape.items())
    kinds = {str(kind) for kind in placement.mesh.axis_types}
    return f"a mesh ({shape}; {', '.join(sorted(kinds))}) by {', '.join(placement.axes)}"


def on_host(tree: Tree) -> Tree:
    """Arrays that are the same on all devices, as NumPy arrays of this process."""
    return jax.tree.map(lambda leaf: np.array(leaf.addressable_data(0)), tree)
