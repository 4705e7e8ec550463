"""From what a user gives ``fit_batch`` to members that can be cut into chunks; everything that
shapes and types can tell is checked here.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxmle._types import Loglik, Tree
from jaxmle.batch.members import Ragged, Stacked, Table, concatenated
from jaxmle.batch.padding import obstacle_to_padding
from jaxmle.likelihood.checks import (
    check_coding,
    check_fixed,
    check_start,
    host_data,
    host_params,
    in_row,
)
from jaxmle.likelihood.combinators import Pool, Weight, Weights, weight
from jaxmle.likelihood.contract import as_tree, data_length, leaf_of, terms_of
from jaxmle.likelihood.discovery.indices import Members, check_indices
from jaxmle.likelihood.discovery.ready_calls import calls_in, check_calls, check_stacked_calls
from jaxmle.likelihood.histogram import counts_of, distinct
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.likelihood.structure import parts_of, substituted
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.constraints import Ordered, Simplex
from jaxmle.parameters.tree import Layout, layout_of
from jaxmle.runtime.compile import precision

STARTED = 2**27  # bytes of data whose starts are found at once
NO_MEMBER_AXIS = (
    "nothing runs over members: in_axes is None for every leaf, and neither weights nor params0 "
    "have a leading axis"
)


@dataclass(frozen=True)
class Inputs:
    """A batch, checked."""

    loglik: Loglik  # as a tree; with weights of no value where they differ between members
    bare: Any  # the same without the weights given to the batch
    weight_kind: str | None
    layout: Layout
    base: np.ndarray  # (p,) or (b, p)
    source: Stacked | Ragged  # of (data, weights or (), cluster codes)
    counts: tuple[np.ndarray, ...]  # for each leaf of counts how many of them occur in each member
    dtype: np.dtype
    unpadded: str = (
        ""  # why members of unequal length run at their own lengths; "" where they do not
    )

    @property
    def largest(self) -> int:
        return int(np.argmax(self.source.sizes.sum(axis=1)))

    def most_counts(self, length: tuple[int, ...]) -> tuple[int, ...]:
        """For each leaf of counts how many of them occur in a member of no more rows than
        ``length``, at most.
        """
        short = self.source.sizes[:, 0] <= length[0]
        return tuple(int(found[short].max()) for found in self.counts)

    @property
    def longest(self) -> int:
        return int(self.source.sizes.sum(axis=1).max())


def gathered(
    loglik: Loglik,
    params0: Tree,
    datasets: Tree,
    constraints: Tree,
    weights: Any,
    clusters: Any,
    in_axes: Any,
    params_axis: Any,
    dtype: np.dtype,
) -> Inputs:
    """The inputs of a batch."""
    if weights is not None and not isinstance(weights, Weights):
        weight(loglik, weights)  # says what is wrong
    check_params_axis(params_axis)
    tree = as_tree(loglik)
    if isinstance(datasets, list):
        source: Stacked | Ragged = _ragged(tree, datasets, weights, clusters, dtype)
    elif isinstance(datasets, Table):
        source = _grouped(tree, datasets, weights, clusters, dtype)
    else:
        source = _stacked(tree, datasets, weights, clusters, in_axes, params0, params_axis, dtype)
    check_coding(tree, source.rows[0], source.place)
    constraints = getattr(loglik, "constraints", None) if constraints is None else constraints
    if params0 is None:
        params0 = _starts(loglik, source, dtype)
        params_axis = 0
    params = host_params(params0, dtype)
    batched = _has_axis(tree, params, constraints, source, params_axis, weights)
    if not batched and isinstance(source, Stacked) and all(source.shared):
        raise ValueError(NO_MEMBER_AXIS)
    layout = layout_of(
        jax.tree.map(lambda leaf: leaf[0], params) if batched else params, constraints
    )
    if batched:
        _check_starts(layout, params, source.members)
        base = layout.ravel_members(params)
    else:
        check_start(layout, params)
        base = layout.ravel(params)
    check_fixed(tree, layout)

    def held(x: Any) -> Any:
        return substituted(tree, layout, x)

    base = np.asarray(jax.vmap(held)(base) if batched else held(base))
    _check_own_weights(tree)
    with precision(dtype):
        _check_indices(tree, layout, base[0] if batched else base, source)
    kind = None if weights is None else weights.kind
    whole = tree if kind is None else weight(tree, Weights(np.zeros(0, dtype), kind))
    unpadded = ""
    if isinstance(source, Ragged):
        one = _one(source, int(np.argmax(source.sizes.sum(axis=1))))
        unpadded = obstacle_to_padding(
            tree, layout, base[0] if batched else base, one, source.sizes
        )
        source = replace(source, padded=not unpadded)
        with precision(dtype):
            _check_ragged_calls(tree, layout, base[0] if batched else base, source)
    return Inputs(whole, tree, kind, layout, base, source, _distinct(tree, source), dtype, unpadded)


def _check_indices(
    loglik: Loglik, layout: Layout, base: np.ndarray, source: Stacked | Ragged
) -> None:
    """Codes that index parameters lie in range, in every member."""
    flags = source.shared[: source.data_leaves]
    ragged = isinstance(source, Ragged)
    leaves = jax.tree.leaves(source.rows[0])

    def place(leaf: int, index: tuple[int, ...]) -> str:
        return source.place(source.part[leaf] if ragged else 0, index)  # type: ignore[union-attr]

    def one(leaf: int, index: tuple[int, ...]) -> Tree:
        if ragged:
            member = source.member(source.part[leaf], index[0])  # type: ignore[union-attr]
            return _one(source, member)
        return _one(source, 0 if flags[leaf] else index[0])

    members = Members(
        leaves,
        [0 if ragged or flag else 1 for flag in flags],
        place,
        one,
        len(np.unique(source.sizes, axis=0)) == 1,
    )
    first = _one(source, int(np.argmax(source.sizes.sum(axis=1))))
    if not ragged:
        shared = jax.tree.unflatten(jax.tree.structure(first), flags)
        check_stacked_calls(loglik, layout, base, first, source.rows[0], shared)
    check_indices(loglik, layout, base, first, members)


def _check_ragged_calls(loglik: Loglik, layout: Layout, base: np.ndarray, source: Ragged) -> None:
    """Ready models that the likelihood calls read the coding of each member: of all their rows
    together where rows are kept apart.
    """
    if source.padded and len(set(source.part)) == 1:
        check_calls(loglik, layout, base, source.rows[0], functools.partial(source.place, 0))
        return
    if calls_in(loglik, layout, base, _one(source, 0)) is None:
        return
    for member in range(len(source.sizes)):
        place = functools.partial(_in_member, member)
        check_calls(loglik, layout, base, _one(source, member), place)


def _in_member(member: int, index: tuple[int, ...]) -> str:
    return f"{in_row(index)} of member {member}"


def _check_own_weights(loglik: Loglik) -> None:
    if isinstance(loglik, Weight):
        raise ValueError(
            "weights inside the likelihood cannot be cut into members: give them to "
            "fit_batch(weights=…)"
        )
    for part in parts_of(loglik):
        _check_own_weights(part)


def _distinct(loglik: Loglik, source: Stacked | Ragged) -> tuple[np.ndarray, ...]:
    found = []
    for name in counts_of(loglik):
        y = np.asarray(leaf_of(source.rows[0], name))
        if isinstance(source, Ragged):
            found.append(
                distinct(y if source.order[0] is None else y[source.order[0]], source.sizes[:, 0])
            )
        else:
            parts = y if y.ndim == 2 else y[None]
            found.append(
                np.broadcast_to(
                    distinct(parts.ravel(), np.full(len(parts), parts.shape[1])), source.members
                )
            )
    return tuple(found)


# ---------------------------------------------------------------- stacked


def _stacked(
    loglik: Loglik,
    datasets: Tree,
    weights: Any,
    clusters: Any,
    in_axes: Any,
    params0: Tree,
    params_axis: Any,
    dtype: np.dtype,
) -> Stacked:
    data = host_data(datasets, dtype, nan=True)
    axes = leaf_axes(in_axes, data)
    sizes: dict[int, str] = {}
    moved = []
    for (path, leaf), axis in zip(jax.tree_util.tree_leaves_with_path(data), axes, strict=True):
        name = "datasets" + jax.tree_util.keystr(path)
        leaf = np.asarray(leaf)
        if axis is not None:
            if leaf.ndim < 2:
                raise ValueError(
                    f"{name} has shape {leaf.shape}; a batch needs (members, rows, …). Data sets "
                    "of unequal length go in a list."
                )
            if not -leaf.ndim <= axis < leaf.ndim:
                raise ValueError(
                    f"in_axes gives axis {axis} to {name}, which has shape {leaf.shape}"
                )
            leaf = np.moveaxis(leaf, axis, 0)
            sizes.setdefault(leaf.shape[0], name)
        moved.append(leaf)
    rows = (
        {leaf.shape[0 if axis is None else 1] for leaf, axis in zip(moved, axes, strict=True)}
        if not isinstance(loglik, Pool)
        else set()
    )
    if len(rows) > 1:
        raise ValueError(
            f"every leaf of a data set must share its rows; the leaves have {sorted(rows)} rows"
            + (". Data sets of unequal length go in a list." if len(moved) > 1 else "")
        )
    w, w_axis = _matrix(weights.values if weights is not None else None, "weights", dtype)
    labels, label_axis = (None, None) if clusters is None else _labels(clusters)
    for extra, axis, name in ((w, w_axis, "weights"), (labels, label_axis, "clusters")):
        if extra is not None and axis == 0:
            sizes.setdefault(len(extra), name)
    if params0 is not None and (params_axis == 0 or (params_axis == "auto" and not sizes)):
        leading = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(params0)}
        if len(leading) == 1 and leading != {()}:
            sizes.setdefault(leading.pop()[0], "params0")
    if len(sizes) > 1:
        raise ValueError(
            "every leaf must have as many members: "
            + " and ".join(f"{name} has {b}" for b, name in list(sizes.items())[:2])
        )
    if not sizes:
        raise ValueError(NO_MEMBER_AXIS)
    members = next(iter(sizes))
    n = next(iter(rows), None)
    if not members or 0 in rows:
        raise ValueError(
            "the batch has no members"
            if not members
            else f"{next(iter(sizes.values()))} has no rows: a likelihood of no observations has "
            "no maximum"
        )
    if w is not None:
        _check_weights(w, weights.kind, n)
    codes, code_axis = _stacked_codes(labels, label_axis, members, n)
    tree = (jax.tree.unflatten(jax.tree.structure(data), moved), () if w is None else w, codes)
    shared = (
        *(axis is None for axis in axes),
        *(() if w is None else (w_axis is None,)),
        *([code_axis is None] * len(codes)),
    )
    return Stacked(tree, shared, members, len(axes))


class _Shared:
    """Stands for None in a tree of axes, where None itself would be no leaf."""


def leaf_axes(in_axes: Any, data: Tree) -> list[int | None]:
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
            f"in_axes must be an axis, None, or a tree of them like the data; got {shown(in_axes)}"
        ) from None
    axes = [None if axis is shared else axis for axis in jax.tree.leaves(full)]
    for axis in axes:
        if axis is None:
            continue
        if isinstance(axis, bool) or not isinstance(axis, int | np.integer):
            raise TypeError(f"in_axes holds {shown(axis)}; an axis is a whole number or None")
    return [None if axis is None else int(axis) for axis in axes]


def _matrix(values: Any, name: str, dtype: np.dtype) -> tuple[np.ndarray | None, int | None]:
    if values is None:
        return None, None
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2):
        raise ValueError(
            f"{name} must be numbers of shape (n,) or (members, n); got {array.dtype} {array.shape}"
        )
    return array.astype(dtype), 0 if array.ndim == 2 else None


def _labels(clusters: Any) -> tuple[np.ndarray, int | None]:
    if isinstance(clusters, np.ma.MaskedArray):
        cluster_codes(clusters, None)  # says what is wrong
    labels = np.asarray(clusters)
    if labels.ndim not in (1, 2):
        raise ValueError(
            f"clusters must hold one label for each row, (n,) or (members, n); got {labels.shape}"
        )
    return labels, 0 if labels.ndim == 2 else None


def _stacked_codes(
    labels: np.ndarray | None, axis: int | None, members: int, n: int | None
) -> tuple[tuple[np.ndarray, ...], int | None]:
    if labels is None:
        return (), None
    if n is None or labels.shape[-1] != n:
        raise ValueError(
            f"clusters must hold one label for each of the {n} rows; got shape {labels.shape}"
        )
    if axis is None:
        return cluster_codes(labels, n), None
    return (
        codes_within(labels.reshape(-1), np.repeat(np.arange(members), n)).reshape(labels.shape),
    ), 0


def codes_within(labels: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Integer codes 0, 1, … of labels, counted anew in each member; members in order."""
    code = cluster_codes(labels, len(labels))[0]
    kinds, which = np.unique(
        member.astype(np.int64) * (int(code.max(initial=0)) + 1) + code, return_inverse=True
    )
    owner = kinds // (int(code.max(initial=0)) + 1)
    first = np.searchsorted(owner, np.arange(int(member.max(initial=0)) + 1))
    return (which.reshape(-1) - first[member]).astype(np.int32)


