"""Ends of ridges and tails as people write them: what is not determined has no standard error, though the
search ended where the ridge does; a maximum that is weak beside its rounding is one; and rounding far out is
no growth.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import log_ndtr
from jax.scipy.stats import norm
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import Status

WITHIN_TAIL = 0.1  # standard errors: how far from its limit a tail may have been left


def errors_in_variables(theta, d):
    """Six parameters for five moments: mean, intercept, slope and three log variances."""
    mean, intercept, slope = theta[:3]
    true, measured, residual = jnp.exp(theta[3:])
    covariance = jnp.stack(
        [
            jnp.stack([true + measured, slope * true]),
            jnp.stack([slope * true, slope * slope * true + residual]),
        ]
    )
    error = jnp.stack([d["w"] - mean, d["y"] - intercept - slope * mean])
    root = jnp.linalg.cholesky(covariance)
    z = jax.scipy.linalg.solve_triangular(root, error, lower=True)
    return -0.5 * jnp.sum(z * z, 0) - jnp.log(jnp.diag(root)).sum() - jnp.log(2 * jnp.pi)


ENDS_OF_THE_RIDGE = [[3.0, 0, 0, 1, -4, -1], [0.0, 0, 1, 0, 0, 0], [3.0, 0, 0.5, 0, -1, -2]]


@pytest.mark.parametrize("start", ENDS_OF_THE_RIDGE)
def test_a_slope_had_a_standard_error_at_the_end_of_a_ridge(start):
    """Slopes from 0.570 to 1.005 have the same ℓ; at the first the variance of w's error is zero."""
    random = np.random.default_rng(11)
    x = random.normal(3, 1, 60)
    d = {"w": x + 0.5 * random.normal(size=60), "y": 1 + 0.8 * x + 0.5 * random.normal(size=60)}
    fit = jm.fit(errors_in_variables, np.array(start), d)
    assert fit.verdict == Status.UNIDENTIFIED, fit.explain()
    assert_allclose(fit.x[0], d["w"].mean(), rtol=1e-9)
    assert_allclose(fit.se[0], d["w"].std() / np.sqrt(60), rtol=1e-6)
    assert np.isnan(fit.se[1:]).all()
    moments = np.linalg.slogdet(np.cov(d["w"], d["y"], bias=True))[1]
    assert_allclose(fit.loglik, -60 * np.log(2 * np.pi) - 30 * moments - 60, rtol=1e-9)


def frontier(theta, d):
    """Normal errors less exponential inefficiencies, by the formula of the textbook."""
    error = d["y"] - theta[0] - theta[1] * d["x"]
    scale, mean = jnp.exp(theta[2]), jnp.exp(theta[3])
    tail = log_ndtr(-error / scale - scale / mean)
    return -theta[3] + error / mean + scale * scale / (2 * mean * mean) + tail


def test_a_frontier_of_the_wrong_skew_had_an_infinite_intercept():
    """The limit is least squares, from which rounding keeps the formula away: by how much, and hence
    the status, is a matter of the last digits.
    """
    random = np.random.default_rng(3)
    x = random.normal(size=60)
    y = 1 + 0.6 * x + 0.3 * random.normal(size=60) + random.exponential(0.4, 60)
    fit = jm.fit(frontier, np.zeros(4), {"x": x, "y": y})
    coefficients, rss = np.linalg.lstsq(np.c_[np.ones(60), x], y, rcond=None)[:2]
    sigma = np.sqrt(rss[0] / 60)
    stderr = sigma / np.sqrt(60)
    assert fit.verdict in (Status.SEPARATED, Status.IMPRECISE), fit.explain()
    assert abs(fit.x[0] - coefficients[0]) < WITHIN_TAIL * stderr
    assert_allclose(fit.x[1], coefficients[1], atol=WITHIN_TAIL * stderr)
    assert_allclose(fit.x[2], np.log(sigma), atol=WITHIN_TAIL / np.sqrt(120))


def asymptotic_regression(theta, d):
    mean = theta[0] + theta[1] * jnp.exp(-jnp.exp(theta[2]) * d["x"])
    return norm.logpdf(d["y"], mean, jnp.exp(theta[3]))


def test_rounding_far_along_a_tail_was_growth_without_bound():
    """The supremum is that of a straight line, at an amplitude of infinity."""
    x = np.linspace(0, 10, 12)
    noise = 0.3 * np.random.default_rng(11).normal(size=12)
    y = 500 - 500 * np.exp(-np.exp(-6.5) * x) + noise
    start = [13.167618325788458, -13.414230170781646, -0.1695673462921462, -0.35627744519011795]
    fit = jm.fit(asymptotic_regression, np.array(start), {"x": x, "y": y})
    rss = np.linalg.lstsq(np.c_[np.ones(12), x], y, rcond=None)[1][0]
    assert fit.verdict == Status.SEPARATED, fit.explain()
    assert_allclose(fit.loglik, -6 * np.log(2 * np.pi * rss / 12) - 6, atol=1e-4)


def saturation(theta, d):
    """Michaelis–Menten with raw parameters."""
    return norm.logpdf(d["y"], theta[0] * d["x"] / (theta[1] + d["x"]), jnp.exp(theta[2]))


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_a_weak_maximum_of_a_nearly_straight_curve_was_unidentified(seed):
    """The profile falls by 0.03 to both sides, and no further."""
    x = np.linspace(0, 10, 12) + 0.5
    y = 3e3 * x / (1e3 + x) + 0.5 * np.random.default_rng(seed).normal(size=12)
    fit = jm.fit(saturation, np.array([10.0, 10.0, 1.0]), {"x": x, "y": y})
    assert fit.verdict == Status.CONVERGED, fit.explain()
    assert np.isnan(fit.se[:2]).all()
    assert_allclose(fit.se[2], 1 / np.sqrt(24), rtol=1e-6)
