"""The jackknife, by delete-one fits, and the infinitesimal jackknife, by one pass of scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxmle._types import Clusters, Loglik, Tree, ndarray
from jaxmle.fitting.options import MAX_STEPS, Options
from jaxmle.inference.again import check_fit, tangent
from jaxmle.inference.refit import Refit, failures, gathered, refit_of
from jaxmle.inference.resampling.intervals import skewness_of, stderr_of
from jaxmle.inference.statuses import REGULAR_STATUSES
from jaxmle.inference.target import Target, target_of
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.contract import as_tree, rows_of
from jaxmle.likelihood.information.calculus import scores
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.likelihood.structure import roots_of
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.progress import Progress
from jaxmle.solvers.methods import Solver
from jaxmle.tables.plain import listing, number

RESAMPLE_DEPENDENT_ROWS = (
    "Give clusters= that keep dependent rows together, or bootstrap with kind='block' or "
    "kind='parametric'"
)


@dataclass(frozen=True, eq=False, repr=False)
class Jackknife:
    """Delete-one estimates, with the bias and standard errors computed from them.

    ``estimate`` (q,); ``deleted`` (units, q), the estimate without each unit; ``times`` (units,),
    the number of units that each row of ``deleted`` stands for (a row with frequency weight w is w
    units); ``status`` (units,) of the refits; ``clustered`` whether units are clusters.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.resampling.jackknife import jackknife
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> found = jackknife(exponential, result, y, statistic=lambda params: 1 / params["rate"])
    >>> round(float(found.se[0]), 6)  # √(14/3)/√4
    1.080123
    >>> found.influence[:, 0].round(6).tolist()  # y minus its mean
    [-2.0, 0.0, -1.0, 3.0]
    """

    estimate: ndarray
    deleted: ndarray = field(repr=False)
    times: ndarray = field(repr=False)
    status: ndarray = field(repr=False)
    clustered: bool
    names: tuple[str, ...]
    outcome: Layout = field(repr=False)

    @property
    def units(self) -> float:
        """The number N of units."""
        return float(self.times.sum())

    @property
    def failed(self) -> dict[str, int]:
        """The number of refits with each status other than CONVERGED."""
        return failures(self.status)

    @cached_property
    def influence(self) -> ndarray:
        """Jackknife influence values (units, q): u_i = (N − 1)(θ̄ − θ̂₍ᵢ₎), θ̄ the mean of the
        delete-one estimates.
        """
        with np.errstate(invalid="ignore"):
            return (self.units - 1) * (self._mean() - self.deleted)

    def _mean(self) -> ndarray:
        return self.times @ self.deleted / self.units

    @property
    def flat_bias(self) -> ndarray:
        """(N − 1)(θ̄ − θ̂), (q,)."""
        with np.errstate(invalid="ignore"):
            return (self.units - 1) * (self._mean() - self.estimate)

    @property
    def se(self) -> ndarray:
        """Standard errors, (q,): inf if a delete-one estimate is infinite, NaN if one is undefined
        or all are equal.
        """
        with np.errstate(invalid="ignore"):
            variance = (
                self.times @ (self.deleted - self._mean()) ** 2 * (self.units - 1) / self.units
            )
        return stderr_of(np.sqrt(variance), self.deleted)

    @property
    def bias(self) -> Tree:
        """The jackknife estimate of bias, in the tree of the estimate."""
        return self.outcome.unravel_entries(self.flat_bias)

    @property
    def stderr(self) -> Tree:
        """√((N − 1)/N Σ(θ̂₍ᵢ₎ − θ̄)²), in the tree of the estimate."""
        return self.outcome.unravel_entries(self.se)

    @property
    def acceleration(self) -> ndarray:
        """The acceleration a of a BCa interval, (q,): Σu³/6(Σu²)^1.5."""
        return skewness_of(self.influence, self.times)

    def __repr__(self) -> str:
        failed = "".join(f"; {count} {status}" for status, count in self.failed.items())
        table = _table(
            self.names, {"estimate": self.estimate, "bias": self.flat_bias, "std. error": self.se}
        )
        return f"Jackknife of {self.units:,.0f} {_units(self.clustered)}{failed}\n\n{table}"


@dataclass(frozen=True, eq=False, repr=False)
class InfinitesimalJackknife:
    """One-step influence values, with the standard errors computed from them.

    ``estimate`` (q,); ``influence`` (units, q): u_i = J⁻¹s_i, the effect of a little more weight on
    unit i on the estimate; ``times`` (units,) the factor of u_iu_i' in the variance (w for
    frequency weights; 1 if u already includes w); ``clustered`` whether units are clusters.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.resampling.jackknife import infinitesimal_jackknife
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, data: -0.5 * (data - params["mean"]) ** 2
    >>> result = jm.fit(normal, {"mean": 0.0}, y)
    >>> found = infinitesimal_jackknife(normal, result, y)
    >>> found.influence[:, 0].round(6).tolist()  # (y − mean)/n
    [-0.5, 0.0, -0.25, 0.75]
    >>> round(float(found.se[0]), 6)  # √14/4, as HC0
    0.935414
    """

    estimate: ndarray
    influence: ndarray = field(repr=False)
    times: ndarray = field(repr=False)
    clustered: bool
    names: tuple[str, ...]
    outcome: Layout = field(repr=False)

    @property
    def vcov(self) -> ndarray:
        """Σ u_iu_i', (q, q): HC0, or CR0 for clusters."""
        return self.influence.T @ (self.times[:, None] * self.influence)

    @property
    def se(self) -> ndarray:
        """Standard errors, (q,)."""
        return stderr_of(np.sqrt(np.diagonal(self.vcov)), self.influence)

    @property
    def stderr(self) -> Tree:
        """√Σu², in the tree of the estimate."""
        return self.outcome.unravel_entries(self.se)

    @property
    def acceleration(self) -> ndarray:
        """The acceleration a of a BCa interval, (q,): Σu³/6(Σu²)^1.5."""
        return skewness_of(self.influence, self.times)

    def __repr__(self) -> str:
        table = _table(self.names, {"estimate": self.estimate, "std. error": self.se})
        return (
            f"Infinitesimal jackknife of {len(self.influence):,} "
            f"{_units(self.clustered)}\n\n{table}"
        )


