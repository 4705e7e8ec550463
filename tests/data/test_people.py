"""From a frame to what a person wants of it: predictions, frames as data, codes, models that hand on what they know."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from scipy.stats import norm

import jaxmle as jm
from jaxmle import models

Z = norm.ppf(0.975)


@pytest.fixture(scope="module")
def births():
    return pd.DataFrame(jm.datasets.load("birthwt").data)


@pytest.fixture(scope="module")
def poisson(births):
    frame = jm.from_formula("ptl ~ age + lwt", births)
    return frame, frame.fit(models.poisson())


# ---------------------------------------------------------------- predictions


@pytest.mark.parametrize(
    ("model", "link"),
    [
        (models.probit, sm.families.links.Probit()),
        (models.cloglog, sm.families.links.CLogLog()),
    ],
)
def test_intervals_of_probabilities_are_made_on_the_link_scale(births, model, link):
    frame = jm.from_formula("low ~ age + lwt", births)
    found = frame.predict(frame.fit(model(), vcov="expected"))
    x = sm.add_constant(births[["age", "lwt"]].astype(float))
    other = sm.GLM(births.low, x, family=sm.families.Binomial(link)).fit(tol=1e-14, maxiter=200)
    expected = other.get_prediction(x).summary_frame()
    for name, theirs in (
        ("estimate", "mean"),
        ("std_error", "mean_se"),
        ("conf_low", "mean_ci_lower"),
        ("conf_high", "mean_ci_upper"),
    ):
        assert_allclose(found[name], expected[theirs], rtol=1e-6)  # of statsmodels' end


def test_mean_link_and_probability_of_a_poisson(poisson):
    frame, fit = poisson
    x = frame.data["x"]
    eta, se = x @ fit.x, np.sqrt(np.sum((x @ fit.vcov) * x, axis=1))
    mean = frame.predict(fit)
    assert_allclose(mean["conf_high"], np.exp(eta + Z * se), rtol=1e-9)
    link = frame.predict(fit, kind="link", interval=0.9)
    assert_allclose(link["std_error"], se, rtol=1e-9)
    assert_allclose(link["conf_low"], eta - norm.ppf(0.95) * se, rtol=1e-9)
    none = frame.predict(fit, kind="probability", value=0)
    assert_allclose(none["estimate"], np.exp(-np.exp(eta)), rtol=1e-9)
    assert set(frame.predict(fit, interval=None)) == {"row", "estimate"}


def test_a_quantile_of_a_normal_has_the_error_of_its_mean_and_scale(births):
    """Var(μ̂ + zσ̂) = σ²(x'(X'X)⁻¹x + z²/2n)."""
    frame = jm.from_formula("lwt ~ age", births)
    fit = frame.fit(models.normal())
    found = frame.predict(fit, births.head(3), kind="quantile", level=0.9)
    x, s, z = frame.data["x"], float(fit.params["sigma"]), norm.ppf(0.9)
    shape = np.sum((x[:3] @ np.linalg.inv(x.T @ x)) * x[:3], axis=1) + z**2 / (2 * len(x))
    assert_allclose(found["estimate"], x[:3] @ fit.params["beta"] + z * s, rtol=1e-9)
    assert_allclose(found["std_error"], s * np.sqrt(shape), rtol=1e-6)


def test_predictions_come_in_the_kind_that_came_in(poisson, births):
    frame, fit = poisson
    new = births.head(2)
    kinds = {
        pd.DataFrame: new,
        pl.DataFrame: pl.DataFrame(new.to_dict("list")),
        pa.Table: pa.table(new.to_dict("list")),
        dict: new.to_dict("list"),
    }
    for kind, table in kinds.items():
        assert isinstance(frame.predict(fit, table), kind)
    polars = jm.from_formula("ptl ~ age", pl.DataFrame(births.to_dict("list")))
    again = polars.fit(models.poisson())
    assert isinstance(polars.predict(again), pl.DataFrame)
    assert isinstance(jm.margins(again, polars).to_frame(), pl.DataFrame)


def test_a_record_from_disk_still_knows_its_model(poisson, tmp_path, births):
    frame, fit = poisson
    fit.save(tmp_path / "fit")
    again = jm.Fit.load(tmp_path / "fit")
    assert again.model == fit.model == "poisson()"
    assert_allclose(
        frame.predict(again, births.head(2))["estimate"], frame.predict(fit)["estimate"][:2]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "median"}, "kind must be one of mean, link, quantile, probability"),
        ({"kind": "quantile"}, "needs level"),
        ({"kind": "quantile", "level": 0.5}, "has no standard error"),
        ({"level": 0.5}, "level is only for kind='quantile'"),
        ({"kind": "probability"}, "has no classes"),
        ({"interval": 95}, "level must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_predicted_is_one_sentence(poisson, options, message):
    frame, fit = poisson
    with pytest.raises(ValueError, match=message):
        frame.predict(fit, **options)


def test_a_fit_of_another_likelihood_asks_for_its_model(poisson):
    frame, fit = poisson

    def own(params, data):
        return models.poisson()(params, data)

    other = frame.fit(own, fit.params)
    with pytest.raises(ValueError, match="does not record its model"):
        frame.predict(other)
    found = frame.predict(other, model=models.poisson())
    assert_allclose(found["estimate"], frame.predict(fit)["estimate"], rtol=1e-9)


# ---------------------------------------------------------------- frames as data


def loglik(params, data):
    return -0.5 * (data["y"] - params["a"] - params["b"] * data["x"]) ** 2


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pd", "pl", "pa"])
def test_a_frame_of_numbers_means_its_columns(kind):
    columns = {"y": [1.0, 2.0, 4.0], "x": [0, 1, 2]}
    plain = jm.fit(loglik, {"a": 0.0, "b": 0.0}, {name: np.array(v) for name, v in columns.items()})
    fit = jm.fit(loglik, {"a": 0.0, "b": 0.0}, kind(columns))
    assert_allclose(fit.x, plain.x, rtol=1e-12)
    assert np.array_equal(fit.data_id, plain.data_id)
    words = kind({**columns, "site": ["a", "b", "a"]})
    with pytest.raises(TypeError, match=r"data\['site'\] holds text .*jaxmle.codes"):
        jm.fit(loglik, {"a": 0.0, "b": 0.0}, words)
    gap = kind({"y": [1.0, None, 4.0], "x": [0.0, 1.0, 2.0]})
    with pytest.raises(ValueError, match=r"data\['y'\] is NaN in row 1"):
        jm.fit(loglik, {"a": 0.0, "b": 0.0}, gap)


def test_fit_takes_a_formula_frame_with_all_that_it_holds(births):
    frame = jm.from_formula("low ~ age", births.assign(g=np.arange(189) % 9), clusters="g")
    fit = jm.fit(models.logistic(), data=frame, vcov="CR0")
    assert fit.names == ("Intercept", "age") and fit.vcov_kind == "CR0"
    with pytest.raises(ValueError, match="a Frame already has its weights and clusters"):
        jm.fit(models.logistic(), data=frame, weights=jm.frequency(np.ones(189)))


@pytest.mark.parametrize(
    "column",
    [
        ["b", "a", "b"],
        pd.Series(["b", "a", "b"], name="site"),
        pl.Series("site", ["b", "a", "b"]),
        pa.chunked_array([["b", "a", "b"]]),
    ],
)
def test_codes_are_whole_numbers_with_their_levels(column):
    values, levels = jm.codes(column)
    assert values.dtype == np.int64 and values.tolist() == [1, 0, 1] and levels == ("a", "b")


def test_codes_keep_the_order_of_categories_and_refuse_gaps():
    grades = pd.Series(pd.Categorical(["low", "high"], ["low", "high"], ordered=True))
    values, levels = jm.codes(grades)
    assert values.tolist() == [0, 1] and levels == ("low", "high")
    with pytest.raises(ValueError, match="no value in row 1"):
        jm.codes(["a", None])


def test_summary_frame_has_a_row_for_each_group():
    table = pl.DataFrame({"store": list("aabbbc"), "y": [1, 2, 0, 0, 0, 5], "x": [1.0] * 6})
    groups = jm.fit_groups(models.poisson(), data=table, formula="y ~ 1", by="store")
    found = groups.summary_frame()
    assert isinstance(found, pl.DataFrame) and isinstance(groups.to_frame(), pl.DataFrame)
    assert found["store"].to_list() == ["a", "b", "c"] and found["n"].to_list() == [2, 3, 1]
    assert found["status"][0] == "CONVERGED" and found["reason"][0] == ""
    assert found["status"][1] != "CONVERGED" and found["reason"][1]
    assert_allclose(found["aic"][0], float(groups["a"].aic))


# ---------------------------------------------------------------- models that hand on


def test_alpha_held_at_zero_is_the_poisson_limit(poisson):
    frame, fit = poisson
    limit = frame.fit(jm.fix(models.negative_binomial(), {"alpha": 0.0}))
    assert limit.converged and limit.df == fit.df
    assert_allclose(limit.loglik, fit.loglik, rtol=1e-12)
    assert_allclose(limit.x[1:], fit.x, rtol=1e-7)
    assert_allclose(limit.se[1:], fit.se, rtol=1e-7)
    full = frame.fit(models.negative_binomial())
    assert jm.lr_test(limit, full, on_bound="alpha").law == "chi-bar-square"
    with pytest.raises(ValueError, match="not finite on that bound"):
        jm.fit(
            jm.fix(models.normal(), {"sigma": 0.0}), data={"x": np.ones((3, 1)), "y": np.eye(3)[0]}
        )


def test_a_model_with_all_held_is_the_null_of_an_overall_test():
    """Cox's overall test: statistic 2(ℓ(β̂) − ℓ(0)) on q degrees of freedom."""
    lung = pd.DataFrame(jm.datasets.load("lung").data).dropna()
    frame = jm.from_formula("Surv(time, death) ~ age + sex", lung, intercept=False)
    full = frame.fit(models.cox())
    null = frame.fit(jm.fix(models.cox(), {"beta": 0.0}))
    assert null.df == 0 and null.converged and np.all(np.isnan(null.se))
    test = jm.lr_test(null, full)
    assert test.df == 2
    at_zero = models.cox()({"beta": np.zeros(2)}, frame.data)
    assert_allclose(test.statistic, 2 * (full.loglik - at_zero), rtol=1e-9)


