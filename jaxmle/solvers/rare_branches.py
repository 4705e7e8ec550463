"""Branches that are rarely taken: the rare side is computed only for the members that need it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Function, Tree, ndarray

# members of a batch that take the rare side together: 8 cost twice as much where half of 1 024 need
# it, 32 cost 0.03 ms more where few do
MEMBERS_OF_A_RARE_SIDE = 32
MEMBERS_OF_A_CHEAP_SIDE = 128  # the same where the rare side is cheap
# coordinates up to which a trace for a CPU computes the rare side for all members where one needs
# it: to pick them out takes 0.1 to 0.5 s to compile
MAX_COORDINATES_FOR_ALL = 16


def _mend(rare: Function, needed: Array, args: Tree, out: Tree, members: int, few: int) -> Tree:
    """``out``, with ``rare(*args)`` for the members that need it. These are gathered a few at a
    time, so that the cost is proportional to their number.
    """
    number = jnp.sum(needed)

    def mended() -> Tree:
        (order,) = jnp.nonzero(
            needed, size=-(-members // few) * few, fill_value=members
        )  # beyond the batch: nothing is written

        def some(i: Array, out: Tree) -> Tree:
            position = jax.lax.dynamic_slice_in_dim(order, i * few, few)
            picked = jax.tree.map(lambda leaf: leaf[jnp.minimum(position, members - 1)], args)
            return jax.tree.map(
                lambda whole, new: whole.at[position].set(new, mode="drop"),
                out,
                jax.vmap(rare)(*picked),
            )

        return jax.lax.fori_loop(0, -(-number // few), some, out)

    return jax.lax.cond(number > 0, mended, lambda: out)


def rarely(
    needed: Array,
    rare: Function,
    usual: Function,
    *args: Tree,
    few: int = MEMBERS_OF_A_RARE_SIDE,
) -> Tree:
    """``rare(*args)`` where ``needed``, else ``usual(*args)``; in a batch only the members that
    need it pay for the rare side.

    Under ``vmap``, an ordinary ``lax.cond`` becomes a select, which always computes both sides for
    every member.
    """
    if isinstance(needed, (bool, np.bool_)):
        return rare(*args) if needed else usual(*args)
    if isinstance(needed, np.ndarray):
        return _rarely_on_host(needed, rare, usual, args)
    if is_cheap_to_run(*args):
        return _for_all_if_any(needed, rare, usual, args)

    @jax.custom_batching.custom_vmap
    def choose(needed: Array, *args: Tree) -> Tree:
        return jax.lax.cond(needed, rare, usual, *args)

    @choose.def_vmap
    def _(axis_size: int, batched: Tree, needed: Array, *args: Tree) -> Tree:
        needed, *rest = jax.tree.map(
            lambda x, b: x if b else jnp.broadcast_to(x, (axis_size, *jnp.shape(x))),
            (needed, *args),
            tuple(batched),
        )
        out = jax.vmap(usual)(*rest)
        return _mend(rare, needed, rest, out, axis_size, few), jax.tree.map(lambda _: True, out)

    return choose(needed, *args)


@jax.custom_batching.custom_vmap
def any_member(holds: Array) -> Array:
    """Whether a condition () holds for any member of all the ``vmap``s around it."""
    return holds


@any_member.def_vmap
def _(axis_size: int, batched: list[bool], holds: Array) -> tuple[Array, bool]:
    return any_member(jnp.any(holds) if batched[0] else holds), False


def _for_all_if_any(needed: Array, rare: Function, usual: Function, args: tuple[Tree, ...]) -> Tree:
    """``rarely`` by one branch for all members, which is taken if any member needs it."""
    out = usual(*args)

    def mended() -> Tree:
        return jax.tree.map(lambda a, b: jnp.where(needed, a, b).astype(b.dtype), rare(*args), out)

    return jax.lax.cond(any_member(needed), mended, lambda: out)


def is_cheap_to_run(*args: Tree) -> bool:
    """Whether, under a trace for a CPU, running linear algebra on these arrays for all members
    costs less than compiling the code that gathers the members that need it.
    """
    sizes = [size for leaf in jax.tree.leaves(args) for size in jnp.shape(leaf)]
    is_small = max(sizes, default=0) <= MAX_COORDINATES_FOR_ALL
    return is_small and jax.default_backend() == "cpu"


def _rarely_on_host(
    needed: ndarray, rare: Function, usual: Function, args: tuple[Tree, ...]
) -> Tree:
    """``rarely`` in NumPy, ``needed`` () or (b,)."""
    if np.all(needed):
        return rare(*args)
    out = usual(*args)
    if not np.any(needed):
        return out
    (positions,) = np.nonzero(needed)

    def mended(whole: ndarray, part: ndarray) -> ndarray:
        mended = np.array(np.broadcast_to(whole, (*np.shape(part)[:-1], len(needed))))
        mended[..., positions] = part
        return mended

    return jax.tree.map(mended, out, rare(*jax.tree.map(lambda leaf: leaf[..., positions], args)))
