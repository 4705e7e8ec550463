"""How the part of a batch that does not call the likelihood is run: steps, excursions and verdicts.

In NumPy these functions run for all members at once, whose axis is last, and nothing is compiled.
For an accelerator they are compiled as ``jax.vmap`` of the functions for one member.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmle._types import Device, Function, Tree
from jaxmle.runtime.jax_state import exact_products

# Steps that an accelerator is given between two looks of the host at who still runs: a look waits
# for all of them, and a step changes nothing of a member that is done.
STEPS_A_LOOK = 4


@dataclass(frozen=True)
class Machine:
    """Runs functions for all members, whose axis is last in the arrays."""

    in_numpy: bool
    mesh: Mesh | None = None  # of several devices, for what is compiled
    on_accelerator: bool = False  # arrays had better stay there, and waiting for it costs most

    @property
    def steps_a_look(self) -> int:
        """The number of steps between two checks of which members are still running."""
        return STEPS_A_LOOK if self.on_accelerator else 1

    def fetched(self, tree: Tree) -> Tree:
        """The arrays of a tree on the host, when all work that they depend on is done."""
        return jax.tree.map(np.asarray, jax.device_get(tree))

    def run(self, function: Function, static: tuple[Hashable, ...], *args: Tree) -> Tree:
        """``function(*static, *args)`` of all members."""
        if self.in_numpy:
            return function(*static, *args)
        return _members_last(function, static, self.mesh)(*args)

    def run_compiled(self, function: Function, static: tuple[Hashable, ...], *args: Tree) -> Tree:
        """``run``, for a function that is written for one member only."""
        if not self.in_numpy:
            return self.run(function, static, *args)
        return jax.tree.map(np.asarray, _members_last(function, static, None)(*args))


def machine_for(devices: tuple[Device, ...]) -> Machine:
    """NumPy on a CPU, where members leave as they end; compiled where arrays would have to leave an
    accelerator at every step. Compiled on a CPU, a step costs as much as its slowest member, and
    100 000 peaks of 25 pixels take 2.8 times as long.
    """
    mesh = jax.sharding.Mesh(np.array(devices), ("member",)) if len(devices) > 1 else None
    on_cpu = all(device.platform == "cpu" for device in devices)
    return Machine(on_cpu, mesh, not on_cpu)


@functools.lru_cache(maxsize=256)
def for_members(function: Function, static: tuple[Hashable, ...]) -> Function:
    """``function(*static, …)`` compiled for members, whose axis is first in all arrays."""
    return jax.jit(jax.vmap(_exact(function, static)))


def _exact(function: Function, static: tuple[Hashable, ...]) -> Function:
    """``function(*static, …)`` with products that keep all digits of single precision."""

    def run(*args: Tree) -> Tree:
        with exact_products():
            return function(*static, *args)

    return run


@functools.lru_cache(maxsize=256)
def _members_last(function: Function, static: tuple[Hashable, ...], mesh: Mesh | None) -> Function:
    batched = jax.vmap(_exact(function, static))
    if mesh is not None:
        axis = jax.sharding.PartitionSpec("member")
        batched = jax.shard_map(batched, mesh=mesh, in_specs=axis, out_specs=axis, check_vma=False)
    return jax.jit(lambda *args: members_last(batched(*members_first(args))))


def members_first(tree: Tree) -> Tree:
    """The tree with the last axis of its leaves moved to the front."""
    return _moved(tree, -1, 0)


def members_last(tree: Tree) -> Tree:
    """The tree with the first axis of its leaves moved to the end."""
    return _moved(tree, 0, -1)


def _moved(tree: Tree, source: int, to: int) -> Tree:
    def moved(leaf: Tree) -> Tree:
        if isinstance(leaf, jax.Array):
            return jax.numpy.moveaxis(leaf, source, to)
        return np.ascontiguousarray(np.moveaxis(np.asarray(leaf), source, to))

    return jax.tree.map(moved, tree)
