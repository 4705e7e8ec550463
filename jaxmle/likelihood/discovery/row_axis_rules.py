"""The effect of each operation of a traced program on the axis of the rows of the data.

The program is traced for a number of rows that no other dimension has, so every array either has
one axis along the rows (of that length), or holds a value of the current row of a loop over rows,
or does not involve the rows. A rule says which of these the result is, or raises ``NotRowwise``.
The listed parameters of each operation were reviewed (jax 0.8 to 0.12): an unknown operation or
parameter ends the proof.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from jaxmle._types import Atom, Tree
from jaxmle.runtime.calls import aval_of, opened

ENTRY_BY_ENTRY = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e
    bitcast_convert_type cbrt ceil clamp convert_element_type copy cos cosh digamma div eq erf
    erf_inv erfc exp exp2 expm1 floor ge gt igamma igammac integer_pow is_finite le le_to lgamma
    log log1p logistic lt lt_to max min mul ne neg nextafter not or polygamma polynomial
    population_count pow real reduce_precision regularized_incomplete_beta rem round rsqrt
    select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square
    stop_gradient sub tan tanh xor zeta
"""
ELEMENTWISE = frozenset(ENTRY_BY_ENTRY.split())
WITH_ACCURACY = "cbrt cos erfc exp exp2 expm1 log log1p logistic rsqrt sin sqrt tan tanh"
# Their parameters; operations that are not listed have none.
OF_ELEMENTWISE = {
    "bitcast_convert_type": "new_dtype",
    "convert_element_type": "new_dtype sharding weak_type",
    "integer_pow": "y",
    "mul": "out_dtype",
    "reduce_precision": "exponent_bits mantissa_bits",
    "round": "rounding_method",
} | dict.fromkeys(WITH_ACCURACY.split(), "accuracy")
# Operations that run one program: the parameter that holds it, and the others.
OF_JIT = (
    "compiler_options_kvs ctx_mesh donated_invars in_layouts in_shardings inline keep_unused name "
    "out_layouts out_shardings"
)
OF_CHECKPOINT = "differentiated policy prevent_cse"
CALLS = {
    "jit": ("jaxpr", OF_JIT),
    "closed_call": ("call_jaxpr", ""),
    "custom_jvp_call": ("call_jaxpr", "jvp_jaxpr_fun num_consts symbolic_zeros"),
    "custom_vjp_call": (
        "call_jaxpr",
        "bwd fwd_jaxpr_thunk num_consts out_trees symbolic_zeros",
    ),
    "remat2": ("jaxpr", OF_CHECKPOINT),
    "checkpoint": ("jaxpr", OF_CHECKPOINT),
}
CURRENT = -1  # instead of an axis: a value of the current row of a loop over rows
MAX_LOOP_PASSES = 8  # through the body of a loop until its carried values no longer change

Axis = int | None  # the axis along the rows, or CURRENT; None if rows are not involved


