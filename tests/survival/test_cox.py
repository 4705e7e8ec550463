"""After a Cox fit: baselines, curves, residuals, robust covariances and the test of proportional hazards.

Oracles: survival's own tests (tests/book1, book2 and book6.Rout.save of the R package, worked by hand in the appendix of Therneau &
Grambsch 2000), R's printed numbers, statsmodels' PHReg, and sums written as loops over steps and rows.
"""

from __future__ import annotations

import lifelines.datasets
import numpy as np
import pytest
from numpy.testing import assert_allclose
from statsmodels.duration.hazard_regression import PHReg

import jaxmle as jm
from jaxmle import models
from jaxmle.survival import (
    baseline,
    cumulative_hazard,
    hazard,
    proportional_hazards_test,
    quantile,
    residuals,
    schoenfeld,
    survival,
)
from tests.reference.oracle import table

LUNG = jm.datasets.load("lung").data
MONTH = np.ceil(LUNG["time"] / 30)
AGE_SEX = np.column_stack([LUNG["age"], LUNG["sex"]])

# Data set 1 of the appendix of Therneau & Grambsch, without its missing row.
FIRST = {
    "x": np.array([[0.0], [1], [1], [1], [0], [0]]),
    "time": np.array([9.0, 1, 1, 6, 6, 8]),
    "event": np.array([1, 1, 0, 1, 1, 0]),
}
FIRST_BETA = {
    "beta": np.log([np.cos(np.arccos((45 / 23) * np.sqrt(3 / 23)) / 3) * 2 * np.sqrt(23 / 3)])
}
# tests/book2.Rout.save (Efron), rows 1, 3 … 7 there
R_MARTINGALE = [-0.3655434, 0.7191707, -0.2808293, -0.4383414, 0.7310869, -0.3655434]
R_SCORE = [0.2208584, 0.1132780, -0.0442340, -0.1029199, -0.4078409, 0.2208584]
R_SCHOENFELD = [0.157512, 0.421244, -0.578756, 0.0]

# The weighted data of tests/book6.Rout.save, Efron
WEIGHTED = {
    "x": np.array([[2.0], [0], [1], [1], [0], [1], [0], [1], [0]]),
    "time": np.array([1.0, 1, 2, 2, 2, 2, 3, 4, 5]),
    "event": np.array([1, 0, 1, 1, 1, 0, 0, 1, 0]),
    "w": np.array([1.0, 2, 3, 4, 3, 2, 1, 2, 1]),
}
R_WEIGHTED_SCORE_AT_0 = [
    1.24653740, 0.03601108, 0.14118105, 0.14118105, -0.30336782, -0.27962308, 0.60164259, -0.16851197, 1.04608703,
]  # fmt: skip
R_WEIGHTED_SCORE = [
    0.88116056, 0.02477248, 0.06057806, 0.06057806, -0.59724033, -0.16737066, 0.38040295, -0.13750290, 0.66631324,
]  # fmt: skip
R_WEIGHTED_SCHOENFELD = [1.0325955, 0.1621759, 0.1621759, -0.8378241, 0.1728229]


def rich(n=40, seed=4):
    """Rows with everything: ties, strata, late entry, weights and an offset."""
    rng = np.random.default_rng(seed)
    time = np.ceil(6 * rng.exponential(size=n))
    return {
        "x": rng.normal(size=(n, 2)),
        "time": time,
        "event": rng.integers(0, 2, n),
        "g": rng.integers(0, 2, n),
        "entry": np.where(rng.uniform(size=n) < 0.4, np.floor(0.5 * (time - 1)), -1.0) + 0.0,
        "w": rng.uniform(0.5, 3.0, n),
        "offset": 0.3 * rng.normal(size=n),
    }


def rich_data(seed=4):
    data = rich(seed=seed)
    data["entry"] = np.maximum(data["entry"], 0.0)
    return data


def rich_model(ties="efron"):
    return models.cox(ties=ties, strata="g", entry="entry", weights="w", offset="offset")


def by_loops(data, beta, ties):
    """Steps of each stratum: (stratum, time, hazard, mean, mass, who × share at risk)."""
    risk = np.exp(data["x"] @ beta + data["offset"])
    steps = []
    for g in np.unique(data["g"]):
        mine = data["g"] == g
        for t in np.unique(data["time"][mine & (data["event"] == 1)]):
            dies = mine & (data["time"] == t) & (data["event"] == 1)
            at_risk = mine & (data["time"] >= t) & (data["entry"] < t)
            m = int(dies.sum()) if ties == "efron" else 1
            for j in range(m):
                present = at_risk - (j / m) * dies
                total = np.sum(data["w"] * risk * present)
                mean = (data["w"] * risk * present) @ data["x"] / total
                mass = data["w"][dies].sum() / m
                steps.append((g, t, mass / total, mean, mass, present))
    return risk, steps


