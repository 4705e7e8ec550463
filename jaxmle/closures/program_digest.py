"""A digest of a traced program: what a function computes, with every array that it captured, the
same in another process.

The program is the jaxpr. Captured arrays sit on it as constants, as literals, or on the jaxprs
inside its equations (``jit``, ``scan``, ``cond``, ``while``, rules of differentiation); all of them
count, by their bytes. A host callback counts by its code and what it closes over.
"""

from __future__ import annotations

import collections
import collections.abc
import contextvars
import functools
import re
import sys
import threading
import types
import weakref
from collections.abc import Sequence

import jax
import numpy as np
import xxhash
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from jaxmle._types import Atom, Foreign, FunctionTo, Tree

GIVEN = ("jax", "jaxlib", "numpy")
ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


def model_digest(function: FunctionTo[Foreign], *args: Foreign) -> str:
    """A digest of what ``function(*args)`` computes: its program and all arrays that the
    program captured.
    """
    return program_digest(jax.make_jaxpr(function)(*args))


def program_digest(program: ClosedJaxpr) -> str:
    """A digest of a program and all arrays that it captured."""
    digest = _Digest()
    digest.program(program)
    return digest.hex()


def value_digest(*values: Foreign) -> str:
    """A digest of options: numbers, texts, arrays and containers by value, functions by their
    code and what they close over.
    """
    digest = _Digest()
    for value in values:
        digest.value(value, deep=True)
    return digest.hex()


def with_derivatives(function: FunctionTo[Foreign]) -> FunctionTo[Foreign]:
    """``function`` together with its score and a slice of its Hessian, as far as they exist.

    A rule of differentiation is part of a model, and a jaxpr holds it only where it has been
    applied.

    Args:
        function: from a flat point (p,) and further arguments to terms or their sum.
    """

    def score(x: Tree, *rest: Tree) -> Tree:
        return jax.grad(lambda point: function(point, *rest).sum())(x)

    def curved(x: Tree, *rest: Tree) -> Tree:
        return jax.jvp(lambda point: score(point, *rest), (x,), (jax.numpy.ones_like(x),))

    def all_of(x: Tree, *rest: Tree) -> Tree:
        parts = [function(x, *rest)]
        for part in (score, curved):
            try:
                parts.append(part(x, *rest))
            except Exception:  # a rule of the user's may raise anything
                pass  # no such derivative: then no fit applies its rules
        return parts

    return all_of


