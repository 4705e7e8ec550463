"""Built-in models: log-likelihoods that also know where to start, how their parameters are
bounded, and what they predict.
"""

from typing import TYPE_CHECKING

from jaxmle.models.binary import binomial, cloglog, logistic, probit
from jaxmle.models.categorical import conditional_logit, multinomial, ordinal
from jaxmle.models.censored import tobit, truncated
from jaxmle.models.common.columns import collinear_columns
from jaxmle.models.common.model import Model
from jaxmle.models.common.name_hints import missing_model
from jaxmle.models.continuous import beta, gamma, inverse_gaussian, normal
from jaxmle.models.counts import hurdle, negative_binomial, poisson, zero_inflated
from jaxmle.models.proportional_hazards import cox
from jaxmle.models.robust import laplace, quantile, student_t
from jaxmle.models.series import ar1, garch
from jaxmle.models.survival import aft
from jaxmle.models.univariate import distribution

__all__ = [
    "Model", "aft", "ar1", "beta", "binomial", "cloglog", "collinear_columns", "conditional_logit",
    "cox", "distribution", "gamma", "garch", "hurdle", "inverse_gaussian", "laplace", "logistic",
    "multinomial", "negative_binomial", "normal", "ordinal", "poisson", "probit", "quantile",
    "student_t", "tobit", "truncated", "zero_inflated",
]  # fmt: skip

if not TYPE_CHECKING:  # a checker finds the names that are not there by itself

    def __getattr__(name: str) -> object:
        """What is called otherwise elsewhere, such as ``lm``, is named."""
        raise missing_model(name, [known for known in __all__ if known[0].islower()])


def __dir__() -> list[str]:
    return sorted(__all__)
