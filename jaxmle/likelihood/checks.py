"""Checks of the arguments before anything is compiled: each mistake raises one error that names the
leaf, the row and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import PurePath

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import DTypeLike, KeyPath, Loglik, Tree, ndarray
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, Weight, WithResponse
from jaxmle.likelihood.contract import as_tree, rows_of, terms_of
from jaxmle.likelihood.structure import parts_of
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.frames import columns_of_frame, is_frame
from jaxmle.parameters.held_functions import HeldFunction, is_function_of_module
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.compile import compiled, precision
from jaxmle.runtime.opaque import Opaque

Place = Callable[[tuple[int, ...]], str]  # from the index of a value in its leaf to words

FORMULA_HINT = ". For a formula use jaxmle.from_formula('y ~ x', table).fit(model)"


def host_params(params: Tree, dtype: DTypeLike, what: str = "params") -> Tree:
    """``params`` as NumPy arrays of ``dtype``, integers too; complex numbers, strings and
    non-finite values are refused by name. Functions in the fields of a module are kept as they are.
    """

    def convert(path: KeyPath, leaf: Tree) -> Tree:
        if is_function_of_module(path, leaf):
            return HeldFunction(leaf)
        if type(leaf) is np.ndarray and leaf.dtype == dtype and np.isfinite(leaf).all():
            return np.array(leaf)
        name = what + jax.tree_util.keystr(path)
        try:
            value = np.asarray(leaf)
        except Exception as error:  # __array__ of the user's object may raise anything
            raise TypeError(f"{name} cannot be read as an array: {error}") from None
        is_real = np.issubdtype(value.dtype, np.floating) or value.dtype == jnp.bfloat16
        if not is_real and not np.issubdtype(value.dtype, np.integer):
            is_one = value.ndim == 0 and not hasattr(leaf, "dtype")
            kind = "" if value.dtype == object else f"has dtype {value.dtype}"
            value_shown = f"is {shown(leaf)}" if is_one else "has dtype object"
            came = f"{value_shown} and {kind}" if is_one and kind else kind or value_shown
            raise TypeError(
                f"{name} {came}; parameters must be floating-point numbers or integers, or arrays "
                "or dictionaries of them, such as {'mu': 0.0}"
                f"{FORMULA_HINT if '~' in str(leaf) else ''}"
            )
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a masked array, whose mask would be lost; give a plain array"
            )
        with np.errstate(over="ignore"):
            value = np.array(value, dtype=dtype)
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{name} is not finite: {_first_bad(value)}. Give a finite start.")
        return value

    if hasattr(params, "params") and hasattr(params, "loglik"):
        raise TypeError(f"{what} is the result of a fit: give its parameters, fit.params")
    if isinstance(getattr(params, "index", None), Iterable) and hasattr(params, "to_numpy"):
        raise TypeError(
            f"{what} is a {type(params).__name__}, whose labels would be lost: pass a dictionary "
            "of numbers or arrays, or its .to_numpy()"
        )
    return _mapped(convert, params, what)


def _mapped(convert: Callable[[Tree, Tree], Tree], tree: Tree, what: str) -> Tree:
    """The tree with ``convert(path, leaf)`` for every leaf."""
    try:
        return jax.tree_util.tree_map_with_path(convert, tree)
    except ValueError as error:
        if "sorting pytree dictionary keys" not in str(error):
            raise
        raise TypeError(
            f"{what} is a dictionary with keys of several types, which cannot be sorted: "
            "use strings for all keys"
        ) from None


def _first_bad(value: ndarray) -> str:
    where = tuple(int(i) for i in np.argwhere(~np.isfinite(value.astype(float)))[0])
    return f"{value[where]} at index {list(where)}" if where else str(value)


def host_data(data: Tree, dtype: DTypeLike, nan: bool = False) -> Tree:
    """``data`` as arrays: floats in ``dtype``, integers as wide as it, booleans as they are;
    strings, objects and (unless ``nan``) NaN are refused by name.

    A numeric frame is read as its columns, {name: (n,)}. Integers become int64, or int32 if
    ``dtype`` is float32: in int8, 127 + 1 is −128 and a logarithm has three digits.
    """
    data = columns_of_frame(data) if is_frame(data) else data

    def convert(path: KeyPath, leaf: Tree) -> Tree:
        if _is_sound(leaf, dtype):
            return leaf.view()
        name = "data" + jax.tree_util.keystr(path)
        if isinstance(leaf, int | float | complex | str | bytes):
            raise TypeError(_one_value(name, leaf, path))
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a masked array, whose mask would be lost; drop the masked rows from "
                "every leaf first"
            )
        if is_frame(leaf):
            raise TypeError(
                f"{name} is a frame inside other data, so its columns would lose their "
                "names: pass {column: frame[column].to_numpy() for column in "
                "frame.columns}, or frame.to_numpy() as a matrix"
            )
        _refuse_remote(name, leaf)
        if type(leaf).__name__.endswith("GroupBy"):  # of pandas and polars
            raise TypeError(
                f"{name} is grouped already: give the frame itself, "
                "jaxmle.fit_groups(loglik, params0, frame, by='column')"
            )
        # A view: jax knows an array by its identity, and a trace that failed may have known this
        # one in single precision.
        value = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf).view()
        kind = np.dtype(value.dtype).kind
        _refuse_kind(name, value, kind)
        if kind in "iu":
            return _integers(name, value, np.int64 if np.dtype(dtype).itemsize == 8 else np.int32)
        if kind in "fV":
            value = (
                np.asarray(value).astype(dtype, copy=False) if nan else _floats(name, value, dtype)
            )
        return value

    if isinstance(data, Iterator):
        raise TypeError(_not_read("data", data))
    return _mapped(convert, data, "data")


def _refuse_kind(name: str, value: Tree, kind: str) -> None:
    """Refuse an array of anything but real numbers, integers and booleans."""
    if kind in "USO":
        raise TypeError(_no_numbers(name, value, kind))
    if value.dtype.names:
        columns = ", ".join(f"{n!r}: a[{n!r}]" for n in value.dtype.names[:2])
        raise TypeError(
            f"{name} is a structured array: pass a dictionary of its fields, "
            f"{{{columns}{', …' if len(value.dtype.names) > 2 else ''}}} for an array a"
        )
    if kind in "mM":
        raise TypeError(
            f"{name} holds times (dtype {value.dtype}), whose unit is not clear: pass "
            f"numbers, such as ({name} - start) / numpy.timedelta64(1, 'D') in days"
        )
    if kind not in "fiubV" or (kind == "V" and value.dtype != jnp.bfloat16):
        raise TypeError(
            f"{name} has dtype {value.dtype}; data must be real numbers, integers or booleans"
        )


def _one_value(name: str, leaf: Tree, path: Tree) -> str:
    """What to do with a leaf that is one number or text."""
    if not path and isinstance(leaf, str):
        return f"{name} is the string {leaf!r}: give arrays or a table{_if_file(leaf)}"
    inside_list = any(isinstance(key, jax.tree_util.SequenceKey) for key in path)
    hint = (
        " A Python list is read as a tree of scalars: pass numpy.asarray(list)."
        if inside_list
        else " Close over constants instead of passing them as data."
    )
    return (
        f"{name} is the {type(leaf).__name__} {leaf!r}; every leaf of data must "
        f"be an array whose first axis is the observations.{hint}"
    )


def _if_file(text: str, certain: bool = False) -> str:
    """The hint for what is, or may be, the name of a file."""
    is_file = certain or re.search(r"\.\w+$|/", text)
    return ", read from the file first, such as pandas.read_csv(path)" if is_file else ""


def _is_sound(leaf: Tree, dtype: Tree) -> bool:
    """Whether a leaf is an array of NumPy's as a fit computes them, without NaN: most are."""
    is_array = type(leaf) is np.ndarray and leaf.dtype == dtype
    return is_array and not np.isnan(leaf.sum())


