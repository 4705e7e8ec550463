"""Terms that look at other rows: never padded, never weighted in silence. A mean, a lag, 1/n inside a likelihood once saw the padding of a
ragged batch, and its estimates were CONVERGED and wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle import models
from jaxmle.batch.members import padding
from jaxmle.batch.members.read import read_batch
from jaxmle.fitting.options import Options
from jaxmle.inference.diagnostics.influence import influence
from jaxmle.inference.resampling.bootstrap import bootstrap
from jaxmle.inference.resampling.jackknife import infinitesimal_jackknife, jackknife
from jaxmle.solvers.status import Status

RNG = np.random.default_rng(0)
START = {"a": 0.1}


def sample(n):
    y = 1.0 + RNG.normal(size=n)
    return {
        "y": y,
        "x": RNG.normal(size=(n, 3)),
        "group": np.arange(n) % 3,
        "share": np.full(n, 1.0 / n),
        "mean": np.full(n, y.mean()),
    }


SETS = [sample(n) for n in (5, 7, 9)]


def own(p, y):
    return -0.5 * (y - p["a"]) ** 2


def running(p, d):
    """A recursion along the rows."""
    before = jax.lax.scan(lambda s, y: (p["a"] * s + y, s), 0.0, d["y"])[1]
    return -0.5 * (d["y"] - p["a"] * before) ** 2


def until_all_are_near(p, d):
    def step(s):
        return 0.5 * (s + d["y"])

    near = jax.lax.while_loop(
        lambda s: jnp.max(jnp.abs(s - d["y"])) > 0.1, step, jnp.zeros_like(d["y"])
    )
    return own(p, near)


def in_small_samples(p, d):
    return own(p, d["y"]) if d["y"].shape[0] < 8 else 2.0 * own(p, d["y"])


def of_seven_rows(p, d):
    return own(p, d["y"]) if d["y"].shape[0] != 7 else own(p, d["y"] - 1.0)


def rank(y):
    return jnp.argsort(jnp.argsort(y)).astype(y.dtype)


MIXED = {
    "mean": lambda p, d: own(p, d["y"] - d["y"].mean()),
    "standardised": lambda p, d: own(p, (d["y"] - d["y"].mean()) / d["y"].std()),
    "share of an extended term, by shape": lambda p, d: (
        (jnp.log(p["a"]) - p["a"] / d["y"].shape[0]) * jnp.ones_like(d["y"])
    ),
    "share, by len": lambda p, d: own(p, d["y"]) - p["a"] / len(d["y"]),
    "share, by a sum of ones": lambda p, d: (
        own(p, d["y"]) - p["a"] / jnp.sum(jnp.ones_like(d["y"]))
    ),
    "share, by a loop of n turns": lambda p, d: (
        own(p, d["y"]) - p["a"] / jax.lax.fori_loop(0, d["y"].shape[0], lambda i, c: c + 1.0, 0.0)
    ),
    "sorted": lambda p, d: own(p, jnp.sort(d["y"]) * jnp.linspace(0.0, 1.0, len(d["y"]))),
    "running sum": lambda p, d: own(p, jnp.cumsum(d["y"])),
    "difference": lambda p, d: own(p, jnp.diff(d["y"], prepend=0.0)),
    "lag": lambda p, d: (
        -0.5 * (d["y"] - p["a"] * jnp.concatenate([jnp.zeros(1), d["y"][:-1]])) ** 2
    ),
    "lead": lambda p, d: jnp.concatenate(
        [-0.5 * (d["y"][:-1] - p["a"] * d["y"][1:]) ** 2, jnp.zeros(1)]
    ),
    "rolled": lambda p, d: -0.5 * (d["y"] - p["a"] * jnp.roll(d["y"], 1)) ** 2,
    "rank": lambda p, d: own(p, rank(d["y"])),
    "maximum": lambda p, d: own(p, d["y"] / jnp.max(d["y"])),
    "softmax": lambda p, d: jax.nn.log_softmax(p["a"] * d["y"]) * d["y"] ** 2,
    "means of groups": lambda p, d: own(
        p, d["y"] - jax.ops.segment_sum(d["y"], d["group"], 3)[d["group"]] / 3.0
    ),
    "kernel": lambda p, d: own(p, jnp.exp(-((d["y"][:, None] - d["y"][None, :]) ** 2)) @ d["y"]),
    "spectrum": lambda p, d: own(p, jnp.abs(jnp.fft.fft(d["y"]))),
    "moving average": lambda p, d: own(p, jnp.convolve(d["y"], jnp.ones(3) / 3, mode="same")),
    "recursion": running,
    "first row": lambda p, d: own(p, d["y"] - d["y"][0]),
    "last row": lambda p, d: own(p, d["y"] - d["y"][-1]),
    "trend": lambda p, d: -0.5 * (d["y"] - p["a"] * jnp.arange(d["y"].shape[0])) ** 2,
    "median": lambda p, d: own(p, d["y"] - jnp.median(d["y"])),
    "reversed": lambda p, d: -0.5 * (d["y"] - p["a"] * d["y"][::-1]) ** 2,
    "projection": lambda p, d: own(p, jnp.linalg.qr(d["x"])[0][:, 0] + d["y"]),
    "a loop until all rows are near": until_all_are_near,
    "another formula for few rows": in_small_samples,
    "another formula for seven rows": of_seven_rows,
}


def newton(target):
    """log target, by Newton's method, for one row."""
    return jax.lax.while_loop(
        lambda s: jnp.abs(jnp.exp(s) - target) > 1e-9,
        lambda s: s - (jnp.exp(s) - target) / jnp.exp(s),
        jnp.zeros_like(target),
    )


