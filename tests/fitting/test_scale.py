"""Units do not matter; where digits are lost, the verdict says so."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import Status
from tests.likelihoods import logit, normal_regression, poisson

from .models import BETA, BETA_SIGMA, linear_data, logistic_data

DATA = {"logit": (logit, logistic_data(30)), "normal": (normal_regression, linear_data(31))}


def run(name, data, start=None, **options):
    model = DATA[name][0]
    sigma = name == "normal"
    return jm.fit(
        model,
        start or (BETA_SIGMA if sigma else BETA),
        data,
        constraints={"sigma": jm.positive} if sigma else None,
        **options,
    )


@pytest.fixture(scope="module")
def plain():
    return {name: run(name, data) for name, (_, data) in DATA.items()}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e6, 1e12])
def test_rescaling_a_column_changes_nothing(name, factor, plain):
    scale = np.array([1.0, factor, 1.0])
    data = DATA[name][1]
    fit, old = run(name, data | {"x": data["x"] * scale}), plain[name]
    assert fit.converged, fit.explain()
    assert_allclose(
        fit.params["beta"] * scale, old.params["beta"], rtol=0, atol=1e-8 * old.se.min()
    )
    assert_allclose(fit.stderr["beta"] * scale, old.stderr["beta"], rtol=1e-8)
    assert_allclose(fit.loglik, old.loglik, rtol=1e-12)
    assert abs(int(fit.steps) - int(old.steps)) <= 2


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_rescaling_a_column_and_its_start_changes_nothing(factor):
    scale = np.array([1.0, factor, 1.0])
    data, start = DATA["logit"][1], np.array([0.5, -0.5, 0.5])
    old = run("logit", data, {"beta": start})
    fit = run("logit", data | {"x": data["x"] * scale}, {"beta": start / scale})
    assert_allclose(
        fit.params["beta"] * scale, old.params["beta"], rtol=0, atol=1e-8 * old.se.min()
    )
    assert abs(int(fit.steps) - int(old.steps)) <= 2


def errors_of_slopes(name, shift, old):
    """A fit with a column moved away from zero, and how far its slopes are off in standard errors, their errors by ratio.

    θ = (α − cβ, β): the slope and its standard error do not move, the intercept follows.
    """
    data = DATA[name][1]
    x = data["x"].copy()
    x[:, 1] += shift
    fit = run(name, data | {"x": x})
    error, exact = fit.stderr["beta"][1:], old.stderr["beta"][1:]
    off = np.max(np.abs(fit.params["beta"][1:] - old.params["beta"][1:]) / exact)
    return fit, off, np.max(np.abs(error / exact - 1))


@pytest.mark.parametrize("name", DATA)
def test_a_column_a_thousand_units_from_zero_converges_to_the_same_slopes(name, plain):
    fit, off, wrong = errors_of_slopes(name, 1e3, plain[name])
    assert fit.verdict == Status.CONVERGED, fit.explain()
    assert off < 1e-6
    assert wrong < 1e-6


@pytest.mark.parametrize("name", DATA)
def test_a_column_a_million_units_from_zero_is_imprecise_but_right(name, plain):
    """The condition of the information is the square of the shift: 1e12 leaves it four of 16 digits."""
    fit, off, wrong = errors_of_slopes(name, 1e6, plain[name])
    assert fit.verdict == Status.IMPRECISE, fit.explain()
    assert off < 1e-3
    assert wrong < 1e-2


@pytest.mark.parametrize("name", DATA)
def test_a_column_a_hundred_million_units_from_zero_has_no_standard_errors(name, plain):
    """A condition of 1e16 leaves no digit of the information: a regular maximum that rounding hides, or a singular one."""
    fit, *_ = errors_of_slopes(name, 1e8, plain[name])
    assert fit.verdict in (Status.SINGULAR, Status.IMPRECISE), fit.explain()
    assert np.isnan(fit.se).any()


def badly_scaled():
    """Columns in other units, far from zero, nearly alike, of counts in the thousands: what float32 finds hard."""
    rng = np.random.default_rng(32)
    plain = linear_data(31)
    x = plain["x"]
    far, alike = x.copy(), x.copy()
    far[:, 1] += 1e3
    alike[:, 2] = x[:, 1] + 1e-3 * x[:, 2]
    counts = logistic_data(30)
    return [
        ("normal", normal_regression, plain),
        ("normal_scaled", normal_regression, plain | {"x": x * np.array([1.0, 1e5, 1e-5])}),
        ("normal_far", normal_regression, plain | {"x": far}),
        ("normal_alike", normal_regression, plain | {"x": alike}),
        ("normal_large_mean", normal_regression, plain | {"y": plain["y"] + 1e4}),
        ("logit", logit, counts),
        ("logit_far", logit, counts | {"x": far}),
        ("logit_alike", logit, counts | {"x": alike}),
        (
            "poisson",
            poisson,
            counts | {"y": rng.poisson(np.exp(x @ np.array([0.3, 0.5, -0.2]))).astype(float)},
        ),
        (
            "poisson_large",
            poisson,
            counts | {"y": rng.poisson(np.exp(7 + 0.3 * x[:, 1])).astype(float)},
        ),
    ]


# Columns that are alike to a thousandth or a thousand standard deviations from zero: condition numbers of 1e6 and more, of which the
# square is beyond single precision.
BEYOND_FLOAT32 = {"normal_far", "normal_alike", "logit_far", "logit_alike"}
# A response of 1e4 ± 1 has three digits left: how a release of jax sums decides whether the last step still shows (0.10) or not (0.12).
AT_THE_EDGE_OF_FLOAT32 = {"normal_large_mean"}


@pytest.mark.parametrize(
    ("name", "model", "data"),
    badly_scaled(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_float32_is_right_to_a_thousandth_of_a_standard_error_or_not_converged(name, model, data):
    """The oracle is the same fit in float64, of the data as float32 holds them: rounding the data is the user's choice, not the fit's error."""
    data = jax.tree.map(lambda leaf: leaf.astype(np.float32).astype(float), data)
    start = BETA_SIGMA if model is normal_regression else BETA
    options = {"constraints": {"sigma": jm.positive}} if model is normal_regression else {}
    exact, fit = (
        jm.fit(model, start, data, **options),
        jm.fit(model, start, data, dtype="float32", **options),
    )
    assert fit.dtype == np.float32
    assert exact.converged, exact.explain()
    stalls = name in AT_THE_EDGE_OF_FLOAT32 and fit.verdict == Status.STALLED
    assert stalls or fit.converged == (name not in BEYOND_FLOAT32), fit.explain()
    if name in BEYOND_FLOAT32:
        assert fit.verdict == Status.IMPRECISE or np.isnan(fit.se).any(), fit.explain()
    else:
        # where it stalls it says how far it is from the maximum, 0.016 SE on jax 0.12, and is no farther than four times that
        allowed = 4 * float(fit.witness.distance) if stalls else 1e-3
        assert np.max(np.abs(fit.x - exact.x) / exact.se) < allowed
        assert stalls or np.allclose(fit.se, exact.se, rtol=2e-3)
