"""Reference cases without a regular maximum: each fit must name its kind of failure and print no number that means nothing."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln, xlogy
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import Status
from tests.tolerances import ESTIMATE_IN_SE, LOGLIK, STDERR, SUPREMUM

from . import densities as log
from .oracle import design, expected, table

FILES = [
    "s40a_logit_complete_separation",
    "s40b_logit_constant_response",
    "s40c_poisson_all_zero",
    "s40d_exponential_all_censored",
    "s40e_cauchy_location_multimodal",
    "s40f_mixture_collapse",
    "s40g_gaussian_n_less_than_p",
    "s40h_poisson_dummy_trap",
    "s40i_negbin_underdispersed",
]


def logistic(params, data):
    return log.bernoulli(data["y"], params["a"] + params["b"] * data["x"])


@pytest.mark.parametrize("name", ["s40a_logit_complete_separation", "s40b_logit_constant_response"])
def test_separated_logit_has_no_estimate_with_a_standard_error(name):
    fit = jm.fit(logistic, {"a": 0.0, "b": 0.0}, table(name))
    assert fit.verdict == Status.SEPARATED, fit.explain()
    assert not fit.converged
    assert_allclose(fit.loglik, expected(name)["loglik_supremum"], atol=SUPREMUM)
    assert np.isnan(fit.se).all()


@pytest.mark.parametrize("solver", [jm.solvers.BHHH(), jm.solvers.LBFGS()], ids=["BHHH", "LBFGS"])
@pytest.mark.parametrize("name", ["s40a_logit_complete_separation", "s40b_logit_constant_response"])
def test_no_solver_calls_a_separated_logit_converged(name, solver):
    fit = jm.fit(logistic, {"a": 0.0, "b": 0.0}, table(name), solver=solver)
    assert not fit.converged, fit.summary()
    assert np.isnan(fit.stderr["a"])


def test_poisson_without_a_count_is_separated_in_the_log_rate():
    fit = jm.fit(
        lambda params, data: log.poisson(data["y"], params["a"]),
        {"a": 0.0},
        table("s40c_poisson_all_zero"),
    )
    assert fit.verdict == Status.SEPARATED, fit.explain()
    assert_allclose(fit.loglik, 0.0, atol=SUPREMUM)
    assert np.isnan(fit.se).all()


def poisson_rate(params, data):
    return xlogy(data["y"], params["rate"]) - params["rate"] - gammaln(data["y"] + 1)


def exponential_rate(params, data):
    return xlogy(data["event"], params["rate"]) - params["rate"] * data["time"]


@pytest.mark.parametrize(
    ("name", "loglik"),
    [("s40c_poisson_all_zero", poisson_rate), ("s40d_exponential_all_censored", exponential_rate)],
)
def test_a_rate_without_an_event_lies_on_its_bound(name, loglik):
    fit = jm.fit(loglik, {"rate": 1.0}, table(name), constraints={"rate": jm.positive})
    assert fit.verdict == Status.BOUNDARY, fit.explain()
    assert fit.params["rate"] == 0.0
    assert_allclose(fit.loglik, expected(name)["loglik_supremum"], atol=SUPREMUM)
    assert np.isnan(fit.se).all()


def cauchy(params, data):
    return -jnp.log1p((data["x"] - params["m"]) ** 2) - jnp.log(jnp.pi)


@pytest.mark.parametrize(("start", "which"), [(-8.5, 0), (0.0, 1), (8.5, 2)])
def test_cauchy_location_from_a_start_near_a_maximum_reaches_it(start, which):
    maximum = expected("s40e_cauchy_location_multimodal")["local_maxima"][which]
    fit = jm.fit(cauchy, {"m": start}, table("s40e_cauchy_location_multimodal"))
    assert fit.verdict == Status.CONVERGED, fit.explain()
    assert_allclose(
        fit.params["m"], maximum["m"], rtol=0, atol=ESTIMATE_IN_SE * maximum["se_observed"]
    )
    assert_allclose(fit.loglik, maximum["loglik"], rtol=0, atol=LOGLIK * abs(maximum["loglik"]))
    assert_allclose(fit.se, maximum["se_observed"], rtol=STDERR)


@pytest.mark.parametrize("start", [-20.0, -4.0, 3.0, 5.0, 30.0])
def test_cauchy_location_from_anywhere_reaches_a_maximum_of_the_file(start):
    """Which of the three is the path's choice; each start ends at one."""
    maxima = expected("s40e_cauchy_location_multimodal")["local_maxima"]
    fit = jm.fit(cauchy, {"m": start}, table("s40e_cauchy_location_multimodal"))
    assert fit.verdict == Status.CONVERGED, fit.explain()
    nearest = min(maxima, key=lambda maximum: abs(maximum["m"] - fit.params["m"]))
    assert_allclose(
        fit.params["m"], nearest["m"], rtol=0, atol=ESTIMATE_IN_SE * nearest["se_observed"]
    )


def two_normals(params, data):
    first = jnp.log(params["w"]) + log.normal(data["x"], params["m1"], params["sd1"])
    second = jnp.log1p(-params["w"]) + log.normal(data["x"], params["m2"], params["sd2"])
    return jnp.logaddexp(first, second)


