"""Many refits of one fit at once, shared by the bootstrap, the jackknife and calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import jax
import numpy as np

from jaxmle._types import Axes, Clusters, Loglik, Tree, ndarray
from jaxmle.batch.batch import fit_members
from jaxmle.fitting.options import Options, constraints_of
from jaxmle.inference.again import again, check_fit
from jaxmle.inference.statuses import STATUSES_WITH_ESTIMATE
from jaxmle.inference.target import Target
from jaxmle.likelihood.combinators import Weight, Weights
from jaxmle.likelihood.contract import as_tree, rows_of
from jaxmle.likelihood.discovery.row_independence import check_rows_apart
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.likelihood.structure import has
from jaxmle.parameters.tree import Layout, layout_of
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only
from jaxmle.runtime.progress import Progress
from jaxmle.solvers.status import Status

# Refits in one call of the batch engine: its narrowest block, and what moves together; 10 000 with
# 1000 weights took two fifths longer with 1024.
MEMBERS_A_CHUNK = (8, 4096)
# Of weights or simulated data in one call; 10 000 × 1000 weights took a tenth longer with half as
# many or twice as many.
BYTES_OF_A_CALL = 2**25
MIN_SQUARED_NULL_SHARE = 1e-10  # of a coordinate in the null space; one with more is undetermined


@dataclass(frozen=True)
class Refit:
    """One fit, ready to be repeated on other weights or other data.

    Every refit begins at ``start``, the estimate itself if it can be a start.
    """

    loglik: Loglik
    data: Tree
    layout: Layout
    start: Tree
    options: Options

    def __call__(
        self,
        data: Tree,
        in_axes: Axes,
        weights: Weights | None,
        vcov: str | None,
        clusters: Clusters = None,
        starts: Tree = None,
    ) -> Fit:
        """The refits of one chunk; from their own ``starts``, if given."""
        return fit_members(
            self.loglik,
            self.start if starts is None else starts,
            data,
            replace(self.options, weights=weights, vcov=vcov, clusters=clusters, progress=False),
            in_axes=in_axes,
            params_axis=None if starts is None else 0,
            check_rows=False,
        )

    def check_rows(self, what: str, clusters: Clusters, remedy: str) -> None:
        """Raise if terms depend on other rows, or on other clusters, because such rows cannot be
        weighted or left out.
        """
        tree = as_tree(self.loglik)
        with precision(self.options.host_dtype):
            start = jax.tree.map(lambda leaf: np.asarray(leaf, self.options.host_dtype), self.start)
            base = self.layout.ravel(start)
            n = rows_of(tree, self.data)
            codes = None if clusters is None or n is None else cluster_codes(clusters, n)[0]
            check_rows_apart(what, tree, self.layout, base, self.data, remedy=remedy, codes=codes)

    def from_flat(self, x: ndarray) -> Tree:
        """Starts (b, p) as a tree with a leading axis."""
        leaves = zip(self.layout.leaves, self.layout.spans, strict=True)
        return jax.tree.unflatten(
            self.layout.treedef, [x[:, span].reshape(len(x), *leaf.shape) for leaf, span in leaves]
        )


def refit_of(
    what: str,
    loglik: Loglik,
    fit: Fit,
    data: Tree,
    params0: Tree,
    options: Options,
) -> Refit:
    """The fit, checked against the likelihood, the data and the weights."""
    host_only(what)
    check_fit(what, fit, alone=True)
    if fit.verdict not in STATUSES_WITH_ESTIMATE:
        raise ValueError(
            f"the fit is {fit.verdict.name}: there is no maximum to work with. {fit.explain()}"
        )
    if has(as_tree(loglik), Weight):
        raise ValueError(
            "weights inside the likelihood cannot be resampled: pass them to fit and to "
            f"{what} as weights="
        )
    data = again(loglik, fit, data, weights=options.weights, what=what).data
    constraints_of_fit = jax.tree.unflatten(
        fit.layout.treedef, [leaf.constraint for leaf in fit.layout.leaves]
    )
    given_too = constraints_of(loglik, options.constraints)
    if given_too is not None and layout_of(fit.params, given_too) != fit.layout:
        raise ValueError(
            "the constraints differ from those of the fit: leave them out, or give the same"
        )
    return Refit(
        loglik,
        data,
        fit.layout,
        _start(what, loglik, fit, data, params0),
        replace(options, constraints=constraints_of_fit, dtype=fit.dtype),
    )


def _start(what: str, loglik: Loglik, fit: Fit, data: Tree, params0: Tree) -> Tree:
    if params0 is not None:
        if layout_of(params0).names != fit.layout.places:
            raise ValueError(
                f"params0 has the entries {', '.join(layout_of(params0).names[:20])}; the fit "
                f"has {', '.join(fit.layout.places[:20])}"
            )
        return params0
    values = fit.layout.treedef.flatten_up_to(fit.params)
    inside = np.all(np.isfinite(fit.x)) and all(
        leaf.constraint.violation(np.asarray(v)) is None
        for leaf, v in zip(fit.layout.leaves, values, strict=True)
    )
    if inside:
        return fit.params
    start = getattr(loglik, "start", None)
    if start is not None:
        return start(data)
    raise ValueError(
        f"the fit is {fit.verdict.name}: an estimate that is infinite or on its bound "
        f"cannot be a start. Give {what} the start as params0="
    )


def chunks(total: int, bytes_each: float) -> Iterator[tuple[ndarray, int]]:
    """Member numbers of each call, all of the same length (a new shape is a compilation), and how
    many of them are used.

    The last call is padded with the next numbers.
    """
    most = int(np.clip(BYTES_OF_A_CALL / max(bytes_each, 1.0), *MEMBERS_A_CHUNK))
    calls = -(-total // most)
    size = -(-total // calls)
    for begin in range(0, total, size):
        yield np.arange(begin, begin + size), min(size, total - begin)


def gathered(
    refits: Callable[[ndarray], Fit],
    bytes_each: float,
    target: Target,
    total: int,
    bar: Progress,
    errors: bool = False,
) -> tuple[ndarray, ndarray | None, ndarray]:
    """Values (m, q), standard errors (m, q) if ``errors``, and statuses (m,) of all members, chunk
    by chunk; ``refits`` takes the numbers of some members.
    """
    values = np.empty((total, len(target.names)))
    status = np.empty(total, int)
    se = np.full_like(values, np.nan) if errors else None
    for index, count in chunks(total, bytes_each):
        fits = refits(index)
        place = index[:count]
        values[place] = target.values(known(fits))[:count]
        status[place] = np.asarray(fits.status)[:count]
        if se is not None:
            se[place] = target.stderr(fits)[:count]
        bar.add(count)
    bar.close()
    return values, se, status


def known(fits: Fit) -> ndarray:
    """The estimates (b, p) of refits: ±inf where an estimate is infinite; NaN if there is no
    maximum or the data do not determine the entry.
    """
    status = np.asarray(fits.status)
    free = np.diagonal(fits.witness.projector, axis1=1, axis2=2) > MIN_SQUARED_NULL_SHARE
    free &= np.isin(status, (Status.UNIDENTIFIED, Status.SINGULAR, Status.BOUNDARY))[:, None] & (
        np.asarray(fits.witness.bound) == 0
    )
    return np.where(free | ~np.isin(status, STATUSES_WITH_ESTIMATE)[:, None], np.nan, fits.x)


def failures(status: ndarray) -> dict[str, int]:
    """The number of refits with each status other than CONVERGED, the worst first."""
    codes, counts = np.unique(status[status != Status.CONVERGED], return_counts=True)
    return {Status(int(code)).name: int(n) for code, n in zip(codes, counts, strict=True)}
