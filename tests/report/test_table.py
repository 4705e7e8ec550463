"""The summary of one fit."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jaxmle.solvers.status import Status
from jaxmle.tables.layout import PAGE_COLUMNS, columns_of
from jaxmle.tables.numerals import STYLES
from jaxmle.tables.table import coefficients, summary
from tests.report.records import FREE, POSITIVE, admissions, record

SENTENCE = (
    "SEPARATED: the likelihood approaches its supremum only at infinity along " + "treatment " * 20
)


def rows(text: str) -> list[str]:
    """The lines of parameters, the header first."""
    return text.split("\n\n")[1].splitlines()


def test_the_status_comes_first():
    assert summary(admissions()).splitlines()[0] == "CONVERGED"


@pytest.mark.parametrize("sentence", [SENTENCE, SENTENCE.removeprefix("SEPARATED: ")])
def test_a_fit_that_failed_says_why_and_names_its_status_once(sentence):
    text = summary(admissions(status=np.int32(Status.SEPARATED), explain=lambda: sentence))
    head = " ".join(text.split("n = ")[0].split())
    assert head == SENTENCE.strip()


def test_the_facts_name_what_was_maximised():
    facts = " ".join(summary(admissions()).splitlines()[1].split())
    assert (
        facts
        == "n = 189 df = 6 log-likelihood = -224.747 AIC = 455.494 BIC = 465.200 vcov = observed"
    )


def test_float32_and_map_are_labelled():
    text = summary(admissions(dtype=np.dtype("float32"), mode="MAP", aic=np.nan, bic=np.nan))
    assert "dtype = float32" in text and "estimates = MAP" in text and "AIC = n/a" in text
    assert "float" not in summary(admissions()) and "MAP" not in summary(admissions())


def test_sampling_weights_give_the_reason_for_the_missing_criteria():
    assert "sampling weights" in summary(admissions(weighting="sampling", aic=np.nan, bic=np.nan))


def test_a_row_reads_as_in_a_textbook():
    header, _, gre, *_ = rows(summary(admissions()))
    assert re.split(r"\s{2,}", header.strip()) == [
        "estimate",
        "std. error",
        "z",
        "p",
        "lower 95%",
        "upper 95%",
    ]
    assert gre.split() == ["gre", "0.002264", "0.001094", "2.07", "0.039", "0.000120", "0.004408"]


def test_the_level_is_in_the_header():
    assert "lower 99.9%" in summary(admissions(), 0.999)


def test_decimal_points_are_aligned_in_every_column():
    lines = rows(summary(admissions()))[1:]
    points = [[found.start() for found in re.finditer(r"\.", line)] for line in lines]
    assert len(points[0]) == 6 and all(positions == points[0] for positions in points)


def test_missing_and_infinite_values_are_words():
    fit = record([1.0, np.inf, np.nan], [np.nan, np.nan, np.nan], ("fixed", "slope", "intercept"))
    _, fixed, slope, intercept = (line.split() for line in rows(summary(fit)))
    assert fixed == ["fixed", "1.0000"] + ["n/a"] * 5
    assert slope == ["slope", "inf"] + ["n/a"] * 5
    assert intercept == ["intercept"] + ["n/a"] * 6
    assert "nan" not in summary(fit)


def test_a_bounded_parameter_has_no_z_and_a_note_says_so():
    fit = record([0.5, 2.0], [0.1, 0.2], ("mu", "sigma"), bounds=(FREE, POSITIVE))
    assert rows(summary(fit))[2].split()[3:5] == ["n/a", "n/a"]
    assert "z and p only where 0 is inside the bounds" in summary(fit)
    assert "bounds" not in summary(admissions())


def test_a_fixed_parameter_is_explained():
    assert "held fixed" in summary(record([1.0, 2.0], [0.1, np.nan], ("a", "b")))
    assert "held fixed" not in summary(
        record([1.0, 2.0], [np.nan, np.nan], ("a", "b"), vcov_kind=None)
    )


LONG = tuple(f"hierarchy.of.very_long_parameter_names_{'x' * 80}.level[{j},0]" for j in range(4))
WIDE = tuple("分散成分の推定値" * 9 + f"[{j}]" for j in range(4))


@pytest.mark.parametrize("names", [LONG, WIDE, ("a", "b", "c", "d")])
@pytest.mark.parametrize(
    ("x", "se"),
    [
        ([1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4]),
        ([1e6, 1e-3, -1.2e-9, 5e8], [1e4, 2e-4, 2e-12, 1e7]),
        ([-1e300, 1e-300, 0.0, np.nan], [1e280, 1e-310, np.inf, np.nan]),
        ([-9999999.4, 0.00012345, -0.5, 1.0], [1.0, 1e-4, 1e-9, 9e6]),
    ],
)
def test_no_line_is_wider_than_the_page(names, x, se):
    text = summary(record(x, se, names), 0.999)
    assert max(map(columns_of, text.splitlines())) <= PAGE_COLUMNS
    assert "nan" not in text


def test_random_scales_never_widen_the_page_nor_break_the_alignment():
    rng = np.random.default_rng(7)
    for _ in range(100):
        x, se = rng.normal(size=(2, 6)) * 10.0 ** rng.integers(-12, 12, size=(2, 6))
        fit = record(x, np.abs(se), (*LONG, "a", "b"))
        assert max(map(len, summary(fit).splitlines())) <= PAGE_COLUMNS
        for style in STYLES:
            columns = coefficients(fit, 0.95, style).columns()[1:]
            assert all(
                len({cell.index(".") for cell in column if "." in cell}) <= 1 for column in columns
            )


def test_long_names_are_elided_in_the_middle_and_stay_distinct():
    names = [line.split()[0] for line in rows(summary(record([1.0] * 4, [0.1] * 4, LONG)))[1:]]
    assert all(
        name.startswith("hierarchy") and name.endswith(f"[{j},0]") and "..." in name
        for j, name in enumerate(names)
    )
    alike = tuple("x" * 60 + str(j) + "y" * 60 for j in range(4))
    shown = [line.split()[0] for line in rows(summary(record([1.0] * 4, [0.1] * 4, alike)))[1:]]
    assert len(set(shown)) == 4


def test_a_name_with_line_breaks_stays_on_its_line():
    assert rows(summary(record([1.0], [0.1], ("a\nb\t c",))))[1].startswith(r"a\nb\t c")


def test_thousands_of_parameters_are_cut_with_a_count_of_the_rest():
    p = 5000
    text = summary(record(np.ones(p), np.ones(p), tuple(f"u[{j}]" for j in range(p))))
    assert len(text.splitlines()) < 110
    assert (
        "4900 more parameters" in text
        and "u[79] " in text
        and "u[4999] " in text
        and "u[80] " not in text
    )
