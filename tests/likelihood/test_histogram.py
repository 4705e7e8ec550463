"""Terms of counts over the counts that occur: the same numbers as over the rows, whatever the weights, and never on other rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmle as jm
from jaxmle.likelihood.histogram import counted, distinct, histogram
from jaxmle.special import gammaln
from jaxmle.special.counts import (
    negative_binomial_dispersion_part,
    negative_binomial_kernel,
    negative_binomial_logpmf,
)

N = 300
START = {"alpha": 0.5, "beta": np.array([1.0, 0.4])}


def rest(eta, row):
    mean = jnp.exp(eta["mu"])
    return row["y"] * eta["mu"] - (row["y"] + 1 / eta["alpha"]) * jnp.log(1 + eta["alpha"] * mean)


def of_count(eta, y):
    return (
        gammaln(y + 1 / eta["alpha"])
        - gammaln(1 / eta["alpha"])
        + y * jnp.log(eta["alpha"])
        - gammaln(y + 1)
    )


ETA = {"mu": jm.linear("x", "beta"), "alpha": "alpha"}
SPLIT = jm.regression(rest, ETA, counts={"y": of_count})
WHOLE = jm.regression(lambda eta, row: rest(eta, row) + of_count(eta, row["y"]), ETA)
BOUNDS = {"alpha": jm.positive}


def sample(seed, n=N):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    return {
        "x": x,
        "y": rng.poisson(np.exp(x @ [1.0, 0.4]) * rng.gamma(2.0, 0.5, size=n)).astype(float),
    }


def assert_same_fits(one, other, tolerance=1e-9):
    np.testing.assert_array_equal(one.status, other.status)
    np.testing.assert_allclose((one.x - other.x) / other.se, 0.0, atol=tolerance)
    np.testing.assert_allclose(one.se, other.se, rtol=tolerance)
    np.testing.assert_allclose(one.loglik, other.loglik, rtol=1e-12)


@pytest.fixture(scope="module")
def data():
    return sample(0)


def is_counted(loglik, rows):
    found = tuple(int(distinct(rows["y"], np.array([N]))[0]) for _ in loglik.counts)
    return counted(loglik, rows, found, float).histograms is not None


def test_the_histogram_is_used_where_counts_repeat(data):
    assert is_counted(SPLIT, data)
    assert not is_counted(WHOLE, data)
    assert not is_counted(SPLIT, {**data, "y": data["y"] + 0.5})
    assert not is_counted(SPLIT, {**data, "y": np.arange(float(N))})


@pytest.mark.parametrize("vcov", ["observed", pytest.param("HC1", marks=pytest.mark.thorough)])
def test_a_fit_with_histogram_is_the_fit_over_rows(data, vcov):
    assert_same_fits(
        jm.fit(SPLIT, START, data, constraints=BOUNDS, vcov=vcov),
        jm.fit(WHOLE, START, data, constraints=BOUNDS, vcov=vcov),
    )


def test_frequency_weights_are_repeated_rows(data):
    w = np.random.default_rng(1).integers(0, 4, size=N)
    repeated = {name: np.repeat(leaf, w, axis=0) for name, leaf in data.items()}
    assert_same_fits(
        jm.fit(SPLIT, START, data, constraints=BOUNDS, weights=jm.frequency(w)),
        jm.fit(WHOLE, START, repeated, constraints=BOUNDS),
    )


def test_terms_and_sums_without_a_histogram_are_those_of_the_rows(data):
    with jax.enable_x64(True):
        np.testing.assert_allclose(SPLIT(START, data), WHOLE(START, data), rtol=1e-12)
    for one, other in zip(
        jm.evaluate(SPLIT, START, data), jm.evaluate(WHOLE, START, data), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.thorough
def test_the_prior_of_jeffreys_sees_other_counts_than_those_that_occur():
    """Its information is a sum over all values of the response: a histogram of those observed would be another sum."""
    rows, law = sample(5, 80), jm.enumeration("y", range(60))
    found = [
        jm.fit(jm.jeffreys(jm.with_response(loglik, law)), START, rows, constraints=BOUNDS)
        for loglik in (SPLIT, WHOLE)
    ]
    assert_same_fits(*found, tolerance=1e-7)


def test_fractions_are_never_counted():
    """Padding makes a member longer than its rows; its fractions must not be cut to whole numbers there."""
    found = tuple(int(n) for n in distinct(np.array([0.5, 1.0, 2.0]), np.array([3])))
    assert found == (0,)
    padded = {"x": np.ones((64, 2)), "y": np.resize([0.5, 1.0, 2.0], 64)}
    assert counted(SPLIT, padded, found, float).histograms is None


def test_ragged_members(data):
    sets = [sample(seed, n) for seed, n in enumerate([300, 180, 240, 300, 150])]
    assert_same_fits(
        jm.fit_batch(SPLIT, START, sets, constraints=BOUNDS),
        jm.fit_batch(WHOLE, START, sets, constraints=BOUNDS),
    )


def test_a_bootstrap_shares_counts_and_not_weights(data):
    w = jm.frequency(np.random.default_rng(2).multinomial(N, np.full(N, 1 / N), size=6))
    assert_same_fits(
        *(
            jm.fit_batch(loglik, START, data, constraints=BOUNDS, weights=w, in_axes=None)
            for loglik in (SPLIT, WHOLE)
        )
    )


def test_a_member_with_nan_fails_alone():
    sets = [sample(seed) for seed in range(4)]
    sound = jm.fit_batch(SPLIT, START, sets, constraints=BOUNDS)
    sets[2] = {**sets[2], "y": np.where(np.arange(N) == 7, np.nan, sets[2]["y"])}
    fits = jm.fit_batch(SPLIT, START, sets, constraints=BOUNDS)
    assert jm.Status(int(fits.status[2])) == jm.Status.NONFINITE
    assert int(fits[2].witness.row) == 7
    np.testing.assert_array_equal(fits.x[[0, 1, 3]], sound.x[[0, 1, 3]])


@pytest.mark.parametrize("far", [False, True])
def test_the_histogram_holds_the_weights(far):
    """Also where counts are so large that no table of all of them is made."""
    rng = np.random.default_rng(3)
    y, w = rng.integers(0, 9, size=(5, 40)) * (10**6 if far else 1), rng.random((5, 40))
    found = histogram(y.astype(float), w, 12)
    for member in range(5):
        for value in np.unique(y[member]):
            np.testing.assert_allclose(
                found.weights[member][found.values[member] == value].sum(),
                w[member][y[member] == value].sum(),
                rtol=1e-14,
            )
    np.testing.assert_allclose(found.weights.sum(axis=1), w.sum(axis=1), rtol=1e-14)
    assert np.all(np.isin(found.values, y))


def test_terms_of_counts_need_a_constant_predictor():
    with pytest.raises(ValueError, match="every predictor varies"):
        jm.regression(rest, {"mu": jm.linear("x", "beta")}, counts={"y": of_count})


def test_the_two_parts_make_the_negative_binomial():
    """Value, slopes and second derivatives at dispersions from the Poisson's on, across the points where the form of either part changes."""
    k, eta, alpha = (
        grid.ravel()
        for grid in np.meshgrid(
            [0.0, 1.0, 3.0, 17.0, 250.0],
            [-3.0, 0.0, 1.5, 5.0],
            [0.0, 1e-9, 1e-3, 0.0999, 0.1001, 0.7, 3.0, 50.0],
        )
    )

    def parts(eta, alpha, k):
        return negative_binomial_kernel(k, eta, alpha) + negative_binomial_dispersion_part(k, alpha)

    def whole(eta, alpha, k):
        return negative_binomial_logpmf(k, jnp.exp(eta), alpha)

    def together(f):
        return jax.jit(
            jax.vmap(lambda *at: (f(*at), jax.grad(f, (0, 1))(*at), jax.hessian(f, (0, 1))(*at)))
        )

    with jax.enable_x64(True):
        ours, theirs = (
            np.array(jax.tree.leaves(together(f)(eta, alpha, k))) for f in (parts, whole)
        )
    for order in (slice(0, 1), slice(1, 3), slice(3, 7)):
        np.testing.assert_allclose(
            (ours[order] - theirs[order]) / (1 + np.abs(theirs[order])).max(axis=0), 0.0, atol=1e-11
        )
