"""The pass over the rows: value, score and Hessian of a likelihood are sums over the rows, at once
or in blocks.

Dispatch is on the type of the likelihood. An opaque function uses the general method (``grad`` and
``hessian`` of the summed terms); a ``Regression`` uses X'WX; every combinator is applied to the
result for its inner likelihood: weights multiply, a prior's derivatives are added, fixed and tied
entries are E'(·)E, a pool is a sum over its members.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, DTypeLike, Function, Loglik, Tree, ndarray
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, Weight, WithResponse
from jaxmle.likelihood.contract import carried, data_length, need_terms, terms_of
from jaxmle.likelihood.derivatives import (
    Differentiation,
    first_that_exists,
    joined,
    second_order,
)
from jaxmle.likelihood.derivatives import gradient as gradient_of
from jaxmle.likelihood.designs import MIN_COLUMNS_FOR_TRIANGULAR_PRODUCT, gradient, gram
from jaxmle.likelihood.histogram import uncounted
from jaxmle.likelihood.regression import Regression
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.shards import over_automatic_mesh

CACHED_ROWS = 4096  # rows in a block: 1e6 × 20 takes 0.47 s in blocks, 1.21 s at once
# the same beyond ``WIDE`` parameters: a Hessian of 1e5 × 200 takes 0.12 s with these, 0.17 s in
# blocks of 4096
CACHED_WIDE = 1024
# the same for a user's function, whose Hessian stores rows for each parameter: a Weibull fit of 1e5
# × 5 takes 33 ms in blocks, 56 ms at once
CACHED_OPAQUE = 1024
# The same on an accelerator, which has no such cache, and on which an iteration of a loop is a
# dozen kernels of about 10 µs each. Not measured: this many rows of twenty columns are 50 MB.
ROWS_ON_ACCELERATOR = 2**18
ROWS_OPAQUE_ON_ACCELERATOR = 2**16


class Sums(NamedTuple):
    """What one pass over the data accumulates, in the flat coordinates x (p,)."""

    value: Array  # ()     ℓ
    absolute: Array  # ()  Σ|terms|, the scale of the rounding noise of ℓ
    score: Array  # (p,)
    hessian: Array  # (p, p)


class Accumulated(NamedTuple):
    """``Sums`` with the mode of differentiation of the Hessian."""

    value: Array  # ()     ℓ
    absolute: Array  # ()  Σ|terms|, the scale of the rounding noise of ℓ
    score: Array  # (p,)
    hessian: Array  # (p, p)
    hessian_by: Differentiation | None = None  # None: forward over reverse


def added(first: Tree, second: Tree) -> Tree:
    """The sum of two passes, with or without a Hessian."""
    if not isinstance(first, Accumulated):
        return jax.tree.map(jnp.add, first, second)
    total = jax.tree.map(jnp.add, first._replace(hessian_by=None), second._replace(hessian_by=None))
    return total._replace(hessian_by=joined(first.hessian_by, second.hessian_by))


def sums(
    loglik: Tree,
    layout: Layout,
    x: Array,
    data: Tree,
    weights: Array | None = None,
    block_rows: int | None = None,
) -> Accumulated:
    """Value, score and Hessian at x (p,), summed over terms multiplied by ``weights`` (n,)."""
    match loglik:
        case Weight():
            inner_weights = jnp.asarray(loglik.weights.values).astype(x.dtype)
            return sums(
                loglik.loglik,
                layout,
                x,
                data,
                inner_weights if weights is None else inner_weights * weights,
                block_rows,
            )
        case WithResponse():
            return sums(loglik.loglik, layout, x, data, weights, block_rows)
        case Penalize():
            inner = sums(loglik.loglik, layout, x, data, weights, block_rows)
            return added(inner, _prior(loglik, layout, x, data, weights))
        case Pool():
            loglik.check(data)
            parts = split_rows(weights, [data_length(part) for part in data])
            members = [
                sums(m, layout, x, d, w, block_rows)
                for m, d, w in zip(loglik.members, data, parts, strict=True)
            ]
            return functools.reduce(added, members)
        case Fix() | Tie():
            inner = sums(
                loglik.loglik, layout, loglik.substitute(layout, x), data, weights, block_rows
            )
            e = embedding(loglik.roots(layout), x.dtype)
            return inner._replace(
                score=inner.score @ e,
                hessian=e.T @ inner.hessian @ e,
                hessian_by=_within(inner.hessian_by, e),
            )

    def general() -> Accumulated:
        return by_blocks(partial(_general, uncounted(loglik), layout, x), data, weights, block_rows)

    if not isinstance(loglik, Regression):
        return general()

    def declared() -> Accumulated:
        return _with_counts(_declared, loglik, layout, x, data, weights, block_rows)

    return first_that_exists((declared, general), loglik, layout.unravel(x), data)


def _prior(
    loglik: Penalize, layout: Layout, x: Array, data: Tree, weights: Array | None
) -> Accumulated:
    """The log prior at x (p,) with its derivatives."""
    # Jeffreys's prior uses other data: every value of the response, or simulated ones.
    bare: Tree = uncounted(loglik)
    prior = Accumulated(*second_order(lambda x: (bare.log_prior(layout, x, data, weights),) * 2, x))
    return prior._replace(absolute=jnp.abs(prior.value))


def _within(how: Differentiation | None, e: ndarray) -> Differentiation | None:
    """The mode of differentiation and the error of E'HE, from those of H."""
    return how if how is None or how.error is None else replace(how, error=e.T @ how.error @ e)


