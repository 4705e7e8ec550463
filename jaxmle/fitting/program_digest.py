"""A digest of a traced program: what a function computes, with every array that it captured, the same in another process.

The program is the jaxpr. Captured arrays sit on it as constants, as literals, or on the jaxprs inside its equations (``jit``, ``scan``,
``cond``, ``while``, rules of differentiation); all of them count, by their bytes. A host callback counts by its code and what it closes over.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xxhash

ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


def model_digest(function: Callable[..., Any], *args: Any) -> str:
    """A digest of what ``function(*args)`` computes: its program and all arrays that the program captured."""
    digest = _Digest()
    digest.program(jax.make_jaxpr(function)(*args))
    return digest.hex()


def with_derivatives(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` together with its score and a slice of its Hessian, as far as they exist.

    A rule of differentiation is part of a model, and a jaxpr holds it only where it has been applied.

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
            except Exception:
                pass  # no such derivative: then no fit applies its rules
        return parts

    return all_of


class _Digest:
    """128 bits over all that was added, in order."""

    def __init__(self) -> None:
        self.state = xxhash.xxh3_128()
        self.seen: set[int] = (
            set()
        )  # functions and objects on the way, which may refer to themselves

    def hex(self) -> str:
        return str(self.state.hexdigest())

    def text(self, *words: Any) -> None:
        for word in words:
            self.state.update(ADDRESS.sub("0x", str(word)).encode("utf-8", "surrogatepass"))
            self.state.update(b"\0")

    def array(self, value: Any) -> None:
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
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

    # ------------------------------------------------------------ what parameters of equations and closures hold

    def value(self, value: Any) -> None:
        """Anything that an equation holds; what is unknown counts by its type and its text."""
        if hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns"):
            self.program(value)
        elif hasattr(value, "dtype") and hasattr(value, "shape") and hasattr(value, "__array__"):
            self.array(value)
        elif isinstance(value, tuple | list):
            self.text(type(value).__name__, len(value))
            for part in value:
                self.value(part)
        elif isinstance(value, dict):
            self.text("dict", len(value))
            for key in sorted(value, key=str):
                self.text(key)
                self.value(value[key])
        elif isinstance(value, set | frozenset):
            self.text("set", sorted(map(str, value)))
        elif isinstance(value, functools.partial):
            self.value((value.func, value.args, value.keywords))
        elif isinstance(value, types.MethodType):
            self.value(value.__func__)
            self.object(value.__self__)
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif hasattr(value, "callback_func"):  # what jax wraps around a host callback
            self.value(value.callback_func)
        elif callable(value) and not isinstance(value, type) and not _is_jaxs(type(value)):
            self.object(value)
        elif _is_wrapped(value):
            self.text("derivative")  # of a custom rule: with_derivatives applies it
        else:
            self.text(type(value).__name__, value)

    def function(self, function: types.FunctionType) -> None:
        """A function by its code and by what it reads from outside."""
        self.text("function", function.__qualname__)
        if id(function) in self.seen:
            return
        self.seen.add(id(function))
        cells = [_content(cell) for cell in function.__closure__ or ()]
        if _is_jaxs(function):  # its state is jax's; only functions that it hands on are a user's
            for inner in cells:
                if isinstance(inner, types.FunctionType | types.MethodType | functools.partial):
                    self.value(inner)
            return
        self.code(function.__code__)
        self.value((function.__defaults__, function.__kwdefaults__ or {}))
        for inner in cells:
            self.captured(inner)
        for name in sorted(_names(function.__code__)):
            if name in function.__globals__:
                self.text(name)
                self.captured(function.__globals__[name])

    def captured(self, value: Any) -> None:
        """What a function reads from outside."""
        if isinstance(value, types.ModuleType | type):
            self.text(value.__name__)
        elif hasattr(value, "__dict__") and not callable(value) and not hasattr(value, "dtype"):
            self.object(value)
        else:
            self.value(value)

    def code(self, code: types.CodeType) -> None:
        self.text("code", code.co_names, code.co_varnames)
        self.state.update(code.co_code)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self.code(constant)
            else:
                self.text(type(constant).__name__, constant)

    def object(self, value: Any) -> None:
        """An object by its class and its attributes."""
        self.text("object", type(value).__module__, type(value).__qualname__)
        if id(value) in self.seen or _is_jaxs(type(value)):
            return
        self.seen.add(id(value))
        call = vars(type(value)).get("__call__")
        if isinstance(call, types.FunctionType):
            self.function(call)
        for name, inner in sorted(getattr(value, "__dict__", {}).items()):
            if not name.startswith("_jaxmle"):
                self.text(name)
                self.captured(inner)


def _is_jaxs(thing: Any) -> bool:
    """Whether a function or a class belongs to jax."""
    return str(getattr(thing, "__module__", "")).split(".")[0] in ("jax", "jaxlib")


def _is_wrapped(value: Any) -> bool:
    """Whether this is one of jax's functions under transformation, whose text tells nothing stable."""
    return _is_jaxs(type(value)) and callable(value)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name not bound yet
        return None


def _names(code: types.CodeType) -> set[str]:
    """The global names that a code reads, those of functions inside it included."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return {*code.co_names}.union(*map(_names, inner))
