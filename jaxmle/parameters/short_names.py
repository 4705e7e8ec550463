"""Short names of coefficients named by a formula: ``age`` for ``beta[age]``, ``race[black]`` for
``beta[race[T.black]]``, ``race`` for all its levels.
"""

from __future__ import annotations

import re
from collections import Counter
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


class Labelled(Protocol):
    """A layout, as far as its labels go."""

    # fmt: off
    @property
    def leaves(self) -> tuple[LabelledLeaf, ...]: ...
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


def printed_names(layout: Labelled) -> tuple[str, ...]:
    """The names of a layout's entries: of those that a formula named the plainest one, ``age`` for
    ``beta[age]``, ``race[black]`` for ``beta[race[T.black]]``.

    Names stay whole where two parts of a model have coefficients, such as the counts and the extra
    zeros of a zero-inflated model, and where the plain name would mean something else, too.
    """
    labels = [label for leaf in layout.leaves for label in leaf.names]
    places = [place for leaf in layout.leaves for place in leaf.places]
    paths = [leaf.path for leaf in layout.leaves for _ in leaf.names]
    plain = [
        (short_names(path, label) or (label,))[-1] if label != place else label
        for path, label, place in zip(paths, labels, places, strict=True)
    ]
    # a threshold between two levels, low|mid, is no coefficient
    parts = {
        path
        for path, name, place in zip(paths, plain, places, strict=True)
        if name != place and "|" not in name
    }
    if len(parts) > 1:
        return tuple(labels)
    taken = Counter(plain) + Counter({*paths, *places, *labels})
    return tuple(
        name if name == label or taken[name] == 1 else label
        for name, label in zip(plain, labels, strict=True)
    )
