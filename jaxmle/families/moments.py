"""Moments for start values: in NumPy for NumPy arrays, in jax for traced ones, and finite whatever
the data.
"""

from __future__ import annotations

import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.parameters.constraints import CONSTRAINT_KINDS, Interval


def values(y: Array) -> tuple[Array, Tree]:
    """y as a floating array (n,), with non-finite values replaced by the mean of the others, and
    its array module.

    A start must be finite even if the data are not: the fit then reports the bad rows.
    """
    xp = namespace(y if hasattr(y, "dtype") else np.asarray(y))
    y = xp.asarray(y)
    y = y if xp.issubdtype(y.dtype, xp.floating) else y.astype(xp.result_type(float))
    fine = xp.isfinite(y)
    mean = xp.sum(xp.where(fine, y, 0.0), axis=0) / xp.maximum(xp.sum(fine, axis=0), 1)
    return xp.where(fine, y, mean), xp


def moments(y: Array) -> tuple[Array, Array, Tree]:
    """Mean and variance (divisor n), the latter above zero: for a constant c a tenth of |c| is
    taken as the standard deviation.

    Values count as constant if they deviate only by rounding, eight ulps: small differences around
    an offset of 1e6 are genuine.
    """
    y, xp = values(y)
    n = max(len(y), 1)
    mean = xp.sum(y, axis=0) / n
    variance = xp.sum((y - mean) ** 2, axis=0) / n
    spare = xp.where(mean != 0, 0.01 * mean**2, 1.0)
    rounding = 8 * float(np.finfo(y.dtype).eps) * xp.abs(mean)
    return mean, xp.where(variance > rounding**2, variance, spare), xp


def positive_moments(y: Array) -> tuple[Array, Array, Tree]:
    """The moments of the positive values, for families on (0, ∞)."""
    y, xp = values(y)
    mean = xp.sum(xp.where(y > 0, y, 0.0)) / xp.maximum(xp.sum(y > 0), 1)
    mean = xp.where(mean > 0, mean, 1.0)
    return moments(xp.where(y > 0, y, mean))


def quantiles(y: Array, *probabilities: float) -> tuple[Array, ...]:
    """Sample quantiles, between order statistics."""
    y, xp = values(y)
    return (
        tuple(xp.quantile(y, q) for q in probabilities)
        if len(y)
        else tuple(xp.zeros(()) for _ in probabilities)
    )


def finite_start(start: Tree, constraints: Tree) -> Tree:
    """Start values; those that overflowed or left their interval are moved inside it."""
    if isinstance(start, dict):
        return {
            name: finite_start(
                value, constraints.get(name) if isinstance(constraints, dict) else constraints
            )
            for name, value in start.items()
        }
    if isinstance(start, tuple):
        return tuple(
            finite_start(value, constraints[i] if isinstance(constraints, tuple) else constraints)
            for i, value in enumerate(start)
        )
    if not isinstance(constraints, CONSTRAINT_KINDS) or not isinstance(constraints, Interval):
        return start
    low = constraints.lower
    high = constraints.upper
    spare = (
        0.0
        if np.isinf(low) and np.isinf(high)
        else low + 1.0
        if np.isinf(high)
        else high - 1.0
        if np.isinf(low)
        else 0.5 * (low + high)
    )
    xp = namespace(start if hasattr(start, "dtype") else np.asarray(start))
    start = xp.asarray(start)
    return xp.where(xp.isfinite(start) & (start > low) & (start < high), start, spare)
