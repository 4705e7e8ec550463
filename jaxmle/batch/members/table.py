"""Members of a batch that are given as a list of data sets, or as groups of rows of one table."""

from __future__ import annotations

import jax
import numpy as np

from jaxmle._types import Data, Loglik, Tree, ndarray
from jaxmle.batch.members.sources import Ragged, Table, concatenated
from jaxmle.fitting.options import Options
from jaxmle.likelihood.checks import host_data
from jaxmle.likelihood.combinators import Pool
from jaxmle.likelihood.contract import data_length
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.parameters.frames import columns_of_frame, is_frame

WEIGHTS_IN_CACHE = 2**15  # looked at together, so that they are read from memory once


def ragged(loglik: Loglik, datasets: list[Data], options: Options) -> Ragged:
    """A list with one data set per member, concatenated into one table and checked."""
    if not datasets:
        raise ValueError("datasets is an empty list: there is nothing to fit")
    if all(isinstance(data, int | float | complex | str) for data in datasets):
        raise TypeError(
            "datasets is a list of numbers; it must hold one data set for each member, "
            "such as [array_1, array_2]"
        )
    datasets = [columns_of_frame(data) if is_frame(data) else data for data in datasets]
    parts = len(loglik.members) if isinstance(loglik, Pool) else 1
    columns = [_listed(values, datasets, name) for name, values in _row_aligned(options).items()]
    rows, part, starts, sizes = concatenated(datasets, parts, columns)
    return _checked_table(rows, part, starts, sizes, (None,) * parts, options)


def _listed(values: Tree, datasets: list[Data], name: str) -> list[ndarray]:
    is_list = isinstance(values, list | tuple)
    if not is_list or len(values) != len(datasets):
        got = f"{len(values)} entries" if is_list else type(values).__name__
        raise ValueError(
            f"with a list of {len(datasets)} data sets, {name} must be a list with one "
            f"array for each member; got {got}"
        )
    return [np.asarray(array) for array in values]


def _row_aligned(options: Options) -> dict[str, Tree]:
    """The values that go with each row beside the data, by the name of their argument."""
    aligned = {}
    if options.weights is not None:
        aligned["weights"] = options.weights.values
    if options.clusters is not None:
        aligned["clusters"] = options.clusters
    return aligned


def grouped(loglik: Loglik, groups: Table, options: Options) -> Ragged:
    """Members whose rows are anywhere in one table, checked. Weights and clusters are in the order
    of its rows.
    """
    if isinstance(loglik, Pool):
        raise ValueError(
            "the rows of a pool cannot be split into groups: give fit_batch a list with "
            "one tuple of data sets for each group"
        )
    _refuse_masks(groups.data)
    data = jax.tree.map(np.asarray, groups.data)
    if data_length(data) not in (None, len(groups.member)):
        raise ValueError(
            f"the data have {data_length(data)} rows and {len(groups.member)} group labels"
        )
    aligned = {name: np.asarray(values) for name, values in _row_aligned(options).items()}
    for name, values in aligned.items():
        if values.shape != groups.member.shape:
            raise ValueError(
                f"{name} must have shape {groups.member.shape}, one for each row; got "
                f"{values.shape}"
            )
    rows = (data, *aligned.values())
    part = (0,) * len(jax.tree.leaves(rows))
    sizes = np.bincount(groups.member, minlength=groups.members)[:, None]
    starts = np.cumsum(sizes, axis=0) - sizes
    order = np.argsort(groups.member, kind="stable")
    return _checked_table(rows, part, starts, sizes, (order,), options)


def _refuse_masks(data: Data) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(
                f"datasets{jax.tree_util.keystr(path)} is a masked array, whose mask would be "
                "lost; drop the masked rows from every leaf first"
            )


