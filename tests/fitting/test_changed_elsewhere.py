"""A fit is of what its likelihood reads now, though it is seen only as text, by identity, by a name of Python's or of a library's."""

import builtins
import collections
import datetime
import importlib
import math
import sys
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm

D = np.array([1.0, 2.0, 6.0])  # their mean is 3


def centre(shift):
    """The centre of a quadratic that ``shift()`` moves, by two values of it."""
    at = jm.nll(shift)
    return (at({"m": -1.0}, D) - at({"m": 1.0}, D)) / (2 * D.size)


class Told:
    """A number that is read of what the object says."""

    def __init__(self):
        self.inside = 0.0

    def __repr__(self):
        return str(self.inside)


class Formatted(Told):
    def __format__(self, kind):
        return str(self.inside)


class Day(datetime.timedelta):
    pass


def told(read, kind=Told):
    holder = kind()
    return (lambda: float(read(holder))), (lambda: setattr(holder, "inside", 2.0))


def of_annotations():
    class Study:
        shift = 0.0

    Study.__annotations__ = {"shift": 0.0}
    return (
        lambda: Study.__annotations__["shift"],
        lambda: Study.__annotations__.update(shift=2.0),
    )


def a_name_of_python(monkeypatch):
    monkeypatch.setattr(builtins, "SHIFT_OF_ALL", 0.0, raising=False)
    return (
        lambda: SHIFT_OF_ALL,  # noqa: F821
        lambda: setattr(builtins, "SHIFT_OF_ALL", 2.0),
    )


def a_name_of_a_library(monkeypatch, module, read):
    monkeypatch.setattr(module, "shift_of_mine", 0.0, raising=False)
    return read, lambda: setattr(module, "shift_of_mine", 2.0)


def a_function_of_a_library(monkeypatch):
    monkeypatch.setattr(jnp, "cosh", lambda x: 0.0 * x)
    return (lambda: jnp.cosh(1.0)), (lambda: setattr(jnp, "cosh", lambda x: 2.0 * x))


def of_a_subclass():
    day = Day(1)
    day.shift = 0.0
    return (lambda: day.shift), (lambda: setattr(day, "shift", 2.0))


SEEN = {
    "repr": lambda m: told(repr),
    "str": lambda m: told(str),
    "an f-string": lambda m: told(lambda holder: f"{holder}"),
    "format": lambda m: told(lambda holder: "{}".format(holder), Formatted),  # noqa: UP032
    "a per cent sign": lambda m: told(lambda holder: "%s" % holder),  # noqa: UP031
    "annotations": lambda m: of_annotations(),
    "a name among those of Python": a_name_of_python,
    "a number set on NumPy": lambda m: a_name_of_a_library(m, np, lambda: np.shift_of_mine),
    "a number set on math": lambda m: a_name_of_a_library(m, math, lambda: math.shift_of_mine),
    "a function put in the place of jax's": a_function_of_a_library,
    "an attribute of a duration of one's own": lambda m: of_a_subclass(),
}


@pytest.mark.parametrize("name", SEEN)
def test_what_is_seen_otherwise_than_by_its_name_is_watched(name, monkeypatch):
    """Before, each of these gave the old fit as CONVERGED."""
    read, change = SEEN[name](monkeypatch)

    def loglik(params, data):
        return -0.5 * (data + read() - params["m"]) ** 2

    assert_allclose(centre(loglik), 3.0, rtol=1e-14)
    change()
    assert_allclose(centre(loglik), 5.0, rtol=1e-14)


@pytest.fixture
def limit():
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    yield name
    jax.config.update(name, before)


def test_a_setting_of_jax_that_a_likelihood_reads_is_watched(limit):
    def loglik(params, data):
        shift = 2.0 if jax.config.jax_traceback_in_locations_limit == 3 else 0.0
        return -0.5 * (data + shift - params["m"]) ** 2

    assert_allclose(centre(loglik), 3.0, rtol=1e-14)
    jax.config.update(limit, 3)
    assert_allclose(centre(loglik), 5.0, rtol=1e-14)


def test_another_kind_of_random_numbers_is_another_likelihood():
    """jax itself keeps the program: its default generator is not in the key of ``jit``."""

    def loglik(params, data):
        return -0.5 * (data + jax.random.normal(jax.random.PRNGKey(0)) - params["m"]) ** 2

    before = jax.config.jax_default_prng_impl
    first = centre(loglik)
    try:
        jax.config.update("jax_default_prng_impl", "rbg")
        assert abs(centre(loglik) - first) > 0.01
    finally:
        jax.config.update("jax_default_prng_impl", before)


def test_a_module_of_the_user_s_with_the_name_of_one_of_python_s_is_watched(tmp_path, monkeypatch):
    """``code.py`` beside the script: its globals were taken for those of Python's module."""
    text = (
        'C = 0.0\n\n\ndef loglik(params, data):\n    return -0.5 * (data + C - params["m"]) ** 2\n'
    )
    (tmp_path / "code.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "code", raising=False)
    module = importlib.import_module("code")
    try:
        assert_allclose(centre(module.loglik), 3.0, rtol=1e-14)
        module.C = 2.0
        assert_allclose(centre(module.loglik), 5.0, rtol=1e-14)
    finally:
        del sys.modules["code"]


# ---------------------------------------------------------------- what is equal only to itself


class Holder:
    """An object that holds an array, and is copied for the fit."""

    def __init__(self):
        self.shift = np.zeros(3)


def in_a_set(holder):
    chosen = {holder}
    return lambda: 0.0 if holder in chosen else 9.0


def in_a_frozenset(holder):
    chosen = frozenset([holder])
    return lambda: 0.0 if holder in chosen else 9.0


def in_a_weak_set(holder):
    chosen = weakref.WeakSet([holder])
    return lambda: 0.0 if holder in chosen else 9.0


def a_key(holder):
    table = {holder: 0.0}
    return lambda: table.get(holder, 9.0)


def a_key_in_order(holder):
    table = collections.OrderedDict([(holder, 0.0), ("other", 1.0)])
    return lambda: table.get(holder, 9.0) + (0.0 if next(iter(table)) is holder else 9.0)


def a_weak_key(holder):
    table = weakref.WeakKeyDictionary({holder: 0.0})
    return lambda: table.get(holder, 9.0)


def a_function_as_a_key(holder):
    def read():
        return holder.shift

    table = {read: 0.0}
    return lambda: table.get(read, 9.0)


def its_identity(holder):
    known = id(holder)
    return lambda: 0.0 if id(holder) == known else 9.0


def a_register_by_identity(holder):
    register = {id(holder): 0.0}
    return lambda: register.get(id(holder), 9.0)


KNOWN_BY = (
    in_a_set,
    in_a_frozenset,
    in_a_weak_set,
    a_key,
    a_key_in_order,
    a_weak_key,
    a_function_as_a_key,
    its_identity,
    a_register_by_identity,
)


@pytest.mark.parametrize("known_by", KNOWN_BY)
def test_a_copy_is_known_where_its_original_is(known_by):
    """Before, the copy made for the fit was not in the set: another likelihood, or a KeyError."""
    holder = Holder()
    read = known_by(holder)

    def loglik(params, data):
        return -0.5 * (data + read() + holder.shift - params["m"]) ** 2

    assert_allclose(centre(loglik), 3.0, rtol=1e-14)
    holder.shift += 2.0
    assert_allclose(centre(loglik), 5.0, rtol=1e-14)
