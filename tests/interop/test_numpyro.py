"""``from_numpyro``: the likelihood of a model without its priors, its mode with them."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

RNG = np.random.default_rng(31)
N = 60
X = RNG.normal(size=(N, 2))
Y = (RNG.random(N) < 1 / (1 + np.exp(-X @ [1.0, -0.5]))).astype(float)
DATA = {"x": X, "y": Y}
DESIGN = {"x": np.column_stack([np.ones(N), X]), "y": Y}


def logistic(x, y=None):
    slopes = numpyro.sample("slopes", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    constant = numpyro.sample("constant", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=constant + x @ slopes), obs=y)


def test_the_likelihood_of_a_model_is_that_of_the_ready_one_row_by_row():
    fit = jm.fit(jm.from_numpyro(logistic, DATA), data=DATA, vcov="HC0")
    ready = jm.fit(jm.models.logistic(), data=DESIGN, vcov="HC0")  # needs a term a row
    assert fit.names == ("constant", "slopes[0]", "slopes[1]")
    assert_allclose(fit.loglik, ready.loglik, rtol=1e-12)
    assert_allclose(fit.x, ready.x, rtol=1e-7)
    assert_allclose(fit.se, ready.se, rtol=1e-7)


def test_with_priors_the_mode_is_that_of_a_ridge():
    mode = jm.fit(jm.from_numpyro(logistic, DATA, priors=True), data=DATA)
    ridge = jm.fit(jm.penalize(jm.models.logistic(), jm.ridge(0.25)), data=DESIGN)
    assert mode.mode == "MAP"
    assert_allclose(mode.x, ridge.x, rtol=1e-7)
    assert_allclose(mode.se, ridge.se, rtol=1e-7)


def rates(y):
    rate = numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    numpyro.sample("y", dist.Exponential(rate), obs=y)


def test_the_mode_of_a_positive_parameter_has_no_jacobian():
    """Gamma(3, 2) and n exponentials: (3 − 1 + n)/(2 + Σy); with the Jacobian of a logarithm it would be (3 + n)/(2 + Σy)."""
    y = np.array([1.0, 3.0, 0.5, 2.0])
    mode = jm.fit(jm.from_numpyro(rates, {"y": y}, priors=True), data={"y": y})
    assert_allclose(mode.params["rate"], (2 + 4) / (2 + y.sum()), rtol=1e-8)
    likelihood = jm.fit(jm.from_numpyro(rates, {"y": y}), data={"y": y})
    assert_allclose(likelihood.params["rate"], 4 / y.sum(), rtol=1e-8)


def test_supports_become_constraints_and_several_observed_sites_are_one_likelihood():
    counts = RNG.multinomial(10, [0.2, 0.3, 0.5], size=40)

    def joint(y, counts):
        scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
        shares = numpyro.sample("shares", dist.Dirichlet(jnp.ones(3)))
        numpyro.sample("y", dist.Normal(0.0, scale), obs=y)
        numpyro.sample("counts", dist.Multinomial(10, probs=jnp.tile(shares, (40, 1))), obs=counts)

    data = {"y": RNG.normal(size=40), "counts": counts}
    model = jm.from_numpyro(joint, data)
    assert model.constraints == {"scale": jm.positive, "shares": jm.simplex}
    fit = jm.fit(model, data=data)
    assert_allclose(fit.params["shares"], counts.mean(0) / 10, rtol=1e-7)
    assert_allclose(fit.params["scale"], np.sqrt(np.mean(data["y"] ** 2)), rtol=1e-7)


def discrete(y):
    which = numpyro.sample("which", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(which, 1.0), obs=y)


def dependent(y):
    top = numpyro.sample("top", dist.Exponential(1.0))
    low = numpyro.sample("low", dist.Uniform(0.0, top))
    numpyro.sample("y", dist.Normal(low, 1.0), obs=y)


def unobserved(y):
    numpyro.sample("mean", dist.Normal(0.0, 1.0))


def subsampled(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(y), subsample_size=2) as rows:
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (discrete, "discrete latent site"),
        (dependent, "depends on other parameters"),
        (unobserved, "no observed site"),
        (subsampled, "a fit uses all rows"),
    ],
)
def test_what_has_no_likelihood_of_all_rows_is_refused(model, words):
    with pytest.raises(ValueError, match=words):
        jm.from_numpyro(model, {"y": np.array([1.0, 2.0, 3.0])})


def test_data_that_are_no_arguments_are_refused():
    with pytest.raises(TypeError, match="a dictionary from the model's arguments"):
        jm.from_numpyro(rates, np.ones(3))
