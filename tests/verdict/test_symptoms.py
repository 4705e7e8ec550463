"""What was seen to go wrong when likelihoods were written as most people write them: symptoms 1 to 10, each in several forms, with
the right answer from a closed form or from SciPy.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln, log_ndtr
from jax.scipy.stats import norm
from numpy.testing import assert_allclose
from scipy import optimize, special, stats

import jaxmle as jm

from .answers import beta_binomial, expect, highest, members, negative_binomial

NONE = np.nan

# ---------------------------------------------------------------- 1: a curved flat ridge was CONVERGED

RIDGE_X = np.linspace(0.2, 2.0, 20)
RIDGE_Y = 2.0 * np.exp(-0.8 * RIDGE_X) + 0.05 * np.random.default_rng(1).normal(size=20)


def product_of_slopes(t, d):
    return norm.logpdf(d[1], t[0] * t[1] * d[0], 0.1)


def amplitude_and_origin(t, d):
    """A·exp(−k(x − x₀)): A and x₀ are one parameter, k is another."""
    return norm.logpdf(d[1], t[0] * jnp.exp(-t[1] * (d[0] - t[2])), 0.05)


def test_1_a_product_of_slopes_is_unidentified_from_thirty_starts_in_a_batch():
    starts = np.random.default_rng(0).uniform(-3, 3, (30, 2))
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
        expect(fit, "UNIDENTIFIED", x=[NONE, rate, NONE])
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
    expect(fit, "UNIDENTIFIED", se=[NONE, NONE])
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
    expect(fit, "UNIDENTIFIED", x=[NONE, NONE, beta[1]], se=[NONE, NONE, error])


# ---------------------------------------------------------------- 2: a stationary inflection was CONVERGED

SKEWED = np.random.default_rng(5).gamma(2.0, 1.0, 60)


def skew_normal(t, y):
    z = (y - t[0]) / jnp.exp(t[1])
    return norm.logpdf(z) - t[1] + log_ndtr(t[2] * z) + jnp.log(2.0)


def skew_normal_oracle():
    def minus(t):
        return -np.sum(stats.skewnorm.logpdf(SKEWED, t[2], t[0], np.exp(t[1])))

    return highest(minus, [[0.5, 0.5, 3.0], [0.3, 0.8, 8.0], [2.0, 0.2, 0.0]])


@pytest.mark.parametrize("alpha", [0.0, 0.05, -1.0, 1.0, -4.0])
def test_2_a_skew_normal_is_not_converged_at_the_inflection_alpha_zero(alpha):
    """Azzalini (1985): at alpha = 0 the score vanishes for every sample, mean and standard deviation in the place of loc and scale."""
    right, top = skew_normal_oracle()
    start = np.array([SKEWED.mean(), np.log(SKEWED.std()), alpha])
    fit = jm.fit(skew_normal, start, SKEWED)
    expect(fit, "CONVERGED", x=right, loglik=top)


@pytest.mark.parametrize("start", [-0.5, 0.0, 0.3])
def test_2_a_cubic_inflection_in_a_scalar_is_left_behind(start):
    """ℓ = 50(t³/3 − t⁴/4): stationary at 0, maximal at 1 with variance 1/50."""
    fit = jm.fit(
        lambda p, d: jnp.sum(d * (p["t"] ** 3 / 3 - p["t"] ** 4 / 4)),
        {"t": start},
        np.full(10, 5.0),
    )
    expect(fit, "CONVERGED", x=[1.0], se=[50**-0.5])


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
        expect(fit, "CONVERGED", x=right, loglik=top)


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
    # The ridge is slow: ℓ is within 1e-3 of its supremum, or the fit says that it stopped on the way.
    expect(fit, "SEPARATED", x=[-np.inf, np.inf])
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
    expect(fit, "SEPARATED", x=[np.inf, -np.inf])
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
    expect(
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
        expect(jm.fit(loglik, np.array([start]), y), "UNIDENTIFIED", se=[NONE])


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
    expect(fit, "SEPARATED", loglik=stats.poisson.logpmf(EVEN, EVEN.mean()).sum(), **right)


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
    expect(fit, "SEPARATED", x=[np.log(shape), np.log(scale), -np.inf], atol=1e-4)
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
    expect(fit, "SEPARATED", x=[-np.inf, special.logit(p)], se=[NONE, se])


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
    expect(fit, "SEPARATED", x=right, se=[np.sqrt(2 / 15), NONE, np.sqrt(table.var() / 15)])


# ---------------------------------------------------------------- 6: UNBOUNDED with ℓ = +∞ for a bounded likelihood

# Counts of 12 trials with less variance than a binomial's.
STEADY = np.array([5, 6, 6, 7, 5, 6, 7, 6, 5, 6, 6, 7.0])


@pytest.mark.parametrize("start", [[0.0, 0.0], [0.5, 3.0], [0.0, 8.0]])
@pytest.mark.parametrize("scalar", [False, True])
def test_6_a_beta_binomial_of_underdispersed_counts_is_bounded(start, scalar):
    """(logit p, log precision): precision → ∞ is the binomial."""

    def terms(t, y):
        p, precision = jax.nn.sigmoid(t[0]), jnp.exp(t[1])
        return beta_binomial(p * precision, (1 - p) * precision, y, 12.0)

    p = STEADY.mean() / 12
    top = np.sum(STEADY * np.log(p) + (12 - STEADY) * np.log1p(-p))
    loglik = (lambda t, y: jnp.sum(terms(t, y))) if scalar else terms
    fit = jm.fit(loglik, np.array(start), STEADY)
    expect(fit, "SEPARATED", x=[special.logit(p), np.inf], atol=1e-4)
    assert_allclose(fit.loglik, top, atol=1e-3)


@pytest.mark.parametrize("alpha", [1.0, 0.1, 1e-3])
def test_6_a_dispersion_declared_positive_of_underdispersed_counts_is_bounded(alpha):
    fit = jm.fit(
        lambda p, y: negative_binomial(p["mu"], 1 / p["alpha"], y),
        {"mu": 4.0, "alpha": alpha},
        EVEN,
        constraints=jm.positive,
    )
    expect(fit, "BOUNDARY", x=[0.0, EVEN.mean()], se=[NONE, np.sqrt(EVEN.mean() / 16)], atol=1e-4)
    assert_allclose(fit.loglik, stats.poisson.logpmf(EVEN, EVEN.mean()).sum(), atol=1e-3)


@pytest.mark.parametrize("start", [-2.0, 0.0, 1.0])
def test_6_a_clayton_copula_of_negative_dependence_is_bounded(start):
    """Independence is the supremum, ℓ = 0 at log theta → −∞."""
    rng = np.random.default_rng(10)
    z = rng.normal(size=40)
    u = special.ndtr(z)
    v = special.ndtr(-0.6 * z + 0.8 * rng.normal(size=40))

    def exact(theta):
        inner = np.log1p(np.expm1(-theta * np.log(u)) + np.expm1(-theta * np.log(v)))
        return np.sum(np.log1p(theta) - (1 + theta) * np.log(u * v) - (2 + 1 / theta) * inner)

    assert max(exact(theta) for theta in np.geomspace(1e-6, 20, 200)) < 0

    def clayton(t, d):
        theta = jnp.exp(t[0])
        inner = jnp.log(d[0] ** -theta + d[1] ** -theta - 1)
        return jnp.log1p(theta) - (1 + theta) * jnp.log(d[0] * d[1]) - (2 + 1 / theta) * inner

    fit = jm.fit(clayton, np.array([start]), (u, v))
    expect(fit, "SEPARATED", x=[-np.inf])
    assert_allclose(fit.loglik, 0.0, atol=1e-3)


# ---------------------------------------------------------------- 7: UNBOUNDED was missed at a finite edge of the support


@pytest.mark.parametrize("start", [[0.0, 0.0, 0.5], [-0.5, 0.5, 0.1], [-0.7, 0.0, 1.0]])
def test_7_a_weibull_of_shape_below_one_above_a_free_threshold_is_unbounded(start):
    """(log shape, log scale, distance of the threshold below the smallest value): the sample has shape ½."""
    y = 2 + np.random.default_rng(11).weibull(0.5, 50)

    def weibull(t, y):
        shape = jnp.exp(t[0])
        z = (y - t[2]) / jnp.exp(t[1])
        return t[0] - t[1] + (shape - 1) * jnp.log(z) - z**shape

    fit = jm.fit(weibull, np.array([start[0], start[1], y.min() - start[2]]), y)
    expect(fit, "UNBOUNDED", loglik=np.inf)
    assert int(fit.witness.row) == int(y.argmin())


@pytest.mark.parametrize("start", [[0.0, 0.0], [1.0, -1.0], [3.0, 1.0]])
def test_7_a_gamma_law_of_equal_values_is_unbounded(start):
    """(log shape, log mean)."""

    def gamma(t, y):
        shape = jnp.exp(t[0])
        return (
            shape * (t[0] - t[1])
            + (shape - 1) * jnp.log(y)
            - shape * y / jnp.exp(t[1])
            - gammaln(shape)
        )

    expect(jm.fit(gamma, np.array(start), np.full(12, 1.7)), "UNBOUNDED", loglik=np.inf)


@pytest.mark.parametrize("shape", [-1.2, -1.5, -2.0])
def test_7_an_extreme_value_law_of_shape_below_minus_one_is_unbounded(shape):
    """A sample of shape −1.6 with its end at 2, from starts of shape below −1."""
    rng = np.random.default_rng(12)
    y = 2 - (-np.log(rng.random(50))) ** 1.6

    def gev(t, y):
        z = 1 + t[2] * (y - t[0]) / jnp.exp(t[1])
        return -t[1] - (1 + 1 / t[2]) * jnp.log(z) - z ** (-1 / t[2])

    scale = 1.2 * -shape * 1.0
    loc = y.max() + 0.3 + scale / shape
    fit = jm.fit(gev, np.array([loc, np.log(scale), shape]), y)
    expect(fit, "UNBOUNDED", loglik=np.inf)


# ---------------------------------------------------------------- 8: a plateau reached in one step


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("middle", [2.0, 6.0, 9.0])
def test_8_a_dose_response_curve_from_a_start_far_off_finds_its_maximum(middle, unit):
    """(middle, log steepness) of a logistic curve in the dose; SciPy's BFGS gets there from the same starts."""
    x = np.linspace(0, 10, 22)
    y = special.expit(1.5 * (x - 4)) + 0.05 * np.random.default_rng(13).normal(size=22)

    def minus(t):
        return 50 * np.sum((y - special.expit(np.exp(t[1]) * (x - t[0]))) ** 2) / 0.25

    right, _ = highest(minus, [[4.0, 0.3]])
    fit = jm.fit(
        lambda t, d: -200 * (d[1] - jax.nn.sigmoid(jnp.exp(t[1]) * (d[0] - t[0]))) ** 2,
        np.array([middle * unit, -np.log(unit)]),
        (x * unit, y),
    )
    expect(fit, "CONVERGED", x=[right[0] * unit, right[1] - np.log(unit)])


