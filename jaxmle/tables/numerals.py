"""Numbers as text: digits follow the standard error, NaN reads `n/a`, infinities read `inf` and
`-inf`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

MISSING_TEXT = "n/a"
DIGITS_OF_STDERR = 4  # significant digits of a standard error, as R's summary tables give
# outside these limits the exponent form is used
MAX_FOR_EXPONENT_FORM = 1e-4
MIN_FOR_EXPONENT_FORM = 1e7

Style = Callable[[Sequence[float], float], tuple[str, ...]]
MIN_P_VALUE_SHOWN = 0.001  # a smaller one is printed as less than this
MIN_Z_IN_POWERS = 1e5  # from which a z value is written with a power of ten
MIN_LIKELIHOOD_IN_POWERS = 1e9


def word(value: float) -> str | None:
    """The word for a value that is not finite, `None` for one that is.

    >>> word(float("nan")), word(float("-inf")), word(0.5)
    ('n/a', '-inf', None)
    """
    if math.isfinite(value):
        return None
    return MISSING_TEXT if math.isnan(value) else f"{value:f}"


def magnitude(value: float) -> int:
    """The decimal exponent of a finite value once rounded to `DIGITS_OF_STDERR` digits; 0 for zero.

    >>> magnitude(0.0123), magnitude(9.99999), magnitude(0.0)
    (-2, 1, 0)
    """
    return int(f"{value:.{DIGITS_OF_STDERR - 1}e}".split("e")[1])


def exponent(value: float, digits: int = DIGITS_OF_STDERR) -> str:
    """The number in exponent form with `digits` significant digits.

    >>> exponent(1.23456e-9)
    '1.235e-09'
    """
    return word(value) or f"{value:.{digits - 1}e}"


def fixed(value: float, places: int) -> str:
    """The number with `places` decimals, or in exponent form from `MIN_FOR_EXPONENT_FORM` on; never
    `-0.000`.

    >>> fixed(-1.23456, 3), fixed(-1e-9, 3), fixed(1e12, 3)
    ('-1.235', '0.000', '1.000e+12')
    """
    if abs(value) >= MIN_FOR_EXPONENT_FORM or not math.isfinite(value):
        return exponent(value)
    return f"{value:z.{places}f}"


def significant(value: float, digits: int = DIGITS_OF_STDERR) -> str:
    """A value to `digits` significant digits, in whichever form is readable.

    >>> significant(0.0123456), significant(1234567.0), significant(1.5e-7)
    ('0.01235', '1234567', '1.500e-07')
    """
    if not math.isfinite(value) or 0.0 < abs(value) < MAX_FOR_EXPONENT_FORM:
        return exponent(value, digits)
    return fixed(value, max(0, digits - 1 - magnitude(value)))


def p_value(value: float) -> str:
    """A p value to three decimals; below one in a thousand it reads `<0.001`.

    >>> p_value(0.0371), p_value(2e-16), p_value(float("nan"))
    ('0.037', '<0.001', 'n/a')
    """
    return f"<{MIN_P_VALUE_SHOWN}" if value < MIN_P_VALUE_SHOWN else fixed(value, 3)


def z_value(value: float) -> str:
    """A z value to two decimals; beyond 1e5 only its size matters and the exponent form is used.

    >>> z_value(-2.3456), z_value(1.5e9)
    ('-2.35', '1.50e+09')
    """
    return exponent(value, 3) if abs(value) >= MIN_Z_IN_POWERS else fixed(value, 2)


def likelihood(value: float) -> str:
    """A log-likelihood or a criterion, to three decimals: only differences count, so digits are
    absolute.

    >>> likelihood(-1234.56789)
    '-1234.568'
    """
    return exponent(value, 10) if abs(value) >= MIN_LIKELIHOOD_IN_POWERS else fixed(value, 3)


def count(value: float) -> str:
    """A count as text, without decimals if it is an integer.

    >>> count(150.0), count(12.5)
    ('150', '12.5')
    """
    return word(value) or (f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}")


def percent(level: float) -> str:
    """A level between 0 and 1 as a percentage.

    >>> percent(0.95), percent(0.999)
    ('95%', '99.9%')
    """
    return f"{100 * level:.10g}%"


def scaled(
    values: Sequence[float], scale: float, digits: int = DIGITS_OF_STDERR
) -> tuple[str, ...]:
    """Cells sharing the decimals that show `scale`, usually the standard error, to `digits`
    significant digits.

    >>> scaled((-5.623412, 0.01), 0.1234)
    ('-5.6234', '0.0100')
    >>> scaled((1.0, 1.0), float("nan"))
    ('1.0000', '1.0000')
    """
    places = _places(values, scale, digits)
    return tuple(_cell(value, scale, places, digits) for value in values)


def _places(values: Sequence[float], scale: float, digits: int) -> int:
    """Decimals for a row: set by `scale`, or by the leading value if there is no scale; at most
    2·digits digits.
    """
    leading = next((value for value in values if math.isfinite(value)), 0.0)
    known = math.isfinite(scale) and scale > 0.0
    wanted = digits - 1 - magnitude(scale) if known else digits - magnitude(leading)
    return max(0, min(wanted, 2 * digits, 2 * digits - magnitude(leading)))


def _cell(value: float, scale: float, places: int, digits: int) -> str:
    tiny = 0.0 < abs(value) < MAX_FOR_EXPONENT_FORM and not scale >= MAX_FOR_EXPONENT_FORM
    if not math.isfinite(value) or not (tiny or abs(value) >= MIN_FOR_EXPONENT_FORM):
        return fixed(value, places)
    known = math.isfinite(scale) and scale > 0.0
    extra_digits = magnitude(value) - magnitude(scale) if known else 1
    return exponent(value, max(digits, min(digits + extra_digits, 2 * digits)))


def exponents(values: Sequence[float], scale: float) -> tuple[str, ...]:
    """Cells all in the exponent form, the narrowest form for any scale; `scale` is ignored.

    >>> exponents((0.5, -2e200), 1.0)
    ('5.000e-01', '-2.000e+200')
    """
    del scale
    return tuple(exponent(value) for value in values)


# From the widest to the narrowest; a table uses the first that fits the page.
STYLES: tuple[Style, ...] = (scaled, partial(scaled, digits=3), exponents)


def aligned(cells: Sequence[str]) -> tuple[str, ...]:
    """Cells padded to one width with their decimal points in one column; text is at the right edge.

    >>> aligned(("-1.25", "10.5", "n/a"))
    ('-1.25', '10.5 ', '  n/a')
    """
    parts = [cell.partition(".") for cell in cells]
    decimals = max((len(dot + fraction) for _, dot, fraction in parts), default=0)
    padded = [
        cell if _is_word(cell) else cell + " " * (decimals - len(dot + fraction))
        for cell, (_, dot, fraction) in zip(cells, parts, strict=True)
    ]
    width = max(map(len, padded), default=0)
    return tuple(cell.rjust(width) for cell in padded)


def _is_word(cell: str) -> bool:
    return not any(character.isdigit() for character in cell)
