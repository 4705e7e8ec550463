"""Covariances of the estimate: inverse informations and sandwiches, on the estimable space.

The bread is given as a root U (k, r) with J⁻¹ = UU'. In the coordinates s̃ = U's the information is
the identity, so that every sandwich is T U (meat of s̃) U'T', T = ∂x/∂z; null directions have zero
columns in U and so drop out.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced
from jaxmle._types import Array, Clusters, Foreign, Loglik, Namespace, Tree, ndarray
from jaxmle.likelihood.information.hac import HAC, long_run
from jaxmle.likelihood.structure import has_law
from jaxmle.likelihood.terms import Rows, row_information, term_rows
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.tree import Layout

CLUSTER_KINDS = ("cluster", "CR0", "CR1", "CR1S", "CR2", "CR3")
VCOV_KINDS = ("observed", "expected", "opg", "HC0", "HC1", "HC2", "HC3", *CLUSTER_KINDS, "hac")
KINDS_OF_OTHER_SOFTWARE = {
    "robust": "HC1", "sandwich": "HC0", "nonrobust": "observed", "oim": "observed",
    "hessian": "observed", "fisher": "expected", "eim": "expected", "clustered": "cluster",
    "newey-west": "hac", "nw": "hac",
}  # fmt: skip
LEVERAGED = ("HC2", "HC3", "CR2", "CR3")
Kind = str | HAC


class Covariance(NamedTuple):
    """A covariance (p, p), and the row with leverage one, or the first row of a cluster with
    leverage one, or −1.
    """

    vcov: Array
    row: Array


def check_kind(kind: Kind | None, clusters: Clusters, where: str = "vcov") -> None:
    """Raise for an unknown kind, or for clusters without a cluster kind and vice versa."""
    known = kind is None or isinstance(kind, HAC)
    if not known and not (isinstance(kind, str) and kind in (*VCOV_KINDS, "auto")):
        raise ValueError(
            f"{where}={shown(kind)} is not known; choose one of {', '.join(VCOV_KINDS)}, 'auto', a "
            f"record of hac(…) or None.{_hint(kind)}"
        )
    if kind in CLUSTER_KINDS and clusters is None:
        raise ValueError(f"{where}={kind!r} needs clusters=, one label for each row of data")
    if clusters is not None and kind not in ("auto", *CLUSTER_KINDS):
        raise ValueError(
            f"clusters are given but {where}={kind!r} does not use them; write {where}='cluster'"
        )


def _hint(kind: object) -> str:
    """The kind that was probably meant."""
    if not isinstance(kind, str):
        return ""
    meant = {name.lower(): name for name in VCOV_KINDS} | KINDS_OF_OTHER_SOFTWARE
    near = get_close_matches(kind.lower(), list(meant), n=1)
    return f" Did you mean {meant[near[0]]!r}?" if near else ""


def check_order(kind: Kind | None, weighting: str) -> None:
    """Raise for frequency weights: repeated rows have no position in time."""
    if isinstance(kind, HAC) and weighting == "frequency":
        raise ValueError(
            "a HAC covariance needs the rows in time order, and a row with frequency "
            "weight 3 is three rows at unknown times: repeat the rows, or give sampling "
            "weights"
        )


def sandwich(
    loglik: Loglik,
    layout: Layout,
    x: Array,
    data: Tree,
    root: Array,
    jacobian: Array,
    kind: Kind,
    codes: tuple[Array, ...] = (),
) -> Covariance:
    """The robust covariance of ``kind`` at x.

    Args:
        root: U (k, k), J⁻¹ = UU' in the free coordinates.
        jacobian: T (p, k).
        codes: for cluster kinds, integer labels (n,) of each dimension and, for two-way clusters,
            of their intersection.
    """
    rows = term_rows(loglik, layout, x, data)
    lift = jacobian @ root
    scaled = rows._replace(scores=rows.scores @ lift)
    n = count_of(rows)
    k = jnp.sum(jnp.any(root != 0, axis=0))
    none = jnp.asarray(-1)
    if kind == "opg":
        opg = scaled.scores.T @ (rows.meat[:, None] * scaled.scores)
        return Covariance(lift @ inverse_on(root, opg) @ lift.T, none)
    if isinstance(kind, HAC):
        return Covariance(lift @ long_run(kind, rows, scaled.scores) @ lift.T, none)
    information = None
    if kind in LEVERAGED:
        # Without a distribution of the response the row's observed information stands in; the
        # record says so.
        source = "expected" if has_law(loglik) else "observed"
        information = jnp.einsum(
            "ja,nij,ib->nab", lift, row_information(loglik, layout, x, data, source), lift
        )
    if codes:
        return _clustered(scaled, lift, codes, kind, n, k, information)
    if information is not None:
        scaled, none = leveraged(scaled, information, kind)
    meat = scaled.scores.T @ (rows.meat[:, None] * scaled.scores)
    factor = n / (n - k) if kind == "HC1" else 1.0
    return Covariance(factor * (lift @ meat @ lift.T), none)


def inverse_on(root: Array, opg: Array) -> Array:
    """The inverse of the outer product of s̃ on the range of U, without null directions; NaN if it
    is singular there.
    """
    eps = jnp.finfo(opg.dtype).eps * opg.shape[0]
    unit = (
        root / jnp.maximum(jnp.sqrt(jnp.sum(root**2, axis=1)), jnp.finfo(opg.dtype).tiny)[:, None]
    )
    span = jnp.linalg.eigvalsh(unit.T @ unit)
    rank = jnp.sum(span > 100 * eps * jnp.max(span))
    values, q = jnp.linalg.eigh(opg)
    # The scores are in units of the model's information, so that 1 is a natural size.
    positive = values > jnp.maximum(eps * jnp.max(values), eps**2)
    inverse = (q * jnp.where(positive, 1.0 / jnp.where(positive, values, 1.0), 0.0)[None, :]) @ q.T
    return jnp.where(jnp.sum(positive) == rank, inverse, jnp.nan)


def count_of(rows: Rows) -> Array:
    """n: the sum of frequency weights, or the number of rows of positive sampling weight."""
    counted = jnp.where(
        rows.weight > 0, rows.weight**2 / jnp.where(rows.meat > 0, rows.meat, 1.0), 0.0
    )
    return jnp.sum(counted)


def leveraged(rows: Rows, information: Array, kind: str) -> tuple[Rows, jax.Array]:
    """The scores of rows for HC2 and HC3. The leverage is that of a single unit; a frequency weight
    counts several units per row.
    """
    unit = jnp.where(rows.weight > 0, rows.meat / jnp.where(rows.weight > 0, rows.weight, 1.0), 0.0)
    scores, broken = unlevered(
        rows.scores, unit[:, None, None] * information, kind, rows.weight > 0
    )
    return rows._replace(scores=scores), jnp.where(jnp.any(broken), jnp.argmax(broken), -1)


def unlevered(scores: Array, information: Array, kind: str, counted: Array) -> tuple[Array, Array]:
    """s̃ divided by (I − Ã)^½ (HC2, CR2) or (I − Ã) (HC3, CR3), the leverage of a likelihood
    (Kauermann & Carroll 2001, JASA 96).

    Args:
        scores: s̃ (m, k) of rows or of clusters, in coordinates in which the information of all is
            the identity.
        information: Ã (m, k, k) of the same.
        counted: (m,) which of them exist; the others get 0.

    Returns:
        The scores, NaN if an eigenvalue of Ã reaches one, and a mask of these, (m,).
    """
    values, q = jnp.linalg.eigh(information)
    left = 1.0 - values
    broken = jnp.any(left <= 64 * jnp.finfo(left.dtype).eps, axis=1) & counted
    power = left**-0.5 if kind in ("HC2", "CR2") else 1.0 / left
    divided = jnp.einsum("nij,nj,nkj,nk->ni", q, power, q, scores)
    return jnp.where(broken[:, None], jnp.nan, jnp.where(counted[:, None], divided, 0.0)), broken


def _clustered(
    rows: Rows,
    lift: Array,
    codes: tuple[Array, ...],
    kind: str,
    n: Array,
    k: Array,
    information: Array | None,
) -> Covariance:
    """Σ_g S_g S_g', each dimension with its own factor; two-way clusters add the dimensions and
    subtract their intersection (Cameron, Gelbach & Miller 2011, JBES 29).
    """
    total = jnp.zeros((lift.shape[0], lift.shape[0]), lift.dtype)
    row = jnp.asarray(-1)
    for sign, code in zip((1, 1, -1) if len(codes) == 3 else (1,), codes, strict=True):
        sums, counted = cluster_sums(rows, code)
        if information is not None:
            sums, broken = unlevered(
                sums, cluster_information(rows, code, information), kind, counted
            )
            row = jnp.where(jnp.any(broken), jnp.argmax(broken[code] & (rows.weight > 0)), row)
        total += (
            sign * cluster_factor(kind, jnp.sum(counted), n, k) * (lift @ (sums.T @ sums) @ lift.T)
        )
    bad = jnp.diagonal(total) < 0  # two-way sums need not be positive; such a variance is NaN
    return Covariance(jnp.where(bad[:, None] | bad[None, :], jnp.nan, total), row)


def cluster_factor(kind: str, groups: Array, n: Array, k: Array) -> Array | float:
    """G/(G − 1) for CR1, times (n − 1)/(n − k) for CR1S; 1 for CR0, CR2 and CR3."""
    if kind in ("CR0", "CR2", "CR3"):
        return 1.0
    return groups / (groups - 1.0) * ((n - 1.0) / (n - k) if kind == "CR1S" else 1.0)


def cluster_sums(rows: Rows, code: Array) -> tuple[Array, Array]:
    """The weighted score of each cluster (n, k), by its code, and which codes have a row of
    positive weight (n,).
    """
    sums = jax.ops.segment_sum(rows.weight[:, None] * rows.scores, code, num_segments=code.shape[0])
    return sums, jax.ops.segment_max(
        (rows.weight > 0).astype(rows.weight.dtype), code, num_segments=code.shape[0]
    ) > 0


def cluster_information(rows: Rows, code: Array, information: Array) -> Array:
    """The weighted information of each cluster (n, k, k), by its code."""
    return jax.ops.segment_sum(
        rows.weight[:, None, None] * information, code, num_segments=code.shape[0]
    )


def cluster_codes(clusters: Clusters, n: int | None) -> tuple[Array, ...]:
    """Integer labels (n,) for one-way clusters; for two-way ((n, 2) or a pair), each dimension and
    their crossing.

    On the host labels may be strings; under a trace they must be integer arrays.
    """
    dimensions = _dimensions(clusters)
    for labels in dimensions:
        if labels.ndim != 1 or (n is not None and labels.shape[0] != n):
            raise ValueError(
                f"clusters must hold one label for each of the {n} rows; got shape {labels.shape}"
                + (
                    f". Give the name of a column to from_formula(…, clusters={str(clusters)!r})"
                    if isinstance(clusters, str)
                    else ""
                )
            )
    xp = jnp if any(is_traced(labels) for labels in dimensions) else np
    coded = [_codes(xp, labels) for labels in dimensions]
    if len(coded) == 2:
        coded.append(_codes(xp, coded[0] * (coded[1].shape[0] + 1) + coded[1]))
    return tuple(coded)


def _dimensions(clusters: Clusters) -> list[Array]:
    if isinstance(clusters, np.ma.MaskedArray):
        raise TypeError(
            "clusters are a masked array, whose mask would be lost; drop the masked rows "
            "from every leaf, or fill them"
        )
    if (
        isinstance(clusters, tuple | list)
        and len(clusters) == 2
        and all(hasattr(c, "shape") or isinstance(c, list) for c in clusters)
    ):
        return [_labels(c) for c in clusters]
    labels = _labels(clusters)
    return [labels[:, 0], labels[:, 1]] if labels.ndim == 2 and labels.shape[1] == 2 else [labels]


def _labels(clusters: Clusters) -> Array:
    """Labels as an array. A list is read entry by entry, because in an array of strings None and
    NaN would become text.
    """
    if isinstance(clusters, jax.Array):
        return clusters
    if isinstance(clusters, list | tuple) and not any(np.ndim(c) for c in clusters):
        return np.array([*clusters, None], dtype=object)[:-1]
    return np.asarray(clusters)


def _is_missing(label: Foreign) -> bool:
    """None, NaN, NaT or pandas's NA."""
    if type(label).__name__ in ("NoneType", "NAType", "NaTType"):
        return True
    if isinstance(label, np.datetime64 | np.timedelta64):
        return bool(np.isnat(label))
    return isinstance(label, float | np.floating) and bool(np.isnan(label))


