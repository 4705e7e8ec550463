"""The table of reference cases with a regular maximum. Those without one stand in `test_degenerate.py`."""

from . import dependent, nonlinear, regressions, survival, univariate
from .oracle import Case

CASES: list[Case] = [
    *univariate.CASES,
    *regressions.CASES,
    *survival.CASES,
    *dependent.CASES,
    *nonlinear.CASES,
]
