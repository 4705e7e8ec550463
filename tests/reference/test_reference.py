"""Fits of user-written log-likelihoods against the numbers of other software, case by case.

The files carry about 1e-9 standard errors in the estimates, 1e-9 (at worst 6e-9) relative in the standard errors, 1e-8 in the
robust ones (numerical derivatives enter twice) and 1e-11 in the log-likelihood, so the tolerances here are those of the fit.
"""

import functools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle.inference.profiles.profile import profile
from jaxmle.inference.profiles.root_finder import End
from tests.tolerances import (
    CORRELATION,
    ESTIMATE_IN_SE,
    INTERVAL_END_IN_SE,
    LOGLIK,
    ROBUST_COVARIANCE,
    STDERR,
)

from .cases import CASES
from .oracle import FOLDER, Case, flat, table
from .test_degenerate import FILES

SCALARS = {"s20_cox_ovarian", "s24_locallevel_nile", "s28_garch_dax"}
BY_TERMS = [case for case in CASES if case.file.get("robust") and case.name not in SCALARS]
BY_CLUSTERS = [case for case in CASES if case.clusters is not None]
WITH_EXPECTED = [case for case in CASES if case.file["se_expected"]]


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@functools.cache
def fit_by_name(name: str) -> jm.Fit:
    case = next(case for case in CASES if case.name == name)
    return jm.fit(
        case.loglik, case.start, case.data, constraints=case.constraints, weights=case.weights
    )


def fitted(case: Case) -> jm.Fit:
    """The fit of a case, made once."""
    return fit_by_name(case.name)


def stderr(vcov):
    return np.sqrt(np.diagonal(np.asarray(vcov)))


def robust(case, kind, **options):
    """Standard errors of another covariance at the fit, (p,)."""
    return stderr(jm.vcov(case.loglik, kind=kind, **options)(fitted(case).params, case.data))


@by_name(CASES)
def test_estimates_are_those_of_the_file(case):
    fit = fitted(case)
    assert fit.verdict == jm.Status.CONVERGED, fit.explain()
    assert fit.converged
    distance = (fit.x - flat(case, case.file["estimates"])) / flat(case, case.file["se_observed"])
    assert_allclose(distance, 0.0, atol=ESTIMATE_IN_SE)


@by_name(CASES)
def test_loglik_and_criteria_are_those_of_the_file(case):
    fit, file = fitted(case), case.file
    # |ℓ| <= Σ|terms|, so this is no looser than 1e-9 of the terms.
    atol = 1e-9 * max(1.0, abs(file["loglik"]))
    assert_allclose(fit.loglik, file["loglik"], rtol=0, atol=atol)
    assert_allclose(fit.aic, file["aic"], rtol=0, atol=2 * atol)
    # The file counts rows; a fit of grouped data counts its independent units.
    n = case.units if case.weights is None else file["n_obs"]
    assert_allclose(fit.n, n)
    assert_allclose(
        fit.bic + fit.df * np.log(file["n_obs"] / n), file["bic"], rtol=0, atol=2 * atol
    )


@by_name(CASES)
def test_observed_standard_errors_are_those_of_the_file(case):
    fit, se = fitted(case), flat(case, case.file["se_observed"])
    assert fit.vcov_kind == "observed"
    assert_allclose(fit.se, se, rtol=STDERR)
    if "vcov_observed" in case.file:
        order = [case.file["parameters"].index(label) for label in case.labels]
        expected = np.asarray(case.file["vcov_observed"])[np.ix_(order, order)]
        assert_allclose(
            fit.vcov / np.outer(se, se), expected / np.outer(se, se), rtol=0, atol=CORRELATION
        )


@by_name(CASES)
def test_wald_intervals_of_the_user_scale_are_those_of_the_file(case):
    fit, se = fitted(case), flat(case, case.file["se_observed"])
    ends = np.asarray([case.file["ci_wald_95"][label] for label in case.labels])
    assert_allclose(
        fit.interval(0.95, "user") / se[:, None],
        ends / se[:, None],
        rtol=0,
        atol=INTERVAL_END_IN_SE,
    )


BY_OTHER_SOLVERS = [
    "s03_exponential_aircondit",
    "s12_poisson_offset_insurance",
    "s18_aft_weibull_lung",
    "s27_mixture_faithful",
]


