"""What was seen to go wrong, continued: symptoms 11 to 21, of built-in models, of kinks, of large numbers and of the sentences; the right
answers are closed forms or SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from jax.scipy.stats import norm
from numpy.testing import assert_allclose
from scipy import optimize, special, stats

import jaxmle as jm
from jaxmle import families, models

from .answers import assert_fit, highest, negative_binomial

NONE = np.nan


def intercept(n):
    return np.ones((n, 1))


# ---------------------------------------------------------------- 11: a product of parameters was blamed on the data

PRODUCTS = {
    "mean": (lambda t, y: -0.5 * (y - t[0] * t[1]) ** 2, [0.5, 2.0]),
    "log_rate": (lambda t, y: y * (t[0] + t[1]) - jnp.exp(t[0] + t[1]), [0.1, 0.4]),
    "quotient": (lambda t, y: -0.5 * (y - jnp.exp(t[0]) / jnp.exp(t[1])) ** 2, [1.0, 0.5]),
    "scalar": (lambda t, y: -0.5 * jnp.sum((y - t[0] * t[1]) ** 2), [3.0, 0.2]),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_11_a_product_of_parameters_is_the_fault_of_the_model(name):
    loglik, start = PRODUCTS[name]
    fit = jm.fit(loglik, np.array(start), np.array([1.0, 2.0, 1.5, 2.5]))
    assert_fit(fit, "UNIDENTIFIED", se=[NONE, NONE])
    assert "The cause is in these data" not in fit.explain()
    assert "other order" not in fit.explain()


def test_11_a_column_twice_another_is_the_fault_of_the_data():
    x = np.column_stack([np.ones(12), np.arange(12.0), 2 * np.arange(12.0)])
    y = np.random.default_rng(0).normal(size=12)
    fit = jm.fit(lambda t, d: -0.5 * (d[1] - d[0] @ t) ** 2, np.zeros(3), (x, y))
    assert_fit(fit, "UNIDENTIFIED")
    assert "It is the model" not in fit.explain()


# ---------------------------------------------------------------- 12: the wrong maximum from our own start


def negative_binomial_minus(t, x, y):
    """−ℓ of NB2 in (beta, log alpha), by SciPy."""
    size = np.exp(-np.clip(t[-1], -30, 30))
    mean = np.exp(np.clip(x @ t[:-1], -50, 50))
    return -np.sum(stats.nbinom.logpmf(y, size, size / (size + mean)))


@pytest.mark.parametrize(("seed", "size", "p"), [(117, 1.0, 0.4), (212, 0.5, 0.3), (0, 1.0, 0.4)])
def test_12_a_dispersion_on_its_bound_has_no_higher_maximum_inside(seed, size, p):
    """Small wide samples: the fit is compared with climbs of SciPy from alpha near 1."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(17), rng.normal(size=(17, 6))])
    y = rng.negative_binomial(size, p, 17)
    fit = jm.fit(models.negative_binomial(), data={"x": x, "y": y})
    start = np.append(np.asarray(fit.params["beta"]), 0.0)
    inside = optimize.minimize(negative_binomial_minus, start, args=(x, y), method="BFGS")
    assert_fit(fit, "BOUNDARY", "CONVERGED")
    # BFGS by differences stops within 1e-4 of the top.
    assert fit.loglik >= -inside.fun - 1e-4


@pytest.mark.parametrize("model", ["negative_binomial", "poisson"])
def test_12_counts_that_are_all_zero_have_an_intercept_of_minus_infinity(model):
    fit = jm.fit(getattr(models, model)(), data={"x": intercept(20), "y": np.zeros(20, int)})
    assert_fit(fit, "SEPARATED", "BOUNDARY", loglik=0.0)
    assert fit.params["beta"][0] == -np.inf


def zero_counts(t, y):
    """Negative binomial counts, log-mean and log-dispersion."""
    size = jnp.exp(-t[1])
    return -size * jnp.log1p(jnp.exp(t[0]) / size) + 0.0 * y


