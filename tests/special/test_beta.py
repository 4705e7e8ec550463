"""log B and its derivatives against mpmath, from 1e-8 to 1e15 in either argument."""

import jax
import mpmath as mp
import numpy as np
from numpy.testing import assert_allclose

from jaxmle import special
from tests.special.oracle import assert_close, derivatives


def points():
    rng = np.random.default_rng(1)
    a, b = 10 ** rng.uniform(-8, 15, (2, 2000))
    a[500:1500], b[800:1500] = 10 ** rng.uniform(-1, 2, 1000), 10 ** rng.uniform(-1, 2, 700)
    a[:20], b[:20] = np.linspace(8, 8.2, 20), 8.1  # jax's betaln is off by 2e-7 here
    a[20:40] = b[20:40]  # its second derivative is wrong where a = b
    return a, b


def jet(a, b):
    psi = mp.psi
    both, slope = psi(0, a + b), psi(1, a + b)
    return (
        mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b),
        psi(0, a) - both,
        psi(0, b) - both,
        psi(1, a) - slope,
        -slope,
        psi(1, b) - slope,
    )


def test_value_and_two_derivatives():
    a, b = points()
    with mp.workdps(60):
        exact = np.array(
            [
                [float(v) for v in jet(mp.mpf(float(s)), mp.mpf(float(t)))]
                for s, t in zip(a, b, strict=True)
            ]
        )
    assert_close(derivatives(special.betaln, (a, b)), exact, (a, b), (1e-13, 1e-13, 1e-13))


def test_third_derivative_and_edges():
    with jax.enable_x64(True):
        third = jax.jit(jax.grad(jax.grad(jax.grad(special.betaln))))(3.0, 1e5)
        assert_allclose(third, float(mp.psi(2, 3) - mp.psi(2, 100003)), rtol=1e-12)
        assert_allclose(jax.jit(special.betaln)(np.array([0.0, -1.0]), 2.0), [np.inf, np.nan])


def test_single_precision_and_integers():
    assert_allclose(
        jax.jit(special.betaln)(np.array([1, 2, 500]), 3),
        np.log([1 / 3, 1 / 12, 2 / (500.0 * 501 * 502)]),
        rtol=2e-6,
    )
