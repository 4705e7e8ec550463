"""The profiled quantities: parameters and functions of them, as functions ψ of the free coordinates
with two derivatives.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Function, Tree, ndarray
from jaxmle.inference.profiles.evaluator import ProfileProblem
from jaxmle.inference.profiles.geometry import ProfilePoint
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.constraints import Interval
from jaxmle.parameters.tree import Chart, Layout
from jaxmle.runtime.compile import compiled
from jaxmle.runtime.opaque import Opaque
from jaxmle.runtime.user_code import explained


class Targets(NamedTuple):
    """The quantities ψ profiled, as functions of the free coordinates; a printed entry that is
    the image of one coordinate is that coordinate.
    """

    names: tuple[str, ...]
    coordinate: ndarray  # (m,) the free coordinate, −1 for a function, −2 for an entry that is held
    entry: ndarray  # (m,) the printed entry, −1 for a function of the user's
    scales: tuple[Interval, ...]  # the map from ψ to the quantity printed
    # (z (j, k), chosen (j, m)) → value, gradient, second derivative of each search's ψ; None where
    # there is none
    functions: Tree
    whole: bool


def targets_of(
    posed: ProfileProblem, which: str | Sequence[str] | Function | Mapping[str, Function] | None
) -> Targets:
    """The quantities requested by ``which``."""
    layout = posed.problem.layout
    chart = posed.problem.chart
    roots = np.array(posed.problem.roots)
    entries, users = _wanted(layout, which)
    follow = [int(roots[j]) if roots[j] >= 0 else -1 for j in entries]
    coordinate = [_coordinate(chart, j) for j in follow] + [-1] * len(users)
    scales = [Interval(*layout.bounds[j]) for j in entries] + [Interval()] * len(users)
    entry = follow + [-1] * len(users)
    curved = tuple(
        (entry[i], scales[i]) if coordinate[i] == -1 and entry[i] >= 0 else None
        for i in range(len(entry))
    )
    functions = _functions(posed, curved, list(users.values())) if -1 in coordinate else None
    names = (*(layout.names[j] for j in entries), *users)
    return Targets(
        names,
        np.array(coordinate, dtype=int),
        np.array(entry, dtype=int),
        tuple(scales),
        functions,
        which is None,
    )


def _wanted(
    layout: Layout, which: str | Sequence[str] | Function | Mapping[str, Function] | None
) -> tuple[list[int], dict[str, Function]]:
    """Printed entries, and functions by name."""
    if which is None:
        return list(range(layout.p)), {}
    if callable(which) and not isinstance(which, type):
        return [], {getattr(which, "__name__", "g").replace("<lambda>", "g"): which}
    if isinstance(which, dict):
        for name, g in which.items():
            if not callable(g):
                raise TypeError(
                    f"which[{name!r}] must be a function of the parameters; got {type(g).__name__}"
                )
        if not which:
            raise ValueError("which is an empty dictionary: nothing to profile")
        return [], {str(name): g for name, g in which.items()}
    names = (
        [which] if isinstance(which, str) else list(which) if isinstance(which, Sequence) else []
    )
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            "which must be None, a name, a list of names, a function of the parameters "
            f"or a dictionary of functions; got {shown(which)}"
        )
    return [j for name in names for j in layout.find(name)], {}


def _coordinate(chart: Chart, entry: int) -> int:
    """The free coordinate that determines the entry; −1 if it depends on several, −2 if it is
    fixed.
    """
    if entry < 0:
        return -2
    return int(np.flatnonzero(chart.incidence[entry])[0]) if chart.own_coordinate[entry] else -1


# A printed entry and the scale of its bounds; None for a coordinate or a function.
Curved = tuple[int, Interval] | None


def _functions(
    posed: ProfileProblem, curved: tuple[Curved, ...], users: list[Function]
) -> Callable[[Array, Array], tuple[Array, ...]]:
    """Value, gradient and second derivative of the nonlinear ψ, for each search."""
    chart = posed.problem.chart
    base = posed.base
    _check_functions(chart.layout, base, users)
    if users:
        program = compiled(
            tuple(Opaque(g) for g in users),
            ("profile", chart, curved),
            lambda forms: _derivatives(chart, curved, forms),
        )
    else:
        program = _entries(chart, curved)

    def evaluate(z: Array, chosen: Array) -> tuple[Array, ...]:
        size = 1 << max(0, (len(z) - 1).bit_length())  # few shapes

        def pad(a: Array) -> ndarray:
            return np.concatenate([a, np.repeat(a[:1], size - len(a), axis=0)])

        return tuple(np.asarray(leaf)[: len(z)] for leaf in program(pad(z), base, pad(chosen)))

    return evaluate


def _check_functions(layout: Layout, base: Array, users: list[Function]) -> None:
    """Raise unless a function to profile returns one real number."""
    params = layout.unravel(jnp.asarray(base))
    for g in users:
        with explained(params, {}, "a function to profile takes one argument, params"):
            result = jax.eval_shape(g, params)
        if getattr(result, "shape", None) != () or not jnp.issubdtype(result.dtype, jnp.floating):
            returned = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", result)
            raise ValueError(
                "a function to profile must return one real number; "
                f"{getattr(g, '__name__', 'g')} returns {returned}"
            )


@functools.lru_cache(maxsize=64)
def _entries(chart: Chart, curved: tuple[Curved, ...]) -> Function:
    """The compiled derivatives of printed entries alone, without a function of the user."""
    return jax.jit(_derivatives(chart, curved, ()))


def _derivatives(chart: Chart, curved: tuple[Curved, ...], forms: Tree) -> Function:
    """(z (j, k), base (p,), chosen (j, m)) → value, gradient, second derivative of the ψ that
    is chosen, a row of the unit matrix.
    """

    def psi(z: Array, base: Array, chosen: Array) -> Array:
        x = chart.to_user(z, base)
        entries = [
            jnp.zeros(()) if c is None else c[1].to_free(x[c[0]], ())
            for c in curved[: len(curved) - len(forms)]
        ]
        params = chart.layout.unravel(x)
        values = jnp.stack([*entries, *(jnp.asarray(form.function(params)) for form in forms)])
        return jnp.sum(jnp.where(chosen > 0, values, 0.0))

    def all_three(z: Array, base: Array, chosen: Array) -> tuple[Array, Array, Array]:
        return (
            psi(z, base, chosen),
            jax.grad(psi)(z, base, chosen),
            jax.hessian(psi)(z, base, chosen),
        )

    return jax.vmap(all_three, in_axes=(0, None, 0))


class Searches(NamedTuple):
    """The searches for endpoints: member, quantity and side of each, (m,)."""

    member: ndarray
    target: ndarray
    side: ndarray


def profile_point(
    posed: ProfileProblem,
    targets: Targets,
    searches: Searches,
    values: tuple[ndarray, ...],
    z: ndarray,
) -> ProfilePoint:
    """The likelihood at a point of each search, with the ψ of that search."""
    value, noise, score, hessian = values
    coordinate = targets.coordinate[searches.target]
    rows = np.arange(len(z))
    moving = np.maximum(coordinate, 0)
    psi = z[rows, moving]
    gradient = np.zeros_like(z)
    gradient[rows, moving] = 1.0
    if targets.functions is None or not (coordinate < 0).any():
        return ProfilePoint(value, noise, score, hessian, psi, gradient, None)
    psi_hessian = np.zeros_like(hessian)
    curved = np.flatnonzero(coordinate < 0)
    chosen = np.eye(len(targets.names))[searches.target[curved]]
    psi = psi.copy()
    psi[curved], gradient[curved], psi_hessian[curved] = targets.functions(z[curved], chosen)
    return ProfilePoint(value, noise, score, hessian, psi, gradient, psi_hessian)
