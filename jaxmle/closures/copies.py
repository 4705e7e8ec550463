"""Portable copies of functions: every NumPy array that a function closes over becomes a fresh view,
arrays of any kind that are narrower than the numbers of the fit are widened (``widths``), and what
``jit`` wraps is laid open.

jax remembers the converted form of a NumPy array by the identity of the array object, as long as
some trace of it lives. An array that was traced with float64 off, even by a trace that failed,
enters a trace with float64 on in single precision, which cannot be compiled; with float64 off it
enters as it was before a change in place. A view is another object. What holds no such array is not
copied.
"""

from __future__ import annotations

import collections
import contextlib
import copy as shallow
import enum
import functools
import types
import weakref

import jax
import numpy as np

from jaxmle._types import Foreign, FunctionTo, ndarray
from jaxmle.closures.bytecode import EVERYTHING, of_library, reads_of
from jaxmle.closures.kinds import CACHED_FUNCTION, MAKING, MEMO, is_jitted, is_table, unwrapped
from jaxmle.closures.watch import Look, look
from jaxmle.closures.widths import READING_BITS, widened, widened_table

ARRAYS = (np.ndarray, np.generic, jax.Array)
CONTAINER_TYPES = dict | tuple | list | collections.deque
BOUND = staticmethod | classmethod
COPIED_RESULTS = types.FunctionType | types.MethodType | functools.partial
UNCOPIED = (enum.Enum, types.BuiltinFunctionType)  # what is equal only to itself
SCOPE = ("__builtins__", "__name__", "__package__", "__spec__", "__file__")
# Floats wider than jax has any, by NumPy's character for them.
WIDE_FLOATS = {"g": np.dtype(np.float64), "G": np.dtype(np.complex128)}


def viewed(leaf: Foreign) -> Foreign:
    """A NumPy array as a view of its own: jax knows arrays by identity, and a trace that failed
    may have known this one in single precision. What has a byte order or a width that jax does
    not have is copied into one that it has.
    """
    if not isinstance(leaf, np.ndarray):
        return leaf
    dtype = leaf.dtype
    if dtype.isnative and dtype.char not in WIDE_FLOATS:
        return leaf.view()
    return leaf.astype(WIDE_FLOATS.get(dtype.char, dtype.newbyteorder("=")))


def portable(function: Foreign, seen: Look) -> Foreign:
    """A copy of a function that shares with it what reads no state, and that does not keep it
    alive.

    Args:
        seen: the look at it, whose ``retained`` has been kept.
    """
    owner = function.__self__ if isinstance(function, types.MethodType) else unwrapped(function)
    roots = {id(function), id(owner), id(unwrapped(function))}
    return _Copies(seen, seen.holders | roots).of_root(function)


def _shallow(value: Foreign) -> Foreign:
    """A shallow copy, or the value where its class does not give one, for whatever reason of
    its own.
    """
    try:
        return shallow.copy(value)
    except Exception:  # __copy__ and __reduce__ of the user's class may raise anything
        return value


def _viewing(cached: Foreign) -> FunctionTo[Foreign]:
    """A function under ``lru_cache``, which returns the same arrays, functions and objects again
    and again, with views and portable copies of them.
    """
    copies: dict[
        int, tuple[Foreign, Foreign]
    ] = {}  # by the identity of a result, which is kept alive

    def fresh(leaf: Foreign) -> Foreign:
        if isinstance(leaf, ARRAYS):
            return widened(viewed(leaf))
        is_function = isinstance(leaf, COPIED_RESULTS) or is_jitted(leaf)
        is_named = isinstance(leaf, type | types.ModuleType) or of_library(type(leaf))
        if is_named and not is_function:
            return leaf
        if id(leaf) not in copies:
            seen = look(leaf)
            copies[id(leaf)] = (leaf, portable(leaf, seen) if seen.holders else leaf)
        return copies[id(leaf)][1]

    @functools.wraps(cached)
    def views(*args: Foreign, **words: Foreign) -> Foreign:
        return jax.tree.map(fresh, cached(*args, **words))

    return views


