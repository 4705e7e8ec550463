"""``fit_table``: a row for each group, by closed forms and by ``fit_groups``."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import jaxmle as jm
from tests.lake.lakes import RATE, exponential

RNG = np.random.default_rng(3)
SITE = np.array(list("babcabcabcab"))
Y = RNG.exponential(2.0, 12)
TABLE = pa.table({"site": SITE, "y": Y})
# δ = gᵀH⁻¹g/2 ends below rounding of ℓ, so that estimates are right to 1e-8 standard errors.
CLOSE = {"rtol": 1e-8}


def test_a_row_for_each_group_holds_the_closed_form():
    fits = jm.fit_table(exponential, TABLE, by="site", **RATE)
    assert fits.schema == pa.schema(
        {
            "site": pa.string(), "n": pa.int64(), "status": pa.string(), "reason": pa.string(),
            "loglik": pa.float64(), "est:rate": pa.float64(), "se:rate": pa.float64(),
            "vcov": pa.list_(pa.float64()),
        }
    )  # fmt: skip
    assert fits.column("site").to_pylist() == ["a", "b", "c"]
    assert set(fits.column("status").to_pylist()) == {"CONVERGED"}
    for row in fits.to_pylist():
        y = Y[row["site"] == SITE]
        rate = 1 / y.mean()
        assert row["n"] == len(y)
        np.testing.assert_allclose(row["est:rate"], rate, **CLOSE)
        np.testing.assert_allclose(row["se:rate"], rate / np.sqrt(len(y)), **CLOSE)
        np.testing.assert_allclose(row["loglik"], len(y) * (np.log(rate) - 1), **CLOSE)
        np.testing.assert_allclose(row["vcov"], [rate**2 / len(y)], **CLOSE)


def test_keys_keep_their_types_and_have_names_of_their_own():
    """A key called n would hide the number of rows."""
    keys = {"n": pa.array([3] * 6 + [1] * 6, pa.int32()), "day": pa.array(SITE).dictionary_encode()}
    table = pa.table(keys | {"y": Y})
    fits = jm.fit_table(exponential, table, by=["n", "day"], **RATE)
    assert fits.column_names[:3] == ["group_n", "day", "n"]
    assert fits.schema.field("group_n").type == pa.int32()
    assert fits.schema.field("day").type == pa.string()
    assert fits.column("group_n").to_pylist() == [1, 1, 1, 3, 3, 3]
    assert sum(fits.column("n").to_pylist()) == 12


def test_weights_are_a_column():
    """Frequency weights equal repeated rows: rate Σw/Σwy, from Σw rows."""
    w = np.arange(1.0, 13.0)
    table = TABLE.append_column("w", pa.array(w))
    weights = jm.frequency("w")
    rows = jm.fit_table(exponential, table, by="site", weights=weights, **RATE).to_pylist()
    for row in rows:
        its = row["site"] == SITE
        rate = w[its].sum() / (w * Y)[its].sum()
        np.testing.assert_allclose(row["est:rate"], rate, **CLOSE)
        np.testing.assert_allclose(row["se:rate"], rate / np.sqrt(w[its].sum()), **CLOSE)


def test_lists_of_one_size_are_a_design_and_polars_is_taken():
    """Least squares by the normal equations."""
    x = np.column_stack([np.ones(12), RNG.normal(size=12)])
    design = pl.Series("x", x.tolist(), dtype=pl.Array(pl.Float64, 2))
    frame = pl.DataFrame({"site": SITE, "y": Y}).with_columns(design)
    rows = jm.fit_table(squares, frame, by="site", params0={"beta": np.zeros(2)}).to_pylist()
    for row in rows:
        its = row["site"] == SITE
        beta = np.linalg.solve(x[its].T @ x[its], x[its].T @ Y[its])
        np.testing.assert_allclose([row["est:beta[0]"], row["est:beta[1]"]], beta, rtol=1e-7)


def squares(params, data):
    return -0.5 * (data["y"] - data["x"] @ params["beta"]) ** 2


def test_a_group_that_fails_says_why_and_has_no_standard_error():
    y = Y.copy()
    y[1] = np.nan
    fits = jm.fit_table(exponential, pa.table({"site": SITE, "y": y}), by="site", **RATE)
    row = fits.to_pylist()[0]
    assert row["status"] == "NONFINITE" and "row 1" in row["reason"]
    assert np.isnan(row["se:rate"]) and np.isnan(row["vcov"]).all()
    assert fits.column("status").to_pylist()[1:] == ["CONVERGED"] * 2


BAD = {
    "no column": ({"by": "shop"}, ValueError, "no column 'shop'"),
    "no name": ({"by": 3}, TypeError, "by must be the name of a column"),
    "twice": ({"by": ["site", "site"]}, ValueError, "names a column twice"),
    "weights": ({"by": "site", "weights": jm.frequency(Y)}, TypeError, "name a column"),
    "clusters": ({"by": "site", "clusters": Y}, TypeError, "clusters must be the name of a column"),
    "also": ({"by": "site", "also": {"z": "~ y"}}, ValueError, "also needs a formula"),
    "formula": ({"by": "site", "formula": 3}, TypeError, "a formula is a string"),
    "missing": ({"by": "site", "missing": "omit"}, ValueError, "missing must be"),
    "vcov": ({"by": "site", "vcov": "HC9"}, ValueError, "vcov='HC9' is not known"),
}


@pytest.mark.parametrize(("given", "kind", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_has_one_clear_error(given, kind, words):
    with pytest.raises(kind, match=words):
        jm.fit_table(exponential, TABLE, **(RATE | given))


@pytest.mark.parametrize(
    ("table", "kind", "words"),
    [
        ([1, 2], TypeError, "table must be a pyarrow table"),
        (TABLE.slice(0, 0), ValueError, "no rows"),
        (TABLE.drop_columns("y"), ValueError, "no numeric columns"),
    ],
)
def test_a_table_that_cannot_be_fitted_is_refused(table, kind, words):
    with pytest.raises(kind, match=words):
        jm.fit_table(exponential, table, by="site", **RATE)
