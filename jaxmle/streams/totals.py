"""Sums over chunks and files, always in the order of the rows: sums of arrays and of clusters, and
the search for a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from jaxmle._types import Array, Label, Tree, TreeDef, ndarray
from jaxmle.streams.files import pyarrow_module
from jaxmle.streams.reader import Chunk

if TYPE_CHECKING:
    import pyarrow as pa

MAX_NUMBERS_OF_CLUSTERS = 2**28  # that the scores of all clusters may be: 2 GB


class Sum:
    """A sum of trees of arrays, compensated (Neumaier 1974, ZAMM 54, 39): a source may have
    millions of chunks.
    """

    def __init__(self) -> None:
        self.leaves: list[ndarray] = []
        self.carry: list[ndarray] = []
        self.treedef: TreeDef | None = None

    def add(self, tree: Tree) -> None:
        """Add a tree with the same structure as those before."""
        leaves, treedef = jax.tree.flatten(tree)
        terms = [np.asarray(leaf) for leaf in leaves]
        if self.treedef is None:
            self.treedef = treedef
            self.leaves = terms
            self.carry = [np.zeros_like(term) for term in terms]
            return
        for j, term in enumerate(terms):
            total = self.leaves[j]
            new = total + term
            larger = np.abs(total) >= np.abs(term)
            lost = np.where(larger, (total - new) + term, (term - new) + total)
            self.carry[j] = self.carry[j] + np.where(np.isfinite(new), lost, 0.0)
            self.leaves[j] = new

    def take(self, chunk: Chunk, out: Tree) -> None:
        """Add the result of a program for a chunk."""
        self.add(out)

    @property
    def value(self) -> Label:
        whole = [leaf + carry for leaf, carry in zip(self.leaves, self.carry, strict=True)]
        return jax.tree.unflatten(self.treedef, whole)


class Clusters(NamedTuple):
    """The sums of the clusters of one dimension."""

    labels: list[Label]
    scores: ndarray  # (G, k)
    counted: ndarray  # (G,) whether a row of positive weight is in it


class ClusterSums:
    """The sums over each cluster, by its label."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.place: dict[Label, int] = {}
        self.scores = np.zeros((0, 0))
        self.counted = np.zeros(0, bool)

    def add(self, part: Clusters) -> None:
        """Add the clusters of some rows."""
        places = np.array([self.place.setdefault(label, len(self.place)) for label in part.labels])
        if len(self.place) * part.scores.shape[1] > MAX_NUMBERS_OF_CLUSTERS:
            raise ValueError(
                f"{self.what} has more than {len(self.place) - 1:,} values: so many "
                "clusters do not fit in memory. If nearly every row is its own cluster, "
                "use vcov='HC0'"
            )
        self._grow(len(self.place), part.scores.shape[1])
        self.scores[places] += part.scores
        self.counted[places] |= part.counted

    def _grow(self, groups: int, k: int) -> None:
        if groups <= len(self.scores):
            return
        room = max(groups, 2 * len(self.scores))
        scores = np.zeros((room, k))
        if len(self.scores):
            scores[: len(self.scores)] = self.scores
        self.scores = scores
        self.counted = np.concatenate([self.counted, np.zeros(room - len(self.counted), bool)])

    @property
    def value(self) -> Clusters:
        groups = len(self.place)
        return Clusters(list(self.place), self.scores[:groups], self.counted[:groups])


class ClusterTotals:
    """The sums over the clusters of each dimension and, for two, of their intersection."""

    def __init__(self, names: tuple[str, ...]) -> None:
        crossing = [f"the crossing of {names[0]!r} and {names[1]!r}"] if len(names) == 2 else []
        what = [f"clusters: column {name!r}" for name in names] + crossing
        self.dimensions = [ClusterSums(name) for name in what]

    def take(self, chunk: Chunk, out: tuple[Array, Array]) -> None:
        """Add the scores of a chunk (n, k), and whether each row has a positive weight (n,)."""
        scores, positive = (np.asarray(part)[: chunk.rows] for part in out)
        self.add(clusters_of(chunk.labels, scores, positive))

    def add(self, parts: list[Clusters]) -> None:
        """Add the clusters of some rows, for each dimension."""
        for dimension, part in zip(self.dimensions, parts, strict=True):
            dimension.add(part)

    @property
    def value(self) -> list[Clusters]:
        return [dimension.value for dimension in self.dimensions]


def clusters_of(labels: tuple[pa.Array, ...], scores: Array, positive: Array) -> list[Clusters]:
    """The sums of some rows by each dimension of clusters and, for two, by their intersection.

    Args:
        labels: pyarrow arrays (n,), one or two.
        scores: (n, k), weighted.
        positive: (n,) which rows have a positive weight.
    """
    coded: list[tuple[ndarray, list[Label]]] = [_coded(column) for column in labels]
    if len(coded) == 2:
        (first, names), (second, others) = coded
        pairs, code = np.unique(first * len(others) + second, return_inverse=True)
        crossed: list[Label] = [
            (names[pair // len(others)], others[pair % len(others)]) for pair in pairs
        ]
        coded.append((code.reshape(-1), crossed))
    return [_summed(code, kinds, scores, positive) for code, kinds in coded]


def _coded(column: pa.Array) -> tuple[ndarray, list[Label]]:
    pa = pyarrow_module()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    code = column.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return code, column.dictionary.to_pylist()


def _summed(code: ndarray, kinds: list[Label], scores: Array, positive: Array) -> Clusters:
    columns = [np.bincount(code, weights=column, minlength=len(kinds)) for column in scores.T]
    counted = np.bincount(code, weights=positive, minlength=len(kinds)) > 0
    return Clusters(kinds, np.stack(columns, axis=1), counted)


class Row(NamedTuple):
    """A row of a source."""

    file: int
    row: int


class ScreenedRows(NamedTuple):
    """The first bad row, and the row with the highest level."""

    bad: Row | None
    top: Row | None
    level: float


class RowSearch:
    """The search for the first bad row, and for the row with the highest level."""

    def __init__(self) -> None:
        self.value = ScreenedRows(None, None, -np.inf)

    def take(self, chunk: Chunk, out: tuple[Array, Array]) -> None:
        """Process a chunk: whether each row is bad (n,), and its level (n,)."""
        bad, level = (np.asarray(part)[: chunk.rows] for part in out)
        first = Row(chunk.file, chunk.first + int(np.argmax(bad))) if np.any(bad) else None
        known = np.where(np.isnan(level), -np.inf, level)
        highest = int(np.argmax(known))
        top = Row(chunk.file, chunk.first + highest)
        self.add(ScreenedRows(first, top, float(known[highest])))

    def add(self, later: ScreenedRows) -> None:
        """Add the results for later rows."""
        bad = self.value.bad or later.bad
        higher = later.level > self.value.level
        top, level = (later.top, later.level) if higher else (self.value.top, self.value.level)
        self.value = ScreenedRows(bad, top, level)
