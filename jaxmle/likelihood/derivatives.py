"""Derivatives of a user's function if jax has no forward mode, or no reverse mode, for a part of
it.

A ``custom_vjp`` has a reverse rule only; whether that can be differentiated again depends on what
the rule calls. A ``while_loop`` whose length depends on its data has a forward mode only. A missing
mode shows up while tracing, as an error raised by jax. So the usual order of modes is tried first,
at no extra cost, and others only if it fails. The result says which one was used.

Differences of the score come last, and they always exist: they need only the score, and the scores
of rows exist in the same mode as their sum, forward or reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr

from jaxmle._types import Array, Function, Tree
from jaxmle.parameters.arguments import first_line
from jaxmle.runtime.calls import programs_in
from jaxmle.runtime.modes import no_mode

FORWARD_OVER_REVERSE = "forward over reverse"
REVERSE_OVER_REVERSE = "reverse over reverse"
FORWARD_OVER_FORWARD = "forward over forward"
DIFFERENCES = "differences of the score"
# In order of preference.
DIFFERENTIATION_MODES = (
    FORWARD_OVER_REVERSE,
    REVERSE_OVER_REVERSE,
    FORWARD_OVER_FORWARD,
    DIFFERENCES,
)
# How jax 0.8 to 0.12 says that a mode does not exist for an operation.
SIGNS_OF_A_MISSING_MODE = (
    "can't apply forward-mode",
    "do not support JVP",
    "Reverse-mode differentiation does not work",
    "ifferentiation rule for",
    "ranspose rule (for reverse-mode differentiation)",
    "cannot be autodifferentiated",  # of equinox
    # jax 0.8's while_loop, forward over reverse
    "unsupported operand type(s) for +: 'NoneType' and 'tuple'",
)
REFUSAL = "jax cannot differentiate this likelihood"
# The step of a difference in standard errors of one coordinate: eight times the fifth root of the
# unit roundoff, 0.006 in double precision. With the differences over 1, 2 and 4 steps extrapolated,
# this leaves an error near 1e-11 at 50 rows, and distinguishes noise of 1e-8 in a score from
# curvature.
STEP_IN_ROOTS_OF_ROUNDOFF = 8.0
DIFFERENCE_STEPS = (-4.0, -2.0, -1.0, 1.0, 2.0, 4.0)
# rounding that two extrapolations share is not part of their difference: in one case a quarter of
# it was seen
SAFETY_OF_THE_ERROR = 4.0
# The last round gives the differences, those before it the scale of each coordinate.
ROUNDS_FOR_THE_STEP = 4
SHRINK_OUTSIDE_THE_DOMAIN = 1 / 32  # of a step whose end has no finite score


@partial(jax.tree_util.register_dataclass, data_fields=["error"], meta_fields=["method"])
@dataclass(frozen=True)
class Differentiation:
    """How a Hessian was computed if not by the usual modes; static except for its error."""

    method: str
    error: Array | None  # (p, p) measured absolute error of each entry; None where it is rounding


class SecondOrder(NamedTuple):
    """Value, its companion, gradient and Hessian of a function at x (p,)."""

    value: Array  # ()
    absolute: Array  # ()
    gradient: Array  # (p,)
    hessian: Array  # (p, p)
    hessian_by: Differentiation | None  # None: forward over reverse


def lacks_mode(error: BaseException) -> bool:
    """Whether an error of jax says that an operation cannot be differentiated in the mode asked
    for.
    """
    return any(sign in str(error) for sign in SIGNS_OF_A_MISSING_MODE)


def first_that_exists(
    methods: Sequence[Callable[[], Tree]], function: Function, *args: Tree
) -> Tree:
    """The result of the first function that jax can differentiate.

    Raises:
        TypeError: if no mode exists; it names the parts of ``function(*args)`` that have their own
            rules.
    """
    errors = []
    for method in methods:
        try:
            return method()
        except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
            if not lacks_mode(error):
                raise
            errors.append(error)
    refused = [error for error in errors if str(error).startswith(REFUSAL)]
    raise refused[0] if refused else TypeError(_refusal(errors[0], function, *args)) from errors[0]


def _refusal(error: BaseException, function: Function, *args: Tree) -> str:
    names = sorted(set(_custom_rules(function, *args)))
    parts = ", ".join(names) if names else "a part of it"
    return (
        f"{REFUSAL} as is needed here: {parts} has no rule for it ({first_line(error)}). Give a "
        "function outside jax (pure_callback) a reverse rule with jax.custom_vjp; write "
        "a rule that must itself be differentiated with functions that jax can "
        "differentiate; or write a loop with lax.scan, or its result by the implicit "
        "function theorem (jax.lax.custom_root)."
    )


def _custom_rules(function: Function, *args: Tree) -> Iterator[str]:
    """The names of the operations in a function that have their own rules, or none."""

    def calls(jaxpr: Jaxpr) -> Iterator[str]:
        for equation in jaxpr.eqns:
            kind = equation.primitive.name
            if kind.startswith("custom_vjp"):
                yield f"the custom_vjp function {equation.params.get('name', '')!r}"
            elif kind in ("pure_callback", "io_callback", "while"):
                yield f"a {kind.replace('while', 'while_loop')}"
            for inner in programs_in(equation):
                yield from calls(inner)

    try:
        program = jax.make_jaxpr(function)(*args).jaxpr
    except Exception:  # a function that fails under differentiation may raise anything here too
        return  # without names the caller's message is shorter
    yield from calls(program)


@jax.custom_jvp
def without_derivative(tree: Tree) -> Tree:
    """The tree itself, marked as not differentiable: asking for its derivative raises a named
    error.
    """
    return tree


@without_derivative.defjvp
def _no_derivative(primals: Tree, tangents: Tree) -> Tree:
    raise TypeError(
        "a fit whose Hessian is computed by differences of the score cannot be "
        "differentiated itself: a part of the likelihood has a reverse rule that jax "
        "cannot differentiate again. Write that rule with functions that jax can "
        "differentiate, or take differences of whole fits."
    )


# ---------------------------------------------------------------- first derivatives


def gradient(function: Function) -> Function:
    """The gradient of a scalar function of one tree, by reverse mode or else by forward mode."""

    def slope(x: Array) -> Tree:
        return first_that_exists(
            (lambda: jax.grad(function)(x), lambda: jax.jacfwd(function)(x)), function, x
        )

    return slope


def value_and_gradient(function: Function) -> Function:
    """The value and the gradient of a scalar function of one tree, by reverse mode or else by
    forward mode.
    """

    def value_and_slope(x: Array) -> tuple[Array, Tree]:
        def forward() -> tuple[Array, Tree]:
            def doubled(x: Array) -> tuple[Array, Array]:
                value = function(x)
                return value, value

            slope, value = jax.jacfwd(doubled, has_aux=True)(x)
            return value, slope

        return first_that_exists((lambda: jax.value_and_grad(function)(x), forward), function, x)

    return value_and_slope


def curvature_along(function: Callable[[Array], Array], x: Array, directions: Array) -> Array:
    """Σ_k ∂²function/∂x∂x (d_k, d_k) for directions (k, p), of a function from x (p,) to an array:
    forward over forward mode, else from the Jacobian of the Jacobian.
    """

    def along(d: Array) -> Array:
        return jax.jvp(lambda x: jax.jvp(function, (x,), (d,))[1], (x,), (d,))[1]

    def whole() -> Array:
        second = row_hessians(lambda x: jnp.reshape(jacobian(function, x), (-1, x.shape[0])), x)
        curvatures = jnp.einsum("npq,kp,kq->n", second, directions, directions)
        return jnp.reshape(curvatures, jax.eval_shape(function, x).shape)

    forward = lambda: jnp.sum(jax.vmap(along)(directions), axis=0)  # noqa: E731
    return first_that_exists((forward, whole), function, x)


def jacobian(function: Callable[[Array], Array], x: Array) -> Array:
    """∂function/∂x, (…, p), of a function from x (p,) to an array.

    Forward mode takes one pass for each parameter. If it does not exist, the reverse rule is
    transposed, which again takes one pass for each parameter, whatever rows an entry depends on; if
    that rule cannot be transposed, there is one reverse pass for each entry.
    """
    return first_that_exists(
        (
            lambda: jax.jacfwd(function)(x),
            lambda: _by_transposition(function, x),
            lambda: _by_entries(function, x),
        ),
        function,
        x,
    )


def _by_transposition(function: Callable[[Array], Array], x: Array) -> Array:
    """The reverse rule u ↦ J'u is linear in u: its transpose is v ↦ Jv."""
    out, pull_back = jax.vjp(function, x)
    try:
        push_forward = jax.linear_transpose(lambda u: pull_back(u)[0], out)
        push_forward(jnp.zeros_like(x))
    except AssertionError:  # so jax says that a loop in the rule is not linear
        raise no_mode("a reverse rule") from None
    return jnp.moveaxis(
        jax.vmap(lambda v: push_forward(v)[0])(jnp.eye(x.shape[0], dtype=x.dtype)), 0, -1
    )


