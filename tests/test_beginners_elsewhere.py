"""Forty mistakes of those who come from statsmodels, R, PyTorch, SciPy, numpyro or pandas: each ends in one sentence."""

import inspect
import json
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats

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


def keyword(function, name, *args):
    return lambda: function(*args, **{name: 1})


FITTED = jm.fit(normal, START, DATA, constraints=BOUND)
KEYWORDS = {
    # SciPy
    "bounds": (keyword(jm.fit, "bounds", normal, START, DATA), "write constraints={'sigma': jaxmle.positive}"),
    "method": (keyword(jm.fit, "method", normal, START, DATA), "write solver=jaxmle.solvers.LBFGS()"),
    "tol": (keyword(jm.fit, "tol", normal, START, DATA), "no tolerance to choose"),
    "x0": (keyword(jm.fit, "x0", normal), "write params0="),
    "args": (keyword(jm.fit, "args", normal, START), "write data="),
    "jac": (keyword(jm.fit, "jac", normal, START, DATA), "derivatives are made by jax"),
    "callback": (keyword(jm.fit, "callback", normal, START, DATA), "write progress=True"),
    "options": (keyword(jm.fit, "options", normal, START, DATA), "a keyword of its own"),
    # statsmodels
    "maxiter": (keyword(jm.fit, "maxiter", normal, START, DATA), "write max_steps="),
    "cov_type": (keyword(jm.fit, "cov_type", normal, START, DATA), "write vcov='HC1'"),
    "start_params": (keyword(jm.fit, "start_params", normal), "write params0="),
    "disp": (keyword(jm.fit, "disp", normal, START, DATA), "progress=False for none"),
    "family": (keyword(jm.fit, "family", normal, START, DATA), "jaxmle.models.poisson()"),
    "alpha of a result": (keyword(FITTED.conf_int, "alpha"), "write level=0.95"),
    "formula": (keyword(jm.fit, "formula", normal, START, DATA), "jaxmle.from_formula('y ~ x', table).fit(model)"),
    "missing": (keyword(jm.from_formula, "nan_policy", "y ~ x", TABLE), "write missing='drop'"),
    # lifelines, R, Stata
    "weights_col": (keyword(jm.fit, "weights_col", normal, START, DATA), "jaxmle.frequency(w)"),
    "cluster_col": (keyword(jm.fit, "cluster_col", normal, START, DATA), "write clusters=labels"),
    "penalizer": (keyword(jm.fit, "penalizer", normal, START, DATA), "jaxmle.penalize("),
    "subset": (keyword(jm.from_formula, "subset", "y ~ x", TABLE), "select the rows first"),
    "vce": (keyword(jm.fit, "vce", normal, START, DATA), "write vcov='HC1'"),
    "R": (keyword(jm.bootstrap, "R", normal, FITTED, DATA), "write replicates="),
    "conf.level": (keyword(jm.profile, "conf_level", normal, FITTED, DATA), "write level=0.95"),
    # PyTorch, scikit-learn
    "lr": (keyword(jm.fit, "lr", normal, START, DATA), "jaxmle.fit_stochastic"),
    "seed": (keyword(jm.fit, "seed", normal, START, DATA), "nothing in it is random"),
    "random_state": (keyword(jm.bootstrap, "random_state", normal, FITTED, DATA), "write key=jax.random.key(0)"),
    "n_jobs": (keyword(jm.fit_batch, "n_jobs", normal, START, DATA), "all cores are used"),
    # ours, misspelt
    "constraint": (keyword(jm.fit, "constraint", normal, START, DATA), "did you mean constraints?"),
    "progres": (keyword(jm.fit, "progres", normal, START, DATA), "did you mean progress?"),
    "max_step": (keyword(jm.fit, "max_step", normal, START, DATA), "did you mean max_steps?"),
    "what nobody knows": (keyword(jm.lr_test, "frobnicate", FITTED, FITTED), "it takes restricted, full, on_bound"),
}  # fmt: skip


