"""``lint`` finds ten planted mistakes and accuses none of twenty sound likelihoods."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import log_softmax, sigmoid
from jax.scipy.special import gammaln, i0e, log_ndtr
from jax.scipy.stats import norm

import jaxmle as jm

N = 40
RNG = np.random.default_rng(5)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
ETA = X @ [0.3, 0.6]
BETA = {"beta": np.array([0.2, 0.4])}
POS = jm.positive


class Case(NamedTuple):
    """A likelihood, its start and data, its simulator of the response, and what lint is told."""

    loglik: Any
    start: Any
    y: Any
    draw: Any = None  # (rng, params, data) -> y
    support: Any = None
    constraints: Any = None
    more: Any = None  # other leaves of data

    @property
    def data(self):
        return {"x": X, "y": self.y, **(self.more or {})}

    def sample(self, key, params, data):
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        params, data = jax.tree.map(np.asarray, (params, data))
        new = self.draw(rng, params, data)
        return {**data, **(new if isinstance(new, dict) else {"y": new})}

    def lint(self, **options):
        sample = None if self.draw is None else self.sample
        response = None if self.support is None else "y"
        told = {
            "response": response,
            "support": self.support,
            "constraints": self.constraints,
        } | options
        return jm.lint(self.loglik, self.start, self.data, told.pop("sample", sample), **told)


def mean(p, d):
    return d["x"] @ p["beta"]


def normal(p, d):
    return norm.logpdf(d["y"], mean(p, d), p["sigma"])


def draw_normal(rng, p, d):
    return rng.normal(mean(p, d), p["sigma"])


def logistic(p, d):
    return d["y"] * mean(p, d) - jnp.logaddexp(0.0, mean(p, d))


def probit(p, d):
    return log_ndtr((2 * d["y"] - 1) * mean(p, d))


def poisson(p, d):
    return d["y"] * mean(p, d) - jnp.exp(mean(p, d)) - gammaln(d["y"] + 1)


def negative_binomial(p, d):
    mu, r, y = jnp.exp(mean(p, d)), 1 / p["alpha"], d["y"]
    return (
        gammaln(y + r)
        - gammaln(r)
        - gammaln(y + 1)
        + r * jnp.log(r / (r + mu))
        + y * jnp.log(mu / (r + mu))
    )


def gamma(p, d):
    k, rate = p["k"], p["k"] * jnp.exp(-mean(p, d))
    return k * jnp.log(rate) + (k - 1) * jnp.log(d["y"]) - rate * d["y"] - gammaln(k)


def weibull(p, d):
    """Censored where d is zero: the log hazard where it is not, less the cumulative hazard."""
    z = jnp.log(d["y"]) - mean(p, d)
    return d["d"] * (jnp.log(p["k"]) + p["k"] * z - jnp.log(d["y"])) - jnp.exp(p["k"] * z)


def draw_weibull(rng, p, d):
    time = np.exp(mean(p, d)) * rng.weibull(p["k"], N)
    limit = rng.exponential(4.0, N)
    return {"y": np.minimum(time, limit), "d": (time <= limit).astype(float)}


def student(p, d):
    z, df = (d["y"] - mean(p, d)) / p["sigma"], p["df"]
    return (
        gammaln((df + 1) / 2)
        - gammaln(df / 2)
        - 0.5 * jnp.log(df * jnp.pi)
        - jnp.log(p["sigma"])
        - (df + 1) / 2 * jnp.log1p(z**2 / df)
    )


def laplace(p, d):
    return -jnp.abs(d["y"] - mean(p, d)) / p["sigma"] - jnp.log(2 * p["sigma"])


def beta(p, d):
    m = sigmoid(mean(p, d))
    a, b = m * p["phi"], (1 - m) * p["phi"]
    return (
        gammaln(a + b)
        - gammaln(a)
        - gammaln(b)
        + (a - 1) * jnp.log(d["y"])
        + (b - 1) * jnp.log1p(-d["y"])
    )


def draw_beta(rng, p, d):
    m = 1 / (1 + np.exp(-mean(p, d)))
    return rng.beta(m * p["phi"], (1 - m) * p["phi"])


def exponential(p, d):
    return -mean(p, d) - d["y"] * jnp.exp(-mean(p, d))


def lognormal(p, d):
    return norm.logpdf(jnp.log(d["y"]), mean(p, d), p["sigma"]) - jnp.log(d["y"])


def multinomial_logit(p, d):
    eta = jnp.concatenate([jnp.zeros((d["x"].shape[0], 1)), d["x"] @ p["b"]], axis=1)
    return jnp.sum(d["y"] * log_softmax(eta), axis=1)


def draw_multinomial(rng, p, d):
    eta = np.column_stack([np.zeros(N), d["x"] @ p["b"]])
    return np.eye(3)[np.argmax(eta + rng.gumbel(size=eta.shape), axis=1)]


def ordinal(p, d):
    cuts = jnp.concatenate([jnp.array([-jnp.inf]), p["cuts"], jnp.array([jnp.inf])])
    y, eta = d["y"].astype(int), d["x"][:, 1] * p["slope"]
    return jnp.log(sigmoid(cuts[y + 1] - eta) - sigmoid(cuts[y] - eta))


def draw_ordinal(rng, p, d):
    latent = d["x"][:, 1] * p["slope"] + rng.logistic(size=N)
    return np.searchsorted(p["cuts"], latent).astype(float)


def binomial(p, d):
    m, y = d["m"], d["y"]
    return (
        gammaln(m + 1)
        - gammaln(y + 1)
        - gammaln(m - y + 1)
        + y * mean(p, d)
        - m * jnp.logaddexp(0.0, mean(p, d))
    )


def inflated(p, d):
    """Poisson with extra zeros, of probability w."""
    zero = jnp.logaddexp(jnp.log(p["w"]), jnp.log1p(-p["w"]) - jnp.exp(mean(p, d)))
    return jnp.where(d["y"] == 0, zero, jnp.log1p(-p["w"]) + poisson(p, d))


def mixture(p, d):
    parts = jnp.stack([norm.logpdf(d["y"], p["a"], p["s"]), norm.logpdf(d["y"], p["b"], 1.0)])
    return jax.nn.logsumexp(parts + jnp.log(p["w"])[:, None], axis=0)


def draw_mixture(rng, p, d):
    first = rng.random(N) < p["w"][0]
    return np.where(first, rng.normal(p["a"], p["s"], N), rng.normal(p["b"], 1.0, N))


def ar1(p, d):
    """Given the row before; the first row by the stationary law."""
    y, sd = d["y"], p["sigma"] / jnp.sqrt(1 - p["phi"] ** 2)
    later = norm.logpdf(y[1:], p["phi"] * y[:-1], p["sigma"])
    return jnp.concatenate([norm.logpdf(y[:1], 0.0, sd), later])


def draw_ar1(rng, p, d):
    y = [rng.normal(0, p["sigma"] / np.sqrt(1 - p["phi"] ** 2))]
    for _ in range(N - 1):
        y.append(p["phi"] * y[-1] + rng.normal(0, p["sigma"]))
    return np.array(y)


def von_mises(p, d):
    k = p["kappa"]
    return k * (jnp.cos(d["y"] - p["mu"]) - 1) - jnp.log(2 * jnp.pi) - jnp.log(i0e(k))


def categorical(p, d):
    return jnp.log(p["p"])[d["y"]]


def binary_y(eta):
    return (RNG.random(N) < 1 / (1 + np.exp(-eta))).astype(float)


COUNTS = RNG.poisson(np.exp(ETA)).astype(float)
POSITIVE_Y = np.exp(ETA) * RNG.gamma(2.0, 0.5, N)
TRIALS = RNG.integers(1, 9, N).astype(float)
REAL_Y = ETA + RNG.normal(size=N)
ANGLES = RNG.vonmises(0.5, 2.0, N)
MIXED = np.where(np.arange(N) % 3 == 0, RNG.normal(-2, 0.5, N), RNG.normal(1, 1, N))
SIGMA = {**BETA, "sigma": 1.2}

SOUND = {
    "normal": Case(normal, SIGMA, REAL_Y, draw_normal, "real", {"sigma": POS}),
    "logistic": Case(
        logistic,
        BETA,
        binary_y(ETA),
        lambda rng, p, d: (rng.logistic(size=N) < mean(p, d)).astype(float),
        "binary",
    ),
    "probit": Case(
        probit,
        BETA,
        binary_y(ETA),
        lambda rng, p, d: (rng.normal(size=N) < mean(p, d)).astype(float),
        "binary",
    ),
    "poisson": Case(
        poisson,
        BETA,
        COUNTS,
        lambda rng, p, d: rng.poisson(np.exp(mean(p, d))).astype(float),
        "counts",
    ),
    "negative_binomial": Case(
        negative_binomial,
        {**BETA, "alpha": 0.7},
        COUNTS,
        lambda rng, p, d: rng.poisson(
            np.exp(mean(p, d)) * rng.gamma(1 / p["alpha"], p["alpha"], N)
        ),
        "counts",
    ),
    "gamma": Case(
        gamma,
        {**BETA, "k": 0.6},
        POSITIVE_Y,
        lambda rng, p, d: rng.gamma(p["k"], np.exp(mean(p, d)) / p["k"]),
        "positive",
        {"k": POS},
    ),
    "weibull_censored": Case(
        weibull,
        {**BETA, "k": 1.3},
        POSITIVE_Y,
        draw_weibull,
        "positive",
        {"k": POS},
        {"d": (np.arange(N) % 3 > 0).astype(float)},
    ),
    "student": Case(
        student,
        {**SIGMA, "df": 4.0},
        REAL_Y,
        lambda rng, p, d: mean(p, d) + p["sigma"] * rng.standard_t(p["df"], N),
        "real",
        {"sigma": POS, "df": POS},
    ),
    "laplace": Case(
        laplace,
        SIGMA,
        REAL_Y,
        lambda rng, p, d: rng.laplace(mean(p, d), p["sigma"]),
        "real",
        {"sigma": POS},
    ),
    "beta": Case(
        beta,
        {**BETA, "phi": 3.0},
        np.clip(RNG.beta(2, 2, N), 0.01, 0.99),
        draw_beta,
        "unit",
        {"phi": POS},
    ),
    "exponential": Case(
        exponential,
        BETA,
        POSITIVE_Y,
        lambda rng, p, d: rng.exponential(np.exp(mean(p, d))),
        "positive",
    ),
    "lognormal": Case(
        lognormal,
        SIGMA,
        POSITIVE_Y,
        lambda rng, p, d: np.exp(draw_normal(rng, p, d)),
        "positive",
        {"sigma": POS},
    ),
    "multinomial_logit": Case(
        multinomial_logit,
        {"b": np.array([[0.1, -0.2], [0.3, 0.2]])},
        np.eye(3)[RNG.integers(0, 3, N)],
        draw_multinomial,
        np.eye(3),
    ),
    "ordinal": Case(
        ordinal,
        {"cuts": np.array([-0.8, 0.5]), "slope": 0.4},
        RNG.integers(0, 3, N).astype(float),
        draw_ordinal,
        np.arange(3),
        {"cuts": jm.ordered},
    ),
    "binomial": Case(
        binomial,
        BETA,
        RNG.binomial(TRIALS.astype(int), 0.5) * 1.0,
        lambda rng, p, d: rng.binomial(d["m"].astype(int), 1 / (1 + np.exp(-mean(p, d)))),
        "counts",
        None,
        {"m": TRIALS},
    ),
    "inflated_poisson": Case(
        inflated,
        {**BETA, "w": 0.3},
        COUNTS * (np.arange(N) % 4 > 0),
        lambda rng, p, d: rng.poisson(np.exp(mean(p, d))) * (rng.random(N) > p["w"]),
        "counts",
        {"w": jm.interval(0, 1)},
    ),
    "mixture": Case(
        mixture,
        {"a": -1.5, "b": 1.2, "s": 0.6, "w": np.array([0.4, 0.6])},
        MIXED,
        draw_mixture,
        "real",
        {"s": POS, "w": jm.simplex},
    ),
    "ar1": Case(
        ar1,
        {"phi": 0.5, "sigma": 1.0},
        np.cumsum(RNG.normal(size=N)) / 3,
        draw_ar1,
        "real",
        {"phi": jm.interval(-1, 1), "sigma": POS},
    ),
    "von_mises": Case(
        von_mises,
        {"mu": 0.3, "kappa": 1.5},
        ANGLES,
        lambda rng, p, d: rng.vonmises(p["mu"], p["kappa"], N),
        jm.interval(-np.pi, np.pi),
        {"kappa": POS},
    ),
    "categorical": Case(
        categorical,
        {"p": np.array([0.2, 0.5, 0.3])},
        RNG.integers(0, 3, N),
        lambda rng, p, d: rng.choice(3, N, p=p["p"] / p["p"].sum()),
        np.arange(3),
        {"p": jm.simplex},
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_likelihood_is_not_accused(name):
    report = SOUND[name].lint()
    assert report.ok, report
    unsure = {finding.check for finding in report.findings if finding.passed is None}
    assert unsure <= {"weibull_censored": {"normalised"}}.get(name, set()), report
    noted = {finding.check for finding in report.findings if finding.note}
    assert noted == {"ar1": {"rows"}}.get(name, set()), report


# ---------------------------------------------------------------- planted mistakes


def no_log_sigma(p, d):
    return -0.5 * ((d["y"] - mean(p, d)) / p["sigma"]) ** 2


def no_gamma_function(p, d):
    return gamma(p, d) + gammaln(p["k"])


def pairs(p, d):
    """A column of shape (n, 1) against a vector, as broadcasting does it."""
    return norm.logpdf(d["y"][:, None], mean(p, d)[None, :], p["sigma"])


def standardised(p, d):
    return normal(p, {**d, "y": (d["y"] - jnp.mean(d["y"])) / jnp.std(d["y"])})


def stopped(p, d):
    return norm.logpdf(d["y"], mean(p, d), jax.lax.stop_gradient(p["sigma"])) + 0.01 * p["sigma"]


def single(p, d):
    return norm.logpdf(d["y"], mean(p, d).astype(jnp.float32), p["sigma"])


def uniform(p, d):
    return jnp.where(d["y"] < p["theta"], -jnp.log(p["theta"]), -jnp.inf)


UNIFORM_Y = RNG.random(N) * 3

PLANTED = {
    "no_log_sigma_by_mass": (
        "normalised",
        SOUND["normal"]._replace(loglik=no_log_sigma, draw=None),
    ),
    "no_log_sigma_by_simulation": (
        "scores",
        SOUND["normal"]._replace(loglik=no_log_sigma, support=None),
    ),
    "constant_of_a_parameter": (
        "normalised",
        SOUND["gamma"]._replace(loglik=no_gamma_function, draw=None),
    ),
    "sign_by_mass": (
        "sign",
        SOUND["normal"]._replace(loglik=lambda p, d: -normal(p, d), draw=None),
    ),
    "sign_by_simulation": (
        "sign",
        SOUND["normal"]._replace(loglik=lambda p, d: -normal(p, d), support=None),
    ),
    "sign_by_climbing": (
        "sign",
        SOUND["normal"]._replace(loglik=lambda p, d: -normal(p, d), support=None, draw=None),
    ),
    "mean_of_rows": ("sum", SOUND["normal"]._replace(loglik=lambda p, d: jnp.mean(normal(p, d)))),
    "terms_over_n": (
        "sum",
        SOUND["normal"]._replace(
            loglik=lambda p, d: normal(p, d) / d["y"].shape[0], support=None, draw=None
        ),
    ),
    "pairs_returned": ("shape", SOUND["normal"]._replace(loglik=pairs)),
    "pairs_summed": (
        "sum",
        SOUND["normal"]._replace(loglik=lambda p, d: jnp.sum(pairs(p, d)), support=None, draw=None),
    ),
    "standardised_inside": (
        "rows",
        SOUND["normal"]._replace(loglik=standardised, support=None, draw=None),
    ),
    "gradient_stopped": (
        "derivatives",
        SOUND["normal"]._replace(loglik=stopped, support=None, draw=None),
    ),
    "float32_inside": ("precision", SOUND["normal"]._replace(loglik=single)),
    "unused_parameter": ("parameters", SOUND["normal"]._replace(start={**SIGMA, "extra": 0.5})),
    "moving_support": (
        "support",
        Case(
            uniform,
            {"theta": 1.2 * UNIFORM_Y.max()},
            UNIFORM_Y,
            support="positive",
            constraints={"theta": POS},
        ),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_found_and_nothing_else_is_accused(name):
    check, case = PLANTED[name]
    report = case.lint()
    assert [finding.check for finding in report.findings if finding.passed is False] == [check], (
        report
    )
    assert not report.ok and report[check].mark == "✗"


# ---------------------------------------------------------------- other mistakes, on a sample of a normal mean


def location(p, d):
    return norm.logpdf(d, p["mu"], 1.0)


@jax.custom_jvp
def square(x):
    return x**2


square.defjvp(lambda x, t: (x[0] ** 2, 2.02 * x[0] * t[0]))

START = {"mu": 0.7}
MISTAKES = {
    "a_derivative_1_percent_off": (
        "derivatives",
        "custom rule",
        lambda p, d: location({"mu": square(p["mu"])}, d),
    ),
    "a_cast_to_integers": (
        "parameters",
        "in jumps",
        lambda p, d: location({"mu": jnp.round(p["mu"])}, d),
    ),
    "a_branch_not_taken": (
        "finite",
        "where",
        lambda p, d: location(p, d) + jnp.where(d > -9, 0.0, jnp.sqrt(p["mu"] - 9 + 0 * d)),
    ),
    "minus_infinity_at_the_start": (
        "finite",
        "row 7 is -inf at the start",
        lambda p, d: jnp.where(jnp.arange(N) == 7, -jnp.inf, location(p, d)),
    ),
    "if_on_a_parameter": ("shape", "jnp.where", lambda p, d: location(p, d) if p["mu"] > 0 else d),
    "not_differentiable": (
        "derivatives",
        "cannot be differentiated",
        lambda p, d: location({"mu": jax.pure_callback(np.sqrt, p["mu"], p["mu"])}, d),
    ),
    "the_largest_row_inside": (
        "rows",
        "every term changes",
        lambda p, d: location(p, d - jnp.max(d)),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_other_mistakes_are_told_by_their_check(name):
    check, says, loglik = MISTAKES[name]
    report = jm.lint(loglik, START, REAL_Y)
    assert [finding.check for finding in report.findings if finding.passed is False] == [check], (
        report
    )
    assert says in report[check].sentence


# ---------------------------------------------------------------- facts that are no mistakes


def test_a_series_is_told_to_be_one():
    found = SOUND["ar1"].lint(sample=None, support=None, response=None)["rows"]
    assert found.passed and found.note and "block bootstrap" in found.sentence


def test_what_depends_on_the_data_alone_may_be_left_out():
    """Without its constant the mass of a normal density is √(2π) everywhere; a Poisson density without y! has none until y! is put back."""
    report = jm.lint(lambda p, d: -0.5 * (d - p["mu"]) ** 2, START, REAL_Y, support="real")
    assert report.ok and report["normalised"].note and "2.50663" in report["normalised"].sentence
    report = jm.lint(lambda p, d: d * p["mu"] - jnp.exp(p["mu"]), START, COUNTS, support="counts")
    assert report.ok and report["normalised"].note and "log y!" in report["normalised"].sentence


def test_rows_whose_term_is_no_density_leave_the_mass_undecided():
    assert SOUND["weibull_censored"].lint(sample=None)["normalised"].passed is None


def test_a_scalar_is_a_sum_or_undecided():
    report = jm.lint(lambda p, d: jnp.sum(location(p, d)), START, REAL_Y, support="real")
    assert (
        report.ok
        and report["shape"].note
        and report["sum"].note
        and report["normalised"].passed
        and report["rows"].passed is None
    )

    def search(p, d):
        return jnp.sum(norm.logpdf(d[1:], p["mu"] * d[:-1], 1.0))

    assert jm.lint(search, START, REAL_Y)["sum"].passed is None


def test_a_kink_is_no_wrong_derivative():
    def huber(p, d):
        return -jnp.where(
            jnp.abs(d - p["mu"]) < 1, 0.5 * (d - p["mu"]) ** 2, jnp.abs(d - p["mu"]) - 0.5
        )

    assert jm.lint(huber, START, REAL_Y).ok


# ---------------------------------------------------------------- every form of a likelihood

DECLARED = jm.regression(
    lambda eta, row: row["y"] * eta["eta"] - jnp.logaddexp(0.0, eta["eta"]),
    {"eta": jm.linear("x", "beta")},
    response=jm.enumeration("y", [0.0, 1.0]),
)


def draw_location(key, p, d):
    return p["mu"] + jax.random.normal(key, d.shape)


def test_combinators_and_the_declared_form_are_linted():
    logit = SOUND["logistic"]
    report = jm.lint(DECLARED, BETA, logit.data, logit.sample)
    assert (
        report.ok and report["normalised"].passed and report["scores"].passed
    )  # support from the law that it carries
    weighted = jm.weight(jm.penalize(location, jm.ridge(0.5)), jm.frequency(np.arange(N) % 3))
    report = jm.lint(weighted, START, REAL_Y, draw_location, support="real")
    assert all(finding.passed and not finding.note for finding in report.findings), report

    def wide(p, d):
        return norm.logpdf(d, p["mu"], p["s"])

    assert jm.lint(jm.fix(wide, {"s": 1.0}), {**START, "s": 2.0}, REAL_Y, support="real").ok
    report = jm.lint(
        jm.pool(location, MISTAKES["the_largest_row_inside"][2]), START, (REAL_Y, REAL_Y)
    )
    assert not report.ok and report["rows"].sentence.startswith("member 1: ")


# ---------------------------------------------------------------- the report, and wrong arguments


def test_the_report_is_a_table_of_marks_and_sentences():
    report = jm.lint(location, START, REAL_Y)
    lines = repr(report).splitlines()
    assert (
        lines[0] == "lint: no mistake found; not checked: scores, normalised"
        and max(map(len, lines)) <= 100
    )
    assert [finding.check for finding in report.findings] == [
        line.split()[1] for line in lines[1:-1] if line[0] != " "
    ]
    assert (
        report["scores"].passed is None
        and report["scores"].mark == "–"
        and report["finite"].mark == "✓"
    )
    assert not jax.config.jax_enable_x64
    with pytest.raises(KeyError, match="there is no check called"):
        report["sums"]


def test_a_ready_model_is_checked_against_its_own_simulator():
    logit = SOUND["logistic"]
    assert jm.lint(jm.models.logistic(), BETA, logit.data)["scores"].passed


def test_wrong_arguments_are_errors():
    with pytest.raises(ValueError, match="outside jit, vmap and grad"):
        jax.jit(lambda y: jm.lint(location, START, y).ok)(REAL_Y)
    with pytest.raises(ValueError, match="needs its support"):
        jm.lint(normal, SIGMA, SOUND["normal"].data, response="y")
    with pytest.raises(ValueError, match="support must be"):
        jm.lint(location, START, REAL_Y, support="count")
    with pytest.raises(ValueError, match=r"one of \['x', 'y'\]"):
        jm.lint(normal, SIGMA, SOUND["normal"].data, response="z", support="real")
    with pytest.raises(ValueError, match="same structure and shapes"):
        jm.lint(location, START, REAL_Y, lambda key, p, d: d[:3])
    with pytest.raises(ValueError, match="every parameter is fixed"):
        jm.lint(jm.fix(location, {"mu": 1.0}), START, REAL_Y)


def test_squared_error_on_a_binary_outcome_is_no_likelihood():
    """exp(−(y − p)²) has mass e^(−p²) + e^(−(1−p)²); a listed support was compared with an interval, and raised."""

    def brier(p, d):
        return -((d["y"] - jax.nn.sigmoid(d["x"] @ p["beta"])) ** 2)

    logit = SOUND["logistic"]
    for support in ("binary", [0.0, 1.0]):
        report = jm.lint(brier, BETA, logit.data, response="y", support=support)
        assert report["normalised"].passed is False and not report.ok
