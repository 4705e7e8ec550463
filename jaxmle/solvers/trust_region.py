"""The ascent: a trust-region Newton iteration that ends by polishing, as one pure step from state
to state.

The same step runs under a trace inside one ``while_loop`` and on the host in a Python loop over
NumPy arrays, of one fit or with an axis of members last (``leading_axes``), where only ``evaluate``
is compiled. It is judged by the Newton decrement δ =
s'J⁻¹s/2, in units of log-likelihood: √(2δ) is the distance to the maximum in standard errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.leading_axes import (
    column,
    diagonal,
    dot,
    members_of,
    norm,
    outer,
    quadratic,
    symmetric,
    transposed,
)
from jaxmle.solvers.linalg import metric_of
from jaxmle.solvers.newton_step import NewtonStep, newton_step, within

CLIMBING = 0
POLISHING = 1
DONE = 2
RUNNING, SETTLED, STUCK, NOT_FINITE, EXHAUSTED, RUNAWAY = range(6)

DECREMENT_TO_POLISH = 1e-8  # decrement at which full Newton steps take over
DECREMENT_FLOOR = 1e-18  # decrement (1.4e-9 SE) below which nothing is gained
MAX_ROUNDS_WITHOUT_GAIN = 3  # rounds without a gain above noise before the climb is called stuck
# information ratio of a step: ≥ .999999 on 5 821 overlapping designs, ≤ .376 on all separated ones
RECEDES = 0.6
MIN_SHARE_OF_PREDICTED_GAIN = 0.03  # of a step that is kept; one on to a plateau gains a hundredth
FORESEEN = 0.01  # relative error of a predicted gain that lets the radius grow faster
MAX_FIRST_RADIUS = 16.0  # in units of the metric, where no Newton step says more
LIMIT = 40  # rejections in a row
# steps in a row, each at least 1.4 times as long as the one before (24 000 times in all), with
# undiminished gain
GROWING_STEPS_OF_RUNAWAY = 30
# rounding noise of ℓ above which nothing can be said of a collapse: the climb is still far off
MAX_NOISE_OF_COLLAPSE = 1.0
MIN_SCALED_LENGTH_OF_OWN_STEP = (
    0.1  # scaled length from which a step is the likelihood's own, not that of a small radius
)
MIN_PREDICTED_GAIN = (
    1e-5  # predicted gain below which a gain that score and Hessian do not account for is noise
)
# decrement of a tail from which on rounding is looked for, and the share of the predicted gain by
# which a gain then differs from that of scores and Hessians: .0017 on a tail e⁻ᵗ, .006 on 1/t
DECREMENT_OF_A_PLAIN_TAIL = 1e-4
DECEPTION = 0.0125
GAIN_BEYOND_DUST = 1e4  # times the rounding error of ℓ, which no step along rounding promises
MAX_DUST = 1e-8  # rounding of ℓ beyond which it is far off, not flat
SHARP = 1e-10  # decrement below which rounding blurs the direction of a recession
FADED = 1e-14  # decrement down to which a fading climb is followed
TAIL = 4  # receding steps in a row that make a recession
# decrement from which on the steps of a tail show a recession, and are taken several at once
PROVED = 1e-5
# factor by which slope and information along a leap may miss what a tail e⁻ᵗ foresees; the
# decrement, which holds all that is not along it,
LEAP_SLOPE_TOLERANCE = 2.0
LEAP_DECREMENT_TOLERANCE = 100.0  # this one


class Point(NamedTuple):
    """One evaluation in the free coordinates z (k, ...)."""

    z: Array
    value: Array
    absolute: Array
    score: Array
    hessian: Array
    curvature: Array | None = None  # what directions are taken from, where that is not −hessian
    aux: Any = None  # whatever else the evaluation found and its caller wants back at the end


class Signature(NamedTuple):
    """What the last full Newton step changed: the finger-print of convergence, or of its
    absence.
    """

    information: Array  # d'J(θ+d)d / d'J(θ)d
    decrement: Array  # δ(θ+d) / δ(θ)
    step: Array  # length of this step over that of the one before


class Tail(NamedTuple):
    """The latest stretch of full Newton steps along which the information died away at
    undiminished step length: a recession.
    """

    z: Array  # (k,) its latest point
    move: Array  # (k,) its latest step
    value: Array  # ℓ there
    decrement: Array
    length: Array  # how many steps in a row


class State(NamedTuple):
    """What the next step needs."""

    point: Point
    newton: NewtonStep
    scale: Array
    radius: Array
    move: Array  # the pending step
    predicted: Array  # its predicted gain
    full: Array  # it is a full Newton step
    leap: Array  # the number of them where it is several at once, else 0
    leaps: Array  # no leap has failed
    last: Array  # the last accepted step; of a leap, the Newton step it is made of
    gain: Array  # the last accepted gain
    signature: Signature
    tail: Tail
    rise: Array  # ℓ now less ℓ at the start
    phase: Array
    outcome: Array
    steps: Array
    idle: Array
    refused: Array
    runaway: Array  # steps of undiminished gain in a row
    longest: Array  # the longest such run
    streak: Array  # receding steps in a row; −1 after a leap
    rough: Array  # at some small step ℓ was rougher than 4ε Σ|terms|


def noise_of(point: Point) -> Array:
    """ν = 4ε Σ|terms|: what rounding does to ℓ."""
    return 4 * namespace(point.value).finfo(point.value.dtype).eps * point.absolute


def without_dust(point: Point) -> Point:
    """The point with score and Hessian zero in each coordinate in which they are what rounding
    leaves of zero: so small that a step as long as the coordinate, or one, changes ℓ by less than
    its own rounding error.
    """
    xp = namespace(point.z)
    noise = xp.minimum(noise_of(point), MAX_DUST)
    length = xp.maximum(1.0, xp.abs(point.z))
    own = xp.abs(diagonal(point.hessian))
    little = (xp.abs(point.score) * length <= noise) & (own * length**2 <= noise)
    if xp is np and not np.any(little):
        return point
    curvature = xp.abs(point.hessian)
    # |H_ij| against the geometric mean of the noise and of the other's own curvature
    coupled = curvature * length[None, :] > xp.sqrt(noise * (own + noise / length**2))[:, None]
    place = column(np.arange(len(length)), length)
    coupled = xp.any(coupled & (place[:, None] != place[None, :]), axis=0)
    # A coordinate of 1e24 that begins at zero changes ℓ as little, but a Newton step gains much.
    gains = (own > 0) & (point.score**2 > GAIN_BEYOND_DUST * noise * own)
    dust = little & ~coupled & ~gains
    keep = xp.where(dust, 0.0, 1.0).astype(point.z.dtype)
    return point._replace(score=point.score * keep, hessian=point.hessian * outer(keep, keep))


def null_cut(point: Point) -> Array:
    """f = 50kε·max(1, noise of the Hessian): eigenvalues of R within ±f count as zero.

    The noise is measured on the two halves of the Hessian, which forward-over-reverse
    differentiation computes apart. The factor 50 is what sums over rows lose; an eigenvalue below
    2e-13 is IMPRECISE whatever this says.
    """
    return null_cut_of(point.hessian, metric_of(point.hessian, point.score))


def null_cut_of(hessian: Array, scale: Array) -> Array:
    xp = namespace(scale)
    eps = xp.finfo(scale.dtype).eps
    k = scale.shape[0]
    skew = xp.abs(hessian - transposed(hessian)) / outer(scale, scale)
    skew = xp.max(skew, axis=(0, 1))
    return k * eps * xp.maximum(50.0, skew / eps)


def _cut(point: Point) -> Any:
    """``null_cut``, computed only where a step needs eigenvectors."""
    return jax.tree_util.Partial(null_cut, point._replace(aux=None))


def _slack(point: Point) -> Array:
    """The scaled score that rounding leaves along a flat direction."""
    return namespace(point.z).sqrt(noise_of(point))


def _newton(point: Point, metric: Array, scale: Array) -> NewtonStep:
    j = -symmetric(point.hessian)
    cut = jax.tree_util.Partial(null_cut_of, point.hessian, metric)
    return newton_step(j, point.score, scale, cut, _slack(point), unrolled=True)


def is_finite(point: Point) -> Array:
    """Whether ℓ, score and Hessian are all finite."""
    xp = namespace(point.z)
    return (
        xp.isfinite(point.value)
        & xp.all(xp.isfinite(point.score), axis=0)
        & xp.all(xp.isfinite(point.hessian), axis=(0, 1))
    )


def trusted(radius: Array, length: Array, gain: Array, predicted: Array, noise: Array) -> Array:
    """The trust radius after a step of ``length`` that was kept: twice the step at least where
    it gained more than three quarters of what was predicted, a quarter of it where less than a
    quarter (after Nocedal & Wright 2006, Numerical Optimization, algorithm 4.1); eight times the
    step where the gain is foreseen to within a hundredth. A gain that differs from the predicted
    one by noise counts as foreseen.
    """
    xp = namespace(radius)
    ratio = (gain + noise) / (xp.maximum(predicted, 0.0) + noise + xp.finfo(radius.dtype).tiny)
    growth = xp.where(xp.abs(ratio - 1.0) <= FORESEEN, 8.0, 2.0)
    return xp.where(
        ratio > 0.75,
        xp.maximum(radius, growth * length),
        xp.where(ratio < 0.25, 0.25 * length, radius),
    )


def first_radius(newton: NewtonStep, score: Array, scale: Array) -> Array:
    """The trust radius at the start: the length of the Newton step where ℓ is concave, else that of
    the scaled score, though a few units at most: what a far-off score promises is on a plateau.
    """
    xp = namespace(score)
    length = xp.where(newton.convex, norm(scale * newton.step), 0.0)
    slope = xp.clip(norm(score / scale), 1.0, MAX_FIRST_RADIUS)
    return xp.maximum(length, slope)


def is_blind(metric: Array, z: Array, before: Array) -> Array:
    """Whether a step of one ulp in some coordinate of z (k,) moves ℓ, at the metric (k,) there, and
    it grows worse than it was ``before`` (k,): a climb towards a collapse, not one down from a mean
    of e⁷⁰.
    """
    xp = namespace(z)
    blind = 16 * xp.finfo(z.dtype).eps * metric * xp.abs(z) > 1.0
    return xp.any(blind & (metric >= before), axis=0)


def start(z: Array, like: Point) -> State:
    """The state before the first evaluation, which every later step treats as a trial: at minus
    infinity, any finite point is a gain.
    """
    xp = namespace(z)
    members = members_of(z)
    zero = xp.zeros(members, z.dtype)
    one = xp.ones(members, z.dtype)
    count = xp.zeros(members, dtype=xp.int32)
    yes = xp.ones(members, dtype=bool)
    flat = xp.zeros_like(z)
    square = xp.zeros((z.shape[0], *z.shape), z.dtype)
    blank = jax.tree.map(
        lambda leaf: (
            xp.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
        ),
        like.aux,
    )
    curvature = None if like.curvature is None else square
    return State(
        point=Point(z, -xp.inf * one, zero, flat, square, curvature, blank),
        newton=NewtonStep(flat, xp.inf * one, ~yes, ~yes),
        scale=flat,  # No metric before the first point: zero lets that point's own take over.
        radius=zero,
        move=flat,
        predicted=zero,
        full=~yes,
        leap=zero,
        leaps=yes,
        last=flat,
        gain=zero,
        signature=Signature(one, one, one),
        tail=Tail(flat, flat, zero, zero, count),
        rise=zero,
        phase=count,
        outcome=count,
        steps=count,
        idle=count,
        refused=count,
        runaway=count,
        longest=count,
        streak=count,
        rough=~yes,
    )


def begin(evaluate: Callable[[Any], Point], z: Array) -> State:
    """The state at the start, evaluated."""
    point = evaluate(z)
    state = start(z, point)
    return advance(state, point)


def step(evaluate: Callable[[Any], Point], state: State) -> State:
    """Try the pending move; keep it or refuse it; propose the next."""
    return advance(state, evaluate(state.point.z + state.move))


def advance(state: State, trial: Point) -> State:
    """What follows from one evaluation; nothing of a likelihood is in it."""
    return proposed(accepted(state, read(state, trial)))


class Reading(NamedTuple):
    """What an evaluation says of the pending move."""

    trial: Point  # without dust; the point before, where it is not finite
    newton: NewtonStep
    scale: Array
    finite: Array
    accept: Array
    deceived: Array  # value, score and Hessian contradict each other on a tail
    blind: Array  # a step of one ulp moves ℓ
    shows: Signature  # as if the move were a full Newton step
    noise: Array
    gain: Array


def accepted(state: State, reading: Reading) -> State:
    """The state after its pending move was kept or refused; what it tries next is not known yet."""
    return _enter_polish(_judge(state, reading))


def proposed(state: State) -> State:
    """The state with its next move, from what ``accepted`` made of it; done twice it is the
    same.
    """
    return _propose(state)


def _int(xp: Any, value: int | Array) -> Array:
    return xp.asarray(value).astype(xp.int32)


def select(condition: Array, new: Any, old: Any) -> Any:
    """The leaves of ``new`` where the condition (...) holds, else those of ``old``, in the types of
    the latter.
    """
    if isinstance(condition, bool | np.bool_):
        return new if condition else old
    xp = namespace(jax.tree.leaves(old)[0])
    if xp is np and np.all(condition):  # without a copy
        return jax.tree.map(_chosen, new, old, old)
    if xp is np and not np.any(condition):
        return jax.tree.map(_chosen, old, new, old)
    return jax.tree.map(lambda a, b: xp.where(condition, a, b).astype(b.dtype), new, old)


def _chosen(leaf: Any, other: Any, like: Any) -> Any:
    """The leaf in the type of ``like``, and in the shape that it has beside the other."""
    shape = np.broadcast_shapes(np.shape(leaf), np.shape(other))
    if getattr(leaf, "dtype", None) == like.dtype and leaf.shape == shape:
        return leaf
    return np.broadcast_to(np.asarray(leaf, like.dtype), shape)[()]


def read(state: State, trial: Point) -> Reading:
    """Whether the pending move is kept, and what else one evaluation says."""
    xp = namespace(trial.z)
    polishing = state.phase == POLISHING
    finite = is_finite(trial)
    trial = without_dust(trial)
    metric = metric_of(trial.hessian, trial.score)
    scale = xp.maximum(metric, 0.5 * state.scale)
    scale = xp.where(finite, scale, state.scale)
    trial = select(finite, trial, state.point)
    newton = _newton(trial, xp.where(finite, metric, state.scale), scale)
    noise = xp.maximum(noise_of(state.point), noise_of(trial))
    gain = trial.value - state.point.value
    better = newton.convex & (newton.decrement < state.newton.decrement)
    first = state.steps == 0
    rises = gain >= MIN_SHARE_OF_PREDICTED_GAIN * xp.maximum(state.predicted, 0.0) - noise
    leapt = state.leap > 0
    shows = signature_of(state, trial, newton, scale)
    deceived = is_deceived(state, trial, noise) & finite & ~first & ~leapt
    accept = (finite & ~deceived) & xp.where(
        leapt,
        rises & lands(state, trial, newton, shows),
        xp.where(polishing, better, first | rises),
    )
    blind = is_blind(metric, trial.z, state.scale) & (noise <= MAX_NOISE_OF_COLLAPSE)
    return Reading(trial, newton, scale, finite, accept, deceived, blind, shows, noise, gain)


def _judge(state: State, reading: Reading) -> State:
    """Accept or refuse the trial, and note what it says."""
    trial, newton, scale, finite, accept, deceived, blind, shows, noise, gain = reading
    xp = namespace(trial.z)
    polishing = state.phase == POLISHING
    first = state.steps == 0
    leapt = state.leap > 0
    signature = select(accept & state.full, shows, state.signature)
    length = norm(scale * state.move)
    opening = first_radius(newton, trial.score, scale)
    grown = trusted(state.radius, length, gain, state.predicted, noise)
    # Far out a metric of 1e-13 makes steps of 1e26; refusal after refusal shrinks them faster.
    cut = xp.where(finite, 0.25, 0.1) ** (1 + state.refused // 4).astype(state.radius.dtype)
    shrunk = cut * norm(state.scale * state.move)

    flat = ~first & xp.where(
        accept,
        (gain <= noise) & ~(newton.decrement < 0.5 * state.newton.decrement),
        state.predicted <= noise_of(state.point),
    )
    # Only Newton's own steps tell growth from a long way: scoring and BHHH go far at constant
    # length. A radius that grows back from nothing doubles too.
    longer = (length >= 1.4 * norm(scale * state.last)) & (length >= MIN_SCALED_LENGTH_OF_OWN_STEP)
    steady = (
        (gain >= 0.9 * state.gain)
        & longer
        & (gain > noise)
        & (state.gain > 0)
        & (trial.curvature is None)
        & ~leapt
    )
    small = (
        finite
        & state.full
        & (state.streak >= 0)
        & (state.predicted <= MIN_PREDICTED_GAIN)
        & (state.predicted >= SHARP)
    )
    rough = is_rough(state, trial, newton, signature, noise)
    next_run = _int(xp, xp.where(accept, xp.where(steady, state.runaway + 1, 0), state.runaway))
    next_state = state._replace(
        idle=_int(xp, xp.where(flat, state.idle + 1, xp.where(accept, 0, state.idle))),
        refused=_int(xp, xp.where(accept, 0, state.refused + 1)),
        runaway=next_run,
        rough=state.rough | (small & rough) | deceived,
        longest=xp.maximum(state.longest, next_run),
        radius=xp.where(
            first, opening, xp.where(leapt, state.radius, xp.where(accept, grown, shrunk))
        ),
        leaps=state.leaps & ~(leapt & ~accept),
        signature=signature,
        tail=lengthened(state, trial, newton, signature, accept & state.full & ~first),
        streak=_int(xp, xp.where(accept & ~first, streak_after(state, signature, newton), state.streak)),
        steps=state.steps + _int(xp, 1),
        rise=state.rise + xp.where(accept & ~first, gain, 0.0),
        last=xp.where(accept, xp.where(leapt, state.newton.step, state.move), state.last),
        gain=xp.where(accept & ~first, gain, state.gain),
    )
    slow = ~(newton.decrement <= 0.25 * state.newton.decrement) | (
        newton.decrement <= DECREMENT_FLOOR
    )
    # Where information dies, some steps more tell a recession from a maximum far out.
    young = (next_state.streak < TAIL) & (newton.decrement > DECREMENT_FLOOR**2)
    fading = (signature.information < RECEDES) & state.full & (young | (newton.decrement > FADED))
    slow = slow & ~fading
    outcome = xp.where(accept & blind & ~first, EXHAUSTED, RUNNING)
    # From far off ℓ rises for long too: by less than it is below zero.
    beyond = (next_state.rise + trial.value > 0) & (next_state.runaway >= GROWING_STEPS_OF_RUNAWAY)
    outcome = xp.where(beyond, RUNAWAY, outcome)
    outcome = xp.where(
        (next_state.idle >= MAX_ROUNDS_WITHOUT_GAIN) | (next_state.refused >= LIMIT), STUCK, outcome
    )
    outcome = xp.where(
        polishing, xp.where((~accept & ~leapt) | (accept & slow), SETTLED, RUNNING), outcome
    )
    outcome = xp.where(deceived, SETTLED, outcome)
    outcome = xp.where(first & ~finite, NOT_FINITE, outcome)
    moved = next_state._replace(point=trial, newton=newton, scale=scale)
    after = select(accept, moved, next_state)
    return after._replace(
        outcome=_int(xp, outcome), phase=_int(xp, xp.where(outcome == RUNNING, state.phase, DONE))
    )


def lengthened(
    state: State, trial: Point, newton: NewtonStep, signature: Signature, fresh: Array
) -> Tail:
    """Lengthen the tail by a step that recedes. A regular step ends it; what was seen stays until a
    tail as long, or long enough, comes.

    Where the direction has just sunk below the eigenvalues that count, the decrement no longer
    tells what is left to gain.
    """
    is_informative = newton.definite | ~state.newton.definite
    recedes = (
        fresh & _recedes(signature, newton) & is_informative & (state.newton.decrement >= SHARP)
    )
    length = state.streak + 1
    return select(
        recedes & ((length >= TAIL) | (length >= state.tail.length)),
        Tail(trial.z, state.move, trial.value, newton.decrement, length),
        state.tail,
    )


def is_rough(
    state: State, trial: Point, newton: NewtonStep, signature: Signature, noise: Array
) -> Array:
    """Whether value, score and Hessian of a small step contradict each other: a gain that is not
    theirs, or a score that vanishes while the information changes by a tenth (it should leave (1 −
    q)²/4 of δ).
    """
    xp = namespace(trial.z)
    lucky = (xp.abs(1.0 - signature.information) > 0.1) & (
        newton.decrement < 1e-6 * state.newton.decrement
    )
    return (_mismatch(state, trial) > 0.3 * state.predicted + 100 * noise) | (
        lucky & (state.newton.decrement > SHARP)
    )


def is_deceived(state: State, trial: Point, noise: Array) -> Array:
    """Whether a climb that has proved a tail comes to where value, score and Hessian contradict
    each other: what it would go on by is rounding.
    """
    proved = (state.tail.length >= TAIL) & (state.tail.decrement <= DECREMENT_OF_A_PLAIN_TAIL)
    follows = state.full & (state.streak >= TAIL) & (state.predicted <= DECREMENT_OF_A_PLAIN_TAIL)
    return proved & follows & (_mismatch(state, trial) > DECEPTION * state.predicted + 10 * noise)


def _mismatch(state: State, trial: Point) -> Array:
    """How far the gain is from what the scores and Hessians at both ends say, ½(s₀ + s₁)'d +
    (d'H₀d − d'H₁d)/12 (Hermite's rule).
    """
    d = state.move
    by_derivatives = (
        0.5 * dot(state.point.score + trial.score, d)
        + (quadratic(state.point.hessian, d) - quadratic(trial.hessian, d)) / 12
    )
    return namespace(trial.z).abs(trial.value - state.point.value - by_derivatives)


def lands(state: State, trial: Point, newton: NewtonStep, shows: Signature) -> Array:
    """Whether a leap of m steps ends where a tail e⁻ᵗ would have it: slope and information
    along it e⁻ᵐ times what they were. Rounding noise does not.
    """
    xp = namespace(trial.z)
    slope_after = dot(trial.score, state.move)
    slope_before = dot(state.point.score, state.move)
    grown = xp.exp(state.leap)

    def near(ratio: Any) -> Any:
        return (ratio * LEAP_SLOPE_TOLERANCE >= 1.0) & (ratio <= LEAP_SLOPE_TOLERANCE)

    slope = slope_after / xp.where(slope_before > 0, slope_before, xp.inf)
    return (
        newton.definite
        & near(slope * grown)
        & near(shows.information * grown)
        & (newton.decrement * grown <= LEAP_DECREMENT_TOLERANCE * state.newton.decrement)
    )


def streak_after(state: State, signature: Signature, newton: NewtonStep) -> Array:
    """Receding steps in a row. The step after a leap settles what stays finite; the one after
    that has to recede.
    """
    xp = namespace(state.point.z)
    plain = xp.where(
        state.streak < 0, TAIL - 1, xp.where(_recedes(signature, newton), state.streak + 1, 0)
    )
    return xp.where(state.leap > 0, -1, xp.where(state.full, plain, state.streak))


def _recedes(signature: Signature, newton: NewtonStep) -> Array:
    return (
        (signature.information < RECEDES)
        & (signature.step >= 0.9)
        & (signature.decrement < 0.9)
        & newton.convex
    )


def signature_of(state: State, trial: Point, newton: NewtonStep, scale: Array) -> Signature:
    xp = namespace(trial.z)
    d = state.move
    tiny = xp.finfo(trial.z.dtype).tiny
    before = -quadratic(state.point.hessian, d)
    # In units of the metric, or of the coordinate where that makes the steps shrink less: what
    # recedes has a metric that dies, and is hidden by what converges beside it.
    size = 1.0 + xp.abs(trial.z)

    def ratio(unit: Array) -> Array:
        length = xp.sum((unit * d) ** 2, axis=0)
        return xp.sqrt(length / xp.maximum(xp.sum((unit * state.last) ** 2, axis=0), tiny))

    return Signature(
        information=xp.where(
            before > tiny, -quadratic(trial.hessian, d) / xp.where(before > tiny, before, 1.0), 1.0
        ),
        decrement=newton.decrement / xp.maximum(state.newton.decrement, tiny),
        step=xp.maximum(ratio(scale), ratio(1.0 / size)),
    )


def _enter_polish(state: State) -> State:
    """Once δ is within reach of full Newton steps, they take over; where a leap has led not
    before a step of the climb was kept there.
    """
    xp = namespace(state.point.z)
    near = state.newton.convex & (
        state.newton.decrement <= xp.maximum(DECREMENT_TO_POLISH, noise_of(state.point))
    )
    phase = xp.where(
        state.leap > 0, CLIMBING, xp.where(near & (state.refused == 0), POLISHING, state.phase)
    )
    return state._replace(phase=_int(xp, xp.where(state.phase == DONE, DONE, phase)))


def _propose(state: State) -> State:
    """The next move: the full Newton step while it is trusted, else the best within the trust
    region; along a recession several at once.
    """
    xp = namespace(state.point.z)
    observed = -symmetric(state.point.hessian)
    polishing = state.phase == POLISHING
    j = (
        observed
        if state.point.curvature is None
        else xp.where(polishing, observed, state.point.curvature)
    )
    cut = _cut(state.point)
    slack = _slack(state.point)
    plain = (
        state.newton
        if state.point.curvature is None
        else newton_step(j, state.point.score, state.scale, cut, slack)
    )
    whole = polishing | (plain.convex & (norm(state.scale * plain.step) <= state.radius))
    side = xp.where(state.refused % 2 == 0, 1.0, -1.0).astype(state.radius.dtype)
    running = state.phase != DONE
    move, predicted = within(
        running & ~whole,
        (plain.step, plain.decrement),
        j,
        state.point.score,
        state.scale,
        cut,
        slack,
        state.radius,
        side,
    )
    leap, far = leap_along(state, whole & running)
    # A tail e⁻ᵗ still has 2δ to gain.
    move = xp.where(leap > 0, far, move)
    predicted = xp.where(leap > 0, 2 * state.newton.decrement, predicted)
    return state._replace(
        move=xp.where(running, move, 0.0), predicted=predicted, full=whole & (leap == 0), leap=leap
    )


def leap_along(state: State, whole: Array) -> tuple[Array, Array]:
    """How many Newton steps along a recession to take at once (...), or 0, and where they lead
    (k, ...).

    Along a tail e⁻ᵗ each step is d = v + c: v is the same in all of them, and c, the way of what
    does not recede, is of second order, less by the square of the information ratio each time. So
    the latest two steps tell both, and m steps together are mv + c(1 + q² + q⁴ + …). A leap that
    does not land where such a tail would have it is refused, and no other is tried; plain steps
    alone are evidence of a recession.
    """
    xp = namespace(state.point.z)
    step = state.newton.step
    decrement = state.newton.decrement
    square = xp.clip(state.signature.information, 0.1, RECEDES) ** 2
    c = (state.last - step) * square / (1 - square)
    end = xp.where(
        decrement > 100 * SHARP, 10 * SHARP, FADED
    )  # the first end leaves room for sharp steps
    number = xp.log(xp.clip(decrement / end, 1.0, 1.0 / FADED))
    proved = (
        state.leaps
        & state.full
        & (state.streak >= TAIL)
        & (state.tail.decrement <= PROVED)
        & (state.refused == 0)
        & state.newton.definite
    )
    leaps = whole & proved & (number >= 2.0) & (state.point.curvature is None)
    return xp.where(leaps, number, 0.0), xp.where(
        leaps, number * (step - c) + c / (1 - square), step
    )


def is_running(state: State, max_steps: int | Array) -> Array:
    """Whether the climb has neither ended nor spent its steps."""
    return (state.phase != DONE) & (state.steps <= max_steps)


def resume(evaluate: Callable[[Array], Point], state: State, max_steps: int) -> State:
    """Climb on from a state under a trace, in one while_loop."""

    def cast(state: Any) -> Any:
        return jax.tree.map(
            lambda new, old: jnp.asarray(new).astype(old.dtype), step(evaluate, state), state
        )

    return jax.lax.while_loop(lambda state: is_running(state, max_steps), cast, state)


def maximise(evaluate: Callable[[Any], Point], z: Array, max_steps: int) -> State:
    """Climb from z (k,) until the state is done or the steps are spent; in Python on the host,
    in one while_loop under a trace.
    """
    if isinstance(z, np.ndarray):
        state = begin(evaluate, z)
        while is_running(state, max_steps):
            state = step(evaluate, state)
        return state
    return resume(evaluate, start(z, jax.eval_shape(evaluate, z)), max_steps)
