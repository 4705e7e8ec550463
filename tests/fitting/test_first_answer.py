"""What has to be compiled before the first answer."""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmle as jm

COMPILING = "/jax/core/compile/backend_compile_duration"
MAX_PROGRAMS = 5  # the likelihood at the shapes of a batch and of its last round, n, small copies


# Lists to which each compiled program is added. jax 0.8 cannot take a listener away again.
OPEN_LISTS = []


def listen(event, _seconds, **_rest):
    if event == COMPILING:
        for names in OPEN_LISTS:
            names.append(event)


jax.monitoring.register_event_duration_secs_listener(listen)


@contextlib.contextmanager
def compiled_programs():
    """The programs that XLA compiles meanwhile, or reads from its cache."""
    names = []
    OPEN_LISTS.append(names)
    try:
        yield names
    finally:
        OPEN_LISTS.remove(names)


def sample(members):
    rng = np.random.default_rng(members)
    x = rng.normal(size=(members, 60, 3))
    y = (rng.random((members, 60)) < 0.5).astype(float)
    y[: members // 10] = 1.0  # separated: they take excursions
    return {"x": x, "y": y}


@pytest.mark.parametrize("members", [1, 40, 700])
def test_a_first_batch_compiles_its_likelihood_and_no_state_machine(members):
    def loglik(p, d):
        eta = d["x"] @ p["beta"] + 0.0 * members
        return d["y"] * eta - jnp.logaddexp(0.0, eta)

    with compiled_programs() as programs:
        fits = jm.fit_batch(loglik, {"beta": np.zeros(3)}, sample(members), progress=False)
    assert fits.status.shape == (members,)
    assert 1 <= len(programs) <= MAX_PROGRAMS


def test_the_rows_of_stacked_members_are_counted_without_a_program():
    """The symptom: a program that returned the number of rows took a seventh of the first answer."""

    def loglik(p, d):
        return -0.5 * (d["y"] - p["mean"]) ** 2

    with compiled_programs() as programs:
        fits = jm.fit_batch(loglik, {"mean": 0.0}, {"y": sample(5)["y"]}, progress=False)
    assert np.all(fits.n == 60)
    assert len(programs) <= 2  # one of the likelihood, one of its check


def test_a_second_batch_of_other_members_compiles_nothing():
    def loglik(p, d):
        eta = d["x"] @ p["beta"]
        return d["y"] * eta - jnp.logaddexp(0.0, eta)

    data = sample(40)
    jm.fit_batch(loglik, {"beta": np.zeros(3)}, data, progress=False)
    turned = {name: leaf[::-1] for name, leaf in data.items()}
    with compiled_programs() as programs:
        jm.fit_batch(loglik, {"beta": np.zeros(3)}, turned, progress=False)
    assert not programs
