"""Checks of single arguments used by every room: counts, numbers, levels, choices, flags, names and
folders.

Each returns the plain Python value, so NumPy integers and 0-d arrays are accepted as numbers. Each
rejects bad values before any comparison with an array, which has no truth value.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from jaxmle._types import Foreign, Function, Tree

LARGEST_COUNT = 2**31 - 1  # what an index of 32 bits holds
LARGEST_ALPHA = 0.1  # what is called alpha elsewhere: the probability outside an interval
CHARACTERS_SHOWN = 60  # characters of a value that a message repeats


def first_line(error: BaseException) -> str:
    """The first line of an error, without the trace that some append."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def shown(value: object) -> str:
    """A value as shown in a message: short ones as written, arrays and long ones by their kind."""
    if hasattr(value, "shape"):
        array: Foreign = value
        kind = getattr(array, "dtype", "")
        return f"{type(value).__name__} of {kind} {np.shape(array)}".replace("  ", " ")
    if isinstance(value, dict | set | frozenset):
        return f"a {type(value).__name__} of {len(value)} entries"
    text = repr(value)
    if len(text) > CHARACTERS_SHOWN or "\n" in text or " at 0x" in text:
        return f"a {type(value).__name__}"
    return text


def _scalar(value: Tree) -> Tree:
    """The Python number in a NumPy scalar or a 0-d NumPy or jax array; anything else unchanged."""
    if isinstance(value, np.generic):
        return value.item()
    is_array = isinstance(value, np.ndarray) or type(value).__module__.startswith("jax")
    if is_array and not isinstance(value, np.ma.MaskedArray) and np.shape(value) == ():
        return np.asarray(value).item()
    return value


def check_count(name: str, value: object, least: int = 0, most: int = LARGEST_COUNT) -> int:
    """An integer of at least ``least``, as a Python integer.

    >>> check_count("draws", np.int64(10), 1)
    10
    """
    number = _scalar(value)
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        size = {0: "zero or more", 1: "a positive one"}.get(least, f"{least} or more")
        limit = f" and at most {most}" if isinstance(number, int) and number > most else ""
        raise ValueError(f"{name} must be a whole number, {size}{limit}; got {shown(value)}")
    return number


def check_number(
    name: str, value: object, low: float = -math.inf, high: float = math.inf, closed: bool = False
) -> float:
    """A finite real number between ``low`` and ``high``, which themselves are in only where
    ``closed``.

    >>> check_number("width", 2, low=0.0)
    2.0
    """
    number = _scalar(value)
    is_real = isinstance(number, int | float) and not isinstance(number, bool)
    try:
        real = float(number) if is_real else math.nan
    except OverflowError:  # an integer beyond the range of floats
        real = math.inf
    inside = low <= real <= high if closed else low < real < high
    if not math.isfinite(real) or not inside:
        bounds = ""
        kind = "a finite number"
        if low == 0.0 and not closed and not math.isfinite(high):
            kind = "a positive number"
        elif math.isfinite(low) and math.isfinite(high):
            bounds = f" between {low:g} and {high:g}"
        elif math.isfinite(low):
            bounds = f" of at least {low:g}" if closed else f" above {low:g}"
        elif math.isfinite(high):
            bounds = f" of at most {high:g}" if closed else f" below {high:g}"
        raise ValueError(f"{name} must be {kind}{bounds}; got {shown(value)}")
    return real


def check_end(name: str, value: object) -> float:
    """An end of an interval: a real number, or ±infinity.

    >>> check_end("a", -math.inf)
    -inf
    """
    number = _scalar(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        kind = TypeError if value is None else ValueError
        hint = f". No limit is {name}=-inf or {name}=inf" if value is None else ""
        raise kind(
            f"{name} is an end of an interval and must be a number; got {shown(value)}{hint}"
        )
    try:
        return float(number)
    except OverflowError:
        raise ValueError(
            f"{name} is too large for a floating-point number; give math.inf"
        ) from None


def check_level(level: object) -> float:
    """A coverage strictly between 0 and 1.

    >>> check_level(0.9)
    0.9
    """
    number = _scalar(level)
    if not isinstance(number, float) or not 0 < number < 1:
        percent = isinstance(number, int | float) and not isinstance(number, bool) and number > 1
        hint = f": {number} per cent is {number / 100:g}" if percent and number < 100 else ""
        raise ValueError(f"level must lie between 0 and 1, such as 0.95{hint}; got {shown(level)}")
    if number <= LARGEST_ALPHA:
        raise ValueError(
            f"level is the coverage of the interval: for alpha = {number:g} write "
            f"level={1 - number:g}; got {number:g}"
        )
    return number


def check_choice(name: str, value: object, choices: Collection[str]) -> str:
    """One of a few words.

    >>> check_choice("side", "upper", ("lower", "upper"))
    'upper'
    """
    if not isinstance(value, str) or value not in choices:
        words = list(map(repr, choices))
        several = f"one of {', '.join(choices)}" if len(words) > 3 else ""
        few = f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
        raise ValueError(f"{name} must be {several or few}; got {shown(value)}")
    return str(value)


def check_flag(name: str, value: object, may_be_none: bool = False) -> bool | None:
    """True or False; None too where ``may_be_none``.

    >>> check_flag("progress", None, may_be_none=True)
    """
    if value is None and may_be_none:
        return None
    if not isinstance(value, bool | np.bool_):
        words = "True, False or None" if may_be_none else "True or False"
        raise TypeError(f"{name} must be {words}; got {shown(value)}")
    return bool(value)


def check_function(name: str, value: object, example: str) -> Function:
    """Something callable that is not a class.

    >>> check_function("g", abs, "lambda x: x") is abs
    True
    """
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"{name} must be a function, such as {example}; got {shown(value)}")
    return value


def check_path(name: str, value: object, what: str) -> Path:
    """A path, given as text or as a path object.

    Args:
        what: what it is the path of, with an example.

    >>> check_path("checkpoint", "run1", "a folder of its own, such as 'run1'").name
    'run1'
    """
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise TypeError(f"{name} must be the path of {what}; got {shown(value)}")
    if "\0" in str(value):
        raise ValueError(
            f"{name}={str(value)!r} contains a null character, which is not allowed in a path"
        )
    return Path(value)


def check_seed(name: str, value: object) -> int:
    """A seed: an integer, zero or more."""
    number = _scalar(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise TypeError(
            f"{name} must be an integer, the seed of the simulation; got {shown(value)}"
        )
    return number
