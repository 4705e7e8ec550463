"""A piece of a batch on the device: its data, laid out once, and the passes over its members.

Its members take their steps together: a program of the user's likelihood evaluates those that are
still running (``programs``); functions that do not call the likelihood move them on (``solver``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, Function, Tree, ndarray
from jaxmle.batch.chunks import programs as passes
from jaxmle.batch.chunks import solver
from jaxmle.batch.chunks.compilation import Programs
from jaxmle.batch.chunks.machine import members_first, members_last
from jaxmle.batch.chunks.pieces import Piece, flat_members
from jaxmle.batch.chunks.programs import Form, single
from jaxmle.batch.chunks.solver import Counts, Enough, to_the_end
from jaxmle.batch.members.read import Inputs
from jaxmle.families.family import Family
from jaxmle.fitting.ending import by_family, family_of
from jaxmle.fitting.passes import MAX_RISES, needs_pass
from jaxmle.likelihood.discovery.kinked_operations import may_have_kinks
from jaxmle.likelihood.structure import counts_of
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.device import (
    members_put,
    members_taken,
    rows_taken,
    to_device,
    to_float32,
)
from jaxmle.solvers.leading_axes import PartOfBatch
from jaxmle.solvers.methods import LBFGS, Optax
from jaxmle.solvers.state import Point, State, start
from jaxmle.solvers.status import Status
from jaxmle.verdict.doubt import remember_rise
from jaxmle.verdict.limit import Limit
from jaxmle.verdict.shape import Shape

SLOTS_FOR_THE_LAST = 128  # slots for the last few members of a round: their ascents are long
# members of which few are moved together, and the share that is few: to move them costs an
# evaluation of those that are moved
MIN_MEMBERS_TO_MOVE = 128
MAX_SHARE_TO_MOVE = 0.5


class WarmStart(NamedTuple):
    """What came before the ascents of a chunk."""

    steps: Array  # (b,)
    # (b,) whether an ascent started at a point in single precision, not at the user's start
    warm_started: ndarray


@dataclass(frozen=True)
class Chunk:
    """A piece on the device, and the passes over its members. Their axis is last in all arguments
    and results.
    """

    programs: Programs
    form: Form
    # leaves (blocks, block_size, ...), of some members after those of others: all parts have the
    # same shapes, for one program
    parts: list[list[jax.Array]]
    common: list[jax.Array]  # leaves that all members share
    base: ndarray  # (p, slots)
    data_id: ndarray  # (2, slots)
    active: ndarray  # (slots,) whether a slot holds a member of its own

    def run(self, over_members: Function, active: Array, *args: Tree) -> Tree:
        """One pass over the data, for the active slots."""
        program = self.programs.get(over_members, self.form)
        if len(self.parts) == 1:
            return self._run_part(program, self.parts[0], active, args)
        size = self.part_size
        spans = [slice(first, first + size) for first in range(0, len(active), size)]
        spans = [span for span in spans if np.any(active[span])] or spans[:1]
        results = []
        for span in spans:
            given = jax.tree.map(lambda leaf, span=span: leaf[..., span], (active, args))
            results.append(self._run_part(program, self.parts[span.start // size], *given))

        def joined(*leaves: ndarray) -> ndarray:
            whole = np.zeros((*leaves[0].shape[:-1], len(active)), leaves[0].dtype)
            for span, leaf in zip(spans, leaves, strict=True):
                whole[..., span] = leaf
            return whole

        return jax.tree.map(joined, *results)

    def _run_part(
        self, program: Function, part: list[jax.Array], active: Array, args: tuple[Tree, ...]
    ) -> Tree:
        slots = len(active)
        size = self.part_size

        def wider(leaf: Tree) -> Tree:
            pad = jnp.pad if isinstance(leaf, jax.Array) else np.pad
            return pad(leaf, [(0, 0)] * (np.ndim(leaf) - 1) + [(0, size - slots)])

        if slots < size:
            active, args = jax.tree.map(wider, (active, args))
        results = program(part, self.common, active, args)
        if self.programs.machine.in_numpy:
            return jax.tree.map(lambda leaf: np.asarray(leaf)[..., :slots], results)
        return _first(results, slots) if slots < size else results

    @property
    def part_size(self) -> int:
        """The members that the blocks of a part have room for."""
        blocks, block_size = self.parts[0][0].shape[:2]
        return blocks * block_size

    @property
    def room(self) -> int:
        """The members that its blocks have room for."""
        return self.part_size * len(self.parts)

    @property
    def _shapes_of_one(self) -> list[Tree]:
        """Shapes and dtypes of the leaves of one member as the likelihood takes them, its designs
        by rows.
        """
        shapes = single(self.parts[0], 2)
        by_columns = self.form.designs(shapes, self.common)
        return [
            jax.ShapeDtypeStruct(leaf.shape[::-1], leaf.dtype) if i in by_columns else leaf
            for i, leaf in enumerate(shapes)
        ]

    @property
    def may_have_kinks(self) -> bool:
        """Whether the program of the likelihood shows that ℓ may have kinks."""
        key = ("may have kinks", self.form)
        loaded = self.programs.loaded
        if key not in loaded:
            member = self.form.member(self._shapes_of_one, self.common)
            layout = self.programs.problem.layout
            loaded[key] = may_have_kinks(member.loglik, layout, member.base, member.data)
        return loaded[key]

    @property
    def evaluate(self) -> Evaluation:
        """Value, score and Hessian of the active slots at z (k, slots)."""
        return Evaluation(self)

    def ascend(self, rounds: int, enough: Enough) -> tuple[State, WarmStart]:
        """The states when it is ``enough``, and what was done before: at most ``rounds`` steps in
        single precision, or a first-order method.
        """
        slots = len(self.active)
        programs = self.programs
        z = self._z_at_start()
        warm = WarmStart(np.zeros(slots, np.int32), np.zeros(slots, bool))
        if isinstance(programs.problem.solver, LBFGS | Optax):
            z, steps = self.run(passes.approached, self.active, z)
            warm = warm._replace(steps=steps)
        elif rounds:
            approach = self._float32_start(z, rounds)
            if approach is not None:
                z = approach.z
                warm = WarmStart(approach.steps, np.asarray(approach.is_sound))
        max_steps = programs.problem.max_steps
        state = solver.ascend(self.evaluate, z, self.active, max_steps, enough, programs.machine)
        return state, warm

    def _z_at_start(self) -> Array:
        """The free point of the user's start, (k, slots)."""
        chart = self.programs.problem.chart
        if chart.is_identity and chart.k == chart.layout.p:
            return self.base
        return self.programs.machine.run_compiled(_to_free, (chart,), self.base)

    def resume_ascent(self, state: State, enough: Enough) -> State:
        """Continue from the given states until it is ``enough``."""
        programs = self.programs
        max_steps = programs.problem.max_steps
        machine = programs.machine
        return solver.resume_ascent(self.evaluate, state, self.active, max_steps, enough, machine)

    def _float32_start(self, z: Array, rounds: int) -> solver.Approach | None:
        """Steps in single precision; None if the likelihood cannot be evaluated in it, for instance
        because one of its constants is of double precision.
        """
        parts = [[to_float32(leaf) for leaf in part] for part in self.parts]
        evaluate = Evaluation(replace(self, parts=parts), passes.evaluate_in_float32)
        machine = self.programs.machine
        try:
            return solver.approach_in_float32(evaluate, z, self.active, rounds, machine)
        except (TypeError, ValueError):  # an error of another cause is met again in float64
            return None

    def initial_state(self, like: State) -> State:
        """The states before the first step from the user's start."""
        return self.programs.machine.run(start, (), self._z_at_start(), like.point)

    def conclude(self, state: State, limit: Tree, steps: Array) -> Fit:
        """The records of all slots.

        Args:
            limit: the ends of the excursions; None in the first round, which makes none.
            steps: made before the ascents, (slots,).
        """
        programs = self.programs
        neutral = programs.problem.neutral
        machine = programs.machine
        n = self._counted() if machine.in_numpy else self.run(passes.counted, self.active)
        judged = solver.judged(neutral, self.base, state, limit, machine)
        family = family_of(programs.problem.loglik, programs.problem.kind)
        if family is not None and limit is not None and limit.kink is not None:
            static = (family, neutral.layout)
            judged = machine.run_compiled(by_family_information, static, judged, n)
        elif needs_pass(programs.problem.kind):
            verdict = judged.verdict
            parts = self.run(passes.covariance_parts, self.active, verdict.point, verdict)
            judged = judged._replace(extra=parts)
        fit = solver.finished(neutral, self.base, judged, n, self.data_id, steps, machine)
        fit = members_first(programs.named(fit))
        return fit if limit is None else self._with_rows(fit, state)

    def _counted(self) -> Array:
        """n of each slot, (slots,): in NumPy, and by a pass where shapes and weights do not tell
        it.
        """
        data = self.form.member(self._shapes_of_one, self.common).data
        counts = []
        for part in self.parts:
            members = self.form.member([np.asarray(leaf) for leaf in part], self.common)
            n = counts_of(members.loglik, data)
            if n is None:
                return self.run(passes.counted, self.active)
            counts.append(np.broadcast_to(n, part[0].shape[:2]).reshape(-1))
        return np.concatenate(counts)[: len(self.active)].astype(self.base.dtype)

    def _with_rows(self, fit: Fit, state: State) -> Fit:
        """The records, each failed one with the row that made it fail, each separated one with the
        row that is NaN further out.
        """
        met_nan = ~np.isnan(state.nan_point[0])
        first = {
            Status.NONFINITE: (passes.first_rough, True),
            Status.UNBOUNDED: (passes.first_bad, True),
            Status.SEPARATED: (passes.first_rough, met_nan),
        }
        for status, (first_row, asked) in first.items():
            failed = (np.asarray(fit.status) == int(status)) & asked
            if not np.any(failed & self.active):
                continue
            at_nan = met_nan & (status != Status.UNBOUNDED)
            z = np.where(at_nan, state.nan_point, state.point.z)
            rows = np.asarray(self.run(first_row, failed & self.active, z))
            witness = fit.witness
            row = np.where(failed, rows, np.asarray(witness.row)).astype(witness.row.dtype)
            fit = replace(fit, witness=replace(witness, row=row))
        return fit

    def last(self, state: State, steps: Array) -> Fit:
        """Ascend to the end, explore, judge; where ℓ is seen to rise a finite way off, ascend again
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
            ascended = replace(self, active=rises)._ended(restart)
            ascended = machine.run(remember_rise, (), ascended, state)
            explored = self._explored(ascended, rises)
            before = np.where(rises, np.asarray(state.steps) + np.asarray(limit.steps), 0)
            explored = explored._replace(steps=np.asarray(explored.steps) + before)
            state, limit = _where(rises, (ascended, explored), (state, limit))
        return self.conclude(state, limit, steps)

    def _explored(self, state: State, active: ndarray) -> Limit:
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
        """The states at the end of the ascents; the last of many members run in a chunk of their
        own.
        """
        programs = self.programs
        if programs.machine.in_numpy or not self.is_wide:  # in NumPy members leave as they end
            return self.resume_ascent(state, to_the_end)
        state = self.resume_ascent(state, few_left)
        max_steps = programs.problem.max_steps
        running = solver.running_of(state, self.active, max_steps, programs.machine)
        (slots,) = np.nonzero(running)
        if not len(slots):
            return state
        few = np.resize(slots, SLOTS_FOR_THE_LAST)
        active = np.arange(SLOTS_FOR_THE_LAST) < len(slots)
        late = self.taken(few, active).resume_ascent(members_taken(state, few), to_the_end)
        return members_put(state, np.where(active, few, len(self.active)), late)

    @property
    def is_wide(self) -> bool:
        """Whether the last few members should continue in a chunk of their own."""
        return self.programs.mesh is None and len(self.active) >= 8 * SLOTS_FOR_THE_LAST

    def taken(self, slots: ndarray, active: ndarray) -> Chunk:
        """The members in these slots as a chunk of its own, whose parts have room for as many
        blocks as those of this one.
        """
        blocks, block_size = self.parts[0][0].shape[:2]
        whole = np.resize(slots, -(-len(slots) // block_size) * block_size)
        if self.programs.machine.on_accelerator:  # it has one block
            folded = [leaf.reshape(-1, *leaf.shape[2:]) for leaf in self.parts[0]]
            pairs = zip(folded, self.parts[0], strict=True)
            parts = [[rows_taken(leaf, whole).reshape(like.shape) for leaf, like in pairs]]
        else:
            rows = [_members_of(leaves, whole) for leaves in zip(*self.parts, strict=True)]
            parts = [
                [to_device(leaf, blocks) for leaf in part]
                for part in in_parts(rows, blocks, block_size)
            ]
        return replace(
            self,
            parts=parts,
            base=self.base[:, slots],
            data_id=self.data_id[:, slots],
            active=active,
        )


@dataclass(frozen=True)
class Evaluation:
    """Value, score and Hessian of the active slots of a chunk at z (k, slots)."""

    chunk: Chunk
    over_members: Function = passes.evaluate  # the pass that computes them

    def __call__(self, z: Array, active: Array) -> Point:
        return self.chunk.run(self.over_members, active, z)

    def of_members(self, positions: ndarray) -> Function:
        """The evaluation of the members in these slots, in NumPy. A few of many members are moved
        together, so that other blocks have no active member.
        """
        members = len(self.chunk.active)
        few = MIN_MEMBERS_TO_MOVE < members and MAX_SHARE_TO_MOVE * members >= len(positions)
        if not few or self.chunk.programs.mesh is not None:
            return PartOfBatch(self, positions, self.chunk.room)
        taken = self.chunk.taken(positions, np.ones(len(positions), bool))
        return PartOfBatch(replace(self, chunk=taken), np.arange(len(positions)), taken.room)


def in_parts(leaves: list[ndarray], blocks: int, block_size: int) -> Iterator[list[ndarray]]:
    """Leaves (members, ...) of a multiple of ``block_size`` members as those (blocks, block_size,
    ...) of each part; the last part may have fewer blocks.
    """
    folded = [leaf.reshape(-1, block_size, *leaf.shape[1:]) for leaf in leaves]
    for first in range(0, len(folded[0]), blocks):
        yield [leaf[first : first + blocks] for leaf in folded]


def _members_of(parts: tuple[jax.Array, ...], index: ndarray) -> ndarray:
    """The members ``index`` (m,) of a leaf (blocks, block_size, ...) of each part, (m, ...)."""
    folded = [np.asarray(leaf).reshape(-1, *leaf.shape[2:]) for leaf in parts]
    taken = np.empty((len(index), *folded[0].shape[1:]), folded[0].dtype)
    part, place = np.divmod(index, len(folded[0]))
    for i in np.unique(part):
        taken[part == i] = folded[i][place[part == i]]
    return taken


def load(programs: Programs, inputs: Inputs, piece: Piece) -> Chunk:
    """The data of a piece, on the device and laid out."""
    block_size = piece.schedule.block_size
    slots = programs.slots(piece)
    if programs.machine.on_accelerator:  # of few members few are sent there
        block_size = min(block_size, slots)
    flat = flat_members(inputs, piece.member_in_slots(piece.blocks * block_size), piece.length)
    pairs = list(zip(flat.leaves, flat.form.shared, strict=True))
    common = [jnp.asarray(leaf) for leaf, is_shared in pairs if is_shared]
    per_member: list[ndarray] = [np.asarray(leaf) for leaf, is_shared in pairs if not is_shared]
    parts = [
        programs.laid_out(flat.form, part, common, piece.schedule)
        for part in in_parts(per_member, piece.schedule.blocks, block_size)
    ]
    member = piece.member_in_slots(slots)
    base = inputs.base[member] if inputs.base.ndim == 2 else inputs.base
    padding = ((0, max(slots - len(flat.data_id), 0)), (0, 0))
    return Chunk(
        programs,
        flat.form,
        parts,
        common,
        members_last(np.broadcast_to(base, (slots, programs.problem.layout.p))),
        members_last(np.pad(flat.data_id, padding)[:slots]),
        np.arange(slots) < len(piece.index),
    )


def by_family_information(
    family: Family, layout: Layout, judged: solver.Judged, n: Array
) -> solver.Judged:
    """Verdicts; at a kink, with the covariance from the family of the likelihood."""
    verdict = judged.verdict
    verdict, vcov = by_family(family, layout, verdict, verdict.point, n, judged.extra.vcov)
    return judged._replace(verdict=verdict, extra=judged.extra._replace(vcov=vcov))


def few_left(counts: Counts) -> bool:
    """Whether so few members are running, and finishing so slowly, that they should run in a chunk
    of their own.
    """
    return counts.now <= SLOTS_FOR_THE_LAST and 2 * counts.now > counts.before


def _where(chosen: ndarray, new: Tree, old: Tree) -> Tree:
    """``new`` for the members chosen (b,), ``old`` for the others."""

    def one_leaf(a: Array, b: Array) -> Array:
        return namespace(a).where(chosen, a, b).astype(b.dtype)

    return jax.tree.map(one_leaf, new, old)


@partial(jax.jit, static_argnums=1)
def _first(tree: Tree, slots: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[..., :slots], tree)


def _to_free(chart: Tree, base: Array) -> Array:
    return chart.to_free(base)
