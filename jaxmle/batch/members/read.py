"""From what a user gives ``fit_batch`` to members that can be cut into chunks; mistakes in shapes
and types are refused here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np

from jaxmle._types import Axes, Data, DType, Loglik, Params, Tree, ndarray
from jaxmle.batch.members.padding import obstacle_to_padding
from jaxmle.batch.members.sources import (
    NO_MEMBER_AXIS,
    Ragged,
    Stacked,
    Table,
    are_equal,
    data_of,
    largest_of,
)
from jaxmle.batch.members.stacked import stacked
from jaxmle.batch.members.start_values import (
    check_params_axis,
    check_starts,
    has_member_axis,
    model_starts,
)
from jaxmle.batch.members.table import grouped, ragged
from jaxmle.fitting.log_gamma import keep_log_gamma_to_its_domain
from jaxmle.fitting.options import Options, constraints_of
from jaxmle.likelihood.checks import check_coding, check_fixed, check_start, host_params, in_row
from jaxmle.likelihood.combinators import Weight, Weights, check_weights_given, weight
from jaxmle.likelihood.contract import as_tree, check_read, leaf_of
from jaxmle.likelihood.discovery.indices import Members, check_fixed_indices, check_indices
from jaxmle.likelihood.discovery.ready_calls import calls_in, check_calls, check_stacked_calls
from jaxmle.likelihood.histogram import counts_of, distinct
from jaxmle.likelihood.structure import parts_of, substituted
from jaxmle.parameters.tree import Layout, layout_of
from jaxmle.runtime.compile import precision


@dataclass(frozen=True)
class Inputs:
    """A batch, checked."""

    loglik: Loglik  # as a tree; its weights hold no values, since these differ between members
    bare: Loglik  # the same without the weights given to the batch
    weight_kind: str | None
    layout: Layout
    base: ndarray  # (p,) or (b, p)
    source: Stacked | Ragged  # of (data, weights or (), cluster codes)
    counts: tuple[ndarray, ...]  # for each leaf of counts how many of them occur in each member
    dtype: DType
    # why members of unequal length run at their own lengths; "" if they do not
    unpadded: str = ""

    @property
    def largest(self) -> int:
        """The member with the most rows."""
        return largest_of(self.source)

    @property
    def largest_length(self) -> tuple[int, ...]:
        """The rows of that member, one number for each part of a pool."""
        return tuple(int(n) for n in self.source.sizes[self.largest])

    def most_counts(self, length: tuple[int, ...]) -> tuple[int, ...]:
        """The largest number of distinct counts in a member, for each leaf of counts, given the
        number of rows.
        """
        is_short = self.source.sizes[:, 0] <= length[0]
        return tuple(int(numbers[is_short].max()) for numbers in self.counts)

    @property
    def longest(self) -> int:
        """The rows of the largest member."""
        return int(self.source.sizes.sum(axis=1).max())


def read_batch(
    loglik: Loglik,
    params0: Params,
    datasets: Data,
    options: Options,
    in_axes: Axes,
    params_axis: Axes,
) -> Inputs:
    """Read what a user gives to a batch of fits, and refuse what cannot be fitted.

    Args:
        loglik, params0, datasets, in_axes, params_axis: as in ``fit_batch``; ``datasets`` may also
            be a ``Table``.
        options: constraints, weights, clusters and dtype are read.

    Raises:
        ValueError, TypeError: as ``fit_batch``.
    """
    weights = options.weights
    dtype = options.host_dtype
    if weights is not None:
        check_weights_given(weights)
    check_params_axis(params_axis)
    tree = as_tree(loglik)
    _refuse_inner_weights(tree)
    if isinstance(datasets, list):
        source: Stacked | Ragged = ragged(tree, datasets, options)
    elif isinstance(datasets, Table):
        source = grouped(tree, datasets, options)
    else:
        source = stacked(tree, datasets, options, in_axes, params0, params_axis)
    check_coding(tree, source.rows[0], source.place)
    check_read(loglik, source.rows[0])
    if params0 is None:
        params0 = model_starts(loglik, source, dtype)
        params_axis = 0
    params = host_params(params0, dtype)
    constraints = constraints_of(loglik, options.constraints)
    batched = has_member_axis(tree, params, constraints, source, params_axis)
    if not batched and isinstance(source, Stacked) and all(source.shared):
        raise ValueError(NO_MEMBER_AXIS)
    layout, base = _layout_and_base(tree, params, constraints, source.members, batched)
    start = base[0] if batched else base
    with precision(dtype):
        _check_program(tree, layout, start, source)
    unpadded = ""
    if isinstance(source, Ragged):
        data = data_of(source, largest_of(source))
        unpadded = obstacle_to_padding(tree, layout, start, data, source.sizes)
        source = replace(source, padded=not unpadded)
        with precision(dtype):
            _check_ragged_calls(tree, layout, start, source)
    kind = None if weights is None else weights.kind
    weighted = tree if kind is None else weight(tree, Weights(np.zeros(0, dtype), kind))
    counts = _distinct(tree, source)
    return Inputs(weighted, tree, kind, layout, base, source, counts, dtype, unpadded)


def _layout_and_base(
    loglik: Loglik, params: Params, constraints: Tree, members: int, batched: bool
) -> tuple[Layout, ndarray]:
    """The layout of one member, and the checked start values (p,), or (b, p) where each member has
    its own.
    """
    first = jax.tree.map(lambda leaf: leaf[0], params) if batched else params
    layout = layout_of(first, constraints)
    if batched:
        check_starts(layout, params, members)
        base = layout.ravel_members(params)
    else:
        check_start(layout, params)
        base = layout.ravel(params)
    check_fixed(loglik, layout)
    with_fixed = partial(substituted, loglik, layout)
    return layout, np.asarray(jax.vmap(with_fixed)(base) if batched else with_fixed(base))


def _check_program(loglik: Loglik, layout: Layout, base: ndarray, source: Stacked | Ragged) -> None:
    """Refuse codes that index parameters out of range, in any member; keep log Γ to its domain."""
    flags = source.shared[: source.data_leaves]
    leaves = jax.tree.leaves(source.rows[0])

    def place(leaf: int, index: tuple[int, ...]) -> str:
        part = source.part[leaf] if isinstance(source, Ragged) else 0
        return source.place(part, index)

    def data_at(leaf: int, index: tuple[int, ...]) -> Data:
        if isinstance(source, Ragged):
            return data_of(source, source.member(source.part[leaf], index[0]))
        return data_of(source, 0 if flags[leaf] else index[0])

    row_axes = [0 if isinstance(source, Ragged) or flag else 1 for flag in flags]
    same_length = are_equal(source.sizes)
    members = Members(leaves, row_axes, place, data_at, same_length)
    first = data_of(source, largest_of(source))
    if isinstance(source, Stacked):
        shared = jax.tree.unflatten(jax.tree.structure(first), flags)
        check_stacked_calls(loglik, layout, base, first, source.rows[0], shared)
    check_indices(loglik, layout, base, first, members)
    keep_log_gamma_to_its_domain(loglik, layout, base, first)


def _check_ragged_calls(loglik: Loglik, layout: Layout, base: ndarray, source: Ragged) -> None:
    """Check the coding of the data for the built-in models that the likelihood calls: of all
    members together if the rows are independent, otherwise member by member.
    """
    if not source.padded:  # a row that is read by its number may not be there in a shorter member
        rows = source.sizes[:, 0]
        shortest = data_of(source, int(np.argmin(np.where(rows > 0, rows, rows.max()))))
        check_fixed_indices(loglik, layout, base, shortest)
    if source.padded and len(set(source.part)) == 1:
        check_calls(loglik, layout, base, source.rows[0], partial(source.place, 0))
        return
    if calls_in(loglik, layout, base, data_of(source, 0)) is None:
        return
    for member in range(len(source.sizes)):
        place = partial(_in_member, member)
        check_calls(loglik, layout, base, data_of(source, member), place)


def _in_member(member: int, index: tuple[int, ...]) -> str:
    return f"{in_row(index)} of member {member}"


def _refuse_inner_weights(loglik: Loglik) -> None:
    if isinstance(loglik, Weight):
        raise ValueError(
            "weights inside the likelihood cannot be split into members: pass them as "
            "fit_batch(weights=…)"
        )
    for part in parts_of(loglik):
        _refuse_inner_weights(part)


def _distinct(loglik: Loglik, source: Stacked | Ragged) -> tuple[ndarray, ...]:
    """The number of distinct counts in each member, (b,), for each leaf of counts."""
    numbers = []
    for name in counts_of(loglik):
        y = np.asarray(leaf_of(source.rows[0], name))
        if isinstance(source, Ragged):
            in_order = y if source.order[0] is None else y[source.order[0]]
            numbers.append(distinct(in_order, source.sizes[:, 0]))
        else:
            parts = y if y.ndim == 2 else y[None]
            lengths = np.full(len(parts), parts.shape[1])
            numbers.append(np.broadcast_to(distinct(parts.ravel(), lengths), source.members))
    return tuple(numbers)
