"""Random keys as users give them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Key


def seed_of(key: Key) -> int | list[int]:
    """What seeds NumPy's generators, from an integer or a jax key."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool) and key >= 0:
        return int(key)
    return [int(word) for word in np.asarray(jax.random.key_data(typed_key(key))).ravel()]


def typed_key(key: Key) -> jax.Array:
    """A typed jax key from an integer or a key of either kind."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        if not -(2**63) <= int(key) < 2**63:
            raise ValueError("key is an integer of more than 64 bits: use a smaller one")
        return jax.random.key(int(key))
    if (
        isinstance(key, jax.Array)
        and key.shape == ()
        and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    ):
        return key
    if isinstance(key, jax.Array | np.ndarray) and key.ndim == 1 and key.dtype == np.uint32:
        return jax.random.wrap_key_data(jnp.asarray(key))
    got = (
        f"{key.dtype} of shape {key.shape}"
        if isinstance(key, jax.Array | np.ndarray)
        else repr(key)
    )
    raise TypeError(
        f"key must be an integer or a single jax key, such as 0 or jax.random.key(0); got {got}"
    )