# ---------------------------------------------------------------- residuals


def test_residuals_are_those_that_r_prints_for_the_appendix_of_therneau_and_grambsch():
    model = models.cox()
    fit = jm.fit(model, data=FIRST)
    assert_allclose(fit.params["beta"], FIRST_BETA["beta"], rtol=1e-9)
    seven_digits = 6e-8  # of what R prints
    assert_allclose(residuals(model, fit, FIRST), R_MARTINGALE, atol=seven_digits)
    assert_allclose(residuals(model, fit, FIRST, "score")[:, 0], R_SCORE, atol=seven_digits)
    got = schoenfeld(model, fit, FIRST).values[:, 0]
    assert_allclose(got, R_SCHOENFELD, atol=6e-7)
    assert_allclose(residuals(model, fit, FIRST, "cox-snell"), FIRST["event"] - np.array(R_MARTINGALE), atol=seven_digits)  # fmt: skip


def test_residuals_under_breslow_s_ties_are_the_closed_forms_of_the_appendix():
    """tests/book1: at β = 0, expected numbers of events 1/6, 1/6 + 2/4 and those + 1."""
    got = residuals(models.cox(ties="breslow"), {"beta": [0.0]}, FIRST)
    expected = np.array([1 / 6 + 2 / 4 + 1, 1 / 6, 1 / 6, 2 / 3, 2 / 3, 2 / 3])
    assert_allclose(got, FIRST["event"] - expected, rtol=1e-14)


