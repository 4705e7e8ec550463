"""Competing risks: Aalen & Johansen's estimator of the incidence of each cause, and cause-specific
models.
"""

from __future__ import annotations

import numpy as np

from jaxmle._types import ArrayLike, Tree, ndarray
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.contract import leaf_of
from jaxmle.parameters.arguments import check_choice, check_count, check_level
from jaxmle.survival.bands import SURVIVAL_BANDS, band_of
from jaxmle.survival.curves import StepCurve
from jaxmle.survival.estimators import read_observed, table_of


def aalen_johansen(
    time: ArrayLike,
    cause: ArrayLike,
    *,
    entry: ArrayLike | None = None,
    weights: Weights | None = None,
    band: str = "log",
    level: float = 0.95,
) -> dict[int, StepCurve]:
    """The cumulative incidence of each of several causes that exclude one another,
    P_k(t) = Σ S(s−) d_k/n over the event times s up to t, S the survival of all causes.

    One minus Kaplan & Meier's estimator with the other causes as censored is too large: it is of a
    world without them. The variance is that of Greenwood's multinomial increments, by the delta
    method; without late entry it is the infinitesimal jackknife of R's
    ``survfit(Surv(time, factor(cause)) ~ 1)``. lifelines' ``AalenJohansenFitter`` breaks ties at
    random first; here they stay. Aalen & Johansen (1978), Scandinavian Journal of Statistics 5,
    141; Gaynor et al. (1993), JASA 88, 402.

    Args:
        time, entry, level: as in ``kaplan_meier``.
        cause: (n,) 0 for a censored time, else the whole-number code of the cause.
        weights: ``jaxmle.frequency(w)``.
        band: scale of the pointwise intervals, "log", "log-log", "plain", "logit" or "arcsin".

    Returns:
        A dictionary from the code of each cause to its ``StepCurve``, ``quantity`` "incidence".

    Raises:
        ValueError, TypeError: as ``kaplan_meier``; for sampling weights.

    >>> from jaxmle.survival import aalen_johansen
    >>> curves = aalen_johansen([1.0, 2.0, 3.0, 4.0], [1, 2, 0, 1])
    >>> {cause: curve.estimate.tolist() for cause, curve in curves.items()}
    {1: [0.25, 0.25, 0.25, 0.75], 2: [0.0, 0.25, 0.25, 0.25]}
    """
    check_choice("band", band, SURVIVAL_BANDS)
    check_level(level)
    observed = read_observed(time, cause, entry, weights, causes=True)
    if observed.is_sampled:
        raise ValueError(
            "aalen_johansen takes frequency weights; the variance under sampling weights is not "
            "available. kaplan_meier and nelson_aalen have it"
        )
    causes = np.unique(observed.event[observed.event > 0]).astype(int)
    if not len(causes):
        raise ValueError("no row has an event: every cause is 0, a censored time")
    table = table_of(observed)
    jump = table.n_event / table.n_risk
    before = np.concatenate([[1.0], np.cumprod(1 - jump)[:-1]])
    curves = {}
    for code in causes.tolist():
        is_cause = observed.event == code
        count = np.bincount(table.place, observed.weight * is_cause, len(table.times))
        incidence = np.cumsum(before * count / table.n_risk)
        stderr = np.sqrt(_variance(before, incidence, count / table.n_risk, jump, table.n_risk))
        lower, upper = band_of("incidence", incidence, stderr, level, band)
        curves[code] = StepCurve(
            quantity="incidence",
            times=table.times,
            estimate=incidence,
            stderr=stderr,
            lower=lower,
            upper=upper,
            n_risk=table.n_risk,
            n_event=count,
            n_censored=table.n_censored,
            level=level,
            band=band,
        )
    return curves


def _variance(
    before: ndarray, incidence: ndarray, own_jump: ndarray, jump: ndarray, n: ndarray
) -> ndarray:
    """The variance (m,) of the incidence of one cause.

    The increments at a time s, dA_j = d_j/n, have the covariance (diag(dA) − dA dA')/n. The
    incidence at t moves with dA_j by S(s−)·1{j is the cause} − D/(1 − dA), where D is what it gains
    after s, P(t) − P(s). So s adds S²a(1 − a)/n − 2 S a D/n + D² dA/(n(1 − dA)), a the cause's own
    increment. Expanding D gives a quadratic in P(t) with running sums as coefficients.
    """
    linear = before * own_jump / n
    with np.errstate(divide="ignore", invalid="ignore"):
        square = np.where(jump < 1, jump / (n * (1 - jump)), 0.0)  # D = 0 where nobody is left
    fixed = np.cumsum(before**2 * own_jump * (1 - own_jump) / n)
    fixed += np.cumsum(2 * linear * incidence + square * incidence**2)
    slope = np.cumsum(linear + square * incidence)
    variance = fixed - 2 * slope * incidence + np.cumsum(square) * incidence**2
    return np.maximum(variance, 0.0)


def cause_specific(data: Tree, cause: int, *, event: str = "event") -> dict[str, Tree]:
    """The data of one cause for a model of its hazard: 1 where the event is of that cause, 0 where
    it is censored or of another one.

    The hazard of a cause is estimated with the others as censored, by ``cox`` or ``aft`` alike;
    its incidence is not, for it depends on the hazards of all causes: that is ``aalen_johansen``.
    R's ``coxph(Surv(time, cause == k) ~ …)``. Prentice et al. (1978), Biometrics 34, 541.

    Args:
        data: a dictionary of leaves; ``data[event]`` (n,) holds 0 for a censored time, else the
            code of a cause.
        cause: the code.
        event: the name of the leaf.

    Raises:
        ValueError: for a code that no row has.

    >>> import numpy as np
    >>> from jaxmle.survival import cause_specific
    >>> cause_specific({"event": np.array([0, 1, 2, 2])}, 2)["event"].tolist()
    [0, 0, 1, 1]
    """
    cause = check_count("cause", cause, 1)
    codes = np.asarray(leaf_of(data, event))
    known = np.unique(codes[codes != 0]).tolist()
    if cause not in known:
        raise ValueError(f"no row has the cause {cause}; the causes of data[{event!r}] are {known}")
    return {**data, event: (codes == cause).astype(int)}
