"""A maximum at a kink of ℓ: where the score jumps through zero, as at a median.

An ascent by derivatives ends nowhere in particular on such a likelihood: its Hessian says nothing
of the jump. From its end, ``kink_search`` goes from vertex to vertex of the surfaces on which the
score jumps. This file examines one vertex. It is a maximum if a convex combination of the scores of
the neighbouring cells is zero. The same combination of their Hessians is the curvature along the
surfaces, with which the coordinates at no kink are solved (Mifflin & Sagastizábal 2005, Math.
Program. 104, 583: the 𝒱𝒰-decomposition).
"""

from __future__ import annotations

from typing import NamedTuple

import jax

from jaxmle._namespace import is_nowhere, namespace
from jaxmle._types import Array
from jaxmle.solvers.linalg import eigh
from jaxmle.solvers.state import (
    DONE,
    RUNNING,
    SETTLED,
    SLOW_ASCENT,
    STUCK,
    Point,
    State,
    is_finite,
    select,
)
from jaxmle.solvers.status import AT_A_KINK, LEVEL_BETWEEN_KINKS

MAX_COORDINATES = 32  # the cells about a vertex take k³ numbers
MAX_SCALED_STEP = 1e3
OFFSET_EXPONENT = 0.5  # √ε scaled units (1.5e-8 in float64) from a vertex into its cells
REFINEMENT_FACTOR = 100.0  # factor by which the cells are looked at again
ROUNDING_OF_WEIGHTS = 1e-6
MIN_REMAINING_SHARE_OF_JUMP = 0.5  # of a jump: less says that the surface was lost
SAME_JUMP = 0.01  # relative difference of the jumps a hundred times nearer
DECREMENT_TO_LEAVE = 1e-6  # of the free coordinates, below which a surface may be left
MIN_JUMP = 1e-7  # scaled
PROBING, CELLS, SEARCHING, MEASURING, CHECKING, OVER = range(6)
CHECK_DISTANCE = 1e3  # factor by which the values are looked at


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
    slope: Array  # () at the start
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
    tried_level: Array  # a line along level ground was tried
    is_level: Array  # the vertex is the middle of a segment; the last normal is its direction
    line: Line
    cells: Point  # (k + 1, …) the cell on the lower side of all surfaces, then across each one
    weights: Array  # (k,) the share λ of each jump in the combination that is zero
    centre: Point  # the vertex itself
    is_found: Array


class Kink(NamedTuple):
    """A maximum at a kink, if there is one."""

    code: Array  # a certificate; 0 where there is none
    point: Point  # score and Hessian are those of the combination of cells
    scale: Array  # D (k,)
    held: Array  # (k, k) projector on the held directions, scaled coordinates
    steps: Array


def may_be_kinked(state: State) -> Array:
    """Whether an ascent ended as at a kink: without progress, singular, or out of steps."""
    xp = namespace(state.point.z)
    regular = state.newton.definite & state.newton.convex
    settled = (state.outcome == SETTLED) | (state.outcome == STUCK)
    unsettled = (state.outcome == STUCK) & (state.newton.decrement > DECREMENT_TO_LEAVE)
    not_ended = (state.phase != DONE) | (state.outcome == SLOW_ASCENT)
    asked = (settled & ~regular) | unsettled | not_ended
    if is_nowhere(asked):
        return asked
    is_small = xp.asarray(state.point.z.shape[0] <= MAX_COORDINATES)
    return asked & is_finite(state.point) & is_small


def without(kink: Kink, state: State) -> State:
    """The state for the excursions: it does not count as settled where there is a kink."""
    xp = namespace(state.point.z)
    return state._replace(outcome=xp.where(kink.code > 0, RUNNING, state.outcome))


def steepness(point: Point) -> Array:
    """Curvature or slope of each coordinate (k,), whichever is larger, in units of 1/z."""
    xp = namespace(point.z)
    return xp.maximum(xp.sqrt(xp.abs(xp.diagonal(point.hessian))), xp.abs(point.score))


def offset_of(search: Search) -> Array:
    """The distance from the vertex at which the cells are evaluated, in scaled units."""
    xp = namespace(search.z)
    eps = xp.finfo(search.z.dtype).eps
    size = xp.max(xp.abs(search.scale * search.z))
    near = xp.maximum(eps**OFFSET_EXPONENT, 1e5 * eps * size)
    return near / xp.where(search.fine, REFINEMENT_FACTOR, 1.0)


def _dual(normals: Array, held: Array) -> tuple[Array, Array]:
    """The dual basis (k + 1, k) of the held normals: each vector has product one with its normal
    and zero with the others. Also the projector (k, k) on the span of the held normals.
    """
    xp = namespace(normals)
    masked = xp.where(held[:, None], normals, 0.0)
    u, sizes, v = xp.linalg.svd(masked, full_matrices=False)
    independent = sizes > xp.sqrt(xp.finfo(sizes.dtype).eps) * MIN_JUMP
    inverse = xp.where(independent, 1.0 / xp.where(independent, sizes, 1.0), 0.0)
    spanned = xp.where(independent[:, None], v, 0.0)
    return (u * inverse[None, :]) @ v, spanned.T @ spanned


