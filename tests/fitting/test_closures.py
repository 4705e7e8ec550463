"""What a likelihood closes over: it survives both precisions, is seen when it changes, is let go when it dies, and is traced once."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.likelihood.contract import as_tree
from jaxmle.runtime import compile

N = 50
X = np.column_stack([np.ones(N), np.random.default_rng(50).normal(size=(N, 2))])
Y = X @ np.array([0.5, 1.0, -1.0]) + np.random.default_rng(51).normal(size=N)
START = {"beta": np.zeros(3)}
EXACT = np.linalg.solve(X.T @ X, X.T @ Y)
ERROR = np.sqrt(np.diag(np.linalg.inv(X.T @ X)))

MOVED = EXACT + np.array([2.0, 0.0, 0.0])

GLOBAL_X, GLOBAL_Y = X, Y


def over_a_cell():
    x, y = X.copy(), Y.copy()
    return lambda params, data: -0.5 * (y - x @ params["beta"]) ** 2


def over_a_helper():
    x, y = X.copy(), Y.copy()

    def mean(params):
        return x @ params["beta"]

    def residual(params):
        return y - mean(params)

    return lambda params, data: -0.5 * residual(params) ** 2


def over_a_jitted_helper():
    x, y = X.copy(), Y.copy()
    mean = jax.jit(lambda params: x @ params["beta"])
    return lambda params, data: -0.5 * (y - mean(params)) ** 2


def jitted_itself():
    x, y = X.copy(), Y.copy()
    return jax.jit(lambda params, data: -0.5 * (y - x @ params["beta"]) ** 2)


def jitted_twice():
    return jax.jit(jitted_itself())


def over_a_default():
    def loglik(params, data, x=X.copy(), y=Y.copy()):  # noqa: B008
        return -0.5 * (y - x @ params["beta"]) ** 2

    return loglik


def over_a_partial():
    def loglik(x, params, data, *, y):
        return -0.5 * (y - x @ params["beta"]) ** 2

    return functools.partial(loglik, X.copy(), y=Y.copy())


def over_a_container():
    box = {"x": X.copy(), "rest": [Y.copy()]}
    return lambda params, data: -0.5 * (box["rest"][0] - box["x"] @ params["beta"]) ** 2


def over_globals():
    def loglik(params, data):
        return -0.5 * (GLOBAL_Y - GLOBAL_X @ params["beta"]) ** 2

    return loglik


def a_bound_method():
    class Model:
        def __init__(self):
            self.x, self.y = X.copy(), Y.copy()

        def loglik(self, params, data):
            return -0.5 * (self.y - self.x @ params["beta"]) ** 2

    return Model().loglik


def a_callable_object():
    class Model:
        def __init__(self):
            self.x, self.y = X.copy(), Y.copy()

        def __call__(self, params, data):
            return -0.5 * (self.y - self.x @ params["beta"]) ** 2

    return Model()


CLOSURES = [
    over_a_cell, over_a_helper, over_a_jitted_helper, jitted_itself, jitted_twice, over_a_default, over_a_partial, over_a_container, over_globals,
    a_bound_method, a_callable_object,
]  # fmt: skip


def assert_exact(fit):
    assert fit.converged, fit.explain()
    assert fit.dtype == np.float64
    assert_allclose(fit.x, EXACT, rtol=0, atol=1e-9 * ERROR.min())
    assert_allclose(fit.se, ERROR, rtol=1e-9)


def assert_single_precision(loglik):
    """The user's own float32 program of the same function."""
    value, slope = jax.jit(jax.value_and_grad(lambda params: jnp.sum(loglik(params, None))))(
        {"beta": jnp.zeros(3)}
    )
    assert value.dtype == jnp.float32
    assert_allclose(value, -0.5 * np.sum(Y**2), rtol=1e-5)
    assert_allclose(slope["beta"], X.T @ Y, rtol=1e-4)


@pytest.mark.parametrize("make", CLOSURES)
def test_a_likelihood_jitted_in_float32_still_fits_in_float64(make):
    loglik = make()
    assert_single_precision(loglik)
    assert_exact(jm.fit(loglik, START))


@pytest.mark.parametrize("make", CLOSURES)
def test_a_likelihood_fitted_in_float64_still_jits_in_float32(make):
    loglik = make()
    assert_exact(jm.fit(loglik, START))
    assert_single_precision(loglik)
    assert_exact(jm.fit(loglik, START))


def test_calculus_and_fit_share_a_closure_in_both_precisions():
    loglik = over_a_cell()
    assert_single_precision(loglik)
    assert_allclose(np.asarray(jm.score(loglik)(START, None)["beta"]), X.T @ Y, rtol=1e-4)
    assert_exact(jm.fit(loglik, START))
    assert_allclose(np.asarray(jm.hessian(loglik)(START, None)), -X.T @ X, rtol=1e-4)


# ---------------------------------------------------------------- what changes is seen

SHIFT = np.zeros(N)


def shifted(params, data):
    return -0.5 * (Y + SHIFT - X @ params["beta"]) ** 2


