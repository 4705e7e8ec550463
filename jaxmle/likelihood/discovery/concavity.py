"""Whether every term of a likelihood is concave in its parameters, proved from its program.

The program is traced without calls and loops (``straight_program``), and each of its operations is
followed by an exact rule (``curvature_rules``), with flags of what is known of each entry
(``curvature``). What depends on the data alone is evaluated, so that a mask or the sign of a factor
is known for these data. An operation without a rule ends the proof without a conclusion.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn, Literal

from jaxmle._types import Array, Atom, Function, FunctionTo, Loglik, Tree, ndarray
from jaxmle.likelihood.codes import called
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, Weight, WithResponse
from jaxmle.likelihood.discovery.curvature import (
    AFFINE,
    CONCAVE,
    IS_CONSTANT,
    NOTHING,
    Known,
    any_constants,
    constant_value,
    constants,
    unknown,
    with_flags,
)
from jaxmle.likelihood.discovery.curvature_rules import (
    OVER_AXES,
    RULES,
    matrix_product,
    reduced_axes,
    square,
)
from jaxmle.likelihood.discovery.straight_program import (
    REARRANGING,
    NotFollowed,
    Program,
    fixed_values,
    straight_program,
)
from jaxmle.likelihood.structure import jeffreys_of
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import aval_of
from jaxmle.runtime.compile import compiled, remembered

MAX_ENTRIES = 2**22  # of one array of the program

# The operands of a rearrangement that are positions, not values: all from this one on, or the
# first.
PLACES_FROM = {
    "gather": 1,
    "dynamic_slice": 1,
    "dynamic_update_slice": 2,
}
SAME_VALUE = frozenset(["convert_element_type", "reduce_precision", "copy", "copy_p"])


def is_concave(loglik: Loglik, layout: Layout, x: Array, free: Array, data: Tree) -> bool:
    """Whether all terms are proved to be concave in the entries ``free`` of x (p,), the others
    held.
    """
    match loglik:
        case Weight() | WithResponse():
            return is_concave(loglik.loglik, layout, x, free, data)
        case Penalize() if jeffreys_of(loglik) is None:
            return is_concave(loglik.loglik, layout, x, free, data)
        case Pool():
            pairs = zip(loglik.members, data, strict=True)
            return all(is_concave(member, layout, x, free, part) for member, part in pairs)
        case Penalize():
            return False
    leaves, treedef = jax.tree.flatten(data)
    shapes = tuple((np.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves)
    x = np.asarray(x)
    moves = np.asarray(free, bool)
    key = (layout, treedef, shapes, str(x.dtype))
    # held values are leaves of the likelihood and may differ from call to call
    is_remembered = not isinstance(loglik, Fix | Tie)

    def find(portable: Loglik) -> Program:
        return straight_program(portable, layout, x, leaves, treedef)

    def whatever_the_data(portable: Loglik) -> bool:
        known = {atom: any_constants(aval_of(atom).shape) for atom in program.fixed}
        return _is_concave(program, known, any_constants(x.shape), moves)

    def make(portable: Loglik) -> Function:
        return lambda data: fixed_values(program, data)

    try:
        if is_remembered:
            program = remembered(loglik, ("terms without calls", *key), find)
            fact = ("concave", tuple(moves.tolist()), *key)
            if remembered(loglik, fact, whatever_the_data):
                return True
            fixed = compiled(loglik, ("values of the data", *key), make)(leaves)
        else:
            program = find(loglik)
            fixed = jax.jit(make(loglik))(leaves)
        known = dict(zip(program.fixed, map(constants, fixed), strict=True))
        return _is_concave(program, known, constants(x), moves)
    except NotFollowed:  # an operation without a rule: nothing is proved
        return False


def _is_concave(program: Program, known: dict[Tree, Known], x: Known, free: ndarray) -> bool:
    """Whether the terms are concave in the free entries of x, with what is ``known`` of the values
    that depend on the data alone.
    """
    moving = x._replace(flags=np.where(free, AFFINE, x.flags))
    return bool(np.all(_followed(program, known, moving).flags & CONCAVE))


def _followed(program: Program, known: dict[Tree, Known], x: Known) -> Known:
    """What is known of the result of a program."""
    jaxpr = program.jaxpr.jaxpr
    table: dict[Tree, Known] = {jaxpr.invars[0]: x}

    def read(atom: Atom) -> Known:
        if isinstance(atom, Literal):
            return constants(atom.val)
        if atom not in table:
            table[atom] = known[atom]
        return table[atom]

    operations = zip(jaxpr.eqns, program.rules, strict=True)
    for number, (equation, of_call) in enumerate(operations, start=1):
        moves = any(
            not isinstance(a, Literal) and a in table and a not in known for a in equation.invars
        )
        if not moves:
            continue
        if any(np.prod(aval_of(v).shape) > MAX_ENTRIES for v in equation.outvars):
            raise NotFollowed
        outs = _result(equation, number, of_call, [read(atom) for atom in equation.invars])
        table |= dict(zip(equation.outvars, outs, strict=True))
    return read(jaxpr.outvars[0])


def _result(
    equation: JaxprEqn, number: int, of_call: FunctionTo[ndarray] | None, ins: list[Known]
) -> list[Known]:
    """What is known of the results of one operation; ``of_call`` is the rule of the function that
    it calls.
    """
    places = [
        constant_value(part, aval_of(atom).dtype)
        for part, atom in zip(ins, equation.invars, strict=True)
    ]
    same = len(ins) == 2 and equation.invars[0] is equation.invars[1]
    name = equation.primitive.name
    shapes = [aval_of(var).shape for var in equation.outvars]
    rule = RULES.get(name)
    inner = called(equation)
    if name in SAME_VALUE:
        return [ins[0]]
    if name == "stop_gradient":
        return [_as_shift(ins[0], number)]
    if name in REARRANGING:
        return _rearranged(equation, ins, places)
    if inner is None and all(place is not None for place in places):
        outs = equation.primitive.bind(*map(jnp.asarray, places), **equation.params)
        outs = outs if equation.primitive.multiple_results else [outs]
        return [constants(out) for out in outs]
    if name == "ne" and same:  # a test for NaN, about which nothing is claimed
        return [constants(np.zeros(shapes[0]))]
    if (name == "mul" and same) or (name == "integer_pow" and equation.params["y"] == 2):
        return [square(ins[0])]
    if name == "dot_general":
        left, right = ins
        return [matrix_product(left, right, shapes[0])]
    if of_call is not None:
        plain = np.all(np.broadcast_arrays(*(part.is_plain for part in ins)), axis=0)
        return [with_flags(np.broadcast_to(np.where(plain, of_call(*ins), NOTHING), shapes[0]))]
    if rule is None:
        return [unknown(shape) for shape in shapes]
    out = rule(*ins, **({"axes": reduced_axes(equation)} if name in OVER_AXES else {}))
    return [Known(*(np.broadcast_to(part, shapes[0]) for part in out))]


def _as_shift(part: Known, number: int) -> Known:
    """A value without a derivative: a constant as it is, otherwise a maximum added to zero."""
    count = int(np.prod(part.flags.shape))
    numbers = (number * MAX_ENTRIES + 1 + np.arange(count)).reshape(part.flags.shape)
    held = (part.flags & IS_CONSTANT) > 0
    zero = constants(np.where(held, part.value, 0.0))
    return zero._replace(shift=np.where(held, 0, numbers), multiple=np.where(held, 0.0, 1.0))


def _rearranged(equation: JaxprEqn, ins: list[Known], places: list[Tree]) -> list[Known]:
    """Rearranged entries, found by rearranging their indices in the same way."""
    name = equation.primitive.name
    first = 1 if name == "select_n" else 0
    last = PLACES_FROM.get(name, len(ins))
    where = [0, *range(last, len(ins))] if first else list(range(last, len(ins)))
    if name == "scatter":
        where = [1]
    if any(places[k] is None for k in where):
        return [unknown(aval_of(var).shape) for var in equation.outvars]
    what = [k for k in range(len(ins)) if k not in where]
    ends = np.cumsum([0, *(ins[k].flags.size for k in what)])
    operands = list(places)
    for k, start in zip(what, ends[:-1], strict=True):
        operands[k] = start + np.arange(ins[k].flags.size).reshape(ins[k].flags.shape)
    flat = [np.concatenate([np.ravel(ins[k][j]) for k in what]) for j in range(len(Known._fields))]
    outs = equation.primitive.bind(*map(jnp.asarray, operands), **equation.params)
    outs = outs if equation.primitive.multiple_results else [outs]
    numbers = [np.asarray(out) for out in outs]
    return [Known(*(part[np.clip(n, 0, ends[-1] - 1)] for part in flat)) for n in numbers]
