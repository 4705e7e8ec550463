"""The declared form equals the same likelihood written as an opaque function, whatever its predictors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from jax.scipy.stats import norm
from numpy.testing import assert_allclose
from scipy.special import softmax

import jaxmle as jm
from jaxmle.parameters import layout_of
from tests.likelihoods import logit

from .cases import LOGIT, NORMAL, OFFSET, POISSON, N, X

CHOICE = np.random.default_rng(3).integers(0, 3, size=N)
DOSE = np.random.default_rng(4).uniform(0.5, 6.0, size=N)
CURVE = 3 * DOSE / (1.5 + DOSE) + np.random.default_rng(6).normal(scale=0.3, size=N)


def gaussian(eta, row):
    return norm.logpdf(row["y"], eta["mu"], eta["s"])


def multinomial(eta, row):
    logits = jnp.concatenate([jnp.zeros(1), eta["v"]])
    return logits[row["y"]] - jax.nn.logsumexp(logits)


def multinomial_opaque(params, data):
    logits = jnp.concatenate([jnp.zeros((data["y"].shape[0], 1)), data["x"] @ params["b"]], axis=1)
    return jnp.take_along_axis(logits, data["y"][:, None], axis=1)[:, 0] - jax.nn.logsumexp(
        logits, axis=1
    )


def michaelis(params, row):
    return params["top"] * row["dose"] / (params["half"] + row["dose"])


def poisson_with_offset(params, data):
    eta = data["x"] @ params["beta"] + data["log_time"]
    return data["y"] * eta - jnp.exp(eta) - gammaln(data["y"] + 1)


def hurdle(eta, row):
    """A density of three kinds of predictors at once: linear, a constant, and a curve."""
    return norm.logpdf(row["y"], eta["mu"] + eta["level"] * eta["curve"], jnp.exp(eta["log_s"]))


def hurdle_opaque(params, data):
    mean = data["x"] @ params["beta"] + params["level"] * jnp.tanh(params["rate"] * data["dose"])
    return norm.logpdf(data["y"], mean, jnp.exp(data["x"] @ params["gamma"]))


# name: declared, opaque, params, data
PAIRS = {
    "multinomial, a matrix of coefficients": (
        jm.regression(
            multinomial, {"v": jm.linear("x", "b")}, response=jm.enumeration("y", [0, 1, 2])
        ),
        multinomial_opaque,
        {"b": np.array([[0.2, -0.1], [0.5, 0.3], [-0.4, 0.8]])},
        {"x": X, "y": CHOICE},
    ),
    "offset": (
        jm.regression(
            lambda eta, row: (
                row["y"] * eta["log_mu"] - jnp.exp(eta["log_mu"]) - gammaln(row["y"] + 1)
            ),
            {"log_mu": jm.linear("x", "beta", offset="log_time")},
            response=jm.enumeration("y", range(60)),
        ),
        poisson_with_offset,
        {"beta": np.array([0.1, 0.5, -0.4])},
        {**POISSON, "log_time": OFFSET},
    ),
    "a nonlinear mean": (
        jm.regression(
            gaussian,
            {"mu": michaelis, "s": "sigma"},
            response=jm.exact(
                lambda eta, row: jnp.diag(jnp.stack([1 / eta["s"] ** 2, 2 / eta["s"] ** 2]))
            ),
        ),
        lambda params, data: norm.logpdf(
            data["y"],
            params["top"] * data["dose"] / (params["half"] + data["dose"]),
            params["sigma"],
        ),
        {"half": np.array(1.2), "sigma": np.array(0.5), "top": np.array(2.5)},
        {"dose": DOSE, "y": CURVE},
    ),
    "all kinds at once": (
        jm.regression(
            hurdle,
            {
                "mu": jm.linear("x", "beta"),
                "level": "level",
                "curve": lambda params, row: jnp.tanh(params["rate"] * row["dose"]),
                "log_s": jm.linear("x", "gamma"),
            },
        ),
        hurdle_opaque,
        {
            "beta": np.array([0.1, 0.5, -0.4]),
            "gamma": np.array([0.2, -0.1, 0.3]),
            "level": np.array(0.7),
            "rate": np.array(0.4),
        },
        {**NORMAL, "dose": DOSE},
    ),
    "a column without an axis": (
        jm.regression(
            lambda eta, row: -0.5 * (row["y"] - eta["mu"]) ** 2,
            {"mu": jm.linear("x", "slope")},
            response=jm.exact(lambda eta, row: 1.0),
        ),
        lambda params, data: -0.5 * (data["y"] - data["x"] * params["slope"]) ** 2,
        {"slope": np.array(0.5)},
        {"x": X[:, 1], "y": NORMAL["y"]},
    ),
}


@pytest.fixture(scope="module")
def both():
    """Value, score, Hessian and scores of each pair, by the declared and by the general road, in one program."""

    def quantities(loglik, params, data):
        value, absolute, slope, hessian = jm.evaluate(loglik, params, data)
        return {
            "value": value,
            "absolute": absolute,
            "score": slope,
            "hessian": hessian,
            "scores": jm.scores(loglik)(params, data),
            "terms": loglik(params, data),
        }

    with jax.enable_x64(True):
        return jax.jit(
            lambda pairs: {
                name: tuple(quantities(PAIRS[name][k], *pairs[name]) for k in (0, 1))
                for name in PAIRS
            }
        )({name: PAIRS[name][2:] for name in PAIRS})


@pytest.mark.parametrize("name", PAIRS)
def test_declared_equals_opaque(both, name):
    declared, opaque = both[name]
    for quantity in opaque:
        assert_allclose(
            declared[quantity],
            opaque[quantity],
            rtol=0,
            atol=2e-13 * np.abs(opaque[quantity]).max(),
            err_msg=quantity,
        )


@pytest.mark.parametrize("name", PAIRS)
def test_both_equal_finite_differences(both, name):
    """Central differences of the terms and of the score, in NumPy float64, from jitted values at shifted points."""
    _, loglik, params, data = PAIRS[name]
    layout, step = layout_of(params), 1e-5
    x = layout.ravel(params)
    with jax.enable_x64(True):
        shifted = jnp.asarray(
            np.stack([x + sign * step * d for d in np.eye(layout.p) for sign in (1, -1)])
        )
        terms = np.asarray(jax.jit(jax.vmap(lambda x: loglik(layout.unravel(x), data)))(shifted))
    slopes = (terms[0::2] - terms[1::2]).T / (2 * step)
    assert_allclose(both[name][0]["scores"], slopes, rtol=1e-6, atol=1e-7 * np.abs(slopes).max())


@pytest.mark.parametrize("name", ["multinomial, a matrix of coefficients", "offset"])
def test_expected_information_equals_enumeration_of_the_opaque_form(name):
    declared, opaque, params, data = PAIRS[name]
    whole = jm.with_response(opaque, declared.response)
    assert_allclose(
        jm.information(declared, "expected")(params, data),
        jm.information(whole, "expected")(params, data),
        rtol=1e-12,
        atol=1e-12,
    )


def test_multinomial_information_is_the_kronecker_sum():
    """Σ (diag p − pp') ⊗ xx' over the non-reference categories; b[i,k] runs over k first."""
    declared, _, params, data = PAIRS["multinomial, a matrix of coefficients"]
    p = softmax(np.column_stack([np.zeros(N), X @ params["b"]]), axis=1)[:, 1:]
    truth = sum(
        np.kron(np.outer(X[i], X[i]), np.diag(p[i]) - np.outer(p[i], p[i])) for i in range(N)
    )
    assert_allclose(jm.information(declared)(params, data), truth, rtol=1e-12, atol=1e-12)
    assert_allclose(
        jm.information(declared, "expected")(params, data), truth, rtol=1e-12, atol=1e-12
    )


def test_expected_information_of_a_nonlinear_mean_is_gauss_newton():
    """J'J/σ², without the second derivatives of the mean, which the observed information has."""
    declared, _, params, data = PAIRS["a nonlinear mean"]
    half, sigma, top = (float(params[name]) for name in ("half", "sigma", "top"))
    jacobian = np.column_stack([-top * DOSE / (half + DOSE) ** 2, DOSE / (half + DOSE)])
    expected = jm.information(declared, "expected")(params, data)
    assert_allclose(expected[np.ix_([0, 2], [0, 2])], jacobian.T @ jacobian / sigma**2, rtol=1e-12)
    assert_allclose(expected[1], [0, 2 * N / sigma**2, 0], rtol=1e-12, atol=1e-12)
    r = CURVE - top * DOSE / (half + DOSE)
    bend = np.sum(r * 2 * top * DOSE / (half + DOSE) ** 3) / sigma**2
    assert_allclose(jm.information(declared)(params, data)[0, 0], expected[0, 0] - bend, rtol=1e-11)


def test_an_offset_is_a_regressor_whose_coefficient_is_one():
    declared, _, params, data = PAIRS["offset"]
    longer = {"x": np.column_stack([X, OFFSET]), "y": data["y"]}
    plain = jm.regression(declared.density, {"log_mu": jm.linear("x", "beta")})
    one = {"beta": np.append(params["beta"], 1.0)}
    assert_allclose(jm.nll(declared)(params, data), jm.nll(plain)(one, longer), rtol=1e-14)
    assert_allclose(
        jm.hessian(declared)(params, data), jm.hessian(plain)(one, longer)[:3, :3], rtol=1e-12
    )


def test_a_fit_is_the_same_in_both_forms():
    declared, opaque, _, data = PAIRS["multinomial, a matrix of coefficients"]
    start = {"b": np.zeros((3, 2))}
    one, two = jm.fit(declared, start, data), jm.fit(opaque, start, data)
    p = softmax(np.column_stack([np.zeros(N), X @ one.params["b"]]), axis=1)
    assert one.converged and one.names[:3] == ("b[0,0]", "b[0,1]", "b[1,0]")
    assert_allclose(
        X.T @ (np.eye(3)[CHOICE] - p), 0, atol=1e-9
    )  # fitted and observed totals agree, category by category
    assert_allclose([two.x, two.se], [one.x, one.se], rtol=1e-9)


MISTAKES = {
    "no predictor": (lambda: jm.regression(gaussian, {}), ValueError, "at least one predictor"),
    "no form": (
        lambda: jm.regression(gaussian, {"mu": 3.0}),
        TypeError,
        "predictor 'mu' must be linear",
    ),
    "unknown data": (
        lambda: jm.nll(jm.regression(gaussian, {"mu": jm.linear("z", "beta"), "s": "s"}))(
            {"beta": np.zeros(3), "s": 1.0}, LOGIT
        ),
        ValueError,
        r"data has no leaf 'z'; it has \['x', 'y'\]",
    ),
    "unknown parameter": (
        lambda: jm.nll(jm.regression(gaussian, {"mu": jm.linear("x", "bta"), "s": "s"}))(
            {"beta": np.zeros(3), "s": 1.0}, LOGIT
        ),
        ValueError,
        r"params has no leaf 'bta'; it has \['beta', 's'\]",
    ),
    "columns": (
        lambda: jm.hessian(jm.regression(gaussian, {"mu": jm.linear("x", "beta"), "s": "s"}))(
            {"beta": np.zeros(2), "s": 1.0}, LOGIT
        ),
        ValueError,
        r"data\['x'\] has 3 columns but params\['beta'\] has shape \(2,\)",
    ),
    "not a scalar": (
        lambda: jm.nll(
            jm.regression(lambda eta, row: row["x"] * eta["mu"], {"mu": jm.linear("x", "beta")})
        )({"beta": np.zeros(3)}, LOGIT),
        ValueError,
        r"must return a scalar; got shape \(3,\)",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_wrong_declaration_is_told(case):
    ask, error, told = MISTAKES[case]
    with pytest.raises(error, match=told):
        ask()


def test_a_declared_likelihood_is_called_like_any_other():
    declared = jm.regression(
        lambda eta, row: row["y"] * eta["eta"] - jnp.logaddexp(0.0, eta["eta"]),
        {"eta": jm.linear("x", "beta")},
    )
    params = {"beta": np.array([0.1, 0.5, -0.4])}
    with jax.enable_x64(True):
        assert_allclose(jax.jit(declared)(params, LOGIT), logit(params, LOGIT), rtol=1e-14)
