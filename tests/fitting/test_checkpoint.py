"""A checkpoint belongs to one model, one run and one process at a time, and says in one sentence what it cannot do."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_array_equal

import jaxmle as jm
from jaxmle.closures import program_digest
from jaxmle.runtime import lock
from jaxmle.runtime.checkpoint import MANIFEST, Checkpoint
from jaxmle.runtime.lock import LOCK
from jaxmle.solvers.methods import LBFGS, Newton, Optax
from jaxmle.stochastic.stochastic import fit_stochastic

from . import killed
from .changing import HOLDERS
from .killed import PIECE, ROOT, RUNS, assert_same, here

# ---------------------------------------------------------------- the model


def through_jit(values):
    inner = jax.jit(lambda x: x * values)
    return lambda x: inner(x)


def through_scan(values):
    return lambda x: jax.lax.scan(lambda carry, v: (carry, v * values[0]), 0.0, x)[1]


def through_cond(values):
    return lambda x: jax.lax.cond(x[0] > 0, lambda v: v * values, lambda v: v + values, x)


def through_while(values):
    return lambda x: jax.lax.while_loop(lambda v: jnp.sum(v) < 0, lambda v: v + values**2, x)


def through_a_rule(values):
    @jax.custom_jvp
    def plain(x):
        return x * 2.0

    plain.defjvp(lambda p, t: (plain(*p), 2.0 * t[0] * values))
    return plain


def through_a_backward_rule(values):
    @jax.custom_vjp
    def plain(x):
        return x * 2.0

    plain.defvjp(lambda x: (plain(x), None), lambda _, ct: (ct * values,))
    return plain


def through_a_callback(values):
    def host(x):
        return np.asarray(x) * values

    return lambda x: jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def through_an_object(values):
    class Host:
        def __init__(self):
            self.values = values

        def __call__(self, x):
            return np.asarray(x) * self.values

    return lambda x: jax.pure_callback(Host(), jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def through_nested_jits(values):
    inner = jax.jit(jax.checkpoint(jax.jit(lambda x: x * jnp.asarray(values))))
    return jax.jit(lambda x: jax.vmap(lambda v: v + 1.0)(inner(x)))


WAYS = [
    through_jit,
    through_scan,
    through_cond,
    through_while,
    through_a_rule,
    through_a_backward_rule,
    through_a_callback,
    through_an_object,
    through_nested_jits,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_an_array_captured_anywhere_in_the_program_changes_its_digest(way):
    def digest(values):
        function = program_digest.with_derivatives(way(values))
        return program_digest.model_digest(function, np.ones(5, np.float32))

    values = np.arange(1.0, 6.0, dtype=np.float32)
    other = values.copy()
    other[4] += 1e-6  # one unit in the last place
    if way is through_scan:
        other[0] += 1e-6
    assert digest(values) == digest(values.copy())
    assert digest(values) != digest(other)


def test_programs_that_print_alike_and_differ_in_numbers_have_other_digests():
    def digest(function, *args):
        return program_digest.model_digest(function, *args)

    x = np.ones(2000, np.float32)
    long = np.arange(2000, dtype=np.float32)
    moved = long.copy()
    moved[1000] += 1  # within what NumPy's text elides
    assert digest(lambda x: x * long, x) != digest(lambda x: x * moved, x)
    assert digest(lambda x: x * 2.0, x) != digest(lambda x: x * 3.0, x)
    assert digest(lambda x: x + 1, x) != digest(lambda x: x + 1, x.astype(int))
    assert digest(lambda x, y: x - y, x, x) != digest(lambda x, y: y - x, x, x)
    assert digest(lambda x, y: (x, y), x, x) != digest(lambda x, y: (y, x), x, x)


def test_the_digest_of_a_program_is_the_same_in_another_process():
    source = (
        "import numpy as np\n"
        "from jaxmle.closures.program_digest import model_digest, value_digest, with_derivatives\n"
        "from tests.fitting import test_checkpoint as t\n"
        "print(value_digest(t.optax.adam(0.1), lambda x: x in {'a', 'b', 'c'}))\n"
        "for way in t.WAYS: print(model_digest(with_derivatives(way(np.arange(1, 6, dtype=np.float32))), np.ones(5, np.float32)))\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", source],
            capture_output=True,
            text=True,
            check=True,
            env=here(seed),
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    assert len(set(answers.pop().split())) == len(WAYS) + 1


def test_options_are_known_by_what_they_hold():
    """An optimizer is a pair of functions: its learning rate stands in what they close over."""
    digest = program_digest.value_digest
    knot = [1.0]
    knot.append(knot)
    different = [
        optax.adam(0.1),
        optax.adam(0.2),
        optax.adam(0.1, b1=0.8),
        optax.adam(optax.cosine_decay_schedule(0.1, 100)),
        optax.adam(optax.cosine_decay_schedule(0.1, 101)),
        optax.chain(optax.clip(1.0), optax.adam(0.1)),
        Newton(),
        LBFGS(),
        Optax(optax.adam(0.1)),
        Optax(optax.adam(0.2)),
        types.SimpleNamespace(scale=np.arange(3.0)),
        types.SimpleNamespace(scale=np.arange(1.0, 4.0)),
        {"a": 1},
        {"a": 1.0},
        knot,
    ]
    assert len({digest(value) for value in different}) == len(different)
    assert digest(optax.adam(0.1)) == digest(optax.adam(0.1))
    assert digest(Optax(optax.adam(0.1))) == digest(Optax(optax.adam(0.1)))


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_function_is_known_by_what_it_reads_whatever_holds_it(holder):
    """``fit_lake`` asks this of its model: a class, a module or a slot that had changed gave the table of before."""
    shift, bind = HOLDERS[holder]()
    held = np.zeros(3)
    bind(held)

    def digest():
        return program_digest.value_digest(lambda params, data: -((data + shift()) ** 2))

    before = digest()
    assert digest() == before
    held += 2.0
    after = digest()
    bind(np.full(3, -1.0))
    assert len({before, after, digest()}) == 3


def of_scale(scale):
    """A likelihood whose scale is known to a function under ``jit`` inside of it."""
    inner = jax.jit(lambda eta: eta * scale)

    def loglik(params, data):
        eta = inner(data["x"] @ params["beta"])
        return data["y"] * eta - jnp.logaddexp(0.0, eta)

    return loglik


@pytest.mark.parametrize("kind", RUNS)
def test_an_array_changed_inside_an_inner_jit_gave_the_old_fits_back(kind, tmp_path):
    run = RUNS[kind]
    run(tmp_path / "run", of_scale(np.array(1.0)))
    with pytest.raises(ValueError, match="belongs to another run, which differs in its model"):
        run(tmp_path / "run", of_scale(np.array(1.5)))
    run(tmp_path / "run", of_scale(np.array(1.0)))


def test_an_array_changed_in_place_inside_an_inner_jit_is_another_model(tmp_path):
    scale = np.array([1.0])
    loglik = of_scale(scale)
    killed.batch(tmp_path / "run", loglik)
    scale[0] = 1.5
    with pytest.raises(ValueError, match="belongs to another run, which differs in its model"):
        killed.batch(tmp_path / "run", loglik)


TWO_MEMBERS = np.array([[1.0, 2.0, 6.0], [2.0, 3.0, 7.0]])
RESUMED = ("a class method", "a jitted helper of a cached factory")


@pytest.mark.parametrize(
    "holder", [pytest.param(h, marks=() if h in RESUMED else pytest.mark.thorough) for h in HOLDERS]
)
def test_a_change_in_whatever_holds_a_number_is_another_model(holder, tmp_path):
    shift, bind = HOLDERS[holder]()
    held = np.zeros(3)
    bind(held)

    def loglik(params, data):
        return -0.5 * (data + shift() - params["m"]) ** 2

    def run():
        return jm.fit_batch(loglik, {"m": 0.5}, TWO_MEMBERS, checkpoint=tmp_path, progress=False)

    before = run()
    assert_array_equal(run().x, before.x)
    held += 2.0
    with pytest.raises(ValueError, match="belongs to another run, which differs in its model"):
        run()
    bind(np.zeros(3))
    assert_array_equal(run().x, before.x)


@pytest.mark.parametrize("dtype", [">f8", np.longdouble])
def test_numbers_that_jax_does_not_take_as_they_are_are_resumed_and_run_in_mini_batches(
    dtype, tmp_path
):
    """The shapes of what a folder holds were asked of the function itself: TypeError on its second run."""
    shift = np.zeros(1, dtype)

    def loglik(params, data):
        return -0.5 * (data + jnp.asarray(shift) - params["m"]) ** 2

    def run():
        return jm.fit_batch(loglik, {"m": 0.5}, TWO_MEMBERS, checkpoint=tmp_path, progress=False)

    assert_array_equal(run().x, run().x)
    found = fit_stochastic(
        loglik, {"m": 0.5}, TWO_MEMBERS[0], optimizer=killed.ADAM, batch_size=3, epochs=1, key=0, progress=False,
    )  # fmt: skip
    assert np.isfinite(found.loglik)


SCALE = np.array(1.0)


@jax.jit
def scaled(eta):
    return eta * SCALE


def by_global(params, data):
    eta = scaled(data["x"] @ params["beta"])
    return data["y"] * eta - jnp.logaddexp(0.0, eta)


def test_a_rebound_global_of_an_inner_jit_is_another_model(monkeypatch, tmp_path):
    killed.batch(tmp_path / "run", by_global)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", np.array(1.5))
    with pytest.raises(ValueError, match="belongs to another run, which differs in its model"):
        killed.batch(tmp_path / "run", by_global)


def test_every_odd_row_changed_or_another_optimizer_is_another_stochastic_run(tmp_path):
    options = {"batch_size": 2**16, "epochs": 1, "key": 3}
    y = np.zeros(2**18)

    def mean(params, y):
        return -0.5 * (y - params["m"]) ** 2

    def run(y, **change):
        given = {"optimizer": killed.ADAM} | options | change
        return fit_stochastic(mean, {"m": 0.0}, y, checkpoint=tmp_path / "run", **given)

    run(y)
    other = y.copy()
    other[1::2] = 1.0
    with pytest.raises(ValueError, match="differs in its data"):
        run(other)
    for optimizer in (optax.adam(0.06), optax.sgd(0.05), optax.adam(0.05, b1=0.8)):
        with pytest.raises(ValueError, match="belongs to another run"):
            run(y, optimizer=optimizer)
    for change in ({"held_out": 0.5}, {"held_out": y[:10]}, {"key": 4}, {"batch_size": 2**15}):
        with pytest.raises(ValueError, match="belongs to another run"):
            run(y, **change)
    run(y, optimizer=optax.adam(0.05))


# ---------------------------------------------------------------- two runs on one folder


@pytest.mark.parametrize("kind", RUNS)
def test_a_second_run_on_a_folder_in_use_is_refused(kind, finished, tmp_path):
    """Of one process by threads, or of two: a lock is of the open file."""
    folder = tmp_path / "run"
    with Checkpoint(folder) as held:
        held.open({"procedure": "another"})
        with pytest.raises(ValueError, match="in use by another call in this process") as error:
            RUNS[kind](folder)
        assert str(folder) in str(error.value)
        answers = []

        def in_a_thread():
            try:
                RUNS[kind](folder)
            except ValueError as error:
                answers.append(str(error))

        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
        assert "in use by another call in this process" in answers[0]
        child = subprocess.run(
            [sys.executable, "-m", "tests.fitting.killed", kind, str(folder), "end"],
            env=here(), cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert f"in use by process {os.getpid()} on " in child.stderr
    assert os.listdir(folder) == [MANIFEST]
    shutil.rmtree(folder)
    assert_same(RUNS[kind](folder), finished[1][kind])


def test_a_run_that_failed_leaves_its_folder_free(tmp_path):
    def wrong(params, data):
        raise ArithmeticError("mine")

    for _ in range(
        2
    ):  # the traceback of the first, with all its frames, is still alive in the second
        with pytest.raises(ArithmeticError) as kept:
            killed.batch(tmp_path / "run", wrong)
        assert kept.value.__traceback__
    with Checkpoint(tmp_path / "run") as first:
        first.open({"a": 1})
        with pytest.raises(ValueError, match="in use"), Checkpoint(tmp_path / "run") as second:
            second.open({"a": 1})
    with pytest.raises(ZeroDivisionError), Checkpoint(tmp_path / "run") as third:
        third.open({"a": 1})
        raise ZeroDivisionError
    with Checkpoint(tmp_path / "run") as fourth:
        fourth.open({"a": 1})


def test_a_file_system_without_locks_keeps_a_checkpoint_all_the_same(monkeypatch, tmp_path):
    import fcntl

    def without(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with Checkpoint(tmp_path) as held:
        held.open({"a": 1})
        held.save("latest", [np.arange(3)])
        assert_array_equal(held.load("latest", lambda arrays: None)[0], np.arange(3))
    assert os.listdir(tmp_path) != []


def test_what_a_killed_run_had_not_finished_is_swept_and_other_files_stay(tmp_path):
    with Checkpoint(tmp_path) as held:
        held.open({"a": 1})
    orphans = [f".{MANIFEST}.12.34", ".first-000001.npz.7.140000"]
    others = [".mine", ".notes.1.2", "thesis.txt", "first.npz.7.8"]
    for name in (*orphans, *others, LOCK):
        (tmp_path / name).write_text("x")
    with Checkpoint(tmp_path) as held:
        held.open({"a": 1})
    assert sorted(os.listdir(tmp_path)) == sorted([MANIFEST, *others])


@pytest.mark.parametrize("name", ["thesis.txt", "first-000000.npz", ".notes"])
def test_a_folder_of_other_files_is_left_as_it_is(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds other files, such as '{name}', and no {MANIFEST}"):
        killed.batch(tmp_path)
    assert os.listdir(tmp_path) == [name]


# ---------------------------------------------------------------- disks


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("kind", RUNS)
def test_a_full_or_read_only_disk_names_the_folder_and_loses_nothing(
    kind, number, finished, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    replace = os.replace

    def full(old, new):
        if Path(new).name == f"{PIECE[kind]}.npz" and (kind == "batch" or Path(new).exists()):
            raise OSError(number, os.strerror(number))
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="Finished pieces stay there") as error:
            RUNS[kind](folder)
    assert error.value.errno == number
    assert os.strerror(number) in str(error.value) and str(folder) in str(error.value)
    held = "first-000000.npz" if kind == "batch" else "latest.npz"
    assert sorted(os.listdir(folder)) == sorted([MANIFEST, held])
    kept = (folder / held).stat().st_mtime_ns
    assert_same(RUNS[kind](folder), finished[1][kind])
    if kind == "batch":
        assert (folder / held).stat().st_mtime_ns == kept


@pytest.mark.parametrize("kind", RUNS)
def test_a_finished_run_on_a_read_only_disk_is_read(kind, copied, monkeypatch):
    opened = os.open

    def read_only(path, flags, *args, **kwargs):
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(lock.os, "open", read_only)
    assert_same(RUNS[kind](copied[0] / kind), copied[1][kind])


@pytest.mark.parametrize(
    ("folder", "error", "words"),
    [
        (3, TypeError, "checkpoint must be the path of a folder of its own"),
        (True, TypeError, "checkpoint must be"),
        (b"run", TypeError, "checkpoint must be"),
        ("", TypeError, "checkpoint must be"),
        (["run"], TypeError, "checkpoint must be"),
        ("a\0b", ValueError, "null character"),
        ("a" * 300, OSError, "cannot be opened"),
        (__file__, ValueError, "is a file"),
        (f"{__file__}/run", OSError, "cannot be opened"),
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("kind", RUNS)
def test_what_is_no_folder_is_said(kind, folder, error, words):
    with pytest.raises(error, match=words):
        RUNS[kind](folder)
