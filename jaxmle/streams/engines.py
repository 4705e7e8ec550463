"""Which processes read the files of a pass: this one, or the workers of an engine.

An engine is any ``concurrent.futures.Executor``. A pass is then a map over the files, and the
results are added in the order of the files, so it does not matter which worker read which file, or
how often a lost task was retried.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from functools import partial
from typing import cast

import numpy as np

from jaxmle.runtime.compile import contradict, is_contradicted, precision
from jaxmle.runtime.opaque import functions_of
from jaxmle.streams.passes import FileResult, Request, Work, results_of
from jaxmle.workers.engine import checked_engine, end_with_parent
from jaxmle.workers.payload import packed, unpacked

WORKS_HELD = 4  # in a worker's process, with all that is compiled for them

Results = Callable[[Request], Iterator[FileResult]]
Prepare = Callable[[], Work]  # from what travels to what a pass needs; a partial of a module's


def results_by(engine: Executor | None, work: Work, prepare: Prepare) -> Results:
    """From a request to what it finds in each file, in the order of the files.

    Args:
        prepare: makes ``work`` again in another process. The likelihood is sent, but not what was
            discovered about it.
    """
    if engine is None:
        return partial(_in_this_process, work)
    functions = functions_of(work.screening.loglik)
    return partial(
        _mapped, cast(Executor, checked_engine(engine)), packed(prepare, functions), work
    )


def _in_this_process(work: Work, request: Request) -> Iterator[FileResult]:
    return results_of(work, request, range(len(work.reading.files)))


def _mapped(engine: Executor, content: bytes, work: Work, request: Request) -> Iterator[FileResult]:
    count = len(work.reading.files)
    asked = request._replace(contradicted=is_contradicted(work.loglik))
    try:
        yield from engine.map(result_of_file, [content] * count, range(count), [asked] * count)
    except BrokenExecutor as error:
        raise RuntimeError(
            f"the engine lost a worker in the pass {request.name!r} and cannot continue: "
            f"{error or type(error).__name__}. Repeat the call with a new engine; with "
            "checkpoint= it resumes the search"
        ) from error


# ---------------------------------------------------------------- what travels


def result_of_file(content: bytes, index: int, request: Request) -> FileResult:
    """What a pass finds in one file, in this process or a worker's."""
    end_with_parent()
    with precision(np.float64), np.errstate(all="ignore"):
        try:
            work = _unpacked(content)
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f"a worker cannot import the likelihood: {error}. Put its module where "
                "workers can find it, or define it in the script itself"
            ) from error
        if request.contradicted:
            contradict(work.loglik)
        (result,) = results_of(work, request, [index])
    return result


@functools.lru_cache(maxsize=WORKS_HELD)
def _unpacked(content: bytes) -> Work:
    """The work unpacked from these bytes; the same object each time, so that it is compiled once.

    The bytes come from the process that the user started, through the engine's own channel, which
    also uses pickle; nothing is unpickled from a file.
    """
    prepare: Prepare = unpacked(content)
    return prepare()