@pytest.mark.parametrize("start", [(0.0, 0.0), (2.0, -3.0), (-1.0, 1.0)])
def test_12_zero_counts_of_a_function_of_ones_own_are_at_infinity_too(start):
    fit = jm.fit(zero_counts, np.array(start), np.zeros(20))
    assert_fit(fit, "SEPARATED", loglik=0.0)
    assert fit.x[0] == -np.inf or fit.x[1] == np.inf
    assert np.isnan(fit.se).all()


def test_12_a_likelihood_that_is_zero_everywhere_is_not_at_infinity():
    fit = jm.fit(lambda t, y: 0.0 * t[0] * y, np.array([1.0]), np.zeros(20))
    assert_fit(fit, "UNIDENTIFIED")


# ---------------------------------------------------------------- 13: kinks


def laplace(t, y):
    return -jnp.abs(y - t[0]) / jnp.exp(t[1]) - t[1] - jnp.log(2.0)


LAPLACE_SEEDS = range(4)


def laplace_sample(seed):
    return np.random.default_rng(seed).laplace(2.0, 1.5, 31)


@pytest.mark.parametrize("seed", LAPLACE_SEEDS)
def test_13_a_laplace_sample_converges_at_its_median(seed):
    """Odd n: loc is the median with SE scale/√n, scale the mean distance with SE scale/√n."""
    y = laplace_sample(seed)
    median = np.median(y)
    scale = np.mean(np.abs(y - median))
    fit = jm.fit(families.laplace, data=y)
    assert_fit(fit, "CONVERGED", x=[median, scale], se=np.full(2, scale / np.sqrt(31)))


@pytest.mark.parametrize("seed", [0, 1])
def test_13_a_laplace_law_of_ones_own_converges_at_its_median(seed):
    """The scale is solved with the median held; its logarithm has SE 1/√n."""
    y = laplace_sample(seed)
    median = np.median(y)
    fit = jm.fit(laplace, np.array([y.mean(), 0.0]), y)
    assert_fit(fit, "CONVERGED", x=[median, np.log(np.mean(np.abs(y - median)))])
    assert_allclose(fit.se[1], 31**-0.5, rtol=1e-4)


