"""What is asked of a fit again is asked of the likelihood that was fitted: another one, or a changed one, is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmle as jm

N = 30
X = np.column_stack([np.ones(N), np.linspace(-1, 1, N)])
DATA = {"x": X, "y": X @ [1.0, 0.5] + np.random.default_rng(0).normal(size=N)}
START = {"beta": np.zeros(2), "sigma": 1.0}
BOUND = {"sigma": jm.positive}


def normal(params, data):
    z = (data["y"] - data["x"] @ params["beta"]) / params["sigma"]
    return -0.5 * z**2 - jnp.log(params["sigma"])


def twice(params, data):
    return 2.0 * normal(params, data)


def redraw(key, params, data):
    noise = params["sigma"] * jax.random.normal(key, data["y"].shape)
    return {**data, "y": data["x"] @ params["beta"] + noise}


FIT = jm.fit(normal, START, DATA, constraints=BOUND)
FEW = {"key": 0, "replicates": 19, "progress": False}
ASKED = {
    "profile": lambda loglik: jm.profile(loglik, FIT, DATA, "sigma"),
    "contour": lambda loglik: jm.contour(loglik, FIT, DATA, ("sigma", "beta[0]")),
    "bootstrap": lambda loglik: jm.bootstrap(loglik, FIT, DATA, **FEW),
    "jackknife": lambda loglik: jm.jackknife(loglik, FIT, DATA, progress=False),
    "influence": lambda loglik: jm.influence(loglik, FIT, DATA),
    "tic": lambda loglik: jm.tic(loglik, FIT, DATA),
    "satterthwaite": lambda loglik: jm.satterthwaite(loglik, FIT, DATA),
    "calibrate": lambda loglik: jm.calibrate(loglik, FIT, DATA, redraw, **FEW),
    "vuong_test": lambda loglik: jm.vuong_test(normal, FIT, loglik, FIT, DATA),
    "stderr_by_cg": lambda loglik: jm.stderr_by_cg(loglik, FIT, DATA, "sigma"),
}


@pytest.mark.parametrize("name", ASKED)
def test_another_likelihood_is_refused(name):
    """Before, twice the likelihood gave an interval that was too short by √2, without a word."""
    with pytest.raises(ValueError, match="log-likelihood and the data that were fitted"):
        ASKED[name](twice)


def test_a_likelihood_that_changed_after_the_fit_is_refused():
    power = [1.0]

    def loglik(params, data):
        return power[0] * normal(params, data)

    fit = jm.fit(loglik, START, DATA, constraints=BOUND)
    jm.influence(loglik, fit, DATA)
    power[0] = 1.001
    with pytest.raises(ValueError, match="at the estimates those given have"):
        jm.influence(loglik, fit, DATA)


def test_a_batch_names_the_member():
    batch = {"x": np.stack([X, X]), "y": np.stack([DATA["y"], DATA["y"] + 1])}
    fits = jm.fit_batch(normal, START, batch, constraints=BOUND, progress=False)
    with pytest.raises(ValueError, match="at the estimates of member 0"):
        jm.influence(twice, fits, batch)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_same_likelihood_written_otherwise_is_taken(dtype):
    fit = jm.fit(normal, START, DATA, constraints=BOUND, dtype=dtype)

    def otherwise(params, data):
        r = data["y"] - params["beta"][0] - params["beta"][1] * data["x"][:, 1]
        return -0.5 * r * r / params["sigma"] ** 2 - jnp.log(params["sigma"])

    here, there = jm.influence(otherwise, fit, DATA), jm.influence(normal, fit, DATA)
    np.testing.assert_allclose(here.cook, there.cook, rtol=1e-3)
