"""Pictures: the lines that were drawn are the numbers, the labels are the names, and bad input gets one clear error."""

from __future__ import annotations

import sys
from dataclasses import replace

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
import scipy.special
import scipy.stats
from matplotlib import pyplot
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import plots
from jaxmle.distributed.public_fit import fit
from jaxmle.inference.profiles.contour import contour
from jaxmle.inference.profiles.profile import profile
from jaxmle.inference.profiles.root_finder import End
from jaxmle.inference.resampling.calibration import Calibration
from jaxmle.likelihood.combinators import fix, frequency, penalize, tie
from jaxmle.likelihood.priors import ridge
from jaxmle.parameters import positive, simplex
from jaxmle.plots.uniformity import band
from jaxmle.solvers import LBFGS
from jaxmle.solvers.status import Status
from tests.likelihoods import normal_kernel
from tests.report.records import admissions, batch, genuine, record

Y = np.array([1.0, 3.0, 2.0, 6.0, 4.0, 2.5, 3.5, 0.5])
START = {"mu": 1.0, "sigma": 0.8}
BOUNDS = {"sigma": positive}
CUT1, CUT2 = scipy.stats.chi2.ppf(0.95, [1, 2])


def total(mu, sigma, y=Y):
    """ℓ in NumPy."""
    return float(np.sum(-0.5 * ((y - mu) / sigma) ** 2 - np.log(sigma)))


@pytest.fixture(autouse=True)
def _figures_are_closed():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def fitted():
    return fit(normal_kernel, START, Y, constraints=BOUNDS)


@pytest.fixture(scope="module")
def profiled(fitted):
    return profile(normal_kernel, fitted, Y)


@pytest.fixture(scope="module")
def edge(fitted):
    return contour(normal_kernel, fitted, Y, ("mu", "sigma"), points=16)


def lines(ax, gid):
    return [line for line in ax.get_lines() if line.get_gid() == gid]


def line(ax, label):
    return next(line for line in ax.get_lines() if line.get_label() == label)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# ---------------------------------------------------------------- the likelihood


def test_the_curve_is_the_likelihood_and_its_top_is_the_estimate(fitted):
    ax = plots.likelihood_curve(normal_kernel, fitted, Y, "sigma")
    value, height = line(ax, "log-likelihood").get_data()
    mu, sigma = float(fitted.params["mu"]), float(fitted.params["sigma"])
    assert_allclose(height, [total(mu, s) - total(mu, sigma) for s in value], atol=1e-12)
    assert value[np.argmax(height)] == sigma and height.max() == 0
    assert np.all(np.diff(value) > 0) and value[0] > 0, "the picture keeps inside the bound"
    assert_allclose(value[-1], sigma + 4 * fitted.se[fitted.names.index("sigma")], rtol=1e-14)
    assert ax.get_xlabel() == "sigma"


def test_the_expansion_has_the_curvature_of_the_normal_likelihood(fitted):
    ax = plots.likelihood_curve(normal_kernel, fitted, Y, "mu")
    value, height = line(ax, "second-order expansion").get_data()
    assert_allclose(height, -0.5 * len(Y) / Y.var() * (value - Y.mean()) ** 2, atol=1e-9)
    # ℓ is quadratic in the mean: the curve is its expansion.
    assert_allclose(height, line(ax, "log-likelihood").get_ydata(), atol=1e-9)


def test_a_penalised_curve_has_its_top_at_the_penalised_estimate():
    loglik = penalize(normal_kernel, ridge(0.5, "mu"))
    found = fit(loglik, START, Y, constraints=BOUNDS)
    ax = plots.likelihood_curve(loglik, found, Y, "mu", points=50)
    value, height = line(ax, "penalised log-likelihood").get_data()
    assert value[np.argmax(height)] == found.params["mu"] < Y.mean()
    assert_allclose(height, line(ax, "second-order expansion").get_ydata(), atol=1e-9)


def test_frequency_weights_draw_the_curve_of_repeated_rows(fitted):
    times = np.array([1, 2, 1, 1, 3, 1, 1, 1])
    found = fit(normal_kernel, START, Y, constraints=BOUNDS, weights=frequency(times))
    ax = plots.likelihood_curve(normal_kernel, found, Y, "mu", weights=frequency(times), points=20)
    value, height = line(ax, "log-likelihood").get_data()
    rows, sigma = np.repeat(Y, times), float(found.params["sigma"])
    assert_allclose(
        height, [total(m, sigma, rows) - total(rows.mean(), sigma, rows) for m in value], atol=1e-9
    )


