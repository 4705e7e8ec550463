"""White's information-matrix test: whether the variance of the score and the curvature agree,
as they do when the model is right.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Function, Key, Loglik, Tree, ndarray
from jaxmle.batch.batch import fit_batch
from jaxmle.inference.again import Again, again, check_fit, tangent
from jaxmle.inference.hypotheses.record import Reason, Test
from jaxmle.likelihood.combinators import Penalize, Pool
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.structure import has, weighting_of
from jaxmle.likelihood.terms import row_information, term_rows
from jaxmle.parameters.arguments import check_count, check_function
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled, precision
from jaxmle.runtime.jax_state import host_only
from jaxmle.runtime.keys import typed_key

MIN_REPLICATES = 19  # replicates with which a p-value can be as small as 0.05
# Simulated statistics that are relatively closer than this to the observed one tie with it.
RELATIVE_ROUNDING_OF_TIES = 1e-9
# An indicator that is smaller relative to its two parts is only their rounding error.
MIN_RELATIVE_SIZE_OF_INDICATOR = 1e-10


@with_keyword_hints
def information_matrix_test(
    loglik: Loglik,
    fit: Fit,
    data: Tree,
    sample: Callable[[jax.Array, Tree, Tree], Tree],
    *,
    key: Key,
    replicates: int = 199,
) -> Test:
    """Information-matrix test of the whole specification, with a p-value by parametric bootstrap.

    Under the model the mean of d_i = vech(s_i s_i' + ∂²ℓ_i) is zero (White 1982, Econometrica 50,
    section 4). The statistic is n R² of the regression of ones on (d_i, s_i) (Chesher 1983,
    Economics Letters 13; Lancaster 1984, Econometrica 52). Its χ² approximation is poor at any
    usual sample size: at a nominal 5 % it rejects 30 % of normal samples of 100. So the p-value
    compares it with the same statistic for data sets that are simulated from the fit and refitted
    (Horowitz 1994, Journal of Econometrics 61): (1 + #{T* ≥ T}) / (1 + replicates).

    Args:
        loglik: the log-likelihood, with one term per observation.
        fit: its fit to ``data``.
        data: the data of the fit.
        sample: ``sample(key, params, data)``, which returns data of the same shape with a new
            response.
        key: an integer or a jax key; the same key gives the same p-value.
        replicates: the number of simulated data sets; (replicates + 1)·level should be an integer.

    Returns:
        A ``Test``: ``df`` is the number of distinct indicators, ``replicates`` the number of
        simulated data sets that could be fitted.

    Raises:
        TypeError: under a trace.
        ValueError: for weighted, penalised and pooled fits, and if ``sample`` does not return data
            of the same shapes.

    >>> import jax, numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.hypotheses.information_matrix import information_matrix_test
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> y = np.array([0.9, 1.0, 1.0, 1.1, 1.2, 0.8, 1.0, 1.1])  # far too regular for waiting times
    >>> fit = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> draw = lambda key, params, data: jax.random.exponential(key, data.shape) / params["rate"]
    >>> bool(information_matrix_test(exponential, fit, y, draw, key=0, replicates=99).pvalue < 0.05)
    True
    """
    _check(loglik, fit, sample, replicates)
    given = again(loglik, fit, data, what="information_matrix_test")
    observed, rank = _statistics(given)
    code = int(Reason.NONE)
    usable = 0
    exceedances = 0
    if not fit.converged:
        code = int(Reason.NOT_CONVERGED)
    else:
        simulated = _simulated(loglik, given, sample, key, replicates)
        usable = len(simulated)
        # Ties, up to rounding, count as more extreme: for a discrete response the statistic can be
        # the same in many data sets.
        exceedances = int(np.sum(simulated >= observed * (1 - RELATIVE_ROUNDING_OF_TIES)))
        if 2 * usable < replicates:
            code = int(Reason.REPLICATES)
    p = (1 + exceedances) / (1 + usable) if not code else np.nan
    without_maximum = code == int(Reason.NOT_CONVERGED)
    # NumPy's scalars, which are arrays without axes.
    numbers: tuple[Tree, Tree, Tree, Tree, Tree] = (
        np.float64(np.nan if without_maximum else observed),
        np.float64(rank - fit.df),
        np.float64(p),
        np.int32(code),
        np.int32(usable),
    )
    return Test(
        *numbers,
        "Information-matrix",
        "a correct specification",
        "bootstrap",
    )


def _simulated(
    loglik: Loglik,
    given: Again,
    sample: Callable[[jax.Array, Tree, Tree], Tree],
    key: Key,
    replicates: int,
) -> ndarray:
    """The statistics of simulated data sets that could be fitted."""
    fit = given.fit
    drawn, axes = _drawn(given, sample, key, replicates)
    refits = fit_batch(
        loglik,
        fit.params,
        drawn,
        constraints=jax.tree.unflatten(
            fit.layout.treedef, [leaf.constraint for leaf in fit.layout.leaves]
        ),
        vcov=None,
        dtype=fit.dtype,
        in_axes=axes,
        params_axis=None,
        progress=False,
    )
    statistics, _ = _statistics(again(loglik, refits, drawn, in_axes=axes, check_data=False))
    return np.asarray(statistics)[np.asarray(refits.converged)]


def _check(loglik: Loglik, fit: Fit, sample: Function | None, replicates: Tree) -> None:
    host_only("information_matrix_test")
    check_fit("the information-matrix test", fit, alone=True)
    tree = as_tree(loglik)
    if weighting_of(tree) != "none" or fit.weighting != "none":
        raise ValueError(
            "the information-matrix test is not defined here for weighted fits: repeat the rows "
            "that frequency weights stand for"
        )
    if has(tree, Penalize) or fit.mode != "ML":
        raise ValueError(
            "the information-matrix test needs a maximum-likelihood fit; at the maximum "
            "of a penalised likelihood the score does not have mean zero"
        )
    if has(tree, Pool):
        raise ValueError(
            "the information-matrix test needs one likelihood, not a pool: test its members"
        )
    check_function("sample", sample, "lambda key, params, data: {**data, 'y': …}")
    check_count("replicates", replicates, MIN_REPLICATES)  # with which p can reach 0.05


def _statistics(given: Again) -> tuple[Array, Array]:
    """n R² and the rank of the regression of ones on (d_i, s_i), for each fit."""
    layout = given.fit.layout
    return given.evaluate(
        "information matrix", lambda ll, x, data, codes: _ones_on_indicators(ll, layout, x, data)
    )


def _ones_on_indicators(
    loglik: Loglik, layout: Layout, x: Array, data: Tree
) -> tuple[Array, Array]:
    """1'Z(Z'Z)⁻Z'1: the squared length of the projection of ones on the columns of Z = (d, s),
    which may be linearly dependent.
    """
    lift = jnp.asarray(tangent(loglik, layout).lift, x.dtype)
    scores = term_rows(loglik, layout, x, data).scores @ lift
    curvature = -jnp.einsum(
        "ja,nji,ib->nab", lift, row_information(loglik, layout, x, data, "observed"), lift
    )
    i, j = np.tril_indices(scores.shape[1])
    z = jnp.concatenate([scores[:, i] * scores[:, j] + curvature[:, i, j], scores], axis=1)
    size = jnp.sqrt(jnp.sum(z**2, axis=0))
    # An indicator that is zero for every row (s² = −∂²ℓ for a dummy with itself) is only rounding
    # error relative to its two parts.
    parts = jnp.concatenate(
        [
            jnp.sqrt(jnp.sum((scores[:, i] * scores[:, j]) ** 2 + curvature[:, i, j] ** 2, axis=0)),
            jnp.ones(scores.shape[1]),
        ]
    )
    is_large = size > MIN_RELATIVE_SIZE_OF_INDICATOR * parts
    z = jnp.where(is_large[None, :], z / jnp.where(is_large, size, 1.0)[None, :], 0.0)
    values, axes = jnp.linalg.eigh(z.T @ z)
    nonzero = values > z.shape[1] * jnp.finfo(z.dtype).eps ** (2 / 3)
    return jnp.sum(
        jnp.where(nonzero, (jnp.sum(z, axis=0) @ axes) ** 2 / jnp.where(nonzero, values, 1.0), 0.0)
    ), jnp.sum(nonzero)


def _drawn(
    given: Again, sample: Callable[[jax.Array, Tree, Tree], Tree], key: Key, replicates: int
) -> tuple[Tree, Tree]:
    """Simulated data sets (replicates, n, …), and the axes of their leaves: None for leaves that
    the sampler does not change.
    """
    data = given.data
    layout = given.fit.layout
    sampler: Tree = sample

    def make(held: Tree) -> Function:
        return lambda keys, x, data: jax.vmap(
            lambda key: held.function(key, layout.unravel(x), data)
        )(keys)

    with precision(given.fit.dtype):
        keys = jax.random.split(typed_key(key), replicates)
        rows = jax.tree.map(jnp.asarray, data)
        drawn = jax.tree.map(
            np.asarray,
            compiled(as_tree(sampler), ("sample", layout), make)(
                keys, jnp.asarray(given.fit.x), rows
            ),
        )
    form: Tree = jax.tree.structure(drawn)
    if form != jax.tree.structure(data) or any(
        a.shape[1:] != np.shape(b)
        for a, b in zip(jax.tree.leaves(drawn), jax.tree.leaves(data), strict=True)
    ):
        raise ValueError(
            "sample must return data of the same structure and shapes as its input, with "
            "a new response"
        )
    same = jax.tree.map(
        lambda new, old: bool(np.array_equal(new, np.broadcast_to(np.asarray(old), new.shape))),
        drawn,
        data,
    )
    if all(jax.tree.leaves(same)):
        raise ValueError(
            "sample returned the data unchanged: it must draw a new response from its key"
        )
    return jax.tree.map(
        lambda new, unchanged: new[0] if unchanged else new, drawn, same
    ), jax.tree.map(lambda unchanged: None if unchanged else 0, same)
