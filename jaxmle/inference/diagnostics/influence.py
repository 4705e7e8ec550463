"""The effect of one observation, or one cluster, on the estimate: one Newton step without it, from
derivatives at the estimate alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Axes, Clusters, Loglik, Tree
from jaxmle.fitting.objective import Objective
from jaxmle.inference.again import Again, again, inverse_root
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.discovery.row_independence import check_rows_apart
from jaxmle.likelihood.information.covariance import cluster_information, cluster_sums
from jaxmle.likelihood.structure import chart_of, jeffreys_of, roots_of
from jaxmle.likelihood.terms import row_information, term_rows
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Chart, Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import precision, tracing

CLUSTER_DEPENDENT_ROWS = "Give clusters= that keep dependent rows together"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["estimates", "dfbetas", "cook", "leverage"],
    meta_fields=["names", "clustered"],
)
@dataclass(frozen=True, eq=False)
class Influence:
    """The influence of each unit on the estimates.

    Units are rows, or clusters in the order of their sorted labels. A batch has a leading axis.
    ``estimates`` (units, p): the one-step estimate without the unit; ``dfbetas`` (units, p): the
    estimate minus that, in standard errors of the fit; ``cook`` (units,), (θ̂ − θ̂₍ᵢ₎)'J(θ̂ −
    θ̂₍ᵢ₎)/k; ``leverage`` (units,), tr J⁻¹A_i, which sums to k. NaN if the information without the
    unit is not positive definite.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.diagnostics.influence import influence
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, data: -0.5 * (data - params["mean"]) ** 2
    >>> result = jm.fit(normal, {"mean": 0.0}, y)
    >>> found = influence(normal, result, y)
    >>> found.leverage.round(6).tolist()  # 1/n
    [0.25, 0.25, 0.25, 0.25]
    >>> found.dfbetas[:, 0].round(6).tolist()  # (y − mean)/(n − 1) in standard errors of 1/2
    [-1.333333, 0.0, -0.666667, 2.0]
    """

    estimates: Array
    dfbetas: Array
    cook: Array
    leverage: Array
    names: tuple[str, ...]
    clustered: bool

    def largest(self, count: int = 5) -> Array:
        """The indices of the units with the largest Cook's distance, largest first; units without a
        distance come first.
        """
        order = np.argsort(np.where(np.isnan(self.cook), np.inf, self.cook), axis=-1, kind="stable")
        return order[..., ::-1][..., :count]


@with_keyword_hints
def influence(
    loglik: Loglik,
    fit: Fit,
    data: Tree = None,
    *,
    clusters: Clusters = None,
    weights: Weights | None = None,
    in_axes: Axes = 0,
) -> Influence:
    """One-step estimates without each observation, or without each cluster.

    At the maximum the score of the other units is −s_i and their information J − A_i, where A_i is
    the observed information of unit i, so one Newton step leads to θ̂₍ᵢ₎ = θ̂ − (J − A_i)⁻¹s_i
    (Pregibon 1981, Annals of Statistics 9, for logistic regression). Its first-order term −J⁻¹s_i
    is the derivative of the estimate with respect to a case weight, by the implicit function
    theorem (Cook 1986, JRSS B 48). The step is taken on the free scale, so that a bounded parameter
    stays inside its bounds. For least squares the coefficients are exactly the delete-one
    estimates.

    Args:
        loglik, fit, data: the likelihood with one term per observation, its fit (one or a batch),
            and the data of the fit.
        clusters: labels (n,); the units are then clusters.
        weights: those of the fit. Of a row with frequency weight 3, one of the three rows is left
            out.
        in_axes: for a batch, as in ``score_test``.

    Returns:
        ``Influence``. All NaN if the fit has no finite estimate. With ``penalize``, the prior
        stays.

    Raises:
        ValueError: for a likelihood without terms, with ``jeffreys``, or for data that are not
            those of the fit.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.diagnostics.influence import influence
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, data: -0.5 * (data - params["mean"]) ** 2
    >>> found = influence(normal, jm.fit(normal, {"mean": 0.0}, y), y)
    >>> (
    ...     found.estimates[:, 0].round(6).tolist(),
    ...     found.largest(1).tolist(),
    ... )  # the means of the other three
    ([3.666667, 3.0, 3.333333, 2.0], [3])
    """
    if jeffreys_of(as_tree(loglik)) is not None:
        raise ValueError(
            "with jeffreys the penalty also depends on each row, which the one-step "
            "estimate ignores: refit without the row, or use the likelihood without its "
            "penalty"
        )
    given = again(
        loglik, fit, data, weights=weights, clusters=clusters, in_axes=in_axes, what="influence"
    )
    layout = fit.layout
    clustered = clusters is not None
    codes = given.aligned[2]
    if len(codes) > 1:
        raise ValueError("two-way clusters are not possible here: give one label for each row")

    if not tracing():
        _check_rows(given, codes)

    def quantity(
        ll: Loglik, x: Array, rows: Tree, codes: Tree, se: Array
    ) -> tuple[Array, Array, Array, Array]:
        return _delete(ll, layout, x, rows, codes, se)

    parts = given.evaluate(("influence", clustered), quantity, (fit.se,))
    if clustered and codes and isinstance(codes[0], np.ndarray):
        parts = tuple(
            part[(slice(None),) * len(fit.batch_shape) + (slice(0, int(codes[0].max()) + 1),)]
            for part in parts
        )
    estimates, dfbetas, cook, leverage = parts
    return Influence(estimates, dfbetas, cook, leverage, fit.names, clustered)


def _check_rows(given: Again, codes: tuple[Array, ...]) -> None:
    """Raise if a term depends on rows outside its own row or cluster, because such a unit cannot be
    left out. For a batch the first member is checked.
    """
    batched = bool(given.fit.batch_shape)
    flags = iter(given.shared)
    data = jax.tree.map(lambda leaf: leaf if next(flags) or not batched else leaf[0], given.data)
    x = given.fit.x[0] if batched else given.fit.x
    unit = None if not codes else codes[0] if np.ndim(codes[0]) == 1 else codes[0][0]
    with precision(given.fit.dtype):
        check_rows_apart(
            "influence",
            given.loglik,
            given.fit.layout,
            x,
            data,
            remedy=CLUSTER_DEPENDENT_ROWS,
            codes=unit,
        )


def _delete(
    loglik: Loglik, layout: Layout, x: Array, data: Tree, codes: tuple[Array, ...], se: Array
) -> tuple[Array, Array, Array, Array]:
    """Estimates, dfbetas, Cook's distances and leverages, in coordinates in which the
    information is the identity.
    """
    roots = roots_of(loglik, layout)
    chart = chart_of(loglik, layout)
    z = chart.to_free(x)
    point = Objective(loglik, chart, x, data)(z)
    root = inverse_root(-point.hessian)
    rows = term_rows(loglik, layout, x, data)
    information = _free_information(
        chart,
        x,
        z,
        rows.scores,
        row_information(loglik, layout, x, data, "observed"),
        point.aux.jacobian,
    )
    rows = rows._replace(scores=rows.scores @ point.aux.jacobian @ root)
    information = jnp.einsum("ja,nij,ib->nab", root, information, root)
    if codes:
        scores, _ = cluster_sums(rows, codes[0])
        information = cluster_information(rows, codes[0], information)
    else:
        unit = jnp.where(
            rows.weight > 0, rows.meat / jnp.where(rows.weight > 0, rows.weight, 1.0), 0.0
        )
        scores = unit[:, None] * rows.scores
        information = unit[:, None, None] * information
    values, q = jnp.linalg.eigh(0.5 * (information + jnp.swapaxes(information, 1, 2)))
    left = 1.0 - values
    step = -jnp.einsum("nij,nj,nkj,nk->ni", q, 1.0 / left, q, scores)
    is_indefinite = jnp.any(left <= 64 * jnp.finfo(x.dtype).eps, axis=1)
    step = jnp.where(is_indefinite[:, None], jnp.nan, step)
    moved = jax.vmap(lambda move: chart.to_user(z + root @ move, x))(step)
    moved = jnp.where(
        is_indefinite[:, None], jnp.nan, moved[:, np.where(roots >= 0, roots, np.arange(layout.p))]
    )
    return (
        moved,
        (x[None, :] - moved) / se[None, :],
        jnp.sum(step**2, axis=1) / chart.k,
        jnp.trace(information, axis1=1, axis2=2),
    )


def _free_information(
    chart: Chart, x: Array, z: Array, scores: Array, information: Array, jacobian: Array
) -> Array:
    """The rows' observed information on the free scale: T'A_iT − Σ_j s_ij ∂²x_j/∂z∂z'."""
    pulled = jnp.einsum("ja,nij,ib->nab", jacobian, information, jacobian)
    if chart.is_identity:
        return pulled
    return pulled - jnp.einsum(
        "nj,jab->nab", scores, jax.jacfwd(jax.jacfwd(lambda z: chart.to_user(z, x)))(z)
    )
