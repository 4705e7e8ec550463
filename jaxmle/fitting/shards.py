"""A fit in the body of a ``shard_map`` sees one shard of each array, and cannot distinguish
rows of one data set from members of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxmle._types import Tree

# How jax 0.8 and 0.10 to 0.12 call the axis of a pmap without a name: no collective can join its
# shards, so that each is a whole data set.
UNNAMED_AXES = ("<axis ", "_internal_pmap_axis_name")
SIGNS_OF_A_CHECKED_SHARD = ("manual axis types", "varying manual axes")  # as jax words them


def refuse_shards(params: Tree, data: Tree) -> None:
    """Refuse a fit to one shard of the rows.

    The body of a ``shard_map`` over rows and that of one over members look alike, with one
    exception: members of a batch come through ``vmap``.

    Raises:
        ValueError: naming the axis, and what to do instead.
    """
    axes = [
        str(axis)
        for axis in getattr(jax.sharding.get_abstract_mesh(), "manual_axes", ())
        if not str(axis).startswith(UNNAMED_AXES)
    ]
    if not axes or any(map(_is_mapped, jax.tree.leaves(data) or jax.tree.leaves(params))):
        return
    raise ValueError(
        "fit inside a shard_map sees the rows of one shard of the axis "
        f"{', '.join(map(repr, axes))} only, and would call its maximum that of all of them. For "
        "one data set leave the shard_map out: fit takes sharded arrays as they are. For many "
        "of them map over a leading axis of members inside it, "
        "jax.jit(jax.shard_map(jax.vmap(fit_one), …)) with the jit outside, or call fit_batch."
    )


def in_shard(program: Callable[..., Any], *args: Any) -> Any:
    """``program(*args)``; where ``shard_map`` checks what varies between its shards, an error by
    name.

    The constants with which loops begin do not vary, what comes out of them does, and jax takes the
    two for different types.
    """
    try:
        return program(*args)
    except TypeError as error:
        if not any(sign in str(error) for sign in SIGNS_OF_A_CHECKED_SHARD):
            raise
        raise ValueError(
            "fit inside a shard_map needs jax.shard_map(…, check_vma=False): a fit has no "
            "collectives that the check could guard, and begins its loops with constants, which "
            "the check refuses"
        ) from error


def _is_mapped(leaf: Any) -> bool:
    """Whether a value is under ``vmap``, whatever differentiation it is under besides. jax has
    no public test for it but the name of the class.
    """
    while hasattr(leaf, "primal"):
        leaf = leaf.primal
    return type(leaf).__name__ == "BatchTracer"
