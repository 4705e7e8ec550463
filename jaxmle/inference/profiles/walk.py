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
WALK_TOLERANCE = 1e-10  # at which a search ends: 5e-11 of a standard error in a 95 % end
CUT_TOLERANCE = 2e-9  # difference from the cut at which it ends; 1e-8 is required
# fraction of the remaining fall of ℓ that four times the distance so far would give at this slope:
# for a plateau; for none; and the change of ℓ allowed along a plateau
SHARE_OF_PLATEAU = 1e-3
SHARE_OF_SLOPE = 0.2
SHARE_THAT_STAYS = 0.02
SHARE_UNEXPLAINED = 0.15  # fraction of the cut that a step may leave unexplained
MAX_WALK_STEPS = 120
MAX_REFUSALS = 40  # consecutive rejections after which a search gives up
MAX_REFUSALS_OF_WALK = 6  # consecutive rejections before a point off the curve is accepted
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


class Walk(NamedTuple):
    """The state of each search."""

    z: ndarray
    value: ndarray
    noise: ndarray
    psi: ndarray
    geometry: Geometry
    lo: ndarray  # outermost position known to be inside, in ψ outwards from the origin
    hi: ndarray  # innermost position known to be outside
    cap: ndarray  # how far the next step along the curve may go
    radius: ndarray  # and one back to it, in scaled units
    flat: ndarray  # consecutive flat positions
    flat_at: ndarray
    flat_dev: ndarray  # the deviance there
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
    goal, walk = _initial_walk(z, point, goal)
    origin = walk.psi.copy()
    steps = 0
    walk = _judge(walk, goal, origin)
    active = np.flatnonzero(walk.outcome == RUNNING)
    while active.size and steps < MAX_WALK_STEPS:
        steps += 1
        active_walk = _take(walk, active)
        active_goal = Goal(*(leaf[active] for leaf in goal))
        move, du = _propose(active_walk, active_goal, origin[active], steps)
        moved = _advance(
            active_walk,
            active_goal,
            origin[active],
            evaluate(active, active_walk.z + move),
            move,
            du,
        )
        _put(walk, active, moved)
        active = active[moved.outcome == RUNNING]
    outcome = np.where(walk.outcome == RUNNING, int(End.STALLED), walk.outcome)
    g = walk.geometry
    return Ends(outcome, walk.z, walk.psi, walk.value, g.decrement, g.slope, steps)


