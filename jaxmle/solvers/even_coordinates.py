"""Coordinates in which ℓ is even, as a standard deviation that is not declared positive: where a
step went through zero, the estimate is put back on the side of zero from which the ascent set out.

ℓ is evaluated with all signs turned that have changed, as of the loadings of a factor, and then
with one sign turned at a time.
"""

from __future__ import annotations

import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.leading_axes import column, norm, outer
from jaxmle.solvers.state import (
    DONE,
    MIRRORING,
    Point,
    State,
    is_finite,
    noise_of,
    select_lazily,
)

MAX_MIRRORED_ALONE = 3  # coordinates whose sign is turned alone: each costs an evaluation
NOT_MIRRORED = -2  # before all coordinates at once, which count as −1


def _has_crossed(state: State) -> Array:
    """Which coordinates (k, ...) are on the other side of zero than at the start."""
    return state.point.z * state.origin < 0


def needs_mirror(state: State) -> Array:
    """Whether the end of an ascent has not been compared with its mirror image yet."""
    crossed = namespace(state.point.z).any(_has_crossed(state), axis=0)
    return crossed & (state.mirrored == NOT_MIRRORED)


def mirroring_move(state: State) -> Array:
    """The move (k, ...) to the mirror image in all coordinates that have crossed zero."""
    return namespace(state.point.z).where(_has_crossed(state), -2.0 * state.point.z, 0.0)


def _image(state: State, point: Point, sign: Array) -> State:
    """The state at the mirror image (z and ℓ from ``point``), with the signs (k, ...) turned."""
    old = state.point
    tail = state.tail
    return state._replace(
        point=point._replace(score=sign * old.score, hessian=old.hessian * outer(sign, sign)),
        newton=state.newton._replace(step=sign * state.newton.step),
        tail=tail._replace(z=sign * tail.z, move=sign * tail.move),
        last=sign * state.last,
    )


def mirror(state: State, point: Point) -> State:
    """The state after the evaluation at a mirror image, and the next one to look at."""
    xp = namespace(state.point.z)
    z = state.point.z
    k = len(z)
    turned = state.move != 0
    is_only_one = (state.mirrored == NOT_MIRRORED) & (xp.sum(turned, axis=0) == 1)
    sign = xp.where(turned, -1.0, 1.0).astype(z.dtype)
    noise = noise_of(point)
    difference = sign * point.score - state.point.score
    # where a term is −∞, so is the mirror image, and its rounding error is infinite
    is_even = is_finite(point) & (xp.abs(point.value - state.point.value) <= noise)
    is_even = is_even & (norm(difference / state.scale) <= xp.sqrt(noise))
    before = state
    state = select_lazily(is_even, lambda: _image(before, point, sign), lambda: before)
    crossed = _has_crossed(state)
    place = column(np.arange(k), z)
    following = xp.min(xp.where(crossed & (place > state.mirrored), place, k), axis=0)
    few = xp.sum(xp.where(crossed, 1, 0), axis=0) <= MAX_MIRRORED_ALONE
    following = xp.where(few & ~is_only_one, following, k)
    return state._replace(
        phase=xp.where(following == k, DONE, MIRRORING).astype(state.phase.dtype),
        move=xp.where(place == following, -2.0 * state.point.z, 0.0),
        steps=state.steps + xp.ones_like(state.steps),
        mirrored=following.astype(state.mirrored.dtype),
    )
