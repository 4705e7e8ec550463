"""Symptoms that users of ready models met in residuals, predictions and draws; against closed forms, sums and scipy."""

from itertools import combinations

import jax
import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import jaxmle as jm
from jaxmle import models
from tests import tolerances

ONE = {"beta": np.zeros(1)}


def rows(y, **others):
    return {"x": np.ones((len(y), 1)), "y": np.asarray(y, float), **others}


@pytest.mark.parametrize(
    ("model", "params", "law"),
    [
        (models.normal(), {"sigma": 1.0}, stats.norm()),
        (models.student_t(df=3.0), {"scale": 1.0}, stats.t(3.0)),
        (models.gamma(), {"shape": 1.0}, stats.expon()),
        (models.inverse_gaussian(), {"shape": 1.0}, stats.invgauss(1.0)),
        (models.beta(), {"phi": 60.0}, stats.beta(30.0, 30.0)),
        (models.quantile(0.5), {"scale": 1.0}, stats.laplace(scale=2.0)),
        (models.ar1(), {"phi": 0.0, "sigma": 1.0}, stats.norm()),
        (models.truncated(lower=-9.0), {"sigma": 1.0}, stats.truncnorm(-9.0, np.inf)),
    ],
    ids=lambda item: getattr(item, "name", ""),
)
def test_a_quantile_residual_in_the_upper_tail_is_not_infinite(model, params, law):
    y = law.isf([0.3, 1e-6, 1e-18, 1e-40])  # F(y) rounds to 1 in the last two
    found = model.residuals({**ONE, **params}, rows(y), "quantile")
    # scipy's isf solves to about 1e-9
    assert_allclose(found, stats.norm.isf(law.sf(y)), rtol=1e-8)


def test_a_quantile_residual_of_a_large_count_is_not_infinite():
    y = np.array([15.0, 20.0, 40.0])
    found = models.poisson().residuals(ONE, rows(y), "quantile", key=1)
    low, high = (
        stats.norm.isf(stats.poisson.sf(y - 1, 1.0)),
        stats.norm.isf(stats.poisson.sf(y, 1.0)),
    )
    assert np.all((low < found) & (found < high))


@pytest.mark.parametrize("alpha", [0.0, 1e-300, 1e-18, 1e-12])
def test_a_negative_binomial_without_overdispersion_has_the_numbers_of_a_poisson(alpha):
    data, params = rows([0.0, 1.0, 2.0, 6.0]), {**ONE, "alpha": alpha}
    model, peer = models.negative_binomial(), models.poisson()
    for kind in ("pearson", "deviance"):
        assert_allclose(
            model.residuals(params, data, kind), peer.residuals(ONE, data, kind), rtol=1e-10
        )
    assert_allclose(model.cdf(params, data), stats.poisson.cdf(data["y"], 1.0), rtol=1e-10)
    assert_allclose(model.quantile(params, data, 0.99), stats.poisson.ppf(0.99, 1.0))
    residuals = [m.residuals(p, data, "quantile", key=2) for m, p in ((model, params), (peer, ONE))]
    assert_allclose(*residuals, rtol=1e-9)
    drawn = model.sample(3, params, rows(np.zeros(4000)))["y"]
    assert drawn.min() == 0.0
    assert abs(drawn.mean() - 1.0) < 5 / np.sqrt(4000)