def test_13_least_absolute_deviations_converge_at_the_linear_program():
    """A line through two of the points, by SciPy's linear program."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=21)
    y = 1 + 2 * x + rng.laplace(size=21)
    design = np.column_stack([np.ones(21), x])
    cost = np.concatenate([np.zeros(4), np.ones(42)])
    equal = np.hstack([design, -design, np.eye(21), -np.eye(21)])
    found = optimize.linprog(cost, A_eq=equal, b_eq=y)
    right = found.x[:2] - found.x[2:4]
    fit = jm.fit(lambda t, d: -jnp.abs(d[1] - t[0] - t[1] * d[0]), np.array([0.0, 1.0]), (x, y))
    assert_fit(fit, "CONVERGED", x=right, loglik=-found.fun)


# ---------------------------------------------------------------- 14: a ridge of merged exponentials

DECAY_X = np.arange(24) * 0.05
# NIST's Lanczos3: the sum of three exponentials, rounded to four decimals.
LANCZOS3 = np.round(
    0.0951 * np.exp(-DECAY_X) + 0.8607 * np.exp(-3 * DECAY_X) + 1.5576 * np.exp(-5 * DECAY_X), 4
)
CERTIFIED = [0.086816414977, 0.95498101505, 0.84400777463, 2.9515951832, 1.5825685901, 4.9863565084]
STARTS = {
    "first": [1.2, 0.3, 5.6, 5.5, 6.5, 7.6],
    "second": [0.5, 0.7, 3.6, 4.2, 4.0, 6.3],
    "equal_rates": [1.0, 2.0, 1.0, 4.0, 1.0, 4.001],
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("deviation", [1e-4, 1e-5])
def test_14_three_exponentials_are_not_stopped_where_two_merge(start, deviation):
    """Certified by NIST to ten figures; the rounded data leave eight."""

    def loglik(b, d):
        mean = b[0] * jnp.exp(-b[1] * d[0]) + b[2] * jnp.exp(-b[3] * d[0])
        return -0.5 * ((d[1] - mean - b[4] * jnp.exp(-b[5] * d[0])) / deviation) ** 2

    fit = jm.fit(loglik, np.array(STARTS[start]), (DECAY_X, LANCZOS3))
    assert_fit(fit, "CONVERGED")
    pairs = sorted(zip(fit.x[1::2], fit.x[::2], strict=True))
    assert_allclose(np.ravel([[a, b] for b, a in pairs]), CERTIFIED, rtol=1e-5)


# ---------------------------------------------------------------- 15: a column far from zero


@pytest.mark.parametrize("shift", [1e6, 1e7])
@pytest.mark.parametrize("seed", range(6))
def test_15_a_logistic_regression_on_a_column_far_from_zero_is_bounded(seed, shift):
    """The log-likelihood is that of the column with its mean taken away."""
    rng = np.random.default_rng(seed)
    x = shift + rng.normal(size=60)
    centred = x - shift
    y = (rng.random(60) < special.expit(0.3 + centred)).astype(float)
    design = np.column_stack([np.ones(60), centred])
    beta = np.zeros(2)
    for _ in range(12):
        p = special.expit(design @ beta)
        information = design.T @ (design * (p * (1 - p))[:, None])
        beta = beta + np.linalg.solve(information, design.T @ (y - p))
    top = np.sum(y * (design @ beta) - np.logaddexp(0, design @ beta))
    ready = jm.fit(models.logistic(), data={"x": np.column_stack([np.ones(60), x]), "y": y})
    bare = jm.fit(
        lambda t, d: d[1] * (t[0] + t[1] * d[0]) - jnp.logaddexp(0.0, t[0] + t[1] * d[0]),
        np.zeros(2),
        (x, y),
    )
    for fit in (ready, bare):
        assert_fit(fit, "CONVERGED", "IMPRECISE")
        assert_allclose(fit.loglik, top, atol=1e-3)
        assert_allclose(fit.x[1], beta[1], rtol=1e-2)


# ---------------------------------------------------------------- 16: a direction of rounding noise, rescaled to curvature one


def choice(b, d):
    utility = jnp.einsum("nij,j->ni", d["x"], b)
    chosen = jnp.take_along_axis(utility, d["y"][:, None], 1)[:, 0]
    return chosen - jax.scipy.special.logsumexp(utility, axis=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_16_a_covariate_that_is_the_same_for_all_alternatives_leaves_the_other_its_estimate(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(80, 3, 2))
    x[:, :, 1] = rng.normal(size=(80, 1)) * 3
    p = special.softmax(0.8 * x[:, :, 0], axis=1)
    y = np.array([rng.choice(3, p=row) for row in p])
    first = x[:, :, 0]

    def minus(b):
        return -np.sum(b * first[np.arange(80), y] - special.logsumexp(b * first, axis=1))

    right = optimize.minimize_scalar(minus, bracket=(0, 1), tol=1e-12)
    mean = (special.softmax(right.x * first, axis=1) * first).sum(1, keepdims=True)
    spread = (special.softmax(right.x * first, axis=1) * (first - mean) ** 2).sum()
    fit = jm.fit(choice, np.zeros(2), {"x": x, "y": y})
    assert_fit(fit, "UNIDENTIFIED", x=[right.x, NONE], se=[spread**-0.5, NONE], loglik=-right.fun)


@pytest.mark.parametrize("common", [-1.0, 0.3, 2.0])
def test_16_a_shift_of_all_logits_is_unidentified_and_their_difference_is_not(common):
    def loglik(t, y):
        logits = jnp.stack([t[0] + t[1], t[1]])
        log_p = logits - jax.scipy.special.logsumexp(logits)
        return jnp.where(y == 1, log_p[0], log_p[1])

    y = np.repeat([1.0, 0.0], [13, 7])
    fit = jm.fit(loglik, np.array([0.0, common]), y)
    assert_fit(fit, "UNIDENTIFIED", x=[np.log(13 / 7), NONE], se=[np.sqrt(1 / 13 + 1 / 7), NONE])


@pytest.mark.parametrize("seed", range(6))
def test_16_a_factor_that_cancels_but_for_rounding_is_unidentified(seed):
    y = np.random.default_rng(seed).normal(size=40)
    fit = jm.fit(
        lambda t, y: norm.logpdf(y, t[0], jnp.exp(t[1] + t[2]) * jnp.exp(-t[2])),
        np.array([0.0, 0.0, 0.7]),
        y,
    )
    se = [y.std() / np.sqrt(40), 80**-0.5, NONE]
    assert_fit(fit, "UNIDENTIFIED", x=[y.mean(), np.log(y.std()), NONE], se=se)


# ---------------------------------------------------------------- 17: cancellation inside a term


@pytest.mark.parametrize(("trials", "p", "n"), [(12, 0.3, 200), (5, 0.5, 50), (30, 0.1, 100)])
def test_17_the_beta_binomial_family_of_binomial_counts_is_never_unbounded(trials, p, n):
    names = set()
    for seed in range(12):
        y = np.random.default_rng(100 + seed).binomial(trials, p, n)
        fit = jm.fit(families.beta_binomial, data={"y": y, "trials": np.full(n, trials)})
        names.add(fit.verdict.name)
    assert names <= {"CONVERGED", "SEPARATED"}


@pytest.mark.parametrize("trials", [5, 20])
def test_17_the_dirichlet_multinomial_family_of_multinomial_counts_is_never_unbounded(trials):
    names = set()
    for seed in range(12):
        y = np.random.default_rng(seed).multinomial(trials, [0.2, 0.5, 0.3], size=60)
        names.add(jm.fit(families.dirichlet_multinomial, data=y).verdict.name)
    assert names <= {"CONVERGED", "SEPARATED"}


@pytest.mark.parametrize("family", [families.negative_binomial, families.negative_binomial_1])
def test_17_a_negative_binomial_family_of_binomial_counts_is_never_unbounded(family):
    names = set()
    for seed in range(12):
        y = np.random.default_rng(seed).binomial(12, 0.3, 60)
        names.add(jm.fit(family, data=y).verdict.name)
    assert names <= {"CONVERGED", "BOUNDARY"}


def test_17_a_dirichlet_multinomial_of_multinomial_counts_is_never_unbounded():
    def terms(t, d):
        a = jnp.exp(t)
        total = gammaln(a.sum()) - gammaln(d.sum(1) + a.sum())
        return total + (gammaln(d + a[None, :]) - gammaln(a)[None, :]).sum(1)

    names = {}
    for seed in range(20):
        counts = np.random.default_rng(seed).multinomial(20, [0.2, 0.5, 0.3], size=60).astype(float)
        fit = jm.fit(terms, np.zeros(3), counts)
        names.setdefault(fit.verdict.name, []).append(seed)
    assert set(names) <= {"CONVERGED", "SEPARATED", "IMPRECISE"}, names


def test_17_counts_less_dispersed_than_poisson_always_have_the_same_status():
    """Gamma-mixed Poisson counts by (log shape, log rate): both go to infinity, the ratio is the mean."""

    def terms(t, y):
        return negative_binomial(jnp.exp(t[0] - t[1]), jnp.exp(t[0]), y)

    names = {}
    for seed in range(20):
        y = np.random.default_rng(seed).binomial(8, 0.6, 40).astype(float)
        assert y.var() < y.mean()
        fit = jm.fit(terms, np.zeros(2), y)
        names.setdefault(fit.verdict.name, []).append(seed)
        if fit.verdict.name == "SEPARATED":
            assert list(fit.x) == [np.inf, np.inf]
    assert set(names) == {"SEPARATED"}, names


# ---------------------------------------------------------------- 18: inflated and hurdle models without zeros

COUNTS_X = np.column_stack([np.ones(60), np.linspace(-1, 1, 60)])
COUNTS = {
    "few": 1 + np.random.default_rng(20).poisson(np.exp(1 + 0.4 * COUNTS_X[:, 1])),
    "many": np.random.default_rng(21).poisson(20, 60),
    "threes_and_fours": np.repeat([3, 4], [35, 25]),
}
# Columns of the counts and of the zeros.
DESIGNS = {"intercept": (1, 1), "slope": (2, 1), "two_of_each": (2, 2)}


def without_zeros(design, counts):
    columns, inflation = DESIGNS[design]
    return {"x": COUNTS_X[:, :columns], "z": COUNTS_X[:, :inflation], "y": COUNTS[counts]}


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("design", DESIGNS)
def test_18_a_zero_inflated_model_without_zeros_is_the_poisson_regression(design, counts):
    data = without_zeros(design, counts)
    x, y = data["x"], data["y"]
    beta = np.zeros(x.shape[1])
    beta[0] = np.log(y.mean())
    for _ in range(30):
        mean = np.exp(x @ beta)
        information = x.T @ (x * mean[:, None])
        beta = beta + np.linalg.solve(information, x.T @ (y - mean))
    fit = jm.fit(models.zero_inflated(zero="z"), data=data)
    assert_fit(fit, "SEPARATED")
    assert_allclose(fit.params["beta"], beta, rtol=0, atol=1e-6)
    assert_allclose(fit.stderr["beta"], np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-5)
    assert not np.isfinite(fit.params["gamma"]).any()


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("design", DESIGNS)
def test_18_a_hurdle_model_without_zeros_is_the_truncated_poisson_regression(design, counts):
    data = without_zeros(design, counts)
    x, y = data["x"], data["y"]

    def minus(b):
        eta = x @ b
        return -np.sum(y * eta - np.exp(eta) - np.log(-np.expm1(-np.exp(eta))))

    right, _ = highest(minus, [[np.log(y.mean()), 0.0][: x.shape[1]]])
    fit = jm.fit(models.hurdle(cross="z"), data=data)
    assert_fit(fit, "SEPARATED")
    assert_allclose(fit.params["beta"], right, rtol=0, atol=1e-5)
    assert np.isfinite(fit.stderr["beta"]).all()
    assert not np.isfinite(fit.params["gamma"]).any()


# ---------------------------------------------------------------- 19: degenerate maxima on a bound


@pytest.mark.parametrize("background", [1, 4, 30])
@pytest.mark.parametrize("start", [0.5, 5.0])
def test_19_a_signal_of_zero_over_a_known_background_is_on_its_bound(background, start):
    """Two bins: one of signal and background, one of background alone, twice as large; variance b/(1 + 2)."""
    data = np.array([[background, 2.0 * background]], float)

    def loglik(p, d):
        on = d[:, 0] * jnp.log(p["s"] + p["b"]) - p["s"] - p["b"]
        return on + d[:, 1] * jnp.log(2 * p["b"]) - 2 * p["b"]

    fit = jm.fit(loglik, {"s": start, "b": 1.5}, data, constraints=jm.positive)
    assert_fit(fit, "BOUNDARY", x=[background, 0.0], se=[np.sqrt(background / 3), NONE])


def test_19_a_zero_inflated_negative_binomial_of_zeros_only_is_at_infinity():
    fit = jm.fit(
        models.zero_inflated("negative_binomial", zero="z"),
        data={"x": intercept(30), "z": intercept(30), "y": np.zeros(30, int)},
    )
    assert_fit(fit, "SEPARATED", "BOUNDARY", loglik=0.0)
    assert np.isnan(fit.se).all()


@pytest.mark.parametrize("law", ["weibull", "lognormal"])
def test_19_a_survival_model_without_failures_has_no_standard_error(law):
    time = np.random.default_rng(1).uniform(1, 5, 20)
    fit = jm.fit(
        models.aft(law), data={"x": intercept(20), "time": time, "event": np.zeros(20, int)}
    )
    assert fit.verdict.name in ("SEPARATED", "BOUNDARY", "UNIDENTIFIED"), fit.explain()
    assert np.isnan(fit.se).all()
    assert_allclose(fit.loglik, 0.0, atol=1e-6)


def test_19_an_arch_coefficient_of_zero_is_on_its_bound():
    """Neighbouring squares that are correlated negatively: alpha = 0, omega the mean square with SE ω√(2/n)."""
    large = np.array([1.6, -1.5, 1.4, -1.7, 1.5, -1.6, 1.3, -1.4, 1.7, -1.5])
    y = np.ravel(np.column_stack([large, 0.3 * large[::-1]]))
    pairs = np.column_stack([y[1:], y[:-1]])
    omega = np.mean(pairs[:, 0] ** 2)
    assert np.sum((pairs[:, 0] ** 2 / omega - 1) * pairs[:, 1] ** 2) < 0

    def arch(p, d):
        variance = p["omega"] + p["alpha"] * d[:, 1] ** 2
        return -0.5 * (jnp.log(variance) + d[:, 0] ** 2 / variance)

    for start in (0.1, 0.5):
        fit = jm.fit(arch, {"omega": 1.0, "alpha": start}, pairs, constraints=jm.positive)
        assert_fit(fit, "BOUNDARY", x=[0.0, omega], se=[NONE, omega * np.sqrt(2 / 19)])


# ---------------------------------------------------------------- 20: very large numbers


@pytest.mark.parametrize("unit", [1e8, 1e12, 1e16])
@pytest.mark.parametrize("form", ["declared", "inside"])
def test_20_a_normal_sample_in_very_small_units_converges_from_zero_and_one(unit, form):
    y = unit * (3 + np.random.default_rng(2).normal(size=25))
    mean, scale = y.mean(), y.std()
    if form == "declared":
        fit = jm.fit(
            lambda p, y: norm.logpdf(y, p["m"], p["s"]),
            {"m": 0.0, "s": 1.0},
            y,
            constraints={"s": jm.positive},
        )
        right, se = [mean, scale], [scale / 5, scale / np.sqrt(50)]
    else:
        fit = jm.fit(lambda t, y: norm.logpdf(y, t[0], jnp.exp(t[1])), np.array([0.0, 0.0]), y)
        right, se = [mean, np.log(scale)], [scale / 5, 50**-0.5]
    assert_fit(fit, "CONVERGED", x=right, se=se)


@pytest.mark.parametrize("shift", [1e8, 1e10, 1e12])
def test_20_a_normal_sample_far_from_zero_is_bounded_from_zero_and_one(shift):
    """Estimates by the residuals from the first value, which are exact; at 1e12 the data themselves keep four digits."""
    y = shift + np.random.default_rng(3).normal(size=25)
    rest = y - y[0]
    fit = jm.fit(lambda t, y: norm.logpdf(y, t[0], jnp.exp(t[1])), np.array([0.0, 0.0]), y)
    assert_fit(fit, "CONVERGED", "IMPRECISE")
    assert_allclose(fit.x[0] - y[0], rest.mean(), atol=1e-3)
    assert_allclose(fit.x[1], np.log(rest.std()), atol=1e-3)


# ---------------------------------------------------------------- 21: sentences


def test_21_a_direction_of_the_sentence_names_no_dust():
    """Only a and b are free; what the others have in the direction is rounding."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(30, 2))

    def loglik(t, d):
        mean = t[0] * d[0][:, 0] + t[1] * d[0][:, 1] + 1e3 * (t[2] + t[3])
        return -0.5 * (d[1] - mean) ** 2

    fit = jm.fit(loglik, np.array([0.1, 0.2, 0.3, 0.4]), (x, rng.normal(size=30)))
    assert_fit(fit, "UNIDENTIFIED")
    for dust in ("e-1", "e-2", "theta[0]", "theta[1]"):
        assert dust not in fit.explain()


