"""First steps in single precision: the trust-region climb of ``loop`` without what a verdict needs,
for many members in one compiled loop.

Its end is where a climb in double precision begins, and no more: nothing that is said of a fit
rests on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmle._types import Array
from jaxmle.solvers.linalg import (
    bounded,
    factored,
    least_pivot,
    metric_of,
    solve_lower,
    solve_upper,
)
from jaxmle.solvers.trust_region import (
    DECREMENT_TO_POLISH,
    MAX_FIRST_RADIUS,
    MAX_ROUNDS_WITHOUT_GAIN,
    MIN_SHARE_OF_PREDICTED_GAIN,
    RECEDES,
    Point,
    is_blind,
    is_finite,
    noise_of,
    trusted,
)

DECREMENT_OF_UNSEEN_STEP = (
    0.1  # decrement (0.45 SE) from which the next Newton step is taken unseen
)


class Float32State(NamedTuple):
    """One member on its way."""

    z: Array  # (k,) the best point so far
    move: Array  # (k,) the pending step
    value: Array
    noise: Array
    score: Array  # (k,)
    information: Array  # (k, k)
    scale: Array  # (k,)
    radius: Array
    predicted: Array  # what the pending step should gain
    full: Array  # it is a full Newton step
    decrement: Array
    information_ratio: Array  # d'J(θ+d)d / d'J(θ)d of the last full Newton step d
    steps: Array  # evaluations
    idle: Array  # in a row without a gain above noise
    near: Array  # a full Newton step ends it
    failed: Array
    running: Array


def sprint(
    evaluate: Callable[[Array, Array], Point], z: Array, wanted: Array, rounds: Array
) -> tuple[Array, Array, Array]:
    """Climb from z (b, k) in single precision until each wanted member is where full Newton steps
    take over, or has had its rounds.

    Args:
        evaluate: from z (b, k) and who asks (b,) to their points in single precision.
        rounds: evaluations that a member may have, (b,).

    Returns:
        The points (b, k) where a climb in double precision may begin, in the precision of z; the
        evaluations (b,); who has such a point (b,). Within half a standard error of a maximum it is
        the end of the pending Newton step; on the way there it is the point itself, unless it
        recedes: that is told from the start asked for.
    """
    start = jax.vmap(_start)(z.astype(jnp.float32), wanted)

    def go_on(now: Float32State) -> Float32State:
        judged, shorter = jax.vmap(_judge)(now, evaluate(now.z + now.move, now.running), rounds)
        return jax.lax.cond(
            jnp.any(shorter), lambda: jax.vmap(_bound)(judged, shorter), lambda: judged
        )

    end = jax.lax.while_loop(lambda now: jnp.any(now.running), go_on, start)
    close = end.near | (end.full & (end.decrement <= DECREMENT_OF_UNSEEN_STEP))
    move = jnp.where(close[:, None], end.move, 0.0).astype(z.dtype)
    return end.z.astype(z.dtype) + move, end.steps, ~end.failed & (end.information_ratio >= RECEDES)


def _start(z: Array, wanted: Array) -> Float32State:
    zero = jnp.float32(0.0)
    one = jnp.float32(1.0)
    count = jnp.int32(0)
    no = jnp.zeros((), bool)
    flat = jnp.zeros_like(z)
    return Float32State(
        z,
        flat,
        -jnp.inf * one,
        zero,
        flat,
        jnp.zeros((*z.shape, *z.shape), z.dtype),
        flat,
        one,
        zero,
        no,
        jnp.inf * one,
        one,
        count,
        count,
        no,
        no,
        wanted,
    )


def _judge(now: Float32State, trial: Point, rounds: Array) -> tuple[Float32State, Array]:
    """Keep the trial or refuse it and propose the full Newton step; whether a shorter one is
    wanted, (). The rules are those of ``loop._judge``, but for long runs of refusals and for all
    that serves a verdict.
    """
    tiny = jnp.finfo(jnp.float32).tiny
    first = now.steps == 0
    finite = is_finite(trial)
    noise = jnp.maximum(now.noise, noise_of(trial))
    gain = trial.value - now.value
    accept = finite & (
        first | (gain >= MIN_SHARE_OF_PREDICTED_GAIN * jnp.maximum(now.predicted, 0.0) - noise)
    )

    def keep(new: Any, old: Any) -> Any:
        return jnp.where(accept, new, old)

    j = keep(-0.5 * (trial.hessian + trial.hessian.T), now.information)
    score = keep(trial.score, now.score)
    scale = keep(jnp.maximum(metric_of(trial.hessian, trial.score), 0.5 * now.scale), now.scale)
    r = j / (scale[:, None] * scale[None, :])
    g = score / scale
    factor = factored(r, unrolled=True)
    pivot = least_pivot(factor)
    convex = pivot**2 > 100 * len(score) * jnp.finfo(jnp.float32).eps
    half = solve_lower(factor, g, unrolled=True)
    u = jnp.where(convex, solve_upper(factor, half, unrolled=True), 0.0)
    decrement = jnp.where(convex, 0.5 * jnp.sum(half**2), jnp.inf)
    length = jnp.sqrt(jnp.sum(u**2))

    # Of a full Newton step d the gain foreseen is d'Jd/2.
    information_ratio = jnp.where(
        accept & now.full,
        now.move @ j @ now.move / jnp.maximum(2 * now.predicted, tiny),
        now.information_ratio,
    )
    norm = jnp.sqrt(jnp.sum((scale * now.move) ** 2))
    slope = jnp.clip(jnp.sqrt(jnp.sum(g**2)), 1.0, MAX_FIRST_RADIUS)
    opening = jnp.maximum(length, slope)
    grown = trusted(now.radius, norm, gain, now.predicted, noise)
    radius = jnp.where(
        first, opening, jnp.where(accept, grown, jnp.where(finite, 0.25, 0.1) * norm)
    )

    flat = ~first & jnp.where(
        accept, (gain <= noise) & ~(decrement < 0.5 * now.decrement), now.predicted <= now.noise
    )
    idle = jnp.where(flat, now.idle + 1, jnp.where(accept, 0, now.idle))
    z = keep(trial.z, now.z)
    blind = accept & ~first & is_blind(scale, z, now.scale)
    failed = now.failed | (first & ~finite) | blind | (idle >= MAX_ROUNDS_WITHOUT_GAIN)
    near = convex & (
        decrement <= jnp.maximum(DECREMENT_TO_POLISH, keep(noise_of(trial), now.noise))
    )
    steps = now.steps + 1
    running = ~failed & ~near & (steps < rounds)
    full = near | (convex & (length <= radius))
    after = Float32State(
        z,
        u / scale,
        keep(trial.value, now.value),
        keep(noise_of(trial), now.noise),
        score,
        j,
        scale,
        radius,
        decrement,
        full,
        decrement,
        information_ratio,
        steps,
        idle,
        near,
        failed,
        running,
    )
    after = jax.tree.map(lambda new, old: jnp.where(now.running, new, old), after, now)
    return after, now.running & running & ~full


def _bound(now: Float32State, shorter: Array) -> Float32State:
    """The step within the radius in place of the pending one, where a shorter one is wanted."""
    r = now.information / (now.scale[:, None] * now.scale[None, :])
    g = now.score / now.scale
    u, _ = bounded(r, g, now.radius)
    predicted = g @ u - 0.5 * u @ r @ u
    return now._replace(
        move=jnp.where(shorter, u / now.scale, now.move),
        predicted=jnp.where(shorter, predicted, now.predicted),
    )