def test_rebinding_a_global_changes_the_fit(monkeypatch):
    assert_allclose(jm.fit(shifted, START).x, EXACT, atol=1e-9)
    monkeypatch.setattr(sys.modules[__name__], "SHIFT", X[:, 1] * 3.0)
    assert_allclose(
        jm.fit(shifted, START).x, np.linalg.solve(X.T @ X, X.T @ (Y + SHIFT)), atol=1e-9
    )
    monkeypatch.undo()
    assert_allclose(jm.fit(shifted, START).x, EXACT, atol=1e-9)


def test_changing_an_array_in_place_changes_the_fit():
    y = Y.copy()

    def loglik(params, data):
        return -0.5 * (y - X @ params["beta"]) ** 2

    assert_allclose(jm.fit(loglik, START).x, EXACT, atol=1e-9)
    y += 2.0
    assert_allclose(jm.fit(loglik, START).x, MOVED, atol=1e-9)


def test_rebinding_a_cell_or_an_attribute_changes_the_fit():
    shift = 0.0

    def loglik(params, data):
        return -0.5 * (Y + shift - X @ params["beta"]) ** 2

    assert_allclose(jm.fit(loglik, START).x, EXACT, atol=1e-9)
    shift = 2.0
    assert_allclose(jm.fit(loglik, START).x, MOVED, atol=1e-9)


def test_a_callable_object_that_changes_is_seen():
    class Model:
        shift = 0.0

        def __call__(self, params, data):
            return -0.5 * (Y + self.shift - X @ params["beta"]) ** 2

    model = Model()
    assert_allclose(jm.fit(model, START).x, EXACT, atol=1e-9)
    model.shift = 2.0
    assert_allclose(jm.fit(model, START).x, MOVED, atol=1e-9)


def test_a_container_that_changes_is_seen():
    box = {"shift": 0.0}

    def loglik(params, data):
        return -0.5 * (Y + box["shift"] - X @ params["beta"]) ** 2

    assert_allclose(jm.fit(loglik, START).x, EXACT, atol=1e-9)
    box["shift"] = 2.0
    assert_allclose(jm.fit(loglik, START).x, MOVED, atol=1e-9)


@pytest.mark.thorough
def test_a_change_is_seen_under_vmap_too():
    """The compiled batch kept for a function belongs to what it closed over."""
    y = Y.copy()

    def loglik(params, data):
        return -0.5 * (y + data - X @ params["beta"]) ** 2

    run = jax.vmap(lambda shift: jm.fit(loglik, START, jnp.full(N, 1.0) * shift).params["beta"][0])
    with jax.enable_x64(True):
        before = np.asarray(run(np.array([0.0, 1.0])))
        y += 2.0
        after = np.asarray(run(np.array([0.0, 1.0])))
    assert_allclose(before, EXACT[0] + np.array([0.0, 1.0]), atol=1e-9)
    assert_allclose(after - before, 2.0, atol=1e-9)


# ---------------------------------------------------------------- traced once, and let go


class Runs:
    """A count of the runs of somebody's Python code."""

    count = 0


def counting():
    """A likelihood, and the count of its own runs."""
    runs = Runs()

    def loglik(params, data):
        runs.count += 1
        return -0.5 * (data["y"] - data["x"] @ params["beta"]) ** 2

    return loglik, runs


def test_a_second_fit_of_the_same_shapes_runs_no_python_of_the_users():
    loglik, runs = counting()
    data = {"x": X, "y": Y}
    assert jm.fit(loglik, START, data).converged
    first = runs.count
    for seed in range(3):
        moved = data | {"y": Y + np.random.default_rng(seed).normal(size=N)}
        assert jm.fit(loglik, {"beta": np.ones(3)}, moved).converged
    assert runs.count == first
    jm.fit(loglik, START, {"x": X[:40], "y": Y[:40]})
    assert runs.count > first


def test_other_steps_and_a_second_sandwich_run_no_python_of_the_users():
    loglik, runs = counting()
    data = {"x": X, "y": Y}
    jm.fit(loglik, START, data)
    one = runs.count
    jm.fit(loglik, START, data, max_steps=50)
    assert runs.count == one
    jm.fit(loglik, START, data, vcov="HC0")
    two = runs.count
    jm.fit(loglik, START, data, vcov="HC0")
    assert runs.count == two


def test_one_trace_per_shape():
    """A jitted fit is one trace of the function around it, whatever the numbers."""
    chex.clear_trace_counter()
    run = jax.jit(
        chex.assert_max_traces(
            lambda data: jm.fit(over_a_helper_of_data, START, data).params["beta"], n=1
        )
    )
    with jax.enable_x64(True):
        for shift in range(3):
            assert_allclose(
                np.asarray(run({"x": X, "y": Y + shift}))[0], EXACT[0] + shift, atol=1e-9
            )
    with pytest.raises(AssertionError), jax.enable_x64(True):
        run({"x": X[:40], "y": Y[:40]})


