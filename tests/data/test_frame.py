"""A frame with factors, interactions, missing values, offsets, weights and clusters goes in; R's numbers and readable names come out.

``frame_reference.csv`` is what ``frame.R`` printed (R 4, glm, survreg, coxph, polr, sandwich's vcovCL).
"""

import csv
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.discrete.count_model import ZeroInflatedPoisson
from statsmodels.tools.numdiff import approx_hess

import jaxmle as jm
from jaxmle import models
from jaxmle.data.frame import from_formula
from jaxmle.data.groups import fit_groups
from jaxmle.inference.hypotheses.wald import joint_tests

HERE = Path(__file__).parent


def reference():
    """From a model to its estimates and standard errors, (p, 2)."""
    found = {}
    with (HERE / "frame_reference.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["model"], []).append(
                (float(row["estimate"]), float(row["std_error"]))
            )
    return {model: np.array(rows) for model, rows in found.items()}


R = reference()


@pytest.fixture(scope="module")
def births():
    """The births of ``frame.R``: words for race, 17 sites, values that are missing."""
    table = pd.DataFrame(jm.datasets.load("birthwt").data)
    table["race"] = np.where(
        table.black == 1, "black", np.where(table.other == 1, "other", "white")
    ).astype(object)
    table["site"] = np.arange(len(table)) % 17.0
    table.loc[[3, 50], "age"], table.loc[[3, 10, 11], "race"], table.loc[20, "site"] = (
        np.nan,
        None,
        np.nan,
    )
    table["stress"] = pd.cut(table.lwt, [0, 110, 130, 500], labels=["low", "mid", "high"])
    table["times"] = table.ptl + 1
    return table


@pytest.fixture(scope="module")
def lung():
    table = pd.DataFrame(jm.datasets.load("lung").data)
    table.loc[[0, 1], "ecog"] = np.nan
    table["start"] = np.arange(len(table)) % 5
    return table


@pytest.fixture(scope="module")
def poisson(births):
    """Model, frame and fit of the counts, with an offset and clusters."""
    model = models.poisson(offset="offset")
    frame = from_formula(
        "ptl ~ age*race + smoke + offset(log(lwt))", births, clusters="site", missing="drop"
    )
    return model, frame, frame.fit(model, vcov="CR0")


def assert_same_as_r(fit, name, columns=slice(None), rtol=1e-8):
    assert bool(fit.converged)
    assert_allclose(fit.x[columns], R[name][:, 0], rtol=rtol, atol=1e-10)
    assert_allclose(fit.se[columns], R[name][:, 1], rtol=rtol)


def test_factor_interaction_missing_values_offset_and_clusters_give_r_s_table(poisson):
    _, frame, fit = poisson
    assert_same_as_r(fit, "poisson")
    names = ("Intercept", "age", "race[other]", "race[white]", "smoke")
    assert fit.names == (*names, "age:race[other]", "age:race[white]")
    assert (
        "age:race[white]" in repr(fit)
        and frame.dropped == 5
        and frame.missing == {"age": 2, "race": 3, "site": 1}
    )
    assert fit.to_frame()["term"].tolist() == list(fit.names)


def test_statsmodels_formula_agrees(poisson, births):
    _, _, fit = poisson
    table = births.dropna(subset=["age", "race", "site"])
    other = smf.poisson("ptl ~ age*race + smoke", table, offset=np.log(table.lwt)).fit(
        disp=0, tol=1e-12
    )
    ours = {
        name.removeprefix("beta[").removesuffix("]"): value
        for name, value in zip(fit.layout.whole_names, fit.x, strict=True)
    }
    assert_allclose([ours[name] for name in other.params.index], other.params, rtol=1e-6)


