"""Count the terms of a formula without expanding it, so that ``(a + b + c)**26`` and ``a*b*…*z``
are refused before they are expanded.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_TERMS = 10_000  # expanded, including repeats; formulaic takes a second for this many
MAX_POWER = 64  # a higher power of a sum has no new terms for fewer than 64 columns

TOKEN = re.compile(
    r"\s*(\*\*|\^|%in%|[-+*/:()|~]|`[^`]*`|\{[^}]*\}|[\w.]+(?:\.\w+)*|\"[^\"]*\"|'[^']*'|.)", re.S
)


class _Reader(NamedTuple):
    """The tokens of a formula, and ``position``, the index of the next one."""

    tokens: list[str]
    position: list[int]

    def peek(self) -> str:
        return self.tokens[self.position[0]] if self.position[0] < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.position[0] += 1
        return token


def check_expansion(right: str) -> None:
    """Raise for a right-hand side with more than ``MAX_TERMS`` terms."""
    reader = _Reader([token for token in TOKEN.findall(right) if token.strip()], [0])
    try:
        total = _sum(reader)
        while reader.peek():  # an unpaired parenthesis, which formulaic refuses
            reader.next()
            total += _sum(reader)
    except RecursionError:
        raise ValueError("the formula is nested too deeply") from None
    if total > MAX_TERMS:
        raise ValueError(
            f"the formula '~ {right if len(right) < 80 else right[:77] + '…'}' expands to "
            f"more than {MAX_TERMS:,} terms: write out those that you need"
        )


def _sum(reader: _Reader) -> float:
    """Count the terms of a + b − c, and of both sides of | and ~."""
    total = 0.0
    if reader.peek() in ("+", "-"):
        reader.next()
    total += _crossed(reader)
    while reader.peek() in ("+", "-", "|", "~", ","):
        reader.next()
        total += _crossed(reader)
    return total


def _crossed(reader: _Reader) -> float:
    """Count the terms of a*b = a + b + a:b and of a/b = a + a:b."""
    total = _joined(reader)
    while reader.peek() in ("*", "/", "%in%"):
        sign = reader.next()
        other = _joined(reader)
        total = total + total * other + (other if sign == "*" else 0.0)
    return total


def _joined(reader: _Reader) -> float:
    """Count the terms of a:b."""
    total = _power(reader)
    while reader.peek() == ":":
        reader.next()
        total *= _power(reader)
    return total


def _power(reader: _Reader) -> float:
    """Count the terms of (a + b)**k, written out as k factors."""
    base = _atom(reader)
    while reader.peek() in ("**", "^"):
        reader.next()
        power = reader.next()
        exponent = int(power) if power.isdigit() and len(power) < 10 else MAX_POWER
        base = _raised(base, exponent)
    return base


def _raised(base: float, exponent: int) -> float:
    if base <= 1.0:
        return base if exponent <= MAX_POWER else float("inf")
    return float("inf") if exponent > MAX_POWER else base**exponent


def _atom(reader: _Reader) -> float:
    """Count the terms of a column, of a call with its arguments, or of an expression in
    parentheses.
    """
    token = reader.next()
    if token == "(":
        inside = _sum(reader)
        while reader.peek() not in (")", ""):  # anything outside the grammar above
            reader.next()
        reader.next()
        return inside
    if reader.peek() == "(" and token not in ("+", "-", "*", "/", ":", "**", "^"):
        _skip_call(reader)
    return 1.0


def _skip_call(reader: _Reader) -> None:
    """Skip the arguments of a function."""
    depth = 0
    while reader.peek():
        token = reader.next()
        depth += (token == "(") - (token == ")")
        if not depth:
            return