def along_columns(p, d):
    total = jax.lax.scan(lambda s, x: (p["a"] * s + x, None), jnp.zeros_like(d["y"]), d["x"].T)[0]
    return -0.5 * (d["y"] - total) ** 2


APART = {
    "branches": lambda p, d: jnp.where(d["y"] > 0, own(p, d["y"]), 2.0 * own(p, d["y"])),
    "row by row": lambda p, d: jax.vmap(lambda y, x: own(p, y - x @ x))(d["y"], d["x"]),
    "a loop for each row": lambda p, d: own(p, jax.vmap(newton)(1.0 + d["y"] ** 2)),
    "a loop along columns": along_columns,
    "a recursion within each row": lambda p, d: jax.vmap(
        lambda y, x: own(p, y - jax.lax.scan(lambda s, v: (0.5 * s + v, None), 0.0, x)[0])
    )(d["y"], d["x"]),
    "a map over rows": lambda p, d: jax.lax.map(
        lambda row: own(p, row[0] + row[1][0]), (d["y"], d["x"])
    ),
    "products": lambda p, d: own(p, d["y"] - d["x"] @ jnp.array([1.0, 2.0, 3.0])),
    "effects of groups": lambda p, d: own(p, d["y"] - jnp.arange(3.0)[d["group"]]),
    "one branch for all rows": lambda p, d: jax.lax.cond(
        p["a"] > 0, lambda y: own(p, y), lambda y: own(p, 2.0 * y), d["y"]
    ),
    "sorted within each row": lambda p, d: own(p, jnp.median(d["x"], axis=1) + d["y"]),
    "put into columns": lambda p, d: own(p, d["x"].at[:, 1].set(d["y"]).at[:, 1:].add(1.0).sum(1)),
    "a triangular system": lambda p, d: own(
        p, jax.scipy.linalg.solve_triangular(np.tri(3), d["x"].T, lower=True)[2] + d["y"]
    ),
    "1/n as a column": lambda p, d: own(p, d["y"]) - p["a"] * d["share"],
}


def runs_unpadded(loglik, sets=SETS, start=START):
    with jax.enable_x64(True):
        found = read_batch(loglik, start, sets, Options(), 0, "auto")
    assert found.source.padded == (not found.unpadded)
    return bool(found.unpadded)


@pytest.mark.parametrize("name", MIXED)
def test_whoever_looks_at_other_rows_is_not_padded(name):
    assert runs_unpadded(MIXED[name])


@pytest.mark.parametrize("name", APART)
def test_whoever_looks_at_its_own_row_is_padded(name):
    assert not runs_unpadded(APART[name])


