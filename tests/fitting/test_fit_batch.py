"""The batch engine against single fits: stacked, ragged, grouped, shared, weighted, clustered, failing members, devices, checkpoints."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

import jaxmle as jm
from jaxmle import Status
from jaxmle.batch.chunks import chunk, compilation, plan
from jaxmle.batch.chunks.machine import Machine
from jaxmle.batch.chunks.solver import Counts, half_done
from jaxmle.batch.members.sources import MAX_PADDED_ROWS_FOR_ONE_LENGTH, Table, buckets
from tests.likelihoods import normal_regression_kernel

B, N = 30, 60
START = {"beta": np.zeros(2)}
RNG = np.random.default_rng(17)


def logit(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jax.nn.softplus(eta)


declared = jm.regression(
    lambda eta, row: row["y"] * eta["mu"] - jax.nn.softplus(eta["mu"]),
    eta={"mu": jm.linear("x", "beta")},
)


def sample(rows, rng=RNG):
    x = np.column_stack([np.ones(rows), rng.normal(size=rows)])
    return {"x": x, "y": (rng.random(rows) < expit(x @ [0.3, 0.8])).astype(float)}


def stacked(sets):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *sets)


SETS = [sample(N) for _ in range(B)]
STACK = stacked(SETS)
RAGGED = [sample(rows) for rows in RNG.integers(12, 61, size=B)]


def assert_same(fit, single, tolerance=1e-9):
    """Estimates to a nano standard error, standard errors, ℓ, n and fingerprint."""
    assert fit.status == single.status
    assert_allclose((fit.x - single.x) / single.se, 0.0, atol=tolerance)
    assert_allclose(fit.se, single.se, rtol=1e-8)
    assert_allclose(fit.loglik, single.loglik, rtol=1e-12)
    assert fit.n == single.n
    assert_array_equal(fit.data_id, single.data_id)
    assert (fit.vcov_kind, fit.weighting, fit.mode, fit.names, fit.bounds, fit.df) == (
        single.vcov_kind, single.weighting, single.mode, single.names, single.bounds, single.df,
    )  # fmt: skip


# ---------------------------------------------------------------- equal to single fits


def test_lengths_lose_the_eighths_that_nobody_reaches():
    """Powers of two for few members, whose programs other batches share; where many rows are saved an eighth of one at a time."""
    sizes = np.random.default_rng(0).integers(40, 200, size=(20_000, 1))
    (one, short), (other, long) = buckets(sizes, True)
    assert (one, other) == ((128,), (224,))
    assert sizes[short].max() <= 128
    assert 128 < sizes[long].min() <= sizes[long].max() <= 224
    assert MAX_PADDED_ROWS_FOR_ONE_LENGTH < len(long) * (256 - 224)
    assert [length for length, _ in buckets(sizes[:3000], True)] == [(128,), (256,)]


@pytest.mark.parametrize("form", [logit, declared], ids=["opaque", "declared"])
def test_a_batch_is_its_members(form):
    fits = jm.fit_batch(form, START, STACK)
    assert fits.batch_shape == (B,)
    for i in range(0, B, 7):
        assert_same(fits[i], jm.fit(form, START, SETS[i]))


def test_a_constraint_and_two_leaves():
    sets = [{"x": d["x"], "y": d["y"] + 0.3 * d["x"][:, 1]} for d in SETS[:8]]
    start = {"beta": np.zeros(2), "sigma": 1.0}
    fits = jm.fit_batch(normal_regression_kernel, start, sets, constraints={"sigma": jm.positive})
    for i, data in enumerate(sets):
        beta, rss, *_ = np.linalg.lstsq(data["x"], data["y"], rcond=None)
        assert_allclose(fits.params["beta"][i], beta, atol=1e-10)
        assert_allclose(fits.params["sigma"][i], np.sqrt(rss[0] / N), rtol=1e-10)
        assert_allclose(fits.stderr["sigma"][i], np.sqrt(rss[0] / N / (2 * N)), rtol=1e-8)


def test_ragged_members_are_padded_by_nothing():
    fits = jm.fit_batch(logit, START, RAGGED)
    assert_array_equal(fits.n, [len(d["y"]) for d in RAGGED])
    assert fits.weighting == "none"
    for i in range(0, B, 5):
        assert_same(fits[i], jm.fit(logit, START, RAGGED[i]))


def test_groups_anywhere_in_a_table():
    sizes = [len(d["y"]) for d in RAGGED]
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *RAGGED)
    member = np.repeat(np.arange(B), sizes)
    mixed = np.concatenate(
        [np.arange(len(member))[::2], np.arange(len(member))[1::2]]
    )  # the order within a group changes too
    fits = jm.fit_batch(
        logit, START, Table(jax.tree.map(lambda leaf: leaf[mixed], whole), member[mixed], B)
    )
    direct = jm.fit_batch(logit, START, RAGGED)
    assert_allclose((fits.x - direct.x) / direct.se, 0.0, atol=1e-9)
    assert_array_equal(fits.n, sizes)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC3", "opg", "expected", None])
def test_covariances_of_ragged_members(kind):
    known = jm.with_response(logit, jm.enumeration("y", [0.0, 1.0]))
    fits = jm.fit_batch(known, START, RAGGED, vcov=kind)
    single = jm.fit(known, START, RAGGED[3], vcov=kind)
    assert fits.vcov_kind == single.vcov_kind
    assert_allclose(fits.vcov[3], single.vcov, rtol=1e-8)


@pytest.mark.thorough
def test_weights_and_clusters_of_ragged_members():
    rng = np.random.default_rng(3)
    times = [rng.integers(0, 4, size=len(d["y"])) for d in RAGGED]
    shares = [rng.exponential(size=len(d["y"])) for d in RAGGED]
    schools = [rng.choice(["a", "b", "c", "d", "e"], size=len(d["y"])) for d in RAGGED]
    pick = 4
    assert_same(
        jm.fit_batch(logit, START, RAGGED, weights=jm.frequency(times))[pick],
        jm.fit(logit, START, RAGGED[pick], weights=jm.frequency(times[pick])),
    )
    assert_same(
        jm.fit_batch(logit, START, RAGGED, weights=jm.sampling(shares))[pick],
        jm.fit(logit, START, RAGGED[pick], weights=jm.sampling(shares[pick])),
    )
    assert_same(
        jm.fit_batch(logit, START, RAGGED, clusters=schools)[pick],
        jm.fit(logit, START, RAGGED[pick], clusters=schools[pick]),
    )


@pytest.mark.thorough
def test_a_pool_is_padded_part_by_part():
    pooled = jm.pool(logit, logit)
    pairs = [(RAGGED[i], RAGGED[i + 1]) for i in range(4)]
    fits = jm.fit_batch(pooled, START, pairs)
    for i, pair in enumerate(pairs):
        assert_same(fits[i], jm.fit(pooled, START, pair))


def test_a_prior_counts_once_whatever_the_padding():
    penalized = jm.penalize(logit, jm.ridge(2.0))
    assert_same(jm.fit_batch(penalized, START, RAGGED)[2], jm.fit(penalized, START, RAGGED[2]))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "held",
    [jm.fix(logit, {"beta[1]": 0.3}), jm.tie(logit, ("beta[0]", "beta[1]"))],
    ids=["fix", "tie"],
)
def test_held_and_tied_entries(held):
    fits = jm.fit_batch(held, START, RAGGED)
    single = jm.fit(held, START, RAGGED[6])
    assert fits.names == single.names
    assert_allclose(fits.x[6], single.x, rtol=1e-9)
    assert_allclose(fits.se[6], single.se, rtol=1e-8)
    starts = {"beta": np.random.default_rng(1).normal(size=(B, 2))}
    assert_allclose(jm.fit_batch(held, starts, RAGGED, params_axis=0).x, fits.x, atol=1e-8)


def test_scalars_run_at_their_own_length():
    """A likelihood without terms cannot be padded: members of one length run together."""

    def scalar(params, data):
        return jnp.sum(logit(params, data))

    few = [RAGGED[0], RAGGED[1], sample(len(RAGGED[0]["y"]))]
    fits = jm.fit_batch(scalar, START, few)
    for i, data in enumerate(few):
        assert_allclose((fits[i].x - jm.fit(logit, START, data).x) / fits[i].se, 0.0, atol=1e-9)


# ---------------------------------------------------------------- what members share


def test_one_design_for_many_responses():
    rng = np.random.default_rng(5)
    y = (rng.random((B, N)) < 0.5).astype(float)
    shared = jm.fit_batch(declared, START, {"x": SETS[0]["x"], "y": y}, in_axes={"x": None, "y": 0})
    copied = jm.fit_batch(declared, START, {"x": np.broadcast_to(SETS[0]["x"], (B, N, 2)), "y": y})
    assert_allclose((shared.x - copied.x) / copied.se, 0.0, atol=1e-9)
    assert_array_equal(shared.data_id, copied.data_id)


def test_many_weights_over_one_data_set():
    w = np.random.default_rng(6).exponential(size=(B, N))
    fits = jm.fit_batch(declared, START, SETS[0], in_axes=None, weights=jm.sampling(w))
    assert_same(fits[9], jm.fit(declared, START, SETS[0], weights=jm.sampling(w[9])))


def test_an_axis_that_is_not_the_first():
    moved = {"x": np.moveaxis(STACK["x"], 0, 2), "y": STACK["y"]}
    assert_array_equal(
        jm.fit_batch(logit, START, moved, in_axes={"x": 2, "y": 0}).x,
        jm.fit_batch(logit, START, STACK).x,
    )


def test_one_start_for_each_member():
    starts = {"beta": np.random.default_rng(7).normal(size=(B, 2))}
    fits = jm.fit_batch(logit, starts, SETS[0], in_axes=None)
    assert_allclose(np.ptp(fits.x, axis=0) / fits.se[0], 0.0, atol=1e-8)
    assert_allclose(
        jm.fit_batch(logit, starts, STACK).x, jm.fit_batch(logit, START, STACK).x, atol=1e-9
    )


@pytest.mark.thorough
def test_starts_of_every_kind_of_constraint_are_cut_into_members():
    """A matrix has fewer printed entries than cells; a start outside its bounds is named by its member."""
    rng = np.random.default_rng(9)
    y = rng.normal(size=(3, N, 2)) @ np.array([[1.0, 0.4], [0.0, 0.9]])

    def loglik(params, data):
        r = data["y"] - params["mean"][None, :]
        return (
            -0.5 * jnp.sum(r * jnp.linalg.solve(params["cov"], r.T).T, axis=1)
            - 0.5 * jnp.linalg.slogdet(params["cov"])[1]
        )

    starts = {
        "mean": np.zeros((3, 2)),
        "cov": np.stack([np.eye(2) * scale for scale in (1.0, 2.0, 0.5)]),
    }
    fits = jm.fit_batch(loglik, starts, {"y": y}, constraints={"cov": jm.covariance})
    for i in range(3):
        assert_allclose(fits.params["mean"][i], y[i].mean(axis=0), atol=1e-9)
        assert_allclose(fits.params["cov"][i], np.cov(y[i].T, bias=True), rtol=1e-8)
    starts["cov"][1] = -np.eye(2)
    with pytest.raises(ValueError, match="member 1: .*positive definite"):
        jm.fit_batch(loglik, starts, {"y": y}, constraints={"cov": jm.covariance})


def test_a_start_that_could_be_read_both_ways_must_be_told():
    y = {"y": np.random.default_rng(8).normal(size=(5, 5))}

    def mean(params, data):
        return -0.5 * (data["y"] - params["m"]) ** 2

    with pytest.raises(ValueError, match="params_axis"):
        jm.fit_batch(mean, {"m": np.zeros(5)}, y)
    assert jm.fit_batch(mean, {"m": np.zeros(5)}, y, params_axis=0).params["m"].shape == (5,)


# ---------------------------------------------------------------- members that fail


def test_members_do_not_know_each_other():
    """NaN, separation, a constant regressor, no rows at all: each its own status, and no bit of the others changes."""
    bad = jax.tree.map(np.copy, STACK)
    bad["y"][4, 11] = np.nan
    bad["y"][9] = (bad["x"][9, :, 1] > 0).astype(float)
    bad["x"][20, :, 1] = 1.0
    good, mixed = jm.fit_batch(logit, START, STACK), jm.fit_batch(logit, START, bad)
    assert [Status(int(mixed.status[i])).name for i in (4, 9, 20)] == [
        "NONFINITE",
        "SEPARATED",
        "UNIDENTIFIED",
    ]
    assert mixed.witness.row[4] == 11
    others = np.setdiff1d(np.arange(B), (4, 9, 20))
    for a, b in zip(jax.tree.leaves(good), jax.tree.leaves(mixed), strict=True):
        assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])


def test_empty_members_have_no_estimate():
    fits = jm.fit_batch(
        logit, START, [RAGGED[0], jax.tree.map(lambda leaf: leaf[:0], RAGGED[0]), RAGGED[1]]
    )
    assert fits.n[1] == 0
    assert fits.status[1] == Status.UNIDENTIFIED
    assert np.all(np.isnan(fits.se[1]))
    assert_same(fits[2], jm.fit(logit, START, RAGGED[1]))


def test_hard_members_are_finished_in_a_last_round():
    """Nearly separated members take many steps; they end as single fits end."""
    rng = np.random.default_rng(12)
    hard = [sample(N, rng) for _ in range(B)]
    for data in hard[:3]:
        data["y"] = (data["x"][:, 1] > 0.1).astype(float)
        data["y"][np.argmax(data["x"][:, 1])] = 0.0
    hard[3]["y"] = (hard[3]["x"][:, 1] > 0).astype(float)
    fits = jm.fit_batch(logit, {"beta": np.array([4.0, -9.0])}, hard)
    for i in range(6):
        single = jm.fit(logit, {"beta": np.array([4.0, -9.0])}, hard[i])
        assert fits.status[i] == single.status
        assert_allclose(fits.x[i], single.x, rtol=1e-8)
        assert fits.steps[i] == single.steps


# ---------------------------------------------------------------- solvers, precision, schedule


@pytest.mark.thorough
@pytest.mark.parametrize(
    "solver",
    [jm.solvers.Scoring(), jm.solvers.BHHH(), jm.solvers.LBFGS()],
    ids=["scoring", "bhhh", "lbfgs"],
)
def test_other_solvers_reach_the_same_maximum(solver):
    known = jm.with_response(logit, jm.enumeration("y", [0.0, 1.0]))
    fits, plain = (
        jm.fit_batch(known, START, STACK, solver=solver),
        jm.fit_batch(known, START, STACK),
    )
    assert_allclose((fits.x - plain.x) / plain.se, 0.0, atol=3e-9)  # the climb ends at 1.4e-9


def test_float32_is_a_float32_fit():
    fits, double = (
        jm.fit_batch(logit, START, STACK, dtype="float32"),
        jm.fit_batch(logit, START, STACK),
    )
    assert fits.dtype == np.float32
    assert np.max(np.abs(fits.x - double.x) / double.se) < 1e-3


@pytest.mark.parametrize("block", [1, 4, 16])
def test_the_block_changes_nothing(block):
    fits, plain = (
        jm.fit_batch(declared, START, STACK, block=block),
        jm.fit_batch(declared, START, STACK),
    )
    assert_allclose((fits.x - plain.x) / plain.se, 0.0, atol=1e-9)


def compilations(run):
    """How many programs XLA compiled, or read from the cache, while ``run`` ran."""
    told = []
    listener = logging.Handler()
    listener.emit = lambda record: told.append(record.getMessage())
    logger = logging.getLogger("jax")
    logger.addHandler(listener)
    try:
        with jax.log_compiles():
            run()
    finally:
        logger.removeHandler(listener)
    return sum("Finished XLA compilation" in message for message in told)


def test_a_second_batch_of_the_same_shape_compiles_nothing():
    def fresh(params, data):
        return logit(params, data)

    again = jax.tree.map(lambda leaf: leaf[::-1].copy(), STACK)
    assert compilations(lambda: jm.fit_batch(fresh, START, STACK, progress=False)) > 0
    assert compilations(lambda: jm.fit_batch(fresh, START, again, progress=False)) == 0


def test_the_model_of_a_checkpoint_may_have_an_empty_first_member(tmp_path):
    """What identifies the model is traced with the longest member: the first may have no rows."""
    x, y = STACK["x"], STACK["y"]
    ragged = [{"x": x[0][:0], "y": y[0][:0]}, {"x": x[1], "y": y[1]}]
    fits = jm.fit_batch(logit, START, ragged, checkpoint=tmp_path / "kept", progress=False)
    assert fits[1].converged and not fits[0].converged
    assert_array_equal(
        jm.fit_batch(logit, START, ragged, checkpoint=tmp_path / "kept", progress=False).x, fits.x
    )


def test_a_batch_beyond_the_memory_is_refused(monkeypatch):
    from jaxmle.batch import scheduler as run

    monkeypatch.setattr(run, "free_bytes", lambda: 1e6)
    with pytest.raises(MemoryError, match="several calls"):
        jm.fit_batch(logit, START, STACK)


def test_memory_was_not_known_outside_of_linux(monkeypatch):
    """It was read from /proc, which macOS and Windows do not have; psutil knows it there too."""
    from jaxmle.batch.chunks import plan as schedule

    def memory():
        return SimpleNamespace(available=3e9)

    def process():
        return SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=2e8))

    known = SimpleNamespace(virtual_memory=memory, Process=process)
    monkeypatch.setitem(sys.modules, "psutil", known)
    assert (schedule.free_bytes(), schedule.resident_bytes()) == (3e9, 2e8)
    monkeypatch.setitem(sys.modules, "psutil", None)  # where there is no wheel of it
    assert (schedule.free_bytes(), schedule.resident_bytes()) == (np.inf, 0.0)
    assert np.all(jm.fit_batch(logit, START, STACK, progress=False).converged)


def test_inside_a_trace_it_says_what_to_do():
    with pytest.raises(TypeError, match=r"jax\.vmap"):
        jax.jit(lambda y: jm.fit_batch(logit, START, {"x": STACK["x"], "y": y}).x)(STACK["y"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"datasets": []}, "empty list"),
        ({"datasets": [1.0, 2.0]}, "list of numbers"),
        ({"datasets": {"x": STACK["x"], "y": STACK["y"][:5]}}, "members"),
        ({"datasets": {"x": STACK["x"], "y": STACK["y"][:, :7]}}, "rows"),
        ({"datasets": {"x": STACK["x"], "y": STACK["y"][0]}}, "unequal length as a list"),
        ({"datasets": {"x": STACK["x"], "y": STACK["y"].astype(str)}}, "strings"),
        ({"datasets": [SETS[0], {"y": SETS[1]["y"]}]}, r"datasets\[1\] has a different structure"),
        (
            {"datasets": [SETS[0], {"x": SETS[1]["x"], "y": SETS[1]["y"][:3]}]},
            r"datasets\[1\].*rows",
        ),
        ({"params0": {"beta": np.zeros(2, bool)}}, "bool"),
        ({"params0": {"beta": np.array([0.0, np.nan])}}, "finite"),
        ({"weights": np.ones((B, N))}, "frequency"),
        ({"weights": jm.frequency(np.full((B, N), 0.5))}, "integers"),
        ({"weights": jm.sampling(-np.ones((B, N)))}, "non-negative"),
        ({"weights": jm.sampling(np.ones((B, N + 1)))}, "weights must have shape"),
        ({"clusters": np.zeros((B, 3))}, "clusters"),
        ({"in_axes": {"x": 0}}, "in_axes"),
        ({"in_axes": 7}, "axis 7"),
        ({"in_axes": None}, "nothing varies between members"),
        ({"block": 0}, "block"),
        ({"devices": "cpu"}, "devices"),
        ({"vcov": "HC9"}, "HC9"),
        ({"max_steps": -1}, "max_steps"),
        ({"params0": None}, "params0 is missing"),
        ({"loglik": jm.weight(logit, jm.frequency(np.ones(N)))}, "fit_batch"),
    ],
)
def test_bad_input_is_said_before_any_compilation(change, told):
    arguments = {"loglik": logit, "params0": START, "datasets": STACK} | change
    with pytest.raises((ValueError, TypeError), match=told):
        jm.fit_batch(
            arguments.pop("loglik"),
            arguments.pop("params0"),
            arguments.pop("datasets"),
            **arguments,
        )


# ---------------------------------------------------------------- checkpoints


def test_a_finished_checkpoint_is_read_back_to_the_bit(tmp_path):
    first = jm.fit_batch(logit, START, RAGGED, checkpoint=tmp_path / "run")
    again = jm.fit_batch(logit, START, RAGGED, checkpoint=tmp_path / "run")
    assert jax.tree.structure(first) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        assert_array_equal(a, b)
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("data", {"datasets": [*RAGGED[:-1], sample(20)]}),
        ("model", {"loglik": lambda params, data: 2.0 * logit(params, data)}),
        ("start", {"params0": {"beta": np.ones(2)}}),
        ("options", {"vcov": "HC0"}),
        ("number of members", {"datasets": RAGGED[:-1]}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, what, arguments):
    jm.fit_batch(logit, START, RAGGED, checkpoint=tmp_path / "run")
    given = {"loglik": logit, "params0": START, "datasets": RAGGED} | arguments
    with pytest.raises(
        ValueError, match=f"its .*{what}|its data" if what == "number of members" else f"its {what}"
    ):
        jm.fit_batch(
            given.pop("loglik"),
            given.pop("params0"),
            given.pop("datasets"),
            checkpoint=tmp_path / "run",
            **given,
        )


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="other files"):
        jm.fit_batch(logit, START, RAGGED, checkpoint=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


KILLED = """
import sys, time
import numpy as np, jax
import jaxmle as jm
from jaxmle.runtime import checkpoint
folder, slow = sys.argv[1], sys.argv[2] == "slow"
save = checkpoint.Checkpoint.save
def slowly(self, piece, arrays):
    save(self, piece, arrays)
    if slow: print("saved", piece, flush=True); time.sleep(0.3)
