"""The user's code: the line that a warning is about, the line of a likelihood that failed under a
trace with what to write there, and a trace that takes long.

Inside a likelihood parameters and data are jax's tracers, which stand for numbers that are not
known yet. Whatever needs the numbers themselves (NumPy, ``if``, ``float()``) fails in jax with an
error about tracers; here it becomes one sentence about the line.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import re
import sys
import sysconfig
import threading
import time
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import scipy.special

from jaxmle._types import Foreign, FunctionTo, Tree

OUR_FOLDER = str(Path(__file__).parents[1])
NOT_USERS = (
    f"{OUR_FOLDER}{os.sep}",
    f"{sysconfig.get_path('stdlib')}{os.sep}",
    f"{Path(jax.__file__).parent}{os.sep}",
    "<frozen",
)
SITE = re.compile(r"[\\/](site|dist)-packages[\\/]")
NO_DATA = "The likelihood needs data, but none were given: fit(loglik, start, data)"
# A likelihood that cannot be called with two arguments.
CALLED_OTHERWISE = (
    r"takes \d+ positional arguments? but 2 were given|missing \d+ required positional argument"
)
SECONDS_BEFORE_A_WORD = 10.0  # of tracing and compiling
# A likelihood over whole arrays is traced in milliseconds, with special functions in tenths of a
# second, more on a busy machine; one that takes so long may well be a loop.
SECONDS_OF_A_LOOP = 1.0


def is_users(filename: str) -> bool:
    """Whether a file is neither ours, nor jax's, nor Python's, nor an installed package's."""
    return not filename.startswith(NOT_USERS) and SITE.search(filename) is None


def is_of_user(function: Foreign) -> bool:
    """Whether a function, or what it is a partial application of, is written in the user's code."""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None)
    return code is not None and is_users(code.co_filename)


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn with the line of the user's code that called jaxmle."""
    frame: types.FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level if frame is not None else 2)


# ---------------------------------------------------------------- what failed, in a sentence


class Place(NamedTuple):
    """A line of the user's code: the frame, its number, and its text."""

    frame: types.FrameType
    number: int
    text: str

    @property
    def words(self) -> str:
        code = self.frame.f_code
        name = code.co_name.replace("<lambda>", "a lambda")
        file = Path(code.co_filename).name
        shown = f": {self.text}" if self.text else ""
        return f"line {self.number} of {name} ({file}){shown}"


def place_of(error: BaseException) -> Place | None:
    """The deepest line of the user's code in the traceback of an error."""
    deepest = None
    trace = error.__traceback__
    while trace is not None:
        if is_users(trace.tb_frame.f_code.co_filename):
            deepest = trace
        trace = trace.tb_next
    if deepest is None:
        return None
    code = deepest.tb_frame.f_code
    text = linecache.getline(code.co_filename, deepest.tb_lineno, deepest.tb_frame.f_globals)
    return Place(deepest.tb_frame, deepest.tb_lineno, " ".join(text.split())[:100])


@contextlib.contextmanager
def explained(params: Tree, data: Tree) -> Iterator[None]:
    """Around a call of the user's likelihood: an error that a beginner's mistake makes is raised
    again as one sentence, with the line and what to write there.
    """
    state = getattr(_UNDER_WAY, "state", None)
    began = time.perf_counter()
    if state is not None:
        state.began = began
    try:
        yield
    except Exception as error:  # whatever the user's function raises
        sentence = sentence_of(error, params, data)
        if sentence is None:
            raise
        kind = ValueError if isinstance(error, KeyError | ValueError) else TypeError
        raise kind(sentence) from None
    finally:
        if state is not None:
            state.seconds = max(state.seconds, time.perf_counter() - began)
            state.began = None


def sentence_of(error: Exception, params: Tree, data: Tree) -> str | None:
    """What a mistake in a likelihood is and what to write; None for an error of another kind."""
    for kind, explain in EXPLANATIONS:
        if isinstance(error, kind):
            place = place_of(error)
            words = explain(error, place, params, data)
            if words is not None:
                return words
    return None


