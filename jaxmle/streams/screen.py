"""What one look at each row finds: whether its values are valid for the likelihood, how many
observations there are, and a fingerprint of the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xxhash

from jaxmle._types import Array, FunctionTo, Loglik, Tree, ndarray
from jaxmle.likelihood.checks import check_coding
from jaxmle.likelihood.discovery.indices import check_indices
from jaxmle.likelihood.discovery.ready_calls import check_calls, has_user_function
from jaxmle.parameters.tree import Layout
from jaxmle.record.identity import designs_of
from jaxmle.streams.columns import Columns
from jaxmle.streams.reader import Chunk, Reading


class RowCounts(NamedTuple):
    """What is known about a file, or all files, once each row has been seen."""

    rows: int
    n: float  # observations: rows, the sum of frequency weights, or rows of positive weight
    digests: tuple[bytes, ...]  # of each of ``Columns.names``


@dataclass(frozen=True)
class Coding:
    """The values that a likelihood and its weights accept."""

    reading: Reading
    user_loglik: Loglik  # as it was given: a built-in model knows its coding
    weight_kind: str | None

    def check(self, chunk: Chunk, sample: Sequence[ndarray]) -> None:
        """Raise a ValueError for a value that is none of them, with its file and column.

        Args:
            sample: rows spread over the whole source, which stand for the others where a rule is
                about all rows together.
        """
        self.reading.refuse_nan(chunk)
        self._check_weights(chunk)
        where = self.place(chunk)
        try:
            check_coding(self.user_loglik, self._coded_leaves(chunk.arrays), where)
        except ValueError as error:  # of a rule about all rows, others may be right
            if self._holds_among(chunk, sample):
                return
            raise ValueError(f"{error}{self._column_named(str(error))}") from None

    def _holds_among(self, chunk: Chunk, sample: Sequence[ndarray]) -> bool:
        """Whether the coding is valid for a chunk and the sample together."""
        pairs = zip(chunk.arrays, sample, strict=True)
        together = self._coded_leaves([np.concatenate(pair) for pair in pairs])
        try:
            check_coding(self.user_loglik, together)
        except ValueError:  # said by the caller, of the chunk alone
            return False
        return True

    def place(self, chunk: Chunk) -> FunctionTo[str]:
        """The position of a value in a chunk, in words."""
        path = self.reading.files[chunk.file].path

        def where(*index: tuple[int, ...]) -> str:
            place = index[-1]
            column = "".join(f", column {i}" for i in place[1:])
            return f"row {chunk.first + place[0]} of {path}{column}"

        return where

    def _column_named(self, message: str) -> str:
        """The column that is a leaf which a message names differently."""
        tree = self.reading.columns.tree
        for name, leaf in tree.items() if isinstance(tree, dict) else ():
            if f"data[{name!r}]" in message and leaf != name:
                return f" ({name} is the column {leaf!r} of the files.)"
        return ""

    def _coded_leaves(self, arrays: Sequence[ndarray]) -> Tree:
        """The data without its designs, which have no coding and are most of the data."""
        columns = self.reading.columns
        designs = designs_of(self.user_loglik)
        if not isinstance(columns.tree, dict) or designs is None:
            return columns.data(arrays)
        empty = np.empty((len(arrays[0]), 0))
        slim = {
            name: leaf
            for name, leaf in columns.tree.items()
            if name not in designs or not isinstance(leaf, tuple)
        }
        held = dict(zip(columns.names, arrays, strict=True))
        part = Columns(slim)
        coded = part.data([held[name] for name in part.names]) if part.names else {}
        return dict.fromkeys(columns.tree, empty) | coded

    def _check_weights(self, chunk: Chunk) -> None:
        w = self.reading.columns.weights_in(chunk.arrays)
        if w is None:
            return
        where = self.place(chunk)
        bad = ~(np.isfinite(w) & (w >= 0))
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(
                f"weights must be finite and non-negative; {where((row,))} has {w[row]}"
            )
        fraction = w != np.floor(w)
        if self.weight_kind == "frequency" and fraction.any():
            row = int(np.argmax(fraction))
            raise ValueError(
                "frequency weights count repeated rows and must be integers; "
                f"{where((row,))} has {w[row]}. Survey weights are jaxmle.sampling(w)."
            )


@dataclass(frozen=True)
class Screening:
    """How the rows of a source are checked."""

    coding: Coding
    loglik: Loglik  # as a tree, without the weights
    layout: Layout
    base: Array  # (p,) the start
    sample: tuple[ndarray, ...]  # rows spread over the whole source

    def check(self, chunk: Chunk) -> None:
        """Raise a ValueError for a value that the likelihood does not read."""
        self.coding.check(chunk, self.sample)
        if has_user_function(self.loglik):
            self._check_functions(chunk)

    def _check_functions(self, chunk: Chunk) -> None:
        """Check codes used as indices, and built-in models called by a user's function."""
        reading = self.coding.reading
        data = reading.columns.data(chunk.arrays)
        where = self.coding.place(chunk)
        check_calls(self.loglik, self.layout, self.base, data, where)
        try:
            check_indices(self.loglik, self.layout, self.base, data)
        except ValueError as error:
            path = reading.files[chunk.file].path
            raise ValueError(f"{path}, rows counted from {chunk.first}: {error}") from None


class Tally:
    """The census of one file, chunk by chunk."""

    def __init__(self, screening: Screening) -> None:
        self.screening = screening
        self.hashers = [xxhash.xxh3_64() for _ in screening.coding.reading.columns.names]
        self.rows = 0
        self.n = 0.0

    def add(self, chunk: Chunk) -> None:
        """Check a chunk, and count its rows."""
        self.screening.check(chunk)
        for hasher, array in zip(self.hashers, chunk.arrays, strict=True):
            hasher.update(np.ascontiguousarray(array).view(np.uint8).data)
        w = self.screening.coding.reading.columns.weights_in(chunk.arrays)
        self.rows += chunk.rows
        if w is None:
            self.n += chunk.rows
        elif self.screening.coding.weight_kind == "frequency":
            self.n += float(np.sum(w))
        else:
            self.n += float(np.count_nonzero(w > 0))

    @property
    def row_counts(self) -> RowCounts:
        digests = tuple(hasher.digest() for hasher in self.hashers)
        return RowCounts(self.rows, self.n, digests)


def joined(counts_of_files: Sequence[RowCounts]) -> RowCounts:
    """The census of all files from that of each, in their order."""
    columns = zip(*(row_counts.digests for row_counts in counts_of_files), strict=True)
    lengths = np.array([row_counts.rows for row_counts in counts_of_files]).tobytes()
    digests = tuple(xxhash.xxh3_64(b"".join(column) + lengths).digest() for column in columns)
    return RowCounts(
        sum(row_counts.rows for row_counts in counts_of_files),
        sum(row_counts.n for row_counts in counts_of_files),
        digests,
    )


def fingerprint_of(*digests: bytes) -> ndarray:
    """A fingerprint (2,) uint32 of the columns with these digests."""
    whole = xxhash.xxh3_64(b"".join(digests)).intdigest()
    return np.array([whole >> 32, whole & 0xFFFFFFFF], np.uint32)