@pytest.mark.parametrize("name", ["mean", "share of an extended term, by shape", "lead", "trend"])
def test_a_ragged_batch_that_looked_at_its_padding_equals_single_fits(name):
    fits = jm.fit_batch(MIXED[name], START, SETS, progress=False)
    for member, data in zip(fits, SETS, strict=True):
        alone = jm.fit(MIXED[name], START, data)
        assert int(member.status) == int(alone.status)
        assert_allclose((member.x - alone.x) / alone.se, 0.0, atol=1e-9)
        assert_allclose(member.se, alone.se, rtol=1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize("name", {**MIXED, **APART})
def test_every_ragged_batch_equals_single_fits(name):
    loglik = {**MIXED, **APART}[name]
    fits = jm.fit_batch(loglik, START, SETS, progress=False)
    for member, data in zip(fits, SETS, strict=True):
        alone = jm.fit(loglik, START, data)
        assert int(member.status) == int(alone.status)
        assert_allclose((member.x - alone.x) / alone.se, 0.0, atol=1e-9)


def test_groups_whose_terms_are_centred_have_their_own_centre():
    y = np.concatenate([data["y"] for data in SETS])
    by = np.repeat([0, 1, 2], [5, 7, 9])
    found = jm.fit_groups(MIXED["mean"], START, {"y": y}, by=by, progress=False)
    assert_allclose(found.fits.params["a"], 0.0, atol=1e-9)


def test_a_centred_group_without_rows_has_no_estimate():
    centred = MIXED["mean"]
    empty = jax.tree.map(lambda leaf: leaf[:0], SETS[0])
    one = jax.tree.map(lambda leaf: leaf[:1], SETS[0])
    fits = jm.fit_batch(centred, START, [SETS[0], empty, one, SETS[1]], progress=False)
    assert_array_equal(fits.n, [5, 0, 1, 7])
    assert fits.status[1] == Status.UNIDENTIFIED
    assert_allclose(fits.params["a"][[0, 2, 3]], 0.0, atol=1e-9)


def test_weights_and_clusters_are_cut_with_unpadded_members():
    """Another formula for few rows is one of each row alone at any one length, and may be weighted; but its members are not padded."""
    loglik = MIXED["another formula for few rows"]
    times = [RNG.integers(1, 4, len(data["y"])) for data in SETS]
    schools = [np.arange(len(data["y"])) % 4 for data in SETS]
    fits = jm.fit_batch(loglik, START, SETS, clusters=schools, progress=False)
    assert_allclose(fits.se[1], jm.fit(loglik, START, SETS[1], clusters=schools[1]).se, rtol=1e-9)
    weighted = jm.fit_batch(loglik, START, SETS, weights=jm.frequency(times), progress=False)
    for member, data, w in zip(weighted, SETS, times, strict=True):
        assert_allclose(member.params["a"], np.average(data["y"], weights=w), rtol=1e-10)


def test_one_part_of_a_pool_that_looks_at_other_rows_leaves_the_pool_unpadded():
    apart, mixed = APART["branches"], MIXED["mean"]
    pairs = [(SETS[i], SETS[(i + 1) % 3]) for i in range(3)]
    assert not runs_unpadded(jm.pool(apart, apart), pairs)
    assert runs_unpadded(jm.pool(apart, mixed), pairs)
    assert runs_unpadded(jm.pool(jm.penalize(mixed, jm.ridge(1.0)), apart), pairs)


def test_too_many_lengths_are_refused_by_name_before_anything_is_compiled(monkeypatch):
    monkeypatch.setattr(padding, "MAX_LENGTHS_WITHOUT_PADDING", 2)
    with pytest.raises(
        ValueError, match=r"reduce_sum in line \d+ of test_rows_apart.py.*3 lengths"
    ):
        jm.fit_batch(MIXED["mean"], START, SETS)
    equal = [SETS[0], SETS[0], SETS[1], SETS[1]]
    assert runs_unpadded(MIXED["mean"], equal)  # two lengths


def test_members_of_one_length_need_no_proof():
    assert not runs_unpadded(MIXED["mean"], [SETS[0], SETS[0]])


def test_the_line_of_progress_says_why_members_are_not_padded(capfd):
    jm.fit_batch(MIXED["mean"], START, SETS, progress=True)
    assert "3 lengths without padding: the operation reduce_sum" in capfd.readouterr().err


# ---------------------------------------------------------------- weights, blocks, resampling

# Of forty rows the other formulas are one of each row; the loop turns as often for some of them as for all, so that no term shows what it looks at.
NOT_SHOWN = (
    "another formula for few rows",
    "another formula for seven rows",
    "a loop until all rows are near",
)
SHOWN = [name for name in MIXED if name not in NOT_SHOWN]
LONG = sample(40)
MEAN = MIXED["mean"]
WEIGHTS = jm.frequency(np.arange(40) % 3)


@pytest.mark.parametrize("name", SHOWN)
def test_weights_on_terms_that_look_at_other_rows_are_refused(name):
    with pytest.raises(ValueError, match="the term of row"):
        jm.fit(MIXED[name], START, LONG, weights=WEIGHTS)


def test_weights_inside_a_likelihood_are_refused_too():
    with pytest.raises(ValueError, match="a weighted likelihood needs terms"):
        jm.fit(jm.penalize(jm.weight(MEAN, WEIGHTS), jm.ridge(1.0)), START, LONG)
    with pytest.raises(ValueError, match="a weighted likelihood needs terms"):
        jm.fit_batch(MEAN, START, LONG, in_axes=None, weights=jm.sampling(np.ones((2, 40))))


def test_a_response_that_is_closed_over_may_be_weighted():
    """Its terms belong to their places, but to no other row: the weighted mean is the closed form."""
    y = LONG["y"]
    fit = jm.fit(lambda p, d: own(p, y) + 0.0 * d, START, np.zeros(40), weights=WEIGHTS)
    assert_allclose(fit.params["a"], np.average(y, weights=np.arange(40) % 3), rtol=1e-12)


def test_rows_that_are_not_proved_but_tried_may_be_weighted():
    """A callback ends the proof; its rows are apart all the same."""

    def loglik(p, d):
        same = jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct(d.shape, d.dtype), d)
        return own(p, jax.lax.stop_gradient(same))

    fit = jm.fit(loglik, START, LONG["y"], weights=WEIGHTS, vcov=None)
    assert_allclose(fit.params["a"], np.average(LONG["y"], weights=np.arange(40) % 3), rtol=1e-12)


