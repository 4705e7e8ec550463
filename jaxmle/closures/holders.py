"""Holders of values, and how what they hold is written down: containers, buffers, arrays, and
tables of pandas and polars.

Each function takes the walk of ``watch`` and one value.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import xxhash

from jaxmle._namespace import is_traced
from jaxmle._types import Foreign, ndarray
from jaxmle.closures.widths import is_narrow, is_narrow_now

# Methods of a path that read from the disk.
READING = frozenset(
    ["open", "read_text", "read_bytes", "exists", "is_file", "is_dir", "stat", "iterdir", "glob"]
)


class Traversal(Protocol):
    """The walk of ``watch``, as far as the holders use it."""

    facts: list[object]
    retained: list[object]
    holders: set[int]
    names: frozenset[str]
    all: bool
    again: bool
    narrow: bool
    traced: bool
    hidden: str
    parent: int
    edges: list[tuple[int, int]]

    # fmt: off
    def visit(self, value: Foreign, /) -> None: ...
    def identity(self, value: Foreign, /) -> None: ...
    def hide(self, value: Foreign, /) -> None: ...
    def sequence(self, values: Iterable[Foreign], /) -> None: ...
    def items(self, values: Mapping[Foreign, Foreign], /) -> None: ...
    def subclassed(self, value: Foreign, /) -> None: ...
    # fmt: on


def digest(value: ndarray) -> int:
    """128 bits of XXH3 over the bytes of an array without objects, in the order of its indices."""
    flat: Foreign = value if value.flags.c_contiguous else np.ascontiguousarray(value)
    try:
        return xxhash.xxh3_128_intdigest(flat)
    except (ValueError, TypeError, BufferError):  # a dtype without a buffer, such as bfloat16
        return xxhash.xxh3_128_intdigest(flat.reshape(-1).view(np.uint8))


def reaching(edges: list[tuple[int, int]], holders: set[int]) -> frozenset[int]:
    """The identities of all objects from which a holder can be reached."""
    parents = collections.defaultdict(list)
    for parent, child in edges:
        parents[child].append(parent)
    reached = set(holders)
    open_ = list(holders)
    while open_:
        for parent in parents[open_.pop()]:
            if parent not in reached:
                reached.add(parent)
                open_.append(parent)
    return frozenset(reached)


# ---------------------------------------------------------------- containers


def mapping(traversal: Traversal, value: Foreign) -> None:
    """A dictionary of any class by its keys and values, in order."""
    ordered = isinstance(value, collections.OrderedDict)
    pairs = collections.OrderedDict.items(value) if ordered else dict.items(value)
    traversal.items(dict(pairs))
    if isinstance(value, collections.defaultdict):
        traversal.visit(value.default_factory)
    traversal.subclassed(value)


def elements(traversal: Traversal, value: Foreign) -> None:
    """A list, tuple, set or deque of any class by its elements."""
    base: Foreign = next(
        b for b in (list, tuple, set, frozenset, collections.deque) if isinstance(value, b)
    )
    traversal.sequence(base.__iter__(value))
    traversal.subclassed(value)


def number(traversal: Traversal, value: Foreign) -> None:
    """A number or text of a class of its own."""
    base: Foreign = next(b for b in (int, float, complex, str, bytes) if isinstance(value, b))
    traversal.facts.append(base.__repr__(value))
    traversal.subclassed(value)


def buffer(traversal: Traversal, value: Foreign) -> None:
    """Bytes that may change."""
    traversal.facts.append(xxhash.xxh3_128_intdigest(memoryview(value).tobytes()))


def view_of_dict(traversal: Traversal, value: Foreign) -> None:
    """The keys, values or items of a dictionary."""
    traversal.items(dict(value.mapping))


def proxy(traversal: Traversal, value: Foreign) -> None:
    """A read-only view of a dictionary."""
    traversal.items(dict(value))


def reference(traversal: Traversal, value: Foreign) -> None:
    """What a weak reference refers to."""
    traversal.visit(value())


# ---------------------------------------------------------------- arrays


def numpy_array(traversal: Traversal, value: ndarray) -> None:
    """An array by its type, shape and the digest of its bytes, or by its objects."""
    kind = type(value)
    dtype = value.dtype
    traversal.holders.add(id(value))
    traversal.narrow = traversal.narrow or is_narrow_now(value)
    traversal.facts += (dtype.num, dtype.str, value.shape)
    if dtype.hasobject:
        inner = value.ravel().tolist()
        traversal.retained.append(inner)
        traversal.sequence(inner)
    else:
        traversal.facts.append(digest(value))
    if dtype.names:
        traversal.facts.append(repr(dtype))
    if kind is not np.ndarray:
        array_subclass(traversal, value)


def array_subclass(traversal: Traversal, value: ndarray) -> None:
    """What an array of another class adds: a mask, attributes."""
    if isinstance(value, np.ma.MaskedArray):
        traversal.visit(np.ma.getmaskarray(value))
        traversal.visit(np.asarray(value.fill_value))
    traversal.subclassed(value)


def numpy_scalar(traversal: Traversal, value: Foreign) -> None:
    """A number by its type and bytes."""
    if is_narrow(value):
        traversal.holders.add(id(value))
    traversal.facts.append(value.dtype.str)
    traversal.facts.append(value.tobytes())


def jax_array(traversal: Traversal, value: Foreign) -> None:
    """An array that cannot change, or a tracer."""
    if is_narrow(value):
        traversal.holders.add(id(value))
        traversal.narrow = traversal.narrow or is_narrow_now(value)
    traversal.traced = traversal.traced or is_traced(value)
    traversal.identity(value)


# ---------------------------------------------------------------- tables


def pandas_table(traversal: Traversal, value: Foreign) -> None:
    """A Series, Index or DataFrame: labels and values, which NumPy gives without a copy where
    they are numbers.
    """
    traversal.holders.add(id(value))
    if hasattr(value, "columns"):
        pandas_table(traversal, value.columns)
        for _, column in value.items():
            pandas_column(traversal, column)
    else:
        traversal.visit(value.names if hasattr(value, "names") else value.name)
        pandas_column(traversal, value)
    if hasattr(value, "index"):
        pandas_table(traversal, value.index)
        traversal.visit(value.attrs)


def pandas_column(traversal: Traversal, column: Foreign) -> None:
    """The type, categories and values of a column."""
    traversal.facts.append(str(column.dtype))
    if hasattr(column.dtype, "categories"):
        traversal.visit(list(column.dtype.categories))
    column_values(traversal, column.to_numpy())


def polars_table(traversal: Traversal, value: Foreign) -> None:
    """A frame or series by the names, types and values of its columns."""
    traversal.holders.add(id(value))
    for column in value.get_columns() if hasattr(value, "get_columns") else [value]:
        traversal.facts += (column.name, str(column.dtype))
        numeric = column.dtype.is_numeric() and not column.null_count()
        column_values(
            traversal, column.to_numpy() if numeric else np.array(column.to_list(), object)
        )


def arrow_data(traversal: Traversal, value: Foreign) -> None:
    """An array, batch or table of pyarrow by its type and buffers, which it may share with a NumPy
    array that can change.
    """
    traversal.holders.add(id(value))
    traversal.facts.append(str(getattr(value, "type", None) or value.schema))
    columns = value.columns if hasattr(value, "columns") else [value]
    for column in columns:
        for chunk in getattr(column, "chunks", [column]):
            traversal.facts += (chunk.offset, len(chunk))
            traversal.facts += [
                part and xxhash.xxh3_128_intdigest(part) for part in chunk.buffers()
            ]


def path(traversal: Traversal, value: Foreign) -> None:
    """A path by its name. What code that was reached may read there cannot be watched."""
    traversal.facts.append(str(value))
    if not traversal.again and (traversal.all or traversal.names & READING):
        traversal.hide(value)


def column_values(traversal: Traversal, values: ndarray) -> None:
    """The values of a column."""
    traversal.facts.append(values.shape)
    if values.dtype.hasobject:
        for value in values.ravel().tolist():
            if type(value).__module__.startswith("pandas"):  # NA, or a time made for the occasion
                traversal.facts.append(repr(value))
            else:
                traversal.visit(value)
    else:
        traversal.facts += (values.dtype.str, digest(values))
