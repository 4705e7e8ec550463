"""Logistic and probit regressions as most people write them: 0·log 0 is NaN where a probability
rounds to 0 or 1, and separated data lead there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import xlog1py, xlogy
from jax.scipy.stats import norm
from numpy.testing import assert_allclose

import jaxmle as jm

from .answers import assert_fit


def logs(p, y):
    return y * jnp.log(p) + (1 - y) * jnp.log(1 - p)


def powers(p, y):
    return jnp.log(p**y * (1 - p) ** (1 - y))


def guarded_product(p, y):
    return xlogy(y, p) + xlog1py(1 - y, -p)


def sigmoid(eta):
    return 1 / (1 + jnp.exp(-eta))


def written(probability, form):
    return lambda t, d: form(probability(t[0] + t[1] * d["x"]), d["y"])


# Success and failure at x = 0: the slope is infinite, the intercept of the limit is zero.
QUASI = {"x": np.array([-2, -1, 0, 0, 1, 2.0]), "y": np.array([0, 0, 0, 1, 1, 1.0])}
NARROW = {"x": np.array([-1.2, -1, 0, 0, 1, 1.2]), "y": QUASI["y"]}
STARTS = [[0.0, 0.0], [0.5, 0.7], [1.0, 1.0]]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("data", [QUASI, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("form", [logs, powers, guarded_product])
def test_a_separated_logit_that_is_nan_where_p_rounds_to_one_was_called_singular(form, data, start):
    """The limit is a coin for two rows: ℓ = 2 log ½, and the variance of the intercept is 2."""
    fit = jm.fit(written(sigmoid, form), np.array(start), data)
    assert_fit(fit, "SEPARATED", x=[0.0, np.inf], se=[np.sqrt(2), np.nan], atol=1e-6)
    assert_allclose(fit.loglik, 2 * np.log(0.5), atol=1e-6)
    assert fit.steps < 40  # shorter and shorter steps towards the NaN took 148


@pytest.mark.parametrize("start", STARTS)
def test_a_separated_probit_that_is_nan_where_p_rounds_to_one_has_an_infinite_slope(start):
    fit = jm.fit(written(norm.cdf, logs), np.array(start), NARROW)
    variance = 1 / (2 * norm.pdf(0.0) ** 2 * 4)
    assert_fit(fit, "SEPARATED", x=[0.0, np.inf], se=[np.sqrt(variance), np.nan], atol=1e-6)


@pytest.mark.parametrize("start", STARTS)
def test_an_intercept_that_moves_towards_zero_as_far_as_nan_was_called_infinite(start):
    """Complete separation, symmetric about zero: the sign of the intercept is not defined."""
    x = np.array([-1.2, -1, -1, 1, 1, 1.2])
    fit = jm.fit(written(norm.cdf, logs), np.array(start), {"x": x, "y": (x > 0) * 1.0})
    assert_fit(fit, "SEPARATED", x=[np.nan, np.inf], loglik=0.0, atol=1e-6)
    assert np.isnan(fit.x[0])


def test_a_separated_logit_that_is_nan_on_the_way_is_the_same_in_a_batch_and_under_jit():
    loglik = written(sigmoid, logs)
    alone = jm.fit(loglik, np.zeros(2), QUASI)
    batch = jm.fit_batch(
        loglik, np.zeros(2), jax.tree.map(lambda leaf: np.stack([leaf] * 3), QUASI)
    )
    with jax.enable_x64(True):
        traced = jax.jit(lambda d: jm.fit(loglik, jnp.zeros(2), d))(QUASI)
    assert alone.status == "SEPARATED"
    assert (batch.status == "SEPARATED").all()
    assert traced.status == int(jm.Status.SEPARATED)
    assert_allclose(batch.x[0], alone.x, atol=1e-9)
    assert_allclose(traced.x, alone.x, atol=1e-9)


def test_separated_data_with_a_row_far_out_that_is_nan_soon_were_called_unbounded():
    """A row far from the others rounds to one while those near zero still matter."""
    x = np.array([-40, -1, -0.5, 0.5, 1, 40.0])
    fit = jm.fit(written(sigmoid, logs), np.zeros(2), {"x": x, "y": (x > 0) * 1.0})
    assert fit.status == "NONFINITE"
    assert "The search had come to theta[0] = " in fit.explain()
    assert "as with separated data" in fit.explain()


def test_a_separated_fit_that_is_nan_further_out_names_the_row_and_the_remedy():
    fit = jm.fit(written(sigmoid, logs), np.zeros(2), QUASI)
    assert np.abs(QUASI["x"][int(fit.witness.row)]) == 2.0
    for words in ("NaN at row", "log_sigmoid", "theta[1] → +∞"):
        assert words in fit.explain()
