"""Passes over many rows: to_device once, by scores where scores are enough, without a Hessian where it has not changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.fitting import passes
from jaxmle.fitting.frozen_hessian import (
    LONGEST_STEP_IN_STDERR,
    STDERR_TOLERANCE,
    longest_safe_step,
    reuse_hessian,
)
from jaxmle.fitting.head_start import _turn
from jaxmle.fitting.objective import UserScale
from jaxmle.likelihood.designs import Column, gram
from jaxmle.runtime.device import ALIGNED_BYTES, MIN_BYTES_FOR_HUGE_PAGES, placed, to_device
from jaxmle.solvers.bfgs import Slope, bfgs_ascent
from jaxmle.solvers.state import POLISHING, Point
from jaxmle.solvers.trust_region import begin, step

EVENTS = 400.0


def counts(z):
    """EVENTS events of a Poisson law, by the logarithm of their mean: ℓ, score and information, maximal at log EVENTS."""
    mean = np.exp(z[0])
    return EVENTS * z[0] - mean, np.array([EVENTS - mean]), np.array([[-mean]])


def tail(z):
    """A maximum at infinity."""
    return -np.exp(-z[0]), np.array([np.exp(-z[0])]), np.array([[-np.exp(-z[0])]])


def bent(z):
    """A curvature that falls by a hundredth at zero."""
    j = np.where(z[0] < 0, 1.0, 0.99) * 1e6
    return -0.5 * j * z[0] ** 2 + 0.5e6 * 1e-8, -j * z, np.array([[-j]])


def whole(model):
    def evaluate(z):
        value, score, hessian = model(z)
        return Point(
            z,
            np.float64(value),
            np.abs(np.float64(value)),
            score,
            hessian,
            None,
            UserScale(z, np.eye(1), score, hessian),
        )

    return evaluate


def scores(model):
    def slopes(z):
        value, score, _ = model(z)
        return Slope(
            z,
            np.float64(value),
            np.abs(np.float64(value)),
            score,
            UserScale(z, np.eye(1), score, None),
        )

    return slopes


def never(z):
    raise AssertionError("no pass was due")


def near(model, z):
    state = begin(whole(model), np.array([z]))
    assert state.phase == POLISHING
    return state


# ---------------------------------------------------------------- the Hessian kept


def test_a_short_step_keeps_the_hessian_and_every_standard_error():
    longest = longest_safe_step(1 / np.sqrt(EVENTS))
    state = near(counts, np.log(EVENTS) - longest / np.sqrt(EVENTS))
    point = reuse_hessian(scores(counts), 1.01 * longest, state)
    value, score, hessian = counts(point.z)
    assert point.hessian is state.point.hessian
    assert point.aux.hessian is state.point.aux.hessian
    assert (point.value, point.score, point.aux.score) == (value, score, score)
    assert abs(np.sqrt(point.hessian[0, 0] / hessian[0, 0]) - 1) < STDERR_TOLERANCE / 5
    assert abs(point.score[0]) < 1e-6 * np.sqrt(EVENTS)


def test_a_longer_step_is_not_tried():
    assert reuse_hessian(never, 1e-6, near(counts, np.log(EVENTS) - 2e-6 / np.sqrt(EVENTS))) is None


def test_a_hessian_that_changes_is_not_kept():
    """The step ends beyond the bend: it leaves a score that its information does not account for."""
    state = near(bent, -3e-9)
    state = state._replace(
        point=state.point._replace(score=state.point.score * 1.5), move=np.array([4.5e-9])
    )
    assert np.sqrt(2 * state.newton.decrement) < LONGEST_STEP_IN_STDERR
    assert reuse_hessian(scores(bent), LONGEST_STEP_IN_STDERR, state) is None


def test_a_recession_however_short_its_steps_is_seen():
    state = near(tail, 30.0)
    assert np.sqrt(2 * state.newton.decrement) < 1e-6
    assert reuse_hessian(scores(tail), LONGEST_STEP_IN_STDERR, state) is None


def test_a_score_that_is_not_finite_is_not_kept():
    state = near(counts, np.log(EVENTS) - 1e-8)
    assert (
        reuse_hessian(
            lambda z: scores(counts)(z)._replace(score=np.array([np.nan])),
            LONGEST_STEP_IN_STDERR,
            state,
        )
        is None
    )


def test_the_turn_of_a_count_is_one_over_the_root_of_its_events():
    """J = e^z, so that (J₁ − J₀) / J₁ over a step d is 1 − e⁻ᵈ, and the step is d √J₁ standard errors long."""
    before = begin(whole(counts), np.array([np.log(EVENTS) - 1e-3]))
    after = step(whole(counts), before)
    d = after.point.z[0] - before.point.z[0]
    exact = -np.expm1(-d) / (d * np.exp(after.point.z[0] / 2))
    assert_allclose(_turn(before, after), exact, rtol=1e-12)  # J₁ − J₀ keeps 13 of 16 digits
    # d is 1e-3, to first order: 1 − e⁻ᵈ = d (1 − d/2)
    assert_allclose(exact, 1 / np.sqrt(EVENTS), rtol=0.51e-3)
    assert _turn(after, after) == np.inf
    assert longest_safe_step(np.inf) == 0.0


# ---------------------------------------------------------------- a climb by scores


def quadratic(k, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(k, 3 * k)) * 10.0 ** rng.uniform(-3, 3, k)[:, None]
    information, top = 1e4 * root @ root.T, rng.normal(size=k)

    def slopes(z):
        s = information @ (top - z)
        return Slope(z, -0.5 * (top - z) @ s, np.float64(1.0), s)

    return slopes, information, top


@pytest.mark.parametrize("k", [1, 6])
def test_a_metric_that_is_nearly_right_leads_to_the_maximum(k):
    slopes, information, top = quadratic(k)
    rng = np.random.default_rng(1)
    off = np.linalg.cholesky(information)
    noise = 0.05 * rng.normal(size=(k, k))
    metric = off @ (np.eye(k) + noise + noise.T) @ off.T
    start = top + 20 * np.linalg.solve(off.T, rng.normal(size=k))
    end = bfgs_ascent(slopes, start, metric, 1e-6)
    assert end.arrived
    assert np.linalg.norm(off.T @ (end.z - top)) < 1e-5
    assert end.passes <= 10


@pytest.mark.parametrize("wrong", [5.0, 0.2])
def test_a_metric_that_is_wrong_leads_nowhere(wrong):
    slopes, information, top = quadratic(3)
    start = top + 1.0
    end = bfgs_ascent(slopes, start, wrong * information, 1e-6)
    assert not end.arrived
    assert end.z is start
    assert end.passes == 2


def test_a_climb_by_scores_does_not_arrive_at_infinity():
    start = np.array([0.0])
    end = bfgs_ascent(scores(tail), start, np.array([[1.0]]), 1e-6)
    assert not end.arrived
    assert end.z is start


@pytest.mark.parametrize("field", ["value", "score"])
def test_a_pass_that_is_not_finite_ends_a_climb_by_scores(field):
    slopes, information, top = quadratic(3)
    start = top + 1.0
    end = bfgs_ascent(
        lambda z: slopes(z)._replace(**{field: getattr(slopes(z), field) * np.nan}),
        start,
        information,
        1e-6,
    )
    assert not end.arrived
    assert end.z is start


# ---------------------------------------------------------------- placing, and X'WX


def test_large_arrays_are_placed_where_the_device_reads_them():
    x = np.asarray(
        np.random.default_rng(0).normal(size=(MIN_BYTES_FOR_HUGE_PAGES // 16 + 3, 2)), order="F"
    )
    with jax.enable_x64(True):
        for leaf in (
            x,
            x[:, 0],
            x.astype(np.float32).T,
            np.arange(MIN_BYTES_FOR_HUGE_PAGES // 4),
            x[:3],
        ):
            there = to_device(leaf)
            assert isinstance(there, jax.Array)
            assert there.dtype == leaf.dtype
            assert np.array_equal(np.asarray(there), leaf)
        whole = to_device(x)
        assert whole.unsafe_buffer_pointer() % ALIGNED_BYTES == 0
        copy = x.copy()
        x[:] = 0.0
        assert np.array_equal(np.asarray(whole), copy)


def test_arrays_that_are_on_the_device_are_not_sent_there_again(monkeypatch):
    """The symptom: they went to the host, and back from it."""
    sent = []
    monkeypatch.setattr(passes, "placed", lambda leaf: sent.append(leaf) or placed(leaf))
    rng = np.random.default_rng(4)
    data = {"x": rng.normal(size=(60, 2)), "y": rng.poisson(2.0, 60)}
    alone = jm.fit(jm.models.poisson(), data=data)
    assert [type(leaf) for leaf in sent] == [np.ndarray, np.ndarray]
    sent.clear()
    with jax.enable_x64(True):
        there = jax.tree.map(jnp.asarray, data)
    fit = jm.fit(jm.models.poisson(), data=there)
    assert sent[0] is there["x"] and sent[1] is there["y"]
    assert np.array_equal(fit.x, alone.x) and np.array_equal(fit.data_id, alone.data_id)
    sent.clear()
    narrow = there | {"x": there["x"].astype(jnp.float32)}  # on a CPU NumPy has widened it already
    fit = jm.fit(jm.models.poisson(), data=narrow)
    assert sent[0].dtype == np.float64 and isinstance(sent[0], np.ndarray)
    wide = data | {"x": data["x"].astype(np.float32).astype(float)}
    assert np.array_equal(fit.x, jm.fit(jm.models.poisson(), data=wide).x)


@pytest.mark.parametrize("rows", [5, MIN_BYTES_FOR_HUGE_PAGES // 8])
def test_room_after_the_entries_of_an_array_is_zero(rows):
    x = np.random.default_rng(1).normal(size=(3, rows))
    with jax.enable_x64(True):
        there = np.asarray(to_device(x, 7))
    assert there.shape == (7, rows)
    assert np.array_equal(there[:3], x)
    assert not there[3:].any()


@pytest.mark.parametrize("q", [63, 64, 65])
def test_products_of_wide_designs_are_those_of_narrow_ones(q):
    rng = np.random.default_rng(q)
    x, w = rng.normal(size=(40, q)), rng.normal(size=(2, 2, 40))
    with jax.enable_x64(True):
        columns = (Column(jnp.asarray(x), np.arange(q)), Column(None, np.array([q])))
        found = np.asarray(gram(columns, jnp.asarray(w), q + 1))
    design = [np.pad(x, ((0, 0), (0, 1))), np.pad(np.ones((40, 1)), ((0, 0), (q, 0)))]
    told = sum(
        design[a].T @ (w[max(a, b), min(a, b)][:, None] * design[b])
        for a in range(2)
        for b in range(2)
    )
    assert_allclose(found, told, rtol=0, atol=1e-12)
