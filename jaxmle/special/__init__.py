"""Special functions that are right, and fast, up to their second derivative."""

from jaxmle.special.bessel import bessel_ratio, log_i0, log_i1
from jaxmle.special.beta import betaln
from jaxmle.special.counts import (
    dirichlet_multinomial_logpmf,
    log_factorial,
    negative_binomial_logpmf,
    poisson_logpmf,
)
from jaxmle.special.exponential import held_exp, log1mexp, log_cloglog
from jaxmle.special.gamma import digamma, gammaln, trigamma
from jaxmle.special.incomplete_beta import log_beta_tails, log_betainc, log_betaincc
from jaxmle.special.incomplete_gamma import log_gammainc, log_gammaincc
from jaxmle.special.logistic import log_sigmoid, sigmoid, softplus
from jaxmle.special.normal import log_ndtr, ndtri
from jaxmle.special.student import (
    student_t_logcdf,
    student_t_logpdf,
    student_t_logpdf_inverse_df,
    student_t_logsf,
)

__all__ = [
    "bessel_ratio",
    "betaln",
    "digamma",
    "dirichlet_multinomial_logpmf",
    "gammaln",
    "held_exp",
    "log1mexp",
    "log_beta_tails",
    "log_betainc",
    "log_betaincc",
    "log_cloglog",
    "log_factorial",
    "log_gammainc",
    "log_gammaincc",
    "log_i0",
    "log_i1",
    "log_ndtr",
    "log_sigmoid",
    "ndtri",
    "negative_binomial_logpmf",
    "poisson_logpmf",
    "sigmoid",
    "softplus",
    "student_t_logcdf",
    "student_t_logpdf",
    "student_t_logpdf_inverse_df",
    "student_t_logsf",
    "trigamma",
]


def __dir__() -> list[str]:
    return sorted(__all__)
