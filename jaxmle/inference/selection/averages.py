"""Averages over a distribution, with their error: by Monte Carlo, by a sum, by quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import scipy

from jaxmle._types import Array, ndarray
from jaxmle.inference.selection.laws import Distribution, is_vector, program_of
from jaxmle.parameters.constraints import point_between

DOUBLE_EXPONENTIAL_REACH = 6.05  # of t in x = exp(π/2·sinh t): from 1e-288 to 1e288
# of a panel, doubled until the value no longer changes
QUADRATURE_NODES = 256
MAX_QUADRATURE_NODES = 4096
QUADRATURE_TOLERANCE = 1e-11  # of max(1, |value|)
MAX_TERMS_OF_A_SUM = 2**22  # terms of a sum over counts
MAX_LAST_TERM_OF_A_SUM = 1e-20  # below which the rest of a sum is omitted
# relative to the largest term, above which the last term shows that an integral does not converge
MAX_SHARE_OF_LAST_TERM = 1e-3
UNDERFLOW_OF_A_TERM = 1e-200


@dataclass(frozen=True)
class Information:
    """An entropy, cross-entropy or divergence in nats, with its error.

    Attributes:
        value: inf if it is infinite, as a divergence is if q is zero where p is not; NaN if it
            could not be found.
        error: depends on the method: a bound on rounding for ``"closed form"``, the change in the
            last refinement for ``"quadrature"``, a bound on the omitted terms for ``"sum"``; one
            standard error for ``"Monte Carlo"`` and ``"sample"``.
        method: one of these, or ``"support"`` if the supports alone determine the value.

    >>> from jaxmle.families import normal
    >>> from jaxmle.inference.selection.divergence import kl_divergence
    >>> p, q = (normal, {"loc": 0.0, "scale": 1.0}), (normal, {"loc": 1.0, "scale": 1.0})
    >>> found = kl_divergence(p, q)
    >>> round(float(found), 6), found.method, found.error < 1e-12  # (difference of means)²/2
    (0.5, 'closed form', True)
    """

    value: float
    error: float
    method: str

    def __float__(self) -> float:
        return self.value


def log_ratio(first: ndarray, second: ndarray) -> ndarray:
    """The difference log p − log q; 0 if p is zero."""
    return np.where(np.isneginf(first), 0.0, first - np.where(np.isneginf(first), 0.0, second))


def average(
    p: Distribution,
    value: Callable[[Array], ndarray],
    laws: tuple[Distribution, ...],
    draws: int,
    key: int,
) -> Information:
    """The expectation E_p value(Y): by Monte Carlo for a vector, by a sum over counts, by
    quadrature otherwise.
    """
    if is_vector(p):
        return _monte_carlo(p, value, draws, key)
    for law in laws:
        shape = jax.eval_shape(law.family.log_prob, law.values, np.float64(1.0)).shape
        if shape:
            raise ValueError(
                f"the parameters of {law.name} have shape {shape}: two distributions are "
                "compared, so give scalars"
            )
    return _sum(p, value) if p.family.discrete else _quadrature(p, value, laws)


def _monte_carlo(
    p: Distribution, value: Callable[[Array], ndarray], draws: int, key: int
) -> Information:
    values = value(np.asarray(p.family.sample(p.values, jax.random.key(key), (draws,))))
    return Information(
        float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(draws)), "Monte Carlo"
    )


def _weighted(log_weight: ndarray, value: ndarray) -> ndarray:
    """The product e^w·v; 0 if the weight is zero."""
    weight = np.exp(log_weight)
    return np.where(weight > 0, weight * np.where(weight > 0, value, 0.0), 0.0)


def _sum(p: Distribution, value: Callable[[Array], ndarray]) -> Information:
    """The sum Σ p(y) v(y) over the integers of the support, in blocks that double until neither the
    remaining probability nor its part of the sum matters.
    """
    low, high = p.support()
    first = low
    size = 1024
    total = 0.0
    mass = 0.0
    while True:
        y = first + np.arange(min(size, high - first + 1))
        log_prob = p.log_prob(y)
        terms = _weighted(log_prob, value(y))
        total = total + float(np.sum(terms))
        mass = mass + float(np.sum(np.exp(log_prob)))
        first = first + len(y)
        size = 2 * size
        rounding = 4 * np.finfo(float).eps * max(1.0, abs(total))
        if first > high or not np.isfinite(total):
            return Information(float(total), float(rounding), "sum")
        last = abs(float(terms[-1]))
        if mass > 0.5 and last <= MAX_LAST_TERM_OF_A_SUM:
            return Information(float(total), float(rounding), "sum")
        if first - low > MAX_TERMS_OF_A_SUM:
            # The rest of a power-law tail is about its last term times the number of terms, or
            # more.
            return Information(
                float(total),
                max(last * (first - low), (1 - mass) * abs(math.log(max(last, 1e-300)))),
                "sum",
            )


def _quadrature(
    p: Distribution, value: Callable[[Array], ndarray], laws: tuple[Distribution, ...]
) -> Information:
    """∫ p(y) v(y) dy by double-exponential rules between the ends of the support and the means
    (medians if there is none), where a density may have a kink.

    Source: Takahasi & Mori (1974), Publications of the RIMS 9, 721–741.
    """
    ends = _panels(p, laws)
    before = math.nan
    nodes = QUADRATURE_NODES
    while True:
        pieces = [
            _panel(p, value, a, b, ends[1:-1], nodes)
            for a, b in zip(ends[:-1], ends[1:], strict=True)
        ]
        if any(math.isinf(piece) for piece, _ in pieces):
            return Information(math.inf, 0.0, "quadrature")
        total = sum(piece for piece, _ in pieces)
        open_end = max(left for _, left in pieces)
        change = abs(total - before)
        if (
            change <= QUADRATURE_TOLERANCE * max(1.0, abs(total))
            or nodes >= MAX_QUADRATURE_NODES
            or math.isnan(total)
        ):
            break
        before = total
        nodes = 2 * nodes
    rounding = 4 * np.finfo(float).eps * max(1.0, abs(total))
    return Information(float(total), float(change + open_end + rounding), "quadrature")


def _panels(p: Distribution, laws: tuple[Distribution, ...]) -> list[float]:
    """The ends of the support, and the points between them where a density may have a kink."""
    low, high = p.support()
    middles = {_middle(law) for law in laws} | {end for law in laws for end in law.support()}
    inside = sorted(m for m in middles if low < m < high and math.isfinite(m))
    return [low, *(inside or [point_between(low, high)]), high]


def _middle(law: Distribution) -> float:
    """The mean if it is finite, otherwise the median; a kink of a symmetric density is there."""
    mean = float(np.asarray(law.family.mean(law.values))) if law.family.law.mean else math.nan
    return mean if math.isfinite(mean) else _quantile(law, 0.5)


def _quantile(law: Distribution, q: float) -> float:
    """A quantile of a distribution; NaN if there is none, or not a single number, as for a mixture
    with a vector of weights.
    """
    quantile = (
        np.full(2, math.nan)
        if law.family.law.quantile is None
        else np.asarray(program_of(law.family, "quantile")(law.values, np.float64(q)))
    )
    return float(quantile) if not quantile.ndim else math.nan


def _panel(
    p: Distribution,
    value: Callable[[Array], ndarray],
    a: float,
    b: float,
    inner: list[float],
    nodes: int,
) -> tuple[float, float]:
    """The integral over (a, b), and the size of the integrand at an open end; inf if it does not
    fall there.
    """
    t = np.linspace(-DOUBLE_EXPONENTIAL_REACH, DOUBLE_EXPONENTIAL_REACH, nodes + 1)
    half_sinh = 0.5 * math.pi * np.sinh(t)
    log_speed = np.log(0.5 * math.pi * np.cosh(t))
    if math.isinf(a) or math.isinf(b):
        scale = _scale(p, b if math.isinf(a) else a, inner)
        step = scale * np.exp(half_sinh)
        y = b - step if math.isinf(a) else a + step
        log_width = math.log(scale) + half_sinh + log_speed
        far = True
    else:
        # The distance to the closer end keeps its digits if that end is 0.
        share = scipy.special.expit(2 * half_sinh)
        y = np.where(t < 0, a + (b - a) * share, b - (b - a) * scipy.special.expit(-2 * half_sinh))
        log_width = (
            math.log(2 * (b - a))
            + log_speed
            - np.logaddexp(0, 2 * half_sinh)
            - np.logaddexp(0, -2 * half_sinh)
        )
        far = False
    usable = np.isfinite(y) & (y != a) & (y != b)
    spare = y[nodes // 2]
    y = np.where(usable, y, spare)
    terms = np.where(usable, _weighted(p.log_prob(y) + log_width, value(y)), 0.0)
    if np.any(np.isnan(terms)):
        return math.nan, math.nan
    if np.any(np.isinf(terms)):
        return math.inf, 0.0
    width = 2 * DOUBLE_EXPONENTIAL_REACH / nodes
    total = float(np.sum(terms)) * width
    last = terms[usable][-1] if usable.any() else 0.0
    # If an integrand does not fall doubly exponentially in t at infinity, its integral diverges.
    diverging = max(MAX_SHARE_OF_LAST_TERM * np.max(np.abs(terms)), UNDERFLOW_OF_A_TERM)
    if far and abs(last) > diverging:
        return math.inf, 0.0
    edge = max(abs(terms[usable][0]), abs(last)) if usable.any() else 0.0
    return total, float(edge)


def _scale(p: Distribution, end: float, inner: list[float]) -> float:
    """A typical distance of p from a finite end."""
    variance = float(np.asarray(p.family.variance(p.values))) if p.family.law.variance else math.nan
    width = (
        math.sqrt(variance) if 0 < variance < math.inf else _quantile(p, 0.75) - _quantile(p, 0.25)
    )
    if width > 0:
        return width
    return max(abs(end - m) for m in inner) or 1.0
