"""Log-likelihoods: the contract, the calculus, combinators, the declared form, and the one
accumulating pass.
"""

from jaxmle.likelihood.bias import jeffreys
from jaxmle.likelihood.calculus import (
    cox_snell,
    evaluate,
    hessian,
    information,
    information_error,
    nll,
    score,
    scores,
    vcov,
)
from jaxmle.likelihood.combinators import (
    fix,
    frequency,
    penalize,
    pool,
    sampling,
    tie,
    weight,
    with_response,
)
from jaxmle.likelihood.discovery import opaque
from jaxmle.likelihood.hac import hac
from jaxmle.likelihood.priors import normal_prior, ridge
from jaxmle.likelihood.regression import linear, regression
from jaxmle.likelihood.response import enumeration, exact, simulation

__all__ = [
    "cox_snell", "enumeration", "evaluate", "exact", "fix", "frequency", "hac", "hessian",
    "information", "information_error", "jeffreys", "linear", "nll", "normal_prior", "opaque",
    "penalize", "pool", "regression", "ridge", "sampling", "score", "scores", "simulation", "tie",
    "vcov", "weight", "with_response",
]  # fmt: skip
