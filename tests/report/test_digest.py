"""The digest of a batch."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmle.solvers.status import Status
from jaxmle.tables.digest import LINES_SHOWN, digest, spread, worst_members
from jaxmle.tables.layout import PAGE_COLUMNS
from tests.report.records import batch, record

FAILURES = {
    5: Status.SEPARATED,
    77: Status.SEPARATED,
    812: Status.MAX_STEPS,
    4000: Status.NONFINITE,
}


def section(text: str, title: str) -> list[str]:
    """The lines of the grid under `title`, its header first."""
    return next(part for part in text.split("\n\n") if part.startswith(title)).splitlines()[1:]


@pytest.mark.parametrize("p", [1, 5, 8, 40, 2000])
@pytest.mark.parametrize(
    "failures", [{}, FAILURES, dict(enumerate(s for s in Status if s is not Status.CONVERGED))]
)
def test_ten_thousand_members_fit_on_one_screen(p, failures):
    lines = digest(
        batch(
            10_000 if p <= 40 else 50, p, {k % 50 if p > 40 else k: s for k, s in failures.items()}
        )
    ).splitlines()
    assert len(lines) <= LINES_SHOWN
    assert max(map(len, lines)) <= PAGE_COLUMNS


def test_the_counts_are_those_of_the_statuses():
    text = digest(batch(failures=FAILURES))
    assert text.splitlines()[0] == "9996 of 10000 fits CONVERGED"
    counts = [line.split() for line in section(text, "status")]
    assert counts == [
        ["NONFINITE", "1", "0.01"],
        ["SEPARATED", "2", "0.02"],
        ["MAX_STEPS", "1", "0.01"],
        ["CONVERGED", "9996", "99.96"],
    ]


def test_the_moments_are_over_the_converged_members_only():
    fit = batch(failures=FAILURES)
    shown = [float(cell) for cell in section(digest(fit, 0.9), "Estimates")[1].split()[1:]]
    x = fit.x[fit.converged, 0]
    np.testing.assert_allclose(
        shown, [x.mean(), x.std(ddof=1), *np.quantile(x, [0.05, 0.5, 0.95])], atol=5e-5
    )
    assert float(section(digest(fit), "Standard errors")[1].split()[1]) == 0.1


def test_the_quantiles_follow_the_level():
    assert section(digest(batch(50), 0.9), "Estimates")[0].split() == [
        "mean",
        "SD",
        "5%",
        "median",
        "95%",
    ]


def test_the_worst_members_represent_every_status_and_lead_to_their_explanation():
    text = digest(batch(failures=FAILURES | {k: Status.SEPARATED for k in range(100, 120)}))
    worst = [line.split()[:2] for line in section(text, "Worst members")[1:]]
    assert worst[0] == ["NONFINITE", "4000"] and ["MAX_STEPS", "812"] in worst and len(worst) == 5
    assert "fit[4000].explain()" in text


def test_within_a_status_the_farthest_is_the_worst_and_unknown_is_farther():
    status = np.array([Status.CONVERGED, *[Status.STALLED] * 4])
    assert worst_members(status, np.array([9.0, 1.0, 3.0, np.nan, 2.0])).tolist() == [3, 2, 4, 1]


def test_a_batch_without_failures_names_the_member_farthest_from_its_optimum():
    fit = batch(100)
    fit.decrement[41] = 5e-13
    text = digest(fit)
    assert "Worst" not in text and "is 41: 1.0e-06 SE" in text


def test_a_batch_in_which_nothing_converged_shows_no_moments():
    text = digest(batch(6, failures=dict.fromkeys(range(6), Status.UNBOUNDED)))
    assert text.startswith("0 of 6 fits CONVERGED") and "Estimates" not in text


def test_an_empty_batch_and_a_batch_of_one_are_printed():
    assert digest(batch(0)).startswith("0 of 0 fits")
    assert section(digest(batch(1)), "Estimates")[1].split()[2] == "n/a"


def test_members_of_a_batch_with_two_axes_have_two_indices():
    status = np.full((3, 4), Status.CONVERGED, dtype=np.int32)
    status[2, 1] = Status.SADDLE
    text = digest(record(np.ones((3, 4, 2)), np.ones((3, 4, 2)), ("a", "b"), status=status))
    assert "11 of 12" in text and "fit[2,1].explain()" in text


def test_differing_sizes_are_shown_as_a_range():
    fit = batch(3)
    fit.n = np.array([20.0, 50.0, 31.0])
    assert "n = 20 to 50" in digest(fit)


def test_missing_entries_are_left_out_of_the_moments():
    assert spread(np.array([1.0, np.nan, 3.0]), 0.5) == (2.0, pytest.approx(2**0.5), 1.5, 2.0, 2.5)
    assert np.isnan(spread(np.array([np.nan]), 0.5)).all()
