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


def placed(leaf: Any) -> jax.Array:
    """The array on the default device."""
    if not isinstance(leaf, np.ndarray) or leaf.nbytes < LARGE or jax.default_backend() != "cpu" or leaf.ctypes.data % ALIGNED == 0:
        return jax.device_put(leaf)
    room = np.empty(leaf.nbytes + ALIGNED, np.uint8)
    first = -room.ctypes.data % ALIGNED
    own = room[first : first + leaf.nbytes].view(leaf.dtype).reshape(leaf.shape)
    np.copyto(own, leaf)
    return jax.device_put(own)
