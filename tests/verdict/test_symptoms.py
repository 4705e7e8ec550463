"""What was seen to go wrong when likelihoods were written as most people write them: symptoms 1 to 5, each in several forms, with
the right answer from a closed form or from SciPy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln, log_ndtr
from jax.scipy.stats import multivariate_normal, norm
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, special, stats

import jaxmle as jm

from .answers import assert_fit, highest, members, negative_binomial

NONE = np.nan

# ---------------------------------------------------------------- 1: a curved flat ridge was CONVERGED

RIDGE_X = np.linspace(0.2, 2.0, 20)
RIDGE_Y = 2.0 * np.exp(-0.8 * RIDGE_X) + 0.05 * np.random.default_rng(1).normal(size=20)


def product_of_slopes(t, d):
    return norm.logpdf(d[1], t[0] * t[1] * d[0], 0.1)


def amplitude_and_origin(t, d):
    """A·exp(−k(x − x₀)): A and x₀ are one parameter, k is another."""
    return norm.logpdf(d[1], t[0] * jnp.exp(-t[1] * (d[0] - t[2])), 0.05)


def test_1_a_product_of_slopes_is_unidentified_from_sixteen_starts_in_a_batch():
    starts = np.random.default_rng(0).uniform(-3, 3, (16, 2))
    fits = members(product_of_slopes, starts, (RIDGE_X, 1.4 * RIDGE_X))
    assert {fit.verdict.name for fit in fits} == {"UNIDENTIFIED"}
    assert all(np.isnan(fit.se).all() for fit in fits)


def test_1_amplitude_and_origin_of_a_decay_are_unidentified_and_its_rate_keeps_its_error():
    def mean(x, a, k):
        return a * np.exp(-k * x)

    (_, rate), vcov = optimize.curve_fit(mean, RIDGE_X, RIDGE_Y, p0=[2, 0.8], xtol=1e-14)
    residual = RIDGE_Y - mean(RIDGE_X, *optimize.curve_fit(mean, RIDGE_X, RIDGE_Y, p0=[2, 0.8])[0])
    for start in ([1.0, 1.0, 0.0], [3.0, 0.5, 1.0], [0.5, 0.3, -0.4]):
        fit = jm.fit(amplitude_and_origin, np.array(start), (RIDGE_X, RIDGE_Y))
        assert_fit(fit, "UNIDENTIFIED", x=[NONE, rate, NONE])
        assert np.isnan(fit.se[[0, 2]]).all()
        # The observed information differs from the expected by the residuals, a few per cent.
        right = np.sqrt(vcov[1, 1]) * 0.05 / np.sqrt(np.sum(residual**2) / (20 - 2))
        assert_allclose(fit.se[1], right, rtol=0.1)


@pytest.mark.parametrize("start", [[0.3, 0.6], [0.9, 0.9], [0.5, 0.5]])
def test_1_occupancy_times_detection_of_one_visit_is_unidentified(start):
    """P(seen) = ψ·p."""

    def seen(p, d):
        chance = p["psi"] * p["p"]
        return d[:, 0] * jnp.log(chance) + d[:, 1] * jnp.log1p(-chance)

    data = np.array([[13.0, 27.0], [9.0, 31.0], [11.0, 29.0]])
    fit = jm.fit(seen, {"psi": start[0], "p": start[1]}, data, constraints=jm.interval(0.0, 1.0))
    assert_fit(fit, "UNIDENTIFIED", se=[NONE, NONE])
    assert_allclose(np.prod(fit.x), 33 / 120, rtol=1e-6)


@pytest.mark.parametrize("start", [[1.0, 2.0, 0.5], [0.2, 4.0, 0.0], [3.0, 0.3, -0.5]])
def test_1_power_and_scale_of_a_rate_that_enter_by_their_product_are_unidentified(start):
    """A Poisson rate exp(ab + c·x): a and b free along ab = const, c with the error of the regression."""

    def rate(t, d):
        eta = t[0] * t[1] + t[2] * d[0]
        return d[1] * eta - jnp.exp(eta)

    x = np.repeat([-1.0, 0.0, 1.0], 8)
    y = np.random.default_rng(3).poisson(np.exp(1.0 + 0.5 * x)).astype(float)
    design = np.column_stack([np.ones(24), x])
    beta = np.zeros(2)
    for _ in range(50):
        mean = np.exp(design @ beta)
        beta = beta + np.linalg.solve(design.T @ (design * mean[:, None]), design.T @ (y - mean))
    error = np.sqrt(np.linalg.inv(design.T @ (design * mean[:, None]))[1, 1])
    fit = jm.fit(rate, np.array(start), (x, y))
    assert_fit(fit, "UNIDENTIFIED", x=[NONE, NONE, beta[1]], se=[NONE, NONE, error])


def two_factors(t, y):
    """Loadings (5, 2) and log specific variances of a factor model, whose factors may be turned."""
    loadings = t[:10].reshape(5, 2)
    covariance = loadings @ loadings.T + jnp.diag(jnp.exp(t[10:]))
    return jax.vmap(lambda row: multivariate_normal.logpdf(row, jnp.zeros(5), covariance))(y)


def test_1_loadings_that_may_be_turned_have_no_standard_error_and_specific_variances_do():
    """It was UNIDENTIFIED, with standard errors of 1 500: rounding made a curvature of zero."""
    rng = np.random.default_rng(9)
    y = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(200, 5))
    start = np.concatenate([0.3 * rng.normal(size=10), np.zeros(5)])
    fit = jm.fit(two_factors, start, y)
    assert_fit(fit, "UNIDENTIFIED")
    assert np.isnan(fit.se[:10]).all()
    # With one loading held at zero they cannot be turned.
    held = jm.fit(jm.fix(two_factors, {"theta[1]": 0.0}), start, y)
    assert_fit(held, "CONVERGED", loglik=fit.loglik)
    assert_allclose(fit.x[10:], held.x[10:], atol=1e-6)
    assert_allclose(fit.se[10:], held.se[10:], rtol=1e-5)


# ---------------------------------------------------------------- 2: a stationary inflection was CONVERGED

SKEWED = stats.skewnorm.rvs(3.0, 1.0, 2.0, size=150, random_state=np.random.default_rng(5))
# so skewed that ℓ is highest at alpha → ∞, the half-normal law from the smallest value on
HALF_NORMAL = np.random.default_rng(5).gamma(2.0, 1.0, 60)


def skew_normal(t, y):
    z = (y - t[0]) / jnp.exp(t[1])
    return norm.logpdf(z) - t[1] + log_ndtr(t[2] * z) + jnp.log(2.0)


def skew_normal_oracle():
    def minus(t):
        return -np.sum(stats.skewnorm.logpdf(SKEWED, t[2], t[0], np.exp(t[1])))

    return highest(minus, [[0.5, 0.5, 3.0], [1.0, 0.7, 3.0], [2.0, 0.2, 0.0]])


@pytest.mark.parametrize("alpha", [0.0, 0.05, -1.0, 1.0, -4.0])
def test_2_a_skew_normal_is_not_converged_at_the_inflection_alpha_zero(alpha):
    """Azzalini (1985): at alpha = 0 the score vanishes for every sample, mean and standard deviation in the place of loc and scale."""
    right, top = skew_normal_oracle()
    start = np.array([SKEWED.mean(), np.log(SKEWED.std()), alpha])
    fit = jm.fit(skew_normal, start, SKEWED)
    assert_fit(fit, "CONVERGED", x=right, loglik=top)


@pytest.mark.parametrize("alpha", [0.0, 0.05, 1.0])
def test_2_a_skew_normal_whose_alpha_is_infinite_says_so_or_that_it_stopped_on_the_way(alpha):
    """With alpha → ∞ the law is half-normal from loc on, and loc is the smallest value."""
    loc = HALF_NORMAL.min()
    scale = np.sqrt(np.mean((HALF_NORMAL - loc) ** 2))
    top = 60 * np.log(2) + stats.norm.logpdf(HALF_NORMAL, loc, scale).sum()
    start = np.array([HALF_NORMAL.mean(), np.log(HALF_NORMAL.std()), alpha])
    fit = jm.fit(skew_normal, start, HALF_NORMAL)
    assert_fit(fit, "SEPARATED", "IMPRECISE", loglik=top)
    assert np.isnan(fit.se[2])


@pytest.mark.parametrize("start", [-0.5, 0.0, 0.3])
def test_2_a_cubic_inflection_in_a_scalar_is_left_behind(start):
    """ℓ = 50(t³/3 − t⁴/4): stationary at 0, maximal at 1 with variance 1/50."""
    fit = jm.fit(
        lambda p, d: jnp.sum(d * (p["t"] ** 3 / 3 - p["t"] ** 4 / 4)),
        {"t": start},
        np.full(10, 5.0),
    )
    assert_fit(fit, "CONVERGED", x=[1.0], se=[50**-0.5])


def frontier(t, d):
    """Normal noise and a half-normal inefficiency, by log σ² = log(σᵥ² + σᵤ²) and λ = σᵤ/σᵥ (Aigner, Lovell & Schmidt 1977)."""
    x, y = d
    residual = (y - t[0] - t[1] * x) / jnp.exp(t[2] / 2)
    return jnp.log(2.0) - t[2] / 2 + norm.logpdf(residual) + log_ndtr(-t[3] * residual)


def test_2_a_frontier_model_is_not_converged_at_lambda_zero():
    rng = np.random.default_rng(7)
    x = rng.normal(size=80)
    y = 1 + 0.5 * x + 0.3 * rng.normal(size=80) - np.abs(rng.normal(size=80))

    def minus(t):
        r = (y - t[0] - t[1] * x) / np.exp(t[2] / 2)
        return -np.sum(np.log(2) - t[2] / 2 + stats.norm.logpdf(r) + special.log_ndtr(-t[3] * r))

    right, top = highest(minus, [[1.0, 0.5, 0.0, 2.0], [0.5, 0.5, 0.0, 0.5]])
    slope, level = np.polyfit(x, y, 1)
    variance = np.mean((y - level - slope * x) ** 2)
    for ratio in (0.0, 0.1, 1.0):
        fit = jm.fit(frontier, np.array([level, slope, np.log(variance), ratio]), (x, y))
        assert_fit(fit, "CONVERGED", x=right, loglik=top)


# ---------------------------------------------------------------- 3: a slow or curved ridge to infinity was CONVERGED


def truncated(m, s, y):
    return norm.logpdf(y, m, s) - norm.logcdf(m / s)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("seed", [1, 2])
def test_3_a_truncated_normal_with_sd_beyond_its_mean_is_not_converged(seed, unit):
    """Castillo (1994): the supremum is the exponential law's, −n(log ȳ + 1), at mean → −∞ and sd → ∞."""
    y = unit * np.random.default_rng(seed).gamma(0.5, 1.0, 40)
    assert y.std() > y.mean()
    fit = jm.fit(
        lambda t, y: jnp.sum(truncated(t[0], jnp.exp(t[1]), y)),
        np.array([y.mean(), np.log(y.std())]),
        y,
    )
    # The ridge is slow: ℓ is within 1e-2 of its supremum, or the fit says that it stopped on the way, where
    # ℓ has an error of 1e-9, which its derivatives far out are below.
    assert_fit(fit, "SEPARATED", "IMPRECISE")
    if fit.verdict.name == "SEPARATED":
        assert_array_equal(fit.x, [-np.inf, np.inf])
    assert np.isnan(fit.se).all()
    assert_allclose(fit.loglik, -40 * (np.log(y.mean()) + 1), atol=1e-2)


