"""Score tests against R and statsmodels, in their plain and robust forms, for one fit and for batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.inference.hypotheses.record import Reason
from jaxmle.inference.hypotheses.score import score_test
from jaxmle.inference.hypotheses.wald import wald_test
from tests.likelihoods import logit, normal, poisson

from .hypothesis_cases import COUNTS, DATA, SMOKE_HT, START, R, X, stacked

RTOL = 1e-8
declared = jm.regression(
    lambda eta, row: row["y"] * eta["mu"] - jnp.logaddexp(0.0, eta["mu"]),
    eta={"mu": jm.linear("x", "beta")},
    response=jm.enumeration("y", [0, 1]),
)


@pytest.fixture(scope="module")
def null():
    return jm.fit(jm.fix(logit, SMOKE_HT), START, DATA)


def test_score_tests_equal_those_of_r(null):
    found = score_test(logit, null, DATA)
    assert_allclose(
        [found.statistic, found.pvalue, found.df], [*R["logit"]["rao"].values(), 2], rtol=RTOL
    )
    small = jm.fit(jm.fix(poisson, {"beta[3]": 0.0, "beta[4]": 0.0}), {"beta": np.zeros(5)}, COUNTS)
    found = score_test(poisson, small, COUNTS)
    assert_allclose([found.statistic, found.pvalue], list(R["poisson"]["rao"].values()), rtol=RTOL)


def test_the_declared_form_takes_its_expected_information(null):
    small = jm.fit(jm.fix(declared, SMOKE_HT), START, DATA)
    for kind in ("auto", "expected", "observed"):
        assert_allclose(
            score_test(declared, small, DATA, vcov=kind).statistic,
            R["logit"]["rao"]["statistic"],
            rtol=RTOL,
        )


def test_score_tests_equal_those_of_statsmodels(null):
    """GLM.score_test of two added columns. Its HC0 takes the scores about their mean and n/(n − 1): S/(1 − S/n)·(n − 1)/n for our S."""
    sm = pytest.importorskip("statsmodels.api")
    kept, extra = [0, 1, 2, 3, 4, 6, 8], X[:, [5, 7]]
    fitted = sm.GLM(DATA["y"], X[:, kept], family=sm.families.Binomial()).fit(
        tol=1e-14, tol_criterion="params"
    )
    plain, p = (float(np.squeeze(v)) for v in fitted.score_test(exog_extra=extra)[:2])
    found = score_test(logit, null, DATA)
    assert_allclose([found.statistic, found.pvalue], [plain, p], rtol=RTOL)
    robust = float(np.squeeze(fitted.score_test(exog_extra=extra, cov_type="HC0")[0]))
    s = score_test(logit, null, DATA, vcov="HC0").statistic
    assert_allclose(s / (1 - s / 189) * 188 / 189, robust, rtol=RTOL)


def test_the_robust_form_is_the_sandwich_of_the_restricted_directions(null):
    """By hand, for clusters: (A I⁻¹s)'(A V A')⁻¹(A I⁻¹s) with V = G/(G − 1) I⁻¹ Σ S_g S_g' I⁻¹."""
    label = np.arange(189) % 30
    mu = 1 / (1 + np.exp(-X @ null.params["beta"]))
    u = X * (DATA["y"] - mu)[:, None]
    bread = np.linalg.inv(X.T @ (X * (mu * (1 - mu))[:, None]))
    sums = np.stack([u[label == g].sum(axis=0) for g in range(30)])
    v = (bread @ (30 / 29 * sums.T @ sums) @ bread)[np.ix_([5, 7], [5, 7])]
    step = (bread @ u.sum(axis=0))[[5, 7]]
    found = score_test(logit, null, DATA, clusters=label)
    assert_allclose(found.statistic, step @ np.linalg.solve(v, step), rtol=1e-8)
    outer = np.linalg.solve(u.T @ u, u.sum(axis=0)) @ u.sum(axis=0)
    assert_allclose(score_test(logit, null, DATA, vcov="opg").statistic, outer, rtol=1e-8)


def test_a_tie_is_a_restriction_too():
    """Equal coefficients: the score test of their difference in the rotated design."""
    tied = jm.fit(jm.tie(logit, ("beta[3]", "beta[4]")), START, DATA)
    turned = X.copy()
    turned[:, 3] = X[:, 3] + X[:, 4]
    rotated = {"y": DATA["y"], "x": turned}
    other = jm.fit(jm.fix(logit, {"beta[4]": 0.0}), START, rotated)
    for kind in ("auto", "HC0"):
        found, expected = (
            score_test(logit, tied, DATA, vcov=kind),
            score_test(logit, other, rotated, vcov=kind),
        )
        assert found.df == 1
        assert_allclose(found.statistic, expected.statistic, rtol=1e-7)


