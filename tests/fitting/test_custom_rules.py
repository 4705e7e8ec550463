"""Likelihoods with rules of differentiation of their own: no mode of jax is there for all of them, and the record says which was used.

The oracle is the same likelihood written as a plain formula, and the closed form of the exponential.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

Y = np.random.default_rng(17).exponential(2.0, size=30)
MEAN = Y.mean()
STOP = 1.5e-9  # standard errors from the maximum at which a climb may end: √(2δ), δ = 1e-18
PLAIN_ERROR = 1 / np.sqrt(len(Y))  # of a log rate


@jax.custom_vjp
def exponential(x):
    """e(x), whose backward rule calls e again."""
    return jnp.exp(x)


exponential.defvjp(lambda x: (exponential(x), x), lambda x, g: (g * exponential(x),))


def called_out(x):
    return jax.pure_callback(
        lambda x: np.exp(np.asarray(x)),
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        x,
        vmap_method="sequential",
    )


@jax.custom_vjp
def from_outside(x):
    """exp(x) by a call out of jax, with a reverse rule by another."""
    return called_out(x)


from_outside.defvjp(lambda x: (called_out(x), x), lambda x, g: (g * called_out(x),))


def solved(a):
    """log a as the root z of eᶻ = a by Newton's steps, in a loop whose length depends on a."""

    def step(carry):
        z, _, count = carry
        new = z - 1 + a * jnp.exp(-z)
        return new, jnp.abs(new - z), count + 1

    start = (jnp.zeros_like(a), jnp.ones_like(a), 0)
    return jax.lax.while_loop(lambda c: (c[1] > 1e-13) & (c[2] < 100), step, start)[0]


@jax.custom_vjp
def implicit(a):
    """The same root with its derivative by the implicit function theorem, at any order."""
    return solved(a)


def implicit_forward(a):
    z = implicit(a)
    return z, z


implicit.defvjp(implicit_forward, lambda z, g: (g * jnp.exp(-z),))


def plain(params, data):
    return params["a"] - jnp.exp(params["a"]) * data


def self_calling(params, data):
    return params["a"] - exponential(params["a"]) * data


def outside(params, data):
    return params["a"] - from_outside(params["a"]) * data


def implicit_layer(params, data):
    return implicit(jnp.exp(params["a"])) - jnp.exp(params["a"]) * data


def looping(params, data):
    return solved(jnp.exp(params["a"])) - jnp.exp(params["a"]) * data


METHOD = {
    plain: "forward over reverse",
    self_calling: "reverse over reverse",
    implicit_layer: "reverse over reverse",
    looping: "forward over forward",
    outside: "differences of the score",
}
CUSTOM = [loglik for loglik in METHOD if loglik is not plain]


def name_of(loglik):
    return loglik.__name__


@pytest.mark.parametrize("loglik", METHOD, ids=name_of)
def test_a_fit_with_custom_rules_equals_the_closed_form_and_says_how_it_was_differentiated(loglik):
    """The symptom: TypeError, can't apply forward-mode differentiation to a custom_vjp function."""
    fit = jm.fit(loglik, {"a": 0.0}, Y)
    assert fit.converged and fit.hessian_by == METHOD[loglik]
    assert_allclose(fit.params["a"], -np.log(MEAN), atol=STOP * PLAIN_ERROR)
    error = np.abs(fit.stderr["a"] - PLAIN_ERROR)
    assert error <= STOP * PLAIN_ERROR + fit.witness.stderr_error[0]
    assert fit.witness.stderr_error[0] < 1e-9 * PLAIN_ERROR
    said = "Second derivatives are by " + METHOD[loglik]
    assert (said in fit.explain()) == (loglik is not plain)
    assert ("Their measured error" in fit.explain()) == (loglik is outside)


@pytest.mark.parametrize("loglik", CUSTOM, ids=name_of)
def test_what_else_takes_derivatives_takes_them_too(loglik):
    at = ({"a": -0.4}, Y)
    assert_allclose(jm.score(loglik)(*at)["a"], jm.score(plain)(*at)["a"], rtol=1e-12)
    assert_allclose(jm.scores(loglik)(*at), jm.scores(plain)(*at), rtol=1e-12)
    for quantity in (jm.hessian, jm.information, lambda f: jm.vcov(f, "HC3")):
        assert_allclose(quantity(loglik)(*at), quantity(plain)(*at), rtol=1e-10)
    fit, reference = (jm.fit(f, {"a": 0.0}, Y, vcov="HC0") for f in (loglik, plain))
    assert_allclose(fit.se, reference.se, rtol=1e-10)
    ends, truth = (jm.profile(f, r, Y).interval() for f, r in ((loglik, fit), (plain, reference)))
    assert_allclose(ends, truth, rtol=1e-8)


