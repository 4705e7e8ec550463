"""Special functions that are right, and fast, up to their second derivative."""

from jaxmle.special.gamma import digamma, gammaln, trigamma
from jaxmle.special.logistic import log_sigmoid, sigmoid, softplus

__all__ = ["digamma", "gammaln", "log_sigmoid", "sigmoid", "softplus", "trigamma"]
