"""Profile likelihood intervals: the values at which the maximum of ℓ given one parameter, or one
function of the parameters, has fallen by half a chi-square quantile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import scipy

from jaxmle._types import Array, Axes, DataFrame, Function, Index, Loglik, Tree, ndarray
from jaxmle.batch.chunks.machine import for_members
from jaxmle.inference.profiles.endpoints import Endpoints, endpoints_of
from jaxmle.inference.profiles.evaluator import ProfileProblem, profile_problem_of
from jaxmle.inference.profiles.interest import Searches, Targets, targets_of
from jaxmle.inference.profiles.root_finder import End
from jaxmle.likelihood.combinators import Weights
from jaxmle.parameters.arguments import check_count, check_level
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Chart, Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only

_PROFILE_LEAVES = [
    "estimate",
    "lower",
    "upper",
    "lower_status",
    "upper_status",
    "error",
    "at_ends",
    "curve",
    "root",
]
LEVEL_TOLERANCE = 1e-12  # levels this close are the same


@partial(
    jax.tree_util.register_dataclass,
    data_fields=_PROFILE_LEAVES,
    meta_fields=["names", "level", "mode", "parameters", "whole", "layout"],
)
@dataclass(frozen=True, eq=False)
class Profile:
    """Profile likelihood intervals of m quantities; for a batch, every array has a leading axis.

    Arrays: ``estimate``, ``lower``, ``upper`` (m,); ``lower_status``, ``upper_status`` (m,)
    integers of ``End``; ``error`` (m, 2), the difference between 2(ℓ̂ − ℓ) at each end and the
    quantile; ``at_ends`` (m, 2, p), all parameters at each end, in the order of ``parameters``;
    ``curve`` (m, q) values of the quantity and ``root`` (m, q) the signed root ±√(2(ℓ̂ − ℓ_p))
    there, for plots. Static: ``names``, ``level``, ``mode`` (ML, or MAP if the likelihood is
    penalised), ``parameters``.

    An end is the bound itself if AT_BOUND, ±inf if UNBOUNDED, and NaN if BETTER_MAXIMUM, NO_FIT,
    STALLED or HELD.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.profiles.profile import profile
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, data: -0.5 * (data - params["mean"]) ** 2
    >>> result = jm.fit(normal, {"mean": 0.0}, y)
    >>> found = profile(normal, result, y)
    >>> found.lower.round(4).tolist(), found.upper.round(4).tolist()  # 3 ± 1.96/√4
    ([2.02], [3.98])
    >>> found.found.tolist()
    [True]
    """

    estimate: ndarray
    lower: ndarray
    upper: ndarray
    lower_status: ndarray
    upper_status: ndarray
    error: ndarray
    at_ends: ndarray
    curve: ndarray
    root: ndarray
    names: tuple[str, ...]
    level: float
    mode: str
    parameters: tuple[str, ...]
    whole: bool  # every parameter, so that intervals have the tree of params
    layout: Layout

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes: () for one fit, (b,) for a batch."""
        return np.shape(self.lower)[:-1]

    @property
    def found(self) -> ndarray:
        """Whether both ends are known: FOUND, AT_BOUND or UNBOUNDED, (m,)."""
        return (self.lower_status <= int(End.AT_BOUND)) & (self.upper_status <= int(End.AT_BOUND))

    def interval(self, level: float | None = None) -> ndarray:
        """Lower and upper ends, (m, 2), in the order of ``names``."""
        if level is not None and abs(level - self.level) > LEVEL_TOLERANCE:
            raise ValueError(
                f"these are the ends for level {self.level:g}; profile(loglik, fit, data, "
                f"level={level:g}) computes them for another level"
            )
        return np.stack([self.lower, self.upper], axis=-1)

    def conf_int(self, level: float | None = None) -> Tree:
        """The intervals in the tree of ``params``, with a last axis (lower, upper) on every leaf;
        or a dictionary by name if only some were computed.
        """
        ends = self.interval(level)
        if self.whole:
            columns = [
                _leaves(self.layout, ends[..., side], len(self.batch_shape)) for side in (0, 1)
            ]
            return jax.tree.map(lambda low, high: np.stack([low, high], axis=-1), *columns)
        return {name: ends[..., j, :] for j, name in enumerate(self.names)}

    def __getitem__(self, index: Index) -> Profile:
        """One member of a batch, or a part of it."""
        if not self.batch_shape:
            raise TypeError(
                "this is the profile of a single fit, not of a batch: it cannot be indexed"
            )
        return jax.tree.map(lambda leaf: leaf[index], self)

    def to_frame(self, backend: str | None = None) -> DataFrame:
        """A tidy data frame: term, estimate, conf_low, conf_high, low_status, high_status; for a
        batch with the first column member.
        """
        from importlib import import_module

        from jaxmle.tables.frame import INSTALL_FRAME, installed

        chosen = installed(backend)
        try:
            narwhals = import_module("narwhals")
        except ImportError as error:
            raise ImportError(f"a data frame needs narwhals: {INSTALL_FRAME}") from error
        members = int(np.prod(self.batch_shape, dtype=int))
        m = len(self.names)
        head = {"member": np.repeat(np.arange(members), m)} if self.batch_shape else {}

        def names_of(codes: Tree) -> list[str]:
            return [End(code).name for code in np.reshape(codes, -1).tolist()]

        columns = head | {
            "term": list(self.names) * members,
            "estimate": np.reshape(self.estimate, -1),
            "conf_low": np.reshape(self.lower, -1),
            "conf_high": np.reshape(self.upper, -1),
            "low_status": names_of(self.lower_status),
            "high_status": names_of(self.upper_status),
        }
        return narwhals.from_dict(columns, backend=chosen).to_native()

    def __repr__(self) -> str:
        if not isinstance(self.lower, np.ndarray):
            return f"Profile({', '.join(self.names[:6])}; {type(self.lower).__name__} leaves)"
        return _digest(self) if self.batch_shape else _table(self)

    __str__ = __repr__


