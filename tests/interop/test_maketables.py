"""The package maketables on fits of jaxmle: its ``ETable`` reads the attributes that its plug-in format names."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

RNG = np.random.default_rng(11)
N = 150
TABLE = {"x": RNG.normal(size=N), "g": RNG.choice(["a", "b"], N)}
TABLE["y"] = (RNG.random(N) < 1 / (1 + np.exp(-TABLE["x"]))).astype(int)
SEPARATED = TABLE | {"y": np.where(TABLE["g"] == "b", 1, TABLE["y"])}


@pytest.fixture(scope="module")
def frame():
    return jm.from_formula("y ~ x + g", TABLE)


@pytest.fixture(scope="module")
def fit(frame):
    return frame.fit(jm.models.logistic())


@pytest.fixture(scope="module")
def separated():
    return jm.from_formula("y ~ x + g", SEPARATED).fit(jm.models.logistic())


def test_the_cells_are_those_of_a_fit_of_statsmodels(fit):
    maketables = pytest.importorskip("maketables")
    formulas = pytest.importorskip("statsmodels.formula.api")
    pandas = pytest.importorskip("pandas")
    theirs = formulas.logit("y ~ x + g", pandas.DataFrame(TABLE)).fit(disp=False)
    # patsy and formulaic spell a level alike
    cells = maketables.ETable([fit, theirs], model_stats=["N", "ll", "aic", "bic"]).df
    for ours, peer in cells.to_numpy().tolist():
        assert ours == peer != ""


def test_effects_stand_in_a_table_too(fit, frame):
    maketables = pytest.importorskip("maketables")
    effects = jm.margins(fit, frame, "x")
    cells = maketables.ETable([effects]).df
    assert f"{effects.estimate[0]:.3f}" in cells.iloc[0, 0]
    assert cells.iloc[-1, 0] == "observed"


def test_a_fit_that_has_not_converged_says_so_in_a_row(fit, separated):
    maketables = pytest.importorskip("maketables")
    cells = maketables.ETable([fit, separated]).df
    assert cells.iloc[-1].tolist() == ["CONVERGED", "SEPARATED"]
    assert "CONVERGED" not in maketables.ETable([fit]).df.to_string()


def test_the_attributes_of_the_plug_in_format_need_no_maketables(fit, separated):
    table = fit.__maketables_coef_table__
    assert list(table.index) == ["Intercept", "x", "g[T.b]"]
    assert_allclose(table["b"] / table["se"], table["t"], rtol=1e-14)
    assert_allclose(table[["ci95l", "ci95u"]], fit.interval(0.95), rtol=1e-14)
    assert_allclose(table[["ci90l", "ci90u"]], fit.interval(0.90), rtol=1e-14)
    assert fit.__maketables_stat__("N") == N
    assert fit.__maketables_stat__("r2") is None
    assert separated.__maketables_default_stat_keys__[-1] == "status"
    assert np.isnan(separated.__maketables_coef_table__.loc["g[T.b]", ["se", "t", "p"]]).all()


def test_a_batch_has_no_column_of_its_own():
    y = RNG.gamma(2.0, size=(3, 40))
    fits = jm.fit_batch(jm.families.gamma, {"shape": 1.0, "rate": 1.0}, y)
    with pytest.raises(ValueError, match=r"give it members of the batch, fits\[i\]"):
        _ = fits.__maketables_coef_table__
    assert fits[0].__maketables_stat__("N") == 40
