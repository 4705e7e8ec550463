"""What fits whose rows are summed in pieces (chunks of a source, shards of devices) have in common:
the likelihoods and options they accept, and the end of a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxmle._types import Loglik, Tree, ndarray
from jaxmle.fitting.ending import complete
from jaxmle.fitting.fit import Conduct, check_rows, search_on_host, with_structure
from jaxmle.fitting.identification import traced_to
from jaxmle.fitting.options import Options, Posed, read
from jaxmle.fitting.passes import Problem, problem_of
from jaxmle.fitting.recession import FitInputs, with_cone
from jaxmle.fitting.signals import with_rules
from jaxmle.likelihood.combinators import Pool, Weight, Weights
from jaxmle.likelihood.contract import as_tree, need_terms
from jaxmle.likelihood.discovery.derivative_rules import check_rules
from jaxmle.likelihood.discovery.row_axes import proof_of
from jaxmle.likelihood.discovery.self_check import evaluation_of
from jaxmle.likelihood.evaluate import usual_block_rows, usual_opaque_rows
from jaxmle.likelihood.information.covariance import CLUSTER_KINDS, LEVERAGED
from jaxmle.likelihood.information.hac import HAC
from jaxmle.likelihood.regression import Regression
from jaxmle.likelihood.response import Simulation
from jaxmle.likelihood.structure import core_of, has, jeffreys_of, term_shape
from jaxmle.parameters.arguments import shown
from jaxmle.record.fit import Fit
from jaxmle.record.identity import call_of
from jaxmle.solvers.methods import Newton
from jaxmle.solvers.status import Status
from jaxmle.streams.kernels import Form, RowArrays
from jaxmle.streams.quantities import Quantities

ROWS_OF_SAMPLE = 20_000  # that start values and the structure of the likelihood are taken from
MAX_VALUES_FOR_CONE = 2**24  # of all rows, 128 MB: the most held in memory for a recession cone


class Pieces(NamedTuple):
    """What the pieces are, in the words of an error message."""

    call: str  # "fit(source=…)"
    rows: str  # what holds the rows: "a source"
    remedy: str  # where something that belongs to each row goes


def refuse_in_pieces(loglik: Loglik, options: Options, pieces: Pieces) -> None:
    """Reject what a fit in pieces cannot do, from the arguments alone.

    Raises:
        ValueError: for a pool, weights inside the likelihood, Jeffreys's prior, or a solver that
            does not step by Newton's method.
    """
    tree = as_tree(loglik)
    if has(tree, Pool):
        raise ValueError(
            f"a pool has several data sets, and {pieces.rows} is one: stack them, with a "
            "column that identifies the data set"
        )
    if has(tree, Weight):
        raise ValueError(
            "the likelihood contains weights, one for each row in memory; with "
            f"{pieces.rows} {pieces.remedy}"
        )
    if jeffreys_of(tree) is not None:
        raise ValueError("jeffreys's prior needs all rows at once: fit data in memory")
    if options.solver is not None and not isinstance(options.solver, Newton):
        raise ValueError(
            f"{pieces.call} uses Newton's method; got solver={shown(options.solver)}: leave it out"
        )


def problem_in_pieces(
    posed: Posed, options: Options, lengths: Sequence[int], pieces: Pieces
) -> Problem:
    """The static part of the fit, with what is found in the program of the likelihood.

    Args:
        posed: the problem with a sample instead of the data.
        lengths: numbers of rows, of which the last is that of all rows.

    Raises:
        ValueError: a covariance that needs rows beside each other, or a likelihood whose rows are
            not proved to be independent.
    """
    solver = Newton() if options.solver is None else options.solver
    problem = problem_of(posed.loglik, posed.chart, replace(options, solver=solver))
    _refuse_covariance(problem, pieces)
    check_rows(problem, posed.base, posed.data)
    problem = with_structure(problem, posed.base, replace(posed, rows=lengths[-1]))
    _need_rows_apart(problem, posed, lengths, pieces)
    return replace(problem, block_rows=options.block_rows or _block_rows(problem))


def form_of(problem: Problem, columns: RowArrays) -> Form:
    """The static part of the programs of such a problem."""
    block_rows = problem.block_rows or usual_opaque_rows()
    return Form(problem.layout, columns, problem.weighting, block_rows, problem.kind)


def _block_rows(problem: Problem) -> int:
    """Rows that are summed at once, so that they stay in the cache."""
    is_regression = isinstance(core_of(problem.loglik), Regression)
    return usual_block_rows(problem.layout.p) if is_regression else usual_opaque_rows()


def _refuse_covariance(problem: Problem, pieces: Pieces) -> None:
    kind = problem.kind
    if isinstance(kind, HAC):
        raise ValueError(
            f"vcov='hac' needs neighbouring rows together, which {pieces.rows} does not "
            "have: use clusters in time, clusters='month', or fit data in memory"
        )
    if kind in CLUSTER_KINDS and kind in LEVERAGED:
        raise ValueError(
            f"vcov={kind!r} needs the information of every cluster at once, which "
            f"{pieces.rows} does not have: use 'CR0', 'CR1' or 'CR1S'"
        )
    law = getattr(core_of(problem.loglik), "response", None)
    if kind == "expected" and isinstance(law, Simulation):
        raise ValueError(
            f"vcov='expected' by simulation draws all rows at once, which {pieces.rows} "
            "does not have: use 'observed', or an exact law of the response"
        )


def _need_rows_apart(
    problem: Problem, posed: Posed, lengths: Sequence[int], pieces: Pieces
) -> None:
    """Refuse a likelihood whose rows are not proved to be independent: it is summed in pieces."""
    shape = term_shape(core_of(problem.loglik), problem.layout, posed.base, posed.data)
    if not shape:
        need_terms(np.zeros(()), pieces.call)
    known = [posed.rows or 1, usual_opaque_rows(), *lengths]
    proof = proof_of(problem.loglik, problem.layout, posed.base, posed.data, known)
    if not proof.holds:
        raise ValueError(
            f"{pieces.call} sums the rows in pieces, which needs terms that are proved to "
            f"depend only on their own row; these are not ({proof.obstacle}). Write each "
            "term as a function of its own row, and pass what it needs from other rows "
            "(a mean, a lag, 1/n) as a column"
        )


def concluded(
    quantities: Quantities, loglik: Loglik, posed: Posed, conduct: Conduct, word: str
) -> Fit:
    """Search, and make the record, with what else is known.

    Args:
        loglik: the likelihood as the user gave it.
        word: what ``Fit.evaluation`` says about the pieces.
    """
    problem = quantities.problem
    passes = quantities.passes()
    verdict, reached, steps_before, head = search_on_host(passes, conduct)
    points = [verdict.point.aux.x, posed.base][: 2 - (verdict.status == Status.CONVERGED)]
    rules = check_rules(problem.loglik, problem.layout, points, posed.data)
    if rules.hessian:  # the ascent used a wrong one; from now on use differences
        verdict, reached, steps_before, head = search_on_host(passes, conduct)
    runner = quantities.runner
    if not runner.n > 0:
        raise ValueError("all weights are zero: there are no observations")
    n = np.asarray(runner.n, posed.dtype)[()]
    fitted = complete(passes, verdict, reached, verdict.point, n, runner.data_id, steps_before)
    evaluation = evaluation_of(posed.loglik, problem.loglik)
    fitted = replace(fitted, evaluation=", ".join([evaluation, *head, word]))
    if fitted.verdict == Status.UNIDENTIFIED:
        fitted = traced_to(fitted, passes, verdict.point.z)
    return replace(with_rules(fitted, problem.loglik, rules), model=call_of(loglik))


def posed_on_sample(
    columns: RowArrays, sample: Sequence[ndarray], loglik: Loglik, params0: Tree, options: Options
) -> Posed:
    """The problem with a sample of the rows instead of the data."""
    values = columns.weights_in(sample)
    weights = None
    if values is not None and options.weights is not None:
        in_sample = values if np.any(values > 0) else np.ones_like(values, float)
        weights = Weights(in_sample, options.weights.kind)
    return read(loglik, params0, columns.data(sample), replace(options, weights=weights))


def with_cone_of_rows(
    fit: Fit, quantities: Quantities, columns: RowArrays, arrays: Sequence[ndarray]
) -> Fit:
    """The record with its recession cone, from the columns (n, …) of all rows."""
    problem = quantities.problem
    loglik: Tree = problem.loglik
    values = columns.weights_in(arrays)
    if values is not None:
        loglik = Weight(loglik.loglik, Weights(values, problem.weighting))
    data = columns.data(arrays)
    return with_cone(fit, FitInputs(loglik, problem.roots, quantities.base, data, len(arrays[0])))
