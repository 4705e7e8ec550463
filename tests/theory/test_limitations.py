"""Where maximum likelihood ends, on simulated data: what is lost, by how much, and what the library says of it.

Held elsewhere, and not repeated here: verdicts, signs and limits of separated fits against linear programs (fitting/test_separation.py,
fitting/test_statuses.py), the census of one Cauchy sample and the merging of exchanged labels (fitting/test_multistart.py), unidentified sums and
their standard errors (fitting/test_statuses.py), mixtures that collapse under EM and what a floor of the variance does (fitting/test_em.py),
numbers of every sandwich (likelihood/test_sandwich.py, reference/), the limit under a wrong model as the nearest member
(inference/test_divergence.py), every planted mistake that ``lint`` finds (inference/test_lint.py), mean squared error as the likelihood of a
normal response (likelihood/test_losses.py).
"""

import itertools
import math

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle import Status
from tests.likelihoods import cauchy, logit, normal_beside_background, poisson_kernel

from .study import assert_far, assert_near, mean, share

# Every batch but one has two parameters and 1025 to 8192 members: the programs that know no likelihood are then compiled once for all of them.
Z95 = scipy.special.ndtri(0.975)


# ---------------------------------------------------------------- 1 non-existence


def test_1_the_labellings_without_an_estimate_are_counted_by_cover():
    """Of the 2ⁿ labellings of n points in general position, 2 Σ_{k<p} C(n − 1, k) are separable (Cover 1965, IEEE Trans. EC-14, p. 326).

    All 2 048 of eleven points on a line are fitted; with an intercept, those are separable whose labels change at most once from left to right.
    """
    n, p = 11, 2
    x = np.column_stack([np.ones(n), np.sort(np.random.default_rng(201).normal(size=n))])
    y = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
    fits = jm.fit_batch(
        logit,
        {"beta": np.zeros(p)},
        {"x": x, "y": y},
        in_axes={"x": None, "y": 0},
        progress=False,
    )
    changes = np.abs(np.diff(y, axis=1)).sum(axis=1)
    assert_array_equal(fits.status, np.where(changes <= 1, Status.SEPARATED, Status.CONVERGED))
    assert (
        np.sum(fits.status == Status.SEPARATED)
        == 2 * sum(math.comb(n - 1, k) for k in range(p))
        == 22
    )
    apart = fits.status == Status.SEPARATED
    assert not np.isfinite(fits.x[apart]).any() and np.isnan(fits.se[apart]).all()
    assert_allclose(fits.loglik[apart], 0.0, atol=1e-8)
    step = apart & (changes == 1)
    assert_array_equal(fits.x[step, 1], np.where(y[step, -1] == 1, np.inf, -np.inf))


# ---------------------------------------------------------------- 2 non-uniqueness


def cauchy_maxima(y):
    """Where the score of one sample (n,) falls through zero, on a fine grid."""
    grid = np.unique(
        np.concatenate(
            [
                np.linspace(y.min() - 1, y.max() + 1, 4001),
                (y[:, None] + np.linspace(-3, 3, 601)).ravel(),
            ]
        )
    )
    score = np.sum((y[:, None] - grid) / (1 + (y[:, None] - grid) ** 2), axis=0)
    at = np.flatnonzero((score[:-1] > 0) & (score[1:] <= 0))
    return (grid[at] + grid[at + 1]) / 2


def test_2_a_cauchy_centre_has_other_maxima_a_third_of_a_time():
    """The number of maxima besides the highest tends to a Poisson law of mean 1/π (Reeds 1985, Annals of Statistics 13, p. 775).

    200 samples of 30, from each of their observations: one batch of 6 000.
    """
    samples, n = 200, 30
    y = np.random.default_rng(202).standard_cauchy((samples, n))
    fits = jm.fit_batch(
        cauchy, {"centre": y.ravel()}, np.repeat(y, n, axis=0), params_axis=0, progress=False
    )
    assert fits.converged.all()
    ends, heights = fits.x.reshape(samples, n), fits.loglik.reshape(samples, n)
    others = np.zeros(samples)
    for i in range(samples):
        places = np.sort(ends[i])
        distinct = places[np.append(True, np.diff(places) > 1e-3)]
        assert_allclose(distinct, cauchy_maxima(y[i]), atol=0.02)
        others[i] = len(distinct) - 1
    # Every one of them CONVERGED: the status is of a maximum, not of the highest. The start decides, and the median is a good one.
    lower = heights < heights.max(axis=1, keepdims=True) - 1e-6
    assert_array_equal(lower.any(axis=1), others > 0)
    assert_near(others.mean(), 1 / np.pi, np.sqrt(1 / np.pi / samples))
    assert_near(np.mean(others == 0), np.exp(-1 / np.pi), share(others == 0)[1])
    nearest = np.argmin(np.abs(y - np.median(y, axis=1, keepdims=True)), axis=1)
    assert np.mean(lower[np.arange(samples), nearest]) < 0.02


