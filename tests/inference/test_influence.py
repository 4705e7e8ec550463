"""One-step leave-one-out and leave-one-cluster-out estimates against refits, on real data and in closed cases."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

import jaxmle as jm
from jaxmle.inference.diagnostics.disagreement import disagreement
from jaxmle.inference.diagnostics.influence import influence
from jaxmle.likelihood.information.bias import jeffreys
from tests.likelihoods import logit

BIRTH = jm.datasets.load("birthwt").data
BIRTHWT = {
    "x": np.column_stack([np.ones(189), (BIRTH["lwt"] - 130) / 30, BIRTH["smoke"]]),
    "y": BIRTH["low"],
}
LUNG = jm.datasets.load("lung").data
SURVIVAL = {
    "x": np.column_stack([np.ones(227), (LUNG["age"] - 62) / 10, LUNG["sex"] - 1]),
    "time": LUNG["time"] / 365,
    "death": LUNG["death"],
}
START = {"beta": np.zeros(3)}


def weibull(params, data):
    """Log hazard k log t + log k − log t + x'β, right-censored."""
    k, eta = params["shape"], data["x"] @ params["beta"]
    return data["death"] * (jnp.log(k) + (k - 1) * jnp.log(data["time"]) + eta) - data[
        "time"
    ] ** k * jnp.exp(eta)


def logit_refit(beta, keep):
    x, y = BIRTHWT["x"][keep], BIRTHWT["y"][keep]
    for _ in range(8):
        mu = special.expit(x @ beta)
        beta = beta + np.linalg.solve(x.T @ ((mu * (1 - mu))[:, None] * x), x.T @ (y - mu))
    return beta


def weibull_refit(theta, keep):
    """Newton's method on (β, log k): s = d x − H x, and d(1 + k log t) − H k log t with H = t^k e^η."""
    x, logt, d = SURVIVAL["x"][keep], np.log(SURVIVAL["time"][keep]), SURVIVAL["death"][keep]
    theta = np.r_[theta[:3], np.log(theta[3])]
    for _ in range(10):
        k = np.exp(theta[3])
        hazard, u = np.exp(k * logt + x @ theta[:3]), k * logt
        score = np.r_[(d - hazard) @ x, np.sum(d * (1 + u) - hazard * u)]
        cross = x.T @ (hazard * u)
        corner = np.sum(hazard * u * (1 + u) - d * u)
        theta = theta + np.linalg.solve(
            np.block([[x.T @ (hazard[:, None] * x), cross[:, None]], [cross[None, :], corner]]),
            score,
        )
    return np.r_[theta[:3], np.exp(theta[3])]


@pytest.fixture(scope="module")
def birthwt():
    return jm.fit(logit, START, BIRTHWT)


@pytest.fixture(scope="module")
def lung():
    return jm.fit(weibull, {**START, "shape": 1.0}, SURVIVAL, constraints={"shape": jm.positive})


@pytest.mark.parametrize(
    ("name", "loglik", "refit", "data"),
    [("birthwt", logit, logit_refit, BIRTHWT), ("lung", weibull, weibull_refit, SURVIVAL)],
)
def test_one_step_is_nearly_the_refit_without_each_observation(request, name, loglik, refit, data):
    fit = request.getfixturevalue(name)
    n = len(data["x"])
    assert_allclose(refit(fit.x, np.ones(n, bool)), fit.x, rtol=1e-7)
    true = np.array([refit(fit.x, np.arange(n) != i) for i in range(n)])
    found = influence(loglik, fit, data)
    for j in range(true.shape[1]):
        assert np.corrcoef(found.estimates[:, j], true[:, j])[0, 1] > 0.999
    assert (
        np.max(np.abs(found.estimates - true) / fit.se) < 0.03
    )  # second order in influences of up to 0.4 SE
    assert_allclose(found.dfbetas, (fit.x - found.estimates) / fit.se, rtol=1e-12)
    assert_allclose(found.leverage.sum(), fit.df, rtol=1e-9)
    worst = np.argmax(np.einsum("ij,jk,ik->i", true - fit.x, np.linalg.inv(fit.vcov), true - fit.x))
    assert found.largest(1)[0] == worst


