"""The textbook likelihoods that the tests share, each written as a user would write it: ``loglik(params, data)``, a term for each row.

A test whose point is how a likelihood is written (over a closure, a bare vector, a cancelling form) keeps its own.
"""

import jax.numpy as jnp
from jax.scipy.special import gammaln, log_ndtr, logsumexp
from jax.scipy.stats import norm

# ---------------------------------------------------------------- regressions: data are {"x": (n, p), "y": (n,)}


def logit(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


def probit(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * log_ndtr(eta) + (1 - data["y"]) * log_ndtr(-eta)


def poisson(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.exp(eta) - gammaln(data["y"] + 1)


def poisson_kernel(params, data):
    """Without log y!, which does not depend on the parameters."""
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.exp(eta)


def normal_regression(params, data):
    """By z, whose square overflows later than sigma's."""
    z = (data["y"] - data["x"] @ params["beta"]) / params["sigma"]
    return -0.5 * z**2 - jnp.log(params["sigma"]) - 0.5 * jnp.log(2 * jnp.pi)


def normal_regression_kernel(params, data):
    """Without ½ log 2π."""
    z = (data["y"] - data["x"] @ params["beta"]) / params["sigma"]
    return -0.5 * z**2 - jnp.log(params["sigma"])


def multinomial_intercepts(params, data):
    """Classes 0, 1, … by their log odds against class 0."""
    eta = jnp.concatenate([jnp.zeros(1, params["mu"].dtype), params["mu"]])
    return jnp.take(eta, data["y"].astype(int)) - logsumexp(eta)


# ---------------------------------------------------------------- samples: data are y, (n,)


def normal(params, y):
    return norm.logpdf(y, params["mu"], params["sigma"])


def normal_kernel(params, y):
    """Without ½ log 2π."""
    return -0.5 * ((y - params["mu"]) / params["sigma"]) ** 2 - jnp.log(params["sigma"])


def cauchy(params, y):
    """Without log π."""
    return -jnp.log1p((y - params["centre"]) ** 2)


def normal_beside_background(params, y):
    """One normal component beside N(0, 9): its likelihood is infinite at each observation as sigma goes to zero."""
    z = (y - params["mu"]) / params["sigma"]
    return jnp.logaddexp(-0.5 * z**2 - jnp.log(params["sigma"]), -0.5 * (y / 3) ** 2 - jnp.log(3.0))


def multinomial(params, counts):
    """Counts (n, k) of the categories, by their probabilities."""
    return counts @ jnp.log(params["p"])