def _check_weights(
    w: np.ndarray, kind: str, n: int | None, member: np.ndarray | None = None
) -> None:
    """Weights are finite, not negative, and whole where they are frequencies."""
    if n is not None and w.shape[-1] != n:
        raise ValueError(f"weights must have shape ({n},) or (members, {n}); got {w.shape}")
    bad = np.argwhere(~(np.isfinite(w) & (w >= 0)) | ((w != np.floor(w)) & (kind == "frequency")))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        rule = (
            "must be finite and not negative"
            if not np.isfinite(w[place]) or w[place] < 0
            else "count repeated rows and must be whole numbers (survey weights are "
            "jaxmle.sampling(w))"
        )
        where = (
            f"member {place[0]}, row {place[1]}"
            if w.ndim == 2
            else f"row {place[0]}"
            + ("" if member is None else f" of all rows, in member {member[place[0]]},")
        )
        raise ValueError(f"{kind} weights {rule}; {where} has {w[place]}")


# ---------------------------------------------------------------- ragged


def _ragged(
    loglik: Loglik, datasets: list[Tree], weights: Any, clusters: Any, dtype: np.dtype
) -> Ragged:
    if not datasets:
        raise ValueError("datasets is an empty list: there is nothing to fit")
    if all(isinstance(d, int | float | complex | str) for d in datasets):
        raise TypeError(
            "datasets is a list of numbers; a list holds one data set a member, such as "
            "[array_1, array_2]"
        )
    parts = len(loglik.members) if isinstance(loglik, Pool) else 1
    extra = [_listed(weights.values, datasets, "weights")] if weights is not None else []
    extra += [_listed(clusters, datasets, "clusters")] if clusters is not None else []
    rows, part, starts, sizes = concatenated(datasets, parts, extra)
    return table(
        loglik,
        rows,
        part,
        starts,
        sizes,
        (None,) * parts,
        weights is not None,
        None if weights is None else weights.kind,
        clusters is not None,
        dtype,
    )


