"""The search of a fit under a trace: ascent, excursions and verdict in one ``while_loop`` whose
body evaluates the likelihood once.

On the host each of these is a separate loop (``search`` in ``passes``). Compiled, each loop would
contain the likelihood and its derivatives again, so here they are stages of one loop. All members
of a ``vmap`` are in the same stage (``any_member`` decides for all of them): the stage is then one
number without a batch axis, and a branch on it stays a branch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmle._types import Array, Tree
from jaxmle.fitting.objective import drop_user_scale, with_user_scale
from jaxmle.fitting.passes import MAX_RISES, Problem, verdict_of
from jaxmle.fitting.user_scale import EndPoint
from jaxmle.solvers.end_of_ascent import examine, is_examined, to_examine
from jaxmle.solvers.outcome import Reading
from jaxmle.solvers.rare_branches import any_member
from jaxmle.solvers.state import Point, State, Tail, select, start
from jaxmle.solvers.status import is_one_of
from jaxmle.solvers.trust_region import accepted, is_running, proposed, read
from jaxmle.verdict.doubt import Doubt, remember_rise
from jaxmle.verdict.excursion import Excursion, follow, to_limit
from jaxmle.verdict.judge import Verdict
from jaxmle.verdict.kink_search import seek_kink
from jaxmle.verdict.kinks import Kink, without
from jaxmle.verdict.limit import Limit, arrived, at_kink, to_shape
from jaxmle.verdict.profile_path import ProfilePath
from jaxmle.verdict.profile_points import begin_path
from jaxmle.verdict.profile_steps import look
from jaxmle.verdict.shape import ProfileShape, Shape, read_profile

ASCENT, EXAMINE, FOLLOW, LOOK, LAST = range(5)
Evaluate = Callable[[Array], Point]


class Start(NamedTuple):
    """The origin of an ascent that starts at a point where an earlier one found a higher ℓ."""

    rises: Array  # () how many ascents there were before
    z: Array  # (k,) where the ascent before it ended
    value: Array  # ℓ there
    steps: Array  # of all ascents before


class Search(NamedTuple):
    """A search so far. All members of a ``vmap`` are in the same stage."""

    goes_on: Array  # () some member's search does
    stage: Array  # () ASCENT, EXAMINE, FOLLOW, LOOK, LAST
    is_open: Array  # () this member's search goes on
    origin: Start
    state: State
    kink: Kink | None
    far: Excursion
    why: Doubt
    path: ProfilePath
    limit: Limit
    # with all that its evaluation found, at the end; None where every point holds that
    point: Point | None


def search_in_one_loop(
    evaluate: Evaluate, problem: Problem, z: Array, may_have_kinks: bool
) -> tuple[Verdict, EndPoint, Point]:
    """The verdict on the maximum that is reached from z (k,), the end point of a recession, and the
    evaluated point; as ``search`` in ``passes`` on the host.
    """

    chart = problem.chart
    # Where the free coordinates are the user's, a point holds all that its evaluation found, and
    # none is needed at the end.
    is_whole = chart.is_entrywise and chart.is_identity and not may_have_kinks

    def bare(point: Point) -> Point:
        # At a kink the neighbouring cells have derivatives that an evaluation has not.
        if may_have_kinks:
            return point
        return drop_user_scale(chart, point) if is_whole else point._replace(aux=None)

    blanks = _blanks(evaluate, bare, chart.nonlinear, z, may_have_kinks)
    if is_whole:
        blanks = blanks._replace(search=blanks.search._replace(point=None))
    yes = jnp.ones((), bool)
    blank = blanks.search
    first = _like(start(z, blank.state.point), blank.state)
    at_start = blank._replace(goes_on=yes, is_open=yes, state=first)

    def body(search: Search) -> Search:
        point = evaluate(_trial(search))
        after = _on(problem, blanks, search, point, bare(point))
        return _next_stage(lambda z: bare(evaluate(z)), problem, blanks, after)

    end = jax.lax.while_loop(lambda search: search.goes_on, body, at_start)
    limit = end.limit
    at_end = with_user_scale(chart, z, limit.point) if end.point is None else end.point
    if not may_have_kinks:
        limit = limit._replace(point=limit.point._replace(aux=at_end.aux))
    verdict, reached = verdict_of(problem, end.state, limit)
    return verdict, reached, at_end


class Blanks(NamedTuple):
    """Zeros with the shapes and types of everything that the loop carries and computes."""

    search: Search
    reading: Reading
    seen: ProfileShape


def _blanks(
    evaluate: Evaluate,
    bare: Callable[[Point], Point],
    logarithms: tuple[bool, ...],
    z: Array,
    may_have_kinks: bool,
) -> Blanks:
    """The zeros of a search from z (k,)."""

    def shapes_at(z: Array) -> Blanks:
        count = jnp.zeros((), jnp.int32)
        full = evaluate(z)
        point = bare(full)
        state = start(z, point)
        kink = seek_kink(lambda z: bare(evaluate(z)), state) if may_have_kinks else None
        far = to_limit(state)
        why = to_shape(logarithms, state, far)
        path = begin_path(state, why, why.asked)
        seen = read_profile(why, state, path)
        limit = arrived(state, far, why, path, seen)
        if kink is not None:
            limit = at_kink(limit, kink)
        no = why.asked
        origin = Start(count, z, state.point.value, count)
        search = Search(no, count, no, origin, state, kink, far, why, path, limit, full)
        return Blanks(search, read(state, point), seen)

    shapes = jax.eval_shape(shapes_at, z)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _like(new: Tree, old: Tree) -> Tree:
    """The leaves of ``new`` in the types of ``old``."""
    return jax.tree.map(lambda a, b: jnp.asarray(a).astype(b.dtype), new, old)


def _explored(search: Search) -> State:
    """The end of the ascent for the excursions, which are not made if it is at a kink."""
    return search.state if search.kink is None else without(search.kink, search.state)


def _trial(search: Search) -> Array:
    """The point (k,) at which the present stage needs an evaluation."""
    onward = search.state.point.z + search.state.move
    return jax.lax.select_n(
        search.stage, onward, onward, search.far.trial, search.path.trial, search.limit.point.z
    )


def _runs(problem: Problem, search: Search) -> Array:
    """Whether this member's ascent goes on."""
    return search.is_open & is_running(search.state, problem.max_steps)


