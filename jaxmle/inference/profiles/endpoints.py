"""All lanes of a profile to their ends: the maxima that they start from, the walks, the curve
between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmle.inference.profiles.evaluator import Study
from jaxmle.inference.profiles.interest import Lane, Targets, see
from jaxmle.inference.profiles.walk import (
    BETTER,
    WALK_TOLERANCE,
    End,
    Ends,
    Evaluate,
    Goal,
    Seen,
    geometry,
    scale_of,
    solve,
)

# decrement at the estimate that shows it is not the maximum of this likelihood (0.14 SE; a float32
# fit is within 1e-6)
FOREIGN = 1e-2
BEYOND = 1.2  # how far the curve goes, in distances from the estimate to the end


class Found(NamedTuple):
    """The ends of all lanes."""

    outcome: np.ndarray
    z: np.ndarray
    psi: np.ndarray
    error: np.ndarray


def part_of(lane: Lane, index: np.ndarray) -> Lane:
    """Some of the lanes."""
    return Lane(*(leaf[index] for leaf in lane))


def maxima(
    posed: Study, member: np.ndarray, evaluate: Any, free: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray, np.ndarray, np.ndarray]:
    """The maxima of the members among the lanes, and what is seen there; units and distance
    climbed, where the maximum is endless; each lane's place.
    """
    members, first, place = np.unique(member, return_index=True, return_inverse=True)
    z = free[members].copy()
    values = tuple(np.array(leaf) for leaf in evaluate(first, z))
    unit = np.full_like(z, np.nan)
    stood = z.copy()
    endless = np.flatnonzero(posed.endless[members])
    if endless.size:
        # A coordinate without an estimate of its own has no standard error: its unit is that of the
        # stand-in, at most an e-fold of a logarithm.
        natural = 1 / np.sqrt(np.abs(np.diagonal(values[3][endless], axis1=1, axis2=2)))
        natural = np.where(posed.problem.chart.bent, np.minimum(natural, 1.0), natural)
        unit[endless] = np.where(_adrift(posed, members[endless]), natural, np.nan)
        z[endless], seen = ascend(evaluate, first[endless], z[endless])
        for leaf, new in zip(values, seen, strict=True):
            leaf[endless] = new
    z, values = _polished(posed, members, first, z, values, evaluate)
    return z, values, unit, np.abs(z - stood), place.reshape(-1)


def _adrift(posed: Study, members: np.ndarray) -> np.ndarray:
    """Which free coordinates belong to entries on a bound, at infinity or without an estimate,
    (j, k).
    """
    x = posed.x[members]
    bounds = np.array(posed.fit.bounds)
    chart = posed.problem.chart
    lost = (~np.isfinite(x) | (x <= bounds[:, 0]) | (x >= bounds[:, 1])) & chart.single
    return (lost[:, :, None] & chart.incidence).any(1)


def _polished(
    posed: Study,
    members: np.ndarray,
    first: np.ndarray,
    z: np.ndarray,
    values: tuple[np.ndarray, ...],
    evaluate: Any,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Newton's steps to the last digit, where a fit in float32 left them to do; an estimate
    that is not near the maximum is refused.
    """
    for round_ in range(4):
        j = -0.5 * (values[3] + np.swapaxes(values[3], 1, 2))
        plain = ~posed.endless[members] & np.isfinite(j).all((1, 2)) & np.isfinite(values[2]).all(1)
        d = np.sqrt(np.maximum(np.abs(np.diagonal(j, axis1=1, axis2=2)), 1e-300))
        scaled = np.where(
            plain[:, None, None], j / (d[:, :, None] * d[:, None, :]), np.eye(z.shape[1])
        )
        step = np.linalg.solve(
            scaled + 1e-14 * np.eye(z.shape[1]),
            np.where(plain[:, None], values[2] / d, 0.0)[..., None],
        )[..., 0]
        decrement = 0.5 * np.abs(np.sum(step * values[2] / d, axis=1))
        if round_ == 0 and (plain & (decrement > FOREIGN)).any():
            worst = members[np.flatnonzero(plain & (decrement > FOREIGN))[0]]
            where = f" of member {worst}" if posed.inputs is not None else ""
            raise ValueError(
                f"the estimate{where} is not a maximum of this log-likelihood on these data: "
                "give those that were fitted, with their weights"
            )
        rough = plain & (decrement > 1e-12) & (decrement > 1e-3 * values[1])
        if not rough.any():
            break
        which = np.flatnonzero(rough)
        z[which] += step[which] / d[which]
        for leaf, new in zip(values, evaluate(first[which], z[which]), strict=True):
            leaf[which] = new
    return z, values


