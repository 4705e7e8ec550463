"""Logs of differences of distribution functions, without cancellation in either tail."""

from __future__ import annotations

import jax.numpy as jnp

from jaxmle._types import Array
from jaxmle.special.exponential import held_exp, log1mexp, log_cloglog
from jaxmle.special.logistic import log_sigmoid
from jaxmle.special.normal import log_ndtr

__all__ = ["log_expit_diff", "log_ndtr", "log_ndtr_diff", "log_weibull_diff"]


def log_ndtr_diff(low: Array, high: Array) -> Array:
    """The log of Φ(high) − Φ(low), low < high, taken in the lower tail, to which an interval above
    0 is mirrored.
    """
    mirror = low + high > 0
    a = jnp.where(mirror, -high, low)
    b = jnp.where(mirror, -low, high)
    upper = log_ndtr(b)
    return upper + log1mexp(log_ndtr(a) - upper)


def log_expit_diff(low: Array, high: Array) -> Array:
    """The log of σ(high) − σ(low) = log σ(high) + log σ(−low) + log(1 − e^{low − high}), an
    identity without cancellation.
    """
    return log_sigmoid(high) + log_sigmoid(-low) + log1mexp(low - high)


def log_weibull_diff(low: Array, high: Array) -> Array:
    """The log of F(high) − F(low) of F(z) = 1 − exp(−e^z): −e^low + log(1 − exp(−(e^high −
    e^low))), the last from log(e^high − e^low).
    """
    return -held_exp(low) + log_cloglog(high + log1mexp(low - high))
