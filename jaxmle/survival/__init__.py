"""Survival analysis: estimators of curves, curves of fitted models with bands, residuals, and the
test of proportional hazards.
"""

from jaxmle.survival.competing import aalen_johansen, cause_specific
from jaxmle.survival.cox_baseline import baseline
from jaxmle.survival.curves import Curve, StepCurve
from jaxmle.survival.estimators import EmptyRiskSetWarning, kaplan_meier, nelson_aalen
from jaxmle.survival.predictions import cumulative_hazard, hazard, quantile, survival
from jaxmle.survival.proportional_hazards import (
    ProportionalHazards,
    proportional_hazards_test,
)
from jaxmle.survival.residuals import Schoenfeld, residuals, schoenfeld

__all__ = [
    "Curve", "EmptyRiskSetWarning", "ProportionalHazards", "Schoenfeld", "StepCurve",
    "aalen_johansen", "baseline", "cause_specific", "cumulative_hazard", "hazard", "kaplan_meier",
    "nelson_aalen", "proportional_hazards_test", "quantile", "residuals", "schoenfeld", "survival",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
