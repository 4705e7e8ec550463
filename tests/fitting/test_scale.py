"""Units do not matter; where digits are lost, the verdict says so."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import Status

from .models import BETA, BETA_SIGMA, linear_data, logistic_data, logit, normal, poisson

DATA = {"logit": (logit, logistic_data(30)), "normal": (normal, linear_data(31))}


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


@pytest.mark.parametrize("name", DATA)
def test_a_column_far_from_zero_is_right_or_not_called_converged(name, plain):
    """θ = (α − cβ, β): the slope and its standard error do not move, the intercept follows."""
    data, old = DATA[name][1], plain[name]
    for shift in (1e3, 1e6, 1e8):
        x = data["x"].copy()
        x[:, 1] += shift
        fit = run(name, data | {"x": x})
        wrong = np.max(np.abs(fit.stderr["beta"][1:] / old.stderr["beta"][1:] - 1))
        off = np.max(
            np.abs(fit.params["beta"][1:] - old.params["beta"][1:]) / old.stderr["beta"][1:]
        )
        if shift == 1e3:
            assert fit.converged, fit.explain()
            assert wrong < 1e-6
            assert off < 1e-6
        if fit.converged:
            assert wrong < 1e-3, (shift, wrong)
            assert off < 1e-3, (shift, off)
        else:
            assert fit.verdict in (Status.IMPRECISE, Status.SINGULAR), fit.explain()


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
        ("normal", normal, plain),
        ("normal_scaled", normal, plain | {"x": x * np.array([1.0, 1e5, 1e-5])}),
        ("normal_far", normal, plain | {"x": far}),
        ("normal_alike", normal, plain | {"x": alike}),
        ("normal_large_mean", normal, plain | {"y": plain["y"] + 1e4}),
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


@pytest.mark.parametrize(
    ("name", "model", "data"),
    badly_scaled(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_float32_is_right_to_a_thousandth_of_a_standard_error_or_not_converged(name, model, data):
    """The oracle is the same fit in float64, of the data as float32 holds them: rounding the data is the user's choice, not the fit's error."""
    data = jax.tree.map(lambda leaf: leaf.astype(np.float32).astype(float), data)
    start = BETA_SIGMA if model is normal else BETA
    options = {"constraints": {"sigma": jm.positive}} if model is normal else {}
    exact, fit = (
        jm.fit(model, start, data, **options),
        jm.fit(model, start, data, dtype="float32", **options),
    )
    assert fit.dtype == np.float32
    assert exact.converged, exact.explain()
    if fit.converged:
        assert np.max(np.abs(fit.x - exact.x) / exact.se) < 1e-3
        assert_allclose(fit.se, exact.se, rtol=2e-3)
    elif fit.verdict != Status.IMPRECISE:
        assert np.isnan(fit.se).any(), fit.explain()
    if name in ("normal", "logit", "poisson"):
        assert fit.converged, fit.explain()