class _Digest:
    """128 bits over all that was added, in order."""

    def __init__(self) -> None:
        self.state = xxhash.xxh3_128()
        # Functions and objects that were met; held, so that no other gets the id of one.
        self.seen: dict[int, Tree] = {}
        self.within: list[int] = []  # the containers that are being read, which may hold themselves

    def hex(self) -> str:
        return str(self.state.hexdigest())

    def text(self, *words: Foreign) -> None:
        for word in words:
            self.state.update(ADDRESS.sub("0x", str(word)).encode("utf-8", "surrogatepass"))
            self.state.update(b"\0")

    def array(self, value: Foreign) -> None:
        if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
            self.text("key", value.dtype)
            value = jax.random.key_data(value)
        attributes = getattr(value, "__dict__", None) if isinstance(value, np.ndarray) else None
        value = np.asarray(value)
        self.text("array", value.dtype.name, value.shape)
        if value.dtype == object:
            self.text(value.tolist())
        else:
            self.state.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        if attributes:
            self.value(attributes, deep=True)

    # ------------------------------------------------------------ programs

    def program(self, closed: ClosedJaxpr | Jaxpr) -> None:
        """A jaxpr, with the constants of a closed one."""
        jaxpr = getattr(closed, "jaxpr", closed)
        constants = getattr(closed, "consts", ())
        self.text("program", len(constants))
        for constant in constants:
            self.value(constant)
        number: dict[Var, int] = {}
        for variable in (*jaxpr.constvars, *jaxpr.invars):
            self.bound(variable, number)
        for equation in jaxpr.eqns:
            self.text(equation.primitive)
            self.atoms(equation.invars, number)
            for name in sorted(equation.params):
                self.text(name)
                self.value(equation.params[name])
            for variable in equation.outvars:
                self.bound(variable, number)
        self.atoms(jaxpr.outvars, number)

    def bound(self, variable: Var, number: dict[Var, int]) -> None:
        number[variable] = len(number)
        self.text(variable.aval)

    def atoms(self, atoms: Sequence[Atom], number: dict[Var, int]) -> None:
        self.text(len(atoms))
        for atom in atoms:
            if isinstance(atom, Literal):
                self.text("literal", atom.aval)
                self.value(atom.val)
            else:
                self.text(number[atom])

    # ------------------------------------------------------------ what parameters of equations and
    # closures hold

    def value(self, value: Foreign, deep: bool = False) -> None:
        """Anything that an equation or a closure holds; what is unknown counts by its type and its
        text.

        Args:
            deep: whether objects count by their attributes, as a closure reads them.
        """
        if isinstance(value, type):
            self.kind(value, deep)
        elif _is_program(value):
            self.program(value)
        elif _is_array(value):
            self.array(value)
        elif isinstance(value, tuple | list | collections.deque | collections.abc.Mapping):
            self.container(value, deep)
        elif isinstance(value, set | frozenset):
            self.text("set", sorted(map(str, value)))
        elif isinstance(value, types.ModuleType):
            self.text("name", value.__name__)  # what a function reads of it: see ``function``
        elif isinstance(value, property):
            self.value((value.fget, value.fset), deep=True)
        elif isinstance(value, staticmethod | classmethod):
            self.value(value.__func__, deep=True)
        elif isinstance(value, functools.partialmethod):
            self.value((value.func, value.args, value.keywords), deep=True)
        elif isinstance(value, contextvars.ContextVar):
            self.value(value.get(None), deep=True)
        elif isinstance(value, weakref.ref):
            self.value(value(), deep=True)
        elif callable(value):
            self.callable(value)
        elif deep and (_has_attributes(value) or isinstance(value, threading.local)):
            self.object(value)
        else:
            self.text(type(value).__name__, value)

    def container(self, value: Foreign, deep: bool) -> None:
        self.text(type(value).__name__, len(value))
        if id(value) in self.within:
            return
        self.within.append(id(value))
        for key in (
            sorted(value, key=str)
            if isinstance(value, collections.abc.Mapping)
            else range(len(value))
        ):
            self.text(type(key).__name__, key)
            self.value(value[key], deep)
        self.within.pop()

    def callable(self, value: Foreign) -> None:
        """A function, a method, a partial, an object that is called, or what jax wraps around
        one.
        """
        if isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.MethodType):
            self.callable(value.__func__)
            self.value(value.__self__, deep=True)
        elif isinstance(value, types.BuiltinMethodType):
            self.text("function", value.__qualname__)
            if not isinstance(value.__self__, types.ModuleType | None):
                self.value(value.__self__, deep=True)
        elif isinstance(value, functools.partial):
            self.value((value.func, value.args, value.keywords), deep=True)
        elif isinstance(value, functools._lru_cache_wrapper):
            self.value(value.__wrapped__)
        elif hasattr(value, "callback_func"):  # a host callback
            self.value(value.callback_func, deep=True)
        elif _is_jaxs(type(value)):  # a rule of differentiation before it is applied, or a jit
            self.value(getattr(value, "__wrapped__", "derivative"))
        else:
            self.object(value)

    def met(self, thing: Foreign) -> bool:
        """Whether this very object was met before."""
        before = id(thing) in self.seen
        self.seen[id(thing)] = thing
        return before

    def function(self, function: types.FunctionType) -> None:
        """A function by its code and by what it reads from outside."""
        self.text("function", function.__qualname__)
        if self.met(function):
            return
        cells = [_content(cell) for cell in function.__closure__ or ()]
        if _is_given_name(function.__globals__.get("__name__")):  # wraps copies __module__
            # What it keeps is its own; functions that it passes on may be a user's.
            for inner in cells:
                if isinstance(inner, types.FunctionType | types.MethodType | functools.partial):
                    self.value(inner)
            return
        self.code(function.__code__)
        attributes = {k: v for k, v in vars(function).items() if not k.startswith(("_", "__"))}
        self.value(attributes, deep=True)
        self.value((function.__defaults__, function.__kwdefaults__ or {}), deep=True)
        for inner in cells:
            self.value(inner, deep=True)
        names = sorted(_names(function.__code__))
        read = [
            (name, function.__globals__[name]) for name in names if name in function.__globals__
        ]
        for name, inner in read:
            self.text(name)
            self.value(inner, deep=True)
        for module in [*(inner for _, inner in read), *cells]:
            if isinstance(module, types.ModuleType):
                self.attributes(module, names)

    def attributes(self, module: types.ModuleType, names: list[str]) -> None:
        """What a function reads of a module, by the names in its code, and of modules in that. Of
        a library functions and classes count by their names.
        """
        if self.met(module):
            return
        computed = "getattr" in names and not _is_library(module)  # then it may read any
        for name in sorted(vars(module)) if computed else names:
            inner = None if name.startswith("__") else vars(module).get(name)
            if isinstance(inner, types.ModuleType):
                self.attributes(inner, names)
            elif inner is not None and not (_is_library(module) and callable(inner)):
                self.text(name)
                self.value(inner, deep=True)

    def kind(self, kind: type, deep: bool) -> None:
        """A class by its name, and by its attributes and those of its bases and its metaclass
        where they are a user's: a method reads them.
        """
        self.text("name", kind.__module__, kind.__qualname__)
        if not deep or _is_library(kind) or self.met(kind):
            return
        for base in (*kind.__mro__[1:], type(kind)):
            self.kind(base, deep)
        for name, inner in sorted(vars(kind).items()):
            if not (
                name.startswith(("__", "_jaxmle")) or isinstance(inner, types.MemberDescriptorType)
            ):
                self.text(name)
                self.value(inner, deep=True)

    def code(self, code: types.CodeType) -> None:
        self.text("code", code.co_names, code.co_varnames)
        self.state.update(code.co_code)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self.code(constant)
            else:
                self.value(constant)

    def object(self, value: Foreign) -> None:
        """An object by its class and its attributes."""
        self.text("object", type(value).__module__, type(value).__qualname__)
        holder = isinstance(value, types.SimpleNamespace | threading.local)
        known = _is_given(type(value)) and not holder
        if known or self.met(value):
            return
        self.kind(type(value), deep=True)
        call = vars(type(value)).get("__call__")
        if isinstance(call, types.FunctionType):
            self.function(call)
        slots = [name for name, kind in _slots(type(value)) if kind is types.MemberDescriptorType]
        held = {name: getattr(value, name, None) for name in slots} | getattr(value, "__dict__", {})
        for name, inner in sorted(held.items()):
            if not name.startswith(("_jaxmle", "__")):
                self.text(name)
                self.value(inner, deep=True)


