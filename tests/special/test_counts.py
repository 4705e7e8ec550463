"""Poisson and negative-binomial log probabilities against mpmath, and the limit from one to the other."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.testing import assert_allclose

from jaxmle import special
from tests.special.oracle import assert_close, derivatives

N = 2000


def counts(rng, high):
    k = np.floor(10 ** rng.uniform(0, high, N)) - 1
    k[:40] = np.tile([0, 1, 2, 8, 9, 10, 11, 1000], 5)
    return k


def exact(function, *columns):
    with mp.workdps(70):
        return np.array(
            [
                [float(v) for v in function(*(mp.mpf(float(v)) for v in row))]
                for row in zip(*columns, strict=True)
            ]
        )


def poisson(k, eta):
    mean = mp.exp(eta)
    return (
        k * eta - mean - mp.loggamma(k + 1),
        eta - mp.psi(0, k + 1),
        k - mean,
        -mp.psi(1, k + 1),
        mp.mpf(1),
        -mean,
    )


def test_poisson():
    rng = np.random.default_rng(1)
    k = counts(rng, 9)
    eta = np.clip(
        np.log(k + 0.3) + rng.normal(0, 2, N) * 10 ** rng.uniform(-1, 1, N) / np.sqrt(k + 1),
        -30,
        25,
    )
    assert_close(derivatives(special.poisson_logpmf, (k, eta)), exact(poisson, k, eta), (k, eta))


def negative_binomial(k, mu, alpha):
    """In (μ, α); the derivative in r = 1/α by the chain rule."""
    r, psi = 1 / alpha, mp.psi
    value = (
        mp.loggamma(k + r)
        - mp.loggamma(r)
        - mp.loggamma(k + 1)
        + k * mp.log(mu / (r + mu))
        - r * mp.log1p(mu / r)
    )
    in_r = psi(0, k + r) - psi(0, r) - mp.log1p(mu / r) + (mu - k) / (r + mu)
    in_rr = psi(1, k + r) - psi(1, r) + mu / (r * (r + mu)) - (mu - k) / (r + mu) ** 2
    in_mu, in_mumu = (k - mu) * r / (mu * (r + mu)), -k / mu**2 + (k + r) / (r + mu) ** 2
    in_mualpha = -(r**2) * (k - mu) / (r + mu) ** 2
    return value, in_mu, -(r**2) * in_r, in_mumu, in_mualpha, r**4 * in_rr + 2 * r**3 * in_r


def test_negative_binomial_from_the_poisson_to_the_log_series():
    rng = np.random.default_rng(2)
    k, alpha = counts(rng, 6), 10 ** rng.uniform(-12, 3, N)
    mu = (k + 0.3) * np.exp(rng.normal(0, 1, N) * np.sqrt(np.minimum(alpha, 4) + 1 / (k + 1)))
    oracle = exact(negative_binomial, k, mu, alpha)
    found = derivatives(special.negative_binomial_logpmf, (k, mu, alpha), (1, 2))
    # a count is an argument too: |k ∂²f/∂k∂α| = k(k − ½ …) belongs to the scale of ∂f/∂α, which at k = 1, μ → 0 is otherwise a difference of ones
    whole = k < 10
    assert_close(found[~whole], oracle[~whole], (mu[~whole], alpha[~whole]))
    assert_allclose(found[whole, :3], oracle[whole, :3], rtol=1e-11, atol=1e-12)
    assert_allclose(found[whole, 3:], oracle[whole, 3:], rtol=1e-9, atol=1e-10)


@pytest.mark.thorough
def test_poisson_limit_and_its_slopes_in_alpha():
    """From log(1 + αj) summed over j < k, −k log(1 + αμ) and −log(1 + αμ)/α: power series in α."""
    k, mu = np.array([0, 1, 2, 7, 40, 10_000]), np.array([0.5, 3.0, 2.0, 9.5, 31.0, 10_100.0])

    def three(k, mu, alpha):
        first = jax.grad(special.negative_binomial_logpmf, 2)
        second = jax.grad(first, 2)
        return (
            special.negative_binomial_logpmf(k, mu, alpha),
            first(k, mu, alpha),
            second(k, mu, alpha),
            jax.grad(second, 2)(k, mu, alpha),
        )

    with jax.enable_x64(True):
        limit = jax.jit(special.poisson_logpmf)(k, np.log(mu))
        value, slope, curvature, third = jax.jit(jax.vmap(three, (0, 0, None)))(k, mu, 0.0)
    squares, cubes = (
        np.array([sum(j**p for j in range(int(v))) for v in k], float) for p in (2, 3)
    )
    assert_allclose(value, limit, rtol=3e-13)
    assert_allclose(slope, ((k - mu) ** 2 - k) / 2, rtol=1e-13)
    assert_allclose(curvature, -squares + k * mu**2 - 2 * mu**3 / 3, rtol=1e-11)
    assert_allclose(third, 2 * cubes - 2 * k * mu**3 + 1.5 * mu**4, rtol=1e-10)


def test_edges_and_integers():
    k = np.array([-1, 0, 3], np.int32)
    with jax.enable_x64(True):
        poisson, negative_binomial = (
            jax.jit(special.poisson_logpmf),
            jax.jit(special.negative_binomial_logpmf),
        )
        assert_allclose(poisson(k, -np.inf), [-np.inf, 0, -np.inf])
        assert_allclose(negative_binomial(k, 0.0, 0.5), [-np.inf, 0, -np.inf])
        assert np.isnan(negative_binomial(k, 1.0, -0.1)[1:]).all()
        assert_allclose(
            jax.jit(special.log_factorial)(np.arange(5)), np.log([1, 1, 2, 6, 24]), atol=2e-14
        )
        gradient = jax.jit(jax.grad(lambda eta: special.poisson_logpmf(k[1:], eta).sum()))(-2.0)
        assert_allclose(gradient, 3 - 2 * np.exp(-2.0))


def test_single_precision():
    k, mu = (
        np.array([[0, 3, 800, 60_000]] * 3).T,
        np.array([[0.5, 4.0, 790.0, 60_100.0]] * 3, np.float32).T,
    )
    alpha = np.array([[0.0, 1e-6, 0.3]] * 4, np.float32)
    single = jax.jit(special.negative_binomial_logpmf)(k, mu, alpha)
    with jax.enable_x64(True):
        double = jax.jit(special.negative_binomial_logpmf)(k, mu.astype(float), alpha.astype(float))
    assert single.dtype == np.float32
    assert_allclose(single, double, rtol=3e-5)


# ---------------------------------------------------------------- Dirichlet-multinomial


def beta_binomial(y, m, a, b):
    return special.dirichlet_multinomial_logpmf(jnp.stack([y, m]), jnp.stack([a, b]))


def beta_binomial_exactly(y, m, a, b):
    """Value and gradient in (a, b), and the sum of the sizes of what the gradient consists of."""
    n, total, gamma, psi = y + m, a + b, mp.loggamma, mp.psi
    choose = gamma(n + 1) - gamma(y + 1) - gamma(m + 1)
    cells = gamma(a + y) - gamma(a) + gamma(b + m) - gamma(b)
    together = psi(0, total + n) - psi(0, total)
    of_a, of_b = psi(0, a + y) - psi(0, a), psi(0, b + m) - psi(0, b)
    second = psi(1, total + n) - psi(1, total)
    return (
        choose + cells - gamma(total + n) + gamma(total),
        of_a - together,
        of_b - together,
        psi(1, a + y) - psi(1, a) - second,
        -second,
        psi(1, b + m) - psi(1, b) - second,
        together,
        -second,
    )


def test_beta_binomial_from_a_coin_that_clings_to_one_that_does_not():
    """Shapes of 1e-8 to 1e12, up to a million trials: nothing cancels, in no corner of them."""
    rng = np.random.default_rng(1)
    n = np.floor(10 ** rng.uniform(0, 6, N))
    y = np.floor(rng.uniform(0, 1, N) ** 3 * (n + 1))
    y[::7], y[1::11] = 0, n[1::11]
    a = 10 ** rng.uniform(-8, 12, N)
    b = np.where(
        rng.uniform(size=N) < 0.5, a * 10 ** rng.uniform(-1, 1, N), 10 ** rng.uniform(-8, 12, N)
    )
    oracle = exact(beta_binomial_exactly, y, n - y, a, b)
    found = derivatives(beta_binomial, (y, n - y, a, b), (2, 3))
    off = np.abs(found - oracle[:, :6])
    # gammaln, behind Stirling's errors below 10, is right to 1e-14 absolutely.
    assert np.max(off[:, 0] / np.maximum(np.abs(oracle[:, 0]), 1)) < 3e-14
    parts, curved = oracle[:, 6:7], oracle[:, 7:8]
    assert np.max(off[:, 1:3] / (np.abs(oracle[:, 1:3]) + 2 * parts)) < 2e-15
    assert np.max(off[:, 3:] / (np.abs(oracle[:, 3:6]) + 2 * curved)) < 4e-15


def test_beta_binomial_of_huge_shapes_is_the_binomial_to_fourteen_digits():
    """Log-gamma functions of 1e15 differ by whole units: a fit called it UNBOUNDED."""
    rng = np.random.default_rng(2)
    n = np.floor(10 ** rng.uniform(0, 4, N))
    y = rng.binomial(n.astype(int), rng.uniform(0.02, 0.98, N)).astype(float)
    a, odds = 10 ** rng.uniform(16, 150, N), rng.uniform(0.1, 10, N)
    b = a * odds

    def limit(y, m, a, b):
        choose = mp.loggamma(y + m + 1) - mp.loggamma(y + 1) - mp.loggamma(m + 1)
        # and the next term of its expansion, n²/A, which is 1e-8 at A = 1e16
        together = (
            y * (y - 1) / (2 * a) + m * (m - 1) / (2 * b) - (y + m) * (y + m - 1) / (2 * (a + b))
        )
        return [choose + y * mp.log(a / (a + b)) + m * mp.log(b / (a + b)) + together]

    oracle = exact(limit, y, n - y, a, b)[:, 0]
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(jax.vmap(beta_binomial))(y, n - y, a, b))
    assert_allclose(found, oracle, rtol=1e-14)


def test_dirichlet_multinomial_is_scipys_and_its_slope_in_the_counts_that_of_gamma_functions():
    rng = np.random.default_rng(3)
    a = rng.gamma(1, 3, 4)
    k = rng.multinomial(30, [0.1, 0.2, 0.3, 0.4], 50).astype(float).T
    wide = np.broadcast_to(a[:, None], k.shape)
    with jax.enable_x64(True):
        value = np.asarray(jax.jit(special.dirichlet_multinomial_logpmf)(k, wide))
        slope = jax.jit(jax.grad(lambda k: jnp.sum(special.dirichlet_multinomial_logpmf(k, wide))))(
            k
        )
    assert_allclose(
        value, scipy.stats.dirichlet_multinomial(a, 30).logpmf(k.T.astype(int)), rtol=1e-12
    )
    psi, n = scipy.special.psi, k.sum(axis=0)
    ends = psi(n + 1) - psi(n + a.sum())
    assert_allclose(slope, psi(k + wide) - psi(k + 1) + ends, rtol=1e-11, atol=1e-12)
