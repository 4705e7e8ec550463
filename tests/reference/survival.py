"""Reference cases of censored and matched data: accelerated failure times, tobit, Cox, conditional logit."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, logsumexp

from . import densities as log
from .oracle import Case, design, stack_groups, table

# (log density, log survival function) of the standardised log time.
ERRORS = {
    "weibull": (lambda z: z - jnp.exp(z), lambda z: -jnp.exp(z)),
    "lognormal": (lambda z: log.normal(z, 0.0, 1.0), lambda z: log_ndtr(-z)),
    "loglogistic": (
        lambda z: jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z),
        lambda z: jax.nn.log_sigmoid(-z),
    ),
}


def accelerated_failure(distribution):
    """log T = x'beta + scale W, right-censored; exponential times are Weibull times of scale 1."""
    log_density, log_survival = ERRORS["weibull" if distribution == "exponential" else distribution]

    def loglik(params, data):
        log_scale = params.get("log_scale", 0.0)
        z = (jnp.log(data["time"]) - data["x"] @ params["beta"]) * jnp.exp(-log_scale)
        return jnp.where(
            data["event"] == 1, log_density(z) - log_scale - jnp.log(data["time"]), log_survival(z)
        )

    return loglik


def tobit(params, data):
    mean, sd = data["x"] @ params["beta"], jnp.exp(params["log_sigma"])
    return jnp.where(data["y"] > 0, log.normal(data["y"], mean, sd), log_ndtr(-mean / sd))


def cox(params, data):
    """The partial likelihood: a risk set ties every subject to the others, so it is one scalar."""
    eta = data["x"] @ params["beta"]
    at_risk = data["time"][None, :] >= data["time"][:, None]
    return jnp.sum(
        data["event"] * (eta - logsumexp(jnp.where(at_risk, eta[None, :], -jnp.inf), axis=1))
    )


def conditional_logit(params, data):
    """One term per stratum: data x (strata, members, k), case and real (strata, members)."""
    eta = data["x"] @ params["beta"]
    return jnp.sum(data["case"] * data["real"] * eta, axis=1) - logsumexp(
        jnp.where(data["real"] == 1, eta, -jnp.inf), axis=1
    )


def lung(distribution):
    name = f"s18_aft_{distribution}_lung"
    columns, covariates = table(name), ["age", "sex", "ecog"]
    data = {"time": columns["time"], "event": columns["status"], "x": design(columns, *covariates)}
    scale = {} if distribution == "exponential" else {"log_scale": 0.0}
    names = {"beta": ["const", *covariates]} | {key: key for key in scale}
    return Case(
        name, accelerated_failure(distribution), {"beta": np.zeros(4)} | scale, data, names=names
    )


def tobin():
    columns = table("s19_tobit_tobin")
    data = {"y": columns["durable"], "x": design(columns, "age", "quant")}
    names = {"beta": ["const", "age", "quant"], "log_sigma": "log_sigma"}
    return Case(
        "s19_tobit_tobin", tobit, {"beta": np.zeros(3), "log_sigma": 0.0}, data, names=names
    )


def ovarian_data():
    """The data of the ovarian cancer trial, and the names of their covariates."""
    columns, covariates = table("s20_cox_ovarian"), ["age", "resid_ds", "rx"]
    x = design(columns, *covariates)[:, 1:]
    return {"time": columns["futime"], "event": columns["fustat"], "x": x}, covariates


def ovarian():
    data, covariates = ovarian_data()
    return Case("s20_cox_ovarian", cox, {"beta": np.zeros(3)}, data, names={"beta": covariates})


def infert():
    columns, covariates = table("s17_clogit_infert"), ["spontaneous", "induced"]
    x = np.column_stack([columns[name] for name in covariates])
    data = stack_groups(columns["stratum"], case=columns["case"], x=x)
    return Case(
        "s17_clogit_infert",
        conditional_logit,
        {"beta": np.zeros(2)},
        data,
        names={"beta": covariates},
    )


CASES = [
    infert(),
    *map(lung, ["exponential", "weibull", "lognormal", "loglogistic"]),
    tobin(),
    ovarian(),
]
