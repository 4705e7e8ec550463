"""``fit_batch``: one likelihood on thousands to millions of data sets; the same record as ``fit`` with a leading axis.

Members are cut into chunks (``schedule``), padded where they are ragged (``members``). A chunk climbs in lockstep: a program of the user's
likelihood evaluates the members that still climb (``block``), one that knows no likelihood moves them on (``lockstep``). The first round
ends at a cap of steps; the members that it leaves open are gathered from all chunks for a last one, in chunks of the same shape. So the
likelihood is compiled once for each length of data, of which there are at most eight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle.fitting import block as passes
from jaxmle.fitting import lockstep
from jaxmle.fitting.block import Form, Members, lay, over_blocks
from jaxmle.fitting.checkpoint import Checkpoint, digest, model_digest
from jaxmle.fitting.engine import Problem, needs_pass, pose
from jaxmle.fitting.fit import MAX_STEPS, check_options, host_dtype
from jaxmle.fitting.inputs import Inputs, gathered
from jaxmle.fitting.lockstep import is_open, machine
from jaxmle.fitting.members import Ragged, buckets
from jaxmle.fitting.objective import User
from jaxmle.fitting.progress import Progress
from jaxmle.fitting.record import Fit
from jaxmle.fitting.schedule import Schedule, cores, cut, free_bytes, resident_bytes
from jaxmle.likelihood.combinators import Weights, weight
from jaxmle.likelihood.contract import need_terms, terms_of
from jaxmle.likelihood.host import compiled, precision, to_numpy, tracing
from jaxmle.solvers.loop import Point, start
from jaxmle.solvers.methods import LBFGS, Optax
from jaxmle.solvers.status import Status

Array = Any
Tree = Any

PILOT = 12  # steps of the first chunk, whose median sets the cap of the others
MARGIN = 3  # steps above the median
SMALL = 2**23  # padded bytes up to which open members of all lengths are gathered into one last round


def fit_batch(
    loglik: Any,
    params0: Tree = None,
    datasets: Tree = None,
    *,
    constraints: Tree = None,
    solver: Any = None,
    vcov: str | None = "auto",
    clusters: Any = None,
    weights: Any = None,
    dtype: Any = None,
    max_steps: int = MAX_STEPS,
    block_rows: int | None = None,
    in_axes: Any = 0,
    params_axis: int | None | str = "auto",
    block: int | None = None,
    devices: Any = None,
    progress: bool | None = None,
    checkpoint: Any = None,
) -> Fit:
    """Maximise one log-likelihood on many data sets.

    Args:
        loglik, constraints, solver, vcov, dtype, max_steps, block_rows: as in ``fit``.
        params0: start values for all members, or with a leading axis one for each, or None for a model with a method ``start(data)``.
        datasets: a tree of arrays with a leading axis over members, (b, n, ...); or a list of data sets, whose lengths may differ.
        clusters: labels (n,) for all members, (b, n), or a list with one array a member.
        weights: ``frequency(w)`` or ``sampling(w)`` with w (n,), (b, n), or a list with one array a member.
        in_axes: the axis of each leaf of ``datasets`` that runs over members, None for a leaf that all share, as in ``jax.vmap``. A design
            that all share turns the batch into matrix products.
        params_axis: 0 or None says whether ``params0`` has a leading axis over members; ``"auto"`` finds out where only one reading fits.
        block: members in a block, which share one loop; None to choose by size.
        devices: the devices to spread blocks over; None for all of them.
        progress: None for a line after two seconds, True for one at once, False for silence.
        checkpoint: a folder where finished members are kept; the same call goes on from there after an interruption.

    Returns:
        A ``Fit`` whose leaves have a leading axis, in the order of the members. A member that fails has its status; no other is touched.

    Raises:
        ValueError, TypeError: for what is visible in shapes and types. NaN in a member's data is its status, NONFINITE.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> samples = [np.array([1.0, 3.0]), np.array([2.0, 4.0, 6.0])]
    >>> fits = jm.fit_batch(exponential, {"rate": 1.0}, samples, constraints={"rate": jm.positive})
    >>> fits.params["rate"].round(6).tolist(), fits.n.tolist()
    ([0.5, 0.25], [2.0, 3.0])
    """
    if tracing():
        raise TypeError("fit_batch schedules its work from the host and cannot run inside jit or vmap; there, jax.vmap(lambda data: jaxmle.fit(loglik, params0, data)) is the batch")
    check_options(vcov, clusters, max_steps, block_rows)
    if block is not None and (isinstance(block, bool) or not isinstance(block, int) or block < 1):
        raise ValueError(f"block must be a positive whole number of members; got {block!r}")
    real = host_dtype(dtype)
    with precision(real), np.errstate(all="ignore"):
        inputs = gathered(loglik, params0, datasets, constraints, weights, clusters, in_axes, params_axis, real)
        problem = pose(inputs.loglik, inputs.layout, solver, vcov, clusters, max_steps, block_rows)
        _check_first(problem, inputs)
        return _Run(problem, inputs, block, devices, progress, checkpoint).fits()


def _check_first(problem: Problem, inputs: Inputs) -> None:
    """What shapes say is wrong of one member is wrong of all: said before anything is compiled."""
    largest = inputs.largest
    member = _member(inputs, np.array([largest]), tuple(int(n) for n in inputs.source.sizes[largest]))
    one = jax.tree.unflatten(member.form.treedef, [leaf if same else leaf[0] for leaf, same in zip(member.leaves, member.form.shared, strict=True)])
    shape = jax.eval_shape(lambda m: terms_of(m.loglik, inputs.layout.unravel(m.base), m.data), one).shape
    wanted = problem.kind not in ("observed", "expected", None) and problem.mode == "ML"
    if wanted and not shape:
        need_terms(jnp.zeros(()), f"vcov={problem.kind!r}")


@dataclass(frozen=True)
class _Piece:
    """One piece of work: members of one length, in one call of a compiled round."""

    number: int
    name: str
    length: tuple[int, ...]
    index: np.ndarray
    schedule: Schedule

    @property
    def seats(self) -> np.ndarray:
        """The member in each seat; the seats left over hold the last member again."""
        return np.pad(self.index, (0, self.schedule.members - len(self.index)), mode="edge")


@dataclass(frozen=True)
class _Leaves:
    """Flat ``Members``."""

    leaves: list[Array]
    form: Form
    data_id: np.ndarray


def _member(inputs: Inputs, index: np.ndarray, length: tuple[int, ...]) -> _Leaves:
    """The members ``index`` as flat leaves, with what differs between them on a leading axis."""
    chunk = inputs.source.take(index, length)
    data, w, codes = chunk.rows
    flags = jax.tree.unflatten(jax.tree.structure(inputs.source.rows), list(inputs.source.shared))
    loglik, same = inputs.loglik, jax.tree.map(lambda _: True, inputs.loglik)
    if inputs.weight_kind is not None:
        loglik, same = weight(inputs.bare, Weights(w, inputs.weight_kind)), weight(jax.tree.map(lambda _: True, inputs.bare), Weights(flags[1], inputs.weight_kind))
    if chunk.padding is not None:
        loglik, same = weight(loglik, Weights(chunk.padding.astype(inputs.dtype), "frequency")), weight(same, Weights(False, "frequency"))
    base = inputs.base[index] if inputs.base.ndim == 2 else inputs.base
    leaves, treedef = jax.tree.flatten(Members(loglik, base, data, codes))
    shared = tuple(jax.tree.leaves(Members(same, inputs.base.ndim == 1, flags[0], flags[2])))
    return _Leaves(leaves, Form(treedef, shared), chunk.data_id)


@dataclass(frozen=True)
class _Chunk:
    """A piece on the device: what its members can be asked."""

    run: _Run
    form: Form
    own: list[Array]
    common: list[Array]
    base: np.ndarray  # (seats, p)
    data_id: np.ndarray
    wanted: np.ndarray  # (seats,) whether a member of its own sits there

    def ask(self, name: str, wanted: np.ndarray, *args: Any) -> Any:
        return self.run.program(name, self.form)(self.own, self.common, wanted, args)

    def evaluate(self, z: Array, wanted: np.ndarray) -> Point:
        return self.ask("evaluate", wanted, z)

    def climb(self, cap: int) -> tuple[Any, Array]:
        """The states after at most ``cap`` steps, and the steps of a first-order method before them."""
        z, extra = machine(_to_free, (self.run.problem.chart,), self.run.mesh)(self.base), np.zeros(len(self.wanted), np.int32)
        if isinstance(self.run.problem.solver, LBFGS | Optax):
            z, extra = self.ask("approached", self.wanted, z)
        return lockstep.climb(self.evaluate, z, self.wanted, cap, self.run.mesh), extra

    def conclude(self, state: Any, limit: Any, steps: Array) -> Fit:
        run = self.run
        neutral = run.problem.neutral
        found = lockstep.judged(neutral, self.base, state, limit, run.mesh)
        if needs_pass(run.problem.kind):
            found = found._replace(extra=self.ask("further", self.wanted, found.verdict.point, found.verdict))
        failed = np.asarray(found.verdict.status) == int(Status.NONFINITE)
        if limit is not None and np.any(failed & self.wanted):
            row = self.ask("first_bad", failed & self.wanted, found.verdict.point.aux.x)
            found = found._replace(extra=found.extra._replace(row=np.where(failed, np.asarray(row), np.asarray(found.extra.row))))
        fit = lockstep.finished(neutral, self.base, found, self.ask("counted", self.wanted), self.data_id, steps, run.mesh)
        return run.named(fit)

    def last(self, state: Any) -> Fit:
        run = self.run
        state = lockstep.climb_on(self.evaluate, state, self.wanted, run.problem.max_steps, run.mesh)
        limit = lockstep.explore(self.evaluate, state, self.wanted, run.mesh)
        return self.conclude(state, limit, np.zeros(len(self.wanted), np.int32))


def _to_free(chart: Any, base: Array) -> Array:
    return chart.to_free(base)


class _Run:
    """The work of one batch: pieces, where their results go, what is still open."""

    def __init__(self, problem: Problem, inputs: Inputs, block: int | None, devices: Any, progress: bool | None, checkpoint: Any) -> None:
        self.problem, self.inputs, self.block = problem, inputs, block
        self.devices = _devices(devices)
        self.mesh = jax.sharding.Mesh(np.array(self.devices), ("member",)) if len(self.devices) > 1 else None
        self.workers = cores() if len(self.devices) == 1 and self.devices[0].platform == "cpu" else 1
        self.free = free_bytes() if self.devices[0].platform == "cpu" else _device_bytes(self.devices)
        self.checkpoint = Checkpoint(checkpoint, self._identity() if checkpoint is not None else {})
        self.leaves: list[np.ndarray] = []
        self.treedef: Any = None
        self.open: list[tuple[np.ndarray, list[np.ndarray]]] = []
        self.pieces = self._first_pieces()
        self.progress = Progress(inputs.source.members, progress, self._about())

    # ------------------------------------------------------------ the plan

    def _first_pieces(self) -> list[_Piece]:
        stored = self.checkpoint.schedule.get("buckets")
        found = buckets(self.inputs.source.sizes, getattr(self.inputs.source, "padded", True))
        pieces: list[_Piece] = []
        told = []
        for place, (length, members) in enumerate(found):
            schedule = Schedule(**stored[place]) if stored else self._cut(length, len(members))
            told.append({"lanes": schedule.lanes, "blocks": schedule.blocks, "chunks": schedule.chunks})
            for start in range(0, len(members), schedule.members):
                pieces.append(_Piece(len(pieces), "first", length, members[start : start + schedule.members], schedule))
        if not stored:
            self.checkpoint.remember(buckets=told)
        return pieces

    def _cut(self, length: tuple[int, ...], members: int) -> Schedule:
        data = self.inputs.source.row_bytes() * sum(length)
        k, p, size = self.problem.chart.k, self.problem.layout.p, self.inputs.dtype.itemsize
        live = data + size * sum(length) * (p + 6)
        return cut(members, data, live, self.record_bytes(k, p, size), len(self.devices), self.workers, self.free, self.block, self.devices[0].platform != "cpu")

    @staticmethod
    def record_bytes(k: int, p: int, size: int) -> float:
        """Bytes of one member's state and record."""
        return size * (4.0 * k * k + 4.0 * p * p + 10 * k + 12 * p + p * k + 40)

    def predicted_bytes(self) -> float:
        """Peak memory of the process: what it holds now, compiled programs, the record of all members and the chunks in flight."""
        k, p, size = self.problem.chart.k, self.problem.layout.p, self.inputs.dtype.itemsize
        record = size * (4.0 * p * p + 8 * p + 12)
        chunk = max((piece.schedule.members * (2 * self.inputs.source.row_bytes() * sum(piece.length) + 2 * self.record_bytes(k, p, size)) for piece in self.pieces), default=0.0)
        return resident_bytes() + 1.5e8 + self.inputs.source.members * record + self.workers * chunk

    def _about(self) -> str:
        shapes = {piece.length: piece.schedule for piece in self.pieces}
        sizes = ", ".join(f"{'+'.join(map(str, n))} rows in blocks of {s.lanes}" for n, s in list(shapes.items())[:4])
        where = f"{len(self.devices)} devices" if len(self.devices) > 1 else f"{self.workers} threads"
        return f"{self.inputs.source.members:,} members, {len(self.pieces)} chunks ({sizes}{', …' if len(shapes) > 4 else ''}), {where}, about {self.predicted_bytes() / 2**30:.1f} GiB at the peak"

    def _identity(self) -> dict[str, Any]:
        inputs, problem = self.inputs, self.problem
        source = inputs.source
        length = tuple(int(n) for n in source.sizes[0])
        one = _member(inputs, np.zeros(1, int), length)
        leaves = [np.asarray(leaf) if same else np.asarray(leaf[0]) for leaf, same in zip(one.leaves, one.form.shared, strict=True)]
        call = lambda leaves: (lambda m: terms_of(m.loglik, inputs.layout.unravel(m.base), m.data))(jax.tree.unflatten(one.form.treedef, leaves))  # noqa: E731
        ids = [source.take(index, length_).data_id.tobytes() for length_, members in buckets(source.sizes, getattr(source, "padded", True)) for index in np.array_split(members, max(1, len(members) // 4096))]
        extra = [np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(source.rows[1:])]
        fixed = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(inputs.loglik)]
        options = (inputs.layout.names, inputs.layout.bounds, repr(problem.solver), problem.kind, problem.max_steps, problem.block_rows, inputs.weight_kind)
        return {
            "model": model_digest(call, leaves), "data": digest(*ids, *extra), "start": digest(np.ascontiguousarray(inputs.base).tobytes(), *fixed),
            "options": digest(repr(options)), "dtype": str(inputs.dtype), "number of members": source.members,
        }  # fmt: skip

    # ------------------------------------------------------------ the programs

    def program(self, name: str, form: Form) -> Callable[..., Any]:
        """A pass over the data of a chunk, compiled; kept on the user's function, which it must not keep alive."""
        bare, mesh = (self.problem.bare if name == "further" else self.problem.neutral), self.mesh
        skeleton = jax.tree.unflatten(form.treedef, list(range(form.treedef.num_leaves)))
        loglik, others = skeleton.loglik, skeleton._replace(loglik=None)

        def make(portable: Any) -> Callable[..., Any]:
            own_form = Form(jax.tree.structure(others._replace(loglik=portable)), form.shared)

            def run(own: list[Array], common: list[Array], wanted: Array, args: Any) -> Any:
                if name == "lay":
                    return lay(own_form, own, common)
                blocks, lanes = own[0].shape[:2]
                fold = lambda leaf: leaf.reshape(blocks, lanes, *leaf.shape[1:])  # noqa: E731
                one = partial(getattr(passes, name), bare)
                out = over_blocks(one, own_form, own, common, fold(wanted), jax.tree.map(fold, args))
                return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), out)

            if mesh is None:
                return run
            axis, whole = jax.sharding.PartitionSpec("member"), jax.sharding.PartitionSpec()
            return jax.shard_map(run, mesh=mesh, in_specs=(axis, whole, axis, axis), out_specs=axis, check_vma=False)

        where = tuple(device.id for device in self.devices)
        key = ("batch", name, bare, form.shared, jax.tree.structure(others), where)
        return compiled(loglik, key, make)

    def named(self, fit: Fit) -> Fit:
        """The record with what the programs did not need to know."""
        problem = self.problem
        return replace(fit, vcov_kind="none" if problem.kind is None else str(problem.label), mode=problem.mode, weighting=problem.weighting)

    def load(self, piece: _Piece) -> _Chunk:
        """The data of a piece, on the device and laid out."""
        flat = _member(self.inputs, piece.seats, piece.length)
        shape = (piece.schedule.blocks, piece.schedule.lanes)
        own = [np.asarray(leaf).reshape(*shape, *np.shape(leaf)[1:]) for leaf, same in zip(flat.leaves, flat.form.shared, strict=True) if not same]
        common = [jnp.asarray(leaf) for leaf, same in zip(flat.leaves, flat.form.shared, strict=True) if same]
        wanted = np.arange(piece.schedule.members) < len(piece.index)
        base = np.broadcast_to(self.inputs.base[piece.seats] if self.inputs.base.ndim == 2 else self.inputs.base, (piece.schedule.members, self.problem.layout.p))
        return _Chunk(self, flat.form, self.program("lay", flat.form)(own, common, wanted, ()), common, base, flat.data_id, wanted)

    # ------------------------------------------------------------ the rounds

    def fits(self) -> Fit:
        """Run everything."""
        try:
            self._round(self.pieces, self._run_first)
            self._round(self._last_pieces(), self._run_last)
        except KeyboardInterrupt:
            kept = f" Finished members are kept in {self.checkpoint.folder}: the same call goes on from there." if self.checkpoint.folder else " Give checkpoint=folder to keep finished members."
            raise KeyboardInterrupt(f"fit_batch was stopped after {self.progress.done:,} of {self.progress.total:,} fits.{kept}") from None
        finally:
            self.progress.close()
        return jax.tree.unflatten(self.treedef, self.leaves)

    def _round(self, pieces: list[_Piece], run: Callable[[_Piece], list[np.ndarray]]) -> None:
        """Run pieces: the first alone, since it compiles and sets the cap, the rest by threads; results are taken in as they come."""
        waiting = list(self._resumed(pieces))
        opened: dict[int, tuple[np.ndarray, list[np.ndarray]]] = {}
        done = {piece.number for piece in pieces} - {piece.number for piece in waiting}
        for piece in pieces:
            if piece.number in done:
                self._accept(piece, self._loaded[piece.number], opened)
        if waiting:
            lone, *rest = waiting
            self._finish(lone, run(lone), opened)
            with ThreadPoolExecutor(max_workers=self.workers) as pool:
                self._drain(pool, rest, run, opened)
        self.open = [opened[number] for number in sorted(opened)]

    def _drain(self, pool: ThreadPoolExecutor, rest: list[_Piece], run: Callable[[_Piece], list[np.ndarray]], opened: dict[int, Any]) -> None:
        queue = iter(rest)
        running: dict[Future, _Piece] = {}
        try:
            while True:
                while len(running) < self.workers and (piece := next(queue, None)) is not None:
                    running[pool.submit(run, piece)] = piece
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    self._finish(running.pop(future), future.result(), opened)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise

    def _resumed(self, pieces: list[_Piece]) -> Iterator[_Piece]:
        self._loaded: dict[int, list[np.ndarray]] = {}
        for piece in pieces:
            arrays = self.checkpoint.load(f"{piece.name}-{piece.number:06d}") if self.treedef is not None or self._prepare() else None
            if arrays is None:
                yield piece
            else:
                self._loaded[piece.number] = arrays

    def _prepare(self) -> bool:
        """Shapes of the record and of a member's state, by abstract evaluation only: needed to read a checkpoint."""
        if self.checkpoint.folder is None or not self.checkpoint.schedule.get("cap"):
            return False
        k, p = self.problem.chart.k, self.problem.layout.p
        like = lambda *shape: jax.ShapeDtypeStruct(shape, self.inputs.dtype)  # noqa: E731
        curvature = None if self.problem.solver.curvature == "observed" else like(k, k)
        point = Point(like(k), like(), like(), like(k), like(k, k), curvature, User(like(p), like(p, k), like(p), like(p, p)))
        state = jax.eval_shape(start, like(k), point)
        neutral = self.problem.neutral

        def record(base: Array, state: Any, n: Array, data_id: Array) -> Any:
            found = lockstep._judged(neutral, base, state, lockstep.unexplored(state))
            return lockstep._finished(neutral, base, found.verdict, found.reached, found.extra, n, data_id, jnp.zeros((), jnp.int32))

        self._shapes(self.named(jax.eval_shape(record, like(p), state, like(), jax.ShapeDtypeStruct((2,), np.uint32))), state, 0)
        return True

    def _shapes(self, fit: Any, state: Any, lead: int) -> None:
        """Room for the record of all members; the first ``lead`` axes of each leaf run over members."""
        self.treedef, self.state_tree = jax.tree.structure(fit), jax.tree.structure(state)
        self.leaves = [np.zeros((self.inputs.source.members, *leaf.shape[lead:]), leaf.dtype) for leaf in jax.tree.leaves(fit)]

    def _run_first(self, piece: _Piece) -> list[np.ndarray]:
        """The arrays of a first round: fits, then the seats that stay open and their states."""
        with self._context():
            chunk = self.load(piece)
            steps = min(self.checkpoint.schedule.get("cap", PILOT), self.problem.max_steps)
            state, extra = chunk.climb(steps)
            left = np.asarray(machine(is_open, (), self.mesh)(state, np.full(len(chunk.wanted), self.problem.max_steps, np.int32)))
            fit = to_numpy(chunk.conclude(state, None, extra))
            count = len(piece.index)
            if self.treedef is None:
                self._shapes(fit, state, 1)
            if "cap" not in self.checkpoint.schedule:
                ended = fit.steps[:count][~left[:count]]
                self.checkpoint.remember(cap=(int(np.median(ended)) if len(ended) else PILOT) + 1 + MARGIN)
            seats = np.flatnonzero(left[:count])
            return [*(leaf[:count] for leaf in jax.tree.leaves(fit)), seats, *(np.asarray(leaf)[seats] for leaf in jax.tree.leaves(state))]

    def _run_last(self, piece: _Piece) -> list[np.ndarray]:
        """The arrays of a last round: fits; nothing stays open."""
        index, states = self._gathered
        place = np.searchsorted(index, piece.seats)
        with self._context():
            chunk = self.load(piece)
            state = jax.tree.unflatten(self.state_tree, [leaf[place] for leaf in states])
            fit = to_numpy(chunk.last(state))
            return [*(leaf[: len(piece.index)] for leaf in jax.tree.leaves(fit)), np.zeros(0, int)]

    @contextmanager
    def _context(self) -> Iterator[None]:
        """Precision and device belong to a thread."""
        with precision(self.inputs.dtype), np.errstate(all="ignore"), jax.default_device(self.devices[0] if self.mesh is None else None):
            yield

    def _finish(self, piece: _Piece, arrays: list[np.ndarray], opened: dict[int, Any]) -> None:
        self.checkpoint.save(f"{piece.name}-{piece.number:06d}", arrays)
        self._accept(piece, arrays, opened)

    def _accept(self, piece: _Piece, arrays: list[np.ndarray], opened: dict[int, Any]) -> None:
        """Put finished members in their places; note which stay open."""
        fits, (seats, *states) = arrays[: len(self.leaves)], arrays[len(self.leaves) :]
        for whole, part in zip(self.leaves, fits, strict=True):
            whole[piece.index] = part
        if len(seats):
            opened[piece.number] = (piece.index[seats], states)
        self.progress.add(len(piece.index) - len(seats))

    def _last_pieces(self) -> list[_Piece]:
        """The members that the first round left open, in blocks of a power of two."""
        if not self.open:
            return []
        index = np.concatenate([members for members, _ in self.open])
        states = [np.concatenate(leaves) for leaves in zip(*(states for _, states in self.open), strict=True)]
        order = np.argsort(index, kind="stable")
        self._gathered = index[order], [leaf[order] for leaf in states]
        index = index[order]
        first = {int(member): piece for piece in self.pieces for member in piece.index}
        longest = max((first[int(m)].length for m in index), key=sum)
        together = len(index) * sum(longest) * self.inputs.source.row_bytes() <= SMALL or not getattr(self.inputs.source, "padded", True)
        together = together and isinstance(self.inputs.source, Ragged) and self.inputs.source.padded
        groups: dict[tuple[int, ...], list[int]] = {}
        for member in index:
            groups.setdefault(longest if together else first[int(member)].length, []).append(int(member))
        pieces: list[_Piece] = []
        for length, members in sorted(groups.items()):
            schedule = next(piece.schedule for piece in self.pieces if piece.length == length)  # the programs are compiled already
            for start in range(0, len(members), schedule.members):
                pieces.append(_Piece(len(pieces), "last", length, np.array(members[start : start + schedule.members]), schedule))
        return pieces


def _devices(devices: Any) -> list[Any]:
    found = list(jax.devices() if devices is None else devices if isinstance(devices, list | tuple) else [devices])
    if not found or not all(hasattr(device, "platform") for device in found):
        raise TypeError(f"devices must be jax devices, such as jax.devices()[:2]; got {devices!r}")
    return found


def _device_bytes(devices: list[Any]) -> float:
    stats = [device.memory_stats() or {} for device in devices]
    return min((float(s["bytes_limit"]) - float(s.get("bytes_in_use", 0)) for s in stats if "bytes_limit" in s), default=2**32) * len(devices)


