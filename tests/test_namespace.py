"""The namespace of the host: NumPy's functions, with a road of their own for numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmle._namespace import HOST, is_nowhere, namespace

NUMBERS = (
    np.float64(1.5),
    np.float64(-0.0),
    np.float64("nan"),
    np.float64("inf"),
    np.float32(0.1),
    np.int32(3),
    np.int64(-2),
    np.bool_(True),
    2.5,
    -1,
    True,
)
VECTORS = (
    np.array([1.0, np.nan, -0.0]),
    np.array([0.5, 2.0, -1.0], np.float32),
    np.array([1, 2, 3], np.int32),
    np.array([True, False, True]),
)
CONDITIONS = (
    np.bool_(True),
    np.bool_(False),
    np.array([True, False, True]),
    np.array(False),
)


def assert_same(ours, numpys):
    """Equal values to the last bit, NaN and the sign of zero included, in the same type."""
    assert ours.dtype == numpys.dtype
    assert np.shape(ours) == np.shape(numpys)
    assert np.asarray(ours).tobytes() == np.asarray(numpys).tobytes()


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_where_is_numpys(condition):
    for a, b in itertools.product((*NUMBERS, *VECTORS), repeat=2):
        assert_same(HOST.where(condition, a, b), np.where(condition, a, b))


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_the_larger_and_the_smaller_of_two_are_numpys(name):
    for a, b in itertools.product((*NUMBERS, *VECTORS), repeat=2):
        assert_same(getattr(HOST, name)(a, b), getattr(np, name)(a, b))


@pytest.mark.parametrize("name", ["any", "all", "sum", "max", "min"])
def test_reductions_are_numpys(name):
    ours, numpys = getattr(HOST, name), getattr(np, name)
    for x in (*VECTORS, *(number for number in NUMBERS if isinstance(number, np.generic))):
        assert_same(ours(x), numpys(x))
    matrix = np.arange(12.0).reshape(3, 4)
    for axis, keepdims in itertools.product((0, 1, (0, 1), None), (False, True)):
        assert_same(ours(matrix, axis, keepdims), numpys(matrix, axis=axis, keepdims=keepdims))
        batch = matrix > 4
        assert_same(ours(batch, axis, keepdims), numpys(batch, axis=axis, keepdims=keepdims))


def test_what_is_new_has_the_types_of_numpys():
    for like in (*VECTORS, np.float32(2.0), np.int32(4), np.zeros((2, 0))):
        assert_same(HOST.zeros_like(like), np.zeros_like(like))
    for shape, dtype in itertools.product(((), (3,), (2, 0)), (float, bool, np.float32, np.int32)):
        assert_same(HOST.zeros(shape, dtype), np.zeros(shape, dtype))
        assert_same(HOST.ones(shape, dtype), np.ones(shape, dtype))
    for x in (*VECTORS[:3], np.float64(7.0), np.float64("nan")):
        assert_same(HOST.clip(x, -1.0, 1.0), np.clip(x, -1.0, 1.0))
    assert HOST.finfo(np.dtype(np.float32)).eps == np.finfo(np.float32).eps


def test_what_is_a_number_stays_one():
    """An array without axes takes several times as long in every operation that follows."""
    one = np.float64(1.0)
    yes = np.bool_(True)
    results = [HOST.where(yes, one, 0.0), HOST.where(yes, 1, 0), HOST.zeros(()), HOST.ones(())]
    results += [HOST.maximum(one, 2.0), HOST.any(yes), HOST.sum(np.ones(3)), HOST.zeros_like(one)]
    assert all(isinstance(result, np.generic) for result in results)


def test_each_value_has_its_namespace():
    assert namespace(np.ones(2)) is HOST
    assert namespace(np.float64(1.0)) is HOST
    assert namespace(jnp.ones(2)) is jnp
    assert jax.eval_shape(lambda x: x + (namespace(x) is jnp), 1.0).shape == ()
    assert HOST.cumsum is np.cumsum
    assert is_nowhere(np.bool_(False))
    assert is_nowhere(np.zeros(3, bool))
    assert not is_nowhere(np.array([False, True]))
    assert not is_nowhere(jnp.zeros(3, bool))
