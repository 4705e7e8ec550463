"""HC0 to HC3 and cluster covariances against explicit formulas, delete-one estimates and statsmodels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from scipy import special, stats

import jaxmle as jm
from tests.likelihoods import logit, probit
from tests.tolerances import ROUNDING_OF_A_SOLVE

from .cases import (
    BETA,
    CASES,
    LOGIT,
    NORMAL,
    POISSON,
    PROBIT,
    N,
    X,
    cluster_sums,
    declared_logit,
    declared_normal,
    declared_poisson,
    declared_probit,
    hc,
    least_squares,
    logit_rows,
    newton,
    normal,
    normal_rows,
    poisson_rows,
    probit_rows,
)

KINDS = ("HC0", "HC1", "HC2", "HC3")
OLS = least_squares(NORMAL)
RESIDUAL = NORMAL["y"] - X @ OLS["beta"]
XX = np.linalg.inv(X.T @ X)
HAT = np.einsum("ia,ab,ib->i", X, XX, X)
MAXIMUM = {
    "logit": newton(logit_rows, LOGIT),
    "poisson": newton(poisson_rows, POISSON),
    "probit": newton(probit_rows, PROBIT),
    "normal": OLS,
}


def ols_sandwich(squares):
    return XX @ X.T @ (squares[:, None] * X) @ XX


@pytest.mark.parametrize("kind", KINDS)
def test_least_squares_has_the_textbook_sandwich(kind):
    """e², e²·n/(n − k), e²/(1 − h), e²/(1 − h)²; k counts σ."""
    squares = {
        "HC0": RESIDUAL**2,
        "HC1": RESIDUAL**2 * N / (N - 4),
        "HC2": RESIDUAL**2 / (1 - HAT),
        "HC3": (RESIDUAL / (1 - HAT)) ** 2,
    }
    v = jm.vcov(declared_normal, kind)(OLS, NORMAL)
    assert_allclose(v[:3, :3], ols_sandwich(squares[kind]), rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_least_squares_agrees_with_statsmodels(kind):
    """statsmodels leaves σ out of k: HC1 differs by (n − 3)/(n − 4)."""
    theirs = sm.OLS(NORMAL["y"], X).fit().get_robustcov_results(kind).bse
    ours = np.sqrt(np.diag(jm.vcov(declared_normal, kind)(OLS, NORMAL)))[:3]
    assert_allclose(ours, theirs * np.sqrt((N - 3) / (N - 4) if kind == "HC1" else 1), rtol=1e-10)


def test_hc3_of_least_squares_is_the_jackknife_about_the_estimate():
    """Σ (β̂ − β̂₍ᵢ₎)(β̂ − β̂₍ᵢ₎)', each β̂₍ᵢ₎ from the data without row i."""
    total = np.zeros((3, 3))
    for i in range(N):
        others = np.arange(N) != i
        moved = np.linalg.lstsq(X[others], NORMAL["y"][others], rcond=None)[0] - OLS["beta"]
        total += np.outer(moved, moved)
    assert_allclose(jm.vcov(declared_normal, "HC3")(OLS, NORMAL)[:3, :3], total, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_logit_has_the_weighted_hat_matrix(kind):
    """h_i = w_i x_i'(X'WX)⁻¹x_i; the same divisors as least squares on the raw residual y − μ."""
    at = MAXIMUM["logit"]
    mu = special.expit(X @ at["beta"])
    w = mu * (1 - mu)
    j = np.linalg.inv(X.T @ (w[:, None] * X))
    h, e = w * np.einsum("ia,ab,ib->i", X, j, X), LOGIT["y"] - mu
    squares = {
        "HC0": e**2,
        "HC1": e**2 * N / (N - 3),
        "HC2": e**2 / (1 - h),
        "HC3": (e / (1 - h)) ** 2,
    }[kind]
    assert_allclose(
        jm.vcov(declared_logit, kind)(at, LOGIT), j @ X.T @ (squares[:, None] * X) @ j, rtol=1e-10
    )


DECLARED = {
    "logit": declared_logit,
    "poisson": declared_poisson,
    "probit": declared_probit,
    "normal": declared_normal,
}
DATA = {name: CASES[name].data for name in CASES}


SUMS = [
    ("probit", "HC0", "observed"),
    ("probit", "HC0", "expected"),
    ("probit", "HC2", "observed"),
    ("probit", "HC3", "expected"),
    ("normal", "HC1", "expected"),
    ("normal", "HC2", "expected"),
    ("normal", "HC3", "observed"),
]


@pytest.mark.parametrize(("name", "kind", "base"), SUMS)
def test_sandwiches_are_the_sums_over_rows(name, kind, base):
    rows = CASES[name].rows(MAXIMUM[name], DATA[name])
    v = jm.vcov(DECLARED[name], kind, bread=base)(MAXIMUM[name], DATA[name])
    assert_allclose(v, hc(rows, kind, base), rtol=ROUNDING_OF_A_SOLVE, atol=1e-12)


def test_the_expected_bread_of_probit_is_another_number():
    """Its link is not canonical: observed and expected information differ at the maximum, by several per cent in HC0."""
    observed, expected = (
        np.diag(jm.vcov(declared_probit, "HC0", bread=b)(MAXIMUM["probit"], PROBIT))
        for b in ("observed", "expected")
    )
    assert np.max(np.abs(observed / expected - 1)) > 0.01
    glm = sm.GLM(PROBIT["y"], X, family=sm.families.Binomial(sm.families.links.Probit())).fit(
        cov_type="HC0"
    )
    hessian = glm.model.hessian(
        glm.params, observed=False
    )  # statsmodels' own bread is the observed one
    each = glm.model.score_obs(glm.params)
    assert_allclose(
        expected,
        np.diag(np.linalg.inv(hessian) @ each.T @ each @ np.linalg.inv(hessian)),
        rtol=1e-6,
    )


def test_poisson_hc_equals_statsmodels():
    theirs = sm.GLM(POISSON["y"], X, family=sm.families.Poisson()).fit(cov_type="HC0", tol=1e-12)
    assert_allclose(
        np.sqrt(np.diag(jm.vcov(declared_poisson, "HC0")(MAXIMUM["poisson"], POISSON))),
        theirs.bse,
        rtol=1e-8,
    )
    assert_allclose(
        jm.vcov(declared_poisson, "HC3")(MAXIMUM["poisson"], POISSON),
        hc(poisson_rows(MAXIMUM["poisson"], POISSON), "HC3"),
        rtol=ROUNDING_OF_A_SOLVE,
    )


def test_hc1_to_hc3_truly_differ_and_grow():
    """For least squares the diagonal of HC0 < HC2 < HC3 whenever every leverage is positive."""
    se = {kind: np.diag(jm.vcov(declared_normal, kind)(OLS, NORMAL))[:3] for kind in KINDS}
    assert np.all(se["HC0"] < se["HC2"]) and np.all(se["HC2"] < se["HC3"])
    assert not np.allclose(se["HC1"], se["HC2"], rtol=1e-4)


def test_the_fit_gives_the_same_sandwich():
    """On the way through the constraint of σ and the solver's own maximum."""
    start = {"beta": np.zeros(3), "sigma": 1.0}
    fit = jm.fit(declared_normal, start, NORMAL, constraints={"sigma": jm.positive}, vcov="HC3")
    assert fit.vcov_kind == "HC3"
    assert_allclose(fit.x, [*OLS["beta"], OLS["sigma"]], rtol=1e-8)
    assert_allclose(fit.vcov, hc(normal_rows(OLS, NORMAL), "HC3"), rtol=1e-6, atol=1e-9)


def test_a_row_of_leverage_one_gives_nan_and_its_number():
    """Row 17 alone carries a dummy: without it its coefficient is not estimable, so that no delete-one estimate exists."""
    x = X.copy()
    x[:, 2] = np.arange(N) == 17
    fit = jm.fit(
        declared_normal,
        {"beta": np.zeros(3), "sigma": 1.0},
        {"x": x, "y": NORMAL["y"]},
        constraints={"sigma": jm.positive},
        vcov="HC3",
    )
    assert np.all(np.isnan(fit.se))
    assert fit.witness.row == 17
    assert "Row 17 has leverage one" in fit.explain()
    assert np.all(np.isfinite(fit.x))


def test_without_a_law_the_leverage_is_observed_and_the_record_says_so():
    """For a canonical link the observed information of a row is the expected one; for probit it is not."""
    fit = jm.fit(logit, {"beta": np.zeros(3)}, LOGIT, vcov="HC3")
    assert fit.vcov_kind == "HC3 (observed leverage)"
    assert_allclose(fit.vcov, hc(logit_rows(MAXIMUM["logit"], LOGIT), "HC3"), rtol=1e-7)
    rows = probit_rows(MAXIMUM["probit"], PROBIT)
    stand_in = jm.vcov(probit, "HC3")(MAXIMUM["probit"], PROBIT)
    assert_allclose(
        stand_in, hc(rows._replace(expected=rows.observed), "HC3"), rtol=ROUNDING_OF_A_SOLVE
    )
    assert np.max(np.abs(np.diag(stand_in) / np.diag(hc(rows, "HC3")) - 1)) > 1e-3


# ---------------------------------------------------------------- clusters

FIRM = np.arange(N) // 5
YEAR = np.arange(N) % 7
LOGIT_ROWS = logit_rows(MAXIMUM["logit"], LOGIT)
BREAD = np.linalg.inv(LOGIT_ROWS.observed.sum(axis=0))


def clustered(kind, clusters):
    return jm.vcov(logit, kind, clusters=clusters)(MAXIMUM["logit"], LOGIT)


@pytest.mark.parametrize(
    ("kind", "factor"),
    [("CR0", 1), ("CR1", 12 / 11), ("cluster", 12 / 11), ("CR1S", 12 / 11 * (N - 1) / (N - 3))],
)
def test_one_way_clusters_are_sums_of_cluster_scores(kind, factor):
    meat, groups = cluster_sums(LOGIT_ROWS, FIRM)
    assert groups == 12
    assert_allclose(clustered(kind, FIRM), factor * BREAD @ meat @ BREAD, rtol=1e-10)


def test_cr1s_is_the_statsmodels_default():
    theirs = sm.Logit(LOGIT["y"], X).fit(
        disp=0, tol=1e-12, cov_type="cluster", cov_kwds={"groups": FIRM}
    )
    assert_allclose(np.sqrt(np.diag(clustered("CR1S", FIRM))), theirs.bse, rtol=1e-8)


def test_a_cluster_for_each_row_is_hc0():
    assert_allclose(clustered("CR0", np.arange(N)), hc(LOGIT_ROWS, "HC0"), rtol=1e-10)


@pytest.mark.parametrize("kind", ["CR0", "CR1"])
def test_two_way_clusters_add_and_take_the_crossing_off(kind):
    crossing = [f"{a}-{b}" for a, b in zip(FIRM, YEAR, strict=True)]
    total = np.zeros((3, 3))
    for sign, labels in ((1, FIRM), (1, YEAR), (-1, crossing)):
        meat, groups = cluster_sums(LOGIT_ROWS, labels)
        total += sign * (groups / (groups - 1) if kind == "CR1" else 1) * meat
    expected = BREAD @ total @ BREAD
    assert np.all(np.diag(expected) > 0)
    for clusters in (np.column_stack([FIRM, YEAR]), (FIRM, YEAR)):
        assert_allclose(clustered(kind, clusters), expected, rtol=ROUNDING_OF_A_SOLVE)


def test_a_negative_two_way_variance_is_nan():
    """Every firm and every year sums to zero, no cell does: 0 + 0 − Σ over the cells."""
    x = np.ones((4, 1))
    y = np.array([1.0, -1.0, -1.0, 1.0])

    def mean(params, data):
        return -0.5 * (data["y"] - data["x"] @ params["beta"]) ** 2

    v = jm.vcov(mean, "CR0", clusters=(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])))(
        {"beta": np.zeros(1)}, {"x": x, "y": y}
    )
    assert np.isnan(v[0, 0])  # 0 + 0 − 4/16