def _units(clustered: bool) -> str:
    return "clusters" if clustered else "units"


def _table(names: tuple[str, ...], columns: dict[str, ndarray]) -> str:
    """A table with a row for each name and a column for each heading."""
    rows = [
        [name, *(number(float(value)) for value in values)]
        for name, *values in zip(names, *columns.values(), strict=True)
    ]
    return listing(["", *columns], rows)


@with_keyword_hints
def jackknife(
    loglik: Loglik,
    fit: Fit,
    data: Tree = None,
    *,
    clusters: Clusters = None,
    statistic: Callable[[Tree], Tree] | None = None,
    weights: Weights | None = None,
    constraints: Tree = None,
    params0: Tree = None,
    solver: Solver | None = None,
    max_steps: int = MAX_STEPS,
    progress: bool | None = None,
) -> Jackknife:
    """Standard errors and bias from the estimates without each unit in turn, refitted in batches.

    SE² = (N − 1)/N Σ(θ̂₍ᵢ₎ − θ̄)², bias = (N − 1)(θ̄ − θ̂). A row with frequency weight w is w
    units: one of them is deleted, and counts w times.

    Args:
        loglik, data, weights: those of the fit.
        fit: the result of ``jaxmle.fit``.
        clusters: labels (n,); whole clusters are then deleted.
        statistic: a function of the parameters to study instead of the parameters; its value is a
            number, an array or a tree of arrays.
        constraints: those of the fit; may be left out.
        params0: start of the refits if the estimate cannot be one.
        solver, max_steps, progress: as in ``fit_batch``.

    Returns:
        A ``Jackknife``. A refit without a maximum gives NaN, and a standard error of NaN; an
        infinite estimate gives inf.

    Raises:
        ValueError, TypeError: for a likelihood without terms, or data, weights or constraints that
            are not those of the fit.

    Quenouille (1956), Biometrika 43, 353; Tukey (1958), Annals of Mathematical Statistics 29, 614.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.resampling.jackknife import jackknife
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> mean = jackknife(exponential, result, y, statistic=lambda params: 1 / params["rate"])
    >>> bool(np.isclose(mean.stderr, y.std(ddof=1) / 2)), bool(abs(mean.bias) < 1e-9)
    (True, True)
    """
    options = Options(
        constraints=constraints,
        solver=solver,
        weights=weights,
        max_steps=max_steps,
        progress=progress,
    )
    refit = refit_of("jackknife", loglik, fit, data, params0, options)
    refit.check_rows("the jackknife", clusters, RESAMPLE_DEPENDENT_ROWS)
    target = target_of(fit, statistic)
    units = units_of(loglik, refit, clusters)
    total = len(units.times)
    what = "clusters" if units.clustered else "rows"
    bar = Progress(total, progress, f"{total:,} {what}, each deleted once", "jackknife")

    def without_units(index: ndarray) -> Fit:
        return refit(refit.data, None, Weights(units.without(index), units.weighting), None)

    deleted, _, status = gathered(without_units, 8.0 * len(units.weight), target, total, bar)
    return jackknife_record(fit, target, units, deleted, status)


