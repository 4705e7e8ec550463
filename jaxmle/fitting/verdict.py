"""The verdict: what the end of a climb is, by the first rule that applies, with its witness.

Two excursions may follow a climb. Where the last steps show recession (ℓ still rises, by less and
less, as information along the step dies), the point is carried far along that step and the rest
solved again: that is the limit likelihood. Where the information has null directions, points ±1,
±10 and ±10⁵ units along them are tried: a flat likelihood is flat there too. And where a standard
error on the scale of a logarithm is 3 or more, ℓ is asked at ±¼ and ±⅒ of it whether it falls as
its curvature says: on a maximum of rounding it does not. Signatures of a recession, per Newton step
(information ratio, decrement ratio, step ratio): tail e⁻ᵗ .37/.37/1, tail 1/t .30/.67/1.5,
logarithmic growth .25/1/2, quartic .44/.20/.67; regular 1/→0/→0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.linalg import (
    NewtonStep,
    cholesky,
    eigh,
    factored,
    metric_of,
    newton_step,
    rarely,
    solve_lower,
)
from jaxmle.solvers.status import Status
from jaxmle.solvers.trust_region import (
    DONE,
    EXHAUSTED,
    NOT_FINITE,
    RECEDES,
    RUNAWAY,
    SETTLED,
    STUCK,
    TAIL,
    Point,
    State,
    is_finite,
    noise_of,
    null_cut,
)

ESCAPE = (
    6  # doubling steps of undiminished gain that make a climb which then ends nowhere an escape
)
STEPS_ALONG_RECESSION = 30.0  # Newton steps along a recession: e⁻³⁰ = 1e-13
# decrements of 1e-6 and 1e-3 standard errors
DECREMENT_SURE = 5e-13
DECREMENT_USABLE = 5e-7
FLATNESS_PROBES = (1.0, -1.0, 10.0, -10.0, 1e5, -1e5)
MAX_STEPS_OF_THE_REST = 8  # Newton steps that solve the rest again
# When a maximum on a logarithm has to show itself, and how. With these, 0 of 3 600 fits of
# underdispersed counts by a negative binomial written with log-gamma functions, whose ℓ is rounding
# noise far out, pass for maxima; none of 20 000 peaks over a background near zero fails.
WIDE_MAXIMUM_STDERR = 3.0  # standard error of a logarithm: a factor of 20
FAR_OUT = 16.0  # a logarithm of 1e7 or 1e-7
NEARBY = (0.25, -0.25, 0.1, -0.1)  # of a logarithm
FALLS = (
    0.3,
    3.0,
)  # times what the parabola says: a fall near a bound is a parabola in e^z, (e^h − 1)² for h²


class Limit(NamedTuple):
    """The end of a climb after its excursion."""

    point: Point
    scale: Array  # D (k,)
    recedes: Array
    flat: Array  # the likelihood is flat along the null directions
    decrement: Array  # of what does not recede
    short: Array  # the likelihood could not be followed far enough for its information to die
    steps: Array
    doubtful: Array  # the likelihood does not fall where its curvature says so


class Verdict(NamedTuple):
    """Status and witness in the free coordinates."""

    status: Array
    point: Point
    lost: Array  # no covariance means anything here
    null: (
        Array  # (k, k) projector on the directions without an estimate, in coordinates scaled by D
    )
    scale: Array  # D (k,)
    direction: Array  # (k,) in free coordinates
    curvature: Array
    digits: Array
    gain: Array
    distance: Array  # √(2δ), standard errors
    steps: Array


def _information(point: Point) -> Array:
    return -0.5 * (point.hessian + point.hessian.T)


# ---------------------------------------------------------------- excursions


class Excursion(NamedTuple):
    """A walk away from the end of a climb: the present trial, what was kept, and which probe is
    under way.
    """

    trial: Array
    kept: Point
    direction: Array  # (k,) along which it probes
    probe: Array
    inner: Array
    flat: Array
    straight: Array
    active: Array


def _is_settled(state: State) -> Array:
    return (state.outcome == SETTLED) | (state.outcome == STUCK)


def _is_suspect(state: State) -> tuple[Array, Array, Array]:
    """Whether the climb may have ended on a recession; the noise of ℓ, and the value that a
    tail cannot pass.
    """
    xp = namespace(state.point.z)
    tail = state.tail
    # What a tail has yet to gain is a few times its decrement; an end above that is a maximum in
    # its own right, unless ℓ was seen to be rough: then it was climbed by rounding.
    noise = 10 * noise_of(state.point)
    ceiling = tail.value + 20 * tail.decrement + noise
    below = (state.point.value <= ceiling) | state.rough
    return (
        _is_settled(state)
        & (tail.length >= TAIL)
        & (tail.decrement <= xp.maximum(1e-5, noise))
        & below,
        noise,
        ceiling,
    )


def needs_excursion(bent: tuple[bool, ...], state: State) -> Array:
    """Whether ``explore`` would evaluate the likelihood at all."""
    return (
        _is_suspect(state)[0]
        | (_is_settled(state) & ~state.newton.definite & state.newton.convex)
        | _widest(bent, state)[0]
    )


def unexplored(state: State) -> Limit:
    """What ``explore`` returns where no excursion is needed; of one member or of many."""
    no = np.zeros(state.steps.shape, dtype=bool)
    return Limit(
        state.point,
        state.scale,
        no,
        no,
        state.newton.decrement,
        no,
        np.zeros(state.steps.shape, np.int32),
        no,
    )


def explore(evaluate: Callable[[Array], Point], state: State, bent: tuple[bool, ...] = ()) -> Limit:
    """Carry a recession to its limit, try whether null directions are flat, or whether a maximum is
    one. Costs nothing where not needed.

    Args:
        bent: for each free coordinate whether it is a logarithm or the like; none if empty.
    """
    far = _walk(evaluate, follow, state, to_limit(state))
    return arrived(
        bent, state, far, _walk(evaluate, partial(probe, bent), state, to_flat(bent, state, far))
    )


def _walk(
    evaluate: Callable[[Array], Point],
    body: Callable[[State, Excursion, Point], Excursion],
    state: State,
    start: Excursion,
) -> Excursion:
    if isinstance(start.trial, np.ndarray):
        while start.active:
            start = body(state, start, evaluate(start.trial))
        return start

    def cast(e: Any) -> Any:
        return jax.tree.map(
            lambda new, old: jnp.asarray(new).astype(old.dtype),
            body(state, e, evaluate(e.trial)),
            e,
        )

    return jax.lax.while_loop(lambda e: e.active, cast, jax.tree.map(jnp.asarray, start))


def _outset(state: State, trial: Array, direction: Array, active: Array) -> Excursion:
    xp = namespace(trial)
    zero = xp.zeros((), dtype=xp.int32)
    yes = xp.ones((), dtype=bool)
    return Excursion(trial, state.point, direction, zero, zero, yes, yes, active)


def to_limit(state: State) -> Excursion:
    """The outset of the walk to a limit likelihood: thirty steps further along the tail, then
    the rest solved again.
    """
    start = _outset(
        state,
        state.tail.z + STEPS_ALONG_RECESSION * state.tail.move,
        state.tail.move,
        _is_suspect(state)[0],
    )
    return start._replace(flat=~start.flat)


def follow(state: State, e: Excursion, point: Point) -> Excursion:
    """One evaluation on the way to the limit.

    ℓ must neither fall on the way nor rise by more than a tail can. A likelihood that loses its
    digits far out (differences of log-gamma functions do) is followed half as far each time, at
    last not at all.
    """
    xp = namespace(state.point.z)
    _, noise, ceiling = _is_suspect(state)
    tail = state.tail
    sound = is_finite(point) & (point.value >= tail.value - noise) & (point.value <= ceiling)
    newton = _rest(state, point)
    first = e.inner == 0
    tries = xp.where(first & ~sound, e.probe + 1, e.probe)
    kept = jax.tree.map(lambda a, b: xp.where(sound, a, b), point, e.kept)
    moved = first & ~sound
    arrived = ~moved & (~sound | (newton.decrement <= 1e-20) | (e.inner >= MAX_STEPS_OF_THE_REST))
    reach = xp.where(tries < 5, STEPS_ALONG_RECESSION * 0.5 ** tries.astype(tail.z.dtype), 0.0)
    trial = xp.where(moved, tail.z + reach * tail.move, point.z + newton.step)
    inner = xp.where(moved, 0, e.inner + 1)
    return Excursion(
        trial,
        kept,
        e.direction,
        tries.astype(xp.int32),
        inner.astype(xp.int32),
        e.flat | sound,
        e.straight,
        ~arrived & (tries <= 5),
    )


def _rest(state: State, point: Point) -> NewtonStep:
    """The Newton step of what does not recede."""
    xp = namespace(point.z)
    one = xp.ones_like(point.value)
    return newton_step(
        _information(point),
        point.score,
        state.scale,
        xp.sqrt(xp.finfo(point.z.dtype).eps) * one,
        xp.inf * one,
    )


def _recedes(state: State, far: Excursion) -> Array:
    suspect, noise, _ = _is_suspect(state)
    # An end above the limit is a maximum in its own right: an estimate a hundredth of its standard
    # error inside a bound.
    inner = (state.point.value > far.kept.value + noise) & state.newton.definite & ~state.rough
    # Short of seven steps every maximum far out still looks like a tail; only noise excuses a
    # likelihood from going there.
    return suspect & far.flat & ~inner & ((far.probe <= 2) | state.rough)


def _is_singular(state: State, far: Excursion) -> Array:
    return _is_settled(state) & ~_recedes(state, far) & ~state.newton.definite & state.newton.convex


def _null_direction(state: State) -> Array:
    """One generic unit vector of the null space, in free coordinates: the sum of its
    eigenvectors.
    """
    xp = namespace(state.point.z)
    values, q = eigh(_information(state.point) / (state.scale[:, None] * state.scale[None, :]))
    null = xp.abs(values) <= null_cut(state.point)
    u = q @ xp.where(null, 1.0, 0.0)
    return u / xp.maximum(xp.sqrt(xp.sum(u**2)), 1e-30) / state.scale


def _widest(bent: tuple[bool, ...], state: State) -> tuple[Array, Array]:
    """Whether a maximum has to show itself: on the scale of a logarithm it claims a standard error
    of three or more, or lies beyond ±16, where differences of large numbers lose their digits. And
    the way to look, (k,): along that interval, one unit of the logarithm or one SE.
    """
    xp = namespace(state.point.z)
    if not any(bent):
        return xp.zeros((), dtype=bool), xp.zeros_like(state.point.z)
    r = _information(state.point) / (state.scale[:, None] * state.scale[None, :])
    half = solve_lower(
        factored(r, unrolled=True), xp.eye(len(bent), dtype=state.scale.dtype), unrolled=True
    )
    inverse = half.T @ half / (state.scale[:, None] * state.scale[None, :])
    variance = xp.where(
        xp.asarray(np.array(bent)) & xp.isfinite(xp.diagonal(inverse)), xp.diagonal(inverse), 0.0
    )
    strange = xp.where(
        variance > 0,
        xp.maximum(xp.sqrt(variance) / WIDE_MAXIMUM_STDERR, xp.abs(state.point.z) / FAR_OUT),
        0.0,
    )
    j = xp.argmax(strange)
    doubt = _is_settled(state) & state.newton.definite & state.newton.convex & (strange[j] >= 1.0)
    length = xp.sqrt(xp.where(doubt, variance[j], 1.0))
    return doubt, xp.where(doubt, inverse[:, j] / (length * xp.maximum(length, 1.0)), 0.0)


def _on_a_plain(bent: tuple[bool, ...], state: State) -> Array:
    """Whether a climb leapt along a logarithm to where nothing is left of the information it once
    had there: level ground beside a bound, on which any point has a score of zero. A negative
    binomial's dispersion was called 4e-29 ± 2e-13 so.
    """
    xp = namespace(state.point.z)
    if not any(bent):
        return xp.zeros((), dtype=bool)
    left = xp.abs(xp.diagonal(state.point.hessian)) <= null_cut(state.point) * state.scale**2
    return (
        _is_settled(state)
        & ~state.newton.definite
        & xp.any(xp.asarray(np.array(bent)) & (xp.abs(state.point.z) >= FAR_OUT) & left)
    )


def to_flat(bent: tuple[bool, ...], state: State, far: Excursion) -> Excursion:
    """The outset of the walk that tries whether ℓ stays where it is at ±1 and ±10 units along the
    null space with the rest solved again, and, where the null space is straight, at ±10⁵:
    collinearity by rounding shows there. Or of the walk about a wide maximum.
    """
    singular = _is_singular(state, far)
    doubt, wide = _widest(bent, state)
    xp = namespace(wide)
    direction = xp.where(doubt, wide, rarely(singular, _null_direction, lambda s: s.point.z, state))
    return _outset(
        state,
        state.point.z + xp.where(doubt, NEARBY[0], FLATNESS_PROBES[0]) * direction,
        direction,
        singular | (doubt & ~_recedes(state, far)),
    )


def probe(bent: tuple[bool, ...], state: State, e: Excursion, point: Point) -> Excursion:
    """One evaluation of a null direction, or about a wide maximum."""
    xp = namespace(state.point.z)
    dtype = state.point.z.dtype
    doubt = _is_settled(state) & state.newton.definite & state.newton.convex
    probes = xp.where(
        doubt,
        xp.asarray(np.array([*NEARBY, 0, 0], dtype=dtype)),
        xp.asarray(np.array(FLATNESS_PROBES, dtype=dtype)),
    )
    noise = noise_of(state.point)
    distance = xp.abs(probes[e.probe])
    allowed = (
        4 * noise
        + 8 * xp.finfo(dtype).eps * distance
        + 1e-12 * (distance < 100) * xp.sqrt(state.point.absolute)
    )
    change = point.value - state.point.value
    parabola = -0.5 * distance**2 * (e.direction @ _information(state.point) @ e.direction)
    fell = (change <= FALLS[0] * parabola) & (change >= FALLS[1] * parabola)
    level = xp.isfinite(point.value) & xp.where(doubt, fell, xp.abs(change) <= allowed)
    newton = newton_step(
        _information(point), point.score, state.scale, null_cut(point), xp.inf * noise
    )
    solved = (
        level | (e.inner >= MAX_STEPS_OF_THE_REST) | ~is_finite(point) | (distance > 100) | doubt
    )
    straight = e.straight & ((e.inner > 0) | level)
    flat = e.flat & (level | ~solved)
    last = xp.where(doubt, len(NEARBY) - 1, xp.where(straight, len(FLATNESS_PROBES) - 1, 3))
    following = xp.where(solved, e.probe + 1, e.probe)
    trial = xp.where(
        solved,
        state.point.z + probes[xp.minimum(following, len(FLATNESS_PROBES) - 1)] * e.direction,
        point.z + newton.step,
    )
    active = flat & (following <= last)
    return Excursion(
        trial,
        e.kept,
        e.direction,
        following.astype(xp.int32),
        xp.where(solved, 0, e.inner + 1).astype(xp.int32),
        flat,
        straight,
        active,
    )


def arrived(bent: tuple[bool, ...], state: State, far: Excursion, near: Excursion) -> Limit:
    """The end of a climb after both excursions."""
    xp = namespace(state.point.z)
    recedes = _recedes(state, far)
    point = jax.tree.map(lambda a, b: xp.where(recedes, a, b), far.kept, state.point)
    decrement = xp.where(recedes, _rest(state, far.kept).decrement, state.newton.decrement)
    doubtful = ((_widest(bent, state)[0] & ~near.flat) | _on_a_plain(bent, state)) & ~recedes
    return Limit(
        point,
        state.scale,
        recedes,
        _is_singular(state, far) & near.flat,
        decrement,
        recedes & (far.probe > 0),
        near.probe,
        doubtful,
    )


# ---------------------------------------------------------------- the verdict


class Survey(NamedTuple):
    """The information at the end, taken apart in coordinates scaled by D."""

    scale: Array  # D (k,)
    cut: Array  # eigenvalues of R within ± this are null
    troubled: Array  # the Cholesky factor does not tell all
    null: Array  # (k, k) projector on the null directions, scaled coordinates
    lowest: Array  # smallest eigenvalue of R
    weakest: Array  # its eigenvector (k,)
    vif: Array  # tr R⁻¹


def survey(state: State, limit: Limit) -> Survey:
    """Take the information at the end apart: by Cholesky where it is sound, by eigenvectors
    elsewhere.
    """
    xp = namespace(state.point.z)
    point = limit.point
    scale = xp.where(limit.recedes, limit.scale, metric_of(point.hessian, point.score))
    cut = xp.where(limit.recedes, xp.sqrt(xp.finfo(point.z.dtype).eps), null_cut(point))
    troubled = limit.recedes | ~state.newton.definite | ~state.newton.convex
    j = _information(point)
    move = state.tail.move
    j = rarely(limit.short, _deflated, lambda j, *_: j, j, scale, move)
    found = rarely(troubled, _spectrum, _factor, j, scale, cut)
    # Thirty steps of a tail e⁻²ᵗ are but fifteen of the e⁻ᵗ that it turns into near a bound: its
    # information has not died.
    alive = limit.recedes & (found[1] > cut)

    def deflated(j: Any, scale: Any, cut: Any, move: Any, *_: Any) -> Any:
        return _spectrum(_deflated(j, scale, move), scale, cut)

    return Survey(
        scale,
        cut,
        troubled,
        *rarely(alive, deflated, lambda *a: a[4:], j, scale, cut, move, *found),
    )


def _deflated(j: Array, scale: Array, move: Array) -> Array:
    """J without the receding coordinates: they are taken out by hand where the information
    could not be seen to die.
    """
    xp = namespace(j)
    along = scale * move
    along = xp.where(along**2 >= 1e-3 * xp.max(along**2), along, 0.0)
    keep = xp.eye(along.shape[0], dtype=along.dtype) - xp.outer(*_unit(along))
    return scale[:, None] * (keep @ (j / (scale[:, None] * scale[None, :])) @ keep) * scale[None, :]


def judge(state: State, limit: Limit, spectrum: Survey, bound_only: Array) -> Verdict:
    """Status by the first rule that applies.

    Args:
        state: the end of the climb.
        limit: its excursion.
        spectrum: the information there.
        bound_only: every coordinate that recedes does so to a finite declared bound.
    """
    xp = namespace(state.point.z)
    point = limit.point
    scale, cut, troubled, null, lowest, weakest, vif = spectrum
    eps = xp.finfo(point.z.dtype).eps
    double = xp.finfo(point.z.dtype).bits >= 64

    shows = state.signature
    decrement = limit.decrement
    distance = xp.sqrt(2 * decrement)
    quiet = decrement <= xp.maximum(DECREMENT_USABLE, noise_of(point))
    settled = (state.outcome == SETTLED) | ((state.outcome == STUCK) & quiet)
    regular = settled & ~troubled & (shows.information >= RECEDES)
    escaped = (state.longest >= ESCAPE) & ~(regular | limit.recedes | limit.flat)
    growth = (shows.decrement >= 0.9) & (shows.step >= 0.9) & (shows.information < RECEDES)
    blown = (state.outcome == EXHAUSTED) & (state.rise > -0.5 * xp.log(eps)) & double
    # cond(R) is λ_max tr R⁻¹ or less, and two columns that nearly agree have λ_max = 2; errors of
    # 1.7 ε tr R⁻¹ were seen.
    conditioned = 2 * eps * vif <= 1e-3
    # A tail that ended in rounding: the maximum found after it is one of the noise.
    climbed_noise = (
        state.rough & (state.tail.length >= TAIL) & (state.tail.decrement <= 1e-4)
    ) | limit.doubtful
    cases = (
        ((state.outcome == NOT_FINITE), Status.NONFINITE),
        ((state.outcome == RUNAWAY) | escaped | blown | (growth & ~quiet), Status.UNBOUNDED),
        (limit.recedes & bound_only, Status.BOUNDARY),
        (limit.recedes, Status.SEPARATED),
        (quiet & (lowest < -cut) & troubled, Status.SADDLE),
        (settled & limit.flat, Status.UNIDENTIFIED),
        (
            settled
            & ((troubled & (lowest <= cut)) | ((shows.information < RECEDES) & (shows.step > 0.5))),
            Status.SINGULAR,
        ),
        ((state.outcome == STUCK) & ~quiet, Status.STALLED),
        (state.phase != DONE, Status.MAX_STEPS),
        (
            ~conditioned
            | (decrement > DECREMENT_USABLE)
            | (state.outcome == EXHAUSTED)
            | climbed_noise,
            Status.IMPRECISE,
        ),
    )
    status = xp.asarray(int(Status.CONVERGED), dtype=xp.int32)
    for holds, name in reversed(cases):
        status = xp.where(holds, int(name), status)

    lost = (
        (status == Status.NONFINITE)
        | (status == Status.UNBOUNDED)
        | (status == Status.SADDLE)
        | (status == Status.STALLED)
        | (status == Status.MAX_STEPS)
    )
    keeps_null = (
        (status == Status.BOUNDARY)
        | (status == Status.SEPARATED)
        | (status == Status.UNIDENTIFIED)
        | (status == Status.SINGULAR)
    )
    null = xp.where(keeps_null, null, 0.0)
    singular_signature = (status == Status.SINGULAR) & ~troubled
    null = xp.where(singular_signature, xp.outer(*_unit(scale * state.last)), null)
    moves = limit.recedes | (status == Status.UNBOUNDED) | singular_signature
    direction = xp.where(
        moves,
        xp.where(limit.recedes, state.tail.move, state.last),
        xp.where(lowest <= cut, weakest / scale, 0.0),
    )
    direction = direction / xp.maximum(xp.max(xp.abs(direction)), xp.finfo(point.z.dtype).tiny)
    digits = -xp.log10(xp.maximum(eps * vif, eps))
    digits = xp.minimum(digits, -xp.log10(xp.maximum(distance, eps)))
    digits = xp.where(
        climbed_noise & (status == Status.IMPRECISE), 0.0, digits
    )  # derivatives of rounding noise tell nothing
    return Verdict(
        status,
        point,
        lost,
        null,
        scale,
        direction,
        lowest,
        digits,
        state.gain,
        distance,
        xp.maximum(state.steps - 1, 0) + limit.steps,
    )


def _unit(v: Array) -> tuple[Array, Array]:
    xp = namespace(v)
    u = v / xp.maximum(xp.sqrt(xp.sum(v**2)), xp.finfo(v.dtype).tiny)
    return u, u


def _factor(j: Array, scale: Array, cut: Array) -> tuple[Array, Array, Array, Array]:
    """Null projector, lowest eigenvalue of R, its eigenvector, and tr R⁻¹ (the sum of variance
    inflation factors), by Cholesky.

    tr R⁻¹ bounds the condition: 1/λ_min ≤ tr R⁻¹ ≤ k/λ_min.
    """
    xp = namespace(j)
    k = j.shape[0]
    inverse = solve_lower(
        factored(j / (scale[:, None] * scale[None, :]), unrolled=True),
        xp.eye(k, dtype=j.dtype),
        unrolled=True,
    )
    vif = xp.sum(inverse**2)
    return xp.zeros_like(j), 1.0 / vif, xp.zeros_like(scale), vif


def _spectrum(j: Array, scale: Array, cut: Array) -> tuple[Array, Array, Array, Array]:
    """The same by eigenvectors."""
    xp = namespace(j)
    values, q = eigh(j / (scale[:, None] * scale[None, :]))
    kept = values > cut
    dead = xp.where(kept, 0.0, 1.0)
    vif = xp.sum(xp.where(kept, 1.0 / xp.where(kept, values, 1.0), 0.0))
    return (q * dead[None, :]) @ q.T, values[0], q[:, 0], vif


def root_of(j: Array, scale: Array, null: Array) -> Array:
    """U (k, k) with UU' = B(B'JB)⁻¹B', B any complement of the null space.

    With R = D⁻¹JD⁻¹ and N the projector on the null space, (I − N)R(I − N) + N falls apart into the
    estimable block and an identity, so one Cholesky factor serves; where N is zero this is J⁻¹.
    """
    xp = namespace(j)
    keep = xp.eye(j.shape[0], dtype=j.dtype) - null
    r = keep @ (j / (scale[:, None] * scale[None, :])) @ keep + null
    return (keep @ solve_lower(cholesky(r), xp.eye(j.shape[0], dtype=j.dtype)).T) / scale[:, None]


def root_in_batch(j: Array, scale: Array, null: Array) -> Array:
    """The same where few members of a batch have null directions, and nobody differentiates."""
    return rarely(jnp.any(null != 0), root_of, _definite_root, j, scale, null)


def _definite_root(j: Array, scale: Array, null: Array) -> Array:
    factor = factored(j / (scale[:, None] * scale[None, :]), unrolled=True)
    return solve_lower(factor, jnp.eye(j.shape[0], dtype=j.dtype), unrolled=True).T / scale[:, None]
