"""An error inside the package is raised, and is never taken for an answer such as "there is none"."""

import errno

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmle as jm
import jaxmle.models
from jaxmle.closures import copies
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.discovery.derivative_rules import written_rules
from jaxmle.likelihood.discovery.kinked_operations import may_have_kinks
from jaxmle.likelihood.discovery.linear_predictors import as_regression
from jaxmle.likelihood.discovery.mean_of_rows import is_mean_of_rows
from jaxmle.likelihood.discovery.ready_calls import calls_in
from jaxmle.parameters.tree import layout_of
from jaxmle.runtime.jax_state import precision
from jaxmle.runtime.lock import FolderLock

Y = np.array([1.0, 2.0, 4.0])
DATA = {"x": np.column_stack([np.ones(3), Y]), "y": Y}
LAYOUT = layout_of({"b": np.zeros(2)})
BASE = np.zeros(2)
PLANTED = "planted in a test"


def fails(*args, **words):
    raise TypeError(PLANTED)


def normal(params, data):
    return -0.5 * (data["y"] - data["x"] @ params["b"]) ** 2


READERS = {
    "kinks": lambda loglik, data: may_have_kinks(loglik, LAYOUT, BASE, data),
    "rules": lambda loglik, data: written_rules(loglik, LAYOUT, BASE, data),
    "mean": lambda loglik, data: is_mean_of_rows(loglik, LAYOUT, data),
    "calls": lambda loglik, data: calls_in(loglik, LAYOUT, BASE, data),
    "predictors": lambda loglik, data: as_regression(loglik, LAYOUT, BASE, data),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_reads_a_program_raises_the_error_of_its_trace(reader):
    with precision(np.float64), pytest.raises(TypeError, match=PLANTED):
        READERS[reader](as_tree(lambda params, data: fails()), DATA)


@pytest.mark.parametrize("reader", ["kinks", "rules", "mean", "calls"])
def test_a_design_that_arrives_transposed_is_seen(reader):
    """Such a design was "without kinks", and a declared median regression stalled in a batch."""
    transposed = {"x": DATA["x"].T, "y": Y}
    refusal = pytest.raises(ValueError, match="must share the leading observation axis")
    with precision(np.float64), refusal:
        READERS[reader](as_tree(normal), transposed)


def test_a_pool_of_penalised_parts_has_no_terms_of_its_own_and_is_fitted_under_a_trace_too():
    """Under `jit` it was refused for not having one term per observation, and its kinks were not seen."""
    part = jm.penalize(normal, jm.ridge(1.0))
    start = {"b": np.zeros(2)}
    pooled = jm.pool(part, part)
    fit = jm.fit(pooled, start, (DATA, DATA))
    with jax.enable_x64(True):
        traced = jax.jit(lambda data: jm.fit(pooled, start, data))((DATA, DATA))
    np.testing.assert_allclose(traced.x, fit.x, rtol=1e-10)
    with precision(np.float64):
        absolute = jm.penalize(lambda p, d: -jnp.abs(d["y"] - d["x"] @ p["b"]), jm.ridge(1.0))
        assert READERS["kinks"](as_tree(jm.pool(part, absolute)), (DATA, DATA))
    right = np.linalg.solve(DATA["x"].T @ DATA["x"] + np.eye(2), DATA["x"].T @ Y)
    np.testing.assert_allclose(fit.x, right, rtol=1e-8)
    with precision(np.float64):
        for reader in ("kinks", "rules", "calls"):
            assert not READERS[reader](as_tree(jm.pool(part, part)), (DATA, DATA))


def test_an_error_in_copying_what_is_in_a_closure_is_not_an_unbound_name(monkeypatch):
    def planted(leaf):
        raise ValueError(PLANTED)

    monkeypatch.setattr(copies, "viewed", planted)
    with pytest.raises(ValueError, match=PLANTED):
        jm.fit(lambda params: -jnp.sum((params["m"] - Y) ** 2), {"m": 0.0})


class Slotted:
    __slots__ = ("y",)

    def __init__(self):
        self.y = Y + 1.0

    def __call__(self, params, data):
        return -0.5 * (self.y - params["m"]) ** 2


def test_an_error_in_copying_what_is_in_a_slot_is_not_an_empty_slot(monkeypatch):
    monkeypatch.setattr(copies, "viewed", fails)
    with pytest.raises(TypeError, match=PLANTED):
        jm.fit(Slotted(), {"m": 0.0}, {"x": Y})


def test_a_lock_that_the_disk_refuses_is_not_held_by_another_run(monkeypatch, tmp_path):
    fcntl = pytest.importorskip("fcntl", reason="locks are those of msvcrt")

    def broken(handle, operation):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="broken disk"):
        FolderLock(tmp_path).acquire()


def test_an_error_in_cutting_out_a_member_is_not_a_start_that_does_not_fit(monkeypatch):
    monkeypatch.setattr("jaxmle.batch.members.start_values.data_of", fails)
    with pytest.raises(TypeError, match=PLANTED):
        jm.fit_batch(
            lambda p, d: -0.5 * (d - p["m"]) ** 2, {"m": np.zeros(2)}, Y[None] + np.zeros((2, 1))
        )


@pytest.mark.parametrize("name", ["portable_tree", "to_numpy"])
def test_an_error_in_reading_starts_is_not_a_start_that_does_not_fit(monkeypatch, name):
    def sampler(key):
        return {"m": jax.random.normal(key)}

    monkeypatch.setattr(f"jaxmle.starts.starts.{name}", fails)
    starts = sampler if name == "to_numpy" else {"m": np.zeros(2)}
    with pytest.raises(TypeError, match=PLANTED):
        jm.multistart(lambda p, d: -0.5 * (d - p["m"]) ** 2, starts, Y, number=2)
