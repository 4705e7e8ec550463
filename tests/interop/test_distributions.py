"""Distributions of distreqx and TensorFlow Probability as families."""

import warnings

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import families as jf

Y = np.array([1.0, 2.0, 6.0, 0.5, 3.0])
SCALED = {"loc": jm.free, "scale": jm.positive}


def distreqx():
    return pytest.importorskip("distreqx.distributions").Normal


def probability():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks jax for names that are about to be dropped
        try:
            from tensorflow_probability.substrates.jax.distributions import Normal
        except (ImportError, AttributeError):
            pytest.skip("TensorFlow Probability does not import with this jax")
    return Normal


@pytest.mark.parametrize("package", [distreqx, probability])
def test_a_normal_of_another_package_is_ours(package):
    theirs = jf.from_distribution(package(), SCALED)
    fits = [jm.fit(family, {"loc": 1.0, "scale": 1.0}, Y) for family in (theirs, jf.normal)]
    assert_allclose(fits[0].x, fits[1].x, rtol=1e-8)
    assert_allclose(fits[0].se, fits[1].se, rtol=1e-8)
    params = {"loc": 0.3, "scale": 2.0}
    assert_allclose(theirs.log_cdf(params, Y), jf.normal.log_cdf(params, Y), rtol=1e-6)
    assert theirs.sample(params, jax.random.key(0), (4,)).shape == (4,)


@pytest.mark.parametrize("package", [distreqx, probability])
def test_censored_normals_of_another_package_are_ours(package):
    theirs = jf.censored(jf.from_distribution(package(), SCALED))
    data = {"lower": Y, "upper": np.where(Y > 2.5, np.inf, Y)}
    start = {"loc": 1.0, "scale": 1.0}
    fits = [jm.fit(family, start, data) for family in (theirs, jf.censored(jf.normal))]
    assert_allclose(fits[0].x, fits[1].x, rtol=1e-7)
