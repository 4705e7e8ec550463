"""The maximum and its covariance on the user's scale do not depend on the map under which the solver moved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from numpy.testing import assert_allclose
from scipy.special import expit

import jaxmle as jm
from tests.likelihoods import multinomial, normal

RNG = np.random.default_rng(11)
Y = RNG.normal(2.0, 3.0, size=40)
N, MEAN, SD = len(Y), Y.mean(), Y.std()  # SD with divisor n is the MLE


def normal_in_log_sigma(params, data):
    return norm.logpdf(data, params["mu"], jnp.exp(params["log_sigma"]))


def normal_in_variance(params, data):
    return norm.logpdf(data, params["mu"], jnp.sqrt(params["variance"]))


SIGMA = {
    "positive": jm.positive,
    "lower": jm.lower(0),
    "interval": jm.interval(0, 100),
    "tight interval": jm.interval(2, 4),
    "none": None,
}


@pytest.mark.parametrize("name", SIGMA)
def test_the_mle_of_sigma_does_not_depend_on_its_constraint(name):
    fit = jm.fit(normal, {"mu": 0.0, "sigma": 2.5}, Y, constraints={"sigma": SIGMA[name]})
    assert fit.converged
    assert_allclose(fit.x, [MEAN, SD], rtol=1e-9)
    assert_allclose(fit.vcov, np.diag([SD**2 / N, SD**2 / (2 * N)]), rtol=1e-8, atol=1e-8)
    assert_allclose(fit.loglik, -N / 2 * (np.log(2 * np.pi * SD**2) + 1), rtol=1e-13)


def test_the_mle_is_equivariant_under_reparametrisation():
    fit = jm.fit(normal_in_log_sigma, {"log_sigma": 1.0, "mu": 0.0}, Y)
    assert_allclose(fit.params["log_sigma"], np.log(SD), rtol=1e-9)
    assert_allclose(fit.stderr["log_sigma"], 1 / np.sqrt(2 * N), rtol=1e-8)
    squared = jm.fit(
        normal_in_variance, {"mu": 0.0, "variance": 5.0}, Y, constraints={"variance": jm.positive}
    )
    assert_allclose(squared.params["variance"], SD**2, rtol=1e-9)
    assert_allclose(squared.stderr["variance"], SD**2 * np.sqrt(2 / N), rtol=1e-8)
    assert_allclose(squared.loglik, fit.loglik, rtol=1e-14)


def test_a_negative_parameter_mirrors_a_positive_one():
    def mirrored(params, data):
        return norm.logpdf(data, params["mu"], -params["minus"])

    for constraint in (jm.negative, jm.upper(0), jm.interval(-50, 0)):
        fit = jm.fit(mirrored, {"minus": -1.0, "mu": 0.0}, Y, constraints={"minus": constraint})
        assert_allclose(fit.x, [-SD, MEAN], rtol=1e-9)
        assert_allclose(fit.stderr["minus"], SD / np.sqrt(2 * N), rtol=1e-8)


def test_the_delta_method_covariance_on_the_users_scale_equals_finite_differences_of_the_map():
    """Sandwich kinds go through the same map: V_user = T V_free T', T by central differences."""
    for kind in ("HC0", "opg"):
        free = jm.fit(normal_in_log_sigma, {"log_sigma": 1.0, "mu": 0.0}, Y, vcov=kind)
        user = jm.fit(
            normal, {"mu": 0.0, "sigma": 2.5}, Y, constraints={"sigma": jm.positive}, vcov=kind
        )
        log_sigma, step = free.params["log_sigma"], 1e-6
        slope = (np.exp(log_sigma + step) - np.exp(log_sigma - step)) / (2 * step)
        transform = np.array([[0.0, 1.0], [slope, 0.0]])
        assert_allclose(user.vcov, transform @ free.vcov @ transform.T, rtol=1e-8, err_msg=kind)


PAIRS = RNG.multivariate_normal([1.0, -2.0], [[4.0, 1.5], [1.5, 2.0]], size=50)


def log_density(y, mean, cov):
    """The bivariate normal, written out."""
    a, b = y[:, 0] - mean[0], y[:, 1] - mean[1]
    det = cov[0, 0] * cov[1, 1] - cov[0, 1] * cov[1, 0]
    square = (cov[1, 1] * a**2 - (cov[0, 1] + cov[1, 0]) * a * b + cov[0, 0] * b**2) / det
    return -jnp.log(2 * jnp.pi) - 0.5 * jnp.log(det) - 0.5 * square


def bivariate(params, data):
    return log_density(data, params["mean"], params["cov"])


def bivariate_by_correlation(params, data):
    scale = jnp.outer(params["sd"], params["sd"])
    return log_density(data, params["mean"], scale * params["corr"])


def wishart_variances(s, n):
    """Asymptotic variance of the (0,0), (1,0), (1,1) entries of a normal MLE covariance: (s_ij² + s_ii s_jj)/n."""
    return np.array([2 * s[0, 0] ** 2, s[1, 0] ** 2 + s[0, 0] * s[1, 1], 2 * s[1, 1] ** 2]) / n