def test_one_step_is_the_formula_and_cooks_distance_its_length(birthwt):
    """−(J − A_i)⁻¹s_i; for a logit A_i = w x x' and s_i = (y − μ)x."""
    x, y = BIRTHWT["x"], BIRTHWT["y"]
    mu = special.expit(x @ birthwt.x)
    w = mu * (1 - mu)
    j = x.T @ (w[:, None] * x)
    step = np.array(
        [
            -np.linalg.solve(j - w[i] * np.outer(x[i], x[i]), (y[i] - mu[i]) * x[i])
            for i in range(189)
        ]
    )
    found = influence(logit, birthwt, BIRTHWT)
    assert_allclose(found.estimates - birthwt.x, step, rtol=1e-7, atol=1e-12)
    assert_allclose(found.cook, np.einsum("ij,jk,ik->i", step, j, step) / 3, rtol=1e-7)
    assert_allclose(found.leverage, w * np.einsum("ia,ab,ib->i", x, np.linalg.inv(j), x), rtol=1e-7)


def test_clusters_are_left_out_whole(birthwt):
    site = [f"site {i % 38:02d}" for i in range(189)]
    found = influence(logit, birthwt, BIRTHWT, clusters=site)
    assert found.clustered and found.estimates.shape == (38, 3)
    true = np.array([logit_refit(birthwt.x, np.arange(189) % 38 != g) for g in range(38)])
    for j in range(3):
        assert np.corrcoef(found.estimates[:, j], true[:, j])[0, 1] > 0.999


def test_a_weight_counts_copies_and_zero_none(birthwt):
    """Of a row of weight 3 one of three is left out: the same as one of three equal rows."""
    w = np.where(np.arange(189) % 3 == 0, 3.0, np.where(np.arange(189) % 3 == 1, 1.0, 0.0))
    again = np.repeat(np.arange(189), w.astype(int))
    rows = {key: value[again] for key, value in BIRTHWT.items()}
    weighted = influence(
        logit,
        jm.fit(logit, START, BIRTHWT, weights=jm.frequency(w)),
        BIRTHWT,
        weights=jm.frequency(w),
    )
    repeated = influence(logit, jm.fit(logit, START, rows), rows)
    assert_allclose(weighted.estimates[again], repeated.estimates, rtol=1e-7)
    assert np.all(weighted.cook[w == 0] == 0)


def test_a_row_that_alone_carries_a_column_has_none():
    x = BIRTHWT["x"].copy()
    x[:, 2] = np.arange(189) < 2
    x[1, 2] = 0.0
    data = {"x": x, "y": BIRTH["age"] / 10}

    def squares(params, data):
        return -0.5 * (data["y"] - data["x"] @ params["beta"]) ** 2

    found = influence(squares, jm.fit(squares, START, data), data)
    assert np.all(np.isnan(found.estimates[0])) and np.all(np.isfinite(found.estimates[1:]))
    assert found.largest(1)[0] == 0
    i = 7
    others = np.arange(189) != i
    assert_allclose(
        found.estimates[i],
        np.linalg.lstsq(x[others], data["y"][others], rcond=None)[0],
        rtol=1e-9,
        atol=1e-12,
    )  # exact for least squares


def test_what_cannot_be_asked(birthwt):
    with pytest.raises(ValueError, match="not those of the fit"):
        influence(logit, birthwt, {**BIRTHWT, "y": 1 - BIRTHWT["y"]})
    with pytest.raises(ValueError, match="with jeffreys"):
        influence(jeffreys(logit, information="observed"), birthwt, BIRTHWT)
    with pytest.raises(ValueError, match="two-way clusters"):
        influence(logit, birthwt, BIRTHWT, clusters=np.zeros((189, 2), int))


def test_the_three_covariances_side_by_side(birthwt):
    """The eigenvalues of J⁻¹K are those of the sandwich in units of the model's covariance."""
    found = disagreement(logit, birthwt, BIRTHWT)
    for name, kind in (("observed", "observed"), ("opg", "opg"), ("sandwich", "HC0")):
        assert_allclose(
            getattr(found, name),
            np.sqrt(np.diag(jm.vcov(logit, kind)(birthwt.params, BIRTHWT))),
            rtol=1e-9,
        )
    k = jm.information(logit, "opg")(birthwt.params, BIRTHWT)
    assert_allclose(found.ratios, np.sort(np.linalg.eigvals(birthwt.vcov @ k).real), rtol=1e-7)
    assert "in all directions" in repr(found)
