"""Terms that depend only on a count and constant predictors, such as log Γ(y + size): a sum over
the distinct counts instead of the rows.

A regression names such terms (``regression(…, counts=…)``). On the host, where the data are known,
it is given how often each count occurs; the pass over the rows then leaves these terms out and
evaluates them once for each count. Everything that needs single rows, or other data or weights,
uses the regression without histograms, which includes these terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from jaxmle._types import Array, DTypeLike, Loglik, Tree, ndarray
from jaxmle.likelihood.combinators import Weight
from jaxmle.likelihood.contract import leaf_of
from jaxmle.likelihood.regression import Histogram, Regression

# The length of a histogram is 2ᵏ times one of these, so that few shapes are compiled.
HISTOGRAM_LENGTH_FACTORS = (4, 6)
MIN_ROWS_PER_COUNT = 2  # rows for each entry of a histogram from which it saves work
# counts below this multiple of the rows of a member are counted with a complete table, which takes
# no more memory than the data
MAX_TABLE_PER_ROW = 2


def counts_of(loglik: Loglik) -> tuple[str, ...]:
    """The leaves of counts of the regression in ``loglik``; none if it is in a pool."""
    if isinstance(loglik, Regression):
        return tuple(name for name, _ in loglik.counts)
    inner = getattr(loglik, "loglik", None)
    return () if inner is None else counts_of(inner)


def distinct(y: ndarray, sizes: ndarray) -> ndarray:
    """The number of distinct counts in each of consecutive parts of y (N,) with this many rows,
    (b,); 0 for all if y also holds other numbers.
    """
    finite = _zeroed(y)
    if y.size == 0 or finite.min() < 0 or finite.max() >= 2.0**31:
        return np.zeros(len(sizes), int)
    whole = finite.astype(np.int32)
    if not np.array_equal(whole, finite):
        return np.zeros(len(sizes), int)
    span = int(whole.max()) + 1
    members = len(sizes)
    keys = whole + span * np.repeat(np.arange(members), sizes)
    if span * members <= MAX_TABLE_PER_ROW * y.size:
        return np.count_nonzero(_occurring(keys, span * members).reshape(members, span), axis=1)
    keys = np.sort(keys.astype(np.int32) if span * members < 2**31 else keys)
    first = np.concatenate([[True], keys[1:] != keys[:-1]])
    return np.bincount(keys[first] // span, minlength=members)


def _zeroed(y: Array) -> Array:
    """y with zeros for non-finite values; y itself if all values are finite."""
    known = np.isfinite(y)
    return y if known.all() else np.where(known, y, 0)


def _occurring(keys: Array, number: int) -> Array:
    """Which of the keys 0, 1, … (number,) occur."""
    seen = np.zeros(number, bool)
    seen[keys] = True
    return seen


def counted(
    loglik: Loglik, data: Tree, distinct_counts: tuple[int, ...], dtype: DTypeLike
) -> Loglik:
    """The likelihood with histograms, if they are less work than the rows.

    Args:
        data: NumPy leaves (n, …), or (b, n, …) for the members of a batch; so too the weights
            inside the likelihood.
        found: for each leaf of counts the largest number of distinct counts; 0 if it holds other
            numbers.
    """

    def fill(regression: Regression, weights: Array | None) -> Regression:
        leaves = [np.asarray(leaf_of(data, name)) for name, _ in regression.counts]
        sizes = [_rounded(m) for m in distinct_counts]
        if (
            not leaves
            or not all(distinct_counts)
            or not all(
                MIN_ROWS_PER_COUNT * m <= leaf.shape[-1]
                for leaf, m in zip(leaves, sizes, strict=True)
            )
        ):
            return regression
        made = [histogram(leaf, weights, m) for leaf, m in zip(leaves, sizes, strict=True)]
        return replace(
            regression,
            histograms=tuple(
                Histogram(counts.values.astype(dtype), counts.weights.astype(dtype))
                for counts in made
            ),
        )

    return _at_regression(loglik, fill, None)


def _rounded(m: int) -> int:
    k = 0
    while max(HISTOGRAM_LENGTH_FACTORS) << k < m:
        k += 1
    return min(step << k for step in HISTOGRAM_LENGTH_FACTORS if step << k >= m)


def flagged(flags: Tree, loglik: Loglik) -> Tree:
    """Extend a tree of is-shared flags, made for a likelihood without histograms, with flags for
    the histograms of ``loglik``.
    """
    if isinstance(loglik, Regression):

        def shared(counts: Tree) -> Histogram:
            return Histogram(counts.values.ndim == 1, counts.weights.ndim == 1)

        return replace(
            flags,
            histograms=None if loglik.histograms is None else tuple(map(shared, loglik.histograms)),
        )
    inner = getattr(loglik, "loglik", None)
    return flags if inner is None else replace(flags, loglik=flagged(flags.loglik, inner))


def uncounted(loglik: Loglik) -> Loglik:
    """The likelihood without histograms."""
    return _at_regression(loglik, lambda regression, _: replace(regression, histograms=None), None)


def _at_regression(
    loglik: Tree, change: Callable[[Regression, Array | None], Regression], weights: Array | None
) -> Loglik:
    """The likelihood with the regression inside changed by a function, which also receives the
    product of the weights outside it.
    """
    if isinstance(loglik, Regression):
        return change(loglik, weights)
    if isinstance(loglik, Weight):
        inner_weights = loglik.weights.values
        weights = inner_weights if weights is None else inner_weights * weights
    return (
        replace(loglik, loglik=_at_regression(loglik.loglik, change, weights))
        if hasattr(loglik, "loglik")
        else loglik
    )


def histogram(y: Array, weights: Array | None, m: int) -> Histogram:
    """The counts that occur in y and the weight on each, (m,) or (b, m): of counts (n,) or (b, n)
    and weights that broadcast to them.

    Unused entries hold a count that occurs, with weight 0. If a count is not finite, a weight is
    NaN, so the likelihood is NaN.
    """
    y, w = np.broadcast_arrays(y, 1.0 if weights is None else weights)
    lead = y.shape[:-1]
    n = y.shape[-1]
    finite = _zeroed(y)
    w = (w if finite is y else np.where(np.isfinite(y), w, np.nan)).ravel()
    whole = finite.astype(np.int64).reshape(-1, n)
    b = whole.shape[0]
    span = int(whole.max()) + 1
    keys = (whole + span * np.arange(b)[:, None]).ravel()
    if span <= MAX_TABLE_PER_ROW * n:
        places = np.flatnonzero(_occurring(keys, span * b))
        often = np.bincount(keys, w, span * b)[places]
    else:
        places, inverse = np.unique(keys, return_inverse=True)
        often = np.bincount(inverse, w)
    member, count = np.divmod(places, span)
    start = np.searchsorted(member, np.arange(b))
    slot = np.arange(len(places)) - start[member]
    values = np.repeat(count[start][:, None], m, axis=1).astype(float)
    mass = np.zeros((b, m))
    values[member, slot] = count
    mass[member, slot] = often
    return Histogram(values.reshape(*lead, m), mass.reshape(*lead, m))
