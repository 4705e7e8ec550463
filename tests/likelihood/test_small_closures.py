"""Narrow arrays that a function closes over are computed in the precision of the fit, as its data are: whoever holds them."""

import functools
import types
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

Y = np.array([100, 120, 90, 127])
ROWS = np.zeros(4)
START = {"a": 0.0}
MEAN_SQUARE = np.mean(Y**2.0)
MEAN_LOG = np.mean(np.log(Y))
NARROW = ("int8", "uint8", "int16", "uint16", "int32", "float16", "float32")


def squares(y, p, d):
    """Maximal where a is the mean of y²: y² of a byte wraps, that of a half is rounded."""
    return -((y * y - p["a"]) ** 2) + d


def logs(y, p, d):
    """Maximal where a is the mean of log y, which is as precise as y is wide."""
    return -((jnp.log(y) - p["a"]) ** 2) + d


def fitted(loglik):
    return float(jm.fit(loglik, START, ROWS).params["a"])


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("kind", [*NARROW, "uint32", "int64", ml_dtypes.bfloat16])
def test_a_closed_over_narrow_array_does_not_wrap_and_keeps_its_digits(kind, make):
    with jax.enable_x64(True):  # a jax array of int64 exists there only
        y = make(np.array([100, 120, 90, 127, 115]).astype(kind))
    exact = np.asarray(y).astype(float)
    fits = [jm.fit(lambda p, d: form(y, p, d), START, np.zeros(5)) for form in (squares, logs)]  # noqa: B023
    truth = [np.mean(exact**2), np.mean(np.log(exact))]
    assert_allclose([float(fit.params["a"]) for fit in fits], truth, rtol=1e-13)
    assert y.dtype == kind  # the user's own is as it was


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "uint64"])
def test_zero_less_one_of_a_closed_over_unsigned_array_is_minus_one(kind):
    y = np.array([1, 0, 2, 0, 3]).astype(kind)
    fit = jm.fit(lambda p, d: -((y - 1 - p["a"]) ** 2) + d, START, np.zeros(5))
    assert_allclose(float(fit.params["a"]), 0.2, rtol=1e-13)


def test_a_product_of_closed_over_counts_beyond_two_billion_does_not_wrap():
    for y in (np.array([70_000, 50_000], np.int32), jnp.array([70_000, 50_000])):
        assert y.dtype == np.int32
        fit = jm.fit(lambda p, d: -((y * y - p["a"]) ** 2) + d, START, np.zeros(2))  # noqa: B023
        assert_allclose(float(fit.params["a"]), (70_000.0**2 + 50_000.0**2) / 2, rtol=1e-13)


BYTES = Y.astype(np.int8)
IN_MODULE = types.SimpleNamespace(y=BYTES)


@dataclass(frozen=True)
class Frozen:
    y: object

    def __call__(self, p, d):
        return squares(self.y, p, d)


class OfClass:
    y = jnp.asarray(BYTES)

    @staticmethod
    def terms(p, d):
        return squares(OfClass.y, p, d)


class Slotted:
    __slots__ = ("y",)

    def __init__(self, y):
        self.y = y

    def terms(self, p, d):
        return squares(self.y, p, d)


@functools.lru_cache
def remembered_bytes():
    return jnp.asarray(BYTES)


@jax.jit
def under_jit(p, d):
    return squares(BYTES, p, d)


def in_a_record():
    record = np.zeros(4, [("y", "i1"), ("pair", "f4", (2,))])
    record["y"] = Y
    return lambda p, d: squares(record["y"], p, d)


def in_a_default(p, d, y=jnp.asarray(BYTES)):  # noqa: B008
    return squares(y, p, d)


def a_number(p, d):
    return sum(
        -((number * number - p["a"]) ** 2) / 4 + d / 4
        for number in [np.int8(y) for y in Y.tolist()]
    )