@pytest.mark.parametrize("word", KEYWORDS)
def test_a_keyword_of_other_software_got_python_s_bare_words(word):
    call, part = KEYWORDS[word]
    with pytest.raises(TypeError, match="has no keyword") as caught:
        call()
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_arrays_by_position_are_told_to_go_in_as_one_tree():
    with pytest.raises(
        TypeError, match=r"by position, with data=\{'x': x, 'y': y\}.*constraints=…"
    ):
        jm.fit(normal, START, X, Y)


WITHOUT_OPTIONS = {"fix", "frequency", "penalize", "pool", "sampling", "tie", "weight"}
WITHOUT_OPTIONS |= {"with_response", "compile_cache", "describe"}


def test_every_public_function_with_options_answers_a_keyword_of_others():
    functions = {name: getattr(jm, name) for name in jm.__all__}
    functions = {name: one for name, one in functions.items() if inspect.isfunction(one)}
    for name in sorted(functions.keys() - WITHOUT_OPTIONS):
        with pytest.raises(TypeError, match="has no keyword 'frobnicate'"):
            functions[name](frobnicate=1)
        assert pickle.loads(pickle.dumps(functions[name])) is functions[name]


def test_a_type_error_inside_a_function_keeps_its_own_words():
    with pytest.raises(TypeError, match="unexpected keyword argument 'scale'") as caught:
        jm.fit(lambda p, d: jnp.sum(d["y"], scale=p["sigma"]), START, DATA)
    assert "fit() has no" not in str(caught.value)


def filled(params, y):
    terms = np.zeros(N)
    for i in range(N):
        terms[i] = -((y[i] - params[0]) ** 2)
    return terms


def printed(params, y):
    print(f"{params[0]:.3f}")
    return -((y - params[0]) ** 2)


def three_of_two(params, y):
    a, b, c = params
    return -((y - a - b - c) ** 2)


def inside_a_longer_call(params, y):
    return -((y - float(params[0]) * np.zeros(1)[0]) ** 2)