@pytest.mark.parametrize("scalar", [False, True])
def test_21_parameters_that_recede_together_get_their_signs(scalar):
    """One cell without counts, one whose trials all succeed, one regular."""

    def terms(t, d):
        counts = -jnp.exp(t[0]) + 0 * d
        return counts + jax.nn.log_sigmoid(t[1]) - 0.5 * (d - t[2]) ** 2

    y = np.array([1.0, 2.0, 4.0, 5.0])
    loglik = (lambda t, d: jnp.sum(terms(t, d))) if scalar else terms
    fit = jm.fit(loglik, np.zeros(3), y)
    assert_fit(fit, "SEPARATED", x=[-np.inf, np.inf, 3.0], se=[NONE, NONE, 0.5])
    sentence = fit.explain()
    assert "theta[0] → −∞" in sentence
    assert "theta[1] → +∞" in sentence
    assert "along;" not in sentence


@pytest.mark.parametrize("row", [0, 3])
def test_21_a_branch_whose_derivative_is_nan_is_nonfinite_and_names_its_row(row):
    """x = 0 in one row: log(0)·0 is kept out of the value by where, not out of the derivative."""
    x = np.array([0.5, 1.0, 2.0, 3.0, 4.0])
    x[row] = 0.0

    def loglik(t, d):
        curve = jnp.where(d > 0, t[0] * jnp.exp(t[1] * jnp.log(d)), 0.0)
        return -0.5 * (2 * d - curve - t[2]) ** 2

    fit = jm.fit(loglik, np.array([1.0, 0.5, 0.0]), x)
    assert_fit(fit, "NONFINITE")
    assert f"row {row}" in fit.explain()
    assert "make the argument safe" in fit.explain()


