"""Calibration against exact distributions, and against a study of the negative binomial that shares no code with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.scipy.special import gammaln
from jax.scipy.stats import norm
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import Status
from jaxmle.inference.resampling.calibrate import calibrate

N, R = 10, 2000
Y = np.random.default_rng(1).normal(3.0, 2.0, N)
START, POSITIVE = {"mu": 1.0, "sigma": 1.0}, {"sigma": jm.positive}


def normal(params, data):
    return norm.logpdf(data["y"], params["mu"], params["sigma"])


def redraw(key, params, data):
    return {**data, "y": params["mu"] + params["sigma"] * jax.random.normal(key, data["y"].shape)}


@pytest.fixture(scope="module")
def fit():
    return jm.fit(normal, START, {"y": Y}, constraints=POSITIVE)


def student(fits):
    """The exact interval of a normal mean; none for σ."""
    half = scipy.stats.t.ppf(0.975, N - 1) * fits.x[:, 1] / np.sqrt(N - 1)
    nothing = np.full(len(half), np.nan)
    return np.stack([fits.x[:, 0] - half, nothing], axis=1), np.stack(
        [fits.x[:, 0] + half, nothing], axis=1
    )


@pytest.fixture(scope="module")
def study(fit):
    return calibrate(
        normal,
        fit,
        {"y": Y},
        redraw,
        key=3,
        replicates=R,
        intervals={"student": student},
        progress=False,
    )


def assert_within(found, exact, error, times=4.5):
    assert abs(found - exact) < times * error, (found, exact, error)


def test_a_normal_sample_has_its_exact_small_sample_figures(study):
    """θ̂ = (ȳ, √(Σ(y − ȳ)²/n)): nσ̂²/σ² is χ²(n − 1), and (ȳ − μ)√(n − 1)/σ̂ is t(n − 1)."""
    sigma = Y.std()
    chi = scipy.stats.chi(N - 1)
    assert study.failed == {} and len(study) == R
    assert_within(study.bias[0], 0.0, study.bias_error[0])
    assert_within(study.bias[1], sigma * (chi.mean() / np.sqrt(N) - 1), study.bias_error[1])
    assert_within(study.se_ratio[0], chi.mean() / np.sqrt(N), study.se_ratio_error[0])
    exact = scipy.stats.t.cdf(1.959963984540054 * np.sqrt((N - 1) / N), N - 1) * 2 - 1
    for kind in ("wald", "wald, user scale"):
        assert_within(study.coverage(kind)[0], exact, study.coverage_error(kind)[0])
    low, high = (np.sqrt(N) * np.exp(end * 1.959963984540054 / np.sqrt(2 * N)) for end in (-1, 1))
    assert_within(
        study.coverage("wald")[1], chi.cdf(high) - chi.cdf(low), study.coverage_error("wald")[1]
    )
    assert_within(study.coverage("student")[0], 0.95, study.coverage_error("student")[0])
    assert np.isnan(study.coverage("student")[1]) and study.without_interval("student")[1] == 1.0


def test_the_bound_is_that_of_cramer_and_rao(study):
    sigma = Y.std()
    assert_allclose(
        study.bound, [sigma**2 / N, sigma**2 / (2 * N)], rtol=0.1
    )  # observed information, averaged: its own noise is 4 % for σ
    assert_within(study.efficiency[0], 1.0, np.sqrt(2 / R) + 0.01)


def test_tests_have_the_size_of_their_exact_distributions(fit, study):
    """The three statistics as functions of (z, q), ȳ = μ + σz/√n and q = nσ̂²/σ² independent, drawn by NumPy."""
    rng = np.random.default_rng(0)
    z, q = rng.normal(size=200_000), rng.chisquare(N - 1, size=200_000)
    v, u = q / N, z / np.sqrt(N)
    cut = scipy.stats.chi2.ppf(0.95, 2)
    lr = N * (v + u**2 - 1 - np.log(v))
    wald = N * (u**2 + 2 * (np.sqrt(v) - 1) ** 2) / v
    total = v + u**2  # Σ(y − μ)²/nσ²
    s = np.stack([N * u, N * (total - 1)], axis=1)
    j = np.stack(
        [np.stack([np.full_like(u, N), 2 * N * u], 1), np.stack([2 * N * u, 3 * N * total - N], 1)],
        1,
    )
    score = np.where(
        np.linalg.eigvalsh(j)[:, 0] > 0,
        np.einsum("bi,bi->b", s, np.linalg.solve(j, s[..., None])[..., 0]),
        np.nan,
    )
    for test, values in (("lr", lr), ("wald", wald), ("score", score)):
        size, error = study.size(test)
        assert_within(size, np.mean(values[~np.isnan(values)] > cut), error)


def test_data_set_i_depends_on_the_key_and_on_i_alone(fit, study):
    fewer = calibrate(
        normal,
        fit,
        {"y": Y},
        redraw,
        key=jax.random.key(3),
        replicates=900,
        tests=(),
        progress=False,
    )
    assert_allclose(fewer.estimates, study.estimates[:900], rtol=1e-8)
    assert fewer.statistics == {}


def test_another_truth_may_be_given(fit):
    away = calibrate(
        normal,
        fit,
        {"y": Y},
        redraw,
        key=3,
        replicates=900,
        truth={"mu": -7.0, "sigma": 0.5},
        tests="lr",
        progress=False,
    )
    assert_allclose(away.truth, [-7.0, 0.5])
    assert_within(away.bias[0], 0.0, away.bias_error[0])
    assert list(away.statistics) == ["lr"]


# ---------------------------------------------------------------- negative binomial


COUNTS = 20
LADDER = np.arange(60)


def negative_binomial(params, data):
    """log μ = mu, dispersion sigma; Σ_{j<y} log(1 + αj) for Γ(y + 1/α)/Γ(1/α), which keeps its digits as α → 0."""
    alpha, mu, y = params["sigma"], jnp.exp(params["mu"]), data["y"]
    rising = jnp.sum(
        jnp.where(LADDER[None, :] < y[:, None], jnp.log1p(alpha * LADDER)[None, :], 0.0), axis=1
    )
    return rising - (y + 1 / alpha) * jnp.log1p(alpha * mu) + y * params["mu"] - gammaln(y + 1)


def recount(key, params, data):
    gamma, poisson = jax.random.split(key)
    rate = (
        jnp.exp(params["mu"])
        * params["sigma"]
        * jax.random.gamma(gamma, 1 / params["sigma"], data["y"].shape)
    )
    return {**data, "y": jax.random.poisson(poisson, rate)}


@pytest.mark.thorough
def test_the_wald_interval_of_a_small_sample_dispersion_is_poor():
    """n = 20, mean 3, α = 0.5. Reference: 100 000 samples, ML by bisection of the score in NumPy (data/nb_coverage.py):
    coverage 89.24 % on the scale of α and 98.11 % on that of log α where α̂ > 0; α̂ = 0 in 2.245 %."""
    y = np.random.default_rng(4).negative_binomial(2, 0.4, COUNTS).astype(float)
    result = jm.fit(negative_binomial, START, {"y": y}, constraints=POSITIVE)
    study = calibrate(
        negative_binomial,
        result,
        {"y": y},
        recount,
        key=0,
        replicates=20_000,
        truth={"mu": np.log(3.0), "sigma": 0.5},
        progress=False,
    )
    assert abs(study.coverage("wald, user scale")[1] - 0.8924) < 0.01
    assert abs(study.coverage("wald")[1] - 0.9811) < 0.01
    assert abs(study.boundary.mean() - 0.02245) < 0.005
    assert np.all(study.estimates[study.boundary, 1] == 0.0) and np.all(
        np.isnan(study.stderrs[study.boundary, 1])
    )
    assert study.failed["BOUNDARY"] == study.boundary.sum()
    assert study.without_interval("wald", Status.BOUNDARY)[1] == 1.0
    assert (
        study.coverage("wald", Status.BOUNDARY)[0] < 0.8
    )  # log μ, on the samples that look like Poisson
    text = str(study)
    assert "BOUNDARY: " in text and "Coverage of 95% intervals" in text and "Size of tests" in text


# ---------------------------------------------------------------- what is refused


def test_mistakes_are_named(fit):
    data = {"y": Y}
    cases = [
        (ValueError, "needs sample", {"sample": None}),
        (ValueError, "tests must be 'wald'", {"tests": ("wald", "rao")}),
        (TypeError, "intervals must be a dictionary", {"intervals": [student]}),
        (ValueError, "level must lie", {"level": 95}),
        (ValueError, "replicates must be", {"replicates": 0}),
        (ValueError, "truth must be a tree", {"truth": {"mu": 1.0}}),
        (ValueError, "strictly", {"truth": {"mu": 1.0, "sigma": -1.0}}),
        (ValueError, "needs clusters=", {"vcov": "CR0"}),
    ]
    for error, message, options in cases:
        with pytest.raises(error, match=message):
            calibrate(normal, fit, data, **{"sample": redraw, "key": 0, **options})
    weights = jm.frequency(np.ones(N))
    with pytest.raises(ValueError, match="repeat the rows"):
        calibrate(
            normal,
            jm.fit(normal, START, data, constraints=POSITIVE, weights=weights),
            data,
            redraw,
            key=0,
        )
