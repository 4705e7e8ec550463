"""The order of rows by stratum, time and event, by sorting 64-bit integers where these are
available: XLA sorts one integer array three times as fast as several floating-point arrays.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxmle._types import Array

BITS_OF_A_KEY = 64  # bits of a key


def time_order(group: Array | None, time: Array, event: Array) -> jax.Array:
    """The order (n,) of rows by stratum (None for one), time, and events first.

    One sort orders the rows by the leading bits of time, the event and the position, packed into
    one integer. If two times differ only in the bits that were left out, ranks replace the times.
    """
    if group is not None or time.dtype != jnp.float64:
        return jnp.lexsort((-event, time) if group is None else (-event, time, group))
    key = _ordered_bits(time)
    spread = key - jnp.min(key)
    position_bits = max(1, (time.shape[0] - 1).bit_length())
    # as far to the left as the largest goes, then to the right by what event and position take
    leading = spread << jax.lax.clz(jnp.max(spread)) >> jnp.uint64(position_bits + 1)
    order = _order_by(leading, event, position_bits)
    sorted_key = key[order]
    before = jnp.append(leading[order][1:] != leading[order][:-1], False)
    same = jnp.append(sorted_key[1:] == sorted_key[:-1], True)
    return jax.lax.cond(
        jnp.all(before | same),
        lambda: order,
        lambda: _order_by(_rank(key), event, position_bits),
    )


def _rank(key: Array) -> jax.Array:
    """How many keys are smaller than each."""
    return jnp.searchsorted(jnp.sort(key), key).astype(jnp.uint64)


def _order_by(number: Array, event: Array, position_bits: int) -> jax.Array:
    """The order by a number of few bits, events first, then by the position."""
    tied = 2 * number + (event <= 0).astype(jnp.uint64)
    position = jnp.arange(number.shape[0], dtype=jnp.uint64)
    packed = tied << jnp.uint64(position_bits) | position
    return (jnp.sort(packed) & jnp.uint64(2**position_bits - 1)).astype(int)


def _ordered_bits(x: Array) -> jax.Array:
    """Unsigned integers ordered like float64 numbers: all bits of a negative number are flipped,
    and the sign bit of the others; −0 is 0.
    """
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.uint64)
    sign = jnp.uint64(2 ** (BITS_OF_A_KEY - 1))
    return jnp.where(bits >= sign, ~bits, bits | sign)
