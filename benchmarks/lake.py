"""Many fits over a data set of Parquet files: ``python benchmarks/lake.py`` makes it and fits it.

Negative-binomial regressions of five parameters, one for each store, 50 to 500 rows each, 40 files.
Prints processor seconds, peak memory, programs compiled and programs loaded from the cache. Each
line is a process of its own, so that the second one finds the cache warm and no program in memory.

    python benchmarks/lake.py --stores 20000            # the lake of docs/scale.md
    python benchmarks/lake.py --stores 1000000 --files 200 --rows 10 30 --model poisson
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COMPILED = "/jax/core/compile/backend_compile_duration"
LOADED = "/jax/compilation_cache/cache_hits"


def make(folder, stores, files, rows, seed=0):
    """``region=k/part-0.parquet``; a store lives in one region, its rows are shuffled among others."""
    rng = np.random.default_rng(seed)
    for region, names in enumerate(np.array_split(np.arange(stores), files)):
        beta = rng.normal(size=(len(names), 4)) * 0.3
        place = np.repeat(np.arange(len(names)), rng.integers(rows[0], rows[1] + 1, len(names)))
        place = rng.permutation(place)
        x = rng.normal(size=(len(place), 3))
        mean = np.exp(1 + beta[place, 0] + np.einsum("nk,nk->n", x, beta[place, 1:]))
        y = rng.poisson(rng.gamma(2.0, mean / 2.0)).astype(float)
        columns = {"store": names[place], "y": y} | {f"x{j + 1}": x[:, j] for j in range(3)}
        file = Path(folder) / f"region={region:03d}" / "part-0.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), file)


def run(lake, out, cache, model):
    """Fit the lake in this process, and say what it took."""
    import jax

    import jaxmle as jm

    counts = {"compiled": 0, "loaded": 0}

    def compiled(name, seconds, **_):
        counts["compiled"] += name == COMPILED

    def event(name, **_):
        counts["loaded"] += name == LOADED

    jax.monitoring.register_event_duration_secs_listener(compiled)
    jax.monitoring.register_event_listener(event)
    began = time.perf_counter()
    fits = jm.fit_lake(
        getattr(jm.models, model)(), lake, by="store", formula="y ~ x1 + x2 + x3", out=out,
        cache=cache, progress=False,
    )  # fmt: skip
    usage = resource.getrusage(resource.RUSAGE_SELF)
    facts = {
        "groups": fits.groups,
        "statuses": fits.statuses,
        "wall_s": round(time.perf_counter() - began, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": usage.ru_maxrss // 1024,
    }
    # An event of compilation is raised for a program that was loaded as well.
    print(json.dumps(facts | {"programs": counts["compiled"], "loaded": counts["loaded"]}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", type=int, default=2000)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--rows", type=int, nargs=2, default=(50, 500))
    parser.add_argument("--model", default="negative_binomial")
    parser.add_argument("--folder", help="where the lake is, or is made; a temporary one else")
    parser.add_argument("--run", nargs=3, metavar=("LAKE", "OUT", "CACHE"))
    given = parser.parse_args()
    if given.run:
        run(*given.run, given.model)
        return
    folder = Path(given.folder or tempfile.mkdtemp())
    if not (folder / "lake").exists():
        make(folder / "lake", given.stores, given.files, given.rows)
    for cache in ("cold", "warm"):
        out = folder / f"fits-{cache}"
        shutil.rmtree(out, ignore_errors=True)
        places = [str(folder / "lake"), str(out), str(folder / "cache")]
        print(cache, flush=True)
        command = [sys.executable, __file__, "--model", given.model, "--run", *places]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
