"""The 27 nonlinear regressions of NIST StRD as Gaussian maximum likelihood, each from both published starts."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from tests.tolerances import CERTIFIED_SUM, STDERR

from . import nist_models as nist
from .nonlinear import declared

NAMES = list(nist.problems())
# The four of the shared reference set are fitted with the default options.
SHARED = {"Misra1a", "Rat42", "Thurber", "Chwirut2"}
# Newton's steps follow curved valleys for long: 2 400 from the first start of MGH10, 800 from the second of Bennett5.
STEPS = 5000
# Sums of three exponentials. From either start Newton's steps end where two exponents are equal and the coefficients of those two terms
# have opposite signs: a ridge of local maxima, flat along the difference of the coefficients.
MERGED = {"Lanczos1", "Lanczos2", "Lanczos3"}
BOTH_STARTS = pytest.mark.parametrize("which", ["start1", "start2"])


@pytest.mark.parametrize("name", NAMES)
def test_certified_values_are_consistent_with_the_data(name):
    problem, data = nist.problems()[name], nist.columns(name)
    n, p = problem["n"], len(problem["parameters"])
    assert all(len(column) == n for column in data.values())
    with jax.enable_x64(True):
        residuals = data["y"] - np.asarray(nist.MEANS[name](np.asarray(problem["certified"]), data))
    assert_allclose(np.sqrt(problem["rss"] / (n - p)), problem["residual_sd"], rtol=CERTIFIED_SUM)
    if name == "Lanczos1":
        # Its residuals, 1e-13, are below what eleven printed digits of the parameters reproduce.
        assert np.abs(residuals).max() < 1e-10
    else:
        assert_allclose(residuals @ residuals, problem["rss"], rtol=CERTIFIED_SUM)


@BOTH_STARTS
@pytest.mark.parametrize("name", [name for name in NAMES if name not in MERGED])
def test_both_published_starts_lead_to_the_certified_values(name, which):
    options = {} if name in SHARED else {"max_steps": STEPS}
    fit = jm.fit(
        nist.gaussian(name),
        nist.start(name, which),
        nist.columns(name),
        constraints={"sigma": jm.positive},
        **options,
    )
    assert fit.verdict == jm.Status.CONVERGED, fit.explain()
    assert_certified(name, fit)


@pytest.mark.parametrize("name", ["Lanczos2", "Lanczos3"])
def test_two_exponentials_merged_into_one_are_left_for_the_certified_values(name):
    """From the first start the climb meets the ridge on which two rates are equal, and is led on from there. The order of the
    terms is free: they are compared by their rates.
    """
    fit = jm.fit(
        nist.gaussian(name),
        nist.start(name, "start1"),
        nist.columns(name),
        constraints={"sigma": jm.positive},
    )
    assert fit.verdict == jm.Status.CONVERGED, fit.explain()
    problem = nist.problems()[name]
    certified, sd = (
        np.asarray(problem[key]).reshape(3, 2) for key in ("certified", "standard_deviation")
    )
    terms = fit.params["b"].reshape(3, 2)
    terms = terms[np.argsort(terms[:, 1])]
    assert (np.abs(terms - certified) <= np.maximum(1e-8 * np.abs(certified), 1e-6 * sd)).all()


def test_lanczos1_from_its_first_start_is_at_the_rounding_of_its_data_and_says_so():
    fit = jm.fit(
        nist.gaussian("Lanczos1"),
        nist.start("Lanczos1", "start1"),
        nist.columns("Lanczos1"),
        constraints={"sigma": jm.positive},
    )
    assert fit.verdict in (jm.Status.STALLED, jm.Status.IMPRECISE), fit.explain()
    certified = np.sort(nist.problems()["Lanczos1"]["certified"])
    assert_allclose(np.sort(fit.params["b"]), certified, rtol=1e-7)


@pytest.mark.parametrize("name", sorted(MERGED))
def test_two_exponentials_merged_into_one_are_not_called_converged(name):
    """From the second start the ridge is where the climb ends: ℓ falls from it but in a short interval far off."""
    fit = jm.fit(
        nist.gaussian(name),
        nist.start(name, "start2"),
        nist.columns(name),
        constraints={"sigma": jm.positive},
    )
    assert fit.verdict in (jm.Status.SINGULAR, jm.Status.UNIDENTIFIED), fit.explain()
    b, se = fit.params["b"], fit.stderr["b"]
    pairs = [
        (i, j) for i in (1, 3, 5) for j in (1, 3, 5) if i < j and np.isclose(b[i], b[j], rtol=1e-6)
    ]
    assert len(pairs) == 1
    first, second = (k - 1 for k in pairs[0])
    assert b[first] * b[second] < 0
    assert np.isnan(se[[first, second]]).all()
    assert fit.decrement < 5e-13  # 1e-6 standard errors: a stationary point


@BOTH_STARTS
@pytest.mark.parametrize("name", ["Bennett5", "Lanczos2", "Lanczos3"])
def test_scoring_leads_to_the_certified_values_where_newton_is_slow_or_strays(name, which):
    options = {"constraints": {"sigma": jm.positive}, "solver": jm.solvers.Scoring()}
    fit = jm.fit(declared(name), nist.start(name, which), nist.columns(name), **options)
    assert fit.verdict == jm.Status.CONVERGED, fit.explain()
    assert_certified(name, fit)


@BOTH_STARTS
def test_lanczos1_is_at_the_rounding_of_its_data_and_says_so(which):
    """Its residuals are 1e-13 of the response: one unit in the last place of the response is 0.003 of sigma."""
    options = {"constraints": {"sigma": jm.positive}, "solver": jm.solvers.Scoring()}
    fit = jm.fit(
        declared("Lanczos1"), nist.start("Lanczos1", which), nist.columns("Lanczos1"), **options
    )
    assert_allclose(fit.params["b"], nist.problems()["Lanczos1"]["certified"], rtol=1e-8)
    assert fit.verdict in (jm.Status.STALLED, jm.Status.IMPRECISE), fit.explain()


def assert_certified(name, fit):
    """Estimates to eight digits, and standard errors under expected information after NIST's degrees of freedom."""
    problem, data = nist.problems()[name], nist.columns(name)
    n, p = problem["n"], len(problem["parameters"])
    certified, sd = np.asarray(problem["certified"]), np.asarray(problem["standard_deviation"])
    # Eight digits, or 1e-6 standard errors where the data do not hold eight (Bennett5: the SE is 12 % of b1).
    assert (
        np.abs(fit.params["b"] - certified) <= np.maximum(1e-8 * np.abs(certified), 1e-6 * sd)
    ).all()
    expected = jm.vcov(declared(name), kind="expected")(fit.params, data)
    se = np.sqrt(np.diagonal(np.asarray(expected))[:p] * n / (n - p))
    assert_allclose(se, sd, rtol=STDERR)
