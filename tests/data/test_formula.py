"""Formulas are read without trust: what is not in the list of functions is refused before it runs, and every refusal says by name what it is about."""

import ast
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxmle.data.design import designed
from jaxmle.data.formula import ROWWISE, halves, rowwise, terms_of
from jaxmle.data.frame import from_formula
from jaxmle.data.response import response_of
from jaxmle.data.table import columns_of

N = 12
TABLE = {
    "y": np.arange(1.0, N + 1), "x": np.linspace(0.5, 3.0, N) ** 2, "w": np.cos(np.arange(N)), "g": list("aabbccaabbcc"), "k": np.tile([1, 2, 5], N // 3),
    "flag": np.arange(N) % 2 == 0, "event": np.arange(N) % 2, "when": np.datetime64("2024-01-01") + np.arange(N),
}  # fmt: skip


@pytest.mark.parametrize(
    ("right", "names"),
    [
        ("x + g", ["Intercept", "x", "g[T.b]", "g[T.c]"]),
        ("0 + g", ["g[a]", "g[b]", "g[c]"]),
        ("x:g", ["Intercept", "x:g[a]", "x:g[b]", "x:g[c]"]),
        ("x*flag", ["Intercept", "x", "flag", "x:flag"]),
        ("C(k)", ["Intercept", "C(k)[T.2]", "C(k)[T.5]"]),
        ("C(k, Treatment(reference=5)) + k:x", ["Intercept", "C(k)[T.1]", "C(k)[T.2]", "k:x"]),
        ("x + C(g, Sum)", ["Intercept", "x", "C(g)[S.a]", "C(g)[S.b]"]),
        ("sqrt(x) + I(w**2) + log1p(k)", ["Intercept", "sqrt(x)", "I(w ** 2)", "log1p(k)"]),
        ("log(x) + poly(w, 2)", ["Intercept", "log(x)", "poly(w, 2)[1]", "poly(w, 2)[2]"]),
        ("(x + w)**2 - x", ["Intercept", "w", "x:w"]),
    ],
)
def test_columns_are_those_of_r_and_called_after_their_terms(right, names):
    frame = from_formula(f"y ~ {right}", TABLE)
    assert list(frame.names) == names
    assert np.linalg.matrix_rank(frame.data["x"]) == len(names)


def test_an_interaction_is_the_product_of_its_columns_and_a_base_is_left_out():
    frame = from_formula("y ~ x*g", TABLE)
    word = np.array(TABLE["g"])
    expected = [
        np.ones(N),
        TABLE["x"],
        word == "b",
        word == "c",
        TABLE["x"] * (word == "b"),
        TABLE["x"] * (word == "c"),
    ]
    assert_array_equal(frame.data["x"], np.column_stack(expected))


@pytest.mark.parametrize(
    "right",
    [
        "__import__('os').system('true')", "{__import__('os')}", "np.log(x)", "x.sum()", "I(x.sum())", "I(x[0])", "{[v for v in (1,)]}", "I((lambda: 1)())", "open('a')",
        "eval('1')", "log(x, out=w)", "poly(x, degree=w)", "C(k, levels=[1])", "C(k + 1)", "C(k, Treatment(open('a')))", "lag(x)", "hashed(g)", "Q('x')", "I(x > 1)",
        "I(f'{x}')", "I('a')", "offset(np.log(x))", "offset(x, w)", "x:offset(w)", "x | w", "[x ~ w]", ".", "(((", "`x", "log(*x)", "log(**x)", "I(x if x else w)", "I(x := w)", "I(x * 9**9**9**9)",
    ],
)  # fmt: skip
def test_python_that_is_not_listed_is_refused(right, monkeypatch):
    monkeypatch.setattr(
        "formulaic.ModelSpec.get_model_matrix",
        lambda *args, **options: pytest.fail("the formula was evaluated"),
    )
    with pytest.raises((ValueError, TypeError)):
        from_formula(f"y ~ x + {right}", TABLE)


@pytest.mark.parametrize(
    "left",
    [
        "np.log(y)",
        "y.sum()",
        "eval('y')",
        "Surv(y)",
        "Surv(y, event, x, w)",
        "Surv(time=y)",
        "cbind(y)",
        "poly(y, 2)",
        "y[0]",
        "y; x",
        "(y, x)",
    ],
)
def test_a_response_is_read_without_trust_too(left):
    with pytest.raises(ValueError):
        from_formula(f"{left} ~ x", TABLE)


@pytest.mark.parametrize(
    ("formula", "options", "said"),
    [
        ("y", {}, "one '~'"),
        ("y ~ x ~ w", {}, "one '~'"),
        ("y ~ ", {}, "'y ~ 1'"),
        ("y ~ xx", {}, "no column 'xx'; did you mean 'x'"),
        ("yy ~ x", {}, "no column 'yy'"),
        (
            "y ~ x + I(2*x)",
            {},
            r"has 3 columns and rank 2: I\(2 \* x\) is a linear combination of x",
        ),
        (
            "y ~ g + C(g)",
            {},
            r"C\(g\)\[b\] is a linear combination|C\(g\)\[T.b\] is a linear combination",
        ),
        ("y ~ log(x - 0.25)", {}, r"log\(x - 0.25\) is -inf in row 0 \(1 in all\)"),
        ("y ~ log(g)", {}, "'g' holds text"),
        ("y ~ when", {}, "when holds dates"),
        ("y ~ x", {"missing": "maybe"}, "missing must be 'warn'"),
        ("y ~ x", {"weights": "w"}, "say what the weights mean"),
        ("y ~ x", {"also": {"x": "~ w"}}, "which the formula itself makes"),
        ("y ~ x", {"also": {"z": "y ~ w"}}, "without response"),
        ("y ~ x", {"clusters": np.arange(3)}, "each of the 12 rows"),
        ("y ~ x", {"clusters": ["g", "k", "flag"]}, "one column or a pair"),
        ("Surv(y, k) ~ x", {}, "k is 2 in row 1; code an event as 1"),
        ("Surv(y, x, event) ~ w", {}, "the entry must be before the time"),
        ("cbind(k, w) ~ x", {}, "zero or more"),
    ],
)
def test_refusals_name_what_is_wrong(formula, options, said):
    with pytest.raises((ValueError, TypeError), match=said):
        from_formula(formula, TABLE, **options)


def test_without_formulaic_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "formulaic", None)
    with pytest.raises(ImportError, match=r"needs formulaic.*jaxmle\[frame\]"):
        from_formula("y ~ x", TABLE)


