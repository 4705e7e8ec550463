"""The Python package marginaleffects on fits of jaxmle: the numbers of ``margins``, which are R's."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

marginaleffects = pytest.importorskip("marginaleffects")
polars = pytest.importorskip("polars")

# marginaleffects 0.6.0 calls what polars 2.0 took away wherever a column is a factor.
NEW_POLARS = int(polars.__version__.split(".")[0]) >= 2
RNG = np.random.default_rng(3)
N = 120
TABLE = {"x": RNG.normal(size=N), "k": RNG.integers(0, 4, N), "g": RNG.choice(["a", "b", "c"], N)}
TABLE["y"] = (RNG.random(N) < 1 / (1 + np.exp(-TABLE["x"] + 0.3 * TABLE["k"]))).astype(int)
TABLE["c"] = RNG.choice(["hi", "lo", "mid"], N)
# its derivatives are one-sided differences of steps of 1.5e-8 of a coefficient
ERROR_OF_DIFFERENCES = 2e-5


def adapted(formula, model, **options):
    frame = jm.from_formula(formula, TABLE)
    fit = jm.fit(model, data=frame, **options)
    return fit, frame, jm.to_marginaleffects(fit, frame)


def test_average_slopes_are_those_of_margins_with_the_covariance_of_the_fit():
    fit, frame, model = adapted("y ~ x", jm.models.logistic(), vcov="HC1")
    theirs = marginaleffects.avg_slopes(model)
    ours = jm.margins(fit, frame, "x").to_frame(backend="polars")
    assert_allclose(theirs["estimate"], ours["estimate"], rtol=ERROR_OF_DIFFERENCES)
    assert_allclose(theirs["std_error"], ours["std_error"], rtol=ERROR_OF_DIFFERENCES)


def test_predictions_are_those_of_the_frame():
    fit, frame, model = adapted("y ~ x", jm.models.logistic())
    theirs = marginaleffects.predictions(model)
    ours = frame.predict(fit)
    assert_allclose(theirs["estimate"], ours["estimate"], rtol=1e-10)
    assert_allclose(theirs["std_error"], ours["std_error"], rtol=ERROR_OF_DIFFERENCES)


@pytest.mark.skipif(NEW_POLARS, reason="marginaleffects 0.6.0 has no factors with polars 2")
def test_contrasts_of_a_factor_are_those_of_margins():
    fit, frame, model = adapted("y ~ x*k + g", jm.models.logistic())
    theirs = marginaleffects.avg_comparisons(model, variables="g").sort("contrast")
    ours = jm.margins(fit, frame, "g").to_frame(backend="polars")
    assert_allclose(theirs["estimate"], ours["estimate"], rtol=ERROR_OF_DIFFERENCES)
    assert_allclose(theirs["std_error"], ours["std_error"], rtol=ERROR_OF_DIFFERENCES)


def test_classes_are_groups():
    fit, frame, model = adapted("c ~ x", jm.models.multinomial(3))
    theirs = marginaleffects.avg_slopes(model, variables="x").sort("group")
    ours = jm.margins(fit, frame, "x").to_frame(backend="polars")
    assert theirs["group"].to_list() == ["hi", "lo", "mid"]
    assert_allclose(theirs["estimate"], ours["estimate"], rtol=1e-4, atol=1e-6)


def test_another_covariance_is_asked_of_the_fit():
    _, _, model = adapted("y ~ x", jm.models.logistic())
    with pytest.raises(ValueError, match="fit with vcov='HC3'"):
        marginaleffects.avg_slopes(model, vcov="HC3")
    with pytest.raises(TypeError, match="needs the Frame made by from_formula"):
        jm.to_marginaleffects(model.model, TABLE)
