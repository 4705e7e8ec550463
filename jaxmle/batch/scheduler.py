"""The work of one batch, from the host: pieces, where their results go, what is still open, what a
checkpoint keeps.

Members are cut into chunks (``schedule``), padded where they are ragged (``members``). A chunk of
the first round ends when most of its members are done; those that it leaves open are gathered from
all chunks for a second round and a last one, in chunks of the same shapes. So the likelihood is
compiled once for each length of data, of which there are at most eight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array
from jaxmle.batch import solver
from jaxmle.batch.chunk import SLOTS_FOR_STRAGGLERS, Begun, Chunk, Piece, Programs, flat_members
from jaxmle.batch.inputs import Inputs
from jaxmle.batch.members import Ragged, buckets
from jaxmle.batch.plan import Schedule, cut, free_bytes, resident_bytes
from jaxmle.batch.programs import point_at
from jaxmle.batch.resume import ShapeAndDtype, check_piece, identity, stored_schedules
from jaxmle.batch.solver import AFRESH, half_done, is_open, machine
from jaxmle.fitting.passes import Problem
from jaxmle.fitting.separation import settled, wants_cone
from jaxmle.likelihood.recession import is_exact
from jaxmle.record.fit import Fit
from jaxmle.runtime.checkpoint import Checkpoint
from jaxmle.runtime.compile import precision, to_numpy
from jaxmle.runtime.progress import Progress
from jaxmle.solvers.methods import Newton
from jaxmle.solvers.status import Status
from jaxmle.solvers.trust_region import is_running, start

CONES = 16  # separated members whose gradients are on the device at once
SPRINT = 16  # evaluations in single precision beyond which a climb is not an easy one
MIN_ROWS_FOR_FLOAT32_START = (
    2**19
)  # rows of all members from which steps in single precision are worth another program
MIN_ROWS_A_MEMBER_FOR_FLOAT32 = (
    50  # rows of a member from which a pass over them takes longer than the step that follows it
)
MAX_BYTES_OF_ONE_LAST_ROUND = (
    2**23
)  # padded bytes up to which open members of all lengths are gathered into one last round


class Scheduler:
    """The work of one batch: pieces, where their results go, what is still open."""

    def __init__(
        self,
        problem: Problem,
        inputs: Inputs,
        block: int | None,
        devices: Any,
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
        self.leaves: list[np.ndarray] = []
        self.treedef: Any = None
        self.states: list[ShapeAndDtype] = []  # shapes and types of one member's
        self.open: list[tuple[np.ndarray, list[np.ndarray]]] = []
        self.pieces = self._first_pieces()
        self._check_memory()
        self.progress = Progress(inputs.source.members, progress, self._about())

    # ------------------------------------------------------------ the plan

    def _first_pieces(self) -> list[Piece]:
        self.buckets = buckets(self.inputs.source.sizes, self.inputs.source.padded)
        stored = stored_schedules(self.checkpoint, len(self.buckets), len(self.devices))
        pieces: list[Piece] = []
        told = []
        for place, (length, members) in enumerate(self.buckets):
            schedule = stored[place] if stored else self._cut(length, len(members))
            told.append(
                {
                    "lanes": schedule.lanes,
                    "blocks": schedule.blocks,
                    "chunks": schedule.chunks,
                    "seats": schedule.seats,
                }
            )
            for at in range(0, len(members), schedule.members):
                pieces.append(
                    Piece(
                        len(pieces), "first", length, members[at : at + schedule.members], schedule
                    )
                )
        if not stored:
            self.checkpoint.remember(buckets=told)
        return pieces

    def _cut(self, length: tuple[int, ...], members: int) -> Schedule:
        data = self.inputs.source.row_bytes() * sum(length)
        k = self.problem.chart.k
        p = self.problem.layout.p
        size = self.inputs.dtype.itemsize
        live = data + size * sum(length) * (p + 6)
        return cut(
            self.inputs.source.members,
            members,
            data,
            live,
            self.record_bytes(k, p, size),
            len(self.devices),
            self.free,
            self.block,
            self.devices[0].platform != "cpu",
        )

    @staticmethod
    def record_bytes(k: int, p: int, size: int) -> float:
        """Bytes of one member's state and record."""
        return size * (4.0 * k * k + 4.0 * p * p + 10 * k + 12 * p + p * k + 40)

    def predicted_bytes(self) -> float:
        """Peak memory of the process: what it holds now, compiled programs, the record of all
        members and the chunks in flight.
        """
        k = self.problem.chart.k
        p = self.problem.layout.p
        size = self.inputs.dtype.itemsize
        record = size * (4.0 * p * p + 8 * p + 12)
        copies = (
            2.5 if self._sprints() else 2.0
        )  # the data as they are gathered and as they are laid out, and in single precision
        chunk = max(
            (
                copies * piece.schedule.members * self.inputs.source.row_bytes() * sum(piece.length)
                + 2 * piece.schedule.seats * self.record_bytes(k, p, size)
                for piece in self.pieces
            ),
            default=0.0,
        )
        return resident_bytes() + 2.5e8 + self.inputs.source.members * record + chunk

    def _check_memory(self) -> None:
        """A batch whose record alone is more than the memory that is free is refused before it
        runs for hours.
        """
        needed = self.predicted_bytes() - resident_bytes()
        if self.devices[0].platform == "cpu" and needed > self.free:
            raise MemoryError(
                f"{self.inputs.source.members:,} fits of {self.problem.layout.p} parameters need "
                f"about {needed / 2**30:.1f} GiB, of which {self.free / 2**30:.1f} are free: fit "
                "the members in several calls, and keep each with fits.save(path)"
            )

    def _about(self) -> str:
        shapes = {piece.length: piece.schedule for piece in self.pieces}
        sizes = ", ".join(
            f"{'+'.join(map(str, n))} rows in blocks of {s.lanes}"
            for n, s in list(shapes.items())[:4]
        ) + (", …" if len(shapes) > 4 else "")
        where = f"{len(self.devices)} devices" if len(self.devices) > 1 else "one device"
        if self.inputs.unpadded and len(shapes) > 1:
            sizes += f"; {len(shapes)} lengths without padding: {self.inputs.unpadded}"
        return (
            f"{self.inputs.source.members:,} members, {len(self.pieces)} chunks ({sizes}), "
            f"{where}, about {self.predicted_bytes() / 2**30:.1f} GiB at the peak"
        )

    # ------------------------------------------------------------ what separated members can say

    def with_cones(self, fits: Fit) -> Fit:
        """Separated members with the cone of their recession, a few at a time; the others as
        they are.
        """
        leaves = list(jax.tree.leaves(fits))
        exact = is_exact(self.inputs.bare)
        for length, members in self.buckets:
            index = members[wants_cone(fits, self.problem.roots, sum(length))[members]]
            few = CONES * len(self.devices)
            for part in np.split(index, range(few, len(index), few)) if len(index) else []:
                schedule = Schedule(CONES, len(self.devices), 1, CONES * len(self.devices))
                with self._context():
                    chunk = self.programs.load(
                        self.inputs, Piece(0, "cone", length, part, schedule)
                    )
                    found = to_numpy(chunk.ask("recession", chunk.wanted))
                for seat, member in enumerate(part):
                    at = jax.tree.map(lambda leaf, seat=seat: leaf[seat], found)
                    for whole, leaf in zip(
                        leaves,
                        jax.tree.leaves(settled(fits[member], self.problem.roots, at, exact)),
                        strict=True,
                    ):
                        whole[member] = leaf
        return jax.tree.unflatten(jax.tree.structure(fits), leaves)

    # ------------------------------------------------------------ the rounds

    def fits(self) -> Fit:
        """Scheduler everything."""
        try:
            self._round(self.pieces, self._run_first)
            if self._has_middle():
                self._round(self._gather("middle"), self._run_middle)
            self._round(self._gather("last"), self._run_last)
        except KeyboardInterrupt:
            kept = (
                f" Finished members are kept in {self.checkpoint.folder}: the same call goes on "
                "from there."
                if self.checkpoint.folder
                else " Give checkpoint=folder to keep finished members."
            )
            raise KeyboardInterrupt(
                f"fit_batch was stopped after {self.progress.done:,} of {self.progress.total:,} "
                f"fits.{kept}"
            ) from None
        finally:
            self.progress.close()
        return jax.tree.unflatten(self.treedef, self.leaves)

    def _has_middle(self) -> bool:
        """Whether a middle round comes between the first and the last."""
        return len(self.pieces) > 1

    def _round(self, pieces: list[Piece], run: Callable[[Piece], list[np.ndarray]]) -> None:
        """Scheduler pieces one after the other; those that a checkpoint holds are read.

        Not by threads: two of them in XLA's CPU client at once were seen to wait for each other for
        ever. Devices run side by side.
        """
        opened: dict[int, tuple[np.ndarray, list[np.ndarray]]] = {}
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
        """Shapes of the record and of a member's state, by abstract evaluation only: needed to
        read a checkpoint.
        """
        if not self.checkpoint.holds("first-000000"):
            return False
        k = self.problem.chart.k
        p = self.problem.layout.p

        def like(*shape: Any) -> Any:
            return jax.ShapeDtypeStruct(shape, self.inputs.dtype)

        piece = self.pieces[0]
        with self._context():
            flat = flat_members(self.inputs, piece.index[:1], piece.length)
            leaves = [
                leaf if same else leaf[0]
                for leaf, same in zip(flat.leaves, flat.form.shared, strict=True)
            ]
            member = jax.tree.unflatten(flat.form.treedef, leaves)
            point = jax.eval_shape(lambda z: point_at(self.problem, member, z), like(k))
        state = jax.eval_shape(start, like(k), point)
        neutral = self.problem.neutral

        def record(base: Array, state: Any, n: Array, data_id: Array) -> Any:
            return solver._concluded(
                neutral,
                base,
                state,
                solver.unexplored(state),
                n,
                data_id,
                jnp.zeros((), jnp.int32),
            )

        self._shapes(
            self.programs.named(
                jax.eval_shape(
                    record, like(p), state, like(), jax.ShapeDtypeStruct((2,), np.uint32)
                )
            ),
            (state, Begun(np.zeros((), np.int32), np.zeros((), bool))),
            0,
        )
        return True

    def _shapes(self, fit: Any, state: Any, lead: int) -> None:
        """Room for the record of all members; the first ``lead`` axes of each leaf run over
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

    def _run_first(self, piece: Piece) -> list[np.ndarray]:
        """The arrays of a first round: fits, then the seats that stay open and their states."""
        with self._context():
            chunk = self.programs.load(self.inputs, piece)
            told = self.checkpoint.schedule
            rounds = SPRINT if self._sprints() else 0
            if (
                piece.number
            ):  # the first chunk decides for the others, and must not change when it is run again
                rounds = told.get("rounds", rounds)
            state, begun = chunk.climb(rounds, half_done)
            arrays = self._ended(piece, chunk, state, begun, True)
            if "rounds" not in told:
                easy = begun.steps[: len(piece.index)][begun.elsewhere[: len(piece.index)]]
                self.checkpoint.remember(
                    rounds=_cap(easy) if 2 * len(easy) > len(piece.index) else 0
                )
            return arrays

    def _sprints(self) -> bool:
        """Whether steps in single precision may come first."""
        rows = np.sum(self.inputs.source.sizes)
        many = rows >= max(
            MIN_ROWS_FOR_FLOAT32_START, MIN_ROWS_A_MEMBER_FOR_FLOAT32 * self.inputs.source.members
        )
        return (
            many
            and isinstance(self.problem.solver, Newton)
            and self.inputs.dtype == np.float64
            and self.problem.max_steps > 4 * SPRINT
        )

    def _run_middle(self, piece: Piece) -> list[np.ndarray]:
        """The same for members that the first round left open: most need a step or two, and
        those that need many come together afterwards.
        """
        with self._context():
            chunk = self.programs.load(self.inputs, piece)
            state, begun = self._states(piece)
            return self._ended(piece, chunk, chunk.climb_on(state, half_done), begun, False)

    def _run_last(self, piece: Piece) -> list[np.ndarray]:
        """The arrays of a last round: fits; nothing stays open."""
        with self._context():
            state, begun = self._states(piece)
            fit = to_numpy(self.programs.load(self.inputs, piece).last(state, begun.steps))
            return [*(leaf[: len(piece.index)] for leaf in jax.tree.leaves(fit)), np.zeros(0, int)]

    def _ended(
        self, piece: Piece, chunk: Chunk, state: Any, begun: Begun, first: bool
    ) -> list[np.ndarray]:
        """The arrays of a round that leaves members open."""
        count = len(piece.index)
        most = np.full(len(chunk.wanted), self.problem.max_steps, np.int32)
        left = np.asarray(
            machine(is_open, (self.problem.chart.bent,), self.programs.mesh)(state, most)
        )
        fit = to_numpy(chunk.conclude(state, None, begun.steps))
        if self.treedef is None:
            self._shapes(fit, (state, begun), 1)
        again = np.asarray(begun.elsewhere) & (left | (fit.status != Status.CONVERGED))
        if first and self._has_middle():
            again &= ~np.asarray(machine(is_running, (), self.programs.mesh)(state, most))
        if np.any(again):  # the start that was asked for has the last word
            state = _chosen(again, chunk.afresh(state), state)
            begun = begun._replace(elsewhere=begun.elsewhere & ~again)
        seats = np.flatnonzero((left | again)[:count])
        return [
            *(leaf[:count] for leaf in jax.tree.leaves(fit)),
            seats,
            *(np.asarray(leaf)[seats] for leaf in jax.tree.leaves((state, begun))),
        ]

    def _states(self, piece: Piece) -> Any:
        """The states of gathered members, in their seats."""
        index, states = self._gathered
        place = np.searchsorted(index, piece.seated(piece.schedule.seats))
        return jax.tree.unflatten(self.state_tree, [leaf[place] for leaf in states])

    @contextmanager
    def _context(self) -> Iterator[None]:
        """Precision and device of the programs."""
        with (
            precision(self.inputs.dtype),
            np.errstate(all="ignore"),
            jax.default_device(self.devices[0] if len(self.devices) == 1 else None),
        ):
            yield

    def _accept(self, piece: Piece, arrays: list[np.ndarray], opened: dict[int, Any]) -> None:
        """Put finished members in their places; note which stay open."""
        fits, (seats, *states) = arrays[: len(self.leaves)], arrays[len(self.leaves) :]
        for whole, part in zip(self.leaves, fits, strict=True):
            whole[piece.index] = part
        if len(seats):
            opened[piece.number] = (piece.index[seats], states)
        self.progress.add(len(piece.index) - len(seats))

    def _gather(self, name: str) -> list[Piece]:
        """The members that the round before left open, in chunks of the shapes of the first
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
        self._gathered = index[order], [leaf[order] for leaf in states]
        index = index[order]
        home = np.empty(self.inputs.source.members, dtype=int)
        for place, (_, members) in enumerate(self.buckets):
            home[members] = place
        home = home[index]
        if (
            isinstance(self.inputs.source, Ragged)
            and self.inputs.source.padded
            and self.inputs.source.sizes.shape[1] == 1
        ):
            longest = self.buckets[home.max()][0]
            if (
                len(index) * sum(longest) * self.inputs.source.row_bytes()
                <= MAX_BYTES_OF_ONE_LAST_ROUND
            ):
                home[:] = (
                    home.max()
                )  # a few members at the greatest length among them, which is compiled already
        pieces: list[Piece] = []
        for place in np.unique(home):
            length = self.buckets[place][0]
            members = index[home == place]
            schedule = next(piece.schedule for piece in self.pieces if piece.length == length)
            for at in range(0, len(members), schedule.members):
                part = members[at : at + schedule.members]
                few = (
                    self.programs.mesh is None
                    and len(part) <= SLOTS_FOR_STRAGGLERS < schedule.seats
                )
                pieces.append(
                    Piece(
                        len(pieces),
                        name,
                        length,
                        part,
                        replace(schedule, seats=SLOTS_FOR_STRAGGLERS) if few else schedule,
                    )
                )
        return pieces


