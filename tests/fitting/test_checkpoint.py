"""A checkpoint belongs to one model and one run, survives a kill at any moment, and says in one sentence what is wrong with it."""

import errno
import functools
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import types
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_array_equal

from jaxmle.fitting import checkpoint, lock, npz, program_digest
from jaxmle.fitting.checkpoint import MANIFEST, Checkpoint
from jaxmle.fitting.lock import LOCK
from jaxmle.fitting.stochastic import fit_stochastic
from jaxmle.solvers.methods import LBFGS, Newton, Optax

from . import killed
from .killed import RUNS

REMEDY = "Delete this piece: it will be fitted again."
PIECE = {"batch": "first-000001", "stochastic": "latest"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """For each kind a folder that holds a whole run, and what the run returned without one."""
    folder = tmp_path_factory.mktemp("finished")
    straight = {kind: run(None) for kind, run in RUNS.items()}
    for kind, run in RUNS.items():
        assert_same(run(folder / kind), straight[kind])
    return folder, straight


@pytest.fixture
def copied(finished, tmp_path):
    """The same, for a test to damage."""
    shutil.copytree(finished[0], tmp_path / "runs")
    return tmp_path / "runs", finished[1]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


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
        "from jaxmle.fitting.program_digest import model_digest, value_digest, with_derivatives\n"
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
    with pytest.raises(ValueError, match="belongs to another run: its model"):
        run(tmp_path / "run", of_scale(np.array(1.5)))
    run(tmp_path / "run", of_scale(np.array(1.0)))


def test_an_array_changed_in_place_inside_an_inner_jit_is_another_model(tmp_path):
    scale = np.array([1.0])
    loglik = of_scale(scale)
    killed.batch(tmp_path / "run", loglik)
    scale[0] = 1.5
    with pytest.raises(ValueError, match="belongs to another run: its model"):
        killed.batch(tmp_path / "run", loglik)


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
    with pytest.raises(ValueError, match="belongs to another run: its model"):
        killed.batch(tmp_path / "run", by_global)


def test_every_odd_row_changed_or_another_optimizer_is_another_stochastic_run(tmp_path):
    options = {"batch_size": 2**18, "epochs": 1, "key": 3}
    y = np.zeros(2**20)

    def mean(params, y):
        return -0.5 * (y - params["m"]) ** 2

    def run(y, **change):
        given = {"optimizer": killed.ADAM} | options | change
        return fit_stochastic(mean, {"m": 0.0}, y, checkpoint=tmp_path / "run", **given)

    run(y)
    other = y.copy()
    other[1::2] = 1.0
    with pytest.raises(ValueError, match="its data is not the same"):
        run(other)
    for optimizer in (optax.adam(0.06), optax.sgd(0.05), optax.adam(0.05, b1=0.8)):
        with pytest.raises(ValueError, match="belongs to another run"):
            run(y, optimizer=optimizer)
    for change in ({"held_out": 0.5}, {"held_out": y[:10]}, {"key": 4}, {"batch_size": 2**17}):
        with pytest.raises(ValueError, match="belongs to another run"):
            run(y, **change)
    run(y, optimizer=optax.adam(0.05))


# ---------------------------------------------------------------- kills


class Died(BaseException):
    """What ends a run where a signal 9 would."""


class Deadline:
    """Steps of the file system, of which one is the last: before it is taken or after, nothing else is done, not even tidying up."""

    def __init__(self, patch, last, after):
        self.last = last
        self.after = after
        self.dead = False
        for name in ("replace", "fsync", "open", "mkdir"):
            patch.setattr(os, name, self.step(getattr(os, name)))
        patch.setattr(os, "unlink", self.unless_dead(os.unlink))

    def step(self, function):
        @functools.wraps(function)
        def counted(*args, **kwargs):
            self.last -= 1
            if self.last or self.dead:
                return function(*args, **kwargs)
            if self.after:
                function(*args, **kwargs)
            self.dead = True
            raise Died

        return counted

    def unless_dead(self, function):
        return lambda *args, **kwargs: None if self.dead else function(*args, **kwargs)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", RUNS)
def test_a_run_that_dies_at_any_step_of_writing_resumes_to_the_bit(
    kind, after, finished, tmp_path, monkeypatch
):
    """The first manifest included: its temporary file refused every later call."""
    died = True
    moments = 0
    while died:
        moments += 1
        folder = tmp_path / str(moments)
        with monkeypatch.context() as patch:
            Deadline(patch, moments, after)
            try:
                RUNS[kind](folder)
                died = False
            except Died:
                pass
        assert_same(RUNS[kind](folder), finished[1][kind])
        assert all(name == MANIFEST or name.endswith(".npz") for name in os.listdir(folder))
    assert moments > 20


def here(seed="0"):
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": seed}


def kill(kind, folder, moment):
    """Run a child that kills itself; whether it did so before its end."""
    command = [sys.executable, "-m", "tests.fitting.killed", kind, str(folder), moment]
    code = subprocess.run(
        command, env=here(), cwd=Path(__file__).parents[2], check=False
    ).returncode
    assert code in (0, -9)
    return code == -9


needs_signals = pytest.mark.skipif(os.name != "posix", reason="kill -9")


@needs_signals
@pytest.mark.parametrize("moment", ["1", "4"], ids=["in the first manifest", "later"])
@pytest.mark.parametrize("kind", RUNS)
def test_a_process_killed_with_signal_9_resumes_to_the_bit(kind, moment, finished, tmp_path):
    folder = tmp_path / "run"
    assert kill(kind, folder, moment)
    assert any(npz.is_temporary(name) for name in os.listdir(folder))
    assert_same(RUNS[kind](folder), finished[1][kind])
    assert not any(name.startswith(".") for name in os.listdir(folder))


@needs_signals
@pytest.mark.thorough
@pytest.mark.parametrize("kind", RUNS)
def test_of_24_kills_at_random_moments_all_resume_to_the_bit(kind, finished, tmp_path):
    moments = np.random.default_rng(5).uniform(0.0, 5 * killed.PAUSE, 10)
    died = 0
    for number, moment in enumerate(["1", "2", *(f"{moment:.3f}s" for moment in moments)]):
        folder = tmp_path / str(number)
        died += kill(kind, folder, moment)
        assert_same(RUNS[kind](folder), finished[1][kind])
    assert died == 12


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
            env=here(), cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
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


# ---------------------------------------------------------------- damaged pieces


def piece_of(folder, kind):
    return folder / f"{PIECE[kind]}.npz"


def rewritten(change):
    """Write arrays that ``change`` made of those of a piece, with a digest that is right: what only the run itself can tell."""

    def damage(folder, kind):
        with np.load(piece_of(folder, kind)) as stored:
            arrays = [stored[f"a{i}"] for i in range(len(stored.files) - 1)]
        told = json.loads((folder / MANIFEST).read_text())
        writer = Checkpoint(folder)
        writer.identity, writer.schedule = told["identity"], told["schedule"]
        writer.save(PIECE[kind], change(arrays))

    return damage


def bare(change):
    """Write arrays as a program of the user's would, which knows of no digest."""

    def damage(folder, kind):
        with np.load(piece_of(folder, kind)) as stored:
            held = dict(stored)
        np.savez(piece_of(folder, kind), **change(held))

    return damage


def with_bytes(change):
    def damage(folder, kind):
        path = piece_of(folder, kind)
        path.write_bytes(change(path.read_bytes()))

    return damage


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def as_folder(folder, kind):
    piece_of(folder, kind).unlink()
    piece_of(folder, kind).mkdir()


def renamed(folder, kind):
    other = "first-000000.npz" if kind == "batch" else "latest.npz"
    shutil.copy(folder / other, folder / "spare.npz")
    if kind == "batch":
        shutil.copy(folder / "first-000000.npz", piece_of(folder, kind))
    else:
        change = with_bytes(lambda content: content.replace(b'"latest"', b'"lately"'))
        change(folder, kind)


def of_another_run(folder, kind):
    other = Checkpoint(folder)
    other.identity = {"procedure": "another"}
    other.save(PIECE[kind], [np.arange(3.0)])


def looped(folder, kind):
    piece_of(folder, kind).unlink()
    piece_of(folder, kind).symlink_to(piece_of(folder, kind))


def compressed(folder, kind):
    np.savez_compressed(piece_of(folder, kind), a0=np.zeros(10**6))


def vast(folder, kind):
    """A header that says 10¹² numbers."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(piece_of(folder, kind), "w") as archive:
        archive.writestr("a0.npy", buffer.getvalue() + bytes(8))


def twice(folder, kind):
    with np.load(piece_of(folder, kind)) as stored, io.BytesIO() as buffer:
        np.lib.format.write_array(buffer, stored["a0"])
        content = buffer.getvalue()
    with pytest.warns(UserWarning), zipfile.ZipFile(piece_of(folder, kind), "a") as archive:
        archive.writestr("a0.npy", content)


def replaced(place, change):
    return lambda arrays: [*arrays[:place], change(arrays[place]), *arrays[place + 1 :]]


PIECES = {
    "cut short": with_bytes(lambda content: content[: len(content) // 2]),
    "cut by one byte": with_bytes(lambda content: content[:-1]),
    "empty": with_bytes(lambda content: b""),
    "zeros": with_bytes(lambda content: bytes(len(content))),
    "text": with_bytes(lambda content: b"finished"),
    "one bit": with_bytes(flipped),
    "a pickle": with_bytes(lambda content: b"\x80\x04K\x01."),
    "twice": twice,
    "compressed": compressed,
    "vast": vast,
    "a folder": as_folder,
    "a link to itself": looped,
    "another name": renamed,
    "another run": of_another_run,
    "no digest": bare(lambda held: {k: v for k, v in held.items() if k != "about"}),
    "the first member only": bare(lambda held: held | {"a1": held["a1"][:1]}),
    "a scalar": bare(lambda held: held | {"a1": np.float64(1.0)}),
    "single precision": bare(lambda held: held | {"a1": held["a1"].astype(np.float32)}),
    "other numbers": bare(lambda held: held | {"a1": held["a1"] + 1}),
    "an array less": bare(lambda held: {k: v for k, v in held.items() if k != "a2"}),
    "an array more": bare(lambda held: held | {"b": np.zeros(3)}),
    "objects": bare(lambda held: held | {"a1": np.array([object()])}),
    "a digest of its own": bare(lambda held: held | {"about": np.frombuffer(b'{"piece": 1}', np.uint8)}),
    "signed, the first only": rewritten(replaced(1, lambda leaf: leaf[:1])),
    "signed, a scalar": rewritten(replaced(1, lambda leaf: np.zeros((), leaf.dtype))),
    "signed, single precision": rewritten(replaced(1, lambda leaf: leaf.astype(np.float32))),
    "signed, an array less": rewritten(lambda arrays: arrays[:-1]),
    "signed, an array more": rewritten(lambda arrays: [*arrays, np.zeros(2)]),
    "signed, nothing": rewritten(lambda arrays: []),
    "signed, other members": rewritten(replaced(0, lambda leaf: leaf[::-1].astype(np.float32))),
}  # fmt: skip


@pytest.mark.parametrize("damage", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("kind", RUNS)
def test_a_damaged_piece_is_one_error_that_names_folder_piece_and_remedy(kind, damage, copied):
    """Arrays of one member, scalars and float32 were broadcast into all members."""
    folder = copied[0] / kind
    damage(folder, kind)
    with pytest.raises(ValueError, match="holds a piece that cannot be used") as error:
        RUNS[kind](folder)
    message = str(error.value)
    assert type(error.value) is ValueError
    assert str(folder) in message and f"{PIECE[kind]}.npz" in message and REMEDY in message
    path = piece_of(folder, kind)
    path.rmdir() if path.is_dir() else path.unlink()
    assert_same(RUNS[kind](folder), copied[1][kind])


def test_seats_outside_of_a_piece_are_refused(copied):
    """They say which members are still open, and would gather those of another chunk."""
    folder = copied[0] / "batch"
    with np.load(folder / "first-000000.npz") as stored:
        place = next(
            i for i in range(2, len(stored.files)) if stored[f"a{i}"].dtype == np.int64 and i > 20
        )
    for change in (
        lambda s: s + 100,
        lambda s: s[::-1],
        lambda s: s.astype(float),
        lambda s: s[:1],
    ):
        rewritten(replaced(place, change))(folder, "batch")
        with pytest.raises(ValueError, match=r"first-000001\.npz.*Delete this piece"):
            killed.batch(folder)


def test_a_piece_that_may_not_be_read_is_said(copied, monkeypatch):
    read = Path.read_bytes

    def denied(self):
        if self.suffix == ".npz":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", denied)
    for kind, run in RUNS.items():
        with pytest.raises(ValueError, match=rf"\.npz: Permission denied. {REMEDY}"):
            run(copied[0] / kind)


# ---------------------------------------------------------------- damaged manifests


def _set(*keys_value):
    *keys, last, value = keys_value

    def change(content):
        told = json.loads(content)
        target = told
        for key in keys:
            target = target[key]
        target[last] = value
        return json.dumps(told).encode()

    return change


def _without(key):
    def change(content):
        told = json.loads(content)
        del told[key]
        return json.dumps(told).encode()

    return change


MANIFESTS = {
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "cut short": lambda content: content[:-20],
    "no text": lambda content: b"\xff\xfe\x00",
    "a list": lambda content: b"[1]",
    "a number": lambda content: b"3",
    "null": lambda content: b"null",
    "too deep": lambda content: b"[" * 100_000,
    "no format": _without("format"),
    "no identity": _without("identity"),
    "no schedule": _without("schedule"),
    "no digest": _without("digest"),
    "a field more": _set("more", 1),
    "a format in words": _set("format", "3"),
    "an identity in words": _set("identity", "mine"),
    "a schedule that is null": _set("schedule", None),
    "another schedule": _set("schedule", {"buckets": [], "rounds": 1}),
    "another dtype": _set("identity", "dtype", "float16"),
    "one character": lambda content: content.replace(b'"float64"', b'"float65"'),
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
@pytest.mark.parametrize("kind", RUNS)
def test_a_damaged_manifest_is_one_error_that_names_folder_and_remedy(kind, change, copied):
    folder = copied[0] / kind
    path = folder / MANIFEST
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"its {MANIFEST} is damaged") as error:
        RUNS[kind](folder)
    assert type(error.value) is ValueError
    assert str(folder) in str(error.value) and "Delete this folder" in str(error.value)


def test_a_manifest_that_is_a_folder_is_damaged(copied):
    for kind, run in RUNS.items():
        (copied[0] / kind / MANIFEST).unlink()
        (copied[0] / kind / MANIFEST).mkdir()
        with pytest.raises(ValueError, match=f"its {MANIFEST} is damaged"):
            run(copied[0] / kind)


def test_a_schedule_of_another_cut_is_damage(copied):
    """With a digest that is right, as only another program would write it."""
    folder = copied[0] / "batch"
    told = json.loads((folder / MANIFEST).read_text())
    for buckets in ([], [{}], 3, [{"lanes": 0}], told["schedule"]["buckets"] * 2):
        told["schedule"]["buckets"] = buckets
        told["digest"] = checkpoint._manifest_digest(told["identity"], told["schedule"])
        (folder / MANIFEST).write_text(json.dumps(told))
        with pytest.raises(ValueError, match=f"its {MANIFEST} is damaged"):
            killed.batch(folder)


@pytest.mark.parametrize("version", [1, 2, 4])
def test_a_folder_of_another_format_says_so(version, copied):
    for kind, run in RUNS.items():
        path = copied[0] / kind / MANIFEST
        path.write_bytes(_set("format", version)(path.read_bytes()))
        with pytest.raises(ValueError, match=f"format {version}; this version reads format 3"):
            run(copied[0] / kind)


def test_a_run_on_more_devices_than_its_blocks_says_so(copied):
    with pytest.raises(
        ValueError, match="begun on another number of devices, and 2 cannot"
    ) as error:
        killed.batch(copied[0] / "batch", devices=jax.devices()[:1] * 2)
    assert str(copied[0] / "batch") in str(error.value)


def test_a_run_of_the_other_procedure_is_refused(copied):
    for mine, theirs in (("batch", "stochastic"), ("stochastic", "batch")):
        with pytest.raises(ValueError, match="belongs to another run: its procedure"):
            RUNS[mine](copied[0] / theirs)
