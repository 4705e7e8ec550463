"""Criteria and tables of models, against R, closed forms and simulation."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import laplace
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import Status
from jaxmle.inference.hypotheses.likelihood_ratio import lr_test
from jaxmle.inference.hypotheses.record import Reason
from jaxmle.inference.hypotheses.vuong import vuong_test
from jaxmle.inference.selection.compare import compare, tic
from tests.likelihoods import logit, normal

from .hypothesis_cases import COLUMNS, DATA, SMOKE_HT, START, R, stacked

YEARS = COLUMNS["age"] - 14
Y = np.random.default_rng(11).normal(1.0, 2.0, size=(6, 50))
BOUNDS, NORMAL = {"sigma": jm.positive}, {"mu": 0.0, "sigma": 1.0}


@pytest.fixture(scope="module")
def fits():
    return jm.fit(jm.fix(logit, SMOKE_HT), START, DATA), jm.fit(logit, START, DATA)


@pytest.fixture(scope="module")
def normals():
    return stacked([jm.fit(normal, NORMAL, y, constraints=BOUNDS) for y in Y])


# ---------------------------------------------------------------- TIC


def test_the_penalty_of_a_normal_sample_is_half_of_one_plus_its_kurtosis(normals):
    """tr(J⁻¹K) = 1 + (b₂ − 1)/2 with b₂ = m₄/m₂²."""
    found = tic(normal, normals, Y)
    u = Y - Y.mean(axis=1, keepdims=True)
    kurtosis = (u**4).mean(axis=1) / (u**2).mean(axis=1) ** 2
    assert_allclose(found.penalty, (1 + kurtosis) / 2, rtol=1e-7)
    assert_allclose(found.value, -2 * normals.loglik + 1 + kurtosis, rtol=1e-9)


def test_the_penalty_does_not_depend_on_the_parametrisation_and_skips_what_is_fixed(normals):
    def logs(p, d):
        return normal({"mu": p["mu"], "sigma": jnp.exp(p["s"])}, d)

    fit = jm.fit(logs, {"mu": 0.0, "s": 0.0}, Y[0])
    assert_allclose(tic(logs, fit, Y[0]).penalty, tic(normal, normals[0], Y[0]).penalty, rtol=1e-7)
    held = jm.fix(normal, {"mu": 1.0})
    fit = jm.fit(held, NORMAL, Y[0], constraints=BOUNDS)
    u = Y[0] - 1.0
    assert_allclose(
        tic(held, fit, Y[0]).penalty, ((u**4).mean() / (u**2).mean() ** 2 - 1) / 2, rtol=1e-7
    )


def test_a_simplex_is_penalised_in_its_free_coordinates():
    """A multinomial is always right about itself: K = J, and the penalty is K − 1."""
    y = np.repeat(np.eye(3), [30, 45, 25], axis=0)

    def f(p, d):
        return d @ jnp.log(p["w"])

    fit = jm.fit(f, {"w": np.full(3, 1 / 3)}, y, constraints={"w": jm.simplex})
    assert_allclose(tic(f, fit, y).penalty, 2.0, rtol=1e-8)


def test_takeuchi_of_weighted_fits(normals):
    w = 1.0 + np.arange(50) % 2
    fit = jm.fit(normal, NORMAL, Y[0], constraints=BOUNDS, weights=jm.frequency(w))
    u = Y[0] - np.average(Y[0], weights=w)
    kurtosis = np.average(u**4, weights=w) / np.average(u**2, weights=w) ** 2
    assert_allclose(
        tic(normal, fit, Y[0], weights=jm.frequency(w)).penalty, (1 + kurtosis) / 2, rtol=1e-7
    )
    assert np.isnan(
        tic(normal, replace(fit, weighting="sampling"), Y[0], weights=jm.sampling(w)).value
    )
    with pytest.raises(ValueError, match="give the weights that were used in the fit"):
        tic(normal, fit, Y[0])
    with pytest.raises(ValueError, match="not those of the fit"):
        tic(normal, normals[0], Y[1])


# ---------------------------------------------------------------- tables


def test_a_table_of_two_models(fits):
    found = compare(*fits, names=["without", "with"], nested=True)
    assert_allclose([found.aic[1], found.bic[1]], [R["logit"]["aic"], R["logit"]["bic"]], rtol=1e-9)
    assert_allclose(
        found.aicc,
        [fit.aic + 2 * k * (k + 1) / (189 - k - 1) for fit, k in zip(fits, (7, 9), strict=True)],
        rtol=1e-12,
    )
    assert_allclose(found.delta, found.aic - found.aic.min())
    w = np.exp(-0.5 * found.delta)
    assert_allclose(found.weight, w / w.sum())
    assert_allclose(found.lr[0].statistic, lr_test(*fits).statistic)
    assert found.best == "with" and found.df.tolist() == [7, 9]
    assert compare(*fits, by="bic").best == f"model {int(np.argmin(found.bic))}"
    text = str(found)
    assert max(map(len, text.splitlines())) <= 100
    for part in ("with has the smallest AIC", "n = 189", "CONVERGED", "214.834", "11.842", "0.003"):
        assert part in text


def test_a_model_without_a_maximum_takes_no_part(fits):
    stopped = jm.fit(logit, START, DATA, max_steps=2)
    assert stopped.verdict == Status.MAX_STEPS
    found = compare(fits[0], stopped)
    assert np.isnan(found.aic[1]) and np.isnan(found.weight[1]) and found.weight[0] == 1.0
    assert found.best == "model 0" and "MAX_STEPS" in str(found)
    prior = jm.fit(jm.penalize(logit, jm.ridge(0.1)), START, DATA)
    none = compare(prior, prior)
    assert np.all(np.isnan(none.weight)) and none.best == "" and "penalised" in str(none)


def test_models_that_do_not_compare_are_refused(fits):
    other = jm.fit(logit, START, {"y": 1 - DATA["y"], "x": DATA["x"]})
    with pytest.raises(ValueError, match="fit 2 was made from other data"):
        compare(*fits, other)
    with pytest.raises(ValueError, match="at least two"):
        compare(fits[0])
    with pytest.raises(ValueError, match="by must be"):
        compare(*fits, by="dic")
    for names in (["a"], ["a", "a"], "ab", [1, 2]):
        with pytest.raises(ValueError, match="different strings"):
            compare(*fits, names=names)
    with pytest.raises(ValueError, match="comes first"):
        compare(*fits[::-1], nested=True)
    with pytest.raises(TypeError, match="argument 1"):
        compare(fits[0], [fits[1]])


def test_a_table_of_batches_counts_how_often_each_is_best(normals):
    held = stacked(
        [jm.fit(jm.fix(normal, {"mu": 1.0}), NORMAL, y, constraints=BOUNDS) for y in Y[:5]]
    )
    found = compare(held, normals[:5], names=["held", "free"], nested=True)
    assert found.aic.shape == (5, 2) and found.lr[0].statistic.shape == (5,)
    assert_allclose(found.weight.sum(axis=1), 1.0)
    assert found.best.tolist() == [("held", "free")[int(k)] for k in np.argmin(found.aic, axis=1)]
    assert "5 comparisons of 2 models by AIC" in str(found)


# ---------------------------------------------------------------- Vuong


def poisson(params, data):
    return data * jnp.log(params["rate"]) - params["rate"] - jax.scipy.special.gammaln(data + 1)


def geometric(params, data):
    return jnp.log(params["p"]) + data * jnp.log1p(-params["p"])


def test_vuong_test_equals_that_of_r():
    """Poisson against geometric for the years of age above 14; R's figures from dpois and dgeom."""
    one = jm.fit(poisson, {"rate": 5.0}, YEARS, constraints={"rate": jm.positive})
    two = jm.fit(geometric, {"p": 0.3}, YEARS, constraints={"p": jm.interval(0, 1)})
    found = vuong_test(poisson, one, geometric, two, YEARS)
    assert_allclose([found.statistic, found.pvalue], list(R["vuong"].values()), rtol=1e-9)
    assert_allclose(
        vuong_test(geometric, two, poisson, one, YEARS).statistic, -found.statistic, rtol=1e-12
    )
    assert (
        vuong_test(poisson, one, geometric, two, YEARS, correction="bic").statistic
        == found.statistic
    )  # as many parameters
    with pytest.raises(ValueError, match="correction"):
        vuong_test(poisson, one, geometric, two, YEARS, correction="hqic")
    assert vuong_test(poisson, one, poisson, one, YEARS).code == Reason.ALIKE


