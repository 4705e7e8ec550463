"""What is known about the entries of an array as functions of the parameters: convex, concave,
log-convex, log-concave, constant.

The maximum that ``logsumexp`` subtracts and adds again is treated separately: an entry has a
multiple of it in addition to its flags, which must be zero at the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmle._types import DTypeLike, Tree, ndarray

# What is known of an entry f.
NOTHING = 0
CONVEX = 1
CONCAVE = 2
LOG_CONVEX = 4  # f ≥ 0, and log f is convex
LOG_CONCAVE = 8  # f ≥ 0, and log f is concave
IS_CONSTANT = 16
SHARE = 32  # f and 1 − f are log-concave
MINUS_SHARE = 64  # −f is such a share
AFFINE = CONVEX | CONCAVE
OF_SUMS = CONVEX | CONCAVE | LOG_CONVEX | IS_CONSTANT


class Known(NamedTuple):
    """What is known of the entries of an array as functions of the parameters."""

    flags: ndarray  # integers
    value: ndarray  # of constants; NaN where it may be any number
    # the subtracted maximum: its index, 0 for none, and its multiple. It is added or, with
    # ``factor``, multiplies as exp(multiple · maximum)
    shift: ndarray
    multiple: ndarray
    factor: ndarray

    @property
    def is_plain(self) -> ndarray:
        """Entries without a subtracted maximum."""
        return self.multiple == 0

    def only(self, flags: ndarray) -> Known:
        """The same entries with other flags, without a constant or a maximum."""
        return with_flags(np.where(self.is_plain, flags, NOTHING))


def with_flags(flags: ndarray) -> Known:
    """Entries about which only these flags are known."""
    zero = np.zeros(np.shape(flags))
    none = zero.astype(bool)
    return Known(np.asarray(flags), zero, none.astype(int), zero, none)


def constants(value: Tree) -> Known:
    """What is known about constants."""
    value = np.asarray(value)
    value = value.astype(float) if np.issubdtype(value.dtype, np.number) else value * 1.0
    positive = np.where(value >= 0, LOG_CONVEX | LOG_CONCAVE, NOTHING)
    return with_flags(IS_CONSTANT | AFFINE | positive)._replace(value=value)


def any_constants(shape: tuple[int, ...]) -> Known:
    """Constants that may be any numbers."""
    return constants(np.full(shape, np.nan))


def is_constant(part: Known) -> bool:
    """Whether all entries of an array are constants."""
    return bool(np.all(((part.flags & IS_CONSTANT) > 0) & part.is_plain))


def constant_value(part: Known, dtype: DTypeLike) -> ndarray | None:
    """The value of an array of constants; None of any other, and where it may be any number."""
    known = is_constant(part) and not np.any(np.isnan(part.value))
    return part.value.astype(dtype) if known else None


def unknown(shape: tuple[int, ...]) -> Known:
    """An array about which nothing is known."""
    return with_flags(np.zeros(shape, int))