def _leaves(layout: Layout, flat: ndarray, lead: int) -> Tree:
    """Flat quantities (..., p) as a tree like ``params``, with NaN at structural constants."""
    if not lead:
        return layout.unravel_entries(flat)
    trees = [layout.unravel_entries(row) for row in flat]
    return jax.tree.map(lambda *rows: np.stack(rows), *trees)


def _number(value: float) -> str:
    return f"{value:.6g}"


def _table(profile: Profile) -> str:
    """The intervals of one fit."""
    kind = "Profile likelihood" if profile.mode == "ML" else "Profile of the penalised likelihood"
    rows = [("", "estimate", "lower", "upper", "")]
    for j, name in enumerate(profile.names):
        low = End(int(profile.lower_status[j]))
        high = End(int(profile.upper_status[j]))
        remarks = [
            f"{side} {END_MEANING[end]}"
            for side, end in (("lower", low), ("upper", high))
            if end is not End.FOUND
        ]
        rows.append(
            (
                name,
                _number(profile.estimate[j]),
                _number(profile.lower[j]),
                _number(profile.upper[j]),
                "; ".join(remarks),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3)), row[4]]
        ).rstrip()
        for row in rows
    ]
    return "\n".join([f"{kind} intervals, level {profile.level:g}", *lines])


def _digest(profile: Profile) -> str:
    """The statuses of the ends of a batch, counted."""
    members = int(np.prod(profile.batch_shape, dtype=int))
    rows = [
        f"Profile likelihood intervals of {members:,} members, level {profile.level:g}, mode "
        f"{profile.mode}"
    ]
    for j, name in enumerate(profile.names):
        codes = np.concatenate(
            [
                np.reshape(profile.lower_status[..., j], -1),
                np.reshape(profile.upper_status[..., j], -1),
            ]
        )
        counts = ", ".join(
            f"{count:,} {End(int(code)).name}"
            for code, count in zip(*np.unique(codes, return_counts=True), strict=True)
        )
        rows.append(f"{name}: ends {counts}")
    return "\n".join(rows)


END_MEANING = {
    End.FOUND: "found",
    End.UNBOUNDED: "unbounded: the likelihood never falls that far",
    End.AT_BOUND: "at its bound",
    End.BETTER_MAXIMUM: (
        "not known: there is a higher maximum in that direction; refit from there"
    ),
    End.NO_FIT: "not known: the fit did not end at a regular maximum",
    End.STALLED: "not found",
    End.HELD: "held by fix",
}


# ---------------------------------------------------------------- the procedure

MAX_PROFILE_POINTS = 10_000  # of a curve or a contour: each takes a maximisation


