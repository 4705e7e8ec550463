"""A user's function whose program is a regression is summed as one: the same numbers by another road, and nothing but regressions is taken for one."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln, logsumexp
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.discovery.linear_predictors import as_regression
from jaxmle.likelihood.discovery.row_axes import is_rowwise
from jaxmle.likelihood.evaluate import sums
from jaxmle.likelihood.regression import Linear, Regression
from jaxmle.parameters.tree import layout_of
from tests.marks import thorough_where

N, Q, K = 40, 3, 4
RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.normal(size=(N, Q)), "z": RNG.normal(size=(N, 2)), "y": RNG.normal(size=N), "count": RNG.integers(0, 5, N).astype(float), "class": RNG.integers(0, K, N), "deep": {"w": RNG.normal(size=(N, 2))},
}  # fmt: skip
PARAMS = {
    "beta": RNG.normal(size=Q),
    "gamma": RNG.normal(size=2),
    "matrix": RNG.normal(size=(Q, K)),
    "cuts": np.array([-1.0, 0.5, 1.5]),
    "many": np.arange(8.0),
    "rate": np.array(1.3),
    "scale": np.array(0.7),
}
X, Z = Linear("x", "beta"), Linear("z", "gamma")


def gaussian(p, d):
    return -0.5 * ((d["y"] - d["x"] @ p["beta"]) / p["scale"]) ** 2 - jnp.log(p["scale"])


def negative_binomial(p, d):
    size, eta = 1 / p["scale"], d["x"] @ p["beta"]
    total = jnp.logaddexp(eta, jnp.log(size))
    return (
        gammaln(d["count"] + size)
        - gammaln(size)
        + size * (jnp.log(size) - total)
        + d["count"] * (eta - total)
    )


def classes(p, d):
    eta = d["x"] @ p["matrix"]
    return jnp.take_along_axis(eta, d["class"][:, None], axis=1)[:, 0] - logsumexp(eta, axis=1)


def inflated(p, d):
    zero, rate = jnp.einsum("ij,j->i", d["z"], p["gamma"]), jnp.exp(d["x"] @ p["beta"])
    return jnp.where(
        d["count"] == 0, jnp.logaddexp(zero, -rate), d["count"] * jnp.log(rate) - rate
    ) - jax.nn.softplus(zero)


def ordered(p, d):
    cuts = jnp.concatenate([jnp.array([-jnp.inf]), p["cuts"], jnp.array([jnp.inf])])
    eta = d["x"] @ p["beta"]
    return jnp.log(
        jax.nn.sigmoid(cuts[d["class"] + 1] - eta) - jax.nn.sigmoid(cuts[d["class"]] - eta)
    )


REGRESSIONS = {
    "gaussian": (gaussian, (X, "scale")),
    "negative binomial": (negative_binomial, (X, "scale")),
    "classes": (classes, (Linear("x", "matrix"),)),
    "two designs": (inflated, (Z, X)),
    "cutpoints": (ordered, (X, "cuts")),
    "by rows": (
        lambda p, d: jax.vmap(lambda x, y: -((y - x @ p["beta"]) ** 2))(d["x"], d["y"]),
        (X,),
    ),
    "coefficients first": (
        lambda p, d: -((d["y"] - jnp.einsum("j,ij->i", p["beta"], d["x"])) ** 2),
        (X,),
    ),
    "a design deeper down": (
        lambda p, d: -((d["y"] - d["deep"]["w"] @ p["gamma"]) ** 2),
        (Linear("deep.w", "gamma"),),
    ),
    "twice": (
        lambda p, d: d["y"] * (d["x"] @ p["beta"]) - jax.nn.softplus(d["x"] @ p["beta"]),
        (X,),
    ),
    "coefficients shared by two designs": (
        lambda p, d: (
            -((d["y"] - jnp.tanh(d["z"] @ p["gamma"]) * (d["deep"]["w"] @ p["gamma"])) ** 2)
        ),
        (Z, Linear("deep.w", "gamma")),
    ),
    "coefficients that enter twice": (
        lambda p, d: (
            -((d["y"] - d["x"] @ p["beta"]) ** 2) - (d["z"] @ p["gamma"]) ** 2 * p["beta"][0]
        ),
        (Z, "beta"),
    ),
    "under jit": (jax.jit(gaussian), (X, "scale")),
    "few constants": (
        lambda p, d: -((d["y"] - jnp.exp(p["scale"] * d["count"])) ** 2) * p["rate"],
        ("rate", "scale"),
    ),
}
OTHERS = {
    "many constants": lambda p, d: -((d["y"] - p["many"][d["class"]]) ** 2),
    "more predictors than pay": lambda p, d: (
        -((d["y"] - d["x"] @ p["beta"] - p["many"][d["class"]]) ** 2)
    ),
    "rows that meet": lambda p, d: -((d["y"] - jnp.mean(d["y"]) - d["x"] @ p["beta"]) ** 2),
    "a design made of another": lambda p, d: -((d["y"] - (d["x"] ** 2) @ p["beta"]) ** 2),
    "coefficients made of others": lambda p, d: -((d["y"] - d["x"] @ jnp.exp(p["beta"])) ** 2),
    "other for few rows": lambda p, d: (
        -((d["y"] - d["x"] @ p["beta"]) ** 2) + (p["scale"] * d["y"] if len(d["y"]) < N else 0.0)
    ),
    "a matrix that enters as it is": lambda p, d: (
        -((d["y"] - d["z"] @ p["gamma"]) ** 2) * p["matrix"][0, d["class"]] ** 2
    ),
    "one number": lambda p, d: -jnp.sum((d["y"] - d["x"] @ p["beta"]) ** 2),
}


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def seen(function, params=PARAMS, data=DATA):
    layout = layout_of(params, None)
    base = np.asarray(layout.ravel(params))
    tree = as_tree(function)
    return (
        as_regression(tree, layout, base, data) if is_rowwise(tree, layout, base, data) else tree,
        layout,
        base,
    )


@pytest.mark.parametrize(
    "name", thorough_where(REGRESSIONS, lambda name: name in ("two designs", "cutpoints"))
)
def test_a_regression_is_seen_and_has_the_same_value_score_and_hessian(double, name):
    function, forms = REGRESSIONS[name]
    found, layout, base = seen(function)
    assert found.forms == forms
    by_differentiation = sums(as_tree(function), layout, base, DATA, DATA["count"])
    for mine, theirs in zip(
        sums(found, layout, base, DATA, DATA["count"])[:4], by_differentiation[:4], strict=True
    ):
        assert_allclose(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_regression_stays_as_it_is(double, name):
    assert not isinstance(seen(OTHERS[name])[0], Regression)


def test_what_has_no_name_stays_as_it_is(double):
    """Parameters in one bare array; a design that is all the data."""
    assert not isinstance(
        seen(lambda theta, d: -((d["y"] - d["x"] @ theta) ** 2), np.ones(Q))[0], Regression
    )
    assert not isinstance(
        seen(lambda p, x: -((x @ p["beta"]) ** 2), {"beta": np.ones(Q)}, DATA["x"])[0], Regression
    )


def test_data_in_a_tuple(double):
    found, _, _ = seen(
        lambda p, d: -((d[1] - d[0] @ p["beta"]) ** 2), {"beta": np.ones(Q)}, (DATA["x"], DATA["y"])
    )
    assert found.forms == (Linear("0", "beta"),)


def test_under_weights_penalties_and_fixed_entries(double):
    loglik = jm.fix(jm.penalize(gaussian, jm.ridge(0.3)), {"gamma": np.zeros(2)})
    found, layout, base = seen(loglik)
    assert isinstance(found.loglik.loglik, Regression)
    for mine, theirs in zip(
        sums(found, layout, base, DATA)[:4], sums(loglik, layout, base, DATA)[:4], strict=True
    ):
        assert_allclose(mine, theirs, rtol=1e-11, atol=1e-11)


def test_its_own_rules_of_differentiation_stay(double):
    """``softplus`` has a rule; without it the derivatives at 800 are NaN."""
    found, layout, base = seen(
        lambda p, d: d["y"] - jax.nn.softplus(d["x"] @ p["beta"]), {"beta": np.full(Q, 800.0)}
    )
    assert isinstance(found, Regression)
    assert np.all(np.isfinite(sums(found, layout, base, DATA).hessian))


# ---------------------------------------------------------------- fits

FIT = importlib.import_module("jaxmle.fitting.fit")
BATCH = importlib.import_module("jaxmle.batch.batch")


def sample(n, seed):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    return {"x": x, "y": x @ [0.5, -1.0] + rng.standard_t(4, size=n)}


def linear(p, d):
    return -0.5 * ((d["y"] - d["x"] @ p["beta"]) / p["sigma"]) ** 2 - jnp.log(p["sigma"])


START = {"beta": np.zeros(2), "sigma": 1.0}
OPTIONS = {"constraints": {"sigma": jm.positive}}


def assert_same(one, other):
    assert np.all(one.converged)
    assert np.all(other.converged)
    assert_allclose((one.x - other.x) / other.se, 0.0, atol=1e-9)
    assert_allclose(one.se, other.se, rtol=1e-9)
    assert_allclose(one.loglik, other.loglik, rtol=1e-12)


def both(monkeypatch, room, fit):
    """The fit by the road that was found and by the general one."""
    found = []
    monkeypatch.setattr(
        room, "as_regression", lambda *args: found.append(as_regression(*args)) or found[-1]
    )
    one = fit()
    assert isinstance(found[0], Regression) or isinstance(found[0].loglik, Regression)
    monkeypatch.setattr(room, "as_regression", lambda loglik, *_: loglik)
    return one, fit()


@pytest.mark.parametrize("vcov", ["observed", "HC3", "CR1"])
def test_a_long_fit_by_either_road(monkeypatch, vcov):
    data, groups = sample(17_000, 1), np.arange(17_000) % 40
    clusters = {"clusters": groups} if vcov == "CR1" else {}
    assert_same(
        *both(
            monkeypatch, FIT, lambda: jm.fit(linear, START, data, vcov=vcov, **clusters, **OPTIONS)
        )
    )


def test_a_batch_of_unequal_members_by_either_road(monkeypatch):
    monkeypatch.setattr(BATCH, "MIN_ROWS_FOR_FLOAT32_START", 1)
    members = [sample(n, seed) for seed, n in enumerate((40, 55, 64, 40))]
    assert_same(*both(monkeypatch, BATCH, lambda: jm.fit_batch(linear, START, members, **OPTIONS)))


def test_a_design_that_all_members_share(monkeypatch):
    monkeypatch.setattr(BATCH, "MIN_ROWS_FOR_FLOAT32_START", 1)
    data = sample(60, 3)
    responses = np.stack([np.roll(data["y"], shift) for shift in range(8)])

    def run():
        return jm.fit_batch(
            linear,
            START,
            {"x": data["x"], "y": responses},
            in_axes={"x": None, "y": 0},
            weights=jm.frequency(np.arange(60) % 3),
            **OPTIONS,
        )

    assert_same(*both(monkeypatch, BATCH, run))


def of_scale(scale):
    """A likelihood by a function of its own, as another process would have it."""
    return lambda p, d: -0.5 * ((d["y"] - d["x"] @ p["beta"]) / scale) ** 2


def test_a_checkpoint_knows_the_function_by_what_it_computes(monkeypatch, tmp_path):
    monkeypatch.setattr(BATCH, "MIN_ROWS_FOR_FLOAT32_START", 1)
    members, start = [sample(40, seed) for seed in range(4)], {"beta": np.zeros(2)}

    def run(scale):
        return jm.fit_batch(of_scale(scale), start, members, checkpoint=tmp_path / "kept")

    first, again = run(2.0), run(2.0)
    assert np.array_equal(first.x, again.x)
    with pytest.raises(ValueError, match="belongs to another run"):
        run(3.0)


@pytest.mark.parametrize("softplus", [jax.nn.softplus, jm.special.softplus], ids=["jax", "special"])
def test_a_found_regression_is_not_compiled_again_at_each_call(softplus, caplog):
    """The function inside of its density was not seen: every fit of 16 384 rows or more took five times as long."""
    rng = np.random.default_rng(5)
    data = {"x": rng.normal(size=(2**14, 2)), "y": rng.integers(0, 2, 2**14).astype(float)}

    def logit(params, data):
        eta = data["x"] @ params["beta"]
        return data["y"] * eta - softplus(eta)

    first = jm.fit(logit, {"beta": np.zeros(2)}, data)
    assert first.evaluation == "found"
    with jax.log_compiles(), caplog.at_level("WARNING"):
        again = jm.fit(logit, {"beta": np.zeros(2)}, data)
    assert not [r for r in caplog.records if "likelihood_piece" in r.getMessage()]
    assert np.array_equal(first.x, again.x)


def test_a_changed_closure_changes_a_found_regression():
    """What the function inside of the density depends on is watched as that of any other."""
    rng = np.random.default_rng(6)
    data = {"x": rng.normal(size=(2**14, 2))}

    def logit(params, data):
        eta = data["x"] @ params["beta"]
        return shift[0] * eta - jax.nn.softplus(eta) + 0.0 * data["x"][:, 0]

    shift = [0.25]
    before = jm.fit(logit, {"beta": np.zeros(2)}, data)
    shift[0] = 0.75
    after = jm.fit(logit, {"beta": np.zeros(2)}, data)
    assert before.evaluation == after.evaluation == "found"
    x = data["x"]
    for fit, target in ((before, 0.25), (after, 0.75)):  # the score is zero at each maximum
        p = 1 / (1 + np.exp(-x @ fit.params["beta"]))
        assert np.max(np.abs(x.T @ (target - p))) < 1e-6 * np.sqrt(len(x))
