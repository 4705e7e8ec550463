"""The folder of a lake's fits: a manifest, and one Parquet file for each file of the source,
written completely or not at all.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxmle._types import PathLike, Tree
from jaxmle.data.table import needed
from jaxmle.lake.partitions import Partition
from jaxmle.parameters.arguments import first_line, shown

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

MANIFEST_OF_A_LAKE = "manifest.json"
LAKE_FORMAT = 1
FOOTER = b"jaxmle"  # the metadata key of a file of fits, whose value is JSON
NANOSECONDS_TO_ABANDON = 3600 * 10**9  # an hour: its process died


@dataclass(frozen=True)
class Folder:
    """A folder on an Arrow file system: a disk, or an object store."""

    filesystem: fs.FileSystem
    path: str

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"

    def names(self) -> list[str]:
        """The files in it."""
        fs = needed("pyarrow.fs")
        selector = fs.FileSelector(self.path, allow_not_found=True)
        return [info.base_name for info in self.filesystem.get_file_info(selector)]

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically: readers see all of it or none, even after a crash."""
        temporary = self.file(f".{name}.{uuid.uuid4().hex}")
        try:
            with self.filesystem.open_output_stream(temporary) as stream:
                stream.write(content)
            self.filesystem.move(temporary, self.file(name))
        except BaseException:  # an interrupt must not leave a half-written file either
            self.remove(temporary)
            raise

    def remove(self, path: str) -> None:
        try:
            self.filesystem.delete_file(path)
        except OSError:
            pass  # it is not there, or the disk is gone

    def read(self, name: str) -> bytes:
        with self.filesystem.open_input_stream(self.file(name)) as stream:
            return stream.read()

    def sweep(self) -> None:
        """Remove unfinished files left by processes that died."""
        fs = needed("pyarrow.fs")
        for info in self.filesystem.get_file_info(fs.FileSelector(self.path)):
            unfinished = re.fullmatch(r"\..+\.[0-9a-f]{32}", info.base_name)
            if unfinished and time.time_ns() - info.mtime_ns > NANOSECONDS_TO_ABANDON:
                self.remove(info.path)


def folder_of(out: PathLike) -> Folder:
    """The folder that ``out`` names: a path, or an address such as ``s3://bucket/fits``."""
    fs = needed("pyarrow.fs")
    if not isinstance(out, str | os.PathLike) or not str(out):
        raise TypeError(f"out must be a folder for the fits, such as 'fits'; got {shown(out)}")
    text = os.fspath(out)
    if "://" not in text:
        return Folder(fs.LocalFileSystem(), os.path.abspath(text))
    filesystem, path = fs.FileSystem.from_uri(text)
    return Folder(filesystem, path.rstrip("/"))


def refuse_own_source(folder: Folder, partitions: tuple[Partition, ...]) -> None:
    """Reject an output folder within the source: the next call would read the fits as data."""
    for partition in partitions:
        if partition.path.startswith(f"{folder.path}/"):
            raise ValueError(
                f"out={folder.path!r} holds source files, such as {partition.path!r}: "
                "give a separate folder"
            )


def open_folder(folder: Folder, identity: dict[str, str], about: dict[str, Tree]) -> None:
    """Resume a folder that holds fits of the same run, or start one.

    Args:
        identity: digests by name, which must be those of the run that wrote the folder.
        about: further entries of the manifest, for whoever reads it.

    Raises:
        ValueError: the folder belongs to another run, or holds other files.
        OSError: it cannot be made or written.
    """
    try:
        names = folder.names()
        if MANIFEST_OF_A_LAKE in names:
            _compare(folder, identity)
        elif any(not name.startswith(".") for name in names):
            other = min(name for name in names if not name.startswith("."))
            raise ValueError(
                f"out={folder.path!r} holds other files, such as {other!r}, and no "
                f"{MANIFEST_OF_A_LAKE}: give a new or empty folder"
            )
        else:
            folder.filesystem.create_dir(folder.path, recursive=True)
            content = {"format": LAKE_FORMAT, "identity": identity} | about
            folder.write(MANIFEST_OF_A_LAKE, json.dumps(content, indent=1).encode())
        folder.sweep()
    except OSError as error:
        raise OSError(
            error.errno, f"out={folder.path!r} cannot be written: {first_line(error)}"
        ) from error


def _compare(folder: Folder, identity: dict[str, str]) -> None:
    try:
        manifest = json.loads(folder.read(MANIFEST_OF_A_LAKE))
        written = dict(manifest["identity"])
        version = manifest["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"out={folder.path!r} cannot be used: its {MANIFEST_OF_A_LAKE} is damaged. "
            "Delete the folder, or give another: everything will be refitted"
        ) from error
    if version != LAKE_FORMAT:
        raise ValueError(
            f"out={folder.path!r} was written in format {version}; this version of jaxmle writes "
            f"format {LAKE_FORMAT}. Give another folder"
        )
    for what, value in identity.items():
        if written.get(what) != value:
            raise ValueError(
                f"out={folder.path!r} holds the fits of another run, which differs in its {what}. "
                "Give another folder, or delete this one"
            )


# ---------------------------------------------------------------- one file of fits


def write_fits(folder: Folder, name: str, table: pa.Table, footer: dict[str, Tree]) -> None:
    """Write the fits of a file of the source, with a description in the footer."""
    pa = needed("pyarrow")
    described = table.replace_schema_metadata({FOOTER: json.dumps(footer).encode()})
    buffer = pa.BufferOutputStream()
    needed("pyarrow.parquet").write_table(described, buffer)
    folder.write(name, buffer.getvalue())


def read_footer(folder: Folder, name: str) -> dict[str, Tree] | None:
    """The footer of a file of fits; None if it has none that can be read."""
    try:
        parquet = needed("pyarrow.parquet")
        schema = parquet.read_schema(folder.file(name), filesystem=folder.filesystem)
        footer = json.loads((schema.metadata or {})[FOOTER])
    except (OSError, ValueError, KeyError):  # the file is then fitted again
        return None
    return footer if isinstance(footer, dict) else None


def read_fits(folder: Folder, name: str, columns: list[str] | None = None) -> pa.Table:
    """A file of fits as a table."""
    parquet = needed("pyarrow.parquet")
    return parquet.read_table(
        folder.file(name), columns=columns, filesystem=folder.filesystem, partitioning=None
    )