@with_keyword_hints
def profile(
    loglik: Loglik,
    fit: Fit,
    data: Tree = None,
    which: str | Sequence[str] | Function | Mapping[str, Function] | None = None,
    level: float = 0.95,
    *,
    weights: Weights | None = None,
    in_axes: Axes = 0,
    points: int | None = None,
) -> Profile:
    """Profile likelihood intervals of parameters, or of functions of them.

    The interval for ψ contains the values whose profile ℓ_p(ψ) = max{ℓ(θ) : ψ(θ) = ψ} is within
    χ²₁(level)/2 of ℓ̂, around the estimate. Its ends do not depend on the parametrisation, and
    respect bounds.

    Args:
        loglik, data, weights, in_axes: those of the fit, or of the batch.
        fit: a ``Fit`` of ``fit`` or ``fit_batch``.
        which: None for every parameter; a name, or a list of names; a function ``g(params)``
            returning one number; or a dictionary of such functions.
        level: coverage, between 0 and 1.
        points: number of points of the curve stored on each side of the estimate; None for 5 for a
            single fit and none for a batch.

    Returns:
        A ``Profile``. An end may be AT_BOUND (the bound is reached before the likelihood has fallen
        far enough, and is the end), UNBOUNDED (it never falls that far: ±inf), BETTER_MAXIMUM (a
        larger likelihood than that of the fit was found: NaN), NO_FIT (the fit has no regular
        maximum: NaN), STALLED (not found: NaN) or HELD (by ``fix``). If a maximum lies at infinity
        (SEPARATED) or on a bound (BOUNDARY), the interval goes from there to its one finite end.
        Each FOUND end was evaluated: 2(ℓ̂ − ℓ) is within 1e-8 of the quantile, or within the
        rounding noise of ℓ if that is larger, and the other parameters are at their maximum.

    Raises:
        ValueError, TypeError: for mistakes visible in shapes and types; for sampling weights, with
            which the likelihood ratio is not chi-square; for data for which the fit is not a
            maximum; under a trace.

    Source: Venzon & Moolgavkar 1988, Applied Statistics 37, 87.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.profiles.profile import profile
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> profile(exponential, result, y).conf_int()["rate"].round(5).tolist()
    [0.10348, 0.77436]
    """
    host_only("profile")
    level = check_level(level)
    if points is not None:
        points = check_count("points", points, most=MAX_PROFILE_POINTS)
    with precision(np.float64), np.errstate(all="ignore"):
        posed = profile_problem_of(loglik, fit, data, weights, in_axes)
        targets = targets_of(posed, which)
        q = (0 if fit.batch_shape else 5) if points is None else points
        return _profile(posed, targets, level, q)


def _profile(posed: ProfileProblem, targets: Targets, level: float, points: int) -> Profile:
    cut = float(scipy.special.ndtri(0.5 + level / 2)) ** 2
    b = posed.members
    m = len(targets.names)
    p = posed.problem.layout.p
    ends = np.full((b, m, 2), np.nan)
    status = np.full((b, m, 2), int(End.NO_FIT))
    ends, status = _ends_without_search(posed, targets, ends, status)
    searches = Searches(*np.nonzero(status == UNSEARCHED))
    searches = Searches(searches.member, searches.target, np.where(searches.side == 1, 1.0, -1.0))
    endpoints, curve, root = endpoints_of(posed, targets, searches, cut, points)
    side = (searches.side > 0).astype(int)
    error = np.full((b, m, 2), np.nan)
    at_ends = np.full((b, m, 2, p), np.nan)
    place = (searches.member, searches.target, side)
    ends[place], status[place] = _on_printed_scale(targets, searches, endpoints)
    error[place] = endpoints.error
    is_found = endpoints.outcome == End.FOUND
    if is_found.any():
        at_ends[tuple(leaf[is_found] for leaf in place)] = _to_user(posed, endpoints.z[is_found])
    values, roots = _both_sides(posed, targets, searches, side, curve, root, points)
    estimate = _estimates(posed, targets)
    lead = (lambda a: a) if posed.inputs is not None else (lambda a: a[0])
    return Profile(
        lead(estimate),
        lead(ends[..., 0]),
        lead(ends[..., 1]),
        lead(status[..., 0]),
        lead(status[..., 1]),
        lead(error),
        lead(at_ends),
        lead(values),
        lead(roots),
        targets.names,
        level,
        posed.fit.mode,
        posed.fit.names,
        targets.whole,
        posed.problem.layout,
    )


UNSEARCHED = -1


