"""Mistakes of a beginner that were answered in words of Python, NumPy, SciPy or jax: each ends in one sentence of ours."""

import dataclasses
import decimal
import fractions
import functools
import pathlib
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats

import jaxmle as jm
from jaxmle import models
from jaxmle.survival import kaplan_meier
from tests.one_sentence import assert_one_sentence

RNG = np.random.default_rng(0)
N = 24
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
Y = X @ [1.0, 0.5] + RNG.normal(size=N)
DATA = {"x": X, "y": Y}
START = {"mu": 0.5, "sigma": 1.0}
TABLE = pd.DataFrame({"y": Y, "x": X[:, 1], "b": (Y > 1) * 1.0, "g": np.arange(N) % 2})
FRAME = jm.from_formula("b ~ x", TABLE)
FIT = FRAME.fit(models.logistic())


def normal(p, d):
    return -0.5 * ((d["y"] - p["mu"]) / p["sigma"]) ** 2 - jnp.log(p["sigma"])


@dataclasses.dataclass
class Start:
    mu: float
    sigma: float


def inside(added, start=START):
    """A mistake in a likelihood: what is added to the terms."""
    return lambda: jm.fit(lambda p, d: normal(p, d) + added(p, d), start, DATA)


def fit(loglik=normal, start=START, data=DATA, **options):
    return lambda: jm.fit(loglik, start, data, **options)


def generating(p, d):
    yield normal(p, d)


