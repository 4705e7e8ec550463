"""The first steps of many climbs in single precision, in one loop on the device, for as long as none needs care.

Single precision halves the arithmetic of steps whose error the next step mends. The road is that of the climb itself (``loop``): full
Newton steps within a trust region that grows and shrinks by the same rules. A member that meets anything else has not arrived, and climbs
from its own start. What comes out is a start and no more; every verdict is the climb's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmle.solvers.linalg import cholesky, solve_lower, solve_upper
from jaxmle.solvers.loop import RECEDES, Point, is_finite, noise_of

Array = Any

STEPS = 16  # beyond this a climb is not an easy one
REFUSED = 4  # refusals in a row that make it one that is not
CLOSE = 1e-3  # decrement (0.04 SE) above which no step is the last
NEXT = 1e-9  # decrement foreseen after the last step: from there two evaluations in double precision end a climb
STEADY = 0.1  # how far the information may change over the step before the last
SHARES = (0.03, 0.1, 0.3, 1.0)  # of the multiplier that is enough, tried where a Hessian is not definite
RUNNING, ARRIVED, LOST = range(3)


class Here(NamedTuple):
    """The best point of one member so far, with what the next step is taken from."""

    z: Array  # (k,)
    value: Array
    noise: Array
    scale: Array  # (k,) D
    r: Array  # (k, k) D⁻¹JD⁻¹
    g: Array  # (k,) D⁻¹s


class Sprint(NamedTuple):
    """Where the sprint of one member stands."""

    here: Here
    move: Array  # (k,) the pending step
    predicted: Array  # its predicted gain
    full: Array  # it is a full Newton step
    last: Array  # the predicted gain of the last accepted step
    bend: Array  # by what share the information changed over it; infinite where it was not a full one
    radius: Array
    steps: Array
    refused: Array
    outcome: Array


def sprint(evaluate: Callable[[Array], Point], z: Array, rounds: Array) -> tuple[Array, Array, Array]:
    """From z (b, k) towards the maxima, by at most ``rounds`` (b,) steps: the points, the steps to them (b,), and whether they are sound (b,)."""
    one, square = z[:, 0], jnp.zeros((*z.shape, z.shape[-1]), z.dtype)
    zero, count, no = jnp.zeros_like(one), jnp.zeros(one.shape, jnp.int32), jnp.zeros(one.shape, bool)
    here = Here(z, zero, zero, jnp.zeros_like(z), square, jnp.zeros_like(z))
    begun = Sprint(here, jnp.zeros_like(z), zero, no, zero, zero, zero, count, count, count)
    running = lambda at: (at.outcome == RUNNING) & (at.steps < rounds)  # noqa: E731

    def advance(at: Sprint) -> Sprint:
        trial = evaluate(at.here.z + at.move)
        moved = _propose(jax.vmap(_judge)(at, trial))
        return _where(running(at), moved, at)

    end = jax.lax.while_loop(lambda at: jnp.any(running(at)), advance, begun)
    # What has not arrived is on its way, unless it went along a recession: that is told from where it was asked to start.
    return end.here.z, end.steps, (end.outcome != LOST) & (end.bend >= RECEDES - 1)


def _where(condition: Array, new: Any, old: Any) -> Any:
    """``new`` where the condition (b,) holds, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition.reshape(-1, *[1] * (b.ndim - 1)), a, b), new, old)


def _judge(at: Sprint, trial: Point) -> Sprint:
    """Accept or refuse the trial of one member, and set its radius: the rules of ``loop``."""
    first, here = at.steps == 0, at.here
    j = -0.5 * (trial.hessian + trial.hessian.T)
    own = jnp.sqrt(jnp.abs(jnp.diagonal(j)))
    finite = is_finite(trial) & (jnp.min(own) > jnp.finfo(own.dtype).tiny ** 0.5)
    scale = jnp.maximum(jnp.where(finite, own, 1.0), 0.5 * here.scale)
    new = Here(trial.z, trial.value, noise_of(trial), scale, j / (scale[:, None] * scale[None, :]), trial.score / scale)
    noise, gain = jnp.maximum(here.noise, new.noise), trial.value - here.value
    accept = finite & (first | (gain >= -noise))
    trust = (gain + noise) / (jnp.maximum(at.predicted, 0.0) + noise + jnp.finfo(own.dtype).tiny)
    norm = jnp.sqrt(jnp.sum((scale * at.move) ** 2))
    grown = jnp.where(trust > 0.75, jnp.maximum(at.radius, 2 * norm), jnp.where(trust < 0.25, 0.25 * norm, at.radius))
    radius = jnp.where(first, jnp.maximum(jnp.sqrt(jnp.sum(new.g**2)), 1.0), jnp.where(accept, grown, 0.25 * jnp.sqrt(jnp.sum((here.scale * at.move) ** 2))))
    refused = jnp.where(accept, 0, at.refused + 1).astype(jnp.int32)

    before = at.move @ (here.r * here.scale[:, None] * here.scale[None, :]) @ at.move
    told = accept & at.full & (before > 0)
    bend = jnp.where(told, at.move @ j @ at.move / jnp.where(told, before, 1.0) - 1, jnp.inf)
    here = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, here)
    outcome = jnp.where((first & ~finite) | (refused >= REFUSED), LOST, RUNNING).astype(jnp.int32)
    return at._replace(here=here, last=at.predicted, bend=bend, radius=radius, steps=at.steps + 1, refused=refused, outcome=outcome)


