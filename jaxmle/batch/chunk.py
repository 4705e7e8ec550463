"""A piece of a batch on the device: its data, laid out once, and what its members can be asked.

It climbs in lockstep: a program of the user's likelihood evaluates the members that still climb
(``block``), one that knows no likelihood moves them on (``lockstep``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array
from jaxmle.batch import programs as passes
from jaxmle.batch import solver
from jaxmle.batch.inputs import Inputs
from jaxmle.batch.plan import Schedule
from jaxmle.batch.programs import Form, Members, single
from jaxmle.batch.solver import Counts, Enough, machine, to_the_end
from jaxmle.fitting.passes import Problem, needs_pass
from jaxmle.likelihood.combinators import Weights, weight
from jaxmle.likelihood.histogram import counted, flagged
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled
from jaxmle.runtime.device import to_device, to_float32
from jaxmle.solvers.methods import LBFGS, Optax
from jaxmle.solvers.status import Status
from jaxmle.solvers.trust_region import Point, State

SLOTS_FOR_STRAGGLERS = 128  # seats for the last few members of a round: their climbs are long


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
        return -(-len(self.index) // self.schedule.lanes)

    def seated(self, seats: int) -> np.ndarray:
        """The member in each of so many seats; the seats left over hold the last member again."""
        return np.pad(self.index, (0, seats - len(self.index)), mode="edge")


@dataclass(frozen=True)
class Flat:
    """Flat ``Members``."""

    leaves: list[Array]
    form: Form
    data_id: np.ndarray


def flat_members(inputs: Inputs, index: np.ndarray, length: tuple[int, ...]) -> Flat:
    """The members ``index`` as flat leaves, with what differs between them on a leading axis."""
    chunk = inputs.source.take(index, length)
    data, w, codes = chunk.rows
    flags = jax.tree.unflatten(jax.tree.structure(inputs.source.rows), list(inputs.source.shared))
    loglik = inputs.loglik
    same = jax.tree.map(lambda _: True, inputs.loglik)
    if inputs.weight_kind is not None:
        loglik = weight(inputs.bare, Weights(w, inputs.weight_kind))
        same = weight(
            jax.tree.map(lambda _: True, inputs.bare), Weights(flags[1], inputs.weight_kind)
        )
    if chunk.padding is not None:
        loglik = weight(loglik, Weights(chunk.padding.astype(inputs.dtype), "frequency"))
        same = weight(same, Weights(False, "frequency"))
    loglik = counted(loglik, data, inputs.most_counts(length), inputs.dtype)
    base = inputs.base[index] if inputs.base.ndim == 2 else inputs.base
    leaves, treedef = jax.tree.flatten(Members(loglik, base, data, codes))
    shared = tuple(
        jax.tree.leaves(
            Members(
                flagged(same, loglik),
                inputs.base.ndim == 1,  # type: ignore[arg-type]
                flags[0],
                flags[2],
            )
        )
    )
    return Flat(leaves, Form(treedef, shared), chunk.data_id)


@dataclass(frozen=True)
class Programs:
    """The compiled passes of one problem on some devices."""

    problem: Problem
    devices: tuple[Any, ...]
    at_hand: dict[Any, Callable[..., Any]] = field(
        default_factory=dict, compare=False
    )  # looked up once a run

    @property
    def mesh(self) -> Any:
        return (
            jax.sharding.Mesh(np.array(self.devices), ("member",))
            if len(self.devices) > 1
            else None
        )

    def get(self, name: str, form: Form) -> Callable[..., Any]:
        """A pass over the data of a chunk, compiled."""
        if (name, form) not in self.at_hand:
            self.at_hand[name, form] = self._compiled(name, form)
        return self.at_hand[name, form]

    def _compiled(self, name: str, form: Form) -> Callable[..., Any]:
        """The same, kept on the user's function, which it must not keep alive."""
        bare = self.problem.bare if name == "further" else self.problem.neutral
        mesh = self.mesh
        skeleton = jax.tree.unflatten(form.treedef, list(range(form.treedef.num_leaves)))
        loglik = skeleton.loglik
        others = skeleton._replace(loglik=None)

        def make(portable: Any) -> Callable[..., Any]:
            own_form = Form(jax.tree.structure(others._replace(loglik=portable)), form.shared)

            def run(own: list[Array], common: list[Array], wanted: Array, args: Any) -> Any:
                return getattr(passes, name)(bare, own_form, own, common, wanted, args)

            if mesh is None:
                return run
            axis = jax.sharding.PartitionSpec("member")
            whole = jax.sharding.PartitionSpec()
            return jax.shard_map(
                run, mesh=mesh, in_specs=(axis, whole, axis, axis), out_specs=axis, check_vma=False
            )

        where = tuple(device.id for device in self.devices)
        key = ("batch", name, bare, form.shared, jax.tree.structure(others), where)
        return compiled(loglik, key, make)

    def named(self, fit: Fit) -> Fit:
        """The record with what the programs did not need to know."""
        problem = self.problem
        return replace(
            fit,
            vcov_kind="none" if problem.kind is None else str(problem.label),
            mode=problem.mode,
            weighting=problem.weighting,
        )

    def laid(
        self, form: Form, own: list[np.ndarray], common: list[jax.Array], blocks: int
    ) -> list[jax.Array]:
        """The leaves (blocks, lanes, ...) on the devices, designs by columns; blocks beyond
        their own are zeros, which nobody asks for.
        """
        turned = form.designs(single(own, 2), common)
        leaves = [np.swapaxes(leaf, -1, -2) if i in turned else leaf for i, leaf in enumerate(own)]
        if self.mesh is None:
            return [to_device(leaf, blocks) for leaf in leaves]
        leaves = [
            np.pad(leaf, [(0, blocks - len(leaf))] + [(0, 0)] * (leaf.ndim - 1)) for leaf in leaves
        ]
        return jax.device_put(
            leaves, jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec("member"))
        )

    def load(self, inputs: Inputs, piece: Piece) -> Chunk:
        """The data of a piece, on the device and laid out."""
        shape = (piece.blocks, piece.schedule.lanes)
        seats = piece.schedule.seats
        flat = flat_members(inputs, piece.seated(piece.blocks * piece.schedule.lanes), piece.length)
        own = [
            np.asarray(leaf).reshape(*shape, *np.shape(leaf)[1:])
            for leaf, same in zip(flat.leaves, flat.form.shared, strict=True)
            if not same
        ]
        common = [
            jnp.asarray(leaf)
            for leaf, same in zip(flat.leaves, flat.form.shared, strict=True)
            if same
        ]
        wanted = np.arange(seats) < len(piece.index)
        everyone = piece.seated(seats)
        base = np.broadcast_to(
            inputs.base[everyone] if inputs.base.ndim == 2 else inputs.base,
            (seats, self.problem.layout.p),
        )
        return Chunk(
            self,
            flat.form,
            self.laid(flat.form, own, common, piece.schedule.blocks),
            common,
            base,
            np.pad(flat.data_id, ((0, max(seats - len(flat.data_id), 0)), (0, 0)))[:seats],
            wanted,
        )