@pytest.mark.parametrize("start", [[0.0, 0.0], [2.0, -1.0], [1.0, 1.0]])
def test_3_saturation_of_a_straight_line_goes_to_infinity(start):
    """a(1 − e^{−kx}) with a, k > 0 fitted to a response that bends upwards: the limit is the line through the origin."""
    x = np.linspace(0.5, 6, 18)
    y = 0.7 * x + 0.02 * x**2 + 0.1 * np.random.default_rng(2).normal(size=18)
    slope = x @ y / (x @ x)

    def curve(t, d):
        return norm.logpdf(d[1], -jnp.exp(t[0]) * jnp.expm1(-jnp.exp(t[1]) * d[0]), 0.2)

    top = stats.norm.logpdf(y, slope * x, 0.2).sum()
    fit = jm.fit(curve, np.array(start), (x, y))
    assert_fit(fit, "SEPARATED", x=[np.inf, -np.inf])
    assert_allclose(fit.loglik, top, atol=1e-3)


def test_3_a_frontier_of_the_wrong_skewness_has_no_inefficiency():
    """Waldman (1982): residuals skewed to the right have their maximum at σᵤ = 0, which is least squares."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=60)
    y = 1 + 0.5 * x + rng.gamma(2.0, 0.5, 60)
    design = np.column_stack([np.ones(60), x])
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    variance = np.mean((y - design @ beta) ** 2)
    assert stats.skew(y - design @ beta) > 0

    def normal_half_normal(t, d):
        noise, inefficiency = jnp.exp(2 * t[2]), jnp.exp(2 * t[3])
        total = noise + inefficiency
        e = d[1] - t[0] - t[1] * d[0]
        ratio = jnp.sqrt(inefficiency / noise)
        return (
            jnp.log(2.0)
            + norm.logpdf(e, 0.0, jnp.sqrt(total))
            + log_ndtr(-ratio * e / jnp.sqrt(total))
        )

    fit = jm.fit(normal_half_normal, np.array([*beta, -0.3, -0.7]), (x, y))
    assert_fit(
        fit,
        "SEPARATED",
        x=[*beta, np.log(variance) / 2, -np.inf],
        loglik=-30 * (np.log(2 * np.pi * variance) + 1),
        atol=1e-4,
    )


# ---------------------------------------------------------------- 4: a flat likelihood computed with rounding was CONVERGED

FLAT = {
    "quotient": lambda t, y: jnp.log(jax.nn.sigmoid(t[0]) / jax.nn.sigmoid(t[0])) - y,
    "gamma_functions": lambda t, y: gammaln(t[0] + 6) - gammaln(t[0] + 5) - jnp.log(t[0] + 5) - y,
    "shift": lambda t, y: -((y - ((t[0] + 1e3) - t[0])) ** 2),
    "squares": lambda t, y: -((jnp.sin(t[0]) ** 2 + jnp.cos(t[0]) ** 2 - y) ** 2),
}


@pytest.mark.parametrize("scalar", [False, True])
@pytest.mark.parametrize("name", FLAT)
def test_4_a_constant_computed_with_rounding_is_unidentified(name, scalar):
    terms = FLAT[name]
    y = np.array([3.0, 1.0, 2.0])
    loglik = (lambda t, y: jnp.sum(terms(t, y))) if scalar else terms
    for start in (0.1, 1.3, -0.7):
        assert_fit(jm.fit(loglik, np.array([start]), y), "UNIDENTIFIED", se=[NONE])


@pytest.mark.thorough
@pytest.mark.parametrize("name", FLAT)
def test_4_a_constant_computed_with_rounding_is_unidentified_in_a_batch(name):
    starts = np.linspace(-1, 1.5, 8)[:, None]
    fits = members(FLAT[name], starts, np.array([3.0, 1.0, 2.0]))
    assert {fit.verdict.name for fit in fits} == {"UNIDENTIFIED"}


# ---------------------------------------------------------------- 5: the cone of a likelihood that is not concave overruled the climb

EVEN = np.array([4, 5, 5, 6, 5, 4, 5, 6, 5, 5, 4, 6, 7, 5, 4, 5.0])


def test_5_the_size_of_underdispersed_counts_is_plus_infinity_whatever_comes_first():
    """The Poisson limit: log mean with SE (Σy)^{−½}."""
    right = {"x": [np.inf, np.log(EVEN.mean())], "se": [NONE, EVEN.sum() ** -0.5]}
    fit = jm.fit(
        lambda t, y: negative_binomial(jnp.exp(t[1]), jnp.exp(t[0]), y), np.array([1.0, 1.0]), EVEN
    )
    assert_fit(fit, "SEPARATED", loglik=stats.poisson.logpmf(EVEN, EVEN.mean()).sum(), **right)


def test_5_a_cure_model_without_cures_keeps_the_shape_of_its_weibull():
    """Every time is an event: the cured share is 0 and the rest is a Weibull sample."""
    y = np.random.default_rng(4).weibull(1.5, 40) * 3

    def cure(t, y):
        shape, scale = jnp.exp(t[0]), jnp.exp(t[1])
        z = y / scale
        return jax.nn.log_sigmoid(-t[2]) + t[0] - t[1] + (shape - 1) * jnp.log(z) - z**shape

    shape, _, scale = stats.weibull_min.fit(y, floc=0)
    fit = jm.fit(cure, np.array([0.0, 1.0, -1.0]), y)
    # SciPy's fit stops at 1e-5 of its parameters.
    assert_fit(fit, "SEPARATED", x=[np.log(shape), np.log(scale), -np.inf], atol=1e-4)
    assert np.isfinite(fit.se[:2]).all()


def test_5_inflation_that_is_absent_leaves_the_binomial_its_estimate():
    """Zero-inflated binomial counts without zeros: logit share → −∞, logit p with the closed form."""
    y = np.random.default_rng(6).binomial(10, 0.6, 50).astype(float)
    assert y.min() > 0
    p = y.mean() / 10

    def inflated(t, y):
        mass = y * jax.nn.log_sigmoid(t[1]) + (10 - y) * jax.nn.log_sigmoid(-t[1])
        none = jnp.logaddexp(jax.nn.log_sigmoid(t[0]), jax.nn.log_sigmoid(-t[0]) + mass)
        return jnp.where(y == 0, none, jax.nn.log_sigmoid(-t[0]) + mass)

    fit = jm.fit(inflated, np.array([-0.5, 0.0]), y)
    se = 1 / np.sqrt(500 * p * (1 - p))
    assert_fit(fit, "SEPARATED", x=[-np.inf, special.logit(p)], se=[NONE, se])


def test_5_a_variance_between_groups_of_zero_leaves_the_variance_within():
    """Log variances, a group a row: log variance between → −∞, log variance within = log of the whole variance, SE √(2/n)."""
    table = np.array([[1.0, 2, 3], [3, 2, 1], [2, 1, 3], [2, 3, 1], [1, 3, 2.1]])

    def groups(t, a):
        between, within = jnp.exp(t[1]), jnp.exp(t[0])
        total = within + 3 * between
        squares = jnp.sum((a - a.mean(1)[:, None]) ** 2, 1)
        return -0.5 * (
            2 * t[0] + jnp.log(total) + squares / within + 3 * (a.mean(1) - t[2]) ** 2 / total
        )

    fit = jm.fit(groups, np.array([0.0, -1.0, 1.5]), table)
    right = [np.log(table.var()), -np.inf, table.mean()]
    assert_fit(fit, "SEPARATED", x=right, se=[np.sqrt(2 / 15), NONE, np.sqrt(table.var() / 15)])
