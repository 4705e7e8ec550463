"""Whether every term of a likelihood is concave in its parameters, proved from its program.

The operations of the program are followed by rules that are exact: a sum of concave values is
concave, the logarithm of a sum of exponentials of affine values is convex (disciplined convex
programming: Grant, Boyd & Ye 2006). What depends on the data alone is evaluated, so that a mask or
the sign of a factor is that of these data. An operation without a rule ends the proof, never makes
one.

Each entry of each array has flags of what is known of it as a function of the parameters. The
maximum that ``logsumexp`` subtracts and adds again is no function to these rules: an entry has a
multiple of it beside its flags, which must be gone at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr

from jaxmle._types import Array, Loglik, Tree
from jaxmle.likelihood.codes import called
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, Weight, WithResponse
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.structure import jeffreys_of
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.compile import compiled, remembered
from jaxmle.runtime.cse import once
from jaxmle.special.logistic import softplus

# What is known of an entry f.
NOTHING = 0
CONVEX = 1
CONCAVE = 2
LOG_CONVEX = 4  # f ≥ 0, and log f is convex
LOG_CONCAVE = 8  # f ≥ 0, and log f is concave
IS_CONSTANT = 16
SHARE = 32  # f and 1 − f are log-concave
MINUS_SHARE = 64  # −f is such a share
AFFINE = CONVEX | CONCAVE
OF_SUMS = CONVEX | CONCAVE | LOG_CONVEX | IS_CONSTANT

MAX_UNROLLED_PASSES = 512  # of a loop over the rows
MAX_ENTRIES = 2**22  # of one array of the program

REARRANGING = frozenset(
    [
        "broadcast_in_dim",
        "concatenate",
        "copy",
        "copy_p",
        "dynamic_slice",
        "dynamic_update_slice",
        "expand_dims",
        "gather",
        "pad",
        "reshape",
        "rev",
        "scatter",
        "select_n",
        "slice",
        "split",
        "squeeze",
        "stack",
        "transpose",
    ]
)
# The operands of a rearrangement that say where, not what: from this one on, or the first.
PLACES_FROM = {
    "gather": 1,
    "dynamic_slice": 1,
    "dynamic_update_slice": 2,
}
SAME_VALUE = frozenset(["convert_element_type", "reduce_precision", "copy", "copy_p"])
CALLS_WITH_A_RULE = frozenset(
    ["jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"]
)


class Known(NamedTuple):
    """What is known of the entries of an array as functions of the parameters."""

    flags: np.ndarray  # integers
    value: np.ndarray  # of constants
    # the subtracted maximum: its number, 0 for none, and its multiple. It is added, or where
    # ``factor`` multiplies as exp(multiple · maximum)
    shift: np.ndarray
    multiple: np.ndarray
    factor: np.ndarray

    @property
    def is_plain(self) -> np.ndarray:
        """Entries without a subtracted maximum."""
        return self.multiple == 0

    def only(self, flags: np.ndarray) -> Known:
        """The same entries with flags of their own, without a constant or a maximum."""
        return _plain(np.where(self.is_plain, flags, NOTHING))


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
    kept = np.asarray(free, bool)
    try:
        return bool(np.all(_terms(loglik, layout, np.asarray(x), kept, data).flags & CONCAVE))
    except NotFollowed:  # an operation without a rule: nothing is proved
        return False


class NotFollowed(Exception):
    """The program of a likelihood is longer than these rules follow."""


# ---------------------------------------------------------------- the program


class Program(NamedTuple):
    """A program without calls and loops, and which of its values depend on the data alone."""

    jaxpr: Any  # closed; its arguments are x and the leaves of the data
    fixed: tuple[Any, ...]  # variables that depend on the data alone


def _terms(loglik: Loglik, layout: Layout, x: np.ndarray, free: np.ndarray, data: Tree) -> Known:
    """What is known of the terms as functions of the free entries of x."""
    leaves, treedef = jax.tree.flatten(data)
    shapes = tuple((np.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves)
    key = (layout, treedef, shapes, str(x.dtype))
    if isinstance(loglik, Fix | Tie):
        # values that are held are leaves of the likelihood, and may differ from call to call
        program = _program(loglik, layout, x, leaves, treedef)
        fixed = jax.jit(lambda data: _fixed_values(program, data))(leaves)
    else:

        def find(portable: Any) -> Program:
            return _program(portable, layout, x, leaves, treedef)

        program = remembered(loglik, ("terms without calls", *key), find)

        def make(portable: Any) -> Callable[..., Any]:
            return lambda data: _fixed_values(program, data)

        fixed = compiled(loglik, ("values of the data", *key), make)(leaves)
    values = dict(zip(program.fixed, map(np.asarray, fixed), strict=True))
    start = _constants(x)
    moving = start._replace(flags=np.where(free, AFFINE, start.flags))
    return _followed(program, values, moving)


def _program(
    loglik: Loglik, layout: Layout, x: np.ndarray, leaves: Sequence[Array], treedef: Any
) -> Program:
    def terms(x: Array, *leaves: Array) -> Array:
        return terms_of(loglik, layout.unravel(x), jax.tree.unflatten(treedef, leaves))

    whole = jax.make_jaxpr(once(terms))(x, *leaves)
    flat = jax.make_jaxpr(lambda *args: _without_calls(whole, args))(x, *leaves)
    moving = {flat.jaxpr.invars[0]}
    fixed = [*flat.jaxpr.constvars, *flat.jaxpr.invars[1:]]
    for equation in flat.jaxpr.eqns:
        if any(not hasattr(atom, "val") and atom in moving for atom in equation.invars):
            moving.update(equation.outvars)
        else:
            fixed += equation.outvars
    used = {
        atom
        for equation in flat.jaxpr.eqns
        if not moving.isdisjoint(equation.outvars)
        for atom in equation.invars
        if not hasattr(atom, "val")
    } | {atom for atom in flat.jaxpr.outvars if not hasattr(atom, "val")}
    return Program(flat, tuple(var for var in fixed if var in used and var not in moving))


def _fixed_values(program: Program, data: Sequence[Array]) -> list[Array]:
    """The values of what depends on the data alone."""
    jaxpr = program.jaxpr.jaxpr
    table = dict(zip(jaxpr.constvars, program.jaxpr.consts, strict=True))
    table |= dict(zip(jaxpr.invars[1:], data, strict=True))
    for equation in jaxpr.eqns:
        if all(hasattr(atom, "val") or atom in table for atom in equation.invars):
            table |= dict(zip(equation.outvars, _bound(equation, table), strict=True))
    return [jnp.asarray(table[var]) for var in program.fixed]


def _bound(equation: Any, table: dict[Any, Any]) -> list[Any]:
    """The results of one operation."""
    given = {atom: table[atom] for atom in equation.invars if not hasattr(atom, "val")}
    alone = jax.make_jaxpr(lambda: None)().jaxpr.replace(
        invars=list(given),
        eqns=[equation],
        outvars=list(equation.outvars),
        effects=equation.effects,
    )
    return jax.core.eval_jaxpr(alone, [], *given.values())


def _without_calls(program: Any, arguments: Sequence[Array]) -> list[Array]:
    """The results of a closed program, with the programs that it calls, and those of short loops,
    in place of the calls; functions with a rule of their own stay calls.
    """
    table: dict[Any, Any] = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    table |= dict(zip(program.jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else table[atom]

    for equation in program.jaxpr.eqns:
        inner = called(equation)
        if equation.primitive.name == "scan":
            outs = _unrolled(equation, [read(atom) for atom in equation.invars])
        elif inner is not None and _rule_of_call(equation, inner) is None:
            outs = _without_calls(inner, [read(atom) for atom in equation.invars])
        else:
            outs = _bound(equation, table)
        table |= dict(zip(equation.outvars, outs, strict=True))
    return [read(atom) for atom in program.jaxpr.outvars]


def _unrolled(equation: Any, ins: list[Any]) -> list[Array]:
    """The results of a loop over rows, pass by pass."""
    params = equation.params
    if params["length"] > MAX_UNROLLED_PASSES:
        raise NotFollowed
    held, carried = params["num_consts"], params["num_carry"]
    carry = ins[held : held + carried]
    passes: list[Any] = [None] * params["length"]
    order = range(params["length"])
    for i in reversed(order) if params["reverse"] else order:
        rows = [leaf[i] for leaf in ins[held + carried :]]
        outs = _without_calls(params["jaxpr"], [*ins[:held], *carry, *rows])
        carry = outs[:carried]
        passes[i] = outs[carried:]
    return [*carry, *(jnp.stack(column) for column in zip(*passes, strict=True))]


# ---------------------------------------------------------------- functions with a rule


def _convex_increasing(*parts: Known) -> np.ndarray:
    """A convex function that increases in each argument, of convex ones: convex."""
    flags = np.bitwise_and.reduce(np.broadcast_arrays(*(part.flags for part in parts)))
    return np.where(flags & CONVEX, CONVEX, NOTHING)


def _concave_increasing(part: Known) -> np.ndarray:
    return np.where(part.flags & CONCAVE, CONCAVE, NOTHING)


# By name: the function, whose program a call of that name must have, and its rule.
FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., np.ndarray]]] = {
    "logaddexp": (jnp.logaddexp, _convex_increasing),
    "softplus": (softplus, _convex_increasing),
    "log_ndtr": (log_ndtr, _concave_increasing),
}


def _rule_of_call(equation: Any, inner: Any) -> Callable[..., np.ndarray] | None:
    """The rule of a call of one of the ``FUNCTIONS``; None for any other."""
    name = equation.params.get("name") or inner.jaxpr.debug_info.func_name
    name = str(name).split(" ")[0].split(".")[-1]
    if name not in FUNCTIONS or equation.primitive.name not in CALLS_WITH_A_RULE:
        return None
    function, rule = FUNCTIONS[name]
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
    own = jax.make_jaxpr(function)(*shapes)
    return rule if _operations(own.jaxpr) == _operations(inner.jaxpr) else None


def _operations(jaxpr: Any) -> list[Any]:
    """The operations of a program and the numbers in it, but for the shapes."""
    listed: list[Any] = []
    for equation in jaxpr.eqns:
        inner = called(equation)
        if inner is not None:
            listed += _operations(inner.jaxpr)
        elif equation.primitive.name not in REARRANGING - {"select_n"}:
            numbers = [a.val for a in equation.invars if np.ndim(getattr(a, "val", [])) == 0]
            # where rows are mapped over, a zero may be an array
            listed += [equation.primitive.name, *(float(n) for n in numbers if n != 0)]
    return listed


# ---------------------------------------------------------------- the rules


def _plain(flags: np.ndarray) -> Known:
    zero = np.zeros(np.shape(flags))
    none = zero.astype(bool)
    return Known(np.asarray(flags), zero, none.astype(int), zero, none)


def _constants(value: Any) -> Known:
    """What is known of constants."""
    value = np.asarray(value)
    value = value.astype(float) if np.issubdtype(value.dtype, np.number) else value * 1.0
    positive = np.where(value >= 0, LOG_CONVEX | LOG_CONCAVE, NOTHING)
    return _plain(IS_CONSTANT | AFFINE | positive)._replace(value=value)


def _followed(program: Program, values: dict[Any, np.ndarray], x: Known) -> Known:
    """What is known of the result of a program."""
    jaxpr = program.jaxpr.jaxpr
    table: dict[Any, Known] = {jaxpr.invars[0]: x}

    def read(atom: Any) -> Known:
        if hasattr(atom, "val"):
            return _constants(atom.val)
        if atom not in table:
            table[atom] = _constants(values[atom])
        return table[atom]

    for number, equation in enumerate(jaxpr.eqns, start=1):
        moves = any(
            not hasattr(a, "val") and a in table and a not in values for a in equation.invars
        )
        if not moves:
            continue
        if any(np.prod(v.aval.shape) > MAX_ENTRIES for v in equation.outvars):
            raise NotFollowed
        outs = _result(equation, number, [read(atom) for atom in equation.invars])
        table |= dict(zip(equation.outvars, outs, strict=True))
    return read(jaxpr.outvars[0])


def _result(equation: Any, number: int, ins: list[Known]) -> list[Known]:
    places = [
        _value(part, atom.aval.dtype) for part, atom in zip(ins, equation.invars, strict=True)
    ]
    same = len(ins) == 2 and equation.invars[0] is equation.invars[1]
    name = equation.primitive.name
    shapes = [var.aval.shape for var in equation.outvars]
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
        return [_constants(out) for out in outs]
    if name == "ne" and same:  # asks for NaN, of which nothing is claimed
        return [_constants(np.zeros(shapes[0]))]
    if (name == "mul" and same) or (name == "integer_pow" and equation.params["y"] == 2):
        return [_square(ins[0])]
    if name == "dot_general":
        return [_matrix_product(ins, places, shapes[0])]
    if inner is not None and (of_call := _rule_of_call(equation, inner)) is not None:
        plain = np.all(np.broadcast_arrays(*(part.is_plain for part in ins)), axis=0)
        return [_plain(np.broadcast_to(np.where(plain, of_call(*ins), NOTHING), shapes[0]))]
    if rule is None:
        return [_unknown(shape) for shape in shapes]
    out = rule(*ins, **({"axes": _axes(equation)} if name in OVER_AXES else {}))
    return [Known(*(np.broadcast_to(part, shapes[0]) for part in out))]


def _value(part: Known, dtype: Any) -> np.ndarray | None:
    """The value of an array of constants; None of any other."""
    held = np.all(((part.flags & IS_CONSTANT) > 0) & part.is_plain)
    return part.value.astype(dtype) if held else None


def _unknown(shape: tuple[int, ...]) -> Known:
    return _plain(np.zeros(shape, int))


def _axes(equation: Any) -> tuple[int, ...]:
    params = equation.params
    return params["axes"] if "axes" in params else (params["axis"],)


def _as_shift(part: Known, number: int) -> Known:
    """What has no derivative: constants as they are, else a maximum that stands beside zero."""
    count = int(np.prod(part.flags.shape))
    numbers = (number * MAX_ENTRIES + 1 + np.arange(count)).reshape(part.flags.shape)
    held = (part.flags & IS_CONSTANT) > 0
    zero = _constants(np.where(held, part.value, 0.0))
    return zero._replace(shift=np.where(held, 0, numbers), multiple=np.where(held, 0.0, 1.0))


def _rearranged(equation: Any, ins: list[Known], places: list[Any]) -> list[Known]:
    """Entries in other places, found by doing the same with their numbers."""
    name = equation.primitive.name
    first = 1 if name == "select_n" else 0
    last = PLACES_FROM.get(name, len(ins))
    where = [0, *range(last, len(ins))] if first else list(range(last, len(ins)))
    if name == "scatter":
        where = [1]
    if any(places[k] is None for k in where):
        return [_unknown(var.aval.shape) for var in equation.outvars]
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


def _negative(part: Known) -> Known:
    f = part.flags
    flags = np.where(f & CONVEX, CONCAVE, 0) | np.where(f & CONCAVE, CONVEX, 0)
    flags |= np.where(f & SHARE, MINUS_SHARE, 0) | np.where(f & MINUS_SHARE, SHARE | LOG_CONCAVE, 0)
    held = _constants(-part.value).flags
    flags = np.where(f & IS_CONSTANT, held, np.where(part.factor & ~part.is_plain, NOTHING, flags))
    return part._replace(flags=flags, value=-part.value, multiple=-part.multiple)


def _of_one_shape(a: Known, b: Known) -> tuple[Known, Known]:
    pairs = [np.broadcast_arrays(*pair) for pair in zip(a, b, strict=True)]
    return Known(*(pair[0] for pair in pairs)), Known(*(pair[1] for pair in pairs))


def _sum(a: Known, b: Known) -> Known:
    a, b = _of_one_shape(a, b)
    flags = a.flags & b.flags & OF_SUMS
    value = a.value + b.value
    for one, other in ((a, b), (b, a)):
        held = (one.flags & IS_CONSTANT) > 0
        flags = np.where(held & (one.value == 0) & one.is_plain, other.flags, flags)
        complement = held & (one.value == 1) & ((other.flags & MINUS_SHARE) > 0)
        flags = np.where(complement, flags | SHARE | LOG_CONCAVE, flags)
    held = (flags & IS_CONSTANT) > 0
    flags = np.where(held, _constants(value).flags, flags)
    # a common maximum may be added to both; one that multiplies must be the same in both
    alike = a.is_plain | b.is_plain | (a.shift == b.shift)
    factor = (a.factor & ~a.is_plain) | (b.factor & ~b.is_plain)
    both = (a.factor == b.factor) & (a.shift == b.shift) & (a.multiple == b.multiple)
    zero = [((p.flags & IS_CONSTANT) > 0) & (p.value == 0) & p.is_plain for p in (a, b)]
    sound = np.where(factor, both | zero[0] | zero[1], alike)
    multiple = np.where(
        factor, np.where(a.is_plain, b.multiple, a.multiple), a.multiple + b.multiple
    )
    shift = np.where(a.is_plain, b.shift, a.shift)
    # NaN: no multiple, so that nothing is concluded of what is unsound
    return Known(
        np.where(sound, flags, NOTHING), value, shift, np.where(sound, multiple, np.nan), factor
    )


def _scaled(part: Known, c: np.ndarray) -> Known:
    """Entries times constants."""
    f = np.where(part.flags & IS_CONSTANT, part.flags & ~(SHARE | MINUS_SHARE), part.flags)
    rising = f & (CONVEX | CONCAVE | LOG_CONVEX | LOG_CONCAVE | IS_CONSTANT)
    falling = np.where(f & CONVEX, CONCAVE, 0) | np.where(f & CONCAVE, CONVEX, 0) | f & IS_CONSTANT
    factor = part.factor & ~part.is_plain
    flags = np.where(c > 0, rising, np.where(factor, NOTHING, falling))
    value = part.value * c
    held = (f & IS_CONSTANT) > 0
    flags = np.where(held, _constants(value).flags, flags)
    flags = np.where(c == 1, part.flags, flags)
    multiple = np.where(part.factor, part.multiple, part.multiple * c)
    out = Known(flags, value, part.shift, multiple, part.factor)
    minus = _negative(part)
    gone = c == 0
    nothing = _constants(np.zeros(np.shape(flags)))
    pairs = zip(out, minus, nothing, strict=True)
    return Known(*(np.where(gone, z, np.where(c == -1, m, o)) for o, m, z in pairs))


def _product(a: Known, b: Known) -> Known:
    a, b = _of_one_shape(a, b)
    both = a.flags & b.flags & (LOG_CONVEX | LOG_CONCAVE)
    both = both | np.where(both & LOG_CONVEX, CONVEX, 0)
    multiplies = (a.factor | a.is_plain) & (b.factor | b.is_plain)
    alike = a.is_plain | b.is_plain | (a.shift == b.shift)
    sound = multiplies & alike
    of_logs = Known(
        np.where(sound, both, NOTHING),
        np.zeros(both.shape),
        np.where(a.is_plain, b.shift, a.shift),
        np.where(sound, a.multiple + b.multiple, np.nan),
        np.ones(both.shape, bool),
    )
    choices = [_scaled(b, a.value), _scaled(a, b.value), of_logs]
    held = [(p.flags & IS_CONSTANT > 0) & p.is_plain for p in (a, b)]
    return Known(
        *(np.where(held[0], x, np.where(held[1], y, z)) for x, y, z in zip(*choices, strict=True))
    )


def _square(part: Known) -> Known:
    f = part.flags
    affine = (f & AFFINE) == AFFINE
    flags = np.where(affine, CONVEX, 0) | f & (LOG_CONVEX | LOG_CONCAVE)
    held = _constants(part.value**2)
    out = part.only(flags)
    is_held = ((f & IS_CONSTANT) > 0) & part.is_plain
    return Known(*(np.where(is_held, h, o) for h, o in zip(held, out, strict=True)))


def _quotient(a: Known, b: Known) -> Known:
    held = (b.flags & IS_CONSTANT) > 0
    with np.errstate(all="ignore"):
        inverse = np.where(b.value != 0, 1.0 / np.where(b.value != 0, b.value, 1.0), np.nan)
    flags = np.where(b.flags & LOG_CONVEX, LOG_CONCAVE, 0) | np.where(
        b.flags & LOG_CONCAVE, LOG_CONVEX | CONVEX, 0
    )
    sound = b.factor | b.is_plain
    reciprocal = b._replace(
        flags=np.where(sound, flags, NOTHING), multiple=-b.multiple, factor=np.ones_like(b.factor)
    )
    constant = _constants(inverse)
    parts = zip(constant, reciprocal, strict=True)
    return _product(a, Known(*(np.where(held & b.is_plain, c, r) for c, r in parts)))


def _exponential(part: Known) -> Known:
    f = part.flags
    flags = np.where(f & CONVEX, LOG_CONVEX | CONVEX, 0) | np.where(f & CONCAVE, LOG_CONCAVE, 0)
    flags = np.where(part.factor & ~part.is_plain, NOTHING, flags)
    out = Known(flags, part.value, part.shift, part.multiple, np.ones_like(part.factor))
    with np.errstate(all="ignore"):
        return _held(part, np.exp(part.value), out)


def _logarithm(part: Known) -> Known:
    f = part.flags
    flags = np.where(f & LOG_CONVEX, CONVEX, 0) | np.where(f & (LOG_CONCAVE | CONCAVE), CONCAVE, 0)
    of_factor = np.where(f & LOG_CONVEX, CONVEX, 0) | np.where(f & LOG_CONCAVE, CONCAVE, 0)
    flags = np.where(part.is_plain, flags, np.where(part.factor, of_factor, NOTHING))
    out = part._replace(flags=flags, factor=np.zeros_like(part.factor))
    with np.errstate(all="ignore"):
        return _held(part, np.log(part.value), out)


def _logarithm_beside_one(part: Known) -> Known:
    f = part.flags
    flags = np.where(f & LOG_CONVEX, CONVEX, 0) | np.where(f & (CONCAVE | MINUS_SHARE), CONCAVE, 0)
    with np.errstate(all="ignore"):
        return _held(part, np.log1p(part.value), part.only(flags))


def _held(part: Known, value: np.ndarray, out: Known) -> Known:
    """The result of a function: of constants its value, else what is known of it."""
    is_held = ((part.flags & IS_CONSTANT) > 0) & part.is_plain
    return Known(*(np.where(is_held, c, o) for c, o in zip(_constants(value), out, strict=True)))


def _absolute(part: Known) -> Known:
    f = part.flags
    is_positive = (f & (LOG_CONVEX | LOG_CONCAVE)) > 0
    folded = part.only(np.where((f & AFFINE) == AFFINE, CONVEX, NOTHING))
    out = Known(*(np.where(is_positive, p, q) for p, q in zip(part, folded, strict=True)))
    return _held(part, np.abs(part.value), out)


def _exponential_less_one(part: Known) -> Known:
    flags = np.where(part.flags & CONVEX, CONVEX, NOTHING)
    with np.errstate(all="ignore"):
        return _held(part, np.expm1(part.value), part.only(flags))


def _logistic(part: Known) -> Known:
    affine = (part.flags & AFFINE) == AFFINE
    return part.only(np.where(affine, LOG_CONCAVE | SHARE, NOTHING))


def _root(part: Known) -> Known:
    return part.only(part.flags & (CONCAVE | LOG_CONCAVE | LOG_CONVEX))


def _extreme(kept: int) -> Callable[..., Known]:
    """The larger or the smaller of values that are all convex, or all concave."""

    def rule(a: Known, b: Known) -> Known:
        plain = a.is_plain & b.is_plain
        return _plain(np.where(plain, a.flags & b.flags & kept, NOTHING))

    return rule


def _extreme_over_axes(kept: int) -> Callable[..., Known]:
    def rule(part: Known, axes: tuple[int, ...]) -> Known:
        flags = np.where(part.is_plain, part.flags & kept, NOTHING)
        return _plain(np.bitwise_and.reduce(flags, axis=axes))

    return rule


def _sum_over_axes(part: Known, axes: tuple[int, ...]) -> Known:
    size = int(np.prod([part.flags.shape[axis] for axis in axes]))
    if not size:
        return _constants(np.sum(part.value, axis=axes))
    rest = tuple(n for axis, n in enumerate(part.flags.shape) if axis not in axes)
    first = Known(*(np.moveaxis(p, axes, range(len(axes))).reshape(size, *rest) for p in part))
    zero = ((first.flags & IS_CONSTANT) > 0) & (first.value == 0) & first.is_plain
    factor = np.any(first.factor & ~first.is_plain, axis=0)

    def common(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The value of the entries that are not zero, and whether it is the same in all."""
        low = np.min(np.where(zero, np.inf, values), axis=0)
        high = np.max(np.where(zero, -np.inf, values), axis=0)
        return np.where(np.isfinite(low), low, 0.0), ~(low < high)

    shift, same_shift = common(first.shift.astype(float))
    multiple, same_multiple = common(first.multiple)
    plain = np.all(first.is_plain, axis=0)
    flags = np.bitwise_and.reduce(np.where(zero, -1, first.flags), axis=0) & OF_SUMS
    value = np.sum(first.value, axis=0)
    flags = np.where(np.all(zero, axis=0), IS_CONSTANT, flags)
    flags = np.where(
        (flags & IS_CONSTANT > 0) & plain, _constants(value).flags, flags & ~IS_CONSTANT
    )
    sound = plain | (same_shift & same_multiple)
    total = np.where(factor, multiple, np.sum(first.multiple, axis=0))
    return Known(
        np.where(sound, flags, NOTHING),
        value,
        shift.astype(int),
        np.where(sound, total, np.nan),
        factor,
    )