def jackknife_record(
    fit: Fit, target: Target, units: Units, deleted: ndarray, status: ndarray
) -> Jackknife:
    """The record of delete-one estimates (units, q) with the status of each refit (units,)."""
    return Jackknife(
        target.values(fit.x[None])[0],
        deleted,
        units.times,
        status,
        units.clustered,
        target.names,
        target.outcome,
    )


class Units(NamedTuple):
    """The units that a jackknife deletes."""

    weight: ndarray  # (n,) of each row
    code: ndarray  # (n,) the unit of each row, −1 for a row of weight 0
    times: ndarray  # (units,) how many units each row stands for
    weighting: str
    clustered: bool

    def without(self, index: ndarray) -> ndarray:
        """Weights (b, n) without the units ``index``: one copy of a row with a frequency weight, or
        any other row or cluster as a whole.

        Numbers beyond the last unit mean the last unit.
        """
        deleted_rows = self.code[None, :] == np.minimum(index, len(self.times) - 1)[:, None]
        return np.where(
            deleted_rows,
            0.0 if self.clustered or self.weighting == "sampling" else self.weight - 1,
            self.weight,
        )


def units_of(loglik: Loglik, refit: Refit, clusters: Clusters) -> Units:
    """The rows of positive weight, or the clusters that have one."""
    n = rows_of(as_tree(loglik), refit.data)
    if n is None:
        raise ValueError("the jackknife deletes rows, but there are no data")
    kind = "none" if refit.options.weights is None else refit.options.weights.kind
    w = (
        np.ones(n)
        if refit.options.weights is None
        else np.asarray(refit.options.weights.values, dtype=float)
    )
    code = np.full(n, -1)
    if clusters is None:
        code[w > 0] = np.arange(np.sum(w > 0))
        times = w[w > 0] if kind == "frequency" else np.ones(int(np.sum(w > 0)))
    else:
        labels, *others = cluster_codes(clusters, n)
        if others:
            raise ValueError("a jackknife of clusters needs one label for each row")
        code[w > 0] = np.unique(np.asarray(labels)[w > 0], return_inverse=True)[1]
        times = np.ones(int(code.max()) + 1)
    if times.sum() < 2:
        raise ValueError("a jackknife needs at least two units")
    return Units(
        w, code, times, "sampling" if kind == "sampling" else "frequency", clusters is not None
    )


