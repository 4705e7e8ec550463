"""Marginal effects, contrasts and adjusted predictions against statsmodels, closed forms and differences."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from numpy.testing import assert_allclose
from scipy.special import expit

import jaxmle as jm
from jaxmle import models
from jaxmle.effects.record import REASON_LIMIT, REASON_NO_LIMIT

# Both sides are at their maxima to 1e-8 standard errors; statsmodels' climbs end at 1e-8 or so.
SAME = {"rtol": 1e-6, "atol": 1e-9}


@pytest.fixture(scope="module")
def births():
    table = pd.DataFrame(jm.datasets.load("birthwt").data)
    race = np.where(table.black == 1, "black", np.where(table.other == 1, "other", "white"))
    return table.assign(race=race.astype(object), hard=table.smoke == 1)


@pytest.fixture(scope="module")
def logit(births):
    frame = jm.from_formula("low ~ age + lwt + smoke", births)
    fit = frame.fit(models.logistic())
    x = sm.add_constant(births[["age", "lwt", "smoke"]].astype(float))
    return frame, fit, sm.Logit(births.low, x).fit(disp=0, tol=1e-14)


def assert_same(found, other):
    assert_allclose(found.estimate, other.margeff.T.ravel(), **SAME)
    assert_allclose(found.stderr, other.margeff_se.T.ravel(), **SAME)


def test_slopes_of_a_logit_are_statsmodels_whether_averaged_or_at_means(logit):
    frame, fit, other = logit
    assert_same(jm.margins(fit, frame), other.get_margeff())
    assert_same(jm.margins(fit, frame, at="mean"), other.get_margeff(at="mean"))
    assert_same(jm.margins(fit, frame, at="median"), other.get_margeff(at="median"))


@pytest.mark.parametrize("method", ["eyex", "dyex", "eydx"])
def test_elasticities_are_statsmodels(logit, method):
    frame, fit, other = logit
    assert_same(jm.margins(fit, frame, effect=method), other.get_margeff(method=method))


def test_a_pair_of_values_and_truth_values_are_contrasts_as_dummies_are(logit, births):
    frame, fit, other = logit
    expected = other.get_margeff(dummy=True)
    pair = jm.margins(fit, frame, {"smoke": (0, 1)})
    assert pair.names == ("smoke: 1 - 0",)
    truth = jm.from_formula("low ~ age + lwt + hard", births)
    same = jm.margins(truth.fit(models.logistic()), truth)
    for found in (pair.estimate[0], same.estimate[-1]):
        assert_allclose(found, expected.margeff[-1], **SAME)
    assert_allclose(pair.stderr[0], expected.margeff_se[-1], **SAME)
    assert same.names[-1] == "hard: True - False"


def test_contrasts_of_a_factor_are_to_its_base_in_closed_form(births):
    """m(level) − m(base) of a Poisson, each row with the factor set; statsmodels' dummies leave the others on."""
    frame = jm.from_formula("ptl ~ age + race", births)
    fit = frame.fit(models.poisson())
    found = jm.margins(fit, frame)
    assert found.names == ("age", "race: other - black", "race: white - black")
    x = np.stack([frame.recode(births.assign(race=r))["x"] for r in ("black", "other", "white")])
    mu = np.exp(x @ fit.x)
    gradient = np.mean(mu[1:, :, None] * x[1:] - (mu[0, :, None] * x[0])[None], axis=1)
    stderr = np.sqrt(np.diag(gradient @ fit.vcov @ gradient.T))
    assert_allclose(found.estimate[1:], (mu[1:] - mu[0]).mean(axis=1), rtol=1e-9)
    assert_allclose(found.stderr[1:], stderr, rtol=1e-9)
    other = smf.poisson("ptl ~ age + race", births).fit(disp=0, tol=1e-14).get_margeff()
    assert_allclose(found.estimate[0], other.margeff[2], **SAME)
    assert_allclose(found.stderr[0], other.margeff_se[2], **SAME)
    pairs = jm.margins(fit, frame, {"race": "pairwise"})
    assert len(pairs) == 3
    assert_allclose(pairs.estimate[2], pairs.estimate[1] - pairs.estimate[0], rtol=1e-10)


