"""Who reads the files does not change a bit; a climb that was killed goes on."""

import hashlib
import os
import signal
import subprocess
import sys
import types
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import jaxmle as jm
from jaxmle.streams import passes

from .conftest import Q, logit

START = {"beta": np.zeros(Q)}


def bits(fit):
    parts = (fit.x, fit.vcov, fit.loglik, fit.data_id)
    return hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in parts)).hexdigest()


def test_an_engine_of_threads_gives_the_same_bits(survey):
    here = jm.fit(logit, START, source=survey.source, clusters="firm")
    with ThreadPoolExecutor(2) as engine:
        there = jm.fit(logit, START, source=survey.source, clusters="firm", engine=engine)
    assert bits(here) == bits(there)


def test_an_engine_that_forks_is_refused(survey):
    with (
        ProcessPoolExecutor(1, mp_context=get_context("fork")) as engine,
        pytest.raises(ValueError, match="by fork"),
    ):
        jm.fit(logit, START, source=survey.source, engine=engine)


@pytest.mark.thorough
def test_an_engine_of_processes_gives_the_same_bits_and_says_when_it_lost_one(survey, monkeypatch):
    elsewhere = types.ModuleType("known_to_this_process_only")
    elsewhere.loglik = lambda params, data: -(params["beta"][0] ** 2) * data["y"]
    elsewhere.loglik.__module__, elsewhere.loglik.__qualname__ = elsewhere.__name__, "loglik"
    monkeypatch.setitem(sys.modules, elsewhere.__name__, elsewhere)
    model = jm.models.logistic()
    here = jm.fit(model, source=survey.source)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as engine:
        assert bits(jm.fit(model, source=survey.source, engine=engine)) == bits(here)
        with pytest.raises(ImportError, match="a worker cannot import the likelihood"):
            jm.fit(elsewhere.loglik, START, source=survey.source, engine=engine)
        pid = engine.submit(os.getpid).result()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="the engine lost a worker in the pass 'evaluate'"):
            jm.fit(model, source=survey.source, engine=engine)


# ---------------------------------------------------------------- checkpoints


class Killed(BaseException):
    """What ends a process, as far as this one can be told."""


def killed_after(monkeypatch, survey, folder, count):
    """A fit that ends when its pass number ``count`` begins."""
    run = passes.SourceRunner.run

    def counted(self, name, *args):
        if len(self.passes) == count:
            raise Killed
        return run(self, name, *args)

    monkeypatch.setattr(passes.SourceRunner, "run", counted)
    with pytest.raises(Killed):
        jm.fit(jm.models.logistic(), source=survey.source, checkpoint=folder)
    monkeypatch.setattr(passes.SourceRunner, "run", run)


def test_a_killed_climb_goes_on_from_less_than_a_kilobyte(survey, tmp_path, monkeypatch):
    folder = tmp_path / "climb"
    whole = jm.fit(jm.models.logistic(), source=survey.source)
    killed_after(monkeypatch, survey, folder, 3)
    assert (folder / "climb.npz").stat().st_size < 1000
    resumed = jm.fit(jm.models.logistic(), source=survey.source, checkpoint=folder)
    assert np.all(np.abs(resumed.x - whole.x) <= 1e-9 * whole.se)
    np.testing.assert_allclose(resumed.se, whole.se, rtol=1e-9)
    assert resumed.verdict == whole.verdict
    again = jm.fit(jm.models.logistic(), source=survey.source, checkpoint=folder)
    assert np.all(np.abs(again.x - whole.x) <= 1e-9 * whole.se)


def test_a_checkpoint_of_another_model_or_of_other_files_is_refused(survey, tmp_path):
    folder = tmp_path / "climb"
    small = {"x": [1.0, "x1"], "y": "y"}
    source = jm.parquet(survey.folder, small)
    jm.fit(jm.models.logistic(), source=source, checkpoint=folder)
    with pytest.raises(ValueError, match="differs in its model"):
        jm.fit(jm.models.probit(), source=source, checkpoint=folder)
    fewer = jm.parquet(sorted(Path(survey.folder).glob("*.parquet"))[:2], small)
    with pytest.raises(ValueError, match="differs in its list of files"):
        jm.fit(jm.models.logistic(), source=fewer, checkpoint=folder)


CHILD = """
import sys, jaxmle as jm
from jaxmle.streams import passes
run = passes.SourceRunner.run
def told(self, name, *args):
    found = run(self, name, *args)
    print(name, flush=True)
    sys.stdin.readline()
    return found
passes.SourceRunner.run = told
source = jm.parquet(sys.argv[1], {"x": [1.0, *(f"x{j}" for j in range(1, 12))], "y": "y"})
jm.fit(jm.models.logistic(), source=source, checkpoint=sys.argv[2])
"""


@pytest.mark.thorough
def test_a_process_that_is_killed_in_its_third_pass_leaves_a_folder_to_go_on_from(survey, tmp_path):
    folder = tmp_path / "climb"
    environment = os.environ | {"PYTHONPATH": str(Path(jm.__file__).parents[1])}
    command = [sys.executable, "-c", CHILD, str(survey.folder), str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        for _ in range(2):
            assert child.stdout.readline() == "evaluate\n"
            child.stdin.write("\n")
            child.stdin.flush()
        child.send_signal(signal.SIGKILL)
    whole = jm.fit(jm.models.logistic(), source=survey.source)
    resumed = jm.fit(jm.models.logistic(), source=survey.source, checkpoint=folder)
    assert np.all(np.abs(resumed.x - whole.x) <= 1e-9 * whole.se)