def test_combinators_of_a_model_keep_start_bounds_names_and_predictions(births):
    frame = jm.from_formula("lwt ~ age + smoke", births)
    normal = models.normal()
    held = jm.fix(normal, {"age": 0.0})
    fit = frame.fit(held)
    other = jm.from_formula("lwt ~ smoke", births)
    same = other.fit(normal)
    assert_allclose(fit.loglik, same.loglik, rtol=1e-10)
    assert fit.names == ("Intercept", "age", "smoke", "sigma")
    found = frame.predict(fit)
    assert_allclose(found["estimate"], other.predict(same)["estimate"], rtol=1e-8)
    assert_allclose(found["std_error"], other.predict(same)["std_error"], rtol=1e-6)
    tied = jm.tie(normal, ("beta[1]", "beta[2]"))
    fit = jm.fit(tied, data=frame.data)
    assert fit.converged and fit.params["beta"][1] == fit.params["beta"][2]
    residual = tied.residuals(fit.params, frame.data)
    assert_allclose(residual, frame.data["y"] - tied.predict(fit.params, frame.data), rtol=1e-12)
    ridge = jm.penalize(jm.weight(normal, jm.frequency(np.full(189, 2))), jm.ridge(0.1))
    fit = jm.fit(ridge, data=frame.data)
    assert fit.mode == "MAP" and fit.weighting == "frequency" and fit.n == 378
    assert ridge.predict(fit.params, frame.data).shape == (189,)
    assert repr(ridge) == "models.normal"


