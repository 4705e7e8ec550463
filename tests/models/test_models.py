"""What every built-in model promises: a start for any data, predictions, samples and residuals that agree with its likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import jaxmle as jm
from jaxmle import families, models

N = 4000
X = np.column_stack([np.ones(N), np.full(N, 0.5)])
XY = {
    "x": X,
    "z": X,
    "y": np.ones(N),
    "trials": np.full(N, 6.0),
    "years": np.full(N, 2.0),
    "time": np.ones(N),
    "event": np.ones(N),
}
BETA, GAMMA = np.array([0.4, 0.6]), np.array([-0.3, 0.2])
COUNTED, SCALED = {"beta": BETA, "alpha": np.float64(0.5)}, {"beta": BETA, "scale": np.float64(0.6)}
NORMAL = {"beta": BETA, "sigma": np.float64(1.2)}

# name: (model, parameters, what scipy has for the law of a row where it has it), the mean being exp(0.7) or 0.7
MU, P = np.exp(0.7), 1 / (1 + np.exp(0.2))
TABLE = {
    "normal": (models.normal(), NORMAL, stats.norm(0.7, 1.2)),
    "scale": (
        models.normal(scale="z"),
        {"beta": BETA, "gamma": GAMMA},
        stats.norm(0.7, np.exp(-0.2)),
    ),
    "logistic": (models.logistic(), {"beta": BETA}, stats.bernoulli(1 / (1 + np.exp(-0.7)))),
    "probit": (models.probit(), {"beta": BETA}, stats.bernoulli(stats.norm.cdf(0.7))),
    "cloglog": (models.cloglog(), {"beta": GAMMA}, stats.bernoulli(1 - np.exp(-np.exp(-0.2)))),
    "binomial": (models.binomial(), {"beta": GAMMA}, stats.binom(6, P)),
    "poisson": (models.poisson(exposure="years"), {"beta": BETA}, stats.poisson(2 * MU)),
    "gamma": (
        models.gamma(),
        {"beta": BETA, "shape": np.float64(2.5)},
        stats.gamma(2.5, scale=MU / 2.5),
    ),
    "inverse_gaussian": (
        models.inverse_gaussian(),
        {"beta": BETA, "shape": np.float64(3.0)},
        stats.invgauss(MU / 3.0, scale=3.0),
    ),
    "negative_binomial": (
        models.negative_binomial(),
        COUNTED,
        stats.nbinom(2.0, 1 / (1 + 0.5 * MU)),
    ),
    "beta": (
        models.beta(),
        {"beta": GAMMA, "phi": np.float64(5.0)},
        stats.beta(5 * P, 5 * (1 - P)),
    ),
    "student_t": (models.student_t(), {**SCALED, "df": np.float64(5.0)}, stats.t(5.0, 0.7, 0.6)),
    "laplace": (models.laplace(), SCALED, stats.laplace(0.7, 1.2)),
    "quantile": (models.quantile(0.8), SCALED, None),
    "zero_inflated": (models.zero_inflated(), {"beta": BETA, "gamma": GAMMA}, None),
    "hurdle": (models.hurdle(), {"beta": BETA, "gamma": GAMMA}, None),
    "tobit": (models.tobit(upper=2.0), NORMAL, None),
    "truncated": (
        models.truncated(lower=0.5, upper=2.0),
        NORMAL,
        stats.truncnorm(-0.2 / 1.2, 1.3 / 1.2, 0.7, 1.2),
    ),
    "exponential": (models.aft("exponential"), {"beta": BETA}, stats.expon(scale=MU)),
    "weibull": (models.aft("weibull"), SCALED, stats.weibull_min(1 / 0.6, scale=MU)),
    "lognormal": (
        models.aft("lognormal"),
        {**SCALED, "scale": np.float64(0.4)},
        stats.lognorm(0.4, scale=MU),
    ),
    "loglogistic": (
        models.aft("loglogistic"),
        {**SCALED, "scale": np.float64(0.2)},
        stats.fisk(1 / 0.2, scale=MU),
    ),
}
# The others take their distribution functions from families that are tested there, and would be compiled here for nothing more.
WITH_QUANTILES = {
    "normal",
    "scale",
    "logistic",
    "laplace",
    "quantile",
    "tobit",
    "truncated",
    "exponential",
    "weibull",
    "lognormal",
    "loglogistic",
}


def moments(model):
    """A sample, its mean and variance by the model, as one program."""

    def run(key, params, data):
        return (
            model.sample(key, params, data)[model.outcome],
            model.predict(params, data)[0],
            model.variance(params, data)[0],
        )

    return run


def tails(model):
    """Two quantiles, and the distribution function at the response, as one program."""

    def run(params, data):
        return (
            model.quantile(params, data, 0.1)[0],
            model.quantile(params, data, 0.9)[0],
            model.cdf(params, data),
        )

    return run


@pytest.mark.thorough
@pytest.mark.parametrize("name", TABLE)
def test_samples_have_the_predicted_moments_and_quantiles(name):
    model, params, law = TABLE[name]
    with jax.enable_x64(True):
        y, mean, variance = map(np.asarray, jax.jit(moments(model))(jax.random.key(5), params, XY))
    if law is not None:
        assert_allclose([mean, variance], [law.mean(), law.var()], rtol=1e-9)
    assert abs(y.mean() - mean) < 4 * np.sqrt(variance / N)
    # Var(s²) is about (κ + 2)σ⁴/n; these laws have excess kurtosis κ below 15, sampled ones less.
    assert abs(y.var() / variance - 1) < 4 * np.sqrt(17 / N)
    if name not in WITH_QUANTILES:
        return
    with jax.enable_x64(True):
        low, high, cdf = map(np.asarray, jax.jit(tails(model))(params, XY | {model.outcome: y}))
    if law is not None:
        assert_allclose([low, high], law.ppf([0.1, 0.9]), rtol=1e-8)
        assert_allclose(cdf[:50], law.cdf(y[:50]), rtol=1e-7, atol=1e-12)
    sd = 4 * np.sqrt(0.09 / N)
    assert np.mean(y <= low) > 0.1 - sd
    assert np.mean(y < low) < 0.1 + sd
    assert np.mean(y <= high) > 0.9 - sd
    assert np.mean(y < high) < 0.9 + sd
    if (
        not model.law.discrete and name != "tobit"
    ):  # whose distribution function jumps at both limits
        assert stats.kstest(cdf, "uniform").pvalue > 1e-4


def test_every_model_of_the_shelf_is_in_a_test():
    here = set(TABLE) | {
        "aft",
        "ar1",
        "garch",
        "cox",
        "conditional_logit",
        "multinomial",
        "ordinal",
        "distribution",
    }
    assert set(models.__all__) - here == {"Model", "collinear_columns"}


SERIES = {
    "ar1": (models.ar1(), {"beta": BETA, "phi": np.float64(0.7), "sigma": np.float64(1.2)}),
    "garch": (
        models.garch(),
        {
            "mu": np.float64(0.1),
            "omega": np.float64(0.1),
            "alpha": np.float64(0.1),
            "beta": np.float64(0.8),
        },
    ),
}


@pytest.mark.parametrize("name", SERIES)
def test_innovations_of_a_sampled_series_are_standard_and_independent(name):
    model, params = SERIES[name]
    drawn = model.sample(
        jax.random.key(2), params, {**XY, "y": np.random.default_rng(0).normal(size=N)}
    )
    z = model.residuals(params, drawn, "pearson")
    assert abs(z.mean()) < 4 / np.sqrt(N)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / N)
    assert abs(np.mean(z[1:] * z[:-1])) < 4 / np.sqrt(N)


@pytest.mark.parametrize(
    "model",
    [models.multinomial(3), models.ordinal(3), models.ordinal(3, link="cloglog")],
    ids=["multinomial", "ordinal", "cloglog"],
)
def test_class_probabilities_are_the_shares_of_a_sample_and_the_likelihood(model):
    params = (
        {"beta": np.array([[0.2, -0.4], [0.3, 0.5]])}
        if model.name == "multinomial"
        else {"beta": GAMMA, "cut": np.array([-0.5, 0.8])}
    )
    share = model.predict(params, XY)[0]
    assert_allclose(share.sum(), 1.0, rtol=1e-12)
    drawn = model.sample(jax.random.key(1), params, XY)["y"]
    assert np.all(
        np.abs(np.bincount(drawn.astype(int), minlength=3) / N - share) < 4 * np.sqrt(share / N)
    )
    with jax.enable_x64(True):
        assert_allclose(np.exp(model(params, {"x": X[:3], "y": np.arange(3.0)})), share, rtol=1e-12)


@pytest.mark.parametrize("kind", ["pearson", "deviance", "quantile"])
@pytest.mark.parametrize("name", ["normal", "logistic"])
def test_residuals_of_the_true_model_are_about_standard(name, kind):
    model, params, _ = TABLE[name]
    drawn = model.sample(jax.random.key(3), params, XY)
    residuals = model.residuals(params, drawn, kind, key=jax.random.key(4))
    assert residuals.dtype == np.float64
    if (
        kind != "deviance" or name == "normal"
    ):  # a deviance residual of one trial has no such moments
        assert abs(residuals.mean()) < 4 / np.sqrt(N)
        assert abs(residuals.var() - 1) < 0.12
    else:
        y, p = drawn["y"], model.predict(params, drawn)
        assert_allclose(
            residuals,
            np.where(y == 1, np.sqrt(-2 * np.log(p)), -np.sqrt(-2 * np.log1p(-p))),
            rtol=1e-12,
        )


def test_deviance_residuals_add_up_to_the_deviance():
    y = np.array([0.0, 1.0, 4.0, 2.0])
    data = {"x": np.ones((4, 1)), "y": y}
    residuals = models.poisson().residuals({"beta": np.log([1.5])}, data, "deviance")
    assert_allclose(
        np.sum(residuals**2),
        2 * np.sum(stats.poisson.logpmf(y, np.maximum(y, 1e-300)) - stats.poisson.logpmf(y, 1.5)),
        rtol=1e-12,
    )


def test_predictions_and_quantiles_have_delta_standard_errors():
    model = models.aft("weibull")
    rng = np.random.default_rng(0)
    data = {
        "x": np.column_stack([np.ones(50), rng.normal(size=50)]),
        "time": rng.weibull(1.5, size=50),
        "event": np.ones(50),
    }
    fit = jm.fit(model, data=data)
    few = {key: value[:3] for key, value in data.items()}
    both = jm.delta(
        lambda params: {
            "mean": model.predict(params, few),
            "median": model.quantile(params, few, 0.5),
        },
        fit,
    )

    def by_scipy(x):
        law = stats.weibull_min(1 / x[2], scale=np.exp(few["x"] @ x[:2]))
        return {"mean": law.mean(), "median": law.ppf(0.5)}

    for name in ("mean", "median"):
        assert_allclose(both.estimate[name], by_scipy(fit.x)[name], rtol=1e-12)
        ends = [
            (by_scipy(fit.x + h)[name] - by_scipy(fit.x - h)[name]) / (2 * h.sum())
            for h in np.diag(1e-4 * fit.se)
        ]
        jacobian = np.stack(ends, axis=1)
        assert_allclose(
            both.stderr[name],
            np.sqrt(np.einsum("ij,jk,ik->i", jacobian, fit.vcov, jacobian)),
            rtol=1e-6,
        )


def test_a_family_is_fitted_to_a_column_and_to_many():
    model = models.distribution(families.exponential)
    y = np.random.default_rng(1).gamma(2.0, size=(3, 40))
    fits = jm.fit_batch(model, None, y, progress=False)
    assert fits.converged.all()
    assert_allclose(fits.params["rate"], 1 / y.mean(axis=1), rtol=1e-9)
    params = {"rate": fits.params["rate"][1]}
    for data in (y[1], {"y": y[1]}):
        assert_allclose(model.predict(params, data), np.full(40, y[1].mean()), rtol=1e-9)
        assert_allclose(model.residuals(params, data), y[1] - y[1].mean(), atol=1e-9)
    with pytest.raises(TypeError, match="family"):
        models.distribution("gamma")


# ---------------------------------------------------------------- starts


MEMBERS, ROWS = 3, 30
RNG = np.random.default_rng(8)
BATCH = {
    "x": np.concatenate([np.ones((MEMBERS, ROWS, 1)), RNG.normal(size=(MEMBERS, ROWS, 1))], axis=2),
    "z": np.concatenate([np.ones((MEMBERS, ROWS, 1)), RNG.normal(size=(MEMBERS, ROWS, 1))], axis=2),
    "y": RNG.integers(0, 3, size=(MEMBERS, ROWS)).astype(float),
    "time": RNG.exponential(size=(MEMBERS, ROWS)),
    "event": RNG.integers(0, 2, size=(MEMBERS, ROWS)).astype(float),
    "trials": np.full((MEMBERS, ROWS), 4.0),
    "years": np.ones((MEMBERS, ROWS)),
}
MODELS = {name: entry[0] for name, entry in TABLE.items()} | {
    "zero_inflated_nb": models.zero_inflated("negative_binomial"), "hurdle_nb": models.hurdle("negative_binomial"),
    "multinomial": models.multinomial(3), "ordinal": models.ordinal(3), "cox": models.cox(), "ar1": models.ar1(), "garch": models.garch(),
}  # fmt: skip


BINARY = (BATCH["y"] > 0).astype(float)
CODED = {
    "logistic": BINARY,
    "probit": BINARY,
    "cloglog": BINARY,
    "gamma": BATCH["y"] + 0.5,
    "inverse_gaussian": BATCH["y"] + 0.5,
    "beta": (BATCH["y"] + 1) / 4,
    "truncated": (BATCH["y"] + 1) / 2,
}


def batch_of(name):
    """The batch with the response in the model's coding."""
    return {**BATCH, "y": CODED.get(name, BATCH["y"])}


