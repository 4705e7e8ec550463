"""Built-in models against the numbers of other software: estimates, standard errors and log-likelihoods, each from its own start.

Where a model's parameters are not those of the file, the file's are a function of them and their standard errors come by the delta method,
which at a maximum is exact.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import models
from tests.tolerances import ESTIMATE_IN_SE, LOGLIK, STDERR

from .oracle import design, expected, stack_groups, table
from .regressions import BIOCHEMISTS, BIRTHWEIGHT, HOUSING, INSURANCE, LAKES, QUINE
from .survival import ovarian_data

Tree = dict[str, Any]


def as_it_is(params: Tree) -> Tree:
    return params


@dataclass(frozen=True)
class Ready:
    """A reference case fitted by a built-in model.

    Args:
      to_file: from the model's parameters to a dictionary of the file's, single numbers or vectors.
      labels: the file's names of every entry of each of them.
    """

    name: str
    model: Any
    data: Tree
    labels: dict[str, list[str]]
    to_file: Callable[[Tree], Tree] = as_it_is
    weights: Any = None


def ones(name, column):
    values = table(name)[column]
    return {"x": np.ones((len(values), 1)), "y": values}


def regression(name, column, regressors, **more):
    columns = table(name)
    return {"x": design(columns, *regressors), "y": columns[column]} | {
        key: columns[value] for key, value in more.items()
    }


def mu_sd(p):
    return {"mu": p["beta"][0], "sd": p["sigma"]}


def shape_rate(p):
    return {"shape": p["shape"], "rate": p["shape"] * jnp.exp(-p["beta"][0])}


def weibull_times(p):
    return {"shape": 1 / p["scale"], "scale": jnp.exp(p["beta"][0])}


def size_mu(p):
    return {"size": 1 / p["alpha"], "mu": jnp.exp(p["beta"][0])}


def shapes(p):
    mean = 1 / (1 + jnp.exp(-p["beta"][0]))
    return {"shape1": mean * p["phi"], "shape2": (1 - mean) * p["phi"]}


def plain(*labels):
    return {label: [label] for label in labels}


def times(name, column):
    values = table(name)[column]
    return {"x": np.ones((len(values), 1)), "time": values, "event": np.ones(len(values))}


UNIVARIATE = [
    Ready("s01_normal_precip", models.normal(), ones("s01_normal_precip", "x"), plain("mu", "sd"), mu_sd),
    Ready("s02a_gamma_groundbeef", models.gamma(), ones("s02a_gamma_groundbeef", "x"), plain("shape", "rate"), shape_rate),
    Ready("s02b_weibull_groundbeef", models.aft("weibull"), times("s02b_weibull_groundbeef", "x"), plain("shape", "scale"), weibull_times),
    Ready(
        "s02c_lognormal_groundbeef", models.aft("lognormal"), times("s02c_lognormal_groundbeef", "x"), plain("meanlog", "sdlog"),
        lambda p: {"meanlog": p["beta"][0], "sdlog": p["scale"]},
    ),
    Ready(
        "s03_exponential_aircondit", models.aft("exponential"), times("s03_exponential_aircondit", "x"), plain("rate"),
        lambda p: {"rate": jnp.exp(-p["beta"][0])},
    ),
    Ready("s04_poisson_prussian", models.poisson(), ones("s04_poisson_prussian", "y"), plain("lambda"), lambda p: {"lambda": jnp.exp(p["beta"][0])}),
    Ready("s05_negbin_machinists", models.negative_binomial(), ones("s05_negbin_machinists", "y"), plain("size", "mu"), size_mu),
    Ready("s07_beta_rockshape", models.beta(), ones("s07_beta_rockshape", "x"), plain("shape1", "shape2"), shapes),
    Ready(
        "s08_student_newcomb", models.student_t(), ones("s08_student_newcomb", "x"), plain("m", "s", "df"),
        lambda p: {"m": p["beta"][0], "s": p["scale"], "df": p["df"]},
    ),
]  # fmt: skip


def coefficients(*names):
    return {"beta": ["const", *names]}


def beetles(link):
    name = f"s11_binomial_beetles_{link}"
    return Ready(
        name,
        models.binomial(link=link),
        regression(name, "killed", ["logdose"], trials="n"),
        coefficients("logdose"),
    )


def theta(p):
    return {"beta": p["beta"], "theta": 1 / p["alpha"]}


def alligators():
    name = "s15_mnlogit_alligators"
    labels = {"beta": [f"food{j}:{column}" for column in ["const", *LAKES] for j in range(1, 5)]}
    return Ready(
        name,
        models.multinomial(5),
        regression(name, "food", LAKES),
        labels,
        lambda p: {"beta": p["beta"].reshape(-1)},
        jm.frequency(table(name)["freq"]),
    )


def housing(link, of_file):
    name = f"s16_ordered_{of_file}_housing"
    columns = table(name)
    data = {"y": columns["sat"], "x": design(columns, *HOUSING)[:, 1:]}
    return Ready(
        name,
        models.ordinal(3, link=link),
        data,
        {"beta": HOUSING, "cut": ["cut1", "cut2"]},
        weights=jm.frequency(columns["freq"]),
    )


def gasoline():
    columns = table("s21_betareg_gasoline")
    batches = columns["batch"][:, None] == np.arange(1, 10)
    x = np.column_stack([np.ones(len(batches)), batches, columns["temp"]])
    labels = {"beta": ["const", *(f"batch{j}" for j in range(1, 10)), "temp"], "phi": ["phi"]}
    return Ready("s21_betareg_gasoline", models.beta(), {"x": x, "y": columns["yield"]}, labels)


def biochemists(name, model, extra=()):
    names = ["const", *BIOCHEMISTS]
    labels = {
        "beta": [f"count:{label}" for label in names],
        "gamma": [f"zero:{label}" for label in names],
    } | plain(*extra)
    to_file = (
        (lambda p: {"beta": p["beta"], "gamma": p["gamma"], "log_theta": -jnp.log(p["alpha"])})
        if extra
        else as_it_is
    )
    return Ready(name, model, regression(name, "art", BIOCHEMISTS), labels, to_file)


REGRESSIONS = [
    Ready(
        "s09_linear_mtcars", models.normal(), regression("s09_linear_mtcars", "mpg", ["wt", "hp", "qsec"]),
        coefficients("wt", "hp", "qsec") | plain("sigma"),
    ),
    Ready("s10_logit_birthwt", models.logistic(), regression("s10_logit_birthwt", "low", BIRTHWEIGHT), coefficients(*BIRTHWEIGHT)),
    *map(beetles, ["logit", "probit", "cloglog"]),
    Ready(
        "s12_poisson_offset_insurance", models.poisson(exposure="holders"),
        regression("s12_poisson_offset_insurance", "claims", INSURANCE, holders="holders"), coefficients(*INSURANCE),
    ),
    Ready("s13_gamma_log_clotting", models.gamma(), regression("s13_gamma_log_clotting", "lot1", ["logu"]), coefficients("logu") | plain("shape")),
    Ready(
        "s14_nb2_quine", models.negative_binomial(), regression("s14_nb2_quine", "days", QUINE), coefficients(*QUINE) | plain("theta"), theta,
    ),
    alligators(),
    housing("logit", "logistic"),
    housing("probit", "probit"),
    gasoline(),
    biochemists("s22a_zip_biochemists", models.zero_inflated("poisson", zero="x")),
    biochemists("s22b_zinb_biochemists", models.zero_inflated("negative_binomial", zero="x"), ("log_theta",)),
    biochemists("s22c_hurdle_biochemists", models.hurdle("poisson", cross="x")),
    Ready(
        "s30_hetero_cars", models.normal(scale="x"), regression("s30_hetero_cars", "dist", ["speed"]),
        coefficients("speed") | {"gamma": ["ls_const", "ls_speed"]},
    ),
]  # fmt: skip


def log_scale(name):
    return lambda p: {"beta": p["beta"], f"log_{name}": jnp.log(p[name])}


def lung(law):
    name, covariates = f"s18_aft_{law}_lung", ["age", "sex", "ecog"]
    columns = table(name)
    data = {"x": design(columns, *covariates), "time": columns["time"], "event": columns["status"]}
    exponential = law == "exponential"
    labels = coefficients(*covariates) | ({} if exponential else plain("log_scale"))
    return Ready(
        name, models.aft(law), data, labels, as_it_is if exponential else log_scale("scale")
    )


def ovarian():
    data, covariates = ovarian_data()
    return Ready("s20_cox_ovarian", models.cox(), data, {"beta": covariates})


def infert():
    columns, covariates = table("s17_clogit_infert"), ["spontaneous", "induced"]
    x = np.column_stack([columns[name] for name in covariates])
    data = stack_groups(columns["stratum"], y=columns["case"], x=x)
    return Ready(
        "s17_clogit_infert", models.conditional_logit(real="real"), data, {"beta": covariates}
    )


OTHERS = [
    infert(),
    *map(lung, ["exponential", "weibull", "lognormal", "loglogistic"]),
    Ready(
        "s19_tobit_tobin", models.tobit(), regression("s19_tobit_tobin", "durable", ["age", "quant"]),
        coefficients("age", "quant") | plain("log_sigma"), log_scale("sigma"),
    ),
    ovarian(),
    Ready(
        "s23_ar1_lh", models.ar1(), ones("s23_ar1_lh", "x"), plain("phi", "mean", "sigma2"),
        lambda p: {"phi": p["phi"], "mean": p["beta"][0], "sigma2": p["sigma"] ** 2},
    ),
    Ready("s28_garch_dax", models.garch(), {"y": table("s28_garch_dax")["r"]}, plain("mu", "omega", "alpha", "beta")),
]  # fmt: skip

CASES = [*UNIVARIATE, *REGRESSIONS, *OTHERS]
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@functools.cache
def fitted(name: str) -> jm.Fit:
    case = next(case for case in CASES if case.name == name)
    return jm.fit(case.model, data=case.data, weights=case.weights)


def in_order(case, tree):
    """The entries of a tree like ``case.labels``, flat, and the file's names of them."""
    values = [np.ravel(tree[key]) for key in case.labels]
    return np.concatenate(values), [label for key in case.labels for label in case.labels[key]]


