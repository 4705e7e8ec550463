"""Fits of so many parameters that no Hessian is formed: L-BFGS ends them, and says what was not checked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.solvers import LBFGS
from jaxmle.solvers.methods import MAX_PARAMETERS_FOR_HESSIAN

N, K = 300, MAX_PARAMETERS_FOR_HESSIAN + 8
RIDGE = 2.0
RNG = np.random.default_rng(40)
X = RNG.normal(size=(N, K)) / np.sqrt(K)
Y = (RNG.random(N) < 1 / (1 + np.exp(-3 * X[:, :20].sum(axis=1)))).astype(float)
DATA = {"x": X, "y": Y}
START = {"beta": np.zeros(K)}


def logit(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


PENALISED = jm.penalize(logit, jm.ridge(RIDGE))


@pytest.fixture(scope="module")
def newton():
    """The ridge's maximum, its covariance and standard errors by Newton's steps in NumPy."""
    beta = np.zeros(K)
    for _ in range(12):
        p = 1 / (1 + np.exp(-X @ beta))
        information = X.T @ (X * (p * (1 - p))[:, None]) + RIDGE * np.eye(K)
        beta = beta + np.linalg.solve(information, X.T @ (Y - p) - RIDGE * beta)
    covariance = np.linalg.inv(information)
    return beta, covariance, np.sqrt(np.diag(covariance))


@pytest.fixture(scope="module")
def stationary():
    return jm.fit(PENALISED, START, DATA)


def test_lbfgs_ends_at_the_maximum_without_a_hessian_and_is_not_called_converged(
    stationary, newton
):
    beta, _, errors = newton
    assert stationary.verdict is jm.Status.STATIONARY and not stationary.converged
    assert np.max(np.abs(stationary.x - beta) / errors) < 1e-3
    assert np.all(np.isnan(stationary.se)) and np.isnan(stationary.pvalues).all()
    assert stationary.vcov.strides == stationary.hessian.strides == (0, 0)  # no memory of p²
    sentence = stationary.explain()
    assert "was not checked" in sentence and "vcov='observed'" in sentence
    assert str(stationary).startswith("STATIONARY: ")
    with pytest.raises(jm.FitError, match="was not checked"):
        stationary.check()


def test_conjugate_gradients_give_the_standard_errors_of_the_inverse_information(
    stationary, newton
):
    _, covariance, errors = newton
    some = jm.stderr_by_cg(PENALISED, stationary, DATA, ["beta[3]", "beta[500]"])
    chosen = [3, 500]
    assert some.names == ("beta[3]", "beta[500]") and not some.reason
    # the curvature is taken at the end of L-BFGS, some 1e-4 standard errors off the maximum
    assert_allclose(some.vcov, covariance[np.ix_(chosen, chosen)], rtol=1e-4, atol=1e-6)
    assert_allclose(some.stderr, errors[chosen], rtol=1e-4)


def test_a_record_without_curvature_is_stored_and_read_again(stationary, tmp_path):
    stationary.save(tmp_path / "many.npz")
    again = jm.Fit.load(tmp_path / "many.npz")
    assert again.verdict is jm.Status.STATIONARY and again.evaluation == stationary.evaluation
    np.testing.assert_array_equal(again.x, stationary.x)


@pytest.mark.thorough
def test_a_covariance_that_is_asked_for_takes_the_hessian(newton):
    fit = jm.fit(PENALISED, START, DATA, vcov="observed")
    assert fit.converged
    assert_allclose(fit.se, newton[2], rtol=1e-6)


def test_too_few_steps_say_how_far_it_is(stationary, capsys):
    fit = jm.fit(PENALISED, START, DATA, solver=LBFGS(steps=3), progress=True)
    assert fit.verdict is jm.Status.MAX_STEPS and int(fit.steps) == 3
    assert "approximate curvature of L-BFGS" in fit.explain() and "LBFGS(steps=" in fit.explain()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[0].startswith("jaxmle.fit: L-BFGS step 1, log-likelihood")
    assert "in 1 steps" in lines[-1] and "SE to go" in lines[-1] and "inf" not in "".join(lines)


def test_a_direction_that_rises_or_is_flat_has_no_standard_error():
    """Conjugate gradients meet it, also where the score is zero: the sum of a and b is all that is known."""
    data = np.array([1.0, 2.0, 4.0])

    def only_the_sum(params, y):
        return -0.5 * (y - params["a"] - params["b"]) ** 2 - 0.5 * params["c"] ** 2

    fit = jm.fit(only_the_sum, {"a": 0.0, "b": 0.0, "c": 1.0}, data)
    found = jm.stderr_by_cg(only_the_sum, fit, data, ["a", "c"])
    assert np.isnan(found.stderr[0]) and "singular or indefinite" in found.reason
    assert_allclose(found.stderr[1], 1 / np.sqrt(3), rtol=1e-12)

    def saddle(params, y):
        return -0.5 * (y - params["a"]) ** 2 + 0.1 * params["b"] ** 2

    there = jm.fit(lambda p, y: saddle({**p, "b": 0.0}, y), {"a": 0.0}, data)
    assert there.converged
    end = jm.fit(jm.fix(saddle, {"b": 0.0}), {"a": 0.0, "b": 0.0}, data)
    assert np.isnan(jm.stderr_by_cg(saddle, end, data, "b").stderr[0])


def test_a_start_at_which_nothing_is_finite_is_nonfinite():
    fit = jm.fit(lambda p, d: jnp.log(p["a"].sum() - 1.0) - d, {"a": np.zeros(K)}, np.ones(3))
    assert fit.verdict is jm.Status.NONFINITE and np.isnan(fit.loglik) and np.isnan(fit.x).all()


def test_names_that_the_fit_does_not_have_and_other_data_are_refused(stationary):
    with pytest.raises(ValueError, match="no parameter is called 'gamma'"):
        jm.stderr_by_cg(PENALISED, stationary, DATA, "gamma")
    with pytest.raises(ValueError, match="not those of the fit"):
        jm.stderr_by_cg(PENALISED, stationary, DATA | {"y": 1 - Y}, "beta[0]")
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda y: jm.stderr_by_cg(PENALISED, stationary, DATA | {"y": y}, "beta"))(Y)
