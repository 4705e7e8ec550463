"""Numbers as text: digits, alignment, words."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmle.tables import numerals


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.05, "0.050"),
        (0.0010, "0.001"),
        (0.00099, "<0.001"),
        (0.0, "<0.001"),
        (1.0, "1.000"),
        (np.nan, "n/a"),
    ],
)
def test_p_values_below_a_thousandth_are_not_given_digits(value, shown):
    assert numerals.p_value(value) == shown


@pytest.mark.parametrize(
    ("estimate", "stderr", "shown"),
    [
        (-3.989979, 1.139951, ("-3.990", "1.140")),
        (0.002264, 0.001094, ("0.002264", "0.001094")),
        (199.98123, 19.91234, ("199.98", "19.91")),
        (123456.7, 4321.0, ("123457", "4321")),
        (0.23894212918, 2.7070075e-09, ("0.23894213", "2.707e-09")),
        (1.2345e-7, 1.5e-8, ("1.2345e-07", "1.500e-08")),
        (3.2e9, 1.0e8, ("3.2000e+09", "1.000e+08")),
        (0.0, 0.5, ("0.0000", "0.5000")),
    ],
)
def test_the_standard_error_has_four_digits_and_the_estimate_as_many_decimals(
    estimate, stderr, shown
):
    assert numerals.scaled((estimate,), stderr) + numerals.scaled((stderr,), stderr) == shown


@pytest.mark.parametrize("stderr", [np.nan, 0.0, np.inf])
def test_without_a_standard_error_an_estimate_has_five_digits(stderr):
    assert numerals.scaled((12.3456789,), stderr) == ("12.346",)


@pytest.mark.parametrize(
    "show",
    [numerals.significant, numerals.p_value, numerals.z_value, numerals.likelihood, numerals.count],
)
def test_values_that_are_not_finite_are_words(show):
    assert show(np.nan) == "n/a"
    assert show(np.inf) == "inf"


def test_rows_keep_infinities_and_missing_values_as_words():
    for style in numerals.STYLES:
        assert style((-np.inf, np.nan, np.inf), np.nan) == ("-inf", "n/a", "inf")


def test_rounding_to_zero_leaves_no_sign():
    assert numerals.fixed(-0.0001, 2) == "0.00"
    assert numerals.scaled((-1e-9,), 1.0) == ("0.000",)


def test_decimal_points_stand_in_one_column():
    cells = numerals.aligned(("-1.5", "1234.0625", "<0.001", "7", "1.2e-05", "n/a", "-inf"))
    assert len({len(cell) for cell in cells}) == 1
    assert len({cell.index(".") for cell in cells if "." in cell}) == 1
    assert cells[3].rstrip().endswith("7") and len(cells[3].rstrip()) == cells[0].index(".")
    assert cells[-1].endswith("-inf")


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_levels_are_percentages_without_rounding_noise(level):
    assert numerals.percent(level) == f"{round(1000 * level) / 10:g}%"
