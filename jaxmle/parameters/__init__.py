"""Trees and names; transforms between the user's scale and the free scale."""

from jaxmle.parameters.constraints import (
    Constraint,
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
from jaxmle.parameters.tree import Chart, Layout, layout_of

__all__ = [
    "Chart",
    "Constraint",
    "Layout",
    "correlation",
    "covariance",
    "free",
    "interval",
    "layout_of",
    "lower",
    "negative",
    "ordered",
    "positive",
    "simplex",
    "upper",
]
