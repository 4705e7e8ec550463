"""Families of counts and codes: Poisson, binomial, Bernoulli, geometric, negative binomial
(NB2, NB1), beta-binomial, categorical.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp

import jaxmle.special as special
from jaxmle._namespace import is_traced
from jaxmle._types import Array, NamedParams, Tree
from jaxmle.families.family import Family, Law, document
from jaxmle.families.inverse import Tail, smallest_count
from jaxmle.families.moments import moments, values
from jaxmle.parameters.constraints import interval, positive, simplex
from jaxmle.special.incomplete_gamma import gamma_tail

Pointwise = Callable[[NamedParams, Array], Array]
OfParams = Callable[[NamedParams], Array]

PROBABILITY = interval(0.0, 1.0)
SHARE_OF_AN_ULP = 1e-17  # of 1, in float64


def not_whole(y: Array, high: Array) -> Array:
    """Where y is not an integer from 0 to high. NaN does not count: it stays NaN."""
    return (y < 0) | (y > high) | jnp.isinf(y) | ((y != jnp.floor(y)) & ~jnp.isnan(y))


def _counts_within(y: Array, high: Array) -> tuple[Array, Array, Array]:
    """Whether y is below 0, or at ``high`` or above; and ⌊y⌋, or 0 in either case."""
    under = y < 0
    over = (y >= high) | jnp.isposinf(y)
    return under, over, jnp.where(under | over, 0.0, jnp.floor(y))


def _step_function(
    function: Pointwise, high: OfParams, below: float, above: float, p: NamedParams, y: Array
) -> Array:
    """``function`` at ⌊y⌋ within 0 and ``high``; constants below and above."""
    under, over, count = _counts_within(y, high(p))
    return jnp.where(under, below, jnp.where(over, above, function(p, count)))


def counting(
    name: str,
    constraints: NamedParams,
    log_prob: Pointwise,
    mean: OfParams,
    variance: OfParams,
    guess: Callable[[Array, NamedParams], NamedParams],
    sample: Callable[[NamedParams, jax.Array, tuple[int, ...]], Array],
    log_cdf: Pointwise | None = None,
    log_sf: Pointwise | None = None,
    log_tails: Callable[[NamedParams, Array], tuple[Array, Array]] | None = None,
    high: OfParams = lambda p: jnp.inf * jnp.ones(()),
    information: Callable[[NamedParams], dict[tuple[str, str], Tree]] | None = None,
    known: dict[str, float | None] | None = None,
) -> Family:
    """The family with functions given for integer y from 0 to high; its distribution function is
    constant between integers.
    """

    def density(p: NamedParams, y: Array) -> Array:
        outside = not_whole(y, high(p))
        return jnp.where(outside, -jnp.inf, log_prob(p, jnp.where(outside, 0.0, y)))

    cdf = log_cdf and partial(_step_function, log_cdf, high, -jnp.inf, 0.0)
    sf = log_sf and partial(_step_function, log_sf, high, 0.0, -jnp.inf)

    def tails(p: NamedParams, y: Array) -> tuple[Array, Array]:
        under, over, count = _counts_within(y, high(p))
        below, above = log_tails(p, count)  # type: ignore[misc]
        return (
            jnp.where(under, -jnp.inf, jnp.where(over, 0.0, below)),
            jnp.where(under, 0.0, jnp.where(over, -jnp.inf, above)),
        )

    def quantile(p: NamedParams, q: Array) -> Array:
        return smallest_count(
            cast(Tail, cdf), cast(Tail, sf), mean(p), variance(p), 0.0, high(p), p, q
        )

    law = Law(
        log_prob=density,
        log_cdf=cdf,
        log_sf=sf,
        log_tails=log_tails and tails,
        quantile=None if cdf is None else quantile,
        sample=lambda p, key, shape: sample(p, key, shape).astype(int),
        mean=mean,
        variance=variance,
        support=lambda p: (0.0, high(p)),
        guess=guess,
        information=information,
    )
    return Family(name, constraints, law, known=known or {}, discrete=True)


# ---------------------------------------------------------------- Poisson


def _poisson_guess(y: Array, known: NamedParams) -> NamedParams:
    mean, _, xp = moments(y)
    return {"rate": xp.where(mean > 0, mean, 0.5 / max(len(y), 1))}


poisson = counting(
    "Poisson",
    {"rate": positive},
    log_prob=lambda p, y: special.poisson_logpmf(y, jnp.log(p["rate"])),
    log_cdf=lambda p, y: gamma_tail(y + 1, jnp.log(p["rate"]), lower=False),
    log_sf=lambda p, y: gamma_tail(y + 1, jnp.log(p["rate"]), lower=True),
    mean=lambda p: p["rate"],
    variance=lambda p: p["rate"],
    guess=_poisson_guess,
    sample=lambda p, key, shape: jax.random.poisson(key, p["rate"], shape),
    information=lambda p: {("rate", "rate"): 1 / p["rate"]},
)
document(
    poisson,
    """The Poisson distribution, rate (its mean): scipy ``poisson(rate)``, R ``dpois(lambda)``.""",
)


# ---------------------------------------------------------------- binomial, Bernoulli


def _log_choose(n: Array, y: Array) -> Array:
    return -jnp.log1p(n) - special.betaln(n - y + 1, y + 1)


def _binomial_log_prob(p: NamedParams, y: Array) -> Array:
    n = p["trials"]
    return _log_choose(n, y) + y * jnp.log(p["prob"]) + (n - y) * jnp.log1p(-p["prob"])


def _binomial_guess(y: Array, known: NamedParams) -> NamedParams:
    """The share of successes, with half a success and half a failure added."""
    y, xp = values(y)
    trials = xp.broadcast_to(xp.asarray(known["trials"]), y.shape)
    return {"prob": (xp.sum(y) + 0.5) / (xp.sum(trials) + 1)}


def _bernoulli(p: NamedParams) -> NamedParams:
    return {"prob": p["prob"], "trials": jnp.ones_like(p["prob"])}


def _binomial_variance(p: NamedParams) -> Array:
    return p["trials"] * p["prob"] * (1 - p["prob"])


def _binomial_log_tails(p: NamedParams, y: Array) -> tuple[Array, Array]:
    above, up_to = special.log_beta_tails(y + 1, p["trials"] - y, p["prob"])
    return up_to, above


binomial = counting(
    "binomial",
    {"prob": PROBABILITY},
    log_prob=_binomial_log_prob,
    log_cdf=lambda p, y: special.log_betaincc(y + 1, p["trials"] - y, p["prob"]),
    log_sf=lambda p, y: special.log_betainc(y + 1, p["trials"] - y, p["prob"]),
    log_tails=_binomial_log_tails,
    high=lambda p: p["trials"],
    mean=lambda p: p["trials"] * p["prob"],
    variance=_binomial_variance,
    guess=_binomial_guess,
    sample=lambda p, key, shape: jax.random.binomial(key, p["trials"], p["prob"], shape),
    information=lambda p: {("prob", "prob"): p["trials"] / (p["prob"] * (1 - p["prob"]))},
    known={"trials": None},
)
document(
    binomial,
    """The binomial distribution, prob of success in a known number of ``trials``: scipy
    ``binom(trials, prob)``, R ``dbinom(size, prob)``. ``jaxmle.fit(binomial, data={"y":
    successes, "trials": trials})``.
    """,
)

bernoulli = counting(
    "Bernoulli",
    {"prob": PROBABILITY},
    log_prob=lambda p, y: y * jnp.log(p["prob"]) + (1 - y) * jnp.log1p(-p["prob"]),
    log_cdf=lambda p, y: jnp.log1p(-p["prob"]) + 0.0 * y,
    log_sf=lambda p, y: jnp.log(p["prob"]) + 0.0 * y,
    high=lambda p: jnp.ones_like(p["prob"]),
    mean=lambda p: p["prob"],
    variance=lambda p: _binomial_variance(_bernoulli(p)),
    guess=lambda y, known: _binomial_guess(y, {"trials": 1.0}),
    sample=lambda p, key, shape: jax.random.bernoulli(key, p["prob"], shape),
    information=lambda p: {("prob", "prob"): 1 / (p["prob"] * (1 - p["prob"]))},
)
document(
    bernoulli,
    """One trial, y 0 or 1, prob of 1: scipy ``bernoulli(prob)``, R ``dbinom(1, prob)``.""",
)


# ---------------------------------------------------------------- geometric, negative binomial


def _geometric_guess(y: Array, known: NamedParams) -> NamedParams:
    mean, _, _ = moments(y)
    return {"prob": 1 / (1.01 + mean)}


geometric = counting(
    "geometric",
    {"prob": PROBABILITY},
    log_prob=lambda p, y: jnp.log(p["prob"]) + y * jnp.log1p(-p["prob"]),
    log_cdf=lambda p, y: special.log1mexp((y + 1) * jnp.log1p(-p["prob"])),
    log_sf=lambda p, y: (y + 1) * jnp.log1p(-p["prob"]),
    mean=lambda p: (1 - p["prob"]) / p["prob"],
    variance=lambda p: (1 - p["prob"]) / p["prob"] ** 2,
    guess=_geometric_guess,
    sample=lambda p, key, shape: jax.random.geometric(key, p["prob"], shape) - 1,
    information=lambda p: {("prob", "prob"): 1 / (p["prob"] ** 2 * (1 - p["prob"]))},
)
document(
    geometric,
    """The number of failures before the first success, prob of success: R ``dgeom(prob)``; scipy
    ``geom(prob, loc=-1)``, which counts trials.
    """,
)


def _negative_binomial(
    name: str, alpha: OfParams, guess: Callable[[Array, NamedParams], NamedParams]
) -> Family:
    """The negative binomial with a given mean and variance mean + alpha·mean²."""

    def chance(p: NamedParams, y: Array | float) -> tuple[Array, Array]:
        """The size 1/alpha and the odds for which ``prob`` is 1/(1 + odds), finite for the Poisson
        limit too: there log f moves by alpha((y − mean)² − y)/2, here by less than an ulp.
        """
        some = alpha(p) + SHARE_OF_AN_ULP / (1 + p["mean"] + y) ** 2
        return 1 / some, some * p["mean"]

    def log_cdf(p: NamedParams, y: Array) -> Array:
        size, odds = chance(p, y)
        return special.log_betaincc(y + 1, size, odds / (1 + odds))

    def log_sf(p: NamedParams, y: Array) -> Array:
        size, odds = chance(p, y)
        return special.log_betainc(y + 1, size, odds / (1 + odds))

    def log_tails(p: NamedParams, y: Array) -> tuple[Array, Array]:
        size, odds = chance(p, y)
        above, below = special.log_beta_tails(y + 1, size, odds / (1 + odds))
        return below, above

    def sample(p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
        # A Poisson whose rate is gamma with this mean and shape 1/alpha.
        gamma_key, count_key = jax.random.split(key)
        size, odds = chance(p, 0.0)
        return jax.random.poisson(
            count_key, jnp.exp(jax.random.loggamma(gamma_key, size, shape)) * odds, shape
        )

    return counting(
        name,
        {"mean": positive, "dispersion": positive},
        log_prob=lambda p, y: special.negative_binomial_logpmf(y, p["mean"], alpha(p)),
        log_cdf=log_cdf,
        log_sf=log_sf,
        log_tails=log_tails,
        mean=lambda p: p["mean"],
        variance=lambda p: p["mean"] + alpha(p) * p["mean"] ** 2,
        guess=guess,
        sample=sample,
    )


def _nb2_guess(y: Array, known: NamedParams) -> NamedParams:
    mean, variance, xp = moments(y)
    mean = xp.where(mean > 0, mean, 0.5 / max(len(y), 1))
    return {"mean": mean, "dispersion": xp.clip((variance - mean) / mean**2, 0.05, 20.0)}


def _nb1_guess(y: Array, known: NamedParams) -> NamedParams:
    mean, variance, xp = moments(y)
    mean = xp.where(mean > 0, mean, 0.5 / max(len(y), 1))
    varies = xp.max(y) > xp.min(y)
    most = xp.where(varies, 20.0 * xp.maximum(mean, 1.0), 20.0)  # in units of counts, as δ is
    return {"mean": mean, "dispersion": xp.clip(variance / mean - 1, 0.05, most)}


negative_binomial = _negative_binomial("negative binomial", lambda p: p["dispersion"], _nb2_guess)
document(
    negative_binomial,
    """NB2, mean and dispersion α, variance mean + α·mean²: scipy ``nbinom(1/α, 1/(1 + α·mean))``,
    R ``dnbinom(mu=mean, size=1/α)``, Stata's ``alpha``.
    """,
)

negative_binomial_1 = _negative_binomial(
    "negative binomial (NB1)", lambda p: p["dispersion"] / p["mean"], _nb1_guess
)
document(
    negative_binomial_1,
    """NB1, mean and dispersion δ, variance mean·(1 + δ): scipy ``nbinom(mean/δ, 1/(1 + δ))``, R
    gamlss.dist ``dNBII(mu, sigma=δ)``, Stata's ``delta``.
    """,
)


# ---------------------------------------------------------------- beta-binomial


def _beta_binomial_log_prob(p: NamedParams, y: Array) -> Array:
    """log C(n, y) + log B(y + a, n − y + b) − log B(a, b), of two categories."""
    y, failures, a, b = jnp.broadcast_arrays(y, p["trials"] - y, p["shape1"], p["shape2"])
    return special.dirichlet_multinomial_logpmf(jnp.stack([y, failures]), jnp.stack([a, b]))


def _beta_binomial_variance(p: NamedParams) -> Array:
    a = p["shape1"]
    b = p["shape2"]
    n = p["trials"]
    return n * a * b * (a + b + n) / ((a + b) ** 2 * (a + b + 1))


def _beta_binomial_guess(y: Array, known: NamedParams) -> NamedParams:
    """The pooled share, and the correlation ρ = 1/(a + b + 1) from the mean squared residual."""
    y, xp = values(y)
    trials = xp.broadcast_to(xp.asarray(known["trials"]), y.shape)
    share = (xp.sum(y) + 0.5) / (xp.sum(trials) + 1)
    excess = xp.sum((y - trials * share) ** 2 / (share * (1 - share)) - trials) / xp.maximum(
        xp.sum(trials * (trials - 1.0)), 1e-12
    )
    total = 1 / xp.clip(excess, 0.01, 0.8) - 1
    return {"shape1": share * total, "shape2": (1 - share) * total}


def _beta_binomial_sample(p: NamedParams, key: Array, shape: tuple[int, ...]) -> Array:
    beta_key, count_key = jax.random.split(key)
    return jax.random.binomial(
        count_key, p["trials"], jax.random.beta(beta_key, p["shape1"], p["shape2"], shape), shape
    )


beta_binomial = counting(
    "beta-binomial",
    {"shape1": positive, "shape2": positive},
    log_prob=_beta_binomial_log_prob,
    high=lambda p: p["trials"],
    mean=lambda p: p["trials"] * p["shape1"] / (p["shape1"] + p["shape2"]),
    variance=_beta_binomial_variance,
    guess=_beta_binomial_guess,
    sample=_beta_binomial_sample,
    known={"trials": None},
)
document(
    beta_binomial,
    """A binomial of known ``trials`` whose prob is beta(shape1, shape2): scipy ``betabinom(trials,
    shape1, shape2)``, R VGAM ``dbetabinom.ab``. No closed log_cdf.
    """,
)


# ---------------------------------------------------------------- categorical


def _pick(table: Array, y: Array) -> Array:
    """The entry of the last axis of ``table``, (k,) or (n, k), that the code y names."""
    code = y.astype(int)
    return (
        table[code]
        if table.ndim == 1
        else jnp.take_along_axis(table, code[..., None], axis=-1)[..., 0]
    )


def _categorical_log_prob(p: NamedParams, y: Array) -> Array:
    outside = not_whole(y, p["probs"].shape[-1] - 1)
    return jnp.where(
        outside,
        -jnp.inf,
        _pick(jnp.log(p["probs"]), jnp.where(outside | jnp.isnan(y), 0.0, y))
        + jnp.where(outside, 0.0, 0.0 * y),
    )


def _categorical_tail(p: NamedParams, y: Array, upper: bool) -> Array:
    """P(Y ≤ y) or P(Y > y), each summed from its own end."""
    last = p["probs"].shape[-1] - 1
    cumulated = (
        jnp.cumsum(p["probs"], axis=-1)
        if not upper
        else jnp.flip(jnp.cumsum(jnp.flip(p["probs"], -1), axis=-1), -1)
    )
    step = jnp.floor(y) + (1 if upper else 0)
    under = y < 0
    over = step > last if upper else step >= last
    inside = jnp.log(_pick(cumulated, jnp.clip(jnp.nan_to_num(step), 0, last)))
    inside = jnp.where(jnp.isnan(y), jnp.nan, inside)
    return jnp.where(
        under, 0.0 if upper else -jnp.inf, jnp.where(over, -jnp.inf if upper else 0.0, inside)
    )


def _categorical_quantile(p: NamedParams, q: Array) -> Array:
    cumulated = jnp.cumsum(p["probs"], axis=-1)[..., :-1]
    return jnp.sum(
        jnp.broadcast_to(cumulated, (*q.shape, cumulated.shape[-1])) < q[..., None], axis=-1
    ).astype(q.dtype)


def _categorical_guess(y: Array, known: NamedParams) -> NamedParams:
    """The shares of the codes 0, …, max y, with half an observation added to each."""
    if is_traced(y):
        raise ValueError(
            "categorical cannot count the categories of traced data: give params0={'probs': "
            "np.full(k, 1 / k)}"
        )
    y, xp = values(y)
    codes = xp.clip(y, 0, None).astype(int)
    count = xp.bincount(codes, length=None) if xp is jnp else xp.bincount(codes)
    return {"probs": (count + 0.5) / (count + 0.5).sum()}


def _categorical_information(p: NamedParams) -> Array:
    return jnp.eye(p["probs"].shape[-1]) / p["probs"][..., None]


categorical = Family(
    "categorical",
    {"probs": simplex},
    Law(
        log_prob=_categorical_log_prob,
        log_cdf=partial(_categorical_tail, upper=False),
        log_sf=partial(_categorical_tail, upper=True),
        quantile=_categorical_quantile,
        sample=lambda p, key, shape: jax.random.categorical(key, jnp.log(p["probs"]), shape=shape),
        support=lambda p: (0.0, p["probs"].shape[-1] - 1.0),
        guess=_categorical_guess,
        information=_categorical_information,
    ),
    discrete=True,
)
document(
    categorical,
    """Codes 0, …, k − 1 with probabilities ``probs`` (k,), or (n, k) row by row: R ``dmultinom``
    of size 1. Mean and variance of a code mean nothing. Its information is that of k free
    entries, 1/probs on the diagonal; a fit's lies in the simplex.
    """,
)
