"""Evaluating a likelihood again at a fit: the data are passed again and checked against the fit,
and a quantity is evaluated for one fit or a batch.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, Axes, Clusters, Function, Loglik, Tree, ndarray
from jaxmle.batch.members.identities import identities
from jaxmle.batch.members.read import Inputs, read_batch
from jaxmle.batch.members.stacked import leaf_axes
from jaxmle.batch.members.table import codes_within
from jaxmle.fitting.options import Options
from jaxmle.likelihood.checks import check_values, host_data
from jaxmle.likelihood.combinators import Penalize, Weights, check_weights_given, weight
from jaxmle.likelihood.contract import as_tree, rows_of, terms_of
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.likelihood.structure import has, roots_of, weighting_of
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.constraints import Simplex
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.record.identity import identity
from jaxmle.runtime.compile import compiled, precision, to_numpy, tracing
from jaxmle.runtime.fingerprint import fingerprints

ROWS_SIDE_BY_SIDE = 2**17  # rows of members that are evaluated together
# by which ℓ may differ from that of the fit, which another program summed: rounding units of
# Σ|terms|, and a distance from a bound
MAX_UNITS_APART = 1e5
MAX_HEIGHTS_APART = 1e-6


class Again(NamedTuple):
    """A fit with its likelihood and the data that it was made from. The leaves of ``aligned`` are
    data, weights or None, and cluster codes.
    """

    loglik: Loglik  # without the weights
    fit: Fit
    aligned: tuple[Tree, Tree, tuple[Array, ...]]
    shared: tuple[bool, ...]  # for each leaf of ``aligned``, whether all members share it
    weights: Weights | None  # as given

    @property
    def weight_kind(self) -> str | None:
        """The kind of the weights; None if there are none."""
        return None if self.weights is None else self.weights.kind

    @property
    def data(self) -> Tree:
        """The data, on the host in the precision of the fit."""
        return self.aligned[0]

    @property
    def weighted(self) -> Loglik:
        """The likelihood of one fit, with the given weights."""
        return self.loglik if self.weights is None else weight(self.loglik, self.weights)

    def evaluate(self, key: Hashable, quantity: Function, extra: Tree = ()) -> Tree:
        """Evaluate ``quantity(loglik, x, data, codes, *extra)`` at the estimate: NumPy on the host,
        with leading axes for a batch.

        Args:
            key: hashable; what distinguishes this quantity from others of the same likelihood.
            extra: arrays of the record, with its leading axes.
        """
        kind = self.weight_kind
        treedef = jax.tree.structure(self.aligned)

        def of_one(loglik: Loglik, x: Array, leaves: list[Array], extra: Tree) -> Tree:
            data, w, codes = jax.tree.unflatten(treedef, leaves)
            whole = loglik if kind is None else weight(loglik, Weights(w, kind))
            return quantity(whole, x, data, codes, *extra)

        run = _of_members(of_one, self.shared) if self.fit.batch_shape else of_one
        leaves = jax.tree.leaves(self.aligned)
        x = self.fit.x
        if tracing():
            return run(self.loglik, x, leaves, extra)
        with precision(self.fit.dtype), np.errstate(all="ignore"):
            piece = compiled(
                self.loglik,
                (key, self.fit.layout, treedef, self.shared, kind, bool(self.fit.batch_shape)),
                lambda ll: lambda *args: run(ll, *args),
            )
            on_device = list(map(jnp.asarray, leaves))
            return to_numpy(piece(jnp.asarray(x), on_device, jax.tree.map(jnp.asarray, extra)))


def _of_members(of_one: Function, shared: tuple[bool, ...]) -> Function:
    """The function that evaluates a quantity of one fit for each member of a batch."""

    def of_many(loglik: Loglik, x: Array, leaves: list[Array], extra: Tree) -> Tree:
        apart = [leaf for leaf, same in zip(leaves, shared, strict=True) if not same]

        def of_member(args: tuple[Array, list[Array], Tree]) -> Tree:
            x, member_leaves, extra = args
            rest = iter(member_leaves)
            together = [
                leaf if same else next(rest) for leaf, same in zip(leaves, shared, strict=True)
            ]
            return of_one(loglik, x, together, extra)

        rows = max(
            (leaf.shape[0 if same else 1] for leaf, same in zip(leaves, shared, strict=True)),
            default=1,
        )
        block = max(1, min(x.shape[0], ROWS_SIDE_BY_SIDE // max(rows, 1)))
        return jax.lax.map(of_member, (x, apart, extra), batch_size=block)

    return of_many


# ---------------------------------------------------------------- the record and what is given


def check_fit(what: str, fit: object, alone: bool = False) -> None:
    """Raise for anything but a result of ``fit``, and for a batch if ``alone``."""
    if not isinstance(fit, Fit):
        raise TypeError(f"{what} takes the result of fit; got {shown(fit)}")
    if alone and fit.batch_shape:
        raise ValueError(
            f"{what} takes a single fit; this is a batch of {fit.batch_shape[0]}: give "
            "fits[i] and the data of that member"
        )
    if len(fit.batch_shape) > 1:
        raise ValueError(
            "a batch must have one leading axis over members; this fit has the shape "
            f"{fit.batch_shape}"
        )


def check_axes(fit: Fit, in_axes: Axes) -> None:
    """Raise for ``in_axes`` with a single fit, which has no axis over members."""
    plain = in_axes is None or (isinstance(in_axes, int) and in_axes is not False)
    if not fit.batch_shape and not (plain and in_axes in (0, None)):
        raise ValueError("in_axes is only for a batch; leave it out for a single fit")


def check_weighting(what: str, loglik: Loglik, fit: Fit, weights: Weights | None) -> None:
    """Raise if weights, passed again or inside the likelihood, are not of the fit's kind."""
    if weights is not None:
        check_weights_given(weights)
    kinds = {weighting_of(as_tree(loglik)), "none" if weights is None else weights.kind}
    given = "sampling" if "sampling" in kinds else max(kinds - {"none"}, default="none")
    if given == fit.weighting:
        return
    remedy = (
        f"give the weights that were used in the fit, weights=jaxmle.{fit.weighting}(w)"
        if fit.weighting != "none"
        else "leave the weights out, or refit with them"
    )
    raise ValueError(
        f"the fit has weights of the kind {fit.weighting!r} and {what} is given {given!r}: {remedy}"
    )


