"""What was seen to go wrong far from any data: where differences of large numbers are rounding, where a ridge bends away for ever, and
where a climb leaves a coordinate behind on level ground. Right answers are closed forms or bounds that hold for every parameter.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import log_ndtr
from jax.scipy.stats import norm
from jax.scipy.stats import t as student
from numpy.testing import assert_allclose
from scipy import stats

import jaxmle as jm
from jaxmle.special import gammaln

from .answers import POSITION_IN_STDERR, assert_fit

# ---------------------------------------------------------------- 1: all standard errors were lost beside a ridge

# Of 60 birds marked in the first year 30 are seen again in the second and 8 not before the third; of 50 marked in the second, 28.
RELEASED = np.array([60.0, 50.0])
SEEN = np.array([30.0, 8.0, 28.0])


def recapture(q, d):
    """Survival and recapture of two years; of the second only the product enters."""
    phi, p = q["phi"], q["p"]
    last = phi[1] * p[1]
    cells = jnp.stack([phi[0] * p[0], phi[0] * (1 - p[0]) * last, last])
    missed = jnp.stack([1 - cells[0] - cells[1], 1 - cells[2]])
    never = jnp.stack([RELEASED[0] - d[0] - d[1], RELEASED[1] - d[2]])
    return jnp.sum(d * jnp.log(cells)) + jnp.sum(never * jnp.log(missed))


def test_1_beside_a_product_of_declared_probabilities_the_others_keep_their_standard_errors():
    """Three cells and three combinations: φ₁ = a + b/λ and p₂ = a/φ₁ of the observed shares a, b and λ, with their covariance."""
    start = {"phi": np.full(2, 0.5), "p": np.full(2, 0.5)}
    fit = jm.fit(recapture, start, SEEN, constraints=jm.interval(0, 1))
    assert_fit(fit, "UNIDENTIFIED")
    a, b, last = SEEN / RELEASED[[0, 0, 1]]
    phi = a + b / last
    shares = np.zeros((3, 3))
    shares[:2, :2] = (np.diag([a, b]) - np.outer([a, b], [a, b])) / RELEASED[0]
    shares[2, 2] = last * (1 - last) / RELEASED[1]
    of_phi = np.array([1, 1 / last, -b / last**2])
    of_p = np.array([1 / phi, 0, 0]) - a / phi**2 * of_phi
    stderr = [np.sqrt(g @ shares @ g) for g in (of_phi, of_p)]
    # the end of a ridge is solved to 1e-4 standard errors only
    assert_allclose([fit.params["phi"][0], fit.params["p"][0]], [phi, a / phi], rtol=1e-4)
    assert_allclose([fit.stderr["phi"][0], fit.stderr["p"][0]], stderr, rtol=1e-3)
    assert np.isnan([fit.stderr["phi"][1], fit.stderr["p"][1]]).all()


# ---------------------------------------------------------------- 10: a ridge that bends away was left at the limit of steps


@pytest.mark.parametrize("steps", [1000])
def test_10_growth_that_does_not_level_off_is_at_infinity_in_a_raw_vector(steps):
    """Asymptote and rate go to ∞ and 0 along a hyperbola, of which each step climbs a thousandth: the supremum on this side of it is
    the straight line of least squares.
    """
    rng = np.random.default_rng(0)
    age = np.repeat(np.arange(1, 9), 2).astype(float)
    rng.normal(size=16)
    length = 5 + 3 * age + 0.05 * age**2 + rng.normal(size=16) * 0.3
    residuals = length - np.polyval(np.polyfit(age, length, 1), age)
    supremum = -8 * (np.log(2 * np.pi * np.mean(residuals**2)) + 1)

    def growth(t, d):
        return norm.logpdf(d[1], t[0] * (1 - jnp.exp(-t[1] * (d[0] - t[2]))), jnp.exp(t[3]))

    start = np.array([60.0, 0.1, 0.0, 1.0])
    fit = jm.fit(growth, start, (age, length), max_steps=steps, progress=False)
    assert_fit(fit, "SEPARATED")
    assert fit.x[0] == np.inf
    assert_allclose(fit.loglik, supremum, atol=1e-3)


def test_10_a_regular_climb_that_has_spent_its_steps_says_so():
    """The look beyond the last step is for ridges: a step short of a maximum nothing else is claimed."""
    x = np.linspace(-2, 2, 20)
    y = (x + np.sin(9 * x) > 0).astype(float)

    def logistic(t, d):
        return d[1] * (t[0] + t[1] * d[0]) - jnp.logaddexp(0.0, t[0] + t[1] * d[0])

    fit = jm.fit(logistic, np.array([1.0, 1.0]), (x, y), max_steps=3)
    assert_fit(fit, "MAX_STEPS")


@pytest.mark.parametrize("start", [[-1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [-0.5, -1.0, 0.5]])
def test_10_cuts_by_the_logarithm_of_their_distance_recede_with_the_slope_that_separates(start):
    """An ordered logit whose covariate separates the three categories, one cut at −0.7 and one at 0.8 of it: all probabilities go to
    one, along a way that bends as the distance of the cuts grows with the slope.
    """
    x = np.linspace(-2, 2, 60)
    y = np.digitize(x, [-0.7, 0.8])

    def ordered(t, d):
        low = t[0] - t[2] * d[0]
        high = low + jnp.exp(t[1])
        middle = jax.nn.log_sigmoid(high) + jax.nn.log_sigmoid(-low)
        middle = middle + jnp.log(-jnp.expm1(-jnp.exp(t[1])))
        ends = jnp.where(d[1] == 0, jax.nn.log_sigmoid(low), jax.nn.log_sigmoid(-high))
        return jnp.where(d[1] == 1, middle, ends)

    fit = jm.fit(ordered, np.array(start), (x, y))
    assert_fit(fit, "SEPARATED", x=[-np.inf, np.inf, np.inf], loglik=0.0)


# ---------------------------------------------------------------- 17: a climb was led on by rounding


def purchases(p, d):
    """The BG/NBD law of x purchases, the last at tx, until T, as it is mostly written (Fader, Hardie & Lee 2005)."""
    r, alpha, a, b, x = p["r"], p["alpha"], p["a"], p["b"], d["x"]
    gammas = gammaln(r + x) - gammaln(r) + gammaln(a + b) + gammaln(b + x)
    gammas = gammas - gammaln(b) - gammaln(a + b + x)
    alive = -(r + x) * jnp.log(alpha + d["T"])
    gone = jnp.log(a) - jnp.log(b + jnp.maximum(x, 1) - 1) - (r + x) * jnp.log(alpha + d["tx"])
    known = jnp.where(x > 0, jnp.logaddexp(alive, gone), alive)
    return gammas + r * jnp.log(alpha) + known


def test_17_eight_customers_are_not_led_to_a_log_likelihood_of_a_hundred_by_rounding():
    """With one purchase at most the share b/(a + b) alone matters, and ℓ = −15.1310 where none returns; differences of log-gamma
    functions of 1e17 are 40 off. By the compiler's options the way ends in noise or at log 0.
    """
    data = {
        "x": np.array([1.0, 1, 0, 0, 0, 1, 0, 0]),
        "tx": np.array([12.04954129, 0.65098263, 0, 0, 0, 15.78859819, 0, 0]),
        "T": np.full(8, 40.0),
    }
    names = ("r", "alpha", "a", "b")
    fit = jm.fit(purchases, dict.fromkeys(names, 1.0), data, constraints=jm.positive)
    assert fit.verdict.name not in ("CONVERGED", "UNBOUNDED", "SADDLE"), fit.explain()
    assert not fit.loglik > -15.13


@pytest.mark.parametrize("log_tau", [-1.0, 0.0, 0.5])
def test_17_a_curvature_that_differs_a_few_ulps_away_is_no_standard_error(log_tau):
    """A normal law and an exponential of mean τ: for lighter tails than normal τ goes to zero, where second derivatives of the normal
    distribution function are rounding; a curvature of 18 was a standard error of 0.24.
    """
    y = np.array([-2, -1.5, -1, -0.6, -0.3, 0, 0.25, 0.55, 0.9, 1.4] * 15)

    def modified(t, y):
        s, tau = jnp.exp(t[1]), jnp.exp(t[2])
        z = (y - t[0]) / s
        return -t[2] + s**2 / (2 * tau**2) - (y - t[0]) / tau + log_ndtr(z - s / tau)

    fit = jm.fit(modified, np.array([0.5, -0.5, log_tau]), y)
    assert fit.verdict.name in ("SEPARATED", "IMPRECISE"), fit.explain()
    assert np.isnan(fit.se[2])
    normal = -75 * (np.log(2 * np.pi * y.var()) + 1)
    assert_allclose(fit.loglik, normal, atol=1e-4)


# ---------------------------------------------------------------- 8: a coordinate left behind on a plateau


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_8_an_amplitude_that_the_noise_left_behind_is_taken_up_again(unit):
    """From zero, data in thousandths make the noise grow a thousandfold before the signal does: ℓ then is level in amplitude and
    rate, until they are tried again from where they set out.
    """
    rng = np.random.default_rng(3)
    x = np.linspace(0, 4, 40)
    y = 2 * np.exp(-0.8 * x) + 0.1 * rng.normal(size=40)

    def decay(t, d):
        mean = jnp.exp(t[0] - jnp.exp(t[1]) * d[0])
        return norm.logpdf(d[1], mean, jnp.exp(t[2]))

    right = jm.fit(decay, np.array([np.log(2.0), -0.2, -2.3]), (x, y))
    fit = jm.fit(decay, np.zeros(3), (x, y * unit))
    assert_fit(right, "CONVERGED")
    assert_fit(fit, "CONVERGED")
    shift = np.log(unit) * np.array([1.0, 0.0, 1.0])
    assert_allclose((fit.x - shift - right.x) / right.se, 0, atol=POSITION_IN_STDERR)
    assert jax.tree.leaves(fit.stderr)[0].shape == (3,)


# ---------------------------------------------------------------- a member of a batch rose to rounding, and was unbounded

NORMAL_SAMPLE = np.array([-2, -1.5, -1, -0.6, -0.3, 0, 0.25, 0.55, 0.9, 1.4] * 15)


def ex_gaussian(t, y):
    """Location, log scale, log mean of the exponential part, as it is mostly written: far out a difference of 1e13 and 1e13."""
    scale, tail = jnp.exp(t[1]), jnp.exp(t[2])
    z = (y - t[0]) / scale
    return -t[2] + scale**2 / (2 * tail**2) - (y - t[0]) / tail + log_ndtr(z - scale / tail)


def test_a_rise_to_where_a_few_ulps_change_the_likelihood_was_unbounded_in_a_batch():
    """The supremum is the normal likelihood; an end that stands on rounding is IMPRECISE, and its ℓ no higher than that."""
    starts = np.array([[0.5, -0.5, v] for v in (-1.0, 0.0, 0.5, -2.0, 1.0)])
    data = np.stack([NORMAL_SAMPLE] * len(starts))
    fits = jm.fit_batch(ex_gaussian, starts, data, params_axis=0, progress=False)
    names = {jm.Status(int(status)).name for status in fits.status}
    assert names <= {"IMPRECISE", "SINGULAR", "SEPARATED"}
    limit = -0.5 * len(NORMAL_SAMPLE) * (1 + np.log(2 * np.pi * NORMAL_SAMPLE.var()))
    assert (fits.loglik <= limit + 1e-6).all()
    assert_allclose(fits.loglik, limit, atol=0.01)


# ---------------------------------------------------------------- a bound reached in one step was unidentified


@pytest.mark.parametrize(
    "zeros", [19, *(pytest.param(n, marks=pytest.mark.thorough) for n in (5, 10, 20, 40))]
)
def test_a_dispersion_that_a_first_step_sent_to_its_bound_was_unidentified(zeros):
    """One count of 4 above zeros: ℓ falls by .47 per unit of dispersion, and at none it is the zero-truncated Poisson maximum."""
    counts = np.r_[np.zeros(zeros), 4.0]
    model = jm.families.hurdle(jm.families.negative_binomial_1)
    fit = jm.fit(model, data=counts, progress=False)
    mean = 3.92069039  # of the zero-truncated Poisson law: m/(1 − e⁻ᵐ) = 4
    assert_allclose(mean / -np.expm1(-mean), 4.0, rtol=1e-8)
    assert_fit(fit, "BOUNDARY", x=[0.0, mean, zeros / (zeros + 1)])


# ---------------------------------------------------------------- maxima of high order were at infinity, or not identified


def power(order):
    return lambda t, y: -((t[0] - 1.0) ** order) + 0 * y


def power_beside_a_mean(order):
    return lambda t, y: -((t[0] - 1.0) ** order) - 0.5 * (y - t[1]) ** 2


@pytest.mark.parametrize(("make", "size"), [(power, 1), (power_beside_a_mean, 2)])
@pytest.mark.parametrize("order", [4, 6, 8, 12, 24])
def test_a_maximum_of_high_order_was_at_infinity_or_not_identified(make, size, order):
    """ℓ is level to within rounding for (1e-16)^(1/order) about one: there the estimate is, without a standard error."""
    y = np.random.default_rng(0).normal(size=20)
    fit = jm.fit(make(order), np.zeros(size), y, progress=False)
    assert_fit(fit, "SINGULAR")
    assert abs(fit.params[0] - 1.0) <= 1e-16 ** (1.0 / order)
    assert np.isnan(fit.se[0])
    if size == 2:
        assert_allclose([fit.params[1], fit.se[1]], [y.mean(), 20**-0.5], rtol=1e-6)


# ---------------------------------------------------------------- an end at NaN was all that was said of a climb


@pytest.mark.parametrize("ties", [60])
def test_a_climb_without_bound_that_overflows_was_not_finite(ties):
    """A Cauchy law of which more than half of the values are equal: ℓ grows by (2·60 − 100)·log 1/s as the scale s goes to zero."""
    rng = np.random.default_rng(4)
    y = np.r_[np.zeros(ties), rng.normal(0, 0.01, 100 - ties)]

    def law(t, y):
        return -t[1] - jnp.log1p(((y - t[0]) / jnp.exp(t[1])) ** 2)

    fit = jm.fit(law, np.array([0.0, -4.0]), y, progress=False)
    assert_fit(fit, "UNBOUNDED")


def test_a_logarithmic_rise_of_the_wrong_sign_was_not_finite():
    y = np.random.default_rng(0).standard_cauchy(100)

    def wrong(t, y):
        return t[1] + jnp.log1p(((y - t[0]) / jnp.exp(t[1])) ** 2)

    fit = jm.fit(wrong, np.zeros(2), y, progress=False)
    assert_fit(fit, "UNBOUNDED")
    assert "heck the sign" in fit.explain()


def test_a_rise_that_is_all_rounding_was_without_bound():
    """A self-exciting process of arrivals more even than Poisson's: ℓ is n log(n/T) − n at most, and 1 − exp(−b(T − t)) is rounding
    where b is 1e-28, which a climb from here took for a rise of thousands.
    """
    times = np.cumsum(np.random.default_rng(3).gamma(6, 1 / 6, 80))

    def hawkes(p, t):
        mu, a, b = jnp.exp(p[0]), jnp.exp(p[1]), jnp.exp(p[2])

        def step(excited, gap):
            excited = jnp.exp(-b * gap) * (1 + excited)
            return excited, jnp.log(mu + a * b * excited)

        rates = jax.lax.scan(step, 0.0 * mu, jnp.diff(t))[1]
        decayed = jnp.sum(1 - jnp.exp(-b * (t[-1] - t)))
        return jnp.log(mu) + jnp.sum(rates) - mu * t[-1] - a * decayed

    fit = jm.fit(hawkes, np.array([0.0, -1.0, 0.0]), times, progress=False)
    assert fit.verdict.name not in ("CONVERGED", "UNBOUNDED"), fit.explain()


def test_a_standard_error_that_no_profile_could_reach_was_printed():
    """An Ornstein–Uhlenbeck process fitted to a drift: its rate is nearly zero and its mean far off,
    along mean ∝ 1/rate. The parabola of log rate ± 36 falls by ⅛ at half a standard error, where the
    limit, a random walk with drift, is only 4e-4 below.
    """
    y = np.cumsum(np.abs(np.random.default_rng(39).normal(size=60)))

    def loglik(t, d):
        rate, sd = jnp.exp(t[0]), jnp.exp(t[2])
        decay = jnp.exp(-rate)
        return norm.logpdf(
            d["after"],
            t[1] + (d["before"] - t[1]) * decay,
            sd * jnp.sqrt((1 - decay**2) / (2 * rate)),
        )

    fit = jm.fit(loglik, np.zeros(3), {"before": y[:-1], "after": y[1:]})
    step = np.diff(y)
    limit = stats.norm.logpdf(step, step.mean(), step.std()).sum()
    assert 0 < fit.loglik - limit < 1e-3
    # Rounding decides whether the last step counts as clean, and how much of the profile is noise.
    assert_fit(fit, "CONVERGED", "SINGULAR", "IMPRECISE")
    assert np.isnan(fit.se[:2]).all()


@pytest.mark.parametrize("start", [[0.5, 1.0], [0.2, 3.0]])
def test_a_curvature_that_is_rounding_at_an_edge_of_the_support_gave_a_standard_error(start):
    """A hurdle model of counts that are all one: the rate goes to its edge, zero, where differences
    of large numbers gave a curvature of 5e17, an SE of 1.4e-9 and a clear conscience.
    """
    y = np.repeat([0.0, 1.0], [21, 39])

    def loglik(t, y):
        positive = y * jnp.log(t[1]) - t[1] - jnp.log(-jnp.expm1(-t[1]))
        return jnp.where(y == 0, jnp.log(t[0]), jnp.log1p(-t[0]) + positive)

    fit = jm.fit(loglik, np.array(start), y)
    assert not fit.converged
    assert np.isnan(fit.se[1])
    assert_allclose(fit.x, [0.35, 0.0], atol=1e-6)


@pytest.mark.parametrize("seed", [5, 9, 17, 42, 51])
@pytest.mark.parametrize("start", [[0.0, 1.0, 3.0], [3.0, 2.0, 10.0]])
def test_degrees_of_freedom_whose_profile_ends_in_noise_were_singular(seed, start):
    """Student's t, its raw degrees of freedom: the profile falls by less than a unit to that of the
    normal law, and beyond 1e9 differences of log-gammas are noise, which looked like higher ground.
    """
    y = 3 + 2 * np.random.default_rng(seed).standard_t(6, size=60)
    fit = jm.fit(lambda t, y: student.logpdf(y, t[2], t[0], t[1]), np.array(start), y)
    assert_fit(fit, "CONVERGED")
    df, location, scale = stats.t.fit(y)
    assert_allclose(fit.loglik, stats.t.logpdf(y, df, location, scale).sum(), atol=1e-5)
    assert np.isfinite(fit.se[0])


@pytest.mark.parametrize("start", [[2.0, 5.0, 25.0, 5.0], [3.0, 4.0, 40.0, 1.0]])
@pytest.mark.parametrize("inside", [False, True])
def test_a_change_point_between_two_times_is_not_infinite(start, inside):
    """A step of vanishing width: any place between the two times does, so it has no error either."""
    y = np.concatenate([np.tile([3.0, 2, 1], 10), np.tile([6.0, 5, 4], 10)])
    times = np.arange(60.0)

    def loglik(t, d):
        width = jnp.exp(t[3]) if inside else t[3]
        mean = t[0] + (t[1] - t[0]) * jax.nn.sigmoid((d["t"] - t[2]) / width)
        return d["y"] * jnp.log(mean) - mean

    z = np.array([*start[:3], np.log(start[3]) if inside else start[3]])
    fit = jm.fit(loglik, z, {"y": y, "t": times})
    assert not fit.converged
    assert not np.isinf(fit.x[2])
    assert np.isnan(fit.se[2])
    assert_allclose(fit.x[:2], [y[:30].mean(), y[30:].mean()], atol=0.1)


@pytest.mark.parametrize("start", [[10.0, 0.01], [7.0, 0.1]])
def test_a_rate_that_still_moves_towards_zero_had_a_standard_error(start):
    """Goel and Okumoto's model of failures that come evenly: a → ∞, b → 0, ab = 6/12. Where the
    search stops, b is 1e-8 and not yet 0, and its curvature there says nothing of its limit.
    """
    failures = np.array([2.0, 4, 6, 8, 10, 12])

    def loglik(t, d):
        a, b = t[0], t[1]
        return jnp.sum(jnp.log(a * b) - b * d) + a * jnp.expm1(-12 * b)

    fit = jm.fit(loglik, np.array(start), failures)
    assert_fit(fit, "SEPARATED", x=[np.inf, 0.0], se=[np.nan, np.nan], loglik=6 * np.log(0.5) - 6)
    assert "No standard error is given for theta[1]" in fit.explain()