def test_a_tied_parameter_takes_its_followers_along():
    loglik = tie(normal_kernel, ("mu", "sigma"))
    found = fit(
        loglik, {"mu": 2.0, "sigma": 2.0}, Y, constraints={"mu": positive, "sigma": positive}
    )
    value, height = line(
        plots.likelihood_curve(loglik, found, Y, "sigma", points=20), "log-likelihood"
    ).get_data()
    both = float(found.params["mu"])
    assert_allclose(height, [total(m, m) - total(both, both) for m in value], atol=1e-9)


def test_a_span_is_taken_as_it_is(fitted):
    ax = plots.likelihood_curve(
        normal_kernel,
        replace(fitted, stderr={"mu": np.float64(np.nan), "sigma": np.float64(np.nan)}),
        Y,
        "mu",
        span=(4.0, 5.0),
    )
    assert ax.get_xlim() == (4.0, 5.0)
    assert "estimate" not in legend(ax), "the estimate is not in the picture"
    assert line(ax, "log-likelihood").get_xdata()[[0, -1]].tolist() == [4.0, 5.0]


def test_the_contours_of_the_surface_lie_at_their_heights(fitted):
    ax = plots.likelihood_surface(normal_kernel, fitted, Y, ("mu", "sigma"))
    drawn = [
        contours
        for contours in ax.collections
        if type(contours).__name__ == "QuadContourSet" and not contours.filled
    ]
    regions = drawn[-1]
    assert_allclose(
        np.sort(regions.levels),
        np.sort(np.log1p(-np.array([0.5, 0.8, 0.95, 0.99, 0.999]))),
        rtol=1e-12,
    )
    top = total(*fitted.x)
    for level, path in zip(regions.levels, regions.get_paths(), strict=True):
        assert len(path.vertices) > 20
        fall = [total(m, s) - top for m, s in path.vertices]
        assert_allclose(fall, level, atol=0.05)  # linear interpolation between 61 points a side
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mu", "sigma")
    assert_allclose(line(ax, "estimate").get_xydata()[0], fitted.x)


def test_the_surface_grows_to_hold_the_path_and_takes_it_in_either_form(fitted):
    climb = plots.path_of(normal_kernel, {"mu": 12.0, "sigma": 0.8}, Y, constraints=BOUNDS)
    for path in (climb, climb.x, climb.x[:, ::-1].copy()[:, ::-1]):
        ax = plots.likelihood_surface(normal_kernel, fitted, Y, ("sigma", "mu"), path)
        assert_allclose(line(ax, "path").get_xydata(), climb.x[:, ::-1])
        assert_allclose(line(ax, "start").get_xydata(), [[0.8, 12.0]])
        assert ax.get_ylim()[1] > 12 and ax.get_xlim()[0] > 0


def test_a_path_from_afar_does_not_take_the_whole_picture(fitted):
    ax = plots.likelihood_surface(
        normal_kernel, fitted, Y, ("mu", "sigma"), np.array([[1e4, 2.0], [3.0, 2.0]])
    )
    assert ax.get_xlim()[1] < 40 and "start (outside)" in legend(ax)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("tau", {}, "no parameter is called 'tau'; the parameters are mu, sigma"),
        ("mu", {"width": -1.0}, "width must be a positive number"),
        ("mu", {"points": 2}, "points must be a whole number, 3 or more"),
        ("sigma", {"span": (-1.0, 2.0)}, "inside its bounds 0 and inf"),
        ("mu", {"span": (2.0, np.nan)}, "two finite numbers"),
        ("mu", {"weights": frequency(np.ones(3))}, "leave the weights out"),
    ],
)
def test_a_curve_that_cannot_be_drawn_says_why(fitted, name, options, match):
    with pytest.raises(ValueError, match=match):
        plots.likelihood_curve(normal_kernel, fitted, Y, name, **options)


def test_a_parameter_without_a_standard_error_asks_for_a_span(fitted):
    with pytest.raises(
        ValueError,
        match=r"mu has no standard error to set the width of the plot: give span=\(low, high\)",
    ):
        plots.likelihood_curve(
            normal_kernel,
            replace(fitted, stderr={"mu": np.float64(np.nan), "sigma": np.float64(1.0)}),
            Y,
            "mu",
        )
    with pytest.raises(
        ValueError,
        match="sigma has the estimate inf: the likelihood cannot be drawn with it held there",
    ):
        plots.likelihood_curve(
            normal_kernel,
            replace(fitted, params={"mu": np.float64(1.0), "sigma": np.float64(np.inf)}),
            Y,
            "mu",
        )


