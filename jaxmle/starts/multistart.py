"""``multistart``: one data set fitted from many starts, as one batch; the distinct maxima that
they find, counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import Clusters, DTypeLike, Key, Loglik, Tree
from jaxmle.batch.batch import fit_members
from jaxmle.batch.members.start_values import check_params_axis
from jaxmle.fitting.options import MAX_STEPS, Options, constraints_of
from jaxmle.likelihood.checks import check_values, host_data
from jaxmle.likelihood.combinators import Weight, Weights, weight
from jaxmle.likelihood.contract import as_tree, rows_of
from jaxmle.likelihood.structure import has
from jaxmle.parameters.arguments import check_count
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only
from jaxmle.runtime.keys import typed_key
from jaxmle.solvers.methods import Solver
from jaxmle.solvers.status import COMPARED, Status
from jaxmle.starts.maxima import (
    MAX_GAP_OF_EQUAL_MAXIMA,
    Maximum,
    distinct_maxima,
    is_level,
    least_bad,
)
from jaxmle.starts.starts import start_values
from jaxmle.starts.symmetry import Group, blocks_of, checked_groups

if TYPE_CHECKING:
    from jaxmle.tables.layout import Grid

MAXIMA_SHOWN = 20  # maxima in the table


@with_keyword_hints
def multistart(
    loglik: Loglik,
    starts: Tree = None,
    data: Tree = None,
    *,
    number: int = 50,
    key: Key = 0,
    constraints: Tree = None,
    solver: Solver | None = None,
    vcov: str | None = "auto",
    clusters: Clusters = None,
    weights: Weights | None = None,
    dtype: DTypeLike = None,
    max_steps: int = MAX_STEPS,
    symmetric: Sequence[Group] = (),
    params_axis: int | str | None = "auto",
    progress: bool | None = None,
) -> Multistart:
    """Maximise one log-likelihood on one data set from many starts, and count the maxima found.

    Args:
        loglik, data, constraints, solver, vcov, clusters, weights, dtype, max_steps: as in ``fit``.
        starts: start values with a leading axis (s, …) on every leaf; or ``sampler(key)``, which
            returns one start for a jax key and is called ``number`` times; or one start, the first
            of ``number``: the others are drawn around it from a normal distribution with standard
            deviation 2 on the free scale, which keeps them inside the constraints; or None for a
            model with a method ``start(data)``, which then gives the first start.
        number: the number of starts. The first ten of fifty are those of ``number=10``.
        key: an integer or a jax key.
        symmetric: groups of parameters whose labels can be exchanged. ``[("mu", "sigma",
            "weight")]`` names leaves whose leading axis runs over components, which are permuted
            jointly; ``[(("mu_1", "sigma_1"), ("mu_2", "sigma_2"))]`` names the blocks one by one.
            Maxima that differ only in labels then count as one.
        params_axis: 0 means that ``starts`` has a leading axis over starts, None that it is one
            start; ``"auto"`` chooses if only one of these is possible.
        progress: as in ``fit_batch``.

    Returns:
        A ``Multistart``. A start at which the likelihood is not finite gets the status NONFINITE;
        the others are not affected.

    Raises:
        ValueError, TypeError: for mistakes visible in shapes and types, a start outside its bounds,
            or an unknown name.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> cauchy = lambda params, y: -jnp.log1p((y - params["centre"]) ** 2)
    >>> result = jm.multistart(
    ...     cauchy,
    ...     {"centre": np.array([-9.0, -6.0, 0.5, 8.0, 9.0])},
    ...     np.array([-6.0, 0.0, 1.0, 8.0]),
    ... )
    >>> [(round(float(m.fit.params["centre"]), 3), round(m.gap, 3), m.share) for m in result.maxima]
    [(0.479, 0.0, 0.6), (-5.5, 4.383, 0.2), (7.59, 4.984, 0.2)]
    """
    host_only(
        "multistart",
        "; inside a trace use jax.vmap(lambda start: jaxmle.fit(loglik, start, data))",
    )
    options = Options(
        constraints=constraints_of(loglik, constraints),
        solver=solver,
        vcov=vcov,
        clusters=clusters,
        weights=weights,
        dtype=dtype,
        max_steps=max_steps,
        progress=progress,
    )
    number = check_count("number", number, 1)
    check_params_axis(params_axis)
    if has(as_tree(loglik), Weight):
        raise ValueError(
            "weights inside the likelihood cannot be shared by a batch: pass them as "
            "multistart(weights=…)"
        )
    tree = as_tree(loglik) if weights is None else weight(loglik, weights)
    data = _checked_data(tree, data, options)
    groups = checked_groups(symmetric)
    with precision(np.float64), np.errstate(all="ignore"):
        layout, params = start_values(
            loglik,
            tree,
            starts,
            data,
            options,
            number,
            typed_key(key),
            groups,
            params_axis,
        )
    blocks = blocks_of(layout, groups)
    fits = fit_members(loglik, params, data, options, in_axes=None, params_axis=0)
    maxima = (
        _compared(distinct_maxima(fits, blocks)) if len(fits) > 1 else distinct_maxima(fits, blocks)
    )
    return Multistart(maxima[0].fit if maxima else fits[least_bad(fits)], fits, params, maxima)


def _compared(maxima: tuple[Maximum, ...]) -> tuple[Maximum, ...]:
    """The maxima, the highest marked as the one that was compared with the others."""
    if not maxima:
        return maxima
    best = maxima[0].fit
    code = np.asarray(best.witness.certificate | COMPARED, np.int32)[()]
    marked = replace(best, witness=replace(best.witness, certificate=code))
    return replace(maxima[0], fit=marked), *maxima[1:]


def _checked_data(loglik: Loglik, data: Tree, options: Options) -> Tree:
    """The data as one data set: ``fit_batch`` would read a list as many, and rows of NaN as a
    matter of one member.
    """
    clusters: Tree = options.clusters
    data = host_data(tuple(data) if isinstance(data, list) else data, options.host_dtype)
    rows_of(loglik, data)
    check_values(loglik, data)
    if clusters is not None and np.ndim(clusters) != 1:
        raise ValueError(
            f"clusters must hold one label for each row, shape (n,); got shape {np.shape(clusters)}"
        )
    return data


@dataclass(frozen=True, eq=False, repr=False)
class Multistart:
    """The maxima that fits from many starts reached.

    ``best``: among the CONVERGED fits that end at the highest maximum, the one closest to it. If
    none converged, it is an UNBOUNDED fit if there is one, otherwise the fit whose status comes
    last in the order of ``Status``; see ``best.status``. ``fits``: all fits, a leading axis over
    starts. ``starts``: the start values, a leading axis on every leaf. ``maxima``: the distinct
    maxima of the converged fits, the highest first. Two fits have the same maximum if every entry
    differs by less than 0.001 standard errors and ℓ by less than 1e-6·max(1, |ℓ|).

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> cauchy = lambda params, y: -jnp.log1p((y - params["centre"]) ** 2)
    >>> starts = {"centre": np.array([-3.5, -3.0, -2.5, 2.5, 3.0])}
    >>> result = jm.multistart(cauchy, starts, np.array([-3.0, -3.0, 3.0, 3.0]))
    >>> sorted(round(float(m.fit.params["centre"]), 4) for m in result.maxima)  # ±√8
    [-2.8284, 2.8284]
    >>> result.counts[jm.Status.CONVERGED], result.unbounded
    (5, 0)
    """

    best: Fit
    fits: Fit
    starts: Tree
    maxima: tuple[Maximum, ...]

    @property
    def counts(self) -> dict[Status, int]:
        """The number of starts for each status that occurs."""
        codes, times = np.unique(self.fits.status, return_counts=True)
        return {
            Status(code): times for code, times in zip(codes.tolist(), times.tolist(), strict=True)
        }

    @property
    def unbounded(self) -> int:
        """The number of starts from which the likelihood rises without bound. If there are any, the
        likelihood has no maximum, and ``best`` is at most a local one.
        """
        return self.counts.get(Status.UNBOUNDED, 0)

    def __repr__(self) -> str:
        from jaxmle.tables.layout import Page, text

        total = len(self.fits)
        converged = self.counts.get(Status.CONVERGED, 0)
        headline = (
            f"{_many(len(self.maxima), 'maximum', 'maxima')} from {_many(total, 'start')}, "
            f"{converged} CONVERGED"
        )
        shared = (
            ("n", f"{float(self.best.n):g}"),
            ("df", str(self.best.df)),
            ("vcov", self.best.vcov_kind),
        )
        return text(Page(headline, bool(self.maxima), shared, _grids(self), _notes(self)))


def _many(times: int, singular: str, plural: str | None = None) -> str:
    return f"{times} {singular if times == 1 else plural or singular + 's'}"


def _grids(result: Multistart) -> tuple[Grid, ...]:
    """The maxima, or the best end where there is none; then the starts that failed, by status."""
    from jaxmle.tables.layout import Grid
    from jaxmle.tables.numerals import likelihood, significant
    from jaxmle.tables.table import shortened

    total = len(result.fits)

    def row(place: int, maximum: Maximum) -> tuple[str, ...]:
        lower = ", a local maximum" if place or result.unbounded else ""
        if place and is_level(maximum):
            lower = ", as high as 1"
        cells = (
            likelihood(maximum.loglik),
            significant(maximum.gap, 3),
            f"{100 * maximum.share:.1f}",
            str(len(maximum.members)),
        )
        return (str(place + 1), *cells, f"CONVERGED{lower}")

    rows = [row(place, maximum) for place, maximum in enumerate(result.maxima)]
    if not rows:
        verdict = result.best.verdict
        rows = [
            (
                "best",
                likelihood(float(result.best.loglik)),
                "n/a",
                f"{100 * result.counts[verdict] / total:.1f}",
                str(result.counts[verdict]),
                verdict.name,
            )
        ]
    header = ("", "log-likelihood", "gap", "share %", "starts", "status")
    failed = tuple(
        (status.name, str(times), f"{100 * times / total:.1f}")
        for status, times in result.counts.items()
        if status != Status.CONVERGED
    )
    grids = (Grid(header, shortened(rows, MAXIMA_SHOWN - 1, 1), words=(0, 5)),)
    return (
        (*grids, Grid(("status", "starts", "%"), failed, "Starts that failed")) if failed else grids
    )


def _notes(result: Multistart) -> tuple[str, ...]:
    """What a reader of the table could misread."""
    from jaxmle.tables.numerals import likelihood

    fits = result.fits
    maxima = result.maxima
    lone = sum(len(maximum.members) == 1 for maximum in maxima)
    equal_maxima = sum(is_level(maximum) for maximum in maxima)
    level = (
        maxima[0].loglik + MAX_GAP_OF_EQUAL_MAXIMA * max(1.0, abs(maxima[0].loglik))
        if maxima
        else np.inf
    )
    higher = np.flatnonzero(np.isfinite(fits.loglik) & (fits.loglik > level))
    top = int(higher[np.argmax(fits.loglik[higher])]) if higher.size else -1
    end = "the best is only a local maximum." if maxima else "there is no maximum."
    sentences = (
        (
            result.unbounded > 0,
            f"The likelihood is unbounded: from {_many(result.unbounded, 'start')} it kept rising "
            f"without end, so {end}",
        ),
        (
            top >= 0,
            f"{_many(len(higher), 'start')} that did not converge reached a higher value, "
            f"up to {likelihood(float(fits.loglik[top]))} "
            f"({Status(int(fits.status[top])).name}): fits[{top}].explain().",
        ),
        (
            equal_maxima > 1,
            f"{equal_maxima} maxima are equally high: if labels can be exchanged, symmetric= "
            "counts these as one.",
        ),
        (
            lone > 0 and len(fits) > 1,
            _many(lone, "maximum was found by one start", "maxima were found by one start each")
            + ": more starts may find others.",
        ),
        (not maxima, f"No start converged. The best start: {result.best.explain()}"),
    )
    return tuple(sentence for holds, sentence in sentences if holds)
