"""What the textbooks prove of maximum likelihood, on simulated data: every figure against its closed form, in units of its own simulation error.

Held elsewhere, and not repeated here: the exact small-sample law of a normal sample under ``calibrate`` (inference/test_calibration.py), sizes
of the Wald, score and likelihood-ratio tests of a normal mean and the chi-bar-square law on a bound (inference/test_sizes.py,
inference/test_hypotheses.py), the mean of Takeuchi's penalty (inference/test_sizes.py), equivariance of one fit under many maps
(parameters/test_invariance.py) and of one profile (inference/test_profile.py), the first-order bias of built-in models (likelihood/test_bias.py),
the limit under a wrong model as the nearest member (inference/test_divergence.py).
"""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.scipy.stats import norm
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import Status
from tests.likelihoods import normal

from .study import (
    assert_far,
    assert_near,
    follows,
    log_rmse,
    mean,
    ratio_of_variances,
    share,
    skewness,
    slope,
    variance,
)

MU, SIGMA = 1.0, 2.0
# Every batch here has two parameters and 1025 to 8192 members: the programs that know no likelihood are then compiled once for all of them.
SIZES = {10: 5000, 50: 1000, 400: 1000, 3200: 1000}  # rows of a data set: how many data sets
GROWING = (50, 400, 3200)
LOG_N = np.log(GROWING)
Z95 = scipy.special.ndtri(0.975)


def by_size(draw, sizes=SIZES):
    """A ragged list of data sets, and which members have each length."""
    data = [draw(n) for n, times in sizes.items() for _ in range(times)]
    ends = np.cumsum(list(sizes.values()))
    return data, {
        n: slice(end - times, end) for (n, times), end in zip(sizes.items(), ends, strict=True)
    }


@pytest.fixture(scope="module")
def normals():
    """Normal samples of four lengths, one batch; the estimates (b, 2), their standard errors, the places of each length."""
    rng = np.random.default_rng(101)
    data, places = by_size(lambda n: rng.normal(MU, SIGMA, n))
    fits = jm.fit_batch(
        normal, {"mu": 0.5, "sigma": 1.5}, data, constraints={"sigma": jm.positive}, progress=False
    )
    assert fits.converged.all()
    return fits.x, fits.se, places


def exact_rmse(n):
    """√E(θ̂ − θ)² of ȳ and of σ̂ = √(Σ(y − ȳ)²/n): σ̂√n/σ has a chi law with n − 1 degrees of freedom, Eσ̂² = (n − 1)σ²/n."""
    middle = np.sqrt(2 / n) * np.exp(
        scipy.special.gammaln(n / 2) - scipy.special.gammaln((n - 1) / 2)
    )
    return SIGMA * np.sqrt([1 / n, 2 - 1 / n - 2 * middle])


# ---------------------------------------------------------------- 1 consistency


def test_1_the_error_of_a_normal_sample_falls_with_the_root_of_n(normals):
    """RMSE as in closed form at each n, and a slope of −½ on log–log axes."""
    x, _, places = normals
    logs, errors = np.stack([log_rmse(x[places[n]] - [MU, SIGMA]) for n in GROWING], axis=1)
    assert_near(logs, np.log([exact_rmse(n) for n in GROWING]), errors)
    for j in range(2):
        steepness, error = slope(LOG_N, logs[:, j], errors[:, j])
        assert error < 0.01
        assert_near(steepness, -0.5, error)


BETA = np.array([1.0, 0.8])
ENDS = (50, 3200)


def rows_of_counts(rng, n):
    x = np.column_stack([np.ones(n), rng.uniform(-1.0, 1.0, n)])
    return {"x": x, "y": rng.poisson(np.exp(x @ BETA)).astype(float)}


def poisson_information():
    """Of one row, E e^{a + bx}(1, x)(1, x)' over x uniform on (−1, 1), by Gauss–Legendre."""
    u, weight = np.polynomial.legendre.leggauss(40)
    rows = np.column_stack([np.ones(40), u])
    return rows.T @ (rows * (weight / 2 * np.exp(rows @ BETA))[:, None])