def test_what_cannot_move_alone_has_no_curve(fitted):
    with pytest.raises(ValueError, match="'mu' is held by fix"):
        plots.likelihood_curve(fix(normal_kernel, {"mu": fitted.params["mu"]}), fitted, Y, "mu")

    def shares(params, data):
        return jnp.log(params["p"][data])

    found = fit(
        shares, {"p": np.full(3, 1 / 3)}, np.array([0, 0, 1, 2, 2, 2]), constraints={"p": simplex}
    )
    with pytest.raises(ValueError, match=r"'p\[0\]' cannot vary"):
        plots.likelihood_curve(shares, found, np.array([0, 0, 1, 2, 2, 2]), "p[0]")
    with pytest.raises(
        ValueError, match=r"'p' means 3 entries; name one of p\[0\], p\[1\], p\[2\]"
    ):
        plots.likelihood_curve(shares, found, np.array([0, 0, 1, 2, 2, 2]), "p")


def test_a_curve_that_is_finite_nowhere_is_refused_and_one_at_infinity_has_the_supremum_for_top():
    def binary(params, data):
        return -jnp.logaddexp(0.0, -data * params["slope"])

    found = fit(binary, {"slope": 0.1}, np.array([1.0, 2.0, 0.5]))
    assert found.verdict == Status.SEPARATED and np.isinf(found.params["slope"])
    value, height = line(
        plots.likelihood_curve(
            binary, found, np.array([1.0, 2.0, 0.5]), "slope", span=(0.0, 9.0), points=20
        ),
        "log-likelihood",
    ).get_data()
    assert_allclose(
        height,
        [-np.sum(np.log1p(np.exp(-s * np.array([1.0, 2.0, 0.5])))) for s in value],
        rtol=1e-12,
    )

    def broken(params, data):
        return jnp.log(-jnp.abs(params["slope"])) - data

    with pytest.raises(ValueError, match="the log-likelihood is not finite anywhere in this plot"):
        plots.likelihood_curve(
            broken, found, np.array([1.0, 2.0, 0.5]), "slope", span=(1.0, 2.0), points=20
        )


def test_surface_mistakes(fitted):
    with pytest.raises(ValueError, match="are one parameter"):
        plots.likelihood_surface(normal_kernel, fitted, Y, ("mu", "mu"))
    with pytest.raises(TypeError, match="pair must be the names of two parameters"):
        plots.likelihood_surface(normal_kernel, fitted, Y, "mu")
    with pytest.raises(
        ValueError, match=r"shape \(m, 2\) of the pair or \(m, 2\) of all parameters; got \(4, 3\)"
    ):
        plots.likelihood_surface(normal_kernel, fitted, Y, ("mu", "sigma"), np.ones((4, 3)))
    with pytest.raises(ValueError, match="the path has the parameters a, the fit of mu, sigma"):
        plots.likelihood_surface(
            normal_kernel,
            fitted,
            Y,
            ("mu", "sigma"),
            plots.SearchPath(np.ones((2, 1)), np.ones(2), ("a",)),
        )


# ---------------------------------------------------------------- the path


def test_the_path_ends_where_fit_does(fitted):
    climb = plots.path_of(normal_kernel, START, Y, constraints=BOUNDS)
    assert climb.names == fitted.names and climb.x[0].tolist() == [1.0, 0.8]
    assert climb.x[-1].tolist() == fitted.x.tolist() and climb.loglik[-1] == fitted.loglik
    assert np.all(np.diff(climb.loglik) >= -1e-12), "a step that lowers the likelihood is refused"
    assert_allclose(climb.loglik, [total(*row) for row in climb.x], rtol=1e-12)
    assert len(plots.path_of(normal_kernel, START, Y, constraints=BOUNDS, max_steps=0)) <= 2


def test_a_solver_without_steps_is_refused():
    with pytest.raises(
        ValueError, match="LBFGS runs inside one program and does not report its steps"
    ):
        plots.path_of(normal_kernel, START, Y, constraints=BOUNDS, solver=LBFGS())


