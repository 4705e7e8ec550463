"""Wald and likelihood-ratio tests against R, statsmodels and closed forms; what has no p-value says why."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.scipy.stats import norm
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle import Status
from jaxmle.inference.hypotheses.likelihood_ratio import lr_test
from jaxmle.inference.hypotheses.record import Reason, Test
from jaxmle.inference.hypotheses.wald import joint_tests, wald_test
from tests.likelihoods import logit, normal

from .hypothesis_cases import DATA, SMOKE_HT, START, R, X, stacked

RTOL = 1e-8  # of the statistics of other software, whose own fits stop there


@pytest.fixture(scope="module")
def full():
    return jm.fit(logit, START, DATA)


@pytest.fixture(scope="module")
def null():
    return jm.fit(jm.fix(logit, SMOKE_HT), START, DATA)


def centred(params, data):
    return norm.logpdf(data, 0.0, params["sigma"])


NORMAL, BOTH = {"mu": 0.5, "sigma": 1.0}, {"mu": jm.positive, "sigma": jm.positive}
Y = (
    np.random.default_rng(3).normal(0.3, 1.0, size=(6, 40))
    + np.array([0.0, -0.8, 0.2, 0.0, -0.9, 0.5])[:, None]
)


@pytest.fixture(scope="module")
def bounded():
    """Normal samples whose mean may not be negative: two of the six have a negative sample mean."""
    fits = stacked([jm.fit(normal, NORMAL, y, constraints=BOTH) for y in Y])
    return fits, stacked(
        [jm.fit(centred, {"sigma": 1.0}, y, constraints={"sigma": jm.positive}) for y in Y]
    )


# ---------------------------------------------------------------- Wald


def test_wald_tests_equal_those_of_r(full):
    expected = R["logit"]
    found = wald_test(full, ["beta[5]", "beta[7]"])
    assert_allclose(
        [found.statistic, found.pvalue, found.df],
        [expected["wald"]["statistic"], expected["wald"]["pvalue"], 2],
        rtol=RTOL,
    )
    f = wald_test(full, SMOKE_HT, df_residual=189 - 9)
    assert_allclose(
        [f.statistic, f.pvalue],
        [expected["wald_f"]["statistic"], expected["wald_f"]["pvalue"]],
        rtol=RTOL,
    )
    contrast = np.eye(9)[3] - np.eye(9)[4]
    assert_allclose(
        wald_test(full, contrast).statistic, expected["contrast"]["statistic"], rtol=RTOL
    )
    assert_allclose(
        wald_test(full, lambda p: p["beta"][3] - p["beta"][4]).statistic,
        expected["contrast"]["statistic"],
        rtol=RTOL,
    )


def test_a_wald_test_is_robust_when_the_fit_is():
    robust = jm.fit(logit, START, DATA, vcov="HC0")
    found = wald_test(robust, ["beta[5]", "beta[7]"])
    assert_allclose(
        [found.statistic, found.pvalue], list(R["logit"]["wald_hc0"].values()), rtol=RTOL
    )


def test_one_restriction_is_the_square_of_z(full):
    for j, name in enumerate(full.names):
        found = wald_test(full, name)
        assert_allclose(
            [found.statistic, found.pvalue], [full.zvalues[j] ** 2, full.pvalues[j]], rtol=1e-9
        )


def test_forms_of_one_hypothesis_agree(full):
    forms = [
        wald_test(full, {"beta[3]": 1.0, "beta[4]": 0.5}),
        wald_test(full, ["beta[3]", "beta[4]"], [1.0, 0.5]),
        wald_test(full, np.eye(9)[[3, 4]], [1.0, 0.5]),
        wald_test(full, 7.0 * np.eye(9)[[3, 4]] + np.eye(9)[[4, 3]], [7.5, 4.5]),
        wald_test(full, lambda p: {"a": p["beta"][3:5] - jnp.array([1.0, 0.5])}),
    ]
    assert_allclose([form.statistic for form in forms], forms[0].statistic, rtol=1e-9)
    assert wald_test(full, "beta").df == 9


def test_a_nonlinear_restriction_has_the_variance_of_the_delta_method(full):
    def ratio(p):
        return p["beta"][5] / p["beta"][7]

    found, expected = wald_test(full, ratio, 0.5), jm.delta(ratio, full)
    assert_allclose(found.statistic, ((expected.estimate - 0.5) / expected.stderr) ** 2, rtol=1e-10)


def test_statsmodels_agrees_on_linear_restrictions(full):
    sm = pytest.importorskip("statsmodels.api")
    with np.errstate(all="ignore"):
        other = sm.Logit(DATA["y"], X).fit(method="newton", tol=1e-14, maxiter=50, disp=0)
    r = np.array([[0, 1, 0, 0, 0, 1, 0, 0, 0.0], [0, 0, 3, 1, -1, 0, 0, 0, 0]])
    expected = other.wald_test(r, scalar=True)
    found = wald_test(full, r)
    assert_allclose(
        [found.statistic, found.pvalue], [expected.statistic, expected.pvalue], rtol=RTOL
    )


def test_a_simplex_is_tested_in_free_coordinates():
    """All three probabilities: the statistic in log ratios, Σ over the inverse of diag(1/n_k) + 1/n_K, with K − 1 degrees of freedom."""
    counts = np.array([30.0, 45.0, 25.0])
    y = np.repeat(np.eye(3), counts.astype(int), axis=0)
    fit = jm.fit(
        lambda p, d: d @ jnp.log(p["w"]), {"w": np.full(3, 1 / 3)}, y, constraints={"w": jm.simplex}
    )
    ratio = np.log(counts[:2] / counts[2])
    v = np.diag(1 / counts[:2]) + 1 / counts[2]
    for found in (
        wald_test(fit, "w", 1 / 3),
        wald_test(fit, lambda p: jnp.log(p["w"][:2] / p["w"][2])),
    ):
        assert_allclose(
            [found.statistic, found.df], [ratio @ np.linalg.solve(v, ratio), 2], rtol=1e-8
        )
    assert wald_test(fit, np.ones((1, 3)), 1.0).code == Reason.SINGULAR
    with pytest.raises(ValueError, match="sum to one"):
        wald_test(fit, "w", 0.2)


def test_a_batch_is_tested_member_by_member(bounded):
    fits, _ = bounded
    for restriction in ("sigma", lambda p: p["mu"] / p["sigma"], np.array([[0.0, 1.0]])):
        batch = wald_test(fits, restriction, 0.9)
        assert batch.batch_shape == (6,)
        one = [wald_test(fits[i], restriction, 0.9) for i in range(6)]
        assert_allclose(batch.statistic, [t.statistic for t in one], rtol=1e-12)
        assert_array_equal(batch.code, [t.code for t in one])
        assert batch[2].pvalue == one[2].pvalue
        assert len(batch.reason) == 6


def test_a_wald_test_runs_under_jit_and_vmap(bounded):
    fits, _ = bounded
    with jax.enable_x64(True):
        traced = jax.jit(jax.vmap(lambda fit: wald_test(fit, "sigma", 0.9)))(
            jax.tree.map(jnp.asarray, fits)
        )
        other = jax.jit(lambda fit: wald_test(fit, lambda p: p["sigma"], 0.9, df_residual=39.0))(
            jax.tree.map(jnp.asarray, fits)
        )
        statistic, pvalue, f = (
            np.asarray(traced.statistic),
            np.asarray(traced.pvalue),
            np.asarray(other.pvalue),
        )
    expected = wald_test(fits, "sigma", 0.9)
    assert_allclose(statistic, expected.statistic, rtol=1e-9)
    assert_allclose(pvalue, expected.pvalue, rtol=1e-9)
    assert_allclose(f, wald_test(fits, "sigma", 0.9, df_residual=39.0).pvalue, rtol=1e-9)


def test_estimates_on_a_bound_have_no_wald_test_and_the_others_keep_theirs(bounded):
    fits, _ = bounded
    at = fits.status == int(Status.BOUNDARY)
    assert at.sum() == 2
    mu, sigma = wald_test(fits, "mu", 0.1), wald_test(fits, "sigma", 0.9)
    assert_array_equal(mu.code != 0, at)
    assert np.all(mu.code[at] == Reason.NOT_ESTIMABLE)
    assert np.all(np.isnan(mu.pvalue[at])) and np.all(np.isnan(mu.statistic[at]))
    assert np.all(sigma.code == 0)


def test_what_the_data_do_not_determine_has_no_wald_test():
    """Two equal columns: their sum has an estimate, neither alone."""
    x = np.column_stack([np.ones(50), np.arange(50.0) % 7, np.arange(50.0) % 7])
    y = np.random.default_rng(1).normal(size=50)
    fit = jm.fit(
        lambda p, d: norm.logpdf(d["y"], d["x"] @ p["b"], 1.0), {"b": np.zeros(3)}, {"x": x, "y": y}
    )
    assert fit.verdict == Status.UNIDENTIFIED
    assert wald_test(fit, "b[1]").code == Reason.NOT_ESTIMABLE
    alone = jm.fit(
        lambda p, d: norm.logpdf(d["y"], d["x"] @ p["b"], 1.0),
        {"b": np.zeros(2)},
        {"x": x[:, :2], "y": y},
    )
    assert_allclose(
        wald_test(fit, np.array([[0.0, 1.0, 1.0]])).statistic,
        wald_test(alone, "b[1]").statistic,
        rtol=1e-8,
    )
    stopped = jm.fit(normal, NORMAL, Y[0], constraints=BOTH, max_steps=1)
    assert wald_test(stopped, "sigma", 1.0).code == Reason.NOT_CONVERGED


@pytest.mark.parametrize(
    ("restriction", "value", "error", "told"),
    [
        ("gamma", 0.0, ValueError, "no parameter is called 'gamma'"),
        (["beta[1]", "beta"], 0.0, ValueError, "more than once"),
        ("gamma = 0", 0.0, ValueError, "gamma"),
        ([], 0.0, ValueError, "matrix"),
        ({}, 0.0, ValueError, "no parameter"),
        ({"beta[1]": 1.0}, 1.0, ValueError, "already contains the values"),
        ({"beta": np.zeros(4)}, 0.0, ValueError, "9 entries"),
        ("beta[1]", np.nan, ValueError, "finite"),
        ("beta[1]", [0.0, 1.0], ValueError, "one number"),
        (np.ones((2, 3)), 0.0, ValueError, "beta"),
        (np.ones((2, 9)), 0.0, ValueError, "row 1 .* combination"),
        (np.zeros((1, 9)), 0.0, ValueError, "row 0 .* is zero"),
        (object(), 0.0, TypeError, "restriction must be"),
        (None, 0.0, TypeError, "restriction must be names"),
        (lambda p: {}, 0.0, ValueError, "no numbers"),
    ],
)
def test_restrictions_that_are_none_are_refused(full, restriction, value, error, told):
    with pytest.raises(error, match=told):
        wald_test(full, restriction, value)


def test_a_value_on_a_bound_is_refused_for_a_wald_test(bounded):
    with pytest.raises(ValueError, match="on_bound"):
        wald_test(bounded[0], {"mu": 0.0})
    with pytest.raises(ValueError, match="no covariance"):
        wald_test(jm.fit(normal, NORMAL, Y[0], constraints=BOTH, vcov=None), "mu", 0.1)


def test_restrictions_that_repeat_each_other_only_at_the_estimate_are_singular(full):
    assert (
        wald_test(full, lambda p: jnp.stack([p["beta"][1], 2 * p["beta"][1]])).code
        == Reason.SINGULAR
    )


# ---------------------------------------------------------------- factors


def test_joint_tests_of_factors(full):
    found = joint_tests(full, {"race": ["beta[3]", "beta[4]"], "smoke": "beta[5]"})
    assert_allclose(found["race"].statistic, R["logit"]["race"]["statistic"], rtol=RTOL)
    assert_allclose(
        found.pvalues, [wald_test(full, ["beta[3]", "beta[4]"]).pvalue, full.pvalues[5]], rtol=1e-9
    )
    assert "race" in str(found) and "0.046" in str(found)
    with pytest.raises(KeyError, match="race"):
        found["colour"]


def test_a_leaf_that_cannot_be_zero_is_no_term(bounded):
    fits = stacked([jm.fit(normal, NORMAL, y, constraints={"sigma": jm.positive}) for y in Y])
    found = joint_tests(fits)
    assert found.terms == ("mu",) and found.pvalues.shape == (6, 1)
    assert_allclose(found.pvalues[:, 0], fits.pvalues[:, 0], rtol=1e-10)
    with pytest.raises(ValueError, match="name the terms"):
        joint_tests(bounded[0])


# ---------------------------------------------------------------- likelihood ratio


def test_the_likelihood_ratio_test_equals_that_of_r(full, null):
    found = lr_test(null, full)
    assert_allclose(
        [found.statistic, found.pvalue, found.df], [*R["logit"]["lr"].values(), 2], rtol=RTOL
    )
    tied = lr_test(jm.fit(jm.tie(logit, ("beta[3]", "beta[4]")), START, DATA), full)
    assert tied.df == 1 and tied.code == 0


def test_gumbel_within_gev():
    """2Δℓ of shape = 0 for Port Pirie's sea levels, from the maxima 4.33905847367941 and 4.21768189626177 of the reference files (R's evd, polished)."""
    path = Path(__file__).parents[1] / "reference" / "data" / "s06_gev_portpirie.csv"
    y = np.loadtxt(path, delimiter=",", skiprows=1)

    def gumbel(params, data):
        z = (data - params["loc"]) / params["scale"]
        return -z - jnp.exp(-z) - jnp.log(params["scale"])

    def gev(params, data):
        t = jnp.log1p(params["shape"] * (data - params["loc"]) / params["scale"]) / params["shape"]
        return -(1 + params["shape"]) * t - jnp.exp(-t) - jnp.log(params["scale"])

    start, bounds = {"loc": 3.9, "scale": 0.2}, {"scale": jm.positive}
    found = lr_test(
        jm.fit(gumbel, start, y, constraints=bounds),
        jm.fit(gev, {**start, "shape": -0.1}, y, constraints=bounds),
    )
    assert_allclose(
        [found.statistic, found.df], [2 * (4.33905847367941 - 4.21768189626177), 1], rtol=1e-8
    )


def test_on_a_bound_the_law_is_half_a_chi_square(bounded):
    """For a normal mean that may not be negative: 2Δℓ = n log(Σy²/Σ(y − ȳ)²) where ȳ > 0, and 0 where not."""
    fits, nulls = bounded
    found = lr_test(nulls, fits, on_bound="mu")
    mean = Y.mean(axis=1)
    exact = np.where(mean > 0, 40 * np.log((Y**2).mean(axis=1) / Y.var(axis=1)), 0.0)
    assert_allclose(found.statistic, exact, rtol=1e-7, atol=1e-12)
    assert_allclose(
        found.pvalue, np.where(mean > 0, scipy.stats.chi2.sf(exact, 1) / 2, 1.0), rtol=1e-6
    )
    assert np.all(found.code == 0) and found.law == "chi-bar-square"
    unsaid = lr_test(nulls, fits)
    assert_array_equal(unsaid.code != 0, mean < 0)
    assert np.all(unsaid.code[mean < 0] == Reason.BOUNDARY)


def test_a_mixing_weight_of_zero_has_no_chi_bar_square(bounded):
    """Davies: what vanishes with the bound shows in the degrees of freedom; here a full model said to have one parameter more."""
    fits, nulls = bounded
    found = lr_test(nulls, replace(fits, df=3), on_bound="mu")
    assert np.all(found.code == Reason.DAVIES) and np.all(np.isnan(found.pvalue))
    with pytest.raises(ValueError, match="no bound"):
        lr_test(
            nulls,
            replace(fits, bounds=((-np.inf, np.inf), (0.0, np.inf)), layout=fits.layout),
            on_bound="mu",
        )
    with pytest.raises(ValueError, match="no parameter"):
        lr_test(nulls, fits, on_bound="tau")


def test_likelihood_ratios_without_a_law_say_why(full, null):
    found = lr_test(null, replace(full, vcov_kind="HC0"))
    assert (
        found.code == Reason.ROBUST
        and np.isfinite(found.statistic)
        and np.isnan(found.pvalue)
        and "score_test" in found.reason
    )
    assert lr_test(null, replace(full, mode="MAP")).code == Reason.PENALISED
    assert (
        lr_test(*(replace(fit, weighting="sampling") for fit in (null, full))).code
        == Reason.SAMPLING
    )
    assert lr_test(replace(null, loglik=full.loglik + 1.0), full).code == Reason.HIGHER
    assert lr_test(replace(null, loglik=full.loglik + 1e-13), full).pvalue == 1.0
    assert (
        lr_test(null, replace(full, status=np.int32(Status.MAX_STEPS))).code == Reason.NOT_CONVERGED
    )


def test_fits_that_do_not_compare_are_refused(full, null):
    other = jm.fit(logit, START, {"y": 1 - DATA["y"], "x": X})
    with pytest.raises(ValueError, match="other data"):
        lr_test(null, other)
    with pytest.raises(ValueError, match="another n"):
        lr_test(
            jm.fit(jm.fix(logit, SMOKE_HT), START, DATA, weights=jm.frequency(np.ones(189))),
            jm.fit(logit, START, DATA, weights=jm.frequency(np.full(189, 2.0))),
        )
    with pytest.raises(ValueError, match="kind 'frequency'"):
        lr_test(null, jm.fit(logit, START, DATA, weights=jm.frequency(np.ones(189))))
    with pytest.raises(ValueError, match="comes first"):
        lr_test(full, null)
    with pytest.raises(TypeError, match="argument 1 is a str"):
        lr_test(full, "full")


# ---------------------------------------------------------------- the record


def test_the_record_reads_as_a_sentence(full, null, bounded):
    assert str(wald_test(full, SMOKE_HT)).splitlines() == [
        "Wald test of beta[5] = beta[7] = 0",
        "chi2(2) = 11.29, p = 0.004",
    ]
    assert "beta[3] - beta[4] = 0" in str(wald_test(full, np.eye(9)[3] - np.eye(9)[4]))
    assert "F(2, 180)" in str(wald_test(full, SMOKE_HT, df_residual=180))
    text = str(wald_test(bounded[0], "mu", 0.1))
    assert text.startswith("6 Wald tests of mu = 0.1") and "2 without" in text
    with pytest.raises(TypeError, match="no members"):
        lr_test(null, full)[0]
    leaves, treedef = jax.tree.flatten(wald_test(full, "beta[1]"))
    assert isinstance(jax.tree.unflatten(treedef, leaves), Test)


def test_a_float32_fit_keeps_its_precision(full):
    fit = jax.tree.map(
        lambda leaf: (
            np.asarray(leaf, np.float32)[()] if np.asarray(leaf).dtype.kind == "f" else leaf
        ),
        full,
    )
    found = wald_test(fit, {"beta[1]": 0.0})
    assert found.statistic.dtype == np.float32
    assert_allclose(found.statistic, full.zvalues[1] ** 2, rtol=1e-5)
    assert_allclose(wald_test(fit, lambda p: p["beta"][1]).statistic, found.statistic, rtol=1e-5)
