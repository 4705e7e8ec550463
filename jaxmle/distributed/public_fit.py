"""``fit``, the entry point of a single fit: it reads the options and determines where the rows are:
in memory, on disk, or on several devices.
"""

from __future__ import annotations

from concurrent.futures import Executor

from jaxmle._types import Clusters, DTypeLike, Loglik, PathLike, Tree
from jaxmle.distributed.fit import fit_shared
from jaxmle.distributed.rows import shared_rows
from jaxmle.fitting.fit import fit_with
from jaxmle.fitting.options import (
    MAX_STEPS,
    Options,
    RowSource,
    check_source,
    refuse_without_source,
)
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.contract import fits_itself
from jaxmle.likelihood.information.covariance import Kind
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.solvers.methods import Solver


@with_keyword_hints
def fit(
    loglik: Loglik,
    params0: Tree = None,
    data: Tree = None,
    *,
    constraints: Tree = None,
    solver: Solver | None = None,
    vcov: Kind | None = "auto",
    clusters: Clusters = None,
    weights: Weights | None = None,
    dtype: DTypeLike = None,
    max_steps: int = MAX_STEPS,
    block_rows: int | None = None,
    progress: bool | None = None,
    source: RowSource | None = None,
    engine: Executor | None = None,
    checkpoint: PathLike | None = None,
) -> Fit:
    """Maximise a log-likelihood, with standard errors and a verdict on the maximum.

    Args:
        loglik: ``loglik(params, data)`` returning one term per observation (n,), or a scalar for
            dependent data; or a declared ``regression``, or any combinator of these. What it closes
            over is checked at each call: a change since the last call, by rebinding or in place, in
            arrays, containers, objects, modules or globals, takes effect in the fit.
        params0: start values, any tree of real numbers. May be None if the log-likelihood has a
            method ``start(data)``.
        data: any tree of arrays that share the leading axis n; a numeric pandas, polars or pyarrow
            frame, which is read as a dictionary of its columns; or a ``Frame`` from
            ``from_formula``. JAX arrays whose rows are spread over several devices stay where they
            are: each device sums its own rows, and the terms must be proved to depend only on their
            own row. Floats are converted to the precision of the fit; integers become int64 (int32
            with float64 off), which takes eight times the memory of a column of bytes; booleans
            stay.
        constraints: a tree prefix of ``params0``, such as ``{"sigma": positive}``. The maximum does
            not depend on the transform of a constraint.
        solver: one of ``jaxmle.solvers``, any optax transformation, or None to choose by size. For
            a function of more than 512 parameters L-BFGS finishes the fit, judged by the score, and
            no Hessian is formed unless ``vcov`` asks for one. The status is then STATIONARY, and
            ``stderr_by_cg`` gives standard errors of selected parameters.
        vcov: ``"observed"``, ``"expected"``, ``"opg"``, ``"HC0"`` … ``"HC3"``, ``"cluster"``
            (``"CR0"``, ``"CR1"``, ``"CR1S"``, ``"CR2"``, ``"CR3"``), ``"hac"`` or ``hac(…)`` for
            rows in time order, None, or ``"auto"``: observed; cluster if clusters are given; HC0
            with sampling weights; with ``jeffreys`` the unpenalised information.
        clusters: one label for each row, (n,), or a pair of label arrays for two-way clustering.
        weights: ``frequency(w)`` or ``sampling(w)``, w (n,).
        dtype: by default float64 on the host, and the dtype of the trace inside one.
        max_steps: the largest number of evaluations of the likelihood.
        block_rows: evaluate in blocks of this many rows; each term must then depend only on its own
            row. By default a regression with many rows, or a function whose rows are proved
            independent, is evaluated in blocks automatically.
        progress: None for a line on standard error every two seconds, True for one at each step,
            False for none.
        source: instead of ``data``, rows that are read from disk in each pass, made by ``parquet``;
            ``weights=frequency("w")`` and ``clusters="firm"`` then name columns.
        engine: with a source, any ``concurrent.futures.Executor``: a pass is then a map over the
            files.
        checkpoint: with a source or with rows spread over devices, a separate folder, from which
            the same call resumes after it was killed.

    Returns:
        A ``Fit``. A failure visible only in values is its ``status``, never an exception.

    Raises:
        ValueError, TypeError: for mistakes visible in shapes and types; on the host also for NaN in
            the data, and for weights or ``block_rows`` if terms depend on other rows.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> round(float(result.params["rate"]), 6), round(float(result.stderr["rate"]), 6)
    (0.333333, 0.166667)
    """
    shared = shared_rows(data, weights, clusters)
    if shared is not None:
        weights = shared.weights
        clusters = shared.clusters
    elif fits_itself(data):
        weights, clusters = data.given(weights, clusters)
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
    if source is not None:
        check_source(source, data)
        return source.fit(loglik, params0, options, engine, checkpoint)
    if shared is not None:
        refuse_without_source(engine, None)
        return fit_shared(shared, loglik, params0, options, checkpoint)
    refuse_without_source(engine, checkpoint)
    return fit_with(loglik, params0, data, options)
