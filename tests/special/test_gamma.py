"""log Γ and its derivatives against mpmath, from 1e-8 to 1e15."""

import jax
import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxmle import special

POINTS = np.concatenate(
    [np.logspace(-8, 15, 300), np.linspace(0.05, 20, 200), [1.0, 2.0, 10.0, np.nextafter(10.0, 0)]]
)


def exact(order):
    with mpmath.workdps(50):
        return np.array(
            [
                float(
                    mpmath.loggamma(mpmath.mpf(float(x)))
                    if order == 0
                    else mpmath.psi(order - 1, mpmath.mpf(float(x)))
                )
                for x in POINTS
            ]
        )


@pytest.mark.parametrize(
    ("function", "order"), [(special.gammaln, 0), (special.digamma, 1), (special.trigamma, 2)]
)
def test_values(function, order):
    with jax.enable_x64(True):
        assert_allclose(
            np.asarray(function(POINTS)), exact(order), rtol=2e-15, atol=1.5e-14 if order < 2 else 0
        )


@pytest.mark.parametrize("order", [1, 2, 3])
def test_derivatives_of_gammaln(order):
    function = special.gammaln
    for _ in range(order):
        function = jax.grad(function)
    with jax.enable_x64(True):
        assert_allclose(
            np.asarray(jax.vmap(function)(POINTS)),
            exact(order),
            rtol=1e-13,
            atol=1.5e-14 if order < 2 else 0,
        )


def test_outside_its_domain():
    with jax.enable_x64(True):
        assert np.isnan(special.gammaln(-0.5))
        assert np.isnan(special.digamma(-0.5))
        assert special.gammaln(0.0) == np.inf


@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
def test_whole_numbers_of_integer_type(wide):
    """x(x + 1)…(x + 9) and x² do not fit an integer of 32 bits."""
    x = np.array([1, 5, 8, 9, 10, 60_000])
    with jax.enable_x64(wide):
        for function, order in ((special.gammaln, 0), (special.digamma, 1), (special.trigamma, 2)):
            expected = [
                float(mpmath.loggamma(int(v)) if order == 0 else mpmath.psi(order - 1, int(v)))
                for v in x
            ]
            for kind in (np.int32, np.int64, np.uint16):
                found = np.asarray(function(x.astype(kind)))
                assert found.dtype == (np.float64 if wide else np.float32)
                assert_allclose(
                    found, expected, rtol=1e-13 if wide else 2e-6, atol=1.5e-14 if wide else 1e-5
                )
