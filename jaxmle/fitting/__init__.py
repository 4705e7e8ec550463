"""Fitting: from a log-likelihood, a start and data to a record with a verdict, for one data set
or many.
"""

from jaxmle.fitting.batch import fit_batch
from jaxmle.fitting.fit import fit
from jaxmle.fitting.multistart import Multistart, multistart
from jaxmle.fitting.record import Fit, Witness

__all__ = ["Fit", "Multistart", "Witness", "fit", "fit_batch", "multistart"]
