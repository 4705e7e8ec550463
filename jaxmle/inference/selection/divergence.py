"""Entropy, cross-entropy and Kullback–Leibler divergence between families, and from data: each
value with its error and how it was found.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from jaxmle._types import Array, Tree
from jaxmle.families.bounded import beta
from jaxmle.families.counts import poisson
from jaxmle.families.family import Family
from jaxmle.families.location_scale import cauchy, gumbel, laplace, logistic, normal
from jaxmle.families.multivariate import multivariate_normal
from jaxmle.families.positive import exponential, gamma, lognormal, weibull
from jaxmle.likelihood.contract import terms_of
from jaxmle.parameters.arguments import check_count, check_seed
from jaxmle.runtime.compile import precision, tracing

Params = dict[str, Any]
Ratio = Callable[[Array], tuple[Array, Array]]  # y → (log weight, what is averaged)

DIVERGENCE_DRAWS = 100_000
DOUBLE_EXPONENTIAL_REACH = 6.05  # of t in x = exp(π/2·sinh t): from 1e-288 to 1e288
CHUNK = 512  # values at once
# of a panel, doubled until the value stays
NODES = 256
FINEST = 4096
SETTLED = 1e-11  # of max(1, |value|)
LARGEST_SUM = 2**22  # terms of a sum over counts


@dataclass(frozen=True)
class Information:
    """An entropy, cross-entropy or divergence in nats, with its error.

    Attributes:
        value: inf where it is infinite, as the divergence is where q is zero and p is not; NaN
            where it could not be found.
        error: of the method: a bound on rounding for ``"closed form"``, the change at the last
            refinement for ``"quadrature"``, what the terms left out may add for ``"sum"``; one
            standard error for ``"Monte Carlo"`` and ``"sample"``.
        method: which of these it was; ``"support"`` where the supports alone decide.

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


def entropy(
    p: tuple[Family, Params], *, draws: int = DIVERGENCE_DRAWS, key: int = 0
) -> Information:
    """The entropy H(p) = −E_p log p(Y), in nats; the differential entropy of a continuous law.

    Args:
        p: a family and its parameters, ``(normal, {"loc": 0.0, "scale": 1.0})``: one law, not one a
            row.
        draws, key: number and seed of the draws, where there is no other way (laws of vectors other
            than the normal).

    Returns:
        An ``Information``: by closed form where it is known; by quadrature for continuous laws, by
            a sum for discrete ones.

    Raises:
        TypeError: for a law that is no pair of a family and its parameters.
        ValueError: for parameters that are not finite.

    >>> from jaxmle.families import normal
    >>> found = entropy((normal, {"loc": 3.0, "scale": 2.0}))
    >>> round(found.value, 6), found.method
    (2.112086, 'closed form')
    """
    draws = check_count("draws", draws, 2)
    key = check_seed("key", key)
    law = _law(p, "p")
    closed = _ENTROPY.get(law.family)
    with precision(np.float64), np.errstate(all="ignore"):
        if closed:
            return _closed(closed(law.values))
        return _average(law, lambda y: -law.log_prob(y), (law,), draws, key)


def cross_entropy(p: Any, q: Any, *, draws: int = DIVERGENCE_DRAWS, key: int = 0) -> Information:
    """The cross-entropy H(p, q) = −E_p log q(Y) = H(p) + KL(p ‖ q), in nats.

    Args:
        p: a family and its parameters; or data, whose rows count alike: then it is −Σ log q(y_i)/n,
            the mean negative log-likelihood.
        q: a family and its parameters; with data also any log-likelihood and its parameters, such
            as ``(loglik, fit.params)``.
        draws, key: as in ``entropy``.

    Returns:
        An ``Information``; inf where q gives no probability to what p may draw.

    Raises:
        TypeError: for a law that is no pair of a family and its parameters.
        ValueError: for parameters that are not finite, or a discrete law beside a continuous one.

    >>> import numpy as np
    >>> from jaxmle.families import normal
    >>> standard = (normal, {"loc": 0.0, "scale": 1.0})
    >>> round(cross_entropy(np.array([-1.0, 1.0]), standard).value, 6)
    1.418939
    """
    draws = check_count("draws", draws, 2)
    key = check_seed("key", key)
    if not _is_pair(p):
        return _of_sample(p, q, draws, key)
    one = _law(p, "p")
    two = _law(q, "q")
    _comparable(one, two)
    with precision(np.float64), np.errstate(all="ignore"):
        if _beyond(one, two):
            return Information(math.inf, 0.0, "support")
        if one.family is two.family and one.family in _ENTROPY and one.family in _DIVERGENCE:
            return _closed(
                _ENTROPY[one.family](one.values) + _DIVERGENCE[one.family](one.values, two.values)
            )
        return _average(one, lambda y: -two.log_prob(y), (one, two), draws, key)


