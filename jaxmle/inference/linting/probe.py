"""The input of the checks of ``lint``: a likelihood split into parts, its response, a few points
near the start, and its noise there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Key, Loglik, Tree, ndarray
from jaxmle.fitting.objective import Objective
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, WithResponse
from jaxmle.likelihood.contract import data_length, terms_of
from jaxmle.likelihood.response import Enumeration, Simulation
from jaxmle.likelihood.structure import has, parts_of
from jaxmle.parameters.arguments import first_line
from jaxmle.parameters.constraints import Interval
from jaxmle.parameters.tree import Chart, path_name
from jaxmle.runtime.compile import compiled, to_numpy
from jaxmle.solvers.state import Point


class MemberInputs(NamedTuple):
    """One likelihood without weights, priors and pools, with its own data."""

    loglik: Loglik
    data: Tree
    terms: Callable[[ndarray, Tree], ndarray]  # of x (p,)


@dataclass(frozen=True)
class Probe:
    """The likelihood in the form used by the checks: functions of the free scale z (k,), and a few
    points.
    """

    chart: Chart
    base: ndarray
    data: Tree
    whole: Callable[[ndarray, Tree], Point]  # with its prior
    bare: Callable[[ndarray, Tree], Point]  # without it
    members: tuple[MemberInputs, ...]
    sample: Tree
    leaf: int | None  # which leaf of data is the response
    support: Tree
    key: Array
    rng: np.random.Generator
    z: ndarray
    obstacle: str = ""  # to differentiation
    n: int = 1
    unit: ndarray = field(default_factory=lambda: np.zeros(0))  # the row unit of each coordinate
    near: tuple[ndarray, ...] = ()  # two pairs of points around the start
    regular_points: tuple[ndarray, ...] = ()  # those of them at which everything is finite
    noise: float = 0.0  # of the worst term, relative to 1 + |term|

    def x(self, z: ndarray) -> ndarray:
        return np.asarray(self.chart.to_user(z, self.base))

    def rows(self, z: ndarray) -> list[ndarray]:
        """The terms of each member, (n,) or ()."""
        return [member.terms(self.x(z), member.data) for member in self.members]

    def place(self, k: int, row: int) -> str:
        return f"row {row}" if len(self.members) == 1 else f"row {row} of member {k}"

    def names(self, j: int) -> str:
        """The printed entries that free coordinate j moves."""
        return ", ".join(np.array(self.chart.layout.names)[self.chart.incidence[:, j]][:3])


def law_of(loglik: Loglik) -> tuple[Tree, str | None, Tree]:
    """Simulator, response and support, if a likelihood knows its response's distribution."""
    while not isinstance(loglik, Pool | WithResponse) and parts_of(loglik):
        loglik = parts_of(loglik)[0]
    law = getattr(loglik, "law", getattr(loglik, "response", None))
    if isinstance(law, Enumeration):
        return None, law.leaf, np.asarray(law.values)
    return (law.sampler if isinstance(law, Simulation) else None), None, None


SUPPORTS: dict[str, Tree] = {
    "counts": "counts",
    "binary": np.array([0.0, 1.0]),
    "real": Interval(),
    "positive": Interval(0.0, np.inf),
    "unit": Interval(0.0, 1.0),
}


def response_leaf(response: str | None, support: Tree, tree: Tree, data: Tree) -> int | None:
    """The position of the response among the leaves of data; None if none is named."""
    if response is None and support is None:
        return None
    if support is None:
        raise ValueError(
            f"response={response!r} needs its support: {', '.join(map(repr, SUPPORTS))}, "
            "interval(a, b) or an array of values"
        )
    if isinstance(support, str) and support not in SUPPORTS:
        raise ValueError(
            f"support must be one of {', '.join(map(repr, SUPPORTS))}, interval(a, b) or an "
            f"array of values; got {support!r}"
        )
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(data)]
    if has(tree, Pool):
        return None
    if response is None and len(names) == 1:
        return 0
    if response not in names:
        raise ValueError(f"response must name a leaf of data, one of {names}; got {response!r}")
    return names.index(response)


def _members(loglik: Tree, data: Tree) -> list[tuple[Tree, Tree]]:
    """Each likelihood with its data; fix and tie are kept; weights, priors, pools are removed."""
    if isinstance(loglik, Pool):
        return [
            member_inputs
            for member, part in zip(loglik.members, data, strict=True)
            for member_inputs in _members(member, part)
        ]
    if isinstance(loglik, Fix | Tie):
        return [
            (replace(loglik, loglik=member), part) for member, part in _members(loglik.loglik, data)
        ]
    return _members(loglik.loglik, data) if parts_of(loglik) else [(loglik, data)]


def _without_prior(loglik: Tree) -> Tree:
    if isinstance(loglik, Penalize):
        return _without_prior(loglik.loglik)
    if isinstance(loglik, Pool):
        return Pool(tuple(map(_without_prior, loglik.members)))
    return replace(loglik, loglik=_without_prior(loglik.loglik)) if parts_of(loglik) else loglik


