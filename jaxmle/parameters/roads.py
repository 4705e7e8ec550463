"""The two roads: under somebody's trace functions are plain JAX in its precision; on the host they run in float64, or as asked, and return NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def tracing() -> bool:
    """Whether we are inside somebody's ``jit``, ``vmap`` or ``grad``."""
    try:
        from jax._src.core import trace_state_clean
    except (
        ImportError
    ):  # a future jax: a fresh constant is then a tracer exactly when a trace is open
        return isinstance(jnp.zeros(()) + 0, jax.core.Tracer)
    return not trace_state_clean()


def precision(dtype: Any) -> Any:
    """The context in which a host procedure runs: float64 on, or off for float32."""
    return jax.enable_x64(np.dtype(dtype) == np.float64)


def exact(tree: Any) -> Any:
    """The numbers of a tree as float64 arrays, inside of ``precision(float64)``; what is no number stays."""

    def convert(leaf: Any) -> Any:
        number = isinstance(leaf, bool | int | float) or getattr(leaf, "dtype", None) is not None
        if not number or jnp.issubdtype(getattr(leaf, "dtype", float), jax.dtypes.prng_key):
            return leaf
        value = np.asarray(leaf)
        return jnp.asarray(value.astype(np.float64)) if value.dtype.kind in "fiubV" else leaf

    return jax.tree.map(convert, tree)


def as_numpy(tree: Any) -> Any:
    """The tree with NumPy arrays for leaves; scalars become NumPy scalars."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[()], tree)
