"""Excursions and walks in NumPy with an axis of members last: what each member's end is found to be
is what it is found to be alone.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmle.solvers.leading_axes import where_active
from jaxmle.solvers.state import Point, select, start
from jaxmle.solvers.trust_region import advance, begin, is_running
from jaxmle.verdict.doubt import is_collapse, remember_rise
from jaxmle.verdict.excursion import follow, to_limit
from jaxmle.verdict.limit import (
    arrived,
    explore,
    needs_excursion,
    settled_rise,
    to_shape,
    unexplored,
)
from jaxmle.verdict.profile_points import begin_path
from jaxmle.verdict.profile_steps import look
from jaxmle.verdict.shape import Shape

MAX_STEPS = 150
LOGARITHMS = (False, False, True)
# ℓ of w (3,): what the first coordinate does, and the terms of the others
CORES = {
    "regular": lambda u, v: -0.5 * (u - 1.0) ** 2,
    "flat": lambda u, v: 0.0 * u,
    "separated": lambda u, v: -jnp.log1p(jnp.exp(-u)),
    "slow tail": lambda u, v: -1.0 / jnp.sqrt(1.0 + jnp.exp(-u) + jax.nn.softplus(u) ** 2),
    "logarithmic growth": lambda u, v: jnp.log1p(u**2 + u),
    "linear growth": lambda u, v: u,
    "quartic": lambda u, v: -((u - 0.5) ** 4),
    "inflection": lambda u, v: u**3 - u**4,
    "curved ridge": lambda u, v: -0.5 * (u * jnp.exp(v) - 1.0) ** 2,
    "near a bound": lambda u, v: -jnp.exp(-u) - 1e-6 * jnp.exp(u),
    "collapse": lambda u, v: jnp.logaddexp(-0.5 * (v / jnp.exp(u)) ** 2 - u, -0.5 * v**2),
    "plateau": lambda u, v: jax.nn.sigmoid(4.0 * (u - 3.0)),
    "nowhere finite": lambda u, v: jnp.nan * u,
}
# Climbs that converge no faster than linearly, or never: they carry rounding along, and may take a
# step more or less.
LONG_CLIMBS = ("logarithmic growth", "linear growth", "quartic", "inflection", "collapse")
ALIKE = 3  # members of each kind, in different coordinates
KINDS = np.repeat(np.arange(len(CORES)), ALIKE)
MEMBERS = len(KINDS)
RELATIVE = 1e-7  # what sums in another order change, where a Hessian is of condition 1e7 or less
OF_A_TOP = 1e-5  # of a maximum beside an inflection, which is solved to the noise of ℓ


@pytest.fixture(autouse=True)
def _what_is_not_finite_is_looked_at():
    with np.errstate(all="ignore"):
        yield


def terms(z, kind, mixing):
    """Terms (4,) at z (3,)."""
    w = mixing @ z
    core = jax.lax.switch(kind, list(CORES.values()), w[0], w[1])
    rest = jnp.stack([-0.5 * (w[1] - 0.3) ** 2, -0.5 * w[2] ** 2, -jnp.logaddexp(w[2], -w[1])])
    held = jnp.where(kind == list(CORES).index("curved ridge"), 0.0, 1.0)
    return jnp.concatenate([core[None], rest * jnp.array([held, 1.0, held])])


@jax.jit
def evaluated(z, kind, mixing):
    def value(z):
        return jnp.sum(terms(z, kind, mixing))

    absolute = jnp.sum(jnp.abs(terms(z, kind, mixing)))
    return value(z), absolute, jax.grad(value)(z), jax.hessian(value)(z)


@functools.cache
def mixings():
    """(b, 3, 3): the coordinates themselves, strangely scaled ones, and mixed ones."""
    rng = np.random.default_rng(0)
    kinds = np.eye(3), np.diag([1e-3, 1.0, 20.0])
    mixed = [np.eye(3) + 0.3 * rng.normal(size=(3, 3)) for _ in CORES]
    return np.stack([m for other in mixed for m in (*kinds, other)])


def point_of(i, z):
    """The point of one member at z (3,)."""
    with jax.enable_x64(True):
        numbers = evaluated(z, np.int32(KINDS[i]), mixings()[i])
    return Point(z, *(np.asarray(number) for number in numbers))


def points_of(positions, z, active=None):
    """The points of many members at z (3, b), NaN for members that are not active."""
    active = np.ones(len(positions), bool) if active is None else active
    nowhere = Point(np.full(3, np.nan), np.nan, np.nan, np.full(3, np.nan), np.full((3, 3), np.nan))
    return stacked(
        [point_of(i, z[:, j]) if active[j] else nowhere for j, i in enumerate(positions)]
    )


def stacked(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves, axis=-1), *trees)


def member(tree, i):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[..., i], tree)


def outsets():
    """Starting values (3, b)."""
    rng = np.random.default_rng(1)
    w = 0.4 * rng.normal(size=(MEMBERS, 3)) - np.array([0.8, 0.0, 0.0])
    return np.linalg.solve(mixings(), w[:, :, None])[:, :, 0].T


@functools.cache
def ends():
    """The states of all members at the end of their climbs, made together."""
    positions = range(MEMBERS)
    z = outsets()
    point = points_of(positions, z)
    state = advance(start(z, point), point)
    while np.any(running := is_running(state, MAX_STEPS)):
        trial = points_of(positions, state.point.z + state.move, running)
        state = select(running, advance(state, trial), state)
    return state


@functools.cache
def limits_alone():
    """Where the explorations of single members lead, and their steps."""
    limits = []
    for i in range(MEMBERS):
        limits.append(explore(functools.partial(point_of, i), member(ends(), i), LOGARITHMS))
    return stacked(limits)


EXPONENTS = ("power",)  # a logarithm of what is near one, rounded as that is


def assert_alike(together, alone, names=None, relative=RELATIVE):
    """Numbers equal but for rounding, codes equal, shapes and kinds of numbers the same."""
    for name in names or together._fields:
        pairs = zip(
            jax.tree.leaves(getattr(together, name)),
            jax.tree.leaves(getattr(alone, name)),
            strict=True,
        )
        for a, b in pairs:
            assert np.shape(a) == np.shape(b), name
            if np.asarray(b).dtype.kind in "bi":
                np.testing.assert_array_equal(a, b, err_msg=name)
            else:
                # of a vector relative to its largest coordinate, for what is left of zero is rounding
                least = 1.0 if name in EXPONENTS else 0.0
                size = relative * np.max(np.abs(b), initial=least, where=np.isfinite(b))
                np.testing.assert_allclose(a, b, rtol=relative, atol=size + 1e-18, err_msg=name)


def test_the_ends_are_of_all_kinds():
    seen = {Shape(int(code)) for code in limits_alone().shape}
    assert seen >= {
        *(Shape.NOT_ASKED, Shape.PARABOLA, Shape.RISES, Shape.TAIL, Shape.LEVEL, Shape.ENDLESS),
        *(Shape.PEAK, Shape.VANISHING),
    }
    assert np.any(limits_alone().recedes & (limits_alone().shape == Shape.NOT_ASKED))


def test_members_climb_together_to_where_each_climbs_alone():
    z = outsets()
    for i in range(MEMBERS):
        evaluate = functools.partial(point_of, i)
        state = begin(evaluate, z[:, i])
        while is_running(state, MAX_STEPS):
            state = advance(state, evaluate(state.point.z + state.move))
        together = member(ends(), i)
        if list(CORES)[KINDS[i]] not in LONG_CLIMBS:
            assert_alike(together, state, ("steps", "outcome", "phase", "full", "receding_steps"))
            assert_alike(together.point, state.point, ("value",))


@pytest.mark.parametrize("size", [2, 3, MEMBERS])
def test_members_are_explored_together_as_each_is_alone(size):
    for first in range(0, MEMBERS, size):
        positions = np.arange(first, min(first + size, MEMBERS))
        limit = explore(
            functools.partial(points_of, positions), member(ends(), positions), LOGARITHMS
        )
        alone = member(limits_alone(), positions)
        asked = np.asarray(needs_excursion(LOGARITHMS, member(ends(), positions)))
        assert_alike(limit, alone, ("shape", "recedes", "short", "steps", "scale", "hidden"))
        assert_alike(member(limit, asked), member(alone, asked), ("sharp", "blurred"))
        for i in range(len(positions)):
            one, other = member(limit, i), member(alone, i)
            assert_alike(one, other, ("move", "weakness", "decrement"), OF_A_TOP)
            assert_alike(one.point, other.point, ("z", "value"), OF_A_TOP)


def bodies():
    """Each excursion and each walk: its body, what it is given, and its outset."""
    state = ends()
    far = to_limit(state)
    yield follow, (state,), far
    why = to_shape(LOGARITHMS, state, far)
    yield look, (why, state), begin_path(state, why, why.asked)


@pytest.mark.parametrize("which", ["excursion", "profile"])
def test_each_evaluation_leads_on_as_it_does_alone(which):
    """From the same point of a walk, step by step, so that no rounding is carried along."""
    body, given, e = list(bodies())[which == "profile"]
    active = []
    for _ in range(40):
        active.append(e.active)
        point = points_of(range(MEMBERS), e.trial, e.active)
        moved = where_active(e.active, body, given, e, point)
        for i in np.flatnonzero(e.active):
            before, trial = member(e, i), member(point, i)
            after = select(True, body(*member(given, i), before, trial), before)
            assert_alike(member(moved, i), after, relative=rounding_of(trial))
        assert_alike(member(moved, ~e.active), member(e, ~e.active))
        e = moved
    assert 4 <= np.sum(active[0]) < MEMBERS
    assert np.sum(active[-1]) < np.sum(active[0])


def rounding_of(point):
    """What sums in another order may change in a Newton step."""
    if not np.all(np.isfinite(point.hessian)):
        return RELATIVE
    scale = np.sqrt(np.maximum(np.abs(np.diagonal(point.hessian)), 1e-30))
    values = np.abs(np.linalg.eigvalsh(point.hessian / scale[:, None] / scale))
    return max(RELATIVE, 100 * np.finfo(float).eps * values.max() / max(values.min(), 1e-300))


@pytest.mark.parametrize("position", [0, 20, MEMBERS - 1])
def test_outsets_and_readings_are_those_of_one_member(position):
    state = ends()
    evaluate = functools.partial(points_of, range(MEMBERS))
    far = to_limit(state)
    why = to_shape(LOGARITHMS, state, far)
    path = begin_path(state, why, why.asked)
    one = member(state, position)
    assert_alike(member(far, position), to_limit(one))
    assert_alike(member(why, position), to_shape(LOGARITHMS, one, member(far, position)))
    assert_alike(
        member(path, position), begin_path(one, member(why, position), why.asked[position])
    )
    limit = arrived(state, far, why, path)
    assert_alike(
        member(limit, position),
        arrived(one, member(far, position), member(why, position), member(path, position)),
    )
    limit = explore(evaluate, state, LOGARITHMS)
    one_limit = member(limit, position)
    assert_alike(member(settled_rise(state, limit), position), settled_rise(one, one_limit))
    alone = is_collapse(member(why, position).metric, one.point)
    assert is_collapse(why.metric, state.point)[position] == alone


def test_a_climb_that_goes_on_remembers_the_way_of_each_member():
    before, limit = ends(), limits_alone()
    shorter = before.tail._replace(length=np.zeros_like(before.tail.length))
    together = remember_rise(before._replace(point=limit.point, tail=shorter), before)
    # where ℓ is seen to rise on, by half as much: straight on, or aside
    came = limit.point.z - before.point.z
    rises = np.any(came != 0, axis=0)
    aside = np.where(np.arange(MEMBERS) % ALIKE == 0, came[[1, 2, 0]], came)
    point = limit.point._replace(
        z=limit.point.z + aside,
        value=limit.point.value + 0.5 * (limit.point.value - before.point.value),
    )
    ahead = limit._replace(point=point, shape=np.where(rises, int(Shape.RISES), limit.shape))
    settled = settled_rise(together, ahead)
    for i in range(MEMBERS):
        alone = remember_rise(
            member(before._replace(point=limit.point, tail=shorter), i), member(before, i)
        )
        assert_alike(member(together, i), alone)
        assert_alike(member(settled, i), settled_rise(alone, member(ahead, i)))
    fades = settled.shape == Shape.TAIL
    assert np.any(fades & rises) and np.any(~fades & rises)


def test_only_members_that_are_wanted_are_explored():
    state = ends()
    wanted = np.arange(MEMBERS) % 2 == 0
    asked = []

    def evaluate(z, active):
        asked.append(active)
        return points_of(range(MEMBERS), z, active)

    limit = explore(evaluate, state, LOGARITHMS, wanted)
    assert not np.any(np.stack(asked) & ~wanted)
    assert np.any(limit.shape[wanted] > 0)
    assert_alike(member(limit, ~wanted), member(unexplored(state), ~wanted))
    assert_alike(member(limit, wanted), member(explore(evaluate, state, LOGARITHMS), wanted))
