"""fix, tie, weight, penalize and pool, alone and nested, over opaque and declared likelihoods, against NumPy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.parameters import layout_of
from tests.likelihoods import logit, poisson

from .cases import (
    BETA,
    BETA_SIGMA,
    CASES,
    LOGIT,
    NORMAL,
    POISSON,
    N,
    X,
    declared_logit,
    declared_normal,
    declared_poisson,
    least_squares,
    logit_rows,
    newton,
    normal,
    normal_rows,
    poisson_rows,
)

CLOSE = {"rtol": 1e-12, "atol": 1e-12}
START = {"beta": np.zeros(3), "sigma": 1.0}
SIGMA = {"sigma": jm.positive}
Y = NORMAL["y"]
W = np.random.default_rng(8).uniform(0.1, 2.0, size=N)
W2 = np.random.default_rng(9).uniform(0.1, 2.0, size=2 * N)

FORMS = pytest.mark.parametrize("loglik", [normal, declared_normal], ids=["opaque", "declared"])


# ---------------------------------------------------------------- fix


@FORMS
def test_a_fixed_entry_is_an_offset_in_least_squares(loglik):
    """β₁ held at 0.5: regress y − 0.5 x₁ on the others."""
    fit = jm.fit(jm.fix(loglik, {"beta[1]": 0.5}), START, NORMAL, constraints=SIGMA)
    short = {"x": X[:, [0, 2]], "y": Y - 0.5 * X[:, 1]}
    best = least_squares(short)
    assert fit.converged and fit.df == 3 and fit.names == ("beta[0]", "beta[1]", "beta[2]", "sigma")
    assert_allclose(fit.x, [best["beta"][0], 0.5, best["beta"][1], best["sigma"]], rtol=1e-8)
    v = best["sigma"] ** 2 * np.linalg.inv(short["x"].T @ short["x"])
    assert_allclose(fit.se[[0, 2]], np.sqrt(np.diag(v)), rtol=1e-8)
    assert np.isnan(fit.se[1]) and np.isnan(fit.vcov[1]).all()
    assert_allclose(fit.loglik, normal_rows(best, short).terms.sum(), rtol=1e-12)
    assert_allclose(fit.aic, -2 * fit.loglik + 6, rtol=1e-14)


def test_a_fixed_leaf_takes_one_value_or_one_for_each_entry():
    held = jm.fix(normal, {"beta": np.array([0.3, 0.8, -0.6])})
    fit = jm.fit(held, START, NORMAL, constraints=SIGMA)
    assert fit.df == 1
    assert_allclose(
        fit.params["sigma"], np.sqrt(np.mean((Y - X @ [0.3, 0.8, -0.6]) ** 2)), rtol=1e-9
    )
    zero = jm.nll(jm.fix(normal, {"beta": 0.0}))(BETA_SIGMA, NORMAL)
    assert_allclose(
        zero, -normal_rows({"beta": np.zeros(3), "sigma": 1.2}, NORMAL).terms.sum(), rtol=1e-13
    )


def test_derivatives_of_a_fixed_entry_are_zero():
    held = jm.fix(normal, {"beta[1]": 0.5})
    at = normal_rows({"beta": np.array([0.1, 0.5, -0.4]), "sigma": 1.2}, NORMAL)
    keep = np.diag([1.0, 0.0, 1.0, 1.0])
    assert_allclose(jm.scores(held)(BETA_SIGMA, NORMAL), at.scores @ keep, **CLOSE)
    assert_allclose(
        jm.hessian(held)(BETA_SIGMA, NORMAL), -keep @ at.observed.sum(axis=0) @ keep, **CLOSE
    )


def test_fix_and_tie_name_what_they_do_not_know():
    with pytest.raises(
        ValueError, match=r"no parameter is called 'beta\[3\]'; the parameters are beta\[0\]"
    ):
        jm.fit(jm.fix(normal, {"beta[3]": 0.0}), START, NORMAL)
    with pytest.raises(TypeError, match="fix takes a dictionary"):
        jm.fix(normal, ("beta", 0.0))
    with pytest.raises(
        TypeError, match="each group of tie is a tuple of at least two parameter names; got 'beta'"
    ):
        jm.tie(normal, "beta")
    with pytest.raises(ValueError, match="tie: 'beta' has 3 entries and 'sigma' has 1"):
        jm.nll(jm.tie(normal, ("beta", "sigma")))(BETA_SIGMA, NORMAL)


# ---------------------------------------------------------------- tie


@FORMS
def test_tied_coefficients_are_the_coefficient_of_the_sum(loglik):
    """β₁ = β₂: regress y on the intercept and x₁ + x₂."""
    fit = jm.fit(jm.tie(loglik, ("beta[1]", "beta[2]")), START, NORMAL, constraints=SIGMA)
    summed = {"x": np.column_stack([X[:, 0], X[:, 1] + X[:, 2]]), "y": Y}
    best = least_squares(summed)
    se = np.sqrt(np.diag(best["sigma"] ** 2 * np.linalg.inv(summed["x"].T @ summed["x"])))
    assert fit.df == 3
    assert_allclose(
        fit.x, [best["beta"][0], best["beta"][1], best["beta"][1], best["sigma"]], rtol=1e-8
    )
    assert_allclose(fit.se[:3], [se[0], se[1], se[1]], rtol=1e-8)
    assert_allclose(fit.vcov[1, 2], se[1] ** 2, rtol=1e-8)
    difference = jm.delta(lambda params: params["beta"][1] - params["beta"][2], fit)
    assert_allclose([difference.estimate, difference.stderr], 0, atol=1e-9)


def test_tied_leaves_follow_entry_by_entry():
    """Two Poisson samples with one mean: the mean of all."""

    def both(params, data):
        return (
            data["a"] * params["u"][0]
            - jnp.exp(params["u"][0])
            + data["b"] * params["v"][0]
            - jnp.exp(params["v"][0])
        )

    a, b = POISSON["y"], POISSON["y"][::-1] + 1
    fit = jm.fit(jm.tie(both, ("u", "v")), {"u": np.zeros(1), "v": np.zeros(1)}, {"a": a, "b": b})
    assert_allclose(fit.x, [np.log((a.mean() + b.mean()) / 2)] * 2, rtol=1e-9)
    assert_allclose(fit.se, [1 / np.sqrt(a.sum() + b.sum())] * 2, rtol=1e-8)


# ---------------------------------------------------------------- penalize


def test_ridge_of_the_normal_linear_model_has_its_closed_form():
    """σ = 1 known: β̂ = (X'X + λI)⁻¹X'y, and the inverse penalised information is (X'X + λI)⁻¹."""
    for loglik in (normal, declared_normal):
        ridged = jm.penalize(jm.fix(loglik, {"sigma": 1.0}), jm.ridge(2.5, "beta"))
        fit = jm.fit(ridged, START, NORMAL)
        v = np.linalg.inv(X.T @ X + 2.5 * np.eye(3))
        assert fit.mode == "MAP" and np.isnan(fit.aic)
        assert_allclose(fit.x, [*(v @ X.T @ Y), 1.0], rtol=1e-9)
        assert_allclose(fit.vcov[:3, :3], v, rtol=1e-9)


def test_a_normal_prior_shrinks_to_its_own_mean():
    prior = jm.normal_prior(np.array([1.0, -1.0, 0.0]), np.array([0.5, 1.0, 2.0]), "beta")
    fit = jm.fit(jm.penalize(jm.fix(normal, {"sigma": 1.0}), prior), START, NORMAL)
    precision = np.diag([4.0, 1.0, 0.25])
    v = np.linalg.inv(X.T @ X + precision)
    assert_allclose(fit.x[:3], v @ (X.T @ Y + precision @ [1.0, -1.0, 0.0]), rtol=1e-9)


def test_any_function_of_the_parameters_is_a_prior():
    """A beta(3, 2) prior on a coin: the mode (successes + 2)/(n + 3)."""

    def coin(params, data):
        return jnp.where(data > 0, jnp.log(params["p"]), jnp.log1p(-params["p"]))

    def beta(params):
        return 2 * jnp.log(params["p"]) + jnp.log1p(-params["p"])

    fit = jm.fit(
        jm.penalize(coin, beta), {"p": 0.5}, LOGIT["y"], constraints={"p": jm.interval(0, 1)}
    )
    assert_allclose(fit.params["p"], (LOGIT["y"].sum() + 2) / (N + 3), rtol=1e-9)


def test_terms_of_a_penalised_likelihood_are_those_of_the_data():
    ridged = jm.penalize(normal, jm.ridge(2.5))
    by_hand = CASES["normal"].by_hand()
    flat = np.append(BETA["beta"], 1.2)
    assert_allclose(jm.scores(ridged)(BETA_SIGMA, NORMAL), by_hand.scores, **CLOSE)
    assert_allclose(
        jm.information(ridged, "opg")(BETA_SIGMA, NORMAL),
        by_hand.scores.T @ by_hand.scores,
        **CLOSE,
    )
    assert_allclose(
        jm.nll(ridged)(BETA_SIGMA, NORMAL), -by_hand.terms.sum() + 1.25 * flat @ flat, rtol=1e-13
    )
    assert_allclose(
        layout_of(BETA_SIGMA).ravel(jm.score(ridged)(BETA_SIGMA, NORMAL)),
        by_hand.scores.sum(axis=0) - 2.5 * flat,
        **CLOSE,
    )
    assert_allclose(
        jm.hessian(ridged)(BETA_SIGMA, NORMAL),
        -by_hand.observed.sum(axis=0) - 2.5 * np.eye(4),
        **CLOSE,
    )


# ---------------------------------------------------------------- pool

STACKED = {
    "x": np.concatenate([X, X[::-1] * 0.7]),
    "y": np.concatenate([LOGIT["y"], 1 - LOGIT["y"]]),
}
PARTS = (LOGIT, {"x": X[::-1] * 0.7, "y": 1 - LOGIT["y"]})


def test_a_pool_of_one_likelihood_is_the_stacked_data():
    fit = jm.fit(jm.pool(logit, declared_logit), {"beta": np.zeros(3)}, PARTS)
    best = newton(logit_rows, STACKED)
    assert fit.n == 2 * N
    assert_allclose(fit.x, best["beta"], rtol=1e-8, atol=1e-10)
    assert_allclose(
        fit.vcov, np.linalg.inv(logit_rows(best, STACKED).observed.sum(axis=0)), rtol=1e-8
    )


def test_a_pool_is_the_sum_of_its_members():
    """A logit and a Poisson regression that share their coefficients, of different lengths."""
    short = {name: leaf[:23] for name, leaf in POISSON.items()}
    one, two = logit_rows(BETA, LOGIT), poisson_rows(BETA, short)
    pooled = jm.pool(declared_logit, poisson)
    assert_allclose(
        jm.nll(pooled)(BETA, (LOGIT, short)), -one.terms.sum() - two.terms.sum(), rtol=1e-13
    )
    assert_allclose(
        jm.scores(pooled)(BETA, (LOGIT, short)), np.concatenate([one.scores, two.scores]), **CLOSE
    )
    assert_allclose(
        jm.information(pooled)(BETA, (LOGIT, short)),
        one.observed.sum(axis=0) + two.observed.sum(axis=0),
        **CLOSE,
    )
    every = jm.information(jm.pool(declared_logit, declared_poisson), "expected")(
        BETA, (LOGIT, short)
    )
    assert_allclose(every, one.expected.sum(axis=0) + two.expected.sum(axis=0), **CLOSE)


def test_a_parameter_fixed_in_one_member_is_estimated_from_the_other():
    """Two normal samples share β; in the second σ is known to be 2."""
    second = {"x": X, "y": Y[::-1].copy()}
    pooled = jm.pool(normal, jm.fix(normal, {"sigma": 2.0}))
    fit = jm.fit(pooled, START, (NORMAL, second), constraints=SIGMA)
    beta, sigma = fit.params["beta"], fit.params["sigma"]
    r, q = Y - X @ beta, second["y"] - X @ beta
    assert fit.df == 4
    assert_allclose(sigma**2, np.mean(r**2), rtol=1e-8)
    assert_allclose(X.T @ r / sigma**2 + X.T @ q / 4, 0, atol=1e-7)


def test_a_pool_takes_one_data_set_for_each_member():
    with pytest.raises(
        ValueError, match="a pool of 2 likelihoods needs a tuple of 2 data sets; got dict"
    ):
        jm.nll(jm.pool(logit, poisson))(BETA, LOGIT)
    with pytest.raises(ValueError, match="at least one likelihood"):
        jm.pool()


# ---------------------------------------------------------------- nested


def nested(loglik, name):
    """One combination by name."""
    return {
        "fix over weight": jm.fix(jm.weight(loglik, jm.sampling(W)), {"beta[1]": 0.5}),
        "weight over fix": jm.weight(jm.fix(loglik, {"beta[1]": 0.5}), jm.sampling(W)),
        "penalize over weight": jm.penalize(jm.weight(loglik, jm.sampling(W)), jm.ridge(0.7)),
        "weight over pool": jm.weight(jm.pool(loglik, loglik), jm.sampling(W2)),
        "pool of weights": jm.pool(
            jm.weight(loglik, jm.sampling(W2[:N])), jm.weight(loglik, jm.sampling(W2[N:]))
        ),
        "tie over weight": jm.tie(jm.weight(loglik, jm.sampling(W)), ("beta[1]", "beta[2]")),
        "fix over tie": jm.fix(jm.tie(loglik, ("beta[1]", "beta[2]")), {"beta[1]": 0.5}),
        "penalize over fix over pool": jm.penalize(
            jm.fix(jm.pool(loglik, loglik), {"beta[1]": 0.5}), jm.ridge(0.7)
        ),
        "weight over weight": jm.weight(jm.weight(loglik, jm.sampling(W)), jm.sampling(W)),
    }[name]


FIXED = np.diag([1.0, 0.0, 1.0, 1.0])
TIED = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
BOTH = np.diag([1.0, 0, 0, 1.0])
POOLED = {name: np.concatenate([leaf, leaf[::-1]]) for name, leaf in NORMAL.items()}
# name: beta at which the rows stand, embedding, weights, ridge strength, whether the data are pooled
NESTED = {
    "fix over weight": ([0.1, 0.5, -0.4], FIXED, W, 0.0, False),
    "weight over fix": ([0.1, 0.5, -0.4], FIXED, W, 0.0, False),
    "penalize over weight": ([0.1, 0.7, -0.4], np.eye(4), W, 0.7, False),
    "weight over pool": ([0.1, 0.7, -0.4], np.eye(4), W2, 0.0, True),
    "pool of weights": ([0.1, 0.7, -0.4], np.eye(4), W2, 0.0, True),
    "tie over weight": ([0.1, 0.7, 0.7], TIED, W, 0.0, False),
    "fix over tie": ([0.1, 0.5, 0.5], BOTH, np.ones(N), 0.0, False),
    "penalize over fix over pool": ([0.1, 0.5, -0.4], FIXED, np.ones(2 * N), 0.7, True),
    "weight over weight": ([0.1, 0.7, -0.4], np.eye(4), W * W, 0.0, False),
}
AT = {"beta": np.array([0.1, 0.7, -0.4]), "sigma": np.array(1.2)}


def nested_by_hand(name):
    beta, e, w, strength, pooled = NESTED[name]
    rows = normal_rows({"beta": np.array(beta), "sigma": 1.2}, POOLED if pooled else NORMAL)
    flat = np.append(AT["beta"], 1.2)
    return {
        "value": w @ rows.terms - strength / 2 * flat @ flat,
        "score": w @ rows.scores @ e - strength * flat,
        "hessian": -e.T @ np.tensordot(w, rows.observed, 1) @ e - strength * np.eye(4),
        "scores": w[:, None] * rows.scores @ e,
        "expected": e.T @ np.tensordot(w, rows.expected, 1) @ e + strength * np.eye(4),
    }


def nested_data(name):
    reverse = {key: leaf[::-1].copy() for key, leaf in NORMAL.items()}
    return (NORMAL, reverse) if NESTED[name][4] else NORMAL


@pytest.fixture(scope="module")
def everything():
    """Every quantity of every nested likelihood in both forms, from one compiled program for each form."""

    def quantities(loglik, name, form):
        at, data = AT, nested_data(name)
        value, _, slope, hessian = jm.evaluate(loglik, at, data)
        out = {
            "value": value,
            "score": slope,
            "hessian": hessian,
            "scores": jm.scores(loglik)(at, data),
        }
        return (
            {**out, "expected": jm.information(loglik, "expected")(at, data)}
            if form == "declared"
            else out
        )

    forms = {"opaque": normal, "declared": declared_normal}
    with jax.enable_x64(True):
        return jax.jit(
            lambda: {
                (name, form): quantities(nested(ll, name), name, form)
                for name in NESTED
                for form, ll in forms.items()
            }
        )()


@pytest.mark.parametrize("form", ["opaque", "declared"])
@pytest.mark.parametrize("name", NESTED)
def test_nested_likelihoods_are_what_they_say(everything, name, form):
    found, by_hand = everything[name, form], nested_by_hand(name)
    for quantity in by_hand:
        if quantity in found:
            assert_allclose(found[quantity], by_hand[quantity], **CLOSE, err_msg=quantity)


@pytest.mark.parametrize("name", NESTED)
def test_nested_likelihoods_can_be_called(name):
    """``nll`` and its gradient, which only call the likelihood, say the same as the accumulating pass."""
    by_hand = nested_by_hand(name)
    with jax.enable_x64(True):
        value, slope = jax.jit(jax.value_and_grad(jm.nll(nested(declared_normal, name))))(
            AT, nested_data(name)
        )
    assert_allclose(-value, by_hand["value"], rtol=1e-13)
    assert_allclose(-layout_of(AT).ravel(slope), by_hand["score"], **CLOSE)


@pytest.mark.parametrize("name", NESTED)
def test_over_a_regression_every_combinator_equals_the_general_road(everything, name):
    opaque, declared = everything[name, "opaque"], everything[name, "declared"]
    for quantity in opaque:
        scale = np.abs(opaque[quantity]).max()
        assert_allclose(
            declared[quantity], opaque[quantity], rtol=0, atol=1e-13 * scale, err_msg=quantity
        )


def test_only_terms_are_weighted_under_a_prior():
    """σ = 1 known: β̂ = (X'WX + λI)⁻¹X'Wy, with frequency weights as with any others; n counts the weights."""
    counts = np.arange(N) % 3
    loglik = jm.penalize(
        jm.weight(jm.fix(declared_normal, {"sigma": 1.0}), jm.frequency(counts)),
        jm.ridge(2.5, "beta"),
    )
    fit = jm.fit(loglik, START, NORMAL)
    v = np.linalg.inv(X.T @ (counts[:, None] * X) + 2.5 * np.eye(3))
    assert fit.n == counts.sum() and fit.mode == "MAP"
    assert_allclose(fit.x[:3], v @ X.T @ (counts * Y), rtol=1e-9)
    assert_allclose(fit.vcov[:3, :3], v, rtol=1e-9)


def test_weights_given_to_fit_go_around_the_likelihood():
    """fit(penalize(…), weights=w) weights the terms and leaves the prior."""
    counts = np.arange(N) % 3
    fit = jm.fit(
        jm.penalize(jm.fix(normal, {"sigma": 1.0}), jm.ridge(2.5, "beta")),
        START,
        NORMAL,
        weights=jm.frequency(counts),
    )
    assert_allclose(
        fit.x[:3],
        np.linalg.solve(X.T @ (counts[:, None] * X) + 2.5 * np.eye(3), X.T @ (counts * Y)),
        rtol=1e-9,
    )


def test_a_penalised_likelihood_under_weights_can_be_called():
    """The value that optax and the traced road see is Σ w ℓ_i + log prior, as in the accumulating pass."""
    heavy = jm.weight(jm.penalize(normal, jm.ridge(0.7)), jm.sampling(W))
    rows, flat = CASES["normal"].by_hand(), np.append(BETA["beta"], 1.2)
    assert_allclose(
        jm.nll(heavy)(BETA_SIGMA, NORMAL), -W @ rows.terms + 0.35 * flat @ flat, rtol=1e-13
    )


@pytest.mark.thorough
def test_a_traced_fit_of_a_pool_is_the_host_fit():
    with jax.enable_x64(True):
        x, se = jax.jit(
            lambda data: (lambda fit: (fit.x, fit.se))(
                jm.fit(jm.pool(logit, declared_logit), {"beta": jnp.zeros(3)}, data)
            )
        )(PARTS)
    best = newton(logit_rows, STACKED)
    assert_allclose(x, best["beta"], rtol=1e-8, atol=1e-10)
    assert_allclose(
        se,
        np.sqrt(np.diag(np.linalg.inv(logit_rows(best, STACKED).observed.sum(axis=0)))),
        rtol=1e-8,
    )


def test_vcov_of_tied_entries_is_that_of_the_entry_they_follow():
    """A tied entry is the same number as the first, so that it has its variance, not zero."""
    v = jm.vcov(jm.tie(normal, ("beta[1]", "beta[2]")))(
        {"beta": np.array([0.1, 0.7, 0.7]), "sigma": 1.2}, NORMAL
    )
    rows = normal_rows({"beta": np.array([0.1, 0.7, 0.7]), "sigma": 1.2}, NORMAL)
    e = TIED[:, [0, 1, 3]]
    assert_allclose(v, e @ np.linalg.inv(e.T @ rows.observed.sum(axis=0) @ e) @ e.T, rtol=1e-10)


def test_vcov_of_a_fixed_entry_is_nan():
    """As in a fit: a variance of zero would look like an estimate without error."""
    v = jm.vcov(jm.fix(normal, {"beta[1]": 0.5}))(BETA_SIGMA, NORMAL)
    assert np.isnan(v[1]).all() and np.isnan(v[:, 1]).all()
    assert np.all(np.diag(v)[[0, 2, 3]] > 0)


def test_frequency_weights_of_frequency_weights_multiply_in_n():
    twice = jm.weight(jm.fix(normal, {"sigma": 1.0}), jm.frequency(np.full(N, 2)))
    assert jm.fit(twice, START, NORMAL, weights=jm.frequency(np.full(N, 3))).n == 6 * N


def test_a_tie_over_a_fixed_entry_is_refused_and_a_fix_over_a_tie_holds_both():
    """β₁ is held at 0.5 and β₂ equals β₁: which of the two rules comes first must be said."""
    with pytest.raises(ValueError, match=r"fix outside the tie"):
        jm.fit(
            jm.tie(jm.fix(normal, {"beta[1]": 0.5}), ("beta[1]", "beta[2]")),
            START,
            NORMAL,
            constraints=SIGMA,
        )
    fit = jm.fit(
        jm.fix(jm.tie(normal, ("beta[1]", "beta[2]")), {"beta[1]": 0.5}),
        START,
        NORMAL,
        constraints=SIGMA,
    )
    assert_allclose(fit.params["beta"][1:], [0.5, 0.5])
    assert np.isnan(fit.stderr["beta"][1:]).all()
