"""Start values: weighted least squares of a transformed response, and moments. NumPy on the host,
jax.numpy under tracing.

Every function also accepts leading axes over the members of a batch: y (…, n), and a design (…, n,
q) or one (n, q) shared by all members.
"""

from __future__ import annotations

import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.likelihood.contract import leaf_of


def column(data: Tree, name: str) -> Array:
    """The leaf ``name`` as finite floats (…, n): non-finite values become 0, since the fit itself
    reports them.
    """
    value = leaf_of(data, name)
    xp = namespace(value)
    real = (
        value
        if np.issubdtype(value.dtype, np.floating)
        else value.astype(np.float64 if xp is np else xp.result_type(float))
    )
    if xp is np and np.isfinite(np.sum(real)):
        return real  # no copy of a large design
    return xp.nan_to_num(real, nan=0.0, posinf=0.0, neginf=0.0)


def design(data: Tree, x: str, y: Array) -> tuple[Array, bool]:
    """The design leaf (…, n, q), and whether it was given as one column (n,), whose coefficient
    is then a scalar.
    """
    value = column(data, x)
    single = value.ndim == 1 or (value.shape == y.shape and value.ndim == y.ndim)
    value = value[..., None] if single else value
    if value.ndim < 2 or value.shape[-2] != y.shape[-1]:
        raise ValueError(
            f"data[{x!r}] must hold one row for each response, ({y.shape[-1]}, q); got "
            f"shape {value.shape} for a response of shape {y.shape}. A response must be "
            "one number for each row, (n,): write a column as y[:, 0]."
        )
    return value, single


def least_squares(x: Array, z: Array, w: Array | None = None) -> Array:
    """Coefficients (…, q) of the weighted regression of z (…, n) on x (…, n, q), with a ridge
    so small that it matters only where columns are collinear.
    """
    xp = namespace(z)
    across = xp.swapaxes(x if w is None else x * w[..., None], -1, -2)
    gram = across @ x
    right = (across @ z[..., None])[..., 0]
    size = xp.sqrt(xp.diagonal(gram, axis1=-2, axis2=-1))
    scale = xp.where(size > 0, size, 1.0)
    ridge = 10 * np.sqrt(float(np.finfo(z.dtype).eps)) * xp.eye(x.shape[-1], dtype=z.dtype)
    unit = gram / (scale[..., :, None] * scale[..., None, :]) + ridge.reshape(
        (1,) * (gram.ndim - 2) + ridge.shape
    )
    solution = xp.linalg.solve(unit, (right / scale)[..., None])[..., 0] / scale
    return xp.nan_to_num(solution, nan=0.0, posinf=0.0, neginf=0.0)


def fitted(x: Array, beta: Array) -> Array:
    """The predictor x β, (…, n)."""
    return (x @ beta[..., None])[..., 0]


def regress(data: Tree, x: str, z: Array, w: Array | None = None) -> tuple[Array, Array]:
    """Least squares on the leaf ``x``: coefficients in the shape of the parameter leaf, and fitted
    values (…, n).
    """
    matrix, single = design(data, x, z)
    beta = least_squares(matrix, z, w)
    return (beta[..., 0] if single else beta), fitted(matrix, beta)


def spread(residual: Array, y: Array) -> Array:
    """The root mean square of residuals (…, n), at least a thousandth of the standard deviation of
    y; of the size of y if that deviation is only rounding.
    """
    xp = namespace(y)
    level = xp.sqrt(xp.mean(y * y, axis=-1))
    deviation = xp.sqrt(xp.mean((y - xp.mean(y, axis=-1, keepdims=True)) ** 2, axis=-1))
    size = xp.where(deviation > 8 * float(np.finfo(y.dtype).eps) * level, deviation, level)
    return xp.maximum(
        xp.sqrt(xp.mean(residual * residual, axis=-1)), xp.where(size > 0, 1e-3 * size, 1.0)
    )


def clip(value: Array, low: float, high: float) -> Array:
    """The value between low and high; low where it is NaN."""
    xp = namespace(value)
    return xp.clip(xp.nan_to_num(value, nan=low, posinf=high, neginf=low), low, high)
