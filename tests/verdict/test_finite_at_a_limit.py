"""What is finite beside an infinite estimate: what the limit likelihood itself determines, and no
more.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import jaxmle as jm
from jaxmle.solvers.status import Status


def learner(theta, data):
    """Rescorla–Wagner: values of two arms learnt at the rate σ(θ₀), chosen with sharpness e^θ₁."""
    choices, rewards = data
    rate = jax.nn.sigmoid(theta[0])
    sharpness = jnp.exp(theta[1])

    def trial(value, given):
        choice, reward = given
        term = jax.nn.log_softmax(sharpness * value)[choice]
        return value.at[choice].add(rate * (reward - value[choice])), term

    return jnp.sum(jax.lax.scan(trial, jnp.zeros(2), (choices, rewards))[1])


ALWAYS_THE_SAME_ARM = (np.zeros(60, int), (np.random.default_rng(2).random(60) < 0.7) * 1.0)


def test_learning_rate_of_one_who_always_takes_the_same_arm_has_no_standard_error_of_645_323():
    fit = jm.fit(learner, np.zeros(2), ALWAYS_THE_SAME_ARM)
    assert fit.verdict == Status.SEPARATED
    assert fit.loglik == pytest.approx(np.log(0.5), abs=1e-8)  # the first choice alone
    assert fit.x[1] == np.inf
    assert np.isnan(fit.x[0])
    assert np.all(np.isnan(fit.se))
    assert "The limit does not determine theta[0]." in fit.explain()


def detection(theta, data):
    """Signal detection as it is mostly written: log Φ, which loses its digits where Φ is one."""
    signal, said_yes = data
    p = norm.cdf(jnp.where(signal == 1, theta[0] / 2, -theta[0] / 2) - theta[1])
    return said_yes * jnp.log(p) + (1 - said_yes) * jnp.log(1 - p)


def test_criterion_of_a_perfect_observer_has_no_standard_error_of_two_million():
    signal = np.repeat([1.0, 0.0], 25)
    fit = jm.fit(detection, np.array([1.0, 0.0]), (signal, signal))
    assert fit.verdict == Status.SEPARATED
    assert fit.x[0] == np.inf
    assert np.isnan(fit.x[1])
    assert np.all(np.isnan(fit.se))


def bradley_terry(theta, data):
    winner, loser = data
    return jax.nn.log_sigmoid(theta[winner] - theta[loser])


def among_three(skill, data):
    return bradley_terry(jnp.insert(skill, 0, 0.0), data)


AMONG_THREE = [(1, 2)] * 3 + [(2, 1)] * 2 + [(2, 3)] * 2 + [(3, 2)] * 2 + [(1, 3)] * 3 + [(3, 1)]
# team 0 never lost, team 4 never won
TOURNAMENT = AMONG_THREE + [(0, 1)] * 2 + [(0, 2)] * 2 + [(0, 3), (1, 4), (2, 4), (3, 4), (0, 4)]


def test_an_undefeated_team_is_separated_though_all_skills_may_be_shifted():
    games = np.array(TOURNAMENT).T
    inner = np.array(AMONG_THREE).T - 1
    anchored = jm.fit(among_three, np.zeros(2), tuple(inner))
    fit = jm.fit(bradley_terry, np.zeros(5), tuple(games))
    assert anchored.converged
    assert fit.verdict == Status.SEPARATED
    assert fit.loglik == pytest.approx(anchored.loglik, abs=1e-8)
    # a shift of all is free: no skill has a value, and none a sign
    assert np.all(np.isnan(fit.x))
    assert np.all(np.isnan(fit.se))
    assert "along theta[0] - theta[4];" in fit.explain()


def test_with_one_skill_fixed_the_others_of_the_tournament_are_finite():
    def fixed(skill, data):
        return bradley_terry(jnp.insert(skill, 1, 0.0), data)

    inner = np.array(AMONG_THREE).T - 1
    alone = jm.fit(among_three, np.zeros(2), tuple(inner))
    fit = jm.fit(fixed, np.zeros(4), tuple(np.array(TOURNAMENT).T))
    assert fit.verdict == Status.SEPARATED
    np.testing.assert_array_equal(fit.x[[0, 3]], [np.inf, -np.inf])
    np.testing.assert_allclose(fit.x[1:3], alone.x, atol=1e-6 * alone.se.min())
    np.testing.assert_allclose(fit.se[1:3], alone.se, rtol=1e-6)


def one_interval(theta, data):
    """A Weibull failure time known to lie between two inspections; logarithms of scale, shape."""
    low, high = data
    scale, shape = jnp.exp(theta)
    return jnp.log(jnp.exp(-((low / scale) ** shape)) - jnp.exp(-((high / scale) ** shape)))


@pytest.mark.parametrize("start", [(1.0, 0.0), (1.5, 0.5)])
def test_a_scale_that_only_went_along_with_the_shape_is_not_infinite(start):
    """lifelines issue 827: the probability is one for every scale between the inspections."""
    fit = jm.fit(one_interval, np.array(start), (np.array([1.0]), np.array([10.0])))
    assert fit.verdict == Status.SEPARATED
    assert fit.loglik == pytest.approx(0.0, abs=1e-6)
    assert fit.x[1] == np.inf
    assert np.isnan(fit.x[0])


def test_a_batch_says_the_same_of_what_only_went_along():
    inspections = (np.array([[1.0], [1.0]]), np.array([[10.0], [10.0]]))
    fits = jm.fit_batch(one_interval, np.array([1.0, 0.0]), inspections, progress=False)
    np.testing.assert_array_equal(np.asarray(fits.status), int(Status.SEPARATED))
    assert np.all(np.isnan(fits.x[:, 0]))
    np.testing.assert_array_equal(fits.x[:, 1], np.inf)


def on_and_off(theta, data):
    """Counts on a source and beside it, three times as long; logarithms of both rates."""
    on, off = data
    signal, background = jnp.exp(theta)
    mean = signal + background / 3
    return on * jnp.log(mean) - mean + off * jnp.log(background) - background


def test_two_rates_without_a_count_both_go_to_zero():
    """The cone of one term e^a + e^b: a gradient of e¹⁰⁰ is no measure of how far out to look."""
    fit = jm.fit(on_and_off, np.zeros(2), (np.zeros(1), np.zeros(1)))
    assert fit.verdict == Status.SEPARATED
    assert fit.loglik == pytest.approx(0.0, abs=1e-8)
    np.testing.assert_array_equal(fit.x, [-np.inf, -np.inf])


def shifted_lognormal(theta, y):
    """Lognormal above a threshold that is free: (log distance to the least value, μ, log σ)."""
    above = y - (jnp.min(y) - jnp.exp(theta[0]))
    return norm.logpdf(jnp.log(above), theta[1], jnp.exp(theta[2])) - jnp.log(above)


def test_a_log_scale_beside_coupled_infinities_has_no_estimate_of_minus_16():
    """A sample skewed to the left: the law goes to a normal one, with its threshold at −∞."""
    y = 20 - np.exp(np.random.default_rng(4).normal(1, 0.3, 80))
    normal = -40 * (np.log(2 * np.pi * y.var()) + 1)
    fit = jm.fit(shifted_lognormal, np.array([1.0, 2.0, -1.0]), y)
    assert fit.verdict == Status.SEPARATED
    assert fit.loglik == pytest.approx(normal, abs=1e-3)
    np.testing.assert_array_equal(fit.x, [np.inf, np.inf, -np.inf])
    assert np.all(np.isnan(fit.se))


def selection(theta, data):
    """Heckman's model of a selected response: (selection, response, log σ, atanh ρ)."""
    x, z, selected, y = data
    index = theta[0] + theta[1] * z + theta[2] * x
    rho = jnp.tanh(theta[6])
    u = (y - theta[3] - theta[4] * x) / jnp.exp(theta[5])
    seen = norm.logpdf(u) - theta[5] + norm.logcdf((index + rho * u) / jnp.sqrt(1 - rho**2))
    return jnp.where(selected == 1, seen, norm.logcdf(-index))


