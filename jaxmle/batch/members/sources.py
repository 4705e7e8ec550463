"""The data of many members: stacked along an axis, ragged lists, or one long table cut into groups;
handed out in padded chunks.

A ragged member is padded to the length of its bucket with copies of one of its own rows at weight
0, so that the padding adds exactly nothing. Rows of the data, observation weights and cluster codes
are cut and padded together: they are one tree of row-aligned leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from jaxmle._types import Array, Data, Tree, ndarray
from jaxmle.runtime.fingerprint import fingerprints

MAX_PADDING_RATIO = 2.0  # padded rows over real ones that buckets may cost
# Padded rows that take less time than compiling for another length.
MAX_PADDED_ROWS_FOR_ONE_LENGTH = 2**18
MAX_BUCKETS = 8
MIN_ROWS_FOR_OWN_LENGTH = 4096  # of the longest member, which is then not padded
NO_MEMBER_AXIS = (
    "nothing varies between members: in_axes is None for every leaf, and neither weights "
    "nor params0 have a leading axis"
)


class Chunk(NamedTuple):
    """Some members, ready to run."""

    rows: Tree  # leaves (b, length, ...), or (length, ...) where shared
    # (b, length): 1 for a real row, 0 for padding; None if nothing is padded
    padding: Array | None
    data_id: ndarray  # (b, 2)


def _identified(rows: Tree) -> int:
    """How many leaves of (data, weights, cluster codes) the fingerprint of a member reads: data
    and weights.
    """
    return len(jax.tree.leaves(rows[:2]))


@dataclass(frozen=True)
class Stacked:
    """Members along the leading axis of each leaf, or shared by all of them."""

    rows: Tree
    shared: tuple[bool, ...]  # one for each leaf
    members: int
    data_leaves: int  # how many of the leaves are data, not weights or codes
    padded: bool = True

    @property
    def sizes(self) -> ndarray:
        """Rows of each member, (b, parts)."""
        shapes = [jax.numpy.shape(leaf) for leaf in jax.tree.leaves(self.rows)]
        length = max(
            (
                shape[0 if is_shared else 1]
                for shape, is_shared in zip(shapes, self.shared, strict=True)
            ),
            default=1,
        )
        return np.full((self.members, 1), length)

    def place(self, part: int, index: tuple[int, ...]) -> str:
        """The position of a value of a leaf, in words. A single index means a leaf that all members
        share.
        """
        first, *rest = index
        return f"row {rest[0]} of member {first}" if rest else f"row {first}"

    def row_bytes(self) -> float:
        """Bytes of one row of one member."""
        return sum(
            leaf.nbytes / leaf.shape[0] / max(leaf.shape[1], 1)
            for leaf, is_shared in zip(jax.tree.leaves(self.rows), self.shared, strict=True)
            if not is_shared
        )

    def stack(self, index: ndarray, length: tuple[int, ...]) -> Tree:
        """The rows of the members ``index``; a view if they are consecutive."""
        run = (
            len(index) > 0
            and index[-1] - index[0] + 1 == len(index)
            and bool(np.all(np.diff(index) == 1))
        )
        cut = slice(index[0], index[-1] + 1) if run else index
        leaves, treedef = jax.tree.flatten(self.rows)
        return jax.tree.unflatten(
            treedef,
            [
                leaf if is_shared else leaf[cut]
                for leaf, is_shared in zip(leaves, self.shared, strict=True)
            ],
        )

    def take(self, index: ndarray, length: tuple[int, ...]) -> Chunk:
        """The members ``index``, ready to run."""
        rows = self.stack(index, length)
        taken = jax.tree.leaves(rows)
        identified = [
            np.broadcast_to(leaf, (len(index), *leaf.shape)) if is_shared else leaf
            for leaf, is_shared in zip(taken, self.shared, strict=True)
        ][: _identified(self.rows)]
        ids = fingerprints(identified, None) if identified else np.zeros((len(index), 2), np.uint32)
        return Chunk(rows, None, ids)


@dataclass(frozen=True)
class Table:
    """One long data set and the member that each of its rows belongs to; ``fit_batch`` takes it
    in place of a list of data sets.
    """

    data: Tree  # leaves (n, ...)
    member: ndarray  # (n,) integers from 0 to members − 1
    members: int


@dataclass(frozen=True)
class Ragged:
    """Members of unequal length, end to end in one table; each part of a pool has a table of
    its own.
    """

    rows: Tree  # leaves (total rows of the part, ...)
    part: tuple[int, ...]  # which part each leaf belongs to
    starts: ndarray  # (b, parts) the first row
    sizes: ndarray  # (b, parts) how many
    # for each part the row of the table at each place; None if the table is in order
    order: tuple[ndarray | None, ...]
    data_leaves: int
    # False if the likelihood would see the padding; then members of equal length run together
    padded: bool = True

    @property
    def members(self) -> int:
        return len(self.sizes)

    @property
    def shared(self) -> tuple[bool, ...]:
        return (False,) * len(self.part)

    def place(self, part: int, index: tuple[int, ...]) -> str:
        """The position of a value of a leaf, in words: its row in the member, or in the table if
        that is cut into groups.
        """
        row = index[0]
        member = self.member(part, index[0])
        if self.order[part] is not None:
            return f"row {row} of the table (member {member})"
        return f"row {row - int(self.starts[member, part])} of member {member}"

    def member(self, part: int, row: int) -> int:
        """The member to which a row of a part's table belongs."""
        order = self.order[part]
        place = row if order is None else int(np.flatnonzero(order == row)[0])
        ends = self.starts[:, part] + self.sizes[:, part]
        return int(np.searchsorted(ends, place, side="right"))

    def row_bytes(self) -> float:
        """Bytes of one row of one member, with its weight."""
        return 8.0 + sum(leaf.nbytes / max(leaf.shape[0], 1) for leaf in jax.tree.leaves(self.rows))

    def stack(self, index: ndarray, length: tuple[int, ...]) -> Tree:
        """The rows of the members ``index``, each part padded to its ``length``."""
        places = []
        for k, rows_of_part in enumerate(length):
            size = self.sizes[index, k][:, None]
            first = self.starts[index, k][:, None]
            place = np.minimum(
                first + np.minimum(np.arange(rows_of_part), np.maximum(size - 1, 0)),
                max(self._total(k) - 1, 0),
            )
            order = self.order[k]
            places.append(place if order is None else order[place])
        leaves, treedef = jax.tree.flatten(self.rows)
        # np.take is 15 times as fast as leaf[places] for a matrix.
        return jax.tree.unflatten(
            treedef,
            [np.take(leaf, places[k], axis=0) for leaf, k in zip(leaves, self.part, strict=True)],
        )

    def take(self, index: ndarray, length: tuple[int, ...]) -> Chunk:
        """The members ``index``, ready to run."""
        rows = self.stack(index, length)
        ids = fingerprints(
            jax.tree.leaves(rows)[: _identified(self.rows)],
            [self.sizes[index, k] for k in self.part[: _identified(self.rows)]],
        )
        is_real = [
            (np.arange(rows_of_part) < self.sizes[index, k][:, None]).astype(np.float64)
            for k, rows_of_part in enumerate(length)
        ]
        weights = np.concatenate(is_real, axis=1)
        # unpadded, a member without rows still needs one of weight 0
        return Chunk(rows, weights if self.padded or not weights.all() else None, ids)

    def _total(self, part: int) -> int:
        return next(
            leaf.shape[0]
            for leaf, k in zip(jax.tree.leaves(self.rows), self.part, strict=True)
            if k == part
        )


