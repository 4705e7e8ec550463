"""Value, score and Hessian, and the informations made of them, against sums written out in NumPy."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest
from jax.scipy.special import gammaln
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.parameters import layout_of
from tests.likelihoods import logit
from tests.tolerances import ROUNDING_OF_A_SUM

from .cases import BETA, CASES, LOGIT, NORMAL, N, X, normal

FORMS = ("opaque", "declared")
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_the_sums_over_rows(name, form):
    case, by_hand = CASES[name], CASES[name].by_hand()
    loglik, at = getattr(case, form), (case.params, case.data)
    assert_allclose(jm.nll(loglik)(*at), -by_hand.terms.sum(), rtol=1e-13)
    gradient = layout_of(case.params).ravel(jm.score(loglik)(*at))
    assert_allclose(gradient, by_hand.scores.sum(axis=0), **CLOSE)
    assert_allclose(jm.scores(loglik)(*at), by_hand.scores, **CLOSE)
    assert_allclose(jm.hessian(loglik)(*at), -by_hand.observed.sum(axis=0), **CLOSE)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_informations_are_the_sums_over_rows(name, form):
    case, by_hand = CASES[name], CASES[name].by_hand()
    loglik, at = getattr(case, form), (case.params, case.data)
    assert_allclose(jm.information(loglik)(*at), by_hand.observed.sum(axis=0), **CLOSE)
    assert_allclose(jm.information(loglik, "opg")(*at), by_hand.scores.T @ by_hand.scores, **CLOSE)
    if form == "declared":
        assert_allclose(
            jm.information(loglik, "expected")(*at), by_hand.expected.sum(axis=0), **CLOSE
        )


@pytest.mark.parametrize("name", ["logit", "normal"])
def test_model_based_covariances_are_inverse_informations(name):
    case, by_hand = CASES[name], CASES[name].by_hand()
    at = (case.params, case.data)
    assert_allclose(
        jm.vcov(case.declared)(*at), np.linalg.inv(by_hand.observed.sum(axis=0)), rtol=1e-10
    )
    assert_allclose(
        jm.vcov(case.declared, "expected")(*at),
        np.linalg.inv(by_hand.expected.sum(axis=0)),
        rtol=1e-10,
        atol=1e-16,
    )
    assert_allclose(
        jm.vcov(case.declared, "opg")(*at),
        np.linalg.inv(by_hand.scores.T @ by_hand.scores),
        rtol=1e-10,
    )


def weibull(params, data):
    shape, z = params["shape"], (data - params["shift"]) / params["scale"]
    return jnp.log(shape / params["scale"]) + (shape - 1) * jnp.log(z) - z**shape


def test_derivatives_equal_those_of_fifty_digit_arithmetic():
    """A likelihood without closed-form second derivatives by hand: mpmath differentiates it to 50 digits."""
    y, point = [1.3, 2.7, 0.9, 4.1], {"scale": 2.0, "shape": 1.4, "shift": 0.2}
    with mpmath.workdps(50):

        def total(scale, shape, shift):
            z = [(mpmath.mpf(v) - shift) / scale for v in y]
            return sum(
                mpmath.log(shape / scale) + (shape - 1) * mpmath.log(v) - v**shape for v in z
            )

        at = tuple(mpmath.mpf(point[name]) for name in point)
        orders = np.eye(3, dtype=int)
        gradient = [float(mpmath.diff(total, at, tuple(map(int, o)))) for o in orders]
        hessian = [
            [float(mpmath.diff(total, at, tuple(map(int, a + b)))) for b in orders] for a in orders
        ]
        value = float(total(*at))
    data = np.array(y)
    assert_allclose(jm.nll(weibull)(point, data), -value, rtol=1e-14)
    assert_allclose(list(jm.score(weibull)(point, data).values()), gradient, rtol=ROUNDING_OF_A_SUM)
    assert_allclose(jm.hessian(weibull)(point, data), hessian, rtol=ROUNDING_OF_A_SUM)


def test_the_score_wears_the_tree_of_the_parameters():
    def nested(params, data):
        return normal({"beta": params[0], "sigma": params[1]["s"]}, data)

    gradient = jm.score(nested)([np.zeros(3), {"s": np.array(1.5)}], NORMAL)
    r = NORMAL["y"]
    assert_allclose(gradient[0], X.T @ r / 1.5**2, **CLOSE)
    assert_allclose(gradient[1]["s"], np.sum(r**2 / 1.5**3 - 1 / 1.5), **CLOSE)


def test_host_values_are_float64_numpy_whatever_the_setting():
    assert not jax.config.jax_enable_x64
    out = jm.hessian(logit)({"beta": np.zeros(3, np.float32)}, LOGIT)
    assert isinstance(out, np.ndarray) and out.dtype == np.float64
    assert not jax.config.jax_enable_x64


def test_the_calculus_is_plain_jax_under_a_trace():
    """nll under jit and grad; the Hessian under vmap over points; an optax loop reaches the maximum found by hand."""
    y, points = LOGIT["y"], np.array([[0.0, 0.0, 0.0], [0.2, -0.1, 0.4]])
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(jm.nll(logit)))(BETA, LOGIT)["beta"]
        hessians = jax.vmap(lambda beta: jm.hessian(logit)({"beta": beta}, LOGIT))(
            jnp.asarray(points)
        )
    mu = 1 / (1 + np.exp(-X @ BETA["beta"]))
    assert_allclose(gradient, -X.T @ (y - mu), **CLOSE)
    for point, hessian in zip(points, hessians, strict=True):
        mu = 1 / (1 + np.exp(-X @ point))
        assert_allclose(hessian, -X.T @ ((mu * (1 - mu))[:, None] * X), **CLOSE)


def test_nll_is_a_loss_for_optax():
    y = np.array([1.0, 3.0, 2.0, 6.0])
    loss = jm.nll(
        lambda params, data: (
            -jnp.exp(params["log_mean"]) + data * params["log_mean"] - gammaln(data + 1)
        )
    )
    tx = optax.sgd(0.02)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, y), state)
        return (optax.apply_updates(params, updates), state), None

    with jax.enable_x64(True):
        start = {"log_mean": jnp.zeros(())}
        (end, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=300))(
            (start, tx.init(start))
        )
    assert_allclose(end["log_mean"], np.log(y.mean()), rtol=1e-9)


def test_the_information_equality_holds_in_expectation():
    """E[ss'] = E[−H] under the model: over all 2^n samples of a small logit, weighted by their probability."""
    x = np.array([[1.0, -1.0], [1.0, 0.5], [1.0, 2.0]])
    params, outer, minus_h = {"beta": np.array([0.2, -0.7])}, np.zeros((2, 2)), np.zeros((2, 2))
    for code in range(8):
        data = {"x": x, "y": np.array([float(code >> i & 1) for i in range(3)])}
        probability = np.exp(-jm.nll(logit)(params, data))
        gradient = jm.score(logit)(params, data)["beta"]
        outer += probability * np.outer(gradient, gradient)
        minus_h += probability * jm.information(logit)(params, data)
    assert_allclose(outer, minus_h, rtol=1e-13)


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [7, 20, 100])
def test_blocks_of_rows_give_the_whole_sum(rows):
    """7 does not divide n = 60: the last block is moved back and its doubled rows have weight 0."""
    case = CASES["normal"]
    with jax.enable_x64(True):
        for loglik in (case.opaque, case.declared):
            value, absolute, gradient, hessian = jm.evaluate(
                loglik, case.params, case.data, block_rows=rows
            )
            by_hand = case.by_hand()
            assert_allclose(value, by_hand.terms.sum(), rtol=1e-13)
            assert_allclose(absolute, np.abs(by_hand.terms).sum(), rtol=1e-13)
            assert_allclose(gradient, by_hand.scores.sum(axis=0), **CLOSE)
            assert_allclose(hessian, -by_hand.observed.sum(axis=0), **CLOSE)