HOLDERS = {
    "a tuple": lambda: (lambda both: lambda p, d: squares(both[1], p, d))((0, BYTES)),
    "a dictionary of jax arrays": lambda: (lambda at: lambda p, d: squares(at["y"], p, d))(
        {"y": jnp.asarray(BYTES)}
    ),
    "a namespace": lambda: lambda p, d: squares(IN_MODULE.y, p, d),
    "a frozen dataclass": lambda: Frozen(jnp.asarray(BYTES)),
    "a class": lambda: OfClass.terms,
    "a slot": lambda: Slotted(jnp.asarray(BYTES)).terms,
    "a partial": lambda: functools.partial(squares, jnp.asarray(BYTES)),
    "a Partial of jax": lambda: jax.tree_util.Partial(squares, jnp.asarray(BYTES)),
    "a default": lambda: in_a_default,
    "a function under jit": lambda: under_jit,
    "a function that keeps its results": lambda: (
        lambda _: lambda p, d: squares(remembered_bytes(), p, d)
    )(remembered_bytes()),  # an array, and no tracer, is kept
    "a record": in_a_record,
    "a column of pandas": lambda: (lambda y: lambda p, d: squares(jnp.asarray(y), p, d))(
        pd.Series(BYTES)
    ),
    "a frame of pandas": lambda: (lambda f: lambda p, d: squares(f["y"].to_numpy(), p, d))(
        pd.DataFrame({"y": BYTES, "word": list("abcd")})
    ),
    "a nullable column of pandas": lambda: (
        lambda y: lambda p, d: squares(y.to_numpy(np.dtype(y.dtype.name.lower())), p, d)
    )(pd.Series(BYTES, dtype="Int8")),
    "a column of polars": lambda: (lambda y: lambda p, d: squares(y.to_numpy(), p, d))(pl.Series(BYTES)),
    "a frame of polars": lambda: (lambda f: lambda p, d: squares(f["y"].to_numpy(), p, d))(
        pl.DataFrame({"y": BYTES, "word": list("abcd")})
    ),
    "an array of pyarrow": lambda: (lambda y: lambda p, d: squares(np.asarray(y), p, d))(
        pa.array(BYTES)
    ),
    "a table of pyarrow": lambda: (lambda t: lambda p, d: squares(t["y"].to_numpy(), p, d))(
        pa.table({"y": BYTES, "word": list("abcd")})
    ),
}  # fmt: skip


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_byte_does_not_wrap_whoever_holds_it(holder):
    assert_allclose(fitted(HOLDERS[holder]()), MEAN_SQUARE, rtol=1e-13)


def test_a_closed_over_number_in_a_narrow_type_has_the_digits_of_its_value():
    half = np.float16(0.1)
    eighth = np.int8(100)
    assert_allclose(
        fitted(lambda p, d: -((jnp.log(half) - p["a"]) ** 2) + d), np.log(float(half)), rtol=1e-13
    )
    assert_allclose(fitted(lambda p, d: -((eighth * eighth - p["a"]) ** 2) + d), 1e4, rtol=1e-13)


def test_no_door_computes_what_a_function_closes_over_in_bytes():
    loglik = functools.partial(squares, jnp.asarray(BYTES))
    fit = jm.fit(loglik, START, ROWS)
    found = [
        jm.fit_batch(loglik, START, np.zeros((2, 4)), progress=False).params["a"][1],
        jax.jit(lambda a: jm.fit(loglik, {"a": a}, ROWS).params["a"])(jnp.zeros(())),
        jax.vmap(lambda d: jm.fit(loglik, START, d).params["a"])(jnp.zeros((2, 4)))[0],
        jm.fit(loglik, START, ROWS, dtype="float32").params["a"],
    ]
    assert_allclose([float(one) for one in found], np.full(4, MEAN_SQUARE), rtol=1e-6)
    assert_allclose(jm.score(loglik)(START, ROWS)["a"], 2 * np.sum(Y**2.0), rtol=1e-13)
    y = jnp.asarray(BYTES)
    assert_allclose(
        jm.delta(lambda p: p["a"] + jnp.sum(y * y), fit).estimate, 5 * MEAN_SQUARE, rtol=1e-13
    )
    prior = jm.penalize(
        lambda p, d: 0.0 * d - p["a"] ** 2, lambda p: -((p["a"] - jnp.sum(y * y)) ** 2)
    )
    assert_allclose(fitted(prior), 4 * MEAN_SQUARE / 5, rtol=1e-12)


