"""What a function depends on beyond its arguments, found by kind and written down so that a change
is seen.

``look`` walks from a function to everything that its result can depend on and writes a list of
facts, in the order in which they are met:

- of a function its code, cells, defaults, attributes, and the globals that its code loads, through
  the attributes of modules (``settings.c``, ``a.b.c``) and the modules that it imports;
- of an object its class, its attributes and slots. Where the class is the user's, those whose names
  occur in code or strings that were reached; all of them where some code asks by a computed name,
  where the class is a dataclass, a pytree, or inherits from a library;
- of a class what it and its bases say under such names, and the methods that operators call;
- of a container its length, keys and elements;
- of an array its dtype, its shape and 128 bits of xxHash (XXH3) over its bytes; of a ``jax.Array``,
  which cannot change, its identity.

Two equal lists mean that a trace would find what it found before. Functions of the libraries named
in ``bytecode`` (jax, NumPy, SciPy, optax, pandas, polars, the standard library and this one) are
not looked into, but for what they close over. What hides its state (a random generator, an
iterator, an object of an unknown extension type, a function that reads a file or the clock) is
``hidden``: what depends on it has to be traced again each time.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import functools
import gc
import pathlib
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from jaxmle._types import Foreign
from jaxmle.closures import holders, loaded
from jaxmle.closures.bytecode import (
    EVERYTHING,
    TEXT,
    WRITING,
    WRITTEN,
    is_impure,
    of_library,
    reads_of,
)
from jaxmle.closures.kinds import (
    ABSENT,
    AGAIN,
    BUILTIN,
    CACHED_FUNCTION,
    CONTAINERS,
    DICT_VIEWS,
    FLATTENING,
    IMMUTABLE,
    LINK,
    MAKING,
    MAX_NODES,
    MEMO,
    PLAIN,
    STATELESS_BASES,
    UNCALLED,
    has_state,
    hides,
    is_table,
    unwrapped,
)


class Look(NamedTuple):
    """What one walk over a function has found."""

    facts: list[object]
    by_identity: list[object]  # what the facts know by its identity
    names: frozenset[str]
    hidden: str  # what cannot be watched; empty where all can
    traced: bool  # whether a tracer was met
    changes: bool  # whether code was met that may change what it depends on
    holders: frozenset[int]  # identities of what holds arrays to copy or functions under ``jit``
    narrow: bool  # whether an array was met that is narrower than the numbers of a fit now
    kinds: frozenset[int]  # identities of the classes of objects
    retained: list[object]  # all that was met: identities are good as long as this is kept


def look(function: Foreign, names: frozenset[str] = frozenset(), *, again: bool = False) -> Look:
    """Everything that a function depends on beyond its arguments.

    Args:
        names: of attributes that are looked at.
        again: only the facts are wanted, to compare; ``names`` are those of the first look.
    """
    while True:
        traversal = _Traversal(names, again)
        try:
            traversal.visit(function)
        except Exception as error:  # of an object asked for what it holds, or too deep a structure
            traversal.hidden = f"what raises {type(error).__name__} when it is looked at"
        if again or traversal.loaded <= names:
            return traversal.result(names)
        names |= traversal.loaded


class _Traversal:
    """One walk over all that a function depends on."""

    def __init__(self, names: frozenset[str], again: bool) -> None:
        self.names = names
        self.again = again
        self.all = EVERYTHING in names
        self.text = TEXT in names
        # what jax does not trace again for by itself
        config: Foreign = jax.config
        self.facts: list[object] = [config.jax_default_prng_impl]
        self.by_identity: list[object] = []
        self.retained: list[object] = []
        self.seen: dict[int, int] = {}
        self.made: set[tuple[type, bool]] = set()
        self.whole: dict[type, bool] = {}
        self.loaded: set[str] = set()
        self.edges: list[tuple[int, int]] = []
        self.holders: set[int] = set()
        self.kinds: set[int] = set()
        self.parent = 0
        self.hidden = ""
        self.traced = False
        self.changes = False
        self.narrow = False

    def visit(self, value: Foreign) -> None:
        """Write down a value, and all that it depends on."""
        kind = type(value)
        facts = self.facts
        facts.append(kind)
        if kind in PLAIN:
            facts.append(value)
            return
        if kind is float:
            facts.append(value.hex())  # tells −0 from 0 and is equal for NaN
            return
        key = id(value)
        if not self.again:
            self.edges.append((self.parent, key))
        if key in self.seen:
            facts.append(AGAIN)
            facts.append(self.seen[key])
            return
        self.seen[key] = len(self.seen)
        self.retained.append(value)
        if len(self.seen) > MAX_NODES:
            self.hidden = f"more than {MAX_NODES} objects"
            return
        parent, self.parent = self.parent, key
        (HANDLERS.get(kind) or _handler(kind))(self, value)
        self.parent = parent

    def identity(self, value: Foreign) -> None:
        """What cannot change, or does not matter, is known by its identity."""
        self.facts.append(id(value))
        self.by_identity.append(value)

    def hide(self, value: Foreign) -> None:
        """Note what cannot be watched."""
        self.hidden = self.hidden or f"a {type(value).__module__}.{type(value).__qualname__}"

    def result(self, names: frozenset[str]) -> Look:
        """What the walk has found, which looked at attributes of these names."""
        holding = frozenset() if self.again else holders.reaching(self.edges, self.holders)
        seen = (self.hidden, self.traced, self.changes, holding, self.narrow)
        return Look(
            self.facts, self.by_identity, names, *seen, frozenset(self.kinds), self.retained
        )

    # ------------------------------------------------------------ functions

    def function(self, value: types.FunctionType) -> None:
        self.facts.append(value.__code__)
        for cell in value.__closure__ or ():
            self.cell(cell, value.__code__)
        if of_library(value):
            module = value.__globals__.get("__name__", "")
            if not self.again and is_impure(module, (value.__name__,)):
                self.hide(value)
            return
        self.sequence(value.__defaults__ or ())
        self.items(value.__kwdefaults__ or {})
        self.own_attributes(value)
        reads = reads_of(value.__code__)
        if not self.again:
            self.loaded |= reads.names
            self.changes = self.changes or reads.changes
            if has_state(value, reads.chains):
                self.holders.add(id(value))
        for chain in reads.chains:
            loaded.read_global(self, value.__globals__, chain)
        for names in reads.imports:
            loaded.imported(self, value.__globals__, names, reads.attributes)

    def own_attributes(self, value: Foreign) -> None:
        """What was set on a function, but for what is kept there of it."""
        self.items({k: v for k, v in vars(value).items() if not k.startswith(MEMO)})

    def cell(self, cell: Foreign, code: types.CodeType | None = None) -> None:
        """What a cell holds; of a library's module what ``code`` may read of it."""
        try:
            inner = cell.cell_contents
        except ValueError:  # a name not bound yet
            self.facts.append(ABSENT)
            return
        self.visit(inner)
        if code is not None and isinstance(inner, types.ModuleType):
            loaded.library(self, inner, reads_of(code).attributes)

    def builtin(self, value: Foreign) -> None:
        owner = value.__self__
        if owner is None or isinstance(owner, types.ModuleType):
            self.identity(value)
            module = getattr(value, "__module__", None) or "builtins"
            if not self.again and is_impure(module, (value.__name__,)):
                self.hide(value)
            self.writes(value)
        else:
            self.facts.append(value.__name__)
            self.visit(owner)

    def ufunc(self, value: np.ufunc) -> None:
        self.identity(value)
        known = (np, sys.modules.get("scipy.special"))
        if not any(getattr(module, value.__name__, None) is value for module in known):
            self.hide(value)

    def method(self, value: types.MethodType) -> None:
        self.visit(value.__func__)
        self.visit(value.__self__)

    def partial(self, value: functools.partial[Foreign]) -> None:
        self.visit(value.func)
        self.sequence(value.args)
        self.items(value.keywords)
        self.own_attributes(value)

    def jitted(self, value: Foreign) -> None:
        inner = unwrapped(value)
        if not (isinstance(inner, types.FunctionType) and of_library(inner)):
            self.holders.add(id(value))
        self.visit(inner)

    def cached(self, value: Foreign) -> None:
        """What ``lru_cache`` keeps is what the function returns, whatever it reads. A first
        call adds to it.
        """
        self.changes = True
        self.holders.add(id(value))
        for inner in gc.get_referents(value):
            if isinstance(inner, dict) and inner is not vars(value):
                self.sequence(entry for entry in inner.values() if type(entry).__name__ != LINK)
            elif not isinstance(inner, type):
                self.visit(inner)

    def inner_function(self, value: Foreign) -> None:
        self.visit(value.__func__)

    def property(self, value: Foreign) -> None:
        self.visit(value.fget)

    def cached_property(self, value: Foreign) -> None:
        self.visit(value.func)

    # ------------------------------------------------------------ modules, classes, objects

    def module(self, value: types.ModuleType) -> None:
        """A module that is passed on: what it has under any name that was reached."""
        if of_library(value):
            self.identity(value)
            if not self.again and is_impure(value.__name__, ()):
                self.hide(value)
            return
        inside = vars(value)
        names = inside.keys() if self.all else inside.keys() & self.names
        for name in sorted(name for name in names if not name.startswith("__")):
            self.facts.append(name)
            self.visit(inside[name])
        if "__getattr__" in inside:
            self.visit(inside["__getattr__"])

    def a_class(self, value: type) -> None:
        self.writes(value)
        self.members(value, True)

    def writes(self, value: Foreign) -> None:
        """``repr`` or ``str``, passed on, may write what is met as text."""
        if not self.again and value.__name__ in WRITING and value.__module__ == "builtins":
            self.loaded.add(TEXT)

    def members(self, kind: type, called: bool) -> None:
        """What a class and its bases have under the names that were reached, and what operators
        call.
        """
        if (kind, called) in self.made:
            return
        self.made.add((kind, called))
        for base in kind.__mro__:
            self.facts.append(base)
            if base is object or of_library(base):
                continue
            for name, member in tuple(vars(base).items()):
                if self.wants(name) or (called and name in MAKING):
                    self.facts.append(name)
                    self.visit(member)
                    if isinstance(member, types.FunctionType):
                        self.holders.add(id(kind))
        if isinstance(kind, enum.EnumMeta):
            self.items(kind._member_map_)
        elif type(kind) is not type and not of_library(type(kind)):
            self.members(type(kind), True)

    def wants(self, name: str) -> bool:
        if name in self.names or (self.text and name in WRITTEN):
            return True
        if name[:2] != "__" and name not in UNCALLED:
            return self.all or name in FLATTENING
        return name not in UNCALLED and name not in MAKING and not name.startswith(MEMO)

    def instance(self, value: Foreign) -> None:
        """An object by its attributes and slots."""
        if not self.again and hides(type(value)):
            self.hide(value)
        self.attributes(value)

    def attributes(self, value: Foreign) -> None:
        kind = type(value)
        self.retained.append(kind)
        self.kinds.add(id(kind))
        self.edges.append((id(value), id(kind)))
        parent, self.parent = self.parent, id(kind)
        self.members(kind, False)
        self.parent = parent
        if kind is object:
            self.identity(value)
            return
        whole = self.is_whole(kind, value)
        for name, inner in tuple(getattr(value, "__dict__", {}).items()):
            if (whole or self.wants(name)) and not name.startswith(MEMO):
                self.facts.append(name)
                self.visit(inner)
        for base in kind.__mro__:
            if base is not object and ("__slots__" in vars(base) or of_library(base)):
                self.slots(base, value, whole)

    def slots(self, base: type, value: Foreign, whole: bool) -> None:
        for name, member in tuple(vars(base).items()):
            if not isinstance(member, types.MemberDescriptorType) or name == "__dict__":
                continue
            if whole or self.wants(name):
                try:
                    inner = member.__get__(value)
                except AttributeError:  # an empty slot
                    inner = ABSENT
                self.visit(inner)

    def is_whole(self, kind: type, value: Foreign) -> bool:
        """Whether attributes may be read that no code names."""
        if self.all:
            return True
        if kind not in self.whole:
            self.whole[kind] = (
                dataclasses.is_dataclass(kind)
                or any(base not in STATELESS_BASES and of_library(base) for base in kind.__mro__)
                or hasattr(kind, "__getattr__")
                or not jax.tree_util.all_leaves([value])
            )
        return self.whole[kind]

    # ------------------------------------------------------------ containers

    def sequence(self, values: Iterable[Foreign]) -> None:
        values = tuple(values)
        self.facts.append(len(values))
        for inner in values:
            self.visit(inner)

    def items(self, values: Foreign) -> None:
        values = tuple(values.items())
        self.facts.append(len(values))
        for name, inner in values:
            self.visit(name)
            self.visit(inner)

    def immutable(self, value: Foreign) -> None:
        """What cannot change, but for the attributes that a class of the user's adds."""
        self.identity(value)
        self.subclassed(value)

    def subclassed(self, value: Foreign) -> None:
        """The attributes of a container of a class of its own."""
        if type(value) not in CONTAINERS and not of_library(type(value)):
            self.attributes(value)