def _refuse_masks(data: Tree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(
                f"datasets{jax.tree_util.keystr(path)} is a masked array, whose mask would be "
                "lost; drop the masked rows from every leaf first"
            )


def _grouped(loglik: Loglik, groups: Table, weights: Any, clusters: Any, dtype: np.dtype) -> Ragged:
    """Members whose rows stand anywhere in one table; weights and clusters are in the order of
    its rows.
    """
    if isinstance(loglik, Pool):
        raise ValueError(
            "the rows of a pool cannot be cut into groups: give fit_batch a list with one tuple "
            "of data sets a group"
        )
    _refuse_masks(groups.data)
    data = jax.tree.map(np.asarray, groups.data)
    if data_length(data) not in (None, len(groups.member)):
        raise ValueError(
            f"the data have {data_length(data)} rows and {len(groups.member)} group labels"
        )
    sizes = np.bincount(groups.member, minlength=groups.members)[:, None]
    extra = [
        np.asarray(values)
        for values in (None if weights is None else weights.values, clusters)
        if values is not None
    ]
    for name, values in zip(
        (["weights"] if weights is not None else []) + ["clusters"], extra, strict=False
    ):
        if values.shape != groups.member.shape:
            raise ValueError(
                f"{name} must have shape {groups.member.shape}, one for each row; got "
                f"{values.shape}"
            )
    rows = (data, *extra)
    order = np.argsort(groups.member, kind="stable")
    starts = np.cumsum(sizes, axis=0) - sizes
    return table(
        loglik,
        rows,
        (0,) * len(jax.tree.leaves(rows)),
        starts,
        sizes,
        (order,),
        weights is not None,
        None if weights is None else weights.kind,
        clusters is not None,
        dtype,
    )


def table(
    loglik: Loglik,
    rows: tuple[Any, ...],
    part: tuple[int, ...],
    starts: np.ndarray,
    sizes: np.ndarray,
    order: tuple[np.ndarray | None, ...],
    weighted: bool,
    kind: str | None,
    clustered: bool,
    dtype: np.dtype,
) -> Ragged:
    """Members that stand in one table, checked. ``rows`` is (data, weights if any, labels if
    any).
    """
    data, *rest = rows
    data = host_data(data, dtype, nan=True)
    if not sizes.sum():
        raise ValueError("no member has any rows")
    member = np.repeat(np.arange(len(sizes)), sizes[:, 0])
    w: Any = ()
    if weighted:
        w = np.asarray(rest[0]).astype(dtype)
        _check_weights(w, str(kind), None, member if order[0] is None else None)
    codes: tuple[np.ndarray, ...] = ()
    if clustered:
        labels = np.asarray(rest[-1])
        cluster_codes(labels, len(labels))  # names a row that has none, in the order given
        if order[0] is None:
            codes = (codes_within(labels, member),)
        else:
            own = np.empty(len(labels), dtype=np.int32)
            own[order[0]] = codes_within(labels[order[0]], member)
            codes = (own,)
    leaves = len(jax.tree.leaves(data))
    whole = (data, w, codes)
    kinds = (*part[:leaves], *([0] * len(jax.tree.leaves((w, codes)))))
    return Ragged(whole, kinds, starts, sizes, order, leaves)


def _listed(values: Any, datasets: list[Tree], name: str) -> list[np.ndarray]:
    if not isinstance(values, list | tuple) or len(values) != len(datasets):
        got = (
            f"{len(values)} entries" if isinstance(values, list | tuple) else type(values).__name__
        )
        raise ValueError(
            f"with a list of {len(datasets)} data sets, {name} is a list with one array a "
            f"member; got {got}"
        )
    return [np.asarray(v) for v in values]


# ---------------------------------------------------------------- starts


def _one(source: Stacked | Ragged, member: int) -> Tree:
    rows = source.stack(np.array([member]), tuple(int(n) for n in source.sizes[member]))[0]
    flags = source.shared[: source.data_leaves]
    return jax.tree.unflatten(
        jax.tree.structure(rows),
        [leaf if one else leaf[0] for leaf, one in zip(jax.tree.leaves(rows), flags, strict=True)],
    )


def _starts(loglik: Any, source: Stacked | Ragged, dtype: np.dtype) -> Tree:
    if not hasattr(loglik, "start"):
        raise ValueError(
            "params0 is missing: give start values, such as {'beta': np.zeros(3), 'sigma': 1.0}; "
            "only a model with a method start(data) may go without. fix, tie, weight and "
            "penalize do not hand it on"
        )
    filled = np.flatnonzero(source.sizes.min(axis=1) > 0)
    alone = (
        not hasattr(loglik, "starts")
        or source.sizes.shape[1] > 1
        or any(source.shared[: source.data_leaves])
    )
    found = (
        [
            jax.tree.map(
                lambda leaf: np.asarray(leaf)[None], loglik.start(_one(source, int(member)))
            )
            for member in filled
        ]
        if alone
        else []
    )
    order = list(filled) if alone else []
    for size in () if alone else np.unique(source.sizes[filled, 0]):
        few = max(1, int(STARTED // max(source.row_bytes() * size, 1.0)))
        equal = filled[source.sizes[filled, 0] == size]
        for part in np.split(equal, range(few, len(equal), few)):
            found.append(loglik.starts(source.stack(part, (int(size),))[0]))
            order += list(part)
    place = np.zeros(source.members, int)  # an empty member starts where another does
    place[order] = np.arange(len(order))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[place].astype(dtype), *found)


def _check_starts(layout: Layout, params: Tree, members: int) -> None:
    """Every member's start lies inside its bounds; the first that does not is named."""
    values = layout.treedef.flatten_up_to(params)
    vectors = [
        leaf.constraint.elementwise or isinstance(leaf.constraint, Simplex | Ordered)
        for leaf in layout.leaves
    ]
    if all(
        one and leaf.constraint.violation(value) is None
        for one, leaf, value in zip(vectors, layout.leaves, values, strict=True)
    ):
        return
    for i in range(members):
        try:
            check_start(layout, jax.tree.map(lambda leaf, i=i: leaf[i], params))
        except ValueError as error:
            raise ValueError(f"member {i}: {error}") from None


def _has_axis(
    loglik: Loglik,
    params: Tree,
    constraints: Tree,
    source: Stacked | Ragged,
    axis: Any,
    weights: Any,
) -> bool:
    """Whether the start values have a leading axis over members."""
    check_params_axis(axis)
    leaves = jax.tree.leaves(params)
    possible = all(leaf.ndim and leaf.shape[0] == source.members for leaf in leaves)
    if axis == 0:
        if not possible:
            raise ValueError(
                "params_axis=0 says that every leaf of params0 has a leading axis of "
                f"{source.members} members; got shapes {[leaf.shape for leaf in leaves]}"
            )
        return True
    if axis is None:
        return False
    if not possible:
        return False
    both = [
        _fits(loglik, tree, constraints, source)
        for tree in (jax.tree.map(lambda leaf: leaf[0], params), params)
    ]
    if all(both):
        raise ValueError(
            "params0 may be read as one start for all members or as one for each of the "
            f"{source.members}: say params_axis=None or params_axis=0"
        )
    alone = isinstance(source, Stacked) and all(source.shared)
    return both[0] or (
        not both[1] and not alone
    )  # where neither reading runs, the error is that of one member


def check_params_axis(axis: Any) -> None:
    """``params_axis`` is 0, None or "auto"."""
    known = axis is None or (isinstance(axis, int | str) and not isinstance(axis, bool))
    if not known or axis not in (0, "auto", None):
        raise ValueError(f"params_axis must be 0, None or 'auto'; got {shown(axis)}")


def _fits(loglik: Loglik, params: Tree, constraints: Tree, source: Stacked | Ragged) -> bool:
    """Whether a member's likelihood takes these start values: terms of the right shape and no
    error.
    """
    try:
        data = _one(source, int(np.argmax(source.sizes.sum(axis=1))))
        layout_of(params, constraints)
        jax.eval_shape(functools.partial(terms_of, loglik), params, data)
    except (ValueError, TypeError, IndexError, AttributeError, KeyError):
        return False
    return True