def _refuse_remote(name: str, leaf: Tree) -> None:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return
    raise ValueError(
        f"{name} is spread over several processes: jaxmle.fit takes it as it is, but "
        "everything else needs the rows in one process "
        "(jax.experimental.multihost_utils.process_allgather)"
    )


def _no_numbers(name: str, value: Tree, kind: str) -> str:
    """What a leaf of strings or objects holds, and how to convert it to numbers."""
    if value.ndim == 0 and kind == "O":
        return _not_read(name, value.item())
    values = value.ravel().tolist()
    if kind != "O":
        message = (
            f"{name} holds strings: {values[0]!r} in row 0" if values else f"{name} holds strings"
        )
    else:
        odd = next((i for i, entry in enumerate(values) if not isinstance(entry, int | float)), 0)
        message = (
            f"{name} holds Python objects: {values[odd]!r} in row {odd // max(value[:1].size, 1)}"
        )
        if values[odd] is None or type(values[odd]).__name__ in ("NAType", "NaTType"):
            return (
                f"{message}. Drop the rows with a missing value from every leaf; write "
                "the unknown end of an interval as -numpy.inf or numpy.inf"
            )
        if not isinstance(values[odd], str):
            return f"{message}. Convert them to numbers: .astype(float)"
    word = next((entry for entry in values if isinstance(entry, str)), "…")
    return (
        f"{message}. Encode categories as integer codes or dummy columns: ({name} == "
        f"{word!r}).astype(float) for two, numpy.unique({name}, return_inverse=True)[1] "
        "for more. Encode dates as numbers"
    )


