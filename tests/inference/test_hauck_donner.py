"""The Hauck-Donner effect at its known tipping point and in the two-sample table where the Wald statistic falls."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.inference.hypotheses.hauck_donner import hauck_donner
from jaxmle.inference.hypotheses.wald import wald_test
from tests.likelihoods import logit

from .hypothesis_cases import DATA, START, stacked

TIPPING = 2.399357280515468  # of a logit: (θ/2) tanh(θ/2) = 1 (Yee 2022, section 3.1)


def binomial(params, data):
    eta = params["a"] + params["b"] * data["x"]
    return gammaln(data["m"] + 1) + data["y"] * eta - data["m"] * jnp.logaddexp(0.0, eta)


def table(successes):
    return {
        "x": np.array([0.0, 1.0]),
        "m": np.array([25.0, 25.0]),
        "y": np.array([12.5, successes]),
    }


def test_one_proportion_tips_where_theory_says():
    """z' ∝ 1 − (θ/2)tanh(θ/2), for either sign of θ."""
    theta = np.array([0.4, -1.5, TIPPING - 1e-4, TIPPING + 1e-4, -3.0])
    one = jm.fix(binomial, {"b": 0.0})
    data = [
        {"x": np.zeros(2), "m": np.full(2, 50.0), "y": np.full(2, 50 / (1 + np.exp(-t)))}
        for t in theta
    ]
    fits = stacked([jm.fit(one, {"a": 0.1, "b": 0.0}, d) for d in data])
    found = hauck_donner(one, fits, {k: np.stack([d[k] for d in data]) for k in data[0]})
    assert_allclose(found.slope[:, 0], 1 - theta / 2 * np.tanh(theta / 2), atol=1e-8)
    assert found.flag[:, 0].tolist() == [False, False, False, True, True]
    assert np.all(np.isnan(found.slope[:, 1])) and not found.flag[:, 1].any()


def test_two_proportions_where_the_wald_statistic_falls():
    """12.5 of 25 against y of 25: z is 2.9 at 23, smaller at 24.5; the slope with the first group held, in closed form."""
    z = {}
    for y in (20.0, 23.0, 24.5):
        fit = jm.fit(binomial, {"a": 0.0, "b": 0.0}, table(y))
        found = hauck_donner(binomial, fit, table(y))
        q = y / 25
        v0, v1 = 4 / 25, 1 / (25 * q * (1 - q))
        theta = np.log(q / (1 - q))
        assert_allclose(found.slope[1], 1 - 0.5 * theta * v1 * (2 * q - 1) / (v0 + v1), rtol=1e-6)
        assert_allclose(found.zvalues[1], fit.zvalues[1], rtol=1e-9)
        assert_allclose(found.zvalues[1] ** 2, wald_test(fit, "b").statistic, rtol=1e-9)
        z[y] = found.zvalues[1], bool(found.flag[1])
    assert z[20.0][0] < z[23.0][0] > z[24.5][0]
    assert (z[20.0][1], z[24.5][1]) == (False, True)
    assert "Hauck-Donner effect in b" in str(
        hauck_donner(binomial, jm.fit(binomial, {"a": 0.0, "b": 0.0}, table(24.5)), table(24.5))
    )


def test_a_regression_of_ordinary_effects_is_not_flagged_and_other_values_can_be_asked():
    fit = jm.fit(logit, START, DATA)
    found = hauck_donner(logit, fit, DATA)
    assert not found.flag.any() and np.all(found.slope > 0.4)
    assert "no Hauck-Donner effect" in str(found)
    assert_allclose(hauck_donner(logit, fit, DATA, value=float(fit.x[3])).slope[3], 1.0)
    with pytest.raises(ValueError, match="finite"):
        hauck_donner(logit, fit, DATA, value=np.nan)
    with pytest.raises(ValueError, match="not those of the fit"):
        hauck_donner(logit, fit, {"y": 1 - DATA["y"], "x": DATA["x"]})
