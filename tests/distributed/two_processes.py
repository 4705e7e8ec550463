"""One of two processes of jax.distributed that fit their rows together; run as a script, prints what it finds as JSON.

python two_processes.py RANK PORT CHECKPOINT [killed rank] [at which landmark]
"""

import json
import os
import signal
import sys

import jax
import numpy as np

import jaxmle as jm
from jaxmle.distributed import fit as distributed_fit
from jaxmle.streams import landmarks

RANK = int(sys.argv[1]) if __name__ == "__main__" else 0
N, Q = 6_001, 4
RNG = np.random.default_rng(5)
X = np.column_stack([np.ones(N), RNG.normal(size=(N, Q - 1))])
COUNTS = RNG.poisson(np.exp(0.4 * X @ np.linspace(-0.5, 0.5, Q)))
FIRM = RNG.integers(0, 40, N)
CUT = 2_500  # rows of the first process
MINE = slice(0, CUT) if RANK == 0 else slice(CUT, N)
START = {"beta": np.full(Q, 1.5)}  # far off, so that a climb takes several steps


def killed_at(landmark):
    """The counterpart of ``landmarks.keeper`` that ends this process at the n-th landmark."""
    seen = []

    def keeper(store, before):
        keep = landmarks.keeper(store, before)

        def kept(point):
            if keep is not None:
                keep(point)
            seen.append(point)
            if len(seen) == landmark:
                os.kill(os.getpid(), signal.SIGKILL)

        return kept

    return keeper


def error(call):
    try:
        call()
    except (TypeError, ValueError) as refusal:
        return str(refusal)
    return "no error"


def main():
    jax.distributed.initialize(
        f"127.0.0.1:{sys.argv[2]}", num_processes=2, process_id=RANK, initialization_timeout=60
    )
    if sys.argv[4:] and RANK == int(sys.argv[4]):
        distributed_fit.keeper = killed_at(int(sys.argv[5]))
    data = {"x": X[MINE], "y": COUNTS[MINE]}
    rows = jm.distributed.rows(data)
    fit = jm.fit(jm.models.poisson(), START, rows, checkpoint=sys.argv[3])
    found = {"x": fit.x.tolist(), "se": fit.se.tolist(), "n": float(fit.n), "steps": int(fit.steps)}
    found |= {
        "evaluation": fit.evaluation,
        "verdict": fit.verdict.name,
        "devices": len(jax.devices()),
    }
    if not sys.argv[4:]:
        grouped = jm.distributed.rows(data, clusters=FIRM[MINE])
        found["clustered"] = jm.fit(jm.models.poisson(), START, grouped).se.tolist()
        bad = data | {"y": np.where(np.arange(len(data["y"])) == 5, -1 if RANK else 1, data["y"])}
        found["one process's mistake"] = error(
            lambda: jm.fit(jm.models.poisson(), START, jm.distributed.rows(bad))
        )
        found["NaN"] = error(
            lambda: jm.distributed.rows({"y": np.array([1.0, np.nan if RANK else 2])})
        )
        found["beside"] = error(
            lambda: jm.fit(jm.models.poisson(), START, {"x": rows.data["x"], "y": data["y"]})
        )
        found["in a batch"] = error(lambda: jm.fit_batch(jm.models.poisson(), START, rows.data))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
