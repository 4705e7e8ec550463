"""A maximum at a kink of ℓ: where the score jumps through zero, as at a median.

A climb by derivatives ends nowhere in particular on such a likelihood: its Hessian says nothing of
the jump. From its end the maximum is sought as by the simplex method. One line search after the
other, each bisected on the sign of the slope, finds the surfaces on which the score jumps; what was
found is held while the next line runs along it. Once no line rises, the score at one point of each
neighbouring cell shows whether a convex combination of them is zero: then this is a maximum.
A surface whose share of that combination is negative, or above one, is left again (the ratio test
of the simplex). The combination of the cells' Hessians is the curvature along the surfaces; Newton
steps by it solve the coordinates that are at no kink (Mifflin & Sagastizábal 2005, Math. Program.
104, 583: the 𝒱𝒰-decomposition).

Nothing is taken on trust: ℓ must be continuous there and fall both ways along each held direction,
and the jumps must be the same a hundred times nearer. Where ℓ is level between two kinks, as at the
median of an even number of values, the middle is the estimate.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.linalg import eigh
from jaxmle.solvers.status import AT_A_KINK, LEVEL_BETWEEN_KINKS
from jaxmle.solvers.trust_region import (
    DONE,
    RUNNING,
    SETTLED,
    STUCK,
    Point,
    State,
    is_finite,
    noise_of,
)

MAX_COORDINATES = 32  # the cells about a vertex take k³ numbers
PROBES = 4  # points whose slopes tell the scale of each coordinate
PROBE_OFFSET = 1e-7  # relative to the coordinate, or to one
MAX_LINES_WITHOUT_KINK = 10
MAX_LINES_PER_COORDINATE = 20
MAX_TRIALS_OF_A_LINE = 150
MAX_EXPANSIONS = 16
EXPANSION = 8.0
MAX_SCALED_STEP = 1e3
OFFSET_EXPONENT = 0.5  # √ε scaled units (1.5e-8 in float64) from a vertex into its cells
NEARER = 100.0  # factor by which the cells are looked at again
WIDER = 1e3  # factor by which the values are looked at
SHARE_OF_SLOPE = 0.3  # of the slope at the outset: a trial with less of it is kept
SHARE_OF_BEND = 0.5  # of a change of slope: with less of it by curvature there are kinks between
MIN_BRACKET_OF_SMOOTH_END = 0.01  # of the way: in a narrower one there is a kink to be held
SHARE_OF_JUMP_KEPT = 0.5  # of a jump: less says that the surface was lost
SAME_JUMP = 0.01  # relative difference of the jumps a hundred times nearer
DECREMENT_TO_LEAVE = 1e-6  # of the free coordinates, below which a surface may be left
DECREMENT_AT_END = 1e-18
MAX_POLISHING_STEPS = 6
MIN_JUMP = 1e-7  # scaled
PROBING, SURVEYING, SEARCHING, MEASURING, CHECKING, OVER = range(6)
SIDES_APART = 8.0  # of the least distance at which the two sides of a kink are clear of it


class End(NamedTuple):
    """One end of the bracket of a line search."""

    t: Array
    value: Array
    slope: Array
    score: Array  # (k,)
    known: Array  # ℓ is finite there


class Line(NamedTuple):
    """A line search from the present vertex."""

    direction: Array  # (k,)
    slope: Array  # () at the outset
    slack: Array  # () slopes down to minus this count as rising
    level: Array  # the line runs along level ground
    leaving: Array  # slot of the surface that it leaves, −1
    t: Array  # of the trial
    trials: Array
    lower: End
    upper: End
    apart: Array  # how far from a kink its two sides are looked at


class Search(NamedTuple):
    """The search so far, and the point that is asked for next."""

    trial: Array  # (k,)
    active: Array
    stage: Array
    place: Array  # the probe, the cell or the check that is asked for
    steps: Array
    lines: Array
    polished: Array
    scale: Array  # D (k,)
    z: Array  # (k,) the present vertex
    value: Array  # ℓ there
    noise: Array
    normals: Array  # (k + 1, k) unit normals of the surfaces that are held, scaled coordinates
    jumps: Array  # (k + 1,) of the scaled score across them, zero where a slot is free
    fine: Array  # the cells are looked at a hundred times nearer
    wandered: Array  # a line along level ground was tried
    is_level: Array  # the vertex is the middle of a segment; the last normal is its direction
    line: Line
    cells: Point  # (k + 1, …) the cell on the lower side of all surfaces, then across each one
    weights: Array  # (k,) the share λ of each jump in the combination that is zero
    vif: Array  # tr R⁻¹ of the free coordinates
    centre: Point  # the vertex itself
    found: Array


class Kink(NamedTuple):
    """A maximum at a kink, if there is one."""

    code: Array  # a certificate; 0 where there is none
    point: Point  # score and Hessian are those of the combination of cells
    scale: Array  # D (k,)
    held: Array  # (k, k) projector on the held directions, scaled coordinates
    vif: Array
    steps: Array


def may_be_kinked(state: State) -> Array:
    """Whether a climb ended as one does at a kink: stuck, singular or out of steps."""
    xp = namespace(state.point.z)
    regular = state.newton.definite & state.newton.convex
    settled = (state.outcome == SETTLED) | (state.outcome == STUCK)
    unsettled = (state.outcome == STUCK) & (state.newton.decrement > DECREMENT_TO_LEAVE)
    return (
        ((settled & ~regular) | unsettled | (state.phase != DONE))
        & is_finite(state.point)
        & xp.asarray(state.point.z.shape[0] <= MAX_COORDINATES)
    )


def seek_kink(evaluate: Callable[[Array], Point], state: State) -> Kink:
    """The kink at which a climb ended, if it did; costs nothing where it cannot have."""
    search = begin_search(state, may_be_kinked(state))
    if isinstance(state.point.z, np.ndarray):
        with np.errstate(all="ignore"):
            while search.active:
                search = proceed(state, search, evaluate(search.trial))
            return kink_of(state, search)

    def body(search: Any) -> Any:
        return proceed(state, search, evaluate(search.trial))

    return kink_of(
        state, jax.lax.while_loop(lambda s: s.active, body, jax.tree.map(jnp.asarray, search))
    )


def without(kink: Kink, state: State) -> State:
    """The state for what looks at the end of a climb otherwise: not settled where there is a
    kink.
    """
    xp = namespace(state.point.z)
    return state._replace(outcome=xp.where(kink.code > 0, RUNNING, state.outcome))


# ---------------------------------------------------------------- the state machine


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
    scale = xp.maximum(_steepness(state.point), 1.0 / size)
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
        wandered=no,
        is_level=no,
        line=Line(flat, nothing, nothing, no, count - 1, nothing, count, end, end, nothing),
        cells=jax.tree.map(
            lambda leaf: xp.zeros((k + 1, *xp.shape(leaf)), xp.asarray(leaf).dtype), state.point
        ),
        weights=flat,
        vif=nothing,
        centre=jax.tree.map(xp.asarray, state.point),
        found=no,
    )


def proceed(state: State, search: Search, point: Point) -> Search:
    """What follows from one evaluation."""
    search = search._replace(steps=search.steps + 1)
    stages = (_probed, _surveyed, _searched, _measured, _checked)
    if isinstance(point.z, np.ndarray):
        return _like(stages[int(search.stage)](state, search, point), search)
    ways = [functools.partial(_followed, follow) for follow in stages]
    return jax.lax.switch(search.stage, ways, state, search, point)


def _followed(follow: Callable[..., Search], state: State, search: Search, point: Point) -> Search:
    return _like(follow(state, search, point), search)


def _like(new: Search, old: Search) -> Search:
    xp = namespace(old.trial)
    return jax.tree.map(lambda a, b: xp.asarray(a).astype(b.dtype), new, old)


def _choose(condition: Array, new: Any, old: Any) -> Any:
    xp = namespace(jax.tree.leaves(old)[0])
    return jax.tree.map(lambda a, b: xp.where(condition, a, b).astype(b.dtype), new, old)


def _either(condition: Array, new: Callable[[], Search], old: Callable[[], Search]) -> Search:
    """One of two searches; on the host the other is not computed."""
    if isinstance(condition, bool | np.bool_ | np.ndarray):
        return new() if condition else old()
    return _choose(condition, new(), old())


def _ended(search: Search, found: Any = False) -> Search:
    xp = namespace(search.trial)
    over = xp.asarray(OVER).astype(xp.int32)
    return search._replace(
        stage=over, active=xp.zeros_like(search.active), found=found | xp.zeros_like(search.found)
    )


def _probe(z: Array, turn: Any) -> Array:
    """A point a little off in all coordinates, each turn in another pattern of signs."""
    xp = namespace(z)
    odd = (xp.arange(z.shape[0]) * (turn // 2)) % 2
    sign = xp.where((odd + turn) % 2 == 0, 1.0, -1.0)
    return z + (sign * PROBE_OFFSET * xp.maximum(xp.abs(z), 1.0)).astype(z.dtype)


def _steepness(point: Point) -> Array:
    """Curvature or slope of each coordinate (k,), whichever is larger, in units of 1/z."""
    xp = namespace(point.z)
    return xp.maximum(xp.sqrt(xp.abs(xp.diagonal(point.hessian))), xp.abs(point.score))


def _probed(state: State, search: Search, point: Point) -> Search:
    """The scale of each coordinate: its curvature or slope, whichever is larger, seen near by."""
    xp = namespace(point.z)
    seen = xp.where(is_finite(point), _steepness(point), 0.0)
    place = search.place + 1
    search = search._replace(
        place=place,
        scale=xp.maximum(search.scale, seen),
        noise=xp.maximum(search.noise, xp.where(is_finite(point), noise_of(point), 0.0)),
        trial=_probe(search.z, place),
    )
    return _either(place < PROBES, lambda: search, lambda: _to_survey(search))


# ---------------------------------------------------------------- the cells about a vertex


def _offset(search: Search) -> Array:
    """How far from the vertex the cells are looked at, in scaled units."""
    xp = namespace(search.z)
    eps = xp.finfo(search.z.dtype).eps
    size = xp.max(xp.abs(search.scale * search.z))
    near = xp.maximum(eps**OFFSET_EXPONENT, 1e5 * eps * size)
    return near / xp.where(search.fine, NEARER, 1.0)


def _dual(normals: Array, held: Array) -> tuple[Array, Array]:
    """For each normal that is held the vector (k + 1, k) whose product with it is one and with all
    others zero; and the projector (k, k) on the span of them.
    """
    xp = namespace(normals)
    masked = xp.where(held[:, None], normals, 0.0)
    u, sizes, v = xp.linalg.svd(masked, full_matrices=False)
    kept = sizes > xp.sqrt(xp.finfo(sizes.dtype).eps) * MIN_JUMP
    inverse = xp.where(kept, 1.0 / xp.where(kept, sizes, 1.0), 0.0)
    spanned = xp.where(kept[:, None], v, 0.0)
    return (u * inverse[None, :]) @ v, spanned.T @ spanned


def _across(search: Search) -> Array:
    """For each surface the unit direction (k + 1, k) across it and along all others."""
    xp = namespace(search.z)
    across, _ = _dual(search.normals, search.jumps > 0)
    return across / xp.maximum(xp.sqrt(xp.sum(across**2, axis=1)), 1e-30)[:, None]


def _cell(search: Search, place: Array) -> Array:
    """A point (k,) in the cell on the lower side of all surfaces but the one of this place."""
    xp = namespace(search.z)
    k = search.z.shape[0]
    held = (search.jumps > 0)[:k]
    sign = xp.where(xp.arange(k) == place - 1, 1.0, -1.0)
    u = (xp.where(held, sign, 0.0)) @ _across(search)[:k]
    return search.z + (_offset(search) * u / search.scale).astype(search.z.dtype)


def _next_place(search: Search, place: Array) -> Array:
    """The next surface that is held after this place, k + 1 after the last."""
    xp = namespace(search.z)
    k = search.z.shape[0]
    slots = xp.arange(k) + 1
    open_slots = (search.jumps[:k] > 0) & (slots > place)
    return xp.min(xp.where(open_slots, slots, k + 1)).astype(xp.int32)


def _to_survey(search: Search) -> Search:
    xp = namespace(search.z)
    place = xp.zeros_like(search.place)
    search = search._replace(stage=xp.zeros_like(search.stage) + SURVEYING, place=place)
    return search._replace(trial=_cell(search, place))


def _surveyed(state: State, search: Search, point: Point) -> Search:
    """Note one cell; after the last of them decide."""
    xp = namespace(point.z)
    k = point.z.shape[0]

    def noted(cells: Array, new: Array) -> Array:
        places = xp.arange(k + 1).reshape((-1,) + (1,) * xp.ndim(new))
        return xp.where(places == search.place, xp.asarray(new)[None], cells)

    place = _next_place(search, search.place)
    search = search._replace(cells=jax.tree.map(noted, search.cells, point), place=place)
    goes_on = is_finite(point) & (place <= k)
    return _either(
        goes_on,
        lambda: search._replace(trial=_cell(search, place)),
        lambda: _either(is_finite(point), lambda: _decide(search), lambda: _ended(search)),
    )


class Ground(NamedTuple):
    """The tangent space of the held surfaces and the step along it."""

    step: Array  # (k,) scaled
    decrement: Array
    rising: Array  # () the largest slope along a direction without curvature
    weakest: Array  # (k,) the direction of least curvature
    is_flat: Array  # there is a direction without curvature
    definite: Array
    vif: Array


def _ground(normals: Array, held: Array, hessian: Array, slope: Array) -> Ground:
    xp = namespace(slope)
    k = slope.shape[0]
    _, along_normals = _dual(normals, held)
    p = xp.eye(k, dtype=slope.dtype) - along_normals
    values, q = eigh(-p @ hessian @ p + along_normals)
    along = q.T @ (p @ slope)
    cut = xp.sqrt(xp.finfo(slope.dtype).eps)
    curvature = xp.abs(values)
    flat = curvature <= cut
    safe = xp.where(flat, 1.0, curvature)
    w = along / safe
    length = xp.sqrt(xp.sum(w**2))
    w = w * xp.minimum(1.0, MAX_SCALED_STEP / xp.maximum(length, 1e-30))
    least = xp.arange(k) == xp.argmin(curvature)
    return Ground(
        p @ (q @ w),
        0.5 * xp.sum(xp.where(flat, 0.0, along**2 / safe)),
        xp.max(xp.where(flat, xp.abs(along), 0.0)),
        p @ (q @ xp.where(least, 1.0, 0.0)),
        xp.any(flat),
        xp.all(values > cut),
        xp.sum(1.0 / safe) - xp.sum(xp.where(held, 1.0, 0.0)),
    )


def _at_vertex(search: Search) -> tuple[Array, Array]:
    """Score (k + 1, k) and Hessian (k + 1, k, k) of each cell, carried to the vertex, scaled."""
    xp = namespace(search.z)
    d = search.scale
    hessian = search.cells.hessian / (d[:, None] * d[None, :])[None]
    hessian = 0.5 * (hessian + xp.swapaxes(hessian, 1, 2))
    u = (search.cells.z - search.z[None, :]) * d[None, :]
    score = search.cells.score / d[None, :]
    return score - xp.sum(hessian * u[:, None, :], axis=2), hessian


class Jumps(NamedTuple):
    """The surfaces as the cells show them, and the combination of cells nearest to zero."""

    normals: Array
    jumps: Array
    same: Array  # nothing changed since they were last seen
    weights: Array  # (k,) λ
    rest: Array  # (k,) the combination
    hessian: Array  # (k, k)
    joint: Array  # (k,) the score across all surfaces, if their jumps add up


def _jumps(search: Search) -> Jumps:
    xp = namespace(search.z)
    k = search.z.shape[0]
    score, hessian = _at_vertex(search)
    jump = xp.where((search.jumps > 0)[:k, None], score[:1] - score[1:], 0.0)
    size = xp.sqrt(xp.sum(jump**2, axis=1))
    before = search.jumps[:k]
    alive = (before > 0) & (
        xp.sum(jump * search.normals[:k], axis=1) >= SHARE_OF_JUMP_KEPT * before
    )
    moved = xp.sqrt(xp.sum((jump - before[:, None] * search.normals[:k]) ** 2, axis=1))
    same = xp.all((before == 0) | (alive & (moved <= SAME_JUMP * before)))
    unit = jump / xp.where(alive, size, 1.0)[:, None]
    normals = xp.concatenate([xp.where(alive[:, None], unit, 0.0), search.normals[k:]])
    jumps = xp.concatenate([xp.where(alive, size, 0.0), search.jumps[k:]])
    held = jumps > 0
    dual, along_normals = _dual(normals, held)
    share = dual @ score[0]
    rest = score[0] - along_normals @ score[0]
    weights = xp.where(held[:k], share[:k] / xp.where(alive, size, 1.0), 0.0)
    clipped = xp.clip(weights, 0.0, 1.0)
    mixed = hessian[0] + xp.sum(clipped[:, None, None] * (hessian[1:] - hessian[:1]), axis=0)
    joint = score[0] - xp.sum(jump, axis=0)
    return Jumps(normals, jumps, same, weights, rest, mixed, joint)


def _slack(search: Search) -> Array:
    """A scaled slope that rounding explains."""
    xp = namespace(search.z)
    eps = xp.finfo(search.z.dtype).eps
    return xp.maximum(xp.maximum(eps**0.575, 1e-10), 16 * search.noise)


def _decide(search: Search) -> Search:
    """Rise along the surfaces, leave one of them, go along level ground, or stop."""
    xp = namespace(search.z)
    k = search.z.shape[0]
    search = _choose(search.fine, search, _centred(search))
    seen = _jumps(search)
    search = search._replace(normals=seen.normals, jumps=seen.jumps, weights=seen.weights)
    held = seen.jumps > 0
    size = seen.jumps[:k]
    slack = _slack(search)
    tolerance = xp.sqrt(xp.finfo(search.z.dtype).eps)
    ground = _ground(seen.normals, held, seen.hessian, seen.rest)
    search = search._replace(vif=ground.vif)

    excess = seen.weights - xp.clip(seen.weights, 0.0, 1.0)
    burden = xp.where(held[:k], xp.abs(excess) * size, 0.0)
    worst = xp.argmax(burden)
    slots = xp.arange(k + 1)
    is_worst = slots == worst
    pull = xp.sum(xp.where(is_worst[:k, None], (excess * size)[:, None] * seen.normals[:k], 0.0), 0)
    out = _ground(seen.normals, held & ~is_worst, seen.hessian, seen.rest + pull)

    edge = (xp.minimum(xp.abs(seen.weights), xp.abs(seen.weights - 1.0)) <= tolerance) & held[:k]
    on_edge = slots[:k] == xp.argmax(edge)
    side = xp.sum(xp.where(on_edge, xp.where(seen.weights > 0.5, 1.0, -1.0), 0.0))
    level_step = side * xp.sum(xp.where(on_edge[:, None], _across(search)[:k], 0.0), axis=0)

    rises = (ground.decrement > DECREMENT_TO_LEAVE) | (ground.rising > slack)
    leaves = xp.max(burden) > xp.maximum(slack, tolerance * xp.max(size))
    polishes = (ground.decrement > DECREMENT_AT_END) & (search.polished < MAX_POLISHING_STEPS)
    level = xp.any(edge) & ~search.is_level
    wanders = ground.is_flat & ~search.wandered & ~search.is_level
    on_level = ~rises & ~leaves & ~polishes
    onto_edge = on_level & level
    ways = (
        (rises | polishes & ~leaves, ground.step, -1),
        (leaves, out.step, worst),
        (level, level_step, xp.argmax(edge)),
        (wanders, ground.weakest, -1),
    )
    move = xp.zeros_like(search.z)
    leaving = search.line.leaving
    for applies, direction, slot in reversed(ways):
        move = xp.where(applies, direction, move)
        leaving = xp.where(applies, slot, leaving)
    gain = xp.where(leaves & ~rises, (seen.rest + pull) @ out.step, seen.rest @ ground.step)
    slope = xp.where(on_level, 0.0, gain)
    search = search._replace(
        polished=search.polished + (polishes & ~rises & ~leaves),
        wandered=search.wandered | (on_level & wanders & ~onto_edge),
    )
    none = ~xp.any(held)
    too_long = (search.lines >= MAX_LINES_PER_COORDINATE * (k + 1)) | (
        none & (search.lines >= MAX_LINES_WITHOUT_KINK)
    )
    gives_up = search.fine | too_long

    def onward() -> Search:
        return _to_line(search, move / search.scale, slope, on_level, leaving, slack)

    def stops() -> Search:
        nearer = _to_survey(search._replace(fine=xp.ones_like(search.fine)))
        looks = _choose(search.fine, _to_check(search), nearer)
        is_vertex = ~none & ground.definite & (~search.fine | seen.same)
        return _choose(is_vertex, looks, _ended(search))

    return _either(
        rises | leaves | polishes | level | wanders,
        lambda: _either(gives_up, lambda: _ended(search), onward),
        stops,
    )


def _centred(search: Search) -> Search:
    """The vertex put back on the surfaces, from which rounding let it drift along other lines: where
    the values of the cells, carried to it, agree.
    """
    xp = namespace(search.z)
    k = search.z.shape[0]
    fitted = _carried_values(search, search.z)
    jumps = search.jumps[:k]
    held = jumps > 0
    gap = xp.where(held, fitted[1:] - fitted[0], 0.0)
    gap = xp.where(xp.abs(gap) > 0.25 * search.noise, gap, 0.0)
    across = _across(search)[:k]
    steepness = jumps * xp.sum(search.normals[:k] * across, axis=1)
    back = (gap / xp.where(held, steepness, 1.0)) @ across
    size = xp.max(xp.abs(back))
    back = back * xp.minimum(1.0, _offset(search) / xp.maximum(size, 1e-30))
    return search._replace(z=search.z + back / search.scale)


def _carried_values(search: Search, z: Array) -> Array:
    """ℓ of each cell (k + 1,) carried to a point z (k,) by its own slope."""
    xp = namespace(z)
    return search.cells.value - xp.sum(search.cells.score * (search.cells.z - z[None, :]), axis=1)


# ---------------------------------------------------------------- lines


def _to_line(
    search: Search, direction: Array, slope: Array, level: Array, leaving: Array, slack: Array
) -> Search:
    xp = namespace(search.z)
    one = xp.ones_like(slope)
    blank = search.line.lower
    lower = blank._replace(
        t=0.0 * one, value=search.value, slope=slope, score=search.cells.score[0], known=one > 0
    )
    upper = blank._replace(t=xp.inf * one, known=one < 0)
    line = Line(
        direction,
        slope,
        xp.where(level, slack, 0.0),
        level,
        leaving,
        one,
        xp.zeros_like(search.line.trials),
        lower,
        upper,
        0.0 * one,
    )
    return search._replace(
        stage=xp.zeros_like(search.stage) + SEARCHING,
        line=line,
        lines=search.lines + 1,
        trial=search.z + direction,
    )


def _searched(state: State, search: Search, point: Point) -> Search:
    """One trial of a line: narrow the bracket about the place where the slope changes its sign."""
    xp = namespace(point.z)
    line = search.line
    finite = is_finite(point)
    slope = xp.where(finite, point.score @ line.direction, -xp.inf)
    value = xp.where(finite, point.value, -xp.inf)
    noise = 4 * search.noise
    rises = finite & (slope >= -line.slack) & (value >= line.lower.value - noise)
    rises = rises & (line.level | (slope > 0))
    trial = End(line.t, value, slope, xp.where(finite, point.score, 0.0), finite)
    lower = _choose(rises, trial, line.lower)
    upper = _choose(rises, line.upper, trial)
    bend = -(line.direction @ point.hessian @ line.direction) * line.t
    smooth = bend >= SHARE_OF_BEND * (line.slope - slope)
    enough = (
        finite
        & ~line.level
        & smooth
        & (upper.t - lower.t >= MIN_BRACKET_OF_SMOOTH_END * line.t)
        & (xp.abs(slope) <= SHARE_OF_SLOPE * line.slope)
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
        t = xp.where(bracketed, _between(search, rises, narrow), EXPANSION * line.t)
        trial = search.z + (t * line.direction).astype(point.z.dtype)
        return _choose(lost, _ended(search), search._replace(line=line._replace(t=t), trial=trial))

    def unfinished() -> Search:
        return _either(closed, lambda: _turned(search), onward)

    return _either(enough, lambda: _kept(search, point), unfinished)


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
    meet = low.t + (high.value - low.value - high.slope * width) / safe
    nudge = xp.maximum(0.5 * narrow, 4 * search.noise / safe)
    beyond = xp.where(risen, low.t + nudge, high.t - nudge)
    turn = line.trials % 3
    t = xp.where(turn == 1, meet, xp.where(turn == 2, beyond, xp.nan))
    inside = high.known & (drop > 0) & (t > low.t) & (t < high.t)
    return xp.where(inside, t, low.t + 0.5 * width)


def _kept(search: Search, point: Point) -> Search:
    """Go on from a trial at which the slope is small; the surface that was left is free."""
    xp = namespace(point.z)
    slots = xp.arange(search.jumps.shape[0])
    jumps = xp.where(slots == search.line.leaving, 0.0, search.jumps)
    return _to_survey(search._replace(z=point.z, value=point.value, jumps=jumps))


def _turned(search: Search) -> Search:
    """The slope changes its sign within rounding: at a kink, whose jump is measured; at the end of
    level ground, whose middle is kept; else smoothly.
    """
    xp = namespace(search.z)
    line = search.line
    k = search.z.shape[0]
    low = line.lower
    high = line.upper
    t = 0.5 * (low.t + high.t)
    length = xp.sqrt(xp.sum((search.scale * line.direction) ** 2))
    drop = low.slope - high.slope
    kinked = high.known & (high.slope <= 0) & (drop > _slack(search) * length)
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
    apart = SIDES_APART * _offset(search) * bound / xp.where(kinked, drop, 1.0)
    measured = search._replace(
        stage=xp.zeros_like(search.stage) + MEASURING,
        place=xp.zeros_like(search.place),
        line=line._replace(t=t, apart=apart),
        value=low.value,
        jumps=jumps,
    )
    ends_level = line.level & (line.leaving >= 0)
    sound = kinked | (high.known & ~line.level)

    def surveys() -> Search:
        return _to_survey(_choose(kinked, middle, smooth))

    def goes_on() -> Search:
        return _either(
            kinked & ~ends_level, lambda: measured._replace(trial=_side(measured)), surveys
        )

    return _either(sound, goes_on, lambda: _ended(search))


def _side(search: Search) -> Array:
    """A point (k,) beside the kink of a line, clear of it and of the surfaces that are held."""
    xp = namespace(search.z)
    line = search.line
    leaves = line.leaving >= 0
    back = xp.where(leaves, xp.minimum(line.apart, 0.5 * line.t), line.apart)
    along = (line.t + xp.where(search.place == 0, -back, line.apart)) * line.direction
    return _cell(search, xp.zeros_like(search.place)) + along.astype(search.z.dtype)


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
        return _either(size > MIN_JUMP, lambda: _to_survey(new), lambda: _ended(search))

    return _either(first, lambda: search._replace(trial=_side(search)), held)


# ---------------------------------------------------------------- the proof


def _to_check(search: Search) -> Search:
    xp = namespace(search.z)
    return search._replace(
        stage=xp.zeros_like(search.stage) + CHECKING,
        place=xp.zeros_like(search.place),
        trial=search.z,
        found=xp.ones_like(search.found),
    )


def _checks(search: Search, place: Array) -> tuple[Array, Array, Array]:
    """Where a check looks: the direction (k,) in scaled coordinates, how far, and the slope on the
    way out (); place 0 is the vertex, 1 the cell across all surfaces, then two for each slot.
    """
    xp = namespace(search.z)
    k = search.z.shape[0]
    across = _across(search)[:k]
    held = search.jumps[:k] > 0
    slot = (place - 2) // 2
    chosen = xp.arange(k) == slot
    sign = xp.where(place % 2 == 0, 1.0, -1.0)
    one = sign * xp.sum(xp.where(chosen[:, None], across, 0.0), axis=0)
    every = xp.sum(xp.where(held[:, None], across, 0.0), axis=0)
    share = xp.where(place % 2 == 0, 1.0 - search.weights, search.weights)
    crossing = xp.sum(search.normals[:k] * across, axis=1)
    slope = -xp.sum(xp.where(chosen, share * search.jumps[:k] * crossing, 0.0))
    jump = xp.sum(xp.where(chosen, search.jumps[:k], 0.0))
    wide = xp.maximum(WIDER * _offset(search), 1e3 * search.noise / xp.maximum(jump, MIN_JUMP))
    direction = xp.where(place == 1, every, one)
    return direction, xp.where(place == 1, _offset(search), wide), slope


def _checked(state: State, search: Search, point: Point) -> Search:
    """One look about the vertex; after the last of them it is found, if all were right."""
    xp = namespace(point.z)
    k = point.z.shape[0]
    place = search.place
    noise = 10 * search.noise
    direction, far, slope = _checks(search, place)
    seen = _jumps(search)
    largest = xp.max(search.jumps[:k])
    score = point.score / search.scale
    hessian = point.hessian / (search.scale[:, None] * search.scale[None, :])

    # The cells themselves: continuous at the vertex, which is as high as the climb.
    fitted = _carried_values(search, point.z)
    used = xp.concatenate([xp.ones(1, bool), search.jumps[:k] > 0])
    apart = xp.max(xp.where(used, xp.abs(fitted - point.value), 0.0))
    continuous = apart <= noise + 0.1 * largest * _offset(search)
    high = point.value >= state.point.value - noise
    at_vertex = continuous & high

    # The cell across all surfaces: if jumps do not add up, the cells must enclose zero themselves.
    there = score - hessian @ (_offset(search) * direction)
    add_up = xp.max(xp.abs(there - seen.joint)) <= 0.05 * largest
    enclosed = xp.sum(search.weights) <= 1.0 + 1e-6
    sides = add_up | enclosed

    # ℓ falls as the slopes at both ends say.
    change = point.value - search.centre.value
    end = score @ direction
    expected = 0.5 * (slope + end) * far
    allowed = (0.5 * xp.abs(slope - end) + 0.05 * largest) * far + noise
    falls = (xp.abs(change - expected) <= allowed) & (end <= 0.01 * largest) & (change <= noise)

    right = xp.where(place == 0, at_vertex, xp.where(place == 1, sides, falls))
    found = search.found & right & is_finite(point)
    slot = _next_place(search, xp.maximum(place - 2, -1) // 2 + 1)
    later = xp.where((place >= 2) & (place % 2 == 0), place + 1, 2 * slot)
    following = xp.where(place == 0, 1, later)
    search = search._replace(
        centre=_choose(place == 0, point, search.centre), found=found, place=following
    )
    aim, reach, _ = _checks(search, following)
    onward = search._replace(trial=search.z + (reach * aim / search.scale).astype(point.z.dtype))
    over = ~found | (following >= 2 * (k + 1))
    return _choose(over, _ended(search, found), onward)


# ---------------------------------------------------------------- the result


def kink_of(state: State, search: Search) -> Kink:
    """What the search found."""
    xp = namespace(search.z)
    k = search.z.shape[0]
    shares = xp.clip(search.weights, 0.0, 1.0)
    shares = xp.concatenate([(1.0 - xp.sum(shares))[None], shares])
    used = xp.concatenate([xp.ones(1, bool), search.jumps[:k] > 0])

    def mixed(cells: Array, old: Array) -> Array:
        weight = xp.where(used, shares, 0.0).reshape((-1,) + (1,) * (cells.ndim - 1))
        return xp.sum(xp.where(weight == 0, 0.0, weight * cells), axis=0).astype(cells.dtype)

    point = jax.tree.map(mixed, search.cells, state.point)
    point = point._replace(z=search.z, value=search.centre.value)
    if hasattr(point.aux, "jacobian"):
        point = point._replace(
            aux=point.aux._replace(x=search.centre.aux.x, jacobian=search.centre.aux.jacobian)
        )
    point = _choose(search.found, point, state.point)
    _, projector = _dual(search.normals, search.jumps > 0)
    code = AT_A_KINK + xp.where(search.is_level, LEVEL_BETWEEN_KINKS, 0)
    return Kink(
        xp.where(search.found, code, 0).astype(xp.int32),
        point,
        search.scale,
        projector,
        search.vif,
        search.steps,
    )
