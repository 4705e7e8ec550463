"""Data: one table cut into groups, a fit for each."""

from jaxmle.data.groups import GroupFits, fit_groups

__all__ = ["GroupFits", "fit_groups"]
