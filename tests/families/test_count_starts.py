"""Start values of counts with zeros of their own, over awkward counts: finite, and within reach of the maximum."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import families as jf
from jaxmle import models
from tests.marks import thorough_where

RNG = np.random.default_rng(0)
# Twenty rows where the fact allows: what is compiled of a family serves all of them.
COUNTS = {
    "all equal": np.full(20, 3.0),
    "all one": np.ones(20),
    "no zeros": 1.0 + RNG.poisson(2.0, 20),
    "one huge": np.r_[np.zeros(6), RNG.poisson(1.0, 13), 1e9],
    "one huge and no zeros": np.r_[np.ones(19), 1e9],
    "zeros only": np.zeros(20),
    "zeros and ones": np.r_[np.zeros(10), np.ones(10)],
    "one that is not zero": np.r_[np.zeros(30), 4.0],
    "one row": np.array([3.0]),
    "all huge": np.full(20, 1e12),
    "a spread below the Poisson law's": np.r_[np.zeros(4), np.full(14, 5.0), 4.0, 6.0],
}
PARTS = {"NB2": jf.negative_binomial, "NB1": jf.negative_binomial_1}
WRAPS = {"zero-inflated": jf.zero_inflated, "hurdle": jf.hurdle}
FAMILIES = {pair: WRAPS[pair[0]](PARTS[pair[1]]) for pair in itertools.product(WRAPS, PARTS)}
# Any law that spreads over 1e12 counts gives one of them e⁻²⁸. The start of NB1 with one huge count was 7e6 nats a row
# below the maximum.
NATS_A_ROW = 30.0


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        pytest.param(*pair, marks=pytest.mark.thorough if pair[1] == "NB1" else ())
        for pair in itertools.product(WRAPS, PARTS)
    ],
)
def test_a_family_with_zeros_starts_finite_and_within_reach(wrap, part, counts):
    """No law of counts has a likelihood above that of the shares of the counts that occur."""
    family = FAMILIES[wrap, part]
    y = COUNTS[counts]
    start = family.start(y)
    assert np.all(np.isfinite(list(start.values())))
    share = np.mean(y == 0)
    assert abs(start["zero"] - share) <= max(0.32 * share, 0.02) + 1e-12
    at_start = -float(jm.nll(family)(start, y))
    _, repeats = np.unique(y, return_counts=True)
    bound = np.sum(repeats * np.log(repeats / len(y)))
    assert bound - NATS_A_ROW * len(y) <= at_start <= bound


@pytest.mark.parametrize(
    "counts",
    thorough_where(
        ["all equal", "no zeros", "one that is not zero", "zeros and ones"],
        lambda counts: counts in ("no zeros", "zeros and ones"),
    ),
)
@pytest.mark.parametrize("part", PARTS)
def test_the_zeros_of_a_hurdle_are_estimated_by_their_share(part, counts):
    """In closed form: the hurdle's likelihood is that of a Bernoulli law times that of the positive counts."""
    y = COUNTS[counts]
    fit = jm.fit(FAMILIES["hurdle", part], data=y)
    assert (
        fit.verdict is jm.Status.BOUNDARY
    )  # none of these counts is spread like a negative binomial's
    assert_allclose(fit.params["zero"], np.mean(y == 0), atol=1e-7)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("model", [models.zero_inflated, models.hurdle], ids=["inflated", "hurdle"])
def test_a_regression_of_counts_with_zeros_starts_finite(model, counts):
    y = COUNTS[counts]
    x = np.column_stack([np.ones(len(y)), np.linspace(-1.0, 1.0, len(y))])
    ready = model("negative_binomial")
    data = {"x": x, "z": x[:, :1], "y": y}
    start = ready.start(data)
    assert all(np.all(np.isfinite(leaf)) for leaf in start.values())
    # of 400 nats a row: the coefficients of a line through log counts, with one of 1e9
    assert -float(jm.nll(ready)(start, data)) > -400.0 * len(y)
