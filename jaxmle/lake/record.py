"""The record of a lake of fits: where they are, how many there are, and how they ended."""

from __future__ import annotations

from dataclasses import dataclass

from jaxmle._types import DataFrame, Foreign
from jaxmle.data.table import needed
from jaxmle.lake.outputs import Folder


@dataclass(frozen=True, eq=False, repr=False)
class LakeFits:
    """The fits of the files of a source, in a folder of Parquet files; see ``fit_lake``.

    ``path`` of the folder; ``files`` with fits, by name; ``by``, the keys; ``statuses``, from the
    name of a status to the number of groups that have it; the total numbers of ``groups`` and
    ``rows``, and the number of ``dropped`` rows, which had missing values; the numbers of files
    ``fitted`` by this call and ``skipped`` because they were done; ``stale``: files in the folder
    that belong to no file of this source.

    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq, jaxmle as jm
    >>> source, out = tempfile.mkdtemp(), tempfile.mkdtemp()
    >>> table = pa.table({"y": [1.0, 2.0, 4.0, 6.0], "site": ["a", "a", "b", "b"]})
    >>> pq.write_table(table, f"{source}/north.parquet")
    >>> loglik = lambda params, data: -((data["y"] - params["mean"]) ** 2)
    >>> fits = jm.fit_lake(loglik, source, by="site", out=out, params0={"mean": 0.0})
    >>> fits.statuses, fits.groups, fits.skipped
    ({'CONVERGED': 2}, 2, 0)
    >>> fits.to_table().column("est:mean").to_pylist()
    [1.5, 5.0]
    """

    path: str
    folder: Folder
    files: tuple[str, ...]
    by: tuple[str, ...]
    statuses: dict[str, int]
    groups: int
    rows: int
    dropped: int
    fitted: int
    skipped: int
    stale: tuple[str, ...] = ()

    def to_dataset(self) -> Foreign:
        """The fits as a pyarrow data set, not yet read; the columns are those of ``fit_table``."""
        datasets = needed("pyarrow.dataset")
        paths = [self.folder.file(name) for name in self.files]
        filesystem = self.folder.filesystem
        made = datasets.dataset(paths, format="parquet", filesystem=filesystem, partitioning=None)
        # A file without rows knows no parameters; the fullest schema is used for all.
        whole = max((part.physical_schema for part in made.get_fragments()), key=len)
        return made.replace_schema(whole.remove_metadata())

    def to_table(self) -> Foreign:
        """The fits as one pyarrow table, in memory."""
        return self.to_dataset().to_table()

    def to_frame(self) -> DataFrame:
        """The fits as a lazy polars frame; nothing is read before ``.collect()``.

        Raises:
            ImportError: if polars is not installed.
        """
        try:
            polars = needed("polars")
        except ImportError as error:
            raise ImportError(
                "a lazy frame needs polars, which is not installed: pip install polars; "
                "or use to_dataset(), a pyarrow data set"
            ) from error
        return polars.scan_pyarrow_dataset(self.to_dataset())

    def __repr__(self) -> str:
        counts = sorted(self.statuses.items(), key=lambda entry: -entry[1])
        lines = [
            f"{self.groups:,} groups by {' and '.join(self.by)} in {len(self.files):,} files: "
            f"{self.path}",
            *(f"  {status:<13} {count:,}" for status, count in counts),
            f"  {self.rows:,} rows; {self.fitted:,} files fitted now, {self.skipped:,} were there",
        ]
        if self.dropped:
            lines.append(f"  {self.dropped:,} rows dropped for missing values")
        if self.stale:
            lines.append(
                f"  {len(self.stale):,} files in the folder do not belong to a file of "
                f"this source, such as {self.stale[0]}"
            )
        return "\n".join(lines)