def test_a_factor_of_one_level_has_no_contrast():
    with pytest.raises(ValueError, match="g has one level, 'a'"):
        from_formula("y ~ g", {**TABLE, "g": ["a"] * N})


def test_an_empty_cell_is_named_before_fitting():
    with pytest.raises(ValueError, match=r"flag:g\[T.c\] is zero in every row"):
        from_formula(
            "y ~ flag*g",
            {**TABLE, "flag": np.where(np.array(TABLE["g"]) == "c", 0.0, np.arange(N) % 2)},
        )


@pytest.mark.parametrize(
    ("left", "parts"),
    [
        ("y", {"column": "y"}), ("`odd name`", {"column": "odd name"}), ("C(k)", {"category": "k"}), ("log(y)", {"y": "log(y)"}),
        ("Surv(start, stop, status == 2)", {"entry": "start", "time": "stop", "event": "status == 2"}), ("cbind(a, n - a)", {"successes": "a", "failures": "n - a"}),
    ],
)  # fmt: skip
def test_forms_of_a_response(left, parts):
    assert response_of(left).parts == parts


def test_a_response_of_words_is_a_category_in_the_order_of_its_levels():
    sizes = pd.Categorical(
        ["mid", "low", "high"] * 4, categories=["low", "mid", "high", "none"], ordered=True
    )
    table = pd.DataFrame({"size": sizes, "x": TABLE["x"]})
    with pytest.warns(UserWarning, match="no row has size = 'none', and an ordered category keeps"):
        frame = from_formula("size ~ x", table)
    assert frame.levels == ("low", "mid", "high", "none")
    assert frame.data["y"][:3].tolist() == [1.0, 0.0, 2.0]
    for fewer in (table["size"].cat.remove_unused_categories(), table["size"].cat.as_unordered()):
        assert from_formula("size ~ x", table.assign(size=fewer)).levels == ("low", "mid", "high")
    assert from_formula("C(k) ~ x", TABLE).levels == (1, 2, 5)
    assert from_formula("flag ~ x", TABLE).levels is None


@pytest.mark.parametrize(
    "make",
    [
        pd.DataFrame,
        pa.table,
        dict,
        lambda d: pd.DataFrame(d).convert_dtypes(),
        lambda d: pd.DataFrame(d).astype({"g": "category"}),
    ],
)
def test_every_kind_of_table_gives_the_same_arrays(make):
    table = {name: TABLE[name] for name in ("y", "x", "g", "k", "flag")}
    options = {"clusters": "g", "also": {"z": "~ flag", "code": "g"}, "by": ["k", "g"]}
    here, there = (
        from_formula("y ~ x*g + C(k)", table, **options),
        from_formula("y ~ x*g + C(k)", make(table), **options),
    )
    assert here.names == there.names and list(here.data) == list(there.data)
    for name, leaf in here.data.items():
        assert leaf.dtype == (np.int64 if name == "code" else np.float64)
        assert_array_equal(there.data[name], leaf)
    assert_array_equal(here.clusters, there.clusters)
    assert_array_equal(here.labels["k"], there.labels["k"])


