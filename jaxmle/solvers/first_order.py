"""First-order roads to the neighbourhood of a maximum: optax transformations, run as they are,
and Newton's direction in optax's form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxmle._types import Array
from jaxmle.solvers.linalg import metric_of
from jaxmle.solvers.methods import LBFGS
from jaxmle.solvers.newton_step import newton_step
from jaxmle.solvers.state import Point, is_finite, noise_of, null_cut
from jaxmle.solvers.trust_region import DECREMENT_TO_POLISH

QUADRATIC = 1e-2  # decrement (0.14 SE) from which Newton's steps converge without care


Curvatures = Callable[[Array], dict[str, Array]]


def approach(
    solver: Any,
    value: Callable[[Array], Array],
    evaluate: Callable[[Array], Point],
    curvatures: Curvatures,
    z: Array,
) -> tuple[Array, Array]:
    """The best point that a first-order method visits from z (k,), and the steps it took. Minimises
    −ℓ.

    ``curvatures(z)`` gives the matrices ``hessian``, ``expected`` and ``opg`` of −ℓ to
    transformations that read them; what a transformation does not read is never computed.
    """
    transformation, every = _transformation_of(solver)

    def loss(z: Array, hessian: Any = None, expected: Any = None, opg: Any = None) -> Array:
        return -value(z)  # optax's line searches hand every extra argument on, by name

    slope = (
        optax.value_and_grad_from_state(loss)
        if every is None
        else (lambda z, state: jax.value_and_grad(loss)(z))
    )

    def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        z, state, best, lowest, steps, idle, _ = carry
        grad: Any
        now, grad = slope(z, state=state)
        extra = curvatures(z) if every is not None else {}
        updates: Any
        updates, state = transformation.update(
            grad, state, z, value=now, grad=grad, value_fn=loss, **extra
        )
        improved = now < lowest
        best = jnp.where(improved, z, best)
        lowest = jnp.minimum(now, lowest)
        # Quasi-Newton's own decrement, −g'd/2, is in units of ℓ as Newton's is.
        near = (
            0.5 * jnp.abs(jnp.vdot(grad, updates)) <= DECREMENT_TO_POLISH
            if every is None
            else _is_near(evaluate, z, steps, every)
        )
        idle = jnp.where(improved, 0, idle + 1)
        near |= (idle > 20) if every is None else ~jnp.isfinite(now)
        return optax.apply_updates(z, updates), state, best, lowest, steps + 1, idle, near

    count = jnp.zeros((), jnp.int32)
    carry = (
        z,
        transformation.init(z),
        z,
        jnp.asarray(jnp.inf, z.dtype),
        count,
        count,
        jnp.zeros((), bool),
    )

    def cast(carry: Any) -> Any:
        return jax.tree.map(
            lambda new, old: jnp.asarray(new).astype(jnp.asarray(old).dtype), advance(carry), carry
        )

    out = jax.lax.while_loop(lambda carry: (carry[4] < solver.steps) & ~carry[6], cast, carry)
    last_better = value(out[0]) > -out[3]
    return jnp.where(last_better, out[0], out[2]), out[4]


def _transformation_of(solver: Any) -> tuple[Any, int | None]:
    """A solver's optax transformation, and after how many steps the decrement is looked at; None
    where the transformation shows its own.
    """
    if isinstance(solver, LBFGS):
        return optax.lbfgs(memory_size=solver.memory), None
    return optax.with_extra_args_support(solver.transformation), solver.check_every


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
        return is_finite(point) & newton.convex & (newton.decrement <= QUADRATIC)

    return jax.lax.cond(steps % every == every - 1, look, lambda z: jnp.zeros((), bool), z)


def _direction(name: str, source: str) -> optax.GradientTransformationExtraArgs:
    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
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

    It gives a direction only, since optax cannot reject a step: ``optax.chain(newton(),
    optax.clip_by_global_norm(1.0))`` and ``scale`` after it work; line searches after it do not.

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