def test_the_trace_is_the_distance_to_the_top_with_rounding_as_its_floor():
    ax = plots.trace([-110.0, -np.inf, -101.0, -100.0], label="one")
    height = lines(ax, "trace")[0].get_ydata()
    assert_allclose(height, [10.0, np.nan, 1.0, 100 * 2.0**-52])
    assert ax.get_yscale() == "log"
    plots.trace([-105.0, -100.5], -100.0, label="two", ax=ax)
    assert lines(ax, "trace")[1].get_ydata().tolist() == [5.0, 0.5] and legend(ax) == ["one", "two"]
    assert lines(ax, "trace")[0].get_linestyle() != lines(ax, "trace")[1].get_linestyle(), (
        "told apart without colour"
    )


def test_trace_mistakes():
    with pytest.raises(ValueError, match="top must be the largest"):
        plots.trace([-2.0, -1.0], -1.5)
    with pytest.raises(ValueError, match="none of the log-likelihoods"):
        plots.trace([np.nan, -np.inf])
    with pytest.raises(TypeError, match="must be real numbers; got dtype"):
        plots.trace(["a"])


# ---------------------------------------------------------------- regions


def test_the_profile_meets_the_cut_off_at_its_ends(fitted, profiled):
    ax = plots.profile(profiled, "sigma", fitted)
    cut = next(line for line in ax.get_lines() if "cut-off" in line.get_label())
    assert_allclose(cut.get_ydata(), CUT1)
    value, height = line(ax, "profile").get_data()
    for end in profiled.interval()[1]:
        assert_allclose(np.interp(end, value, height), CUT1, atol=0.03)
    # The profile over the mean: 2(ℓ̂ − ℓ) = n(v/σ² − 1 − log(v/σ²)), v the variance of the data.
    ratio = Y.var() / value**2
    assert_allclose(height, len(Y) * (ratio - 1 - np.log(ratio)), atol=0.02)
    assert (ax.get_xlabel(), ax.get_legend() is None) == ("sigma", False)


def test_walds_parabola_reaches_the_cut_off_at_its_own_ends(fitted, profiled):
    value, height = line(plots.profile(profiled, "sigma", fitted), "Wald").get_data()
    low, high = fitted.interval(scale="user")[1]
    inside = [end for end in (low, high) if value[0] <= end <= value[-1]]
    assert inside
    assert_allclose(np.interp(inside, value, height), CUT1, atol=1e-3)
    assert "Wald" not in legend(plots.profile(profiled, "sigma"))


def test_an_end_that_was_not_found_is_told(profiled):
    open_above = replace(
        profiled, upper=np.array([np.inf, np.inf]), upper_status=np.full(2, int(End.UNBOUNDED))
    )
    assert (
        plots.profile(open_above, "mu").get_title("left")
        == "upper end unbounded: the likelihood never falls that far"
    )
    assert plots.profile(profiled, "mu").get_title("left") == ""


def test_the_contour_is_closed_and_the_ellipse_is_walds(fitted, edge):
    ax = plots.contour(edge, fitted)
    assert_allclose(line(ax, "likelihood, 95%").get_xydata(), edge.closed)
    off = line(ax, "Wald, 95%").get_xydata() - fitted.x
    assert_allclose(
        np.einsum("ni,ij,nj->n", off, np.linalg.inv(fitted.vcov), off), CUT2, rtol=1e-10
    )
    assert_allclose(line(ax, "estimate").get_xydata()[0], fitted.x)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mu", "sigma")


def test_points_of_the_edge_that_are_not_finite_leave_a_gap(edge):
    curve = edge.curve.copy()
    curve[3], curve[4, 0] = np.nan, np.inf
    ax = plots.contour(replace(edge, curve=curve))
    assert np.isnan(line(ax, "likelihood, 95%").get_xydata()).any(axis=1).sum() == 2
    assert (
        ax.get_legend().get_title().get_text()
        == "2 of 16 boundary points are not drawn: at infinity, or not found"
    )
    with pytest.raises(ValueError, match="no point of this contour is finite"):
        plots.contour(
            replace(edge, curve=np.full_like(curve, np.nan), status=np.full(16, int(End.NO_FIT)))
        )


def test_region_mistakes(fitted, profiled):
    with pytest.raises(
        ValueError, match="this profile has no quantity called 'tau'; there are mu, sigma"
    ):
        plots.profile(profiled, "tau")
    with pytest.raises(ValueError, match=r"has no points to draw: profile\(…, points=5\)"):
        plots.profile(replace(profiled, curve=np.zeros((2, 0)), root=np.zeros((2, 0))), "mu")
    with pytest.raises(TypeError, match="needs a Profile; got Fit"):
        plots.profile(fitted, "mu")
    with pytest.raises(TypeError, match="needs a Contour; got Fit"):
        plots.contour(fitted)


