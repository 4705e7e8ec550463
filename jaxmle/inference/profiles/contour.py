"""Contours of the profile likelihood of two parameters: the boundary of their joint region."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from jaxmle._types import Array, Axes, Loglik, Tree, ndarray
from jaxmle.inference.profiles.endpoints import maxima
from jaxmle.inference.profiles.evaluator import Evaluate as EvaluateValues
from jaxmle.inference.profiles.evaluator import ProfileProblem, profile_problem_of
from jaxmle.inference.profiles.geometry import ProfilePoint
from jaxmle.inference.profiles.profile import MAX_PROFILE_POINTS
from jaxmle.inference.profiles.root_finder import (
    BETTER_MAXIMUM_GAIN,
    ROOT_TOLERANCE,
    End,
    Evaluate,
    Goal,
    solve,
)
from jaxmle.likelihood.combinators import Weights
from jaxmle.parameters.arguments import check_count, check_level
from jaxmle.parameters.constraints import Interval
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only

MIN_COMPONENT_OF_DIRECTION = 1e-12  # below it a coordinate does not change


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["curve", "status", "error", "estimate"],
    meta_fields=["names", "level", "mode"],
)
@dataclass(frozen=True, eq=False)
class Contour:
    """The boundary of the joint confidence region of two parameters, in order around the estimate.

    Arrays: ``curve`` (points, 2), the two parameters; ``status`` (points,) of ``End``; ``error``
    (points,), the difference between 2(ℓ̂ − ℓ) and the quantile; ``estimate`` (2,). A point that is
    not FOUND is NaN, or lies on a bound or at infinity if a parameter goes there. For a batch,
    every array has a leading axis.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.profiles.contour import contour
    >>> data = {"x": np.array([1.0, 3.0, 2.0, 6.0]), "y": np.array([0.0, 1.0, -1.0, 2.0])}
    >>> two = lambda p, d: -0.5 * (d["x"] - p["a"]) ** 2 - 0.5 * (d["y"] - p["b"]) ** 2
    >>> found = contour(two, jm.fit(two, {"a": 0.0, "b": 0.0}, data), data, ("a", "b"), points=4)
    >>> radius = np.hypot(*(found.curve - found.estimate).T)
    >>> radius.round(4).tolist()  # a circle for two normal means: √(5.991/n)
    [1.2239, 1.2239, 1.2239, 1.2239]
    """

    curve: ndarray
    status: ndarray
    error: ndarray
    estimate: ndarray
    names: tuple[str, str]
    level: float
    mode: str

    @property
    def closed(self) -> ndarray:
        """The curve with its first point repeated at the end, for plots."""
        return np.concatenate([self.curve, self.curve[..., :1, :]], axis=-2)


@with_keyword_hints
def contour(
    loglik: Loglik,
    fit: Fit,
    data: Tree = None,
    pair: tuple[str, str] = ("", ""),
    level: float = 0.95,
    points: int = 64,
    *,
    weights: Weights | None = None,
    in_axes: Axes = 0,
) -> Contour:
    """The closed curve on which the profile likelihood of two parameters has fallen by
    χ²₂(level)/2.

    The curve is searched for along rays from the estimate, in evenly spaced directions of the Wald
    ellipse, on the free scale; along each ray the other parameters are maximised. If a ray leaves
    and re-enters the region, the first crossing is used.

    Args:
        loglik, fit, data, weights, in_axes: as for ``profile``.
        pair: names of two parameters, each with its own free coordinate (not entries of a simplex
            or a matrix).
        level: coverage of the joint region.
        points: number of rays.

    Returns:
        A ``Contour``.

    Raises:
        ValueError, TypeError: as ``profile`` does.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.profiles.contour import contour
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, data: (
    ...     -0.5 * ((data - params["mu"]) / params["sigma"]) ** 2 - jnp.log(params["sigma"])
    ... )
    >>> result = jm.fit(normal, {"mu": 2.5, "sigma": 2.0}, y, constraints={"sigma": jm.positive})
    >>> contour(normal, result, y, ("mu", "sigma"), points=4).curve.round(3).tolist()
    [[5.29, 1.871], [3.0, 6.236], [0.71, 1.871], [3.0, 0.954]]
    """
    host_only("contour")
    level = check_level(level)
    points = check_count("points", points, 3, MAX_PROFILE_POINTS)
    with precision(np.float64), np.errstate(all="ignore"):
        posed = profile_problem_of(loglik, fit, data, weights, in_axes)
        places = _pair(posed, pair)
        return _contour(posed, (str(pair[0]), str(pair[1])), places, level, points)


def _pair(posed: ProfileProblem, pair: tuple[str, str]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Printed entries and free coordinates of the two parameters."""
    if (
        not isinstance(pair, tuple | list)
        or len(pair) != 2
        or not all(isinstance(name, str) for name in pair)
    ):
        raise TypeError(f"pair must be the names of two parameters; got {pair!r}")
    chart = posed.problem.chart
    entries = []
    for name in pair:
        matches = posed.problem.layout.find(name)
        if len(matches) != 1:
            raise ValueError(
                f"{name!r} means {len(matches)} entries; name one of "
                f"{', '.join(posed.problem.layout.names[j] for j in matches)}"
            )
        root = posed.problem.roots[matches[0]]
        if root < 0 or not chart.own_coordinate[root]:
            why = "is held by fix" if root < 0 else "cannot vary independently of other entries"
            raise ValueError(
                f"{name!r} {why}: a contour needs parameters that can vary independently"
            )
        entries.append(int(root))
    if entries[0] == entries[1]:
        raise ValueError(f"{pair[0]!r} and {pair[1]!r} are one parameter")
    first, second = (int(np.flatnonzero(chart.incidence[j])[0]) for j in entries)
    return (entries[0], entries[1]), (first, second)


