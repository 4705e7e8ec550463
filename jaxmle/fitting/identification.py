"""Whether a fit is unidentified because of its model or because of its data: would other data of
the same kind identify it?

At the maximum of one sample, a product a·b and a collinear design look alike: the information is
singular. A direction on which the model does not depend is orthogonal to the score of every data
set, at all parameters; along a direction that only these data do not identify, the scores of other
data differ from zero. So new data sets are drawn, each column separately, and their scores are
computed at one point: they span the directions that some data identify there. (The information
would not serve: away from the maximum, that of a·b is not singular.)
"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np

from jaxmle._types import Array, Tree
from jaxmle.fitting.passes import Passes
from jaxmle.record.fit import Fit
from jaxmle.solvers.linalg import eigh, metric_of
from jaxmle.solvers.state import Point, is_finite, null_cut

# witness.certificate
SOURCE_UNKNOWN = 0
BY_DATA = 1
BY_MODEL = 2
POINTS_TRIED = 3  # one would do, but for points where a derivative happens to vanish
DRAWS_BEYOND_PARAMETERS = 4  # data sets more than free parameters
# singular values of scores of length one below √ε times this are rounding
ROUNDING_OF_SCORES = 10.0


def traced_to(fit: Fit, passes: Passes, z: Array) -> Fit:
    """An unidentified fit, marked with whether other data of the same kind would identify it.

    Args:
        passes: over the data of the fit.
        z: the end of the ascent (k,).
    """
    rng = np.random.default_rng(0)
    end = passes.evaluate(z)
    unit = 1.0 / metric_of(end.hessian, end.score)
    expected = _nullity(end) or 0
    code = SOURCE_UNKNOWN
    for _ in range(POINTS_TRIED if expected else 0):
        point = (z + unit * rng.uniform(-1, 1, z.shape)).astype(z.dtype)
        rank = _rank_of_scores(passes, point, unit, rng)
        if rank is None:
            continue
        code = BY_MODEL
        if len(z) - rank < expected:
            code = BY_DATA
            break
    certificate = np.asarray(code, fit.witness.certificate.dtype)
    return replace(fit, witness=replace(fit.witness, certificate=certificate))


def _rank_of_scores(passes: Passes, z: Array, unit: Array, rng: np.random.Generator) -> int | None:
    """The number of directions that the scores of newly drawn data, in units (k,), span at z (k,);
    None if too few are finite.
    """
    scores = []
    for _ in range(len(z) + DRAWS_BEYOND_PARAMETERS):
        point = passes.on(drawn_anew(passes.data, rng)).evaluate(z)
        if is_finite(point):
            scores.append(point.score * unit)
    if len(scores) <= len(z):
        return None
    rows = np.array(scores, float)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.svd(rows / np.where(length > 0, length, 1.0), compute_uv=False)
    cut = ROUNDING_OF_SCORES * np.sqrt(np.finfo(z.dtype).eps)
    return int(np.sum(values > cut))


def drawn_anew(data: Tree, rng: np.random.Generator) -> Tree:
    """Data of the same kind: the values of each column are drawn with replacement, independently of
    the other columns.
    """

    def apart(leaf: Array) -> Array:
        columns = np.array(leaf).reshape(len(leaf), -1)
        rows = rng.integers(len(leaf), size=columns.shape)
        return np.take_along_axis(columns, rows, axis=0).reshape(np.shape(leaf))

    return jax.tree.map(apart, data)


def _nullity(point: Point) -> int | None:
    """The number of null directions of the information; None where it is not finite."""
    if not is_finite(point):
        return None
    scale = metric_of(point.hessian, point.score)
    values = eigh(-0.5 * (point.hessian + point.hessian.T) / (scale[:, None] * scale[None, :]))[0]
    return int(np.sum(np.abs(values) <= null_cut(point)))