def assert_all_close(a, b, rtol):
    jax.tree.map(lambda u, v: assert_allclose(u, v, rtol=rtol, atol=1e-8), a, b)


@pytest.mark.parametrize("name", MODELS)
def test_starts_of_stacked_members_are_those_of_each(name):
    model = MODELS[name]
    batch = batch_of(name)
    each = [model.start({key: value[i] for key, value in batch.items()}) for i in range(MEMBERS)]
    assert_all_close(
        model.start(batch), jax.tree.map(lambda *leaves: np.stack(leaves), *each), rtol=1e-7
    )


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["negative_binomial", "student_t", "weibull"])
def test_a_start_runs_under_a_trace(name):
    with jax.enable_x64(True):
        assert_all_close(
            jax.jit(jax.vmap(MODELS[name].start))(BATCH), MODELS[name].start(BATCH), rtol=1e-6
        )


@pytest.mark.parametrize("name", MODELS)
def test_stacked_members_may_share_their_designs(name):
    shared = {**batch_of(name), "x": BATCH["x"][0], "z": BATCH["z"][0]}
    repeated = {
        **batch_of(name),
        "x": np.repeat(BATCH["x"][:1], MEMBERS, axis=0),
        "z": np.repeat(BATCH["z"][:1], MEMBERS, axis=0),
    }
    assert_all_close(MODELS[name].start(shared), MODELS[name].start(repeated), rtol=1e-7)