def test_predict_of_a_new_frame_is_r_s(poisson):
    model, frame, fit = poisson
    new = pd.DataFrame(
        {"age": [20, 30], "race": ["other", "black"], "smoke": [1, 0], "lwt": [120.0, 150.0]}
    )
    assert_allclose(frame.predict(fit, new)["estimate"], R["poisson_predict"][:, 0], rtol=1e-8)
    missing = frame.predict(fit, new.assign(age=[np.nan, 30]))
    assert_array_equal(np.isnan(missing["estimate"]), [True, False])
    assert_array_equal(np.isnan(missing["conf_low"]), [True, False])
    with pytest.raises(ValueError, match="race is 'martian' in row 0"):
        frame.predict(fit, new.assign(race=["martian", "black"]))
    with pytest.raises(TypeError, match=r"fit as its first argument, frame\.predict\(fit, new\)"):
        frame.predict(model, new)


def test_terms_name_the_coefficients_of_each_factor(poisson):
    _, frame, fit = poisson
    tests = joint_tests(fit, frame.terms)
    assert list(frame.terms) == ["age", "race", "smoke", "age:race"] and frame.terms["race"] == [
        "beta[2]",
        "beta[3]",
    ]
    pair = fit.x[2:4]
    assert_allclose(
        tests["race"].statistic, pair @ np.linalg.solve(fit.vcov[2:4, 2:4], pair), rtol=1e-10
    )


def test_readable_names_are_kept_on_disk(poisson, tmp_path):
    _, _, fit = poisson
    fit.save(tmp_path / "births")
    again = jm.Fit.load(tmp_path / "births")
    assert again.names == fit.names and repr(again) == repr(fit)


def test_cbind_another_base_and_frequency_weights_by_name(births):
    frame = from_formula(
        "cbind(low, 1 - low) ~ C(race, Treatment(reference='white')) + C(ht) + I(age**2)",
        births,
        weights=jm.frequency("times"),
        missing="drop",
    )
    fit = frame.fit(models.binomial())
    assert_same_as_r(fit, "binomial")
    assert fit.names[1] == "race[black]" and fit.names[3] == "ht[1]"
    row = births.iloc[[0]]
    p = frame.predict(fit, row)["estimate"]
    assert_allclose(
        p,
        models.binomial().predict(fit.params, {**frame.recode(row), "trials": np.array([5.0])}) / 5,
        rtol=1e-12,
    )


def test_ordered_levels_name_the_cuts(births):
    frame = from_formula("stress ~ race + smoke", births, intercept=False, missing="drop")
    fit = frame.fit(models.ordinal(3))
    assert fit.names == (
        "race[other]",
        "race[white]",
        "smoke",
        "low|mid",
        "mid|high",
    )
    assert_allclose(
        fit.x, R["ordinal"][:, 0], rtol=3e-6
    )  # polr stops a difference quotient's error short
    found = frame.predict(fit, births.iloc[:3])
    assert found["level"].tolist() == ["low", "mid", "high"] * 3
    assert_allclose(found["estimate"].to_numpy().reshape(3, 3).sum(axis=1), 1.0)


def test_an_empty_middle_level_shifts_no_cut():
    """Two cuts of nothing between them are one: the maximum is on the bound of their order."""
    x = np.tile([0.0, 1.0, 2.0, 3.0], 6)
    codes = np.array([0, 3, 1, 3, 1, 0, 3, 3, 0, 1, 1, 3, 0, 0, 3, 1, 1, 3, 0, 3, 3, 1, 0, 1])
    pain = pd.Categorical.from_codes(codes, ["none", "mild", "bad", "worst"], ordered=True)
    with pytest.warns(UserWarning, match="no row has pain = 'bad'"):
        frame = from_formula("pain ~ x", pd.DataFrame({"pain": pain, "x": x}), intercept=False)
    fit = frame.fit(models.ordinal(4))
    assert fit.names[1:] == ("none|mild", "mild|bad", "bad|worst")
    assert fit.verdict == jm.Status.BOUNDARY
    plain = jm.fit(models.ordinal(3), data={"x": x[:, None], "y": np.minimum(codes, 2.0)})
    assert_allclose(fit.x[[0, 1, 2]], plain.x, rtol=1e-4)


