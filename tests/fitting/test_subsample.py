"""A climb over very many rows starts at the maximum over a few, and scores lead on from there; what it finds does not depend on that."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.fitting import head_start
from jaxmle.fitting.passes import Passes
from tests.likelihoods import multinomial_intercepts

N = 2**14
DECLARED = jm.regression(
    lambda eta, row: row["y"] * eta["mu"] - jm.special.softplus(eta["mu"]),
    eta={"mu": jm.linear("x", "beta")},
)
START = {"beta": np.zeros(2)}


@pytest.fixture
def many(monkeypatch):
    """What counts as many rows, made small."""
    for name, value in (
        ("MIN_ROWS_FOR_HEAD_START", N),
        ("MIN_SAMPLE_ROWS", 512),
        ("SAMPLE_ROWS_A_PARAMETER", 1),
    ):
        monkeypatch.setattr(head_start, name, value)


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


@pytest.fixture
def whole(monkeypatch):
    """A list that grows by one with every Hessian over all rows."""
    passes = []
    evaluate = Passes.evaluate

    def counted(self, z):
        if len(self.data["y"]) == N:
            passes.append(z)
        return evaluate(self, z)

    monkeypatch.setattr(Passes, "evaluate", counted)
    return passes


def test_one_hessian_over_all_rows_gives_the_numbers_of_newton(many, whole, capsys):
    data = sample(2.0)
    fit = jm.fit(DECLARED, START, data, progress=True)
    beta, se = by_newton(data)
    assert fit.converged
    assert len(whole) == 1
    assert len(capsys.readouterr().err.splitlines()) == fit.steps
    assert_allclose(fit.x, beta, rtol=0, atol=1e-8 * se.min())
    assert_allclose(fit.se, se, rtol=1e-7)


def gaussian(eta, row):
    return -0.5 * ((row["y"] - eta["mu"]) / eta["sigma"]) ** 2 - jnp.log(eta["sigma"])


def others():
    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(N), rng.normal(size=N)])
    linear = jm.linear("x", "beta")
    scale = jm.regression(gaussian, eta={"mu": linear, "sigma": "sigma"})
    yield (
        "a scale",
        scale,
        {"beta": np.zeros(2), "sigma": 1.0},
        x @ [0.5, -1.0] + 3.0 * rng.normal(size=N),
        {"constraints": {"sigma": jm.positive}},
    )
    yield (
        "classes",
        jm.regression(multinomial_intercepts, eta={"mu": linear}),
        {"beta": np.zeros((2, 2))},
        rng.integers(0, 3, N).astype(float),
        {},
    )
    yield "L-BFGS", DECLARED, START, None, {"solver": jm.solvers.LBFGS()}


@pytest.mark.parametrize(
    ("loglik", "start", "y", "options"), [pytest.param(*case, id=name) for name, *case in others()]
)
def test_the_road_changes_no_number(many, whole, monkeypatch, loglik, start, y, options):
    data = sample(1.0) if y is None else {"x": sample(0.0)["x"], "y": y}
    fit = jm.fit(loglik, start, data, **options)
    assert len(whole) == 1
    monkeypatch.setattr(head_start, "MIN_ROWS_FOR_HEAD_START", 2 * N)
    plain = jm.fit(loglik, start, data, **options)
    assert len(whole) >= 3
    assert fit.converged
    assert plain.converged
    assert_allclose(fit.x, plain.x, rtol=0, atol=1e-6 * plain.se.min())
    assert_allclose(fit.se, plain.se, rtol=1e-6)
    assert_allclose(fit.loglik, plain.loglik, rtol=1e-9)
    assert_allclose(fit.hessian, plain.hessian, rtol=0, atol=1e-6 * np.abs(plain.hessian).max())


def test_in_float32_scores_lead_nowhere_but_the_sample_still_does(many):
    data = sample(2.0)
    fit = jm.fit(DECLARED, START, data, dtype="float32")
    beta, se = by_newton(data)
    assert fit.x.dtype == np.float32
    assert_allclose(fit.x, beta, rtol=0, atol=0.01 * se.min())


def test_a_sample_that_is_no_picture_of_the_rest_changes_no_number(many, whole):
    """Where the sample looks, the slope is turned round and x is ten times as large."""
    data = sample(1.0)
    seen = np.arange(N) % 32 == 0
    data["x"][seen, 1] *= 10
    data["y"] = np.where(seen, data["x"][:, 1] + np.cos(np.arange(N)) < 0, data["y"]).astype(float)
    fit = jm.fit(DECLARED, START, data)
    beta, se = by_newton(data)
    assert fit.converged
    assert len(whole) > 1
    assert_allclose(fit.x, beta, rtol=0, atol=1e-6 * se.min())
    assert_allclose(fit.se, se, rtol=1e-6)


def test_a_sample_that_is_separated_where_the_rest_is_not(many):
    data = sample(0.0)
    data["y"] = (data["x"][:, 1] > 0.2).astype(float)
    data["y"][1::320] = 1 - data["y"][1::320]
    fit = jm.fit(DECLARED, START, data)
    beta, se = by_newton(data)
    assert fit.converged
    assert_allclose(fit.x, beta, rtol=0, atol=1e-6 * se.min())
    assert_allclose(fit.se, se, rtol=1e-6)


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
        return jnp.logaddexp(
            jnp.log(0.6) - 0.5 * (y - params["mu"]) ** 2,
            jnp.log(0.4) - 0.5 * (y + params["mu"] - 1.0) ** 2,
        )

    rng = np.random.default_rng(1)
    y = np.where(rng.random(N) < 0.6, 4.0, -3.0) + rng.normal(size=N)
    assert float(jm.fit(terms, {"mu": -2.5}, y).params["mu"]) < -2.0
    assert float(jm.fit(terms, {"mu": 3.5}, y).params["mu"]) > 3.0