def walked(
    posed: Study, targets: Targets, lane: Lane, cut: float, points: int
) -> tuple[Found, np.ndarray, np.ndarray]:
    """Every lane to its end; and the curve, ψ and signed root (lanes, points) at maxima between
    the estimate and beyond the end.
    """
    m = len(lane.member)
    k = posed.problem.chart.k
    out = Found(
        np.full(m, int(End.NO_FIT)), np.full((m, k), np.nan), np.full(m, np.nan), np.full(m, np.nan)
    )
    curve = np.full((m, points), np.nan)
    root = np.full((m, points), np.nan)
    free = posed.free()
    for group in posed.groups(lane.member):
        part = part_of(lane, group.lanes)
        z, values, unit, climbed, place = maxima(posed, part.member, group.evaluate, free)
        start = z[place]
        seen = see(posed, targets, part, tuple(leaf[place] for leaf in values), start)
        goal = _goal(posed, targets, part, seen, unit[place], climbed[place], cut)
        evaluate = _evaluator(posed, targets, part, group.evaluate)
        ends = solve(evaluate, start, seen, goal)
        at = group.lanes
        out.outcome[at], out.z[at], out.psi[at] = ends.outcome, ends.z, ends.psi
        out.error[at] = np.where(
            ends.outcome == End.FOUND, 2 * (goal.top - ends.value) - cut, np.nan
        )
        if points:
            curve[at], root[at] = _curve(evaluate, start, seen, goal, ends, points)
    return out, curve, root


def _goal(
    posed: Study,
    targets: Targets,
    part: Lane,
    seen: Seen,
    unit: np.ndarray,
    climbed: np.ndarray,
    cut: float,
) -> Goal:
    """The end that each lane looks for."""
    m = len(part.member)
    endless = posed.endless[part.member]
    top = np.where(endless, posed.top[part.member], seen.value)
    coordinate = targets.coordinate[part.target]
    own, way = (
        np.where(coordinate >= 0, leaf[np.arange(m), np.maximum(coordinate, 0)], np.nan)
        for leaf in (unit, climbed)
    )
    # From far out on a plateau the way in is flat, and says nothing, at least until it is back
    # where the climb began.
    plateau = np.where(np.isnan(own), 0.9 * np.sqrt(cut), 20 + 2 * way / own)
    # What the climb has left of the supremum is no other maximum, and the nuisance still gains it
    # e-fold by e-fold.
    slack = np.maximum(BETTER, np.where(endless, 10 * np.abs(top - seen.value), 0.0))
    return Goal(
        part.side,
        top,
        np.full(m, cut),
        np.full(m, np.nan),
        own,
        plateau,
        np.where(endless, 1e-8, WALK_TOLERANCE),
        slack,
    )


def _evaluator(posed: Study, targets: Targets, part: Lane, evaluate: Any) -> Evaluate:
    return lambda lanes, z: see(posed, targets, part_of(part, lanes), evaluate(lanes, z), z)


