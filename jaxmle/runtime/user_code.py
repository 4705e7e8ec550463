"""The user's code: the line that a warning is about, the line of a likelihood that failed under a
trace with what to write there, and a trace that takes long.

Inside a likelihood parameters and data are jax's tracers, which stand for numbers that are not
known yet. Whatever needs the numbers themselves (NumPy, ``if``, ``float()``) fails in jax with an
error about tracers; here it becomes one sentence about the line.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
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

from jaxmle._types import Foreign, FunctionTo, Tree
from jaxmle.closures.in_jax import foreign_calls
from jaxmle.closures.in_sentences import CONVERSIONS_TO_NUMBERS, TRANSFORMED, of_python

OUR_FOLDER = str(Path(__file__).parents[1])
NOT_USERS = (
    f"{OUR_FOLDER}{os.sep}",
    f"{sysconfig.get_path('stdlib')}{os.sep}",
    f"{Path(jax.__file__).parent}{os.sep}",
    "<frozen",
)
SITE = re.compile(r"[\\/](site|dist)-packages[\\/]")
NUMPY_AROUND = (
    "NumPy works only with numbers and cannot be differentiated: loglik must be computed with "
    "jax.numpy, without a function of NumPy or SciPy around it"
)
NO_DATA = "The likelihood needs data, but none were given: fit(loglik, start, data)"
CHARACTERS_OF_A_LINE = 100  # of a longer one only the part that failed is shown
# A likelihood that cannot be called with two arguments.
CALLED_OTHERWISE = (
    r"takes \d+ positional arguments? but [23] were given|missing \d+ required positional argument"
)
TWO_ARGUMENTS = "loglik must be a function of two arguments, (params, data)"
# SciPy's words for an objective function that returns a tracer.
OBJECTIVE = "objective function must return a scalar"
SECONDS_BEFORE_A_WORD = 10.0  # of tracing and compiling
# A likelihood over whole arrays is traced in milliseconds, with special functions in tenths of a
# second, more on a busy machine; one that takes so long may well be a loop.
SECONDS_OF_A_LOOP = 1.0


def is_users(filename: str) -> bool:
    """Whether a file is neither ours, nor jax's, nor Python's, nor an installed package's."""
    is_compiled = filename.endswith(".pyx")  # of an installed package, by a path of its own
    return not (filename.startswith(NOT_USERS) or is_compiled or SITE.search(filename))


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
    part: str  # of the line, what was evaluated

    @property
    def words(self) -> str:
        code = self.frame.f_code
        name = code.co_name.replace("<lambda>", "a lambda")
        file = Path(code.co_filename).name
        text = self.text if len(self.text) <= CHARACTERS_OF_A_LINE else self.part
        shown = f": {text[:CHARACTERS_OF_A_LINE]}" if text else ""
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
    line = linecache.getline(code.co_filename, deepest.tb_lineno, deepest.tb_frame.f_globals)
    part = _part_evaluated(code, deepest.tb_lasti, line)
    return Place(deepest.tb_frame, deepest.tb_lineno, " ".join(line.split()), part)


