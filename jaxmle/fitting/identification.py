"""Whether an unidentified fit is so by its model or by its data: does the information stay singular
at other parameters and with the data in another order?

At the maximum of one sample a + b and a collinear design look alike. With the rows of every column
shuffled apart, and at other parameters, columns are collinear no more, while parameters that enter
only through their sum still do.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np

from jaxmle._types import Array, Tree
from jaxmle.fitting.passes import Passes
from jaxmle.record.fit import Fit
from jaxmle.solvers.linalg import eigh, metric_of
from jaxmle.solvers.trust_region import Point, is_finite, null_cut

# witness.certificate
SOURCE_UNKNOWN = 0
BY_DATA = 1
BY_MODEL = 2
POINTS_TRIED = 3  # one would do, but for points where a derivative happens to vanish


def traced_to(fit: Fit, passes: Passes, z: Array) -> Fit:
    """An unidentified fit that knows whether other data of its kind would identify it.

    Args:
        passes: over the data of the fit.
        z: the end of the climb (k,).
    """
    rng = np.random.default_rng(0)
    end = passes.evaluate(z)
    unit = 1.0 / metric_of(end.hessian, end.score)
    expected = _nullity(end)
    nullities = []
    for _ in range(POINTS_TRIED):
        point = (z + unit * rng.uniform(-1, 1, z.shape)).astype(z.dtype)
        nullities.append(_nullity(passes.on(shuffled(passes.data, rng)).evaluate(point)))
    finite = [nullity for nullity in nullities if nullity is not None]
    code = SOURCE_UNKNOWN
    if finite and expected:
        code = BY_MODEL if min(finite) >= expected else BY_DATA
    certificate = np.asarray(code, fit.witness.certificate.dtype)
    return replace(fit, witness=replace(fit.witness, certificate=certificate))


def shuffled(data: Tree, rng: np.random.Generator) -> Tree:
    """The data with every column in an order of its own: each keeps its values, and goes with
    others no more.
    """

    def apart(leaf: Array) -> Array:
        columns = np.array(leaf).reshape(len(leaf), -1)
        return rng.permuted(columns, axis=0).reshape(np.shape(leaf))

    return jax.tree.map(apart, data)


def _nullity(point: Point) -> int | None:
    """How many directions the information has nothing to say about; None where it is not finite."""
    if not is_finite(point):
        return None
    scale = metric_of(point.hessian, point.score)
    values = eigh(-0.5 * (point.hessian + point.hessian.T) / (scale[:, None] * scale[None, :]))[0]
    return int(np.sum(np.abs(values) <= null_cut(point)))
