"""Which estimates of a separated fit are infinite, on the host: by its recession cone if every term
of the likelihood is known to be concave, otherwise by which parameters the limit needs.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Data, Function, Loglik, Tree, ndarray
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.discovery.concavity import is_concave
from jaxmle.likelihood.histogram import uncounted
from jaxmle.likelihood.recession import is_exact, scores_at, straight, ways
from jaxmle.likelihood.structure import roots_of, term_shape
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled, to_numpy
from jaxmle.solvers.status import Status
from jaxmle.verdict.limit import DECREMENT_USABLE
from jaxmle.verdict.recession_cone import cone_of, distinct, farthest, generators
from jaxmle.verdict.separation import (
    LOCAL_CERTIFICATE,
    gaps,
    wants_cone,
    with_recession_cone,
)

MAX_ASKED = 256  # quantities whose signs in the cone are looked for, a millisecond each

# The record of one fit, after it was sent what it needs of its likelihood: ``computed`` at the
# points that it yields.
Steps = Generator[ndarray, Tree, Fit]


class FitInputs(NamedTuple):
    """What one fit was of."""

    loglik: Loglik
    roots: tuple[int, ...]  # for each printed entry the one it follows; −1 where fixed
    base: Array  # (p,) the start; what does not move has its value
    data: Data  # as the passes read them
    rows: int | None  # how many there are; None where that is not known


def with_cone(fit: Fit, inputs: FitInputs) -> Fit:
    """The record of one fit with the cone of its recession, where it is separated and has one."""
    return _at_once(cone_in_steps(fit, inputs), inputs, fit.layout)


def cone_in_steps(fit: Fit, inputs: FitInputs) -> Steps:
    """``with_cone`` for a caller that computes what it yields, of many fits at once."""
    layout = fit.layout
    _, roots, base, data, rows = inputs
    loglik = uncounted(inputs.loglik)
    if not wants_cone(fit, roots, rows) or not term_shape(loglik, layout, base, data):
        return fit
    free = straight(layout) & (np.asarray(roots) == np.arange(layout.p))
    point = np.asarray(fit.witness.point)
    # what is held is held at its limit
    held = np.where(free | ~np.isfinite(point), base, point).astype(base.dtype)
    exact = is_exact(loglik)
    concave = is_concave(loglik, layout, held, free, data)
    if not (concave or exact):
        return fit
    gradients = yield held
    if not (concave or bool(gradients.concave)):
        return fit
    return (yield from with_recession_cone(fit, roots, gradients, held, exact))


def computed(loglik: Loglik, layout: Layout, points: Array, data: Data) -> Tree:
    """What ``Steps`` need, under a trace: the recession types at a point (p,), the scores of the
    terms at several (q, p).
    """
    look = ways if points.ndim == 1 else scores_at
    return look(uncounted(loglik), layout, points, data)


def _computed_of(layout: Layout, loglik: Loglik) -> Function:
    return lambda points, data: computed(loglik, layout, points, data)


def _at_once(steps: Steps, inputs: FitInputs, layout: Layout) -> Fit:
    """The record at the end of its steps."""
    try:
        points = next(steps)
        program = compiled(inputs.loglik, ("recession", layout), partial(_computed_of, layout))
        while True:
            points = steps.send(to_numpy(program(points, inputs.data)))
    except StopIteration as end:
        return end.value


def wants_signs(fit: Fit) -> Array:
    """Whether it is still unknown which of several parameters have to be infinite in the limits of
    these fits, (b,) or ().
    """
    several = np.sum(np.asarray(fit.witness.sign) != 0, axis=-1) > 1
    by_path = np.asarray(fit.witness.certificate) == LOCAL_CERTIFICATE
    return (np.asarray(fit.status) == int(Status.SEPARATED)) & several & by_path


def with_signs(fit: Fit, inputs: FitInputs) -> Fit:
    """The record of one fit with the signs of its infinite estimates: those of the cone, or, if the
    likelihood has none, those of the parameters that the limit needs. A parameter that only moved
    along, such as a scale while a shape grows, has no estimate: resetting it to its start does not
    change the supremum.
    """
    return _at_once(signs_in_steps(fit, inputs), inputs, fit.layout)


def signs_in_steps(fit: Fit, inputs: FitInputs) -> Steps:
    """``with_signs`` for a caller that computes what it yields, of many fits at once."""
    fit = yield from cone_in_steps(fit, inputs)
    loglik, roots, base, data, _ = inputs
    point = np.asarray(fit.witness.point)
    if not wants_signs(fit) or not np.all(np.isfinite(point)):
        return fit
    (moved,) = np.nonzero(np.asarray(fit.witness.sign))
    followed = np.where(np.asarray(roots) >= 0, roots, np.arange(len(roots)))
    back = np.where(followed == moved[:, None], base, point)
    values = _values(loglik, fit.layout, np.concatenate([point[None], back]), data)
    idle = moved[values[1:] >= values[0] - DECREMENT_USABLE]
    x = np.array(fit.x)
    x[idle] = np.nan
    sign = np.array(fit.witness.sign)
    sign[idle] = 0
    return replace(
        fit, params=fit._tree(x.astype(fit.dtype)), witness=replace(fit.witness, sign=sign)
    )


def recession_rays(fit: Fit, loglik: Loglik, data: Data, toward: ndarray) -> ndarray | None:
    """Directions (q, p) of the cone along which the likelihood of a separated fit rises, in printed
    entries: the first is inside the cone, the others are its edges. They are scaled so that the
    fastest term has a slope of one. None if the cone is not known exactly.

    Args:
        loglik: the likelihood of the fit, with its weights.
        data: the rows of the fit, as arrays of its precision.
        toward: (m, p) gradients of the functions of interest: the edges are chosen so that each
            function takes on them every sign that it has in the cone.
    """
    layout = fit.layout
    roots = np.asarray(roots_of(loglik, layout))
    rows = jax.tree.leaves(data)[0].shape[0]
    if not (is_exact(loglik) and wants_cone(fit, tuple(roots), rows)):
        return None
    columns = straight(layout) & (roots == np.arange(layout.p))
    point = np.asarray(fit.witness.point)
    if not np.all(np.isfinite(point)):
        return None
    program = compiled(loglik, ("recession", layout), partial(_computed_of, layout))
    types = to_numpy(program(point.astype(fit.dtype), data))
    slopes, _ = generators(np.asarray(types.gradients, float), types.has_weight, columns)
    if not (bool(types.concave) and len(slopes)):
        return None
    slopes = distinct(np.concatenate([slopes, gaps(layout)[:, columns]]))
    cone = cone_of(slopes)
    edges = farthest(slopes, distinct(toward[:, columns])[:MAX_ASKED])
    rays = np.concatenate([cone.rays, edges])
    rays = rays[np.any(rays != 0, axis=1)]
    whole = np.zeros((len(rays), layout.p))
    whole[:, columns] = rays / np.max(np.abs(rays @ slopes.T), axis=1)[:, None]
    return np.take(whole, np.where(roots >= 0, roots, np.arange(layout.p)), axis=1)


def _values(loglik: Loglik, layout: Layout, points: ndarray, data: Data) -> ndarray:
    """ℓ (q,) at the points (q, p)."""

    def make(loglik: Loglik) -> Function:
        return lambda x, data: jnp.sum(terms_of(loglik, layout.unravel(x), data))

    program = compiled(loglik, ("value", layout), make)
    return np.array([float(program(point, data)) for point in points])
