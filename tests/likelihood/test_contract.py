"""What a log-likelihood may return, and what is said when it returns something else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from tests.likelihoods import logit
from tests.tolerances import ROUNDING_OF_A_SUM

from .cases import BETA, BETA_SIGMA, LOGIT, NORMAL, N, X, declared_normal, normal

COLUMN = {"x": X, "y": NORMAL["y"][:, None]}


def squares(params, data):
    return -((data["y"] - data["x"] @ params["beta"]) ** 2)


@pytest.mark.parametrize("ask", [jm.nll, jm.score, jm.scores, jm.hessian, jm.information, jm.vcov])
def test_a_column_against_a_vector_is_told_with_its_cause(ask):
    """(n, 1) − (n,) is (n, n) without a word from jax, where rank promotion is allowed as it is by default."""
    with (
        jax.numpy_rank_promotion("allow"),
        pytest.raises(
            ValueError,
            match=r"one term per observation, shape \(60,\).*got \(60, 60\). A column y of shape \(n, 1\) against a mean of shape \(n,\)",
        ),
    ):
        ask(squares)(BETA, COLUMN)


def test_a_column_against_a_vector_stops_a_fit_and_a_trace():
    with jax.numpy_rank_promotion("allow"):
        with pytest.raises(ValueError, match="broadcasts to"):
            jm.fit(squares, {"beta": np.zeros(3)}, COLUMN)
        with pytest.raises(ValueError, match="broadcasts to"):
            jax.jit(jm.nll(squares))(BETA, COLUMN)


def test_in_the_declared_form_a_column_is_one_number_for_each_row():
    assert_allclose(
        jm.nll(declared_normal)(BETA_SIGMA, COLUMN), jm.nll(normal)(BETA_SIGMA, NORMAL), rtol=1e-14
    )


RETURNS = {
    "too few terms": (
        lambda params, data: logit(params, data)[1:],
        ValueError,
        r"shape \(60,\), or one scalar for dependent data; got \(59,\)",
    ),
    "integers": (
        lambda params, data: jnp.zeros(N, int),
        TypeError,
        "floating-point terms; got dtype int",
    ),
    "a tuple": (
        lambda params, data: (logit(params, data), 0.0),
        TypeError,
        "array of log-likelihood terms; got tuple",
    ),
    "nothing": (
        lambda params, data: None,
        TypeError,
        "array of log-likelihood terms; got NoneType",
    ),
}


@pytest.mark.parametrize("case", RETURNS)
def test_what_a_likelihood_may_not_return(case):
    loglik, error, told = RETURNS[case]
    with pytest.raises(error, match=told):
        jm.nll(loglik)(BETA, LOGIT)


DATA = {
    "lengths": (
        {"x": X, "y": LOGIT["y"][1:]},
        ValueError,
        "all leaves of data must share the leading observation axis",
    ),
    "scalar": (
        {**LOGIT, "k": np.array(2.0)},
        ValueError,
        r"data\['k'\] is a scalar; every leaf of data needs the leading observation axis",
    ),
    "no rows": ({name: leaf[:0] for name, leaf in LOGIT.items()}, ValueError, "has no rows"),
    "missing values": (
        {**LOGIT, "y": np.where(np.arange(N) == 5, np.nan, LOGIT["y"])},
        ValueError,
        r"data\['y'\] is NaN in row 5",
    ),
    "strings": ({**LOGIT, "g": np.array(["a"] * N)}, TypeError, r"data\['g'\] holds strings"),
    "a list": (
        {**LOGIT, "y": list(LOGIT["y"])},
        TypeError,
        "A Python list is read as a tree of scalars",
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_what_data_may_not_hold(case):
    data, error, told = DATA[case]
    with pytest.raises(error, match=told):
        jm.nll(logit)(BETA, data)


PARAMS = {
    "truth values": (
        {"beta": np.zeros(3, bool)},
        TypeError,
        r"params\['beta'\] has dtype bool; parameters must be floating-point numbers or integers",
    ),
    "complex": (
        {"beta": np.zeros(3, complex)},
        TypeError,
        "parameters must be floating-point numbers",
    ),
    "infinite": (
        {"beta": np.array([0.0, np.inf, 0.0])},
        ValueError,
        r"params\['beta'\] is not finite: inf at index \[1\]",
    ),
}


@pytest.mark.parametrize("case", PARAMS)
def test_what_parameters_may_not_be(case):
    params, error, told = PARAMS[case]
    with pytest.raises(error, match=told):
        jm.nll(logit)(params, LOGIT)


def test_a_likelihood_is_a_function():
    with pytest.raises(
        TypeError,
        match=r"loglik must be a function of \(params, data\), or a model such as .*; got float",
    ):
        jm.nll(3.0)


# ---------------------------------------------------------------- dependent data: one scalar


def autoregression(params, data):
    """A stationary AR(1) as one number."""
    y, phi = data["y"], params["phi"]
    first = 0.5 * jnp.log1p(-(phi**2)) - 0.5 * (1 - phi**2) * y[0] ** 2
    return (
        first - 0.5 * jnp.sum((y[1:] - phi * y[:-1]) ** 2) - 0.5 * y.shape[0] * jnp.log(2 * jnp.pi)
    )


SERIES = {"y": np.random.default_rng(12).normal(size=N).cumsum() * 0.3}


def test_a_scalar_likelihood_has_value_score_and_hessian():
    """The maximum solves a cubic, checked as a root; the information by hand."""
    y = SERIES["y"]
    fit = jm.fit(autoregression, {"phi": 0.1}, SERIES, constraints={"phi": jm.interval(-1, 1)})
    phi, inner = fit.x[0], np.sum(y[1:-1] ** 2)
    slope = -phi / (1 - phi**2) + np.sum(y[1:] * y[:-1]) - phi * inner
    curvature = (1 + phi**2) / (1 - phi**2) ** 2 + inner
    assert fit.converged
    assert_allclose(slope, 0, atol=1e-7)
    assert_allclose(fit.se[0], curvature**-0.5, rtol=1e-8)
    assert_allclose(
        jm.information(autoregression)(fit.params, SERIES), [[curvature]], rtol=ROUNDING_OF_A_SUM
    )


NEEDS_TERMS = {
    "scores": lambda: jm.scores(autoregression)({"phi": 0.1}, SERIES),
    "opg": lambda: jm.information(autoregression, "opg")({"phi": 0.1}, SERIES),
    "weighted value": lambda: jm.nll(jm.weight(autoregression, jm.frequency(np.ones(N))))(
        {"phi": 0.1}, SERIES
    ),
    "weighted Hessian": lambda: jm.hessian(jm.weight(autoregression, jm.frequency(np.ones(N))))(
        {"phi": 0.1}, SERIES
    ),
    "fit HC0": lambda: jm.fit(autoregression, {"phi": 0.1}, SERIES, vcov="HC0"),
    "fit clusters": lambda: jm.fit(autoregression, {"phi": 0.1}, SERIES, clusters=np.arange(N)),
    "fit weights": lambda: jm.fit(
        autoregression, {"phi": 0.1}, SERIES, weights=jm.sampling(np.ones(N))
    ),
    "enumeration": lambda: jm.information(
        jm.with_response(autoregression, jm.enumeration("y", [0.0, 1.0])), "expected"
    )({"phi": 0.1}, SERIES),
}


@pytest.mark.parametrize("case", NEEDS_TERMS)
def test_what_needs_terms_says_so_of_a_scalar(case):
    with pytest.raises(
        ValueError,
        match="needs one log-likelihood term per independent observation, but loglik returns one scalar",
    ):
        NEEDS_TERMS[case]()
