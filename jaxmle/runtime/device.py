"""Large arrays on their way to the device: one copy into memory that the device takes as it is.

A CPU device reads NumPy's memory in place where it starts on a multiple of 64 bytes, which NumPy's
own large arrays never do; what it copies itself goes through small pages. NumPy asks for huge ones:
15 ms for 160 MB, against 76.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, DTypeLike, Tree, TreeDef, ndarray

ALIGNED_BYTES = 64  # bytes
# bytes of an array below which a program that takes it from NumPy's memory, in 2 µs, costs a fit of
# ten evaluations less than to place it first, in 30 µs
MIN_BYTES_TO_PLACE = 2**16
MIN_BYTES_FOR_HUGE_PAGES = 2**22  # bytes from which NumPy asks for huge pages


def to_float32(leaf: jax.Array) -> jax.Array:
    """Floating-point numbers in single precision. On a CPU by NumPy, which reads them in place:
    XLA takes three times as long.
    """
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    if len(leaf.devices()) > 1 or jax.default_backend() != "cpu":
        return leaf.astype(jnp.float32)
    return to_device(np.asarray(leaf), dtype=np.float32)


def to_device(leaf: Array, lead: int | None = None, dtype: DTypeLike = None) -> jax.Array:
    """The array on the default device, in its own precision or another; padded with zeros to a
    leading axis of length ``lead``, if given.
    """
    if not isinstance(leaf, np.ndarray):
        return jax.device_put(leaf)
    # A view, since jax knows an array by its identity and may have met it in another precision.
    leaf = leaf.view()
    if not leaf.ndim:
        return jax.device_put(leaf)
    dtype = np.dtype(dtype or leaf.dtype)
    shape = (leaf.shape[0] if lead is None else lead, *leaf.shape[1:])
    size = int(np.prod(shape)) * dtype.itemsize
    longer = shape[0] > leaf.shape[0]
    fits = leaf.dtype == dtype and leaf.ctypes.data % ALIGNED_BYTES == 0
    if not longer and (fits or size < MIN_BYTES_FOR_HUGE_PAGES or jax.default_backend() != "cpu"):
        return jax.device_put(leaf.astype(dtype, copy=False))
    # Zeros take no memory until they are read.
    room = (
        np.zeros(size + ALIGNED_BYTES, np.uint8)
        if longer
        else np.empty(size + ALIGNED_BYTES, np.uint8)
    )
    first = -room.ctypes.data % ALIGNED_BYTES
    aligned = room[first : first + size].view(dtype).reshape(shape)
    np.copyto(aligned[: leaf.shape[0]], leaf, casting="same_kind")
    return jax.device_put(aligned)


def placed(leaf: Tree) -> Tree:
    """The array where programs that read it many times find it: on the device, but for a small one
    of NumPy's that a CPU reads.
    """
    is_small = isinstance(leaf, np.ndarray) and leaf.nbytes < MIN_BYTES_TO_PLACE
    return leaf if is_small and jax.default_backend() == "cpu" else to_device(leaf)


def left_on_device(given: Tree, read: Tree) -> Tree:
    """The arrays that were ``read`` on the host from those ``given``; in their place those that
    were given, where these are on the device that computes, in the precision of what was read.
    """
    if not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(given)):
        return read
    structure: TreeDef = jax.tree.structure(given)
    if structure != jax.tree.structure(read):  # columns of a frame
        return read
    devices = jnp.zeros(()).devices()

    def left(array: Array, host: ndarray) -> Array:
        if not isinstance(array, jax.Array) or array.devices() != devices:
            return host
        if array.dtype == host.dtype:
            return array
        # on a CPU NumPy has done it already, and faster
        return host if jax.default_backend() == "cpu" else array.astype(host.dtype)

    return jax.tree.map(left, given, read)


# ---------------------------------------------------------------- some of many, on the device


def members_taken(tree: Tree, index: ndarray) -> Tree:
    """The members ``index`` (m,) of arrays whose last axis is over members, where these are."""
    return jax.tree.map(lambda leaf: _taken(leaf, index), tree)


def members_put(tree: Tree, index: ndarray, part: Tree) -> Tree:
    """The arrays of ``tree``, members last, with those of ``part`` (…, m) at ``index`` (m,); of an
    index beyond the members nothing is put.
    """

    def put(leaf: Array, values: Array) -> Array:
        if isinstance(leaf, jax.Array):
            return _put(leaf, index, values)
        whole = np.array(leaf)
        inside = index < whole.shape[-1]
        whole[..., index[inside]] = np.asarray(values)[..., inside]
        return whole

    return jax.tree.map(put, tree, part)


def members_fetched(tree: Tree, index: ndarray) -> Tree:
    """``members_taken`` on the host. No others leave the device: a power of two of them is taken,
    for few programs, and the repeated ones are left out.
    """
    count = len(index)
    several = np.resize(index, 1 << max(count - 1, 0).bit_length()) if count else index[:0]
    return jax.tree.map(lambda leaf: np.asarray(_taken(leaf, several))[..., :count], tree)


def rows_taken(leaf: jax.Array, index: ndarray) -> jax.Array:
    """Entries ``index`` of the leading axis of an array, taken on its device."""
    return _taken_on_device(leaf, index, 0)


def filled_up(leaf: jax.Array, axis: int, size: int) -> jax.Array:
    """The array, on its device, padded along an axis to ``size`` with copies of its last entry."""
    missing = size - leaf.shape[axis]
    if not missing:
        return leaf
    return jnp.pad(leaf, [(0, missing * (i == axis)) for i in range(leaf.ndim)], mode="edge")


def _taken(leaf: Array, index: ndarray) -> Array:
    if isinstance(leaf, jax.Array):
        return _taken_on_device(leaf, index, -1)
    return np.take(leaf, index, axis=-1)


@partial(jax.jit, static_argnums=2)
def _taken_on_device(leaf: jax.Array, index: Array, axis: int) -> jax.Array:
    return jnp.take(leaf, index, axis=axis, mode="clip")


@jax.jit
def _put(leaf: jax.Array, index: Array, values: Array) -> jax.Array:
    return leaf.at[..., index].set(jnp.asarray(values, leaf.dtype), mode="drop")
