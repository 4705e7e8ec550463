"""Large arrays on their way to the device: one copy into memory that the device takes as it is.

A CPU device reads NumPy's memory in place where it starts on a multiple of 64 bytes, which NumPy's
own large arrays never do; what it copies itself goes through small pages. NumPy asks for huge ones:
15 ms for 160 MB, against 76.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ALIGNED = 64  # bytes
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


def to_device(leaf: Any, lead: int | None = None, dtype: Any = None) -> jax.Array:
    """The array on the default device, in its own precision or another; where ``lead`` is given
    with so many leading entries, zeros after its own.
    """
    if not isinstance(leaf, np.ndarray):
        return jax.device_put(leaf)
    leaf = (
        leaf.view()
    )  # jax knows an array by its identity, and may have known this one in another precision
    if not leaf.ndim:
        return jax.device_put(leaf)
    dtype = np.dtype(dtype or leaf.dtype)
    shape = (leaf.shape[0] if lead is None else lead, *leaf.shape[1:])
    size = int(np.prod(shape)) * dtype.itemsize
    longer = shape[0] > leaf.shape[0]
    fits = leaf.dtype == dtype and leaf.ctypes.data % ALIGNED == 0
    if not longer and (fits or size < MIN_BYTES_FOR_HUGE_PAGES or jax.default_backend() != "cpu"):
        return jax.device_put(leaf.astype(dtype, copy=False))
    room = (
        np.zeros(size + ALIGNED, np.uint8) if longer else np.empty(size + ALIGNED, np.uint8)
    )  # zeros take no memory before they are read
    first = -room.ctypes.data % ALIGNED
    aligned = room[first : first + size].view(dtype).reshape(shape)
    np.copyto(aligned[: leaf.shape[0]], leaf, casting="same_kind")
    return jax.device_put(aligned)
