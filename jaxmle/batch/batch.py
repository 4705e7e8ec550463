"""``fit_batch``: one likelihood on thousands to millions of data sets; the same record as
``fit`` with a leading axis.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Loglik, Tree
from jaxmle.batch.chunk import flat_members
from jaxmle.batch.identities import with_response_ids
from jaxmle.batch.inputs import Inputs, gathered
from jaxmle.batch.programs import Members
from jaxmle.batch.scheduler import MIN_ROWS_FOR_FLOAT32_START, Run
from jaxmle.fitting.fit import MAX_STEPS, check_options, host_dtype
from jaxmle.fitting.passes import Problem, pose
from jaxmle.fitting.signals import with_rules, with_signals
from jaxmle.likelihood.contract import need_terms
from jaxmle.likelihood.discovery.derivative_rules import check_rules
from jaxmle.likelihood.discovery.linear_predictors import declared
from jaxmle.likelihood.discovery.row_axes import is_rowwise
from jaxmle.likelihood.discovery.row_independence import (
    check_blocks,
    check_rows_apart,
    points_beside,
)
from jaxmle.likelihood.discovery.self_check import road_of, verified
from jaxmle.likelihood.information.covariance import Kind
from jaxmle.likelihood.information.hac import check_bandwidth
from jaxmle.likelihood.structure import term_shape
from jaxmle.parameters.arguments import check_count
from jaxmle.record.fit import Fit
from jaxmle.runtime.checkpoint import Checkpoint
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only


def fit_batch(
    loglik: Loglik,
    params0: Tree = None,
    datasets: Tree = None,
    *,
    constraints: Tree = None,
    solver: Any = None,
    vcov: Kind | None = "auto",
    clusters: Any = None,
    weights: Any = None,
    dtype: Any = None,
    max_steps: int = MAX_STEPS,
    block_rows: int | None = None,
    in_axes: Any = 0,
    params_axis: int | str | None = "auto",
    block: int | None = None,
    devices: Any = None,
    progress: bool | None = None,
    checkpoint: Any = None,
) -> Fit:
    """Maximise one log-likelihood on many data sets.

    From half a million rows the first steps are taken in single precision, where the likelihood
    allows it, along the road of ``fit``; the last steps and the verdict are in double, and a member
    that does not end CONVERGED so climbs again from its start. Estimates agree with those of
    ``fit`` to 1e-8 standard errors; of several maxima, a member in a thousand may reach another
    one. ``steps`` counts both kinds.

    Args:
        loglik, constraints, solver, vcov, dtype, max_steps, block_rows: as in ``fit``.
        params0: start values for all members, or with a leading axis one for each, or None for a
            model with a method ``start(data)``.
        datasets: a tree of arrays with a leading axis over members, (b, n, ...); or a list of data
            sets, whose lengths may differ. Members of unequal length are padded where each term is
            proved to depend on its own row. A likelihood whose terms look at other rows (a mean, a
            lag, 1/n) is compiled for each length, and refused where there are more than 32.
        clusters: labels (n,) for all members, (b, n), or a list with one array a member.
        weights: ``frequency(w)`` or ``sampling(w)`` with w (n,), (b, n), or a list with one array a
            member.
        in_axes: the axis of each leaf of ``datasets`` that runs over members, None for a leaf that
            all share, as in ``jax.vmap``. A design that all share turns the batch into matrix
            products.
        params_axis: 0 or None says whether ``params0`` has a leading axis over members; ``"auto"``
            finds out where only one reading fits.
        block: members in a block, which share one loop; None to choose by size.
        devices: the devices to spread blocks over; None for all of them. A CPU counts as one device
            unless jax is told otherwise before it is imported:
            ``XLA_FLAGS=--xla_force_host_platform_device_count=8`` puts eight cores to work.
        progress: None for a line after two seconds, True for one at once, False for silence.
        checkpoint: a folder of its own where finished members are kept; the same call goes on from
            there after an interruption, to the same bits on the same machine. It belongs to one run
            at a time.

    Returns:
        A ``Fit`` whose leaves have a leading axis, in the order of the members. A member that fails
        has its status; no other is touched.

    Raises:
        ValueError, TypeError: for what is visible in shapes and types, and for weights or
            ``block_rows`` where terms are shown to look at other rows. NaN in a member's data is
            its status, NONFINITE.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> samples = [np.array([1.0, 3.0]), np.array([2.0, 4.0, 6.0])]
    >>> fits = jm.fit_batch(exponential, {"rate": 1.0}, samples, constraints={"rate": jm.positive})
    >>> fits.params["rate"].round(6).tolist(), fits.n.tolist()
    ([0.5, 0.25], [2.0, 3.0])
    """
    return fit_members(
        loglik,
        params0,
        datasets,
        constraints,
        solver,
        vcov,
        clusters,
        weights,
        dtype,
        max_steps,
        block_rows,
        in_axes,
        params_axis,
        block,
        devices,
        progress,
        checkpoint,
        check_rows=True,
    )


def fit_members(
    loglik: Loglik,
    params0: Tree,
    datasets: Tree,
    constraints: Tree,
    solver: Any,
    vcov: Any,
    clusters: Any,
    weights: Any,
    dtype: Any,
    max_steps: int,
    block_rows: int | None,
    in_axes: Any,
    params_axis: int | str | None,
    block: int | None,
    devices: Any,
    progress: bool | None,
    checkpoint: Any,
    *,
    check_rows: bool,
) -> Fit:
    """``fit_batch``; ``check_rows`` False where the caller has seen to it that weights may
    stand on the terms.
    """
    host_only(
        "fit_batch",
        "; there, jax.vmap(lambda data: jaxmle.fit(loglik, params0, data)) is the batch",
    )
    max_steps, block_rows = check_options(vcov, clusters, max_steps, block_rows, progress)
    block = None if block is None else check_count("block", block, 1)
    real = host_dtype(dtype)
    kept = Checkpoint(checkpoint)
    with precision(real), np.errstate(all="ignore"):
        inputs = gathered(
            loglik, params0, datasets, constraints, weights, clusters, in_axes, params_axis, real
        )
        check_bandwidth(vcov, inputs.longest)
        problem = pose(inputs.loglik, inputs.layout, solver, vcov, clusters, max_steps, block_rows)
        one = _largest(inputs)
        has_terms = _check_first(problem, one)
        if check_rows and weights is not None:
            check_rows_apart(
                "a weighted likelihood", inputs.bare, inputs.layout, one.base, one.data
            )
        if block_rows is not None:
            check_blocks(inputs.bare, inputs.layout, one.base, one.data, block_rows)
        search = (
            bool(np.sum(inputs.source.sizes) >= MIN_ROWS_FOR_FLOAT32_START)
            and block_rows is None
            and is_rowwise(inputs.bare, inputs.layout, one.base, one.data)
        )

        def form_of(loglik: Loglik) -> Any:
            form = declared(loglik, inputs.layout, one.base, one.data) if search else loglik
            return verified(loglik, form, inputs.layout, one.base, one.data)

        road = road_of(inputs.bare, form_of(inputs.bare))
        inputs = replace(inputs, loglik=form_of(inputs.loglik), bare=form_of(inputs.bare))
        problem = replace(problem, loglik=inputs.loglik)
        points = points_beside(one.loglik, inputs.layout, one.base)
        rules = check_rules(one.loglik, inputs.layout, points, one.data)
        with kept:
            run = Run(problem, inputs, block, devices, progress, kept)
            fits = run.fits()
            fits = replace(fits, road=", ".join([road, *run.starts]))
            fits = run.with_cones(fits) if has_terms else fits
        fits = with_rules(fits, problem.loglik, rules)
        if not check_rows:
            return fits  # refits answer to the fit that they repeat
        fits = with_response_ids(fits, loglik, inputs.source, real)
        return with_signals(fits, loglik, inputs.bare, one.data)


def _largest(inputs: Inputs) -> Members:
    """The member of most rows."""
    largest = inputs.largest
    member = flat_members(
        inputs, np.array([largest]), tuple(int(n) for n in inputs.source.sizes[largest])
    )
    leaves = [
        leaf if same else leaf[0]
        for leaf, same in zip(member.leaves, member.form.shared, strict=True)
    ]
    return jax.tree.unflatten(member.form.treedef, leaves)


def _check_first(problem: Problem, one: Members) -> bool:
    """What shapes say is wrong of one member is wrong of all: said before anything is compiled.
    Whether the likelihood has terms.
    """
    shape = term_shape(one.loglik, problem.layout, one.base, one.data)
    wanted = problem.kind not in ("observed", "expected", None) and problem.mode == "ML"
    if wanted and not shape:
        need_terms(jnp.zeros(()), f"vcov={problem.kind!r}")
    return bool(shape)
