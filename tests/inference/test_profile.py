"""Profile likelihood intervals against closed forms and brute force; every kind of end."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq
from scipy.special import xlogy

import jaxmle as jm
from jaxmle.inference.profiles.end_gradient import profile_end
from jaxmle.inference.profiles.profile import profile
from jaxmle.inference.profiles.root_finder import End
from tests.likelihoods import logit, multinomial, normal_kernel

CUT = 3.841458820694124  # chi-square, one degree of freedom, 0.95
FOUND, UNBOUNDED, AT_BOUND, BETTER, NO_FIT, STALLED, HELD = End
SIGMA = {"sigma": jm.positive}
Y = np.random.default_rng(1).normal(3, 2, size=40)
MEAN, SD, N = Y.mean(), Y.std(), len(Y)
RNG = np.random.default_rng(5)


def sigma_deviance(s):
    """2(ℓ̂ − ℓ_p(σ)) of a normal sample: n[2 log(σ/s) + s²/σ² − 1]."""
    return N * (2 * np.log(s / SD) + SD**2 / s**2 - 1)


SIGMA_ENDS = [
    brentq(lambda s: sigma_deviance(s) - CUT, 0.2, SD),
    brentq(lambda s: sigma_deviance(s) - CUT, SD, 20),
]
MU_HALF = SD * np.sqrt(np.expm1(CUT / N))  # n log(1 + (μ − ȳ)²/s²) = χ²


@pytest.fixture(scope="module")
def fitted():
    return jm.fit(normal_kernel, {"mu": 0.0, "sigma": 1.0}, Y, constraints=SIGMA)


# ---------------------------------------------------------------- numbers


def test_ends_of_a_normal_sample_are_the_closed_form(fitted):
    found = profile(normal_kernel, fitted, Y).conf_int()
    assert_allclose(found["mu"], [MEAN - MU_HALF, MEAN + MU_HALF], rtol=1e-9)
    assert_allclose(found["sigma"], SIGMA_ENDS, rtol=1e-9)


def test_the_other_parameters_at_an_end_are_at_their_maximum(fitted):
    found = profile(normal_kernel, fitted, Y, points=0)
    assert_allclose(found.at_ends[0, :, 0], [found.lower[0], found.upper[0]])
    assert_allclose(found.at_ends[0, :, 1], np.sqrt(SD**2 + MU_HALF**2), rtol=1e-7)
    assert_allclose(found.at_ends[1, :, 0], MEAN, rtol=1e-7)


def test_the_curve_holds_signed_roots_of_the_profile(fitted):
    found = profile(normal_kernel, fitted, Y, "sigma", points=3)
    assert found.curve.shape == found.root.shape == (1, 7)
    assert np.all(np.diff(found.curve[0]) > 0) and np.all(np.diff(found.root[0]) > 0)
    assert_allclose(
        found.root[0],
        np.sign(found.curve[0] - SD) * np.sqrt(np.maximum(sigma_deviance(found.curve[0]), 0)),
        atol=1e-7,
    )
    assert found.curve[0, 0] < found.lower[0] and found.curve[0, -1] > found.upper[0]


def test_intervals_follow_a_change_of_scale(fitted):
    """Ends of σ² are the squares of those of σ; a coefficient of variation is that of its own reparametrisation."""
    found = profile(
        normal_kernel,
        fitted,
        Y,
        {"variance": lambda p: p["sigma"] ** 2, "cv": lambda p: p["mu"] / p["sigma"]},
        points=2,
    )
    assert found.names == ("variance", "cv")
    assert_allclose(found.conf_int()["variance"], np.square(SIGMA_ENDS), rtol=1e-9)
    assert_allclose(found.estimate, [SD**2, MEAN / SD], rtol=1e-9)

    def other(p, y):
        return normal_kernel({"mu": p["cv"] * p["sigma"], "sigma": p["sigma"]}, y)

    again = jm.fit(other, {"cv": 1.0, "sigma": 1.0}, Y, constraints=SIGMA)
    assert_allclose(
        found.conf_int()["cv"], profile(other, again, Y, "cv").conf_int()["cv"], rtol=1e-8
    )
    assert np.all(np.diff(found.root) > 0)


def test_probabilities_of_a_simplex_have_binomial_intervals():
    counts = np.array([12, 30, 8])
    rows = np.repeat(np.eye(3), counts, axis=0)
    fit = jm.fit(multinomial, {"p": np.full(3, 1 / 3)}, rows, constraints={"p": jm.simplex})
    found = profile(multinomial, fit, rows, points=1)

    def deviance(p, k):
        return 2 * (xlogy(k, k / 50 / p) + xlogy(50 - k, (1 - k / 50) / (1 - p))) - CUT

    expected = [
        [brentq(deviance, 1e-4, k / 50, args=(k,)), brentq(deviance, k / 50, 1 - 1e-4, args=(k,))]
        for k in counts
    ]
    assert_allclose(found.conf_int()["p"], expected, rtol=1e-8)
    assert np.all(np.diff(found.curve) > 0)


def test_level_sets_the_cut(fitted):
    wide = profile(normal_kernel, fitted, Y, "mu", level=0.99)
    assert_allclose(
        wide.interval()[0],
        MEAN + SD * np.sqrt(np.expm1(6.634896601021214 / N)) * np.array([-1, 1]),
        rtol=1e-9,
    )
    assert_allclose(wide.conf_int(0.99)["mu"], wide.interval()[0])
    with pytest.raises(ValueError, match="level=0.9"):
        wide.conf_int(0.9)


# ---------------------------------------------------------------- what moves, and how it is weighed


def test_frequency_weights_are_repeated_rows(fitted):
    w = np.arange(N) % 3
    weighted = jm.fit(
        normal_kernel, {"mu": 0.0, "sigma": 1.0}, Y, constraints=SIGMA, weights=jm.frequency(w)
    )
    rows = np.repeat(Y, w)
    half = rows.std() * np.sqrt(np.expm1(CUT / len(rows)))
    for found in (
        profile(normal_kernel, weighted, Y, weights=jm.frequency(w)),
        profile(jm.weight(normal_kernel, jm.frequency(w)), weighted, Y),
    ):
        assert_allclose(found.conf_int()["mu"], rows.mean() + half * np.array([-1, 1]), rtol=1e-8)


def test_what_is_held_has_no_interval_and_what_is_tied_that_of_its_leader():
    held = jm.fix(normal_kernel, {"sigma": 2.0})
    fit = jm.fit(held, {"mu": 0.0, "sigma": 1.0}, Y, constraints=SIGMA)
    found = profile(held, fit, Y)
    assert found.lower_status.tolist() == found.upper_status.tolist() == [FOUND, HELD]
    assert_allclose(
        found.interval()[0], MEAN + np.sqrt(CUT) * 2 / np.sqrt(N) * np.array([-1, 1]), rtol=1e-9
    )
    assert np.isnan(found.interval()[1]).all() and "held by fix" in str(found)
    tied = jm.tie(
        lambda p, y: normal_kernel({"mu": p["a"] + p["b"], "sigma": p["sigma"]}, y), ("a", "b")
    )
    fit = jm.fit(tied, {"a": 0.0, "b": 0.0, "sigma": 1.0}, Y, constraints=SIGMA)
    found = profile(tied, fit, Y, ["a", "b"], points=0)
    assert_allclose(found.interval(), [[(MEAN - MU_HALF) / 2, (MEAN + MU_HALF) / 2]] * 2, rtol=1e-9)


def test_a_penalised_profile_is_labelled():
    penalised = jm.penalize(normal_kernel, jm.normal_prior(0.0, 1.0, "mu"))
    fit = jm.fit(jm.fix(penalised, {"sigma": 2.0}), {"mu": 0.0, "sigma": 1.0}, Y, constraints=SIGMA)
    found = profile(jm.fix(penalised, {"sigma": 2.0}), fit, Y, "mu")
    precision = N / 4 + 1
    assert_allclose(
        found.interval()[0],
        N * MEAN / 4 / precision + np.sqrt(CUT / precision) * np.array([-1, 1]),
        rtol=1e-8,
    )
    assert found.mode == "MAP" and "penalised" in str(found)


def test_a_float32_fit_has_a_float64_profile():
    fit = jm.fit(normal_kernel, {"mu": 0.0, "sigma": 1.0}, Y, constraints=SIGMA, dtype="float32")
    assert_allclose(profile(normal_kernel, fit, Y, "sigma").interval()[0], SIGMA_ENDS, rtol=1e-9)


# ---------------------------------------------------------------- ends that are not found


def poisson_rate(params, data):
    return xlogy_like(data, params["rate"]) - params["rate"]


def xlogy_like(y, rate):
    return jnp.where(y > 0, y * jnp.log(rate), 0.0)


def test_a_rate_on_its_bound_has_an_interval_from_there():
    """No event in n rows: ℓ = −nλ, and the upper end is χ²/(2n)."""
    y = np.zeros(9)
    fit = jm.fit(poisson_rate, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    found = profile(poisson_rate, fit, y)
    assert fit.verdict == jm.Status.BOUNDARY
    assert found.lower_status[0] == AT_BOUND and found.lower[0] == 0.0
    assert_allclose(found.upper[0], CUT / 18, rtol=1e-7)


def test_an_infinite_coefficient_has_one_finite_end():
    """A dummy whose rows all succeed: the other coefficient, an intercept, is that of the rest; the lower end by brute force."""
    d, y = (
        np.repeat([0.0, 1.0], [30, 10]),
        np.concatenate([np.tile([0.0, 1.0, 1.0], 10), np.ones(10)]),
    )
    data = {"x": np.column_stack([np.ones(40), d]), "y": y}
    fit = jm.fit(logit, {"beta": np.zeros(2)}, data)
    assert fit.verdict == jm.Status.SEPARATED
    found = profile(logit, fit, data, points=0)

    def fallen(b):
        def inner(a):
            return 20 - 30 / (1 + np.exp(-a)) + 10 / (1 + np.exp(a + b))

        a = brentq(inner, -20, 20)
        return (
            2 * (fit.loglik - (20 * a - 30 * np.logaddexp(0, a) - 10 * np.logaddexp(0, -a - b)))
            - CUT
        )

    assert found.upper_status[1] == UNBOUNDED and found.upper[1] == np.inf
    assert found.lower_status[1] == FOUND
    assert_allclose(found.lower[1], brentq(fallen, -5, 10), rtol=1e-6)
    alone = jm.fit(logit, {"beta": np.zeros(1)}, {"x": np.ones((30, 1)), "y": y[:30]})
    assert_allclose(
        found.interval()[0],
        profile(logit, alone, {"x": np.ones((30, 1)), "y": y[:30]}).interval()[0],
        rtol=1e-6,
    )


def negative_binomial(params, y):
    r, m = params["size"], params["mu"]
    return (
        jax.lax.lgamma(y + r)
        - jax.lax.lgamma(r)
        + r * jnp.log(r / (r + m))
        + y * jnp.log(m / (r + m))
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_size_that_the_data_do_not_bound_is_unbounded(seed):
    """The Poisson limit is within the cut. Far out log Γ(y + r) − log Γ(r) has no digits left: that is no higher maximum."""
    y = np.random.default_rng(seed).negative_binomial(20, 20 / 24, size=60).astype(float)
    fit = jm.fit(
        negative_binomial,
        {"size": 5.0, "mu": 3.0},
        y,
        constraints={"size": jm.positive, "mu": jm.positive},
    )
    found = profile(negative_binomial, fit, y, points=0)
    poisson = np.sum(y * np.log(y.mean()) - y.mean())
    assert fit.converged and 2 * (fit.loglik - poisson) < CUT
    assert found.upper_status.tolist() == [FOUND, UNBOUNDED] and found.upper[1] == np.inf
    assert found.lower_status.tolist() == [FOUND, FOUND]


def test_a_bound_reached_before_the_cut_is_the_end():
    """The same in the dispersion 1/size: its lower end is its bound, its upper end the reciprocal."""
    y = np.random.default_rng(0).negative_binomial(20, 20 / 24, size=60).astype(float)

    def inverse(params, y):
        return negative_binomial({"size": 1 / params["alpha"], "mu": params["mu"]}, y)

    bounds = {"alpha": jm.positive, "size": jm.positive, "mu": jm.positive}
    fit = jm.fit(
        inverse,
        {"alpha": 0.2, "mu": 3.0},
        y,
        constraints={key: bounds[key] for key in ("alpha", "mu")},
    )
    size = jm.fit(
        negative_binomial,
        {"size": 5.0, "mu": 3.0},
        y,
        constraints={key: bounds[key] for key in ("size", "mu")},
    )
    found = profile(inverse, fit, y, "alpha", points=0)
    assert found.lower_status[0] == AT_BOUND and found.lower[0] == 0.0
    assert_allclose(
        found.upper[0],
        1 / profile(negative_binomial, size, y, "size", points=0).lower[0],
        rtol=1e-7,
    )
    assert "at its bound" in str(found)


def two_means(params, y):
    return -0.5 * (y[:, 0] - params["a"]) ** 2 - 0.5 * (y[:, 1] - params["b"]) ** 2


def test_a_ratio_whose_denominator_may_be_zero_is_unbounded():
    """Fieller's set: one finite end, the other beyond the pole, where the ratio of the estimates never comes."""
    y = np.random.default_rng(2).normal([1.0, 0.3], 1.0, size=(20, 2))
    fit = jm.fit(two_means, {"a": 0.0, "b": 1.0}, y)
    found = profile(two_means, fit, y, lambda p: p["a"] / p["b"], points=0)
    (a, b), c = y.mean(axis=0), CUT / 20
    assert b**2 < c
    assert found.upper_status[0] == UNBOUNDED and found.upper[0] == np.inf
    assert_allclose(found.lower[0], np.max(np.roots([b**2 - c, -2 * a * b, a**2 - c])), rtol=1e-8)


