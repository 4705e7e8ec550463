"""The likelihood visited again: the data are given once more, checked against the record, and a quantity is evaluated for one fit or a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle.fitting.fingerprint import fingerprints
from jaxmle.fitting.inputs import codes_within
from jaxmle.fitting.record import Fit
from jaxmle.likelihood.anatomy import roots_of, weighting_of
from jaxmle.likelihood.checks import check_values, host_data
from jaxmle.likelihood.combinators import Weights, weight
from jaxmle.likelihood.contract import as_tree, rows_of
from jaxmle.likelihood.covariance import cluster_codes
from jaxmle.likelihood.host import compiled, precision, to_numpy, tracing
from jaxmle.parameters.constraints import Simplex
from jaxmle.parameters.tree import Layout

Array = Any
Tree = Any
ROWS = 2**17  # rows of members that are evaluated side by side


class Visit(NamedTuple):
    """A likelihood and the data it was fitted to. The leaves of ``aligned`` are data, weights or None, and cluster codes."""

    loglik: Any
    fit: Fit
    aligned: tuple[Tree, Any, tuple[Array, ...]]
    shared: tuple[bool, ...]  # for each leaf of ``aligned``, whether all members share it
    weight_kind: str | None

    def evaluate(self, key: Any, quantity: Callable[..., Any], extra: Tree = ()) -> Any:
        """``quantity(loglik, x, data, codes, *extra)`` at the estimate: NumPy on the host, with leading axes for a batch.

        Args:
            key: hashable; what distinguishes this quantity from others of the same likelihood.
            extra: arrays of the record, with its leading axes.
        """
        kind, flags, treedef = self.weight_kind, self.shared, jax.tree.structure(self.aligned)

        def one(loglik: Any, x: Array, leaves: list[Array], extra: Tree) -> Any:
            data, w, codes = jax.tree.unflatten(treedef, leaves)
            return quantity(
                loglik if kind is None else weight(loglik, Weights(w, kind)), x, data, codes, *extra
            )

        def many(loglik: Any, x: Array, leaves: list[Array], extra: Tree) -> Any:
            own = [leaf for leaf, same in zip(leaves, flags, strict=True) if not same]

            def member(args: tuple[Array, list[Array], Tree]) -> Any:
                x, mine, extra = args
                rest = iter(mine)
                return one(
                    loglik,
                    x,
                    [
                        leaf if same else next(rest)
                        for leaf, same in zip(leaves, flags, strict=True)
                    ],
                    extra,
                )

            rows = max(
                (leaf.shape[0 if same else 1] for leaf, same in zip(leaves, flags, strict=True)),
                default=1,
            )
            return jax.lax.map(
                member, (x, own, extra), batch_size=max(1, min(x.shape[0], ROWS // max(rows, 1)))
            )

        run, leaves, x = (
            many if self.fit.batch_shape else one,
            jax.tree.leaves(self.aligned),
            self.fit.x,
        )
        if tracing():
            return run(self.loglik, x, leaves, extra)
        with precision(self.fit.dtype), np.errstate(all="ignore"):
            piece = compiled(
                self.loglik,
                (key, self.fit.layout, treedef, flags, kind, bool(self.fit.batch_shape)),
                lambda ll: lambda *args: run(ll, *args),
            )
            return to_numpy(
                piece(
                    jnp.asarray(x), list(map(jnp.asarray, leaves)), jax.tree.map(jnp.asarray, extra)
                )
            )


def visit(
    loglik: Any,
    fit: Fit,
    data: Tree,
    *,
    weights: Any = None,
    clusters: Any = None,
    in_axes: Any = 0,
    check_data: bool = True,
) -> Visit:
    """The data of a fit given again.

    Args:
        data: as given to ``fit``; for a batch as given to ``fit_batch``, stacked, with ``in_axes`` 0 or None for each leaf.
        weights, clusters: as given to the fit.

    Raises:
        ValueError: where the data, or the kind of weights, are not those of the fit.
    """
    if not isinstance(fit, Fit):
        raise TypeError(f"the fit to ask comes after the likelihood; got {type(fit).__name__}")
    if weights is not None and not isinstance(weights, Weights):
        weight(loglik, weights)  # says what is wrong
    tree = as_tree(loglik)
    given = (
        "sampling"
        if "sampling"
        in (kinds := {weighting_of(tree), "none" if weights is None else weights.kind})
        else max(kinds - {"none"}, default="none")
    )
    if given != fit.weighting:
        raise ValueError(
            f"the weights given here are of the kind {given!r} and the fit was weighted by {fit.weighting!r}: give the weights of the fit again"
        )
    if len(fit.batch_shape) > 1:
        raise ValueError(f"the batch has shape {fit.batch_shape}; one leading axis is read at most")
    if tracing():
        return _visit(
            tree,
            fit,
            data,
            weights,
            () if clusters is None else cluster_codes(clusters, rows_of(tree, data)),
            [],
        )
    if fit.batch_shape and isinstance(data, list):
        raise ValueError(
            "data sets of unequal length are asked one by one: for each i, fits[i] with its own data"
        )
    data = host_data(data, fit.dtype, nan=bool(fit.batch_shape))
    axes = _axes(in_axes, data) if fit.batch_shape else []
    if check_data:
        _check_same(fit, data, axes)
    if not fit.batch_shape:
        check_values(tree if weights is None else weight(tree, weights), data)
    return _visit(tree, fit, data, weights, _codes(clusters, fit, tree, data), axes)


def _visit(
    tree: Any, fit: Fit, data: Tree, weights: Any, codes: tuple[Array, ...], axes: list[bool]
) -> Visit:
    values = (
        None
        if weights is None
        else np.asarray(weights.values, fit.dtype)
        if not tracing()
        else weights.values
    )
    alone = [np.ndim(leaf) == 1 for leaf in ([] if values is None else [values]) + list(codes)]
    return Visit(
        tree,
        fit,
        (data, values, codes),
        (*axes, *alone)
        if fit.batch_shape
        else (True,) * len(jax.tree.leaves((data, values, codes))),
        None if weights is None else weights.kind,
    )


def _axes(in_axes: Any, data: Tree) -> list[bool]:
    """For each leaf, whether all members share it."""
    try:
        full = jax.tree.map(
            lambda axis, sub: jax.tree.map(lambda _: -1 if axis is None else axis, sub),
            in_axes,
            data,
            is_leaf=lambda a: a is None,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"in_axes must be 0, None, or a tree of them like the data: {error}"
        ) from None
    axes = jax.tree.leaves(full)
    if any(axis not in (0, -1) for axis in axes):
        raise ValueError(
            f"in_axes is 0 for a leaf with a leading axis over members and None for one that all share; got {in_axes!r}"
        )
    return [axis == -1 for axis in axes]


def _check_same(fit: Fit, data: Tree, axes: list[bool]) -> None:
    """Data that are not those of the fit are refused; a fit made under a trace knows no fingerprint."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(data)]
    if not leaves:
        return
    members = fit.batch_shape[0] if fit.batch_shape else 1
    if fit.batch_shape:
        for leaf, same in zip(leaves, axes, strict=True):
            if not same and (leaf.ndim < 2 or leaf.shape[0] != members):
                raise ValueError(
                    f"a batch of {members} fits takes data with a leading axis of {members} members, or None in in_axes; got shape {leaf.shape}"
                )
    wide = [
        np.broadcast_to(leaf, (members, *leaf.shape)) if not fit.batch_shape or same else leaf
        for leaf, same in zip(leaves, axes or [True] * len(leaves), strict=True)
    ]
    told, known = fingerprints(wide, None), np.asarray(fit.data_id).reshape(-1, 2)
    other = np.any(known != 0, axis=1) & np.any(told != known, axis=1)
    if np.any(other):
        where = f" of member {int(np.flatnonzero(other)[0])}" if fit.batch_shape else ""
        raise ValueError(
            f"the data{where} are not those of the fit: give the same rows, in the same order and types"
        )


