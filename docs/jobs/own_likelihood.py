"""A likelihood of one's own, of a table with gaps and a factor."""

import jax.numpy as jnp
import pandas as pd
from jax.scipy.stats import t

import jaxmle as jm

frame = jm.from_formula("lwt ~ age + race", pd.read_csv("births.csv"), missing="drop")


def loglik(params, data):
    return t.logpdf(data["y"], 4.0, data["x"] @ params["beta"], params["scale"])


start = {"beta": jnp.array([100.0, 0.0, 0.0, 0.0]), "scale": 20.0}
fit = frame.fit(loglik, start, constraints={"scale": jm.positive})
print(fit)
answers = {"estimate": fit.x, "std_error": fit.se, "loglik": fit.loglik}
