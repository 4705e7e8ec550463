"""The same by hand: Newton's method and the curvature of the log-likelihood of a numpyro density, draws for ArviZ."""

import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
from jax.flatten_util import ravel_pytree
from sklearn.preprocessing import StandardScaler

jax.config.update("jax_enable_x64", True)
table = pd.read_csv("visits.csv")
x = StandardScaler().fit_transform(table[["distance"]])
y = table["count"].to_numpy()
net = eqx.nn.Linear(1, "scalar", key=jax.random.key(0))
net = eqx.tree_at(lambda net: (net.weight, net.bias), net, (jnp.full((1, 1), 0.3), jnp.ones(1)))
start, unravel = ravel_pytree({"log_size": jnp.array(3.0), "net": net})


def terms(theta):
    params = unravel(theta)
    mean = jnp.exp(jax.vmap(params["net"])(x))
    return dist.NegativeBinomial2(mean, jnp.exp(params["log_size"])).log_prob(y)


score = jax.jit(jax.grad(lambda theta: terms(theta).sum()))
hessian = jax.jit(jax.hessian(lambda theta: terms(theta).sum()))
theta = start
for _ in range(20):
    theta = theta - jnp.linalg.solve(hessian(theta), score(theta))
vcov = np.linalg.inv(-hessian(theta))
se = np.sqrt(np.diag(vcov))
values = np.random.default_rng(0).multivariate_normal(theta, vcov, 100)
rows = np.asarray(jax.lax.map(terms, values))
draws = az.from_dict(posterior={"theta": values[None]}, log_likelihood={"terms": rows[None]})
print(pd.DataFrame({"estimate": theta, "std_error": se}), az.summary(draws, kind="stats"), sep="\n")
answers = {"estimate": theta, "std_error": se, "sizes": draws["log_likelihood"]["terms"].shape}
