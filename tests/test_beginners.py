"""Forty mistakes of a beginner: each ends in one sentence that says where, what, and what to write."""

import math
import sys
import time
import warnings
from math import log

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy
from scipy.special import gammaln
from scipy.stats import norm

import jaxmle as jm
from jaxmle import models
from jaxmle.runtime import user_code
from tests.one_sentence import assert_one_sentence

Y = np.array([1.0, 2.0, 4.0, 3.0, 2.5])
X = np.column_stack([np.ones(5), np.arange(5.0)])
DATA = {"x": X, "y": Y}
START = {"mu": 1.0, "sigma": 1.0}


def square(params, data):
    return -0.5 * (data["y"] - params["mu"]) ** 2 / params["sigma"] ** 2 - jnp.log(params["sigma"])


def numpy_log(params, data):
    return -0.5 * (data["y"] - params["mu"]) ** 2 - np.log(params["sigma"])


def numpy_exp_of_an_alias(params, data):
    return data["y"] * params["mu"] - np.exp(params["mu"])


def math_log(params, data):
    return -0.5 * (data["y"] - params["mu"]) ** 2 - math.log(params["sigma"])


def bare_log(params, data):
    return -0.5 * (data["y"] - params["mu"]) ** 2 - log(params["sigma"])


def scipy_norm(params, data):
    return norm.logpdf(data["y"], params["mu"], params["sigma"])


def scipy_stats(params, data):
    return scipy.stats.norm.logpdf(data["y"], params["mu"], params["sigma"])


def scipy_gammaln(params, data):
    return data["y"] * params["mu"] - gammaln(data["y"] + params["sigma"])


def scipy_matrix(params, data):
    return data["y"] * np.linalg.det(jnp.eye(2) * params["sigma"])


def an_if(params, data):
    if params["sigma"] < 0:
        return jnp.full(5, -jnp.inf)
    return square(params, data)


def a_conditional(params, data):
    scale = params["sigma"] if params["sigma"] > 0 else 1.0
    return -((data["y"] - params["mu"]) ** 2) / scale


def a_while(params, data):
    mu = params["mu"]
    while mu > 10:
        mu = mu / 2
    return -((data["y"] - mu) ** 2)


def an_assert(params, data):
    assert params["sigma"] > 0
    return square(params, data)


def an_and(params, data):
    inside = params["mu"] > 0 and params["sigma"] > 0
    return jnp.where(inside, square(params, data), -jnp.inf)


def a_max(params, data):
    return -((data["y"] - max(params["mu"], 0.0)) ** 2)


def a_float(params, data):
    return -((data["y"] - float(params["mu"])) ** 2)


def an_int(params, data):
    return -((data["y"] - int(params["mu"])) ** 2)


def an_item(params, data):
    return -((data["y"] - params["mu"].item()) ** 2)


def a_list(params, data):
    return -((data["y"] - sum(params["beta"].tolist())) ** 2)


def a_range(params, data):
    return -((data["y"] - sum(1.0 for _ in range(params["mu"]))) ** 2)


def a_mask(params, data):
    large = data["y"][data["y"] > params["mu"]]
    return -((large - params["mu"]) ** 2)


def an_assignment(params, data):
    eta = data["x"] @ params["beta"]
    eta[0] = 0.0
    return -((data["y"] - eta) ** 2)


def a_list_index(params, data):
    return -((data["y"] - [1.0, 2.0][data["k"][0]] * params["mu"]) ** 2)


def no_return(params, data):
    square(params, data)


def missing_entry(params, data):
    return -((data["y"] - params["mean"]) ** 2)


def missing_leaf(params, data):
    return -((data["response"] - params["mu"]) ** 2)


def whole_dictionary(params, data):
    return -((data["y"] - params) ** 2)


def dotted(params, data):
    return -((data["y"] - params.mu) ** 2)


def pandas_method(params, data):
    return -((data["y"].to_numpy() - params["mu"]) ** 2)


def list_method(params, data):
    return -((data["y"].append(params["mu"])) ** 2)


def wrong_shapes(params, data):
    return -((data["y"] - data["x"] @ params["beta"]) ** 2)


def one_argument(params):
    return -((Y - params["mu"]) ** 2)


def matrix_of_terms(params, data):
    return -((data["y"][:, None] - params["mu"] - Y[None, :]) ** 2)


def words(params, data):
    return "a"


def whole_numbers(params, data):
    return jnp.zeros(5, int)


def attempt(loglik, start=START, data=DATA, **options):
    return lambda: jm.fit(loglik, start, data, **options)


