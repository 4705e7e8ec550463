"""Log densities as a user writes them: elementwise `jax.numpy`, from the log gamma function and the like."""

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, i0e, log_ndtr
from jax.typing import ArrayLike

LOG_2PI = 1.8378770664093453  # log(2 pi)


def normal(x: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> jax.Array:
    """Log density of N(mean, sd²)."""
    return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) - 0.5 * LOG_2PI


def gamma(x: ArrayLike, shape: ArrayLike, rate: ArrayLike) -> jax.Array:
    """Log density of the gamma distribution."""
    return shape * jnp.log(rate) - gammaln(shape) + (shape - 1) * jnp.log(x) - rate * x


def beta(x: ArrayLike, a: ArrayLike, b: ArrayLike) -> jax.Array:
    """Log density of Beta(a, b)."""
    return gammaln(a + b) - gammaln(a) - gammaln(b) + (a - 1) * jnp.log(x) + (b - 1) * jnp.log1p(-x)


def student(x: ArrayLike, centre: ArrayLike, scale: ArrayLike, df: ArrayLike) -> jax.Array:
    """Log density of centre + scale T, T Student's t with df degrees of freedom."""
    z = (x - centre) / scale
    constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * jnp.log(df * jnp.pi) - jnp.log(scale)
    return constant - (df + 1) / 2 * jnp.log1p(z**2 / df)


def gev(x: ArrayLike, loc: ArrayLike, scale: ArrayLike, shape: ArrayLike) -> jax.Array:
    """Log density of the generalised extreme value distribution, shape not 0."""
    log_t = jnp.log1p(shape * (x - loc) / scale) / -shape
    return (1 + shape) * log_t - jnp.exp(log_t) - jnp.log(scale)


def gumbel(x: ArrayLike, loc: ArrayLike, scale: ArrayLike) -> jax.Array:
    """Log density of the Gumbel distribution of maxima."""
    z = (x - loc) / scale
    return -z - jnp.exp(-z) - jnp.log(scale)


def vonmises(x: ArrayLike, mu: ArrayLike, kappa: ArrayLike) -> jax.Array:
    """Log density of the von Mises distribution; i0e(k) = exp(-k) I0(k) does not overflow."""
    return kappa * (jnp.cos(x - mu) - 1) - jnp.log(i0e(kappa)) - LOG_2PI


def poisson(y: ArrayLike, log_mean: ArrayLike) -> jax.Array:
    """Log probability of a Poisson count."""
    return y * log_mean - jnp.exp(log_mean) - gammaln(y + 1)


def negative_binomial(y: ArrayLike, log_mean: ArrayLike, size: ArrayLike) -> jax.Array:
    """Log probability of a negative binomial count, variance mean + mean²/size."""
    log_size = jnp.log(size)
    log_total = jnp.logaddexp(log_size, log_mean)
    choose = gammaln(y + size) - gammaln(size) - gammaln(y + 1)
    return choose + size * (log_size - log_total) + y * (log_mean - log_total)


def bernoulli(y: ArrayLike, logit: ArrayLike) -> jax.Array:
    """Log probability of a 0/1 response."""
    return y * logit - jnp.logaddexp(0.0, logit)


def log_choose(n: ArrayLike, k: ArrayLike) -> jax.Array:
    """Log of the binomial coefficient."""
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def log_probabilities(link: str, eta: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """(log p, log(1 - p)) of a binary response with predictor eta under the link "logit", "probit" or "cloglog"."""
    if link == "logit":
        return -jnp.logaddexp(0.0, -eta), -jnp.logaddexp(0.0, eta)
    if link == "probit":
        return log_ndtr(eta), log_ndtr(-eta)
    hazard = jnp.exp(eta)
    return jnp.log(-jnp.expm1(-hazard)), -hazard
