"""The record of a bootstrap: replicates, with their bias, standard errors and intervals."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import numpy as np

from jaxmle._types import Array, Tree, ndarray
from jaxmle.inference.refit import failures
from jaxmle.inference.resampling import intervals as ends
from jaxmle.inference.resampling.intervals import PLACE_TOLERANCE
from jaxmle.parameters.arguments import check_choice, check_level
from jaxmle.parameters.tree import Layout
from jaxmle.tables.plain import listing, number

INTERVALS = ("percentile", "basic", "bca", "studentized")


@dataclass(frozen=True, eq=False, repr=False)
class Bootstrap:
    """Bootstrap replicates of an estimate, with their bias, standard errors and intervals.

    ``flat_estimate`` (q,) and ``replicates`` (R, q) in the order of ``names``: ±inf if a
    replicate's estimate is infinite, NaN if it has none; ``status`` (R,) of each refit; ``kind`` of
    resampling; ``acceleration`` (q,) for BCa, and ``accelerated``, how it was computed;
    ``estimate_se`` (q,) and ``replicate_se`` (R, q), standard errors by the same formula, NaN if
    none were asked for.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.resampling.bootstrap import bootstrap
    >>> y = np.array([1.0, 3.0, 2.0, 6.0, 0.5, 4.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> mean = lambda params: 1 / params["rate"]
    >>> found = bootstrap(exponential, result, y, key=0, replicates=999, statistic=mean)
    >>> ordered = np.sort(found.replicates[:, 0])
    >>> bool(np.allclose(found.conf_int(0.95), ordered[[24, 974]]))  # the 25th and 975th of 999
    True
    """

    flat_estimate: ndarray
    replicates: ndarray = field(repr=False)
    status: ndarray = field(repr=False)
    kind: str
    acceleration: ndarray
    accelerated: str | None
    estimate_se: ndarray
    replicate_se: ndarray | None = field(repr=False)
    names: tuple[str, ...]
    outcome: Layout = field(repr=False)

    def __len__(self) -> int:
        return len(self.replicates)

    @property
    def failed(self) -> dict[str, int]:
        """The number of replicates with each status other than CONVERGED. Estimates on a bound and
        infinite estimates still count as replicates.
        """
        return failures(self.status)

    @property
    def infinite(self) -> ndarray:
        """The number of infinite replicates of each entry, (q,)."""
        return np.sum(np.isinf(self.replicates), axis=0)

    @property
    def undefined(self) -> ndarray:
        """The number of replicates of each entry without an estimate, (q,); intervals leave them
        out.
        """
        return np.sum(np.isnan(self.replicates), axis=0)

    # ------------------------------------------------------------ reading

    @property
    def estimate(self) -> Tree:
        """The estimate from the original data."""
        return self.outcome.unravel_entries(self.flat_estimate)

    @property
    def se(self) -> ndarray:
        """Standard deviation of the replicates, (q,): inf if one is infinite, NaN if one is
        undefined or all are equal.
        """
        return ends.spread(self.replicates)

    @property
    def stderr(self) -> Tree:
        """``se`` in the tree of the estimate."""
        return self.outcome.unravel_entries(self.se)

    @property
    def flat_bias(self) -> ndarray:
        """Mean of the replicates minus the estimate, (q,)."""
        with np.errstate(invalid="ignore"):  # inf − inf
            return np.mean(self.replicates, axis=0) - self.flat_estimate

    @property
    def bias(self) -> Tree:
        """``flat_bias`` in the tree of the estimate. For dependent blocks and simulated data it
        estimates the bias; see Davison & Hinkley (1997), 2.2.
        """
        return self.outcome.unravel_entries(self.flat_bias)

    @property
    def vcov(self) -> ndarray:
        """Covariance of the replicates, (q, q); NaN for entries without a finite standard error."""
        without_stderr = ~np.isfinite(self.se)
        with np.errstate(invalid="ignore"):
            covariance = np.atleast_2d(np.cov(self.replicates, rowvar=False))
        return np.where(without_stderr[:, None] | without_stderr[None, :], np.nan, covariance)

    def interval(self, level: float = 0.95, kind: str = "percentile") -> ndarray:
        """Intervals of each entry, (q, 2). See ``conf_int``."""
        level = check_level(level)
        check_choice("kind", kind, INTERVALS)
        if (len(self) + 1) * (1 - level) / 2 < 1 - PLACE_TOLERANCE:
            raise ValueError(
                f"{len(self)} replicates are too few for a {100 * level:g}% interval, "
                f"which takes {int(np.ceil(2 / (1 - level) - 1e-9)) - 1} or more"
            )
        if kind == "percentile":
            return ends.percentile(self.replicates, level)
        if kind == "basic":
            return ends.basic(self.flat_estimate, self.replicates, level)
        if kind == "bca":
            if self.accelerated is None:
                raise ValueError(
                    "a BCa interval needs an acceleration from delete-one estimates: "
                    f"{self._no_acceleration()}"
                )
            return ends.bca(self.flat_estimate, self.replicates, self.acceleration, level)
        if self.replicate_se is None:
            raise ValueError(
                "a studentized interval needs a standard error for each replicate: "
                "bootstrap(…, vcov='observed'), or the kind of the fit"
            )
        return ends.studentized(
            self.flat_estimate, self.estimate_se, self.replicates, self.replicate_se, level
        )

    def _no_acceleration(self) -> str:
        return (
            "bootstrap(…, acceleration='jackknife')"
            if self.kind in ("pairs", "cluster")
            else f"there are none for {self.kind!r} replicates; use 'percentile', 'basic' or "
            "'studentized'"
        )

    def conf_int(self, level: float = 0.95, kind: str = "percentile") -> Tree:
        """Intervals as a tree like the estimate, each leaf with a last axis (lower, upper).

        Args:
            level: between 0 and 1; at least 2/(1 − level) − 1 replicates are needed.
            kind: ``"percentile"`` θ*_(α/2) … θ*_(1−α/2); ``"basic"`` 2θ̂ minus these; ``"bca"`` the
                percentiles corrected for bias and acceleration; ``"studentized"`` θ̂ − se·t*, on
                the scale of the entry itself (for another scale use ``statistic``, such as a
                logarithm).

        Quantiles are the order statistics at (R + 1)α as in R's ``boot.ci``; those of BCa are
        interpolated linearly, as in scipy. Infinite replicates keep their place in the order;
        undefined ones are left out.
        """
        low, high = np.moveaxis(self.interval(level, kind), -1, 0)

        def join(a: Array, b: Array) -> ndarray:
            return np.stack([a, b], axis=-1)

        return jax.tree.map(
            join, self.outcome.unravel_entries(low), self.outcome.unravel_entries(high)
        )

    def table(self, level: float = 0.95, kind: str = "percentile") -> str:
        """A text table with one line for each entry, and the number of failed replicates."""
        interval = self.interval(level, kind)
        extra = [
            name
            for name, count in (("infinite", self.infinite), ("undefined", self.undefined))
            if count.any()
        ]
        rows = []
        for j, name in enumerate(self.names):
            cells = [self.flat_estimate[j], self.flat_bias[j], self.se[j], *interval[j]]
            rows.append(
                [
                    name,
                    *(number(float(v)) for v in cells),
                    *(f"{int(getattr(self, which)[j])}" for which in extra),
                ]
            )
        head = ["", "estimate", "bias", "std. error", f"{100 * level:g}% {kind}", "", *extra]
        failed = "".join(f"; {count:,} {status}" for status, count in self.failed.items())
        return f"Bootstrap, {len(self):,} {self.kind} replicates{failed}\n\n{listing(head, rows)}"

    def __repr__(self) -> str:
        level = 0.95 if len(self) >= 39 else 1 - 2 / (len(self) + 1)
        return self.table(level)
