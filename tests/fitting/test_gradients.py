"""Derivatives through a fit equal finite differences of host fits: of the estimate, its standard error and its interval."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

N = 40
X = np.column_stack([np.ones(N), np.linspace(-1.5, 1.5, N)])
Y = np.exp(0.2 + 0.4 * X[:, 1]) + 0.5 * np.random.default_rng(40).normal(size=N)
WAVE = np.sin(3 * X[:, 1])
PHI = np.array([0.3, -0.2])
H = 1e-4  # central differences: error H² in theory, 1e-12 / H from rounding


def likelihood(phi):
    """A nonlinear regression with a scale, its response moved by phi; phi is closed over."""

    def loglik(params, data):
        y = data["y"] + phi[0] * WAVE + phi[1] * 0.1 * data["y"] ** 2
        z = (y - jnp.exp(data["x"] @ params["beta"])) / params["sigma"]
        return -0.5 * z**2 - jnp.log(params["sigma"])

    return loglik


def quantities(phi, vcov="observed"):
    """Estimates (3,), standard errors (3,), Wald ends (6,)."""
    fit = jm.fit(
        likelihood(phi),
        {"beta": np.zeros(2), "sigma": 1.0},
        {"y": Y, "x": X},
        constraints={"sigma": jm.positive},
        vcov=vcov,
    )
    ends = fit.interval()
    return (jnp if isinstance(ends, jax.Array) else np).concatenate(
        [fit.x, fit.se, ends.reshape(-1)]
    )


def differences(function, phi, h=H):
    """∂function/∂phi by central differences, (outputs, 2)."""
    return np.stack(
        [
            (np.asarray(function(phi + h * e)) - np.asarray(function(phi - h * e))) / (2 * h)
            for e in np.eye(2)
        ],
        axis=-1,
    )


@pytest.mark.parametrize("vcov", ["observed", pytest.param("HC0", marks=pytest.mark.thorough)])
def test_forward_derivatives_of_estimate_error_and_interval_equal_finite_differences(vcov):
    with jax.enable_x64(True):
        exact = np.asarray(jax.jit(jax.jacfwd(lambda phi: quantities(phi, vcov)))(PHI))
    assert_allclose(
        exact, differences(lambda phi: quantities(phi, vcov), PHI), rtol=1e-5, atol=1e-7
    )


@pytest.mark.thorough
def test_reverse_derivatives_equal_forward_ones():
    with jax.enable_x64(True):
        reverse = np.asarray(jax.jit(jax.jacrev(quantities))(PHI))
    assert_allclose(reverse, differences(quantities, PHI), rtol=1e-5, atol=1e-7)


@pytest.mark.thorough
def test_vmap_of_grad_and_second_derivatives_equal_finite_differences():
    points = np.stack([PHI, -PHI, np.zeros(2)])
    weights = np.cos(np.arange(12.0))

    def scalar(phi):
        return weights @ quantities(phi)

    with jax.enable_x64(True):
        gradients = np.asarray(jax.jit(jax.vmap(jax.grad(scalar)))(points))
    for point, gradient in zip(points, gradients, strict=True):
        assert_allclose(gradient, differences(scalar, point), rtol=1e-5, atol=1e-7)


@pytest.mark.thorough
def test_second_derivatives_are_right():
    """A second derivative that is silently zero would pass for a flat function."""

    def first(phi):
        return quantities(phi)[:6]

    with jax.enable_x64(True):
        second = np.asarray(jax.jit(jax.jacfwd(jax.jacfwd(first)))(PHI))
    step = 1e-3
    numeric = np.stack(
        [
            (differences(first, PHI + step * e) - differences(first, PHI - step * e)) / (2 * step)
            for e in np.eye(2)
        ],
        axis=-1,
    )
    assert np.abs(second).max() > 1e-2
    assert_allclose(second, numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_data_and_weights_carry_derivatives_too():
    """The mean moves by 1/n with each observation, and its standard error by (y − mean)/(n² σ̂) √… : both by finite differences."""
    y = Y[:10]

    def mean_and_error(y, w):
        fit = jm.fit(
            lambda p, d: -0.5 * ((d - p["m"]) / p["s"]) ** 2 - jnp.log(p["s"]),
            {"m": 0.0, "s": 1.0}, y, weights=jm.sampling(w), vcov="observed", constraints={"s": jm.positive},
        )  # fmt: skip
        return jnp.stack([fit.params["m"], fit.stderr["m"]])

    with jax.enable_x64(True):
        by_y, by_w = (
            np.asarray(d)
            for d in jax.jit(jax.jacrev(mean_and_error, argnums=(0, 1)))(y, np.ones(10))
        )
    n, mean, sd = 10, y.mean(), y.std()
    assert_allclose(by_y[0], np.full(n, 1 / n), rtol=1e-8)
    assert_allclose(by_y[1], (y - mean) / (n * sd * np.sqrt(n)), rtol=1e-7, atol=1e-12)
    assert_allclose(by_w[0], (y - mean) / n, rtol=1e-7, atol=1e-12)


def test_the_start_carries_no_derivative():
    def estimate(start):
        fit = jm.fit(
            likelihood(PHI),
            {"beta": start[:2], "sigma": start[2]},
            {"y": Y, "x": X},
            constraints={"sigma": jm.positive},
        )
        return fit.params["beta"][1] + fit.stderr["sigma"]

    with jax.enable_x64(True):
        slope = np.asarray(jax.jit(jax.grad(estimate))(np.array([0.0, 0.1, 1.2])))
    assert_allclose(slope, 0.0, atol=1e-9)


@pytest.mark.thorough
def test_the_profile_likelihood_has_the_envelope_derivative():
    """dℓ̂/dφ = ∂ℓ/∂φ at the estimate."""
    with jax.enable_x64(True):

        def run(phi):
            return jm.fit(
                likelihood(phi),
                {"beta": np.zeros(2), "sigma": 1.0},
                {"y": Y, "x": X},
                constraints={"sigma": jm.positive},
            )

        slope = np.asarray(jax.jit(jax.grad(lambda phi: run(phi).loglik))(PHI))
    fit = run(PHI)
    partial = differences(lambda phi: np.asarray(likelihood_sum(phi, fit.params)), PHI)
    assert_allclose(slope, partial, rtol=1e-6)


def likelihood_sum(phi, params):
    y = Y + phi[0] * WAVE + phi[1] * 0.1 * Y**2
    z = (y - np.exp(X @ params["beta"])) / params["sigma"]
    return np.sum(-0.5 * z**2 - np.log(params["sigma"]))
