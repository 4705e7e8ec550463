"""``fit_lake``: a fit for every group of a data set of Parquet files, file by file, here or on the
user's engine.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from dataclasses import replace
from importlib.metadata import version

from jaxmle._types import DTypeLike, Foreign, Loglik, PathLike, Tree
from jaxmle.closures.program_digest import value_digest
from jaxmle.data.rows import MissingRowsWarning
from jaxmle.fitting.options import MAX_STEPS
from jaxmle.lake.compile_cache import compile_cache
from jaxmle.lake.gathering import Gathering
from jaxmle.lake.outputs import Folder, folder_of, open_folder, refuse_own_source
from jaxmle.lake.partitions import Partition, Source, source_of
from jaxmle.lake.record import LakeFits
from jaxmle.lake.request import Request, request_of
from jaxmle.lake.tables import refuse_absent
from jaxmle.lake.worker import Failed, Work, fit_partition
from jaxmle.likelihood.combinators import Weights
from jaxmle.parameters.arguments import check_flag, first_line
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.runtime.jax_state import host_only
from jaxmle.runtime.progress import Progress
from jaxmle.solvers.methods import Solver
from jaxmle.workers.engine import checked_engine, shares_memory
from jaxmle.workers.payload import packed

ERRORS = {kind.__name__: kind for kind in (TypeError, ValueError, MemoryError, RuntimeError)}


@with_keyword_hints
def fit_lake(
    model: Loglik,
    source: Foreign,
    *,
    by: str | Sequence[str],
    out: PathLike,
    formula: str | None = None,
    params0: Tree = None,
    also: Mapping[str, str] | None = None,
    missing: str = "warn",
    constraints: Tree = None,
    solver: Solver | None = None,
    vcov: str | None = "auto",
    clusters: str | None = None,
    weights: Weights | None = None,
    dtype: DTypeLike = None,
    max_steps: int = MAX_STEPS,
    block_rows: int | None = None,
    engine: Executor | None = None,
    cache: PathLike | None = None,
    part: tuple[int, int] | None = None,
    progress: bool | None = None,
) -> LakeFits:
    """Maximise one log-likelihood on every group of a data set of Parquet files.

    Each file is read as a whole and fitted by ``fit_table``, and its fits are written to ``out`` as
    one Parquet file, whole or not at all. A file that is already done is skipped unless its path,
    size or modification time has changed, so the same call resumes a killed one.

    Args:
        model, params0, by, formula, also: as in ``fit_table``, like all options not listed here.
            All rows of a group must be in one file. The formula codes each file alone, so
            categories must have the same levels in all files.
        source: a folder of Parquet files (folders ``key=value`` are columns), a list of files, a
            URI such as ``s3://lake/sales``, or a ``pyarrow.dataset.Dataset`` of files.
        out: a separate folder for the fits, or a URI.
        engine: None for this process; or any ``concurrent.futures.Executor``, such as
            ``client.get_executor(retries=3)`` of Dask or ``jaxmle.engines.ray()``. It is neither
            started nor shut down here. It pays off from about 20 s of work per worker.
        cache: a folder of compiled programs shared by all workers; see ``compile_cache``. With an
            engine, one file is fitted before the others, so that programs are compiled once.
        part: (i, n) for part i of n of the files, counted from 0, for example in a SLURM array.
        progress: as in ``fit_batch``; the bar counts files.

    Returns:
        ``LakeFits`` of these files.

    Raises:
        ValueError, TypeError, OSError: for a file that cannot be read or fitted, with its name and
            what is finished; for a key in two files; for an ``out`` of another model; for a pool of
            forked processes.
        RuntimeError: if a worker of a pool died.

    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq, jaxmle as jm
    >>> source, out = tempfile.mkdtemp(), tempfile.mkdtemp()
    >>> for region, y in {"north": [1.0, 2.0, 4.0, 6.0], "south": [3.0, 5.0, 1.0, 1.0]}.items():
    ...     table = pa.table({"y": y, "store": [f"{region} {i}" for i in (1, 1, 2, 2)]})
    ...     pq.write_table(table, f"{source}/{region}.parquet")
    >>> loglik = lambda params, data: -((data["y"] - params["mean"]) ** 2)
    >>> fits = jm.fit_lake(loglik, source, by="store", out=out, params0={"mean": 0.0})
    >>> fits.to_table().select(["store", "est:mean"]).to_pydict()
    {'store': ['north 1', 'north 2', 'south 1', 'south 2'], 'est:mean': [1.5, 5.0, 4.0, 1.0]}
    >>> jm.fit_lake(loglik, source, by="store", out=out, params0={"mean": 0.0}).skipped
    2
    """
    host_only("fit_lake")
    request = request_of(locals())
    request.refuse_learned_terms()
    check_flag("progress", progress, may_be_none=True)
    engine = checked_engine(engine)
    files = source_of(source, part)
    refuse_absent(request.named_columns(), files.schema.names, "the source")
    folder = folder_of(out)
    refuse_own_source(folder, files.partitions)
    open_folder(folder, _identity(model, request, files), {"jaxmle": version("jaxmle")})
    return _fitted_files(model, request, files, folder, engine, cache, progress)


def _identity(model: Loglik, request: Request, files: Source) -> dict[str, str]:
    """What a folder of fits must have in common with a call that resumes it."""
    read = request.columns() or files.schema.names
    types = [(name, str(files.schema.field(name).type)) for name in read]
    return {
        "model": value_digest(model),
        "options": value_digest({k: v for k, v in vars(request).items() if k != "missing"}),
        "schema": value_digest(types),
    }


def _fitted_files(
    model: Loglik,
    request: Request,
    files: Source,
    folder: Folder,
    engine: Executor | None,
    cache: PathLike | None,
    progress: bool | None,
) -> LakeFits:
    """Skip the files already fitted, fit the rest, and check all keys together."""
    gathering = Gathering(folder, files, request.by)
    to_do = gathering.take_what_is_there()
    worker_request = replace(request, missing="drop") if request.missing == "warn" else request
    in_process = shares_memory(engine)
    with compile_cache(cache if in_process else None):
        content = (
            (model, worker_request) if in_process else packed((model, worker_request), [model])
        )
        columns = request.columns()
        place = None if cache is None else str(cache)
        work = Work(content, files.schema, columns, folder, place)
        about = f"{len(to_do):,} files to fit, {len(gathering.taken):,} are there"
        bar = Progress(len(to_do), progress, about, "fit_lake", unit=" files")
        try:
            for partition, outcome in _outcomes(work, to_do, engine):
                if isinstance(outcome, Failed):
                    raise _failure(partition, outcome, gathering)
                gathering.take(partition, outcome.footer, outcome.hashes)
                bar.add(1)
        finally:
            bar.close()
    gathering.compare_with_others()
    fits = gathering.record()
    if request.missing == "warn" and fits.dropped and to_do:
        warnings.warn(
            f"{fits.dropped:,} of {fits.rows:,} rows dropped for missing values; "
            "missing='drop' drops them without this warning",
            MissingRowsWarning,
            stacklevel=3,
        )
    return fits


def _outcomes(
    work: Work, to_do: list[Partition], engine: Executor | None
) -> Iterator[tuple[Partition, Tree]]:
    """Each file with its outcome, as they finish."""
    if engine is None:
        for partition in to_do:
            yield partition, fit_partition(work, partition)
        return
    first = to_do[:1] if work.cache is not None else []
    yield from _on_engine(work, first, engine)
    yield from _on_engine(work, to_do[len(first) :], engine)


def _on_engine(
    work: Work, to_do: list[Partition], engine: Executor
) -> Iterator[tuple[Partition, Tree]]:
    futures: dict[Future, Partition] = {}
    try:
        for partition in to_do:
            futures[engine.submit(fit_partition, work, partition)] = partition
        for future in as_completed(futures):
            yield futures[future], _result(future, futures[future])
    except BrokenExecutor as error:
        yield to_do[0], _lost_worker(error)
    finally:
        for future in futures:
            future.cancel()


def _result(future: Future, partition: Partition) -> Tree:
    """The result from a worker, or the failure if none came back."""
    try:
        return future.result()
    except BrokenExecutor as error:
        return _lost_worker(error)
    except Exception as error:  # engines raise their own errors when a worker is lost
        return Failed("RuntimeError", None, f"{type(error).__name__}: {first_line(error)}")


def _lost_worker(error: BaseException) -> Failed:
    reason = f"a worker of the engine died ({first_line(error)}): give a new engine"
    return Failed("RuntimeError", None, reason)


def _failure(partition: Partition, outcome: Failed, gathering: Gathering) -> Exception:
    """The error for the caller: which file, why, and what is kept."""
    message = (
        f"{partition.path}: {outcome.reason.rstrip('.')}. {len(gathering.taken):,} of "
        f"{len(gathering.partitions):,} files are finished and saved in "
        f"{gathering.folder.path}; the same call resumes after them"
    )
    if outcome.kind == "OSError":
        return OSError(outcome.errno, message)
    return ERRORS[outcome.kind](message)
