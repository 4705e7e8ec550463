"""``fit_batch``: one likelihood on thousands to millions of data sets; the same record as
``fit`` with a leading axis.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxmle._types import Axes, Clusters, Data, DTypeLike, Foreign, Loglik, Params, PathLike, Tree
from jaxmle.batch.chunks.pieces import flat_members
from jaxmle.batch.chunks.programs import Members
from jaxmle.batch.members.identities import with_response_ids
from jaxmle.batch.members.read import Inputs, read_batch
from jaxmle.batch.members.sources import padded_rows
from jaxmle.batch.scheduler import MIN_ROWS_FOR_FLOAT32_START, Scheduler
from jaxmle.fitting.options import MAX_STEPS, Options
from jaxmle.fitting.passes import Problem, check_terms, problem_of
from jaxmle.fitting.signals import with_rules, with_signals
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.discovery.derivative_rules import check_rules
from jaxmle.likelihood.discovery.linear_predictors import as_regression
from jaxmle.likelihood.discovery.row_axes import is_rowwise
from jaxmle.likelihood.discovery.row_independence import (
    check_blocks,
    check_rows_apart,
    points_beside,
)
from jaxmle.likelihood.discovery.self_check import evaluation_of, verified
from jaxmle.likelihood.information.covariance import Kind
from jaxmle.likelihood.information.hac import check_bandwidth
from jaxmle.likelihood.structure import chart_of, term_shape
from jaxmle.parameters.arguments import check_count
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.record.identity import call_of
from jaxmle.runtime.checkpoint import Checkpoint
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only
from jaxmle.solvers.methods import Solver


@with_keyword_hints
def fit_batch(
    loglik: Loglik,
    params0: Tree = None,
    datasets: Tree = None,
    *,
    constraints: Tree = None,
    solver: Solver | None = None,
    vcov: Kind | None = "auto",
    clusters: Clusters = None,
    weights: Weights | None = None,
    dtype: DTypeLike = None,
    max_steps: int = MAX_STEPS,
    block_rows: int | None = None,
    in_axes: Axes = 0,
    params_axis: int | str | None = "auto",
    block: int | None = None,
    devices: Foreign = None,
    progress: bool | None = None,
    checkpoint: PathLike | None = None,
) -> Fit:
    """Maximise one log-likelihood on many data sets.

    From half a million rows on, the first steps are taken in single precision if the likelihood
    allows it; the last steps and the verdict are in double precision. A member that does not end
    CONVERGED is refitted from its own start entirely in double precision. Estimates agree with
    those of ``fit`` to 1e-8 standard errors; if there are several maxima, about one member in a
    thousand may reach a different one. ``steps`` counts both kinds of steps.

    Args:
        loglik, constraints, solver, vcov, dtype, max_steps, block_rows: as in ``fit``.
        params0: start values for all members; or, with a leading axis, one start for each; or None
            for a model with a method ``start(data)``.
        datasets: a tree of arrays with a leading axis over members, (b, n, ...); or a list of data
            sets, whose lengths may differ. Members of unequal length are padded if each term is
            proved to depend only on its own row. A likelihood whose terms depend on other rows (a
            mean, a lag, 1/n) is compiled for each length, and more than 32 lengths are refused.
        clusters: labels (n,) for all members, (b, n), or a list with one array for each member.
        weights: ``frequency(w)`` or ``sampling(w)`` with w (n,), (b, n), or a list with one array
            for each member.
        in_axes: the axis of each leaf of ``datasets`` that runs over members, or None for a shared
            leaf, as in ``jax.vmap``. A shared design turns the batch into matrix products.
        params_axis: 0 or None says whether ``params0`` has a leading axis over members; ``"auto"``
            chooses if only one of the two is possible.
        block: members in a block, which share one loop; None to choose by size.
        devices: the devices to spread blocks over; None for all of them. A CPU counts as one device
            unless jax is told otherwise before it is imported:
            ``XLA_FLAGS=--xla_force_host_platform_device_count=8`` puts eight cores to work.
        progress: None for a progress line after two seconds, True for one at once, False for none.
        checkpoint: a separate folder for finished members. After an interruption the same call
            resumes from there, with bitwise identical results on the same machine. Only one run at
            a time may use the folder.

    Returns:
        A ``Fit`` whose leaves have a leading axis, in the order of the members. A member that fails
        has its own status and does not affect the others.

    Raises:
        ValueError, TypeError: for mistakes visible in shapes and types, and for weights or
            ``block_rows`` if terms depend on other rows. NaN in a member's data gives it the status
            NONFINITE.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> samples = [np.array([1.0, 3.0]), np.array([2.0, 4.0, 6.0])]
    >>> fits = jm.fit_batch(exponential, {"rate": 1.0}, samples, constraints={"rate": jm.positive})
    >>> fits.params["rate"].round(6).tolist(), fits.n.tolist()
    ([0.5, 0.25], [2.0, 3.0])
    """
    options = Options(
        constraints=constraints,
        solver=solver,
        vcov=vcov,
        clusters=clusters,
        weights=weights,
        dtype=dtype,
        max_steps=max_steps,
        block_rows=block_rows,
        progress=progress,
    )
    return fit_members(
        loglik,
        params0,
        datasets,
        options,
        in_axes=in_axes,
        params_axis=params_axis,
        block=block,
        devices=devices,
        checkpoint=checkpoint,
    )


def fit_members(
    loglik: Loglik,
    params0: Params,
    datasets: Data,
    options: Options,
    *,
    in_axes: Axes = 0,
    params_axis: int | str | None = "auto",
    block: int | None = None,
    devices: Foreign = None,
    checkpoint: PathLike | None = None,
    check_rows: bool = True,
) -> Fit:
    """``fit_batch`` with its options as one record.

    Args:
        check_rows: False for refits of a fit, for which the caller has already checked that terms
            may be weighted.
    """
    instead = "; inside a trace use jax.vmap(lambda data: jaxmle.fit(loglik, params0, data))"
    host_only("fit_batch", instead)
    block = None if block is None else check_count("block", block, 1)
    store = Checkpoint(checkpoint)
    with precision(options.host_dtype), np.errstate(all="ignore"):
        inputs = read_batch(loglik, params0, datasets, options, in_axes, params_axis)
        check_bandwidth(options.vcov, inputs.longest)
        chart = chart_of(inputs.loglik, inputs.layout)
        problem = problem_of(inputs.loglik, chart, options)
        largest = _largest(inputs)
        _check_largest(problem, inputs, largest, check_rows)
        inputs, evaluation = _with_structure(inputs, largest, options.block_rows)
        problem = replace(problem, loglik=inputs.loglik)
        padded = _padded(inputs, largest)
        points = points_beside(padded.loglik, inputs.layout, padded.base)
        rules = check_rules(padded.loglik, inputs.layout, points, padded.data)
        with store:
            scheduler = Scheduler(problem, inputs, block, devices, options.progress, store)
            fits = scheduler.fits()
            evaluation = ", ".join([evaluation, *scheduler.starts])
            fits = replace(fits, evaluation=evaluation, model=call_of(loglik))
            if term_shape(padded.loglik, inputs.layout, padded.base, padded.data):
                fits = scheduler.with_cones(fits)
        fits = with_rules(fits, problem.loglik, rules)
        if not check_rows:
            return fits
        fits = with_response_ids(fits, loglik, inputs.source, inputs.dtype)
        return with_signals(fits, loglik, inputs.bare, largest.data)


def _largest(inputs: Inputs) -> Members:
    """The member with the most rows."""
    return flat_members(inputs, np.array([inputs.largest]), inputs.largest_length).first


def _padded(inputs: Inputs, largest: Members) -> Members:
    """The member with the most rows, padded if rows may be padded: questions about the program
    alone are then traced for a few lengths only, and not again for each batch.
    """
    if not getattr(inputs.source, "padded", False):
        return largest
    length = tuple(padded_rows(np.array(inputs.largest_length)).tolist())
    return flat_members(inputs, np.array([inputs.largest]), length).first


def _check_largest(problem: Problem, inputs: Inputs, largest: Members, check_rows: bool) -> None:
    """Check the member with the most rows, as representative of all, before compiling anything."""
    layout = inputs.layout
    base = largest.base
    data = largest.data
    check_terms(replace(problem, loglik=largest.loglik), base, data)
    if check_rows and inputs.weight_kind is not None:
        check_rows_apart("a weighted likelihood", inputs.bare, layout, base, data)
    if problem.block_rows is not None:
        check_blocks(inputs.bare, layout, base, data, problem.block_rows)


def _with_structure(inputs: Inputs, largest: Members, block_rows: int | None) -> tuple[Inputs, str]:
    """The inputs, as a regression if the program of a likelihood of many rows shows that it is one;
    and the word for how the terms are summed.
    """
    layout = inputs.layout
    base = largest.base
    data = largest.data
    is_long = bool(np.sum(inputs.source.sizes) >= MIN_ROWS_FOR_FLOAT32_START)
    search = is_long and block_rows is None and is_rowwise(inputs.bare, layout, base, data)

    def form_of(loglik: Loglik) -> Loglik:
        form = as_regression(loglik, layout, base, data) if search else loglik
        return verified(loglik, form, layout, base, data)

    bare = form_of(inputs.bare)
    evaluation = evaluation_of(inputs.bare, bare)
    return replace(inputs, loglik=form_of(inputs.loglik), bare=bare), evaluation
