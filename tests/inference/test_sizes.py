"""The size of 5 % tests and the mean of Takeuchi's penalty on simulated data: 2 000 normal samples of 200, within four Monte-Carlo standard errors."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmle as jm
from jaxmle.inference.hypotheses.likelihood_ratio import lr_test
from jaxmle.inference.hypotheses.score import score_test
from jaxmle.inference.hypotheses.wald import wald_test
from jaxmle.inference.selection.compare import tic
from tests.likelihoods import normal

pytestmark = pytest.mark.thorough

SETS, ROWS = 2000, 200
BIAS = 0.004  # χ² laws with 200 rows: the Wald test of a normal mean has size 5.3 %; with 1 000 rows and 10 000 samples all are within 0.8 %
Y = np.random.default_rng(20).normal(0.0, 2.0, size=(SETS, ROWS))
START, BOUNDS = {"mu": 0.1, "sigma": 1.5}, {"sigma": jm.positive}


@pytest.fixture(scope="module")
def fits():
    return tuple(
        jm.fit_batch(f, START, Y, constraints=BOUNDS) for f in (jm.fix(normal, {"mu": 0.0}), normal)
    )


TESTS = {
    "Wald": lambda null, full: wald_test(full, "mu"),
    "nonlinear Wald": lambda null, full: wald_test(full, lambda p: jnp.exp(p["mu"]), 1.0),
    "likelihood ratio": lr_test,
    "score": lambda null, full: score_test(normal, null, Y),
    "robust score": lambda null, full: score_test(normal, null, Y, vcov="HC0"),
}


@pytest.mark.parametrize("name", TESTS)
def test_size(fits, name):
    found = TESTS[name](*fits)
    assert np.all(found.code == 0)
    for level in (0.05, 0.5):
        assert (
            abs(np.mean(found.pvalue <= level) - level)
            < 4 * np.sqrt(level * (1 - level) / SETS) + BIAS
        )


def test_the_mean_of_the_penalty_of_normal_samples(fits):
    """2 − 3/(n + 1)."""
    penalty = tic(normal, fits[1], Y).penalty
    assert abs(penalty.mean() - (2 - 3 / (ROWS + 1))) < 4 * penalty.std(ddof=1) / np.sqrt(SETS)
