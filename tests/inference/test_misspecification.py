"""The information-matrix test against the auxiliary regression by hand, and its verdict on right and wrong models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.inference.hypotheses.information_matrix import information_matrix_test
from jaxmle.inference.hypotheses.record import Reason
from tests.likelihoods import normal

RNG = np.random.default_rng(17)
GOOD, BAD = (
    RNG.normal(2.0, 1.5, size=50),
    RNG.exponential(1.5, size=50),
)  # n R² is at most n: twenty rows could hardly tell
START, BOUNDS = {"mu": 1.0, "sigma": 1.0}, {"sigma": jm.positive}


def draw(key, params, data):
    return params["mu"] + params["sigma"] * jax.random.normal(key, data.shape)


def test_the_statistic_is_the_regression_of_ones_on_indicators_and_scores():
    """For a normal the indicators are, up to scale, z² − 1, z³ − 3z and z⁴ − 5z² + 2 (with z² − 1 and z among the scores), by lstsq."""
    fit = jm.fit(normal, START, GOOD, constraints=BOUNDS)
    found = information_matrix_test(normal, fit, GOOD, draw, key=1, replicates=99)
    z = (GOOD - GOOD.mean()) / GOOD.std()
    columns = np.column_stack([z**2 - 1, z**3 - 3 * z, z**4 - 5 * z**2 + 2, z])
    ones = np.ones(50)
    fitted = columns @ np.linalg.lstsq(columns, ones, rcond=None)[0]
    assert_allclose(
        [found.statistic, found.df], [ones @ fitted, 2], rtol=1e-6
    )  # the second indicator of μ is its score of σ
    assert found.replicates == 99 and found.law == "bootstrap"
    assert 0.05 < found.pvalue <= 1
    again = information_matrix_test(normal, fit, GOOD, draw, key=jax.random.key(1), replicates=99)
    assert again.pvalue == found.pvalue
    assert "99 simulated data sets" in str(found)


def test_a_wrong_model_is_told():
    fit = jm.fit(normal, START, BAD, constraints=BOUNDS)
    assert information_matrix_test(normal, fit, BAD, draw, key=2, replicates=99).pvalue <= 0.05


def test_what_cannot_be_tested_is_refused():
    fit = jm.fit(normal, START, GOOD, constraints=BOUNDS)
    stopped = jm.fit(normal, START, GOOD, constraints=BOUNDS, max_steps=1)
    assert information_matrix_test(normal, stopped, GOOD, draw, key=1).code == Reason.NOT_CONVERGED
    with pytest.raises(ValueError, match="19 or more"):
        information_matrix_test(normal, fit, GOOD, draw, key=1, replicates=10)
    with pytest.raises(ValueError, match="unchanged"):
        information_matrix_test(
            normal, fit, GOOD, lambda key, params, data: data, key=1, replicates=19
        )
    with pytest.raises(ValueError, match="structure and shapes"):
        information_matrix_test(
            normal, fit, GOOD, lambda key, params, data: data[:3], key=1, replicates=19
        )
    with pytest.raises(ValueError, match="not those of the fit"):
        information_matrix_test(normal, fit, BAD, draw, key=1)
    with pytest.raises(TypeError, match="sample"):
        information_matrix_test(normal, fit, GOOD, None, key=1)
    with pytest.raises(ValueError, match="weighted"):
        information_matrix_test(
            jm.weight(normal, jm.frequency(jnp.ones(50))), fit, GOOD, draw, key=1
        )
    with pytest.raises(ValueError, match="penalised"):
        information_matrix_test(jm.penalize(normal, jm.ridge(1.0)), fit, GOOD, draw, key=1)
