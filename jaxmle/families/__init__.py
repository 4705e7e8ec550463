"""Families of distributions: log density, distribution functions, quantiles, samples, moments,
start values and expected information.
"""

from typing import TYPE_CHECKING

from jaxmle.families.adaptor import from_distribution
from jaxmle.families.bounded import beta
from jaxmle.families.circular import von_mises
from jaxmle.families.combinators import censored, mixture, rounded, truncated
from jaxmle.families.compound import hurdle, zero_inflated
from jaxmle.families.counts import (
    bernoulli,
    beta_binomial,
    binomial,
    categorical,
    geometric,
    negative_binomial,
    negative_binomial_1,
    poisson,
)
from jaxmle.families.extreme import generalised_pareto, gev, pareto
from jaxmle.families.family import Family, Law
from jaxmle.families.location_scale import (
    cauchy,
    gumbel,
    laplace,
    logistic,
    normal,
    skew_normal,
    student_t,
)
from jaxmle.families.multivariate import (
    dirichlet_multinomial,
    multivariate_normal,
    multivariate_t,
)
from jaxmle.families.positive import (
    exponential,
    gamma,
    inverse_gamma,
    inverse_gaussian,
    lognormal,
    weibull,
)
from jaxmle.parameters.keywords import missing_name

__all__ = [
    "Family", "Law", "bernoulli", "beta", "beta_binomial", "binomial", "categorical", "cauchy",
    "censored", "dirichlet_multinomial", "exponential", "from_distribution", "gamma",
    "generalised_pareto", "geometric", "gev", "gumbel", "hurdle", "inverse_gamma",
    "inverse_gaussian", "laplace", "logistic", "lognormal", "mixture", "multivariate_normal",
    "multivariate_t", "negative_binomial", "negative_binomial_1", "normal", "pareto", "poisson",
    "rounded", "skew_normal", "student_t", "truncated", "von_mises", "weibull", "zero_inflated",
]  # fmt: skip

if not TYPE_CHECKING:  # a checker finds the names that are not there by itself

    def __getattr__(name: str) -> object:
        raise missing_name("jaxmle.families", name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
