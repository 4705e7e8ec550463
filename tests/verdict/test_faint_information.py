"""A mean near zero in units of 1e9 was called unidentified: a step as long as the coordinate, or one, does not change ℓ there. ℓ half a
standard error away does, and tells such information from rounding error. Right answers are closed forms.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from jax.scipy.stats import norm
from numpy.testing import assert_allclose

import jaxmle as jm

N = 200
UNITS = [1.0, 2.0**31, 1e12]
WITHIN_STDERR = 1e-6  # the distance of an estimate to the maximum, in standard errors


def centred(unit, columns=1):
    """Data whose mean is zero but for rounding, with correlated columns."""
    draws = np.random.default_rng(7).normal(size=(N, columns))
    draws = draws @ (np.eye(columns) + 0.5)
    draws = unit * (draws - draws.mean(axis=0))
    return draws[:, 0] if columns == 1 else draws


def vector(t, y):
    return norm.logpdf(y, t[0], jnp.exp(t[1]))


def scalar(t, y):
    return jnp.sum(vector(t, y))


def tree(p, y):
    return norm.logpdf(y, p["mean"], p["sd"])


def assert_mean(fit, y, stderr):
    """Converged at the mean, with this standard error."""
    assert fit.converged, fit.explain()
    assert_allclose(fit.x[0], y.mean(), atol=WITHIN_STDERR * stderr)
    assert_allclose(fit.se[0], stderr, rtol=1e-6)


@pytest.mark.parametrize("loglik", [vector, scalar])
@pytest.mark.parametrize("unit", UNITS)
def test_the_mean_of_centred_data_in_a_large_unit_is_identified(loglik, unit):
    y = centred(unit)
    for start in ([0.0, np.log(unit)], [0.0, np.log(unit) + 1.0], [unit, np.log(unit)]):
        assert_mean(jm.fit(loglik, np.array(start), y), y, y.std() / np.sqrt(N))


def test_and_so_it_is_from_a_start_in_another_unit():
    y = centred(2.0**31)
    assert_mean(jm.fit(vector, np.zeros(2), y), y, y.std() / np.sqrt(N))


@pytest.mark.parametrize("unit", UNITS)
def test_and_so_it_is_with_a_declared_standard_deviation(unit):
    y = centred(unit)
    fit = jm.fit(tree, {"mean": 0.0, "sd": unit}, y, constraints={"sd": jm.positive})
    assert_mean(fit, y, y.std() / np.sqrt(N))
    assert_allclose(fit.stderr["sd"], y.std() / np.sqrt(2 * N), rtol=1e-6)


@pytest.mark.parametrize("unit", UNITS)
def test_and_so_it_is_in_a_batch_and_under_a_trace(unit):
    y = centred(unit)
    members = [y, y[: N // 2] - y[: N // 2].mean(), y + unit]
    start = np.array([0.0, np.log(unit)])
    fits = jm.fit_batch(vector, start, members)
    for i, member in enumerate(members):
        assert_mean(fits[i], member, member.std() / np.sqrt(len(member)))
    with jax.enable_x64(True):
        stacked = jnp.asarray(np.stack([y, y + unit]))
        traced = jax.jit(jax.vmap(lambda y: jm.fit(vector, start, y)))(stacked)
    assert_allclose(traced.se[:, 0], y.std() / np.sqrt(N), rtol=1e-6)


@pytest.mark.parametrize("unit", UNITS)
def test_two_correlated_means_in_a_large_unit_keep_their_covariance(unit):
    def loglik(t, y):
        u = (y - t[None, :]) / unit
        return -0.5 * (jnp.sum(u * u, axis=1) - 1.6 * u[:, 0] * u[:, 1]) / (1 - 0.8**2)

    y = centred(unit, columns=2)
    fit = jm.fit(loglik, np.zeros(2), y)
    assert fit.converged, fit.explain()
    assert_allclose(fit.vcov, unit**2 / N * np.array([[1.0, 0.8], [0.8, 1.0]]), rtol=1e-6)


def test_the_slope_of_a_column_in_a_tiny_unit_keeps_its_standard_error_beside_the_intercept():
    generator = np.random.default_rng(1)
    unit = np.array([1.0, 1e-10])
    x = np.column_stack([np.ones(N), 2.0 + generator.normal(size=N)])
    y = generator.normal(size=N)
    y -= x @ np.linalg.solve(x.T @ x, x.T @ y)
    fit = jm.fit(lambda t, d: -0.5 * (d[1] - d[0] @ t) ** 2, np.zeros(2), (x * unit, y))
    assert fit.converged, fit.explain()
    assert_allclose(fit.vcov, np.linalg.inv(x.T @ x) / np.outer(unit, unit), rtol=1e-6)


ROUNDING = {
    "a factor that cancels": lambda t, y: norm.logpdf(
        y, t[0], jnp.exp(t[1] + t[2]) * jnp.exp(-t[2])
    ),
    "gamma functions": lambda t, y: (
        vector(t, y) + gammaln(t[2] + 2.0) - gammaln(t[2] + 1.0) - jnp.log(t[2] + 1.0)
    ),
}


@pytest.mark.parametrize("unit", [1.0, 2.0**31])
@pytest.mark.parametrize("name", ROUNDING)
def test_information_that_is_rounding_error_is_not_believed(name, unit):
    """Beside a mean in a large unit, too: nothing that is printed may be an estimate of what cancels."""
    y = centred(unit)
    for free in (0.7, 1.3, 0.2):
        fit = jm.fit(ROUNDING[name], np.array([0.0, np.log(unit), free]), y)
        # far out, where these gamma functions have lost their digits, ℓ seems to fall
        assert fit.verdict.name in ("UNIDENTIFIED", "SINGULAR"), fit.explain()
        assert np.isnan(fit.se[2])
        assert_allclose(fit.se[1], (2 * N) ** -0.5, rtol=1e-6)


@pytest.mark.parametrize("unit", [1.0, 2.0**31])
def test_a_parameter_that_the_likelihood_does_not_use_is_unidentified_in_any_unit(unit):
    y = centred(unit)
    fit = jm.fit(lambda t, y: vector(t, y) + 0.0 * t[2], np.array([0.0, np.log(unit), 1.0]), y)
    assert fit.verdict.name == "UNIDENTIFIED", fit.explain()
    assert np.isnan(fit.se[2])
    assert_allclose(fit.se[:2], [y.std() / np.sqrt(N), (2 * N) ** -0.5], rtol=1e-6)
