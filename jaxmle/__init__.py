"""jaxmle: maximum likelihood for any log-likelihood written as a pure JAX function."""

import importlib
from typing import TYPE_CHECKING, Any

from jaxmle import datasets, solvers, special
from jaxmle.fitting import Fit, Multistart, Witness, fit, fit_batch, multistart
from jaxmle.fitting.check import FitError
from jaxmle.likelihood import (
    cox_snell,
    enumeration,
    evaluate,
    exact,
    fix,
    frequency,
    hac,
    hessian,
    information,
    information_error,
    jeffreys,
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
from jaxmle.parameters import (
    correlation,
    covariance,
    free,
    interval,
    lower,
    negative,
    ordered,
    positive,
    simplex,
    upper,
)
from jaxmle.solvers import Status

if TYPE_CHECKING:
    from jaxmle import families, models
    from jaxmle.data import Frame, GroupFits, fit_groups, from_formula
    from jaxmle.fitting.em import EM, em, em_steps
    from jaxmle.fitting.gaussian_mixture import VarianceFloor, gaussian_mixture
    from jaxmle.fitting.mixture_of import mixture_of
    from jaxmle.fitting.stochastic import StochasticFit, fit_stochastic
    from jaxmle.inference import *
    from jaxmle.report import plots

# Rooms that are read when one of their names is first asked for: importing jaxmle takes half the time without them.
_LATER = {
    "jaxmle.families": (), "jaxmle.models": (), "jaxmle.report.plots": (),
    "jaxmle.data": ("Frame", "GroupFits", "fit_groups", "from_formula"),
    "jaxmle.fitting.em": ("EM", "em", "em_steps"),
    "jaxmle.fitting.gaussian_mixture": ("VarianceFloor", "gaussian_mixture"),
    "jaxmle.fitting.mixture_of": ("mixture_of",),
    "jaxmle.fitting.stochastic": ("StochasticFit", "fit_stochastic"),
    "jaxmle.inference": (
        "Bootstrap", "Calibration", "Candidate", "Comparison", "Contour", "Delta", "Disagreement", "End", "FamilyRanking", "HauckDonner", "InfinitesimalJackknife",
        "Influence", "Information", "Jackknife", "JointTests", "LintReport", "Profile", "Satterthwaite", "Simultaneous", "Takeuchi",
        "Test", "benjamini_hochberg", "best_family", "bootstrap", "calibrate", "compare", "contour", "cross_entropy", "delta", "deviance_residuals",
        "disagreement", "entropy", "hauck_donner", "holm", "infinitesimal_jackknife", "influence", "information_matrix_test",
        "jackknife", "joint_tests", "kl_divergence", "lint", "lr_test", "mean_br", "pearson_residuals", "pit", "profile", "profile_end",
        "quantile_residuals", "satterthwaite", "score_test", "simultaneous", "tic", "vuong_test", "wald_test",
    ),
}  # fmt: skip


if not TYPE_CHECKING:  # a checker knows the names above, and calls any other a mistake

    def __getattr__(name: str) -> Any:
        for room, names in _LATER.items():
            if name in names or (room.rpartition(".")[2] == name and not names):
                found = importlib.import_module(room)
                return getattr(found, name) if name in names else found
        raise AttributeError(f"module 'jaxmle' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


__version__ = "0.1.0"

__all__ = [
    "EM",
    "Bootstrap",
    "Calibration",
    "Comparison",
    "Contour",
    "Delta",
    "Disagreement",
    "End",
    "Fit",
    "FitError",
    "Frame",
    "GroupFits",
    "HauckDonner",
    "InfinitesimalJackknife",
    "Influence",
    "Information",
    "Jackknife",
    "JointTests",
    "LintReport",
    "Multistart",
    "Profile",
    "Satterthwaite",
    "Simultaneous",
    "Status",
    "StochasticFit",
    "Takeuchi",
    "Test",
    "VarianceFloor",
    "Witness",
    "benjamini_hochberg",
    "bootstrap",
    "calibrate",
    "compare",
    "contour",
    "correlation",
    "covariance",
    "cox_snell",
    "cross_entropy",
    "datasets",
    "delta",
    "deviance_residuals",
    "disagreement",
    "em",
    "em_steps",
    "entropy",
    "enumeration",
    "evaluate",
    "exact",
    "families",
    "fit",
    "fit_batch",
    "fit_groups",
    "fit_stochastic",
    "fix",
    "free",
    "frequency",
    "from_formula",
    "gaussian_mixture",
    "hac",
    "hauck_donner",
    "hessian",
    "holm",
    "infinitesimal_jackknife",
    "influence",
    "information",
    "information_error",
    "information_matrix_test",
    "interval",
    "jackknife",
    "jeffreys",
    "joint_tests",
    "kl_divergence",
    "linear",
    "lint",
    "lower",
    "lr_test",
    "mean_br",
    "mixture_of",
    "models",
    "multistart",
    "negative",
    "nll",
    "normal_prior",
    "ordered",
    "pearson_residuals",
    "penalize",
    "pit",
    "plots",
    "pool",
    "positive",
    "profile",
    "profile_end",
    "quantile_residuals",
    "regression",
    "ridge",
    "sampling",
    "satterthwaite",
    "score",
    "score_test",
    "scores",
    "simplex",
    "simulation",
    "simultaneous",
    "solvers",
    "special",
    "tic",
    "tie",
    "upper",
    "vcov",
    "vuong_test",
    "wald_test",
    "weight",
    "with_response",
]  # fmt: skip