def _is_examined(search: Search) -> Array:
    """Whether the end of this member's ascent is being looked at."""
    return search.is_open & is_examined(search.state)


def _changed(
    names: str, holds: Array, change: Callable[[Search], tuple[Tree, ...]], search: Search
) -> Search:
    """The search, with the named parts replaced by those that ``change`` returns where a condition
    holds. Only these parts are copied out of the branch.
    """
    before = tuple(getattr(search, name) for name in names.split())
    parts = jax.lax.cond(holds, lambda: _like(change(search), before), lambda: before)
    return search._replace(**dict(zip(names.split(), parts, strict=True)))


def _apart(holds: Array, compute: Callable[[], Tree], zeros: Tree) -> Tree:
    """``compute()`` where a condition holds, else zeros.

    The branch makes XLA compute shared subexpressions once. Without it, XLA on a CPU computes them
    again for each of forty results, which takes longer to compile.
    """
    return jax.lax.cond(holds, lambda: _like(compute(), zeros), lambda: zeros)


def _on(problem: Problem, blanks: Blanks, search: Search, full: Point, point: Point) -> Search:
    """What follows from one evaluation in the present stage."""
    stage = search.stage

    def ascend(search: Search) -> tuple[State]:
        after = accepted(search.state, reading)
        return (select(_runs(problem, search), after, search.state),)

    def examination(search: Search) -> tuple[State]:
        new = examine(search.state, point)
        return (select(_is_examined(search), new, search.state),)

    def to_the_limit(search: Search) -> tuple[Excursion]:
        new = follow(_explored(search), search.far, point)
        return (select(search.far.active, new, search.far),)

    def along_the_profile(search: Search) -> tuple[ProfilePath]:
        new = look(search.why, _explored(search), search.path, point)
        return (select(search.path.active, new, search.path),)

    reading = _apart(stage == ASCENT, lambda: read(search.state, point), blanks.reading)
    search = _changed("state", stage == ASCENT, ascend, search)
    search = _changed("state", stage == ASCENT, lambda now: (proposed(now.state),), search)
    search = _changed("state", stage == EXAMINE, examination, search)
    search = _changed("far", stage == FOLLOW, to_the_limit, search)
    search = _changed("path", stage == LOOK, along_the_profile, search)
    if search.point is None:
        return search
    return _changed("point goes_on", stage == LAST, lambda _: (full, False), search)