def test_effects_on_the_classes_of_a_multinomial_are_statsmodels(births):
    visits = np.arange(len(births)) % 3
    table = births.assign(visits=visits)
    frame = jm.from_formula("visits ~ age + lwt", table)
    fit = frame.fit(models.multinomial(3))
    x = sm.add_constant(births[["age", "lwt"]].astype(float))
    other = sm.MNLogit(visits, x).fit(disp=0, tol=1e-14, maxiter=100).get_margeff()
    found = jm.margins(fit, frame)
    assert found.labels["level"] == (0, 1, 2) * 2
    assert_allclose(found.estimate, other.margeff.ravel(), **SAME)
    assert_allclose(found.stderr, other.margeff_se.ravel(), **SAME)
    assert_allclose(found.estimate.reshape(2, 3).sum(axis=1), 0.0, atol=1e-12)


def test_slopes_of_a_negative_binomial_are_statsmodels():
    rng = np.random.default_rng(5)
    x = rng.normal(size=300)
    y = rng.negative_binomial(2.0, 2.0 / (2.0 + np.exp(0.5 + 0.4 * x)))
    frame = jm.from_formula("y ~ x", {"y": y, "x": x})
    found = jm.margins(frame.fit(models.negative_binomial()), frame)
    other = sm.NegativeBinomial(y, sm.add_constant(x)).fit(disp=0, method="newton", tol=1e-12)
    # statsmodels' SE is of its numerical Hessian, of six digits
    assert_allclose(found.estimate, other.get_margeff().margeff, rtol=1e-6)
    assert_allclose(found.stderr, other.get_margeff().margeff_se, rtol=1e-4)


def test_slopes_of_ordered_classes_have_their_closed_form(births):
    """∂P(y = k)/∂x = −β(f(c_k − xβ) − f(c_{k−1} − xβ)), f the logistic density; SEs by differences."""
    table = births.assign(level=pd.cut(births.lwt, [0, 110, 130, 500], labels=["a", "b", "c"]))
    frame = jm.from_formula("level ~ age + smoke", table, intercept=False)
    fit = frame.fit(models.ordinal(3))
    x = frame.data["x"]

    def slopes(theta):
        beta, cut = theta[:2], theta[2:]
        p = expit(cut[None, :] - (x @ beta)[:, None])
        density = np.pad(p * (1 - p), ((0, 0), (1, 1)))
        return (-beta[:, None] * np.diff(density, axis=1).mean(axis=0)[None, :]).ravel()

    step = 1e-5 * fit.se
    jacobian = np.stack(
        [(slopes(fit.x + h) - slopes(fit.x - h)) / (2 * h.sum()) for h in np.diag(step)], axis=1
    )
    found = jm.margins(fit, frame)
    assert_allclose(found.estimate, slopes(fit.x), rtol=1e-9, atol=1e-13)
    stderr = np.sqrt(np.diag(jacobian @ fit.vcov @ jacobian.T))
    assert_allclose(found.stderr, stderr, rtol=1e-6)  # of the differences


def test_a_slope_goes_through_logs_powers_interactions_and_splines(births):
    """The oracle moves the column itself by a small step and codes the formula again."""
    ends = births.age.isin([births.age.min(), births.age.max()])  # where no spline goes further
    table = births.assign(y=births.lwt / 100, end=ends.astype(int))
    formula = "y ~ I(smoke * age**2) + log(age):smoke + bs(age, df=4)"
    frame = jm.from_formula(formula, table, by="end")
    fit = frame.fit(models.normal())
    inner = table[~ends]

    def mean(h):
        return (frame.recode(inner.assign(age=inner.age + h))["x"] @ fit.params["beta"]).mean()

    h = 1e-4
    found = jm.margins(fit, frame, ["age"], by="end")
    assert_allclose(found.estimate[0], (mean(h) - mean(-h)) / (2 * h), rtol=1e-6)  # of the step
    assert np.all(np.isfinite(found.estimate))


def test_groups_and_set_values_average_what_they_say(logit, births):
    frame, fit, other = logit
    found = jm.margins(fit, frame, "age", by="smoke")
    p = expit(frame.data["x"] @ fit.params["beta"])
    slope = p * (1 - p) * fit.params["beta"][1]
    expected = [slope[births.smoke == s].mean() for s in (0, 1)]
    assert found.names == ("age (smoke=0)", "age (smoke=1)")
    assert_allclose(found.estimate, expected, rtol=1e-9)
    set_to = jm.margins(fit, frame, effect="prediction", values={"age": [20, 30]})
    for age, value in zip((20, 30), set_to.estimate, strict=True):
        x = other.model.exog.copy()
        x[:, 1] = age
        assert_allclose(value, expit(x @ fit.x).mean(), rtol=1e-9)
    assert set_to.to_frame()["age"].tolist() == [20, 30]


