"""The robust variance of the curves of a Cox model: the infinitesimal jackknife over rows or
clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmle._types import ndarray
from jaxmle.survival.cox_rows import CoxFit
from jaxmle.survival.residuals import dfbeta_of
from jaxmle.survival.risk_sets import RiskSets

MAX_MISMATCH = 1e-6  # of a covariance and the sum of squared dfbeta, relative to its variances


class Influence(NamedTuple):
    """What rows, or clusters g of them, add to the baseline and to the coefficients.

    A_g(t) is the derivative of Λ̂0(t), for known coefficients, in the weight of a cluster; D_g its
    dfbeta. ``square`` (k,) Σ A², ``cross`` (k, q) Σ A D at the event times of all strata.
    """

    square: ndarray
    cross: ndarray


def influence(cox: CoxFit, sets: RiskSets) -> Influence:
    """The influence on the baselines whose risk sets are ``sets``, times the small-sample factor
    that the covariance of the fit has.

    With x̄ the means in the risk sets, a curve at x moves with row i by
    r(x)·{A_i(t) + (x Λ0(t) − ∫x̄ dΛ0)'D_i}: Reid & Crépeau (1985), Biometrika 72, 1, whose D_i are
    the dfbeta of Lin & Wei (1989).

    Raises:
        ValueError: where the covariance of the fit is not a sum over these clusters.
    """
    clusters = np.arange(cox.rows.n) if cox.clusters is None else cox.clusters
    dfbeta = dfbeta_of(cox)
    of_cluster = np.zeros((clusters.max() + 1, dfbeta.shape[1]))
    np.add.at(of_cluster, clusters, dfbeta)
    factor = _factor(cox, of_cluster.T @ of_cluster)
    rate = sets.in_ties(_ratio(sets.hazard, sets.left))
    gain = _gains(sets)
    square = np.empty(len(sets.time))
    cross = np.empty((len(sets.time), dfbeta.shape[1]))
    for place in range(len(cox.strata)):
        ties = np.flatnonzero(sets.stratum == place)
        rows = np.flatnonzero(sets.rows.stratum == place)
        square[ties], cross[ties] = _sums(sets, ties, rows, rate, gain, clusters, of_cluster)
    return Influence(factor * square, factor * cross)


def _factor(cox: CoxFit, squares: ndarray) -> float:
    """The factor of the covariance, n/(n − q), G/(G − 1) or 1, over Σ D D'."""
    vcov = np.asarray(cox.vcov)
    factor = float(np.trace(vcov) / np.trace(squares))
    scale = np.sqrt(np.diag(vcov))
    if not np.all(np.abs(vcov - factor * squares) <= MAX_MISMATCH * np.outer(scale, scale)):
        raise ValueError(
            f"the covariance of the fit, {cox.vcov_kind}, is no sum over "
            + ("single rows" if cox.clusters is None else "these clusters")
            + ": give the clusters of the fit, clusters=…, or fit with vcov='observed'"
        )
    return factor


def _ratio(above: ndarray, below: ndarray) -> ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, 0.0)


def _gains(sets: RiskSets) -> ndarray:
    """The contribution of a row's event to the hazard per unit of weight, Σ 1/(m S0), and the part
    of its risk that Efron's steps return, (n,).
    """
    steps = np.bincount(sets.tie, minlength=len(sets.time))
    per_event = sets.in_ties(_ratio(1.0 / steps[sets.tie], sets.left))
    given_back = sets.in_ties(sets.share * _ratio(sets.hazard, sets.left))
    has_event = sets.own_tie >= 0
    tie = sets.own_tie[has_event]
    gain = np.zeros(sets.rows.n)
    gain[has_event] = per_event[tie] + sets.risk[has_event] * given_back[tie]
    return gain


def _sums(
    sets: RiskSets,
    ties: ndarray,
    rows: ndarray,
    rate: ndarray,
    gain: ndarray,
    clusters: ndarray,
    of_cluster: ndarray,
) -> tuple[ndarray, ndarray]:
    """Σ A² (k,) and Σ A D (k, q) of one stratum.

    At an event time with G = Σ rate up to it, A_g = C_g − R_g G: R_g is the risk of the cluster's
    rows under observation, C_g the fixed contribution of rows that have left or entered. Both are
    step functions of time, so Σ C², Σ CR and Σ R² change only where a row enters or leaves.
    """
    total = np.cumsum(rate[ties])
    grown = np.concatenate([[0.0], total])
    time = sets.time[ties]
    leaves = np.searchsorted(time, sets.rows.time[rows], "right")
    enters = np.searchsorted(time, sets.rows.entry[rows], "right")
    weight = sets.rows.weight[rows]
    risk = weight * sets.risk[rows]
    step = np.concatenate([leaves, enters])
    fixed = np.concatenate([weight * gain[rows] - risk * grown[leaves], risk * grown[enters]])
    exposed = np.concatenate([-risk, risk])
    # After s event times A is the same whether a row leaves at the s-th of them or just after.
    first = np.maximum(step - 1, 0)
    code = np.tile(clusters[rows], 2)
    order = np.lexsort((step, code))
    cut = np.flatnonzero(np.diff(code[order], prepend=-1))[1:]
    squares = np.zeros((3, len(ties)))
    if not len(ties):
        return squares[0], np.zeros((0, of_cluster.shape[1]))
    for members in np.split(order, cut):
        c = np.cumsum(fixed[members])
        r = np.cumsum(exposed[members])
        for power, product in enumerate((c * c, c * r, r * r)):
            np.add.at(squares[power], first[members], np.diff(product, prepend=0.0))
    square = np.cumsum(squares, axis=1)
    linear = np.zeros((2, len(ties), of_cluster.shape[1]))
    for which, change in enumerate((fixed, exposed)):
        np.add.at(linear[which], first, change[:, None] * of_cluster[code])
    linear = np.cumsum(linear, axis=1)
    return (
        square[0] - 2 * total * square[1] + total**2 * square[2],
        linear[0] - total[:, None] * linear[1],
    )