def cauchy(params, x):
    return -jnp.log1p((x - params["m"]) ** 2)


def test_a_better_maximum_on_the_way_is_said():
    x = np.array([-0.4, 0.3, 9.4, 9.7, 10.1, 10.3])
    fit = jm.fit(cauchy, {"m": 0.0}, x)
    assert fit.converged and abs(fit.params["m"]) < 1
    found = profile(cauchy, fit, x)
    assert found.upper_status[0] == BETTER and np.isnan(found.upper[0])
    assert "higher maximum" in str(found)


def test_a_fit_without_a_maximum_has_no_interval():
    fit = jm.fit(normal_kernel, {"mu": 0.0, "sigma": 1.0}, np.array([2.0]), constraints=SIGMA)
    found = profile(normal_kernel, fit, np.array([2.0]))
    assert np.isnan(found.interval()).all()
    assert_array_equal(found.lower_status, NO_FIT)


# ---------------------------------------------------------------- batches

ROWS = 30
SETS = [
    {
        "x": np.column_stack([np.ones(ROWS), RNG.normal(size=ROWS)]),
        "y": (RNG.random(ROWS) < 0.6).astype(float),
    }
    for _ in range(8)
]
SETS[3]["y"][:] = (SETS[3]["x"][:, 1] > 0).astype(float)  # separated
STACK = {key: np.stack([data[key] for data in SETS]) for key in SETS[0]}


