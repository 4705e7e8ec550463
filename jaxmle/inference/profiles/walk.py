"""The walk along a profile: many lanes at once, each from a maximum to the end of its interval, or
to a constrained maximum.

Lane by lane a scalar ψ(z) of the free coordinates is followed along the curve of maxima of ℓ given
ψ. At each point the *nuisance step* leads back to that curve, the *tangent* along it, and slope and
curvature of the profile ℓ_p(ψ) come from the same factor of the information (Venzon & Moolgavkar
1988, Applied Statistics 37, 87). The end is the root of r(ψ) = √(2(ℓ̂ − ℓ_p(ψ))), the signed root,
which is much closer to linear than ℓ_p to quadratic: Halley's step on r, held inside a bracket.
Only the evaluation is compiled; this is NumPy over lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

NEAR_CURVE = 0.3  # distance to the curve in ℓ (0.8 SE) up to which a step along it is kept
ON = 1e-3  # distance at which a point says on which side of the cut it lies
WALK_TOLERANCE = (
    1e-10  # distance in ℓ at which the walk ends: 5e-11 of a standard error in a 95 % end
)
CUT_TOLERANCE = 2e-9  # difference from the cut at which it ends; 1e-8 is asked
# share of what ℓ still has to fall that four times the distance walked would yield at this slope: a
# plateau, and none
PLATEAU_SHARE = 1e-3
STEEP = 0.2
STAYS = 0.02
SMOOTH = 0.15  # share of the cut that a step may leave unexplained
MAX_WALK_STEPS = 120
REFUSED = 40  # refusals in a row at which a lane gives up
MAX_REFUSALS_OF_WALK = 6  # refusals in a row before a point off the curve is taken and climbed from
BETTER = 1e-6  # gain in ℓ over the fit that makes another maximum (1.4e-3 SE)


class End(IntEnum):
    """How the search for one end of a profile interval ended.

    FOUND: the likelihood has fallen to the quantile there. UNBOUNDED: it never falls so far, and
    the end is ±inf. AT_BOUND: it has not fallen so far at the bound, which is the end.
    BETTER_MAXIMUM: a maximum above the fit lies that way. NO_FIT: the fit has no regular maximum.
    STALLED: not found. HELD: the parameter is held by ``fix``. The end is NaN for the last four.

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


class Seen(NamedTuple):
    """The likelihood and ψ at one point of each lane."""

    value: np.ndarray  # (m,)
    noise: np.ndarray  # (m,)  ν = 4ε Σ|terms|
    score: np.ndarray  # (m, k)
    hessian: np.ndarray  # (m, k, k)
    psi: np.ndarray  # (m,)
    gradient: np.ndarray  # (m, k)  ∂ψ/∂z
    bend: np.ndarray | None  # (m, k, k)  ∂²ψ/∂z∂z'; None where ψ is linear in z


class Goal(NamedTuple):
    """What each lane looks for."""

    side: np.ndarray  # (m,)  +1 the upper end, −1 the lower
    top: np.ndarray  # (m,)  ℓ̂
    cut: np.ndarray  # (m,)  fall of 2ℓ at the end
    at: np.ndarray  # (m,)  a value of ψ to stop at instead; NaN
    unit: np.ndarray  # (m,)  standard error of ψ; NaN where the information at the start gives it
    plateau: np.ndarray  # (m,)  units of ψ before which ℓ may be flat and mean nothing
    close: np.ndarray  # (m,)  ℓ that the nuisance may still have to gain at the end
    slack: np.ndarray  # (m,)  gain in ℓ over the fit that makes another maximum


class Geometry(NamedTuple):
    """The profile near a point, to second order."""

    step: np.ndarray  # (m, k)  Newton's step to the maximum given ψ
    tangent: np.ndarray  # (m, k)  ∂z/∂ψ along the curve
    slope: np.ndarray  # (m,)  ∂ℓ_p/∂ψ
    curvature: np.ndarray  # (m,)  −∂²ℓ_p/∂ψ²
    off: np.ndarray  # (m,)  ℓ to be gained by the step
    sound: np.ndarray  # (m,)  everything is finite and the information given ψ positive definite
    scale: np.ndarray  # (m, k)
    finite: np.ndarray  # (m,)


class Walk(NamedTuple):
    """Where each lane is."""

    z: np.ndarray
    value: np.ndarray
    noise: np.ndarray
    psi: np.ndarray
    geometry: Geometry
    lo: np.ndarray  # outermost place known to lie inside, in ψ outwards from the origin
    hi: np.ndarray  # innermost place known to lie outside
    cap: np.ndarray  # how far the next step along the curve may go
    radius: np.ndarray  # and one back to it, in scaled units
    flat: np.ndarray  # flat places in a row
    flat_at: np.ndarray
    flat_dev: np.ndarray  # the deviance there
    refused: np.ndarray
    outcome: np.ndarray


