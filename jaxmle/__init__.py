"""jaxmle: maximum likelihood for any log-likelihood written as a pure JAX function."""

from jaxmle import datasets, solvers, special
from jaxmle.data import GroupFits, fit_groups
from jaxmle.fitting import Fit, Multistart, Witness, fit, fit_batch, multistart
from jaxmle.fitting.check import FitError
from jaxmle.inference import Delta, LintReport, delta, lint
from jaxmle.likelihood import (
    enumeration,
    evaluate,
    exact,
    fix,
    frequency,
    hessian,
    information,
    information_error,
    linear,
    nll,
    normal_prior,
    penalize,
    pool,
    regression,
    ridge,
    sampling,
    score,
    scores,
    simulation,
    tie,
    vcov,
    weight,
    with_response,
)
from jaxmle.parameters import correlation, covariance, interval, lower, negative, ordered, positive, simplex, upper
from jaxmle.solvers import Status

__version__ = "0.1.0"

__all__ = [
    "Delta", "Fit", "FitError", "GroupFits", "LintReport", "Multistart", "Status", "Witness", "correlation", "covariance", "datasets", "delta",
    "enumeration", "evaluate", "exact", "fit", "fit_batch", "fit_groups", "fix", "frequency", "hessian", "information", "information_error",
    "interval", "linear", "lint", "lower", "multistart", "negative", "nll", "normal_prior", "ordered", "penalize", "pool", "positive", "regression",
    "ridge", "sampling", "score", "scores", "simplex", "simulation", "solvers", "special", "tie", "upper", "vcov", "weight",
    "with_response",
]  # fmt: skip
