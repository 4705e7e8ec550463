"""Which public object a span of code names."""

from __future__ import annotations

import re

import jaxmle

QUALIFIED = re.compile(r"(?:jm|jaxmle)\.([A-Za-z]\w*(?:\.[A-Za-z]\w*)*)")
RECORD = re.compile(r"fits?\.([a-z]\w*)")
SHELVES = (
    "datasets",
    "engines",
    "families",
    "models",
    "plots",
    "sklearn",
    "solvers",
    "special",
    "survival",
)


def target_of(text: str) -> str | None:
    """The full name that a span of code refers to; None where it refers to nothing public."""
    qualified = QUALIFIED.match(text)
    if qualified:
        parts = qualified[1].split(".")
        if parts == ["__version__"]:
            return None
        deep = parts[0] in SHELVES or parts[0][0].isupper()
        return ".".join(["jaxmle", *parts[: 2 if deep else 1]])
    member = RECORD.match(text)
    if member and member[1] in jaxmle.Fit.__dataclass_fields__:
        return "jaxmle.Fit"  # whose page describes its fields
    if member and hasattr(jaxmle.Fit, member[1]):
        return f"jaxmle.Fit.{member[1]}"
    if text in jaxmle.__all__ and (text[0].isupper() or "_" in text):
        return f"jaxmle.{text}"
    return None
