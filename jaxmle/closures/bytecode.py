"""What the code of a function can read from outside: globals with the attributes read of them,
imports, and names.
"""

from __future__ import annotations

import dis
import functools
import itertools
import os
import sys
import types
import weakref
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from jaxmle._types import Foreign

EVERYTHING = "*"  # among names: some code asks for attributes by names that it computes
TEXT = "*text"  # among names: some code may write objects as text
WRITING = frozenset(["repr", "str", "format", "ascii", "print"])
WRITTEN = frozenset(["__repr__", "__str__", "__format__"])  # what writing an object calls

# Libraries whose functions hold no state that a likelihood could depend on. Every other module is
# looked into, wherever it is installed.
STATELESS_LIBRARIES = frozenset(sys.stdlib_module_names) | frozenset(
    [
        "jax",
        "jaxlib",
        "ml_dtypes",
        "numpy",
        "scipy",
        "optax",
        "jaxmle",
        "xxhash",
        "pandas",
        "polars",
        "pyarrow",
        "chex",
        "jaxtyping",
        "typing_extensions",
        "numpyro",
        "distrax",
        "distreqx",
        "ihoop",
        "tensorflow_probability",
        "equinox",
        "flax",
        "haiku",
        "lineax",
        "optimistix",
        "diffrax",
    ]
)
IMPURE_MODULES = frozenset(
    [
        "os",
        "posix",
        "nt",
        "time",
        "random",
        "secrets",
        "io",
        "socket",
        "subprocess",
        "pathlib",
        "tempfile",
        "importlib",
        "inspect",
        "gc",
        "contextvars",
        "uuid",
        "locale",
        "codecs",
        "mmap",
        "shelve",
        "dbm",
        "sqlite3",
        "gzip",
        "bz2",
        "lzma",
        "zipfile",
        "tarfile",
        "glob",
        "shutil",
        "linecache",
        "fileinput",
        "urllib",
        "http",
        "multiprocessing",
        "signal",
        "resource",
    ]
)
IMPURE_ATTRIBUTES = {
    "numpy": frozenset(
        [
            "load",
            "loadtxt",
            "genfromtxt",
            "fromfile",
            "fromregex",
            "memmap",
            "open_memmap",
            "random",
            "geterr",
            "get_printoptions",
        ]
    ),
    "jax": frozenset({"load", "fromfile", "config"}),
    "scipy": frozenset({"io"}),
    "decimal": frozenset({"getcontext", "localcontext"}),
    "sys": frozenset(["modules", "argv", "stdin", "path"]),
    "datetime": frozenset(["now", "today", "utcnow"]),
    "builtins": frozenset(["open", "globals", "eval", "exec", "__import__", "input"]),
}
# Libraries of tables read files by functions and classes whose names begin so.
TABLE_LIBRARIES = frozenset({"pandas", "polars", "pyarrow"})
READING_PREFIXES = (
    "read_",
    "scan_",
    "open_",
    "load_",
    "memory_map",
    "OSFile",
    "Excel",
    "HDF",
    "Parquet",
    "dataset",
)
ASKING = frozenset(
    ["vars", "dir", "attrgetter", "methodcaller", "__dict__", "__getattribute__", "__getstate__"]
)
CHANGING = frozenset(
    [
        "append",
        "appendleft",
        "add",
        "extend",
        "update",
        "pop",
        "insert",
        "setdefault",
        "clear",
        "remove",
        "discard",
        "sort",
        "fill",
        "put",
    ]
)
SKIPPED = frozenset(["CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL", "RESUME", "NOT_TAKEN"])


class Step(Protocol):
    """One instruction of ``dis``, as far as it is read here."""

    # fmt: off
    @property
    def opname(self) -> str: ...
    @property
    def argval(self) -> Foreign: ...
    @property
    def argrepr(self) -> str: ...
    # fmt: on


class Reads(NamedTuple):
    """What a code object, with those nested in it, can read."""

    chains: tuple[tuple[str, ...], ...]  # a global, and the attributes read of it at once
    imports: tuple[tuple[str, ...], ...]  # a module, and the attribute imported from it
    names: frozenset[str]  # of attributes, and strings that may be names
    attributes: tuple[str, ...]  # the names without the strings, sorted
    changes: bool  # whether it may change what outlives the call


PYTHON = os.path.dirname(os.path.abspath(os.__file__))  # where Python's own modules are
_PLACES: dict[str, bool] = {}  # of files with the name of one of Python's: whether the user's
_READS: dict[int, tuple[weakref.ref[types.CodeType], Reads]] = {}


def reads_of(code: types.CodeType) -> Reads:
    """What the code can read, worked out once for each code object."""
    key = id(code)
    known = _READS.get(key)
    if known is None or known[0]() is not code:
        known = (weakref.ref(code, lambda _: _READS.pop(key, None)), _reads(code))
        _READS[key] = known
    return known[1]