# ---------------------------------------------------------------- 3 overfitting


R, N = 4000, 12
X = np.column_stack([np.ones(N), np.random.default_rng(203).normal(size=N)])
BETA = np.array([0.3, -0.2])


def unit_normal(params, data):
    """σ = 1 known: every expectation below is exact."""
    return -0.5 * (data["y"] - data["x"] @ params["beta"]) ** 2


def excess(beta, y):
    """ℓ at estimates (R, p) less ℓ at the truth, for responses (R, n)."""
    return -0.5 * np.sum((y - beta @ X.T) ** 2, axis=1) + 0.5 * np.sum((y - X @ BETA) ** 2, axis=1)


@pytest.fixture(scope="module")
def responses():
    return X @ BETA + np.random.default_rng(204).normal(size=(2, R, N))


def test_3_a_fit_gains_p_halves_on_its_own_data_and_loses_as_much_on_new_ones(responses):
    """2(ℓ(θ̂) − ℓ(θ)) is χ²(p) on the data of the fit; on fresh responses the mean is −p: their distance is the 2p of AIC."""
    y, new = responses
    fits = jm.fit_batch(
        unit_normal,
        {"beta": np.zeros(2)},
        {"x": X, "y": y},
        in_axes={"x": None, "y": 0},
        progress=False,
    )
    own, fresh = 2 * excess(fits.x, y), 2 * excess(fits.x, new)
    for values, exact in ((own, 2), (fresh, -2), (own - fresh, 4)):
        average, error = mean(values)
        assert_near(average, exact, error)
    assert_allclose(2 * fits.loglik + fits.aic, 4.0, rtol=1e-12)


def test_3_a_prior_trades_fit_for_prediction_and_is_labelled(responses):
    """ridge(τ): β̂ = (X'X + τ)⁻¹X'y. The mean of both log-likelihoods in closed form: −½ tr(V X'X) − ½‖X b‖², V its variance, b its bias."""
    y, new = responses
    strength = 2.0
    fits = jm.fit_batch(
        jm.penalize(unit_normal, jm.ridge(strength)),
        {"beta": np.zeros(2)},
        {"x": X, "y": y},
        in_axes={"x": None, "y": 0},
        progress=False,
    )
    shrink = np.linalg.solve(X.T @ X + strength * np.eye(2), X.T)
    assert_allclose(fits.x, y @ shrink.T, rtol=0, atol=1e-9)
    bias = shrink @ X @ BETA - BETA
    loss = -0.5 * np.trace(X @ shrink @ shrink.T @ X.T) - 0.5 * np.sum((X @ bias) ** 2)
    own, fresh = excess(fits.x, y), excess(fits.x, new)
    assert_near(mean(fresh)[0], loss, mean(fresh)[1])
    assert_near(mean(own)[0], loss + np.trace(X @ shrink), mean(own)[1])
    assert loss > -1.0  # better than maximum likelihood on new data, though worse on its own
    assert_far(mean(fresh)[0], -1.0, mean(fresh)[1])
    assert mean(own)[0] < 1.0
    assert fits.mode == "MAP" and np.isnan(fits.aic).all() and "MAP" in repr(fits[0])


