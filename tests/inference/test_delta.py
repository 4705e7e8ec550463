"""The delta method against closed forms, where some parameters have no estimate, and for batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import Status
from tests.likelihoods import normal

RNG = np.random.default_rng(21)
Y = RNG.normal(5.0, 2.0, size=50)
N, MEAN, SD = len(Y), Y.mean(), Y.std()


START, SIGMA = {"mu": 4.0, "sigma": 1.0}, {"sigma": jm.positive}


@pytest.fixture(scope="module")
def fit():
    return jm.fit(normal, START, Y, constraints=SIGMA)


def test_functions_of_a_normal_sample_have_their_closed_forms(fit):
    """var σ̂² = 2σ⁴/n; the coefficient of variation σ/μ has c²(1/2 + c²)/n; the 90 % point σ²(1 + z²/2)/n."""
    c, z = SD / MEAN, 1.2815515655446004
    cases = [
        (lambda p: p["sigma"] ** 2, SD**2, SD**2 * np.sqrt(2 / N)),
        (lambda p: jnp.log(p["sigma"]), np.log(SD), np.sqrt(1 / (2 * N))),
        (lambda p: p["sigma"] / p["mu"], c, c * np.sqrt((0.5 + c**2) / N)),
        (lambda p: p["mu"] + z * p["sigma"], MEAN + z * SD, SD * np.sqrt((1 + z**2 / 2) / N)),
        (lambda p: 3.0 * p["mu"] - 1.0, 3 * MEAN - 1, 3 * SD / np.sqrt(N)),
    ]
    for g, estimate, stderr in cases:
        found = jm.delta(g, fit)
        assert isinstance(found.estimate, np.ndarray | np.generic)
        assert_allclose([found.estimate, found.stderr], [estimate, stderr], rtol=1e-7)
        assert_allclose(found.vcov, [[stderr**2]], rtol=1e-6)
        half = 1.959963984540054 * stderr
        assert_allclose(found.conf_int(), [estimate - half, estimate + half], rtol=1e-7)


def test_a_tree_of_functions_keeps_its_tree_and_has_one_covariance(fit):
    found = jm.delta(lambda p: {"a": p["mu"] * jnp.ones(2), "v": p["sigma"] ** 2}, fit)
    assert_allclose(found.estimate["a"], [MEAN, MEAN], rtol=1e-9)
    assert_allclose(found.stderr["v"], SD**2 * np.sqrt(2 / N), rtol=1e-7)
    g = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2 * SD]])
    assert_allclose(
        found.vcov, g @ np.diag([SD**2 / N, SD**2 / (2 * N)]) @ g.T, rtol=1e-7, atol=1e-9
    )
    assert found.conf_int(0.9)["a"].shape == (2, 2)


def test_the_jacobian_equals_finite_differences(fit):
    """A function without a tidy derivative: central differences in NumPy."""

    def g(mu, sigma, xp):
        return xp.exp(-mu / sigma) * xp.sin(mu * sigma)

    step = 1e-6
    slope = [
        (g(MEAN + step, SD, np) - g(MEAN - step, SD, np)) / (2 * step),
        (g(MEAN, SD + step, np) - g(MEAN, SD - step, np)) / (2 * step),
    ]
    found = jm.delta(lambda p: g(p["mu"], p["sigma"], jnp), fit)
    assert_allclose(
        found.stderr,
        np.sqrt(slope[0] ** 2 * SD**2 / N + slope[1] ** 2 * SD**2 / (2 * N)),
        rtol=1e-6,
    )


def test_a_function_of_a_parameter_given_another_covariance(fit):
    """The covariance is the one the fit carries: HC0 of a mean is the same, of σ it holds the fourth moment."""
    robust = jm.fit(normal, START, Y, constraints=SIGMA, vcov="HC0")
    fourth = np.mean((Y - MEAN) ** 4)
    assert_allclose(jm.delta(lambda p: p["mu"], robust).stderr, SD / np.sqrt(N), rtol=1e-7)
    assert_allclose(
        jm.delta(lambda p: p["sigma"] ** 2, robust).stderr, np.sqrt((fourth - SD**4) / N), rtol=1e-6
    )


def test_with_vcov_reaches_delta(fit):
    """A covariance given by hand is the one that delta uses."""
    doubled = fit.with_vcov(4 * fit.vcov, "doubled")
    assert_allclose(jm.delta(lambda p: p["mu"], doubled).stderr, 2 * SD / np.sqrt(N), rtol=1e-7)


def unidentified(params, data):
    """Only a + b is in the data."""
    return norm.logpdf(data, params["a"] + params["b"], params["sigma"])


def test_a_sum_is_right_where_its_parts_have_no_estimate():
    fit = jm.fit(unidentified, {"a": 1.0, "b": 2.0, "sigma": 1.5}, Y, constraints=SIGMA)
    assert fit.verdict == Status.UNIDENTIFIED
    assert np.isnan(fit.stderr["a"]) and np.isnan(fit.stderr["b"])
    assert_allclose(fit.stderr["sigma"], SD / np.sqrt(2 * N), rtol=1e-6)
    total = jm.delta(lambda p: p["a"] + p["b"], fit)
    assert_allclose([total.estimate, total.stderr], [MEAN, SD / np.sqrt(N)], rtol=1e-6)
    assert_allclose(
        jm.delta(lambda p: (p["a"] + p["b"]) / p["sigma"], fit).stderr,
        np.sqrt((1 + (MEAN / SD) ** 2 / 2) / N),
        rtol=1e-6,
    )
    for g in (
        lambda p: p["a"],
        lambda p: p["b"],
        lambda p: p["a"] - p["b"],
        lambda p: p["a"] + 1.001 * p["b"],
        lambda p: p["a"] * p["sigma"],
    ):
        assert np.isnan(jm.delta(g, fit).stderr)
    mixed = jm.delta(lambda p: jnp.stack([p["a"], p["a"] + p["b"]]), fit)
    assert np.isnan(mixed.stderr[0]) and np.isnan(mixed.vcov[0, 1])
    assert_allclose(mixed.stderr[1], SD / np.sqrt(N), rtol=1e-6)


def test_fitted_values_are_determined_where_their_coefficients_are_not():
    """A dummy trap: the level of each group is its mean, whatever the three coefficients are."""
    group = np.arange(N) % 2
    dummies = np.column_stack([np.ones(N), group == 0, group == 1]).astype(float)

    def loglik(params, data):
        return norm.logpdf(data["y"], data["x"] @ params["beta"], 2.0)

    fit = jm.fit(loglik, {"beta": np.array([1.0, 0.0, 0.5])}, {"x": dummies, "y": Y})
    assert fit.verdict == Status.UNIDENTIFIED and np.isnan(fit.se).all()
    levels = jm.delta(lambda p: jnp.asarray(dummies[:2]) @ p["beta"], fit)
    assert_allclose(levels.estimate, [Y[group == 0].mean(), Y[group == 1].mean()], rtol=1e-9)
    assert_allclose(levels.stderr, 2 / np.sqrt([25, 25]), rtol=1e-7)


def test_a_fixed_parameter_adds_no_variance():
    held = jm.fit(jm.fix(normal, {"sigma": 2.0}), START, Y, constraints=SIGMA)
    found = jm.delta(lambda p: p["mu"] / p["sigma"], held)
    assert_allclose([found.estimate, found.stderr], [MEAN / 2, 1 / np.sqrt(N)], rtol=1e-8)


def test_delta_of_a_simplex_uses_its_singular_covariance():
    """Odds of the first class: p/(1 − p) has variance p/(n(1 − p)³), as for a binomial."""
    counts = np.array([12, 30, 8])

    def loglik(params, data):
        return data @ jnp.log(params["p"])

    fit = jm.fit(
        loglik,
        {"p": np.full(3, 1 / 3)},
        np.repeat(np.eye(3), counts, axis=0),
        constraints={"p": jm.simplex},
    )
    p = 12 / 50
    odds = jm.delta(lambda params: params["p"][0] / (1 - params["p"][0]), fit)
    assert_allclose(
        [odds.estimate, odds.stderr], [p / (1 - p), np.sqrt(p / (50 * (1 - p) ** 3))], rtol=1e-7
    )
    assert_allclose(jm.delta(lambda params: jnp.sum(params["p"]), fit).stderr, 0, atol=1e-8)


BATCH = np.stack([Y, 2 * Y + 1, Y[::-1] - 3])


@pytest.fixture(scope="module")
def fits():
    with jax.enable_x64(True):
        return jax.jit(
            jax.vmap(
                lambda y: jm.fit(
                    normal,
                    {"mu": jnp.asarray(4.0), "sigma": jnp.asarray(1.0)},
                    y,
                    constraints=SIGMA,
                )
            )
        )(BATCH)


def test_delta_of_a_batch_has_a_leading_axis(fits):
    found = jm.delta(lambda p: p["sigma"] ** 2, fits)
    variance = BATCH.var(axis=1)
    assert_allclose(found.estimate, variance, rtol=1e-8)
    assert_allclose(found.stderr, variance * np.sqrt(2 / N), rtol=1e-7)
    assert found.vcov.shape == (3, 1, 1) and found.conf_int().shape == (3, 2)


@pytest.mark.thorough
def test_delta_under_a_trace(fits):
    def g(p):
        return {"cv": p["sigma"] / p["mu"]}

    with jax.enable_x64(True):
        found = jax.jit(lambda fits: jm.delta(g, fits))(fits)
        one = jax.jit(
            lambda y: jm.delta(
                g,
                jm.fit(
                    normal,
                    {"mu": jnp.asarray(4.0), "sigma": jnp.asarray(1.0)},
                    y,
                    constraints=SIGMA,
                ),
            )
        )(Y)
    c = BATCH.std(axis=1) / BATCH.mean(axis=1)
    assert_allclose(found.stderr["cv"], np.abs(c) * np.sqrt((0.5 + c**2) / N), rtol=1e-6)
    assert_allclose(one.stderr["cv"], np.sqrt(c[0] ** 2 * (0.5 + c[0] ** 2) / N), rtol=1e-6)


@pytest.mark.thorough
def test_delta_of_a_float32_fit_is_float32():
    fit = jm.fit(normal, START, Y, constraints=SIGMA, dtype="float32")
    found = jm.delta(lambda p: p["sigma"] ** 2, fit)
    assert found.vcov.dtype == np.float32
    assert_allclose(found.stderr, SD**2 * np.sqrt(2 / N), rtol=1e-3)
