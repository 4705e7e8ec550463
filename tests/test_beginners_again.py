"""Fifty more mistakes of a beginner, at every door: each ends in one sentence that says what to write."""

import datetime

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest

import jaxmle as jm
from jaxmle import models
from jaxmle.survival import kaplan_meier
from tests.one_sentence import assert_one_sentence

Y = np.array([1.0, 2.0, 4.0, 3.0, 2.5])
X = np.column_stack([np.ones(5), np.arange(5.0)])
DATA = {"x": X, "y": Y}
START = {"mu": 1.0, "sigma": 1.0}
BOUND = {"sigma": jm.positive}
TABLE = pd.DataFrame({"y": Y, "x": np.arange(5.0), "g": list("aabba"), "z": -Y})
DAYS = pd.date_range("2020-01-01", periods=5)
POISSON = models.poisson()


def normal(params, data):
    z = (data["y"] - params["mu"]) / params["sigma"]
    return -0.5 * z**2 - jnp.log(params["sigma"])


def swapped(data, params):
    return normal(params, data)


def unpacked(params, data):
    mu, sigma = params
    return -(((data["y"] - mu) / sigma) ** 2)


def by_number(params, data):
    return -((data[0] - params["mu"]) ** 2)


def with_a_list(params, data):
    return [-((y - params["mu"]) ** 2) for y in data["y"]]


def with_a_pair(params, data):
    return normal(params, data), 1.0


class Study:
    """A class whose method is a likelihood."""

    def loglik(self, params, data):
        return normal(params, data)


def fit(loglik=normal, start=START, data=DATA, **options):
    return lambda: jm.fit(loglik, start, data, **options)


def formula(text, table=TABLE, **options):
    return lambda: jm.from_formula(text, table, **options)


def of_a_fit(do):
    return lambda: do(jm.fit(POISSON, data=DATA))