@pytest.mark.parametrize("loglik", [self_calling, looping, outside], ids=name_of)
def test_a_fit_under_jit_is_the_fit_of_the_host(loglik):
    with jax.enable_x64(True):
        fit = jax.jit(lambda y: jm.fit(loglik, {"a": 0.0}, y))(Y)
    assert int(fit.status) == jm.Status.CONVERGED and fit.hessian_by == METHOD[loglik]
    assert_allclose(fit.params["a"], -np.log(MEAN), atol=STOP * PLAIN_ERROR)
    assert_allclose(fit.stderr["a"], PLAIN_ERROR, rtol=1e-10)


@pytest.mark.parametrize("loglik", [self_calling, looping], ids=name_of)
def test_a_batch_with_custom_rules_is_its_members(loglik):
    y = np.random.default_rng(18).exponential(3.0, size=(5, 20))
    fits = jm.fit_batch(loglik, {"a": 0.0}, y, progress=False)
    assert np.all(fits.converged) and fits.hessian_by == METHOD[loglik]
    assert_allclose(fits.params["a"], -np.log(y.mean(axis=1)), atol=STOP)
    assert_allclose(fits.stderr["a"], 1 / np.sqrt(20), rtol=1e-9)


def test_the_derivative_of_a_fit_goes_through_a_rule_that_reverse_mode_can_take_twice():
    """â = −log ȳ and SE = 1/√n: each y_i moves â by −1/Σy."""
    with jax.enable_x64(True):
        fit = jax.grad(lambda y: jm.fit(self_calling, {"a": 0.0}, y).params["a"])
        slope = np.asarray(jax.jit(fit)(Y))
    assert_allclose(slope, -1 / Y.sum(), rtol=1e-10)


def test_the_derivative_of_a_fit_by_differences_is_refused_by_name():
    with jax.enable_x64(True), pytest.raises(TypeError, match="by differences of the score has no"):
        jax.jit(jax.grad(lambda y: jm.fit(outside, {"a": 0.0}, y).params["a"]))(Y)


def test_a_call_out_of_jax_without_a_rule_is_refused_by_name():
    def bare(params, data):
        return params["a"] - called_out(params["a"]) * data

    with pytest.raises(TypeError, match=r"a pure_callback has no rule .* jax.custom_vjp"):
        jm.fit(bare, {"a": 0.0}, Y)


def test_a_rough_score_makes_the_standard_errors_imprecise():
    """A score with ripples of 1e-4 standard errors has no second derivative to three digits, and the status says so."""

    @jax.custom_vjp
    def rough(x):
        return jnp.exp(x)

    def rule(x, g):
        return (g * called_out(x) * (1 + 2e-5 * jnp.sin(3e4 * x)),)

    rough.defvjp(lambda x: (called_out(x), x), rule)
    fit = jm.fit(lambda p, y: p["a"] - rough(p["a"]) * y, {"a": 0.0}, Y)
    assert fit.verdict == jm.Status.IMPRECISE
    assert fit.witness.stderr_error[0] > 1e-3 * PLAIN_ERROR or np.isnan(fit.se[0])


def test_the_error_of_differences_is_not_smaller_than_the_error_made():
    """Coordinates of scales 1 and 1e-9, at zero and far from the maximum, against the Hessian of the formula."""

    def with_scale(exp):
        def loglik(params, data):
            z = (data - params["m"] * 1e9) * exp(-params["s"])
            return -0.5 * z**2 - params["s"]

        return loglik

    from jaxmle.likelihood.evaluate import sums
    from jaxmle.parameters import layout_of

    def hessian_of(loglik, layout, x):
        return jax.jit(lambda x: sums(loglik, layout, x, Y))(x)

    for point in ({"m": 0.0, "s": 0.0}, {"m": 2e-9, "s": 0.7}, {"m": 1e-3, "s": 2.0}):
        layout = layout_of(point)
        with jax.enable_x64(True):
            x = layout.ravel(jax.tree.map(jnp.asarray, point))
            measured, exact = (
                hessian_of(with_scale(e), layout, x) for e in (from_outside, jnp.exp)
            )
        scale = np.sqrt(np.outer(*[np.abs(np.diagonal(exact.hessian))] * 2))
        gap, stated = (
            np.asarray(v) / scale
            for v in (np.abs(measured.hessian - exact.hessian), measured.hessian_by.error)
        )
        assert np.all(gap <= stated + 1e-14) and np.max(stated) < 1e-6


def test_a_saved_record_and_a_resumed_batch_keep_how_they_were_differentiated(tmp_path):
    fit = jm.fit(self_calling, {"a": 0.0}, Y)
    fit.save(tmp_path / "fit.npz")
    assert jm.Fit.load(tmp_path / "fit.npz").hessian_by == fit.hessian_by
    y = np.random.default_rng(18).exponential(3.0, size=(5, 20))
    first, again = (
        jm.fit_batch(self_calling, {"a": 0.0}, y, progress=False, checkpoint=tmp_path / "batch")
        for _ in range(2)
    )
    assert again.hessian_by == first.hessian_by == "reverse over reverse"
    assert_allclose(again.params["a"], first.params["a"], rtol=0)
