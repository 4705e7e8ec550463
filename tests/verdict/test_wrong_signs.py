"""A log-likelihood of the wrong sign, as a first attempt often is: it has no maximum, and says so within a few dozen evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from jax.scipy.stats import t as student

import jaxmle as jm

MAX_STEPS_OF_A_WRONG_SIGN = 20
RNG = np.random.default_rng(0)
Y = RNG.normal(2.0, 1.5, 50)
X = RNG.normal(size=(50, 2))
COUNTS = RNG.poisson(3.0, 50) * 1.0
BINARY = (RNG.random(50) < 0.5) * 1.0


def squares_of_the_wrong_sign(t, y):
    return 0.5 * ((y - t[0]) * jnp.exp(-t[1])) ** 2 - t[1]


def negative_normal(t, y):
    return -norm.logpdf(y, t[0], jnp.exp(t[1]))


def negative_sum(t, y):
    return -jnp.sum(norm.logpdf(y, t[0], jnp.exp(t[1])))


def squared_errors(t, d):
    return (d[1] - d[0] @ t) ** 2


def negative_poisson(t, y):
    return jnp.exp(t[0]) - y * t[0]


def counts_added(t, y):
    return jnp.exp(t[0]) + y * t[0]


def negative_logit(t, d):
    return jax.nn.softplus(d[0] @ t) - d[1] * (d[0] @ t)


def negative_probit(t, d):
    return -norm.logcdf((2 * d[1] - 1) * (d[0] @ t))


def negative_student(t, y):
    return -student.logpdf(y, jnp.exp(t[2]), t[0], jnp.exp(t[1]))


def exponential_with_a_plus(t, y):
    return t[0] + jnp.exp(t[0]) * jnp.abs(y)


CASES = {
    "squares": (squares_of_the_wrong_sign, 2, Y),
    "normal": (negative_normal, 2, Y),
    "sum": (negative_sum, 2, Y),
    "least_squares": (squared_errors, 2, (X, Y)),
    "poisson": (negative_poisson, 1, COUNTS),
    "counts_added": (counts_added, 1, COUNTS),
    "logit": (negative_logit, 2, (X, BINARY)),
    "probit": (negative_probit, 2, (X, BINARY)),
    "student": (negative_student, 3, Y),
    "exponential": (exponential_with_a_plus, 1, Y),
}
IN_A_BATCH = ("squares", "counts_added", "student")
TRACED = ("squares",)


def is_unbounded_soon(fit):
    return fit.verdict == jm.Status.UNBOUNDED and int(fit.steps) <= MAX_STEPS_OF_A_WRONG_SIGN


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_sign_climbed_for_thousands_of_steps(name):
    loglik, size, data = CASES[name]
    fit = jm.fit(loglik, np.zeros(size), data, progress=False)
    assert is_unbounded_soon(fit), (fit.verdict.name, int(fit.steps))
    assert "heck the sign" in fit.explain()


@pytest.mark.parametrize("name", IN_A_BATCH)
def test_a_wrong_sign_climbed_for_thousands_of_steps_in_a_batch(name):
    loglik, size, data = CASES[name]
    starts = np.stack([np.zeros(size), np.full(size, 0.3)])
    data = jax.tree.map(lambda leaf: np.stack([leaf] * 2), data)
    fits = jm.fit_batch(loglik, starts, data, params_axis=0, progress=False)
    assert all(is_unbounded_soon(fits[i]) for i in range(2)), (fits.status, fits.steps)


@pytest.mark.parametrize("name", TRACED)
def test_a_wrong_sign_climbed_for_thousands_of_steps_under_jit(name):
    loglik, size, data = CASES[name]
    with jax.enable_x64(True):
        program = jax.jit(lambda start, y: jm.fit(loglik, start, y))
        fit = program(np.zeros(size), data)
    assert int(fit.status) == jm.Status.UNBOUNDED
    assert int(fit.steps) <= MAX_STEPS_OF_A_WRONG_SIGN


def test_a_log_likelihood_that_rises_far_above_zero_is_not_of_the_wrong_sign():
    """Data of 1e-9: from a scale of one ℓ rises from nearly nothing to twenty a row, over ground that curves upwards."""
    y = 1e-9 * RNG.normal(size=1000)
    fit = jm.fit(lambda t, y: norm.logpdf(y, t[0], jnp.exp(t[1])), np.zeros(2), y, progress=False)
    assert fit.converged
    assert abs(fit.params[1] - np.log(np.std(y))) < 1e-6