def test_the_covariance_of_a_bivariate_normal_is_the_sample_covariance():
    start = {"cov": np.diag([3.0, 3.0]), "mean": np.zeros(2)}
    fit = jm.fit(bivariate, start, PAIRS, constraints={"cov": jm.covariance})
    sample = np.cov(PAIRS.T, bias=True)
    assert fit.converged and fit.df == 5
    assert_allclose(fit.params["cov"], sample, rtol=1e-8)
    assert_allclose(fit.params["mean"], PAIRS.mean(axis=0), rtol=1e-8)
    assert_allclose(fit.se[:3] ** 2, wishart_variances(sample, len(PAIRS)), rtol=1e-7)
    assert_allclose(fit.vcov[3:, 3:], sample / len(PAIRS), rtol=1e-7)


def test_a_correlation_matrix_gives_pearsons_r_and_its_standard_error():
    start = {"corr": np.eye(2), "mean": np.zeros(2), "sd": np.ones(2)}
    fit = jm.fit(
        bivariate_by_correlation,
        start,
        PAIRS,
        constraints={"corr": jm.correlation, "sd": jm.positive},
    )
    r = np.corrcoef(PAIRS.T)[0, 1]
    assert fit.names[0] == "corr[1,0]" and fit.df == 5
    assert_allclose(fit.params["corr"], [[1, r], [r, 1]], rtol=1e-8)
    assert_allclose(fit.se[0], (1 - r**2) / np.sqrt(len(PAIRS)), rtol=1e-7)
    assert_allclose(fit.params["sd"], PAIRS.std(axis=0), rtol=1e-8)
    assert np.all(np.isnan(np.diag(fit.stderr["corr"])))


COUNTS = np.array([12.0, 30.0, 18.0])


def test_simplex_probabilities_are_frequencies_with_the_multinomial_covariance():
    rows = np.repeat(np.eye(3), COUNTS.astype(int), axis=0)
    fit = jm.fit(multinomial, {"p": np.full(3, 1 / 3)}, rows, constraints={"p": jm.simplex})
    n, p = COUNTS.sum(), COUNTS / COUNTS.sum()
    assert fit.converged and fit.df == 2 and fit.n == n
    assert_allclose(fit.params["p"], p, rtol=1e-9)
    assert_allclose(fit.vcov, (np.diag(p) - np.outer(p, p)) / n, rtol=1e-8)
    assert_allclose(
        fit.vcov.sum(axis=1), 0, atol=1e-15
    )  # singular by construction: the probabilities sum to one
    assert_allclose(fit.loglik, np.sum(COUNTS * np.log(p)), rtol=1e-12)


def cumulative_logit(params, data):
    cumulative = jnp.concatenate([jnp.zeros(1), jax.nn.sigmoid(params["cut"]), jnp.ones(1)])
    return jnp.log(jnp.diff(cumulative)[data])


def test_ordered_cutpoints_are_the_logits_of_cumulative_frequencies():
    """Without a regressor the model is saturated: cut_j = logit F_j; cov(F_i, F_j) = F_i(1 − F_j)/n."""
    y = np.repeat(np.arange(4), [5, 12, 20, 13])
    fit = jm.fit(
        cumulative_logit, {"cut": np.array([-1.0, 0.0, 1.0])}, y, constraints={"cut": jm.ordered}
    )
    cumulative = np.cumsum([5, 12, 20])[:3] / 50
    assert fit.converged and fit.bounds == ((-np.inf, np.inf),) * 3
    assert_allclose(expit(fit.params["cut"]), cumulative, rtol=1e-9)
    of_f = (
        np.minimum.outer(cumulative, cumulative)
        * (1 - np.maximum.outer(cumulative, cumulative))
        / 50
    )
    slope = np.diag(1 / (cumulative * (1 - cumulative)))
    assert_allclose(fit.vcov, slope @ of_f @ slope, rtol=1e-8)


def test_wald_intervals_follow_the_printed_bounds_not_the_transform():
    """The scale of an interval comes from the declared bounds: log for (0, ∞), the identity for ``ordered`` and the unbounded."""
    fit = jm.fit(normal, {"mu": 0.0, "sigma": 2.5}, Y, constraints={"sigma": jm.positive})
    z = 1.959963984540054
    ends = fit.conf_int(0.95)
    assert_allclose(ends["sigma"], SD * np.exp(np.array([-z, z]) / np.sqrt(2 * N)), rtol=1e-8)
    assert_allclose(ends["mu"], MEAN + np.array([-z, z]) * SD / np.sqrt(N), rtol=1e-8)
    assert_allclose(
        fit.conf_int(0.95, scale="user")["sigma"],
        SD + np.array([-z, z]) * SD / np.sqrt(2 * N),
        rtol=1e-8,
    )


def test_a_pytree_of_parameters_gives_the_same_fit_whatever_its_form():
    """A list holds the same numbers as a dictionary."""

    def as_list(params, data):
        return norm.logpdf(data, params[0], params[1])

    fit = jm.fit(as_list, [0.0, 2.5], Y, constraints=[None, jm.positive])
    assert isinstance(fit.params, list) and fit.names == ("[0]", "[1]")
    assert_allclose(fit.x, [MEAN, SD], rtol=1e-9)
    assert_allclose(fit.se, [SD / np.sqrt(N), SD / np.sqrt(2 * N)], rtol=1e-8)