def test_errors_that_are_the_same_do_not_make_a_bounded_likelihood_infinite():
    rng = np.random.default_rng(0)
    z, x = rng.normal(size=(2, 400))
    error = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 400)[:, 0]
    selected = (0.3 + z + 0.5 * x + error > 0) * 1.0
    y = np.where(selected == 1, 1 + 2 * x + 1.5 * error, 0.0)
    fit = jm.fit(selection, np.array([0.3, 1, 0.5, 1, 2, 0.4, 0.5]), (x, z, selected, y))
    assert not fit.converged
    # probabilities are no greater than one: ℓ is at most that of the responses that were seen
    assert fit.verdict != Status.UNBOUNDED


def two_counts(theta, data):
    """A row with two Poisson counts, each with a rate of its own."""
    first, second = data
    return first * theta[0] - jnp.exp(theta[0]) + second * theta[1] - jnp.exp(theta[1])


@pytest.mark.parametrize("start", [(0.0, 0.0), (1.0, -1.0), (2.0, 2.0)])
@pytest.mark.parametrize("n", [1, 5])
def test_a_rate_with_counts_stays_finite_beside_one_without(n, start):
    fit = jm.fit(two_counts, np.array(start), (np.full(n, 3.0), np.zeros(n)))
    assert fit.verdict == Status.SEPARATED
    assert fit.x[0] == pytest.approx(np.log(3), abs=1e-8)
    assert fit.se[0] == pytest.approx(1 / np.sqrt(3 * n), rel=1e-6)
    assert fit.x[1] == -np.inf
    neither = jm.fit(two_counts, np.array(start), (np.zeros(n), np.zeros(n)))
    np.testing.assert_array_equal(neither.x, [-np.inf, -np.inf])


@pytest.mark.parametrize("n", [1, 4])
def test_a_parameter_in_no_term_beside_two_without_counts_is_not_determined(n):
    """Its gradients are all zero; NumPy warned of their median."""

    def loglik(theta, data):
        return two_counts(theta[:2], data) + 0.0 * theta[2]

    fit = jm.fit(loglik, np.zeros(3), (np.zeros(n), np.zeros(n)))
    assert fit.verdict == Status.SEPARATED
    np.testing.assert_array_equal(fit.x[:2], [-np.inf, -np.inf])
    assert np.isnan(fit.se).all()
