"""Members of a batch that are given stacked along an axis of every array."""

from __future__ import annotations

import jax
import numpy as np

from jaxmle._types import Axes, Clusters, Data, DType, Loglik, Params, Tree, ndarray
from jaxmle.batch.members.sources import NO_MEMBER_AXIS, Stacked
from jaxmle.batch.members.table import check_member_weights, codes_within
from jaxmle.fitting.options import Options
from jaxmle.likelihood.checks import host_data
from jaxmle.likelihood.combinators import Pool
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.parameters.arguments import shown


def stacked(
    loglik: Loglik,
    datasets: Data,
    options: Options,
    in_axes: Axes,
    params0: Params,
    params_axis: Axes,
) -> Stacked:
    """Members stacked along an axis of each leaf, checked.

    Args:
        options: weights, clusters and dtype are read.
        in_axes: the axis over members of each leaf, as in ``jax.vmap``.
        params0, params_axis: used if only the start values have an axis over members.
    """
    data = host_data(datasets, options.host_dtype, nan=True)
    axes = leaf_axes(in_axes, data)
    sizes: dict[int, str] = {}  # from a number of members to the first array that has it
    leaves = _member_axes_first(data, axes, sizes)
    lengths = set() if isinstance(loglik, Pool) else _lengths(leaves, axes)
    weights = options.weights
    values = None if weights is None else weights.values
    w, w_axis = _matrix(values, "weights", options.host_dtype)
    labels, label_axis = _labels(options.clusters)
    for array, axis, name in ((w, w_axis, "weights"), (labels, label_axis, "clusters")):
        if array is not None and axis == 0:
            sizes.setdefault(len(array), name)
    if params0 is not None and (params_axis == 0 or (params_axis == "auto" and not sizes)):
        leading = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(params0)}
        if len(leading) == 1 and leading != {()}:
            sizes.setdefault(leading.pop()[0], "params0")
    members = _number_of_members(sizes, lengths)
    n = next(iter(lengths), None)
    if weights is not None and w is not None:
        check_member_weights(w, weights.kind, n)
    codes, code_axis = _stacked_codes(labels, label_axis, members, n)
    rows = jax.tree.unflatten(jax.tree.structure(data), leaves)
    shared = [axis is None for axis in axes]
    shared += [] if w is None else [w_axis is None]
    shared += [code_axis is None] * len(codes)
    tree = (rows, () if w is None else w, codes)
    return Stacked(tree, tuple(shared), members, len(axes))


def _member_axes_first(data: Data, axes: list[int | None], sizes: dict[int, str]) -> list[ndarray]:
    """The leaves with the axis over members in front; each number of members is noted in
    ``sizes``.
    """
    leaves = []
    for (path, values), axis in zip(jax.tree_util.tree_leaves_with_path(data), axes, strict=True):
        name = "datasets" + jax.tree_util.keystr(path)
        leaf = np.asarray(values)
        if axis is not None:
            if leaf.ndim < 2:
                raise ValueError(
                    f"{name} has shape {leaf.shape}; a batch needs (members, rows, …). "
                    "Pass data sets of unequal length as a list."
                )
            if not -leaf.ndim <= axis < leaf.ndim:
                raise ValueError(
                    f"in_axes gives axis {axis} to {name}, which has shape {leaf.shape}"
                )
            leaf = np.moveaxis(leaf, axis, 0)
            sizes.setdefault(leaf.shape[0], name)
        leaves.append(leaf)
    return leaves


def _lengths(leaves: list[ndarray], axes: list[int | None]) -> set[int]:
    """The number of rows of a member; empty where there are no data."""
    pairs = zip(leaves, axes, strict=True)
    lengths = {leaf.shape[0 if axis is None else 1] for leaf, axis in pairs}
    if len(lengths) > 1:
        hint = ". Pass data sets of unequal length as a list." if len(leaves) > 1 else ""
        raise ValueError(
            "all leaves of a data set must have the same number of rows; the leaves have "
            f"{sorted(lengths)} rows{hint}"
        )
    return lengths


def _number_of_members(sizes: dict[int, str], lengths: set[int]) -> int:
    """The number of members that all arrays share."""
    if len(sizes) > 1:
        counts = [f"{name} has {size}" for size, name in list(sizes.items())[:2]]
        raise ValueError("all leaves must have the same number of members: " + " and ".join(counts))
    if not sizes:
        raise ValueError(NO_MEMBER_AXIS)
    members, name = next(iter(sizes.items()))
    if not members:
        raise ValueError("the batch has no members")
    if 0 in lengths:
        raise ValueError(f"{name} has no rows: without observations a likelihood has no maximum")
    return members


class _Shared:
    """Stands for None in a tree of axes, because None is not a leaf."""


def leaf_axes(in_axes: Axes, data: Data) -> list[int | None]:
    """The axis over members of each leaf of ``data``, None where all share it: from a prefix of
    the tree, as in ``jax.vmap``.
    """
    shared = _Shared()
    try:
        full = jax.tree.map(
            lambda axis, sub: jax.tree.map(lambda _: shared if axis is None else axis, sub),
            in_axes,
            data,
            is_leaf=lambda a: a is None,
        )
    except (ValueError, TypeError):
        raise ValueError(
            "in_axes must be an axis, None, or a tree of these with the structure of the "
            f"data; got {shown(in_axes)}"
        ) from None
    axes = [None if axis is shared else axis for axis in jax.tree.leaves(full)]
    for axis in axes:
        if axis is None:
            continue
        if isinstance(axis, bool) or not isinstance(axis, int | np.integer):
            raise TypeError(f"in_axes holds {shown(axis)}; an axis must be an integer or None")
    return [None if axis is None else int(axis) for axis in axes]


def _matrix(values: Tree, name: str, dtype: DType) -> tuple[ndarray | None, int | None]:
    if values is None:
        return None, None
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2):
        raise ValueError(
            f"{name} must be numbers of shape (n,) or (members, n); got {array.dtype} {array.shape}"
        )
    # a view: jax knows an array by its identity, and may have known this one in another precision
    return array.astype(dtype, copy=False).view(), 0 if array.ndim == 2 else None


def _labels(clusters: Clusters) -> tuple[ndarray | None, int | None]:
    if clusters is None:
        return None, None
    if isinstance(clusters, np.ma.MaskedArray):
        cluster_codes(clusters, None)  # refuses it
    labels = np.asarray(clusters)
    if labels.ndim not in (1, 2):
        raise ValueError(
            f"clusters must hold one label for each row, (n,) or (members, n); got {labels.shape}"
        )
    return labels, 0 if labels.ndim == 2 else None


def _stacked_codes(
    labels: ndarray | None, axis: int | None, members: int, n: int | None
) -> tuple[tuple[ndarray, ...], int | None]:
    if labels is None:
        return (), None
    if n is None or labels.shape[-1] != n:
        raise ValueError(
            f"clusters must hold one label for each of the {n} rows; got shape {labels.shape}"
        )
    if axis is None:
        return tuple(map(np.asarray, cluster_codes(labels, n))), None
    member = np.repeat(np.arange(members), n)
    return (codes_within(labels.reshape(-1), member).reshape(labels.shape),), 0
