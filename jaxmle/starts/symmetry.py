"""Parameters whose labels may be exchanged: groups of names, their places in x, and labels
matched between two points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from jaxmle._types import Array, Foreign, ndarray
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.tree import Layout

# The names of leaves whose labels may be exchanged, or blocks of such names.
Group = tuple[str, ...] | tuple[tuple[str, ...], ...]


def checked_groups(symmetric: Sequence[Group]) -> tuple[Group, ...]:
    """Groups of names, by their form alone: leaves, or blocks of equal length."""
    if not isinstance(symmetric, list | tuple):
        raise TypeError(
            "symmetric must be a list of groups, such as [('mu', 'sigma', 'weight')]; "
            f"got {shown(symmetric)}"
        )
    groups = tuple(symmetric)
    for group in groups:
        if not isinstance(group, tuple | list) or not group:
            raise TypeError(
                "each group of symmetric must be a tuple of leaf names, as in "
                f"symmetric=[('mu', 'sigma', 'weight')]; got {group!r}"
            )
        words = [isinstance(part, str) for part in group]
        blocks = [
            isinstance(part, tuple | list)
            and bool(part)
            and all(isinstance(name, str) for name in part)
            for part in group
        ]
        if not all(words) and not all(blocks):
            raise TypeError(
                "a group of symmetric must hold leaf names or tuples of exchangeable "
                f"names, not both; got {group!r}"
            )
        if all(blocks) and (len(group) < 2 or len({len(part) for part in group}) > 1):
            raise ValueError(
                f"symmetric exchanges two or more tuples of names of the same length; got {group!r}"
            )
    return groups


def blocks_of(layout: Layout, groups: tuple[Group, ...]) -> list[ndarray]:
    """For each group the positions in x of its components, (components, entries of each)."""
    blocks = [
        _leaf_blocks(layout, group) if isinstance(group[0], str) else _named_blocks(layout, group)
        for group in cast("tuple[Foreign, ...]", groups)  # of names, or of tuples of names
    ]
    places = np.concatenate([block.ravel() for block in blocks]) if blocks else np.zeros(0, int)
    kinds, times = np.unique(places, return_counts=True)
    if np.any(times > 1):
        raise ValueError(f"symmetric names {layout.names[kinds[np.argmax(times)]]!r} twice")
    return blocks


def _leaf_blocks(layout: Layout, group: tuple[str, ...]) -> ndarray:
    """Leaves whose leading axis runs over components."""
    paths = {leaf.path or "theta": place for place, leaf in enumerate(layout.leaves)}
    pieces = []
    lengths = {}
    for name in group:
        if name not in paths:
            hint = (
                f" To exchange single entries write symmetric=[(({name!r},), …)]."
                if name in layout.names
                else ""
            )
            raise ValueError(
                f"symmetric names {name!r}, which is not a leaf; the leaves are "
                f"{', '.join(list(paths)[:20])}.{hint}"
            )
        leaf = layout.leaves[paths[name]]
        span = layout.spans[paths[name]]
        if not leaf.shape or leaf.size < np.prod(leaf.shape):
            what = (
                "a scalar"
                if not leaf.shape
                else f"a {type(leaf.constraint).__name__.lower()} matrix"
            )
            raise ValueError(
                f"symmetric names {name!r}, which is {what} and has no leading axis over components"
            )
        lengths[name] = leaf.shape[0]
        pieces.append(np.arange(span.start, span.stop).reshape(leaf.shape[0], -1))
    if len(set(lengths.values())) > 1:
        raise ValueError(
            "the leaves of a symmetric group need the same number of components: "
            + ", ".join(f"{name} has {k}" for name, k in lengths.items())
        )
    return np.concatenate(pieces, axis=1)


def _named_blocks(layout: Layout, group: tuple[tuple[str, ...], ...]) -> ndarray:
    """Blocks given by the names of their entries or leaves."""
    try:
        places = [[layout.find(name) for name in block] for block in group]
    except ValueError as error:
        raise ValueError(f"symmetric: {error}") from None
    for block, names in zip(places, group, strict=True):
        for entries, first, name, lead in zip(block, places[0], names, group[0], strict=True):
            if len(entries) != len(first):
                raise ValueError(
                    f"symmetric exchanges {lead!r}, which has {len(first)} entries, with "
                    f"{name!r}, which has {len(entries)}"
                )
    return np.array([np.concatenate(block) for block in places])


def relabelled(x: Array, lead: Array, scale: ndarray, block: ndarray) -> Array:
    """``x`` with each component of ``lead`` met by the nearest that is left.

    Sorting both would do as well, except where the values sorted by differ by rounding alone.
    """
    left = list(range(len(block)))
    order = []
    for component in block:
        far = [
            float(np.max(np.abs(x[block[place]] - lead[component]) / scale[component]))
            for place in left
        ]
        order.append(left.pop(int(np.argmin(far))))
    x = x.copy()
    x[block] = x[block[order]]
    return x