def _contour(
    posed: ProfileProblem,
    names: tuple[str, str],
    places: tuple[tuple[int, int], tuple[int, int]],
    level: float,
    points: int,
) -> Contour:
    cut = -2 * float(np.log1p(-level))  # χ²₂ is exponential with mean 2
    entries, _ = places
    b = posed.members
    curve = np.full((b, points, 2), np.nan)
    error = np.full((b, points), np.nan)
    status = np.full((b, points), int(End.NO_FIT))
    # A maximum on a bound or at infinity has no rays around it.
    regular = np.flatnonzero(posed.usable & ~posed.at_limit)
    member, ray = (
        leaf.reshape(-1) for leaf in np.meshgrid(regular, np.arange(points), indexing="ij")
    )
    free = posed.free()
    for group in posed.groups(member) if member.size else ():
        place = (member[group.positions], ray[group.positions])
        angle = 2 * np.pi * place[1] / points
        curve[place], status[place], error[place] = _edge(
            posed, places, group.evaluate, free, place[0], angle, cut
        )
    lead = (lambda a: a) if posed.inputs is not None else (lambda a: a[0])
    return Contour(
        lead(curve),
        lead(status),
        lead(error),
        lead(posed.x[:, list(entries)]),
        names,
        level,
        posed.fit.mode,
    )


def _edge(
    posed: ProfileProblem,
    places: tuple[tuple[int, int], tuple[int, int]],
    evaluate: EvaluateValues,
    free: ndarray,
    members: ndarray,
    angle: ndarray,
    cut: float,
) -> tuple[ndarray, ndarray, ndarray]:
    """The boundary (m, 2) of the region along one ray of each search, with its status and error."""
    entries, (i, j) = places
    z, values, _, _, row = maxima(posed, members, evaluate, free)
    values = tuple(leaf[row] for leaf in values)
    maximum = z[row]
    basis = _rays(values[3], i, j, angle)
    origin = np.zeros((len(members), basis.shape[2]))
    start = _along(basis, origin, values)
    ends = solve(_in_basis(evaluate, maximum, basis), origin, start, _goal(values[0], cut))
    at_edge = ends.outcome == End.FOUND
    distance = np.where(at_edge, ends.psi, np.where(ends.outcome == End.UNBOUNDED, np.inf, np.nan))
    error = np.where(at_edge, 2 * (values[0] - ends.value) - cut, np.nan)
    edge = np.full((len(members), 2), np.nan)
    for side, (entry, coordinate) in enumerate(zip(entries, (i, j), strict=True)):
        direction = basis[:, coordinate, -1]
        moved = maximum[:, coordinate]
        moved = (
            moved
            + np.where(np.abs(direction) > MIN_COMPONENT_OF_DIRECTION, distance, 0.0) * direction
        )
        edge[:, side] = _shown(posed, entry, np.where(np.isnan(distance), np.nan, moved))
    return edge, ends.outcome, error


def _goal(top: ndarray, cut: float) -> Goal:
    """The fall of 2ℓ by ``cut``, outwards along each ray."""

    def every(value: float) -> ndarray:
        return np.full(len(top), value)

    return Goal(
        side=every(1.0),
        top=top,
        cut=every(cut),
        psi_target=every(np.nan),
        unit=every(np.nan),
        plateau=every(0.9 * np.sqrt(cut)),
        close=every(ROOT_TOLERANCE),
        slack=every(BETTER_MAXIMUM_GAIN),
    )


def _shown(posed: ProfileProblem, entry: int, psi: ndarray) -> Array:
    return Interval(*posed.problem.layout.bounds[entry]).to_user(psi, ())


def _rays(hessian: ndarray, i: int, j: int, angle: ndarray) -> ndarray:
    """For each search the free coordinates as (nuisance, ray), (m, k, k − 1): the ray in the
    plane of i and j, evenly spaced around the Wald ellipse.
    """
    m, k = hessian.shape[:2]
    vcov = np.linalg.inv(-0.5 * (hessian + np.swapaxes(hessian, 1, 2)))
    factor = np.linalg.cholesky(vcov[:, [[i, i], [j, j]], [[i, j], [i, j]]])
    u = np.einsum("mab,mb->ma", factor, np.stack([np.cos(angle), np.sin(angle)], axis=1))
    basis = np.zeros((m, k, k - 1))
    others = [c for c in range(k) if c not in (i, j)]
    basis[:, others, np.arange(k - 2)] = 1.0
    basis[:, i, -1], basis[:, j, -1] = u[:, 0], u[:, 1]
    return basis


def _along(basis: ndarray, w: ndarray, values: tuple[ndarray, ...]) -> ProfilePoint:
    """The likelihood in the coordinates w of each search's basis; ψ is the last of them, the
    position on the ray.
    """
    value, noise, score, hessian = values
    gradient = np.zeros_like(w)
    gradient[:, -1] = 1.0
    return ProfilePoint(
        value,
        noise,
        np.einsum("mkw,mk->mw", basis, score),
        np.swapaxes(basis, 1, 2) @ hessian @ basis,
        w[:, -1].copy(),
        gradient,
        None,
    )


def _in_basis(evaluate: EvaluateValues, maximum: ndarray, basis: ndarray) -> Evaluate:
    return lambda index, w: _along(
        basis[index], w, evaluate(index, maximum[index] + np.einsum("mkw,mw->mk", basis[index], w))
    )
