"""Kinds of values, for the walk of ``watch``: what cannot change, what is a container, what
hides its state, what is under ``jit``.
"""

from __future__ import annotations

import abc
import collections
import datetime
import decimal
import functools
import logging
import operator
import re
import sys
import types
import typing
from collections.abc import Iterable

import numpy as np

from jaxmle._types import Foreign
from jaxmle.closures.bytecode import of_library

MEMO = "_jaxmle_compiled"  # the attribute of a function that holds what was compiled of it
MAX_NODES = 10_000  # objects beyond which a function is traced again: 10 ms of looking, a trace
ABSENT = "(absent)"
AGAIN = "(again)"

PLAIN = frozenset({int, str, bytes, bool, range, type(None), type(Ellipsis), type(NotImplemented)})
CONTAINERS = frozenset({list, tuple, dict, set, frozenset})
LINK = "_lru_list_elem"  # of a bounded cache, whose results are referents of the cache itself
CACHED_FUNCTION = type(functools.lru_cache(len))
DICT_VIEWS: Foreign = (type({}.keys()), type({}.values()), type({}.items()))
BUILTIN = (types.BuiltinFunctionType, types.MethodWrapperType)
IMMUTABLE = (
    np.dtype,
    type(vars(collections.namedtuple("_", "field"))["field"]),
    types.CodeType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.ClassMethodDescriptorType,
    types.UnionType,
    types.GenericAlias,
    typing.TypeVar,
    re.Pattern,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    decimal.Decimal,
    operator.itemgetter,
    logging.Logger,
)
STATELESS_BASES = frozenset({object, abc.ABC, typing.Generic, typing.Protocol})
# Methods with double underscores that no computation calls.
UNCALLED = frozenset(
    [
        "__repr__",
        "__str__",
        "__format__",
        "__del__",
        "__reduce__",
        "__reduce_ex__",
        "__getstate__",
        "__setstate__",
        "__copy__",
        "__deepcopy__",
        "__init_subclass__",
        "__subclasshook__",
        "__setattr__",
        "__delattr__",
        "__sizeof__",
        "__dir__",
        "__dict__",
        "__weakref__",
        "__slots__",
        "__module__",
        "__doc__",
        "__qualname__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__firstlineno__",
        "__static_attributes__",
        "__orig_bases__",
        "__parameters__",
        "__type_params__",
        "__abstractmethods__",
        "_abc_impl",
        "__dataclass_fields__",
        "__dataclass_params__",
    ]
)
MAKING = frozenset({"__init__", "__new__", "__post_init__"})  # matter where the class is called
FLATTENING = frozenset({"tree_flatten", "tree_unflatten", "tree_flatten_with_keys"})
TABLES = {
    "pandas": ("Series", "DataFrame", "Index"),
    "polars": ("Series", "DataFrame"),
    "pyarrow": ("Array", "ChunkedArray", "RecordBatch", "Table"),
}


def unwrapped(function: Foreign) -> Foreign:
    """The function below any ``jit``, recognised by its ``lower``; a ``custom_jvp`` has a
    ``__wrapped__`` too, and a rule that must stay.
    """
    while is_jitted(function):
        function = function.__wrapped__
    return function


def is_jitted(function: Foreign) -> bool:
    """Whether a function is the work of ``jit``."""
    return (
        not isinstance(function, types.FunctionType | functools.partial | type)
        and hasattr(type(function), "lower")
        and hasattr(function, "__wrapped__")
    )


def has_state(function: types.FunctionType, chains: Iterable[tuple[str, ...]]) -> bool:
    """Whether a function reads anything but its arguments and libraries, or asks for the
    identity of what it reads, which may be a copy. jax knows the body of a loop by its identity,
    whatever it reads.
    """
    captured = function.__closure__ or function.__defaults__ or function.__kwdefaults__
    scope = function.__globals__
    return bool(captured) or any(
        (chain[0] in scope and not is_fixed(scope[chain[0]])) or chain[0] == "id"
        for chain in chains
    )


def is_fixed(value: Foreign) -> bool:
    """Whether a value is a module, function or class of a library."""
    kinds = types.ModuleType | types.FunctionType | types.BuiltinFunctionType | type
    value = unwrapped(value)
    return isinstance(value, kinds) and of_library(value)


def hides(kind: type) -> bool:
    """Whether instances have state outside their attributes and slots, judged by their size."""
    members = {
        name
        for base in kind.__mro__
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType) and name != "__dict__"
    }
    slots = len(members) + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    return bool(kind.__itemsize__) or kind.__basicsize__ > object.__basicsize__ + 8 * slots


def is_table(kind: type) -> str:
    """The library of which a class is one for columns of data; empty where it is none."""
    for library, names in TABLES.items():
        module = sys.modules.get(library)
        if module is not None and issubclass(kind, tuple(getattr(module, name) for name in names)):
            return library
    return ""