def test_a_mixture_that_collapses_on_one_observation_is_unbounded():
    x = table("s40f_mixture_collapse")["x"]
    start = {"w": 0.5, "m1": x[4], "sd1": 1e-4, "m2": x.mean(), "sd2": x.std()}
    constraints = {"w": jm.interval(0.0, 1.0), "sd1": jm.positive, "sd2": jm.positive}
    fit = jm.fit(two_normals, start, {"x": x}, constraints=constraints)
    assert fit.verdict == Status.UNBOUNDED, fit.explain()
    assert int(fit.witness.row) == 4
    assert "row 4" in fit.explain()
    assert np.isnan(fit.se).all()
    assert np.isnan(fit.x).all()
    assert fit.loglik == np.inf


def test_a_perfect_linear_fit_is_unbounded():
    columns = table("s40g_gaussian_n_less_than_p")
    data = {"y": columns["y"], "x": np.column_stack([columns[f"x{j}"] for j in range(6)])}

    def loglik(params, data):
        return log.normal(data["y"], data["x"] @ params["beta"], params["sigma"])

    fit = jm.fit(
        loglik, {"beta": np.zeros(6), "sigma": 1.0}, data, constraints={"sigma": jm.positive}
    )
    assert fit.verdict == Status.UNBOUNDED, fit.explain()
    assert np.isnan(fit.se).all()
    assert np.isnan(fit.x).all()
    assert fit.loglik == np.inf


def test_the_dummy_trap_is_unidentified_and_its_contrasts_are_right():
    columns = table("s40h_poisson_dummy_trap")
    file, data = (
        expected("s40h_poisson_dummy_trap"),
        {"y": columns["y"], "x": design(columns, "a", "even", "odd")},
    )

    def loglik(params, data):
        return log.poisson(data["y"], data["x"] @ params["beta"])

    fit = jm.fit(loglik, {"beta": np.zeros(4)}, data)
    assert fit.verdict == Status.UNIDENTIFIED, fit.explain()
    assert_allclose(fit.loglik, file["loglik"], rtol=0, atol=LOGLIK * abs(file["loglik"]))
    assert list(np.isnan(fit.se)) == [True, False, True, True]
    contrasts = jm.delta(
        lambda p: jnp.stack(
            [p["beta"][1], p["beta"][0] + p["beta"][2], p["beta"][0] + p["beta"][3]]
        ),
        fit,
    )
    told = file["identified"]
    se = np.asarray([told["se_b1"], told["se_const+b2"], told["se_const+b3"]])
    # One package alone, stopped by its own rule: 1e-6 standard errors and 1e-6 relative are within its digits.
    assert_allclose(contrasts.stderr, se, rtol=STDERR)
    assert_allclose(
        contrasts.estimate,
        [told["b1"], told["const+b2"], told["const+b3"]],
        rtol=0,
        atol=ESTIMATE_IN_SE * se.min(),
    )
    assert np.isnan(jm.delta(lambda p: p["beta"][2], fit).stderr)


def counts_product(params, data):
    """NB(mu, alpha) by Γ(y + 1/alpha) alpha^y / Γ(1/alpha) = Π_{j<y} (1 + alpha j): no cancellation as alpha falls to 0."""
    y, mu, alpha = data["y"], params["mu"], params["alpha"]
    j = jnp.arange(3.0)  # the largest count is 3
    product = jnp.sum(
        jnp.where(j[None, :] < y[:, None], jnp.log1p(alpha * j)[None, :], 0.0), axis=1
    )
    return product + y * jnp.log(mu) - (y + 1 / alpha) * jnp.log1p(alpha * mu) - gammaln(y + 1)


def counts_gamma(params, data):
    return log.negative_binomial(data["y"], jnp.log(params["mu"]), 1 / params["alpha"])


def test_underdispersed_counts_put_the_dispersion_on_its_bound():
    file, data = expected("s40i_negbin_underdispersed"), table("s40i_negbin_underdispersed")
    constraints = {"mu": jm.positive, "alpha": jm.positive}
    fit = jm.fit(counts_product, {"mu": 1.0, "alpha": 1.0}, data, constraints=constraints)
    assert fit.verdict == Status.BOUNDARY, fit.explain()
    assert fit.params["alpha"] == 0.0
    assert np.isnan(fit.stderr["alpha"])
    assert_allclose(fit.loglik, file["loglik"], atol=1e-6)
    # On the bound the model is Poisson: the mean, with variance mu / n.
    assert_allclose(fit.params["mu"], file["estimates"]["mu"], rtol=1e-6)
    assert_allclose(fit.stderr["mu"], np.sqrt(file["estimates"]["mu"] / len(data["y"])), rtol=1e-5)


def test_underdispersed_counts_written_with_gamma_functions_are_not_called_converged():
    data, start = table("s40i_negbin_underdispersed"), {"mu": 1.0, "alpha": 1.0}
    fit = jm.fit(counts_gamma, start, data, constraints={"mu": jm.positive, "alpha": jm.positive})
    assert not fit.converged, fit.explain()
    assert np.isnan(fit.stderr["alpha"])
