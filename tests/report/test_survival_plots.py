"""Pictures of survival curves, ratios, effects, predictions and residuals: the lines that were drawn are the numbers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import pyplot
from numpy.testing import assert_allclose

from jaxmle import plots
from jaxmle.survival import Curve, aalen_johansen, kaplan_meier, nelson_aalen
from tests.report.records import admissions, genuine

TIME = np.array([6.0, 6, 6, 7, 10, 13])
EVENT = np.array([1, 1, 0, 1, 0, 1])


@pytest.fixture(autouse=True)
def _figures_are_closed():
    yield
    pyplot.close("all")


def lines(ax, gid):
    return [line for line in ax.get_lines() if line.get_gid() == gid]


def test_a_survival_curve_starts_at_one_and_ticks_stand_where_times_are_censored():
    curve = kaplan_meier(TIME, EVENT)
    ax = plots.survival(curve, xlabel="weeks")
    (drawn,) = lines(ax, "curve")
    assert drawn.get_drawstyle() == "steps-post"
    assert_allclose(drawn.get_xdata(), [0, 6, 7, 10, 13])
    assert_allclose(drawn.get_ydata(), np.concatenate([[1.0], curve.estimate]))
    (ticks,) = lines(ax, "censored")
    assert_allclose(ticks.get_xydata(), [[6, curve(6.0)], [10, curve(10.0)]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("weeks", "survival")
    assert ax.get_title(loc="left") == "95% log bands; ticks: censored"
    assert not lines(plots.survival(curve, censored=False), "censored")


def test_a_model_s_rows_are_lines_over_the_estimated_curve():
    grid = np.array([1.0, 5.0, 10.0])
    value = np.exp(-np.outer([0.1, 0.2], grid))
    model = Curve("survival", grid, value, 0.1 * value, 0.8 * value, 1.1 * value, 0.9, "log-log")
    ax = plots.survival({"data": kaplan_meier(TIME, EVENT), "model": model})
    assert [line.get_label() for line in lines(ax, "curve")] == ["data", "model, row 0", "model, row 1"]  # fmt: skip
    assert_allclose(lines(ax, "curve")[2].get_ydata(), value[1])
    assert "90% log-log" in ax.get_title(loc="left")


def test_incidences_start_at_zero():
    curves = aalen_johansen(TIME, EVENT * np.array([1, 2, 0, 1, 0, 2]))
    ax = plots.survival({f"cause {cause}": curve for cause, curve in curves.items()})
    assert [line.get_ydata()[0] for line in lines(ax, "curve")] == [0.0, 0.0]
    assert ax.get_ylabel() == "cumulative incidence"


def test_hazard_ratios_are_drawn_on_a_logarithmic_axis():
    fitted = genuine(admissions())
    ax = plots.forest(fitted, ["gpa", "intercept"], 0.9, transform=np.exp)
    assert ax.get_xscale() == "log"
    assert_allclose(lines(ax, "estimate")[0].get_xdata(), np.exp([0.804038, -3.989979]), rtol=1e-6)
    ends = np.sort([drawn.get_xdata() for drawn in lines(ax, "interval")], axis=None)
    wanted = np.concatenate([fitted.interval(0.9)[[2, 0]].ravel(), np.repeat(fitted.x[[2, 0]], 2)])
    assert_allclose(ends, np.sort(np.exp(wanted)))
    assert ax.get_xlabel() == "exp of estimate and 90% Wald interval"
    (reference,) = [line for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert_allclose(reference.get_xdata(), 1.0)
    with pytest.raises(ValueError, match="transform must be finite and increase"):
        plots.forest(fitted, transform=lambda x: -x)


def test_effects_have_a_row_each_with_their_names_and_intervals():
    record = SimpleNamespace(
        names=("age", "sex"),
        estimate=np.array([0.2, -0.1]),
        title="average slope",
        conf_int=lambda level: np.array([[0.1, 0.3], [-0.4, 0.2]]),
    )
    ax = plots.effects(record)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["age", "sex"]
    assert_allclose(lines(ax, "estimate")[0].get_xydata(), [[0.2, 0], [-0.1, 1]])
    assert ax.get_xlabel() == "average slope and 95% interval"


def test_predictions_are_lines_by_group_over_numbers_and_points_over_words():
    over, by = np.array([2.0, 1.0, 1.0, 2.0]), np.array(["b", "b", "a", "a"])
    table = {"estimate": [4.0, 3.0, 1.0, 2.0], "conf_low": [3.0] * 4, "conf_high": [5.0] * 4}
    ax = plots.predictions(over, table, by=by)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in lines(ax, "prediction")}
    assert drawn == {"b": [[1, 3], [2, 4]], "a": [[1, 1], [2, 2]]}
    ax = plots.predictions(["low", "high"], ([1.0, 2.0], [0.5, 1.0], [1.5, 3.0]))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["low", "high"]
    assert_allclose(lines(ax, "prediction")[0].get_xydata(), [[0, 1], [1, 2]])


def test_residuals_show_their_means_by_bin_and_by_group():
    residual = np.array([1.0, -1.0, 3.0, np.nan, 5.0])
    ax = plots.residuals(residual, [1.0, 2.0, 3.0, 4.0, 5.0], bins=2)
    assert_allclose(lines(ax, "mean")[0].get_xydata(), [[1.5, 0.0], [4.0, 4.0]])
    assert ax.get_title(loc="left") == "1 non-finite row is left out"
    ax = plots.residuals(residual, ["x", "y", "x", "y", "y"])
    assert_allclose(lines(ax, "mean")[0].get_ydata(), [2.0, 2.0])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y"]


def test_they_draw_on_the_axes_that_are_given():
    _, ax = pyplot.subplots()
    curve = nelson_aalen(TIME, EVENT)
    parts = (TIME, TIME - 1, TIME + 1)
    for draw in (
        lambda ax: plots.survival(curve, ax=ax),
        lambda ax: plots.predictions(TIME, parts, ax=ax),
        lambda ax: plots.residuals(TIME - 7, TIME, ax=ax),
        lambda ax: plots.forest(genuine(admissions()), transform=np.exp, ax=ax),
    ):
        ax.clear()
        assert draw(ax) is ax
        ax.figure.canvas.draw()


BAD = [
    (lambda: plots.survival([1.0]), "survival draws results of jaxmle.survival"),
    (lambda: plots.survival({"a": 3}), "'a' is 3"),
    (
        lambda: plots.survival({"a": kaplan_meier(TIME, EVENT), "b": nelson_aalen(TIME, EVENT)}),
        "all curves of a plot must show the same quantity",
    ),
    (lambda: plots.effects(3), "effects draws a result with estimate and conf_int"),
    (lambda: plots.predictions([1.0], {"estimate": [1.0]}), "conf_low and conf_high"),
    (lambda: plots.predictions([1.0, 2.0], ([1.0], [1.0], [1.0])), "must have 2 rows"),
    (lambda: plots.residuals([1.0, 2.0], [1.0]), r"against must have the shape \(2,\)"),
    (lambda: plots.residuals([1.0, np.nan], [1.0, 2.0]), "at least two finite residuals are needed; got 1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input_gets_one_clear_error(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()
