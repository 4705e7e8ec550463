"""Six small classic data sets, each with its source and the terms it is passed on."""

from .catalogue import Dataset as Dataset
from .catalogue import load as load
from .catalogue import names as names

__all__ = ["Dataset", "load", "names"]


def __dir__() -> list[str]:
    return sorted(__all__)