def matrix_of(linear: Callable[[Array], Array], x: Array, method: str | None) -> Array:
    """The matrix (q, p) of a linear map from x (p,) to (q,), part of a derivative of the score, by
    columns or, where the Hessian is of reverse mode only, by rows.

    Newer versions of jax raise for a missing mode when compiling, not when tracing; so the method
    of the Hessian decides.
    """
    if method != REVERSE_OVER_REVERSE:
        return jax.jacfwd(linear)(jnp.zeros_like(x))
    shape = jax.eval_shape(linear, x)
    transposed = jax.linear_transpose(linear, x)
    return jax.vmap(lambda e: transposed(e)[0])(jnp.eye(shape.size, dtype=shape.dtype))


def _by_entries(function: Callable[[Array], Array], x: Array) -> Array:
    """One reverse pass for each entry, one after the other, because a callback may not accept many
    points at once.
    """
    out, pull_back = jax.vjp(function, x)

    def row(i: Array) -> Array:
        return pull_back(jnp.zeros(out.size, out.dtype).at[i].set(1.0).reshape(out.shape))[0]

    return jax.lax.map(row, jnp.arange(out.size)).reshape(*out.shape, x.shape[0])


# ---------------------------------------------------------------- second derivatives


def second_order(function: Callable[[Array], tuple[Array, Array]], x: Array) -> SecondOrder:
    """Value, gradient and Hessian of ``function``, which returns its value and a companion, by the
    first of ``METHODS`` that exists.
    """

    def by(
        differentiate: Function, slope: Function, method: str | None
    ) -> Callable[[], SecondOrder]:
        def derivatives() -> SecondOrder:
            hessian, (value, absolute, score) = differentiate(slope, has_aux=True)(x)
            how = None if method is None else Differentiation(method, None)
            return SecondOrder(value, absolute, score, hessian, how)

        return derivatives

    reverse = _reverse(function)
    forward = _forward(function)
    return first_that_exists(
        (
            by(jax.jacfwd, reverse, None),
            by(jax.jacrev, reverse, REVERSE_OVER_REVERSE),
            by(jax.jacfwd, forward, FORWARD_OVER_FORWARD),
            lambda: _by_differences(reverse, x),
            lambda: _by_differences(forward, x),
        ),
        function,
        x,
    )


