"""The linear algebra of the loop against NumPy, and against search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxmle.solvers.linalg import cholesky, metric_of, solve_lower, solve_upper
from jaxmle.solvers.newton_step import bounded, newton_step, trust_step
from jaxmle.solvers.rare_branches import rarely

EPS = np.finfo(float).eps


@pytest.fixture(autouse=True)
def as_on_the_host():
    """A fit runs its loop with NumPy's warnings off: what overflows is refused by value."""
    with np.errstate(all="ignore"):
        yield


def positive_definite(p, seed=0):
    a = np.random.default_rng(seed).normal(size=(p, p + 2))
    return a @ a.T


@pytest.mark.parametrize("p", range(1, 11))
def test_cholesky_and_its_solves_equal_numpy(p):
    r, b, many = (
        positive_definite(p, p),
        np.arange(1.0, p + 1),
        np.random.default_rng(p).normal(size=(p, 2)),
    )
    exact = np.linalg.cholesky(r)
    with jax.enable_x64(True):
        factor = np.asarray(cholesky(jnp.asarray(r), unrolled=True))
        lower, upper = (
            np.asarray(f(jnp.asarray(exact), jnp.asarray(b), unrolled=True))
            for f in (solve_lower, solve_upper)
        )
        block = np.asarray(solve_lower(jnp.asarray(exact), jnp.asarray(many), unrolled=True))
    assert_allclose(factor, exact, rtol=1e-12, atol=1e-12)
    assert_allclose(cholesky(r), exact, rtol=1e-13)
    assert_allclose(exact @ lower, b, atol=1e-10)
    assert_allclose(exact.T @ upper, b, atol=1e-10)
    assert_allclose(exact @ block, many, atol=1e-10)


@pytest.mark.parametrize("p", [2, 5, 10])
def test_a_matrix_that_is_not_positive_definite_has_no_factor(p):
    r = positive_definite(p)
    r[-1, -1] = -1.0
    with jax.enable_x64(True):
        assert not np.isfinite(np.asarray(cholesky(jnp.asarray(r), unrolled=True))).all()
    assert not np.isfinite(cholesky(r)).all()


def test_rarely_under_vmap_is_the_plain_choice():
    rare, usual = lambda x: x * 2 + 1, lambda x: x - 3
    x = jnp.arange(6.0)
    for needed in (jnp.zeros(6, bool), jnp.ones(6, bool), x > 2):
        out = jax.vmap(lambda n, v: rarely(n, rare, usual, v))(needed, x)
        assert_array_equal(out, jnp.where(needed, rare(x), usual(x)))
    assert_array_equal(jax.vmap(lambda v: rarely(jnp.asarray(True), rare, usual, v))(x), rare(x))
    for flag in (True, False):
        assert rarely(flag, rare, usual, 4.0) == (rare if flag else usual)(4.0)
        assert rarely(jnp.asarray(flag), rare, usual, jnp.asarray(4.0)) == (
            rare if flag else usual
        )(4.0)


def test_rarely_of_a_nested_batch_and_of_trees():
    rare, usual = lambda t: {"m": t["m"].T, "v": t["v"] * 0}, lambda t: t
    tree = {"m": jnp.arange(24.0).reshape(2, 3, 2, 2), "v": jnp.ones((2, 3))}
    needed = jnp.asarray([[True, False, True], [False, False, True]])
    out = jax.vmap(jax.vmap(lambda n, t: rarely(n, rare, usual, t)))(needed, tree)
    assert_array_equal(
        out["m"], jnp.where(needed[..., None, None], jnp.swapaxes(tree["m"], -1, -2), tree["m"])
    )
    assert_array_equal(out["v"], jnp.where(needed, 0.0, 1.0))


# ---------------------------------------------------------------- Newton's step


