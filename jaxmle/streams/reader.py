"""Rows of Parquet files as NumPy columns, a chunk at a time, read ahead by one thread. Memory is
bounded: the chunk being summed, those in the queue, and the one being read.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxmle._types import Tree, ndarray
from jaxmle.streams.columns import Columns
from jaxmle.streams.files import SourceFile, pyarrow_module, reason_of

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

CHUNKS_AHEAD = 2
SECONDS_BETWEEN_LOOKS = 0.05  # of a reader that waits for room, at whether it is still wanted
SECONDS_TO_STOP = 10.0  # that a caller waits for a reader in the middle of a read
BUFFER_BYTES = 2**20  # of a column that is read; without it a row group is fetched whole
GROUPS_OF_SAMPLE = 16  # row groups, evenly spaced, that a sample is drawn from


class Chunk(NamedTuple):
    """Some consecutive rows of one file."""

    file: int  # the place of the file among those of the source
    first: int  # the place of the first row in the file
    arrays: tuple[ndarray, ...]  # (n,) for each of ``Columns.names``
    labels: tuple[pa.Array, ...]  # pyarrow arrays (n,) for each of ``Columns.clusters``

    @property
    def rows(self) -> int:
        return len(self.arrays[0])


@dataclass(frozen=True)
class Reading:
    """What is read, and how many rows at once."""

    files: tuple[SourceFile, ...]
    filesystem: fs.FileSystem
    columns: Columns
    chunk_rows: int

    @property
    def rows(self) -> int:
        """The number of rows in all."""
        return sum(file.rows for file in self.files)

    def chunks(self, indices: Sequence[int]) -> Generator[Chunk]:
        """The chunks of some files, one file after the other.

        Raises:
            OSError: a file cannot be read, or has changed.
            ValueError: a value is missing.
        """
        for index in indices:
            first = 0
            with closing(self._batches(index)) as batches:
                for batch in batches:
                    yield self._chunk(index, first, batch)
                    first += batch.num_rows

    def ahead(self, indices: Sequence[int]) -> Generator[Chunk]:
        """The same chunks, read ahead by a thread."""
        return read_ahead(self.chunks(indices))

    def _batches(self, index: int, groups: list[int] | None = None) -> Generator[pa.RecordBatch]:
        pa = pyarrow_module()
        file = self.files[index]
        names = list(self.columns.all_names)
        self._check_unchanged(file)
        try:
            with pa.parquet.ParquetFile(
                file.path, filesystem=self.filesystem, pre_buffer=False, buffer_size=BUFFER_BYTES
            ) as opened:
                options = {"batch_size": self.chunk_rows, "columns": names}
                if groups is not None:
                    options["row_groups"] = groups
                yield from opened.iter_batches(**options)
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(file, error) from None

    def _check_unchanged(self, file: SourceFile) -> None:
        info = self.filesystem.get_file_info(file.path)
        if (info.size, info.mtime_ns) != (file.size, file.modified):
            gone = info.size is None
            raise OSError(
                f"{file.path} {'is gone' if gone else 'has changed'} since it was first "
                "read, but the rows must not change during a fit. Call parquet again to "
                "use the files as they are now"
            )

    def _unreadable(self, file: SourceFile, error: BaseException) -> OSError:
        """The error for a truncated file, with the first column that cannot be read."""
        pa = pyarrow_module()
        damaged = ""
        for name in self.columns.all_names:
            try:
                pa.parquet.read_table(
                    file.path, columns=[name], filesystem=self.filesystem, partitioning=None
                )
            except (OSError, pa.ArrowException) as reason:
                damaged = f"column {name!r}, "
                error = reason
                break
        return OSError(
            f"{file.path} cannot be read: {damaged}{reason_of(error)}. Write this file "
            "again; none of it was counted"
        )

    def _chunk(self, index: int, first: int, batch: pa.RecordBatch) -> Chunk:
        def place(row: int) -> str:
            return f"row {first + row} of {self.files[index].path}"

        named = dict(zip(batch.schema.names, batch.columns, strict=True))
        arrays = tuple(_numbers(name, named[name], place) for name in self.columns.names)
        labels = tuple(_labels(name, named[name], place) for name in self.columns.clusters)
        return Chunk(index, first, arrays, labels)

    def sample(self, few: int, look: Callable[[Chunk], None] | None = None) -> tuple[ndarray, ...]:
        """About ``few`` rows, evenly spaced in row groups that are evenly spaced.

        Args:
            look: called with each chunk that the sample is drawn from.
        """
        groups = [(i, g) for i, file in enumerate(self.files) for g in range(len(file.groups))]
        groups = [(i, g) for i, g in groups if self.files[i].groups[g]]
        places = np.linspace(0, len(groups) - 1, min(GROUPS_OF_SAMPLE, len(groups)))
        chosen = [groups[place] for place in np.unique(np.rint(places).astype(int))]
        stride = max(1, sum(self.files[i].groups[g] for i, g in chosen) // few)
        parts = []
        for index, group in chosen:
            seen = sum(self.files[index].groups[:group])
            skip = 0
            for batch in self._batches(index, [group]):
                chunk = self._chunk(index, seen, batch)
                self.refuse_nan(chunk)
                if look is not None:
                    look(chunk)
                # a copy: a view would hold the whole chunk
                parts.append([array[skip::stride].copy() for array in chunk.arrays])
                skip = (skip - chunk.rows) % stride
                seen += chunk.rows
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def refuse_nan(self, chunk: Chunk) -> None:
        """Raise a ValueError if a column of a chunk has a NaN."""
        for name, array in zip(self.columns.names, chunk.arrays, strict=True):
            if array.dtype.kind != "f" or not np.isnan(np.sum(array)):
                continue
            bad = np.flatnonzero(np.isnan(array))
            if len(bad):
                raise ValueError(
                    f"column {name!r} is NaN in row {chunk.first + bad[0]} of "
                    f"{self.files[chunk.file].path}. Drop or impute these rows: a "
                    "likelihood is not defined for missing values."
                )


def _numbers(name: str, column: pa.Array, place: Callable[[int], str]) -> ndarray:
    """A column as 64-bit floats, 64-bit integers or booleans."""
    _refuse_null(name, column, place)
    pa = pyarrow_module()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        return values.astype(np.float64, copy=False)
    if values.dtype == np.uint64 and values.max(initial=0) > np.iinfo(np.int64).max:
        row = int(np.argmax(values > np.iinfo(np.int64).max))
        raise ValueError(
            f"column {name!r} is {values[row]} in {place(row)}, too large for int64, the "
            "integer type used here; write it as floats"
        )
    return values if values.dtype == bool else values.astype(np.int64, copy=False)


def _labels(name: str, column: pa.Array, place: Callable[[int], str]) -> pa.Array:
    """A column of labels; each row has one."""
    _refuse_null(name, column, place)
    pa = pyarrow_module()
    if pa.types.is_floating(column.type):
        bad = np.isnan(column.to_numpy(zero_copy_only=False))
        if bad.any():
            raise ValueError(
                f"clusters: column {name!r} is NaN in {place(int(np.argmax(bad)))}: every row "
                "needs a cluster"
            )
    return column


def _refuse_null(name: str, column: pa.Array, place: Callable[[int], str]) -> None:
    if not column.null_count:
        return
    row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
    raise ValueError(
        f"column {name!r} is null in {place(row)} ({column.null_count} among the rows "
        "around it). Drop or impute these rows: a likelihood is not defined for missing "
        "values."
    )


# ---------------------------------------------------------------- the thread

END = object()


class _Failed(NamedTuple):
    error: BaseException


def read_ahead(chunks: Generator[Chunk], ahead: int = CHUNKS_AHEAD) -> Generator[Chunk]:
    """The same chunks, made by a separate thread up to ``ahead`` chunks before they are needed.

    An error in the reader is raised here; the thread ends when the caller stops.
    """
    box: queue.Queue[Tree] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item: Tree) -> bool:
        while not stop.is_set():
            try:
                box.put(item, timeout=SECONDS_BETWEEN_LOOKS)
                return True
            except queue.Full:  # look again whether the chunks are still wanted
                continue
        return False

    def fill() -> None:
        try:
            with closing(chunks):  # and so its file, where the caller has stopped
                for chunk in chunks:
                    if not put(chunk):
                        return
            put(END)
        except BaseException as error:  # whatever it is, it belongs to the caller
            put(_Failed(error))

    thread = threading.Thread(target=fill, name="jaxmle reader", daemon=True)
    thread.start()
    try:
        while (item := box.get()) is not END:
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        stop.set()
        thread.join(timeout=SECONDS_TO_STOP)
