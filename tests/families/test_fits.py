"""A family is a model: it is fitted from its own start, alone, in a batch and under a trace, and gives the numbers of other software."""

import gc
import math
import weakref

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import families as jf
from tests.reference.oracle import expected, table

# The reference file, the family, its data column, and each parameter of the file as a function of the family's estimates.
CASES = [
    ("s01_normal_precip", jf.normal, "x", {"mu": lambda p: p["loc"], "sd": lambda p: p["scale"]}),
    (
        "s02a_gamma_groundbeef",
        jf.gamma,
        "x",
        {"shape": lambda p: p["shape"], "rate": lambda p: p["rate"]},
    ),
    (
        "s02b_weibull_groundbeef",
        jf.weibull,
        "x",
        {"shape": lambda p: p["shape"], "scale": lambda p: p["scale"]},
    ),
    (
        "s02c_lognormal_groundbeef",
        jf.lognormal,
        "x",
        {"meanlog": lambda p: p["meanlog"], "sdlog": lambda p: p["sdlog"]},
    ),
    ("s03_exponential_aircondit", jf.exponential, "x", {"rate": lambda p: p["rate"]}),
    ("s04_poisson_prussian", jf.poisson, "y", {"lambda": lambda p: p["rate"]}),
    (
        "s05_negbin_machinists",
        jf.negative_binomial,
        "y",
        {"mu": lambda p: p["mean"], "size": lambda p: 1 / p["dispersion"]},
    ),
    (
        "s06_gev_portpirie",
        jf.gev,
        "x",
        {"loc": lambda p: p["loc"], "scale": lambda p: p["scale"], "shape": lambda p: p["shape"]},
    ),
    (
        "s06b_gumbel_portpirie",
        jf.gumbel,
        "x",
        {"loc": lambda p: p["loc"], "scale": lambda p: p["scale"]},
    ),
    (
        "s07_beta_rockshape",
        jf.beta,
        "x",
        {"shape1": lambda p: p["shape1"], "shape2": lambda p: p["shape2"]},
    ),
    (
        "s08_student_newcomb",
        jf.student_t,
        "x",
        {"m": lambda p: p["loc"], "s": lambda p: p["scale"], "df": lambda p: p["df"]},
    ),
    (
        "s31_vonmises_fisherB1",
        jf.von_mises,
        "x",
        {"mu": lambda p: p["loc"], "kappa": lambda p: p["kappa"]},
    ),
]
TWO = jf.mixture(jf.normal, jf.normal)


@pytest.mark.parametrize(
    ("name", "family", "column", "read"), CASES, ids=[case[0] for case in CASES]
)
def test_a_fit_from_the_own_start_is_the_reference(name, family, column, read):
    file = expected(name)
    fit = jm.fit(family, data=table(name)[column])
    assert fit.converged, fit.explain()
    assert_allclose(fit.loglik, file["loglik"], rtol=1e-9)
    for label, value in read.items():
        assert_allclose(
            value(fit.params), file["estimates"][label], atol=1e-6 * file["se_observed"][label]
        )
        if label in fit.params and label in family.constraints:
            assert_allclose(fit.stderr[label], file["se_observed"][label], rtol=1e-6)


def test_a_mixture_of_normals_is_the_reference():
    file = expected("s27_mixture_faithful")
    fit = jm.fit(TWO, data=table("s27_mixture_faithful")["x"])
    assert fit.converged, fit.explain()
    assert_allclose(fit.loglik, file["loglik"], rtol=1e-9)
    first, second = fit.params["components"]
    found = {
        "w1": fit.params["weights"][0],
        "mu1": first["loc"],
        "sd1": first["scale"],
        "mu2": second["loc"],
        "sd2": second["scale"],
    }
    for label, value in found.items():
        assert_allclose(value, file["estimates"][label], atol=1e-6 * file["se_observed"][label])