# ---------------------------------------------------------------- estimates


def test_the_forest_has_a_row_for_each_parameter_at_its_interval():
    fitted = genuine(admissions())
    ax = plots.forest(fitted, ["gpa", "intercept"], 0.9)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["gpa", "intercept"]
    assert_allclose(lines(ax, "estimate")[0].get_xydata(), [[0.804038, 0], [-3.989979, 1]])
    ends = np.sort([drawn.get_xdata() for drawn in lines(ax, "interval")], axis=None)
    wanted = fitted.interval(0.9)[[2, 0]]
    assert_allclose(ends, np.sort(np.concatenate([wanted.ravel(), np.repeat(fitted.x[[2, 0]], 2)])))
    assert ax.get_xlabel() == "estimate and 90% Wald interval"
    assert ax.yaxis_inverted(), "the first name is on top"


def test_fits_side_by_side_do_not_hide_one_another(fitted, profiled):
    ax = plots.forest({"Wald": fitted, "profile": profiled})
    wald, other = lines(ax, "estimate")
    assert legend(ax) == ["Wald", "profile"]
    assert_allclose(wald.get_xdata(), other.get_xdata(), rtol=1e-9)
    assert np.all(wald.get_ydata() < other.get_ydata()) and wald.get_marker() != other.get_marker()
    assert ax.get_xlabel() == "estimate and 95% Wald or 95% profile likelihood interval"
    assert_allclose(
        max(drawn.get_xdata().max() for drawn in lines(ax, "interval")),
        max(profiled.upper.max(), fitted.interval().max()),
    )


def test_what_is_infinite_or_missing_is_shown_as_that():
    odd = genuine(
        record([0.5, np.inf, np.nan, 2.0], [np.inf, np.nan, np.nan, np.nan], ("a", "b", "c", "d"))
    )
    ax = plots.forest(odd)
    low, high = ax.get_xlim()
    assert sorted(tuple(drawn.get_xydata()[0]) for drawn in lines(ax, "infinite")) == sorted(
        [(low, 0.0), (high, 0.0), (high, 1.0)]
    )
    assert [drawn.get_xdata().tolist() for drawn in lines(ax, "interval")] == [
        [0.5, low],
        [0.5, high],
    ]
    assert [text.get_text() for text in ax.texts] == ["no estimate"] and ax.texts[0].xy[1] == 2.0
    assert lines(ax, "no interval")[0].get_xydata().tolist() == [[2.0, 3.0]]
    assert np.isfinite([low, high]).all() and low < 0.5 and high > 2


def test_forest_mistakes():
    fitted = genuine(admissions())
    with pytest.raises(ValueError, match="no parameter is called 'gdp'"):
        plots.forest(fitted, ["gdp"])
    with pytest.raises(TypeError, match="names must be a list of parameters; got 'gre'"):
        plots.forest(fitted, "gre")
    with pytest.raises(ValueError, match=r"a batch of shape \(5,\)"):
        plots.forest({"many": genuine(batch(5))})
    for bad in ({}, [], 3, {"a": 3}):
        with pytest.raises(TypeError, match="forest draws"):
            plots.forest(bad)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        plots.forest(fitted, level=95)


def test_the_map_of_a_batch_counts_and_marks_every_member():
    fits = genuine(batch(30, 2, {3: Status.SEPARATED, 9: Status.MAX_STEPS, 11: Status.NONFINITE}))
    x = fits.x[:, 1].copy()
    x[[3, 9, 11]] = np.inf, 1.1, np.nan
    ax = plots.batch_map(replace(fits, params=[fits.params[0], x]), "beta[1]", truth=1.0)
    assert legend(ax) == ["CONVERGED 27", "MAX_STEPS 1", "SEPARATED 1", "NONFINITE 1"]
    member = {drawn.get_label(): drawn for drawn in lines(ax, "member")}
    assert_allclose(
        member["CONVERGED 27"].get_xydata(),
        np.column_stack([np.arange(30), x])[np.isin(np.arange(30), [3, 9, 11], invert=True)],
    )
    assert member["MAX_STEPS 1"].get_xydata().tolist() == [[9.0, 1.1]]
    assert lines(ax, "beyond")[0].get_xydata().tolist() == [[3.0, ax.get_ylim()[1]]]
    assert lines(ax, "no estimate")[0].get_xdata().tolist() == [11]
    assert len({drawn.get_marker() for drawn in member.values()}) == 4
    assert (
        ax.get_xlabel()
        == "member   (1 beyond the edge, drawn at it; 1 without an estimate, ticks below)"
    )
    bars = ax.collections[0].get_segments()
    assert len(bars) == 27
    assert_allclose(bars[0][:, 1], [x[0] - fits.se[0, 1], x[0] + fits.se[0, 1]])


