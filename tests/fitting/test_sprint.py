"""First steps in single precision: they change where a climb of a batch begins, never what is said at its end."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

import jaxmle as jm
from jaxmle import Status
from jaxmle.batch.chunks import chunk, plan

run = importlib.import_module("jaxmle.batch.scheduler")
B, N = 48, 40
NEVER = 2**60
START = {"beta": np.zeros(2)}
RNG = np.random.default_rng(23)
X = np.stack([np.ones((B, N)), RNG.normal(size=(B, N))], axis=-1)
Y = (RNG.random((B, N)) < expit(X @ [0.4, -0.9])).astype(float)

logistic = jm.regression(
    lambda eta, row: row["y"] * eta["mu"] - jax.nn.softplus(eta["mu"]),
    eta={"mu": jm.linear("x", "beta")},
)


def counts(params, data):
    """A negative binomial written out, whose ℓ is rounding noise where the dispersion nears zero."""
    mu, size = jnp.exp(params["level"]), 1 / params["alpha"]
    y = data["y"]
    log_ratio = jax.scipy.special.gammaln(y + size) - jax.scipy.special.gammaln(size)
    return log_ratio + size * jnp.log(size / (size + mu)) + y * jnp.log(mu / (size + mu))


def strict(params, data):
    """Its lax.add refuses two precisions."""
    return (
        -jnp.square(
            jax.lax.add(data["y"], jnp.zeros(data["y"].shape, np.float64)) - params["beta"][0]
        )
        - params["beta"][1] ** 2
    )


def huge(params, data):
    """A normal mean of 1e25: its squares are beyond single precision."""
    return -0.5 * (data["y"] - params["beta"][0]) ** 2 / 1e48 - 0.5 * params["beta"][1] ** 2


@pytest.fixture
def sprints(monkeypatch):
    """Small batches sprint too; what each chunk's sprint found is kept."""
    found, plain = [], chunk.Chunk._float32_start

    def watched(self, z, rounds):
        found.append((plain(self, z, rounds), self.active))
        return found[-1][0]

    monkeypatch.setattr(run, "MIN_ROWS_FOR_FLOAT32_START", 0)
    monkeypatch.setattr(run, "MIN_ROWS_A_MEMBER_FOR_FLOAT32", 0)
    monkeypatch.setattr(chunk.Chunk, "_float32_start", watched)
    return found


def both(monkeypatch, loglik, params0, data, **options):
    """The batch with its first steps in single precision, and without."""
    here = jm.fit_batch(loglik, params0, data, **options)
    monkeypatch.setattr(run, "MIN_ROWS_FOR_FLOAT32_START", NEVER)
    return here, jm.fit_batch(loglik, params0, data, **options)


def assert_equal_fits(one, other):
    assert_array_equal(one.status, other.status)
    fine = one.status == Status.CONVERGED
    assert_allclose((one.x[fine] - other.x[fine]) / other.se[fine], 0.0, atol=1e-8)
    assert_allclose(one.se[fine], other.se[fine], rtol=1e-8)
    assert_allclose(
        one.loglik[fine], other.loglik[fine], rtol=1e-12, atol=1e-11
    )  # a sum of terms of both signs


def test_a_sprint_changes_no_estimate_and_no_verdict(monkeypatch, sprints):
    """Regular members arrive in single precision and end where the others do; a separated, a constant and a NaN member end as they would."""
    data = {"x": X.copy(), "y": Y.copy()}
    data["y"][3] = X[3, :, 1] > 0.2
    data["y"][7] = 1.0
    data["x"][11, :, 1] = 1.0
    data["y"][17, 5] = np.nan
    here, plain = both(monkeypatch, logistic, START, data)
    (_, steps, sound), wanted = sprints[0]
    assert np.sum(np.asarray(sound) & wanted) >= B - 4
    assert not np.asarray(sound)[17]
    assert np.max(np.asarray(steps)[wanted & np.asarray(sound)]) <= 16
    assert [Status(int(s)).name for s in here.status[[3, 7, 11, 17]]] == [
        "SEPARATED",
        "SEPARATED",
        "UNIDENTIFIED",
        "NONFINITE",
    ]
    assert_equal_fits(here, plain)
    assert_array_equal(here.witness.certificate, plain.witness.certificate)
    assert_array_equal(here.witness.row, plain.witness.row)


