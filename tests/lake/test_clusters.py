"""Ray and Dask on two local workers: killed ones cost nothing, and fits have the bits of one process.

They run where the packages are installed: pip install "jaxmle[ray,dask]".
"""

import os
import signal
import sys
import threading
import time

import psutil
import pytest

import jaxmle as jm
from tests.lake.lakes import Slow, fit, same_bits, write_lake

# Both libraries leave sockets and warnings of their own behind.
pytestmark = pytest.mark.filterwarnings("default")
WAIT = 0.3  # seconds that each group takes: there is a moment in which to kill


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return write_lake(tmp_path_factory.mktemp("clusters") / "lake", files=8, groups=2)


@pytest.fixture(scope="module")
def wanted(lake):
    return fit(lake, lake.with_name("undisturbed"), model=Slow(0.0)).to_table()


def kill_soon(pids, out):
    """Kill −9 one of the processes once there are fits."""

    def kill():
        end = time.monotonic() + 300.0
        while not list(out.glob("*.parquet")) and time.monotonic() < end:
            time.sleep(0.02)
        KILLED.append(pids()[0])
        os.kill(KILLED[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    return killer


KILLED = []


def test_dask_survives_a_killed_worker(lake, wanted, tmp_path):
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "fits"
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1",
        local_directory=tmp_path / "dask",
    )  # fmt: skip
    with cluster, distributed.Client(cluster) as client:
        with pytest.raises(TypeError, match=r"such as client.get_executor\(retries=3\)"):
            fit(lake, out, engine=client)
        killer = kill_soon(lambda: list(client.run(os.getpid).values()), out)
        fits = fit(lake, out, model=Slow(WAIT), engine=client.get_executor(retries=3))
        killer.join()
    assert KILLED and (fits.fitted, fits.groups) == (8, 16)
    assert same_bits(fits.to_table(), wanted)


def test_ray_survives_a_killed_worker(lake, wanted, tmp_path):
    ray = pytest.importorskip("ray")
    with pytest.raises(RuntimeError, match="Ray is not initialised"):
        jm.engines.ray()
    out = tmp_path / "fits"
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=2**27, logging_level="ERROR")
    try:
        killer = kill_soon(workers_of_ray, out)
        fits = fit(lake, out, model=Slow(WAIT), engine=jm.engines.ray(num_cpus=1))
        killer.join()
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    assert KILLED and (fits.fitted, fits.groups) == (8, 16)
    assert same_bits(fits.to_table(), wanted)


def workers_of_ray():
    """Our descendants that run a task of ours: Ray gives them its name."""
    return [
        process.pid
        for process in psutil.Process().children(recursive=True)
        if "".join(process.cmdline()[:1]).startswith("ray::_call")
    ]


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "jaxmle\[ray\]"'):
        jm.engines.ray()
