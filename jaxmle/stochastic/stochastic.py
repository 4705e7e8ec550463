"""``fit_stochastic``: a log-likelihood maximised by mini-batches under any optax transformation,
with an exact polish of the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import optax

from jaxmle._types import DTypeLike, Key, Loglik, PathLike, Tree
from jaxmle.fitting.options import Options, read
from jaxmle.likelihood.combinators import Pool, Weights
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.discovery.indices import check_indices
from jaxmle.likelihood.discovery.ready_calls import check_calls
from jaxmle.likelihood.information.covariance import Kind
from jaxmle.likelihood.structure import has, jeffreys_of
from jaxmle.parameters.arguments import check_choice, check_count, check_function
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.runtime.checkpoint import Checkpoint
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only
from jaxmle.runtime.keys import typed_key
from jaxmle.solvers.methods import LBFGS, Newton, Solver
from jaxmle.stochastic.epochs import Run, StochasticFit
from jaxmle.stochastic.polish import checked_names, polished

POLISHERS: dict[str, Solver] = {"newton": Newton(), "lbfgs": LBFGS()}


@with_keyword_hints
def fit_stochastic(
    loglik: Loglik,
    params0: Tree,
    data: Tree,
    *,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    epochs: int,
    key: Key = 0,
    schedule: optax.Schedule | None = None,
    constraints: Tree = None,
    weights: Weights | None = None,
    held_out: Tree = None,
    patience: int | None = None,
    polish: str | None = None,
    polish_over: str | Sequence[str] | None = None,
    vcov: Kind | None = "auto",
    dtype: DTypeLike = None,
    checkpoint: PathLike | None = None,
    progress: bool | None = None,
) -> StochasticFit:
    """Maximise a log-likelihood by mini-batches, optionally followed by an exact polish.

    A step descends the gradient of −{(n/m) Σ_batch w_i ℓ_i + log prior}/Σw, the mean negative
    log-likelihood, so learning rates have their usual meaning. Each epoch uses a new permutation of
    the rows. The last batch may be short: m is then its number of rows, so every batch is a simple
    random sample of rows and its gradient is unbiased.

    Args:
        loglik: ``loglik(params, data)`` returning one term per row (n,), each depending only on its
            own row; or a combinator of such functions, but not a pool.
        params0: start values, any tree of floating-point arrays; None for a model with a method
            ``start(data)``.
        data: any tree of arrays that share the leading axis n.
        optimizer: any optax transformation; calls with the same object share their compiled
            programs. It gets the tree of the parameters or, if there are constraints, fixed or tied
            entries, the vector of free coordinates.
        batch_size: rows of a batch, m.
        epochs: the largest number of passes through the data.
        key: an integer or a jax key for the permutations and the held-out rows.
        schedule: ``schedule(step)`` multiplies the optimizer's updates; step counts batches from 0.
        constraints, weights, vcov, dtype: as in ``fit``; ``vcov`` is for the polish. ``dtype`` is
            float64 unless float32 is given; the polish is always in float64.
        held_out: a fraction of the rows, between 0 and 1, drawn without replacement; or a tree like
            ``data`` with other rows, which have equal weight.
        patience: stop after this many epochs without a lower held-out value.
        polish: ``"newton"`` or ``"lbfgs"``: run ``fit`` from the end, on all the data (including
            held-out rows), for a verdict and standard errors. Newton's Hessian is (p, p); beyond
            512 parameters ``"lbfgs"`` forms none and gives no standard errors unless ``vcov`` asks
            for them.
        polish_over: keys of ``params0``, such as ``("w2", "b2")`` for the last layer: the polish
            changes only these, and its standard errors are conditional on the rest. For a module
            give names of fields, such as ``"layers[1]"``.
        checkpoint: a separate folder. Every epoch is saved there, and the same call resumes after
            the last finished epoch, with bitwise identical parameters on the same machine.
            ``epochs`` and ``patience`` may change.
        progress: None for lines after two seconds, True for lines at once, False for none.

    Returns:
        A ``StochasticFit``.

    Raises:
        ValueError, TypeError: for mistakes visible in shapes and types, NaN in the data, or terms
            that depend on other rows.

    Source: Robbins & Monro (1951), Annals of Mathematical Statistics 22, 400–407; Bottou, Curtis &
    Nocedal (2018), SIAM Review 60, 223–311.

    >>> import numpy as np, jax.numpy as jnp, optax
    >>> from jaxmle.stochastic.stochastic import fit_stochastic
    >>> y = np.arange(40.0) % 5
    >>> poisson = lambda params, y: y * params["log_rate"] - jnp.exp(params["log_rate"])
    >>> result = fit_stochastic(
    ...     poisson,
    ...     {"log_rate": 0.0},
    ...     y,
    ...     optimizer=optax.sgd(0.2),
    ...     batch_size=8,
    ...     epochs=3,
    ...     polish="newton",
    ... )
    >>> (
    ...     result.path.shape,
    ...     bool(result.fit.converged),
    ...     round(float(np.exp(result.fit.params["log_rate"])), 6),
    ... )
    ((4, 2), True, 2.0)
    """
    host_only("fit_stochastic", "; inside a trace, use jaxmle.fit or optax itself")
    _check_options(optimizer, batch_size, epochs, schedule, held_out, patience, polish)
    options = Options(
        constraints=constraints, vcov=vcov, weights=weights, dtype=dtype, progress=progress
    )
    _check_kind(as_tree(loglik))
    posed = read(loglik, params0, data, options)
    names = checked_names(polish_over, polish, loglik, posed.params)
    if posed.rows is None:
        raise ValueError("data has no arrays: there are no rows to draw batches from")
    with precision(posed.dtype), np.errstate(all="ignore"), Checkpoint(checkpoint) as store:
        x = posed.layout.ravel(posed.params)
        check_calls(posed.loglik, posed.layout, x, posed.data)
        check_indices(posed.loglik, posed.layout, x, posed.data)
        run = Run.of(posed, typed_key(key), held_out, optimizer, schedule, batch_size)
        result = run.maximise(posed.params, int(epochs), patience, store, progress)
    if polish is None or result.stopped == "nonfinite":
        return result
    options = replace(options, solver=POLISHERS[str(polish)], dtype=None)
    return replace(result, fit=polished(loglik, result.params, data, names, options))


def _check_options(
    optimizer: optax.GradientTransformation,
    batch_size: object,
    epochs: object,
    schedule: optax.Schedule | None,
    held_out: object,
    patience: object,
    polish: object,
) -> None:
    if isinstance(optimizer, type) or not (
        hasattr(optimizer, "init") and hasattr(optimizer, "update")
    ):
        raise TypeError(
            "optimizer must be an optax transformation, such as optax.adam(1e-3); got "
            f"{optimizer!r}"
        )
    check_count("batch_size", batch_size, 1)
    check_count("epochs", epochs)
    if patience is not None:
        check_count("patience", patience, 1)
    if schedule is not None:
        check_function("schedule", schedule, "optax.cosine_decay_schedule(1.0, 1000)")
    if patience is not None and held_out is None:
        raise ValueError("patience needs held-out rows: give held_out=0.1, or a tree of other rows")
    if isinstance(held_out, bool) or (isinstance(held_out, int | float) and not 0 < held_out < 1):
        raise ValueError(
            f"held_out must be a fraction between 0 and 1 or a tree of rows; got {held_out!r}"
        )
    if polish is not None:
        check_choice("polish", polish, tuple(POLISHERS))


def _check_kind(loglik: Loglik) -> None:
    """Batches are rows of one data set, and the prior is one of the parameters alone."""
    if has(loglik, Pool):
        raise ValueError(
            "a pool has several data sets, but a mini-batch is rows of one: fit it with jaxmle.fit"
        )
    if jeffreys_of(loglik) is not None:
        raise ValueError("jeffreys's prior needs every row at once: fit it with jaxmle.fit")
