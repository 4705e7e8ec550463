"""The density of a mixture of multivariate normals, and the penalty that keeps it bounded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxmle._types import Array, Tree
from jaxmle.special.stirling import LOG_2PI


def _columns(y: Array) -> Array:
    return y[:, None] if jnp.ndim(y) == 1 else y


def log_joint(params: Tree, y: Array) -> Array:
    """log w_j f_j(y_i), (n, k), from Cholesky factors."""
    y = _columns(jnp.asarray(y))
    loc = params["loc"]
    k, d = loc.shape
    if y.shape[1] != d:
        raise ValueError(
            f"loc has shape {loc.shape} and the observations {y.shape}: the last axes must agree"
        )
    gap = y[:, None, :] - loc[None, :, :]
    if "variance" in params:
        variance = params["variance"]
        variance = jnp.broadcast_to(variance[:, None], (k, d)) if variance.ndim == 1 else variance
        distance = jnp.sum(gap**2 / variance[None], axis=-1)
        log_det = jnp.sum(jnp.log(variance), axis=-1)
    else:
        inverse, log_det = whitening(stacked_matrices(params["covariance"], k))
        distance = jnp.sum(jnp.einsum("kij,nkj->nki", inverse, gap) ** 2, axis=-1)
    return (jnp.log(params["weights"]) - 0.5 * (log_det + d * LOG_2PI))[None, :] - 0.5 * distance


def gaussian_loglik(params: Tree, y: Array) -> Array:
    """log Σ_j w_j f_j(y_i), (n,). The form of the covariance is that of ``params``."""
    return jax.scipy.special.logsumexp(log_joint(params, y), axis=1)


def stacked_matrices(matrices: Tree, k: int) -> Array:
    """Covariance matrices (k, d, d) of a tuple of them, or of one that all share."""
    if isinstance(matrices, tuple | list):
        return jnp.stack([jnp.asarray(matrix) for matrix in matrices])
    return jnp.broadcast_to(matrices, (k, *matrices.shape))


def whitening(matrices: Array) -> tuple[jax.Array, jax.Array]:
    """L⁻¹ and log det Σ of Σ = LL', (k, d, d) and (k,)."""
    factor = jnp.linalg.cholesky(matrices)
    eye = jnp.broadcast_to(jnp.eye(matrices.shape[-1], dtype=matrices.dtype), matrices.shape)
    inverse = jax.scipy.linalg.solve_triangular(factor, eye, lower=True)
    return inverse, 2 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)


@partial(jax.tree_util.register_dataclass, data_fields=["strength", "pooled"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class VarianceFloor:
    """The log prior −a Σ_j {log det Σ_j + tr(S Σ_j⁻¹)}, with S the covariance of all rows: it
    prevents components from collapsing.

    Source: Chen & Tan (2009), Journal of Multivariate Analysis 100, 1367–1383, with their aₙ of 1/n
    or 1/√n as ``strength``.

    >>> import numpy as np, jaxmle as jm
    >>> floor = jm.VarianceFloor(strength=1.0, pooled=np.eye(1))
    >>> at_variance = lambda variance: {"loc": np.zeros((1, 1)), "variance": np.array([variance])}
    >>> (
    ...     round(float(floor(at_variance(1.0))), 3),
    ...     round(float(floor(at_variance(0.01))), 3),
    ... )  # −log σ² − 1/σ²
    (-1.0, -95.395)
    """

    strength: float | Array
    pooled: Array  # (d, d)

    def __call__(self, params: Tree) -> Array:
        k, d = params["loc"].shape
        if "variance" in params:
            variance = params["variance"]
            variance = (
                jnp.broadcast_to(variance[:, None], (k, d)) if variance.ndim == 1 else variance
            )
            return -self.strength * jnp.sum(
                jnp.log(variance) + jnp.diagonal(self.pooled)[None, :] / variance
            )
        shared = not isinstance(params["covariance"], tuple | list)
        inverse, log_det = whitening(
            params["covariance"][None] if shared else stacked_matrices(params["covariance"], k)
        )
        return -self.strength * (
            jnp.sum(log_det) + jnp.einsum("kij,kil,lj->", inverse, inverse, self.pooled.T)
        )
