"""The order of rows by stratum, time and event, from two sorts of 64-bit integers where these are
available: XLA sorts one integer array three times as fast as several floating-point arrays.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxmle._types import Array

WORD = 64  # bits of a key


def time_order(group: Array | None, time: Array, event: Array) -> jax.Array:
    """The order (n,) of rows by stratum (None for one), time, and events first."""
    if group is not None or time.dtype != jnp.float64:
        return jnp.lexsort((-event, time) if group is None else (-event, time, group))
    n = time.shape[0]
    key = _ordered_bits(time)
    rank = jnp.searchsorted(jnp.sort(key), key).astype(jnp.uint64)
    position_bits = max(1, (n - 1).bit_length())
    tied = 2 * rank + (event <= 0).astype(jnp.uint64)
    packed = tied << jnp.uint64(position_bits) | jnp.arange(n, dtype=jnp.uint64)
    return (jnp.sort(packed) & jnp.uint64(2**position_bits - 1)).astype(int)


def _ordered_bits(x: Array) -> jax.Array:
    """Unsigned integers ordered like float64 numbers: all bits of a negative number are flipped,
    and the sign bit of the others; −0 is 0.
    """
    bits = jax.lax.bitcast_convert_type(x + 0.0, jnp.uint64)
    sign = jnp.uint64(2 ** (WORD - 1))
    return jnp.where(bits >= sign, ~bits, bits | sign)