HANDLERS: dict[type, Callable[[_Traversal, Foreign], None]] = {
    types.FunctionType: _Traversal.function,
    types.MethodType: _Traversal.method,
    types.ModuleType: _Traversal.module,
    types.CellType: _Traversal.cell,
    np.ndarray: holders.numpy_array,
    dict: holders.mapping,
    list: holders.elements,
    tuple: holders.elements,
    type: _Traversal.a_class,
    complex: holders.number,
    CACHED_FUNCTION: _Traversal.cached,
    types.MappingProxyType: holders.proxy,
}
BY_KIND: tuple[tuple[Foreign, Callable[[_Traversal, Foreign], None]], ...] = (
    (type, _Traversal.a_class),
    (types.ModuleType, _Traversal.module),
    (np.ndarray, holders.numpy_array),
    (np.generic, holders.numpy_scalar),
    ((jax.Array, Tracer), holders.jax_array),
    (functools.partial, _Traversal.partial),
    (BUILTIN, _Traversal.builtin),
    (staticmethod | classmethod, _Traversal.inner_function),
    (property, _Traversal.property),
    (functools.cached_property, _Traversal.cached_property),
    (dict, holders.mapping),
    (list | tuple | set | frozenset | collections.deque, holders.elements),
    (DICT_VIEWS, holders.view_of_dict),
    (bytearray | memoryview | array.array, holders.buffer),
    (int | float | complex | str | bytes, holders.number),
    (weakref.ref, holders.reference),
    (pathlib.PurePath, holders.path),
    (IMMUTABLE, _Traversal.immutable),
    (np.ufunc, _Traversal.ufunc),
)


TABLE_HANDLERS: dict[str, Callable[[_Traversal, Foreign], None]] = {
    "pandas": holders.pandas_table,
    "polars": holders.polars_table,
    "pyarrow": holders.arrow_data,
}


def _handler(kind: type) -> Callable[[_Traversal, Foreign], None]:
    """How values of a type are written down."""
    handler = _find_handler(kind)
    if of_library(kind):  # a class of the user's must be able to die
        HANDLERS[kind] = handler
    return handler


def _find_handler(kind: type) -> Callable[[_Traversal, Foreign], None]:
    module = kind.__module__
    top = module.partition(".")[0] if isinstance(module, str) else ""
    if hasattr(kind, "lower") and top in ("jax", "jaxlib"):
        return _Traversal.jitted
    for kinds, handler in BY_KIND:
        if issubclass(kind, kinds):
            return handler
    if library := is_table(kind):
        return TABLE_HANDLERS[library]
    return _Traversal.identity if top in ("jaxlib", "typing", "pyarrow") else _Traversal.instance
