"""The verdict: what the end of an ascent is, by the first rule that applies, with its witness."""

from __future__ import annotations

from typing import NamedTuple

from jaxmle._namespace import is_nowhere, namespace
from jaxmle._types import Array
from jaxmle.solvers.leading_axes import (
    identity,
    norm,
    outer,
    product,
    quadratic,
    transposed,
)
from jaxmle.solvers.linalg import (
    cholesky,
    eigh,
    from_eigen,
    inverse_factor,
    metric_of,
    solve_lower,
)
from jaxmle.solvers.rare_branches import rarely
from jaxmle.solvers.state import (
    DIVERGING,
    DONE,
    NOT_FINITE,
    PRECISION_REACHED,
    SETTLED,
    SLOW_ASCENT,
    STUCK,
    Point,
    State,
    has_risen,
    met_nan,
    noise_of,
    null_cut_of,
)
from jaxmle.solvers.status import Status, is_one_of
from jaxmle.solvers.tails import RECEDING_INFORMATION
from jaxmle.verdict.doubt import is_clean
from jaxmle.verdict.excursion import RISE_TO_OVERFLOW, has_overflown, information_of
from jaxmle.verdict.limit import DECREMENT_USABLE, DOUBLING_STEPS_OF_DIVERGENCE, Limit, is_at_kink
from jaxmle.verdict.profile_path import NOISE_AMPLIFICATION
from jaxmle.verdict.shape import Shape

# times the lowest eigenvalue of R where ℓ is level: what rounding makes of zeros differs so much
LEVEL_SPREAD = 10.0
MAX_ROUNDING_OF_VARIANCES = 1e-3  # relative error by which a standard error is still one
MIN_SHARE_OF_A_MOVE = 1e-3  # of the largest square, from which a coordinate takes part in it
# c of ℓ = −c·log w at an edge; a GEV law of one value ends with a shape of −1.0024 and c = .0024
MIN_RATE_AT_EDGE = 3e-4
# of which no covariance means anything; and those that may have directions without an estimate
STATUSES_WITHOUT_COVARIANCE = (
    Status.NONFINITE,
    Status.UNBOUNDED,
    Status.SADDLE,
    Status.STALLED,
    Status.MAX_STEPS,
)
STATUSES_WITH_NULL_DIRECTIONS = (
    Status.BOUNDARY,
    Status.SEPARATED,
    Status.UNIDENTIFIED,
    Status.SINGULAR,
)
SCALED_DISTANCE_OF_AN_EDGE = (
    1e12  # units of the metric from a coordinate to zero: w is some hundred ulps there
)


class Verdict(NamedTuple):
    """Status and witness in the free coordinates."""

    status: Array
    point: Point
    without_covariance: Array  # no covariance means anything here
    # (k, k, ...) projector on the directions without an estimate, in coordinates scaled by D
    null: Array
    scale: Array  # D (k, ...)
    direction: Array  # (k, ...) in free coordinates
    curvature: Array
    digits: Array
    gain: Array
    distance: Array  # √(2δ), standard errors
    steps: Array
    hidden: Array  # (k, ...) coordinates whose standard error does not describe ℓ
    unsettled: Array  # (k, ...) how far what has a limit along a tail moved at its end, or may yet
    kink: Array | None  # the certificate of a maximum at a kink, 0 where there is none
    nan_point: Array  # (k, ...) where ℓ or a derivative was NaN on the way, NaN where nowhere


class InformationSpectrum(NamedTuple):
    """The decomposition of the information at the end, in coordinates scaled by D."""

    scale: Array  # D (k, ...)
    cut: Array  # eigenvalues of R within ± this are null
    by_spectrum: Array  # the Cholesky factor does not tell all
    null: Array  # (k, k, ...) projector on the null directions, scaled coordinates
    lowest: Array  # smallest eigenvalue of R
    weakest: Array  # its eigenvector (k, ...)
    vif: Array  # tr R⁻¹