def _check_same(fit: Fit, given: Array) -> None:
    """Raise if data or weights are not those of the fit; a fit made under a trace has no
    fingerprint to compare.

    Args:
        given: fingerprints (b, 2) of the data and weights passed now.
    """
    known = np.asarray(fit.data_id).reshape(-1, 2)
    other = np.any(known != 0, axis=1) & np.any(given != known, axis=1)
    if not np.any(other):
        return
    where = f" of member {int(np.flatnonzero(other)[0])}" if fit.batch_shape else ""
    weighted = fit.weighting != "none"
    raise ValueError(
        f"the data{' or the weights' if weighted else ''}{where} are not those of the fit: give "
        "the same rows, in the same order and types"
        + (", with the same weights" if weighted else "")
    )


def _check_likelihood(given: Again, what: str) -> None:
    """Raise if the likelihood passed now has another value at the estimate than it had there in
    the fit.
    """
    fit = given.fit
    known = np.asarray(fit.loglik, dtype=float).reshape(-1)
    finite = np.isfinite(known) & np.isfinite(np.asarray(fit.x)).all(-1).reshape(-1)
    if not finite.any() or has(given.loglik, Penalize) != (fit.mode == "MAP"):
        return  # whether a prior may be there is for the caller to say

    def height(loglik: Loglik, x: Array, data: Tree, _: Tree) -> Array:
        terms = terms_of(loglik, fit.layout.unravel(x), data)
        return jnp.stack([jnp.sum(terms), jnp.sum(jnp.abs(terms))])

    value, size = np.asarray(given.evaluate("height", height), dtype=float).reshape(-1, 2).T
    rounding = np.finfo(fit.dtype).eps * (size + np.abs(known))
    allowed = MAX_HEIGHTS_APART + MAX_UNITS_APART * rounding
    other = finite & (np.abs(value - known) > allowed)
    if not other.any():
        return
    first = int(np.flatnonzero(other)[0])
    where = f" of member {first}" if fit.batch_shape else ""
    raise ValueError(
        f"{what} needs the log-likelihood and the data that were fitted: at the estimates{where} "
        f"those given have {value[first]:.6g}, and in the fit it was {known[first]:.6g}"
    )


# ---------------------------------------------------------------- the entry point


def again(
    loglik: Loglik,
    fit: Fit,
    data: Tree,
    *,
    weights: Weights | None = None,
    clusters: Clusters = None,
    in_axes: Axes = 0,
    check_data: bool = True,
    check_loglik: bool = True,
    alone: bool = False,
    what: str = "this",
) -> Again:
    """Check that data are those of a fit, and return everything needed to evaluate the likelihood.

    Args:
        data: as given to ``fit``; for a batch as given to ``fit_batch``, stacked, with ``in_axes``
            as there.
        weights, clusters: as given to the fit.
        check_data: whether fingerprints are compared; under a trace they never are.
        check_loglik: whether the value at the estimate is compared; under a trace it never is.
        alone: whether a batch is refused.
        what: the caller's name, for messages.

    Raises:
        ValueError: if the data, the weights or the likelihood are not those of the fit.
    """
    check_fit(what, fit, alone)
    check_weighting(what, loglik, fit, weights)
    tree = as_tree(loglik)
    check_axes(fit, in_axes)
    if fit.batch_shape and isinstance(data, list):
        raise ValueError(
            "with data sets of unequal length, call this for each member: fits[i] with its own data"
        )
    if not tracing():
        data = host_data(data, fit.dtype, nan=bool(fit.batch_shape))
    axes: list[bool] = []
    if fit.batch_shape:
        data, axes = _members_first(in_axes, data, fit.batch_shape[0])
    if tracing():
        codes = () if clusters is None else cluster_codes(clusters, rows_of(tree, data))
        return _aligned(tree, fit, data, weights, codes, axes)
    if not fit.batch_shape:
        check_values(tree if weights is None else weight(tree, weights), data)
    given = _aligned(tree, fit, data, weights, _codes(clusters, fit, tree, data), axes)
    if check_data:
        _check_same(fit, _identities(given))
        if check_loglik:
            _check_likelihood(given, what)
    return given