def test_newton_step_and_decrement_are_those_of_the_textbook():
    j, s = positive_definite(4), np.array([1.0, -2.0, 0.5, 3.0])
    newton = newton_step(j, s, metric_of(j, s), EPS * 200, 1e-8)
    assert_allclose(newton.step, np.linalg.solve(j, s), rtol=1e-10)
    assert_allclose(newton.decrement, 0.5 * s @ np.linalg.solve(j, s), rtol=1e-12)
    assert newton.convex
    assert newton.definite


@pytest.mark.parametrize("factor", [1e-150, 1e-8, 1.0, 1e8, 1e150])
def test_newton_step_does_not_see_units(factor):
    j, s = positive_definite(3), np.array([1.0, -2.0, 0.5])
    d = np.array([factor, 1.0, 1 / factor])
    plain = newton_step(j, s, metric_of(j, s), EPS * 150, 1e-8)
    scaled = newton_step(
        j * np.outer(d, d), s * d, metric_of(j * np.outer(d, d), s * d), EPS * 150, 1e-8
    )
    assert_allclose(scaled.step * d, plain.step, rtol=1e-10)
    assert_allclose(scaled.decrement, plain.decrement, rtol=1e-10)


def test_newton_step_stays_in_the_range_of_a_singular_information():
    """J = vv': along the null direction nothing moves, and a score with no part there has the decrement of its range."""
    v = np.array([1.0, 2.0, -1.0])
    j = np.outer(v, v)
    newton = newton_step(j, 3 * v, metric_of(j, v), EPS * 150, 1e-8)
    assert newton.convex
    assert not newton.definite
    assert_allclose(v @ newton.step, 3.0, rtol=1e-10)
    assert_allclose(newton.decrement, 4.5, rtol=1e-10)
    against = newton_step(j, np.array([2.0, -1.0, 0.0]), metric_of(j, v), EPS * 150, 1e-8)
    assert against.decrement == np.inf


def test_an_indefinite_information_is_not_convex():
    j = np.array([[1.0, 0.0], [0.0, -1.0]])
    newton = newton_step(j, np.ones(2), metric_of(j, np.ones(2)), EPS * 100, 1e-8)
    assert not newton.convex


# ---------------------------------------------------------------- the step within the trust region


def best_in_ball(j, s, scale, radius, count=200_001):
    """The largest s'd − d'Jd/2 over ‖Dd‖ ≤ radius in two dimensions: a fine circle, shrunk in many radii."""
    angle = np.linspace(0, 2 * np.pi, count)
    circle = np.stack([np.cos(angle), np.sin(angle)]) / scale[:, None]
    linear, square = s @ circle, 0.5 * np.einsum("in,ij,jn->n", circle, j, circle)
    inner = np.clip(
        np.where(square > 0, linear / np.where(square > 0, 2 * square, 1.0), radius), 0, radius
    )
    return np.max(linear * inner - square * inner**2)


