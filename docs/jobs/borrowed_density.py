"""A distribution of numpyro in a likelihood of one's own: estimates and standard errors."""

import jax.numpy as jnp
import numpyro.distributions as dist
import pandas as pd

import jaxmle as jm

frame = jm.from_formula("count ~ distance", pd.read_csv("visits.csv"))


def loglik(params, data):
    mean = jnp.exp(data["x"] @ params["beta"])
    return dist.NegativeBinomial2(mean, jnp.exp(params["log_size"])).log_prob(data["y"])


fit = frame.fit(loglik, {"beta": jnp.zeros(2), "log_size": 0.0})
print(fit)
answers = {"estimate": fit.x, "std_error": fit.se}
