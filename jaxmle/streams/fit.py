"""``fit`` of a source: the search, the verdict and the record are those of rows in memory; only the
passes over the rows are others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from jaxmle._types import Data, Loglik, Tree
from jaxmle.fitting.ending import complete
from jaxmle.fitting.fit import Manner, check_rows, search_on_host, with_structure
from jaxmle.fitting.head_start import Sampler
from jaxmle.fitting.identification import traced_to
from jaxmle.fitting.options import Options, Posed, read
from jaxmle.fitting.passes import Passes, Problem, problem_of
from jaxmle.fitting.recession import with_cone
from jaxmle.fitting.signals import with_rules, with_signals
from jaxmle.likelihood.combinators import Pool, Weight, Weights
from jaxmle.likelihood.contract import as_tree, need_terms
from jaxmle.likelihood.designs import MIN_COLUMNS_FOR_TRIANGULAR_PRODUCT
from jaxmle.likelihood.discovery.derivative_rules import check_rules
from jaxmle.likelihood.discovery.row_axes import proof_of
from jaxmle.likelihood.discovery.self_check import road_of
from jaxmle.likelihood.evaluate import CACHED_OPAQUE, CACHED_ROWS, CACHED_WIDE
from jaxmle.likelihood.information.covariance import CLUSTER_KINDS, LEVERAGED
from jaxmle.likelihood.information.hac import HAC
from jaxmle.likelihood.regression import Regression
from jaxmle.likelihood.response import Simulation
from jaxmle.likelihood.structure import core_of, has, jeffreys_of, term_shape
from jaxmle.parameters.arguments import shown
from jaxmle.record.fit import Fit
from jaxmle.record.identity import response_of
from jaxmle.runtime.checkpoint import Checkpoint
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only
from jaxmle.solvers.methods import Newton
from jaxmle.solvers.status import Status
from jaxmle.streams.columns import Columns, names_in
from jaxmle.streams.engines import results_by
from jaxmle.streams.files import check_columns
from jaxmle.streams.kernels import Form
from jaxmle.streams.landmarks import identity, keeper, last_landmark
from jaxmle.streams.passes import Runner, Work
from jaxmle.streams.quantities import Quantities, prior_alone, without_prior
from jaxmle.streams.reader import Reading
from jaxmle.streams.screen import Coding, Screening, fingerprint_of

ROWS_OF_SAMPLE = 20_000  # that start values and the structure of the likelihood are taken from
MIN_ROWS_A_STREAMED_SAMPLE_ROW = (
    16  # all rows over those that a climb begins with, where these are many
)
BYTES_OF_SAMPLE = 2**26  # of those at most
MAX_VALUES_FOR_CONE = 2**24  # of all rows, 128 MB: so many are read into memory for a cone
STREAMED = "streamed"


def fit_source(
    reading: Reading, loglik: Loglik, params0: Tree, options: Options, engine: Any, checkpoint: Any
) -> Fit:
    """The fit of a log-likelihood to rows that are read at each pass; see ``fit``."""
    host_only("fit(source=…)")
    _refuse(loglik, options)
    reading = replace(reading, columns=_columns(reading.columns, options))
    check_columns(reading.files, reading.columns.names, reading.columns.clusters)
    with precision(np.float64), np.errstate(all="ignore"), Checkpoint(checkpoint) as store:
        task = Task(reading, loglik, params0, options)
        posed, problem, work = task.prepared()
        # what travels is the start itself, the same for all
        prepare = partial(_work, replace(task, params0=posed.params).for_travel())
        runner = Runner(work, results_by(engine, work, prepare), options.progress)
        prior = prior_alone(problem.loglik)
        quantities = Quantities(problem, posed.base, posed.data, prior, runner)
        if checkpoint is not None:
            store.open(identity(problem, posed.base, posed.data, reading))
        resumed = last_landmark(store, problem.chart.k)
        sampler = Sampler(reading.rows, partial(_sample, reading))
        manner = Manner(options.progress, sampler, resumed, keeper(store, resumed))
        return _fitted(quantities, loglik, posed, manner)


def _sample(reading: Reading, few: int) -> Data:
    """The rows that a climb begins with: more than in memory, where a pass costs less."""
    names = len(reading.columns.names)
    most = min(reading.rows // MIN_ROWS_A_STREAMED_SAMPLE_ROW, BYTES_OF_SAMPLE // (8 * names))
    return reading.columns.data(reading.sample(max(few, most)))


@dataclass(frozen=True)
class Task:
    """A fit as it was asked for: what travels to a worker, who prepares the same as the caller."""

    reading: Reading
    loglik: Loglik
    params0: Tree
    options: Options

    def prepared(self) -> tuple[Posed, Problem, Work]:
        """The problem with a sample in the place of the data, and what a pass needs."""
        reading = self.reading
        sample = reading.sample(ROWS_OF_SAMPLE)
        weights = self.options.weights
        coding = Coding(reading, self.loglik, None if weights is None else weights.kind)
        try:
            posed = self._posed(sample)
        except ValueError:
            # Of a value that is not taken, the file and the row are said.
            reading.sample(ROWS_OF_SAMPLE, lambda chunk: coding.check(chunk, sample))
            raise
        try:
            problem = _problem(posed, self.options, reading.rows)
        except ValueError:
            bare = without_prior(posed.loglik)
            screening = Screening(coding, bare, posed.layout, posed.base, sample)
            reading.sample(ROWS_OF_SAMPLE, screening.check)
            raise
        core = without_prior(problem.loglik)
        block_rows = problem.block_rows or CACHED_OPAQUE
        layout = problem.layout
        form = Form(layout, reading.columns, problem.weighting, block_rows, problem.kind)
        screening = Screening(coding, core, layout, posed.base, sample)
        return posed, problem, Work(core, form, reading, screening)

    def _posed(self, sample: tuple[np.ndarray, ...]) -> Posed:
        columns = self.reading.columns
        values = columns.weights_in(sample)
        weights = None
        if values is not None:
            in_sample = values if np.any(values > 0) else np.ones_like(values, float)
            weights = Weights(in_sample, self.options.weights.kind)
        options = replace(self.options, weights=weights)
        return read(self.loglik, self.params0, columns.data(sample), options)

    def for_travel(self) -> Task:
        """The task without what only the caller needs."""
        return replace(self, options=replace(self.options, progress=None))


def _work(task: Task) -> Work:
    return task.prepared()[2]


def _problem(posed: Posed, options: Options, rows: int) -> Problem:
    """What is static about the fit, with what is seen in the program of the likelihood."""
    solver = Newton() if options.solver is None else options.solver
    problem = problem_of(posed.loglik, posed.chart, replace(options, solver=solver))
    _refuse_covariance(problem)
    check_rows(problem, posed.base, posed.data)
    problem = with_structure(problem, posed.base, replace(posed, rows=rows))
    _need_rows_apart(problem, posed, rows)
    return replace(problem, block_rows=options.block_rows or _block_rows(problem))


def _block_rows(problem: Problem) -> int:
    """Rows that are summed at once, so that they stay in the cache."""
    if not isinstance(core_of(problem.loglik), Regression):
        return CACHED_OPAQUE
    wide = problem.layout.p > MIN_COLUMNS_FOR_TRIANGULAR_PRODUCT
    return CACHED_WIDE if wide else CACHED_ROWS


def _fitted(quantities: Quantities, loglik: Loglik, posed: Posed, manner: Manner) -> Fit:
    """Search, conclude, and mark the record with what is known beside."""
    problem = quantities.problem
    passes = quantities.passes()
    verdict, reached, steps_before, head = search_on_host(passes, manner)
    points = [verdict.point.aux.x, posed.base][: 2 - (verdict.status == Status.CONVERGED)]
    rules = check_rules(problem.loglik, problem.layout, points, posed.data)
    if rules.hessian:  # the climb used a wrong one; from now on differences are taken
        verdict, reached, steps_before, head = search_on_host(passes, manner)
    census = quantities.runner.census
    if not census.n > 0:
        raise ValueError("every weight is zero: no observation is left")
    data_id = fingerprint_of(*census.digests)
    n = np.asarray(census.n, posed.dtype)[()]
    fitted = complete(passes, verdict, reached, verdict.point, n, data_id, steps_before)
    road = road_of(posed.loglik, problem.loglik)
    fitted = replace(fitted, road=", ".join([road, *head, STREAMED]))
    if fitted.verdict == Status.UNIDENTIFIED:
        fitted = traced_to(fitted, passes, verdict.point.z)
    fitted = with_rules(fitted, problem.loglik, rules)
    fitted = _with_cone(fitted, quantities, passes)
    fitted = _with_response_id(fitted, loglik, quantities)
    return with_signals(fitted, loglik, posed.loglik, posed.data)


def _with_cone(fit: Fit, quantities: Quantities, passes: Passes) -> Fit:
    """The record with the cone of its recession, where all rows fit into memory for it. Of more
    rows the climb's own path says what is infinite.
    """
    reading = quantities.runner.work.reading
    if fit.verdict != Status.SEPARATED:
        return fit
    columns = reading.columns
    if reading.rows * (len(columns.names) + fit.layout.p) > MAX_VALUES_FOR_CONE:
        return fit
    chunks = [chunk.arrays for chunk in reading.ahead(range(len(reading.files)))]
    arrays = tuple(np.concatenate(column) for column in zip(*chunks, strict=True))
    loglik = quantities.problem.loglik
    values = columns.weights_in(arrays)
    if values is not None:
        loglik = Weight(loglik.loglik, Weights(values, quantities.problem.weighting))
    roots = quantities.problem.roots
    return with_cone(fit, loglik, roots, passes.base, columns.data(arrays), reading.rows)


def _with_response_id(fit: Fit, loglik: Loglik, quantities: Quantities) -> Fit:
    """The fit with the fingerprint of its response and its weights."""
    columns = quantities.runner.work.reading.columns
    response = response_of(loglik, columns.tree)
    if response is None:
        return fit
    digests = dict(zip(columns.names, quantities.runner.census.digests, strict=True))
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
                "with a source weights name a column, weights=jaxmle.frequency('w') or "
                f"jaxmle.sampling('w'); got {shown(options.weights)}"
            )
        weights = values
    given = options.clusters
    names = [given] if isinstance(given, str) else [] if given is None else given
    is_named = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not is_named or len(names) > 2:
        raise TypeError(
            "with a source clusters name a column, clusters='firm', or two of them, "
            f"clusters=('firm', 'year'); got {shown(given)}"
        )
    return replace(columns, weights=weights, clusters=tuple(names))


def _refuse(loglik: Loglik, options: Options) -> None:
    """What a fit of a source does not do, from the arguments alone."""
    tree = as_tree(loglik)
    if has(tree, Pool):
        raise ValueError(
            "a pool has several data sets, and a source is one: stack them in the files, with a "
            "column that says which is which"
        )
    if has(tree, Weight):
        raise ValueError(
            "the likelihood holds weights, one for each row in memory; with a source they are a "
            "column: fit(loglik, source=…, weights=jaxmle.frequency('w'))"
        )
    if jeffreys_of(tree) is not None:
        raise ValueError("jeffreys's prior needs every row at once: fit it to data in memory")
    if options.solver is not None and not isinstance(options.solver, Newton):
        raise ValueError(
            f"a fit of a source steps by Newton's method; got solver={shown(options.solver)}: "
            "leave it out"
        )
    if options.dtype is not None and options.dtype != np.float64:
        raise ValueError("a source is summed in float64: leave dtype out")


def _refuse_covariance(problem: Problem) -> None:
    kind = problem.kind
    if isinstance(kind, HAC):
        raise ValueError(
            "vcov='hac' needs rows beside each other, which a source does not hold: use clusters "
            "of time, clusters='month', or fit to data in memory"
        )
    if kind in CLUSTER_KINDS and kind in LEVERAGED:
        raise ValueError(
            f"vcov={kind!r} needs the information of every cluster at once, which a source does "
            "not hold: use 'CR0', 'CR1' or 'CR1S'"
        )
    law = getattr(core_of(problem.loglik), "response", None)
    if kind == "expected" and isinstance(law, Simulation):
        raise ValueError(
            "vcov='expected' by simulation draws all rows at once, which a source does not hold: "
            "use 'observed', or a law that is exact"
        )


def _need_rows_apart(problem: Problem, posed: Posed, rows: int) -> None:
    """Refuse a likelihood whose rows are not proved to be kept apart: it is summed in pieces."""
    shape = term_shape(core_of(problem.loglik), problem.layout, posed.base, posed.data)
    if not shape:
        need_terms(np.zeros(()), "fit(source=…)")
    lengths = [posed.rows or 1, CACHED_OPAQUE, rows]
    proof = proof_of(problem.loglik, problem.layout, posed.base, posed.data, lengths)
    if not proof.holds:
        raise ValueError(
            "fit(source=…) sums the rows in pieces, which needs terms that are proved to depend on "
            f"their own row only, and these are not ({proof.obstacle}). Write each term as a "
            "function of its own row, and pass what it takes from the others (a mean, a lag, 1/n) "
            "as a column"
        )
