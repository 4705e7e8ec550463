"""Linear algebra of p × p symmetric matrices. The same code runs in NumPy on the host, for one fit
or with an axis of members last (``leading_axes``), and in JAX under a trace.

``R`` is always a matrix scaled to unit diagonal, D⁻¹JD⁻¹. Small Cholesky factors are unrolled: with
a batch axis last that is many times faster than one LAPACK call for each matrix. Eigenvectors are
needed only if a matrix is not positive definite, and ``rarely`` computes them only then.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import HOST, namespace
from jaxmle._types import Array, ndarray
from jaxmle.solvers.leading_axes import (
    diagonal,
    identity,
    product,
    times,
    transposed,
)

MAX_UNROLLED_SIZE = 8  # compile time grows as p³; beyond this LAPACK is as fast


Rows = list[
    list[Array]
    # a small factor written out: its entries, never gathered into a matrix, which would cost more
    # than the arithmetic
]


def factored(r: Array, unrolled: bool = False) -> Array | Rows:
    """Lower Cholesky factor of R (p, p, ...): a matrix, or its rows where it is small and
    ``unrolled`` under a trace; not finite where R is not positive definite.
    """
    if isinstance(r, np.ndarray):
        if r.ndim > 2:
            return _factored_by_columns(r)
        try:
            return np.linalg.cholesky(r)
        except np.linalg.LinAlgError:  # R is not positive definite
            return np.full_like(r, np.nan)
    p = r.shape[-1]
    if not is_written_out(p, unrolled):
        return jax.lax.linalg.cholesky(r, symmetrize_input=False)
    rows: Rows = [[] for _ in range(p)]
    for j in range(p):
        rows[j].append(
            jnp.sqrt(r[j, j] - sum((rows[j][m] ** 2 for m in range(j)), jnp.zeros_like(r[0, 0])))
        )
        for i in range(j + 1, p):
            rows[i].append(
                (
                    r[i, j]
                    - sum((rows[i][m] * rows[j][m] for m in range(j)), jnp.zeros_like(r[0, 0]))
                )
                / rows[j][j]
            )
    return rows


def _factored_by_columns(r: ndarray) -> ndarray:
    """Lower Cholesky factors of many matrices (p, p, b), computed one column at a time for all
    matrices together.
    """
    factor = np.zeros_like(r)
    for j in range(len(r)):
        rest = r[j:, j]
        if j:
            rest = rest - times(factor[j:, :j], factor[j, :j])
        factor[j:, j] = rest / np.sqrt(rest[0])
    return factor


def cholesky(r: Array, unrolled: bool = False) -> Array:
    """Lower Cholesky factor (p, p); NaN where R is not positive definite. ``unrolled`` writes a
    small one out.
    """
    factor = factored(r, unrolled)
    if not isinstance(factor, list):
        return factor
    return jnp.stack(
        [jnp.stack([*row, *[jnp.zeros_like(row[0])] * (len(factor) - len(row))]) for row in factor]
    )


def pivots(factor: Array | Rows) -> Array:
    """The pivots (p, ...) of a factor; 0 from the first pivot that is not positive on, after which
    all entries are NaN.
    """
    if isinstance(factor, list):
        diagonals: Array = jnp.stack([row[-1] for row in factor])
        return jnp.where(jnp.isfinite(diagonals) & (diagonals > 0), diagonals, 0.0)
    diagonals = diagonal(factor)
    xp = namespace(diagonals)
    return xp.where(xp.isfinite(diagonals) & (diagonals > 0), diagonals, 0.0)


def least_pivot(factor: Array | Rows) -> Array:
    """The least pivot (...) of a factor; 0 where the matrix is not positive definite."""
    entries = pivots(factor)
    return namespace(entries).min(entries, axis=0)


def is_written_out(p: int, unrolled: bool) -> bool:
    """Whether the factor of a (p, p) matrix is computed by unrolled scalar code: under a trace for
    an accelerator. On a CPU, a LAPACK call per matrix takes a microsecond and compiles in less than
    a tenth of the time.
    """
    return unrolled and p <= MAX_UNROLLED_SIZE and jax.default_backend() != "cpu"


def _solved(factor: Array, b: Array, transposed: bool) -> Array:
    """L⁻¹ b, or L⁻ᵀ b where ``transposed``, b (p,) or (p, q), by LAPACK."""
    columns = b if b.ndim == factor.ndim else b[:, None]
    solved = jax.lax.linalg.triangular_solve(
        factor, columns, left_side=True, lower=True, transpose_a=transposed
    )
    return solved.reshape(b.shape)


def solve_lower(factor: Array | Rows, b: Array, unrolled: bool = False) -> Array:
    """L⁻¹ b for b of shape (p, ...) or (p, q, ...)."""
    if isinstance(factor, np.ndarray):
        return np.linalg.solve(factor, b) if factor.ndim == 2 else _solved_by_rows(factor, b)
    p = len(factor)
    if not isinstance(factor, list) and not is_written_out(p, unrolled):
        return _solved(factor, b, False)
    out: list[Array] = []
    for i in range(p):
        out.append(
            (b[i] - sum((factor[i][m] * out[m] for m in range(i)), jnp.zeros_like(b[0])))
            / factor[i][i]
        )
    return jnp.stack(out)


def inverse_factor(r: Array) -> Array:
    """L⁻¹ (p, p, ...) where R = LL'."""
    factor = factored(r, unrolled=True)
    if isinstance(factor, np.ndarray) and factor.ndim == 2:
        return np.linalg.inv(factor)
    return solve_lower(factor, identity(r) + namespace(r).zeros_like(r), unrolled=True)


