"""Two small runs with a checkpoint, and a child process that runs one of them and kills itself with signal 9.

``python -m tests.fitting.killed KIND FOLDER MOMENT``: KIND is ``batch`` or ``stochastic``. A MOMENT such as ``3`` is the third time that a file
is about to get its name, one such as ``0.4s`` that long after the folder was opened; ``end`` runs to the end.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import optax

import jaxmle as jm
from jaxmle.batch.chunks import plan
from jaxmle.runtime import checkpoint, npz
from jaxmle.stochastic.stochastic import fit_stochastic
from tests.likelihoods import logit

RNG = np.random.default_rng(17)
X = np.stack([np.ones((40, 20)), RNG.normal(size=(40, 20))], axis=2)
Y = (RNG.random((40, 20)) < 0.5).astype(float)
Y[::9] = X[::9, :, 1] > 0  # separated: these members are still open when a chunk ends
ADAM = optax.adam(0.05)
PAUSE = 0.2  # seconds before each of the five or more pieces of a run that is killed by the clock


def batch(folder, loglik=logit, devices=None):
    """The leaves of forty fits in three chunks."""
    sizes = plan.CHUNK_SIZES, plan.MEMBERS_A_PIECE
    plan.CHUNK_SIZES = (16,)
    plan.MEMBERS_A_PIECE = 16
    try:
        data = {"x": X, "y": Y}
        start = {"beta": np.zeros(2)}
        fits = jm.fit_batch(loglik, start, data, checkpoint=folder, progress=False, devices=devices)
    finally:
        plan.CHUNK_SIZES, plan.MEMBERS_A_PIECE = sizes
    return [np.asarray(leaf) for leaf in jax.tree.leaves(fits)]


def stochastic(folder, loglik=logit):
    """The parameters and the path of five epochs, a quarter of the rows held out."""
    found = fit_stochastic(
        loglik, {"beta": np.zeros(2)}, {"x": X[1], "y": Y[1]}, optimizer=ADAM, batch_size=4, epochs=5, key=3, held_out=0.25, checkpoint=folder, progress=False,
    )  # fmt: skip
    return [found.params["beta"], found.path]


RUNS = {"batch": batch, "stochastic": stochastic}
PIECE = {"batch": "first-000001", "stochastic": "latest"}  # one that each of them writes
ROOT = Path(__file__).parents[2]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def here(seed="0"):
    """The environment of a child process that reads these files."""
    root = str(ROOT)
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": seed}


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def _arrange(moment):
    """Make this process kill itself at that moment."""
    if moment == "end":
        return
    if moment.endswith("s"):
        opened, save = checkpoint.Checkpoint.open, checkpoint.Checkpoint.save

        def timed(self, identity):
            threading.Timer(float(moment[:-1]), _die).start()
            opened(self, identity)

        def slowly(self, piece, arrays):
            time.sleep(PAUSE)
            save(self, piece, arrays)

        checkpoint.Checkpoint.open, checkpoint.Checkpoint.save = timed, slowly
        return
    left, replace = [int(moment)], os.replace

    def counted(old, new):
        left[0] -= 1
        if not left[0]:
            _die()
        replace(old, new)

    npz.os.replace = counted


if __name__ == "__main__":
    _arrange(sys.argv[3])
    RUNS[sys.argv[1]](sys.argv[2])
