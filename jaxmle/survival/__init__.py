"""Survival analysis: estimators of curves, curves of fitted models with bands, residuals, and the
test of proportional hazards.
"""

from typing import TYPE_CHECKING

from jaxmle.parameters.keywords import missing_name
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

if not TYPE_CHECKING:  # a checker finds the names that are not there by itself

    def __getattr__(name: str) -> object:
        raise missing_name("jaxmle.survival", name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