def test_weighted_residuals_are_those_that_r_prints():
    model = models.cox(weights="w")
    eight_digits = 6e-9
    at_zero = residuals(model, {"beta": [0.0]}, WEIGHTED, "score")[:, 0]
    assert_allclose(at_zero, R_WEIGHTED_SCORE_AT_0, atol=eight_digits)
    fit = jm.fit(model, data=WEIGHTED)
    got = residuals(model, fit, WEIGHTED, "score")[:, 0]
    assert_allclose(got, R_WEIGHTED_SCORE, atol=eight_digits)
    got = schoenfeld(model, fit, WEIGHTED).values[:, 0]
    assert_allclose(got, R_WEIGHTED_SCHOENFELD, atol=6e-8)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_residuals_with_strata_entry_weights_and_offset_are_the_sums_over_steps(ties):
    data, beta = rich_data(), np.array([0.5, -0.3])
    risk, steps = by_loops(data, beta, ties)
    expected, score = np.zeros(40), np.zeros((40, 2))
    for g, t, jump, mean, _, present in steps:
        expected += risk * present * jump
        dies = (data["g"] == g) & (data["time"] == t) & (data["event"] == 1)
        m = dies.sum() if ties == "efron" else 1
        score += (data["x"] - mean) * (dies / m - risk * present * jump)[:, None]
    model, params = rich_model(ties), {"beta": beta}
    martingale = data["event"] - expected
    assert_allclose(residuals(model, params, data), martingale, rtol=1e-11, atol=1e-13)
    assert_allclose(residuals(model, params, data, "score"), score, rtol=1e-11, atol=1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = martingale + np.where(data["event"] == 1, np.log(expected), 0.0)
    deviance = np.sign(martingale) * np.sqrt(-2 * inner)
    assert_allclose(residuals(model, params, data, "deviance"), deviance, rtol=1e-10)


def test_schoenfeld_residuals_and_baseline_are_those_of_statsmodels():
    data = {"x": AGE_SEX, "time": MONTH, "event": LUNG["death"]}
    other = PHReg(MONTH, AGE_SEX, status=LUNG["death"], ties="breslow").fit()
    model, params = models.cox(ties="breslow"), {"beta": other.params}
    mine = schoenfeld(model, params, data)
    assert_allclose(mine.values, other.schoenfeld_residuals[mine.row], rtol=1e-9, atol=1e-10)
    time, total, _ = other.baseline_cumulative_hazard[0]
    # statsmodels' is that just before each time
    assert_allclose(baseline(model, params, data)(time)[:-1], total[1:], rtol=1e-9)


# ---------------------------------------------------------------- robust covariances


def ovarian():
    columns = table("s20_cox_ovarian")
    x = np.column_stack([columns[name] for name in ("age", "resid_ds", "rx")])
    return {"x": x, "time": columns["futime"], "event": columns["fustat"]}


def test_robust_standard_errors_are_lin_and_wei_s_of_coxph():
    """R 4.2.2, survival 3.5.3: coxph(…, robust = TRUE) on the ovarian data (s20)."""
    data = ovarian()
    fit = jm.fit(models.cox(), data=data, vcov="HC0")
    r = [0.0514058309193962, 0.770242159496178, 0.671497371999063]
    assert_allclose(fit.se, r, rtol=1e-11)
    assert fit.vcov_kind == "HC0"
    dfbeta = residuals(models.cox(), fit, data, "dfbeta")
    assert_allclose(dfbeta.T @ dfbeta, fit.vcov, rtol=1e-8)


def test_clustered_covariance_is_the_sum_of_squared_dfbeta_of_clusters():
    clusters = np.arange(9) // 2
    model = models.cox(weights="w")
    fit = jm.fit(model, data=WEIGHTED, vcov="CR0", clusters=clusters)
    dfbeta = residuals(model, fit, WEIGHTED, "dfbeta")
    sums = np.stack([dfbeta[clusters == c].sum(axis=0) for c in np.unique(clusters)])
    assert_allclose(fit.vcov, sums.T @ sums, rtol=1e-8)


def test_leverages_are_refused_for_a_partial_likelihood():
    with pytest.raises(ValueError, match="use HC0, or CR0 with clusters"):
        jm.fit(models.cox(), data=ovarian(), vcov="HC3")


@pytest.mark.thorough
def test_an_offset_moves_the_predictor():
    data = ovarian()
    free = jm.fit(models.cox(), data=data)
    part = {**data, "x": data["x"][:, :2], "offset": data["x"][:, 2] * free.x[2]}
    held = jm.fit(models.cox(offset="offset"), data=part)
    assert_allclose(held.x, free.x[:2], rtol=1e-9)
    assert_allclose(held.loglik, free.loglik, rtol=1e-12)


# ---------------------------------------------------------------- baselines and curves


def test_a_curve_and_its_variance_are_the_closed_forms_of_the_appendix():
    """tests/book2: hazards 1/(3r+3), 2/(r+5), 1/(r+3)·…, information of the appendix, at x = 0."""
    model = models.cox()
    fit = jm.fit(model, data=FIRST)
    r = np.exp(fit.x[0])
    jumps = np.array([1 / (3 * r + 3), 1 / (r + 3), 2 / (r + 5), 1.0])
    means = np.array([r / (r + 1), r / (r + 3), r / (r + 5), 0.0])
    information = sum(m - m**2 for m in means)
    var = np.cumsum(jumps**2) + np.cumsum(means * jumps) ** 2 / information
    curve = survival(model, fit, FIRST, [1.0, 6.0, 9.0], new={"x": np.zeros((1, 1))}, band="log")
    assert_allclose(curve.estimate[0], np.exp(-np.cumsum(jumps)[[0, 2, 3]]), rtol=1e-9)
    assert_allclose(curve.stderr[0] / curve.estimate[0], np.sqrt(var[[0, 2, 3]]), rtol=1e-8)


def test_the_curve_at_the_mean_is_what_r_prints():
    """tests/book2.Rout.save: summary(survfit(fit)), 0.8857, 0.4294, 0.0425 with their log bands."""
    model = models.cox()
    fit = jm.fit(model, data=FIRST)
    curve = survival(model, fit, FIRST, [1.0, 6.0, 9.0], new={"x": [[0.5]]}, band="log")
    assert_allclose(curve.estimate[0], [0.8857, 0.4294, 0.0425], atol=6e-5)
    assert_allclose(curve.stderr[0], [0.117, 0.237, 0.116], atol=6e-4)
    assert_allclose(curve.lower[0], [0.683036, 0.145743, 0.000198], atol=6e-7)


@pytest.mark.parametrize("ties", ["efron", pytest.param("breslow", marks=pytest.mark.thorough)])
def test_curves_with_strata_entry_weights_and_offset_are_the_sums_over_steps(ties):
    data = rich_data()
    model = rich_model(ties)
    fit = jm.fit(model, data=data)
    _, steps = by_loops(data, fit.x, ties)
    new = {"x": np.array([[0.3, -1.0], [2.0, 0.5]]), "g": np.array([1, 0]), "offset": np.array([0.1, -0.2])}  # fmt: skip
    times = np.array([2.0, 5.0])
    curve = cumulative_hazard(model, fit, data, times, new=new)
    for i in range(2):
        r = np.exp(new["x"][i] @ fit.x + new["offset"][i])
        for k, t in enumerate(times):
            mine = [step for step in steps if step[0] == new["g"][i] and step[1] <= t]
            total = sum(step[2] for step in mine)
            drift = sum((new["x"][i] - step[3]) * step[2] for step in mine)
            variance = sum(step[2] ** 2 / step[4] for step in mine) + drift @ fit.vcov @ drift
            assert_allclose(curve.estimate[i, k], r * total, rtol=1e-10)
            assert_allclose(curve.stderr[i, k], r * np.sqrt(variance), rtol=1e-9)


def test_kalbfleisch_and_prentice_s_baseline_solves_its_equations():
    data = rich_data()
    model = rich_model("breslow")
    beta = np.array([0.5, -0.3])
    curves = baseline(model, {"beta": beta}, data, kind="kalbfleisch-prentice")
    risk, _ = by_loops(data, beta, "breslow")
    for g, curve in curves.items():
        jumps = np.diff(np.concatenate([[0.0], curve.estimate]))
        for t, jump in zip(curve.times, jumps, strict=True):
            dies = (data["g"] == g) & (data["time"] == t) & (data["event"] == 1)
            at_risk = (data["g"] == g) & (data["time"] >= t) & (data["entry"] < t)
            if dies.any() and np.isfinite(jump):
                alpha = np.exp(-jump)
                left = np.sum((data["w"] * risk / (1 - alpha**risk))[dies])
                assert_allclose(left, np.sum((data["w"] * risk)[at_risk]), rtol=1e-8)


def test_without_covariates_the_baselines_are_kaplan_meier_and_nelson_aalen():
    data = {"x": np.zeros((228 - 1, 1)), "time": LUNG["time"], "event": LUNG["death"]}
    none, model = {"beta": [0.0]}, models.cox()
    km = jm.survival.kaplan_meier(LUNG["time"], LUNG["death"])
    for kind, ties in (("breslow", "breslow"), ("efron", "efron")):
        other = jm.survival.nelson_aalen(LUNG["time"], LUNG["death"], ties=ties)
        assert_allclose(baseline(model, none, data, kind=kind).estimate, other.estimate, rtol=1e-12)
    product = survival(model, none, data, km.times, kind="kalbfleisch-prentice").estimate[0]
    assert_allclose(product, km.estimate, rtol=1e-11)


def test_a_curve_ends_where_its_stratum_does():
    data = rich_data()
    model = rich_model()
    last = [data["time"][data["g"] == g].max() for g in (0, 1)]
    new = {"x": np.zeros((2, 2)), "g": np.array([0, 1]), "offset": np.zeros(2)}
    grid = np.sort([*last, max(last) + 1])
    curve = survival(model, {"beta": [0.5, -0.3]}, data, grid, new=new)
    assert np.array_equal(np.isfinite(curve.estimate), grid[None, :] <= np.array(last)[:, None])


def test_the_median_of_a_cox_curve_is_where_it_comes_down_to_a_half():
    data, model = ovarian(), models.cox()
    fit = jm.fit(model, data=data)
    new = {"x": np.array([[60.0, 2.0, 1.0], [72.0, 2.0, 1.0]])}
    median = quantile(model, fit, data, new=new)
    times = np.unique(data["time"][data["event"] == 1])
    curve = survival(model, fit, data, times, new=new)
    pairs = [
        (median.estimate, curve.estimate),
        (median.lower, curve.lower),
        (median.upper, curve.upper),
    ]
    for got, end in pairs:
        want = [times[np.argmax(e <= 0.5)] if (e <= 0.5).any() else np.inf for e in end]
        assert_allclose(got[:, 0], want)


# ---------------------------------------------------------------- proportional hazards


def lung_of_r(*columns):
    """survival::lung, 228 rows with missing values, as lifelines carries it."""
    rows = lifelines.datasets.load_lung().dropna(subset=list(columns))
    status = rows["status"].to_numpy()
    return {
        "x": rows[list(columns)].to_numpy(float),
        "time": rows["time"].to_numpy(float),
        "event": (status == status.max()).astype(int),
    }


# cox.zph(coxph(Surv(time, status) ~ …, lung)) of survival 3.x as published with the digits it prints: chisq of each term, GLOBAL
R_ZPH = [
    pytest.param(("age", "sex"), [0.209, 2.608, 2.771], 6e-4, marks=pytest.mark.thorough),
    (("age", "sex", "wt.loss"), [0.5077, 2.5489, 0.0144, 3.0051], 6e-5),
]


@pytest.mark.parametrize(("columns", "printed", "digit"), R_ZPH, ids=["two", "three"])
def test_the_test_of_proportional_hazards_is_cox_zph(columns, printed, digit):
    data, model = lung_of_r(*columns), models.cox()
    test = proportional_hazards_test(model, jm.fit(model, data=data), data)
    assert_allclose(test.statistic, printed, atol=digit)
    assert test.terms == (*(f"beta[{j}]" for j in range(len(columns))), "global")


def transformed(data, transform):
    """g of each row's time by its definition."""
    time = data["time"]
    if transform == "rank":
        return np.array([np.sum(time < t) + (np.sum(time == t) + 1) / 2 for t in time])
    if transform == "km":
        return 1 - np.array([survival_before(data, t) for t in time])
    return np.log(time) if transform == "log" else time


def survival_before(data, t):
    value = 1.0
    for s in np.unique(data["time"][(data["event"] == 1) & (data["time"] < t)]):
        at_risk = (data["time"] >= s) & (data["entry"] < s)
        value *= 1 - np.sum((data["time"] == s) & (data["event"] == 1)) / at_risk.sum()
    return value


@pytest.mark.parametrize("transform", ["km", "rank", "log", "identity"])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_it_is_the_score_test_of_coefficients_that_change_with_time(transform, ties):
    """U'I⁻¹U of (β, θ) with hazard e^{x(β + θ g(t))} at θ = 0, by loops over steps and rows."""
    data, beta = rich_data(seed=8), np.array([0.5, -0.3])
    g = transformed(data, transform)
    risk, steps = by_loops(data, beta, ties)
    score, information = np.zeros(2), np.zeros((4, 4))
    for stratum, t, _, mean, mass, present in steps:
        dies = (data["g"] == stratum) & (data["time"] == t) & (data["event"] == 1)
        m = dies.sum() if ties == "efron" else 1
        weight = data["w"] * risk * present
        off = data["x"] - mean
        spread = (weight[:, None] * off).T @ off / weight.sum()
        level = g[data["time"] == t][0]
        score += level * (data["w"] * dies / m) @ off
        information += mass * np.kron([[1, level], [level, level**2]], spread)
    model, params = rich_model(ties), {"beta": beta}
    test = proportional_hazards_test(model, params, data, transform=transform)
    # away from the estimate the score of β is not zero, and g has to be centred as the test has it
    events = data["event"] == 1
    centre = g[events].mean()
    shift = np.kron([[1, 0], [-centre, 1]], np.eye(2))
    information = shift @ information @ shift.T
    plain = np.zeros(2)
    for stratum, t, _, mean, _, _ in steps:
        dies = (data["g"] == stratum) & (data["time"] == t) & events
        m = dies.sum() if ties == "efron" else 1
        plain += (data["w"] * dies / m) @ (data["x"] - mean)
    score = score - centre * plain
    u = np.concatenate([np.zeros(2), score])
    for j in range(2):
        places = [0, 1, 2 + j]
        part = np.where(np.arange(4) == 2 + j, u, 0.0)[places]
        want = part @ np.linalg.solve(information[np.ix_(places, places)], part)
        assert_allclose(test.statistic[j], want, rtol=1e-8)
    assert_allclose(test.statistic[2], u @ np.linalg.solve(information, u), rtol=1e-8)


def test_a_term_of_several_columns_is_tested_together():
    data, model = ovarian(), models.cox()
    fit = jm.fit(model, data=data)
    both = proportional_hazards_test(model, fit, data, terms={"all": ["beta"], "age": ["beta[0]"]})
    assert_allclose(both.statistic[0], both.statistic[2], rtol=1e-12)
    assert both.df.tolist() == [3, 1, 3] and "global" in repr(both)


# ---------------------------------------------------------------- bad input


def test_bad_input_gets_one_clear_error():
    data, model = ovarian(), models.cox()
    fit = jm.fit(model, data=data)
    other = {**data, "time": data["time"] + 1.0}
    cases = [
        (lambda: baseline(models.aft("weibull"), fit, data), TypeError, "needs a Cox model"),
        (lambda: baseline(model, fit, other), ValueError, "not those of the fit"),
        (lambda: hazard(model, fit, data, 10.0), TypeError, "use cumulative_hazard"),
        (lambda: residuals(model, fit, data, "pearson"), ValueError, "kind must be"),
        (lambda: survival(model, fit, data, [-1.0]), ValueError, "times must be 0 or more"),
        (lambda: survival(model, fit, data, new={"x": np.ones((1, 2))}), ValueError, r"\(n, 3\)"),
        (lambda: quantile(model, fit, data, 1.5), ValueError, "p must lie between"),
        (lambda: model.survival(fit.params, data, [1.0]), TypeError, "jaxmle.survival.survival"),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words):
            call()
