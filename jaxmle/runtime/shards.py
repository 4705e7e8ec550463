"""A fit in the body of a ``shard_map`` sees one shard of each array, and cannot distinguish
rows of one data set from members of a batch.
"""

from __future__ import annotations

import jax

# How jax 0.8 and 0.10 to 0.12 call the axis of a pmap without a name: no collective can join its
# shards, so that each is a whole data set.
UNNAMED_AXES = ("<axis ", "_internal_pmap_axis_name")


def refuse_shards() -> None:
    """Refuse a fit in the body of a ``shard_map``.

    The body over rows and that over members look alike, whether a ``vmap`` stands inside of the
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
        "fit inside a shard_map sees one shard of the axis "
        f"{', '.join(map(repr, axes))} only. Where that axis cuts rows, the maximum of one shard "
        "would be called that of all of them, and nothing inside tells rows from members of a "
        "batch. Leave the shard_map out: fit takes an array with sharded rows as it is; for "
        "many data sets, jax.jit(jax.vmap(fit_one)) takes arrays that are sharded over members, "
        "and fit_batch(…, devices=…) shares members among devices."
    )
