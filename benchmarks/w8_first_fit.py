"""W8: the first fit after ``import jax`` (logistic, n = 1000, p = 5), the import itself, and memory; each in a fresh process.

    python benchmarks/w8_first_fit.py [repetitions]

Seconds are those of the one core that each process is pinned to; "clock" is beside them, and is longer where the machine is shared.
Cold means an empty compilation cache; warm means the directory that an earlier process filled.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yardstick

N, P = 1000, 5
MODES = ("opaque", "declared", "opaque, vmapped", "statsmodels")
IMPORT_MUST, IMPORT_AMBITION = 0.5, 0.15
COLD_MUST, WARM_MUST = 0.5, 0.2


# ---------------------------------------------------------------- in the fresh process


def child(mode: str) -> dict[str, float]:
    """Seconds of each stage and the memory after it."""
    if mode == "statsmodels":
        return _statsmodels()
    import jax
    import numpy as np

    told = {"memory before, MB": _memory()}
    start = time.process_time()
    import jaxmle as jm

    told |= {"import": time.process_time() - start, "memory after import, MB": _memory()}
    x, y = _data(np)
    start = time.process_time()
    jax.devices()
    told["start of XLA"] = time.process_time() - start
    return told | _stages(_fitter(jm, jax, mode, {"x": x, "y": y}))


def _fitter(jm: Any, jax: Any, mode: str, data: dict) -> Callable[[], Any]:
    start = {"beta": jax.numpy.zeros(P)}

    def opaque(params: dict, data: dict) -> Any:
        eta = data["x"] @ params["beta"]
        return data["y"] * eta - jax.nn.softplus(eta)

    if mode == "opaque":
        return lambda: jm.fit(opaque, start, data)
    if mode == "declared":
        form = jm.regression(
            lambda eta, row: row["y"] * eta["mu"] - jax.nn.softplus(eta["mu"]),
            eta={"mu": jm.linear("x", "beta")},
        )
        return lambda: jm.fit(form, start, data)
    program = jax.jit(jax.vmap(lambda member: jm.fit(opaque, {"beta": jax.numpy.zeros(P)}, member)))

    def batch_of_one() -> Any:
        with jax.enable_x64(True):
            return jax.block_until_ready(program({"x": data["x"][None], "y": data["y"][None]}))

    return batch_of_one


def _statsmodels() -> dict[str, float]:
    import numpy as np

    told = {"memory before, MB": _memory()}
    start = time.process_time()
    import statsmodels.api as sm

    told |= {"import": time.process_time() - start, "memory after import, MB": _memory()}
    x, y = _data(np)
    return told | _stages(lambda: sm.Logit(y, x).fit(disp=0).bse)


def _stages(fit: Callable[[], Any]) -> dict[str, float]:
    clock, seconds = time.perf_counter(), []
    for _ in range(6):
        start = time.process_time()
        fit()
        seconds.append(time.process_time() - start)
        clock = time.perf_counter() - clock if len(seconds) == 1 else clock
    return {
        "first fit": seconds[0],
        "first, clock": clock,
        "later fit": statistics.median(seconds[1:]),
        "peak memory, MB": _memory(),
    }


def _data(np: Any) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, P))
    x[:, 0] = 1.0
    return x, (rng.random(N) < 1 / (1 + np.exp(-(x @ np.linspace(-0.5, 0.5, P))))).astype(float)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ---------------------------------------------------------------- the table


def spawn(mode: str, cache: str | None) -> dict[str, float]:
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))
    }
    if cache is not None:
        env |= {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    done = subprocess.run(
        [sys.executable, Path(__file__).resolve(), "child", mode],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def contest(mode: str, repetitions: int) -> dict[str, dict[str, float]]:
    """Medians without a cache and, for jax, with a filled one."""
    if mode == "statsmodels":
        return {"": medians([spawn(mode, None) for _ in range(repetitions)])}
    with tempfile.TemporaryDirectory() as cache:
        spawn(mode, cache)
        return {
            "cold": medians([spawn(mode, None) for _ in range(repetitions)]),
            "warm": medians([spawn(mode, cache) for _ in range(repetitions)]),
        }


def main(repetitions: int) -> None:
    print(yardstick.versions("jax", "optax", "numpy", "statsmodels"), flush=True)
    print(
        f"\n### W8: first logistic fit in a fresh process, n = {N}, p = {P}\n\nMedian of {repetitions} processes. Load average {os.getloadavg()[0]:.1f} before",
        end="",
    )
    results = {
        (mode, state): told for mode in MODES for state, told in contest(mode, repetitions).items()
    }
    print(f", {os.getloadavg()[0]:.1f} after.\n")
    stages = ["import", "start of XLA", "first fit", "first, clock", "later fit"]
    memory = ["memory before, MB", "memory after import, MB", "peak memory, MB"]
    rows = []
    for (mode, state), told in results.items():
        name = mode if mode == "statsmodels" else f"jaxmle {mode}, {state}"
        rows.append(
            [
                name,
                *(f"{told[k]:.4f}" if k in told else "" for k in stages),
                *(f"{told[k]:.0f}" for k in memory),
            ]
        )
    print(yardstick.table(["seconds", *stages, *memory], rows))
    print("\n" + yardstick.table(["", "seconds", "must ≤", "ambition ≤", ""], verdicts(results)))


def verdicts(results: dict[tuple[str, str], dict[str, float]]) -> list[list[str]]:
    rows = []
    for mode in ("opaque", "declared"):
        for state, must in (("cold", COLD_MUST), ("warm", WARM_MUST)):
            seconds = results[mode, state]["first fit"]
            rows.append(
                [
                    f"first fit, {mode}, {state}",
                    f"{seconds:.3f}",
                    f"{must:g}",
                    "",
                    "reached" if seconds <= must else "**not reached**",
                ]
            )
    seconds = results["opaque", "cold"]["import"]
    held = yardstick.Target("", "", IMPORT_MUST, IMPORT_AMBITION).verdict(seconds)
    rows.append(
        [
            "import of jaxmle beyond jax and optax",
            f"{seconds:.3f}",
            f"{IMPORT_MUST:g}",
            f"{IMPORT_AMBITION:g}",
            held,
        ]
    )
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(child(sys.argv[2])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
