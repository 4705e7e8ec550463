"""Data: frames and formulas coded into arrays with names; one table cut into groups, a fit for
each.
"""

from jaxmle.data.frame import Frame, from_formula
from jaxmle.data.groups import GroupFits, fit_groups

__all__ = ["Frame", "GroupFits", "fit_groups", "from_formula"]
