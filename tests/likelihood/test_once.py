"""Operations done once, and sums of blocks put where they belong: programs are counted, values have closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from jaxmle.likelihood.designs import MAX_NARROW_COLUMNS, Column, gradient, gram
from jaxmle.runtime.cse import without_repeats
from jaxmle.runtime.device import to_device, to_float32


def operations(function, *args):
    return [
        equation.primitive.name
        for equation in jax.make_jaxpr(without_repeats(function))(*args).eqns
    ]


def test_what_is_the_same_is_done_once():
    def wasteful(x, y):
        return jnp.exp(x + y) * jnp.sin(jnp.exp(x + y)), {
            "again": jnp.exp(x + y),
            "other": jnp.exp(y + x),
        }

    x, y = np.linspace(-1, 1, 5, dtype=np.float32), np.float32(0.3)
    names = operations(wasteful, x, y)
    assert names.count("exp") == 2  # y + x is not seen to be x + y
    found, plain = jax.jit(without_repeats(wasteful))(x, y), jax.jit(wasteful)(x, y)
    assert jax.tree.structure(found) == jax.tree.structure(plain)
    jax.tree.map(assert_array_equal, found, plain)


def test_second_derivatives_take_no_second_exponential():
    def peak(width, at):
        return jnp.exp(-(at**2) / (2 * width**2))

    def second(width, at):
        return (
            peak(width, at),
            jax.grad(peak)(width, at),
            jax.grad(jax.grad(peak))(width, at),
        )

    assert operations(second, np.float32(1.5), np.float32(0.7)).count("exp") == 1


def test_numbers_that_differ_in_their_sign_alone_are_not_the_same():
    def divided(x):
        return (x / 0.0, x / -0.0)

    assert_array_equal(jax.jit(without_repeats(divided))(np.float32(1.0)), [np.inf, -np.inf])


def test_it_is_differentiated_like_the_function():
    def curved(x):
        return jnp.sum(jax.nn.softplus(x) * jax.nn.softplus(x))

    x = np.linspace(-2, 2, 4, dtype=np.float32)
    for derivative in (jax.grad, jax.hessian):
        np.testing.assert_allclose(
            derivative(without_repeats(curved))(x), derivative(curved)(x), rtol=1e-6
        )


PLACES = {
    "in order": ([[0, 1], [2]], False),
    "out of order": ([[2], [0, 1]], False),
    "interleaved, as the columns of a matrix of coefficients": ([[0, 2, 4], [1, 3, 5]], False),
    "one parameter in two predictors": ([[0, 1], [1, 2]], False),
    "an entry that no predictor moves": ([[0], [2]], False),
    "a design without columns": ([[], [0, 1]], False),
    "constants": ([[3], [0], [1], [2]], True),
    "wide": ([list(range(MAX_NARROW_COLUMNS + 1)), [MAX_NARROW_COLUMNS + 1]], False),
}


@pytest.mark.parametrize("case", PLACES)
def test_sums_stand_where_their_parameters_do(case):
    """Against the Jacobian of all predictors, J'WJ by einsum."""
    places, constant = PLACES[case]
    n, p, m = 7, 1 + max(i for where in places for i in where), len(places)
    rng = np.random.default_rng(3)
    designs = [rng.integers(-3, 4, (n, len(where))).astype(np.float32) for where in places]
    columns = tuple(
        Column(None if constant else jnp.asarray(x), np.array(where, int))
        for x, where in zip(designs, places, strict=True)
    )
    jacobian = np.zeros((m, n, p), np.float32)
    for a, (x, where) in enumerate(zip(designs, places, strict=True)):
        jacobian[a][:, np.array(where, int)] = 1.0 if constant else x
    half = rng.integers(-3, 4, (m, m, n)).astype(np.float32)
    weight, slope = half + half.swapaxes(0, 1), rng.integers(-3, 4, (m, n)).astype(np.float32)
    assert_array_equal(
        gram(columns, weight, p), np.einsum("ani,abn,bnj->ij", jacobian, weight, jacobian)
    )
    assert_array_equal(gradient(columns, slope, p), np.einsum("ani,an->i", jacobian, slope))


@pytest.mark.parametrize("size", [10, 2**20])
def test_leaves_are_to_float32_in_place_of_their_own(size):
    with jax.enable_x64(True):
        leaf = np.linspace(0, 1, size).reshape(2, -1)
        whole = to_device(leaf, 3)
        half = to_float32(whole)
        assert half.dtype == np.float32 and half.shape == (3, size // 2)
        assert_array_equal(half[:2], leaf.astype(np.float32))
        assert_array_equal(half[2], 0.0)
        assert_array_equal(whole[:2], leaf)
        assert to_float32(jnp.arange(3)).dtype == np.int64
