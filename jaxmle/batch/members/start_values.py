"""Start values of a batch: for all members, for each of them, or those that a model proposes."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from jaxmle._types import Axes, DType, Foreign, Loglik, Params, Tree, ndarray
from jaxmle.batch.members.sources import Ragged, Stacked, data_of, largest_of
from jaxmle.fitting.options import check_has_start
from jaxmle.likelihood.checks import check_start
from jaxmle.likelihood.contract import terms_of
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.constraints import Ordered, Simplex
from jaxmle.parameters.tree import Layout, layout_of
from jaxmle.runtime.compile import portable_tree

BYTES_STARTED_TOGETHER = 2**27  # bytes of data whose start values a model proposes in one call


def model_starts(loglik: Loglik, source: Stacked | Ragged, dtype: DType) -> Params:
    """The start values that a built-in model proposes for each member, (b, …)."""
    check_has_start(loglik)
    filled = np.flatnonzero(source.sizes.min(axis=1) > 0)
    has_shared = any(source.shared[: source.data_leaves])
    if not hasattr(loglik, "starts") or source.sizes.shape[1] > 1 or has_shared:
        starts, order = _starts_one_by_one(loglik, source, filled)
    else:
        starts, order = _starts_by_length(loglik, source, filled)
    place = np.zeros(source.members, int)  # an empty member starts where another does
    place[order] = np.arange(len(order))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[place].astype(dtype), *starts)


def _starts_one_by_one(
    loglik: Foreign, source: Stacked | Ragged, members: ndarray
) -> tuple[list[Params], ndarray]:
    """Start values with a leading axis, and the members in their order."""
    proposals = (loglik.start(data_of(source, int(member))) for member in members)
    return [
        jax.tree.map(lambda leaf: np.asarray(leaf)[None], start) for start in proposals
    ], members


def _starts_by_length(
    loglik: Foreign, source: Stacked | Ragged, members: ndarray
) -> tuple[list[Params], ndarray]:
    """``_starts_one_by_one`` for members of one length together."""
    starts = []
    order = []
    for size in np.unique(source.sizes[members, 0]):
        most = max(1, int(BYTES_STARTED_TOGETHER // max(source.row_bytes() * size, 1.0)))
        equal = members[source.sizes[members, 0] == size]
        for index in np.split(equal, range(most, len(equal), most)):
            starts.append(loglik.starts(source.stack(index, (int(size),))[0]))
            order.append(index)
    return starts, np.concatenate(order)


def check_starts(layout: Layout, params: Tree, members: int) -> None:
    """Refuse a member whose start is outside its bounds; the first such member is named."""
    values = layout.treedef.flatten_up_to(params)
    vectors = [
        leaf.constraint.elementwise or isinstance(leaf.constraint, Simplex | Ordered)
        for leaf in layout.leaves
    ]
    if all(
        is_vector and leaf.constraint.violation(value) is None
        for is_vector, leaf, value in zip(vectors, layout.leaves, values, strict=True)
    ):
        return
    for i in range(members):
        try:
            check_start(layout, jax.tree.map(lambda leaf, i=i: leaf[i], params))
        except ValueError as error:
            raise ValueError(f"member {i}: {error}") from None


def has_member_axis(
    loglik: Loglik, params: Params, constraints: Tree, source: Stacked | Ragged, axis: Axes
) -> bool:
    """Whether the start values have a leading axis over members.

    Args:
        axis: ``params_axis``, checked.
    """
    leaves = jax.tree.leaves(params)
    possible = all(leaf.ndim and leaf.shape[0] == source.members for leaf in leaves)
    if axis == 0 and not possible:
        raise ValueError(
            "with params_axis=0 every leaf of params0 needs a leading axis of "
            f"{source.members} members; got shapes {[leaf.shape for leaf in leaves]}"
        )
    if axis == 0 or axis is None or not possible:
        return axis == 0
    first = jax.tree.map(lambda leaf: leaf[0], params)
    fits_first = _fits(loglik, first, constraints, source)
    fits_whole = _fits(loglik, params, constraints, source)
    if fits_first and fits_whole:
        raise ValueError(
            "params0 could be one start for all members or one for each of the "
            f"{source.members}: give params_axis=None or params_axis=0"
        )
    # Where neither reading runs, the error is that of one member.
    all_shared = isinstance(source, Stacked) and all(source.shared)
    return fits_first or (not fits_whole and not all_shared)


def check_params_axis(axis: Axes) -> None:
    """Refuse a ``params_axis`` other than 0, None or "auto"."""
    known = axis is None or (isinstance(axis, int | str) and not isinstance(axis, bool))
    if not known or axis not in (0, "auto", None):
        raise ValueError(f"params_axis must be 0, None or 'auto'; got {shown(axis)}")


def _fits(loglik: Loglik, params: Params, constraints: Tree, source: Stacked | Ragged) -> bool:
    """Whether a member's likelihood accepts these start values: it returns terms of the right shape
    and raises no error.
    """
    data = data_of(source, largest_of(source))
    terms = partial(terms_of, portable_tree(loglik))
    try:
        layout_of(params, constraints)
        jax.eval_shape(terms, params, data)
    except (ValueError, TypeError, IndexError, AttributeError, KeyError):
        return False  # what is wrong is said where the members are read
    return True
