"""The methods of `Fit` that print it."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from jaxmle.solvers.status import Status
from tests.report.records import FREE, POSITIVE, admissions, batch, genuine, record


def test_a_fit_prints_as_its_table():
    """By the numbers of the record, as far as the printed digits go: half a unit of the fourth significant figure."""
    fit = genuine(admissions())
    columns = np.column_stack([fit.x, fit.se, fit.zvalues])
    for text in (str(fit), repr(fit), fit.summary()):
        rows = [line.split() for line in text.split("\n\n")[1].splitlines()[1:]]
        assert [row[0] for row in rows] == list(fit.names)
        printed = np.array([[float(cell) for cell in row[1:4]] for row in rows])
        np.testing.assert_allclose(printed[:, :2], columns[:, :2], rtol=5e-4)
        np.testing.assert_allclose(printed[:, 2], columns[:, 2], rtol=0, atol=0.005001)


def test_a_notebook_shows_the_cells_of_the_printed_table():
    fit = genuine(admissions())
    printed = [line.split() for line in str(fit).split("\n\n")[1].splitlines()[1:]]
    rows = re.findall("<tr>(.*?)</tr>", fit._repr_html_())[1:]
    cells = [re.findall(">([^<>]+)</t[hd]>", row) for row in rows]
    assert [[html.unescape(cell).strip() for cell in row] for row in cells] == printed


def test_a_batch_prints_as_its_digest_and_its_members_as_tables():
    fits = genuine(batch(100, 3, {7: Status.MAX_STEPS}))
    assert str(fits).startswith("99 of 100 fits CONVERGED")
    assert str(fits[7]).startswith("MAX_STEPS: The step limit was reached")
    assert str(fits[8]).startswith("CONVERGED\n")


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_line_that_begins_with_its_name(status):
    fit = genuine(admissions(status=np.int32(status)))
    assert str(fit).split("\n")[0].partition(":")[0] == status.name


def test_the_frame_holds_what_the_record_says():
    fit = genuine(record([0.5, 2.0], [0.1, 0.2], ("mu", "sigma"), bounds=(FREE, POSITIVE)))
    tidy = fit.to_frame(0.9, backend="pandas")
    np.testing.assert_array_equal(tidy[["estimate", "std_error"]], np.column_stack([fit.x, fit.se]))
    np.testing.assert_array_equal(tidy[["conf_low", "conf_high"]], fit.interval(0.9))
    assert tidy["conf_low"][1] > 0 and np.isnan(tidy["p_value"][1])


def test_the_criteria_of_a_map_fit_are_missing_with_the_reason():
    text = str(genuine(admissions(mode="MAP")))
    assert "AIC = n/a" in text and "do not apply to a MAP fit" in text


def test_a_converged_fit_explains_a_row_of_leverage_one():
    fit = genuine(admissions(vcov_kind="HC3"))
    fit = replace(fit, witness=replace(fit.witness, row=np.array(17)))
    assert "Row 17 has leverage one" in str(fit).splitlines()[0]


def test_simulated_information_shows_its_error():
    fit = genuine(admissions())
    fit = replace(fit, witness=replace(fit.witness, stderr_error=0.02 * fit.se))
    assert "Monte Carlo error of the standard errors up to 2%" in str(fit)


def test_latex_and_markdown_follow_the_level():
    fit = genuine(admissions())
    assert "lower 90\\%" in fit.to_latex(0.9) and "lower 90%" in fit.to_markdown(0.9)