def _curve(
    evaluate: Any, start: np.ndarray, seen: Seen, goal: Goal, ends: Ends, points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Constrained maxima at evenly spaced ψ from the estimate to somewhat beyond the end, each
    from the one before.
    """
    g = geometry(seen)
    spread = np.sqrt(goal.cut / np.where(g.curvature > 0, g.curvature, np.nan))
    span = np.where(ends.outcome == End.FOUND, ends.psi - seen.psi, goal.side * spread)
    curve = np.full((len(start), points), np.nan)
    root = np.full((len(start), points), np.nan)
    z = start
    at = seen
    live = np.flatnonzero(np.isfinite(span) & (span != 0))
    for i in range(points):
        if not live.size:
            break
        wanted = seen.psi[live] + span[live] * BEYOND * (i + 1) / points
        goals = jax.tree.map(lambda leaf, live=live: leaf[live], goal)._replace(
            at=wanted, unit=np.abs(span[live])
        )
        found = solve(
            _shifted(evaluate, live),
            z[live],
            jax.tree.map(lambda leaf, live=live: leaf[live], at),
            goals,
        )
        good = found.outcome == End.FOUND
        arrived = live[good]
        curve[arrived, i] = found.psi[good]
        root[arrived, i] = goal.side[arrived] * np.sqrt(
            np.maximum(2 * (goal.top[arrived] - found.value[good]), 0.0)
        )
        z = z.copy()
        z[arrived] = found.z[good]
        if arrived.size and i + 1 < points:
            again = evaluate(arrived, z[arrived])
            at = _with(at, arrived, again)
        live = arrived
    return curve, root


def _shifted(evaluate: Evaluate, live: np.ndarray) -> Evaluate:
    return lambda lanes, z: evaluate(live[lanes], z)


def _with(seen: Seen, index: np.ndarray, new: Seen) -> Seen:
    """What was seen, with what was seen anew of some lanes."""

    def replaced(leaf: np.ndarray, part: np.ndarray) -> np.ndarray:
        leaf = leaf.copy()
        leaf[index] = part
        return leaf

    return jax.tree.map(replaced, seen, new)


# ---------------------------------------------------------------- the climb


def ascend(
    evaluate: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]],
    lanes: np.ndarray,
    z: np.ndarray,
    steps: int = 60,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Climb from z (m, k) until the decrement is below 1e-9, or so many steps: the point, and what
    was seen there.

    For maxima at infinity, where each step of the climb goes as far as the one before and ℓ nears
    its supremum e-fold by e-fold.
    """
    z = z.copy()
    seen = tuple(np.array(leaf) for leaf in evaluate(lanes, z))
    radius = np.full(len(z), 2.0)
    open_ = np.arange(len(z))
    for _ in range(steps):
        value, _, score, hessian = (leaf[open_] for leaf in seen)
        j = -0.5 * (hessian + np.swapaxes(hessian, 1, 2))
        good = np.isfinite(j).all((1, 2)) & np.isfinite(score).all(1) & np.isfinite(value)
        d = scale_of(np.where(good[:, None, None], j, 1.0), np.where(good[:, None], score, 0.0))
        values, q = np.linalg.eigh(
            np.where(good[:, None, None], j, 1.0) / (d[:, :, None] * d[:, None, :])
        )
        along = np.einsum("mij,mi->mj", q, np.where(good[:, None], score, 0.0) / d)
        step = np.where(np.abs(values) > 1e-13, along / np.maximum(np.abs(values), 1e-13), 0.0)
        decrement = 0.5 * np.sum(step * along, axis=1)
        length = np.sqrt(np.sum(step**2, axis=1))
        step = (
            np.einsum("mij,mj->mi", q, step)
            / d
            * np.minimum(1.0, radius[open_] / np.maximum(length, 1e-300))[:, None]
        )
        going = good & (decrement > 1e-9)
        open_ = open_[going]
        step = step[going]
        value = value[going]
        length = length[going]
        if not open_.size:
            break
        new = tuple(np.asarray(leaf) for leaf in evaluate(lanes[open_], z[open_] + step))
        better = np.isfinite(new[0]) & np.isfinite(new[3]).all((1, 2)) & (new[0] >= value - new[1])
        radius[open_] = np.where(
            better,
            np.maximum(radius[open_], 2 * np.minimum(length, radius[open_])),
            0.25 * np.minimum(length, radius[open_]),
        )
        kept = open_[better]
        z[kept] += step[better]
        for whole, part in zip(seen, new, strict=True):
            whole[kept] = part[better]
    return z, seen
