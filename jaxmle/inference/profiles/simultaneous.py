"""Simultaneous intervals: they cover all parameters at once with the given probability."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import scipy

from jaxmle._types import Array, Tree
from jaxmle.inference.again import check_fit
from jaxmle.parameters.arguments import check_choice, check_count, check_level, check_seed
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit, wald_interval
from jaxmle.runtime.jax_state import host_only

SIMULTANEOUS_METHODS = ("bonferroni", "sup-t")
# The critical value for 95 % then has a Monte Carlo error of about 0.004.
SUP_T_DRAWS = 2**17
NUMBERS_DRAWN_AT_ONCE = 2**22  # numbers drawn at a time
ONE_MINUS_CORRELATION_OF_EQUALS = 1e-12  # of two entries that are equal up to rounding


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["lower", "upper", "critical", "critical_error", "count"],
    meta_fields=["names", "level", "method", "layout"],
)
@dataclass(frozen=True, eq=False)
class Simultaneous:
    """Wald intervals that cover all parameters at once with probability ``level``.

    ``lower`` and ``upper`` (p,) in the order of ``names``, NaN where there is no standard error;
    ``critical``, the multiple of the standard error, and ``critical_error``, its Monte Carlo
    standard error (0 for Bonferroni); ``count``, the number of simultaneous intervals.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.profiles.simultaneous import simultaneous
    >>> data = {"x": np.array([1.0, 3.0, 2.0, 6.0]), "y": np.array([0.0, 1.0, -1.0, 2.0])}
    >>> two = lambda p, d: -0.5 * (d["x"] - p["a"]) ** 2 - 0.5 * (d["y"] - p["b"]) ** 2
    >>> result = jm.fit(two, {"a": 0.0, "b": 0.0}, data)
    >>> found = simultaneous(result)
    >>> round(float(found.critical), 4), int(found.count)  # the normal quantile at 1 − 0.05/4
    (2.2414, 2)
    >>> found.interval()[0].round(4).tolist()  # 3 ± 2.2414/√4
    [1.8793, 4.1207]
    """

    lower: Array
    upper: Array
    critical: Array
    critical_error: Array
    count: Array
    names: tuple[str, ...]
    level: float
    method: str
    layout: Layout

    def interval(self) -> Array:
        """Lower and upper ends, (p, 2)."""
        return np.stack([self.lower, self.upper], axis=-1)

    def conf_int(self) -> Tree:
        """Intervals in the tree of ``params``; the last axis of a leaf is (lower, upper)."""
        lead = np.ndim(self.lower) - 1
        unravel = self.layout.unravel_entries
        sides = [
            unravel(end)
            if not lead
            else jax.tree.map(lambda *rows: np.stack(rows), *(unravel(row) for row in end))
            for end in (self.lower, self.upper)
        ]
        return jax.tree.map(lambda low, high: np.stack([low, high], axis=-1), *sides)

    def __repr__(self) -> str:
        if not isinstance(self.lower, np.ndarray) or np.ndim(self.lower) > 1:
            return f"Simultaneous({', '.join(self.names[:6])}; {self.method}, level {self.level:g})"
        wide = max(map(len, self.names))
        rows = [
            f"{name.ljust(wide)}  {low:12.6g}  {high:12.6g}"
            for name, low, high in zip(self.names, self.lower, self.upper, strict=True)
        ]
        return "\n".join(
            [
                f"Simultaneous intervals ({self.method}), level {self.level:g}, "
                f"{self.critical:.4g} standard errors",
                *rows,
            ]
        )

    __str__ = __repr__


@with_keyword_hints
def simultaneous(
    fit: Fit,
    level: float = 0.95,
    method: str = "bonferroni",
    *,
    key: int = 0,
    draws: int = SUP_T_DRAWS,
) -> Simultaneous:
    """Wald intervals that cover all parameters at once with probability ``level``.

    ``"bonferroni"`` computes each interval at level 1 − (1 − level)/m, with m the number of
    parameters with a standard error; it ignores correlation and is then too wide. ``"sup-t"`` uses
    the quantile of max_j |z_j|, with z normal with the correlation matrix of the estimates, by
    simulation; it is exact for normal estimates. Ends are computed on the scale that each
    parameter's bounds suggest, as in ``Fit.conf_int``.

    Args:
        fit: one fit or a batch.
        level: probability that all parameters are covered.
        method: one of the two.
        key: seed of the simulation.
        draws: number of simulated vectors.

    Returns:
        A ``Simultaneous``.

    Raises:
        TypeError: under a trace.
        ValueError: for an unknown method, or a level outside (0, 1).

    Source: Montiel Olea & Plagborg-Møller 2019, Journal of Applied Econometrics 34, 1 (sup-t).

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.profiles.simultaneous import simultaneous
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, data: (
    ...     -0.5 * ((data - params["mu"]) / params["sigma"]) ** 2 - jnp.log(params["sigma"])
    ... )
    >>> result = jm.fit(normal, {"mu": 2.5, "sigma": 2.0}, y, constraints={"sigma": jm.positive})
    >>> simultaneous(result).conf_int()["mu"].round(
    ...     4
    ... ).tolist()  # 2.2414 standard errors: each at 97.5 %
    [0.9034, 5.0966]
    """
    host_only("simultaneous")
    check_fit("simultaneous", fit)
    level = check_level(level)
    check_choice("method", method, SIMULTANEOUS_METHODS)
    draws = check_count("draws", draws, 1000)
    key = check_seed("key", key)
    x = np.asarray(fit.x, float)
    se = np.asarray(fit.se, float)
    lead = se.shape[:-1]
    vcov = np.asarray(fit.vcov, float).reshape(-1, *fit.vcov.shape[-2:])
    criticals = [
        _critical(v, s, level, method, key, draws)
        for v, s in zip(vcov, se.reshape(-1, se.shape[-1]), strict=True)
    ]
    critical, error, count = (
        np.array(column).reshape(lead) for column in zip(*criticals, strict=True)
    )
    with np.errstate(all="ignore"):
        # An interval computed with z = 1 and standard errors multiplied by c is the interval of c
        # standard errors.
        ends = wald_interval(x, se * critical[..., None], fit.bounds, 1.0, "free")
    return Simultaneous(
        ends[..., 0],
        ends[..., 1],
        critical[()],
        error[()],
        count[()],
        fit.names,
        level,
        method,
        fit.layout,
    )


def _critical(
    vcov: Array, se: Array, level: float, method: str, key: int, draws: int
) -> tuple[float, float, int]:
    """The critical value of one fit, its Monte Carlo error, and the number of parameters."""
    known = np.isfinite(se) & (se > 0)
    count = _distinct(vcov, se, known)
    if not known.any():
        return np.nan, 0.0, 0
    if method == "bonferroni":
        return float(-scipy.special.ndtri((1 - level) / (2 * count))), 0.0, count
    corr = vcov[np.ix_(known, known)] / np.outer(se[known], se[known])
    values, q = np.linalg.eigh(corr)
    root = q * np.sqrt(np.maximum(values, 0.0))
    largest = _largest(root, key, draws)
    return (*_quantile(largest, level), count)


def _distinct(vcov: Array, se: Array, known: Array) -> int:
    """How many of the known parameters are not copies of one before them (tied entries have
    correlation one).
    """
    places = np.flatnonzero(known)
    fresh = [
        j
        for n, j in enumerate(places)
        if not any(
            vcov[i, j] >= (1 - ONE_MINUS_CORRELATION_OF_EQUALS) * se[i] * se[j]
            and vcov[i, i] == vcov[j, j]
            for i in places[:n]
        )
    ]
    return len(fresh)


def _largest(root: Array, key: int, draws: int) -> Array:
    """max |z| of each draw, (draws,)."""
    rng = np.random.default_rng(key)
    out = []
    size = max(1, NUMBERS_DRAWN_AT_ONCE // len(root))
    while draws > 0:
        out.append(
            np.max(np.abs(rng.standard_normal((min(size, draws), root.shape[1])) @ root.T), axis=1)
        )
        draws -= size
    return np.concatenate(out)


def _quantile(values: Array, level: float) -> tuple[float, float]:
    """A quantile and its standard error, from the order statistics one binomial standard
    deviation to each side.
    """
    ordered = np.sort(values)
    n = len(values)
    spread = np.sqrt(n * level * (1 - level))
    low, high = (int(np.clip(level * n + side * spread, 0, n - 1)) for side in (-1, 1))
    return float(np.quantile(ordered, level)), float(0.5 * (ordered[high] - ordered[low]))
