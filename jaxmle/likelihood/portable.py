"""Portable copies of functions: every NumPy array that a function closes over becomes a fresh view, and what ``jit`` wraps is laid open.

jax remembers the converted form of a NumPy array by the identity of the array object, as long as some trace of it lives. An array that was
traced with float64 off, even by a trace that failed, enters a trace with float64 on in single precision, which cannot be compiled; with
float64 off it enters as it was before a change in place. A view is another object. What holds no such array is not copied.
"""

from __future__ import annotations

import collections
import copy as shallow
import enum
import functools
import types
from typing import Any

import numpy as np

from jaxmle.likelihood.bytecode import of_library, reads_of
from jaxmle.likelihood.watch import CACHED, MEMO, is_jitted, unwrapped

KINDS = (dict, tuple, list, collections.deque)
UNCOPIED = (type, enum.Enum, types.BuiltinFunctionType, CACHED)  # what is equal only to itself
SCOPE = ("__builtins__", "__name__", "__package__", "__spec__", "__file__")


def portable(function: Any, holders: frozenset[int]) -> Any:
    """A copy of a function that shares with it only what holds no NumPy array, and that does not keep it alive.

    Args:
        holders: identities of what holds NumPy arrays or functions under ``jit``.
    """
    owner = function.__self__ if isinstance(function, types.MethodType) else unwrapped(function)
    return _Copies(holders | {id(function), id(owner), id(unwrapped(function))}).of_root(function)


class _Copies:
    """Copies made so far, by the identity of what they were made of."""

    def __init__(self, holders: frozenset[int]) -> None:
        self.holders = holders
        self.done: dict[int, Any] = {}

    def of_root(self, function: Any) -> Any:
        """The copy of the likelihood itself; of an object it is the method that is called, so that this can be copied too."""
        call = getattr(type(function), "__call__", None)
        if isinstance(call, types.FunctionType) and id(call) in self.holders:
            if not of_library(type(function)):
                return types.MethodType(self.of(call), self.of(function))
        return self.of(function)

    def of(self, value: Any) -> Any:
        """The value, or a copy where it holds what has to be copied."""
        key = id(value)
        if key not in self.holders:
            return value
        if key not in self.done:
            self.done[key] = self.fresh(value)
        return self.done[key]

    def fresh(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return self.array(value)
        if is_jitted(value):
            return self.of(unwrapped(value)) if id(unwrapped(value)) in self.holders else unwrapped(value)
        if isinstance(value, types.FunctionType):
            return self.function(value)
        if isinstance(value, types.MethodType):
            return types.MethodType(self.of(value.__func__), self.of(value.__self__))
        if isinstance(value, functools.partial):
            words = {name: self.of(inner) for name, inner in value.keywords.items()}
            return type(value)(self.of(value.func), *map(self.of, value.args), **words)
        if isinstance(value, types.ModuleType):
            return self.module(value)
        if isinstance(value, UNCOPIED):
            return value
        return self.container(value) if isinstance(value, KINDS) else self.object(value)

    def array(self, value: np.ndarray) -> np.ndarray:
        if value.dtype != object:
            return value.view()
        fresh = value.copy()
        for place, inner in np.ndenumerate(value):
            fresh[place] = self.of(inner)
        return fresh

    def container(self, value: Any) -> Any:
        """A dictionary, list, tuple or deque of any class."""
        if type(value) is tuple:
            return tuple(map(self.of, value))
        if isinstance(value, tuple):
            fresh = tuple.__new__(type(value), map(self.of, value))
            vars(fresh).update(vars(value)) if hasattr(value, "__dict__") else None
            return fresh
        try:
            fresh = self.done[id(value)] = shallow.copy(value)
        except Exception:  # a class that cannot be copied, for any reason of its own
            return value
        if isinstance(value, dict):
            for name, inner in dict.items(value):
                dict.__setitem__(fresh, name, self.of(inner))
        elif isinstance(value, list | collections.deque):
            for place, inner in enumerate(tuple(value)):
                fresh[place] = self.of(inner)
        return fresh

    def object(self, value: Any) -> Any:
        """An object with its attributes and slots, and the arrays and methods of its class as attributes of its own."""
        kind = type(value)
        try:
            fresh = object.__new__(kind)
        except TypeError:  # an extension type
            return value
        self.done[id(value)] = fresh
        for base in kind.__mro__:
            for member in vars(base).values():
                if isinstance(member, types.MemberDescriptorType):
                    self.slot(member, value, fresh)
        inside = getattr(fresh, "__dict__", None)
        if inside is not None:
            inside.update(self.of_class(kind, fresh))
            inside.update(
                {k: self.of(v) for k, v in vars(value).items() if not k.startswith(MEMO)}
            )
        return fresh

    def slot(self, member: types.MemberDescriptorType, value: Any, fresh: Any) -> None:
        try:
            member.__set__(fresh, self.of(member.__get__(value)))
        except (AttributeError, TypeError):
            pass  # an empty slot, or one that only C writes

    def of_class(self, kind: type, fresh: Any) -> dict[str, Any]:
        """Arrays and plain methods of a class of the user's that have to be copied, by their names."""
        found: dict[str, Any] = {}
        for base in reversed(kind.__mro__):
            for name, member in vars(base).items():
                if id(member) not in self.holders or name.startswith("__"):
                    continue
                if isinstance(member, types.FunctionType):
                    found[name] = types.MethodType(self.of(member), fresh)
                elif isinstance(member, np.ndarray | list | dict | tuple):
                    found[name] = self.of(member)
        return found

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
                new.cell_contents = self.of(old.cell_contents)
            except ValueError:
                pass  # a name not bound yet stays unbound
        return fresh

    def scope(self, value: types.FunctionType) -> dict[str, Any]:
        """The globals of a copy: the function's own, unless one that it loads has to be copied."""
        outer = value.__globals__
        names = [chain[0] for chain in reads_of(value.__code__).chains if chain[0] in outer]
        if of_library(value) or not any(id(outer[name]) in self.holders for name in names):
            return outer
        return {name: outer[name] for name in (*SCOPE, *names) if name in outer}


