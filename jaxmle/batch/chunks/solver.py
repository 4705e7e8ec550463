"""The state machine of an ascent for many members at once, whose axis is last in all arrays.
Nothing of a likelihood is in these functions (``machine``).

Between two of their steps the caller evaluates the likelihood at the trial points, from a loop on
the host.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, Function, Tree, ndarray
from jaxmle.batch.chunks.machine import Machine
from jaxmle.fitting.ending import CovarianceParts, finish, observed_covariance
from jaxmle.fitting.objective import with_user_scale
from jaxmle.fitting.passes import Problem, verdict_of
from jaxmle.record.fit import Fit
from jaxmle.solvers.end_of_ascent import examine, is_examined, to_examine
from jaxmle.solvers.leading_axes import (
    loop_over_active,
    symmetric,
    where_active,
)
from jaxmle.solvers.state import (
    ASCENDING,
    DIVERGING,
    DONE,
    MIRRORING,
    NOT_FINITE,
    POLISHING,
    PRECISION_REACHED,
    Point,
    State,
    select,
    select_lazily,
    start,
)
from jaxmle.solvers.tails import RECEDING_INFORMATION
from jaxmle.solvers.trust_region import advance, is_running
from jaxmle.verdict.doubt import Doubt
from jaxmle.verdict.excursion import Excursion, follow, to_limit
from jaxmle.verdict.judge import root_in_batch
from jaxmle.verdict.kink_search import begin_search, proceed
from jaxmle.verdict.kinks import Search, kink_of, may_be_kinked, without
from jaxmle.verdict.limit import (
    DOUBLING_STEPS_OF_DIVERGENCE,
    Limit,
    arrived,
    at_kink,
    needs_excursion,
    to_shape,
    unexplored,
)
from jaxmle.verdict.limit import explore as explore_members
from jaxmle.verdict.profile_path import ProfilePath
from jaxmle.verdict.profile_points import begin_path
from jaxmle.verdict.profile_steps import look

# steps of a chunk that it costs to gather its members once more: their data, their verdicts
STEPS_TO_GATHER = 3.0
# decrement (0.45 SE) from which the Newton step that ends an approach in single precision is taken
# unseen
DECREMENT_OF_UNSEEN_STEP = 0.1
Evaluate = Callable[[Array, Array], Point]  # z (k, b), active (b,) → points
Enough = Callable[["Counts"], bool]  # whether a round ends here


class Ascent(NamedTuple):
    """An ascent under way, one for each member."""

    state: State
    trial: Array  # (k, b)
    active: Array  # (b,) who runs
    before: Array  # (b,) who ran before the latest step


def _idle(point: Point, running: Array) -> Point:
    """The point, with harmless values for members that are not running, so that they do not trigger
    the rare branches.
    """

    def keep(new: Tree, idle: Tree) -> Tree:
        return jnp.where(running, new, idle)

    return point._replace(
        value=keep(point.value, 0.0),
        score=keep(point.score, 0.0),
        hessian=keep(point.hessian, -jnp.eye(point.z.shape[0], dtype=point.z.dtype)),
        curvature=None
        if point.curvature is None
        else keep(point.curvature, jnp.eye(point.z.shape[0], dtype=point.z.dtype)),
    )


def _where_active(
    active: Array, body: Function, given: tuple[Tree, ...], now: Tree, trial: Point
) -> Tree:
    """``body(*given, now, trial)`` where a member is active, ``now`` elsewhere."""
    if isinstance(active, np.ndarray):
        return where_active(active, body, given, now, trial)
    return select(active, body(*given, now, _idle(trial, active)), now)


def _advanced(state: State, trial: Point) -> State:
    """The state after one evaluation of an ascent, or of what is looked at where it has ended."""
    after = select_lazily(
        is_examined(state), lambda: examine(state, trial), lambda: advance(state, trial)
    )
    return to_examine(after)


def _step(state: State, trial: Point, running: Array, cap: Array) -> Ascent:
    before = state
    if not isinstance(running, np.ndarray):
        before = state._replace(phase=jnp.where(running, state.phase, DONE))
        if state.point.curvature is not None:
            before = before._replace(point=_idle(state.point, running))
    moved = _where_active(running, _advanced, (), before, trial)
    state = moved if before is state else select(running, moved, state)
    return Ascent(state, state.point.z + state.move, running & is_running(state, cap), running)


class Counts(NamedTuple):
    """How many members are running: at the start, before the latest step, and now."""

    all: int
    before: int
    now: int


def to_the_end(counts: Counts) -> bool:
    """Never enough: the round goes on until its last member has ended."""
    return False


def half_done(counts: Counts) -> bool:
    """Whether the members of a round that are still running had better be gathered with those of
    other chunks.

    A step of a chunk costs the same however many of its members are still running. Gathering the
    running members costs ``STEPS_TO_GATHER`` steps for each of them, including those that the next
    step would finish. At least half must be done, because later steps may finish more than this
    one.
    """
    ending = (counts.before - counts.now) / max(counts.before, 1)
    return 2 * counts.now <= counts.all and counts.now * (1 + STEPS_TO_GATHER * ending) < counts.all


def ascend(
    evaluate: Evaluate, z: Array, active: ndarray, cap: int, enough: Enough, machine: Machine
) -> State:
    """Ascend from z (k, b) until each active member has ended or spent ``cap`` steps, or it is
    ``enough``.
    """
    first = evaluate(z, active)
    state = machine.run(start, (), z, first)
    now = machine.run(_step, (), state, first, active, _each(cap, active))
    return _go_on(evaluate, now, int(np.sum(active)), cap, enough, machine)


def resume_ascent(
    evaluate: Evaluate,
    state: State,
    active: ndarray,
    cap: int,
    enough: Enough,
    machine: Machine,
) -> State:
    """Continue the ascents from their states."""
    running = running_of(state, active, cap, machine)
    now = Ascent(state, machine.run(_trial, (), state), running, running)
    return _go_on(evaluate, now, int(np.sum(running)), cap, enough, machine)


class Approach(NamedTuple):
    """The result of the first steps in single precision."""

    z: Array  # (k, b) in double precision
    steps: Array  # (b,) evaluations
    is_sound: Array  # (b,) an ascent in double precision may begin there


def approach_in_float32(
    evaluate: Evaluate, z: Array, active: ndarray, rounds: int, machine: Machine
) -> Approach:
    """Ascend from z (k, b) in single precision until each active member is where full Newton steps
    take over, or has used up its evaluations.

    An ascent in double precision then starts at the end of the pending Newton step if that is
    within half a standard error of a maximum; otherwise at the point itself. A member that recedes
    starts from the user's start, where a recession can be recognised.
    """
    z32 = namespace(z).asarray(z, dtype=np.float32)
    first = evaluate(z32, active)
    state = machine.run(start, (), z32, first)
    caps = _each(rounds - 1, active)
    now = machine.run(_approaching, (), state, first, active, caps)
    if machine.in_numpy:
        now = loop_over_active(evaluate, partial(_next, _approaching), (caps,), now)
    while np.any(machine.fetched(now.active)):
        for _ in range(machine.steps_a_look):
            trial = evaluate(now.trial, now.active)
            now = machine.run(_approaching, (), now.state, trial, now.active, caps)
    return machine.run(_approached, (), now.state, z)


def _next(step: Function, cap: Array, now: Ascent, trial: Point) -> Ascent:
    """An ascent after one more step."""
    return step(now.state, trial, now.active, cap)


def _approaching(state: State, trial: Point, active: Array, cap: Array) -> Ascent:
    """One step of an ascent that ends when polishing begins."""
    now = _step(state, trial, active, cap)
    return now._replace(active=now.active & (now.state.phase == ASCENDING))


def _approached(state: State, z: Array) -> Approach:
    xp = namespace(z)
    near = state.phase == POLISHING
    close = near | (state.full & (state.newton.decrement <= DECREMENT_OF_UNSEEN_STEP))
    end = state.point.z.astype(z.dtype) + xp.where(close, state.move, 0.0).astype(z.dtype)
    is_sound = (state.phase < MIRRORING) & (state.signature.information >= RECEDING_INFORMATION)
    return Approach(xp.where(is_sound, end, z), state.steps, is_sound)


def running_of(state: State, active: ndarray, cap: int, machine: Machine) -> ndarray:
    """Which members are running, (b,)."""
    return np.asarray(machine.run(is_running, (), state, _each(cap, active))) & active


def _trial(state: State) -> Array:
    return state.point.z + state.move


def _each(value: int, like: Array) -> ndarray:
    return np.full(np.shape(like), value, np.int32)


def _go_on(
    evaluate: Evaluate, now: Ascent, number: int, cap: int, enough: Enough, machine: Machine
) -> State:
    """Continue an ascent until it is ``enough``; ``number`` is how many members were running at its
    start.
    """
    limits = _each(cap, now.active)

    def is_enough(now: Ascent) -> bool:
        before, active = machine.fetched((now.before, now.active))
        counts = Counts(number, int(np.sum(before)), int(np.sum(active)))
        return not counts.now or enough(counts)

    if machine.in_numpy:
        return loop_over_active(evaluate, partial(_next, _step), (limits,), now, is_enough).state
    while not is_enough(now):
        for _ in range(machine.steps_a_look):
            trial = evaluate(now.trial, now.active)
            now = machine.run(_step, (), now.state, trial, now.active, limits)
    return now.state


# ---------------------------------------------------------------- excursions


def is_open(
    nonlinear: tuple[bool, ...], may_have_kinks: bool, state: State, max_steps: int
) -> Array:
    """Whether a member needs more than the first round: further steps, an excursion, or a search
    for the row that made it fail.
    """
    failed = (
        (state.outcome == NOT_FINITE)
        | (state.outcome == DIVERGING)
        | (state.outcome == PRECISION_REACHED)
        | (state.growing_steps >= DOUBLING_STEPS_OF_DIVERGENCE)
    )
    doubtful = needs_excursion(nonlinear, state)
    if may_have_kinks:
        doubtful = doubtful | may_be_kinked(state)
    return is_running(state, max_steps) | doubtful | failed


def explore(
    evaluate: Evaluate,
    state: State,
    active: ndarray,
    nonlinear: tuple[bool, ...],
    may_have_kinks: bool,
    machine: Machine,
) -> Limit:
    """The excursions of all members. Members that need none cost no evaluation."""
    if not may_have_kinks:
        return _explored(evaluate, state, active, nonlinear, machine)
    search = machine.run_compiled(_to_kink, (), state, active)
    search = _walk(evaluate, partial(machine.run_compiled, _proceed, (), state), search, machine)
    kink = machine.run_compiled(kink_of, (), state, search)
    others = machine.run_compiled(without, (), kink, state)
    limit = _explored(evaluate, others, active, nonlinear, machine)
    return machine.run_compiled(at_kink, (), limit, kink)


def _explored(
    evaluate: Evaluate,
    state: State,
    active: ndarray,
    nonlinear: tuple[bool, ...],
    machine: Machine,
) -> Limit:
    if machine.in_numpy:
        return explore_members(evaluate, state, nonlinear, active)
    far = machine.run(_to_limit, (), state, active)
    far = _walk(evaluate, partial(machine.run, _follow, (), state), far, machine)
    why, path = machine.run(_to_shape, (nonlinear,), state, far, active)
    path = _walk(evaluate, partial(machine.run, _examined, (), why, state), path, machine)
    return machine.run(arrived, (), state, far, why, path)


def _walk(
    evaluate: Evaluate, body: Callable[[Tree, Point], Tree], e: Tree, machine: Machine
) -> Tree:
    while np.any(machine.fetched(e.active)):
        for _ in range(machine.steps_a_look):
            e = body(e, evaluate(e.trial, e.active))
    return e


def _to_kink(state: State, active: Array) -> Search:
    return begin_search(state, may_be_kinked(state) & active)


def _proceed(state: State, search: Tree, point: Point) -> Tree:
    return _where_active(search.active, proceed, (state,), search, point)


def _to_limit(state: State, active: Array) -> Excursion:
    e = to_limit(state)
    return e._replace(active=e.active & active)


def _to_shape(
    nonlinear: tuple[bool, ...], state: State, far: Tree, active: Array
) -> tuple[Doubt, ProfilePath]:
    why = to_shape(nonlinear, state, far)
    why = why._replace(asked=why.asked & active)
    return why, begin_path(state, why, why.asked)


def _follow(state: State, e: Tree, point: Point) -> Tree:
    return _where_active(e.active, follow, (state,), e, point)


def _examined(why: Tree, state: State, path: Tree, point: Point) -> Tree:
    return _where_active(path.active, look, (why, state), path, point)


# ---------------------------------------------------------------- the end


class Judged(NamedTuple):
    """Verdicts, and the covariance that needs no further pass."""

    verdict: Tree
    reached: Tree
    extra: CovarianceParts


def _judged(problem: Problem, base: Array, state: State, limit: Limit) -> Judged:
    point = with_user_scale(problem.chart, base, limit.point)
    verdict, reached = verdict_of(problem, state, limit._replace(point=point))
    root = root_in_batch(-symmetric(verdict.point.hessian), verdict.scale, verdict.null)
    return Judged(verdict, reached, observed_covariance(problem, verdict.point, verdict, root))


def judged(
    problem: Problem, base: Array, state: State, limit: Limit | None, machine: Machine
) -> Judged:
    """The verdicts; ``limit`` is None if no member took an excursion. The problem holds no
    likelihood.
    """
    limit = unexplored(state) if limit is None else limit
    return machine.run(_judged, (problem,), base, state, limit)


def _finished(
    problem: Problem,
    base: Array,
    verdict: Tree,
    reached: Tree,
    extra: CovarianceParts,
    n: Array,
    data_id: Array,
    steps: Array,
) -> Fit:
    return finish(problem, base, verdict, reached, verdict.point, extra, n, data_id, steps)


def finished(
    problem: Problem,
    base: Array,
    ending: Judged,
    n: Array,
    data_id: Array,
    steps: Array,
    machine: Machine,
) -> Tree:
    """The records."""
    return machine.run(
        _finished, (problem,), base, ending.verdict, ending.reached, ending.extra, n, data_id, steps
    )


def record_shapes(
    problem: Problem, base: Array, state: State, n: Array, data_id: Array, steps: Array
) -> Tree:
    """The record of one member, of which only the shapes are used."""
    ending = _judged(problem, base, state, unexplored(state))
    return _finished(problem, base, ending.verdict, ending.reached, ending.extra, n, data_id, steps)