def test_the_map_of_a_large_batch_has_no_standard_errors_and_failed_batches_can_be_drawn():
    ax = plots.batch_map(genuine(batch(1000, 1)), "beta[0]")
    assert not ax.collections and ax.get_ylabel() == "beta[0]" and legend(ax) == ["CONVERGED 1,000"]
    lost = genuine(
        record(np.full((3, 1), np.nan), np.full((3, 1), np.nan), ("a",), status=np.zeros(3, int))
    )
    assert legend(plots.batch_map(lost, "a")) == ["NONFINITE 3"]
    with pytest.raises(
        ValueError, match=r"one leading axis over members; this one has the shape \(\)"
    ):
        plots.batch_map(genuine(admissions()), "gre")


# ---------------------------------------------------------------- residuals and simulations


def test_qq_draws_sorted_residuals_against_normal_quantiles():
    values = np.random.default_rng(1).normal(size=40)
    ax = plots.qq(np.concatenate([values, [np.nan, np.inf]]))
    quantile, drawn = line(ax, "residuals").get_data()
    assert_allclose(drawn[:-1], np.sort(values))
    assert np.isnan(drawn[-1]), "an infinite residual keeps its rank"
    assert_allclose(quantile, scipy.stats.norm.ppf((np.arange(41) + 0.5) / 41))
    assert ax.get_title("left") == "1 NaN is left out\n1 infinite residual is not drawn"


def test_the_band_holds_whole_samples_as_often_as_it_says():
    n, samples = 30, 4000
    low, high = band(np.arange(1, n + 1), n, 0.95, 4000, 0)
    u = np.sort(np.random.default_rng(2).random((samples, n)), axis=1)
    share = np.mean(np.all((low <= u) & (u <= high), axis=1))
    assert abs(share - 0.95) < 4 * np.sqrt(
        2 * 0.95 * 0.05 / samples
    )  # two simulations of 4000: SE 0.0049
    # One value: the band is the uniform quantiles, γ = 0.05 but for the simulation, SE 0.0034.
    assert_allclose(band(np.array([1]), 1, 0.95, 4000, 0).ravel(), [0.025, 0.975], atol=0.007)
    some = np.array(
        [1, 2, 500, 999, 1000]
    )  # ranks drawn without the others have the law that they have among all
    drawn = np.sort(np.random.default_rng(3).random((1000, 1000)), axis=1)[:, some - 1]
    low, high = band(some, 1000, 0.95, 4000, 0)
    assert abs(np.mean(np.all((low <= drawn) & (drawn <= high), axis=1)) - 0.95) < 4 * np.sqrt(
        1.25 * 0.95 * 0.05 / 1000
    )


def test_pit_bars_are_densities_within_binomial_quantiles():
    values = np.random.default_rng(4).random(200)
    ax = plots.pit(np.append(values, np.nan), bins=10)
    heights = [bar.get_height() for bar in ax.patches]
    assert_allclose(heights, np.histogram(values, 10, (0, 1), density=True)[0])
    drawn = sorted(float(drawn.get_ydata()[0]) for drawn in ax.get_lines())
    tails = scipy.stats.binom.ppf([0.05 / 20, 1 - 0.05 / 20], 200, 0.1) * 10 / 200
    assert_allclose(drawn, sorted([*tails, 1.0]))
    assert ax.get_title("left") == "1 NaN is left out"


def test_residual_mistakes():
    with pytest.raises(
        ValueError, match="must lie between 0 and 1; got -0.1 to 0.5. For residuals use qq"
    ):
        plots.pit([-0.1, 0.5])
    with pytest.raises(ValueError, match="residuals must have 1 axes; got shape"):
        plots.qq(np.ones((3, 1)))
    with pytest.raises(ValueError, match="at least two residuals are needed; got 1 and 1 NaN"):
        plots.qq([np.nan, 1.0])
    with pytest.raises(ValueError, match="values is empty"):
        plots.pit([])
    with pytest.raises(ValueError, match="all values are NaN"):
        plots.pit([np.nan])
    with pytest.raises(ValueError, match="bins must be a whole number"):
        plots.pit([0.5], bins=0)