def _solved_by_rows(factor: Array, b: Array) -> Array:
    """L⁻¹ b for many factors (p, p, n), b (p, n) or (p, q, n)."""
    out = np.empty_like(b)
    is_matrix = b.ndim == factor.ndim
    for i in range(len(factor)):
        row = factor[i, :i, None] if is_matrix else factor[i, :i]
        out[i] = (b[i] - np.sum(row * out[:i], axis=0)) / factor[i, i]
    return out


def solve_upper(factor: Array | Rows, b: Array, unrolled: bool = False) -> Array:
    """L⁻ᵀ b for b of shape (p, ...) or (p, q, ...)."""
    if isinstance(factor, np.ndarray):
        if factor.ndim == 2:
            return np.linalg.solve(factor.T, b)
        return _solved_by_rows(transposed(factor)[::-1, ::-1], b[::-1])[::-1]
    p = len(factor)
    if not isinstance(factor, list) and not is_written_out(p, unrolled):
        return _solved(factor, b, True)
    out: list[Array] = [jnp.zeros_like(b[0])] * p
    for i in reversed(range(p)):
        out[i] = (
            b[i] - sum((factor[m][i] * out[m] for m in range(i + 1, p)), jnp.zeros_like(b[0]))
        ) / factor[i][i]
    return jnp.stack(out)


def eigh(r: Array) -> tuple[Array, Array]:
    """Eigenvalues (p, ...) in ascending order and eigenvectors (p, p, ...) in columns. A matrix
    that is not finite is treated as zero.
    """
    xp = namespace(r)
    r = xp.where(xp.all(xp.isfinite(r), axis=(0, 1)), r, xp.zeros_like(r))
    if r.ndim == 2:
        if isinstance(r, np.ndarray):
            decomposed = np.linalg.eigh(r)
            return decomposed.eigenvalues, decomposed.eigenvectors
        # as NumPy does, by one triangle
        vectors, values = jax.lax.linalg.eigh(r, symmetrize_input=False)
        return values, vectors
    values, vectors = xp.linalg.eigh(xp.moveaxis(r, -1, 0))
    return xp.moveaxis(values, 0, -1), xp.moveaxis(vectors, 0, -1)


def from_eigen(q: Array, values: Array) -> Array:
    """The matrix (p, p, ...) of eigenvectors (p, p, ...) in columns and eigenvalues (p, ...)."""
    return product(q * values[None], transposed(q))


def metric_of(j: Array, s: Array) -> Array:
    """The scale D (p, ...) of each coordinate, in units of 1/θ: √|J_jj|; |s_j| where there is no
    curvature.

    If both are zero, D_j is the coupling |J_ij|/D_i to the other coordinates; if that is zero too,
    1.
    """
    xp = namespace(j)
    d = xp.sqrt(xp.abs(diagonal(j)))
    tiny = xp.finfo(j.dtype).tiny ** 0.5
    if xp is HOST and xp.all(d > tiny):
        return d
    slope = xp.abs(s)
    known = xp.where(d > tiny, d, slope)
    if xp is HOST and xp.all(known > tiny):
        return known
    safe = xp.where(known > tiny, known, 1.0)
    coupling = xp.max(xp.where((known > tiny)[:, None], xp.abs(j) / safe[:, None], 0.0), axis=0)
    return xp.where(known > tiny, safe, xp.where(coupling > tiny, coupling, xp.ones_like(d)))
