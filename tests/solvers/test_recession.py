"""Several Newton steps of a recession at once: taken where ℓ has a tail e⁻ᵗ, refused where it has not, never evidence by themselves."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.solvers import tails
from jaxmle.solvers.state import DONE, SETTLED, Point
from jaxmle.solvers.trust_region import maximise
from jaxmle.verdict.limit import explore

EPS = np.finfo(float).eps


def evaluator(value, slope, bend, seen):
    """ℓ(t) − (n − e⁻ᵗ/3)²: a tail in t, and a parameter n that is carried along with it until the end."""

    def evaluate(z):
        t, n = z
        e = np.exp(-t)
        r = n - e / 3
        seen.append(float(t))
        score = np.array([slope(t) - 2 * r * e / 3, -2 * r])
        hessian = np.array(
            [[bend(t) + 2 * r * e / 3 - 2 * e**2 / 9, -2 * e / 3], [-2 * e / 3, -2.0]]
        )
        return Point(z, np.float64(value(t) - r**2), np.float64(1.0), score, hessian)

    return evaluate


def tail(seen):
    return evaluator(lambda t: -np.exp(-t), lambda t: np.exp(-t), lambda t: -np.exp(-t), seen)


def climb(evaluate, monkeypatch=None):
    if monkeypatch is not None:
        monkeypatch.setattr(tails, "DECREMENT_OF_A_PROVED_TAIL", -1.0)  # no extrapolation
    return maximise(evaluate, np.array([0.0, 0.0]), 200)


def test_a_tail_is_followed_in_leaps(monkeypatch):
    seen, plain = [], []
    state = climb(tail(seen))
    slow = climb(tail(plain), monkeypatch)
    assert (state.phase, state.outcome) == (slow.phase, slow.outcome) == (DONE, SETTLED)
    assert len(seen) < 24 and len(plain) > 32
    assert np.max(np.diff(seen)) > 5 and np.max(np.diff(plain)) < 1.2
    assert state.may_extrapolate
    # The evidence: plain steps, and a direction without n.
    assert state.tail.length >= tails.STEPS_OF_A_TAIL and state.tail.decrement < 1e-8
    assert abs(state.tail.move[0] - 1) < 1e-4 and abs(state.tail.move[1]) < 1e-6
    limits = [explore(tail([]), end) for end in (state, slow)]
    assert all(limit.recedes for limit in limits)
    assert_allclose(limits[0].point.value, limits[1].point.value, atol=1e-12)
    assert_allclose(limits[0].point.z[1], 0.0, atol=1e-9)


@pytest.mark.parametrize("at", [8.0, 10.0, 12.0, 14.0, 16.0, 18.0])
def test_a_maximum_beyond_a_tail_is_found(at):
    """−e⁻ᵗ − e^{t − 2a} has its maximum at t = a: from a tail's steps a leap would go past it."""
    seen = []
    value, slope, bend = (
        (lambda t: -np.exp(-t) - np.exp(t - 2 * at)),
        (lambda t: np.exp(-t) - np.exp(t - 2 * at)),
        (lambda t: -np.exp(-t) - np.exp(t - 2 * at)),
    )
    state = climb(evaluator(value, slope, bend, seen))
    assert state.outcome == SETTLED
    assert_allclose(
        state.point.z[0], at, rtol=0, atol=1e-6 / np.sqrt(2 * np.exp(-at))
    )  # in standard errors
    assert not explore(evaluator(value, slope, bend, []), state).recedes
    assert not state.rough


def test_where_digits_are_lost_no_leap_is_kept():
    """Derivatives with the noise of a difference of log-gamma functions of e^t: a leap lands in it, and is the last."""
    rng = np.random.default_rng(3)

    def noise(t):
        return 1e-12 * np.exp(t / 2) * rng.normal()

    seen = []
    state = climb(
        evaluator(
            lambda t: -np.exp(-t),
            lambda t: np.exp(-t) + noise(t),
            lambda t: -np.exp(-t) + noise(t),
            seen,
        )
    )
    assert not state.may_extrapolate
    back = np.flatnonzero(np.diff(seen) < -1)
    assert len(back) == 1  # once there and back


def test_slower_tails_are_followed_step_by_step(monkeypatch):
    """−1/t: each Newton step makes t half as long again; no leap lands where e⁻ᵗ would have it."""
    value, slope, bend = (
        (lambda t: -1 / (1 + t)),
        (lambda t: (1 + t) ** -2),
        (lambda t: -2 * (1 + t) ** -3),
    )
    seen, plain = [], []
    state = climb(evaluator(value, slope, bend, seen))
    slow = climb(evaluator(value, slope, bend, plain), monkeypatch)
    assert state.outcome == slow.outcome
    assert_allclose(state.point.z, slow.point.z)
    assert len(seen) <= len(plain) + 1


def test_a_tail_whose_terms_have_lost_their_digits_ends_without_forty_refusals():
    """The symptom: t − log(1 + eᵗ) is 0 or 7e-15 at t = 33, and an ascent that was taken there by
    several steps at once was refused forty times.
    """
    fit = jm.fit(lambda t, y: y * t - jm.special.softplus(t), 0.0, np.ones(6))
    assert fit.verdict.name == "SEPARATED"
    assert fit.x[0] == np.inf
    assert fit.steps < 30


def test_steps_are_not_taken_at_once_before_the_tail_is_one(monkeypatch):
    """The symptom: −e⁻²ᵗ − e⁻ᵗ/100 changes from one tail to another where the first try was made.
    That was refused, and none was made any more.
    """

    def changing(seen):
        def value(t):
            return -np.exp(-2 * t) - 0.01 * np.exp(-t)

        def slope(t):
            return 2 * np.exp(-2 * t) + 0.01 * np.exp(-t)

        def bend(t):
            return -4 * np.exp(-2 * t) - 0.01 * np.exp(-t)

        return evaluator(value, slope, bend, seen)

    at_once, one_by_one = [], []
    state = climb(changing(at_once))
    climb(changing(one_by_one), monkeypatch)
    assert state.may_extrapolate
    assert len(at_once) <= len(one_by_one) - 8