def _part_evaluated(code: types.CodeType, instruction: int, line: str) -> str:
    """The expression of a line that an instruction evaluates; the line if that is not known, or
    if it goes on in the next.
    """
    positions = next(itertools.islice(code.co_positions(), instruction // 2, None), None)
    if positions is None:
        return line
    first, last, start, stop = positions
    if first != last or start is None or stop is None:
        return line
    return " ".join(line.encode()[start:stop].decode(errors="replace").split()) or line


@contextlib.contextmanager
def explained(params: Tree, data: Tree, signature: str = TWO_ARGUMENTS) -> Iterator[None]:
    """Around a call of the user's likelihood: an error that a beginner's mistake makes is raised
    again as one sentence, with the line and what to write there.

    Args:
        signature: what is said of a function that cannot be called so.
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
        raise kind(sentence.replace(TWO_ARGUMENTS, signature)) from None
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
        return NUMPY_AROUND
    called = _foreign_calls(place, place.part) or _foreign_calls(place, place.text)
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
    if _foreign_calls(place, place.part):
        return _converted(error, place, params, data)
    plain = "leave out the conversion: a jax array can be used as it is"
    remedies = [
        words
        for text in (place.part, place.text)
        for word, words in CONVERSIONS_TO_NUMBERS.items()
        if re.search(word, text)
    ]
    instead = remedies[0] if remedies else plain
    return (
        f"{place.words}. This needs a Python number, but inside a likelihood parameters "
        f"and data have no values yet: {instead}"
    )


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
        return f"{TWO_ARGUMENTS}: {text}"
    for pattern, words in TRANSFORMED.items():
        if re.search(pattern, text):
            return words if place is None else f"{place.words}. {words}"
    if place is None:
        return None
    if OBJECTIVE in text and _foreign_calls(place, place.text):
        return _converted(error, place, params, data)
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
    by_name = re.search(r"string indexing; got idx=\(?'([^']*)'", text)
    if by_name:
        return f"{place.words}. {_array_indexed_by_name(by_name[1], params, data)}"
    if "does not support item assignment" in text or "JAX arrays are immutable" in text:
        return (
            f"{place.words}. A jax array cannot be changed in place: write x = x.at[i].set(value)"
        )
    sentence = _sequence_in_the_place_of_an_array(text, params, data) or of_python(text)
    if sentence is not None:
        return f"{place.words}. {sentence}"
    if re.search(r"operand type.*'dict'", text):
        return (
            f"{place.words}. A dictionary was used as a number: use one of its entries, "
            "such as params['mu']"
        )
    if "Tracer" in text and "'str'" in text:
        return (
            f"{place.words}. A string was used as a number: unpacking a dictionary of "
            "parameters gives its names; use its entries, params['mu']"
        )
    if "Tracer" in text and _foreign_calls(place, place.part):
        return _converted(error, place, params, data)
    if re.search(r"shape|dimension|broadcast", text):
        return f"{place.words}. The shapes do not match: {text.splitlines()[0]}"
    return None


def _array_indexed_by_name(name: str, params: Tree, data: Tree) -> str:
    """A sentence for an array from which an entry was asked by its name."""
    if isinstance(params, dict) and name in params and not isinstance(data, dict):
        return (
            f"An array has no entry {name!r}, but params has: a likelihood is a function of "
            "(params, data), in this order"
        )
    return (
        f"An array has no entry {name!r}: give dictionaries, such as {{'mu': 0.0}} and "
        "{'x': x, 'y': y}, or index by number"
    )


def _is_row(tree: Tree) -> bool:
    return isinstance(tree, list | tuple)


def _sequence_in_the_place_of_an_array(text: str, params: Tree, data: Tree) -> str | None:
    """A sentence for arithmetic on a list of start values, which jax takes for a tree of numbers;
    None if the error says nothing of lists.
    """
    named = re.search(r"\b(list|tuple)\b", text)
    if named is None:
        return None
    for whole, argument in (("params", params), ("data", data)):
        entries = {whole: argument}
        if isinstance(argument, dict):
            entries = {f"{whole}[{name!r}]": entry for name, entry in argument.items()}
        for name, entry in entries.items():
            if type(entry).__name__ == named[1]:
                write = "numpy.array([0.0, 1.0])" if whole == "params" else "numpy.asarray(column)"
                return (
                    f"{name} is a {named[1]}, which jax reads as separate numbers: give an array "
                    f"to compute with all of them at once, such as {write}"
                )
    return None


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
    if missing is None and not ("'dict'" in text and dict in (type(params), type(data))):
        return None
    if missing is None:
        return f"{place.words}. A dictionary has no such attribute: write params['mu'], data['y']"
    return (
        f"{place.words}. Inside a likelihood params and data are jax arrays, not a frame or a "
        f"list, and have no {missing[1]!r}: use jax.numpy functions"
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
    (IndexError, _type_error),
    (TypeError, _type_error),
    (ValueError, _type_error),
)


def _foreign_calls(place: Place, text: str) -> list[tuple[str, str]]:
    """Calls of NumPy, SciPy and math in a line or a part of it, each with what to write instead."""
    return foreign_calls(text, {**place.frame.f_globals, **place.frame.f_locals})


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