def crossings_of(search: Search) -> Array:
    """The unit directions (k + 1, k), each across one surface and along all others."""
    xp = namespace(search.z)
    across, _ = _dual(search.normals, search.jumps > 0)
    return across / xp.maximum(xp.sqrt(xp.sum(across**2, axis=1)), 1e-30)[:, None]


def cell(search: Search, place: Array) -> Array:
    """A point (k,) in the cell that is on the lower side of all surfaces except the one at this
    place.
    """
    xp = namespace(search.z)
    k = search.z.shape[0]
    held = (search.jumps > 0)[:k]
    sign = xp.where(xp.arange(k) == place - 1, 1.0, -1.0)
    u = (xp.where(held, sign, 0.0)) @ crossings_of(search)[:k]
    return search.z + (offset_of(search) * u / search.scale).astype(search.z.dtype)


class Tangent(NamedTuple):
    """The tangent space of the held surfaces and the step along it."""

    step: Array  # (k,) scaled
    decrement: Array
    rising: Array  # () the largest slope along a direction without curvature
    weakest: Array  # (k,) the direction of least curvature
    is_flat: Array  # there is a direction without curvature
    definite: Array


def tangent_of(normals: Array, held: Array, hessian: Array, slope: Array) -> Tangent:
    """The Newton step along the surfaces that are held.

    Args:
        normals: unit normals of the surfaces (k + 1, k), scaled coordinates.
        held: which of them are held (k + 1,).
        hessian: scaled (k, k).
        slope: the scaled score (k,).
    """
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
    return Tangent(
        p @ (q @ w),
        0.5 * xp.sum(xp.where(flat, 0.0, along**2 / safe)),
        xp.max(xp.where(flat, xp.abs(along), 0.0)),
        p @ (q @ xp.where(least, 1.0, 0.0)),
        xp.any(flat),
        xp.all(values > cut),
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
    """The surfaces as measured from the cells, and the combination of the cells' scores nearest to
    zero.
    """

    normals: Array
    jumps: Array
    same: Array  # nothing changed since they were last seen
    weights: Array  # (k,) λ
    rest: Array  # (k,) the combination
    hessian: Array  # (k, k)
    joint: Array  # (k,) the score across all surfaces, if their jumps add up


def jumps_of(search: Search) -> Jumps:
    """The jumps of the score across the surfaces, from the scores of the cells beside them."""
    xp = namespace(search.z)
    k = search.z.shape[0]
    score, hessian = _at_vertex(search)
    jump = xp.where((search.jumps > 0)[:k, None], score[:1] - score[1:], 0.0)
    size = xp.sqrt(xp.sum(jump**2, axis=1))
    before = search.jumps[:k]
    remains = (before > 0) & (
        xp.sum(jump * search.normals[:k], axis=1) >= MIN_REMAINING_SHARE_OF_JUMP * before
    )
    moved = xp.sqrt(xp.sum((jump - before[:, None] * search.normals[:k]) ** 2, axis=1))
    same = xp.all((before == 0) | (remains & (moved <= SAME_JUMP * before)))
    unit = jump / xp.where(remains, size, 1.0)[:, None]
    normals = xp.concatenate([xp.where(remains[:, None], unit, 0.0), search.normals[k:]])
    jumps = xp.concatenate([xp.where(remains, size, 0.0), search.jumps[k:]])
    held = jumps > 0
    dual, along_normals = _dual(normals, held)
    share = dual @ score[0]
    rest = score[0] - along_normals @ score[0]
    weights = xp.where(held[:k], share[:k] / xp.where(remains, size, 1.0), 0.0)
    clipped = xp.clip(weights, 0.0, 1.0)
    mixed = hessian[0] + xp.sum(clipped[:, None, None] * (hessian[1:] - hessian[:1]), axis=0)
    joint = score[0] - xp.sum(jump, axis=0)
    return Jumps(normals, jumps, same, weights, rest, mixed, joint)


def slack_of(search: Search) -> Array:
    """The largest scaled slope that counts as rounding."""
    xp = namespace(search.z)
    eps = xp.finfo(search.z.dtype).eps
    return xp.maximum(xp.maximum(eps**0.575, 1e-10), 16 * search.noise)


def next_place(search: Search, place: Array) -> Array:
    """The next surface that is held after this place, k + 1 after the last."""
    xp = namespace(search.z)
    k = search.z.shape[0]
    slots = xp.arange(k) + 1
    open_slots = (search.jumps[:k] > 0) & (slots > place)
    return xp.min(xp.where(open_slots, slots, k + 1)).astype(xp.int32)


def ended(search: Search, is_found: bool | Array = False) -> Search:
    """The search at its end, and whether it found a maximum at a kink."""
    xp = namespace(search.trial)
    over = xp.asarray(OVER).astype(xp.int32)
    return search._replace(
        stage=over,
        active=xp.zeros_like(search.active),
        is_found=is_found | xp.zeros_like(search.is_found),
    )


def _checks(search: Search, place: Array) -> tuple[Array, Array, Array]:
    """The points of the checks: the direction (k,) in scaled coordinates, the distance, and the
    expected slope (). Place 0 is the vertex, 1 the cell across all surfaces; then there are two for
    each slot.
    """
    xp = namespace(search.z)
    k = search.z.shape[0]
    crossings = crossings_of(search)[:k]
    held = search.jumps[:k] > 0
    slot = (place - 2) // 2
    chosen = xp.arange(k) == slot
    sign = xp.where(place % 2 == 0, 1.0, -1.0)
    single = sign * xp.sum(xp.where(chosen[:, None], crossings, 0.0), axis=0)
    every = xp.sum(xp.where(held[:, None], crossings, 0.0), axis=0)
    share = xp.where(place % 2 == 0, 1.0 - search.weights, search.weights)
    crossing = xp.sum(search.normals[:k] * crossings, axis=1)
    slope = -xp.sum(xp.where(chosen, share * search.jumps[:k] * crossing, 0.0))
    jump = xp.sum(xp.where(chosen, search.jumps[:k], 0.0))
    wide = xp.maximum(
        CHECK_DISTANCE * offset_of(search), 1e3 * search.noise / xp.maximum(jump, MIN_JUMP)
    )
    direction = xp.where(place == 1, every, single)
    return direction, xp.where(place == 1, offset_of(search), wide), slope


def _carried_values(search: Search, z: Array) -> Array:
    """ℓ of each cell (k + 1,) carried to a point z (k,) by its own slope."""
    xp = namespace(z)
    return search.cells.value - xp.sum(search.cells.score * (search.cells.z - z[None, :]), axis=1)


def checked(state: State, search: Search, point: Point) -> Search:
    """One check around the vertex; after the last one, the kink is found if all checks passed."""
    xp = namespace(point.z)
    k = point.z.shape[0]
    place = search.place
    noise = 10 * search.noise
    direction, far, slope = _checks(search, place)
    seen = jumps_of(search)
    largest = xp.max(search.jumps[:k])
    score = point.score / search.scale
    hessian = point.hessian / (search.scale[:, None] * search.scale[None, :])

    # The cells themselves: continuous at the vertex, which is as high as the ascent.
    fitted = _carried_values(search, point.z)
    used = xp.concatenate([xp.ones(1, bool), search.jumps[:k] > 0])
    apart = xp.max(xp.where(used, xp.abs(fitted - point.value), 0.0))
    continuous = apart <= noise + 0.1 * largest * offset_of(search)
    high = point.value >= state.point.value - noise
    at_vertex = continuous & high

    # The cell across all surfaces: if jumps do not add up, the cells must enclose zero themselves.
    there = score - hessian @ (offset_of(search) * direction)
    add_up = xp.max(xp.abs(there - seen.joint)) <= 0.05 * largest
    enclosed = xp.sum(search.weights) <= 1.0 + ROUNDING_OF_WEIGHTS
    sides = add_up | enclosed

    # ℓ falls as the slopes at both ends say.
    change = point.value - search.centre.value
    end = score @ direction
    expected = 0.5 * (slope + end) * far
    allowed = (0.5 * xp.abs(slope - end) + 0.05 * largest) * far + noise
    falls = (xp.abs(change - expected) <= allowed) & (end <= 0.01 * largest) & (change <= noise)

    right = xp.where(place == 0, at_vertex, xp.where(place == 1, sides, falls))
    is_found = search.is_found & right & is_finite(point)
    slot = next_place(search, xp.maximum(place - 2, -1) // 2 + 1)
    later = xp.where((place >= 2) & (place % 2 == 0), place + 1, 2 * slot)
    following = xp.where(place == 0, 1, later)
    search = search._replace(
        centre=select(place == 0, point, search.centre), is_found=is_found, place=following
    )
    aim, reach, _ = _checks(search, following)
    onward = search._replace(trial=search.z + (reach * aim / search.scale).astype(point.z.dtype))
    over = ~is_found | (following >= 2 * (k + 1))
    return select(over, ended(search, is_found), onward)


def kink_of(state: State, search: Search) -> Kink:
    """The kink that the search found, if any."""
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
    point = select(search.is_found, point, state.point)
    _, projector = _dual(search.normals, search.jumps > 0)
    code = AT_A_KINK + xp.where(search.is_level, LEVEL_BETWEEN_KINKS, 0)
    return Kink(
        xp.where(search.is_found, code, 0).astype(xp.int32),
        point,
        search.scale,
        projector,
        search.steps,
    )
