"""The other processes of ``jax.distributed``: agreement among them, and exit when one is lost."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np

from jaxmle._types import ndarray
from jaxmle.parameters.arguments import first_line

T = TypeVar("T")

EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: a launcher starts the processes again
BYTES_OF_MESSAGE = 2048  # of an error that one process has, and all raise
# messages of jax for a collective whose other side is gone, from its transports and its coordinator
SIGNS_OF_LOST_PEER = (
    "gloo",
    "nccl",
    "rccl",
    "connection reset",
    "connection closed",
    "heartbeat",
    "coordination",
    "unavailable:",
    "deadline_exceeded",
)


class PeerLostError(RuntimeError):
    """Another process of ``jax.distributed`` was lost, so sums over all rows are no longer
    possible.

    The process that raises it will exit with code 75, without waiting for the others. Restart all
    of them; with ``checkpoint=`` the search resumes.

    >>> import jaxmle as jm
    >>> issubclass(jm.distributed.PeerLostError, RuntimeError)
    True
    """


@contextlib.contextmanager
def lost_peers_named() -> Iterator[None]:
    """A context for collectives: errors caused by a lost process become a ``PeerLostError``."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # jax 0.10 raises either
        message = str(error)
        is_lost = any(sign in message.lower() for sign in SIGNS_OF_LOST_PEER)
        if jax.process_count() == 1 or not is_lost or isinstance(error, PeerLostError):
            raise
        # jax would wait for the lost process at exit, and then abort this one.
        atexit.register(_leave)
        reason = first_line(error)[:200]
        raise PeerLostError(
            f"process {jax.process_index()} of {jax.process_count()} lost another one: "
            f"{reason}. It will exit with code {EXIT_TRY_AGAIN}; restart all processes, "
            "with checkpoint=folder to resume the search"
        ) from None


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_TRY_AGAIN)


# ---------------------------------------------------------------- agreements


def agreed(read: Callable[[], T]) -> T:
    """``read()``; an error in one process is raised by all, which would otherwise wait for it.

    Raises:
        TypeError, ValueError: its own unchanged, another process's with its number.
    """
    if jax.process_count() == 1:
        return read()
    result = None
    error = None
    try:
        result = read()
    except (TypeError, ValueError) as mine:
        error = mine
    messages = _gathered(_encoded("" if error is None else f"{error}"))
    if error is not None:
        raise error
    for process, content in enumerate(messages):
        text = bytes(content).rstrip(b"\0").decode(errors="replace")
        if text:
            raise ValueError(f"process {process}: {text}")
    return result  # type: ignore[return-value]


def all_counts(number: int) -> list[int]:
    """The number held by each process, in their order."""
    if jax.process_count() == 1:
        return [number]
    return [int(count) for count in _gathered(np.array(number, np.int64)).ravel()]


def of_first_process(vector: ndarray) -> ndarray:
    """The first process's vector, in all processes."""
    return vector if jax.process_count() == 1 else _gathered(vector)[0]


def _encoded(text: str) -> ndarray:
    content = text.encode()[:BYTES_OF_MESSAGE]
    return np.frombuffer(content.ljust(BYTES_OF_MESSAGE, b"\0"), np.uint8)


def _gathered(value: ndarray) -> ndarray:
    """The arrays of all processes, stacked."""
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(value))
