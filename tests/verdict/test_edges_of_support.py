"""Likelihoods whose supremum is at an edge of the support: the minimum of a Pareto law, the shift of an
exponential one.

No derivative is zero there, so no fit converges; the status says STALLED, whose sentence names edges, and
neither that ℓ grows without bound nor that a value is not finite.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmle as jm
from jaxmle import Status

WITHIN_EDGE = 1e-6  # relative: how near the search comes to the edge


def pareto(theta, x):
    shape, minimum = theta
    log_density = jnp.log(shape) + shape * jnp.log(minimum) - (shape + 1) * jnp.log(x)
    return jnp.where(x >= minimum, log_density, -jnp.inf)


def guarded(wall):
    def exponential(theta, x):
        log_density = jnp.log(theta[1]) - theta[1] * (x - theta[0])
        return jnp.where(x >= theta[0], log_density, wall)

    return exponential


@pytest.mark.parametrize("start", [[3.0, 0.1], [1.0, 0.5], [2.0, 0.2], [5.0, 0.5]])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_pareto_minimum_was_an_unbounded_likelihood(seed, start):
    """From (3, 0.1) on every sample, since the last full Newton step had been long before."""
    x = 1 + np.random.default_rng(seed).pareto(2.0, 50)
    fit = jm.fit(pareto, np.array(start), x)
    supremum = len(x) * (-1 + np.log(len(x) / np.sum(np.log(x / x.min())))) - np.sum(np.log(x))
    assert fit.verdict == Status.STALLED, fit.explain()
    assert "edge of its support" in fit.explain()
    assert abs(fit.x[1] / x.min() - 1) <= WITHIN_EDGE
    assert fit.loglik <= supremum


@pytest.mark.parametrize("wall", [-np.inf, -1e10, -1e6])
def test_a_wall_of_minus_1e10_was_noise_or_not_finite(wall):
    """ℓ and its derivatives are finite on both sides of such a wall, and it is no rounding error."""
    x = 1 + np.random.default_rng(1).exponential(2, 40)
    fit = jm.fit(guarded(wall), np.array([0.0, 1.0]), x)
    assert fit.verdict == Status.STALLED, fit.explain()
    assert "edge of its support" in fit.explain()
    assert abs(fit.x[0] / x.min() - 1) <= WITHIN_EDGE


def uniform(theta, x):
    inside = (x >= theta[0]) & (x <= theta[1])
    return jnp.where(inside, -jnp.log(theta[1] - theta[0]), -jnp.inf)


@pytest.mark.parametrize("start", [[-0.5, 20.0], [-1.0, 6.0], [-2.0, 30.0], [-0.5, 10.0]])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_ends_of_a_uniform_law_went_to_minus_infinity(seed, start):
    """ℓ is −∞ a tenth beyond; the ascents, stuck at one end, were taken for steps along a tail."""
    x = np.random.default_rng(seed).uniform(0, 5, 25)
    fit = jm.fit(uniform, np.array(start), x)
    assert fit.verdict == Status.STALLED, fit.explain()
    assert "edge of its support" in fit.explain()
    assert np.isfinite(fit.x).all()
