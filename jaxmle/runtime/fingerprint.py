"""Fingerprints of data: whether two fits saw the same rows.

A fingerprint reads every byte of every leaf. It is that of the member's own rows, so that the same
data have the same one alone or in a batch, padded or not, contiguous or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import jax
import numpy as np
import xxhash

from jaxmle._types import Array, Tree, ndarray


def fingerprint(data: Tree) -> ndarray:
    """The fingerprint of one data set: two halves (2,) uint32 of 64 bits over values,
    positions, types and shapes.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(data)]
    if not leaves:
        return np.zeros(2, np.uint32)
    return fingerprints([leaf[None] for leaf in leaves], None)[0]


def fingerprints(leaves: list[ndarray], lengths: list[ndarray] | None) -> ndarray:
    """The fingerprint of each member, (b, 2) uint32.

    Each leaf of a member is hashed by XXH3 (Collet, xxHash 0.8 specification). The hashes are
    chained with the number of rows, the dtype, the shape behind the rows and the place among the
    leaves.

    Args:
        leaves: arrays (b, n, ...).
        lengths: for each leaf how many rows of each member are its own, (b,); the rest is padding.
    """
    total = np.zeros(leaves[0].shape[0], dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place, leaf in enumerate(leaves):
            rows = None if lengths is None else lengths[place]
            whole = leaf.shape[1] if leaf.ndim > 1 else 1
            n = np.full(len(leaf), whole) if rows is None else rows
            total = total ^ _mixed(n.astype(np.uint64) + _kind(leaf, place))
            total = _mixed(total + _hashes(leaf, rows))
    halves = [total >> np.uint64(32), total & np.uint64(0xFFFFFFFF)]
    return np.stack(halves, axis=1).astype(np.uint32)


def fingerprint_of_pieces(leaves: list[Iterable[ndarray]]) -> ndarray:
    """The ``fingerprint`` (2,) of one data set whose leaves come in pieces of rows, in their
    order.
    """
    total = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for place, pieces in enumerate(leaves):
            state = xxhash.xxh3_64()
            rows = 0
            kind = np.uint64(0)
            for piece in pieces:
                native = piece.astype(piece.dtype.newbyteorder("="), copy=False)
                state.update(np.ascontiguousarray(native).reshape(-1).view(np.uint8).data)
                rows += len(piece)
                kind = _kind(piece[None], place)
            total = total ^ _mixed(np.array([rows], np.uint64) + kind)
            total = _mixed(total + np.uint64(state.intdigest()))
    return np.array([total[0] >> np.uint64(32), total[0] & np.uint64(0xFFFFFFFF)], np.uint32)


def digest_of_arrays(arrays: Iterable[Array]) -> str:
    """128 bits, in hexadecimal digits, over the dtype, the shape and every byte of some arrays
    in their order.
    """
    state = xxhash.xxh3_128()
    for array in arrays:
        value = np.asarray(array)
        state.update(f"{value.dtype.str} {value.dtype.name} {value.shape};".encode())
        state.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return str(state.hexdigest())


def _kind(leaf: ndarray, place: int) -> np.uint64:
    """What makes equal bytes different data: dtype, trailing shape, and the place among the
    leaves.
    """
    text = f"{leaf.dtype.name} {leaf.ndim} {leaf.shape[2:]} {place}"
    return np.uint64(xxhash.xxh3_64_intdigest(text.encode()))


def _hashes(leaf: ndarray, rows: ndarray | None) -> ndarray:
    """The hash of each member's own rows, (b,) uint64."""
    members = len(leaf)
    if rows is None and members > 1 and leaf.strides[0] == 0:  # shared by all: hashed once
        return np.broadcast_to(_hashes(leaf[:1], None), members)
    buffers: Iterable[Tree] = _bytes(leaf)
    if rows is not None:
        row_bytes = math.prod(leaf.shape[2:]) * leaf.dtype.itemsize
        ends = (rows * row_bytes).tolist()
        buffers = (member[:end] for member, end in zip(buffers, ends, strict=True))
    return np.fromiter(map(xxhash.xxh3_64_intdigest, buffers), np.uint64, members)


def _bytes(leaf: ndarray) -> ndarray:
    """The bytes of each member in row order, (b, bytes of a member), numbers in the byte order
    of this machine.
    """
    native = leaf.astype(leaf.dtype.newbyteorder("="), copy=False)
    width = math.prod(leaf.shape[1:])
    return np.ascontiguousarray(native).reshape(len(leaf), width).view(np.uint8)


def _mixed(x: ndarray) -> ndarray:
    """A bijection of 64-bit integers that scatters neighbours (the finaliser of splitmix64:
    Steele, Lea & Flood 2014, OOPSLA).
    """
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
