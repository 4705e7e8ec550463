"""The search along a profile (the walk): many searches at once, each from a maximum to the end of
its interval, or to a constrained maximum.

In each search a scalar ψ(z) of the free coordinates is followed along the curve of maxima of ℓ
given ψ. At each point the *nuisance step* leads back to that curve, the *tangent* leads along it,
and slope and curvature of the profile ℓ_p(ψ) come from the same factor of the information (Venzon &
Moolgavkar 1988, Applied Statistics 37, 87). The end is the root of r(ψ) = √(2(ℓ̂ − ℓ_p(ψ))), the
signed root, which is much closer to linear than ℓ_p to quadratic: so Halley's step is applied to r,
inside a bracket. Only the evaluation is compiled; this is NumPy over searches.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from jaxmle._types import Tree, ndarray
from jaxmle.inference.profiles.geometry import Geometry, ProfilePoint, geometry

# Distances to the curve are in ℓ.
NEAR_CURVE = 0.3  # (0.8 SE) up to which a step along it is accepted
ON_CURVE = 1e-3  # up to which it is known on which side of the cut a point lies
ROOT_TOLERANCE = 1e-10  # at which a search ends: 5e-11 of a standard error in a 95 % end
CUT_TOLERANCE = 2e-9  # difference from the cut at which it ends; 1e-8 is required
# fraction of the remaining fall of ℓ that four times the distance so far would give at this slope:
# for a plateau; for none; and the change of ℓ allowed along a plateau
SHARE_OF_PLATEAU = 1e-3
SHARE_OF_SLOPE = 0.2
SHARE_THAT_STAYS = 0.02
SHARE_UNEXPLAINED = 0.15  # fraction of the cut that a step may leave unexplained
MAX_ROOT_STEPS = 120
MAX_REFUSALS = 40  # consecutive rejections after which a search gives up
MAX_REFUSALS_OF_ROOT_STEP = 6  # consecutive rejections before a point off the curve is accepted
BETTER_MAXIMUM_GAIN = 1e-6  # gain in ℓ over the fit that counts as another maximum (1.4e-3 SE)
MAX_SHARE_OF_ROOT_AT_START = 1e-3  # of the signed root at the cut, up to which the search is at θ̂
UNIT_TOLERANCE = 1e-10  # in units of ψ, up to which a fixed target is reached


class End(IntEnum):
    """How the search for one end of a profile interval ended.

    FOUND: the likelihood has fallen to the quantile there. UNBOUNDED: it never falls that far, and
    the end is ±inf. AT_BOUND: it has not fallen that far at the bound, which is the end.
    BETTER_MAXIMUM: there is a higher maximum in that direction. NO_FIT: the fit has no regular
    maximum. STALLED: not found. HELD: the parameter is held by ``fix``. The end is NaN for the last
    four.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.profiles.profile import profile
    >>> growth = lambda p, y: -0.5 * (y + jnp.expm1(-p["k"])) ** 2  # the mean 1 − exp(−k) ends at 1
    >>> y, bounds = np.array([0.5, 0.7]), {"k": jm.positive}
    >>> found = profile(growth, jm.fit(growth, {"k": 1.0}, y, constraints=bounds), y)
    >>> jm.End(int(found.lower_status[0])).name, jm.End(int(found.upper_status[0])).name
    ('AT_BOUND', 'UNBOUNDED')
    """

    FOUND = 0
    UNBOUNDED = 1
    AT_BOUND = 2
    BETTER_MAXIMUM = 3
    NO_FIT = 4
    STALLED = 5
    HELD = 6


RUNNING = -1


class Goal(NamedTuple):
    """The end that each search looks for."""

    side: ndarray  # (m,)  +1 the upper end, −1 the lower
    top: ndarray  # (m,)  ℓ̂
    cut: ndarray  # (m,)  fall of 2ℓ at the end
    psi_target: ndarray  # (m,)  a value of ψ to stop at instead; NaN
    unit: ndarray  # (m,)  standard error of ψ; NaN if the information at the start gives it
    plateau: ndarray  # (m,)  units of ψ within which flat ℓ is ignored
    close: ndarray  # (m,)  ℓ that the nuisance may still have to gain at the end
    slack: ndarray  # (m,)  gain in ℓ over the fit that counts as another maximum


class RootSearch(NamedTuple):
    """The state of each search."""

    z: ndarray
    value: ndarray
    noise: ndarray
    psi: ndarray
    geometry: Geometry
    lo: ndarray  # outermost position known to be inside, in ψ outwards from the origin
    hi: ndarray  # innermost position known to be outside
    cap: ndarray  # how far the next step along the curve may go
    radius: ndarray  # how far a step back to it may go, in scaled units
    flat: ndarray  # the number of consecutive flat positions
    flat_at: ndarray  # the last of them
    flat_deviance: ndarray  # the deviance at the first of them
    refused: ndarray
    outcome: ndarray


class Ends(NamedTuple):
    """The result of each search."""

    outcome: ndarray  # (m,)  End
    z: ndarray  # (m, k)
    psi: ndarray
    value: ndarray
    decrement: ndarray  # ℓ that the nuisance still has to gain
    slope: ndarray
    steps: int


Evaluate = Callable[[ndarray, ndarray], ProfilePoint]  # index (j,) of searches, z (j, k)


# ---------------------------------------------------------------- the walk


def solve(evaluate: Evaluate, z: ndarray, point: ProfilePoint, goal: Goal) -> Ends:
    """Run each search from z (m, k), where ``point`` was evaluated, to its goal."""
    goal, search = _initial_state(z, point, goal)
    origin = search.psi.copy()
    steps = 0
    search = _judge(search, goal, origin)
    active = np.flatnonzero(search.outcome == RUNNING)
    while active.size and steps < MAX_ROOT_STEPS:
        steps += 1
        active_search = _take(search, active)
        active_goal = Goal(*(leaf[active] for leaf in goal))
        move, psi_step = _propose(active_search, active_goal, origin[active], steps)
        moved = _advance(
            active_search,
            active_goal,
            origin[active],
            evaluate(active, active_search.z + move),
            move,
            psi_step,
        )
        _put(search, active, moved)
        active = active[moved.outcome == RUNNING]
    outcome = np.where(search.outcome == RUNNING, int(End.STALLED), search.outcome)
    g = search.geometry
    return Ends(outcome, search.z, search.psi, search.value, g.decrement, g.slope, steps)


def _initial_state(z: ndarray, point: ProfilePoint, goal: Goal) -> tuple[Goal, RootSearch]:
    g = geometry(point)
    unit = np.where(
        np.isnan(goal.unit), 1 / np.sqrt(np.where(g.curvature > 0, g.curvature, np.nan)), goal.unit
    )
    unit = np.where(np.isfinite(unit) & (unit > 0), unit, 1.0)
    goal = goal._replace(unit=unit)
    m = len(z)
    cap = np.where(np.isnan(goal.psi_target), 1.5 * np.sqrt(goal.cut) * unit, np.inf)

    def full(value: Tree, kind: Tree = float) -> Tree:
        return np.full(m, value, kind)

    outcome = np.where(g.finite, RUNNING, int(End.STALLED))
    return goal, RootSearch(
        z.copy(),
        point.value.copy(),
        point.noise.copy(),
        point.psi.copy(),
        g,
        full(-np.inf),
        full(np.inf),
        cap,
        full(1.0),
        full(0, int),
        full(0.0),
        full(0.0),
        full(0, int),
        outcome,
    )


def _take(search: RootSearch, index: ndarray) -> RootSearch:
    cut = {name: leaf[index] for name, leaf in search._asdict().items() if name != "geometry"}
    return RootSearch(**cut, geometry=Geometry(*(leaf[index] for leaf in search.geometry)))


def _put(search: RootSearch, index: ndarray, part: RootSearch) -> None:
    for name, leaf in search._asdict().items():
        if name != "geometry":
            leaf[index] = getattr(part, name)
    for leaf, new in zip(search.geometry, part.geometry, strict=True):
        leaf[index] = new


def _root(search: RootSearch, goal: Goal) -> ndarray:
    """The signed root r at the maximum that the nuisance step predicts."""
    decrement = np.where(
        np.isfinite(search.geometry.decrement),
        np.minimum(search.geometry.decrement, NEAR_CURVE),
        0.0,
    )
    return np.sqrt(np.maximum(2 * (goal.top - search.value - decrement), 0.0))


def _propose(
    search: RootSearch, goal: Goal, origin: ndarray, steps: int
) -> tuple[ndarray, ndarray]:
    """The next step (m, k) of each search, and the change of ψ outwards; NaN if the step leads back
    to the curve at the same ψ.
    """
    g = search.geometry
    along = g.sound & (g.decrement <= NEAR_CURVE)
    psi_step = np.where(along, _outwards(search, goal, origin, steps), 0.0)
    length = np.sqrt(np.sum((g.scale * g.step) ** 2, axis=1))
    share = np.where(along, 1.0, np.minimum(1.0, search.radius / np.maximum(length, 1e-300)))
    move = share[:, None] * g.step + (goal.side * psi_step)[:, None] * np.where(
        along[:, None], g.tangent, 0.0
    )
    return move, np.where(along, psi_step, np.nan)


def _outwards(search: RootSearch, goal: Goal, origin: ndarray, steps: int) -> ndarray:
    """The step of ψ outwards.

    With r² = 2(ℓ̂ − ℓ_p): r' = −ℓ_p'/r and r'' = (−ℓ_p'' − r'²)/r. Halley's step for r = ρ is e/r'
    over 1 + e r''/(2r'²), e = ρ − r.
    """
    g = search.geometry
    rho = np.sqrt(goal.cut)
    r = _root(search, goal)
    at_start = r < MAX_SHARE_OF_ROOT_AT_START * rho
    divisor = np.where(at_start, 1.0, r)
    rise = np.where(at_start, np.sqrt(np.maximum(g.curvature, 0.0)), -goal.side * g.slope / divisor)
    second = np.where(at_start, 0.0, (g.curvature - rise**2) / divisor)
    e = rho - r
    falls = rise > 0
    divisor = np.where(falls, rise, 1.0)
    psi_step = e / divisor / np.clip(1 + e * second / (2 * divisor**2), 0.5, 2.0)
    psi_step = np.where(falls, psi_step, np.where(e > 0, search.cap, -search.cap))
    fixed = ~np.isnan(goal.psi_target)
    psi_step = np.where(fixed, goal.side * (goal.psi_target - search.psi), psi_step)
    position = goal.side * (search.psi - origin)
    cap = np.where(
        (search.flat > 0) & ~fixed, np.minimum(search.cap, 0.5 * np.abs(position)), search.cap
    )
    psi_step = np.clip(psi_step, -cap, cap)
    between = np.isfinite(search.lo) & np.isfinite(search.hi) & ~fixed
    outside = (position + psi_step <= search.lo) | (position + psi_step >= search.hi)
    middle = 0.5 * (np.where(between, search.lo, 0.0) + np.where(between, search.hi, 0.0))
    return np.where(
        between & (outside | (steps > 20 and steps % 2 == 0)), middle - position, psi_step
    )


def _misses(search: RootSearch, trial: ProfilePoint, new: Geometry) -> ndarray:
    """How far the change of ℓ_p is from what slope and curvature at both ends predict (Hermite's
    rule): a measure of non-smoothness between them.
    """
    old = search.geometry
    d = trial.psi - search.psi
    predicted = 0.5 * (old.slope + new.slope) * d + (new.curvature - old.curvature) * d**2 / 12
    return np.abs(trial.value + new.decrement - search.value - old.decrement - predicted)


class _Trial(NamedTuple):
    """The assessment of the step tried by each search, (m,)."""

    along: ndarray  # the step led along the curve, not back to it
    distance: ndarray  # how far ψ moved outwards
    accepted: ndarray
    forced: ndarray  # accepted off the curve, after too many rejections
    better: ndarray  # ℓ is above that of the fit, and smoothly so


def _tried(
    search: RootSearch, goal: Goal, trial: ProfilePoint, new: Geometry, psi_step: ndarray
) -> _Trial:
    """Whether each trial is accepted."""
    old = search.geometry
    along = ~np.isnan(psi_step)
    distance = goal.side * (np.where(new.finite, trial.psi, search.psi) - search.psi)
    # not past a pole or a turning point of ψ
    straight = np.abs(distance - psi_step) <= 0.75 * np.abs(psi_step) + 0.05 * goal.unit
    # Whether a step jumps over something, such as another maximum; and whether ℓ above ℓ̂ agrees
    # with the slopes and is not rounding error of terms that cancel (log Γ(y + r) − log Γ(r) at
    # large r).
    misses = _misses(search, trial, new)
    gain = trial.value - goal.top
    better = new.finite & (gain > np.maximum(goal.slack, 8 * trial.noise))
    rough = better & np.where(
        along, ~(misses <= 0.5 * gain), trial.value - search.value > 2 * old.decrement
    )
    acceptable = along & straight & ~rough
    forced = (
        acceptable & (search.refused >= MAX_REFUSALS_OF_ROOT_STEP) & new.finite & (search.flat == 0)
    )
    unexplained = np.where(search.flat > 0, 0.5 * SHARE_THAT_STAYS, SHARE_UNEXPLAINED) * goal.cut
    smooth = new.sound & (new.decrement <= NEAR_CURVE) & (misses <= unexplained)
    # Off the curve ψ stays, to first order: ℓ − μ(ψ − ψ₀) must rise.
    rise = np.where(
        new.finite, trial.value - search.value - old.slope * (trial.psi - search.psi), -np.inf
    )
    rises = new.finite & (rise >= -np.maximum(search.noise, trial.noise))
    accepted = acceptable & smooth | forced | ~along & ~rough & rises
    return _Trial(along, distance, accepted, forced, better & ~rough)


def _limits(
    search: RootSearch, tried: _Trial, move: ndarray, psi_step: ndarray
) -> tuple[ndarray, ndarray]:
    """How far the next step may go along the curve, and back to it: more after an accepted step,
    less after a rejected one.
    """
    length = np.sqrt(np.sum((search.geometry.scale * move) ** 2, axis=1))
    cap = np.where(
        tried.accepted & ~tried.forced,
        np.maximum(search.cap, 2 * np.abs(tried.distance)),
        0.25 * np.minimum(search.cap, np.abs(psi_step)),
    )
    radius = np.where(
        tried.accepted,
        np.maximum(search.radius, 2 * length),
        0.25 * np.minimum(search.radius, length),
    )
    return (
        np.where(tried.along, cap, search.cap),
        np.where(tried.forced, 1.0, np.where(tried.along, search.radius, radius)),
    )


def _advance(
    search: RootSearch,
    goal: Goal,
    origin: ndarray,
    trial: ProfilePoint,
    move: ndarray,
    psi_step: ndarray,
) -> RootSearch:
    """Accept or reject the trial, and set the limits of the next."""
    new = geometry(trial)
    tried = _tried(search, goal, trial, new, psi_step)
    accepted = tried.accepted

    def pick(a: ndarray, b: ndarray) -> ndarray:
        return np.where(accepted.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    cap, radius = _limits(search, tried, move, psi_step)
    moved = search._replace(
        z=pick(search.z + move, search.z),
        value=pick(trial.value, search.value),
        noise=pick(trial.noise, search.noise),
        psi=pick(trial.psi, search.psi),
        geometry=Geometry(*map(pick, new, search.geometry)),
        cap=cap,
        radius=radius,
        refused=np.where(accepted, 0, search.refused + 1),
    )
    moved = _judge(moved, goal, origin)
    running = moved.outcome == RUNNING
    # On a long plateau floating-point resolution ends before the plateau does.
    exhausted = ~new.finite | (search.refused >= 3)
    flat = running & tried.along & ~accepted & exhausted & (search.flat >= 1)
    stuck = running & (moved.refused > MAX_REFUSALS) & ~flat
    outcome = np.where(flat, int(End.UNBOUNDED), np.where(stuck, int(End.STALLED), moved.outcome))
    return moved._replace(outcome=np.where(tried.better, int(End.BETTER_MAXIMUM), outcome))


def _judge(search: RootSearch, goal: Goal, origin: ndarray) -> RootSearch:
    """Whether a search has arrived, and what its position implies for the bracket and for a
    plateau.
    """
    g = search.geometry
    position = goal.side * (search.psi - origin)
    on_curve = g.sound & (g.decrement <= ON_CURVE)
    r = _root(search, goal)
    inside = on_curve & (r < np.sqrt(goal.cut))
    outside = on_curve & (r >= np.sqrt(goal.cut))
    lo, hi = _bracket(search, position, inside, outside)
    flat, flat_at, flat_deviance = _plateau(search, goal, position, inside, outside)
    outcome = np.where(
        _has_arrived(search, goal), int(End.FOUND), np.where(flat >= 2, int(End.UNBOUNDED), RUNNING)
    )
    return search._replace(
        lo=lo,
        hi=hi,
        flat=flat,
        flat_at=flat_at,
        flat_deviance=flat_deviance,
        outcome=np.where(search.outcome == RUNNING, outcome, search.outcome),
    )


def _bracket(
    search: RootSearch, position: ndarray, inside: ndarray, outside: ndarray
) -> tuple[ndarray, ndarray]:
    """The outermost position inside the interval and the innermost outside it. If a profile crosses
    the cut more than once, the latest point decides.
    """
    lo = np.where(inside, np.maximum(search.lo, position), search.lo)
    hi = np.where(outside, np.minimum(search.hi, position), search.hi)
    crossed = lo >= hi
    return np.where(crossed & outside, -np.inf, lo), np.where(crossed & inside, np.inf, hi)


def _plateau(
    search: RootSearch, goal: Goal, position: ndarray, inside: ndarray, outside: ndarray
) -> tuple[ndarray, ndarray, ndarray]:
    """How many consecutive flat positions a search has met; where the last was, and the deviance at
    the first.

    A position is flat if four times the distance so far would, at this slope, give almost nothing
    of the remaining fall of ℓ. Half as far again, ℓ must in fact not have changed, whatever
    rounding has left of its slope by then.
    """
    deviance = _root(search, goal) ** 2
    missing = np.maximum(goal.cut - deviance, 1e-300)
    predicted_share = (
        8 * np.abs(search.geometry.slope) * np.maximum(np.abs(position), goal.unit) / missing
    )
    stays = (search.flat > 0) & (
        np.abs(deviance - search.flat_deviance) <= SHARE_THAT_STAYS * missing
    )
    level = (
        inside
        & ((predicted_share <= SHARE_OF_PLATEAU) | stays)
        & (position >= goal.plateau * goal.unit)
    )
    count = level & np.isnan(goal.psi_target) & (position >= 1.4 * search.flat_at)
    ended = outside | ((inside | outside) & (predicted_share > SHARE_OF_SLOPE) & ~stays)
    flat = np.where(count, search.flat + 1, np.where(ended, 0, search.flat))
    return (
        flat,
        np.where(count, position, np.where(flat == 0, 0.0, search.flat_at)),
        np.where(count & (search.flat == 0), deviance, search.flat_deviance),
    )


def _has_arrived(search: RootSearch, goal: Goal) -> ndarray:
    """Whether a search is at its goal: on the curve, and at the cut or at the ψ asked for."""
    g = search.geometry
    fixed = ~np.isnan(goal.psi_target)
    close = g.sound & (g.decrement <= np.maximum(goal.close, search.noise))
    miss = np.abs(2 * (goal.top - search.value) - goal.cut)
    at_cut = miss <= np.maximum(CUT_TOLERANCE, 4 * search.noise)
    distance = np.abs(search.psi - np.where(fixed, goal.psi_target, 0.0))
    return close & np.where(fixed, distance <= UNIT_TOLERANCE * goal.unit, at_cut)
