"""log I₀, log I₁ and their ratio against mpmath at 2 000 concentrations."""

import jax
import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxmle import special
from tests.special.oracle import assert_close, derivatives

X = np.concatenate([10 ** np.random.default_rng(1).uniform(-6, 5, 1980), np.linspace(8.9, 9.1, 20)])


@pytest.fixture(scope="module")
def exact():
    """value, first and second derivative of log I₀, log I₁ and the ratio, from the recurrences, whose cancellation 60 digits bear."""
    out = []
    with mp.workdps(60):
        for x in map(mp.mpf, map(float, X)):
            i0, i1 = mp.besseli(0, x), mp.besseli(1, x)
            r = i1 / i0
            slope = 1 - r / x - r * r
            jets = [
                [mp.log(i0), r, slope],
                [mp.log(i1), 1 / r - 1 / x, 1 / x**2 - slope / r**2],
                [r, slope, -slope / x + r / x**2 - 2 * r * slope],
            ]
            out.append([[float(v) for v in jet] for jet in jets])
    return np.array(out)


@pytest.mark.parametrize(
    ("function", "which"), [(special.log_i0, 0), (special.log_i1, 1), (special.bessel_ratio, 2)]
)
def test_value_and_two_derivatives(exact, function, which):
    assert_close(derivatives(function, (X,)), exact[:, which], (X,))


def test_symmetry_and_edges():
    with jax.enable_x64(True):
        x = np.array([0.0, 0.5, 12.0, 1e6, 20.0])
        log_i0, ratio = jax.jit(special.log_i0), jax.jit(special.bessel_ratio)
        assert_allclose(log_i0(-x), log_i0(x))
        assert_allclose(ratio(-x), -ratio(x))
        assert_allclose(jax.jit(special.log_i1)(-x), [-np.inf, *[np.nan] * 4])
        assert_allclose(derivatives(special.log_i0, (-x,))[[4, 0], [1, 2]], [-ratio(x)[4], 0.5])


def test_single_precision_with_a_slope():
    """In reverse mode a power series in float32 can give 0·inf: near x = 9 its last powers overflow."""
    x = np.concatenate([X[::50], np.linspace(8, 9, 40)]).astype(np.float32)
    both = jax.jit(jax.vmap(jax.value_and_grad(special.bessel_ratio)))
    with jax.enable_x64(True):
        double = both(x.astype(float))
    single = both(x)
    assert single[0].dtype == np.float32
    assert_allclose(single[0], double[0], rtol=1e-6)
    assert_allclose(single[1], double[1], rtol=1e-4)