def decompose_information(state: State, limit: Limit) -> InformationSpectrum:
    """Decompose the information at the end: by Cholesky where it is definite, otherwise by
    eigenvectors.
    """
    xp = namespace(state.point.z)
    point = limit.point
    kinked = is_at_kink(limit)
    metric = metric_of(point.hessian, point.score)
    # what has died on the way has no information in units of the coordinates themselves
    floor = xp.minimum(state.peak, 1.0 / (1.0 + xp.abs(point.z)))
    cut = null_cut_of(point.hessian, metric)
    cut = xp.where(limit.recedes, xp.sqrt(xp.finfo(point.z.dtype).eps), cut)
    cut = xp.maximum(cut, limit.weakness)
    level = is_one_of(limit.shape, Shape.LEVEL)
    by_spectrum = limit.recedes | level | kinked | ~state.newton.definite | ~state.newton.convex
    scale = xp.where(limit.recedes | kinked, limit.scale, metric)
    scale = xp.where(limit.recedes | level, xp.maximum(scale, floor), scale)
    j = information_of(point)
    move = limit.move
    none_recedes = is_nowhere(limit.recedes)
    if not none_recedes:
        # One coordinate that recedes alone, as to a bound, is taken out exactly.
        alone = limit.recedes & (xp.sum(xp.where(move != 0, 1, 0), axis=0) == 1)
        j = rarely(limit.short | alone, _deflated, lambda j, *_: j, j, scale, move)
    parts = rarely(by_spectrum, _spectrum, _factor, j, scale, cut, level)
    cut = xp.where(level, xp.maximum(cut, LEVEL_SPREAD * parts[1]), cut)
    if limit.held is not None:
        held = (j, scale, cut, limit.held, *parts)
        parts = rarely(kinked, _beside, lambda *arguments: arguments[4:], *held)
    if none_recedes:
        return InformationSpectrum(scale, cut, by_spectrum, *parts)
    # Thirty steps of a tail e⁻²ᵗ are but fifteen of the e⁻ᵗ that it turns into near a bound: its
    # information has not died.
    not_vanished = limit.recedes & (parts[1] > cut)

    def deflated(
        j: Array, scale: Array, cut: Array, level: Array, move: Array, *_: Array
    ) -> tuple[Array, Array, Array, Array]:
        return _spectrum(_deflated(j, scale, move), scale, cut, level)

    return InformationSpectrum(
        scale,
        cut,
        by_spectrum,
        *rarely(not_vanished, deflated, lambda *a: a[5:], j, scale, cut, level, move, *parts),
    )


def _deflated(j: Array, scale: Array, move: Array) -> Array:
    """J without the receding coordinates. They are projected out where the information could not be
    followed until it vanished.
    """
    xp = namespace(j)
    along = scale * move
    along = _unit(xp.where(along**2 >= MIN_SHARE_OF_A_MOVE * xp.max(along**2, axis=0), along, 0.0))
    keep = identity(j) - outer(along, along)
    sizes = outer(scale, scale)
    return sizes * product(product(keep, j / sizes), keep)


def _status_of(
    state: State, limit: Limit, spectrum: InformationSpectrum, bound_only: Array
) -> Array:
    """The first status whose condition holds."""
    xp = namespace(state.point.z)
    cut, lowest = spectrum.cut, spectrum.lowest
    shape = limit.shape
    decrement = limit.decrement
    noise = noise_of(limit.point)
    near_maximum = decrement <= xp.maximum(xp.maximum(DECREMENT_USABLE, noise), limit.noise)
    stuck = state.outcome == STUCK
    settled = (state.outcome == SETTLED) | (stuck & near_maximum)
    level = is_one_of(shape, Shape.LEVEL)
    rises = is_one_of(shape, Shape.RISES)
    unknown = is_one_of(shape, Shape.UNKNOWN)
    # ℓ was measured to be far rougher than a sum of its terms is
    rough = unknown & (limit.noise > NOISE_AMPLIFICATION * noise)
    indefinite = spectrum.by_spectrum & (lowest < -cut) & ~level & ~unknown
    singular = _is_singular(state, limit, spectrum, rough)
    # cond(R) is λ_max tr R⁻¹ or less, and two columns that nearly agree have λ_max = 2; errors of
    # 1.7 ε tr R⁻¹ were seen.
    rounding = 2 * xp.finfo(limit.point.z.dtype).eps * spectrum.vif
    imprecise = ~(rounding <= MAX_ROUNDING_OF_VARIANCES) | (decrement > DECREMENT_USABLE)
    imprecise = imprecise | (state.outcome == PRECISION_REACHED) | unknown
    unended = (state.phase != DONE) | (state.outcome == SLOW_ASCENT)
    cases = (
        (is_at_kink(limit), Status.CONVERGED),
        (state.outcome == NOT_FINITE, Status.NONFINITE),
        (limit.recedes & bound_only, Status.BOUNDARY),
        (limit.recedes, Status.SEPARATED),
        (_is_unbounded(state, limit, near_maximum, settled, rough), Status.UNBOUNDED),
        ((near_maximum & indefinite) | rises, Status.SADDLE),
        (settled & level, Status.UNIDENTIFIED),
        (settled & singular, Status.SINGULAR),
        (stuck & ~near_maximum & met_nan(state), Status.NONFINITE),
        (stuck & ~near_maximum & ~rough, Status.STALLED),
        (unended, Status.MAX_STEPS),
        (imprecise, Status.IMPRECISE),
    )
    status = xp.full_like(state.steps, int(Status.CONVERGED))
    for holds, name in reversed(cases):
        status = xp.where(holds, int(name), status)
    return status


