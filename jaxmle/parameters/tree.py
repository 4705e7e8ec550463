"""Trees outside, flat inside: the printed entries of a parameter tree, their names, and the
free scale below them.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property, lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, KeyPath, Slice, Tree, TreeDef, ndarray
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.constraints import (
    Bounds,
    Constraint,
    Entry,
    Interval,
    Ordered,
    Shape,
)
from jaxmle.parameters.prefixes import check_all_used, constraint_at
from jaxmle.parameters.short_names import printed_names, short_names, term_of

# Fits share the layout of a tree of dictionaries, lists and tuples, which keeps no object of the
# user's alive, if it has few entries, whose names take little memory.
LAYOUTS_SHARED = 32
MAX_ENTRIES_OF_SHARED_LAYOUT = 2**12
PLAIN_KEYS = (jax.tree_util.DictKey, jax.tree_util.SequenceKey)


@dataclass(frozen=True)
class Leaf:
    """One leaf of the parameter tree: where it is, its shape, its constraint, and the names of its
    entries if they are not named by position.
    """

    path: str
    shape: Shape
    constraint: Constraint
    # Layouts that differ only in names are equal.
    labels: tuple[str, ...] | None = field(default=None, compare=False)

    @property
    def entries(self) -> list[Entry]:
        return self.constraint.entries(self.shape)

    @property
    def size(self) -> int:
        """How many entries are printed; starts of many members are asked for it too, so nothing
        is listed where nothing need be.
        """
        return math.prod(self.shape) if self.constraint.elementwise else len(self.entries)

    @property
    def names(self) -> list[str]:
        return self.places if self.labels is None else list(self.labels)

    @property
    def places(self) -> list[str]:
        """The names of the entries by position, such as ``beta[1]``."""
        stem = self.path or "theta"
        return [f"{stem}[{','.join(map(str, entry))}]" if entry else stem for entry in self.entries]

    @property
    def free_size(self) -> int:
        return self.constraint.free_size(self.shape)


@dataclass(frozen=True)
class Layout:
    """How a parameter tree becomes a flat vector: static, hashable, the same for every member of a
    batch.

    ``x`` (p,) holds the printed entries in order of ``names``; ``z`` (k,) is the free scale that
    solvers see.
    """

    treedef: TreeDef
    leaves: tuple[Leaf, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names as they are printed, such as ``sigma``, ``beta[1]``, or ``age`` where a formula
        named the entry.
        """
        return printed_names(self)

    @cached_property
    def whole_names(self) -> tuple[str, ...]:
        """The names with the leaf that they belong to, such as ``beta[age]``."""
        return tuple(name for leaf in self.leaves for name in leaf.names)

    @cached_property
    def places(self) -> tuple[str, ...]:
        """The names by position in the tree, such as ``beta[1]``, even for named entries."""
        return tuple(name for leaf in self.leaves for name in leaf.places)

    @cached_property
    def bounds(self) -> tuple[Bounds, ...]:
        return tuple(bound for leaf in self.leaves for bound in leaf.constraint.bounds(leaf.shape))

    @cached_property
    def p(self) -> int:
        return sum(leaf.size for leaf in self.leaves)

    @cached_property
    def spans(self) -> tuple[Slice, ...]:
        """The slice of x that each leaf owns."""
        ends = np.cumsum([0, *(leaf.size for leaf in self.leaves)])
        return tuple(slice(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True))

    @cached_property
    def _hash(self) -> int:
        return hash((self.treedef, self.leaves))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Tree, ...]:
        """Nothing that was computed goes along: strings hash otherwise in another process."""
        return Layout, (self.treedef, self.leaves)

    @cached_property
    def _charts(self) -> dict[tuple[bool, ...], Chart]:
        return {}

    def chart(self, held: tuple[bool, ...]) -> Chart:
        """The chart of the entries that are not ``held`` (p,), made once."""
        if held not in self._charts:
            self._charts[held] = Chart(self, held)
        return self._charts[held]

    def ravel(self, params: Tree) -> Array:
        """The printed entries of ``params``, (p,)."""
        pieces = []
        for leaf, given in zip(self.leaves, self.treedef.flatten_up_to(params), strict=True):
            value = given if hasattr(given, "reshape") else np.asarray(given)
            if leaf.size == math.prod(leaf.shape):
                pieces.append(value.reshape(-1))
            else:
                index = tuple(np.array(leaf.entries, dtype=int).reshape(-1, len(leaf.shape)).T)
                pieces.append(value[index])
        spaces = [namespace(piece) for piece in pieces]
        return (spaces[0] if len(set(spaces)) == 1 else jnp).concatenate(pieces)

    def ravel_members(self, params: Tree) -> Array:
        """The printed entries (b, p) of a tree whose leaves have a leading axis over members."""
        pieces = []
        for leaf, value in zip(self.leaves, self.treedef.flatten_up_to(params), strict=True):
            places = np.array(leaf.entries, dtype=int).reshape(len(leaf.entries), len(leaf.shape)).T
            index = tuple(places) if leaf.shape else (None,)
            pieces.append(value[(slice(None), *index)])
        return namespace(pieces[0]).concatenate(pieces, axis=1)

    def unravel(self, x: Array) -> Tree:
        """The parameter tree whose printed entries are ``x`` (p,), or (p, b) for members, which are
        last in its leaves too.
        """
        values = [
            leaf.constraint.build(x[span], leaf.shape)
            for leaf, span in zip(self.leaves, self.spans, strict=True)
        ]
        return jax.tree.unflatten(self.treedef, values)

    def unravel_entries(self, x: Array, structural: float = math.nan) -> Tree:
        """The tree with one number per printed entry, such as a standard error; structural
        constants get ``structural``.
        """
        values = []
        for leaf, span in zip(self.leaves, self.spans, strict=True):
            value = leaf.constraint.build(x[span], leaf.shape)
            if leaf.size < math.prod(leaf.shape):
                printed = {*leaf.entries, *((j, i) for i, j in leaf.entries)}
                mask = np.array(
                    [
                        [entry in printed for entry in ((i, j) for j in range(leaf.shape[1]))]
                        for i in range(leaf.shape[0])
                    ]
                )
                mask = mask.reshape(*mask.shape, *[1] * (value.ndim - 2))
                value = namespace(value).where(mask, value, structural)
            values.append(value)
        return jax.tree.unflatten(self.treedef, values)

    @cached_property
    def short(self) -> dict[str, list[int]]:
        """From each short name of coefficients named by a formula to its possible meanings."""
        meanings: dict[str, list[int]] = {}
        for leaf, span in zip(self.leaves, self.spans, strict=True):
            for offset, label in enumerate(leaf.labels or ()):
                names = short_names(leaf.path, label)
                for name in {*names, *filter(None, map(term_of, names))}:
                    meanings.setdefault(name, []).append(span.start + offset)
        return meanings

    def find(self, name: str) -> list[int]:
        """The positions in x that ``name`` means: one printed entry, by its name, its place or its
        short name (``age`` for ``beta[age]``, ``race[black]``); or every entry of a leaf or of a
        factor.

        Raises:
            ValueError: no parameter has this name, or several do.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"a parameter name must be a string such as 'beta[1]'; got {shown(name)}"
            )
        for names in (self.names, self.whole_names, self.places):
            if name in names:
                return [names.index(name)]
        short = self.short.get(name, [])
        for leaf, span in zip(self.leaves, self.spans, strict=True):
            if name == (leaf.path or "theta"):
                whole = list(range(span.start, span.stop))
                return whole if not short else self._one_meaning(name, [*short, whole[0]])
        if short:
            return self._one_meaning(name, short)
        near = get_close_matches(name, [*self.names, *self.short], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"no parameter is called {name!r}; the parameters are "
            f"{', '.join(self.names[:20])}.{hint}"
        )

    def _one_meaning(self, name: str, places: list[int]) -> list[int]:
        """The positions of a short name: one, or those of all levels of one factor."""
        ends = [span.stop for span in self.spans]
        leaves = [self.leaves[int(np.searchsorted(ends, place, "right"))] for place in places]
        named = zip(leaves, places, strict=True)
        labels = self.whole_names
        factor = all(name in map(term_of, short_names(f.path, labels[j])) for f, j in named)
        if len({leaf.path for leaf in leaves}) > 1 or (len(places) > 1 and not factor):
            listed = ", ".join(self.whole_names[place] for place in places)
            raise ValueError(f"{name!r} may mean {listed}: give the whole name")
        return places


@dataclass(frozen=True)
class Chart:
    """The map from the free scale z (k,), on which the solver moves, to x (p,): each leaf through
    its constraint.

    ``held`` marks the printed entries that ``fix`` or ``tie`` keep from the solver.
    """

    layout: Layout
    held: tuple[bool, ...]

    def __post_init__(self) -> None:
        for leaf, span in zip(self.layout.leaves, self.layout.spans, strict=True):
            held_entries = self.held[span]
            if any(held_entries) and not all(held_entries) and not leaf.constraint.elementwise:
                raise ValueError(
                    f"{leaf.path or 'theta'} is constrained as a whole "
                    f"({type(leaf.constraint).__name__.lower()}): fix or tie all its entries, or "
                    "none"
                )

    @cached_property
    def is_identity(self) -> bool:
        return all(leaf.constraint.is_identity for leaf in self.layout.leaves)

    @cached_property
    def is_entrywise(self) -> bool:
        """Whether every entry of x moves, each by its own free coordinate: ∂x/∂z is diagonal."""
        return self.k == self.layout.p and all(
            leaf.constraint.elementwise for leaf in self.layout.leaves
        )

    @cached_property
    def x_is_z(self) -> bool:
        """Whether every entry of x moves freely on its own scale."""
        return self.is_identity and len(self.moving) == self.layout.p

    @cached_property
    def nonlinear(self) -> tuple[bool, ...]:
        """Which free coordinates are nonlinear functions of x (a log, a logit, a Cholesky factor),
        (k,).
        """
        return tuple(
            not leaf.constraint.is_identity
            for leaf, _, _, _, size in self._pieces()
            for _ in range(size)
        )

    @cached_property
    def moving(self) -> ndarray:
        """Positions in x that move, (number moving,)."""
        return np.flatnonzero(~np.array(self.held, dtype=bool))

    @cached_property
    def k(self) -> int:
        """The number of free parameters."""
        return sum(
            int(np.sum(~np.array(self.held[span], dtype=bool)))
            if leaf.constraint.elementwise
            else (0 if all(self.held[span]) else leaf.free_size)
            for leaf, span in zip(self.layout.leaves, self.layout.spans, strict=True)
        )

    def _pieces(self) -> list[tuple[Leaf, Slice, ndarray, Shape, int]]:
        """For each leaf that moves: leaf, its span in x, its moving offsets, the shape its map
        acts on, its free size.
        """
        pieces = []
        for leaf, span in zip(self.layout.leaves, self.layout.spans, strict=True):
            offsets = np.flatnonzero(~np.array(self.held[span], dtype=bool))
            if offsets.size:
                shape = (int(offsets.size),) if leaf.constraint.elementwise else leaf.shape
                pieces.append((leaf, span, offsets, shape, leaf.constraint.free_size(shape)))
        return pieces

    @cached_property
    def incidence(self) -> ndarray:
        """Which printed entries each free coordinate can move, (p, k) of booleans."""
        which = np.zeros((self.layout.p, self.k), dtype=bool)
        start = 0
        for leaf, span, offsets, _, size in self._pieces():
            if leaf.constraint.elementwise:
                which[span.start + offsets, start + np.arange(size)] = True
            else:
                which[span, start : start + size] = True
            start += size
        return which

    @cached_property
    def gaps(self) -> ndarray:
        """For each free coordinate that represents the distance of an entry from the one before it,
        the index of that entry, (k,); otherwise −1.
        """
        which = np.full(self.k, -1)
        start = 0
        for leaf, span, offsets, shape, size in self._pieces():
            if isinstance(leaf.constraint, Ordered):
                inner = np.arange(size) % shape[-1] > 0
                which[start : start + size] = np.where(inner, span.start + offsets, -1)
            start += size
        return which

    @cached_property
    def own_coordinate(self) -> ndarray:
        """Which printed entries depend on one free coordinate of their own, (p,)."""
        entries = np.zeros(self.layout.p, dtype=bool)
        for leaf, span, offsets, _, _ in self._pieces():
            if leaf.constraint.elementwise:
                entries[span.start + offsets] = True
        return entries

    def to_user(self, z: Array, x: Array) -> Array:
        """x (p, ...) at the free point z (k, ...); entries that do not move keep their values in
        ``x``. Members may follow where ``is_entrywise``.
        """
        if self.x_is_z:
            return z
        xp = namespace(z)
        start = 0
        index = []
        values = []
        for leaf, span, offsets, shape, size in self._pieces():
            values.append(leaf.constraint.to_user(z[start : start + size], shape))
            index.append(span.start + offsets)
            start += size
        if not values:
            return x
        where = np.concatenate(index)
        moved = xp.concatenate(values)
        if len(where) == self.layout.p:
            return moved
        order = np.full(self.layout.p, -1)
        order[where] = np.arange(len(where))
        return xp.where(order >= 0, moved[np.maximum(order, 0)], x)

    def slopes(self, z: Array) -> Array:
        """∂x_j/∂z_j (p, ...) at z (k, ...), where ``is_entrywise``."""
        start = 0
        slopes = []
        for leaf, *_, size in self._pieces():
            if not isinstance(leaf.constraint, Interval):
                raise TypeError(f"{leaf.path} is constrained as a whole, not entry by entry")
            slopes.append(leaf.constraint.slope(z[start : start + size]))
            start += size
        return namespace(z).concatenate(slopes)

    def to_free(self, x: Array) -> Array:
        """The free point z (k,) whose image is x (p,)."""
        xp = namespace(x)
        pieces = [
            leaf.constraint.to_free(x[span][offsets], shape)
            for leaf, span, offsets, shape, _ in self._pieces()
        ]
        return xp.concatenate(pieces) if pieces else x[:0]


def path_name(path: KeyPath) -> str:
    """The readable name of a leaf: keys and fields joined by dots, positions in brackets."""
    name = ""
    for key in path:
        if isinstance(key, jax.tree_util.SequenceKey | jax.tree_util.FlattenedIndexKey):
            index = key.idx if isinstance(key, jax.tree_util.SequenceKey) else key.key
            name += f"[{index}]"
        else:
            part = (
                str(key.key)
                if isinstance(key, jax.tree_util.DictKey)
                else str(getattr(key, "name", key))
            )
            name += f".{part}" if name else part
    return name


def layout_of(params: Tree, constraints: Tree = None) -> Layout:
    """The layout of ``params``, with ``constraints`` given as a tree prefix (missing dictionary
    keys mean unconstrained).

    >>> import numpy as np
    >>> from jaxmle.parameters.constraints import positive
    >>> layout_of({"beta": np.zeros(2), "sigma": np.ones(())}, {"sigma": positive}).names
    ('beta[0]', 'beta[1]', 'sigma')
    """
    with_path, treedef = jax.tree_util.tree_flatten_with_path(params)
    if not with_path:
        raise ValueError("params has no leaves: a log-likelihood needs at least one parameter")
    names = [path_name(path) for path, _ in with_path]
    leaves = tuple(
        Leaf(name, tuple(np.shape(value)), constraint_at(constraints, path, name))
        for name, (path, value) in zip(names, with_path, strict=True)
    )
    check_all_used(constraints, params)
    size = sum(math.prod(leaf.shape) for leaf in leaves)
    is_plain = all(isinstance(key, PLAIN_KEYS) for path, _ in with_path for key in path)
    if is_plain and size <= MAX_ENTRIES_OF_SHARED_LAYOUT:
        return _shared(treedef, leaves)
    return _checked(Layout(treedef, leaves))


@lru_cache(maxsize=LAYOUTS_SHARED)
def _shared(treedef: Tree, leaves: tuple[Leaf, ...]) -> Layout:
    """One layout, with what it computes of itself, for all fits of such parameters."""
    return _checked(Layout(treedef, leaves))


def _checked(layout: Layout) -> Layout:
    if not layout.p:
        raise ValueError("params holds no numbers: every leaf is empty")
    _check_distinct(layout.leaves)
    return layout


def _check_distinct(leaves: tuple[Leaf, ...]) -> None:
    """Raise for two parameters with the same printed name, which fix, tie, profile or a reader
    could not tell apart. Names can coincide only if they agree before the first bracket, and are
    built only then: a tree may have a hundred thousand.
    """
    heads = Counter(leaf.path.partition("[")[0] for leaf in leaves)
    labelled = any(leaf.labels for leaf in leaves)
    seen: dict[str, int] = {}
    for place, leaf in enumerate(leaves):
        if not labelled and heads[leaf.path.partition("[")[0]] == 1:
            continue
        for name in (*leaf.names, *([leaf.path] if leaf.shape and leaf.path else [])):
            if seen.setdefault(name, place) != place:
                raise ValueError(
                    f"two parameters are called {name!r} in print: rename one of the keys of params"
                )


def with_numbers(tree: Tree) -> Tree:
    """The tree with NumPy's numbers for its arrays of no axis, which Python can round and write
    as JSON; other leaves as they are.
    """
    return jax.tree.map(
        lambda leaf: leaf[()] if isinstance(leaf, np.ndarray) and leaf.ndim == 0 else leaf, tree
    )
