"""A model and what is asked of it, as bytes for the workers of an engine, and read there once a
process.

These bytes go from the caller to workers that the caller started, by the engine's own channel,
which pickles as well; nothing is unpickled from a file.
"""

from __future__ import annotations

import functools
import pickle
from importlib import import_module
from typing import Any

from jaxmle._types import Loglik
from jaxmle.lake.request import Request

MODELS_HELD = 8  # in a worker's process, with all that is compiled for them


def packed_work(model: Loglik, request: Request) -> bytes:
    """A model and a request as bytes: by pickle, and by cloudpickle where they hold a function
    that has no name in a module of its own.

    Raises:
        TypeError: they cannot be pickled, with the reason.
        ImportError: cloudpickle is needed and not installed.
    """
    try:
        if not _in_main(model):
            return pickle.dumps((model, request), protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        pass  # a lambda, a function inside a function
    try:
        cloudpickle = import_module("cloudpickle")
    except ImportError as error:
        raise ImportError(
            "the likelihood is a function that workers cannot import, and is sent to them by "
            'cloudpickle, which is not installed: pip install "jaxmle[lake]"'
        ) from error
    try:
        return cloudpickle.dumps((model, request))
    except Exception as error:  # what a function closes over may raise anything when pickled
        raise TypeError(
            f"the likelihood cannot be sent to workers, since something that it closes over "
            f"cannot be pickled: {error}. Let it close over arrays and plain values"
        ) from error


def _in_main(model: Any) -> bool:
    """Whether a function is of ``__main__``, which is another module in a worker."""
    return getattr(model, "__module__", "") == "__main__"


@functools.lru_cache(maxsize=MODELS_HELD)
def unpacked_work(content: bytes) -> tuple[Loglik, Request]:
    """The model and the request; the same objects for the same bytes, so that a model that
    arrives forty times is compiled once.
    """
    return pickle.loads(content)