CASES = {
    "convex_inside": (np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([0.1, -0.1])),
    "convex_at_the_edge": (np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([20.0, -30.0])),
    "indefinite": (np.array([[1.0, 2.0], [2.0, -1.0]]), np.array([1.0, 0.5])),
    "negative_definite": (np.array([[-1.0, 0.3], [0.3, -2.0]]), np.array([0.4, -0.2])),
    "hard_case": (np.array([[2.0, 0.0], [0.0, -1.0]]), np.array([1.0, 0.0])),
    "hard_case_at_a_saddle": (np.array([[2.0, 0.0], [0.0, -1.0]]), np.array([0.0, 0.0])),
    "nearly_hard": (np.array([[2.0, 0.0], [0.0, -1.0]]), np.array([1.0, 1e-9])),
    "flat_with_slope": (np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([0.5, 0.3])),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("radius", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("scale", [np.ones(2), np.array([1e3, 0.5])], ids=["plain", "scaled"])
def test_the_trust_step_is_as_good_as_search(name, radius, scale):
    """Within 1 %: the multiplier is found by 24 halvings, and the last 10 % of the radius of a hard case are let go."""
    j, s = CASES[name]
    j, s = j * np.outer(scale, scale), s * scale
    step, gain = trust_step(j, s, scale, EPS * 100, 1e-8, np.float64(radius), np.float64(1.0))
    best = best_in_ball(j, s, scale, radius)
    assert np.linalg.norm(scale * step) <= radius * (1 + 1e-6)
    assert_allclose(gain, s @ step - 0.5 * step @ j @ step, rtol=1e-8, atol=1e-12)
    assert gain >= 0.99 * best - 1e-12
    assert gain <= best * (1 + 1e-6) + 1e-12


def test_both_ways_along_negative_curvature_are_open():
    j, s = CASES["hard_case_at_a_saddle"]
    up, _ = trust_step(j, s, np.ones(2), EPS * 100, 1e-8, np.float64(1.0), np.float64(1.0))
    down, _ = trust_step(j, s, np.ones(2), EPS * 100, 1e-8, np.float64(1.0), np.float64(-1.0))
    assert_allclose(up, -down)
    assert_allclose(abs(up[1]), 1.0, rtol=1e-6)


def test_host_and_trace_take_the_same_trust_step():
    j, s = positive_definite(4) - 8 * np.eye(4), np.array([1.0, -2.0, 0.5, 3.0])
    args = (
        j,
        s,
        metric_of(j, s),
        np.float64(EPS * 200),
        np.float64(1e-8),
        np.float64(1.5),
        np.float64(1.0),
    )
    host = trust_step(*args)
    with jax.enable_x64(True):
        traced = jax.jit(trust_step)(*args)
    assert_allclose(np.asarray(traced[0]), host[0], rtol=1e-8, atol=1e-10)
    assert_allclose(np.asarray(traced[1]), host[1], rtol=1e-8)


def test_the_metric_falls_back_on_the_score_and_then_on_one():
    j, s = np.diag([4.0, 0.0, 0.0]), np.array([1.0, -3.0, 0.0])
    assert_allclose(metric_of(j, s), [2.0, 3.0, 1.0])


@pytest.mark.parametrize("p", [1, 2, 5, 9])
def test_a_step_bounded_by_factors_gains_what_the_one_by_eigenvectors_does(p):
    """Definite, indefinite and negative definite curvature, radii from far inside the Newton step to beyond it: never outside the radius, always a gain,
    and but for a few cases near the hard one 99 % of the best gain."""
    rng, cases = np.random.default_rng(p), 200
    a = rng.normal(size=(cases, p, p))
    q = np.linalg.qr(a)[0]
    j = np.einsum(
        "bij,bj,bkj->bik",
        q,
        rng.choice([0.1, 1.0, 10.0], (cases, p))
        * np.where(rng.random((cases, 1)) < 0.5, 1.0, rng.choice([-1.0, 1.0], (cases, p))),
        q,
    )
    d = np.sqrt(np.abs(np.einsum("bii->bi", j)))
    r, g = j / (d[:, :, None] * d[:, None, :]), rng.normal(size=(cases, p))
    radius = 10 ** rng.uniform(-3, 1, cases)
    one, zero = np.ones(p), np.zeros(())
    best = np.array(
        [trust_step(r[i], g[i], one, EPS, zero, radius[i], np.ones(()))[1] for i in range(cases)]
    )
    with jax.enable_x64(True):
        u, sound = map(
            np.asarray, jax.vmap(bounded)(jnp.asarray(r), jnp.asarray(g), jnp.asarray(radius))
        )
    gain = np.sum(g * u, axis=1) - 0.5 * np.einsum("bi,bij,bj->b", u, r, u)
    convex = np.linalg.eigvalsh(r)[:, 0] > 0
    assert 20 < convex.sum() < cases - 20
    assert np.all(np.linalg.norm(u, axis=1) <= radius * (1 + 1e-9))
    assert np.all(gain > 0)
    assert np.mean(gain >= 0.99 * best) >= 0.95
    assert np.all(gain[sound] >= 0.97 * best[sound])
    assert 0.3 < sound.mean() < 1.0
    assert np.all(gain <= best * (1 + 1e-4))  # the other step is found by halving