def test_a_pool_of_models_keeps_what_its_members_know(poisson):
    frame, fit = poisson
    half = {name: leaf[:95] for name, leaf in frame.data.items()}
    rest = {name: leaf[95:] for name, leaf in frame.data.items()}
    both = jm.pool(models.poisson(), models.poisson())
    found = jm.fit(both, data=(half, rest))
    assert_allclose(found.x, fit.x, rtol=1e-7)
    means = both.predict(found.params, (half, rest))
    assert_allclose(np.concatenate(means), frame.predict(fit)["estimate"], rtol=1e-7)
    assert len(both.residuals(found.params, (half, rest), "pearson")) == 2


def test_models_of_different_designs_are_compared(births):
    small, large = (
        jm.from_formula(formula, births).fit(models.logistic())
        for formula in ("low ~ age", "low ~ age + lwt")
    )
    assert jm.lr_test(small, large).df == 1
    other = jm.from_formula("smoke ~ age + lwt", births).fit(models.logistic())
    with pytest.raises(ValueError, match="other data"):
        jm.lr_test(small, other)


# ---------------------------------------------------------------- predictions of separated data

QUASI = pd.DataFrame(
    {"a": np.repeat([0.0, 1.0], 4), "b": np.tile(np.arange(4.0), 2), "y": [0, 1, 0, 1, 1, 1, 1, 1]}
)
SPLIT = pd.DataFrame({"x": [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0], "y": [0, 0, 0, 1, 1, 1]})