def _checked_table(
    rows: tuple[Tree, ...],
    part: tuple[int, ...],
    starts: ndarray,
    sizes: ndarray,
    order: tuple[ndarray | None, ...],
    options: Options,
) -> Ragged:
    """The members of one table, checked.

    Args:
        rows: (data, weights if any, labels if any).
        part: the part of a pool that each leaf belongs to.
        starts, sizes: the first row of each member and how many it has, (b, parts).
        order: for each part, the row of the table at each position; None if the rows are in order.
    """
    dtype = options.host_dtype
    data = host_data(rows[0], dtype, nan=True)
    if not sizes.sum():
        raise ValueError("none of the members has rows")
    member = np.repeat(np.arange(len(sizes)), sizes[:, 0])
    weights: ndarray | tuple[()] = ()
    if options.weights is not None:
        weights = np.asarray(rows[1]).astype(dtype)
        owner = member if order[0] is None else None
        check_member_weights(weights, options.weights.kind, None, owner)
    codes: tuple[ndarray, ...] = ()
    if options.clusters is not None:
        codes = (_table_codes(np.asarray(rows[-1]), member, order[0]),)
    leaves = len(jax.tree.leaves(data))
    parts = (*part[:leaves], *([0] * len(jax.tree.leaves((weights, codes)))))
    return Ragged((data, weights, codes), parts, starts, sizes, order, leaves)


def _table_codes(labels: ndarray, member: ndarray, order: ndarray | None) -> ndarray:
    """The cluster codes (n,) of the rows of a table, counted anew in each member."""
    cluster_codes(labels, len(labels))  # names a row that has none, in the order given
    if order is None:
        return codes_within(labels, member)
    codes = np.empty(len(labels), dtype=np.int32)
    codes[order] = codes_within(labels[order], member)
    return codes


def codes_within(labels: ndarray, member: ndarray) -> ndarray:
    """Integer codes 0, 1, … of labels, counted anew in each member; members in order."""
    code = cluster_codes(labels, len(labels))[0]
    number = int(code.max(initial=0)) + 1
    kinds, which = np.unique(member.astype(np.int64) * number + code, return_inverse=True)
    owner = kinds // number
    first = np.searchsorted(owner, np.arange(int(member.max(initial=0)) + 1))
    return (which.reshape(-1) - first[member]).astype(np.int32)


def _are_weights(w: ndarray, kind: str) -> bool:
    """Whether all weights are finite and non-negative, and integers if they are frequencies."""
    whole = kind == "frequency"

    def in_order(part: ndarray) -> bool:
        is_finite = bool(part.min() >= 0 and part.max() < np.inf)  # neither holds of NaN
        return is_finite and (not whole or np.array_equal(np.trunc(part), part))

    if not w.size:
        return True
    rows = max(1, WEIGHTS_IN_CACHE // (w.size // len(w)))
    return all(in_order(w[i : i + rows]) for i in range(0, len(w), rows))


def check_member_weights(
    w: ndarray, kind: str, n: int | None, member: ndarray | None = None
) -> None:
    """Weights must be finite and non-negative, and integers if they are frequencies.

    Args:
        w: (n,), or (b, n) with those of each member.
        n: the number of rows of a member; None if it is known to agree.
        member: the member of each row of a table, to be named in the message.
    """
    if n is not None and w.shape[-1] != n:
        raise ValueError(f"weights must have shape ({n},) or (members, {n}); got {w.shape}")
    if _are_weights(w, kind):
        return
    bad = np.argwhere(~(np.isfinite(w) & (w >= 0)) | ((w != np.floor(w)) & (kind == "frequency")))
    place = tuple(int(i) for i in bad[0])
    rule = "must be finite and non-negative"
    if np.isfinite(w[place]) and w[place] >= 0:
        rule = "count repeated rows and must be integers (survey weights are jaxmle.sampling(w))"
    if w.ndim == 2:
        where = f"member {place[0]}, row {place[1]}"
    elif member is None:
        where = f"row {place[0]}"
    else:
        where = f"row {place[0]} of all rows, in member {member[place[0]]},"
    raise ValueError(f"{kind} weights {rule}; {where} has {w[place]}")