def _codes(clusters: Any, fit: Fit, tree: Any, data: Tree) -> tuple[Array, ...]:
    if clusters is None:
        return ()
    if not fit.batch_shape:
        return cluster_codes(clusters, rows_of(tree, data))
    labels = np.asarray(clusters)
    if labels.ndim == 1:
        return cluster_codes(labels, None)
    if labels.ndim != 2 or len(labels) != fit.batch_shape[0]:
        raise ValueError(
            f"clusters of a batch are (n,) or ({fit.batch_shape[0]}, n); got shape {labels.shape}"
        )
    return (
        codes_within(
            labels.reshape(-1), np.repeat(np.arange(len(labels)), labels.shape[1])
        ).reshape(labels.shape),
    )


class Tangent(NamedTuple):
    """Coordinates of the directions in which the parameters of a likelihood can move, linear in the printed entries."""

    lift: np.ndarray  # (p, k) from a move in them to one of x
    places: np.ndarray  # (k,) the entries of x that are these coordinates


def tangent(loglik: Any, layout: Layout) -> Tangent:
    """The entries that ``fix`` and ``tie`` leave free; of a simplex all but the last, which takes up the rest."""
    roots = roots_of(loglik, layout)
    free = roots == np.arange(layout.p)
    lift, kept = np.eye(layout.p), free.copy()
    for leaf, span in zip(layout.leaves, layout.spans, strict=True):
        if isinstance(leaf.constraint, Simplex) and np.all(free[span]):
            for row in np.arange(span.start, span.stop).reshape(-1, leaf.shape[-1]):
                kept[row[-1]] = False
                lift[row[-1], row[:-1]] = -1.0
    places = np.flatnonzero(kept)
    return Tangent(lift[:, places], places)


def inverse_root(information: Array) -> Array:
    """U (k, k) with UU' the inverse of a matrix; NaN where it is not positive definite."""
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(information)))
    factor = jnp.linalg.cholesky(
        0.5 * (information + information.T) / (scale[:, None] * scale[None, :])
    )
    return (
        jax.scipy.linalg.solve_triangular(
            factor, jnp.eye(len(scale), dtype=information.dtype), lower=True
        ).T
        / scale[:, None]
    )
