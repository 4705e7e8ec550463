"""Engines that share out the files of a lake: any ``concurrent.futures.Executor``, and the one
adapter that makes one of Ray.

Dask (``client.get_executor(retries=3)``), MPI (``mpi4py.futures``), loky and the standard pools are
executors already. Retries, transport and scheduling are theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from importlib import import_module
from typing import Any

from jaxmle.parameters.arguments import check_count, check_number, shown

SPAWN_POOL = "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn'))"
# How what is often given instead becomes an executor, by the first part of the module of its class.
INSTEAD_OF_ENGINE = {
    "distributed": "client.get_executor(retries=3)",
    "dask": "client.get_executor(retries=3)",
    "ray": "jaxmle.engines.ray()",
    "multiprocessing": SPAWN_POOL,
    "joblib": "joblib.externals.loky.get_reusable_executor()",
}


def checked_engine(engine: Any) -> Executor | None:
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
            f"the {type(engine).__name__} starts its processes by fork, and a forked copy of a "
            f"process that has used jax hangs: give {SPAWN_POOL}"
        )
    return engine


def shares_memory(engine: Executor | None) -> bool:
    """Whether the work is done in this process."""
    return engine is None or isinstance(engine, ThreadPoolExecutor)


def ray(*, num_cpus: float = 1, num_gpus: float = 0, retries: int = 3) -> Executor:
    """An executor that runs what is submitted as tasks of the Ray that is initialised.

    A worker process of Ray takes one task after the other and keeps what it has compiled; a task
    whose worker dies is run again. Nothing is started or shut down here.

    Args:
        num_cpus, num_gpus: what Ray reserves for each task; with ``num_gpus=1`` it shows each
            worker a GPU of its own.
        retries: how often a task is run again whose worker died.

    Returns:
        An executor, the ``engine`` of ``fit_lake``.

    Raises:
        RuntimeError: Ray is not initialised.
        ImportError: Ray is not installed.
    """
    try:
        library = import_module("ray")
    except ImportError as error:
        raise ImportError('Ray is not installed: pip install "jaxmle[ray]"') from error
    if not library.is_initialized():
        raise RuntimeError(
            "Ray is not initialised, and jaxmle starts no cluster: call ray.init() first, or "
            "ray.init(address='auto') for a cluster that runs"
        )
    options = {
        "num_cpus": check_number("num_cpus", num_cpus, 0.0, closed=True),
        "num_gpus": check_number("num_gpus", num_gpus, 0.0, closed=True),
        "max_retries": check_count("retries", retries),
        # Ray would end the process of a task with a GPU after it, and what was compiled with it.
        "max_calls": 0,
    }
    return RayExecutor(library, options)


class RayExecutor(Executor):
    """Tasks of Ray behind ``submit``. The first argument of a call, the same object for all calls
    of a lake, is put into Ray's store once.
    """

    def __init__(self, library: Any, options: dict[str, Any]) -> None:
        self.library = library
        self.remote = library.remote(**options)(_call)
        self.stored: tuple[Any, Any] = (None, None)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Schedule ``fn(*args, **kwargs)``, whose result the future has."""
        if args and self.stored[0] is not args[0]:
            self.stored = (args[0], self.library.put(args[0]))
        head = (self.stored[1],) if args else ()
        return self.remote.remote(fn, *head, *args[1:], **kwargs).future()


def _call(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return fn(*args, **kwargs)
