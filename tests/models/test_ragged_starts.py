"""Built-in models on data sets of unequal length: every one is taken, and each member starts where it would start alone."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import families, models
from jaxmle.batch.members.read import read_batch
from jaxmle.fitting.options import Options

RNG = np.random.default_rng(5)
SIZES = (12, 9, 12, 7, 12)


def sets(outcome):
    out = []
    for n in SIZES:
        x = np.column_stack([np.ones(n), RNG.normal(size=n)])
        out.append({"x": x, **outcome(n, np.exp(0.3 + 0.5 * x[:, 1]))})
    return out


COUNTS = sets(lambda n, mu: {"y": RNG.poisson(mu * RNG.gamma(2.0, 0.5, size=n)).astype(float)})
BINARY = sets(lambda n, mu: {"y": (RNG.random(n) < mu / (1 + mu)).astype(float)})
REAL = sets(lambda n, mu: {"y": np.log(mu) + RNG.normal(size=n)})
POSITIVE = sets(lambda n, mu: {"y": mu * RNG.gamma(2.0, 0.5, size=n)})
SHARES = sets(lambda n, mu: {"y": RNG.beta(2.0, 3.0, size=n)})
TIMES = sets(
    lambda n, mu: {
        "time": mu * RNG.exponential(size=n),
        "event": (RNG.random(n) < 0.7).astype(float),
    }
)

CASES = {
    "poisson": (models.poisson(), COUNTS), "negative_binomial": (models.negative_binomial(), COUNTS), "zero_inflated": (models.zero_inflated("negative_binomial", zero="x"), COUNTS),
    "logistic": (models.logistic(), BINARY), "probit": (models.probit(), BINARY), "cloglog": (models.cloglog(), BINARY),
    "normal": (models.normal(), REAL), "laplace": (models.laplace(), REAL), "student_t": (models.student_t(), REAL), "quantile": (models.quantile(0.3), REAL),
    "gamma": (models.gamma(), POSITIVE), "inverse_gaussian": (models.inverse_gaussian(), POSITIVE), "beta": (models.beta(), SHARES), "aft": (models.aft("weibull"), TIMES),
    "distribution": (models.distribution(families.gamma), [data["y"] for data in POSITIVE]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_member_starts_where_it_would_start_alone(name):
    model, data = CASES[name]
    with jax.enable_x64(True):
        found = read_batch(model, None, data, Options(), 0, "auto")
    for base, alone in zip(found.base, data, strict=True):
        assert_allclose(
            base,
            found.layout.ravel(jax.tree.map(np.asarray, model.start(alone))),
            rtol=1e-9,
            atol=1e-12,
        )


def test_a_ready_negative_binomial_on_ragged_data():
    """Closed over by a trace, NumPy data once made this call fail."""
    fits = jm.fit_batch(models.negative_binomial(), None, COUNTS)
    for i in (0, 3):
        alone = jm.fit(models.negative_binomial(), data=COUNTS[i])
        assert int(fits.status[i]) == int(alone.status)
        assert_allclose(fits.loglik[i], alone.loglik, rtol=1e-9)