def kl_divergence(
    p: tuple[Family, Params],
    q: tuple[Family, Params],
    *,
    draws: int = DIVERGENCE_DRAWS,
    key: int = 0,
) -> Information:
    """The Kullback–Leibler divergence KL(p ‖ q) = E_p log(p(Y)/q(Y)) ≥ 0, in nats; not symmetric.

    A maximum-likelihood estimate in a family that does not hold the truth p converges to the member
    q that is nearest in this sense.

    Args:
        p, q: families and their parameters, both discrete or both continuous.
        draws, key: as in ``entropy``.

    Returns:
        An ``Information``; inf where q gives no probability to what p may draw, or where its tails
        are too light for those of p.

    Raises:
        TypeError: for a law that is no pair of a family and its parameters.
        ValueError: for data, parameters that are not finite, or a discrete law beside a continuous
            one.

    Source: Kullback & Leibler (1951), Annals of Mathematical Statistics 22, 79–86; White (1982),
    Econometrica 50, 1–25.

    >>> from jaxmle.families import exponential
    >>> slow, fast = (exponential, {"rate": 1.0}), (exponential, {"rate": 2.0})
    >>> round(kl_divergence(slow, fast).value, 6), round(kl_divergence(fast, slow).value, 6)
    (0.306853, 0.193147)
    """
    draws = check_count("draws", draws, 2)
    key = check_seed("key", key)
    if not _is_pair(p):
        raise ValueError(
            "the divergence from data needs the entropy of their law, which a sample does not "
            "have; cross_entropy(data, q) differs from it by that constant"
        )
    one = _law(p, "p")
    two = _law(q, "q")
    _comparable(one, two)
    with precision(np.float64), np.errstate(all="ignore"):
        if _beyond(one, two):
            return Information(math.inf, 0.0, "support")
        if one.family is two.family and one.family in _DIVERGENCE:
            return _closed(_DIVERGENCE[one.family](one.values, two.values))
        return _average(
            one, lambda y: _difference(one.log_prob(y), two.log_prob(y)), (one, two), draws, key
        )


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, eq=False)
class _One:
    """One law: a family at one value of its parameters."""

    family: Family
    values: Params

    @property
    def name(self) -> str:
        return self.family.name

    def log_prob(self, y: Array) -> np.ndarray:
        """log p(y): numbers in chunks of one length, so that each operation is compiled once."""
        if np.ndim(y) != 1:
            return np.asarray(self.family.log_prob(self.values, jnp.asarray(y)))
        program = _program(self.family, "log_prob")
        padded = np.concatenate([y, np.full(-len(y) % CHUNK, y[0])])
        return np.concatenate(
            [np.asarray(program(self.values, part)) for part in padded.reshape(-1, CHUNK)]
        )[: len(y)]

    def support(self) -> tuple[float, float]:
        low, high = self.family.support(self.values)
        return float(np.min(low)), float(np.max(high))


@functools.lru_cache(maxsize=64)
def _program(family: Family, what: str) -> Callable[..., Array]:
    """A compiled function of a family, for the families asked about last."""
    return jax.jit(getattr(family, what))


def _is_pair(p: Any) -> bool:
    return isinstance(p, tuple) and len(p) == 2 and callable(p[0])


def _check_host() -> None:
    if tracing():
        raise TypeError(
            "information is found on the host and cannot run inside jit or vmap; there, average "
            "family.log_prob over family.sample"
        )


def _law(p: Any, what: str) -> _One:
    _check_host()
    if not _is_pair(p) or not isinstance(p[0], Family):
        raise TypeError(
            f"{what} is a family and its parameters, such as (jaxmle.families.normal, {{'loc': "
            f"0.0, 'scale': 1.0}}); got {type(p).__name__}"
        )
    family, params = p
    with precision(np.float64):
        values = jax.tree.map(lambda leaf: np.asarray(leaf, float), family.read(params))
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        if not np.all(np.isfinite(leaf)):
            raise ValueError(
                f"{what} has the parameter {jax.tree_util.keystr(path)} = {leaf}; parameters "
                "must be finite"
            )
    return _One(family, values)


def _comparable(p: _One, q: _One) -> None:
    if p.family.discrete != q.family.discrete:
        raise ValueError(
            f"{p.name} and {q.name} cannot be compared: one is discrete and the other has a density"
        )