def prepare(
    tree: Tree,
    chart: Chart,
    base: ndarray,
    data: Tree,
    sample: Tree,
    leaf: int | None,
    support: Tree,
    key: Key,
) -> Probe:
    """The likelihood split into parts for the checks: the whole of it at points z (k,), each
    member's terms (n,), the response, and a seed.
    """
    layout = chart.layout

    def terms(member: Tree) -> Callable[[ndarray, Tree], ndarray]:
        piece = compiled(
            member,
            ("lint terms", layout),
            lambda ll: lambda x, data: terms_of(ll, layout.unravel(x), data),
        )
        return lambda x, data: np.asarray(piece(x, data))

    def second_order(loglik: Loglik) -> Callable[[ndarray, Tree], Point]:
        piece = compiled(
            loglik,
            ("lint point", chart),
            lambda ll: lambda z, base, data: Objective(ll, chart, base, data)(z),
        )
        return lambda z, data: to_numpy(piece(z, base, data))

    whole = second_order(tree)
    bare = second_order(_without_prior(tree)) if has(tree, Penalize) else whole
    members = tuple(
        MemberInputs(member, part, terms(member)) for member, part in _members(tree, data)
    )
    key = jax.random.key(int(key)) if isinstance(key, int | np.integer) else key
    raw = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    rng = np.random.default_rng(np.asarray(raw).ravel().tolist())
    support = SUPPORTS[support] if isinstance(support, str) else support
    return Probe(
        chart,
        base,
        data,
        whole,
        bare,
        members,
        sample,
        leaf,
        support,
        key,
        rng,
        np.asarray(chart.to_free(base)),
    )


def with_points(probe: Probe) -> Probe:
    """The probe with its row unit, two pairs of points around the start (each coordinate 0.7 to 1
    row unit away), and its noise.
    """
    z = probe.z
    n = sum(
        data_length(member.data) or terms.size
        for member, terms in zip(probe.members, probe.rows(z), strict=True)
    )
    try:
        first = probe.whole(z, probe.data)
        obstacle = ""
        probe.bare(z, probe.data)
    except (TypeError, ValueError, NotImplementedError) as error:
        # The terms were evaluated above, so this error is about derivatives and is reported by that
        # check.
        first = None
        obstacle = f"{type(error).__name__}: {first_line(error)[:160]}"
    unit = (
        0.1 * np.where(z == 0, 1.0, np.abs(z))
        if first is None
        else _row_unit(z, probe.base, first, n)
    )
    moves = [
        unit * probe.rng.choice([-1.0, 1.0], z.size) * probe.rng.uniform(0.7, 1.0, z.size)
        for _ in range(2)
    ]
    near = tuple(z + sign * move for move in moves for sign in (1.0, -1.0))
    points = [
        candidate
        for candidate in near
        if all(np.all(np.isfinite(terms)) for terms in probe.rows(candidate))
    ]
    if not obstacle:
        points = [
            candidate for candidate in points if is_finite(probe.whole(candidate, probe.data))
        ]
    probe = replace(
        probe, obstacle=obstacle, n=n, unit=unit, near=near, regular_points=tuple(points or [z])
    )
    return replace(
        probe, noise=min(_roughness(probe, candidate) for candidate in probe.regular_points[:3])
    )


def is_finite(point: Point) -> bool:
    """Whether ℓ, score (k,) and Hessian (k, k) are all finite."""
    return bool(
        np.isfinite(point.value)
        and np.all(np.isfinite(point.score))
        and np.all(np.isfinite(point.hessian))
    )


def _row_unit(z: ndarray, x: ndarray, point: Point, n: int) -> ndarray:
    """The step (k,) that matters to one row: 0.3/√(|∂²ℓ/∂z²|/n) or 0.3/|mean score|, the smaller.
    No nonzero printed entry changes by more than 30 %, so that a scale without a constraint stays
    positive.
    """
    curvature = np.maximum(np.abs(np.diagonal(point.hessian)), point.score**2 / n)
    is_curved = np.isfinite(curvature) & (curvature > 0)
    unit = np.where(is_curved, 0.3 / np.sqrt(np.where(is_curved, curvature, 1.0) / n), 0.1)
    slope = np.abs(point.aux.jacobian)
    matters = (slope > 0) & (x[:, None] != 0)
    largest_step = np.where(
        matters, 0.3 * np.abs(x)[:, None] / np.where(slope > 0, slope, 1.0), np.inf
    ).min(axis=0)
    return np.minimum(unit, np.minimum(largest_step, 1.0))


def _roughness(probe: Probe, z: ndarray) -> float:
    """Rounding noise of the worst term, relative to 1 + |term|.

    Fourth differences of a smooth function at steps h vanish as h⁴; for independent noise their
    root mean square is √70 times that of the noise.
    """
    steps = [probe.rows(z + 1e-4 * step * probe.unit) for step in range(-4, 5)]
    worst = 0.0
    for member in zip(*steps, strict=True):
        terms = np.stack(member).astype(float)
        rough = np.sqrt(np.mean(np.diff(terms, n=4, axis=0) ** 2, axis=0) / 70) / (
            1 + np.abs(terms[4])
        )
        worst = max(worst, float(np.max(np.where(np.isfinite(rough), rough, 0.0))))
    return worst
