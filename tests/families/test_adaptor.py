"""Distributions of other libraries as families."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import families as jf


class Softplus:
    """The shape of a TFP bijector."""


class Properties:
    """The shape of TFP's ``ParameterProperties``."""

    is_preferred = True

    def default_constraining_bijector_fn(self):
        return Softplus()


class Rate:
    """The shape of a TFP or distrax distribution: ``sample(seed=)``, moments as methods, ``quantile``."""

    def __init__(self, rate):
        self.rate = rate

    @classmethod
    def parameter_properties(cls):
        return {"rate": Properties()}

    def log_prob(self, y):
        return jnp.log(self.rate) - self.rate * y

    def cdf(self, y):
        return -jnp.expm1(-self.rate * y)

    def quantile(self, q):
        return -jnp.log1p(-q) / self.rate

    def sample(self, sample_shape=(), seed=None):
        return jax.random.exponential(seed, sample_shape) / self.rate

    def mean(self):
        return 1 / self.rate

    def variance(self):
        return 1 / self.rate**2


def test_a_distribution_with_parameter_properties():
    family, y = jf.from_distribution(Rate), np.array([1.0, 2.0, 6.0])
    assert family.constraints == {"rate": jm.positive}
    fit = jm.fit(family, data=y)
    assert_allclose(
        [fit.params["rate"], fit.stderr["rate"]], [1 / 3, 1 / 3 / np.sqrt(3)], rtol=1e-8
    )
    assert_allclose(family.log_sf({"rate": 2.0}, 1.0), -2.0, rtol=1e-6)
    assert_allclose(family.quantile({"rate": 2.0}, 0.5), np.log(2) / 2, rtol=1e-6)
    assert_allclose(family.mean({"rate": 2.0}), 0.5)
    assert family.sample({"rate": 2.0}, jax.random.key(0), (3, 2)).shape == (3, 2)


def test_numpyros_constraints_are_read():
    dist = pytest.importorskip("numpyro.distributions")
    gamma = jf.from_distribution(dist.Gamma)
    assert gamma.constraints == {"concentration": jm.positive, "rate": jm.positive}
    y = np.array([1.0, 2.0, 6.0, 0.5])
    fit, own = jm.fit(gamma, data=y), jm.fit(jf.gamma, data=y)
    assert_allclose(fit.loglik, own.loglik, rtol=1e-8)
    assert_allclose(fit.params["concentration"], own.params["shape"], rtol=1e-6)
    assert gamma.log_prob({"concentration": 2.0, "rate": 1.0}, -1.0) == -np.inf
    normal = jf.from_distribution(
        dist.MultivariateNormal, known={}, constraints={"covariance_matrix": jm.covariance}
    )
    assert set(normal.constraints) == {"loc", "covariance_matrix"}
    binomial = jf.from_distribution(dist.BinomialProbs, known={"total_count": None}, discrete=True)
    assert binomial.constraints == {"probs": jm.interval(0.0, 1.0)}
    data = {"y": np.array([1, 2, 3]), "total_count": np.array([4, 4, 4])}
    assert_allclose(jm.fit(binomial, data=data).params["probs"], 0.5, rtol=1e-8)


def test_what_is_not_declared_is_asked_for():
    with pytest.raises(ValueError, match="declares no constraints"):
        jf.from_distribution(lambda loc, scale: None)
    with pytest.raises(TypeError, match="not one made already"):
        jf.from_distribution(Rate(1.0))
    with pytest.raises(TypeError, match="must return an object with log_prob"):
        jf.from_distribution(lambda scale: scale, {"scale": jm.positive}).log_prob(
            {"scale": 1.0}, 1.0
        )