def _converted(error: Exception, place: Place | None, params: Tree, data: Tree) -> str | None:
    """NumPy, SciPy or Python's math met a tracer."""
    if place is None:
        return None
    called = _foreign_calls(place)
    what = f"{called[0][0]} works only with numbers" if called else "NumPy works only with numbers"
    write = called[0][1] if called else "the function of jax.numpy, such as jnp.log"
    return (
        f"{place.words}. {what} and cannot be differentiated: inside a likelihood write "
        f"{write} (import jax.numpy as jnp)"
    )


def _truth(error: Exception, place: Place | None, params: Tree, data: Tree) -> str | None:
    """A condition on a tracer."""
    if place is None:
        return None
    text = place.text
    write = "jnp.where(condition, a, b)"
    what = "if"
    for word, (words, instead) in CONDITIONS.items():
        if re.search(word, text):
            what = words
            write = instead
            break
    return (
        f"{place.words}. {what} needs True or False, but inside a likelihood parameters "
        f"and data have no values yet: write {write}"
    )


CONDITIONS = {
    r"\bmax\(": ("max()", "jnp.maximum(a, b)"),
    r"\bmin\(": ("min()", "jnp.minimum(a, b)"),
    r"\bsorted\(": ("sorted()", "jnp.sort(x)"),
    r"^\s*while\b": ("while", "jax.lax.while_loop, or a fixed number of steps by jax.lax.scan"),
    r"^\s*assert\b": (
        "assert",
        "the check before the fit, or a constraint such as jaxmle.positive",
    ),
    r"\band\b": ("and", "(a) & (b), with jnp.where"),
    r"\bor\b": ("or", "(a) | (b), with jnp.where"),
    r"\bnot\b": ("not", "~(a), with jnp.where"),
}


def _concrete(error: Exception, place: Place | None, params: Tree, data: Tree) -> str | None:
    """A tracer that should become a Python number."""
    if place is None:
        return None
    if _foreign_calls(place):
        return _converted(error, place, params, data)
    plain = "leave out the conversion: a jax array can be used as it is"
    instead = next(
        (words for word, words in CONVERSIONS_TO_NUMBERS.items() if re.search(word, place.text)),
        plain,
    )
    return (
        f"{place.words}. This needs a Python number, but inside a likelihood parameters "
        f"and data have no values yet: {instead}"
    )


CONVERSIONS_TO_NUMBERS = {
    r"\bfloat\(": "leave float() out",
    r"\bint\(": "write x.astype(int), or close over a plain number",
    r"\.item\(": "leave .item() out",
    r"\.tolist\(": "leave out .tolist() and compute with the whole array",
    r"\brange\(": "loop over data['x'].shape[0], which is known, or use jax.lax.scan",
    r"\bround\(": "write jnp.round(x)",
    r"\[": "index a jax.numpy array, jnp.asarray(table)[i], not a list or a NumPy array",
}


def _mask(error: Exception, place: Place | None, params: Tree, data: Tree) -> str | None:
    """Indexing by a condition."""
    if place is None:
        return None
    return (
        f"{place.words}. A mask selects an unknown number of rows inside a likelihood: "
        "write jnp.where(mask, a, b) over all rows, or select the rows before the fit"
    )