def calibrated():
    """Forty replicates of two parameters; the second has no bootstrap interval, and two replicates are on a bound."""
    x = np.random.default_rng(5).normal(size=(40, 2))
    wald = np.stack([x - 1.5, x + 1.5], axis=-1)
    status = np.full(40, int(Status.CONVERGED))
    status[:2] = int(Status.BOUNDARY)
    none = np.where(np.arange(2)[:, None] == 1, np.nan, 3 * wald)
    return Calibration(
        np.zeros(2),
        x,
        np.ones((40, 2)),
        status,
        {"wald": wald, "bootstrap": none},
        {},
        np.eye(2),
        np.ones(2),
        2,
        0.95,
        "observed",
        ("mu", "sigma"),
    )


def test_coverage_is_drawn_with_wilsons_interval():
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    known = calibrated()
    ax = plots.coverage(known)
    wald, bootstrap = lines(ax, "coverage")
    assert_allclose(wald.get_xdata(), 100 * known.coverage("wald"))
    assert bootstrap.get_xdata()[0] == 100 * known.coverage("bootstrap")[0] and np.isnan(
        bootstrap.get_xdata()[1]
    )
    covered = np.rint(known.coverage("wald") * 38)
    for bar, count in zip(ax.collections[0].get_segments(), covered, strict=True):
        assert_allclose(
            bar[:, 0],
            100 * np.array(proportion.proportion_confint(count, 38, method="wilson")),
            rtol=1e-10,
        )
    assert [text.get_text() for text in ax.texts] == ["no interval"]
    assert ax.get_title("left") == "38 of 40 replicates are regular"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["mu", "sigma"]
    with pytest.raises(TypeError, match="needs a Calibration"):
        plots.coverage({"mu": 0.95})


# ---------------------------------------------------------------- mixtures


def test_the_density_of_a_mixture_is_the_sum_of_its_components():
    y = np.concatenate([np.linspace(-2, 0, 30), np.linspace(1, 4, 50)])
    ax = plots.mixture(y, [0.4, 0.6], [-1.0, 2.5], [0.3, 0.8], names=["time"])
    grid, height = line(ax, "mixture").get_data()
    wanted = 0.4 * scipy.stats.norm.pdf(grid, -1, 0.3**0.5) + 0.6 * scipy.stats.norm.pdf(
        grid, 2.5, 0.8**0.5
    )
    assert_allclose(height, wanted, rtol=1e-12)
    assert_allclose(
        line(ax, "component 0, weight 0.4").get_ydata()
        + line(ax, "component 1, weight 0.6").get_ydata(),
        height,
        rtol=1e-12,
    )
    assert_allclose(np.trapezoid(height, grid), 1, atol=1e-3)
    assert_allclose(sum(bar.get_height() * bar.get_width() for bar in ax.patches), 1)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time", "density")


def test_the_ellipses_of_a_mixture_hold_their_share_and_points_wear_their_component():
    rng, mean = np.random.default_rng(6), np.array([[0.0, 0.0], [4.0, 4.0]])
    variance = np.array([[[1.0, 0.5], [0.5, 1.0]], [[2.0, 0.0], [0.0, 0.5]]])
    y = np.concatenate(
        [rng.multivariate_normal(m, v, 50) for m, v in zip(mean, variance, strict=True)]
    )
    ax = plots.mixture(y, [0.5, 0.5], mean, variance)
    for drawn, m, v in zip(lines(ax, "ellipse"), mean, variance, strict=True):
        off = drawn.get_xydata() - m
        assert_allclose(np.einsum("ni,ij,nj->n", off, np.linalg.inv(v), off), CUT2, rtol=1e-10)
    density = np.column_stack(
        [scipy.stats.multivariate_normal.pdf(y, m, v) for m, v in zip(mean, variance, strict=True)]
    )
    for number, drawn in enumerate(lines(ax, "points")):
        assert_allclose(drawn.get_xydata(), y[density.argmax(axis=1) == number])
    assert_allclose(lines(ax, "means")[0].get_xydata(), mean)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"weight": [0.4, 0.4]}, "positive and sum to 1"),
        ({"weight": [1.2, -0.2]}, "positive and sum to 1"),
        ({"mean": [1.0]}, r"mean must have the shape \(2,\)"),
        ({"variance": [1.0, 0.0]}, "must be positive"),
        ({"y": [1.0, np.nan]}, "y has non-finite values"),
        ({"y": np.ones((4, 3))}, r"y must have the shape \(n,\) or \(n, 2\)"),
        ({"names": ["a", "b"]}, "names must hold 1 name for data"),
    ],
)
def test_mixture_mistakes(change, match):
    sound = {"y": [1.0, 2.0, 3.0], "weight": [0.5, 0.5], "mean": [1.0, 3.0], "variance": [1.0, 1.0]}
    with pytest.raises(ValueError, match=match):
        plots.mixture(**(sound | change))


