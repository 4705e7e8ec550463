"""A standard deviation that was not declared positive ended at its mirror image below zero, where ℓ is the same: ``norm.logpdf`` takes the
square of its scale. The estimate belongs on the side of zero from which the search set out.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from jax.scipy.stats import t as student
from numpy.testing import assert_allclose

import jaxmle as jm

Y = np.random.default_rng(3).normal(-2.0, 0.3, size=60)


def vector(t, y):
    return norm.logpdf(y, t[0], t[1])


def scalar(t, y):
    return jnp.sum(vector(t, y))


def tree(p, y):
    return norm.logpdf(y, p["mean"], p["sd"])


def squared(t, y):
    return -0.5 * jnp.log(t[1] ** 2) - 0.5 * (y - t[0]) ** 2 / t[1] ** 2


# from a third of these a step went through zero, in the mean as well
STARTS = [np.array([mean, sd]) for mean in (0.5, 3.0, -1.0) for sd in (0.5, 1.0, 5.0, 10.0, 30.0)]


@pytest.mark.parametrize("loglik", [vector, scalar, squared])
def test_a_standard_deviation_stays_on_its_side_of_zero(loglik):
    for start in STARTS:
        for side in (1.0, -1.0):
            fit = jm.fit(loglik, start * np.array([1.0, side]), Y)
            assert fit.converged, fit.explain()
            assert_allclose(fit.x, [Y.mean(), side * Y.std()], rtol=1e-8)
            assert_allclose(fit.se, Y.std() / np.sqrt([60, 120]), rtol=1e-6)
            assert_allclose(fit.vcov[0, 1], 0.0, atol=1e-12)


def test_it_does_so_by_name_in_a_batch_and_under_a_trace():
    members = np.stack([Y, Y + 5.0, -Y])
    starts = {"mean": np.repeat([0.5, -1.0], 3), "sd": np.array([5.0, 10.0, 30.0] * 2)}
    members = np.concatenate([members, members])
    right = np.column_stack([members.mean(axis=1), np.full(6, Y.std())])
    fits = jm.fit_batch(tree, starts, members, params_axis=0)
    assert_allclose(fits.x, right, rtol=1e-8)
    with jax.enable_x64(True):
        traced = jax.jit(jax.vmap(lambda start, y: jm.fit(tree, start, y)))(starts, members)
    assert_allclose(traced.x, right, rtol=1e-8)


def test_a_sign_that_matters_is_not_turned():
    """Mean and slope have changed their signs, too; neither is even."""
    x = np.linspace(-1.0, 2.0, 60)
    y = -1.0 - 2.0 * x + 0.1 * Y
    fit = jm.fit(
        lambda t, d: norm.logpdf(d[1], t[0] + t[1] * d[0], t[2]), np.array([1.0, 1.0, 3.0]), (x, y)
    )
    design = np.column_stack([np.ones(60), x])
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    assert fit.converged, fit.explain()
    assert_allclose(fit.x, [*beta, np.std(y - design @ beta)], rtol=1e-8)


def test_the_loadings_of_a_factor_keep_their_side_together():
    """ℓ is even in all loadings at once, and in none alone."""
    generator = np.random.default_rng(0)
    loadings = np.array([0.9, 0.8, 0.7, 0.6])
    y = generator.normal(size=(300, 1)) * loadings + 0.5 * generator.normal(size=(300, 4))
    covariance = np.cov(y.T, bias=True)

    def loglik(t, s):
        sigma = jnp.outer(t[:4], t[:4]) + jnp.diag(jnp.exp(t[4:]))
        return -150.0 * (jnp.linalg.slogdet(sigma)[1] + jnp.trace(jnp.linalg.solve(sigma, s)))

    for start in (0.1, 0.5, 3.0):
        for side in (1.0, -1.0):
            fit = jm.fit(loglik, np.r_[np.full(4, side * start), np.zeros(4)], covariance)
            assert fit.converged, fit.explain()
            assert np.all(side * fit.x[:4] > 0)


def test_the_scale_of_a_student_t_keeps_its_side_and_its_covariances():
    loglik = lambda t, y: student.logpdf(y, 5.0, t[0], jnp.sqrt(t[1] ** 2))  # noqa: E731
    for start in STARTS:
        fit = jm.fit(loglik, start, Y)
        assert fit.converged, fit.explain()
        mirrored = jm.fit(loglik, start * np.array([1.0, -1.0]), Y)
        assert_allclose(fit.x, mirrored.x * np.array([1.0, -1.0]), rtol=1e-7)
        assert_allclose(fit.vcov[0, 1], -mirrored.vcov[0, 1], rtol=1e-5, atol=1e-12)


def test_one_coordinate_that_crossed_zero_costs_one_evaluation():
    """The symptom: it was mirrored with all that had crossed, and once more alone."""

    def normal(t, y):
        return -0.5 * (y - t[0]) ** 2

    data = Y + 3.0  # of mean one
    mean = data.mean()
    across, beside = (jm.fit(normal, np.array([mean + away]), data) for away in (-2.0, 2.0))
    assert_allclose(across.x, beside.x, rtol=1e-12)
    assert across.steps == beside.steps + 1