class Ends(NamedTuple):
    """Where each lane arrived."""

    outcome: np.ndarray  # (m,)  End
    z: np.ndarray  # (m, k)
    psi: np.ndarray
    value: np.ndarray
    off: np.ndarray
    slope: np.ndarray
    steps: int


Evaluate = Callable[[np.ndarray, np.ndarray], Seen]  # lanes (j,), z (j, k)


# ---------------------------------------------------------------- geometry


def geometry(seen: Seen) -> Geometry:
    """Nuisance step, tangent, slope and curvature, with the curvature of the Lagrangian ℓ − μ(ψ −
    ψ₀).

    In coordinates scaled by D and reflected so that ∂ψ/∂z is along the last one, one elimination of
    J gives all four: the pivots before the last belong to the nuisance, the last is the information
    of the profile.
    """
    k = seen.score.shape[1]
    j = -0.5 * (seen.hessian + np.swapaxes(seen.hessian, 1, 2))
    finite = (
        np.isfinite(seen.value)
        & np.isfinite(seen.psi)
        & np.isfinite(seen.score).all(1)
        & np.isfinite(j).all((1, 2))
        & np.isfinite(seen.gradient).all(1)
    )
    if seen.bend is not None:
        finite &= np.isfinite(seen.bend).all((1, 2))
    finite &= (seen.gradient != 0).any(1)
    whole = finite.all()
    j = j if whole else np.where(finite[:, None, None], j, np.eye(k))
    score = seen.score if whole else np.where(finite[:, None], seen.score, 0.0)
    a = seen.gradient if whole else np.where(finite[:, None], seen.gradient, 1.0)
    if seen.bend is not None:
        d = scale_of(j, score)
        mu = np.sum(score * a / d**2, axis=1) / np.sum((a / d) ** 2, axis=1)
        j = j + mu[:, None, None] * (
            seen.bend if whole else np.where(finite[:, None, None], seen.bend, 0.0)
        )
    d = scale_of(j, score)
    g = score / d
    w = a / d
    length = np.sqrt(np.sum(w**2, axis=1))
    # Householder: Q = I − 2vv' sends w to α e_k, with the sign that does not cancel.
    alpha = -np.where(w[:, -1] >= 0, 1.0, -1.0) * length
    v = w.copy()
    v[:, -1] -= alpha
    v /= np.sqrt(np.sum(v**2, axis=1))[:, None]
    b = j / (d[:, :, None] * d[:, None, :])
    bv = np.einsum("mij,mj->mi", b, v)
    vbv = np.sum(v * bv, axis=1)
    cross = v[:, :, None] * bv[:, None, :]
    b = (
        b
        - 2 * (cross + np.swapaxes(cross, 1, 2))
        + 4 * vbv[:, None, None] * (v[:, :, None] * v[:, None, :])
    )
    g = g - 2 * v * np.sum(v * g, axis=1)[:, None]
    step, tangent, slope, curvature, off, sound = _eliminated(b, g)
    if not sound.all():
        step, off = _mended(b, g, step, off, sound)

    def turn(x: Any) -> Any:
        return (x - 2 * v * np.sum(v * x, axis=1)[:, None]) / d

    return Geometry(
        turn(step),
        turn(tangent) / alpha[:, None],
        slope / alpha,
        curvature / alpha**2,
        off,
        sound & finite,
        d,
        finite,
    )


