"""The one adapter, an executor made of Ray; others are executors already."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from importlib import import_module
from types import ModuleType

from jaxmle._types import Foreign, FunctionTo
from jaxmle.parameters.arguments import check_count, check_number


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

    def __init__(self, library: ModuleType, options: dict[str, Foreign]) -> None:
        self.library = library
        self.remote = library.remote(**options)(_call)
        self.stored: tuple[Foreign, Foreign] = (None, None)

    def submit(self, fn: FunctionTo[Foreign], /, *args: Foreign, **kwargs: Foreign) -> Future:
        """Schedule ``fn(*args, **kwargs)``, whose result the future has."""
        if args and self.stored[0] is not args[0]:
            self.stored = (args[0], self.library.put(args[0]))
        head = (self.stored[1],) if args else ()
        return self.remote.remote(fn, *head, *args[1:], **kwargs).future()


def _call(fn: FunctionTo[Foreign], *args: Foreign, **kwargs: Foreign) -> Foreign:
    return fn(*args, **kwargs)
