"""Families ranked on one column."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from jaxmle.families import binomial, exponential, gamma, lognormal, normal, poisson
from jaxmle.inference.selection.best_family import best_family

Y = np.random.default_rng(4).gamma(1.5, 2.0, size=60)


@pytest.fixture(scope="module")
def ranking():
    families = [normal, gamma, exponential, lognormal]
    return best_family(Y, families, key=jax.random.key(0), replicates=99)


@pytest.fixture(scope="module")
def by_name(ranking):
    return {candidate.family.name: candidate for candidate in ranking.candidates}


def test_criteria_and_distances_are_those_of_scipy(by_name):
    shape, _, scale = stats.gamma.fit(Y, floc=0)
    loglik = stats.gamma.logpdf(Y, shape, scale=scale).sum()
    assert_allclose(by_name["gamma"].aicc, -2 * loglik + 4 + 12 / 57, rtol=1e-7)
    assert_allclose(
        by_name["gamma"].distance,
        stats.cramervonmises(Y, "gamma", (shape, 0, scale)).statistic,
        rtol=1e-5,
    )
    assert_allclose(
        by_name["normal"].distance,
        stats.cramervonmises(Y, "norm", (Y.mean(), Y.std())).statistic,
        rtol=1e-9,
    )
    assert_allclose(
        by_name["exponential"].tic,
        2 * len(Y) * (1 + np.log(Y.mean())) + 2 * Y.var() / Y.mean() ** 2,
        rtol=1e-9,
    )


def test_the_order_is_that_of_the_criterion_and_a_wrong_family_is_refused(ranking):
    values = [candidate.aicc for candidate in ranking.candidates]
    assert values == sorted(values)
    assert ranking.best is ranking.candidates[0].family
    assert "gamma" in str(ranking)
    assert "AICc" in str(ranking)


def fit_gamma(y):
    shape, _, scale = stats.gamma.fit(y, floc=0)
    return stats.gamma(shape, scale=scale)


def fit_normal(y):
    return stats.norm(y.mean(), y.std())


@pytest.mark.parametrize(("name", "estimate"), [("gamma", fit_gamma), ("normal", fit_normal)])
def test_a_p_value_is_that_of_a_bootstrap_by_scipy(name, estimate, by_name):
    """Both are shares of samples from the estimate whose distance, with the parameters estimated again, is as large."""
    replicates = by_name[name].replicates
    assert replicates == 99
    rng = np.random.default_rng(6)
    law = estimate(Y)
    samples = law.rvs(size=(replicates, len(Y)), random_state=rng)
    distances = [stats.cramervonmises(y, estimate(y).cdf).statistic for y in samples]
    exceeded = 1 + np.sum(distances >= stats.cramervonmises(Y, law.cdf).statistic)
    pvalue = exceeded / (1 + replicates)
    # Two independent shares of 99: four standard errors of their difference, with one exceedance more than either saw.
    share = max(pvalue, 2 / replicates)
    assert abs(by_name[name].pvalue - pvalue) < 4 * np.sqrt(2 * share * (1 - share) / replicates)
    assert (by_name[name].pvalue < 0.05) == (name == "normal")


@pytest.mark.thorough
def test_the_p_value_of_the_normal_is_that_of_lilliefors_kind():
    """W²(1 + ½/n) of a normal with both parameters estimated has its 5 % point at 0.126 (D'Agostino & Stephens 1986, Goodness-of-Fit Techniques, table 4.7)."""
    rng = np.random.default_rng(2)
    y = rng.standard_t(4, size=60)
    candidate = best_family(y, [normal], key=jax.random.key(3), replicates=199).candidates[0]
    modified = candidate.distance * (1 + 0.5 / 60)
    # At 0.104 the p-value is 0.10, at 0.126 0.05, at 0.178 0.01.
    table = np.interp(
        modified,
        [0.051, 0.074, 0.091, 0.104, 0.126, 0.148, 0.179],
        [0.5, 0.25, 0.15, 0.10, 0.05, 0.025, 0.01],
    )
    assert abs(candidate.pvalue - table) < 4 * np.sqrt(0.25 / 200) * 0.7


def test_a_family_without_a_maximum_stands_last_with_its_status():
    y = np.where(np.arange(60) == 5, -1.0, Y)
    ranking = best_family(y, [gamma, normal], key=jax.random.key(0), replicates=0)
    assert [candidate.family.name for candidate in ranking.candidates] == ["normal", "gamma"]
    assert np.isnan(ranking.candidates[1].aicc)


def test_bad_arguments_are_named():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="all discrete or all continuous"):
        best_family(Y, [poisson, normal], key=key)
    with pytest.raises(ValueError, match="one column"):
        best_family(Y[None], [normal], key=key)
    with pytest.raises(ValueError, match="criterion"):
        best_family(Y, [normal], key=key, criterion="bic")
    with pytest.raises(TypeError, match="families"):
        best_family(Y, ["normal"], key=key)
    with pytest.raises(ValueError, match="trials"):
        best_family(np.round(Y), [binomial], key=key)
