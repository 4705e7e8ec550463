"""Reference cases of dependent data: time series, and random effects integrated out."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

import jaxmle as jm

from . import densities as log
from .oracle import Case, design, expected, stack_groups, table


def autoregression(params, data):
    """Gaussian AR(1) with its stationary first value: given the value before it, each row is a term."""
    phi, mean, variance = params["phi"], params["mean"], params["sigma2"]
    first = data["first"] == 1
    centre = jnp.where(first, mean, mean + phi * (data["before"] - mean))
    return log.normal(
        data["x"], centre, jnp.sqrt(jnp.where(first, variance / (1 - phi**2), variance))
    )


def local_level(params, data):
    """Exact diffuse Kalman filter of a random walk in noise; the first value contributes nothing. A scalar: the filter runs through all rows."""
    noise, level = jnp.exp(params["log_var_obs"]), jnp.exp(params["log_var_level"])

    def step(state, y):
        a, p = state
        f, v = p + noise, y - a
        return (a + p / f * v, p * noise / f + level), -0.5 * (log.LOG_2PI + jnp.log(f) + v**2 / f)

    y = data["y"]
    return jnp.sum(jax.lax.scan(step, (y[0], noise + level), y[1:])[1])


def garch(backcast):
    """GARCH(1, 1) with a mean; a scalar: the variance recursion runs through all rows."""

    def loglik(params, data):
        def step(state, residual):
            square, variance = state
            variance = params["omega"] + params["alpha"] * square + params["beta"] * variance
            return (residual**2, variance), log.normal(residual, 0.0, jnp.sqrt(variance))

        residuals = data["r"] - params["mu"]
        start = jnp.full((), backcast, residuals.dtype)
        return jnp.sum(jax.lax.scan(step, (start, start), residuals)[1])

    return loglik


def random_intercept(params, data):
    """One-way random effects, one term per batch of k values: the batch mean and the deviations from it are independent."""
    y, k = data["y"], data["y"].shape[1]
    means = y.mean(axis=1)
    within = jnp.sum((y - means[:, None]) ** 2, axis=1)
    resid, between = params["sd_resid"] ** 2, params["sd_resid"] ** 2 + k * params["sd_batch"] ** 2
    quadratic = within / resid + k * (means - params["const"]) ** 2 / between
    return -0.5 * (k * log.LOG_2PI + (k - 1) * jnp.log(resid) + jnp.log(between) + quadratic)


def random_intercept_logit(nodes):
    """Binomial responses with a normal intercept per herd, integrated by Gauss-Hermite quadrature; one term per herd."""
    u, weights = np.polynomial.hermite_e.hermegauss(nodes)
    log_weights = np.log(weights) - 0.5 * log.LOG_2PI

    def loglik(params, data):
        intercepts = params["sd_herd"] * u
        eta = (data["x"] @ params["beta"])[:, :, None] + intercepts[None, None, :]
        y, size = data["y"][:, :, None], data["size"][:, :, None]
        rows = log.log_choose(size, y) + y * eta - size * jnp.logaddexp(0.0, eta)
        given = jnp.sum(rows * data["real"][:, :, None], axis=1)
        return logsumexp(given + log_weights[None, :], axis=1)

    return loglik


def lh():
    x = table("s23_ar1_lh")["x"]
    data = {
        "x": x,
        "before": np.concatenate([x[:1], x[:-1]]),
        "first": (np.arange(len(x)) == 0).astype(float),
    }
    constraints = {"phi": jm.interval(-1.0, 1.0), "sigma2": jm.positive}
    return Case(
        "s23_ar1_lh",
        autoregression,
        {"phi": 0.0, "mean": 0.0, "sigma2": 1.0},
        data,
        constraints=constraints,
    )


def nile():
    # Half the variance of the differences each: 28 000 / 2.
    start = {"log_var_obs": 9.5, "log_var_level": 9.5}
    return Case("s24_locallevel_nile", local_level, start, table("s24_locallevel_nile"))


def dyestuff():
    columns = table("s25_lmm_dyestuff")
    data = {"y": stack_groups(columns["batch"], y=columns["yield"])["y"]}
    start = {"const": 1500.0, "sd_batch": 50.0, "sd_resid": 50.0}
    return Case(
        "s25_lmm_dyestuff",
        random_intercept,
        start,
        data,
        constraints={"sd_batch": jm.positive, "sd_resid": jm.positive},
    )


def cbpp():
    columns, periods = table("s26_glmm_logit_cbpp"), ["p2", "p3", "p4"]
    data = stack_groups(
        columns["herd"], y=columns["incidence"], size=columns["size"], x=design(columns, *periods)
    )
    names = {"beta": ["const", *periods], "sd_herd": "sd_herd"}
    start = {"beta": np.zeros(4), "sd_herd": 1.0}
    return Case(
        "s26_glmm_logit_cbpp",
        random_intercept_logit(100),
        start,
        data,
        names=names,
        constraints={"sd_herd": jm.positive},
    )


def dax():
    start = {"mu": 0.0, "omega": 0.1, "alpha": 0.1, "beta": 0.8}
    constraints = {key: jm.positive for key in ("omega", "alpha", "beta")}
    return Case(
        "s28_garch_dax",
        garch(expected("s28_garch_dax")["backcast"]),
        start,
        table("s28_garch_dax"),
        constraints=constraints,
    )


CASES = [lh(), nile(), dyestuff(), cbpp(), dax()]