def local_level(t, y):
    """Local level model by the Kalman filter, log standard deviations of noise and of level; the first value starts the level."""

    def step(carry, value):
        level, variance, total = carry
        spread = variance + jnp.exp(2 * t[0])
        error = value - level
        gain = variance / spread
        total = total - 0.5 * (jnp.log(2 * jnp.pi * spread) + error**2 / spread)
        moved = variance * (1 - gain) + jnp.exp(2 * t[1])
        return (level + gain * error, moved, total), None

    first = (y[0], jnp.exp(2 * t[0]) + jnp.exp(2 * t[1]), jnp.zeros_like(t[0]))
    return jax.lax.scan(step, first, y[1:])[0][2]


def local_level_minus(t, y):
    level, variance, total = y[0], np.exp(2 * t[0]) + np.exp(2 * t[1]), 0.0
    for value in y[1:]:
        spread = variance + np.exp(2 * t[0])
        error, gain = value - level, variance / spread
        total += 0.5 * (np.log(2 * np.pi * spread) + error**2 / spread)
        level, variance = level + gain * error, variance * (1 - gain) + np.exp(2 * t[1])
    return total


@pytest.mark.parametrize("unit", [1.0, 1e3])
def test_8_a_local_level_model_in_other_units_finds_its_maximum_from_zero(unit):
    rng = np.random.default_rng(14)
    y = np.cumsum(0.5 * rng.normal(size=60)) + rng.normal(size=60)
    right, _ = highest(lambda t: local_level_minus(t, y), [[0.0, -0.7]])
    fit = jm.fit(local_level, np.zeros(2), y * unit)
    expect(fit, "CONVERGED", x=right + np.log(unit))