def largest_of(source: Stacked | Ragged) -> int:
    """The member with the most rows."""
    return int(np.argmax(source.sizes.sum(axis=1)))


def data_of(source: Stacked | Ragged, member: int) -> Data:
    """The data of one member, as one data set."""
    length = tuple(int(n) for n in source.sizes[member])
    rows = source.stack(np.array([member]), length)[0]
    flags = source.shared[: source.data_leaves]
    pairs = zip(jax.tree.leaves(rows), flags, strict=True)
    leaves = [leaf if is_shared else leaf[0] for leaf, is_shared in pairs]
    return jax.tree.unflatten(jax.tree.structure(rows), leaves)


def concatenated(
    datasets: Sequence[Tree], parts: int, extra: Sequence[Sequence[Array]]
) -> tuple[tuple[Tree, ...], tuple[int, ...], ndarray, ndarray]:
    """Concatenate a list of data sets: the rows, the part of each leaf, and starts and sizes (b,
    parts).

    Args:
        datasets: one tree for each member.
        parts: of a pool; 1 for any other likelihood.
        extra: further row-aligned arrays, each a list with one entry a member; they belong to part
            0.
    """
    first: Tree = jax.tree.structure(datasets[0])
    try:
        columns = [*zip(*map(first.flatten_up_to, datasets), strict=True)]
    except (ValueError, TypeError):  # members of unlike trees share no leaf
        columns = [()]
    if not all(map(len, columns)) or not all(map(jax.tree_util.all_leaves, columns)):
        other = next(
            member for member, data in enumerate(datasets) if jax.tree.structure(data) != first
        )
        raise ValueError(
            f"datasets[{other}] has a different structure from datasets[0]: "
            f"{jax.tree.structure(datasets[other])} against {first}"
        )
    names = [
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(datasets[0])
    ]
    part_of_data = (
        [k for k, piece in enumerate(datasets[0]) for _ in jax.tree.leaves(piece)]
        if parts > 1
        else [0] * len(names)
    )
    part = (*part_of_data, *([0] * len(extra)))
    sizes = np.full((len(datasets), parts), -1)
    whole = []
    for name, k, column in zip(
        [*names, *([""] * len(extra))], part, [*columns, *extra], strict=True
    ):
        whole.append(_end_to_end(name, column))
        rows = np.fromiter(map(len, column), int, len(column))
        wrong = np.flatnonzero((sizes[:, k] >= 0) & (sizes[:, k] != rows))
        if len(wrong):
            raise ValueError(
                f"datasets[{wrong[0]}]: {name} has {rows[wrong[0]]} rows, but another "
                f"leaf has {sizes[wrong[0], k]}"
            )
        sizes[:, k] = rows
    return (
        (jax.tree.unflatten(first, whole[: len(names)]), *whole[len(names) :]),
        part,
        np.cumsum(sizes, axis=0) - sizes,
        sizes,
    )


