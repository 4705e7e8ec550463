"""Log probabilities of counts, Poisson, negative binomial and Dirichlet-multinomial, in the form
whose terms stay small when the counts are large.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxmle.special.beta import digamma_difference
from jaxmle.special.exponential import held_exp
from jaxmle.special.gamma import ARGUMENT_SHIFT, digamma, gammaln, real
from jaxmle.special.stirling import (
    HALF_LOG_2PI,
    excess,
    excess_quotient,
    horner,
    promote,
    stirling_error,
    stirling_series,
)

# Up to this dispersion Stirling's series gives the gamma functions of its reciprocal.
_NEAR_POISSON = 0.1


def log_factorial(k: ArrayLike) -> jax.Array:
    """log k!, elementwise, for integers; between integers it is the smooth log Γ(k + 1).

    Example:
        >>> print(round(float(log_factorial(10)), 4))
        15.1044
    """
    return gammaln(real(k) + 1)


def poisson_logpmf(k: ArrayLike, log_mean: ArrayLike) -> jax.Array:
    """log of the Poisson probability, kη − e^η − log k!, elementwise; arguments broadcast.

    From k = 10 on it is −½ log 2πk − Δ(k) − k(ε − log(1 + ε)), ε = (e^η − k)/k, Δ Stirling's error:
    for k = 10⁶ the plain form loses six digits. The derivative in η is k − e^η; the derivative in
    k, if k is floating, is η − ψ(k + 1).

    Args:
        k: counts ≥ 0 of integer or floating type; −inf if negative (a fraction gets the smooth
            continuation).
        log_mean: η, the log of the mean, as in a log link; −inf means mean 0.

    Returns:
        Value to 1e-14, derivatives to a few ulp, relative to max(|f|, |k ∂f/∂k| + |η ∂f/∂η|).

    Source: Loader 2000, "Fast and accurate computation of binomial probabilities".

    Example:
        >>> print(round(float(poisson_logpmf(3, 0.0)), 4))
        -2.7918
    """
    return _poisson(*promote(k, log_mean))


def negative_binomial_logpmf(k: ArrayLike, mu: ArrayLike, alpha: ArrayLike) -> jax.Array:
    """log of the NB2 probability with mean μ and variance μ + αμ², elementwise; arguments
    broadcast.

    log Γ(k + 1/α)/(Γ(1/α) k!) + k log(αμ/(1 + αμ)) − log(1 + αμ)/α. Size is 1/α; α = 0 is the
    Poisson distribution, an ordinary point: value and derivatives in α are finite there, ∂f/∂α =
    ((k − μ)² − k)/2. The terms are evaluated as differences that are smooth in α (see the source),
    so that nothing cancels at large size.

    Args:
        k: counts ≥ 0 of integer or floating type; −inf if negative.
        mu: mean > 0; at 0 all mass is on k = 0.
        alpha: dispersion ≥ 0; NaN below.

    Returns:
        Value to 1e-13, first derivatives to 1e-12, second in (μ, α) to 1e-10, relative to max(|f|,
        Σ|x ∂f/∂x|), for k up to 10⁶ and α from 0 to 10³; third derivatives are correct, without a
        stated accuracy. The derivative in k is that of the smooth continuation; its own derivatives
        lose digits for αμ > 10⁶.

    Source: Loader 2000, "Fast and accurate computation of binomial probabilities", with α for
    1/size.

    Example:
        >>> import jax
        >>> print(jax.grad(negative_binomial_logpmf, 2)(5, 2.0, 0.0))  # ((5 − 2)² − 5)/2
        2.0
    """
    return _negative_binomial(*promote(k, mu, alpha))


def negative_binomial_kernel(k: ArrayLike, log_mu: ArrayLike, alpha: ArrayLike) -> jax.Array:
    """k log μ − (k + 1/α) log(1 + αμ), elementwise: the part of ``negative_binomial_logpmf`` that
    the mean enters; smooth in α ≥ 0.

    Plain, so that a row costs an exponential and a logarithm. Together with
    ``negative_binomial_dispersion_part`` it gives the whole to 1e-15 (1 + k |log μ|).

    Args:
        k: counts ≥ 0.
        log_mu: log of the mean.
        alpha: dispersion ≥ 0; at 0 it is kη − e^η, the Poisson's.

    Source: the likelihood of Lawless 1987, Canadian Journal of Statistics 15, p. 209, parted at the
    mean.
    """
    return _kernel(*promote(k, log_mu, alpha))


def negative_binomial_dispersion_part(k: ArrayLike, alpha: ArrayLike) -> jax.Array:
    """log Γ(k + 1/α) − log Γ(1/α) + k log α − log k!, elementwise: the part that the mean does not
    enter; smooth in α ≥ 0.

    Σ log(1 + αj) over j < k, less log k! (Lawless 1987): up to α = 0.1 by Stirling's series in α,
    above by log-gamma functions.
    """
    k, alpha = promote(k, alpha)
    near = alpha <= _NEAR_POISSON
    few = jnp.where(near, alpha, 0.0)
    shares = (
        stirling_series(few / (1 + few * k)) - stirling_series(few) - 0.5 * jnp.log(1 + few * k)
    )
    size = 1 / jnp.where(near, 1.0, alpha)
    far = gammaln(k + size) - gammaln(size) - k * jnp.log(size)
    value = jnp.where(
        near,
        shares + k * jnp.log(1 + few * k) - k * few * k * excess_quotient(few * k, 1 + few * k),
        far,
    ) - gammaln(k + 1)
    return jnp.where(k == 0, 0.0, value)


@jax.custom_jvp
def _kernel(k: jax.Array, log_mu: jax.Array, alpha: jax.Array) -> jax.Array:
    mu = jnp.exp(log_mu)
    near, v, series, _ = _of_odds(alpha * mu)
    log_odds = jnp.log(1 + alpha * mu)
    return k * (log_mu - log_odds) - jnp.where(
        near, mu * (1 - v) * (1 + v * v * series), log_odds / jnp.where(near, 1.0, alpha)
    )


def _of_odds(odds: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Whether the odds t are small; then v = t/(2 + t) and (atanh v − v)/v³; else t itself, or
    1.
    """
    near = odds <= 0.25  # v ≤ 1/9: eight terms of the series leave 1e-16
    t = jnp.where(near, odds, 0.0)
    v = t / (2 + t)
    return near, v, horner(v * v, [1 / (2 * j + 3) for j in range(8)]), jnp.where(near, 1.0, odds)


