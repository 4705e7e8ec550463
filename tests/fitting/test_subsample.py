"""A climb over very many rows starts at the maximum over a few; what it finds does not depend on that."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.fitting import subsample

N = 2**14
DECLARED = jm.regression(lambda eta, row: row["y"] * eta["mu"] - jm.special.softplus(eta["mu"]), eta={"mu": jm.linear("x", "beta")})
START = {"beta": np.zeros(2)}


@pytest.fixture
def many(monkeypatch):
    """What counts as many rows, made small."""
    for name, value in (("MANY", N), ("FEW", 512), ("ROWS_EACH", 1)):
        monkeypatch.setattr(subsample, name, value)


def sample(slope, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(N), rng.normal(size=N)])
    return {"x": x, "y": (rng.random(N) < 1 / (1 + np.exp(-x @ [0.3, slope]))).astype(float)}


def by_newton(data):
    beta = np.zeros(2)
    for _ in range(30):
        mu = 1 / (1 + np.exp(-data["x"] @ beta))
        information = data["x"].T @ (data["x"] * (mu * (1 - mu))[:, None])
        beta = beta + np.linalg.solve(information, data["x"].T @ (data["y"] - mu))
    return beta, np.sqrt(np.diag(np.linalg.inv(information)))


def test_a_head_start_saves_steps_and_changes_no_number(many, monkeypatch):
    data = sample(2.0)
    fit = jm.fit(DECLARED, START, data)
    beta, se = by_newton(data)
    assert fit.converged
    assert_allclose(fit.x, beta, rtol=0, atol=1e-8 * se.min())
    assert_allclose(fit.se, se, rtol=1e-8)
    monkeypatch.setattr(subsample, "MANY", 2 * N)
    assert fit.steps < jm.fit(DECLARED, START, data).steps


def test_a_sample_without_a_maximum_is_no_start(many):
    """All the events are in rows that the sample does not see."""
    data = sample(0.0)
    data["y"] = np.where(np.arange(N) % 32 == 1, data["y"], 0.0)
    fit = jm.fit(DECLARED, START, data)
    beta, se = by_newton(data)
    assert fit.converged
    assert_allclose(fit.x, beta, rtol=0, atol=1e-8 * se.min())


def test_separated_rows_are_separated_from_either_start(many):
    data = sample(0.0)
    data["y"] = (data["x"][:, 1] > 0.2).astype(float)
    assert jm.fit(DECLARED, START, data).verdict == jm.Status.SEPARATED


def test_an_opaque_likelihood_starts_where_it_was_told(many):
    """Two maxima: a sample would choose the higher, the user asked for the lower."""

    def terms(params, y):
        return jnp.logaddexp(jnp.log(0.6) - 0.5 * (y - params["mu"]) ** 2, jnp.log(0.4) - 0.5 * (y + params["mu"] - 1.0) ** 2)

    rng = np.random.default_rng(1)
    y = np.where(rng.random(N) < 0.6, 4.0, -3.0) + rng.normal(size=N)
    assert float(jm.fit(terms, {"mu": -2.5}, y).params["mu"]) < -2.0
    assert float(jm.fit(terms, {"mu": 3.5}, y).params["mu"]) > 3.0