REFUSED = (
    ("gamma", "zeros"),
    ("inverse_gaussian", "zeros"),
    ("beta", "zeros"),
    ("beta", "constant"),
    ("truncated", "zeros"),
)


@pytest.mark.parametrize("spoilt", ["nan", "constant", "collinear", "zeros"])
@pytest.mark.parametrize("name", MODELS)
def test_a_start_is_finite_and_inside_its_bounds_for_any_data_that_are_coded(name, spoilt):
    data = {key: value[0].copy() for key, value in batch_of(name).items()}
    if spoilt == "nan":
        data["y"][3] = data["time"][3] = data["x"][4, 1] = np.nan
    if spoilt == "constant":
        data["y"][:] = data["time"][:] = 1.0
    if spoilt == "collinear":
        data["x"][:, 1] = data["z"][:, 1] = 2.0
    if spoilt == "zeros":
        data["y"][:] = 0.0
    model = MODELS[name]
    if (name, spoilt) in REFUSED:
        with pytest.raises(ValueError, match="takes"):
            model.start(data)
        return
    start = model.start(data)
    assert all(np.isfinite(leaf).all() for leaf in start.values())
    for leaf, constraint in (model.constraints or {}).items():
        assert constraint.violation(np.asarray(start[leaf])) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.ones((5, 1))}, "one number for each row"),
        ({"y": np.array(["a"] * 5)}, "strings"),
        ({"y": np.array([1.0, np.nan, 1.0, 0.0, 1.0])}, "NaN in row 1"),
        ({"x": np.ones((4, 2))}, "x.* has 4 rows and .*y.* has 5 rows"),
        ({"x": None}, "no leaf 'x'"),
    ],
)
def test_bad_data_are_named(change, message):
    data = {
        "x": np.column_stack([np.ones(5), np.arange(5.0)]),
        "y": np.array([0.0, 1.0, 1.0, 0.0, 1.0]),
    } | change
    with pytest.raises((ValueError, TypeError), match=message):
        jm.fit(
            models.poisson(), data={key: value for key, value in data.items() if value is not None}
        )


