"""The compiled passes of one problem on some devices, and how the arrays of a chunk lie there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import jax
import numpy as np

from jaxmle._types import Array, Device, Function, Tree, ndarray
from jaxmle.batch.chunks.machine import Machine, machine_for, members_first, members_last
from jaxmle.batch.chunks.pieces import Piece
from jaxmle.batch.chunks.plan import Schedule
from jaxmle.batch.chunks.programs import Form, covariance_parts, single
from jaxmle.fitting.passes import Problem
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled
from jaxmle.runtime.device import filled_up, to_device


@dataclass(frozen=True)
class Programs:
    """The compiled passes of one problem on some devices."""

    problem: Problem
    devices: tuple[Device, ...]
    # looked up once a run
    loaded: dict[Tree, Tree] = field(default_factory=dict, compare=False)

    @cached_property
    def machine(self) -> Machine:
        """How the functions that do not call the likelihood are run."""
        return machine_for(self.devices)

    @property
    def mesh(self) -> Tree:
        return self.machine.mesh

    def get(self, over_members: Function, form: Form) -> Function:
        """A pass over the data of a chunk, one of those in ``programs.py``, compiled."""
        if (over_members, form) not in self.loaded:
            self.loaded[over_members, form] = self._compiled(over_members, form)
        return self.loaded[over_members, form]

    def _compiled(self, over_members: Function, form: Form) -> Function:
        """The program of a pass. It is stored on the user's function and must hold no reference to
        it.
        """
        needs_kind = over_members is covariance_parts
        bare = self.problem.bare if needs_kind else self.problem.neutral
        mesh = self.mesh
        skeleton = jax.tree.unflatten(form.treedef, list(range(form.treedef.num_leaves)))
        others = skeleton._replace(loglik=None)

        def make(portable: Tree) -> Function:
            member_form = Form(jax.tree.structure(others._replace(loglik=portable)), form.shared)
            run = partial(over_members, bare, member_form)
            if mesh is not None:
                axis = jax.sharding.PartitionSpec("member")
                whole = jax.sharding.PartitionSpec()
                specs = (axis, whole, axis, axis)
                inner = partial(_members_first_out, run)
                outer = jax.shard_map(
                    inner, mesh=mesh, in_specs=specs, out_specs=axis, check_vma=False
                )
                run = partial(_members_last_out, outer)
            return partial(_members_last_in, run)

        ids = tuple(device.id for device in self.devices)
        key = ("batch", over_members, bare, form.shared, jax.tree.structure(others), ids)
        return compiled(skeleton.loglik, key, make)

    def named(self, fit: Fit) -> Fit:
        """The record with the names and labels that the programs do not need."""
        problem = self.problem
        return replace(
            fit,
            vcov_kind="none" if problem.kind is None else str(problem.label),
            mode=problem.mode,
            weighting=problem.weighting,
        )

    def laid_out(
        self, form: Form, per_member: list[ndarray], common: list[jax.Array], schedule: Schedule
    ) -> list[jax.Array]:
        """The leaves (blocks, block_size, ...) on the devices, designs by columns. Missing blocks
        are zeros and never active. On an accelerator the block is filled up with copies of the last
        member.
        """
        blocks = schedule.blocks
        by_columns = form.designs(single(per_member, 2), common)

        def turned(leaves: list[Tree]) -> list[Tree]:
            return [
                leaf.swapaxes(-1, -2) if i in by_columns else leaf for i, leaf in enumerate(leaves)
            ]

        # one core of the host takes a hundred times as long over it as an accelerator
        if self.machine.on_accelerator:
            placed = self._placed(per_member, blocks)
            return turned([filled_up(leaf, 1, schedule.block_size) for leaf in placed])
        return self._placed(turned(per_member), blocks)

    def _placed(self, leaves: list[ndarray], blocks: int) -> list[jax.Array]:
        """Leaves on the devices, padded to a number of blocks."""
        if self.mesh is None:
            return [to_device(leaf, blocks) for leaf in leaves]
        leaves = [
            np.pad(leaf, [(0, blocks - len(leaf))] + [(0, 0)] * (leaf.ndim - 1)) for leaf in leaves
        ]
        spec = jax.sharding.PartitionSpec("member")
        return jax.device_put(leaves, jax.sharding.NamedSharding(self.mesh, spec))

    def slots(self, piece: Piece) -> int:
        """The number of members that the arrays of a piece have room for."""
        return len(piece.index) if self.machine.in_numpy else piece.schedule.slots


def _members_last_in(
    run: Function, per_member: Tree, common: Tree, active: Array, args: Tree
) -> Tree:
    """A pass whose arguments have the axis of members last."""
    return run(per_member, common, active, members_first(args))


def _members_first_out(run: Function, *args: Tree) -> Tree:
    return members_first(run(*args))


def _members_last_out(run: Function, *args: Tree) -> Tree:
    return members_last(run(*args))
