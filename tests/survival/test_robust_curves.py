"""Bands of Cox curves after a robust fit: the sum of squares of the curve's derivatives in the weights, by differences."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import models
from jaxmle.survival import baseline, cumulative_hazard, quantile, survival

TIMES = np.array([1.0, 3.0, 5.0, 7.0])
STEP = 1e-4


def rows(n=24, seed=3):
    rng = np.random.default_rng(seed)
    time = rng.integers(1, 9, n).astype(float)
    return {
        "x": rng.normal(size=(n, 2)),
        "time": time,
        "event": (rng.random(n) < 0.7).astype(int),
        "entry": np.where(rng.random(n) < 0.3, rng.integers(0, 3, n) * (time > 3), 0.0),
        "w": rng.uniform(0.5, 2.0, n),
        "g": np.arange(n) % 2,
    }


NEW = {"x": np.array([[0.4, -1.0], [-0.5, 0.7]]), "g": np.array([0, 1])}
CLUSTERS = np.arange(24) // 3


def cox(ties):
    return models.cox(ties=ties, weights="w", entry="entry", strata="g")


def derivatives(ties, data):
    """∂H(t | x)/∂w_i by central differences of refits, (rows, 2, times)."""
    model = cox(ties)

    def hazard(w):
        moved = {**data, "w": w}
        fit = jm.fit(model, data=moved)
        return cumulative_hazard(model, fit.params, moved, TIMES, new=NEW).estimate

    moves = STEP * np.eye(len(data["w"]))
    return np.stack([hazard(data["w"] + h) - hazard(data["w"] - h) for h in moves]) / (2 * STEP)


@pytest.mark.parametrize("ties", ["efron", pytest.param("breslow", marks=pytest.mark.thorough)])
def test_the_variance_of_a_curve_is_the_sum_of_squared_influences_of_rows_and_clusters(ties):
    data = rows()
    model = cox(ties)
    each = data["w"][:, None, None] * derivatives(ties, data)
    known = np.isfinite(each).all(axis=0)
    assert known.sum() >= 6
    robust = jm.fit(model, data=data, vcov="HC0")
    found = cumulative_hazard(model, robust, data, TIMES, new=NEW).stderr
    # differences of refits: 1e-8 of the step, 1e-6 of the rounding
    assert_allclose(found[known], np.sqrt((each**2).sum(axis=0))[known], rtol=1e-5)
    clustered = jm.fit(model, data=data, vcov="CR1", clusters=CLUSTERS)
    sums = np.stack([each[CLUSTERS == c].sum(axis=0) for c in np.unique(CLUSTERS)])
    found = cumulative_hazard(model, clustered, data, TIMES, new=NEW, clusters=CLUSTERS).stderr
    wanted = np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum(axis=0))
    assert_allclose(found[known], wanted[known], rtol=1e-5)


def test_a_frame_gives_its_clusters_and_quantiles_and_baselines_follow():
    lung = {**jm.datasets.load("lung").data, "site": np.arange(227) % 20}
    options = {"intercept": False, "clusters": "site"}
    frame = jm.from_formula("Surv(time, death) ~ age + sex", lung, **options)
    model = models.cox()
    fit = frame.fit(model)
    assert fit.vcov_kind == "CR1"
    new = {"age": [60.0], "sex": [1.0]}
    by_name = survival(model, fit, frame, [200.0], new=new)
    rows_of_x = {"x": [[60.0, 1.0]]}
    by_hand = survival(model, fit, frame.data, [200.0], new=rows_of_x, clusters=frame.clusters)
    assert_allclose(by_name.stderr, by_hand.stderr, rtol=1e-12)
    assert baseline(model, fit, frame).variance == "robust"
    median = quantile(model, fit, frame, new=new)
    assert np.all(median.lower < median.estimate) and np.all(median.estimate < median.upper)


def test_other_clusters_and_other_covariances_are_refused():
    data, model = rows(), cox("breslow")
    fit = jm.fit(model, data=data, vcov="CR0", clusters=CLUSTERS)
    for clusters in (None, np.arange(24) // 4):
        with pytest.raises(ValueError, match="give the clusters of the fit"):
            survival(model, fit, data, TIMES, clusters=clusters)
    with pytest.raises(ValueError, match="use kind='breslow'"):
        baseline(model, fit, data, kind="kalbfleisch-prentice", clusters=CLUSTERS)
    two = jm.fit(model, data=data, clusters=(CLUSTERS, data["g"]))
    with pytest.raises(ValueError, match="single rows"):
        survival(model, two, data, TIMES)
    plain = jm.fit(model, data=data)
    with pytest.raises(ValueError, match="give them to the fit too"):
        survival(model, plain, data, TIMES, clusters=CLUSTERS)
    with pytest.raises(ValueError, match="only for a Cox model"):
        survival(models.aft("weibull"), {"beta": [0.0]}, data, TIMES, clusters=CLUSTERS)
