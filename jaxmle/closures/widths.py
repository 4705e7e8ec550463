"""The width of the numbers that a function closes over: that of the fit, as data have.

A trace takes an array as it is. In the width of a byte 127 + 1 is −128, the logarithm of an
``int8`` has seven digits and that of a ``float16`` three, although the fit is in float64. So
copies of what a function closes over hold integers and floats as wide as those of the fit.
Booleans stay as they are, and so does what a width says more of than a size: the keys of
``jax.random``, and every array where code was reached that reads bits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced
from jaxmle._types import DType, DTypeLike, Foreign, Tree

# Names of what gives other numbers, or none, where an array has another width.
READING_BITS = frozenset(
    [
        "view",
        "tobytes",
        "frombuffer",
        "packbits",
        "unpackbits",
        "bitwise_not",
        "bitwise_invert",
        "bitwise_count",
        "bitwise_left_shift",
        "left_shift",
        "shift_left",
        "invert",
        "bitcast_convert_type",
        "population_count",
        "clz",
        "nextafter",
        "spacing",
    ]
)
SIZES_OF_KEYS = (2, 4)  # words of uint32 in a raw key of jax.random: threefry and rbg


def is_narrow(value: Foreign, real: DTypeLike = np.float64) -> bool:
    """Whether an array or a number of NumPy or jax is narrower than those of a fit whose floats are
    ``real``.
    """
    dtype = value.dtype
    if isinstance(dtype, np.dtype):
        return bool(_wide(dtype, value.shape, np.dtype(real)) != dtype)
    return False  # an extended type: a key


def is_narrow_now(value: Foreign) -> bool:
    """Whether one is narrower than those of a fit in the precision that is switched on."""
    return is_narrow(value, jax.dtypes.canonicalize_dtype(np.float64))


def widened(value: Foreign) -> Foreign:
    """An array or a number of NumPy or jax in the precision that is switched on, where its own is
    less.

    >>> import jax, numpy as np
    >>> with jax.enable_x64(True):
    ...     widened(np.array([100, 127], np.int8)).dtype, widened(np.float16(0.1)).dtype
    (dtype('int64'), dtype('float64'))
    """
    if not isinstance(value.dtype, np.dtype):
        return value
    real = jax.dtypes.canonicalize_dtype(np.float64)
    wide = _wide(value.dtype, value.shape, real)
    if wide == value.dtype:
        return value
    if value.dtype == np.uint64 and value.size and int(value.max()) > np.iinfo(wide).max:
        return value
    if is_traced(value):
        return value.astype(wide)
    with jax.ensure_compile_time_eval():  # an array also where a trace is open
        return value.astype(wide)


def _wide(dtype: DType, shape: tuple[int, ...], real: DType) -> DType:
    """The type that numbers of ``dtype`` have in a fit whose floats are ``real``; their own where
    that is no narrower.
    """
    if dtype.names:
        fields = [(name, _wide(dtype[name], (), real)) for name in dtype.names]
        widths_differ = any(wide != dtype[name] for name, wide in fields)
        return np.dtype(fields) if widths_differ else dtype
    if dtype.subdtype:
        inner, sizes = dtype.subdtype
        wide = _wide(inner, (), real)
        return dtype if wide == inner else np.dtype((wide, sizes))
    whole = np.dtype(f"i{real.itemsize}")
    if jnp.issubdtype(dtype, jnp.integer):
        may_be_key = dtype == np.uint32 and shape[-1:] and shape[-1] in SIZES_OF_KEYS
        is_wide = dtype.itemsize >= whole.itemsize and dtype != np.dtype(f"u{real.itemsize}")
        return dtype if may_be_key or is_wide else whole
    if jnp.issubdtype(dtype, jnp.floating):
        return real if dtype.itemsize < real.itemsize else dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        pair = np.dtype(f"c{2 * real.itemsize}")
        return pair if dtype.itemsize < pair.itemsize else dtype
    return dtype


# ---------------------------------------------------------------- tables


def widened_table(value: Foreign, library: str) -> Foreign:
    """A column or table of pandas, polars or pyarrow with its numbers widened; of pandas a copy."""
    return TABLES[library](value)


def _target(kind: str, bits: int) -> str:
    """The wider type of a column whose numbers have ``bits`` bits, by its name in lower case; ""
    if there is none.
    """
    width = 8 * jax.dtypes.canonicalize_dtype(np.float64).itemsize
    names = {"i": f"int{width}", "u": f"int{width}", "f": f"float{width}"}
    return names.get(kind, "") if bits < width else ""


def _pandas(value: Foreign) -> Foreign:
    if not hasattr(value, "columns"):
        name = _pandas_target(value.dtype)
        return value.astype(name) if name else value.copy()
    fresh = value.copy()
    for place, dtype in enumerate(value.dtypes):
        if name := _pandas_target(dtype):
            fresh.isetitem(place, value.iloc[:, place].astype(name))
    return fresh


def _pandas_target(dtype: Foreign) -> str:
    """The wider type of a column of NumPy's numbers, of pandas' own, or of pyarrow's."""
    if hasattr(dtype, "categories"):
        return ""
    name = _target(getattr(dtype, "kind", ""), 8 * getattr(dtype, "itemsize", 8))
    if not name or isinstance(dtype, np.dtype):
        return name
    return f"{name}[pyarrow]" if str(dtype).endswith("[pyarrow]") else name.capitalize()


def _polars(value: Foreign) -> Foreign:
    if hasattr(value, "get_columns"):
        return value.with_columns([_polars(column) for column in value.get_columns()])
    if not value.dtype.is_numeric() or value.dtype.is_decimal():
        return value
    letters = str(value.dtype).rstrip("0123456789")
    name = _target(letters[0].lower(), int(str(value.dtype)[len(letters) :]))
    return value.cast(getattr(sys.modules["polars"], name.capitalize())) if name else value


def _pyarrow(value: Foreign) -> Foreign:
    if hasattr(value, "columns"):
        return type(value).from_arrays(list(map(_pyarrow, value.columns)), value.schema.names)
    types = sys.modules["pyarrow"].types
    if types.is_integer(value.type) or types.is_floating(value.type):
        name = _target("f" if types.is_floating(value.type) else "i", value.type.bit_width)
        return value.cast(name) if name else value
    return value


TABLES: dict[str, Callable[[Tree], Tree]] = {
    "pandas": _pandas,
    "polars": _polars,
    "pyarrow": _pyarrow,
}
