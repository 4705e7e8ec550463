"""Procedures that take derivatives themselves, of likelihoods that lack a mode: the numbers of the plain formula, or a refusal by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.inference.diagnostics.bias_reduction import mean_br
from jaxmle.inference.profiles.end_gradient import profile_end
from jaxmle.likelihood.response import exact

from .test_custom_rules import (
    METHOD,
    Y,
    called_out,
    exponential,
    looping,
    name_of,
    outside,
    outside_forward,
    plain,
    self_calling,
)

RNG = np.random.default_rng(23)
ROWS = {"x": RNG.normal(size=40), "y": (RNG.random(40) < 0.5).astype(float)}


@pytest.mark.parametrize("loglik", METHOD, ids=name_of)
def test_a_run_of_mini_batches_takes_the_mode_that_there_is(loglik):
    """The symptom: 'Reverse-mode differentiation does not work for lax.while_loop'."""
    run, same = (
        jm.fit_stochastic(
            f, {"a": 0.0}, Y, optimizer=optax.sgd(0.1), batch_size=10, epochs=2, progress=False
        )
        for f in (loglik, plain)
    )
    assert_allclose(run.params["a"], same.params["a"], rtol=1e-10)


@pytest.mark.parametrize("loglik", [self_calling, looping], ids=name_of)
def test_the_end_of_a_profile_is_differentiated_in_the_mode_that_there_is(loglik):
    """An end of log a moves by −1/Σy with each observation."""
    fit = jm.fit(loglik, {"a": 0.0}, Y)
    ends = jm.profile(loglik, fit, Y)
    differentiate = jax.grad if loglik is self_calling else jax.jacfwd
    with jax.enable_x64(True):
        slope = jax.jit(differentiate(lambda y: profile_end(loglik, fit, ends, y, "a")))(Y)
    assert_allclose(slope, -1 / Y.sum(), rtol=1e-6)  # the end is solved to 1e-8


@pytest.mark.parametrize("loglik", [outside, outside_forward], ids=name_of)
def test_the_end_of_a_profile_by_differences_has_no_derivative_and_says_so(loglik):
    fit = jm.fit(loglik, {"a": 0.0}, Y)
    ends = jm.profile(loglik, fit, Y)
    with (
        jax.enable_x64(True),
        pytest.raises(TypeError, match="this fit was computed by differences of the"),
    ):
        jax.grad(lambda y: profile_end(loglik, fit, ends, y, "a"))(Y)


def logistic(exp):
    """Its predictor is a + e^b x, so that it bends in the parameters."""

    def loglik(params, data):
        eta = params["a"] + exp(params["b"]) * data["x"]
        return data["y"] * eta - jnp.log1p(exp(eta))

    return jm.with_response(loglik, jm.enumeration("y", [0.0, 1.0]))


def test_bias_reduction_goes_through_a_rule_that_reverse_mode_can_take_twice():
    """The symptom: NotImplementedError, differentiation rule for 'custom_lin'."""
    start = {"a": 0.0, "b": 0.0}
    found, truth = (mean_br(logistic(e), start, ROWS) for e in (exponential, jnp.exp))
    assert_allclose(found.x, truth.x, rtol=1e-9)
    with pytest.raises(TypeError, match="has no rule for it"):
        mean_br(logistic(called_out), start, ROWS)


def poisson(exp):
    """A count with mean exp(η), whose information and cross moment are written by ``exp``."""
    law = exact(lambda eta, row: exp(eta["mu"]), cross=lambda eta, row: jnp.zeros_like(eta["mu"]))
    return jm.regression(
        lambda eta, row: row["y"] * eta["mu"] - exp(eta["mu"]),
        {"mu": jm.linear("x", "beta")},
        response=law,
    )


def test_bias_reduction_by_moments_takes_the_mode_that_there_is():
    rows = {"x": np.column_stack([np.ones(40), ROWS["x"]]), "y": RNG.poisson(2.0, 40) * 1.0}
    found, truth = (
        mean_br(poisson(e), {"beta": np.zeros(2)}, rows) for e in (exponential, jnp.exp)
    )
    assert_allclose(found.x, truth.x, rtol=1e-9)


def test_weights_for_bias_reduction_are_refused_where_terms_mix_rows():
    """A weighted term that looks at other rows is no term of the repeated data."""

    def centred(params, data):
        eta = params["a"] + params["b"] * (data["x"] - jnp.mean(data["x"]))
        return data["y"] * eta - jnp.logaddexp(0.0, eta)

    loglik = jm.with_response(centred, jm.enumeration("y", [0.0, 1.0]))
    start = {"a": 0.0, "b": 0.0}
    weights = jm.frequency(np.arange(1, 41))
    assert mean_br(loglik, start, ROWS).converged
    with pytest.raises(ValueError, match=r"row \d+"):
        mean_br(loglik, start, ROWS, weights=weights)
    with jax.enable_x64(True), pytest.raises(ValueError, match="row"):
        jax.jit(lambda y: mean_br(loglik, start, ROWS | {"y": y}, weights=weights).x)(ROWS["y"])