SEPARATED_X = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
NAIVE = {
    "logit": lambda eta: 1 / (1 + jnp.exp(-eta)),
    "probit": norm.cdf,
}


@pytest.mark.parametrize("name", NAIVE)
def test_21_a_probability_that_rounds_to_one_on_the_way_is_not_finite_at_its_row(name):
    """0·log 0 of separated data: it was STALLED, and its likelihood called rough. The logit comes near
    enough to its limit before, the probit does not.
    """
    status = {"logit": "SEPARATED", "probit": "NONFINITE"}[name]

    def naive(t, d):
        p = NAIVE[name](t[0] + t[1] * d["x"])
        return d["y"] * jnp.log(p) + (1 - d["y"]) * jnp.log(1 - p)

    data = {"x": SEPARATED_X, "y": (SEPARATED_X > 0) * 1.0}
    fit = jm.fit(naive, np.zeros(2), data)
    assert_fit(fit, status)
    assert data["y"][int(fit.witness.row)] == 1.0
    assert np.abs(data["x"][int(fit.witness.row)]) == 3.0
    assert "xlogy" in fit.explain()
    batch = jm.fit_batch(naive, np.zeros(2), {k: v[None] for k, v in data.items()}, progress=False)
    assert_fit(batch[0], status)
    assert int(batch[0].witness.row) == int(fit.witness.row)


def test_21_the_edge_of_a_uniform_law_is_no_wall_of_rounding():
    """ℓ is −∞ beyond the largest observation, which is a value and no failure of arithmetic."""
    y = np.random.default_rng(17).uniform(0, 3, 40)
    fit = jm.fit(lambda t, y: jnp.where(y <= t[0], -jnp.log(t[0]), -jnp.inf), np.array([5.0]), y)
    assert_fit(fit, "STALLED", loglik=-40 * np.log(y.max()))
    assert np.isnan(fit.se).all()
    assert "edge of its support" in fit.explain()
