"""Ascents that come to level ground far from a maximum, from which infinities were named that are not there.

Each likelihood is written as in reports of its field, with ``exp`` and ``sigmoid`` inside; the right value is
that of scipy's minimisers from a good start, or a closed form.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp, ndtr, xlogy
from jax.scipy.stats import norm
from numpy.testing import assert_allclose
from scipy import optimize

import jaxmle as jm
from jaxmle import Status

HIGHEST_BY_SCIPY = 1e-9  # relative: what Nelder–Mead leaves of ℓ
RELATIVE_STDERR = 1e-6


def assert_highest(fit, loglik, data, near):
    """CONVERGED at the highest point that scipy finds from a good start, with the standard errors of
    the Hessian there that jax gives.
    """

    def total(theta):
        return jnp.sum(loglik(theta, data))

    def minus(theta):
        value = float(total(jnp.asarray(theta)))
        return -value if np.isfinite(value) else 1e10

    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-9, "fatol": 1e-11}
    with jax.enable_x64(True):
        top = optimize.minimize(minus, near, method="Nelder-Mead", options=options)
        information = -np.asarray(jax.hessian(total)(jnp.asarray(fit.x)))
    assert fit.verdict == Status.CONVERGED, fit.explain()
    assert_allclose(float(fit.loglik), -top.fun, rtol=HIGHEST_BY_SCIPY)
    stderr = np.sqrt(np.diagonal(np.linalg.inv(information)))
    assert_allclose(fit.se, stderr, rtol=RELATIVE_STDERR)


def under_jit(loglik, start, data):
    with jax.enable_x64(True):
        fit = jax.jit(lambda data: jm.fit(loglik, jnp.asarray(start), data))(data)
    return jax.tree.map(np.asarray, fit)


def in_a_batch(loglik, start, data):
    both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), data)
    return jm.fit_batch(loglik, np.asarray(start), both, progress=False)[0]


# ---------------------------------------------------------------- the mirror image of an estimate


def extreme_value(theta, x):
    centre, scale, shape = theta
    z = 1 + shape * (x - centre) / scale
    safe = jnp.where(z > 0, z, 1.0)
    terms = -jnp.log(scale) - (1 + 1 / shape) * jnp.log(safe) - safe ** (-1 / shape)
    return jnp.where(z > 0, terms, -jnp.inf)


def pareto(theta, x):
    z = 1 + theta[1] * x / jnp.exp(theta[0])
    terms = -theta[0] - (1 + 1 / theta[1]) * jnp.log(jnp.where(z > 0, z, 1.0))
    return jnp.where(z > 0, terms, -jnp.inf)


EXTREMES = 10 + 2 * ((-np.log(np.random.default_rng(1).random(80))) ** -0.3 - 1) / 0.3
EXCESSES = 2 * (np.random.default_rng(2).random(120) ** -0.2 - 1) / 0.2


@pytest.mark.parametrize("way", [jm.fit, in_a_batch, under_jit])
def test_the_mirror_image_of_a_shape_was_converged_where_a_density_is_zero(way):
    """A term of −∞ has an infinite rounding error, within which ℓ agreed with any other."""
    assert_highest(way(pareto, [3.0, -0.1], EXCESSES), pareto, EXCESSES, [0.75, 0.2])


def test_the_mirror_image_of_an_extreme_value_shape_was_converged():
    fit = jm.fit(extreme_value, np.array([10.0, 2.0, -0.1]), EXTREMES)
    assert_highest(fit, extreme_value, EXTREMES, [10.0, 2.0, 0.2])


# ---------------------------------------------------------------- a maximum beyond level ground


def meta_analysis(theta, d):
    """A mean of studies whose effects differ by τ = exp θ₁."""
    return norm.logpdf(d["y"], theta[0], jnp.sqrt(d["s"] ** 2 + jnp.exp(2 * theta[1])))


def studies(seed):
    r = np.random.default_rng(seed)
    s = r.uniform(0.1, 0.4, 14)
    return {"s": s, "y": 0.2 + 0.3 * r.normal(size=14) + s * r.normal(size=14)}


@pytest.mark.parametrize(
    ("seed", "start"),
    [
        (1, [1.0, -4.0]),
        (35, [1.0, -4.0]),
        (5, [2.0, -5.0]),
        (17, [2.0, -5.0]),
        (11, [0.5, 2.0]),
        (15, [0.5, 2.0]),
    ],
)
def test_a_long_step_to_no_heterogeneity_made_its_logarithm_infinite(seed, start):
    """From log τ = −22 to −350, where ℓ is level, the way to the maximum was carried on to +∞."""
    data = studies(seed)
    fit = jm.fit(meta_analysis, np.array(start), data)
    assert_highest(fit, meta_analysis, data, [0.1, -1.5])


@pytest.mark.parametrize("way", [in_a_batch, under_jit])
def test_a_long_step_to_no_heterogeneity_in_a_batch_and_under_jit(way):
    data = studies(1)
    assert_highest(way(meta_analysis, [1.0, -4.0], data), meta_analysis, data, [0.1, -1.5])


def alike_studies(seed):
    """Studies whose estimates differ by less than their errors explain: the best τ² is zero."""
    random = np.random.default_rng(seed)
    error = random.uniform(0.1, 0.4, 14)
    return {"y": 0.2 + 0.6 * error * random.normal(size=14), "s": error}


NEVER_SEPARATED = [(1, [1.0, -4.0]), (2, [1.0, -4.0]), (4, [1.0, -4.0]), (8, [0.5, 2.0])]


@pytest.mark.parametrize(("seed", "start"), NEVER_SEPARATED)
def test_no_heterogeneity_was_unidentified_after_a_step_to_minus_twenty(seed, start):
    """ℓ is level to the last digit there, and falls upwards as exp(2 log τ)."""
    data = alike_studies(seed)
    fit = jm.fit(meta_analysis, np.array(start), data)
    weight = 1 / data["s"] ** 2
    assert fit.verdict == Status.SEPARATED, fit.explain()
    assert fit.x[1] == -np.inf
    assert_allclose(fit.x[0], np.sum(weight * data["y"]) / np.sum(weight), rtol=1e-9)
    assert_allclose(fit.se[0], np.sum(weight) ** -0.5, rtol=RELATIVE_STDERR)


def test_a_half_line_of_equal_height_is_no_infinity():
    """ℓ is constant where θ is negative, and falls as θ² beyond: any negative θ is as good."""
    y = np.random.default_rng(3).normal(size=40)
    y = y - y.mean()
    fit = jm.fit(lambda theta, y: norm.logpdf(y, jnp.maximum(theta[0], 0.0), 1.0), [-3.0], y)
    assert fit.verdict == Status.UNIDENTIFIED, fit.explain()


@pytest.mark.parametrize(
    "start", [[-0.1682, -0.5789, 0.2554, 0.1591, 0.5948], [0.1837, 0.8552, 0.5304, 0.3538, 1.6877]]
)
def test_a_line_half_gaussian_half_lorentzian_was_lorentzian_at_minus_infinity(start):
    """The share of a pseudo-Voigt line was followed inward from +24, and named −∞."""

    def line(theta, d):
        z = (d["x"] - theta[1]) / jnp.exp(theta[2])
        share = jax.nn.sigmoid(theta[0])
        shape = share / (1 + z**2) + (1 - share) * jnp.exp(-(z**2) * jnp.log(2.0))
        return norm.logpdf(d["y"], jnp.exp(theta[3]) * shape, jnp.exp(theta[4]))

    x = np.linspace(-8, 8, 120)
    noise = 0.3 * np.random.default_rng(2).normal(size=120)
    data = {"x": x, "y": 10 * (0.6 / (1 + x**2) + 0.4 * np.exp(-(x**2) / 2)) + noise}
    fit = jm.fit(line, np.array(start), data)
    assert_highest(fit, line, data, [0.25, 0.0, 0.1, 2.3, -1.2])


@pytest.mark.parametrize("start", [[1.0, 1.0, 50.0, -1.0, 1.0], [0.0, 1.0, 40.0, 0.0, 0.0]])
def test_a_sharp_step_was_named_infinitely_smooth(start):
    """ℓ rises to a limit as the width of a sigmoid step goes to zero, and falls by 15 as it grows."""
    at = np.arange(100.0)

    def step(theta, y):
        height = jax.nn.sigmoid((at - theta[2]) / jnp.exp(theta[3]))
        return norm.logpdf(y, theta[0] + theta[1] * height, jnp.exp(theta[4]))

    y = np.where(at < 50, 0, 2) + np.random.default_rng(2).normal(size=100)
    fit = jm.fit(step, np.array(start), y)
    assert fit.verdict == Status.SEPARATED, fit.explain()
    assert fit.x[3] == -np.inf
    # observation 49 stands on the step, where the curve goes through it
    squares = np.sum((y[:49] - y[:49].mean()) ** 2) + np.sum((y[50:] - y[50:].mean()) ** 2)
    assert_allclose(fit.loglik, -50 * (np.log(2 * np.pi * squares / 100) + 1), rtol=1e-8)
    assert_allclose(fit.x[0], y[:49].mean(), atol=1e-5)


def test_a_break_below_all_data_had_four_infinities():
    """A straight line determines two combinations of the four coefficients of a broken one."""

    def broken(theta, d):
        mean = theta[0] + theta[1] * d["x"] + theta[2] * jnp.maximum(d["x"] - theta[3], 0)
        return norm.logpdf(d["y"], mean, jnp.exp(theta[4]))

    for seed in (2, 3):
        r = np.random.default_rng(seed)
        x = np.sort(r.uniform(0, 10, 100))
        y = x - 2 * np.maximum(x - 5, 0) + 0.5 * r.normal(size=100)
        fit = jm.fit(broken, np.array([1.0, 0.0, 0.0, 3.1, 1.0]), {"x": x, "y": y})
        assert fit.verdict == Status.UNIDENTIFIED, fit.explain()
        left = y - np.polyval(np.polyfit(x, y, 1), x)
        assert_allclose(fit.loglik, -50 * (np.log(2 * np.pi * np.mean(left**2)) + 1), rtol=1e-9)


def two_values(theta, y):
    """Normal values rounded to integers."""
    scale = jnp.exp(theta[1])
    return jnp.log(ndtr((y + 0.5 - theta[0]) / scale) - ndtr((y - 0.5 - theta[0]) / scale))


@pytest.mark.parametrize("start", [[9.0, 0.0], [10.2, 1.0], [10.5, -1.0], [11.0, 0.0]])
def test_rounded_data_of_two_values_did_not_determine_their_scale(start):
    """The supremum is that of a scale of zero; ℓ falls from there faster than any exponential. From
    (11, 0), with the normal distribution function of jax 0.12, it is lost in rounding.
    """
    y = 10.0 + np.arange(20) % 2
    fit = jm.fit(two_values, np.array(start), y)
    assert fit.verdict in (Status.SEPARATED, Status.IMPRECISE), fit.explain()
    assert fit.x[1] < -6
    assert_allclose(fit.x[0], 10.5, rtol=1e-9)
    assert_allclose(fit.loglik, 20 * np.log(0.5), rtol=1e-9)
    assert np.isnan(fit.se).all()


def intercross(theta, counts):
    """Phenotypes of an F2 intercross whose loci recombine with probability σ(θ)/2."""
    both = (jax.nn.sigmoid(theta[0]) / 2) ** 2
    return xlogy(counts, jnp.stack([2 + both, 1 - both, 1 - both, both]) / 4)


@pytest.mark.parametrize("start", [-2.0, 0.5, 1.0, 2.0, 3.0])
def test_no_recombinants_were_unidentified_after_a_leap_to_a_plateau(start):
    fit = jm.fit(intercross, np.array([start]), np.array([60.0, 30.0, 30.0, 0.0]))
    assert fit.verdict == Status.SEPARATED, fit.explain()
    assert fit.x[0] == -np.inf


def learning(theta, d):
    """Rescorla–Wagner learning with a softmax choice, written as a scan over trials."""

    def trial(value, seen):
        choice, reward = seen
        log_probability = jax.nn.log_softmax(jnp.exp(theta[1]) * value)[choice]
        change = jax.nn.sigmoid(theta[0]) * (reward - value[choice])
        return value.at[choice].add(change), log_probability

    return jax.vmap(lambda rows: jnp.sum(jax.lax.scan(trial, jnp.zeros(2), rows)[1]))(d)


def random_choices(seed):
    """Three sessions of 100 trials: rewards of a learner, choices by chance."""
    random = np.random.default_rng(seed)
    reward = np.zeros((3, 100))
    for i in range(3):
        value, chance = np.zeros(2), [0.7, 0.3]
        for j in range(100):
            if j == 50:
                chance = chance[::-1]
            choice = int(random.random() < 1 / (1 + np.exp(-3 * (value[1] - value[0]))))
            reward[i, j] = random.random() < chance[choice]
            value[choice] += 0.3 * (reward[i, j] - value[choice])
    return random.integers(0, 2, (3, 100)), reward


def test_a_weak_maximum_was_level_where_rounding_grew_with_the_distance():
    """ℓ falls by 1.6e-4 both ways, a billion times its rounding error, and stays there."""
    fit = jm.fit(learning, np.array([-1.0, -1.0]), random_choices(1))
    assert fit.verdict == Status.CONVERGED, fit.explain()
    assert np.isnan(fit.se[0])


# ---------------------------------------------------------------- beyond infinity


def test_a_difficulty_went_to_infinity_while_its_item_discriminated_the_wrong_way():
    """a(θ − b) with a b constant: beyond a = 0, where b is infinite, ℓ goes on to rise by 8."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)

    def items(theta, y):
        eta = theta[None, :4] * (nodes[:, None] - theta[None, 4:])
        answers = y[:, None, :]
        right = answers * jax.nn.log_sigmoid(eta)[None]
        right = right + (1 - answers) * jax.nn.log_sigmoid(-eta)[None]
        return logsumexp(right.sum(-1) + jnp.log(weights / weights.sum())[None], axis=1)

    r = np.random.default_rng(1)
    ability = r.normal(size=(300, 1))
    p = 1 / (1 + np.exp(-np.array([1.0, 1.5, 0.8, 2.0]) * (ability - [-1.0, 0.0, 0.5, 1.0])))
    y = (r.random((300, 4)) < p).astype(float)
    fit = jm.fit(items, np.array([1.0] * 4 + [0.0] * 4), y)

    with jax.enable_x64(True):
        minus = jax.jit(jax.value_and_grad(lambda theta: -jnp.sum(items(theta, y))))
        good = optimize.minimize(minus, [0.5] * 4 + [0.0] * 4, jac=True, method="BFGS", tol=1e-6)
    assert fit.verdict == Status.CONVERGED, fit.explain()
    assert_allclose(fit.loglik, -good.fun, rtol=1e-9)
    assert np.max(np.abs(fit.x - good.x) / fit.se) < 1e-5