@pytest.mark.parametrize("gone", [None, np.nan, pd.NA])
def test_missing_values_of_every_kind_are_counted_by_column_and_said(gone):
    table = pd.DataFrame({"y": TABLE["y"], "x": TABLE["x"], "g": TABLE["g"]}).astype({"x": object})
    table.loc[[2, 5], "x"], table.loc[[5, 7], "g"] = gone, gone
    with pytest.warns(UserWarning, match=r"3 of 12 rows dropped for missing values \(x 2, g 2\)"):
        frame = from_formula("y ~ x + g", table)
    assert (
        frame.missing == {"x": 2, "g": 2}
        and frame.dropped == 3
        and frame.rows.tolist() == [0, 1, 3, 4, 6, 8, 9, 10, 11]
    )
    assert "3 of 12 rows dropped for missing values (x 2, g 2)" in repr(frame)
    with pytest.raises(ValueError, match=r"3 of 12 rows have missing values \(x 2, g 2\)"):
        from_formula("y ~ x + g", table, missing="refuse")
    assert from_formula("y ~ 1", table).dropped == 0  # a column that is not used drops nothing


def test_rows_without_weight_cluster_or_group_are_dropped_too():
    table = {
        **TABLE,
        "w": np.where(np.arange(N) == 1, np.nan, 1.0),
        "g": [None, *TABLE["g"][1:]],
        "k": np.where(np.arange(N) == 2, np.nan, 1.0),
    }
    from jaxmle.likelihood.combinators import frequency

    frame = from_formula(
        "y ~ x", table, weights=frequency("w"), clusters="g", by="k", missing="drop"
    )
    assert frame.missing == {"w": 1, "g": 1, "k": 1} and frame.rows.tolist() == list(range(3, N))
    assert frame.weights.values.shape == frame.clusters.shape == frame.labels["k"].shape == (N - 3,)
    with pytest.raises(ValueError, match="no row is left of 12"):
        from_formula("y ~ x", {**TABLE, "x": np.full(N, np.nan)}, missing="drop")


def test_new_rows_get_the_coding_of_the_fit():
    frame = from_formula("y ~ scale(x) + bs(w, df=4) + g + C(k) + offset(log(x))", TABLE)
    again = frame.recode(pa.table({name: TABLE[name] for name in ("x", "w", "g", "k")}))
    assert_allclose(again["x"], frame.data["x"], rtol=1e-14)
    one = frame.recode({"x": [9.0], "w": [0.1], "g": ["c"], "k": [5]})
    assert one["x"].shape == (1, len(frame.names)) and one["offset"].tolist() == [np.log(9.0)]
    assert one["x"][0, frame.names.index("scale(x)")] == pytest.approx(
        (9.0 - TABLE["x"].mean()) / TABLE["x"].std(ddof=1)
    )
    gap = frame.recode(
        {"x": [9.0, np.nan, 1.0], "w": [0.1] * 3, "g": ["c", "c", None], "k": [5, 5, 5]}
    )
    assert_array_equal(np.isnan(gap["x"]).all(axis=1), [False, True, True])
    assert frame.recode({name: np.asarray(TABLE[name])[:0] for name in ("x", "w", "g", "k")})[
        "x"
    ].shape == (0, len(frame.names))


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (
            {"x": [1.0, 1.0], "g": ["a", "mars"], "k": [1, 1]},
            r"g is 'mars' in row 1 of the new data; the fit knows 'a', 'b', 'c'",
        ),
        (
            {"x": [1.0, 1.0], "g": ["a", "a"], "k": [3, 1.5]},
            r"k is 3.0 in row 0 of the new data \(unseen in all: 1.5, 3.0\); the fit knows 1, 2, 5",
        ),
        ({"x": [1.0, 1.0], "k": [1, 1]}, "no column 'g'"),
        ({"x": ["much", "more"], "g": ["a", "a"], "k": [1, 1]}, "x holds text in the new data"),
    ],
)
def test_unseen_levels_are_refused_by_name(new, said):
    with pytest.raises((ValueError, TypeError), match=said):
        from_formula("y ~ x + g + C(k)", TABLE).recode(new)


def test_expressions_of_one_row_are_what_numpy_says():
    columns, _ = columns_of(TABLE, ["x", "w", "g", "k"])
    plain = {name: np.asarray(TABLE[name]) for name in ("x", "w", "g", "k")}
    for text in (
        "log(x) + 2*w**2 - -w/3",
        "sqrt(exp(x)) > 2",
        "g == 'b'",
        "abs(w) <= 0.5",
        "k != 2",
    ):
        assert_array_equal(
            rowwise(ast.parse(text, mode="eval").body, columns), eval(text, dict(ROWWISE), plain)
        )


def test_halves_and_terms():
    assert halves("~ x") == ("", "x")
    assert terms_of("x + offset(w)").offsets == ("w",)
    columns, _ = columns_of(TABLE, ["x"])
    design, matrix = designed(terms_of("x"), columns, np.arange(N), False)
    assert design.names == ("x",) and matrix.shape == (N, 1)
