"""The evidence for a verdict, as stored in a record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, FunctionTo, ndarray

_WITNESS = [
    "row",
    "term",
    "direction",
    "sign",
    "projector",
    "vcov",
    "bound",
    "curvature",
    "digits",
    "gain",
    "distance",
    "stderr_error",
    "certificate",
    "point",
]


@partial(jax.tree_util.register_dataclass, data_fields=_WITNESS, meta_fields=[])
@dataclass(frozen=True, eq=False)
class Witness:
    """The evidence for a verdict, in arrays of fixed shape so that it works under ``vmap``; −1, 0
    or NaN if there is nothing to show.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> logit = lambda params, y: y * params["a"] - jnp.logaddexp(0.0, params["a"])
    >>> result = jm.fit(logit, {"a": 0.0}, np.ones(3))  # successes only: a is infinite
    >>> result.verdict.name, result.witness.sign.tolist()
    ('SEPARATED', [1])
    """

    # (), the row of the data that gave a value that is not finite, whose term grows without bound,
    # of leverage one (the first of such a cluster), or that is NaN beyond where the limit of a
    # separated fit was followed to; else −1
    row: Array
    # (), the term of that row; else −1
    term: Array
    # (p,), along which the likelihood recedes, is flat, or curves upwards
    direction: Array
    # (p,), +1 or −1 for an estimate of ±inf, else 0
    sign: Array
    # (p, p), onto the directions without an estimate, in units of the printed entries
    projector: Array
    # (p, p), the generalised covariance: c'Vc is right for every c orthogonal to the projector
    vcov: Array
    # (p,), −1 on the lower bound, +1 on the upper, 2 equal to the ordered entry before it, 0 inside
    bound: Array
    # (), the smallest eigenvalue of the information scaled to unit diagonal
    curvature: Array
    # (), the decimal digits that standard errors and estimates can be trusted to
    digits: Array
    # (), the last gain in ℓ
    gain: Array
    # (), √(2δ), the estimated distance to the maximum in standard errors
    distance: Array
    # (p,), the error of each standard error, 0 where it is rounding: the Monte Carlo standard error
    # of a simulated information, or the measured error of differences
    stderr_error: Array
    # (), SEPARATED: 0 seen by following the ascent, 1 by the scores of all terms, 2 by exact
    # arithmetic; UNIDENTIFIED: 0 not asked, 1 by the data, 2 by the model; CONVERGED: a sum of
    # solvers.status.CONCAVE_FLAG, MEAN and COMPARED
    certificate: Array
    # (p,), the finite point at which the verdict was taken: of a separated fit the one where the
    # likelihood is at its limit; NaN where it is not given
    point: Array = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.point is None and hasattr(self.direction, "dtype"):
            unknown = namespace(self.direction).full_like(self.direction, np.nan)
            object.__setattr__(self, "point", unknown)


def empty_witness(x: Array) -> Witness:
    """The witness of a point x (p,) about which there is nothing to show. Its matrices take no
    memory on the host.
    """
    xp = namespace(x)
    zero = xp.zeros((), x.dtype)[()]
    unknown = xp.full((), np.nan, x.dtype)[()]
    no_row = xp.full((), -1, xp.int32)[()]
    no_sign = xp.zeros(x.shape, xp.int32)
    square = (*x.shape, *x.shape)
    return Witness(
        row=no_row,
        term=no_row,
        direction=xp.zeros_like(x),
        sign=no_sign,
        projector=xp.broadcast_to(zero, square),
        vcov=xp.broadcast_to(unknown, square),
        bound=no_sign,
        curvature=unknown,
        digits=unknown,
        gain=zero,
        distance=unknown,
        stderr_error=xp.zeros_like(x),
        certificate=xp.zeros((), xp.int32)[()],
    )


def renumbered(witness: Witness, number_of: FunctionTo[ndarray]) -> Witness:
    """The witness, of one fit or of a batch, with other row numbers; −1, for no row, stays.

    Args:
        number_of: from an array of row numbers to those in another table.
    """

    def new_number(row: Array) -> ndarray:
        rows = np.asarray(row)
        return np.where(rows < 0, rows, number_of(np.maximum(rows, 0))).astype(rows.dtype)[()]

    return replace(witness, row=new_number(witness.row), term=new_number(witness.term))
