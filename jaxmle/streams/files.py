"""The Parquet files of a data set: which there are, how many rows they have, and whether they have
the required columns, all from their footers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from jaxmle._types import PathLike, Tree
from jaxmle.parameters.arguments import shown

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

COLUMNS_LISTED = 8  # columns that a message lists
NUMBERS = ("float", "integer", "boolean", "decimal")


class SourceFile(NamedTuple):
    """One file of a data set, as its footer describes it."""

    path: str
    groups: tuple[int, ...]  # rows of each row group
    schema: pa.Schema  # pyarrow.Schema; files of one schema share the object
    size: int  # bytes
    modified: int | None  # nanoseconds since 1970; None where the system does not say

    @property
    def rows(self) -> int:
        return sum(self.groups)


def pyarrow_module() -> ModuleType:
    """pyarrow with its Parquet reader, which is an optional dependency."""
    try:
        import pyarrow.fs
        import pyarrow.parquet
    except ImportError:
        raise ImportError(
            "reading Parquet files needs pyarrow, which is not installed: pip install "
            "'jaxmle[frame]'"
        ) from None
    return pyarrow


def files_at(
    path: PathLike | Sequence[PathLike], filesystem: fs.FileSystem | None = None
) -> tuple[fs.FileSystem, tuple[SourceFile, ...]]:
    """The file system, and the files with rows, in the order of their paths.

    Args:
        path: a file, a folder, a URI of either, or a list of these.
        filesystem: of pyarrow or fsspec; None for the one that the path names.

    Raises:
        FileNotFoundError: there are none.
        OSError: a file cannot be read.
        ValueError: no file has a row.
    """
    pa = pyarrow_module()
    places: list[Tree] = list(path) if isinstance(path, list | tuple) else [path]
    if not places or not all(isinstance(place, str | os.PathLike) for place in places):
        raise TypeError(f"path must be a file, a folder or a list of them; got {shown(path)}")
    infos: dict[str, fs.FileInfo] = {}
    system: fs.FileSystem | None = filesystem if filesystem is None else _wrapped(pa, filesystem)
    for place in places:
        system, inner = _located(pa, place, system)
        infos |= {info.path: info for info in _infos(pa, system, inner, place)}
    schemas: dict[Tree, Tree] = {}
    files = [_described(pa, system, infos[name], schemas) for name in sorted(infos)]
    with_rows = tuple(file for file in files if file.rows)
    if not with_rows:
        raise ValueError(
            f"{shown(path)} has no rows: without observations a likelihood has no maximum"
        )
    return system, with_rows


def _wrapped(pa: ModuleType, filesystem: fs.FileSystem | None) -> fs.FileSystem:
    """A file system of pyarrow; one of fsspec in its wrapper."""
    if isinstance(filesystem, pa.fs.FileSystem):
        return filesystem
    return pa.fs.PyFileSystem(pa.fs.FSSpecHandler(filesystem))


def _located(
    pa: ModuleType, place: PathLike, system: fs.FileSystem | None
) -> tuple[fs.FileSystem, str]:
    if "://" in str(place) and system is None:
        return pa.fs.FileSystem.from_uri(str(place))
    if system is None or isinstance(system, pa.fs.LocalFileSystem):
        return system or pa.fs.LocalFileSystem(), Path(place).expanduser().absolute().as_posix()
    return system, str(place).partition("://")[2] or str(place)


def _infos(pa: ModuleType, system: fs.FileSystem, inner: str, place: PathLike) -> list[Tree]:
    """The files at one place; in a folder those that end in .parquet, at any depth, but for
    names that begin with a dot or an underscore.
    """
    info = system.get_file_info(inner)
    if info.type == pa.fs.FileType.File:
        return [info]
    if info.type == pa.fs.FileType.NotFound:
        raise FileNotFoundError(f"there is no file or folder {str(place)!r}")
    inside = system.get_file_info(pa.fs.FileSelector(inner, recursive=True))
    files = [
        entry
        for entry in inside
        if entry.type == pa.fs.FileType.File
        and entry.path.endswith((".parquet", ".pq"))
        and not any(part[:1] in "._" for part in _below(inner, entry.path))
    ]
    if not files:
        raise FileNotFoundError(f"the folder {str(place)!r} contains no .parquet files")
    return files


def _below(folder: str, path: str) -> list[str]:
    return [part for part in path[len(folder) :].split("/") if part]


def _described(
    pa: ModuleType, system: fs.FileSystem | None, info: Tree, schemas: dict[Tree, Tree]
) -> SourceFile:
    try:
        with pa.parquet.ParquetFile(info.path, filesystem=system) as opened:
            meta = opened.metadata
            groups = tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
            schema = opened.schema_arrow.remove_metadata()
    except (OSError, pa.ArrowException) as error:
        raise OSError(f"{info.path} cannot be read as a Parquet file: {reason_of(error)}") from None
    return SourceFile(
        info.path, groups, schemas.setdefault(schema, schema), info.size, info.mtime_ns
    )


def reason_of(error: BaseException) -> str:
    """The first line of an error, without its end."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


# ---------------------------------------------------------------- their columns


def check_columns(
    files: Sequence[SourceFile], numbers: Sequence[str], labels: Sequence[str]
) -> None:
    """Reject a column that a file lacks, that is not numeric, or whose kind differs between files.

    Args:
        numbers: the columns that are read as numbers.
        labels: the columns that are read as labels, of any kind.
    """
    kinds: dict[str, tuple[str, str]] = {}  # of each column, and the first file that has it
    checked = set()
    for file in files:
        if id(file.schema) in checked:
            continue
        checked.add(id(file.schema))
        for name in dict.fromkeys((*numbers, *labels)):
            kind = _kind(file, name)
            if name in numbers and kind not in NUMBERS:
                raise ValueError(
                    f"{file.path}: column {name!r} is {kind}, but data must be numbers. "
                    "Write categories to the files as codes or dummy columns, and dates "
                    "as numbers"
                )
            first = kinds.setdefault(name, (kind, file.path))
            if first[0] != kind:
                raise ValueError(
                    f"{file.path}: column {name!r} is {kind}, and {first[0]} in "
                    f"{first[1]}; a column must have the same type in all files of a data "
                    "set"
                )


def _kind(file: SourceFile, name: str) -> str:
    """What a column holds: one of ``NUMBERS``, ``"string"``, or the name of its type."""
    places = file.schema.get_all_field_indices(name)
    if len(places) != 1:
        known = ", ".join(map(repr, file.schema.names[:COLUMNS_LISTED]))
        more = ", …" if len(file.schema.names) > COLUMNS_LISTED else ""
        how = "has no column" if not places else "has more than one column"
        raise ValueError(f"{file.path} {how} {name!r}; it has {known}{more}")
    types = pyarrow_module().types
    held = file.schema.field(places[0]).type
    if types.is_dictionary(held):
        held = held.value_type
    tests = {
        "float": types.is_floating,
        "integer": types.is_integer,
        "boolean": types.is_boolean,
        "decimal": types.is_decimal,
    }
    kind = next((kind for kind, test in tests.items() if test(held)), None)
    is_text = types.is_string(held) or types.is_large_string(held)
    return kind or ("string" if is_text else str(held))