def _ends_without_search(
    posed: ProfileProblem, targets: Targets, ends: ndarray, status: ndarray
) -> tuple[ndarray, ndarray]:
    """Ends that need no search: without a fit, for a held entry, or for an estimate on its bound or
    at infinity.
    """
    status[posed.usable] = UNSEARCHED
    for t, entry in enumerate(targets.entry):
        if targets.coordinate[t] == -2:
            status[:, t] = int(End.HELD)
            continue
        if entry < 0:
            continue
        for side, bound in enumerate(posed.fit.bounds[entry]):
            on_bound = posed.usable & (posed.x[:, entry] == bound)
            ends[on_bound, t, side] = bound
            status[on_bound, t, side] = int(End.UNBOUNDED if np.isinf(bound) else End.AT_BOUND)
    return ends, status


def _on_printed_scale(
    targets: Targets, searches: Searches, endpoints: Endpoints
) -> tuple[ndarray, ndarray]:
    """ψ at the ends on the printed scale, and the status."""
    value = np.full(len(searches.member), np.nan)
    status = endpoints.outcome.copy()
    for t, scale in enumerate(targets.scales):
        of_target = searches.target == t
        psi = np.where(
            endpoints.outcome == End.UNBOUNDED,
            searches.side * np.inf,
            np.where(endpoints.outcome == End.FOUND, endpoints.psi, np.nan),
        )[of_target]
        value[of_target] = np.where(np.isnan(psi), np.nan, scale.to_user(psi, ()))
        finite = np.isfinite(np.where(searches.side > 0, scale.upper, scale.lower))
        status[of_target & finite & (endpoints.outcome == End.UNBOUNDED)] = int(End.AT_BOUND)
    return value, status


def _to_user(posed: ProfileProblem, z: ndarray) -> ndarray:
    """All printed entries (j, p) at free points (j, k)."""
    chart = posed.problem.chart
    roots = np.array(posed.problem.roots)
    x = (
        np.stack([chart.to_user(row, posed.base) for row in z])
        if len(z) <= 64
        else np.asarray(
            for_members(_user, (chart,))(z, np.broadcast_to(posed.base, (len(z), len(posed.base))))
        )
    )
    return x[:, np.where(roots >= 0, roots, np.arange(len(roots)))]


def _user(chart: Chart, z: ndarray, base: ndarray) -> Array:
    return chart.to_user(z, base)


def _estimates(posed: ProfileProblem, targets: Targets) -> ndarray:
    """The estimate of each quantity, (b, m)."""
    out = np.full((posed.members, len(targets.names)), np.nan)
    for t, entry in enumerate(targets.entry):
        if entry >= 0:
            out[:, t] = posed.x[:, entry]
        elif targets.coordinate[t] == -2:
            out[:, t] = posed.x[:, posed.fit.names.index(targets.names[t])]
    users = np.flatnonzero((targets.entry < 0) & (targets.coordinate == -1))
    regular = np.flatnonzero(posed.usable & ~posed.at_limit)
    if users.size and regular.size:
        z = posed.free()[regular]
        for t in users.tolist():
            out[regular, t] = targets.functions(
                z,
                np.broadcast_to(np.eye(len(targets.names))[t], (regular.size, len(targets.names))),
            )[0]
    return out


def _both_sides(
    posed: ProfileProblem,
    targets: Targets,
    searches: Searches,
    side: ndarray,
    curve: ndarray,
    root: ndarray,
    points: int,
) -> tuple[ndarray, ndarray]:
    """The curves of both sides with the estimate between them, in increasing order, (b, m, 2·points
    + 1).
    """
    b = posed.members
    m = len(targets.names)
    if not points:
        return np.zeros((b, m, 0)), np.zeros((b, m, 0))
    values = np.full((b, m, 2 * points + 1), np.nan)
    roots = np.full((b, m, 2 * points + 1), np.nan)
    values[..., points], roots[..., points] = _estimates(posed, targets), 0.0
    order = np.where(
        side[:, None] == 1, points + 1 + np.arange(points), points - 1 - np.arange(points)
    )
    shown = (
        np.stack(
            [
                targets.scales[t].to_user(row, ())
                for t, row in zip(searches.target, curve, strict=True)
            ]
        )
        if len(curve)
        else curve
    )
    where = (searches.member[:, None], searches.target[:, None], order)
    values[where], roots[where] = shown, root
    return values, roots
