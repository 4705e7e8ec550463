"""One pass over shared rows: each device sums its own in blocks, and one all-reduce adds the sums.

The result is the same on every device, and so in every process: all take the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Function, FunctionTo, Integer, Loglik, Tree, ndarray
from jaxmle.distributed.placement import Placement, on_host
from jaxmle.distributed.shared import SharedRows
from jaxmle.runtime.compile import compiled
from jaxmle.streams.kernels import BY_CLUSTER, SEARCHES, Form, kernel
from jaxmle.streams.totals import Clusters

Arrays = tuple[Array, ...]


class ScreenedRows(NamedTuple):
    """The first bad row, and the row with the highest level."""

    bad: int | None
    top: int | None
    level: float


def _summed(placement: Placement, local: Function) -> Function:
    """The sum of a kernel's results over the shards."""

    def program(rows: tuple[Arrays, Array], *args: Array) -> Tree:
        arrays, present = rows
        return placement.total(local(arrays, _mask(present), *args))

    return program


def _searched(placement: Placement, local: Function) -> Function:
    """The result of a search over all rows: the first bad one, the highest level and its row; the
    number of all rows if there is none.
    """

    def program(rows: tuple[Arrays, Array], *args: Array) -> tuple[Array, Array, Array]:
        arrays, present = rows
        bad, level = local(arrays, _mask(present), *args)
        n = present.shape[0]
        first = placement.first_row(n)
        none = n * placement.shards

        def earliest(chosen: Array) -> Array:
            mine = jnp.where(jnp.any(chosen), first + jnp.argmax(chosen), none)
            return jax.lax.pmin(mine, placement.axes)

        known = jnp.where(jnp.isnan(level), -jnp.inf, level)
        highest = jax.lax.pmax(jnp.max(known), placement.axes)
        return earliest(bad), highest, earliest((known >= highest) & present)

    return program


def _by_cluster(placement: Placement, groups: int, local: Function) -> Function:
    """The weighted scores of each cluster (G, k), and in a last column how many of its rows have a
    positive weight.
    """

    def program(rows: tuple[Arrays, Array, Array], *args: Array) -> Array:
        arrays, present, code = rows
        scores, positive = local(arrays, _mask(present), *args)
        columns = jnp.concatenate([scores, positive[:, None].astype(scores.dtype)], axis=1)
        return placement.total(jax.ops.segment_sum(columns, code, num_segments=groups))

    return program


def _mask(present: Array) -> Array:
    return present.astype(jnp.result_type(float))


class Count(NamedTuple):
    """What is known about all rows."""

    n: float  # observations: rows, the sum of frequency weights, or rows of positive weight
    data_id: ndarray


@dataclass(frozen=True)
class ShardRunner:
    """Runs passes over shared rows."""

    loglik: Loglik  # as a tree, without weights and priors
    form: Form
    rows: SharedRows
    count: Count
    codes: tuple[jax.Array, ...] = ()  # of each dimension of clusters, shared as the rows are
    groups: tuple[int, ...] = field(default=())  # how many codes each has

    def run(self, name: str, *args: Tree) -> Tree:
        """What a kernel finds in all rows."""
        given = tuple(np.asarray(arg) for arg in args)
        if name == BY_CLUSTER:
            return [self._clusters(j, given) for j in range(len(self.codes))]
        wrap = _searched if name in SEARCHES else _summed
        rows = (self.rows.arrays, self.rows.present)
        result = on_host(self._program(name, (), wrap)(rows, *given))
        return self._screened(*result) if name in SEARCHES else result

    def _program(self, name: str, more: tuple[Tree, ...], wrap: FunctionTo[Function]) -> Function:
        placement = self.rows.placement

        def make(loglik: Loglik) -> Function:
            return placement.over_shards(wrap(placement, *more, kernel(self.form, name)(loglik)))

        return compiled(self.loglik, ("shared", name, placement, more, *self.form.key), make)

    def _clusters(self, dimension: int, args: tuple[ndarray, ...]) -> Clusters:
        rows = (self.rows.arrays, self.rows.present, self.codes[dimension])
        program = self._program(BY_CLUSTER, (self.groups[dimension],), _by_cluster)
        columns = on_host(program(rows, *args))
        return Clusters([], columns[:, :-1], columns[:, -1] > 0)

    def _screened(self, bad: ndarray, level: ndarray, top: ndarray) -> ScreenedRows:
        """The indices of the rows; None in place of the number of all rows."""
        of_all = self.rows.length
        first, highest = (None if row == of_all else int(row) for row in (bad, top))
        return ScreenedRows(first, highest, float(level))

    def row(self, place: Integer) -> int:
        """The index of a row in the arrays; −1 for None."""
        return -1 if place is None else int(place)

    @property
    def n(self) -> float:
        """The number of observations."""
        return self.count.n

    @property
    def data_id(self) -> ndarray:
        """The fingerprint (2,) of the rows; zeros if unknown."""
        return self.count.data_id


# ---------------------------------------------------------------- what each row is


class Values(NamedTuple):
    """What one look at all rows finds about their values."""

    missing: ndarray  # for each array the first row with a NaN; the number of all rows if none
    n: ndarray  # (3,) rows, sum of weights, rows of positive weight
    weights: ndarray  # (2,) the first row with a weight that is none, or that is no integer


def look_at(rows: SharedRows) -> Values:
    """Check NaN and weights, on the devices that hold the rows."""
    placement = rows.placement
    weighted = rows.weights is not None

    def local(given: tuple[Arrays, Array]) -> Values:
        arrays, present = given
        n = present.shape[0]
        first = placement.first_row(n)
        none = n * placement.shards

        def earliest(bad: Array) -> Array:
            return jnp.where(jnp.any(bad), first + jnp.argmax(bad), none)

        def is_missing(leaf: Array) -> Array:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                return jnp.zeros(n, bool)
            return jnp.any(jnp.isnan(leaf).reshape(n, -1), axis=1) & present

        w = arrays[-1].astype(jnp.result_type(float)) if weighted else _mask(present)
        is_bad = ~(jnp.isfinite(w) & (w >= 0)) & present
        wrong = [earliest(is_bad), earliest((w != jnp.floor(w)) & present)]
        places = jnp.stack([*(earliest(is_missing(leaf)) for leaf in arrays), *wrong])
        places = jax.lax.pmin(places, placement.axes)
        w = jnp.where(present, w, 0.0)
        counts = jnp.stack([_mask(present).sum(), w.sum(), (w > 0).sum().astype(w.dtype)])
        return Values(places[:-2], jax.lax.psum(counts, placement.axes), places[-2:])

    program = jax.jit(placement.over_shards(local))
    looked: Values = on_host(program((rows.arrays, rows.present)))
    return looked
