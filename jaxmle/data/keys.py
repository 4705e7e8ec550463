"""The keys of groups: from ``by`` to distinct labels and the group of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import jax
import numpy as np

from jaxmle._types import ArrayLike, DataFrame, Foreign, Tree, ndarray
from jaxmle.data.table import is_missing, native_frame
from jaxmle.parameters.frames import is_frame

MAX_EXACT_INTEGER = 2.0**53  # below, a float64 tells integers apart


def columns_of_keys(by: str | Sequence[str] | Mapping[str, ArrayLike] | ArrayLike) -> list[str]:
    """The columns that define the groups, with a formula."""
    given = [by] if isinstance(by, str) else by
    names: list[Foreign] = list(given) if isinstance(given, list | tuple) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"with a formula, by must be the name of a column or a list of names; got {by!r}"
        )
    return names


def keys_and_data(
    by: str | Sequence[str] | Mapping[str, ArrayLike] | ArrayLike, data: Tree
) -> tuple[dict[str, Tree], Tree]:
    """The labels of each key, and the data without them."""
    if isinstance(by, dict):
        if not by:
            raise ValueError("by is an empty dict: it names no key to group by")
        for name in by:
            if not isinstance(name, str):
                raise TypeError(f"by names a key {name!r}; the names of keys must be strings")
        return by, data
    if is_frame(data) and (names := _names_in(by, data)):
        return _split(data, names)
    if not isinstance(by, str):
        return {"group": by}, data
    if not isinstance(data, dict):
        raise TypeError(
            f"by={by!r} names a leaf of data, which must then be a dict or a frame; got "
            f"{type(data).__name__}. Otherwise by is an array with one code for each row."
        )
    if by not in data:
        raise ValueError(f"by={by!r} is not a leaf of data; it has {sorted(map(str, data))}")
    rest = {name: leaf for name, leaf in data.items() if name != by}
    if not jax.tree.leaves(rest):
        raise ValueError(f"data contains only {by!r}, which is not passed to the likelihood")
    return {by: data[by]}, rest


def _names_in(by: object, data: DataFrame) -> list[str]:
    """The columns of a frame that ``by`` names; none if it holds one label for each row."""
    names = [by] if isinstance(by, str) else list(by) if isinstance(by, list | tuple) else []
    columns = [str(name) for name in native_frame(data).columns]
    if isinstance(by, str) and by not in columns:
        near = get_close_matches(by, columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(columns)}"
        raise ValueError(f"there is no column {by!r}; {hint}")
    return names if all(isinstance(name, str) and name in columns for name in names) else []


def _split(data: DataFrame, names: list[str]) -> tuple[dict[str, Tree], DataFrame]:
    """The labels in the columns of these names, and the frame of the other columns."""
    frame = native_frame(data)
    rest = frame.drop(*names)
    if not rest.columns:
        raise ValueError(f"data contains only {', '.join(names)}: no column is left to fit")
    labels: dict[str, Tree] = {}
    for name in names:
        column = frame[name]
        labels[name] = column.to_numpy() if column.dtype.is_numeric() else column.to_list()
    return labels, rest.to_native()


def refuse_mask(name: str, values: object) -> None:
    """Raise ``TypeError`` for a masked array of labels or weights, whose mask NumPy would drop."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would be lost; drop the masked rows "
            "from every leaf, or fill them"
        )


