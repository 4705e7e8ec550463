"""Frequency weights are repeated rows; sampling weights square in the meat; weight-0 rows are not there."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from tests.likelihoods import logit
from tests.tolerances import ROUNDING_OF_A_SUM

from .cases import (
    CASES,
    LOGIT,
    NORMAL,
    N,
    cluster_sums,
    declared_logit,
    declared_normal,
    hc,
    least_squares,
    logit_rows,
    newton,
    normal,
    normal_rows,
)

RNG = np.random.default_rng(31)
COUNTS = RNG.integers(0, 4, size=N)
SURVEY = RNG.uniform(0.2, 3.0, size=N) * (np.arange(N) % 9 > 0)  # some rows have weight 0
LABELS = np.arange(N) // 4
LABELS[:9] = 99  # a cluster whose rows may all be dropped

START = {"beta": np.zeros(3)}
START_SIGMA = {"beta": np.zeros(3), "sigma": 1.0}
SIGMA = {"sigma": jm.positive}


def repeated(data):
    return {name: np.repeat(leaf, COUNTS, axis=0) for name, leaf in data.items()}


def dropped(data, w):
    return {name: leaf[w > 0] for name, leaf in data.items()}


@pytest.mark.parametrize("loglik", [normal, declared_normal], ids=["opaque", "declared"])
def test_frequency_weights_equal_repeated_rows(loglik):
    """Estimates, SE, ℓ, n, AIC, BIC: against least squares on the repeated rows."""
    fit = jm.fit(loglik, START_SIGMA, NORMAL, constraints=SIGMA, weights=jm.frequency(COUNTS))
    rows = repeated(NORMAL)
    best = least_squares(rows)
    by_hand = normal_rows(best, rows)
    ell, n = by_hand.terms.sum(), COUNTS.sum()
    assert fit.n == n and fit.weighting == "frequency" and fit.vcov_kind == "observed"
    assert_allclose(fit.x, [*best["beta"], best["sigma"]], rtol=1e-8)
    assert_allclose(fit.vcov, np.linalg.inv(by_hand.observed.sum(axis=0)), rtol=1e-7, atol=1e-9)
    assert_allclose(
        [fit.loglik, fit.aic, fit.bic],
        [ell, -2 * ell + 8, -2 * ell + 4 * np.log(n)],
        rtol=ROUNDING_OF_A_SUM,
    )
    assert_allclose(fit.aicc, -2 * ell + 8 + 2 * 4 * 5 / (n - 5), rtol=ROUNDING_OF_A_SUM)


@pytest.mark.parametrize("kind", ["observed", "opg", "HC0", "HC1", "HC2", "HC3"])
def test_frequency_weights_equal_repeated_rows_in_every_covariance(kind):
    best, rows = (
        least_squares(repeated(NORMAL)),
        normal_rows(least_squares(repeated(NORMAL)), repeated(NORMAL)),
    )
    v = jm.vcov(jm.weight(declared_normal, jm.frequency(COUNTS)), kind)(best, NORMAL)
    plain = {
        "observed": np.linalg.inv(rows.observed.sum(axis=0)),
        "opg": np.linalg.inv(rows.scores.T @ rows.scores),
    }
    assert_allclose(v, plain[kind] if kind in plain else hc(rows, kind), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    ("kind", "correct"),
    [
        ("CR0", lambda g, n: 1),
        ("CR1", lambda g, n: g / (g - 1)),
        ("CR1S", lambda g, n: g / (g - 1) * (n - 1) / (n - 3)),
    ],
)
def test_frequency_weights_equal_repeated_rows_in_clusters(kind, correct):
    rows, labels = logit_rows(CASES["logit"].params, repeated(LOGIT)), np.repeat(LABELS, COUNTS)
    meat, groups = cluster_sums(rows, labels)
    bread = np.linalg.inv(rows.observed.sum(axis=0))
    v = jm.vcov(jm.weight(logit, jm.frequency(COUNTS)), kind, clusters=LABELS)(
        CASES["logit"].params, LOGIT
    )
    assert_allclose(v, correct(groups, COUNTS.sum()) * bread @ meat @ bread, rtol=1e-10)


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC2", "HC3"])
def test_sampling_weights_square_in_the_meat(kind):
    """J = Σ w A, meat Σ w² ss', n the rows of positive weight."""
    best = newton(logit_rows, LOGIT, SURVEY)
    v = jm.vcov(jm.weight(declared_logit, jm.sampling(SURVEY)), kind)(best, LOGIT)
    assert_allclose(v, hc(logit_rows(best, LOGIT), kind, w=SURVEY, meat=SURVEY**2), rtol=1e-9)


def test_a_fit_under_sampling_weights_is_a_sandwich_without_information_criteria():
    fit = jm.fit(logit, START, LOGIT, weights=jm.sampling(SURVEY))
    best = newton(logit_rows, LOGIT, SURVEY)
    assert fit.weighting == "sampling" and fit.vcov_kind == "HC0" and fit.n == np.sum(SURVEY > 0)
    assert_allclose(fit.x, best["beta"], rtol=1e-8)
    assert_allclose(
        fit.vcov, hc(logit_rows(best, LOGIT), "HC0", w=SURVEY, meat=SURVEY**2), rtol=1e-7
    )
    assert np.isnan([fit.aic, fit.aicc, fit.bic]).all()


