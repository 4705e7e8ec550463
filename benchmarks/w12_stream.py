"""W12: one logistic regression over more rows than one would hold: read from Parquet at each pass, in memory, and by glum in memory.

    python benchmarks/w12_stream.py [rows] [folder] [rounds]

2 000 000 rows of 20 columns unless other rows are given (20 000 000 take 3.3 GB of disk); the files stay in the folder, if one is given. Each contestant is a process of
its own: CPU seconds are of its user and system time, imports, compiling and reading included; the peak is of its resident memory. Contestants take turns, as many rounds as
are asked for. glum runs at its default tolerance, which it reaches; its largest score at the end, a mean over rows, is in its note.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = 20
FILES = 8
ROWS_OF_GROUP = 2**18
NAMES = [f"x{j}" for j in range(COLUMNS)]


def make(folder: Path, rows: int) -> None:
    """The files of the data set, those that are not there yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    beta = np.linspace(-0.5, 0.5, COLUMNS)
    for part in range(FILES):
        rng = np.random.default_rng(part)
        place = folder / f"part-{part}.parquet"
        left = (rows + part) // FILES
        if place.exists():
            continue
        fields = [("y", pa.float64()), ("firm", pa.int32()), *((n, pa.float64()) for n in NAMES)]
        with pq.ParquetWriter(
            place, pa.schema(fields), use_dictionary=False, compression="none"
        ) as out:
            while left:
                n = min(left, ROWS_OF_GROUP)
                left -= n
                x = rng.normal(size=(COLUMNS, n))
                x[0] = 1.0
                y = (rng.random(n) < 1 / (1 + np.exp(-beta @ x))).astype(float)
                firm = rng.integers(0, 5000, n).astype(np.int32)
                table = dict(zip(NAMES, x, strict=True)) | {"y": y, "firm": firm}
                out.write_table(pa.table({name: table[name] for name, _ in fields}))


# ---------------------------------------------------------------- in a process of its own


def streamed(folder: Path, **options: Any) -> dict[str, Any]:
    import jaxmle as jm

    lines = io.StringIO()
    with contextlib.redirect_stderr(lines):
        source = jm.parquet(folder, {"x": NAMES, "y": "y"})
        fit = jm.fit(jm.models.logistic(), source=source, progress=True, **options)
    passes = [
        line.split("(")[1].split(")")[0]
        for line in lines.getvalue().splitlines()
        if line.startswith("jaxmle.fit: pass") and "100%" in line
    ]
    return {"z": fit.params["beta"], "se": fit.stderr["beta"], "note": " ".join(passes)}


def streamed_clusters(folder: Path) -> dict[str, Any]:
    return streamed(folder, clusters="firm")


def read_alone(folder: Path) -> dict[str, Any]:
    """Decoding, and nothing else."""
    import jaxmle as jm

    reading = jm.parquet(folder, {"x": NAMES, "y": "y"}).reading
    rows = sum(chunk.rows for chunk in reading.ahead(range(len(reading.files))))
    return {"note": f"{rows:,} rows"}


def loaded(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The data in memory, filled chunk by chunk, so that nothing is held twice."""
    import jaxmle as jm

    source = jm.parquet(folder, {"x": NAMES, "y": "y"})
    x = np.empty((source.rows, COLUMNS))
    y = np.empty(source.rows)
    first = 0
    for chunk in source.reading.ahead(range(len(source.paths))):
        held = source.reading.columns.data(chunk.arrays)
        rows = slice(first, first + chunk.rows)
        x[rows], y[rows] = held["x"], held["y"]
        first += chunk.rows
    return x, y


def in_memory(folder: Path) -> dict[str, Any]:
    import jaxmle as jm

    x, y = loaded(folder)
    fit = jm.fit(jm.models.logistic(), data={"x": x, "y": y})
    return {"z": fit.params["beta"], "se": fit.stderr["beta"], "note": fit.evaluation}


def glum_in_memory(folder: Path) -> dict[str, Any]:
    from glum import GeneralizedLinearRegressor

    x, y = loaded(folder)
    glm = GeneralizedLinearRegressor(family="binomial", alpha=0, fit_intercept=False).fit(x, y)
    score = np.abs(x.T @ (y - glm.predict(x))).max() / len(y)
    converged = "converged" if glm.n_iter_ < glm.max_iter else "did not converge"
    note = f"{converged}, {glm.n_iter_} iterations, score {score:.0e}, no standard errors"
    return {"z": glm.coef_, "note": note}


CONTESTANTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "reading alone": read_alone,
    "streamed": streamed,
    "streamed, 5 000 clusters": streamed_clusters,
    "jaxmle in memory": in_memory,
    "glum in memory": glum_in_memory,
}


def alone(name: str, folder: Path) -> None:
    """Run one contestant here and print what it found."""
    began = time.perf_counter()
    found = CONTESTANTS[name](folder)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    found |= {
        "seconds": seconds,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss / 2**20,
    }
    plain = {key: np.asarray(value).tolist() for key, value in found.items()}
    print(json.dumps(plain))


def run(name: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--alone", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(rows: int, folder: Path, rounds: int) -> None:
    make(folder, rows)
    for number in range(1, rounds + 1):
        found = {name: run(name, folder) for name in CONTESTANTS}
        print(f"round {number}: {rows:,} rows of {COLUMNS} columns, {FILES} files, ", end="")
        print(f"load {os.getloadavg()[0]:.1f}")
        report(found)


def report(found: dict[str, Any]) -> None:
    """The table of one round."""
    reference = found["jaxmle in memory"]
    print("| contestant | CPU s | s | peak GB | off (SE) | SEs off | note |")
    print("|---|---|---|---|---|---|---|")
    for name, entry in found.items():
        off, off_se = "", ""
        if "z" in entry:
            distance = np.abs(np.subtract(entry["z"], reference["z"]))
            off = f"{np.max(distance / reference['se']):.0e}"
        if "se" in entry and name != "streamed, 5 000 clusters":
            off_se = f"{np.max(np.abs(np.divide(entry['se'], reference['se']) - 1)):.0e}"
        print(
            f"| {name} | {entry['cpu']:.1f} | {entry['seconds']:.1f} | {entry['peak']:.2f} | {off} "
            f"| {off_se} | {entry['note']} |"
        )
    ratio = found["streamed"]["cpu"] / found["glum in memory"]["cpu"]
    print(f"\nstreamed over glum in memory, CPU seconds: {ratio:.2f}\n", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(sys.argv[2], Path(sys.argv[3]))
    else:
        number = int(float(sys.argv[1])) if len(sys.argv) > 1 else 2_000_000
        rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 1
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(sys.argv[2] if len(sys.argv) > 2 else temporary)
            folder.mkdir(parents=True, exist_ok=True)
            main(number, folder, rounds)