def _is_vector(law: _One) -> bool:
    return law.name.startswith("multivariate")


def _beyond(p: _One, q: _One) -> bool:
    """Whether p has probability outside the support of q."""
    if _is_vector(p):
        return False
    (low, high) = p.support()
    (q_low, q_high) = q.support()
    return (low < q_low and _mass(p, "log_cdf", q_low)) or (
        high > q_high and _mass(p, "log_sf", q_high)
    )


def _mass(p: _One, tail: str, end: float) -> bool:
    """Whether a tail has probability; a discrete law has none between its whole numbers."""
    if getattr(p.family.law, tail) is None:
        return True
    end = np.ceil(end) - 1 if tail == "log_cdf" and p.family.discrete else end
    return bool(np.asarray(getattr(p.family, tail)(p.values, jnp.asarray(end))) > -np.inf)


def _numbers(data: Tree) -> Tree:
    """Data as arrays of numbers, a list of them as one array."""
    wanted = "p is a family and its parameters, or data of numbers, such as an array (n,)"
    try:
        data = np.asarray(data) if isinstance(data, list) else jax.tree.map(np.asarray, data)
    except ValueError:
        raise TypeError(f"{wanted}; got lists of unequal lengths") from None
    leaves = jax.tree.leaves(data, is_leaf=lambda leaf: leaf is None)
    for leaf in leaves or [None]:
        if leaf is None or leaf.dtype.kind not in "fiub":
            kind = "nothing" if leaf is None else f"dtype {leaf.dtype}"
            raise TypeError(f"{wanted}; got {kind}")
    return data


def _of_sample(data: Tree, q: Any, draws: int, key: int) -> Information:
    del draws, key
    _check_host()
    if not _is_pair(q):
        raise TypeError(
            f"q is a family, or a log-likelihood, and its parameters; got {type(q).__name__}"
        )
    data = _numbers(data)
    with precision(np.float64), np.errstate(all="ignore"):
        terms = np.asarray(
            terms_of(
                q[0],
                jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, float)), q[1]),
                jax.tree.map(jnp.asarray, data),
            )
        )
    if terms.ndim == 0:
        raise ValueError(
            "the cross-entropy of data needs one log-likelihood term per row; this "
            "log-likelihood returns one scalar"
        )
    if np.any(np.isnan(terms)):
        raise ValueError(
            f"log q is NaN in row {int(np.flatnonzero(np.isnan(terms))[0])} of the data"
        )
    error = (
        float(np.std(terms, ddof=1) / math.sqrt(len(terms)))
        if len(terms) > 1 and np.all(np.isfinite(terms))
        else math.nan
    )
    return Information(float(-np.mean(terms)), float(error), "sample")


# ---------------------------------------------------------------- averages


def _difference(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """log p − log q; 0 where p is zero."""
    return np.where(np.isneginf(one), 0.0, one - np.where(np.isneginf(one), 0.0, two))


def _average(
    p: _One, value: Callable[[Array], np.ndarray], laws: tuple[_One, ...], draws: int, key: int
) -> Information:
    """E_p value(Y), by the way that the law allows."""
    if _is_vector(p):
        return _monte_carlo(p, value, draws, key)
    for law in laws:
        shape = jax.eval_shape(law.family.log_prob, law.values, np.float64(1.0)).shape
        if shape:
            raise ValueError(
                f"the parameters of {law.name} have shape {shape}: one law is compared with one, "
                "so give scalars"
            )
    return _sum(p, value) if p.family.discrete else _quadrature(p, value, laws)


def _monte_carlo(
    p: _One, value: Callable[[Array], np.ndarray], draws: int, key: int
) -> Information:
    found = value(np.asarray(p.family.sample(p.values, jax.random.key(key), (draws,))))
    return Information(
        float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(draws)), "Monte Carlo"
    )


def _weighted(log_weight: np.ndarray, value: np.ndarray) -> np.ndarray:
    """e^w·v, 0 where the weight is."""
    weight = np.exp(log_weight)
    return np.where(weight > 0, weight * np.where(weight > 0, value, 0.0), 0.0)


