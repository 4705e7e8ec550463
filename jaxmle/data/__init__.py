"""Data: frames and formulas coded into arrays with names; fits of the groups of a table."""

from jaxmle.data.frame import Frame, from_formula
from jaxmle.data.groups import GroupFits, fit_groups

__all__ = ["Frame", "GroupFits", "fit_groups", "from_formula"]