def test_a_batch_is_its_members():
    fits = jm.fit_batch(logit, {"beta": np.zeros(2)}, STACK, progress=False)
    found = profile(logit, fits, STACK)
    assert found.batch_shape == (8,) and found.conf_int()["beta"].shape == (8, 2, 2)
    single = jm.fit(logit, {"beta": np.zeros(2)}, SETS[0])
    for i, data in enumerate(SETS):
        if i != 3:
            single = jm.fit(logit, {"beta": np.zeros(2)}, data)
            assert_allclose(
                found[i].interval(),
                profile(logit, single, data, points=0).interval(),
                rtol=1e-7,
                atol=1e-9,
            )
    assert found.found[[i for i in range(8) if i != 3]].all()
    assert found.upper[3, 1] == np.inf and found.lower_status[3, 1] == FOUND
    assert "8 members" in str(found)


def test_a_ragged_batch_with_weights_is_its_members():
    ragged = [
        {key: leaf[: 18 + 2 * i] for key, leaf in data.items()} for i, data in enumerate(SETS[:3])
    ]
    weights = [1.0 + (np.arange(len(data["y"])) % 2) for data in ragged]
    fits = jm.fit_batch(
        logit, {"beta": np.zeros(2)}, ragged, weights=jm.frequency(weights), progress=False
    )
    found = profile(logit, fits, ragged, "beta[1]", weights=jm.frequency(weights), points=1)
    assert found.interval().shape == (3, 1, 2) and found.curve.shape == (3, 1, 3)
    for i, (data, w) in enumerate(zip(ragged, weights, strict=True)):
        single = jm.fit(logit, {"beta": np.zeros(2)}, data, weights=jm.frequency(w))
        assert_allclose(
            found.interval()[i],
            profile(logit, single, data, "beta[1]", weights=jm.frequency(w), points=0).interval(),
            rtol=1e-7,
        )


