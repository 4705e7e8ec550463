"""A ``stop_gradient`` of the user's separates a score from the values it belongs to, or a Hessian from the score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

from .test_custom_rules import MEAN, PLAIN_ERROR, STOP, Y, plain, solved


def stopped_in_the_score(p, y):
    """The score is that of the exponential, as far as values go: a rate is held in its second term."""
    rate = jnp.exp(p["a"])
    return p["a"] - jax.lax.stop_gradient(rate * y) * (p["a"] - jax.lax.stop_gradient(p["a"]) + 1)


def stopped_where_it_cancels(p, y):
    """The largest term taken out of a sum of exponentials, by hand."""
    terms = jnp.stack([p["a"] + jnp.log(y), jnp.full_like(y, -50.0)])
    top = jax.lax.stop_gradient(jnp.max(terms, axis=0))
    return p["a"] - jnp.exp(top) * jnp.sum(jnp.exp(terms - top[None]), axis=0)


def stopped_in_the_values(p, y):
    """Half of the likelihood does not enter the score."""
    return 0.5 * plain(p, y) + 0.5 * plain(jax.lax.stop_gradient(p), y)


def test_a_stop_gradient_that_hides_a_second_derivative_gave_converged_with_wrong_errors():
    """The score of this likelihood is right in value, and jax's derivative of it is zero."""
    fit = jm.fit(stopped_in_the_score, {"a": 0.3}, Y)
    assert fit.hessian_by == "differences of the score"
    assert_allclose(fit.params["a"], -np.log(MEAN), atol=STOP)
    # differences are good to 1e-11 of the curvature
    assert_allclose(fit.stderr["a"], PLAIN_ERROR, rtol=1e-8)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_stop_gradient_whose_score_is_no_derivative_gave_converged_without_a_word(mapped):
    def by_rows(p, y):
        return jax.vmap(lambda y: stopped_in_the_values(p, y))(y)

    with pytest.warns(UserWarning, match=r"^stop_gradient in stopped_in_the_values: "):
        fit = jm.fit(by_rows if mapped else stopped_in_the_values, {"a": 0.0}, Y)
    assert "is not the derivative of its values" in fit.explain()


def test_a_loop_without_reverse_mode_that_hides_a_second_derivative_is_fitted_by_differences():
    """The symptom: refused, since the score by differences was to be of reverse mode."""

    def loglik(p, y):
        return stopped_in_the_score({"a": solved(jnp.exp(p["a"]))}, y)

    fit = jm.fit(loglik, {"a": 0.3}, Y)
    assert fit.hessian_by == "differences of the score"
    assert_allclose(fit.params["a"], -np.log(MEAN), atol=STOP)
    assert_allclose(fit.stderr["a"], PLAIN_ERROR, rtol=1e-8)


def test_a_stop_gradient_that_cancels_is_compared_and_found_right():
    fit = jm.fit(stopped_where_it_cancels, {"a": 0.0}, Y)
    assert fit.converged
    assert fit.hessian_by == "forward over reverse"
    assert_allclose(fit.params["a"], -np.log(MEAN), atol=STOP)
    assert_allclose(fit.stderr["a"], PLAIN_ERROR, rtol=1e-9)


def test_which_stop_gradients_are_compared():
    from jaxmle.likelihood.discovery.derivative_rules import written_rules
    from jaxmle.parameters import layout_of

    def rules(loglik):
        with jax.enable_x64(True):
            return written_rules(loglik, layout_of({"a": 0.0}), np.zeros(1), Y)

    def of_jax(p, y):
        logits = jnp.stack([p["a"] * y, y])
        return (
            jax.scipy.special.logsumexp(logits, axis=0) + jax.vmap(jax.nn.softmax)(logits.T)[:, 0]
        )

    def of_data(p, y):
        return p["a"] * jax.lax.stop_gradient(y)

    def in_a_loop(p, y):
        step = lambda carry, y: (carry, jax.lax.stop_gradient(carry) * y)  # noqa: E731
        return jax.lax.scan(step, p["a"], y)[1]

    assert rules(of_jax) == rules(of_data) == rules(plain) == ()
    assert [name.rpartition(".")[2] for name in rules(in_a_loop)] == ["<lambda>"]
    assert rules(stopped_where_it_cancels) == ("stop_gradient in stopped_where_it_cancels",)
