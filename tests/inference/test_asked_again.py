"""What was fitted is what is asked again: the same data, the same weights of the same kind, the same axes."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.inference.diagnostics.disagreement import disagreement
from jaxmle.inference.diagnostics.influence import influence
from jaxmle.inference.hypotheses.hauck_donner import hauck_donner
from jaxmle.inference.profiles.contour import contour
from jaxmle.inference.profiles.profile import profile
from jaxmle.inference.resampling.bootstrap import bootstrap
from jaxmle.inference.resampling.jackknife import jackknife
from tests.likelihoods import logit

RNG = np.random.default_rng(17)
N, B = 12, 3
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
Y = (RNG.uniform(size=(B, N)) < 0.5).astype(float)
W = np.full(N, 4.0)
DATA = {"y": Y[0], "x": X}
START = {"beta": np.zeros(2)}


def halves(fit, data, **options):
    return jm.infinitesimal_jackknife(logit, fit, data, **options)


DOORS = {
    "profile": lambda fit, data, **o: profile(logit, fit, data, "beta[1]", **o),
    "contour": lambda fit, data, **o: contour(logit, fit, data, ("beta[0]", "beta[1]"), points=4, **o),
    "score_test": lambda fit, data, **o: jm.score_test(logit, fit, data, **o),
    "tic": lambda fit, data, **o: jm.tic(logit, fit, data, **o),
    "influence": lambda fit, data, **o: influence(logit, fit, data, **o),
    "hauck_donner": lambda fit, data, **o: hauck_donner(logit, fit, data, **o),
    "disagreement": lambda fit, data, **o: disagreement(logit, fit, data, **o),
    "bootstrap": lambda fit, data, **o: bootstrap(logit, fit, data, key=0, replicates=9, **o),
    "jackknife": lambda fit, data, **o: jackknife(logit, fit, data, **o),
    "infinitesimal_jackknife": halves,
    "curve": lambda fit, data, **o: jm.plots.likelihood_curve(logit, fit, data, "beta[1]", **o),
}  # fmt: skip


@pytest.fixture(scope="module")
def weighted():
    return jm.fit(logit, START, DATA, weights=jm.frequency(W))


@pytest.fixture(scope="module")
def plain():
    return jm.fit(logit, START, DATA)


@pytest.mark.parametrize("door", DOORS)
def test_a_weighted_fit_is_not_asked_without_its_weights(door, weighted):
    """A fit with frequency weights 4, profiled without them, had its upper end at 0.998 in place of 0.661."""
    ask = DOORS[door]
    with pytest.raises(
        ValueError, match=r"'frequency'.*give the weights that were used in the fit"
    ):
        ask(weighted, DATA)
    with pytest.raises(ValueError, match="'sampling'"):
        ask(weighted, DATA, weights=jm.sampling(W))
    with pytest.raises(ValueError, match="weights are not those of the fit"):
        ask(weighted, DATA, weights=jm.frequency(W + (np.arange(N) == 5)))


@pytest.mark.parametrize("door", DOORS)
def test_a_plain_fit_takes_neither_weights_nor_other_data(door, plain):
    ask = DOORS[door]
    with pytest.raises(ValueError, match="leave the weights out"):
        ask(plain, DATA, weights=jm.frequency(W))
    with pytest.raises(ValueError, match="not those of the fit"):
        ask(plain, DATA | {"y": 1 - DATA["y"]})


def test_the_profile_under_frequency_weights_is_that_of_repeated_rows(weighted):
    rows = {name: np.repeat(leaf, 4, axis=0) for name, leaf in DATA.items()}
    repeated = profile(logit, jm.fit(logit, START, rows), rows, "beta[1]")
    found = profile(logit, weighted, DATA, "beta[1]", weights=jm.frequency(W))
    assert_allclose(found.interval(), repeated.interval(), rtol=1e-8)


def test_weights_inside_the_likelihood_are_the_same_weights(weighted):
    inside = jm.weight(logit, jm.frequency(W))
    assert np.array_equal(jm.fit(inside, START, DATA).data_id, weighted.data_id)
    outside = jm.tic(logit, weighted, DATA, weights=jm.frequency(W))
    assert_allclose(jm.tic(inside, weighted, DATA).value, outside.value, rtol=1e-12)


def test_profile_end_differentiates_the_weighted_likelihood(weighted):
    def upper(times):
        w = jm.frequency(np.full(N, float(times)))
        fit = jm.fit(logit, START, DATA, weights=w)
        return fit, profile(logit, fit, DATA, "beta[1]", weights=w)

    (fit, found), below, above = upper(400), upper(396)[1].upper[0], upper(404)[1].upper[0]
    w = np.full(N, 400.0)
    with jax.enable_x64(True):

        def end(w):
            return jm.profile_end(logit, fit, found, DATA, "beta[1]", weights=jm.frequency(w))

        slope = float(jax.jit(lambda w: jax.jvp(end, (w,), (np.ones(N),))[1])(w))
    assert_allclose(slope, (above - below) / 8, rtol=1e-3)  # a difference over two per cent
    with pytest.raises(ValueError, match="'frequency'"):
        jm.profile_end(logit, weighted, found, DATA, "beta[1]")


# ---------------------------------------------------------------- a batch


AXES = {
    "first": (0, lambda a: a),
    "last": (-1, lambda a: np.moveaxis(a, 0, -1)),
    "second": (1, lambda a: np.moveaxis(a, 0, 1)),
}


@pytest.mark.parametrize("name", AXES)
def test_a_negative_axis_is_an_axis_and_not_shared(name):
    axis, move = AXES[name]
    stacked = {"y": move(Y), "x": X}
    axes = {"y": axis, "x": None}
    fits = jm.fit_batch(logit, START, stacked, in_axes=axes, params_axis=None, progress=False)
    expected = [jm.fit(logit, START, {"y": y, "x": X}) for y in Y]
    assert_allclose(fits.x, [fit.x for fit in expected], rtol=1e-9)
    assert np.array_equal(fits.data_id, [fit.data_id for fit in expected])
    found = jm.tic(logit, fits, stacked, in_axes=axes)
    alone = [jm.tic(logit, fit, {"y": y, "x": X}) for fit, y in zip(expected, Y, strict=True)]
    assert_allclose(found.value, [one.value for one in alone], rtol=1e-9)
    moved = influence(logit, fits, stacked, in_axes=axes)
    assert_allclose(
        moved.cook[1], influence(logit, expected[1], {"y": Y[1], "x": X}).cook, rtol=1e-8
    )
    ends = profile(logit, fits, stacked, "beta[1]", in_axes=axes)
    assert_allclose(
        ends.upper[2],
        profile(logit, expected[2], {"y": Y[2], "x": X}, "beta[1]").upper,
        rtol=1e-7,
    )


def test_minus_one_of_a_square_leaf_is_its_last_axis():
    """in_axes=-1 was read as "shared by all members"."""
    square = np.vstack([Y, 1 - Y, Y[:, ::-1], 1 - Y[:, ::-1]])  # (12, 12): both axes fit
    axes = {"y": -1, "x": None}
    fits = jm.fit_batch(
        logit, START, {"y": square, "x": X}, in_axes=axes, params_axis=None, progress=False
    )
    with pytest.raises(ValueError, match="not those of the fit"):
        jm.tic(logit, fits, {"y": square, "x": X}, in_axes={"y": 0, "x": None})
    found = jm.tic(logit, fits, {"y": square, "x": X}, in_axes=axes)
    one = jm.tic(
        logit, jm.fit(logit, START, {"y": square[:, 3], "x": X}), {"y": square[:, 3], "x": X}
    )
    assert_allclose(found.value[3], one.value, rtol=1e-9)


def test_a_batch_is_asked_with_the_data_and_the_weights_of_its_members():
    stacked, axes = {"y": Y, "x": X}, {"y": 0, "x": None}
    w = np.stack([W, W + 1, W + 2])
    fits = jm.fit_batch(
        logit,
        START,
        stacked,
        weights=jm.frequency(w),
        in_axes=axes,
        params_axis=None,
        progress=False,
    )
    other = w.copy()
    other[2, 0] += 1
    for ask in (jm.tic, lambda *a, **o: profile(*a, "beta[1]", **o)):
        with pytest.raises(ValueError, match="weights of member 2 are not those of the fit"):
            ask(logit, fits, stacked, weights=jm.frequency(other), in_axes=axes)
        with pytest.raises(ValueError, match="of member 1 are not those of the fit"):
            changed = Y.copy()
            changed[1] = 1 - changed[1]
            ask(logit, fits, {"y": changed, "x": X}, weights=jm.frequency(w), in_axes=axes)
    assert np.isfinite(
        jm.tic(logit, fits, stacked, weights=jm.frequency(w), in_axes=axes).value
    ).all()


def test_a_ragged_batch_is_asked_with_its_own_rows():
    lists = [{"y": Y[0], "x": X}, {"y": Y[1][:9], "x": X[:9]}]
    fits = jm.fit_batch(logit, START, lists, params_axis=None, progress=False)
    assert np.isfinite(profile(logit, fits, lists, "beta[1]").upper).all()
    with pytest.raises(ValueError, match="of member 1 are not those of the fit"):
        profile(logit, fits, [lists[0], {"y": 1 - Y[1][:9], "x": X[:9]}], "beta[1]")


def test_a_float32_fit_is_known_again_in_float64():
    fit = jm.fit(logit, START, DATA, dtype="float32")
    assert np.isfinite(profile(logit, fit, DATA, "beta[1]").upper).all()


# ---------------------------------------------------------------- response, rows and weights decide, not the design


def test_models_of_one_response_compare_whatever_their_designs():
    pytest.importorskip("formulaic")
    rng = np.random.default_rng(3)
    table = {"y": rng.poisson(3.0, 40), "x": rng.normal(size=40), "z": rng.normal(size=40)}
    model = jm.models.poisson()
    small, full = (jm.from_formula(text, table).fit(model) for text in ("y ~ x", "y ~ x + z"))
    test = jm.lr_test(small, full)
    assert_allclose(test.statistic, 2 * (full.loglik - small.loglik), rtol=1e-12)
    assert jm.compare(small, full).names == ("model 0", "model 1")
    overdispersed = jm.from_formula("y ~ x + z", table).fit(jm.models.negative_binomial())
    assert len(jm.compare(small, full, overdispersed).aic) == 3
    other = jm.from_formula("y ~ x + z", table | {"y": table["y"] + 1}).fit(model)
    with pytest.raises(ValueError, match="other data"):
        jm.lr_test(small, other)
    weighted = jm.from_formula("y ~ x + z", table, weights=jm.frequency(np.full(40, 2))).fit(model)
    heavier = jm.from_formula("y ~ x", table, weights=jm.frequency(np.arange(40) % 2 * 2 + 1)).fit(
        model
    )
    with pytest.raises(ValueError, match="other data"):
        jm.lr_test(heavier, weighted)


def test_groups_of_two_formulas_compare_member_by_member():
    pytest.importorskip("formulaic")
    rng = np.random.default_rng(4)
    table = {"y": rng.poisson(3.0, 60), "x": rng.normal(size=60), "g": np.arange(60) % 2}
    model = jm.models.poisson()
    small, full = (
        jm.fit_groups(model, None, table, by="g", formula=text, progress=False).fits
        for text in ("y ~ 1", "y ~ x")
    )
    assert_allclose(jm.lr_test(small, full).statistic, 2 * (full.loglik - small.loglik))


def test_a_function_of_its_own_design_has_no_known_response():
    rng = np.random.default_rng(5)
    y, x = rng.normal(size=20), rng.normal(size=20)
    one = jm.fit(lambda p, d: -0.5 * (d["y"] - p["a"]) ** 2, {"a": 0.0}, {"y": y})
    two = jm.fit(
        lambda p, d: -0.5 * (d["y"] - p["a"] - p["b"] * d["x"]) ** 2,
        {"a": 0.0, "b": 0.0},
        {"y": y, "x": x},
    )
    assert not np.any(one.response_id)
    with pytest.raises(ValueError, match="same data tree"):
        jm.lr_test(one, two)


def test_a_record_keeps_the_fingerprint_of_its_response(tmp_path):
    data = {"y": np.array([0.0, 1, 3, 2]), "x": X[:4]}
    fit = jm.fit(jm.models.poisson(), data=data)
    fit.save(tmp_path / "fit.npz")
    assert np.any(fit.response_id)
    assert np.array_equal(jm.Fit.load(tmp_path / "fit.npz").response_id, fit.response_id)