def _rows_of_block(layout: Layout, data: Tree, block_rows: int | None) -> int | None:
    """Rows of a regression are independent by declaration, so a long pass is always done in blocks
    that fit in the cache, except if the rows may be spread over devices, because each device would
    gather every block.
    """
    if over_automatic_mesh(data):
        return block_rows
    usual = usual_block_rows(layout.p)
    return block_rows or (usual if (data_length(data) or 0) >= 4 * usual else None)


def usual_block_rows(p: int) -> int:
    """Rows of a block of a regression with p parameters, on jax's current device."""
    if jax.default_backend() != "cpu":
        return ROWS_ON_ACCELERATOR
    return CACHED_ROWS if p <= MIN_COLUMNS_FOR_TRIANGULAR_PRODUCT else CACHED_WIDE


def usual_opaque_rows() -> int:
    """The same for a user's function."""
    return CACHED_OPAQUE if jax.default_backend() == "cpu" else ROWS_OPAQUE_ON_ACCELERATOR


class Slopes(NamedTuple):
    """What a pass without the Hessian accumulates."""

    value: Array  # ()
    absolute: Array  # ()
    score: Array  # (p,)


def slopes(
    loglik: Loglik,
    layout: Layout,
    x: Array,
    data: Tree,
    block_rows: int | None = None,
    weights: Array | None = None,
) -> Slopes:
    """The pass at x (p,) for value and score alone, of a declared regression whose terms are
    multiplied by ``weights`` (n,).
    """
    core = cast(Regression, loglik.loglik if isinstance(loglik, WithResponse) else loglik)

    def declared() -> Slopes:
        return _with_counts(_declared_slopes, core, layout, x, data, weights, block_rows)

    def general() -> Slopes:
        return by_blocks(
            partial(_general_slopes, uncounted(core), layout, x), data, weights, block_rows
        )

    return first_that_exists((declared, general), core, layout.unravel(x), data)


def _with_counts(
    sum_of_rows: Function,
    loglik: Regression,
    layout: Layout,
    x: Array,
    data: Tree,
    weights: Array | None,
    block_rows: int | None,
) -> Tree:
    """The pass over the rows and over the counts of histograms."""
    rest, counts = loglik.apart()
    total = by_blocks(
        partial(sum_of_rows, rest, layout, x),
        data,
        weights,
        _rows_of_block(layout, data, block_rows),
    )
    for term, occurring in counts:
        total = added(total, sum_of_rows(term, layout, x, occurring.values, occurring.weights))
    return total


def embedding(roots: ndarray, dtype: DTypeLike) -> ndarray:
    """E (p, p) with x = E x + constant: a fixed entry has a zero row, a tied one the row of the
    entry it follows.
    """
    e = np.zeros((len(roots), len(roots)), dtype=dtype)
    free = roots >= 0
    e[np.flatnonzero(free), roots[free]] = 1.0
    return e


