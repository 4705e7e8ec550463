"""Residuals against statsmodels and their laws under the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from scipy import stats

from jaxmle.inference.residuals import (
    deviance_residuals,
    pearson_residuals,
    pit,
    quantile_residuals,
)

RNG = np.random.default_rng(12)
MEAN = np.exp(RNG.normal(size=400) - 1.0)
COUNTS = RNG.poisson(MEAN).astype(float)


def test_pearson_and_deviance_residuals_are_those_of_statsmodels():
    family = sm.families.Poisson()
    assert_allclose(
        pearson_residuals(COUNTS, MEAN, MEAN), (COUNTS - MEAN) / np.sqrt(MEAN), rtol=1e-14
    )
    terms, saturated = stats.poisson.logpmf(COUNTS, MEAN), stats.poisson.logpmf(COUNTS, COUNTS)
    assert_allclose(
        deviance_residuals(COUNTS, MEAN, terms, saturated),
        family.resid_dev(COUNTS, MEAN),
        rtol=1e-7,
        atol=1e-12,
    )
    assert deviance_residuals(2.0, 2.0, -1.0, -1.0 - 1e-17) == 0
    assert np.isnan(deviance_residuals(2.0, 1.0, -1.0, -1.1))
    assert np.isnan(pearson_residuals([1.0], [0.5], [0.0])[0])


def test_randomised_quantile_residuals_are_normal_and_the_middle_ones_are_not():
    """Kolmogorov's distance of 400 residuals; its 99.9 % point is 1.95/√n."""
    cdf, below = stats.poisson.cdf(COUNTS, MEAN), stats.poisson.cdf(COUNTS - 1, MEAN)
    found = quantile_residuals(cdf, below, key=5)
    assert (
        stats.kstest(found, "norm").statistic
        < 1.95 / 20
        < stats.kstest(quantile_residuals(cdf, below), "norm").statistic
    )
    assert np.array_equal(found, quantile_residuals(cdf, below, key=jax.random.key(5)))
    u = pit(cdf, below, key=5)
    assert np.all((u >= below) & (u <= cdf))


def test_continuous_ones_are_the_normal_scores_in_both_tails():
    z = np.array([-12.0, -1.0, 0.0, 2.0, 12.0])
    assert_allclose(quantile_residuals(stats.norm.cdf(z), sf=stats.norm.sf(z)), z, rtol=1e-12)
    assert quantile_residuals([1.0])[0] == np.inf  # without sf the upper tail is lost


def test_under_a_trace():
    assert_allclose(
        jax.jit(lambda u: quantile_residuals(u))(jnp.array([0.5, 0.9])),
        stats.norm.ppf([0.5, 0.9]),
        atol=1e-6,
    )
    assert_allclose(
        jax.jit(pearson_residuals)(jnp.array([3.0]), jnp.array([1.0]), jnp.array([4.0])), [1.0]
    )


def test_bad_input():
    with pytest.raises(ValueError, match=r"arrays of one shape; got y \(3, 1\), mean \(3,\)"):
        pearson_residuals(np.ones((3, 1)), np.ones(3), 1.0)
    with pytest.raises(TypeError, match="mean must be numbers"):
        pearson_residuals([1.0], ["a"], [1.0])
    with pytest.raises(ValueError, match="give one of them"):
        quantile_residuals([0.5], [0.4], sf=[0.5])
    with pytest.raises(TypeError, match="random key"):
        pit([0.5], [0.4], key="a")
    assert np.array_equal(np.isnan(pit([0.5, -0.1, 1.2, np.nan])), [False, True, True, True])
    assert np.isnan(pit([0.4], [0.5])[0])
