"""The climb in NumPy with an axis of members last: each member's states are those of its climb
alone.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxmle.solvers.leading_axes import loop_over_active
from jaxmle.solvers.state import DONE, Point, State, start
from jaxmle.solvers.trust_region import advance

MEMBERS = 40
RELATIVE = 1e-9  # of what sums in another order change in the states of one climb


def points(z, x, y):
    """Value, score and Hessian of logits; z (k, b), x (b, n, k), y (b, n)."""
    eta = np.einsum("bnk,kb->bn", x, z)
    p = 1 / (1 + np.exp(-eta))
    terms = y * eta - np.logaddexp(0, eta)
    score = np.einsum("bn,bnk->kb", y - p, x)
    hessian = -np.einsum("bn,bnk,bnl->klb", p * (1 - p), x, x)
    return Point(z, terms.sum(1), np.abs(terms).sum(1), score, hessian)


def member(tree, i):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[..., i], tree)


def climbs(z, x, y, steps):
    """The states of all members at once, and of each alone, after so many steps."""
    together = start(z, points(z, x, y))
    for _ in range(steps):
        together = advance(together, points(together.point.z + together.move, x, y))
    alone = []
    for i in range(z.shape[1]):
        data = x[i : i + 1], y[i : i + 1]
        state = start(z[:, i], member(points(z[:, i : i + 1], *data), 0))
        for _ in range(steps):
            trial = (state.point.z + state.move)[:, None]
            state = advance(state, member(points(trial, *data), 0))
        alone.append(state)
    return together, alone


@pytest.mark.parametrize("k", [1, 3, 12])
@pytest.mark.parametrize("far", [0.0, 30.0])
def test_members_climb_together_as_each_does_alone(k, far):
    rng = np.random.default_rng(k)
    x = rng.normal(size=(MEMBERS, 15 * k + 20, k))
    x[: MEMBERS // 4, :, -1] = x[: MEMBERS // 4, :, 0]  # columns that agree: no pivot
    y = (rng.random(x.shape[:2]) < 0.5).astype(float)
    y[-4:] = 1.0  # separated
    z = far * rng.normal(size=(k, MEMBERS))
    with np.errstate(all="ignore"):
        together, alone = climbs(z, x, y, 6)
    for i in range(MEMBERS):
        for name, whole, part in zip(State._fields, together, alone[i], strict=True):
            for a, b in zip(jax.tree.leaves(member(whole, i)), jax.tree.leaves(part), strict=True):
                assert np.shape(a) == np.shape(b), name
                if name in ("phase", "outcome", "steps", "refused", "idle", "full"):
                    assert a == b, name
    assert np.all(np.asarray(together.phase)[MEMBERS // 4 : -4] == DONE) or far
    ends = np.stack([state.point.value for state in alone])
    np.testing.assert_allclose(together.point.value, ends, rtol=RELATIVE)


class Countdown(NamedTuple):
    """Members that count down from their own numbers, one at each evaluation."""

    trial: np.ndarray  # (1, b)
    active: np.ndarray
    total: np.ndarray  # of what was evaluated


@pytest.mark.parametrize("starts", [[3, 1, 4, 1, 5], [2, 2], [0, 0, 7], [0, 0]])
def test_members_that_are_done_leave_a_loop_and_return_to_their_lanes(starts):
    sizes = []

    def evaluate(z, active):
        sizes.append(int(np.sum(active)))
        return z[0] ** 2

    def body(step, now, point):
        trial = now.trial - step
        return Countdown(trial, now.active & (trial[0] > 0), now.total + point)

    z = np.array([starts], float)
    begin = Countdown(z, z[0] > 0, np.zeros(len(starts)))
    end = loop_over_active(evaluate, body, (np.ones(len(starts)),), begin)
    assert_array_equal(end.total, [sum(i**2 for i in range(n + 1)) for n in starts])
    assert_array_equal(end.trial[0], np.zeros(len(starts)))
    # one evaluation a round, of those that still count alone
    assert sizes == [sum(n > i for n in starts) for i in range(max(starts))]
    few = loop_over_active(evaluate, body, (np.ones(len(starts)),), begin, lambda now: True)
    assert_array_equal(few.trial, begin.trial)