class Begun(NamedTuple):
    """What came before the climbs of a chunk."""

    steps: Array  # (b,)
    elsewhere: (
        np.ndarray
    )  # (b,) whether a climb began at a point in single precision, not at the start asked for


@dataclass(frozen=True)
class Chunk:
    """A piece on the device: what its members can be asked."""

    programs: Programs
    form: Form
    own: list[jax.Array]
    common: list[jax.Array]
    base: np.ndarray  # (seats, p)
    data_id: np.ndarray
    wanted: np.ndarray  # (seats,) whether a member of its own sits there

    def ask(self, name: str, wanted: np.ndarray, *args: Any) -> Any:
        """One pass over the data, for the seats that want it."""
        program = self.programs.get(name, self.form)
        seats = len(wanted)
        members = self.own[0].shape[0] * self.own[0].shape[1]
        if seats >= members:
            return program(self.own, self.common, wanted, args)

        def wider(leaf: Any) -> Any:
            return np.pad(np.asarray(leaf), [(0, members - seats)] + [(0, 0)] * (np.ndim(leaf) - 1))

        return _first(
            program(self.own, self.common, wider(wanted), jax.tree.map(wider, args)), seats
        )

    def evaluate(self, z: Array, wanted: np.ndarray) -> Point:
        return self.ask("evaluate", wanted, z)

    def climb(self, rounds: int, enough: Enough) -> tuple[State, Begun]:
        """The states when it is ``enough``, and what came before them: at most ``rounds`` steps
        in single precision, or a first-order method.
        """
        seats = len(self.wanted)
        z = machine(_to_free, (self.programs.problem.chart,), self.programs.mesh)(self.base)
        begun = Begun(np.zeros(seats, np.int32), np.zeros(seats, bool))
        if isinstance(self.programs.problem.solver, LBFGS | Optax):
            z, steps = self.ask("approached", self.wanted, z)
            begun = begun._replace(steps=steps)
        elif rounds and (found := self._sprint(z, rounds)) is not None:
            near, steps, sound = found
            z = jnp.where(sound[:, None], near.astype(z.dtype), z)
            begun = Begun(steps, np.asarray(sound))
        return solver.climb(
            self.evaluate,
            z,
            self.wanted,
            self.programs.problem.max_steps,
            enough,
            self.programs.mesh,
        ), begun

    def climb_on(self, state: State, enough: Enough) -> State:
        """The states when it is ``enough``, from states on the way."""
        return solver.climb_on(
            self.evaluate,
            state,
            self.wanted,
            self.programs.problem.max_steps,
            enough,
            self.programs.mesh,
        )

    def _sprint(self, z: Array, rounds: int) -> Any:
        """Steps in single precision; None where the likelihood cannot be written in it: a
        constant of its own may insist on double.
        """
        rough = replace(self, own=[to_float32(leaf) for leaf in self.own])
        try:
            return rough.ask(
                "sprinted", self.wanted, z, np.full(len(self.wanted), rounds, np.int32)
            )
        except (TypeError, ValueError):
            return None

    def afresh(self, like: State) -> State:
        """The states before the first step from the start that was asked for."""
        z = machine(_to_free, (self.programs.problem.chart,), self.programs.mesh)(self.base)
        return solver.begun(z, like.point, self.programs.mesh)

    def conclude(self, state: State, limit: Any, steps: Array) -> Fit:
        """The records; ``limit`` None in the first round, where nobody takes an excursion."""
        programs = self.programs
        wanted = self.wanted
        neutral = programs.problem.neutral
        mesh = programs.mesh
        n = self.ask("counted", self.wanted)
        if needs_pass(programs.problem.kind):
            found = solver.judged(neutral, self.base, state, limit, mesh)
            found = found._replace(
                extra=self.ask("further", wanted, found.verdict.point, found.verdict)
            )
            fit = solver.finished(neutral, self.base, found, n, self.data_id, steps, mesh)
        else:
            fit = solver.concluded(neutral, self.base, state, limit, n, self.data_id, steps, mesh)
        for status, asked in ((Status.NONFINITE, "first_rough"), (Status.UNBOUNDED, "first_bad")):
            failed = np.asarray(fit.status) == int(status)
            if limit is not None and np.any(failed & wanted):
                row = np.where(
                    failed,
                    np.asarray(self.ask(asked, failed & wanted, state.point.z)),
                    np.asarray(fit.witness.row),
                )
                fit = replace(
                    fit, witness=replace(fit.witness, row=row.astype(fit.witness.row.dtype))
                )
        return programs.named(fit)

    def last(self, state: State, steps: Array) -> Fit:
        """Climb on to the end, explore, judge."""
        programs = self.programs
        state = self._ended(state)
        limit = solver.explore(
            self.evaluate, state, self.wanted, programs.problem.chart.bent, programs.mesh
        )
        return self.conclude(state, limit, steps)

    def _ended(self, state: State) -> State:
        """The states at the end of the climbs; the last of many climb in a chunk of their own."""
        if self.programs.mesh is not None or len(self.wanted) < 8 * SLOTS_FOR_STRAGGLERS:
            return self.climb_on(state, to_the_end)
        state = self.climb_on(state, few_left)
        (seats,) = np.nonzero(
            solver.running_of(state, self.wanted, self.programs.problem.max_steps)
        )
        if not len(seats):
            return state
        few = np.resize(seats, SLOTS_FOR_STRAGGLERS)
        late = self._taken(few, np.arange(SLOTS_FOR_STRAGGLERS) < len(seats)).climb_on(
            jax.tree.map(lambda leaf: np.asarray(leaf)[few], state), to_the_end
        )
        state = jax.tree.map(np.array, state)
        for whole, part in zip(jax.tree.leaves(state), jax.tree.leaves(late), strict=True):
            whole[seats] = np.asarray(part)[: len(seats)]
        return state

    def _taken(self, seats: np.ndarray, wanted: np.ndarray) -> Chunk:
        """The members in these seats as a chunk of its own, with room for as many blocks as
        this one.
        """
        blocks, lanes = self.own[0].shape[:2]
        whole = np.resize(seats, -(-len(seats) // lanes) * lanes)

        def taken(leaf: Any) -> Any:
            return (
                np.asarray(leaf)
                .reshape(-1, *leaf.shape[2:])[whole]
                .reshape(-1, lanes, *leaf.shape[2:])
            )

        return replace(
            self,
            own=[to_device(taken(leaf), blocks) for leaf in self.own],
            base=self.base[seats],
            data_id=self.data_id[seats],
            wanted=wanted,
        )


def few_left(counts: Counts) -> bool:
    """Whether so few climb, and end so slowly, that they had better do it in a chunk of their
    own.
    """
    return counts.now <= SLOTS_FOR_STRAGGLERS and 2 * counts.now > counts.before


@partial(jax.jit, static_argnums=1)
def _first(tree: Any, seats: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[:seats], tree)


def _to_free(chart: Any, base: Array) -> Array:
    return chart.to_free(base)
