"""Simulated data sets of each of several models, from default starts: all converge, or have a verdict that an oracle confirms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import linprog

import jaxmle as jm
from jaxmle import Status, models

pytestmark = pytest.mark.thorough

B, N = 128, 60
RNG = np.random.default_rng(11)
X = np.stack([np.ones((B, N)), RNG.normal(size=(B, N))], axis=-1)
ETA = 0.4 + 0.8 * X[..., 1]
MU = np.exp(ETA)
U = RNG.uniform(size=(B, N))
NOISE = RNG.normal(size=(B, N))


def data(y):
    return {"x": X, "y": y}


def fitted(model, members):
    return jm.fit_batch(model, None, members, progress=False)


def assert_covers(fit, truth):
    """Standardised errors of the converged members have mean 0 and variance 1, to four of their own errors and small-sample bias."""
    z = (fit.x[fit.converged] - truth) / fit.se[fit.converged]
    assert np.all(np.abs(np.median(z, axis=0)) < 0.5)
    assert np.all(np.abs(np.quantile(np.abs(z), 0.68, axis=0) - 1) < 0.35)


REGULAR = {
    "poisson": (models.poisson(), data(RNG.poisson(MU).astype(float)), [0.4, 0.8]),
    "ordinal": (models.ordinal(3), {"x": X[..., 1:], "y": np.sum(0.8 * X[..., 1:] + RNG.logistic(size=(B, N, 1)) > np.array([-1.0, 1.0]), axis=-1) * 1.0}, [0.8, -1, 1]),
    "weibull": (models.aft("weibull"), {"x": X, "time": np.minimum(t := MU * np.sqrt(-np.log(U)), 4.0), "event": (t < 4.0) * 1.0}, [0.4, 0.8, 0.5]),
}  # fmt: skip


@pytest.mark.parametrize("name", REGULAR)
def test_default_starts_reach_the_maximum(name):
    model, members, truth = REGULAR[name]
    fit = fitted(model, members)
    assert np.all(fit.status == Status.CONVERGED)
    assert np.max(fit.steps) <= 12
    assert_covers(fit, np.array(truth))


def separated(x, y):
    """Whether some direction d has x'd >= 0 where y = 1 and <= 0 where y = 0, not all 0: Albert & Anderson (1984) as a linear program."""
    signed = np.where(y[:, None] > 0, x, -x)
    return (
        linprog(
            -signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(y)), bounds=[(-1, 1)] * x.shape[1]
        ).fun
        < -1e-9
    )


def test_logistic_members_converge_unless_a_linear_program_separates_them():
    few = slice(0, 15)
    members = {"x": X[:, few], "y": (U[:, few] < 1 / (1 + np.exp(-3 * ETA[:, few]))) * 1.0}
    fit = fitted(models.logistic(), members)
    apart = np.array([separated(*pair) for pair in zip(members["x"], members["y"], strict=True)])
    assert 5 < apart.sum() < 100
    assert np.array_equal(fit.status == Status.SEPARATED, apart)
    assert np.array_equal(fit.status == Status.CONVERGED, ~apart)


def test_negative_binomial_members_converge_unless_the_score_points_at_the_poisson():
    y = RNG.poisson(MU * RNG.gamma(8.0, 1 / 8, size=(B, N))).astype(float)
    fit, poisson = fitted(models.negative_binomial(), data(y)), fitted(models.poisson(), data(y))
    mean = np.exp(np.einsum("bnq,bq->bn", X, poisson.params["beta"]))
    inward = np.sum((y - mean) ** 2 - y, axis=1) <= 0  # twice the score of alpha at 0
    assert 10 < inward.sum() < 120
    assert np.array_equal(fit.status == Status.BOUNDARY, inward)
    assert np.array_equal(fit.status == Status.CONVERGED, ~inward)
    assert_allclose(fit.loglik[inward], poisson.loglik[inward], rtol=1e-9)
    assert np.all(fit.params["alpha"][inward] == 0)