@pytest.mark.parametrize(
    "relabel",
    [
        lambda f: np.array([f"firm {i}" for i in f]),
        lambda f: f * 1000 - 7,
        lambda f: f.astype(float) / 3,
        lambda f: list(map(str, f)),
    ],
)
def test_labels_may_be_anything(relabel):
    meat, _ = cluster_sums(LOGIT_ROWS, FIRM)
    assert_allclose(clustered("CR0", relabel(FIRM)), BREAD @ meat @ BREAD, rtol=1e-10)


def test_clusters_under_a_trace_equal_those_on_the_host():
    meat, groups = cluster_sums(LOGIT_ROWS, FIRM)
    with jax.enable_x64(True):
        v = jax.jit(lambda labels: jm.vcov(logit, "CR1", clusters=labels)(MAXIMUM["logit"], LOGIT))(
            jnp.asarray(FIRM)
        )
    assert_allclose(v, groups / (groups - 1) * BREAD @ meat @ BREAD, rtol=1e-10)


def test_a_fit_with_clusters_is_clustered_by_default():
    fit = jm.fit(logit, {"beta": np.zeros(3)}, LOGIT, clusters=[f"f{i}" for i in FIRM])
    meat, groups = cluster_sums(LOGIT_ROWS, FIRM)
    assert fit.vcov_kind == "CR1"
    assert_allclose(fit.vcov, groups / (groups - 1) * BREAD @ meat @ BREAD, rtol=1e-7)


