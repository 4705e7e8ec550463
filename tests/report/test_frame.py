"""Tidy frames."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from jaxmle.solvers.status import Status
from jaxmle.tables import frame as frames
from jaxmle.tables.frame import frame
from tests.report.records import admissions, batch, record

COLUMNS = ["term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"]


def read(native) -> dict[str, list]:
    """The columns of a frame of any backend."""
    import narwhals

    return narwhals.from_native(native).to_dict(as_series=False)


@pytest.mark.parametrize("backend", frames.BACKENDS)
def test_every_backend_gives_the_numbers_back_unrounded(backend):
    pytest.importorskip(backend)
    fit = admissions()
    native = frame(fit, 0.9, backend)
    assert type(native).__module__.split(".")[0] == backend
    tidy = read(native)
    assert list(tidy) == COLUMNS
    assert tidy["term"] == list(fit.names)
    for column, values in zip(
        COLUMNS[1:], (fit.x, fit.se, fit.zvalues, fit.pvalues, *fit.interval(0.9).T), strict=True
    ):
        np.testing.assert_array_equal(tidy[column], values)


@pytest.mark.parametrize("backend", frames.BACKENDS)
def test_a_batch_has_a_row_per_member_and_parameter(backend):
    pytest.importorskip(backend)
    fit = batch(4, 3, {2: Status.SEPARATED})
    tidy = read(frame(fit, backend=backend))
    assert list(tidy) == ["member", "status", *COLUMNS]
    assert tidy["member"] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert tidy["term"] == list(fit.names) * 4
    assert tidy["status"][6:9] == ["SEPARATED"] * 3 and tidy["status"][0] == "CONVERGED"
    np.testing.assert_array_equal(np.reshape(tidy["estimate"], (4, 3)), fit.x)
    np.testing.assert_array_equal(np.reshape(tidy["conf_high"], (4, 3)), fit.interval(0.95)[..., 1])


def test_a_batch_of_two_axes_and_an_empty_batch_have_frames():
    two = record(np.ones((2, 3, 2)), np.ones((2, 3, 2)), ("a", "b"))
    assert read(frame(two))["member"] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert len(read(frame(batch(0)))["member"]) == 0


@pytest.mark.parametrize("backend", frames.BACKENDS)
def test_infinite_and_missing_values_survive(backend):
    pytest.importorskip(backend)
    fit = record([np.inf, -np.inf, 1.0], [np.nan, np.nan, np.nan], ("a", "b", "c"))
    tidy = read(frame(fit, backend=backend))
    assert tidy["estimate"] == [np.inf, -np.inf, 1.0]
    assert all(value is None or np.isnan(value) for value in tidy["std_error"])


def hide(monkeypatch, *hidden: str) -> None:
    """Make packages look as if they were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(frames, "find_spec", lambda name: None if name in hidden else find(name))
    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)


def test_the_first_backend_installed_is_taken(monkeypatch):
    monkeypatch.setattr(frames, "find_spec", lambda name: None if name == "pandas" else name)
    assert frames.installed(None) == "polars"
    assert frames.installed("pyarrow") == "pyarrow"


@pytest.mark.parametrize("hidden", [("narwhals",), frames.BACKENDS])
def test_what_is_missing_is_named_with_its_remedy(monkeypatch, hidden):
    hide(monkeypatch, *hidden)
    with pytest.raises(ImportError, match=r'pip install "jaxmle\[frame\]"') as caught:
        frame(admissions())
    assert hidden[0] in str(caught.value)


def test_a_missing_backend_that_was_asked_for_is_named(monkeypatch):
    hide(monkeypatch, "polars")
    with pytest.raises(ImportError, match="needs polars"):
        frame(admissions(), backend="polars")


def test_an_unknown_backend_lists_the_known_ones():
    with pytest.raises(ValueError, match="'pandas', 'polars' or 'pyarrow'"):
        frame(admissions(), backend="excel")
