"""A fit inside a scan, and the gradient of its estimates with respect to the data, by hand in JAX."""

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)
t = jnp.linspace(0.0, 2.0, 40)
y = 2.0 * jnp.exp(-1.5 * t) + 0.1 * jnp.sin(7.0 * t)


def nll(theta, t, y):
    return 0.5 * jnp.sum((y - theta[0] * jnp.exp(-theta[1] * t)) ** 2)


def estimate(t, y):
    def step(theta, _):
        score = jax.grad(nll)(theta, t, y)
        damping = 10.0 * (score @ score) * jnp.eye(2)
        return theta - jnp.linalg.solve(jax.hessian(nll)(theta, t, y) + damping, score), None

    return jax.lax.scan(step, jnp.array([1.0, 1.0]), None, 50)[0]


def rates(y):
    def window(carry, begin):
        rows = [jax.lax.dynamic_slice_in_dim(v, begin, 20) for v in (t, y)]
        return carry, estimate(*rows)[1]

    return jax.lax.scan(window, None, jnp.arange(0, 21, 5))[1]


def mean_rate(y):
    found = rates(y)
    return found.mean(), found


(_, found), gradient = jax.jit(jax.value_and_grad(mean_rate, has_aux=True))(y)
print(found, gradient)
answers = {"rates": found, "gradient": gradient}