def _next_stage(bare: Evaluate, problem: Problem, blanks: Blanks, search: Search) -> Search:
    """The search; in its next stage if no member has anything left to do in the present one."""

    def to_follow(search: Search) -> tuple[Tree, ...]:
        state = search.state._replace(tail=_remembered(search))
        kink = search.kink
        if kink is not None:
            kink = select(search.is_open, seek_kink(bare, state), kink)
        far = to_limit(_explored(search._replace(state=state, kink=kink)))
        return FOLLOW, state, kink, far._replace(active=far.active & search.is_open)

    def to_look(search: Search) -> tuple[Tree, ...]:
        state = _explored(search)
        why = to_shape(problem.chart.nonlinear, state, search.far)
        return LOOK, why, begin_path(state, why, why.asked & search.is_open)

    ends = (search.stage == ASCENT) & ~any_member(_runs(problem, search))
    ends = ends | ((search.stage == EXAMINE) & ~any_member(_is_examined(search)))
    search = _changed("state", ends, lambda now: (to_examine(now.state),), search)
    examines = any_member(_is_examined(search))
    goes_on = examines | any_member(_runs(problem, search))
    stage = jnp.where(ends, jnp.where(examines, EXAMINE, ASCENT), search.stage)
    search = search._replace(stage=stage)
    search = _changed("stage state kink far", ends & ~goes_on, to_follow, search)
    ends = (search.stage == FOLLOW) & ~any_member(search.far.active)
    search = _changed("stage why path", ends, to_look, search)
    ends = (search.stage == LOOK) & ~any_member(search.path.active)
    seen = _apart(
        ends, lambda: read_profile(search.why, _explored(search), search.path), blanks.seen
    )
    limit = _apart(ends, lambda: _limit(search, seen), blanks.search.limit)
    names = "goes_on stage is_open origin state limit"
    return _changed(names, ends, partial(_concluded, limit), search)


def _remembered(search: Search) -> Tail:
    """The tail of an ascent; for one that started where an earlier one ended, its direction from
    there.
    """
    state = search.state
    before = state._replace(
        point=state.point._replace(z=search.origin.z, value=search.origin.value)
    )
    direction_of_arrival = remember_rise(state, before).tail
    return select(search.is_open & (search.origin.rises > 0), direction_of_arrival, state.tail)


def _limit(search: Search, seen: ProfileShape) -> Limit:
    """The end of an ascent and its excursions."""
    limit = arrived(_explored(search), search.far, search.why, search.path, seen)
    if search.kink is not None:
        limit = at_kink(limit, search.kink)
    return limit._replace(steps=limit.steps + search.origin.steps)


def _concluded(seen: Limit, search: Search) -> tuple[Tree, ...]:
    """The parts of the search after an ascent: if ℓ was found to be higher at a finite distance,
    another ascent starts there.
    """
    state = search.state
    origin = search.origin
    limit = select(search.is_open, seen, search.limit)
    rises = search.is_open & is_one_of(limit.shape, Shape.RISES) & (origin.rises < MAX_RISES)
    again = Start(origin.rises + 1, state.point.z, state.point.value, state.steps + limit.steps)
    continues = any_member(rises)
    return (
        continues if search.point is None else search.goes_on,
        jnp.where(continues, ASCENT, LAST),
        rises,
        select(rises, again, origin),
        select(rises, start(limit.point.z, state.point), state),
        limit,
    )
