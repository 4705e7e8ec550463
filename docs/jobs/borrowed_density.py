"""A likelihood of borrowed parts: scaled by scikit-learn, a layer of equinox, a density of numpyro, draws for ArviZ."""

import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pandas as pd
from sklearn.preprocessing import StandardScaler

import jaxmle as jm

table = pd.read_csv("visits.csv")
x = StandardScaler().fit_transform(table[["distance"]])
data = {"x": x, "y": table["count"].to_numpy()}
net = eqx.nn.Linear(1, "scalar", key=jax.random.key(0))


def loglik(params, data):
    mean = jnp.exp(jax.vmap(params["net"])(data["x"]))
    return dist.NegativeBinomial2(mean, jnp.exp(params["log_size"])).log_prob(data["y"])


fit = jm.fit(loglik, {"net": net, "log_size": 0.0}, data)
draws = fit.to_arviz(loglik, data, draws=100)
print(fit, az.summary(draws, kind="stats"), sep="\n")
answers = {"estimate": fit.x, "std_error": fit.se, "sizes": draws["log_likelihood"]["terms"].shape}
