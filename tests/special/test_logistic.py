"""softplus and sigmoid against mpmath, with two derivatives, in both precisions and in the tails."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxmle import special

POINTS = np.concatenate(
    [np.linspace(-40, 40, 161), [-745.0, -300.0, -1e-300, 0.0, 1e-12, 300.0, 1e6]]
)


def exact(order):
    with mpmath.workdps(60):

        def at(x):
            t = mpmath.e ** mpmath.mpf(float(x))
            s = t / (1 + t)
            return [
                mpmath.log1p(t),
                s,
                s / (1 + t),
                s / (1 + t) * (1 - t) / (1 + t),
                s / (1 + t) * (1 - 6 * s + 6 * s**2),
            ][order]

        return np.array([float(at(x)) for x in POINTS])


def derivative(function, order):
    for _ in range(order):
        function = jax.grad(function)
    return jax.vmap(function)


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_softplus_and_its_derivatives(order):
    with jax.enable_x64(True):
        found = np.asarray(derivative(special.softplus, order)(POINTS))
    assert_allclose(found, exact(order), rtol=1e-15, atol=1e-310 if order < 3 else 1e-16)


def test_sigmoid_is_its_slope_and_log_sigmoid_its_mirror():
    with jax.enable_x64(True):
        assert_allclose(np.asarray(special.sigmoid(POINTS)), exact(1), rtol=1e-15, atol=1e-310)
        assert_allclose(
            np.asarray(special.log_sigmoid(-POINTS)), -exact(0), rtol=1e-15, atol=1e-310
        )


def test_single_precision():
    points = POINTS[np.abs(POINTS) < 80].astype(np.float32)
    found = np.asarray(special.softplus(jnp.asarray(points)))
    assert found.dtype == np.float32
    assert_allclose(found, np.logaddexp(points.astype(float), 0), rtol=3e-7)


def test_reverse_mode_and_vmap():
    with jax.enable_x64(True):
        slope = jax.grad(lambda x: jnp.sum(special.softplus(x)))(POINTS)
        assert_allclose(np.asarray(slope), exact(1), rtol=1e-15, atol=1e-310)
