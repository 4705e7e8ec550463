"""Large arrays on their way to the device: one copy into memory that the device takes as it is.

A CPU device reads NumPy's memory in place where it starts on a multiple of 64 bytes, which NumPy's own large arrays never do; what it
copies itself goes through small pages. NumPy asks for huge ones: 15 ms for 160 MB, against 76.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

ALIGNED = 64  # bytes
LARGE = 2**22  # bytes from which NumPy asks for huge pages


def placed(leaf: Any, lead: int | None = None) -> jax.Array:
    """The array on the default device; where ``lead`` is given with so many leading entries, zeros after its own."""
    if not isinstance(leaf, np.ndarray) or not leaf.ndim:
        return jax.device_put(leaf)
    shape = (leaf.shape[0] if lead is None else lead, *leaf.shape[1:])
    size, longer = int(np.prod(shape)) * leaf.dtype.itemsize, shape[0] > leaf.shape[0]
    if not longer and (size < LARGE or jax.default_backend() != "cpu" or leaf.ctypes.data % ALIGNED == 0):
        return jax.device_put(leaf)
    room = np.zeros(size + ALIGNED, np.uint8) if longer else np.empty(size + ALIGNED, np.uint8)  # zeros take no memory before they are read
    first = -room.ctypes.data % ALIGNED
    own = room[first : first + size].view(leaf.dtype).reshape(shape)
    np.copyto(own[: leaf.shape[0]], leaf)
    return jax.device_put(own)