@pytest.mark.thorough
def test_frequency_weights_are_repeated_rows():
    w = 1 + np.arange(189) % 2
    rows = np.repeat(np.arange(189), w)
    twice = jax.tree.map(lambda leaf: leaf[rows], DATA)
    small = jm.fix(logit, SMOKE_HT)
    weighted = jm.fit(small, START, DATA, weights=jm.frequency(w))
    repeated = jm.fit(small, START, twice)
    expected = score_test(logit, repeated, twice, vcov="HC0").statistic
    assert_allclose(
        score_test(logit, weighted, DATA, weights=jm.frequency(w), vcov="HC0").statistic,
        expected,
        rtol=1e-8,
    )
    assert_allclose(
        score_test(jm.weight(logit, jm.frequency(w)), weighted, DATA, vcov="HC0").statistic,
        expected,
        rtol=1e-8,
    )


def test_sampling_weights_take_the_robust_form():
    w = 1 + np.arange(189) % 3
    small = jm.fit(jm.fix(logit, SMOKE_HT), START, DATA, weights=jm.sampling(w))
    found = score_test(logit, small, DATA, weights=jm.sampling(w))
    assert "HC0" in found.hypothesis
    tenfold = jm.fit(jm.fix(logit, SMOKE_HT), START, DATA, weights=jm.sampling(10 * w))
    assert_allclose(
        found.statistic,
        score_test(logit, tenfold, DATA, weights=jm.sampling(10 * w)).statistic,
        rtol=1e-9,
    )
    with pytest.raises(ValueError, match="sampling weights"):
        score_test(logit, small, DATA, weights=jm.sampling(w), vcov="observed")


def student(params, data):
    """A normal with a skewing term of strength ``a``: at a = 0 a plain normal."""
    z = (data - params["mu"]) / params["sigma"]
    return norm.logpdf(z) - jnp.log(params["sigma"]) + jnp.log1p(params["a"] * (z**3 - 3 * z) / 6)


Y = np.random.default_rng(5).normal(2.0, 1.5, size=(4, 60))
START_NORMAL, SIGMA = {"mu": 1.0, "sigma": 1.0}, {"sigma": jm.positive}


def to_full(p):
    return {**p, "a": 0.0}


@pytest.fixture(scope="module")
def batch():
    return stacked([jm.fit(normal, START_NORMAL, y, constraints=SIGMA) for y in Y])


def test_a_smaller_likelihood_is_placed_in_the_full_one(batch):
    """The score in ``a`` of a Gram-Charlier normal is n·skewness/6; with the outer product of scores all is a sum of powers of z."""
    z = (Y - Y.mean(axis=1, keepdims=True)) / Y.std(axis=1, keepdims=True)
    found = score_test(student, batch, Y, params=to_full, vcov="opg")
    u = np.stack([z, z**2 - 1, (z**3 - 3 * z) / 6], axis=-1)
    expected = [row.sum(axis=0) @ np.linalg.solve(row.T @ row, row.sum(axis=0)) for row in u]
    assert_allclose(found.statistic, expected, rtol=1e-7)
    one = score_test(student, batch[1], Y[1], params=to_full, vcov="opg")
    assert_allclose(found.statistic[1], one.statistic, rtol=1e-9)


@pytest.mark.thorough
def test_a_batch_is_tested_in_one_pass_with_shared_designs_weights_and_clusters():
    rng = np.random.default_rng(8)
    x = np.column_stack([np.ones(50), rng.normal(size=(50, 2))])
    y = (rng.random((3, 50)) < 0.4).astype(float)
    data, axes = {"x": x, "y": y}, {"x": None, "y": 0}
    small, start = jm.fix(logit, {"beta[2]": 0.0}), {"beta": np.zeros(3)}
    w, labels = (
        jm.frequency(np.ones((3, 50)) + (np.arange(50) % 2)),
        np.arange(150).reshape(3, 50) % 11,
    )
    fits = stacked(
        [
            jm.fit(small, start, {"x": x, "y": y[i]}, weights=jm.frequency(w.values[i]))
            for i in range(3)
        ]
    )
    found = score_test(logit, fits, data, in_axes=axes, weights=w, clusters=labels)
    for i in range(3):
        own, wi = {"x": x, "y": y[i]}, jm.frequency(w.values[i])
        assert_allclose(
            found.statistic[i],
            score_test(logit, fits[i], own, weights=wi, clusters=labels[i]).statistic,
            rtol=1e-10,
        )
    with pytest.raises(ValueError, match="data of member 0"):
        score_test(logit, fits, {"x": x, "y": 1 - y}, in_axes=axes, weights=w)
    with pytest.raises(ValueError, match="leading axis of 3"):
        score_test(logit, fits, {"x": x, "y": y}, weights=w)