BETA = {"beta": np.zeros(2)}
MISTAKES = {
    "NumPy's log": (attempt(numpy_log), ["numpy_log", "np.log()", "write jnp.log", "jax.numpy"]),
    "NumPy's exp": (attempt(numpy_exp_of_an_alias), ["np.exp()", "jnp.exp"]),
    "math.log": (attempt(math_log), ["math.log()", "jnp.log"]),
    "a log that was imported": (attempt(bare_log), ["log()", "jnp.log"]),
    "norm of scipy": (attempt(scipy_norm), ["norm.logpdf()", "jax.scipy.stats.norm.logpdf"]),
    "scipy.stats": (attempt(scipy_stats), ["jax.scipy.stats.norm.logpdf"]),
    "gammaln of scipy": (attempt(scipy_gammaln), ["jax.scipy.special.gammaln"]),
    "numpy.linalg": (attempt(scipy_matrix), ["np.linalg.det()", "jnp.linalg.det"]),
    "if": (attempt(an_if), ["line ", "an_if", 'params["sigma"] < 0', "jnp.where"]),
    "a conditional expression": (attempt(a_conditional), ["if needs True or False", "jnp.where"]),
    "while": (attempt(a_while), ["while", "while_loop"]),
    "assert": (attempt(an_assert), ["assert", "jaxmle.positive"]),
    "and": (attempt(an_and), ["and needs", "(a) & (b)"]),
    "max": (attempt(a_max), ["max()", "jnp.maximum"]),
    "float": (attempt(a_float), ["a_float", "leave float() out"]),
    "int": (attempt(an_int), ["astype(int)"]),
    "item": (attempt(an_item), ["leave .item() out"]),
    "tolist": (attempt(a_list, BETA), ["leave out .tolist()"]),
    "range of a parameter": (attempt(a_range), ["range", "jax.lax.scan"]),
    "a mask": (attempt(a_mask), ["a_mask", "mask", "jnp.where(mask"]),
    "an assignment in place": (attempt(an_assignment, BETA), ["x.at[i].set"]),
    "a list indexed by data": (
        attempt(a_list_index, data={**DATA, "k": np.array([0, 1, 0, 1, 0])}),
        ["a_list_index", "jnp.asarray(table)[i]"],
    ),
    "no return": (attempt(no_return), ["NoneType", "return"]),
    "an entry that is not there": (attempt(missing_entry), ["params has no entry 'mean'", "sigma"]),
    "a leaf that is not there": (attempt(missing_leaf), ["data has no entry 'response'", "'y'"]),
    "params as a number": (attempt(whole_dictionary), ["dictionary", "params['mu']"]),
    "a dot for a key": (attempt(dotted), ["dotted", "write params['mu']"]),
    "a method of pandas": (attempt(pandas_method), ["to_numpy", "jax.numpy"]),
    "a method of a list": (attempt(list_method), ["append", "jax.numpy"]),
    "shapes": (attempt(wrong_shapes, {"beta": np.zeros(3)}), ["wrong_shapes", "shape"]),
    "one argument": (attempt(one_argument), ["(params, data)", "two arguments"]),
    "no data": (attempt(square, data=None), ["needs data", "fit(loglik, start, data)"]),
    "terms (n, n)": (attempt(matrix_of_terms), ["(5,)", "(5, 5)", "broadcast"]),
    "a string for terms": (attempt(words), ["array of log-likelihood terms", "str"]),
    "integer terms": (attempt(whole_numbers), ["floating-point terms"]),
    "a model without ()": (lambda: jm.fit(models.poisson, None, DATA), ["write poisson(…)"]),
    "the class of a model": (lambda: jm.fit(models.Model, None, DATA), ["the class Model"]),
    "no start": (attempt(square, None), ["params0 is missing", "start values"]),
    "a word as a start": (attempt(square, {"mu": "one", "sigma": 1.0}), ["params['mu']"]),
    "a start on its bound": (
        attempt(square, {"mu": 1.0, "sigma": 0.0}, constraints={"sigma": jm.positive}),
        ["start of sigma", "strictly between 0 and inf"],
    ),
    "a misspelt constraint": (
        attempt(square, constraints={"sigmma": jm.positive}),
        ["'sigmma'", "sigma"],
    ),
    "a list of rows": (attempt(square, data={"y": [1.0, 2.0]}), ["numpy.asarray"]),
    "NaN in the data": (attempt(square, data={"y": np.array([1.0, np.nan])}), ["row 1", "NaN"]),
    "words in a frame": (
        attempt(square, data=pd.DataFrame({"y": Y, "site": list("aabba")})),
        ["data['site'] holds", "from_formula", "jaxmle.codes"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake):
    assert_one_sentence(*MISTAKES[mistake], (TypeError, ValueError))


def test_there_are_forty_of_them():
    assert len(MISTAKES) >= 40


def test_a_density_of_a_declared_regression_is_explained_too():
    def density(eta, row):
        return -0.5 * (row["y"] - eta["mu"]) ** 2 - np.log(eta["sigma"])

    model = jm.regression(density, {"mu": jm.linear("x", "beta"), "sigma": "sigma"})
    with pytest.raises(TypeError, match=r"line \d+ of density .*write jnp.log"):
        jm.fit(model, {"beta": np.zeros(2), "sigma": 1.0}, DATA)


def test_whole_numbers_are_a_start():
    fit = jm.fit(square, {"mu": 1, "sigma": 1}, DATA, constraints={"sigma": jm.positive})
    assert fit.converged and abs(fit.params["mu"] - Y.mean()) < 1e-8
    with pytest.raises(TypeError, match="dtype bool"):
        jm.fit(square, {"mu": True, "sigma": 1.0}, DATA)


def test_a_warning_points_at_the_line_that_called():
    table = {"y": np.array([1.0, 2.0, np.nan, 3.0]), "x": np.arange(4.0)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jm.from_formula("y ~ x", table)
        here = sys._getframe().f_lineno - 1
    assert [(w.filename, w.lineno) for w in caught] == [(__file__, here)]


def test_a_loop_over_rows_is_named_when_it_compiles_long(monkeypatch, capsys):
    monkeypatch.setattr(user_code, "SECONDS_BEFORE_A_WORD", 0.02)
    monkeypatch.setattr(user_code, "SECONDS_OF_A_LOOP", 0.01)
    with user_code.said_if_long("loop"), user_code.explained({}, None):
        time.sleep(0.5)  # a loop is traced so
    said = capsys.readouterr().err
    assert "loop has been compiling" in said and "jax.lax.scan" in said
    with user_code.said_if_long("quick"), user_code.explained({}, None):
        pass
    assert not capsys.readouterr().err