def _is_singular(state: State, limit: Limit, spectrum: InformationSpectrum, rough: Array) -> Array:
    """Whether the information is singular at the end, was vanishing on the way there, or ℓ falls
    nowhere as its parabola says.
    """
    signature = state.signature
    shape = limit.shape
    peaks = is_one_of(shape, Shape.PARABOLA)
    vanishing = (signature.information < RECEDING_INFORMATION) & (signature.step > 0.5)
    unclean_peak = is_one_of(shape, Shape.PEAK) & ~is_clean(state)
    null = spectrum.by_spectrum & (spectrum.lowest <= spectrum.cut)
    null = null & ~is_one_of(shape, Shape.UNKNOWN)
    return null | (vanishing & ~peaks & ~rough) | is_one_of(shape, Shape.VANISHING) | unclean_peak


def _is_unbounded(
    state: State, limit: Limit, near_maximum: Array, settled: Array, rough: Array
) -> Array:
    """Whether ℓ rises without bound."""
    xp = namespace(state.point.z)
    kind = xp.finfo(state.point.z.dtype)
    signature = state.signature
    rises = is_one_of(limit.shape, Shape.RISES)
    doubled = (state.growing_steps >= DOUBLING_STEPS_OF_DIVERGENCE) & (rises | ~settled)
    growth = (signature.decrement >= 0.9) & (signature.step >= 0.9)
    # The signature is that of the last full step. Where none can be made any more, as before an
    # edge of the support, it is stale, unless ℓ > 0 has risen as far as an unbounded one does.
    has_exploded = has_risen(state, state.point, RISE_TO_OVERFLOW)
    growth = growth & (state.newton.convex | has_exploded)
    # Where NaN has stopped the ascent, the signature is that of a step long before.
    growth = growth & (signature.information < RECEDING_INFORMATION) & ~met_nan(state)
    collapsed = (state.outcome == PRECISION_REACHED) & (state.rise > -0.5 * xp.log(kind.eps))
    return (
        (state.outcome == DIVERGING)
        | doubled
        | (collapsed & (kind.bits >= 64))
        | (~near_maximum & has_overflown(state))
        | _diverges_at_edge(state, limit.noise)
        | (growth & ~near_maximum & ~rough)
        | is_one_of(limit.shape, Shape.ENDLESS)
    )


def _diverges_at_edge(state: State, noise: Array) -> Array:
    """Whether ℓ = −c·log w at the end, where w, the distance to an edge of the support, is too
    small for this precision. Then s²/ℓ" = c. If ℓ has a finite limit, as −√w has, s²/ℓ" is as small
    as the distance of ℓ to it. If a few ulps change ℓ by more than c, slope and curvature are
    rounding.
    """
    xp = namespace(state.point.z)
    ended = (state.outcome == PRECISION_REACHED) | (state.outcome == STUCK)
    if is_nowhere(ended):
        return ended
    metric = metric_of(state.point.hessian, state.point.score)
    slope = state.point.score / xp.where(metric > 0, metric, 1.0)
    curvature = quadratic(state.point.hessian / outer(metric, metric), slope)
    rate = xp.sum(slope**2, axis=0) ** 2 / xp.where(curvature > 0, curvature, xp.inf)
    sharp = xp.max(metric * xp.abs(state.point.z), axis=0) >= SCALED_DISTANCE_OF_AN_EDGE
    return (
        ended
        & ((state.outcome == PRECISION_REACHED) | sharp)
        & (rate >= xp.maximum(MIN_RATE_AT_EDGE, noise))
    )


def judge(state: State, limit: Limit, spectrum: InformationSpectrum, bound_only: Array) -> Verdict:
    """The status and its witness.

    Args:
        state: the end of the ascent.
        limit: its excursion.
        spectrum: the information there.
        bound_only: every coordinate that recedes does so to a finite declared bound.
    """
    xp = namespace(state.point.z)
    point = limit.point
    scale, cut, by_spectrum, null, lowest, weakest, vif = spectrum
    kinked = is_at_kink(limit)
    distance = xp.sqrt(2 * limit.decrement)
    status = _status_of(state, limit, spectrum, bound_only)

    without_covariance = is_one_of(status, *STATUSES_WITHOUT_COVARIANCE)
    keeps_null = is_one_of(status, *STATUSES_WITH_NULL_DIRECTIONS) | kinked
    null = xp.where(keeps_null, null, 0.0)
    singular_signature = is_one_of(status, Status.SINGULAR) & ~by_spectrum
    if not is_nowhere(singular_signature):
        last = _unit(scale * state.last)
        null = xp.where(singular_signature, outer(last, last), null)
    moves = limit.recedes | is_one_of(status, Status.UNBOUNDED) | singular_signature
    is_weak = (lowest <= cut) & ~kinked
    direction = xp.zeros_like(scale)
    if not is_nowhere(moves | is_weak):
        weak = xp.where(is_weak, weakest / scale, 0.0)
        direction = xp.where(moves, xp.where(limit.recedes, limit.move, state.last), weak)
        largest = xp.max(xp.abs(direction), axis=0)
        direction = direction / xp.maximum(largest, xp.finfo(point.z.dtype).tiny)
    return Verdict(
        status=status,
        point=point,
        without_covariance=without_covariance,
        null=null,
        scale=scale,
        direction=direction,
        curvature=lowest,
        digits=_digits_of(limit, status, vif, distance),
        gain=state.gain,
        distance=distance,
        steps=xp.maximum(state.steps - 1, 0) + limit.steps,
        hidden=limit.hidden,
        unsettled=limit.unsettled,
        kink=limit.kink,
        nan_point=state.nan_point,
    )