def test_vuong_corrections_and_batches(normals):
    def heavy(p, d):
        return laplace.logpdf(d, 1.0, p["b"])

    few = stacked([jm.fit(heavy, {"b": 1.0}, y, constraints={"b": jm.positive}) for y in Y[:3]])
    found = vuong_test(normal, normals[:3], heavy, few, Y[:3])
    m = np.array(
        [
            np.asarray(normal(jax.tree.map(lambda v, i=i: v[i], normals.params), Y[i]))
            - np.asarray(heavy({"b": few.params["b"][i]}, Y[i]))
            for i in range(3)
        ]
    )
    assert_allclose(
        found.statistic, m.sum(axis=1) / (np.sqrt(50) * m.std(axis=1)), rtol=1e-4
    )  # the terms by hand are float32
    shift = {"aic": 1.0, "bic": 0.5 * np.log(50)}
    for correction, c in shift.items():
        corrected = vuong_test(normal, normals[:3], heavy, few, Y[:3], correction=correction)
        assert_allclose(
            corrected.statistic - found.statistic, -c / (np.sqrt(50) * m.std(axis=1)), rtol=1e-4
        )
    with pytest.raises(ValueError, match="kind 'frequency'"):
        w = jm.frequency(np.ones(50))
        weighted = jm.fit(normal, NORMAL, Y[0], constraints=BOUNDS, weights=w)
        vuong_test(normal, weighted, normal, weighted, Y[0])
