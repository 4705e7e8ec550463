"""Two processes of jax.distributed, over gloo: the same numbers in both, and an end where one is lost."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import jaxmle as jm

from .two_processes import COUNTS, FIRM, START, X

SCRIPT = Path(__file__).parent / "two_processes.py"
SECONDS_TO_END = 5.0  # that a process takes after another one is gone; seen 0.1
TOLERANCE = 1e-12  # sums in another order


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(folder, *killed):
    """Both processes to their ends: exit codes, what they printed, what they said, and the seconds from one end to the other."""
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, *map(str, (rank, port, folder, *killed))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    ends = {}
    while len(ends) < 2:
        time.sleep(0.02)
        ends |= {
            p.pid: time.monotonic() for p in processes if p.pid not in ends and p.poll() is not None
        }
    said = [process.communicate(timeout=60) for process in processes]
    first, second = (ends[process.pid] for process in processes)
    return [p.returncode for p in processes], *zip(*said, strict=True), abs(first - second)


def printed(outputs):
    return [json.loads(output.splitlines()[-1]) for output in outputs]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    codes, outputs, errors, _ = run(tmp_path_factory.mktemp("whole"))
    assert codes == [0, 0], errors
    return printed(outputs)


def test_two_processes_find_the_same_bits_and_the_fit_of_all_rows(both):
    first, second = both
    assert first["devices"] == 2
    for name in ("x", "se", "n", "steps", "verdict", "evaluation", "clustered"):
        assert first[name] == second[name]
    data = {"x": X, "y": COUNTS}
    alone = jm.fit(jm.models.poisson(), START, data)
    off = (np.array(first["x"]) - alone.x) / alone.se
    assert np.max(np.abs(off)) < TOLERANCE
    assert first["verdict"] == alone.verdict.name and first["n"] == alone.n
    np.testing.assert_allclose(first["se"], alone.se, rtol=TOLERANCE)
    clustered = jm.fit(jm.models.poisson(), START, data, clusters=FIRM)
    np.testing.assert_allclose(first["clustered"], clustered.se, rtol=TOLERANCE)


def test_a_mistake_in_the_rows_of_one_process_is_an_error_in_both(both):
    """One that raised alone would leave the other waiting."""
    mine, other = both[1], both[0]
    assert other["one process's mistake"] == "process 1: " + mine["one process's mistake"]
    assert "data['y'] is -1 in row 5;" in mine["one process's mistake"]
    assert other["NaN"] == f"process 1: {mine['NaN']}" and "NaN in row 1" in mine["NaN"]
    assert "distributed.rows" in mine["beside"] and "distributed.rows" in other["beside"]
    assert "is spread over several processes" in mine["in a batch"]


def test_a_lost_process_ends_the_other_with_one_error_and_a_restart_gives_the_same_bits(
    both, tmp_path
):
    folder = tmp_path / "climb"
    codes, _, errors, seconds = run(folder, 1, 3)  # the second one at its third step
    assert codes == [75, -signal.SIGKILL]
    assert seconds < SECONDS_TO_END
    assert errors[0].count("PeerLostError: process 0 of 2 lost another one") == 1
    assert sum(file.stat().st_size for file in folder.glob("*.npz")) < 1024
    codes, outputs, errors, _ = run(folder)
    assert codes == [0, 0], errors
    again = printed(outputs)
    assert again[0]["x"] == again[1]["x"]
    se = np.array(both[0]["se"])
    assert np.max(np.abs(np.subtract(again[0]["x"], both[0]["x"])) / se) < TOLERANCE


@pytest.mark.thorough
def test_where_the_first_process_is_lost_the_other_ends_too(tmp_path):
    """It is the coordinator of jax.distributed, whose loss may abort the others before they can say anything."""
    codes, _, _, seconds = run(tmp_path / "climb", 0, 3)
    assert codes[0] == -signal.SIGKILL and codes[1] in (75, -signal.SIGABRT)
    assert seconds < SECONDS_TO_END
