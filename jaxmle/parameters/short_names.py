"""Short names of coefficients named by a formula: ``age`` for ``beta[age]``, ``race[black]`` for
``beta[race[T.black]]``, ``race`` for all its levels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol


class LabelledLeaf(Protocol):
    """A leaf of a layout, as far as its labels go: with those of the formula, and plain ones."""

    # fmt: off
    @property
    def path(self) -> str: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def places(self) -> Sequence[str]: ...
    # fmt: on


_CODING = re.compile(r"\[[TS]\.")  # of a level against a base, or against the mean
_FACTOR = re.compile(r"\bC\((\w+)\)")


def short_names(path: str, label: str) -> tuple[str, ...]:
    """The names that one entry has besides its label, the plainest last.

    >>> short_names("beta", "beta[C(race)[T.black]]")
    ('C(race)[T.black]', 'C(race)[black]', 'race[black]')
    >>> short_names("sigma", "sigma")
    ()
    """
    if not (label.startswith(f"{path}[") and label.endswith("]")):
        return ()
    inner = label[len(path) + 1 : -1]
    plain = _CODING.sub("[", inner)
    return tuple(dict.fromkeys((inner, plain, _FACTOR.sub(r"\1", plain))))


def term_of(name: str) -> str:
    """The factor to which the name of a level belongs, or "".

    >>> term_of("race[black]"), term_of("age:race[black]"), term_of("age")
    ('race', '', '')
    """
    matched = re.fullmatch(r"(C\(\w+\)|\w+)\[[^\[\]]*\]", name)
    return matched[1] if matched else ""


def brief_names(leaves: Sequence[LabelledLeaf], names: Sequence[str]) -> list[str]:
    """The names of a layout's entries in tables of several fits and in plots: without the leaf if a
    formula named them and no two coincide, ``age`` for ``beta[age]``.
    """
    brief = [
        label.removeprefix(f"{leaf.path}[").removesuffix("]") if label != place else label
        for leaf in leaves
        for label, place in zip(leaf.names, leaf.places, strict=True)
    ]
    return [
        name if brief.count(name) == 1 else label for name, label in zip(brief, names, strict=True)
    ]
