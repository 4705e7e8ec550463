"""What no fit does under a trace: in the body of a ``shard_map`` it sees one shard of each array,
and cannot distinguish rows of one data set from members of a batch; over an explicit mesh sums have
no sharding.
"""

from __future__ import annotations

import jax
from jax.sharding import AxisType

from jaxmle._types import Tree

# How jax 0.8 and 0.10 to 0.12 call the axis of a pmap without a name: no collective can join its
# shards, so that each is a whole data set.
UNNAMED_AXES = ("<axis ", "_internal_pmap_axis_name")


def refuse_shards() -> None:
    """Refuse a fit in the body of a ``shard_map``.

    The body over rows and that over members look alike, whether a ``vmap`` stands inside the
    ``shard_map`` or around it: a program sees the shape of its shard and not which axis was cut.

    Raises:
        ValueError: naming the axis, and what to do instead.
    """
    axes = [
        str(axis)
        for axis in getattr(jax.sharding.get_abstract_mesh(), "manual_axes", ())
        if not str(axis).startswith(UNNAMED_AXES)
    ]
    if not axes:
        return
    raise ValueError(
        f"fit inside a shard_map sees one shard of the axis {', '.join(map(repr, axes))} "
        "only. If that axis shards rows, the maximum of one shard would be taken for the "
        "maximum of all rows, and inside the shard_map rows cannot be told from members "
        "of a batch. Call fit without the shard_map: it takes an array with sharded rows "
        "as it is. For many data sets, jax.jit(jax.vmap(fit_one)) takes arrays that are "
        "sharded over members, and fit_batch(…, devices=…) spreads members over devices."
    )


def refuse_explicit_rows(data: Tree) -> None:
    """Refuse, under a trace, rows that the axes of an explicit mesh share: sums over them would
    need a sharding of their own at each step.

    Raises:
        ValueError: naming the leaf, and what to do instead.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        spec = getattr(getattr(jax.typeof(leaf), "sharding", None), "spec", ())
        if any(axis is not None for axis in spec):
            raise ValueError(
                f"data{jax.tree_util.keystr(path)} is {jax.typeof(leaf)}: it is sharded "
                "over an explicit mesh, and such a fit cannot run under a trace. Call "
                "fit outside jit, where each device sums its rows, or apply "
                "jax.sharding.reshard to the array first"
            )


def over_automatic_mesh(data: Tree) -> bool:
    """Whether devices may share arrays: their types name several devices that jax shares work
    among by itself, though not which axis each of them has a part of.
    """
    for leaf in jax.tree.leaves(data):
        mesh = getattr(getattr(jax.typeof(leaf), "sharding", None), "mesh", None)
        kinds = getattr(mesh, "axis_types", ())
        sizes = getattr(mesh, "axis_sizes", ())
        if any(k == AxisType.Auto and n > 1 for k, n in zip(kinds, sizes, strict=True)):
            return True
    return False
