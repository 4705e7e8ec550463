"""Two checkouts of jaxmle in turns: the workloads W1 to W5, W9 and small repeated fits, ratio by ratio.

    python benchmarks/before_after.py path/to/old/checkout [rounds] [workload ...]

Each checkout runs in a process of its own, pinned to the same core, and waits while the other works; a ratio compares two calls that
stand next to each other in time, so a machine whose clock drifts moves both. The first call of each workload, which compiles, is left out.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
ROUNDS = 7


# ---------------------------------------------------------------- in a child process


def workloads() -> dict[str, Callable[[], Callable[[], Any]]]:
    """From a name to a function that prepares its data and returns the call to time."""
    import jax.numpy as jnp
    import numpy as np
    import w1_one_big_logistic as w1
    import w2_many_logistic as w2
    import w3_peaks as w3
    import w4_user_written as w4
    import w5_bootstrap as w5
    import w9_ragged as w9

    import jaxmle as jm

    def big(n: int, p: int, loglik: Any) -> Callable[[], Any]:
        x, y = w1.simulate(n, p)
        return lambda: jm.fit(loglik, {"beta": np.zeros(p)}, {"x": x, "y": y}, progress=False)

    def many(loglik: Any) -> Callable[[], Any]:
        x, y = w2.simulate(10_000)
        start, data = {"beta": np.zeros(w2.P)}, {"x": x, "y": y}
        return lambda: jm.fit_batch(loglik, start, data, progress=False)

    def peaks(side: int) -> Callable[[], Any]:
        data = w3.simulate(20_000, side)
        start = w3.starts(data)
        bounds = dict.fromkeys(("amplitude", "sigma", "background"), jm.positive)
        axes = {"i": None, "j": None, "counts": 0}
        return lambda: jm.fit_batch(
            w3.declared, start, data, constraints=bounds, in_axes=axes, progress=False
        )

    def user_written(make: Any) -> Callable[[], Any]:
        rng = np.random.default_rng(0)
        x = np.column_stack([np.ones(5000), rng.normal(size=(5000, 3))])
        runs = w4.ours(make(x, rng))
        return lambda: [run() for run in runs.values()]

    def replicates() -> Callable[[], Any]:
        data = w5.simulate()
        fit = jm.fit(w5.declared, {"beta": np.zeros(w5.P)}, data)
        return lambda: jm.bootstrap(
            w5.declared, fit, data, key=1, replicates=10_000, progress=False, acceleration=None
        )

    def ragged() -> Callable[[], Any]:
        sets = w9.groups(2000)
        p = sets[0]["x"].shape[1]
        return lambda: jm.fit_batch(w9.logit, {"beta": np.zeros(p)}, sets, progress=False)

    def small(p: int, n: int) -> Callable[[], Any]:
        x, y = w1.simulate(n, p)

        def loglik(params: Any, data: Any) -> Any:
            eta = data["x"] @ params["beta"]
            return data["y"] * eta - jnp.logaddexp(0.0, eta)

        start, data = {"beta": np.zeros(p)}, {"x": x, "y": y}
        return lambda: [jm.fit(loglik, start, data) for _ in range(100)]

    return {
        "W1 declared 1e6 x 20": lambda: big(1_000_000, 20, w1.swift),
        "W1 opaque 2e5 x 20": lambda: big(200_000, 20, w1.opaque),
        "W2 declared": lambda: many(w2.swift),
        "W2 opaque": lambda: many(w2.opaque),
        "W3 5 x 5": lambda: peaks(5),
        "W3 9 x 9": lambda: peaks(9),
        "W4 Weibull": lambda: user_written(w4.weibull),
        "W4 zero-inflated": lambda: user_written(w4.inflated_poisson),
        "W5": replicates,
        "W8 small fit again, 300 x 5": lambda: small(5, 300),
        "W8 small fit again, 200 x 10": lambda: small(10, 200),
        "W9 ragged": ragged,
    }


def child() -> None:
    """Reads names of workloads, writes seconds of the processor."""
    known, ready = workloads(), {}
    for line in sys.stdin:
        name = line.strip()
        if name not in ready:
            ready[name] = known[name]()
            ready[name]()
            ready[name]()
        start = time.process_time()
        ready[name]()
        print(f"seconds {time.process_time() - start}", flush=True)


# ---------------------------------------------------------------- the contest


def spawn(checkout: Path) -> subprocess.Popen[str]:
    """A child that imports jaxmle and the benchmarks of this checkout."""
    path = os.pathsep.join([str(checkout), str(HERE / "benchmarks")])
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, __file__, "--child"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def seconds(process: subprocess.Popen[str], name: str) -> float:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(name + "\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("seconds "):
            return float(line.split()[1])
    raise RuntimeError(f"the process that runs {name!r} ended")


def main(old: Path, rounds: int, chosen: list[str]) -> None:
    names = [
        "W1 declared 1e6 x 20", "W1 opaque 2e5 x 20", "W2 declared", "W2 opaque", "W3 5 x 5", "W3 9 x 9", "W4 Weibull",
        "W4 zero-inflated", "W5", "W8 small fit again, 300 x 5", "W8 small fit again, 200 x 10", "W9 ragged",
    ]  # fmt: skip
    for name in names:
        if chosen and not any(name.startswith(prefix) for prefix in chosen):
            continue
        processes = {"old": spawn(old), "new": spawn(HERE)}  # of this workload alone: no leftovers
        took: dict[str, list[float]] = {"old": [], "new": []}
        for turn in range(rounds):
            order = ("old", "new") if turn % 2 else ("new", "old")
            for which in order:
                took[which].append(seconds(processes[which], name))
        for process in processes.values():
            process.kill()
        ratios = sorted(new / old for new, old in zip(took["new"], took["old"], strict=True))
        print(
            f"{name:<30} old {statistics.median(took['old']):8.4f} s, new {statistics.median(took['new']):8.4f} s, "
            f"ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["--child"]:
        import yardstick  # noqa: F401  (pins)

        child()
    elif len(sys.argv) < 2:
        sys.exit(__doc__)
    else:
        turns = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
        main(Path(sys.argv[1]).resolve(), turns, sys.argv[3:])
