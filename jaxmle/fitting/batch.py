"""``fit_batch``: one likelihood on thousands to millions of data sets; the same record as ``fit`` with a leading axis.

Members are cut into chunks (``schedule``), padded where they are ragged (``members``), and run through two compiled rounds (``block``):
the first to a cap of steps, the last for the members that the first left open, gathered from all chunks. At most eight lengths, each
with a first round, and one last round or as many: that bounds the number of compilations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle.fitting.block import Members, blocks_of
from jaxmle.fitting.checkpoint import Checkpoint, digest, model_digest
from jaxmle.fitting.engine import Problem, pose
from jaxmle.fitting.fit import MAX_STEPS, check_options, host_dtype
from jaxmle.fitting.inputs import Inputs, gathered
from jaxmle.fitting.members import Ragged, buckets
from jaxmle.fitting.progress import Progress
from jaxmle.fitting.record import Fit
from jaxmle.fitting.schedule import Schedule, cores, cut, free_bytes, resident_bytes
from jaxmle.likelihood.combinators import Weights, weight
from jaxmle.likelihood.contract import need_terms, terms_of
from jaxmle.likelihood.host import compiled, precision, tracing

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
    one = jax.tree.unflatten(member.treedef, [leaf if same else leaf[0] for leaf, same in zip(member.leaves, member.shared, strict=True)])
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
    shared: tuple[bool, ...]
    treedef: Any


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
    leaves, treedef = jax.tree.flatten(Members(loglik, base, data, codes, chunk.data_id))
    shared = tuple(jax.tree.leaves(Members(same, inputs.base.ndim == 1, flags[0], flags[2], False)))
    return _Leaves(leaves, shared, treedef)


class _Run:
    """The work of one batch: pieces, where their results go, what is still open."""

    def __init__(self, problem: Problem, inputs: Inputs, block: int | None, devices: Any, progress: bool | None, checkpoint: Any) -> None:
        self.problem, self.inputs, self.block = problem, inputs, block
        self.devices = _devices(devices)
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
        leaves = [np.asarray(leaf) if same else np.asarray(leaf[0]) for leaf, same in zip(one.leaves, one.shared, strict=True)]
        call = lambda leaves: (lambda m: terms_of(m.loglik, inputs.layout.unravel(m.base), m.data))(jax.tree.unflatten(one.treedef, leaves))  # noqa: E731
        ids = [source.take(index, length_).data_id.tobytes() for length_, members in buckets(source.sizes, getattr(source, "padded", True)) for index in np.array_split(members, max(1, len(members) // 4096))]
        extra = [np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(source.rows[1:])]
        fixed = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(inputs.loglik)]
        options = (inputs.layout.names, inputs.layout.bounds, repr(problem.solver), problem.kind, problem.max_steps, problem.block_rows, inputs.weight_kind)
        return {
            "model": model_digest(call, leaves), "data": digest(*ids, *extra), "start": digest(np.ascontiguousarray(inputs.base).tobytes(), *fixed),
            "options": digest(repr(options)), "dtype": str(inputs.dtype), "number of members": source.members,
        }  # fmt: skip

    # ------------------------------------------------------------ the programs

    def _program(self, treedef: Any, shared: tuple[bool, ...], first: bool) -> Callable[..., Any]:
        """The compiled round, kept on the user's function; it must not keep that function alive."""
        bare, mesh = replace(self.problem, loglik=None), self._mesh()
        skeleton = jax.tree.unflatten(treedef, list(range(treedef.num_leaves)))
        loglik, others = skeleton.loglik, skeleton._replace(loglik=None)

        def make(portable: Any) -> Callable[..., Any]:
            whole_tree = jax.tree.structure(others._replace(loglik=portable))

            def run(steps: Array, own: list[Array], common: list[Array], states: Any) -> Any:
                return blocks_of(bare, whole_tree, shared, own, common, steps, states)

            if mesh is None:
                return run
            axis, whole = jax.sharding.PartitionSpec("member"), jax.sharding.PartitionSpec()
            return jax.shard_map(run, mesh=mesh, in_specs=(whole, axis, whole, axis), out_specs=axis, check_vma=False)

        where = tuple(device.id for device in self.devices)
        key = ("batch", first, bare.chart, bare.solver, bare.kind, bare.block_rows, bare.max_steps, shared, jax.tree.structure(others), where)
        return compiled(loglik, key, make)

    def _mesh(self) -> Any:
        return jax.sharding.Mesh(np.array(self.devices), ("member",)) if len(self.devices) > 1 else None

    def _call(self, piece: _Piece, steps: int, states: list[np.ndarray] | None, treedef: Any = None) -> Any:
        """Run one piece; leaves of the result come back as NumPy arrays (seats, ...)."""
        flat = _member(self.inputs, piece.seats, piece.length)
        shape = (piece.schedule.blocks, piece.schedule.lanes)
        fold = lambda leaf: np.asarray(leaf).reshape(*shape, *np.shape(leaf)[1:])  # noqa: E731
        own = [fold(leaf) for leaf, same in zip(flat.leaves, flat.shared, strict=True) if not same]
        common = [leaf for leaf, same in zip(flat.leaves, flat.shared, strict=True) if same]
        folded = None if states is None else jax.tree.unflatten(treedef, [fold(leaf) for leaf in states])
        with precision(self.inputs.dtype), jax.default_device(self.devices[0] if len(self.devices) == 1 else None):
            out = self._program(flat.treedef, flat.shared, states is None)(np.int32(steps), own, common, folded)
            return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), out)

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
        found = jax.tree.unflatten(self.treedef, self.leaves)
        return replace(found, weighting=self.problem.weighting)

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
        piece = self.pieces[0]
        flat = _member(self.inputs, piece.seats[:1], piece.length)
        own = [np.asarray(leaf)[None] for leaf, same in zip(flat.leaves, flat.shared, strict=True) if not same]
        common = [leaf for leaf, same in zip(flat.leaves, flat.shared, strict=True) if same]
        bare = replace(self.problem, loglik=None)
        out = jax.eval_shape(lambda own, common: blocks_of(bare, flat.treedef, flat.shared, own, common, jnp.int32(1), None), own, common)
        self._shapes(out, 2)
        return True

    def _shapes(self, out: Any, lead: int) -> None:
        """Room for the record of all members; ``lead`` axes of the round's leaves run over members."""
        self.treedef, self.state_tree = jax.tree.structure(out.fit), jax.tree.structure(out.state)
        fits = jax.tree.leaves(out.fit)
        self.leaves = [np.zeros((self.inputs.source.members, *leaf.shape[lead:]), leaf.dtype) for leaf in fits]

    def _run_first(self, piece: _Piece) -> list[np.ndarray]:
        """The arrays of a first round: fits, then the seats that stay open and their states."""
        out = self._call(piece, min(self.checkpoint.schedule.get("cap", PILOT), self.problem.max_steps), None)
        if self.treedef is None:
            self._shapes(out, 1)
        count = len(piece.index)
        if "cap" not in self.checkpoint.schedule:
            ended = out.fit.steps[:count][~out.open[:count]]
            median = int(np.median(ended)) if len(ended) else PILOT
            self.checkpoint.remember(cap=median + 1 + MARGIN)
        seats = np.flatnonzero(out.open[:count])
        return [*(leaf[:count] for leaf in jax.tree.leaves(out.fit)), seats, *(leaf[seats] for leaf in jax.tree.leaves(out.state))]

    def _run_last(self, piece: _Piece) -> list[np.ndarray]:
        index, states = self._gathered
        place = np.searchsorted(index, piece.seats)
        out = self._call(piece, self.problem.max_steps, [leaf[place] for leaf in states], self.state_tree)
        return [*(leaf[: len(piece.index)] for leaf in jax.tree.leaves(out)), np.zeros(0, int)]

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
            widest = max(first[m].schedule.lanes for m in members)
            blocks = max(first[m].schedule.blocks for m in members)
            schedule = _power(len(members), widest, blocks, len(self.devices))
            for start in range(0, len(members), schedule.members):
                pieces.append(_Piece(len(pieces), "last", length, np.array(members[start : start + schedule.members]), schedule))
        return pieces


def _power(members: int, lanes: int, blocks: int, devices: int) -> Schedule:
    """Blocks and lanes that are powers of two, no larger than those of the first round."""
    up = lambda n: 1 << max(0, int(n - 1).bit_length())  # noqa: E731
    down = lambda n: 1 << max(0, int(n).bit_length() - 1)  # noqa: E731
    width = min(up(-(-members // devices)), down(lanes))
    depth = min(up(-(-members // (width * devices))), max(1, down(blocks // devices)))
    return Schedule(width, depth * devices, -(-members // (width * depth * devices)))


def _devices(devices: Any) -> list[Any]:
    found = list(jax.devices() if devices is None else devices if isinstance(devices, list | tuple) else [devices])
    if not found or not all(hasattr(device, "platform") for device in found):
        raise TypeError(f"devices must be jax devices, such as jax.devices()[:2]; got {devices!r}")
    return found


def _device_bytes(devices: list[Any]) -> float:
    stats = [device.memory_stats() or {} for device in devices]
    return min((float(s["bytes_limit"]) - float(s.get("bytes_in_use", 0)) for s in stats if "bytes_limit" in s), default=2**32) * len(devices)


