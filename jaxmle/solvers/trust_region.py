"""The ascent: a trust-region Newton iteration that ends by polishing, as one pure step from state
to state.

The same step runs under a trace inside one ``while_loop`` and on the host in a Python loop over
NumPy arrays, of one fit or with an axis of members last (``leading_axes``), where only ``evaluate``
is compiled. Progress is measured by the Newton decrement δ = s'J⁻¹s/2, in units of log-likelihood:
√(2δ) is the distance to the maximum in standard errors.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_nowhere, namespace
from jaxmle._types import Array, Namespace, Tree
from jaxmle.solvers.leading_axes import (
    norm,
    symmetric,
)
from jaxmle.solvers.linalg import metric_of
from jaxmle.solvers.newton_step import NewtonStep, newton_step, within
from jaxmle.solvers.outcome import Reading, outcome_of
from jaxmle.solvers.state import (
    ASCENDING,
    DONE,
    POLISHING,
    RUNNING,
    Point,
    State,
    is_beyond_edge,
    is_finite,
    noise_of,
    null_cut,
    null_cut_of,
    select,
    select_lazily,
    start,
    without_rounding,
)
from jaxmle.solvers.tails import (
    DECREMENT_TO_END_A_TAIL,
    MIN_PREDICTED_GAIN,
    curvature_along,
    extrapolate,
    extrapolation_holds,
    is_inconsistent,
    is_rough,
    is_too_good,
    lengthened,
    receding_steps_after,
    signature_of,
)

DECREMENT_TO_POLISH = 1e-8  # decrement at which full Newton steps take over
MIN_SHARE_OF_PREDICTED_GAIN = 0.03  # of a step that is kept; one on to a plateau gains a hundredth
MAX_ERROR_OF_FORESEEN_GAIN = (
    0.01  # relative error of a predicted gain that lets the radius grow faster
)
MAX_FIRST_RADIUS = 16.0  # in units of the metric, where no Newton step says more
MIN_EQUAL_GAIN = (
    0.2  # of ℓ, by a step that counts among those that gain alike: a quarter to four times
)
# rounding noise of ℓ above which nothing can be said of a collapse: the ascent is still far off
MAX_NOISE_OF_COLLAPSE = 1.0
MIN_SCALED_LENGTH_OF_GROWTH = (
    0.1  # scaled length from which a step is the likelihood's own, not that of a small radius
)


def _cut(point: Point) -> Tree:
    """``null_cut``, computed only where a step needs eigenvectors."""
    return jax.tree_util.Partial(null_cut, point._replace(aux=None))


def _slack(point: Point) -> Array:
    """The scaled score that rounding leaves along a flat direction."""
    return namespace(point.z).sqrt(noise_of(point))


def _newton(point: Point, metric: Array, scale: Array, peak: Array) -> NewtonStep:
    j = -symmetric(point.hessian)
    cut = jax.tree_util.Partial(null_cut_of, point.hessian, metric)
    return newton_step(j, point.score, scale, cut, _slack(point), peak / scale, unrolled=True)


def trusted(radius: Array, length: Array, gain: Array, predicted: Array, noise: Array) -> Array:
    """The trust radius after an accepted step of ``length``. If the gain is more than three
    quarters of the predicted one, it is at least twice the step; if less than a quarter, a quarter
    of it (after Nocedal & Wright 2006, Numerical Optimization, algorithm 4.1). If gain and
    prediction agree to within a hundredth, or to within noise, it is at least eight times the step.
    """
    xp = namespace(radius)
    ratio = (gain + noise) / (xp.maximum(predicted, 0.0) + noise + xp.finfo(radius.dtype).tiny)
    growth = xp.where(xp.abs(ratio - 1.0) <= MAX_ERROR_OF_FORESEEN_GAIN, 8.0, 2.0)
    return xp.where(
        ratio > 0.75,
        xp.maximum(radius, growth * length),
        xp.where(ratio < 0.25, 0.25 * length, radius),
    )


def first_radius(newton: NewtonStep, score: Array, scale: Array) -> Array:
    """The trust radius at the start: the length of the Newton step where ℓ is concave, and at least
    that of the scaled score, between 1 and MAX_FIRST_RADIUS: far from the maximum, a longer step
    often ends on a plateau.
    """
    xp = namespace(score)
    length = xp.where(newton.convex, norm(scale * newton.step), 0.0)
    slope = xp.clip(norm(score / scale), 1.0, MAX_FIRST_RADIUS)
    return xp.maximum(length, slope)


def is_ulp_sensitive(metric: Array, z: Array, before: State) -> Array:
    """Whether one ulp in some coordinate of z (k,) changes ℓ noticeably, at the metric (k,) there,
    and did not in the state ``before``. This is an ascent into a singularity, such as a variance of
    zero; not one that comes down from a mean of e⁷⁰ or that started where ℓ is rounding.
    """
    xp = namespace(z)
    ulps = 16 * xp.finfo(z.dtype).eps
    ulp_sensitive = ulps * metric * xp.abs(z) > 1.0
    if is_nowhere(ulp_sensitive):
        return xp.any(ulp_sensitive, axis=0)
    was_insensitive = ulps * before.scale * xp.abs(before.point.z) <= 1.0
    return xp.any(ulp_sensitive & was_insensitive & (metric >= before.scale), axis=0)


def begin(evaluate: Callable[[Array], Point], z: Array) -> State:
    """The state at the start, evaluated."""
    point = evaluate(z)
    state = start(z, point)
    return advance(state, point)


def step(evaluate: Callable[[Array], Point], state: State) -> State:
    """Try the pending move; keep it or refuse it; propose the next."""
    return advance(state, evaluate(state.point.z + state.move))


def advance(state: State, trial: Point) -> State:
    """The next state, given the evaluation at the pending trial. No likelihood is called here."""
    return proposed(accepted(state, read(state, trial)))


def accepted(state: State, reading: Reading) -> State:
    """The state after its pending step was accepted or refused; no next step is proposed yet."""
    return _enter_polish(_judge(state, reading))


def proposed(state: State) -> State:
    """The result of ``accepted`` with its next step. Applying it twice changes nothing."""
    return _propose(state)


def _int(xp: Namespace, value: int | Array) -> Array:
    return xp.asarray(value, xp.int32)[()] if isinstance(value, int) else value.astype(xp.int32)


def read(state: State, trial: Point) -> Reading:
    """Whether the pending step is accepted, and what else the evaluation shows."""
    xp = namespace(trial.z)
    polishing = state.phase == POLISHING
    finite = is_finite(trial)
    at_nan = ~(finite | (trial.value == -xp.inf))
    nan_point = xp.where(at_nan, trial.z, xp.nan)
    at_edge = is_beyond_edge(state.point, trial)
    trial = without_rounding(trial, state.believed)
    metric = metric_of(trial.hessian, trial.score)
    scale = xp.maximum(metric, 0.5 * state.scale)
    scale = xp.where(finite, scale, state.scale)
    trial = select(finite, trial, state.point)
    peak = xp.where(finite, xp.maximum(metric, state.peak), state.peak)
    newton = _newton(trial, xp.where(finite, metric, state.scale), scale, peak)
    noise = xp.maximum(noise_of(state.point), noise_of(trial))
    gain = trial.value - state.point.value
    better = newton.convex & (newton.decrement < state.newton.decrement)
    first = state.steps == 0
    rises = gain >= MIN_SHARE_OF_PREDICTED_GAIN * xp.maximum(state.predicted, 0.0) - noise
    extrapolated = state.extrapolation > 0
    curvatures = curvature_along(state, trial)
    pending_signature = state.signature
    if not is_nowhere(state.full | extrapolated):
        pending_signature = signature_of(state, trial, newton, scale, curvatures)
    inconsistent = (
        is_inconsistent(state, trial, curvatures, noise) & finite & ~first & ~extrapolated
    )
    accept = (finite & ~inconsistent) & xp.where(
        extrapolated,
        rises & extrapolation_holds(state, trial, newton, pending_signature),
        xp.where(
            polishing, better, first | (rises & ~is_too_good(state, trial, curvatures, gain, noise))
        ),
    )
    ulp_sensitive = is_ulp_sensitive(metric, trial.z, state) & (noise <= MAX_NOISE_OF_COLLAPSE)
    return Reading(
        trial,
        newton,
        scale,
        peak,
        finite,
        accept,
        inconsistent,
        ulp_sensitive,
        pending_signature,
        curvatures,
        noise,
        gain,
        at_nan,
        nan_point,
        at_edge,
    )


def _judge(state: State, reading: Reading) -> State:
    """Accept or refuse the trial, and record what it shows."""
    xp = namespace(reading.trial.z)
    noted = _noted(state, reading)
    outcome = outcome_of(state, noted, reading)
    after = (reading.trial, reading.newton, reading.scale, reading.peak)
    before = (state.point, state.newton, state.scale, state.peak)
    point, newton, scale, peak = select(reading.accept, after, before)
    return noted._replace(
        point=point,
        newton=newton,
        scale=scale,
        peak=peak,
        outcome=_int(xp, outcome),
        phase=_int(xp, xp.where(outcome == RUNNING, state.phase, DONE)),
    )


def _noted(state: State, reading: Reading) -> State:
    """The state at its old point, with radius, counts, signature and tail updated by the trial."""
    trial = reading.trial
    newton = reading.newton
    accept = reading.accept
    gain = reading.gain
    xp = namespace(trial.z)
    first = state.steps == 0
    extrapolated = state.extrapolation > 0
    signature = select(accept & state.full, reading.pending_signature, state.signature)
    idles = _gains_nothing(state, reading)
    idle = xp.where(idles, state.idle + 1, xp.where(accept, 0, state.idle))
    run = xp.where(_grows_steadily(state, reading), state.growing_steps + 1, 0)
    run = _int(xp, xp.where(accept, run, state.growing_steps))
    alike = (gain >= 0.25 * state.gain) & (gain <= 4 * state.gain) & (gain >= MIN_EQUAL_GAIN)
    equal_gains = _int(
        xp, xp.where(accept, xp.where(alike, state.equal_gains + 1, 0), state.equal_gains)
    )
    small = (
        reading.finite
        & state.full
        & (state.receding_steps >= 0)
        & (state.predicted <= MIN_PREDICTED_GAIN)
    )
    rough = is_rough(state, trial, newton, signature, reading.curvatures, reading.noise, small)
    receding_steps = xp.where(
        accept & ~first, receding_steps_after(state, signature, newton), state.receding_steps
    )
    return state._replace(
        idle=_int(xp, idle),
        refused=_int(xp, xp.where(accept, 0, state.refused + 1)),
        growing_steps=run,
        rough=state.rough | rough | reading.inconsistent,
        equal_gains=equal_gains,
        max_equal_gains=xp.maximum(state.max_equal_gains, equal_gains),
        radius=_radius_after(state, reading),
        may_extrapolate=state.may_extrapolate & ~(extrapolated & ~accept),
        signature=signature,
        tail=lengthened(state, trial, newton, signature, accept & state.full & ~first),
        receding_steps=_int(xp, receding_steps),
        steps=state.steps + _int(xp, 1),
        rise=state.rise + xp.where(accept & ~first, gain, 0.0),
        last=xp.where(accept, xp.where(extrapolated, state.newton.step, state.move), state.last),
        gain=xp.where(accept & ~first, gain, state.gain),
        nan_point=xp.where(
            reading.at_nan | reading.at_edge | (accept & state.full),
            reading.nan_point,
            state.nan_point,
        ),
    )


def _radius_after(state: State, reading: Reading) -> Array:
    """The trust radius for the next step."""

    def opening() -> Array:
        return first_radius(reading.newton, reading.trial.score, reading.scale)

    def grown() -> Array:
        length = norm(reading.scale * state.move)
        return trusted(state.radius, length, reading.gain, state.predicted, reading.noise)

    def shrunk() -> Array:
        # Far out a metric of 1e-13 makes steps of 1e26; refusal after refusal shrinks them faster.
        share = namespace(state.radius).where(reading.finite, 0.25, 0.1)
        share = share ** (1 + state.refused // 4)
        return share.astype(state.radius.dtype) * norm(state.scale * state.move)

    def later() -> Array:
        usual = select_lazily(reading.accept, grown, shrunk)
        return select(state.extrapolation > 0, state.radius, usual)

    return select_lazily(state.steps == 0, opening, later)


def _gains_nothing(state: State, reading: Reading) -> Array:
    """Whether an accepted step neither raised ℓ above its noise nor halved δ, or a refused one
    predicted no gain above the noise, or none that a tail is followed for.
    """
    xp = namespace(state.predicted)
    little = reading.gain <= reading.noise
    halved = reading.newton.decrement < 0.5 * state.newton.decrement
    least = xp.maximum(noise_of(state.point), DECREMENT_TO_END_A_TAIL)
    nothing_predicted = state.predicted <= least
    return (state.steps > 0) & xp.where(reading.accept, little & ~halved, nothing_predicted)


def _grows_steadily(state: State, reading: Reading) -> Array:
    """Whether the step is at least 1.4 times as long as the one before, with undiminished gain.
    Only full Newton curvature distinguishes divergence from a long distance: scoring and BHHH take
    many steps of constant length. Steps below MIN_SCALED_LENGTH_OF_GROWTH do not count, because a
    radius that recovers from almost zero doubles too.
    """
    undiminished = (reading.gain >= 0.9 * state.gain) & (reading.gain > reading.noise)
    by_newton = (state.gain > 0) & (reading.trial.curvature is None) & ~(state.extrapolation > 0)
    asked = undiminished & by_newton
    if is_nowhere(asked):
        return asked
    length = norm(reading.scale * state.move)
    before = norm(reading.scale * state.last)
    longer = (length >= 1.4 * before) & (length >= MIN_SCALED_LENGTH_OF_GROWTH)
    return asked & longer


def _enter_polish(state: State) -> State:
    """The state in the polishing phase, once δ is so small that full Newton steps converge. After
    an extrapolation, a step of the ascent has to be accepted first.
    """
    xp = namespace(state.point.z)
    near = state.newton.convex & (
        state.newton.decrement <= xp.maximum(DECREMENT_TO_POLISH, noise_of(state.point))
    )
    phase = xp.where(
        state.extrapolation > 0,
        ASCENDING,
        xp.where(near & (state.refused == 0), POLISHING, state.phase),
    )
    return state._replace(phase=_int(xp, xp.where(state.phase == DONE, DONE, phase)))


def _information(hessian: Array) -> Array:
    """The observed information (k, k, ...), computed only where a bounded step needs it."""
    return -symmetric(hessian)


def _directions_from(state: State) -> Tree:
    """The curvature (k, k, ...) from which directions are taken, or what computes it."""
    if state.point.curvature is None:
        return jax.tree_util.Partial(_information, state.point.hessian)
    return namespace(state.point.z).where(
        state.phase == POLISHING, _information(state.point.hessian), state.point.curvature
    )


def _propose(state: State) -> State:
    """The next step: the full Newton step if it lies within the trust region, otherwise the best
    step within it; along a recession several steps at once.
    """
    xp = namespace(state.point.z)
    polishing = state.phase == POLISHING
    plain = state.newton
    if state.point.curvature is not None:
        j = _directions_from(state)
        cut = _cut(state.point)
        plain = newton_step(j, state.point.score, state.scale, cut, _slack(state.point))
    whole = polishing | (plain.convex & (norm(state.scale * plain.step) <= state.radius))
    running = state.phase != DONE
    move = plain.step
    predicted = plain.decrement
    if not is_nowhere(running & ~whole):
        side = xp.where(state.refused % 2 == 0, 1.0, -1.0).astype(state.radius.dtype)
        move, predicted = within(
            running & ~whole,
            (move, predicted),
            _directions_from(state),
            state.point.score,
            state.scale,
            _cut(state.point),
            _slack(state.point),
            state.radius,
            side,
        )
    extrapolation, far = extrapolate(state, whole & running)
    # A tail e⁻ᵗ still has 2δ to gain.
    move = xp.where(extrapolation > 0, far, move)
    predicted = xp.where(extrapolation > 0, 2 * state.newton.decrement, predicted)
    return state._replace(
        move=xp.where(running, move, 0.0),
        predicted=predicted,
        full=whole & (extrapolation == 0),
        extrapolation=extrapolation,
    )


def is_running(state: State, max_steps: int | Array) -> Array:
    """Whether the ascent has neither ended nor spent its steps."""
    return (state.phase != DONE) & (state.steps <= max_steps)


def resume(evaluate: Callable[[Array], Point], state: State, max_steps: int) -> State:
    """Continue the ascent from a state under a trace, in one while_loop."""

    def cast(state: Tree) -> Tree:
        return jax.tree.map(
            lambda new, old: jnp.asarray(new).astype(old.dtype), step(evaluate, state), state
        )

    return jax.lax.while_loop(lambda state: is_running(state, max_steps), cast, state)


def maximise(evaluate: Callable[[Array], Point], z: Array, max_steps: int) -> State:
    """Ascend from z (k,) until the state is done or the steps are spent; in Python on the host,
    in one while_loop under a trace.
    """
    if isinstance(z, np.ndarray):
        state = begin(evaluate, z)
        while is_running(state, max_steps):
            state = step(evaluate, state)
        return state
    return resume(evaluate, start(z, jax.eval_shape(evaluate, z)), max_steps)
