"""Residuals of survival models: Cox–Snell, martingale and deviance of AFT and Cox models; score and
dfbeta residuals and Schoenfeld's of Cox models.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Data, Loglik, Tree, ndarray
from jaxmle.data.frame import Frame
from jaxmle.inference.again import check_fit
from jaxmle.likelihood.checks import host_data, host_params
from jaxmle.likelihood.contract import leaf_of
from jaxmle.models.common.model import Model
from jaxmle.parameters.arguments import check_choice, check_flag, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import precision
from jaxmle.survival.cox_rows import CoxFit, cox_fit, is_cox
from jaxmle.survival.risk_sets import RiskSets

SURVIVAL_RESIDUAL_KINDS = ("cox-snell", "martingale", "deviance")
COX_RESIDUAL_KINDS = (*SURVIVAL_RESIDUAL_KINDS, "score", "dfbeta")


@with_keyword_hints
def residuals(model: Loglik, fit: Fit, data: Data, kind: str = "martingale") -> ndarray:
    """Residuals of each row of a Cox or AFT model.

    Cox–Snell residuals are the cumulative hazards e of each row from entry to its time, which are
    censored unit exponential values if the model is right; martingale residuals are δ − e, observed
    minus expected events; deviance residuals are sign(M)·√(−2(M + δ log(δ − M))). A Cox model also
    has score residuals ∫(x − x̄) dM, which sum to the score, and dfbeta, the score residuals times
    their weights and the covariance of the model, the approximate effect of each row on the
    coefficients.

    They equal R's ``residuals(coxph)``, with ``weighted=FALSE`` except for dfbeta and with the same
    treatment of Efron's ties, and lifelines' ``compute_residuals``. Therneau & Grambsch (2000),
    chapter 4; Lin & Wei (1989) for scores.

    Args:
        model: ``models.cox(…)`` or ``models.aft(…)`` with events and right-censored times.
        fit: its ``Fit``, or parameters.
        data: the data of the fit, a dictionary or a ``Frame``.
        kind: "martingale", "deviance" or "cox-snell"; for a Cox model also "score" or "dfbeta".

    Returns:
        (n,); (n, q) for "score" and "dfbeta".

    Raises:
        ValueError: for left- or interval-censored times, data that are not those of the fit, or
            dfbeta without a covariance.
        TypeError: for another model.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {
    ...     "x": np.array([[0.0], [1.0], [0.0], [1.0]]),
    ...     "time": np.array([4.0, 2.0, 1.0, 3.0]),
    ...     "event": np.array([1, 1, 1, 0]),
    ... }
    >>> jm.survival.residuals(models.cox(), {"beta": [0.0]}, data).round(4).tolist()
    [-0.5833, 0.4167, 0.75, -0.5833]
    """
    if not is_cox(model):
        check_choice("kind", kind, SURVIVAL_RESIDUAL_KINDS)
        event, expected = _parametric(model, fit, data)
        return _of_expected(event, expected, kind)
    check_choice("kind", kind, COX_RESIDUAL_KINDS)
    cox = cox_fit(model, fit, data, "residuals")
    sets = cox.sets
    if kind in SURVIVAL_RESIDUAL_KINDS:
        return _of_expected(cox.rows.event, sets.risk * sets.over_steps(sets.hazard), kind)
    return score_residuals(cox) if kind == "score" else dfbeta_of(cox)


def _of_expected(event: ndarray, expected: ndarray, kind: str) -> ndarray:
    if kind == "cox-snell":
        return expected
    martingale = event - expected
    if kind == "martingale":
        return martingale
    with np.errstate(divide="ignore", invalid="ignore"):
        log_term = np.where(event > 0, np.log(expected), 0.0)
    return np.sign(martingale) * np.sqrt(np.maximum(-2 * (martingale + log_term), 0.0))


def _parametric(model: Loglik, fit: Fit, data: Data) -> tuple[ndarray, ndarray]:
    """Events (n,) and cumulative hazards from entry to time (n,), for a parametric model."""
    if not isinstance(model, Model) or model.law.log_survival is None or model.censoring is None:
        raise TypeError(f"residuals need models.cox(…) or models.aft(…); got {shown(model)}")
    rows = host_data(data.data if isinstance(data, Frame) else data, np.float64)
    model.check(rows)
    if isinstance(fit, Fit):
        check_fit("residuals", fit, alone=True)
    params = fit.params if isinstance(fit, Fit) else host_params(fit, np.float64)
    event = np.asarray(leaf_of(rows, "event"), float)
    if (event > 1).any():
        row = int(np.argmax(event > 1))
        raise ValueError(
            f"event is {event[row]:g} in row {row}: the hazard at a left or interval "
            "censored time is not known; model.residuals(params, data, 'quantile', "
            "key=…) draws a residual"
        )
    return event, _expected(model, params, rows)


def _expected(model: Model, params: Tree, rows: Tree) -> ndarray:
    """−log of the probability of surviving to the time, given survival to the entry."""
    with precision(np.float64):
        rows = jax.tree.map(jnp.asarray, rows)
        exact = {**rows, "event": jnp.ones_like(rows["event"])}
        return -np.asarray(model.censoring.ends(params, exact)[0])  # type: ignore[union-attr]


# ---------------------------------------------------------------- Cox


def score_residuals(cox: CoxFit) -> ndarray:
    """∫ (x − x̄) dM of each row, (n, q), not weighted."""
    sets = cox.sets
    rows = cox.rows
    x = rows.x - rows.x.mean(axis=0)
    mean = sets.mean - rows.x.mean(axis=0)
    expected = sets.over_steps(sets.hazard)[:, None]
    drift = sets.over_steps(sets.hazard[:, None] * mean)
    scores = -sets.risk[:, None] * (x * expected - drift)
    at_event = tie_means(sets) - rows.x.mean(axis=0)
    has_event = sets.own_tie >= 0
    scores[has_event] += x[has_event] - at_event[sets.own_tie[has_event]]
    return scores


def dfbeta_of(cox: CoxFit) -> ndarray:
    """The weighted score residuals times the inverse information, (n, q)."""
    return cox.rows.weight[:, None] * score_residuals(cox) @ _inverse_information(cox)


def tie_means(sets: RiskSets) -> ndarray:
    """The mean of x̄ over the steps of each event time, (k, q)."""
    steps = np.bincount(sets.tie, minlength=len(sets.time))
    return sets.in_ties(sets.mean) / steps[:, None]


def information(cox: CoxFit, factor: ndarray | None = None) -> ndarray:
    """Σ factor·V over the steps, V the covariance of x in the risk set, (q, q); ``factor`` (s,), 1
    where None.
    """
    sets = cox.sets
    rows = cox.rows
    centre = rows.x.mean(axis=0)
    x = rows.x - centre
    mean = sets.mean - centre
    weight = np.ones_like(sets.hazard) if factor is None else factor
    exposure = rows.weight * sets.risk * sets.over_steps(weight * sets.hazard)
    inner = (weight * sets.mass)[:, None] * mean
    return x.T @ (exposure[:, None] * x) - inner.T @ mean


def _inverse_information(cox: CoxFit) -> ndarray:
    matrix = information(cox)
    try:
        return np.linalg.inv(matrix)
    except np.linalg.LinAlgError:  # the covariance is then unknown
        return np.full_like(matrix, np.nan)


@dataclass(frozen=True, eq=False)
class Schoenfeld:
    """Schoenfeld residuals, one for each event, in the order of stratum and time.

    ``row`` (d,): the row in the data; ``time`` (d,); ``values`` (d, q); ``names`` of the columns.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> from jaxmle.survival import schoenfeld
    >>> data = {
    ...     "x": np.array([[0.0], [1.0], [0.0], [1.0]]),
    ...     "time": np.array([4.0, 2.0, 1.0, 3.0]),
    ...     "event": np.array([1, 1, 1, 0]),
    ... }
    >>> schoenfeld(models.cox(), {"beta": [0.0]}, data).row.tolist()
    [2, 1, 0]
    """

    row: ndarray
    time: ndarray
    values: ndarray
    names: tuple[str, ...]


@with_keyword_hints
def schoenfeld(model: Loglik, fit: Fit, data: Data, *, scaled: bool = False) -> Schoenfeld:
    """Schoenfeld residuals x − x̄(t) of the events of a Cox model; if scaled, with the coefficients
    added, they approximate the coefficients at each time.

    Scaled residuals are β̂ + d V s, with d the number of events and V the inverse information
    (Grambsch & Therneau 1994, Biometrika 81, 515), as in R's ``residuals(fit, "scaledsch")``.

    Args:
        model: ``models.cox(…)``.
        fit: its ``Fit``, or parameters.
        data: the data of the fit, a dictionary or a ``Frame``.
        scaled: whether to scale them.

    Returns:
        A ``Schoenfeld``.

    Raises:
        ValueError, TypeError: for another model, or data that are not those of the fit.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> from jaxmle.survival import schoenfeld
    >>> data = {
    ...     "x": np.array([[0.0], [1.0], [0.0], [1.0]]),
    ...     "time": np.array([4.0, 2.0, 1.0, 3.0]),
    ...     "event": np.array([1, 1, 1, 0]),
    ... }
    >>> schoenfeld(models.cox(), {"beta": [0.0]}, data).values.round(4).tolist()
    [[-0.5], [0.3333], [0.0]]
    """
    check_flag("scaled", scaled)
    cox = cox_fit(model, fit, data, "schoenfeld")
    row, values = schoenfeld_rows(cox)
    if scaled:
        values = cox.beta + len(row) * values @ _inverse_information(cox)
    return Schoenfeld(row, cox.rows.time[row], values, cox.names)


def schoenfeld_rows(cox: CoxFit) -> tuple[ndarray, ndarray]:
    """The rows of the events in the order of stratum and time, (d,), and x − x̄ there, (d, q)."""
    sets = cox.sets
    row = np.argsort(sets.own_tie, kind="stable")
    row = row[sets.own_tie[row] >= 0]
    return row, cox.rows.x[row] - tie_means(sets)[sets.own_tie[row]]