def coded_key(name: str, values: ArrayLike, rows: int) -> tuple[ndarray, ndarray]:
    """The distinct labels of one key in order, and the index of each row's label among them,
    (rows,).
    """
    what = "by" if name == "group" else f"by[{name!r}]"
    refuse_mask(what, values)
    # A list is read entry by entry, because in an array of strings None and NaN would become text.
    array = (
        np.array(values, dtype=object) if isinstance(values, list | tuple) else np.asarray(values)
    )
    if array.ndim != 1:
        hint = (
            " Give several keys as a dict, such as by={'state': state, 'year': year}."
            if array.ndim == 2
            else ""
        )
        raise ValueError(
            f"{what} must hold one code for each of the {rows} rows, shape ({rows},); got shape "
            f"{array.shape}.{hint}"
        )
    if len(array) != rows:
        raise ValueError(
            f"{what} must hold one code for each of the {rows} rows of data; got {len(array)}"
        )
    if array.dtype.kind in "OT":
        array = _plain(what, array.astype(object))
    if array.dtype.kind == "O":
        words = sorted(set(array))
        place = {word: code for code, word in enumerate(words)}
        return np.array(words, dtype=str), np.fromiter(
            (place[word] for word in array), np.int64, rows
        )
    if array.dtype.kind == "f":
        array = _whole(what, array)
    if array.dtype.kind not in "iubU":
        raise TypeError(
            f"{what} has dtype {array.dtype}; group codes must be integers, booleans or "
            "strings (for dates and bytes: .astype(str))"
        )
    kinds, codes = np.unique(array, return_inverse=True)
    return kinds, codes.reshape(-1)


def _whole(what: str, array: ndarray) -> ndarray:
    """Floating-point codes as integers."""
    _refuse_missing(what, np.isnan(array), array)
    inexact = (array != np.floor(array)) | (np.abs(array) >= MAX_EXACT_INTEGER)
    if inexact.any():
        raise ValueError(
            f"{what} is {array[_first(inexact)]} in row {_first(inexact)}; floating-point codes "
            "must be integers below 2**53"
        )
    return array.astype(np.int64)


KEY_KINDS = {
    "strings": str,
    "booleans": bool | np.bool_,
    "numbers": int | float | np.integer | np.floating,
}


def _plain(what: str, array: ndarray) -> ndarray:
    """An array of Python objects as numbers or booleans; strings stay objects. Missing, mixed or
    other values are refused by row.
    """
    family_of = {
        kind: next(
            (family for family, members in KEY_KINDS.items() if issubclass(kind, members)), ""
        )
        for kind in set(map(type, array))
    }
    families = [family_of[type(value)] for value in array]
    if set(families) != {"strings"}:
        _refuse_missing(what, np.array([is_missing(value) for value in array]), array)
    odd = next(
        (row for row, family in enumerate(families) if family != families[0] or not family), -1
    )
    if odd >= 0 and not families[odd]:
        raise TypeError(
            f"{what} holds {array[odd]!r} in row {odd}, a {type(array[odd]).__name__}; "
            "group codes must be integers, booleans or strings"
        )
    if odd >= 0:
        raise TypeError(
            f"{what} mixes {families[0]} and {families[odd]}, which cannot be sorted: row "
            f"0 holds {array[0]!r}, row {odd} holds {array[odd]!r}"
        )
    if families[0] == "strings":
        return array
    real = any(issubclass(kind, float | np.floating) for kind in family_of)
    try:
        return array.astype(bool if families[0] == "booleans" else np.float64 if real else np.int64)
    except OverflowError:
        raise ValueError(
            f"{what} holds an integer of more than 64 bits; use .astype(str)"
        ) from None


def _refuse_missing(what: str, missing: ndarray, array: ndarray) -> None:
    if missing.any():
        row = _first(missing)
        value = "None" if array[row] is None else "NaN"
        raise ValueError(
            f"{what} is {value} in row {row} ({missing.sum()} in all): every row needs "
            "a group. Drop these rows or give them a code."
        )


def _first(flags: ndarray) -> int:
    return int(np.flatnonzero(flags)[0])


def groups_of(
    coded: dict[str, tuple[ndarray, ndarray]],
) -> tuple[dict[str, ndarray], ndarray]:
    """The keys of the groups that occur, in lexicographic order, and the group of each row."""
    member = np.zeros(len(next(iter(coded.values()))[1]), dtype=np.int64)
    for kinds, codes in coded.values():
        # Codes stay below n after each step, so that the product stays below n².
        member = np.unique(member * len(kinds) + codes, return_inverse=True)[1].reshape(-1)
    first = np.unique(member, return_index=True)[1]
    return {name: kinds[codes[first]] for name, (kinds, codes) in coded.items()}, member
