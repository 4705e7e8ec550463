"""Effects at the replicates of a bootstrap: their spread instead of the delta method."""

from __future__ import annotations

import jax
import numpy as np

from jaxmle._types import Array, FunctionTo, Tree, ndarray
from jaxmle.parameters.arguments import shown
from jaxmle.record.fit import Fit

PLACE_TOLERANCE = 1e-9  # rounding of (R + 1)α, the rank of a quantile among R replicates
REPLICATES_TOGETHER = 16  # replicates whose predictions of all rows are held at once


def replicates_of(bootstrap: Tree, fit: Fit) -> ndarray:
    """The estimates (R, p) of the replicates of a fit, without those that have no estimate.

    Raises:
        TypeError, ValueError: for anything but a bootstrap, or a bootstrap of a statistic or of
            another fit.
    """
    x = getattr(bootstrap, "replicates", None)
    if x is None or not hasattr(bootstrap, "flat_estimate"):
        raise TypeError(
            "bootstrap must be the result of jaxmle.bootstrap(model, fit, frame.data, "
            f"key=0); got {shown(bootstrap)}"
        )
    if x.shape[1] != len(fit.names):
        raise ValueError(
            f"the bootstrap has replicates of {x.shape[1]} numbers, the fit "
            f"{len(fit.names)} parameters: run it without statistic="
        )
    if not np.array_equal(bootstrap.flat_estimate, np.asarray(fit.x), equal_nan=True):
        raise ValueError(
            "the bootstrap belongs to another fit: its estimates are not those of this fit"
        )
    known = x[np.isfinite(x).all(axis=1)]
    if len(known) < 2:
        raise ValueError(f"{len(known)} replicates have finite estimates; two or more are needed")
    return known


def at_replicates(averages: FunctionTo[Array]) -> FunctionTo[Array]:
    """The function ``averages`` (x, …) for many rows of x, (R, groups) or (R, groups, K)."""

    def run(x: Array, *rest: Tree) -> Array:
        return jax.lax.map(lambda row: averages(row, *rest), x, batch_size=REPLICATES_TOGETHER)

    return run


def spread(draws: ndarray) -> tuple[ndarray, ndarray]:
    """Covariance (q, q) and standard deviation (q,) of the draws (R, q)."""
    vcov = np.atleast_2d(np.cov(draws, rowvar=False))
    return vcov, np.sqrt(np.diag(vcov))


def percentiles(draws: ndarray, level: float) -> ndarray:
    """Percentile intervals (q, 2): order statistics at (R + 1)α.

    Raises:
        ValueError: for fewer replicates than the interval needs.
    """
    tail = (1 - level) / 2
    least = int(np.ceil(1 / tail - PLACE_TOLERANCE)) - 1
    if len(draws) < least:
        raise ValueError(
            f"{len(draws)} replicates are too few for a {100 * level:g}% interval, which "
            f"takes {least} or more"
        )
    return np.quantile(draws, [tail, 1 - tail], axis=0, method="weibull").T