def _running(kept: int) -> Callable[..., Known]:
    """Running sums and the like: what holds of all entries along the axis."""

    def rule(part: Known, axes: tuple[int, ...]) -> Known:
        flags = np.where(part.is_plain, part.flags & kept, NOTHING)
        whole = np.bitwise_and.reduce(flags, axis=axes, keepdims=True)
        return _plain(np.broadcast_to(whole, part.flags.shape))

    return rule


def _matrix_product(ins: list[Known], places: list[Any], shape: tuple[int, ...]) -> Known:
    """A matrix of constants times values of which the same is known."""
    if places[0] is None and places[1] is None:
        return _unknown(shape)
    moving, fixed = (ins[0], places[1]) if places[0] is None else (ins[1], places[0])
    flags = int(np.bitwise_and.reduce(moving.flags, axis=None)) & AFFINE
    if not np.all(moving.is_plain) or (flags != AFFINE and np.any(np.asarray(fixed) < 0)):
        flags = NOTHING
    return _plain(np.full(shape, flags))


RULES: dict[str, Callable[..., Known]] = {
    "abs": _absolute,
    "add": _sum,
    "add_any": _sum,
    "cumlogsumexp": _running(CONVEX),
    "cummax": _running(CONVEX),
    "cumsum": _running(AFFINE),
    "div": _quotient,
    "exp": _exponential,
    "expm1": _exponential_less_one,
    "log": _logarithm,
    "log1p": _logarithm_beside_one,
    "logistic": _logistic,
    "max": _extreme(CONVEX | LOG_CONVEX),
    "min": _extreme(CONCAVE | LOG_CONCAVE),
    "mul": _product,
    "neg": _negative,
    "reduce_max": _extreme_over_axes(CONVEX | LOG_CONVEX),
    "reduce_min": _extreme_over_axes(CONCAVE | LOG_CONCAVE),
    "reduce_sum": _sum_over_axes,
    "sqrt": _root,
    "square": _square,
    "sub": lambda a, b: _sum(a, _negative(b)),
}
OVER_AXES = frozenset(name for name in RULES if name.startswith(("reduce_", "cum")))
