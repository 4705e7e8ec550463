"""Families of vectors: multivariate normal and t, Dirichlet-multinomial. Values are (n, d), one row
a vector.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

import jaxmle.special as special
from jaxmle._types import Array, NamedParams, Tree, ndarray
from jaxmle.families.counts import not_whole
from jaxmle.families.family import Family, Law, document
from jaxmle.families.moments import moments, values
from jaxmle.parameters.constraints import covariance, free, positive
from jaxmle.special.stirling import LOG_2PI


def _distance(y: Array, loc: Array, matrix: Array) -> tuple[Array, Array]:
    """((y − loc)'M⁻¹(y − loc), log det M), from the Cholesky factor; M is (d, d), or (n, d, d), one
    per row. NaN where M is not positive definite.
    """
    if y.ndim == 0 or y.shape[-1] != matrix.shape[-1]:
        raise ValueError(
            f"values must have shape (n, {matrix.shape[-1]}), one vector per row; got {y.shape}"
        )
    deviation = y - jnp.broadcast_to(loc, y.shape)
    factor = jnp.linalg.cholesky(matrix)
    if matrix.ndim == 2:
        columns = deviation.reshape(-1, y.shape[-1]).T
        z = jax.scipy.linalg.solve_triangular(factor, columns, lower=True).T.reshape(y.shape)
    else:
        z = jax.scipy.linalg.solve_triangular(factor, deviation[..., None], lower=True)[..., 0]
    return jnp.sum(z * z, axis=-1), 2 * jnp.sum(
        jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1
    )


def _correlate(p: NamedParams, matrix: str, key: Array, shape: tuple[int, ...]) -> Array:
    factor = jnp.linalg.cholesky(p[matrix])
    z = jax.random.normal(key, (*shape, factor.shape[-1]))
    return jnp.einsum("...ij,...j->...i", factor, z)


def _moments(y: Array) -> tuple[Array, Array, Tree]:
    """Mean (d,) and covariance (d, d), made positive definite by adding a thousandth of its
    diagonal if there are few rows.
    """
    mean, spread, xp = moments(y)
    y, _ = values(y)
    deviation = y - xp.broadcast_to(mean, y.shape)
    n = max(len(y), 1)
    few = 1e-3 if n <= 2 * y.shape[-1] else 1e-8
    return mean, deviation.T @ deviation / n + few * xp.diag(spread), xp


def _basis(d: int) -> ndarray:
    """The derivative of a symmetric matrix in each entry of its lower triangle, (d(d + 1)/2, d, d),
    row by row, in the order of printing.
    """
    pairs = [(i, j) for i in range(d) for j in range(i + 1)]
    basis = np.zeros((len(pairs), d, d))
    for number, (i, j) in enumerate(pairs):
        basis[number, i, j] = basis[number, j, i] = 1.0
    return basis


# ---------------------------------------------------------------- normal


def _normal_log_prob(p: NamedParams, y: Array) -> Array:
    distance, log_det = _distance(y, p["loc"], p["covariance"])
    return -0.5 * (distance + log_det + y.shape[-1] * LOG_2PI)


def _normal_guess(y: Array, known: NamedParams) -> NamedParams:
    mean, matrix, _ = _moments(y)
    return {"loc": mean, "covariance": matrix}


def _normal_information(p: NamedParams) -> Array:
    # ½ tr(Σ⁻¹ ∂Σ Σ⁻¹ ∂Σ) for the covariance, Σ⁻¹ for the mean: Magnus & Neudecker 1988, Matrix
    # Differential Calculus, chapter 15.
    precision = jnp.linalg.inv(p["covariance"])
    turned = jnp.einsum("ij,ejk->eik", precision, _basis(len(precision)))
    return jax.scipy.linalg.block_diag(0.5 * jnp.einsum("eij,fji->ef", turned, turned), precision)


multivariate_normal = Family(
    "multivariate normal",
    {"covariance": covariance, "loc": free},
    Law(
        log_prob=_normal_log_prob,
        sample=lambda p, key, shape: (
            jnp.broadcast_to(p["loc"], (*shape, p["loc"].shape[-1]))
            + _correlate(p, "covariance", key, shape)
        ),
        mean=lambda p: p["loc"],
        variance=lambda p: p["covariance"],
        support=lambda p: (-jnp.inf, jnp.inf),
        guess=_normal_guess,
        information=_normal_information,
    ),
)
document(
    multivariate_normal,
    """The multivariate normal, loc (d,) and covariance (d, d): scipy ``multivariate_normal(loc,
    covariance)``, R mvtnorm ``dmvnorm(mean, sigma)``.
    """,
)


# ---------------------------------------------------------------- t


def _t_log_prob(p: NamedParams, y: Array) -> Array:
    df = p["df"]
    d = y.shape[-1]
    distance, log_det = _distance(y, p["loc"], p["scale"])
    # Γ((ν + d)/2)/(Γ(ν/2)(ν/2)^(d/2)) as a beta function keeps its digits at a large ν.
    constant = (
        special.gammaln(0.5 * d * jnp.ones_like(df))
        - special.betaln(0.5 * df, 0.5 * d * jnp.ones_like(df))
        - 0.5 * d * jnp.log(df * math.pi)
    )
    return constant - 0.5 * log_det - 0.5 * (df + d) * jnp.log1p(distance / df)


def _t_sample(p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
    normal_key, gamma_key = jax.random.split(key)
    mixing = jnp.exp(jax.random.loggamma(gamma_key, 0.5 * p["df"], shape)) / (0.5 * p["df"])
    return (
        jnp.broadcast_to(p["loc"], (*shape, p["loc"].shape[-1]))
        + _correlate(p, "scale", normal_key, shape) / jnp.sqrt(mixing)[..., None]
    )


def _t_guess(y: Array, known: NamedParams) -> NamedParams:
    """Moments at df = 8, whose variance is 8/6 of the scale."""
    mean, matrix, xp = _moments(y)
    return {"df": xp.asarray(8.0), "loc": mean, "scale": 0.75 * matrix}


def _t_variance(p: NamedParams) -> Array:
    df = p["df"]
    factor = jnp.where(
        df > 2, df / jnp.where(df > 2, df - 2, 1.0), jnp.where(df > 1, jnp.inf, jnp.nan)
    )
    return factor[..., None, None] * p["scale"]


def _t_information(p: NamedParams) -> Array:
    # Lange, Little & Taylor 1989, Journal of the American Statistical Association 84, appendix B.
    df = p["df"]
    d = p["scale"].shape[-1]
    precision = jnp.linalg.inv(p["scale"])
    more = p["df"] + d + 2
    turned = jnp.einsum("ij,ejk->eik", precision, _basis(d))
    traces = jnp.einsum("eii->e", turned)
    scale = (df + d) / (2 * more) * jnp.einsum("eij,fji->ef", turned, turned) - jnp.outer(
        traces, traces
    ) / (2 * more)
    df_entry = 0.25 * (special.trigamma(df / 2) - special.trigamma((df + d) / 2)) - d * (
        df + d + 4
    ) / (2 * df * (df + d) * more)
    cross = jnp.concatenate([jnp.zeros(d), -traces / ((df + d) * more)])[None, :]
    rest = jax.scipy.linalg.block_diag((df + d) / more * precision, scale)
    return jnp.block([[df_entry[None, None], cross], [cross.T, rest]])


multivariate_t = Family(
    "multivariate t",
    {"df": positive, "loc": free, "scale": covariance},
    Law(
        log_prob=_t_log_prob,
        sample=_t_sample,
        mean=lambda p: jnp.where(p["df"] > 1, p["loc"], jnp.nan),
        variance=_t_variance,
        support=lambda p: (-jnp.inf, jnp.inf),
        guess=_t_guess,
        information=_t_information,
    ),
)
document(
    multivariate_t,
    """The multivariate t, df, loc (d,) and scale matrix (d, d): scipy ``multivariate_t(loc,
    shape=scale, df)``, R mvtnorm ``dmvt(delta, sigma, df)``. The scale matrix is the covariance
    times (df − 2)/df.
    """,
)


# ---------------------------------------------------------------- Dirichlet-multinomial


def _dirichlet_multinomial_log_prob(p: NamedParams, y: Array) -> Array:
    concentration = p["concentration"]
    if y.ndim == 0 or y.shape[-1] != concentration.shape[-1]:
        raise ValueError(
            f"values must have shape (n, {concentration.shape[-1]}), the counts of the categories "
            f"in each row; got {y.shape}"
        )
    outside = not_whole(y, jnp.asarray(jnp.inf))
    counts = jnp.where(outside, 0.0, y)
    log_prob = special.dirichlet_multinomial_logpmf(
        jnp.moveaxis(counts, -1, 0), jnp.moveaxis(jnp.broadcast_to(concentration, y.shape), -1, 0)
    )
    return jnp.where(jnp.any(outside, axis=-1), -jnp.inf, log_prob)


def _dirichlet_multinomial_guess(y: Array, known: NamedParams) -> NamedParams:
    """The pooled shares, and the correlation ρ = 1/(A + 1) of two trials of a row from the mean
    squared residual, whose expectation is n(K − 1)(1 + (n − 1)ρ).
    """
    y, xp = values(y)
    trials = xp.sum(y, axis=-1, keepdims=True)
    categories = y.shape[-1]
    shares = (xp.sum(y, axis=0) + 0.5) / (xp.sum(trials) + 0.5 * categories)
    squares = xp.sum((y - trials * shares) ** 2 / shares) / max(categories - 1, 1)
    pairs = xp.sum(trials * (trials - 1.0))
    excess = (squares - xp.sum(trials)) / xp.maximum(pairs, 1e-12)
    return {"concentration": shares * (1 / xp.clip(excess, 0.01, 0.8) - 1)}


dirichlet_multinomial = Family(
    "Dirichlet-multinomial",
    {"concentration": positive},
    Law(
        log_prob=_dirichlet_multinomial_log_prob,
        support=lambda p: (0.0, jnp.inf),
        guess=_dirichlet_multinomial_guess,
    ),
    discrete=True,
)
document(
    dirichlet_multinomial,
    """Counts (n, k) in k categories given their sum in each row, a multinomial whose probabilities
    are Dirichlet(``concentration``), (k,): scipy ``dirichlet_multinomial(concentration, n)``, R
    VGAM ``dirmul``. Counts that are not overdispersed have their maximum at an infinite
    concentration, the multinomial. Without a given sum it has no mean and no sampler.
    """,
)