# ---------------------------------------------------------------- all of them


def test_every_picture_is_drawn_on_the_axes_that_are_given(fitted, profiled, edge):
    _, ax = pyplot.subplots()
    many = genuine(batch(4, 1))
    y, three = Y, ([0.5, 0.5], [1.0, 3.0], [1.0, 1.0])
    drawings = [
        lambda ax: plots.likelihood_curve(normal_kernel, fitted, y, "mu", ax=ax), lambda ax: plots.likelihood_surface(normal_kernel, fitted, y, ("mu", "sigma"), ax=ax),
        lambda ax: plots.profile(profiled, "mu", ax=ax), lambda ax: plots.contour(edge, fitted, ax=ax), lambda ax: plots.forest(fitted, ax=ax),
        lambda ax: plots.qq(y, ax=ax), lambda ax: plots.pit(y / 10, ax=ax), lambda ax: plots.trace([1.0, 2.0], ax=ax),
        lambda ax: plots.coverage(calibrated(), ax=ax), lambda ax: plots.batch_map(many, "beta[0]", ax=ax), lambda ax: plots.mixture(y, *three, ax=ax),
    ]  # fmt: skip
    figures = pyplot.get_fignums()
    for draw in drawings:
        ax.clear()
        assert draw(ax) is ax
        ax.figure.canvas.draw()  # what only the renderer would refuse: a glyph, a mathematical label
    assert pyplot.get_fignums() == figures, "no figure of its own"
    with pytest.raises(
        TypeError, match="ax must be one matplotlib Axes, or None for a new figure; got ndarray"
    ):
        plots.qq(y, ax=np.array([ax, ax]))


def test_one_fit_is_needed_where_one_is_drawn():
    with pytest.raises(ValueError, match=r"a batch of shape \(4,\): give fit\[i\]"):
        plots.likelihood_curve(normal_kernel, genuine(batch(4, 1)), Y, "beta[0]")
    with pytest.raises(TypeError, match="needs a Fit; got dict"):
        plots.likelihood_curve(normal_kernel, {}, Y, "mu")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'a plot needs matplotlib: pip install "jaxmle\[plot\]"'):
        plots.qq(Y)


def test_no_setting_of_matplotlib_is_changed():
    before = dict(mpl.rcParams)
    plots.qq(Y)
    assert dict(mpl.rcParams) == before


def test_a_forest_calls_its_rows_by_short_names_and_takes_them():
    race = np.resize(np.array(["a", "b", "c"], dtype=object), 189)
    table = {**jm.datasets.load("birthwt").data, "race": race}
    frame = jm.from_formula("low ~ age + race", table)
    fit = frame.fit(jm.models.logistic())
    rows = [label.get_text() for label in plots.forest(fit).get_yticklabels()]
    assert rows == ["Intercept", "age", "race[b]", "race[c]"]
    some = plots.forest(fit, ["race", "age"])
    assert [label.get_text() for label in some.get_yticklabels()] == [
        "race[b]", "race[c]", "age",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no parameter is called 'ages'"):
        plots.forest(fit, ["ages"])


def mean_with(mean, error):
    """A fit of one parameter with this estimate and standard error."""
    y = mean + error * np.array([-1.0, 1.0]) * np.sqrt(2)
    return jm.fit(lambda p, y: -0.25 * ((y - p["m"]) / error) ** 2, {"m": 0.0}, y)


@pytest.mark.parametrize("ends", [(0.9, 1.3), (0.5, 4.0), (0.45, 31.0), (1e-3, 1e4)])
def test_labels_of_a_logarithmic_axis_do_not_overlap(ends):
    low, high = np.log(ends)
    effect = jm.delta(lambda p: p["m"], mean_with(0.5 * (low + high), (high - low) / 4))
    ax = plots.effects(effect, transform=np.exp)
    ax.figure.canvas.draw()
    boxes = [
        label.get_window_extent()
        for label in (*ax.get_xticklabels(), *ax.get_xticklabels(minor=True))
        if label.get_text() and ax.get_xlim()[0] <= label.get_position()[0] <= ax.get_xlim()[1]
    ]
    assert len(boxes) >= 2
    assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))
