"""The cone of recession of a separated fit, on the host: asked for where every term of the
likelihood is known to be concave, and nowhere else.
"""

from __future__ import annotations

import jax
import numpy as np

from jaxmle._types import Array, Data, Function, Loglik, ndarray
from jaxmle.likelihood.discovery.concavity import is_concave
from jaxmle.likelihood.histogram import uncounted
from jaxmle.likelihood.recession import Ways, is_exact, scores_at, straight, ways
from jaxmle.likelihood.structure import roots_of, term_shape
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled, to_numpy
from jaxmle.verdict.recession_cone import cone_of, distinct, farthest, generators
from jaxmle.verdict.separation import gaps, wants_cone, with_recession_cone

POINTS_AT_ONCE = 16  # at which the gradients of all terms are held together
MAX_ASKED = 256  # quantities whose signs in the cone are looked for, a millisecond each


def with_cone(
    fit: Fit,
    loglik: Loglik,
    roots: tuple[int, ...],
    base: Array,
    data: Data,
    rows: int | None,
) -> Fit:
    """The record of one fit with the cone of its recession, where it is separated and has one.

    Args:
        roots: for each printed entry the one it follows; −1 where fixed.
        base: (p,) the start; what does not move has its value.
        data: as the passes read them.
        rows: how many there are; None where that is not known.
    """
    layout = fit.layout
    loglik = uncounted(loglik)
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
    gradients = _ways(loglik, layout, held, data)
    if not (concave or bool(gradients.concave)):
        return fit

    def further(points: ndarray) -> ndarray:
        return _scores_at(loglik, layout, points.astype(base.dtype), data)

    return with_recession_cone(fit, roots, gradients, exact, further)


def recession_rays(fit: Fit, loglik: Loglik, data: Data, toward: ndarray) -> ndarray | None:
    """Directions (q, p) of the cone along which the likelihood of a separated fit rises, in printed
    entries: the first inside the cone, the others its edges. Each is so long that the fastest term
    has a slope of one. None where the cone is not known exactly.

    Args:
        loglik: the likelihood of the fit, with its weights.
        data: the rows of the fit, as arrays of its precision.
        toward: (m, p) gradients of what is asked about: both signs that each has in the cone, it
            has on the edges.
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
    ways = _ways(loglik, layout, point.astype(fit.dtype), data)
    slopes, _ = generators(np.asarray(ways.gradients, float), np.asarray(ways.alive), columns)
    if not (bool(ways.concave) and len(slopes)):
        return None
    slopes = distinct(np.concatenate([slopes, gaps(layout)[:, columns]]))
    cone = cone_of(slopes)
    edges = farthest(slopes, distinct(toward[:, columns])[:MAX_ASKED])
    rays = np.concatenate([cone.rays, edges])
    rays = rays[np.any(rays != 0, axis=1)]
    whole = np.zeros((len(rays), layout.p))
    whole[:, columns] = rays / np.max(np.abs(rays @ slopes.T), axis=1)[:, None]
    return np.take(whole, np.where(roots >= 0, roots, np.arange(layout.p)), axis=1)


def _ways(loglik: Loglik, layout: Layout, x: Array, data: Data) -> Ways:
    def make(loglik: Loglik) -> Function:
        return lambda x, data: ways(loglik, layout, x, data)

    return to_numpy(compiled(loglik, ("ways", layout), make)(x, data))


def _scores_at(loglik: Loglik, layout: Layout, points: ndarray, data: Data) -> ndarray:
    """The score of each term at the points (q, p), (q, n, p), some points at a time."""

    def make(loglik: Loglik) -> Function:
        return lambda points, data: scores_at(loglik, layout, points, data)

    program = compiled(loglik, ("scores at", layout), make)
    scores = []
    for first in range(0, len(points), POINTS_AT_ONCE):
        part = points[first : first + POINTS_AT_ONCE]
        whole = np.pad(part, ((0, POINTS_AT_ONCE - len(part)), (0, 0)), mode="edge")
        scores.append(np.asarray(program(whole, data), float)[: len(part)])
    return np.concatenate(scores)
