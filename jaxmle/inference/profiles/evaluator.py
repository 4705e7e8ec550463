"""The likelihood of a fit, evaluated at many points: for one data set one point at a time, for a
batch in the blocks of ``fit_batch``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Axes, Loglik, Tree, ndarray
from jaxmle.batch.chunks.chunk import Chunk
from jaxmle.batch.chunks.compilation import Programs
from jaxmle.batch.chunks.machine import for_members
from jaxmle.batch.chunks.pieces import Flat, flat_members
from jaxmle.batch.chunks.plan import CHUNK_DATA_BYTES, Schedule, Sizes, cut, free_bytes
from jaxmle.batch.members.read import Inputs
from jaxmle.batch.members.sources import buckets
from jaxmle.fitting.options import Options
from jaxmle.fitting.passes import Problem, compile_pass, evaluated, problem_of
from jaxmle.inference.again import again, batch_again, check_axes, check_fit, check_weighting
from jaxmle.inference.statuses import STATUSES_WITH_SUPREMUM
from jaxmle.likelihood.checks import host_data
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.structure import chart_of, substituted, term_shape
from jaxmle.parameters.constraints import point_between
from jaxmle.parameters.tree import Chart
from jaxmle.record.fit import Fit
from jaxmle.runtime.device import placed
from jaxmle.solvers.status import Status

# The value (m,), its noise (m,), score (m, k) and Hessian (m, k, k).
Values = tuple[ndarray, ndarray, ndarray, ndarray]
Evaluate = Callable[[ndarray, ndarray], Values]  # index (m,) of searches, z (m, k)

EPS = float(np.finfo(np.float64).eps)
# If a smaller share of the loaded searches is unfinished, these are loaded anew.
SHARE_TO_RELOAD = 0.5
STATUSES_AT_A_LIMIT = (Status.BOUNDARY, Status.SEPARATED)


class Group(NamedTuple):
    """Searches that run together."""

    positions: ndarray  # among all searches
    evaluate: Evaluate  # of indices into ``positions``


@dataclass(frozen=True)
class ProfileProblem:
    """A fit with the likelihood and the data that it was made from."""

    problem: Problem
    fit: Fit
    base: ndarray  # (p,) values of the entries that are not free
    x: ndarray  # (b, p) estimates
    status: ndarray  # (b,)
    top: ndarray  # (b,) ℓ̂
    data: Tree = None  # of one data set
    inputs: Inputs | None = None  # of a batch

    @property
    def members(self) -> int:
        return len(self.status)

    @property
    def usable(self) -> ndarray:
        return np.isin(self.status, [int(s) for s in STATUSES_WITH_SUPREMUM])

    @property
    def at_limit(self) -> ndarray:
        """Members whose maximum lies on a bound or at infinity."""
        return np.isin(self.status, [int(s) for s in STATUSES_AT_A_LIMIT])

    def free(self) -> ndarray:
        """Estimates on the free scale (b, k); a substitute inside the bounds if an entry lies on
        its bound, is infinite or has no estimate.
        """
        x = np.where(self.usable[:, None], self.x, np.nan)
        for j, (low, high) in enumerate(self.fit.bounds):
            inside = point_between(low, high)
            margin = 1e-4 * (1 + abs(inside))
            moved_inside = np.where(
                x[:, j] <= low, low + margin, np.where(x[:, j] >= high, high - margin, x[:, j])
            )
            x[:, j] = np.where(
                np.isfinite(x[:, j]) & np.isfinite(moved_inside), moved_inside, inside
            )
        chart = self.problem.chart
        if len(x) == 1:
            return np.asarray(chart.to_free(x[0]))[None]
        bad = ~self.usable | (
            self.at_limit & any(not leaf.constraint.elementwise for leaf in self.fit.layout.leaves)
        )
        if bad.any():
            x[bad] = x[~bad][0] if (~bad).any() else x[bad]
        return np.asarray(for_members(_to_free, (chart,))(x))

    def groups(self, member: ndarray) -> Iterator[Group]:
        """Searches (m,), one for each entry of ``member``, split into groups that fit in memory."""
        if not member.size:
            return
        if self.inputs is None:
            yield Group(np.arange(len(member)), self._one_by_one())
            return
        programs = Programs(self.problem, (jax.devices()[0],))
        source = self.inputs.source
        for length, owners in buckets(source.sizes, source.padded):
            index = np.flatnonzero(np.isin(member, owners))
            if index.size:
                schedule = self._schedule(source.row_bytes() * sum(length), length, index.size)
                for begin in range(0, index.size, schedule.members):
                    part = index[begin : begin + schedule.members]
                    unique, place = np.unique(member[part], return_inverse=True)
                    flat = flat_members(self.inputs, unique, length)
                    yield Group(
                        part, _Blocks(programs, flat, place.reshape(-1), schedule, self.problem)
                    )

    def _one_by_one(self) -> Evaluate:
        """The compiled evaluation of ``fit`` itself, one point at a time, so that nothing is
        compiled again.
        """
        base = self.base
        chart = self.problem.chart
        on_device = jax.tree.map(placed, self.data)
        program = compile_pass(self.problem, "evaluate")

        def evaluate(index: ndarray, z: ndarray) -> Values:
            points = [evaluated(chart, program, base, on_device, (), row) for row in z]
            return tuple(
                np.stack(leaves)
                for leaves in zip(
                    *((q.value, 4 * EPS * q.absolute, q.score, q.hessian) for q in points),
                    strict=True,
                )
            )  # type: ignore[return-value]

        return evaluate

    def _schedule(self, data: float, length: tuple[int, ...], searches: int) -> Schedule:
        """The schedule of searches over members with this many bytes and rows."""
        k = self.problem.chart.k
        p = self.problem.layout.p
        record = 8.0 * (3 * k * k + 3 * p * p + p * k + 20)
        sizes = Sizes(searches, searches, data, data + 8 * sum(length) * (p + 6), record)
        free = min(free_bytes(), 2 * CHUNK_DATA_BYTES)
        return cut(sizes, 1, free, None, jax.devices()[0].platform != "cpu")


def _to_free(chart: Chart, x: ndarray) -> Tree:
    return chart.to_free(x)


@dataclass
class _Blocks:
    """Searches on the device. Unfinished searches are moved together, so that a block without any
    costs nothing.
    """

    programs: Programs
    flat: Flat
    place: ndarray  # (m,) which of the loaded members each search belongs to
    schedule: Schedule
    problem: Problem
    loaded: dict[str, Tree] = field(default_factory=dict)

    def __call__(self, index: ndarray, z: ndarray) -> Values:
        loaded = self.loaded.get("index")
        if (
            loaded is None
            or index.size < SHARE_TO_RELOAD * loaded.size
            or not np.isin(index, loaded).all()
        ):
            self._load(index)
        slots = self.loaded["slot"][index]
        active = np.zeros(self.schedule.slots, bool)
        active[slots] = True
        points = np.broadcast_to(z[0], (self.schedule.slots, z.shape[1])).copy()
        points[slots] = z
        evaluated = self.loaded["chunk"].evaluate(points.T, active)

        def read(leaf: Tree) -> ndarray:
            return np.moveaxis(np.asarray(leaf)[..., slots], -1, 0)

        return (
            read(evaluated.value),
            4 * EPS * read(evaluated.absolute),
            read(evaluated.score),
            read(evaluated.hessian),
        )

    def _load(self, index: ndarray) -> None:
        schedule = self.schedule
        slot = np.zeros(len(self.place), int)
        slot[index] = np.arange(index.size)
        shape = (-(-index.size // schedule.block_size), schedule.block_size)
        shared = self.flat.form.shared
        members = np.pad(self.place[index], (0, shape[0] * shape[1] - index.size), mode="edge")
        apart = [
            np.asarray(leaf)[members].reshape(*shape, *np.shape(leaf)[1:])
            for leaf, same in zip(self.flat.leaves, shared, strict=True)
            if not same
        ]
        common = [
            jnp.asarray(leaf) for leaf, same in zip(self.flat.leaves, shared, strict=True) if same
        ]
        active = np.zeros(schedule.slots, bool)
        laid = self.programs.laid_out(self.flat.form, apart, common, schedule)
        empty = np.zeros((0, 2), np.uint32)
        self.loaded.update(
            index=index,
            slot=slot,
            chunk=Chunk(
                self.programs, self.flat.form, [laid], common, np.zeros((0, 0)), empty, active
            ),
        )


# ---------------------------------------------------------------- posing


def profile_problem_of(
    loglik: Loglik, fit: Fit, data: Tree, weights: Weights | None, in_axes: Axes
) -> ProfileProblem:
    """The fit with its likelihood and data, checked as far as shapes and types allow. Call it with
    float64 on.
    """
    check_fit("a profile", fit)
    check_weighting("a profile", loglik, fit, weights)
    check_axes(fit, in_axes)
    x = np.asarray(fit.x, dtype=np.float64).reshape(-1, len(fit.names))
    status = np.asarray(fit.status).reshape(-1)
    top = np.asarray(fit.loglik, dtype=np.float64).reshape(-1)
    posed = (
        _batch(loglik, fit, data, weights, in_axes)
        if fit.batch_shape
        else _single(loglik, fit, data, weights)
    )
    if posed.problem.weighting == "sampling":
        raise ValueError(
            "with sampling weights twice the difference in log-likelihood is not "
            "chi-square, so there is no profile interval. Use conf_int, which is robust."
        )
    if posed.problem.mode != fit.mode:
        raise ValueError(
            f"the fit is {fit.mode} and this log-likelihood {posed.problem.mode}: give the "
            "log-likelihood that was fitted, with its penalty"
        )
    if posed.problem.chart.k != fit.df:
        raise ValueError(
            f"the fit has {fit.df} free parameters, but this log-likelihood has "
            f"{posed.problem.chart.k}: give the log-likelihood that was fitted, with its "
            "fix and tie"
        )
    return replace(posed, x=x, status=status, top=top)


def _single(loglik: Loglik, fit: Fit, data: Tree, weights: Weights | None) -> ProfileProblem:
    tree = again(loglik, fit, data, weights=weights, what="a profile").weighted
    data = host_data(data, np.float64)
    problem = problem_of(tree, chart_of(tree, fit.layout), Options(max_steps=0))
    base = _base(fit, tree)
    # This raises if the data do not have the likelihood's shape.
    term_shape(tree, fit.layout, base, data)
    none = np.zeros(0)
    return ProfileProblem(problem, fit, base, none, none, none, data=data)


def _batch(
    loglik: Loglik, fit: Fit, data: Tree, weights: Weights | None, in_axes: Axes
) -> ProfileProblem:
    base = _base(fit, as_tree(loglik))
    inputs = batch_again(loglik, fit, data, base, weights, in_axes)
    chart = chart_of(inputs.loglik, fit.layout)
    problem = problem_of(inputs.loglik, chart, Options(max_steps=0))
    none = np.zeros(0)
    return ProfileProblem(problem, fit, base, none, none, none, inputs=inputs)


def _base(fit: Fit, tree: Loglik) -> ndarray:
    """Values (p,) of an estimate within the bounds, with fixed values substituted: the value of
    every entry that is not free.
    """
    x = np.asarray(fit.x, dtype=np.float64).reshape(-1, len(fit.names))
    good = np.flatnonzero(
        np.isfinite(x).all(1) & (np.asarray(fit.status).reshape(-1) == int(Status.CONVERGED))
    )
    inside = np.array([point_between(low, high) for low, high in fit.bounds])
    row = x[good[0]] if good.size else x[0]
    strictly = np.array(
        [low < value < high for value, (low, high) in zip(row, fit.bounds, strict=True)]
    )
    return np.asarray(
        substituted(
            tree, fit.layout, jnp.asarray(np.where(np.isfinite(row) & strictly, row, inside))
        )
    )
