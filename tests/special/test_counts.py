"""Poisson and negative-binomial log probabilities against mpmath, and the limit from one to the other."""

import jax
import mpmath as mp
import numpy as np
import pytest
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
