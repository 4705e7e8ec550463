"""What the workloads share: one pinned core (importing this module pins), timing, accuracy in standard errors, the table of ratios."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

# This process, XLA's and BLAS's threads with it, stays on one core. A thread keeps the cores it was started with, so this comes before NumPy.
os.environ.update(
    dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"
    )
)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np

Reading = tuple[np.ndarray, np.ndarray | None]


def optional(name: str) -> Any:
    """A peer's module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


@dataclass(frozen=True)
class Row:
    """One contestant: median seconds of the core, and how far it is from the reference."""

    name: str
    seconds: float
    first: float | None = (
        None  # what the first call took beyond the median: tracing, compilation, warming up
    )
    busy: float | None = None  # seconds of the core over seconds on the clock
    error: float | None = None  # max |estimate − reference| in standard errors
    stderr_error: float | None = None  # max |SE / reference − 1|
    note: str = ""

    def cells(self) -> list[str]:
        return [
            self.name,
            f"{self.seconds:.3f}",
            _cell(self.first, ".2f"),
            _cell(self.busy, ".0%"),
            _cell(self.error, ".0e"),
            _cell(self.stderr_error, ".0e"),
            self.note,
        ]


@dataclass(frozen=True)
class Target:
    """A ratio to reach: the time of ``ours`` over the time of ``peer``."""

    ours: str
    peer: str
    must: float | None
    ambition: float | None = None

    def cells(self, seconds: dict[str, float]) -> list[str]:
        if self.ours not in seconds or self.peer not in seconds:
            return [
                self.ours,
                self.peer,
                "",
                _cell(self.must, "g"),
                _cell(self.ambition, "g"),
                "not run",
            ]
        ratio = seconds[self.ours] / seconds[self.peer]
        return [
            self.ours,
            self.peer,
            f"{ratio:.3g}",
            _cell(self.must, "g"),
            _cell(self.ambition, "g"),
            self.verdict(ratio),
        ]

    def verdict(self, ratio: float) -> str:
        if self.must is not None and ratio > self.must:
            return "**not reached**"
        if self.ambition is None:
            return "reached"
        ambitious = "ambition reached" if ratio <= self.ambition else "ambition not reached"
        return ambitious if self.must is None else f"reached; {ambitious}"