def _not_read(name: str, value: Tree) -> str:
    """The message for a leaf that is not an array, and how to convert it."""
    remedy = ".toarray()" if hasattr(value, "toarray") else "numpy.asarray(list(…))"
    kind = type(value).__name__
    if isinstance(value, PurePath) or hasattr(value, "readline"):
        return f"{name} is a {kind}: give arrays or a table{_if_file(str(value), True)}"
    if kind == "Frame":
        return f"{name} is a Frame made by from_formula: give its arrays, frame.data"
    article = "an" if kind[0] in "aeiou" else "a"
    return (
        f"{name} is {article} {kind}, which is not read as an array: convert it first, "
        f"with {remedy}"
    )


def _integers(name: str, value: Tree, dtype: DTypeLike) -> Tree:
    """Integers in ``dtype``; an integer that does not fit would change its value and is refused."""
    if value.dtype == dtype:
        return value
    whole = np.asarray(value)
    most = np.iinfo(dtype)
    if whole.size and np.iinfo(whole.dtype).max > most.max:
        bad = np.argwhere((whole > most.max) | (whole < most.min))
        if len(bad):
            place = tuple(int(i) for i in bad[0])
            raise ValueError(
                f"{name} is {whole[place]} in row {place[0]}, beyond {np.dtype(dtype)}, "
                "the integer type used here; pass floats: .astype(float)"
            )
    return whole.astype(dtype)


def traced_data(data: Tree, dtype: DTypeLike = None) -> Tree:
    """``data`` under a trace, converted like ``host_data`` by type: integers in the width of the
    trace, floats in ``dtype`` if given.
    """
    data = columns_of_frame(data) if is_frame(data) else data
    whole = (
        jnp.int32 if dtype is not None and np.dtype(dtype).itemsize < 8 else jnp.result_type(int)
    )

    real = None if dtype is None else np.dtype(dtype)

    def convert(leaf: Tree) -> Tree:
        if not hasattr(leaf, "dtype"):
            return leaf if dtype is None else jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return jnp.asarray(leaf).astype(whole)
        if real is not None and jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(leaf).astype(real)
        return leaf if dtype is None else jnp.asarray(leaf)

    return jax.tree.map(convert, data)


def _floats(name: str, value: Tree, dtype: DTypeLike) -> Tree:
    flat = np.asarray(value)
    if flat.size and np.isnan(np.sum(flat)) and np.any(bad := np.isnan(flat)):
        rows = np.unique(np.argwhere(bad)[:, 0])
        more = f" ({len(rows)} rows in all)" if len(rows) > 1 else ""
        raise ValueError(
            f"{name} is NaN in row {rows[0]}{more}. Drop or impute these rows in every "
            "leaf: a likelihood is not defined for missing values."
        )
    return flat.astype(dtype, copy=False)


def in_row(index: tuple[int, ...]) -> str:
    """The position of a value in a leaf of one data set, in words."""
    return f"row {index[0]}" + "".join(f", column {i}" for i in index[1:])


def check_coding(
    loglik: Loglik, data: Tree, where: Callable[[int, tuple[int, ...]], str] | None = None
) -> None:
    """Check the data with every likelihood that knows their coding, inside any combinators: see
    ``models.common.coding``.

    A likelihood knows its coding if it has a method ``check_data(data, place)``. Traced values are
    not checked.

    Args:
        where: describes a value, given the part of a pool (otherwise 0) and the index of the value
            in its leaf; by default by its row.
    """

    def shown(node: Tree, rows: Tree, part: int) -> None:
        if isinstance(node, Pool):
            for k, (member, member_rows) in enumerate(zip(node.members, rows, strict=True)):
                shown(member, member_rows, k)
            return
        for inner in parts_of(node):
            shown(inner, rows, part)
        holder = node.function if isinstance(node, Opaque) else getattr(node, "density", None)
        check = getattr(holder, "check_data", None)
        if check is not None:
            check(rows, in_row if where is None else partial(where, part))

    shown(as_tree(loglik), data, 0)


