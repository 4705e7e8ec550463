"""Objects that are pickled by how they were made: a function of jaxmle and its arguments, or a
public name. The copy is made again where it arrives, so that lambdas and compiled programs stay
at home.
"""

from __future__ import annotations

import copyreg
import functools
from collections.abc import Callable
from importlib import import_module
from typing import ParamSpec, TypeVar

from jaxmle._types import Foreign, FunctionTo
from jaxmle.closures.kinds import MEMO

P = ParamSpec("P")
R = TypeVar("R")

Recipe = tuple[FunctionTo[Foreign], tuple[Foreign, ...], tuple[tuple[str, Foreign], ...]]

RECIPE = f"{MEMO}__recipe"  # the attribute of an object that says how it was made
COPIES_HELD = 256  # made again from recipes; a model and its families are a handful


def note_recipe(thing: Foreign, make: FunctionTo[Foreign], args: Foreign, options: Foreign) -> None:
    """Record that ``thing`` is ``make(*args, **options)``, ``make`` a function with a name of its
    own in its module.
    """
    object.__setattr__(thing, RECIPE, (make, tuple(args), tuple(sorted(options.items()))))


def with_recipe(make: Callable[P, R]) -> Callable[P, R]:
    """A function whose results are pickled as the call that made them."""

    @functools.wraps(make)
    def call(*args: P.args, **options: P.kwargs) -> R:
        made = make(*args, **options)
        note_recipe(made, call, args, options)
        return made

    return call


def recipe_of(thing: Foreign) -> Recipe | None:
    """How the thing was made: arguments of ``remade``; None where nothing is recorded."""
    return getattr(thing, "__dict__", {}).get(RECIPE)


def reduced(thing: Foreign, room: str = "") -> tuple[Foreign, ...]:
    """What ``__reduce__`` returns: the recipe; else the public name, where ``room`` has one for
    the thing; else class and fields, as Python does it.
    """
    recipe = recipe_of(thing)
    if recipe is not None:
        return remade, recipe
    public = vars(import_module(room)).items() if room else ()
    for name, value in public:
        if value is thing:
            return by_name, (room, name)
    return copyreg.__newobj__, (type(thing),), _fields(thing)  # type: ignore[attr-defined]


def _fields(thing: Foreign) -> dict[str, Foreign]:
    return {name: value for name, value in vars(thing).items() if not name.startswith(MEMO)}


def by_name(room: str, name: str) -> Foreign:
    """A public object of a room."""
    return getattr(import_module(room), name)


def remade(
    make: FunctionTo[Foreign], args: tuple[Foreign, ...], options: tuple[Foreign, ...]
) -> Foreign:
    """``make(*args, **options)``; copies that arrive one after the other are one object, so that
    it is compiled once.
    """
    try:
        return _cached(make, args, options)
    except TypeError:  # arguments without a hash, or a refusal, which is then raised again
        return make(*args, **dict(options))


@functools.lru_cache(maxsize=COPIES_HELD)
def _cached(
    make: FunctionTo[Foreign], args: tuple[Foreign, ...], options: tuple[Foreign, ...]
) -> Foreign:
    return make(*args, **dict(options))
