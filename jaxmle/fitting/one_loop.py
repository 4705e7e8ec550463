"""The search of a fit under a trace: climb, excursions and verdict in one ``while_loop`` whose body
evaluates the likelihood once.

On the host each of these is a loop of its own (``search`` in ``passes``). Compiled, each would hold
the likelihood and its derivatives again, so here they are stages of one loop. All members of a
``vmap`` go through the stages together: ``any_member`` asks them all, which leaves the stage a
plain number and a branch on it a branch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmle._types import Array
from jaxmle.fitting.passes import MAX_RISES, Problem, verdict_of
from jaxmle.fitting.user_scale import Reach
from jaxmle.solvers.trust_region import Point, State, advance, is_running, select, start
from jaxmle.verdict.doubt import Doubt, remember_rise
from jaxmle.verdict.judge import Verdict
from jaxmle.verdict.kink_search import seek_kink
from jaxmle.verdict.kinks import Kink, without
from jaxmle.verdict.limit import Excursion, Limit, arrived, at_kink, follow, to_limit, to_shape
from jaxmle.verdict.profile_walk import Walk, begin_walk, look
from jaxmle.verdict.shape import Shape

CLIMB, FOLLOW, LOOK, LAST = range(4)
Evaluate = Callable[[Array], Point]


class Start(NamedTuple):
    """Where a climb set out, for those that set out where an earlier one saw ℓ rise."""

    rises: Array  # () how many climbs there were before
    z: Array  # (k,) where the climb before it ended
    value: Array  # ℓ there
    steps: Array  # of all climbs before


class Search(NamedTuple):
    """A search so far. All members of a ``vmap`` are in the same stage."""

    goes_on: Array  # () some member's search does
    stage: Array  # () CLIMB, FOLLOW, LOOK, LAST
    is_open: Array  # () this member's search goes on
    begun: Start
    sets_out: Array  # () a climb begins, at the point of ``limit``
    state: State
    kink: Kink | None
    far: Excursion
    why: Doubt
    walk: Walk
    limit: Limit
    point: Point  # with all that its evaluation found, at the end


@jax.custom_batching.custom_vmap
def any_member(holds: Array) -> Array:
    """Whether a condition () holds for any member of all the ``vmap``s around it."""
    return holds


@any_member.def_vmap
def _(axis_size: int, batched: list[bool], holds: Array) -> tuple[Array, bool]:
    return any_member(jnp.any(holds) if batched[0] else holds), False


def search_in_one_loop(
    evaluate: Evaluate, problem: Problem, z: Array, may_have_kinks: bool
) -> tuple[Verdict, Reach, Point]:
    """The verdict on the maximum that is reached from z (k,), what it was judged by, and the point
    there; the same as ``search`` in ``passes`` finds on the host.
    """

    def bare(z: Array) -> Point:
        point = evaluate(z)
        # At a kink the neighbouring cells have derivatives that an evaluation has not.
        return point if may_have_kinks else point._replace(aux=None)

    logarithms = problem.chart.nonlinear
    shapes = jax.eval_shape(lambda z: _blank(bare, evaluate, logarithms, z, may_have_kinks), z)
    blank: Search = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    yes = jnp.ones((), bool)
    limit = blank.limit._replace(point=blank.limit.point._replace(z=z))
    begun = blank._replace(goes_on=yes, is_open=yes, sets_out=yes, limit=limit)

    def body(search: Search) -> Search:
        point = evaluate(_trial(search))
        after = _on(problem, search, point, point if may_have_kinks else point._replace(aux=None))
        return _next_stage(bare, problem, after)

    end = jax.lax.while_loop(lambda search: search.goes_on, body, begun)
    limit = end.limit
    if limit.point.aux is None:
        limit = limit._replace(point=limit.point._replace(aux=end.point.aux))
    verdict, reached = verdict_of(problem, end.state, limit)
    return verdict, reached, end.point


def _blank(
    bare: Evaluate,
    evaluate: Evaluate,
    logarithms: tuple[bool, ...],
    z: Array,
    may_have_kinks: bool,
) -> Search:
    """A search of the right shapes and types."""
    count = jnp.zeros((), jnp.int32)
    state = start(z, bare(z))
    kink = seek_kink(bare, state) if may_have_kinks else None
    far = to_limit(state)
    why = to_shape(logarithms, state, far)
    walk = begin_walk(state, why, why.asked)
    limit = arrived(state, far, why, walk)
    if kink is not None:
        limit = at_kink(limit, kink)
    begun = Start(count, z, state.point.value, count)
    no = why.asked
    excursions = (kink, far, why, walk, limit)
    return Search(no, count, no, begun, no, state, *excursions, evaluate(z))


def _like(new: Any, old: Any) -> Any:
    """The leaves of ``new`` in the types of ``old``."""
    return jax.tree.map(lambda a, b: jnp.asarray(a).astype(b.dtype), new, old)


def _explored(search: Search) -> State:
    """The end of the climb as the excursions see it: not at all where it was at a kink."""
    return search.state if search.kink is None else without(search.kink, search.state)


def _trial(search: Search) -> Array:
    """The point (k,) that the present stage asks for."""
    onward = search.state.point.z + search.state.move
    climbs = jnp.where(search.sets_out, search.limit.point.z, onward)
    return jax.lax.select_n(
        search.stage, climbs, search.far.trial, search.walk.trial, search.limit.point.z
    )


def _runs(problem: Problem, search: Search) -> Array:
    """Whether this member's climb goes on."""
    runs = search.sets_out | is_running(search.state, problem.max_steps)
    return search.is_open & runs


