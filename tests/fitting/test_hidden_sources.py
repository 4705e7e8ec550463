"""Numbers that a likelihood draws, reads or imports itself: each call sees what is there now."""

import functools
import gzip
import importlib
import itertools
import math
import os
import random
import sys
import time
import types
import uuid
import warnings

import jax
import numpy as np
import pytest

import jaxmle as jm
from jaxmle.closures.watch import look
from jaxmle.runtime import compile as compiling

from .test_changed_closures import D, assert_centre, shifted

# A busy machine may take a second to compile what is hidden here.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*cannot be watched for changes:jaxmle.UnwatchedClosureWarning"
)


def endless(kind):
    """A source of numbers that gives another one at each call."""
    return {
        "random.Random": lambda: random.Random(1).random,
        "a Generator": lambda: np.random.default_rng(1).random,
        "a RandomState": lambda: np.random.RandomState(1).random,
        "a generator function": lambda: functools.partial(next, (0.5 * k**2 for k in range(99))),
        "itertools.count": lambda: functools.partial(next, itertools.count(1.0)),
        "a map": lambda: functools.partial(next, map(math.sqrt, range(99))),
        "a clock": lambda: time.perf_counter,
        "uuid": lambda: lambda: float(uuid.uuid4().int % 9973),
    }[kind]()


SOURCES = ("random.Random", "a Generator", "a RandomState", "a generator function", "itertools.count", "a map", "a clock", "uuid")  # fmt: skip


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_of_numbers_gives_the_next_one_to_each_call(kind):
    loglik = shifted(endless(kind))
    at = jm.nll(loglik)
    values = [float(at({"m": 0.0}, D)) for _ in range(3)]
    assert len(set(values)) == 3


@pytest.mark.parametrize("as_data", [jax.random.key, jax.random.PRNGKey], ids=["key", "PRNGKey"])
def test_another_key_changes_the_draws(as_data):
    settings = types.SimpleNamespace(key=as_data(0))
    loglik = shifted(lambda: jax.random.normal(settings.key))
    at = jm.nll(loglik)
    values = []
    for seed in (0, 5, 0):
        settings.key = as_data(seed)
        values.append(float(at({"m": 0.0}, D)))
    assert values[0] == values[2] != values[1]


