"""Residuals against statsmodels and their laws under the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from scipy import stats

from jaxmle import models
from jaxmle.inference.diagnostics.residuals import (
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
    with pytest.raises(ValueError, match=r"arrays of the same shape; got y \(3, 1\), mean \(3,\)"):
        pearson_residuals(np.ones((3, 1)), np.ones(3), 1.0)
    with pytest.raises(TypeError, match="mean must be numbers"):
        pearson_residuals([1.0], ["a"], [1.0])
    with pytest.raises(ValueError, match="give only one of them"):
        quantile_residuals([0.5], [0.4], sf=[0.5])
    with pytest.raises(TypeError, match="random key"):
        pit([0.5], [0.4], key="a")
    assert np.array_equal(np.isnan(pit([0.5, -0.1, 1.2, np.nan])), [False, True, True, True])
    assert np.isnan(pit([0.4], [0.5])[0])


# ---------------------------------------------------------------- of models whose responses are known in part

SIZE = 6000
DESIGN = np.column_stack([np.ones(SIZE), RNG.normal(size=SIZE)])
AT = {"beta": np.array([0.5, 0.3]), "scale": 0.7}
ERRORS = {
    "weibull": np.log(RNG.exponential(size=SIZE)),
    "lognormal": RNG.normal(size=SIZE),
    "loglogistic": RNG.logistic(size=SIZE),
}


def lives(law):
    """Times that are seen exactly, right and left censored, between two visits, and of late entrants."""
    time = np.exp(DESIGN @ AT["beta"] + AT["scale"] * ERRORS[law])
    end, entry = (
        RNG.uniform(0.0, 6.0, SIZE),
        np.where(RNG.random(SIZE) < 0.4, RNG.random(SIZE), 0.0),
    )
    visit = np.floor(4 * time) / 4
    draw = RNG.random(SIZE)
    kind = np.where(time > end, 0, 1)
    kind = np.where((kind == 1) & (draw < 0.2) & (visit > entry), 3, kind)
    kind = np.where((kind == 1) & (draw > 0.9) & (entry == 0), 2, kind)
    seen = np.select([kind == 0, kind == 2, kind == 3], [end, 1.5 * time, visit], time)
    data = {"x": DESIGN, "time": seen, "event": kind, "entry": entry, "upper": visit + 0.25}
    kept = (time > entry) & (seen > entry)
    return {name: leaf[kept] for name, leaf in data.items()}


def assert_standard_normal(found):
    """Mean, SD and Kolmogorov's distance, within four standard errors; its 99.9 % point is 1.95/√n."""
    n = len(found)
    assert abs(found.mean()) < 4 / np.sqrt(n)
    assert abs(found.std() - 1) < 4 / np.sqrt(2 * n)
    assert stats.kstest(found, "norm").statistic < 1.95 / np.sqrt(n)


@pytest.mark.parametrize("law", ERRORS)
def test_quantile_residuals_of_censored_and_late_times_are_standard_normal(law):
    data, model = lives(law), models.aft(law, entry="entry", upper="upper")
    assert set(data["event"]) == {0, 1, 2, 3}
    assert_standard_normal(model.residuals(AT, data, "quantile", key=jax.random.key(3)))


def test_quantile_residuals_of_a_response_at_its_limits_are_standard_normal():
    y = np.clip(DESIGN @ [0.5, 1.0] + 1.2 * RNG.normal(size=SIZE), 0.0, 2.0)
    model, data = models.tobit(lower=0.0, upper=2.0), {"x": DESIGN, "y": y}
    params = {"beta": np.array([0.5, 1.0]), "sigma": 1.2}
    assert_standard_normal(model.residuals(params, data, "quantile", key=jax.random.key(4)))
    with pytest.raises(ValueError, match=f"{np.sum((y <= 0) | (y >= 2))} rows .* key"):
        model.residuals(params, data, "quantile")
    recorded = model.residuals(params, data, "pearson")  # against the mean of what is recorded
    assert abs(recorded.mean()) < 4 / np.sqrt(SIZE)


def test_residuals_of_exact_times_need_no_key_and_keep_both_tails():
    z = np.array([-9.0, -1.0, 0.0, 2.0, 9.0])
    data = {"x": np.ones((5, 1)), "time": np.exp(z), "event": np.ones(5)}
    params = {"beta": np.zeros(1), "scale": 1.0}
    found = models.aft("lognormal").residuals(params, data, "quantile")
    assert_allclose(found, z, rtol=1e-12)


@pytest.mark.parametrize("kind", ["response", "pearson"])
def test_residuals_against_the_mean_refuse_censored_rows(kind):
    data = {"x": np.ones((4, 1)), "time": np.ones(4), "event": np.array([1, 0, 0, 1])}
    with pytest.raises(ValueError, match="but 2 rows are censored .* kind='quantile'"):
        models.aft("exponential").residuals({"beta": np.zeros(1)}, data, kind)
    exact = {**data, "event": np.ones(4)}
    found = models.aft("exponential").residuals({"beta": np.zeros(1)}, exact, kind)
    assert_allclose(found, 0.0, atol=1e-13)


@pytest.mark.parametrize("sf", [[0.8, 0.3], np.ones((3, 1)), np.ones((2, 3)), []])
def test_an_upper_tail_of_another_shape_is_refused_and_was_broadcast(sf):
    with pytest.raises(ValueError, match="arrays of the same shape; got cdf"):
        quantile_residuals([0.2, 0.7, 0.9], sf=sf)


def test_an_upper_tail_that_is_none_of_this_distribution_function_gives_nan():
    found = quantile_residuals([0.2, 0.7, 0.5, 0.9], sf=[0.8, 0.7, np.nan, -0.1])
    assert_allclose(found, [stats.norm.ppf(0.2), np.nan, np.nan, np.nan])