def _digits_of(limit: Limit, status: Array, vif: Array, distance: Array) -> Array:
    """The decimal digits to which standard errors and estimates can be trusted: the rounding error
    of the variances and the distance to the maximum limit them.
    """
    xp = namespace(distance)
    eps = xp.finfo(distance.dtype).eps
    digits = -xp.log10(xp.maximum(eps * vif, eps))
    digits = xp.minimum(digits, -xp.log10(xp.maximum(distance, eps)))
    is_rounding = is_one_of(limit.shape, Shape.UNKNOWN) & is_one_of(status, Status.IMPRECISE)
    # derivatives of rounding noise tell nothing
    return xp.where(is_rounding, 0.0, digits)


def _unit(v: Array) -> Array:
    return v / namespace(v).maximum(norm(v), namespace(v).finfo(v.dtype).tiny)


def _factor(j: Array, scale: Array, cut: Array, level: Array) -> tuple[Array, Array, Array, Array]:
    """Null projector, lowest eigenvalue of R, its eigenvector, and tr R⁻¹ (the sum of variance
    inflation factors), by Cholesky.

    tr R⁻¹ bounds the condition: 1/λ_min ≤ tr R⁻¹ ≤ k/λ_min.
    """
    xp = namespace(j)
    vif = xp.sum(inverse_factor(j / outer(scale, scale)) ** 2, axis=(0, 1))
    return xp.zeros_like(j), 1.0 / vif, xp.zeros_like(scale), vif


def _spectrum(
    j: Array, scale: Array, cut: Array, level: Array
) -> tuple[Array, Array, Array, Array]:
    """``_factor`` by eigenvectors. Where the profile was found ``level``, the lowest eigenvalue and
    those near it count as null.
    """
    xp = namespace(j)
    values, q = eigh(j / outer(scale, scale))
    counts = values > xp.where(level, xp.maximum(cut, LEVEL_SPREAD * values[0]), cut)
    vif = xp.sum(xp.where(counts, 1.0 / xp.where(counts, values, 1.0), 0.0), axis=0)
    null_values = xp.where(counts, 0.0, 1.0).astype(j.dtype)
    return from_eigen(q, null_values), values[0], q[:, 0], vif


def _beside(
    j: Array, scale: Array, cut: Array, held: Array, *_: Array
) -> tuple[Array, Array, Array, Array]:
    """``_spectrum`` beside the directions held at a kink, which are the null space."""
    keep = identity(j) - held
    rest = product(product(keep, j / outer(scale, scale)), keep) + held
    parts = _spectrum(rest, namespace(j).ones_like(scale), cut, cut < 0)
    return held, parts[1], parts[2], parts[3]


def root_of(j: Array, scale: Array, null: Array) -> Array:
    """U (k, k, ...) with UU' = B(B'JB)⁻¹B', B any complement of the null space.

    With R = D⁻¹JD⁻¹ and N the projector on the null space, (I − N)R(I − N) + N is block diagonal,
    with the estimable block and an identity, so one Cholesky factor serves. If N is zero, UU' =
    J⁻¹.
    """
    keep = identity(j) - null
    r = product(product(keep, j / outer(scale, scale)), keep) + null
    eye = identity(j) + namespace(j).zeros_like(j)
    return product(keep, transposed(solve_lower(cholesky(r), eye))) / scale[:, None]


def root_in_batch(j: Array, scale: Array, null: Array) -> Array:
    """``root_of`` for a batch in which few members have null directions; it has no derivatives."""
    needed = namespace(j).any(null != 0, axis=(0, 1))
    return rarely(needed, root_of, _definite_root, j, scale, null)


def _definite_root(j: Array, scale: Array, null: Array) -> Array:
    return transposed(inverse_factor(j / outer(scale, scale))) / scale[:, None]
