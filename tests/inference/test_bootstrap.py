"""The bootstrap against closed forms, scipy's BCa and R's boot.ci, and where replicates fail."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle import Status
from jaxmle.inference import refit
from jaxmle.inference.resampling import intervals as ends
from jaxmle.inference.resampling.bootstrap import Bootstrap, bootstrap
from jaxmle.inference.resampling.jackknife import infinitesimal_jackknife
from jaxmle.inference.resampling.weights import plan_of
from tests.likelihoods import normal, poisson_kernel

R = 999
N = 40
RNG = np.random.default_rng(3)
Y = RNG.gamma(2.0, 2.0, N)
START, POSITIVE = {"mu": 4.0, "sigma": 2.0}, {"sigma": jm.positive}
ROOM = 4.5 / np.sqrt(
    2 * R
)  # 4.5 Monte-Carlo standard errors of a standard deviation of normal replicates, relative
DATA = Path(__file__).parent / "data"


def variation(params):
    return params["sigma"] / params["mu"]


def redraw(key, params, data):
    return params["mu"] + params["sigma"] * jax.random.normal(key, data.shape)


@pytest.fixture(scope="module")
def fit():
    return jm.fit(normal, START, Y, constraints=POSITIVE)


@pytest.fixture(scope="module")
def pairs(fit):
    return bootstrap(normal, fit, Y, key=1, replicates=R, vcov="observed", progress=False)


# ---------------------------------------------------------------- replicates are weighted fits


def test_a_pairs_replicate_is_the_fit_of_the_rows_that_were_drawn(fit, pairs):
    w = plan_of("pairs", normal, Y, None, None, None)(jax.random.key(1), np.arange(R)).values
    assert_array_equal(w.sum(axis=1), N)
    mean = w @ Y / N
    sd = np.sqrt((w * (Y - mean[:, None]) ** 2).sum(axis=1) / N)
    assert_allclose(pairs.replicates, np.stack([mean, sd], axis=1), rtol=1e-9)
    assert_allclose(
        pairs.replicate_se, np.stack([sd / np.sqrt(N), sd / np.sqrt(2 * N)], axis=1), rtol=1e-8
    )
    assert_allclose([pairs.estimate["mu"], pairs.estimate["sigma"]], [Y.mean(), Y.std()], rtol=1e-9)


def test_the_standard_error_of_a_mean_has_its_closed_form(pairs):
    """var ȳ* = Σ(y − ȳ)²/n²."""
    assert_allclose(pairs.stderr["mu"], Y.std() / np.sqrt(N), rtol=ROOM)
    assert abs(pairs.bias["mu"]) < 4.5 * Y.std() / np.sqrt(N * R)
    assert_allclose(pairs.vcov, np.cov(pairs.replicates.T), rtol=1e-12)
    assert pairs.failed == {} and len(pairs) == R


def test_a_replicate_depends_on_the_key_and_its_number_alone(fit, pairs):
    """``pairs`` ran 999 replicates and 40 delete-one fits in two calls; here 560 run in one."""
    fewer = bootstrap(
        normal, fit, Y, key=jax.random.key(1), replicates=560, acceleration=None, progress=False
    )
    assert_allclose(fewer.replicates, pairs.replicates[:560], rtol=1e-10)
    other = bootstrap(normal, fit, Y, key=2, replicates=560, acceleration=None, progress=False)
    assert not np.any(np.isclose(other.replicates, fewer.replicates).all(axis=1))


def test_calls_have_one_length_and_hold_every_replicate_once(monkeypatch):
    monkeypatch.setattr(refit, "BYTES_OF_A_CALL", 1000.0)
    for total in (1, 7, 8, 99, 100, 101):
        calls = list(refit.chunks(total, 10.0))
        assert len({len(index) for index, _ in calls}) == 1 and len(calls[0][0]) <= 100
        assert_array_equal(
            np.concatenate([index[:count] for index, count in calls]), np.arange(total)
        )
    assert max(len(index) for index, _ in refit.chunks(50, 1e9)) <= refit.MEMBERS_A_CHUNK[0]


def test_bayesian_weights_are_dirichlet(fit):
    """The mean under Dirichlet(1, …, 1) weights has variance Σ(y − ȳ)²/n(n + 1) (Rubin 1981)."""
    w = plan_of("bayesian", normal, Y, None, None, None)(jax.random.key(5), np.arange(R)).values
    assert_allclose(w.sum(axis=1), N, rtol=1e-12)
    found = bootstrap(normal, fit, Y, key=5, replicates=R, kind="bayesian", progress=False)
    assert_allclose(found.replicates[:, 0], w @ Y / N, rtol=1e-9)
    assert_allclose(
        found.stderr["mu"], np.sqrt(np.sum((Y - Y.mean()) ** 2) / (N * (N + 1))), rtol=ROOM
    )


def test_a_cluster_bootstrap_agrees_with_the_cluster_sandwich(fit):
    """Clusters of equal size: the bootstrap variance of the mean is Σ(ȳ_g − ȳ)²/G², which is CR0."""
    labels = np.repeat([f"g{i}" for i in range(10)], 4)
    w = plan_of("cluster", normal, Y, None, labels, None)(jax.random.key(2), np.arange(50)).values
    assert_array_equal(w.reshape(50, 10, 4).min(axis=2), w.reshape(50, 10, 4).max(axis=2))
    assert_array_equal(w.sum(axis=1), N)
    robust = infinitesimal_jackknife(normal, fit, Y, clusters=labels)
    assert_allclose(
        robust.stderr["mu"],
        np.sqrt(np.sum((Y.reshape(10, 4).mean(axis=1) - Y.mean()) ** 2)) / 10,
        rtol=1e-8,
    )
    found = bootstrap(
        normal, fit, Y, key=2, replicates=R, kind="cluster", clusters=labels, progress=False
    )
    assert_allclose(found.stderr["mu"], robust.stderr["mu"], rtol=1.5 * ROOM)
    assert np.all(np.isfinite(found.conf_int(kind="bca")["mu"]))


def test_blocks_of_neighbours_have_the_variance_of_block_means(fit):
    """n/L independent blocks, each one of n − L + 1: var ȳ* = L/n of the variance of the block means (Künsch 1989)."""
    length = 5
    w = plan_of("block", normal, Y, None, None, 7)(jax.random.key(2), np.arange(50)).values
    assert_array_equal(w.sum(axis=1), N)  # the last block is cut
    found = bootstrap(
        normal, fit, Y, key=2, replicates=R, kind="block", block_length=length, progress=False
    )
    means = np.convolve(Y, np.ones(length) / length, "valid")
    assert_allclose(found.stderr["mu"], np.sqrt(means.var() * length / N), rtol=ROOM)


def test_a_parametric_replicate_is_the_fit_of_its_simulated_sample(fit):
    found = bootstrap(
        normal,
        fit,
        Y,
        key=4,
        replicates=R,
        kind="parametric",
        sample=redraw,
        vcov="observed",
        progress=False,
    )
    with jax.enable_x64(True):
        samples = np.asarray(
            jax.vmap(
                lambda i: redraw(
                    jax.random.fold_in(jax.random.key(4), i), fit.params, jnp.asarray(Y)
                )
            )(jnp.arange(R, dtype=jnp.uint32))
        )
    assert_allclose(
        found.replicates, np.stack([samples.mean(axis=1), samples.std(axis=1)], axis=1), rtol=1e-9
    )
    t = (samples.mean(axis=1) - Y.mean()) / (samples.std(axis=1) / np.sqrt(N))
    lower, upper = (
        Y.mean() - Y.std() / np.sqrt(N) * np.sort(t)[[974, 24]]
    )  # (R + 1)·0.975 = 975th, 25th
    assert_allclose(found.conf_int(kind="studentized")["mu"], [lower, upper], rtol=1e-9)


class Normal:
    """A model: a likelihood that knows its start, its bounds and its sampler. One scalar, as of dependent data."""

    constraints = POSITIVE

    def __call__(self, params, data):
        return jnp.sum(normal(params, data["y"]))

    def start(self, data):
        return START

    def sample(self, key, params, data):
        return {**data, "y": redraw(key, params, data["y"])}


def test_a_scalar_likelihood_is_simulated_only():
    model, data = Normal(), {"y": Y, "untouched": np.arange(N)}
    result = jm.fit(model, data=data)
    with pytest.raises(ValueError, match="one scalar"):
        bootstrap(model, result, data, key=0, replicates=R, progress=False)
    found = bootstrap(model, result, data, key=0, replicates=R, kind="parametric", progress=False)
    assert_allclose(found.stderr["mu"], Y.std() / np.sqrt(N), rtol=ROOM)


# ---------------------------------------------------------------- intervals


def test_bca_equals_scipy_on_the_same_replicates(fit):
    found = bootstrap(normal, fit, Y, key=1, replicates=R, statistic=variation, progress=False)
    assert found.accelerated == "jackknife" and found.names == ("statistic",)
    before = scipy.stats.bootstrap(
        (Y,),
        lambda y, axis: np.std(y, axis=axis) / np.mean(y, axis=axis),
        n_resamples=9,
        method="percentile",
        vectorized=True,
        rng=0,
    )
    before.bootstrap_distribution = found.replicates[:, 0]
    for level in (0.9, 0.95, 0.99):
        theirs = scipy.stats.bootstrap(
            (Y,), lambda y, axis: np.std(y, axis=axis) / np.mean(y, axis=axis), n_resamples=0, bootstrap_result=before, method="BCa", vectorized=True, confidence_level=level,
        ).confidence_interval  # fmt: skip
        assert_allclose(found.conf_int(level, "bca"), [theirs.low, theirs.high], rtol=1e-10)


def test_percentile_basic_and_studentized_equal_boot_ci():
    """R 4.2.2, boot 1.3-28.1 (data/boot_ci.R); 0.937 and 0.95 ask for places between two replicates."""
    with open(DATA / "boot_replicates.csv", newline="", encoding="utf-8") as stream:
        table = np.array(
            [[float(row["t"]), float(row["variance"])] for row in csv.DictReader(stream)]
        )
    (t0, v0), t, se = table[0], table[1:, :1], np.sqrt(table[1:, 1:])
    estimate = np.array([t0])
    with open(DATA / "boot_ci.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9
    for row in rows:
        level = float(row["level"])
        found = {
            "percent": lambda level=level: ends.percentile(t, level),
            "basic": lambda level=level: ends.basic(estimate, t, level),
            "student": lambda level=level: ends.studentized(estimate, np.sqrt([v0]), t, se, level),
        }[row["kind"]]()
        assert_allclose(
            found[0], [float(row["lower"]), float(row["upper"])], rtol=1e-12, err_msg=str(row)
        )


def test_infinite_replicates_keep_their_place_and_undefined_ones_are_counted_out():
    rng = np.random.default_rng(0)
    finite = np.sort(rng.normal(size=99))
    values = finite.copy()
    values[-5:] = np.inf
    low, high = ends.percentile(values[:, None], 0.9)[0]
    assert low == finite[4] and high == np.inf  # the 5th and the 95th of 99
    assert ends.percentile(values[:, None], 0.8)[0, 1] == finite[89]
    with_nan = np.concatenate([finite, np.full(7, np.nan)])[:, None]
    assert_array_equal(ends.percentile(with_nan, 0.9), ends.percentile(finite[:, None], 0.9))
    assert_array_equal(
        ends.bca(np.zeros(1), with_nan, np.full(1, 0.01), 0.9),
        ends.bca(np.zeros(1), finite[:, None], np.full(1, 0.01), 0.9),
    )
    assert ends.spread(values[:, None]) == np.inf
    assert np.isnan(ends.spread(with_nan)) and np.isnan(ends.spread(np.ones((5, 1))))
    assert np.all(
        np.isnan(ends.studentized(np.zeros(1), np.ones(1), values[:, None], np.ones((99, 1)), 0.9))
    )
    assert ends.basic(np.zeros(1), values[:, None], 0.9)[0, 0] == -np.inf
    assert np.all(
        np.isnan(ends.bca(np.full(1, -9.0), finite[:, None], np.zeros(1), 0.9))
    )  # all on one side
    assert np.all(np.isnan(ends.percentile(np.full((99, 1), np.nan), 0.9)))


def test_z0_counts_half_of_ties():
    replicates = np.repeat([1.0, 2.0, 3.0], [30, 30, 40])[:, None]
    assert_allclose(
        ends.bias_correction(np.array([2.0]), replicates), scipy.stats.norm.ppf(0.45), rtol=1e-12
    )


def test_too_few_replicates_for_a_level_are_refused(fit):
    few = Bootstrap(
        np.zeros(2),
        np.zeros((30, 2)),
        np.full(30, 10),
        "pairs",
        np.zeros(2),
        None,
        np.zeros(2),
        None,
        fit.names,
        fit.layout,
    )
    with pytest.raises(
        ValueError, match="30 replicates are too few for a 95% interval, which takes 39 or more"
    ):
        few.conf_int()
    assert few.conf_int(0.9)["mu"].shape == (2,)
    assert "Bootstrap, 30 pairs replicates" in str(few)
    for kind, message in (
        ("bca", "delete-one"),
        ("studentized", "standard error for each replicate"),
        ("normal", "percentile"),
    ):
        with pytest.raises(ValueError, match=message):
            few.conf_int(0.9, kind)


# ---------------------------------------------------------------- failures


def test_infinite_and_undefined_replicates_are_no_finite_standard_error():
    """A dummy of two rows with counts 0 and 2: without the second row its coefficient is −inf; without both nothing is known of it."""
    data = {
        "x": np.column_stack([np.ones(N), np.arange(N) < 2]).astype(float),
        "y": np.arange(N) % 3 * 1.0,
    }
    data["y"][:2] = 0.0, 2.0
    result = jm.fit(poisson_kernel, {"beta": np.zeros(2)}, data)
    found = bootstrap(
        poisson_kernel, result, data, key=0, replicates=R, acceleration=None, progress=False
    )
    w = plan_of("pairs", poisson_kernel, data, None, None, None)(
        jax.random.key(0), np.arange(R)
    ).values
    unknown, infinite = (w[:, 0] == 0) & (w[:, 1] == 0), (w[:, 0] > 0) & (w[:, 1] == 0)
    assert_array_equal(np.isnan(found.replicates[:, 1]), unknown)
    assert_array_equal(np.isneginf(found.replicates[:, 1]), infinite)
    assert_array_equal(found.status == Status.SEPARATED, infinite)
    others = np.average(np.broadcast_to(data["y"][2:], (R, N - 2)), axis=1, weights=w[:, 2:])
    assert_allclose(
        found.replicates[:, 0], np.log(others), rtol=1e-7, atol=1e-12
    )  # those of the limit
    assert (
        found.failed["SEPARATED"] == infinite.sum()
        and sum(found.failed.values()) == infinite.sum() + unknown.sum()
    )
    assert np.isnan(found.se[1]) and np.isfinite(found.se[0]) and np.isnan(found.vcov[0, 1])
    low, high = found.conf_int(0.9)["beta"][1]
    assert low == -np.inf and np.isfinite(high)
    assert "SEPARATED" in str(found) and "infinite" in str(found) and "undefined" in str(found)


# ---------------------------------------------------------------- weights


def test_frequency_weights_are_repeated_rows():
    w = RNG.integers(0, 4, N).astype(float)
    plan = plan_of("pairs", normal, Y, jm.frequency(w), None, None)
    drawn = plan(jax.random.key(0), np.arange(4000)).values
    assert_array_equal(drawn.sum(axis=1), w.sum())
    assert np.all(drawn[:, w == 0] == 0)
    error = np.sqrt(w * (1 - w / w.sum()) / 4000)
    assert np.all(np.abs(drawn.mean(axis=0) - w) <= 5 * error)
    repeated = plan_of("bayesian", normal, Y, jm.frequency(w), None, None)(
        jax.random.key(0), np.arange(4000)
    ).values
    assert_allclose(repeated.sum(axis=1), w.sum(), rtol=1e-12)
    assert np.all(np.abs(repeated.mean(axis=0) - w) <= 5 * np.sqrt(np.maximum(w, 1e-9) / 4000))


def test_sampling_weights_stay_with_their_rows():
    w = RNG.uniform(0.5, 2.0, N) * (np.arange(N) % 5 > 0)
    plan = plan_of("pairs", normal, Y, jm.sampling(w), None, None)
    drawn = plan(jax.random.key(0), np.arange(200)).values
    counts = np.divide(drawn, w, out=np.zeros_like(drawn), where=w > 0)
    assert_allclose(counts, np.round(counts), atol=1e-12)
    assert_allclose(counts.sum(axis=1), np.sum(w > 0))
    assert plan.weighting == "sampling"


def test_a_pool_is_resampled_sample_by_sample():
    both, data = jm.pool(normal, normal), (Y, Y[:15] + 1.0)
    w = plan_of("pairs", both, data, None, None, None)(jax.random.key(0), np.arange(50)).values
    assert_array_equal(w[:, :N].sum(axis=1), N)
    assert_array_equal(w[:, N:].sum(axis=1), 15)


# ---------------------------------------------------------------- what is refused


def test_mistakes_are_named_before_anything_runs(fit):
    def call(**options):
        return bootstrap(
            normal, options.pop("fit", fit), options.pop("data", Y), **{"key": 0, **options}
        )

    batch = jax.tree.map(lambda leaf: np.stack([leaf] * 3), fit)
    cases = [
        (ValueError, "kind must be one of", {"kind": "wild"}),
        (ValueError, "replicates must be", {"replicates": 1}),
        (ValueError, "replicates must be", {"replicates": 99.0}),
        (TypeError, "key must be", {"key": "seed"}),
        (ValueError, "needs clusters=", {"kind": "cluster"}),
        (ValueError, "write kind='cluster'", {"clusters": np.zeros(N, int)}),
        (ValueError, "at least two clusters", {"kind": "cluster", "clusters": np.zeros(N, int)}),
        (
            ValueError,
            f"one label for each of the {N} rows",
            {"kind": "cluster", "clusters": np.zeros(3, int)},
        ),
        (ValueError, "needs block_length=", {"kind": "block"}),
        (ValueError, "longer than the", {"kind": "block", "block_length": N + 1}),
        (ValueError, "needs sample", {"kind": "parametric"}),
        (ValueError, "write kind='parametric'", {"sample": redraw}),
        (
            ValueError,
            "of shape",
            {"kind": "parametric", "sample": lambda key, params, data: data[:3]},
        ),
        (
            ValueError,
            "returned the data unchanged",
            {"kind": "parametric", "sample": lambda key, params, data: data},
        ),
        (
            ValueError,
            "tree like the data",
            {"kind": "parametric", "sample": lambda key, params, data: {"y": data}},
        ),
        (TypeError, "statistic must be a function", {"statistic": "mu"}),
        (TypeError, "floating-point", {"statistic": lambda p: 1}),
        (ValueError, "acceleration must be", {"acceleration": "yes"}),
        (ValueError, "must be one of", {"vcov": "HC9"}),
        (ValueError, "standard errors of the fit are observed", {"vcov": "HC0"}),
        (ValueError, "no standard error: leave vcov out", {"vcov": "observed", "kind": "bayesian"}),
        (ValueError, "are not those of the fit", {"data": Y + 1}),
        (ValueError, "is given 'frequency'", {"weights": jm.frequency(np.ones(N))}),
        (TypeError, "say what the weights mean", {"weights": np.ones(N)}),
        (ValueError, "constraints differ", {"constraints": {"mu": jm.positive}}),
        (ValueError, "params0 has the entries", {"params0": {"mu": 1.0}}),
        (ValueError, "takes a single fit", {"fit": batch, "data": Y}),
        (TypeError, "the result of fit", {"fit": START}),
    ]
    for error, message, options in cases:
        with pytest.raises(error, match=message):
            call(**options)
    with pytest.raises(TypeError, match="jit"):
        jax.jit(lambda y: bootstrap(normal, fit, y, key=0).replicates)(Y)
    with pytest.raises(ValueError, match="weights inside the likelihood"):
        bootstrap(jm.weight(normal, jm.frequency(np.ones(N))), fit, Y, key=0)
