"""Curves, quantiles and residuals of accelerated failure time fits: closed forms at R's estimates and covariance (s18), lifelines."""

from __future__ import annotations

import jax
import lifelines
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import models
from jaxmle.survival import cumulative_hazard, hazard, quantile, residuals, survival
from tests.reference.oracle import design, expected, table

COLUMNS = table("s18_aft_weibull_lung")
DATA = {
    "x": design(COLUMNS, "age", "sex", "ecog"),
    "time": COLUMNS["time"],
    "event": COLUMNS["status"],
}
NEW = {"x": np.array([[1.0, 60, 1, 0], [1, 75, 2, 2]])}
TIMES = np.array([30.0, 180.0, 900.0])
R = expected("s18_aft_weibull_lung")
THETA = np.array([R["estimates"][name] for name in R["parameters"]])  # the last is log scale
VCOV = np.array(R["vcov_observed"])


@pytest.fixture(scope="module")
def fitted():
    return jm.fit(models.aft("weibull"), data=DATA)


def closed(theta, x, t):
    """H = (t e^{−xβ})^{1/σ} of Weibull times."""
    return (t * np.exp(-x @ theta[:-1])) ** np.exp(-theta[-1])


def by_differences(g, theta):
    """The standard error of g(θ̂) from R's covariance, with a gradient by central differences."""
    steps = 1e-6 * np.maximum(1.0, np.abs(theta))
    gradient = np.array([(g(theta + h) - g(theta - h)) / (2 * h.sum()) for h in np.diag(steps)])
    return np.sqrt(gradient @ VCOV @ gradient)


QUANTITIES = {
    "survival": (survival, lambda H, theta, t: np.exp(-H)),
    "cumulative_hazard": (cumulative_hazard, lambda H, theta, t: H),
    "hazard": (hazard, lambda H, theta, t: H / (t * np.exp(theta[-1]))),
}


@pytest.mark.parametrize("name", QUANTITIES)
def test_curves_and_their_standard_errors_are_the_closed_forms_at_the_estimates_of_survreg(name, fitted):  # fmt: skip
    function, of = QUANTITIES[name]
    curve = function(models.aft("weibull"), fitted, DATA, TIMES, new=NEW)
    assert curve.estimate.shape == (2, 3)
    for i, x in enumerate(NEW["x"]):
        for k, t in enumerate(TIMES):

            def g(theta, x=x, t=t):
                return of(closed(theta, x, t), theta, t)

            # R's estimates are good to 1e-9 SE, differences to 1e-7
            assert_allclose(curve.estimate[i, k], g(THETA), rtol=1e-7)
            assert_allclose(curve.stderr[i, k], by_differences(g, THETA), rtol=1e-6)


def test_the_log_log_band_of_survival_is_the_log_band_of_the_cumulative_hazard(fitted):
    model = models.aft("weibull")
    whole = survival(model, fitted, DATA, TIMES, new=NEW)
    total = cumulative_hazard(model, fitted, DATA, TIMES, new=NEW)
    assert_allclose(whole.lower, np.exp(-total.upper), rtol=1e-9)
    assert_allclose(whole.upper, np.exp(-total.lower), rtol=1e-9)


def test_quantiles_have_the_standard_errors_of_predict_survreg(fitted):
    """log t_p = xβ + σ log(−log(1 − p)), linear in (β, σ)."""
    curve = quantile(models.aft("weibull"), fitted, DATA, [0.1, 0.5], new=NEW)
    sigma = np.exp(THETA[-1])
    for k, p in enumerate((0.1, 0.5)):
        w = np.log(-np.log1p(-p))
        gradient = np.column_stack([NEW["x"], np.full(2, sigma * w)])
        stderr = np.sqrt(np.einsum("ni,ij,nj->n", gradient, VCOV, gradient))
        value = np.exp(NEW["x"] @ THETA[:-1] + sigma * w)
        assert_allclose(curve.estimate[:, k], value, rtol=1e-8)
        assert_allclose(curve.stderr[:, k], value * stderr, rtol=1e-7)
        assert_allclose(curve.upper[:, k], value * np.exp(1.959963984540054 * stderr), rtol=1e-7)


def test_methods_of_the_model_are_pure_and_agree(fitted):
    model = models.aft("weibull")
    want = survival(model, fitted, DATA, TIMES, new=NEW).estimate
    assert_allclose(model.survival(fitted.params, NEW, TIMES), want, rtol=1e-12)
    assert_allclose(model.survival(fitted.params, NEW, 180.0), want[:, 1], rtol=1e-12)
    with jax.enable_x64(True):
        traced = jax.jit(lambda params: model.cumulative_hazard(params, NEW, TIMES))(fitted.params)
    assert_allclose(traced, -np.log(want), rtol=1e-12)
    assert_allclose(
        model.hazard(fitted.params, NEW, 180.0),
        hazard(model, fitted, NEW, 180.0).estimate[:, 0],
        rtol=1e-12,
    )


