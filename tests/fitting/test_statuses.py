"""Every verdict from a small model, on the host, under jit and in a batch: the same status, a sentence that names the parameters,
and no number for what has none."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle import Status
from tests.likelihoods import logit, normal_regression, poisson, probit
from tests.verdict.answers import two_derivatives

from .models import BETA, BETA_SIGMA, N, design, linear_data, logistic_data, stack, under_trace

WITH_LAW = jm.with_response(logit, jm.enumeration("y", [0.0, 1.0]))
KINDS = ["expected", "observed", "opg", "HC0", "HC1", "HC2", "HC3", "CR0", "CR1"]


# ---------------------------------------------------------------- logistic samples, all of one shape


def separated():
    """y = 1 exactly where the second column is positive."""
    data = logistic_data(10)
    return data | {"y": (data["x"][:, 1] > 0).astype(float)}


def quasi_separated():
    """The third column is a dummy whose rows are all successes."""
    data = logistic_data(11)
    dummy = (np.arange(N) < 12).astype(float)
    x = data["x"].copy()
    x[:, 2] = dummy
    return {"x": x, "y": np.where(dummy == 1, 1.0, data["y"])}


def constant_response():
    return logistic_data(12) | {"y": np.ones(N)}


def collinear():
    data = logistic_data(13)
    x = data["x"].copy()
    x[:, 2] = 2 * x[:, 1] - 3
    return data | {"x": x}


def with_nan(row=17):
    data = logistic_data(14)
    x = data["x"].copy()
    x[row, 1] = np.nan
    return data | {"x": x}


LOGISTIC = {
    "sound": (logistic_data(10), Status.CONVERGED, []),
    "separated": (separated(), Status.SEPARATED, ["beta[1]", "infinity"]),
    "quasi_separated": (quasi_separated(), Status.SEPARATED, ["beta[2] → +∞"]),
    "constant_response": (constant_response(), Status.SEPARATED, ["beta[0]"]),
    "collinear": (collinear(), Status.UNIDENTIFIED, ["beta[0]", "beta[1]", "beta[2]"]),
}


@pytest.fixture(scope="module")
def batch():
    """All of them, and one with a NaN, in one traced batch."""
    samples = stack(*(data for data, *_ in LOGISTIC.values()), with_nan())
    return under_trace(jax.vmap, lambda data: jm.fit(logit, BETA, data), samples)


@pytest.mark.parametrize("name", LOGISTIC)
def test_logistic_samples_get_their_verdict(name):
    data, status, names = LOGISTIC[name]
    fit = jm.fit(logit, BETA, data)
    assert fit.verdict == status, fit.explain()
    assert fit.converged == (status == Status.CONVERGED)
    for part in names:
        assert part in fit.explain()


@pytest.fixture(scope="module")
def scheduled():
    """The same members by the batch engine."""
    return jm.fit_batch(
        logit, BETA, stack(*(data for data, *_ in LOGISTIC.values()), with_nan()), progress=False
    )


@pytest.mark.parametrize("name", LOGISTIC)
def test_a_batch_gives_each_member_the_verdict_it_has_alone(name, scheduled):
    data, status, _ = LOGISTIC[name]
    alone, member = jm.fit(logit, BETA, data), scheduled[list(LOGISTIC).index(name)]
    assert member.verdict == status, member.explain()
    assert alone.explain().startswith(
        member.explain()
    )  # alone, an unidentified fit also says whether its model or its data is the cause
    assert_array_equal(np.isnan(member.se), np.isnan(alone.se))
    assert_allclose(member.se, alone.se, rtol=1e-6)
    assert_allclose(member.loglik, alone.loglik, atol=1e-9 * N)
    assert_array_equal(np.isfinite(member.x), np.isfinite(alone.x))
    assert_array_equal(member.x[~np.isfinite(member.x)], alone.x[~np.isfinite(alone.x)])


@pytest.mark.thorough
@pytest.mark.parametrize("name", LOGISTIC)
def test_a_traced_batch_gives_the_same_verdict_and_never_more_signs(name, batch):
    """The signs over a cone of several dimensions are worked out on the host; inside a trace they stay open."""
    data, status, _ = LOGISTIC[name]
    alone, member = jm.fit(logit, BETA, data), batch[list(LOGISTIC).index(name)]
    assert member.verdict == status, member.explain()
    assert member.explain().removeprefix("The") in alone.explain() or status == Status.SEPARATED
    assert_array_equal(np.isnan(member.se), np.isnan(alone.se))
    assert_allclose(member.se, alone.se, rtol=1e-6)
    assert_allclose(member.loglik, alone.loglik, atol=1e-9 * N)
    assert_array_equal(np.isfinite(member.x), np.isfinite(alone.x))
    infinite = np.isinf(member.x)
    assert_array_equal(member.x[infinite], alone.x[infinite])


def test_nan_in_a_traced_batch_is_nonfinite_and_names_the_row(batch):
    member = batch[len(LOGISTIC)]
    assert member.verdict == Status.NONFINITE
    assert int(member.witness.row) == 17
    assert "row 17" in member.explain()
    for quantity in (member.x, member.se, member.vcov, member.loglik, member.aic):
        assert np.isnan(quantity).all()


def test_the_digest_of_a_batch_counts_its_verdicts(batch):
    text = str(batch)
    assert len(text.splitlines()) <= 40
    for status in ("SEPARATED", "UNIDENTIFIED", "NONFINITE", "CONVERGED"):
        assert status in text.upper()


@pytest.mark.parametrize("model", [logit, probit])
def test_finite_coefficients_of_a_quasi_separated_sample_are_those_of_the_limit(model):
    """The rows that the dummy predicts perfectly leave the likelihood; what remains is a regression on the other columns."""
    data = quasi_separated()
    rest = data["x"][:, 2] == 0
    limit = jm.fit(
        lambda p, d: model({"beta": jnp.append(p["b"], 0.0)}, d),
        {"b": np.zeros(2)},
        {"x": data["x"][rest], "y": data["y"][rest]},
    )
    fit = jm.fit(model, BETA, data)
    assert limit.converged
    assert fit.verdict == Status.SEPARATED, fit.explain()
    assert fit.x[2] == np.inf
    assert np.isnan(fit.se[2])
    assert_allclose(fit.x[:2], limit.x, rtol=0, atol=1e-6 * limit.se.min())
    assert_allclose(fit.se[:2], limit.se, rtol=1e-6)
    assert_allclose(fit.loglik, limit.loglik, atol=1e-8)


@pytest.mark.parametrize("model", [logit, probit])
@pytest.mark.parametrize("sample", [separated, constant_response])
def test_complete_separation_is_never_converged(model, sample):
    fit = jm.fit(model, BETA, sample())
    assert fit.verdict == Status.SEPARATED, fit.explain()
    assert_allclose(fit.loglik, 0.0, atol=1e-6)
    assert np.isnan(fit.se).all()
    assert not np.isfinite(fit.vcov).any()


def test_a_poisson_cell_without_counts_is_separated():
    """The dummy's coefficient falls to minus infinity; the others are those of the rows outside the cell."""
    data = quasi_separated()
    rest = data["x"][:, 2] == 0
    counts = np.where(rest, np.random.default_rng(5).poisson(2.0, N), 0).astype(float)
    fit = jm.fit(poisson, BETA, {"x": data["x"], "y": counts})
    limit = jm.fit(poisson, {"beta": np.zeros(2)}, {"x": data["x"][rest, :2], "y": counts[rest]})
    assert fit.verdict == Status.SEPARATED, fit.explain()
    assert fit.x[2] == -np.inf
    assert "beta[2] → −∞" in fit.explain()
    assert_allclose(fit.x[:2], limit.x, rtol=0, atol=1e-6 * limit.se.min())
    assert_allclose(fit.se[:2], limit.se, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_covariance_gives_an_infinite_coefficient_a_standard_error(kind):
    options = {"vcov": kind} | ({"clusters": np.arange(N) // 3} if kind.startswith("CR") else {})
    model = WITH_LAW if kind in ("expected", "HC2", "HC3") else logit
    fit = jm.fit(model, BETA, quasi_separated(), **options)
    assert fit.verdict == Status.SEPARATED
    assert np.isnan(fit.se[2])
    assert np.isnan(fit.vcov[2]).all()
    assert np.isfinite(fit.se[:2]).all()
    assert not np.isfinite(fit.interval()[2]).all()
    assert np.isnan(jm.fit(model, BETA, collinear(), **options).se).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_an_unidentified_pair_keeps_the_standard_error_of_its_sum(scale):
    """y ~ N(a + b, 1): a and b are free along a − b; the variance of a + b is 1/n."""
    y = linear_data(3)["y"]
    fit = jm.fit(
        lambda p, d: -0.5 * (d - p["a"] - scale * p["b"]) ** 2, {"a": 0.2, "b": 0.1 / scale}, y
    )
    assert fit.verdict == Status.UNIDENTIFIED, fit.explain()
    assert re.search(r"\ba\b.*\bb\b", fit.explain())
    assert np.isnan(fit.se).all()
    total = jm.delta(lambda p: p["a"] + scale * p["b"], fit)
    assert_allclose(total.estimate, y.mean(), rtol=1e-9)
    assert_allclose(total.stderr, 1 / np.sqrt(N), rtol=1e-9)
    assert np.isnan(jm.delta(lambda p: p["a"] - p["b"], fit).stderr)


def test_an_unidentified_fit_says_whether_model_or_data_is_the_cause():
    by_data = jm.fit(logit, BETA, collinear())
    assert "The cause is in these data" in by_data.explain()
    by_model = jm.fit(
        lambda p, d: -0.5 * (d["y"] - p["a"] - p["b"] - p["c"] * d["x"][:, 1]) ** 2,
        {"a": 0.2, "b": 0.1, "c": 0.0},
        linear_data(3),
    )
    assert by_model.verdict == Status.UNIDENTIFIED
    assert "It is the model" in by_model.explain()
    assert np.isfinite(by_model.stderr["c"])


# ---------------------------------------------------------------- normal samples, all of one shape

NORMAL = {
    "sound": (linear_data(20), Status.CONVERGED),
    "perfect": (linear_data(20) | {"y": design(20) @ np.array([1.0, -2.0, 0.5])}, Status.UNBOUNDED),
    "collinear": (linear_data(21) | {"x": collinear()["x"]}, Status.UNIDENTIFIED),
}


def fit_normal(data):
    return jm.fit(normal_regression, BETA_SIGMA, data, constraints={"sigma": jm.positive})


@pytest.fixture(scope="module")
def normal_batch():
    return under_trace(jax.vmap, fit_normal, stack(*(data for data, _ in NORMAL.values())))


@pytest.mark.parametrize("name", NORMAL)
def test_normal_samples_get_their_verdict_alone_and_in_a_batch(name, normal_batch):
    data, status = NORMAL[name]
    alone, member = fit_normal(data), normal_batch[list(NORMAL).index(name)]
    assert alone.verdict == status, alone.explain()
    assert member.verdict == status, member.explain()
    assert_array_equal(np.isnan(alone.se), np.isnan(member.se))
    assert_allclose(alone.se, member.se, rtol=1e-6)


def test_a_perfect_fit_has_no_estimate_and_an_infinite_likelihood(normal_batch):
    for fit in (fit_normal(NORMAL["perfect"][0]), normal_batch[1]):
        assert fit.loglik == np.inf
        assert np.isnan(fit.x).all()
        assert np.isnan(fit.se).all()
        assert "sigma" in fit.explain()


def test_fewer_rows_than_coefficients_is_unbounded():
    data = {name: leaf[:3] for name, leaf in linear_data(22).items()}
    fit = fit_normal(data)
    assert fit.verdict == Status.UNBOUNDED, fit.explain()
    assert np.isnan(fit.se).all()


def test_the_scale_of_a_collinear_regression_keeps_its_standard_error():
    fit = fit_normal(NORMAL["collinear"][0])
    reduced = linear_data(21) | {"x": collinear()["x"][:, :2]}
    oracle = jm.fit(
        normal_regression,
        {"beta": np.zeros(2), "sigma": 1.0},
        reduced,
        constraints={"sigma": jm.positive},
    )
    assert np.isnan(fit.stderr["beta"]).all()
    assert_allclose(fit.stderr["sigma"], oracle.stderr["sigma"], rtol=1e-8)
    assert_allclose(fit.loglik, oracle.loglik, rtol=1e-12)


# ---------------------------------------------------------------- one function with many shapes, chosen by coefficients

COEFFICIENTS = [
    "square",
    "sum",
    "product",
    "quartic",
    "saddle",
    "linear",
    "log",
    "rough",
    "square_b",
]


def zoo(params, data):
    """−c·(the shape): a sum of simple surfaces in (a, b), each with its coefficient in every row."""
    a, b, c = params["a"], params["b"], data["c"]
    shapes = jnp.stack([
        (a - 1) ** 2,
        (a + b - 1) ** 2,
        (a * b - 1) ** 2,
        (a - 1) ** 4,
        (a - 1) ** 2 - (b - 1) ** 2,
        -a,
        -0.5 * jnp.log1p(a**2),
        (a - 1) ** 2 + jax.lax.stop_gradient(jnp.abs(a - 0.5)) * 1e3,
        (b - 1) ** 2,
    ])  # fmt: skip
    return -c @ shapes


def surface(**coefficients):
    row = np.array([float(coefficients.get(name, 0)) for name in COEFFICIENTS])
    return {"c": np.tile(row, (4, 1))}


AB = {"a": 0.5, "b": 0.7}

ZOO = {
    "sound": (surface(square=1, square_b=2), Status.CONVERGED, [], 0),
    "a_plus_b": (surface(sum=1), Status.UNIDENTIFIED, ["a", "b"], 0),
    "a_times_b": (surface(product=1), Status.UNIDENTIFIED, ["a", "b"], 0),
    "quartic": (surface(quartic=1, square_b=1), Status.SINGULAR, ["a"], 1),
    "linear_growth": (surface(linear=1, square_b=1), Status.UNBOUNDED, ["along a"], None),
    "log_growth": (surface(log=1, square_b=1), Status.UNBOUNDED, ["along"], None),
    "rough": (surface(rough=1, square_b=1), Status.STALLED, ["standard errors"], None),
}


def fit_alone(name):
    """The fit of one surface; where the score is not that of the values, it also warns of the stop_gradient."""
    data = ZOO[name][0]
    if name != "rough":
        return jm.fit(zoo, AB, data)
    with pytest.warns(jm.DerivativeRuleWarning, match="^stop_gradient in zoo"):
        return jm.fit(zoo, AB, data)


@pytest.fixture(scope="module")
def zoo_batch():
    return under_trace(
        jax.vmap, lambda data: jm.fit(zoo, AB, data), stack(*(data for data, *_ in ZOO.values()))
    )


@pytest.mark.parametrize("name", ZOO)
def test_a_surface_gets_its_verdict(name):
    _, status, words, finite = ZOO[name]
    fit = fit_alone(name)
    assert fit.verdict == status, fit.explain()
    for word in words:
        assert word in fit.explain()
    if status != Status.CONVERGED:
        assert np.isfinite(fit.se).sum() == (finite or 0)
    if status == Status.UNBOUNDED:
        assert fit.loglik == np.inf
        assert np.isnan(fit.x).all()


@pytest.mark.thorough
@pytest.mark.parametrize("name", ZOO)
def test_a_surface_gets_the_same_verdict_in_a_batch(name, zoo_batch):
    status = ZOO[name][1]
    alone, member = fit_alone(name), zoo_batch[list(ZOO).index(name)]
    assert member.verdict == status, member.explain()
    assert_array_equal(np.isnan(member.se), np.isnan(alone.se))
    assert_allclose(member.se, alone.se, rtol=1e-6)


def test_the_other_parameter_of_a_quartic_keeps_its_standard_error():
    """ℓ = −4(b − 1)² in b: its variance is 1/8."""
    fit = jm.fit(zoo, AB, ZOO["quartic"][0])
    assert np.isnan(fit.stderr["a"])
    assert_allclose(fit.stderr["b"], np.sqrt(1 / 8), rtol=1e-9)


STOPPED = {
    "saddle": (surface(saddle=1), {"a": 1.0, "b": 1.0}, Status.SADDLE, "curves upwards"),
    "far": (surface(product=1, square=1), AB, Status.MAX_STEPS, "step limit"),
}


@pytest.mark.parametrize("name", STOPPED)
def test_without_steps_a_start_is_judged_where_it_is(name):
    data, start, status, words = STOPPED[name]
    fit = jm.fit(zoo, start, data, max_steps=0)
    assert fit.verdict == status, fit.explain()
    assert words in fit.explain()
    assert np.isnan(fit.se).all()
    assert np.isfinite(fit.x).all()


@pytest.mark.thorough
def test_without_steps_the_same_under_jit():
    starts = stack(*(start for _, start, *_ in STOPPED.values()))
    samples = stack(*(data for data, *_ in STOPPED.values()))
    fits = under_trace(
        lambda f: jax.jit(jax.vmap(f)),
        lambda start, data: jm.fit(zoo, start, data, max_steps=0),
        starts,
        samples,
    )
    assert [fits[i].verdict for i in range(2)] == [status for *_, status, _ in STOPPED.values()]
    assert np.isnan(fits.se).all()


def test_a_start_on_a_saddle_climbs_off_it():
    """Bounded above by a quartic, the saddle at (1, 1) has maxima on both sides."""

    def double_well(params, data):
        b = params["b"]
        return data * (-((params["a"] - 1) ** 2) + b**2 - b**4)

    fit = jm.fit(double_well, {"a": 1.0, "b": 0.0}, np.ones(4))
    assert fit.converged, fit.explain()
    assert_allclose(abs(fit.params["b"]), np.sqrt(0.5), rtol=1e-8)


# ---------------------------------------------------------------- bounds


def exponential(params, data):
    return jax.scipy.special.xlogy(data["event"], params["rate"]) - params["rate"] * data["time"]


@pytest.mark.thorough
def test_a_rate_without_an_event_is_on_its_bound_alone_and_in_a_batch():
    time = np.linspace(0.5, 3.0, N)
    sound = {"time": time, "event": (np.arange(N) % 3 == 0).astype(float)}
    empty = {"time": time, "event": np.zeros(N)}

    def run(data):
        return jm.fit(exponential, {"rate": 1.0}, data, constraints={"rate": jm.positive})

    fits = under_trace(jax.vmap, run, stack(sound, empty))
    for alone, member in ((run(sound), fits[0]), (run(empty), fits[1])):
        assert member.verdict == alone.verdict
        assert_allclose(member.x, alone.x, rtol=1e-9)
        assert_allclose(member.se, alone.se, rtol=1e-6)
    assert fits[0].verdict == Status.CONVERGED
    assert_allclose(fits[0].params["rate"], sound["event"].sum() / time.sum(), rtol=1e-9)
    assert fits[1].verdict == Status.BOUNDARY
    assert fits[1].params["rate"] == 0.0
    assert np.isnan(fits[1].stderr["rate"])
    assert "rate = 0" in fits[1].explain()
    assert int(fits[1].witness.bound[0]) == -1


# ---------------------------------------------------------------- values that are not finite


def test_a_term_that_is_not_finite_at_the_start_names_its_row():
    y = np.array([1.0, 2.0, -3.0, 4.0])
    fit = jm.fit(lambda p, d: p["a"] * jnp.log(d) - p["a"] ** 2, {"a": 0.0}, y)
    assert fit.verdict == Status.NONFINITE
    assert int(fit.witness.row) == 2
    assert "row 2" in fit.explain()
    assert np.isnan(fit.se).all()


def test_trial_points_that_are_not_finite_are_stepped_back_from():
    """ℓ = log a − a: a full Newton step from a = 3 lands at a = −3, where the logarithm does not exist."""
    fit = jm.fit(lambda p, d: jnp.log(p["a"]) - p["a"] * d, {"a": 3.0}, np.ones(4))
    assert fit.converged, fit.explain()
    assert_allclose(fit.params["a"], 1.0, rtol=1e-10)
    assert_allclose(fit.stderr["a"], 0.5, rtol=1e-8)


# ---------------------------------------------------------------- maxima of rounding


def negative_binomial_by_size(params, data):
    """Differences of log Γ lose every digit where the size goes to infinity, as it does on counts that vary less than Poisson's."""
    gammaln, size, mu = jax.scipy.special.gammaln, params["size"], params["mu"]
    return (
        gammaln(data + size)
        - gammaln(size)
        - gammaln(data + 1)
        + size * jnp.log(size / (size + mu))
        + data * jnp.log(mu / (size + mu))
    )


def underdispersed(samples=8, rows=50):
    rng = np.random.default_rng(0)
    found = []
    while len(found) < samples:
        y = rng.binomial(5, 0.4, size=rows).astype(float)
        if y.var() < y.mean():
            found.append(y)
    return np.stack(found)


BOTH_POSITIVE = {"size": jm.positive, "mu": jm.positive}


@pytest.mark.parametrize("size", [pytest.param(2.0, marks=pytest.mark.thorough), 50.0, 1e4])
def test_underdispersed_counts_never_give_a_size_that_looks_found(size):
    y = underdispersed()
    start = {"size": size, "mu": 1.0}
    batch = jm.fit_batch(negative_binomial_by_size, start, y, constraints=BOTH_POSITIVE)
    alone = [
        jm.fit(negative_binomial_by_size, start, sample, constraints=BOTH_POSITIVE) for sample in y
    ]
    for fit in [*alone, *(batch[i] for i in range(len(y)))]:
        assert fit.verdict != Status.CONVERGED, (
            fit.explain()
        )  # SEPARATED where the digits last; else what rounding makes of it
        assert np.isnan(fit.stderr["size"])


def test_a_wide_interval_on_a_logarithm_is_believed_where_the_likelihood_bears_it_out():
    """A rate of which little is known: 1 SE of its logarithm is 5, and ℓ is a parabola there by construction."""

    def vague(params, data):
        return -0.5 * (jnp.log(params["rate"]) / 5.0) ** 2 + 0.0 * data

    fit = jm.fit(vague, {"rate": 20.0}, np.zeros(1), constraints={"rate": jm.positive})
    assert fit.verdict == Status.CONVERGED
    assert_allclose([fit.params["rate"], fit.stderr["rate"]], [1.0, 5.0], rtol=1e-8)


@pytest.mark.parametrize("share", [0.3, 0.05, 0.01, 0.001])
def test_an_estimate_near_its_bound_is_an_estimate(share):
    """A background that is a small share of its standard error above zero: the parabola is in the parameter, not in its logarithm."""

    def near(params, data):
        return -0.5 * (params["b"] - share) ** 2 + 0.0 * data

    fit = jm.fit(near, {"b": 1.0}, np.zeros(1), constraints={"b": jm.positive})
    assert fit.verdict == Status.CONVERGED, fit.explain()
    assert_allclose(fit.params["b"], share, rtol=0, atol=1e-8)  # in standard errors
    assert_allclose(fit.stderr["b"], 1.0, rtol=1e-6)


def test_a_mean_below_its_bound_is_on_it_however_near():
    """Means of −1 to −1e-9: beside the bound the tail e⁻²ᵗ turns into e⁻ᵗ, which is half as fast."""
    samples = np.random.default_rng(1).normal(size=(400, 10))
    samples -= np.logspace(-9, 0, 400)[:, None] + samples.mean(axis=1, keepdims=True)

    def near(p, d):
        return -0.5 * ((d - p["mu"]) / p["sigma"]) ** 2 - jnp.log(p["sigma"])

    fits = jm.fit_batch(
        near,
        {"mu": 1.0, "sigma": 1.0},
        samples,
        constraints={"mu": jm.positive, "sigma": jm.positive},
        progress=False,
    )
    assert_array_equal(fits.status, int(Status.BOUNDARY))
    assert_array_equal(fits.x[:, 0], 0.0)
    assert_array_equal(fits.witness.bound, np.tile([-1, 0], (400, 1)))
    sigma = np.sqrt(np.mean(samples**2, axis=1))
    assert_allclose(fits.x[:, 1], sigma, rtol=1e-7)
    assert_allclose(fits.se[:, 1], sigma / np.sqrt(20), rtol=1e-6)


@pytest.mark.thorough
def test_beside_a_bound_the_sign_of_the_mean_decides():
    """Normal samples with a mean that must be positive: BOUNDARY where it is negative, and then σ keeps its standard error and its functions theirs."""
    samples = np.random.default_rng(0).normal(size=(400, 10))
    samples += np.linspace(-0.01, 0.01, 400)[:, None] - samples.mean(axis=1, keepdims=True)

    def near(p, d):
        return -0.5 * ((d - p["mu"]) / p["sigma"]) ** 2 - jnp.log(p["sigma"])

    for unit in (1.0, 1e-9):
        fits = jm.fit_batch(
            near,
            {"mu": unit, "sigma": unit},
            unit * samples,
            constraints={"mu": jm.positive, "sigma": jm.positive},
            progress=False,
        )
        assert_array_equal(
            fits.status,
            np.where(samples.mean(axis=1) < 0, int(Status.BOUNDARY), int(Status.CONVERGED)),
        )
    bound = fits[0]
    assert_array_equal(bound.x[0], 0.0)
    assert_allclose(
        jm.delta(lambda p: p["sigma"] ** 2, bound).stderr, 2 * bound.x[1] * bound.se[1], rtol=1e-9
    )
    assert np.isnan(jm.delta(lambda p: p["mu"] + p["sigma"], bound).stderr)


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1e9, 1e12])
def test_no_unit_of_measurement_is_strange(unit):
    data = linear_data(77)
    fit = jm.fit(
        normal_regression,
        {"beta": np.zeros(3), "sigma": unit},
        {"x": data["x"], "y": unit * data["y"]},
        constraints={"sigma": jm.positive},
    )
    plain = jm.fit(normal_regression, BETA_SIGMA, data, constraints={"sigma": jm.positive})
    assert fit.verdict == Status.CONVERGED, fit.explain()
    assert_allclose(fit.se / unit, plain.se, rtol=1e-7)


def test_level_ground_beside_a_bound_is_no_maximum():
    """From a dispersion of 0.05 two steps leap to 1e-29, where any point has a score of zero: CONVERGED said 6e-32 ± 1e-15 here."""
    rng, b, n, a = np.random.default_rng(0), 4000, 60, 0.15
    x = np.concatenate([np.ones((b, n, 1)), rng.normal(size=(b, n, 1))], axis=2)
    y = rng.poisson(np.exp(x @ [0.7, 0.4]) * rng.gamma(1 / a, a, size=(b, n))).astype(float)
    for member in (131, 245, 246):
        fit = jm.fit(
            jm.models.negative_binomial(),
            {"beta": np.zeros(2), "alpha": 0.05},
            {"x": x[member], "y": y[member]},
        )
        assert not fit.converged, str(fit)
        assert np.isnan(fit.stderr["alpha"])


@pytest.mark.parametrize(("model", "reach"), [("logistic", 80.0), ("poisson", 30.0)])
def test_a_concave_likelihood_has_its_maximum_from_any_start(model, reach):
    """A start at −54 was called UNBOUNDED with ℓ = inf, one at −60 STALLED; means of e⁷⁰ were called a collapse."""
    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(40), rng.normal(size=40)])
    y = (
        rng.random(40) < 1 / (1 + np.exp(-x @ [0.3, 1.5]))
        if model == "logistic"
        else rng.poisson(np.exp(x @ [1.0, 0.5]))
    )
    starts = np.concatenate(
        [rng.uniform(-reach, reach, size=(900, 2)), [[-54.2, -0.7], [-60.0, 0.0]]]
    )
    fits = jm.fit_batch(
        getattr(jm.models, model)(),
        {"beta": starts},
        {"x": x, "y": y.astype(float)},
        in_axes=None,
        params_axis=0,
        progress=False,
    )
    assert fits.converged.all()
    assert_allclose(
        fits.x, np.broadcast_to(fits.x[0], (902, 2)), rtol=0, atol=1e-7 * fits.se[0].min()
    )


