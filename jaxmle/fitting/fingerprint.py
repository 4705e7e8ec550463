"""Fingerprints of data: whether two fits saw the same rows. Alone or in a batch, padded or not, the same data have the same one."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

Tree = Any

LARGE = 2**21  # words of a leaf beyond which it is sampled
CACHED = 2**15  # words at a time: their multipliers stay in the cache


def fingerprint(data: Tree) -> np.ndarray:
    """Two halves (2,) uint32 of one 64-bit sum over values, positions, types and shapes."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(data)]
    return (
        fingerprints([leaf[None] for leaf in leaves], None)[0] if leaves else np.zeros(2, np.uint32)
    )


def fingerprints(leaves: list[np.ndarray], lengths: list[np.ndarray] | None) -> np.ndarray:
    """The fingerprint of each member, (b, 2) uint32.

    Args:
        leaves: arrays (b, n, ...).
        lengths: for each leaf how many rows of each member are its own, (b,); the rest is padding.
    """
    total = np.zeros(leaves[0].shape[0], dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place, leaf in enumerate(leaves):
            rows = None if lengths is None else lengths[place]
            n = (
                np.full(len(leaf), leaf.shape[1] if leaf.ndim > 1 else 1, dtype=np.uint64)
                if rows is None
                else rows.astype(np.uint64)
            )
            shape = _mixed(
                np.array([leaf.dtype.num, leaf.ndim, *leaf.shape[2:], place], dtype=np.uint64)
            ).sum(dtype=np.uint64)
            total = (total ^ _mixed(n + shape)) + _summed(leaf, rows)
            total = _mixed(total)
    return np.stack([total >> np.uint64(32), total & np.uint64(0xFFFFFFFF)], axis=1).astype(
        np.uint32
    )


def _summed(leaf: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """Σ word·multiplier over each member's own rows, (b,); multipliers are odd and depend on the position: one for the place in its part
    of ``CACHED`` words times one for the part."""
    if rows is None and len(leaf) > 1 and leaf.strides[0] == 0:  # shared by all: once for all
        return np.broadcast_to(_summed(leaf[:1], None), len(leaf))
    words = _words(leaf)
    width = int(np.prod(leaf.shape[2:], dtype=int))
    if rows is not None:
        words = np.where(
            np.arange(words.shape[1])[None, :] < (rows * width)[:, None], words, np.uint64(0)
        )
    stride = max(1, words.shape[1] // LARGE)
    picked, total = words[:, ::stride], np.zeros(len(words), dtype=np.uint64)
    multipliers = _odd(np.arange(min(CACHED, picked.shape[1]), dtype=np.uint64))
    for part, first in enumerate(range(0, picked.shape[1], CACHED)):
        here = picked[:, first : first + CACHED]
        total += np.einsum("bi,i->b", here, multipliers[: here.shape[1]]) * _odd(
            np.array([CACHED + part], dtype=np.uint64)
        )
    return total


def _odd(place: np.ndarray) -> np.ndarray:
    """An odd multiplier for each place."""
    return _mixed(place) | np.uint64(1)


def _words(leaf: np.ndarray) -> np.ndarray:
    """The values as unsigned integers, (b, values of a member)."""
    flat = np.ascontiguousarray(leaf).reshape(leaf.shape[0], -1)
    if flat.dtype.kind == "f" and flat.dtype.itemsize in (4, 8):
        return flat.view(f"u{flat.dtype.itemsize}").astype(np.uint64, copy=False)
    return (
        flat.astype(np.float64).view(np.uint64)
        if flat.dtype.kind not in "iub"
        else flat.astype(np.int64).view(np.uint64)
    )


def _mixed(x: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers that scatters neighbours (the finaliser of splitmix64: Steele, Lea & Flood 2014, OOPSLA)."""
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
