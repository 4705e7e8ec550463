"""HAC covariances against the double sum over lags, and the choose a bandwidth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.likelihood.information.hac import hac
from tests.likelihoods import logit

from .cases import LOGIT, N, logit_rows, newton

AT = newton(logit_rows, LOGIT)
ROWS = logit_rows(AT, LOGIT)
BREAD = np.linalg.inv(ROWS.observed.sum(axis=0))
START = {"beta": np.zeros(3)}


def bartlett(z):
    return max(0.0, 1 - z)


def parzen(z):
    return 1 - 6 * z**2 + 6 * z**3 if z <= 0.5 else 2 * max(0.0, 1 - z) ** 3


def quadratic_spectral(z):
    x = 6 * np.pi * z / 5
    return 1.0 if z == 0 else 3 / x**2 * (np.sin(x) / x - np.cos(x))


KERNELS = {"bartlett": bartlett, "parzen": parzen, "quadratic-spectral": quadratic_spectral}


def by_hand(u, kernel, b):
    n = len(u)
    meat = sum(
        KERNELS[kernel](abs(s - t) / b) * np.outer(u[s], u[t]) for s in range(n) for t in range(n)
    )
    return BREAD @ meat @ BREAD


@pytest.mark.parametrize(
    ("kernel", "b"),
    [("bartlett", 4.0), ("parzen", 6.5), ("quadratic-spectral", 0.03), ("quadratic-spectral", 3.3)],
)
def test_a_kernel_weighs_the_products_of_scores(kernel, b):
    assert_allclose(
        jm.vcov(logit, hac(kernel, bandwidth=b))(AT, LOGIT),
        by_hand(ROWS.scores, kernel, b),
        rtol=1e-10,
        atol=1e-13,
    )


def test_without_lags_it_is_hc0():
    assert_allclose(
        jm.vcov(logit, hac(lags=0))(AT, LOGIT), jm.vcov(logit, "HC0")(AT, LOGIT), rtol=1e-10
    )


def test_the_quadratic_spectral_kernel_is_smooth_where_its_series_takes_over():
    """At x = 0.1 the closed form has lost four digits to cancellation, the series none: they meet to 1e-11."""
    from jaxmle.likelihood.information.hac import _kernel

    z = np.array([0.0, 1e-6, 0.02, 0.0999999, 0.1000001, 0.5, 3.0]) / 1.2 / np.pi
    with jax.enable_x64(True):
        assert_allclose(
            _kernel("quadratic-spectral", jnp.asarray(z)),
            [quadratic_spectral(v) if v > 1e-3 else 1.0 for v in z],
            rtol=1e-11,
        )


def newey_west(u, constant, q, rate):
    """Newey & West (1994): constant·(ŝ_q/ŝ_0)^(2/(2q + 1))·n^(1/(2q + 1)), each ŝ a sum of traces of autocovariances."""
    n = len(u)
    m = int(np.floor(4 * (n / 100) ** rate))
    gamma = [np.sum(u[: n - j] * u[j:]) for j in range(m + 1)]
    s0, sq = gamma[0] + 2 * sum(gamma[1:]), 2 * sum(j**q * gamma[j] for j in range(1, m + 1))
    return constant * ((sq / s0) ** 2) ** (1 / (2 * q + 1)) * n ** (1 / (2 * q + 1))


CHOICES = {
    "bartlett": (1.1447, 1, 2 / 9),
    "parzen": (2.6614, 2, 4 / 25),
    "quadratic-spectral": (1.3221, 2, 2 / 25),
}


@pytest.mark.parametrize("kernel", CHOICES)
def test_the_bandwidth_by_default_is_newey_and_west_in_units_of_the_information(kernel):
    root = np.linalg.cholesky(BREAD)
    b = newey_west(ROWS.scores @ root, *CHOICES[kernel])
    b = np.floor(b) + 1 if kernel == "bartlett" else b
    assert_allclose(
        jm.vcov(logit, hac(kernel))(AT, LOGIT), by_hand(ROWS.scores, kernel, b), rtol=1e-8
    )


def test_the_default_bandwidth_does_not_depend_on_the_scale_of_a_column():
    unit = np.array([1.0, 1e4, 1e-3])
    scaled = jm.vcov(logit, hac("parzen"))(
        {"beta": AT["beta"] / unit}, {"x": LOGIT["x"] * unit, "y": LOGIT["y"]}
    )
    assert_allclose(
        scaled * np.outer(unit, unit), jm.vcov(logit, hac("parzen"))(AT, LOGIT), rtol=1e-8
    )


def test_a_row_of_weight_zero_is_no_row():
    """Its neighbours become neighbours, as if it had been deleted; a batch pads with such rows."""
    gone = np.arange(N) % 6 == 2
    kept = {key: value[~gone] for key, value in LOGIT.items()}
    w = jm.sampling(np.where(gone, 0.0, 1.0))
    for kind in (hac("parzen"), hac(lags=3)):
        assert_allclose(
            jm.vcov(jm.weight(logit, w), kind)(AT, LOGIT), jm.vcov(logit, kind)(AT, kept), rtol=1e-9
        )


@pytest.mark.thorough
def test_the_fit_the_batch_and_the_trace_agree():
    fit = jm.fit(logit, START, LOGIT, vcov=hac(lags=3))
    assert fit.vcov_kind == "HAC (bartlett, bandwidth 4)"
    assert_allclose(fit.vcov, by_hand(ROWS.scores, "bartlett", 4.0), rtol=1e-6)
    fewer = {key: value[:50] for key, value in LOGIT.items()}
    fits = jm.fit_batch(logit, START, [LOGIT, fewer], vcov="hac", progress=False)
    assert fits.vcov_kind == "HAC (bartlett, Newey-West bandwidth)"
    for i, data in enumerate((LOGIT, fewer)):
        assert_allclose(fits[i].vcov, jm.vcov(logit, "hac")(fits[i].params, data), rtol=1e-9)
    with jax.enable_x64(True):
        traced = jax.jit(lambda d: jm.vcov(logit, hac(lags=3))(AT, d))(LOGIT)
    assert_allclose(traced, by_hand(ROWS.scores, "bartlett", 4.0), rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kernel": "gauss"}, "kernel must be 'bartlett'"),
        ({"lags": 3, "bandwidth": 2.0}, "not both"),
        ({"kernel": "quadratic-spectral", "lags": 3}, "has no last lag"),
        ({"lags": -1}, "whole number"),
        ({"lags": 2.5}, "whole number"),
        ({"lags": True}, "whole number"),
        ({"bandwidth": 0.0}, "positive number"),
        ({"bandwidth": np.nan}, "positive number"),
        ({"bandwidth": "andrews"}, "'newey-west'"),
        ({"lags": 2, "weights": [1, 0, 0]}, "choose a bandwidth"),
    ],
)
def test_options_are_checked(options, said):
    with pytest.raises(ValueError, match=said):
        hac(**options)


def test_what_has_no_time_order_is_refused():
    with pytest.raises(ValueError, match="rows at unknown times"):
        jm.fit(logit, START, LOGIT, vcov="hac", weights=jm.frequency(np.ones(N)))
    with pytest.raises(ValueError, match="rows at unknown times"):
        jm.vcov(jm.weight(logit, jm.frequency(np.ones(N))), "hac")
    with pytest.raises(ValueError, match="does not use them"):
        jm.fit(logit, START, LOGIT, vcov=hac(), clusters=np.arange(N))
    with pytest.raises(ValueError, match="2 weights for 3 parameters"):
        jm.vcov(logit, hac(weights=[1, 0]))(AT, LOGIT)
    with pytest.raises(ValueError, match="one scalar"):
        jm.fit(lambda params, data: jnp.sum(logit(params, data)), START, LOGIT, vcov="hac")
