"""``fit`` of rows that several devices share: the search, the verdict and the record are those for
rows in memory; only the passes over the rows differ.

Every process of ``jax.distributed`` runs all of it. The result of a pass is the same in each, so
all take the same steps and get the same record.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np

from jaxmle._types import Loglik, PathLike, Tree, ndarray
from jaxmle.closures.program_digest import value_digest
from jaxmle.distributed.passes import ShardRunner
from jaxmle.distributed.peers import agreed, lost_peers_named, of_first_process
from jaxmle.distributed.screen import Screening
from jaxmle.distributed.shared import SharedRows
from jaxmle.fitting.fit import Conduct, Landmark
from jaxmle.fitting.head_start import Sampler
from jaxmle.fitting.options import Options, Posed
from jaxmle.fitting.passes import Problem
from jaxmle.fitting.signals import with_signals
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.record.fit import Fit
from jaxmle.runtime.checkpoint import Checkpoint
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only
from jaxmle.solvers.status import Status
from jaxmle.streams.landmarks import identity, keeper, last_landmark
from jaxmle.streams.pieces import (
    MAX_VALUES_FOR_CONE,
    ROWS_OF_SAMPLE,
    Pieces,
    concluded,
    form_of,
    posed_on_sample,
    problem_in_pieces,
    refuse_in_pieces,
    with_cone_of_rows,
)
from jaxmle.streams.quantities import Quantities, prior_alone, without_prior

DEVICES = Pieces(
    "a fit of rows spread over devices",
    "a device",
    "pass them as an argument: weights=jaxmle.frequency(w), with w sharded like the rows",
)


def fit_shared(
    rows: SharedRows,
    loglik: Loglik,
    params0: Tree,
    options: Options,
    checkpoint: PathLike | None = None,
) -> Fit:
    """The fit of a log-likelihood to rows that several devices share; see ``fit``."""
    host_only("a fit of rows spread over devices")
    refuse_in_pieces(loglik, options, DEVICES)
    weights = rows.weights
    options = replace(options, weights=weights, clusters=rows.clusters)
    folder = checkpoint if jax.process_index() == 0 else None  # one process keeps it for all
    with (
        lost_peers_named(),
        precision(options.host_dtype),
        np.errstate(all="ignore"),
        Checkpoint(folder) as store,
    ):
        sample = rows.sample(ROWS_OF_SAMPLE)
        screening = Screening(rows, loglik, rows.leaves.data(sample))
        count = screening.count()
        posed = posed_on_sample(rows.leaves, sample, loglik, params0, options)
        problem = _problem(rows, posed, options)
        bare = without_prior(problem.loglik)
        screening.check_functions(bare, posed.layout, posed.base)
        form = form_of(problem, rows.leaves)
        runner = ShardRunner(bare, form, rows, count, *_codes(rows))
        prior = prior_alone(problem.loglik)
        quantities = Quantities(problem, posed.base, posed.data, prior, runner)
        resumed = _resumed(store, quantities, rows) if checkpoint is not None else None
        conduct = Conduct(
            options.progress if jax.process_index() == 0 else False,
            Sampler(rows.length, lambda few: rows.leaves.data(rows.sample(few))),
            resumed,
            keeper(store, resumed),
        )
        shards = rows.placement.shards
        fitted = concluded(quantities, loglik, posed, conduct, f"shared by {shards} devices")
        fitted = _with_cone(fitted, quantities, rows)
        response_id = screening.response_id()
        if response_id is not None:
            fitted = replace(fitted, response_id=response_id)
        return with_signals(fitted, loglik, posed.loglik, posed.data)


def _problem(rows: SharedRows, posed: Posed, options: Options) -> Problem:
    of_a_device = rows.length // rows.placement.shards
    return problem_in_pieces(posed, options, [of_a_device, rows.length], DEVICES)


def _codes(rows: SharedRows) -> tuple[tuple[jax.Array, ...], tuple[int, ...]]:
    """The codes of the clusters of each dimension, shared like the rows, and how many there are.
    Every host reads the labels of all rows, so that codes mean the same everywhere.
    """
    if rows.clusters is None:
        return (), ()
    labels = rows.gathered(rows.clusters)
    coded = agreed(lambda: cluster_codes(labels[0] if len(labels) == 1 else labels, rows.length))
    sharding = rows.placement.sharding

    def shared(code: ndarray) -> jax.Array:
        return jax.make_array_from_callback(code.shape, sharding, lambda index: code[index])

    groups = tuple(int(code.max()) + 1 for code in coded)
    return tuple(shared(np.asarray(code)) for code in coded), groups


def _resumed(store: Checkpoint, quantities: Quantities, rows: SharedRows) -> Landmark | None:
    """The position of an earlier run of the same fit, as saved by the first process."""
    k = quantities.problem.chart.k

    def last() -> Landmark | None:
        if jax.process_index() != 0:
            return None
        about = {
            "procedure": "fit of shared rows",
            # not the length with its padding, which depends on the number of devices
            "rows": quantities.runner.n,
            "shapes of the data": value_digest([leaf.shape[1:] for leaf in rows.arrays]),
        }
        problem = quantities.problem
        store.open(identity(problem, quantities.base, quantities.sample, about))
        return last_landmark(store, k)

    landmark = agreed(last)
    vector = np.full(k + 2, np.nan)
    if landmark is not None:
        vector = np.array([landmark.steps, landmark.radius, *landmark.z])
    steps, radius, *z = of_first_process(vector)
    if np.isnan(steps):
        return None
    return Landmark(np.array(z), np.asarray(radius), np.asarray(int(steps)))


def _with_cone(fit: Fit, quantities: Quantities, rows: SharedRows) -> Fit:
    """The record with its recession cone, if all rows fit in memory; otherwise the ascent's own
    path shows what is infinite.
    """
    width = sum(leaf.size // leaf.shape[0] for leaf in rows.arrays)
    if fit.verdict != Status.SEPARATED or rows.length * (width + fit.layout.p) > (
        MAX_VALUES_FOR_CONE
    ):
        return fit
    return with_cone_of_rows(fit, quantities, rows.leaves, rows.sample(rows.length))
