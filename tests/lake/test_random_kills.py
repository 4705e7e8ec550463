"""A driver of a lake may be killed at any moment: what it leaves is whole, and the same call ends with the same bits."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.lake.lakes import write_lake

ROOT = Path(__file__).parents[2]
FILES, KILLS = 60, 20
LONGEST = 0.15  # seconds from a first new file to a kill, in which several more are written
CALL = "import sys; from tests.lake.lakes import fit; fit(sys.argv[1], sys.argv[2])"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9")


def driver(lake, out):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.Popen([sys.executable, "-c", CALL, str(lake), str(out)], env=environment)


def digests(out):
    return {path.name: hashlib.sha256(path.read_bytes()).digest() for path in out.glob("*.parquet")}


def kill_after(process, seconds, out):
    """Kill −9 so long after the first file that was not there before; whether it still ran."""
    before = len(list(out.glob("*.parquet")))
    while process.poll() is None and len(list(out.glob("*.parquet"))) == before:
        time.sleep(0.002)
    time.sleep(seconds)
    process.kill()
    return process.wait() == -9


@pytest.mark.thorough
def test_after_20_kills_at_random_moments_every_file_has_the_bits_of_an_undisturbed_run(tmp_path):
    lake = write_lake(tmp_path / "lake", files=FILES)
    whole = tmp_path / "undisturbed"
    assert driver(lake, whole).wait() == 0
    wanted = digests(whole)
    killed = 0
    for number, seconds in enumerate(np.random.default_rng(1).uniform(0.0, LONGEST, KILLS)):
        out = tmp_path / str(number // 5)  # five drivers in turn go on from each other
        killed += kill_after(driver(lake, out), seconds, out)
        found = digests(out)
        assert found and found.items() <= wanted.items()
        assert all(pq.read_table(out / name).num_rows for name in found)
    assert killed >= KILLS - 4  # a folder may be complete before
    for folder in {str(number // 5) for number in range(KILLS)}:
        assert driver(lake, tmp_path / folder).wait() == 0
        assert digests(tmp_path / folder) == wanted
        assert not [path for path in (tmp_path / folder).iterdir() if path.name.startswith(".")]