def scale_of(j: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Units of each coordinate, (m, k)."""
    d = np.sqrt(np.abs(np.diagonal(j, axis1=1, axis2=2)))
    d = np.where(d > 1e-150, d, np.abs(score))
    return np.where(d > 1e-150, d, 1.0)


def _eliminated(
    b: np.ndarray, g: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The first k − 1 unknowns eliminated from Bx = g, all lanes in step."""
    b = b.copy()
    g = g.copy()
    m, k = g.shape
    sound = np.ones(m, bool)
    off = np.zeros(m)
    pivots = []
    for i in range(k - 1):
        pivot = b[:, i, i]
        sound &= pivot > 20 * k * np.finfo(float).eps
        pivot = np.where(sound, pivot, 1.0)
        factor = b[:, i + 1 :, i] / pivot[:, None]
        b[:, i + 1 :, i + 1 :] -= factor[:, :, None] * b[:, i, None, i + 1 :]
        g[:, i + 1 :] -= factor * g[:, i, None]
        off += 0.5 * g[:, i] ** 2 / pivot
        pivots.append(pivot)
    step = np.zeros((m, k))
    tangent = np.zeros((m, k))
    tangent[:, -1] = 1.0
    for i in reversed(range(k - 1)):
        row = b[:, i, i + 1 :]
        step[:, i] = (g[:, i] - np.sum(row * step[:, i + 1 :], axis=1)) / pivots[i]
        tangent[:, i] = -np.sum(row * tangent[:, i + 1 :], axis=1) / pivots[i]
    return step, tangent, g[:, -1], b[:, -1, -1], off, sound


def _mended(
    b: np.ndarray, g: np.ndarray, step: np.ndarray, off: np.ndarray, sound: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """An ascent direction where the nuisance information is not positive definite: eigenvalues
    in size, the small ones lifted.
    """
    bad = np.flatnonzero(~sound)
    values, q = np.linalg.eigh(b[bad, :-1, :-1])
    lifted = np.maximum(
        np.abs(values), 1e-3 * np.max(np.abs(values), axis=1, initial=0.0)[:, None] + 1e-12
    )
    along = np.einsum("mij,mi->mj", q, g[bad, :-1])
    # Where the score sees nothing of a negative curvature, a push along it does.
    along = np.where((values < 0) & (np.abs(along) < 1e-8), 1e-4, along)
    step = step.copy()
    off = off.copy()
    step[bad, :-1], step[bad, -1] = np.einsum("mij,mj->mi", q, along / lifted), 0.0
    off[bad] = np.inf
    return step, off


# ---------------------------------------------------------------- the walk


def solve(evaluate: Evaluate, z: np.ndarray, seen: Seen, goal: Goal) -> Ends:
    """Walk each lane from z (m, k), where ``seen`` was seen, to its goal."""
    goal, walk = _begin(z, seen, goal)
    origin = walk.psi.copy()
    steps = 0
    walk = _judge(walk, goal, origin)
    open_ = np.flatnonzero(walk.outcome == RUNNING)
    while open_.size and steps < MAX_WALK_STEPS:
        steps += 1
        here = _take(walk, open_)
        wanted = Goal(*(leaf[open_] for leaf in goal))
        move, du = _propose(here, wanted, origin[open_], steps)
        moved = _advance(here, wanted, origin[open_], evaluate(open_, here.z + move), move, du)
        _put(walk, open_, moved)
        open_ = open_[moved.outcome == RUNNING]
    outcome = np.where(walk.outcome == RUNNING, int(End.STALLED), walk.outcome)
    g = walk.geometry
    return Ends(outcome, walk.z, walk.psi, walk.value, g.off, g.slope, steps)


def _begin(z: np.ndarray, seen: Seen, goal: Goal) -> tuple[Goal, Walk]:
    g = geometry(seen)
    unit = np.where(
        np.isnan(goal.unit), 1 / np.sqrt(np.where(g.curvature > 0, g.curvature, np.nan)), goal.unit
    )
    unit = np.where(np.isfinite(unit) & (unit > 0), unit, 1.0)
    goal = goal._replace(unit=unit)
    m = len(z)
    cap = np.where(np.isnan(goal.at), 1.5 * np.sqrt(goal.cut) * unit, np.inf)

    def full(value: Any, kind: Any = float) -> Any:
        return np.full(m, value, kind)

    outcome = np.where(g.finite, RUNNING, int(End.STALLED))
    return goal, Walk(
        z.copy(),
        seen.value.copy(),
        seen.noise.copy(),
        seen.psi.copy(),
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


def _take(walk: Walk, index: np.ndarray) -> Walk:
    cut = {name: leaf[index] for name, leaf in walk._asdict().items() if name != "geometry"}
    return Walk(**cut, geometry=Geometry(*(leaf[index] for leaf in walk.geometry)))


def _put(walk: Walk, index: np.ndarray, part: Walk) -> None:
    for name, leaf in walk._asdict().items():
        if name != "geometry":
            leaf[index] = getattr(part, name)
    for leaf, new in zip(walk.geometry, part.geometry, strict=True):
        leaf[index] = new


def _root(walk: Walk, goal: Goal) -> np.ndarray:
    """r at the maximum that the nuisance step promises."""
    off = np.where(np.isfinite(walk.geometry.off), np.minimum(walk.geometry.off, NEAR_CURVE), 0.0)
    return np.sqrt(np.maximum(2 * (goal.top - walk.value - off), 0.0))


def _propose(
    walk: Walk, goal: Goal, origin: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The next move (m, k) of each lane, and how far it takes ψ outwards: NaN where it leads
    back to the curve and ψ is to stay.
    """
    g = walk.geometry
    along = g.sound & (g.off <= NEAR_CURVE)
    du = np.where(along, _outwards(walk, goal, origin, steps), 0.0)
    length = np.sqrt(np.sum((g.scale * g.step) ** 2, axis=1))
    share = np.where(along, 1.0, np.minimum(1.0, walk.radius / np.maximum(length, 1e-300)))
    move = share[:, None] * g.step + (goal.side * du)[:, None] * np.where(
        along[:, None], g.tangent, 0.0
    )
    return move, np.where(along, du, np.nan)


def _outwards(walk: Walk, goal: Goal, origin: np.ndarray, steps: int) -> np.ndarray:
    """How far ψ is to go outwards.

    With r² = 2(ℓ̂ − ℓ_p): r' = −ℓ_p'/r and r'' = (−ℓ_p'' − r'²)/r. Halley's step for r = ρ is e/r'
    over 1 + e r''/(2r'²), e = ρ − r.
    """
    g = walk.geometry
    rho = np.sqrt(goal.cut)
    r = _root(walk, goal)
    start = r < 1e-3 * rho
    safe = np.where(start, 1.0, r)
    rise = np.where(start, np.sqrt(np.maximum(g.curvature, 0.0)), -goal.side * g.slope / safe)
    second = np.where(start, 0.0, (g.curvature - rise**2) / safe)
    e = rho - r
    falls = rise > 0
    safe = np.where(falls, rise, 1.0)
    du = e / safe / np.clip(1 + e * second / (2 * safe**2), 0.5, 2.0)
    du = np.where(falls, du, np.where(e > 0, walk.cap, -walk.cap))
    fixed = ~np.isnan(goal.at)
    du = np.where(fixed, goal.side * (goal.at - walk.psi), du)
    u = goal.side * (walk.psi - origin)
    cap = np.where((walk.flat > 0) & ~fixed, np.minimum(walk.cap, 0.5 * np.abs(u)), walk.cap)
    du = np.clip(du, -cap, cap)
    between = np.isfinite(walk.lo) & np.isfinite(walk.hi) & ~fixed
    outside = (u + du <= walk.lo) | (u + du >= walk.hi)
    middle = 0.5 * (np.where(between, walk.lo, 0.0) + np.where(between, walk.hi, 0.0))
    return np.where(between & (outside | (steps > 20 and steps % 2 == 0)), middle - u, du)


def _misses(walk: Walk, trial: Seen, new: Geometry) -> np.ndarray:
    """How far the change of ℓ_p is from what slope and curvature at both ends say (Hermite's
    rule): what lies between is not smooth.
    """
    old = walk.geometry
    d = trial.psi - walk.psi
    told = 0.5 * (old.slope + new.slope) * d + (new.curvature - old.curvature) * d**2 / 12
    return np.abs(trial.value + new.off - walk.value - old.off - told)


def _advance(
    walk: Walk, goal: Goal, origin: np.ndarray, trial: Seen, move: np.ndarray, du: np.ndarray
) -> Walk:
    """Keep the trial or refuse it."""
    old = walk.geometry
    new = geometry(trial)
    along = ~np.isnan(du)
    went = goal.side * (np.where(new.finite, trial.psi, walk.psi) - walk.psi)
    straight = (
        np.abs(went - du) <= 0.75 * np.abs(du) + 0.05 * goal.unit
    )  # not past a pole of ψ, nor around a bend of it
    # Whether a step jumps over something, such as another maximum; and whether ℓ above ℓ̂ is what
    # slopes say, not what rounding leaves of terms that cancel (log Γ(y + r) − log Γ(r) at large
    # r).
    misses = _misses(walk, trial, new)
    gain = trial.value - goal.top
    better = new.finite & (gain > np.maximum(goal.slack, 8 * trial.noise))
    rough = better & np.where(
        along, ~(misses <= 0.5 * gain), trial.value - walk.value > 2 * old.off
    )
    weary = (
        along
        & (walk.refused >= MAX_REFUSALS_OF_WALK)
        & new.finite
        & straight
        & ~rough
        & (walk.flat == 0)
    )
    kept = (
        along
        & new.sound
        & (new.off <= NEAR_CURVE)
        & straight
        & ~rough
        & (misses <= np.where(walk.flat > 0, 0.5 * STAYS, SMOOTH) * goal.cut)
        | weary
    )
    # Off the curve ψ stays, to first order: ℓ − μ(ψ − ψ₀) must rise.
    gain = np.where(
        new.finite, trial.value - walk.value - old.slope * (trial.psi - walk.psi), -np.inf
    )
    kept |= ~along & new.finite & ~rough & (gain >= -np.maximum(walk.noise, trial.noise))
    length = np.sqrt(np.sum((old.scale * move) ** 2, axis=1))
    cap = np.where(
        kept & ~weary,
        np.maximum(walk.cap, 2 * np.abs(went)),
        0.25 * np.minimum(walk.cap, np.abs(du)),
    )
    radius = np.where(
        kept, np.maximum(walk.radius, 2 * length), 0.25 * np.minimum(walk.radius, length)
    )

    def pick(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(kept.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    moved = Walk(
        z=pick(walk.z + move, walk.z),
        value=pick(trial.value, walk.value),
        noise=pick(trial.noise, walk.noise),
        psi=pick(trial.psi, walk.psi),
        geometry=Geometry(*map(pick, new, old)),
        lo=walk.lo,
        hi=walk.hi,
        cap=np.where(along, cap, walk.cap),
        radius=np.where(weary, 1.0, np.where(along, walk.radius, radius)),
        flat=walk.flat,
        flat_at=walk.flat_at,
        flat_dev=walk.flat_dev,
        refused=np.where(kept, 0, walk.refused + 1),
        outcome=walk.outcome,
    )
    moved = _judge(moved, goal, origin)
    # Out on a plateau the digits end before the plateau does.
    blind = (
        along
        & ~kept
        & (~new.finite | (walk.refused >= 3))
        & (walk.flat >= 1)
        & (moved.outcome == RUNNING)
    )
    stuck = (moved.outcome == RUNNING) & (moved.refused > REFUSED) & ~blind
    outcome = np.where(blind, int(End.UNBOUNDED), np.where(stuck, int(End.STALLED), moved.outcome))
    return moved._replace(outcome=np.where(better & ~rough, int(End.BETTER_MAXIMUM), outcome))


def _judge(walk: Walk, goal: Goal, origin: np.ndarray) -> Walk:
    """Whether a lane has arrived; what its place says of the bracket, and of a plateau."""
    g = walk.geometry
    fixed = ~np.isnan(goal.at)
    u = goal.side * (walk.psi - origin)
    r = _root(walk, goal)
    rho = np.sqrt(goal.cut)
    sure = g.sound & (g.off <= ON)
    inside = sure & (r < rho)
    beyond = sure & (r >= rho)
    lo = np.where(inside, np.maximum(walk.lo, u), walk.lo)
    hi = np.where(beyond, np.minimum(walk.hi, u), walk.hi)
    crossed = lo >= hi  # a profile with more than one crossing: the latest point decides
    lo = np.where(crossed & beyond, -np.inf, lo)
    hi = np.where(crossed & inside, np.inf, hi)
    # A plateau: four times the distance walked would, at this slope, yield next to nothing of what
    # is missing; half as far again, ℓ has indeed stayed, whatever rounding has left of its slope by
    # then.
    missing = np.maximum(goal.cut - r**2, 1e-300)
    yields = 8 * np.abs(g.slope) * np.maximum(np.abs(u), goal.unit) / missing
    stays = (walk.flat > 0) & (np.abs(r**2 - walk.flat_dev) <= STAYS * missing)
    level = inside & ((yields <= PLATEAU_SHARE) | stays) & (u >= goal.plateau * goal.unit) & ~fixed
    count = level & (u >= 1.4 * walk.flat_at)
    flat = np.where(
        count, walk.flat + 1, np.where(beyond | (sure & (yields > STEEP) & ~stays), 0, walk.flat)
    )
    flat_at = np.where(count, u, np.where(flat == 0, 0.0, walk.flat_at))
    flat_dev = np.where(count & (walk.flat == 0), r**2, walk.flat_dev)
    close = g.sound & (g.off <= np.maximum(goal.close, walk.noise))
    at_cut = np.abs(2 * (goal.top - walk.value) - goal.cut) <= np.maximum(
        CUT_TOLERANCE, 4 * walk.noise
    )
    at_value = np.abs(walk.psi - np.where(fixed, goal.at, 0.0)) <= 1e-10 * goal.unit
    found = close & np.where(fixed, at_value, at_cut)
    outcome = np.where(found, int(End.FOUND), np.where(flat >= 2, int(End.UNBOUNDED), RUNNING))
    return walk._replace(
        lo=lo,
        hi=hi,
        flat=flat,
        flat_at=flat_at,
        flat_dev=flat_dev,
        outcome=np.where(walk.outcome == RUNNING, outcome, walk.outcome),
    )
