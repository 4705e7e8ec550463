"""The state machine of a climb for many members at once. Nothing of a likelihood is in these
programs: they are compiled once for a number of members and of parameters, whatever is fitted, and
kept by the process.

Between two of their steps the caller evaluates the likelihood at the trial points (``block``), from
a loop on the host.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array
from jaxmle.fitting.objective import with_user_scale
from jaxmle.fitting.passes import (
    CovarianceParts,
    Problem,
    finish,
    observed_covariance,
    verdict_of,
)
from jaxmle.solvers.trust_region import (
    DONE,
    EXHAUSTED,
    NOT_FINITE,
    RUNAWAY,
    Point,
    State,
    advance,
    is_running,
    start,
)
from jaxmle.verdict.judge import root_in_batch
from jaxmle.verdict.kink_search import begin_search, proceed
from jaxmle.verdict.kinks import kink_of, may_be_kinked, without
from jaxmle.verdict.limit import (
    ESCAPE,
    Limit,
    arrived,
    at_kink,
    follow,
    needs_excursion,
    to_limit,
    to_shape,
    unexplored,
)
from jaxmle.verdict.profile_walk import begin_walk, look

# steps of a chunk that it costs to gather its members once more: their data, their verdicts
STEPS_TO_GATHER = 3.0
Evaluate = Callable[[Array, np.ndarray], Point]  # z (b, k), wanted (b,) → points (b, ...)
Enough = Callable[["Counts"], bool]  # whether a round ends here


class Climb(NamedTuple):
    """A climb under way, one for each member."""

    state: State
    trial: Array  # (b, k)
    running: Array  # (b,)


@functools.lru_cache(maxsize=256)
def machine(
    function: Callable[..., Any], static: tuple[Any, ...], mesh: Any = None
) -> Callable[..., Any]:
    """``function(*static, …)`` of one member, compiled for all members."""
    batched = jax.vmap(functools.partial(function, *static))
    if mesh is None:
        return jax.jit(batched)
    axis = jax.sharding.PartitionSpec("member")
    return jax.jit(
        jax.shard_map(batched, mesh=mesh, in_specs=axis, out_specs=axis, check_vma=False)
    )


def _idle(point: Point, running: Array) -> Point:
    """A point that asks for nothing where a member does not run: its lanes must not wake the
    rare branches.
    """

    def keep(new: Any, idle: Any) -> Any:
        return jnp.where(running, new, idle)

    return point._replace(
        value=keep(point.value, 0.0),
        score=keep(point.score, 0.0),
        hessian=keep(point.hessian, -jnp.eye(point.z.shape[0], dtype=point.z.dtype)),
        curvature=None
        if point.curvature is None
        else keep(point.curvature, jnp.eye(point.z.shape[0], dtype=point.z.dtype)),
    )


def _step(state: State, trial: Point, running: Array, cap: Array) -> Climb:
    idle = state._replace(phase=jnp.where(running, state.phase, DONE))
    if state.point.curvature is not None:
        idle = idle._replace(point=_idle(state.point, running))
    moved = advance(idle, _idle(trial, running))
    state = jax.tree.map(
        lambda new, old: jnp.where(running, new, old).astype(old.dtype), moved, state
    )
    return Climb(state, state.point.z + state.move, running & is_running(state, cap))


def _begin(z: Array, point: Point) -> State:
    return start(z, point)


def begun(z: Array, like: Point, mesh: Any = None) -> State:
    """The states before the first step at z (b, k)."""
    return machine(_begin, (), mesh)(z, like)


class Counts(NamedTuple):
    """How many members climb: at the outset, before the latest step, and now."""

    all: int
    before: int
    now: int


def to_the_end(counts: Counts) -> bool:
    """Never enough: the round goes on until its last member has ended."""
    return False


def half_done(counts: Counts) -> bool:
    """Whether the members of a round that still climb had better be gathered with those of other
    chunks.

    A chunk goes on at full cost until its last member is done. One more step costs as much as a
    step of each; to leave the others behind costs a step of each of them, and ``STEPS_TO_GATHER``
    steps more of those that this step would end. Half must be done: later steps may end more than
    this one.
    """
    ending = (counts.before - counts.now) / max(counts.before, 1)
    return 2 * counts.now <= counts.all and counts.now * (1 + STEPS_TO_GATHER * ending) < counts.all


def climb(
    evaluate: Evaluate, z: Array, wanted: np.ndarray, cap: int, enough: Enough, mesh: Any = None
) -> State:
    """Climb from z (b, k) until each wanted member has ended or spent ``cap`` steps, or it is
    ``enough``.
    """
    first = evaluate(z, wanted)
    state = begun(z, first, mesh)
    return _go_on(
        evaluate,
        machine(_step, (), mesh)(state, first, wanted, _each(cap, wanted)),
        int(np.sum(wanted)),
        cap,
        enough,
        mesh,
    )


def climb_on(
    evaluate: Evaluate, state: State, wanted: np.ndarray, cap: int, enough: Enough, mesh: Any = None
) -> State:
    """Climb on from states."""
    running = running_of(state, wanted, cap, mesh)
    trial = machine(_trial, (), mesh)(state)
    return _go_on(evaluate, Climb(state, trial, running), int(np.sum(running)), cap, enough, mesh)


def running_of(state: State, wanted: np.ndarray, cap: int, mesh: Any = None) -> np.ndarray:
    """Who climbs, (b,)."""
    return np.asarray(machine(is_running, (), mesh)(state, _each(cap, wanted))) & wanted


def _trial(state: State) -> Array:
    return state.point.z + state.move


def _each(value: int, like: Array) -> np.ndarray:
    return np.full(np.shape(like), value, np.int32)


def _go_on(
    evaluate: Evaluate, now: Climb, outset: int, cap: int, enough: Enough, mesh: Any
) -> State:
    limits = _each(cap, now.running)
    counts = Counts(outset, outset, outset)
    while np.any(running := np.asarray(now.running)):
        counts = Counts(outset, counts.now, int(np.sum(running)))
        if enough(counts):
            break
        now = machine(_step, (), mesh)(now.state, evaluate(now.trial, running), running, limits)
    return now.state


# ---------------------------------------------------------------- excursions


def is_open(bent: tuple[bool, ...], may_have_kinks: bool, state: State, max_steps: int) -> Array:
    """Whether a member needs more than the first round: steps, an excursion, or a search for
    the row that is to blame.
    """
    failed = (
        (state.outcome == NOT_FINITE)
        | (state.outcome == RUNAWAY)
        | (state.outcome == EXHAUSTED)
        | (state.longest >= ESCAPE)
    )
    doubtful = needs_excursion(bent, state)
    if may_have_kinks:
        doubtful = doubtful | may_be_kinked(state)
    return is_running(state, max_steps) | doubtful | failed


def explore(
    evaluate: Evaluate,
    state: State,
    wanted: np.ndarray,
    bent: tuple[bool, ...],
    may_have_kinks: bool,
    mesh: Any = None,
) -> Limit:
    """The excursions of all members; those that need none cost no evaluation."""
    if not may_have_kinks:
        return _explored(evaluate, state, wanted, bent, mesh)
    search = machine(_to_kink, (), mesh)(state, wanted)
    search = _walk(evaluate, machine(_proceed, (), mesh), state, search)
    kink = machine(kink_of, (), mesh)(state, search)
    others = machine(without, (), mesh)(kink, state)
    limit = _explored(evaluate, others, wanted, bent, mesh)
    return machine(at_kink, (), mesh)(limit, kink)


def _explored(
    evaluate: Evaluate, state: State, wanted: np.ndarray, bent: tuple[bool, ...], mesh: Any
) -> Limit:
    far = _walk(
        evaluate, machine(_follow, (), mesh), state, machine(_to_limit, (), mesh)(state, wanted)
    )
    why, walk = machine(_to_shape, (bent,), mesh)(state, far, wanted)

    def step(state: State, walk: Any, point: Point) -> Any:
        return machine(_look, (), mesh)(why, state, walk, point)

    return machine(arrived, (), mesh)(state, far, why, _walk(evaluate, step, state, walk))


def _walk(evaluate: Evaluate, body: Callable[..., Any], state: State, e: Any) -> Any:
    while np.any(active := np.asarray(e.active)):
        e = body(state, e, evaluate(e.trial, active))
    return e


def _to_kink(state: State, wanted: Array) -> Any:
    return begin_search(state, may_be_kinked(state) & wanted)


def _proceed(state: State, search: Any, point: Point) -> Any:
    return _taken(proceed, state, search, point)


def _to_limit(state: State, wanted: Array) -> Any:
    e = to_limit(state)
    return e._replace(active=e.active & wanted)


def _to_shape(bent: tuple[bool, ...], state: State, far: Any, wanted: Array) -> Any:
    why = to_shape(bent, state, far)
    why = why._replace(asked=why.asked & wanted)
    return why, begin_walk(state, why, why.asked)


def _taken(body: Callable[..., Any], state: State, e: Any, point: Point) -> Any:
    moved = body(state, e, _idle(point, e.active))
    return jax.tree.map(lambda new, old: jnp.where(e.active, new, old).astype(old.dtype), moved, e)


def _follow(state: State, e: Any, point: Point) -> Any:
    return _taken(follow, state, e, point)


def _look(why: Any, state: State, walk: Any, point: Point) -> Any:
    moved = look(why, state, walk, _idle(point, walk.active))
    return jax.tree.map(
        lambda new, old: jnp.where(walk.active, new, old).astype(old.dtype), moved, walk
    )


# ---------------------------------------------------------------- the end


class Judged(NamedTuple):
    """Verdicts, and the covariance that needs no further pass."""

    verdict: Any
    reached: Any
    extra: CovarianceParts


def _judged(problem: Problem, base: Array, state: State, limit: Limit) -> Judged:
    verdict, reached = verdict_of(
        problem,
        base,
        state,
        limit._replace(point=with_user_scale(problem.chart, base, limit.point)),
    )
    hessian = verdict.point.hessian
    root = root_in_batch(-0.5 * (hessian + hessian.T), verdict.scale, verdict.null)
    return Judged(verdict, reached, observed_covariance(problem, verdict.point, verdict, root))


def judged(
    problem: Problem, base: Array, state: State, limit: Limit | None, mesh: Any = None
) -> Judged:
    """The verdicts; ``limit`` None where no member took an excursion. The problem holds no
    likelihood.
    """
    return machine(_judged, (problem,), mesh)(
        base, state, unexplored(state) if limit is None else limit
    )


def _finished(
    problem: Problem,
    base: Array,
    verdict: Any,
    reached: Any,
    extra: CovarianceParts,
    n: Array,
    data_id: Array,
    steps: Array,
) -> Any:
    return finish(problem, base, verdict, reached, verdict.point, extra, n, data_id, steps)


def finished(
    problem: Problem,
    base: Array,
    found: Judged,
    n: Array,
    data_id: Array,
    steps: Array,
    mesh: Any = None,
) -> Any:
    """The records."""
    return machine(_finished, (problem,), mesh)(
        base, found.verdict, found.reached, found.extra, n, data_id, steps
    )


def _concluded(
    problem: Problem,
    base: Array,
    state: State,
    limit: Limit,
    n: Array,
    data_id: Array,
    steps: Array,
) -> Any:
    found = _judged(problem, base, state, limit)
    return _finished(problem, base, found.verdict, found.reached, found.extra, n, data_id, steps)


def concluded(
    problem: Problem,
    base: Array,
    state: State,
    limit: Limit | None,
    n: Array,
    data_id: Array,
    steps: Array,
    mesh: Any = None,
) -> Any:
    """Verdicts and records at once, where the covariance needs no further pass."""
    return machine(_concluded, (problem,), mesh)(
        base, state, unexplored(state) if limit is None else limit, n, data_id, steps
    )