def _reads(code: types.CodeType) -> Reads:
    steps = [step for step in dis.get_instructions(code) if step.opname not in SKIPPED]
    chains = dict.fromkeys(_chains(steps))
    imports = dict.fromkeys(_imports(steps))
    names = set(code.co_names)
    attributes = set(code.co_names)
    changes = any(_changes(step, code) for step in steps)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = reads_of(constant)
            chains |= dict.fromkeys(inner.chains)
            imports |= dict.fromkeys(inner.imports)
            names |= inner.names
            attributes.update(inner.attributes)
            changes = changes or inner.changes
        else:
            names.update(_strings(constant))
    if names & ASKING or _asks_by_name(steps):
        names.add(EVERYTHING)
    if names & WRITING or any(_writes(step) for step in steps):
        names.add(TEXT)
    return Reads(
        tuple(chains),
        tuple(imports),
        frozenset(names),
        tuple(sorted(attributes)),
        changes or bool(names & CHANGING),
    )


def _chains(steps: Sequence[Step]) -> Iterator[tuple[str, ...]]:
    """``a.b.c`` as (a, b, c), for each global ``a``."""
    chain: tuple[str, ...] = ()
    for step in steps:
        if chain and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chain = (*chain, step.argval)
            continue
        if chain:
            yield chain
        loads = step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
        chain = (step.argval,) if loads else ()
    if chain:
        yield chain


def _imports(steps: Sequence[Step]) -> Iterator[tuple[str, ...]]:
    """``from a import b`` as (a, b), ``import a.b`` as (a,) and (a.b,), for imports inside the
    code.
    """
    module = ""
    for step in steps:
        if step.opname == "IMPORT_NAME":
            module = step.argval
            follows = steps[steps.index(step) + 1].opname
            if follows != "IMPORT_FROM":
                yield from ((module,), (module.partition(".")[0],))
        elif step.opname == "IMPORT_FROM":
            yield (module, step.argval)


def _changes(step: Step, code: types.CodeType) -> bool:
    if step.opname in ("STORE_DEREF", "DELETE_DEREF"):
        return step.argval in code.co_freevars
    return step.opname.startswith(
        (
            "STORE_ATTR",
            "STORE_SUBSCR",
            "STORE_SLICE",
            "STORE_GLOBAL",
            "DELETE_ATTR",
            "DELETE_SUBSCR",
        )
    )


def _asks_by_name(steps: Sequence[Step]) -> bool:
    """Whether ``getattr`` or a class pattern asks for a name that is no constant."""
    for i, step in enumerate(steps):
        if step.opname == "MATCH_CLASS":
            return True
        if step.opname == "LOAD_GLOBAL" and step.argval in ("getattr", "hasattr"):
            arguments = itertools.takewhile(lambda s: s.opname.startswith("LOAD"), steps[i + 1 :])
            if not any(s.opname == "LOAD_CONST" and isinstance(s.argval, str) for s in arguments):
                return True
    return False


def _writes(step: Step) -> bool:
    """Whether an instruction is part of an f-string, or a ``%`` that may be one of text."""
    modulo = step.opname.startswith("BINARY_OP") and step.argrepr.startswith("%")
    return modulo or step.opname.startswith(("FORMAT_", "CONVERT_VALUE"))


def _strings(constant: Foreign) -> Iterator[str]:
    if isinstance(constant, str):
        yield from (part for part in constant.split(".") if part.isidentifier())
    elif isinstance(constant, tuple | frozenset):
        for part in constant:
            yield from _strings(part)


# ---------------------------------------------------------------- libraries


def of_library(value: Foreign) -> bool:
    """Whether a function, class or module belongs to a library that is not looked into."""
    if isinstance(value, types.FunctionType):
        name = value.__globals__.get("__name__")
    elif isinstance(value, types.ModuleType):
        name = value.__name__
    else:
        name = getattr(value, "__module__", "")
    if not isinstance(name, str):
        return False
    top = name.partition(".")[0]
    return top in STATELESS_LIBRARIES and not (
        top in sys.stdlib_module_names and _is_of_user(sys.modules.get(top))
    )


def _is_of_user(module: types.ModuleType | None) -> bool:
    """Whether a module that has the name of one of Python's, such as ``code`` or ``statistics``,
    is a file of the user's.
    """
    place = getattr(module, "__file__", None)
    if not isinstance(place, str):
        return False
    if place not in _PLACES:
        folder = os.path.dirname(os.path.abspath(place))
        installed = {"site-packages", "dist-packages"} & set(folder.split(os.sep))
        _PLACES[place] = not (installed or folder.startswith(PYTHON))
    return _PLACES[place]


@functools.lru_cache(maxsize=4096)
def is_impure(module: str, attributes: tuple[str, ...]) -> bool:
    """Whether what is read of a library's module leads outside the program, or to a state of its
    own.
    """
    top = module.partition(".")[0]
    if top in IMPURE_MODULES or module.startswith("numpy.random"):
        return True
    if IMPURE_ATTRIBUTES.get(top, frozenset()) & set(attributes):
        return True
    if top in TABLE_LIBRARIES and any(name.startswith(READING_PREFIXES) for name in attributes):
        return True
    inner = vars(sys.modules.get(module, types)).get(attributes[0]) if attributes else None
    return isinstance(inner, types.ModuleType) and is_impure(inner.__name__, attributes[1:])