def test_weights_of_the_fit_weight_the_average(births):
    table = births.assign(w=1 + births.index % 3)
    frame = jm.from_formula("low ~ age", table, weights=jm.frequency("w"))
    fit = frame.fit(models.logistic())
    repeated = births.loc[births.index.repeat(table.w)]
    plain = jm.from_formula("low ~ age", repeated)
    same = jm.margins(plain.fit(models.logistic()), plain)
    found = jm.margins(fit, frame)
    assert_allclose(found.estimate, same.estimate, rtol=1e-8)
    assert_allclose(found.stderr, same.stderr, rtol=1e-8)


def test_a_function_of_the_user_has_slopes_and_contrasts_in_its_own_columns():
    """m = a x^b: ∂m/∂x = ab x^{b−1}, with SEs by its gradient in (a, b)."""
    rng = np.random.default_rng(3)
    data = {"x": rng.uniform(1.0, 3.0, 80)}
    data["y"] = 2.0 * data["x"] ** 0.7 + rng.normal(0, 0.1, 80)

    def curve(params, data):
        return params["a"] * data["x"] ** params["b"]

    def loglik(params, data):
        return -0.5 * ((data["y"] - curve(params, data)) / 0.1) ** 2

    fit = jm.fit(loglik, {"a": 1.0, "b": 1.0}, data)
    a, b = fit.x
    x = data["x"]
    found = jm.margins(fit, data, "x", kind=curve)
    gradient = np.array(
        [(b * x ** (b - 1)).mean(), (a * x ** (b - 1) * (1 + b * np.log(x))).mean()]
    )
    assert_allclose(found.estimate, [(a * b * x ** (b - 1)).mean()], rtol=1e-9)
    assert_allclose(found.stderr, [np.sqrt(gradient @ fit.vcov @ gradient)], rtol=1e-9)
    contrast = jm.margins(fit, data, {"x": (1.0, 2.0)}, kind=curve)
    assert_allclose(contrast.estimate, [a * (2.0**b - 1.0)], rtol=1e-9)
    with pytest.raises(ValueError, match=r"one value for each row, shape \(80,\)"):
        jm.margins(fit, data, "x", kind=lambda p, d: jnp.sum(d["x"]) * p["a"])


def test_the_table_in_every_form(logit):
    frame, fit, _ = logit
    found = jm.margins(fit, frame)
    assert list(found.to_frame()) == [
        "term", "variable", "contrast", "estimate", "std_error", "statistic", "p_value",
        "conf_low", "conf_high",
    ]  # fmt: skip
    for form in (repr(found), found.to_html(), found.to_latex(), found.to_markdown()):
        assert "lwt" in form and "std. error" in form


def test_what_has_no_variance_has_no_standard_error_and_a_reason(births):
    """A separated coefficient: its own contrast leaves the estimable space."""
    table = births.assign(split=(births.low == 1) & (births.age > 20))
    frame = jm.from_formula("low ~ lwt + split", table)
    fit = frame.fit(models.logistic())
    assert fit.verdict == jm.Status.SEPARATED
    found = jm.margins(fit, frame, kind="link")
    assert np.isfinite(found.stderr[0]) and np.isnan(found.stderr[1])
    assert found.estimate[1] == np.inf and "False: the data are separated" in found.reason


@pytest.fixture(scope="module")
def smokers(births):
    """A separated fit: every smoker is a case."""
    frame = jm.from_formula(
        "low ~ age + smoke", births.assign(low=np.maximum(births.low, births.smoke))
    )
    fit = frame.fit(models.logistic())
    assert fit.verdict == jm.Status.SEPARATED
    return frame, fit


def test_an_effect_of_infinite_estimates_is_its_limit_without_a_standard_error(smokers):
    frame, fit = smokers
    share = 1 / (1 + np.exp(-fit.x[0] - fit.x[1] * frame.data["x"][:, 1]))  # of those who do not
    smokes = frame.data["x"][:, 2] == 1
    means = jm.margins(fit, frame, effect="prediction", by="smoke")
    assert_allclose(means.estimate, [share[~smokes].mean(), 1.0], rtol=1e-9)
    slopes = jm.margins(fit, frame, "age", by="smoke")
    slope = (fit.x[1] * share * (1 - share))[~smokes].mean()
    assert_allclose(slopes.estimate, [slope, 0.0], rtol=1e-9, atol=1e-12)
    for found in (means, slopes):
        assert np.isfinite(found.stderr[0]) and np.isnan(found.stderr[1])
        assert found.to_frame()["reason"].tolist() == ["", REASON_LIMIT]
    # p(1 − p)β of those who do not smoke grows with β
    assert jm.margins(fit, frame, "smoke").estimate == np.inf
    assert_allclose(jm.margins(fit, frame, {"smoke": (0, 1)}).estimate, 1 - share.mean(), rtol=1e-9)


