"""Adjusted p-values, which keep the error rate of a family of tests."""

from __future__ import annotations

import jax
import numpy as np

from jaxmle._namespace import HOST, namespace
from jaxmle._types import Array, ArrayLike, FunctionTo, Namespace
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.keywords import with_keyword_hints


@with_keyword_hints
def holm(pvalues: ArrayLike, axis: int = -1) -> Array:
    """Holm's adjusted p-values: rejecting those at most α keeps the probability of any false
    rejection at α, whatever the dependence.

        p̃₍ᵢ₎ = max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎), j = 1 … m in increasing order

    (Holm 1979, Scandinavian Journal of Statistics 6, 65–70). R: ``p.adjust(p, "holm")``.

    Args:
        pvalues: an array of p-values; NaN stays NaN and does not count in m.
        axis: the axis along which a family of tests runs.

    Returns:
        Adjusted p-values of the same shape.

    Raises:
        TypeError: for anything but numbers.
        ValueError: for a single number, or a number outside [0, 1].

    >>> import numpy as np
    >>> holm(np.array([0.01, 0.04, 0.03, np.nan])).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    ascending, m, order = _sorted(pvalues, axis)
    xp = namespace(ascending)
    rank = xp.arange(ascending.shape[-1])
    raised = xp.minimum(1.0, xp.maximum(m - rank, 1) * ascending)
    return _put_back(_running(xp, "maximum", raised), order, pvalues, axis)


@with_keyword_hints
def benjamini_hochberg(pvalues: ArrayLike, axis: int = -1) -> Array:
    """Benjamini and Hochberg's adjusted p-values: rejecting those at most α keeps the expected
    proportion of false rejections at α.

        p̃₍ᵢ₎ = min over j ≥ i of min(1, m p₍ⱼ₎ / j), j = 1 … m in increasing order

    for independent or positively dependent tests (Benjamini & Hochberg 1995, JRSS B 57, 289–300).
    R: ``p.adjust(p, "BH")``.

    Args:
        pvalues: an array of p-values; NaN stays NaN and does not count in m.
        axis: the axis along which a family of tests runs.

    Returns:
        Adjusted p-values of the same shape.

    Raises:
        TypeError: for anything but numbers.
        ValueError: for a single number, or a number outside [0, 1].

    >>> import numpy as np
    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03, np.nan])).round(10).tolist()
    [0.03, 0.04, 0.04, nan]
    """
    ascending, m, order = _sorted(pvalues, axis)
    xp = namespace(ascending)
    rank = xp.arange(1, ascending.shape[-1] + 1)
    raised = xp.minimum(1.0, m * ascending / rank)
    lowest = _running(xp, "minimum", xp.where(xp.isnan(raised), xp.inf, raised)[..., ::-1])[
        ..., ::-1
    ]
    return _put_back(xp.where(xp.isnan(ascending), xp.nan, lowest), order, pvalues, axis)


def _sorted(pvalues: ArrayLike, axis: int) -> tuple[Array, Array, Array]:
    """The p-values in increasing order along the last axis, NaN last; how many there are; the
    order.
    """
    p = pvalues if isinstance(pvalues, jax.Array) else np.asarray(pvalues)
    if isinstance(pvalues, np.ma.MaskedArray) or (p.size and p.dtype.kind not in "fiu"):
        raise TypeError(
            f"pvalues must be an array of numbers between 0 and 1; got {shown(pvalues)}"
        )
    p = p if isinstance(p, jax.Array) else p.astype(float)
    if not p.ndim:
        raise ValueError("pvalues must be an array; got one number")
    if isinstance(p, np.ndarray) and np.any((p < 0) | (p > 1)):
        raise ValueError(f"p-values must lie between 0 and 1; got {float(p[(p < 0) | (p > 1)][0])}")
    if (
        isinstance(axis, bool)
        or not isinstance(axis, int | np.integer)
        or not -p.ndim <= axis < p.ndim
    ):
        raise ValueError(f"axis must be an integer, one of the {p.ndim} axes; got {shown(axis)}")
    xp = namespace(p)
    p = xp.moveaxis(p, axis, -1)
    order = xp.argsort(p, axis=-1)
    return (
        xp.take_along_axis(p, order, axis=-1),
        xp.sum(~xp.isnan(p), axis=-1, keepdims=True),
        order,
    )


def _running(xp: Namespace, what: str, values: Array) -> Array:
    """The running maximum or minimum along the last axis."""
    if xp is HOST:
        return getattr(np, what).accumulate(values, axis=-1)
    running: dict[str, FunctionTo[Array]] = {
        "maximum": jax.lax.cummax,
        "minimum": jax.lax.cummin,
    }
    return running[what](values, axis=values.ndim - 1)


def _put_back(adjusted: Array, order: Array, pvalues: ArrayLike, axis: int) -> Array:
    xp = namespace(adjusted)
    return xp.moveaxis(xp.take_along_axis(adjusted, xp.argsort(order, axis=-1), axis=-1), -1, axis)
