"""Npz files that are not trusted: written as a whole or not at all, and read without code and in no
more memory than the file has bytes.
"""

from __future__ import annotations

import io
import math
import os
import re
import threading
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmle._types import DType, Tree, ndarray

ZIP_MAGIC = b"PK\x03\x04"  # how an npz file begins (PKWARE's APPNOTE 4.3.7)
NOT_OURS = "it is not an npz file"
DAMAGED = "the file is damaged, or was cut short"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    The one place that does so. Of packages for it ``atomicwrites`` is not maintained any more (its
    author withdrew it in 2022), and none that is syncs the folder too.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def is_temporary(name: str) -> bool:
    """Whether a file of that name is one that ``write_atomically`` had not finished."""
    return re.fullmatch(r"\..+\.(npz|json)\.\d+\.\d+", name) is not None


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder outlast a loss of power."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders, and needs none of this
        return
    try:
        os.fsync(handle)
    except OSError:  # some file systems cannot: the file itself is whole
        pass
    finally:
        os.close(handle)


def packed(arrays: Mapping[str, ndarray]) -> bytes:
    """The bytes of an npz file of arrays by name, uncompressed."""
    buffer = io.BytesIO()
    members: dict[str, Tree] = dict(arrays)
    np.savez(buffer, **members)
    return buffer.getvalue()


@dataclass(frozen=True)
class Member:
    """An array in a file that has been looked at and not yet made."""

    shape: tuple[int, ...]
    dtype: DType
    order: Literal["C", "F"]  # "C" or "F"
    content: memoryview

    def array(self) -> ndarray:
        """The array, in the byte order of this machine."""
        if not self.content.nbytes:
            return np.zeros(self.shape, self.dtype.newbyteorder("="))
        stored: ndarray = np.ndarray(self.shape, self.dtype, self.content, order=self.order)
        return stored.astype(self.dtype.newbyteorder("="), order="K", copy=True)


def members(content: bytes) -> dict[str, Member]:
    """The arrays of an npz file by name; sizes and shapes are checked against the bytes that are
    there.

    Raises:
        ValueError: with the reason, one clause, where this is not an uncompressed npz file, is
            damaged, or holds anything but arrays.
    """
    if not content.startswith(ZIP_MAGIC):
        raise ValueError(NOT_OURS)
    try:
        raw = _raw(content)
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # broken bytes break the reader of zip files in many ways
        raise ValueError(DAMAGED) from error
    return {name: _member(name, held) for name, held in raw.items()}


class _Refused(Exception):
    """A file that can be read and is not taken, with the reason."""


def _raw(content: bytes) -> dict[str, bytes]:
    """The bytes of each member, whose check sums agree."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise _Refused(f"it holds {repeated[0]!r} twice")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise _Refused("its arrays are compressed, but jaxmle never writes compressed arrays")
        if sum(entry.file_size for entry in entries) > len(content):
            raise _Refused("its arrays would be larger than the file")
        other = [name for name in names if not name.endswith(".npy")]
        if other:
            raise _Refused(f"it holds {other[0]!r}, which is not an array")
        return {entry.filename.removesuffix(".npy"): archive.read(entry) for entry in entries}


def _member(name: str, raw: bytes) -> Member:
    """The header of an array, checked against the bytes that follow it."""
    stream = io.BytesIO(raw)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("another version of the header")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=10_000)
    except Exception as error:  # broken bytes break the reader of headers in many ways
        raise ValueError(f"the header of {name!r} is damaged") from error
    if dtype.hasobject:
        raise ValueError(f"{name!r} holds Python objects; the file is damaged or forged")
    content = memoryview(raw)[stream.tell() :]
    sound = dtype.itemsize > 0 and all(type(size) is int and size >= 0 for size in shape)
    if not sound or len(shape) > 32 or math.prod(shape) * dtype.itemsize != content.nbytes:
        raise ValueError(
            f"{name!r} says that it is {dtype} of shape {shape}, and {content.nbytes} bytes follow"
        )
    return Member(shape, dtype, "F" if fortran else "C", content)
