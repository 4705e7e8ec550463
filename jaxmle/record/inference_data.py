"""A fit for ArviZ: draws by the names of the parameters, and the log-likelihood of each row at each
draw.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Key, Loglik, Tree, ndarray
from jaxmle.likelihood.checks import host_data
from jaxmle.likelihood.combinators import Weights, weight
from jaxmle.likelihood.contract import as_tree, need_terms, terms_of
from jaxmle.likelihood.structure import core_of
from jaxmle.parameters.arguments import check_count, shown
from jaxmle.parameters.tree import Chart, Leaf
from jaxmle.record.identity import identity
from jaxmle.runtime.compile import compiled, precision
from jaxmle.runtime.keys import typed_key
from jaxmle.tables.contents import Record

if TYPE_CHECKING:
    import xarray as xr

FIRST_VERSION_OF_DATA_TREES = 1  # of ArviZ
ASYMPTOTIC = "asymptotic normal distribution of the estimate, which is not a posterior"
LAPLACE = "normal approximation of the posterior at its mode (Laplace)"
REPLICATES = "bootstrap replicates of the estimate, which are not a posterior"


def inference_data(
    fit: Record,
    given: tuple[Loglik | None, Tree, Weights | None],
    draws: int,
    key: Key,
    bootstrap: Tree,
) -> xr.DataTree:
    """The result of ``Fit.to_arviz``."""
    arviz = _arviz()
    if fit.batch_shape:
        raise ValueError("to_arviz takes one fit; this is a batch: give fits[i]")
    values = normal_draws(fit, draws, key) if bootstrap is None else _replicates(fit, bootstrap)
    attrs = {
        "inference_library": "jaxmle",
        "draws": REPLICATES
        if bootstrap is not None
        else LAPLACE
        if fit.mode != "ML"
        else ASYMPTOTIC,
        "vcov": fit.vcov_kind,
    }
    xarray = import_module("xarray")
    groups = {"posterior": xarray.Dataset(_variables(fit, values), attrs=attrs)}
    loglik, data, weights = given
    if loglik is not None:
        terms = _terms(fit, loglik, data, weights, values)
        dims = ("chain", "draw", "row")
        groups["log_likelihood"] = xarray.Dataset({"terms": (dims, terms[None])}, attrs=attrs)
    if int(arviz.__version__.split(".")[0]) < FIRST_VERSION_OF_DATA_TREES:
        return arviz.InferenceData(**groups)
    return xarray.DataTree.from_dict(groups)


def _arviz() -> ModuleType:
    try:
        return import_module("arviz")
    except ImportError as error:
        raise ImportError("to_arviz needs ArviZ: pip install 'jaxmle[arviz]'") from error


# ---------------------------------------------------------------- draws


def normal_draws(fit: Record, draws: int, key: Key) -> ndarray:
    """Draws (draws, p) of the asymptotic normal distribution on the free scale z, transformed back:
    z has the covariance T⁺V(T⁺)', T = ∂x/∂z. Held entries keep their value.
    """
    check_count("draws", draws, 1)
    if not fit.converged:
        raise ValueError(f"a fit that has not converged has no draws. {fit.explain()}")
    held = np.isnan(fit.se)
    if held.all():
        raise ValueError("the fit has no covariance to draw from: refit with vcov='observed'")
    layout = fit.layout
    partly = [
        any(held[span]) and not leaf.constraint.elementwise
        for leaf, span in zip(layout.leaves, layout.spans, strict=True)
    ]
    if any(partly):
        raise ValueError("an entry of a leaf that is constrained as a whole has no standard error")
    x = layout.ravel(fit.params)
    chart = Chart(layout, tuple(held.tolist()))
    with precision(fit.dtype):
        z = jnp.asarray(chart.to_free(x))
        jacobian = np.asarray(jax.jacfwd(lambda z: chart.to_user(z, jnp.asarray(x)))(z))
        # the left inverse: x lies in a smaller space if a leaf is constrained as a whole
        inverse = np.linalg.solve(jacobian.T @ jacobian, jacobian.T)
        vcov = np.where(held[:, None] | held[None, :], 0.0, fit.vcov)
        values, vectors = np.linalg.eigh(inverse @ vcov @ inverse.T)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        standard = jax.random.normal(typed_key(key), (draws, len(z)), z.dtype)
        moved = jax.vmap(lambda row: chart.to_user(z + root @ row, jnp.asarray(x)))(standard)
        return np.asarray(moved)


def _replicates(fit: Record, bootstrap: Tree) -> ndarray:
    """The replicates (R, p) of the parameters that are finite."""
    names = getattr(bootstrap, "names", None)
    if not hasattr(bootstrap, "replicates") or names != fit.names:
        raise TypeError(
            "bootstrap must be the result of jaxmle.bootstrap for this fit, without a "
            "statistic; got "
            f"{shown(bootstrap) if names is None else 'one of ' + ', '.join(names[:6])}"
        )
    replicates = np.asarray(bootstrap.replicates)
    return replicates[np.all(np.isfinite(replicates), axis=1)]


def _variables(fit: Record, values: ndarray) -> dict[str, xr.DataArray]:
    """Each leaf of the parameters as a variable (chain, draw, …), by the names of its entries."""
    variables = {}
    layout = fit.layout
    trees = [jax.tree.leaves(layout.unravel(row)) for row in values]
    for place, leaf in enumerate(layout.leaves):
        name = leaf.path or "theta"
        stacked = np.stack([np.asarray(tree[place]) for tree in trees])[None]
        dims = [f"{name}_dim_{axis}" for axis in range(len(leaf.shape))]
        variables[name] = _named_array(stacked, dims, leaf, name)
    return variables


def _named_array(values: ndarray, dims: list[str], leaf: Leaf, name: str) -> xr.DataArray:
    coords = {dim: np.arange(size) for dim, size in zip(dims, leaf.shape, strict=True)}
    if leaf.labels is not None and len(leaf.shape) == 1 and len(leaf.labels) == leaf.shape[0]:
        inner = [label.removeprefix(f"{name}[").removesuffix("]") for label in leaf.labels]
        coords[dims[0]] = np.array(inner)
    return import_module("xarray").DataArray(values, dims=["chain", "draw", *dims], coords=coords)


# ---------------------------------------------------------------- the log-likelihood of each row


def _terms(
    fit: Record, loglik: Loglik, data: Tree, weights: Weights | None, values: ndarray
) -> Array:
    """The terms (draws, n) of the likelihood itself: without weights, without a prior."""
    tree = as_tree(loglik)
    data = host_data(data, fit.dtype)
    weighted = tree if weights is None else weight(tree, weights)
    with precision(fit.dtype):
        known = np.asarray(fit.data_id)
        if np.any(known) and np.any(known != identity(weighted, data, fit.dtype)):
            raise ValueError(
                "the data or the weights are not those of the fit: give the same rows, in the same "
                "order and types, with the same weights"
            )
        core = core_of(tree)
        layout = fit.layout

        def make(held: Tree) -> Tree:
            def of_draw(x: Array, data: Tree) -> Array:
                return need_terms(terms_of(held, layout.unravel(x), data), "to_arviz")

            return lambda rows, data: jax.lax.map(lambda x: of_draw(x, data), rows)

        return np.asarray(compiled(core, ("draws", layout), make)(values, data))
