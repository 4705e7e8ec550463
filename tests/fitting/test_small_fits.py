"""What a small fit does when it is made again: it looks at everything, and computes little."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmle as jm
from jaxmle.runtime import compile as compiling
from jaxmle.runtime.device import MIN_BYTES_TO_PLACE

# 8 300 before numbers of one fit had a road of their own, 4 600 since; newer Pythons count fewer
MAX_CALLS = 5_200


def logistic(params, data):
    eta = data["x"] @ params["beta"]
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


def logits(rows=300, p=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, p))
    y = rng.random(rows) < 1 / (1 + np.exp(-x @ np.linspace(-0.5, 0.5, p)))
    return {"x": x, "y": y.astype(float)}


def fit(data, **options):
    return jm.fit(logistic, {"beta": np.zeros(data["x"].shape[1])}, data, **options)


def calls_of(function):
    """How many functions, of Python and of C, are called."""
    number = 0

    def note(_frame, event, _what):
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return number


def test_a_small_fit_again_calls_few_functions():
    data = logits()
    for _ in range(3):
        fit(data)
    assert calls_of(lambda: fit(data)) <= MAX_CALLS


def test_a_fit_looks_once_at_what_its_likelihood_depends_on(monkeypatch):
    looks = []

    def look(function, *args, **options):
        looks.append(function)
        return look_at(function, *args, **options)

    data = logits()
    fit(data)
    look_at = compiling.look
    monkeypatch.setattr(compiling, "look", look)
    fit(data)
    assert looks == [logistic]


@pytest.mark.parametrize("rows", [300, MIN_BYTES_TO_PLACE // 8])
def test_data_changed_in_place_are_seen(rows):
    """Small arrays are read where they are, large ones on the device."""
    data = logits(rows)
    before = fit(data)
    data["y"][: rows // 10] = 1.0 - data["y"][: rows // 10]
    data["x"][0, 0] += 1.0
    after = fit(data)
    fresh = fit({name: leaf.copy() for name, leaf in data.items()})
    np.testing.assert_array_equal(after.params["beta"], fresh.params["beta"])
    np.testing.assert_array_equal(after.data_id, fresh.data_id)
    assert np.all(after.params["beta"] != before.params["beta"])
    assert np.any(after.data_id != before.data_id)


def test_rows_are_as_good_in_any_memory():
    """Strided and unaligned arrays are read as they are where they are small."""
    data = logits()
    wide = np.zeros((300, 10))
    wide[:, ::2] = data["x"]
    shifted = np.frombuffer(b"\0" * 4 + data["y"].tobytes(), np.uint8)[4:].view(np.float64)
    odd = fit({"x": wide[:, ::2], "y": shifted})
    np.testing.assert_array_equal(odd.params["beta"], fit(data).params["beta"])


def test_another_constraint_or_shape_is_seen():
    data = logits()
    free = fit(data)
    start = {"beta": np.full(5, 0.5)}
    held = jm.fit(logistic, start, data, constraints={"beta": jm.positive})
    assert np.all(held.params["beta"] >= 0.0)
    assert np.any(free.params["beta"] < 0.0)
    assert fit(logits(p=3)).names == ("beta[0]", "beta[1]", "beta[2]")


def test_what_a_fit_returns_can_be_written_to():
    result = fit(logits())
    leaves = (result.params["beta"], result.vcov, result.score, result.hessian, result.data_id)
    assert all(leaf.flags.writeable for leaf in leaves)