def _deficit(odds: jax.Array) -> jax.Array:
    """(log(1 + t) − t/(1 + t))/t² at the odds t ≥ 0: ½ at 0."""
    near, v, series, t = _of_odds(odds)
    return jnp.where(
        near,
        0.5 * (1 - v) ** 2 * (1 / (1 + v) + v * series),
        (jnp.log(1 + t) - t / (1 + t)) / (t * t),
    )


@_kernel.defjvp
def _kernel_jvp(
    primals: tuple[jax.Array, jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    (k, log_mu, alpha) = primals
    (dk, dlog_mu, dalpha) = tangents
    odds = alpha * jnp.exp(log_mu)
    return _kernel(k, log_mu, alpha), (log_mu - jnp.log(1 + odds)) * dk + _kernel_in_mean(
        k, log_mu, alpha
    ) * dlog_mu + _kernel_in_alpha(k, log_mu, alpha) * dalpha


@jax.custom_jvp
def _kernel_in_mean(k: jax.Array, log_mu: jax.Array, alpha: jax.Array) -> jax.Array:
    mu = jnp.exp(log_mu)
    return (k - mu) / (1 + alpha * mu)


@_kernel_in_mean.defjvp
def _kernel_in_mean_jvp(
    primals: tuple[jax.Array, jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Each slope as one quotient: of a count of 0 at large odds, their sums would cancel."""
    (k, log_mu, alpha) = primals
    (dk, dlog_mu, dalpha) = tangents
    mu = jnp.exp(log_mu)
    odds = 1 + alpha * mu
    share = mu / (odds * odds)
    in_mean = -share * (1 + alpha * k)
    slope = in_mean * dlog_mu - share * (k - mu) * dalpha + dk / odds
    return _kernel_in_mean(k, log_mu, alpha), slope


@jax.custom_jvp
def _kernel_in_alpha(k: jax.Array, log_mu: jax.Array, alpha: jax.Array) -> jax.Array:
    mu = jnp.exp(log_mu)
    odds = alpha * mu
    return mu * (mu * _deficit(odds) - k / (1 + odds))


@_kernel_in_alpha.defjvp
def _kernel_in_alpha_jvp(
    primals: tuple[jax.Array, jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """The mixed derivative is that of the slope in the mean, whose terms do not cancel."""
    (k, log_mu, alpha) = primals
    (dk, dlog_mu, dalpha) = tangents
    mu = jnp.exp(log_mu)
    odds = alpha * mu
    mixed = -(k - mu) * mu / (1 + odds) ** 2
    _, in_alpha = jax.jvp(_deficit, (odds,), (mu,))
    curvature = mu * (mu * in_alpha + k * mu / (1 + odds) ** 2)
    value = _kernel_in_alpha(k, log_mu, alpha)
    return value, mixed * dlog_mu + curvature * dalpha - mu / (1 + odds) * dk


@jax.custom_jvp
def _poisson(k: jax.Array, log_mean: jax.Array) -> jax.Array:
    mean = held_exp(log_mean)
    many = k >= ARGUMENT_SHIFT
    up = jnp.where(many, k, float(ARGUMENT_SHIFT))
    epsilon = (mean - up) / up
    saddle = (
        -0.5 * jnp.log(up)
        - HALF_LOG_2PI
        - stirling_series(1 / up)
        - up * excess_of_log(epsilon, log_mean - jnp.log(up))
    )
    few = jnp.where(many, 0.0, k)
    plain = (
        jnp.where(few == 0, 0.0, few * jnp.where(few == 0, 0.0, log_mean))
        - mean
        - jnp.where((few == 0) | (few == 1), 0.0, gammaln(few + 1))
    )
    return jnp.where(k < 0, -jnp.inf, jnp.where(many, saddle, plain))


def excess_of_log(delta: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """δ − log(1 + δ), with log(1 + δ) given for the places where it is far from 0."""
    return jnp.where(jnp.abs(delta) <= (2 + delta) / 3, excess(delta, 1 + delta), delta - log_ratio)


@_poisson.defjvp
def _poisson_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (k, log_mean) = primals
    (dk, dlog_mean) = tangents
    in_k = jnp.where(jnp.isfinite(log_mean), log_mean, 0.0) - digamma(_count(k) + 1)
    return _poisson(k, log_mean), in_k * dk + (k - held_exp(log_mean)) * dlog_mean


@jax.custom_jvp
def _negative_binomial(k: jax.Array, mu: jax.Array, alpha: jax.Array) -> jax.Array:
    count = _count(k)
    some = count > 0
    up = jnp.where(some, count, 1.0)
    base = jnp.where(some, 0.5 * jnp.log(up) + HALF_LOG_2PI + stirling_error(1 / up), 0.0)
    value = (
        _dispersion_part(count, alpha) - base - 0.5 * negative_binomial_deviance(count, mu, alpha)
    )
    return jnp.where(k < 0, -jnp.inf, jnp.where(alpha < 0, jnp.nan, value))


def negative_binomial_deviance(k: jax.Array, mu: jax.Array, alpha: jax.Array) -> jax.Array:
    """2 (ℓ at the mean k − ℓ) for counts k ≥ 0, smooth in α ≥ 0: the Poisson's at 0."""
    odds = 1 + alpha * mu
    ratio = (1 + alpha * k) / odds
    distance = (k - mu) / odds
    some = k > 0
    up = jnp.where(some, k, 1.0)
    at_count = jnp.where(some, up * excess(-distance / up, mu * ratio / up), mu / odds)
    return 2 * (at_count + alpha * distance**2 * excess_quotient(alpha * distance, ratio))


def _count(k: jax.Array) -> jax.Array:
    """k where it is a count: the slope at 0 is that of the smooth continuation."""
    return jnp.where(k < 0, 0.0, k)


def _dispersion_part(k: jax.Array, alpha: jax.Array) -> jax.Array:
    """Δ(r + k) − Δ(r) − ½ log(1 + αk), r = 1/α: what depends on α and not on the mean."""
    return (
        stirling_error(alpha / (1 + alpha * k)) - stirling_error(alpha) - 0.5 * jnp.log1p(alpha * k)
    )


@_negative_binomial.defjvp
def _negative_binomial_jvp(
    primals: tuple[jax.Array, jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    (k, mu, alpha) = primals
    (dk, dmu, dalpha) = tangents
    return _negative_binomial(k, mu, alpha), _in_count(k, mu, alpha) * dk + _in_mean(
        k, mu, alpha
    ) * dmu + _in_alpha(k, mu, alpha) * dalpha


def _in_mean(k: jax.Array, mu: jax.Array, alpha: jax.Array) -> jax.Array:
    return jnp.where(k == 0, -1.0, (k - mu) / mu) / (1 + alpha * mu)


def _in_alpha(k: jax.Array, mu: jax.Array, alpha: jax.Array) -> jax.Array:
    """∂f/∂α: of the deviance, d²G(αd) with d = (k − μ)/(1 + αμ) and G(δ) = (δ − log(1 + δ))/δ²;
    and of the rest.
    """
    count = _count(k)
    distance = (count - mu) / (1 + alpha * mu)
    deviance = distance**2 * excess_quotient(
        alpha * distance, (1 + alpha * count) / (1 + alpha * mu)
    )
    _, rest = jax.jvp(lambda v: _dispersion_part(count, v), (alpha,), (jnp.ones_like(alpha),))
    return deviance + rest


def _in_count(k: jax.Array, mu: jax.Array, alpha: jax.Array) -> jax.Array:
    """∂f/∂k = ψ(k + r) − ψ(k + 1) + log(αμ/(1 + αμ)) for the smooth continuation in k, with
    ψ(z) − log z = −w/2 − w²s(w), w = 1/z, s the slope of Stirling's error.
    """
    count = _count(k)
    odds = 1 + alpha * mu
    share = alpha / (1 + alpha * count)
    many = count >= ARGUMENT_SHIFT
    up = jnp.where(many, count, float(ARGUMENT_SHIFT))
    large = (
        _log_ratio((mu - up) / (up * odds), mu * (1 + alpha * up) / (up * odds))
        - _digamma_gap(1 / up)
        - 1 / up
    )
    few = jnp.log(mu * (1 + alpha * count) / odds) - digamma(jnp.where(many, 0.0, count) + 1)
    return jnp.where(many, large, few) + _digamma_gap(share)


def _digamma_gap(w: jax.Array) -> jax.Array:
    """ψ(z) − log z at z = 1/w, 0 at w = 0."""
    return -0.5 * w - w * w * jax.jvp(stirling_error, (w,), (jnp.ones_like(w),))[1]


def _log_ratio(delta: jax.Array, ratio: jax.Array) -> jax.Array:
    near = jnp.abs(delta) < 0.5
    return jnp.where(
        near, jnp.log1p(jnp.where(near, delta, 0.0)), jnp.log(jnp.where(near, 1.0, ratio))
    )


def dirichlet_multinomial_logpmf(counts: ArrayLike, concentration: ArrayLike) -> jax.Array:
    """log of the Dirichlet-multinomial probability of counts (k, …) in k categories, which are on
    the **first** axis; the other axes broadcast.

    log n!/Πkⱼ! + Σ log Γ(aⱼ + kⱼ)/Γ(aⱼ) − log Γ(A + n)/Γ(A), n = Σkⱼ, A = Σaⱼ. With the pooled
    proportions Pⱼ = (aⱼ + kⱼ)/(A + n) its leading part is −Σ aⱼ log(πⱼ/Pⱼ) − Σ kⱼ log((kⱼ/n)/Pⱼ),
    πⱼ = aⱼ/A: sums of one sign once each term is written as the excess of δ over log(1 + δ), δ =
    Pⱼ/πⱼ − 1, which may be done since Σ aⱼδⱼ = 0. The rest are Stirling's errors. So nothing
    cancels as A grows towards the multinomial limit. Two categories give the beta-binomial.

    Args:
        counts: ≥ 0, (k, …).
        concentration: > 0, (k, …).

    Returns:
        Value to 1e-14 relative to |f|, or to 3e-14 absolutely if that is more; derivatives in the
        concentrations to 1e-13 of Σ aⱼ|ψ(aⱼ + kⱼ) − ψ(aⱼ)|. The derivative in the counts is that of
        the smooth continuation.

    Source: the form is that of Loader 2000, "Fast and accurate computation of binomial
    probabilities", for two deviances.

    Example:
        >>> import math
        >>> print(round(math.exp(dirichlet_multinomial_logpmf([1, 2], [1.0, 1.0])), 4))
        0.25
    """
    return _dirichlet_multinomial(*jnp.broadcast_arrays(*promote(counts, concentration)))


def _with_total(v: jax.Array) -> jax.Array:
    """The entries of the first axis, and behind them their sum."""
    return jnp.concatenate([v, jnp.sum(v, axis=0, keepdims=True)])


def _less_total(v: jax.Array) -> jax.Array:
    """The sum over the categories less the entry of the total, which stands last."""
    return jnp.sum(v[:-1], axis=0) - v[-1]


@jax.custom_jvp
def _dirichlet_multinomial(k: jax.Array, a: jax.Array) -> jax.Array:
    n = jnp.sum(k, axis=0, keepdims=True)
    total = jnp.sum(a, axis=0, keepdims=True)
    pooled = (a + k) / (total + n)
    shift = k * (total / (total + n)) - a * (n / (total + n))
    some = k > 0
    up = jnp.where(some, k, 1.0)
    of_shares = a * excess(shift / a, pooled * (total / a))
    of_counts = jnp.where(some, k * excess(-shift / up, pooled * (n / up)), -shift)
    return _less_total(_stirling_part(_with_total(k), _with_total(a))) - jnp.sum(
        of_shares + of_counts, axis=0
    )


def _stirling_part(k: jax.Array, a: jax.Array) -> jax.Array:
    """log Γ(a + k)/(Γ(a) k!) less (a + k) log(a + k) − a log a − k log k; 0 at k = 0."""
    some = k > 0
    up = jnp.where(some, k, 1.0)
    both, alone, count = stirling_error(1 / jnp.stack([a + up, a, up]))
    part = both - alone - count - 0.5 * jnp.log1p(up / a) - 0.5 * jnp.log(up) - HALF_LOG_2PI
    return jnp.where(some, part, 0.0)


def _dirichlet_multinomial_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (k, a) = primals
    (dk, da) = tangents
    value = _dirichlet_multinomial(k, a)
    moved = jnp.zeros_like(value)
    if not isinstance(da, SymbolicZero):
        moved += _less_total(digamma_difference(_with_total(a), _with_total(k)) * _with_total(da))
    if not isinstance(dk, SymbolicZero):
        both = _with_total(k)
        moved += _less_total((digamma(both + _with_total(a)) - digamma(both + 1)) * _with_total(dk))
    return value, moved


_dirichlet_multinomial.defjvp(_dirichlet_multinomial_jvp, symbolic_zeros=True)
