"""Natural parameters of a row from ``params`` and ``data``."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxmle._types import Array, Tree
from jaxmle.likelihood.contract import leaf_of


def eta_of(
    params: Tree, data: Tree, offset: str | None = None, x: str = "x", param: str = "beta"
) -> jax.Array:
    """The linear predictor ``data[x] @ params[param] + data[offset]``, (n,) or (n, K)."""
    design = jnp.asarray(leaf_of(data, x))
    beta = jnp.asarray(params[param])
    eta = design * beta if design.ndim == 1 else design @ beta
    return eta if offset is None else eta + jnp.asarray(leaf_of(data, offset))


def constant(eta: Array, *scalars: float | Array) -> tuple[Array, ...]:
    """The predictor (n,) and scalar parameters spread over its rows."""
    return (eta, *(jnp.broadcast_to(jnp.asarray(value), eta.shape) for value in scalars))
