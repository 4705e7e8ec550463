"""Expected information: exact, enumerated and simulated are the same quantity; a simulated one knows its error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from numpy.testing import assert_allclose

import jaxmle as jm
from tests.likelihoods import logit, poisson, probit

from .cases import (
    BETA,
    BETA_SIGMA,
    BINARY,
    CASES,
    LINEAR,
    LOGIT,
    NORMAL,
    POISSON,
    PROBIT,
    N,
    X,
    declared_normal,
    declared_probit,
    hc,
    newton,
    normal,
    poisson_rows,
    probit_rows,
)

DRAWS = 200
CLOSE = {"rtol": 1e-11, "atol": 1e-11}


def draw_normal(key, params, data):
    noise = jax.random.normal(key, data["y"].shape, dtype=data["y"].dtype)
    return {**data, "y": data["x"] @ params["beta"] + params["sigma"] * noise}


def draw_probit(key, params, data):
    noise = jax.random.normal(key, data["y"].shape, dtype=data["y"].dtype)
    return {**data, "y": (data["x"] @ params["beta"] + noise > 0).astype(data["y"].dtype)}


simulated_normal = jm.with_response(
    normal, jm.simulation(draw_normal, key=jax.random.key(1), draws=DRAWS)
)
simulated_probit = jm.with_response(
    probit, jm.simulation(draw_probit, key=jax.random.key(2), draws=DRAWS)
)
simulated_regression = jm.regression(
    lambda eta, row: norm.logpdf(row["y"], eta["mu"], eta["s"]),
    {"mu": LINEAR, "s": "sigma"},
    response=jm.simulation(draw_normal, key=jax.random.key(3), draws=DRAWS),
)
enumerated_probit = jm.with_response(probit, BINARY)
counting_poisson = jm.with_response(poisson, jm.enumeration("y", range(60)))


@pytest.mark.parametrize("name", CASES)
def test_exact_and_enumerated_in_the_declared_form(name):
    case = CASES[name]
    assert_allclose(
        jm.information(case.declared, "expected")(case.params, case.data),
        case.by_hand().expected.sum(axis=0),
        **CLOSE,
    )
    assert np.all(jm.information_error(case.declared)(case.params, case.data) == 0)


def test_enumeration_of_an_opaque_likelihood_is_exact():
    by_hand = CASES["probit"].by_hand().expected.sum(axis=0)
    assert_allclose(jm.information(enumerated_probit, "expected")(BETA, PROBIT), by_hand, **CLOSE)
    counts = CASES["poisson"].by_hand().expected.sum(axis=0)
    assert_allclose(jm.information(counting_poisson, "expected")(BETA, POISSON), counts, **CLOSE)


def test_expected_information_does_not_look_at_the_response():
    mirrored = {**PROBIT, "y": 1 - PROBIT["y"]}
    for loglik in (declared_probit, enumerated_probit):
        assert_allclose(
            jm.information(loglik, "expected")(BETA, mirrored),
            CASES["probit"].by_hand().expected.sum(axis=0),
            **CLOSE,
        )


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("loglik", "name"),
    [(simulated_normal, "normal"), (simulated_probit, "probit"), (simulated_regression, "normal")],
)
def test_simulation_is_within_four_of_its_own_errors(loglik, name):
    case = CASES[name]
    exact = case.by_hand().expected.sum(axis=0)
    found = jm.information(loglik, "expected")(case.params, case.data)
    error = jm.information_error(loglik)(case.params, case.data)
    varies = (
        error > 1e-9 * np.abs(exact).max()
    )  # −∂²ℓ/∂β∂β' of the normal does not depend on y at all
    assert np.all(error[-1] > 0) and varies.any()
    assert np.all(np.abs(found - exact)[varies] <= 4 * error[varies])
    assert_allclose(found[~varies], exact[~varies], **CLOSE)


def test_the_monte_carlo_error_is_the_standard_deviation_of_the_draws():
    """For −∂²ℓ/∂σ² = Σ(3z² − 1)/σ² it is √(18 n / R)/σ², known in advance."""
    sigma = float(BETA_SIGMA["sigma"])
    error = jm.information_error(simulated_normal)(BETA_SIGMA, NORMAL)[-1, -1]
    truth = np.sqrt(18 * N / DRAWS) / sigma**2
    assert (
        0.8 < error / truth < 1.2
    )  # a standard deviation of 200 draws is good to 5 %: four of those


def test_a_fit_with_simulated_information_carries_the_error_of_each_standard_error():
    start = {"beta": np.zeros(3), "sigma": 1.0}
    fit = jm.fit(
        simulated_normal, start, NORMAL, constraints={"sigma": jm.positive}, vcov="expected"
    )
    beta = np.linalg.lstsq(X, NORMAL["y"], rcond=None)[0]
    sigma = np.sqrt(np.mean((NORMAL["y"] - X @ beta) ** 2))
    truth = np.sqrt([*(sigma**2 * np.diag(np.linalg.inv(X.T @ X))), sigma**2 / (2 * N)])
    error = fit.witness.stderr_error
    assert error[3] > 0
    assert np.all(np.abs(fit.se - truth) <= 4 * error + 1e-9)
    exact = jm.fit(
        declared_normal, start, NORMAL, constraints={"sigma": jm.positive}, vcov="expected"
    )
    assert np.all(exact.witness.stderr_error == 0)
    assert_allclose(exact.se, truth, rtol=1e-8)


def test_one_key_gives_one_answer():
    again = jm.with_response(normal, jm.simulation(draw_normal, key=jax.random.key(1), draws=DRAWS))
    other = jm.with_response(normal, jm.simulation(draw_normal, key=jax.random.key(9), draws=DRAWS))
    first, second, third = (
        jm.information(ll, "expected")(BETA_SIGMA, NORMAL)[3, 3]
        for ll in (simulated_normal, again, other)
    )
    assert first == second != third


def test_a_support_with_missing_values_gives_nan():
    """Counts up to 3 leave out part of the distribution; a sum over them would look like an information."""
    short = jm.with_response(poisson, jm.enumeration("y", [0, 1, 2, 3]))
    assert np.all(np.isnan(jm.information(short, "expected")(BETA, POISSON)))


def test_leverage_by_enumeration_equals_leverage_by_hand():
    best = newton(poisson_rows, POISSON)
    assert_allclose(
        jm.vcov(counting_poisson, "HC3")(best, POISSON),
        hc(poisson_rows(best, POISSON), "HC3"),
        rtol=1e-9,
    )


def test_leverage_by_simulation_approaches_leverage_by_hand():
    """200 draws leave about 1/√200 of each row's information, which is itself some 5 % of the whole."""
    best = newton(probit_rows, PROBIT)
    assert_allclose(
        np.diag(jm.vcov(simulated_probit, "HC3")(best, PROBIT)),
        np.diag(hc(probit_rows(best, PROBIT), "HC3")),
        rtol=0.02,
    )


