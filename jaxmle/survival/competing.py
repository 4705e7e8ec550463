"""Competing risks: the Aalen–Johansen estimator of the incidence of each cause, and cause-specific
models.
"""

from __future__ import annotations

import numpy as np

from jaxmle._types import ArrayLike, Tree, ndarray
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.contract import leaf_of
from jaxmle.parameters.arguments import check_choice, check_count, check_level
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.survival.bands import SURVIVAL_BANDS
from jaxmle.survival.curves import StepCurve
from jaxmle.survival.estimators import read_observed, step_curve, table_of


@with_keyword_hints
def aalen_johansen(
    time: ArrayLike,
    cause: ArrayLike,
    *,
    entry: ArrayLike | None = None,
    weights: Weights | None = None,
    band: str = "log",
    level: float = 0.95,
) -> dict[int, StepCurve]:
    """The cumulative incidence of each of several competing causes, P_k(t) = Σ S(s−) d_k/n over the
    event times s up to t, with S the survival function of all causes together.

    One minus the Kaplan–Meier estimator with the other causes as censored is too large: it
    describes a world without them. The variance uses Greenwood's multinomial increments and the
    delta method; without late entry it equals the infinitesimal jackknife of R's
    ``survfit(Surv(time, factor(cause)) ~ 1)``. lifelines' ``AalenJohansenFitter`` first breaks ties
    at random; here they are kept. Aalen & Johansen (1978), Scandinavian Journal of Statistics 5,
    141; Gaynor et al. (1993), JASA 88, 402.

    Args:
        time, entry, level: as in ``kaplan_meier``.
        cause: (n,) 0 for a censored time, otherwise the integer code of the cause.
        weights: ``jaxmle.frequency(w)``.
        band: scale of the pointwise intervals, "log", "log-log", "plain", "logit" or "arcsin".

    Returns:
        A dictionary from the code of each cause to its ``StepCurve``, ``quantity`` "incidence".

    Raises:
        ValueError, TypeError: as ``kaplan_meier``; also for sampling weights.

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
            "aalen_johansen takes only frequency weights: the variance under sampling "
            "weights is not available. kaplan_meier and nelson_aalen have it"
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
        curves[code] = step_curve(
            "incidence", table._replace(n_event=count), incidence, stderr, level, band, "greenwood"
        )
    return curves


def _variance(
    before: ndarray, incidence: ndarray, own_jump: ndarray, jump: ndarray, n: ndarray
) -> ndarray:
    """The variance (m,) of the incidence of one cause.

    The increments at a time s, dA_j = d_j/n, have the covariance (diag(dA) − dA dA')/n. The
    derivative of the incidence at t with respect to dA_j is S(s−)·1{j is the cause} − D/(1 − dA),
    where D = P(t) − P(s) is its gain after s. So s adds S²a(1 − a)/n − 2 S a D/n + D² dA/(n(1 −
    dA)), a the cause's own increment. Expanding D gives a quadratic in P(t) with running sums as
    coefficients.
    """
    linear = before * own_jump / n
    with np.errstate(divide="ignore", invalid="ignore"):
        square = np.where(jump < 1, jump / (n * (1 - jump)), 0.0)  # D = 0 if nobody is left
    fixed = np.cumsum(before**2 * own_jump * (1 - own_jump) / n)
    fixed += np.cumsum(2 * linear * incidence + square * incidence**2)
    slope = np.cumsum(linear + square * incidence)
    variance = fixed - 2 * slope * incidence + np.cumsum(square) * incidence**2
    return np.maximum(variance, 0.0)


@with_keyword_hints
def cause_specific(data: Tree, cause: int, *, event: str = "event") -> dict[str, Tree]:
    """The data of one cause for a model of its hazard: 1 for an event of that cause, 0 for a
    censored time or another cause.

    The hazard of a cause is estimated with the other causes as censored, by ``cox`` or ``aft``. The
    incidence depends on the hazards of all causes: use ``aalen_johansen``. In R: ``coxph(Surv(time,
    cause == k) ~ …)``. Prentice et al. (1978), Biometrics 34, 541.

    Args:
        data: a dictionary of leaves; ``data[event]`` (n,) holds 0 for a censored time, otherwise
            the code of a cause.
        cause: the code.
        event: the name of the leaf.

    Raises:
        ValueError: if no row has the code.

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
