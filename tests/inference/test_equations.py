"""Hypotheses as text are the matrices that they say, in every spelling of a name."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import models


@pytest.fixture(scope="module")
def fit():
    table = pd.DataFrame(jm.datasets.load("birthwt").data)
    table["race"] = np.where(
        table.black == 1, "black", np.where(table.other == 1, "other", "white")
    )
    frame = jm.from_formula("low ~ age + C(race) + I(lwt**2) + age:smoke", table)
    return frame.fit(models.logistic())


# Intercept, age, other, white, lwt², age:smoke
@pytest.mark.parametrize(
    ("text", "rows", "targets"),
    [
        ("age = 0", [[0, 1, 0, 0, 0, 0]], [0]),
        ("beta[age] == 0.5", [[0, 1, 0, 0, 0, 0]], [0.5]),
        ("race[other] = race[white]", [[0, 0, 1, -1, 0, 0]], [0]),
        ("race = 0", [[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0]], [0, 0]),
        ("2*age - Intercept/4 = 1", [[-0.25, 2, 0, 0, 0, 0]], [1]),
        ("-(age - 1) = 2*(beta[4] + 3)", [[0, -1, 0, 0, -2, 0]], [5]),
        (
            "age = Intercept = 0; I(lwt**2) = 1e-3",
            [[-1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]],
            [0, 0, 1e-3],
        ),
        (["age = 0", "age:smoke = 0"], [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]], [0, 0]),
    ],
)
def test_equations_are_their_matrices(fit, text, rows, targets):
    found = jm.wald_test(fit, text)
    expected = jm.wald_test(fit, np.array(rows, float), np.array(targets, float))
    assert_allclose(found.statistic, expected.statistic, rtol=1e-9)
    assert found.df == len(rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agee = 0", "Did you mean 'age'"),
        ("age * Intercept = 1", "not linear"),
        ("age =", "not an equation"),
        ("3 = 4", "does not name a parameter"),
        ("age > 0", "inequality"),
        ("age >= 0", "inequality"),
        ("(age = 0", "not closed"),
        ("age + = 0", "a name or a number is missing"),
        ("race = beta", "joins names of 2 and 6"),
        ("age = 0; age = 0", "combination of the rows above it"),
    ],
)
def test_a_text_that_is_no_hypothesis_is_one_sentence(fit, text, message):
    with pytest.raises(ValueError, match=message):
        jm.wald_test(fit, text)


def test_an_equation_may_not_put_a_parameter_on_its_bound():
    table = {"y": np.array([1.0, 2.0, 2.0, 4.0, 3.5]), "x": np.arange(5.0)}
    fit = jm.from_formula("y ~ x", table).fit(models.normal())
    with pytest.raises(ValueError, match="H0 puts sigma at 0"):
        jm.wald_test(fit, "sigma = 0")


def test_names_without_their_leaf_are_accepted_and_doubtful_ones_refused(fit):
    assert fit.layout.find("age") == [1] and fit.layout.find("race") == [2, 3]
    assert fit.layout.find("race[white]") == fit.layout.find("C(race)[T.white]") == [3]
    rng = np.random.default_rng(0)
    table = {"y": rng.normal(size=30), "x": rng.normal(size=30)}
    frame = jm.from_formula("y ~ x", table, also={"z": "~ x"})
    both = frame.fit(models.normal(scale="z"))
    with pytest.raises(ValueError, match=r"'x' may mean beta\[x\], gamma\[x\]"):
        both.layout.find("x")
    assert jm.wald_test(both, "beta[x] = gamma[x]").df == 1
