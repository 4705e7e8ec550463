"""What was seen to go wrong, continued: symptoms 6 to 10, of what has no bound, of plateaus, of bounds and of transforms; the right
answers are closed forms or SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from jax.scipy.stats import norm
from numpy.testing import assert_allclose
from scipy import special, stats

import jaxmle as jm
from jaxmle import families

from .answers import assert_fit, beta_binomial, highest, negative_binomial

NONE = np.nan

EVEN = np.array([4, 5, 5, 6, 5, 4, 5, 6, 5, 5, 4, 6, 7, 5, 4, 5.0])
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
    assert_fit(fit, "SEPARATED", x=[special.logit(p), np.inf], atol=1e-4)
    assert_allclose(fit.loglik, top, atol=1e-3)


@pytest.mark.parametrize("alpha", [1.0, 0.1, 1e-3])
def test_6_a_dispersion_declared_positive_of_underdispersed_counts_is_bounded(alpha):
    fit = jm.fit(
        lambda p, y: negative_binomial(p["mu"], 1 / p["alpha"], y),
        {"mu": 4.0, "alpha": alpha},
        EVEN,
        constraints=jm.positive,
    )
    assert_fit(
        fit, "BOUNDARY", x=[0.0, EVEN.mean()], se=[NONE, np.sqrt(EVEN.mean() / 16)], atol=1e-4
    )
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
    assert_fit(fit, "SEPARATED", x=[-np.inf])
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
    assert_fit(fit, "UNBOUNDED", loglik=np.inf)
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

    assert_fit(jm.fit(gamma, np.array(start), np.full(12, 1.7)), "UNBOUNDED", loglik=np.inf)


@pytest.mark.parametrize("rows", [[[0.3, 0.2, 0.5]], [[0.1, 0.5, 0.4]] * 2])
def test_7_a_dirichlet_law_of_equal_rows_is_unbounded(rows):
    def dirichlet(p, d):
        a = p["a"]
        return gammaln(a.sum()) - gammaln(a).sum() + jnp.log(d) @ (a - 1)

    fit = jm.fit(dirichlet, {"a": np.ones(3)}, np.array(rows), constraints=jm.positive)
    assert_fit(fit, "UNBOUNDED", loglik=np.inf)


@pytest.mark.parametrize("seed", range(6))
def test_6_underdispersed_counts_by_differences_of_log_gammas_are_not_unbounded(seed):
    """Digits are lost on the way to the Poisson limit too, but the climb slows down before."""
    y = np.random.default_rng(seed).binomial(10, 0.4, 60).astype(float)

    def counts(t, y):
        size = jnp.exp(-t[1])
        share = jnp.log1p(jnp.exp(t[0]) / size)
        mass = gammaln(y + size) - gammaln(size) - gammaln(y + 1)
        return mass - size * share + y * (t[0] + t[1] - share)

    assert_fit(jm.fit(counts, np.zeros(2), y), "SEPARATED", "IMPRECISE")


@pytest.mark.parametrize("shape", [-0.2, -0.5, -0.9, -1.2, -2.0])
def test_7_an_extreme_value_law_whose_climbs_all_pass_shape_minus_one_is_unbounded(shape):
    """A sample of shape −1.6: from each of these starts Nelder–Mead of SciPy ends at the edge of the support with a shape below −1."""
    y = 2 - (-np.log(np.random.default_rng(12).random(50))) ** 1.6

    def gev(t, y):
        z = 1 + t[2] * (y - t[0]) / jnp.exp(t[1])
        return -t[1] - (1 + 1 / t[2]) * jnp.log(z) - z ** (-1 / t[2])

    scale = 0.78 * y.std()
    loc = max(y.mean() - 0.577 * scale, y.max() + scale / shape + 0.1)
    fit = jm.fit(gev, np.array([loc, np.log(scale), shape]), y)
    assert_fit(fit, "UNBOUNDED", loglik=np.inf)
    assert int(fit.witness.row) == int(y.argmax())


@pytest.mark.parametrize("value", [0.87, 3.0, 1200.0])
def test_7_an_extreme_value_law_of_one_value_is_unbounded(value):
    """Its climb ends with a shape of −1.002, where ℓ grows by .002 for each e-fold nearer to the edge."""
    assert_fit(jm.fit(families.gev, data=np.array([value])), "UNBOUNDED", loglik=np.inf)


@pytest.mark.parametrize("power", [0.3, 0.5, 0.7])
def test_7_an_edge_of_infinite_slope_and_finite_height_is_not_unbounded(power):
    def roof(t, y):
        below = jnp.where(t[0] < 1, 1 - t[0], 1.0)
        return jnp.where(t[0] < 1, -(below**power), -jnp.inf) + 0 * y

    fit = jm.fit(roof, np.array([0.2]), np.zeros(3))
    assert fit.verdict.name in ("STALLED", "IMPRECISE", "SINGULAR"), fit.explain()
    assert np.isnan(fit.se).all()


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
    assert_fit(fit, "CONVERGED", x=[right[0] * unit, right[1] - np.log(unit)])


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
    assert_fit(fit, "CONVERGED", x=right + np.log(unit))


@pytest.mark.parametrize("unit", [1.0, 1e3])
def test_8_a_gaussian_process_in_other_units_finds_its_maximum_from_zero(unit):
    """(log amplitude, log length, log noise) of a squared-exponential kernel on 24 places."""
    rng = np.random.default_rng(16)
    x = np.linspace(0, 6, 24)
    y = 2 * np.sin(x) + 0.3 * rng.normal(size=24)
    squares = (x[:, None] - x[None, :]) ** 2

    def minus(t):
        kernel = np.exp(2 * t[0] - squares / (2 * np.exp(2 * t[1])))
        kernel = kernel + (np.exp(2 * t[2]) + 1e-12) * np.eye(24)
        return -stats.multivariate_normal.logpdf(y, np.zeros(24), kernel, allow_singular=True)

    def process(t, y):
        kernel = jnp.exp(2 * t[0] - squares / (2 * jnp.exp(2 * t[1])))
        factor = jnp.linalg.cholesky(kernel + jnp.exp(2 * t[2]) * jnp.eye(24))
        whitened = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
        return -0.5 * jnp.sum(whitened**2) - jnp.sum(jnp.log(jnp.diagonal(factor)))

    right, _ = highest(minus, [[0.5, 0.3, -1.0]])
    fit = jm.fit(process, np.zeros(3), y * unit)
    shift = np.log(unit) * np.array([1.0, 0.0, 1.0])
    assert_fit(fit, "CONVERGED", x=right + shift)


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
        assert_fit(fit, "BOUNDARY", x=[0.0, scale], se=[NONE, scale / 4])


def test_9_a_mixing_share_whose_score_vanishes_at_zero_is_on_its_bound():
    """Half of the values are ones: share·¾ + (1 − share)·½ is ½ at share 0."""

    def mixture(p, y):
        chance = 0.5 + 0.25 * p["share"]
        return jnp.where(y == 1, jnp.log(chance), jnp.log1p(-chance)) + norm.logpdf(y, p["m"], 1.0)

    y = np.tile([0.0, 1.0], 10)
    fit = jm.fit(mixture, {"share": 0.3, "m": 0.0}, y, constraints={"share": jm.interval(0.0, 1.0)})
    assert_fit(fit, "BOUNDARY", x=[0.5, 0.0], se=[20**-0.5, NONE])


def test_9_a_lower_bound_that_is_exactly_the_mean_is_on_its_bound():
    y = np.array([1.0, 2.0, 3.0, 2.0])
    fit = jm.fit(
        lambda p, y: y * jnp.log(p["rate"]) - p["rate"],
        {"rate": 3.0},
        y,
        constraints=jm.lower(2.0),
    )
    assert_fit(fit, "BOUNDARY", x=[2.0], se=[NONE])


@pytest.mark.parametrize("signal", [0.01, 1.0, 20.0])
def test_9_a_signal_over_a_known_background_that_explains_the_counts_is_on_its_bound(signal):
    """Counts with the mean of the background: the score in the signal is zero at zero; the other rate keeps its error."""
    counts = np.array([[2.0, 5.0], [4.0, 7.0], [3.0, 6.0], [3.0, 6.0]])

    def loglik(p, d):
        on = d[:, 0] * jnp.log(3 + p["signal"]) - p["signal"]
        return on + d[:, 1] * jnp.log(p["rate"]) - p["rate"]

    fit = jm.fit(loglik, {"signal": signal, "rate": 1.0}, counts, constraints=jm.positive)
    assert_fit(fit, "BOUNDARY", x=[6.0, 0.0], se=[np.sqrt(6 / 4), NONE])


def test_9_a_bound_touched_that_is_written_inside_is_at_minus_infinity():
    """The mean square effect: ℓ falls with exp(2t), its score vanishes faster than exp(t)."""
    y = np.array([-2.0, -1.5, -0.5, -0.25, 0.25, 0.5, 1.5, 2.0])
    for start in (-1.0, 0.0, 1.0):
        fit = jm.fit(
            lambda t, y: norm.logpdf(y, jnp.exp(t[0]), jnp.exp(t[1])), np.array([start, 0.0]), y
        )
        assert_fit(fit, "SEPARATED", x=[-np.inf, np.log(y.std())], se=[NONE, 0.25])


# ---------------------------------------------------------------- 10: the verdict depended on who wrote the transform

HYPERBOLA = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize("start", [0.5, 2.0])
def test_10_a_tail_of_one_over_t_is_at_infinity_however_it_is_written(start):
    """ℓ = −Σ c/t on t > 0."""
    raw = jm.fit(lambda t, c: -c / t[0], np.array([start]), HYPERBOLA)
    declared = jm.fit(lambda p, c: -c / p["t"], {"t": start}, HYPERBOLA, constraints=jm.positive)
    inside = jm.fit(lambda t, c: -c / jnp.exp(t[0]), np.array([np.log(start)]), HYPERBOLA)
    for fit in (raw, declared, inside):
        assert_fit(fit, "SEPARATED", x=[np.inf], se=[NONE])


@pytest.mark.parametrize("start", [0.2, 1.0, 5.0])
def test_10_a_rate_without_events_is_zero_where_declared_and_at_minus_infinity_inside(start):
    y = np.zeros(6)
    assert_fit(
        jm.fit(lambda p, y: -p["r"] + 0 * y, {"r": start}, y, constraints=jm.positive),
        "BOUNDARY",
        x=[0.0],
        loglik=0.0,
    )
    inside = jm.fit(lambda t, y: -jnp.exp(t[0]) + 0 * y, np.array([np.log(start)]), y)
    assert_fit(inside, "SEPARATED", x=[-np.inf], loglik=0.0)
    # As a square the bound is an interior point: ℓ = −6t², variance 1/12.
    square = jm.fit(lambda t, y: -(t[0] ** 2) + 0 * y, np.array([start]), y)
    assert_fit(square, "CONVERGED", x=[0.0], se=[12**-0.5])


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
    assert_fit(fit, "SEPARATED", x=[np.inf, np.inf])
    assert_allclose(fit.loglik, stats.norm.logpdf(y, x * (x @ y) / (x @ x), 0.2).sum(), atol=1e-3)
