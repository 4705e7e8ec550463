"""From the end of a climb to the record: bounds, infinities, standard errors and NaN where
there is none, on the user's scale.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.fitting.objective import UserScale
from jaxmle.fitting.verdict import Limit, Survey, Verdict
from jaxmle.likelihood.derivatives import FORWARD_OVER_REVERSE
from jaxmle.parameters.tree import Chart
from jaxmle.record.fit import Fit, Witness
from jaxmle.solvers.linalg import eigh, rarely
from jaxmle.solvers.status import Status
from jaxmle.solvers.trust_region import State

TOUCHED = 1e-6  # share of a coordinate in the null space from which it counts as concerned


class Reach(NamedTuple):
    """Where a recession leads, per printed entry."""

    # (p,) −1 at its lower declared bound, +1 at its upper, 2 equal to the entry before it though
    # ordered, 0 elsewhere
    bound: Array
    leaves: Array  # (p,) it recedes with no finite bound in the way
    only_bounds: Array  # ()


def reach(chart: Chart, base: Array, state: State, limit: Limit, spectrum: Survey) -> Reach:
    """Which entries a recession carries to a finite declared bound, and which to infinity."""
    xp = namespace(state.point.z)
    touched = xp.diagonal(spectrum.null) > TOUCHED
    push = (limit.scale * state.tail.move) ** 2
    receding = limit.recedes & touched & (push >= 1e-3 * xp.sum(push))
    incidence = chart.incidence
    concerned = xp.any(incidence & (limit.recedes & touched)[None, :], axis=1)
    x = chart.to_user(limit.point.z, base)
    low, high = (np.array([bound[side] for bound in chart.layout.bounds]) for side in (0, 1))
    finite_low = np.isfinite(low)
    finite_high = np.isfinite(high)

    def near(end: Any) -> Any:
        return xp.abs(x - end) <= 1e-6 * (1 + abs(end))

    # Every entrywise transform increases: a coordinate that recedes downwards goes to the lower
    # bound, however far it was followed.
    down, up = (
        chart.single & xp.any(incidence & (receding & side)[None, :], axis=1)
        for side in (state.tail.move < 0, state.tail.move > 0)
    )
    at_low = concerned & finite_low & (near(np.where(finite_low, low, 0.0)) | down)
    at_high = concerned & finite_high & (near(np.where(finite_high, high, 0.0)) | up) & ~at_low
    at_bound = at_low | at_high
    closing, meets = _closing(chart, x, receding & (state.tail.move < 0))
    held = xp.any(incidence & at_bound[:, None], axis=0) | closing
    leaves = xp.any(incidence & (receding & ~held)[None, :], axis=1) & ~at_bound
    bound = at_high.astype(xp.int32) - at_low.astype(xp.int32) + 2 * meets.astype(xp.int32)
    return Reach(bound, leaves, xp.any(held) & xp.all(~receding | held))


def _closing(chart: Chart, x: Array, receding: Array) -> tuple[Array, Array]:
    """Gaps between ordered entries that close: which free coordinates (k,), and which entries
    meet the one before them (p,).
    """
    xp = namespace(x)
    entry = chart.gaps
    upper = np.maximum(entry, 0)
    gap = xp.abs(x[upper] - x[np.maximum(upper - 1, 0)])
    closing = receding & (entry >= 0) & (gap <= 1e-6 * (1 + xp.abs(x[upper])))
    return closing, xp.any(
        (np.arange(chart.layout.p)[:, None] == entry[None, :]) & closing[None, :], axis=1
    )


def conclude(
    chart: Chart,
    roots: np.ndarray,
    verdict: Verdict,
    reached: Reach,
    user: UserScale,
    base: Array,
    vcov: Array,
) -> dict[str, Any]:
    """Estimates, standard errors and the witness on the user's scale, with what does not exist as
    NaN or infinity.

    Args:
        roots: for each printed entry the one it follows; −1 where fixed.
        vcov: T V T' (p, p), right for every c orthogonal to the null directions.
    """
    xp = namespace(user.x)
    status = verdict.status
    eps = xp.finfo(user.x.dtype).eps
    # One step of scaled length one along each null direction, seen on the user's scale.
    steps = user.jacobian / verdict.scale[None, :]
    null = _times(steps, verdict.null)

    def length(rows: Any) -> Any:
        return xp.sqrt(xp.sum(rows**2, axis=1))

    estimable = length(null) <= 1e-5 * length(steps)
    kept = (status == Status.BOUNDARY) | (status == Status.SEPARATED)
    at_bound = (xp.abs(reached.bound) == 1) & kept
    # An entry of a leaf that is constrained as a whole recedes only if the recession moves it on
    # the user's scale.
    push = xp.abs(user.jacobian @ verdict.direction)
    gone = (
        reached.leaves
        & (status == Status.SEPARATED)
        & (chart.single | (push > TOUCHED * xp.max(push)))
    )
    concerned = (
        xp.any(chart.incidence & (xp.diagonal(verdict.null) > TOUCHED)[None, :], axis=1)
        & ~estimable
    )
    one_way = xp.trace(verdict.null) < 1.5
    ahead = xp.sign(
        xp.where(
            chart.single,
            chart.incidence.astype(user.x.dtype) @ verdict.direction,
            user.jacobian @ verdict.direction,
        )
    )
    sign = xp.where(gone & one_way, ahead, 0.0)

    ends = np.array(chart.layout.bounds)
    x = xp.where(gone, xp.where(sign == 0, xp.nan, sign * xp.inf), user.x)
    x = xp.where(at_bound, xp.where(reached.bound < 0, ends[:, 0], ends[:, 1]), x)
    free_too = concerned & ~gone & ~at_bound & (status == Status.SEPARATED)
    x = xp.where(free_too, xp.nan, x)
    x = xp.where((status == Status.NONFINITE) | (status == Status.UNBOUNDED), xp.nan, x)

    inflation = xp.diagonal(vcov) / xp.maximum(
        xp.sum(steps**2, axis=1), xp.finfo(user.x.dtype).tiny
    )
    blurred = ((eps * inflation > 0.1) | (verdict.digits <= 0)) & (status == Status.IMPRECISE)
    dead = verdict.lost | gone | at_bound | ~estimable | blurred | (xp.diagonal(vcov) <= 0)
    masked = xp.where(dead[:, None] | dead[None, :], xp.nan, vcov)
    se = xp.sqrt(xp.where(dead, xp.nan, xp.where(dead, 1.0, xp.diagonal(vcov))))
    direction = xp.where(
        chart.single,
        chart.incidence.astype(user.x.dtype) @ verdict.direction,
        user.jacobian @ verdict.direction,
    )
    # What lies on a bound has no estimate of its own either; what is estimable is orthogonal to the
    # null directions but for rounding.
    lost = xp.where((at_bound | estimable)[:, None], 0.0, null)
    lost = xp.concatenate(
        [lost, xp.where(at_bound[:, None], xp.eye(len(at_bound), dtype=null.dtype), 0.0)], axis=1
    )
    still = (
        lost if xp is np else jax.lax.stop_gradient(lost)
    )  # a projector is a verdict: it has no derivative
    projector = rarely(xp.any(still != 0), _projector, lambda null: null @ null.T, still)
    follow = np.where(roots >= 0, roots, np.arange(len(roots)))
    return {
        "x": x[follow],
        "se": se[follow],
        "vcov": masked[follow][:, follow],
        "estimable_vcov": vcov[follow][:, follow],
        "sign": sign[follow],
        "bound": xp.where(kept, reached.bound, 0)[follow],
        "direction": direction[follow],
        "projector": projector,
        "point": user.x[follow],
    }


def _times(steps: Array, null: Array) -> Array:
    """``steps @ null``, rarely anything but zero; it decides, and has no derivative."""
    if not isinstance(null, np.ndarray):
        steps, null = jax.lax.stop_gradient((steps, null))
    xp = namespace(null)
    return rarely(
        xp.any(null != 0),
        lambda a, b: a @ b,
        lambda a, b: xp.zeros((a.shape[0], b.shape[1]), a.dtype),
        steps,
        null,
    )


def _projector(null: Array) -> Array:
    """The orthogonal projector on the column space of ``null`` (p, k)."""
    xp = namespace(null)
    values, q = eigh(null @ null.T)
    kept = xp.where(values > 1e-10 * xp.max(values), 1.0, 0.0)
    return (q * kept[None, :]) @ q.T


def record(
    chart: Chart,
    verdict: Verdict,
    user: UserScale,
    ending: dict[str, Any],
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
    dtype = user.x.dtype

    def whole(value: Any) -> Any:
        return xp.asarray(value).astype(xp.int32)[()]

    def real(value: Any) -> Any:
        return xp.asarray(value).astype(dtype)[()]

    failed = verdict.status == Status.NONFINITE
    boundless = verdict.status == Status.UNBOUNDED
    loglik = xp.where(failed, xp.nan, xp.where(boundless, xp.inf, verdict.point.value))
    witness = Witness(
        row=whole(row),
        term=whole(row),
        direction=real(ending["direction"]),
        sign=whole(ending["sign"]),
        projector=real(ending["projector"]),
        vcov=real(ending["estimable_vcov"]),
        bound=whole(ending["bound"]),
        curvature=real(verdict.curvature),
        digits=real(verdict.digits),
        gain=real(verdict.gain),
        distance=real(verdict.distance),
        stderr_error=real(error),
        certificate=whole(0),
        point=real(ending["point"]),
    )
    hollow = xp.where(failed | boundless, xp.nan, 1.0)
    return Fit(
        params=layout.unravel(real(ending["x"])),
        stderr=layout.unravel_entries(real(ending["se"])),
        vcov=real(ending["vcov"]),
        hessian=real(user.hessian * hollow),
        loglik=real(loglik),
        score=real(user.score * hollow),
        decrement=real(0.5 * verdict.distance**2),
        n=real(n),
        status=whole(verdict.status),
        witness=witness,
        steps=whole(verdict.steps + extra_steps),
        data_id=data_id,
        response_id=xp.zeros_like(data_id),
        names=layout.names,
        bounds=layout.bounds,
        df=chart.k,
        vcov_kind="none" if kind is None else kind,
        mode=mode,
        weighting=weighting,
        layout=layout,
        hessian_by=FORWARD_OVER_REVERSE if user.hessian_by is None else user.hessian_by.method,
    )