@pytest.fixture(scope="module")
def counts():
    """Poisson regressions of two lengths, one batch."""
    rng = np.random.default_rng(102)
    data, places = by_size(lambda n: rows_of_counts(rng, n), {n: 600 for n in ENDS})
    fits = jm.fit_batch(jm.models.poisson(), None, data, progress=False)
    assert fits.converged.all()
    return fits.x, fits.se, places


@pytest.mark.thorough
def test_1_the_error_of_a_regression_falls_as_its_information_says(counts):
    """RMSE √n → √diag I⁻¹, which is not in closed form for any n; the slope again −½."""
    x, _, places = counts
    logs, errors = np.stack([log_rmse(x[places[n]] - BETA) for n in ENDS], axis=1)
    limit = 0.5 * np.log(np.diag(np.linalg.inv(poisson_information())))
    assert_near(logs[1] + 0.5 * np.log(ENDS[1]), limit, errors[1])
    for j in range(2):
        steepness, error = slope(np.log(ENDS), logs[:, j], errors[:, j])
        assert_near(steepness, -0.5, error)


PAIRS = {10: 1500, 640: 500}  # pairs in a data set: how many data sets
EFFECT = 0.7  # of the second observation of a pair over the first


def pairs(params, y):
    """Before and after, each pair with a level of its own: Σ of its two terms at the best level, the mean of y₁ and y₂ − δ."""
    level = jnp.mean(y, axis=1, keepdims=True)
    return norm.logpdf(
        y, level + params["effect"] * jnp.array([-0.5, 0.5])[None, :], params["sigma"]
    ).sum(axis=1)


def with_levels(params, data):
    """The same with the levels as parameters."""
    level = params["level"][data["pair"]][:, None]
    return norm.logpdf(
        data["y"], level + params["effect"] * jnp.array([-0.5, 0.5])[None, :], params["sigma"]
    ).sum(axis=1)


@pytest.fixture(scope="module")
def neyman_scott():
    rng = np.random.default_rng(103)
    data, places = by_size(
        lambda m: (
            rng.normal(0.0, 5.0, (m, 1))
            + rng.normal(0.0, SIGMA, (m, 2))
            + [-EFFECT / 2, EFFECT / 2]
        ),
        PAIRS,
    )
    fits = jm.fit_batch(
        pairs,
        {"effect": 0.0, "sigma": 1.0},
        data,
        constraints={"sigma": jm.positive},
        progress=False,
    )
    assert fits.converged.all()
    return data, fits, places


@pytest.mark.parametrize("m", PAIRS)
def test_1_with_a_level_for_each_pair_the_variance_is_not_consistent(neyman_scott, m):
    """Neyman and Scott (1948, Econometrica 16, p. 1): σ̂² = Σ(d − d̄)²/4m of m differences, 2mσ̂²/σ² is χ²(m − 1), and σ̂² → σ²/2."""
    _, fits, places = neyman_scott
    found = fits.params["sigma"][places[m]] ** 2
    average, error = mean(found)
    assert_near(average, SIGMA**2 / 2 * (m - 1) / m, error)
    assert_far(average, SIGMA**2, error, 20)
    assert follows(2 * m * found / SIGMA**2, scipy.stats.chi2(m - 1).cdf) > 1e-3
    # The effect is consistent all the same; but more data make the fit surer of a wrong σ: SE = σ̂/√4m.
    effect, error = mean(fits.params["effect"][places[m]])
    assert_near(effect, EFFECT, error)
    low, high = fits.interval(scale="user")[places[m], 1].T
    held, error = share((low <= SIGMA) & (SIGMA <= high))
    assert_near(held, scipy.stats.chi2(m - 1).sf(2 * m / (1 + Z95 / np.sqrt(4 * m)) ** 2), error)
    assert held < (0.5 if m == 10 else 0.01)


def test_1_the_levels_may_be_written_as_parameters(neyman_scott):
    """A fit of m + 2 parameters and the one of two agree in δ̂, σ̂, their standard errors and ℓ."""
    data, fits, _ = neyman_scott
    start = {"effect": 0.0, "level": data[0].mean(axis=1) + 1.0, "sigma": 1.0}
    full = jm.fit(
        with_levels,
        start,
        {"y": data[0], "pair": np.arange(10)},
        constraints={"sigma": jm.positive},
    )
    assert full.df == 12
    assert_allclose(
        [*full.x[[0, -1]], *full.se[[0, -1]], full.loglik],
        [*fits.x[0], *fits.se[0], fits.loglik[0]],
        rtol=1e-7,
    )


