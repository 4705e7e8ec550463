"""Signs that a number is not what it seems: means for sums, a maximum that may not be the only one, records that compare and print."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.inference.delta import delta
from jaxmle.solvers.status import CONCAVE_FLAG, MEAN

RNG = np.random.default_rng(13)
N = 20
X, Y = RNG.normal(size=N), RNG.normal(size=N)
START = {"m": 0.0, "s": 1.0}
POSITIVE = {"s": jm.positive}


def terms(p, d):
    return -0.5 * ((d - p["m"]) / p["s"]) ** 2 - jnp.log(p["s"])


def gaussian_process(p, d):
    distance = (d["x"][:, None] - d["x"][None, :]) ** 2
    k = jnp.exp(-0.5 * distance / p["s"] ** 2) + 0.1 * jnp.eye(d["x"].shape[0])
    root = jnp.linalg.cholesky(k)
    a = jax.scipy.linalg.solve_triangular(root, d["y"] - p["m"], lower=True)
    return -0.5 * a @ a - jnp.sum(jnp.log(jnp.diag(root)))


def autoregression(p, d):
    e = d[1:] - p["m"] * d[:-1]
    return -0.5 * jnp.sum(e**2) / p["s"] ** 2 - e.shape[0] * jnp.log(p["s"])


def hidden_markov(p, d):
    move = jnp.log(jnp.array([[0.9, 0.1], [0.2, 0.8]]))
    levels = jnp.array([-1.0, 1.0])

    def step(a, y):
        return logsumexp(a[:, None] + move, axis=0) + norm.logpdf(y, levels * p["m"], p["s"]), None

    return logsumexp(jax.lax.scan(step, jnp.log(jnp.array([0.5, 0.5])), d)[0])


def kalman(p, d):
    def step(state, y):
        mean, var = state
        s = var + p["s"] ** 2
        term = -0.5 * (y - mean - p["m"]) ** 2 / s - 0.5 * jnp.log(s)
        return (mean + var / s * (y - mean), var * (1 - var / s) + 0.1), term

    return jnp.sum(jax.lax.scan(step, (0.0, 1.0), d)[1])


PAIR = {"x": X, "y": Y}
MEANS = {
    "mean": (lambda p, d: jnp.mean(terms(p, d)), Y),
    "mean_of_a_part": (lambda p, d: -0.5 * jnp.mean(((d - p["m"]) / p["s"]) ** 2) - jnp.log(p["s"]), Y),
    "sum_over_n": (lambda p, d: jnp.sum(terms(p, d)) / d.shape[0], Y),
    "n_th_of_a_sum": (lambda p, d: (1 / len(d)) * terms(p, d).sum(), Y),
    "average": (lambda p, d: jnp.average(terms(p, d)), Y),
    "method_under_jit": (jax.jit(lambda p, d: terms(p, d).mean()), Y),
    "inner_product": (lambda p, d: -0.5 * jnp.vdot(d - p["m"], d - p["m"]) / d.shape[0] / p["s"] ** 2 - jnp.log(p["s"]), Y),
    "guarded_by_where": (lambda p, d: jnp.where(p["s"] > 0, jnp.mean(terms(p, d)), -jnp.inf), Y),
    "gaussian_process_over_n": (lambda p, d: gaussian_process(p, d) / d["y"].shape[0], PAIR),
    "nanmean": (lambda p, d: jnp.nanmean(terms(p, d)), Y),
    "mean_of_those_in_range": (lambda p, d: jnp.mean(terms(p, d), where=d < 1e9), Y),
    "over_a_count": (lambda p, d: jnp.where(d < 1e9, terms(p, d), 0.0).sum() / jnp.sum(d < 1e9), Y),
    "closed_over": (lambda p, d: jnp.mean(terms(p, Y)), None),
}  # fmt: skip
SUMS = {
    "sum": (lambda p, d: jnp.sum(terms(p, d)), Y),
    "n_means": (lambda p, d: d.shape[0] * jnp.mean(terms(p, d)), Y),
    "half_n_means": (lambda p, d: -d.shape[0] / 2 * jnp.mean((d - p["m"]) ** 2) / p["s"] ** 2 - d.shape[0] * jnp.log(p["s"]), Y),
    "count_times_nanmean": (lambda p, d: jnp.sum(~jnp.isnan(d)) * jnp.nanmean(terms(p, d)), Y),
    "profiled_spread": (lambda p, d: -0.5 * d.shape[0] * jnp.log(jnp.nanmean((d - p["m"]) ** 2)) - (p["s"] - 1) ** 2, Y),
    "half_of_two_rows": (lambda p, d: -jnp.sum((d - p["m"]) ** 2 + (p["s"] - 1) ** 2) / 2, Y[:2]),
    "centred": (lambda p, d: jnp.sum(terms(p, d - d.mean())), Y),
    "prior_over_n": (lambda p, d: jnp.sum(terms(p, d)) - p["m"] ** 2 / d.shape[0], Y),
    "gaussian_process": (gaussian_process, PAIR),
    "autoregression": (autoregression, Y),
    "hidden_markov": (hidden_markov, Y),
    "kalman": (kalman, Y),
    "closed_over": (lambda p, d: jnp.sum(terms(p, Y)), None),
    "terms": (terms, Y),
}  # fmt: skip


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_for_a_sum_is_noticed(name):
    """A scalar that is a mean over n rows had standard errors √n too large, CONVERGED, without a word."""
    loglik, data = MEANS[name]
    with pytest.warns(UserWarning, match="mean over the rows, not a sum"):
        fit = jm.fit(loglik, START, data, constraints=POSITIVE, max_steps=50)
    assert "mean over the rows" in fit.explain() or not fit.converged
    assert "mean over the rows" in " ".join(str(fit).split()) or not fit.converged
    assert fit.converged or name == "gaussian_process_over_n"


@pytest.mark.parametrize("name", SUMS)
def test_no_sum_is_taken_for_a_mean(name):
    loglik, data = SUMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = jm.fit(loglik, START, data, constraints=POSITIVE, max_steps=50)
    assert not int(fit.witness.certificate) & MEAN or not fit.converged


def test_the_members_of_a_batch_are_means_too():
    with pytest.warns(UserWarning, match="mean over the rows"):
        fits = jm.fit_batch(
            MEANS["mean"][0], START, np.stack([Y, Y + 1]), constraints=POSITIVE, progress=False
        )
    assert "mean over the rows" in fits[1].explain()


# ---------------------------------------------------------------- a maximum, and the maximum


DESIGN = {"x": np.column_stack([np.ones(N), X]), "y": (Y > 0) * 1.0}
KNOWN = {
    "logistic": (jm.models.logistic(), None),
    "fixed": (jm.fix(jm.models.logistic(), {"beta[1]": 0.3}), {"beta": np.zeros(2)}),
    "ridge": (jm.penalize(jm.models.probit(), jm.ridge(0.1)), {"beta": np.zeros(2)}),
    "normal": (jm.models.normal(), None),
    "declared": (
        jm.regression(
            lambda eta, row: row["y"] * eta["mu"] - jnp.exp(eta["mu"]),
            {"mu": jm.linear("x", "beta")},
            concave=True,
        ),
        {"beta": np.zeros(2)},
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_maximum_is_said_where_there_is_one_at_most(name):
    loglik, start = KNOWN[name]
    fit = jm.fit(loglik, start, DESIGN)
    assert int(fit.witness.certificate) & CONCAVE_FLAG
    # explain() also says how the likelihood was summed
    assert fit.explain() == "The maximum was found. The likelihood was summed in its declared form."


def cauchy(p, d):
    return -jnp.log1p((d - p["m"]) ** 2)


def test_a_maximum_that_was_compared_with_no_other_says_so():
    y = np.array([-6.0, 0.0, 1.0, 8.0])
    fit = jm.fit(cauchy, {"m": 8.0}, y)
    assert fit.explain().startswith("A maximum was found.")
    assert "multistart" in fit.explain()
    found = jm.multistart(cauchy, {"m": np.array([-6.0, 0.5, 8.0])}, y, progress=False)
    assert found.best.loglik > fit.loglik
    assert "highest of the maxima" in found.best.explain()
    student = jm.models.student_t(df=3.0)
    assert jm.fit(student, data=DESIGN | {"y": Y}).explain().startswith("A maximum")


# ---------------------------------------------------------------- records


def test_records_compare_and_hash_by_identity():
    """fit == other compared arrays and raised; hash(fit) did too."""
    one, two = (jm.fit(terms, START, Y, constraints=POSITIVE) for _ in range(2))
    assert one == one
    assert one != two
    assert len({one, two, one}) == 2


def test_a_status_prints_its_name_and_stays_a_number():
    fit = jm.fit(terms, START, Y, constraints=POSITIVE)
    fits = jm.fit_batch(
        terms, START, np.stack([Y, 0 * Y + Y[0]]), constraints=POSITIVE, progress=False
    )
    assert str(fit.status) == f"{fit.status}" == "CONVERGED"
    assert repr(fit.status) == "<Status.CONVERGED: 10>"
    assert fit.status == jm.Status.CONVERGED == 10
    assert fit.status.dtype == np.int32
    assert str(fits.status) == "[CONVERGED UNBOUNDED]"
    assert "CONVERGED" in repr(fits.status)
    assert (fits.status == 10).tolist() == [True, False]
    assert str(fits[0].status) == "CONVERGED"
    assert int(jax.jit(lambda fit: fit.status + 1)(fit)) == 11
    assert jax.vmap(lambda fit: fit.status)(fits).tolist() == fits.status.tolist()
    assert np.bincount(fits.status).tolist()[10] == 1


def test_bic_without_a_known_n_is_nan_with_its_reason():
    fit = jm.fit(lambda p, d: jnp.sum(terms(p, Y)), START, constraints=POSITIVE)
    assert np.isnan(fit.n)
    assert np.isnan(fit.bic)
    assert np.isnan(fit.aicc)
    assert_allclose(fit.aic, -2 * fit.loglik + 4)
    assert "n is not known" in fit.summary()
    assert jm.fit(lambda p, d: terms(p, Y), START, constraints=POSITIVE).n == N
    starts = {"m": np.zeros(3), "s": np.ones(3)}
    options = {"constraints": POSITIVE, "params_axis": 0, "progress": False}
    assert jm.multistart(lambda p, d: terms(p, Y), starts, **options).best.n == N
    assert np.isnan(jm.multistart(lambda p, d: jnp.sum(terms(p, Y)), starts, **options).best.n)
    small = jm.fit(
        jm.fix(lambda p, d: jnp.sum(terms(p, Y)), {"m": 0.0}), START, constraints=POSITIVE
    )
    assert jm.lr_test(small, fit).pvalue > 0


def test_an_estimable_difference_of_a_separated_fit_is_finite():
    """beta[1] and beta[2] are both +inf; the data determine their difference, of which delta said NaN (inf − inf)."""
    rng = np.random.default_rng(0)
    g, u = np.repeat([0.0, 1.0], [40, 20]), rng.normal(size=60)
    y = np.where(g == 1, 1.0, (rng.uniform(size=60) < 1 / (1 + np.exp(-u))) * 1.0)
    x = np.column_stack([np.ones(60), g + u, g - u])  # eta = a + (b + c) g + (b − c) u
    separated = jm.fit(jm.models.logistic(), data={"x": x, "y": y})
    assert str(separated.status) == "SEPARATED"
    assert np.all(np.isinf(separated.x[1:]))
    limit = jm.fit(
        jm.models.logistic(),
        data={"x": np.column_stack([np.ones(40), u[:40]]), "y": y[:40]},
    )  # the rows of g = 1 are certain there
    found = delta(lambda p: p["beta"][1] - p["beta"][2], separated)
    assert_allclose(found.estimate, limit.x[1], rtol=1e-7)
    assert_allclose(found.stderr, limit.se[1], rtol=1e-7)
    test = jm.wald_test(separated, np.array([[0.0, 1, -1]]))
    assert_allclose(test.statistic, (limit.x[1] / limit.se[1]) ** 2, rtol=1e-6)
    alone = delta(lambda p: p["beta"][1], separated)
    assert np.isposinf(alone.estimate)
    assert np.isnan(alone.stderr)
    assert int(jm.wald_test(separated, "beta[1]").code) != 0


def test_a_batch_with_a_covariance_of_more_lags_than_rows_has_none():
    """hac(lags ≥ n) gave standard errors 300 times too small, CONVERGED."""
    lists = [RNG.normal(size=12), RNG.normal(size=5)]
    fits = jm.fit_batch(
        terms, START, lists, constraints=POSITIVE, vcov=jm.hac(lags=6), progress=False
    )
    assert np.all(np.isfinite(fits.se[0]))
    assert np.all(np.isnan(fits.se[1]))


# ---------------------------------------------------------------- a column that broadcasts

COLUMN = {"y": Y[:, None], "x": X}
SUMMED_OVER_PAIRS = {
    "a sum": lambda b, d: -jnp.sum((d["y"] - b * d["x"]) ** 2),
    "a density": lambda b, d: norm.logpdf(d["y"], b * d["x"], 1.0).sum(),
    "a sum along one axis": lambda b, d: norm.logpdf(d["y"], b * d["x"]).sum(axis=0),
    "where": lambda b, d: -jnp.where(d["y"] > 0, (b - d["x"]) ** 2, b**2).sum(),
    "under jit": jax.jit(lambda b, d: -jnp.sum((jnp.exp(d["y"]) - b * d["x"]) ** 2)),
}
PAIRS_ON_PURPOSE = {
    "the column by itself": lambda b, d: -jnp.sum((d["y"][:, 0] - b * d["x"]) ** 2),
    "all columns": lambda b, d: -jnp.sum((d["y"] - b * d["x"][:, None]) ** 2),
    "pairs of rows": lambda b, d: -jnp.sum((d["x"][:, None] - d["x"] - b) ** 2) + d["y"].sum(),
    "a transpose": lambda b, d: -jnp.sum((d["y"] - d["y"].T - b) ** 2),
    "a product": lambda b, d: -jnp.sum((d["x"] @ d["y"] - b) ** 2),
}


@pytest.mark.parametrize("form", SUMMED_OVER_PAIRS)
def test_a_column_against_a_row_was_a_sum_over_n_times_n_numbers_and_converged(form):
    with jax.numpy_rank_promotion("allow"):
        for fit, data in (
            (jm.fit, COLUMN),
            (jm.fit_batch, jax.tree.map(lambda a: a[None], COLUMN)),
        ):
            with pytest.warns(jm.BroadcastWarning, match=r"data\['y'\] of shape \(n, 1\) meets"):
                fit(SUMMED_OVER_PAIRS[form], 0.0, data)


def test_coefficients_of_shape_k_1_made_a_column_of_the_mean():
    data = {"y": Y, "x": np.column_stack([X, X**2])}
    said = pytest.warns(jm.BroadcastWarning, match=r"x @ beta, with beta of shape \(k, 1\)")
    with jax.numpy_rank_promotion("allow"), said:
        jm.fit(lambda b, d: -jnp.sum((d["y"] - d["x"] @ b) ** 2), np.zeros((2, 1)), data)
    with warnings.catch_warnings():
        warnings.simplefilter("error", jm.BroadcastWarning)
        squares = lambda b, d: -jnp.sum((d["y"][:, None] - d["x"] @ b) ** 2)  # noqa: E731
        assert jm.fit(squares, np.zeros((2, 1)), data).converged


@pytest.mark.parametrize("form", PAIRS_ON_PURPOSE)
def test_pairs_that_are_written_out_are_no_mistake(form):
    with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("error", jm.BroadcastWarning)
        fit = jm.fit(PAIRS_ON_PURPOSE[form], 0.0, COLUMN)
    assert np.isfinite(fit.loglik)