def test_a_byte_of_the_trace_or_closed_over_does_not_wrap_in_a_fit_under_that_trace():
    closed_over = jnp.asarray(BYTES)

    def member(y):
        both = lambda p, d: squares(y, p, d) + squares(closed_over, p, d)  # noqa: E731
        return jm.fit(both, START, jnp.zeros(4)).params["a"]

    y = jnp.asarray(BYTES)
    members = jax.jit(jax.vmap(member))(jnp.stack([y, y]))
    assert_allclose(members, [MEAN_SQUARE] * 2, rtol=1e-5)


# ---------------------------------------------------------------- what keeps its width


def test_a_key_that_is_closed_over_draws_what_it_draws_outside():
    for key in (jax.random.PRNGKey(3), jax.random.key(3), np.array([0, 3], np.uint32)):
        with jax.enable_x64(True):
            mean = float(jax.random.normal(key, (4,)).mean())
        at = fitted(lambda p, d: -((jax.random.normal(key, (4,)) - p["a"]) ** 2) + d)  # noqa: B023
        assert_allclose(at, mean, rtol=1e-13)


def test_bits_that_code_reads_by_their_width_are_left_as_they_are():
    packed = np.packbits(np.array([1, 0, 1, 1, 0, 0, 1, 0]))
    floats = np.arange(4.0, dtype=np.float32).view(np.uint8)
    assert_allclose(
        jm.fit(
            lambda p, d: -((jnp.unpackbits(packed) - p["a"]) ** 2) + d, START, np.zeros(8)
        ).params["a"],
        0.5,
        rtol=1e-13,
    )
    assert_allclose(
        fitted(lambda p, d: -((floats.view(np.float32) - p["a"]) ** 2) + d), 1.5, rtol=1e-13
    )


def test_masks_and_codes_that_are_closed_over_do_their_work():
    codes = np.array([0, 1, 1, 0], np.uint8)
    mask = np.array([True, True, True, False])
    y = np.array([1.0, 2.0, 4.0, 9.0])

    def terms(p, d):
        return jnp.where(mask, -((y - p["a"][codes]) ** 2), 0.0) + d

    assert_allclose(jm.fit(terms, {"a": np.zeros(2)}, ROWS).params["a"], [1.0, 3.0], rtol=1e-13)


def test_a_scan_over_a_closed_over_path_of_bytes_runs():
    path = jnp.asarray(np.array([0, 1, 1, 0], np.int8))

    def terms(p, d):
        def step(before, now):
            return now, jnp.where(before == now, p["a"], -p["a"])

        _, signs = jax.lax.scan(step, path[0], path)
        return -((signs - 1.0) ** 2) + d

    # of four terms two are −(a − 1)² and two −(−a − 1)²: maximal at 0
    assert_allclose(fitted(terms), 0.0, atol=1e-12)


def test_a_closed_over_distribution_of_single_precision_has_the_density_in_double():
    numpyro = pytest.importorskip("numpyro.distributions")
    from scipy import stats

    shape = jnp.asarray(2.3)  # float32
    law = numpyro.Gamma(shape, jnp.asarray(0.7))
    at = fitted(lambda p, d: law.log_prob(jnp.exp(p["a"])) * jnp.ones(4) + p["a"] + d)
    mode = float(shape) / float(np.float32(0.7))  # of x·density(x) of a gamma: shape / rate
    assert_allclose(np.exp(at), mode, rtol=1e-12)
    value = jm.nll(lambda p, d: law.log_prob(p["a"]) + d)({"a": 1.5}, ROWS)
    exact = stats.gamma(float(shape), scale=1 / float(np.float32(0.7))).logpdf(1.5)
    assert_allclose(value, -4 * exact, rtol=1e-13)