# ---------------------------------------------------------------- chasms


def common_factor(theta, y):
    def one(before, y):
        error = y - theta[0] * before[0] - theta[1] * before[1]
        return (y, error), error

    _, errors = jax.lax.scan(one, (0.0, 0.0), y)
    return jnp.sum(norm.logpdf(errors, 0, jnp.exp(theta[2])))


def moving_average():
    e = np.random.default_rng(1).normal(size=201)
    y = [0.0]
    for i in range(200):
        y.append(0.6 * y[-1] + e[i + 1] + 0.4 * e[i])
    return np.array(y[1:])


@pytest.mark.parametrize("start", [[0.5, 1.1, 0.0], [0.5522, 1.1215, -0.3057]])
def test_a_chasm_beside_a_common_factor_was_an_unbounded_likelihood(start):
    """An error that grows by a tenth each time ends at 1e8: ℓ falls by 1e15 within 1e-8."""
    y = moving_average()
    fit = jm.fit(common_factor, np.array(start), y)
    assert_highest(fit, common_factor, y, [0.3, 0.6, -0.1])


def test_a_likelihood_of_minus_1e70_is_no_limit():
    """Rounding there is 1e55: neither unbounded nor a tail, the search came nowhere."""
    fit = jm.fit(common_factor, np.array([0.5611, 1.5249, 0.1152]), moving_average())
    assert fit.verdict in (Status.STALLED, Status.IMPRECISE), fit.explain()
    assert np.isfinite(fit.x).all()
