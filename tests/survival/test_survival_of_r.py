"""Curves, bands, baselines, residuals, robust covariances, cox.zph and survreg against R 4.2.2, survival 3.5.3 (survival.R)."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import models
from jaxmle.survival import (
    aalen_johansen,
    baseline,
    kaplan_meier,
    nelson_aalen,
    proportional_hazards_test,
    quantile,
    residuals,
    schoenfeld,
    survival,
)
from jaxmle.survival.bands import SURVIVAL_BANDS

R = json.loads((Path(__file__).parent / "survival_of_r.json").read_text())
LUNG = jm.datasets.load("lung").data
PLACE = np.arange(len(LUNG["time"]))
MONTH = np.ceil(LUNG["time"] / 30.4375)
DEATH = LUNG["death"]
ENTRY = np.where(PLACE % 4 == 0, np.minimum(PLACE % 5, MONTH - 1), 0.0)
WEIGHT = jm.frequency(PLACE % 3 + 1)
CLUSTER = PLACE % 20
NEW = {"age": [50.0, 70.0], "ecog": [0.0, 2.0], "part": [0.1, 0.0], "sex": [1.0, 2.0]}
TIES = ("efron", pytest.param("breslow", marks=pytest.mark.thorough))
SAME = {"rtol": 1e-8, "atol": 1e-10}  # R's fits end at 1e-13 of the log-likelihood
TABLE = {
    **LUNG, "month": MONTH, "entry": ENTRY, "part": 0.1 * (PLACE % 3), "cluster": CLUSTER,
}  # fmt: skip


def array(values):
    return np.array(values, dtype=float)


def assert_curve(curve, of_r):
    """An estimate with its standard errors and band. R has no band where S is 0, nor where it is 1."""
    inner = (curve.estimate > 0) & (curve.estimate < 1)
    assert_allclose(curve.estimate, of_r["estimate"], **SAME)
    for name, other in (("stderr", "std_error"), ("lower", "lower"), ("upper", "upper")):
        assert_allclose(getattr(curve, name)[inner], array(of_r[other])[inner], **SAME)


# ---------------------------------------------------------------- without a model


@pytest.mark.parametrize("band", SURVIVAL_BANDS)
def test_kaplan_meier_and_its_band_are_survfit_s(band):
    assert_curve(kaplan_meier(MONTH, DEATH, band=band), R[f"km {band}"])
    weighted = kaplan_meier(MONTH, DEATH, entry=ENTRY, weights=WEIGHT, band=band)
    assert_curve(weighted, R[f"km entry {band}"])


def test_sampling_weights_have_the_robust_variance_of_survfit():
    weights = jm.sampling(0.5 + (PLACE % 7) / 4)
    assert_curve(kaplan_meier(MONTH, DEATH, weights=weights), R["km robust"])
    hazard = nelson_aalen(MONTH, DEATH, weights=weights)
    assert_allclose(hazard.estimate, R["na robust"]["estimate"], **SAME)
    assert_allclose(hazard.stderr, R["na robust"]["std_error"], **SAME)


def test_cumulative_hazards_quantiles_and_means_are_survfit_s():
    hazard = nelson_aalen(MONTH, DEATH)
    assert_allclose(hazard.estimate, R["na"]["estimate"], **SAME)
    assert_allclose(hazard.stderr, R["na"]["std_error"], **SAME)
    curve = kaplan_meier(MONTH, DEATH)
    found = np.array([curve.quantile(p) for p in (0.25, 0.5, 0.75)])
    assert found.T.tolist() == [R["quantile"][name] for name in ("estimate", "lower", "upper")]
    assert_allclose(curve.restricted_mean(20.0), R["mean"], **SAME)


def test_incidences_of_causes_are_survfit_s():
    curves = aalen_johansen(MONTH, np.where(DEATH == 1, PLACE % 2 + 1, 0))
    for place, curve in enumerate(curves.values()):
        assert_allclose(curve.estimate, array(R["causes"]["estimate"])[:, place], **SAME)
        assert_allclose(curve.stderr, array(R["causes"]["std_error"])[:, place], **SAME)


# ---------------------------------------------------------------- Cox


@functools.cache
def cox(kind, ties="efron", vcov="auto"):
    """Model, fit and frame of coxph's calls in survival.R."""
    options = {"intercept": False}
    model = models.cox(ties=ties)
    formula = "Surv(month, death) ~ age + ecog"
    if kind == "offset":
        model = models.cox(ties=ties, offset="offset")
        formula += " + offset(part)"
    if kind == "rich":
        model = models.cox(ties=ties, strata="sex", entry="entry", weights="w")
        formula = "Surv(entry, month, death) ~ age + ecog"
        options["also"] = {"sex": "sex", "w": "w"}
    if kind == "clustered":
        options["clusters"] = "cluster"
    frame = jm.from_formula(formula, {**TABLE, "w": PLACE % 3 + 1.0}, **options)
    return model, frame.fit(model, vcov=vcov), frame


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("kind", ["offset", "rich"])
def test_coefficients_baselines_residuals_and_zph_are_coxph_s(kind, ties):
    of_r = R[ties if kind == "offset" else f"rich {ties}"]
    model, fit, frame = cox(kind, ties)
    assert_allclose(fit.x, of_r["estimate"], **SAME)
    assert_allclose(fit.vcov, of_r["vcov"], **SAME)
    bases = baseline(model, fit, frame)
    if kind == "offset":
        assert_allclose(fit.loglik, of_r["loglik"], rtol=1e-12)
        bases = {"": bases}
    assert_allclose(np.concatenate([curve.times for curve in bases.values()]), of_r["base_time"])
    assert_allclose(np.concatenate([c.estimate for c in bases.values()]), of_r["base"], **SAME)
    for name in ("martingale", "deviance", "score", "dfbeta"):
        found = residuals(model, fit, frame, name)[::4]
        assert_allclose(found, of_r[name], rtol=1e-8, atol=1e-8)  # of a residual of order 1
    for name in ("schoenfeld", "scaledsch"):
        found = schoenfeld(model, fit, frame, scaled=name == "scaledsch")
        # R has them by stratum and time too, in the order of the rows
        assert_allclose(found.values[::4], of_r[name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("ties", TIES)
def test_tests_of_proportional_hazards_are_cox_zph(ties):
    model, fit, frame = cox("offset", ties)
    for transform, of_r in R[ties]["zph"].items():
        found = proportional_hazards_test(model, fit, frame, transform=transform)
        columns = np.column_stack([found.statistic, found.df, found.pvalue])
        assert_allclose(columns, of_r, **SAME)
    model, fit, frame = cox("rich", ties)
    found = proportional_hazards_test(model, fit, frame)
    assert_allclose(found.statistic, array(R[f"rich {ties}"]["zph"])[:, 0], **SAME)


def test_terms_of_several_columns_are_tested_as_cox_zph_does():
    model = models.cox()
    frame = jm.from_formula("Surv(month, death) ~ age + C(ecog)", TABLE, intercept=False)
    found = proportional_hazards_test(model, frame.fit(model), frame, terms=frame.terms)
    columns = np.column_stack([found.statistic, found.df, found.pvalue])
    assert_allclose(columns, R["zph terms"], **SAME)


@pytest.mark.parametrize("ties", TIES)
def test_robust_and_clustered_covariances_are_coxph_s(ties):
    assert_allclose(cox("plain", ties, "HC0")[1].vcov, R[f"robust {ties}"]["sandwich"], **SAME)
    clustered = cox("clustered", ties, "CR0")[1]
    assert_allclose(clustered.vcov, R[f"robust {ties}"]["clustered"], **SAME)


TIMES = [1.0, 6.0, 12.0, 20.0]


@pytest.mark.parametrize("ties", TIES)
def test_curves_of_new_rows_are_survfit_s_of_coxph(ties):
    model, fit, frame = cox("offset", ties)
    curve = survival(model, fit, frame, TIMES, new=NEW, band="log")
    assert_curve(curve, R[ties]["curves"])


@pytest.mark.parametrize("band", SURVIVAL_BANDS)
def test_bands_of_a_cox_curve_are_survfit_s(band):
    model, fit, frame = cox("plain", "breslow")
    assert_curve(survival(model, fit, frame, TIMES, new=NEW, band=band), R[f"cox {band}"])


def test_kalbfleisch_and_prentice_s_curve_is_survfit_s():
    model, fit, frame = cox("plain", "breslow")
    kind = "kalbfleisch-prentice"
    curve = survival(model, fit, frame, TIMES, new=NEW, kind=kind)
    assert_allclose(curve.estimate, R["kp"]["estimate"], **SAME)
    # R's standard error, of Σ d/(S0(S0 − d)), changes with the origin of the covariates
    moved = jm.from_formula("Surv(month, death) ~ I(age - 60) + ecog", TABLE, intercept=False)
    again = survival(model, moved.fit(model), moved, TIMES, new=NEW, kind=kind)
    assert_allclose(again.stderr, curve.stderr, rtol=1e-8)


def test_kalbfleisch_and_prentice_s_errors_are_greenwood_s_where_the_covariate_has_no_effect():
    """Each row once with x = 0 and once with x = 1: β̂ = 0, and x̄ = ½ in every risk set."""
    twice = {"month": np.tile(MONTH, 2), "death": np.tile(DEATH, 2)}
    data = {"x": np.repeat([0.0, 1.0], len(MONTH)), "time": twice["month"], "event": twice["death"]}
    model = models.cox(ties="breslow")
    kind = "kalbfleisch-prentice"
    curve = survival(model, jm.fit(model, data=data), data, TIMES, new={"x": [[0.5]]}, kind=kind)
    plain = kaplan_meier(twice["month"], twice["death"])
    place = np.searchsorted(plain.times, TIMES)
    assert_allclose(curve.estimate[0], plain.estimate[place], rtol=1e-9)
    assert_allclose(curve.stderr[0], plain.stderr[place], rtol=1e-8)


# ---------------------------------------------------------------- accelerated failure times


THOROUGH = pytest.mark.thorough
LAWS = [
    "weibull",
    "exponential",
    *(pytest.param(law, marks=THOROUGH) for law in ("lognormal", "loglogistic")),
]


@pytest.mark.parametrize("law", LAWS)
def test_failure_times_predictions_and_robust_errors_are_survreg_s(law):
    of_r = R[law]
    model = models.aft(law)
    frame = jm.from_formula("Surv(time, death) ~ age + ecog", TABLE)
    clusters = jm.from_formula("Surv(time, death) ~ age + ecog", TABLE, clusters="cluster")
    fit = frame.fit(model)
    assert_allclose(fit.params["beta"], of_r["estimate"], **SAME)
    assert_allclose(fit.params.get("scale", 1.0), of_r["scale"], **SAME)
    assert_allclose(fit.loglik, of_r["loglik"], rtol=1e-11)
    assert_allclose(fit.se[:3], of_r["std_error"], **SAME)
    assert_allclose(frame.fit(model, vcov="HC0").se[:3], of_r["robust"], **SAME)
    assert_allclose(clusters.fit(model, vcov="CR0").se[:3], of_r["clustered"], **SAME)
    link = frame.predict(fit, NEW, kind="link")
    assert_allclose(link["estimate"], of_r["lp"], **SAME)
    assert_allclose(link["std_error"], of_r["lp_se"], **SAME)
    curve = quantile(model, fit, frame, [0.1, 0.5, 0.9], new=NEW)
    assert_allclose(curve.estimate, of_r["quantile"], **SAME)
    assert_allclose(curve.stderr, of_r["quantile_se"], **SAME)


# ---------------------------------------------------------------- tables

FITS = {
    "tidy logistic": lambda: jm.from_formula(
        "low ~ age + smoke", jm.datasets.load("birthwt").data
    ).fit(models.logistic()),
    "tidy poisson": lambda: jm.from_formula(
        "ptl ~ age + smoke", jm.datasets.load("birthwt").data
    ).fit(models.poisson()),
    "tidy cox": lambda: jm.from_formula(
        "Surv(time, death) ~ age + sex", LUNG, intercept=False
    ).fit(models.cox()),
}  # fmt: skip


@pytest.mark.parametrize("name", FITS)
def test_an_exponentiated_table_is_broom_s_tidy(name):
    """Ratios and Wald intervals exponentiated, standard errors of the coefficients, as broom has them."""
    found = FITS[name]().to_frame(exponentiate=True, backend="pandas")
    for column, values in R[name].items():
        if column != "term":
            assert_allclose(found[column], values, rtol=1e-8)