def test_a_bad_member_changes_no_bit_of_the_others(sprints):
    bad = Y.copy()
    bad[4] = X[4, :, 1] > 0
    bad[30, 2] = np.nan
    good, mixed = (
        jm.fit_batch(logistic, START, {"x": X, "y": Y}),
        jm.fit_batch(logistic, START, {"x": X, "y": bad}),
    )
    assert len(sprints) == 2
    others = np.setdiff1d(np.arange(B), (4, 30))
    for a, b in zip(jax.tree.leaves(good), jax.tree.leaves(mixed), strict=True):
        assert_array_equal(np.asarray(a)[others], np.asarray(b)[others])


def test_the_start_asked_for_has_the_last_word(monkeypatch, sprints):
    """Underdispersed counts have their maximum on the bound; what a sprint reaches on the way there is dropped, the climb from the start judged."""
    rng = np.random.default_rng(4)
    y = rng.poisson(2.7, (B, N)).astype(float)
    here, plain = both(
        monkeypatch,
        counts,
        {"level": 0.0, "alpha": 1.0},
        {"y": y},
        constraints={"alpha": jm.positive},
    )
    assert len(sprints) == 1
    assert np.sum(plain.status == Status.BOUNDARY) >= 10
    assert_equal_fits(here, plain)
    # No maximum where the score in α at zero, ½ Σ (y − ȳ)² − y, is negative.
    under = np.sum((y - y.mean(axis=1, keepdims=True)) ** 2 - y, axis=1) < 0
    assert np.sum(under) >= 10
    assert not np.any(under & (here.status == Status.CONVERGED))


@pytest.mark.parametrize(
    ("loglik", "start", "y"),
    [(strict, 0.0, Y), (huge, 0.0, 1e25 + 1e24 * X[:, :, 1])],
    ids=["strict", "huge"],
)
def test_where_single_precision_will_not_do(monkeypatch, sprints, loglik, start, y):
    """A likelihood that cannot be written in it, or overflows in it, is fitted as if it had not been tried: to the bit."""
    here, plain = both(monkeypatch, loglik, {"beta": np.array([start, 1.0])}, {"y": y})
    (found, wanted), *_ = sprints
    assert found is None or not np.any(np.asarray(found[2]) & wanted)
    assert np.all(here.status == Status.CONVERGED)
    assert_array_equal(here.x, plain.x)
    assert_array_equal(here.se, plain.se)


@pytest.mark.thorough
def test_the_first_chunk_decides_and_a_checkpoint_keeps_it(monkeypatch, sprints, tmp_path):
    """The rounds of later chunks are set by the first; a resumed run repeats them to the bit."""
    monkeypatch.setattr(plan, "CHUNK_SIZES", (16,))
    monkeypatch.setattr(plan, "MEMBERS_A_PIECE", 16)
    data = {"x": X, "y": Y}
    whole = jm.fit_batch(logistic, START, data, checkpoint=tmp_path / "run")
    assert len(sprints) == 3
    (tmp_path / "run" / "first-000001.npz").unlink()
    again = jm.fit_batch(logistic, START, data, checkpoint=tmp_path / "run")
    assert len(sprints) == 4
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        assert_array_equal(a, b)


def test_a_run_killed_between_the_decision_and_the_first_piece_ran_it_again_with_other_steps(
    monkeypatch, sprints, tmp_path
):
    """The decision was made from the first chunk, and then changed that chunk itself."""
    monkeypatch.setattr(plan, "CHUNK_SIZES", (16,))
    monkeypatch.setattr(plan, "MEMBERS_A_PIECE", 16)
    data, asked, plain = {"x": X, "y": Y}, [], chunk.Chunk.ascend

    def watched(self, rounds, enough):
        asked.append(rounds)
        return plain(self, rounds, enough)

    def killed(self, piece, arrays):
        raise KeyboardInterrupt

    monkeypatch.setattr(chunk.Chunk, "ascend", watched)
    whole = jm.fit_batch(logistic, START, data, checkpoint=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(run.Checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            jm.fit_batch(logistic, START, data, checkpoint=tmp_path / "run")
    again = jm.fit_batch(logistic, START, data, checkpoint=tmp_path / "run")
    assert asked[:3] == asked[-3:] and asked[0] != asked[1]
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        assert_array_equal(a, b)


def test_a_few_steps_asked_for_are_the_users_own(sprints):
    """max_steps counts steps of the climb itself, and a float32 fit is in single precision anyway."""
    jm.fit_batch(logistic, START, {"x": X, "y": Y}, max_steps=8)
    jm.fit_batch(logistic, START, {"x": X, "y": Y}, dtype="float32")
    assert not sprints