MISTAKES = {
    "arguments swapped in the likelihood": (fit(swapped), ["'y' is an entry of data", "(params, data), in this order"]),
    "arguments swapped over an array": (fit(lambda d, p: -((d - p["mu"]) ** 2), data=Y), ["params has", "(params, data), in this order"]),
    "a name asked of an array": (fit(lambda p, d: -((d["y"] - p["mu"]) ** 2), data=Y), ["An array has no entry 'y'", "dictionaries"]),
    "a frame grouped by pandas": (lambda: jm.fit_batch(normal, START, TABLE.groupby("g")), ["grouped already", "fit_groups"]),
    "params unpacked": (fit(unpacked), ["gives its names", "params['mu']"]),
    "data by number": (fit(by_number), ["data has no entry 0", "'y'"]),
    "a list of terms": (fit(with_a_list), ["got list", "jnp.stack"]),
    "a pair returned": (fit(with_a_pair), ["got tuple", "Return only the terms"]),
    "a method of a class": (fit(Study.loglik), ["two arguments, (params, data)"]),
    "an object": (fit(Study()), ["function of (params, data)", "Study"]),
    "start and data swapped": (lambda: jm.fit(normal, DATA, START), ["data['mu']", "first axis is the observations"]),
    "data second for a model": (lambda: jm.fit(POISSON, DATA), ["start values", "fit(model, data=data)"]),
    "a model by name": (lambda: jm.fit("poisson", data=DATA), ["models.poisson()", "'poisson'"]),
    "a formula as a start": (lambda: jm.fit(POISSON, "y ~ x", DATA), ["from_formula('y ~ x', table)"]),
    "a frame first": (lambda: jm.fit(formula("y ~ x")(), models.normal()), ["function of (params, data)", "Frame"]),
    "a constraint as a word": (fit(constraints={"sigma": "positive"}), ["jaxmle's constraints", "'positive'"]),
    "bounds of scipy": (fit(constraints=[(None, None), (0, None)]), ["a tree with the structure of params", "jaxmle.positive"]),
    "a start outside its bound": (fit(start={"mu": 0.0, "sigma": -1.0}, constraints=BOUND), ["start of sigma", "got -1"]),
    "NaN as a start": (fit(start={"mu": np.nan, "sigma": 1.0}), ["params['mu'] is not finite"]),
    "None as a start": (fit(start={"mu": None, "sigma": 1.0}), ["params['mu'] is None", "give it a start value"]),
    "a complex start": (fit(start={"mu": 1j, "sigma": 1.0}), ["complex128"]),
    "numbers as objects": (fit(data={"y": Y.astype(object)}), ["Python objects", ".astype(float)"]),
    "numbers as words": (fit(data={"y": Y.astype(str)}), ["holds strings"]),
    "dates": (fit(data={"y": DAYS}), ["holds times", "numpy.timedelta64(1, 'D')"]),
    "a set": (fit(data={"y": {1.0, 2.0}}), ["is a set", "numpy.asarray(list(…))"]),
    "one number as data": (fit(data={"y": 3.0}), ["the float 3.0", "Close over constants"]),
    "no rows": (fit(data={"y": np.array([])}), ["no rows"]),
    "columns of different lengths": (fit(data={"y": Y, "z": np.ones(4)}), ["5 rows", "4 rows"]),
    "vcov as Stata calls it": (fit(POISSON, None, vcov="robust"), ["Did you mean 'HC1'?"]),
    "vcov in small letters": (fit(POISSON, None, vcov="hc1"), ["Did you mean 'HC1'?"]),
    "clusters by name": (fit(POISSON, None, clusters="g"), ["from_formula(…, clusters='g')"]),
    "weights without a kind": (fit(POISSON, None, weights=np.ones(5)), ["jaxmle.frequency(w)"]),
    "coefficients of other software": (of_a_fit(lambda fit: fit.coef_), ["no 'coef_'", "fit.params"]),
    "predict of a fit": (of_a_fit(lambda fit: fit.predict(X)), ["frame.predict(fit, new)"]),
    "a fit for parameters": (of_a_fit(lambda fit: POISSON.predict(fit, DATA)), ["give fit.params"]),
    "a matrix for data": (lambda: POISSON.predict({"beta": np.zeros(2)}, X), ["one array", "{'x': …}"]),
    "a key that is a string": (lambda: POISSON.sample("seed", {"beta": np.zeros(2)}, DATA), ["key must be an integer"]),
    "delta the other way round": (of_a_fit(lambda fit: jm.delta(fit, lambda p: p["beta"][0])), ["delta takes the result of fit"]),
    "NumPy in delta": (of_a_fit(lambda fit: jm.delta(lambda p: np.exp(p["beta"][1]), fit)), ["np.exp()", "jnp.exp"]),
    "a misspelt entry in delta": (of_a_fit(lambda fit: jm.delta(lambda p: p["b"], fit)), ["no entry 'b'", "beta"]),
    "95 for 0.95": (of_a_fit(lambda fit: fit.conf_int(95)), ["95 per cent is 0.95"]),
    "one equals sign": (formula("y = x"), ["one '~'"]),
    "every other column": (formula("y ~ ."), ["'.' for all other columns", "name them"]),
    "factor of R": (formula("y ~ factor(g)"), ["Write a factor as C(…)"]),
    "Stata's i.": (formula("y ~ i.g"), ["C(x)"]),
    "a random effect": (formula("y ~ x + (1|g)"), ["random effects, (1|g), are not supported"]),
    "NumPy in a formula": (formula("y ~ np.log(x)"), ["Write log(…), without the module"]),
    "a log of what is negative": (formula("y ~ log(z)"), ["log(z) is nan in row 0", "must be finite"]),
    "a column of dates": (formula("y ~ d", TABLE.assign(d=DAYS)), ["holds dates", ".dt.days"]),
    "dates of polars": (formula("y ~ d", pl.DataFrame({"y": Y, "d": DAYS})), ["holds dates"]),
    "dates of Python": (formula("y ~ d", {"y": Y, "d": [datetime.date(2020, 1, 1)] * 5}), ["holds dates"]),
    "words as counts": (lambda: formula("g ~ x")().fit(POISSON), ["is a category", "multinomial"]),
    "nothing to estimate": (lambda: formula("y ~ 0")().fit(POISSON), ["nothing to estimate"]),
    "a number for a column": (lambda: formula("y ~ x")().recode({"x": 3.0}), ["such as [3.0]"]),
    "durations as times": (lambda: kaplan_meier(DAYS - DAYS[0], [1, 1, 1, 0, 1]), ["dates or durations", ".dt.days"]),
    "a name that is nearly there": (lambda: jm.fitt, ["did you mean jaxmle.fit?"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake):
    assert_one_sentence(*MISTAKES[mistake], (TypeError, ValueError, AttributeError))


def test_there_are_fifty_of_them():
    assert len(MISTAKES) >= 50
