"""The jackknife against closed forms, repeated rows and the sandwich."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import Status
from jaxmle.inference.resampling.jackknife import Jackknife, infinitesimal_jackknife, jackknife
from tests.likelihoods import normal

N = 300
RNG = np.random.default_rng(8)
Y = RNG.gamma(2.0, 2.0, N)
LABELS = np.repeat(np.arange(150), 2)
START, POSITIVE = {"mu": 4.0, "sigma": 2.0}, {"sigma": jm.positive}


def moments(params):
    return {"mean": params["mu"], "variance": params["sigma"] ** 2}


@pytest.fixture(scope="module")
def fit():
    return jm.fit(normal, START, Y, constraints=POSITIVE)


def test_mean_and_variance_have_their_exact_jackknife(fit):
    """Delete-one means give s/√n and no bias; of the ML variance the bias is −s²/n exactly, s² with divisor n − 1."""
    found = jackknife(normal, fit, Y, statistic=moments, progress=False)
    assert_allclose(found.stderr["mean"], Y.std(ddof=1) / np.sqrt(N), rtol=1e-8)
    assert_allclose(found.bias["mean"], 0.0, atol=1e-8)
    assert_allclose(
        found.bias["variance"], -Y.var(ddof=1) / N, rtol=1e-5
    )  # n² times the rounding of the estimates
    assert_allclose(found.deleted[:, 0], (Y.sum() - Y) / (N - 1), rtol=1e-9)
    third, second = np.sum((Y - Y.mean()) ** 3), np.sum((Y - Y.mean()) ** 2)
    assert_allclose(found.acceleration[0], third / (6 * second**1.5), rtol=1e-6)
    assert found.failed == {} and found.units == N
    assert "Jackknife of 300 units" in str(found)


def test_clusters_are_deleted_whole(fit):
    found = jackknife(normal, fit, Y, clusters=LABELS, progress=False)
    sums = Y.reshape(150, 2).sum(axis=1)
    deleted = (Y.sum() - sums) / (N - 2)
    assert_allclose(found.deleted[:, 0], deleted, rtol=1e-9)
    assert_allclose(
        found.stderr["mu"], np.sqrt(149 / 150 * np.sum((deleted - deleted.mean()) ** 2)), rtol=1e-8
    )
    assert "150 clusters" in str(found)


@pytest.mark.thorough
def test_frequency_weights_equal_repeated_rows():
    w = np.resize([2, 1, 3, 2, 2], 150)  # 300 rows in all
    w[:2] = 0, 3
    y = Y[:150]
    weights, repeated = jm.frequency(w), np.repeat(y, w)
    once = jm.fit(normal, START, y, constraints=POSITIVE, weights=weights)
    twice = jm.fit(normal, START, repeated, constraints=POSITIVE)
    for procedure in (lambda *a, **k: jackknife(*a, progress=False, **k), infinitesimal_jackknife):
        short, long = (
            procedure(normal, once, y, weights=weights),
            procedure(normal, twice, repeated),
        )
        assert_allclose(short.se, long.se, rtol=1e-7)
        assert_allclose(short.acceleration, long.acceleration, rtol=1e-6)


def test_the_infinitesimal_jackknife_is_the_sandwich(fit):
    """Whatever covariance the fit carries; for a function of the parameters it is the delta method on HC0."""
    robust = jm.fit(normal, START, Y, constraints=POSITIVE, vcov="HC0")
    for one in (fit, robust):
        found = infinitesimal_jackknife(normal, one, Y)
        assert_allclose(found.vcov, robust.vcov, rtol=1e-8)
        assert_allclose(found.stderr["sigma"], robust.stderr["sigma"], rtol=1e-8)

    def ratio(p):
        return p["sigma"] / p["mu"]

    assert_allclose(
        infinitesimal_jackknife(normal, fit, Y, statistic=ratio).stderr,
        jm.delta(ratio, robust).stderr,
        rtol=1e-8,
    )
    clustered = jm.fit(normal, START, Y, constraints=POSITIVE, vcov="CR0", clusters=LABELS)
    assert_allclose(
        infinitesimal_jackknife(normal, fit, Y, clusters=LABELS).vcov, clustered.vcov, rtol=1e-8
    )
    w = jm.sampling(RNG.uniform(0.5, 2, N))
    weighted = jm.fit(normal, START, Y, constraints=POSITIVE, weights=w)
    assert_allclose(
        infinitesimal_jackknife(normal, weighted, Y, weights=w).vcov, weighted.vcov, rtol=1e-8
    )
    assert "Infinitesimal jackknife of 300 units" in str(found)


def test_influence_lives_on_the_simplex_and_off_fixed_entries(fit):
    codes = np.repeat([0, 1, 2], [60, 100, 140])

    def share(params, data):
        return jnp.log(params["p"])[data]

    start, simplex = {"p": np.full(3, 1 / 3)}, {"p": jm.simplex}
    result = jm.fit(share, start, codes, constraints=simplex)
    p = np.array([60, 100, 140]) / N
    assert_allclose(
        infinitesimal_jackknife(share, result, codes).vcov,
        (np.diag(p) - np.outer(p, p)) / N,
        rtol=1e-7,
    )
    held = jm.fix(normal, {"sigma": 2.0})
    found = infinitesimal_jackknife(held, jm.fit(held, START, Y, constraints=POSITIVE), Y)
    assert_allclose(found.stderr["mu"], Y.std() / np.sqrt(N), rtol=1e-8)
    assert np.isnan(found.stderr["sigma"])


def test_an_infinite_delete_one_estimate_makes_the_standard_error_infinite(fit):
    """As where two rows overlap and all others are separated: without either of them the estimate is infinite."""
    deleted = np.array([[0.0, np.inf], [0.1, 2.0], [0.3, 2.5], [0.2, 2.2]])
    found = Jackknife(
        np.array([0.15, 2.2]),
        deleted,
        np.ones(4),
        np.array([Status.SEPARATED] + [Status.CONVERGED] * 3),
        False,
        fit.names,
        fit.layout,
    )
    assert found.se[1] == np.inf and np.isfinite(found.se[0]) and np.isnan(found.acceleration[1])
    assert found.failed == {"SEPARATED": 1} and "1 SEPARATED" in str(found)
    deleted[0, 1] = np.nan
    assert np.isnan(found.se[1])


def test_mistakes_are_named(fit):
    def total(params, data):
        return jnp.sum(normal(params, data))

    with pytest.raises(ValueError, match="one scalar"):
        jackknife(total, jm.fit(total, START, Y, constraints=POSITIVE), Y)
    with pytest.raises(ValueError, match="at least two units"):
        jackknife(normal, fit, Y, clusters=np.zeros(N, int))
    with pytest.raises(ValueError, match="one label for each row"):
        jackknife(normal, fit, Y, clusters=np.zeros((N, 2), int))
    with pytest.raises(ValueError, match="are not those of the fit"):
        infinitesimal_jackknife(normal, fit, Y[::-1].copy())