# ---------------------------------------------------------------- 2 asymptotic normality


def test_2_studentised_estimates_are_normal_at_large_n(normals, counts):
    """(θ̂ − θ)/SE against N(0, 1), for the entries of two models at n = 3200."""
    for (x, se, places), truth in ((normals, [MU, SIGMA]), (counts, BETA)):
        t = ((x - truth) / se)[places[3200]]
        assert_near(np.std(t, axis=0, ddof=1), 1.0, np.sqrt(0.5 / len(t)))
        for j in range(2):
            assert follows(t[:, j], scipy.stats.norm.cdf) > 1e-3
            skew, error = skewness(t[:, j])
            assert_near(skew, 0.0, error)


def studentised_sigma(n):
    """√(2n)(1 − σ/σ̂) = (σ̂ − σ)/SE of a normal sample: its distribution function, skewness and 95 % coverage, from the chi law of σ̂√n/σ."""
    chi = scipy.stats.chi(n - 1)
    q = chi.ppf((np.arange(200_000) + 0.5) / 200_000)
    t = np.sqrt(2 * n) * (1 - np.sqrt(n) / q)

    def cdf(v):
        return chi.cdf(np.sqrt(n) / np.maximum(1 - v / np.sqrt(2 * n), 1e-9))

    return cdf, scipy.stats.skew(t), cdf(Z95) - cdf(-Z95)


@pytest.mark.parametrize("n", [10, 50, 3200])
def test_2_at_small_n_the_law_is_skew_and_known(normals, n):
    x, se, places = normals
    t = ((x[:, 1] - SIGMA) / se[:, 1])[places[n]]
    cdf, skew, covered = studentised_sigma(n)
    assert follows(t, cdf) > 1e-3
    found, error = skewness(t)
    assert_near(found, skew, error)
    held, wide = share(np.abs(t) <= Z95)
    assert_near(held, covered, wide)
    if n == 10:
        assert skew < -1
        assert_far(found, 0.0, error)
        assert_far(held, 0.95, wide)
        assert follows(t, scipy.stats.norm.cdf) < 1e-6


N, R = 400, 4000
DESIGN = np.column_stack([np.ones(N), np.random.default_rng(104).normal(size=N)])
TRUTH = {"beta": np.array([0.0, 1.0])}


@pytest.fixture(scope="module")
def logits():
    """4 000 logistic regressions of 400 rows with one design."""
    data = {"x": DESIGN, "y": (np.arange(N) % 2).astype(float)}
    fit = jm.fit(jm.models.logistic(), data=data)
    return jm.calibrate(
        jm.models.logistic(),
        fit,
        data,
        key=1,
        replicates=R,
        truth=TRUTH,
        tests="lr",
        progress=False,
    )


def test_2_wald_intervals_hold_the_truth_as_often_as_they_say(logits):
    """Coverage of 95 %, to its simulation error and the O(1/n) of a logit with 400 rows (0.2 %); SE over SD is one."""
    assert logits.failed == {}
    assert np.all(np.abs(logits.coverage() - 0.95) < 3 * logits.coverage_error() + 0.002)
    assert np.all(np.abs(logits.se_ratio - 1) < 3 * logits.se_ratio_error + 0.5 / np.sqrt(N))
    t = (logits.estimates - logits.truth) / logits.stderrs
    assert (
        follows(t[:, 0], scipy.stats.norm.cdf) > 1e-3
    )  # a coefficient of zero has no bias to show
    # An SE a tenth too small or too large would be seen in each coefficient, by either figure.
    for factor in (0.9, 1.1):
        assert_far(factor * logits.se_ratio, 1.0, factor * logits.se_ratio_error)
        held, error = share(np.abs(t) <= factor * Z95)
        assert_far(held, 0.95, error)


# ---------------------------------------------------------------- 3 efficiency


def test_3_the_variance_of_a_regression_is_the_bound_of_cramer_and_rao(logits):
    """The bound from X'WX at the truth; SD² is above it by O(1/n) only."""
    p = scipy.special.expit(DESIGN @ TRUTH["beta"])
    bound = np.diag(np.linalg.inv(DESIGN.T @ (DESIGN * (p * (1 - p))[:, None])))
    assert_allclose(
        logits.bound, bound, rtol=1e-10
    )  # for a logit observed and expected information are one
    found, error = variance(logits.estimates)
    assert np.all(np.abs(found / bound - 1) < 3 * error / bound + 10 / N)


