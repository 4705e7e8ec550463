"""The bootstrap: many refits of one fit on resampled weights or on simulated data, in batches."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from jaxmle._types import Array, Clusters, Function, Key, Loglik, Tree, ndarray
from jaxmle.fitting.options import MAX_STEPS, Options
from jaxmle.inference.refit import Refit, gathered, refit_of
from jaxmle.inference.resampling.bootstrap_record import Bootstrap
from jaxmle.inference.resampling.jackknife import (
    Units,
    infinitesimal_jackknife,
    inverse_information,
    jackknife_record,
    units_of,
)
from jaxmle.inference.resampling.simulator import Sample, simulator_of
from jaxmle.inference.resampling.weights import Plan, check_scheme, plan_of
from jaxmle.inference.target import Target, target_of
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.information.calculus import scores
from jaxmle.likelihood.information.covariance import CLUSTER_KINDS, VCOV_KINDS
from jaxmle.likelihood.structure import roots_of
from jaxmle.parameters.arguments import check_choice, check_count
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.runtime.keys import typed_key
from jaxmle.runtime.progress import Progress
from jaxmle.solvers.methods import Solver
from jaxmle.solvers.status import Status

RESAMPLING_KINDS = ("pairs", "bayesian", "cluster", "block", "parametric")
OTHER_KINDS = (
    "Resample blocks of neighbouring rows (kind='block') or whole clusters (kind='cluster'), or "
    "simulate (kind='parametric')"
)


@with_keyword_hints
def bootstrap(
    loglik: Loglik,
    fit: Fit,
    data: Tree = None,
    *,
    key: Key,
    replicates: int = 1999,
    kind: str = "pairs",
    clusters: Clusters = None,
    block_length: int | None = None,
    sample: Sample | None = None,
    statistic: Callable[[Tree], Tree] | None = None,
    vcov: str | None = None,
    acceleration: str | None = "auto",
    weights: Weights | None = None,
    constraints: Tree = None,
    params0: Tree = None,
    solver: Solver | None = None,
    max_steps: int = MAX_STEPS,
    progress: bool | None = None,
) -> Bootstrap:
    """Refit on resampled data, all replicates in one batch. Data are never copied: a replicate is a
    row of weights.

    Args:
        loglik, data, weights: those of the fit.
        fit: the result of ``jaxmle.fit``; every refit starts from its estimate, or one step closer
            to its own.
        key: an integer or a jax key. Replicate i depends only on the key and on i.
        replicates: R. For a 95 % interval use about R = 1999: (R + 1)·0.025 is then an integer.
        kind: ``"pairs"`` rows with replacement; ``"bayesian"`` exponential weights; ``"cluster"``
            whole clusters with replacement; ``"block"`` moving blocks of neighbouring rows;
            ``"parametric"`` data simulated from the fit.
        clusters: labels (n,) for ``kind="cluster"``.
        block_length: rows of a block for ``kind="block"``; of the order of n^(1/3) for a mean.
        sample: ``sample(key, params, data)``, which returns data with a new response, for
            ``kind="parametric"``; built-in models have one.
        statistic: a function of the parameters to study instead of the parameters; its value is a
            number, an array or a tree of arrays.
        vcov: kind of standard error of each replicate, for studentized intervals; it must be the
            kind of the fit. None for none.
        acceleration: ``"jackknife"`` by delete-one fits, ``"influence"`` by one pass of scores,
            None for none; ``"auto"`` uses the first if there are at most as many units as
            replicates, otherwise the second. Only for ``"pairs"`` and ``"cluster"``.
        constraints: those of the fit; may be left out.
        params0: start of the refits if the estimate cannot be one because it is infinite or on its
            bound.
        solver, max_steps, progress: as in ``fit_batch``.

    Returns:
        A ``Bootstrap``. Replicates that fail are counted by status and never replaced. An entry
        with an infinite replicate has no finite standard error.

    Raises:
        ValueError, TypeError: for mistakes visible in shapes and types; for data, weights or
            constraints that are not those of the fit; for a likelihood of one scalar with a kind
            other than ``"parametric"``; if rows, or clusters, depend on each other and so cannot be
            drawn one by one.

    Efron (1979), Annals of Statistics 7, 1; Davison & Hinkley (1997), *Bootstrap Methods and their
    Application*.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.resampling.bootstrap import bootstrap
    >>> y = np.array([1.0, 3.0, 2.0, 6.0, 0.5, 4.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> replicates = bootstrap(
    ...     exponential,
    ...     result,
    ...     y,
    ...     key=0,
    ...     replicates=999,
    ...     statistic=lambda params: 1 / params["rate"],
    ... )
    >>> bool(abs(replicates.stderr / (y.std() / np.sqrt(6)) - 1) < 0.1), replicates.failed
    (True, {})
    """
    check_choice("kind", kind, RESAMPLING_KINDS)
    total = check_count("replicates", replicates, 2)
    key = typed_key(key)
    options = Options(
        constraints=constraints,
        solver=solver,
        weights=weights,
        max_steps=max_steps,
        progress=progress,
    )
    refit = refit_of("bootstrap", loglik, fit, data, params0, options)
    target = target_of(fit, statistic)
    _check_vcov(vcov, fit, kind)
    _check_scheme(kind, clusters, block_length, sample, acceleration)
    plan = _plan(kind, loglik, refit, clusters, block_length)
    units = None
    if kind in ("pairs", "cluster") and acceleration is not None:
        units = units_of(loglik, refit, clusters)
    method = None if units is None else _acceleration_method(acceleration, units, total)
    deleted = units if method == "jackknife" else None
    refits, bytes_each = (
        _simulated(loglik, refit, fit, key, sample, vcov)
        if plan is None
        else _resampled(plan, refit, _influence(loglik, fit, refit), key, total, vcov, deleted)
    )
    members = total + (0 if deleted is None else len(deleted.times))
    bar = Progress(members, progress, f"{kind} bootstrap", "bootstrap")
    values, errors, status = gathered(refits, bytes_each, target, members, bar, vcov is not None)
    undefined = np.full(len(target.names), np.nan)
    if deleted is not None:
        left_out = jackknife_record(fit, target, deleted, values[total:], status[total:])
        a = left_out.acceleration
    elif method == "influence":
        a = _influence_acceleration(loglik, fit, refit, clusters, statistic)
    else:
        a = undefined
    return Bootstrap(
        target.values(fit.x[None])[0],
        values[:total],
        status[:total],
        kind,
        a,
        method,
        _stderr_of_fit(target, fit) if vcov else undefined,
        None if errors is None else errors[:total],
        target.names,
        target.outcome,
    )


def _plan(
    kind: str, loglik: Loglik, refit: Refit, clusters: Clusters, block_length: int | None
) -> Plan | None:
    """The weights that resampling draws; None if data are simulated instead."""
    if kind == "parametric":
        return None
    plan = plan_of(kind, loglik, refit.data, refit.options.weights, clusters, block_length)
    if kind != "block":
        refit.check_rows(f"kind={kind!r}", clusters, OTHER_KINDS)
    return plan


def _stderr_of_fit(target: Target, fit: Fit) -> ndarray:
    """The standard errors of the statistic in the fit itself, (q,)."""
    return target.stderr(jax.tree.map(lambda leaf: np.asarray(leaf)[None], fit))[0]


def _check_scheme(
    kind: str,
    clusters: Clusters,
    block_length: int | None,
    sample: Function | None,
    acceleration: str | None,
) -> None:
    """Raise for options that do not match the kind of resampling."""
    if acceleration is not None:
        check_choice("acceleration", acceleration, ("auto", "jackknife", "influence"))
    if sample is not None and kind != "parametric":
        raise ValueError(
            f"sample is given but kind={kind!r} does not use it; write kind='parametric'"
        )
    check_scheme(kind, clusters, block_length)


def _influence_acceleration(
    loglik: Loglik, fit: Fit, refit: Refit, clusters: Clusters, statistic: Function | None
) -> ndarray:
    """The acceleration (q,) of a BCa interval by one pass of scores."""
    return infinitesimal_jackknife(
        loglik,
        fit,
        refit.data,
        clusters=clusters,
        statistic=statistic,
        weights=refit.options.weights,
        constraints=refit.options.constraints,
    ).acceleration


def _acceleration_method(acceleration: str | None, units: Units, total: int) -> str:
    """The acceleration that ``"auto"`` uses: delete-one fits if there are at most as many as
    replicates, with which they share a batch.
    """
    if acceleration != "auto":
        return str(acceleration)
    return "jackknife" if len(units.times) <= total else "influence"


def _check_vcov(vcov: str | None, fit: Fit, kind: str) -> None:
    if vcov is None:
        return
    check_choice("vcov", vcov, VCOV_KINDS)
    if kind not in ("pairs", "parametric"):
        raise ValueError(
            f"studentized intervals need pairs or parametric replicates; a {kind!r} "
            "replicate has no standard error: leave vcov out"
        )
    if vcov in CLUSTER_KINDS:
        raise ValueError(
            f"vcov={vcov!r} needs clusters, which kind='pairs' would split: use kind='cluster'"
        )
    if fit.vcov_kind.split(" ")[0] != vcov:
        raise ValueError(
            f"the standard errors of the fit are {fit.vcov_kind}, but those of the "
            f"replicates would be {vcov}: fit(…, vcov={vcov!r}) first, or give "
            f"vcov={fit.vcov_kind.split(' ')[0]!r}"
        )


# From the numbers of members to their refits, and the bytes that a member takes.
Refits = tuple[Callable[[ndarray], Fit], float]


def _influence(loglik: Loglik, fit: Fit, refit: Refit) -> ndarray | None:
    """The rows u_i = J⁻¹s_i (n, p) by which a replicate starts at θ̂ + Σ w_i u_i, one Newton step
    for all of them. None if that may leave the bounds, or if the start is not the estimate.
    """
    free = all(leaf.constraint.is_identity for leaf in fit.layout.leaves)
    roots = roots_of(as_tree(loglik), fit.layout)
    if (
        refit.start is not fit.params
        or fit.verdict != Status.CONVERGED
        or not free
        or np.any(roots != np.arange(len(roots)))
    ):
        return None
    return np.asarray(scores(loglik)(fit.params, refit.data)) @ inverse_information(loglik, fit)


def _resampled(
    plan: Plan,
    refit: Refit,
    influence: ndarray | None,
    key: Array,
    total: int,
    vcov: str | None,
    deleted: Units | None,
) -> Refits:
    """The refits of resampled weights: replicates up to ``total``, then the sample without each
    unit.
    """
    estimate = refit.layout.ravel(refit.start)

    def refits(index: ndarray) -> Fit:
        weights = plan(key, index)
        if deleted is not None and index[-1] >= total:
            late = index >= total
            weights = Weights(
                np.where(
                    late[:, None], deleted.without(np.maximum(index - total, 0)), weights.values
                ),
                weights.kind,
            )
        starts = (
            None
            if influence is None
            else refit.from_flat(np.asarray(estimate) + np.asarray(weights.values) @ influence)
        )
        return refit(refit.data, None, weights, vcov, starts=starts)

    return refits, 8.0 * plan.width


def _simulated(
    loglik: Loglik, refit: Refit, fit: Fit, key: Array, sample: Function | None, vcov: str | None
) -> Refits:
    """The refits of data sets simulated from the fit."""
    if refit.options.weights is not None:
        raise ValueError(
            "a parametric bootstrap simulates one response for each row and cannot use "
            "weights: repeat the rows"
        )
    if not np.all(np.isfinite(fit.x)):
        raise ValueError(
            f"the fit is {fit.verdict.name}: data cannot be simulated at an infinite or "
            "undefined estimate"
        )
    simulate = simulator_of("a parametric bootstrap", loglik, sample, fit.params, refit.data)
    return lambda index: refit(
        simulate(key, index), simulate.in_axes, None, vcov
    ), simulate.bytes_each
