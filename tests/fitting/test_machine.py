"""The state machine of a batch compiled, as on an accelerator, gives what it gives in NumPy, and looks and fetches little."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import jaxmle as jm
from jaxmle import Status
from jaxmle.batch import scheduler
from jaxmle.batch.chunks import chunk, compilation, plan
from jaxmle.batch.chunks.machine import Machine

MEMBERS, ROWS = 16, 30
SAME = 1e-7  # of a standard error: sums in another order


def logistic(params, data):
    eta = params["level"] + data["x"] * params["slope"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


def peaks(params, data):
    """Absolute deviations: a maximum at a kink."""
    return -jnp.abs(data["x"] - params["level"]) - 0.5 * (data["y"] - params["slope"]) ** 2


def members():
    """Regular ones, separated ones, one with a constant column, one that is not finite."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(MEMBERS, ROWS))
    y = (rng.random(x.shape) < 0.5).astype(float)
    y[3] = x[3] > 0.1
    y[5] = 1.0
    x[7] = 2.0
    y[9, 4] = np.nan
    return {"x": x, "y": y}


def fits(monkeypatch, loglik, data, machine):
    monkeypatch.setattr(compilation, "machine_for", lambda devices: machine)
    return jm.fit_batch(loglik, {"level": 0.1, "slope": 0.0}, data, progress=False)


LOOKS = []


@dataclass(frozen=True)
class Watched(Machine):
    """The machine of an accelerator, on a CPU; notes the bytes of each look of the host."""

    def fetched(self, tree):
        LOOKS.append(sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
        return super().fetched(tree)


@pytest.mark.parametrize("compiled", [Machine(False), Watched(False, None, True)])
@pytest.mark.parametrize(("loglik", "single_precision_first"), [(logistic, True), (peaks, False)])
def test_the_compiled_machine_gives_what_it_gives_in_numpy(
    monkeypatch, loglik, single_precision_first, compiled
):
    monkeypatch.setattr(plan, "CHUNK_SIZES", (MEMBERS,))
    if single_precision_first:
        monkeypatch.setattr(scheduler, "MIN_ROWS_FOR_FLOAT32_START", 0)
        monkeypatch.setattr(scheduler, "MIN_ROWS_A_MEMBER_FOR_FLOAT32", 0)
    data = members()
    in_numpy = fits(monkeypatch, loglik, data, Machine(True))
    compiled = fits(monkeypatch, loglik, data, compiled)
    assert_array_equal(compiled.status, in_numpy.status)
    assert np.sum(in_numpy.status == Status.CONVERGED) >= MEMBERS - 5
    assert in_numpy.status[9] == Status.NONFINITE
    fine = in_numpy.status == Status.CONVERGED
    moved = (compiled.x[fine] - in_numpy.x[fine]) / np.nan_to_num(in_numpy.se[fine], nan=1.0)
    assert_allclose(moved, 0.0, atol=SAME)
    assert_allclose(compiled.se[fine], in_numpy.se[fine], rtol=SAME)
    assert jax.tree.structure(compiled) == jax.tree.structure(in_numpy)
    for one, other in zip(jax.tree.leaves(compiled), jax.tree.leaves(in_numpy), strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype


MANY = 40


@pytest.fixture(scope="module")
def hard():
    """Members of which nine are separated, each by another margin."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(MANY, ROWS))
    y = (rng.random(x.shape) < 1 / (1 + np.exp(-x))).astype(float)
    y[:9] = x[:9] > np.linspace(-1, 1, 9)[:, None]
    return {"x": x * np.geomspace(1, 100, MANY)[:, None], "y": y}


@pytest.mark.parametrize("single_precision_first", [False, True])
def test_members_of_several_chunks_move_together_as_they_would_apart(
    monkeypatch, hard, single_precision_first
):
    """Five chunks of eight members in one piece, whose last few move to a chunk of their own, give the bits of five pieces; but for how many steps the first piece allows in single precision."""
    monkeypatch.setattr(plan, "CHUNK_SIZES", (8,))
    monkeypatch.setattr(chunk, "MIN_MEMBERS_TO_MOVE", 8)
    if single_precision_first:
        monkeypatch.setattr(scheduler, "MIN_ROWS_FOR_FLOAT32_START", 0)
        monkeypatch.setattr(scheduler, "MIN_ROWS_A_MEMBER_FOR_FLOAT32", 0)
    monkeypatch.setattr(plan, "MEMBERS_A_PIECE", 8)
    apart = fits(monkeypatch, logistic, hard, Machine(True))
    monkeypatch.setattr(plan, "MEMBERS_A_PIECE", 40)
    pieces, taken = [], []
    load, own = chunk.load, chunk.Chunk.taken
    monkeypatch.setattr(scheduler, "load", lambda *given: pieces.append(load(*given)) or pieces[-1])
    monkeypatch.setattr(chunk.Chunk, "taken", lambda *given: taken.append(1) or own(*given))
    together = fits(monkeypatch, logistic, hard, Machine(True))
    assert len(pieces[0].parts) == 5 and taken
    if not single_precision_first:
        for one, other in zip(jax.tree.leaves(apart), jax.tree.leaves(together), strict=True):
            assert_array_equal(one, other)
    assert_array_equal(together.status, apart.status)
    fine = apart.converged
    assert np.sum(fine) == MANY - 9
    assert_allclose(together.x[fine], apart.x[fine], atol=SAME * np.min(apart.se[fine]))


@pytest.mark.parametrize("few", [8, 16], ids=["in a chunk of their own", "in one round"])
def test_an_accelerator_is_seldom_waited_for_and_keeps_the_data(monkeypatch, hard, few):
    """The symptom: the host waited for the device once a step, and fetched a whole chunk for its last members."""
    monkeypatch.setattr(chunk, "SLOTS_FOR_THE_LAST", few)
    monkeypatch.setattr(scheduler, "SLOTS_FOR_THE_LAST", few)
    monkeypatch.setattr(chunk, "few_left", lambda counts: counts.now <= few)
    taken = []
    rows_taken = chunk.rows_taken
    monkeypatch.setattr(chunk, "rows_taken", lambda *given: taken.append(1) or rows_taken(*given))
    in_numpy = fits(monkeypatch, logistic, hard, Machine(True))
    LOOKS.clear()
    watched = fits(monkeypatch, logistic, hard, Watched(False, None, True))
    assert_array_equal(watched.status, in_numpy.status)
    assert np.sum(watched.status == Status.SEPARATED) >= 9
    fine = in_numpy.converged
    assert_allclose(watched.x[fine], in_numpy.x[fine], atol=SAME * np.max(in_numpy.se[fine]))
    assert bool(taken) == (few == 8)
    assert len(LOOKS) < np.max(watched.steps) / 2
    # who runs before a step and after it, a byte each of 128 slots
    assert max(LOOKS) <= 2 * 128