def variance_of_median(law, n):
    """Of n values, n odd: the median of uniform values has a beta law."""
    u = scipy.stats.beta((n + 1) / 2, (n + 1) / 2).ppf((np.arange(20_000) + 0.5) / 20_000)
    return np.var(law.ppf(u))


def test_3_the_median_of_normal_data_has_efficiency_two_over_pi():
    """And of Laplace data it is the maximum likelihood estimate, with half the variance of the mean in the limit: which is best depends on the law."""
    n, rng = 401, np.random.default_rng(105)
    y = rng.normal(size=(4000, n))
    ratio, error = ratio_of_variances(y.mean(axis=1), np.median(y, axis=1))
    assert_near(ratio, 1 / n / variance_of_median(scipy.stats.norm, n), error)
    assert_near(ratio, 2 / np.pi, error + 0.002)
    y = rng.laplace(size=(4000, n))
    ratio, error = ratio_of_variances(np.median(y, axis=1), y.mean(axis=1))
    assert_near(ratio, variance_of_median(scipy.stats.laplace, n) * n / 2, error)
    assert 0.5 < ratio < 0.6


SHAPE, RATE, ROWS, SETS = 2.0, 3.0, 500, 3000


@pytest.fixture(scope="module")
def gammas():
    y = np.random.default_rng(106).gamma(SHAPE, 1 / RATE, (SETS, ROWS))
    fits = jm.fit_batch(jm.models.distribution(jm.families.gamma), None, y, progress=False)
    assert fits.converged.all()
    return y, fits


def test_3_moments_of_a_gamma_are_worse_than_likelihood_by_the_known_ratio(gammas):
    """avar(α̂) = α/(αψ'(α) − 1) against 2α(α + 1) of α̃ = ȳ²/s²: at α = 2 the ratio is 0.575. (Fisher 1922, Phil. Trans. A 222, p. 332.)"""
    y, fits = gammas
    shape = fits.params["shape"]
    curvature = SHAPE * scipy.special.polygamma(1, SHAPE) - 1
    found, error = variance(shape)
    assert abs(found * ROWS / (SHAPE / curvature) - 1) < 3 * error / found + 10 / ROWS
    moments = y.mean(axis=1) ** 2 / y.var(axis=1)
    ratio, error = ratio_of_variances(shape, moments)
    assert_near(ratio, 1 / (2 * (SHAPE + 1) * curvature), error)
    assert_far(ratio, 1.0, error, 20)


# ---------------------------------------------------------------- 4 invariance


EACH = 34
CELLS = {"group": np.array([0.0, 0.0, 1.0, 1.0]), "y": np.array([0.0, 1.0, 0.0, 1.0])}
POSITIVE_COUNTS = np.arange(1, EACH)
SUCCESSES = np.stack(np.meshgrid(POSITIVE_COUNTS, POSITIVE_COUNTS, indexing="ij"), axis=-1).reshape(
    -1, 2
)
UNIT = {"first": jm.interval(0, 1), "second": jm.interval(0, 1)}


def chances(params, data):
    """Two groups by their probabilities."""
    p = jnp.where(data["group"] > 0, params["second"], params["first"])
    return data["y"] * jnp.log(p) + (1 - data["y"]) * jnp.log1p(-p)


