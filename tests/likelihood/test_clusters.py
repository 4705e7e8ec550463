"""CR2 and CR3: Σ (J − A_g)⁻¹s_g s_g'(J − A_g)⁻¹ and its square root, against the formulas and delete-one-cluster estimates."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from tests.likelihoods import logit, probit
from tests.tolerances import ROUNDING_OF_A_SOLVE

from .cases import (
    LOGIT,
    NORMAL,
    PROBIT,
    N,
    X,
    declared_normal,
    declared_probit,
    least_squares,
    logit_rows,
    newton,
    probit_rows,
)

FIRM = np.arange(N) // 5
YEAR = np.arange(N) % 7
AT = newton(probit_rows, PROBIT)
OLS = least_squares(NORMAL)
START = {"beta": np.zeros(3)}


def by_hand(rows, labels, kind, w=None):
    """The sum over clusters, leverage from ``rows.expected`` and bread from ``rows.observed``."""
    w = np.ones(len(rows.scores)) if w is None else w
    j = np.tensordot(w, rows.observed, 1)
    root = np.linalg.cholesky(j)
    total = np.zeros_like(j)
    for g in np.unique(labels):
        mine = labels == g
        s, a = w[mine] @ rows.scores[mine], np.tensordot(w[mine], rows.expected[mine], 1)
        values, q = np.linalg.eigh(
            np.eye(len(j)) - np.linalg.solve(root, np.linalg.solve(root, a).T)
        )
        s = (
            root
            @ q
            @ np.diag(values ** (-0.5 if kind == "CR2" else -1.0))
            @ q.T
            @ np.linalg.solve(root, s)
        )
        total += np.outer(s, s)
    return np.linalg.inv(j) @ total @ np.linalg.inv(j)


@pytest.mark.parametrize("kind", ["CR2", "CR3"])
def test_probit_has_the_sum_over_clusters(kind):
    assert_allclose(
        jm.vcov(declared_probit, kind, clusters=FIRM)(AT, PROBIT),
        by_hand(probit_rows(AT, PROBIT), FIRM, kind),
        rtol=ROUNDING_OF_A_SOLVE,
    )


def test_cr3_of_least_squares_is_the_cluster_jackknife_about_the_estimate():
    total = np.zeros((3, 3))
    for g in range(12):
        moved = np.linalg.lstsq(X[FIRM != g], NORMAL["y"][FIRM != g], rcond=None)[0] - OLS["beta"]
        total += np.outer(moved, moved)
    assert_allclose(
        jm.vcov(declared_normal, "CR3", clusters=FIRM)(OLS, NORMAL)[:3, :3],
        total,
        rtol=ROUNDING_OF_A_SOLVE,
    )


@pytest.mark.parametrize(("kind", "same"), [("CR2", "HC2"), ("CR3", "HC3")])
def test_a_cluster_for_each_row_is_the_hc_kind(kind, same):
    assert_allclose(
        jm.vcov(declared_probit, kind, clusters=np.arange(N))(AT, PROBIT),
        jm.vcov(declared_probit, same)(AT, PROBIT),
        rtol=1e-10,
    )


@pytest.mark.parametrize("kind", ["CR2", "CR3"])
def test_two_way_clusters_add_and_take_the_crossing_off(kind):
    rows, crossing = probit_rows(AT, PROBIT), FIRM * 100 + YEAR
    expected = by_hand(rows, FIRM, kind) + by_hand(rows, YEAR, kind) - by_hand(rows, crossing, kind)
    assert np.all(np.diag(expected) > 0)
    assert_allclose(
        jm.vcov(declared_probit, kind, clusters=(FIRM, YEAR))(AT, PROBIT),
        expected,
        rtol=ROUNDING_OF_A_SOLVE,
    )


def test_frequency_weights_are_repeated_rows_and_weight_zero_is_no_row():
    w = np.array([0.0, 1.0, 3.0, 2.0])[np.arange(N) % 4]
    weighted = jm.vcov(jm.weight(declared_probit, jm.frequency(w)), "CR2", clusters=FIRM)(
        AT, PROBIT
    )
    again = np.repeat(np.arange(N), w.astype(int))
    repeated = jm.vcov(declared_probit, "CR2", clusters=FIRM[again])(
        AT, {key: value[again] for key, value in PROBIT.items()}
    )
    assert_allclose(weighted, repeated, rtol=ROUNDING_OF_A_SOLVE)
    assert_allclose(
        weighted, by_hand(probit_rows(AT, PROBIT), FIRM, "CR2", w), rtol=ROUNDING_OF_A_SOLVE
    )


def test_the_fit_gives_the_same_and_says_where_the_leverage_is_observed():
    fit = jm.fit(declared_probit, START, PROBIT, vcov="CR2", clusters=[f"firm {i}" for i in FIRM])
    assert fit.vcov_kind == "CR2"
    assert_allclose(fit.vcov, by_hand(probit_rows(AT, PROBIT), FIRM, "CR2"), rtol=1e-6)
    assert (
        jm.fit(probit, START, PROBIT, vcov="CR3", clusters=FIRM).vcov_kind
        == "CR3 (observed leverage)"
    )


def test_a_cluster_of_leverage_one_gives_nan_and_its_first_row():
    """Rows 25 to 29 alone carry a dummy."""
    x = X.copy()
    x[:, 2] = FIRM == 5
    fit = jm.fit(
        declared_normal,
        {"beta": np.zeros(3), "sigma": 1.0},
        {"x": x, "y": NORMAL["y"]},
        constraints={"sigma": jm.positive},
        vcov="CR3",
        clusters=FIRM,
    )
    assert np.all(np.isnan(fit.se)) and np.all(np.isfinite(fit.x))
    assert fit.witness.row == 25
    assert "The cluster of row 25 has leverage one, so CR3 does not exist." in fit.explain()


def test_a_negative_two_way_variance_has_no_standard_error_in_the_record():
    """Every firm and every year sums to zero, no cell does: 0 + 0 − Σ over the cells."""
    data = {"x": np.ones((4, 1)), "y": np.array([1.0, -1.0, -1.0, 1.0])}

    def mean(params, data):
        return -0.5 * (data["y"] - data["x"] @ params["beta"]) ** 2

    fit = jm.fit(
        mean,
        {"beta": np.zeros(1)},
        data,
        vcov="CR0",
        clusters=(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])),
    )
    assert fit.converged and np.isnan(fit.se[0])
    assert "which subtracts a sum over the intersections, is negative." in fit.explain()


def test_the_labels_are_needed_and_used():
    with pytest.raises(ValueError, match="vcov='CR2' needs clusters="):
        jm.vcov(logit, "CR2")
    with pytest.raises(ValueError, match="clusters are given but vcov='HC3' does not use them"):
        jm.fit(logit, START, LOGIT, vcov="HC3", clusters=FIRM)
    at = newton(logit_rows, LOGIT)
    assert_allclose(
        jm.vcov(logit, "CR3", clusters=FIRM)(at, LOGIT),
        by_hand(logit_rows(at, LOGIT), FIRM, "CR3"),
        rtol=ROUNDING_OF_A_SOLVE,
    )