def check_start(layout: Layout, params: Tree) -> None:
    """Raise for a start outside its bounds; it is not projected."""
    for leaf, value in zip(layout.leaves, layout.treedef.flatten_up_to(params), strict=True):
        wrong = leaf.constraint.violation(np.asarray(value))
        if wrong:
            raise ValueError(
                f"the start of {leaf.path or 'theta'} must be {wrong}; got "
                f"{np.array2string(np.asarray(value), threshold=8, precision=6)}"
            )


def check_fixed(loglik: Loglik, layout: Layout, params: Tree = None, data: Tree = None) -> None:
    """Raise unless a value held by ``fix`` is finite and inside the bounds of its entry, or on a
    bound if parameters are given and the likelihood is finite there.
    """
    for name, value, low, high in _outside(loglik, layout):
        held = np.asarray(value, dtype=float)
        on_bound = np.all(np.isfinite(held)) and np.all((held >= low) & (held <= high))
        if not (on_bound and params is not None and _is_finite(loglik, params, data)):
            raise ValueError(
                f"fix holds {name!r} at {value}, which must be finite and strictly between "
                f"{low:g} and {high:g}"
                + (", because the likelihood is not finite on that bound" if on_bound else "")
            )


def _outside(loglik: Loglik, layout: Layout) -> Tree:
    """Names and values that ``fix`` holds, not strictly inside their bounds (low, high)."""
    outside = []
    if isinstance(loglik, Fix):
        for name, value in zip(loglik.names, loglik.values, strict=True):
            held = np.asarray(value, dtype=float)
            for low, high in (layout.bounds[j] for j in layout.find(name)):
                if not np.all(np.isfinite(held) & (held > low) & (held < high)):
                    outside.append((name, value, low, high))
    return outside + [held for part in parts_of(loglik) for held in _outside(part, layout)]


def _is_finite(loglik: Loglik, params: Tree, data: Tree) -> bool:
    """Whether every term is finite at the values held by ``fix``."""
    dtype = jax.tree.leaves(params)[0].dtype
    with precision(dtype), np.errstate(all="ignore"):
        terms = compiled(loglik, "terms", lambda tree: partial(terms_of, tree))(params, data)
    return bool(np.all(np.isfinite(np.asarray(terms))))


def check_weight_shapes(loglik: Loglik, data: Tree) -> None:
    """Raise unless there is one weight for each row."""
    if isinstance(loglik, Weight):
        n = rows_of(loglik.loglik, data)
        shape = np.shape(loglik.weights.values)
        if len(shape) != 1 or (n is not None and shape[0] != n):
            raise ValueError(
                f"weights must have shape ({n},), one for each row of data; got {shape}"
            )
    parts = (
        zip(loglik.members, data, strict=True)
        if isinstance(loglik, Pool)
        else ((part, data) for part in parts_of(loglik))
    )
    for part, rows in parts:
        check_weight_shapes(part, rows)


def check_values(loglik: Loglik, data: Tree) -> None:
    """Check the values of one data set on the host: the coding that a built-in model expects, and
    the weights.
    """
    check_coding(loglik, data)
    check_weights(loglik, data)


def check_weights(loglik: Loglik, data: Tree) -> None:
    """Raise unless weights are finite, non-negative and one for each row, and frequency weights are
    integers.
    """
    match loglik:
        case Pool():
            loglik.check(data)
            for member, part in zip(loglik.members, data, strict=True):
                check_weights(member, part)
        case Fix() | Tie() | Penalize() | WithResponse():
            check_weights(loglik.loglik, data)
        case Weight():
            _check_weight_values(loglik, data)
            check_weights(loglik.loglik, data)


def _check_weight_values(loglik: Weight, data: Tree) -> None:
    w = np.asarray(loglik.weights.values)
    kind = loglik.weights.kind
    if w.dtype.kind not in "fiub":
        raise TypeError(f"weights must be numbers; got dtype {w.dtype}")
    check_weight_shapes(loglik, data)
    bad = np.flatnonzero(~(np.isfinite(w.astype(float)) & (w >= 0)))
    if bad.size:
        raise ValueError(f"weights must be finite and non-negative; row {bad[0]} has {w[bad[0]]}")
    if kind == "frequency" and np.any(w != np.floor(w)):
        row = int(np.flatnonzero(w != np.floor(w))[0])
        raise ValueError(
            f"frequency weights count repeated rows and must be integers; row {row} has "
            f"{w[row]}. Survey weights are jaxmle.sampling(w)."
        )
    if not np.any(w > 0):
        raise ValueError("all weights are zero: there are no observations")