def test_blocks_of_rows_that_look_at_each_other_are_refused():
    for run in (
        jm.fit,
        lambda *args, **options: jm.fit_batch(*args, in_axes=None, params_axis=0, **options),
    ):
        start = START if run is jm.fit else {"a": np.zeros(2)}
        with pytest.raises(ValueError, match="block_rows needs terms"):
            run(MEAN, start, LONG, block_rows=8)
    with pytest.raises(ValueError, match="block_rows needs terms"):
        jm.fit(MIXED["last row"], START, LONG, block_rows=30)
    with pytest.raises(ValueError, match="block_rows needs terms"):
        jm.evaluate(MEAN, START, LONG, block_rows=8)
    with pytest.raises(ValueError, match="block_rows needs terms"):
        jm.fit(jm.pool(APART["branches"], MEAN), START, (LONG, LONG), block_rows=8)
    assert jm.fit(APART["branches"], START, LONG, block_rows=8).converged


def test_mini_batches_of_rows_that_look_at_each_other_are_refused():
    with pytest.raises(ValueError, match="a mini-batch needs terms"):
        jm.fit_stochastic(
            MIXED["maximum"], START, LONG, batch_size=8, optimizer=optax.sgd(1e-3), epochs=1, key=0
        )


def test_resampling_rows_that_look_at_each_other_is_refused():
    fit = jm.fit(MEAN, START, LONG)
    for kind in ("pairs", "bayesian"):
        with pytest.raises(ValueError, match=rf"kind='{kind}' needs terms.*kind='block'"):
            bootstrap(MEAN, fit, LONG, key=0, replicates=9, kind=kind)
    with pytest.raises(ValueError, match="the jackknife needs terms"):
        jackknife(MEAN, fit, LONG)
    with pytest.raises(ValueError, match="the infinitesimal jackknife needs terms"):
        infinitesimal_jackknife(MEAN, fit, LONG)
    with pytest.raises(ValueError, match="influence needs terms"):
        influence(MEAN, fit, LONG)