@pytest.mark.thorough
@by_name([case for case in CASES if case.name in BY_OTHER_SOLVERS])
@pytest.mark.parametrize("solver", [jm.solvers.BHHH(), jm.solvers.LBFGS()], ids=["BHHH", "LBFGS"])
def test_other_solvers_reach_the_same_maximum(case, solver):
    """BHHH takes 1 600 steps to the Poisson regression of insurance claims: its scores are overdispersed."""
    fit = jm.fit(case.loglik, case.start, case.data, constraints=case.constraints, solver=solver)
    assert fit.verdict == jm.Status.CONVERGED, fit.explain()
    se = flat(case, case.file["se_observed"])
    assert_allclose((fit.x - flat(case, case.file["estimates"])) / se, 0.0, atol=ESTIMATE_IN_SE)
    assert_allclose(fit.se, se, rtol=STDERR)


@pytest.mark.thorough
@by_name(BY_TERMS)
@pytest.mark.parametrize("kind", ["HC0", "HC1", "opg"])
def test_robust_standard_errors_are_those_of_the_file(case, kind):
    expected = flat(case, case.file["robust"][kind.upper()])
    k, rows, units = case.file["n_params"], case.file["n_obs"], case.units
    # HC1 = HC0 n / (n - k): the file's n counts rows, ours the independent units that gave the scores.
    factor = (units / (units - k)) / (rows / (rows - k)) if kind == "HC1" else 1.0
    assert_allclose(robust(case, kind), expected * np.sqrt(factor), rtol=ROBUST_COVARIANCE)


@by_name(BY_CLUSTERS)
def test_cluster_standard_errors_are_those_of_the_file(case):
    file, groups = case.file["robust"], len(np.unique(case.clusters))
    assert groups == file["cluster_G"]
    cr0, cr1 = (robust(case, kind, clusters=case.clusters) for kind in ("CR0", "CR1"))
    assert_allclose(cr0, flat(case, file["cluster_CR0"]), rtol=ROBUST_COVARIANCE)
    assert_allclose(cr1, flat(case, file["cluster_G_over_Gm1"]), rtol=ROBUST_COVARIANCE)
    n, k = case.file["n_obs"], case.file["n_params"]
    assert_allclose(
        cr1 * np.sqrt((n - 1) / (n - k)),
        flat(case, file["cluster_stata_style"]),
        rtol=ROBUST_COVARIANCE,
    )


@pytest.mark.thorough
@by_name(WITH_EXPECTED)
def test_expected_standard_errors_are_those_of_the_file(case):
    fit = jm.fit(
        case.declared, case.start, case.data, constraints=case.constraints, vcov="expected"
    )
    assert fit.verdict == jm.Status.CONVERGED, fit.explain()
    keep = [label not in case.not_expected for label in case.labels]
    expected = np.asarray([case.file["se_expected"].get(label, np.nan) for label in case.labels])
    assert_allclose(fit.se[keep], expected[keep], rtol=STDERR)
    assert_allclose(
        fit.loglik, case.file["loglik"], rtol=0, atol=LOGLIK * max(1.0, abs(case.file["loglik"]))
    )


@by_name([case for case in CASES if case.name in SCALARS])
def test_a_scalar_likelihood_has_no_robust_standard_errors(case):
    with pytest.raises(ValueError, match="scalar"):
        robust(case, "HC0")


@pytest.mark.parametrize("kind", ["HC0", "HC2", "HC3"])
def test_a_linear_model_has_the_robust_standard_errors_of_lm(kind):
    case = next(case for case in CASES if case.name == "s09_linear_mtcars")
    expected = list(case.file["sandwich_lm"][kind].values())
    vcov = jm.vcov(case.declared, kind=kind)(fitted(case).params, case.data)
    assert_allclose(stderr(vcov)[:4], expected, rtol=ROBUST_COVARIANCE)


def test_every_file_has_a_case():
    stored = {path.stem for path in FOLDER.glob("s*.json")}
    assert {case.name for case in CASES} | set(FILES) == stored
    assert len(stored) == 54
    assert all(len(table(name)) for name in stored)


@by_name([case for case in CASES if case.file.get("ci_profile_95")])
def test_ends_of_profile_intervals_are_those_of_the_file(case):
    """The files' ends come from a bisection, with about seven digits."""
    found = profile(case.loglik, fitted(case), case.data, weights=case.weights, points=0)
    assert_array_equal(found.lower_status, End.FOUND)
    assert_array_equal(found.upper_status, End.FOUND)
    assert np.all(np.abs(found.error) <= 1e-8)
    file = case.file["ci_profile_95"]
    known = [j for j, label in enumerate(case.labels) if label in file]
    assert len(known) >= 1
    expected = np.array([file[case.labels[j]] for j in known])
    assert_allclose(
        (found.interval()[known] - expected) / flat(case, case.file["se_observed"])[known, None],
        0.0,
        atol=1e-5,
    )