def test_the_value_is_untouched_by_the_law():
    assert_allclose(
        jm.nll(enumerated_probit)(BETA, PROBIT), -CASES["probit"].by_hand().terms.sum(), rtol=1e-13
    )
    assert_allclose(
        jm.scores(simulated_normal)(BETA_SIGMA, NORMAL), CASES["normal"].by_hand().scores, **CLOSE
    )


def test_a_vector_of_predictors_has_an_expected_matrix():
    """Heteroscedastic normal with log σ linear in x: E[−∂²] = diag(1/σ², 2), in blocks X'WX."""

    def density(eta, row):
        return norm.logpdf(row["y"], eta["mu"], jnp.exp(eta["log_s"]))

    law = jm.exact(
        lambda eta, row: jnp.diag(
            jnp.stack([jnp.exp(-2 * eta["log_s"]), jnp.full_like(eta["mu"], 2.0)])
        )
    )
    loglik = jm.regression(density, {"mu": LINEAR, "log_s": jm.linear("x", "gamma")}, response=law)
    params = {**BETA, "gamma": np.array([0.1, 0.2, -0.3])}
    found = jm.information(loglik, "expected")(params, NORMAL)
    w = np.exp(-2 * X @ params["gamma"])
    truth = np.block([[X.T @ (w[:, None] * X), np.zeros((3, 3))], [np.zeros((3, 3)), 2 * X.T @ X]])
    assert_allclose(found, truth, **CLOSE)


def test_without_a_law_there_is_no_expected_information():
    bare = jm.regression(lambda eta, row: -0.5 * (row["y"] - eta["mu"]) ** 2, {"mu": LINEAR})
    for loglik in (logit, bare):
        with pytest.raises(
            ValueError, match="expected information needs the distribution of the response"
        ):
            jm.information(loglik, "expected")(BETA, LOGIT)
    with pytest.raises(
        ValueError, match="kind must be 'observed', 'expected' or 'opg'; got 'fisher'"
    ):
        jm.information(logit, "fisher")
    with pytest.raises(TypeError, match="needs a declared regression"):
        jm.with_response(logit, jm.exact(lambda eta, row: 1.0))
    with pytest.raises(ValueError, match="2 or more"):
        jm.simulation(draw_normal, key=jax.random.key(0), draws=1)


def test_scoring_reaches_the_maximum_of_probit():
    best = newton(probit_rows, PROBIT)
    fit = jm.fit(
        declared_probit, {"beta": np.zeros(3)}, PROBIT, solver=jm.solvers.Scoring(), vcov="expected"
    )
    assert_allclose(fit.x, best["beta"], rtol=1e-8)
    assert_allclose(
        fit.vcov, np.linalg.inv(probit_rows(best, PROBIT).expected.sum(axis=0)), rtol=1e-8
    )