class NotRowwise(Exception):
    """Rows could not be proved independent; ``path`` is the operation where the proof ends and the
    calls that contain it, innermost first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.path: list[Tree] = []


class Operation(NamedTuple):
    """One operation of the program, as a rule sees it."""

    params: dict[str, Tree]
    ins: list[Axis]
    shapes: list[tuple[int, ...]]
    out: tuple[int, ...]  # the shape of its first result
    rows: int


def follow(program: ClosedJaxpr, arguments: list[Axis], rows: int) -> list[Axis]:
    """The axis of the rows in each result of a program, given the axis in each argument.

    Args:
        rows: the number of rows, which no other dimension has.
    """
    jaxpr = opened(program)
    known: dict[Tree, Axis] = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= dict.fromkeys(jaxpr.constvars)

    def read(atom: Atom) -> Axis:
        return None if isinstance(atom, Literal) else known[atom]  # a number of the program

    for equation in jaxpr.eqns:
        try:
            outs = _rule(equation, [read(atom) for atom in equation.invars], rows)
            known.update(zip(equation.outvars, outs, strict=True))
        except NotRowwise as end:
            end.path.append(equation)
            raise
    return [read(atom) for atom in jaxpr.outvars]


def _rule(equation: JaxprEqn, ins: list[Axis], rows: int) -> list[Axis]:
    """The axis of the rows in each result of an operation."""
    name = equation.primitive.name
    params = equation.params
    outvars = equation.outvars
    if CURRENT in ins:
        if set(ins) - {None, CURRENT}:
            raise NotRowwise
        return [CURRENT] * len(outvars)
    rule, reviewed = ROW_RULES.get(name, UNKNOWN_RULE)
    if name in CALLS and reviewed.issuperset(params):
        return follow(params[CALLS[name][0]], ins, rows)
    axes: Axis | list[Axis] = None
    if reviewed.issuperset(params):
        shapes = [aval_of(atom).shape for atom in equation.invars]
        axes = rule(Operation(params, ins, shapes, aval_of(outvars[0]).shape, rows))
    elif any(axis is not None for axis in ins):
        raise NotRowwise
    outs = axes if isinstance(axes, list) else [axes] * len(outvars)
    for axis, var in zip(outs, outvars, strict=True):
        # an array made from the number of rows, such as their positions or a random number for each
        if axis != CURRENT and [axis] * (axis is not None) != _long(aval_of(var).shape, rows):
            raise NotRowwise
    return outs


def _long(shape: tuple[int, ...], rows: int) -> list[int]:
    return [axis for axis, size in enumerate(shape) if size == rows]


# ---------------------------------------------------------------- entry by entry, and axes that
# move


def _unknown(op: Operation) -> Axis:
    if any(axis is not None for axis in op.ins):
        raise NotRowwise
    return None


def _elementwise(op: Operation) -> Axis:
    """Elementwise operations; a number, or an axis of length one, is combined with all rows."""
    axes = {axis for axis in op.ins if axis is not None}
    axis = next(iter(axes), None)
    lengths = {shape[axis] for shape in op.shapes if shape} if axis is not None else set()
    if len(axes) > 1 or lengths - {1, op.rows}:
        raise NotRowwise
    return axis


def _moved(axis: Axis, where: Callable[[int], int | None]) -> Axis:
    """Moved axes; the axis of the rows must not vanish."""
    to = None if axis is None else where(axis)
    if axis is not None and to is None:
        raise NotRowwise
    return to


def _axis_unless(axis: Axis, changed: set[int]) -> Axis:
    """The array after an operation along the axes ``changed``, none of which may be that of the
    rows.
    """
    return _moved(axis, lambda position: None if position in changed else position)


def _without(axis: Axis, gone: set[int]) -> Axis:
    return _moved(
        axis,
        lambda position: (
            None if position in gone else position - sum(other < position for other in gone)
        ),
    )


def _broadcast(op: Operation) -> Axis:
    """A copy for each row is an array along the rows."""
    to = [int(axis) for axis in op.params["broadcast_dimensions"]]
    if op.ins[0] is not None:
        return to[op.ins[0]]
    fresh = [
        axis
        for axis in _long(op.out, op.rows)
        if axis not in to or op.shapes[0][to.index(axis)] == 1
    ]
    return fresh[0] if len(fresh) == 1 else None


def _reshape(op: Operation) -> Axis:
    if op.params["dimensions"] is not None:
        raise NotRowwise

    def where(position: int) -> int | None:
        """The axis of the same length with the same number of entries before it."""
        before = int(np.prod(op.shapes[0][:position]))
        same = (axis for axis in _long(op.out, op.rows) if int(np.prod(op.out[:axis])) == before)
        return next(same, None)

    return _moved(op.ins[0], where)


def _squeeze(op: Operation) -> Axis:
    return _without(op.ins[0], {axis % len(op.shapes[0]) for axis in op.params["dimensions"]})


def _transpose(op: Operation) -> Axis:
    return _moved(op.ins[0], lambda position: op.params["permutation"].index(position))


def _reduce(op: Operation) -> Axis:
    return _without(op.ins[0], set(op.params["axes"]))


def _along_one(op: Operation) -> Axis:
    """Cumulation, splitting and choosing along one axis."""
    rank = len(op.shapes[0])
    return _axis_unless(op.ins[0], {op.params.get("axis", rank - 1) % rank})


def _sort(op: Operation) -> Axis:
    return _axis_unless(_elementwise(op), {op.params["dimension"]})


def _concatenate(op: Operation) -> Axis:
    return _axis_unless(_elementwise(op), {op.params["dimension"]})


def _stack(op: Operation) -> Axis:
    return _moved(_elementwise(op), lambda position: position + (position >= op.params["axis"]))


def _unstack(op: Operation) -> Axis:
    return _without(op.ins[0], {op.params["axis"]})


def _slice(op: Operation) -> Axis:
    strides = op.params["strides"] or [1] * len(op.out)
    changed = (
        a != b or step != 1 for a, b, step in zip(op.shapes[0], op.out, strides, strict=True)
    )
    return _axis_unless(op.ins[0], {position for position, cut in enumerate(changed) if cut})


def _pad(op: Operation) -> Axis:
    grown = {position for position, config in enumerate(op.params["padding_config"]) if any(config)}
    return _axis_unless(op.ins[0], grown)


def _reverse(op: Operation) -> Axis:
    return _axis_unless(op.ins[0], set(op.params["dimensions"]))


def _tile(op: Operation) -> Axis:
    return _axis_unless(
        op.ins[0], {position for position, times in enumerate(op.params["reps"]) if times != 1}
    )


def _unchanged(op: Operation) -> list[Axis]:
    return list(op.ins)


# ---------------------------------------------------------------- entries that are looked up or put


def _gather(op: Operation) -> Axis:
    """Entries of an array that is the same for all rows, such as ``effect[group]``; entries of each
    row separately; or the same entries of every row.
    """
    (source, index) = op.ins
    numbers = op.params["dimension_numbers"]
    if source is None or source in numbers.operand_batching_dims:
        pairs = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
        if source is not None and (source, index) not in pairs:
            raise NotRowwise
        free = [axis for axis in range(len(op.out)) if axis not in numbers.offset_dims]
        return _moved(index, lambda position: free[position] if position < len(free) else None)
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    whole = op.params["slice_sizes"][source] == op.rows
    if index is not None or not whole or source in (*gone, *numbers.start_index_map):
        raise NotRowwise
    remaining = [axis for axis in range(len(op.shapes[0])) if axis not in gone]
    return numbers.offset_dims[remaining.index(source)]


def _scatter(op: Operation) -> Axis:
    """The same entries of every row are changed, each row by its own update."""
    (target, index, update) = op.ins
    numbers = op.params["dimension_numbers"]
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = [axis for axis in range(len(op.shapes[0])) if axis not in gone]
    if target is None and index is None and update is None:
        return None
    if index is not None or target not in window or target in numbers.scatter_dims_to_operand_dims:
        raise NotRowwise
    if update != numbers.update_window_dims[window.index(target)]:
        raise NotRowwise
    return target


def _dynamic_slice(op: Operation) -> Axis:
    if any(index is not None for index in op.ins[1:]):
        raise NotRowwise
    cut = {position for position, size in enumerate(op.shapes[0]) if op.out[position] != size}
    return _axis_unless(op.ins[0], cut)


def _dynamic_update_slice(op: Operation) -> Axis:
    target, update, *indices = op.ins
    if target != update or any(index is not None for index in indices):
        raise NotRowwise
    return target


# ---------------------------------------------------------------- matrices


def _dot(op: Operation) -> Axis:
    (left_sum, right_sum), (left_batch, right_batch) = op.params["dimension_numbers"]
    left, right = op.ins

    def remaining(side: int, summed: Tree, batch: Tree) -> list[int]:
        return [axis for axis in range(len(op.shapes[side])) if axis not in (*summed, *batch)]

    of_left = remaining(0, left_sum, left_batch)
    of_right = [*right_batch, *[None] * len(of_left), *remaining(1, right_sum, right_batch)]
    if left is not None and right is not None:
        if (left, right) not in zip(left_batch, right_batch, strict=True):
            raise NotRowwise
    elif left in tuple(left_batch) or right in tuple(right_batch):
        raise NotRowwise
    places = [*left_batch, *of_left] if left is not None else of_right
    return _moved(
        right if left is None else left,
        lambda position: places.index(position) if position in places else None,
    )


def _of_last(op: Operation, count: int) -> Axis:
    """An operation on the last axes of one array, for each index of the others."""
    rank = len(op.shapes[0])
    return _axis_unless(op.ins[0], set(range(rank - count, rank)))


def _matrix(op: Operation) -> Axis:
    return _of_last(op, 2)


def _fft(op: Operation) -> Axis:
    return _of_last(op, len(op.params["fft_lengths"]))


def _triangular_solve(op: Operation) -> Axis:
    """The right-hand sides of one matrix are rows, or each row has its own matrix."""
    (matrix, sides) = op.ins
    rank = len(op.shapes[1])
    if matrix is None and sides in (None, rank - 1 if op.params["left_side"] else rank - 2):
        return sides
    if matrix is None or matrix != sides or matrix >= rank - 2:
        raise NotRowwise
    return matrix


# ---------------------------------------------------------------- branches and loops


def _cond(op: Operation) -> list[Axis]:
    """Branches of one choice for all rows."""
    first, *others = (follow(branch, op.ins[1:], op.rows) for branch in op.params["branches"])
    if op.ins[0] is not None or any(outs != first for outs in others):
        raise NotRowwise
    return first


def _check_carried(carry: list[Axis], after: list[Axis]) -> None:
    """The carried values of a loop keep their kind: shapes do not change, so an array along the
    rows stays one.
    """
    if carry != after:
        raise NotRowwise


def _while(op: Operation) -> list[Axis]:
    """A loop with one condition for all rows; or with one for each row, if ``vmap`` leaves a row
    unchanged once its condition is false.
    """
    conditions = op.params["cond_nconsts"]
    bodies = op.params["body_nconsts"]
    of_body = op.ins[conditions : conditions + bodies]
    carry = op.ins[conditions + bodies :]
    _check_carried(carry, follow(op.params["body_jaxpr"], [*of_body, *carry], op.rows))
    (going,) = follow(op.params["cond_jaxpr"], [*op.ins[:conditions], *carry], op.rows)
    if going is not None and any(axis != going for axis in carry):
        raise NotRowwise
    return carry


def _scan(op: Operation) -> list[Axis]:
    """A loop over an axis other than that of the rows; or over the rows, if nothing is carried from
    one to the next.
    """
    consts, carried = scan_counts(op.params)
    fixed = op.ins[:consts]
    carry = op.ins[consts : consts + carried]
    slices = op.ins[consts + carried :]
    body = op.params["jaxpr"]
    if op.params["length"] == op.rows:
        if carried or any(axis is not None for axis in fixed) or any(axis != 0 for axis in slices):
            raise NotRowwise
        outs = follow(body, [*fixed, *[CURRENT] * len(slices)], op.rows)
        if None in outs:
            raise NotRowwise
        return [0] * len(outs)
    axes = follow(body, [*fixed, *carry, *(_without(axis, {0}) for axis in slices)], op.rows)
    _check_carried(carry, axes[:carried])
    return [*carry, *(_moved(axis, lambda position: position + 1) for axis in axes[carried:])]


def scan_counts(params: dict[str, Tree]) -> tuple[int, int]:
    """How many constants and how many carried values a scan has."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # jax 0.12
    return len(list(consts)), len(list(carry))


