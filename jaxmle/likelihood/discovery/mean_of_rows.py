"""Whether a log-likelihood of one number is a mean over the rows, read from its program.

A likelihood that is the mean of n terms has standard errors √n times too large, and nothing in its
values shows it. Its program does. It is traced for n and for 2n rows and followed backwards from
its result, through sums and scalings: each part that depends on the data must be divided by the
number of rows. A divisor that doubles with the rows, or equals their number, is the number of rows;
constant weights that sum to one also count as such a division. Nothing is evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from jaxmle._types import Array, Atom, FunctionTo, Loglik, Tree, ndarray
from jaxmle.likelihood.codes import called
from jaxmle.likelihood.contract import data_length, terms_of
from jaxmle.likelihood.discovery.rounding import CONSTANT_RULES
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import aval_of

MIN_TERMS_OF_A_MEAN = 8  # with fewer, a divisor such as 2 or 4 may belong to a formula
RELATIVE_ROUNDING = 1e-5  # of a sum of weights in float32
MAX_DEPTH_OF_A_CONSTANT = 24  # number of operations that compute a constant
HALF_OR_WHOLE = (1.0, 0.5)  # −½ Σr² / n is written with 2n

LINEAR = frozenset(
    {"neg", "convert_element_type", "reshape", "squeeze", "copy", "copy_p", "reduce_sum", "cumsum",
     "broadcast_in_dim", "expand_dims", "transpose", "stop_gradient", "slice", "rev"}
)  # fmt: skip
SHAPING = frozenset(
    {"convert_element_type", "reshape", "squeeze", "copy", "copy_p", "broadcast_in_dim"}
)  # fmt: skip
SUMS = frozenset({"add", "sub", "add_any"})


def is_mean_of_rows(loglik: Loglik, layout: Layout, data: Tree) -> bool:
    """Whether all parts of a scalar log-likelihood that depend on the data are divided by the
    number of rows.

    Args:
        layout: of the parameters.
        data: any tree of arrays, or None if the data are closed over.
    """

    def value(x: Array, data: Tree) -> Array:
        return terms_of(loglik, layout.unravel(x), data)

    def program(copies: int) -> ClosedJaxpr:
        def shape(leaf: Tree) -> Tree:
            return jax.ShapeDtypeStruct((copies * leaf.shape[0], *leaf.shape[1:]), leaf.dtype)

        x = jax.ShapeDtypeStruct((layout.p,), jax.numpy.zeros(()).dtype)
        return jax.make_jaxpr(value)(x, jax.tree.map(shape, data))

    single = program(1)
    rows = data_length(data)
    try:
        doubled = program(2) if rows else None
    except Exception:  # the user's function may raise anything at another number of rows
        doubled = None
    scope = _outermost(single, doubled, data_is_captured=rows is None)
    start = _Part(scope, single.jaxpr.outvars[0], 0.0, (), True)
    powers = list(_powers(start, rows))
    return bool(powers) and all(power > 1 - RELATIVE_ROUNDING for power in powers)


# ---------------------------------------------------------------- programs


@dataclass(frozen=True, eq=False)
class _Scope:
    """A program, the same program for twice the rows, and what its inputs are outside it."""

    equations: list[JaxprEqn]
    maker: dict[Atom, JaxprEqn]  # from a variable to its equation
    place: dict[int, int]  # of an equation
    outer: Callable[[Atom], tuple[_Scope, Atom] | None]  # a variable's scope and atom outside
    constants: dict[Atom, Tree]
    of_data: set[Atom]  # variables that depend on the data
    of_params: set[Atom]
    carried: frozenset[Atom]  # values that a loop carries from iteration to iteration
    counterpart: _Scope | None

    def counterpart_of(self, equation: JaxprEqn) -> Tree:
        """The same equation in the program for twice the rows."""
        return (
            None
            if self.counterpart is None
            else self.counterpart.equations[self.place[id(equation)]]
        )


def _outermost(single: ClosedJaxpr, doubled: ClosedJaxpr | None, data_is_captured: bool) -> _Scope:
    def made(closed: ClosedJaxpr, counterpart: _Scope | None) -> _Scope:
        x, *leaves = closed.jaxpr.invars
        constants: dict[Atom, Tree] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        captured = [var for var in constants if aval_of(var).ndim]
        data: set[Atom] = {*leaves, *captured} if data_is_captured else {*leaves}
        return _scope(
            closed.jaxpr, lambda var: None, constants, data, {x}, frozenset(), counterpart
        )

    return made(single, None if doubled is None else made(doubled, None))


def _scope(
    jaxpr: Jaxpr,
    outer: FunctionTo[tuple[_Scope, Atom] | None],
    constants: dict[Atom, Tree],
    data: set[Atom],
    params: set[Atom],
    carried: frozenset[Atom],
    counterpart: _Scope | None,
) -> _Scope:
    equations = list(jaxpr.eqns)
    alike = counterpart is not None and [e.primitive for e in equations] == [
        e.primitive for e in counterpart.equations
    ]
    for known in (data, params):
        for equation in equations:
            if any(_in(atom, known) for atom in equation.invars):
                known.update(equation.outvars)
    return _Scope(
        equations,
        {var: equation for equation in equations for var in equation.outvars},
        {id(equation): place for place, equation in enumerate(equations)},
        outer,
        constants,
        data,
        params,
        carried,
        counterpart if alike else None,
    )


def _in(atom: Atom, variables: set[Atom]) -> bool:
    return not isinstance(atom, Literal) and atom in variables


def _inside(
    scope: _Scope,
    equation: JaxprEqn,
    closed: ClosedJaxpr,
    atoms: list[Atom],
    carried: range = range(0),
) -> _Scope:
    """The program that an equation runs on ``atoms``, some of which are carried by a loop."""
    jaxpr = closed.jaxpr
    given: dict[Atom, Atom] = dict(zip(jaxpr.invars, atoms, strict=True))
    handed_on: frozenset[Atom] = frozenset(jaxpr.invars[i] for i in carried)

    def of(known: set[Atom]) -> set[Atom]:
        out = any(_in(var, known) for var in equation.outvars)
        return {v for v, atom in given.items() if _in(atom, known) or (out and v in handed_on)}

    def outer(var: Atom) -> tuple[_Scope, Atom] | None:
        return (scope, given[var]) if var in given and var not in handed_on else None

    counterpart = None
    other = scope.counterpart_of(equation)
    if scope.counterpart is not None:
        for inner, *rest in _runs(other):
            if len(inner.jaxpr.eqns) == len(jaxpr.eqns) and counterpart is None:
                counterpart = _inside(scope.counterpart, other, inner, *rest)
    constants: dict[Atom, Tree] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    data, params = of(scope.of_data), of(scope.of_params)
    return _scope(jaxpr, outer, constants, data, params, handed_on, counterpart)


def _runs(equation: JaxprEqn) -> list[tuple[Tree, ...]]:
    """The programs that an equation runs: each with its input atoms and the positions of those that
    a loop carries.
    """
    name = equation.primitive.name
    params = equation.params
    atoms = list(equation.invars)
    if name == "cond":
        return [(branch, atoms[1:]) for branch in params["branches"]]
    if name == "scan":
        body = params["jaxpr"]
        rows = sum(map(_is_row, body.jaxpr.invars, atoms))
        results = sum(map(_is_row, body.jaxpr.outvars, equation.outvars))
        carried = len(equation.outvars) - results
        first = len(atoms) - rows - carried  # constants, carried values, arrays it runs over
        return [(body, atoms, range(first, first + carried))]
    if name == "while":
        body = params["body_jaxpr"]
        return [
            (
                body,
                atoms[params["cond_nconsts"] :],
                range(params["body_nconsts"], len(body.jaxpr.invars)),
            )
        ]
    inner = called(equation)
    return [] if inner is None else [(inner, atoms)]


def _is_row(inner: Atom, outer: Atom) -> bool:
    """Whether an iteration of a scan receives one row of the whole array."""
    return bool(aval_of(inner).ndim != aval_of(outer).ndim)


# ---------------------------------------------------------------- powers of the number of rows


class _Part(NamedTuple):
    """A part of the sum, followed backwards: how often it has been divided by the number of rows,
    the other numbers that scale it, and whether it counts only if it depends on parameters.
    """

    scope: _Scope
    atom: Atom
    power: float
    factors: tuple[float, ...]
    of_params: bool

    def of(self, atom: Atom, scope: _Scope | None = None) -> _Part:
        return self._replace(atom=atom, scope=self.scope if scope is None else scope)


def _powers(start: _Part, rows: int | None) -> Iterator[float]:
    """For each part of a sum that depends on the data, how often it is divided by the number of
    rows.
    """
    stack = [start]
    while stack:
        part = stack.pop()
        scope = part.scope
        atom = part.atom
        if not _in(atom, scope.of_data) or atom in scope.carried:
            continue
        if part.of_params and atom not in scope.of_params:
            continue  # adds a constant
        equation = scope.maker.get(atom)
        if equation is None:
            outside = scope.outer(atom)
            if outside is None:
                yield part.power
            else:
                stack.append(part.of(outside[1], outside[0]))
            continue
        inner = _before(part, equation, rows)
        if inner is None:
            yield _summed(part, equation, rows).power
        else:
            stack += inner


def _before(part: _Part, equation: JaxprEqn, rows: int | None) -> list[_Part] | None:
    """The parts that an operation sums or scales; None if it does neither."""
    name = equation.primitive.name
    if name in LINEAR:
        return [_summed(part, equation, rows).of(equation.invars[0])]
    if name in SUMS:
        return [part.of(atom) for atom in equation.invars]
    if name == "select_n":  # jnp.where, whichever case it takes
        return [part.of(atom) for atom in equation.invars[1:]]
    if name in ("mul", "div", "dot_general"):
        return _scaled(part, equation, rows)
    place = equation.outvars.index(cast(Var, part.atom))
    part = _summed(part, equation, rows)
    parts = []
    for closed, *rest in _runs(equation):
        scope = _inside(part.scope, equation, closed, *rest)
        parts.append(part.of(closed.jaxpr.outvars[place], scope))
    return parts or None


def _summed(part: _Part, equation: JaxprEqn, rows: int | None) -> _Part:
    """The part, if an operation sums as many terms as a factor has divided by. If the data are
    given, the number of rows is known, and factors have been compared with it.
    """
    if rows is not None:
        return part
    name = equation.primitive.name
    params = equation.params
    shape = _shape_of(equation.invars[0])
    terms = 0
    if name == "reduce_sum":
        terms = math.prod(shape[axis] for axis in params["axes"])
    elif name == "cumsum":
        terms = shape[params["axis"]]
    elif name == "scan":
        terms = params["length"]
    elif name == "dot_general":
        terms = math.prod(shape[axis] for axis in params["dimension_numbers"][0][0])
    return _divided(part, terms) if terms >= MIN_TERMS_OF_A_MEAN else part


def _shape_of(atom: Atom) -> tuple[int, ...]:
    return tuple(getattr(getattr(atom, "aval", None), "shape", ()))


def _divided(part: _Part, terms: float) -> _Part:
    """The part with the factors compared with a number of terms, or a sum of weights."""
    product = math.prod(part.factors)
    by = any(_is(abs(factor) * terms, HALF_OR_WHOLE) for factor in (*part.factors, product))
    times = terms >= MIN_TERMS_OF_A_MEAN and any(
        _is(abs(factor) / terms, HALF_OR_WHOLE) for factor in part.factors
    )
    if not by and not times:
        return part
    return part._replace(power=part.power + by - times, factors=())


def _is(value: float, wanted: tuple[float, ...]) -> bool:
    return any(math.isclose(value, other, rel_tol=RELATIVE_ROUNDING) for other in wanted)


def _scaled(part: _Part, equation: JaxprEqn, rows: int | None) -> list[_Part] | None:
    """A product or quotient: the factor that is a part of the sum, with the effect of the other on
    its power; None if both are.
    """
    scope = part.scope
    name = equation.primitive.name
    left, right = equation.invars
    of_params = [_in(atom, scope.of_params) for atom in (left, right)]
    of_data = [_in(atom, scope.of_data) for atom in (left, right)]
    if all(of_params) and all(of_data):
        return _counted(part, equation)
    # The other factor has no parameters, or no data: a factor with both is followed first.
    rank = [params + 2 * data for params, data in zip(of_params, of_data, strict=True)]
    main = 0 if name == "div" or rank[0] >= rank[1] else 1
    if not of_data[main] or (name == "div" and of_params[1] and of_data[1]):
        return None
    factor, other = equation.invars[main], equation.invars[1 - main]
    if name == "dot_general":
        part = _summed(part, equation, rows)
    followed = part.of(factor)
    if of_params[1 - main]:  # the statistic of the data in a product with parameters
        return [followed._replace(of_params=False)]
    if of_data[1 - main] and scope.constants.get(other) is None:
        return [_by_data(followed, equation, other, rows)]
    return [_by_constant(followed, equation, 1 - main, rows)]


def _counted(part: _Part, equation: JaxprEqn) -> list[_Part] | None:
    """A part multiplied or divided by the number of rows for which a condition holds, as in
    ``nanmean``.
    """
    name = equation.primitive.name
    left, right = equation.invars
    if name != "dot_general" and _is_count(part.scope, right):
        return [part._replace(atom=left, power=part.power + (1 if name == "div" else -1))]
    if name == "mul" and _is_count(part.scope, left):
        return [part._replace(atom=right, power=part.power - 1)]
    return None


def _by_data(part: _Part, equation: JaxprEqn, other: Tree, rows: int | None) -> _Part:
    """A part scaled by a factor of the data alone, such as weights or their sum."""
    power = 0.0
    if equation.primitive.name == "div":
        power = float(_is_count(part.scope, other))
    elif _is_count(part.scope, other):
        power = -1.0
    else:
        alone = _Part(part.scope, other, 0.0, (), False)
        power = min(_powers(alone, rows), default=0.0)
    return part._replace(power=part.power + power)


def _by_constant(part: _Part, equation: JaxprEqn, place: int, rows: int | None) -> _Part:
    """A part scaled by a constant: by the number of rows, by weights, or by another number."""
    scope = part.scope
    sign = 1 if equation.primitive.name == "div" else -1
    value = _constant(scope, equation.invars[place])
    counterpart = scope.counterpart_of(equation)
    double = None
    if counterpart is not None and scope.counterpart is not None:
        double = _constant(scope.counterpart, counterpart.invars[place])
    power = _doublings(value, double)
    if power:
        return part._replace(power=part.power + sign * power)
    if value is None or not value.size or not value.any():
        return part
    if sign < 0 and _weighs_rows(value, rows):
        return _divided(part, abs(float(value.sum())))
    if not (value == value.flat[0]).all():
        return part
    number = abs(float(value.flat[0]))
    return _with_factor(part, 1 / number if sign > 0 else number, rows)


def _with_factor(part: _Part, number: float, rows: int | None) -> _Part:
    """The part scaled by a number: compared with the number of rows if that is known, otherwise
    kept until the sum is reached.
    """
    alone = part._replace(factors=(number,))
    compared = _divided(alone, rows) if rows and rows >= MIN_TERMS_OF_A_MEAN else alone
    if compared.power != part.power:
        return compared._replace(factors=part.factors)
    return part._replace(factors=(*part.factors, number))


def _weighs_rows(value: ndarray, rows: int | None) -> bool:
    """Whether a constant array has one weight, of one sign, for each row."""
    signs = (value >= 0).all() or (value <= 0).all()
    size = value.size
    return bool(
        signs and size >= MIN_TERMS_OF_A_MEAN and max(value.shape) == size and rows in (None, size)
    )


def _doublings(value: ndarray | None, double: ndarray | None) -> float:
    """The power of the number of rows with which a constant grows: 1 if it doubles, −½ if it is
    divided by √2; 0 if not known.
    """
    if value is None or double is None or not value.size or not double.size:
        return 0.0
    single, doubled = (abs(float(np.mean(v, dtype=float))) for v in (value, double))
    if not (0 < single < math.inf and 0 < doubled < math.inf):
        return 0.0
    halves = 2 * math.log2(doubled / single)
    return round(halves) / 2 if abs(halves - round(halves)) < RELATIVE_ROUNDING else 0.0


def _constant(scope: _Scope, atom: Atom, depth: int = 0) -> ndarray | None:
    """The value of an array that depends neither on data nor on parameters, if it is computed from
    constants by a few operations.
    """
    if isinstance(atom, Literal):
        return np.asarray(atom.val)
    if atom in scope.constants:
        value = np.asarray(scope.constants[atom])
        return value if value.dtype.kind in "fiub" else None
    equation = scope.maker.get(atom)
    if depth > MAX_DEPTH_OF_A_CONSTANT:
        return None
    if equation is None:
        outside = scope.outer(atom)
        return None if outside is None else _constant(*outside, depth + 1)
    runs = _runs(equation)
    if len(runs) == 1 and len(runs[0]) == 2 and equation.primitive.name != "cond":
        inner = _inside(scope, equation, *runs[0])
        place = equation.outvars.index(atom)
        return _constant(inner, runs[0][0].jaxpr.outvars[place], depth + 1)
    rule = CONSTANT_RULES.get(equation.primitive.name)
    if rule is None:
        return None
    values = [_constant(scope, atom, depth + 1) for atom in equation.invars]
    if any(value is None for value in values):
        return None
    with np.errstate(all="ignore"):
        return np.asarray(rule(equation.params, *values))


def _is_count(scope: _Scope, atom: Atom) -> bool:
    """Whether a number is the sum of truth values, or of a leaf of the data such as weights."""
    summed = False
    while not isinstance(atom, Literal):
        if summed and aval_of(atom).dtype == bool:
            return True
        equation = scope.maker.get(atom)
        if equation is None:
            outside = scope.outer(atom)
            if outside is None:
                return summed
            scope, atom = outside
            continue
        runs = _runs(equation)
        if len(runs) == 1 and len(runs[0]) == 2:
            inner = _inside(scope, equation, *runs[0])
            scope, atom = inner, runs[0][0].jaxpr.outvars[equation.outvars.index(atom)]
            continue
        name = equation.primitive.name
        if name not in SHAPING and name != "reduce_sum":
            return False
        summed = summed or name == "reduce_sum"
        atom = equation.invars[0]
    return False