def test_a_score_test_is_a_wald_test_after_one_step_for_a_quadratic_likelihood():
    """Known variance: the likelihood is quadratic, and the score, Wald and likelihood-ratio tests are one."""
    x = np.column_stack([np.ones(40), np.arange(40.0)])
    data = {"x": x, "y": np.random.default_rng(2).normal(size=40)}

    def f(p, d):
        return norm.logpdf(d["y"], d["x"] @ p["b"], 1.0)

    small, full = (
        jm.fit(jm.fix(f, {"b[1]": 0.0}), {"b": np.zeros(2)}, data),
        jm.fit(f, {"b": np.zeros(2)}, data),
    )
    assert_allclose(
        score_test(f, small, data).statistic, wald_test(full, "b[1]").statistic, rtol=1e-9
    )


def test_a_simplex_is_tested_along_its_own_directions():
    """Multinomial counts, two of three probabilities equal: the score and the observed information in w₀ and w₁ alone."""
    counts = np.array([30.0, 45.0, 25.0])
    y = np.repeat(np.eye(3), counts.astype(int), axis=0)

    def f(p, d):
        return d @ jnp.log(p["w"])

    null = jm.fit(
        lambda p, d: d @ jnp.log(jnp.array([p["w"], p["w"], 1 - 2 * p["w"]])), {"w": 0.3}, y
    )
    found = score_test(
        f,
        null,
        y,
        params=lambda p: {"w": jnp.array([p["w"], p["w"], 1 - 2 * p["w"]])},
        constraints={"w": jm.simplex},
    )
    w = np.array([37.5, 37.5, 25.0]) / 100
    s = counts[:2] / w[:2] - counts[2] / w[2]
    j = np.diag(counts[:2] / w[:2] ** 2) + counts[2] / w[2] ** 2
    assert_allclose([found.statistic, found.df], [s @ np.linalg.solve(j, s), 1], rtol=1e-7)


def test_score_tests_that_cannot_be_made_are_refused_or_say_why(null, batch):
    with pytest.raises(ValueError, match="not those of the fit"):
        score_test(logit, null, {"y": DATA["y"], "x": X + 1})
    with pytest.raises(ValueError, match="give the full likelihood"):
        score_test(jm.fix(logit, SMOKE_HT), null, DATA)
    with pytest.raises(ValueError, match="distribution of the response"):
        score_test(logit, null, DATA, vcov="expected")
    with pytest.raises(ValueError, match="without its prior"):
        score_test(jm.penalize(logit, jm.ridge(1.0)), null, DATA)
    with pytest.raises(ValueError, match="needs clusters"):
        score_test(logit, null, DATA, vcov="cluster")
    with pytest.raises(ValueError, match="vcov=None"):
        score_test(logit, jm.fit(jm.fix(logit, SMOKE_HT), START, DATA, vcov=None), DATA, vcov="HC0")
    with pytest.raises(ValueError, match="params must map"):
        score_test(student, batch, Y, params=lambda p: {"mu": p["nu"]})
    with pytest.raises(TypeError, match="Fit|fit"):
        score_test(logit, DATA, null)
    with pytest.raises(ValueError, match="each member"):
        score_test(student, batch, list(Y), params=to_full)
    stopped = jm.fit(jm.fix(logit, SMOKE_HT), START, DATA, max_steps=1)
    assert score_test(logit, stopped, DATA).code == Reason.NOT_CONVERGED


def test_a_score_test_runs_under_a_trace(batch):
    with jax.enable_x64(True):
        run = jax.jit(
            jax.vmap(
                lambda fit, y: score_test(student, fit, y, params=to_full, vcov="opg").statistic
            )
        )
        traced = np.asarray(run(jax.tree.map(jnp.asarray, batch), jnp.asarray(Y)))
    assert_allclose(
        traced, score_test(student, batch, Y, params=to_full, vcov="opg").statistic, rtol=1e-9
    )
