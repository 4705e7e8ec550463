"""A response in other units: the same statuses, and estimates in those units. And large matched sets."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import families as jf
from jaxmle import models

UNITS = [1e-12, 1e-6, 1e6, 1e12]
N = 40
RNG = np.random.default_rng(11)
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
TIME = np.exp(0.5 * X[:, 1] + 0.4 * np.log(RNG.exponential(size=N)))
EVENT = (np.arange(N) % 4 != 0).astype(float)
LEVEL = X @ [0.3, 1.0] + RNG.normal(size=N)


def codes(unit):
    return {"x": X, "time": TIME * unit, "event": EVENT}


def spells(unit):
    return {"time": TIME * unit, "event": EVENT}


def scaled(*names):
    """What multiplies these parameters in units of ``unit``; the others stay."""
    return lambda name, value, unit: value * unit if name in names else value


def shifted(name, value, unit):
    """log T = xβ + scale·W: the intercept moves by log unit."""
    return value + np.array([math.log(unit), 0.0]) if name == "beta" else value


CASES = {
    "Weibull aft": (models.aft("weibull"), codes, shifted),
    "lognormal aft": (models.aft("lognormal"), codes, shifted),
    "loglogistic aft": (models.aft("loglogistic"), codes, shifted),
    "censored Weibull": (jf.censored(jf.weibull), spells, scaled("scale")),
    "gamma": (jf.gamma, lambda unit: TIME * unit, lambda name, value, unit: value / unit if name == "rate" else value),
    "tobit": (models.tobit(), lambda unit: {"x": X, "y": np.maximum(LEVEL, 0.0) * unit}, scaled("beta", "sigma")),
    "gev": (jf.gev, lambda unit: LEVEL * unit, scaled("loc", "scale")),
    "Student t": (jf.student_t, lambda unit: (LEVEL + (np.arange(N) == 3) * 9.0) * unit, scaled("loc", "scale")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_response_in_other_units_has_the_same_status_and_the_scaled_estimate(case):
    """A censored Weibull law of 1e7 hours was NONFINITE, of 100 hours STALLED."""
    model, data, expected = CASES[case]
    own = jm.fit(model, data=data(1.0))
    assert own.verdict.name == "CONVERGED"
    for unit in UNITS:
        other = jm.fit(model, data=data(unit))
        assert other.verdict.name == "CONVERGED", (unit, other.explain())
        for name, value in own.params.items():
            assert_allclose(
                other.params[name],
                expected(name, value, unit),
                rtol=1e-7,
                atol=1e-7 * min(unit, 1.0),
            )


def test_lives_near_a_hundred_with_ten_suspended_at_fifty():
    time = 100 * np.random.default_rng(3).weibull(20, 40)
    time[:10] = 50
    event = (np.arange(40) >= 10).astype(float)
    family = jf.censored(jf.weibull)
    fits = [jm.fit(family, data={"time": time * unit, "event": event}) for unit in (1.0, 1e7)]
    assert [fit.verdict.name for fit in fits] == ["CONVERGED"] * 2
    assert_allclose(fits[0].params["shape"], fits[1].params["shape"], rtol=1e-8)
    # At the maximum: scale^shape = Σ t^shape / events.
    shape, scale = float(fits[0].params["shape"]), float(fits[0].params["scale"])
    assert_allclose(scale, (np.sum(time**shape) / event.sum()) ** (1 / shape), rtol=1e-8)


def test_matched_sets_of_1200_members_and_half_of_them_cases():
    """C(1200, 600) is 1e360: the sums over choices overflowed. Without covariates a term is −log of it."""
    rng = np.random.default_rng(0)
    y = np.stack([rng.permutation(np.repeat([0.0, 1.0], 600)) for _ in range(3)])
    data = {"x": rng.normal(size=(3, 1200, 1)), "y": y}
    model = models.conditional_logit(cases=600)
    terms = np.asarray(model.likelihood({"beta": np.zeros(1)}, data))
    exact = -(math.lgamma(1201) - 2 * math.lgamma(601))
    assert_allclose(terms, exact, rtol=1e-5 if terms.dtype == np.float32 else 1e-11)
    fit = jm.fit(model, data=data)
    assert fit.verdict.name == "CONVERGED"
    assert 0 < float(fit.stderr["beta"][0]) < 0.1
