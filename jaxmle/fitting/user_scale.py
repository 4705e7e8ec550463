"""From the end of an ascent to the record on the user's scale: estimates at bounds or infinity,
standard errors, and NaN where there are none.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from jaxmle._namespace import HOST, is_nowhere, namespace
from jaxmle._types import Array, DTypeLike, FunctionTo, Tree, ndarray
from jaxmle.fitting.objective import UserScale
from jaxmle.likelihood.derivatives import FORWARD_OVER_REVERSE
from jaxmle.parameters.tree import Chart
from jaxmle.record.fit import Fit, Witness
from jaxmle.solvers.leading_axes import (
    column,
    diagonal,
    identity,
    product,
    times,
    transposed,
)
from jaxmle.solvers.linalg import eigh, from_eigen
from jaxmle.solvers.rare_branches import rarely
from jaxmle.solvers.state import State
from jaxmle.solvers.status import Status, is_one_of
from jaxmle.verdict.judge import InformationSpectrum, Verdict
from jaxmle.verdict.limit import Limit
from jaxmle.verdict.shape import Shape

# The share of a coordinate in a direction from which the direction counts as moving it.
MIN_SHARE_IN_NULL_SPACE = 1e-6
MIN_SHARE_OF_A_MOVE = 1e-3  # of a squared scaled step, from which a coordinate is pushed
STDERRS_OF_A_RECESSION = 3.0  # by which its last look moves what recedes
SHARE_OF_THE_WAY = 0.5  # to a limit, that a coordinate has to go
# distance from a bound, or between ordered entries, over one and their size, that counts as none
RELATIVE_GAP_AT_BOUND = 1e-6
# share of an entry's steps that lie in the null space, up to which it is rounding
MAX_NULL_SHARE_OF_ESTIMABLE = 1e-5
# in standard errors, by which what has a limit along a tail may still move where it has one
MAX_MOVE_AT_A_LIMIT = 0.1
MIN_RELATIVE_EIGENVALUE_OF_SPAN = 1e-10  # below it a direction is rounding


class EndPoint(NamedTuple):
    """The end point of a recession, per printed entry."""

    # (p, ...) −1 at its lower declared bound, +1 at its upper, 2 equal to the entry before it
    # though ordered, 0 elsewhere
    bound: Array
    leaves: Array  # (p, ...) it recedes with no finite bound in the way
    only_bounds: Array  # (...)


def reach(
    chart: Chart, x: Array, state: State, limit: Limit, spectrum: InformationSpectrum
) -> EndPoint:
    """Which entries a recession carries to a finite declared bound, and which to infinity.

    Args:
        x: the printed entries at the limit, (p, ...).
    """
    xp = namespace(state.point.z)
    if is_nowhere(limit.recedes):
        nowhere = np.zeros(x.shape, bool)
        return EndPoint(np.zeros(x.shape, np.int32), nowhere, np.zeros(x.shape[1:], bool))
    touched = diagonal(spectrum.null) > MIN_SHARE_IN_NULL_SPACE
    scaled_move = (limit.scale * limit.move) ** 2
    moved_by_limit = (scaled_move >= MIN_SHARE_OF_A_MOVE * xp.sum(scaled_move, axis=0)) | is_one_of(
        limit.shape, Shape.TAIL
    )
    receding = (
        limit.recedes & (limit.move != 0) & (touched & moved_by_limit | _went_along(state, limit))
    )

    def moves(coordinates: Array) -> Array:
        """The entries (p, ...) that coordinates (k, ...) can move."""
        return xp.any(_incidence(chart, coordinates) & coordinates[None], axis=1)

    concerned = moves(receding | limit.recedes & touched)
    low, high = (
        column(np.array([bound[side] for bound in chart.layout.bounds]), x) for side in (0, 1)
    )
    finite_low = np.isfinite(low)
    finite_high = np.isfinite(high)

    def near(end: Tree) -> Tree:
        return xp.abs(x - end) <= RELATIVE_GAP_AT_BOUND * (1 + abs(end))

    # Every entrywise transform increases: a coordinate that recedes downwards goes to the lower
    # bound, however far it was followed.
    has_coordinate = column(chart.own_coordinate, x)
    down, up = (
        has_coordinate & moves(receding & side) for side in (limit.move < 0, limit.move > 0)
    )
    at_low = concerned & finite_low & (near(np.where(finite_low, low, 0.0)) | down)
    at_high = concerned & finite_high & (near(np.where(finite_high, high, 0.0)) | up) & ~at_low
    at_bound = at_low | at_high
    closing, meets = _closing(chart, x, receding & (limit.move < 0))
    held = xp.any(_incidence(chart, receding) & at_bound[:, None], axis=0) | closing
    leaves = moves(receding & ~held) & ~at_bound
    bound = at_high.astype(xp.int32) - at_low.astype(xp.int32) + 2 * meets.astype(xp.int32)
    only_bounds = xp.any(held, axis=0) & xp.all(~receding | held, axis=0)
    return EndPoint(bound, leaves, only_bounds)


def _went_along(state: State, limit: Limit) -> Array:
    """Which coordinates (k, ...) moved as far as the others on the way to the limit, where the
    coordinates that do not recede were solved again. A logarithm that grows together with a
    precision has a share of only 1e-14 in their common direction, measured in standard errors, and
    is infinite nevertheless.
    """
    xp = namespace(limit.move)
    size = 1.0 + xp.abs(limit.point.z)
    moves = xp.abs(limit.move)
    steps = xp.abs(limit.point.z - state.tail.z) / xp.where(moves > 0, moves, xp.inf)
    carried = (steps >= SHARE_OF_THE_WAY * xp.max(steps, axis=0)) & (steps > 1.0)
    far = moves / size >= SHARE_OF_THE_WAY * xp.max(moves / size, axis=0)
    # a logarithm of what recedes moves little, though by many of its own standard errors
    curvature = xp.sqrt(xp.abs(diagonal(limit.point.hessian)))
    far = far | (moves * curvature >= STDERRS_OF_A_RECESSION)
    return xp.where(limit.shape == Shape.TAIL, far, carried)


def _incidence(chart: Chart, like: Array) -> ndarray:
    """Which entries each coordinate can move, beside vectors (k, ...): (p, k, 1)."""
    incidence: ndarray = chart.incidence.reshape((*chart.incidence.shape, *[1] * (like.ndim - 1)))
    return incidence


def _closing(chart: Chart, x: Array, receding: Array) -> tuple[Array, Array]:
    """Gaps between ordered entries that close: which free coordinates (k, ...), and which entries
    meet the one before them (p, ...).
    """
    xp = namespace(x)
    entry = chart.gaps
    upper = np.maximum(entry, 0)
    gap = xp.abs(x[upper] - x[np.maximum(upper - 1, 0)])
    narrow = gap <= RELATIVE_GAP_AT_BOUND * (1 + xp.abs(x[upper]))
    closing = receding & (column(entry, receding) >= 0) & narrow
    meets = np.arange(chart.layout.p)[:, None] == entry[None, :]
    meets = meets.reshape(*meets.shape, *[1] * (x.ndim - 1))
    return closing, xp.any(meets & closing[None, :], axis=1)


class Conclusion(NamedTuple):
    """Estimates, standard errors and the evidence for them, per printed entry."""

    x: Array  # (p, ...)
    se: Array  # (p, ...)
    vcov: Array  # (p, p, ...), NaN where there is none
    estimable_vcov: Array  # (p, p, ...), right for every c orthogonal to the null directions
    sign: Array  # (p, ...) of an estimate of ±inf, else 0
    bound: Array  # (p, ...) as in ``EndPoint``
    direction: Array  # (p, ...)
    projector: Array  # (p, p, ...) on the directions without an estimate
    point: Array  # (p, ...) the finite point at which the verdict was taken


class _Estimability(NamedTuple):
    """Which entries have an estimate, (p, ...) each."""

    on_bounds: Array  # (...) whether the verdict is about bounds
    at_bound: Array  # it lies on a declared bound
    infinite: Array  # it recedes to infinity
    estimable: Array  # no null direction moves it
    undetermined: Array  # a null direction moves it, but it is neither infinite nor on a bound
    sign: Array  # of what is infinite; 0 elsewhere


def conclude(
    chart: Chart,
    roots: ndarray,
    verdict: Verdict,
    reached: EndPoint,
    user: UserScale,
    vcov: Array,
) -> Conclusion:
    """Estimates, standard errors and the witness on the user's scale, with what does not exist as
    NaN or infinity.

    Args:
        roots: for each printed entry the one it follows; −1 where fixed.
        vcov: T V T' (p, p, ...), right for every c orthogonal to the null directions.
    """
    xp = namespace(user.x)
    # One step of scaled length one along each null direction, seen on the user's scale.
    steps = user.jacobian / verdict.scale[None, :]
    null = _times(steps, verdict.null)
    along, direction = _recession(chart, verdict, user)
    estimability = _estimability(chart, verdict, reached, steps, null, along, direction)
    no_variance = _without_variance(verdict, estimability, steps, vcov)
    if not is_nowhere(verdict.hidden):
        hidden = _incidence(chart, user.x) & (verdict.hidden > 0)[None]
        no_variance = no_variance | xp.any(hidden, axis=1)
    if not is_nowhere(verdict.unsettled):
        # at its limit, its standard error may be another one
        move = times(user.jacobian, verdict.unsettled)
        no_variance = no_variance | (move**2 > MAX_MOVE_AT_A_LIMIT**2 * diagonal(vcov))
    masked = xp.where(no_variance[:, None] | no_variance[None, :], xp.nan, vcov)
    # the square root sees a safe value where the result is NaN, for the sake of its derivative
    variance = xp.where(no_variance, 1.0, diagonal(vcov))
    se = xp.sqrt(xp.where(no_variance, xp.nan, variance))
    follow = _representatives(roots)
    return Conclusion(
        x=_estimates(chart, verdict, reached, estimability, user.x)[follow],
        se=se[follow],
        vcov=masked[follow][:, follow],
        estimable_vcov=vcov[follow][:, follow],
        sign=estimability.sign[follow],
        bound=xp.where(estimability.on_bounds, reached.bound, 0)[follow],
        direction=direction[follow],
        projector=_lost_directions(estimability, null),
        point=user.x[follow],
    )


def _representatives(roots: ndarray) -> Tree:
    """The index, for each printed entry, of the entry it follows; its own index if it is fixed."""
    entries = np.arange(len(roots))
    if (roots == entries).all():
        return slice(None)
    return np.where(roots >= 0, roots, entries)


def _recession(chart: Chart, verdict: Verdict, user: UserScale) -> tuple[Array, Array]:
    """The direction of the verdict on the user's scale, (p, ...); and the same, taken from the free
    coordinate for entries that have one of their own.
    """
    if is_nowhere(verdict.direction):
        nowhere = np.zeros_like(user.x)
        return nowhere, nowhere
    along = times(user.jacobian, verdict.direction)
    incidence = _incidence(chart, user.x).astype(user.x.dtype)
    has_coordinate = column(chart.own_coordinate, user.x)
    entrywise = times(incidence, verdict.direction)
    return along, namespace(user.x).where(has_coordinate, entrywise, along)


def _estimability(
    chart: Chart,
    verdict: Verdict,
    reached: EndPoint,
    steps: Array,
    null: Array,
    along: Array,
    direction: Array,
) -> _Estimability:
    """Which entries have an estimate.

    Args:
        steps: (p, k, ...) of scaled length one, on the user's scale.
        null: (p, k, ...) the same along the null directions.
        along: (p, ...) the recession on the user's scale.
        direction: (p, ...) the same, by the free coordinate where an entry has one of its own.
    """
    xp = namespace(steps)
    status = verdict.status

    def length(rows: Tree) -> Tree:
        return xp.sqrt(xp.sum(rows**2, axis=1))

    estimable = length(null) <= MAX_NULL_SHARE_OF_ESTIMABLE * length(steps)
    separated = is_one_of(status, Status.SEPARATED)
    on_bounds = is_one_of(status, Status.BOUNDARY) | separated
    if is_nowhere(on_bounds):
        no_sign = xp.zeros_like(along)
        none = no_sign.astype(bool)
        return _Estimability(on_bounds, none, none, estimable, none, no_sign)
    at_bound = (xp.abs(reached.bound) == 1) & on_bounds
    # An entry of a leaf that is constrained as a whole recedes only if the recession moves it on
    # the user's scale.
    scaled_move = xp.abs(along)
    has_coordinate = column(chart.own_coordinate, along)
    moved = scaled_move > MIN_SHARE_IN_NULL_SPACE * xp.max(scaled_move, axis=0)
    infinite = reached.leaves & separated & (has_coordinate | moved)
    touched = (diagonal(verdict.null) > MIN_SHARE_IN_NULL_SPACE)[None]
    concerned = xp.any(_incidence(chart, along) & touched, axis=1) & ~estimable
    # Beside a bound too, what is free has no estimate, where it is an entry of its own.
    free_at_bound = is_one_of(status, Status.BOUNDARY) & has_coordinate & (reached.bound == 0)
    undetermined = concerned & ~infinite & ~at_bound & (separated | free_at_bound)
    # each is unbounded along the tail that was followed, with its sign there
    sign = xp.where(infinite, xp.sign(direction), 0.0)
    return _Estimability(on_bounds, at_bound, infinite, estimable, undetermined, sign)


def _estimates(
    chart: Chart, verdict: Verdict, reached: EndPoint, estimability: _Estimability, x: Array
) -> Array:
    """The estimates (p, ...): at infinity, on a bound, NaN where there is none."""
    xp = namespace(x)
    status = verdict.status
    sign = estimability.sign
    if not is_nowhere(estimability.on_bounds):
        low, high = (column(end, x) for end in np.array(chart.layout.bounds).T)
        x = xp.where(estimability.infinite, xp.where(sign == 0, xp.nan, sign * xp.inf), x)
        x = xp.where(estimability.at_bound, xp.where(reached.bound < 0, low, high), x)
        x = xp.where(estimability.undetermined, xp.nan, x)
    return xp.where(is_one_of(status, Status.NONFINITE, Status.UNBOUNDED), xp.nan, x)


def _without_variance(
    verdict: Verdict, estimability: _Estimability, steps: Array, vcov: Array
) -> Array:
    """Which entries have no standard error, (p, ...)."""
    xp = namespace(steps)
    limits = xp.finfo(steps.dtype)
    variance = diagonal(vcov)
    inflation = variance / xp.maximum(xp.sum(steps**2, axis=1), limits.tiny)
    is_rounding = (limits.eps * inflation > 0.1) | (verdict.digits <= 0)
    blurred = is_rounding & is_one_of(verdict.status, Status.IMPRECISE)
    no_estimate = estimability.infinite | estimability.at_bound | ~estimability.estimable
    return verdict.without_covariance | no_estimate | blurred | (variance <= 0)


def _lost_directions(estimability: _Estimability, null: Array) -> Array:
    """The projector (p, p, ...) on the directions without an estimate.

    An entry on a bound has no estimate of its own either. Estimable directions are orthogonal to
    the null directions up to rounding.
    """
    xp = namespace(null)
    at_bound = estimability.at_bound
    if is_nowhere(null) and is_nowhere(at_bound):
        return xp.zeros((len(null), *null.shape[:1], *null.shape[2:]), null.dtype)
    without_estimate = xp.where((at_bound | estimability.estimable)[:, None], 0.0, null)
    square = at_bound[:, None] & at_bound[None, :]
    bounds = xp.where(square, identity(square), 0.0).astype(null.dtype)
    without_estimate = xp.concatenate([without_estimate, bounds], axis=1)
    # a projector is a verdict: it has no derivative
    constant = without_estimate if xp is HOST else jax.lax.stop_gradient(without_estimate)
    needed = xp.any(constant != 0, axis=(0, 1))
    return rarely(needed, _projector, _no_directions, constant)


def _no_directions(null: Array) -> Array:
    p = null.shape[0]
    return namespace(null).zeros((p, p, *null.shape[2:]), null.dtype)


def _times(steps: Array, null: Array) -> Array:
    """``steps @ null``, which is almost always zero. It is used for decisions only and has no
    derivative.
    """
    if not isinstance(null, np.ndarray):
        steps, null = jax.lax.stop_gradient((steps, null))
    xp = namespace(null)
    return rarely(
        xp.any(null != 0, axis=(0, 1)),
        product,
        lambda a, b: xp.zeros((a.shape[0], *b.shape[1:]), a.dtype),
        steps,
        null,
    )


def _projector(null: Array) -> Array:
    """The orthogonal projector on the column space of ``null`` (p, k, ...)."""
    xp = namespace(null)
    values, q = eigh(product(null, transposed(null)))
    is_spanned = xp.where(
        values > MIN_RELATIVE_EIGENVALUE_OF_SPAN * xp.max(values, axis=0), 1.0, 0.0
    )
    return from_eigen(q, is_spanned.astype(null.dtype))


def _casts(x: Array) -> tuple[FunctionTo[Array], FunctionTo[Array]]:
    """Functions to integers and to numbers in the precision of x, in its namespace."""
    xp = namespace(x)

    def cast(dtype: DTypeLike) -> FunctionTo[Array]:
        return lambda value: xp.asarray(value).astype(dtype)[()]

    return cast(xp.int32), cast(x.dtype)


def _witness(verdict: Verdict, ending: Conclusion, row: Array, error: Array) -> Witness:
    """The evidence for a verdict, in the arrays of a record."""
    xp = namespace(ending.point)
    whole, real = _casts(ending.point)
    return Witness(
        row=whole(row),
        term=whole(row),
        direction=real(ending.direction),
        sign=whole(ending.sign),
        projector=real(ending.projector),
        vcov=real(ending.estimable_vcov),
        bound=whole(ending.bound),
        curvature=real(verdict.curvature),
        digits=real(verdict.digits),
        gain=real(verdict.gain),
        distance=real(verdict.distance),
        stderr_error=real(error),
        certificate=whole(xp.zeros_like(row) if verdict.kink is None else verdict.kink),
        point=real(ending.point),
    )


def record(
    chart: Chart,
    verdict: Verdict,
    user: UserScale,
    ending: Conclusion,
    *,
    n: Array,
    row: Array,
    error: Array,
    extra_steps: Array,
    data_id: Array,
    kind: str | None,
    mode: str,
    weighting: str,
) -> Fit:
    """The ``Fit`` of a verdict and its ending."""
    xp = namespace(user.x)
    layout = chart.layout
    whole, real = _casts(user.x)
    failed = is_one_of(verdict.status, Status.NONFINITE)
    boundless = is_one_of(verdict.status, Status.UNBOUNDED)
    loglik = xp.where(failed, xp.nan, xp.where(boundless, xp.inf, verdict.point.value))
    false_curvature = xp.where(failed | boundless, xp.nan, 1.0)
    differentiation = user.hessian_by
    return Fit(
        params=layout.unravel(real(ending.x)),
        stderr=layout.unravel_entries(real(ending.se)),
        vcov=real(ending.vcov),
        hessian=real(user.hessian * false_curvature),
        loglik=real(loglik),
        score=real(user.score * false_curvature),
        decrement=real(0.5 * verdict.distance**2),
        n=real(n),
        status=whole(verdict.status),
        witness=_witness(verdict, ending, row, error),
        steps=whole(verdict.steps + extra_steps),
        data_id=data_id,
        response_id=xp.zeros_like(data_id),
        names=layout.names,
        bounds=layout.bounds,
        df=chart.k,
        vcov_kind=kind or "none",
        mode=mode,
        weighting=weighting,
        layout=layout,
        hessian_by=FORWARD_OVER_REVERSE if differentiation is None else differentiation.method,
    )