def test_blocks_carry_weights_and_pools():
    case, w = CASES["logit"], np.arange(2 * N) % 4.0
    pooled = jm.weight(jm.pool(case.opaque, case.declared), jm.sampling(w))
    with jax.enable_x64(True):
        value, _, gradient, hessian = jm.evaluate(
            pooled, case.params, (case.data, case.data), block_rows=13
        )
    by_hand, both = case.by_hand(), w[:N] + w[N:]
    assert_allclose(value, both @ by_hand.terms, rtol=1e-13)
    assert_allclose(gradient, both @ by_hand.scores, **CLOSE)
    assert_allclose(hessian, -np.tensordot(both, by_hand.observed, 1), **CLOSE)


def test_a_fit_in_blocks_is_the_fit():
    whole = jm.fit(
        normal,
        {"beta": np.zeros(3), "sigma": 1.0},
        NORMAL,
        constraints={"sigma": jm.positive},
        block_rows=17,
    )
    beta = np.linalg.lstsq(X, NORMAL["y"], rcond=None)[0]
    sigma = np.sqrt(np.mean((NORMAL["y"] - X @ beta) ** 2))
    assert_allclose(whole.x, [*beta, sigma], rtol=1e-9)
    assert_allclose(whole.vcov[:3, :3], sigma**2 * np.linalg.inv(X.T @ X), rtol=1e-8)


def test_the_unpenalised_score_is_zero_at_the_maximum():
    fit = jm.fit(logit, {"beta": np.zeros(3)}, LOGIT)
    each = jm.scores(logit)(fit.params, LOGIT)
    assert_allclose(each.sum(axis=0), 0, atol=1e-9)
    assert_allclose(
        each[:, 0].sum(), 0, atol=1e-9
    )  # fitted probabilities sum to the number of ones
