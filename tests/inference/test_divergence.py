"""Information between families: scipy's entropies and exact divergences; H(p, q) = H(p) + KL; the misspecified MLE goes to the nearest member."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import polygamma

import jaxmle as jm
from jaxmle.families import (
    bernoulli,
    beta,
    cauchy,
    exponential,
    gamma,
    laplace,
    lognormal,
    mixture,
    multivariate_normal,
    multivariate_t,
    normal,
    poisson,
    student_t,
    weibull,
)
from jaxmle.inference.selection import divergence
from jaxmle.inference.selection.divergence import Information, cross_entropy, entropy, kl_divergence

STANDARD = (normal, {"loc": 0.0, "scale": 1.0})
WIDE = (normal, {"loc": 1.0, "scale": 2.0})
PLANE = (
    multivariate_normal,
    {"loc": np.zeros(2), "covariance": np.array([[2.0, 0.5], [0.5, 1.0]])},
)
ROUND = (multivariate_normal, {"loc": np.array([1.0, 0.0]), "covariance": np.eye(2)})
PAIRS = {
    normal: (STANDARD, WIDE),
    lognormal: (
        (lognormal, {"meanlog": 0.3, "sdlog": 0.7}),
        (lognormal, {"meanlog": 0.1, "sdlog": 0.9}),
    ),
    laplace: ((laplace, {"loc": 1.0, "scale": 0.6}), (laplace, {"loc": 0.0, "scale": 1.0})),
    cauchy: ((cauchy, {"loc": -1.0, "scale": 0.5}), (cauchy, {"loc": 0.0, "scale": 1.0})),
    exponential: ((exponential, {"rate": 1.7}), (exponential, {"rate": 0.7})),
    gamma: ((gamma, {"shape": 2.5, "rate": 0.7}), (gamma, {"shape": 1.5, "rate": 1.0})),
    poisson: ((poisson, {"rate": 3.0}), (poisson, {"rate": 5.5})),
}
ENTROPIES = {
    "normal": (WIDE, stats.norm(1, 2)),
    "lognormal": (PAIRS[lognormal][0], stats.lognorm(0.7, scale=np.exp(0.3))),
    "laplace": (PAIRS[laplace][0], stats.laplace(1, 0.6)),
    "cauchy": (PAIRS[cauchy][0], stats.cauchy(-1, 0.5)),
    "exponential": (PAIRS[exponential][0], stats.expon(scale=1 / 1.7)),
    "gamma": (PAIRS[gamma][0], stats.gamma(2.5, scale=1 / 0.7)),
    "weibull": ((weibull, {"shape": 1.7, "scale": 2.0}), stats.weibull_min(1.7, scale=2)),
    "beta": ((beta, {"shape1": 2.0, "shape2": 0.6}), stats.beta(2, 0.6)),
    "student t": ((student_t, {"df": 4.0, "loc": 1.0, "scale": 2.0}), stats.t(4, 1, 2)),
    "poisson": (PAIRS[poisson][0], stats.poisson(3)),
    "bernoulli": ((bernoulli, {"prob": 0.3}), stats.bernoulli(0.3)),
}


@pytest.mark.parametrize("name", ENTROPIES)
def test_entropies_are_those_of_scipy(name):
    law, theirs = ENTROPIES[name]
    found = entropy(law)
    assert_allclose(
        found.value, float(theirs.entropy()), rtol=1e-10, atol=1e-12
    )  # scipy sums and integrates to about 1e-11
    assert found.method == {"student t": "quadrature", "poisson": "sum", "bernoulli": "sum"}.get(
        name, "closed form"
    )
    assert found.error < 1e-9


@pytest.mark.parametrize("family", PAIRS, ids=lambda family: family.name)
def test_closed_forms_agree_with_the_numerical_road_and_cross_entropy_is_entropy_plus_divergence(
    family, monkeypatch
):
    p, q = PAIRS[family]
    closed = {
        "kl": kl_divergence(p, q),
        "back": kl_divergence(q, p),
        "cross": cross_entropy(p, q),
        "own": entropy(p),
    }
    assert_allclose(closed["cross"].value, closed["own"].value + closed["kl"].value, rtol=1e-11)
    assert (
        abs(closed["kl"].value - closed["back"].value) > 1e-3 or family is cauchy
    )  # not symmetric, but for two Cauchy laws it is
    assert closed["kl"].method == "closed form"
    monkeypatch.delitem(divergence.DIVERGENCES, family)
    monkeypatch.setattr(divergence, "ENTROPIES", {})
    for what, numerical in (
        ("kl", kl_divergence(p, q)),
        ("cross", cross_entropy(p, q)),
        ("own", entropy(p)),
    ):
        assert_allclose(numerical.value, closed[what].value, rtol=1e-11, err_msg=what)
        assert numerical.method == ("sum" if family is poisson else "quadrature")
        assert abs(numerical.value - closed[what].value) <= numerical.error + 1e-13


def test_two_cauchy_laws_are_as_far_from_either_side():
    # Chyzak & Nielsen 2019, arXiv:1905.10965.
    p, q = PAIRS[cauchy]
    assert_allclose(kl_divergence(p, q).value, kl_divergence(q, p).value, rtol=1e-14)


@pytest.mark.parametrize("df", [2.1, 3.0, 10.0])
def test_a_heavy_tail_against_a_normal_has_its_exact_divergence(df):
    # E log q = −½ log 2π − ½ df/(df − 2).
    found = kl_divergence((student_t, {"df": df, "loc": 0.0, "scale": 1.0}), STANDARD)
    expected = -float(stats.t(df).entropy()) + 0.5 * np.log(2 * np.pi) + 0.5 * df / (df - 2)
    assert_allclose(found.value, expected, rtol=1e-9)


@pytest.mark.thorough
def test_a_tail_too_heavy_or_a_support_too_narrow_is_infinite():
    assert kl_divergence(PAIRS[cauchy][0], STANDARD).value == np.inf
    assert (
        kl_divergence((student_t, {"df": 2.0, "loc": 0.0, "scale": 1.0}), STANDARD).value == np.inf
    )
    assert np.isfinite(kl_divergence(STANDARD, PAIRS[cauchy][0]).value)
    positive = PAIRS[exponential][0]
    assert kl_divergence(STANDARD, positive) == Information(np.inf, 0.0, "support")
    assert cross_entropy(STANDARD, positive).value == np.inf
    assert np.isfinite(kl_divergence(positive, STANDARD).value)
    assert kl_divergence((poisson, {"rate": 1.0}), (bernoulli, {"prob": 0.5})).value == np.inf
    assert np.isfinite(kl_divergence((bernoulli, {"prob": 0.5}), (poisson, {"rate": 1.0})).value)


def test_a_mixture_far_apart_is_nearly_the_mean_of_its_parts():
    # Modes 40 standard deviations apart do not meet: H = log 2 + H(normal), and KL(part ‖ mixture) = log 2.
    far = (
        mixture(normal, normal),
        {
            "weights": np.array([0.5, 0.5]),
            "components": ({"loc": -20.0, "scale": 1.0}, {"loc": 20.0, "scale": 1.0}),
        },
    )
    part = (normal, {"loc": 20.0, "scale": 1.0})
    assert_allclose(kl_divergence(part, far).value, np.log(2), rtol=1e-9)
    own = entropy(far)
    assert_allclose(own.value, np.log(2) + entropy(part).value, atol=max(3 * own.error, 1e-9))


def test_vectors_are_exact_for_normals_and_drawn_else():
    found = kl_divergence(PLANE, ROUND)
    assert_allclose(found.value, 0.5 * (3.0 + 1.0 - 2.0 - np.log(1.75)), rtol=1e-13)
    assert_allclose(
        entropy(PLANE).value,
        stats.multivariate_normal(np.zeros(2), PLANE[1]["covariance"]).entropy(),
        rtol=1e-13,
    )
    heavy = (multivariate_t, {"df": 5.0, "loc": np.zeros(2), "scale": np.eye(2)})
    drawn = entropy(heavy, draws=20_000)
    assert drawn.method == "Monte Carlo"
    assert (
        abs(drawn.value - stats.multivariate_t(np.zeros(2), np.eye(2), 5).entropy())
        < 4 * drawn.error
        < 0.05
    )


# ---------------------------------------------------------------- from data


def test_the_cross_entropy_of_data_is_the_mean_negative_log_likelihood():
    y = np.array([0.3, -1.0, 2.5, 0.1])
    fit = jm.fit(normal, data=y)
    found = cross_entropy(y, (normal, fit.params))
    assert_allclose(found.value, -fit.loglik / 4, rtol=1e-13)
    assert found.method == "sample"
    own = cross_entropy(
        {"y": y}, (lambda params, data: -0.5 * (data["y"] - params["m"]) ** 2, {"m": 0.0})
    )
    assert_allclose(own.value, 0.5 * np.mean(y**2), rtol=1e-14)
    assert cross_entropy(np.array([1.0, -1.0]), (exponential, {"rate": 1.0})).value == np.inf


@pytest.mark.parametrize(
    "p",
    [None, {}, {"y": None}, [1.0, None], [[1.0], [1.0, 2.0]], "abc", normal, (normal,), object()],
)
def test_what_is_neither_a_law_nor_data_of_numbers_is_refused_by_name(p):
    with pytest.raises(TypeError, match="p must be a family and its parameters, or numeric data"):
        cross_entropy(p, STANDARD)


def test_a_list_of_numbers_is_data():
    assert (
        cross_entropy([1.0, 2.0], STANDARD).value
        == cross_entropy(np.array([1.0, 2.0]), STANDARD).value
    )


def test_the_misspecified_mle_goes_to_the_nearest_member():
    """A lognormal fitted to gamma data: the nearest has meanlog ψ(a) − log r and sdlog² = ψ′(a)."""
    truth = PAIRS[gamma][0]
    nearest = {
        "meanlog": float(polygamma(0, 2.5) - np.log(0.7)),
        "sdlog": float(np.sqrt(polygamma(1, 2.5))),
    }
    least = kl_divergence(truth, (lognormal, nearest)).value
    for name in nearest:
        up, down = (
            kl_divergence(truth, (lognormal, nearest | {name: nearest[name] + h})).value
            for h in (1e-3, -1e-3)
        )
        assert min(up, down) > least
        assert abs(up - down) < 1e-7  # stationary: third order in 1e-3
    gaps = []
    for n in (100, 10_000):
        y = stats.gamma(2.5, scale=1 / 0.7).ppf((np.arange(n) + 0.5) / n)
        fit = jm.fit(lognormal, data=y)
        gaps.append(
            kl_divergence(
                truth, (lognormal, {name: float(value) for name, value in fit.params.items()})
            ).value
            - least
        )
    assert 0 <= gaps[1] < 1e-6 < gaps[0]
    y = np.random.default_rng(1).gamma(2.5, 1 / 0.7, 10_000)
    fit = jm.fit(lognormal, data=y, vcov="HC0")
    assert all(abs(fit.params[name] - nearest[name]) < 4 * fit.stderr[name] for name in nearest)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: entropy(normal), TypeError, "family and its parameters"),
        (lambda: entropy((normal, {"loc": 0.0})), ValueError, "scale"),
        (
            lambda: entropy((student_t, {"df": np.array([3.0, 4.0]), "loc": 0.0, "scale": 1.0})),
            ValueError,
            "two distributions",
        ),
        (
            lambda: kl_divergence(STANDARD, (normal, {"loc": np.nan, "scale": 1.0})),
            ValueError,
            "finite",
        ),
        (lambda: kl_divergence(STANDARD, (poisson, {"rate": 1.0})), ValueError, "discrete"),
        (lambda: kl_divergence(np.ones(3), STANDARD), ValueError, "cross_entropy"),
        (lambda: cross_entropy(np.ones(3), normal), TypeError, "q must be a family"),
        (lambda: cross_entropy(np.array([1.0, np.nan]), STANDARD), ValueError, "row 1"),
        (lambda: cross_entropy(np.array(["a"]), STANDARD), TypeError, "numeric data"),
        (
            lambda: cross_entropy(np.ones(3), (lambda p, y: jnp.sum(y), {})),
            ValueError,
            "one scalar",
        ),
        (
            lambda: jax.jit(lambda m: entropy((normal, {"loc": m, "scale": 1.0})).value)(0.0),
            TypeError,
            "jit",
        ),
    ],
)
def test_bad_input_is_refused(call, error, told):
    with pytest.raises(error, match=told):
        call()
