"""Reading formulas without ``eval``: terms by formulaic's grammar, and within them only the
functions and operators listed here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxmle._types import Foreign, Tree, ndarray
from jaxmle.data.expansion import check_expansion
from jaxmle.data.table import Column, needed

# Functions of one row at a time, in a response, in offset() and in a term.
ROWWISE = {
    "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "exp": np.exp,
    "expm1": np.expm1, "sqrt": np.sqrt, "abs": np.abs,
}  # fmt: skip
# formulaic's functions of whole columns, which keep constants of the fit, such as a mean or knots.
STATEFUL = ("center", "scale", "standardize", "poly", "bs", "cr", "cc", "I")
CONTRASTS = ("Treatment", "Sum", "Helmert", "Diff", "Poly")
OPERATORS = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide,
    ast.Pow: np.power, ast.USub: np.negative, ast.UAdd: np.positive, ast.Eq: np.equal,
    ast.NotEq: np.not_equal, ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}  # fmt: skip

# Syntax of other software, and what to write instead.
UNREADABLE = (
    (r"(?<![\w.])\.(?![\w.])", "'.' for all other columns is not supported: name them, x + z"),
    (
        r"\([^()]*\|[^()]*\)",
        "random effects, (1|g), are not supported: C(g) gives each group its own constant",
    ),
    (r"\b[ic]\.[A-Za-z_]", "Stata's i.x is C(x) here, and c.x is x"),
)
# x^2, which is x in a formula, and not (x + z)^2
POWER_OF_A_COLUMN = r"([A-Za-z_]\w*)\s*(?:\^|\*\*)\s*(\d+)"


class Terms(NamedTuple):
    """The right-hand side of a formula: formulaic's terms, its offsets, the columns it reads, and
    which of these are inside C() or inside numeric functions.

    ``short``: from ``C(race, Treatment(reference='white'))`` to ``C(race)``, for names.
    """

    formula: Foreign
    offsets: tuple[str, ...]
    columns: tuple[str, ...]
    factors: tuple[str, ...]
    numeric: tuple[str, ...]
    short: dict[str, str]


def halves(text: str) -> tuple[str, str]:
    """The two sides of ``y ~ x``; the first is empty in ``~ x``."""
    if not isinstance(text, str):
        raise TypeError(f"a formula is a string such as 'y ~ x + C(g)'; got {type(text).__name__}")
    left, tilde, right = text.partition("~")
    if not tilde or "~" in right:
        raise ValueError(
            "a formula has one '~' between response and terms, such as 'y ~ x + C(g)'; got "
            f"{text!r}"
        )
    if not right.strip():
        raise ValueError(f"the formula {text!r} has nothing after '~'; 'y ~ 1' has only a constant")
    return left.strip(), right.strip()


def _without_calls(text: str) -> str:
    """A formula without the arguments of its functions, from the innermost."""
    shorter = re.sub(r"(?<=\w)\([^()]*\)", "", text)
    return text if shorter == text else _without_calls(shorter)


def _parsed(formulaic: Foreign, right: str) -> list[Foreign]:
    """The terms as formulaic reads them."""
    for pattern, hint in UNREADABLE:
        if re.search(pattern, right):
            raise ValueError(f"cannot read the formula '~ {right}': {hint}")
    power = re.search(POWER_OF_A_COLUMN, _without_calls(right))
    if power:
        raise ValueError(
            f"cannot read the formula '~ {right}': there {power[0]} is {power[1]} itself, as a "
            f"power crosses terms; write I({power[1]}**{power[2]}) for its power"
        )
    try:
        parsed = formulaic.Formula(right)
        listed = list(parsed) if isinstance(parsed, formulaic.SimpleFormula) else None
    except Exception as error:  # formulaic's parser raises errors of many classes
        message = re.sub(r"\x1b\[[0-9;]*m|⧛\[[0-9;]*m|⧛|⧚", "", str(error)).splitlines()
        raise ValueError(
            f"cannot read the formula '~ {right}': "
            f"{message[0] if message else type(error).__name__}"
        ) from error
    if listed is None:
        raise ValueError(
            f"cannot read the formula '~ {right}': it has several parts; give a second "
            "part as its own formula, also={'z': '~ w'}"
        )
    return listed


def _check_taken_away(right: str) -> None:
    """Raise for ``- x`` where no term before it has x: it is not the negative of a column."""
    text = _without_calls(right)
    for found in re.finditer(r"-\s*([A-Za-z_]\w*)", text):
        if not re.search(rf"\b{found[1]}\b", text[: found.start()]):
            raise ValueError(
                f"cannot read the formula '~ {right}': - {found[1]} takes a term away, and there "
                f"is no {found[1]} before it; write I(-{found[1]}) for the negative of a column, "
                f"I(a - {found[1]}) for a difference"
            )


def terms_of(right: str) -> Terms:
    """Read the terms of a right-hand side, and check each of its Python expressions."""
    check_expansion(right)
    formulaic = needed("formulaic")
    listed = _parsed(formulaic, right)
    _check_taken_away(right)
    terms = []
    offsets = []
    columns: list[str] = []
    factors: list[str] = []
    numeric: list[str] = []
    short: dict[str, str] = {}
    for term in listed:
        offset = _offset(term)
        if offset is not None:
            offsets.append(offset)
            columns += columns_in(parse(offset))
            continue
        terms.append(term)
        for factor in term.factors:
            if factor.eval_method.value == "lookup":
                columns.append(factor.expr)
            elif factor.eval_method.value == "python":
                names, coded = _of_factor(factor.expr)
                columns = columns + names
                factors = factors + coded
                numeric += [] if coded else names
                if coded:
                    short[factor.expr] = f"C({coded[0]})"
    columns, factors, numeric = (
        list(dict.fromkeys(repeated)) for repeated in (columns, factors, numeric)
    )
    return Terms(
        formulaic.Formula(terms),
        tuple(offsets),
        tuple(columns),
        tuple(factors),
        tuple(numeric),
        short,
    )


def _offset(term: Foreign) -> str | None:
    """The expression inside ``offset(…)``, if the term is one."""
    inside = [
        _called(factor.expr, "offset")
        for factor in term.factors
        if factor.eval_method.value == "python"
    ]
    arguments = [text for text in inside if text is not None]
    if not arguments:
        return None
    if len(term.factors) > 1:
        raise ValueError(
            f"an offset has no coefficient and cannot be part of an interaction; got {term}"
        )
    return arguments[0]


def _called(expr: str, name: str) -> str | None:
    node = parse(expr)
    if not (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ):
        return None
    if len(node.args) != 1 or node.keywords:
        raise ValueError(f"{name}() takes one expression, such as {name}(log(years)); got {expr!r}")
    return ast.unparse(node.args[0])


def parse(expr: str) -> ast.expr:
    """The syntax tree of one expression."""
    try:
        return ast.parse(expr.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"cannot read {expr!r} in the formula") from error


def _of_factor(expr: str) -> tuple[list[str], list[str]]:
    """The columns of one Python expression of a term, and those that it uses as categories."""
    node = parse(expr)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "C":
        return [column := _categories(node, expr)], [column]
    return columns_in(node, (*ROWWISE, *STATEFUL), expr, compare=False), []


def _categories(node: ast.Call, expr: str) -> str:
    """The column of ``C(column)`` or ``C(column, Treatment(reference='a'))``."""
    contrast = [*node.args[1:], *(word.value for word in node.keywords)]
    sound = (
        bool(node.args)
        and isinstance(node.args[0], ast.Name)
        and len(contrast) <= 1
        and all(word.arg == "contrasts" for word in node.keywords)
    )
    for kind in contrast:
        name = kind.func if isinstance(kind, ast.Call) else kind
        values = (
            [*kind.args, *(word.value for word in kind.keywords)]
            if isinstance(kind, ast.Call)
            else []
        )
        sound = (
            sound
            and isinstance(name, ast.Name)
            and name.id in CONTRASTS
            and all(isinstance(value, ast.Constant) for value in values)
        )
    if not sound:
        raise ValueError(
            f"C() takes a column, and a contrast of {', '.join(CONTRASTS)}, such as C(race, "
            f"Treatment(reference='white')); got {expr!r}"
        )
    return node.args[0].id  # type: ignore[attr-defined]


def columns_in(
    node: ast.expr,
    functions: tuple[str, ...] = tuple(ROWWISE),
    expr: str | None = None,
    compare: bool = True,
) -> list[str]:
    """The columns that an expression reads; raises for anything but arithmetic, numbers, columns
    and the listed functions.
    """
    expr = ast.unparse(node) if expr is None else expr

    def again(part: ast.expr) -> list[str]:
        return columns_in(part, functions, expr, compare)

    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Constant) and (
        type(node.value) in (int, float, bool) or (compare and type(node.value) is str)
    ):
        return []
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return again(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        columns = again(node.left) + again(node.right)
        # 9**9**9 would be computed digit by digit.
        if isinstance(node.op, ast.Pow) and not columns:
            raise ValueError(
                f"{ast.unparse(node)!r} is a power of constants: write the number itself"
            )
        return columns
    if (
        compare
        and isinstance(node, ast.Compare)
        and len(node.ops) == 1
        and type(node.ops[0]) in OPERATORS
    ):
        return again(node.left) + again(node.comparators[0])
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in functions
        and node.args
    ):
        for word in node.keywords:
            if word.arg is None or not isinstance(word.value, ast.Constant):
                raise ValueError(f"in {expr!r} an option must be a constant")
        return [name for part in node.args for name in again(part)]
    raise ValueError(
        f"{ast.unparse(node)!r} is not allowed in a formula: a formula may contain "
        f"columns, numbers, + - * / ** and the functions {', '.join(functions)}, C, "
        f"offset. {_instead(node, functions)}"
    )


def _instead(node: ast.expr, functions: tuple[str, ...]) -> str:
    """What to write for a call that is refused."""
    name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    bare = name.rpartition(".")[2]
    if name in ("factor", "as.factor", "as_factor"):
        return "Write a factor as C(…)"
    if name == "Q":
        return "Rename the column so that its name is one word"
    if bare != name and bare in functions:
        return f"Write {bare}(…), without the module"
    return "Compute anything else as a column first"


def rowwise(node: ast.expr, columns: Mapping[str, Column]) -> Tree:
    """The value of an expression accepted by ``columns_in``, row by row, without ``eval``."""
    if isinstance(node, ast.Name):
        values = columns[node.id].values
        return values.astype(np.float64) if values.dtype.kind in "iufb" else values
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp):
        return OPERATORS[type(node.op)](rowwise(node.operand, columns))
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](rowwise(node.left, columns), rowwise(node.right, columns))
    if isinstance(node, ast.Compare):
        return OPERATORS[type(node.ops[0])](
            rowwise(node.left, columns), rowwise(node.comparators[0], columns)
        )
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and len(node.args) == 1
        and not node.keywords
    ):
        return ROWWISE[node.func.id](rowwise(node.args[0], columns))
    raise ValueError(f"cannot evaluate {ast.unparse(node)!r}")


def real(text: str, columns: Mapping[str, Column], rows: ndarray, what: str) -> ndarray:
    """A rowwise expression as finite floats (n,); ``rows`` are the positions of the rows in the
    frame, for messages.
    """
    node = parse(text)
    compares = any(isinstance(part, ast.Compare) for part in ast.walk(node))
    for name in columns_in(node):
        if columns[name].is_factor and not compares:
            raise TypeError(
                f"{what} reads {name!r}, which holds text, not numbers: compare it with the value "
                f"that counts as 1, such as {name} == {columns[name].levels()[-1]!r}"
            )
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and not compares:
            raise ValueError(f"{what} is the text {part.value!r}: write a column without quotes")
    with np.errstate(all="ignore"):
        value = np.broadcast_to(np.asarray(rowwise(node, columns)), rows.shape).astype(np.float64)
    not_finite = np.flatnonzero(~np.isfinite(value))
    if not_finite.size:
        raise ValueError(
            f"{text} is {value[not_finite[0]]} in row {rows[not_finite[0]]} "
            f"({not_finite.size} in all): {what} must be finite"
        )
    return value
