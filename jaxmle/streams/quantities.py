"""The passes of a fit whose rows are summed in pieces: what ``fitting.passes`` computes from rows
in memory, as sums over the chunks of a source or the shards of devices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Data, Function, Loglik, Params, Tree, ndarray
from jaxmle.fitting.objective import point_of, slope_of
from jaxmle.fitting.passes import (
    DEVIATIONS_OF_COLLAPSED_TERM,
    MIN_CHANGE_OF_COLLAPSED_TERM,
    SMALL_STEP,
    Passes,
    Problem,
)
from jaxmle.likelihood.combinators import Fix, Penalize, Tie, Weight
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.evaluate import Accumulated, sums
from jaxmle.likelihood.information.covariance import (
    CLUSTER_KINDS,
    LEVERAGED,
    Covariance,
    cluster_factor,
    inverse_on,
)
from jaxmle.likelihood.structure import has, parts_of
from jaxmle.likelihood.terms import Expected
from jaxmle.parameters.tree import Chart
from jaxmle.runtime.compile import compiled, to_numpy
from jaxmle.runtime.opaque import Opaque
from jaxmle.solvers.bfgs import Slope
from jaxmle.solvers.state import Point
from jaxmle.streams.kernels import BY_CLUSTER


class Runner(Protocol):
    """What runs a pass over all rows."""

    def run(self, name: str, *args: Tree) -> Tree:
        """The result of one of the ``CHUNK_KERNELS`` over all rows."""
        ...

    def row(self, place: Tree) -> int:
        """The index of a row among all, from the result of a search; −1 for None."""
        ...

    @property
    def n(self) -> float:
        """The number of observations, after the first pass."""
        ...

    @property
    def data_id(self) -> ndarray:
        """The fingerprint (2,) of the rows, after the first pass."""
        ...


# ---------------------------------------------------------------- rows and priors apart


def without_prior(loglik: Tree) -> Tree:
    """The likelihood of the rows alone: without a prior or weights, which are a column."""
    if not parts_of(loglik):
        return loglik
    inner = without_prior(loglik.loglik)
    return inner if isinstance(loglik, Weight | Penalize) else replace(loglik, loglik=inner)


def prior_alone(loglik: Loglik) -> Tree:
    """The likelihood without its rows; None where nothing is left."""
    return _rowless(loglik) if has(loglik, Penalize) else None


def _rowless(loglik: Tree) -> Tree:
    if not parts_of(loglik):

        def no_terms(params: Params, data: Data) -> Array:
            return jnp.zeros(1)

        return Opaque(no_terms)
    inner = _rowless(loglik.loglik)
    return replace(loglik, loglik=inner) if isinstance(loglik, Fix | Tie | Penalize) else inner


# ---------------------------------------------------------------- the chain rule


@partial(jax.jit, static_argnums=0)
def _user(chart: Chart, base: Array, z: Array) -> Array:
    return chart.to_user(z, base)


@partial(jax.jit, static_argnums=0)
def _point(chart: Chart, base: Array, z: Array, total: Accumulated) -> Point:
    return point_of(chart, base, z, total)


@partial(jax.jit, static_argnums=0)
def _slope(chart: Chart, base: Array, z: Array, total: Tree) -> Slope:
    return slope_of(chart, base, z, total)


@dataclass(frozen=True)
class Quantities:
    """The quantities of ``fitting.passes`` in pieces, under the names they have there."""

    problem: Problem
    base: Array  # (p,) values of the entries that do not move
    sample: Data  # rows spread over the whole source, in memory
    prior: Loglik  # the likelihood without its rows, or None
    runner: Runner

    def passes(self) -> Passes:
        """The passes of a fit, each over every row."""
        by_name: dict[str, Function] = {
            "evaluate": self.evaluate,
            "slopes": self.slopes,
            "expected": self.expected,
            "robust": self.robust,
            "first_bad": self.first_bad,
            "sharpest": self.sharpest,
            "first_rough": self.first_rough,
        }

        def program_of(name: str) -> Function:
            return lambda base, data, codes, *args: by_name[name](*args)

        return Passes(self.problem, self.base, self.sample, self.sample, (), program_of)

    def user(self, z: Array) -> ndarray:
        """The printed entries x (p,) at z (k,)."""
        return np.array(_user(self.problem.chart, self.base, z))

    def evaluate(self, z: Array) -> Point:
        x = self.user(z)
        total = self.runner.run("evaluate", x)
        prior = self._prior_at(x)
        if prior is not None:
            total = total._replace(
                value=total.value + prior.value,
                absolute=total.absolute + np.abs(prior.value),
                score=total.score + prior.score,
                hessian=total.hessian + prior.hessian,
            )
        return jax.tree.map(np.array, _point(self.problem.chart, self.base, z, total))

    def _prior_at(self, x: Array) -> Accumulated | None:
        """The log prior and its derivatives in x (p,); None where there is none."""
        if self.prior is None:
            return None
        layout = self.problem.layout

        def make(loglik: Loglik) -> Function:
            return lambda x: sums(loglik, layout, x, np.zeros(1))

        return to_numpy(compiled(self.prior, ("prior of a stream", layout), make)(x))

    def slopes(self, z: Array) -> Slope:
        total = self.runner.run("slopes", self.user(z))
        return jax.tree.map(np.array, _slope(self.problem.chart, self.base, z, total))

    def expected(self, x: Array) -> Expected:
        information = self.runner.run("expected", x)
        prior = self._prior_at(x)
        if prior is not None:
            information = information - prior.hessian
        return Expected(information, np.zeros((0, *information.shape)))

    # ------------------------------------------------------------ robust covariances

    def robust(self, x: Array, jacobian: Array, root: Array) -> Covariance:
        lift = jacobian @ root
        k = int(np.count_nonzero(np.any(root != 0, axis=0)))
        if self.problem.kind in CLUSTER_KINDS:
            return self._clustered(x, lift, k)
        meat = self.runner.run("meat", x, lift)
        row = -1
        if self.problem.kind in LEVERAGED and meat.broken > 0:
            row = self.runner.row(self.runner.run("levers", x, lift).bad)
        if self.problem.kind == "opg":
            inverse = np.asarray(inverse_on(jnp.asarray(root), jnp.asarray(meat.opg)))
            return Covariance(lift @ inverse @ lift.T, np.asarray(row))
        factor = meat.n / (meat.n - k) if self.problem.kind == "HC1" else 1.0
        return Covariance(factor * (lift @ meat.opg @ lift.T), np.asarray(row))

    def _clustered(self, x: Array, lift: Array, k: int) -> Covariance:
        """Σ_g S_g S_g', each dimension with its own factor; two-way clustering adds the dimensions
        and subtracts their intersection.
        """
        kind = str(self.problem.kind)
        n = self.runner.n
        dimensions = self.runner.run(BY_CLUSTER, x, lift)
        total = np.zeros((lift.shape[0], lift.shape[0]))
        for sign, clusters in zip((1, 1, -1), dimensions, strict=False):
            groups = np.count_nonzero(clusters.counted)
            factor = cluster_factor(kind, *map(np.asarray, (float(groups), n, float(k))))
            total += sign * factor * (lift @ (clusters.scores.T @ clusters.scores) @ lift.T)
        bad = np.diagonal(total) < 0  # two-way sums need not be positive
        vcov = np.where(bad[:, None] | bad[None, :], np.nan, total)
        return Covariance(vcov, np.asarray(-1))

    # ------------------------------------------------------------ the row to blame

    def first_bad(self, x: Array) -> ndarray:
        """As in memory, except that the middle and spread of the terms are those of the sample."""
        result = self.runner.run("terms", x)
        if result.bad is not None:
            return np.asarray(self.runner.row(result.bad))
        terms = self._terms_of_sample(x)
        middle = np.median(terms)
        spread = max(np.median(np.abs(terms - middle)), 1.0)
        alone = result.level > middle + DEVIATIONS_OF_COLLAPSED_TERM * spread
        return np.asarray(self.runner.row(result.top) if alone else -1)

    def sharpest(self, x: Array) -> ndarray:
        """As in memory, except that the change of the other terms is that of the sample."""
        result = self.runner.run("changes", x)
        step = SMALL_STEP * (1.0 + np.abs(x))
        change = np.abs(self._terms_of_sample(x + step) - self._terms_of_sample(x))
        others = max(np.median(np.where(np.isfinite(change), change, np.inf)), SMALL_STEP)
        alone = result.level > MIN_CHANGE_OF_COLLAPSED_TERM * others
        return np.asarray(self.runner.row(result.top) if alone else -1)

    def first_rough(self, x: Array) -> ndarray:
        return np.asarray(self.runner.row(self.runner.run("rough", x).bad))

    def _terms_of_sample(self, x: Array) -> ndarray:
        layout = self.problem.layout

        def make(loglik: Loglik) -> Function:
            return lambda x, data: terms_of(loglik, layout.unravel(x), data)

        loglik = without_prior(self.problem.loglik)
        program = compiled(loglik, ("terms of a sample", layout), make)
        return np.asarray(program(x, self.sample))
