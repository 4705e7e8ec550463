"""The first steps of many climbs in single precision, for as long as none needs care.

Single precision halves the arithmetic of steps whose error the next step mends. The road is that of the climb itself (``loop``), so that it
leads to the same one of several maxima: Newton steps, or the best within a trust region that grows and shrinks by the same rules. A member
whose road needs more care is lost, and climbs from its own start. What comes out is a start and no more; every verdict is the climb's.
"""

from __future__ import annotations

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
SECANTS = 3  # steps to the multiplier of a trust region where the Hessian is definite: 1e-3 of the radius is left or less
HALVINGS = 12  # of the six decades below its bound where it is not: to 0.3 %
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


def set_out(z: Array) -> Sprint:
    """Members at z (b, k), before their first evaluation."""
    one, square = z[:, 0], jnp.zeros((*z.shape, z.shape[-1]), z.dtype)
    zero, count, no = jnp.zeros_like(one), jnp.zeros(one.shape, jnp.int32), jnp.zeros(one.shape, bool)
    here = Here(z, zero, zero, jnp.zeros_like(z), square, jnp.zeros_like(z))
    return Sprint(here, jnp.zeros_like(z), zero, no, zero, zero, zero, count, count, count)


def stride(at: Sprint, trial: Point, running: Array) -> Sprint:
    """What follows from one evaluation at the trial points, for the members that run (b,)."""
    return _where(running, _propose(jax.vmap(_judge)(at, trial)), at)


def is_sound(at: Sprint) -> Array:
    """Who has arrived, or is on the way (b,): not along a recession, which is told from where it was asked to start."""
    return (at.outcome != LOST) & (at.bend >= RECEDES - 1)


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
    radius = jnp.where(accept, grown, jnp.where(finite, 0.25, 0.1) * jnp.sqrt(jnp.sum((here.scale * at.move) ** 2)))
    radius = jnp.where(first, jnp.maximum(jnp.sqrt(jnp.sum(new.g**2)), 1.0), radius)
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
    step, decrement, sound = _damped(here.r, here.g, jnp.zeros_like(at.radius))
    norm = jnp.sqrt(jnp.sum(step**2, axis=1))
    # In ``loop`` the first radius reaches to the first Newton step.
    radius = jnp.where((at.steps == 1) & sound, jnp.maximum(at.radius, norm), at.radius)
    full = sound & (norm <= radius)
    keep = lambda *args: args[-2:]  # noqa: E731
    step, gain = jax.lax.cond(jnp.any(running & sound & ~full), _shortened, keep, here.r, here.g, radius, full | ~sound, step, decrement)
    step, gain = jax.lax.cond(jnp.any(running & ~sound), _bounded, keep, here.r, here.g, radius, sound, step, gain)
    # Newton's error: over a step t times as long the information changes t times as much, and δ(1 − q)²/4 is left.
    ahead = 0.25 * decrement * at.bend**2 * decrement / at.last
    close = full & (jnp.abs(at.bend) <= STEADY) & (decrement <= CLOSE) & (ahead <= NEXT)
    lost = ~jnp.all(jnp.isfinite(step), axis=1)
    outcome = jnp.where(running, jnp.where(lost, LOST, jnp.where(close, ARRIVED, RUNNING)), at.outcome).astype(jnp.int32)
    move = step / here.scale
    ended = here._replace(z=jnp.where((outcome == ARRIVED)[:, None], here.z + move, here.z))
    return at._replace(here=ended, move=move, predicted=gain, full=full, radius=radius, outcome=outcome)


@jax.vmap
def _damped(r: Array, g: Array, extra: Array) -> tuple[Array, Array, Array]:
    """u = (R + λI)⁻¹g, its predicted gain, and whether R + λI is positive definite by a margin; u is infinite where it is not."""
    step, half, _, sound = _solved(r, g, extra)
    return step, _gain(step, half, extra), sound


def _solved(r: Array, g: Array, extra: Array) -> tuple[Array, Array, Array, Array]:
    k = g.shape[0]
    factor = cholesky(r + extra * jnp.eye(k, dtype=r.dtype), unrolled=True)
    half = solve_lower(factor, g, unrolled=True)
    sound = jnp.all(jnp.isfinite(factor)) & (jnp.min(jnp.diagonal(factor)) ** 2 > 1000 * k * jnp.finfo(r.dtype).eps)
    return jnp.where(sound, solve_upper(factor, half, unrolled=True), jnp.inf), half, factor, sound


def _gain(step: Array, half: Array, extra: Array) -> Array:
    """g'u − u'Ru/2 for u = (R + λI)⁻¹g."""
    return 0.5 * jnp.sum(half**2) + 0.5 * extra * jnp.sum(jnp.where(jnp.isfinite(step), step, 0.0) ** 2)


def _shortened(r: Array, g: Array, radius: Array, done: Array, step: Array, gain: Array) -> tuple[Array, Array]:
    """Steps (b, k) to the rim of the trust region where R is definite: Newton's iteration on 1/|u(λ)| = 1/radius, from λ = 0 (Moré & Sorensen 1983)."""

    @jax.vmap
    def nearer(r: Array, g: Array, radius: Array, extra: Array) -> tuple[Array, Array, Array]:
        step, half, factor, _ = _solved(r, g, extra)
        norm = jnp.sqrt(jnp.sum(step**2))
        slope = jnp.sum(solve_lower(factor, step, unrolled=True) ** 2)
        return jnp.maximum(extra + norm**2 / slope * (norm - radius) / radius, 0.0), step, _gain(step, half, extra)

    begun = (jnp.zeros_like(radius), step, gain)
    _, shorter, less = jax.lax.fori_loop(0, SECANTS + 1, lambda _, at: nearer(r, g, radius, at[0]), begun)
    return jnp.where(done[:, None], step, shorter), jnp.where(done, gain, less)


def _bounded(r: Array, g: Array, radius: Array, done: Array, step: Array, gain: Array) -> tuple[Array, Array]:
    """The same where R is not definite: by halving the multiplier in the logarithm."""
    row = jnp.max(jnp.sum(jnp.abs(r), axis=2) - 2 * jnp.minimum(jnp.diagonal(r, axis1=1, axis2=2), 0.0), axis=1)  # enough, by Gershgorin
    high = jnp.sqrt(jnp.sum(g**2, axis=1)) / radius + row

    def halve(_: int, at: tuple[Array, ...]) -> tuple[Array, ...]:
        low, high, kept, told = at
        middle = jnp.sqrt(low * high)
        shorter, less, _ = _damped(r, g, middle)
        inside = jnp.sum(shorter**2, axis=1) <= radius**2
        return jnp.where(inside, low, middle), jnp.where(inside, middle, high), jnp.where(inside[:, None], shorter, kept), jnp.where(inside, less, told)

    _, _, shorter, less = jax.lax.fori_loop(0, HALVINGS, halve, (1e-6 * high, high, jnp.full_like(g, jnp.inf), gain))
    # The hard case, where no multiplier leads to the rim, takes eigenvectors.
    shorter = jnp.where((jnp.sum(shorter**2, axis=1) >= 0.8 * radius**2)[:, None], shorter, jnp.inf)
    return jnp.where(done[:, None], step, shorter), jnp.where(done, gain, less)
