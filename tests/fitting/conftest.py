"""Finished runs with a checkpoint, for the tests that damage them."""

import shutil

import pytest

from .killed import RUNS, assert_same


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