def _type_error(error: Exception, place: Place | None, params: Tree, data: Tree) -> str | None:
    """Mistakes that Python itself finds."""
    text = str(error)
    if data is None and "NoneType" in text:
        where = "" if place is None else f"{place.words}. "
        return f"{where}{NO_DATA}"
    if re.search(CALLED_OTHERWISE, text) and _outermost(error):
        return f"loglik must be a function of two arguments, (params, data): {text}"
    if place is None:
        return None
    if "nteger scalar arrays can be converted" in text:
        return _concrete(error, place, params, data)
    by_name = re.match(r"(list|tuple) indices must be integers or slices, not str", text)
    if by_name:
        given = [name for name, tree in (("params", params), ("data", data)) if _is_row(tree)]
        whose = " and ".join(given) or "what is indexed"
        return (
            f"{place.words}. {whose} is a {by_name[1]}, which has no names: give dictionaries, "
            "such as {'mu': 0.0} and {'x': x, 'y': y}, or index by number"
        )
    if "does not support item assignment" in text or "JAX arrays are immutable" in text:
        return (
            f"{place.words}. A jax array cannot be changed in place: write x = x.at[i].set(value)"
        )
    if re.search(r"unsupported operand type\(s\).*'dict'", text) or "bad operand type" in text:
        return (
            f"{place.words}. A dictionary was used as a number: use one of its entries, "
            "such as params['mu']"
        )
    if "Tracer" in text and "'str'" in text:
        return (
            f"{place.words}. A string was used as a number: unpacking a dictionary of "
            "parameters gives its names; use its entries, params['mu']"
        )
    if "Tracer" in text and _foreign_calls(place):
        return _converted(error, place, params, data)
    if re.search(r"shape|dimension|broadcast", text):
        return f"{place.words}. The shapes do not match: {text.splitlines()[0]}"
    return None


def _is_row(tree: Tree) -> bool:
    return isinstance(tree, list | tuple)


def _assertion(error: Exception, place: Place | None, params: Tree, data: Tree) -> str | None:
    """A numpyro model in the place of a log-likelihood."""
    names = ("" if place is None else place.frame.f_code.co_names) or ()
    if place is None or not {"sample", "numpyro"} & set(names):
        return None
    return (
        f"{place.words}. A model of numpyro is no log-likelihood: give "
        "jaxmle.from_numpyro(model, data), with data a dictionary of its arguments"
    )


def _outermost(error: Exception) -> bool:
    """Whether an error was raised by the call of the likelihood itself, not inside it."""
    place = place_of(error)
    return place is None or place.frame.f_back is None or "(" not in place.text


def _key_error(error: Exception, place: Place | None, params: Tree, data: Tree) -> str | None:
    """An entry of the parameters or a leaf of the data that is not there."""
    key = error.args[0] if error.args else None
    if place is None or not isinstance(key, str | int):
        return None
    for name, tree in (("params", params), ("data", data)):
        if isinstance(tree, dict) and key not in tree and re.search(_reads(name, key), place.text):
            return f"{place.words}. {name} has no entry {key!r}; it has {sorted(map(str, tree))}"
    trees = [tree for tree in (params, data) if isinstance(tree, dict)]
    if trees and all(key not in tree for tree in trees):
        known = ", ".join(str(sorted(map(str, tree))) for tree in trees)
        return f"{place.words}. Neither params nor data has an entry {key!r}; they have {known}"
    if len(trees) == 2 and re.search(_indexed(key), place.text):
        whose = "params" if key in params else "data"
        return (
            f"{place.words}. {key!r} is an entry of {whose}: the arguments of a "
            "likelihood are (params, data), in this order"
        )
    return None


def _reads(name: str, key: str | int) -> str:
    return rf"\b{name[0]}\w*{_indexed(key)}"


def _indexed(key: str | int) -> str:
    return rf"\[\s*['\"]?{re.escape(str(key))}['\"]?\s*\]"


def _attribute(error: Exception, place: Place | None, params: Tree, data: Tree) -> str | None:
    """A method of pandas or of a list, of a tracer."""
    text = str(error)
    if place is None:
        return None
    if data is None and "NoneType" in text:
        return f"{place.words}. {NO_DATA}"
    missing = re.search(r"Tracer.*has no attribute '?(\w+)'?", text)
    if missing is None and not ("dict" in text and isinstance(params, dict)):
        return None
    if missing is None:
        return f"{place.words}. A dictionary has no such attribute: write params['mu'], data['y']"
    return (
        f"{place.words}. Inside a likelihood data are jax arrays, not a frame or a list, "
        f"and have no {missing[1]!r}: use jax.numpy functions"
    )


