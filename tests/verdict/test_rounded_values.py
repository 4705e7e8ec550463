"""Likelihoods whose value is rounded, as by an intermediate result in single precision, while score and
Hessian are not: sound maxima, whose height jumps by 1e-7. The oracle is the same fit without rounding.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from numpy.testing import assert_allclose

import jaxmle as jm

from .answers import assert_fit

DISTANCE_IN_STDERR = (
    1e-3  # the step that is left over gains 5e-7, less than the values are rounded by
)


def single(terms):
    return terms.astype(jnp.float32).astype(terms.dtype)


def normal(t, d):
    return norm.logpdf(d["y"], t[0], jnp.exp(t[1]))


def normal_with_a_raw_scale(t, d):
    return norm.logpdf(d["y"], t[0], t[1])


def decay(t, d):
    return norm.logpdf(d["z"], t[0] * jnp.exp(-jnp.exp(t[1]) * d["x"]), jnp.exp(t[2]))


def saturation(t, d):
    return norm.logpdf(d["s"], t[0] * d["x"] / (t[1] + d["x"]), jnp.exp(t[2]))


FORMS = {
    "normal": (normal, [0.0, 0.0]),
    "normal_with_a_raw_scale": (normal_with_a_raw_scale, [0.0, 1.0]),
    "decay": (decay, [1.0, 0.0, 0.0]),
    "saturation": (saturation, [1.0, 1.0, 0.0]),
}


def data(seed):
    r = np.random.default_rng(seed)
    x = np.abs(r.normal(size=60))
    noise = 0.2 * r.normal(size=60)
    columns = {
        "y": r.normal(3, 2, 60),
        "z": 3 * np.exp(-x) + noise,
        "s": 3 * x / (2 / 3 + x) + noise,
    }
    return {"x": x, **columns}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", FORMS)
def test_a_maximum_whose_height_is_rounded_is_one(name, seed):
    loglik, start = FORMS[name]
    rounded = jm.fit(lambda t, d: single(loglik(t, d)), np.array(start), data(seed))
    exact = jm.fit(loglik, np.array(start), data(seed))
    assert_fit(exact, "CONVERGED")
    assert_fit(rounded, "CONVERGED")
    assert np.max(np.abs(rounded.x - exact.x) / exact.se) < DISTANCE_IN_STDERR
    assert_allclose(rounded.se, exact.se, rtol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_level_ground_whose_height_is_rounded_has_no_estimate(seed):
    """Only the sum of two parameters enters; a rounded height may look like one that falls."""
    fit = jm.fit(
        lambda t, d: single(normal(jnp.stack([t[0] + t[2], t[1]]), d)), np.zeros(3), data(seed)
    )
    assert_fit(fit, "UNIDENTIFIED", "SINGULAR")
    assert np.isnan(fit.se[[0, 2]]).all()
