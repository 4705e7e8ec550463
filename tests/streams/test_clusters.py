"""A pass of a stream over Ray or Dask: a worker that is killed in the middle of one changes no bit.

They run where the packages are installed: pip install "jaxmle[ray,dask]".
"""

import os
import signal
import threading
import time
from concurrent.futures import Executor

import pytest

import jaxmle as jm
from tests.lake.test_clusters import workers_of_ray

from .test_engines import bits

# Both libraries leave sockets and warnings of their own behind.
pytestmark = pytest.mark.filterwarnings("default")
WAIT = 0.5  # seconds that a file takes in the pass of the kill


def later(seconds, function, *args):
    time.sleep(seconds)
    return function(*args)


class KillsInPass(Executor):
    """An executor that hands work on; in its third pass files take a while, and a worker is killed."""

    def __init__(self, engine, workers):
        self.engine = engine
        self.workers = workers
        self.killed = []
        self.passes = 0

    def submit(self, function, /, *args, **given):
        return self.engine.submit(function, *args, **given)

    def map(self, function, *columns, timeout=None, chunksize=1):
        self.passes += 1
        if self.passes != 3:
            return self.engine.map(function, *columns)
        threading.Thread(target=self.kill).start()
        calls = list(zip(*columns, strict=True))
        waits, functions = [WAIT] * len(calls), [function] * len(calls)
        return self.engine.map(later, waits, functions, *zip(*calls, strict=True))

    def kill(self):
        while not self.workers():
            time.sleep(0.02)
        self.killed.append(self.workers()[0])
        os.kill(self.killed[-1], signal.SIGKILL)


def fit(survey, engine=None):
    return jm.fit(jm.models.logistic(), source=survey.source, engine=engine)


def test_dask_with_a_worker_killed_in_a_pass_gives_the_same_bits(survey, tmp_path):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1",
        local_directory=tmp_path / "dask",
    )  # fmt: skip
    with cluster, distributed.Client(cluster) as client:
        executor = client.get_executor(retries=3)
        engine = KillsInPass(executor, lambda: list(client.run(os.getpid).values()))
        there = fit(survey, engine)
    assert len(engine.killed) == 1 and engine.passes > 3
    assert bits(there) == bits(fit(survey))


def test_ray_with_a_worker_killed_in_a_pass_gives_the_same_bits(survey):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=2**27, logging_level="ERROR")
    try:
        engine = KillsInPass(jm.engines.ray(num_cpus=1), workers_of_ray)
        there = fit(survey, engine)
    finally:
        ray.shutdown()
    assert len(engine.killed) == 1 and engine.passes > 3
    assert bits(there) == bits(fit(survey))
