"""Null hypotheses as text: ``"age = 0"``, ``"a - b = 1; c = 0"``, ``"race = 0"``."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from jaxmle._types import ndarray
from jaxmle.parameters.tree import Layout

NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class Linear(NamedTuple):
    """A linear form of the printed entries, rows (m, p) and constants (m,); m is more than one for
    the name of a whole leaf or factor.
    """

    rows: ndarray
    constant: ndarray

    @property
    def is_constant(self) -> bool:
        return not np.any(self.rows)


class Equations(NamedTuple):
    """Rows (q, p) and their right-hand sides, (q,), with the original text."""

    rows: ndarray
    targets: ndarray
    text: str


class _Reader(NamedTuple):
    """A text without blanks, the possible names (longest first), and ``position``, the current
    position.
    """

    text: str
    names: dict[str, list[int]]
    position: list[int]
    p: int

    def rest(self) -> str:
        return self.text[self.position[0] :]

    def take(self, characters: str) -> str:
        """The next character, if it is one of these; otherwise ""."""
        following = self.rest()[:1]
        if following and following in characters:
            self.position[0] += 1
            return following
        return ""


def equations_of(layout: Layout, texts: list[str]) -> Equations:
    """Linear equations in the names of parameters, separated by semicolons.

    A name is any that ``layout.find`` accepts. Numbers, ``+ - * /`` and parentheses are allowed;
    ``a = b = 0`` is two equations.

    Raises:
        ValueError: for anything but an equation, an unknown name, or a nonlinear expression.

    >>> from jaxmle.parameters.tree import layout_of
    >>> found = equations_of(layout_of({"a": np.zeros(()), "b": np.zeros(())}), ["2*a - b = 1"])
    >>> found.rows.tolist(), found.targets.tolist()
    ([[2.0, -1.0]], [1.0])
    """
    names = _names(layout)
    listed = [part.strip() for text in texts for part in text.split(";") if part.strip()]
    equations = [_equation(layout, names, part) for part in listed]
    rows = np.concatenate([rows for rows, _ in equations])
    targets = np.concatenate([targets for _, targets in equations])
    return Equations(rows, targets, "; ".join(" ".join(part.split()) for part in listed))


def _names(layout: Layout) -> dict[str, list[int]]:
    """Every spelling without blanks, the longest first, with the positions it refers to."""
    known = [*layout.names, *layout.whole_names, *layout.places, *layout.short]
    known += [leaf.path or "theta" for leaf in layout.leaves]
    positions = {}
    for name in sorted(set(known), key=len, reverse=True):
        try:
            positions["".join(name.split())] = layout.find(name)
        except ValueError:  # a short name of several parameters, refused if it is used
            positions["".join(name.split())] = []
    return positions


def _equation(layout: Layout, names: dict[str, list[int]], text: str) -> tuple[ndarray, ndarray]:
    if any(sign in text for sign in "<>!"):
        raise ValueError(
            f"{text!r}: a null hypothesis must be an equation, with =; got an inequality"
        )
    sides = text.replace("==", "=").split("=")
    if len(sides) < 2 or not all(side.strip() for side in sides):
        raise ValueError(
            f"{text!r} is not an equation: write 'age = 0', 'a = b', or several separated "
            "by semicolons"
        )
    forms = [_side(layout, names, side, text) for side in sides]
    rows = []
    targets = []
    for left, right in zip(forms[:-1], forms[1:], strict=True):
        gap = _plus(left, right, -1.0, text)
        if np.any(~np.any(gap.rows, axis=1)):
            raise ValueError(f"{text!r} does not name a parameter")
        rows.append(gap.rows)
        targets.append(0.0 - gap.constant)
    return np.concatenate(rows), np.concatenate(targets)


def _side(layout: Layout, names: dict[str, list[int]], side: str, text: str) -> Linear:
    reader = _Reader("".join(side.split()), names, [0], layout.p)
    form = _sum(reader, layout, text)
    if reader.rest():
        several = ": several equations are a list, ['a = 0', 'b = 1']" if "," in text else ""
        raise ValueError(f"cannot read {reader.rest()!r} in {text!r}{several}")
    return form


def _sum(reader: _Reader, layout: Layout, text: str) -> Linear:
    sign = reader.take("+-")
    first = _product(reader, layout, text)
    total = Linear(-first.rows, -first.constant) if sign == "-" else first
    while sign := reader.take("+-"):
        term = _product(reader, layout, text)
        total = _plus(total, term, 1.0 if sign == "+" else -1.0, text)
    return total


def _product(reader: _Reader, layout: Layout, text: str) -> Linear:
    form = _atom(reader, layout, text)
    while sign := reader.take("*/"):
        other = _atom(reader, layout, text)
        number, named = (form, other) if form.is_constant and sign == "*" else (other, form)
        if not number.is_constant or number.constant.size != 1:
            raise ValueError(
                f"{text!r} is not linear in the parameters: give a function, such as lambda p: "
                "p['a'] * p['b'] - 1"
            )
        by = number.constant[0] if sign == "*" else 1.0 / number.constant[0]
        form = Linear(named.rows * by, named.constant * by)
    return form


def _atom(reader: _Reader, layout: Layout, text: str) -> Linear:
    """A number, a name, or an expression in parentheses."""
    rest = reader.rest()
    number = NUMBER.match(rest)
    name = next((name for name in reader.names if _begins(rest, name)), "")
    if name and len(name) > (number.end() if number else 0):
        reader.position[0] += len(name)
        places = reader.names[name] or layout.find(name)
        return Linear(np.eye(reader.p)[places], np.zeros(len(places)))
    if number:
        reader.position[0] += number.end()
        return Linear(np.zeros((1, reader.p)), np.array([float(number[0])]))
    if reader.take("("):
        inner = _sum(reader, layout, text)
        if not reader.take(")"):
            raise ValueError(f"a parenthesis is not closed in {text!r}")
        return inner
    word = re.match(r"[^+\-*/=();]*", rest)
    if word and word[0]:
        layout.find(word[0])  # raises an error that lists the names
    raise ValueError(f"cannot read {text!r}: a name or a number is missing")


def _begins(rest: str, name: str) -> bool:
    """Whether a text begins with a whole name."""
    if not rest.startswith(name):
        return False
    following = rest[len(name) : len(name) + 1]
    return not (following and (following.isalnum() or following in "_[.") and name[-1] not in "])")


def _plus(left: Linear, right: Linear, sign: float, text: str) -> Linear:
    sizes = {left.constant.size, right.constant.size} - {1}
    if len(sizes) > 1:
        raise ValueError(f"{text!r} joins names of {left.constant.size} and {right.constant.size}")
    return Linear(left.rows + sign * right.rows, left.constant + sign * right.constant)
