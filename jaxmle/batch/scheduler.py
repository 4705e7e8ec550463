"""The work of one batch, controlled from the host: its pieces, their results, the members still
open, and the checkpoint.

Members are cut into chunks (``plan``), padded where they are ragged (``members``). A chunk of the
first round ends when most of its members are done. The open members of all chunks are gathered for
a second and a last round, in chunks of the same shapes. So the likelihood is compiled once for each
length of data, of which there are at most eight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, Device, Tree, TreeDef, ndarray
from jaxmle.batch.chunks import solver
from jaxmle.batch.chunks.chunk import SLOTS_FOR_THE_LAST, Chunk, WarmStart, load
from jaxmle.batch.chunks.compilation import Programs
from jaxmle.batch.chunks.machine import members_first, members_last
from jaxmle.batch.chunks.pieces import Piece, flat_members
from jaxmle.batch.chunks.plan import (
    Schedule,
    Sizes,
    cut,
    free_bytes,
    resident_bytes,
    with_larger_pieces,
)
from jaxmle.batch.chunks.programs import point_at
from jaxmle.batch.chunks.solver import STEPS_TO_GATHER, half_done, is_open
from jaxmle.batch.members.read import Inputs
from jaxmle.batch.members.sources import Ragged, buckets
from jaxmle.batch.resume import ShapeAndDtype, check_piece, identity, stored_schedules
from jaxmle.batch.separated import with_signs_of_members
from jaxmle.fitting.passes import Problem
from jaxmle.fitting.recession import wants_signs
from jaxmle.likelihood.discovery.self_check import FLOAT32_START
from jaxmle.record.fit import Fit
from jaxmle.runtime.checkpoint import Checkpoint
from jaxmle.runtime.compile import portable_tree, precision, to_numpy
from jaxmle.runtime.device import members_fetched
from jaxmle.runtime.progress import Progress
from jaxmle.solvers.methods import Newton
from jaxmle.solvers.state import start
from jaxmle.solvers.status import Status
from jaxmle.solvers.trust_region import is_running
from jaxmle.verdict.separation import wants_cone

MAX_FLOAT32_STEPS = 16  # evaluations in single precision beyond which an ascent is not an easy one
# rows of all members from which steps in single precision are worth another program
MIN_ROWS_FOR_FLOAT32_START = 2**19
# rows of a member from which a pass over them takes longer than the step that follows it
MIN_ROWS_A_MEMBER_FOR_FLOAT32 = 50
# padded bytes up to which open members of all lengths are gathered into one last round
MAX_BYTES_OF_ONE_LAST_ROUND = 2**23


class Scheduler:
    """The work of one batch: its pieces, their results, and the members still open."""

    def __init__(
        self,
        problem: Problem,
        inputs: Inputs,
        block: int | None,
        devices: Device | Sequence[Device] | None,
        progress: bool | None,
        checkpoint: Checkpoint,
    ) -> None:
        self.problem = problem
        self.inputs = inputs
        self.block = block
        self.devices = _devices(devices)
        self.programs = Programs(problem, tuple(self.devices))
        self.free = (
            free_bytes() if self.devices[0].platform == "cpu" else _device_bytes(self.devices)
        )
        self.checkpoint = checkpoint
        if checkpoint.folder is not None:
            checkpoint.open(identity(problem, inputs))
        self.leaves: list[ndarray] = []
        self.treedef: TreeDef | None = None
        self.states: list[ShapeAndDtype] = []  # shapes and types of one member's state
        self.open: list[tuple[ndarray, list[ndarray]]] = []
        self.pieces = self._first_pieces()
        self._check_memory()
        self.progress = Progress(inputs.source.members, progress, self._about())

    # ------------------------------------------------------------ the plan

    def _first_pieces(self) -> list[Piece]:
        self.buckets = buckets(self.inputs.source.sizes, self.inputs.source.padded)
        schedules = stored_schedules(self.checkpoint, len(self.buckets), len(self.devices))
        if schedules is None:
            schedules = [self._cut(length, len(members)) for length, members in self.buckets]
            self.checkpoint.remember(buckets=[vars(schedule) for schedule in schedules])
        pieces: list[Piece] = []
        for (length, members), schedule in zip(self.buckets, schedules, strict=True):
            for part in _parts(members, schedule.members_a_piece):
                pieces.append(Piece(len(pieces), "first", length, part, schedule))
        return pieces

    def _cut(self, length: tuple[int, ...], members: int) -> Schedule:
        data = self.inputs.source.row_bytes() * sum(length)
        k = self.problem.chart.k
        p = self.problem.layout.p
        size = self.inputs.dtype.itemsize
        bytes_in_use = data + size * sum(length) * (p + 6)
        record = self.record_bytes(k, p, size)
        sizes = Sizes(self.inputs.source.members, members, data, bytes_in_use, record)
        machine = self.programs.machine
        schedule = cut(sizes, len(self.devices), self.free, self.block, machine.on_accelerator)
        if not machine.in_numpy or machine.mesh is not None:
            return schedule
        return with_larger_pieces(schedule, sizes, self.free)

    @staticmethod
    def record_bytes(k: int, p: int, size: int) -> float:
        """Bytes of one member's state and record."""
        return size * (4.0 * k * k + 4.0 * p * p + 10 * k + 12 * p + p * k + 40)

    def predicted_bytes(self) -> float:
        """The predicted peak memory of the process: what it holds now plus what the batch needs."""
        return resident_bytes() + self.needed_bytes()

    def needed_bytes(self) -> float:
        """The bytes that a batch needs: compiled programs, the record of all members, and the
        chunks in flight.
        """
        k = self.problem.chart.k
        p = self.problem.layout.p
        size = self.inputs.dtype.itemsize
        record = size * (4.0 * p * p + 8 * p + 12)
        # the data as they are gathered and as they are laid out, and in single precision
        copies = 2.5 if self._starts_in_float32() else 2.0
        row_bytes = self.inputs.source.row_bytes()
        chunks = [
            copies * piece.schedule.members_a_piece * row_bytes * sum(piece.length)
            + 2 * self.programs.slots(piece) * self.record_bytes(k, p, size)
            for piece in self.pieces
        ]
        records = self.inputs.source.members * record
        return 2.5e8 + records + max(chunks, default=0.0)

    def _check_memory(self) -> None:
        """Refuse a batch whose record alone is larger than the free memory, before it runs for
        hours.
        """
        needed = self.needed_bytes()
        free = free_bytes()  # of this host, wherever it computes
        if needed > free:
            raise MemoryError(
                f"{self.inputs.source.members:,} fits of {self.problem.layout.p} "
                f"parameters need about {needed / 2**30:.1f} GiB, of which "
                f"{free / 2**30:.1f} are free: fit the members in several calls, and save "
                "each with fits.save(path)"
            )

    def _about(self) -> str:
        shapes = {piece.length: piece.schedule for piece in self.pieces}
        sizes = ", ".join(
            f"{'+'.join(map(str, length))} rows in blocks of {schedule.block_size}"
            for length, schedule in list(shapes.items())[:4]
        ) + (", …" if len(shapes) > 4 else "")
        where = f"{len(self.devices)} devices" if len(self.devices) > 1 else "one device"
        if self.inputs.unpadded and len(shapes) > 1:
            sizes += f"; {len(shapes)} lengths without padding: {self.inputs.unpadded}"
        counted = "one chunk" if len(self.pieces) == 1 else f"{len(self.pieces)} chunks"
        return (
            f"{self.inputs.source.members:,} members, {counted} ({sizes}), "
            f"{where}, about {self.predicted_bytes() / 2**30:.1f} GiB at the peak"
        )

    # ------------------------------------------------------------ what separated members can say

    def with_cones(self, fits: Fit) -> Fit:
        """The records; separated members with the signs of their infinite estimates."""
        roots = self.problem.roots
        leaves = jax.tree.leaves(fits)
        for length, members in self.buckets:
            rows = sum(length)
            asked = wants_cone(fits, roots, rows) | wants_signs(fits)
            size = self._schedule_of(length).members_a_piece
            for part in _parts(members[asked[members]], size):
                with self._context():
                    pairs = with_signs_of_members(fits, self.inputs, roots, part, length)
                for member, pair in zip(part, pairs, strict=True):
                    for whole, old, new in zip(leaves, *map(jax.tree.leaves, pair), strict=True):
                        if new is not old:
                            whole[member] = new
        return jax.tree.unflatten(jax.tree.structure(fits), leaves)

    def _schedule_of(self, length: tuple[int, ...]) -> Schedule:
        return next(piece.schedule for piece in self.pieces if piece.length == length)

    # ------------------------------------------------------------ the rounds

    def fits(self) -> Fit:
        """Run all rounds; the records of all members."""
        try:
            self._round(self.pieces, self._run_first)
            if self._has_middle():
                self._round(self._gather("middle"), self._run_middle)
            self._round(self._gather("last"), self._run_last)
        except KeyboardInterrupt:
            remedy = "Give checkpoint=folder to save finished members."
            if self.checkpoint.folder:
                remedy = (
                    f"Finished members are saved in {self.checkpoint.folder}: the same "
                    "call resumes from there."
                )
            raise KeyboardInterrupt(
                f"fit_batch was stopped after {self.progress.done:,} of {self.progress.total:,} "
                f"fits. {remedy}"
            ) from None
        finally:
            self.progress.close()
        return jax.tree.unflatten(self.treedef, self.leaves)

    def _has_middle(self) -> bool:
        """Whether there is a middle round between the first and the last."""
        return len(self.pieces) > 1

    def _round(self, pieces: list[Piece], run: Callable[[Piece], list[ndarray]]) -> None:
        """Run pieces one after the other; those in the checkpoint are read instead.

        Threads are not used, because two of them in XLA's CPU client were seen to deadlock. Devices
        run in parallel.
        """
        opened: dict[int, tuple[ndarray, list[ndarray]]] = {}
        for piece in pieces:
            name = f"{piece.name}-{piece.number:06d}"
            stored = None
            if self.treedef is not None or self._prepare():
                records = [(leaf.shape[1:], leaf.dtype) for leaf in self.leaves]
                check = partial(check_piece, piece.index, records, self.states)
                stored = self.checkpoint.load(name, check)
            if stored is None:
                stored = [piece.index, *run(piece)]
                self.checkpoint.save(name, stored)
            self._accept(piece, stored[1:], opened)
        self.open = [opened[number] for number in sorted(opened)]

    def _prepare(self) -> bool:
        """Find the shapes of the record and of a member's state by abstract evaluation; they are
        needed to read a checkpoint.
        """
        if not self.checkpoint.holds("first-000000"):
            return False
        k = self.problem.chart.k
        p = self.problem.layout.p

        def like(*shape: int) -> Tree:
            return jax.ShapeDtypeStruct(shape, self.inputs.dtype)

        piece = self.pieces[0]
        with self._context():
            member = flat_members(self.inputs, piece.index[:1], piece.length).first
            member = member._replace(loglik=portable_tree(member.loglik))
            point = jax.eval_shape(lambda z: point_at(self.problem, member, z), like(k))
        state = jax.eval_shape(start, like(k), point)
        fit = jax.eval_shape(
            self._neutral_record, like(p), state, like(), jax.ShapeDtypeStruct((2,), np.uint32)
        )
        warm = WarmStart(np.zeros((), np.int32), np.zeros((), bool))
        self._shapes(self.programs.named(fit), (state, warm), 0)
        return True

    def _neutral_record(self, base: Array, state: Tree, n: Array, data_id: Array) -> Tree:
        no_steps = jnp.zeros((), jnp.int32)
        return solver.record_shapes(self.problem.neutral, base, state, n, data_id, no_steps)

    def _shapes(self, fit: Fit, state: Tree, lead: int) -> None:
        """Empty arrays for the record of all members; the first ``lead`` axes of each leaf run over
        members.
        """
        self.treedef = jax.tree.structure(fit)
        self.state_tree = jax.tree.structure(state)
        self.leaves = [
            np.zeros((self.inputs.source.members, *leaf.shape[lead:]), leaf.dtype)
            for leaf in jax.tree.leaves(fit)
        ]
        self.states = [
            (tuple(leaf.shape[lead:]), np.dtype(leaf.dtype)) for leaf in jax.tree.leaves(state)
        ]

    def _run_first(self, piece: Piece) -> list[ndarray]:
        """The arrays of a first round: fits, then the open slots and their states."""
        with self._context():
            chunk = load(self.programs, self.inputs, piece)
            schedule = self.checkpoint.schedule
            rounds = MAX_FLOAT32_STEPS if self._starts_in_float32() else 0
            if piece.number:
                # the first chunk decides for the others, and a rerun must decide alike
                rounds = schedule.get("rounds", rounds)
            state, warm = chunk.ascend(rounds, half_done)
            arrays = self._ended(piece, chunk, state, warm, True)
            if "rounds" not in schedule:
                count = len(piece.index)
                warm_steps = warm.steps[:count][warm.warm_started[:count]]
                rounds = _cap(warm_steps) if 2 * len(warm_steps) > count else 0
                self.checkpoint.remember(rounds=rounds, float32=bool(len(warm_steps)))
            return arrays

    @property
    def starts(self) -> list[str]:
        """The word for steps in single precision, if the run took any."""
        return [FLOAT32_START] if self.checkpoint.schedule.get("float32") else []

    def _starts_in_float32(self) -> bool:
        """Whether the first steps may be in single precision."""
        rows = np.sum(self.inputs.source.sizes)
        has_many_rows = rows >= max(
            MIN_ROWS_FOR_FLOAT32_START, MIN_ROWS_A_MEMBER_FOR_FLOAT32 * self.inputs.source.members
        )
        return (
            has_many_rows
            and isinstance(self.problem.solver, Newton)
            and self.inputs.dtype == np.float64
            and self.problem.max_steps > 4 * MAX_FLOAT32_STEPS
        )

    def _run_middle(self, piece: Piece) -> list[ndarray]:
        """The arrays of a middle round, for members that the first round left open. Most need a
        step or two; those that need many are gathered afterwards.
        """
        with self._context():
            chunk = load(self.programs, self.inputs, piece)
            state, warm = self._states(piece)
            return self._ended(piece, chunk, chunk.resume_ascent(state, half_done), warm, False)

    def _run_last(self, piece: Piece) -> list[ndarray]:
        """The arrays of a last round: fits; no member stays open."""
        with self._context():
            state, warm = self._states(piece)
            fit = to_numpy(load(self.programs, self.inputs, piece).last(state, warm.steps))
            return [*(leaf[: len(piece.index)] for leaf in jax.tree.leaves(fit)), np.zeros(0, int)]

    def _ended(
        self, piece: Piece, chunk: Chunk, state: Tree, warm: WarmStart, first: bool
    ) -> list[ndarray]:
        """The arrays of a round that leaves members open."""
        count = len(piece.index)
        step_limits = np.full(len(chunk.active), self.problem.max_steps, np.int32)
        machine = self.programs.machine
        static = (self.problem.chart.nonlinear, chunk.may_have_kinks)
        left = np.asarray(machine.run(is_open, static, state, step_limits))
        fit = to_numpy(chunk.conclude(state, None, warm.steps))
        if self.treedef is None:
            self._shapes(fit, members_first((state, warm)), 1)
        repeated = np.asarray(warm.warm_started) & (left | (fit.status != Status.CONVERGED))
        if first and self._has_middle():
            repeated &= ~np.asarray(machine.run(is_running, (), state, step_limits))
        if np.any(repeated):  # they start again, from the user's start
            state = _chosen(repeated, chunk.initial_state(state), state)
            warm = warm._replace(warm_started=warm.warm_started & ~repeated)
        slots = np.flatnonzero((left | repeated)[:count])
        return [
            *(leaf[:count] for leaf in jax.tree.leaves(fit)),
            slots,
            *jax.tree.leaves(members_first(members_fetched((state, warm), slots))),
        ]

    def _states(self, piece: Piece) -> Tree:
        """The states of gathered members, in their slots."""
        index, states = self._gathered
        slots = self.programs.slots(piece)
        place = np.searchsorted(index, piece.member_in_slots(slots))
        leaves = members_last([leaf[place] for leaf in states])
        return jax.tree.unflatten(self.state_tree, leaves)

    @contextmanager
    def _context(self) -> Iterator[None]:
        """Precision and device of the programs."""
        with (
            precision(self.inputs.dtype),
            np.errstate(all="ignore"),
            jax.default_device(self.devices[0] if len(self.devices) == 1 else None),
        ):
            yield

    def _accept(self, piece: Piece, arrays: list[ndarray], opened: dict[int, Tree]) -> None:
        """Store the records of finished members, and note which members are open."""
        fits, (slots, *states) = arrays[: len(self.leaves)], arrays[len(self.leaves) :]
        for whole, part in zip(self.leaves, fits, strict=True):
            whole[piece.index] = part
        if len(slots):
            opened[piece.number] = (piece.index[slots], states)
        self.progress.add(len(piece.index) - len(slots))

    def _gather(self, name: str) -> list[Piece]:
        """The members that the previous round left open, in chunks of the shapes of the first
        round.
        """
        if not self.open:
            return []
        index = np.concatenate([members for members, _ in self.open])
        states = [
            np.concatenate(leaves)
            for leaves in zip(*(states for _, states in self.open), strict=True)
        ]
        order = np.argsort(index, kind="stable")
        index = index[order]
        self._gathered = index, [leaf[order] for leaf in states]
        bucket = self._bucket_of(index)
        pieces: list[Piece] = []
        for place in np.unique(bucket):
            length = self.buckets[place][0]
            schedule = self._schedule_of(length)
            for part in _parts(index[bucket == place], schedule.members_a_piece):
                narrow = replace(schedule, slots=min(SLOTS_FOR_THE_LAST, schedule.slots))
                is_small = self.programs.mesh is None and len(part) <= SLOTS_FOR_THE_LAST
                pieces.append(
                    Piece(len(pieces), name, length, part, narrow if is_small else schedule)
                )
        return pieces

    def _bucket_of(self, index: ndarray) -> ndarray:
        """The bucket in which each of these open members continues, (number open,)."""
        source = self.inputs.source
        bucket_of_all = np.empty(source.members, dtype=int)
        for place, (_, members) in enumerate(self.buckets):
            bucket_of_all[members] = place
        bucket = bucket_of_all[index]
        if isinstance(source, Ragged) and source.padded and source.sizes.shape[1] == 1:
            longest = self.buckets[bucket.max()][0]
            if len(index) * sum(longest) * source.row_bytes() <= MAX_BYTES_OF_ONE_LAST_ROUND:
                # a few members at the greatest length among them, which is compiled already
                bucket[:] = bucket.max()
        return bucket


