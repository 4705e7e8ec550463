"""A piece of a batch on the device: its data, laid out once, and the passes over its members.

Its members climb in step: a program of the user's likelihood evaluates those that still climb
(``programs``), one that knows no likelihood moves them on (``solver``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.batch import programs as passes
from jaxmle.batch import solver
from jaxmle.batch.inputs import Inputs
from jaxmle.batch.machine import Machine, machine_for, members_first, members_last
from jaxmle.batch.plan import Schedule
from jaxmle.batch.programs import Form, Members, single
from jaxmle.batch.solver import Counts, Enough, to_the_end
from jaxmle.families.family import Family
from jaxmle.fitting.ending import by_family, family_of
from jaxmle.fitting.passes import MAX_RISES, Problem, needs_pass
from jaxmle.likelihood.combinators import Weights, weight
from jaxmle.likelihood.discovery.kinked_operations import may_have_kinks
from jaxmle.likelihood.histogram import counted, flagged
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled
from jaxmle.runtime.device import (
    filled_up,
    members_put,
    members_taken,
    rows_taken,
    to_device,
    to_float32,
)
from jaxmle.solvers.leading_axes import Lanes
from jaxmle.solvers.methods import LBFGS, Optax
from jaxmle.solvers.state import Point, State, start
from jaxmle.solvers.status import Status
from jaxmle.verdict.doubt import remember_rise
from jaxmle.verdict.shape import Shape

SLOTS_FOR_STRAGGLERS = 128  # slots for the last few members of a round: their climbs are long


@dataclass(frozen=True)
class Piece:
    """One piece of work: members of one length, in one call of a compiled round."""

    number: int
    name: str
    length: tuple[int, ...]
    index: np.ndarray
    schedule: Schedule

    @property
    def blocks(self) -> int:
        """The blocks that hold its members; the others of its schedule are empty."""
        return -(-len(self.index) // self.schedule.block_size)

    def member_in_slots(self, slots: int) -> np.ndarray:
        """The member in each of so many slots; slots left over hold the last member again."""
        return np.pad(self.index, (0, slots - len(self.index)), mode="edge")


@dataclass(frozen=True)
class Flat:
    """The leaves of ``Members``, and how they make them up."""

    leaves: list[Array]
    form: Form
    data_id: np.ndarray

    @property
    def first(self) -> Members:
        """The first member alone."""
        pairs = zip(self.leaves, self.form.shared, strict=True)
        leaves = [leaf if is_shared else leaf[0] for leaf, is_shared in pairs]
        return jax.tree.unflatten(self.form.treedef, leaves)


def flat_members(inputs: Inputs, index: np.ndarray, length: tuple[int, ...]) -> Flat:
    """The members ``index`` as flat leaves, with what differs between them on a leading axis."""
    chunk = inputs.source.take(index, length)
    data, w, codes = chunk.rows
    flags = jax.tree.unflatten(jax.tree.structure(inputs.source.rows), list(inputs.source.shared))
    loglik = inputs.loglik
    same = jax.tree.map(lambda _: True, inputs.loglik)
    if inputs.weight_kind is not None:
        loglik = weight(inputs.bare, Weights(w, inputs.weight_kind))
        same = jax.tree.map(lambda _: True, inputs.bare)
        same = weight(same, Weights(flags[1], inputs.weight_kind))
    if chunk.padding is not None:
        loglik = weight(loglik, Weights(chunk.padding.astype(inputs.dtype), "frequency"))
        same = weight(same, Weights(False, "frequency"))
    loglik = counted(loglik, data, inputs.most_counts(length), inputs.dtype)
    base = inputs.base[index] if inputs.base.ndim == 2 else inputs.base
    leaves, treedef = jax.tree.flatten(Members(loglik, base, data, codes))
    same_base: Any = inputs.base.ndim == 1
    shared = Members(flagged(same, loglik), same_base, flags[0], flags[2])
    return Flat(leaves, Form(treedef, tuple(jax.tree.leaves(shared))), chunk.data_id)


@dataclass(frozen=True)
class Programs:
    """The compiled passes of one problem on some devices."""

    problem: Problem
    devices: tuple[Any, ...]
    members: int  # of the whole batch
    # looked up once a run
    loaded: dict[Any, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def machine(self) -> Machine:
        """How what knows no likelihood runs."""
        return machine_for(self.devices, self.members)

    @property
    def mesh(self) -> Any:
        return self.machine.mesh

    def get(self, name: str, form: Form) -> Callable[..., Any]:
        """A pass over the data of a chunk, compiled."""
        if (name, form) not in self.loaded:
            self.loaded[name, form] = self._compiled(name, form)
        return self.loaded[name, form]

    def _compiled(self, name: str, form: Form) -> Callable[..., Any]:
        """The program of a pass, kept on the user's function, which it must not keep alive."""
        needs_kind = name == "covariance_parts"
        bare = self.problem.bare if needs_kind else self.problem.neutral
        mesh = self.mesh
        skeleton = jax.tree.unflatten(form.treedef, list(range(form.treedef.num_leaves)))
        others = skeleton._replace(loglik=None)

        def make(portable: Any) -> Callable[..., Any]:
            member_form = Form(jax.tree.structure(others._replace(loglik=portable)), form.shared)
            run = partial(getattr(passes, name), bare, member_form)
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
        key = ("batch", name, bare, form.shared, jax.tree.structure(others), ids)
        return compiled(skeleton.loglik, key, make)

    def named(self, fit: Fit) -> Fit:
        """The record with what the programs did not need to know."""
        problem = self.problem
        return replace(
            fit,
            vcov_kind="none" if problem.kind is None else str(problem.label),
            mode=problem.mode,
            weighting=problem.weighting,
        )

    def laid_out(
        self, form: Form, per_member: list[np.ndarray], common: list[jax.Array], schedule: Schedule
    ) -> list[jax.Array]:
        """The leaves (blocks, block_size, ...) on the devices, designs by columns; further blocks
        are zeros, and never active. An accelerator fills its block up with the last member.
        """
        blocks = schedule.blocks
        by_columns = form.designs(single(per_member, 2), common)

        def turned(leaves: list[Any]) -> list[Any]:
            return [
                leaf.swapaxes(-1, -2) if i in by_columns else leaf for i, leaf in enumerate(leaves)
            ]

        # one core of the host takes a hundred times as long over it as an accelerator
        if self.machine.on_accelerator:
            placed = self._placed(per_member, blocks)
            return turned([filled_up(leaf, 1, schedule.block_size) for leaf in placed])
        return self._placed(turned(per_member), blocks)

    def _placed(self, leaves: list[np.ndarray], blocks: int) -> list[jax.Array]:
        """Leaves of so many blocks on the devices."""
        if self.mesh is None:
            return [to_device(leaf, blocks) for leaf in leaves]
        leaves = [
            np.pad(leaf, [(0, blocks - len(leaf))] + [(0, 0)] * (leaf.ndim - 1)) for leaf in leaves
        ]
        spec = jax.sharding.PartitionSpec("member")
        return jax.device_put(leaves, jax.sharding.NamedSharding(self.mesh, spec))

    def slots(self, piece: Piece) -> int:
        """How many members the arrays of a piece have room for."""
        return len(piece.index) if self.machine.in_numpy else piece.schedule.slots

    def load(self, inputs: Inputs, piece: Piece) -> Chunk:
        """The data of a piece, on the device and laid out."""
        block_size = piece.schedule.block_size
        slots = self.slots(piece)
        if self.machine.on_accelerator:  # of few members few are sent there
            block_size = min(block_size, slots)
        shape = (piece.blocks, block_size)
        flat = flat_members(inputs, piece.member_in_slots(shape[0] * shape[1]), piece.length)
        per_member = []
        common = []
        for leaf, is_shared in zip(flat.leaves, flat.form.shared, strict=True):
            if is_shared:
                common.append(jnp.asarray(leaf))
            else:
                per_member.append(np.asarray(leaf).reshape(*shape, *np.shape(leaf)[1:]))
        member = piece.member_in_slots(slots)
        base = inputs.base[member] if inputs.base.ndim == 2 else inputs.base
        padding = ((0, max(slots - len(flat.data_id), 0)), (0, 0))
        return Chunk(
            self,
            flat.form,
            self.laid_out(flat.form, per_member, common, piece.schedule),
            common,
            members_last(np.broadcast_to(base, (slots, self.problem.layout.p))),
            members_last(np.pad(flat.data_id, padding)[:slots]),
            np.arange(slots) < len(piece.index),
        )


