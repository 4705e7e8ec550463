"""One pass over all rows: sums of each file, added in the order of the files.

The order does not depend on which process reads the files, so sums are equal bit for bit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import NamedTuple

import numpy as np

from jaxmle._types import Function, Loglik, Tree, ndarray
from jaxmle.runtime.compile import compiled
from jaxmle.streams.kernels import BY_CLUSTER, SUMMED, Form, kernel
from jaxmle.streams.reader import Chunk, Reading
from jaxmle.streams.screen import RowCounts, Screening, Tally, fingerprint_of, joined
from jaxmle.streams.totals import ClusterTotals, RowSearch, Sum

MIN_PADDED_ROWS = 1024  # shorter chunks are padded to this length
STEP_OF_LENGTHS = 4  # between one length of padded chunks and the next: four programs at most
SECONDS_BETWEEN_FILES_SAID = 10.0  # lines of progress within a pass


class Request(NamedTuple):
    """What a pass must find."""

    name: str  # one of ``CHUNK_KERNELS``
    args: tuple[ndarray, ...]
    screened: bool  # whether each row is looked at too: once in a fit
    contradicted: bool = False  # whether second derivatives by jax are known to be wrong


class FileResult(NamedTuple):
    """What a pass found in one file."""

    value: Tree
    row_counts: RowCounts | None


@dataclass(frozen=True)
class Work:
    """All that a pass over a file needs."""

    loglik: Loglik  # as a tree, without weights and priors
    form: Form
    reading: Reading
    screening: Screening


def total_of(work: Work, name: str) -> Tree:
    """An empty total of a kernel's results."""
    if name in SUMMED:
        return Sum()
    return ClusterTotals(work.reading.columns.clusters) if name == BY_CLUSTER else RowSearch()


def results_of(work: Work, request: Request, indices: Sequence[int]) -> Generator[FileResult]:
    """The results of the pass for each of some files, one after the other."""
    key = ("streamed", request.name, *work.form.key)
    program = compiled(work.loglik, key, kernel(work.form, request.name))
    chunks = work.reading.ahead(indices)
    with closing(chunks):
        for _, of_file in groupby(chunks, key=lambda chunk: chunk.file):
            yield _result_of_file(work, request, program, of_file)


def _result_of_file(
    work: Work, request: Request, program: Function, chunks: Iterable[Chunk]
) -> FileResult:
    total = total_of(work, request.name)
    tally = Tally(work.screening) if request.screened else None
    pending: tuple[Chunk, Tree] | None = None
    for chunk in chunks:
        if tally is not None:
            tally.add(chunk)
        arrays, mask = _padded(chunk, work.reading.chunk_rows)
        out = program(arrays, mask, *request.args)
        if pending is not None:  # dispatched before: the device has worked on it meanwhile
            total.take(*pending)
        pending = (chunk, out)
    if pending is not None:
        total.take(*pending)
    return FileResult(total.value, None if tally is None else tally.row_counts)


def _padded(chunk: Chunk, chunk_rows: int) -> tuple[tuple[ndarray, ...], ndarray]:
    """The columns of a chunk padded with copies of its last row, and a mask (n,), 0 there."""
    length = chunk_rows
    while length >= STEP_OF_LENGTHS * max(chunk.rows, MIN_PADDED_ROWS):
        length //= STEP_OF_LENGTHS
    mask = _mask(chunk.rows, length)
    if length == chunk.rows:
        return chunk.arrays, mask
    short = (0, length - chunk.rows)
    return tuple(np.pad(array, short, mode="edge") for array in chunk.arrays), mask


@cache
def _mask(rows: int, length: int) -> ndarray:
    return (np.arange(length) < rows).astype(np.float64)


@dataclass(frozen=True)
class SourceRunner:
    """Runs passes over a source, here or on an engine, and keeps what the first one saw."""

    work: Work
    results: Callable[[Request], Iterator[FileResult]]
    progress: bool | None
    censuses: list[RowCounts] = field(default_factory=list)  # of all files, once it is known
    passes: list[str] = field(default_factory=list)  # names of those that were run

    def run(self, name: str, *args: Tree) -> Tree:
        """What a kernel finds in all rows."""
        screened = not self.censuses
        request = Request(name, tuple(np.asarray(arg) for arg in args), screened)
        self.passes.append(name)
        total = total_of(self.work, name)
        seen: list[RowCounts] = []
        last = time.monotonic()
        for index, result in enumerate(self.results(request)):
            total.add(result.value)
            if result.row_counts is not None:
                seen.append(result.row_counts)
            ended = index + 1 == len(self.work.reading.files)
            if self._is_due(last) or (ended and self.progress):
                last = time.monotonic()
                self._print(index)
        if screened:
            self.censuses.append(joined(seen))
        return total.value

    @property
    def row_counts(self) -> RowCounts:
        """What is known about all rows after the first pass."""
        return self.censuses[0]

    @property
    def n(self) -> float:
        """The number of observations, after the first pass."""
        return self.row_counts.n

    @property
    def data_id(self) -> ndarray:
        """The fingerprint (2,) of all columns, after the first pass."""
        return fingerprint_of(*self.row_counts.digests)

    def row(self, place: Tree) -> int:
        """The index of a row among all, from its file and its index there; −1 for None."""
        if place is None:
            return -1
        return sum(file.rows for file in self.work.reading.files[: place.file]) + place.row

    def _is_due(self, last: float) -> bool:
        return self.progress is not False and time.monotonic() - last > SECONDS_BETWEEN_FILES_SAID

    def _print(self, index: int) -> None:
        files = self.work.reading.files
        done = sum(file.rows for file in files[: index + 1]) / self.work.reading.rows
        print(
            f"jaxmle.fit: pass {len(self.passes)} ({self.passes[-1]}), {done:.0%} of "
            f"{self.work.reading.rows:,} rows",
            file=sys.stderr,
        )
