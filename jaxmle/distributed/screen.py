"""Checks of the values of shared rows before a fit: NaN and weights on the devices that hold the
rows, the coding of a response in pieces on the host that has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from jaxmle._types import Array, Data, FunctionTo, Loglik, Tree, ndarray
from jaxmle.distributed.passes import Count, Values, look_at
from jaxmle.distributed.peers import agreed
from jaxmle.distributed.shared import SharedRows
from jaxmle.likelihood.checks import check_coding
from jaxmle.likelihood.discovery.indices import check_indices
from jaxmle.likelihood.discovery.ready_calls import check_calls, has_user_function
from jaxmle.parameters.tree import Layout
from jaxmle.record.identity import designs_of, response_of
from jaxmle.runtime.fingerprint import fingerprint_of_pieces

ROWS_OF_PIECE = 2**18  # that are looked at together on the host


@dataclass(frozen=True)
class Screening:
    """How the values of shared rows are checked."""

    rows: SharedRows
    user_loglik: Loglik  # as it was given: a built-in model knows its coding
    sample: Data  # rows spread over all shards, on the host

    def count(self) -> Count:
        """Look at every row, and count.

        Raises:
            ValueError: for a NaN, a weight that is none, or a value that a built-in model does not
                read; in all processes, where one has it.
        """
        values = look_at(self.rows)
        self._refuse_missing(values)
        self._refuse_weights(values)
        agreed(self._check_coding)
        rows, weight, positive = map(float, values.n)
        kind = None if self.rows.weights is None else self.rows.weights.kind
        n = rows if kind is None else weight if kind == "frequency" else positive
        return Count(n, self._fingerprint(self.rows.data))

    def _refuse_missing(self, values: Values) -> None:
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(self.rows.data)]
        for path, row in zip(paths, values.missing, strict=False):
            if row < self.rows.length:
                raise ValueError(
                    f"data{jax.tree_util.keystr(path)} is NaN in row {row}. Drop or "
                    "impute these rows in every leaf: a likelihood is not defined for "
                    "missing values."
                )

    def _refuse_weights(self, values: Values) -> None:
        if self.rows.weights is None:
            return
        negative, fraction = values.weights
        if negative < self.rows.length:
            raise ValueError(f"weights must be finite and non-negative; see row {negative}")
        if self.rows.weights.kind == "frequency" and fraction < self.rows.length:
            raise ValueError(
                "frequency weights count repeated rows and must be integers; see row "
                f"{fraction}. Survey weights are jaxmle.sampling(w)."
            )

    # ------------------------------------------------------------ on the host

    def _check_coding(self) -> None:
        for first, piece in self._pieces_with_coding():
            try:
                check_coding(self.user_loglik, piece, _place(first))
            except ValueError:  # of a rule about all rows, others may be right
                if not self._holds_with_sample(piece):
                    raise

    def check_functions(self, loglik: Loglik, layout: Layout, base: Array) -> None:
        """Check codes used as indices, and built-in models called by a user's function.

        Args:
            loglik: as a tree, without weights.
            base: (p,) the start.
        """
        if not has_user_function(loglik):
            return

        def check() -> None:
            for first, piece in pieces_of(self.rows.data, self.rows.present):
                check_calls(loglik, layout, base, piece, _place(first))
                try:
                    check_indices(loglik, layout, base, piece)
                except ValueError as error:
                    raise ValueError(f"rows counted from {first}: {error}") from None

        agreed(check)

    def _pieces_with_coding(self) -> Iterator[tuple[int, Data]]:
        """The rows on this host, their designs without columns: these have no coding and are the
        most of it.
        """
        held = self.rows.data
        designs = designs_of(self.user_loglik)
        if designs is None or not isinstance(held, dict):
            yield from pieces_of(held, self.rows.present)
            return
        coded = {name: leaf for name, leaf in held.items() if name not in designs}
        for first, piece in pieces_of(coded, self.rows.present):
            empty = np.empty((len(next(iter(piece.values()))), 0))
            yield first, dict.fromkeys(held, empty) | piece

    def _holds_with_sample(self, piece: Data) -> bool:
        """Whether the coding is valid for a piece and the sample together."""

        def joined(part: ndarray, sample: ndarray) -> ndarray:
            return np.concatenate([part, sample[:, : part.shape[1]] if part.ndim == 2 else sample])

        try:
            check_coding(self.user_loglik, jax.tree.map(joined, piece, self.sample))
        except ValueError:  # said by the caller, of the piece alone
            return False
        return True

    def response_id(self) -> ndarray | None:
        """The fingerprint (2,) of the response with its weights; None if unknown."""
        response = response_of(self.user_loglik, self.rows.data)
        return None if response is None else self._fingerprint(list(response.values()))

    def _fingerprint(self, tree: Tree) -> ndarray:
        """The fingerprint (2,) of the same arrays with their weights in memory; zeros, which are
        never compared, if another process has part of them.
        """
        if jax.process_count() > 1:
            return np.zeros(2, np.uint32)
        weights = [] if self.rows.weights is None else [self.rows.weights.values]
        leaves = jax.tree.leaves((tree, weights))
        return fingerprint_of_pieces([self._pieces_of_leaf(leaf) for leaf in leaves])

    def _pieces_of_leaf(self, leaf: jax.Array) -> Iterator[ndarray]:
        for _, piece in pieces_of([leaf], self.rows.present):
            yield piece[0]


def _place(first: int) -> FunctionTo[str]:
    """The position of a value in a piece, in words."""

    def where(*index: tuple[int, ...]) -> str:
        place = index[-1]
        return f"row {first + place[0]}" + "".join(f", column {i}" for i in place[1:])

    return where


def pieces_of(tree: Tree, present: jax.Array) -> Iterator[tuple[int, Tree]]:
    """The rows that this process holds, without padding, in their order: the number of the first
    row of each piece among these, and the piece.
    """
    leaves, treedef = jax.tree.flatten(tree)
    if not leaves:
        return
    columns = [_shards(leaf) for leaf in leaves]
    whole = _shards(present)
    for j, (row, shard) in enumerate(whole):
        first = row - whole[0][0]
        keep = int(np.count_nonzero(np.asarray(shard)))  # padding stands at the end of a shard
        held = [np.asarray(shards[j][1]) for shards in columns]
        for start in range(0, keep, ROWS_OF_PIECE):
            part = slice(start, min(start + ROWS_OF_PIECE, keep))
            yield first + start, jax.tree.unflatten(treedef, [_wide(leaf[part]) for leaf in held])


def _shards(leaf: jax.Array) -> list[tuple[int, Tree]]:
    """The first row of each shard that this process holds, once, and the shard."""
    by_row = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
    return sorted(by_row.items(), key=lambda entry: entry[0])


def _wide(leaf: ndarray) -> ndarray:
    """Numbers in the width used by a fit: see ``likelihood.checks.host_data``."""
    if leaf.dtype.kind in "iu":
        return leaf.astype(jax.dtypes.canonicalize_dtype(np.int64))
    if leaf.dtype.kind == "b":
        return leaf
    return leaf.astype(jax.dtypes.canonicalize_dtype(np.float64), copy=False)
