"""Special functions that are right, and fast, up to their second derivative."""

from jaxmle.special.logistic import log_sigmoid, sigmoid, softplus

__all__ = ["log_sigmoid", "sigmoid", "softplus"]
