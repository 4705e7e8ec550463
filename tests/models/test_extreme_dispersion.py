"""Densities at every dispersion, from 1e-12 to 1e12: values, first and second derivatives against mpmath.

Towards the binomial, the multinomial, the Poisson and the normal a density is a small difference of large gamma functions.
"""

import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from jaxmle import families, special
from jaxmle.models import continuous, counts
from tests.special.oracle import assert_close, derivatives

POINTS = 60
DIGITS = 90
STEP = mp.mpf(10) ** -18  # of differences with 90 digits: they are right to 1e-36
gammaln = mp.loggamma


def negative_binomial(k, mean, alpha):
    size = 1 / alpha
    gammas = gammaln(k + size) - gammaln(size) - gammaln(k + 1)
    return gammas + k * mp.log(mean / (size + mean)) - size * mp.log1p(mean / size)


def negative_binomial_of_log_mean(k, log_mean, alpha):
    return negative_binomial(k, mp.exp(log_mean), alpha)


def hurdle(k, log_mean, alpha):
    """Of a positive count."""
    empty = mp.log1p(alpha * mp.exp(log_mean)) / alpha
    return negative_binomial_of_log_mean(k, log_mean, alpha) - mp.log(-mp.expm1(-empty))


def dirichlet_multinomial(y, concentration):
    n, total = sum(y), sum(concentration)
    cells = sum(
        gammaln(a + k) - gammaln(a) - gammaln(k + 1) for a, k in zip(concentration, y, strict=True)
    )
    return gammaln(n + 1) + cells - gammaln(total + n) + gammaln(total)


def beta(y, a, b):
    gammas = gammaln(a + b) - gammaln(a) - gammaln(b)
    return gammas + (a - 1) * mp.log(y) + (b - 1) * mp.log(1 - y)


def beta_of_logit(y, logit, phi):
    mean = 1 / (1 + mp.exp(-logit))
    return beta(y, mean * phi, (1 - mean) * phi)


def gamma_of_log_mean(y, log_mean, shape):
    rate = shape * mp.exp(-log_mean)
    return shape * mp.log(rate) - gammaln(shape) + (shape - 1) * mp.log(y) - rate * y


def model_count(k, log_mu, alpha):
    kernel = special.counts.negative_binomial_kernel(k, log_mu, alpha)
    return kernel + special.counts.negative_binomial_dispersion_part(k, alpha)


def model_hurdle(k, log_mu, alpha):
    eta = {"log_mu": log_mu, "alpha": alpha, "cross": jnp.zeros(())}
    dispersion_part = special.counts.negative_binomial_dispersion_part(k, alpha)
    return counts._hurdle_negative_binomial(eta, {"y": k}) + jnp.log(2.0) + dispersion_part


def family(of, *names):
    """The log probability of a family as a function of y and its parameters."""
    return lambda y, *values: of.law.log_prob(dict(zip(names, values, strict=True)), y)


def family_of_cells(x, y, z, a, b, c):
    concentration = {"concentration": jnp.stack([a, b, c])}
    return families.dirichlet_multinomial.law.log_prob(concentration, jnp.stack([x, y, z]))


def arguments(name):
    """The data and parameters at which a density is looked at, (POINTS,) each."""
    rng = np.random.default_rng(7)
    dispersion = 10 ** np.linspace(-12, 12, POINTS)
    k = np.floor(10 ** rng.uniform(0, 2.5, POINTS)) - 1
    failures = np.floor(10 ** rng.uniform(0, 2.5, POINTS)) - 1
    mean = (k + 0.5) * np.exp(rng.normal(size=POINTS))
    share = rng.uniform(0.02, 0.98, POINTS)
    first, second = share * dispersion, (1 - share) * dispersion
    away = rng.normal(size=POINTS) * np.minimum(1, dispersion**-0.5)  # as far as data are
    centre = rng.normal(size=POINTS)
    if name in ("negative_binomial", "negative_binomial_1"):
        return k, mean, dispersion
    if name == "model_negative_binomial":
        return k, np.log(mean), dispersion
    if name == "model_hurdle":
        return k + 1, np.log(mean + 1), dispersion
    if name == "beta_binomial":
        return k, k + failures, first, second
    if name == "dirichlet_multinomial":
        return k, failures, k, first, second, dispersion
    if name == "beta":
        return rng.uniform(0.01, 0.99, POINTS), first, second
    if name == "model_beta":
        return 1 / (1 + np.exp(-centre - away)), centre, dispersion
    return np.exp(centre + away), centre, dispersion


