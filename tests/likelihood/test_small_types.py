"""Data in narrow types are computed in the precision of the fit: integers do not wrap, logarithms keep their digits."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle import models

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
Y = np.array([100, 120, 90, 127])
BELOW = np.array([1, 0, 2, 0, 3])


def square(p, d):
    return -((d["y"] * d["y"] - p["a"]) ** 2)


def less(p, d):
    return -((d["y"] - 1 - p["a"]) ** 2)


def log(p, d):
    return -((jnp.log(d["y"]) - p["a"]) ** 2)


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_do_not_wrap(kind):
    start = {"a": 0.0}
    fits = [
        jm.fit(square, start, {"y": Y.astype(kind)}),
        jm.fit(less, start, {"y": BELOW.astype(kind)}),
        jm.fit(log, start, {"y": Y.astype(kind)}),
    ]
    truth = [np.mean(Y**2.0), np.mean(BELOW - 1.0), np.mean(np.log(Y))]
    assert_allclose([float(fit.params["a"]) for fit in fits], truth, rtol=1e-12)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_floats_are_computed_in_the_precision_of_the_fit(kind):
    y = np.array([1.5, 2.25, 3.0]).astype(kind)
    assert_allclose(
        float(jm.fit(log, {"a": 0.0}, {"y": y}).params["a"]),
        np.mean(np.log([1.5, 2.25, 3.0])),
        rtol=1e-13,
    )


def test_no_door_computes_in_bytes():
    y, start = BELOW.astype(np.uint8), {"a": 0.0}
    table = {"y": np.concatenate([y, y]), "g": np.repeat([0, 1], 5)}

    def fitted(traced):
        """Of bytes of the host and of the trace, each with the same maximum; one program serves both."""
        both = lambda p, d: less(p, {"y": d["host"]}) + less(p, {"y": d["traced"]})  # noqa: E731
        return jm.fit(both, start, {"host": y, "traced": traced}).params["a"]

    found = [
        jm.fit_batch(less, start, {"y": np.stack([y, y])}, progress=False).params["a"][1],
        jm.fit_batch(less, start, [{"y": y}, {"y": y[:4]}], progress=False).params["a"][0],
        jm.fit_groups(less, start, table, by="g", progress=False).fits.params["a"][0],
        jax.jit(lambda a: jm.fit(less, {"a": a}, {"y": y}).params["a"])(jnp.zeros(())),
        jax.jit(jax.vmap(fitted))(jnp.stack([y, y]))[0],
    ]
    assert_allclose([float(one) for one in found], np.full(5, 0.2), rtol=1e-6)
    score = jm.score(less)
    assert_allclose(score(start, {"y": y})["a"], 2 * np.sum(BELOW - 1.0), rtol=1e-12)
    traced = jax.jit(lambda y: score({"a": 0.0}, {"y": y})["a"])(y)
    assert_allclose(traced, 2 * np.sum(BELOW - 1.0), rtol=1e-6)


def test_a_count_of_127_in_a_byte_is_finite():
    data = {"x": np.ones((3, 1)), "y": np.array([127, 126, 127], np.int8)}
    fit = jm.fit(models.poisson(), data=data)
    assert_allclose(np.exp(fit.params["beta"]), [380 / 3], rtol=1e-9)


def test_an_integer_that_does_not_fit_is_refused():
    big = np.array([1, 2**63 + 5], np.uint64)
    with pytest.raises(ValueError, match=r"is 9223372036854775813 in row 1, beyond int64"):
        jm.fit(less, {"a": 0.0}, {"y": big})
    with pytest.raises(ValueError, match="is 4294967296 in row 0, beyond int32"):
        jm.fit(less, {"a": 0.0}, {"y": np.array([2**32, 1])}, dtype="float32")


def test_a_model_called_on_the_host_has_the_precision_of_its_predictions():
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(9, 2)), "y": rng.poisson(3.0, 9).astype(np.int8)}
    params = {"beta": np.array([0.3, -0.2])}
    with jax.enable_x64(False):
        terms = models.poisson()(params, data)
        traced = jax.jit(models.poisson())(params, data)
    from scipy import stats

    mean = models.poisson().predict(params, data)
    assert isinstance(terms, np.ndarray)
    assert_allclose(terms, stats.poisson.logpmf(data["y"], mean), rtol=1e-13)
    assert traced.dtype == np.float32