def test_a_batch_is_the_fits_of_its_members():
    y = np.random.default_rng(1).lognormal(2.0, 3.0, size=(4, 50))
    fits = jm.fit_batch(jf.lognormal, datasets=y)
    assert np.all(fits.converged)
    assert_allclose(fits.params["meanlog"], np.log(y).mean(axis=1), rtol=1e-9)
    assert_allclose(fits.stderr["sdlog"], np.log(y).std(axis=1) / np.sqrt(100), rtol=1e-9)


def test_known_constants_stand_beside_the_values():
    trials, successes = np.array([10, 20, 30]), np.array([3, 4, 9])
    fit = jm.fit(jf.binomial, data={"y": successes, "trials": trials})
    assert_allclose(
        [fit.params["prob"], fit.stderr["prob"]],
        [16 / 60, math.sqrt(16 / 60 * 44 / 60 / 60)],
        rtol=1e-9,
    )


def test_a_start_under_a_trace_is_the_same():
    y = np.random.default_rng(2).gumbel(size=40)
    with jax.enable_x64(True):
        traced = jax.jit(jf.gev.start)(y)
    for name, value in jf.gev.start(y).items():
        assert_allclose(traced[name], value, rtol=1e-12)


def test_a_family_dies_with_what_was_compiled_of_it():
    family = jf.censored(jf.exponential)
    jm.fit(family, data={"time": np.array([1.0, 3.0, 2.0]), "event": np.array([1, 0, 1])})
    assert len({family, family}) == 1
    gone = weakref.ref(family)
    del family
    gc.collect()
    assert gone() is None


def test_expected_information_is_the_fits_at_a_regular_maximum():
    """For an exponential family in its own parameters the two kinds of information agree at the maximum."""
    y = np.random.default_rng(3).gamma(2.0, 3.0, size=50)
    fit = jm.fit(jf.gamma, data=y)
    assert tuple(fit.names) == jf.gamma.names
    with jax.enable_x64(True):
        assert_allclose(
            np.linalg.inv(50 * np.asarray(jf.gamma.information(fit.params))), fit.vcov, rtol=1e-8
        )


def test_the_multivariate_normal_is_its_moments():
    y = np.random.default_rng(4).normal(size=(40, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]])
    fit = jm.fit(jf.multivariate_normal, data=y)
    assert fit.converged, fit.explain()
    assert_allclose(fit.params["loc"], y.mean(axis=0), atol=1e-8)
    assert_allclose(fit.params["covariance"], np.cov(y.T, bias=True), atol=1e-8)
    with jax.enable_x64(True):
        information = np.asarray(jf.multivariate_normal.information(fit.params))
    assert_allclose(np.linalg.inv(40 * information), fit.vcov, rtol=1e-6, atol=1e-10)


def test_the_categorical_is_its_shares():
    y = np.array([0, 1, 1, 2, 2, 2])
    fit = jm.fit(jf.categorical, data=y)
    assert fit.converged, fit.explain()
    assert_allclose(fit.params["probs"], [1 / 6, 2 / 6, 3 / 6], atol=1e-8)


FAMILIES = [
    jf.normal, jf.student_t, jf.laplace, jf.logistic, jf.cauchy, jf.gumbel, jf.skew_normal, jf.exponential, jf.gamma, jf.inverse_gamma, jf.weibull,
    jf.lognormal, jf.inverse_gaussian, jf.beta, jf.gev, jf.generalised_pareto, jf.pareto, jf.von_mises, jf.poisson, jf.bernoulli,
    jf.geometric, jf.negative_binomial, jf.negative_binomial_1, jf.zero_inflated(jf.poisson), jf.hurdle(jf.negative_binomial), TWO,
    jf.truncated(jf.normal, low=-1.0), jf.rounded(jf.gamma),
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name.replace(" ", "_"))
@pytest.mark.parametrize(
    "y",
    [
        [3.0, 3.0, 3.0],
        [0.0, 0.0],
        [1.0],
        [0, 1, 1],
        [np.nan, 2.0, 1.0],
        [-1.0, -5.0, 1e12],
        [np.inf, 1.0],
    ],
    ids=str,
)
def test_a_start_is_finite_and_inside_its_constraints_whatever_the_data(family, y):
    from jaxmle.parameters.tree import layout_of

    with np.errstate(all="ignore"):
        start = jax.tree.map(np.asarray, family.start(np.array(y)))
    layout = layout_of(start, family.constraints)
    for leaf, value in zip(layout.leaves, layout.treedef.flatten_up_to(start), strict=True):
        assert np.all(np.isfinite(value)), leaf.path
        assert leaf.constraint.violation(value) is None, leaf.path


