"""Checks of the terms themselves: their shape, whether they are finite, and how they change if rows
are doubled, moved or replaced.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, FunctionTo, Tree, ndarray
from jaxmle.inference.linting.probe import MemberInputs, Probe
from jaxmle.inference.linting.report import Finding
from jaxmle.likelihood.contract import data_length
from jaxmle.likelihood.discovery.row_axes import proof_of

TERM_NOISE = 1e-9  # relative noise of a term: float64 leaves 1e-16 to 1e-12, float32 about 3e-8


def check_shape(probe: Probe) -> Finding:
    """Check that there is one term per observation, or one scalar."""
    try:
        shapes = [terms.shape for terms in probe.rows(probe.z)]
    except (TypeError, ValueError) as error:
        message = (
            " ".join(str(error).split())
            .split(" The error occurred")[0]
            .split(" For more information")[0][:400]
        )
        hint = (
            " Use jnp.where or jax.lax.cond instead of Python's if, int or float."
            if isinstance(error, jax.errors.ConcretizationTypeError)
            else ""
        )
        return Finding(
            "shape",
            False,
            f"it cannot be evaluated: {message}{hint}",
            {"error": type(error).__name__},
        )
    if () in shapes:
        sentence = (
            "it returns one scalar, which is right for dependent rows; rows then have no "
            "scores and cannot be weighted, clustered or resampled"
        )
        return Finding("shape", True, sentence, {"shapes": shapes}, note=True)
    return Finding("shape", True, "one term per observation", {"shapes": shapes})


def check_finite(probe: Probe) -> Finding:
    """Check that terms, score and Hessian are numbers, at the start and near it. Terms of −inf near
    the start are handled by ``support``.
    """
    for number, z in enumerate((probe.z, *probe.near)):
        place = "a point near the start" if number else "the start"
        for k, terms in enumerate(probe.rows(z)):
            bad = ~np.isfinite(terms) if not number else np.isnan(terms) | (terms == np.inf)
            if np.any(bad):
                row = int(np.flatnonzero(np.atleast_1d(bad))[0])
                value = float(np.atleast_1d(terms)[row])
                what = f"the term of {probe.place(k, row)}" if terms.ndim else "the log-likelihood"
                remedy = (
                    "give a constraint or a start at which the model is defined"
                    if number
                    else "check the logs and roots in that row"
                )
                return Finding(
                    "finite",
                    False,
                    f"{what} is {value} at {place}: {remedy}",
                    {"at": place, "row": row, "params": probe.x(z)},
                )
        if not probe.obstacle and all(np.all(np.isfinite(terms)) for terms in probe.rows(z)):
            for what, name in _not_finite(probe, z):
                sentence = (
                    f"the value is finite but the {what} in {name} is not, at {place}: "
                    "where() differentiates both branches, so make the unused branch "
                    "safe too"
                )
                return Finding(
                    "finite",
                    False,
                    sentence,
                    {"near": place, "parameter": name, "params": probe.x(z)},
                )
    return Finding(
        "finite",
        True,
        f"value, score and Hessian are finite at the start and at {len(probe.near)} points near it",
    )


def _not_finite(probe: Probe, z: ndarray) -> list[tuple[str, str]]:
    """Which of score and Hessian have non-finite values, and the first such parameter."""
    point = probe.whole(z, probe.data)
    parts = (("score", point.score), ("Hessian", np.diagonal(point.hessian)))
    return [
        (what, probe.names(int(np.flatnonzero(~np.isfinite(part))[0])))
        for what, part in parts
        if not np.all(np.isfinite(part))
    ]


def _doubled(data: Tree) -> Tree:
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), data)


def check_sum(probe: Probe, member: MemberInputs) -> Finding:
    """Check by giving every row twice: a sum doubles, a mean stays, a sum over (n, n) quadruples;
    and the terms of the first copy do not change.
    """
    n = data_length(member.data)
    x = probe.x(probe.regular_points[0])
    if n is None:
        return Finding(
            "sum", None, "not checked: the likelihood closes over its rows; pass them as data"
        )
    terms = member.terms(x, member.data)
    try:
        doubled = member.terms(x, _doubled(member.data))
    except (TypeError, ValueError):  # it closes over an array of n rows, as the finding says
        return Finding(
            "sum",
            None,
            "not checked: it fails for data of another length, so it closes over an array",
        )
    doubled = doubled if terms.ndim == 0 else doubled[:n]
    close = 1e-8 + 100 * probe.noise

    def fits(factor: Tree) -> bool:
        return bool(np.all(np.abs(doubled - factor * terms) <= close * (1 + np.abs(terms))))

    evidence = {"ratio": float(np.sum(doubled) / np.sum(terms))}
    return _sum_of_terms(fits, evidence) if terms.ndim else _sum_of_scalar(fits, evidence)


def _sum_of_terms(fits: Callable[[float], bool], evidence: dict[str, Tree]) -> Finding:
    if fits(0.5) and not fits(1.0):
        return Finding(
            "sum",
            False,
            "its terms are divided by the number of rows: return the terms themselves, or every "
            "standard error is √n too large",
            evidence,
        )
    sentence = (
        "terms do not depend on the number of rows"
        if fits(1.0)
        else "undecided: terms depend on other rows"
    )
    return Finding("sum", fits(1.0) or None, sentence, evidence)


def _sum_of_scalar(fits: Callable[[float], bool], evidence: dict[str, Tree]) -> Finding:
    if fits(2.0) and fits(1.0):
        return Finding("sum", None, "undecided: the log-likelihood is zero", evidence)
    if fits(2.0):
        return Finding(
            "sum",
            True,
            "the scalar is a sum over rows: it doubles when every row is given twice. Return its "
            "terms instead",
            evidence,
            note=True,
        )
    if fits(1.0):
        return Finding(
            "sum",
            False,
            "the scalar is a mean over rows: return the sum, or better the terms; standard "
            "errors and AIC of a mean are wrong",
            evidence,
        )
    if fits(4.0):
        sentence = (
            "the scalar is a sum over n × n pairs of rows: a column of shape (n, 1) against a "
            "vector (n,) broadcasts; flatten the column"
        )
        return Finding("sum", False, sentence, evidence)
    sentence = (
        "undecided: giving every row twice multiplies the scalar by "
        f"{evidence['ratio']:.4g}, as for dependent rows, a prior inside or a closed-over "
        "n"
    )
    return Finding("sum", None, sentence, evidence)


def check_rows(probe: Probe, member: MemberInputs) -> Finding:
    """Find out whether term i depends only on row i, on some other rows, as in a series, or on all
    rows.
    """
    n = data_length(member.data)
    x = probe.x(probe.regular_points[0])
    terms = member.terms(x, member.data)
    if terms.ndim == 0:
        return Finding("rows", None, "not checked: a scalar has no terms")
    if n is None or n < 4:
        return Finding("rows", None, "not checked: it needs data of four rows or more")
    if proof_of(member.loglik, probe.chart.layout, probe.base, member.data).holds:
        evidence = {"row": 0, "felt_by": 0, "permutes": True}
        return Finding("rows", True, "each term depends only on its own row", evidence)
    close = max(1e-9, 100 * probe.noise)

    def same(a: Array, b: Array) -> Tree:
        return (a == b) | (np.abs(a - b) <= close * (1 + np.abs(b)))

    order = probe.rng.permutation(n)
    shuffled = member.terms(x, jax.tree.map(lambda leaf: leaf[order], member.data))
    permutes = bool(np.all(same(shuffled, terms[order])))
    changed_by = [(j, _noticed(member, x, terms, j, same)) for j in _replaced(member.data, n)]
    return _rows_finding(changed_by, n, permutes)


def _rows_finding(changed_by: list[tuple[int, ndarray]], n: int, permutes: bool) -> Finding:
    """The finding, from the terms that changed with each replaced row."""
    row, changed = max(changed_by, key=lambda entry: int(entry[1].sum()))
    evidence = {"row": row, "felt_by": int(changed.sum()), "permutes": permutes}
    # In a series a replaced row changes only later terms, at any distance.
    if any(
        changed.sum() >= 0.9 * (n - 1) and changed[:j].any() and changed[j:].any()
        for j, changed in changed_by
    ):
        sentence = (
            f"every term changes if row {row} does: the likelihood computes a mean, "
            "maximum or other statistic of the whole sample. Compute it beforehand and "
            "pass it as data, unless this is a partial likelihood"
        )
        return Finding("rows", False, sentence, evidence)
    if evidence["felt_by"]:
        sentence = (
            "terms depend on other rows, as in a time series: single rows cannot be "
            "resampled, weighted or permuted; use a block bootstrap or HAC standard "
            "errors"
        )
        return Finding("rows", True, sentence, evidence, note=True)
    if not permutes:
        sentence = (
            "terms depend on the position of their row: the likelihood closes over an "
            "array with one entry per row. Pass it in data, otherwise rows cannot be "
            "resampled"
        )
        return Finding("rows", True, sentence, evidence, note=True)
    return Finding("rows", True, "each term depends only on its own row", evidence)


def _replaced(data: Tree, n: int) -> list[int]:
    """Rows to replace: some throughout the data, and those with an extreme value, on which a
    maximum or a minimum depends.
    """
    extreme = [
        int(pick(leaf))
        for leaf in jax.tree.leaves(data)
        if leaf.ndim == 1
        for pick in (np.argmin, np.argmax)
    ]
    return [int(j) for j in np.unique([*np.linspace(1, n - 2, 6).astype(int), *extreme[:12]])]


def _noticed(
    member: MemberInputs, x: ndarray, terms: ndarray, j: int, same: FunctionTo[ndarray]
) -> ndarray:
    """The other rows (n,) whose terms change when row j is replaced by one from half the data
    away.
    """
    other = (j + len(terms) // 2) % len(terms)
    changed = ~same(
        member.terms(x, jax.tree.map(lambda leaf: leaf.at[j].set(leaf[other]), member.data)), terms
    )
    changed[j] = False
    return changed


def check_precision(probe: Probe) -> Finding:
    """Check that terms are smooth down to the resolution of float64."""
    evidence = {"noise": probe.noise}
    kinds = {terms.dtype.name for terms in probe.rows(probe.z)}
    if kinds != {"float64"} or probe.noise > TERM_NOISE:
        sentence = (
            f"terms are rough at a relative level of {probe.noise:.0e}; in float64 1e-16 "
            "to 1e-12 is normal. Look for a cast to float32, an iteration that stops "
            "early, or a difference of large numbers; standard errors lose digits"
        )
        return Finding("precision", False, sentence, evidence | {"dtypes": sorted(kinds)})
    return Finding("precision", True, "terms are smooth down to float64", evidence)