def _end_to_end(name: str, column: Sequence[Array]) -> ndarray:
    """One leaf of all members."""
    plain = {*map(type, column)} == {np.ndarray} and all(leaf.ndim for leaf in column)
    for member, leaf in enumerate([] if plain else column):
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(
                f"datasets[{member}]{name} is a masked array, whose mask would be lost; drop the "
                "masked rows from every leaf first"
            )
        if not np.ndim(leaf):
            raise ValueError(
                f"datasets[{member}]{name} is a single number; every leaf of a data set "
                "needs a leading axis over its rows"
            )
    widths = [np.shape(leaf)[1:] for leaf in column] if len({*map(_width, column)}) > 1 else []
    if widths:
        other = next(member for member, width in enumerate(widths) if width != widths[0])
        raise ValueError(
            f"every data set must have leaves of the same widths: datasets[0]{name} has "
            f"shape {np.shape(column[0])}, datasets[{other}]{name} "
            f"{np.shape(column[other])}"
        )
    return np.concatenate(column)


def _width(leaf: Tree) -> tuple[int, ...]:
    return np.shape(leaf)[1:]


# ---------------------------------------------------------------- buckets


def are_equal(sizes: ndarray) -> bool:
    """Whether all members have as many rows, (b, parts)."""
    return bool(np.all(sizes == sizes[:1]))


