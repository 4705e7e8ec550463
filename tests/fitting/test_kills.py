"""A run that dies at any moment goes on from its checkpoint to the same bits."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxmle.runtime import npz
from jaxmle.runtime.checkpoint import MANIFEST

from . import killed
from .killed import ROOT, RUNS, assert_same, here

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


def kill(kind, folder, moment):
    """Run a child that kills itself; whether it did so before its end."""
    command = [sys.executable, "-m", "tests.fitting.killed", kind, str(folder), moment]
    code = subprocess.run(command, env=here(), cwd=ROOT, check=False).returncode
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
