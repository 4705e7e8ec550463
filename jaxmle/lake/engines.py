"""The only adapter needed, an executor made from Ray; other engines are executors already."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from importlib import import_module
from types import ModuleType

from jaxmle._types import Foreign, FunctionTo
from jaxmle.parameters.arguments import check_count, check_number


def ray(*, num_cpus: float = 1, num_gpus: float = 0, retries: int = 3) -> Executor:
    """An executor that runs calls as tasks of the initialised Ray.

    A Ray worker process runs one task after the other and keeps its compiled programs; a task whose
    worker dies is run again. Ray is neither started nor shut down here.

    Args:
        num_cpus, num_gpus: what Ray reserves for each task; with ``num_gpus=1`` each worker sees
            its own GPU.
        retries: how often a task is run again if its worker dies.

    Returns:
        An executor, the ``engine`` of ``fit_lake``.

    Raises:
        RuntimeError: if Ray is not initialised.
        ImportError: if Ray is not installed.
    """
    try:
        library = import_module("ray")
    except ImportError as error:
        raise ImportError('Ray is not installed: pip install "jaxmle[ray]"') from error
    if not library.is_initialized():
        raise RuntimeError(
            "Ray is not initialised, and jaxmle does not start a cluster: call "
            "ray.init() first, or ray.init(address='auto') for a running cluster"
        )
    options = {
        "num_cpus": check_number("num_cpus", num_cpus, 0.0, closed=True),
        "num_gpus": check_number("num_gpus", num_gpus, 0.0, closed=True),
        "max_retries": check_count("retries", retries),
        # By default Ray ends the process after a task with a GPU, and loses what was compiled in
        # it.
        "max_calls": 0,
    }
    return RayExecutor(library, options)


class RayExecutor(Executor):
    """An executor whose ``submit`` starts a Ray task. The first argument of a call, the same object
    for all calls of a lake, is put into Ray's object store once.
    """

    def __init__(self, library: ModuleType, options: dict[str, Foreign]) -> None:
        self.library = library
        self.remote = library.remote(**options)(_call)
        self.stored: tuple[Foreign, Foreign] = (None, None)

    def submit(self, fn: FunctionTo[Foreign], /, *args: Foreign, **kwargs: Foreign) -> Future:
        """Schedule ``fn(*args, **kwargs)`` and return a future of its result."""
        if args and self.stored[0] is not args[0]:
            self.stored = (args[0], self.library.put(args[0]))
        head = (self.stored[1],) if args else ()
        return self.remote.remote(fn, *head, *args[1:], **kwargs).future()


def _call(fn: FunctionTo[Foreign], *args: Foreign, **kwargs: Foreign) -> Foreign:
    return fn(*args, **kwargs)