Rule = Callable[[Operation], Axis | list[Axis]]
UNKNOWN_RULE: tuple[Rule, frozenset[str]] = (_unknown, frozenset())
SCATTER_PARAMETERS = (
    "dimension_numbers indices_are_sorted mode unique_indices update_consts update_jaxpr"
)
LOOKED_UP = "dimension_numbers fill_value indices_are_sorted mode slice_sizes unique_indices"
SCANNED = "_split_transpose ft_in ft_out jaxpr length linear num_carry num_consts reverse unroll"
REVIEWED: tuple[tuple[str, Rule, str], ...] = (
    ("argmax argmin", _reduce, "axes index_dtype"),
    ("reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum", _reduce, "axes "
    "out_sharding"),
    ("cumlogsumexp cummax cummin cumprod cumsum", _along_one, "axis reverse"),
    ("split", _along_one, "axis sizes"), ("top_k", _along_one, "axis is_stable k"),
    ("sort", _sort, "dimension is_stable num_keys"),
    ("broadcast_in_dim", _broadcast, "broadcast_dimensions shape sharding"),
    ("reshape", _reshape, "dimensions new_sizes sharding"), ("squeeze", _squeeze, "dimensions"),
    ("transpose", _transpose, "permutation"), ("concatenate", _concatenate, "dimension"),
    ("stack", _stack, "axis"), ("unstack", _unstack, "axis"),
    ("slice", _slice, "limit_indices start_indices strides"), ("pad", _pad, "padding_config"),
    ("rev", _reverse, "dimensions"), ("tile", _tile, "reps"),
    ("optimization_barrier", _unchanged, ""), ("gather", _gather, LOOKED_UP),
    ("scatter scatter-add scatter-max scatter-min scatter-mul scatter_add scatter_max "
    "scatter_min scatter_mul", _scatter, SCATTER_PARAMETERS),
    ("dynamic_slice", _dynamic_slice, "slice_sizes"),
    ("dynamic_update_slice", _dynamic_update_slice, ""),
    ("dot_general", _dot, "dimension_numbers out_sharding precision preferred_element_type"),
    ("cholesky", _matrix, "symmetrize_input"), ("lu", _matrix, ""),
    ("eigh", _matrix, "algorithm lower sort_eigenvalues subset_by_index"),
    ("fft", _fft, "fft_lengths fft_type"),
    ("triangular_solve", _triangular_solve, "conjugate_a left_side lower transpose_a "
    "unit_diagonal"),
    ("cond", _cond, "branches branches_platforms"),
    ("while", _while, "body_jaxpr body_nconsts cond_jaxpr cond_nconsts"), ("scan", _scan, SCANNED),
)  # fmt: skip
REVIEWED_PARAMETERS = {
    **{name: (_elementwise, OF_ELEMENTWISE.get(name, "")) for name in ELEMENTWISE},
    **{name: (_unknown, f"{held} {others}") for name, (held, others) in CALLS.items()},
    **{name: (rule, params) for names, rule, params in REVIEWED for name in names.split()},
}
ROW_RULES: dict[str, tuple[Rule, frozenset[str]]] = {
    name: (rule, frozenset(params.split())) for name, (rule, params) in REVIEWED_PARAMETERS.items()
}
