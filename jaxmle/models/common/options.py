"""Options of built-in models: checked against their annotations; the same options give the same
model.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar, cast

from jaxmle._types import Foreign, Loglik, Tree
from jaxmle.closures.recipes import note_recipe
from jaxmle.families.family import Family
from jaxmle.parameters.arguments import check_count, check_end, shown

NAMES_OF_LEAVES = ("offset", "exposure", "entry", "strata")  # options that name a leaf like them
P = ParamSpec("P")
R = TypeVar("R")


def made_once(make: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that makes a built-in model: the same options return the same model, so
    that what was compiled for it is reused.

    Options that do not match the function's annotations (a name of a leaf, a number, an integer)
    are rejected.
    """
    signature = inspect.signature(make)
    cached: Foreign = functools.cache(make)
    leaves = [name for name in NAMES_OF_LEAVES if name in signature.parameters]

    @functools.wraps(make)
    def call(*args: P.args, **options: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **options)
        except TypeError as error:
            needed = re.search(r"missing a required .*'(\w+)'$", str(error))
            if needed and not args:
                such = "3" if needed[1] == "classes" else "…"
                raise TypeError(
                    f"{make.__name__} needs {needed[1]}: write {make.__name__}({such})"
                ) from None
            known = ", ".join(signature.parameters) or "none"
            raise TypeError(
                f"{make.__name__} takes options of the model ({known}), not data: {error}. Data go "
                f"to fit: jaxmle.fit(models.{make.__name__}(…), data={{'x': x, 'y': y}})"
            ) from None
        given = {
            name: _option(name, value, str(signature.parameters[name].annotation))
            for name, value in bound.arguments.items()
        }
        model = cached(**given)
        note_recipe(model, call, (), given)
        note_recipe(model.likelihood, likelihood_of, (model,), {})
        if hasattr(model, "options"):
            object.__setattr__(model, "maker", make.__name__)
            object.__setattr__(model, "options", given)
            unread = tuple(name for name in leaves if given.get(name) is None)
            object.__setattr__(model, "unread", unread)
        return cast(R, model)

    return call


def likelihood_of(model: Foreign) -> Loglik:
    """The likelihood of a built-in model: how it is pickled when a combinator contains it."""
    return model.likelihood


def written(maker: str, options: Mapping[str, Tree]) -> str:
    """The call that makes a model, as text that ``made_again`` reads; "" if an option, such as a
    family, cannot be written as text.

    >>> written("tobit", {"lower": 0.0, "upper": float("inf")})
    'tobit(lower=0.0, upper=1e999)'
    """
    plain = (str, bool, int, float, type(None))
    if not maker or not all(isinstance(value, plain) for value in options.values()):
        return ""
    words = [
        f"{name}={value!r}"
        if isinstance(value, str)
        else f"{name}={repr(value).replace('inf', '1e999')}"
        for name, value in options.items()
    ]
    return f"{maker}({', '.join(words)})"


def _option(name: str, value: object, kind: str) -> object:
    """One option, converted as its annotation says."""
    if value is None and kind.endswith("| None"):
        return None
    if kind.startswith("str"):
        if not isinstance(value, str):
            raise TypeError(
                f"{name} must be a keyword or the name of a leaf of data; got {shown(value)}"
            )
        return str(value)
    if kind.startswith("float"):
        return check_end(name, value)
    if kind.startswith("int"):
        return check_count(name, value, most=MOST_CLASSES)
    if kind == "Family" and not isinstance(value, Family):
        raise TypeError(
            f"{name} must be one of jaxmle.families, such as families.gamma; got {shown(value)}"
        )
    return value


MOST_CLASSES = 2**20  # of a categorical response, or cases of a stratum