@by_name
def test_a_ready_model_has_the_numbers_of_the_file(case):
    fit, file = fitted(case.name), expected(case.name)
    assert fit.verdict == jm.Status.CONVERGED, fit.explain()
    delta = jm.delta(case.to_file, fit)
    estimate, labels = in_order(case, delta.estimate)
    stderr, _ = in_order(case, delta.stderr)
    se = np.asarray([file["se_observed"][label] for label in labels])
    assert sorted(labels) == sorted(file["estimates"])
    assert_allclose(
        (estimate - np.asarray([file["estimates"][label] for label in labels])) / se,
        0.0,
        atol=ESTIMATE_IN_SE,
    )
    assert_allclose(stderr, se, rtol=STDERR)
    assert_allclose(fit.loglik, file["loglik"], rtol=0, atol=LOGLIK * max(1.0, abs(file["loglik"])))


EXPECTED = [case for case in CASES if expected(case.name)["se_expected"] and "nb2" not in case.name]


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: case.name)
def test_expected_standard_errors_are_those_of_the_file(case):
    vcov = jm.vcov(case.model, kind="expected")(fitted(case.name).params, case.data)
    delta = jm.delta(case.to_file, fitted(case.name).with_vcov(vcov, "expected"))
    stderr, labels = in_order(case, delta.stderr)
    known = [label in expected(case.name)["se_expected"] for label in labels]
    assert_allclose(
        stderr[known],
        [expected(case.name)["se_expected"][label] for label in np.asarray(labels)[known]],
        rtol=1e-6,
    )


UNTIED = [case for case in CASES if case.weights is None]


@pytest.mark.parametrize("case", UNTIED, ids=lambda case: case.name)
def test_the_start_is_inside_the_bounds_and_near_the_maximum(case):
    fit = fitted(case.name)
    start = case.model.start(case.data)
    assert sorted(start) == sorted(fit.params)
    assert all(np.isfinite(leaf).all() for leaf in start.values())
    assert fit.steps <= 25