def batch_again(
    loglik: Loglik, fit: Fit, data: Tree, base: ndarray, weights: Weights | None, in_axes: Axes
) -> Inputs:
    """Check the data sets of a batch, of equal length or not, and prepare them in float64 for the
    batch engine.

    Args:
        base: (p,) parameters of one member, for the shapes.
    """
    options = Options(weights=weights)
    inputs = read_batch(loglik, fit.layout.unravel(base), data, options, in_axes, None)
    members = fit.batch_shape[0]
    if inputs.source.members != members:
        raise ValueError(f"the fit has {members} members and the data {inputs.source.members}")
    _check_same(fit, identities(inputs.source, fit.dtype))
    # ``read_batch`` was called without constraints; the layout of the fit has them.
    return replace(inputs, layout=fit.layout, base=base)


def _aligned(
    tree: Loglik,
    fit: Fit,
    data: Tree,
    weights: Weights | None,
    codes: tuple[Array, ...],
    axes: list[bool],
) -> Again:
    values = None if weights is None else weights.values
    if values is not None and not tracing():
        values = np.asarray(values, fit.dtype)
    aligned = (data, values, codes)
    if not fit.batch_shape:
        return Again(tree, fit, aligned, (True,) * len(jax.tree.leaves(aligned)), weights)
    others = [*codes] if values is None else [values, *codes]
    shared_beside_data = [np.ndim(leaf) == 1 for leaf in others]
    return Again(tree, fit, aligned, (*axes, *shared_beside_data), weights)


def _members_first(in_axes: Axes, data: Tree, members: int) -> tuple[Tree, list[bool]]:
    """The data with the axis over members first, and for each leaf whether all members share it."""
    leaves, treedef = jax.tree.flatten(data)
    axes = leaf_axes(in_axes, data)
    moved = []
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is None:
            moved.append(leaf)
            continue
        if np.ndim(leaf) < 2 or not -np.ndim(leaf) <= axis < np.ndim(leaf):
            size = None
        else:
            size = np.shape(leaf)[axis]
        if size != members:
            raise ValueError(
                f"a batch of {members} fits needs data with an axis of {members} members, "
                f"or None in in_axes; in_axes gives axis {axis} of shape {np.shape(leaf)}"
            )
        moved.append(namespace(leaf).moveaxis(leaf, axis, 0))
    return jax.tree.unflatten(treedef, moved), [axis is None for axis in axes]


def _identities(given: Again) -> ndarray:
    """The fingerprints (b, 2) of the data and weights passed now."""
    fit = given.fit
    if not fit.batch_shape:
        return identity(given.weighted, given.data, fit.dtype)[None]
    members = fit.batch_shape[0]
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(given.aligned[:2])]
    wide = [
        np.broadcast_to(leaf, (members, *leaf.shape)) if same else leaf
        for leaf, same in zip(leaves, given.shared, strict=False)
    ]
    return fingerprints(wide, None) if wide else np.zeros((members, 2), np.uint32)


def _codes(clusters: Clusters, fit: Fit, tree: Loglik, data: Tree) -> tuple[Array, ...]:
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
    """Coordinates of the directions in which the parameters of a likelihood are free, linear in the
    printed entries.
    """

    lift: ndarray  # (p, k) from a change in these coordinates to a change in x
    places: ndarray  # (k,) the entries of x that are these coordinates


def tangent(loglik: Loglik, layout: Layout) -> Tangent:
    """The entries that ``fix`` and ``tie`` leave free; for a simplex all but the last, which
    follows from the others.
    """
    roots = roots_of(loglik, layout)
    free = roots == np.arange(layout.p)
    lift = np.eye(layout.p)
    independent = free.copy()
    for leaf, span in zip(layout.leaves, layout.spans, strict=True):
        if isinstance(leaf.constraint, Simplex) and np.all(free[span]):
            for row in np.arange(span.start, span.stop).reshape(-1, leaf.shape[-1]):
                independent[row[-1]] = False
                lift[row[-1], row[:-1]] = -1.0
    places = np.flatnonzero(independent)
    return Tangent(lift[:, places], places)


def inverse_root(information: Array) -> Array:
    """U (k, k) with UU' the inverse of a matrix; NaN if it is not positive definite."""
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
