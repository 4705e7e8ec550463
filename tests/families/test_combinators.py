"""Censored, truncated, rounded, mixed, zero-inflated and hurdle families against their definitions in scipy's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from jaxmle import families as jf

pytestmark = pytest.mark.thorough

PEER = stats.weibull_min(1.5, scale=2.0)
WEIBULL = {"shape": 1.5, "scale": 2.0}
COUNTS = np.arange(120)


@pytest.fixture(autouse=True)
def _wide():
    with jax.enable_x64(True):
        yield


def evaluated(family, params, y):
    """log_prob, having looked that the gradient and the Hessian of its sum, rows of −∞ and all, are finite."""

    def both(params, y):
        def total(params):
            value = family.log_prob(params, y)
            return jnp.sum(value), value

        gradient = jax.grad(total, has_aux=True)
        return gradient(params), jax.jacfwd(lambda params: gradient(params)[0])(params)

    (first, value), second = jax.jit(both)(params, y)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((first, second)))
    return np.asarray(value)


def test_censoring_takes_each_row_as_it_is_known():
    lower = np.array([1.0, 2.0, -np.inf, 1.0, 12.0, -np.inf, 0.0, 0.5])
    upper = np.array([1.0, np.inf, 0.3, 1.5, 12.5, np.inf, 0.2, 0.5])
    found = evaluated(jf.censored(jf.weibull), WEIBULL, {"lower": lower, "upper": upper})
    wanted = [
        PEER.logpdf(1.0),
        PEER.logsf(2.0),
        PEER.logcdf(0.3),
        np.log(PEER.cdf(1.5) - PEER.cdf(1.0)),
        np.log(PEER.sf(12.0) - PEER.sf(12.5)),
        0.0,
        PEER.logcdf(0.2),
        PEER.logpdf(0.5),
    ]
    assert_allclose(found, wanted, rtol=1e-12)


def test_times_and_events_are_right_censoring():
    found = jf.censored(jf.weibull).log_prob(
        WEIBULL, {"time": np.array([1.0, 2.0]), "event": np.array([1, 0])}
    )
    assert_allclose(found, [PEER.logpdf(1.0), PEER.logsf(2.0)], rtol=1e-12)


def test_an_interval_the_wrong_way_round_is_nan():
    assert np.isnan(jf.censored(jf.weibull).log_prob(WEIBULL, {"lower": 2.0, "upper": 1.0}))


@pytest.mark.parametrize("family", [jf.zero_inflated(jf.geometric), jf.hurdle(jf.geometric)])
def test_a_missing_value_was_a_zero_to_the_tails_of_counts_with_zeros(family):
    p = {"prob": 0.3, "zero": 0.2}
    for function in (family.log_prob, family.log_cdf, family.log_sf):
        assert_array_equal(np.isnan(function(p, np.array([0.0, np.nan, 2.0]))), [0, 1, 0])


def test_a_missing_event_or_end_of_an_interval_is_nan_and_no_event():
    family = jf.censored(jf.exponential)
    nan = np.array([1.0, np.nan])
    two = np.array([1.0, 3.0])
    for data in ({"time": two, "event": nan}, {"lower": nan, "upper": two}, {"lower": two - 1, "upper": nan}):  # fmt: skip
        assert_array_equal(np.isnan(family.log_prob({"rate": 1.0}, data)), [0, 1])


def test_delayed_entry_is_truncation_below_censoring():
    family = jf.censored(jf.truncated(jf.weibull))
    data = {"time": np.array([1.0, 2.0]), "event": np.array([1, 0]), "low": np.array([0.5, 1.5])}
    assert_allclose(
        family(WEIBULL, data),
        [PEER.logpdf(1.0) - PEER.logsf(0.5), PEER.logsf(2.0) - PEER.logsf(1.5)],
        rtol=1e-12,
    )


def test_a_truncated_normal_is_scipys():
    family, params, peer = (
        jf.truncated(jf.normal, low=1.0, high=4.0),
        {"loc": 0.5, "scale": 2.0},
        stats.truncnorm(0.25, 1.75, 0.5, 2.0),
    )
    y, q = np.array([1.5, 3.9, 0.5, 4.5]), np.array([0.0, 0.1, 0.9, 1.0])
    with np.errstate(divide="ignore"):
        assert_allclose(evaluated(family, params, y), peer.logpdf(y), rtol=1e-11)
    cdf, sf, quantile = jax.jit(
        lambda y, q: (
            family.log_cdf(params, y),
            family.log_sf(params, y),
            family.quantile(params, q),
        )
    )(y, q)
    assert_allclose(np.exp(cdf), peer.cdf(y), rtol=1e-11)
    assert_allclose(np.exp(sf), peer.sf(y), rtol=1e-11)
    assert_allclose(quantile, peer.ppf(q), rtol=1e-11)


def test_far_in_a_tail_truncation_keeps_its_digits():
    """P(10 < Z ≤ 11): no difference of distribution functions of about 1. Reference: mpmath, 40 digits."""
    import mpmath

    with mpmath.workdps(60):
        wanted = float(
            mpmath.log(mpmath.npdf(10.5)) - mpmath.log(mpmath.ncdf(-10) - mpmath.ncdf(-11))
        )
    assert_allclose(
        jf.truncated(jf.normal, low=10.0, high=11.0).log_prob({"loc": 0.0, "scale": 1.0}, 10.5),
        wanted,
        rtol=1e-12,
    )


def test_a_zero_truncated_count_sums_to_one():
    found = evaluated(jf.truncated(jf.geometric, low=0), {"prob": 0.3}, COUNTS)
    assert found[0] == -np.inf
    assert_allclose(np.exp(found).sum(), 1.0, rtol=1e-12)
    assert_allclose(found[3], stats.geom(0.3, loc=-1).logpmf(3) - np.log(0.7), rtol=1e-12)


def test_rounded_values_are_cells():
    y = np.arange(0.0, 40.0, 0.5)
    found = evaluated(jf.rounded(jf.weibull, width=0.5), WEIBULL, y)
    assert_allclose(np.exp(found).sum(), 1.0, rtol=1e-12)
    assert_allclose(np.exp(found[3]), PEER.cdf(1.75) - PEER.cdf(1.25), rtol=1e-12)


MIXED = {
    "weights": np.array([0.3, 0.7]),
    "components": ({"loc": 0.0, "scale": 1.0}, {"loc": 5.0, "scale": 2.0}),
}


def test_a_mixture_is_the_weighted_sum():
    family, y = jf.mixture(jf.normal, jf.normal), np.array([-3.0, 1.0, 30.0])
    one, two = stats.norm(0, 1), stats.norm(5, 2)
    assert_allclose(
        evaluated(family, MIXED, y), np.log(0.3 * one.pdf(y) + 0.7 * two.pdf(y)), rtol=1e-12
    )
    cdf, q, drawn = jax.jit(
        lambda y, q: (
            family.log_cdf(MIXED, y),
            family.quantile(MIXED, q),
            family.sample(MIXED, jax.random.key(5), (20_000,)),
        )
    )(y, np.array([0.01, 0.6]))
    assert_allclose(np.exp(cdf), 0.3 * one.cdf(y) + 0.7 * two.cdf(y), rtol=1e-12)
    assert_allclose(0.3 * one.cdf(q) + 0.7 * two.cdf(q), [0.01, 0.6], rtol=1e-12)
    assert_allclose(
        [drawn.mean(), drawn.var()], [family.mean(MIXED), family.variance(MIXED)], rtol=0.03
    )


def test_outside_every_component_a_mixture_is_minus_infinity_with_finite_derivatives():
    params = {"weights": np.array([0.3, 0.7]), "components": ({"rate": 1.0}, {"rate": 2.0})}
    assert (
        evaluated(jf.mixture(jf.exponential, jf.exponential), params, np.array([-1.0, 1.0]))[0]
        == -np.inf
    )


def probabilities(make, own):
    """The table of probabilities that a definition gives."""
    return (
        np.where(COUNTS == 0, 0.25, 0.0) + 0.75 * own
        if make is jf.zero_inflated
        else np.where(COUNTS == 0, 0.25, 0.75 * own / (1 - own[0]))
    )


@pytest.mark.parametrize("make", [jf.zero_inflated, jf.hurdle])
def test_extra_zeros(make):
    """Probabilities, tails, moments, quantiles and samples against the table of probabilities."""
    compound, params = make(jf.geometric), {"prob": 0.3, "zero": 0.25}
    pmf = probabilities(make, stats.geom(0.3, loc=-1).pmf(COUNTS))
    assert_allclose(np.exp(evaluated(compound, params, COUNTS)), pmf, rtol=1e-12)
    q = np.array([0.1, 0.24, 0.5, 0.9, 0.99])
    cdf, sf, quantile, drawn = jax.jit(
        lambda y, q: (
            compound.log_cdf(params, y),
            compound.log_sf(params, y),
            compound.quantile(params, q),
            compound.sample(params, jax.random.key(6), (20_000,)),
        )
    )(COUNTS, q)
    assert_allclose(np.exp(cdf), np.cumsum(pmf), rtol=1e-12)
    assert_allclose(np.exp(sf)[:8], pmf.sum() - np.cumsum(pmf)[:8], rtol=1e-12)
    mean = np.sum(COUNTS * pmf)
    assert_allclose(
        [compound.mean(params), compound.variance(params)],
        [mean, np.sum(COUNTS**2 * pmf) - mean**2],
        rtol=1e-11,
    )
    assert_allclose(quantile, np.searchsorted(np.cumsum(pmf), q))
    cells = np.bincount(np.minimum(drawn, 6), minlength=7)
    chances = np.append(pmf[:6], 1 - pmf[:6].sum()) * 20_000
    assert stats.chi2(6).sf(np.sum((cells - chances) ** 2 / chances)) > 1e-6


@pytest.mark.parametrize("make", [jf.zero_inflated, jf.hurdle])
@pytest.mark.parametrize(
    ("family", "params", "peer"),
    [
        (jf.poisson, {"rate": 2.0}, stats.poisson(2.0)),
        (jf.negative_binomial, {"mean": 2.0, "dispersion": 0.5}, stats.nbinom(2.0, 0.5)),
        (
            jf.beta_binomial,
            {"shape1": 1.0, "shape2": 2.0, "trials": 9.0},
            stats.betabinom(9, 1.0, 2.0),
        ),
    ],
    ids=["poisson", "negative_binomial", "beta_binomial"],
)
def test_extra_zeros_of_any_count_family(make, family, params, peer):
    found = np.exp(jax.jit(make(family).log_prob)({**params, "zero": 0.25}, COUNTS))
    assert_allclose(found, probabilities(make, peer.pmf(COUNTS)), rtol=1e-11, atol=1e-300)


# ---------------------------------------------------------------- vectors and categories


def test_vectors_are_scipys():
    loc, matrix = np.array([1.0, -2.0]), np.array([[2.0, 0.6], [0.6, 0.5]])
    y = np.array([[0.0, 0.0], [1.0, -2.0], [3.0, -1.0]])
    assert_allclose(
        evaluated(jf.multivariate_normal, {"loc": loc, "covariance": matrix}, y),
        stats.multivariate_normal(loc, matrix).logpdf(y),
        rtol=1e-12,
    )
    found = evaluated(jf.multivariate_t, {"df": 4.5, "loc": loc, "scale": matrix}, y)
    assert_allclose(found, stats.multivariate_t(loc, matrix, df=4.5).logpdf(y), rtol=1e-12)
    counts, a = np.array([[0.0, 3.0, 9.0], [12.0, 0.0, 0.0]]), np.array([0.5, 2.0, 7.0])
    found = evaluated(jf.dirichlet_multinomial, {"concentration": a}, counts)
    assert_allclose(
        found, stats.dirichlet_multinomial(a, 12).logpmf(counts.astype(int)), rtol=1e-12
    )
    odd = np.array([[0.5, 3.0, 9.0], [-1.0, 0.0, 2.0]])
    found = evaluated(jf.dirichlet_multinomial, {"concentration": a}, odd)
    assert_allclose(found, [-np.inf, -np.inf])
    missing = np.array([[np.nan, 1.0, 1.0]])  # its derivatives are missing, too
    assert np.isnan(jf.dirichlet_multinomial.log_prob({"concentration": a}, missing)).all()


@pytest.mark.parametrize(
    ("family", "matrix"),
    [(jf.multivariate_normal, "covariance"), (jf.multivariate_t, "scale")],
    ids=["normal", "t"],
)
def test_vectors_have_their_moments_and_information(family, matrix):
    """Information against the mean square of scores of 1e5 draws, within 4 standard errors, in the printed entries."""
    from jaxmle.parameters.tree import layout_of

    params = {"loc": np.array([1.0, -2.0]), matrix: np.array([[2.0, 0.6], [0.6, 0.5]])} | (
        {"df": np.asarray(6.0)} if matrix == "scale" else {}
    )
    y = family.sample(params, jax.random.key(7), (100_000,))
    assert_allclose(np.cov(np.asarray(y).T), family.variance(params), rtol=0.05)
    layout = layout_of(params, family.constraints)
    score = jax.jacfwd(lambda x: family.log_prob(layout.unravel(x), y))
    table = np.asarray(jax.jit(score)(jnp.asarray(layout.ravel(jax.tree.map(np.asarray, params)))))
    products = table[:, :, None] * table[:, None, :]
    assert np.all(
        np.abs(products.mean(axis=0) - family.information(params))
        <= 4 * products.std(axis=0) / np.sqrt(len(y))
    )


def test_categories():
    probs = np.array([0.2, 0.5, 0.3])
    y = np.array([0.0, 1.0, 2.0, 3.0, -1.0, 0.5])
    assert_allclose(
        evaluated(jf.categorical, {"probs": probs}, y), [*np.log(probs), -np.inf, -np.inf, -np.inf]
    )
    assert_allclose(
        np.exp(jf.categorical.log_cdf({"probs": probs}, y)),
        [0.2, 0.7, 1.0, 1.0, 0.0, 0.2],
        rtol=1e-12,
    )
    assert_allclose(
        np.exp(jf.categorical.log_sf({"probs": probs}, y)),
        [0.8, 0.3, 0.0, 0.0, 1.0, 0.8],
        rtol=1e-12,
    )
    assert_allclose(
        jf.categorical.quantile({"probs": probs}, np.array([0.1, 0.2, 0.6, 0.9])), [0, 0, 1, 2]
    )
    rows = np.array([[0.2, 0.8], [0.6, 0.4]])
    assert_allclose(jf.categorical.log_prob({"probs": rows}, np.array([1, 0])), np.log([0.8, 0.6]))


@pytest.mark.parametrize("name", ["beta", "von_mises"])
def test_both_tails_are_one_program_and_not_two_that_compile_twice_as_long(name):
    family = getattr(jf, name)
    params = {key: jnp.ones(()) for key in family.names}

    def operations(function):
        return str(jax.make_jaxpr(function)(params, jnp.array(0.5))).count(" = ")

    law = family.law
    both = operations(lambda p, y: (law.log_cdf(p, y), law.log_sf(p, y)))
    assert operations(law.log_tails) < 0.6 * both