def test_kinds_and_clusters_are_checked():
    with pytest.raises(ValueError, match="vcov='HC4' is not known"):
        jm.vcov(logit, "HC4")
    with pytest.raises(ValueError, match="vcov='CR1' needs clusters="):
        jm.vcov(logit, "CR1")
    with pytest.raises(ValueError, match="clusters are given but vcov='HC0' does not use them"):
        jm.vcov(logit, "HC0", clusters=FIRM)
    with pytest.raises(ValueError, match="bread must be"):
        jm.vcov(logit, "HC0", bread="opg")
    with pytest.raises(ValueError, match="one label for each of the 60 rows"):
        clustered("CR0", FIRM[:-1])
    with pytest.raises(ValueError, match="clusters are NaN in row 3"):
        clustered("CR0", np.where(np.arange(N) == 3, np.nan, FIRM))


def test_one_scalar_has_no_sandwich():
    def scalar(params, data):
        return jnp.sum(logit(params, data))

    for ask in (
        jm.scores(scalar),
        jm.vcov(scalar, "HC0"),
        jm.information(scalar, "opg"),
        jm.vcov(scalar, "CR0", clusters=FIRM),
    ):
        with pytest.raises(
            ValueError,
            match="needs one log-likelihood term per independent observation, but loglik returns one scalar",
        ):
            ask(BETA, LOGIT)