def _parts(members: ndarray, size: int) -> list[ndarray]:
    """The members in parts of ``size``, the last one shorter."""
    return [members[i : i + size] for i in range(0, len(members), size)]


def _chosen(chosen: ndarray, new: Tree, old: Tree) -> Tree:
    """``new`` for the members chosen (b,), ``old`` for the others."""
    return jax.tree.map(lambda a, b: namespace(a).where(chosen, a, b), new, old)


def _cap(steps: Array) -> int:
    """The cheapest cap on steps in single precision, from the steps (b,) of some members. The
    others then continue in double precision.
    """
    longest = int(np.max(steps, initial=1))
    cost = [
        cap + np.mean(steps > cap) * (STEPS_TO_GATHER + longest - cap)
        for cap in range(1, longest + 1)
    ]
    return 1 + int(np.argmin(cost))


def _devices(devices: Device | Sequence[Device] | None) -> list[Device]:
    if devices is None:
        return list(jax.devices())
    listed = list(devices) if isinstance(devices, list | tuple) else [devices]
    if not listed or not all(hasattr(device, "platform") for device in listed):
        raise TypeError(f"devices must be jax devices, such as jax.devices()[:2]; got {devices!r}")
    return listed


def _device_bytes(devices: list[Device]) -> float:
    """The free memory of all devices; 4 GiB each if they do not report it."""
    free = []
    for device in devices:
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            free.append(float(stats["bytes_limit"]) - float(stats.get("bytes_in_use", 0)))
    return min(free, default=2.0**32) * len(devices)