# ---------------------------------------------------------------- 9: a bound touched with slope zero


def test_9_a_mean_of_zero_declared_not_negative_is_on_its_bound():
    y = np.array([-2.0, -1.5, -0.5, -0.25, 0.25, 0.5, 1.5, 2.0])
    scale = np.sqrt(np.mean(y**2))
    for start in (0.1, 1.0, 3.0):
        fit = jm.fit(
            lambda p, y: norm.logpdf(y, p["m"], p["s"]),
            {"m": start, "s": 1.0},
            y,
            constraints=jm.positive,
        )
        expect(fit, "BOUNDARY", x=[0.0, scale], se=[NONE, scale / 4])


def test_9_a_mixing_share_whose_score_vanishes_at_zero_is_on_its_bound():
    """Half of the values are ones: share·¾ + (1 − share)·½ is ½ at share 0."""

    def mixture(p, y):
        chance = 0.5 + 0.25 * p["share"]
        return jnp.where(y == 1, jnp.log(chance), jnp.log1p(-chance)) + norm.logpdf(y, p["m"], 1.0)

    y = np.tile([0.0, 1.0], 10)
    fit = jm.fit(mixture, {"share": 0.3, "m": 0.0}, y, constraints={"share": jm.interval(0.0, 1.0)})
    expect(fit, "BOUNDARY", x=[0.5, 0.0], se=[20**-0.5, NONE])