EXPLANATIONS: tuple[tuple[type[Exception], FunctionTo[str | None]], ...] = (
    (jax.errors.TracerArrayConversionError, _converted),
    (jax.errors.TracerBoolConversionError, _truth),
    (jax.errors.NonConcreteBooleanIndexError, _mask),
    (jax.errors.TracerIntegerConversionError, _concrete),
    (jax.errors.ConcretizationTypeError, _concrete),
    (KeyError, _key_error),
    (AttributeError, _attribute),
    (AssertionError, _assertion),
    (TypeError, _type_error),
    (ValueError, _type_error),
)


def _foreign_calls(place: Place) -> list[tuple[str, str]]:
    """Calls of NumPy, SciPy and math on a line, each with what to write instead."""
    names = {**place.frame.f_globals, **place.frame.f_locals}
    calls = []
    for match in re.finditer(r"([A-Za-z_]\w*)((?:\.\w+)*)\s*\(", place.text):
        head = match[1]
        tail = match[2]
        held = names.get(head)
        if held is None:
            continue
        instead = _instead(held, tail)
        if instead is not None:
            calls.append((f"{head}{tail}()", instead))
    return calls


def _instead(held: object, tail: str) -> str | None:
    """What stands in jax for a function of NumPy, SciPy or math."""
    if isinstance(held, types.ModuleType):
        module = held.__name__
        if module in ("numpy", "math"):
            return f"jnp{tail}" if tail else None
        if module.startswith("scipy"):
            return f"jax.{module}{tail}"
        return None
    module = getattr(held, "__module__", None) or type(held).__module__
    name = str(getattr(held, "__name__", None) or getattr(held, "name", ""))
    if isinstance(held, np.ufunc) and getattr(scipy.special, name, None) is held:
        return f"jax.scipy.special.{name}"
    if isinstance(held, types.BuiltinFunctionType) and module == "math":
        return f"jnp.{name}"
    if str(module).startswith("numpy") or type(held).__module__ == "numpy":
        return f"jnp.{name}{tail}"
    if str(module).startswith("scipy.stats"):
        return f"jax.scipy.stats.{name}{tail}"
    if str(module).startswith("scipy.special"):
        return f"jax.scipy.special.{name}{tail}"
    return None


# ---------------------------------------------------------------- a trace that takes long


class _State:
    """What a first call of a compiled piece has seen of the user's function."""

    began: float | None = None  # when a call of it began that is under way
    seconds: float = 0.0  # that the longest of its calls took


class _UnderWay(threading.local):
    state: _State | None = None


_UNDER_WAY = _UnderWay()


@contextlib.contextmanager
def said_if_long(name: str) -> Iterator[None]:
    """Around a first call, which traces and compiles: after ten seconds a line on standard error
    where the function is traced so slowly that it must write out a loop.
    """
    state = _State()
    before = _UNDER_WAY.state
    timer = threading.Timer(SECONDS_BEFORE_A_WORD, _say, (name, state))
    timer.daemon = True
    timer.start()
    _UNDER_WAY.state = state
    try:
        yield
    finally:
        _UNDER_WAY.state = before
        timer.cancel()


def _say(name: str, state: _State) -> None:
    now = time.perf_counter()
    under_way = 0.0 if state.began is None else now - state.began
    if max(state.seconds, under_way) > SECONDS_OF_A_LOOP:
        print(
            f"jaxmle: {name} has been compiling for ten seconds. If it loops over rows in Python, "
            "every step of the loop is compiled: compute with whole arrays instead, or write the "
            "loop with jax.lax.scan.",
            file=sys.stderr,
        )