def test_a_profile_is_a_tidy_frame(fitted):
    pytest.importorskip("narwhals")
    frame = profile(normal_kernel, fitted, Y, points=0).to_frame(backend="pandas")
    assert list(frame.columns) == [
        "term",
        "estimate",
        "conf_low",
        "conf_high",
        "low_status",
        "high_status",
    ]
    assert frame["low_status"].tolist() == ["FOUND", "FOUND"]
    assert_allclose(frame["conf_low"], profile(normal_kernel, fitted, Y, points=0).lower)


# ---------------------------------------------------------------- mistakes


def test_other_data_or_another_likelihood_is_refused(fitted):
    with pytest.raises(ValueError, match="not those of the fit"):
        profile(normal_kernel, fitted, Y + 5)
    unknown = replace(fitted, data_id=np.zeros_like(fitted.data_id))  # as under a trace
    with pytest.raises(ValueError, match="log-likelihood and the data that were fitted"):
        profile(normal_kernel, unknown, Y + 5)
    with pytest.raises(ValueError, match="free parameters"):
        profile(jm.fix(normal_kernel, {"sigma": fitted.params["sigma"]}), fitted, Y)
    with pytest.raises(ValueError, match="MAP"):
        profile(jm.penalize(normal_kernel, jm.ridge(1.0)), fitted, Y)
    with pytest.raises(ValueError, match="members"):
        profile(
            logit,
            jm.fit_batch(logit, {"beta": np.zeros(2)}, STACK, progress=False),
            {key: leaf[:5] for key, leaf in STACK.items()},
        )