# ours, the plain one, how many arguments are data; relative errors of values, first and second derivatives
CLOSE = (1e-13, 1e-13, 1e-11)
# the kernel of the models leaves the dispersion_part of the counts apart, which agrees with it in its first digits
APART = (1e-12, 1e-11, 1e-10)
# a logit known to an ulp leaves √φ ulps of the distance between it and that of y
NEAR_THE_MEAN = (1e-11, 1e-12, 1e-7)
DENSITIES = {
    "negative_binomial": (
        family(families.negative_binomial, "mean", "dispersion"),
        negative_binomial,
        1,
        CLOSE,
    ),
    "negative_binomial_1": (
        family(families.negative_binomial_1, "mean", "dispersion"),
        lambda k, mean, delta: negative_binomial(k, mean, delta / mean),
        1,
        CLOSE,
    ),
    "beta_binomial": (
        lambda y, trials, a, b: family(families.beta_binomial, "shape1", "shape2", "trials")(
            y, a, b, trials
        ),
        lambda y, trials, a, b: dirichlet_multinomial([y, trials - y], [a, b]),
        2,
        CLOSE,
    ),
    "dirichlet_multinomial": (
        family_of_cells,
        lambda x, y, z, a, b, c: dirichlet_multinomial([x, y, z], [a, b, c]),
        3,
        CLOSE,
    ),
    "beta": (family(families.beta, "shape1", "shape2"), beta, 1, CLOSE),
    "model_negative_binomial": (model_count, negative_binomial_of_log_mean, 1, APART),
    "model_hurdle": (model_hurdle, hurdle, 1, APART),
    "model_beta": (
        lambda y, logit, phi: continuous.beta_logpdf({"eta": logit, "phi": phi}, {"y": y}),
        beta_of_logit,
        1,
        NEAR_THE_MEAN,
    ),
    "model_gamma": (
        lambda y, eta, shape: continuous.gamma_logpdf({"log_mu": eta, "shape": shape}, {"y": y}),
        gamma_of_log_mean,
        1,
        (1e-11, 1e-13, 1e-11),
    ),
}


def exact_derivatives(function, row, known):
    """Value, gradient and upper Hessian in the arguments after the ``known`` first ones, by differences."""
    x = [mp.mpf(float(v)) for v in row]
    steps = [abs(v) * STEP if v else STEP for v in x[known:]]
    d = len(steps)

    def at(*moves):
        shifted = [v + m * h for v, m, h in zip(x[known:], moves, steps, strict=True)]
        return function(*x[:known], *shifted)

    unit = np.eye(d, dtype=int)
    gradient = [(at(*e) - at(*-e)) / (2 * h) for e, h in zip(unit, steps, strict=True)]
    hessian = [
        (at(*(e + f)) - at(*(e - f)) - at(*(f - e)) + at(*(-e - f))) / (4 * steps[i] * steps[j])
        for i, e in enumerate(unit)
        for j, f in enumerate(unit)
        if i <= j
    ]
    return [float(v) for v in [at(*[0] * d), *gradient, *hessian]]


@pytest.mark.parametrize("name", DENSITIES)
def test_nothing_cancels_at_any_dispersion(name):
    ours, plain, known, tolerance = DENSITIES[name]
    row = arguments(name)
    with mp.workdps(DIGITS):
        exact = np.array(
            [exact_derivatives(plain, point, known) for point in zip(*row, strict=True)]
        )
    found = derivatives(ours, row, tuple(range(known, len(row))))
    assert_close(found, exact, row[known:], tolerance)
