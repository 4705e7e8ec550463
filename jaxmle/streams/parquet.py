"""``parquet``: the rows of Parquet files as the source of a fit."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxmle._types import Foreign, Loglik, PathLike, Tree
from jaxmle.fitting.options import Options
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.streams.columns import Columns, columns_of
from jaxmle.streams.files import check_columns, files_at
from jaxmle.streams.fit import fit_source
from jaxmle.streams.reader import Reading

if TYPE_CHECKING:
    pass

CHUNK_BYTES = 2**25  # of the numbers of a chunk: three of them and their copies are held
MIN_CHUNK_ROWS = 2**12
MAX_CHUNK_ROWS = 2**18


@dataclass(frozen=True, eq=False, repr=False)
class ParquetRows:
    """The rows of a Parquet data set, for ``fit(loglik, source=…)``; made by ``parquet``.

    >>> import tempfile, jaxmle as jm, pyarrow as pa, pyarrow.parquet as pq
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table({"age": [1.0, 2.0, 4.0]}), f"{folder}/part-0.parquet")
    ...     source = jm.parquet(folder, "age")
    >>> source, source.rows, len(source.paths)
    (ParquetRows(3 rows, 1 files), 3, 1)
    """

    reading: Reading

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.reading.rows

    @property
    def paths(self) -> tuple[str, ...]:
        """The files with rows, in the order in which they are read."""
        return tuple(file.path for file in self.reading.files)

    def __repr__(self) -> str:
        return f"ParquetRows({self.rows:,} rows, {len(self.paths)} files)"

    def fit(
        self,
        loglik: Loglik,
        params0: Tree,
        options: Options,
        engine: Executor | None,
        checkpoint: PathLike | None,
    ) -> Fit:
        """The fit of a log-likelihood to these rows; ``jaxmle.fit(loglik, source=…)`` calls it."""
        return fit_source(self.reading, loglik, params0, options, engine, checkpoint)


@with_keyword_hints
def parquet(
    path: PathLike | Sequence[PathLike], columns: Tree, *, filesystem: Foreign = None
) -> ParquetRows:
    """The rows of Parquet files, as the source of a fit that reads them again in each pass.

    A fit of a source equals that of the same rows in memory: the same search and the same verdict,
    with sums in a different order. Only a few chunks of rows are in memory at a time. The terms of
    a function must be proved to depend only on their own row; a robust covariance takes one more
    pass.

    Args:
        path: a file, a folder (all its .parquet files, at any depth), a URI of either, or a list of
            these. Rows are read in the order of the paths.
        columns: the data of the likelihood with column names instead of arrays: a name for a leaf
            (n,), a list of names and constants for a matrix (n, q).
        filesystem: a pyarrow or fsspec file system; by default that of the path.

    Returns:
        A ``ParquetRows``.

    Raises:
        ImportError: if pyarrow is not installed.
        OSError: if there is no file, or a file cannot be read.
        TypeError, ValueError: if a file lacks a column, or has values in it that are not numbers or
            not of the type in the first file; if no file has rows.

    >>> import tempfile, numpy as np, jaxmle as jm, pyarrow as pa, pyarrow.parquet as pq
    >>> folder = tempfile.TemporaryDirectory()
    >>> table = pa.table({"visits": [2.0, 3.0, 5.0, 9.0], "age": [0.0, 1.0, 2.0, 3.0]})
    >>> pq.write_table(table, f"{folder.name}/part-0.parquet")
    >>> source = jm.parquet(folder.name, {"x": [1.0, "age"], "y": "visits"})
    >>> fit = jm.fit(jm.models.poisson(), source=source)
    >>> fit.verdict.name, int(fit.n), fit.params["beta"].round(3).tolist()
    ('CONVERGED', 4, [0.614, 0.52])
    >>> folder.cleanup()
    """
    tree = columns_of(columns)
    system, files = files_at(path, filesystem)
    held = Columns(tree)
    check_columns(files, held.names, ())
    rows = CHUNK_BYTES // (8 * len(held.names))
    chunk_rows = min(max(1 << (rows.bit_length() - 1), MIN_CHUNK_ROWS), MAX_CHUNK_ROWS)
    return ParquetRows(Reading(files, system, held, chunk_rows))
