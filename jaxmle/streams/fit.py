"""``fit`` of a source: the search, the verdict and the record are those for rows in memory; only
the passes over the rows differ.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from jaxmle._types import Data, Loglik, PathLike, Tree, ndarray
from jaxmle.fitting.fit import Conduct
from jaxmle.fitting.head_start import Sampler
from jaxmle.fitting.options import Options, Posed
from jaxmle.fitting.passes import Problem
from jaxmle.fitting.signals import with_signals
from jaxmle.likelihood.combinators import Weights
from jaxmle.parameters.arguments import shown
from jaxmle.record.fit import Fit
from jaxmle.record.identity import response_of
from jaxmle.runtime.checkpoint import Checkpoint
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only
from jaxmle.solvers.status import Status
from jaxmle.streams.columns import Columns, names_in
from jaxmle.streams.engines import results_by
from jaxmle.streams.files import check_columns
from jaxmle.streams.landmarks import about_files, identity, keeper, last_landmark
from jaxmle.streams.passes import SourceRunner, Work
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
from jaxmle.streams.reader import Reading
from jaxmle.streams.screen import Coding, Screening, fingerprint_of

# An ascent begins with a sample of at most one row in 16, unless that is too few.
MIN_ROWS_A_STREAMED_SAMPLE_ROW = 16
BYTES_OF_SAMPLE = 2**26  # of those at most
STREAMED = "streamed"
OF_A_SOURCE = Pieces(
    "fit(source=…)",
    "a source",
    "they must be a column: fit(loglik, source=…, weights=jaxmle.frequency('w'))",
)


def fit_source(
    reading: Reading,
    loglik: Loglik,
    params0: Tree,
    options: Options,
    engine: Executor | None,
    checkpoint: PathLike | None,
) -> Fit:
    """The fit of a log-likelihood to rows that are read at each pass; see ``fit``."""
    host_only("fit(source=…)")
    refuse_in_pieces(loglik, options, OF_A_SOURCE)
    if options.dtype is not None and options.dtype != np.float64:
        raise ValueError("a source is always summed in float64: leave dtype out")
    reading = replace(reading, columns=_columns(reading.columns, options))
    check_columns(reading.files, reading.columns.names, reading.columns.clusters)
    with precision(np.float64), np.errstate(all="ignore"), Checkpoint(checkpoint) as store:
        task = Task(reading, loglik, params0, options)
        posed, problem, work = task.prepared()
        # what travels is the start itself, the same for all
        prepare = partial(_work, replace(task, params0=posed.params).for_travel())
        runner = SourceRunner(work, results_by(engine, work, prepare), options.progress)
        prior = prior_alone(problem.loglik)
        quantities = Quantities(problem, posed.base, posed.data, prior, runner)
        if checkpoint is not None:
            about = about_files(reading)
            store.open(identity(problem, posed.base, posed.data, about))
        resumed = last_landmark(store, problem.chart.k)
        sampler = Sampler(reading.rows, partial(_sample, reading))
        conduct = Conduct(options.progress, sampler, resumed, keeper(store, resumed))
        return _fitted(quantities, runner, loglik, posed, conduct)


def _sample(reading: Reading, few: int) -> Data:
    """The rows that an ascent starts with: more than in memory, where a pass is cheaper."""
    names = len(reading.columns.names)
    most = min(reading.rows // MIN_ROWS_A_STREAMED_SAMPLE_ROW, BYTES_OF_SAMPLE // (8 * names))
    return reading.columns.data(reading.sample(max(few, most)))


@dataclass(frozen=True)
class Task:
    """A fit as requested, which is sent to a worker that prepares the same problem."""

    reading: Reading
    loglik: Loglik
    params0: Tree
    options: Options

    def prepared(self) -> tuple[Posed, Problem, Work]:
        """The problem with a sample instead of the data, and what a pass needs."""
        reading = self.reading
        sample = reading.sample(ROWS_OF_SAMPLE)
        weights = self.options.weights
        coding = Coding(reading, self.loglik, None if weights is None else weights.kind)
        try:
            posed = self._posed(sample)
        except ValueError:
            # For a rejected value, the message gives the file and the row.
            reading.sample(ROWS_OF_SAMPLE, lambda chunk: coding.check(chunk, sample))
            raise
        try:
            problem = problem_in_pieces(posed, self.options, [reading.rows], OF_A_SOURCE)
        except ValueError:
            bare = without_prior(posed.loglik)
            screening = Screening(coding, bare, posed.layout, posed.base, sample)
            reading.sample(ROWS_OF_SAMPLE, screening.check)
            raise
        core = without_prior(problem.loglik)
        layout = problem.layout
        form = form_of(problem, reading.columns)
        screening = Screening(coding, core, layout, posed.base, sample)
        return posed, problem, Work(core, form, reading, screening)

    def _posed(self, sample: tuple[ndarray, ...]) -> Posed:
        columns = self.reading.columns
        return posed_on_sample(columns, sample, self.loglik, self.params0, self.options)

    def for_travel(self) -> Task:
        """The task without what only the caller needs."""
        return replace(self, options=replace(self.options, progress=None))


def _work(task: Task) -> Work:
    return task.prepared()[2]


def _fitted(
    quantities: Quantities, runner: SourceRunner, loglik: Loglik, posed: Posed, conduct: Conduct
) -> Fit:
    """The fit, together with what depends on all rows."""
    fitted = concluded(quantities, loglik, posed, conduct, STREAMED)
    fitted = _with_cone(fitted, quantities, runner.work.reading)
    fitted = _with_response_id(fitted, loglik, runner)
    return with_signals(fitted, loglik, posed.loglik, posed.data)


def _with_cone(fit: Fit, quantities: Quantities, reading: Reading) -> Fit:
    """The record with its recession cone, if all rows fit in memory; otherwise the ascent's own
    path shows what is infinite.
    """
    if fit.verdict != Status.SEPARATED:
        return fit
    columns = reading.columns
    if reading.rows * (len(columns.names) + fit.layout.p) > MAX_VALUES_FOR_CONE:
        return fit
    chunks = [chunk.arrays for chunk in reading.ahead(range(len(reading.files)))]
    arrays = tuple(np.concatenate(column) for column in zip(*chunks, strict=True))
    return with_cone_of_rows(fit, quantities, columns, arrays)


def _with_response_id(fit: Fit, loglik: Loglik, runner: SourceRunner) -> Fit:
    """The fit with the fingerprint of its response and its weights."""
    columns = runner.work.reading.columns
    response = response_of(loglik, columns.tree)
    if response is None:
        return fit
    digests = dict(zip(columns.names, runner.row_counts.digests, strict=True))
    names = [name for leaf in response.values() for name in names_in(leaf)]
    weights = [] if columns.weights is None else [columns.weights]
    return replace(fit, response_id=fingerprint_of(*(digests[name] for name in names + weights)))


# ---------------------------------------------------------------- what cannot be streamed


def _columns(columns: Columns, options: Options) -> Columns:
    """The columns of the data with those of weights and clusters."""
    weights = None
    if options.weights is not None:
        values = options.weights.values if isinstance(options.weights, Weights) else None
        if not isinstance(values, str):
            raise TypeError(
                "with a source, weights must name a column, "
                "weights=jaxmle.frequency('w') or jaxmle.sampling('w'); got "
                f"{shown(options.weights)}"
            )
        weights = values
    given: Tree = options.clusters
    names = [given] if isinstance(given, str) else [] if given is None else given
    is_named = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not is_named or len(names) > 2:
        raise TypeError(
            "with a source, clusters must name a column, clusters='firm', or two "
            f"columns, clusters=('firm', 'year'); got {shown(given)}"
        )
    return replace(columns, weights=weights, clusters=tuple(names))
