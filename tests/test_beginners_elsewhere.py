"""Forty mistakes of those who come from statsmodels, R, PyTorch, SciPy, numpyro or pandas: each ends in one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxmle as jm
from jaxmle import models
from tests.one_sentence import assert_one_sentence

RNG = np.random.default_rng(0)
N = 60
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
Y = X @ [1.0, 0.5] + RNG.normal(size=N)
B = (Y > 1).astype(float)
DATA = {"x": X, "y": Y}
START = {"beta": np.zeros(2), "sigma": 1.0}
BOUND = {"sigma": jm.positive}
TABLE = pd.DataFrame({"y": Y, "x": X[:, 1], "b": B, "t": np.abs(Y) + 0.1})
DAYS = pd.date_range("2020", periods=N)


def normal(params, data):
    z = (data["y"] - data["x"] @ params["beta"]) / params["sigma"]
    return -0.5 * z**2 - jnp.log(params["sigma"])


def of_pandas(params, data):
    return -jnp.abs(data["y"].values - params["beta"][0])


def its_gradient(params, data):
    return jax.grad(lambda p: normal(p, data).sum())(params)


def numpyro_model(x, y):
    numpyro = pytest.importorskip("numpyro")
    slope = numpyro.sample("slope", numpyro.distributions.Normal(0.0, 1.0))
    numpyro.sample("y", numpyro.distributions.Normal(x * slope, 1.0), obs=y)


class Net:
    """A module of PyTorch, as it is written there."""

    def forward(self, params, data):
        return normal(params, data)


def fit(loglik=normal, start=START, data=DATA, **options):
    return lambda: jm.fit(loglik, start, data, **options)


def logit(do):
    """A mistake with a fit and its frame."""

    def call():
        frame = jm.from_formula("b ~ x", TABLE)
        do(frame.fit(models.logistic()), frame)

    return call


def formula(text, table=TABLE, **options):
    return lambda: jm.from_formula(text, table, **options)


MISTAKES = {
    # SciPy
    "start before the function": (lambda: jm.fit(START, normal, DATA), ["loglik must be a function", "got dict"]),
    "args as a tuple": (fit(data=(X, Y)), ["data is a tuple", "{'x': x, 'y': y}"]),
    "a flat start": (fit(start=[0.0, 0.0, 1.0]), ["params is a list", "{'mu': 0.0}"]),
    "a method by name": (fit(solver="BFGS"), ["jaxmle.solvers", "LBFGS"]),
    "no start": (fit(start=None), ["params0 is missing", "jnp.zeros"]),
    "a start out of bounds": (fit(start=START | {"sigma": -1.0}, constraints=BOUND), ["the start of sigma", "got -1"]),
    # statsmodels
    "endog and exog to the model": (lambda: models.logistic(B, X), ["options of the model", "jaxmle.fit(models.logistic("]),
    "endog and exog to fit": (lambda: jm.fit(models.normal(), Y, X), ["fit(model, data=data)"]),
    "fit of a model": (lambda: models.logistic().fit(X, B), ["no 'fit'", "jaxmle.fit(model, data="]),
    "OLS": (lambda: models.OLS, ["models.normal()"]),
    "MNLogit": (lambda: models.MNLogit, ["models.multinomial(classes)"]),
    "the frame before the formula": (lambda: jm.from_formula(TABLE, "b ~ x"), ["a formula is a string", "got DataFrame"]),
    "a robust covariance": (fit(vcov="robust", constraints=BOUND), ["Did you mean 'HC1'?"]),
    "clusters without labels": (fit(vcov="cluster", constraints=BOUND), ["needs clusters="]),
    "cov_params": (logit(lambda fit, frame: fit.cov_params()), ["fit.vcov"]),
    "get_margeff": (logit(lambda fit, frame: fit.get_margeff()), ["jaxmle.margins(fit, frame)"]),
    # R
    "glm": (lambda: models.glm, ["models.logistic(), models.poisson()"]),
    "coxph": (lambda: models.coxph, ["models.cox()"]),
    "survreg": (lambda: models.survreg, ["models.aft(family)"]),
    "a family for a model": (logit(lambda fit, frame: frame.fit(jm.families.binomial)), ["binomial takes the values", "['x', 'y']"]),
    "a column by $": (formula("DF$y ~ x"), ["cannot read 'DF$y'"]),
    "a square without I()": (formula("y ~ x + x^2"), ["x^2 is x itself", "I(x**2)"]),
    "a power of Python without I()": (formula("y ~ x**2"), ["x**2 is x itself", "I(x**2)"]),
    "weights without a kind": (formula("b ~ x", weights=np.ones(N)), ["frequency('w') or sampling('w')", "ndarray of float64 (60,)"]),
    "Surv the other way round": (lambda: jm.from_formula("Surv(b, t) ~ x", TABLE), ["code an event as 1"]),
    "an inequality": (logit(lambda fit, frame: jm.wald_test(fit, "x > 0")), ["must be an equation"]),
    # PyTorch and JAX
    "a module": (fit(Net()), ["function of (params, data)", "got Net"]),
    "a gradient": (fit(its_gradient), ["log-likelihood terms", "got dict"]),
    "one data set for a batch": (lambda: jm.fit_batch(normal, START, DATA), ["needs (members, rows"]),
    "a class that was not made": (lambda: jm.from_formula("b ~ x", TABLE).fit(models.logistic), ["write logistic("]),
    # numpyro
    "a model for a likelihood": (fit(numpyro_model, {"slope": 0.0}), ["jaxmle.from_numpyro(model, data)"]),
    "a distribution is returned": (fit(lambda p, d: pytest.importorskip("numpyro.distributions").Normal(p["beta"], 1.0)), ["got Normal"]),
    # pandas
    "a start with labels": (fit(start=pd.Series({"beta": 0.0, "sigma": 1.0})), ["is a Series", "dictionary"]),
    "values of a column": (fit(of_pandas), ["have no 'values'"]),
    "a column of dates": (formula("y ~ d", TABLE.assign(d=DAYS)), ["holds dates", ".dt.days"]),
    "rows without a column": (logit(lambda fit, frame: frame.predict(fit, TABLE[["y"]])), ["no column 'x'"]),
    "a matrix of new rows": (logit(lambda fit, frame: frame.predict(fit, X)), ["got ndarray"]),
    "predict the other way round": (logit(lambda fit, frame: frame.predict(TABLE, fit)), ["frame.predict(fit, new)"]),
    "margins of a table": (logit(lambda fit, frame: jm.margins(fit, TABLE)), ["takes the Frame of the fit"]),
    "a status that does not exist": (logit(lambda fit, frame: fit.status == "OK"), ["no status 'OK'", "CONVERGED"]),
    "a file that is not there": (lambda: jm.Fit.load("nothing-here.npz"), ["there is no such file"]),
    "labels 1 and 2": (lambda: jm.fit(models.logistic(), data={"x": X, "y": B + 1}), ["0 and 1", "(y == 2)"]),
    "a design on its side": (lambda: jm.fit(models.logistic(), data={"x": X.T, "y": B}), ["2 rows", "60 rows"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake):
    assert_one_sentence(*MISTAKES[mistake])


def test_there_are_forty_of_them():
    assert len(MISTAKES) >= 40


def test_a_status_may_be_compared_with_its_name():
    result = jm.fit(normal, START, DATA, constraints=BOUND)
    assert result.status == "CONVERGED" and result.status != "SEPARATED"
    batch = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), result)
    assert (batch.status == "CONVERGED").tolist() == [True, True]
    assert hash(result.status) == hash(int(jm.Status.CONVERGED))


def test_powers_inside_functions_and_of_sums_are_read():
    columns = [
        jm.from_formula(f"y ~ {right}", TABLE).names
        for right in ("I(x**2)", "log(t**2 + 1)", "(x + t)**2")
    ]
    assert [len(names) for names in columns] == [2, 2, 4]