def _on(problem: Problem, search: Search, full: Point, point: Point) -> Search:
    """What follows from one evaluation in the present stage."""

    def climb(search: Search) -> Search:
        outset = select(search.sets_out, start(point.z, point), search.state)
        return search._replace(
            sets_out=jnp.zeros_like(search.sets_out),
            state=select(_runs(problem, search), advance(outset, point), search.state),
        )

    def to_the_limit(search: Search) -> Search:
        new = follow(_explored(search), search.far, point)
        return search._replace(far=select(search.far.active, new, search.far))

    def along_the_profile(search: Search) -> Search:
        new = look(search.why, _explored(search), search.walk, point)
        return search._replace(walk=select(search.walk.active, new, search.walk))

    def last(search: Search) -> Search:
        return search._replace(
            point=_like(full, search.point), goes_on=jnp.zeros_like(search.goes_on)
        )

    return jax.lax.switch(search.stage, (climb, to_the_limit, along_the_profile, last), search)


def _next_stage(bare: Evaluate, problem: Problem, search: Search) -> Search:
    """The search in its next stage, where no member has anything left to do in the present one."""

    def to_follow(search: Search) -> Search:
        state = _remembering(search)
        search = search._replace(state=select(search.is_open, state, search.state))
        if search.kink is not None:
            kink = seek_kink(bare, search.state)
            search = search._replace(kink=select(search.is_open, kink, search.kink))
        far = to_limit(_explored(search))
        far = far._replace(active=far.active & search.is_open)
        return search._replace(
            far=_like(far, search.far), stage=jnp.full_like(search.stage, FOLLOW)
        )

    def to_look(search: Search) -> Search:
        state = _explored(search)
        why = to_shape(problem.chart.nonlinear, state, search.far)
        walk = begin_walk(state, why, why.asked & search.is_open)
        return search._replace(
            why=_like(why, search.why),
            walk=_like(walk, search.walk),
            stage=jnp.full_like(search.stage, LOOK),
        )

    runs = any_member(_runs(problem, search))
    search = jax.lax.cond((search.stage == CLIMB) & ~runs, to_follow, lambda s: s, search)
    follows = any_member(search.far.active)
    search = jax.lax.cond((search.stage == FOLLOW) & ~follows, to_look, lambda s: s, search)
    looks = any_member(search.walk.active)
    return jax.lax.cond((search.stage == LOOK) & ~looks, _conclude, lambda s: s, search)


def _remembering(search: Search) -> State:
    """The end of a climb, with the way it came where it set out from an earlier one's end."""
    state = search.state
    before = state._replace(point=state.point._replace(z=search.begun.z, value=search.begun.value))
    return select(search.begun.rises > 0, remember_rise(state, before), state)


def _conclude(search: Search) -> Search:
    """The end of a climb and its excursions; where ℓ was seen to rise a finite way off, the
    outset of another climb from there.
    """
    state = search.state
    begun = search.begun
    seen = arrived(_explored(search), search.far, search.why, search.walk)
    if search.kink is not None:
        seen = at_kink(seen, search.kink)
    seen = seen._replace(steps=seen.steps + begun.steps)
    limit = select(search.is_open, seen, search.limit)
    rises = search.is_open & (limit.shape == Shape.RISES) & (begun.rises < MAX_RISES)
    again = Start(begun.rises + 1, state.point.z, state.point.value, state.steps + limit.steps)
    return search._replace(
        stage=jnp.where(any_member(rises), CLIMB, LAST).astype(search.stage.dtype),
        is_open=rises,
        begun=select(rises, again, begun),
        sets_out=rises,
        limit=limit,
    )
