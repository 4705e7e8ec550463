"""Who reads the files of a pass: this process, or the workers of an engine.

An engine is any ``concurrent.futures.Executor``. A pass is then a map over the files; what comes
back is added in the order of the files, so that it does not matter who read which, or how often a
lost task was done again.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from jaxmle.parameters.arguments import shown
from jaxmle.runtime.compile import contradict, is_contradicted, precision
from jaxmle.runtime.opaque import functions_of
from jaxmle.streams.passes import FileResult, Request, Work, results_of

WORKS_HELD = 4  # in a worker's process, with all that is compiled for them

Results = Callable[[Request], Iterator[FileResult]]
Prepare = Callable[[], Work]  # from what travels to what a pass needs; a partial of a module's


def results_by(engine: Any, work: Work, prepare: Prepare) -> Results:
    """From a request to what it finds in each file, in the order of the files.

    Args:
        prepare: makes ``work`` again in another process. What was discovered in a likelihood does
            not travel; the likelihood does.
    """
    if engine is None:
        return partial(_in_this_process, work)
    check_engine(engine)
    return partial(_mapped, engine, packed(prepare, work), work)


def check_engine(engine: Any) -> None:
    """Refuse what is no executor, and a pool of forked processes."""
    if isinstance(engine, type) or not all(hasattr(engine, name) for name in ("map", "submit")):
        raise TypeError(
            "engine must be a concurrent.futures.Executor, such as "
            "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn')) or dask's "
            f"client.get_executor(); got {shown(engine)}"
        )
    context = getattr(engine, "_mp_context", None)
    method = None if context is None else context.get_start_method()
    if method == "fork":
        raise ValueError(
            "engine is a pool of forked processes, and jax hangs in a fork: "
            "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn'))"
        )


def _in_this_process(work: Work, request: Request) -> Iterator[FileResult]:
    return results_of(work, request, range(len(work.reading.files)))


def _mapped(engine: Any, content: bytes, work: Work, request: Request) -> Iterator[FileResult]:
    count = len(work.reading.files)
    asked = request._replace(contradicted=is_contradicted(work.loglik))
    try:
        yield from engine.map(result_of_file, [content] * count, range(count), [asked] * count)
    except BrokenExecutor as error:
        raise RuntimeError(
            f"the engine lost a worker in the pass {request.name!r} and does not go on: "
            f"{error or type(error).__name__}. The same call with a new engine does, with "
            "checkpoint= from where the climb was"
        ) from error


# ---------------------------------------------------------------- what travels


def packed(prepare: Prepare, work: Work) -> bytes:
    """What a worker needs, as bytes: by pickle, and by cloudpickle where the likelihood is a
    function without a name in a module of its own.

    Raises:
        TypeError: it cannot be pickled, with the reason.
        ImportError: cloudpickle is needed and not installed.
    """
    functions = functions_of(work.screening.loglik)
    in_main = any(getattr(each, "__module__", "") == "__main__" for each in functions)
    try:
        if not in_main:
            return pickle.dumps(prepare, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        pass  # a lambda, a function inside a function
    try:
        cloudpickle = import_module("cloudpickle")
    except ImportError as error:
        raise ImportError(
            "the likelihood is a function that workers cannot import, and is sent to them by "
            "cloudpickle, which is not installed: pip install cloudpickle"
        ) from error
    try:
        return cloudpickle.dumps(prepare)
    except Exception as error:  # what a function closes over may raise anything when pickled
        raise TypeError(
            "the likelihood cannot be sent to workers, since something that it closes over cannot "
            f"be pickled: {error}. Let it close over arrays and plain values"
        ) from error


def result_of_file(content: bytes, index: int, request: Request) -> FileResult:
    """What a pass finds in one file, in whatever process this is."""
    _end_with_parent()
    with precision(np.float64), np.errstate(all="ignore"):
        try:
            work = _unpacked(content)
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f"a worker cannot import the likelihood: {error}. Put its module where workers "
                "find it, or define it in the script itself"
            ) from error
        if request.contradicted:
            contradict(work.loglik)
        (result,) = results_of(work, request, [index])
    return result


@functools.lru_cache(maxsize=WORKS_HELD)
def _unpacked(content: bytes) -> Work:
    """The work in these bytes; the same object each time, so that it is compiled once.

    The bytes come from the process that the user started, by the engine's own channel, which
    pickles as well; nothing is unpickled from a file.
    """
    prepare: Prepare = pickle.loads(content)
    return prepare()


@functools.cache
def _end_with_parent() -> None:
    """In a process of a pool: end when the process that started it is gone. A pool's workers wait
    for work for ever when their parent was killed.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="jaxmle ends with its parent", daemon=True).start()
