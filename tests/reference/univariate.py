"""Reference cases of one sample: a density of a few scalar parameters."""

import jax.numpy as jnp
from jax.scipy.special import gammaln, xlogy

import jaxmle as jm

from . import densities as log
from .oracle import Case, table


def normal(params, data):
    return log.normal(data["x"], params["mu"], params["sd"])


def gamma(params, data):
    return log.gamma(data["x"], params["shape"], params["rate"])


def weibull(params, data):
    z = jnp.log(data["x"] / params["scale"]) * params["shape"]
    return jnp.log(params["shape"]) - jnp.log(data["x"]) + z - jnp.exp(z)


def lognormal(params, data):
    return log.normal(jnp.log(data["x"]), params["meanlog"], params["sdlog"]) - jnp.log(data["x"])


def exponential(params, data):
    return jnp.log(params["rate"]) - params["rate"] * data["x"]


def poisson(params, data):
    return xlogy(data["y"], params["lambda"]) - params["lambda"] - gammaln(data["y"] + 1)


def negative_binomial(params, data):
    return log.negative_binomial(data["y"], jnp.log(params["mu"]), params["size"])


def gev(params, data):
    return log.gev(data["x"], params["loc"], params["scale"], params["shape"])


def gumbel(params, data):
    return log.gumbel(data["x"], params["loc"], params["scale"])


def beta(params, data):
    return log.beta(data["x"], params["shape1"], params["shape2"])


def student(params, data):
    return log.student(data["x"], params["m"], params["s"], params["df"])


def vonmises(params, data):
    return log.vonmises(data["x"], params["mu"], params["kappa"])


def two_normals(params, data):
    first = jnp.log(params["w1"]) + log.normal(data["x"], params["mu1"], params["sd1"])
    second = jnp.log1p(-params["w1"]) + log.normal(data["x"], params["mu2"], params["sd2"])
    return jnp.logaddexp(first, second)


def case(name, loglik, start, constraints):
    return Case(name, loglik, start, table(name), constraints=constraints)


POSITIVE = jm.positive
CASES = [
    case("s01_normal_precip", normal, {"mu": 30.0, "sd": 10.0}, {"sd": POSITIVE}),
    case(
        "s02a_gamma_groundbeef",
        gamma,
        {"shape": 1.0, "rate": 0.01},
        {"shape": POSITIVE, "rate": POSITIVE},
    ),
    case(
        "s02b_weibull_groundbeef",
        weibull,
        {"shape": 1.0, "scale": 70.0},
        {"shape": POSITIVE, "scale": POSITIVE},
    ),
    case(
        "s02c_lognormal_groundbeef", lognormal, {"meanlog": 0.0, "sdlog": 1.0}, {"sdlog": POSITIVE}
    ),
    case("s03_exponential_aircondit", exponential, {"rate": 1.0}, {"rate": POSITIVE}),
    case("s04_poisson_prussian", poisson, {"lambda": 1.0}, {"lambda": POSITIVE}),
    case(
        "s05_negbin_machinists",
        negative_binomial,
        {"size": 1.0, "mu": 1.0},
        {"size": POSITIVE, "mu": POSITIVE},
    ),
    case("s06_gev_portpirie", gev, {"loc": 4.0, "scale": 0.2, "shape": 0.1}, {"scale": POSITIVE}),
    case("s06b_gumbel_portpirie", gumbel, {"loc": 4.0, "scale": 0.2}, {"scale": POSITIVE}),
    case(
        "s07_beta_rockshape",
        beta,
        {"shape1": 1.0, "shape2": 1.0},
        {"shape1": POSITIVE, "shape2": POSITIVE},
    ),
    case(
        "s08_student_newcomb",
        student,
        {"m": 27.0, "s": 5.0, "df": 5.0},
        {"s": POSITIVE, "df": POSITIVE},
    ),
    case(
        "s27_mixture_faithful",
        two_normals,
        {"w1": 0.5, "mu1": 2.0, "sd1": 0.5, "mu2": 4.0, "sd2": 0.5},
        {"w1": jm.interval(0.0, 1.0), "sd1": POSITIVE, "sd2": POSITIVE},
    ),
    case("s31_vonmises_fisherB1", vonmises, {"mu": 0.0, "kappa": 1.0}, {"kappa": POSITIVE}),
]