MISTAKES = {
    # sizes that are not known
    "the distinct values": (inside(lambda p, d: jnp.unique(d["y"] > p["mu"]).sum()), ["how many results", "before the fit"]),
    "the places of a condition": (inside(lambda p, d: jnp.nonzero(d["y"] > p["mu"])[0]), ["how many results"]),
    "where() of a condition alone": (inside(lambda p, d: d["y"][jnp.where(d["y"] > p["mu"])]), ["jnp.where(mask, a, b)"]),
    "a grid of a parameter's length": (inside(lambda p, d: jnp.linspace(0, 1, p["mu"]).sum()), ["a size cannot depend on parameters"]),
    "counting to a parameter": (inside(lambda p, d: jnp.arange(p["mu"]).sum()), ["data['x'].shape[0]"]),
    "complex()": (inside(lambda p, d: complex(p["mu"])), ["leave complex() out"]),
    "a slice up to a parameter": (inside(lambda p, d: d["y"][: p["mu"]]), ["A slice cannot depend on parameters"]),
    "a parameter as an index": (inside(lambda p, d: jnp.ones(2)[p["mu"]]), ["An index must be a whole number"]),
    "len() of one number": (inside(lambda p, d: len(p["mu"])), ["A single number has no length"]),
    "a loop to a parameter": (inside(lambda p, d: jax.lax.fori_loop(0, p["mu"], lambda i, x: x, 0.0)), ["The number of steps cannot be a parameter"]),
    "a carry that changes its type": (inside(lambda p, d: jax.lax.scan(lambda c, y: (1, y), 0.0, d["y"])[1]), ["The carry of a loop", "jnp.zeros(())"]),
    "a number times a matrix by @": (inside(lambda p, d: d["x"] @ p["mu"]), ["One side of @ is a single number"]),
    # numbers that are not known
    "a parameter as a key": (inside(lambda p, d: {0.5: 1.0}[p["mu"]]), ["cannot be the key of a dictionary"]),
    "the text of a parameter": (inside(lambda p, d: float(str(p["mu"]))), ["compute with the parameter itself"]),
    "decimals": (inside(lambda p, d: p["mu"] * decimal.Decimal("2")), ["jax computes with floats"]),
    "fractions": (inside(lambda p, d: p["mu"] * fractions.Fraction(1, 2)), ["jax computes with floats"]),
    "statistics of Python": (inside(lambda p, d: statistics.mean(d["y"])), ["jnp.mean(x)"]),
    "a search inside": (inside(lambda p, d: scipy.optimize.minimize(lambda u: (u - p["mu"]) ** 2, 0.0).x[0]), ["scipy.optimize.minimize() works only with numbers"]),
    # the likelihood as a whole
    "vmap without in_axes": (fit(jax.vmap(normal)), ["in_axes=(None, 0)"]),
    "the gradient": (fit(jax.grad(normal)), ["give the log-likelihood itself"]),
    "a partial with the parameters": (fit(functools.partial(normal, START)), ["two arguments, (params, data)"]),
    "a law of SciPy": (fit(scipy.stats.norm(0, 1).logpdf), ["two arguments, (params, data)"]),
    "vectorize of NumPy": (fit(np.vectorize(normal)), ["loglik must be computed with jax.numpy"]),
    "yield": (fit(generating), ["Write return, not yield"]),
    "a formula for a likelihood": (fit("y ~ x"), ["jaxmle.from_formula('y ~ x', table)"]),
    # start and data
    "a dataclass": (fit(start=Start(0.5, 1.0)), ["params is Start(", "{'mu': 0.0}"]),
    "a function that makes the start": (fit(start=lambda: START), ["params is a function"]),
    "a decimal start": (fit(start={"mu": decimal.Decimal(1), "sigma": 1.0}), ["params['mu'] is Decimal('1')"]),
    "a fit as the start": (fit(start=FIT), ["fit.params"]),
    "the name of a file": (fit(data="data.csv"), ["the string 'data.csv'", "pandas.read_csv"]),
    "a path": (fit(data=pathlib.Path("data.csv")), ["pandas.read_csv"]),
    "two columns of one name": (fit(data=pd.DataFrame(np.c_[Y, Y], columns=["y", "y"])), ["2 columns called 'y'"]),
    "columns without names": (fit(data=pd.DataFrame(X)), ["frame.rename(columns=str)"]),
    "rows of a table as a list": (lambda: jm.from_formula("y ~ x", TABLE.to_dict("records")), ["pandas.DataFrame"]),
    "a constraint that is called": (lambda: jm.positive(), ["constraints={'sigma': jaxmle.positive}"]),
    # what is asked of a fit
    "the fit alone": (lambda: jm.profile(FIT), ["profile(loglik, fit, data"]),
    "the fit alone to bootstrap": (lambda: jm.bootstrap(FIT, 1000), ["takes the log-likelihood before the fit"]),
    "a frame for data": (lambda: jm.profile(models.logistic(), FIT, FRAME), ["frame.data"]),
    "the score called at once": (lambda: jm.score(normal, START, DATA), ["score(loglik)(params, data)"]),
    "an entry that is not there in a profile": (lambda: jm.profile(models.logistic(), FIT, FRAME.data, lambda p: p["x"]), ["params has no entry 'x'"]),
    "a name of a fit asked of groups": (lambda: jm.fit_groups(models.logistic(), None, TABLE, by="g", formula="b ~ 1").stderr, ["result.fits.stderr"]),
    "fits in a list": (lambda: jm.compare([FIT, FIT]), ["one by one"]),
    "two arguments in delta": (lambda: jm.delta(lambda a, b: a, FIT), ["g must be a function of one argument, params"]),
    "a comparison in delta": (lambda: jm.delta(lambda p: p["beta"] > 0, FIT), ["an array of bool"]),
    "load of the module": (lambda: jm.load("fit.npz"), ["jaxmle.Fit.load"]),
    "AIC": (lambda: FIT.AIC, ["fit.aic"]),
    "a plot of a fit": (lambda: FIT.plot(), ["jaxmle.plots.forest(fit)"]),
    "a bootstrap of a fit": (lambda: FIT.bootstrap(), ["jaxmle.bootstrap(loglik, fit, data"]),
    "a summary under jit": (lambda: jax.jit(lambda y: jm.fit(lambda p, d: -((d - p) ** 2), 0.0, y).summary())(Y), ["summary() needs the values of the fit"]),
    # rooms of the library
    "a family as SciPy has it": (lambda: jm.families.normal.logpdf(Y, 0, 1), ["family.log_prob(params, y)"]),
    "a family in capitals": (lambda: jm.families.Normal, ["did you mean normal?"]),
    "a plot that is not there": (lambda: jm.plots.hist(FIT), ["jaxmle.plots has no 'hist'"]),
    "a fit for residuals": (lambda: jm.plots.qq(FIT), ["residuals must be real numbers; got a Fit"]),
    "no events": (lambda: kaplan_meier(np.exp(Y)), ["kaplan_meier() needs event"]),
    "events as words": (lambda: kaplan_meier(np.exp(Y), np.where(Y > 1, "dead", "alive")), ["event == 'dead'"]),
    "no classes": (lambda: models.multinomial(), ["multinomial needs classes: write multinomial(3)"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_was_said_in_words_of_others_is_one_sentence(mistake):
    assert_one_sentence(*MISTAKES[mistake])


def test_a_whole_number_of_a_function_of_the_estimates_is_a_number():
    """The symptom: NumPy's "data type <class 'numpy.int64'> not inexact"."""
    one = jm.delta(lambda p: jnp.int32(1), FIT)
    assert one.estimate == 1.0 and one.stderr == 0.0


def test_a_list_of_frames_is_a_batch():
    """The symptom: "An array has no entry 'y'", for frames as ``groupby`` gives them."""
    frames = [part for _, part in TABLE.groupby("b")]
    fits = jm.fit_batch(lambda p, d: -0.5 * (d["y"] - p) ** 2, 0.0, frames, progress=False)
    np.testing.assert_allclose(fits.x[:, 0], [part["y"].mean() for part in frames])
