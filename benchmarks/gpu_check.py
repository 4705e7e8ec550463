"""What one GPU should be asked, in nine minutes at most: is it right, how fast is it, where does the time go?

    python benchmarks/gpu_check.py [--small] [--only ABC…] > gpu.jsonl
    python benchmarks/gpu_check.py --table gpu.jsonl      # the lines as a table for RESULTS.md

Each part is timed and caught on its own, and begins only if the time that it may take is left; its lines are flushed as they come, so that a run that is cut short still
tells what came before. ``--small`` divides the sizes by twenty, for a machine without a GPU, on which the parts were run.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 540.0  # that all parts may take together
SECONDS_OF = {"A": 60, "B": 120, "C": 120, "D": 60, "E": 60, "F": 60, "G": 30}
CACHE = Path(tempfile.gettempdir()) / "jaxmle-gpu-check"


def show(part: str, **facts: Any) -> None:
    print(json.dumps({"part": part, **facts}), flush=True)


def timed(call: Any, times: int = 2) -> tuple[Any, float, float]:
    """The result, the seconds of the first call and those of the fastest of the others."""
    began = time.perf_counter()
    result = call()
    cold = time.perf_counter() - began
    warm = []
    for _ in range(times):
        began = time.perf_counter()
        result = call()
        warm.append(time.perf_counter() - began)
    return result, round(cold, 3), round(min(warm), 4)


def distance(batch: Any, reference: Any) -> dict[str, Any]:
    """The largest difference in standard errors among members that converge in both, and how many verdicts differ."""
    both = np.asarray(batch.converged) & np.asarray(reference.converged)
    moved = np.abs(batch.x[both] - reference.x[both]) / reference.se[both]
    differ = int(np.sum(np.asarray(batch.status) != np.asarray(reference.status)))
    largest = float(moved.max(initial=0.0))
    return {"max_se": largest, "verdicts_differ": differ, "converged": int(both.sum())}


def logistic(members: int, rows: int, q: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(members, rows, q))
    x[..., 0] = 1.0
    probability = 1 / (1 + np.exp(-x @ np.linspace(-0.5, 0.5, q)))
    return {"x": x, "y": (rng.random((members, rows)) < probability).astype(float)}


def peaks(members: int, side: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    axis = np.arange(side) - (side - 1) / 2
    across, along = (np.tile(g.ravel(), (members, 1)) for g in np.meshgrid(axis, axis))
    x, y = rng.normal(0, 0.3, (2, members, 1))
    height = rng.uniform(100, 500, (members, 1))
    mean = 5 + height * np.exp(-0.5 * ((across - x) ** 2 + (along - y) ** 2) / 1.2**2)
    return {"across": across, "along": along, "count": rng.poisson(mean).astype(float)}


def peak(params: Any, data: Any) -> Any:
    import jax.numpy as jnp

    square = (data["across"] - params["x"]) ** 2 + (data["along"] - params["y"]) ** 2
    mean = params["level"] + params["height"] * jnp.exp(-0.5 * square / params["width"] ** 2)
    return data["count"] * jnp.log(mean) - mean


PEAK_START = {"level": 4.0, "height": 200.0, "x": 0.0, "y": 0.0, "width": 1.0}


class Checks:
    """The parts, each a method of one letter."""

    def __init__(self, shrink: int) -> None:
        import jax

        import jaxmle as jm

        self.jax = jax
        self.jm = jm
        self.shrink = shrink
        self.device = jax.devices()[0]
        self.cpu = jax.devices("cpu")[0]

    def batch(self, data: Any, **options: Any) -> Any:
        options = {"devices": self.device, "progress": False} | options
        return self.jm.fit_batch(self.jm.models.logistic(), None, data, **options)

    def free_bytes(self) -> float:
        stats = self.device.memory_stats() or {}
        return float(stats.get("bytes_limit", 0)) - float(stats.get("bytes_in_use", 0))

    def A(self) -> None:
        """Is it right: the same members on this device and on the CPU; easy, separated, ragged, in single precision; and one long fit."""
        data = logistic(2000 // self.shrink, 200, 5)
        separated = 20 // self.shrink + 1
        data["y"][:separated] = data["x"][:separated, :, 1] > 0
        reference = self.batch(data, devices=self.cpu)
        show("A float64", **distance(self.batch(data), reference))
        show("A float32", **distance(self.batch(data, dtype="float32"), reference))
        ragged = [
            {name: leaf[i, : 40 + i % 150] for name, leaf in data.items()}
            for i in range(500 // self.shrink)
        ]
        show("A ragged", **distance(self.batch(ragged), self.batch(ragged, devices=self.cpu)))
        one = {name: leaf[0] for name, leaf in logistic(1, 1_000_000 // self.shrink, 20).items()}
        model = self.jm.models.logistic()
        with self.jax.default_device(self.cpu):
            on_cpu = self.jm.fit(model, None, one)
        here = self.jm.fit(model, None, one)
        moved = float(np.max(np.abs(here.x - on_cpu.x) / on_cpu.se))
        show("A one fit", max_se=moved, verdicts=[here.verdict.name, on_cpu.verdict.name])

    def B(self) -> None:
        """W2, many logistic regressions, for numbers of members about the sizes of a chunk."""
        for members in (8192 // self.shrink, 10_000 // self.shrink, 65_536 // self.shrink):
            data = logistic(members, 200, 5)
            for dtype in ("float64", "float32"):
                _, cold, warm = timed(lambda: self.batch(data, dtype=dtype))
                rate = round(members / warm)
                show("B W2", members=members, dtype=dtype, cold=cold, warm=warm, fits_a_second=rate)

    def C(self) -> None:
        """W3, many peaks of a user's function."""
        positive = self.jm.positive
        constraints = {"level": positive, "height": positive, "width": positive}
        members = 100_000 // self.shrink
        for side in (5, 15):
            data = peaks(members, side)
            _, cold, warm = timed(
                lambda: self.jm.fit_batch(
                    peak,
                    PEAK_START,
                    data,
                    constraints=constraints,
                    devices=self.device,
                    progress=False,
                ),
                1,
            )
            show("C W3", side=side, cold=cold, warm=warm, fits_a_second=round(members / warm))

    def D(self) -> None:
        """Where a batch spends its time: the functions of jaxmle that take most; a turn of the host's loop beside one on the device."""
        jax = self.jax
        data = logistic(65_536 // self.shrink, 200, 5)
        self.batch(data)
        profile = cProfile.Profile()
        profile.runcall(self.batch, data)
        entries = pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
        mine = [(name, round(e[3], 3)) for (file, _, name), e in entries if "jaxmle" in file]
        show("D profile", seconds=dict(sorted(mine, key=lambda entry: -entry[1])[:25]))
        turns = 50
        with jax.enable_x64(True):
            state = jax.numpy.zeros((65_536, 64))
            turn = jax.jit(lambda s: (s + 1, s[:, 0] > 0))
            np.asarray(turn(state)[1])
            began = time.perf_counter()
            for _ in range(turns):
                state, running = turn(state)
                np.asarray(running)
            on_host = time.perf_counter() - began
            loop = jax.jit(lambda s: jax.lax.fori_loop(0, turns, lambda _, s: s + 1, s))
            jax.block_until_ready(loop(state))
            began = time.perf_counter()
            jax.block_until_ready(loop(state))
            on_device = time.perf_counter() - began
        show(
            "D a turn, µs", host=round(on_host / turns * 1e6), device=round(on_device / turns * 1e6)
        )

    def E(self) -> None:
        """One long fit by the rows of a block: what keeps a CPU's cache warm is a chain of small kernels here."""
        data = {n: leaf[0] for n, leaf in logistic(1, 10_000_000 // self.shrink, 20).items()}
        model = self.jm.models.logistic()
        for block_rows in (None, 2**12, 2**16, 2**20, 2**30):
            _, cold, warm = timed(
                lambda: self.jm.fit(model, None, data, block_rows=block_rows),
                1,
            )
            show("E one fit", block_rows=block_rows, cold=cold, warm=warm)

    def F(self) -> None:
        """The planner: slots and bytes of a chunk; and the peak of a batch larger than one chunk."""
        from jaxmle.batch.chunks.plan import Sizes, cut
        from jaxmle.batch.scheduler import Scheduler

        free = self.free_bytes() or 16 * 2.0**30
        for members, rows, q in ((10_000, 200, 5), (10_000, 4096, 20), (100_000, 5000, 50)):
            record = Scheduler.record_bytes(q, q, 8)
            data = 8.0 * rows * (q + 1)
            sizes = Sizes(members, members, data, data + 8.0 * rows * (q + 6), record)
            plan = cut(sizes, 1, free, None, True)
            held = plan.members * (sizes.data + sizes.live + 3 * record) / free
            show("F plan", members=members, rows=rows, slots=plan.slots, share=round(held, 3))
        whole = logistic(9_000 // self.shrink, 2000, 10)
        began = time.perf_counter()
        self.batch(whole)
        seconds = round(time.perf_counter() - began, 2)
        peak = (self.device.memory_stats() or {}).get("peak_bytes_in_use", 0)
        show("F run", s=seconds, data_gib=whole["x"].nbytes / 2**30, peak_gib=peak / 2**30)

    def G(self) -> None:
        """Rows that the device holds already, and rows shared by all devices."""
        data = {n: leaf[0] for n, leaf in logistic(1, 2_000_000 // self.shrink, 20).items()}
        model = self.jm.models.logistic()
        with self.jax.enable_x64(True):
            held = self.jax.device_put(data, self.device)
        shared = self.jm.distributed.rows(data)
        for name, rows in {"host": data, "device": held, "shared": shared}.items():
            _, cold, warm = timed(lambda: self.jm.fit(model, None, rows), 1)
            show("G rows", where=name, cold=cold, warm=warm)


def run(parts: str, shrink: int) -> None:
    # before jax is imported: programs are kept for a second run, memory is not taken beforehand
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    began = time.perf_counter()
    checks = Checks(shrink)
    kind = checks.device.device_kind
    show("device", kind=kind, jax=checks.jax.__version__, jaxmle=checks.jm.__version__)
    for part in parts:
        left = SECONDS - (time.perf_counter() - began)
        if left < SECONDS_OF[part]:
            show(part, skipped=f"{left:.0f} s left of {SECONDS:.0f}")
            continue
        start = time.perf_counter()
        try:
            with contextlib.redirect_stderr(sys.stdout):
                getattr(checks, part)()
        except Exception as error:  # a part that fails must not end the others
            place = traceback.format_exc().splitlines()[-3:-1]
            show(part, failed=f"{type(error).__name__}: {str(error)[:300]}", at=place)
        show(part, took=round(time.perf_counter() - start, 1))


def table(path: str) -> None:
    """The lines of a run as a table of Markdown."""
    print("| part | facts |\n|---|---|")
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith("{"):
            facts = json.loads(line)
            part = facts.pop("part")
            listed = ", ".join(f"{name} {value}" for name, value in facts.items())
            print(f"| {part} | {listed} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", default="".join(SECONDS_OF))
    parser.add_argument("--table")
    given = parser.parse_args()
    if given.table:
        table(given.table)
    else:
        run(given.only, 20 if given.small else 1)
