"""The usual losses are negative log-likelihoods: the same value and gradient, to rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

N, D, K = 12, 3, 4
RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.normal(size=(N, D)),
    "y": RNG.normal(size=N),
    "hit": (RNG.random(N) < 0.4).astype(float),
    "label": RNG.integers(K, size=N),
}
NET = {"w1": RNG.normal(size=(D, 5)), "b1": RNG.normal(size=5), "w2": RNG.normal(size=(5, K))}
HALF_LOG_2PI = 0.918938533204672742


def network(params, x):
    """A plain pytree network, (n, K)."""
    return jnp.tanh(x @ params["w1"] + params["b1"][None, :]) @ params["w2"]


def gaussian(params, data, sigma=1.0):
    return (
        -0.5 * ((data["y"] - network(params, data["x"])[:, 0]) / sigma) ** 2
        - jnp.log(sigma)
        - HALF_LOG_2PI
    )


def laplace(params, data):
    return -jnp.abs(data["y"] - network(params, data["x"])[:, 0]) - jnp.log(2.0)


def bernoulli(params, data):
    logit = network(params, data["x"])[:, 0]
    return data["hit"] * logit - jnp.logaddexp(0.0, logit)


def categorical(params, data):
    """Labels as numbers."""
    return jnp.take_along_axis(
        jax.nn.log_softmax(network(params, data["x"])), data["label"][:, None], axis=1
    )[:, 0]


def one_hot(params, data):
    """Labels as rows of zeros and a one."""
    return jnp.sum(
        jax.nn.one_hot(data["label"], K) * jax.nn.log_softmax(network(params, data["x"])), axis=1
    )


def squared_error(params, data):
    return (network(params, data["x"])[:, 0] - data["y"]) ** 2


LOSSES = {  # log-likelihood; loss of each row; slope and constant of loss = slope·nll + constant
    "squared error": (gaussian, squared_error, 2.0, -2 * HALF_LOG_2PI),
    "absolute error": (
        laplace,
        lambda p, d: jnp.abs(network(p, d["x"])[:, 0] - d["y"]),
        1.0,
        -np.log(2.0),
    ),
    "binary cross-entropy": (
        bernoulli,
        lambda p, d: optax.sigmoid_binary_cross_entropy(network(p, d["x"])[:, 0], d["hit"]),
        1.0,
        0.0,
    ),
    "cross-entropy": (
        categorical,
        lambda p, d: optax.softmax_cross_entropy_with_integer_labels(
            network(p, d["x"]), d["label"]
        ),
        1.0,
        0.0,
    ),
    "cross-entropy, one-hot": (
        one_hot,
        lambda p, d: optax.softmax_cross_entropy(network(p, d["x"]), jax.nn.one_hot(d["label"], K)),
        1.0,
        0.0,
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_a_negative_log_likelihood(name):
    loglik, loss, slope, constant = LOSSES[name]
    with jax.enable_x64(True):
        params, data = jax.tree.map(jnp.asarray, (NET, DATA))
        for reduction, reduce in (("sum", jnp.sum), ("mean", jnp.mean)):
            value, gradient = jax.jit(jax.value_and_grad(jm.nll(loglik, reduction=reduction)))(
                params, data
            )
            expected, slopes = jax.jit(
                jax.value_and_grad(lambda p, d, reduce=reduce: reduce(loss(p, d)))
            )(params, data)
            rows = N if reduction == "sum" else 1
            assert_allclose(slope * value + rows * constant, expected, rtol=1e-14)
            for mine, theirs in zip(
                jax.tree.leaves(gradient), jax.tree.leaves(slopes), strict=True
            ):
                assert_allclose(slope * mine, theirs, rtol=1e-12, atol=1e-14)


def test_at_its_best_sigma_the_gaussian_is_half_the_log_of_the_mean_squared_error():
    """With σ estimated, min over σ of nll/n is ½ log(2πe·MSE): the same minimiser, a gradient in proportion to that of the MSE."""
    with jax.enable_x64(True):
        params, data = jax.tree.map(jnp.asarray, (NET, DATA))
        mse, slopes = jax.value_and_grad(lambda p: jnp.mean(squared_error(p, data)))(params)
        loss = jm.nll(lambda p, d: gaussian(p["net"], d, p["sigma"]), reduction="mean")
        value, gradient = jax.jit(jax.value_and_grad(loss))(
            {"net": params, "sigma": jnp.sqrt(mse)}, data
        )
        assert_allclose(value, 0.5 * np.log(2 * np.pi * np.e * mse), rtol=1e-14)
        assert_allclose(gradient["sigma"], 0.0, atol=1e-14)
        for mine, theirs in zip(
            jax.tree.leaves(gradient["net"]), jax.tree.leaves(slopes), strict=True
        ):
            assert_allclose(2 * mse * mine, theirs, rtol=1e-12, atol=1e-14)


def test_logits_far_out_keep_value_and_gradient():
    """From a probability, a logit of −800 is log 0; from the logit it is −800."""
    far = {"x": np.ones((1, 1)), "hit": np.ones(1)}
    loss = jm.nll(lambda p, d: d["hit"] * (d["x"] @ p) - jnp.logaddexp(0.0, d["x"] @ p))
    value, slope = jax.value_and_grad(lambda p: loss(p, far))(jnp.array([-800.0]))
    assert float(value) == 800.0 and float(slope[0]) == -1.0


def test_the_mean_loss_trains_a_network_by_optax_in_float32():
    optimiser, loss = optax.adam(0.05), jm.nll(gaussian, reduction="mean")
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), NET)
    data = {
        name: jnp.asarray(value, jnp.int32 if name == "label" else jnp.float32)
        for name, value in DATA.items()
    }

    @jax.jit
    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, data)
        change, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, change), state), value

    _, values = jax.lax.scan(step, (params, optimiser.init(params)), None, length=100)
    assert values.dtype == jnp.float32
    assert float(values[-1]) < 0.5 * (float(values[0]) + HALF_LOG_2PI)


def test_reductions_are_two_and_the_mean_needs_terms():
    with pytest.raises(ValueError, match="'sum' or 'mean'"):
        jm.nll(gaussian, reduction="none")
    with pytest.raises(ValueError, match="reduction='mean'"):
        jm.nll(jm.penalize(gaussian, jm.ridge(1.0)), reduction="mean")(NET, DATA)
    assert_allclose(
        jm.nll(gaussian, reduction="mean")(NET, DATA) * N, jm.nll(gaussian)(NET, DATA), rtol=1e-14
    )