def test_names_of_classes_and_of_a_second_design(births):
    from jaxmle.data.naming import designs_of, renamed
    from jaxmle.distributed.public_fit import fit as plain

    fit = plain(
        lambda p, d: -0.5 * (d - p["beta"].sum() - p["gamma"].sum()) ** 2,
        {"beta": np.zeros((2, 2)), "gamma": np.zeros(1)},
        np.ones(3),
        max_steps=0,
    )
    names = renamed(
        fit,
        {"beta": "x", "gamma": "z"},
        {"x": ("Intercept", "age"), "z": ("smoke",)},
        ("low", "mid", "high"),
    ).names
    assert names == (
        "beta[Intercept,mid]",
        "beta[Intercept,high]",
        "beta[age,mid]",
        "beta[age,high]",
        "gamma[smoke]",
    )
    assert designs_of(models.zero_inflated(zero="z"), ("x", "z")) == {"beta": "x", "gamma": "z"}
    assert designs_of(models.cox(), ("x",)) == {"beta": "x"}


def test_a_second_formula_gives_the_other_part_of_a_model_as_statsmodels_has_it():
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"x": rng.normal(size=300), "w": rng.choice(["a", "b"], size=300)})
    table["y"] = rng.poisson(np.exp(0.7 + 0.3 * table.x)) * (
        rng.uniform(size=300) > 0.2 + 0.3 * (table.w == "b")
    )
    model, frame = (
        models.zero_inflated(),
        from_formula("y ~ x", table, also={"z": "~ w"}, clusters=(table.w, "w")),
    )
    fit = from_formula("y ~ x", table, also={"z": "~ w"}).fit(model)
    assert (
        fit.names == ("beta[Intercept]", "beta[x]", "gamma[Intercept]", "gamma[w[T.b]]")
        and len(frame.clusters) == 2
    )
    z = frame.data["z"]
    other = ZeroInflatedPoisson(table.y, frame.data["x"], exog_infl=z).fit(
        disp=0, method="newton", start_params=fit.x[[2, 3, 0, 1]]
    )
    assert_allclose(fit.x, np.asarray(other.params)[[2, 3, 0, 1]], rtol=1e-6)
    hessian = approx_hess(
        np.asarray(other.params), other.model.loglike
    )  # differences of its own log-likelihood: the Hessian of statsmodels 0.15 is up to 5 % off
    assert_allclose(fit.se, np.sqrt(np.diag(np.linalg.inv(-hessian)))[[2, 3, 0, 1]], rtol=1e-4)
    assert_allclose(
        frame.predict(fit, table)["estimate"],
        other.predict(frame.data["x"], exog_infl=z),
        rtol=1e-6,
    )


def test_surv_gives_r_s_survreg_and_coxph(lung):
    frame = from_formula("Surv(time, death == 1) ~ age + C(ecog)", lung, missing="drop")
    assert_same_as_r(frame.fit(models.aft("weibull")), "weibull", slice(0, 5))
    frame = from_formula(
        "Surv(start, time, death) ~ age + C(ecog)", lung, missing="drop", intercept=False
    )
    assert_same_as_r(frame.fit(models.cox(entry="entry")), "cox")


@pytest.mark.parametrize(
    ("formula", "model", "said"),
    [
        (
            "ptl ~ smoke + offset(log(lwt))",
            models.poisson(),
            r"does not read data\['offset'\].*offset='offset'",
        ),
        ("cbind(low, times) ~ smoke", models.logistic(), r"does not read data\['trials'\]"),
        ("ptl ~ smoke", models.cox(), r"Write Surv\(time, event\)"),
        ("Surv(lwt, low) ~ smoke", models.poisson(), "Write a single response"),
        ("Surv(lwt, low) ~ smoke", models.cox(), r"intercept=False"),
        ("stress ~ smoke", models.ordinal(3), r"intercept=False"),
    ],
)
def test_what_a_model_would_leave_unread_is_refused(births, formula, model, said):
    with pytest.raises(ValueError, match=said):
        from_formula(formula, births).fit(model)