def test_an_effect_that_separated_data_leave_open_is_nan_with_the_reason():
    """Between the classes a probability is 0, 1 or anything else, by the way to infinity."""
    x = np.arange(20.0)
    frame = jm.from_formula("y ~ x", {"x": x, "y": (x > 9.5).astype(int)})
    fit = frame.fit(models.logistic())
    found = jm.margins(fit, frame, effect="prediction", values={"x": [3.0, 9.5, 15.0]})
    assert_allclose(found.estimate, [0.0, np.nan, 1.0], atol=1e-12)
    assert found.reasons == (REASON_LIMIT, REASON_NO_LIMIT, REASON_LIMIT)
    assert "No standard error for x=9.5: the data are separated, and do not" in found.reason


def test_a_mean_count_of_an_empty_group_is_zero():
    table = {"y": [3, 1, 2, 4, 0, 0], "g": ["a", "a", "b", "b", "c", "c"]}
    frame = jm.from_formula("y ~ g", table)
    fit = frame.fit(models.poisson())
    found = jm.margins(fit, frame, effect="prediction", values={"g": ["a", "b", "c"]})
    assert_allclose(found.estimate, [2.0, 3.0, 0.0], atol=1e-9)
    logs = jm.margins(fit, frame, {"g": "pairwise"}, kind="link")
    assert_allclose(logs.estimate, [np.log(1.5), -np.inf, -np.inf], rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variables": "ages"}, "did you mean 'age'"),
        ({"variables": {"age": "pairwise"}}, "holds numbers"),
        ({"values": {"age": "old"}}, "finite number"),
        ({"by": "smoke", "at": "mean"}, "is a single row"),
        ({"effect": "dxdy"}, "effect must be one of"),
        ({"kind": "quantile"}, "needs level"),
        ({"values": [20]}, "dictionary"),
    ],
)
def test_a_mistake_is_one_sentence(logit, arguments, message):
    frame, fit, _ = logit
    with pytest.raises((ValueError, TypeError), match=message):
        jm.margins(fit, frame, **arguments)


def test_a_batch_and_other_records_are_refused(logit):
    frame, fit, _ = logit
    with pytest.raises(TypeError, match="result of fit"):
        jm.margins(frame, fit)
    with pytest.raises(TypeError, match="Frame of the fit"):
        jm.margins(fit, 3)


def test_bootstrapped_effects_are_those_of_every_replicate(logit, births):
    frame, fit, _ = logit
    model = models.logistic()
    boot = jm.bootstrap(model, fit, frame.data, key=1, replicates=199, acceleration=None)
    found = jm.margins(fit, frame, ["age", "smoke"], bootstrap=boot)
    draws = []
    for x in boot.replicates:
        p = expit(frame.data["x"] @ x)
        draws.append((p * (1 - p)).mean() * x[[1, 3]])
    assert_allclose(found.draws, draws, rtol=1e-9)
    assert_allclose(found.stderr, np.std(draws, axis=0, ddof=1), rtol=1e-9)
    ordered = np.sort(draws, axis=0)
    assert_allclose(found.conf_int(0.95), ordered[[4, 194]].T, rtol=1e-9)  # the 5th and 195th
    delta = jm.margins(fit, frame, ["age", "smoke"])
    assert_allclose(found.estimate, delta.estimate, rtol=1e-12)
    assert_allclose(found.stderr, delta.stderr, rtol=0.25)  # of 199 replicates, n = 189
    assert "pairs bootstrap" in repr(found)
    few = jm.bootstrap(model, fit, frame.data, key=1, replicates=19, acceleration=None)
    with pytest.raises(ValueError, match="which takes 39 or more"):
        jm.margins(fit, frame, bootstrap=few).conf_int()
    with pytest.raises(TypeError, match=r"jaxmle\.bootstrap"):
        jm.margins(fit, frame, bootstrap=199)
    other = frame.fit(models.probit())
    with pytest.raises(ValueError, match="another fit"):
        jm.margins(other, frame, bootstrap=boot)