class Scaled:
    """A likelihood that is an object with an array and a method of its own."""

    def __init__(self):
        self.weight = np.full(N, 2.0)

    def __call__(self, params, data):
        return -0.5 * self.weight * (data["y"] - data["x"] @ params["beta"]) ** 2


def test_one_trace_per_shape_over_an_object():
    chex.clear_trace_counter()
    scaled = Scaled()
    run = jax.jit(
        chex.assert_max_traces(lambda data: jm.fit(scaled, START, data).stderr["beta"], n=1)
    )
    with jax.enable_x64(True):
        for shift in range(3):
            assert_allclose(
                np.asarray(run({"x": X, "y": Y + shift})), ERROR / np.sqrt(2), rtol=1e-9
            )


@pytest.mark.thorough
def test_a_rule_that_the_user_gave_is_the_one_differentiated():
    """``custom_jvp`` carries a ``__wrapped__`` as ``jit`` does, but below it the rule would be lost."""
    used = []

    @jax.custom_jvp
    def softplus(x):
        return jnp.logaddexp(x, 0.0)

    @softplus.defjvp
    def rule(primals, tangents):
        used.append(1)
        return softplus(primals[0]), jax.nn.sigmoid(primals[0]) * tangents[0]

    label = (Y > 0).astype(float)

    def own(params, data):
        return label * (X @ params["beta"]) - softplus(X @ params["beta"])

    def plain(params, data):
        return label * (X @ params["beta"]) - jnp.logaddexp(X @ params["beta"], 0.0)

    found, expected = jm.fit(own, START), jm.fit(plain, START)
    assert used
    assert_allclose(found.x, expected.x, atol=1e-9)
    used.clear()
    with jax.enable_x64(True):
        jax.jit(lambda: jm.fit(own, START).x)()
    assert used


def over_a_helper_of_data(params, data):
    return -0.5 * (data["y"] - data["x"] @ params["beta"]) ** 2


@pytest.mark.thorough
def test_vmap_of_fit_outside_jit_traces_once():
    loglik, runs = counting()
    data = {"x": np.stack([X] * 3), "y": np.stack([Y, Y + 1, Y + 2])}

    def run(data):
        return jm.fit(loglik, START, data).params

    with jax.enable_x64(True):
        first = np.asarray(jax.vmap(run)(data)["beta"])
        count = runs.count
        again = np.asarray(jax.vmap(run)(data)["beta"])
    assert runs.count == count
    assert_allclose(first, again)
    assert_allclose(first[:, 0], EXACT[0] + np.arange(3), atol=1e-9)


FORTY_FITS = """
import ctypes, gc, resource
import numpy as np
import jaxmle as jm
from jaxmle.runtime import compile
from jaxmle.likelihood.contract import as_tree

def resident():
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # what is free, but kept by the C library for the next fit, is not left behind
    if trim is not None:
        trim(0)
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize() / 2**20

def once(seed, rows=2**20):
    y = np.full(rows, float(seed)) + np.arange(rows) / rows
    fit = jm.fit(lambda params, data: -0.5 * (y - params["m"]) ** 2, {"m": 0.0})
    assert abs(fit.params["m"] - y.mean()) < 1e-9

def floor(fits):
    # The least memory after any of so many fits: jax 0.12 lets the constants of dead programs go eleven programs at a time.
    low = float("inf")
    for seed in range(fits):
        once(seed)
        low = min(low, resident())
    return low

floor(12)
before = floor(12)
for seed in range(28):
    once(seed)
print(floor(12) - before)
"""


@pytest.mark.thorough
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_forty_fits_of_fresh_closures_over_8_megabytes_leave_no_memory_behind():
    """In an interpreter of its own, whose memory no other test has stretched."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        )
    }
    done = subprocess.run(
        [sys.executable, "-c", FORTY_FITS],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert float(done.stdout) < 50


def ready_models():
    """Every built-in model that needs no data to be made."""
    for name in jm.models.__all__:
        make = getattr(jm.models, name)
        arguments = {"aft": ("weibull",), "distribution": (jm.families.gamma,)}.get(name, ())
        for wanted in (arguments, (3,)):
            try:
                model = make(*wanted)
            except (TypeError, ValueError):
                continue
            if hasattr(model, "likelihood"):
                yield name, model
            break


@pytest.mark.parametrize("make", CLOSURES)
def test_what_did_not_change_is_not_compiled_again(make, caplog):
    loglik = make()
    jm.fit(loglik, START)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        jm.fit(loglik, START)
    assert not [r for r in caplog.records if "likelihood_piece" in r.getMessage()]


@pytest.mark.parametrize(("name", "model"), [*ready_models()], ids=lambda v: str(v)[:20])
def test_a_ready_model_is_not_compiled_again_at_each_call(name, model):
    """Its memo, kept on a partial, was taken for something that the partial depends on."""
    for function in compile.functions_of(as_tree(model)):
        first = compile._memo(function)
        first.pieces["a program"] = object()
        assert compile._memo(function) is first