def test_9_a_lower_bound_that_is_exactly_the_mean_is_on_its_bound():
    y = np.array([1.0, 2.0, 3.0, 2.0])
    fit = jm.fit(
        lambda p, y: y * jnp.log(p["rate"]) - p["rate"],
        {"rate": 3.0},
        y,
        constraints=jm.lower(2.0),
    )
    expect(fit, "BOUNDARY", x=[2.0], se=[NONE])


# ---------------------------------------------------------------- 10: the verdict depended on who wrote the transform

HYPERBOLA = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize("start", [0.5, 2.0])
def test_10_a_tail_of_one_over_t_is_at_infinity_however_it_is_written(start):
    """ℓ = −Σ c/t on t > 0."""
    raw = jm.fit(lambda t, c: -c / t[0], np.array([start]), HYPERBOLA)
    declared = jm.fit(lambda p, c: -c / p["t"], {"t": start}, HYPERBOLA, constraints=jm.positive)
    inside = jm.fit(lambda t, c: -c / jnp.exp(t[0]), np.array([np.log(start)]), HYPERBOLA)
    for fit in (raw, declared, inside):
        expect(fit, "SEPARATED", x=[np.inf], se=[NONE])


@pytest.mark.parametrize("start", [0.2, 1.0, 5.0])
def test_10_a_rate_without_events_is_zero_where_declared_and_at_minus_infinity_inside(start):
    y = np.zeros(6)
    expect(
        jm.fit(lambda p, y: -p["r"] + 0 * y, {"r": start}, y, constraints=jm.positive),
        "BOUNDARY",
        x=[0.0],
        loglik=0.0,
    )
    inside = jm.fit(lambda t, y: -jnp.exp(t[0]) + 0 * y, np.array([np.log(start)]), y)
    expect(inside, "SEPARATED", x=[-np.inf], loglik=0.0)
    # As a square the bound is an interior point: ℓ = −6t², variance 1/12.
    square = jm.fit(lambda t, y: -(t[0] ** 2) + 0 * y, np.array([start]), y)
    expect(square, "CONVERGED", x=[0.0], se=[12**-0.5])


@pytest.mark.parametrize("form", ["declared", "inside", "scalar"])
def test_10_a_half_saturation_of_proportional_data_is_at_infinity(form):
    """Michaelis–Menten for a response that bends upwards: the supremum is the line through the origin."""
    x = np.linspace(0.5, 5, 16)
    y = 0.8 * x + 0.02 * x**2 + 0.1 * np.random.default_rng(15).normal(size=16)

    def terms(v, k, d):
        return norm.logpdf(d[1], v * d[0] / (k + d[0]), 0.2)

    if form == "declared":
        fit = jm.fit(
            lambda p, d: terms(p["v"], p["k"], d),
            {"v": 5.0, "k": 5.0},
            (x, y),
            constraints=jm.positive,
        )
    else:
        inside = lambda t, d: terms(jnp.exp(t[0]), jnp.exp(t[1]), d)  # noqa: E731
        loglik = inside if form == "inside" else lambda t, d: jnp.sum(inside(t, d))
        fit = jm.fit(loglik, np.log([5.0, 5.0]), (x, y))
    expect(fit, "SEPARATED", x=[np.inf, np.inf])
    assert_allclose(fit.loglik, stats.norm.logpdf(y, x * (x @ y) / (x @ x), 0.2).sum(), atol=1e-3)