@dataclass
class Board:
    """The contestants of one workload on one data set.

    Args:
        title: what is fitted.
        reference: estimates and standard errors, any shape; NaN entries are not compared.
    """

    title: str
    reference: tuple[np.ndarray, np.ndarray] | None = None
    rows: list[Row] = field(default_factory=list)
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    contestants: dict[str, tuple[Callable[[], Any], float]] = field(default_factory=dict)
    taken: str = ""  # how the times were taken, where not one contestant after the other

    @property
    def seconds(self) -> dict[str, float]:
        return {row.name: row.seconds for row in self.rows}

    def time(
        self, name: str, run: Callable[[], Any], read: Callable[[Any], Reading] | None = None, *,
        repeats: int = 5, budget: float = 20.0, compiles: bool = False, scale: float = 1.0, note: Callable[[Any], str] | str = "",
    ) -> Any:  # fmt: skip
        """Time ``run()``: the median of ``repeats`` calls, fewer once ``budget`` seconds are spent.

        Seconds are those that the process had its one core, all threads together; alone on the machine they are seconds on the clock.

        Args:
            read: from the output to (estimates, standard errors or None) in the order of the reference.
            compiles: the first call is reported apart.
            scale: members in the workload over members in this run, where a subset stands for the whole.

        Returns:
            The last output, None where the contestant failed (which is reported).
        """
        try:
            output, first, timings = _timings(run, repeats, budget, compiles)
        except Exception as error:  # a peer that fails is a result
            print(f"    {name}: failed, {type(error).__name__}: {str(error)[:200]}", flush=True)
            return None
        self.contestants[name] = run, scale
        median, walls = (
            statistics.median(cpu for cpu, _ in timings),
            statistics.median(wall for _, wall in timings),
        )
        errors = self._errors(*read(output)) if read and self.reference else (None, None)
        told = note(output) if callable(note) else note
        self.rows.append(
            Row(
                name,
                median * scale,
                None if first is None else max(first - median, 0.0),
                median / walls,
                *errors,
                told,
            )
        )
        print(f"    {name}: {median * scale:.3f} s  {told}", flush=True)
        return output

    def turns(self, targets: list[Target], rounds: int = 5) -> None:
        """Time the contestants of the targets once more, in turns, and take the medians of that.

        The clock of a virtual machine moves by half within minutes; who runs in turns shares its moods.
        """
        names = [
            name
            for name in self.contestants
            if any(name in (target.ours, target.peer) for target in targets)
        ]
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                run, scale = self.contestants[name]
                began = time.process_time()
                run()
                seconds[name].append(scale * (time.process_time() - began))
        self.rows = [
            replace(row, seconds=statistics.median(seconds[row.name]))
            if row.name in seconds
            else row
            for row in self.rows
        ]
        self.taken = f"In turns, medians of {rounds}: {', '.join(names)}."

    def _errors(
        self, estimates: np.ndarray, stderr: np.ndarray | None
    ) -> tuple[float, float | None]:
        b, se = self.reference
        estimates = np.asarray(estimates, float)
        b, se = b[: len(estimates)], se[: len(estimates)]
        return _largest((estimates - b) / se), None if stderr is None else _largest(
            np.asarray(stderr, float) / se - 1
        )

    def report(self, targets: list[Target]) -> None:
        """The table of times and the table of ratios, in Markdown."""
        print(
            f"\n### {self.title}\n\nLoad average {self.load:.1f} before, {os.getloadavg()[0]:.1f} after. {self.taken}\n"
        )
        rows = sorted(self.rows, key=lambda row: row.seconds)
        print(
            table(
                ["", "seconds", "first call +", "core share", "error, SE", "SE error", ""],
                [row.cells() for row in rows],
            )
        )
        if targets:
            print(
                "\n"
                + table(
                    ["ours", "peer", "ratio", "must ≤", "ambition ≤", ""],
                    [target.cells(self.seconds) for target in targets],
                ),
                flush=True,
            )


def _timings(
    run: Callable[[], Any], repeats: int, budget: float, compiles: bool
) -> tuple[Any, float | None, list[tuple[float, float]]]:
    first, timings, spent, output = None, [], 0.0, None
    while len(timings) < repeats and (spent < budget or not timings):
        wall, cpu = time.perf_counter(), time.process_time()
        output = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if compiles and first is None:
            first = cpu
        else:
            timings.append((cpu, wall))
            spent += wall
    return output, first, timings


def _largest(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.max(np.abs(known))) if known.size else float("nan")


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, first column to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]

    def line(cells):
        return (
            "| "
            + " | ".join(
                c.ljust(w) if i == 0 else c.rjust(w)
                for i, (c, w) in enumerate(zip(cells, widths, strict=True))
            )
            + " |"
        )

    rule = (
        "|"
        + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths))
        + "|"
    )
    return "\n".join([line(head), rule, *map(line, rows)])


def versions(*packages: str) -> str:
    """Python and the packages that are installed, with their versions."""
    told = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            told.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            told.append(f"{package} not installed")
    return ", ".join(told)


def newton_reference(
    x: np.ndarray, y: np.ndarray, steps: int = 60, halvings: int = 30
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression by damped Newton in NumPy, run until no step gains: estimates (p,) and standard errors (p,)."""
    beta = np.zeros(x.shape[1])

    def value(beta):
        return y @ (eta := x @ beta) - np.logaddexp(0.0, eta).sum()

    for _ in range(steps):
        mu = 1 / (1 + np.exp(-(x @ beta)))
        information = x.T @ (x * (mu * (1 - mu))[:, None])
        step = np.linalg.solve(information, x.T @ (y - mu))
        decrement = step @ information @ step / 2
        beta = beta + _damped(value, beta, step, halvings) if decrement > 1e-4 else beta + step
        if decrement < 1e-20:
            break
    return beta, np.sqrt(np.diag(np.linalg.inv(information)))


def _damped(
    value: Callable[[np.ndarray], float], beta: np.ndarray, step: np.ndarray, halvings: int
) -> np.ndarray:
    now = value(beta)
    return next(
        (s for h in range(halvings) if value(beta + (s := step * 0.5**h)) >= now), step * 0.0
    )