def _chosen(these: np.ndarray, new: Any, old: Any) -> Any:
    """``new`` for these members (b,), ``old`` for the others."""
    return jax.tree.map(
        lambda a, b: np.where(these.reshape(-1, *[1] * (np.ndim(b) - 1)), a, b), new, old
    )


def _cap(steps: Array) -> int:
    """The cap on steps in single precision that costs least, from the steps (b,) of some
    members: beyond it the others go on in double precision.
    """
    longest = int(np.max(steps, initial=1))
    cost = [cap + np.mean(steps > cap) * (AFRESH + longest - cap) for cap in range(1, longest + 1)]
    return 1 + int(np.argmin(cost))


def _devices(devices: Any) -> list[Any]:
    found = list(
        jax.devices()
        if devices is None
        else devices
        if isinstance(devices, list | tuple)
        else [devices]
    )
    if not found or not all(hasattr(device, "platform") for device in found):
        raise TypeError(f"devices must be jax devices, such as jax.devices()[:2]; got {devices!r}")
    return found


def _device_bytes(devices: list[Any]) -> float:
    stats = [device.memory_stats() or {} for device in devices]
    return min(
        (
            float(s["bytes_limit"]) - float(s.get("bytes_in_use", 0))
            for s in stats
            if "bytes_limit" in s
        ),
        default=2**32,
    ) * len(devices)