def test_bad_options_are_named():
    for wrong in (
        lambda: models.binomial(link="loglog"), lambda: models.aft("gamma"), lambda: models.cox(ties="exact"), lambda: models.multinomial(1), lambda: models.ordinal(3.0),
        lambda: models.tobit(lower=2, upper=1), lambda: models.truncated(lower=-np.inf), lambda: models.quantile(1.5), lambda: models.quantile(0.5, bandwidth=0.0),
        lambda: models.student_t(df=-1.0), lambda: models.zero_inflated("binomial"), lambda: models.normal().residuals(NORMAL, XY, "studentized"),
        lambda: models.poisson().residuals({"beta": BETA}, XY, "quantile"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must|give|draw"):
            wrong()
    with pytest.raises(TypeError, match="has no quantile"):
        models.cox().quantile({"beta": BETA}, XY, 0.5)


def test_one_column_may_be_a_vector():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    data = {"x": x, "y": 2 * x + rng.normal(size=40)}
    fit = jm.fit(models.normal(), data=data)
    assert fit.params["beta"].shape == ()
    assert_allclose(fit.params["beta"], x @ data["y"] / (x @ x), rtol=1e-9)


def test_a_model_stands_for_its_likelihood_in_a_combinator():
    data = {
        "x": X[:40] + np.linspace(0, 1, 40)[:, None] * [0, 1],
        "y": np.random.default_rng(0).poisson(2.0, size=40).astype(float),
    }
    model = models.poisson()
    free = jm.fit(model, data=data)
    held = jm.fit(jm.fix(model, {"beta[1]": 0.0}), model.start(data), data)
    assert_allclose(held.params["beta"], [np.log(data["y"].mean()), 0.0], rtol=1e-9)
    assert free.loglik > held.loglik
    doubled = jm.fit(model, data=data, weights=jm.frequency(np.full(40, 2)))
    assert_allclose(doubled.se * np.sqrt(2), free.se, rtol=1e-9)


# ---------------------------------------------------------------- columns


def test_collinear_columns_are_named():
    rng = np.random.default_rng(0)
    ones, a = np.ones(20), rng.normal(size=20)
    x = np.column_stack([ones, a, 1e6 * a - 3, np.zeros(20), rng.normal(size=20)])
    assert models.collinear_columns(x, ["const", "a", "far", "none", "b"]) == {
        "far": ("const", "a"),
        "none": (),
    }
    assert models.collinear_columns(x[:, [0, 1, 4]]) == {}
    assert models.collinear_columns(x[:, [1, 4]] + 1e6) == {}
    with pytest.raises(ValueError, match="not finite in row 2"):
        models.collinear_columns(np.where(np.arange(20)[:, None] == 2, np.nan, x))


def test_the_tails_of_a_link_have_right_derivatives():
    for name, eta, slope in (
        ("probit", -40.0, 40.0249688472072637),
        ("cloglog", 800.0, 0.0),
        ("cloglog", -60.0, 1.0),
        ("logit", -800.0, 1.0),
    ):
        model = {
            "probit": models.probit(),
            "cloglog": models.cloglog(),
            "logit": models.logistic(),
        }[name]
        with jax.enable_x64(True):
            found = jax.grad(
                lambda b, model=model: jnp.sum(
                    model({"beta": b}, {"x": np.ones((1, 1)), "y": np.ones(1)})
                )
            )(jnp.array([eta]))
        assert_allclose(found, slope, rtol=1e-12, atol=1e-300)


def test_a_batch_of_a_family_with_known_constants_starts_each_column_by_itself():
    rng = np.random.default_rng(3)
    trials = rng.integers(5, 9, size=(3, 40))
    data = {"y": rng.binomial(trials, 0.3).astype(float), "trials": trials.astype(float)}
    fits = jm.fit_batch(models.distribution(families.binomial), None, data, progress=False)
    assert_allclose(fits.params["prob"], data["y"].sum(1) / trials.sum(1), rtol=1e-9)


def cape():
    """Seventeen states, executions less one and seven columns: data of statsmodels' cpunish, columns over their largest value."""
    y = np.array([36.0, 8, 5, 3, 2, 1, 1, 1, *[0] * 9])
    x = np.array([
        [0.752, 0.888, 0.380, 0.930, 1, 0.516, 1], [0.906, 0.665, 0.623, 0.842, 1, 0.871, 1],
        [0.781, 0.564, 0.349, 0.917, 0, 0.677, 1], [0.588, 0.979, 0.502, 0.900, 1, 0.516, 1],
        [0.686, 0.787, 0.807, 0.911, 1, 0.613, 1], [0.710, 1.000, 0.109, 0.927, 0, 0.806, 1],
        [0.892, 0.617, 0.477, 0.976, 0, 0.806, 1], [0.760, 0.697, 0.938, 0.992, 1, 0.677, 1],
        [0.928, 0.500, 0.134, 0.863, 0, 1.000, 1], [0.696, 0.761, 0.480, 1.000, 1, 0.774, 1],
        [0.816, 0.436, 0.255, 0.904, 0, 0.613, 1], [0.726, 0.872, 0.224, 0.830, 0, 0.516, 1],
        [0.700, 0.979, 1.000, 0.982, 1, 0.581, 1], [1.000, 0.495, 0.854, 0.983, 0, 0.935, 1],
        [0.758, 0.532, 0.125, 0.873, 0, 0.774, 1], [0.648, 0.809, 0.240, 0.919, 0, 0.677, 1],
        [0.802, 0.622, 0.056, 0.882, 0, 0.806, 1],
    ])  # fmt: skip
    return {"x": x, "y": y}


def test_negative_binomial_of_17_rows_and_7_columns_ended_at_alpha_0_below_its_maximum_inside():
    """ℓ falls in α at 0 and has its maximum near 1.1 all the same: −28.5 at the bound, −27.6 inside."""
    model, data = models.negative_binomial(), cape()
    fit = jm.fit(model, data=data)
    bound = jm.fit(models.poisson(), data=data).loglik
    assert fit.verdict.name == "CONVERGED"
    assert fit.loglik > bound + 0.8
    assert 1.0 < fit.params["alpha"] < 1.3


def test_no_other_start_of_alpha_finds_a_better_maximum_of_a_small_negative_binomial():
    """200 samples of 17 rows and 7 columns; from the moment alone 4 ended up to 7.5 units lower."""
    rng = np.random.default_rng(5)
    model, b, n, q = models.negative_binomial(), 200, 17, 7
    x = rng.normal(size=(b, n, q)) * 0.6
    x[..., -1] = 1.0
    alpha = np.exp(rng.uniform(-3, 1, b))
    mean = np.exp((x @ (rng.normal(size=(b, q, 1)) * 0.7))[..., 0] + 0.5)
    y = rng.poisson(mean * rng.gamma(1 / alpha[:, None], alpha[:, None], (b, n))).astype(float)
    data = {"x": x, "y": y}
    start = model.starts(data)
    alphas = np.concatenate([start["alpha"], *(np.full(b, value) for value in (0.01, 0.3, 3.0))])
    fourfold = {name: np.concatenate([leaf] * 4) for name, leaf in (start | data).items()}
    start = {"beta": fourfold["beta"], "alpha": alphas}
    data = {"x": fourfold["x"], "y": fourfold["y"]}
    own, *others = np.split(jm.fit_batch(model, start, data).loglik, 4)
    for other in others:
        assert np.all((own >= other - 1e-6) | ~np.isfinite(other))
