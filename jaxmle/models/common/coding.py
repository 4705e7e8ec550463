"""The coding that a built-in model expects: ranges of single leaves and relations between two,
checked by value on the host.

A response in another coding (−1 and 1 for 0 and 1, classes numbered from 1, events coded 2) has a
likelihood too, with a meaningless maximum. The error states what was found, what is expected, and
the line of code that recodes. NaN passes: where it is allowed is decided elsewhere.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxmle._namespace import is_traced
from jaxmle._types import Array, Foreign, FunctionTo, Loglik, Tree, ndarray
from jaxmle.likelihood.checks import Place, in_row
from jaxmle.likelihood.contract import leaf_of
from jaxmle.runtime.calls import marked

Remedy = Callable[[str, ndarray], str]

MAX_CODE = 2**31 - 1  # the largest int32, the type of codes when float64 is off
VALUES_CHECKED_AT_ONCE = 16_384  # values whose rounded copy stays in the cache
MAX_FEW = 6  # distinct values that still look like classes rather than measurements


@dataclass(frozen=True)
class Range:
    """The rule of one leaf: the range of its values, whether each end is allowed, and whether the
    values are integers.

    ``wanted`` is the rule in words; ``remedy`` makes the sentence with the line of code that
    recodes, from the leaf's name and its finite values.
    """

    leaf: str
    low: float
    high: float
    wanted: str
    remedy: Remedy
    whole: bool = False
    low_open: bool = False
    high_open: bool = False

    def inside(self, values: Array) -> Array:
        """Whether each value obeys the rule; False at NaN."""
        over = values > self.low if self.low_open else values >= self.low
        under = values < self.high if self.high_open else values <= self.high
        within = over & under
        return within & (np.rint(values) == values) if self.whole else within

    def violation(self, data: Tree, where: Place) -> str | None:
        """What is wrong with the leaf, or None."""
        values = _known(data, self.leaf)
        if values is None or not values.size:
            return None
        if self._holds(values):
            return None
        bad = ~self.inside(values) & (values == values)
        if not bad.any():
            return None
        offender = _first(self.leaf, values, bad, where)
        return (
            f"{offender}; {{model}} takes {self.wanted}. "
            f"{self.remedy(self.leaf, values[np.isfinite(values)])}"
        )

    def _holds(self, values: ndarray) -> bool:
        """Whether all values are valid, without a temporary array of the size of the data; False if
        there is a NaN.
        """
        low = values.min().item()
        high = values.max().item()
        if not (self.low < low if self.low_open else self.low <= low):
            return False
        if not (high < self.high if self.high_open else high <= self.high):
            return False
        return not self.whole or values.dtype.kind != "f" or _all_whole(values)


@dataclass(frozen=True)
class Order:
    """The rule that one leaf is below another or, unless ``strict``, equal to it; only in the rows
    where ``when(data)`` holds, if given.
    """

    left: str
    right: str
    wanted: str
    strict: bool = False
    when: Callable[[Tree], Array | None] | None = None

    def violation(self, data: Tree, where: Place) -> str | None:
        """What is wrong with the pair, or None."""
        left = _known(data, self.left)
        right = _known(data, self.right)
        if left is None or right is None:
            return None
        bad = np.asarray(left >= right if self.strict else left > right)
        if not bad.any():
            return None
        some = None if self.when is None else self.when(data)
        bad = bad if some is None else bad & some
        if not bad.any():
            return None
        left = np.broadcast_to(left, bad.shape)
        right = np.broadcast_to(right, bad.shape)
        offender = _first(self.left, left, bad, where)
        return f"{offender}, where {self.right} is {right[_place(bad)]:g}; {self.wanted}"


@dataclass(frozen=True)
class Jointly:
    """A condition on all rows together: ``wrong(data, where)`` returns the message, or None."""

    wrong: Callable[[Tree, Place], str | None]

    def violation(self, data: Tree, where: Place) -> str | None:
        """What is wrong with the data, or None."""
        return self.wrong(data, where)


Rule = Range | Order | Jointly


@dataclass(frozen=True)
class Coding:
    """The rules of one model."""

    model: str
    rules: tuple[Rule, ...]

    def check(self, data: Tree, where: Place = in_row) -> None:
        """Raise a ValueError for the first leaf that is coded otherwise."""
        for rule in self.rules:
            wrong = rule.violation(data, where)
            if wrong is not None:
                raise ValueError(wrong.replace("{model}", self.model))


def coded(likelihood: Foreign, model: str, rules: tuple[Rule, ...]) -> Loglik:
    """A function or a declared regression that carries the coding of its data where
    ``checks.check_coding`` looks for it.
    """
    if not rules:
        return likelihood
    regression = hasattr(likelihood, "density")
    check = Coding(model, rules).check
    inner = likelihood.density if regression else functools.partial(_marking, likelihood, check)
    function: Foreign = functools.partial(inner)
    function.check_data = check
    return dataclasses.replace(likelihood, density=function) if regression else function


def uncoded(likelihood: Foreign) -> Loglik:
    """The likelihood that ``coded`` was given: a family, a function."""
    if getattr(likelihood, "func", None) is _marking:
        return likelihood.args[0]
    return likelihood


def _marking(
    likelihood: FunctionTo[Array], check: FunctionTo[None], params: Tree, data: Tree
) -> Array:
    """The likelihood, with its data marked for ``likelihood.ready``."""
    return likelihood(params, marked(check, data))


_marking.wraps_first_argument = True  # type: ignore[attr-defined]  # for contract.carried


def _all_whole(values: ndarray) -> bool:
    flat = values.ravel()
    blocks = (
        flat[start : start + VALUES_CHECKED_AT_ONCE]
        for start in range(0, flat.size, VALUES_CHECKED_AT_ONCE)
    )
    return all(bool((np.rint(block) == block).all()) for block in blocks)


def _known(data: Tree, leaf: str) -> ndarray | None:
    """The values of a leaf; None under tracing, which hides them. A lone array is the response."""
    lone = not isinstance(data, dict | tuple | list) and hasattr(data, "dtype")
    values = data if lone else leaf_of(data, leaf)
    if is_traced(values):
        return None
    values = np.asarray(values)
    return values if values.dtype.kind in "fiub" else None


def _place(bad: ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))


def _first(leaf: str, values: ndarray, bad: ndarray, where: Place) -> str:
    place = _place(bad)
    more = int(bad.sum()) - 1
    others = f" ({more + 1} such values)" if more else ""
    return f"data[{leaf!r}] is {values[place]:g} in {where(place)}{others}"


# ---------------------------------------------------------------- the codings


def binary(leaf: str = "y", *, fractions: bool = True) -> Range:
    """The rule of 0 and 1, and of numbers between them if the model accepts fractions."""
    wanted = "0 and 1, or fractions between them" if fractions else "0 and 1"
    return Range(leaf, 0, 1, wanted, _recode_binary, whole=not fractions)


def _recode_binary(leaf: str, values: ndarray) -> str:
    kinds = np.unique(values)
    if set(kinds.tolist()) == {-1.0, 1.0}:
        return f"Write {leaf} = ({leaf} + 1) / 2."
    if set(kinds.tolist()) == {-1.0, 0.0, 1.0}:
        return (
            "If −1 is pandas' code for a missing value, drop these rows from every leaf; "
            f"if it is the other class, {leaf} = ({leaf} + 1) / 2."
        )
    if len(kinds) > MAX_FEW and kinds[0] >= 0 and kinds[-1] <= 100:
        return f"Percentages are {leaf} = {leaf} / 100."
    remedy = (
        f"Write {leaf} = ({leaf} == {kinds[-1]:g}).astype(float)" if len(kinds) else "Recode it"
    )
    return remedy + (
        " if that value is the event."
        if len(kinds) <= 2
        else f", whichever of its {len(kinds)} values is the event."
    )


def counts(leaf: str = "y", *, whole: bool = True) -> Range:
    """The rule of integers from 0 on; of any numbers from 0 on where the model takes a
    pseudo-likelihood of them.
    """
    wanted = "integers, 0 or more" if whole else "finite numbers, 0 or more"

    def remedy(leaf: str, values: ndarray) -> str:
        if values.size and values.min() < 0:
            return f"A count cannot be negative: drop or correct the rows where {leaf} < 0."
        if not whole:
            return f"Drop or correct the rows where {leaf} is infinite."
        return (
            f"Split a rate into a count and an exposure: {leaf} = rate * exposure; remove "
            f"rounding errors with {leaf} = numpy.round({leaf}); models.poisson() with "
            f"vcov='HC0' accepts any {leaf} ≥ 0."
        )

    return Range(leaf, 0, math.inf, wanted, remedy, whole=whole, high_open=True)


def positive(leaf: str, *, zeros: str = "") -> Range:
    """The rule of finite numbers above 0; ``zeros`` says what to do with a zero."""

    def remedy(leaf: str, values: ndarray) -> str:
        drop = f"Drop or correct the rows where not 0 < {leaf} < inf"
        return f"{drop}{'; ' + zeros if zeros else ''}."

    return Range(leaf, 0, math.inf, "finite numbers above 0", remedy, low_open=True, high_open=True)


def at_least_zero(leaf: str) -> Range:
    """The rule of finite numbers ≥ 0."""
    return Range(
        leaf, 0, math.inf, "finite numbers, 0 or more",
        lambda leaf, values: f"Drop or correct rows where not 0 <= {leaf} < inf.", high_open=True,
    )  # fmt: skip


def finite(leaf: str) -> Range:
    """The rule of finite numbers."""
    return Range(
        leaf,
        -math.inf,
        math.inf,
        "finite numbers",
        lambda leaf, values: f"Drop or correct the rows where {leaf} is infinite.",
        low_open=True,
        high_open=True,
    )


def proportion(leaf: str = "y") -> Range:
    """The rule of numbers between 0 and 1, without the ends."""

    def remedy(leaf: str, values: ndarray) -> str:
        if values.size and values.max() > 1 and values.min() >= 0 and values.max() <= 100:
            return f"Percentages are {leaf} = {leaf} / 100."
        if values.size and 0 <= values.min() and values.max() <= 1:
            return (
                f"To move values at the ends inside, write {leaf} = ({leaf} * "
                f"(len({leaf}) - 1) + 0.5) / len({leaf}) (Smithson & Verkuilen 2006)."
            )
        return f"Write {leaf} = ({leaf} - low) / (high - low), with the ends of its scale."

    return Range(
        leaf,
        0,
        1,
        "numbers strictly between 0 and 1",
        remedy,
        low_open=True,
        high_open=True,
    )


def classes(number: int, leaf: str = "y", option: str = "classes") -> Range:
    """The rule of the codes 0 … K − 1. A class without rows is left to the fit."""

    def remedy(leaf: str, values: ndarray) -> str:
        whole = bool(np.all(values == np.floor(values)))
        if whole and values.min() == -1:
            return (
                "−1 is pandas' code for a missing value: drop these rows from every "
                f"leaf, those where {leaf} == -1."
            )
        if whole and values.min() == 1 and values.max() == number:
            return f"Write {leaf} = {leaf} - 1."
        kinds = len(np.unique(values))
        line = f"Write {leaf} = numpy.unique({leaf}, return_inverse=True)[1]"
        return (
            f"{line}."
            if kinds <= number
            else f"{leaf} has {kinds} values: {line}, and {option}={kinds}."
        )

    return Range(leaf, 0, number - 1, f"the classes 0 … {number - 1}", remedy, whole=True)


def at_most(cases: int, leaf: str, real: str | None) -> Jointly:
    """The rule that no stratum (row) has more cases than the model was made for."""

    def wrong(data: Tree, where: Place) -> str | None:
        values = _known(data, leaf)
        members = None if real is None else _known(data, real)
        if values is None or values.ndim < 2:
            return None
        number = np.sum(values if members is None else values * members, axis=-1)
        bad = number > cases
        if not bad.any():
            return None
        place = _place(bad)
        return (
            f"the stratum of {where(place)} has {number[place]:g} cases; {{model}} takes "
            f"{cases} at most. Give cases={int(np.nanmax(number))}."
        )

    return Jointly(wrong)


def groups(leaf: str) -> Range:
    """The rule of group codes, integers from 0 up."""
    return Range(
        leaf,
        0,
        MAX_CODE,
        "integer codes from 0",
        lambda leaf, values: (
            "−1 is pandas' code for a missing value: drop such rows from every leaf; "
            f"code other labels with {leaf} = numpy.unique({leaf}, "
            "return_inverse=True)[1]."
        ),
        whole=True,
    )


def within(low: float, high: float, leaf: str = "y") -> Range:
    """The rule of numbers between limits beyond which nothing is recorded."""
    return Range(
        leaf,
        low,
        high,
        f"numbers between its limits, {low:g} and {high:g}",
        lambda leaf, values: (
            "A truncated sample has no values beyond a limit: drop such rows, or use "
            f"models.tobit() if {leaf} is recorded at the limit."
        ),
    )


def optional(
    offset: str | None = None, exposure: str | None = None, entry: str | None = None
) -> tuple[Rule, ...]:
    """The rules of leaves that a model reads only if they are named."""
    rules: list[Rule] = [] if offset is None else [finite(offset)]
    if exposure is not None:
        rules.append(positive(exposure, zeros="without exposure there can be no counts"))
    return (*rules, *(() if entry is None else (at_least_zero(entry),)))


# ---------------------------------------------------------------- events

EVENT = 1
RIGHT = 0
LEFT = 2
INTERVAL = 3


def events(leaf: str = "event") -> Range:
    """The rule of 1 for an event and 0 for a censored time."""
    return Range(leaf, 0, 1, "1 for an event and 0 for a censored time", _recode_event, whole=True)


def _recode_event(leaf: str, values: ndarray) -> str:
    kinds = np.unique(values)
    which = f"{kinds[-1]:g}" if len(kinds) <= 2 and len(kinds) else "code_of_the_event"
    return f"Write {leaf} = ({leaf} == {which}).astype(int)."


def censoring(leaf: str, *, interval: bool, left_alone: bool) -> tuple[Rule, ...]:
    """The rule of the codes of ``aft``: 1 event, 0 right censored, 2 left censored, 3 between two
    times.
    """
    last = INTERVAL if interval else LEFT
    words = "1 for an event, 0 for right censored, 2 for left censored" + (
        ", 3 for between two times" if interval else " (3 needs upper=)"
    )
    codes = Range(leaf, 0, last, words, _recode_event, whole=True)
    return (codes,) if left_alone else (codes, Jointly(functools.partial(_ones_and_twos, leaf)))


def _ones_and_twos(leaf: str, data: Tree, where: Place) -> str | None:
    """R's older coding, 1 for censored and 2 for an event, has the codes of events and
    left-censored times.
    """
    values = _known(data, leaf)
    if values is None or not values.size or values.max() != LEFT or values.min() != EVENT:
        return None
    offender = _first(leaf, values, values == LEFT, where)
    return (
        f"{offender} and 1 in the others; {{model}} reads 1 as an event and 2 as a "
        f"left-censored time. If 2 is the event, write {leaf} = ({leaf} == "
        "2).astype(int); if times really are left censored, and none right censored, use "
        "aft(…, left_censored=True)."
    )
