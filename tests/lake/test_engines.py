"""Engines: pools are used as they come, and a killed worker or caller costs nothing but its file."""

import functools
import multiprocessing
import multiprocessing.pool
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from jaxmle.lake.request import Request
from jaxmle.workers.payload import packed, unpacked
from tests.lake.lakes import Slow, exponential, fit, same_bits, write_lake

ROOT = Path(__file__).parents[2]
SPAWN = multiprocessing.get_context("spawn")
WAIT = 0.3  # seconds that each group of a slow lake takes


@functools.cache
def wanted(folder):
    """The fits of one process that nobody disturbs."""
    return fit(folder, folder.with_name("undisturbed"), model=Slow(0.0)).to_table()


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return write_lake(tmp_path_factory.mktemp("engines") / "lake", files=8, groups=2)


class Pickling(Executor):
    """An engine in this process that sends what it is given through pickle, as others do."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(pickle.loads(pickle.dumps(fn(*pickle.loads(pickle.dumps(args))))))
        return future


def test_a_closure_that_arrives_with_each_of_eight_files_is_one_function(lake, tmp_path):
    """What is compiled is kept on the function, so eight copies would compile eight times."""
    shift = np.float64(0.0)

    def shifted(params, data):
        return exponential(params, data) + shift

    unpacked.cache_clear()
    fits = fit(lake, tmp_path / "fits", model=shifted, engine=Pickling(), params0={"rate": 1.0})
    assert same_bits(fits.to_table(), wanted(lake))
    assert unpacked.cache_info().misses == 1
    assert unpacked.cache_info().hits == 7


def test_threads_take_the_model_as_it_is(lake, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        fits = fit(lake, tmp_path / "fits", engine=pool, cache=tmp_path / "cache")
    assert same_bits(fits.to_table(), wanted(lake))


def test_a_pool_that_forks_is_refused_by_name():
    """A forked copy of a process that has used jax hangs in its first fit."""
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool,
        pytest.raises(ValueError, match=r"ProcessPoolExecutor .* by fork.*get_context\('spawn'\)"),
    ):
        fit("anything", "anywhere", engine=pool)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (multiprocessing.pool.ThreadPool, r"ProcessPoolExecutor\(mp_context="),
        (lambda _: multiprocessing, r"ProcessPoolExecutor\(mp_context="),
        (lambda _: "dask", "must be a concurrent.futures.Executor"),
    ],
)
def test_what_is_no_executor_is_refused_with_what_makes_one(engine, words):
    made = engine(1)
    with pytest.raises(TypeError, match=words):
        fit("anything", "anywhere", engine=made)
    if hasattr(made, "terminate"):
        made.terminate()
        made.join()


def test_what_cannot_be_sent_to_workers_is_refused():
    lock = threading.Lock()

    def locked(params, data):
        return exponential(params, data) + (lock is None)

    with pytest.raises(TypeError, match="something it closes over cannot be pickled"):
        packed((locked, Request("store")), [locked])


# ---------------------------------------------------------------- kill -9


def outputs(out):
    return sorted(out.glob("*.parquet"))


def wait_for(holds, seconds=300.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.02)


def test_a_killed_worker_of_a_pool_is_one_error_and_the_same_call_goes_on(lake, tmp_path):
    """The pool is broken then, as concurrent.futures has it; files that were finished stay, and fits have the same bits."""
    out = tmp_path / "fits"
    with ProcessPoolExecutor(2, mp_context=SPAWN) as pool:
        killer = threading.Thread(target=kill_a_worker, args=(pool, out))
        killer.start()
        with pytest.raises(RuntimeError, match=r"a worker of the engine died .* saved in"):
            fit(lake, out, model=Slow(WAIT), engine=pool)
        killer.join()
    finished = len(outputs(out))
    assert 1 <= finished < 8
    again = fit(lake, out, model=Slow(WAIT))
    assert again.skipped >= finished
    assert same_bits(again.to_table(), wanted(lake))


def kill_a_worker(pool, out):
    wait_for(lambda: outputs(out))
    os.kill(next(iter(pool._processes)), signal.SIGKILL)


CALL = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from tests.lake.lakes import Slow, fit
if __name__ == "__main__":
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        fit(sys.argv[1], sys.argv[2], model=Slow(float(sys.argv[3])), engine=pool)
"""


@pytest.mark.thorough
def test_a_killed_caller_leaves_no_process_and_no_half_written_file(lake, tmp_path):
    """No orphan after 5 s; every file of fits is whole; the same call ends with the same bits."""
    script = tmp_path / "call.py"
    script.write_text(CALL)
    out = tmp_path / "fits"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, str(script), str(lake), str(out), str(WAIT)]
    caller = subprocess.Popen(command, env=environment)
    try:
        wait_for(lambda: outputs(out) or caller.poll() is not None)
        workers = psutil.Process(caller.pid).children(recursive=True)
    finally:
        caller.kill()
        caller.wait()
    wait_for(lambda: not any(alive(worker) for worker in workers), seconds=5.0)
    assert len(workers) >= 2
    finished = outputs(out)
    assert 1 <= len(finished) < 8
    assert all(pq.read_table(path).num_rows == 2 for path in finished)
    again = fit(lake, out, model=Slow(WAIT))
    assert again.skipped == len(finished)
    assert same_bits(again.to_table(), wanted(lake))


def alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
