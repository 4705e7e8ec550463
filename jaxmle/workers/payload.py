"""What workers need, as bytes: read once in each of their processes.

These bytes go from the caller to workers that the caller started, by the engine's own channel,
which pickles as well; nothing is unpickled from a file.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterable
from importlib import import_module

from jaxmle._types import Foreign, Function

PAYLOADS_HELD = 8  # in a worker's process, with all that is compiled for them


def packed(content: Foreign, functions: Iterable[Function]) -> bytes:
    """Anything as bytes: by pickle, and by cloudpickle where it holds a function that has no name
    in a module of its own.

    Args:
        functions: the likelihoods in it.

    Raises:
        TypeError: it cannot be pickled, with the reason.
        ImportError: cloudpickle is needed and not installed.
    """
    try:
        if not any(map(_in_main, functions)):
            return pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        pass  # a lambda, a function inside a function
    try:
        cloudpickle = import_module("cloudpickle")
    except ImportError as error:
        raise ImportError(
            "workers cannot import the likelihood, so it must be sent by cloudpickle, "
            'which is not installed: pip install "jaxmle[lake]"'
        ) from error
    try:
        return cloudpickle.dumps(content)
    except Exception as error:  # what a function closes over may raise anything when pickled
        raise TypeError(
            "the likelihood cannot be sent to workers, because something it closes over "
            f"cannot be pickled: {error}. Let it close over arrays and plain values"
        ) from error


def _in_main(function: Function) -> bool:
    """Whether a function is of ``__main__``, which is another module in a worker."""
    return getattr(function, "__module__", "") == "__main__"


@functools.lru_cache(maxsize=PAYLOADS_HELD)
def unpacked(content: bytes) -> Foreign:
    """What the bytes hold; the same object for the same bytes, so that a likelihood that arrives
    forty times is compiled once.
    """
    return pickle.loads(content)
