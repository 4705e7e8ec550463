"""The files of a source: which there are, and whether one has changed since it was fitted."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from jaxmle._types import Foreign, Tree
from jaxmle.data.table import needed
from jaxmle.parameters.arguments import check_count, first_line, shown

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import dataset, fs

CHARACTERS_OF_A_NAME = 80  # of the end of a path, in the name of its output; names have 255 at most


@dataclass(frozen=True)
class Partition:
    """One file of the source: the ``fragment`` that reads it, its ``path``, ``size`` in bytes and
    modification time ``mtime_ns``, and the name of its output.
    """

    fragment: dataset.Fragment
    path: str
    size: int
    mtime_ns: int

    @property
    def output(self) -> str:
        """The name of the file of its fits: readable, and unique to the path."""
        last_names = re.sub(r"\.(parquet|parq|pq)$", "", "/".join(self.path.split("/")[-2:]))
        plain = re.sub(r"[^\w=.-]+", "-", last_names)[-CHARACTERS_OF_A_NAME:].lstrip("-._")
        return f"{plain}-{xxhash.xxh3_64_hexdigest(self.path.encode())}.parquet"

    @property
    def facts(self) -> dict[str, Tree]:
        """What must be unchanged for its fits to be those of the file."""
        return {"path": self.path, "size": self.size, "mtime_ns": self.mtime_ns}


@dataclass(frozen=True)
class Source:
    """A data set of Parquet files with one ``schema``, in the order of their paths: the
    ``partitions`` requested, and the ``others``.
    """

    schema: pa.Schema
    partitions: tuple[Partition, ...]
    others: tuple[Partition, ...]


def source_of(source: Foreign, part: tuple[int, int] | None) -> Source:
    """The files of a source, or of one part of it.

    Raises:
        TypeError, ValueError: it is not a data set of Parquet files, or holds none.
        OSError: it cannot be read.
    """
    dataset = _dataset(source)
    fragments = sorted(dataset.get_fragments(), key=lambda fragment: fragment.path)
    if not fragments:
        raise ValueError(f"source={shown(source)} contains no Parquet files")
    index, parts = _part(part)
    facts = _facts([fragment.path for fragment in fragments], dataset.filesystem)
    partitions = [
        Partition(fragment, fragment.path, size, mtime_ns)
        for fragment, (size, mtime_ns) in zip(fragments, facts, strict=True)
    ]
    chosen = partitions[index::parts]
    others = [partition for i, partition in enumerate(partitions) if i % parts != index]
    return Source(dataset.schema, tuple(chosen), tuple(others))


def _dataset(source: Foreign) -> Tree:
    datasets = needed("pyarrow.dataset")
    if isinstance(source, datasets.Dataset):
        if isinstance(source, datasets.FileSystemDataset):
            return source
        raise TypeError(
            f"source is a {type(source).__name__}; fit_lake needs Parquet files, such as "
            "pyarrow.dataset.dataset('sales'). For a table in memory use fit_table"
        )
    paths = source if isinstance(source, list | tuple) else [source]
    if not paths or not all(isinstance(path, str | os.PathLike) for path in paths):
        raise TypeError(
            "source must be a folder of Parquet files, a list of files or a pyarrow data "
            f"set; got {shown(source)}"
        )
    texts = [_absolute(os.fspath(path)) for path in paths]
    given = texts if isinstance(source, list | tuple) else texts[0]
    try:
        return datasets.dataset(given, format="parquet", partitioning="hive")
    except (ValueError, OSError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(
            f"the source {given!r} cannot be read as Parquet: {first_line(error)}"
        ) from error


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)


def _facts(paths: list[str], filesystem: fs.FileSystem) -> list[tuple[int, int]]:
    """Size and modification time of each file."""
    infos = filesystem.get_file_info(paths)
    return [(info.size or 0, info.mtime_ns or 0) for info in infos]


def _part(part: tuple[int, int] | None) -> tuple[int, int]:
    """Which of how many parts, from ``part=(i, n)``."""
    if part is None:
        return 0, 1
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise TypeError(
            f"part must be a pair (i, n): part i of n, counted from 0; got {shown(part)}"
        )
    index, parts = part
    parts = check_count("the number of parts", parts, 1)
    index = check_count("the part", index)
    if index >= parts:
        raise ValueError(f"part={(index, parts)}: the parts of {parts} are 0 to {parts - 1}")
    return index, parts
