"""What a record says: trees, intervals, criteria, and no number where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle import Status
from tests.likelihoods import logit, normal_regression

from .models import BETA, BETA_SIGMA, Curve, Line, N, linear_data, logistic_data, stack, under_trace

Z95 = 1.959963984540054
DATA = linear_data(70)


@pytest.fixture(scope="module")
def fit():
    return jm.fit(normal_regression, BETA_SIGMA, DATA, constraints={"sigma": jm.positive})


@pytest.fixture(scope="module")
def least_squares():
    """Closed form: coefficients, ML scale, and their standard errors."""
    x, y = DATA["x"], DATA["y"]
    beta = np.linalg.lstsq(x, y, rcond=None)[0]
    sigma = np.sqrt(np.mean((y - x @ beta) ** 2))
    return beta, sigma, sigma * np.sqrt(np.diag(np.linalg.inv(x.T @ x))), sigma / np.sqrt(2 * N)


def test_normal_regression_equals_its_closed_form(fit, least_squares):
    beta, sigma, beta_error, sigma_error = least_squares
    assert fit.converged
    assert_allclose(fit.params["beta"], beta, rtol=0, atol=1e-9 * beta_error.min())
    assert_allclose(fit.params["sigma"], sigma, rtol=1e-10)
    assert_allclose(fit.stderr["beta"], beta_error, rtol=1e-9)
    assert_allclose(fit.stderr["sigma"], sigma_error, rtol=1e-9)
    assert_allclose(fit.loglik, -0.5 * N * (np.log(2 * np.pi * sigma**2) + 1), rtol=1e-12)
    assert fit.names == ("beta[0]", "beta[1]", "beta[2]", "sigma")
    assert fit.bounds == ((-np.inf, np.inf),) * 3 + ((0.0, np.inf),)
    assert (fit.df, fit.n, fit.vcov_kind, fit.mode, fit.weighting) == (
        4,
        N,
        "observed",
        "ML",
        "none",
    )


def test_the_score_is_zero_and_the_covariance_inverts_the_information(fit):
    assert_allclose(fit.score * fit.se, 0.0, atol=1e-7)
    assert fit.decrement < 5e-13
    assert_allclose(fit.vcov @ -fit.hessian, np.eye(4), atol=1e-9)
    assert_allclose(np.sqrt(np.diag(fit.vcov)), fit.se, rtol=1e-12)
    assert_allclose(fit.corr, fit.vcov / np.outer(fit.se, fit.se), rtol=1e-12)


def test_a_host_fit_is_numpy_float64(fit):
    for leaf in jax.tree.leaves(
        (fit.params, fit.stderr, fit.vcov, fit.hessian, fit.loglik, fit.score)
    ):
        assert isinstance(leaf, np.ndarray | np.generic)
        assert leaf.dtype == np.float64
    assert fit.dtype == np.float64
    assert jnp.zeros(1).dtype == jnp.float32


def test_the_free_interval_of_a_scale_is_log_symmetric_and_the_user_one_is_symmetric(fit):
    sigma, error = float(fit.params["sigma"]), float(fit.stderr["sigma"])
    free, user = fit.conf_int()["sigma"], fit.conf_int(scale="user")["sigma"]
    assert_allclose(free, sigma * np.exp(Z95 * np.array([-1, 1]) * error / sigma), rtol=1e-12)
    assert_allclose(user, sigma + Z95 * np.array([-1, 1]) * error, rtol=1e-12)
    for scale in ("free", "user"):
        ends = fit.conf_int(scale=scale)["beta"]
        assert ends.shape == (3, 2)
        assert_allclose(
            ends,
            fit.params["beta"][:, None] + Z95 * fit.stderr["beta"][:, None] * np.array([-1, 1]),
            rtol=1e-12,
        )
    assert_allclose(fit.interval()[3], free)
    assert_array_equal(fit.conf_int(0.5)["sigma"][0] > free[0], True)


@pytest.mark.parametrize(
    ("constraint", "start", "bounds"),
    [
        (jm.lower(-3.0), 0.0, (-3, np.inf)),
        (jm.upper(3.0), 0.0, (-np.inf, 3)),
        (jm.interval(-2.0, 4.0), 0.5, (-2, 4)),
        (None, 0.0, (-np.inf, np.inf)),
    ],
)
def test_the_maximum_does_not_depend_on_the_constraint_and_intervals_respect_it(
    constraint, start, bounds
):
    y = np.array([0.1, 0.9, -0.4, 1.3])
    found = jm.fit(
        lambda p, d: -0.05 * (d - p["m"]) ** 2, {"m": start}, y, constraints={"m": constraint}
    )
    assert found.converged, found.explain()
    assert_allclose(found.params["m"], y.mean(), rtol=1e-8)
    assert_allclose(found.stderr["m"], np.sqrt(1 / 0.4), rtol=1e-8)
    low, high = found.conf_int(0.999)["m"]
    assert bounds[0] <= low < y.mean() < high <= bounds[1]
    assert found.bounds == (bounds,)
    assert_allclose(found.conf_int()["m"], wald(y.mean(), Z95 * np.sqrt(2.5), *bounds), rtol=1e-7)


def wald(m, half, a, b):
    """m ± half on the scale that (a, b) suggests: the identity, log(m − a), log(b − m), log((m − a)/(b − m))."""
    side = np.array([-1, 1])
    if np.isinf(a) and np.isinf(b):
        return m + side * half
    if np.isinf(b):
        return a + np.exp(np.log(m - a) + side * half / (m - a))
    if np.isinf(a):
        return b - np.exp(np.log(b - m) - side * half / (b - m))
    logit = np.log((m - a) / (b - m)) + side * half * (b - a) / ((m - a) * (b - m))
    return a + (b - a) / (1 + np.exp(-logit))


def test_z_and_p_exist_only_where_zero_is_inside_the_bounds(fit):
    assert_allclose(fit.zvalues[:3], fit.params["beta"] / fit.stderr["beta"], rtol=1e-12)
    assert np.isnan(fit.zvalues[3])
    assert np.isnan(fit.pvalues[3])
    from scipy.special import ndtr

    assert_allclose(fit.pvalues[:3], 2 * ndtr(-np.abs(fit.zvalues[:3])), rtol=1e-12)


# ---------------------------------------------------------------- criteria


def test_criteria_are_those_of_the_textbook(fit):
    k, n, value = 4, N, float(fit.loglik)
    assert_allclose(fit.aic, -2 * value + 2 * k, rtol=1e-12)
    assert_allclose(fit.bic, -2 * value + k * np.log(n), rtol=1e-12)
    assert_allclose(fit.aicc, fit.aic + 2 * k * (k + 1) / (n - k - 1), rtol=1e-12)


@pytest.mark.parametrize(("n", "exists"), [(5, False), (6, True)])
def test_the_corrected_criterion_needs_more_than_k_plus_one_observations(n, exists):
    data = {name: leaf[:n] for name, leaf in DATA.items()}
    small = jm.fit(normal_regression, BETA_SIGMA, data, constraints={"sigma": jm.positive})
    assert np.isfinite(small.aic)
    assert np.isfinite(small.aicc) == exists


def test_a_posterior_mode_and_a_survey_have_no_information_criterion():
    weights = np.random.default_rng(0).uniform(0.5, 2.0, N)
    survey = jm.fit(logit, BETA, logistic_data(71), weights=jm.sampling(weights))
    mode = jm.fit(jm.penalize(logit, jm.ridge(0.1)), BETA, logistic_data(71))
    assert (survey.vcov_kind, survey.weighting, survey.mode) == ("HC0", "sampling", "ML")
    assert mode.mode == "MAP"
    for found in (survey, mode):
        assert found.converged, found.explain()
        for read in (found.aic, found.aicc, found.bic):
            assert np.isnan(read)


# ---------------------------------------------------------------- other covariances


def test_another_covariance_changes_errors_and_nothing_else(fit):
    other = fit.with_vcov(4 * fit.vcov, "doubled")
    assert_allclose(other.se, 2 * fit.se, rtol=1e-12)
    assert_allclose(other.stderr["beta"], 2 * fit.stderr["beta"], rtol=1e-12)
    assert other.vcov_kind == "doubled"
    assert_array_equal(other.x, fit.x)
    assert other.loglik == fit.loglik
    assert_allclose(fit.with_vcov(fit.vcov).se, fit.se)
    indefinite = fit.vcov.copy()
    indefinite[0, 0] = -1.0
    with pytest.raises(ValueError, match="negative variance -1"):
        fit.with_vcov(indefinite)


def test_another_covariance_gives_no_error_to_what_has_none():
    data = logistic_data(72)
    x = data["x"].copy()
    x[:, 2] = 2 * x[:, 1]
    found = jm.fit(logit, BETA, data | {"x": x})
    assert found.verdict == Status.UNIDENTIFIED
    other = found.with_vcov(np.eye(3))
    assert np.isfinite(other.se[0])
    assert np.isnan(other.se[1:]).all()


def test_no_covariance_asked_no_standard_error():
    found = jm.fit(logit, BETA, logistic_data(71), vcov=None)
    assert found.converged
    assert found.vcov_kind == "none"
    assert found.explain().startswith("A maximum was found.")
    assert np.isnan(found.se).all()


# ---------------------------------------------------------------- trees


def test_parameters_may_be_a_named_tuple(fit):
    def loglik(params, data):
        return normal_regression(
            {"beta": jnp.stack([params.level, *params.slope]), "sigma": 1.0}, data
        )

    found = jm.fit(loglik, Line(np.zeros(2), 0.0), DATA)
    assert found.names == ("slope[0]", "slope[1]", "level")
    assert isinstance(found.params, Line)
    assert isinstance(found.stderr, Line)
    assert_allclose(found.params.level, fit.params["beta"][0], rtol=1e-8)
    assert found.conf_int().slope.shape == (2, 2)


def test_parameters_may_be_a_registered_dataclass_and_nested(fit):
    def loglik(params, data):
        return normal_regression(
            {"beta": params["line"].beta, "sigma": params["line"].scale[0]}, data
        )

    found = jm.fit(
        loglik,
        {"line": Curve(np.zeros(3), (1.0,))},
        DATA,
        constraints={"line": Curve(None, jm.positive)},
    )
    assert found.names == ("line.beta[0]", "line.beta[1]", "line.beta[2]", "line.scale[0]")
    assert isinstance(found.params["line"], Curve)
    assert found.params["line"].label == "curve"
    assert_allclose(found.x, fit.x, rtol=1e-8)
    assert_allclose(found.se, fit.se, rtol=1e-8)


def test_parameters_may_be_one_array():
    y = np.array([1.0, 2.0, 4.0])
    found = jm.fit(lambda theta, data: -0.5 * (data - theta) ** 2, 0.0, y)
    assert found.names == ("theta",)
    assert_allclose(found.params, y.mean())


def test_a_matrix_of_parameters_is_named_by_row_and_column():
    y = np.random.default_rng(73).normal(size=(20, 6))
    found = jm.fit(
        lambda p, d: -0.5 * jnp.sum((d - p["m"].reshape(1, -1)) ** 2, axis=1),
        {"m": np.zeros((2, 3))},
        y,
    )
    assert found.names[:4] == ("m[0,0]", "m[0,1]", "m[0,2]", "m[1,0]")
    assert_allclose(found.params["m"], y.mean(axis=0).reshape(2, 3), rtol=1e-9)
    assert found.stderr["m"].shape == (2, 3)
    assert found.conf_int()["m"].shape == (2, 3, 2)


# ---------------------------------------------------------------- data


def test_data_may_be_closed_over(fit):
    found = jm.fit(
        lambda params, data: normal_regression(params, DATA),
        BETA_SIGMA,
        constraints={"sigma": jm.positive},
    )
    assert found.n == N
    assert_allclose(found.x, fit.x, rtol=1e-9)
    assert_allclose(found.bic, fit.bic, rtol=1e-12)


def test_a_scalar_likelihood_gives_the_same_fit_from_the_same_information(fit):
    found = jm.fit(
        lambda params, data: jnp.sum(normal_regression(params, data)),
        BETA_SIGMA,
        DATA,
        constraints={"sigma": jm.positive},
    )
    assert found.converged
    assert_allclose(found.x, fit.x, rtol=1e-9)
    assert_allclose(found.se, fit.se, rtol=1e-9)


def test_the_data_are_known_by_their_fingerprint(fit):
    again = jm.fit(
        normal_regression,
        BETA_SIGMA,
        {name: leaf.copy() for name, leaf in DATA.items()},
        constraints={"sigma": jm.positive},
    )
    moved = jm.fit(
        normal_regression,
        BETA_SIGMA,
        DATA | {"y": DATA["y"][::-1].copy()},
        constraints={"sigma": jm.positive},
    )
    assert_array_equal(again.data_id, fit.data_id)
    assert (moved.data_id != fit.data_id).any()
    assert again.x.tobytes() == fit.x.tobytes(), "the same data give the same bits"


def test_blocks_of_rows_give_the_same_fit(fit):
    for rows in (7, 60, 100):
        blocked = jm.fit(
            normal_regression, BETA_SIGMA, DATA, constraints={"sigma": jm.positive}, block_rows=rows
        )
        assert_allclose(blocked.x, fit.x, rtol=0, atol=1e-8 * fit.se.min())
        assert_allclose(blocked.se, fit.se, rtol=1e-10)


# ---------------------------------------------------------------- constraints in a batch


def shares(params, data):
    """Counts of three categories, with probabilities on a simplex, and a scale that is only there to be bounded."""
    return data["count"] @ jnp.log(params["p"]) - 0.5 * (jnp.log(params["s"]) - data["level"]) ** 2


@pytest.mark.thorough
def test_constraints_hold_in_every_member_of_a_batch():
    counts = np.random.default_rng(74).multinomial(1, [0.2, 0.3, 0.5], size=(4, N)).astype(float)
    level = np.random.default_rng(75).normal(size=(4, N))
    start = {"p": np.full(3, 1 / 3), "s": 1.0}

    def run(data):
        return jm.fit(shares, start, data, constraints={"p": jm.simplex, "s": jm.positive})

    fits = under_trace(jax.vmap, run, {"count": counts, "level": level})
    share = counts.mean(axis=1)
    assert fits.converged.all()
    assert fits.df == 3
    assert_allclose(fits.params["p"], share, rtol=1e-8)
    assert_allclose(fits.stderr["p"], np.sqrt(share * (1 - share) / N), rtol=1e-8)
    assert_allclose(fits.params["s"], np.exp(level.mean(axis=1)), rtol=1e-8)
    ends = fits.conf_int()["p"]
    assert ends.shape == (4, 3, 2)
    assert ((ends > 0) & (ends < 1)).all()
    covariance = (np.diag(share[2]) - np.outer(share[2], share[2])) / N
    assert_allclose(fits[2].vcov[:3, :3], covariance, atol=1e-10)
    alone = run({"count": counts[2], "level": level[2]})
    assert_allclose(fits[2].x, alone.x, rtol=1e-9)


def test_a_stack_of_fits_is_a_batch(fit):
    other = jm.fit(
        normal_regression, BETA_SIGMA, linear_data(76), constraints={"sigma": jm.positive}
    )
    batch = stack(fit, other)
    assert len(batch) == 2
    assert batch.names == fit.names
    assert_array_equal(batch[0].x, fit.x)
    assert_allclose(batch.interval()[1], other.interval(), rtol=1e-12)
    assert "2" in str(batch)


# ---------------------------------------------------------------- fix and tie


def test_a_fixed_entry_stays_counts_in_nothing_and_has_no_error(least_squares):
    found = jm.fit(
        jm.fix(normal_regression, {"beta[2]": 0.0}),
        BETA_SIGMA,
        DATA,
        constraints={"sigma": jm.positive},
    )
    x, y = DATA["x"][:, :2], DATA["y"]
    beta = np.linalg.lstsq(x, y, rcond=None)[0]
    sigma = np.sqrt(np.mean((y - x @ beta) ** 2))
    assert found.df == 3
    assert found.params["beta"][2] == 0.0
    assert np.isnan(found.stderr["beta"][2])
    assert_allclose(found.params["beta"][:2], beta, rtol=1e-8)
    assert_allclose(
        found.stderr["beta"][:2], sigma * np.sqrt(np.diag(np.linalg.inv(x.T @ x))), rtol=1e-8
    )
    assert_allclose(found.aic, -2 * found.loglik + 6, rtol=1e-12)


def test_tied_entries_are_equal_and_share_their_error():
    found = jm.fit(
        jm.tie(normal_regression, ("beta[1]", "beta[2]")),
        BETA_SIGMA,
        DATA,
        constraints={"sigma": jm.positive},
    )
    x = np.column_stack([DATA["x"][:, 0], DATA["x"][:, 1] + DATA["x"][:, 2]])
    beta = np.linalg.lstsq(x, DATA["y"], rcond=None)[0]
    sigma = np.sqrt(np.mean((DATA["y"] - x @ beta) ** 2))
    assert found.df == 3
    assert_allclose(found.params["beta"], beta[[0, 1, 1]], rtol=1e-8)
    assert_allclose(
        found.stderr["beta"], sigma * np.sqrt(np.diag(np.linalg.inv(x.T @ x)))[[0, 1, 1]], rtol=1e-8
    )
    assert_allclose(found.corr[1, 2], 1.0, rtol=1e-12)