def test_a_module_loaded_again_changes_the_fit(tmp_path, monkeypatch):
    source = tmp_path / "settings_of_a_study.py"
    source.write_text("c = 0.0\ndef shift():\n    return c\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module(source.stem)
    try:
        loglik = shifted(lambda: module.shift())
        assert_centre(loglik, 3.0)
        source.write_text("c = 1.0\ndef shift():\n    return c + 1.0\n")
        importlib.invalidate_caches()
        importlib.reload(module)
        assert_centre(loglik, 5.0)
    finally:
        del sys.modules[source.stem]


def memory_mapped(path):
    """A file of zeros, mapped for reading and for writing."""
    np.zeros(3).tofile(path)
    read, write = (np.memmap(path, float, mode=mode) for mode in ("r", "r+"))
    return read, write


def test_a_memory_map_that_changes_on_the_disk_changes_the_fit(tmp_path):
    read, write = memory_mapped(tmp_path / "numbers")
    loglik = shifted(lambda: np.asarray(read))
    assert_centre(loglik, 3.0)
    write[:] = 2.0
    write.flush()
    assert_centre(loglik, 5.0)


def test_a_table_of_pyarrow_shares_the_memory_of_an_array():
    pa = pytest.importorskip("pyarrow")
    values = np.zeros(3)
    table = pa.table({"c": pa.array(values)})
    loglik = shifted(lambda: table["c"].to_numpy())
    assert_centre(loglik, 3.0)
    values += 2.0
    assert_centre(loglik, 5.0)


def text(path, value):
    path.write_text(f"c\n{value}\n{value}\n{value}\n")


def gzipped(path, value):
    with gzip.open(path, "wb") as file:
        file.write(str(value).encode())


def numpy_file(path, value):
    with path.open("wb") as file:
        np.save(file, np.full(3, value))


def read_gzip(path):
    with gzip.open(path) as file:
        return float(file.read())


# Each by the name under which the reading library is held: a cell of the function here.
def readers():
    import jax.numpy as local_jnp
    import pandas as local_pd
    import polars as local_pl

    def imported_inside(path):
        import polars

        return polars.read_csv(path)["c"].to_numpy()

    return {
        "a path": (text, lambda path: float(path.read_text().split()[1])),
        "an open path": (text, lambda path: np.loadtxt(path.open(), skiprows=1)),
        "gzip": (gzipped, read_gzip),
        "jax.numpy": (numpy_file, lambda path: local_jnp.load(path)),
        "pandas": (text, lambda path: local_pd.read_csv(path)["c"].to_numpy()),
        "polars": (text, lambda path: local_pl.read_csv(path)["c"].to_numpy()),
        "polars, imported inside": (text, imported_inside),
    }


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("reader", readers())
def test_a_file_read_in_whatever_way_changes_the_likelihood(reader, tmp_path):
    """The symptom: a path that a likelihood reads itself, or a reader held by a cell instead of a global, gave the old numbers."""
    write, read = readers()[reader]
    path = tmp_path / "shift"
    write(path, 0.0)
    loglik = shifted(lambda: read(path))
    assert_centre(loglik, 3.0)
    write(path, 2.0)
    assert_centre(loglik, 5.0)


def test_what_takes_long_to_compile_at_each_call_is_warned_of_once_by_its_name(monkeypatch):
    """The symptom: each fit compiled again for seconds, and nothing said why."""
    monkeypatch.setattr(compiling, "SECONDS_WORTH_A_WARNING", 0.0)
    generator = np.random.default_rng(1)
    noisy, plain = shifted(lambda: 0.0 * generator.random()), shifted(lambda: 0.0)
    with pytest.warns(jm.UnwatchedClosureWarning) as caught:
        jm.nll(noisy)({"m": 0.0}, D)
    (message,) = (str(warning.message) for warning in caught)
    assert "numpy.random._generator.Generator, which cannot be watched" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loglik in (noisy, plain):
            jm.nll(loglik)({"m": 0.0}, D)
        monkeypatch.setattr(compiling, "SECONDS_WORTH_A_WARNING", 60.0)
        jm.nll(shifted(lambda: generator.random()))({"m": 0.0}, D)


def test_a_path_that_nobody_reads_hides_nothing(tmp_path):
    settings = types.SimpleNamespace(path=tmp_path, c=0.0)
    seen = look(shifted(lambda: settings.c if settings.path.name else 0.0))
    assert not seen.hidden


# ---------------------------------------------------------------- a draw within the likelihood

GENERATOR = np.random.default_rng(0)
COUNTED = [0.0]


def counting(p, y):
    COUNTED[0] += 1.0
    return -((y - p - COUNTED[0]) ** 2)


OTHER_EACH_TIME = {
    "numpy.random": lambda p, y: -((y - p + np.random.random()) ** 2),  # noqa: NPY002
    "a generator": lambda p, y: -((y - p + GENERATOR.normal()) ** 2),
    "a generator of its own": lambda p, y: -((y - p + np.random.default_rng().normal()) ** 2),
    "random": lambda p, y: -((y - p + random.random()) ** 2),
    "the clock": lambda p, y: -((y - p + time.time() % 1) ** 2),
    "a counter": counting,
}
SAME_EACH_TIME = {
    "a seeded generator": lambda p, y: -((y - p + np.random.default_rng(3).normal()) ** 2),
    "a key": lambda p, y: -((y - p + jax.random.normal(jax.random.key(1))) ** 2),
    "an environment": lambda p, y: -((y - p + len(os.environ["PATH"])) ** 2),
}


@pytest.mark.parametrize("source", OTHER_EACH_TIME)
def test_a_draw_in_the_likelihood_was_a_constant_without_a_word(source):
    y = np.arange(5.0)
    for fit, data in ((jm.fit, y), (jm.fit_batch, np.stack([y, y]))):
        drawing = functools.partial(OTHER_EACH_TIME[source])  # each is warned of once
        with pytest.warns(jm.UnwatchedClosureWarning, match="depends on .* one draw"):
            fit(drawing, 0.0, data)


@pytest.mark.parametrize("source", SAME_EACH_TIME)
def test_what_is_the_same_in_each_trace_is_no_draw(source):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*one draw.*", jm.UnwatchedClosureWarning)
        assert jm.fit(SAME_EACH_TIME[source], 0.0, np.arange(5.0)).converged
