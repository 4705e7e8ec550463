"""Residuals from the fitted distribution of each response: its mean and variance, its log density,
or its distribution function.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from jaxmle._namespace import is_traced
from jaxmle._types import Array, ArrayLike, DType, Key, Namespace
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.runtime.compile import tracing


@with_keyword_hints
def pearson_residuals(y: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Array:
    """Pearson residuals (y − μ)/√V, with mean 0 and variance 1 if the model is right.

    Args:
        y, mean, variance: arrays that broadcast, such as (n,); the variance of the response
            includes its dispersion.

    Returns:
        Residuals of that shape; NaN if the variance is not positive.

    Raises:
        TypeError: for anything but numbers.
        ValueError: for arrays of different shapes.

    >>> pearson_residuals([3.0, 0.0], [1.0, 1.0], [4.0, 1.0]).tolist()
    [1.0, -1.0]
    """
    xp, (y, mean, variance) = _arrays(y=y, mean=mean, variance=variance)
    return (y - mean) / xp.sqrt(xp.where(variance > 0, variance, xp.nan))


@with_keyword_hints
def deviance_residuals(
    y: ArrayLike, mean: ArrayLike, terms: ArrayLike, saturated: ArrayLike
) -> Array:
    """Deviance residuals sign(y − μ)·√(2(ℓ_sat − ℓ)), whose squares sum to the deviance.

    Args:
        y, mean: response and fitted mean, (n,).
        terms: the log-likelihood term of each observation at the estimate, (n,).
        saturated: the largest value of the term for that response over all means, (n,).

    Returns:
        Residuals (n,). If rounding leaves ℓ slightly above ℓ_sat, they count as equal; a term
        clearly above ℓ_sat gives NaN.

    Raises:
        TypeError: for anything but numbers.
        ValueError: for arrays of different shapes.

    Source: McCullagh & Nelder (1989), *Generalized Linear Models*, section 2.4.3.

    >>> import numpy as np
    >>> y, mean = np.array([2.0, 0.0]), np.array([1.0, 0.5])
    >>> poisson = lambda mu: (
    ...     np.where(y > 0, y * np.log(np.where(mu > 0, mu, 1.0)), 0.0) - mu
    ... )  # without the constant
    >>> deviance_residuals(y, mean, poisson(mean), poisson(y)).round(4).tolist()
    [0.8789, -1.0]
    """
    named = _arrays(y=y, mean=mean, terms=terms, saturated=saturated)
    xp, (response, center, fitted, best) = named
    square = 2 * (best - fitted)
    noise = 16 * xp.finfo(square.dtype).eps * (1 + xp.abs(fitted))
    return xp.sign(response - center) * xp.sqrt(
        xp.where(square >= 0, square, xp.where(square >= -noise, 0.0, xp.nan))
    )


@with_keyword_hints
def pit(cdf: ArrayLike | None, below: ArrayLike | None = None, *, key: Key | None = None) -> Array:
    """Probability integral transforms F(y), uniform on (0, 1) if the model is right; randomised for
    a discrete response.

    u = F(y−) + v{F(y) − F(y−)} with v uniform (Brockwell 2007). The same formula is used for a
    response known only to lie in an interval, such as a censored time: ``below`` is F at its lower
    end and ``cdf`` F at its upper end (1 if that is infinite). Without a key v = ½, the mid-point,
    which is not uniform but has no noise.

    Args:
        cdf: F(y) of each observation, (n,).
        below: F(y−), the probability of a smaller value, (n,); None for a continuous response.
        key: a jax random key, or an integer.

    Returns:
        Values (n,) between ``below`` and ``cdf``; NaN if these are not probabilities in that order.

    Raises:
        TypeError: for anything but numbers.
        ValueError: for arrays of different shapes.

    >>> pit([0.3, 0.9]).tolist(), pit([0.3, 0.9], [0.1, 0.9]).tolist()
    ([0.3, 0.9], [0.2, 0.9])
    """
    if below is None:
        xp, (cdf,) = _arrays(cdf=cdf)
        return xp.where((cdf >= 0) & (cdf <= 1), cdf, xp.nan)
    xp, (cdf, below) = _arrays(cdf=cdf, below=below)
    sound = (below >= 0) & (below <= cdf) & (cdf <= 1)
    share = 0.5 if key is None else _uniform(key, np.shape(cdf), cdf.dtype, xp)
    return xp.where(sound, below + share * (cdf - below), xp.nan)


@with_keyword_hints
def quantile_residuals(
    cdf: ArrayLike | None,
    below: ArrayLike | None = None,
    *,
    sf: ArrayLike | None = None,
    key: Key | None = None,
) -> Array:
    """Quantile residuals, Φ⁻¹ of the probability integral transform: standard normal if the model
    is right, whatever the distribution of the response.

    Args:
        cdf, below, key: as in ``pit``.
        sf: 1 − F(y) of a continuous response, (n,), if the model computes it separately: in the
            upper tail it keeps the digits that F(y) ≈ 1 loses.

    Returns:
        Residuals (n,); ±inf if the response has probability zero under the model; NaN if ``cdf`` or
        ``sf`` is not a probability, or the two do not sum to 1.

    Raises:
        TypeError: for anything but numbers.
        ValueError: for arrays of different shapes, or both ``sf`` and ``below``.

    Source: Dunn & Smyth (1996), Journal of Computational and Graphical Statistics 5, 236–244.

    >>> quantile_residuals([0.5, 0.975]).round(4).tolist()
    [0.0, 1.96]
    """
    if sf is not None and below is not None:
        raise ValueError(
            "sf is for a continuous response, below for a discrete one: give only one of them"
        )
    if sf is None:
        u = pit(cdf, below, key=key)
        return _normal_quantile(np if isinstance(u, np.ndarray | np.generic) else jnp, u)
    xp, (lower, upper) = _arrays(cdf=cdf, sf=sf)
    sound = (xp.minimum(lower, upper) >= 0) & (xp.maximum(lower, upper) <= 1)
    whole = xp.abs(lower + upper - 1) <= math.sqrt(xp.finfo(lower.dtype).eps)
    tail = _normal_quantile(xp, xp.where(sound & whole, xp.minimum(lower, upper), xp.nan))
    return xp.where(lower > 0.5, -tail, tail)


def _normal_quantile(xp: Namespace, u: Array) -> Array:
    return scipy.special.ndtri(u) if xp is np else jax.scipy.special.ndtri(u)


def _arrays(**named: ArrayLike | None) -> tuple[Namespace, list[Array]]:
    """The arguments as floating-point arrays of the same shape; JAX arrays under a trace, otherwise
    NumPy arrays.
    """
    xp: Namespace = jnp if tracing() or any(is_traced(value) for value in named.values()) else np
    arrays = [xp.asarray(value) for value in named.values()]
    for (name, given), value in zip(named.items(), arrays, strict=True):
        if value.dtype.kind not in "fiub":
            got = shown(given) if value.dtype == object else f"dtype {value.dtype}"
            raise TypeError(f"{name} must be numbers; got {got}")
    shape = max((value.shape for value in arrays), key=len)
    # An array (n, 1) and one (n,) would broadcast to (n, n).
    if any(value.shape not in ((), shape) for value in arrays):
        raise ValueError(
            "residuals need arrays of the same shape; got "
            + ", ".join(f"{name} {value.shape}" for name, value in zip(named, arrays, strict=True))
        )
    real = xp.result_type(*arrays, float if xp is np else jnp.zeros(()).dtype)
    return xp, [xp.broadcast_to(value.astype(real), shape) for value in arrays]


def _uniform(key: Key | None, shape: tuple[int, ...], dtype: DType, xp: Namespace) -> Array:
    key = (
        jax.random.key(int(key))
        if isinstance(key, int | np.integer) and not isinstance(key, bool)
        else key
    )
    if not isinstance(key, jax.Array):
        raise TypeError(f"key must be a jax random key or an integer; got {type(key).__name__}")
    drawn = jax.random.uniform(key, shape, dtype if xp is jnp else None)
    return drawn if xp is jnp else np.asarray(drawn, dtype)