def test_the_scale_of_sampling_weights_does_not_matter():
    """Weights that sum to n and weights that sum to the population give one estimate and one standard error."""
    small, large = (
        jm.fit(logit, START, LOGIT, weights=jm.sampling(c * SURVEY)) for c in (1.0, 1e6)
    )
    assert_allclose(large.x, small.x, rtol=1e-9)
    assert_allclose(large.se, small.se, rtol=1e-8)


WEIGHTS = {"frequency": (jm.frequency(COUNTS), COUNTS), "sampling": (jm.sampling(SURVEY), SURVEY)}


@pytest.mark.parametrize("name", WEIGHTS)
def test_rows_of_weight_zero_count_nowhere(name):
    """Not in ℓ, n, k, G, nor in any factor: dropping them changes nothing, whatever they hold."""
    weights, w = WEIGHTS[name]
    spoilt = {
        "x": np.where(w[:, None] > 0, LOGIT["x"], 1e3),
        "y": np.where(w > 0, LOGIT["y"], -7.0),
    }
    kept, at = dropped(LOGIT, w), CASES["logit"].params
    rows, inner = logit_rows(at, kept), w[w > 0]
    meat = inner if name == "frequency" else inner**2
    bread = np.linalg.inv(np.tensordot(inner, rows.observed, 1))
    sums, groups = cluster_sums(rows, LABELS[w > 0], inner)
    n = inner.sum() if name == "frequency" else len(inner)
    weighted, heavy = jm.weight(logit, weights), jm.weight(declared_logit, weights)
    for kind in ("HC1", "HC3"):
        assert_allclose(
            jm.vcov(heavy, kind)(at, spoilt), hc(rows, kind, w=inner, meat=meat), rtol=1e-9
        )
    assert_allclose(
        jm.vcov(weighted, "CR1S", clusters=LABELS)(at, spoilt),
        groups / (groups - 1) * (n - 1) / (n - 3) * bread @ sums @ bread,
        rtol=1e-9,
    )


def test_a_cluster_without_weight_is_no_cluster():
    w = np.where(LABELS == 99, 0.0, 1.0)
    at = CASES["logit"].params
    rows = logit_rows(at, dropped(LOGIT, w))
    meat, groups = cluster_sums(rows, LABELS[w > 0])
    assert groups == len(set(LABELS)) - 1
    bread = np.linalg.inv(rows.observed.sum(axis=0))
    v = jm.vcov(jm.weight(logit, jm.sampling(w)), "CR1", clusters=LABELS)(at, LOGIT)
    assert_allclose(v, groups / (groups - 1) * bread @ meat @ bread, rtol=1e-10)


def test_weighted_scores_sum_to_the_weighted_score():
    w, case = SURVEY, CASES["normal"]
    weighted = jm.weight(normal, jm.sampling(w))
    assert_allclose(
        jm.scores(weighted)(case.params, case.data),
        w[:, None] * case.by_hand().scores,
        rtol=ROUNDING_OF_A_SUM,
        atol=1e-13,
    )
    assert_allclose(jm.nll(weighted)(case.params, case.data), -w @ case.by_hand().terms, rtol=1e-13)
    expected = jm.information(jm.weight(declared_normal, jm.sampling(w)), "expected")(
        case.params, case.data
    )
    assert_allclose(
        expected, np.tensordot(w, case.by_hand().expected, 1), rtol=ROUNDING_OF_A_SUM, atol=1e-12
    )


BAD = {
    "bare array": (TypeError, lambda: jm.weight(logit, COUNTS), "say what the weights mean"),
    "bare array in fit": (
        TypeError,
        lambda: jm.fit(logit, START, LOGIT, weights=SURVEY),
        "jaxmle.sampling.w. for survey weights",
    ),
    "fractions as counts": (
        ValueError,
        lambda: jm.fit(logit, START, LOGIT, weights=jm.frequency(SURVEY)),
        "frequency weights count repeated rows and must be integers",
    ),
    "negative": (
        ValueError,
        lambda: jm.fit(logit, START, LOGIT, weights=jm.sampling(SURVEY - 1)),
        "weights must be finite and non-negative; row 0",
    ),
    "not a number": (
        ValueError,
        lambda: jm.fit(logit, START, LOGIT, weights=jm.sampling(SURVEY * np.nan)),
        "weights must be finite and non-negative; row 0",
    ),
    "too few": (
        ValueError,
        lambda: jm.fit(logit, START, LOGIT, weights=jm.sampling(SURVEY[1:])),
        r"weights must have shape \(60,\), one for each row of data; got \(59,\)",
    ),
    "all zero": (
        ValueError,
        lambda: jm.fit(logit, START, LOGIT, weights=jm.frequency(0 * COUNTS)),
        "all weights are zero",
    ),
    "strings": (
        TypeError,
        lambda: jm.fit(logit, START, LOGIT, weights=jm.frequency(np.array(["1"] * N))),
        "weights must be numbers",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_weights_are_checked(case):
    error, ask, told = BAD[case]
    with pytest.raises(error, match=told):
        ask()