def test_the_distribution_function_of_a_nearly_poisson_family_is_at_most_one():
    y = np.array([0.0, 3.0, 40.0, 400.0])
    for dispersion in (0.0, 1e-300, 1e-30, 1e-20):
        params = {"mean": 2.0, "dispersion": dispersion}
        found = jm.families.negative_binomial.log_cdf(params, y)
        assert_allclose(found, np.log1p(-stats.poisson.sf(y, 2.0)), rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize(
    ("make", "eta"), [(models.logistic, 40.0), (models.probit, 10.0), (models.cloglog, 10.0)]
)
def test_residuals_of_a_failure_whose_probability_rounds_to_one_are_those_of_its_mirror(make, eta):
    with mpmath.workdps(50):
        z = mpmath.mpf(eta)
        log_q = {
            "logistic": -mpmath.log1p(mpmath.exp(z)),
            "probit": mpmath.log(mpmath.erfc(z / mpmath.sqrt(2)) / 2),
            "cloglog": -mpmath.exp(z),
        }[make().name]
        deviance = -float(mpmath.sqrt(-2 * log_q))
        pearson = -float(mpmath.sqrt((1 - mpmath.exp(log_q)) / mpmath.exp(log_q)))
    data, params = rows([0.0]), {"beta": np.array([eta])}
    assert_allclose(make().residuals(params, data, "deviance"), [deviance], rtol=1e-12)
    if np.isfinite(pearson) and make().name != "cloglog":  # there q itself underflows
        assert_allclose(make().residuals(params, data, "pearson"), [pearson], rtol=1e-11)
    if make().name == "logistic":
        mirrored = models.binomial().residuals(params, rows([0.0], trials=np.ones(1)), "deviance")
        assert_allclose(mirrored, [deviance], rtol=1e-12)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_probabilities_of_classes_far_above_keep_their_digits(link):
    cut, eta = np.array([-1.0, 1.0]), np.array([-30.0, -1.5, 0.0, 1.5, 30.0])
    if link != "logit":
        eta = np.array([-9.0 if link == "probit" else -3.0, -1.5, 0.0, 1.5, 9.0])
    sf = {
        "logit": lambda z: 1 / (1 + mpmath.exp(z)),
        "probit": lambda z: mpmath.erfc(z / mpmath.sqrt(2)) / 2,
        "cloglog": lambda z: mpmath.exp(-mpmath.exp(z)),
    }[link]
    with mpmath.workdps(60):
        above = [[mpmath.mpf(1), *(sf(mpmath.mpf(c - e)) for c in cut), mpmath.mpf(0)] for e in eta]
        wanted = [[float(a - b) for a, b in zip(row[:-1], row[1:], strict=True)] for row in above]
    params = {"beta": np.ones(1), "cut": cut}
    found = models.ordinal(3, link=link).predict(params, {"x": eta[:, None], "y": np.zeros(5)})
    assert_allclose(found, wanted, rtol=1e-10)


def test_deviance_residuals_of_large_counts_near_their_mean_do_not_cancel():
    beta = {"beta": np.array([np.log(1e9)])}
    mean = float(np.exp(beta["beta"][0]))
    y = np.array([1e9 + 1e3, 1e9 + 10.0, 1e9 - 3e4])
    with mpmath.workdps(50):
        m = mpmath.mpf(mean)
        wanted = [
            float(mpmath.sign(k - m) * mpmath.sqrt(2 * (k * mpmath.log(k / m) - (k - m))))
            for k in map(mpmath.mpf, y)
        ]
    # the mean itself is an exponential, right to some ulp of 1e9
    assert_allclose(models.poisson().residuals(beta, rows(y), "deviance"), wanted, atol=1e-10)


@pytest.mark.parametrize("mu", [-5.0, -10.0, -40.0, -1000.0])
def test_a_regression_truncated_far_from_its_mean_has_moments_and_a_distribution_function(mu):
    with mpmath.workdps(60):
        t = mpmath.mpf(-mu)
        above = [mpmath.erfc(z / mpmath.sqrt(2)) / 2 for z in (t, t + mpmath.mpf(0.3 / -mu))]
        hazard = mpmath.npdf(t) / above[0]
        y = 0.3 / -mu
        mean, variance = float(hazard - t), float(1 - hazard * (hazard - t))
        cdf = float(1 - above[1] / above[0])
    model, params, data = (
        models.truncated(lower=0.0),
        {"beta": np.array([mu]), "sigma": 1.0},
        rows([y]),
    )
    assert_allclose(model.predict(params, data), [mean], rtol=1e-9)
    assert_allclose(model.variance(params, data), [variance], rtol=1e-8)
    assert_allclose(model.cdf(params, data), [cdf], rtol=1e-8)
    assert_allclose(model.quantile(params, data, cdf), [y], rtol=1e-8)
    upper = models.truncated(lower=-np.inf, upper=0.0)
    mirror = {"beta": np.array([-mu]), "sigma": 1.0}
    assert_allclose(upper.predict(mirror, rows([-y])), [-mean], rtol=1e-9)
    assert_allclose(upper.variance(mirror, rows([-y])), [variance], rtol=1e-8)


def test_a_stratum_with_several_cases_is_predicted_and_drawn_with_as_many():
    x = np.array([[[0.0], [1.0], [2.0], [9.0]], [[0.0], [1.0], [2.0], [-0.5]]])
    real = np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    y = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    wanted = np.zeros((2, 4))
    for stratum in range(2):
        members = np.flatnonzero(real[stratum])
        size = int(y[stratum].sum())
        odds = {s: np.exp(0.7 * x[stratum, list(s), 0].sum()) for s in combinations(members, size)}
        for chosen, weight in odds.items():
            wanted[stratum, list(chosen)] += weight / sum(odds.values())
    model, params = models.conditional_logit(cases=2, real="real"), {"beta": np.array([0.7])}
    data = {"x": x, "y": y, "real": real}
    assert_allclose(model.predict(params, data), wanted, rtol=tolerances.ROUNDING_OF_A_SUM)
    many = {name: np.tile(leaf, (4000, *[1] * (leaf.ndim - 1))) for name, leaf in data.items()}
    drawn = model.sample(5, params, many)["y"]
    assert_allclose(drawn.sum(axis=1), many["y"].sum(axis=1))
    shares = drawn.reshape(4000, 2, 4).mean(axis=0)
    # five standard errors of a share
    assert_allclose(shares, wanted, atol=5 * np.sqrt(0.25 / 4000))
    slopes = jax.jacobian(lambda b: model.predict({"beta": b}, data))(np.array([0.7]))
    assert np.isfinite(slopes).all()