def test_parameters_without_a_covariance_have_curves_without_bands(fitted):
    curve = survival(models.aft("weibull"), fitted.params, NEW, TIMES)
    assert np.isfinite(curve.estimate).all()
    assert np.isnan(curve.stderr).all() and np.isnan(curve.lower).all()


def test_what_the_data_do_not_determine_has_no_standard_error(fitted):
    """Age twice: a new row that keeps both equal is determined, one that does not is not."""
    data = {**DATA, "x": DATA["x"][:, [0, 1, 2, 3, 1]]}
    model = models.aft("weibull")
    fit = jm.fit(model, data=data)
    assert fit.verdict.name == "UNIDENTIFIED"
    new = {"x": np.array([[1.0, 60, 1, 0, 60], [1.0, 60, 1, 0, 61]])}
    curve = cumulative_hazard(model, fit, data, TIMES, new=new)
    want = cumulative_hazard(model, fitted, DATA, TIMES, new=NEW)
    assert_allclose(curve.stderr[0], want.stderr[0], rtol=1e-5)
    assert np.isnan(curve.stderr[1]).all()


def test_residuals_are_their_closed_forms(fitted):
    model = models.aft("weibull")
    total = np.array([closed(THETA, x, t) for x, t in zip(DATA["x"], DATA["time"], strict=True)])
    assert_allclose(residuals(model, fitted, DATA, "cox-snell"), total, rtol=1e-7)
    martingale = residuals(model, fitted, DATA)
    assert_allclose(martingale, DATA["event"] - total, rtol=1e-6, atol=1e-8)
    assert abs(martingale.sum()) < 1e-6  # the score of the intercept, times σ
    deviance = residuals(model, fitted, DATA, "deviance")
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = martingale + np.where(DATA["event"] == 1, np.log(total), 0.0)
    assert_allclose(deviance, np.sign(martingale) * np.sqrt(-2 * inner), rtol=1e-5, atol=1e-5)


def test_residuals_after_late_entry_count_the_hazard_from_entry_on():
    model = models.aft("weibull", entry="entry")
    data = {**DATA, "entry": np.floor(DATA["time"] / 3)}
    params = {"beta": THETA[:-1], "scale": np.exp(THETA[-1])}
    whole = residuals(models.aft("weibull"), params, DATA, "cox-snell")
    before = residuals(models.aft("weibull"), params, {**DATA, "time": np.maximum(data["entry"], 1e-9)}, "cox-snell")  # fmt: skip
    assert_allclose(residuals(model, params, data, "cox-snell"), whole - before, rtol=1e-9)


def test_left_and_interval_censored_times_have_no_cox_snell_residual():
    data = {**DATA, "event": np.where(np.arange(227) == 5, 2, DATA["event"])}
    params = {"beta": THETA[:-1], "scale": np.exp(THETA[-1])}
    with pytest.raises(ValueError, match="event is 2 in row 5"):
        residuals(models.aft("weibull"), params, data)


# ---------------------------------------------------------------- a modelled shape


def test_a_modelled_scale_is_the_ancillary_regression_of_lifelines():
    """Its shape ρ = exp(z a) is 1/scale, so that a = −γ; its optimiser stops at about 1e-5."""
    frame = pd.DataFrame({name: COLUMNS[name] for name in ("time", "status", "age", "sex")})
    frame["age"] /= 10
    other = lifelines.WeibullAFTFitter().fit(frame, "time", "status", ancillary="sex", formula="age + sex")  # fmt: skip
    x = np.column_stack([np.ones(227), frame["age"], frame["sex"]])
    data = {**DATA, "x": x, "z": x[:, [0, 2]]}
    fit = jm.fit(models.aft("weibull", scale="z"), data=data)
    theirs = other.params_
    lam, rho = theirs["lambda_"], theirs["rho_"]
    names = ["Intercept", "age", "sex"]
    assert_allclose(fit.params["beta"], [lam[name] for name in names], rtol=1e-3)
    assert_allclose(fit.params["gamma"], [-rho[name] for name in ("Intercept", "sex")], rtol=2e-3)
    assert_allclose(fit.loglik, other.log_likelihood_, rtol=1e-8)
    curve = survival(models.aft("weibull", scale="z"), fit, data, TIMES)
    predicted = other.predict_survival_function(frame, times=TIMES).to_numpy().T
    assert_allclose(curve.estimate, predicted, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("law", ["weibull", "lognormal", "loglogistic"])
def test_a_modelled_scale_of_an_intercept_alone_is_one_scale(law):
    ones = np.ones((227, 1))
    modelled = jm.fit(models.aft(law, scale="z"), data={**DATA, "z": ones})
    plain = jm.fit(models.aft(law), data=DATA)
    assert_allclose(np.exp(modelled.params["gamma"][0]), plain.params["scale"], rtol=1e-7)
    assert_allclose(modelled.loglik, plain.loglik, rtol=1e-12)


def test_exponential_times_have_no_scale_to_model():
    with pytest.raises(ValueError, match="for exponential times it is fixed"):
        models.aft("exponential", scale="z")