def test_opg_and_hessian_agree_when_the_model_is_right():
    """Information equality in the sample: for n = 4 000 they differ by some per cent only; under a wrong σ by a factor."""
    rng = np.random.default_rng(5)
    x = np.column_stack([np.ones(4000), rng.normal(size=4000)])
    data = {"x": x, "y": x @ [1.0, 2.0] + rng.normal(size=4000)}
    right = least_squares(data)
    ratio = jm.information(normal, "opg")(right, data) @ np.linalg.inv(
        jm.information(normal)(right, data)
    )
    assert_allclose(ratio, np.eye(3), atol=4 * np.sqrt(8 / 4000) / stats.norm.pdf(0))
    wrong = {**right, "sigma": 2 * right["sigma"]}
    assert (
        jm.information(normal, "opg")(wrong, data)[0, 0]
        < 0.3 * jm.information(normal)(wrong, data)[0, 0]
    )


def test_the_probit_likelihood_of_both_forms_has_one_sandwich():
    opaque = jm.vcov(jm.with_response(probit, jm.enumeration("y", [0.0, 1.0])), "HC2")(
        MAXIMUM["probit"], PROBIT
    )
    assert_allclose(
        opaque, hc(probit_rows(MAXIMUM["probit"], PROBIT), "HC2"), rtol=ROUNDING_OF_A_SOLVE
    )
