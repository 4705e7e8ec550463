"""Solvers: functions of a flat vector, never likelihoods."""

from jaxmle.solvers.first_order import bhhh, newton, scoring
from jaxmle.solvers.methods import BHHH, LBFGS, Newton, Optax, Scoring
from jaxmle.solvers.status import Status

__all__ = ["BHHH", "LBFGS", "Newton", "Optax", "Scoring", "Status", "bhhh", "newton", "scoring"]


def __dir__() -> list[str]:
    return sorted(__all__)