class WarmStart(NamedTuple):
    """What came before the climbs of a chunk."""

    steps: Array  # (b,)
    # (b,) whether a climb started at a point in single precision, not at the user's start
    warm_started: np.ndarray


@dataclass(frozen=True)
class Chunk:
    """A piece on the device, and the passes over its members, whose axis is last in all that these
    take and give.
    """

    programs: Programs
    form: Form
    per_member: list[jax.Array]  # leaves (blocks, block_size, ...)
    common: list[jax.Array]  # leaves that all members share
    base: np.ndarray  # (p, slots)
    data_id: np.ndarray  # (2, slots)
    active: np.ndarray  # (slots,) whether a slot holds a member of its own

    def run(self, name: str, active: Array, *args: Any) -> Any:
        """One pass over the data, for the active slots."""
        program = self.programs.get(name, self.form)
        slots = len(active)

        def wider(leaf: Any) -> Any:
            pad = jnp.pad if isinstance(leaf, jax.Array) else np.pad
            return pad(leaf, [(0, 0)] * (np.ndim(leaf) - 1) + [(0, self.room - slots)])

        if slots < self.room:
            active, args = jax.tree.map(wider, (active, args))
        results = program(self.per_member, self.common, active, args)
        if self.programs.machine.in_numpy:
            return jax.tree.map(lambda leaf: np.asarray(leaf)[..., :slots], results)
        return _first(results, slots) if slots < self.room else results

    @property
    def room(self) -> int:
        """The members that its blocks have room for."""
        blocks, block_size = self.per_member[0].shape[:2]
        return blocks * block_size

    @property
    def may_have_kinks(self) -> bool:
        """Whether the program of the likelihood shows that ℓ may have kinks."""
        key = ("may have kinks", self.form)
        loaded = self.programs.loaded
        if key not in loaded:
            member = self.form.member(single(self.per_member, 2), self.common)
            layout = self.programs.problem.layout
            loaded[key] = may_have_kinks(member.loglik, layout, member.base, member.data)
        return loaded[key]

    @property
    def evaluate(self) -> Evaluation:
        """Value, score and Hessian of the active slots at z (k, slots)."""
        return Evaluation(self)

    def climb(self, rounds: int, enough: Enough) -> tuple[State, WarmStart]:
        """The states when it is ``enough``, and what came before them: at most ``rounds`` steps
        in single precision, or a first-order method.
        """
        slots = len(self.active)
        programs = self.programs
        z = self._z_at_start()
        warm = WarmStart(np.zeros(slots, np.int32), np.zeros(slots, bool))
        if isinstance(programs.problem.solver, LBFGS | Optax):
            z, steps = self.run("approached", self.active, z)
            warm = warm._replace(steps=steps)
        elif rounds:
            approach = self._float32_start(z, rounds)
            if approach is not None:
                z = approach.z
                warm = WarmStart(approach.steps, np.asarray(approach.is_sound))
        max_steps = programs.problem.max_steps
        state = solver.climb(self.evaluate, z, self.active, max_steps, enough, programs.machine)
        return state, warm

    def _z_at_start(self) -> Array:
        """The free point of the user's start, (k, slots)."""
        chart = self.programs.problem.chart
        if chart.is_identity and chart.k == chart.layout.p:
            return self.base
        return self.programs.machine.run_compiled(_to_free, (chart,), self.base)

    def climb_on(self, state: State, enough: Enough) -> State:
        """The states when it is ``enough``, from states on the way."""
        programs = self.programs
        max_steps = programs.problem.max_steps
        machine = programs.machine
        return solver.climb_on(self.evaluate, state, self.active, max_steps, enough, machine)

    def _float32_start(self, z: Array, rounds: int) -> solver.Approach | None:
        """Steps in single precision; None where the likelihood cannot be written in it: a
        constant of its own may insist on double.
        """
        single_precision = replace(self, per_member=[to_float32(leaf) for leaf in self.per_member])

        def evaluate(z: Array, active: Array) -> Point:
            return single_precision.run("evaluate_in_float32", active, z)

        machine = self.programs.machine
        try:
            return solver.approach_in_float32(evaluate, z, self.active, rounds, machine)
        except (TypeError, ValueError):  # an error of another cause is met again in float64
            return None

    def initial_state(self, like: State) -> State:
        """The states before the first step from the user's start."""
        return self.programs.machine.run(start, (), self._z_at_start(), like.point)

    def conclude(self, state: State, limit: Any, steps: Array) -> Fit:
        """The records of all slots.

        Args:
            limit: the ends of the excursions; None in the first round, which makes none.
            steps: made before the climbs, (slots,).
        """
        programs = self.programs
        neutral = programs.problem.neutral
        machine = programs.machine
        n = self.run("counted", self.active)
        judged = solver.judged(neutral, self.base, state, limit, machine)
        family = family_of(programs.problem.loglik, programs.problem.kind)
        if family is not None and limit is not None and limit.kink is not None:
            static = (family, neutral.layout)
            judged = machine.run_compiled(by_family_information, static, judged, n)
        elif needs_pass(programs.problem.kind):
            verdict = judged.verdict
            parts = self.run("covariance_parts", self.active, verdict.point, verdict)
            judged = judged._replace(extra=parts)
        fit = solver.finished(neutral, self.base, judged, n, self.data_id, steps, machine)
        fit = members_first(programs.named(fit))
        return fit if limit is None else self._with_rows(fit, state)

    def _with_rows(self, fit: Fit, state: State) -> Fit:
        """The records, each failed one with the row that made it fail."""
        for status, name in ((Status.NONFINITE, "first_rough"), (Status.UNBOUNDED, "first_bad")):
            failed = np.asarray(fit.status) == int(status)
            if not np.any(failed & self.active):
                continue
            walled = ~np.isnan(state.wall[:1]) & (status == Status.NONFINITE)
            z = np.where(walled, state.wall, state.point.z)
            rows = np.asarray(self.run(name, failed & self.active, z))
            witness = fit.witness
            row = np.where(failed, rows, np.asarray(witness.row)).astype(witness.row.dtype)
            fit = replace(fit, witness=replace(witness, row=row))
        return fit

    def last(self, state: State, steps: Array) -> Fit:
        """Climb on to the end, explore, judge; where ℓ is seen to rise a finite way off, climb on
        from there.
        """
        state = self._ended(state)
        limit = self._explored(state, self.active)
        for _ in range(MAX_RISES):
            rises = (np.asarray(limit.shape) == int(Shape.RISES)) & self.active
            if not np.any(rises):
                break
            machine = self.programs.machine
            restart = machine.run(start, (), limit.point.z, state.point)
            climbed = replace(self, active=rises)._ended(restart)
            climbed = machine.run(remember_rise, (), climbed, state)
            explored = self._explored(climbed, rises)
            before = np.where(rises, np.asarray(state.steps) + np.asarray(limit.steps), 0)
            explored = explored._replace(steps=np.asarray(explored.steps) + before)
            state, limit = _where(rises, (climbed, explored), (state, limit))
        return self.conclude(state, limit, steps)

    def _explored(self, state: State, active: np.ndarray) -> Any:
        programs = self.programs
        return solver.explore(
            self.evaluate,
            state,
            active,
            programs.problem.chart.nonlinear,
            self.may_have_kinks,
            programs.machine,
        )

    def _ended(self, state: State) -> State:
        """The states at the end of the climbs; the last of many climb in a chunk of their own."""
        programs = self.programs
        if programs.machine.in_numpy or not self.is_wide:  # in NumPy members leave as they end
            return self.climb_on(state, to_the_end)
        state = self.climb_on(state, few_left)
        max_steps = programs.problem.max_steps
        running = solver.running_of(state, self.active, max_steps, programs.machine)
        (slots,) = np.nonzero(running)
        if not len(slots):
            return state
        few = np.resize(slots, SLOTS_FOR_STRAGGLERS)
        active = np.arange(SLOTS_FOR_STRAGGLERS) < len(slots)
        late = self.taken(few, active).climb_on(members_taken(state, few), to_the_end)
        return members_put(state, np.where(active, few, len(self.active)), late)

    @property
    def is_wide(self) -> bool:
        """Whether its last few members had better go on in a chunk of their own."""
        return self.programs.mesh is None and len(self.active) >= 8 * SLOTS_FOR_STRAGGLERS

    def taken(self, slots: np.ndarray, active: np.ndarray) -> Chunk:
        """The members in these slots as a chunk of its own, with room for as many blocks as
        this one.
        """
        blocks, block_size = self.per_member[0].shape[:2]
        whole = np.resize(slots, -(-len(slots) // block_size) * block_size)

        on_accelerator = self.programs.machine.on_accelerator

        def taken(leaf: Any) -> Any:
            shape = leaf.shape[2:]
            if on_accelerator:  # it has one block
                return rows_taken(leaf.reshape(-1, *shape), whole).reshape(leaf.shape)
            members = np.asarray(leaf).reshape(-1, *shape)[whole]
            return to_device(members.reshape(-1, block_size, *shape), blocks)

        return replace(
            self,
            per_member=[taken(leaf) for leaf in self.per_member],
            base=self.base[:, slots],
            data_id=self.data_id[:, slots],
            active=active,
        )


@dataclass(frozen=True)
class Evaluation:
    """Value, score and Hessian of the active slots of a chunk at z (k, slots)."""

    chunk: Chunk

    def __call__(self, z: Array, active: Array) -> Point:
        return self.chunk.run("evaluate", active, z)

    def of_lanes(self, lanes: np.ndarray) -> Callable[..., Point]:
        """The same of the members in these slots, in NumPy."""
        if len(lanes) > SLOTS_FOR_STRAGGLERS or not self.chunk.is_wide:
            return Lanes(self, lanes, self.chunk.room)
        few = np.resize(lanes, SLOTS_FOR_STRAGGLERS)
        places = np.arange(SLOTS_FOR_STRAGGLERS)
        taken = self.chunk.taken(few, places < len(lanes))
        return Lanes(Evaluation(taken), places[: len(lanes)], taken.room)


def by_family_information(
    family: Family, layout: Layout, judged: solver.Judged, n: Array
) -> solver.Judged:
    """Verdicts with the covariance at a kink that the family of the likelihood gives."""
    verdict = judged.verdict
    verdict, vcov = by_family(family, layout, verdict, verdict.point, n, judged.extra.vcov)
    return judged._replace(verdict=verdict, extra=judged.extra._replace(vcov=vcov))


def few_left(counts: Counts) -> bool:
    """Whether so few climb, and end so slowly, that they had better do it in a chunk of their
    own.
    """
    return counts.now <= SLOTS_FOR_STRAGGLERS and 2 * counts.now > counts.before


def _where(chosen: np.ndarray, new: Any, old: Any) -> Any:
    """``new`` for the members chosen (b,), ``old`` for the others."""

    def one_leaf(a: Any, b: Any) -> Array:
        return namespace(a).where(chosen, a, b).astype(b.dtype)

    return jax.tree.map(one_leaf, new, old)


def _members_last_in(
    run: Callable[..., Any], per_member: Any, common: Any, active: Array, args: Any
) -> Any:
    """A pass for arguments that have members last."""
    return run(per_member, common, active, members_first(args))


def _members_first_out(run: Callable[..., Any], *args: Any) -> Any:
    return members_first(run(*args))


def _members_last_out(run: Callable[..., Any], *args: Any) -> Any:
    return members_last(run(*args))


@partial(jax.jit, static_argnums=1)
def _first(tree: Any, slots: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[..., :slots], tree)


def _to_free(chart: Any, base: Array) -> Array:
    return chart.to_free(base)
