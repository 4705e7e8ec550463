"""A negative binomial regression in numpyro: maximum and curvature of its log-likelihood."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro.infer.util import log_density

numpyro.enable_x64()
table = pd.read_csv("visits.csv")
x = jnp.column_stack([jnp.ones(len(table)), table["distance"].to_numpy()])
y = jnp.asarray(table["count"].to_numpy())


def model(x, y):
    beta = numpyro.param("beta", jnp.zeros(2))
    log_size = numpyro.param("log_size", 0.0)
    numpyro.sample("y", dist.NegativeBinomial2(jnp.exp(x @ beta), jnp.exp(log_size)), obs=y)


def nll(theta):
    return -log_density(model, (x, y), {}, {"beta": theta[:2], "log_size": theta[2]})[0]


gradient, hessian = jax.jit(jax.grad(nll)), jax.jit(jax.hessian(nll))
theta = jnp.array([1.0, 0.3, 3.0])
for _ in range(20):
    theta = theta - jnp.linalg.solve(hessian(theta), gradient(theta))
se = jnp.sqrt(jnp.diag(jnp.linalg.inv(hessian(theta))))
print(pd.DataFrame({"estimate": theta, "std_error": se}, index=["const", "distance", "log_size"]))
answers = {"estimate": theta, "std_error": se}