def test_clusters_within_which_rows_look_at_each_other_may_be_drawn():
    """Terms less the mean of their cluster: a cluster is a unit, a row is none."""

    def within(p, d):
        count = jax.ops.segment_sum(jnp.ones_like(d["y"]), d["group"], 10)
        centre = jax.ops.segment_sum(d["y"], d["group"], 10) / jnp.maximum(count, 1.0)
        return -0.5 * (d["y"] - centre[d["group"]] - p["a"] * d["x"][:, 0]) ** 2

    data = {**LONG, "group": np.arange(40) // 4}
    fit = jm.fit(within, START, data)
    with pytest.raises(ValueError, match="only on their own row"):
        jackknife(within, fit, data)
    deleted = jackknife(within, fit, data, clusters=data["group"], progress=False)
    keep = data["group"] != 3
    alone = jm.fit(within, START, jax.tree.map(lambda leaf: leaf[keep], data))
    assert_allclose(deleted.deleted[3], alone.x, rtol=1e-8)


# ---------------------------------------------------------------- built-in models

COUNTS = [
    {"x": np.column_stack([np.ones(n), RNG.normal(size=n)]), "y": RNG.poisson(2.0, n).astype(float)}
    for n in (9, 12, 14)
]
CHOICES = [
    {"x": RNG.normal(size=(n, 4, 2)), "y": np.eye(4)[RNG.integers(0, 4, n)]} for n in (9, 12, 14)
]
SERIES = [{"x": data["x"], "y": RNG.normal(size=len(data["y"]))} for data in COUNTS]
READY = {
    "a declared regression": (models.poisson(), COUNTS, False),
    "choices by strata": (models.conditional_logit(), CHOICES, False),
    "two cases a stratum": (models.conditional_logit(cases=2), CHOICES, False),
    "a family": (models.distribution(jm.families.gamma), [d["y"] + 1.0 for d in COUNTS], False),
    "a mixture": (
        models.distribution(jm.families.mixture(jm.families.normal, jm.families.normal)),
        [d["y"] + RNG.normal(size=len(d["y"])) for d in COUNTS],
        False,
    ),
    "a series": (models.ar1(), SERIES, True),
    "a variance along the rows": (models.garch(), [{"y": d["y"]} for d in SERIES], True),
    "risk sets": (
        models.cox(),
        [
            {"x": d["x"][:, 1:], "time": d["y"] ** 2 + 0.1, "event": np.ones(len(d["y"]))}
            for d in SERIES
        ],
        True,
    ),
}


@pytest.mark.parametrize("name", READY)
def test_ready_models_are_padded_where_rows_are_independent(name):
    model, sets, unpadded = READY[name]
    assert runs_unpadded(model, sets, None) == unpadded


@pytest.mark.parametrize("name", ["two cases a stratum", "risk sets"])
def test_ragged_ready_models_equal_single_fits(name):
    model, sets, _ = READY[name]
    fits = jm.fit_batch(model, None, sets, progress=False)
    for member, data in zip(fits, sets, strict=True):
        alone = jm.fit(model, data=data)
        assert_allclose((member.x - alone.x) / alone.se, 0.0, atol=1e-9)


def test_under_jit_weights_and_blocks_of_terms_that_mix_rows_gave_a_number():
    """The host refuses both; under jit and vmap they ran, and the estimate was that of no likelihood."""

    def mixing(p, y):
        return -0.5 * (y - y.mean() - p["a"]) ** 2

    y = np.random.default_rng(0).normal(size=30)
    w = np.arange(30.0)

    def weighted(w, f=mixing):
        return jm.fit(f, {"a": 0.0}, y, weights=jm.frequency(w)).params["a"]

    def blocks(y):
        return jm.fit(mixing, {"a": 0.0}, y, block_rows=7).params["a"]

    def summed(y):
        return jm.evaluate(mixing, {"a": 0.0}, y, block_rows=7).value

    with jax.enable_x64(True):
        for run, given in ((jax.jit(weighted), w), (jax.vmap(weighted), np.stack([w, w]))):
            with pytest.raises(ValueError, match="weighted likelihood needs terms that depend on"):
                run(given)
        for run in (blocks, summed):
            with pytest.raises(
                ValueError, match="block_rows needs terms that depend only on their own"
            ):
                jax.jit(run)(y)
        apart = jax.jit(lambda w: weighted(w, lambda p, y: -0.5 * (y - p["a"]) ** 2))(w)
    np.testing.assert_allclose(apart, np.average(y, weights=w), rtol=1e-12)