checkpoint.Checkpoint.save = slowly
rng = np.random.default_rng(0)
x = np.concatenate([np.ones((200, 40, 1)), rng.normal(size=(200, 40, 1))], axis=2)
y = (rng.random((200, 40)) < 0.5).astype(float)
y[::17] = (x[::17, :, 1] > 0)
from jaxmle.batch.chunks import plan
plan.CHUNK_SIZES = (16,)
plan.MEMBERS_A_PIECE = 16
def logit(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jax.nn.softplus(eta)
fits = jm.fit_batch(logit, {"beta": np.zeros(2)}, {"x": x, "y": y}, checkpoint=None if folder == "-" else folder, progress=False)
np.savez(sys.argv[3], *map(np.asarray, jax.tree.leaves(fits)))
"""


def test_a_round_is_left_when_half_are_done_and_few_would_end():
    assert not half_done(Counts(2048, 2048, 2048))
    assert not half_done(Counts(2048, 2009, 1405))  # more than half
    assert not half_done(
        Counts(2048, 2048, 900)
    )  # more than half have just ended: the next step may end most of the others
    assert half_done(Counts(2048, 1100, 1000))
    assert half_done(Counts(2048, 2048, 20))


@pytest.mark.parametrize("in_numpy", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_the_last_few_climb_in_a_chunk_of_their_own(monkeypatch, in_numpy):
    """Sixty-four of 140 members are separated; the last of them go on in few seats, and end as they would have."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(140, 20)), (rng.random((140, 20)) < 0.5).astype(float)
    y[:64] = x[:64] > 0
    x[:64] *= np.logspace(-1, 3, 64)[:, None]

    def model(p, d):
        return d["y"] * p["b"] * d["x"] - jnp.logaddexp(0.0, p["b"] * d["x"])

    def run():
        return jm.fit_batch(model, {"b": 0.0}, {"x": x, "y": y}, progress=False)

    monkeypatch.setattr(compilation, "machine_for", lambda devices: Machine(in_numpy))
    monkeypatch.setattr(plan, "CHUNK_SIZES", (256,))
    monkeypatch.setattr(chunk, "MIN_MEMBERS_TO_MOVE", 1000)
    whole, taken = run(), []
    monkeypatch.setattr(chunk, "MIN_MEMBERS_TO_MOVE", 20)
    monkeypatch.setattr(chunk, "SLOTS_FOR_THE_LAST", 8)
    monkeypatch.setattr(chunk, "few_left", lambda counts: counts.now <= 8)  # of compiled climbs
    monkeypatch.setattr(
        chunk.Chunk,
        "taken",
        lambda self, *args, own=chunk.Chunk.taken: taken.append(args) or own(self, *args),
    )
    late = run()
    most = 140 // 2 if in_numpy else 8
    assert taken and all(0 < np.sum(active) <= most for _, active in taken)
    assert np.sum(whole.status == Status.SEPARATED) == 64
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(late), strict=True):
        assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_run_resumes_to_the_bit(tmp_path):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        )
    }

    def command(*args):
        return [sys.executable, "-c", KILLED, *map(str, args)]

    folder = tmp_path / "run"
    with subprocess.Popen(
        command(folder, "slow", tmp_path / "never.npz"),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        for _ in range(4):
            assert running.stdout.readline().startswith("saved")
        running.send_signal(signal.SIGKILL)
    kept = {path.name: path.read_bytes() for path in folder.glob("first-*.npz")}
    assert 4 <= len(kept) < 13
    assert json.loads((folder / "manifest.json").read_text())["schedule"]["buckets"]
    subprocess.run(command(folder, "fast", tmp_path / "resumed.npz"), env=environment, check=True)
    subprocess.run(command("-", "fast", tmp_path / "straight.npz"), env=environment, check=True)
    assert all((folder / name).read_bytes() == content for name, content in kept.items())
    with (
        np.load(tmp_path / "resumed.npz") as resumed,
        np.load(tmp_path / "straight.npz") as straight,
    ):
        for name in straight.files:
            assert_array_equal(resumed[name], straight[name])


# ---------------------------------------------------------------- devices

EIGHT = """
import sys
import numpy as np, jax
import jaxmle as jm
assert len(jax.devices()) == int(sys.argv[1])
rng = np.random.default_rng(0)
x = np.concatenate([np.ones((50, 40, 1)), rng.normal(size=(50, 40, 1))], axis=2)
y = (rng.random((50, 40)) < 0.5).astype(float)
y[7] = (x[7, :, 1] > 0)
y[9, 3] = np.nan
loglik = jm.regression(lambda eta, row: row["y"] * eta["mu"] - jax.nn.softplus(eta["mu"]), eta={"mu": jm.linear("x", "beta")})
fits = jm.fit_batch(loglik, {"beta": np.zeros(2)}, {"x": x, "y": y}, vcov="HC1", progress=False)
np.savez(sys.argv[2], x=fits.x, se=fits.se, status=fits.status, loglik=fits.loglik)
"""


def test_eight_devices_give_the_same(tmp_path):
    for devices in (1, 8):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
            ),
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        }
        subprocess.run(
            [sys.executable, "-c", EIGHT, str(devices), str(tmp_path / f"{devices}.npz")],
            env=environment,
            check=True,
        )
    with np.load(tmp_path / "1.npz") as one, np.load(tmp_path / "8.npz") as eight:
        assert_array_equal(one["status"], eight["status"])
        sound = one["status"] == Status.CONVERGED
        assert_array_equal(one["x"][~sound], eight["x"][~sound])
        assert_allclose((one["x"][sound] - eight["x"][sound]) / one["se"][sound], 0.0, atol=1e-9)
        assert_allclose(one["se"][sound], eight["se"][sound], rtol=1e-9)


def test_a_long_run_is_stopped_cleanly(tmp_path):
    """Ctrl-C: finished members are kept, the message says how to go on."""
    from jaxmle.batch import scheduler as run

    calls = []

    def interrupted(self, piece, arrays):
        calls.append(piece)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "cut", lambda *args: run.Schedule(8, 1, -(-B // 8), 16))
        patch.setattr(plan, "MEMBERS_A_PIECE", 8)
        save = run.Checkpoint.save
        patch.setattr(
            run.Checkpoint,
            "save",
            lambda self, piece, arrays: (
                save(self, piece, arrays),
                interrupted(self, piece, arrays),
            ),
        )
        with pytest.raises(KeyboardInterrupt, match="resumes from there"):
            jm.fit_batch(logit, START, STACK, checkpoint=tmp_path / "run", progress=False)
        assert len(list((tmp_path / "run").glob("first-*.npz"))) == 2
    assert_allclose(
        jm.fit_batch(logit, START, STACK, checkpoint=tmp_path / "run").x,
        jm.fit_batch(logit, START, STACK).x,
        atol=1e-12,
    )
