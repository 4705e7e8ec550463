"""``Fit.to_arviz``: draws with the mean and covariance of the estimate, and the terms of the rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

pytest.importorskip("arviz")

RNG = np.random.default_rng(17)
DATA = {"x": np.column_stack([np.ones(150), RNG.normal(size=150)]), "y": RNG.gamma(3.0, size=150)}
MODEL = jm.models.gamma()
DRAWS = 4000


@pytest.fixture(scope="module")
def fit():
    return jm.fit(MODEL, data=DATA)


def test_draws_have_the_mean_and_the_covariance_of_the_estimate(fit):
    posterior = fit.to_arviz(draws=DRAWS, key=3)["posterior"]
    beta = posterior["beta"].values[0]
    assert beta.shape == (DRAWS, 2)
    # Monte-Carlo errors of a mean and of a standard deviation, four of each
    assert_allclose(beta.mean(0), fit.x[:2], atol=4 * np.max(fit.se[:2]) / np.sqrt(DRAWS))
    assert_allclose(beta.std(0), fit.se[:2], rtol=4 / np.sqrt(2 * DRAWS))
    log_shape = np.log(posterior["shape"].values[0])  # the free scale of what is positive
    assert_allclose(log_shape.std(), fit.se[2] / fit.x[2], rtol=4 / np.sqrt(2 * DRAWS))
    assert "not a posterior" in posterior.attrs["draws"]


def test_the_log_likelihood_of_each_row_is_that_of_the_model(fit):
    converted = fit.to_arviz(MODEL, DATA, draws=3)
    posterior = converted["posterior"]
    params = {name: posterior[name].values[0, 1] for name in ("beta", "shape")}
    terms = converted["log_likelihood"]["terms"].values
    assert_allclose(terms[0, 1], MODEL(params, DATA), rtol=1e-12)


def test_draws_of_a_simplex_lie_on_it_and_held_entries_stay():
    counts = RNG.multinomial(5, [0.2, 0.3, 0.5], size=60).astype(float)

    def multinomial(params, data):
        return (
            data @ np.log(params["w"])
            if isinstance(params["w"], np.ndarray)
            else data @ _log(params["w"])
        )

    start = {"w": np.full(3, 1 / 3), "scale": 2.0}
    fitted = jm.fit(
        jm.fix(multinomial, {"scale": 2.0}), start, counts, constraints={"w": jm.simplex}
    )
    posterior = fitted.to_arviz(draws=500)["posterior"]
    assert_allclose(posterior["w"].values[0].sum(axis=1), 1.0, rtol=1e-12)
    assert_allclose(posterior["w"].values[0].std(axis=0), fitted.se[1:], rtol=0.15)
    assert np.all(posterior["scale"].values == 2.0)


def _log(w):
    import jax.numpy as jnp

    return jnp.log(w)


def test_replicates_of_a_bootstrap_take_the_place_of_draws(fit):
    replicates = jm.bootstrap(MODEL, fit, DATA, key=0, replicates=19, progress=False)
    posterior = fit.to_arviz(bootstrap=replicates)["posterior"]
    np.testing.assert_array_equal(posterior["shape"].values[0], replicates.replicates[:, 2])
    assert "bootstrap" in posterior.attrs["draws"]


def test_names_of_a_formula_are_coordinates():
    frame = jm.from_formula("y ~ a", {"y": DATA["y"], "a": DATA["x"][:, 1]})
    posterior = frame.fit(MODEL).to_arviz(draws=2)["posterior"]
    assert posterior["beta"].coords["beta_dim_0"].values.tolist() == ["Intercept", "a"]


def test_what_has_no_draws_is_refused(fit):
    with pytest.raises(ValueError, match="not those of the fit"):
        fit.to_arviz(MODEL, DATA | {"y": DATA["y"] + 1})
    with pytest.raises(ValueError, match="no covariance to draw from"):
        jm.fit(MODEL, data=DATA, vcov=None).to_arviz()
    separated = jm.fit(jm.models.logistic(), data={"x": np.ones((3, 1)), "y": np.ones(3)})
    with pytest.raises(ValueError, match="has not converged"):
        separated.to_arviz()