def _propose(at: Sprint) -> Sprint:
    """The next moves (b, k): full Newton steps, or shorter ones within the trust region; and whether they are the last."""
    here, running = at.here, at.outcome == RUNNING
    step, decrement, sound = _newton(here.r, here.g, jnp.zeros_like(at.radius))
    step, gain = jax.lax.cond(jnp.any(~sound & running), _regularised, lambda *args: args[-2:], here.r, here.g, sound, step, decrement)
    norm = jnp.sqrt(jnp.sum(step**2, axis=1))
    # In ``loop`` the first radius reaches to the first Newton step.
    radius = jnp.where((at.steps == 1) & sound, jnp.maximum(at.radius, norm), at.radius)
    full = sound & (norm <= radius)
    part = jnp.where(norm <= radius, 1.0, radius / norm)
    bent = jnp.sum(step * jnp.sum(here.r * step[:, None, :], axis=2), axis=1)
    gain = jnp.where(norm <= radius, gain, part * jnp.sum(here.g * step, axis=1) - 0.5 * part**2 * bent)
    # Newton's error: over a step t times as long the information changes t times as much, and δ(1 − q)²/4 is left.
    ahead = 0.25 * decrement * at.bend**2 * decrement / at.last
    close = full & (jnp.abs(at.bend) <= STEADY) & (decrement <= CLOSE) & (ahead <= NEXT)
    lost = ~jnp.all(jnp.isfinite(step), axis=1)
    outcome = jnp.where(running, jnp.where(lost, LOST, jnp.where(close, ARRIVED, RUNNING)), at.outcome).astype(jnp.int32)
    move = part[:, None] * step / here.scale
    ended = here._replace(z=jnp.where((outcome == ARRIVED)[:, None], here.z + move, here.z))
    return at._replace(here=ended, move=move, predicted=gain, full=full, radius=radius, outcome=outcome)


@jax.vmap
def _newton(r: Array, g: Array, extra: Array) -> tuple[Array, Array, Array]:
    """(R + λI)⁻¹g, its predicted gain and whether R + λI is positive definite by a margin; infinite where it is not."""
    k = g.shape[0]
    factor = cholesky(r + extra * jnp.eye(k, dtype=r.dtype), unrolled=True)
    half = solve_lower(factor, g, unrolled=True)
    pivots = jnp.diagonal(factor)
    sound = jnp.all(jnp.isfinite(factor)) & (jnp.min(pivots) ** 2 > 1000 * k * jnp.finfo(r.dtype).eps)
    step = jnp.where(sound, solve_upper(factor, half, unrolled=True), jnp.inf)
    return step, 0.5 * jnp.sum(half**2) + 0.5 * extra * jnp.sum(jnp.where(sound, step, 0.0) ** 2), sound


def _regularised(r: Array, g: Array, done: Array, step: Array, gain: Array) -> tuple[Array, Array]:
    """Steps (b, k) from R + λI where R is not positive definite, with the least λ of a few that makes it so."""
    row = jnp.max(jnp.sum(jnp.abs(r), axis=2) - 2 * jnp.minimum(jnp.diagonal(r, axis1=1, axis2=2), 0.0), axis=1)  # enough, by Gershgorin
    for share in SHARES:
        other, more, sound = _newton(r, g, share * row)
        step, gain = jnp.where((sound & ~done)[:, None], other, step), jnp.where(sound & ~done, more, gain)
        done = done | sound
    return step, gain
