"""Good samples are CONVERGED, every one: ten thousand of each model and form, all but a few hundred of each in ``make test-all`` only."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from jax.scipy.stats import norm
from scipy import special

import jaxmle as jm
from jaxmle import Status, models

FEW = 300
MANY = 10_000


def draws(count):
    """A generator and how many samples to draw."""
    return np.random.default_rng(19), count


def overlapping(x, y):
    """Which samples of one covariate are not separated: each class reaches beyond the nearest value of the other."""
    low = [np.where(y == k, x, np.inf).min(1) for k in (0, 1)]
    high = [np.where(y == k, x, -np.inf).max(1) for k in (0, 1)]
    return (low[1] < high[0]) & (low[0] < high[1])


def logistic_samples(count):
    rng, count = draws(count)
    x = rng.normal(size=(count, 40))
    y = (rng.random((count, 40)) < special.expit(0.3 + x)).astype(float)
    good = overlapping(x, y)
    return x[good], y[good]


def logistic_terms(t, d):
    eta = t[0] + t[1] * d[0]
    return d[1] * eta - jnp.logaddexp(0.0, eta)


def logistic(count):
    return logistic_terms, np.zeros(2), logistic_samples(count), None


def logistic_in_a_scalar(count):
    return lambda t, d: jnp.sum(logistic_terms(t, d)), np.zeros(2), logistic_samples(count), None


def ready_logistic(count):
    x, y = logistic_samples(count)
    return models.logistic(), None, {"x": np.stack([np.ones_like(x), x], -1), "y": y}, None


def normal(count):
    rng, count = draws(count)
    y = rng.normal(3, 2, size=(count, 15))
    return lambda t, y: norm.logpdf(y, t[0], jnp.exp(t[1])), np.zeros(2), y, None


def declared_normal(count):
    y = normal(count)[2]
    start = {"mu": 0.0, "sigma": 1.0}
    constraints = {"sigma": jm.positive}
    return lambda p, y: norm.logpdf(y, p["mu"], p["sigma"]), start, y, constraints


def weibull(count):
    rng, count = draws(count)
    y = 2 * rng.weibull(1.5, size=(count, 10))

    def terms(t, y):
        log = jnp.log(y) - t[0]
        return t[1] - t[0] + jnp.expm1(t[1]) * log - jnp.exp(jnp.exp(t[1]) * log)

    return terms, np.zeros(2), y, None


def gamma(count):
    rng, count = draws(count)
    y = rng.gamma(2.0, 1.0, size=(count, 20))

    def terms(t, y):
        shape = jnp.exp(t[0])
        return shape * t[1] + (shape - 1) * jnp.log(y) - jnp.exp(t[1]) * y - gammaln(shape)

    return terms, np.zeros(2), y, None


def poisson(count):
    rng, count = draws(count)
    x = rng.normal(size=(count, 40))
    y = rng.poisson(np.exp(0.5 + 0.5 * x)).astype(float)
    return (
        lambda t, d: d[1] * (t[0] + t[1] * d[0]) - jnp.exp(t[0] + t[1] * d[0]),
        np.zeros(2),
        (x, y),
        None,
    )


def negative_binomial(count):
    """By differences of log-gamma functions; samples half as dispersed again as Poisson ones."""
    rng, count = draws(count)
    y = rng.negative_binomial(1, 0.2, size=(count, 100)).astype(float)
    y = y[y.var(1) > 1.5 * y.mean(1)]

    def terms(t, y):
        size = jnp.exp(t[1])
        total = jnp.logaddexp(t[0], t[1])
        gammas = gammaln(y + size) - gammaln(size)
        return gammas + size * (t[1] - total) + y * (t[0] - total)

    return terms, np.zeros(2), y, None


def correlation(count):
    rng, count = draws(count)
    x = rng.normal(size=(count, 30))
    y = 0.5 * x + np.sqrt(0.75) * rng.normal(size=(count, 30))

    def terms(t, d):
        left = 1 - jnp.tanh(t[0]) ** 2
        square = d[0] ** 2 - 2 * jnp.tanh(t[0]) * d[0] * d[1] + d[1] ** 2
        return -0.5 * jnp.log(left) - square / (2 * left)

    return terms, np.zeros(1), (x, y), None


MODELS = (
    logistic,
    logistic_in_a_scalar,
    ready_logistic,
    normal,
    declared_normal,
    weibull,
    gamma,
    poisson,
    negative_binomial,
    correlation,
)
BY_MODEL = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)


def alarms(model, count):
    loglik, start, data, constraints = model(count)
    fits = jm.fit_batch(loglik, start, data, constraints=constraints, progress=False)
    return np.flatnonzero(np.asarray(fits.status) != int(Status.CONVERGED))


@pytest.mark.parametrize("model", [logistic_in_a_scalar, weibull, negative_binomial])
def test_a_few_hundred_good_samples_are_converged(model):
    assert not len(alarms(model, FEW))


@pytest.mark.thorough
@BY_MODEL
def test_ten_thousand_good_samples_are_converged(model):
    assert not len(alarms(model, MANY))