def _reverse(function: Function) -> Function:
    """x ↦ (gradient, (value, companion, gradient)) by reverse mode."""

    def slope(x: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        (value, absolute), score = jax.value_and_grad(function, has_aux=True)(x)
        return score, (value, absolute, score)

    return slope


def _forward(function: Function) -> Function:
    """x ↦ (gradient, (value, companion, gradient)) by forward mode."""

    def slope(x: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        def doubled(x: Array) -> tuple[Array, tuple[Array, Array]]:
            values = function(x)
            return values[0], values

        score, (value, absolute) = jax.jacfwd(doubled, has_aux=True)(x)
        return score, (value, absolute, score)

    return slope


def _by_differences(slope: Function, x: Array) -> SecondOrder:
    """The Hessian by central differences of the gradient, with their error."""

    def score_at(x: Array) -> tuple[Array, Array]:
        score, (value, absolute, _) = slope(x)
        return score, jnp.stack([value, absolute])

    (score, (value, absolute)), columns, error = central_differences(score_at, x)
    hessian = 0.5 * (columns + columns.T)
    asymmetric = 0.5 * jnp.abs(columns - columns.T)
    error = jnp.maximum(error, error.T) + asymmetric
    return SecondOrder(value, absolute, score, hessian, Differentiation(DIFFERENCES, error))


def central_differences(
    function: Callable[[Array], tuple[Array, Tree]], x: Array, score_of: Function = lambda out: out
) -> tuple[tuple[Array, Tree], Array, Array]:
    """∂function/∂x_j by Richardson's extrapolation of central differences, (p, …), and the error,
    the difference of two extrapolations.

    The steps are a fraction of the scale 1/√|H_jj| of each coordinate, which the rounds before the
    last determine. All evaluations are one call in the program, one after the other: such functions
    take long to compile, and a callback may not accept many points at once.

    Args:
        function: from x (p,) to the quantity to differentiate, and anything else wanted at x.
        score_of: from that quantity to the score (p,).

    Returns:
        ``function(x)``, the derivatives and their error.

    Source: Ridders (1982), Advances in Engineering Software 4, 75–76.
    """
    eps = np.finfo(x.dtype).eps
    share = STEP_IN_ROOTS_OF_ROUNDOFF * eps**0.2
    size = jnp.where(x != 0, jnp.abs(x), 1.0)

    def measure(carry: tuple[Tree, ...]) -> tuple[Tree, ...]:
        unit, most, *_ = carry
        centre, ends = _moved(function, x, share * unit)
        finite = jnp.all(jnp.isfinite(jax.vmap(jax.vmap(score_of))(ends)), axis=(0, 2))
        columns, error = _extrapolated(ends, x, share * unit)
        curvature = jnp.abs(jnp.diagonal(jax.vmap(score_of)(columns)))
        most = jnp.where(finite, most, SHRINK_OUTSIDE_THE_DOMAIN * unit)
        unit = jax.lax.rsqrt(jnp.maximum(curvature, jnp.finfo(x.dtype).tiny))
        unit = jnp.minimum(jnp.where(finite & jnp.isfinite(unit), unit, most), most)
        return unit, most, centre, columns, error

    # The first step is the cube root of the roundoff of a coordinate's own size, that of a
    # difference whose scale is not known.
    initial = (eps ** (1 / 3) / (4 * share) * size, jnp.maximum(size, 1.0) / eps**0.5)
    shapes = jax.eval_shape(lambda initial: measure(initial)[2:], initial)
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    _, _, *results = jax.lax.fori_loop(
        0, ROUNDS_FOR_THE_STEP, lambda _, carry: measure(carry), (*initial, *blank)
    )
    return tuple(results)


def _extrapolated(ends: Array, x: Array, step: Array) -> tuple[Array, Array]:
    """The derivatives, (p, …), from the function at the moved points (6, p, …), and their error."""

    def difference(back: int, ahead: int, times: float) -> Array:
        width = (x + times * step) - (x - times * step)  # as they were rounded
        return (ends[ahead] - ends[back]) / width.reshape(-1, *(1,) * (ends.ndim - 2))

    whole, double, fourfold = (difference(2 - i, 3 + i, DIFFERENCE_STEPS[3 + i]) for i in range(3))
    fine = (4 * whole - double) / 3
    coarse = (4 * double - fourfold) / 3
    return fine, SAFETY_OF_THE_ERROR * jnp.abs(fine - coarse)


def _moved(
    function: Callable[[Array], tuple[Array, Tree]], x: Array, step: Array
) -> tuple[tuple[Array, Tree], Array]:
    """``function`` at x; and its first result with each coordinate moved by each multiple in
    ``DIFFERENCE_STEPS`` of its step, (6, p, …), one call after the other.
    """
    p = x.shape[0]
    points = [x[None, :], *(x[None, :] + jnp.diag(times * step) for times in DIFFERENCE_STEPS)]
    values = jax.lax.map(function, jnp.concatenate(points))
    ends = values[0][1:]
    return jax.tree.map(lambda leaf: leaf[0], values), ends.reshape(
        len(DIFFERENCE_STEPS), p, *ends.shape[1:]
    )


def row_hessians(scores_at: Callable[[Array], Array], x: Array) -> Array:
    """∂scores/∂x, (n, p, p), of scores (n, p), by the modes of ``jacobian``, else by
    differences.
    """

    def by_differences() -> Array:
        def with_nothing(x: Array) -> tuple[Array, tuple[()]]:
            return scores_at(x), ()

        _, columns, _ = central_differences(with_nothing, x, lambda rows: jnp.sum(rows, axis=0))
        hessians = jnp.moveaxis(columns, 0, -1)
        return 0.5 * (hessians + jnp.swapaxes(hessians, -1, -2))

    return first_that_exists(
        (lambda: jacobian(scores_at, x), by_differences), lambda x: jnp.sum(scores_at(x)), x
    )


def joined(*parts: Differentiation | None) -> Differentiation | None:
    """How a sum of Hessians was computed: by the last of ``METHODS`` among its parts, with the sum
    of their errors.
    """
    known = [part for part in parts if part is not None]
    if not known:
        return None
    errors = [part.error for part in known if part.error is not None]
    method = max((part.method for part in known), key=DIFFERENTIATION_MODES.index)
    return Differentiation(method, sum(errors[1:], errors[0]) if errors else None)


def derivatives_by_rows(
    terms: Callable[[tuple[Array, ...]], Array],
    etas: tuple[Array, ...],
    axes: tuple[int | None, ...],
) -> tuple[Array, list[Array], list[list[Array]]]:
    """Terms (n,), their gradient, m of (n,), and Hessian, m by m of (n,), in the predictors
    ``etas``.

    Where rows are independent, a step of all rows along one predictor gives the derivative of each
    row: Jacobian-vector products, forward over forward (Griewank & Walther 2008, Evaluating
    Derivatives, §3.1).

    Args:
        terms: from the predictors to (n,).
        etas: (n,) or (n, K), and () or (K,) where they are constant.
        axes: 0, or None where a predictor is constant.
    """
    directions: list[tuple[int, Array]] = []
    for a, (eta, axis) in enumerate(zip(etas, axes, strict=True)):
        steps = (
            [jnp.ones_like(eta)]
            if eta.ndim == (axis is not None)
            else [jnp.zeros_like(eta).at[..., k].set(1.0) for k in range(eta.shape[-1])]
        )
        directions += [(a, step) for step in steps]

    def along(
        function: Callable[[tuple[Array, ...]], Array], a: int, step: Array
    ) -> Callable[[tuple[Array, ...]], Array]:
        return lambda etas: jax.jvp(
            lambda eta: function((*etas[:a], eta, *etas[a + 1 :])), (etas[a],), (step,)
        )[1]

    slopes = [along(terms, *direction) for direction in directions]
    lower = [
        [along(slope, *direction)(etas) for direction in directions[: a + 1]]
        for a, slope in enumerate(slopes)
    ]
    return (
        terms(etas),
        [slope(etas) for slope in slopes],
        [
            [lower[max(a, b)][min(a, b)] for b in range(len(directions))]
            for a in range(len(directions))
        ],
    )