@with_keyword_hints
def infinitesimal_jackknife(
    loglik: Loglik,
    fit: Fit,
    data: Tree = None,
    *,
    clusters: Clusters = None,
    statistic: Callable[[Tree], Tree] | None = None,
    weights: Weights | None = None,
    constraints: Tree = None,
) -> InfinitesimalJackknife:
    """The limit of the jackknife as the deleted weight goes to zero: influence values u_i = J⁻¹s_i,
    from one pass of scores.

    Its variance Σu_iu_i' is HC0 (CR0 with clusters). Arguments as in ``jackknife``. If the fit is
    not a regular maximum (CONVERGED or IMPRECISE), the influence values are NaN.

    Returns:
        An ``InfinitesimalJackknife`` with influence values (units, q).

    Raises:
        ValueError, TypeError: as ``jackknife`` does.

    Jaeckel (1972), Bell Laboratories Memorandum 72-1215; Efron (1982), *The Jackknife, the
    Bootstrap and Other Resampling Plans*, section 6.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.resampling.jackknife import infinitesimal_jackknife
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(
    ...     exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive}, vcov="HC0"
    ... )
    >>> bool(
    ...     np.isclose(
    ...         infinitesimal_jackknife(exponential, result, y).stderr["rate"],
    ...         result.stderr["rate"],
    ...     )
    ... )
    True
    """
    check_fit("infinitesimal_jackknife", fit, alone=True)
    options = Options(constraints=constraints, weights=weights)
    refit = refit_of("infinitesimal_jackknife", loglik, fit, data, fit.params, options)
    refit.check_rows("the infinitesimal jackknife", clusters, RESAMPLE_DEPENDENT_ROWS)
    target = target_of(fit, statistic)
    units = units_of(loglik, refit, clusters)

    def record(rows: Tree) -> InfinitesimalJackknife:
        return InfinitesimalJackknife(
            target.values(fit.x[None])[0],
            rows,
            units.times,
            units.clustered,
            target.names,
            target.outcome,
        )

    if fit.verdict not in REGULAR_STATUSES:
        return record(np.full((len(units.times), len(target.names)), np.nan))
    rows = target.through(
        np.asarray(scores(loglik)(fit.params, refit.data)) @ inverse_information(loglik, fit), fit
    )
    in_unit = units.code >= 0
    if not units.clustered:
        return record(
            (rows if units.weighting == "frequency" else units.weight[:, None] * rows)[in_unit]
        )
    summed = np.zeros((len(units.times), rows.shape[1]))
    np.add.at(summed, units.code[in_unit], (units.weight[:, None] * rows)[in_unit])
    return record(summed)


def inverse_information(loglik: Loglik, fit: Fit) -> ndarray:
    """J⁻¹ (p, p) of the printed entries at a maximum, whatever covariance the fit has; 0 for a
    fixed entry, NaN if J is not positive definite.

    With L the directions that constraints, ``fix`` and ``tie`` leave free, J⁻¹ = L(L'JL)⁻¹L'.
    """
    tree = as_tree(loglik)
    lift = tangent(tree, fit.layout).lift
    roots = roots_of(tree, fit.layout)
    root = inverse_root_of(-lift.T @ fit.hessian @ lift)
    full = (lift @ root @ root.T @ lift.T)[np.maximum(roots, 0)][:, np.maximum(roots, 0)]
    held = roots < 0
    return np.where(held[:, None] | held[None, :], 0.0, full)


def inverse_root_of(information: ndarray) -> ndarray:
    """U (k, k) with UU' the inverse of a matrix, in NumPy; NaN if its smallest eigenvalue, at unit
    diagonal, is not above rounding.
    """
    with np.errstate(all="ignore"):
        scale = np.sqrt(np.diagonal(information))
        unit = 0.5 * (information + information.T) / np.outer(scale, scale)
    if (
        not np.all(np.isfinite(unit))
        or np.linalg.eigvalsh(unit)[0] <= len(unit) * np.finfo(unit.dtype).eps
    ):
        return np.full_like(information, np.nan)
    return np.linalg.inv(np.linalg.cholesky(unit)).T / scale[:, None]