def test_3_a_prior_gives_separated_data_an_estimate():
    """Which is the prior's as much as the data's: half the strength moves it, where data would hold it."""
    data = {
        "x": np.column_stack([np.ones(11), np.arange(11.0) - 5]),
        "y": (np.arange(11) > 5).astype(float),
    }
    assert jm.fit(logit, {"beta": np.zeros(2)}, data).verdict == Status.SEPARATED
    slopes = []
    for strength in (0.5, 1.0):
        fit = jm.fit(jm.penalize(logit, jm.ridge(strength)), {"beta": np.zeros(2)}, data)
        assert fit.converged and fit.mode == "MAP"
        residual = data["y"] - scipy.special.expit(data["x"] @ fit.x)
        assert_allclose(data["x"].T @ residual, strength * fit.x, atol=1e-8)
        slopes.append(fit.x[1])
    assert slopes[0] > 1.1 * slopes[1]


# ---------------------------------------------------------------- 4 a wrong model


ROWS, MEAN, SIZE = 200, 4.0, 2.0


def test_4_overdispersed_counts_are_covered_too_seldom_unless_by_the_sandwich():
    """Negative binomial counts of variance φμ, φ = 1 + μ/size = 3, fitted as Poisson: the coverage of 95 % is 2Φ(1.96/√φ) − 1 = 74 %.

    Both groups have one mean, so that the variance is φ times the model's in every entry. HC0 is near 95 %, and short of it by O(1/n).
    """
    rng = np.random.default_rng(205)
    data = {
        "x": np.column_stack([np.ones(ROWS), np.arange(ROWS) % 2]),
        "y": rng.negative_binomial(SIZE, SIZE / (SIZE + MEAN), (R, ROWS)).astype(float),
    }
    truth = np.array([np.log(MEAN), 0.0])
    held = {}
    for kind in ("observed", "HC0"):
        fits = jm.fit_batch(
            poisson_kernel,
            {"beta": np.array([1.0, 0.0])},
            data,
            in_axes={"x": None, "y": 0},
            vcov=kind,
            progress=False,
        )
        assert fits.converged.all()
        held[kind], error = share(np.abs(fits.x - truth) <= Z95 * fits.se)
        if kind == "observed":
            dispersion = 1 + MEAN / SIZE
            assert_near(
                held[kind], 2 * scipy.special.ndtr(Z95 / np.sqrt(dispersion)) - 1, error + 0.002
            )
            assert_far(held[kind], 0.95, error, 20)
            average, error = mean(fits.x)
            assert_near(
                average, truth - [MEAN * dispersion / MEAN**2 / ROWS, 0], error
            )  # the estimate is sound: E log ȳ = log μ − φ/2μm, m = ROWS/2
        else:
            assert np.all(np.abs(held[kind] - 0.95) < 3 * error + 0.01)
            assert np.all(held[kind] < 0.95)


# ---------------------------------------------------------------- 5 squared error of a binary response


def squared(params, data):
    """−(y − p)², as if it were a log-likelihood."""
    return -((data["y"] - jax.nn.sigmoid(data["x"] @ params["beta"])) ** 2)


HITS = 40
SLOPES = np.array([0.3, 1.5])


@pytest.fixture(scope="module")
def hits():
    rng = np.random.default_rng(206)
    x = np.column_stack([np.ones(HITS), rng.normal(size=HITS)])
    return {"x": x, "y": (rng.random(HITS) < scipy.special.expit(x @ SLOPES)).astype(float)}


def test_5_the_gradient_of_squared_error_vanishes_where_it_is_most_wrong(hits):
    """Row by row 2p(1 − p) times that of the log-likelihood: along −t β the one stays near Σ|y − p||x|, the other dies like e^{−t}."""
    norms = {}
    for t in (1.0, 4.0, 16.0, 64.0):
        params = {"beta": -t * SLOPES}
        p = scipy.special.expit(hits["x"] @ params["beta"])
        with jax.enable_x64(True):
            proper, other = (np.asarray(jm.scores(f)(params, hits)) for f in (logit, squared))
        assert_allclose(other, (2 * p * (1 - p))[:, None] * proper, rtol=1e-9, atol=1e-14)
        norms[t] = [np.linalg.norm(rows.sum(axis=0)) for rows in (proper, other)]
    assert norms[64.0][0] > norms[1.0][0] > 5
    assert norms[64.0][1] < 0.1 * norms[1.0][1]
    assert norms[64.0][0] > 50 * norms[64.0][1]