class _Copies:
    """Copies made so far, by the identity of what they were made of."""

    def __init__(self, seen: Look, holders: frozenset[int]) -> None:
        self.seen = seen
        self.holders = holders
        self.done: dict[int, Foreign] = {}
        self.widens = not seen.names & READING_BITS

    def of_root(self, function: Foreign) -> Foreign:
        """The copy of the likelihood itself; of an object it is the method that is called, so
        that this can be copied too.
        """
        kind = type(function)
        calls = [vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base)]
        is_method = bool(calls) and isinstance(calls[0], types.FunctionType)
        if is_method and id(calls[0]) in self.holders and not of_library(kind):
            return types.MethodType(self.of(calls[0]), self.of(function))
        return self.of(function)

    def of(self, value: Foreign) -> Foreign:
        """The value, or a copy where it holds what has to be copied."""
        key = id(value)
        if key not in self.holders:
            return value
        if key not in self.done:
            self.done[key] = self.fresh(value)
        return self.done[key]

    def fresh(self, value: Foreign) -> Foreign:
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, np.generic | jax.Array):
            return widened(value) if self.widens else value
        if is_jitted(value):
            return (
                self.of(unwrapped(value))
                if id(unwrapped(value)) in self.holders
                else unwrapped(value)
            )
        if isinstance(value, types.FunctionType):
            return self.function(value)
        if isinstance(value, types.MethodType):
            return types.MethodType(self.of(value.__func__), self.of(value.__self__))
        if isinstance(value, functools.partial):
            words = {name: self.of(inner) for name, inner in value.keywords.items()}
            return type(value)(self.of(value.func), *map(self.of, value.args), **words)
        if isinstance(value, types.ModuleType):
            return self.module(value)
        if isinstance(value, type):
            return self.a_class(value)
        if isinstance(value, CACHED_FUNCTION):
            return _viewing(value)
        if library := is_table(type(value)):
            if self.widens:
                return widened_table(value, library)
            return value.copy() if hasattr(value, "index") else value
        if isinstance(value, UNCOPIED):
            return value
        if isinstance(value, weakref.ref):
            inner = self.of(value())
            return value if inner is None or inner is value() else weakref.ref(inner)
        if type(value) in (set, frozenset):
            return type(value)(map(self.of, value))
        return self.container(value) if isinstance(value, CONTAINER_TYPES) else self.object(value)

    def array(self, value: ndarray) -> ndarray:
        if value.dtype != object:
            fresh = widened(viewed(value)) if self.widens else viewed(value)
            getattr(fresh, "__dict__", {}).update(getattr(value, "__dict__", {}))  # of a subclass
            return fresh
        fresh = value.copy()
        for place, inner in np.ndenumerate(value):
            fresh[place] = self.of(inner)
        return fresh

    def container(self, value: Foreign) -> Foreign:
        """A dictionary, list, tuple or deque of any class."""
        if type(value) is tuple:
            return tuple(map(self.of, value))
        if isinstance(value, tuple):
            fresh = tuple.__new__(type(value), map(self.of, value))
            vars(fresh).update(vars(value)) if hasattr(value, "__dict__") else None
            return fresh
        fresh = self.done[id(value)] = _shallow(value)
        if fresh is value:
            return value
        if isinstance(value, dict):
            ordered = isinstance(value, collections.OrderedDict)
            kind: Foreign = collections.OrderedDict if ordered else dict
            inside = {self.of(name): self.of(inner) for name, inner in kind.items(value)}
            if any(new is not old for new, old in zip(inside, kind.keys(value), strict=True)):
                kind.clear(fresh)  # keys that are equal only to themselves have been copied
            for name, inner in inside.items():
                kind.__setitem__(fresh, name, inner)
        elif isinstance(value, list | collections.deque):
            for place, inner in enumerate(tuple(value)):
                fresh[place] = self.of(inner)
        return fresh

    def object(self, value: Foreign) -> Foreign:
        """An object with its attributes and slots, and the arrays and methods of its class as
        attributes of its own.
        """
        kind = type(value)
        try:
            fresh = object.__new__(kind)
        except TypeError:  # an extension type
            fresh = _shallow(value)
        if fresh is value:
            return value
        self.done[id(value)] = fresh
        for base in kind.__mro__:
            for member in vars(base).values():
                if isinstance(member, types.MemberDescriptorType):
                    self.slot(member, value, fresh)
        inside = getattr(fresh, "__dict__", None)
        if inside is not None:
            if EVERYTHING not in self.seen.names and jax.tree_util.all_leaves([value]):
                inside.update(self.of_class(kind, fresh))
            inside.update({k: self.of(v) for k, v in vars(value).items() if not k.startswith(MEMO)})
        return fresh

    def slot(self, member: types.MemberDescriptorType, value: Foreign, fresh: Foreign) -> None:
        try:
            held = member.__get__(value)
        except AttributeError:  # an empty slot
            return
        copied = self.of(held)
        with contextlib.suppress(AttributeError, TypeError):  # of a slot that only C writes
            member.__set__(fresh, copied)

    def of_class(self, kind: type, fresh: Foreign) -> dict[str, Foreign]:
        """The members of a user's class that have to be copied, by name, as attributes for an
        instance.
        """
        copied: dict[str, Foreign] = {}
        for base in reversed(kind.__mro__):
            for name, member in vars(base).items():
                inner = member.__func__ if isinstance(member, BOUND) else member
                if name.startswith("__") or id(inner) not in self.holders:
                    continue
                if isinstance(member, CONTAINER_TYPES | np.ndarray | staticmethod):
                    copied[name] = self.of(inner)
                elif isinstance(member, types.FunctionType) or is_jitted(member):
                    copied[name] = types.MethodType(self.of(member), fresh)
                elif isinstance(member, classmethod):
                    copied[name] = types.MethodType(self.of(inner), kind)
        return copied

    def a_class(self, value: type) -> type:
        """A class that only holds names together, as a subclass with copies of what it holds."""
        inside = {name for base in value.__mro__[:-1] for name in vars(base)}
        is_namespace = type(value) is type and not inside & MAKING and not of_library(value)
        if not is_namespace or value.__base__ is not object or id(value) in self.seen.kinds:
            return value
        fresh = self.done[id(value)] = type(value.__name__, (value,), {})
        for name, member in vars(value).items():
            inner = member.__func__ if isinstance(member, BOUND) else member
            if id(inner) in self.holders and not name.startswith("__"):
                copy = self.of(inner)
                setattr(fresh, name, type(member)(copy) if isinstance(member, BOUND) else copy)
        return fresh

    def module(self, value: types.ModuleType) -> types.ModuleType:
        fresh = self.done[id(value)] = types.ModuleType(value.__name__)
        vars(fresh).update({name: self.of(inner) for name, inner in vars(value).items()})
        return fresh

    def function(self, value: types.FunctionType) -> types.FunctionType:
        cells = tuple(types.CellType() for _ in value.__closure__ or ())
        scope = self.scope(value)
        fresh = types.FunctionType(value.__code__, scope, value.__name__, None, cells or None)
        self.done[id(value)] = fresh  # before the walk: functions may refer to themselves
        if scope is not value.__globals__:
            scope.update({n: self.of(v) for n, v in value.__globals__.items() if n in scope})
        fresh.__defaults__ = value.__defaults__ and tuple(map(self.of, value.__defaults__))
        words = value.__kwdefaults__
        fresh.__kwdefaults__ = words and {name: self.of(inner) for name, inner in words.items()}
        fresh.__dict__.update(
            {k: self.of(v) for k, v in value.__dict__.items() if not k.startswith(MEMO)}
        )
        for new, old in zip(cells, value.__closure__ or (), strict=True):
            try:
                held = old.cell_contents
            except ValueError:  # a name not bound yet stays unbound
                continue
            new.cell_contents = self.of(held)
        return fresh

    def scope(self, value: types.FunctionType) -> dict[str, Foreign]:
        """The globals of a copy: the function's own, unless one that it loads has to be copied."""
        outer = value.__globals__
        if of_library(value):
            return outer
        loaded = [chain[0] for chain in reads_of(value.__code__).chains]
        names = [name for name in loaded if name in outer]
        asks = "id" in loaded and "id" not in outer
        if not asks and not any(id(outer[name]) in self.holders for name in names):
            return outer
        inside = {name: outer[name] for name in (*SCOPE, *names) if name in outer}
        return inside | {"id": self.identity} if asks else inside

    def identity(self, value: Foreign) -> int:
        """``id`` for a function that was copied: of a copy that of its original."""
        return next((key for key, copy in self.done.items() if copy is value), id(value))
