"""A fit inside a scan, and the gradient of its estimates with respect to the data."""

import jax
import jax.numpy as jnp

import jaxmle as jm

jax.config.update("jax_enable_x64", True)
t = jnp.linspace(0.0, 2.0, 40)
y = 2.0 * jnp.exp(-1.5 * t) + 0.1 * jnp.sin(7.0 * t)


def loglik(params, data):
    return -0.5 * (data["y"] - params["a"] * jnp.exp(-params["b"] * data["t"])) ** 2


def rates(y):
    def window(carry, begin):
        rows = {name: jax.lax.dynamic_slice_in_dim(v, begin, 20) for name, v in data.items()}
        return carry, jm.fit(loglik, {"a": 1.0, "b": 1.0}, rows).params["b"]

    data = {"t": t, "y": y}
    return jax.lax.scan(window, None, jnp.arange(0, 21, 5))[1]


def mean_rate(y):
    found = rates(y)
    return found.mean(), found


(_, found), gradient = jax.jit(jax.value_and_grad(mean_rate, has_aux=True))(y)
print(found, gradient)
answers = {"rates": found, "gradient": gradient}
