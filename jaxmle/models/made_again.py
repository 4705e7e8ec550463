"""Rebuild a built-in model from the call that a record keeps."""

from __future__ import annotations

import ast

from jaxmle._types import Tree
from jaxmle.models import (
    binary,
    categorical,
    censored,
    continuous,
    counts,
    proportional_hazards,
    robust,
    series,
    survival,
)
from jaxmle.models.common.model import Model

ROOMS = (
    binary,
    categorical,
    censored,
    continuous,
    counts,
    proportional_hazards,
    robust,
    series,
    survival,
)


def made_again(call: str) -> Model | None:
    """The built-in model that ``call`` makes, such as ``"poisson(offset='offset')"``; None if it is
    not such a call, as in the record of any other likelihood, where it is "".

    The text is parsed, never evaluated: the name of a built-in model, and constant options.

    >>> from jaxmle import models
    >>> made_again("poisson(exposure='years')") is models.poisson(exposure="years")
    True
    """
    try:
        node = ast.parse(call, mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
            return None
        options: dict[str, Tree] = {
            str(word.arg): ast.literal_eval(word.value) for word in node.keywords
        }
    except (SyntaxError, ValueError):  # not a call that a record holds
        return None
    name = node.func.id
    make = next((getattr(room, name) for room in ROOMS if name in vars(room)), None)
    model = make(**options) if callable(make) else None
    return model if isinstance(model, Model) else None