def _initial_walk(z: ndarray, point: ProfilePoint, goal: Goal) -> tuple[Goal, Walk]:
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
    return goal, Walk(
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


def _take(walk: Walk, index: ndarray) -> Walk:
    cut = {name: leaf[index] for name, leaf in walk._asdict().items() if name != "geometry"}
    return Walk(**cut, geometry=Geometry(*(leaf[index] for leaf in walk.geometry)))


def _put(walk: Walk, index: ndarray, part: Walk) -> None:
    for name, leaf in walk._asdict().items():
        if name != "geometry":
            leaf[index] = getattr(part, name)
    for leaf, new in zip(walk.geometry, part.geometry, strict=True):
        leaf[index] = new


def _root(walk: Walk, goal: Goal) -> ndarray:
    """The signed root r at the maximum that the nuisance step predicts."""
    decrement = np.where(
        np.isfinite(walk.geometry.decrement), np.minimum(walk.geometry.decrement, NEAR_CURVE), 0.0
    )
    return np.sqrt(np.maximum(2 * (goal.top - walk.value - decrement), 0.0))


def _propose(walk: Walk, goal: Goal, origin: ndarray, steps: int) -> tuple[ndarray, ndarray]:
    """The next step (m, k) of each search, and the change of ψ outwards; NaN if the step leads back
    to the curve at the same ψ.
    """
    g = walk.geometry
    along = g.sound & (g.decrement <= NEAR_CURVE)
    du = np.where(along, _outwards(walk, goal, origin, steps), 0.0)
    length = np.sqrt(np.sum((g.scale * g.step) ** 2, axis=1))
    share = np.where(along, 1.0, np.minimum(1.0, walk.radius / np.maximum(length, 1e-300)))
    move = share[:, None] * g.step + (goal.side * du)[:, None] * np.where(
        along[:, None], g.tangent, 0.0
    )
    return move, np.where(along, du, np.nan)


def _outwards(walk: Walk, goal: Goal, origin: ndarray, steps: int) -> ndarray:
    """The step of ψ outwards.

    With r² = 2(ℓ̂ − ℓ_p): r' = −ℓ_p'/r and r'' = (−ℓ_p'' − r'²)/r. Halley's step for r = ρ is e/r'
    over 1 + e r''/(2r'²), e = ρ − r.
    """
    g = walk.geometry
    rho = np.sqrt(goal.cut)
    r = _root(walk, goal)
    start = r < MAX_SHARE_OF_ROOT_AT_START * rho
    safe = np.where(start, 1.0, r)
    rise = np.where(start, np.sqrt(np.maximum(g.curvature, 0.0)), -goal.side * g.slope / safe)
    second = np.where(start, 0.0, (g.curvature - rise**2) / safe)
    e = rho - r
    falls = rise > 0
    safe = np.where(falls, rise, 1.0)
    du = e / safe / np.clip(1 + e * second / (2 * safe**2), 0.5, 2.0)
    du = np.where(falls, du, np.where(e > 0, walk.cap, -walk.cap))
    fixed = ~np.isnan(goal.psi_target)
    du = np.where(fixed, goal.side * (goal.psi_target - walk.psi), du)
    u = goal.side * (walk.psi - origin)
    cap = np.where((walk.flat > 0) & ~fixed, np.minimum(walk.cap, 0.5 * np.abs(u)), walk.cap)
    du = np.clip(du, -cap, cap)
    between = np.isfinite(walk.lo) & np.isfinite(walk.hi) & ~fixed
    outside = (u + du <= walk.lo) | (u + du >= walk.hi)
    middle = 0.5 * (np.where(between, walk.lo, 0.0) + np.where(between, walk.hi, 0.0))
    return np.where(between & (outside | (steps > 20 and steps % 2 == 0)), middle - u, du)


def _misses(walk: Walk, trial: ProfilePoint, new: Geometry) -> ndarray:
    """How far the change of ℓ_p is from what slope and curvature at both ends predict (Hermite's
    rule): a measure of non-smoothness between them.
    """
    old = walk.geometry
    d = trial.psi - walk.psi
    predicted = 0.5 * (old.slope + new.slope) * d + (new.curvature - old.curvature) * d**2 / 12
    return np.abs(trial.value + new.decrement - walk.value - old.decrement - predicted)


class _Trial(NamedTuple):
    """The assessment of the step tried by each search, (m,)."""

    along: ndarray  # the step led along the curve, not back to it
    distance: ndarray  # how far ψ moved outwards
    accepted: ndarray
    forced: ndarray  # accepted off the curve, after too many rejections
    better: ndarray  # ℓ is above that of the fit, and smoothly so


def _tried(walk: Walk, goal: Goal, trial: ProfilePoint, new: Geometry, du: ndarray) -> _Trial:
    """Whether each trial is accepted."""
    old = walk.geometry
    along = ~np.isnan(du)
    distance = goal.side * (np.where(new.finite, trial.psi, walk.psi) - walk.psi)
    # not past a pole or a turning point of ψ
    straight = np.abs(distance - du) <= 0.75 * np.abs(du) + 0.05 * goal.unit
    # Whether a step jumps over something, such as another maximum; and whether ℓ above ℓ̂ agrees
    # with the slopes and is not rounding error of terms that cancel (log Γ(y + r) − log Γ(r) at
    # large r).
    misses = _misses(walk, trial, new)
    gain = trial.value - goal.top
    better = new.finite & (gain > np.maximum(goal.slack, 8 * trial.noise))
    rough = better & np.where(
        along, ~(misses <= 0.5 * gain), trial.value - walk.value > 2 * old.decrement
    )
    passable = along & straight & ~rough
    forced = passable & (walk.refused >= MAX_REFUSALS_OF_WALK) & new.finite & (walk.flat == 0)
    unexplained = np.where(walk.flat > 0, 0.5 * SHARE_THAT_STAYS, SHARE_UNEXPLAINED) * goal.cut
    smooth = new.sound & (new.decrement <= NEAR_CURVE) & (misses <= unexplained)
    # Off the curve ψ stays, to first order: ℓ − μ(ψ − ψ₀) must rise.
    rise = np.where(
        new.finite, trial.value - walk.value - old.slope * (trial.psi - walk.psi), -np.inf
    )
    rises = new.finite & (rise >= -np.maximum(walk.noise, trial.noise))
    accepted = passable & smooth | forced | ~along & ~rough & rises
    return _Trial(along, distance, accepted, forced, better & ~rough)


def _limits(walk: Walk, tried: _Trial, move: ndarray, du: ndarray) -> tuple[ndarray, ndarray]:
    """How far the next step may go along the curve, and back to it: more after an accepted step,
    less after a rejected one.
    """
    length = np.sqrt(np.sum((walk.geometry.scale * move) ** 2, axis=1))
    cap = np.where(
        tried.accepted & ~tried.forced,
        np.maximum(walk.cap, 2 * np.abs(tried.distance)),
        0.25 * np.minimum(walk.cap, np.abs(du)),
    )
    radius = np.where(
        tried.accepted,
        np.maximum(walk.radius, 2 * length),
        0.25 * np.minimum(walk.radius, length),
    )
    return (
        np.where(tried.along, cap, walk.cap),
        np.where(tried.forced, 1.0, np.where(tried.along, walk.radius, radius)),
    )


def _advance(
    walk: Walk,
    goal: Goal,
    origin: ndarray,
    trial: ProfilePoint,
    move: ndarray,
    du: ndarray,
) -> Walk:
    """Accept or reject the trial, and set the limits of the next."""
    new = geometry(trial)
    tried = _tried(walk, goal, trial, new, du)
    accepted = tried.accepted

    def pick(a: ndarray, b: ndarray) -> ndarray:
        return np.where(accepted.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    cap, radius = _limits(walk, tried, move, du)
    moved = walk._replace(
        z=pick(walk.z + move, walk.z),
        value=pick(trial.value, walk.value),
        noise=pick(trial.noise, walk.noise),
        psi=pick(trial.psi, walk.psi),
        geometry=Geometry(*map(pick, new, walk.geometry)),
        cap=cap,
        radius=radius,
        refused=np.where(accepted, 0, walk.refused + 1),
    )
    moved = _judge(moved, goal, origin)
    running = moved.outcome == RUNNING
    # On a long plateau floating-point resolution ends before the plateau does.
    worn_out = ~new.finite | (walk.refused >= 3)
    flat = running & tried.along & ~accepted & worn_out & (walk.flat >= 1)
    stuck = running & (moved.refused > MAX_REFUSALS) & ~flat
    outcome = np.where(flat, int(End.UNBOUNDED), np.where(stuck, int(End.STALLED), moved.outcome))
    return moved._replace(outcome=np.where(tried.better, int(End.BETTER_MAXIMUM), outcome))


def _judge(walk: Walk, goal: Goal, origin: ndarray) -> Walk:
    """Whether a search has arrived, and what its position implies for the bracket and for a
    plateau.
    """
    g = walk.geometry
    u = goal.side * (walk.psi - origin)
    sure = g.sound & (g.decrement <= ON_CURVE)
    r = _root(walk, goal)
    inside = sure & (r < np.sqrt(goal.cut))
    outside = sure & (r >= np.sqrt(goal.cut))
    lo, hi = _bracket(walk, u, inside, outside)
    flat, flat_at, flat_dev = _plateau(walk, goal, u, inside, outside)
    outcome = np.where(
        _has_arrived(walk, goal), int(End.FOUND), np.where(flat >= 2, int(End.UNBOUNDED), RUNNING)
    )
    return walk._replace(
        lo=lo,
        hi=hi,
        flat=flat,
        flat_at=flat_at,
        flat_dev=flat_dev,
        outcome=np.where(walk.outcome == RUNNING, outcome, walk.outcome),
    )


def _bracket(walk: Walk, u: ndarray, inside: ndarray, outside: ndarray) -> tuple[ndarray, ndarray]:
    """The outermost position inside the interval and the innermost outside it. If a profile crosses
    the cut more than once, the latest point decides.
    """
    lo = np.where(inside, np.maximum(walk.lo, u), walk.lo)
    hi = np.where(outside, np.minimum(walk.hi, u), walk.hi)
    crossed = lo >= hi
    return np.where(crossed & outside, -np.inf, lo), np.where(crossed & inside, np.inf, hi)


def _plateau(
    walk: Walk, goal: Goal, u: ndarray, inside: ndarray, outside: ndarray
) -> tuple[ndarray, ndarray, ndarray]:
    """How many consecutive flat positions a search has met; where the last was, and the deviance at
    the first.

    A position is flat if four times the distance so far would, at this slope, give almost nothing
    of the remaining fall of ℓ. Half as far again, ℓ must in fact not have changed, whatever
    rounding has left of its slope by then.
    """
    deviance = _root(walk, goal) ** 2
    missing = np.maximum(goal.cut - deviance, 1e-300)
    yields = 8 * np.abs(walk.geometry.slope) * np.maximum(np.abs(u), goal.unit) / missing
    stays = (walk.flat > 0) & (np.abs(deviance - walk.flat_dev) <= SHARE_THAT_STAYS * missing)
    level = inside & ((yields <= SHARE_OF_PLATEAU) | stays) & (u >= goal.plateau * goal.unit)
    count = level & np.isnan(goal.psi_target) & (u >= 1.4 * walk.flat_at)
    ended = outside | ((inside | outside) & (yields > SHARE_OF_SLOPE) & ~stays)
    flat = np.where(count, walk.flat + 1, np.where(ended, 0, walk.flat))
    return (
        flat,
        np.where(count, u, np.where(flat == 0, 0.0, walk.flat_at)),
        np.where(count & (walk.flat == 0), deviance, walk.flat_dev),
    )


def _has_arrived(walk: Walk, goal: Goal) -> ndarray:
    """Whether a search is at its goal: on the curve, and at the cut or at the ψ asked for."""
    g = walk.geometry
    fixed = ~np.isnan(goal.psi_target)
    close = g.sound & (g.decrement <= np.maximum(goal.close, walk.noise))
    miss = np.abs(2 * (goal.top - walk.value) - goal.cut)
    at_cut = miss <= np.maximum(CUT_TOLERANCE, 4 * walk.noise)
    distance = np.abs(walk.psi - np.where(fixed, goal.psi_target, 0.0))
    return close & np.where(fixed, distance <= UNIT_TOLERANCE * goal.unit, at_cut)