def _has_attributes(value: Foreign) -> bool:
    kind = type(value)
    return bool(kind.__dictoffset__) or types.MemberDescriptorType in dict(_slots(kind)).values()


def _slots(kind: type) -> list[tuple[str, type]]:
    return [(name, type(inner)) for base in kind.__mro__ for name, inner in vars(base).items()]


def _is_jaxs(thing: Foreign) -> bool:
    """Whether a function or a class belongs to jax."""
    return str(getattr(thing, "__module__", "")).split(".")[0] in ("jax", "jaxlib")


def _is_given(thing: Foreign) -> bool:
    """Whether a function or a class comes with Python, NumPy or jax: its name says what it is,
    and what it keeps for itself changes.
    """
    return _is_given_name(getattr(thing, "__module__", ""))


def _is_given_name(module: Foreign) -> bool:
    package = str(module).split(".")[0]
    return package in GIVEN or (package in sys.stdlib_module_names and package != "__main__")


def _is_library(thing: Foreign) -> bool:
    """Whether a module or a class is Python's, jaxmle's or that of an installed package."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else str(thing.__module__)
    top = name.split(".")[0]
    file = str(getattr(sys.modules.get(top), "__file__", None) or "")
    return (
        top == "jaxmle" or _is_given_name(top) or "site-packages" in file or "dist-packages" in file
    )


def _is_program(value: Foreign) -> bool:
    return isinstance(value, Jaxpr | ClosedJaxpr)


def _is_array(value: Foreign) -> bool:
    try:
        return all(hasattr(value, name) for name in ("dtype", "shape", "__array__"))
    except Exception:  # a user's __getattr__ may raise anything
        return False


def _content(cell: Foreign) -> Foreign:
    try:
        return cell.cell_contents
    except ValueError:  # a name not bound yet
        return None


def _names(code: types.CodeType) -> set[str]:
    """The global names that a code reads, those of functions inside it included."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return {*code.co_names}.union(*map(_names, inner))
