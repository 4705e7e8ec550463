"""The search for a maximum at a kink, from vertex to vertex as by the simplex method.

Line searches, by bisection on the sign of the slope, find the surfaces on which the score jumps. A
surface that was found is held while the next line search runs along it. It is left again if its
share of the combination of cells (``kinks``) is negative or above one: the ratio test of the
simplex method.

The result is checked: ℓ must be continuous at the end and fall both ways along each held direction,
and the jumps must be the same at a hundredth of the distance. Where ℓ is level between two kinks,
as at the median of an even number of values, the middle is the estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, FunctionTo
from jaxmle.solvers.state import Point, State, is_finite, noise_of, select
from jaxmle.verdict.kinks import (
    CELLS,
    CHECKING,
    DECREMENT_TO_LEAVE,
    MEASURING,
    MIN_JUMP,
    PROBING,
    SEARCHING,
    End,
    Jumps,
    Kink,
    Line,
    Search,
    cell,
    checked,
    crossings_of,
    ended,
    jumps_of,
    kink_of,
    may_be_kinked,
    next_place,
    offset_of,
    slack_of,
    steepness,
    tangent_of,
)

NUMBER_OF_PROBES = 4  # points whose slopes tell the scale of each coordinate
PROBE_OFFSET = 1e-7  # relative to the coordinate, or to one
MAX_LINES_WITHOUT_KINK = 10
MAX_LINES_PER_COORDINATE = 20
MAX_TRIALS_OF_A_LINE = 150
MAX_EXPANSIONS = 16
EXPANSION_FACTOR = 8.0
SHARE_OF_FIRST_SLOPE = 0.3  # of the slope at the start: a trial with less is accepted
MIN_SHARE_OF_SLOPE_CHANGE = (
    0.5  # of a change of slope: with less of it by curvature there are kinks between
)
MIN_BRACKET_OF_SMOOTH_END = 0.01  # of the way: in a narrower one there is a kink to be held
DECREMENT_AT_END = 1e-18
MAX_POLISHING_STEPS = 6
SIDES_APART = 8.0  # of the least distance at which the two sides of a kink are clear of it


def seek_kink(evaluate: Callable[[Array], Point], state: State) -> Kink:
    """The kink at which an ascent ended, if there is one; no evaluation is made if there cannot be
    one.
    """
    search = begin_search(state, may_be_kinked(state))
    if isinstance(state.point.z, np.ndarray):
        with np.errstate(all="ignore"):
            while search.active:
                search = proceed(state, search, evaluate(search.trial))
            return kink_of(state, search)

    def body(search: Search) -> Search:
        return proceed(state, search, evaluate(search.trial))

    return kink_of(
        state, jax.lax.while_loop(lambda s: s.active, body, jax.tree.map(jnp.asarray, search))
    )


def begin_search(state: State, active: Array) -> Search:
    """The search before its first point."""
    z = state.point.z
    xp = namespace(z)
    k = z.shape[0]
    dtype = z.dtype
    count = xp.zeros((), dtype=xp.int32)
    nothing = xp.zeros((), dtype)
    flat = xp.zeros_like(z)
    no = xp.zeros((), dtype=bool)
    end = End(nothing, nothing, nothing, flat, no)
    size = xp.maximum(xp.abs(z), 1.0)
    scale = xp.maximum(steepness(state.point), 1.0 / size)
    return Search(
        trial=_probe(z, 0),
        active=active,
        stage=count + PROBING,
        place=count,
        steps=count,
        lines=count,
        polished=count,
        scale=scale,
        z=z,
        value=state.point.value,
        noise=noise_of(state.point),
        normals=xp.zeros((k + 1, k), dtype),
        jumps=xp.zeros((k + 1,), dtype),
        fine=no,
        tried_level=no,
        is_level=no,
        line=Line(flat, nothing, nothing, no, count - 1, nothing, count, end, end, nothing),
        cells=jax.tree.map(
            lambda leaf: xp.zeros((k + 1, *xp.shape(leaf)), xp.asarray(leaf).dtype), state.point
        ),
        weights=flat,
        centre=jax.tree.map(xp.asarray, state.point),
        is_found=no,
    )


def proceed(state: State, search: Search, point: Point) -> Search:
    """The next state, given one evaluation."""
    search = search._replace(steps=search.steps + 1)
    stages = (_probed, _noted_cell, _searched, _measured, checked)
    if isinstance(point.z, np.ndarray):
        return _like(stages[int(search.stage)](state, search, point), search)

    def typed(follow: FunctionTo[Search]) -> FunctionTo[Search]:
        return lambda *now: _like(follow(*now), search)

    return jax.lax.switch(search.stage, list(map(typed, stages)), state, search, point)


def _like(new: Search, old: Search) -> Search:
    xp = namespace(old.trial)
    return jax.tree.map(lambda a, b: xp.asarray(a).astype(b.dtype), new, old)


def _either(condition: Array, new: Callable[[], Search], old: Callable[[], Search]) -> Search:
    """One of two searches; on the host the other is not computed."""
    if isinstance(condition, bool | np.bool_ | np.ndarray):
        return new() if condition else old()
    return select(condition, new(), old())


def _probe(z: Array, turn: int | Array) -> Array:
    """A point slightly off in all coordinates, with another pattern of signs at each turn."""
    xp = namespace(z)
    odd = (xp.arange(z.shape[0]) * (turn // 2)) % 2
    sign = xp.where((odd + turn) % 2 == 0, 1.0, -1.0)
    return z + (sign * PROBE_OFFSET * xp.maximum(xp.abs(z), 1.0)).astype(z.dtype)


def _probed(state: State, search: Search, point: Point) -> Search:
    """Record the scale of each coordinate near the end: its curvature or slope, whichever is
    larger.
    """
    xp = namespace(point.z)
    seen = xp.where(is_finite(point), steepness(point), 0.0)
    place = search.place + 1
    search = search._replace(
        place=place,
        scale=xp.maximum(search.scale, seen),
        noise=xp.maximum(search.noise, xp.where(is_finite(point), noise_of(point), 0.0)),
        trial=_probe(search.z, place),
    )
    return _either(place < NUMBER_OF_PROBES, lambda: search, lambda: _to_cells(search))


def _to_cells(search: Search) -> Search:
    xp = namespace(search.z)
    place = xp.zeros_like(search.place)
    search = search._replace(stage=xp.zeros_like(search.stage) + CELLS, place=place)
    return search._replace(trial=cell(search, place))


def _noted_cell(state: State, search: Search, point: Point) -> Search:
    """Record one cell; after the last one, decide how to go on."""
    xp = namespace(point.z)
    k = point.z.shape[0]

    def noted(cells: Array, new: Array) -> Array:
        places = xp.arange(k + 1).reshape((-1,) + (1,) * xp.ndim(new))
        return xp.where(places == search.place, xp.asarray(new)[None], cells)

    place = next_place(search, search.place)
    search = search._replace(cells=jax.tree.map(noted, search.cells, point), place=place)
    goes_on = is_finite(point) & (place <= k)
    return _either(
        goes_on,
        lambda: search._replace(trial=cell(search, place)),
        lambda: _either(is_finite(point), lambda: _decide(search), lambda: ended(search)),
    )


class Departure(NamedTuple):
    """A step from a vertex that leaves one of the held surfaces."""

    slot: Array  # of the surface
    applies: Array
    step: Array  # (k,) scaled
    gain: Array  # slope along the step


def _least_held(search: Search, seen: Jumps, slack: Array) -> Departure:
    """The departure from the surface whose share of the combination is furthest outside [0, 1]."""
    xp = namespace(search.z)
    k = search.z.shape[0]
    held = seen.jumps > 0
    size = seen.jumps[:k]
    excess = xp.where(held[:k], (seen.weights - xp.clip(seen.weights, 0.0, 1.0)) * size, 0.0)
    slot = xp.argmax(xp.abs(excess))
    is_slot = xp.arange(k + 1) == slot
    pull = xp.sum(xp.where(is_slot[:k, None], excess[:, None] * seen.normals[:k], 0.0), axis=0)
    step = tangent_of(seen.normals, held & ~is_slot, seen.hessian, seen.rest + pull).step
    tolerance = xp.sqrt(xp.finfo(search.z.dtype).eps) * xp.max(size)
    leaves = xp.max(xp.abs(excess)) > xp.maximum(slack, tolerance)
    return Departure(slot, leaves, step, (seen.rest + pull) @ step)


def _level_departure(search: Search, seen: Jumps) -> Departure:
    """The departure from a surface whose share is 0 or 1, along which ℓ is level."""
    xp = namespace(search.z)
    k = search.z.shape[0]
    tolerance = xp.sqrt(xp.finfo(search.z.dtype).eps)
    near = xp.minimum(xp.abs(seen.weights), xp.abs(seen.weights - 1.0)) <= tolerance
    edge = near & (seen.jumps[:k] > 0)
    slot = xp.argmax(edge)
    side = xp.where(seen.weights > 0.5, 1.0, -1.0)
    chosen = xp.where(xp.arange(k) == slot, side, 0.0)
    step = chosen @ crossings_of(search)[:k]
    return Departure(slot, xp.any(edge) & ~search.is_level, step, 0.0 * search.value)


def _decide(search: Search) -> Search:
    """Choose the next line search: along the held surfaces, away from one of them, or where ℓ is
    level; or stop.
    """
    xp = namespace(search.z)
    k = search.z.shape[0]
    seen = jumps_of(search)
    search = search._replace(normals=seen.normals, jumps=seen.jumps, weights=seen.weights)
    held = seen.jumps > 0
    slack = slack_of(search)
    tangent = tangent_of(seen.normals, held, seen.hessian, seen.rest)
    out = _least_held(search, seen, slack)
    level = _level_departure(search, seen)

    rises = (tangent.decrement > DECREMENT_TO_LEAVE) | (tangent.rising > slack)
    leaves = out.applies & ~rises
    polishes = (tangent.decrement > DECREMENT_AT_END) & (search.polished < MAX_POLISHING_STEPS)
    polishes = polishes & ~rises & ~leaves
    on_level = ~rises & ~leaves & ~polishes
    onto_edge = on_level & level.applies
    tries_level = on_level & ~onto_edge & tangent.is_flat & ~search.tried_level & ~search.is_level
    ways = (
        (rises | polishes, tangent.step, seen.rest @ tangent.step, -1),
        (leaves, out.step, out.gain, out.slot),
        (onto_edge, level.step, level.gain, level.slot),
        (tries_level, tangent.weakest, level.gain, -1),
    )
    move = xp.zeros_like(search.z)
    slope = level.gain
    leaving = search.line.leaving
    for applies, step, gain, slot in ways:
        move = xp.where(applies, step, move)
        slope = xp.where(applies, gain, slope)
        leaving = xp.where(applies, slot, leaving)
    search = search._replace(
        polished=search.polished + polishes, tried_level=search.tried_level | tries_level
    )
    none = ~xp.any(held)
    too_long = (search.lines >= MAX_LINES_PER_COORDINATE * (k + 1)) | (
        none & (search.lines >= MAX_LINES_WITHOUT_KINK)
    )

    def onward() -> Search:
        gives_up = search.fine | too_long
        line = _to_line(search, move / search.scale, slope, on_level, leaving, slack)
        return select(gives_up, ended(search), line)

    def stops() -> Search:
        nearer = _to_cells(search._replace(fine=xp.ones_like(search.fine)))
        looks = select(search.fine, _to_check(search), nearer)
        is_vertex = ~none & tangent.definite & (~search.fine | seen.same)
        return select(is_vertex, looks, ended(search))

    return _either(~on_level | onto_edge | tries_level, onward, stops)


def _to_line(
    search: Search, direction: Array, slope: Array, level: Array, leaving: Array, slack: Array
) -> Search:
    xp = namespace(search.z)
    ones = xp.ones_like(slope)
    blank = search.line.lower
    lower = blank._replace(
        t=0.0 * ones, value=search.value, slope=slope, score=search.cells.score[0], known=ones > 0
    )
    upper = blank._replace(t=xp.inf * ones, known=ones < 0)
    line = Line(
        direction,
        slope,
        xp.where(level, slack, 0.0),
        level,
        leaving,
        ones,
        xp.zeros_like(search.line.trials),
        lower,
        upper,
        0.0 * ones,
    )
    return search._replace(
        stage=xp.zeros_like(search.stage) + SEARCHING,
        line=line,
        lines=search.lines + 1,
        trial=search.z + direction,
    )


def _searched(state: State, search: Search, point: Point) -> Search:
    """One trial of a line search: narrow the bracket around the change of sign of the slope."""
    xp = namespace(point.z)
    line = search.line
    finite = is_finite(point)
    slope = xp.where(finite, point.score @ line.direction, -xp.inf)
    value = xp.where(finite, point.value, -xp.inf)
    noise = 4 * search.noise
    rises = finite & (slope >= -line.slack) & (value >= line.lower.value - noise)
    rises = rises & (line.level | (slope > 0))
    trial = End(line.t, value, slope, xp.where(finite, point.score, 0.0), finite)
    lower = select(rises, trial, line.lower)
    upper = select(rises, line.upper, trial)
    curvature = -(line.direction @ point.hessian @ line.direction) * line.t
    smooth = curvature >= MIN_SHARE_OF_SLOPE_CHANGE * (line.slope - slope)
    enough = (
        finite
        & ~line.level
        & smooth
        & (upper.t - lower.t >= MIN_BRACKET_OF_SMOOTH_END * line.t)
        & (xp.abs(slope) <= SHARE_OF_FIRST_SLOPE * line.slope)
        & (value >= search.value - noise)
    )
    line = line._replace(lower=lower, upper=upper, trials=line.trials + 1)
    search = search._replace(line=line)
    length = xp.max(xp.abs(search.scale * line.direction))
    size = 1.0 + xp.max(xp.abs(search.scale * search.z))
    narrow = 8 * xp.finfo(point.z.dtype).eps * size / xp.maximum(length, 1e-30)
    closed = (upper.t - lower.t <= narrow) | (line.trials >= MAX_TRIALS_OF_A_LINE)
    lost = ~xp.isfinite(upper.t) & (line.trials >= MAX_EXPANSIONS)

    def onward() -> Search:
        bracketed = xp.isfinite(upper.t)
        t = xp.where(bracketed, _between(search, rises, narrow), EXPANSION_FACTOR * line.t)
        trial = search.z + (t * line.direction).astype(point.z.dtype)
        return select(lost, ended(search), search._replace(line=line._replace(t=t), trial=trial))

    def unfinished() -> Search:
        return _either(closed, lambda: _turned(search), onward)

    return _either(enough, lambda: _retained(search, point), unfinished)


def _between(search: Search, risen: Array, narrow: Array) -> Array:
    """The next trial within the bracket: where the tangents of its ends meet, then close beyond
    the last trial, then the middle.
    """
    xp = namespace(search.z)
    line = search.line
    low = line.lower
    high = line.upper
    width = high.t - low.t
    drop = low.slope - xp.where(high.known, high.slope, 0.0)
    safe = xp.where(high.known & (drop > 0), drop, 1.0)
    crossing = low.t + (high.value - low.value - high.slope * width) / safe
    margin = xp.maximum(0.5 * narrow, 4 * search.noise / safe)
    beyond = xp.where(risen, low.t + margin, high.t - margin)
    turn = line.trials % 3
    t = xp.where(turn == 1, crossing, xp.where(turn == 2, beyond, xp.nan))
    inside = high.known & (drop > 0) & (t > low.t) & (t < high.t)
    return xp.where(inside, t, low.t + 0.5 * width)


def _retained(search: Search, point: Point) -> Search:
    """Continue from a trial with a small slope, with the surface that was left released."""
    xp = namespace(point.z)
    slots = xp.arange(search.jumps.shape[0])
    jumps = xp.where(slots == search.line.leaving, 0.0, search.jumps)
    return _to_cells(search._replace(z=point.z, value=point.value, jumps=jumps))


def _turned(search: Search) -> Search:
    """The slope changes its sign within rounding: at a kink, whose jump is then measured; at the
    end of a level segment, whose middle is kept; or smoothly.
    """
    xp = namespace(search.z)
    line = search.line
    k = search.z.shape[0]
    low = line.lower
    high = line.upper
    t = 0.5 * (low.t + high.t)
    length = xp.sqrt(xp.sum((search.scale * line.direction) ** 2))
    drop = low.slope - high.slope
    kinked = high.known & (high.slope <= 0) & (drop > slack_of(search) * length)
    slots = xp.arange(k + 1)
    left = slots == line.leaving
    jumps = xp.where(left, 0.0, search.jumps)
    middle = search._replace(
        z=search.z + 0.5 * t * line.direction,
        normals=xp.where(
            (slots == k)[:, None],
            xp.sum(xp.where(left[:, None], search.normals, 0.0), axis=0)[None],
            search.normals,
        ),
        jumps=xp.where(slots == k, 1.0, jumps),
        is_level=xp.ones_like(search.is_level),
    )
    smooth = search._replace(z=search.z + low.t * line.direction, value=low.value, jumps=jumps)
    # The offset into the base cell moves a new surface by so much of the line at most.
    bound = xp.sum(search.jumps) + xp.sqrt(xp.sum(((low.score - high.score) / search.scale) ** 2))
    apart = SIDES_APART * offset_of(search) * bound / xp.where(kinked, drop, 1.0)
    measured = search._replace(
        stage=xp.zeros_like(search.stage) + MEASURING,
        place=xp.zeros_like(search.place),
        line=line._replace(t=t, apart=apart),
        value=low.value,
        jumps=jumps,
    )
    ends_level = line.level & (line.leaving >= 0)
    sound = kinked | (high.known & ~line.level)

    def looks_at_cells() -> Search:
        return _to_cells(select(kinked, middle, smooth))

    def goes_on() -> Search:
        return _either(
            kinked & ~ends_level, lambda: measured._replace(trial=_side(measured)), looks_at_cells
        )

    return _either(sound, goes_on, lambda: ended(search))


def _side(search: Search) -> Array:
    """A point (k,) on one side of the kink of a line, at a distance from it and from the held
    surfaces.
    """
    xp = namespace(search.z)
    line = search.line
    leaves = line.leaving >= 0
    back = xp.where(leaves, xp.minimum(line.apart, 0.5 * line.t), line.apart)
    along = (line.t + xp.where(search.place == 0, -back, line.apart)) * line.direction
    return cell(search, xp.zeros_like(search.place)) + along.astype(search.z.dtype)


def _measured(state: State, search: Search, point: Point) -> Search:
    """The jump of the score across the kink of a line, from both of its sides."""
    xp = namespace(point.z)
    line = search.line
    first = search.place == 0
    k = point.z.shape[0]
    score = point.score + point.hessian @ (search.z + line.t * line.direction - point.z)
    score = xp.where(is_finite(point), score, xp.nan)
    lower = line.lower._replace(score=xp.where(first, score, line.lower.score))
    search = search._replace(line=line._replace(lower=lower), place=xp.ones_like(search.place))
    jump = (lower.score - score) / search.scale
    size = xp.sqrt(xp.sum(jump**2))
    free = xp.arange(k + 1) == xp.argmax(search.jumps[:k] == 0)
    new = search._replace(
        z=search.z + line.t * line.direction,
        normals=xp.where(free[:, None], jump[None] / xp.maximum(size, 1e-30), search.normals),
        jumps=xp.where(free, size, search.jumps),
    )

    def held() -> Search:
        return _either(size > MIN_JUMP, lambda: _to_cells(new), lambda: ended(search))

    return _either(first, lambda: search._replace(trial=_side(search)), held)


def _to_check(search: Search) -> Search:
    xp = namespace(search.z)
    return search._replace(
        stage=xp.zeros_like(search.stage) + CHECKING,
        place=xp.zeros_like(search.place),
        trial=search.z,
        is_found=xp.ones_like(search.is_found),
    )
