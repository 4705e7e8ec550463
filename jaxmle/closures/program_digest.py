"""A digest of a traced program: what a function computes, with every array that it captured, the
same in another process.

The program is the jaxpr. Captured arrays sit on it as constants, as literals, or on the jaxprs
inside its equations (``jit``, ``scan``, ``cond``, ``while``, rules of differentiation); all of them
count, by their bytes. A host callback counts by its code and what it closes over.
"""

from __future__ import annotations

import collections
import functools
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xxhash

GIVEN = ("jax", "jaxlib", "numpy")
ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


def model_digest(function: Callable[..., Any], *args: Any) -> str:
    """A digest of what ``function(*args)`` computes: its program and all arrays that the
    program captured.
    """
    digest = _Digest()
    digest.program(jax.make_jaxpr(function)(*args))
    return digest.hex()


def value_digest(*values: Any) -> str:
    """A digest of options: numbers, texts, arrays and containers by value, functions by their
    code and what they close over.
    """
    digest = _Digest()
    for value in values:
        digest.value(value, deep=True)
    return digest.hex()


def with_derivatives(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` together with its score and a slice of its Hessian, as far as they exist.

    A rule of differentiation is part of a model, and a jaxpr holds it only where it has been
    applied.

    Args:
        function: from a flat point (p,) and further arguments to terms or their sum.
    """

    def score(x: Any, *rest: Any) -> Any:
        return jax.grad(lambda point: function(point, *rest).sum())(x)

    def curved(x: Any, *rest: Any) -> Any:
        return jax.jvp(lambda point: score(point, *rest), (x,), (jax.numpy.ones_like(x),))

    def all_of(x: Any, *rest: Any) -> Any:
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
        self.seen: dict[int, Any] = {}
        self.within: list[int] = []  # the containers that are being read, which may hold themselves

    def hex(self) -> str:
        return str(self.state.hexdigest())

    def text(self, *words: Any) -> None:
        for word in words:
            self.state.update(ADDRESS.sub("0x", str(word)).encode("utf-8", "surrogatepass"))
            self.state.update(b"\0")

    def array(self, value: Any) -> None:
        if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
            self.text("key", value.dtype)
            value = jax.random.key_data(value)
        value = np.asarray(value)
        self.text("array", value.dtype.name, value.shape)
        if value.dtype == object:
            self.text(value.tolist())
        else:
            self.state.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)

    # ------------------------------------------------------------ programs

    def program(self, closed: Any) -> None:
        """A jaxpr, with the constants of a closed one."""
        jaxpr = getattr(closed, "jaxpr", closed)
        constants = getattr(closed, "consts", ())
        self.text("program", len(constants))
        for constant in constants:
            self.value(constant)
        number: dict[Any, int] = {}
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

    def bound(self, variable: Any, number: dict[Any, int]) -> None:
        number[variable] = len(number)
        self.text(variable.aval)

    def atoms(self, atoms: Any, number: dict[Any, int]) -> None:
        self.text(len(atoms))
        for atom in atoms:
            if hasattr(atom, "val"):
                self.text("literal", atom.aval)
                self.value(atom.val)
            else:
                self.text(number[atom])

    # ------------------------------------------------------------ what parameters of equations and
    # closures hold

    def value(self, value: Any, deep: bool = False) -> None:
        """Anything that an equation or a closure holds; what is unknown counts by its type and its
        text.

        Args:
            deep: whether objects count by their attributes, as a closure reads them.
        """
        if hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns"):
            self.program(value)
        elif _is_array(value):
            self.array(value)
        elif isinstance(value, tuple | list | collections.deque | dict):
            self.container(value, deep)
        elif isinstance(value, set | frozenset):
            self.text("set", sorted(map(str, value)))
        elif isinstance(value, types.ModuleType | type):
            self.text("name", getattr(value, "__module__", ""), value.__name__)
        elif callable(value):
            self.callable(value)
        elif deep and type(value).__dictoffset__:
            self.object(value)
        else:
            self.text(type(value).__name__, value)

    def container(self, value: Any, deep: bool) -> None:
        self.text(type(value).__name__, len(value))
        if id(value) in self.within:
            return
        self.within.append(id(value))
        for key in sorted(value, key=str) if isinstance(value, dict) else range(len(value)):
            self.text(type(key).__name__, key)
            self.value(value[key], deep)
        self.within.pop()

    def callable(self, value: Any) -> None:
        """A function, a method, a partial, an object that is called, or what jax wraps around
        one.
        """
        if isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.MethodType):
            self.callable(value.__func__)
            self.object(value.__self__)
        elif isinstance(value, functools.partial):
            self.value((value.func, value.args, value.keywords), deep=True)
        elif hasattr(value, "callback_func"):  # a host callback
            self.value(value.callback_func, deep=True)
        elif _is_jaxs(type(value)):  # a rule of differentiation before it is applied, or a jit
            self.value(getattr(value, "__wrapped__", "derivative"))
        else:
            self.object(value)

    def met(self, thing: Any) -> bool:
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
        if _is_given(
            function
        ):  # what it keeps is its own; functions that it hands on may be a user's
            for inner in cells:
                if isinstance(inner, types.FunctionType | types.MethodType | functools.partial):
                    self.value(inner)
            return
        self.code(function.__code__)
        self.value((function.__defaults__, function.__kwdefaults__ or {}), deep=True)
        for inner in cells:
            self.value(inner, deep=True)
        for name in sorted(_names(function.__code__)):
            if name in function.__globals__:
                self.text(name)
                self.value(function.__globals__[name], deep=True)

    def code(self, code: types.CodeType) -> None:
        self.text("code", code.co_names, code.co_varnames)
        self.state.update(code.co_code)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self.code(constant)
            else:
                self.value(constant)

    def object(self, value: Any) -> None:
        """An object by its class and its attributes."""
        self.text("object", type(value).__module__, type(value).__qualname__)
        known = _is_given(type(value)) and not isinstance(value, types.SimpleNamespace)
        if known or self.met(value):
            return
        call = vars(type(value)).get("__call__")
        if isinstance(call, types.FunctionType):
            self.function(call)
        for name, inner in sorted(getattr(value, "__dict__", {}).items()):
            if not name.startswith("_jaxmle"):
                self.text(name)
                self.value(inner, deep=True)


def _is_jaxs(thing: Any) -> bool:
    """Whether a function or a class belongs to jax."""
    return str(getattr(thing, "__module__", "")).split(".")[0] in ("jax", "jaxlib")


def _is_given(thing: Any) -> bool:
    """Whether a function or a class comes with Python, NumPy or jax: its name says what it is,
    and what it keeps for itself changes.
    """
    package = str(getattr(thing, "__module__", "")).split(".")[0]
    return package in GIVEN or package in sys.stdlib_module_names


def _is_array(value: Any) -> bool:
    is_class = isinstance(value, type)
    has_parts = all(hasattr(value, name) for name in ("dtype", "shape", "__array__"))
    return has_parts and not is_class


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name not bound yet
        return None


def _names(code: types.CodeType) -> set[str]:
    """The global names that a code reads, those of functions inside it included."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return {*code.co_names}.union(*map(_names, inner))