def _refuse_missing(values: ndarray) -> None:
    """Raise for a row without a label, naming the first."""
    kind = values.dtype.kind
    if kind == "O":
        bad = np.array([_is_missing(label) for label in values], dtype=bool)
    elif kind in "fc":
        bad = np.isnan(values)
    elif kind in "mM":
        bad = np.isnat(values)
    else:
        return
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"clusters are {_name_of_missing(values[row])} in row {row} ({int(bad.sum())} "
            "in all): every row needs a cluster"
        )


def _name_of_missing(label: Foreign) -> str:
    return "NaN" if isinstance(label, float | np.floating) else str(label)


def _object_codes(values: ndarray) -> ndarray:
    """Codes of Python objects: sorted if they can be, otherwise in order of appearance."""
    try:
        kinds = sorted(set(values))
    except TypeError:  # labels without an order
        kinds = list(dict.fromkeys(values)) if _all_hash(values) else []
    if not kinds and len(values):
        raise TypeError("clusters hold objects that cannot be labels: use numbers or strings")
    place = {label: code for code, label in enumerate(kinds)}
    return np.fromiter((place[label] for label in values), np.int32, len(values))


def _all_hash(values: ndarray) -> bool:
    return all(getattr(label, "__hash__", None) is not None for label in values)


def _codes(xp: Namespace, labels: Array) -> Array:
    if xp is np:
        values = np.asarray(labels)
        _refuse_missing(values)
        if values.dtype.kind == "O":
            return _object_codes(values)
        return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int32)
    return jnp.unique(labels, return_inverse=True, size=labels.shape[0])[1].reshape(-1)