def test_a_recession_that_is_not_proved_says_so():
    """Squared error on a binary outcome is not concave: it has a lower maximum, whose standard error of 29 reaches past a higher one.
    A fit that ended there goes on to that; and where the outcome is separated, it says that its recession was seen along the climb only.
    """
    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(40), rng.normal(size=40)])
    data = {"x": x, "y": (rng.random(40) < 1 / (1 + np.exp(-x @ [0.3, 1.5]))).astype(float)}

    def brier(p, d):
        return -((d["y"] - jax.nn.sigmoid(d["x"] @ p["beta"])) ** 2)

    far, near = (
        jm.fit(brier, {"beta": np.array(start)}, data) for start in ([12.0, 0.0], [0.0, 1.0])
    )
    assert near.converged and far.converged
    assert_allclose(far.loglik, near.loglik, rtol=1e-12)
    lower = np.array([-2.45060906, 17.36251658])
    with jax.enable_x64(True):
        hessian, score = two_derivatives(lambda beta: brier({"beta": beta}, data).sum())(lower)
        height = float(brier({"beta": lower}, data).sum())
    assert np.linalg.norm(score) < 1e-6 and np.all(np.linalg.eigvalsh(hessian) < 0)
    assert height < far.loglik - 0.1
    separated = {"x": x, "y": (x[:, 1] > 0.3).astype(float)}
    fit = jm.fit(brier, {"beta": np.array([0.0, 1.0])}, separated)
    assert fit.verdict == Status.SEPARATED and "is not proved" in fit.explain()


def test_a_row_whose_derivative_is_nan_though_every_term_is_finite_is_named():
    """``where`` over log 0: the value at row 3 is sound, its score NaN. In a fit, in a batch, and below weights."""
    y = np.array([0.2, 0.5, 0.7, 0.0, 0.4, 0.9])

    def inflated(p, y):
        inside = jnp.log1p(-p["zero"]) + p["a"] * jnp.log(y) + jnp.log1p(p["a"])
        return jnp.where(y == 0, jnp.log(p["zero"]), inside)

    start, held = {"a": 2.0, "zero": 0.1}, {"a": jm.positive, "zero": jm.interval(0, 1)}
    alone = jm.fit(inflated, start, y, constraints=held)
    assert alone.verdict.name == "NONFINITE" and "row 3" in alone.explain()
    heavy = jm.fit(inflated, start, y, constraints=held, weights=jm.frequency(np.arange(1.0, 7.0)))
    assert "row 3" in heavy.explain()
    pair = np.stack([y, y[::-1]])
    both = jm.fit_batch(inflated, start, pair, constraints=held, progress=False)
    assert both.witness.row.tolist() == [3, 2]
