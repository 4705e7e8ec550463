"""First-order methods that approach a maximum: optax transformations, run unchanged, and Newton's
direction as an optax transformation.

optax is imported by whoever uses it: that takes a tenth as long as all of jax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxmle._types import Array, Tree
from jaxmle.solvers.linalg import metric_of
from jaxmle.solvers.methods import LBFGS, Optax, Solver
from jaxmle.solvers.newton_step import newton_step
from jaxmle.solvers.state import Point, is_finite, noise_of, null_cut
from jaxmle.solvers.trust_region import DECREMENT_TO_POLISH

if TYPE_CHECKING:
    import optax

DECREMENT_OF_QUADRATIC_RANGE = (
    1e-2  # decrement (0.14 SE) from which Newton's steps converge without care
)
MAX_IDLE_STEPS = 20  # of L-BFGS without a gain, after which it ends


Curvatures = Callable[[Array], dict[str, Array]]


class Ascent(NamedTuple):
    """The state of a first-order method: its point and what its next step needs."""

    z: Array  # (k,)
    state: Tree  # of the optax transformation
    best: Array  # (k,) the point of the lowest −ℓ among those that were evaluated
    lowest: Array  # () −ℓ there
    steps: Array  # ()
    idle: Array  # () steps since ``lowest`` fell
    decrement: Array  # () −g'd/2 at the last step, d the full quasi-Newton step; else infinite
    ended: Array  # () whether the method is near the maximum, or gains no more


def ascent_from(solver: Solver | None, z: Array) -> Ascent:
    """The method before its first step, at z (k,)."""
    transformation, _ = _transformation_of(solver)
    count = jnp.zeros((), jnp.int32)
    infinite = jnp.asarray(jnp.inf, z.dtype)
    state = transformation.init(z)
    return Ascent(z, state, z, infinite, count, count, infinite, jnp.zeros((), bool))


def ascend(
    solver: Solver | None,
    value: Callable[[Array], Array],
    evaluate: Callable[[Array], Point],
    curvatures: Curvatures,
    ascent: Ascent,
    limit: Array | int,
) -> Ascent:
    """The state after ``limit`` steps in all, or when the method has ended. Minimises −ℓ.

    ``curvatures(z)`` gives the matrices ``hessian``, ``expected`` and ``opg`` of −ℓ to
    transformations that read them; what a transformation does not read is never computed.
    """
    import optax

    transformation, every = _transformation_of(solver)

    def loss(
        z: Array,
        hessian: Array | None = None,
        expected: Array | None = None,
        opg: Array | None = None,
    ) -> Array:
        return -value(z)  # optax's line searches hand every extra argument on, by name

    slope = (
        optax.value_and_grad_from_state(loss)
        if every is None
        else (lambda z, state: jax.value_and_grad(loss)(z))
    )

    def advance(carry: Ascent) -> Ascent:
        z, state, best, lowest, steps, idle, *_ = carry
        grad: Tree
        now, grad = slope(z, state=state)
        extra = curvatures(z) if every is not None else {}
        updates: Tree
        updates, state = transformation.update(
            grad, state, z, value=now, grad=grad, value_fn=loss, **extra
        )
        improved = now < lowest
        best = jnp.where(improved, z, best)
        lowest = jnp.minimum(now, lowest)
        idle = jnp.where(improved, 0, idle + 1)
        decrement: Array = jnp.asarray(jnp.inf, z.dtype)
        near: Array
        if every is None:
            decrement = _decrement(grad, updates, state)
            near = (decrement <= DECREMENT_TO_POLISH) | (idle > MAX_IDLE_STEPS)
        else:
            near = _is_near(evaluate, z, steps, every) | ~jnp.isfinite(now)
        moved: Tree = optax.apply_updates(z, updates)
        return Ascent(moved, state, best, lowest, steps + 1, idle, decrement, near)

    def cast(carry: Ascent) -> Ascent:
        return jax.tree.map(
            lambda new, old: jnp.asarray(new).astype(jnp.asarray(old).dtype), advance(carry), carry
        )

    return jax.lax.while_loop(lambda carry: (carry.steps < limit) & ~carry.ended, cast, ascent)


def _decrement(grad: Array, updates: Array, state: Tree) -> Array:
    """The quasi-Newton decrement −g'd/2, in units of ℓ like Newton's. The factor of the line search
    is divided out, because a failed line search makes any step short.
    """
    length = state[-1].learning_rate
    return 0.5 * jnp.abs(jnp.vdot(grad, updates)) / jnp.where(length > 0, length, jnp.nan)


def highest(value: Callable[[Array], Array], ascent: Ascent) -> Array:
    """The best point (k,) that a first-order method has visited, including the last one."""
    last_is_better = value(ascent.z) > -ascent.lowest
    return jnp.where(last_is_better, ascent.z, ascent.best)


def approach(
    solver: Solver | None,
    value: Callable[[Array], Array],
    evaluate: Callable[[Array], Point],
    curvatures: Curvatures,
    z: Array,
) -> tuple[Array, Array]:
    """The best point that a first-order method visits from z (k,), and the steps it took."""
    start = ascent_from(solver, z)
    end = ascend(solver, value, evaluate, curvatures, start, cast(LBFGS, solver).steps)
    return highest(value, end), end.steps


def _transformation_of(
    solver: Solver | None,
) -> tuple[optax.GradientTransformationExtraArgs, int | None]:
    """The optax transformation of a solver, and the number of steps between two looks at the
    decrement; None if the transformation reports its own decrement.
    """
    import optax

    if isinstance(solver, LBFGS):
        return optax.lbfgs(memory_size=solver.memory), None
    given = cast(Optax, solver)
    return optax.with_extra_args_support(given.transformation), given.check_every


def _is_near(evaluate: Callable[[Array], Point], z: Array, steps: Array, every: int) -> Array:
    def look(z: Array) -> Array:
        point = evaluate(z)
        newton = newton_step(
            -point.hessian,
            point.score,
            metric_of(point.hessian, point.score),
            null_cut(point),
            jnp.sqrt(noise_of(point)),
        )
        return is_finite(point) & newton.convex & (newton.decrement <= DECREMENT_OF_QUADRATIC_RANGE)

    return jax.lax.cond(steps % every == every - 1, look, lambda z: jnp.zeros((), bool), z)


def _direction(name: str, source: str) -> optax.GradientTransformationExtraArgs:
    import optax

    def update(updates: Tree, state: Tree, params: Tree = None, **extra: Tree) -> tuple[Tree, Tree]:
        if extra.get(source) is None:
            raise ValueError(
                f"{name}() needs {source}= in update: a (k, k) matrix of the loss at the parameters"
            )
        flat, unravel = ravel_pytree(updates)
        return unravel(-jnp.linalg.solve(extra[source], flat)), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def newton() -> optax.GradientTransformationExtraArgs:
    """Newton's direction −(∇²L)⁻¹∇L as an optax transformation; ``update`` takes ``hessian=`` (k,
    k), the Hessian of the loss L.

    It only gives a direction, because optax cannot reject a step. It can be followed by ``scale``
    or, as in ``optax.chain(newton(), optax.clip_by_global_norm(1.0))``, by clipping, but not by a
    line search.

    >>> import jax.numpy as jnp
    >>> from jaxmle import solvers
    >>> direction = solvers.newton()
    >>> state = direction.init(jnp.zeros(1))
    >>> direction.update(jnp.array([6.0]), state, hessian=jnp.array([[2.0]]))[0].tolist()
    [-3.0]
    """
    return _direction("newton", "hessian")


def scoring() -> optax.GradientTransformationExtraArgs:
    """Fisher's scoring direction; ``update`` takes ``expected=`` (k, k), the expected
    information.

    >>> import jax.numpy as jnp
    >>> from jaxmle import solvers
    >>> direction = solvers.scoring()
    >>> state = direction.init(jnp.zeros(1))
    >>> direction.update(jnp.array([6.0]), state, expected=jnp.array([[2.0]]))[0].tolist()
    [-3.0]
    """
    return _direction("scoring", "expected")


def bhhh() -> optax.GradientTransformationExtraArgs:
    """The BHHH direction; ``update`` takes ``opg=`` (k, k), the outer product of scores.

    >>> import jax.numpy as jnp
    >>> from jaxmle import solvers
    >>> direction = solvers.bhhh()
    >>> state = direction.init(jnp.zeros(1))
    >>> direction.update(jnp.array([6.0]), state, opg=jnp.array([[2.0]]))[0].tolist()
    [-3.0]
    """
    return _direction("bhhh", "opg")
