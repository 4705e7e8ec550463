"""What works for a caller: any ``concurrent.futures.Executor``.

Dask (``client.get_executor(retries=3)``), MPI (``mpi4py.futures``), loky and the standard pools are
executors. Retries, transport and scheduling are theirs.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
from concurrent.futures import Executor, ThreadPoolExecutor

from jaxmle.parameters.arguments import shown

SPAWN_POOL = "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn'))"
# How what is often given instead becomes an executor, by the first part of the module of its class.
INSTEAD_OF_ENGINE = {
    "distributed": "client.get_executor(retries=3)",
    "dask": "client.get_executor(retries=3)",
    "ray": "jaxmle.engines.ray()",
    "multiprocessing": SPAWN_POOL,
    "joblib": "joblib.externals.loky.get_reusable_executor()",
}


def checked_engine(engine: object) -> Executor | None:
    """An engine as it was given, where it is one that works.

    Raises:
        TypeError: it is no executor, with how it becomes one.
        ValueError: a pool of processes whose start method is fork.
    """
    if engine is None:
        return None
    if not isinstance(engine, Executor):
        package = (getattr(engine, "__name__", None) or type(engine).__module__).split(".")[0]
        remedy = INSTEAD_OF_ENGINE.get(package, SPAWN_POOL)
        raise TypeError(
            f"engine must be a concurrent.futures.Executor, such as {remedy}; got {shown(engine)}"
        )
    context = getattr(engine, "_mp_context", None)
    if context is not None and context.get_start_method() == "fork":
        raise ValueError(
            f"the {type(engine).__name__} starts its processes by fork, but a fork of a "
            f"process that has used jax hangs: give {SPAWN_POOL}"
        )
    return engine


def shares_memory(engine: Executor | None) -> bool:
    """Whether the work is done in this process."""
    return engine is None or isinstance(engine, ThreadPoolExecutor)


@functools.cache
def end_with_parent() -> None:
    """In a process of a pool: end when the process that started it is gone. A pool's workers wait
    for work for ever when their parent was killed.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="jaxmle-end-with-parent", daemon=True).start()
