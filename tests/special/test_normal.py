"""log Φ, its inverse and log(1 − eˣ) against mpmath, far into the tail."""

import jax
import mpmath as mp
import numpy as np
from numpy.testing import assert_allclose

from jaxmle import special
from tests.special.oracle import assert_close, derivatives

RNG = np.random.default_rng(1)
X = np.concatenate(
    [-(10 ** RNG.uniform(-8, 8, 800)), 10 ** RNG.uniform(-8, 1.5, 400), RNG.uniform(-40, 12, 800)]
)


def exact_log_ndtr(x):
    if x > -50:
        below = mp.erfc(-x / mp.sqrt(2)) / 2
        m = mp.npdf(x) / below
        # log(1 − upper), not log Φ: at x = 30 the upper tail is 1e-198
        return (mp.log(below) if x < 1 else mp.log1p(-mp.erfc(x / mp.sqrt(2)) / 2)), m, -m * (m + x)
    rest = mp.mpf(0)  # m + x by Laplace's continued fraction
    for k in range(60, 0, -1):
        rest = k / (-x + rest)
    return -x * x / 2 - mp.log(mp.sqrt(2 * mp.pi) * (rest - x)), rest - x, -(rest - x) * rest


def test_log_ndtr():
    with mp.workdps(60):
        exact = np.array([[float(v) for v in exact_log_ndtr(mp.mpf(float(x)))] for x in X])
    assert_close(derivatives(special.log_ndtr, (X,)), exact, (X,), (1e-13, 1e-12, 1e-12))


def test_ndtri_and_its_derivatives():
    p = np.concatenate(
        [
            10 ** RNG.uniform(-300, -0.3, 1000),
            10 ** RNG.uniform(-6, -0.3, 500),
            RNG.uniform(0, 1, 480),
            1 - 10 ** RNG.uniform(-12, -1, 20),
        ]
    )
    found = derivatives(special.ndtri, (p,))
    with mp.workdps(60):

        def root(p, x):
            """One Newton step with 60 digits from the value found: its error is the square of the step."""
            x, p = mp.mpf(float(x)), mp.mpf(float(p))
            root = x - (mp.erfc(-x / mp.sqrt(2)) / 2 - p) / mp.npdf(x)
            return root, 1 / mp.npdf(root), root / mp.npdf(root) ** 2

        exact = np.array(
            [[float(v) for v in root(*pair)] for pair in zip(p, found[:, 0], strict=True)]
        )
    sane = exact[:, 0] > -16  # 1/φ² overflows beyond −26
    assert_close(found[sane], exact[sane], (p[sane],))
    assert_allclose(found[:, 0], exact[:, 0], rtol=1e-13, atol=1e-15)
    with jax.enable_x64(True):
        assert_allclose(
            jax.jit(special.ndtri)(np.array([0.0, 1.0, -0.1, 1.1, 0.5])),
            [-np.inf, np.inf, np.nan, np.nan, 0],
            atol=1e-16,
        )


def test_log1mexp():
    x = -(10 ** RNG.uniform(-15, 2.5, 2000))
    with mp.workdps(200):
        exact = []
        for v in map(mp.mpf, map(float, x)):
            slope = -1 / mp.expm1(-v)
            exact.append([float(t) for t in (mp.log1p(-mp.exp(v)), slope, slope * (1 - slope))])
    assert_close(derivatives(special.log1mexp, (x,)), np.array(exact), (x,), (1e-14, 1e-14, 1e-14))


def test_the_second_derivative_beyond_minus_twenty():
    """jax.scipy.special.log_ndtr is off by 1.6e-6 there."""
    x = -np.array([25.0, 1e3, 1e6])
    assert_allclose(
        derivatives(special.log_ndtr, (x,))[:, 2], -1 + 1 / x**2 - 6 / x**4 + 50 / x**6, rtol=1e-8
    )


def test_single_precision():
    x = X[::20].astype(np.float32)
    single = jax.jit(special.log_ndtr)(x)
    with jax.enable_x64(True):
        double = jax.jit(special.log_ndtr)(x.astype(float))
    assert single.dtype == np.float32
    assert_allclose(single, double, rtol=2e-6, atol=1e-37)
