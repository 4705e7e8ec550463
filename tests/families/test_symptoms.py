"""Symptoms that users of made families met: draws, quantiles and moments against scipy's sums."""

import jax
import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from jaxmle import families as jf
from tests import tolerances

SHARES = np.array([0.1, 0.5, 0.95, 0.97, 0.99, 0.999])


def test_counts_truncated_far_in_a_tail_are_not_all_the_first_one():
    family, params = jf.truncated(jf.poisson, low=50), {"rate": 2.0}
    counts = np.arange(51, 90)
    mass = stats.poisson.pmf(counts, 2.0)
    cdf = np.cumsum(mass / mass.sum())
    assert_array_equal(family.quantile(params, SHARES), counts[np.searchsorted(cdf, SHARES)])
    draws = family.sample(params, 1, (10_000,))
    # five standard errors of a share
    assert_allclose(np.mean(draws == 52), mass[1] / mass.sum(), atol=5 * np.sqrt(0.037 / 10_000))


def test_counts_truncated_above_do_not_pass_their_end():
    family = jf.truncated(jf.poisson, high=3.5)
    mass = stats.poisson.pmf(np.arange(4), 50.0)
    shares = np.array([1e-3, 0.05, 0.5, 1 - 1e-12])
    wanted = np.searchsorted(np.cumsum(mass / mass.sum()), shares)
    assert_array_equal(family.quantile({"rate": 50.0}, shares), wanted)


@pytest.mark.parametrize("rate", [1e-30, 1e-17, 1e-15, 1e-3, 50.0])
def test_a_hurdle_of_rare_counts_draws_no_astronomical_number(rate):
    family, params = jf.hurdle(jf.poisson), {"rate": rate, "zero": 0.2}
    counts = np.arange(200)
    mass = np.where(counts > 0, 0.8 * stats.poisson.pmf(counts, rate) / -np.expm1(-rate), 0.2)
    # a quantile at a step of F is not asked for
    wanted = np.searchsorted(np.cumsum(mass), SHARES - 1e-9)
    assert_array_equal(family.quantile(params, SHARES - 1e-9), wanted)
    assert family.sample(params, 1, (1000,)).max() <= 120


def test_the_tails_of_a_hurdle_of_rare_counts_are_those_of_one():
    family, params = jf.hurdle(jf.poisson), {"rate": 1e-8, "zero": 0.5}
    # P(Y > 1) = ½ (rate/2 − rate²/6 + …), P(Y > 2) = ½ (rate²/6 − …)
    wanted = np.log1p(-0.5 * np.array([5e-9 - 1e-16 / 6, 1e-16 / 6]))
    assert_allclose(family.log_cdf(params, np.array([1.0, 2.0])), wanted, rtol=1e-7)


def test_truncated_components_of_a_mixture_keep_their_own_ends():
    mixture = jf.mixture(jf.truncated(jf.poisson, low=0), jf.truncated(jf.poisson, low=5))
    params = {"weights": np.array([0.5, 0.5]), "components": ({"rate": 2.0}, {"rate": 8.0})}
    y = np.arange(1, 40)
    first = stats.poisson.pmf(y, 2.0) / stats.poisson.sf(0, 2.0)
    second = np.where(y > 5, stats.poisson.pmf(y, 8.0) / stats.poisson.sf(5, 8.0), 0.0)
    wanted = 0.5 * (first + second)
    assert_allclose(np.exp(mixture.log_prob(params, y)), wanted, rtol=tolerances.ROUNDING_OF_A_SUM)
    assert_array_equal(
        mixture.quantile(params, SHARES), y[np.searchsorted(np.cumsum(wanted), SHARES)]
    )
    start = mixture.start(np.array([1.0, 1.0, 2.0, 7.0, 8.0, 9.0]))
    assert start["components"][1]["rate"] > start["components"][0]["rate"]


def test_a_constant_that_components_share_is_still_given_with_the_data():
    mixture = jf.mixture(jf.binomial, jf.binomial)
    params = {"weights": np.array([0.3, 0.7]), "components": ({"prob": 0.1}, {"prob": 0.6})}
    terms = mixture(params, {"y": np.array([2.0]), "trials": np.array([9.0])})
    wanted = np.log(0.3 * stats.binom.pmf(2, 9, 0.1) + 0.7 * stats.binom.pmf(2, 9, 0.6))
    assert_allclose(terms, wanted, rtol=tolerances.ROUNDING_OF_A_SUM)


@pytest.mark.parametrize("size", [None, 1, 2, 3])
def test_quantiles_of_a_mixture_have_the_shape_of_the_levels(size):
    mixture = jf.mixture(jf.normal, jf.normal)
    params = {
        "weights": np.array([0.25, 0.75]),
        "components": ({"loc": 0.0, "scale": 1.0}, {"loc": 4.0, "scale": 2.0}),
    }
    levels = np.array(0.3) if size is None else np.linspace(0.1, 0.9, size)
    found = mixture.quantile(params, levels)
    assert np.shape(found) == levels.shape
    cdf = 0.25 * stats.norm.cdf(found) + 0.75 * stats.norm.cdf(found, 4.0, 2.0)
    assert_allclose(cdf, levels, rtol=1e-12)
    slope = jax.grad(lambda w: mixture.quantile({**params, "weights": w}, 0.3))(params["weights"])
    assert np.isfinite(slope).all()


def test_the_variance_of_a_mixture_does_not_depend_on_where_it_lies():
    mixture = jf.mixture(jf.normal, jf.normal)
    for shift in (0.0, 1e7, 1e9):  # exact in float64
        components = ({"loc": shift, "scale": 1.0}, {"loc": shift + 4.0, "scale": 1.0})
        params = {"weights": np.array([0.25, 0.75]), "components": components}
        assert_allclose(mixture.variance(params), 4.0, rtol=tolerances.ROUNDING_OF_A_SUM)


def test_what_a_truncated_family_lacks_its_zero_inflated_form_lacks_too():
    family = jf.zero_inflated(jf.truncated(jf.poisson, low=0))
    with pytest.raises(ValueError, match="zero-inflated truncated Poisson has no mean"):
        family.mean({"rate": 2.0, "zero": 0.5})


def test_the_variance_of_a_hurdle_of_large_counts_is_its_sum():
    family = jf.hurdle(jf.poisson)
    # f(0) = 0 here: (1 − z)(μ + z μ²)
    wanted = (1 - 1e-12) * (1e9 + 1e-12 * 1e18)
    found = family.variance({"rate": 1e9, "zero": 1e-12})
    assert_allclose(found, wanted, rtol=tolerances.ROUNDING_OF_A_SUM)


@pytest.mark.parametrize("df", [0.3, 3.0, 49.0, 51.0, 300.0, 1e5, 1e6, 1e9])
def test_the_information_of_large_degrees_of_freedom_is_not_negative(df):
    with mpmath.workdps(80):
        v = mpmath.mpf(df)
        first = (mpmath.psi(1, v / 2) - mpmath.psi(1, (v + 1) / 2)) / 4
        wanted = float(first - (v + 5) / (2 * v * (v + 1) * (v + 3)))
    params = {"df": df, "loc": 0.0, "scale": 2.0}
    found = jf.student_t.information(params)[0, 0]
    # 6e-13 of the direct form at 50: 1/(2ν²) against 7/(2ν⁴)
    assert_allclose(found, wanted, rtol=1e-11)
