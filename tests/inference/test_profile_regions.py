"""Joint regions: contours of the profile of two parameters, and simultaneous intervals."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle.inference.profiles.contour import contour
from jaxmle.inference.profiles.root_finder import End
from jaxmle.inference.profiles.simultaneous import simultaneous
from tests.likelihoods import normal_kernel

CUT = -2 * np.log(0.05)  # chi-square, two degrees of freedom, 0.95
Y = np.random.default_rng(1).normal(3, 2, size=40)
X = np.column_stack([np.ones(40), np.random.default_rng(2).normal(size=40)])
SIGMA = {"sigma": jm.positive}


def line(params, data):
    return normal_kernel({"mu": data["x"] @ params["beta"], "sigma": params["sigma"]}, data["y"])


LINE = {"beta": np.zeros(2), "sigma": 2.0}
DATA = {"x": X, "y": Y}


@pytest.fixture(scope="module")
def fitted():
    return jm.fit(line, LINE, DATA, constraints=SIGMA)


def test_a_contour_of_two_parameters_lies_on_the_cut():
    """With no other parameter the profile is the likelihood itself: n[2 log(σ/s) + (s² + (μ − ȳ)²)/σ² − 1]."""
    fit = jm.fit(normal_kernel, {"mu": 0.0, "sigma": 1.0}, Y, constraints=SIGMA)
    found = contour(normal_kernel, fit, Y, ("mu", "sigma"), points=12)
    mu, sigma = found.curve.T
    deviance = 40 * (2 * np.log(sigma / Y.std()) + (Y.var() + (mu - Y.mean()) ** 2) / sigma**2 - 1)
    assert_allclose(deviance, CUT, atol=1e-7)
    assert np.all(np.abs(found.error) <= 1e-8) and np.all(found.status == End.FOUND)
    assert found.closed.shape == (13, 2) and np.all(found.closed[0] == found.closed[-1])


def test_a_contour_profiles_the_other_parameters_out(fitted):
    """For two coefficients with σ at its maximum: n log(RSS(β)/RSS(β̂)) = χ²₂, an ellipse."""
    found = contour(line, fitted, DATA, ("beta[0]", "beta[1]"), points=8)

    def rss(b):
        return np.sum((Y[:, None] - X @ b) ** 2, axis=0)

    assert_allclose(40 * np.log(rss(found.curve.T) / rss(found.estimate[:, None])), CUT, atol=1e-7)


@pytest.mark.thorough
def test_contours_of_a_batch_are_those_of_its_members(fitted):
    stack = {"x": np.stack([X, X]), "y": np.stack([Y, Y**2 / 4])}
    fits = jm.fit_batch(line, LINE, stack, constraints=SIGMA, progress=False)
    found = contour(line, fits, stack, ("beta[1]", "sigma"), points=8)
    assert found.curve.shape == (2, 8, 2)
    assert_allclose(
        found.curve[0],
        contour(line, fitted, DATA, ("beta[1]", "sigma"), points=8).curve,
        rtol=1e-6,
        atol=1e-7,
    )


@pytest.mark.parametrize(
    ("pair", "error", "told"),
    [
        (("beta", "sigma"), ValueError, "2 entries"),
        (("sigma", "sigma"), ValueError, "one parameter"),
        ("sigma", TypeError, "two parameters"),
        (("beta[0]", "tau"), ValueError, "no parameter"),
    ],
)
def test_a_pair_that_is_none_is_refused(fitted, pair, error, told):
    with pytest.raises(error, match=told):
        contour(line, fitted, DATA, pair)


def test_bonferroni_shares_the_error_among_the_parameters(fitted):
    found = simultaneous(fitted, 0.94)
    assert_allclose(found.interval(), fitted.interval(0.98), rtol=1e-12)
    assert found.count == 3 and found.critical_error == 0
    assert found.conf_int()["beta"].shape == (2, 2) and "bonferroni" in str(found)


def test_sup_t_of_independent_estimates_is_that_of_sidak(fitted):
    """max |z| of m independent normals exceeds c with probability 1 − (2Φ(c) − 1)^m."""
    from scipy.stats import norm

    se = np.array([1.0, 2.0, 0.5])
    found = simultaneous(fitted.with_vcov(np.diag(se**2)), method="sup-t", key=3)
    assert_allclose(
        found.critical, norm.ppf(0.5 + 0.95 ** (1 / 3) / 2), atol=4 * found.critical_error
    )
    assert 0 < found.critical_error < 0.01
    assert_allclose(
        found.interval()[:2], fitted.x[:2, None] + found.critical * se[:2, None] * np.array([-1, 1])
    )


def test_sup_t_of_one_direction_is_a_single_interval(fitted):
    """Estimates that move together are covered together: the critical value is that of one."""
    direction = np.array([1.0, -2.0, 0.5])
    found = simultaneous(fitted.with_vcov(np.outer(direction, direction)), method="sup-t")
    assert_allclose(found.critical, 1.959964, atol=4 * found.critical_error)


def test_sup_t_of_correlated_estimates_covers_them_jointly(fitted):
    """P(max |z| ≤ c) of the trivariate normal with that correlation, by numerical integration, is the level."""
    from scipy.stats import multivariate_normal

    corr = np.array([[1.0, 0.8, -0.3], [0.8, 1.0, 0.1], [-0.3, 0.1, 1.0]])
    found = simultaneous(
        fitted.with_vcov(corr * np.outer([2.0, 0.1, 1.0], [2.0, 0.1, 1.0])), 0.9, "sup-t", key=1
    )
    c = np.full(3, found.critical)
    inside = multivariate_normal(cov=corr).cdf(c, lower_limit=-c)
    assert_allclose(
        inside, 0.9, atol=4 * np.sqrt(0.09 / 2**17) + 1e-4
    )  # the binomial error of the share of draws inside


def test_simultaneous_intervals_of_a_batch_are_those_of_its_members(fitted):
    fits = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), fitted)
    found = simultaneous(fits, method="sup-t", draws=2048)
    assert found.critical.shape == (2,) and found.conf_int()["beta"].shape == (2, 2, 2)
    assert_allclose(
        found.interval()[1], simultaneous(fitted, method="sup-t", draws=2048).interval()
    )


def test_what_has_no_standard_error_has_no_interval():
    held = jm.fix(line, {"sigma": 2.0})
    found = simultaneous(jm.fit(held, LINE, DATA, constraints=SIGMA))
    assert found.count == 2 and np.isnan(found.interval()[2]).all()


def test_bad_options_of_regions_are_refused(fitted):
    with pytest.raises(ValueError, match="bonferroni"):
        simultaneous(fitted, method="scheffe")
    with pytest.raises(ValueError, match="draws"):
        simultaneous(fitted, method="sup-t", draws=10)
    with pytest.raises(TypeError, match="key"):
        simultaneous(fitted, method="sup-t", key=1.5)
    with pytest.raises(ValueError, match="points"):
        contour(line, fitted, DATA, ("beta[0]", "sigma"), points=2)
    with pytest.raises(TypeError, match="host"):
        jax.jit(lambda y: contour(line, fitted, {"x": X, "y": y}, ("beta[0]", "sigma")).curve)(Y)
    assert_array_equal(
        contour(
            normal_kernel,
            jm.fit(normal_kernel, {"mu": 0.0, "sigma": 1.0}, Y[:1], constraints=SIGMA),
            Y[:1],
            ("mu", "sigma"),
            points=3,
        ).status,
        End.NO_FIT,
    )