def odds(params, data):
    """The same by a log odds and a log odds ratio."""
    eta = params["logit"] + data["group"] * params["log_ratio"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


def log_ratio(params):
    first, second = params["first"], params["second"]
    return jnp.log(second) - jnp.log1p(-second) - jnp.log(first) + jnp.log1p(-first)


def weighted(successes):
    k, m = np.moveaxis(successes, -1, 0)
    return jm.frequency(np.stack([EACH - k, k, EACH - m, m], axis=-1).astype(float))


@pytest.fixture(scope="module")
def tables():
    """Every table of two groups of 34 without an empty cell, 1 089 of them, in both parametrisations."""
    shared = {"in_axes": None, "weights": weighted(SUCCESSES), "progress": False}
    return (
        jm.fit_batch(chances, {"first": 0.4, "second": 0.6}, CELLS, constraints=UNIT, **shared),
        jm.fit_batch(odds, {"logit": 0.0, "log_ratio": 0.0}, CELLS, **shared),
    )


def test_4_estimates_and_likelihood_intervals_follow_a_change_of_parameters(tables):
    p, eta = tables
    assert p.converged.all() and eta.converged.all()
    known = SUCCESSES / EACH
    assert_allclose(p.x, known, rtol=0, atol=1e-9)
    assert np.all(
        np.abs(eta.params["logit"] - scipy.special.logit(known[:, 0])) < 1e-6 * eta.stderr["logit"]
    )
    assert_allclose(p.loglik, eta.loglik, rtol=1e-12)
    few = np.arange(0, len(known), 97)
    shared = {"weights": weighted(SUCCESSES[few]), "in_axes": None}
    mapped = jm.profile(chances, p[few], CELLS, {"log_ratio": log_ratio}, **shared).conf_int()[
        "log_ratio"
    ]
    own = jm.profile(odds, eta[few], CELLS, "log_ratio", **shared).conf_int()["log_ratio"]
    assert_allclose(mapped, own, rtol=0, atol=1e-6)


def test_4_a_wald_interval_does_not_follow(tables):
    """Symmetric about p̂ on its own scale, about logit p̂ on the other: they part as p̂ comes near 0, where the first leaves the parameter space."""
    p, eta = tables
    plain, through = p.conf_int(scale="user")["first"], scipy.special.expit(eta.conf_int()["logit"])
    gap, k = np.max(np.abs(plain - through), axis=1), SUCCESSES[:, 0]
    assert np.all(plain[k == 1, 0] < 0) and np.all(gap[k == 1] > 0.09)
    assert np.all(gap[k == EACH // 2] > 1e-3) and np.all(gap[k == EACH // 2] < 0.01)


def test_4_a_probability_of_zero_and_a_log_odds_at_minus_infinity_are_one_estimate():
    empty = {"weights": weighted(np.array([0, 20]))}
    p = jm.fit(chances, {"first": 0.4, "second": 0.6}, CELLS, constraints=UNIT, **empty)
    eta = jm.fit(odds, {"logit": 0.0, "log_ratio": 0.0}, CELLS, **empty)
    assert (p.verdict, eta.verdict) == (Status.BOUNDARY, Status.SEPARATED)
    assert (
        p.params["first"] == 0.0
        and eta.params["logit"] == -np.inf
        and eta.params["log_ratio"] == np.inf
    )
    assert_allclose(
        [p.loglik, eta.loglik], 20 * np.log(20 / EACH) + 14 * np.log(14 / EACH), rtol=1e-9
    )


# ---------------------------------------------------------------- 5 bias


@pytest.mark.parametrize("n", [10, 50])
def test_5_the_variance_is_too_small_by_one_part_in_n(normals, n):
    """Eσ̂² = σ²(n − 1)/n: a divisor n − 1, or n + 1, would be seen."""
    x, _, places = normals
    average, error = mean(x[places[n], 1] ** 2)
    assert_near(average - SIGMA**2, -(SIGMA**2) / n, error)
    if n == 10:
        assert_far(average * n / (n - 1) - SIGMA**2, -(SIGMA**2) / n, error)
        assert_far(average * n / (n + 1) - SIGMA**2, -(SIGMA**2) / n, error)


# ---------------------------------------------------------------- 6 Wilks


def test_6_twice_the_log_likelihood_ratio_is_chi_square(logits):
    """2(ℓ(θ̂) − ℓ(θ)) of two parameters: its law, its mean, and the size of the test at 5 %."""
    values = logits.statistics["lr"]
    assert follows(values, scipy.stats.chi2(2).cdf) > 1e-3
    average, error = mean(values)
    assert abs(average - 2) < 3 * error + 10 / N
    size, error = logits.size("lr")
    assert_near(size, 0.05, error)
    # ℓ in place of 2ℓ, or a degree of freedom too many, would not pass.
    assert follows(values / 2, scipy.stats.chi2(2).cdf) < 1e-6
    assert follows(values, scipy.stats.chi2(1).cdf) < 1e-6