def buckets(sizes: ndarray, padded: bool) -> list[tuple[tuple[int, ...], ndarray]]:
    """Members that run with one length: (lengths of the parts, member indices).

    Lengths are powers of two, or eighths of them where that saves many rows. As few buckets as keep
    the padded rows under twice the real ones, at most eight; one where all padding together is less
    work than compiling once more.
    """
    if are_equal(sizes):
        return [(tuple(int(n) for n in sizes[0]), np.arange(len(sizes)))]
    if not padded or sizes.shape[1] > 1:
        lengths = np.maximum(sizes, 1) if not padded else padded_rows(np.maximum(sizes, 1))
        kinds, which = np.unique(lengths, axis=0, return_inverse=True)
        return [
            (tuple(int(n) for n in kind), np.flatnonzero(which.reshape(-1) == i))
            for i, kind in enumerate(kinds)
        ]
    size = np.maximum(sizes[:, 0], 1)
    powers = padded_rows(size)
    candidates = np.unique(powers)
    if size.max() > MIN_ROWS_FOR_OWN_LENGTH:
        # A long member is not padded; short ones share their length with other batches.
        candidates[-1] = size.max()
    if size.max() * len(size) <= MAX_PADDED_ROWS_FOR_ONE_LENGTH:
        candidates = candidates[-1:]
    count = np.array([np.sum(np.minimum(powers, candidates[-1]) == c) for c in candidates])
    ends = _fewest(candidates, count, MAX_PADDING_RATIO * size.sum())
    bucket_of = np.searchsorted(candidates[ends], np.minimum(powers, candidates[-1]))
    return [
        ((_trimmed(int(candidates[end]), size[bucket_of == i]),), np.flatnonzero(bucket_of == i))
        for i, end in enumerate(ends)
        if np.any(bucket_of == i)
    ]


def padded_rows(rows: ndarray) -> ndarray:
    """The next powers of two, and 0 for 0. So a likelihood is traced and run at few lengths, which
    the next batch uses again.
    """
    return np.where(rows > 0, 2 ** np.ceil(np.log2(np.maximum(rows, 1))).astype(int), 0)


def _trimmed(length: int, size: ndarray) -> int:
    """The length of a bucket for members with these numbers of rows: eighths of it are cut off if
    no member reaches them and that saves many rows.
    """
    eighths = -(-8 * int(size.max()) // length)
    shorter = max(int(size.max()), -(-length * eighths // 8))
    return shorter if (length - shorter) * len(size) > MAX_PADDED_ROWS_FOR_ONE_LENGTH else length


def _fewest(lengths: ndarray, count: ndarray, budget: float) -> list[int]:
    """The positions of the fewest lengths (at most eight) at which members can be run so that
    padded cells stay within budget.
    """
    m = len(lengths)
    total = np.concatenate([[0], np.cumsum(count)])
    cost = np.full((MAX_BUCKETS + 1, m + 1), np.inf)
    back = np.zeros((MAX_BUCKETS + 1, m + 1), dtype=int)
    cost[0, 0] = 0.0
    for used in range(1, MAX_BUCKETS + 1):
        for end in range(1, m + 1):
            options = cost[used - 1, :end] + lengths[end - 1] * (total[end] - total[:end])
            back[used, end] = int(np.argmin(options))
            cost[used, end] = options[back[used, end]]
    within = [used for used in range(1, MAX_BUCKETS + 1) if cost[used, m] <= budget]
    used = within[0] if within else int(np.argmin(cost[1:, m])) + 1
    ends = []
    end = m
    while used:
        ends.append(end - 1)
        end = back[used, end]
        used = used - 1
    return ends[::-1]