@pytest.mark.parametrize(
    ("which", "error", "told"),
    [
        ("tau", ValueError, "no parameter"),
        (3, TypeError, "which must be None"),
        ([], TypeError, "which must be None"),
        ({"g": 1.0}, TypeError, "function"),
        (lambda p: jnp.stack([p["mu"]] * 2), ValueError, "one real number"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(fitted, which, error, told):
    with pytest.raises(error, match=told):
        profile(normal_kernel, fitted, Y, which)


def test_bad_options_are_refused(fitted):
    for level in (0, 1.5, True, "0.95"):
        with pytest.raises(ValueError, match="level"):
            profile(normal_kernel, fitted, Y, level=level)
    with pytest.raises(ValueError, match="points"):
        profile(normal_kernel, fitted, Y, points=-1)
    with pytest.raises(TypeError, match="fit"):
        profile(normal_kernel, {"mu": 1.0}, Y)
    sampled = jm.fit(
        normal_kernel,
        {"mu": 0.0, "sigma": 1.0},
        Y,
        constraints=SIGMA,
        weights=jm.sampling(np.ones(N)),
    )
    with pytest.raises(ValueError, match="chi-square"):
        profile(normal_kernel, sampled, Y, weights=jm.sampling(np.ones(N)))
    with pytest.raises(TypeError, match="host"):
        jax.jit(lambda y: profile(normal_kernel, fitted, y).lower)(Y)


# ---------------------------------------------------------------- derivatives


@pytest.mark.thorough
def test_derivatives_of_an_end_are_those_of_the_closed_form(fitted):
    found = profile(normal_kernel, fitted, Y, points=0)
    with jax.enable_x64(True):

        def closed(y):
            return jnp.mean(y) + jnp.std(y) * np.sqrt(np.expm1(CUT / N))

        def end(y):
            return profile_end(normal_kernel, fitted, found, y, "mu")

        assert_allclose(end(jnp.asarray(Y)), found.upper[0], rtol=1e-12)
        assert_allclose(
            jax.grad(end)(jnp.asarray(Y)), jax.grad(closed)(jnp.asarray(Y)), rtol=1e-6, atol=1e-10
        )
        along = jnp.asarray(np.eye(N)[0])

        def second(f):
            return jax.jvp(jax.grad(f), (jnp.asarray(Y),), (along,))[1]

        assert_allclose(jax.jit(lambda: second(end))(), second(closed), rtol=1e-5, atol=1e-9)
        spread = jax.grad(lambda y: profile_end(normal_kernel, fitted, found, y, "sigma", "lower"))(
            jnp.asarray(Y)
        )
        assert_allclose(
            spread, SIGMA_ENDS[0] / SD * jax.grad(jnp.std)(jnp.asarray(Y)), rtol=1e-6, atol=1e-10
        )  # the ends are multiples of s


@pytest.mark.thorough
def test_derivatives_of_an_end_in_weights_are_those_of_the_closed_form():
    w = np.ones(N)

    def weighted(w):
        return jm.weight(normal_kernel, jm.frequency(w))

    fit = jm.fit(weighted(w), {"mu": 0.0, "sigma": 1.0}, Y, constraints=SIGMA)
    found = profile(weighted(w), fit, Y, points=0)
    with jax.enable_x64(True):
        slope = jax.grad(lambda w: profile_end(weighted(w), fit, found, Y, "sigma"))(jnp.asarray(w))
        # n log(σ²/s²) + n s²/σ² − n = χ² with n = Σw and s² weighted: its own derivative.

        def fallen(sigma, w):
            n, mean = jnp.sum(w), jnp.sum(w * Y) / jnp.sum(w)
            s2 = jnp.sum(w * (Y - mean) ** 2) / n
            return n * (jnp.log(sigma**2 / s2) + s2 / sigma**2 - 1)

        by_sigma, by_w = jax.grad(fallen, argnums=(0, 1))(found.upper[1], jnp.asarray(w))
    assert_allclose(slope, -by_w / by_sigma, rtol=1e-6, atol=1e-12)


def looped_log(x):
    """log x by Newton's steps in a ``while_loop``, which has no reverse mode."""
    step = lambda s: (s[0] + 1, s[1] - 1 + x * jnp.exp(-s[1]))  # noqa: E731
    return jax.lax.while_loop(lambda s: s[0] < 30, step, (0, jnp.zeros_like(x)))[1]


def test_the_end_of_a_profile_has_derivatives_where_parameters_go_through_a_while_loop():
    """Of an exponential law the end is proportional to 1/Σy: −end/Σy, and 2 end/(Σy)² twice."""
    y = np.array([1.0, 3.0, 2.0, 6.0])

    def loglik(p, d):
        return looped_log(p["rate"]) - p["rate"] * d

    fitted = jm.fit(loglik, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    found = jm.profile(loglik, fitted, y)
    end = found.upper[0]
    with jax.enable_x64(True):
        of_data = lambda y: profile_end(loglik, fitted, found, y, "rate")  # noqa: E731
        # The end was found to 1e-8 of a standard error, and Newton's steps are differentiated too.
        # One program each; outside jit every operation is a program of its own, once is enough.
        assert_allclose(jax.grad(of_data)(y), np.full(4, -end / 12), rtol=1e-6)
        for derivative in (jax.grad, jax.jacfwd):
            assert_allclose(jax.jit(derivative(of_data))(y), np.full(4, -end / 12), rtol=1e-6)
        second = jax.jit(jax.hessian(of_data))(y)
        assert_allclose(second, np.full((4, 4), 2 * end / 144), rtol=1e-6)


def test_the_end_of_a_profile_has_forward_derivatives_where_data_go_through_a_while_loop():
    """The mean of log y: 1/(n yᵢ) each. Reverse mode raises jax's own error, which names the loop."""
    y = np.array([1.0, 3.0, 2.0, 6.0])

    def loglik(p, d):
        return -0.5 * (looped_log(d) - p["m"]) ** 2

    fitted = jm.fit(loglik, {"m": 0.0}, y)
    found = jm.profile(loglik, fitted, y)
    with jax.enable_x64(True):
        of_data = lambda y: profile_end(loglik, fitted, found, y, "m")  # noqa: E731
        assert_allclose(jax.jit(jax.jacfwd(of_data))(y), 1 / (4 * y), rtol=1e-8)
        with pytest.raises(
            ValueError, match="Reverse-mode differentiation does not work for lax.while_loop"
        ):
            jax.grad(of_data)(y)


def test_an_end_that_has_no_derivative_is_refused(fitted):
    found = profile(normal_kernel, fitted, Y, points=0)
    with pytest.raises(ValueError, match="not a parameter"):
        profile_end(normal_kernel, fitted, found, Y, "tau")
    with pytest.raises(ValueError, match="side"):
        profile_end(normal_kernel, fitted, found, Y, "mu", "left")
