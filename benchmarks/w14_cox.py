"""W14: Cox regression, n = 100 000, p = 10, in turns with lifelines and R's coxph; one core, CPU seconds.

    python benchmarks/w14_cox.py [n]

Times without ties and times rounded to 200 values, a third of the rows censored. From arrays (a data frame for lifelines, one in R's memory) to estimates and standard errors.
Rscript with the package survival is used where it is installed.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from yardstick import optional, table, versions  # pins this process to one core

import jaxmle as jm

P, ROUNDS = 10, 5
MUST = {"lifelines": 0.5, "R coxph": 1.5}
NAMES = [f"x{j}" for j in range(P)]
Fitted = tuple[float, np.ndarray, np.ndarray]  # seconds, estimates, standard errors
R_SESSION = """
suppressMessages(library(survival))
table <- as.data.frame(matrix(readBin({file!r}, "double", {size}), {n}))
names(table) <- c("time", "event", {names})
asked <- file("stdin", "r")
for (round in seq_len({rounds})) {{
  readLines(asked, n = 1)
  spent <- system.time(fit <- coxph(Surv(time, event) ~ ., table))
  cat(sum(spent[1:2]), coef(fit), sqrt(diag(vcov(fit))), "\\n")
}}
"""


def sample(n: int, values: int | None, rng: np.random.Generator) -> dict[str, np.ndarray]:
    x = rng.normal(size=(n, P))
    time_ = rng.exponential(size=n) * np.exp(-x @ np.linspace(-0.5, 0.5, P))
    end = rng.exponential(2.0, n)
    observed = np.minimum(time_, end)
    if values is not None:
        observed = np.ceil(values * observed / (1 + observed)) / values
    return {"x": x, "time": observed, "event": (time_ <= end).astype(float)}


def ours(data: dict[str, np.ndarray]) -> Callable[[], Fitted]:
    model = jm.models.cox()

    def run() -> Fitted:
        began = time.process_time()
        fit = jm.fit(model, data=data)
        return time.process_time() - began, fit.x, fit.se

    return run


def lifelines(data: dict[str, np.ndarray]) -> Callable[[], Fitted]:
    from lifelines import CoxPHFitter
    from pandas import DataFrame

    frame = DataFrame(data["x"], columns=NAMES)
    frame = frame.assign(time=data["time"], event=data["event"])

    def run() -> Fitted:
        began = time.process_time()
        fit = CoxPHFitter().fit(frame, "time", "event")
        spent = time.process_time() - began
        return spent, fit.params_.to_numpy(), fit.standard_errors_.to_numpy()

    return run


def coxph(data: dict[str, np.ndarray], folder: Path) -> tuple[Callable[[], Fitted], Callable]:
    """A session of R, which has the data in memory; it says itself what a call took."""
    matrix = np.column_stack([data["time"], data["event"], data["x"]])
    place = folder / "table.bin"
    place.write_bytes(matrix.tobytes(order="F"))
    names = ", ".join(f'"{name}"' for name in NAMES)
    code = R_SESSION.format(
        file=str(place), size=matrix.size, n=len(matrix), names=names, rounds=ROUNDS + 1
    )
    (folder / "session.R").write_text(code)
    session = subprocess.Popen(
        ["Rscript", str(folder / "session.R")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def run() -> Fitted:
        session.stdin.write("fit\n")
        session.stdin.flush()
        seconds, *numbers = map(float, session.stdout.readline().split())
        return seconds, np.array(numbers[:P]), np.array(numbers[P:])

    return run, session.kill


def compare(title: str, data: dict[str, np.ndarray], folder: Path) -> None:
    contestants = {"jaxmle": ours(data)}
    close = None
    if optional("lifelines"):
        contestants["lifelines"] = lifelines(data)
    if shutil.which("Rscript"):
        contestants["R coxph"], close = coxph(data, folder)
    first = {name: run() for name, run in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            seconds[name].append(run()[0])
    if close:
        close()
    _, beta, se = first["jaxmle"]
    rows = []
    median = {name: statistics.median(spent) for name, spent in seconds.items()}
    for name, (began, estimate, stderr) in first.items():
        ratio = median["jaxmle"] / median[name]
        must = MUST.get(name)
        rows.append(
            [
                name,
                f"{median[name]:.3f}",
                f"{began:.2f}",
                f"{np.max(np.abs(estimate - beta) / se):.0e}",
                f"{np.max(np.abs(stderr / se - 1)):.0e}",
                "" if must is None else f"{ratio:.2f} (must ≤ {must}, {'reached' if ratio <= must else '**not reached**'})",
            ]
        )  # fmt: skip
    head = ["", "seconds", "first call", "from ours, SE", "SE", "ours over theirs"]
    print(f"\n### {title}\n\n{table(head, rows)}", flush=True)


def main() -> None:
    n = int(float(sys.argv[1])) if len(sys.argv) > 1 else 100_000
    print(versions("jax", "lifelines", "pandas"))
    for title, values in (("no ties", None), ("200 times", 200)):
        with tempfile.TemporaryDirectory() as folder:
            data = sample(n, values, np.random.default_rng(13))
            compare(f"Cox, n = {n}, p = {P}, {title}", data, Path(folder))


if __name__ == "__main__":
    main()
