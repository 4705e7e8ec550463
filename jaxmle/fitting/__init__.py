"""Fitting: from a log-likelihood, a start and data to a record with a verdict."""

from jaxmle.fitting.fit import fit
from jaxmle.fitting.record import Fit, Witness

__all__ = ["Fit", "Witness", "fit"]