def test_predictions_of_quasi_separated_data_are_those_of_the_limit():
    """Where they do not depend on the infinite coefficient they are those of the other rows."""
    frame = jm.from_formula("y ~ a + b", QUASI)
    found = frame.predict(frame.fit(models.logistic()))
    rest = jm.from_formula("y ~ b", QUASI[QUASI.a == 0])
    other = rest.predict(rest.fit(models.logistic()))
    columns = ["estimate", "std_error", "conf_low", "conf_high"]
    assert_allclose(found.loc[:3, columns], other[columns], rtol=1e-6)
    assert found.estimate[4:].tolist() == [1.0] * 4
    assert found[columns[1:]][4:].isna().all(axis=None)
    assert (found.reason[:4] == "").all() and found.reason[4:].str.startswith("limit").all()


@pytest.mark.parametrize("model", [models.logistic, models.probit])
def test_predictions_of_completely_separated_data_are_zero_or_one_or_open(model):
    """Between the classes, at -1 < x < 1, a threshold may lie anywhere."""
    frame = jm.from_formula("y ~ x", SPLIT)
    fit = frame.fit(model())
    assert frame.predict(fit, interval=None).estimate.tolist() == [0.0] * 3 + [1.0] * 3
    new = frame.predict(fit, {"x": [-1.0, -0.99, 0.0, 0.99, 1.0, np.nan]})
    assert_allclose(new["estimate"], [0.0, np.nan, np.nan, np.nan, 1.0, np.nan])
    starts = [reason.split(" ")[0] for reason in new["reason"]]
    assert starts == ["limit", "not", "not", "not", "limit", ""]
    link = frame.predict(fit, {"x": [-1.0, 0.0, 1.0]}, kind="link")
    assert_allclose(link["estimate"], [-np.inf, np.nan, np.inf])


def test_probabilities_of_separated_classes_are_open_between_neighbours_only():
    table = {"x": [-3.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0], "y": list("aaabbccc")}
    frame = jm.from_formula("y ~ x", table)
    found = frame.predict(frame.fit(models.multinomial(3)), {"x": [-2.0, -0.5, 0.2, 5.0]})
    nan = np.nan
    expected = [[1, 0, 0], [nan, nan, 0], [0, 1, 0], [0, 0, 1]]
    assert_allclose(found["estimate"].reshape(4, 3), expected, atol=1e-12)


def test_a_fit_that_is_not_separated_has_no_column_of_reasons(poisson):
    frame, fit = poisson
    assert "reason" not in frame.predict(fit)