def test_5_from_far_starts_squared_error_often_ends_elsewhere():
    """64 data sets, each from the truth and from nine starts of scale 3 and nine of 10: one batch of 1 216 for each criterion.

    The log-likelihood is concave and reaches its maximum from everywhere; the square does from fewer, the farther they are.
    """
    rng = np.random.default_rng(207)
    x = np.stack([np.ones((64, HITS)), rng.normal(size=(64, HITS))], axis=-1)
    y = (rng.random((64, HITS)) < scipy.special.expit(x @ SLOPES)).astype(float)
    starts = (
        SLOPES
        + rng.normal(size=(64, 19, 2)) * np.repeat([0.0, 3.0, 10.0], [1, 9, 9])[None, :, None]
    )
    data = {"x": np.repeat(x, 19, axis=0), "y": np.repeat(y, 19, axis=0)}
    arrived = {}
    for loglik in (logit, squared):
        fits = jm.fit_batch(
            loglik, {"beta": starts.reshape(-1, 2)}, data, params_axis=0, progress=False
        )
        height, sound = fits.loglik.reshape(64, 19), fits.converged.reshape(64, 19)
        assert sound[:, 0].mean() > 0.95
        best = np.max(np.where(sound, height, -np.inf), axis=1, keepdims=True)
        there = (sound & (height > best - 1e-6))[sound[:, 0]]
        arrived[loglik] = share(there[:, 1:10].ravel()), share(there[:, 10:].ravel())
    assert [p for p, _ in arrived[logit]] == [1.0, 1.0]
    (near_by, _), (far_off, error) = arrived[squared]
    assert near_by < 1.0 and far_off < near_by
    assert_far(far_off, 1.0, error, 8)


def test_5_lint_says_that_squared_error_is_no_log_likelihood(hits):
    report = jm.lint(squared, {"beta": np.array([0.1, 0.2])}, hits, response="y", support="binary")
    assert report["normalised"].passed is False
    assert jm.lint(logit, {"beta": np.array([0.1, 0.2])}, hits, response="y", support="binary").ok


# ---------------------------------------------------------------- 6 an unbounded likelihood


POINTS, WIDTHS = 40, 30


def test_6_a_narrow_component_on_one_observation_has_no_maximum():
    """ℓ → ∞ as σ → 0 at each observation: a start narrow enough climbs there, and the verdict names the observation; a wide one finds the hill."""
    rng = np.random.default_rng(208)
    y = np.concatenate([rng.normal(0.0, 3.0, POINTS // 2), rng.normal(2.0, 0.7, POINTS // 2)])
    widths = np.geomspace(1e-4, 3.0, WIDTHS)
    starts = {"mu": np.repeat(y, WIDTHS), "sigma": np.tile(widths, POINTS)}
    found = jm.multistart(
        normal_beside_background,
        starts,
        y,
        constraints={"sigma": jm.positive},
        params_axis=0,
        progress=False,
    )
    collapsed = (found.fits.status == Status.UNBOUNDED).reshape(POINTS, WIDTHS)
    rows = found.fits.witness.row.reshape(POINTS, WIDTHS)
    assert collapsed[:, widths < 1e-3].all()
    named = collapsed & (rows >= 0) & (widths < 1e-2)[None, :]
    own = np.broadcast_to(np.arange(POINTS)[:, None], rows.shape)
    assert named.any() and np.mean(rows[named] == own[named]) > 0.9  # a few collapse on a neighbour
    assert not collapsed[y > 1, -1].any()
    assert np.all(found.fits.loglik[found.fits.status == Status.UNBOUNDED] == np.inf)
    for row in (0, 7):
        alone = jm.fit(
            normal_beside_background,
            {"mu": y[row], "sigma": 1e-4},
            y,
            constraints={"sigma": jm.positive},
        )
        assert (
            alone.verdict == Status.UNBOUNDED
            and f"row {row} of the data" in alone.explain()
            and np.isnan(alone.x).all()
        )
    assert found.best.converged and abs(float(found.best.params["mu"]) - 2.0) < 4 * float(
        found.best.stderr["mu"]
    )
    assert "The likelihood is unbounded" in repr(found)
