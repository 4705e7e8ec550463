"""Parameters of equinox and flax as they are: in ``fit``, in ``fit_stochastic`` and in ``polish_over``."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

RNG = np.random.default_rng(19)
X = RNG.normal(size=(80, 2))
DATA = {"x": X, "y": np.tanh(X[:, 0]) + 0.5 * X[:, 1] + 0.2 * RNG.normal(size=80)}
RIDGE = jm.ridge(1.0)


def residual(prediction, data):
    return -0.5 * (data["y"] - prediction[:, 0]) ** 2


def by_hand(params, data):
    hidden = jnp.tanh(data["x"] @ params["w1"].T + params["b1"][None])
    return residual(hidden @ params["w2"].T + params["b2"][None], data)


def stochastic(loglik, params, over):
    optimizer = optax.adam(0.01)
    return jm.fit_stochastic(
        loglik, params, DATA, optimizer=optimizer, batch_size=40, epochs=1,
        polish="newton", polish_over=over, progress=False,
    )  # fmt: skip


def test_a_module_of_equinox_is_fitted_as_the_same_network_by_hand(tmp_path):
    """Its activation is a function among the parameters, and stays what it is."""
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.MLP(2, 1, 2, 1, activation=jnp.tanh, key=jax.random.key(0))

    def loglik(net, data):
        return residual(jax.vmap(net)(data["x"]), data)

    fit = jm.fit(jm.penalize(loglik, RIDGE), net, DATA)
    start = {
        "w1": net.layers[0].weight, "b1": net.layers[0].bias,
        "w2": net.layers[1].weight, "b2": net.layers[1].bias,
    }  # fmt: skip
    same = jm.fit(jm.penalize(by_hand, RIDGE), start, DATA)
    assert fit.converged and fit.names[0] == "layers[0].weight[0,0]"
    assert_allclose(fit.loglik, same.loglik, rtol=1e-10)
    assert_allclose(fit.params.layers[1].bias, same.params["b2"], rtol=1e-6)
    assert isinstance(fit.params, eqx.nn.MLP)
    prediction = jax.vmap(fit.params)(jnp.asarray(X[:3]))
    assert prediction.shape == (3, 1)
    fit.save(tmp_path / "net.npz")
    again = jm.Fit.load(tmp_path / "net.npz", like=net)
    assert_allclose(jax.vmap(again.params)(jnp.asarray(X[:3])), prediction)


def test_the_last_layer_of_a_module_is_polished_and_the_rest_is_held():
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.MLP(2, 1, 2, 1, activation=jnp.tanh, key=jax.random.key(0))

    def loglik(net, data):
        return residual(jax.vmap(net)(data["x"]), data)

    result = stochastic(jm.penalize(loglik, RIDGE), net, "layers[1]")
    assert result.fit.names == (
        "layers[1].bias[0]",
        "layers[1].weight[0,0]",
        "layers[1].weight[0,1]",
    )
    layer = result.params.layers[0]
    hidden = np.tanh(X @ np.asarray(layer.weight, float).T + np.asarray(layer.bias, float))
    design = np.column_stack([np.ones(80), hidden])
    information = design.T @ design + np.eye(3)  # unit variance, and the ridge
    assert_allclose(result.fit.x, np.linalg.solve(information, design.T @ DATA["y"]), rtol=1e-6)
    assert_allclose(result.fit.se, np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-8)
    with pytest.raises(ValueError, match=r"polish_over must be keys of params0.*layers"):
        stochastic(jm.penalize(loglik, RIDGE), net, "layers[7]")


def test_the_parameters_of_linen_are_a_dictionary():
    nn = pytest.importorskip("flax.linen")
    net = nn.Sequential([nn.Dense(2), jnp.tanh, nn.Dense(1)])
    params = net.init(jax.random.key(0), X[:1])["params"]

    def loglik(params, data):
        return residual(net.apply({"params": params}, data["x"]), data)

    result = stochastic(jm.penalize(loglik, RIDGE), params, "layers_2")
    assert result.fit.converged and set(result.fit.params) == {"layers_2"}
    assert jm.fit(jm.penalize(loglik, RIDGE), params, DATA).converged


def test_modules_and_states_of_nnx_are_trees_of_parameters():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(2, 2, rngs=rngs)
            self.last = nnx.Linear(2, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(jnp.tanh(self.first(x)))

    net = Net(nnx.Rngs(0))
    graph, state = nnx.split(net)

    def loglik(state, data):
        return residual(nnx.merge(graph, state)(data["x"]), data)

    fit = jm.fit(jm.penalize(loglik, RIDGE), state, DATA)
    assert fit.converged and fit.df == 9
    assert nnx.merge(graph, fit.params)(jnp.asarray(X[:3])).shape == (3, 1)
    polished = stochastic(jm.penalize(loglik, RIDGE), state, "last").fit
    assert polished.converged and polished.df == 3


def test_a_function_that_is_no_field_of_a_module_is_refused():
    with pytest.raises(TypeError, match="built-in function zeros"):
        jm.fit(lambda params, data: -data["y"], {"a": np.zeros}, DATA)