def split_rows(weights: Array | None, lengths: list[int | None]) -> list[Array | None]:
    """Weights of a pool, split by its members."""
    if weights is None:
        return [None] * len(lengths)
    cuts = np.cumsum([0, *((n or 1) for n in lengths)])
    return [weights[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


# ---------------------------------------------------------------- general and declared


def _general(
    loglik: Loglik, layout: Layout, x: Array, data: Tree, weights: Array | None
) -> Accumulated:
    """The general method: automatic differentiation of the summed terms, except for a built-in
    model that provides its sums.
    """
    own_sums = carried(loglik, "second_order")
    brought = own_sums(layout.unravel(x), data) if own_sums is not None else None
    if brought is not None and weights is None and brought[1].shape == x.shape:
        value, score, hessian = brought
        return Accumulated(value, jnp.abs(value), score, hessian)
    return Accumulated(*second_order(_total(loglik, layout, data, weights), x))


def _general_slopes(
    loglik: Loglik, layout: Layout, x: Array, data: Tree, weights: Array | None
) -> Slopes:
    total = _total(loglik, layout, data, weights)
    return Slopes(*total(x), gradient_of(lambda x: total(x)[0])(x))


def _total(
    loglik: Loglik, layout: Layout, data: Tree, weights: Array | None
) -> Callable[[Array], tuple[Array, Array]]:
    """x ↦ (ℓ, Σ|terms|)."""

    def total(x: Array) -> tuple[Array, Array]:
        terms = terms_of(loglik, layout.unravel(x), data)
        if weights is not None:
            terms = weights * need_terms(terms, "a weighted likelihood")
        return jnp.sum(terms), jnp.sum(jnp.abs(terms))

    return total


def _declared(
    loglik: Regression, layout: Layout, x: Array, data: Tree, weights: Array | None
) -> Accumulated:
    """The declared form: scalar derivatives of the density, then X'r and X'WX."""
    eta, columns, curved = loglik.predictors(layout, x, data)
    terms, slope, curvature = loglik.derivatives(layout.unravel(x), eta, data)
    if weights is not None:
        terms, slope, curvature = jax.tree.map(
            lambda entry: weights * entry, (terms, slope, curvature)
        )
    hessian = gram(columns, curvature, layout.p)
    if curved:  # Σ r_i ∂²η_i/∂x∂x', the part of the Hessian that expected information leaves out
        hessian += jax.hessian(
            lambda x: jnp.sum(jnp.stack(slope) * loglik._values(layout.unravel(x), data)[1])
        )(x)
    return Accumulated(
        jnp.sum(terms), jnp.sum(jnp.abs(terms)), gradient(columns, slope, layout.p), hessian
    )


def _declared_slopes(
    loglik: Regression, layout: Layout, x: Array, data: Tree, weights: Array | None
) -> Slopes:
    eta, columns, _ = loglik.predictors(layout, x, data)
    # XLA does not compute the curvature, which is not used.
    terms, slope, _ = loglik.derivatives(layout.unravel(x), eta, data)
    if weights is not None:
        terms, slope = jax.tree.map(lambda entry: weights * entry, (terms, slope))
    return Slopes(jnp.sum(terms), jnp.sum(jnp.abs(terms)), gradient(columns, slope, layout.p))


def by_blocks(
    sum_of_rows: Callable[[Tree, Array | None], Tree],
    data: Tree,
    weights: Array | None,
    block_rows: int | None,
) -> Tree:
    """Sum ``sum_of_rows(rows, weights)`` over blocks of rows. The last block is moved back to end
    at n; rows that occur twice get weight 0.
    """
    n = data_length(data)
    if block_rows is None or n is None or n <= block_rows:
        return sum_of_rows(data, weights)
    blocks = -(-n // block_rows)

    def block(start: Array) -> Tree:
        first = jnp.minimum(start, n - block_rows)

        def cut(leaf: Tree) -> Array:
            return jax.lax.dynamic_slice_in_dim(jnp.asarray(leaf), first, block_rows)

        fresh = (first + jnp.arange(block_rows) >= start).astype(jnp.result_type(float))
        return sum_of_rows(
            jax.tree.map(cut, data), fresh if weights is None else fresh * cut(weights)
        )

    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(block, 0))

    def add(total: Tree, start: Tree) -> Tree:
        return (jax.tree.map(jnp.add, total, block(start)), None)

    return jax.lax.scan(add, zero, jnp.arange(blocks) * block_rows)[0]
