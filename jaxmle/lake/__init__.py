"""Lakes: a fit for every group of a data set larger than one table, on whatever engine the user
has.
"""

from jaxmle.lake import engines as engines