def broken(params, data):
    """A term that is NaN where y is 250."""
    return jnp.where(data["y"] == 250, jnp.nan, -0.5 * (data["y"] - data["x"] @ params["b"]) ** 2)


def test_a_failed_fit_names_the_row_of_the_table(births):
    frame = from_formula("lwt ~ smoke + age", births, missing="drop")
    fit = frame.fit(broken, {"b": np.zeros(3)})
    row = int(np.flatnonzero(births.lwt == 250)[0])
    assert (
        fit.verdict is jm.Status.NONFINITE
        and f"{row}" in fit.explain()
        and int(fit.witness.row) == row
    )
    assert frame.rows.tolist().index(row) != row


GROUPS, ROWS = 1000, 6


def test_a_thousand_groups_give_one_tidy_frame():
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "store": np.repeat([f"s{i:04d}" for i in range(GROUPS)], ROWS),
            "size": np.tile(list("aab"), GROUPS * 2),
            "x": rng.normal(size=GROUPS * ROWS),
        }
    )
    table["y"] = table.x + (table["size"] == "b") + rng.normal(size=len(table))
    table.loc[4, "x"] = np.nan
    result = fit_groups(
        models.normal(), None, table, by="store", formula="y ~ x + size", missing="drop", vcov=None
    )
    tidy = result.to_frame()
    assert (
        len(result) == GROUPS
        and len(tidy) == 4 * GROUPS
        and "1 of 6,000 rows dropped" in repr(result)
    )
    assert tidy.columns.tolist()[:5] == ["store", "status", "reason", "term", "estimate"]
    assert tidy["term"].tolist()[:4] == ["Intercept", "x", "size[b]", "sigma"]
    for store in ("s0000", "s0999"):
        other = smf.ols("y ~ x + size", table[table.store == store]).fit()
        assert_allclose(
            result[store].x[:3], other.params[["Intercept", "x", "size[T.b]"]], rtol=1e-7
        )
    frame = from_formula("y ~ x + size", table, by="store", missing="drop")
    with pytest.raises(ValueError, match="has no labels 'x'"):
        fit_groups(models.normal(), None, frame, by="x")
    with pytest.raises(ValueError, match="leave them out"):
        fit_groups(models.normal(), None, frame, by="store", formula="y ~ x")
    with pytest.raises(TypeError, match="a column or a list of names"):
        fit_groups(models.normal(), None, table, by=table.store.to_numpy(), formula="y ~ x")


def test_a_plain_name_is_printed_where_it_means_one_thing_only():
    rng = np.random.default_rng(5)
    table = {"y": rng.poisson(2.0, 40), "beta": rng.normal(size=40), "race": np.arange(40) % 3}
    table["race"] = np.array(["a", "b", "c"])[table["race"]]
    fit = from_formula("y ~ beta + race", table).fit(models.poisson())
    assert fit.names == ("Intercept", "beta[beta]", "race[b]", "race[c]")
    for name in ("race[b]", "race[T.b]", "beta[race[T.b]]", "beta[2]"):
        assert fit.layout.find(name) == [2]
    assert fit.layout.find("race") == [2, 3] and "race[b] =" in repr(jm.wald_test(fit, "race[b]"))


def test_records_of_older_files_get_the_plain_names(tmp_path):
    """A file holds ``beta[x]``, as the first ones did."""
    table = {"y": np.array([1.0, 3.0, 2.0, 5.0]), "x": np.arange(4.0)}
    fit = from_formula("y ~ x", table).fit(models.normal())
    fit.save(tmp_path / "fit.npz")
    again = jm.Fit.load(tmp_path / "fit.npz")
    assert again.names == fit.names == ("Intercept", "x", "sigma")
    assert again.layout.whole_names == ("beta[Intercept]", "beta[x]", "sigma")
