"""What is computed for one chunk of rows, each as one compiled program.

A chunk is padded to one of a few lengths with copies of a row; ``mask`` (n,) is 0 there. The
columns are stacked into matrices block by block, in the cache: stacking a whole chunk at once costs
as much as its Hessian.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxmle._types import Array, Function, FunctionTo, Loglik, Tree
from jaxmle.fitting.passes import SMALL_STEP
from jaxmle.likelihood.combinators import Weight, Weights
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.evaluate import by_blocks, slopes, sums
from jaxmle.likelihood.information.covariance import LEVERAGED, Kind, count_of, leveraged
from jaxmle.likelihood.structure import has_law
from jaxmle.likelihood.terms import (
    Rows,
    expected_information,
    not_finite,
    row_information,
    term_rows,
)
from jaxmle.parameters.tree import Layout

Arrays = tuple[Array, ...]


class RowArrays(Protocol):
    """How some arrays of the same rows make the data of a likelihood and its weights: the columns
    of a table, or the leaves of a tree.
    """

    @property
    def key(self) -> Hashable: ...

    def data(self, arrays: Sequence[Array]) -> Tree: ...

    def weights_in(self, arrays: Sequence[Array]) -> Array | None: ...


@dataclass(frozen=True)
class Form:
    """The static part of the programs of a likelihood whose rows are summed in pieces."""

    layout: Layout
    columns: RowArrays
    weighting: str
    block_rows: int
    kind: Kind | None

    @property
    def key(self) -> tuple[Tree, ...]:
        """What distinguishes these programs from others of the same likelihood."""
        return (self.layout, self.columns.key, self.weighting, self.block_rows, self.kind)

    def weighted(self, loglik: Loglik, rows: Arrays) -> Loglik:
        """The likelihood of some rows with their weights."""
        values = self.columns.weights_in(rows)
        return loglik if values is None else Weight(loglik, Weights(values, self.weighting))

    def summed(self, kernel: Function, loglik: Loglik, rows: Arrays, mask: Array) -> Tree:
        """Σ ``kernel(weighted likelihood, data, mask)`` over the blocks of a chunk."""

        def block(rows: Arrays, mask: Array | None) -> Tree:
            return kernel(self.weighted(loglik, rows), self.columns.data(rows), mask)

        return by_blocks(block, rows, mask, self.block_rows)


def _evaluate(form: Form, loglik: Loglik) -> Function:
    """Value, Σ|terms|, score and Hessian."""

    def program(rows: Arrays, mask: Array, x: Array) -> Tree:
        def kernel(loglik: Loglik, data: Tree, mask: Array) -> Tree:
            return sums(loglik, form.layout, x, data, mask)

        return form.summed(kernel, loglik, rows, mask)

    return program


def _slopes(form: Form, loglik: Loglik) -> Function:
    """Value, Σ|terms| and score of a declared regression without weights."""

    def program(rows: Arrays, mask: Array, x: Array) -> Tree:
        def kernel(loglik: Loglik, data: Tree, mask: Array) -> Tree:
            return slopes(loglik, form.layout, x, data, weights=mask)

        return form.summed(kernel, loglik, rows, mask)

    return program


def _expected(form: Form, loglik: Loglik) -> Function:
    """The expected information."""

    def program(rows: Arrays, mask: Array, x: Array) -> Tree:
        def kernel(loglik: Loglik, data: Tree, mask: Array) -> Array:
            return expected_information(loglik, form.layout, x, data, mask).information

        return form.summed(kernel, loglik, rows, mask)

    return program


class Meat(NamedTuple):
    """Sums of a sandwich."""

    opg: Array  # (k, k) of the scores in coordinates in which the information is the identity
    n: Array  # () observations
    broken: Array  # () rows whose leverage is one


def _scaled(
    form: Form, loglik: Loglik, x: Array, lift: Array, data: Tree, mask: Array
) -> tuple[Rows, Array]:
    """The rows with their scores (n, k) in coordinates in which the information is the identity,
    divided by the leverage where the kind says so; and the rows whose leverage is one (n,).
    """
    rows = term_rows(loglik, form.layout, x, data)
    rows = Rows(rows.scores @ lift, rows.weight * mask, rows.meat * mask)
    none = jnp.zeros(mask.shape, bool)
    if form.kind not in LEVERAGED:
        return rows, none
    source = "expected" if has_law(loglik) else "observed"
    information = row_information(loglik, form.layout, x, data, source)
    information = jnp.einsum("ja,nij,ib->nab", lift, information, lift)
    divided, _ = leveraged(rows, information, str(form.kind))
    return divided, jnp.any(jnp.isnan(divided.scores), axis=1) & (rows.weight > 0)


def _meat(form: Form, loglik: Loglik) -> Function:
    """The meat of a sandwich of rows."""

    def program(rows: Arrays, mask: Array, x: Array, lift: Array) -> Meat:
        def kernel(loglik: Loglik, data: Tree, mask: Array) -> Meat:
            scaled, broken = _scaled(form, loglik, x, lift, data, mask)
            opg = scaled.scores.T @ (scaled.meat[:, None] * scaled.scores)
            return Meat(opg, count_of(scaled), jnp.sum(broken.astype(x.dtype)))

        return form.summed(kernel, loglik, rows, mask)

    return program


def _scores(form: Form, loglik: Loglik) -> Function:
    """The weighted scores of a chunk (n, k), and which rows have a positive weight (n,)."""

    def program(rows: Arrays, mask: Array, x: Array, lift: Array) -> tuple[Array, Array]:
        def block(part: tuple[Arrays, Array]) -> tuple[Array, Array]:
            rows, mask = part
            scaled = term_rows(form.weighted(loglik, rows), form.layout, x, form.columns.data(rows))
            weight = scaled.weight * mask
            return weight[:, None] * (scaled.scores @ lift), weight > 0

        n = mask.shape[0]
        if n <= form.block_rows or n % form.block_rows:
            return block((rows, mask))
        cut = jax.tree.map(
            lambda leaf: leaf.reshape(-1, form.block_rows, *leaf.shape[1:]), (rows, mask)
        )
        scores, positive = jax.lax.map(block, cut)
        return scores.reshape(n, -1), positive.reshape(n)

    return program


def _search(of_rows: FunctionTo[tuple[Array, Array]]) -> Callable[[Form, Loglik], Function]:
    """The program of a search: for each row, whether it is bad, and its level, (n,) and (n,)."""

    def make(form: Form, loglik: Loglik) -> Function:
        def program(rows: Arrays, mask: Array, x: Array, *args: Array) -> tuple[Array, Array]:
            weighted = form.weighted(loglik, rows)
            bad, level = of_rows(form, weighted, form.columns.data(rows), mask, x, *args)
            return bad & (mask > 0), jnp.where(mask > 0, level, -jnp.inf)

        return program

    return make


def _terms(form: Form, loglik: Loglik, data: Tree, mask: Array, x: Array) -> tuple[Array, Array]:
    """Rows whose terms are not finite; the level is the term."""
    terms = terms_of(loglik, form.layout.unravel(x), data)
    return ~jnp.isfinite(terms), terms


def _changes(form: Form, loglik: Loglik, data: Tree, mask: Array, x: Array) -> tuple[Array, Array]:
    """The level is the change of a term at a nearby point; beyond an edge it is infinite."""

    def terms_at(x: Array) -> Array:
        return terms_of(loglik, form.layout.unravel(x), data)

    step = SMALL_STEP * (1.0 + jnp.abs(x))
    terms = terms_at(x)
    change = jnp.maximum(jnp.abs(terms_at(x + step) - terms), jnp.abs(terms_at(x - step) - terms))
    return jnp.zeros(terms.shape, bool), jnp.where(jnp.isfinite(change), change, jnp.inf)


def _rough(form: Form, loglik: Loglik, data: Tree, mask: Array, x: Array) -> tuple[Array, Array]:
    """Rows with a non-finite term or derivative."""
    bad = not_finite(loglik, form.layout, x, data)
    return bad, jnp.zeros(bad.shape)


def _leverage_rows(
    form: Form, loglik: Loglik, data: Tree, mask: Array, x: Array, lift: Array
) -> tuple[Array, Array]:
    """Rows whose leverage is one."""
    _, broken = _scaled(form, loglik, x, lift, data, mask)
    return broken, jnp.zeros(broken.shape)


SUMMED: dict[str, Callable[[Form, Tree], Function]] = {
    "evaluate": _evaluate,
    "slopes": _slopes,
    "expected": _expected,
    "meat": _meat,
}
SEARCHES: dict[str, Callable[[Form, Tree], Function]] = {
    "terms": _search(_terms),
    "changes": _search(_changes),
    "rough": _search(_rough),
    "levers": _search(_leverage_rows),
}
BY_CLUSTER = "clusters"
CHUNK_KERNELS = SUMMED | SEARCHES | {BY_CLUSTER: _scores}


def kernel(form: Form, name: str) -> Callable[[Tree], Function]:
    """The function from a likelihood to one of its ``CHUNK_KERNELS``."""
    return partial(CHUNK_KERNELS[name], form)
