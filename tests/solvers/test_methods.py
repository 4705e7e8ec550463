"""Every solver reaches the same maximum and ends with the same standard errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import Status
from jaxmle.solvers import BHHH, LBFGS, Newton, Optax, Scoring
from tests.likelihoods import logit

N = 80
X = np.column_stack([np.ones(N), np.random.default_rng(60).normal(size=(N, 2))])
Y = (
    np.random.default_rng(61).random(N) < 1 / (1 + np.exp(-X @ np.array([0.3, 1.0, -0.5])))
).astype(float)
DATA = {"x": X, "y": Y}
START = {"beta": np.zeros(3)}


MODEL = jm.with_response(logit, jm.enumeration("y", [0.0, 1.0]))


def irls():
    """Iteratively reweighted least squares, written out: the textbook's estimate and its covariance."""
    beta = np.zeros(3)
    for _ in range(30):
        p = 1 / (1 + np.exp(-X @ beta))
        information = X.T @ (X * (p * (1 - p))[:, None])
        beta = beta + np.linalg.solve(information, X.T @ (Y - p))
    return beta, np.sqrt(np.diag(np.linalg.inv(information)))


BETA, ERROR = irls()

SOLVERS = {
    "newton": Newton(),
    "scoring": Scoring(),
    "bhhh": BHHH(),
    "lbfgs": LBFGS(),
    "adam": Optax(optax.adam(0.1)),
    "adam_few_steps": Optax(optax.adam(0.1), steps=40),
    "plain_optax": optax.sgd(0.02),
    "newton_clipped": optax.chain(jm.solvers.newton(), optax.clip_by_global_norm(1.0)),
    "newton_scaled": optax.chain(jm.solvers.newton(), optax.scale(0.5)),
    "scoring_optax": optax.chain(jm.solvers.scoring(), optax.clip_by_global_norm(1.0)),
    "bhhh_optax": optax.chain(jm.solvers.bhhh(), optax.clip_by_global_norm(1.0)),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_reaches_the_maximum(name):
    fit = jm.fit(MODEL, START, DATA, solver=SOLVERS[name])
    assert fit.converged, fit.explain()
    assert np.max(np.abs(fit.x - BETA) / ERROR) < 1e-7
    assert_allclose(fit.se, ERROR, rtol=1e-8)
    assert fit.steps > 0


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["scoring", "newton_clipped", "lbfgs"])
def test_a_solver_does_the_same_under_jit(name):
    with jax.enable_x64(True):
        fit = jax.tree.map(
            np.asarray, jax.jit(lambda data: jm.fit(MODEL, START, data, solver=SOLVERS[name]))(DATA)
        )
    assert fit.verdict == Status.CONVERGED, fit.explain()
    assert np.max(np.abs(fit.x - BETA) / ERROR) < 1e-7
    assert_allclose(fit.se, ERROR, rtol=1e-8)


@pytest.mark.parametrize("name", ["newton", "scoring", "bhhh", "lbfgs", "adam"])
def test_no_solver_calls_a_separated_sample_converged(name):
    fit = jm.fit(MODEL, START, DATA | {"y": (X[:, 1] > 0).astype(float)}, solver=SOLVERS[name])
    assert not fit.converged
    assert np.isnan(fit.se).all(), fit.explain()
    assert fit.verdict in (Status.SEPARATED, Status.MAX_STEPS), fit.explain()


def test_the_rule_chooses_newton_for_few_and_lbfgs_for_many():
    from jaxmle.solvers.methods import choose

    assert choose(None, 128) == Newton()
    assert choose(None, 129) == LBFGS()
    assert choose(Scoring(), 500) == Scoring()
    assert isinstance(choose(optax.adam(0.1), 3), Optax)


def test_a_large_problem_goes_by_lbfgs_and_ends_exactly():
    """160 normal means and their analytic estimate."""
    k, per = 160, 3
    y = np.random.default_rng(62).normal(size=(per, k)) + np.linspace(-2, 2, k)
    fit = jm.fit(
        lambda p, d: -0.5 * jnp.sum((d - p["m"][None, :]) ** 2, axis=1), {"m": np.zeros(k)}, y
    )
    assert fit.converged, fit.explain()
    assert_allclose(fit.params["m"], y.mean(axis=0), atol=1e-9)
    assert_allclose(fit.stderr["m"], 1 / np.sqrt(per), rtol=1e-9)


# ---------------------------------------------------------------- directions in optax's form


def test_directions_solve_against_their_curvature():
    curvature, gradient = (
        np.array([[4.0, 1.0], [1.0, 3.0]]),
        {"a": jnp.asarray([1.0]), "b": jnp.asarray(2.0)},
    )
    expected = -np.linalg.solve(curvature, [1.0, 2.0])
    for make, key in (
        (jm.solvers.newton, "hessian"),
        (jm.solvers.scoring, "expected"),
        (jm.solvers.bhhh, "opg"),
    ):
        transformation = make()
        updates, _ = transformation.update(
            gradient, transformation.init(gradient), gradient, **{key: jnp.asarray(curvature)}
        )
        assert_allclose(np.concatenate([updates["a"], [updates["b"]]]), expected, rtol=1e-6)


def test_a_direction_without_its_curvature_says_what_it_needs():
    transformation = jm.solvers.newton()
    with pytest.raises(ValueError, match="hessian="):
        transformation.update(jnp.zeros(2), transformation.init(jnp.zeros(2)))


def test_newton_in_an_optax_loop_of_the_users_own_reaches_the_maximum():
    transformation = optax.chain(jm.solvers.newton(), optax.clip_by_global_norm(1.0))
    with jax.enable_x64(True):
        beta = {"beta": jnp.zeros(3)}
        state = transformation.init(beta)
        for _ in range(12):
            gradient = jax.grad(jm.nll(logit))(beta, DATA)
            updates, state = transformation.update(
                gradient, state, beta, hessian=-jm.hessian(logit)(beta, DATA)
            )
            beta = optax.apply_updates(beta, updates)
        assert_allclose(np.asarray(beta["beta"]), BETA, atol=1e-9)