def _sum(p: _One, value: Callable[[Array], np.ndarray]) -> Information:
    """Σ p(y) v(y) over the whole numbers of the support, in blocks that double until the
    probability left, and what it adds, are nothing.
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
        if mass > 0.5 and last <= 1e-20:
            return Information(float(total), float(rounding), "sum")
        if first - low > LARGEST_SUM:
            # A tail like a power falls by its last term times the number of terms, or slower.
            return Information(
                float(total),
                max(last * (first - low), (1 - mass) * abs(math.log(max(last, 1e-300)))),
                "sum",
            )


def _quadrature(
    p: _One, value: Callable[[Array], np.ndarray], laws: tuple[_One, ...]
) -> Information:
    """∫ p(y) v(y) dy by double-exponential rules between the ends of the support and the means
    (medians where there is none), where a density may have its corner.

    Source: Takahasi & Mori (1974), Publications of the RIMS 9, 721–741.
    """
    ends = _panels(p, laws)
    before = math.nan
    nodes = NODES
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
        if change <= SETTLED * max(1.0, abs(total)) or nodes >= FINEST or math.isnan(total):
            break
        before = total
        nodes = 2 * nodes
    rounding = 4 * np.finfo(float).eps * max(1.0, abs(total))
    return Information(float(total), float(change + open_end + rounding), "quadrature")


def _panels(p: _One, laws: tuple[_One, ...]) -> list[float]:
    low, high = p.support()
    middles = {_middle(law) for law in laws} | {end for law in laws for end in law.support()}
    inside = sorted(m for m in middles if low < m < high and math.isfinite(m))
    return [
        low,
        *(
            inside
            or [
                0.0
                if math.isinf(low) and math.isinf(high)
                else low + 1
                if math.isinf(high)
                else high - 1
                if math.isinf(low)
                else 0.5 * (low + high)
            ]
        ),
        high,
    ]


def _middle(law: _One) -> float:
    """The mean where it is finite, the median else; where a symmetric density has its corner,
    it is there.
    """
    mean = float(np.asarray(law.family.mean(law.values))) if law.family.law.mean else math.nan
    return mean if math.isfinite(mean) else _quantile(law, 0.5)


def _quantile(law: _One, q: float) -> float:
    """A quantile; NaN where the law has none, or not as one number, as a mixture with a vector
    of weights.
    """
    found = (
        np.full(2, math.nan)
        if law.family.law.quantile is None
        else np.asarray(_program(law.family, "quantile")(law.values, np.float64(q)))
    )
    return float(found) if not found.ndim else math.nan


def _panel(
    p: _One,
    value: Callable[[Array], np.ndarray],
    a: float,
    b: float,
    inner: list[float],
    nodes: int,
) -> tuple[float, float]:
    """The integral over (a, b), and how much the integrand still has at an open end; inf where
    it does not fall there.
    """
    t = np.linspace(-DOUBLE_EXPONENTIAL_REACH, DOUBLE_EXPONENTIAL_REACH, nodes + 1)
    bend = 0.5 * math.pi * np.sinh(t)
    log_speed = np.log(0.5 * math.pi * np.cosh(t))
    if math.isinf(a) or math.isinf(b):
        scale = _scale(p, b if math.isinf(a) else a, inner)
        step = scale * np.exp(bend)
        y = b - step if math.isinf(a) else a + step
        log_width = math.log(scale) + bend + log_speed
        far = True
    else:
        # The distance to the nearer end keeps its digits where that end is 0.
        share = scipy.special.expit(2 * bend)
        y = np.where(t < 0, a + (b - a) * share, b - (b - a) * scipy.special.expit(-2 * bend))
        log_width = (
            math.log(2 * (b - a))
            + log_speed
            - np.logaddexp(0, 2 * bend)
            - np.logaddexp(0, -2 * bend)
        )
        far = False
    kept = np.isfinite(y) & (y != a) & (y != b)
    spare = y[nodes // 2]
    y = np.where(kept, y, spare)
    terms = np.where(kept, _weighted(p.log_prob(y) + log_width, value(y)), 0.0)
    if np.any(np.isnan(terms)):
        return math.nan, math.nan
    if np.any(np.isinf(terms)):
        return math.inf, 0.0
    width = 2 * DOUBLE_EXPONENTIAL_REACH / nodes
    total = float(np.sum(terms)) * width
    last = terms[kept][-1] if kept.any() else 0.0
    # At infinity an integrand that does not fall doubly exponentially in t is one whose integral
    # diverges.
    if far and abs(last) > 1e-3 * np.max(np.abs(terms)) and abs(last) > 1e-200:
        return math.inf, 0.0
    edge = max(abs(terms[kept][0]), abs(last)) if kept.any() else 0.0
    return total, float(edge)


def _scale(p: _One, end: float, inner: list[float]) -> float:
    """A typical distance of p from a finite end."""
    variance = float(np.asarray(p.family.variance(p.values))) if p.family.law.variance else math.nan
    width = (
        math.sqrt(variance) if 0 < variance < math.inf else _quantile(p, 0.75) - _quantile(p, 0.25)
    )
    if width > 0:
        return width
    return max(abs(end - m) for m in inner) or 1.0


# ---------------------------------------------------------------- closed forms


def _closed(value: Any) -> Information:
    value = float(value)
    return Information(value, float(8 * np.finfo(float).eps * max(1.0, abs(value))), "closed form")


def _gamma_entropy(p: Params) -> Any:
    a = p["shape"]
    return a - np.log(p["rate"]) + scipy.special.gammaln(a) + (1 - a) * scipy.special.digamma(a)


def _beta_entropy(p: Params) -> Any:
    a = p["shape1"]
    b = p["shape2"]
    digamma = scipy.special.digamma
    return (
        scipy.special.betaln(a, b)
        - (a - 1) * digamma(a)
        - (b - 1) * digamma(b)
        + (a + b - 2) * digamma(a + b)
    )


def _normal_divergence(p: Params, q: Params) -> Any:
    ratio = p["scale"] / q["scale"]
    return 0.5 * (ratio**2 - 1 - 2 * np.log(ratio) + ((p["loc"] - q["loc"]) / q["scale"]) ** 2)


def _gamma_divergence(p: Params, q: Params) -> Any:
    a = p["shape"]
    c = q["shape"]
    gammaln = scipy.special.gammaln
    return (
        (a - c) * scipy.special.digamma(a)
        - gammaln(a)
        + gammaln(c)
        + c * np.log(p["rate"] / q["rate"])
        + a * (q["rate"] / p["rate"] - 1)
    )


def _laplace_divergence(p: Params, q: Params) -> Any:
    gap = np.abs(p["loc"] - q["loc"])
    ratio = p["scale"] / q["scale"]
    return ratio * np.exp(-gap / p["scale"]) + gap / q["scale"] - np.log(ratio) - 1


def _vector_divergence(p: Params, q: Params) -> Any:
    """½{tr(Σq⁻¹Σp) + δ'Σq⁻¹δ − d + log(det Σq/det Σp)}."""
    root = np.linalg.cholesky(q["covariance"])
    own = np.linalg.cholesky(p["covariance"])
    turned = scipy.linalg.solve_triangular(
        root, np.column_stack([own, q["loc"] - p["loc"]]), lower=True
    )
    return 0.5 * (np.sum(turned**2) - len(root)) + np.sum(
        np.log(np.diagonal(root)) - np.log(np.diagonal(own))
    )


EULER_GAMMA = 0.5772156649015329  # NIST DLMF 5.2.3
_NORMAL = 0.5 * math.log(2 * math.pi * math.e)
# Cover & Thomas (2006), Elements of Information Theory, table 17.1.
_ENTROPY: dict[Family, Callable[[Params], Any]] = {
    normal: lambda p: _NORMAL + np.log(p["scale"]),
    lognormal: lambda p: _NORMAL + np.log(p["sdlog"]) + p["meanlog"],
    laplace: lambda p: 1 + np.log(2 * p["scale"]),
    logistic: lambda p: 2 + np.log(p["scale"]),
    cauchy: lambda p: np.log(4 * math.pi * p["scale"]),
    gumbel: lambda p: 1 + EULER_GAMMA + np.log(p["scale"]),
    exponential: lambda p: 1 - np.log(p["rate"]),
    gamma: _gamma_entropy,
    weibull: lambda p: 1 + EULER_GAMMA * (1 - 1 / p["shape"]) + np.log(p["scale"] / p["shape"]),
    beta: _beta_entropy,
    multivariate_normal: lambda p: (
        len(p["loc"]) * _NORMAL + np.sum(np.log(np.diagonal(np.linalg.cholesky(p["covariance"]))))
    ),
}
_DIVERGENCE: dict[Family, Callable[[Params, Params], Any]] = {
    normal: _normal_divergence,
    lognormal: lambda p, q: _normal_divergence(
        *({"loc": one["meanlog"], "scale": one["sdlog"]} for one in (p, q))
    ),
    laplace: _laplace_divergence,
    exponential: lambda p, q: np.log(p["rate"] / q["rate"]) + q["rate"] / p["rate"] - 1,
    gamma: _gamma_divergence,
    poisson: lambda p, q: p["rate"] * np.log(p["rate"] / q["rate"]) - p["rate"] + q["rate"],
    cauchy: lambda p, q: np.log(
        ((p["scale"] + q["scale"]) ** 2 + (p["loc"] - q["loc"]) ** 2)
        / (4 * p["scale"] * q["scale"])
    ),
    multivariate_normal: _vector_divergence,
}
