"""Fits side by side, exponentiated, labelled and chosen: the cells are those of the records."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import models


@pytest.fixture(scope="module")
def fits():
    table = pd.DataFrame(jm.datasets.load("birthwt").data)
    table["race"] = np.where(
        table.black == 1, "black", np.where(table.other == 1, "other", "white")
    )
    small = jm.from_formula("low ~ age", table).fit(models.logistic(), vcov="HC1")
    return small, jm.from_formula("low ~ age + race", table).fit(models.logistic())


def test_exponentiated_estimates_keep_their_tests_as_in_broom(fits):
    """broom::tidy(exponentiate = TRUE): exp of estimate and ends; std.error, statistic and p stay."""
    _, fit = fits
    plain, odds = (fit.to_frame(exponentiate=e) for e in (False, True))
    for name in ("estimate", "conf_low", "conf_high"):
        assert_allclose(odds[name], np.exp(plain[name]), rtol=1e-15)
    for name in ("std_error", "statistic", "p_value"):
        assert_allclose(odds[name], plain[name], rtol=0)


def test_bounded_parameters_are_not_exponentiated():
    table = {"y": np.array([1.0, 2.0, 2.0, 4.0, 3.5]), "x": np.arange(5.0)}
    fit = jm.from_formula("y ~ x", table).fit(models.normal())
    odds = fit.to_frame(exponentiate=True)
    assert_allclose(odds["estimate"][2], fit.params["sigma"])
    assert_allclose(odds["estimate"][1], np.exp(fit.params["beta"][1]))


def test_terms_choose_and_labels_name_in_any_spelling(fits):
    _, fit = fits
    shown = fit.to_frame(terms=["race", "beta[1]"], labels={"race[white]": "White", "age": "Age"})
    assert shown["term"].tolist() == ["race[other]", "White", "Age"]
    for form in (fit.to_html, fit.to_latex, fit.to_markdown):
        text = form(terms=["age"], labels={"age": "Age (years)"}, exponentiate=True)
        assert "Age" in text and "race" not in text and "xponentiated" in text
    with pytest.raises(ValueError, match="Did you mean 'age'"):
        fit.to_frame(terms=["agee"])
    with pytest.raises(ValueError, match="same label to 'race', which is 2 parameters"):
        fit.to_latex(labels={"race": "Race"})


def test_fits_side_by_side_share_their_rows(fits):
    table = jm.table(fits, names=["small", "full"], stars=True, terms=["age", "race"])
    lines = repr(table).splitlines()
    assert lines[0].split() == ["small", "full"]
    age = next(line for line in lines if line.startswith("age"))
    assert [float(cell.rstrip("*")) for cell in age.split()[1:]] == [
        round(float(fit.params["beta"][1]), 3) for fit in fits
    ]
    assert any(line.split() == ["vcov", "HC1", "observed"] for line in lines)
    assert any(line.startswith("AIC") for line in lines) and "*" in repr(table)
    assert "*" not in repr(jm.table(fits))
    tidy = table.to_frame()
    assert tidy["model"].tolist() == ["small"] + ["full"] * 3
    for form in (table.to_latex(), table.to_markdown(), table.to_html()):
        assert "small" in form and "log-likelihood" in form
    latex = jm.table(fits, below="interval").to_latex()
    assert "[$-$" in latex and "% \n" not in latex


def test_a_mistake_in_a_table_is_one_sentence(fits):
    with pytest.raises(TypeError, match="number 1 is 3"):
        jm.table([fits[0], 3])
    with pytest.raises(ValueError, match="names must be 2 strings"):
        jm.table(fits, names=["one"])
    with pytest.raises(ValueError, match="no parameter is called 'sex'"):
        jm.table(fits, terms=["sex"])
    with pytest.raises(ValueError, match="below must be"):
        jm.table(fits, below="se")
