"""The endpoints of a profile: the maxima from which the searches start, the searches, and the curve
in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxmle._types import ndarray
from jaxmle.inference.profiles.evaluator import Evaluate as EvaluateValues
from jaxmle.inference.profiles.evaluator import ProfileProblem
from jaxmle.inference.profiles.geometry import ProfilePoint, geometry, scale_of
from jaxmle.inference.profiles.interest import Searches, Targets, profile_point
from jaxmle.inference.profiles.root_finder import (
    BETTER_MAXIMUM_GAIN,
    ROOT_TOLERANCE,
    End,
    Ends,
    Evaluate,
    Goal,
    solve,
)

# decrement at the estimate that shows it is not the maximum of this likelihood (0.14 SE; a float32
# fit is within 1e-6)
DECREMENT_OF_OTHER_DATA = 1e-2
CURVE_REACH = 1.2  # how far the curve goes, in distances from the estimate to the end
DECREMENT_OF_ROUNDING = 1e-12  # up to which the estimate counts as the maximum
MIN_DECREMENT_TO_POLISH_IN_NOISE = 1e-3  # of the noise of ℓ, above which another step gains
MIN_SCALED_EIGENVALUE = 1e-13  # below it a direction is flat
DECREMENT_TO_STOP_ASCENT = 1e-9


class Endpoints(NamedTuple):
    """Where all searches ended."""

    outcome: ndarray
    z: ndarray
    psi: ndarray
    error: ndarray


def part_of(searches: Searches, index: ndarray) -> Searches:
    """Some of the searches."""
    return Searches(*(leaf[index] for leaf in searches))


def maxima(
    posed: ProfileProblem, member: ndarray, evaluate: EvaluateValues, free: ndarray
) -> tuple[ndarray, tuple[ndarray, ...], ndarray, ndarray, ndarray]:
    """The maxima of the members that are searched, and the likelihood there; if a maximum is at
    infinity or on a bound, also units and the distance gone; for each search the row of its member.
    """
    members, first, place = np.unique(member, return_index=True, return_inverse=True)
    z = free[members].copy()
    values = tuple(np.array(leaf) for leaf in evaluate(first, z))
    unit = np.full_like(z, np.nan)
    before = z.copy()
    at_limit = np.flatnonzero(posed.at_limit[members])
    if at_limit.size:
        # A coordinate without an estimate has no standard error: its unit is that of the substitute
        # value, at most a factor e on a log scale.
        natural = 1 / np.sqrt(np.abs(np.diagonal(values[3][at_limit], axis1=1, axis2=2)))
        natural = np.where(posed.problem.chart.nonlinear, np.minimum(natural, 1.0), natural)
        unit[at_limit] = np.where(_without_estimate(posed, members[at_limit]), natural, np.nan)
        z[at_limit], ascended = ascend(evaluate, first[at_limit], z[at_limit])
        for leaf, new in zip(values, ascended, strict=True):
            leaf[at_limit] = new
    z, values = _newton_polished(posed, members, first, z, values, evaluate)
    return z, values, unit, np.abs(z - before), place.reshape(-1)


def _without_estimate(posed: ProfileProblem, members: ndarray) -> ndarray:
    """Which free coordinates belong to entries on a bound, at infinity or without an estimate,
    (j, k).
    """
    x = posed.x[members]
    bounds = np.array(posed.fit.bounds)
    chart = posed.problem.chart
    lost = (~np.isfinite(x) | (x <= bounds[:, 0]) | (x >= bounds[:, 1])) & chart.own_coordinate
    return np.any(lost[:, :, None] & chart.incidence, axis=1)


def _newton_polished(
    posed: ProfileProblem,
    members: ndarray,
    first: ndarray,
    z: ndarray,
    values: tuple[ndarray, ...],
    evaluate: EvaluateValues,
) -> tuple[ndarray, tuple[ndarray, ...]]:
    """Take the Newton steps to the last digit that a fit in float32 left out; raise if the estimate
    is not near the maximum.
    """
    for round_ in range(4):
        j = -0.5 * (values[3] + np.swapaxes(values[3], 1, 2))
        regular = (
            ~posed.at_limit[members] & np.isfinite(j).all((1, 2)) & np.isfinite(values[2]).all(1)
        )
        scale = np.sqrt(np.maximum(np.abs(np.diagonal(j, axis1=1, axis2=2)), 1e-300))
        scaled = np.where(
            regular[:, None, None], j / (scale[:, :, None] * scale[:, None, :]), np.eye(z.shape[1])
        )
        step = np.linalg.solve(
            scaled + 1e-14 * np.eye(z.shape[1]),
            np.where(regular[:, None], values[2] / scale, 0.0)[..., None],
        )[..., 0]
        decrement = 0.5 * np.abs(np.sum(step * values[2] / scale, axis=1))
        if round_ == 0 and (regular & (decrement > DECREMENT_OF_OTHER_DATA)).any():
            worst = members[np.flatnonzero(regular & (decrement > DECREMENT_OF_OTHER_DATA))[0]]
            where = f" of member {worst}" if posed.inputs is not None else ""
            raise ValueError(
                f"the estimate{where} is not a maximum of this log-likelihood on these "
                "data: give the likelihood, data and weights of the fit"
            )
        improvable = regular & (decrement > DECREMENT_OF_ROUNDING)
        improvable = improvable & (decrement > MIN_DECREMENT_TO_POLISH_IN_NOISE * values[1])
        if not improvable.any():
            break
        which = np.flatnonzero(improvable)
        z[which] += step[which] / scale[which]
        for leaf, new in zip(values, evaluate(first[which], z[which]), strict=True):
            leaf[which] = new
    return z, values


def endpoints_of(
    posed: ProfileProblem, targets: Targets, searches: Searches, cut: float, points: int
) -> tuple[Endpoints, ndarray, ndarray]:
    """Follow every search to its end; and the curve, ψ and signed root (searches, points) at
    constrained maxima from the estimate to somewhat beyond the end.
    """
    m = len(searches.member)
    k = posed.problem.chart.k
    out = Endpoints(
        np.full(m, int(End.NO_FIT)), np.full((m, k), np.nan), np.full(m, np.nan), np.full(m, np.nan)
    )
    curve = np.full((m, points), np.nan)
    root = np.full((m, points), np.nan)
    free = posed.free()
    for group in posed.groups(searches.member):
        part = part_of(searches, group.positions)
        z, values, unit, distance, place = maxima(posed, part.member, group.evaluate, free)
        start = z[place]
        evaluated = profile_point(
            posed, targets, part, tuple(leaf[place] for leaf in values), start
        )
        goal = _goal(posed, targets, part, evaluated, unit[place], distance[place], cut)
        evaluate = _evaluator(posed, targets, part, group.evaluate)
        ends = solve(evaluate, start, evaluated, goal)
        index = group.positions
        out.outcome[index], out.z[index], out.psi[index] = ends.outcome, ends.z, ends.psi
        out.error[index] = np.where(
            ends.outcome == End.FOUND, 2 * (goal.top - ends.value) - cut, np.nan
        )
        if points:
            curve[index], root[index] = _curve(evaluate, start, evaluated, goal, ends, points)
    return out, curve, root


def _goal(
    posed: ProfileProblem,
    targets: Targets,
    part: Searches,
    evaluated: ProfilePoint,
    unit: ndarray,
    distance: ndarray,
    cut: float,
) -> Goal:
    """The end that each search looks for."""
    m = len(part.member)
    at_limit = posed.at_limit[part.member]
    top = np.where(at_limit, posed.top[part.member], evaluated.value)
    coordinate = targets.coordinate[part.target]
    own_unit, own_distance = (
        np.where(coordinate >= 0, leaf[np.arange(m), np.maximum(coordinate, 0)], np.nan)
        for leaf in (unit, distance)
    )
    # From far out on a plateau the profile is also flat on the way back, at least to where the
    # search began: that proves nothing.
    plateau = np.where(np.isnan(own_unit), 0.9 * np.sqrt(cut), 20 + 2 * own_distance / own_unit)
    # At infinity ℓ̂ is a supremum: the remaining gain is not another maximum, and the nuisance
    # parameters still gain it, a factor e at a time.
    slack = np.maximum(
        BETTER_MAXIMUM_GAIN, np.where(at_limit, 10 * np.abs(top - evaluated.value), 0.0)
    )
    return Goal(
        part.side,
        top,
        np.full(m, cut),
        np.full(m, np.nan),
        own_unit,
        plateau,
        np.where(at_limit, 1e-8, ROOT_TOLERANCE),
        slack,
    )


def _evaluator(
    posed: ProfileProblem, targets: Targets, part: Searches, evaluate: EvaluateValues
) -> Evaluate:
    return lambda index, z: profile_point(
        posed, targets, part_of(part, index), evaluate(index, z), z
    )


def _curve(
    evaluate: Evaluate,
    start: ndarray,
    evaluated: ProfilePoint,
    goal: Goal,
    ends: Ends,
    points: int,
) -> tuple[ndarray, ndarray]:
    """Constrained maxima at evenly spaced ψ from the estimate to somewhat beyond the end, each
    from the one before.
    """
    g = geometry(evaluated)
    spread = np.sqrt(goal.cut / np.where(g.curvature > 0, g.curvature, np.nan))
    span = np.where(ends.outcome == End.FOUND, ends.psi - evaluated.psi, goal.side * spread)
    curve = np.full((len(start), points), np.nan)
    root = np.full((len(start), points), np.nan)
    z = start
    point = evaluated
    active = np.flatnonzero(np.isfinite(span) & (span != 0))
    for i in range(points):
        if not active.size:
            break
        psi = evaluated.psi[active] + span[active] * CURVE_REACH * (i + 1) / points
        goals = jax.tree.map(lambda leaf, active=active: leaf[active], goal)._replace(
            psi_target=psi, unit=np.abs(span[active])
        )
        solved = solve(
            _shifted(evaluate, active),
            z[active],
            jax.tree.map(lambda leaf, active=active: leaf[active], point),
            goals,
        )
        is_found = solved.outcome == End.FOUND
        arrived = active[is_found]
        curve[arrived, i] = solved.psi[is_found]
        root[arrived, i] = goal.side[arrived] * np.sqrt(
            np.maximum(2 * (goal.top[arrived] - solved.value[is_found]), 0.0)
        )
        z = z.copy()
        z[arrived] = solved.z[is_found]
        if arrived.size and i + 1 < points:
            fresh = evaluate(arrived, z[arrived])
            point = _replaced(point, arrived, fresh)
        active = arrived
    return curve, root


def _shifted(evaluate: Evaluate, active: ndarray) -> Evaluate:
    return lambda index, z: evaluate(active[index], z)


def _replaced(evaluated: ProfilePoint, index: ndarray, new: ProfilePoint) -> ProfilePoint:
    """The evaluations of all searches, replaced for some of them."""

    def replaced(leaf: ndarray, part: ndarray) -> ndarray:
        leaf = leaf.copy()
        leaf[index] = part
        return leaf

    return jax.tree.map(replaced, evaluated, new)


# ---------------------------------------------------------------- the ascent


def ascend(
    evaluate: Callable[[ndarray, ndarray], tuple[ndarray, ...]],
    index: ndarray,
    z: ndarray,
    steps: int = 60,
) -> tuple[ndarray, tuple[ndarray, ...]]:
    """Maximise from z (m, k) until the decrement is below 1e-9, or for this many steps: the point,
    and the likelihood there.

    For maxima at infinity, where each step is as long as the one before and ℓ approaches its
    supremum by a factor e each time.
    """
    z = z.copy()
    evaluated = tuple(np.array(leaf) for leaf in evaluate(index, z))
    radius = np.full(len(z), 2.0)
    active = np.arange(len(z))
    for _ in range(steps):
        value, _, score, hessian = (leaf[active] for leaf in evaluated)
        j = -0.5 * (hessian + np.swapaxes(hessian, 1, 2))
        is_finite = np.isfinite(j).all((1, 2)) & np.isfinite(score).all(1) & np.isfinite(value)
        d = scale_of(
            np.where(is_finite[:, None, None], j, 1.0), np.where(is_finite[:, None], score, 0.0)
        )
        values, q = np.linalg.eigh(
            np.where(is_finite[:, None, None], j, 1.0) / (d[:, :, None] * d[:, None, :])
        )
        along = np.einsum("mij,mi->mj", q, np.where(is_finite[:, None], score, 0.0) / d)
        size = np.abs(values)
        bounded = np.maximum(size, MIN_SCALED_EIGENVALUE)
        step = np.where(size > MIN_SCALED_EIGENVALUE, along / bounded, 0.0)
        decrement = 0.5 * np.sum(step * along, axis=1)
        length = np.sqrt(np.sum(step**2, axis=1))
        step = (
            np.einsum("mij,mj->mi", q, step)
            / d
            * np.minimum(1.0, radius[active] / np.maximum(length, 1e-300))[:, None]
        )
        still_rising = is_finite & (decrement > DECREMENT_TO_STOP_ASCENT)
        active = active[still_rising]
        step = step[still_rising]
        value = value[still_rising]
        length = length[still_rising]
        if not active.size:
            break
        new = tuple(np.asarray(leaf) for leaf in evaluate(index[active], z[active] + step))
        better = np.isfinite(new[0]) & np.isfinite(new[3]).all((1, 2)) & (new[0] >= value - new[1])
        radius[active] = np.where(
            better,
            np.maximum(radius[active], 2 * np.minimum(length, radius[active])),
            0.25 * np.minimum(length, radius[active]),
        )
        accepted = active[better]
        z[accepted] += step[better]
        for whole, part in zip(evaluated, new, strict=True):
            whole[accepted] = part[better]
    return z, evaluated