TWO, LIST = np.zeros(2), [0.0, 1.0]
IN_THE_LIKELIHOOD = {
    "a list of start values": (lambda p, y: y * jnp.exp(p).sum(), LIST, ["params is a list", "numpy.array("]),
    "a list times two": (lambda p, y: -((y - p * 2) ** 2), LIST, ["params is a list"]),
    "minus a list": (lambda p, y: -p * y, LIST, ["params is a list"]),
    "a product with a list": (lambda p, x: -((x @ p) ** 2), LIST, ["params is a list"]),
    "a list in a dictionary": (lambda p, y: -((y - p["b"] * 2) ** 2), {"b": LIST}, ["params['b'] is a list"]),
    "a tuple of start values": (lambda p, y: -((y - (p + 1)) ** 2), (0.0, 1.0), ["params is a tuple"]),
    "filling an array of NumPy": (filled, TWO, ["cannot hold parameters", "jnp.stack"]),
    "a number printed in a format": (printed, TWO, ["jax.debug.print"]),
    "three names for two values": (three_of_two, TWO, ["3 values are unpacked", "2 of them"]),
    "round brackets for an entry": (lambda p, y: -((y - p(0)) ** 2), TWO, ["params[0]"]),
    "float() beside np.zeros": (inside_a_longer_call, TWO, ["leave float() out"]),
    "math.lgamma": (lambda p, y: y * math.lgamma(p[0]), TWO, ["jax.scipy.special.gammaln"]),
    "a law that jax does not have": (lambda p, y: scipy.stats.weibull_min.logpdf(y, p[0]), TWO, ["jaxmle.families"]),
    "a function that jax does not have": (lambda p, y: scipy.special.kv(1.0, p[0]) * y, TWO, ["the same computation in jax.numpy"]),
    "a draw of NumPy": (lambda p, y: y * np.random.default_rng(0).normal(p[0]), TWO, ["a draw made before the fit"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", IN_THE_LIKELIHOOD)
def test_what_was_said_in_words_of_python_or_jax_is_said_of_the_likelihood(mistake):
    loglik, start, parts = IN_THE_LIKELIHOOD[mistake]
    with pytest.raises((TypeError, ValueError), match=r"^line \d+ of ") as caught:
        jm.fit(loglik, start, X if mistake == "a product with a list" else Y)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message and "Tracer" not in message


def test_what_stands_beside_the_mistake_on_its_line_is_not_blamed():
    with pytest.raises(TypeError, match="params is a list") as caught:
        jm.fit(lambda p, x: -((x @ p) ** 2), LIST, np.column_stack([Y, Y]))
    assert "column_stack() works only" not in str(caught.value)


# ---------------------------------------------------------------- what is done with a result

RESULT = {
    "an entry by its name": (lambda: FITTED["beta"], "fit.params['mu']"),
    "if fit": (lambda: bool(FITTED), "fit.converged"),
    "alpha by position": (lambda: FITTED.conf_int(0.05), "for alpha = 0.05 write level=0.95"),
    "no key": (lambda: jm.bootstrap(normal, FITTED, DATA), "bootstrap() needs key: write key=jax.random.key(0)"),
    "two equations in one string": (lambda: jm.wald_test(FITTED, "sigma = 1, beta[0] = 0"), "several equations are a list"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", RESULT)
def test_a_result_read_as_elsewhere_is_answered_with_how_it_is_read_here(mistake):
    call, part = RESULT[mistake]
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert part in str(caught.value)


def test_an_estimate_is_a_number_that_round_and_json_take():
    """The symptom: round(fit.params["mu"], 3) was "type ndarray doesn't define __round__"."""
    sigma = FITTED.params["sigma"]
    assert round(sigma, 3) == round(float(sigma), 3)
    assert json.loads(json.dumps({"sigma": sigma, "se": FITTED.stderr["sigma"]}))["sigma"] == sigma
    twice = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), DATA)
    batch = jm.fit_batch(normal, START, twice, constraints=BOUND, progress=False)
    assert isinstance(batch[0].params["sigma"], float) and batch.params["sigma"].shape == (2,)


def own_mean(params, data):
    return -0.5 * (data["y"] - params) ** 2


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_groups_of_a_frame_needed_a_dictionary_for_a_function_of_the_user(kind):
    table = pd.DataFrame({"y": Y, "g": np.arange(N) % 3, "h": np.where(np.arange(N) % 2, "a", "b")})
    frame = table if kind == "pandas" else in_polars(table)
    frame = frame.to_arrow() if kind == "pyarrow" else frame
    by_two = jm.fit_groups(own_mean, 0.0, frame, by=["g", "h"], progress=False)
    means = table.groupby(["g", "h"])["y"].mean()
    np.testing.assert_allclose(by_two.fits.x[:, 0], means.to_numpy())
    one = jm.fit_groups(
        own_mean,
        0.0,
        frame[["y", "g"]] if kind != "pyarrow" else frame.select(["y", "g"]),
        by="g",
        progress=False,
    )
    np.testing.assert_allclose(one.fits.x[:, 0], table.groupby("g")["y"].mean().to_numpy())
    with pytest.raises(ValueError, match="no column 'gg'; did you mean 'g'"):
        jm.fit_groups(own_mean, 0.0, frame, by="gg")


def in_polars(table):
    return pytest.importorskip("polars").from_pandas(table)


def test_em_takes_the_keys_that_everything_else_takes():
    """The symptom: "JAX array with PRNGKey dtype cannot be converted to a NumPy array"."""
    model = jm.gaussian_mixture(2)
    by_key = [jm.em(model, None, Y, key=jax.random.key(3)).fit.loglik for _ in range(2)]
    assert by_key[0] == by_key[1]
    assert jm.em(model, None, Y, key=0).fit.loglik == jm.em(model, None, Y).fit.loglik
    with pytest.raises(TypeError, match="key must be an integer or a single jax key"):
        jm.em(model, None, Y, key="0")


def test_an_attribute_of_a_frame_in_the_likelihood_was_python_s_own_error():
    with pytest.raises(TypeError, match=r"write params\['mu'\], data\['y'\]"):
        jm.fit(lambda p, d: -((d.y - p) ** 2), 0.0, TABLE[["y"]])
