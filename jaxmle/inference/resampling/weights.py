"""Resampling plans: the weights of each bootstrap replicate, drawn on the device from a key and the
number of the replicate.

Replicate i uses ``fold_in(key, i)`` and nothing else, so its weights do not depend on how
replicates are split into chunks, nor on their number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Clusters, Loglik, Tree, ndarray
from jaxmle.likelihood.combinators import Pool, Weights
from jaxmle.likelihood.contract import as_tree, data_length, rows_of
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.parameters.arguments import check_count
from jaxmle.runtime.compile import precision

CACHED_NUMBERS = 2**15  # float64 numbers of replicates that are drawn together
MAX_DRAWN_TOGETHER = 32


@dataclass(frozen=True)
class Plan:
    """How the weights of a replicate are drawn.

    ``draw(key, index)`` returns weights (b, n) for the replicates ``index`` (b,); ``width`` numbers
    are held in memory for one replicate.
    """

    kind: str
    weighting: str
    width: int
    draw: Callable[[Array, Array], Array]

    def __call__(self, key: Array, index: ndarray) -> Weights:
        with precision(np.float64):
            return Weights(
                np.asarray(self.draw(key, jnp.asarray(index, jnp.uint32))), self.weighting
            )


def plan_of(
    kind: str,
    loglik: Loglik,
    data: Tree,
    weights: Weights | None,
    clusters: Clusters,
    block_length: int | None,
) -> Plan:
    """The plan of a kind of bootstrap, checked.

    - pairs: n rows with replacement; with frequency weights N = Σw units, of which row i is w_i;
      with sampling weights rows of positive weight, which keep it.
    - bayesian: independent exponential weights, scaled to sum to n (Rubin 1981, Annals of
      Statistics 9, 130).
    - cluster: G whole clusters with replacement.
    - block: moving blocks of ``block_length`` neighbouring rows, the last cut so that n rows are
      drawn (Künsch 1989, Annals of Statistics 17, 1217).
    """
    tree = as_tree(loglik)
    n = rows_of(tree, data)
    if n is None:
        raise ValueError(
            f"kind={kind!r} resamples rows, but there are no data; a likelihood without data can "
            "be simulated: kind='parametric', sample=…"
        )
    check_scheme(kind, clusters, block_length)
    w = None if weights is None else np.asarray(weights.values, dtype=float)
    if w is not None and (isinstance(tree, Pool) or kind == "block"):
        raise ValueError(
            "weights cannot be used with "
            f"{'a pool' if isinstance(tree, Pool) else 'blocks of neighbouring rows'} "
            f"under kind={kind!r}"
        )
    if kind == "cluster":
        return _clusters(cluster_codes(clusters, n), w, weights)
    if kind == "block":
        length = check_count("block_length", block_length, 1)
        if length > n or isinstance(tree, Pool):
            raise ValueError(
                f"block_length is {length}, longer than the {n} rows"
                if length > n
                else "the rows of a pool are not a series"
            )
        return Plan(kind, "frequency", n, partial(_blocks, n=n, length=length))
    parts = tuple(int(data_length(part) or 1) for part in data) if isinstance(tree, Pool) else (n,)
    if kind == "pairs":
        return _pairs(parts, w, weights)
    return _bayesian(parts, w, weights)


def check_scheme(kind: str, clusters: Clusters, block_length: int | None) -> None:
    """Raise for clusters and block lengths with a kind of resampling that does not use them."""
    if (kind == "cluster") != (clusters is not None):
        raise ValueError(
            "kind='cluster' needs clusters=, one label for each row"
            if clusters is None
            else f"clusters are given but kind={kind!r} does not use them; write kind='cluster'"
        )
    if (kind == "block") != (block_length is not None):
        raise ValueError(
            "kind='block' needs block_length=, the number of rows in a block"
            if block_length is None
            else f"block_length is given but kind={kind!r} does not use it; write kind='block'"
        )


def _pairs(parts: tuple[int, ...], w: ndarray | None, weights: Weights | None) -> Plan:
    n = sum(parts)
    if w is None:
        return Plan("pairs", "frequency", n, partial(_counts, units=parts))
    if weights is not None and weights.kind == "frequency":
        ends = np.cumsum(w)
        total = int(w.sum())
        return Plan("pairs", "frequency", max(n, total), partial(_copies, ends=ends, total=total))
    rank = np.cumsum(w > 0) - 1
    return Plan(
        "pairs",
        "sampling",
        n,
        partial(_spread, unit=np.maximum(rank, 0), times=w, units=int((w > 0).sum())),
    )


def _bayesian(parts: tuple[int, ...], w: ndarray | None, weights: Weights | None) -> Plan:
    n = sum(parts)
    if w is None or weights is None:
        return Plan(
            "bayesian",
            "sampling",
            n,
            partial(_exponentials, times=np.ones(n), row=None, parts=parts),
        )
    if weights.kind == "sampling":
        return Plan(
            "bayesian", "sampling", n, partial(_exponentials, times=w, row=None, parts=parts)
        )
    row = np.repeat(np.arange(n), w.astype(int))
    return Plan(
        "bayesian",
        "sampling",
        max(n, len(row)),
        partial(_exponentials, times=np.ones(n), row=row, parts=(len(row),)),
    )


def _clusters(codes: tuple[Tree, ...], w: ndarray | None, weights: Weights | None) -> Plan:
    labels, *others = codes
    if others:
        raise ValueError(
            "a cluster bootstrap needs one label for each row; two-way clusters cannot "
            "be resampled here"
        )
    code = np.asarray(labels)
    times = np.ones(len(code)) if w is None else w
    drawn_clusters = np.unique(code[times > 0])
    if len(drawn_clusters) < 2:
        raise ValueError(
            f"a cluster bootstrap needs at least two clusters; got {len(drawn_clusters)}"
        )
    unit = np.searchsorted(drawn_clusters, code)
    return Plan(
        "cluster",
        "frequency" if weights is None else weights.kind,
        len(code),
        partial(
            _spread,
            unit=np.minimum(unit, len(drawn_clusters) - 1),
            times=times,
            units=len(drawn_clusters),
        ),
    )


# ---------------------------------------------------------------- draws, for many replicates


def _places(key: Array, units: int, draws: int) -> Array:
    """``draws`` positions among ``units``, uniform to 2⁻⁵²·units; u < 1, and u·units never rounds
    up to units.
    """
    return (jax.random.uniform(key, (draws,), jnp.float64) * units).astype(jnp.int32)


def _each(draw_one: Callable[[Array], Array], key: Array, index: Array, width: int) -> Array:
    """Draw for each replicate, as many at a time as fit in a core's cache with ``width`` numbers
    each; all at once on an accelerator.
    """

    def draw(i: Tree) -> Array:
        return draw_one(jax.random.fold_in(key, i))

    if jax.default_backend() != "cpu":
        return jax.vmap(draw)(index)
    together = int(np.clip(CACHED_NUMBERS // width, 1, MAX_DRAWN_TOGETHER))
    # a remainder would be drawn by a second program
    whole = jnp.pad(index, (0, -len(index) % together), mode="edge")
    return jax.lax.map(draw, whole, batch_size=together)[: len(index)]


@partial(jax.jit, static_argnames="units")
def _counts(key: Array, index: Array, units: tuple[int, ...]) -> Array:
    """How often each row is drawn; the parts of a pool are sampled separately."""

    def of_key(key: Array) -> Array:
        keys = (
            [key]
            if len(units) == 1
            else [jax.random.fold_in(key, part) for part in range(len(units))]
        )
        return jnp.concatenate(
            [jnp.zeros(n).at[_places(k, n, n)].add(1.0) for k, n in zip(keys, units, strict=True)]
        )

    return _each(of_key, key, index, sum(units))


@partial(jax.jit, static_argnames="total")
def _copies(key: Array, index: Array, ends: Array, total: int) -> Array:
    """How often each row is drawn if row i stands for w_i units; ``ends`` = cumulative weights."""

    def of_key(key: Array) -> Array:
        return (
            jnp.zeros(ends.shape[0])
            .at[jnp.searchsorted(ends, _places(key, total, total), side="right")]
            .add(1.0)
        )

    return _each(of_key, key, index, total)


@partial(jax.jit, static_argnames="units")
def _spread(key: Array, index: Array, unit: Array, times: Array, units: int) -> Array:
    """Counts of units, spread over the rows ``unit`` of each and multiplied by the rows' own
    weights.
    """
    return _each(
        lambda key: jnp.zeros(units).at[_places(key, units, units)].add(1.0)[unit] * times,
        key,
        index,
        unit.shape[0],
    )


@partial(jax.jit, static_argnames="parts")
def _exponentials(
    key: Array, index: Array, times: Array, row: Array | None, parts: tuple[int, ...]
) -> Array:
    """Exponential weights, scaled within each part to the number of its units; ``row`` (units,)
    sums the weights of a row with several copies.
    """
    cuts = np.cumsum(parts)[:-1]

    def of_key(key: Array) -> Array:
        raw = jax.random.exponential(key, (sum(parts),), jnp.float64)
        scaled = jnp.concatenate(
            [piece * (piece.shape[0] / jnp.sum(piece)) for piece in jnp.split(raw, cuts)]
        )
        return times * (scaled if row is None else jnp.zeros(times.shape[0]).at[row].add(scaled))

    return _each(of_key, key, index, sum(parts))


@partial(jax.jit, static_argnames=("n", "length"))
def _blocks(key: Array, index: Array, n: int, length: int) -> Array:
    """How often each row is drawn by moving blocks: a block adds one at its first row and subtracts
    it after its last.
    """
    number = -(-n // length)
    lengths = np.full(number, length)
    lengths[-1] = n - length * (number - 1)

    def of_key(key: Array) -> Array:
        first = _places(key, n - length + 1, number)
        edges = jnp.zeros(n + 1).at[first].add(1.0).at[first + lengths].add(-1.0)
        return jnp.cumsum(edges)[:-1]

    return _each(of_key, key, index, n)
