"""What the names that code loads mean: globals, names of Python's, attributes of modules, imports.

Each function takes the walk of ``watch``.
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Iterable

from jaxmle._types import Foreign
from jaxmle.closures.bytecode import is_impure, of_library
from jaxmle.closures.holders import Traversal
from jaxmle.closures.kinds import ABSENT


def library(traversal: Traversal, module: types.ModuleType, names: Iterable[str]) -> None:
    """Attributes of a module that is not looked into may lead outside the program."""
    for name in () if traversal.again or not of_library(module) else names:
        if is_impure(module.__name__, (name,)):
            traversal.hidden = traversal.hidden or f"what {module.__name__}.{name} reads"


def read_global(traversal: Traversal, scope: dict[str, Foreign], chain: tuple[str, ...]) -> None:
    """The value of a global, or of an attribute of a module that is one."""
    value = scope.get(chain[0], ABSENT)
    place = 1
    parent = traversal.parent
    if value is ABSENT:
        _of_python(traversal, chain[0])
        return
    while isinstance(value, types.ModuleType):
        if of_library(value):
            traversal.identity(value)
            _of_library(traversal, value, chain, place)
            return
        inner = vars(value).get(chain[place], ABSENT) if place < len(chain) else ABSENT
        if inner is ABSENT:
            break
        if not traversal.again:
            traversal.retained.append(value)
            traversal.edges.append((traversal.parent, id(value)))
        traversal.parent, value, place = id(value), inner, place + 1
    traversal.visit(value)
    traversal.parent = parent


def _of_python(traversal: Traversal, name: str) -> None:
    """What a name means that is no global."""
    traversal.facts.append(ABSENT)
    if not traversal.again and is_impure("builtins", (name,)):
        traversal.hidden = traversal.hidden or f"what {name} reads"
    value = vars(builtins).get(name, ABSENT)
    if value is not ABSENT and not of_library(value):  # set there by the user
        traversal.visit(value)


def _of_library(
    traversal: Traversal, module: types.ModuleType, chain: tuple[str, ...], place: int
) -> None:
    """What is read of a library's module: numbers and containers, and what the user has set
    there.
    """
    if is_impure(module.__name__, chain[place:]):
        if not traversal.again:
            traversal.hidden = traversal.hidden or f"what {'.'.join(chain)} reads"
        return
    value: Foreign = module
    for name in chain[place:]:
        value = vars(value).get(name, ABSENT)
        if not isinstance(value, types.ModuleType):
            break
    if not (isinstance(value, types.ModuleType) or value is ABSENT or of_library(value)):
        traversal.visit(value)


def imported(
    traversal: Traversal,
    scope: dict[str, Foreign],
    names: tuple[str, ...],
    attributes: Iterable[str],
) -> None:
    """What a function imports when it is called, if it has been imported before."""
    package = scope.get("__package__") or ""
    for name in (names[0], f"{package}.{names[0]}" if names[0] else package):
        read_global(traversal, {name: sys.modules.get(name, ABSENT)}, (name, *names[1:]))
    module = sys.modules.get(names[0])
    if module is not None and len(names) == 1:
        library(traversal, module, attributes)