# ---------------------------------------------------------------- what is wrong is said


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: jf.gamma.log_prob({"shape": 1.0}, 1.0), ValueError, "needs 'rate'"),
        (lambda: jf.gamma.log_prob({"shape": 1.0, "rate": 1.0, "scale": 1.0}, 1.0), ValueError, "no parameter 'scale'"),
        (lambda: jf.gamma.log_prob(np.ones(2), 1.0), TypeError, "are a dictionary"),
        (lambda: jf.binomial.log_prob({"prob": 0.5}, 1.0), ValueError, "needs 'trials'"),
        (lambda: jf.gamma.start({"x": np.ones(3)}), ValueError, "dictionary of 'y'"),
        (lambda: jf.censored(jf.gamma).start(np.ones(3)), ValueError, "'lower' and 'upper' or 'time' and 'event'"),
        (lambda: jf.censored(jf.beta_binomial), ValueError, "needs log_cdf"),
        (lambda: jf.beta_binomial.log_cdf({"shape1": 1.0, "shape2": 1.0, "trials": 3.0}, 1), ValueError, "has no log_cdf"),
        (lambda: jf.truncated(jf.gamma, low=3.0, high=1.0), ValueError, "low < high"),
        (lambda: jf.rounded(jf.gamma, width=0.0), ValueError, "width must be a positive number"),
        (lambda: jf.zero_inflated(jf.gamma), ValueError, "count family"),
        (lambda: jf.hurdle("poisson"), TypeError, "takes a family"),
        (lambda: jf.mixture(jf.normal), TypeError, "two or more families"),
        (lambda: jf.mixture(jf.normal, jf.poisson), ValueError, "all discrete or all continuous"),
        (lambda: jf.multivariate_normal.log_prob({"loc": np.zeros(2), "covariance": np.eye(2)}, np.zeros((4, 3))), ValueError, r"shape \(n, 2\)"),
        (lambda: jm.fit(jf.binomial, data=np.ones(3)), ValueError, "needs 'trials'"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_missing_values_are_told_by_row():
    with pytest.raises(ValueError, match="NaN in row 1"):
        jm.fit(jf.gamma, data=np.array([1.0, np.nan, 2.0]))


@pytest.mark.parametrize(
    ("family", "data", "words"),
    [
        (jf.poisson, np.array([1.0, 0.5, 2.0]), "is 0.5 in row 1; Poisson takes (whole numbers from 0 on|integers)"),
        (jf.bernoulli, np.array([1.0, 2.0, 2.0]), r"is 2 in row 1 \(2 such values\); .*y = \(y == 2\).astype"),
        (jf.bernoulli, np.array([1.0, -1.0]), r"y = \(y \+ 1\) / 2"),
        (jf.binomial, {"y": np.array([1.0, 9.0]), "trials": np.array([4.0, 8.0])}, r"data\['y'\] is 9 in row 1"),
        (jf.censored(jf.weibull), {"time": np.ones(3), "event": np.array([1, 2, 1])}, r"event = \(event == 2\)"),
        (jf.censored(jf.normal), {"lower": np.array([0.0, 2.0]), "upper": np.array([1.0, 1.0])}, "is 2 in row 1, above the upper end"),
        (jf.censored(jf.normal), {"lower": np.array([0.0, 2.0]), "upper": np.array([1.0, 1e300])}, r"is 1e\+300 in row 1; .*numpy.inf"),
    ],
)  # fmt: skip
def test_a_value_in_another_coding_is_refused_by_name(family, data, words):
    with pytest.raises(ValueError, match=words):
        jm.fit(family, data=data)


def test_no_end_of_an_interval_is_infinite_and_not_none():
    data = {"lower": [None, 1.0], "upper": [1.0, 2.0]}
    data = {name: np.array(values) for name, values in data.items()}
    with pytest.raises(TypeError, match=r"None in row 0.*-numpy.inf"):
        jm.fit(jf.censored(jf.normal), data=data)


def test_a_value_outside_the_support_makes_the_fit_say_so():
    fit = jm.fit(jf.exponential, data=np.array([1.0, -1.0, 2.0]))
    assert fit.verdict == jm.Status.NONFINITE


def test_a_member_of_a_batch_in_another_coding_is_named():
    y = np.ones((3, 4))
    y[2, 1] = -3.0
    with pytest.raises(ValueError, match="row 1 of member 2"):
        jm.fit_batch(jf.poisson, None, y, progress=False)


# ---------------------------------------------------------------- counts without overdispersion


def counts_of(kind, seed):
    """Thirty rows, too even for the family where the seed is odd, and clustered where it is even."""
    rng = np.random.default_rng(seed)
    trials = int(rng.integers(2, 40))
    clustering = np.exp(rng.uniform(-1, 6))
    if kind == "beta-binomial":
        p = rng.uniform(0.1, 0.9)
        noise = rng.normal(0, 0.3 * np.sqrt(trials * p * (1 - p)), 30)
        even = np.clip(np.round(trials * p + noise), 0, trials)
        clustered = rng.binomial(trials, rng.beta(p * clustering, (1 - p) * clustering, 30))
        y = even if seed % 2 else clustered.astype(float)
        return {"y": y, "trials": np.full(30, float(trials))}
    if kind == "Dirichlet-multinomial":
        shares = rng.dirichlet([2.0, 3.0, 4.0])
        even = np.floor(trials * shares + rng.uniform(0, 1, (30, 3)))
        probs = rng.dirichlet(shares * clustering, 30)
        return even if seed % 2 else rng.multinomial(trials, probs).astype(float)
    mean = np.exp(rng.uniform(-1, 4))
    even = rng.binomial(max(int(mean * 3), 1), 0.33, 30)
    clustered = rng.poisson(mean * rng.gamma(clustering, 1 / clustering, 30))
    return (even if seed % 2 else clustered).astype(float)


def by_size(p, y):
    return jm.special.negative_binomial_logpmf(y, p["mean"], 1 / p["size"])


CLUSTERED = {
    "beta-binomial": (jf.beta_binomial, None, {}),
    "Dirichlet-multinomial": (jf.dirichlet_multinomial, None, {}),
    "negative binomial in alpha": (jf.negative_binomial, None, {}),
    "NB1": (jf.negative_binomial_1, None, {}),
    "negative binomial in size": (by_size, {"mean": 1.0, "size": 1.0}, {"constraints": {"mean": jm.positive, "size": jm.positive}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", CLUSTERED)
def test_counts_without_overdispersion_end_at_the_limit_and_never_at_an_infinite_likelihood(kind):
    """A beta-binomial was UNBOUNDED with ℓ = +inf in 3 of 40 samples: log-gamma functions cancelled."""
    loglik, start, options = CLUSTERED[kind]
    for seed in range(40):
        fit = jm.fit(loglik, start, counts_of(kind, seed), **options)
        assert fit.verdict.name != "UNBOUNDED", seed
        assert np.isfinite(fit.loglik), seed
        assert fit.loglik <= 0, seed
